//! The entry points of the loadable extension, <https://www.sqlite.org/loadext.html>.
//!
//! SQLite derives `sqlite3_kanbanvfs_init` from the name of the file. The other one is named by
//! applications whose connection strings can not change:
//!
//! ```sql
//! SELECT load_extension('libkanban_vfs', 'sqlite3_kanbanvfs_default_init');
//! ```
// The functions are public to the linker.
#![allow(unsafe_code, unreachable_pub)]

use std::ffi::c_char;

use crate::Options;
use crate::ffi::{
    Rc, SQLITE_ERROR, SQLITE_OK_LOAD_PERMANENTLY, connect, no_panic, sqlite3, sqlite3_api_routines,
    vfs,
};
use crate::host::Host;

/// Registers the VFS `kanban` with the SQLite that loads the extension. Loading it again is
/// harmless.
///
/// Returns `SQLITE_OK_LOAD_PERMANENTLY`, or `SQLITE_ERROR` and a message: an SQLite before 3.31,
/// a malformed environment variable, a base VFS that does not exist, or another VFS named kanban.
///
/// # Safety
/// SQLite calls it, with an open connection, null or a place for a message, and its functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_kanbanvfs_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> Rc {
    // SAFETY: the caller's promise.
    unsafe { init(db, message, api, false) }
}

/// As [`sqlite3_kanbanvfs_init`], and makes `kanban` the default VFS: connections that name no
/// VFS get it.
///
/// # Safety
/// As for [`sqlite3_kanbanvfs_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_kanbanvfs_default_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> Rc {
    // SAFETY: the caller's promise.
    unsafe { init(db, message, api, true) }
}

/// # Safety
/// As for [`sqlite3_kanbanvfs_init`].
unsafe fn init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
    make_default: bool,
) -> Rc {
    no_panic(SQLITE_ERROR, || {
        // SAFETY: SQLite passes its own functions.
        let host = match unsafe { Host::from_api(api) } {
            Ok(host) => host,
            Err(why) => {
                // SAFETY: the caller's promise; every SQLite has these two functions.
                return unsafe { fail_on_old_sqlite(message, api, &why.to_string()) };
            }
        };
        let registered = Options::from_env(|name| std::env::var_os(name)).and_then(|options| {
            vfs::register(host, &options.with_make_default(make_default))
                .map_err(|why| why.to_string())
        });
        if let Err(why) = registered {
            if !message.is_null() {
                // SAFETY: the caller's promise.
                unsafe { *message = host.allocate_text(&format!("kanban-vfs: {why}")) };
            }
            return SQLITE_ERROR;
        }
        // SAFETY: the caller's promise: an open connection of that library.
        unsafe { connect::define_functions(&host, db) };
        SQLITE_OK_LOAD_PERMANENTLY
    })
}

/// # Safety
/// As for [`sqlite3_kanbanvfs_init`].
unsafe fn fail_on_old_sqlite(
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
    why: &str,
) -> Rc {
    if !message.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *message = Host::allocate_text_anywhere(api, &format!("kanban-vfs: {why}")) };
    }
    SQLITE_ERROR
}

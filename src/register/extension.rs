//! The entry points of the loadable extension, <https://www.sqlite.org/loadext.html>.
//!
//! SQLite derives `sqlite3_kanbanvfs_init` from the name of the file. Applications whose connection strings cannot change
//! name the other one:
//!
//! ```sql
//! SELECT load_extension('libkanban_vfs', 'sqlite3_kanbanvfs_default_init');
//! ```
//!
//! [`kanban_vfs_register`] is for applications that reach their SQLite only as a shared library, not
//! through a connection that may load extensions. `include/kanban_vfs.h` declares all three for C.
// The functions are public to the linker.
#![allow(unsafe_code, unreachable_pub)]

use std::ffi::{c_char, c_int, c_void};

use super::connect_hook;
use crate::error::Error;
use crate::ffi::host::Host;
use crate::ffi::{ResultCode, copies, no_panic, sqlite3, sqlite3_api_routines};
use crate::options::Options;
use crate::sys;

/// Registers the VFS `kanban` with the SQLite that loads the extension. Loading it again is
/// harmless. SQLite calls it with the mutex of the connection that loads.
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
) -> ResultCode {
    // SAFETY: SQLite passes what `init` asks for.
    unsafe { init(db, message, api, false) }
}

/// Does what [`sqlite3_kanbanvfs_init`] does, and makes `kanban` the default VFS: connections that name no
/// VFS get it.
///
/// # Safety
/// SQLite calls it, with an open connection, null or a place for a message, and its functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_kanbanvfs_default_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> ResultCode {
    // SAFETY: SQLite passes what `init` asks for.
    unsafe { init(db, message, api, true) }
}

/// Registers the VFS `kanban` with the SQLite whose functions dlsym(3) finds through `library`:
/// what dlopen(3) gave for that SQLite or for a library that is linked with it, or `RTLD_DEFAULT`.
/// Doing it again is harmless. Makes it the default VFS if `make_default` is not 0.
///
/// Takes a handle rather than a table of functions, so that no caller, in whatever language, can
/// fill in the wrong one. Connections that are open already do not get `kanban_version()`.
///
/// Returns `SQLITE_OK`, or a message, cut to `size` bytes and terminated, and `SQLITE_ERROR` for the
/// reasons of [`sqlite3_kanbanvfs_init`], or `SQLITE_NOTFOUND` because a function is not to be found:
/// an SQLite whose symbols are hidden can only load the extension. The message is empty with
/// `SQLITE_OK`, and with `SQLITE_ERROR` after a panic, which standard error tells of.
///
/// # Safety
/// `library` is good for dlsym(3), and neither the SQLite nor this library is ever unloaded.
/// `message` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kanban_vfs_register(
    library: *mut c_void,
    make_default: c_int,
    message: *mut c_char,
    size: usize,
) -> ResultCode {
    if !message.is_null() && size > 0 {
        // SAFETY: the caller's promise: there is room for the terminator, which is all there is after a panic.
        unsafe { message.write(0) };
    }
    no_panic(ResultCode::ERROR, || {
        // SAFETY: the caller's promise: dlsym(3) finds the functions of one SQLite by that handle.
        let host = unsafe { Host::from_symbols(|name| sys::find_symbol(library, name)) };
        let missing = matches!(host, Err(Error::MissingFunction { .. }));
        let registered =
            host.map_err(|why| why.to_string()).and_then(|host| register(host, make_default != 0));
        let Err(why) = registered else { return ResultCode::OK };
        let text = format!("kanban-vfs: {why}");
        if !message.is_null() && size > 0 {
            let end = (0..size.min(text.len() + 1)).rfind(|at| text.is_char_boundary(*at));
            let cut = &text[..end.unwrap_or(0)];
            // SAFETY: the caller's promise; the text and its terminator are `size` bytes at most.
            unsafe {
                message.cast::<u8>().copy_from_nonoverlapping(cut.as_ptr(), cut.len());
                message.add(cut.len()).write(0);
            }
        }
        if missing { ResultCode::NOTFOUND } else { ResultCode::ERROR }
    })
}

/// Registers the VFS as the environment says.
fn register(host: Host, make_default: bool) -> Result<(), String> {
    let options = Options::from_env(sys::environment)?;
    super::register(host, &options.with_make_default(make_default)).map_err(|why| why.to_string())
}

/// What an extension's entry point does. What it returns to SQLite.
///
/// # Safety
/// `db` is an open connection, `message` null or a place for a message, and `api` null or the functions of that SQLite.
unsafe fn init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
    make_default: bool,
) -> ResultCode {
    let fail = |allocate: &dyn Fn() -> *mut c_char| {
        if !message.is_null() {
            // SAFETY: the caller's promise; SQLite frees the text, which is its own.
            unsafe { *message = allocate() };
        }
        ResultCode::ERROR
    };
    no_panic(ResultCode::ERROR, || {
        if api.is_null() {
            // From an SQLite that was built without extension loading, by sqlite3_auto_extension.
            return ResultCode::ERROR;
        }
        // SAFETY: SQLite passes its own functions.
        let host = match unsafe { Host::from_api(api) } {
            Ok(host) => host,
            Err(why) => {
                let why = format!("kanban-vfs: {why}");
                // SAFETY: SQLite passes its own functions, among which every version has its allocator.
                return fail(&|| unsafe { Host::allocate_text_anywhere(api, &why) });
            }
        };
        copies::note_passed(&host);
        if let Err(why) = register(host, make_default) {
            return fail(&|| host.allocate_text(&format!("kanban-vfs: {why}")));
        }
        // SAFETY: the caller's promise: an open connection of that library.
        unsafe { connect_hook::define_functions(&host, db) };
        ResultCode::OK_LOAD_PERMANENTLY
    })
}

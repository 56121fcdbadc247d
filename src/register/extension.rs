//! The entry points of the loadable extension, <https://www.sqlite.org/loadext.html>.
//!
//! SQLite derives `sqlite3_kanbanvfs_init` from the file's name. If an application's connection
//! strings cannot change, name the other entry point:
//!
//! ```sql
//! SELECT load_extension('libkanban_vfs', 'sqlite3_kanbanvfs_default_init');
//! ```
//!
//! [`kanban_vfs_register`] is for applications that reach SQLite only as a shared library, not
//! through a connection that may load extensions. `include/kanban_vfs.h` declares all but one of
//! these functions for C.
// The functions are public to the linker.
#![allow(unsafe_code, unreachable_pub)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;

use super::connect_hook;
use crate::error::Error;
use crate::ffi::host::Host;
use crate::ffi::{ResultCode, copies, no_panic, sqlite3, sqlite3_api_routines};
use crate::log;
use crate::options::{self, Options};
use crate::sys;

/// Registers the VFS `kanban` with the SQLite that loads the extension. Loading it again is
/// harmless. SQLite calls this with the mutex of the connection that loads.
///
/// Returns `SQLITE_OK_LOAD_PERMANENTLY`, or `SQLITE_ERROR` and a message. The errors: SQLite is
/// older than 3.31, an environment variable is malformed, the base VFS does not exist, or another
/// VFS is named kanban.
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

/// Does what [`sqlite3_kanbanvfs_init`] does, and makes `kanban` the default VFS, for connections
/// that name none.
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

/// Registers the VFS `kanban` with the SQLite whose functions dlsym(3) finds through `library`.
/// That is a handle that dlopen(3) returned for that SQLite or for a library linked with it, or
/// `RTLD_DEFAULT`. A second call is harmless. If `make_default` is not 0, the VFS becomes the
/// default one.
///
/// It takes a handle rather than a table of functions, so that no caller, in whatever language, can
/// fill in the wrong one. Connections that are already open do not get `kanban_version()`.
///
/// Returns `SQLITE_OK` and an empty message; `SQLITE_ERROR` for the reasons of
/// [`sqlite3_kanbanvfs_init`]; or `SQLITE_NOTFOUND` if dlsym(3) does not find a function. An SQLite
/// whose symbols are hidden can only load the extension. The message is cut to `size` bytes and
/// terminated. After a panic it is empty, and standard error has the reason.
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
    // SAFETY: the caller's promises: dlsym(3) finds the functions of one SQLite by that handle.
    unsafe { register_found(|name| sys::find_symbol(library, name), make_default, message, size) }
}

/// Like [`kanban_vfs_register`], but `find(name, of)` finds SQLite's functions. It is for
/// `libkanban_vfs_preload.so`, which must not call dlsym(3), since another thread may hold the
/// dynamic linker's lock. The header does not declare it.
///
/// # Safety
/// What `find` returns is null or a function of one SQLite, of that name. Neither that SQLite nor this library is ever unloaded.
/// `message` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kanban_vfs_register_by(
    find: unsafe extern "C" fn(*const c_char, *mut c_void) -> *mut c_void,
    of: *mut c_void,
    make_default: c_int,
    message: *mut c_char,
    size: usize,
) -> ResultCode {
    // SAFETY: the caller's promises.
    unsafe { register_found(|name| find(name.as_ptr(), of), make_default, message, size) }
}

/// # Safety
/// As for [`kanban_vfs_register_by`].
unsafe fn register_found(
    find: impl Fn(&CStr) -> *mut c_void,
    make_default: c_int,
    message: *mut c_char,
    size: usize,
) -> ResultCode {
    if !message.is_null() && size > 0 {
        // SAFETY: the caller's promise: there is room for the terminator. After a panic the message
        // is only that.
        unsafe { message.write(0) };
    }
    no_panic(ResultCode::ERROR, || {
        // SAFETY: the caller's promise: they are the functions of one SQLite.
        let host = unsafe { Host::from_symbols(&find) };
        let missing = matches!(host, Err(Error::MissingFunction { .. }));
        let registered =
            host.map_err(|why| why.to_string()).and_then(|host| register(host, make_default != 0));
        let Err(why) = registered else { return ResultCode::OK };
        let text = format!("kanban-vfs: {why}");
        if !message.is_null() && size > 0 {
            // SAFETY: the caller's promise.
            unsafe { copy_cut(&text, message, size) };
        }
        if missing { ResultCode::NOTFOUND } else { ResultCode::ERROR }
    })
}

/// Registers the VFS as the environment says.
fn register(host: Host, make_default: bool) -> Result<(), String> {
    let options = Options::from_env(sys::environment)?;
    if let Some(destination) = sys::environment("KANBAN_LOG") {
        log::open(&destination).map_err(|why| format!("KANBAN_LOG: {why}"))?;
        report_unknown_variables();
    }
    super::register(host, &options.with_make_default(make_default)).map_err(|why| why.to_string())
}

/// Reports unknown `KANBAN_` variables once, since a misspelt one would go unnoticed. They do not
/// go to SQLite's error log: an application for kanban boards may have such variables of its own.
fn report_unknown_variables() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let unknown = options::unknown_variables(std::env::vars_os().map(|(name, _)| name));
        if !unknown.is_empty() {
            log::to_destination(&format!(
                "unknown {}; known: {}",
                unknown.join(", "),
                options::VARIABLES.join(", ")
            ));
        }
    });
}

/// Copies the last line that the VFS logged on this thread into `line`, cut to `size` bytes and
/// terminated. After a failed open the line says why, where SQLite says only "unable to open
/// database file". It begins with the time, as in `2026-11-30T02:46:47.123456Z`. Returns the length
/// of the whole line in bytes; 0 if there is none.
///
/// # Safety
/// `line` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kanban_vfs_last_line(line: *mut c_char, size: usize) -> usize {
    let last = log::last_of_thread();
    if !line.is_null() && size > 0 {
        // SAFETY: the caller's promise.
        unsafe { copy_cut(&last, line, size) };
    }
    last.len()
}

/// Copies a text, cut to `size` bytes and terminated.
///
/// # Safety
/// `into` has room for `size` bytes, at least one.
unsafe fn copy_cut(text: &str, into: *mut c_char, size: usize) {
    let end = (0..size.min(text.len() + 1)).rfind(|at| text.is_char_boundary(*at));
    let cut = &text[..end.unwrap_or(0)];
    // SAFETY: the caller's promise; the text and its terminator are `size` bytes at most.
    unsafe {
        into.cast::<u8>().copy_from_nonoverlapping(cut.as_ptr(), cut.len());
        into.add(cut.len()).write(0);
    }
}

/// The body of both entry points; returns their result.
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
            // sqlite3_auto_extension() of an SQLite built without extension loading passes no
            // functions.
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

//! What happens when a connection opens: SQLite calls an auto-extension for each
//! (<https://www.sqlite.org/c3ref/auto_extension.html>), after it has opened the main database.

use std::ffi::{CStr, c_char, c_int};

use crate::ffi::host::Host;
use crate::ffi::{
    AutoExtension, ResultCode, ScalarFunction, c_text, copies, no_panic, sqlite3,
    sqlite3_api_routines, sqlite3_context, sqlite3_value,
};
use crate::shim::{FCNTL_OPENED, Opened};

/// The auto-extension of the `nth` copy of SQLite. Copies beyond the last number have none. They
/// are served only if they pass their table of functions.
pub(super) fn of(nth: Option<usize>) -> AutoExtension {
    let all: [AutoExtension; copies::MOST] =
        [on_connect::<0>, on_connect::<1>, on_connect::<2>, on_connect::<3>];
    nth.map_or(on_connect::<{ usize::MAX }> as AutoExtension, |nth| all[nth])
}

/// Defines `kanban_version()` on a connection and, if its main database is ours, sets a busy
/// timeout. If xOpen refused the database, fails the open with a message.
///
/// SQLite calls this at the end of sqlite3_open(), with the connection's mutex, for connections of
/// every VFS. An error makes the open fail, so this returns one only for a database of ours that
/// xOpen refused. It begins no transaction.
///
/// `NTH` is the copy of SQLite that calls this. A copy built without extension loading
/// (SQLITE_OMIT_LOAD_EXTENSION) passes no table of its functions. Another copy's functions must not
/// be called with its connection.
///
/// # Safety
/// SQLite calls it as an auto-extension.
unsafe extern "C" fn on_connect<const NTH: usize>(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> ResultCode {
    no_panic(ResultCode::OK, || {
        let host = if api.is_null() {
            copies::copy(NTH).copied()
        } else {
            // SAFETY: SQLite passes its own table to an auto-extension.
            unsafe { Host::from_api(api) }.ok().inspect(copies::note_passed)
        };
        let Some(host) = host else { return ResultCode::OK };
        // SAFETY: SQLite passes an open connection of that library.
        unsafe { connected(&host, db, message) }
    })
}

/// Defines `kanban_version()`. If memory runs out, the function is left out.
///
/// # Safety
/// `db` is an open connection of `host`.
pub(crate) unsafe fn define_functions(host: &Host, db: *mut sqlite3) {
    if let Some(nth) = copies::number_of(host) {
        // SAFETY: the caller's promise; the function is the one for that copy.
        unsafe { host.define_constant(db, c"kanban_version", version_function(nth)) };
    }
}

/// Asks the main database's file how xOpen went, and sets the busy timeout or fails the open.
/// Returns the result of the open.
///
/// # Safety
/// `db` is an open connection of `host`; `message` is null or may be written to.
unsafe fn connected(host: &Host, db: *mut sqlite3, message: *mut *mut c_char) -> ResultCode {
    // SAFETY: the caller's promise: an open connection.
    unsafe { define_functions(host, db) };
    let mut opened = Opened { busy_timeout: 0, refusal: std::ptr::null() };
    let answer = std::ptr::from_mut(&mut opened).cast();
    // SAFETY: the caller's promise; a file that knows this control takes an `Opened`.
    let rc = unsafe { host.file_control(db, c"main", FCNTL_OPENED, answer) };
    if rc != ResultCode::OK {
        return ResultCode::OK;
    }
    if !opened.refusal.is_null() {
        if !message.is_null() {
            // SAFETY: the refusal lives as long as its file; SQLite frees the copy.
            unsafe {
                *message = host.allocate_text(&CStr::from_ptr(opened.refusal).to_string_lossy());
            }
        }
        return ResultCode::CANTOPEN;
    }
    // SAFETY: the caller's promise: an open connection.
    unsafe { host.set_busy_timeout(db, opened.busy_timeout) }
}

/// `kanban_version()` for that copy of SQLite.
fn version_function(nth: usize) -> ScalarFunction {
    let functions: [ScalarFunction; copies::MOST] =
        [version::<0>, version::<1>, version::<2>, version::<3>];
    functions[nth]
}

/// `kanban_version()`: SQLite evaluates it with the mutex of a connection of that copy.
unsafe extern "C" fn version<const NTH: usize>(
    context: *mut sqlite3_context,
    _: c_int,
    _: *mut *mut sqlite3_value,
) {
    const VERSION: &CStr = c_text(concat!(env!("CARGO_PKG_VERSION"), "\0"));
    if let Some(host) = copies::copy(NTH) {
        // SAFETY: SQLite passes the context of this call, and is the one of that slot.
        unsafe { host.result_text(context, VERSION) };
    }
}

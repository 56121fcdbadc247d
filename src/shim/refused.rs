//! A database that xOpen refused.
//!
//! The error of an xOpen has no message: SQLite would only say "unable to open database file". So
//! xOpen returns a file that can do nothing. When the connect hook asks that file (see
//! [`super::control`]), the open fails with the reason. The database itself is neither opened nor
//! created. ATTACH does not ask: there the first lock fails with SQLITE_CANTOPEN.
//!
//! SQLite calls these methods for one connection, from one thread at a time, and no lock of ours is held. They must not
//! touch the file at that path.

use std::ffi::{CString, c_int, c_void};

use super::methods::{FileKind, Interposed, Methods, state_offset};
use super::{Context, FCNTL_OPENED, OpenDatabase, Opened, inert};
use crate::ffi::{ResultCode, no_panic, sqlite3_file, sqlite3_io_methods};

/// The state of a refused file.
struct Refused {
    why: CString,
    _opened: OpenDatabase,
}

/// Makes `file` a refused one, for the reason `why`.
///
/// # Safety
/// `file` is memory of [`super::size_with_state`] bytes; `out_flags` is null or may be written to.
pub(crate) unsafe fn refuse(
    file: *mut sqlite3_file,
    context: &'static Context,
    why: &str,
    flags: c_int,
    out_flags: *mut c_int,
) -> ResultCode {
    let Ok(why) = CString::new(why) else { return ResultCode::ERROR };
    let ours = sqlite3_io_methods {
        xClose: Some(x_close),
        xRead: Some(x_read),
        xFileSize: Some(x_file_size),
        xCheckReservedLock: Some(x_check_reserved_lock),
        xFileControl: Some(x_file_control),
        ..inert::methods::<{ ResultCode::CANTOPEN.0 }>()
    };
    let offset = state_offset(context.base_file_size);
    let methods = Methods::made_once(ours, ours, std::ptr::null(), offset, FileKind::Refused);
    // SAFETY: the caller's promise; these methods expect a `Refused`.
    unsafe {
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        let state = Refused { why, _opened: context.count_database() };
        Interposed { file, methods }.begin(Box::new(state));
    }
    ResultCode::OK
}

/// xClose: SQLite closes the connection, even after a failed open.
unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes a file once, and this table is only of files that `refuse` has given a `Refused`.
        unsafe {
            drop(Box::from_raw(Interposed::of(file).state::<Refused>()));
            (*file).pMethods = std::ptr::null();
        }
        ResultCode::OK
    })
}

/// xRead: SQLite reads the header when it opens a connection, and finds an empty file.
/// <https://www.sqlite.org/c3ref/io_methods.html>: a short read must fill the rest with zeros.
unsafe extern "C" fn x_read(_: *mut sqlite3_file, to: *mut c_void, n: c_int, _: i64) -> ResultCode {
    // SAFETY: SQLite passes room for n bytes.
    unsafe { to.cast::<u8>().write_bytes(0, usize::try_from(n).unwrap_or(0)) };
    ResultCode::IOERR_SHORT_READ
}

/// xFileSize: an empty file has no bytes.
unsafe extern "C" fn x_file_size(_: *mut sqlite3_file, size: *mut i64) -> ResultCode {
    // SAFETY: SQLite passes a place for the size.
    unsafe { *size = 0 };
    ResultCode::OK
}

/// xCheckReservedLock: the database was not opened, so it is not locked.
unsafe extern "C" fn x_check_reserved_lock(_: *mut sqlite3_file, out: *mut c_int) -> ResultCode {
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = 0 };
    ResultCode::OK
}

/// xFileControl: answers the connect hook only.
unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    arg: *mut c_void,
) -> ResultCode {
    if op != FCNTL_OPENED {
        return ResultCode::NOTFOUND;
    }
    // SAFETY: only the connect hook knows this control, and passes an `Opened`. `refuse` has given the file a `Refused`,
    // whose text lives until the file is closed.
    unsafe {
        let refusal = (*Interposed::of(file).state::<Refused>()).why.as_ptr();
        *arg.cast::<Opened>() = Opened { busy_timeout: 0, refusal };
    }
    ResultCode::OK
}

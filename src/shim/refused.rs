//! A database that xOpen refused.
//!
//! The error of an xOpen has no message: SQLite would say "unable to open database file" and no
//! more. So xOpen gives out a file that can do nothing, and when the connection asks it (see
//! [`super::opened`]) the open fails with the reason. The database itself is not opened, nor
//! created. If nobody asks (ATTACH), its first lock fails with SQLITE_CANTOPEN.

use std::ffi::{CString, c_int, c_void};

use super::{Context, FCNTL_OPENED, Kind, Methods, OpenDatabase, Opened, state_offset, state_slot};
use crate::ffi::{LockLevel, ResultCode, no_panic, sqlite3_file, sqlite3_io_methods};

struct Refused {
    why: CString,
    _opened: OpenDatabase,
}

/// Makes `file` one that says `why` it was refused.
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
    let state = Box::new(Refused { why, _opened: context.count_database() });
    let offset = state_offset(context.base_file_size);
    // SAFETY: the caller's promise.
    unsafe {
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        state_slot(file, offset).write(Box::into_raw(state).cast());
        (*file).pMethods = &raw const methods(offset).ours;
    }
    ResultCode::OK
}

fn methods(state_offset: usize) -> &'static Methods {
    let ours = sqlite3_io_methods {
        iVersion: 1,
        xClose: Some(x_close),
        xRead: Some(x_read),
        xWrite: Some(x_write),
        xTruncate: Some(x_truncate),
        xSync: Some(x_sync),
        xFileSize: Some(x_file_size),
        xLock: Some(x_lock),
        xUnlock: Some(x_unlock),
        xCheckReservedLock: Some(x_check_reserved_lock),
        xFileControl: Some(x_file_control),
        xSectorSize: Some(x_zero),
        xDeviceCharacteristics: Some(x_zero),
        xShmMap: None,
        xShmLock: None,
        xShmBarrier: None,
        xShmUnmap: None,
        xFetch: None,
        xUnfetch: None,
    };
    super::leak_once(Methods {
        ours,
        base: ours,
        base_table: std::ptr::null(),
        state_offset,
        kind: Kind::Refused,
    })
}

/// # Safety
/// `file` was made by [`refuse`] and is not closed.
unsafe fn state(file: *mut sqlite3_file) -> *mut Refused {
    // SAFETY: the caller's promise.
    unsafe {
        let methods = (*file).pMethods.cast::<Methods>();
        (*state_slot(file, (*methods).state_offset)).cast()
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once.
        unsafe {
            drop(Box::from_raw(state(file)));
            (*file).pMethods = std::ptr::null();
        }
        ResultCode::OK
    })
}

/// Opening a connection reads the header; it finds an empty file.
unsafe extern "C" fn x_read(_: *mut sqlite3_file, to: *mut c_void, n: c_int, _: i64) -> ResultCode {
    // SAFETY: SQLite passes room for n bytes.
    unsafe { to.cast::<u8>().write_bytes(0, usize::try_from(n).unwrap_or(0)) };
    ResultCode::IOERR_SHORT_READ
}

unsafe extern "C" fn x_write(
    _: *mut sqlite3_file,
    _: *const c_void,
    _: c_int,
    _: i64,
) -> ResultCode {
    ResultCode::CANTOPEN
}

unsafe extern "C" fn x_truncate(_: *mut sqlite3_file, _: i64) -> ResultCode {
    ResultCode::CANTOPEN
}

unsafe extern "C" fn x_sync(_: *mut sqlite3_file, _: c_int) -> ResultCode {
    ResultCode::CANTOPEN
}

unsafe extern "C" fn x_file_size(_: *mut sqlite3_file, size: *mut i64) -> ResultCode {
    // SAFETY: SQLite passes a place for the size.
    unsafe { *size = 0 };
    ResultCode::OK
}

unsafe extern "C" fn x_lock(_: *mut sqlite3_file, _: LockLevel) -> ResultCode {
    ResultCode::CANTOPEN
}

unsafe extern "C" fn x_unlock(_: *mut sqlite3_file, _: LockLevel) -> ResultCode {
    ResultCode::OK
}

unsafe extern "C" fn x_check_reserved_lock(_: *mut sqlite3_file, out: *mut c_int) -> ResultCode {
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = 0 };
    ResultCode::OK
}

unsafe extern "C" fn x_zero(_: *mut sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    arg: *mut c_void,
) -> ResultCode {
    if op != FCNTL_OPENED {
        return ResultCode::NOTFOUND;
    }
    // SAFETY: only `on_connect` knows this control, and passes an `Opened`; the text lives until
    // the file is closed.
    unsafe {
        let refusal = (*state(file)).why.as_ptr();
        *arg.cast::<Opened>() = Opened { busy_timeout: 0, refusal };
    }
    ResultCode::OK
}

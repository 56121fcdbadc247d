//! The C types and constants of the VFS interface, as `sqlite3.h` defines them.
//!
//! See <https://www.sqlite.org/c3ref/vfs.html>, <https://www.sqlite.org/c3ref/io_methods.html>
//! and <https://www.sqlite.org/rescode.html>.
#![allow(non_snake_case, non_camel_case_types)]

use std::ffi::{c_char, c_int, c_void};

use super::locks::{LockLevel, ShmFlags, ShmSlot};
use super::result_code::ResultCode;

pub(crate) const SQLITE_OPEN_READONLY: c_int = 0x0000_0001;
pub(crate) const SQLITE_OPEN_CREATE: c_int = 0x0000_0004;
pub(crate) const SQLITE_OPEN_DELETEONCLOSE: c_int = 0x0000_0008;
pub(crate) const SQLITE_OPEN_MAIN_DB: c_int = 0x0000_0100;
pub(crate) const SQLITE_OPEN_MAIN_JOURNAL: c_int = 0x0000_0800;
pub(crate) const SQLITE_OPEN_SUBJOURNAL: c_int = 0x0000_2000;
pub(crate) const SQLITE_OPEN_SUPER_JOURNAL: c_int = 0x0000_4000;
pub(crate) const SQLITE_OPEN_WAL: c_int = 0x0008_0000;

pub(crate) const SQLITE_FCNTL_FILE_POINTER: c_int = 7;
pub(crate) const SQLITE_FCNTL_PERSIST_WAL: c_int = 10;
pub(crate) const SQLITE_FCNTL_VFSNAME: c_int = 12;
pub(crate) const SQLITE_FCNTL_PRAGMA: c_int = 14;
pub(crate) const SQLITE_FCNTL_HAS_MOVED: c_int = 20;
pub(crate) const SQLITE_FCNTL_SYNC: c_int = 21;
pub(crate) const SQLITE_FCNTL_COMMIT_PHASETWO: c_int = 22;
pub(crate) const SQLITE_FCNTL_JOURNAL_POINTER: c_int = 28;
pub(crate) const SQLITE_FCNTL_PDB: c_int = 30;
pub(crate) const SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE: c_int = 33;
pub(crate) const SQLITE_FCNTL_LOCK_TIMEOUT: c_int = 34;

pub(crate) const SQLITE_UTF8: c_int = 1;
pub(crate) const SQLITE_DETERMINISTIC: c_int = 0x800;

/// `SQLITE_TRANSIENT`: the callee makes its own copy.
pub(crate) const SQLITE_TRANSIENT: isize = -1;

/// A database connection, seen from outside.
#[repr(C)]
pub(crate) struct sqlite3 {
    _private: [u8; 0],
}

/// <https://www.sqlite.org/c3ref/file.html>
#[repr(C)]
pub(crate) struct sqlite3_file {
    pub(crate) pMethods: *const sqlite3_io_methods,
}

/// <https://www.sqlite.org/c3ref/io_methods.html>
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct sqlite3_io_methods {
    pub(crate) iVersion: c_int,
    pub(crate) xClose: Option<unsafe extern "C" fn(*mut sqlite3_file) -> ResultCode>,
    pub(crate) xRead:
        Option<unsafe extern "C" fn(*mut sqlite3_file, *mut c_void, c_int, i64) -> ResultCode>,
    pub(crate) xWrite:
        Option<unsafe extern "C" fn(*mut sqlite3_file, *const c_void, c_int, i64) -> ResultCode>,
    pub(crate) xTruncate: Option<unsafe extern "C" fn(*mut sqlite3_file, i64) -> ResultCode>,
    pub(crate) xSync: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> ResultCode>,
    pub(crate) xFileSize: Option<unsafe extern "C" fn(*mut sqlite3_file, *mut i64) -> ResultCode>,
    pub(crate) xLock: Option<unsafe extern "C" fn(*mut sqlite3_file, LockLevel) -> ResultCode>,
    pub(crate) xUnlock: Option<unsafe extern "C" fn(*mut sqlite3_file, LockLevel) -> ResultCode>,
    pub(crate) xCheckReservedLock:
        Option<unsafe extern "C" fn(*mut sqlite3_file, *mut c_int) -> ResultCode>,
    pub(crate) xFileControl:
        Option<unsafe extern "C" fn(*mut sqlite3_file, c_int, *mut c_void) -> ResultCode>,
    pub(crate) xSectorSize: Option<unsafe extern "C" fn(*mut sqlite3_file) -> c_int>,
    pub(crate) xDeviceCharacteristics: Option<unsafe extern "C" fn(*mut sqlite3_file) -> c_int>,
    // iVersion 2
    pub(crate) xShmMap: Option<
        unsafe extern "C" fn(
            *mut sqlite3_file,
            c_int,
            c_int,
            c_int,
            *mut *mut c_void,
        ) -> ResultCode,
    >,
    pub(crate) xShmLock:
        Option<unsafe extern "C" fn(*mut sqlite3_file, ShmSlot, c_int, ShmFlags) -> ResultCode>,
    pub(crate) xShmBarrier: Option<unsafe extern "C" fn(*mut sqlite3_file)>,
    pub(crate) xShmUnmap: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> ResultCode>,
    // iVersion 3
    pub(crate) xFetch:
        Option<unsafe extern "C" fn(*mut sqlite3_file, i64, c_int, *mut *mut c_void) -> ResultCode>,
    pub(crate) xUnfetch:
        Option<unsafe extern "C" fn(*mut sqlite3_file, i64, *mut c_void) -> ResultCode>,
}

/// A system call as the unix VFS hands it out.
pub(crate) type sqlite3_syscall_ptr = Option<unsafe extern "C" fn()>;

/// <https://www.sqlite.org/c3ref/vfs.html>
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct sqlite3_vfs {
    pub(crate) iVersion: c_int,
    pub(crate) szOsFile: c_int,
    pub(crate) mxPathname: c_int,
    pub(crate) pNext: *mut sqlite3_vfs,
    pub(crate) zName: *const c_char,
    pub(crate) pAppData: *mut c_void,
    pub(crate) xOpen: Option<
        unsafe extern "C" fn(
            *mut sqlite3_vfs,
            *const c_char,
            *mut sqlite3_file,
            c_int,
            *mut c_int,
        ) -> ResultCode,
    >,
    pub(crate) xDelete:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int) -> ResultCode>,
    pub(crate) xAccess: Option<
        unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_int) -> ResultCode,
    >,
    pub(crate) xFullPathname: Option<
        unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_char) -> ResultCode,
    >,
    pub(crate) xDlOpen:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> *mut c_void>,
    pub(crate) xDlError: Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char)>,
    pub(crate) xDlSym: Option<
        unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void, *const c_char) -> sqlite3_syscall_ptr,
    >,
    pub(crate) xDlClose: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void)>,
    pub(crate) xRandomness:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char) -> c_int>,
    pub(crate) xSleep: Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int) -> c_int>,
    pub(crate) xCurrentTime: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut f64) -> ResultCode>,
    pub(crate) xGetLastError:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char) -> ResultCode>,
    // iVersion 2
    pub(crate) xCurrentTimeInt64:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut i64) -> ResultCode>,
    // iVersion 3
    pub(crate) xSetSystemCall: Option<
        unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, sqlite3_syscall_ptr) -> ResultCode,
    >,
    pub(crate) xGetSystemCall:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> sqlite3_syscall_ptr>,
    pub(crate) xNextSystemCall:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> *const c_char>,
}

/// The call context of an SQL function.
#[repr(C)]
pub(crate) struct sqlite3_context {
    _private: [u8; 0],
}

/// A prepared statement.
#[repr(C)]
pub(crate) struct sqlite3_stmt {
    _private: [u8; 0],
}

/// An argument of an SQL function.
#[repr(C)]
pub(crate) struct sqlite3_value {
    _private: [u8; 0],
}

/// The table of functions that SQLite hands to an extension.
#[repr(C)]
pub(crate) struct sqlite3_api_routines {
    _private: [u8; 0],
}

pub(crate) type ScalarFunction =
    unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);
pub(crate) type AutoExtension =
    unsafe extern "C" fn(*mut sqlite3, *mut *mut c_char, *const sqlite3_api_routines) -> ResultCode;

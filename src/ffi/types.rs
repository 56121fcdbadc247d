//! The C types and constants of the VFS interface, as `sqlite3.h` defines them.
//!
//! See <https://www.sqlite.org/c3ref/vfs.html>, <https://www.sqlite.org/c3ref/io_methods.html>
//! and <https://www.sqlite.org/rescode.html>.
#![allow(non_snake_case, non_camel_case_types)]

use std::ffi::{c_char, c_int, c_void};

/// A result code, <https://www.sqlite.org/rescode.html>.
pub(crate) type Rc = c_int;

pub(crate) const SQLITE_OK: Rc = 0;
pub(crate) const SQLITE_ERROR: Rc = 1;
pub(crate) const SQLITE_BUSY: Rc = 5;
pub(crate) const SQLITE_NOMEM: Rc = 7;
pub(crate) const SQLITE_READONLY: Rc = 8;
pub(crate) const SQLITE_READONLY_DBMOVED: Rc = SQLITE_READONLY | (4 << 8);
pub(crate) const SQLITE_IOERR: Rc = 10;
pub(crate) const SQLITE_CORRUPT: Rc = 11;
pub(crate) const SQLITE_NOTFOUND: Rc = 12;
pub(crate) const SQLITE_PROTOCOL: Rc = 15;
/// What a blocking lock answers when its time is over: the busy handler is not asked then.
pub(crate) const SQLITE_BUSY_TIMEOUT: Rc = SQLITE_BUSY | (3 << 8);
pub(crate) const SQLITE_CANTOPEN: Rc = 14;
pub(crate) const SQLITE_WARNING: Rc = 28;
pub(crate) const SQLITE_IOERR_SHORT_READ: Rc = SQLITE_IOERR | (2 << 8);
pub(crate) const SQLITE_IOERR_WRITE: Rc = SQLITE_IOERR | (3 << 8);
pub(crate) const SQLITE_IOERR_FSYNC: Rc = SQLITE_IOERR | (4 << 8);
pub(crate) const SQLITE_IOERR_TRUNCATE: Rc = SQLITE_IOERR | (6 << 8);
pub(crate) const SQLITE_IOERR_DELETE: Rc = SQLITE_IOERR | (10 << 8);
pub(crate) const SQLITE_IOERR_LOCK: Rc = SQLITE_IOERR | (15 << 8);
pub(crate) const SQLITE_OK_LOAD_PERMANENTLY: Rc = 1 << 8;

pub(crate) const SQLITE_OPEN_READONLY: c_int = 0x0000_0001;
pub(crate) const SQLITE_OPEN_CREATE: c_int = 0x0000_0004;
pub(crate) const SQLITE_OPEN_DELETEONCLOSE: c_int = 0x0000_0008;
pub(crate) const SQLITE_OPEN_MAIN_DB: c_int = 0x0000_0100;
pub(crate) const SQLITE_OPEN_MAIN_JOURNAL: c_int = 0x0000_0800;
pub(crate) const SQLITE_OPEN_SUBJOURNAL: c_int = 0x0000_2000;
pub(crate) const SQLITE_OPEN_SUPER_JOURNAL: c_int = 0x0000_4000;
pub(crate) const SQLITE_OPEN_WAL: c_int = 0x0008_0000;

pub(crate) const SQLITE_LOCK_NONE: c_int = 0;
pub(crate) const SQLITE_LOCK_SHARED: c_int = 1;
pub(crate) const SQLITE_LOCK_RESERVED: c_int = 2;

pub(crate) const SQLITE_LOCK_EXCLUSIVE: c_int = 4;

pub(crate) const SQLITE_SHM_UNLOCK: c_int = 1;
pub(crate) const SQLITE_SHM_LOCK: c_int = 2;
pub(crate) const SQLITE_SHM_SHARED: c_int = 4;
pub(crate) const SQLITE_SHM_EXCLUSIVE: c_int = 8;

/// First of the wal-index lock slots: the writer's.
/// <https://www.sqlite.org/walformat.html#locks>
pub(crate) const WAL_WRITE_LOCK: c_int = 0;
/// The wal-index lock slot of the checkpointer.
pub(crate) const WAL_CKPT_LOCK: c_int = 1;
/// The wal-index lock slot of whoever recovers it.
pub(crate) const WAL_RECOVER_LOCK: c_int = 2;
/// First of the wal-index lock slots that readers hold; those who read the WAL hold another.
pub(crate) const WAL_READ_LOCK: c_int = 3;
/// How many of those there are.
pub(crate) const WAL_READERS: c_int = 5;
/// All wal-index lock slots.
pub(crate) const WAL_SLOTS: c_int = WAL_READ_LOCK + WAL_READERS;

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
    pub(crate) xClose: Option<unsafe extern "C" fn(*mut sqlite3_file) -> Rc>,
    pub(crate) xRead:
        Option<unsafe extern "C" fn(*mut sqlite3_file, *mut c_void, c_int, i64) -> Rc>,
    pub(crate) xWrite:
        Option<unsafe extern "C" fn(*mut sqlite3_file, *const c_void, c_int, i64) -> Rc>,
    pub(crate) xTruncate: Option<unsafe extern "C" fn(*mut sqlite3_file, i64) -> Rc>,
    pub(crate) xSync: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> Rc>,
    pub(crate) xFileSize: Option<unsafe extern "C" fn(*mut sqlite3_file, *mut i64) -> Rc>,
    pub(crate) xLock: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> Rc>,
    pub(crate) xUnlock: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> Rc>,
    pub(crate) xCheckReservedLock:
        Option<unsafe extern "C" fn(*mut sqlite3_file, *mut c_int) -> Rc>,
    pub(crate) xFileControl:
        Option<unsafe extern "C" fn(*mut sqlite3_file, c_int, *mut c_void) -> Rc>,
    pub(crate) xSectorSize: Option<unsafe extern "C" fn(*mut sqlite3_file) -> c_int>,
    pub(crate) xDeviceCharacteristics: Option<unsafe extern "C" fn(*mut sqlite3_file) -> c_int>,
    // iVersion 2
    pub(crate) xShmMap: Option<
        unsafe extern "C" fn(*mut sqlite3_file, c_int, c_int, c_int, *mut *mut c_void) -> Rc,
    >,
    pub(crate) xShmLock: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int, c_int, c_int) -> Rc>,
    pub(crate) xShmBarrier: Option<unsafe extern "C" fn(*mut sqlite3_file)>,
    pub(crate) xShmUnmap: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> Rc>,
    // iVersion 3
    pub(crate) xFetch:
        Option<unsafe extern "C" fn(*mut sqlite3_file, i64, c_int, *mut *mut c_void) -> Rc>,
    pub(crate) xUnfetch: Option<unsafe extern "C" fn(*mut sqlite3_file, i64, *mut c_void) -> Rc>,
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
        ) -> Rc,
    >,
    pub(crate) xDelete: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int) -> Rc>,
    pub(crate) xAccess:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_int) -> Rc>,
    pub(crate) xFullPathname:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_char) -> Rc>,
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
    pub(crate) xCurrentTime: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut f64) -> Rc>,
    pub(crate) xGetLastError:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char) -> Rc>,
    // iVersion 2
    pub(crate) xCurrentTimeInt64: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut i64) -> Rc>,
    // iVersion 3
    pub(crate) xSetSystemCall:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, sqlite3_syscall_ptr) -> Rc>,
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
    unsafe extern "C" fn(*mut sqlite3, *mut *mut c_char, *const sqlite3_api_routines) -> Rc;

//! The C types and constants of the VFS interface, as `sqlite3.h` defines them:
//! <https://www.sqlite.org/c3ref/vfs.html>, <https://www.sqlite.org/c3ref/io_methods.html>
//! and <https://www.sqlite.org/rescode.html>.
#![allow(non_snake_case, non_camel_case_types)]

use std::ffi::{c_char, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};

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
pub(crate) const SQLITE_FCNTL_BUSYHANDLER: c_int = 15;
pub(crate) const SQLITE_FCNTL_HAS_MOVED: c_int = 20;
pub(crate) const SQLITE_FCNTL_SYNC: c_int = 21;
pub(crate) const SQLITE_FCNTL_COMMIT_PHASETWO: c_int = 22;
pub(crate) const SQLITE_FCNTL_JOURNAL_POINTER: c_int = 28;
pub(crate) const SQLITE_FCNTL_PDB: c_int = 30;
pub(crate) const SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE: c_int = 33;
pub(crate) const SQLITE_FCNTL_LOCK_TIMEOUT: c_int = 34;

pub(crate) const SQLITE_UTF8: c_int = 1;
pub(crate) const SQLITE_DETERMINISTIC: c_int = 0x800;
pub(crate) const SQLITE_INNOCUOUS: c_int = 0x0020_0000;

/// `SQLITE_TRANSIENT`: the callee makes its own copy.
pub(crate) const SQLITE_TRANSIENT: isize = -1;

/// Opaque objects of SQLite.
macro_rules! opaque {
    ($($(#[$about:meta])* $name:ident;)*) => {$(
        $(#[$about])*
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! {
    /// A database connection.
    sqlite3;
    /// A prepared statement.
    sqlite3_stmt;
    /// The call context of an SQL function.
    sqlite3_context;
    /// An argument of an SQL function.
    sqlite3_value;
    /// The table of functions that SQLite hands to an extension.
    sqlite3_api_routines;
}

/// A method of a table, which is null if the table does not have it.
macro_rules! method {
    (fn $args:tt $(-> $result:ty)?) => {
        Option<unsafe extern "C" fn $args $(-> $result)?>
    };
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
    pub(crate) xClose: method!(fn(*mut sqlite3_file) -> ResultCode),
    pub(crate) xRead: method!(fn(*mut sqlite3_file, *mut c_void, c_int, i64) -> ResultCode),
    pub(crate) xWrite: method!(fn(*mut sqlite3_file, *const c_void, c_int, i64) -> ResultCode),
    pub(crate) xTruncate: method!(fn(*mut sqlite3_file, i64) -> ResultCode),
    pub(crate) xSync: method!(fn(*mut sqlite3_file, c_int) -> ResultCode),
    pub(crate) xFileSize: method!(fn(*mut sqlite3_file, *mut i64) -> ResultCode),
    pub(crate) xLock: method!(fn(*mut sqlite3_file, LockLevel) -> ResultCode),
    pub(crate) xUnlock: method!(fn(*mut sqlite3_file, LockLevel) -> ResultCode),
    pub(crate) xCheckReservedLock: method!(fn(*mut sqlite3_file, *mut c_int) -> ResultCode),
    pub(crate) xFileControl: method!(fn(*mut sqlite3_file, c_int, *mut c_void) -> ResultCode),
    pub(crate) xSectorSize: method!(fn(*mut sqlite3_file) -> c_int),
    pub(crate) xDeviceCharacteristics: method!(fn(*mut sqlite3_file) -> c_int),
    // iVersion 2
    pub(crate) xShmMap:
        method!(fn(*mut sqlite3_file, c_int, c_int, c_int, *mut *mut c_void) -> ResultCode),
    pub(crate) xShmLock: method!(fn(*mut sqlite3_file, ShmSlot, c_int, ShmFlags) -> ResultCode),
    pub(crate) xShmBarrier: method!(fn(*mut sqlite3_file)),
    pub(crate) xShmUnmap: method!(fn(*mut sqlite3_file, c_int) -> ResultCode),
    // iVersion 3
    pub(crate) xFetch: method!(fn(*mut sqlite3_file, i64, c_int, *mut *mut c_void) -> ResultCode),
    pub(crate) xUnfetch: method!(fn(*mut sqlite3_file, i64, *mut c_void) -> ResultCode),
}

/// A system call as the unix VFS hands it out.
pub(crate) type sqlite3_syscall_ptr = method!(fn());

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
    pub(crate) xOpen: method!(
        fn(*mut sqlite3_vfs, *const c_char, *mut sqlite3_file, c_int, *mut c_int) -> ResultCode
    ),
    pub(crate) xDelete: method!(fn(*mut sqlite3_vfs, *const c_char, c_int) -> ResultCode),
    pub(crate) xAccess:
        method!(fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_int) -> ResultCode),
    pub(crate) xFullPathname:
        method!(fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_char) -> ResultCode),
    pub(crate) xDlOpen: method!(fn(*mut sqlite3_vfs, *const c_char) -> *mut c_void),
    pub(crate) xDlError: method!(fn(*mut sqlite3_vfs, c_int, *mut c_char)),
    pub(crate) xDlSym:
        method!(fn(*mut sqlite3_vfs, *mut c_void, *const c_char) -> sqlite3_syscall_ptr),
    pub(crate) xDlClose: method!(fn(*mut sqlite3_vfs, *mut c_void)),
    pub(crate) xRandomness: method!(fn(*mut sqlite3_vfs, c_int, *mut c_char) -> c_int),
    /// It unwinds if pthread_cancel(3) ends the thread, since nanosleep(2) is a cancellation point.
    /// Other methods call cancellation points, too, but only where the thread cannot be cancelled.
    pub(crate) xSleep: Option<unsafe extern "C-unwind" fn(*mut sqlite3_vfs, c_int) -> c_int>,
    pub(crate) xCurrentTime: method!(fn(*mut sqlite3_vfs, *mut f64) -> ResultCode),
    pub(crate) xGetLastError: method!(fn(*mut sqlite3_vfs, c_int, *mut c_char) -> ResultCode),
    // iVersion 2
    pub(crate) xCurrentTimeInt64: method!(fn(*mut sqlite3_vfs, *mut i64) -> ResultCode),
    // iVersion 3
    pub(crate) xSetSystemCall:
        method!(fn(*mut sqlite3_vfs, *const c_char, sqlite3_syscall_ptr) -> ResultCode),
    pub(crate) xGetSystemCall: method!(fn(*mut sqlite3_vfs, *const c_char) -> sqlite3_syscall_ptr),
    pub(crate) xNextSystemCall: method!(fn(*mut sqlite3_vfs, *const c_char) -> *const c_char),
}

/// A table that SQLite or a VFS provides. Each version appends methods to those of the previous
/// one.
///
/// # Safety
/// The type is `repr(C)`, its first field is `iVersion`, and null is a value of every field.
pub(crate) unsafe trait Versioned: Sized {
    /// The sizes of versions 1 and 2, in bytes. The methods of the next version begin there.
    const ENDS: [usize; 2];
}

// SAFETY: an integer, and pointers to functions that may be null.
unsafe impl Versioned for sqlite3_io_methods {
    const ENDS: [usize; 2] = [offset_of!(Self, xShmMap), offset_of!(Self, xFetch)];
}

// SAFETY: integers, and pointers that may be null.
unsafe impl Versioned for sqlite3_vfs {
    const ENDS: [usize; 2] =
        [offset_of!(Self, xCurrentTimeInt64), offset_of!(Self, xSetSystemCall)];
}

/// A copy of `table`, with version 3 at most, and null for methods that its version does not have.
///
/// # Safety
/// `table` is as long as its `iVersion` says, and does not change during the call.
pub(crate) unsafe fn complete<T: Versioned>(table: *const T) -> T {
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: the caller's promise about what is read; by that of the trait, the version is first, and what is not copied
    // may be null.
    unsafe {
        let version = *table.cast::<c_int>();
        let bytes = match version {
            ..2 => T::ENDS[0],
            2 => T::ENDS[1],
            3.. => size_of::<T>(),
        };
        table.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), bytes);
        copy.as_mut_ptr().cast::<c_int>().write(version.min(3));
        copy.assume_init()
    }
}

/// How to call the busy handler of the connection that uses the file. FCNTL_BUSYHANDLER passes the
/// address of this.
/// <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlbusyhandler>
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BusyCall {
    pub(crate) function: method!(fn(*mut c_void) -> c_int),
    pub(crate) argument: *mut c_void,
}

/// What sqlite3_txn_state() answers: <https://www.sqlite.org/c3ref/txn_state.html>.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransactionState(c_int);

impl TransactionState {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
}

/// An SQL function.
pub(crate) type ScalarFunction =
    unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);

/// What SQLite calls for each connection that it opens: <https://www.sqlite.org/c3ref/auto_extension.html>.
pub(crate) type AutoExtension =
    unsafe extern "C" fn(*mut sqlite3, *mut *mut c_char, *const sqlite3_api_routines) -> ResultCode;

//! Methods that do nothing, and answer with one error. A file that was refused ([`super::refused`]) and one that a forked
//! child inherited ([`super::inherited`]) use them, and replace those in which they differ.
//!
//! They touch neither the file nor any lock, so any thread may call them at any time.

use std::ffi::{c_int, c_void};

use crate::ffi::{LockLevel, ResultCode, sqlite3_file, sqlite3_io_methods};

/// A table of version 1. Methods that read, write, lock or ask fail with `RC`; methods that unlock do nothing and
/// succeed. The caller fills in xClose and xFileControl.
pub(super) const fn methods<const RC: c_int>() -> sqlite3_io_methods {
    sqlite3_io_methods {
        iVersion: 1,
        xClose: None,
        xRead: Some(x_read::<RC>),
        xWrite: Some(x_write::<RC>),
        xTruncate: Some(x_truncate::<RC>),
        xSync: Some(x_sync::<RC>),
        xFileSize: Some(x_file_size::<RC>),
        xLock: Some(x_lock::<RC>),
        xUnlock: Some(x_lock::<{ ResultCode::OK.0 }>),
        xCheckReservedLock: Some(x_check_reserved_lock::<RC>),
        xFileControl: None,
        xSectorSize: Some(x_zero),
        xDeviceCharacteristics: Some(x_zero),
        xShmMap: None,
        xShmLock: None,
        xShmBarrier: None,
        xShmUnmap: None,
        xFetch: None,
        xUnfetch: None,
    }
}

/// Methods that only answer `RC`.
macro_rules! answers {
    ($($method:ident($($arg:ty),*);)*) => {$(
        #[cfg_attr(windows, allow(dead_code, reason = "nothing is inherited, and so no wal-index"))]
        pub(super) unsafe extern "C" fn $method<const RC: c_int>(
            _: *mut sqlite3_file,
            $(_: $arg),*
        ) -> ResultCode {
            ResultCode(RC)
        }
    )*};
}

answers! {
    x_read(*mut c_void, c_int, i64);
    x_write(*const c_void, c_int, i64);
    x_truncate(i64);
    x_sync(c_int);
    x_file_size(*mut i64);
    x_lock(LockLevel);
    x_check_reserved_lock(*mut c_int);
    x_shm_map(c_int, c_int, c_int, *mut *mut c_void);
    x_shm_unmap(c_int);
    x_unfetch(i64, *mut c_void);
}

/// No device characteristics, and SQLite's default sector size.
unsafe extern "C" fn x_zero(_: *mut sqlite3_file) -> c_int {
    0
}

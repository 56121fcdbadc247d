//! SQLite's functions, from the library that a worker loads.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::path::Path;

use rusqlite::ffi::{sqlite3, sqlite3_backup, sqlite3_blob, sqlite3_int64, sqlite3_stmt};

macro_rules! table {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// SQLite's C interface, as far as the workers use it.
        #[expect(missing_docs, reason = "SQLite's own names, without sqlite3_")]
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// Loads a shared library that is an SQLite. It is never unloaded.
            ///
            /// # Panics
            /// If it does not load, or lacks a function.
            #[must_use]
            pub fn load(library: &Path) -> Self {
                let name = CString::new(library.to_str().expect("UTF-8")).expect("no NUL");
                // SAFETY: an SQLite's initializers do nothing that could go wrong.
                let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
                assert!(!handle.is_null(), "{}", last_error());
                Self {
                    $($name: {
                        let symbol = function(handle, concat!("sqlite3_", stringify!($name)));
                        // SAFETY: SQLite's interface is stable, and the types are those of its
                        // documentation.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(symbol)
                        }
                    },)*
                }
            }
        }
    };
}

table! {
    libversion: fn() -> *const c_char;
    open_v2: fn(*const c_char, *mut *mut sqlite3, c_int, *const c_char) -> c_int;
    close: fn(*mut sqlite3) -> c_int;
    close_v2: fn(*mut sqlite3) -> c_int;
    extended_result_codes: fn(*mut sqlite3, c_int) -> c_int;
    extended_errcode: fn(*mut sqlite3) -> c_int;
    errmsg: fn(*mut sqlite3) -> *const c_char;
    enable_load_extension: fn(*mut sqlite3, c_int) -> c_int;
    load_extension: fn(*mut sqlite3, *const c_char, *const c_char, *mut *mut c_char) -> c_int;
    get_autocommit: fn(*mut sqlite3) -> c_int;
    txn_state: fn(*mut sqlite3, *const c_char) -> c_int;
    prepare_v2:
        fn(*mut sqlite3, *const c_char, c_int, *mut *mut sqlite3_stmt, *mut *const c_char) -> c_int;
    step: fn(*mut sqlite3_stmt) -> c_int;
    finalize: fn(*mut sqlite3_stmt) -> c_int;
    column_count: fn(*mut sqlite3_stmt) -> c_int;
    column_type: fn(*mut sqlite3_stmt, c_int) -> c_int;
    column_blob: fn(*mut sqlite3_stmt, c_int) -> *const c_void;
    column_text: fn(*mut sqlite3_stmt, c_int) -> *const c_uchar;
    column_bytes: fn(*mut sqlite3_stmt, c_int) -> c_int;
    blob_open:
        fn(
            *mut sqlite3,
            *const c_char,
            *const c_char,
            *const c_char,
            sqlite3_int64,
            c_int,
            *mut *mut sqlite3_blob
        ) -> c_int;
    blob_bytes: fn(*mut sqlite3_blob) -> c_int;
    blob_read: fn(*mut sqlite3_blob, *mut c_void, c_int, c_int) -> c_int;
    blob_write: fn(*mut sqlite3_blob, *const c_void, c_int, c_int) -> c_int;
    blob_reopen: fn(*mut sqlite3_blob, sqlite3_int64) -> c_int;
    blob_close: fn(*mut sqlite3_blob) -> c_int;
    backup_init:
        fn(*mut sqlite3, *const c_char, *mut sqlite3, *const c_char) -> *mut sqlite3_backup;
    backup_step: fn(*mut sqlite3_backup, c_int) -> c_int;
    backup_remaining: fn(*mut sqlite3_backup) -> c_int;
    backup_pagecount: fn(*mut sqlite3_backup) -> c_int;
    backup_finish: fn(*mut sqlite3_backup) -> c_int;
    wal_checkpoint_v2: fn(*mut sqlite3, *const c_char, c_int, *mut c_int, *mut c_int) -> c_int;
    db_cacheflush: fn(*mut sqlite3) -> c_int;
    db_release_memory: fn(*mut sqlite3) -> c_int;
    file_control: fn(*mut sqlite3, *const c_char, c_int, *mut c_void) -> c_int;
}

fn function(handle: *mut c_void, name: &str) -> *mut c_void {
    let name = CString::new(name).expect("no NUL");
    // SAFETY: a library that is never unloaded, and a terminated name.
    let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
    assert!(!symbol.is_null(), "{}", last_error());
    symbol
}

fn last_error() -> String {
    // SAFETY: the message belongs to this thread until its next call.
    unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            return "unknown".to_owned();
        }
        CStr::from_ptr(message).to_string_lossy().into_owned()
    }
}

impl Api {
    /// Loads an extension, for all connections of this SQLite.
    ///
    /// # Panics
    /// If it does not load.
    pub fn extend(&self, extension: &Path) {
        let path = CString::new(extension.to_str().expect("UTF-8")).expect("no NUL");
        let mut db = std::ptr::null_mut();
        let mut message = std::ptr::null_mut();
        // SAFETY: terminated names, places for results; the message is SQLite's, and leaks.
        unsafe {
            assert_eq!((self.open_v2)(c":memory:".as_ptr(), &raw mut db, 6, std::ptr::null()), 0);
            assert_eq!((self.enable_load_extension)(db, 1), 0);
            let rc = (self.load_extension)(db, path.as_ptr(), std::ptr::null(), &raw mut message);
            assert_eq!(rc, 0, "{extension:?}: {:?}", CStr::from_ptr(message));
            assert_eq!((self.close)(db), 0);
        }
    }
}

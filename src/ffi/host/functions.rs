//! SQLite's functions that the VFS calls: one table of pointers, and three ways to fill it in.
//!
//! | the application | [`Host`] is filled in from |
//! |---|---|
//! | loads the extension, or opens a connection | the `sqlite3_api_routines` that SQLite passes: [`Host::from_api`] |
//! | calls `kanban_vfs_register` | the symbols of the library that it names: [`Host::from_symbols`] |
//! | is a Rust program with the feature `linked` | the SQLite it links: [`Host::linked`] |

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::error::Error;
use crate::ffi::{
    AutoExtension, ResultCode, ScalarFunction, TransactionState, c_text, sqlite3,
    sqlite3_api_routines, sqlite3_context, sqlite3_stmt, sqlite3_vfs,
};

/// The oldest SQLite with `sqlite3_uri_key`, which the VFS needs to find unknown options.
const OLDEST_SQLITE: c_int = 3_031_000;

/// The position of `sqlite3_malloc`, which every SQLite that loads extensions has.
pub(super) const MALLOC: usize = 68;

/// `sqlite3_destructor_type`, passed as an integer, since `SQLITE_TRANSIENT` is one.
type Destructor = isize;

/// Where to find a function of SQLite's.
#[derive(Clone, Copy)]
struct Symbol {
    /// Its position in `struct sqlite3_api_routines`, to which SQLite only ever appends (`sqlite3ext.h`).
    position: usize,
    /// Its name, for dlsym(3).
    name: &'static CStr,
}

/// Names each function once: its position in `struct sqlite3_api_routines`, its name, and its type as `sqlite3.h`
/// declares it. Those under `newer` are null in an SQLite before that version. They are null, too, in a linked SQLite,
/// which may be older than the one that the program was built with.
macro_rules! functions {
    (
        $($at:literal $name:ident: fn $args:tt $(-> $result:ty)?;)*
        newer {$($new_at:literal $new:ident since $since:literal: fn $new_args:tt -> $new_result:ty;)*}
    ) => {
        /// One SQLite library. Its functions live as long as the process.
        #[derive(Clone, Copy)]
        pub(crate) struct Host {
            $(pub(super) $name: unsafe extern "C" fn $args $(-> $result)?,)*
            $(pub(super) $new: Option<unsafe extern "C" fn $new_args -> $new_result>,)*
        }

        #[allow(non_upper_case_globals, reason = "C's names")]
        impl Symbol {
            $(const $name: Self =
                Self { position: $at, name: c_text(concat!(stringify!($name), "\0")) };)*
            $(const $new: Self =
                Self { position: $new_at, name: c_text(concat!(stringify!($new), "\0")) };)*
        }

        /// The functions of the SQLite that this program links. libsqlite3-sys only does the linking: its version and
        /// features decide which functions its bindings declare.
        #[cfg(feature = "linked")]
        mod linked {
            use super::*;
            use libsqlite3_sys as _;

            // SAFETY: `sqlite3.h` declares them like this from 3.31.0 on.
            unsafe extern "C" {
                $(pub(super) fn $name $args $(-> $result)?;)*
            }
        }

        impl Host {
            /// The SQLite whose functions `find` finds.
            ///
            /// # Safety
            /// `find` answers with the function of that name of one SQLite, which is never unloaded. Until the version
            /// is known to be at least 3.31.0, only `sqlite3_libversion_number` need exist.
            #[allow(clippy::missing_transmute_annotations, reason = "the field has the type")]
            unsafe fn found(
                find: impl Fn(Symbol) -> Result<*const (), Error>,
            ) -> Result<Self, Error> {
                type Version = unsafe extern "C" fn() -> c_int;
                let version = find(Symbol::sqlite3_libversion_number)?;
                // SAFETY: it has this type in every SQLite, takes nothing, and may be called at any time.
                let version = unsafe { std::mem::transmute::<*const (), Version>(version)() };
                check_version(version)?;
                // SAFETY: the caller's promise: each is what `sqlite3.h` declares by that name.
                Ok(unsafe {
                    Self {
                        $($name: std::mem::transmute::<*const (), _>(find(Symbol::$name)?),)*
                        $($new: match version {
                            $since.. => Some(std::mem::transmute::<*const (), _>(find(Symbol::$new)?)),
                            _ => None,
                        },)*
                    }
                })
            }

            /// The SQLite that this program links.
            ///
            /// It is `inline`, so that its code is in the crates that call it and never in the extension, which must
            /// not need an SQLite.
            ///
            /// # Errors
            /// [`Error::SqliteTooOld`] before 3.31.0.
            #[cfg(feature = "linked")]
            #[inline]
            pub(crate) fn linked() -> Result<Self, Error> {
                // SAFETY: it takes nothing and may be called at any time.
                check_version(unsafe { linked::sqlite3_libversion_number() })?;
                Ok(Self { $($name: linked::$name,)* $($new: None,)* })
            }
        }
    };
}

functions! {
    192 sqlite3_auto_extension: fn(callback: Option<AutoExtension>) -> ResultCode;
    14 sqlite3_busy_timeout: fn(db: *mut sqlite3, ms: c_int) -> ResultCode;
    195 sqlite3_cancel_auto_extension: fn(callback: Option<AutoExtension>) -> c_int;
    162 sqlite3_create_function_v2: fn(
        db: *mut sqlite3,
        name: *const c_char,
        arguments: c_int,
        flags: c_int,
        data: *mut c_void,
        function: Option<ScalarFunction>,
        step: *mut c_void,
        last: *mut c_void,
        destroy: *mut c_void,
    ) -> ResultCode;
    180 sqlite3_db_filename: fn(db: *mut sqlite3, schema: *const c_char) -> *const c_char;
    127 sqlite3_file_control: fn(
        db: *mut sqlite3, schema: *const c_char, op: c_int, argument: *mut c_void
    ) -> ResultCode;
    247 sqlite3_filename_journal: fn(name: *const c_char) -> *const c_char;
    248 sqlite3_filename_wal: fn(name: *const c_char) -> *const c_char;
    60 sqlite3_get_autocommit: fn(db: *mut sqlite3) -> c_int;
    67 sqlite3_libversion_number: fn() -> c_int;
    167 sqlite3_log: fn(code: c_int, format: *const c_char, ...);
    197 sqlite3_malloc64: fn(bytes: u64) -> *mut c_void;
    152 sqlite3_next_stmt: fn(db: *mut sqlite3, before: *mut sqlite3_stmt) -> *mut sqlite3_stmt;
    85 sqlite3_result_text: fn(
        context: *mut sqlite3_context, text: *const c_char, bytes: c_int, destroy: Destructor
    );
    153 sqlite3_sql: fn(statement: *mut sqlite3_stmt) -> *const c_char;
    184 sqlite3_stmt_busy: fn(statement: *mut sqlite3_stmt) -> c_int;
    241 sqlite3_stmt_isexplain: fn(statement: *mut sqlite3_stmt) -> c_int;
    185 sqlite3_stmt_readonly: fn(statement: *mut sqlite3_stmt) -> c_int;
    245 sqlite3_uri_key: fn(name: *const c_char, n: c_int) -> *const c_char;
    187 sqlite3_uri_boolean: fn(name: *const c_char, key: *const c_char, default: c_int) -> c_int;
    189 sqlite3_uri_parameter: fn(name: *const c_char, key: *const c_char) -> *const c_char;
    141 sqlite3_vfs_find: fn(name: *const c_char) -> *mut sqlite3_vfs;
    142 sqlite3_vfs_register: fn(vfs: *mut sqlite3_vfs, make_default: c_int) -> ResultCode;
    143 sqlite3_vfs_unregister: fn(vfs: *mut sqlite3_vfs) -> ResultCode;
    newer {
        264 sqlite3_db_name since 3_039_000: fn(db: *mut sqlite3, nth: c_int) -> *const c_char;
        266 sqlite3_is_interrupted since 3_041_000: fn(db: *mut sqlite3) -> c_int;
        252 sqlite3_txn_state since 3_034_000: fn(db: *mut sqlite3, schema: *const c_char) -> TransactionState;
    }
}

impl Host {
    /// The SQLite behind `api`.
    ///
    /// # Errors
    /// [`Error::SqliteTooOld`] before 3.31.0.
    ///
    /// # Safety
    /// `api` is what SQLite passed to an extension's entry point or to an auto-extension.
    pub(crate) unsafe fn from_api(api: *const sqlite3_api_routines) -> Result<Self, Error> {
        let table = api.cast::<*const ()>();
        // SAFETY: the caller passes SQLite's table. In every SQLite that loads extensions it has
        // `sqlite3_libversion_number`, from 3.31.0 on all others, and the newer ones from the versions that are given
        // with them.
        unsafe { Self::found(|symbol| Ok(*table.add(symbol.position))) }
    }

    /// The SQLite whose functions `find` finds by name.
    ///
    /// # Errors
    /// [`Error::MissingFunction`]; [`Error::SqliteTooOld`] before 3.31.0.
    ///
    /// # Safety
    /// What `find` answers is null or the function of that name of one SQLite, which is never unloaded.
    pub(crate) unsafe fn from_symbols(find: impl Fn(&CStr) -> *mut c_void) -> Result<Self, Error> {
        let find = |Symbol { name, .. }| match find(name).cast_const().cast::<()>() {
            missing if missing.is_null() => {
                Err(Error::MissingFunction { name: name.to_string_lossy().into_owned() })
            }
            function => Ok(function),
        };
        // SAFETY: the caller's promise; null became an error above.
        unsafe { Self::found(find) }
    }
}

/// Whether this SQLite has all the functions of the table.
///
/// # Errors
/// [`Error::SqliteTooOld`].
#[inline]
fn check_version(version: c_int) -> Result<(), Error> {
    if version < OLDEST_SQLITE { Err(Error::SqliteTooOld { version }) } else { Ok(()) }
}

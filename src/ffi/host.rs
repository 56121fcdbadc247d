//! The handful of SQLite functions the VFS calls, as one table of pointers.
//!
//! An extension must call the SQLite that loaded it, not a copy of its own (a VFS registered with
//! a second copy is "no such vfs" to everybody). So nothing here is linked: the table is filled
//! from the `sqlite3_api_routines` SQLite passes to an extension, from the symbols of a library that
//! the application names, or, for Rust programs, from the SQLite they link (feature `linked`).
#![allow(unsafe_code)]
#![allow(clippy::missing_transmute_annotations, reason = "the field it fills has the type")]

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::error::Error;
use crate::ffi::{
    AutoExtension, ResultCode, SQLITE_DETERMINISTIC, SQLITE_TRANSIENT, SQLITE_UTF8, ScalarFunction,
    sqlite3, sqlite3_api_routines, sqlite3_context, sqlite3_stmt, sqlite3_vfs,
};

/// The oldest SQLite with `sqlite3_uri_key`, by which unknown options are found.
pub(crate) const OLDEST_SQLITE: c_int = 3_031_000;

/// The first SQLite with `sqlite3_txn_state`.
const TXN_STATE_SINCE: c_int = 3_034_000;

/// The first SQLite with `sqlite3_db_name`.
const DB_NAME_SINCE: c_int = 3_039_000;

/// `sqlite3_destructor_type`, passed as the integer that `SQLITE_TRANSIENT` is.
type Destructor = isize;

/// One SQLite library. Its functions live as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    auto_extension: unsafe extern "C" fn(Option<AutoExtension>) -> ResultCode,
    busy_timeout: unsafe extern "C" fn(*mut sqlite3, c_int) -> ResultCode,
    cancel_auto_extension: unsafe extern "C" fn(Option<AutoExtension>) -> c_int,
    create_function: unsafe extern "C" fn(
        *mut sqlite3,
        *const c_char,
        c_int,
        c_int,
        *mut c_void,
        Option<ScalarFunction>,
        *mut c_void,
        *mut c_void,
        *mut c_void,
    ) -> ResultCode,
    db_filename: unsafe extern "C" fn(*mut sqlite3, *const c_char) -> *const c_char,
    /// Since 3.39.0, and not from a linked SQLite, which may be older.
    db_name: Option<unsafe extern "C" fn(*mut sqlite3, c_int) -> *const c_char>,
    file_control:
        unsafe extern "C" fn(*mut sqlite3, *const c_char, c_int, *mut c_void) -> ResultCode,
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is forked"))]
    filename_journal: unsafe extern "C" fn(*const c_char) -> *const c_char,
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is forked"))]
    filename_wal: unsafe extern "C" fn(*const c_char) -> *const c_char,
    get_autocommit: unsafe extern "C" fn(*mut sqlite3) -> c_int,
    libversion_number: unsafe extern "C" fn() -> c_int,
    log: unsafe extern "C" fn(c_int, *const c_char, ...),
    malloc: unsafe extern "C" fn(u64) -> *mut c_void,
    next_stmt: unsafe extern "C" fn(*mut sqlite3, *mut sqlite3_stmt) -> *mut sqlite3_stmt,
    result_text: unsafe extern "C" fn(*mut sqlite3_context, *const c_char, c_int, Destructor),
    sql: unsafe extern "C" fn(*mut sqlite3_stmt) -> *const c_char,
    stmt_busy: unsafe extern "C" fn(*mut sqlite3_stmt) -> c_int,
    stmt_isexplain: unsafe extern "C" fn(*mut sqlite3_stmt) -> c_int,
    stmt_readonly: unsafe extern "C" fn(*mut sqlite3_stmt) -> c_int,
    /// Since 3.34.0, and not from a linked SQLite, which may be older.
    txn_state: Option<unsafe extern "C" fn(*mut sqlite3, *const c_char) -> c_int>,
    uri_key: unsafe extern "C" fn(*const c_char, c_int) -> *const c_char,
    uri_parameter: unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char,
    vfs_find: unsafe extern "C" fn(*const c_char) -> *mut sqlite3_vfs,
    vfs_register: unsafe extern "C" fn(*mut sqlite3_vfs, c_int) -> ResultCode,
    vfs_unregister: unsafe extern "C" fn(*mut sqlite3_vfs) -> ResultCode,
}

/// A prepared statement, as SQLite tells of it.
pub(crate) struct Statement<'s> {
    /// `None` while it is being compiled.
    pub(crate) text: Option<&'s [u8]>,
    /// It has begun, and has not ended, and is no EXPLAIN.
    pub(crate) runs: bool,
    pub(crate) may_write: bool,
}

/// The functions of the SQLite this program links. libsqlite3-sys only sees to the linking: which
/// functions its bindings declare depends on its version and features.
#[cfg(feature = "linked")]
mod linked {
    use super::*;
    use libsqlite3_sys as _;

    // SAFETY: as `sqlite3.h` declares them, from 3.31.0 on.
    unsafe extern "C" {
        pub(super) fn sqlite3_auto_extension(callback: Option<AutoExtension>) -> ResultCode;
        pub(super) fn sqlite3_busy_timeout(db: *mut sqlite3, ms: c_int) -> ResultCode;
        pub(super) fn sqlite3_cancel_auto_extension(callback: Option<AutoExtension>) -> c_int;
        pub(super) fn sqlite3_create_function_v2(
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
        pub(super) fn sqlite3_db_filename(db: *mut sqlite3, name: *const c_char) -> *const c_char;
        pub(super) fn sqlite3_file_control(
            db: *mut sqlite3,
            name: *const c_char,
            op: c_int,
            argument: *mut c_void,
        ) -> ResultCode;
        pub(super) fn sqlite3_filename_journal(name: *const c_char) -> *const c_char;
        pub(super) fn sqlite3_filename_wal(name: *const c_char) -> *const c_char;
        pub(super) fn sqlite3_get_autocommit(db: *mut sqlite3) -> c_int;
        pub(super) fn sqlite3_libversion_number() -> c_int;
        pub(super) fn sqlite3_log(code: c_int, format: *const c_char, ...);
        pub(super) fn sqlite3_malloc64(bytes: u64) -> *mut c_void;
        pub(super) fn sqlite3_next_stmt(
            db: *mut sqlite3,
            before: *mut sqlite3_stmt,
        ) -> *mut sqlite3_stmt;
        pub(super) fn sqlite3_result_text(
            context: *mut sqlite3_context,
            text: *const c_char,
            bytes: c_int,
            destroy: Destructor,
        );
        pub(super) fn sqlite3_sql(statement: *mut sqlite3_stmt) -> *const c_char;
        pub(super) fn sqlite3_stmt_busy(statement: *mut sqlite3_stmt) -> c_int;
        pub(super) fn sqlite3_stmt_isexplain(statement: *mut sqlite3_stmt) -> c_int;
        pub(super) fn sqlite3_stmt_readonly(statement: *mut sqlite3_stmt) -> c_int;
        pub(super) fn sqlite3_uri_key(name: *const c_char, n: c_int) -> *const c_char;
        pub(super) fn sqlite3_uri_parameter(
            name: *const c_char,
            key: *const c_char,
        ) -> *const c_char;
        pub(super) fn sqlite3_vfs_find(name: *const c_char) -> *mut sqlite3_vfs;
        pub(super) fn sqlite3_vfs_register(
            vfs: *mut sqlite3_vfs,
            make_default: c_int,
        ) -> ResultCode;
        pub(super) fn sqlite3_vfs_unregister(vfs: *mut sqlite3_vfs) -> ResultCode;
    }
}

/// Positions in `struct sqlite3_api_routines`, which SQLite only ever appends to
/// (`sqlite3ext.h`).
mod slot {
    pub(super) const BUSY_TIMEOUT: usize = 14;
    pub(super) const GET_AUTOCOMMIT: usize = 60;
    pub(super) const LIBVERSION_NUMBER: usize = 67;
    pub(super) const MALLOC: usize = 68;
    pub(super) const RESULT_TEXT: usize = 85;
    pub(super) const FILE_CONTROL: usize = 127;
    pub(super) const VFS_FIND: usize = 141;
    pub(super) const VFS_REGISTER: usize = 142;
    pub(super) const VFS_UNREGISTER: usize = 143;
    pub(super) const NEXT_STMT: usize = 152;
    pub(super) const SQL: usize = 153;
    pub(super) const CREATE_FUNCTION_V2: usize = 162;
    pub(super) const STMT_READONLY: usize = 185;
    pub(super) const LOG: usize = 167;
    pub(super) const DB_FILENAME: usize = 180;
    pub(super) const STMT_BUSY: usize = 184;
    pub(super) const URI_PARAMETER: usize = 189;
    pub(super) const AUTO_EXTENSION: usize = 192;
    pub(super) const CANCEL_AUTO_EXTENSION: usize = 195;
    pub(super) const MALLOC64: usize = 197;
    pub(super) const STMT_ISEXPLAIN: usize = 241;
    pub(super) const URI_KEY: usize = 245;
    pub(super) const FILENAME_JOURNAL: usize = 247;
    pub(super) const FILENAME_WAL: usize = 248;
    pub(super) const TXN_STATE: usize = 252;
    pub(super) const DB_NAME: usize = 264;
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
        macro_rules! function {
            ($slot:expr) => {
                // SAFETY: the caller passes SQLite's table. Slots up to LIBVERSION_NUMBER exist
                // in every SQLite that loads extensions, the others from 3.31.0 on, which is
                // checked first; each holds a function of the type it is assigned to.
                unsafe { std::mem::transmute::<*const (), _>(*table.add($slot)) }
            };
        }
        let libversion_number: unsafe extern "C" fn() -> c_int = function!(slot::LIBVERSION_NUMBER);
        // SAFETY: it takes nothing and may be called at any time.
        let version = unsafe { libversion_number() };
        check_version(version)?;
        Ok(Self {
            auto_extension: function!(slot::AUTO_EXTENSION),
            busy_timeout: function!(slot::BUSY_TIMEOUT),
            cancel_auto_extension: function!(slot::CANCEL_AUTO_EXTENSION),
            create_function: function!(slot::CREATE_FUNCTION_V2),
            db_filename: function!(slot::DB_FILENAME),
            db_name: (version >= DB_NAME_SINCE).then(|| function!(slot::DB_NAME)),
            file_control: function!(slot::FILE_CONTROL),
            filename_journal: function!(slot::FILENAME_JOURNAL),
            filename_wal: function!(slot::FILENAME_WAL),
            get_autocommit: function!(slot::GET_AUTOCOMMIT),
            libversion_number,
            log: function!(slot::LOG),
            malloc: function!(slot::MALLOC64),
            next_stmt: function!(slot::NEXT_STMT),
            result_text: function!(slot::RESULT_TEXT),
            sql: function!(slot::SQL),
            stmt_busy: function!(slot::STMT_BUSY),
            stmt_isexplain: function!(slot::STMT_ISEXPLAIN),
            stmt_readonly: function!(slot::STMT_READONLY),
            txn_state: (version >= TXN_STATE_SINCE).then(|| function!(slot::TXN_STATE)),
            uri_key: function!(slot::URI_KEY),
            uri_parameter: function!(slot::URI_PARAMETER),
            vfs_find: function!(slot::VFS_FIND),
            vfs_register: function!(slot::VFS_REGISTER),
            vfs_unregister: function!(slot::VFS_UNREGISTER),
        })
    }

    /// The SQLite whose functions `find` finds by name.
    ///
    /// # Errors
    /// [`Error::MissingFunction`]; [`Error::SqliteTooOld`] before 3.31.0.
    ///
    /// # Safety
    /// What `find` answers is null or the function of that name of one SQLite, which is never
    /// unloaded.
    pub(crate) unsafe fn from_symbols(find: impl Fn(&CStr) -> *mut c_void) -> Result<Self, Error> {
        macro_rules! function {
            ($name:expr) => {{
                let symbol = find($name);
                if symbol.is_null() {
                    let name = $name.to_string_lossy().into_owned();
                    return Err(Error::MissingFunction { name });
                }
                // SAFETY: the caller's promise; the field has the type sqlite3.h declares.
                unsafe { std::mem::transmute::<*mut c_void, _>(symbol) }
            }};
        }
        let libversion_number: unsafe extern "C" fn() -> c_int =
            function!(c"sqlite3_libversion_number");
        // SAFETY: it takes nothing and may be called at any time.
        let version = unsafe { libversion_number() };
        check_version(version)?;
        Ok(Self {
            auto_extension: function!(c"sqlite3_auto_extension"),
            busy_timeout: function!(c"sqlite3_busy_timeout"),
            cancel_auto_extension: function!(c"sqlite3_cancel_auto_extension"),
            create_function: function!(c"sqlite3_create_function_v2"),
            db_filename: function!(c"sqlite3_db_filename"),
            db_name: match version {
                DB_NAME_SINCE.. => Some(function!(c"sqlite3_db_name")),
                _ => None,
            },
            file_control: function!(c"sqlite3_file_control"),
            filename_journal: function!(c"sqlite3_filename_journal"),
            filename_wal: function!(c"sqlite3_filename_wal"),
            get_autocommit: function!(c"sqlite3_get_autocommit"),
            libversion_number,
            log: function!(c"sqlite3_log"),
            malloc: function!(c"sqlite3_malloc64"),
            next_stmt: function!(c"sqlite3_next_stmt"),
            result_text: function!(c"sqlite3_result_text"),
            sql: function!(c"sqlite3_sql"),
            stmt_busy: function!(c"sqlite3_stmt_busy"),
            stmt_isexplain: function!(c"sqlite3_stmt_isexplain"),
            stmt_readonly: function!(c"sqlite3_stmt_readonly"),
            txn_state: match version {
                TXN_STATE_SINCE.. => Some(function!(c"sqlite3_txn_state")),
                _ => None,
            },
            uri_key: function!(c"sqlite3_uri_key"),
            uri_parameter: function!(c"sqlite3_uri_parameter"),
            vfs_find: function!(c"sqlite3_vfs_find"),
            vfs_register: function!(c"sqlite3_vfs_register"),
            vfs_unregister: function!(c"sqlite3_vfs_unregister"),
        })
    }

    /// The SQLite this program links.
    ///
    /// `inline`, so that its code is made in the crates that call it and never in the extension,
    /// which must not need an SQLite.
    ///
    /// # Errors
    /// [`Error::SqliteTooOld`] before 3.31.0.
    #[cfg(feature = "linked")]
    #[inline]
    pub(crate) fn linked() -> Result<Self, Error> {
        use linked::*;
        // SAFETY: it takes nothing and may be called at any time.
        check_version(unsafe { sqlite3_libversion_number() })?;
        Ok(Self {
            auto_extension: sqlite3_auto_extension,
            busy_timeout: sqlite3_busy_timeout,
            cancel_auto_extension: sqlite3_cancel_auto_extension,
            create_function: sqlite3_create_function_v2,
            db_filename: sqlite3_db_filename,
            db_name: None,
            file_control: sqlite3_file_control,
            filename_journal: sqlite3_filename_journal,
            filename_wal: sqlite3_filename_wal,
            get_autocommit: sqlite3_get_autocommit,
            libversion_number: sqlite3_libversion_number,
            log: sqlite3_log,
            malloc: sqlite3_malloc64,
            next_stmt: sqlite3_next_stmt,
            result_text: sqlite3_result_text,
            sql: sqlite3_sql,
            stmt_busy: sqlite3_stmt_busy,
            stmt_isexplain: sqlite3_stmt_isexplain,
            stmt_readonly: sqlite3_stmt_readonly,
            txn_state: None,
            uri_key: sqlite3_uri_key,
            uri_parameter: sqlite3_uri_parameter,
            vfs_find: sqlite3_vfs_find,
            vfs_register: sqlite3_vfs_register,
            vfs_unregister: sqlite3_vfs_unregister,
        })
    }

    /// Whether both are the same copy of SQLite.
    pub(crate) fn same_library(&self, other: &Self) -> bool {
        self.vfs_register as usize == other.vfs_register as usize
    }

    /// Whether a transaction of `db` is open: <https://www.sqlite.org/c3ref/txn_state.html>.
    /// `None` if this SQLite can not tell.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread.
    pub(crate) unsafe fn is_in_transaction(&self, db: *mut sqlite3) -> Option<bool> {
        const SQLITE_TXN_NONE: c_int = 0;
        // SAFETY: the caller's promise; null stands for all databases of the connection.
        self.txn_state.map(|state| unsafe { state(db, std::ptr::null()) } != SQLITE_TXN_NONE)
    }

    /// Whether no transaction was begun by BEGIN: <https://www.sqlite.org/c3ref/get_autocommit.html>.
    ///
    /// # Safety
    /// As for [`Self::is_in_transaction`].
    pub(crate) unsafe fn is_in_autocommit(&self, db: *mut sqlite3) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (self.get_autocommit)(db) != 0 }
    }

    /// Tells `see` of all statements of `db`: <https://www.sqlite.org/c3ref/next_stmt.html>.
    ///
    /// # Safety
    /// As for [`Self::is_in_transaction`].
    pub(crate) unsafe fn statements(&self, db: *mut sqlite3, mut see: impl FnMut(Statement<'_>)) {
        let mut statement = std::ptr::null_mut();
        loop {
            // SAFETY: the caller's promise: no other thread prepares or finalizes a statement meanwhile. A
            // text lives as long as its statement.
            unsafe {
                statement = (self.next_stmt)(db, statement);
                if statement.is_null() {
                    return;
                }
                see(Statement {
                    text: as_str((self.sql)(statement)).map(CStr::to_bytes),
                    runs: (self.stmt_busy)(statement) != 0 && (self.stmt_isexplain)(statement) == 0,
                    may_write: (self.stmt_readonly)(statement) == 0,
                });
            }
        }
    }

    /// Whether `db` has attached databases of which one is being written to: sqlite3_db_name(),
    /// sqlite3_txn_state(). `None` if this SQLite can not tell.
    ///
    /// # Safety
    /// As for [`Self::is_in_transaction`].
    pub(crate) unsafe fn writes_to_attached(&self, db: *mut sqlite3) -> Option<bool> {
        const SQLITE_TXN_WRITE: c_int = 2;
        /// Behind `main` and `temp`.
        const FIRST_ATTACHED: c_int = 2;
        let (name, state) = self.db_name.zip(self.txn_state)?;
        for nth in FIRST_ATTACHED.. {
            // SAFETY: the caller's promise; a name is valid until its database is detached.
            unsafe {
                let name = name(db, nth);
                if name.is_null() {
                    break;
                }
                if state(db, name) == SQLITE_TXN_WRITE {
                    return Some(true);
                }
            }
        }
        Some(false)
    }

    /// The file of the main database of `db`, as its VFS was told; `None` if it has none.
    ///
    /// # Safety
    /// `db` is an open connection of this library; the result is used before its main database is
    /// closed.
    pub(crate) unsafe fn main_file<'n>(&self, db: *mut sqlite3) -> Option<&'n CStr> {
        // SAFETY: the caller's promise.
        unsafe { as_str((self.db_filename)(db, c"main".as_ptr())) }
    }

    /// Whether one of the databases of `db` that lie at `path` is what `is_it` looks for by its schema's name.
    /// True if it can not be known: SQLite may not tell which are attached.
    ///
    /// # Safety
    /// As for [`Self::is_in_transaction`].
    pub(crate) unsafe fn is_opened(
        &self,
        db: *mut sqlite3,
        path: &std::path::Path,
        is_it: impl Fn(&CStr) -> bool,
    ) -> bool {
        /// Behind `main` and `temp`.
        const FIRST_ATTACHED: c_int = 2;
        let lies_there = |name: &CStr| {
            // SAFETY: the caller's promise.
            let file = unsafe { as_str((self.db_filename)(db, name.as_ptr())) };
            file.is_some_and(|file| crate::sys::path_from(file) == path)
        };
        let is_main = lies_there(c"main");
        if is_main && is_it(c"main") {
            return true;
        }
        let Some(name_of) = self.db_name else { return !is_main };
        for nth in FIRST_ATTACHED.. {
            // SAFETY: the caller's promise; a name is valid until its database is detached.
            match unsafe { as_str(name_of(db, nth)) } {
                None => return false,
                Some(name) if lies_there(name) && is_it(name) => return true,
                Some(_) => {}
            }
        }
        false
    }

    /// For instance 3040001, <https://www.sqlite.org/c3ref/libversion.html>.
    pub(crate) fn version_number(&self) -> c_int {
        // SAFETY: it takes nothing and may be called at any time.
        unsafe { (self.libversion_number)() }
    }

    /// Whether an unlock of slots of the wal-index that a connection does not hold leaves those of other connections of this
    /// process alone. Before 3.40 it unlocks them.
    pub(crate) fn unlocks_own_slots_only(&self) -> bool {
        self.version_number() >= 3_040_000
    }

    /// Writes one line to SQLite's error log, <https://www.sqlite.org/errlog.html>.
    pub(crate) fn log(&self, rc: ResultCode, message: &str) {
        let Ok(message) = std::ffi::CString::new(message) else { return };
        // SAFETY: the format takes one string and gets one; the message is never the format.
        unsafe { (self.log)(rc.0, c"%s".as_ptr(), message.as_ptr()) }
    }

    /// As [`Self::log`], about a file, whose name is cut from the left as far as it must: SQLite
    /// before 3.42 cuts a line after 210 bytes.
    pub(crate) fn log_about(&self, rc: ResultCode, what: &str, file: &std::path::Path) {
        const MOST: usize = 205;
        let name = file.display().to_string();
        let room = MOST.saturating_sub(what.len() + 2).max(20);
        let cut = (0..=name.len())
            .find(|at| name.is_char_boundary(*at) && name.len() - at + 3 <= room)
            .filter(|_| name.len() > room);
        let line = match cut {
            Some(at) => format!("{what}: ...{}", &name[at..]),
            None => format!("{what}: {name}"),
        };
        self.log(rc, &line);
    }

    /// A copy of `text` that SQLite may free; null when out of memory.
    pub(crate) fn allocate_text(&self, text: &str) -> *mut c_char {
        // SAFETY: the allocation has room for the text and its terminator, and is ours.
        unsafe {
            let copy = (self.malloc)(text.len() as u64 + 1).cast::<u8>();
            if !copy.is_null() {
                copy.copy_from_nonoverlapping(text.as_ptr(), text.len());
                copy.add(text.len()).write(0);
            }
            copy.cast()
        }
    }

    /// As [`Self::allocate_text`], with any SQLite, however old.
    ///
    /// # Safety
    /// `api` is what SQLite passed to an extension's entry point.
    pub(crate) unsafe fn allocate_text_anywhere(
        api: *const sqlite3_api_routines,
        text: &str,
    ) -> *mut c_char {
        // SAFETY: the slot exists in every SQLite that loads extensions and holds
        // `sqlite3_malloc`; the allocation has room for the text and its terminator.
        unsafe {
            let malloc = std::mem::transmute::<*const (), unsafe extern "C" fn(c_int) -> *mut c_void>(
                *api.cast::<*const ()>().add(slot::MALLOC),
            );
            let copy = malloc(c_int::try_from(text.len() + 1).unwrap_or(0)).cast::<u8>();
            if !copy.is_null() {
                copy.copy_from_nonoverlapping(text.as_ptr(), text.len());
                copy.add(text.len()).write(0);
            }
            copy.cast()
        }
    }

    /// The VFS of that name; the default one for `None`. Null if there is none.
    pub(crate) fn find_vfs(&self, name: Option<&CStr>) -> *mut sqlite3_vfs {
        // SAFETY: a terminated string or null.
        unsafe { (self.vfs_find)(name.map_or(std::ptr::null(), CStr::as_ptr)) }
    }

    /// # Safety
    /// `vfs` is complete and is never freed.
    pub(crate) unsafe fn register_vfs(
        &self,
        vfs: *mut sqlite3_vfs,
        make_default: bool,
    ) -> ResultCode {
        // SAFETY: the caller's promise.
        unsafe { (self.vfs_register)(vfs, make_default.into()) }
    }

    /// # Safety
    /// `vfs` was registered with this library.
    pub(crate) unsafe fn unregister_vfs(&self, vfs: *mut sqlite3_vfs) -> ResultCode {
        // SAFETY: the caller's promise.
        unsafe { (self.vfs_unregister)(vfs) }
    }

    pub(crate) fn add_auto_extension(&self, callback: AutoExtension) -> ResultCode {
        // SAFETY: the callback is a function of this library, which is never unloaded.
        unsafe { (self.auto_extension)(Some(callback)) }
    }

    pub(crate) fn remove_auto_extension(&self, callback: AutoExtension) {
        // SAFETY: it only compares the pointer.
        unsafe { (self.cancel_auto_extension)(Some(callback)) };
    }

    /// # Safety
    /// `db` is an open connection of this library.
    pub(crate) unsafe fn set_busy_timeout(&self, db: *mut sqlite3, ms: c_int) -> ResultCode {
        // SAFETY: the caller's promise.
        unsafe { (self.busy_timeout)(db, ms) }
    }

    /// Sends a file control to the connection's main database.
    ///
    /// # Safety
    /// `db` is an open connection of this library, `argument` what `op` asks for.
    pub(crate) unsafe fn main_file_control(
        &self,
        db: *mut sqlite3,
        op: c_int,
        argument: *mut c_void,
    ) -> ResultCode {
        // SAFETY: the caller's promise.
        unsafe { (self.file_control)(db, c"main".as_ptr(), op, argument) }
    }

    /// Sends a file control to the file of a connection's database.
    ///
    /// # Safety
    /// As for [`Self::main_file_control`].
    pub(crate) unsafe fn file_control(
        &self,
        db: *mut sqlite3,
        name: &CStr,
        op: c_int,
        argument: *mut c_void,
    ) -> ResultCode {
        // SAFETY: the caller's promise.
        unsafe { (self.file_control)(db, name.as_ptr(), op, argument) }
    }

    /// Defines an SQL function without arguments whose value never changes.
    ///
    /// # Safety
    /// `db` is an open connection of this library.
    pub(crate) unsafe fn define_constant(
        &self,
        db: *mut sqlite3,
        name: &CStr,
        function: ScalarFunction,
    ) -> ResultCode {
        const SQLITE_INNOCUOUS: c_int = 0x0020_0000;
        let flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
        let none = std::ptr::null_mut();
        // SAFETY: the caller's promise; the function is never unloaded.
        unsafe {
            (self.create_function)(
                db,
                name.as_ptr(),
                0,
                flags,
                none,
                Some(function),
                none,
                none,
                none,
            )
        }
    }

    /// # Safety
    /// `context` is the one SQLite passed to the running SQL function.
    pub(crate) unsafe fn result_text(&self, context: *mut sqlite3_context, text: &CStr) {
        // SAFETY: the caller's promise; SQLite copies the text.
        unsafe { (self.result_text)(context, text.as_ptr(), -1, SQLITE_TRANSIENT) }
    }

    /// The value of a URI parameter.
    ///
    /// # Safety
    /// `name` is the file name SQLite passed to xOpen for a main database.
    pub(crate) unsafe fn uri_parameter<'n>(
        &self,
        name: *const c_char,
        key: &CStr,
    ) -> Option<&'n CStr> {
        // SAFETY: the caller's promise; the value lives as long as the name.
        unsafe { as_str((self.uri_parameter)(name, key.as_ptr())) }
    }

    /// The names of the journal and the WAL, as SQLite keeps them beside that of the database, and passes
    /// them to the VFS.
    ///
    /// # Safety
    /// As for [`Self::uri_parameter`].
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is forked"))]
    pub(crate) unsafe fn names_beside(&self, name: *const c_char) -> [*const c_char; 2] {
        // SAFETY: the caller's promise.
        unsafe { [(self.filename_journal)(name), (self.filename_wal)(name)] }
    }

    /// The key of the `n`th URI parameter.
    ///
    /// # Safety
    /// As for [`Self::uri_parameter`].
    pub(crate) unsafe fn uri_key<'n>(&self, name: *const c_char, n: c_int) -> Option<&'n CStr> {
        // SAFETY: the caller's promise; the key lives as long as the name.
        unsafe { as_str((self.uri_key)(name, n)) }
    }
}

/// # Safety
/// `text` is null or a terminated string that outlives `'n`.
unsafe fn as_str<'n>(text: *const c_char) -> Option<&'n CStr> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// Whether this SQLite has all the functions of the table.
#[inline]
fn check_version(version: c_int) -> Result<(), Error> {
    if version < OLDEST_SQLITE { Err(Error::SqliteTooOld { version }) } else { Ok(()) }
}

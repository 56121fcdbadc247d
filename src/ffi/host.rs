//! The functions of SQLite that the VFS calls.
//!
//! An extension must call the SQLite that loaded it, not a copy of its own: connections of one copy do not find a VFS that is
//! registered with another ("no such vfs"). So nothing here is linked. A [`Host`] is a table of pointers to the functions of
//! one SQLite ([`functions`]).
#![allow(unsafe_code)]

mod functions;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use crate::ffi::{
    AutoExtension, ResultCode, SQLITE_DETERMINISTIC, SQLITE_INNOCUOUS, SQLITE_TRANSIENT,
    SQLITE_UTF8, ScalarFunction, TransactionState, sqlite3, sqlite3_api_routines, sqlite3_context,
    sqlite3_stmt, sqlite3_vfs,
};
use crate::sys;
pub(crate) use functions::Host;

/// The statement that a connection runs.
pub(crate) struct RunningStatement<'s> {
    host: &'s Host,
    statement: *mut sqlite3_stmt,
    /// Its SQL.
    pub(crate) text: &'s CStr,
}

impl RunningStatement<'_> {
    /// Its address. Another statement may have it as soon as this one is finalized.
    pub(crate) fn address(&self) -> usize {
        self.statement.addr()
    }

    /// Whether it may write to a database: <https://www.sqlite.org/c3ref/stmt_readonly.html>.
    pub(crate) fn may_write(&self) -> bool {
        // SAFETY: `Host::running` made this for the time of its call to `see`, in which the statement runs and is not finalized.
        unsafe { (self.host.sqlite3_stmt_readonly)(self.statement) == 0 }
    }
}

/// A prepared statement, as SQLite describes it.
pub(crate) struct Statement<'s> {
    /// Its SQL; `None` while it is being compiled.
    pub(crate) text: Option<&'s [u8]>,
    /// Whether it has begun, has not ended, and is not an EXPLAIN.
    pub(crate) runs: bool,
    /// Whether it may write to a database: <https://www.sqlite.org/c3ref/stmt_readonly.html>.
    pub(crate) may_write: bool,
}

impl Host {
    /// Whether both are the same copy of SQLite.
    pub(crate) fn same_library(&self, other: &Self) -> bool {
        self.sqlite3_vfs_register as usize == other.sqlite3_vfs_register as usize
    }

    /// The version, for example 3040001, <https://www.sqlite.org/c3ref/libversion.html>.
    pub(crate) fn version_number(&self) -> c_int {
        // SAFETY: it takes nothing and may be called at any time.
        unsafe { (self.sqlite3_libversion_number)() }
    }

    /// Whether other connections of this process still see wal-index slots as locked after a connection that does not hold
    /// them unlocks them. SQLite before 3.40 unlocks them.
    pub(crate) fn unlocks_own_slots_only(&self) -> bool {
        self.version_number() >= 3_040_000
    }

    /// The state of the transaction of `db`: that of the database, temporary ones included, where it has got farthest. `None`
    /// if this SQLite cannot tell.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread.
    pub(crate) unsafe fn transaction(&self, db: *mut sqlite3) -> Option<TransactionState> {
        // SAFETY: the caller's promise; null stands for all databases of the connection.
        self.sqlite3_txn_state.map(|state| unsafe { state(db, std::ptr::null()) })
    }

    /// Whether sqlite3_interrupt() was called and has not taken effect yet. False if this SQLite cannot tell.
    /// <https://www.sqlite.org/c3ref/interrupt.html>
    ///
    /// # Safety
    /// `db` is an open connection of this SQLite.
    pub(crate) unsafe fn is_interrupted(&self, db: *mut sqlite3) -> bool {
        // SAFETY: the caller's promise.
        self.sqlite3_is_interrupted.is_some_and(|is| unsafe { is(db) != 0 })
    }

    /// Passes to `see` the statement that `db` runs. If several run, it is the one that was prepared last, which runs within
    /// the others. `None` if none runs.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread: no other thread prepares or finalizes a statement
    /// meanwhile, nor does `see`.
    pub(crate) unsafe fn running<T>(
        &self,
        db: *mut sqlite3,
        see: impl Fn(RunningStatement<'_>) -> T,
    ) -> Option<T> {
        // SAFETY: the caller's promise; a text lives as long as its statement.
        unsafe {
            let mut busy = self.prepared(db).filter(|one| (self.sqlite3_stmt_busy)(*one) != 0);
            busy.find_map(|statement| {
                let text = text((self.sqlite3_sql)(statement))?;
                Some(see(RunningStatement { host: self, statement, text }))
            })
        }
    }

    /// All statements of `db`, the latest prepared first: <https://www.sqlite.org/c3ref/next_stmt.html>.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread: nobody prepares or finalizes a statement meanwhile.
    unsafe fn prepared(&self, db: *mut sqlite3) -> impl Iterator<Item = *mut sqlite3_stmt> {
        let mut statement = std::ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the caller's promise; null asks for the first one.
            statement = unsafe { (self.sqlite3_next_stmt)(db, statement) };
            (!statement.is_null()).then_some(statement)
        })
    }

    /// Whether no BEGIN has begun a transaction: <https://www.sqlite.org/c3ref/get_autocommit.html>.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread.
    pub(crate) unsafe fn is_in_autocommit(&self, db: *mut sqlite3) -> bool {
        // SAFETY: the caller's promise: the connection is used by this thread.
        unsafe { (self.sqlite3_get_autocommit)(db) != 0 }
    }

    /// A description of each statement of `db`.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread: nobody prepares or finalizes a statement while one of
    /// them is looked at.
    pub(crate) unsafe fn statements<'s>(
        &'s self,
        db: *mut sqlite3,
    ) -> impl Iterator<Item = Statement<'s>> {
        // SAFETY: the caller's promise; a text lives as long as its statement.
        unsafe {
            self.prepared(db).map(|statement| Statement {
                text: text((self.sqlite3_sql)(statement)).map(CStr::to_bytes),
                runs: (self.sqlite3_stmt_busy)(statement) != 0
                    && (self.sqlite3_stmt_isexplain)(statement) == 0,
                may_write: (self.sqlite3_stmt_readonly)(statement) == 0,
            })
        }
    }

    /// The schema names of the databases that are attached to `db`, <https://www.sqlite.org/c3ref/db_name.html>.
    /// `None` if this SQLite cannot tell.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread, and nothing is detached while a name is used.
    unsafe fn attached<'n>(&self, db: *mut sqlite3) -> Option<impl Iterator<Item = &'n CStr>> {
        /// `main` and `temp` come before.
        const FIRST_ATTACHED: c_int = 2;
        let name = self.sqlite3_db_name?;
        // SAFETY: the caller's promise: a name is valid until its database is detached.
        Some((FIRST_ATTACHED..).map_while(move |nth| unsafe { text(name(db, nth)) }))
    }

    /// Whether `db` writes to an attached database. `None` if this SQLite cannot tell.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread.
    pub(crate) unsafe fn writes_to_attached(&self, db: *mut sqlite3) -> Option<bool> {
        // SAFETY: the caller's promise; only names of its databases are asked about.
        unsafe {
            let (mut attached, state) = self.attached(db).zip(self.sqlite3_txn_state)?;
            Some(attached.any(|schema| state(db, schema.as_ptr()) == TransactionState::WRITE))
        }
    }

    /// The file name of a database of `db`, as passed to its VFS; `None` if it has none.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread; the result is used before that database is closed.
    pub(crate) unsafe fn file_of<'n>(&self, db: *mut sqlite3, schema: &CStr) -> Option<&'n CStr> {
        // SAFETY: the caller's promise: the connection is used by this thread; a name lives as long as its file is open.
        unsafe { text((self.sqlite3_db_filename)(db, schema.as_ptr())) }
    }

    /// Whether `db` has a database at `path` whose schema's name `is_it` accepts. True if that cannot be known: this SQLite
    /// may not list attached databases.
    ///
    /// # Safety
    /// `db` is a connection of this SQLite, used by this thread.
    pub(crate) unsafe fn has_database_that(
        &self,
        db: *mut sqlite3,
        path: &Path,
        is_it: impl Fn(&CStr) -> bool,
    ) -> bool {
        // SAFETY: the caller's promise; each name is compared at once.
        let lies_there = |schema: &CStr| unsafe {
            self.file_of(db, schema).is_some_and(|file| sys::path_from(file) == path)
        };
        let is_main = lies_there(c"main");
        if is_main && is_it(c"main") {
            return true;
        }
        // SAFETY: the caller's promise; nothing is detached in here.
        match unsafe { self.attached(db) } {
            None => !is_main,
            Some(mut attached) => attached.any(|schema| lies_there(schema) && is_it(schema)),
        }
    }

    /// Writes one line to SQLite's error log, <https://www.sqlite.org/errlog.html>.
    pub(crate) fn log(&self, rc: ResultCode, message: &str) {
        let Ok(message) = CString::new(message) else { return };
        // SAFETY: the format takes one string and gets one; the message is never the format.
        unsafe { (self.sqlite3_log)(rc.0, c"%s".as_ptr(), message.as_ptr()) }
    }

    /// Writes one line about a file to SQLite's error log. The file's name is cut from the left as far as needed, since SQLite
    /// before 3.42 cuts a line after 210 bytes.
    pub(crate) fn log_about(&self, rc: ResultCode, what: &str, file: &Path) {
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
        // SAFETY: SQLite's allocator may be called at any time, and answers with null or that many bytes.
        unsafe { copy_into(|bytes| (self.sqlite3_malloc64)(bytes as u64), text) }
    }

    /// A copy of `text` that SQLite may free, from an SQLite of any age; null when out of memory.
    ///
    /// # Safety
    /// `api` is what SQLite passed to an extension's entry point.
    pub(crate) unsafe fn allocate_text_anywhere(
        api: *const sqlite3_api_routines,
        text: &str,
    ) -> *mut c_char {
        type Malloc = unsafe extern "C" fn(c_int) -> *mut c_void;
        // SAFETY: at that position every SQLite that loads extensions has its allocator, which has that type and answers
        // with null or that many bytes.
        unsafe {
            let malloc = *api.cast::<*const ()>().add(functions::MALLOC);
            let malloc = std::mem::transmute::<*const (), Malloc>(malloc);
            copy_into(|bytes| malloc(c_int::try_from(bytes).unwrap_or(0)), text)
        }
    }

    /// The VFS of that name; the default one for `None`. Null if there is none.
    pub(crate) fn find_vfs(&self, name: Option<&CStr>) -> *mut sqlite3_vfs {
        // SAFETY: a terminated string or null.
        unsafe { (self.sqlite3_vfs_find)(name.map_or(std::ptr::null(), CStr::as_ptr)) }
    }

    /// <https://www.sqlite.org/c3ref/vfs_find.html>. If the VFS is already registered, this can only make it the default one.
    ///
    /// # Safety
    /// `vfs` is complete and is never freed.
    pub(crate) unsafe fn register_vfs(
        &self,
        vfs: *mut sqlite3_vfs,
        make_default: bool,
    ) -> ResultCode {
        // SAFETY: the caller's promise: SQLite may keep the address for ever.
        unsafe { (self.sqlite3_vfs_register)(vfs, make_default.into()) }
    }

    /// <https://www.sqlite.org/c3ref/vfs_find.html>.
    ///
    /// # Safety
    /// `vfs` was registered with this library.
    pub(crate) unsafe fn unregister_vfs(&self, vfs: *mut sqlite3_vfs) -> ResultCode {
        // SAFETY: the caller's promise: it is in this library's list.
        unsafe { (self.sqlite3_vfs_unregister)(vfs) }
    }

    /// Makes SQLite call `callback` for each connection that it opens:
    /// <https://www.sqlite.org/c3ref/auto_extension.html>.
    pub(crate) fn add_auto_extension(&self, callback: AutoExtension) -> ResultCode {
        // SAFETY: the callback is a function of this library, which is never unloaded.
        unsafe { (self.sqlite3_auto_extension)(Some(callback)) }
    }

    /// Undoes [`Self::add_auto_extension`].
    pub(crate) fn remove_auto_extension(&self, callback: AutoExtension) {
        // SAFETY: it only compares the pointer.
        unsafe { (self.sqlite3_cancel_auto_extension)(Some(callback)) };
    }

    /// <https://www.sqlite.org/c3ref/busy_timeout.html>.
    ///
    /// # Safety
    /// `db` is an open connection of this library.
    pub(crate) unsafe fn set_busy_timeout(&self, db: *mut sqlite3, ms: c_int) -> ResultCode {
        // SAFETY: the caller's promise: the connection is open.
        unsafe { (self.sqlite3_busy_timeout)(db, ms) }
    }

    /// Sends a file control to the file of a connection's database:
    /// <https://www.sqlite.org/c3ref/file_control.html>.
    ///
    /// # Safety
    /// `db` is an open connection of this library, `argument` what `op` asks for.
    pub(crate) unsafe fn file_control(
        &self,
        db: *mut sqlite3,
        schema: &CStr,
        op: c_int,
        argument: *mut c_void,
    ) -> ResultCode {
        // SAFETY: the caller's promise: the connection is open, and the argument is of the control's type.
        unsafe { (self.sqlite3_file_control)(db, schema.as_ptr(), op, argument) }
    }

    /// Defines an SQL function without arguments whose value never changes:
    /// <https://www.sqlite.org/c3ref/create_function.html>.
    ///
    /// # Safety
    /// `db` is an open connection of this library.
    pub(crate) unsafe fn define_constant(
        &self,
        db: *mut sqlite3,
        name: &CStr,
        function: ScalarFunction,
    ) -> ResultCode {
        let flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
        let (name, none) = (name.as_ptr(), std::ptr::null_mut());
        let create = self.sqlite3_create_function_v2;
        // SAFETY: the caller's promise; the function is never unloaded.
        unsafe { create(db, name, 0, flags, none, Some(function), none, none, none) }
    }

    /// <https://www.sqlite.org/c3ref/result_blob.html>.
    ///
    /// # Safety
    /// `context` is the one SQLite passed to the running SQL function.
    pub(crate) unsafe fn result_text(&self, context: *mut sqlite3_context, text: &CStr) {
        // SAFETY: the caller's promise; SQLite copies the text.
        unsafe { (self.sqlite3_result_text)(context, text.as_ptr(), -1, SQLITE_TRANSIENT) }
    }

    /// The value of a URI parameter, <https://www.sqlite.org/c3ref/uri_boolean.html>.
    ///
    /// # Safety
    /// `name` is the file name SQLite passed to xOpen for a main database.
    pub(crate) unsafe fn uri_parameter<'n>(
        &self,
        name: *const c_char,
        key: &CStr,
    ) -> Option<&'n CStr> {
        // SAFETY: the caller's promise; the value lives as long as the name.
        unsafe { text((self.sqlite3_uri_parameter)(name, key.as_ptr())) }
    }

    /// Whether a URI parameter of an open is set and true: <https://www.sqlite.org/c3ref/uri_boolean.html>.
    ///
    /// # Safety
    /// As for [`Self::uri_parameter`].
    pub(crate) unsafe fn uri_boolean(&self, name: *const c_char, key: &CStr) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (self.sqlite3_uri_boolean)(name, key.as_ptr(), 0) != 0 }
    }

    /// The key of the `n`th URI parameter, <https://www.sqlite.org/c3ref/uri_boolean.html>.
    ///
    /// # Safety
    /// `name` is the file name SQLite passed to xOpen for a main database.
    pub(crate) unsafe fn uri_key<'n>(&self, name: *const c_char, n: c_int) -> Option<&'n CStr> {
        // SAFETY: the caller's promise; the key lives as long as the name.
        unsafe { text((self.sqlite3_uri_key)(name, n)) }
    }

    /// The names of the journal and the WAL, which SQLite keeps beside the database's name and passes to the VFS:
    /// <https://www.sqlite.org/c3ref/filename_database.html>.
    ///
    /// # Safety
    /// `name` is the file name SQLite passed to xOpen for a main database.
    pub(crate) unsafe fn names_beside(&self, name: *const c_char) -> [*const c_char; 2] {
        // SAFETY: the caller's promise: SQLite keeps these names beside a database's.
        unsafe { [(self.sqlite3_filename_journal)(name), (self.sqlite3_filename_wal)(name)] }
    }
}

/// A terminated copy of `text` in memory from `allocate`; null if that answers null.
///
/// # Safety
/// `allocate` answers with null, or with memory of that many bytes that nothing else uses.
unsafe fn copy_into(allocate: impl FnOnce(usize) -> *mut c_void, text: &str) -> *mut c_char {
    let copy = allocate(text.len() + 1).cast::<u8>();
    if !copy.is_null() {
        // SAFETY: the caller's promise: there is room for the text and its terminator.
        unsafe {
            copy.copy_from_nonoverlapping(text.as_ptr(), text.len());
            copy.add(text.len()).write(0);
        }
    }
    copy.cast()
}

/// A C string; `None` for null.
///
/// # Safety
/// `text` is null or a terminated string that outlives `'n`.
unsafe fn text<'n>(text: *const c_char) -> Option<&'n CStr> {
    // SAFETY: the caller's promise: it is terminated.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

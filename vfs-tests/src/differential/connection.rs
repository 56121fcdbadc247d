//! One connection of a worker.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use rusqlite::ffi::{self, sqlite3, sqlite3_blob, sqlite3_stmt};

use super::api::Api;
use super::protocol::{Outcome, Transaction};

/// How many rows of a statement are reported; further ones are only read.
const ROWS: usize = 100;

/// A connection, and what it has begun. Nothing ends without a call: a dropped connection stays
/// open.
pub struct Connection<'a> {
    api: &'a Api,
    /// The handle; null after it was closed.
    pub db: *mut sqlite3,
    /// Whether it uses the stock VFS although others do not.
    pub is_stock: bool,
    cursor: *mut sqlite3_stmt,
    blob: *mut sqlite3_blob,
}

impl<'a> Connection<'a> {
    /// Opens a connection by a URI.
    ///
    /// # Errors
    /// SQLite's outcome, if the open fails.
    pub fn open(api: &'a Api, uri: &str) -> Result<Self, Outcome> {
        let uri = CString::new(uri).expect("no NUL");
        let mut db = null_mut();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
        // SAFETY: a terminated name, and a place for the handle.
        let code = unsafe { (api.open_v2)(uri.as_ptr(), &raw mut db, flags, std::ptr::null()) };
        let connection = Self { api, db, is_stock: false, cursor: null_mut(), blob: null_mut() };
        if code != ffi::SQLITE_OK {
            let outcome = connection.result(code);
            // SAFETY: a handle must be closed even if the open failed.
            unsafe { (api.close)(db) };
            return Err(outcome);
        }
        // SAFETY: an open handle, here and in all other functions.
        unsafe { (api.extended_result_codes)(db, 1) };
        Ok(connection)
    }

    /// The outcome with the connection's message, and with the extended code if the call returned
    /// the primary one.
    pub fn result(&self, code: c_int) -> Outcome {
        if matches!(code, ffi::SQLITE_OK | ffi::SQLITE_ROW | ffi::SQLITE_DONE) {
            return Outcome { code, ..Outcome::default() };
        }
        // SAFETY: the message is copied before the next call.
        unsafe {
            let extended = (self.api.extended_errcode)(self.db);
            let code = if extended & 0xff == code & 0xff { extended } else { code };
            let message = CStr::from_ptr((self.api.errmsg)(self.db)).to_string_lossy().into_owned();
            Outcome { code, message, ..Outcome::default() }
        }
    }

    /// The state of its transaction.
    pub fn transaction(&self) -> Transaction {
        let mut lock: c_int = -1;
        // SAFETY: SQLite writes an int.
        unsafe {
            let place = (&raw mut lock).cast::<c_void>();
            (self.api.file_control)(self.db, c"main".as_ptr(), ffi::SQLITE_FCNTL_LOCKSTATE, place);
            Transaction {
                autocommit: (self.api.get_autocommit)(self.db) != 0,
                state: (self.api.txn_state)(self.db, std::ptr::null()),
                lock,
            }
        }
    }

    /// Runs all statements of an SQL text, until one fails.
    pub fn sql(&mut self, sql: &str) -> Outcome {
        let sql = CString::new(sql).expect("no NUL");
        let mut rest = sql.as_ptr();
        let mut rows = Vec::new();
        let mut outcome = Outcome::default();
        // SAFETY: `rest` stays in the text, which is terminated.
        while outcome.code == ffi::SQLITE_OK && unsafe { *rest } != 0 {
            let mut statement = null_mut();
            outcome = self.prepare(rest, &mut statement, &mut rest);
            if statement.is_null() {
                continue;
            }
            let code = loop {
                // SAFETY: a statement of this connection.
                match unsafe { (self.api.step)(statement) } {
                    ffi::SQLITE_ROW if rows.len() < ROWS => rows.push(self.row(statement)),
                    ffi::SQLITE_ROW => {}
                    ffi::SQLITE_DONE => break ffi::SQLITE_OK,
                    code => break code,
                }
            };
            outcome = self.result(code);
            // SAFETY: as above. Its result is that of the last step.
            unsafe { (self.api.finalize)(statement) };
        }
        Outcome { rows, ..outcome }
    }

    fn prepare(
        &self,
        sql: *const c_char,
        statement: &mut *mut sqlite3_stmt,
        rest: &mut *const c_char,
    ) -> Outcome {
        // SAFETY: a terminated text, and places for the results.
        self.result(unsafe { (self.api.prepare_v2)(self.db, sql, -1, statement, rest) })
    }

    fn row(&self, statement: *mut sqlite3_stmt) -> String {
        let api = self.api;
        // SAFETY: the statement has a row; each value is copied before the next call.
        let value = |n| unsafe {
            match (api.column_type)(statement, n) {
                ffi::SQLITE_NULL => "NULL".to_owned(),
                ffi::SQLITE_BLOB => {
                    let data = (api.column_blob)(statement, n).cast::<u8>();
                    let length = (api.column_bytes)(statement, n) as usize;
                    blob(if length == 0 { &[] } else { std::slice::from_raw_parts(data, length) })
                }
                _ => {
                    let text = (api.column_text)(statement, n);
                    if text.is_null() {
                        return "no memory".to_owned();
                    }
                    CStr::from_ptr(text.cast()).to_string_lossy().into_owned()
                }
            }
        };
        // SAFETY: as above.
        let columns = unsafe { (api.column_count)(statement) };
        (0..columns).map(value).collect::<Vec<_>>().join("|")
    }

    /// Begins a query, after it ends the one before.
    pub fn cursor(&mut self, sql: &str) -> Outcome {
        self.end_cursor();
        let sql = CString::new(sql).expect("no NUL");
        let (mut statement, mut rest) = (null_mut(), std::ptr::null());
        let outcome = self.prepare(sql.as_ptr(), &mut statement, &mut rest);
        self.cursor = statement;
        if outcome.code == ffi::SQLITE_OK { self.step_cursor() } else { outcome }
    }

    /// Reads the next row.
    pub fn step_cursor(&mut self) -> Outcome {
        if self.cursor.is_null() {
            return Outcome::default();
        }
        // SAFETY: a statement of this connection.
        let code = unsafe { (self.api.step)(self.cursor) };
        let mut outcome = self.result(code);
        if code == ffi::SQLITE_ROW {
            outcome.rows.push(self.row(self.cursor));
        }
        outcome
    }

    /// Ends the query.
    pub fn end_cursor(&mut self) -> Outcome {
        let cursor = std::mem::replace(&mut self.cursor, null_mut());
        // SAFETY: a statement of this connection, or null; it is not used again.
        self.result(unsafe { (self.api.finalize)(cursor) })
    }

    /// Opens a blob, after it closes the one before.
    pub fn open_blob(&mut self, row: i64, write: bool) -> Outcome {
        self.close_blob();
        let mut blob = null_mut();
        // SAFETY: terminated names, and a place for the handle.
        let code = unsafe {
            let (main, t, b) = (c"main".as_ptr(), c"t".as_ptr(), c"b".as_ptr());
            (self.api.blob_open)(self.db, main, t, b, row, write.into(), &raw mut blob)
        };
        let outcome = self.result(code);
        if code == ffi::SQLITE_OK {
            self.blob = blob;
        }
        outcome
    }

    /// Reads the blob's first bytes, writes them, or moves it to another row.
    pub fn use_blob(&mut self, what: BlobUse) -> Outcome {
        if self.blob.is_null() {
            return Outcome::default();
        }
        let mut bytes = *b"12345678";
        // SAFETY: an open blob, and that many bytes.
        unsafe {
            let length = (self.api.blob_bytes)(self.blob).min(8);
            let code = match what {
                BlobUse::Read => {
                    (self.api.blob_read)(self.blob, bytes.as_mut_ptr().cast(), length, 0)
                }
                BlobUse::Write => {
                    (self.api.blob_write)(self.blob, bytes.as_ptr().cast(), length, 0)
                }
                BlobUse::Reopen(row) => (self.api.blob_reopen)(self.blob, row),
            };
            Outcome { rows: vec![blob(&bytes)], ..self.result(code) }
        }
    }

    /// Closes the blob.
    pub fn close_blob(&mut self) -> Outcome {
        let blob = std::mem::replace(&mut self.blob, null_mut());
        if blob.is_null() {
            return Outcome::default();
        }
        // SAFETY: an open blob, which is not used again.
        self.result(unsafe { (self.api.blob_close)(blob) })
    }

    /// `sqlite3_wal_checkpoint_v2` of all databases.
    pub fn checkpoint(&mut self, mode: c_int) -> Outcome {
        let (mut log, mut copied) = (0, 0);
        // SAFETY: places for the results.
        let code = unsafe {
            let all = std::ptr::null();
            (self.api.wal_checkpoint_v2)(self.db, all, mode, &raw mut log, &raw mut copied)
        };
        Outcome { rows: vec![format!("{log}|{copied}")], ..self.result(code) }
    }

    /// A file control of the main database that takes an int, and may change it.
    pub fn file_control(&mut self, control: c_int, mut value: c_int) -> Outcome {
        // SAFETY: the control takes an int and may write one.
        let code = unsafe {
            let place = (&raw mut value).cast::<c_void>();
            (self.api.file_control)(self.db, c"main".as_ptr(), control, place)
        };
        Outcome { code, rows: vec![value.to_string()], ..Outcome::default() }
    }

    /// Ends what the connection has begun, and closes it.
    pub fn close(&mut self) -> Outcome {
        self.end_cursor();
        self.close_blob();
        // SAFETY: nothing uses it any more.
        let code = unsafe { (self.api.close)(self.db) };
        Outcome { code, ..Outcome::default() }
    }

    /// Closes the connection as soon as nothing of it is open any more (`sqlite3_close_v2`).
    ///
    /// A blob whose row was changed or deleted is closed first: after it has answered SQLITE_ABORT,
    /// SQLite does not count it. Then `sqlite3_close_v2` frees the connection, and a later
    /// `sqlite3_blob_close` would use freed memory.
    pub fn abandon(&mut self) -> Outcome {
        // SAFETY: an open blob, or none. Without a blob, or with an expired one, this returns 0.
        if unsafe { (self.api.blob_bytes)(self.blob) } == 0 {
            self.close_blob();
        }
        // SAFETY: from now on only its cursor and blob are used, to end them.
        let code = unsafe { (self.api.close_v2)(self.db) };
        Outcome { code, ..Outcome::default() }
    }

    /// Ends what keeps the connection alive after [`Self::abandon`].
    pub fn bury(mut self) {
        // SAFETY: an open blob, or none, which nothing else uses; then the statement.
        unsafe {
            if !self.blob.is_null() {
                (self.api.blob_close)(self.blob);
            }
            let cursor = std::mem::replace(&mut self.cursor, null_mut());
            (self.api.finalize)(cursor);
        }
    }
}

/// What to do with an open blob.
#[derive(Clone, Copy)]
pub enum BlobUse {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Move to another row.
    Reopen(i64),
}

/// A blob as text: its length and a checksum (FNV-1a).
pub fn blob(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("x{}:{sum:x}", bytes.len())
}

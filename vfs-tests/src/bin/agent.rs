//! A client for the tests: reads a command a line, answers a line. See `vfs_tests::Agent`.
//!
//! The busy timeout is set only when asked for, which `rusqlite::Connection::open` does not leave
//! open; so connections are opened by the C interface and handed to rusqlite.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{BufRead, Write};
use std::sync::Mutex;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Connection, ffi, types::ValueRef};
use serde_json::{Value, json};

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() {
    // SAFETY: SQLite was not used yet in this process.
    unsafe {
        rusqlite::trace::config_log(Some(|code, message| {
            if let Ok(mut log) = LOG.lock() {
                log.push(format!("{code} {message}"));
            }
        }))
        .expect("the log is set first");
    }
    kanban_vfs::register(&kanban_vfs::Options::default()).expect("the VFS registers");
    let mut connections = HashMap::new();
    let mut output = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let command: Value = serde_json::from_str(&line).expect("a JSON array");
        let text = |n: usize| command[n].as_str().unwrap_or_default();
        let answer = match text(0) {
            "open" => open(text(2), &command[3]).map(|connection| {
                connections.insert(text(1).to_owned(), connection);
                Vec::new()
            }),
            "sql" => sql(&connections[text(1)], text(2)),
            "close" => {
                connections.remove(text(1));
                Ok(Vec::new())
            }
            "log" => {
                let lines = std::mem::take(&mut *LOG.lock().expect("no panic holds it"));
                Ok(lines.into_iter().map(|line| vec![json!(line)]).collect())
            }
            "read" => {
                // An application that looks at its own database file.
                std::fs::read(text(1)).expect("it exists");
                Ok(Vec::new())
            }
            "cd" => {
                std::env::set_current_dir(text(1)).expect("it exists");
                Ok(Vec::new())
            }
            other => panic!("unknown command {other}"),
        };
        let answer = match answer {
            Ok(rows) => json!({ "rows": rows }),
            Err((code, message)) => json!({ "error": message, "code": code }),
        };
        writeln!(output, "{answer}").and_then(|()| output.flush()).expect("the test listens");
    }
}

type Answer<T> = Result<T, (i64, String)>;

fn open(uri: &str, timeout: &Value) -> Answer<Connection> {
    let name = CString::new(uri).expect("no NUL");
    let mut db = std::ptr::null_mut();
    // SAFETY: a terminated name and a place for the handle; the handle is owned by the connection
    // or closed; the message is SQLite's and copied before that.
    unsafe {
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
        let rc = ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, std::ptr::null());
        if rc != ffi::SQLITE_OK {
            let message =
                std::ffi::CStr::from_ptr(ffi::sqlite3_errmsg(db)).to_string_lossy().into_owned();
            ffi::sqlite3_close(db);
            return Err((rc.into(), message));
        }
        ffi::sqlite3_extended_result_codes(db, 1);
        if let Some(ms) = timeout.as_i64() {
            ffi::sqlite3_busy_timeout(db, ms as i32);
        }
        Connection::from_handle_owned(db).map_err(failure)
    }
}

fn sql(connection: &Connection, sql: &str) -> Answer<Vec<Vec<Value>>> {
    let mut found = Vec::new();
    let mut batch = rusqlite::Batch::new(connection, sql);
    while let Some(mut statement) = batch.next().map_err(failure)? {
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(failure)? {
            let row = (0..columns).map(|n| match row.get_ref(n) {
                Ok(ValueRef::Integer(n)) => json!(n),
                Ok(ValueRef::Real(n)) => json!(n),
                Ok(ValueRef::Text(text) | ValueRef::Blob(text)) => {
                    json!(String::from_utf8_lossy(text))
                }
                _ => Value::Null,
            });
            found.push(row.collect());
        }
    }
    Ok(found)
}

fn failure(error: rusqlite::Error) -> (i64, String) {
    match error {
        rusqlite::Error::SqliteFailure(error, message) => {
            (error.extended_code.into(), message.unwrap_or_else(|| error.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => (error.extended_code.into(), msg),
        other => (-1, other.to_string()),
    }
}

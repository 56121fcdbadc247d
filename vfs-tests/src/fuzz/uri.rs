//! Arbitrary URI parameters. Either the database is opened with exactly the settings that they ask
//! for. Or it is refused with a message that names the wrong parameter, and no file is created.
//!
//! A second implementation of <https://www.sqlite.org/uri.html> tells what SQLite makes of the
//! bytes. `docs/configuration.md` tells what the VFS makes of the parameters.

use std::ffi::{CStr, CString, c_int};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_OK, SQLITE_OPEN_CREATE, SQLITE_OPEN_READWRITE, SQLITE_OPEN_URI,
    sqlite3, sqlite3_close, sqlite3_errmsg, sqlite3_exec, sqlite3_open_v2,
};

use crate::beside;

/// A board with two names, so that `kanban_hard_links` has an effect, and a path without a board.
struct Boards {
    _directory: tempfile::TempDir,
    board: PathBuf,
    empty: PathBuf,
}

impl Boards {
    fn new() -> Self {
        let (directory, path) = super::directory();
        let board = path.join("board.db");
        let stock = rusqlite::Connection::open(&board).expect("a board");
        stock.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("a board");
        drop(stock);
        std::fs::hard_link(&board, path.join("second.db")).expect("another name");
        let empty = path.join("empty");
        std::fs::create_dir(&empty).expect("a directory");
        Self { _directory: directory, board, empty }
    }
}

/// The parameters after a `?`, as SQLite passes them to a VFS.
fn parameters(query: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    // As `sqlite3ParseUri` writes them: key, NUL, value, NUL, and so on, then a NUL.
    let (mut out, mut at, mut in_key) = (vec![0_u8], 0, true);
    let byte = |at: usize| query.get(at).copied().unwrap_or(0);
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    while byte(at) != 0 && byte(at) != b'#' {
        let mut c = byte(at);
        at += 1;
        if let (b'%', Some(high), Some(low)) = (c, hex(byte(at)), hex(byte(at + 1))) {
            at += 2;
            c = high * 16 + low;
            if c == 0 {
                // The rest of the key or value is ignored.
                let ends = |c| matches!((c, in_key), (0 | b'#' | b'&', _) | (b'=', true));
                while !ends(byte(at)) {
                    at += 1;
                }
                continue;
            }
        } else if in_key && (c == b'&' || c == b'=') {
            if out.last() == Some(&0) {
                // An option without a name.
                while byte(at) != 0 && byte(at) != b'#' && byte(at - 1) != b'&' {
                    at += 1;
                }
                continue;
            }
            if c == b'&' {
                out.push(0);
            } else {
                in_key = false;
            }
            c = 0;
        } else if !in_key && c == b'&' {
            (c, in_key) = (0, true);
        }
        out.push(c);
    }
    let mut texts = out[1..].split(|byte| *byte == 0).map(<[u8]>::to_vec);
    let mut found = Vec::new();
    while let Some(key) = texts.next().filter(|key| !key.is_empty()) {
        found.push((key, texts.next().unwrap_or_default()));
    }
    found
}

/// The settings that the parameters ask for.
#[derive(Debug)]
struct Asked {
    begin: &'static str,
    busy_timeout: c_int,
    hard_links: bool,
    network_wal: bool,
    persist_wal: bool,
}

/// The settings, or the wrong key.
fn asked(parameters: &[(Vec<u8>, Vec<u8>)]) -> Result<Asked, String> {
    let mut asked = Asked {
        begin: "deferred",
        busy_timeout: 5000,
        hard_links: false,
        network_wal: false,
        persist_wal: false,
    };
    let mut least = 0;
    let mut seen: Vec<&[u8]> = Vec::new();
    for (key, value) in parameters.iter().filter(|(key, _)| key.starts_with(b"kanban_")) {
        let wrong = || String::from_utf8_lossy(key).into_owned();
        if seen.contains(&key.as_slice()) {
            return Err(wrong());
        }
        seen.push(key);
        let flag = || match value.as_slice() {
            b"0" => Ok(false),
            b"1" => Ok(true),
            _ => Err(wrong()),
        };
        let ms = || {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let ms = value.iter().try_fold(0_i64, |ms, digit| {
                Some(ms * 10 + i64::from(digit.wrapping_sub(b'0')))
                    .filter(|ms| *ms <= i64::from(c_int::MAX))
            });
            ms.filter(|_| digits).and_then(|ms| c_int::try_from(ms).ok()).ok_or_else(wrong)
        };
        match key.as_slice() {
            b"kanban_begin" => {
                let known = ["deferred", "immediate", "auto"];
                asked.begin =
                    known.into_iter().find(|mode| mode.as_bytes() == value).ok_or_else(wrong)?;
            }
            b"kanban_begin_timeout" | b"kanban_slow_ms" => {
                ms()?;
            }
            b"kanban_busy_timeout" => asked.busy_timeout = ms()?,
            b"kanban_busy_timeout_min" => least = ms()?,
            b"kanban_file_ahead"
            | b"kanban_group_commit"
            | b"kanban_record"
            | b"kanban_record_sql" => {
                flag()?;
            }
            b"kanban_hard_links" => asked.hard_links = flag()?,
            b"kanban_network_wal" => asked.network_wal = flag()?,
            b"kanban_persist_wal" => asked.persist_wal = flag()?,
            _ => return Err(wrong()),
        }
    }
    asked.busy_timeout = asked.busy_timeout.max(least);
    Ok(asked)
}

/// `sqlite3_uri_boolean` of the first parameter of that name.
fn is_true(parameters: &[(Vec<u8>, Vec<u8>)], name: &[u8]) -> bool {
    parameters.iter().find(|(key, _)| key == name).is_some_and(|(_, value)| match value.first() {
        // Like `sqlite3Atoi`: the number at the start of the text, or 0 if it is too large.
        Some(b'0'..=b'9') => {
            let is_hex = value.len() > 2
                && matches!(value[1], b'x' | b'X')
                && value[0] == b'0'
                && value[2].is_ascii_hexdigit();
            let (digits, base) = if is_hex { (&value[2..], 16) } else { (&value[..], 10) };
            let digits = digits.iter().map_while(|digit| char::from(*digit).to_digit(base));
            let number = digits
                .fold(0_u64, |n, digit| n.saturating_mul(base.into()).saturating_add(digit.into()));
            (1..=0x7fff_ffff).contains(&number)
        }
        _ => [&b"on"[..], b"yes", b"true"].iter().any(|yes| value.eq_ignore_ascii_case(yes)),
    })
}

struct Open(*mut sqlite3, c_int);

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: it was made by sqlite3_open_v2 and is closed once.
        unsafe { sqlite3_close(self.0) };
    }
}

impl Open {
    fn new(path: &Path, query: &[u8]) -> Self {
        let mut uri = format!("file:{}?", path.display()).into_bytes();
        uri.extend(query.iter().take_while(|byte| **byte != 0));
        let uri = CString::new(uri).expect("no NUL");
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
        let mut db = null_mut();
        // SAFETY: terminated texts and a place for the connection.
        let rc = unsafe { sqlite3_open_v2(uri.as_ptr(), &raw mut db, flags, c"kanban".as_ptr()) };
        Self(db, rc)
    }

    fn message(&self) -> String {
        // SAFETY: the connection is open, or null, which has a message too.
        unsafe { CStr::from_ptr(sqlite3_errmsg(self.0)) }.to_string_lossy().into_owned()
    }

    fn execute(&self, sql: &CStr) -> c_int {
        // SAFETY: the connection is open; no callback.
        unsafe { sqlite3_exec(self.0, sql.as_ptr(), None, null_mut(), null_mut()) }
    }

    fn text(&self, sql: &str) -> Option<String> {
        // SAFETY: it is open, and closed by its owner alone.
        let connection = unsafe { rusqlite::Connection::from_handle(self.0) }.expect("it is open");
        let text = connection.query_row(sql, [], |row| {
            row.get_ref(0).map(|value| match value {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                other => other.as_str().unwrap_or_default().to_owned(),
            })
        });
        text.ok()
    }
}

/// Opens a board, and one that does not exist, with the bytes as parameters.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    thread_local!(static BOARDS: Boards = Boards::new());
    BOARDS.with(|boards| {
        let parameters = parameters(data);
        let all = |name: &'static [u8]| parameters.iter().filter(move |(key, _)| key == name);
        let is_ours = all(b"vfs").next_back().is_none_or(|(_, vfs)| vfs == b"kanban");
        let is_memory = all(b"mode").any(|(_, mode)| mode == b"memory");
        if all(b"modeof").next().is_some() {
            // If that file does not exist, SQLite's unixOpen leaks memory.
            return;
        }
        let sqlite_agrees = all(b"mode")
            .all(|(_, mode)| [&b"ro"[..], b"rw", b"rwc"].contains(&mode.as_slice()))
            && all(b"cache").all(|(_, cache)| [&b"shared"[..], b"private"].contains(&&cache[..]));
        let asked = asked(&parameters);

        let open = Open::new(&boards.board, data);
        if open.1 != SQLITE_OK {
            assert!(!open.message().is_empty());
        }
        if is_ours && sqlite_agrees {
            match &asked {
                Ok(asked) => check(&open, asked, &parameters),
                Err(key) => {
                    assert_eq!(open.1, SQLITE_CANTOPEN, "{key}: {}", open.message());
                    assert!(open.message().contains(key.as_str()), "{key}: {}", open.message());
                }
            }
        }
        drop(open);

        let path = boards.empty.join("new.db");
        let open = Open::new(&path, data);
        let created = std::fs::read_dir(&boards.empty).expect("a directory").count();
        if is_ours && !is_memory && (asked.is_err() || open.1 != SQLITE_OK) {
            assert_ne!(open.1, SQLITE_OK, "{:?} was not refused", asked.err());
            assert_eq!(created, 0, "refused, and a file created");
        }
        drop(open);
        for entry in std::fs::read_dir(&boards.empty).expect("a directory").flatten() {
            let path = entry.path();
            std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).expect("ours");
        }
        let lock = beside(&boards.board, ".lock");
        let _ = std::fs::remove_dir_all(lock);
    });
}

fn check(open: &Open, asked: &Asked, parameters: &[(Vec<u8>, Vec<u8>)]) {
    assert_eq!(open.1, SQLITE_OK, "{asked:?}: {}", open.message());
    let status = open.text("PRAGMA kanban_status");
    if is_true(parameters, b"nolock") || is_true(parameters, b"immutable") {
        assert_eq!(status, None, "nobody locks it");
        return;
    }
    let status: serde_json::Value =
        serde_json::from_str(&status.expect("a guarded database")).expect("JSON");
    let field = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(field("/begin"), asked.begin);
    assert_eq!(field("/busy_timeout_default_ms"), asked.busy_timeout);
    assert_eq!(open.text("PRAGMA busy_timeout"), Some(asked.busy_timeout.to_string()));
    assert_eq!(field("/persist_wal"), asked.persist_wal);
    assert_eq!(field("/guarantees/wal_file_system/active"), !asked.network_wal);
    assert_eq!(field("/guarantees/identity/active"), asked.hard_links);
    let reads_only = parameters.iter().rfind(|(key, _)| key == b"mode");
    let writes = asked.hard_links && reads_only.is_none_or(|(_, mode)| mode != b"ro");
    // A connection that can only read may begin to write, but hard links do not concern it.
    if reads_only.is_none_or(|(_, mode)| mode != b"ro") {
        let rc = open.execute(c"BEGIN IMMEDIATE; ROLLBACK");
        assert_eq!(rc == SQLITE_OK, writes, "{rc}: {}", open.message());
    }
}

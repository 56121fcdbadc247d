//! What the files of a side hold, without touching its locks or files. To open and close a database
//! may recover or checkpoint it, so this opens a copy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::connection::blob;

/// A directory at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The files, without sidecars, and their lengths. While a connection has a database open, the
    /// file's length is only empty or not: in WAL mode our file is longer than the stock one.
    pub files: BTreeMap<String, u64>,
    /// What a client would read, for each database, if it came after all processes here were
    /// killed.
    pub contents: BTreeMap<String, Arc<str>>,
}

/// Looks at one side.
pub struct Observer {
    scratch: PathBuf,
    /// The databases as last seen: a database that has not changed is not opened again.
    seen: BTreeMap<String, Seen>,
}

/// A database that was looked at.
struct Seen {
    parts: [Option<Vec<u8>>; PARTS.len()],
    content: Arc<str>,
}

/// The files that make up a database, by their suffixes.
const PARTS: [&str; 3] = ["", "-wal", "-journal"];

impl Observer {
    /// An observer that puts its copies into this directory.
    #[must_use]
    pub fn new(scratch: PathBuf) -> Self {
        Self { scratch, seen: BTreeMap::new() }
    }

    /// Forgets what was seen, since another schedule begins.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Looks at a directory. `is_closed`: no connection has a database there open.
    ///
    /// # Panics
    /// If the directory does not exist.
    pub fn observe(&mut self, directory: &Path, is_closed: bool) -> Observation {
        let mut observation = Observation::default();
        for entry in std::fs::read_dir(directory).expect("it was made").flatten() {
            let mut name = entry.file_name().into_string().expect("UTF-8");
            if let Some(at) = name.find("-mj") {
                // A super-journal has a random name.
                name.truncate(at + 3);
            }
            if name.ends_with("-lock") || name.ends_with("-kanban-log") {
                continue;
            }
            let mut length = entry.metadata().map_or(0, |metadata| metadata.len());
            if name.ends_with("-shm") {
                length = 0;
            }
            if name.ends_with(".db") {
                // If there is a WAL beside it, the last connection to close could not clean up.
                if !is_closed || directory.join(format!("{name}-wal")).exists() {
                    length = length.min(1);
                }
                let content = self.content(directory, &name);
                observation.contents.insert(name.clone(), content);
            }
            observation.files.insert(name, length);
        }
        observation
    }

    fn content(&mut self, directory: &Path, name: &str) -> Arc<str> {
        let parts = PARTS.map(|part| std::fs::read(directory.join(format!("{name}{part}"))).ok());
        if let Some(seen) = self.seen.get(name).filter(|seen| seen.parts == parts) {
            return seen.content.clone();
        }
        for (part, bytes) in PARTS.iter().zip(&parts) {
            let copy = self.scratch.join(format!("copy.db{part}"));
            match bytes {
                Some(bytes) => std::fs::write(copy, bytes).expect("there is room"),
                None => drop(std::fs::remove_file(copy)),
            }
        }
        let mut content = String::new();
        if let Err(error) = dump(&self.scratch.join("copy.db"), &mut content) {
            let _ = writeln!(content, "error: {error}");
        }
        let content: Arc<str> = content.into();
        self.seen.insert(name.to_owned(), Seen { parts, content: content.clone() });
        content
    }
}

fn dump(copy: &Path, content: &mut String) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(copy, flags, c"unix")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(
        "PRAGMA locking_mode=exclusive; PRAGMA synchronous=off; PRAGMA journal_mode",
    )?;
    for pragma in ["integrity_check(5)", "page_size", "user_version", "auto_vacuum"] {
        let _ = write!(content, "{pragma}: ");
        rows(&connection, &format!("PRAGMA {pragma}"), content)?;
    }
    let tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    rows(&connection, "SELECT type, name, sql FROM sqlite_schema ORDER BY name", content)?;
    for table in tables {
        let _ = writeln!(content, "table {table}:");
        rows(&connection, &format!("SELECT * FROM \"{table}\" ORDER BY rowid"), content)?;
    }
    Ok(())
}

fn rows(connection: &Connection, sql: &str, content: &mut String) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for n in 0..columns {
            let _ = match row.get_ref(n)? {
                ValueRef::Null => write!(content, "NULL|"),
                ValueRef::Integer(value) => write!(content, "{value}|"),
                ValueRef::Real(value) => write!(content, "{value}|"),
                ValueRef::Text(text) => write!(content, "{}|", String::from_utf8_lossy(text)),
                ValueRef::Blob(bytes) => write!(content, "{}|", blob(bytes)),
            };
        }
        content.push('\n');
    }
    Ok(())
}

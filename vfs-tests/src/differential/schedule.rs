//! A schedule: which connection does what, step by step.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Steps that are taken one after the other, first to last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Whether no client uses our VFS. On our side the VFS is then only loaded, and must change
    /// nothing.
    #[serde(default)]
    pub is_plain: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What one connection of one process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which process, from 0 on.
    pub process: usize,
    /// Which connection, from 0 on. Each belongs to one process.
    pub connection: usize,
    /// What it does.
    pub operation: Operation,
}

/// One of the database files of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Database {
    /// `board.db`, which most connections open.
    Board,
    /// `other.db`, for ATTACH and backups.
    Other,
}

/// A child process after fork.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Child {
    /// It runs SQL on the connection that it inherited.
    Inherited(String),
    /// It closes the connection that it inherited.
    Closes,
    /// It opens a connection of its own, runs SQL on it and closes it.
    Own(Database, String),
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Opens the connection, with further parameters for the URI; `mode=` among them says how.
    Open(Database, String),
    /// Ends what the connection has begun, and closes the connection.
    Close,
    /// `sqlite3_close_v2`: the connection lives on while a cursor or a blob is open.
    Abandon,
    /// Ends what abandoned connections of the process have open.
    Bury,
    /// Runs SQL to its end. `{board}`, `{other}` and `{copy}` stand for URIs.
    Sql(String),
    /// Begins a query and reads one row.
    Cursor(String),
    /// Reads one more row.
    CursorStep,
    /// Ends the query.
    CursorEnd,
    /// Opens the blob `b` in the row of `t` that has this id; true: to write it.
    BlobOpen(i64, bool),
    /// Reads some bytes of the blob.
    BlobRead,
    /// Writes some bytes of the blob.
    BlobWrite,
    /// Moves the blob to another row.
    BlobReopen(i64),
    /// Closes the blob.
    BlobClose,
    /// Copies pages of the connection's database into that of another connection, step by step.
    Backup(usize, i32),
    /// Ends the backup.
    BackupEnd,
    /// `sqlite3_wal_checkpoint_v2` in this mode.
    Checkpoint(i32),
    /// `sqlite3_db_cacheflush`
    CacheFlush,
    /// `sqlite3_db_release_memory`
    ReleaseMemory,
    /// A file control that takes a number, and the number.
    FileControl(i32, i32),
    /// The process forks.
    Fork(Child),
    /// The process starts a program and waits for its end.
    Spawn,
    /// SIGKILL. The next step starts the process anew.
    Kill,
    /// The process opens a database's file, or the one beside it with this suffix, reads 16 bytes
    /// and closes it.
    Touch(Database, String),
    /// A database's file is made longer than its header says, by that many bytes.
    Append(Database, u64),
    /// The file is made shorter than its header says, by that many bytes.
    Cut(Database, u64),
    /// The process closes all its connections.
    CloseAll,
}

impl Database {
    /// The name of its file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Board => "board.db",
            Self::Other => "other.db",
        }
    }
}

impl Operation {
    /// Whether the stock VFS cannot survive the step. Closing a database's file drops POSIX locks,
    /// and a child that uses its parent's connection can do any damage. So the stock side leaves
    /// the step out, and on our side everything must go on as if the step had not happened.
    #[must_use]
    pub fn is_spared_stock(&self) -> bool {
        matches!(self, Self::Touch(..) | Self::Fork(Child::Inherited(_) | Child::Closes))
    }

    /// Whether it runs SQL that contains this, even in a child's own connection.
    #[must_use]
    pub fn is_sql_with(&self, text: &str) -> bool {
        let (Self::Sql(sql) | Self::Fork(Child::Own(_, sql))) = self else { return false };
        sql.contains(text)
    }

    /// Whether it runs a statement that begins with this.
    #[must_use]
    pub fn is_sql(&self, verb: &str) -> bool {
        matches!(self, Self::Sql(sql) if sql.starts_with(verb))
    }

    /// Whether the runner does it to the files, rather than a process.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        matches!(self, Self::Append(..) | Self::Cut(..))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{} c{} ", self.process, self.connection)?;
        match &self.operation {
            Operation::Open(database, parameters) => {
                write!(f, "open {}?{parameters}", database.file_name())
            }
            Operation::Sql(sql) => write!(f, "{sql}"),
            Operation::Cursor(sql) => write!(f, "first row of: {sql}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain {
            writeln!(f, "     all by vfs=unix")?;
        }
        for (n, step) in self.steps.iter().enumerate() {
            writeln!(f, "{n:4} {step}")?;
        }
        Ok(())
    }
}

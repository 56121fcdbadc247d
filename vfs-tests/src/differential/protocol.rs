//! What the runner and its workers tell each other, a line each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::schedule::{Child, Operation};

/// What the runner asks of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// From now on the databases are those in this directory, and every URI has these parameters.
    Begin(PathBuf, String),
    /// It does what a child of another worker would do with a connection of its own.
    Alone(Child),
    /// The connection, and what it is to do.
    Do(usize, Operation),
}

/// What came of it. Two sides are alike if these are, but for the messages and the child.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// SQLite's extended result code.
    pub code: i32,
    /// Its message, for people.
    pub message: String,
    /// The rows, or numbers that a call gave.
    pub rows: Vec<String>,
    /// The transaction of the connection afterwards.
    pub transaction: Option<Transaction>,
    /// What the child saw, if it was forked to do what it must not.
    pub child: Option<Box<Outcome>>,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// `sqlite3_get_autocommit`
    pub autocommit: bool,
    /// `sqlite3_txn_state`: the highest of all its databases.
    pub state: i32,
    /// SQLITE_FCNTL_LOCKSTATE: the lock on the main database in a rollback mode.
    pub lock: i32,
}

/// A connection that is asked for something is not open.
pub const NOT_OPEN: i32 = -1;
/// SQLite forbids its use while it is the target of a backup.
pub const IN_BACKUP: i32 = -2;
/// The process ended by itself.
pub const DIED: i32 = -3;
/// The process did not answer.
pub const HANGS: i32 = -4;

//! The messages between the runner and its workers, one per line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::schedule::{Child, Operation};

/// What the runner asks of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// From now on the databases are those in this directory, and every URI has these parameters.
    Begin(PathBuf, String),
    /// Do what a child of another worker would do with a connection of its own.
    Alone(Child),
    /// The number of the connection, and what it is to do.
    Do(usize, Operation),
}

/// The outcome of a request. Two sides are alike if their outcomes are, except for the messages and
/// the child.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// SQLite's extended result code.
    pub code: i32,
    /// Its message, for people.
    pub message: String,
    /// The rows, or the numbers that a call returned.
    pub rows: Vec<String>,
    /// The transaction of the connection afterwards.
    pub transaction: Option<Transaction>,
    /// The child's outcome, if a child was forked to do what it must not do.
    pub child: Option<Box<Outcome>>,
}

/// The state of a connection's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// `sqlite3_get_autocommit`
    pub autocommit: bool,
    /// `sqlite3_txn_state`: the highest state of all its databases.
    pub state: i32,
    /// SQLITE_FCNTL_LOCKSTATE: the lock on the main database in a rollback mode.
    pub lock: i32,
}

/// The connection that is to do something is not open.
pub const NOT_OPEN: i32 = -1;
/// The connection is the target of a backup, and SQLite forbids its use.
pub const IN_BACKUP: i32 = -2;
/// The process ended without a request.
pub const DIED: i32 = -3;
/// The process did not answer.
pub const HANGS: i32 = -4;

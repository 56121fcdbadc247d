//! A SQLite VFS named `kanban`: one bounded, crash-safe write lock per database, across all
//! processes.
//!
//! It wraps the operating system's VFS. A client names it in its connection string,
//! `file:board.db?vfs=kanban`; its SQL stays as it is. A writer takes a lock on the sidecar
//! `<database>-lock` before SQLite's own locks. All writers of a database do so, in any process,
//! whatever name they opened it by. SQLite's own locks are taken as on the stock VFS, so that stock
//! clients stay correct. Readers do not take the sidecar's lock.
//!
//! # Use from Rust
//! With the feature `linked`, for programs that link SQLite (rusqlite and others):
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("board.db");
//! kanban_vfs::register(&kanban_vfs::Options::default())?;
//!
//! let board = rusqlite::Connection::open(format!("file:{}?vfs=kanban", path.display()))?;
//! board.pragma_update(None, "journal_mode", "wal")?;
//! board.execute_batch("CREATE TABLE tasks (title TEXT); INSERT INTO tasks VALUES ('try it')")?;
//! # let status: String = board.query_row("PRAGMA kanban_status", [], |row| row.get(0))?;
//! # assert!(status.contains("\"vfs\":\"kanban/unix\""), "{status}");
//! # Ok(())
//! # }
//! ```
//!
//! # Use from everything else
//! `cargo build --release` makes the loadable extension `libkanban_vfs`, which neither contains
//! nor needs a copy of SQLite. See the README for the `sqlite3` shell and Python.
//!
//! # Look at a stuck board
//! [`observe`] tells, without a connection, who holds the write lock and who waits. The tool
//! `kanban-vfs` (`cli` in the repository) shows that in a terminal.
//!
//! # What it guarantees
//! | guarantee | where |
//! |---|---|
//! | one write lock per database and machine, whatever name a client opened it by | `src/lock` |
//! | a bounded wait: the busy timeout (5 s unless set), then SQLITE_BUSY and one line in SQLite's error log that names the holder | `src/connection` |
//! | first connects wait for each other where SQLite would fail at once | `src/connection` |
//! | a killed writer's lock is free at once; a forked child cannot harm its parent's locks | the kernel, `src/shim/inherited.rs` |
//! | a child that keeps a killed writer's lock, because no fork handler ran in it, is named | `src/lock/keepers.rs` |
//! | a database mounted over another file is refused | `src/guard/mount.rs` |
//! | closing a descriptor of the database drops no lock | `src/guard/cancellation` |
//! | the WAL-reset bug of SQLite 3.7.0 to 3.51.2 loses nothing | `src/connection/guards/restart.rs` |
//! | a commit or checkpoint that would leave the file short is refused | `src/guard/file_length.rs` |
//! | nothing is written to files that were replaced, renamed or deleted while open, nor by one of several hard links | `src/guard/identity.rs` |
//! | WAL mode is refused where memory is not shared by all clients | `src/guard/filesystem.rs` |
//!
//! `docs/guarantees.md` has the limits of each, and `docs/audit.md` SQLite's list of what corrupts
//! a database. `PRAGMA kanban_status` says which guarantees hold on a connection, and why one does
//! not.
#![deny(unsafe_code)]

mod connection;
mod counters;
mod error;
mod ffi;
mod format;
mod group_commit;
mod guard;
mod json;
mod lock;
mod log;
pub mod observation;
mod options;
mod recorder;
mod register;
mod shim;
mod sys;
mod vfs;

/// For the project's own fuzzers: no promise.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::lock::simulation::hostile_page;
}

pub use error::Error;
pub use observation::observe;
pub use options::{Begin, Options, VARIABLES, unknown_variables};

/// Registers the VFS with the SQLite that this program links. A second call with equal options only
/// applies [`Options::with_make_default`].
///
/// # Errors
/// - [`Error::SqliteTooOld`]: SQLite before 3.31.0.
/// - [`Error::InvalidName`], [`Error::NoBaseVfs`], [`Error::BaseUnfit`], [`Error::BaseUnnamed`],
///   [`Error::NameTaken`]: the options.
/// - [`Error::AtFork`], [`Error::Sqlite`]: out of memory.
#[cfg(feature = "linked")]
#[inline]
pub fn register(options: &Options) -> Result<(), Error> {
    register::register(ffi::host::Host::linked()?, options)
}

/// Unregisters the VFS named `name` from the SQLite that this program links. In-memory databases
/// may go on using it.
///
/// # Errors
/// - [`Error::InUse`]: databases are open through it.
/// - [`Error::NotRegistered`]: [`register()`] registered no VFS of that name.
/// - [`Error::SqliteTooOld`]: SQLite before 3.31.0.
#[cfg(feature = "linked")]
#[inline]
pub fn unregister(name: &str) -> Result<(), Error> {
    register::unregister(ffi::host::Host::linked()?, name)
}

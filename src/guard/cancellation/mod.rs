//! Closing any descriptor of a file drops all POSIX locks that the process has on it
//! (<https://www.sqlite.org/howtocorrupt.html> 2.2). An application that opens and closes its own
//! database to look at the header releases SQLite's locks. Then other processes can write in the
//! middle of its transaction.
//!
//! # What it does
//! Open-file-description locks belong to an open file description, not to a process (fcntl(2)). So the locks that
//! SQLite asks for become such locks, all those of a process and file on one descriptor that nobody else has. They and
//! POSIX locks exclude each other, so clients in other processes notice nothing. SQLite keeps its own book of what its
//! connections hold, as ever. `vfs::system_calls` replaces the system calls of a unix VFS and asks [`table`] what
//! becomes of each lock.
//!
//! # What it does not do
//! - It protects only the databases that this process has open through the VFS, and their wal-indexes, whichever
//!   connection locks them. The locks of all other files stay POSIX locks.
//! - A file that the process had locked before the VFS opened it keeps POSIX locks until it is unlocked.
//! - Code that closes our own descriptor of a file drops the locks nevertheless.
//!
//! # Copies of SQLite
//! A process may have several copies of SQLite, whose books do not know each other (2.2.1). Each copy has a table, and
//! so its own lock descriptor for each file: the copies exclude each other like processes.
//!
//! # Files
//! | file | what it keeps |
//! |---|---|
//! | [`table`] | which kind of lock each lock becomes |
//! | `published` | what a lock call learns from the table without a mutex |
//! | `lock_descriptor` | the descriptor that has the locks of one file |
//! | `ours` | which files are open through the VFS |
//! | `descriptors` | which file is behind a number |
//! | `posix_locks` | which files the process has locked by POSIX locks |
//! | `table::child` | what is left of a table in a child of fork(2) |

#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
mod lock_descriptor;
#[cfg(unix)]
mod ours;
#[cfg(unix)]
mod posix_locks;
#[cfg(unix)]
mod published;
#[cfg(unix)]
pub(crate) mod table;

use std::path::Path;

#[cfg(unix)]
use crate::ffi::copies;
#[cfg(unix)]
use crate::format;
use crate::sys::{Inode, Range};

/// One for each copy of SQLite.
#[cfg(unix)]
static TABLES: [table::LockTable; copies::MOST] = [const { table::LockTable::new() }; copies::MOST];

/// The table of the copy of SQLite with this number.
#[cfg(unix)]
pub(crate) const fn table_of(nth: usize) -> &'static table::LockTable {
    &TABLES[nth]
}

/// From now on the table of that copy of SQLite protects the copy's locks, and knows which databases the other copies
/// have open. The caller has replaced the system calls. `has_shortcut` is as for [`table::LockTable::begin`].
///
/// # Errors
/// There is no /proc.
#[cfg(unix)]
pub(crate) fn begin(nth: usize, has_shortcut: bool) -> std::io::Result<Protection> {
    let table = table_of(nth);
    table.begin(has_shortcut)?;
    for other in TABLES.iter().filter(|other| !std::ptr::eq(*other, table)) {
        table.join_those_of(other);
    }
    Ok(Protection::by(nth))
}

/// Keeps other threads from changing the tables until the result is dropped. The thread that forks calls this before
/// the fork.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    TABLES.each_ref().map(table::LockTable::hold_for_fork)
}

/// In a forked child, after the result of [`hold_for_fork`] was dropped: closes the inherited lock descriptors.
#[cfg(unix)]
pub(crate) fn abandon_inherited() {
    for table in &TABLES {
        table.abandon_inherited();
    }
}

/// Why this copy of the library cannot tell whether locks are protected.
#[cfg(unix)]
pub(crate) const BY_ANOTHER_COPY: &str =
    "another copy of this library protects them, and only it can tell";

/// How the locks of the databases under one base VFS are protected.
#[cfg(unix)]
#[derive(Clone, Copy)]
pub(crate) struct Protection(Result<&'static table::LockTable, &'static str>);

#[cfg(unix)]
impl Protection {
    /// By the table of the copy of SQLite with this number.
    pub(crate) fn by(nth: usize) -> Self {
        Self(Ok(table_of(nth)))
    }

    /// They are not protected, and why.
    pub(crate) fn none(why: &'static str) -> Self {
        Self(Err(why))
    }

    /// Why this process's locks on a file are not protected; `None` if they are, or it has no such file.
    pub(crate) fn why_not(&self, file: Option<Inode>) -> Option<String> {
        match (self.0, file) {
            (Ok(locks), Some(inode)) => locks.why_not(inode),
            (Ok(_), None) => None,
            (Err(why), _) => Some(why.to_owned()),
        }
    }

    /// Why no file's locks are protected; `None` if some are, or nobody can tell.
    pub(crate) fn why_off(&self) -> Option<&'static str> {
        self.0.err().filter(|why| *why != BY_ANOTHER_COPY)
    }

    /// Whether another connection of this process, or another process, has a lock on that range of a file; `None` if
    /// that cannot be known.
    pub(crate) fn is_locked_by_others(&self, file: Inode, range: Range) -> Option<bool> {
        self.0.ok()?.is_locked_by_others(file, range)
    }

    /// The VFS has opened a database. All tables protect it, so that other copies of SQLite do not drop its locks.
    pub(crate) fn opened(&self, database: Inode, path: &Path) -> Option<Protected> {
        self.0.ok()?;
        let wal_index = || {
            let wal_index = format::beside(path, format::WAL_INDEX_SUFFIX);
            crate::sys::entry_behind(&wal_index).ok().map(|found| found.inode)
        };
        for table in &TABLES {
            table.joined(database, path, wal_index);
        }
        Some(Protected(database))
    }
}

/// A database that is open through the VFS, and so is protected until this is dropped. Drop it only after SQLite has
/// closed its descriptor.
#[cfg(unix)]
pub(crate) struct Protected(Inode);

#[cfg(unix)]
impl Drop for Protected {
    fn drop(&mut self) {
        for table in &TABLES {
            table.left(self.0);
        }
    }
}

/// On Windows a lock belongs to its handle, and closing another handle does not release it (LockFileEx): nothing needs
/// protection.
#[cfg(windows)]
#[derive(Clone, Copy)]
pub(crate) struct Protection;

#[cfg(windows)]
impl Protection {
    /// Always `None`: the locks need no protection.
    pub(crate) fn why_not(&self, _: Option<Inode>) -> Option<String> {
        None
    }

    /// Always `None`: nothing needs protection.
    pub(crate) fn why_off(&self) -> Option<&'static str> {
        None
    }

    /// Always `None`: there is nothing to count.
    pub(crate) fn opened(&self, _: Inode, _: &Path) -> Option<Protected> {
        None
    }

    /// Always `None`: Windows does not tell.
    pub(crate) fn is_locked_by_others(&self, _: Inode, _: Range) -> Option<bool> {
        None
    }
}

/// A database that is open through the VFS. No value is needed, nor made.
#[cfg(windows)]
pub(crate) enum Protected {}

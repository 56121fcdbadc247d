//! Closing any descriptor of a file drops all POSIX locks that the process has on it
//! (<https://www.sqlite.org/howtocorrupt.html> 2.2). [`table`] says how that is prevented, where the system calls of
//! a unix VFS can be replaced; `vfs::system_calls` replaces them.

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

/// The table of that copy of SQLite.
#[cfg(unix)]
#[inline]
pub(crate) const fn table_of(nth: usize) -> &'static table::LockTable {
    &TABLES[nth]
}

/// The table of that copy of SQLite protects its locks from now on, and knows what the others know. Called by
/// whoever has replaced the system calls. `is_fast` as for [`table::LockTable::begin`].
///
/// # Errors
/// There is no /proc.
#[cfg(unix)]
pub(crate) fn begin(nth: usize, is_fast: bool) -> std::io::Result<Protection> {
    let table = table_of(nth);
    table.begin(is_fast)?;
    for other in TABLES.iter().filter(|other| !std::ptr::eq(*other, table)) {
        table.join_those_of(other);
    }
    Ok(Protection::by(nth))
}

/// Keeps other threads from changing the tables until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    TABLES.each_ref().map(table::LockTable::hold_for_fork)
}

/// In a forked child.
#[cfg(unix)]
pub(crate) fn abandon_inherited() {
    for table in &TABLES {
        table.abandon_inherited();
    }
}

/// How the locks of the databases under one base VFS are protected.
#[cfg(unix)]
#[derive(Clone, Copy)]
pub(crate) struct Protection(Result<&'static table::LockTable, &'static str>);

#[cfg(unix)]
impl Protection {
    /// By the table of that copy of SQLite.
    pub(crate) fn by(nth: usize) -> Self {
        Self(Ok(table_of(nth)))
    }

    /// Not at all, and why.
    pub(crate) fn none(why: &'static str) -> Self {
        Self(Err(why))
    }

    /// Why those on a file of this process are not, if they are not.
    pub(crate) fn why_not(&self, file: Option<Inode>) -> Option<String> {
        match (self.0, file) {
            (Ok(locks), Some(inode)) => locks.why_not(inode),
            (Ok(_), None) => None,
            (Err(why), _) => Some(why.to_owned()),
        }
    }

    /// As [`table::LockTable::is_locked_by_others`].
    pub(crate) fn is_locked_by_others(&self, file: Inode, range: Range) -> Option<bool> {
        self.0.ok()?.is_locked_by_others(file, range)
    }

    /// A database was opened through this VFS.
    pub(crate) fn opened(&self, database: Inode, path: &Path) -> Option<Protected> {
        self.0.ok()?;
        let wal_index = || {
            let wal_index = format::beside(path, format::WAL_INDEX_SUFFIX);
            crate::sys::entry_behind(&wal_index).ok().map(|found| found.inode)
        };
        for table in &TABLES {
            table.joined(database, wal_index);
        }
        Some(Protected(database))
    }
}

/// A database that is open through this VFS, and so protected, also from other copies of SQLite, until this is
/// dropped: when SQLite has closed its descriptor.
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

/// Windows' locks belong to their handles, and no other close gives them back: there is nothing to protect.
#[cfg(windows)]
#[derive(Clone, Copy)]
pub(crate) struct Protection;

#[cfg(windows)]
impl Protection {
    /// They need no protection.
    pub(crate) fn why_not(&self, _: Option<Inode>) -> Option<String> {
        None
    }

    /// Nothing is to be counted.
    pub(crate) fn opened(&self, _: Inode, _: &Path) -> Option<Protected> {
        None
    }

    /// That is not known.
    pub(crate) fn is_locked_by_others(&self, _: Inode, _: Range) -> Option<bool> {
        None
    }
}

/// A database that is open through this VFS; there is none that needs to be known.
#[cfg(windows)]
pub(crate) enum Protected {}

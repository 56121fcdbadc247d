//! A database, WAL or wal-index that was unlinked, renamed or replaced while it is open
//! (<https://www.sqlite.org/howtocorrupt.html> 1.4, 2.4), or a database that has several hard links (2.5).
//!
//! An operator restores a backup over a board that a program has open. The program goes on writing
//! to the deleted file: its writes are lost to all others. If only the WAL was replaced, its frames
//! mix with those of another WAL. And if a database has two hard links, each name has its own
//! journal and lock, so two writers do not see each other's.
//!
//! # What it does
//! A connection remembers the device and the inode number of each file when it opens it. Before it
//! writes, it compares them with what the names lead to now. If they differ, nothing is written. In
//! WAL mode most comparisons cost one fstat(2): as long as the directory's time of last change is
//! the same as at the last comparison, no name in it has changed. Hard links in other directories,
//! and a move of a parent directory, do not change that time; so everything is compared once a
//! second anyway. Connections that only read compare once a second, too.
//!
//! # What it does not do
//! - A file that is replaced between the comparison and the write is not noticed before the next comparison.
//! - A name that this process may not look at is not compared.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::format::{self, WAL_INDEX_SUFFIX, WAL_SUFFIX};
use crate::sys::{self, Directory, Found, Inode, Name};

/// Why a database must not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Displaced {
    /// The name of this file leads to another file than the open one, or to none.
    Moved(&'static str),
    /// The database has this many hard links.
    Linked(u64),
}

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(what) => write!(
                f,
                "{what} was deleted, renamed or replaced while it was open; nothing is written; \
                 close all connections, see to it that the right file is there, and open it again"
            ),
            Self::Linked(links) => write!(
                f,
                "the database has {links} hard links, and each would have a journal and a lock of \
                 its own; remove all but one, or allow it with kanban_hard_links=1"
            ),
        }
    }
}

/// The files of one connection, as they were when the connection opened them.
#[derive(Debug)]
pub(crate) struct Identity {
    database: (Name, Inode),
    wal: (Name, Option<Inode>),
    wal_index: (Name, Option<Inode>),
    /// Why the kernel did not tell which files the WAL and the wal-index are; `None` if it did.
    wal_untold: Option<String>,
    directory: Arc<Directory>,
    /// Whether this process has changed its root directory or mount namespace, so that names lead
    /// elsewhere than before. Then the files are looked up in the open directory.
    is_elsewhere: bool,
    /// The directory when all files were last found in their places. As long as the directory does
    /// not change, the files are still there, unless a parent directory was moved. `None` if its
    /// last change was so recent that another change might get the same time.
    unchanged: Option<Found>,
    /// Whether the files were compared since SQLite opened the WAL. The first comparison does not
    /// remember the directory: many connections write only once, and the first to write creates the
    /// sidecar there.
    was_checked: bool,
    /// Whether the user allows hard links (`kanban_hard_links=1`).
    may_have_links: bool,
    /// When all of this was last checked, in ns of [`sys::monotonic_ns`].
    checked: u64,
}

/// How often a connection that only reads checks, in ns. A writer checks as often for what the
/// directory does not show: hard links elsewhere, and moves of parent directories.
const CHECK_NS: u64 = 1_000_000_000;

impl Identity {
    /// The files of the database at `path`, which was just opened. `None` if there is no such file,
    /// or its name has a NUL.
    ///
    /// # Errors
    /// The kernel does not tell which file it is. lstat(2)
    pub(crate) fn of(path: &Path, may_have_links: bool) -> io::Result<Option<Self>> {
        let beside = |suffix| Name::new(format::beside(path, suffix).as_os_str());
        let names = (Name::new(path.as_os_str()), beside(WAL_SUFFIX), beside(WAL_INDEX_SUFFIX));
        let directory = path.parent().and_then(sys::directory_at);
        let ((Some(database), Some(wal), Some(wal_index)), Some(directory)) = (names, directory)
        else {
            return Ok(None);
        };
        let inode = match sys::stat(&database) {
            Ok(found) => found.inode,
            Err(why) if sys::is_absent(&why) => return Ok(None),
            Err(why) => return Err(why),
        };
        Ok(Some(Self {
            database: (database, inode),
            wal: (wal, None),
            wal_index: (wal_index, None),
            wal_untold: None,
            directory,
            is_elsewhere: false,
            unchanged: None,
            was_checked: false,
            may_have_links,
            checked: sys::monotonic_ns(),
        }))
    }

    /// The database, as it was opened.
    pub(crate) fn inode(&self) -> Inode {
        self.database.1
    }

    /// The database, as it was opened, and the directory that it lies in.
    pub(crate) fn file(&self) -> (Inode, Arc<Directory>) {
        (self.database.1, Arc::clone(&self.directory))
    }

    /// The WAL, while the wal-index is mapped.
    pub(crate) fn wal(&self) -> Option<Inode> {
        self.wal.1
    }

    /// The wal-index, while it is mapped.
    pub(crate) fn wal_index(&self) -> Option<Inode> {
        self.wal_index.1
    }

    /// Why the kernel did not tell which file the WAL or the wal-index is. Then that file is not
    /// compared.
    pub(crate) fn wal_untold(&self) -> Option<&str> {
        self.wal_untold.as_deref()
    }

    /// Notes the WAL and the wal-index, which SQLite has just opened. If one was already noted,
    /// that one stays.
    pub(crate) fn wal_opened(&mut self) {
        for (name, inode) in [&mut self.wal, &mut self.wal_index] {
            if inode.is_none() {
                match sys::stat(name) {
                    Ok(found) => *inode = Some(found.inode),
                    // SQLite has the wal-index in its own memory, or the WAL is empty and
                    // read-only.
                    Err(why) if sys::is_absent(&why) => {}
                    Err(why) => {
                        self.wal_untold = Some(format!(
                            "the kernel did not say which file the WAL or the wal-index (-shm) is when it was opened \
                             ({why}): nobody notices if it is replaced, as on the stock VFS; open the database again"
                        ));
                    }
                }
            }
        }
        (self.unchanged, self.was_checked) = (None, false);
    }

    /// Forgets the WAL and the wal-index, which SQLite has closed.
    pub(crate) fn wal_closed(&mut self) {
        (self.wal.1, self.wal_index.1) = (None, None);
        self.wal_untold = None;
    }

    /// Whether all files are in their places. Called before a transaction writes. `now` is of [`sys::monotonic_ns`].
    ///
    /// # Errors
    /// A file was displaced, or the database has hard links without `kanban_hard_links=1`.
    #[inline(always)]
    pub(crate) fn check(&mut self, now: u64) -> Result<(), Displaced> {
        let remembers = self.was_checked && self.wal.1.is_some();
        let directory = if remembers { self.directory.stat().ok() } else { None };
        if directory.is_some() && directory == self.unchanged && !self.is_due(now) {
            return Ok(());
        }
        self.check_each(directory, now)
    }

    /// Compares each file. `directory` is the directory's present state if it is to be remembered.
    /// It is not in a rollback mode, where the journal changes the directory in each transaction.
    fn check_each(&mut self, directory: Option<Found>, now: u64) -> Result<(), Displaced> {
        let mut found = self.look(self.is_elsewhere);
        if found.is_err() && !self.is_elsewhere && self.directory.is_seen_from_elsewhere() {
            self.is_elsewhere = true;
            found = self.look(true);
        }
        let links = found?.map_or(1, |found| found.links);
        if links > 1 && !self.may_have_links {
            return Err(Displaced::Linked(links));
        }
        // A second change soon after the first may leave the same time.
        self.unchanged = directory.filter(|found| {
            found.was_changed_a_while_ago()
                && (self.is_elsewhere || self.directory.is_in_place(found))
        });
        (self.checked, self.was_checked) = (now, true);
        Ok(())
    }

    /// Compares each file with the one that its name leads to or, if `within`, with the one of that
    /// name in the open directory. Returns the database as found; `None` if this process may not
    /// look.
    fn look(&self, within: bool) -> Result<Option<Found>, Displaced> {
        let look = |name, opened, what| {
            let found = match within {
                true => self.directory.stat_within(name),
                false => sys::stat(name),
            };
            compare(found, opened, what)
        };
        let (name, opened) = &self.database;
        let found = look(name, *opened, "the database")?;
        let files = [(&self.wal, "the WAL"), (&self.wal_index, "the wal-index (-shm)")];
        for ((name, opened), what) in files {
            if let Some(opened) = opened {
                look(name, *opened, what)?;
            }
        }
        Ok(found)
    }

    /// Like [`Self::check`], but once a second at most. Called before a transaction reads: hard links do no harm then.
    ///
    /// # Errors
    /// A file was displaced.
    pub(crate) fn check_now_and_then(&mut self) -> Result<(), Displaced> {
        let now = sys::monotonic_ns();
        if !self.is_due(now) {
            return Ok(());
        }
        match self.check(now) {
            Err(Displaced::Linked(_)) => {
                self.checked = now;
                Ok(())
            }
            checked => checked,
        }
    }

    /// Whether everything must be compared again.
    fn is_due(&self, now: u64) -> bool {
        now.wrapping_sub(self.checked) >= CHECK_NS
    }
}

/// What a name leads to, if that is the file that was `opened`; `None` if this process may not
/// look.
fn compare(
    found: std::io::Result<Found>,
    opened: Inode,
    what: &'static str,
) -> Result<Option<Found>, Displaced> {
    match found {
        Ok(found) if found.inode == opened => Ok(Some(found)),
        Err(error) if !sys::is_absent(&error) => Ok(None),
        _ => Err(Displaced::Moved(what)),
    }
}

#[cfg(all(test, unix))]
mod tests;

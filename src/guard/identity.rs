//! A database, WAL or wal-index that was unlinked, renamed or replaced while it is open
//! (<https://www.sqlite.org/howtocorrupt.html> 1.4, 2.4), or that has several hard links (2.5): what
//! is written to it is lost to all others, or mixes with theirs.

use std::fmt;
use std::path::Path;

use crate::sys::{self, Found, Inode, Name};

/// Why a database must not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Displaced {
    /// This file is no longer the one that is open.
    Moved(&'static str),
    /// It has so many hard links.
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

/// The files of one connection, as they were when it opened them.
#[derive(Debug)]
pub(crate) struct Identity {
    database: (Name, Inode),
    wal: (Name, Option<Inode>),
    wal_index: (Name, Option<Inode>),
    directory: Name,
    /// The directory when all were found in their places: as long as it does not change, they are.
    unchanged: Option<Found>,
    may_have_links: bool,
    /// When all of it was last checked, in ms of [`sys::coarse_ms`].
    checked_ms: u64,
}

/// How often those who only read check, and for hard links, of which the directory says nothing, in ms.
const CHECK_MS: u64 = 1000;

impl Identity {
    /// Of the database at `path`, which was just opened. `None` if there is no such file.
    pub(crate) fn of(path: &Path, may_have_links: bool) -> Option<Self> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            Name::new(&name)
        };
        let database = beside("")?;
        let inode = sys::stat(&database).ok()?.inode;
        Some(Self {
            database: (database, inode),
            wal: (beside("-wal")?, None),
            wal_index: (beside("-shm")?, None),
            directory: Name::new(path.parent()?.as_os_str())?,
            unchanged: None,
            may_have_links,
            checked_ms: sys::coarse_ms(),
        })
    }

    /// The database's, when it was opened.
    pub(crate) fn inode(&self) -> Inode {
        self.database.1
    }

    /// The WAL's, while the wal-index is mapped.
    pub(crate) fn wal(&self) -> Option<Inode> {
        self.wal.1
    }

    /// The wal-index's, while it is mapped.
    pub(crate) fn wal_index(&self) -> Option<Inode> {
        self.wal_index.1
    }

    /// The WAL and the wal-index were just opened.
    pub(crate) fn wal_opened(&mut self) {
        for (name, inode) in [&mut self.wal, &mut self.wal_index] {
            if inode.is_none() {
                *inode = sys::stat(name).ok().map(|found| found.inode);
            }
        }
        self.unchanged = None;
    }

    /// They were closed.
    pub(crate) fn wal_closed(&mut self) {
        (self.wal.1, self.wal_index.1) = (None, None);
    }

    /// Whether all are in their places, for one who is about to write.
    #[inline]
    pub(crate) fn check(&mut self) -> Result<(), Displaced> {
        let directory = self.wal.1.and_then(|_| sys::stat(&self.directory).ok());
        if directory.is_some() && directory == self.unchanged && !self.is_due() {
            return Ok(());
        }
        self.check_each(directory)
    }

    /// As [`Self::check`], when the directory is found to be so.
    #[inline(never)]
    fn check_each(&mut self, directory: Option<Found>) -> Result<(), Displaced> {
        let (name, opened) = &self.database;
        let found = look(name, *opened, "the database")?;
        let files = [(&self.wal, "the WAL"), (&self.wal_index, "the wal-index (-shm)")];
        for ((name, opened), what) in files {
            if let Some(opened) = opened {
                look(name, *opened, what)?;
            }
        }
        let links = found.map_or(1, |found| found.links);
        if links > 1 && !self.may_have_links {
            return Err(Displaced::Linked(links));
        }
        // A change just after a change may leave the same time.
        self.unchanged = directory.filter(Found::was_changed_a_while_ago);
        self.checked_ms = sys::coarse_ms();
        Ok(())
    }

    /// As [`Self::check`], now and then, for one who is about to read. Hard links do no harm then.
    pub(crate) fn check_now_and_then(&mut self) -> Result<(), Displaced> {
        if !self.is_due() {
            return Ok(());
        }
        match self.check() {
            Err(Displaced::Linked(_)) => {
                self.checked_ms = sys::coarse_ms();
                Ok(())
            }
            checked => checked,
        }
    }

    /// Whether it was not checked for a while.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        sys::coarse_ms().wrapping_sub(self.checked_ms) >= CHECK_MS
    }
}

/// What is to be found by that name now, if this process can tell.
fn look(name: &Name, opened: Inode, what: &'static str) -> Result<Option<Found>, Displaced> {
    match sys::stat(name) {
        Ok(found) if found.inode == opened => Ok(Some(found)),
        Err(error) if !sys::is_absent(&error) => Ok(None),
        _ => Err(Displaced::Moved(what)),
    }
}

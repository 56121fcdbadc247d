//! The table of one copy of SQLite: what becomes of each lock that it asks for.
//!
//! | the file | its [`LockKind`] | its locks | until |
//! |---|---|---|---|
//! | is not open through the VFS | `Stock` | POSIX, as SQLite asks | the VFS opens it |
//! | is ours, but has a POSIX lock of this process, or a call that makes one is under way | `Locked` | POSIX | it is found unlocked: when SQLite unlocks all of it, or another connection locks it |
//! | is ours | `Ofd` | open-file-description locks on one descriptor that nobody else has | SQLite has closed its last descriptor of the file |
//! | is ours, and the system refuses such locks | `Refused` | POSIX | the VFS's last connection to it is closed, or, if the system was only short of something, another connection locks it |
//!
//! `Locked` and `Refused` become `Stock` when the VFS's last connection to the file is closed. `Ofd` does not: stock
//! connections may go on with the locks that they have. The table forgets a file when SQLite closes its last descriptor of it.
//!
//! [`decision`] makes these transitions. [`super::published`] is what a lock call sees of them. [`child`] is what is left in a
//! forked child.
//!
//! # Mutex rules
//! 1. One mutex protects a whole table except the published words. It is held during system calls; only the call that
//!    [`LockTable::before`] makes may wait.
//! 2. A thread that holds a table's mutex takes no other mutex of this library, nor that of another table. The exception is the
//!    thread that forks: it takes all, in the order of their numbers.
//! 3. A child of fork(2) must be able to unlock the mutex, so it is a [`ForkMutex`].

mod child;
mod decision;

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;

use super::descriptors::{Descriptor, Descriptors};
use super::lock_descriptor::LockDescriptor;
use super::ours::Ours;
use super::posix_locks::LockedBefore;
use super::published::{Answer, Published};
use crate::sys::fork::ForkMutex;
use crate::sys::{self, Inode, Range};

pub(crate) use super::published::KnownTarget;

const LOCKED_BEFORE: &str = "this process had locked the database before it was opened through the VFS; \
                             close all of its connections to it, and open them again";

const LOCKED_BY_ITSELF: &str = "this process has itself locked the database (lockf(3), fcntl(2)): SQLite's locks are \
                                POSIX locks, too, until they are released";

const NOT_OURS: &str = "the file is not one that this process has opened through the VFS";

/// What the locks that SQLite asks for on a descriptor become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// POSIX locks, as SQLite asks, even if the file `is_ours`. The caller makes the call and then reports it to
    /// [`LockTable::called`].
    AsItIs { is_ours: bool },
    /// No locks: a parent of this process opened the file.
    Inherited,
    /// No locks: it is not known which file it is, so the call fails with this errno. A POSIX lock would exclude our own locks,
    /// and nobody would release it.
    Unknown(i32),
    /// Open-file-description locks on this descriptor.
    Through {
        descriptor: RawFd,
        /// Whether SQLite's descriptor is open for reading only, and so can have no exclusive lock.
        is_read_only: bool,
    },
}

/// The files that one copy of SQLite locks, and what becomes of their locks.
pub(crate) struct LockTable {
    published: Published,
    /// `None` until [`Self::begin`].
    table: ForkMutex<Option<Table>>,
}

/// What the mutex of a [`LockTable`] protects.
struct Table {
    published: &'static Published,
    descriptors: Descriptors,
    /// The files that SQLite has locked. Each stays here as long as SQLite has a descriptor by which it locked the file.
    files: HashMap<Inode, File>,
    ours: Ours,
    locked_before: LockedBefore,
    /// The files that a parent had open through the VFS. Empty unless this is a forked child.
    inherited: child::Inherited,
}

/// A file that SQLite has locked.
struct File {
    kind: LockKind,
    /// SQLite's descriptors by which it has locked the file, in the order of their first locks.
    descriptors: Vec<RawFd>,
    /// How many calls are being made as they are, without those that [`Published`] counts.
    calling: usize,
}

/// What the locks of a file are.
enum LockKind {
    /// Open-file-description locks: the file is ours, or was when SQLite first locked it.
    Ofd(LockDescriptor),
    /// POSIX locks: the file is not ours.
    Stock,
    /// POSIX locks although the file is ours: it had such locks, and was not unlocked since. The text says why.
    Locked(&'static str),
    /// POSIX locks although the file is ours: the system refuses the others. The error says why.
    Refused(io::Error),
}

impl LockTable {
    pub(crate) const fn new() -> Self {
        Self { published: Published::new(), table: ForkMutex::new(None) }
    }

    /// Calls `act` on the table; returns `before` if the table has not begun.
    fn with<T>(&'static self, before: T, act: impl FnOnce(&mut Table) -> T) -> T {
        self.table.lock().as_mut().map_or(before, act)
    }

    /// Begins. Files that the process has locked by now keep POSIX locks until they are unlocked. SQLite's calls must already
    /// go through [`Self::before`], so that nothing is locked meanwhile. [`Self::through`] answers only if `has_shortcut`: if
    /// locks may be made without the function that SQLite would call.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn begin(&'static self, has_shortcut: bool) -> io::Result<()> {
        self.published.allow_shortcut(has_shortcut);
        let mut table = self.table.lock();
        *table = Some(Table {
            published: &self.published,
            descriptors: Descriptors::default(),
            files: HashMap::new(),
            ours: Ours::default(),
            locked_before: LockedBefore::now()?,
            inherited: child::Inherited::default(),
        });
        Ok(())
    }

    /// Makes a call as it is, under the mutex, if the table has not begun; `None` if it has. So [`Self::begin`] either sees the
    /// lock or comes before the call.
    pub(crate) fn before<T>(&'static self, call: impl FnOnce() -> T) -> Option<T> {
        let table = self.table.lock();
        table.is_none().then(call)
    }

    /// The descriptor through which to make the locks asked for on `descriptor`; `None` if [`Self::known`] must be asked. It
    /// takes no mutex.
    pub(crate) fn through(&self, descriptor: RawFd) -> Option<RawFd> {
        self.published.through(descriptor)
    }

    /// What is known about a descriptor for which [`Self::through`] has no answer. It takes no mutex.
    pub(crate) fn known(&self, descriptor: RawFd) -> KnownTarget<'_> {
        self.published.known(descriptor)
    }

    /// What the locks asked for on a descriptor become. The first lock of a file decides.
    pub(crate) fn target(&'static self, descriptor: RawFd) -> Target {
        self.with(Target::AsItIs { is_ours: false }, |table| table.target(descriptor))
    }

    /// Notes that a call by a descriptor was made as it is, as [`Self::target`] asked. If `unlocked`, the call released all
    /// locks on the file.
    pub(crate) fn called(&'static self, descriptor: RawFd, unlocked: bool) {
        self.with((), |table| table.called(descriptor, unlocked));
    }

    /// Notes that a lock call by a descriptor succeeded on `range`, for a descriptor for which [`Self::through`] had no answer.
    /// `locked` is false for an unlock.
    #[cold]
    pub(crate) fn note(&'static self, descriptor: RawFd, range: Range, locked: bool) {
        self.with((), |table| {
            if let Some(lock) = table.lock_descriptor(descriptor) {
                lock.note(range, locked);
            }
        });
    }

    /// A lock through a file's lock descriptor has met a POSIX lock of this very process, for example because the application
    /// locked its own database by lockf(3). That lock would not be in the way of another POSIX lock. So from now on the file's
    /// locks are POSIX locks, until it is unlocked. SQLite makes one lock call on a file at a time. Returns false if that
    /// cannot be done: the process has locked bytes of the file exclusively.
    #[cold]
    pub(crate) fn goes_without(&'static self, descriptor: RawFd) -> bool {
        self.with(false, |table| table.goes_without(descriptor))
    }

    /// A lock through a file's lock descriptor failed with EBADF: the lock descriptor was closed behind our back, or is not
    /// open for writing. Opens another. Returns false if there is nothing to repair, or it cannot be repaired.
    pub(crate) fn repair(&'static self, descriptor: RawFd) -> bool {
        self.with(false, |table| table.repair(descriptor))
    }

    /// A database was opened through the VFS, by the name `path`. It is ours until [`Self::left`] was called as often as this
    /// function. `find_wal_index` looks for a wal-index that SQLite may have open already; it is called under the mutex.
    pub(crate) fn joined(
        &'static self,
        database: Inode,
        path: &Path,
        find_wal_index: impl FnOnce() -> Option<Inode>,
    ) {
        self.with((), |table| table.joined(database, path, find_wal_index));
    }

    /// This table has just begun: what is open through the VFS and another copy of SQLite is ours, too.
    pub(crate) fn join_those_of(&'static self, other: &'static Self) {
        let theirs = other.with(None, |other| Some(other.ours.clone()));
        self.with((), |table| table.ours.absorb(theirs.unwrap_or_default()));
    }

    /// A connection to a database was closed, and its descriptor with it.
    pub(crate) fn left(&'static self, database: Inode) {
        self.with((), |table| table.left(database));
    }

    /// SQLite has opened a descriptor: if the table knows the number, that earlier descriptor was closed behind our back.
    pub(crate) fn opened(&'static self, descriptor: RawFd) {
        self.with((), |table| {
            let lost = table.descriptors.own.remove(&descriptor);
            table.number_was_reused(descriptor, lost);
        });
    }

    /// Whether any database is open through the VFS.
    pub(crate) fn has_ours(&'static self) -> bool {
        self.with(false, |table| !table.ours.is_empty())
    }

    /// SQLite has opened the wal-index of a database.
    pub(crate) fn opened_wal_index(&'static self, database: Inode, wal_index: Inode) {
        self.with((), |table| table.ours.opened_wal_index(database, wal_index));
    }

    /// Like [`Self::opened_wal_index`], if only the database's name is known, and not which file it is.
    pub(crate) fn opened_wal_index_beside(&'static self, database: &Path, wal_index: Inode) {
        self.with((), |table| table.ours.opened_wal_index_beside(database, wal_index));
    }

    /// SQLite is about to close a descriptor. Returns false if the number is another file's by now, perhaps one of ours: then
    /// the caller must not close it.
    pub(crate) fn closing(&'static self, descriptor: RawFd) -> bool {
        self.with(true, |table| table.closing(descriptor))
    }

    /// Why the locks on a file are not protected; `None` if they are.
    pub(crate) fn why_not(&'static self, inode: Inode) -> Option<String> {
        self.with(None, |table| match table.files.get(&inode).map(|file| &file.kind) {
            Some(LockKind::Refused(why)) => Some(why.to_string()),
            Some(LockKind::Locked(why)) => Some((*why).to_owned()),
            Some(LockKind::Stock) => Some(NOT_OURS.to_owned()),
            Some(LockKind::Ofd(_)) => None,
            None => {
                table.locked_before.may_still_have(inode, None).then(|| LOCKED_BEFORE.to_owned())
            }
        })
    }

    /// Whether another connection of this process, or another process, has a lock on that range of a file; `None` if that
    /// cannot be known, since the process's own locks on it may be POSIX locks, too.
    pub(crate) fn is_locked_by_others(&'static self, inode: Inode, range: Range) -> Option<bool> {
        self.with(None, |table| match &table.files.get(&inode)?.kind {
            LockKind::Ofd(lock) => lock.is_locked_by_others(range),
            _ => None,
        })
    }
}

impl Table {
    fn target(&mut self, descriptor: RawFd) -> Target {
        let known = match self.descriptors.sqlites.get(&descriptor) {
            Some(known) => *known,
            None => match sys::inode_of(descriptor) {
                Ok(inode) => self.add(descriptor, inode),
                Err(error) => return Target::Unknown(error.raw_os_error().unwrap_or_default()),
            },
        };
        let Some(inode) = known.inode else { return Target::Inherited };
        match self.files.get_mut(&inode) {
            Some(File { kind: LockKind::Ofd(lock), .. }) => {
                Target::Through { descriptor: lock.number(), is_read_only: !known.is_writable }
            }
            Some(file) => {
                file.calling += 1;
                Target::AsItIs { is_ours: !matches!(file.kind, LockKind::Stock) }
            }
            None => Target::AsItIs { is_ours: false },
        }
    }

    fn called(&mut self, descriptor: RawFd, unlocked: bool) {
        let known = self.descriptors.sqlites.get(&descriptor);
        let Some(inode) = known.and_then(|known| known.inode) else { return };
        let Some(file) = self.files.get_mut(&inode) else { return };
        file.calling = file.calling.saturating_sub(1);
        if unlocked && matches!(file.kind, LockKind::Locked(_)) {
            self.locked_before.forget(inode);
            self.settle(inode, false);
        }
    }

    /// Adds a descriptor by which SQLite makes its first lock.
    fn add(&mut self, descriptor: RawFd, inode: Inode) -> Descriptor {
        let known = Descriptor { inode: Some(inode), is_writable: sys::is_writable(descriptor) };
        self.descriptors.sqlites.insert(descriptor, known);
        let stock = || File { kind: LockKind::Stock, descriptors: Vec::new(), calling: 0 };
        let file = self.files.entry(inode).or_insert_with(stock);
        let may_be_locked = !file.descriptors.is_empty() || self.locked_before.contains(inode);
        file.descriptors.push(descriptor);
        self.settle(inode, may_be_locked);
        known
    }

    /// Removes a descriptor that SQLite closes, or that was closed behind its back.
    fn remove(&mut self, descriptor: RawFd) {
        let Some(known) = self.descriptors.sqlites.remove(&descriptor) else { return };
        self.published.publish(descriptor, Answer::AskTheTable);
        let Some(inode) = known.inode else { return };
        let Some(file) = self.files.get_mut(&inode) else { return };
        file.descriptors.retain(|number| *number != descriptor);
        if file.descriptors.is_empty() {
            if let LockKind::Ofd(lock) = &file.kind {
                self.descriptors.own.remove(&lock.number());
            }
            self.files.remove(&inode);
            self.ours.forget_wal_index(inode);
        }
    }

    /// Removes SQLite's descriptors of a file that were closed behind its back.
    fn remove_closed(&mut self, inode: Inode) {
        let known = self.files.get(&inode).map(|file| file.descriptors.clone());
        for closed in known.into_iter().flatten().filter(|number| !sys::is_of(*number, inode)) {
            self.remove(closed);
        }
    }

    fn repair(&mut self, descriptor: RawFd) -> bool {
        let Some(Descriptor { inode: Some(inode), is_writable }) =
            self.descriptors.sqlites.get(&descriptor).copied()
        else {
            return false;
        };
        let Some(lock) = self.lock_descriptor(descriptor) else { return false };
        if lock.serves(is_writable) || !sys::is_of(descriptor, inode) {
            return false;
        }
        self.settle(inode, false);
        self.lock_descriptor(descriptor).is_some_and(|lock| lock.serves(is_writable))
    }

    fn joined(
        &mut self,
        database: Inode,
        path: &Path,
        find_wal_index: impl FnOnce() -> Option<Inode>,
    ) {
        // If SQLite has never locked the database, it has no wal-index open.
        let is_locked = self.files.contains_key(&database);
        let find_wal_index = || is_locked.then(find_wal_index).flatten();
        for inode in self.ours.joined(database, path, find_wal_index).into_iter().flatten() {
            self.remove_closed(inode);
            self.settle(inode, true);
        }
    }

    fn left(&mut self, database: Inode) {
        for inode in self.ours.left(database).into_iter().flatten() {
            match self.files.get_mut(&inode) {
                Some(file) if !matches!(file.kind, LockKind::Ofd(_)) => file.kind = LockKind::Stock,
                _ => continue,
            }
            self.publish(inode);
        }
    }

    fn closing(&mut self, descriptor: RawFd) -> bool {
        let Some(known) = self.descriptors.sqlites.get(&descriptor).copied() else {
            if self.descriptors.own.contains_key(&descriptor) {
                return false;
            }
            // It may be a wal-index that was never locked.
            if self.ours.has_wal_index() {
                let inode = sys::inode_of(descriptor).ok();
                if let Some(inode) = inode.filter(|inode| !self.files.contains_key(inode)) {
                    self.ours.forget_wal_index(inode);
                }
            }
            return true;
        };
        let is_anothers = self.lock_descriptor(descriptor).is_some()
            && known.inode.is_some_and(|inode| !sys::is_of(descriptor, inode));
        self.remove(descriptor);
        !is_anothers
    }

    /// The lock descriptor of the file behind one of SQLite's descriptors; `None` if its locks are POSIX locks.
    fn lock_descriptor(&mut self, descriptor: RawFd) -> Option<&mut LockDescriptor> {
        let inode = self.descriptors.sqlites.get(&descriptor)?.inode?;
        match &mut self.files.get_mut(&inode)?.kind {
            LockKind::Ofd(lock) => Some(lock),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

//! The processes that keep the write lock of a holder that is gone.
//!
//! The kernel releases the lock when the last descriptor of the sidecar's open file description is
//! closed. The holder's death closes it, unless a child has a copy. A child of fork(2) closes its
//! copies at once (`register::fork`). A child that runs no fork handlers (`_Fork`, vfork(2), clone(2), a
//! `posix_spawn` that waits in one of its file actions) keeps its copies until it executes a
//! program or ends, since Linux has no close-on-fork. Its copies of SQLite's own locks keep stock
//! clients out as well. A process that may trace the child could release the lock by its descriptor
//! (pidfd_getfd(2)). But a holder that seems dead may live in another pid namespace. So this module
//! only names the processes that have the lock now, and releases nothing.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::holder::Holder;
use super::sidecar;
use crate::format;
use crate::sys;

/// A process, by its id and its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedProcess {
    /// Its process id, in the pid namespace of the process that asks.
    pub(crate) pid: u32,
    /// The name of its program, as far as this process may know it.
    pub(crate) program: Option<String>,
}

impl NamedProcess {
    /// The process of that id.
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid, program: sys::program_of(pid) }
    }
}

impl fmt::Display for NamedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        self.program.iter().try_for_each(|program| write!(f, " ({program})"))
    }
}

/// The processes that have a lock, as far as the process that asks may look into them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lockers {
    /// They share the lock, by one open file description.
    pub(crate) processes: Vec<NamedProcess>,
    /// At least this many processes could not be looked into: only their user and root may.
    pub(crate) hidden: usize,
    /// Whether more were left out, because time ran out, or `/proc` is not there or hides them.
    pub(crate) is_partial: bool,
}

impl Lockers {
    fn of(found: &sys::Lockers) -> Self {
        Self {
            processes: found.found.iter().map(|locker| NamedProcess::of(locker.pid)).collect(),
            hidden: found.hidden,
            is_partial: found.is_partial,
        }
    }

    /// Why there may be more, and which user could see them; `None` if these are all.
    #[must_use]
    pub(crate) fn missing(&self) -> Option<String> {
        missing(self.hidden, self.is_partial)
    }
}

/// Why there may be more, if this many processes were `hidden`, or not all were looked into.
pub(crate) fn missing(hidden: usize, is_partial: bool) -> Option<String> {
    match (hidden, is_partial) {
        (0, false) => None,
        (0, true) => Some("not all processes could be looked into".to_owned()),
        (hidden, _) => {
            Some(format!("this user may not look into {hidden} processes; root may look into all"))
        }
    }
}

impl fmt::Display for Lockers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, process) in self.processes.iter().enumerate() {
            write!(f, "{}{process}", if nth > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// What can be found of a holder of the write lock.
#[derive(Debug)]
pub(crate) enum Whereabouts {
    /// Its process, by the id that it has in this pid namespace.
    There(NamedProcess),
    /// Nothing: the holder is dead, or runs where this process cannot see it. With the processes that have its lock, as far
    /// as they can be seen.
    Gone(Lockers),
}

/// Where the holder of the write lock on `database` is. If it is `ours`, that is this process. Looks into other processes for
/// at most `limit`.
pub(crate) fn of(database: &Path, holder: Holder, ours: bool, limit: Duration) -> Whereabouts {
    let there = |pid| Whereabouts::There(NamedProcess::of(pid));
    let Ok(sidecar) = sys::entry_at(&sidecar::path_of(database)) else { return there(holder.pid) };
    if holder.is_to_be_seen(sidecar.inode, ours, limit) {
        return there(holder.pid);
    }
    let found = sys::with_lock(&[sidecar.inode], |_, lock| holder.has(lock), limit);
    // A process with the holder's id in its own pid namespace is the living holder, from another
    // pid namespace or with another clock.
    let itself = found.found.iter().find(|locker| locker.own_pid == holder.pid);
    itself.map_or_else(|| Whereabouts::Gone(Lockers::of(&found)), |locker| there(locker.pid))
}

/// The processes that have one of SQLite's own write locks on `database`, through any VFS. With `is_ofd`, only those that
/// have it as an OFD lock, which children inherit. Looks into other processes for at most `limit`. Opens no file of the
/// database, since closing it would drop SQLite's locks.
pub(crate) fn of_sqlite(database: &Path, is_ofd: bool, limit: Duration) -> Lockers {
    let inode = |path: &Path| sys::entry_at(path).ok().map(|found| found.inode);
    let index = inode(&format::beside(database, format::WAL_INDEX_SUFFIX));
    let files: Vec<_> = [inode(database), index].into_iter().flatten().collect();
    if !sys::may_be_locked(&files, is_ofd) {
        return Lockers { processes: Vec::new(), hidden: 0, is_partial: false };
    }
    let is_it = |file, lock: sys::FileLock| {
        let bytes = lock.start..=lock.last;
        lock.is_exclusive
            && match Some(file) == index {
                true => bytes.contains(&format::wal_index::WRITE_BYTE),
                false => {
                    let sqlites = format::LOCK_BYTES;
                    lock.start < sqlites.end && lock.last >= sqlites.start
                }
            }
    };
    Lockers::of(&sys::with_lock(&files, is_it, limit))
}

/// The part of a log line about a holder and, if it is gone, about the processes that keep its
/// lock.
pub(crate) fn described(holder: Holder, whereabouts: &Whereabouts) -> String {
    let held = holder.held().as_millis();
    match whereabouts {
        Whereabouts::There(process) => format!(
            "{process} has held the write lock for {held} ms; end its transaction, or wait longer"
        ),
        Whereabouts::Gone(keepers) if keepers.processes.is_empty() => format!(
            "process {}, which is not to be found here, has held the write lock for {held} ms; end its \
             transaction, or wait longer",
            holder.pid
        ),
        Whereabouts::Gone(keepers) => format!(
            "{keepers} keeps the write lock it inherited from process {}, which is dead; end it, or let \
             it exec",
            holder.pid
        ),
    }
}

//! SQLite's own locks on a database, taken through any VFS, and the processes that have them.
//!
//! <https://www.sqlite.org/lockingv3.html>, <https://www.sqlite.org/walformat.html#locks>

use std::fmt;
use std::path::Path;

use super::clients::ClientVfs;
use super::processes::ProcessInfo;
use crate::format::{self, WAL_INDEX_SUFFIX, wal_index};
use crate::sys::{self, FileLock, Inode, ListedLock};

/// One of SQLite's locks, and a process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteLock {
    /// Which lock it is.
    pub lock: LockName,
    /// Whether it excludes all others from this lock.
    pub is_exclusive: bool,
    /// The process that has it; `None` if this user may not know.
    pub process: Option<ProcessInfo>,
    /// By which VFS it was taken, as its kind shows: [`ClientVfs::Kanban`] or [`ClientVfs::Stock`].
    pub vfs: ClientVfs,
}

impl SqliteLock {
    /// SQLite's name of it. An exclusive lock on all SHARED bytes is EXCLUSIVE.
    /// <https://www.sqlite.org/lockingv3.html#locking>
    #[must_use]
    pub fn name(&self) -> String {
        match self.lock {
            LockName::Shared if self.is_exclusive => "EXCLUSIVE".to_owned(),
            lock => lock.to_string(),
        }
    }

    /// Whether it keeps other connections from writing.
    #[must_use]
    pub fn is_to_write(&self) -> bool {
        match self.lock {
            LockName::Checkpoint | LockName::Read(_) => false,
            _ => self.is_exclusive,
        }
    }
}

/// SQLite's name of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LockName {
    /// On the database: a connection that commits in a rollback mode, and lets no more readers in.
    Pending,
    /// On the database: the writer in a rollback mode.
    Reserved,
    /// On the database: readers, and in WAL mode all that have it open. If exclusive, it is
    /// SQLite's EXCLUSIVE.
    Shared,
    /// On the wal-index: the writer.
    Write,
    /// On the wal-index: the checkpointer.
    Checkpoint,
    /// On the wal-index: a connection that recovers it.
    Recover,
    /// On the wal-index: readers of one read mark, 0 to 4.
    Read(u8),
}

impl LockName {
    /// The lock of a byte of the database; `None` if SQLite does not lock that byte.
    fn of_database(byte: i64) -> Option<Self> {
        match byte - format::LOCK_BYTES.start {
            0 => Some(Self::Pending),
            1 => Some(Self::Reserved),
            2 => Some(Self::Shared),
            _ => None,
        }
    }

    /// The lock of a byte of the wal-index.
    fn of_wal_index(byte: i64) -> Option<Self> {
        match byte - wal_index::WRITE_BYTE {
            0 => Some(Self::Write),
            1 => Some(Self::Checkpoint),
            2 => Some(Self::Recover),
            slot @ 3..=7 => Some(Self::Read(slot as u8 - 3)),
            _ => None,
        }
    }

    /// Whether it is a lock on the wal-index, and not on the database.
    #[must_use]
    pub fn is_on_wal_index(self) -> bool {
        !matches!(self, Self::Pending | Self::Reserved | Self::Shared)
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("PENDING"),
            Self::Reserved => f.write_str("RESERVED"),
            Self::Shared => f.write_str("SHARED"),
            Self::Write => f.write_str("WRITE"),
            Self::Checkpoint => f.write_str("CKPT"),
            Self::Recover => f.write_str("RECOVER"),
            Self::Read(mark) => write!(f, "READ{mark}"),
        }
    }
}

/// The files that SQLite locks.
#[derive(Clone, Copy)]
pub(super) struct Files {
    database: Option<Inode>,
    wal_index: Option<Inode>,
}

impl Files {
    /// The files of a database.
    pub(super) fn of(database: &Path) -> Self {
        let inode = |path: &Path| sys::entry_at(path).ok().map(|found| found.inode);
        let wal_index = inode(&format::beside(database, WAL_INDEX_SUFFIX));
        Self { database: inode(database), wal_index }
    }

    /// The locks on these files that the kernel lists.
    pub(super) fn listed(self) -> Vec<ListedLock> {
        let all: Vec<_> = [self.database, self.wal_index].into_iter().flatten().collect();
        sys::listed_locks(&all)
    }

    /// SQLite's names for a kernel lock on one of the files; the kernel shows adjacent locks as
    /// one.
    fn names(self, file: Inode, lock: FileLock) -> Vec<LockName> {
        let (first, name): (i64, fn(i64) -> Option<LockName>) = if Some(file) == self.database {
            (format::LOCK_BYTES.start, LockName::of_database)
        } else if Some(file) == self.wal_index {
            (wal_index::WRITE_BYTE, LockName::of_wal_index)
        } else {
            return Vec::new();
        };
        let bytes = (first..first + 8).filter(|byte| (lock.start..=lock.last).contains(byte));
        // All bytes of SHARED are one lock.
        bytes.filter_map(name).collect()
    }

    /// SQLite's locks that a process's kernel lock on one of the files stands for. SQLite's own
    /// VFSes take no OFD locks.
    pub(super) fn sqlite_locks(
        self,
        file: Inode,
        lock: FileLock,
        process: Option<ProcessInfo>,
    ) -> impl Iterator<Item = SqliteLock> {
        let vfs = if lock.is_ofd { ClientVfs::Kanban } else { ClientVfs::Stock };
        self.names(file, lock).into_iter().map(move |name| SqliteLock {
            lock: name,
            is_exclusive: lock.is_exclusive,
            process: process.clone(),
            vfs,
        })
    }
}

/// The locks of `listed` that are not among those `seen`.
pub(super) fn unseen(
    mut listed: Vec<ListedLock>,
    seen: &[(u32, Inode, FileLock)],
) -> Vec<ListedLock> {
    for (pid, inode, lock) in seen {
        let is_it = |one: &ListedLock| {
            one.inode == *inode && one.lock == *lock && one.pid.is_none_or(|listed| listed == *pid)
        };
        if let Some(nth) = listed.iter().position(is_it) {
            listed.swap_remove(nth);
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stock client has WRITE and CKPT, which the kernel shows as one lock. A client of this VFS
    /// reads with the last mark, whose byte is next to that of the dead man's switch. A connection
    /// that commits in a rollback mode has everything.
    #[test]
    fn locks_side_by_side_are_told_apart() {
        let [first, second] = [(), ()].map(|()| tempfile::tempfile().expect("a file"));
        let inode = |file| sys::entry_of(file).expect("it is open").inode;
        let (database, wal_index) = (inode(&first), inode(&second));
        let files = Files { database: Some(database), wal_index: Some(wal_index) };
        let lock = |start, last| FileLock { is_exclusive: true, start, last, is_ofd: false };
        use LockName::{Checkpoint, Pending, Read, Recover, Reserved, Shared, Write};
        assert_eq!(files.names(wal_index, lock(120, 121)), [Write, Checkpoint]);
        assert_eq!(files.names(wal_index, lock(127, 128)), [Read(4)]);
        assert_eq!(files.names(wal_index, lock(128, 128)), []);
        assert_eq!(files.names(wal_index, lock(122, 123)), [Recover, Read(0)]);
        let first = 0x4000_0000;
        assert_eq!(files.names(database, lock(first, first + 511)), [Pending, Reserved, Shared]);
        assert_eq!(files.names(database, lock(first + 2, first + 511)), [Shared]);
        assert_eq!(files.names(database, lock(0, i64::MAX)), [Pending, Reserved, Shared]);
        assert_eq!(files.names(database, lock(120, 121)), []);
    }

    /// The kernel lists two locks of one kind, and only one of them was seen in a process.
    #[test]
    fn a_lock_that_nobody_shows_is_left_over() {
        let file = tempfile::tempfile().expect("a file");
        let inode = sys::entry_of(&file).expect("it is open").inode;
        let lock = FileLock { is_exclusive: false, start: 124, last: 124, is_ofd: true };
        let posix = FileLock { is_ofd: false, ..lock };
        let listed = |lock, pid| ListedLock { inode, lock, pid };
        let all = vec![listed(lock, None), listed(lock, None), listed(posix, Some(7))];
        assert_eq!(unseen(all.clone(), &[(9, inode, lock), (8, inode, posix)]), [all[2], all[1]]);
        assert_eq!(
            unseen(all.clone(), &[(9, inode, lock), (9, inode, lock), (7, inode, posix)]),
            []
        );
    }
}

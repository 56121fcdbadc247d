//! All that can be known about a board from outside, gathered once for all commands that show it.

use std::path::Path;
use std::time::Duration;

use kanban_vfs::observation::{
    ClientVfs, LockName, Observation, Reader, SqliteLock, Survey, Wal, WalSize,
};

use crate::{Result, observe};

/// How long to look into other processes, at most.
const LOOK: Duration = Duration::from_secs(1);

/// A board at one moment.
pub(crate) struct Facts {
    pub(crate) seen: Observation,
    pub(crate) survey: Survey,
    /// The state of the WAL; `None` if no client uses a wal-index, or if it cannot be read, with
    /// the reason.
    pub(crate) wal: Option<Wal>,
    pub(crate) wal_unread: Option<String>,
}

impl Facts {
    /// The facts of a board that was just observed.
    pub(crate) fn of(seen: Observation) -> Self {
        let survey = seen.survey(LOOK);
        let (wal, wal_unread) = match seen.wal() {
            Ok(wal) => (wal, None),
            Err(error) => {
                let why = format!(
                    "the wal-index cannot be read: {error}; ask as the user of the board, or as root"
                );
                (None, Some(why))
            }
        };
        Self { seen, survey, wal, wal_unread }
    }

    /// The facts of the board at that path.
    pub(crate) fn gather(board: &Path) -> Result<Self> {
        observe(board).map(Self::of)
    }

    /// The readers, the oldest first.
    pub(crate) fn readers(&self) -> Vec<Reader> {
        self.wal.map(|wal| wal.readers(&self.survey)).unwrap_or_default()
    }

    /// Why the WAL is as large as it is; `None` if no client uses its index.
    pub(crate) fn wal_size(&self) -> Option<WalSize> {
        let size = self.seen.sizes.wal.unwrap_or(0);
        self.wal.map(|wal| wal.why(&self.survey, size))
    }

    /// SQLite's own locks that keep others from writing, without those of the write lock's holder.
    /// If there is a holder, a lock that an unknown process has by this VFS counts as the holder's.
    pub(crate) fn sqlite_writers(&self) -> impl Iterator<Item = &SqliteLock> {
        let is_held = self.seen.holder.is_some();
        let holder = self.survey.holder.as_ref().map(|one| one.pid);
        self.survey.locks.iter().filter(move |lock| {
            let is_holders = match &lock.process {
                Some(process) => Some(process.pid) == holder,
                None => is_held && lock.vfs == ClientVfs::Kanban,
            };
            lock.is_to_write() && !is_holders
        })
    }

    /// The readers in a rollback mode, which keep writers from committing. (In WAL mode every
    /// client that has the board open has this lock.)
    pub(crate) fn rollback_readers(&self) -> impl Iterator<Item = &SqliteLock> {
        let pid = |lock: &SqliteLock| lock.process.as_ref().map(|one| one.pid);
        let all = &self.survey.locks;
        let is_rollback = self.seen.sizes.wal_index.is_none();
        all.iter().filter(move |lock| {
            let writes = |other: &SqliteLock| {
                other.lock == LockName::Reserved && pid(other).is_some() && pid(other) == pid(lock)
            };
            let reads = lock.lock == LockName::Shared && !lock.is_exclusive;
            is_rollback && reads && !all.iter().any(writes)
        })
    }

    /// How many clients wait, in the queue or for SQLite's own lock.
    pub(crate) fn waiters(&self) -> usize {
        self.seen.queue.len() + self.seen.sqlite_waiters.len()
    }

    /// The longest wait at this moment.
    pub(crate) fn longest_wait(&self) -> Duration {
        let all = self.seen.queue.iter().chain(&self.seen.sqlite_waiters);
        all.map(|waiter| waiter.waited).max().unwrap_or_default()
    }
}

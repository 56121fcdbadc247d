//! The last process to close a sidecar deletes it.
//!
//! The sidecar goes as `-shm` goes, so that nothing stays, and the next process makes it with the rights that the
//! database has then. A process that has it open has a shared lock on [`OPEN`]; a process that has that byte
//! exclusively may delete the file. So a file that was opened counts only if its path still leads to it once the
//! shared lock is taken:
//!
//! | one process opens it | the other closes it | then |
//! |---|---|---|
//! | has the shared lock | asks for an exclusive one, and is refused | it stays |
//! | asks for the shared lock, and is refused | has an exclusive one | the opener looks again, and finds none |
//! | has opened it, and asks for the lock | has deleted and closed it | the opener finds another or none at its path, and looks again |
//!
//! Two processes that close it at the same time both have the shared lock, and both are refused the exclusive one.
//! So a process that is refused releases its own and asks once more, and the last of them gets it. A process that
//! dies in between leaves the file, or has deleted it.

use std::path::Path;

use super::place::is_at;
use super::{Sidecar, content, path_of};
use crate::format;
use crate::lock::page::PAGE;
use crate::sys::{self, Inode, LockFile, Range};

/// The byte that all processes share that have the sidecar open.
pub(super) const OPEN: Range = Range { start: 8189, len: 1 };

impl Sidecar {
    /// Deletes it, unless another process has it open, another program may have made it, or its record says of a
    /// WAL that is still there that a sync has failed: that must outlive all processes. Called when this process is
    /// about to close it, while no thread forks.
    pub(crate) fn delete(&self, database: &Path) {
        let Some(file) = self.file.get().filter(|_| sys::REMOVES_OPEN_FILES) else {
            return;
        };
        delete(file, &path_of(database), self.inode, |file| {
            let len = file.file().metadata().map_or(0, |found| found.len());
            let is_ours = len <= PAGE as u64
                && content::begins_with_header(file.file(), len).is_ok_and(|is_ours| is_ours);
            let has_failed = self.read_group().is_ok_and(|group| group.tells_of_a_failure());
            let wal = format::beside(database, format::WAL_SUFFIX);
            let wal = || wal.metadata().is_ok_and(|wal| wal.len() > 0);
            is_ours && !(has_failed && wal())
        });
    }
}

/// Deletes the file at `path` if it is this one, no other process has it open, and it `may` go. Asks that last, under
/// the exclusive lock on [`OPEN`].
pub(super) fn delete(file: &LockFile, path: &Path, inode: Inode, may: impl Fn(&LockFile) -> bool) {
    let has_exclusive = || match file.try_lock(OPEN, false) {
        Ok(taken) => taken,
        // Where there are no such locks, nobody else has one.
        Err(error) => sys::has_no_locks(&error),
    };
    let is_last = has_exclusive() || file.unlock(OPEN).is_ok() && has_exclusive();
    let deletes = || is_at(path, inode) && may(file) && sys::remove(path).is_ok();
    if is_last && !deletes() {
        // A forked child may keep the description open, and with it the lock.
        let _ = file.unlock(OPEN);
    }
}

//! The last process to close a sidecar deletes it.
//!
//! The sidecar is deleted as `-shm` is, so that no file is left, and the next process makes it with the rights that the
//! database has then. A process that has it open has a shared lock on [`OPEN`]; a process that has that byte exclusively may
//! delete the file. So an opened file counts only if its path still leads to it once the shared lock is taken:
//!
//! | one process opens it | the other closes it | then |
//! |---|---|---|
//! | has the shared lock | asks for an exclusive one, and is refused | it stays |
//! | asks for the shared lock, and is refused | has an exclusive one | the opener looks again, and finds none |
//! | has opened it, and asks for the lock | has deleted and closed it | the opener finds another or none at its path, and looks again |
//!
//! Two processes that close it at the same time both have the shared lock, and both are refused the exclusive one. So a process
//! that is refused releases its own and asks once more, and the last of them gets the exclusive lock. A process that dies in
//! between leaves the file, or has deleted it.

#[cfg(unix)]
use std::fs::File;
use std::path::Path;

use super::content::OPEN;
#[cfg(unix)]
use super::content::{Content, DATABASE, RETRY_AFTER};
use super::place::is_at;
use super::{Sidecar, content, path_of};
use crate::format;
use crate::lock::page::LENGTH;
#[cfg(unix)]
use crate::lock::page::{GROUP, GroupBytes};
use crate::sys::{self, Inode, LockFile};

impl Sidecar {
    /// Deletes it, unless another process has it open or another program may have made it. It also stays if its record says
    /// that a sync of a WAL that still exists has failed: that must outlive all processes. Called when this process is about to
    /// close it, while no thread forks.
    pub(crate) fn delete(&self, database: &Path) {
        let Some(file) = self.file.get().filter(|_| sys::REMOVES_OPEN_FILES) else {
            return;
        };
        delete(file, &path_of(database), self.inode, |file| {
            let len = file.file().metadata().map_or(0, |found| found.len());
            let is_ours = len <= LENGTH as u64
                && content::begins_with_header(file.file(), len).is_ok_and(|is_ours| is_ours);
            let has_failed = self.read_group().is_ok_and(|group| group.tells_of_a_failure());
            let wal = format::beside(database, format::WAL_SUFFIX);
            let wal = || wal.metadata().is_ok_and(|wal| wal.len() > 0);
            is_ours && !(has_failed && wal())
        });
    }
}

/// A connection opened `file` as a database, by the name `path`, which is that of a sidecar. If the file is the sidecar of
/// another database, and the connection may `create` its own, deletes it and returns true: the caller must open the database
/// again. Clients that have the sidecar open go on without one. Otherwise nobody makes the file a sidecar as long as the
/// connection has it open. A sidecar that records a failed sync stays.
///
/// Two locks prevent that one process makes a file a sidecar while another opens it as a database. Each takes its own lock
/// first and then looks for the other's.
#[cfg(unix)]
pub(crate) fn make_way(file: &File, path: &Path, create: bool) -> bool {
    // Longer than it takes to make a sidecar.
    for _ in 0..50 {
        if sys::try_lock(file, DATABASE, true).is_err() {
            return false;
        }
        let Ok(found) = sys::entry_of(file) else { return false };
        match content::content_of(file, found.len) {
            Ok(Content::Page) => {
                let mut group = GroupBytes::default();
                let read = sys::read_exact_at(file, &mut group.0, GROUP as u64);
                let _ = sys::unlock(file, DATABASE);
                return create
                    && read.is_ok()
                    && !group.tells_of_a_failure()
                    && is_at(path, found.inode)
                    && sys::remove(path).is_ok();
            }
            Ok(Content::Unseeded)
                if sys::conflicting_lock(file, OPEN).is_ok_and(|lock| lock.is_some()) =>
            {
                // Somebody makes it a sidecar, or has found that it is none.
                let _ = sys::unlock(file, DATABASE);
                std::thread::sleep(RETRY_AFTER);
            }
            _ => return false,
        }
    }
    let _ = sys::try_lock(file, DATABASE, true);
    false
}

/// Deletes the file at `path` if it is this one, no other process has it open, and it `may` go. Calls `may` last, under the
/// exclusive lock on [`OPEN`].
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

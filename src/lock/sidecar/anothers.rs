//! Files that were found in the place of a sidecar and are somebody else's: another program's lock file, or a database that
//! is named so.
//!
//! This process may have them open elsewhere, and locked: closing any descriptor of a file drops the POSIX locks that the
//! process has on it (<https://www.sqlite.org/howtocorrupt.html> 2.2). So one that was opened stays open, and is not opened
//! again. It costs the descriptor that a sidecar would.

use super::content::is_anothers;
use crate::sys::fork::ForkMutex;
use crate::sys::{self, Entry, Inode, LockFile};

/// Those that are open. Locked to look at one, and while a thread forks; the registry of databases may be locked before.
static OPEN: ForkMutex<Vec<(Inode, LockFile)>> = ForkMutex::new(Vec::new());

/// Keeps other threads from changing them until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    OPEN.lock()
}

/// Keeps a file open that is somebody else's. Those that have no name any more are closed.
pub(super) fn keep(file: LockFile, inode: Inode) {
    if !sys::CLOSING_UNLOCKS {
        return;
    }
    let mut open = OPEN.lock();
    open.retain(|(_, file)| sys::entry_of(file.file()).is_ok_and(|found| found.links > 0));
    if open.iter().all(|(known, _)| *known != inode) {
        open.push((inode, file));
    } else {
        // Another thread has opened it, too. There is no way to close this one.
        std::mem::forget(file);
    }
}

/// Whether a file that was `found` is open already, and somebody else's still. If it is not any more, it is closed: nobody
/// has it locked then.
pub(super) fn has(found: &Entry) -> bool {
    let mut open = OPEN.lock();
    let is_it = |(known, _): &(Inode, LockFile)| *known == found.inode;
    let Some(nth) = open.iter().position(is_it) else { return false };
    let is_still = is_anothers(&open[nth].1, found).unwrap_or(true);
    if !is_still {
        open.swap_remove(nth);
    }
    is_still
}

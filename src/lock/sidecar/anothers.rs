//! Files in the place of a sidecar that are somebody else's: another program's lock file, or a database with such a name.
//!
//! This process may have them open elsewhere, and locked: closing any descriptor of a file drops the POSIX locks that the
//! process has on it (<https://www.sqlite.org/howtocorrupt.html> 2.2). So such a file stays open, and is not opened again,
//! as long as this process has a POSIX lock on it. The same holds if this process has it open elsewhere and it may be a
//! database, which SQLite can lock at any moment. All others are closed at once. So each file that stays open costs one
//! descriptor, beside one that the process has anyway.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::content::is_anothers;
use crate::sys::fork::ForkMutex;
use crate::sys::{self, Entry, Inode, LockFile};

/// The files that stay open. Locked to look at one, and while a thread forks; the registry of
/// databases may be locked before.
static OPEN: ForkMutex<Open> = ForkMutex::new(Open { files: Vec::new(), looked_at: 0 });

struct Open {
    /// A file is here twice if two threads have opened it at the same time.
    files: Vec<(Inode, LockFile)>,
    /// How many there were after the last look at all of them.
    looked_at: usize,
}

/// Up to this number, open files need not be looked at again.
const FEW: usize = 4;

/// The most files that stay open because the system does not tell whether this process has them
/// open elsewhere.
const MOST: usize = 64;

/// Keeps other threads from changing them until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    OPEN.lock()
}

/// Takes a file that is somebody else's, and closes it as soon as that drops no lock. When there
/// are twice as many as at the last look, all are looked at again, to close those that the process
/// has closed elsewhere.
pub(super) fn keep(file: LockFile, inode: Inode) {
    let mut open = OPEN.lock();
    open.files.push((inode, file));
    let is_due = open.files.len() > FEW.max(2 * open.looked_at);
    let begins = if is_due { 0 } else { open.files.len() - 1 };
    let descriptors = OnceCell::new();
    for nth in (begins..open.files.len()).rev() {
        if !may_unlock(&open.files, nth, &descriptors) {
            open.files.swap_remove(nth);
        }
    }
    if is_due {
        open.looked_at = open.files.len();
    }
}

/// Whether closing the nth of these files may drop a lock of this process, now or in a moment. `descriptors` keeps how many
/// descriptors the process has of each file, once that was needed.
fn may_unlock(
    files: &[(Inode, LockFile)],
    nth: usize,
    descriptors: &OnceCell<Option<HashMap<Inode, usize>>>,
) -> bool {
    let (inode, file) = &files[nth];
    match sys::has_posix_locks_on(file.descriptor(), *inode) {
        Some(true) => return true,
        Some(false) if !may_be_database(file) => return false,
        _ => {}
    }
    match descriptors.get_or_init(|| sys::descriptors_by_file().ok()) {
        Some(of_each) => {
            let kept = files.iter().filter(|(known, _)| known == inode).count();
            of_each.get(inode).is_some_and(|all| *all > kept)
        }
        None => files.len() <= MOST,
    }
}

/// Whether a file may be a database, encrypted or not: it is empty, or consists of whole pages.
/// <https://www.sqlite.org/fileformat2.html#pages>
fn may_be_database(file: &LockFile) -> bool {
    const SMALLEST_PAGE: u64 = 512;
    file.file().metadata().map_or(true, |found| found.len() % SMALLEST_PAGE == 0)
}

/// Whether a file that was `found` is already open and still somebody else's. If it no longer is, closes it: then nobody
/// has it locked.
pub(super) fn has(found: &Entry) -> bool {
    let mut open = OPEN.lock();
    let is_it = |(known, _): &(Inode, LockFile)| *known == found.inode;
    let Some((_, file)) = open.files.iter().find(|file| is_it(file)) else { return false };
    let is_still = is_anothers(file, found).unwrap_or(true);
    if !is_still {
        open.files.retain(|file| !is_it(file));
    }
    is_still
}

/// How many of a file are open.
#[cfg(test)]
pub(super) fn kept_of(inode: Inode) -> usize {
    OPEN.lock().files.iter().filter(|(known, _)| *known == inode).count()
}

//! The POSIX locks that this process has, as far as the kernel tells: proc(5), /proc/PID/fdinfo.
//!
//! A file that is locked by POSIX locks must keep them. Both kinds of locks exclude each other: SQLite's next lock, of
//! the other kind, would meet SQLite's own POSIX lock, which nobody would release.

use std::collections::HashSet;
use std::io;
use std::os::fd::RawFd;

use crate::sys::{self, Inode};

/// Whether this process may have a POSIX lock on the file `inode` that it took by this descriptor. True if the kernel
/// does not tell.
pub(super) fn may_have_locked(descriptor: RawFd, inode: Inode) -> bool {
    sys::is_of(descriptor, inode)
        && sys::has_posix_locks(descriptor)
            .ok()
            .or_else(|| sys::has_posix_locks_on(descriptor, inode))
            .unwrap_or(true)
}

/// The files on which the process had POSIX locks before the table began. SQLite counts those locks among its own, and
/// made them by descriptors that the table never saw.
#[derive(Default)]
pub(super) struct LockedBefore(HashSet<Inode>);

impl LockedBefore {
    /// The files that are locked at this moment.
    ///
    /// # Errors
    /// There is no /proc.
    pub(super) fn now() -> io::Result<Self> {
        Ok(Self(sys::with_posix_locks()?.into_iter().collect()))
    }

    /// Whether a file was locked then. It may have been unlocked since.
    pub(super) fn contains(&self, inode: Inode) -> bool {
        self.0.contains(&inode)
    }

    /// Whether a file was locked then and may be locked still. `by` is SQLite's descriptor of the file. True if the
    /// kernel does not tell.
    pub(super) fn may_still_have(&mut self, inode: Inode, by: Option<RawFd>) -> bool {
        if !self.contains(inode) {
            return false;
        }
        let has = sys::with_posix_locks().ok().map(|locked| locked.contains(&inode));
        let by = by.filter(|by| sys::is_of(*by, inode));
        let may_have =
            has.or_else(|| by.and_then(|by| sys::has_posix_locks_on(by, inode))).unwrap_or(true);
        if !may_have {
            self.forget(inode);
        }
        may_have
    }

    /// Forgets a file, which was unlocked.
    pub(super) fn forget(&mut self, inode: Inode) {
        self.0.remove(&inode);
    }

    /// Forgets all files, in a forked child: it has none of its parent's POSIX locks. fcntl(2)
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

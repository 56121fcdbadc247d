//! The one descriptor that has a process's open-file-description locks on one file.
//!
//! Nobody else has this descriptor, so nobody closes it by mistake, and while it is open the locks stay: fcntl(2), "Open
//! file description locks".

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::{self, Kept, Range};

/// A descriptor of our own, and the locks that it has.
pub(super) struct LockDescriptor {
    descriptor: Kept,
    /// The locks it has, if it is not open for writing; `None` if it is. The kernel refuses an exclusive lock by a read-only
    /// descriptor. So when a connection comes that can write, a writable descriptor takes over, and must get these locks.
    shared: Option<Vec<Range>>,
}

impl LockDescriptor {
    /// Opens the file behind `descriptor`, which is SQLite's, once more; for writing, too, if `descriptor` `is_writable`.
    ///
    /// # Errors
    /// The kernel or the file system has no open-file-description locks, or the file cannot be opened.
    pub(super) fn open(descriptor: RawFd, is_writable: bool) -> io::Result<Self> {
        // SQLite has just opened its own descriptor.
        sys::leave_room_after(descriptor)?;
        let opened = reopen(descriptor, is_writable)?;
        // This call fails where there are no open-file-description locks.
        sys::conflicting_lock(&opened, Range { start: 0, len: 1 })?;
        let shared = (!is_writable).then(Vec::new);
        Ok(Self { descriptor: Kept::new(opened.into()), shared })
    }

    #[cfg(test)]
    pub(super) fn of(descriptor: Kept) -> Self {
        Self { descriptor, shared: None }
    }

    /// Its number.
    pub(super) fn number(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Whether the descriptor is open still: nobody closed it behind our back.
    pub(super) fn is_intact(&self) -> bool {
        self.descriptor.is_intact()
    }

    /// Whether each lock made through it must be reported to [`Self::note`].
    pub(super) fn needs_notes(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether a connection can make its locks through it: one that `writes`, or one that does not.
    pub(super) fn serves(&self, writes: bool) -> bool {
        self.is_intact() && !(writes && self.needs_notes())
    }

    /// Notes a lock call that succeeded on `range` through this descriptor; `locked` is false for an unlock.
    pub(super) fn note(&mut self, range: Range, locked: bool) {
        let Some(shared) = &mut self.shared else { return };
        shared.retain(|held| !range.covers(*held));
        if locked {
            shared.push(range);
        }
    }

    /// Whether another open file description has a lock that would exclude an exclusive one on `range`; `None` if the
    /// kernel does not say.
    pub(super) fn is_locked_by_others(&self, range: Range) -> Option<bool> {
        Some(sys::conflicting_lock(&self.descriptor, range).ok()?.is_some())
    }

    /// Makes this descriptor one that can be locked exclusively, under the same number and with the same locks: a connection
    /// that can write, by `descriptor`, has joined those that can only read. If that fails, the next call tries again.
    pub(super) fn make_writable(&mut self, descriptor: RawFd) {
        let Some(shared) = &self.shared else { return };
        let opened = reopen(descriptor, true).ok();
        // At the limit of descriptors, share SQLite's own open file description, which takes no new number.
        let writable = opened.as_ref().map_or(descriptor, AsRawFd::as_raw_fd);
        // Shared locks do not exclude each other, so both open file descriptions can have them for a moment.
        let moved =
            shared.iter().all(|range| matches!(sys::try_lock(&writable, *range, true), Ok(true)));
        if moved && sys::replace(self.descriptor.as_raw_fd(), &writable).is_ok() {
            self.shared = None;
        } else {
            // Even the opened descriptor may share SQLite's open file description, and would leave its locks there.
            for range in shared {
                let _ = sys::unlock(&writable, *range);
            }
        }
    }
}

/// Another descriptor of the file behind `descriptor`, open for reading and, if this one `is_writable`, for writing. If this
/// process may no longer open the file, the result shares SQLite's open file description, which matters only in a forked
/// child.
fn reopen(descriptor: RawFd, is_writable: bool) -> io::Result<OwnedFd> {
    sys::reopen(descriptor, is_writable).or_else(|_| sys::duplicate(descriptor))
}

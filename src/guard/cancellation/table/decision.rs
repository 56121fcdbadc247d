//! What the locks of a file become, and what happens when somebody closes a lock descriptor behind our back.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;

use super::{LOCKED_BEFORE, LOCKED_BY_ITSELF, LockKind, Table};
use crate::guard::cancellation::lock_descriptor::LockDescriptor;
use crate::guard::cancellation::posix_locks;
use crate::guard::cancellation::published::Answer;
use crate::sys::{self, Inode, Range};

impl Table {
    /// Decides what the locks of a file become, unless that is decided for good. Then makes sure that its lock descriptor is
    /// intact and, if any connection can write, writable. If the file `may_be_locked` by a POSIX lock, asks the kernel.
    pub(super) fn settle(&mut self, inode: Inode, may_be_locked: bool) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        match &mut file.kind {
            LockKind::Ofd(lock) if lock.is_intact() => {
                if let Some(descriptor) = self.descriptors.writable_of(&file.descriptors) {
                    lock.make_writable(descriptor);
                }
            }
            LockKind::Stock if !self.ours.contains(inode) => {}
            LockKind::Refused(why) if sys::has_no_locks(why) => {}
            // The system may have been short of something, such as descriptors, that is available now.
            LockKind::Refused(_) => self.decide(inode, true),
            LockKind::Ofd(_) | LockKind::Stock | LockKind::Locked(_) => {
                self.decide(inode, may_be_locked)
            }
        }
        self.publish(inode);
    }

    /// Makes the locks of a file open-file-description locks, unless it has a POSIX lock, or a call that makes one is under
    /// way.
    pub(super) fn decide(&mut self, inode: Inode, may_be_locked: bool) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        // From here on no call begins that is made as it is, and this code sees each one that has begun.
        for descriptor in &file.descriptors {
            self.published.publish(*descriptor, Answer::AskTheTable);
        }
        let Some(by) = self.descriptors.best_of(&file.descriptors) else { return };
        let has_locked = |descriptor: &RawFd| posix_locks::may_have_locked(*descriptor, inode);
        // SQLite makes all connections' locks by the descriptor of one of them, whichever that is.
        let is_locked = file.calling > 0
            || file.descriptors.iter().any(|descriptor| self.published.is_calling(*descriptor))
            || may_be_locked
                && (file.descriptors.iter().any(has_locked)
                    || self.locked_before.may_still_have(inode, Some(by)));
        if let LockKind::Ofd(lost) = &file.kind {
            self.descriptors.own.remove(&lost.number());
        }
        let why = if let LockKind::Locked(why) = file.kind { why } else { LOCKED_BEFORE };
        file.kind = LockKind::Locked(why);
        if is_locked {
            return;
        }
        self.locked_before.forget(inode);
        self.open_lock_descriptor(inode, by);
    }

    /// Opens a lock descriptor, through which the file's locks go from now on. If that fails, they are POSIX locks. `by` is
    /// SQLite's descriptor of the file.
    fn open_lock_descriptor(&mut self, inode: Inode, by: RawFd) {
        let is_writable = self.descriptors.is_writable(by);
        match (LockDescriptor::open(by, is_writable), self.files.get_mut(&inode)) {
            (Ok(lock), _) => self.lock_through(inode, lock),
            (Err(error), Some(file)) => file.kind = LockKind::Refused(error),
            (Err(_), None) => {}
        }
    }

    /// From now on a file's locks go through this descriptor.
    fn lock_through(&mut self, inode: Inode, lock: LockDescriptor) {
        let number = lock.number();
        let lost = self.descriptors.own.insert(number, inode).filter(|lost| *lost != inode);
        if let Some(file) = self.files.get_mut(&inode) {
            file.kind = LockKind::Ofd(lock);
        }
        self.number_was_reused(number, lost);
    }

    /// See [`super::LockTable::goes_without`].
    pub(super) fn goes_without(&mut self, descriptor: RawFd) -> bool {
        let known = self.descriptors.sqlites.get(&descriptor);
        let Some(inode) = known.and_then(|known| known.inode) else { return false };
        let Some(file) = self.files.get_mut(&inode) else { return false };
        let LockKind::Ofd(lock) = &file.kind else { return false };
        let Ok(held) = sys::locks_of(lock.number()) else { return false };
        // Exclusive locks could not be moved without a moment in which nobody has them.
        let ranges = held.iter().map(|held| (!held.is_exclusive).then(|| Range::of(*held)));
        let Some(ranges) = ranges.collect::<Option<Vec<_>>>() else { return false };
        if !ranges.iter().all(|range| matches!(sys::share_by_posix(descriptor, *range), Ok(true))) {
            // The POSIX locks that were already made stay, and are released with the rest.
            return false;
        }
        for range in ranges {
            let _ = sys::unlock(&lock.number(), range);
        }
        self.descriptors.own.remove(&lock.number());
        file.kind = LockKind::Locked(LOCKED_BY_ITSELF);
        self.publish(inode);
        true
    }

    /// A new descriptor has this number, so SQLite's descriptor of that number was closed behind its back. If the number was
    /// our lock descriptor, it was that of the file `lost`, which gets another.
    pub(super) fn number_was_reused(&mut self, number: RawFd, lost: Option<Inode>) {
        self.remove(number);
        let Some(inode) = lost else { return };
        let Some(file) = self.files.get_mut(&inode) else { return };
        if let LockKind::Ofd(lock) = std::mem::replace(&mut file.kind, LockKind::Stock) {
            // The number belongs to other code, which closes it, and may be a descriptor of this very file.
            let _ = ManuallyDrop::new(lock);
        }
        self.remove_closed(inode);
        // The locks of the lost descriptor are gone, as if POSIX locks had been cancelled.
        let Some(file) = self.files.get(&inode) else { return };
        if let Some(by) = self.descriptors.best_of(&file.descriptors) {
            self.open_lock_descriptor(inode, by);
        }
        self.publish(inode);
    }

    /// Publishes what the locks of a file became.
    pub(super) fn publish(&self, inode: Inode) {
        let Some(file) = self.files.get(&inode) else { return };
        for descriptor in &file.descriptors {
            let answer = match &file.kind {
                LockKind::Ofd(lock) if lock.needs_notes() => Answer::AskTheTable,
                LockKind::Ofd(lock) if self.descriptors.is_writable(*descriptor) => {
                    Answer::Through(lock.number())
                }
                LockKind::Ofd(lock) => Answer::ThroughToRead(lock.number()),
                LockKind::Stock | LockKind::Refused(_) => Answer::AsItIs,
                LockKind::Locked(_) => Answer::AskTheTable,
            };
            self.published.publish(*descriptor, answer);
        }
    }
}

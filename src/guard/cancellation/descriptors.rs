//! Which file a descriptor's number belongs to.
//!
//! SQLite opens and closes descriptors through this VFS, so its numbers are known. But the
//! application may close any descriptor, SQLite's or ours, and the next open(2) gives the number to
//! another file. Code that acts on a number asks the kernel first, by [`crate::sys::is_of`].

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use crate::sys::Inode;

/// A descriptor through which SQLite has made a lock call.
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    /// The file; `None` if a parent of this process opened it and locked it by the descriptor that
    /// both share.
    pub(super) inode: Option<Inode>,
    pub(super) is_writable: bool,
}

/// SQLite's descriptors and ours, by number.
#[derive(Default)]
pub(super) struct Descriptors {
    /// The descriptors by which SQLite has locked.
    pub(super) sqlites: BTreeMap<RawFd, Descriptor>,
    /// The file of each of our lock descriptors.
    pub(super) own: BTreeMap<RawFd, Inode>,
}

impl Descriptors {
    /// Which of these numbers of one file to reopen the file by: the latest one that is open for
    /// writing, else the latest one.
    pub(super) fn best_of(&self, numbers: &[RawFd]) -> Option<RawFd> {
        self.writable_of(numbers).or(numbers.last().copied())
    }

    /// Of these numbers, the latest that is open for writing.
    pub(super) fn writable_of(&self, numbers: &[RawFd]) -> Option<RawFd> {
        numbers.iter().rev().find(|number| self.is_writable(**number)).copied()
    }

    /// Whether this number of SQLite's is open for writing.
    pub(super) fn is_writable(&self, number: RawFd) -> bool {
        self.sqlites.get(&number).is_some_and(|known| known.is_writable)
    }
}

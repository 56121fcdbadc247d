//! A simulated kernel for the models of the queue: a page, locks, and a clock.

use super::page::LENGTH;
use crate::sys::Range;

/// What the processes share.
pub(super) struct Kernel {
    pub(super) page: Vec<u8>,
    /// The process that has each lock, its range, and whether it is shared.
    pub(super) locks: Vec<(usize, Range, bool)>,
    /// The process that has acquired the write lock and not released it.
    pub(super) inside: Option<usize>,
    /// CLOCK_MONOTONIC, in ns.
    pub(super) clock: u64,
}

impl Kernel {
    pub(super) fn new() -> Self {
        Self { page: vec![0; LENGTH], locks: Vec::new(), inside: None, clock: 1 << 40 }
    }

    /// The range of another process's lock that conflicts with such a lock of `process`.
    pub(super) fn conflicting(&self, process: usize, range: Range, shared: bool) -> Option<Range> {
        let overlaps = |a: Range, b: Range| a.start <= end(b) && b.start <= end(a);
        self.locks
            .iter()
            .find(|(owner, held, is_shared)| {
                *owner != process && overlaps(*held, range) && !(shared && *is_shared)
            })
            .map(|(_, held, _)| *held)
    }

    /// Takes a lock as fcntl(2) does: it replaces the process's own in that range. False if another process has a
    /// conflicting one.
    pub(super) fn lock(&mut self, process: usize, range: Range, shared: bool) -> bool {
        let is_free = self.conflicting(process, range, shared).is_none();
        if is_free {
            self.unlock(process, range);
            self.locks.push((process, range, shared));
        }
        is_free
    }

    /// A process dies, and the kernel releases its locks.
    pub(super) fn kill(&mut self, process: usize) {
        self.locks.retain(|(owner, _, _)| *owner != process);
        if self.inside == Some(process) {
            self.inside = None;
        }
    }

    /// Unlocks a range as fcntl(2) does: what lies outside the range stays locked as it was.
    pub(super) fn unlock(&mut self, process: usize, range: Range) {
        let mut kept = Vec::new();
        self.locks.retain(|(owner, held, shared)| {
            let hit = *owner == process && held.start <= end(range) && range.start <= end(*held);
            if hit && held.start < range.start {
                let len = range.start - held.start;
                kept.push((process, Range { start: held.start, len }, *shared));
            }
            if hit && end(*held) > end(range) {
                let start = end(range) + 1;
                kept.push((process, Range { start, len: end(*held) - start + 1 }, *shared));
            }
            !hit
        });
        self.locks.append(&mut kept);
    }
}

/// The last byte of a range.
fn end(range: Range) -> i64 {
    if range.len == 0 { i64::MAX } else { range.start + range.len - 1 }
}

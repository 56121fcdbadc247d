//! Transactions over several databases that wait for each other in a circle: one of them gives up
//! at once.
//!
//! A transaction that has write locks and waits for another one shows a label: a number on the page
//! of each database whose write lock it has. The label is greater than that of the transaction it
//! waits for. When a greater one appears there, the transaction copies it. So the greatest label of
//! a circle travels against the waits, and comes back to the transaction that began with it, which
//! waits for itself. (Mitchell and Merritt, A Distributed Algorithm for Deadlock Detection and
//! Resolution, 1984.)
//!
//! If a program always locks its databases in the same order, no label comes back. The worst that a
//! forged page can do is to make such a waiting transaction give up.

#[cfg(all(test, unix))]
mod tests;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::queue::Queue;
use super::sidecar::Sidecar;
use crate::sys;

/// The bits of a label that make it unlike all others; the bits above them are a count.
const UNIQUE_BITS: u32 = 24;

/// The greatest count that is believed: a page may be forged.
const MOST: u64 = 1 << 39;

/// How many times a transaction is told that it waits for itself. SQLite's busy handler gives up by
/// then, if its timeout is shorter than 95 s. An application's own handler may never give up: from
/// then on the transaction sleeps as usual.
const MOST_TOLD: u32 = 1000;

/// The greatest count that this process has seen. When a transaction that copied a label waits
/// again, the transactions that wait for it may still show that label: its new label must be
/// greater.
static GREATEST: AtomicU64 = AtomicU64::new(0);

/// The label of one transaction that waits. Dropping it takes it off the pages.
pub(super) struct Label {
    /// The queues of the databases whose write locks the transaction has.
    shown: Vec<Arc<Queue<Sidecar>>>,
    /// The label that this transaction began with.
    own: u64,
    now: u64,
    /// How many times it has been told that it waits for itself.
    told: u32,
}

impl Label {
    /// The label of a transaction that has the write locks of `held`, at least one, and begins to
    /// wait for another.
    pub(super) fn new(held: Vec<Arc<Queue<Sidecar>>>, waits_for: &Queue<Sidecar>) -> Self {
        let mut hasher = RandomState::new().build_hasher();
        // A child of fork(2) has the same hash keys as its parent.
        hasher.write_u32(sys::pid());
        let unique = hasher.finish() >> (u64::BITS - UNIQUE_BITS);
        let theirs = (waits_for.label().unwrap_or(0) >> UNIQUE_BITS).min(MOST);
        let count = GREATEST.fetch_max(theirs, Ordering::Relaxed).max(theirs) + 1;
        GREATEST.fetch_max(count, Ordering::Relaxed);
        let own = count << UNIQUE_BITS | unique;
        let label = Self { shown: held, own, now: own, told: 0 };
        label.show();
        label
    }

    /// Looks at the label of the holder of `waits_for`, and copies a greater one. Returns whether
    /// its own has come back: then the transaction waits for itself. Returns true [`MOST_TOLD`]
    /// times at most.
    pub(super) fn has_come_back(&mut self, waits_for: &Queue<Sidecar>) -> bool {
        let Some(theirs) = waits_for.label() else { return false };
        if theirs > self.now {
            self.now = theirs;
            GREATEST.fetch_max((theirs >> UNIQUE_BITS).min(MOST), Ordering::Relaxed);
            self.show();
        }
        let has_come_back = theirs == self.own && self.told < MOST_TOLD;
        self.told += u32::from(has_come_back);
        has_come_back
    }

    fn show(&self) {
        for queue in &self.shown {
            queue.show_label(self.now);
        }
    }
}

impl Drop for Label {
    fn drop(&mut self) {
        for queue in &self.shown {
            queue.hide_label(self.now);
        }
    }
}

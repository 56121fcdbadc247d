//! The counters of a board: the sum of what all processes counted since the log was made.
//!
//! The log has several places for counters. A process adds to one that no other has locked, and the
//! board's counters are the sum of all places. A place that is torn or damaged counts as nothing, and
//! begins anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::event::{checksum, u64_at};
use crate::counters::{CLASSES, Counters, FIRST_CLASS, Histogram};

/// The length of a place in bytes: 8 that are 0, a checksum, and the words.
pub(super) const PLACE: usize = 1024;

/// How many words there are: numbers, and two histograms.
const WORDS: usize = NUMBERS + 2 * (CLASSES + 1);
const NUMBERS: usize = 16;
const _: () = assert!(16 + WORDS * 8 <= PLACE);

/// Counters as the log stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words([u64; WORDS]);

impl Default for Words {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

/// What this process has counted.
pub(crate) fn words(counters: &Counters) -> Words {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut words = [0; WORDS];
    let numbers = [
        &counters.refused_at_once,
        &counters.gave_up_after_wait,
        &counters.holders_died,
        &counters.checkpoints_complete,
        &counters.checkpoints_partial,
        &counters.checkpoints_failed,
        &counters.checkpoints_busy,
        &counters.syncs_failed,
        &counters.short_files,
        &counters.displaced,
        &counters.events_left_out,
    ];
    for (word, counter) in words.iter_mut().zip(numbers) {
        *word = load(counter);
    }
    for (nth, histogram) in [&counters.holds, &counters.wait_times].into_iter().enumerate() {
        let Histogram { classes, sum } = histogram;
        let place = NUMBERS + nth * (CLASSES + 1);
        for (word, class) in words[place..].iter_mut().zip(classes.iter().chain([sum])) {
            *word = load(class);
        }
    }
    Words(words)
}

impl Words {
    /// The counts since they were `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n].wrapping_sub(before.0[n])))
    }

    /// The sum of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n].wrapping_add(other.0[n])))
    }

    pub(super) fn encode(&self) -> [u8; PLACE] {
        let mut place = [0; PLACE];
        for (bytes, word) in place[16..].chunks_exact_mut(8).zip(self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let checksum = checksum(&place);
        place[8..16].copy_from_slice(&checksum.to_le_bytes());
        place
    }

    /// The words of a place; `None` if it is torn or damaged.
    pub(super) fn decode(place: &[u8; PLACE]) -> Option<Self> {
        if place.iter().all(|byte| *byte == 0) {
            // No process has counted there.
            return Some(Self::default());
        }
        (u64_at(place, 8) == checksum(place))
            .then(|| Self(std::array::from_fn(|n| u64_at(place, 16 + n * 8))))
    }

    /// The counters as people and programs read them.
    pub(super) fn tally(&self) -> Tally {
        let n = |nth: usize| self.0[nth];
        let durations = |nth: usize| {
            let from = NUMBERS + nth * (CLASSES + 1);
            Durations {
                classes: std::array::from_fn(|class| self.0[from + class]),
                sum: Duration::from_nanos(self.0[from + CLASSES]),
            }
        };
        Tally {
            refusals: n(0),
            give_ups: n(1),
            holders_died: n(2),
            checkpoints_complete: n(3),
            checkpoints_partial: n(4),
            checkpoints_failed: n(5),
            checkpoints_busy: n(6),
            syncs_failed: n(7),
            short_files: n(8),
            displaced: n(9),
            events_left_out: n(10),
            holds: durations(0),
            waits: durations(1),
        }
    }
}

/// A histogram of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durations {
    /// How many durations each class has: [`Durations::bound`].
    pub classes: [u64; CLASSES],
    /// The sum of all durations.
    pub sum: Duration,
}

impl Durations {
    /// All durations of that class and of lower ones are shorter than this; `None` for the last
    /// class.
    #[must_use]
    pub fn bound(class: usize) -> Option<Duration> {
        let power = u32::try_from(class).ok().filter(|_| class + 1 < CLASSES)? + FIRST_CLASS;
        Some(Duration::from_nanos(1 << power))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.iter().fold(0, |all, class| all.wrapping_add(*class))
    }
}

/// The counters of all processes that use a board through this VFS, since its log was made. A
/// process adds its counts when a transaction ends, at most once a second, and when it closes the
/// board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Statements that were refused at once. Without a busy handler, refusals of one connection
    /// less than a second apart count as one.
    pub refusals: u64,
    /// Statements that waited, and were refused.
    pub give_ups: u64,
    /// Processes that ended while they held the write lock and others waited for it.
    pub holders_died: u64,
    /// Checkpoints that copied all frames.
    pub checkpoints_complete: u64,
    /// Checkpoints that left frames, because readers still needed them.
    pub checkpoints_partial: u64,
    /// Checkpoints that did not copy all they meant to copy.
    pub checkpoints_failed: u64,
    /// Checkpoints that did not begin because another was running.
    pub checkpoints_busy: u64,
    /// Commits and checkpoints that failed because a sync had failed.
    pub syncs_failed: u64,
    /// Commits and checkpoints that were refused because the file was too short.
    pub short_files: u64,
    /// Locks that were refused because a file was not in its place, or the database had several
    /// hard links.
    pub displaced: u64,
    /// Events that were not recorded because there were too many.
    pub events_left_out: u64,
    /// How long transactions held the write lock. The number of durations is the number of
    /// transactions.
    pub holds: Durations,
    /// How long the waits took that ended with the write lock.
    pub waits: Durations,
}

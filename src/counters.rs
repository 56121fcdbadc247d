//! Counters of a database in this process, for `PRAGMA kanban_status` (`docs/configuration.md`) and
//! for the event log ([`crate::recorder`]).

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened to a database in this process since its first connection opened it. Each counter
/// is exact, but two counters that are read one after the other may show different moments.
#[derive(Default)]
pub(crate) struct Counters {
    /// Acquired write locks.
    pub(crate) acquired: AtomicU64,
    /// Attempts that were refused because another connection had the write lock.
    pub(crate) refused: AtomicU64,
    /// Waits that ended with the lock.
    pub(crate) waits: AtomicU64,
    /// The total duration of these waits, in ms.
    pub(crate) waited_ms: AtomicU64,
    /// The duration of the longest of these waits, in ms.
    pub(crate) longest_wait_ms: AtomicU64,
    /// Waits that ended without the lock.
    pub(crate) gave_up: AtomicU64,
    /// How often the sidecar was missing or replaced, and was opened again.
    pub(crate) sidecars_replaced: AtomicU64,
    /// Checkpoints that gave up because a writer had restarted the WAL.
    pub(crate) stale_checkpoints: AtomicU64,
    /// Restarts of a WAL that were deferred because a checkpoint was running.
    pub(crate) restarts_deferred: AtomicU64,
    /// Commits and checkpoints that were refused because the file was too short.
    pub(crate) short_files: AtomicU64,
    /// Locks that were refused because a file was displaced or the database had hard links.
    pub(crate) displaced: AtomicU64,
    /// Syncs of group commit that this process made for all commits that waited for one.
    pub(crate) syncs_led: AtomicU64,
    /// Commits whose sync another connection made.
    pub(crate) commits_covered: AtomicU64,
    /// Commits and checkpoints that failed because a sync had failed.
    pub(crate) syncs_failed: AtomicU64,
    /// Statements that were refused at once, without a wait.
    pub(crate) refused_at_once: AtomicU64,
    /// Waits that ended without the lock, not counting statements that were refused at once.
    pub(crate) gave_up_after_wait: AtomicU64,
    /// Holders that ended while they held the write lock, as this process noticed.
    pub(crate) holders_died: AtomicU64,
    /// Checkpoints that copied all frames.
    pub(crate) checkpoints_complete: AtomicU64,
    /// Checkpoints that left frames, because readers still needed them.
    pub(crate) checkpoints_partial: AtomicU64,
    /// Checkpoints that failed before they had copied all they meant to copy.
    pub(crate) checkpoints_failed: AtomicU64,
    /// Checkpoints that did not begin because another was running.
    pub(crate) checkpoints_busy: AtomicU64,
    /// Events that were not recorded because there were too many.
    pub(crate) events_left_out: AtomicU64,
    /// How long transactions held the write lock.
    pub(crate) holds: Histogram,
    /// How long the waits took that ended with the lock.
    pub(crate) wait_times: Histogram,
}

/// Class 0 has the durations that are shorter than 2 to this power, in ns.
pub(crate) const FIRST_CLASS: u32 = 14;

/// How many classes of durations a [`Histogram`] has: enough for any number of ns.
pub(crate) const CLASSES: usize = (u64::BITS - FIRST_CLASS + 1) as usize;

/// Counts durations by their length. Class n has the durations shorter than `2^(n + FIRST_CLASS)`
/// ns that no lower class has.
pub(crate) struct Histogram {
    pub(crate) classes: [AtomicU64; CLASSES],
    /// The sum of all durations, in ns.
    pub(crate) sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a duration in ns. Each write transaction calls this, so it has no branch and no
    /// bounds check.
    pub(crate) fn count(&self, ns: u64) {
        let class = ((ns >> (FIRST_CLASS - 1)) | 1).ilog2() as usize;
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(ns, Ordering::Relaxed);
    }
}

/// Counts one more event.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_of_one_class() {
        let histogram = Histogram::default();
        for ns in [0, 16_383, 16_384, 32_767, 32_768, u64::MAX] {
            histogram.count(ns);
        }
        let classes = histogram.classes.map(AtomicU64::into_inner);
        assert_eq!(classes[..3], [2, 2, 1]);
        assert_eq!((classes[CLASSES - 1], classes.iter().sum::<u64>()), (1, 6));
    }
}

//! What happened to a database in this process, counted for the status.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened to a database in this process since its first connection opened it.
#[derive(Default)]
pub(crate) struct Counters {
    /// Write locks taken.
    pub(crate) acquired: AtomicU64,
    /// Attempts refused: another connection had it.
    pub(crate) refused: AtomicU64,
    /// Waits that ended with the lock, and their sum and longest in ms.
    pub(crate) waits: AtomicU64,
    pub(crate) waited_ms: AtomicU64,
    pub(crate) longest_wait_ms: AtomicU64,
    /// Waits that ended without it.
    pub(crate) gave_up: AtomicU64,
    /// Sidecars found missing or replaced, and opened anew.
    pub(crate) sidecars_replaced: AtomicU64,
    /// Checkpoints given up because the WAL had begun anew.
    pub(crate) stale_checkpoints: AtomicU64,
    /// Times that a WAL did not begin anew because of a checkpoint.
    pub(crate) restarts_put_off: AtomicU64,
    /// Commits and checkpoints refused because the file was too short.
    pub(crate) short_files: AtomicU64,
    /// Locks refused because a file had moved, or had hard links.
    pub(crate) displaced: AtomicU64,
    /// Syncs made for all who waited for one, and how many commits there were for which somebody
    /// else made it.
    pub(crate) syncs_led: AtomicU64,
    pub(crate) commits_covered: AtomicU64,
    /// Commits that failed because a sync had.
    pub(crate) syncs_failed: AtomicU64,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

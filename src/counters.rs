//! What has happened to a database in this process, counted for `PRAGMA kanban_status`
//! (`docs/configuration.md`).

use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened to a database in this process since its first connection opened it. Each counter is exact; two
/// that are read one after the other may be of different moments.
#[derive(Default)]
pub(crate) struct Counters {
    /// Write locks that were acquired.
    pub(crate) acquired: AtomicU64,
    /// Attempts that were refused, since another connection had the write lock.
    pub(crate) refused: AtomicU64,
    /// Waits that ended with the lock.
    pub(crate) waits: AtomicU64,
    /// How long these waits took together, in ms.
    pub(crate) waited_ms: AtomicU64,
    /// How long the longest of them took, in ms.
    pub(crate) longest_wait_ms: AtomicU64,
    /// Waits that ended without the lock.
    pub(crate) gave_up: AtomicU64,
    /// Sidecars that were missing or replaced, and opened again.
    pub(crate) sidecars_replaced: AtomicU64,
    /// Checkpoints that gave up, since the WAL was restarted meanwhile.
    pub(crate) stale_checkpoints: AtomicU64,
    /// Restarts of a WAL that were deferred, since a checkpoint was at work.
    pub(crate) restarts_put_off: AtomicU64,
    /// Commits and checkpoints that were refused, since the file was too short.
    pub(crate) short_files: AtomicU64,
    /// Locks that were refused, since a file was displaced, or the database had hard links.
    pub(crate) displaced: AtomicU64,
    /// Syncs of group commit that this process made for all commits that waited for one.
    pub(crate) syncs_led: AtomicU64,
    /// Commits whose sync another connection made.
    pub(crate) commits_covered: AtomicU64,
    /// Commits and checkpoints that failed, since a sync had failed.
    pub(crate) syncs_failed: AtomicU64,
}

/// Counts one more event.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

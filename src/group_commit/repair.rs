//! The repair of a sync that has failed.

use std::time::Duration;

use super::leader::{PATIENCE, SharedSyncs};
use super::record::{Record, RecordFile};
use super::rewrite::sync_again;
use super::wal::{self, NotDurable, Wal};
use crate::sys::Stopwatch;

impl SharedSyncs {
    /// If a sync has failed, writes all frames behind the durable ones once more and syncs them. The caller keeps
    /// others from writing. Waits for a leader, for [`PATIENCE`] at most.
    ///
    /// Returns whether the page says that the failure is repaired. If not, all committed frames are
    /// durable, but for other connections the failure still stands.
    ///
    /// # Errors
    /// The failure still stands.
    pub(super) fn repair(&self, sidecar: &impl RecordFile, wal: &impl Wal) -> wal::Result<bool> {
        if self.failed(sidecar, wal.id()).is_none() {
            return Ok(true);
        }
        let mut watch = Stopwatch::start();
        let lead = loop {
            match self.try_lead(sidecar) {
                Some(lead) => break Some(lead),
                None if watch.elapsed() >= PATIENCE || sidecar.read().is_err() => break None,
                None => watch.sleep(Duration::from_millis(1)),
            }
        };
        let read = sidecar.read();
        let record = read.as_ref().ok().and_then(|bytes| bytes.record(wal.id()));
        let Some(failure) = self.failed_by(record, wal.id()) else { return Ok(true) };
        let frames = wal.committed();
        // If the WAL has fewer frames, an older state of it was restored.
        let durable = if failure.durable > frames { 0 } else { failure.durable };
        sync_again(wal, durable).or_else(|why| match why {
            // The file may have reported the very failure that is being repaired.
            NotDurable::Failed(_) => sync_again(wal, durable),
            _ => Err(why),
        })?;
        // From here on the page counts again, even if it says that a failure stands.
        *self.failure.lock() = None;
        let repaired =
            Record { id: *wal.id(), durable: frames, failures: failure.failures.wrapping_add(1) };
        let is_noted =
            lead.is_some() && read.is_ok_and(|bytes| repaired.replace(&bytes, sidecar).is_ok());
        let failures = if is_noted { repaired.failures } else { failure.failures };
        wal.open_file().set(wal.open_file().get().has_synced(failures));
        Ok(is_noted)
    }
}

//! Making up for a sync that has failed.

use std::time::{Duration, Instant};

use super::RecordFile;
use super::leader::{Group, PATIENCE};
use super::record::{Log, Record};
use super::wal::{NotDurable, Wal, sync_again};

impl Group {
    /// Makes up for a sync that has failed, if one has, while nobody writes. Whether the page says so:
    /// if not, all committed frames are durable, but others take the failure for one that stands.
    ///
    /// # Errors
    /// It still stands.
    pub(crate) fn repair(
        &self,
        sidecar: &impl RecordFile,
        log: &Log,
        wal: &impl Wal,
    ) -> Result<bool, NotDurable> {
        if self.failed(sidecar, log).is_none() {
            return Ok(true);
        }
        let began = Instant::now();
        let lead = loop {
            match self.try_lead(sidecar) {
                Some(lead) => break Some(lead),
                None if began.elapsed() >= PATIENCE || sidecar.read().is_err() => break None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let read = sidecar.read();
        let record = read.as_ref().ok().and_then(|bytes| bytes.record(log));
        let Some(failure) = self.failed_by(record, log) else { return Ok(true) };
        let frames = wal.committed();
        // If there are fewer, the WAL was put back to what it was.
        let durable = if failure.frames > frames { 0 } else { failure.frames };
        sync_again(wal, durable).or_else(|why| match why {
            // It may tell of the very failure that is to be made up for.
            NotDurable::Failed(_) => sync_again(wal, durable),
            _ => Err(why),
        })?;
        // Where the page says otherwise, it is believed again.
        *self.failure.lock() = None;
        let failures = failure.failures.wrapping_add(1);
        let mended = Record { log: *log, frames, failures };
        let is_noted = lead.is_some()
            && read.is_ok_and(|bytes| {
                sidecar.write(&mended.encode(bytes.word().wrapping_add(1))).is_ok()
            });
        let failures = if is_noted { failures } else { failure.failures };
        wal.opened().set(wal.opened().get().has_synced(failures));
        Ok(is_noted)
    }
}

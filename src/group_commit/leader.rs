//! Who leads a sync, who waits for one, and what becomes of a failure. The states are in [`super`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::RecordFile;
use super::record::{Log, Record};
use super::wal::{NotDurable, Wal, sync_again};
use crate::counters::Counters;
use crate::lock::page::GroupBytes;
use crate::sys::Range;

/// The byte that the leader of a sync locks, exclusively.
const LEADER: Range = Range { start: 8190, len: 1 };

/// How often who waits looks for itself, in case the leader was killed.
const LOOKS: Duration = Duration::from_millis(2);

/// How long anybody waits for the syncs of others.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// A sync that takes so long, in ns, is worth waiting for more to share it.
const SLOW_NS: u64 = 400_000;

/// The longest that is waited for more, in ns, and how many looks for them in a row may be in vain.
const GATHER_NS: u64 = 2_000_000;
const GATHER_IN_VAIN: u32 = 3;

/// What a wait has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited {
    /// How many frames are durable.
    pub(crate) durable: u32,
    /// How many were committed when the sync was over and nobody was woken yet, as far as is known.
    pub(crate) committed: u32,
}

/// The syncs of one database's WAL, as this process takes part in them.
#[derive(Default)]
pub(crate) struct Group {
    /// Whether a thread of this process leads, which the kernel's lock does not show.
    leads: AtomicBool,
    /// How long its last sync took, as far as is known, in ns.
    sync_ns: AtomicU64,
    /// The last failure that this process has seen, and that may not be made up for.
    ///
    /// Mutex rule: held for no system call.
    pub(super) failure: Mutex<Option<Record>>,
}

/// The right to lead. Dropping it gives it back and wakes all who wait.
pub(super) struct Lead<'g, S: RecordFile>(&'g Group, &'g S);

impl<S: RecordFile> Drop for Lead<'_, S> {
    fn drop(&mut self) {
        let _ = self.1.unlock(LEADER);
        self.0.leads.store(false, Ordering::Release);
        // Who found it taken a moment ago is about to sleep.
        self.1.wake();
    }
}

impl Group {
    /// How many frames of that WAL are durable, if a sync has failed and is not made up for.
    pub(crate) fn failed(&self, sidecar: &impl RecordFile, log: &Log) -> Option<u32> {
        let record = sidecar.read().ok().and_then(|bytes| bytes.record(log));
        self.failed_by(record, log).map(|failure| failure.frames)
    }

    /// The same, by what the page says and what this process has seen.
    pub(super) fn failed_by(&self, record: Option<Record>, log: &Log) -> Option<Record> {
        let mut failure = self.failure.lock();
        if let Some(record) = record {
            // The page may have been made anew since, but a later count is a later state.
            let is_later =
                failure.is_none_or(|known| known.log != *log || record.failures >= known.failures);
            if is_later {
                *failure = record.has_failed().then_some(record);
            }
        }
        failure.filter(|failure| failure.log == *log)
    }

    /// Whoever calls has the right to write, which he keeps until his frames are committed, and there
    /// are so many frames: a record of more is of a WAL that was put back to what it was, and is made
    /// void. [`Record::failures`] now.
    ///
    /// # Errors
    /// A sync has failed, and is to be made up for before this commit is synced; or the record can not be
    /// read, or made void now, and this commit must sync for itself.
    pub(crate) fn begin(
        &self,
        sidecar: &impl RecordFile,
        log: &Log,
        frames: u32,
    ) -> Result<u32, NotDurable> {
        let is_ahead =
            |bytes: &GroupBytes| bytes.record(log).is_some_and(|record| record.frames > frames);
        let read = sidecar.read();
        let record = read.as_ref().ok().and_then(|bytes| bytes.record(log));
        if self.failed_by(record, log).is_some() {
            return Err(NotDurable::HasFailed);
        }
        let bytes = read.map_err(|_| NotDurable::Busy)?;
        if is_ahead(&bytes) {
            let _lead = self.try_lead(sidecar).ok_or(NotDurable::Busy)?;
            let bytes = sidecar.read().map_err(|_| NotDurable::Busy)?;
            // One may have failed meanwhile.
            if self.failed_by(bytes.record(log), log).is_some() {
                return Err(NotDurable::HasFailed);
            }
            if is_ahead(&bytes) {
                let void = Record { log: *log, frames: 0, failures: bytes.failures(log) };
                let void = void.encode(bytes.word().wrapping_add(1));
                sidecar.write(&void).map_err(|_| NotDurable::Busy)?;
            }
        }
        Ok(bytes.failures(log))
    }

    /// Returns when the first `frames` of the WAL are durable. May make them so.
    ///
    /// # Errors
    /// They may not be, and no later sync will tell.
    pub(crate) fn wait(
        &self,
        sidecar: &impl RecordFile,
        log: &Log,
        frames: u32,
        wal: &impl Wal,
        counters: &Counters,
    ) -> Result<Waited, NotDurable> {
        let (began, mut has_slept) = (Instant::now(), false);
        let covered = |bytes: &GroupBytes| {
            let durable = self.durable(bytes, log, frames)?;
            let is_covered = u64::from(durable.is_some());
            counters.commits_covered.fetch_add(is_covered, Ordering::Relaxed);
            Ok(durable.map(|durable| Waited { durable, committed: durable }))
        };
        while let Ok(bytes) = sidecar.read() {
            if let Some(waited) = covered(&bytes)? {
                if has_slept {
                    // For most of one sync, and part of another: if it knows no better yet.
                    let (half, relaxed) =
                        (began.elapsed().as_nanos() as u64 / 2, Ordering::Relaxed);
                    let _ = self.sync_ns.compare_exchange(0, half, relaxed, relaxed);
                }
                return Ok(waited);
            }
            if let Some(_lead) = self.try_lead(sidecar) {
                // Another may have come to its end since.
                let Ok(bytes) = sidecar.read() else { break };
                if let Some(waited) = covered(&bytes)? {
                    return Ok(waited);
                }
                counters.syncs_led.fetch_add(1, Ordering::Relaxed);
                self.gather(wal, bytes.record(log).map_or(0, |record| record.frames));
                return self.lead(sidecar, &bytes, log, frames, wal);
            }
            if began.elapsed() >= PATIENCE {
                break;
            }
            sidecar.wait(bytes.word(), LOOKS);
            has_slept = true;
        }
        // Nobody else is told of it.
        let known = sidecar.read().unwrap_or_default();
        let synced = self.sync(sidecar, &known, log, wal);
        synced.map(|_| Waited { durable: frames, committed: frames })
    }

    /// How many frames are durable, if the first `frames` are.
    fn durable(
        &self,
        bytes: &GroupBytes,
        log: &Log,
        frames: u32,
    ) -> Result<Option<u32>, NotDurable> {
        let record = bytes.record(log);
        if let Some(record) = record.filter(|record| record.frames >= frames) {
            return Ok(Some(record.frames));
        }
        match self.failed_by(record, log) {
            Some(failure) if failure.frames < frames => Err(NotDurable::HasFailed),
            _ => Ok(None),
        }
    }

    pub(super) fn try_lead<'g, S: RecordFile>(&'g self, sidecar: &'g S) -> Option<Lead<'g, S>> {
        if self.leads.swap(true, Ordering::Acquire) {
            return None;
        }
        match sidecar.try_lock(LEADER) {
            Ok(true) => Some(Lead(self, sidecar)),
            _ => {
                self.leads.store(false, Ordering::Release);
                None
            }
        }
    }

    /// Waits for the others to commit, too, as long as they do: the frames behind those that are
    /// `durable` are then a whole round's.
    fn gather(&self, wal: &impl Wal, durable: u32) {
        let (sync, round) = (self.sync_ns.load(Ordering::Relaxed), wal.round());
        if sync < SLOW_NS || round == 0 {
            return;
        }
        let mut left = sync.min(GATHER_NS);
        let (mut came, mut in_vain) = (0, 0);
        while left > 0 {
            let now = wal.committed().saturating_sub(durable);
            in_vain = if now == came { in_vain + 1 } else { 0 };
            if now >= round || in_vain > GATHER_IN_VAIN {
                break;
            }
            came = now;
            left = left.saturating_sub(wal.nap());
        }
    }

    /// Makes a sync for all. To be called by who leads.
    fn lead(
        &self,
        sidecar: &impl RecordFile,
        known: &GroupBytes,
        log: &Log,
        frames: u32,
        wal: &impl Wal,
    ) -> Result<Waited, NotDurable> {
        // Their writers had written them before they said so.
        let durable = wal.committed().max(frames);
        fence(Ordering::SeqCst);
        let bytes = self.sync(sidecar, known, log, wal)?;
        let record = Record { log: *log, frames: durable, failures: bytes.failures(log) };
        // If it can not be written, the others sync for themselves.
        let _ = sidecar.write(&record.encode(bytes.word().wrapping_add(1)));
        Ok(Waited { durable, committed: wal.committed().max(durable) })
    }

    /// Makes all committed frames durable, of which the page says what is `known`. What it says after
    /// that.
    fn sync(
        &self,
        sidecar: &impl RecordFile,
        known: &GroupBytes,
        log: &Log,
        wal: &impl Wal,
    ) -> Result<GroupBytes, NotDurable> {
        let durable = known.record(log).map_or(0, |record| record.frames);
        let failures = known.failures(log);
        let opened = wal.opened().get();
        let began = Instant::now();
        let mut synced = match opened.may_miss_errors_behind(durable) {
            // Of them another file was told, perhaps.
            true => sync_again(wal, durable),
            false => wal.sync().map_err(NotDurable::Failed),
        };
        if synced.is_err() && opened.may_tell_late(failures) {
            // What it tells of was made up for, perhaps.
            synced = sync_again(wal, durable);
        }
        self.sync_ns.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if let Err(why) = synced {
            wal.opened().set(opened.has_failed(failures));
            self.note_failure(sidecar, log, wal);
            return Err(why);
        }
        wal.opened().set(opened.has_synced(failures));
        let bytes = sidecar.read().unwrap_or_default();
        // Somebody's own sync may have failed meanwhile.
        match self.failed_by(bytes.record(log), log) {
            Some(_) => Err(NotDurable::HasFailed),
            None => Ok(bytes),
        }
    }

    /// A sync has failed.
    fn note_failure(&self, sidecar: &impl RecordFile, log: &Log, wal: &impl Wal) {
        let bytes = sidecar.read().unwrap_or_default();
        let known = bytes.record(log);
        let frames = self.failed_by(known, log).or(known).map_or(0, |record| record.frames);
        // The page may not be readable now: a lower count would be taken for an older state.
        let failures = bytes.failures(log).max(wal.opened().get().failures()) | 1;
        let failure = Record { log: *log, frames, failures };
        *self.failure.lock() = Some(failure);
        let _ = sidecar.write(&failure.encode(bytes.word().wrapping_add(1)));
        sidecar.wake();
        wal.write_again(frames);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;

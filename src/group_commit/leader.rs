//! Which connection leads a sync, which ones wait for it, and how a failed sync is noted. The states are in [`super`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use parking_lot::Mutex;

use super::record::{Record, RecordFile, WalId};
use super::rewrite::sync_again;
use super::wal::{self, NotDurable, Wal};
use crate::counters::{Counters, count};
use crate::lock::page::GroupBytes;
use crate::sys::{Range, Stopwatch};

/// The byte of the sidecar that the leader of a sync locks, exclusively.
pub(super) const LEADER: Range = Range { start: 8190, len: 1 };

/// How long a waiting connection sleeps at most before it looks again: the leader may have been killed.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long a connection waits for the syncs of others before it makes one itself.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// If a sync takes at least this long, in ns, the leader waits for more commits to share it.
pub(super) const SLOW_NS: u64 = 400_000;

/// The longest that a leader waits for more commits, in ns.
const GATHER_NS: u64 = 2_000_000;

/// How many looks in a row may find no new commit before a leader stops waiting.
const GATHER_IN_VAIN: u32 = 3;

/// Frames that are durable, as known to a connection with frames among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    /// The number of these frames.
    pub(super) frames: u32,
    /// How many frames were committed when the sync was over, before anyone was woken, as far as is
    /// known.
    pub(super) committed: u32,
}

/// This process's part of the syncs of one database's WAL.
#[derive(Default)]
pub(super) struct SharedSyncs {
    /// Whether a thread of this process leads. The kernel's lock does not show that to the other threads.
    leads: AtomicBool,
    /// Whether this process has waited in vain for a leader that still leads. No connection waits
    /// for it again.
    is_leader_stuck: AtomicBool,
    /// How long this process's last sync took, in ns; 0 if that is not known.
    sync_ns: AtomicU64,
    /// The last failure that this process has seen, unless it is known to be repaired.
    ///
    /// Mutex rule: a thread that holds it makes no system call and takes no other lock.
    pub(super) failure: Mutex<Option<Record>>,
}

/// The right to lead. Dropping it unlocks the leader's byte and wakes all that wait.
pub(super) struct Lead<'g, S: RecordFile>(&'g SharedSyncs, &'g S);

impl<S: RecordFile> Drop for Lead<'_, S> {
    fn drop(&mut self) {
        let _ = self.1.unlock(LEADER);
        self.0.leads.store(false, Ordering::Release);
        // A connection that found the byte locked a moment ago is about to sleep. The futex word must change after the
        // unlock, or nobody would wake that connection.
        self.1.wake();
    }
}

impl SharedSyncs {
    /// How many frames of that WAL are durable, if a sync of it has failed and is not repaired.
    pub(super) fn failed(&self, sidecar: &impl RecordFile, id: &WalId) -> Option<u32> {
        let record = sidecar.read().ok().and_then(|bytes| bytes.record(id));
        self.failed_by(record, id).map(|failure| failure.durable)
    }

    /// The failure of that WAL that still stands, by the page's `record` and by what this process has seen.
    pub(super) fn failed_by(&self, record: Option<Record>, id: &WalId) -> Option<Record> {
        let mut failure = self.failure.lock();
        if let Some(record) = record {
            // The page may be a new one, without the failure. But a higher count is a later state.
            let is_later =
                failure.is_none_or(|known| known.id != *id || record.failures >= known.failures);
            if is_later {
                *failure = record.has_failed().then_some(record);
            }
        }
        failure.filter(|failure| failure.id == *id)
    }

    /// A commit begins. The caller has WRITE locked until its frames are committed, and the WAL has `frames` now.
    /// Returns [`Record::failures`].
    ///
    /// If the record counts more frames, an older state of the WAL was restored. The record is
    /// voided here, before new frames take the place of those it counts.
    ///
    /// # Errors
    /// [`NotDurable::AnotherFailed`] if a failed sync must be repaired before this commit is synced.
    /// [`NotDurable::NotShared`] if the record cannot be read, or voided now, and this commit must sync for itself.
    pub(super) fn begin(
        &self,
        sidecar: &impl RecordFile,
        id: &WalId,
        frames: u32,
    ) -> wal::Result<u32> {
        let is_ahead =
            |bytes: &GroupBytes| bytes.record(id).is_some_and(|record| record.durable > frames);
        let read = sidecar.read();
        let record = read.as_ref().ok().and_then(|bytes| bytes.record(id));
        if self.failed_by(record, id).is_some() {
            return Err(NotDurable::AnotherFailed);
        }
        let bytes = read.map_err(|_| NotDurable::NotShared)?;
        if is_ahead(&bytes) {
            let _lead = self.try_lead(sidecar).ok_or(NotDurable::NotShared)?;
            let bytes = sidecar.read().map_err(|_| NotDurable::NotShared)?;
            // A sync may have failed since.
            if self.failed_by(bytes.record(id), id).is_some() {
                return Err(NotDurable::AnotherFailed);
            }
            if is_ahead(&bytes) {
                let void = Record { id: *id, durable: 0, failures: bytes.failures(id) };
                void.replace(&bytes, sidecar).map_err(|_| NotDurable::NotShared)?;
            }
        }
        Ok(bytes.failures(id))
    }

    /// Returns when the first `frames` of the WAL are durable. Leads a sync of all committed frames if no other
    /// connection does. The caller keeps the WAL from restarting. The connection sleeps here while others lead, so a
    /// commit unlocks WRITE first; a checkpoint may have the write lock.
    ///
    /// # Errors
    /// The frames may not be durable, and no later sync will show that: [`NotDurable::Failed`] or
    /// [`NotDurable::AnotherFailed`].
    pub(super) fn wait(
        &self,
        sidecar: &impl RecordFile,
        frames: u32,
        wal: &impl Wal,
        counters: &Counters,
    ) -> wal::Result<Durable> {
        let (watch, mut has_slept) = (Stopwatch::start(), false);
        while let Ok(bytes) = sidecar.read() {
            if let Some(durable) = self.durable(&bytes, wal.id(), frames)? {
                count(&counters.commits_covered);
                if has_slept {
                    // The connection has slept through most of one sync and part of another. Half
                    // of that time is the estimate, unless this process has measured a sync.
                    let (half, relaxed) =
                        (watch.elapsed().as_nanos() as u64 / 2, Ordering::Relaxed);
                    let _ = self.sync_ns.compare_exchange(0, half, relaxed, relaxed);
                }
                return Ok(durable);
            }
            if let Some(_lead) = self.try_lead(sidecar) {
                self.is_leader_stuck.store(false, Ordering::Relaxed);
                // Another leader may have finished since the look.
                let Ok(bytes) = sidecar.read() else { break };
                if let Some(durable) = self.durable(&bytes, wal.id(), frames)? {
                    count(&counters.commits_covered);
                    return Ok(durable);
                }
                count(&counters.syncs_led);
                self.gather(wal, bytes.record(wal.id()).map_or(0, |record| record.durable));
                return self.lead(sidecar, &bytes, frames, wal);
            }
            if self.is_leader_stuck.load(Ordering::Relaxed) {
                break;
            }
            if watch.elapsed() >= PATIENCE {
                self.is_leader_stuck.store(true, Ordering::Relaxed);
                break;
            }
            sidecar.wait(bytes.word(), LOOK_EVERY);
            has_slept = true;
        }
        // This connection does not lead, so it does not write that its sync has succeeded.
        let known = sidecar.read().unwrap_or_default();
        let synced = self.sync(sidecar, &known, wal);
        synced.map(|_| Durable { frames, committed: frames })
    }

    /// Which frames are durable; `None` if the first `frames` may not be.
    fn durable(&self, bytes: &GroupBytes, id: &WalId, frames: u32) -> wal::Result<Option<Durable>> {
        let record = bytes.record(id);
        if let Some(frames) = record.map(|record| record.durable).filter(|most| *most >= frames) {
            return Ok(Some(Durable { frames, committed: frames }));
        }
        match self.failed_by(record, id) {
            Some(failure) if failure.durable < frames => Err(NotDurable::AnotherFailed),
            _ => Ok(None),
        }
    }

    /// The right to lead; `None` if another thread or process has it, or the byte cannot be locked.
    pub(super) fn try_lead<'g, S: RecordFile>(&'g self, sidecar: &'g S) -> Option<Lead<'g, S>> {
        if self.leads.swap(true, Ordering::Acquire) {
            return None;
        }
        if let Ok(true) = sidecar.try_lock(LEADER) {
            return Some(Lead(self, sidecar));
        }
        self.leads.store(false, Ordering::Release);
        None
    }

    /// Waits as long as other connections commit, too, until the frames behind the `durable` ones are those of a whole
    /// round.
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

    /// Makes a sync for all and writes the record. The caller leads.
    fn lead(
        &self,
        sidecar: &impl RecordFile,
        known: &GroupBytes,
        frames: u32,
        wal: &impl Wal,
    ) -> wal::Result<Durable> {
        // The wal-index counts frames only after their writers had written them, so a sync from here on covers them.
        let durable = wal.committed().max(frames);
        fence(Ordering::SeqCst);
        let bytes = self.sync(sidecar, known, wal)?;
        let record = Record { id: *wal.id(), durable, failures: bytes.failures(wal.id()) };
        // If the record cannot be written, the others sync for themselves.
        let _ = record.replace(&bytes, sidecar);
        Ok(Durable { frames: durable, committed: wal.committed().max(durable) })
    }

    /// Makes all committed frames durable; `known` is what the page said before. Returns what it says afterwards.
    fn sync(
        &self,
        sidecar: &impl RecordFile,
        known: &GroupBytes,
        wal: &impl Wal,
    ) -> wal::Result<GroupBytes> {
        let id = wal.id();
        let durable = known.record(id).map_or(0, |record| record.durable);
        let failures = known.failures(id);
        let file = wal.open_file().get();
        let began = Stopwatch::start();
        let mut synced = match file.may_miss_errors_behind(durable) {
            // Another file may have reported their loss.
            true => sync_again(wal, durable),
            false => wal.sync().map_err(NotDurable::Failed),
        };
        if synced.is_err() && file.may_report_late(failures) {
            // The error may have been repaired already.
            synced = sync_again(wal, durable);
        }
        self.sync_ns.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if let Err(why) = synced {
            wal.open_file().set(file.has_failed(failures));
            self.note_failure(sidecar, wal);
            return Err(why);
        }
        wal.open_file().set(file.has_synced(failures));
        let bytes = sidecar.read().unwrap_or_default();
        // The sync of a connection that does not lead may have failed since.
        match self.failed_by(bytes.record(id), id) {
            Some(_) => Err(NotDurable::AnotherFailed),
            None => Ok(bytes),
        }
    }

    /// Notes in the page and in this process that a sync has failed. Writes the frames behind the durable ones once
    /// more, so that the next sync covers them, even that of a client without group commit.
    fn note_failure(&self, sidecar: &impl RecordFile, wal: &impl Wal) {
        let bytes = sidecar.read().unwrap_or_default();
        let known = bytes.record(wal.id());
        let durable = self.failed_by(known, wal.id()).or(known).map_or(0, |record| record.durable);
        // If the page cannot be read now, its count is not known: a lower one would be taken for an earlier state.
        let failures = bytes.failures(wal.id()).max(wal.open_file().get().failures()) | 1;
        let failure = Record { id: *wal.id(), durable, failures };
        *self.failure.lock() = Some(failure);
        let _ = failure.replace(&bytes, sidecar);
        sidecar.wake();
        wal.write_again(durable);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;

//! Group commit: one sync of the WAL serves all who have committed before it began.
//!
//! A committer has given the write lock back, its frames are written, and COMMIT has not returned. It
//! waits here for a sync that began after that, made by whichever of those who wait gets the leader's
//! byte ([`LEADER`]), a lock of the kernel: a leader that is killed is replaced at once. The leader
//! notes how many frames are committed, syncs, and leaves in the sidecar's page that so many are
//! durable ([`Record`]).
//!
//! | a committer finds | and |
//! |---|---|
//! | a record of its WAL with its frames | is done |
//! | one that says that a sync has failed | fails |
//! | the leader's byte free | leads |
//! | it taken | sleeps on the page's futex word, [`LOOKS`] at most, and looks again |
//! | it taken for [`PATIENCE`]: the leader is stopped, or the disk is slow | syncs for itself |
//!
//! Those whom a sync has served are about to commit again, while it is led anew for those who came
//! during it. So whoever has waited for another's sync and then leads, waits for more: as long as they
//! come, and for half the time that a sync takes; not where syncs are so fast that it is in vain
//! ([`SLOW_NS`]). Who meets nobody syncs at once.
//!
//! # A sync that has failed
//! After that, nobody can know which frames are on the disk: fsync(2) reports an error once for each
//! open file, and the kernel takes the pages for clean. So the failure is noted, with the number
//! of frames that are durable, in the page, for all, and in this process, and stands until
//! [`Group::mend`] has written all frames behind those once more and synced them, or the WAL begins
//! anew. Who leads a sync that fails writes them once more at once, so that also the next sync of a client
//! which knows nothing of this covers them.
//!
//! # What is trusted
//! A record counts only if it is whole and about this very WAL: its file, its salts, and this start
//! of the machine ([`Log`]). A torn, random or old one is none, and then everyone syncs. Who
//! forges one on purpose can make others' COMMITs return too early; he needs the right to write the
//! sidecar, which is as good as that to write the database.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::database::Counters;
use super::page::{GroupBytes, Log, Record};
use crate::sys::Range;

/// The byte that the leader of a sync locks, exclusively.
const LEADER: Range = Range { start: 8190, len: 1 };

/// How often who waits looks for itself, in case the leader was killed.
const LOOKS: Duration = Duration::from_millis(2);

/// How long anybody waits for the syncs of others.
const PATIENCE: Duration = Duration::from_millis(100);

/// A sync that takes so long, in ns, is worth waiting for more to share it.
const SLOW_NS: u64 = 400_000;

/// The longest wait for more, in ns, and the parts in which it is spent.
const GATHER_NS: u64 = 2_000_000;
const GATHER_PARTS: u32 = 8;

/// What group commit needs of a sidecar whose page is ours.
pub(crate) trait Sidecar {
    fn read(&self) -> io::Result<GroupBytes>;
    fn write(&self, bytes: &GroupBytes) -> io::Result<()>;
    /// Takes an exclusive lock, or says that another open file has one in the way.
    fn try_lock(&self, range: Range) -> io::Result<bool>;
    fn unlock(&self, range: Range) -> io::Result<()>;
    /// Sleeps while the futex word is `word`, at most so long.
    fn wait(&self, word: u32, limit: Duration);
    /// Changes the futex word, and wakes all who sleep on it.
    fn wake(&self);
}

/// What group commit needs of a WAL.
pub(crate) trait Wal {
    /// How many frames are committed now.
    fn committed(&self) -> u32;
    /// Makes all that was written to it durable; SQLite's code if not.
    fn sync(&self) -> Result<(), i32>;
    /// Writes all committed frames behind the first so many once more, as they are. Fails if one is
    /// not what was committed.
    fn write_again(&self, behind: u32) -> bool;
}

/// Why a commit is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDurable {
    /// This sync has failed, with SQLite's code.
    Failed(i32),
    /// One has, before or meanwhile.
    HasFailed,
    /// Others keep syncing. (To mend only.)
    Busy,
}

/// The syncs of one database's WAL, as this process takes part in them.
#[derive(Default)]
pub(crate) struct Group {
    /// Whether a thread of this process leads, which the kernel's lock does not show.
    leads: AtomicBool,
    /// How long its last sync took, in ns.
    sync_ns: AtomicU64,
    /// The last failure that this process has seen, and that may not be made up for.
    ///
    /// Mutex rule: held for no system call.
    failure: Mutex<Option<Record>>,
}

/// The right to lead. Dropping it gives it back and wakes all who wait.
struct Lead<'g, S: Sidecar>(&'g Group, &'g S);

impl<S: Sidecar> Drop for Lead<'_, S> {
    fn drop(&mut self) {
        let _ = self.1.unlock(LEADER);
        self.0.leads.store(false, Ordering::Release);
        // Who found it taken a moment ago is about to sleep.
        self.1.wake();
    }
}

impl Group {
    /// How many frames of that WAL are durable, if a sync has failed and is not made up for.
    pub(crate) fn failed(&self, sidecar: &impl Sidecar, log: &Log) -> Option<u32> {
        let record = sidecar.read().ok().and_then(|bytes| bytes.record(log));
        self.failed_by(record, log).map(|failure| failure.frames)
    }

    /// The same, by what the page says and what this process has seen.
    fn failed_by(&self, record: Option<Record>, log: &Log) -> Option<Record> {
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

    /// Returns when the first `frames` of the WAL are durable. May make them so.
    ///
    /// # Errors
    /// They may not be, and no later sync will tell.
    pub(crate) fn wait(
        &self,
        sidecar: Option<&impl Sidecar>,
        log: &Log,
        frames: u32,
        wal: &impl Wal,
        counters: &Counters,
    ) -> Result<(), NotDurable> {
        let done = self.wait_or_lead(sidecar, log, frames, wal, counters);
        if done.is_err() {
            counters.syncs_failed.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    fn wait_or_lead(
        &self,
        sidecar: Option<&impl Sidecar>,
        log: &Log,
        frames: u32,
        wal: &impl Wal,
        counters: &Counters,
    ) -> Result<(), NotDurable> {
        let Some(sidecar) = sidecar else { return self.sync_alone(sidecar, log, wal) };
        let began = Instant::now();
        let mut has_waited = false;
        while let Ok(bytes) = sidecar.read() {
            if self.is_durable(&bytes, log, frames)? {
                counters.commits_covered.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            if let Some(_lead) = self.try_lead(sidecar) {
                // Another may have come to its end since.
                let Ok(bytes) = sidecar.read() else { break };
                if self.is_durable(&bytes, log, frames)? {
                    counters.commits_covered.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                counters.syncs_led.fetch_add(1, Ordering::Relaxed);
                if has_waited {
                    self.gather(wal);
                }
                return self.lead(sidecar, log, frames, wal);
            }
            if began.elapsed() >= PATIENCE {
                break;
            }
            has_waited = true;
            sidecar.wait(bytes.word(), LOOKS);
        }
        self.sync_alone(Some(sidecar), log, wal)
    }

    fn is_durable(&self, bytes: &GroupBytes, log: &Log, frames: u32) -> Result<bool, NotDurable> {
        let record = bytes.record(log);
        if record.is_some_and(|record| record.frames >= frames) {
            return Ok(true);
        }
        match self.failed_by(record, log) {
            Some(failure) if failure.frames < frames => Err(NotDurable::HasFailed),
            _ => Ok(false),
        }
    }

    fn try_lead<'g, S: Sidecar>(&'g self, sidecar: &'g S) -> Option<Lead<'g, S>> {
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

    /// Waits for more to commit, as long as they do.
    fn gather(&self, wal: &impl Wal) {
        let sync = self.sync_ns.load(Ordering::Relaxed);
        if sync < SLOW_NS {
            return;
        }
        let part = Duration::from_nanos((sync / 2).min(GATHER_NS)) / GATHER_PARTS;
        let mut committed = wal.committed();
        for _ in 0..GATHER_PARTS {
            std::thread::sleep(part);
            let now = wal.committed();
            if now == committed {
                break;
            }
            committed = now;
        }
    }

    /// Makes a sync for all. To be called by who leads.
    fn lead(
        &self,
        sidecar: &impl Sidecar,
        log: &Log,
        frames: u32,
        wal: &impl Wal,
    ) -> Result<(), NotDurable> {
        // Their writers had written them before they said so.
        let committed = wal.committed().max(frames);
        fence(Ordering::SeqCst);
        let began = Instant::now();
        let synced = wal.sync();
        self.sync_ns.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if let Err(rc) = synced {
            self.note_failure(sidecar, log, wal);
            return Err(NotDurable::Failed(rc));
        }
        let Ok(bytes) = sidecar.read() else { return Ok(()) };
        let known = bytes.record(log);
        // Somebody's own sync may have failed meanwhile.
        if self.failed_by(known, log).is_some() {
            return Err(NotDurable::HasFailed);
        }
        let failures = known.map_or(0, |record| record.failures);
        let record = Record { log: *log, frames: committed, failures };
        // If it can not be written, the others sync for themselves.
        let _ = sidecar.write(&record.encode(bytes.word().wrapping_add(1)));
        Ok(())
    }

    /// Makes a sync that nobody else is told of.
    fn sync_alone(
        &self,
        sidecar: Option<&impl Sidecar>,
        log: &Log,
        wal: &impl Wal,
    ) -> Result<(), NotDurable> {
        match (wal.sync(), sidecar) {
            (Ok(()), Some(sidecar)) if self.failed(sidecar, log).is_some() => {
                Err(NotDurable::HasFailed)
            }
            (Ok(()), _) => Ok(()),
            (Err(rc), Some(sidecar)) => {
                self.note_failure(sidecar, log, wal);
                sidecar.wake();
                Err(NotDurable::Failed(rc))
            }
            (Err(rc), None) => {
                let failure = Record { log: *log, frames: 0, failures: 1 };
                *self.failure.lock() = Some(failure);
                wal.write_again(0);
                Err(NotDurable::Failed(rc))
            }
        }
    }

    /// A sync has failed.
    fn note_failure(&self, sidecar: &impl Sidecar, log: &Log, wal: &impl Wal) {
        let bytes = sidecar.read().unwrap_or_default();
        let known = bytes.record(log);
        let failed = self.failed_by(known, log);
        let (frames, failures) = match failed.or(known) {
            Some(record) => (record.frames, record.failures | 1),
            None => (0, 1),
        };
        let failure = Record { log: *log, frames, failures };
        *self.failure.lock() = Some(failure);
        let _ = sidecar.write(&failure.encode(bytes.word().wrapping_add(1)));
        wal.write_again(frames);
    }

    /// Makes up for a sync that has failed, if one has, while nobody writes.
    ///
    /// # Errors
    /// It still stands.
    pub(crate) fn mend(
        &self,
        sidecar: &impl Sidecar,
        log: &Log,
        wal: &impl Wal,
    ) -> Result<(), NotDurable> {
        if self.failed(sidecar, log).is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let _lead = loop {
            match self.try_lead(sidecar) {
                Some(lead) => break lead,
                None if began.elapsed() >= PATIENCE => return Err(NotDurable::Busy),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let bytes = sidecar.read().map_err(|_| NotDurable::HasFailed)?;
        let Some(failure) = self.failed_by(bytes.record(log), log) else { return Ok(()) };
        let committed = wal.committed();
        if !wal.write_again(failure.frames) {
            return Err(NotDurable::HasFailed);
        }
        wal.sync().map_err(NotDurable::Failed)?;
        let mended = Record { log: *log, frames: committed, failures: failure.failures + 1 };
        sidecar
            .write(&mended.encode(bytes.word().wrapping_add(1)))
            .map_err(|_| NotDurable::HasFailed)?;
        *self.failure.lock() = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::sidecar;
    use crate::sys::Inode;
    use std::cell::{Cell, RefCell};

    /// A sidecar, and what another does just before a lock of this one is given back.
    struct Watched<F>(sidecar::Sidecar, F);

    impl<F: Fn(&sidecar::Sidecar)> Sidecar for Watched<F> {
        fn read(&self) -> io::Result<GroupBytes> {
            Sidecar::read(&self.0)
        }
        fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
            Sidecar::write(&self.0, bytes)
        }
        fn try_lock(&self, range: Range) -> io::Result<bool> {
            Sidecar::try_lock(&self.0, range)
        }
        fn unlock(&self, range: Range) -> io::Result<()> {
            (self.1)(&self.0);
            Sidecar::unlock(&self.0, range)
        }
        fn wait(&self, _: u32, _: Duration) {}
        fn wake(&self) {
            Sidecar::wake(&self.0);
        }
    }

    /// A WAL of so many frames, and what was done to it.
    #[derive(Default)]
    struct Noted {
        frames: Cell<u32>,
        done: RefCell<Vec<&'static str>>,
    }

    impl Wal for Noted {
        fn committed(&self) -> u32 {
            self.frames.get()
        }
        fn sync(&self) -> Result<(), i32> {
            self.done.borrow_mut().push("sync");
            Ok(())
        }
        fn write_again(&self, _: u32) -> bool {
            self.done.borrow_mut().push("write");
            true
        }
    }

    /// A sidecar with a page, and the log of some WAL.
    fn board(directory: &tempfile::TempDir) -> (sidecar::Sidecar, Log) {
        let database = directory.path().join("board.db");
        std::fs::write(&database, b"").expect("there is room");
        let inode = Inode::from(&database.metadata().expect("it is there"));
        let sidecar = sidecar::Sidecar::open(&database, true).expect("there is room");
        (sidecar, Log::of(inode, [1, 2]).expect("there is a /proc"))
    }

    /// A leader has left word, and has the byte still: whoever looks now finds it taken, and is about to
    /// sleep. It must not, since nobody wakes it when the byte is free.
    #[test]
    fn who_looks_before_the_leaders_byte_is_free_does_not_sleep() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let seen = Cell::new(None);
        let look = |page: &sidecar::Sidecar| {
            seen.set(Sidecar::read(page).ok().map(|bytes| bytes.word()));
        };
        let (sidecar, wal) = (Watched(sidecar, look), Noted::default());
        wal.frames.set(3);
        let (group, counters) = (Group::default(), Counters::default());
        group.wait(Some(&sidecar), &log, 3, &wal, &counters).expect("it syncs");
        assert_eq!(*wal.done.borrow(), ["sync"]);
        let bytes = Sidecar::read(&sidecar.0).expect("it is there");
        assert!(seen.get().is_some_and(|word| word != bytes.word()));
        assert_eq!(bytes.record(&log).map(|record| record.frames), Some(3));
    }
}

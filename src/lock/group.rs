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
//! during it. So whoever leads waits for more: until as much was committed as from when its last commit
//! but one was durable until its last one was ([`Waited`]), which is once by everybody; as long as they
//! come, and about as long as a sync takes at most; not where syncs are so fast that it is in vain
//! ([`SLOW_NS`]). Who has met nobody ([`Wal::round`]) syncs at once.
//!
//! # A sync that has failed
//! After that, nobody can know which frames are on the disk: fsync(2) reports an error once for each
//! open file, and the kernel takes the pages for clean. So the failure is noted in the page, for all, and
//! in this process, with the number of frames that are durable. Whoever needs a sync next repairs it:
//! [`Group::mend`] writes all frames behind the durable ones once more and syncs them. Nobody waits for a
//! person to do something, and a connection that syncs nothing in its commits (`synchronous=NORMAL`) goes
//! on as on the stock VFS.
//!
//! | [`Record::failures`] | what happens | what is done | then |
//! |---|---|---|---|
//! | even: sound | a sync fails, of a leader, of who syncs for itself, of a checkpoint | it is noted, and the leader writes all behind the durable frames once more at once; who waited for any of them is told | odd |
//! | odd: failed | WRITE is taken to commit, and the last commit of the connection was synced, or there was none | one repair, before anything is written | even, and it goes on |
//! | odd | a checkpoint begins, or the last connection closes, or one takes the board for itself | the same | even, and it goes on |
//! | odd | the repair fails | the sync of that commit fails, and SQLite rolls it back; a checkpoint ends, and takes nothing out of the WAL | odd: the next tries again |
//! | odd | it succeeds, but the page can not be written, or a leader is stopped | all is durable; this commit syncs for itself, as without group commit | odd: the next repairs once more |
//! | odd | WRITE is taken by a connection whose last commit was not synced | nothing: it promises nothing. If it wants a sync all the same, that fails | odd |
//! | either | the WAL begins anew | all of it was copied, and that synced: it is another [`Log`] | even |
//!
//! What was acknowledged before a failure is in front of what is repaired, and stays durable. Also the
//! next sync of a client which knows nothing of this covers what the leader has written once more.
//!
//! Linux keeps for each open file which errors it was told of ([`Opened`]), which has two consequences.
//! A file that was opened after another was told of an error is told nothing of it: so whoever syncs
//! first writes those frames once more that were there before it came and are not known to be durable.
//! And one that was not told yet is told of an error that was made up for long ago: so whose sync fails,
//! and who has not synced since a failure was made up for, writes and syncs once more.
//!
//! # Clients that know nothing of this
//! A checkpoint, of whatever client, syncs the WAL before it copies any of it (`walCheckpoint`): so it
//! copies only what is durable, also frames whose committers still wait here. They keep their read
//! marks, without which nobody begins the WAL anew under them; a checkpoint of this VFS that has
//! excluded writers makes them durable first, so that the marks do not keep it from copying all, where
//! another leaves the rest to the next. After a failed sync it may be told of no error, and copies frames
//! that had been lost when they were written first: but the leader has written them once more at once,
//! so that its sync is about those. What is left is a moment between the two, the same that
//! `synchronous=NORMAL` has all the time. The same goes for a stock commit on top of them.
//!
//! # What is trusted
//! A record counts only if it is whole and about this very WAL: its file, its salts, and this start
//! of the machine ([`Log`]). A torn, random or old one is none, and then everyone syncs. Who
//! forges one on purpose can make others' COMMITs return too early; he needs the right to write the
//! sidecar, which is as good as that to write the database.

use std::cell::Cell;
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

/// The longest that is waited for more, in ns; how long is slept between two looks for them, which lasts some 50 us
/// longer than it is asked to; and how many looks in a row may be in vain.
const GATHER_NS: u64 = 2_000_000;
const GATHER_NAP: Duration = Duration::from_micros(20);
const GATHER_IN_VAIN: u32 = 3;

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

/// Without one nobody can be told, or asked to wait.
impl<S: Sidecar> Sidecar for Option<&S> {
    fn read(&self) -> io::Result<GroupBytes> {
        self.map_or(Err(io::ErrorKind::NotFound.into()), Sidecar::read)
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        self.map_or(Ok(()), |sidecar| sidecar.write(bytes))
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        self.map_or(Ok(false), |sidecar| sidecar.try_lock(range))
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        self.map_or(Ok(()), |sidecar| sidecar.unlock(range))
    }
    fn wait(&self, word: u32, limit: Duration) {
        self.inspect(|sidecar| sidecar.wait(word, limit));
    }
    fn wake(&self) {
        self.inspect(|sidecar| sidecar.wake());
    }
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
    /// What its syncs tell of.
    fn opened(&self) -> &Cell<Opened>;
    /// How many frames all who commit write in one round; 0 if nobody else commits.
    fn round(&self) -> u32;
    /// Lets others commit for a moment. How long that lasted, in ns.
    fn nap(&self) -> u64 {
        let began = Instant::now();
        std::thread::sleep(GATHER_NAP);
        began.elapsed().as_nanos() as u64
    }
}

/// What the syncs of one open file tell of: errors since it was opened, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    log: Option<Log>,
    /// So many frames may have been written before it was opened, or before it last told of an error.
    older: u32,
    /// [`Record::failures`] when it last synced.
    failures: u32,
}

impl Opened {
    /// Whether its next sync may tell of a failure that was made up for, if there were so many.
    pub(crate) fn may_tell_late(self, failures: u32) -> bool {
        self.failures != failures
    }

    /// Whether its next sync tells of all frames, and of nothing else.
    pub(crate) fn vouches(self, failures: u32) -> bool {
        self.log.is_some() && self.older == 0 && !self.may_tell_late(failures)
    }

    /// The same file, which has told of an error that perhaps nobody else was told of: whatever was written may
    /// be lost, in whichever WAL.
    pub(crate) fn was_told(self) -> Self {
        Self { log: None, older: u32::MAX, ..self }
    }

    /// The same file, now that the WAL is that one and has so many frames.
    pub(crate) fn at(self, log: &Log, frames: u32) -> Self {
        let older = match self.log {
            None => self.older.max(frames),
            Some(known) if known == *log => self.older,
            // It has begun anew since, so that all was written since.
            Some(_) => 0,
        };
        Self { log: Some(*log), older, ..self }
    }
}

/// What a wait has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited {
    /// How many frames are durable.
    pub(crate) durable: u32,
    /// How many were committed when the sync was over and nobody was woken yet, as far as is known.
    pub(crate) committed: u32,
}

/// Why a commit is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDurable {
    /// This sync has failed, with SQLite's code.
    Failed(i32),
    /// One has, before or meanwhile.
    HasFailed,
    /// Others keep syncing, or the page can not be read or written. (To begin.)
    Busy,
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

    /// Whoever calls has the right to write, which he keeps until his frames are committed, and there
    /// are so many frames: a record of more is of a WAL that was put back to what it was, and is made
    /// void. [`Record::failures`] now.
    ///
    /// # Errors
    /// A sync has failed, and is to be made up for before this commit is synced; or the record can not be
    /// read, or made void now, and this commit must sync for itself.
    pub(crate) fn begin(
        &self,
        sidecar: &impl Sidecar,
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
        sidecar: &impl Sidecar,
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
        sidecar: &impl Sidecar,
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
        sidecar: &impl Sidecar,
        known: &GroupBytes,
        log: &Log,
        wal: &impl Wal,
    ) -> Result<GroupBytes, NotDurable> {
        let durable = known.record(log).map_or(0, |record| record.frames);
        let failures = known.failures(log);
        let opened = wal.opened().get();
        let began = Instant::now();
        let mut synced = match durable < opened.older {
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
            wal.opened().set(Opened { failures: failures.max(opened.failures), ..opened });
            self.note_failure(sidecar, log, wal);
            return Err(why);
        }
        wal.opened().set(Opened { older: 0, failures, ..opened });
        let bytes = sidecar.read().unwrap_or_default();
        // Somebody's own sync may have failed meanwhile.
        match self.failed_by(bytes.record(log), log) {
            Some(_) => Err(NotDurable::HasFailed),
            None => Ok(bytes),
        }
    }

    /// A sync has failed.
    fn note_failure(&self, sidecar: &impl Sidecar, log: &Log, wal: &impl Wal) {
        let bytes = sidecar.read().unwrap_or_default();
        let known = bytes.record(log);
        let frames = self.failed_by(known, log).or(known).map_or(0, |record| record.frames);
        // The page may not be readable now: a lower count would be taken for an older state.
        let failures = bytes.failures(log).max(wal.opened().get().failures) | 1;
        let failure = Record { log: *log, frames, failures };
        *self.failure.lock() = Some(failure);
        let _ = sidecar.write(&failure.encode(bytes.word().wrapping_add(1)));
        sidecar.wake();
        wal.write_again(frames);
    }

    /// Makes up for a sync that has failed, if one has, while nobody writes. Whether the page says so:
    /// if not, all committed frames are durable, but others take the failure for one that stands.
    ///
    /// # Errors
    /// It still stands.
    pub(crate) fn mend(
        &self,
        sidecar: &impl Sidecar,
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
        wal.opened().set(Opened { older: 0, failures, ..wal.opened().get() });
        Ok(is_noted)
    }
}

/// Writes all frames behind the durable ones once more and syncs them: whatever became of them before,
/// success means that they are on the disk.
fn sync_again(wal: &impl Wal, durable: u32) -> Result<(), NotDurable> {
    match wal.write_again(durable) {
        true => wal.sync().map_err(NotDurable::Failed),
        false => Err(NotDurable::HasFailed),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::lock::sidecar;
    use crate::sys::Inode;
    use std::cell::{Cell, RefCell};

    /// A sidecar, and what another does just before this one takes a lock (true) or gives it back.
    struct Watched<F>(sidecar::Sidecar, F);

    impl<F: Fn(&sidecar::Sidecar, bool)> Sidecar for Watched<F> {
        fn read(&self) -> io::Result<GroupBytes> {
            Sidecar::read(&self.0)
        }
        fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
            Sidecar::write(&self.0, bytes)
        }
        fn try_lock(&self, range: Range) -> io::Result<bool> {
            (self.1)(&self.0, true);
            Sidecar::try_lock(&self.0, range)
        }
        fn unlock(&self, range: Range) -> io::Result<()> {
            (self.1)(&self.0, false);
            Sidecar::unlock(&self.0, range)
        }
        fn wait(&self, _: u32, _: Duration) {}
        fn wake(&self) {
            Sidecar::wake(&self.0);
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Did {
        Sync,
        /// Wrote the frames behind so many.
        Write(u32),
    }

    /// A WAL of so many frames, what was done to it, and how many of the next syncs fail.
    #[derive(Default)]
    struct Noted {
        frames: Cell<u32>,
        opened: Cell<Opened>,
        failing: Cell<u32>,
        /// How many each look finds more, after how many that find none, and a round's.
        coming: u32,
        after: u32,
        round: u32,
        nap_ns: u64,
        looks: Cell<u32>,
        done: RefCell<Vec<Did>>,
    }

    impl Noted {
        /// One that was opened when it had so many frames.
        fn opened_at(log: &Log, frames: u32) -> Self {
            let opened = Cell::new(Opened::default().at(log, frames));
            Self { frames: Cell::new(frames), opened, ..Self::default() }
        }
    }

    impl Wal for Noted {
        fn committed(&self) -> u32 {
            let looks = self.looks.replace(self.looks.get() + 1);
            let come = if looks % (self.after + 1) == self.after { self.coming } else { 0 };
            self.frames.replace(self.frames.get() + come)
        }
        fn sync(&self) -> Result<(), i32> {
            self.done.borrow_mut().push(Did::Sync);
            match self.failing.replace(self.failing.get().saturating_sub(1)) {
                0 => Ok(()),
                _ => Err(10),
            }
        }
        fn write_again(&self, behind: u32) -> bool {
            self.done.borrow_mut().push(Did::Write(behind));
            true
        }
        fn opened(&self) -> &Cell<Opened> {
            &self.opened
        }
        fn round(&self) -> u32 {
            self.round
        }
        fn nap(&self) -> u64 {
            self.nap_ns
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
        let look = |page: &sidecar::Sidecar, takes: bool| {
            if !takes {
                seen.set(Sidecar::read(page).ok().map(|bytes| bytes.word()));
            }
        };
        let (sidecar, wal) = (Watched(sidecar, look), Noted::default());
        wal.frames.set(3);
        let (group, counters) = (Group::default(), Counters::default());
        group.wait(&sidecar, &log, 3, &wal, &counters).expect("it syncs");
        assert_eq!(*wal.done.borrow(), [Did::Sync]);
        let bytes = Sidecar::read(&sidecar.0).expect("it is there");
        assert!(seen.get().is_some_and(|word| word != bytes.word()));
        assert_eq!(bytes.record(&log).map(|record| record.frames), Some(3));
    }

    /// A record speaks of frames that are not there. While it is about to be made void, a sync of another
    /// process fails: that is seen, and nothing is built on it.
    #[test]
    fn a_failure_that_is_noted_meanwhile_stands() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let (group, counters) = (Group::default(), Counters::default());
        let wal = Noted::opened_at(&log, 0);
        wal.frames.set(9);
        group.wait(&sidecar, &log, 9, &wal, &counters).expect("it syncs");
        let other = Group::default();
        let fails = |page: &sidecar::Sidecar, takes: bool| {
            if takes {
                other.note_failure(page, &log, &wal);
            }
        };
        let sidecar = Watched(sidecar, fails);
        assert_eq!(group.begin(&sidecar, &log, 5), Err(NotDurable::HasFailed));
    }

    /// Eight commit in a loop, and a sync takes long. Those whom the last one has served come again, one
    /// after the other: who leads waits for them, and no longer than they come, with a pause or two, or than
    /// a sync lasts. Where syncs are fast, or nobody else commits, it waits for nobody.
    #[test]
    fn who_leads_waits_for_a_round() {
        const SLOW: u64 = SLOW_NS;
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        const NAP: u64 = 70_000;
        for (nth, (sync_ns, nap_ns, coming, after, round, durable)) in [
            (10 * SLOW, NAP, 1, 0, 8, 9),
            (10 * SLOW, NAP, 1, 2, 4, 4),
            (10 * SLOW, NAP, 1, 5, 4, 1),
            (10 * SLOW, NAP, 1, 0, 40, 30),
            (10 * SLOW, GATHER_NS / 2, 1, 0, 40, 3),
            (SLOW, NAP, 1, 0, 40, 7),
            (10 * SLOW, NAP, 0, 0, 8, 1),
            (SLOW - 1, NAP, 1, 0, 8, 1),
            (10 * SLOW, NAP, 1, 0, 0, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let log = log.begun_anew([nth as u32; 2]);
            let (group, counters) = (Group::default(), Counters::default());
            group.sync_ns.store(sync_ns, Ordering::Relaxed);
            let wal = Noted { coming, after, round, nap_ns, ..Noted::opened_at(&log, 0) };
            wal.frames.set(1);
            let waited = group.wait(&sidecar, &log, 1, &wal, &counters).expect("it syncs");
            assert_eq!(waited.durable, durable, "{nth}");
            // Who comes while it syncs is of the next round, and is counted for it.
            let next = if after == 0 { coming } else { waited.committed - durable };
            assert_eq!(waited.committed, durable + next, "{nth}");
        }
    }

    /// A process has led no sync yet. How long one takes it knows by its own waits, if it slept in one, and until it
    /// leads.
    #[test]
    fn who_has_waited_knows_how_long_a_sync_takes() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let (wal, counters) = (Noted::opened_at(&log, 0), Counters::default());
        let durable = |page: &sidecar::Sidecar, frames| {
            let bytes = Sidecar::read(page).expect("it is there");
            let record = Record { log, frames, failures: 0 };
            Sidecar::write(page, &record.encode(bytes.word().wrapping_add(1)))
        };
        durable(&sidecar, 3).expect("there is room");
        let group = Group::default();
        group.wait(&sidecar, &log, 3, &wal, &counters).expect("it was durable");
        assert_eq!(group.sync_ns.load(Ordering::Relaxed), 0);

        let other = sidecar::Sidecar::open(&directory.path().join("board.db"), false);
        let (other, leader) = (other.expect("it is there"), Group::default());
        let _lead = leader.try_lead(&other).expect("nobody leads");
        let attempts = Cell::new(0);
        // Another leads, and is done when it was slept once.
        let look = |page: &sidecar::Sidecar, takes: bool| {
            attempts.set(attempts.get() + u32::from(takes));
            if takes && attempts.get() % 2 == 0 {
                durable(page, 3 + attempts.get()).expect("there is room");
            }
        };
        let sidecar = Watched(sidecar, look);
        for known in [0, 1] {
            group.sync_ns.store(known, Ordering::Relaxed);
            let frames = 5 + 2 * known as u32;
            group.wait(&sidecar, &log, frames, &wal, &counters).expect("the other one syncs");
            let knows = group.sync_ns.load(Ordering::Relaxed);
            assert!(if known == 0 { knows > 1 } else { knows == known }, "{knows}");
        }
        assert!(attempts.get() == 4 && wal.done.take().is_empty());
    }

    /// A commit waits for its sync. A disk error loses its frames, and somebody else's fsync is told.
    /// A file that is opened now is told nothing: before its sync counts for that commit, too, the frames
    /// are written once more; and not again, once they are durable.
    #[test]
    fn a_file_does_not_speak_for_frames_that_were_there_before_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let (group, counters) = (Group::default(), Counters::default());
        let first = Noted::opened_at(&log, 0);
        first.frames.set(3);
        group.wait(&sidecar, &log, 3, &first, &counters).expect("it syncs");
        assert_eq!(first.done.take(), [Did::Sync]);

        for has_page in [true, false] {
            let wal = Noted::opened_at(&log, 5);
            wal.frames.set(6);
            // Without a page, nothing is known to be durable.
            let (page, durable) = if has_page { (Some(&sidecar), 3) } else { (None, 0) };
            group.wait(&page, &log, 6, &wal, &counters).expect("it syncs");
            assert_eq!(wal.done.take(), [Did::Write(durable), Did::Sync]);
            wal.frames.set(7);
            group.wait(&None::<&sidecar::Sidecar>, &log, 7, &wal, &counters).expect("it syncs");
            assert_eq!(wal.done.take(), [Did::Sync]);
        }
        // It was open when the WAL began anew.
        let next = log.begun_anew([3, 4]);
        let opened = Noted::opened_at(&log, 5).opened.get();
        assert_eq!(opened.at(&next, 9).older, 0);
        // Nor can it sync in the commit, without that.
        assert!(!opened.vouches(0) && !Opened::default().vouches(0));
        assert!(opened.at(&next, 9).vouches(0) && !opened.at(&next, 9).vouches(2));
        // Of an error that it has told of nobody knows which frames it has cost, nor of which WAL.
        for log in [log, next] {
            let told = opened.at(&next, 9).was_told().at(&log, 9);
            assert!(told.older == u32::MAX && !told.vouches(0));
        }
    }

    /// A failed sync was made up for. A file that was not told of it yet is told now: that is no loss,
    /// also when the WAL has begun anew since. What it is told of twice is one.
    #[test]
    fn an_error_that_was_made_up_for_is_no_loss() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let (group, counters) = (Group::default(), Counters::default());
        let [told, late] = [(); 2].map(|()| Noted::opened_at(&log, 0));
        told.frames.set(2);
        late.frames.set(2);
        told.failing.set(1);
        let failed = group.wait(&sidecar, &log, 2, &told, &counters);
        assert_eq!(failed, Err(NotDurable::Failed(10)));
        assert_eq!(group.begin(&sidecar, &log, 2), Err(NotDurable::HasFailed));
        // Also whoever makes up for it may be told of it only then.
        late.failing.set(1);
        group.mend(&sidecar, &log, &late).expect("it succeeds in the end");
        assert_eq!(late.done.take(), [Did::Write(0), Did::Sync, Did::Write(0), Did::Sync]);
        assert_eq!(group.begin(&sidecar, &log, 2), Ok(2));

        for (frames, salts) in [(3, [1, 2]), (1, [3, 4])] {
            let log = log.begun_anew(salts);
            let later = Noted::opened_at(&log, 0);
            later.frames.set(frames);
            later.failing.set(1);
            group.wait(&sidecar, &log, frames, &later, &counters).expect("it is no loss");
            let durable = if frames == 3 { 2 } else { 0 };
            assert_eq!(later.done.take(), [Did::Sync, Did::Write(durable), Did::Sync]);
            later.frames.set(frames + 1);
            later.failing.set(1);
            let fresh = group.wait(&sidecar, &log, frames + 1, &later, &counters);
            assert_eq!(fresh, Err(NotDurable::Failed(10)));
            group.mend(&sidecar, &log, &later).expect("no sync fails");
        }
    }

    /// The database and its WAL were put back to what they were, with the same salts: the record speaks
    /// of frames that are not there. It is void before another frame is written; a failure stays one.
    #[test]
    fn a_record_of_frames_that_are_not_there_is_void() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let (group, counters) = (Group::default(), Counters::default());
        let wal = Noted::opened_at(&log, 0);
        let record = || Sidecar::read(&sidecar).ok().and_then(|bytes| bytes.record(&log));
        for failing in [0, 1] {
            wal.frames.set(9);
            group.wait(&sidecar, &log, 9, &wal, &counters).expect("it syncs");
            if failing > 0 {
                wal.failing.set(failing);
                wal.frames.set(10);
                group.wait(&sidecar, &log, 10, &wal, &counters).expect_err("it is told");
            }
            wal.done.take();
            wal.frames.set(5);
            if failing == 0 {
                // Somebody leads.
                let led = Group::default();
                let other = sidecar::Sidecar::open(&directory.path().join("board.db"), false);
                let other = other.expect("it is there");
                let lead = led.try_lead(&other);
                assert_eq!(group.begin(&sidecar, &log, 5), Err(NotDurable::Busy));
                drop(lead);
                assert_eq!(group.begin(&sidecar, &log, 5), Ok(0));
                assert_eq!(record().map(|record| record.frames), Some(0));
                wal.frames.set(6);
                group.wait(&sidecar, &log, 6, &wal, &counters).expect("it syncs");
                assert_eq!(wal.done.take(), [Did::Sync]);
                assert_eq!(group.begin(&sidecar, &log, 6), Ok(0));
                assert_eq!(record().map(|record| record.frames), Some(6));
            } else {
                assert_eq!(group.begin(&sidecar, &log, 5), Err(NotDurable::HasFailed));
                group.mend(&sidecar, &log, &wal).expect("it syncs");
                assert_eq!(wal.done.take(), [Did::Write(0), Did::Sync]);
                assert_eq!(record().map(|record| record.frames), Some(5));
            }
        }
    }

    /// A sync has failed, and another that was under way fails, too: that is no making up for it. Nor is it
    /// that the page was lost, and somebody has made one anew who knows of nothing.
    #[test]
    fn a_failure_stands_until_it_is_made_up_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let group = Group::default();
        let wal = Noted::opened_at(&log, 0);
        wal.frames.set(7);
        for _ in 0..2 {
            group.note_failure(&sidecar, &log, &wal);
            assert_eq!(group.failed(&sidecar, &log), Some(0));
            assert_eq!(Group::default().failed(&sidecar, &log), Some(0), "all are told");
        }
        let anew = Record { log, frames: 3, failures: 0 };
        Sidecar::write(&sidecar, &anew.encode(1)).expect("there is room");
        assert_eq!(group.begin(&sidecar, &log, 7), Err(NotDurable::HasFailed));
        // Of another WAL it says nothing, and what others say of that is believed.
        let next = log.begun_anew([5, 6]);
        assert_eq!(group.begin(&sidecar, &next, 0), Ok(0));
        *group.failure.lock() = Some(Record { log, frames: 0, failures: 3 });
        let failed = Record { log: next, frames: 0, failures: 1 };
        Sidecar::write(&sidecar, &failed.encode(2)).expect("there is room");
        assert_eq!(group.begin(&sidecar, &next, 7), Err(NotDurable::HasFailed));
        Sidecar::write(&sidecar, &GroupBytes::default()).expect("there is room");

        group.note_failure(&sidecar, &log, &wal);
        group.mend(&sidecar, &log, &wal).expect("it syncs");
        assert_eq!(group.failed(&sidecar, &log), None);
    }

    /// A sidecar that can not be read, or written, now.
    struct Unwell<'s>(&'s sidecar::Sidecar, Cell<bool>, Cell<bool>);

    impl Sidecar for Unwell<'_> {
        fn read(&self) -> io::Result<GroupBytes> {
            if self.1.get() { Err(io::ErrorKind::Other.into()) } else { Sidecar::read(self.0) }
        }
        fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
            let is_well = !self.2.get();
            if is_well { Sidecar::write(self.0, bytes) } else { Err(io::ErrorKind::Other.into()) }
        }
        fn try_lock(&self, range: Range) -> io::Result<bool> {
            Sidecar::try_lock(self.0, range)
        }
        fn unlock(&self, range: Range) -> io::Result<()> {
            Sidecar::unlock(self.0, range)
        }
        fn wait(&self, _: u32, _: Duration) {}
        fn wake(&self) {
            Sidecar::wake(self.0);
        }
    }

    /// A sync fails while the page can not be read or written, after one that was made up for: the process
    /// knows of it all the same, and makes up for it, with or without the page. Then nothing stands, also when
    /// the page can be used again, unless it says so itself.
    #[test]
    fn a_failure_is_known_and_made_up_for_without_the_page() {
        for (reads, writes) in [(true, false), (false, true), (true, true)] {
            let directory = tempfile::tempdir().expect("a directory");
            let (well, log) = board(&directory);
            let page = Unwell(&well, Cell::new(false), Cell::new(false));
            let (group, counters) = (Group::default(), Counters::default());
            let wal = Noted::opened_at(&log, 0);
            wal.frames.set(3);
            wal.failing.set(1);
            group.wait(&page, &log, 3, &wal, &counters).expect_err("it fails");
            assert_eq!(group.mend(&page, &log, &wal), Ok(true));
            wal.frames.set(4);
            // Without the page it might be the old one, told late: it tries once more.
            wal.failing.set(if reads { 2 } else { 1 });
            page.1.set(reads);
            page.2.set(writes);
            group.wait(&page, &log, 4, &wal, &counters).expect_err("it fails");
            assert_eq!(group.begin(&page, &log, 4), Err(NotDurable::HasFailed));
            // The page can be used again, and is not as new as what this process knows.
            page.1.set(false);
            page.2.set(false);
            assert_eq!(group.begin(&page, &log, 4), Err(NotDurable::HasFailed));
            page.1.set(reads);
            page.2.set(writes);
            wal.done.take();
            wal.failing.set(1);
            assert_eq!(
                group.mend(&page, &log, &wal),
                Ok(false),
                "the disk is well, the page is not"
            );
            assert_eq!(wal.done.borrow().last(), Some(&Did::Sync));
            page.1.set(false);
            page.2.set(false);
            assert_eq!(group.mend(&page, &log, &wal), Ok(true));
            assert!(group.begin(&page, &log, 4).is_ok());
        }
    }

    /// Frames that were durable before a sync failed are so still, whoever asks and whatever has become of the
    /// page.
    #[test]
    fn a_failure_is_no_failure_of_what_was_durable() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_sidecar, log) = board(&directory);
        let group = Group::default();
        *group.failure.lock() = Some(Record { log, frames: 5, failures: 1 });
        let nothing = GroupBytes::default();
        assert_eq!(group.durable(&nothing, &log, 5), Ok(None));
        assert_eq!(group.durable(&nothing, &log, 6), Err(NotDurable::HasFailed));
        let record = Record { log, frames: 6, failures: 1 }.encode(1);
        assert_eq!(group.durable(&record, &log, 6), Ok(Some(6)));
    }

    /// Somebody leads a sync while another is to make up for a failure: that is waited for, not for ever.
    #[test]
    fn who_makes_up_for_a_failure_waits_for_a_sync_but_not_for_ever() {
        let directory = tempfile::tempdir().expect("a directory");
        let (sidecar, log) = board(&directory);
        let group = Group::default();
        let wal = Noted::opened_at(&log, 0);
        group.note_failure(&sidecar, &log, &wal);
        let other = sidecar::Sidecar::open(&directory.path().join("board.db"), false);
        let (other, leader) = (other.expect("it is there"), Group::default());
        let lead = leader.try_lead(&other).expect("nobody leads");
        // All is durable then, but the page can not be told.
        assert_eq!(group.mend(&sidecar, &log, &wal), Ok(false));
        assert_eq!(wal.done.take(), [Did::Write(0), Did::Write(0), Did::Sync]);
        assert_eq!(group.failed(&sidecar, &log), Some(0));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(PATIENCE / 10);
                drop(lead);
            });
            group.mend(&sidecar, &log, &wal).expect("it was waited for");
        });
        assert_eq!(group.failed(&sidecar, &log), None);
    }
}

use super::*;
use crate::ffi::ResultCode;
use crate::group_commit::wal::Opened;
use crate::lock::sidecar;
use crate::sys::Inode;
use std::cell::{Cell, RefCell};
use std::io;

/// A sidecar, and what another does just before this one takes a lock (true) or gives it back.
struct Watched<F>(sidecar::Sidecar, F);

impl<F: Fn(&sidecar::Sidecar, bool)> RecordFile for Watched<F> {
    fn read(&self) -> io::Result<GroupBytes> {
        RecordFile::read(&self.0)
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        RecordFile::write(&self.0, bytes)
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        (self.1)(&self.0, true);
        RecordFile::try_lock(&self.0, range)
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        (self.1)(&self.0, false);
        RecordFile::unlock(&self.0, range)
    }
    fn wait(&self, _: u32, _: Duration) {}
    fn wake(&self) {
        RecordFile::wake(&self.0);
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
    fn sync(&self) -> Result<(), ResultCode> {
        self.done.borrow_mut().push(Did::Sync);
        match self.failing.replace(self.failing.get().saturating_sub(1)) {
            0 => Ok(()),
            _ => Err(ResultCode::IOERR),
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
            seen.set(RecordFile::read(page).ok().map(|bytes| bytes.word()));
        }
    };
    let (sidecar, wal) = (Watched(sidecar, look), Noted::default());
    wal.frames.set(3);
    let (group, counters) = (Group::default(), Counters::default());
    group.wait(&sidecar, &log, 3, &wal, &counters).expect("it syncs");
    assert_eq!(*wal.done.borrow(), [Did::Sync]);
    let bytes = RecordFile::read(&sidecar.0).expect("it is there");
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
        let bytes = RecordFile::read(page).expect("it is there");
        let record = Record { log, frames, failures: 0 };
        RecordFile::write(page, &record.encode(bytes.word().wrapping_add(1)))
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
    assert!(!opened.at(&next, 9).may_miss_errors_behind(0));
    // Nor can it sync in the commit, without that.
    assert!(!opened.vouches(0) && !Opened::default().vouches(0));
    assert!(opened.at(&next, 9).vouches(0) && !opened.at(&next, 9).vouches(2));
    // Of an error that it has told of nobody knows which frames it has cost, nor of which WAL.
    for log in [log, next] {
        let told = opened.at(&next, 9).was_told().at(&log, 9);
        assert!(told.may_miss_errors_behind(u32::MAX - 1) && !told.vouches(0));
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
    assert_eq!(failed, Err(NotDurable::Failed(ResultCode::IOERR)));
    assert_eq!(group.begin(&sidecar, &log, 2), Err(NotDurable::HasFailed));
    // Also whoever makes up for it may be told of it only then.
    late.failing.set(1);
    group.repair(&sidecar, &log, &late).expect("it succeeds in the end");
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
        assert_eq!(fresh, Err(NotDurable::Failed(ResultCode::IOERR)));
        group.repair(&sidecar, &log, &later).expect("no sync fails");
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
    let record = || RecordFile::read(&sidecar).ok().and_then(|bytes| bytes.record(&log));
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
            group.repair(&sidecar, &log, &wal).expect("it syncs");
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
    RecordFile::write(&sidecar, &anew.encode(1)).expect("there is room");
    assert_eq!(group.begin(&sidecar, &log, 7), Err(NotDurable::HasFailed));
    // Of another WAL it says nothing, and what others say of that is believed.
    let next = log.begun_anew([5, 6]);
    assert_eq!(group.begin(&sidecar, &next, 0), Ok(0));
    *group.failure.lock() = Some(Record { log, frames: 0, failures: 3 });
    let failed = Record { log: next, frames: 0, failures: 1 };
    RecordFile::write(&sidecar, &failed.encode(2)).expect("there is room");
    assert_eq!(group.begin(&sidecar, &next, 7), Err(NotDurable::HasFailed));
    RecordFile::write(&sidecar, &GroupBytes::default()).expect("there is room");

    group.note_failure(&sidecar, &log, &wal);
    group.repair(&sidecar, &log, &wal).expect("it syncs");
    assert_eq!(group.failed(&sidecar, &log), None);
}

/// A sidecar that can not be read, or written, now.
struct Unwell<'s>(&'s sidecar::Sidecar, Cell<bool>, Cell<bool>);

impl RecordFile for Unwell<'_> {
    fn read(&self) -> io::Result<GroupBytes> {
        if self.1.get() { Err(io::ErrorKind::Other.into()) } else { RecordFile::read(self.0) }
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        let is_well = !self.2.get();
        if is_well { RecordFile::write(self.0, bytes) } else { Err(io::ErrorKind::Other.into()) }
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        RecordFile::try_lock(self.0, range)
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        RecordFile::unlock(self.0, range)
    }
    fn wait(&self, _: u32, _: Duration) {}
    fn wake(&self) {
        RecordFile::wake(self.0);
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
        assert_eq!(group.repair(&page, &log, &wal), Ok(true));
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
        assert_eq!(group.repair(&page, &log, &wal), Ok(false), "the disk is well, the page is not");
        assert_eq!(wal.done.borrow().last(), Some(&Did::Sync));
        page.1.set(false);
        page.2.set(false);
        assert_eq!(group.repair(&page, &log, &wal), Ok(true));
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
    assert_eq!(group.repair(&sidecar, &log, &wal), Ok(false));
    assert_eq!(wal.done.take(), [Did::Write(0), Did::Write(0), Did::Sync]);
    assert_eq!(group.failed(&sidecar, &log), Some(0));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(PATIENCE / 10);
            drop(lead);
        });
        group.repair(&sidecar, &log, &wal).expect("it was waited for");
    });
    assert_eq!(group.failed(&sidecar, &log), None);
}

use super::*;
use crate::ffi::ResultCode;
use crate::group_commit::open_file::WalDescription;
use crate::lock::sidecar;
use crate::sys::Inode;
use std::cell::{Cell, RefCell};
use std::io;

/// A sidecar that exists.
impl RecordFile for sidecar::Sidecar {
    fn read(&self) -> io::Result<GroupBytes> {
        RecordFile::read(&Some(self))
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        RecordFile::write(&Some(self), bytes)
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        RecordFile::try_lock(&Some(self), range)
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        RecordFile::unlock(&Some(self), range)
    }
    fn wait(&self, word: u32, limit: Duration) {
        RecordFile::wait(&Some(self), word, limit);
    }
    fn wake(&self) {
        RecordFile::wake(&Some(self));
    }
}

/// A sidecar, and a function that plays another process just before this one locks (true) or
/// unlocks a byte of it.
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
    /// Wrote the frames behind this number once more.
    Write(u32),
}

/// A WAL that notes the calls it gets.
#[derive(Default)]
struct Noted {
    id: WalId,
    frames: Cell<u32>,
    open_file: Cell<WalDescription>,
    /// How many of the next syncs fail.
    failing: Cell<u32>,
    /// How many more frames a look finds.
    coming: u32,
    /// How many looks before that find none.
    after: u32,
    /// How many frames a round has.
    round: u32,
    nap_ns: u64,
    looks: Cell<u32>,
    done: RefCell<Vec<Did>>,
}

impl Noted {
    /// A WAL whose file was opened when it had this many frames.
    fn opened_at(id: &WalId, frames: u32) -> Self {
        let open_file = Cell::new(WalDescription::default().at(id, frames));
        Self { id: *id, frames: Cell::new(frames), open_file, ..Self::default() }
    }
}

impl Wal for Noted {
    fn id(&self) -> &WalId {
        &self.id
    }
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
    fn open_file(&self) -> &Cell<WalDescription> {
        &self.open_file
    }
    fn round(&self) -> u32 {
        self.round
    }
    fn nap(&self) -> u64 {
        self.nap_ns
    }
}

/// A sidecar with a page, and a WAL.
fn board(directory: &tempfile::TempDir) -> (sidecar::Sidecar, WalId) {
    let database = directory.path().join("board.db");
    std::fs::write(&database, b"").expect("there is room");
    let inode = Inode::from(&database.metadata().expect("it is there"));
    let sidecar = sidecar::Sidecar::open(&database, true).expect("there is room");
    (sidecar, WalId::of(inode, [1, 2]).expect("there is a /proc"))
}

/// A leader has written the record and still has its byte locked. A connection that looks now finds
/// the byte locked and is about to sleep. Nobody would wake it after the unlock: so the unlock
/// changes the futex word again, and it does not sleep.
#[test]
fn a_connection_that_looks_before_the_leaders_byte_is_unlocked_does_not_sleep() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let seen = Cell::new(None);
    let look = |page: &sidecar::Sidecar, takes: bool| {
        if !takes {
            seen.set(RecordFile::read(page).ok().map(|bytes| bytes.word()));
        }
    };
    let (sidecar, wal) = (Watched(sidecar, look), Noted::opened_at(&id, 0));
    wal.frames.set(3);
    let (group, counters) = (SharedSyncs::default(), Counters::default());
    group.wait(&sidecar, 3, &wal, &counters).expect("it syncs");
    assert_eq!(*wal.done.borrow(), [Did::Sync]);
    let bytes = RecordFile::read(&sidecar.0).expect("it is there");
    assert!(seen.get().is_some_and(|word| word != bytes.word()));
    assert_eq!(bytes.record(&id).map(|record| record.durable), Some(3));
}

/// A record counts frames that do not exist. While a commit is about to void it, a sync of another
/// process fails. The commit sees the failure, and adds no frames.
#[test]
fn a_failure_that_is_noted_while_a_record_is_voided_stands() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let (group, counters) = (SharedSyncs::default(), Counters::default());
    let wal = Noted::opened_at(&id, 0);
    wal.frames.set(9);
    group.wait(&sidecar, 9, &wal, &counters).expect("it syncs");
    let other = SharedSyncs::default();
    let fails = |page: &sidecar::Sidecar, takes: bool| {
        if takes {
            other.note_failure(page, &wal);
        }
    };
    let sidecar = Watched(sidecar, fails);
    assert_eq!(group.begin(&sidecar, &id, 5), Err(NotDurable::AnotherFailed));
}

/// Eight connections commit in a loop, and a sync takes long. Connections that the last sync has
/// served commit again, one after the other. The leader waits for them as long as they come, with a
/// pause or two, and no longer than a sync lasts. If syncs are fast, or no other connection
/// commits, it does not wait.
#[test]
fn a_leader_waits_for_a_whole_round() {
    const SLOW: u64 = SLOW_NS;
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
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
        let id = id.restarted([nth as u32; 2]);
        let (group, counters) = (SharedSyncs::default(), Counters::default());
        group.sync_ns.store(sync_ns, Ordering::Relaxed);
        let wal = Noted { coming, after, round, nap_ns, ..Noted::opened_at(&id, 0) };
        wal.frames.set(1);
        let waited = group.wait(&sidecar, 1, &wal, &counters).expect("it syncs");
        assert_eq!(waited.frames, durable, "{nth}");
        // A commit that comes while the leader syncs belongs to the next round.
        let next = if after == 0 { coming } else { waited.committed - durable };
        assert_eq!(waited.committed, durable + next, "{nth}");
    }
}

/// A process has led no sync yet. Until it does, it estimates the length of a sync from its own
/// waits, if it has slept in one.
#[test]
fn a_process_that_has_only_waited_knows_how_long_a_sync_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let (wal, counters) = (Noted::opened_at(&id, 0), Counters::default());
    let durable = |page: &sidecar::Sidecar, frames| {
        let bytes = RecordFile::read(page).expect("it is there");
        let record = Record { id, durable: frames, failures: 0 };
        RecordFile::write(page, &record.encode(bytes.word().wrapping_add(1)))
    };
    durable(&sidecar, 3).expect("there is room");
    let group = SharedSyncs::default();
    group.wait(&sidecar, 3, &wal, &counters).expect("it was durable");
    assert_eq!(group.sync_ns.load(Ordering::Relaxed), 0);

    let other = sidecar::Sidecar::open(&directory.path().join("board.db"), false);
    let (other, leader) = (other.expect("it is there"), SharedSyncs::default());
    let _lead = leader.try_lead(&other).expect("nobody leads");
    let attempts = Cell::new(0);
    // Another process leads, and has finished when this one has slept once.
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
        group.wait(&sidecar, frames, &wal, &counters).expect("the other one syncs");
        let knows = group.sync_ns.load(Ordering::Relaxed);
        assert!(if known == 0 { knows > 1 } else { knows == known }, "{knows}");
    }
    assert!(attempts.get() == 4 && wal.done.take().is_empty());
}

/// A commit waits for its sync. A disk error loses its frames, and the kernel reports that to
/// another file. A file that is opened now reports no error. So before a sync of that file counts
/// for the commit, the frames are written once more; once they are durable, not again.
#[test]
fn a_file_does_not_vouch_for_frames_that_are_older_than_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let (group, counters) = (SharedSyncs::default(), Counters::default());
    let first = Noted::opened_at(&id, 0);
    first.frames.set(3);
    group.wait(&sidecar, 3, &first, &counters).expect("it syncs");
    assert_eq!(first.done.take(), [Did::Sync]);

    for has_page in [true, false] {
        let wal = Noted::opened_at(&id, 5);
        wal.frames.set(6);
        // Without a page, nothing is known to be durable.
        let (page, durable) = if has_page { (Some(&sidecar), 3) } else { (None, 0) };
        group.wait(&page, 6, &wal, &counters).expect("it syncs");
        assert_eq!(wal.done.take(), [Did::Write(durable), Did::Sync]);
        wal.frames.set(7);
        group.wait(&None::<&sidecar::Sidecar>, 7, &wal, &counters).expect("it syncs");
        assert_eq!(wal.done.take(), [Did::Sync]);
    }
    // The file was open when the WAL restarted.
    let next = id.restarted([3, 4]);
    let opened = Noted::opened_at(&id, 5).open_file.get();
    assert!(!opened.at(&next, 9).may_miss_errors_behind(0));
    // Until then, the connection cannot sync in its commits either.
    assert!(!opened.vouches_for_all(0) && !WalDescription::default().vouches_for_all(0));
    assert!(opened.at(&next, 9).vouches_for_all(0) && !opened.at(&next, 9).vouches_for_all(2));
    // The file has reported an error. Nothing tells which frames are lost, nor of which WAL.
    for id in [id, next] {
        let reported = opened.at(&next, 9).has_reported().at(&id, 9);
        assert!(reported.may_miss_errors_behind(u32::MAX - 1) && !reported.vouches_for_all(0));
    }
}

/// A failed sync was repaired. A file that has not reported the error yet reports it now. That means no loss, even
/// if the WAL has restarted since. A second error in a row does mean a loss.
#[test]
fn an_error_that_is_reported_after_its_repair_is_no_loss() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let (group, counters) = (SharedSyncs::default(), Counters::default());
    let [early, late] = [(); 2].map(|()| Noted::opened_at(&id, 0));
    early.frames.set(2);
    late.frames.set(2);
    early.failing.set(1);
    let failed = group.wait(&sidecar, 2, &early, &counters);
    assert_eq!(failed, Err(NotDurable::Failed(ResultCode::IOERR)));
    assert_eq!(group.begin(&sidecar, &id, 2), Err(NotDurable::AnotherFailed));
    // The file that repairs the failure may report the error only then.
    late.failing.set(1);
    group.repair(&sidecar, &late).expect("it succeeds in the end");
    assert_eq!(late.done.take(), [Did::Write(0), Did::Sync, Did::Write(0), Did::Sync]);
    assert_eq!(group.begin(&sidecar, &id, 2), Ok(2));

    for (frames, salts) in [(3, [1, 2]), (1, [3, 4])] {
        let id = id.restarted(salts);
        let later = Noted::opened_at(&id, 0);
        later.frames.set(frames);
        later.failing.set(1);
        group.wait(&sidecar, frames, &later, &counters).expect("it is no loss");
        let durable = if frames == 3 { 2 } else { 0 };
        assert_eq!(later.done.take(), [Did::Sync, Did::Write(durable), Did::Sync]);
        later.frames.set(frames + 1);
        later.failing.set(1);
        let fresh = group.wait(&sidecar, frames + 1, &later, &counters);
        assert_eq!(fresh, Err(NotDurable::Failed(ResultCode::IOERR)));
        group.repair(&sidecar, &later).expect("no sync fails");
    }
}

/// An older state of the database and its WAL was restored, with the same salts. The record counts
/// frames that do not exist. It is voided before another frame is written. A failure in it stays
/// noted.
#[test]
fn a_record_of_frames_that_are_not_there_is_voided() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let (group, counters) = (SharedSyncs::default(), Counters::default());
    let wal = Noted::opened_at(&id, 0);
    let record = || RecordFile::read(&sidecar).ok().and_then(|bytes| bytes.record(&id));
    for failing in [0, 1] {
        wal.frames.set(9);
        group.wait(&sidecar, 9, &wal, &counters).expect("it syncs");
        if failing > 0 {
            wal.failing.set(failing);
            wal.frames.set(10);
            group.wait(&sidecar, 10, &wal, &counters).expect_err("the sync fails");
        }
        wal.done.take();
        wal.frames.set(5);
        if failing == 0 {
            // Another process leads.
            let led = SharedSyncs::default();
            let other = sidecar::Sidecar::open(&directory.path().join("board.db"), false);
            let other = other.expect("it is there");
            let lead = led.try_lead(&other);
            assert_eq!(group.begin(&sidecar, &id, 5), Err(NotDurable::NotShared));
            drop(lead);
            assert_eq!(group.begin(&sidecar, &id, 5), Ok(0));
            assert_eq!(record().map(|record| record.durable), Some(0));
            wal.frames.set(6);
            group.wait(&sidecar, 6, &wal, &counters).expect("it syncs");
            assert_eq!(wal.done.take(), [Did::Sync]);
            assert_eq!(group.begin(&sidecar, &id, 6), Ok(0));
            assert_eq!(record().map(|record| record.durable), Some(6));
        } else {
            assert_eq!(group.begin(&sidecar, &id, 5), Err(NotDurable::AnotherFailed));
            group.repair(&sidecar, &wal).expect("it syncs");
            assert_eq!(wal.done.take(), [Did::Write(0), Did::Sync]);
            assert_eq!(record().map(|record| record.durable), Some(5));
        }
    }
}

/// A sync has failed, and another that was under way fails, too: the count of failures stays odd. It stays odd even
/// if the page was lost and another process, which knows of no failure, has made a new one.
#[test]
fn a_failure_stands_until_it_is_repaired() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let group = SharedSyncs::default();
    let wal = Noted::opened_at(&id, 0);
    wal.frames.set(7);
    for _ in 0..2 {
        group.note_failure(&sidecar, &wal);
        assert_eq!(group.failed(&sidecar, &id), Some(0));
        assert_eq!(SharedSyncs::default().failed(&sidecar, &id), Some(0), "every process knows");
    }
    let new = Record { id, durable: 3, failures: 0 };
    RecordFile::write(&sidecar, &new.encode(1)).expect("there is room");
    assert_eq!(group.begin(&sidecar, &id, 7), Err(NotDurable::AnotherFailed));
    // The failure says nothing about another WAL, for which the records of other processes count.
    let next = id.restarted([5, 6]);
    assert_eq!(group.begin(&sidecar, &next, 0), Ok(0));
    *group.failure.lock() = Some(Record { id, durable: 0, failures: 3 });
    let failed = Record { id: next, durable: 0, failures: 1 };
    RecordFile::write(&sidecar, &failed.encode(2)).expect("there is room");
    assert_eq!(group.begin(&sidecar, &next, 7), Err(NotDurable::AnotherFailed));
    RecordFile::write(&sidecar, &GroupBytes::default()).expect("there is room");

    group.note_failure(&sidecar, &wal);
    group.repair(&sidecar, &wal).expect("it syncs");
    assert_eq!(group.failed(&sidecar, &id), None);
}

/// A sidecar that cannot be read (the first flag) or written (the second) now.
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

/// A sync was repaired, and another one fails while the page cannot be read or written. The process remembers the
/// failure, and repairs it, with or without the page. Then no failure stands, even when the page can be used again,
/// unless the page itself has one.
#[test]
fn a_failure_is_known_and_repaired_without_the_page() {
    for (reads, writes) in [(true, false), (false, true), (true, true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let (well, id) = board(&directory);
        let page = Unwell(&well, Cell::new(false), Cell::new(false));
        let (group, counters) = (SharedSyncs::default(), Counters::default());
        let wal = Noted::opened_at(&id, 0);
        wal.frames.set(3);
        wal.failing.set(1);
        group.wait(&page, 3, &wal, &counters).expect_err("it fails");
        assert_eq!(group.repair(&page, &wal), Ok(true));
        wal.frames.set(4);
        // Without the page it might be the first error, reported late: so the file syncs once more.
        wal.failing.set(if reads { 2 } else { 1 });
        page.1.set(reads);
        page.2.set(writes);
        group.wait(&page, 4, &wal, &counters).expect_err("it fails");
        assert_eq!(group.begin(&page, &id, 4), Err(NotDurable::AnotherFailed));
        // The page can be used again, and is older than what this process knows.
        page.1.set(false);
        page.2.set(false);
        assert_eq!(group.begin(&page, &id, 4), Err(NotDurable::AnotherFailed));
        page.1.set(reads);
        page.2.set(writes);
        wal.done.take();
        wal.failing.set(1);
        assert_eq!(group.repair(&page, &wal), Ok(false), "the disk is well, the page is not");
        assert_eq!(wal.done.borrow().last(), Some(&Did::Sync));
        page.1.set(false);
        page.2.set(false);
        assert_eq!(group.repair(&page, &wal), Ok(true));
        assert!(group.begin(&page, &id, 4).is_ok());
    }
}

/// Frames that were durable before a sync failed are still durable, for every process, even if the page was lost.
#[test]
fn a_failure_takes_nothing_from_what_was_durable() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_sidecar, id) = board(&directory);
    let group = SharedSyncs::default();
    *group.failure.lock() = Some(Record { id, durable: 5, failures: 1 });
    let nothing = GroupBytes::default();
    assert_eq!(group.durable(&nothing, &id, 5), Ok(None));
    assert_eq!(group.durable(&nothing, &id, 6), Err(NotDurable::AnotherFailed));
    let record = Record { id, durable: 6, failures: 1 }.encode(1);
    assert_eq!(group.durable(&record, &id, 6), Ok(Some(Durable { frames: 6, committed: 6 })));
}

/// A process leads a sync while another one is about to repair a failure. The repair waits for it, but not for ever.
#[test]
fn a_repair_waits_for_a_leader_but_not_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sidecar, id) = board(&directory);
    let group = SharedSyncs::default();
    let wal = Noted::opened_at(&id, 0);
    group.note_failure(&sidecar, &wal);
    let other = sidecar::Sidecar::open(&directory.path().join("board.db"), false);
    let (other, leader) = (other.expect("it is there"), SharedSyncs::default());
    let lead = leader.try_lead(&other).expect("nobody leads");
    // All frames are durable then, but the page cannot say so.
    assert_eq!(group.repair(&sidecar, &wal), Ok(false));
    assert_eq!(wal.done.take(), [Did::Write(0), Did::Write(0), Did::Sync]);
    assert_eq!(group.failed(&sidecar, &id), Some(0));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(PATIENCE / 10);
            drop(lead);
        });
        group.repair(&sidecar, &wal).expect("it waits for the leader");
    });
    assert_eq!(group.failed(&sidecar, &id), None);
}

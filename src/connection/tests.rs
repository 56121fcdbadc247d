use super::claim::{CHECKPOINT_LASTS, Need, Reason};
use super::test_base::{ClearWalIndex, Lock, TestBase, Unlock, board};
use super::*;
use crate::ffi::{ShmFlags, ShmSlot, ShmSlots};
use crate::format::{WAL_SUFFIX, beside};
use crate::group_commit::test_wal::{TestWal, frames, salts};
use crate::guard::identity::Identity;
use crate::lock::wait::Cause;
use crate::options::Options;
use std::cell::{Cell, RefCell};
use std::fs;
use std::time::{Duration, Instant};

type TestConnection = Connection<&'static TestBase>;

/// What xShmLock is asked to lock for itself, and to unlock.
const LOCK: ShmFlags = ShmFlags::LOCK_EXCLUSIVE;
const UNLOCK: ShmFlags = ShmFlags::UNLOCK_EXCLUSIVE;

impl TestConnection {
    /// As xShmLock goes on.
    fn shm_lock(&mut self, slots: impl Into<ShmSlots>, flags: ShmFlags) -> ResultCode {
        let slots = slots.into();
        match (slots.first, flags) {
            (ShmSlot::WRITE, LOCK) => self.lock_write(slots),
            (ShmSlot::WRITE, UNLOCK) => self.unlock_write(slots),
            _ => self.shm_lock_other(slots, flags),
        }
    }
}

fn connection_over(directory: &tempfile::TempDir, base: &'static TestBase) -> TestConnection {
    let path = directory.path().join("board.db");
    std::fs::File::options().create(true).append(true).open(&path).expect("a directory");
    let host = Host::linked().expect("a linked SQLite");
    let settings = Settings::defaults_of(&Options::default());
    let known = Known { identity: None, no_wal: None, keeps_ahead: false };
    Connection::new(base, &path, settings, host, known, false)
}

/// A connection over a base of its own, which obliges.
fn connection(directory: &tempfile::TempDir) -> (TestConnection, &'static TestBase) {
    let base = TestBase::default().leak();
    (connection_over(directory, base), base)
}

/// Guards that look at the files of a connection's database.
fn guards_of(connection: &TestConnection) -> Guards<&'static TestBase> {
    let identity = Identity::of(connection.database().path(), false);
    let known = Known { identity, no_wal: None, keeps_ahead: false };
    Guards::new(connection.base, connection.database(), connection.log, known)
}

/// A connection to a board with a WAL, over that base.
fn connection_with_wal(
    base: &'static TestBase,
    options: &Options,
) -> (tempfile::TempDir, TestConnection) {
    let (place, database, guards) = board();
    let host = Host::linked().expect("a linked SQLite");
    let settings = Settings::defaults_of(options);
    let known = Known { identity: None, no_wal: None, keeps_ahead: false };
    let mut connection = Connection::new(base, database.path(), settings, host, known, false);
    connection.guards = guards;
    connection.guards.set_base(base);
    (place, connection)
}

/// A first connection comes a moment too late: it found the database empty, but has SHARED only
/// when another has switched it to WAL, where SHARED is kept until the connection closes.
#[test]
fn a_first_connection_does_not_keep_the_write_lock_in_wal_mode() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    assert!(connection.holds_write_lock());
    connection.shm_mapping();
    assert!(!connection.holds_write_lock());
}

/// Several reasons at once: the last to go gives the write lock back.
#[test]
fn the_write_lock_is_held_for_the_last_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    connection.lock(LockLevel::SHARED);
    connection.lock(LockLevel::RESERVED);
    connection.lock(LockLevel::EXCLUSIVE);
    connection.unlock(LockLevel::SHARED);
    assert!(connection.holds_write_lock(), "it is still the first connection's");
    connection.unlock(LockLevel::NONE);
    assert!(!connection.holds_write_lock());

    base.has_bytes(4096);
    let write_slot = |flags| (ShmSlot::WRITE, flags);
    let read_mark = (ShmSlot::read(1), ShmFlags::LOCK_SHARED);
    let ckpt_slot = (ShmSlot::CKPT, LOCK);
    let mut shm_lock = |(slot, flags)| {
        connection.shm_lock(slot, flags);
        connection.holds_write_lock()
    };
    assert!(!shm_lock(read_mark));
    assert!(shm_lock(ckpt_slot), "a checkpoint");
    assert!(shm_lock(write_slot(LOCK)));
    assert!(shm_lock(write_slot(UNLOCK)));
    assert!(!shm_lock((ShmSlot::CKPT, UNLOCK)));
}

/// Each connection that closes tries whether it is the last one, to clean up. Most are not, and
/// then nobody is to notice.
#[test]
fn a_connection_that_closes_is_in_no_writers_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = RefCell::new(connection(&directory).0);
    let somebody_writes = move || {
        let mut writer = writer.borrow_mut();
        for flags in [LOCK, UNLOCK] {
            assert_eq!(writer.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
        }
        ResultCode::BUSY
    };
    let base = TestBase::answering(somebody_writes);
    let mut closing = connection_over(&directory, base);
    closing.shm_mapping();
    assert_eq!(closing.lock(LockLevel::EXCLUSIVE), ResultCode::BUSY);
    assert!(!closing.holds_write_lock());
    // The writer must not outlive its file, whose inode number the next test's may get.
    base.on_lock.take();
}

/// A checkpoint has the write lock and does not come to its end. Writers go on beside it, as
/// on the stock VFS, each at once if it has lasted.
#[test]
fn a_checkpoint_holds_no_writer_up_for_long() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, base) = connection(&directory);
    let mut checkpointer = connection_over(&directory, base);
    base.has_bytes(4096);
    let write = |flags| (ShmSlot::WRITE, flags);
    let shm_lock = |connection: &mut TestConnection, (slot, flags)| {
        assert_eq!(connection.shm_lock(slot, flags), ResultCode::OK);
    };
    // Makes the sidecar.
    shm_lock(&mut writer, (ShmSlot::READ_0, ShmFlags::LOCK_SHARED));
    shm_lock(&mut writer, write(LOCK));
    assert!(writer.holds_write_lock());
    shm_lock(&mut writer, write(UNLOCK));

    shm_lock(&mut checkpointer, (ShmSlot::CKPT, LOCK));
    assert!(checkpointer.holds_write_lock());
    shm_lock(&mut writer, write(LOCK));
    assert!(!writer.holds_write_lock());
    shm_lock(&mut writer, write(UNLOCK));
    shm_lock(&mut checkpointer, (ShmSlot::CKPT, UNLOCK));
    shm_lock(&mut writer, write(LOCK));
    assert!(writer.holds_write_lock());

    // One whose busy handler sleeps does so until the checkpoint has lasted, and no longer.
    let mut sleeper = connection_over(&directory, base);
    shm_lock(&mut sleeper, (ShmSlot::READ_0, ShmFlags::LOCK_SHARED));
    base.begins.set(true);
    let attempt = |sleeper: &mut TestConnection| {
        let (slot, flags) = write(LOCK);
        sleeper.shm_lock(slot, flags)
    };
    assert_eq!(attempt(&mut sleeper), ResultCode::BUSY);
    crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
    shm_lock(&mut writer, write(UNLOCK));
    for flags in [LOCK, UNLOCK] {
        shm_lock(&mut sleeper, write(flags));
    }
    let began = Instant::now();
    shm_lock(&mut checkpointer, (ShmSlot::CKPT, LOCK));
    assert!(checkpointer.holds_write_lock());
    match attempt(&mut sleeper) {
        ResultCode::BUSY => {}
        // This machine stood still.
        _ => assert!(began.elapsed() >= CHECKPOINT_LASTS),
    }
    std::thread::sleep(CHECKPOINT_LASTS);
    // The second time it has not waited itself.
    for _ in 0..2 {
        assert_eq!(attempt(&mut sleeper), ResultCode::OK);
        assert!(!sleeper.holds_write_lock());
        shm_lock(&mut sleeper, write(UNLOCK));
    }
}

/// A reader keeps a snapshot, and everything before it is copied: each commit that finds the WAL long
/// tries a checkpoint, which can do nothing. It takes the write lock from nobody. When the reader
/// has gone, or has a later mark, it does its work under it. An SQLite that waits in its lock calls
/// does not wait for a look.
#[test]
fn a_checkpoint_that_can_copy_nothing_takes_no_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    // Makes the sidecar.
    connection.lock(LockLevel::RESERVED);
    connection.unlock(LockLevel::SHARED);
    let cases = [(None, true), (Some(0), false), (Some(1), true)];
    for ((reader, joins), ms) in cases.into_iter().flat_map(|case| [(case, 0), (case, 9)]) {
        base.reader.set(reader);
        base.may_block(ms);
        connection.may_block(ms);
        for flags in [LOCK, UNLOCK] {
            let (offset, flags) = (ShmSlot::CKPT, flags);
            assert_eq!(connection.shm_lock(offset, flags), ResultCode::OK);
            let holds = flags == LOCK && joins;
            assert_eq!(connection.holds_write_lock(), holds, "{reader:?}, {ms}");
        }
        assert_eq!(base.blocks_ms.get(), ms);
    }
}

/// The first READ slot that a connection asks for is refused, as a checkpointer has it, and it takes the
/// next: with that the guards look whether it reads what it should.
#[test]
fn a_refusal_does_not_put_the_guards_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    let flags = ShmFlags::LOCK_SHARED;
    for is_in_the_way in [true, true, false, false] {
        base.is_in_the_way.set(is_in_the_way);
        assert!(!connection.note_plain(ShmSlot::READ_0.into(), flags), "it is due");
        let expected = if is_in_the_way { ResultCode::BUSY } else { ResultCode::OK };
        assert_eq!(connection.shm_lock(ShmSlot::READ_0, flags), expected);
    }
    assert!(connection.note_plain(ShmSlot::READ_0.into(), flags), "it was done");
    assert!(connection.wal.has_snapshot);
    connection.shm_lock_failed(ShmSlot::READ_0, flags, ResultCode::BUSY);
    assert!(!connection.wal.has_snapshot);
}

/// A connection is closed with the lock in hand, or unmaps the wal-index.
#[test]
fn a_connection_that_ends_releases_the_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    connection.shm_lock(ShmSlot::WRITE, LOCK);
    assert!(connection.holds_write_lock());
    connection.shm_unmapped();
    assert!(!connection.holds_write_lock());
    connection.lock(LockLevel::RESERVED);
    connection.closed();
    assert!(!connection.holds_write_lock());
}

/// What WRITE is asked for decides what must be in order before, and what a refusal means.
#[test]
fn what_write_is_asked_for_depends_on_the_slots_that_are_held() {
    let need = |has_snapshot, has_ckpt, may_block| {
        WalSlots { has_snapshot, has_ckpt, is_mapped: true }.need_of_write(may_block)
    };
    assert_eq!(need(false, false, false), Need::Recovery);
    assert_eq!(need(true, false, false), Need::Write);
    assert_eq!(need(false, false, true), Need::Write);
    for (has_snapshot, may_block) in [(false, false), (true, false), (false, true)] {
        assert_eq!(need(has_snapshot, true, may_block), Need::FinishCheckpoint);
    }
}

/// A reader is refused SHARED by a writer that commits, and reads a moment later: it has waited, and given
/// nothing up.
#[test]
fn a_reader_that_has_waited_has_not_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let answers = Cell::new(0);
    let on_lock = move || {
        answers.set(answers.get() + 1);
        // It is tried for twice.
        if answers.get() <= 2 { ResultCode::BUSY } else { ResultCode::OK }
    };
    let base = TestBase::answering(on_lock);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::BUSY);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    connection.unlock(LockLevel::NONE);
    connection.closed();
    let counters = &connection.database().counters;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!([&counters.refused, &counters.waits, &counters.gave_up].map(counted), [1, 1, 0]);
}

/// A reader finds a hot journal, and another rolls it back meanwhile: it has waited for that, and waits for
/// nothing once it has read. One that finds it again waits on.
#[test]
fn a_reader_waits_for_whoever_rolls_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let answers = Cell::new(0);
    let on_lock = move || {
        answers.set(answers.get() + 1);
        // SHARED, and EXCLUSIVE in vain, twice.
        if answers.get() < 5 && answers.get() % 2 == 0 { ResultCode::BUSY } else { ResultCode::OK }
    };
    let base = TestBase::answering(on_lock);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    for _ in 0..2 {
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.lock(LockLevel::EXCLUSIVE), ResultCode::BUSY);
        connection.unlock(LockLevel::NONE);
        assert!(!connection.claim.wait.age().is_zero(), "it waits");
    }
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    connection.unlock(LockLevel::NONE);
    assert!(connection.claim.wait.age().is_zero());
    connection.closed();
    let counters = &connection.database().counters;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!([&counters.refused, &counters.waits, &counters.gave_up].map(counted), [2, 1, 0]);
}

/// WRITE is given back as soon as it is had, since the snapshot was stale, and the busy handler sleeps: that
/// is a wait for the write lock. After a transaction that did something it is none. (Under Wine no lock is
/// given back so soon.)
#[cfg(unix)]
#[test]
fn an_immediate_release_of_write_is_a_wait_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    // The sidecar stays open, so that the lock is soon had.
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    let waits_after = |held: Duration| {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        let mut shm_lock = |offset, flags| {
            assert_eq!(connection.shm_lock(offset, flags), ResultCode::OK);
        };
        shm_lock(ShmSlot::READ_0, ShmFlags::LOCK_SHARED);
        shm_lock(ShmSlot::WRITE, LOCK);
        std::thread::sleep(held);
        shm_lock(ShmSlot::WRITE, UNLOCK);
        crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
        connection.claim.wait.leave_queue().is_some()
    };
    assert!(!waits_after(Duration::from_millis(2)));
    // This thread may be held up once, or some times.
    assert!((0..100).any(|_| waits_after(Duration::ZERO)));
}

/// A checkpoint takes the write lock and gives it back: whether its connection may go on writing is decided
/// by how it has written, as before.
#[test]
fn a_checkpoint_leaves_the_pace_of_writes_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    connection.wal.has_snapshot = true;
    let mut held = Vec::new();
    let mut paces = Vec::new();
    for slot in [ShmSlot::WRITE, ShmSlot::CKPT] {
        for flags in [LOCK, UNLOCK] {
            assert_eq!(connection.shm_lock(slot, flags), ResultCode::OK);
            held.push(connection.holds_write_lock());
        }
        paces.push(format!("{:?}", connection.claim.pace()));
    }
    assert_eq!(held, [true, false, true, false]);
    assert_eq!(paces[0], paces[1]);
}

/// A transaction that is as short commits: its thread does not sleep for the write lock next, whether there
/// was more to do than to note the commit or not.
#[test]
fn a_connection_that_has_committed_does_not_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    for is_noted in [true, false] {
        for _ in 0..20 {
            let (mut connection, base) = connection(&directory);
            base.has_bytes(4096);
            if is_noted {
                connection.guards = guards_of(&connection);
            }
            let flags = LOCK;
            connection.wal.has_snapshot = true;
            assert_eq!(connection.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
            let flags = UNLOCK;
            assert_eq!(connection.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
            assert_eq!(connection.note_commit(), is_noted);
            if !is_noted {
                assert_eq!(connection.committed(), Ok(()));
            }
            crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
            assert_eq!(connection.claim.wait.leave_queue(), None);
        }
    }
}

/// A reader's slot is refused, or whether it was taken is not known, or it cannot be given back: then it is
/// left alone, or given back, or given back once more.
#[test]
fn a_slot_that_may_be_locked_is_unlocked() {
    let directory = tempfile::tempdir().expect("a directory");
    let slot = ShmSlot::read(1);
    for (lock, unlock) in [(ShmFlags::LOCK_SHARED, ShmFlags::UNLOCK_SHARED), (LOCK, UNLOCK)] {
        let unlocked = (ShmSlots::from(slot), unlock);
        for (flags, rc, answer, calls) in [
            (lock, ResultCode::BUSY, ResultCode::BUSY, &[][..]),
            (lock, ResultCode::BUSY.extended(1), ResultCode::BUSY.extended(1), &[]),
            (lock, ResultCode::IOERR_LOCK, ResultCode::IOERR_LOCK, &[unlocked]),
            (unlock, ResultCode::IOERR_LOCK, ResultCode::OK, &[unlocked]),
        ] {
            let (mut connection, base) = connection(&directory);
            connection.wal.has_snapshot = true;
            assert_eq!(connection.shm_lock_failed(slot, flags, rc), answer);
            assert_eq!(connection.wal.has_snapshot, !lock.is_shared());
            assert_eq!(*base.slots.borrow(), calls, "{flags:?}, {rc:?}");
        }
        // Also those that are taken for itself: a refusal of a checkpoint's, and an error.
        for (rc, gives_back) in [(ResultCode::BUSY, false), (ResultCode::IOERR_LOCK, true)] {
            let (mut connection, base) = connection(&directory);
            base.slot_answer.set(rc);
            let flags = LOCK;
            assert_eq!(connection.shm_lock(ShmSlot::CKPT, flags), rc);
            let unlock = (ShmSlots::from(ShmSlot::CKPT), UNLOCK);
            assert_eq!(base.slots.borrow().contains(&unlock), gives_back);
            assert!(!connection.wal.has_ckpt);
        }
    }
}

/// A writer begins the WAL anew under the CKPT slot, and gives that back with the readers' slots. A
/// checkpoint takes the readers' slots, too, and has CKPT: it keeps it.
#[test]
fn a_restart_unlocks_the_checkpoint_slot_that_it_locked() {
    let directory = tempfile::tempdir().expect("a directory");
    for own in [ShmSlot::WRITE, ShmSlot::CKPT] {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        let mut shm_lock = |slots, flags| {
            assert_eq!(connection.shm_lock(slots, flags), ResultCode::OK);
        };
        shm_lock(ShmSlots::from(own), LOCK);
        base.slots.take();
        let (all, ckpt) = (ShmSlots::WAL_READERS, ShmSlots::from(ShmSlot::CKPT));
        for flags in [LOCK, UNLOCK, UNLOCK] {
            shm_lock(all, flags);
        }
        let slots = base.slots.take();
        let readers = [(all, LOCK), (all, UNLOCK), (all, UNLOCK)];
        let with_ckpt = [(ckpt, LOCK), readers[0], readers[1], (ckpt, UNLOCK), readers[2]];
        let expected: &[_] = if own == ShmSlot::WRITE { &with_ckpt } else { &readers };
        assert_eq!(slots, expected);
        connection.closed();
    }
}

/// The last connection that closes has the database for itself, and the write lock for others to see.
#[test]
fn the_last_connection_cleans_up_under_the_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut closing, base) = connection(&directory);
    base.has_bytes(4096);
    // Makes the sidecar.
    closing.lock(LockLevel::RESERVED);
    closing.unlock(LockLevel::NONE);
    closing.shm_mapping();
    assert_eq!(closing.lock(LockLevel::EXCLUSIVE), ResultCode::OK);
    assert!(closing.holds_write_lock() && closing.closing == Closing::CopiesAll);
    closing.unlock(LockLevel::NONE);
    assert!(!closing.holds_write_lock() && closing.closing != Closing::CopiesAll);
}

/// An error of the base's is not taken for a lock that is held.
#[test]
fn an_error_of_the_base_file_is_returned_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = TestBase::answering(|| ResultCode::IOERR_LOCK);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    for level in [LockLevel::SHARED, LockLevel::RESERVED, LockLevel::EXCLUSIVE] {
        assert_eq!(connection.lock(level), ResultCode::IOERR_LOCK, "{level:?}");
        assert!(!connection.holds_write_lock());
    }
}

/// After a hot journal SQLite begins from the beginning, so that nothing is kept for it. Everything else is
/// looked for: WRITE and RESERVED also by one that has unlocked meanwhile.
#[test]
fn a_sleeper_looks_for_the_lock_that_was_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    let mut cause = |level, lock| {
        connection.lock.level = level;
        match connection.claim.cause(&connection.request(Reason::Rollback, Need::Write, lock)) {
            Cause::SqliteLock { probe, until_unlock } => (probe.is_some(), until_unlock),
            Cause::WriteLock => panic!("it is SQLite's own"),
        }
    };
    let exclusive = Sought::Database(LockLevel::EXCLUSIVE);
    assert_eq!(cause(LockLevel::SHARED, exclusive), (false, true));
    assert_eq!(cause(LockLevel::RESERVED, exclusive), (true, true));
    assert_eq!(cause(LockLevel::NONE, Sought::Database(LockLevel::SHARED)), (true, true));
    assert_eq!(cause(LockLevel::SHARED, Sought::Database(LockLevel::RESERVED)), (true, false));
    assert_eq!(cause(LockLevel::SHARED, Sought::Write), (true, false));
}

/// A board has a second name: nobody writes to it, and nobody checkpoints. Who only reads takes a reader's
/// slot for itself, too, to set its mark.
#[test]
fn a_board_with_two_names_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    let path = connection.database().path().to_owned();
    std::fs::hard_link(&path, directory.path().join("second.db")).expect("a link");
    connection.guards = guards_of(&connection);
    base.has_bytes(4096);
    let flags = LOCK;
    assert_eq!(connection.shm_lock(ShmSlot::read(1), flags), ResultCode::OK);
    assert_eq!(connection.shm_lock(ShmSlot::CKPT, flags), ResultCode::READONLY);
    connection.wal.has_snapshot = true;
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, flags), ResultCode::READONLY);
    assert!(!connection.holds_write_lock());
}

/// A sync of group commit has failed. Whoever checkpoints makes up for that first, while nobody writes; if
/// that fails, too, there is no checkpoint, and no slot is kept.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_repairs_a_failed_sync_or_does_not_happen() {
    // All is copied already, so that it takes no write lock.
    let base = TestBase::of_wal(&[(3, 3)], &[salts()]).leak();
    let options = Options::default().with_group_commit(true);
    let (_place, mut connection) = connection_with_wal(base, &options);
    let database = Arc::clone(connection.database());
    database.make_sidecar();
    let wal = TestWal::new(frames(0x377f_0682, 512, 3));
    connection.shm_mapping();
    connection.group.wal_opened(Some(wal));
    wal.seen(|memory| memory.failing = 1);
    let inode = connection.guards.files.wal();
    let failed = connection.group.drain(&database, inode, |_| false);
    assert_eq!(failed, Err(ResultCode::IOERR_FSYNC));
    let lock = LOCK;
    for failing in [2, 0] {
        base.calls.take();
        wal.seen(|memory| memory.failing = failing);
        let rc = connection.shm_lock(ShmSlot::CKPT, lock);
        let mended = [
            Lock(ShmSlot::CKPT.into()),
            Lock(ShmSlot::WRITE.into()),
            Unlock(ShmSlot::WRITE.into()),
        ];
        assert_eq!(base.calls.borrow()[..3], mended);
        if failing > 0 {
            assert_eq!(rc, ResultCode::IOERR_FSYNC);
            assert_eq!(base.calls.borrow()[3..], [Unlock(ShmSlot::CKPT.into())]);
        } else {
            assert_eq!(rc, ResultCode::OK);
            assert!(!base.calls.borrow().contains(&Unlock(ShmSlot::CKPT.into())));
        }
        assert_eq!(connection.wal.has_ckpt, failing == 0);
        let has_failed = connection.group.has_failed(&database, inode);
        assert_eq!(has_failed, failing > 0);
    }
}

/// A file is about to be closed: from then on, no thread that sleeps for it looks at its locks.
#[test]
fn no_thread_probes_a_file_that_closes() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = TestBase::answering(|| ResultCode::BUSY);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::BUSY);
    assert!(connection.claim.wait.has_probe() && connection.claim.wait.pause_probe().is_some());
    connection.ending();
    assert!(!connection.claim.wait.has_probe());
}

/// A reader finds that the WAL is not the one that the wal-index speaks of: it gives its slot back. A
/// checkpointer finds that the WAL has begun anew since it began: the same.
#[test]
#[cfg(unix)]
fn a_connection_that_may_not_go_on_keeps_no_slot() {
    let base = TestBase::of_wal(&[(5, 0)], &[[1, 2]]).leak();
    let (_place, mut reader) = connection_with_wal(base, &Options::default());
    let slot = ShmSlot::read(1);
    let rc = reader.shm_lock(slot, ShmFlags::LOCK_SHARED);
    assert_eq!(rc, ResultCode::READONLY_DBMOVED);
    assert_eq!(*base.calls.borrow(), [Lock(slot.into()), Unlock(slot.into())]);
    assert!(!reader.wal.has_snapshot);

    for (salts, answer) in [(&[[1, 2]][..], ResultCode::OK), (&[[1, 2], [3, 4]], ResultCode::BUSY)]
    {
        // All is copied already, so that it takes no write lock.
        let base = TestBase::of_wal(&[(5, 5)], salts).leak();
        let (_place, mut checkpointer) = connection_with_wal(base, &Options::default());
        let lock = LOCK;
        assert_eq!(checkpointer.shm_lock(ShmSlot::CKPT, lock), ResultCode::OK);
        // It looks whether there is a reader, in between.
        for flags in [lock, UNLOCK] {
            assert_eq!(checkpointer.shm_lock(slot, flags), ResultCode::OK);
        }
        assert_eq!(checkpointer.shm_lock(ShmSlot::READ_0, lock), answer);
        let gives_back = base.calls.borrow().contains(&Unlock(ShmSlot::READ_0.into()));
        assert_eq!(gives_back, answer == ResultCode::BUSY);
    }
}

/// A checkpoint makes durable what is not before it copies: if that fails, it is none, and keeps nothing.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_whose_sync_fails_does_not_happen() {
    let base = TestBase::of_wal(&[(3, 0)], &[salts()]).leak();
    let options = Options::default().with_group_commit(true);
    let (_place, mut connection) = connection_with_wal(base, &options);
    connection.database().make_sidecar();
    let wal = TestWal::new(frames(0x377f_0682, 512, 3));
    connection.shm_mapping();
    connection.group.wal_opened(Some(wal));
    wal.seen(|memory| memory.failing = 9);
    let lock = LOCK;
    let rc = connection.shm_lock(ShmSlot::CKPT, lock);
    assert_eq!(rc, ResultCode::IOERR_FSYNC);
    assert_eq!(*base.calls.borrow(), [Lock(ShmSlot::CKPT.into()), Unlock(ShmSlot::CKPT.into())]);
    assert!(!connection.wal.has_ckpt && !connection.holds_write_lock());
}

/// `PRAGMA journal_mode=wal` is about to run on a database with content: SHARED comes with the write lock,
/// as for a first connection, so that of many that change it nobody is refused at once. A reader's does not.
#[test]
fn a_change_of_journal_mode_takes_the_write_lock_first() {
    let directory = tempfile::tempdir().expect("a directory");
    for is_expected in [false, true] {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        if is_expected {
            connection.expect_mode_change();
        }
        // It is compiled, and runs, and is refused, and reset, and runs again; another one runs instead;
        // it is finalized.
        let states = [Some(false), Some(true), Some(false), Some(true), Some(false), None];
        for state in states.into_iter().chain([Some(true)]) {
            base.doing.set(Some(Doing { changes_mode: state, ..Doing::default() }));
            assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
            let runs = is_expected
                && connection.first_connect.expects_mode_change()
                && state == Some(true);
            assert_eq!(connection.holds_write_lock(), runs, "{state:?}");
            assert_eq!(connection.unlock(LockLevel::NONE), ResultCode::OK);
            assert!(!connection.holds_write_lock(), "{state:?}");
        }
        assert!(!connection.first_connect.expects_mode_change(), "what was finalized does not run");
    }
}

/// A database is empty still. What may be the beginning of its first write comes with the write lock; who only
/// reads, and who compiles a statement, does not take it, and is in nobody's way.
#[test]
fn a_reader_of_an_empty_database_is_no_first_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let nothing = Doing::default();
    for (doing, is_first) in [
        (None, true),
        (Some(nothing), false),
        (Some(Doing { runs: true, ..nothing }), false),
        (Some(Doing { is_in_transaction: true, ..nothing }), false),
        (Some(Doing { runs: true, is_in_transaction: true, ..nothing }), true),
        (Some(Doing { runs: true, writes: true, ..nothing }), true),
        (Some(Doing { runs: true, writes: true, compiles: true, ..nothing }), false),
    ] {
        let (mut connection, base) = connection(&directory);
        base.doing.set(doing);
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.holds_write_lock(), is_first, "{doing:?}");
    }
}

/// A READ slot is given back while somebody may look for the connection: its snapshot has ended, and is
/// not taken for one of an upgrade. Another slot is no snapshot's.
#[test]
fn a_snapshot_ends_with_its_slot() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    let shared = ShmFlags::UNLOCK_SHARED;
    for (slot, has_snapshot) in
        [(ShmSlot::CKPT, true), (ShmSlot::READ_0, false), (ShmSlot::read(4), false)]
    {
        connection.wal.has_snapshot = true;
        assert_eq!(connection.shm_lock(slot, shared), ResultCode::OK);
        assert_eq!(connection.wal.has_snapshot, has_snapshot, "{slot:?}");
    }
}

/// The base fails to lock, and nobody knows whether it has: the lock is given back, and the write lock.
#[test]
fn a_lock_that_may_be_held_is_unlocked() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = TestBase::answering(|| ResultCode::IOERR_LOCK);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(LockLevel::RESERVED), ResultCode::IOERR_LOCK);
    assert_eq!(base.unlocked.take(), [LockLevel::NONE]);
    assert!(!connection.holds_write_lock());

    base.slot_answer.set(ResultCode::IOERR_LOCK);
    connection.wal.has_snapshot = true;
    let lock = LOCK;
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, lock), ResultCode::IOERR_LOCK);
    let unlock = UNLOCK;
    assert_eq!(base.slots.take(), [lock, unlock].map(|flags| (ShmSlot::WRITE.into(), flags)));
    assert!(!connection.holds_write_lock());
}

/// The last connection keeps the WAL, and empties it: not if anything of it is not copied, nor if anybody
/// has a slot, nor if it is another file by now.
#[test]
fn a_wal_that_is_kept_is_emptied_only_if_nobody_needs_it() {
    let all = (Lock(ShmSlots::ALL), Unlock(ShmSlots::ALL));
    let busy = Some((ShmSlot::WRITE, ResultCode::BUSY));
    for (frames, refuses, is_replaced, calls, is_emptied) in [
        ((5, 5), None, false, &[all.0, ClearWalIndex, all.1][..], true),
        ((5, 4), None, false, &[], false),
        ((4, 5), None, false, &[], false),
        ((5, 5), busy, false, &[all.0], false),
        ((5, 5), None, true, &[all.0, all.1], false),
    ] {
        let base = TestBase { refuses, ..TestBase::of_wal(&[frames], &[[1, 2]]) }.leak();
        let (place, connection) = connection_with_wal(base, &Options::default());
        let wal = beside(connection.database().path(), WAL_SUFFIX);
        if is_replaced {
            let other = place.path().join("other");
            fs::write(&other, "something").expect("a file");
            fs::rename(&other, &wal).expect("it is replaced");
        }
        connection.empty_wal();
        assert_eq!(*base.calls.borrow(), calls, "{frames:?}, {is_replaced}");
        let length = fs::metadata(&wal).expect("it is there").len();
        assert_eq!(length == 0, is_emptied, "{frames:?}, {is_replaced}");
    }
}

use super::test_base::{Lock, TestBase, Unlock, board};
use super::*;
use crate::group_commit::test_wal::{TestWal, frames, salts};
use crate::options::Options;
use std::cell::{Cell, RefCell};

type TestConnection = Connection<&'static TestBase>;

impl TestConnection {
    /// As xShmLock goes on.
    fn shm_lock(&mut self, offset: c_int, n: c_int, flags: c_int) -> Rc {
        match (offset, flags & (SQLITE_SHM_SHARED | SQLITE_SHM_LOCK)) {
            (WAL_WRITE_LOCK, SQLITE_SHM_LOCK) => self.take_write(n, flags),
            (WAL_WRITE_LOCK, 0) => self.give_write_back(n, flags),
            _ => self.shm_lock_other(offset, n, flags),
        }
    }
}

fn connection_over(directory: &tempfile::TempDir, base: &'static TestBase) -> TestConnection {
    let path = directory.path().join("board.db");
    std::fs::File::options().create(true).append(true).open(&path).expect("a directory");
    let host = Host::linked().expect("a linked SQLite");
    let settings = Settings::defaults_of(&Options::default());
    let guards = Guards::new(base, host, None, None);
    Connection::new(base, &path, settings, host, guards, false)
}

/// A connection over a base of its own, which obliges.
fn connection(directory: &tempfile::TempDir) -> (TestConnection, &'static TestBase) {
    let base = TestBase::default().leak();
    (connection_over(directory, base), base)
}

/// A connection to a board with a WAL, over that base.
fn connection_with_wal(
    base: &'static TestBase,
    options: &Options,
) -> (tempfile::TempDir, TestConnection) {
    let (place, database, mut guards) = board();
    guards.base = base;
    let host = Host::linked().expect("a linked SQLite");
    let settings = Settings::defaults_of(options);
    (place, Connection::new(base, database.path(), settings, host, guards, false))
}

/// A first connection comes a moment too late: it found the database empty, but has SHARED only
/// when another has switched it to WAL, where SHARED is kept until the connection closes.
#[test]
fn a_first_connection_does_not_keep_the_write_lock_in_wal_mode() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_OK);
    assert!(connection.holds_write_lock());
    connection.shm_mapping();
    assert!(!connection.holds_write_lock());
}

/// Several reasons at once: the last to go gives the write lock back.
#[test]
fn the_write_lock_is_held_for_the_last_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    connection.lock(SQLITE_LOCK_SHARED);
    connection.lock(SQLITE_LOCK_RESERVED);
    connection.lock(SQLITE_LOCK_EXCLUSIVE);
    connection.unlock(SQLITE_LOCK_SHARED);
    assert!(connection.holds_write_lock(), "it is still the first connection's");
    connection.unlock(SQLITE_LOCK_NONE);
    assert!(!connection.holds_write_lock());

    base.has_bytes(4096);
    let write_slot = |flags| (WAL_WRITE_LOCK, 1, flags);
    let read_mark = (WAL_READ_LOCK + 1, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
    let ckpt_slot = (WAL_CKPT_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    let mut shm_lock = |(offset, n, flags)| {
        connection.shm_lock(offset, n, flags);
        connection.holds_write_lock()
    };
    assert!(!shm_lock(read_mark));
    assert!(shm_lock(ckpt_slot), "a checkpoint");
    assert!(shm_lock(write_slot(SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)));
    assert!(shm_lock(write_slot(SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)));
    assert!(!shm_lock((WAL_CKPT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)));
}

/// Each connection that closes tries whether it is the last one, to clean up. Most are not, and
/// then nobody is to notice.
#[test]
fn a_connection_that_closes_is_in_no_writers_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = RefCell::new(connection(&directory).0);
    let somebody_writes = move || {
        let mut writer = writer.borrow_mut();
        for flags in [SQLITE_SHM_LOCK, SQLITE_SHM_UNLOCK] {
            let flags = flags | SQLITE_SHM_EXCLUSIVE;
            assert_eq!(writer.shm_lock(WAL_WRITE_LOCK, 1, flags), SQLITE_OK);
        }
        SQLITE_BUSY
    };
    let base = TestBase { on_lock: Some(Box::new(somebody_writes)), ..TestBase::default() };
    let mut closing = connection_over(&directory, base.leak());
    closing.shm_mapping();
    assert_eq!(closing.lock(SQLITE_LOCK_EXCLUSIVE), SQLITE_BUSY);
    assert!(!closing.holds_write_lock());
}

/// A checkpoint has the write lock and does not come to its end. Writers go on beside it, as
/// on the stock VFS, each at once if it has lasted.
#[test]
fn a_checkpoint_holds_no_writer_up_for_long() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, base) = connection(&directory);
    let mut checkpointer = connection_over(&directory, base);
    base.has_bytes(4096);
    let exclusively = |flags| flags | SQLITE_SHM_EXCLUSIVE;
    let write = |flags| (WAL_WRITE_LOCK, 1, exclusively(flags));
    let shm_lock = |connection: &mut TestConnection, (offset, n, flags)| {
        assert_eq!(connection.shm_lock(offset, n, flags), SQLITE_OK);
    };
    // Makes the sidecar.
    shm_lock(&mut writer, (WAL_READ_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED));
    shm_lock(&mut writer, write(SQLITE_SHM_LOCK));
    assert!(writer.holds_write_lock());
    shm_lock(&mut writer, write(SQLITE_SHM_UNLOCK));

    shm_lock(&mut checkpointer, (WAL_CKPT_LOCK, 1, exclusively(SQLITE_SHM_LOCK)));
    assert!(checkpointer.holds_write_lock());
    shm_lock(&mut writer, write(SQLITE_SHM_LOCK));
    assert!(!writer.holds_write_lock());
    shm_lock(&mut writer, write(SQLITE_SHM_UNLOCK));
    shm_lock(&mut checkpointer, (WAL_CKPT_LOCK, 1, exclusively(SQLITE_SHM_UNLOCK)));
    shm_lock(&mut writer, write(SQLITE_SHM_LOCK));
    assert!(writer.holds_write_lock());

    // One whose busy handler sleeps does so until the checkpoint has lasted, and no longer.
    let mut sleeper = connection_over(&directory, base);
    shm_lock(&mut sleeper, (WAL_READ_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED));
    base.begins.set(true);
    let attempt = |sleeper: &mut TestConnection| {
        let (offset, n, flags) = write(SQLITE_SHM_LOCK);
        sleeper.shm_lock(offset, n, flags)
    };
    assert_eq!(attempt(&mut sleeper), SQLITE_BUSY);
    crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
    shm_lock(&mut writer, write(SQLITE_SHM_UNLOCK));
    for flags in [SQLITE_SHM_LOCK, SQLITE_SHM_UNLOCK] {
        shm_lock(&mut sleeper, write(flags));
    }
    let began = Instant::now();
    shm_lock(&mut checkpointer, (WAL_CKPT_LOCK, 1, exclusively(SQLITE_SHM_LOCK)));
    assert!(checkpointer.holds_write_lock());
    match attempt(&mut sleeper) {
        SQLITE_BUSY => {}
        // This machine stood still.
        _ => assert!(began.elapsed() >= CHECKPOINT_LASTS),
    }
    std::thread::sleep(CHECKPOINT_LASTS);
    // The second time it has not waited itself.
    for _ in 0..2 {
        assert_eq!(attempt(&mut sleeper), SQLITE_OK);
        assert!(!sleeper.holds_write_lock());
        shm_lock(&mut sleeper, write(SQLITE_SHM_UNLOCK));
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
    connection.lock(SQLITE_LOCK_RESERVED);
    connection.unlock(SQLITE_LOCK_SHARED);
    let cases = [(None, true), (Some(0), false), (Some(1), true)];
    for ((reader, joins), ms) in cases.into_iter().flat_map(|case| [(case, 0), (case, 9)]) {
        base.reader.set(reader);
        base.may_block(ms);
        connection.may_block(ms);
        for flags in [SQLITE_SHM_LOCK, SQLITE_SHM_UNLOCK] {
            let (offset, flags) = (WAL_CKPT_LOCK, flags | SQLITE_SHM_EXCLUSIVE);
            assert_eq!(connection.shm_lock(offset, 1, flags), SQLITE_OK);
            let holds = flags & SQLITE_SHM_LOCK != 0 && joins;
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
    let flags = SQLITE_SHM_LOCK | SQLITE_SHM_SHARED;
    for is_in_the_way in [true, true, false, false] {
        base.is_in_the_way.set(is_in_the_way);
        assert!(!connection.note_plain(WAL_READ_LOCK, 1, flags), "it is due");
        let expected = if is_in_the_way { SQLITE_BUSY } else { SQLITE_OK };
        assert_eq!(connection.shm_lock(WAL_READ_LOCK, 1, flags), expected);
    }
    assert!(connection.note_plain(WAL_READ_LOCK, 1, flags), "it was done");
    assert!(connection.has_snapshot);
    connection.shm_lock_failed(WAL_READ_LOCK, flags, SQLITE_BUSY);
    assert!(!connection.has_snapshot);
}

/// A connection is closed with the lock in hand, or unmaps the wal-index.
#[test]
fn what_ends_gives_it_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    connection.shm_lock(WAL_WRITE_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    assert!(connection.holds_write_lock());
    connection.shm_unmapped();
    assert!(!connection.holds_write_lock());
    connection.lock(SQLITE_LOCK_RESERVED);
    connection.closed();
    assert!(!connection.holds_write_lock());
}

/// What the write lock is wanted for decides what must be in order before, and what a refusal means.
#[test]
fn what_is_needed_depends_on_who_asks() {
    let directory = tempfile::tempdir().expect("a directory");
    let need_of = |reason, change: fn(&mut TestConnection)| {
        let (mut connection, _) = connection(&directory);
        change(&mut connection);
        connection.need_of(reason)
    };
    let nothing: fn(&mut TestConnection) = |_| {};
    assert_eq!(need_of(Reason::Wal, nothing), Need::Upkeep, "recovery");
    assert_eq!(need_of(Reason::Wal, |it| it.has_snapshot = true), Need::Write);
    assert_eq!(need_of(Reason::Wal, |it| it.is_checkpointing = true), Need::Write);
    assert_eq!(need_of(Reason::Wal, |it| it.blocks_ms = 1), Need::Write);
    assert_eq!(need_of(Reason::Rollback, nothing), Need::Write);
    assert_eq!(need_of(Reason::Rollback, |it| it.read_only = true), Need::Upkeep);
    assert_eq!(need_of(Reason::FirstConnect, nothing), Need::FirstConnect);
    assert_eq!(need_of(Reason::Checkpoint, nothing), Need::Upkeep);
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
        if answers.get() <= 2 { SQLITE_BUSY } else { SQLITE_OK }
    };
    let base = TestBase { on_lock: Some(Box::new(on_lock)), ..TestBase::default() }.leak();
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_BUSY);
    assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_OK);
    connection.unlock(SQLITE_LOCK_NONE);
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
        if answers.get() < 5 && answers.get() % 2 == 0 { SQLITE_BUSY } else { SQLITE_OK }
    };
    let base = TestBase { on_lock: Some(Box::new(on_lock)), ..TestBase::default() }.leak();
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    for _ in 0..2 {
        assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_OK);
        assert_eq!(connection.lock(SQLITE_LOCK_EXCLUSIVE), SQLITE_BUSY);
        connection.unlock(SQLITE_LOCK_NONE);
        assert!(!connection.wait.age().is_zero(), "it waits");
    }
    assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_OK);
    connection.unlock(SQLITE_LOCK_NONE);
    assert!(connection.wait.age().is_zero());
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
fn who_gives_write_back_at_once_waits_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    // The sidecar stays open, so that the lock is soon had.
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    let waits_after = |held: Duration| {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        let mut shm_lock = |offset, flags| {
            assert_eq!(connection.shm_lock(offset, 1, flags), SQLITE_OK);
        };
        shm_lock(WAL_READ_LOCK, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
        shm_lock(WAL_WRITE_LOCK, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
        std::thread::sleep(held);
        shm_lock(WAL_WRITE_LOCK, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
        crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
        connection.wait.leave_queue().is_some()
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
    connection.has_snapshot = true;
    let mut held = Vec::new();
    let mut paces = Vec::new();
    for slot in [WAL_WRITE_LOCK, WAL_CKPT_LOCK] {
        for flags in [SQLITE_SHM_LOCK, SQLITE_SHM_UNLOCK] {
            let flags = flags | SQLITE_SHM_EXCLUSIVE;
            assert_eq!(connection.shm_lock(slot, 1, flags), SQLITE_OK);
            held.push(connection.holds_write_lock());
        }
        paces.push(format!("{:?}", connection.write_lock.pace()));
    }
    assert_eq!(held, [true, false, true, false]);
    assert_eq!(paces[0], paces[1]);
}

/// A transaction that is as short commits: its thread does not sleep for the write lock next, whether there
/// was more to do than to note the commit or not.
#[test]
fn who_has_committed_does_not_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    for is_noted in [true, false] {
        for _ in 0..20 {
            let (mut connection, base) = connection(&directory);
            base.has_bytes(4096);
            if is_noted {
                let path = connection.database().path().to_owned();
                let host = Host::linked().expect("a linked SQLite");
                connection.guards = Guards::new(base, host, Identity::of(&path, false), None);
            }
            let flags = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
            connection.has_snapshot = true;
            assert_eq!(connection.shm_lock(WAL_WRITE_LOCK, 1, flags), SQLITE_OK);
            let flags = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
            assert_eq!(connection.shm_lock(WAL_WRITE_LOCK, 1, flags), SQLITE_OK);
            assert_eq!(connection.note_commit(), is_noted);
            if !is_noted {
                assert_eq!(connection.committed(), Ok(()));
            }
            crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
            assert_eq!(connection.wait.leave_queue(), None);
        }
    }
}

/// A reader's slot is refused, or whether it was taken is not known, or it can not be given back: then it is
/// left alone, or given back, or given back once more.
#[test]
fn a_slot_that_was_perhaps_taken_is_given_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let slot = WAL_READ_LOCK + 1;
    for kind in [SQLITE_SHM_SHARED, SQLITE_SHM_EXCLUSIVE] {
        let unlock = (slot, 1, SQLITE_SHM_UNLOCK | kind);
        for (flags, rc, answer, calls) in [
            (SQLITE_SHM_LOCK, SQLITE_BUSY, SQLITE_BUSY, &[][..]),
            (SQLITE_SHM_LOCK, SQLITE_BUSY | 1 << 8, SQLITE_BUSY | 1 << 8, &[]),
            (SQLITE_SHM_LOCK, SQLITE_IOERR_LOCK, SQLITE_IOERR_LOCK, &[unlock]),
            (SQLITE_SHM_UNLOCK, SQLITE_IOERR_LOCK, SQLITE_OK, &[unlock]),
        ] {
            let (mut connection, base) = connection(&directory);
            connection.has_snapshot = true;
            assert_eq!(connection.shm_lock_failed(slot, flags | kind, rc), answer);
            assert_eq!(connection.has_snapshot, kind == SQLITE_SHM_EXCLUSIVE);
            assert_eq!(*base.slots.borrow(), calls, "{flags}, {rc}");
        }
        // Also those that are taken for itself: a refusal of a checkpoint's, and an error.
        for (rc, gives_back) in [(SQLITE_BUSY, false), (SQLITE_IOERR_LOCK, true)] {
            let (mut connection, base) = connection(&directory);
            base.slot_answer.set(rc);
            let flags = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
            assert_eq!(connection.shm_lock(WAL_CKPT_LOCK, 1, flags), rc);
            let unlock = (WAL_CKPT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
            assert_eq!(base.slots.borrow().contains(&unlock), gives_back);
            assert!(!connection.is_checkpointing);
        }
    }
}

/// A writer begins the WAL anew under the CKPT slot, and gives that back with the readers' slots. A
/// checkpoint takes the readers' slots, too, and has CKPT: it keeps it.
#[test]
fn who_begins_the_wal_anew_gives_the_checkpoints_slot_back() {
    let directory = tempfile::tempdir().expect("a directory");
    for own in [WAL_WRITE_LOCK, WAL_CKPT_LOCK] {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        let mut shm_lock = |offset, n, flags| {
            assert_eq!(connection.shm_lock(offset, n, flags | SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
        };
        shm_lock(own, 1, SQLITE_SHM_LOCK);
        base.slots.take();
        let (first, n) = (WAL_READ_LOCK + 1, WAL_READERS - 1);
        shm_lock(first, n, SQLITE_SHM_LOCK);
        shm_lock(first, n, SQLITE_SHM_UNLOCK);
        shm_lock(first, n, SQLITE_SHM_UNLOCK);
        let slots: Vec<_> =
            base.slots.take().iter().map(|(slot, _, flags)| (*slot, flags & 3)).collect();
        let (taken, given) = (SQLITE_SHM_LOCK, SQLITE_SHM_UNLOCK);
        let readers = [(first, taken), (first, given), (first, given)];
        let with_ckpt =
            [(WAL_CKPT_LOCK, taken), readers[0], readers[1], (WAL_CKPT_LOCK, given), readers[2]];
        let expected: &[_] = if own == WAL_WRITE_LOCK { &with_ckpt } else { &readers };
        assert_eq!(slots, expected);
        connection.closed();
    }
}

/// The last connection that closes has the database for itself, and the write lock for others to see.
#[test]
fn who_cleans_up_has_the_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut closing, base) = connection(&directory);
    base.has_bytes(4096);
    // Makes the sidecar.
    closing.lock(SQLITE_LOCK_RESERVED);
    closing.unlock(SQLITE_LOCK_NONE);
    closing.shm_mapping();
    assert_eq!(closing.lock(SQLITE_LOCK_EXCLUSIVE), SQLITE_OK);
    assert!(closing.holds_write_lock() && closing.is_cleaning_up);
    closing.unlock(SQLITE_LOCK_NONE);
    assert!(!closing.holds_write_lock() && !closing.is_cleaning_up);
}

/// An error of the base's is not taken for a lock that is held.
#[test]
fn an_error_is_told_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let base =
        TestBase { on_lock: Some(Box::new(|| SQLITE_IOERR_LOCK)), ..TestBase::default() }.leak();
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    for level in [SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE] {
        assert_eq!(connection.lock(level), SQLITE_IOERR_LOCK, "{level}");
        assert!(!connection.holds_write_lock());
    }
}

/// After a hot journal SQLite begins from the beginning, so that nothing is kept for it. Everything else is
/// looked for: WRITE and RESERVED also by one that has unlocked meanwhile.
#[test]
fn what_is_looked_for_depends_on_what_was_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    let mut cause = |level, lock| {
        connection.level = level;
        match connection.cause(lock) {
            Cause::SqliteLock { probe, until_unlock } => (probe.is_some(), until_unlock),
            Cause::WriteLock => panic!("it is SQLite's own"),
        }
    };
    let exclusive = Sought::Database(SQLITE_LOCK_EXCLUSIVE);
    assert_eq!(cause(SQLITE_LOCK_SHARED, exclusive), (false, true));
    assert_eq!(cause(SQLITE_LOCK_RESERVED, exclusive), (true, true));
    assert_eq!(cause(SQLITE_LOCK_NONE, Sought::Database(SQLITE_LOCK_SHARED)), (true, true));
    assert_eq!(cause(SQLITE_LOCK_SHARED, Sought::Database(SQLITE_LOCK_RESERVED)), (true, false));
    assert_eq!(cause(SQLITE_LOCK_SHARED, Sought::Write), (true, false));
}

/// A board has a second name: nobody writes to it, and nobody checkpoints. Who only reads takes a reader's
/// slot for itself, too, to set its mark.
#[test]
fn a_board_with_two_names_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    let path = connection.database().path().to_owned();
    std::fs::hard_link(&path, directory.path().join("second.db")).expect("a link");
    let identity = crate::guard::identity::Identity::of(&path, false);
    connection.guards = Guards::new(base, connection.log, identity, None);
    base.has_bytes(4096);
    let flags = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    assert_eq!(connection.shm_lock(WAL_READ_LOCK + 1, 1, flags), SQLITE_OK);
    assert_eq!(connection.shm_lock(WAL_CKPT_LOCK, 1, flags), crate::ffi::SQLITE_READONLY);
    connection.has_snapshot = true;
    assert_eq!(connection.shm_lock(WAL_WRITE_LOCK, 1, flags), crate::ffi::SQLITE_READONLY);
    assert!(!connection.holds_write_lock());
}

/// A sync of group commit has failed. Whoever checkpoints makes up for that first, while nobody writes; if
/// that fails, too, there is no checkpoint, and no slot is kept.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_makes_up_for_a_sync_or_is_none() {
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
    let inode = connection.guards.wal();
    let failed = connection.group.drain(&database, inode, |_| false);
    assert_eq!(failed, Err(crate::ffi::SQLITE_IOERR_FSYNC));
    let lock = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    for failing in [2, 0] {
        base.calls.take();
        wal.seen(|memory| memory.failing = failing);
        let rc = connection.shm_lock(WAL_CKPT_LOCK, 1, lock);
        let mended = [Lock(WAL_CKPT_LOCK, 1), Lock(WAL_WRITE_LOCK, 1), Unlock(WAL_WRITE_LOCK, 1)];
        assert_eq!(base.calls.borrow()[..3], mended);
        if failing > 0 {
            assert_eq!(rc, crate::ffi::SQLITE_IOERR_FSYNC);
            assert_eq!(base.calls.borrow()[3..], [Unlock(WAL_CKPT_LOCK, 1)]);
        } else {
            assert_eq!(rc, SQLITE_OK);
            assert!(!base.calls.borrow().contains(&Unlock(WAL_CKPT_LOCK, 1)));
        }
        assert_eq!(connection.is_checkpointing, failing == 0);
        let has_failed = connection.group.has_failed(&database, inode);
        assert_eq!(has_failed, failing > 0);
    }
}

/// A file is about to be closed: from then on, no thread that sleeps for it looks at its locks.
#[test]
fn nobody_looks_at_a_file_that_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = TestBase { on_lock: Some(Box::new(|| SQLITE_BUSY)), ..TestBase::default() }.leak();
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_BUSY);
    assert!(connection.wait.has_probe() && connection.wait.pause_probe().is_some());
    connection.ending();
    assert!(!connection.wait.has_probe());
}

/// A reader finds that the WAL is not the one that the wal-index speaks of: it gives its slot back. A
/// checkpointer finds that the WAL has begun anew since it began: the same.
#[test]
#[cfg(unix)]
fn who_may_not_go_on_keeps_no_slot() {
    let base = TestBase::of_wal(&[(5, 0)], &[[1, 2]]).leak();
    let (_place, mut reader) = connection_with_wal(base, &Options::default());
    let slot = WAL_READ_LOCK + 1;
    let rc = reader.shm_lock(slot, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
    assert_eq!(rc, crate::ffi::SQLITE_READONLY_DBMOVED);
    assert_eq!(*base.calls.borrow(), [Lock(slot, 1), Unlock(slot, 1)]);
    assert!(!reader.has_snapshot);

    for (salts, answer) in [(&[[1, 2]][..], SQLITE_OK), (&[[1, 2], [3, 4]], SQLITE_BUSY)] {
        // All is copied already, so that it takes no write lock.
        let base = TestBase::of_wal(&[(5, 5)], salts).leak();
        let (_place, mut checkpointer) = connection_with_wal(base, &Options::default());
        let lock = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
        assert_eq!(checkpointer.shm_lock(WAL_CKPT_LOCK, 1, lock), SQLITE_OK);
        // It looks whether there is a reader, in between.
        for flags in [lock, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE] {
            assert_eq!(checkpointer.shm_lock(slot, 1, flags), SQLITE_OK);
        }
        assert_eq!(checkpointer.shm_lock(WAL_READ_LOCK, 1, lock), answer);
        let gives_back = base.calls.borrow().contains(&Unlock(WAL_READ_LOCK, 1));
        assert_eq!(gives_back, answer == SQLITE_BUSY);
    }
}

/// A checkpoint makes durable what is not before it copies: if that fails, it is none, and keeps nothing.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_whose_sync_fails_is_none() {
    let base = TestBase::of_wal(&[(3, 0)], &[salts()]).leak();
    let options = Options::default().with_group_commit(true);
    let (_place, mut connection) = connection_with_wal(base, &options);
    connection.database().make_sidecar();
    let wal = TestWal::new(frames(0x377f_0682, 512, 3));
    connection.shm_mapping();
    connection.group.wal_opened(Some(wal));
    wal.seen(|memory| memory.failing = 9);
    let lock = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    let rc = connection.shm_lock(WAL_CKPT_LOCK, 1, lock);
    assert_eq!(rc, crate::ffi::SQLITE_IOERR_FSYNC);
    assert_eq!(*base.calls.borrow(), [Lock(WAL_CKPT_LOCK, 1), Unlock(WAL_CKPT_LOCK, 1)]);
    assert!(!connection.is_checkpointing && !connection.holds_write_lock());
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
            assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_OK);
            let runs = is_expected && connection.expects_mode_change && state == Some(true);
            assert_eq!(connection.holds_write_lock(), runs, "{state:?}");
            assert_eq!(connection.unlock(SQLITE_LOCK_NONE), SQLITE_OK);
            assert!(!connection.holds_write_lock(), "{state:?}");
        }
        assert!(!connection.expects_mode_change, "what was finalized does not run");
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
        assert_eq!(connection.lock(SQLITE_LOCK_SHARED), SQLITE_OK);
        assert_eq!(connection.holds_write_lock(), is_first, "{doing:?}");
    }
}

/// A READ slot is given back while somebody may look for the connection: its snapshot has ended, and is
/// not taken for one of an upgrade. Another slot is no snapshot's.
#[test]
fn a_snapshot_ends_with_its_slot() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    let shared = SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED;
    for (slot, has_snapshot) in
        [(WAL_WRITE_LOCK + 1, true), (WAL_READ_LOCK, false), (WAL_READ_LOCK + 4, false)]
    {
        connection.has_snapshot = true;
        assert_eq!(connection.shm_lock(slot, 1, shared), SQLITE_OK);
        assert_eq!(connection.has_snapshot, has_snapshot, "{slot}");
    }
}

/// The base fails to lock, and nobody knows whether it has: the lock is given back, and the write lock.
#[test]
fn a_lock_that_was_perhaps_taken_is_given_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let base =
        TestBase { on_lock: Some(Box::new(|| SQLITE_IOERR_LOCK)), ..TestBase::default() }.leak();
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(SQLITE_LOCK_RESERVED), SQLITE_IOERR_LOCK);
    assert_eq!(base.unlocked.take(), [SQLITE_LOCK_NONE]);
    assert!(!connection.holds_write_lock());

    base.slot_answer.set(SQLITE_IOERR_LOCK);
    connection.has_snapshot = true;
    let lock = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    assert_eq!(connection.shm_lock(WAL_WRITE_LOCK, 1, lock), SQLITE_IOERR_LOCK);
    let unlock = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
    assert_eq!(base.slots.take(), [(WAL_WRITE_LOCK, 1, lock), (WAL_WRITE_LOCK, 1, unlock)]);
    assert!(!connection.holds_write_lock());
}

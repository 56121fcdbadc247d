//! Transactions that take the write lock when they begin to read.

use super::super::base_file::Running;
use super::*;
use crate::lock::kinds::{self, Kind, Kinds, Standing};
use crate::options::Begin;

const SHARED: ShmFlags = ShmFlags::LOCK_SHARED;
const UNLOCK_SHARED: ShmFlags = ShmFlags::UNLOCK_SHARED;
const SLOT: ShmSlot = ShmSlot::read(1);

/// A connection in a transaction that reads, over a base of its own. Its busy handler answers `handler`; `None` if the
/// handler is not known.
fn begun(
    directory: &tempfile::TempDir,
    handler: Option<bool>,
) -> (TestConnection, &'static TestBase) {
    let base = TestBase::default().leak();
    base.has_bytes(4096);
    base.is_in_transaction.set(true);
    base.running.set(Some(Running::default()));
    *base.busy_handler.borrow_mut() = handler.map(|answer| Box::new(move || answer) as Box<_>);
    let options = Options::default()
        .with_begin(Begin::Immediate)
        .with_begin_timeout(Duration::from_millis(120));
    (connection_with(directory, base, &options), base)
}

/// A connection that has the write lock.
fn holder(directory: &tempfile::TempDir) -> TestConnection {
    let (mut holder, base) = connection(directory);
    base.has_bytes(4096);
    holder.wal.has_snapshot = true;
    assert_eq!(holder.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
    assert!(holder.holds_write_lock());
    holder
}

/// A lock or unlock of a READ slot, as `shim` hands it on.
fn read_slot(connection: &mut TestConnection, flags: ShmFlags) -> ResultCode {
    assert!(!is_plain(connection, SLOT, flags), "there is more to do");
    connection.shm_lock(SLOT, flags)
}

/// The transaction has the write lock from its READ slot on, through its write, and no longer. A rollback unlocks the slot
/// while autocommit is still off.
#[test]
fn the_write_lock_goes_with_the_snapshot() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = begun(&directory, Some(false));
    for writes in [false, true] {
        assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
        assert!(connection.holds_write_lock());
        if writes {
            for flags in [LOCK, UNLOCK] {
                assert!(connection.holds_write_lock());
                assert_eq!(connection.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
            }
            assert!(!connection.holds_write_lock(), "the sync of group commit comes next");
        }
        connection.shm_lock(SLOT, UNLOCK_SHARED);
        assert!(!connection.holds_write_lock());
    }
}

/// Another connection has committed while the transaction waited. SQLite unlocks the READ slot,
/// since its header is stale, and locks one again: the write lock is kept in between. A second
/// unlock ends the transaction.
#[test]
fn a_retry_keeps_the_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = begun(&directory, Some(false));
    *base.index_headers.borrow_mut() = vec![1, 2];
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
    assert!(connection.holds_write_lock());
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
    assert!(!connection.holds_write_lock());

    *base.index_headers.borrow_mut() = vec![1, 2];
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
    assert!(!connection.holds_write_lock(), "no retry comes so late");
}

/// The base refuses the READ slot, or SHARED, or fails: there is no transaction, and no write lock.
#[test]
fn a_lock_that_is_refused_releases_the_write_lock() {
    for rc in [ResultCode::BUSY, ResultCode::IOERR_LOCK] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut connection, base) = begun(&directory, Some(false));
        base.slot_answer.set(rc);
        assert_eq!(read_slot(&mut connection, SHARED), rc);
        assert!(!connection.holds_write_lock());
        *base.on_lock.borrow_mut() = Some(Box::new(move || rc));
        assert_eq!(connection.lock(LockLevel::SHARED), rc);
        assert!(!connection.holds_write_lock());
    }
}

/// Another VFS keeps the busy handler from this one, so `kanban_begin_timeout` counts. A handler that gives up ends the wait
/// at once. Either way the transaction goes on without the write lock, and no give-up is counted.
#[test]
fn a_wait_ends_by_the_busy_handler_or_by_its_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut holder = holder(&directory);
    for (handler, least, in_wal) in
        [(None, 120, true), (Some(false), 0, true), (None, 120, false), (Some(false), 0, false)]
    {
        let (mut connection, _) = begun(&directory, handler);
        let began = Instant::now();
        let rc = match in_wal {
            true => read_slot(&mut connection, SHARED),
            false => connection.lock(LockLevel::SHARED),
        };
        assert_eq!(rc, ResultCode::OK);
        assert!(began.elapsed() >= Duration::from_millis(least), "{handler:?}, {in_wal}");
        assert!(!connection.holds_write_lock());
        assert_eq!(refused_waited_and_gave_up(&connection)[1..], [0, 0]);
    }
    assert_eq!(holder.shm_lock(ShmSlot::WRITE, UNLOCK), ResultCode::OK);
}

/// A transaction has waited in vain to begin, and its busy handler has given up. Then a writer commits in a rollback mode.
/// SQLite would not call the handler again, so the connection waits for the commit.
#[test]
fn a_commit_is_waited_for_when_the_busy_handler_has_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let _holder = holder(&directory);
    let (mut connection, base) = begun(&directory, None);
    handler_gives_up_after(base, 1);
    commits_until_attempt(base, 5);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
}

/// The busy handler of `base` says `calls` times to try again, and then gives up.
fn handler_gives_up_after(base: &TestBase, calls: u32) {
    let left = Cell::new(calls);
    let handler = move || left.replace(left.get().saturating_sub(1)) > 0;
    *base.busy_handler.borrow_mut() = Some(Box::new(handler));
}

/// Another connection commits: `base` refuses SHARED until attempt `granted`.
fn commits_until_attempt(base: &TestBase, granted: u32) {
    let attempts = Cell::new(0);
    *base.on_lock.borrow_mut() = Some(Box::new(move || {
        attempts.set(attempts.get() + 1);
        if attempts.get() < granted { ResultCode::BUSY } else { ResultCode::OK }
    }));
}

/// A transaction goes on without the write lock, and its busy handler has not waited. There is no handler, it is not known,
/// the connection writes to another database, or the sidecar cannot be used. Then the lock call does not wait for a commit:
/// SQLite waits or not, as on the stock VFS.
#[test]
fn a_commit_is_not_waited_for_without_a_busy_handler() {
    const NO_SIDECAR: &str = "no sidecar";
    const ELSEWHERE: &str = "writes elsewhere";
    for (why, handler) in [
        ("none", Some(false)),
        ("unknown", None),
        (ELSEWHERE, Some(true)),
        (NO_SIDECAR, Some(true)),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        if why == NO_SIDECAR {
            fs::create_dir(directory.path().join("board.db-lock")).expect("a directory");
        }
        let _holder = (why != NO_SIDECAR).then(|| holder(&directory));
        let (mut connection, base) = begun(&directory, handler);
        base.writes_elsewhere.set(why == ELSEWHERE);
        commits_until_attempt(base, 5);
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::BUSY, "{why}");
    }
}

/// In a rollback mode the write lock is kept until the database is unlocked. If another statement reads on, it is kept until
/// SHARED in autocommit. The rollback of a hot journal, which also ends with SHARED, comes before that.
#[test]
fn the_write_lock_goes_with_shared() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = begun(&directory, Some(false));
    for end in [LockLevel::NONE, LockLevel::SHARED] {
        base.is_in_transaction.set(true);
        for level in [LockLevel::SHARED, LockLevel::EXCLUSIVE] {
            assert_eq!(connection.lock(level), ResultCode::OK);
        }
        connection.unlock(LockLevel::SHARED);
        assert!(connection.holds_write_lock(), "a hot journal was rolled back");
        assert_eq!(connection.lock(LockLevel::RESERVED), ResultCode::OK);
        base.is_in_transaction.set(end == LockLevel::NONE);
        connection.unlock(end);
        assert!(!connection.holds_write_lock(), "{end:?}");
        connection.unlock(LockLevel::NONE);
    }
}

/// The database turns out to be in WAL mode, where SHARED stays: its first transaction takes the write lock with the READ
/// slot.
#[test]
fn no_write_lock_goes_with_shared_in_wal_mode() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = begun(&directory, Some(false));
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    assert!(connection.holds_write_lock());
    connection.shm_mapping();
    assert!(!connection.holds_write_lock());
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    connection.shm_mapping();
    assert!(connection.holds_write_lock(), "the wal-index has grown");
    connection.shm_unmapped();
    assert!(!connection.holds_write_lock());
}

/// A connection that only reads takes no write lock: outside a transaction, with `PRAGMA
/// query_only`, in exclusive locking mode, in VACUUM INTO, and if no statement runs.
#[test]
fn a_reader_takes_no_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = begun(&directory, Some(false));
    let takes = |connection: &mut TestConnection| {
        assert_eq!(connection.shm_lock(SLOT, SHARED), ResultCode::OK);
        let takes = connection.holds_write_lock();
        assert_eq!(connection.shm_lock(SLOT, UNLOCK_SHARED), ResultCode::OK);
        takes
    };
    for (pragma, off, on) in [
        ("query_only", "0", "1"),
        ("QUERY_ONLY", "off", "Yes"),
        ("locking_mode", "normal", "Exclusive"),
    ] {
        connection.pragma(pragma.as_bytes(), on.as_bytes());
        assert!(!takes(&mut connection), "{pragma}");
        connection.pragma(pragma.as_bytes(), b"");
        assert!(!takes(&mut connection), "a question changes nothing");
        connection.pragma(pragma.as_bytes(), off.as_bytes());
        assert!(takes(&mut connection), "{pragma}");
    }
    base.running.set(Some(Running { is_vacuum: true, ..Running::default() }));
    assert!(!takes(&mut connection));
    base.running.set(None);
    assert!(!takes(&mut connection));
    base.running.set(Some(Running::default()));
    base.is_in_transaction.set(false);
    assert!(!takes(&mut connection));
}

/// Gives the connection `kanban_begin=auto` from here on.
fn learns(connection: &mut TestConnection) {
    let settings = Settings::defaults_of(&Options::default().with_begin(Begin::Auto));
    connection.begin = super::super::begin::Begin::new(&settings, false);
}

/// A connection with `kanban_begin=auto` that has begun a transaction of `kind`, and has a READ slot.
fn learning(directory: &tempfile::TempDir, kind: u64) -> (TestConnection, &'static TestBase) {
    let (mut connection, base) = begun(directory, Some(false));
    learns(&mut connection);
    base.running.set(Some(Running { kind: Some(Kind::of_hash(kind)), ..Running::default() }));
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    (connection, base)
}

/// The first transaction of a kind is on trial until it is over. It is not over while SQLite begins it anew, since its header
/// was stale. It is over when another statement rolls it back.
#[test]
fn a_trial_lasts_as_long_as_its_transaction() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    let standing = |n| Kinds::of(keeper.database()).expect("a page").standing(Kind::of_hash(n));
    for (n, is_rolled_back) in [(1, false), (2, true)] {
        let (mut connection, base) = learning(&directory, n);
        assert_eq!(standing(n), Standing::OnTrial);
        assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
        assert_eq!(standing(n), Standing::OnTrial, "it begins anew");
        assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
        match is_rolled_back {
            true => {
                let kind = Some(Kind::of_hash(99));
                base.running.set(Some(Running { kind, ..Running::default() }));
            }
            false => base.is_in_transaction.set(false),
        }
        assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
        assert_eq!(standing(n), Standing::Reads);
    }
}

/// Whether a transaction begins that takes no write lock, without a look at the sidecar. Ends it.
fn begins_without_a_look(connection: &mut TestConnection) -> bool {
    let is_plain = is_plain(connection, SLOT, SHARED);
    if !is_plain {
        assert_eq!(connection.shm_lock(SLOT, SHARED), ResultCode::OK);
    }
    assert_eq!(connection.shm_lock(SLOT, UNLOCK_SHARED), ResultCode::OK);
    is_plain
}

/// A connection whose transactions only read does not look at the sidecar each time: not in a tight
/// loop, nor after a pause in which nobody has committed. It looks after a commit, at once if a
/// connection of its process has learned that the kind writes, and soon if another process has.
#[test]
fn a_kind_that_reads_is_looked_up_seldom() {
    // Longer than two ticks of the clock that it uses.
    const PAUSE: Duration = Duration::from_millis(25);
    // Unless the machine stalls for 100 ms, the first or second does.
    let soon = |connection: &mut TestConnection| {
        (0..100).any(|_| {
            begins_without_a_look(connection);
            std::thread::sleep(PAUSE);
            begins_without_a_look(connection)
        })
    };
    let directory = tempfile::tempdir().expect("a directory");
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    let (mut connection, base) = learning(&directory, 7);
    base.is_in_transaction.set(false);
    assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
    base.is_in_transaction.set(true);
    assert!(soon(&mut connection));
    *base.index_headers.borrow_mut() = vec![1];
    std::thread::sleep(PAUSE);
    assert!(!begins_without_a_look(&mut connection), "somebody has committed");
    assert!(soon(&mut connection));
    kinds::learn(keeper.database(), Kind::of_hash(7)).expect("a page");
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    assert!(connection.holds_write_lock());
    assert_eq!(connection.shm_lock(SLOT, UNLOCK_SHARED), ResultCode::OK);

    // Another process writes it to the page, and nobody commits.
    base.running.set(Some(Running { kind: Some(Kind::of_hash(8)), ..Running::default() }));
    assert_eq!(read_slot(&mut connection, SHARED), ResultCode::OK);
    base.is_in_transaction.set(false);
    assert_eq!(read_slot(&mut connection, UNLOCK_SHARED), ResultCode::OK);
    base.is_in_transaction.set(true);
    assert!(soon(&mut connection));
    let queue = keeper.database().queue().expect("a sidecar");
    queue.sidecar().write_kind(8, 8).expect("a page");
    let takes_the_lock = |_| {
        std::thread::sleep(PAUSE);
        if !is_plain(&mut connection, SLOT, SHARED) {
            assert_eq!(connection.shm_lock(SLOT, SHARED), ResultCode::OK);
        }
        let holds = connection.holds_write_lock();
        assert_eq!(connection.shm_lock(SLOT, UNLOCK_SHARED), ResultCode::OK);
        holds
    };
    assert!((0..400).any(takes_the_lock));
}

/// Whether a transaction of that kind takes the write lock first.
fn is_known(directory: &tempfile::TempDir, kind: u64) -> bool {
    learning(directory, kind).0.holds_write_lock()
}

/// A transaction that has read is refused when it begins to write: the write lock is held, or WRITE is granted but the
/// snapshot is stale. From then on all know its kind. A transaction that is granted WRITE for its snapshot, or has not read
/// before, teaches nothing, and neither does an error.
#[test]
fn a_refused_upgrade_is_learned() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    for (n, header, upgrades, answer, learns) in [
        (1, 1, true, ResultCode::OK, false),
        (2, 2, true, ResultCode::OK, true),
        (3, 2, false, ResultCode::OK, false),
        (4, 1, true, ResultCode::BUSY, true),
        (5, 1, false, ResultCode::BUSY, false),
        (6, 1, true, ResultCode::IOERR_LOCK, false),
    ] {
        let (mut connection, base) = learning(&directory, n);
        assert!(!connection.holds_write_lock());
        *base.index_headers.borrow_mut() = vec![header - 1];
        base.is_immediate.set(!upgrades);
        base.slot_answer.set(answer);
        assert_eq!(connection.shm_lock(ShmSlot::WRITE, LOCK), answer);
        if answer == ResultCode::OK {
            connection.shm_lock(ShmSlot::WRITE, UNLOCK);
        }
        base.is_in_transaction.set(false);
        connection.shm_lock(SLOT, UNLOCK_SHARED);
        drop(connection);
        assert_eq!(is_known(&directory, n), learns, "{n}");
    }
}

/// The same in a rollback mode, at RESERVED. A writer that waits for readers at its COMMIT is not refused an upgrade.
#[test]
fn a_refused_upgrade_to_reserved_is_learned() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    for (n, level, learns) in [(1, LockLevel::RESERVED, true), (2, LockLevel::EXCLUSIVE, false)] {
        let (mut connection, base) = learning(&directory, n);
        *base.on_lock.borrow_mut() = Some(Box::new(|| ResultCode::BUSY));
        connection.lock.level = LockLevel::RESERVED.min(level);
        assert_eq!(connection.lock(level), ResultCode::BUSY);
        drop(connection);
        assert_eq!(is_known(&directory, n), learns, "{n}");
    }
}

/// A connection that keeps a database open, and one whose transaction of that kind is on trial there.
fn on_trial(directory: &tempfile::TempDir, kind: u64) -> (TestConnection, TestConnection) {
    let (keeper, _) = connection(directory);
    keeper.database().make_sidecar();
    (keeper, learning(directory, kind).0)
}

/// A connection has rolled back, and begins a transaction of a kind that is on trial. Its busy handler sleeps for the trial,
/// which is no wait for the write lock. So the connection does not stay in the queue, where others would give it turns.
#[test]
fn a_wait_for_a_trial_takes_no_place_in_the_queue() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keeper, _first) = on_trial(&directory, 5);
    let (mut second, base) = begun(&directory, Some(false));
    learns(&mut second);
    base.running.set(Some(Running { kind: Some(Kind::of_hash(6)), ..Running::default() }));
    assert_eq!(read_slot(&mut second, SHARED), ResultCode::OK);
    assert_eq!(second.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
    assert_eq!(second.shm_lock(ShmSlot::WRITE, UNLOCK), ResultCode::OK);
    base.running.set(Some(Running { kind: Some(Kind::of_hash(99)), ..Running::default() }));
    assert_eq!(read_slot(&mut second, UNLOCK_SHARED), ResultCode::OK);
    let sleeps = || {
        let _ = crate::lock::wait::sleep(Duration::from_millis(1), std::thread::sleep);
        true
    };
    *base.busy_handler.borrow_mut() = Some(Box::new(sleeps));
    base.running.set(Some(Running { kind: Some(Kind::of_hash(5)), ..Running::default() }));
    assert_eq!(read_slot(&mut second, SHARED), ResultCode::OK);
    assert!(keeper.database().waiters().is_empty(), "{:?}", keeper.database().waiters());
}

/// A busy handler throws an exception while its connection waits for a trial. The application rolls back, and the next
/// statement needs only a READ slot. It must not get that slot at once: SQLite may still have pages that are older than the
/// header that it has read.
#[test]
fn no_plain_read_follows_a_handler_that_did_not_return() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_keeper, _first) = on_trial(&directory, 5);
    let (mut second, base) = begun(&directory, None);
    learns(&mut second);
    second.guards = guards_of(&second);
    base.is_in_transaction.set(false);
    // After these reads its guards have nothing to do.
    for _ in 0..2 {
        assert_eq!(second.shm_lock(SLOT, SHARED), ResultCode::OK);
        assert_eq!(second.shm_lock(SLOT, UNLOCK_SHARED), ResultCode::OK);
    }
    assert!(is_plain(&mut second, SLOT, SHARED) && is_plain(&mut second, SLOT, UNLOCK_SHARED));

    base.is_in_transaction.set(true);
    base.running.set(Some(Running { kind: Some(Kind::of_hash(5)), ..Running::default() }));
    *base.busy_handler.borrow_mut() = Some(Box::new(|| std::panic::resume_unwind(Box::new(()))));
    let reads = std::panic::AssertUnwindSafe(|| read_slot(&mut second, SHARED));
    assert!(std::panic::catch_unwind(reads).is_err());
    base.is_in_transaction.set(false);
    assert_eq!(read_slot(&mut second, SHARED), ResultCode::SCHEMA);
    assert!(is_plain(&mut second, SLOT, SHARED));
}

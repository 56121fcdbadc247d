//! Why a connection holds the write lock, how it waits for it, and what it does without it.

use super::super::base_file::Running;
use super::super::claim::{CHECKPOINT_LASTS, CHECKPOINT_LASTS_BESIDE_OTHERS, Need, Request};
use super::*;
use crate::lock::kinds::Kind;
use crate::lock::queue::{Pace, Place, Purpose, Queue, Rank, Taken, Until};
use crate::lock::sidecar::Sidecar;
use crate::lock::wait::Obstacle;
use std::time::Instant;

/// A connection holds the write lock for several reasons at once. It releases the lock with the last of them.
#[test]
fn the_write_lock_is_held_until_the_last_reason_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    connection.lock(LockLevel::SHARED);
    connection.lock(LockLevel::RESERVED);
    connection.lock(LockLevel::EXCLUSIVE);
    connection.unlock(LockLevel::SHARED);
    assert!(connection.holds_write_lock(), "the first connection still needs it");
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
    assert!(shm_lock(ckpt_slot), "a checkpoint takes it");
    assert!(shm_lock(write_slot(LOCK)));
    assert!(shm_lock(write_slot(UNLOCK)));
    assert!(!shm_lock((ShmSlot::CKPT, UNLOCK)));
}

/// A connection closes, or unmaps the wal-index, while it holds the write lock.
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

/// A checkpoint holds the write lock and does not end. Once it has taken long, writers go on beside it at once, as on the stock
/// VFS.
#[test]
fn a_checkpoint_holds_no_writer_up_for_long() {
    let directory = tempfile::tempdir().expect("a directory");
    // Tests run at the same time in this process, and use databases by the usual number.
    let of_its_own = || TestBase { user: 1024, ..TestBase::default() }.leak();
    let base = of_its_own();
    let mut writer = connection_over(&directory, base);
    let mut checkpointer = connection_over(&directory, base);
    base.has_bytes(4096);
    let write = |flags| (ShmSlot::WRITE, flags);
    let shm_lock = |connection: &mut TestConnection, (slot, flags)| {
        assert_eq!(connection.shm_lock(slot, flags), ResultCode::OK);
    };
    // This makes the sidecar.
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

    // A connection with a busy handler sleeps until the checkpoint has taken long, and no longer.
    let mut sleeper = connection_over(&directory, base);
    shm_lock(&mut sleeper, (ShmSlot::READ_0, ShmFlags::LOCK_SHARED));
    base.is_immediate.set(true);
    let attempt = |sleeper: &mut TestConnection| {
        let (slot, flags) = write(LOCK);
        sleeper.shm_lock(slot, flags)
    };
    assert_eq!(attempt(&mut sleeper), ResultCode::BUSY);
    let _ = crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
    shm_lock(&mut writer, write(UNLOCK));
    for flags in [LOCK, UNLOCK] {
        shm_lock(&mut sleeper, write(flags));
    }
    let began = Instant::now();
    shm_lock(&mut checkpointer, (ShmSlot::CKPT, LOCK));
    assert!(checkpointer.holds_write_lock());
    match attempt(&mut sleeper) {
        ResultCode::BUSY => {}
        // The machine has stalled.
        _ => assert!(began.elapsed() >= CHECKPOINT_LASTS),
    }
    std::thread::sleep(CHECKPOINT_LASTS);
    // One that may yet wait for another database does not: a circle of waits would not be seen.
    let place = tempfile::tempdir().expect("a directory");
    let other_base = of_its_own();
    other_base.has_bytes(4096);
    let mut other = connection_over(&place, other_base);
    other.has_user();
    // Another test may keep the registry of databases locked for a moment. Then it goes on.
    let is_refused = |sleeper: &mut TestConnection| {
        (0..100).any(|_| {
            if attempt(sleeper) == ResultCode::BUSY {
                return true;
            }
            shm_lock(sleeper, write(UNLOCK));
            std::thread::sleep(Duration::from_millis(1));
            // The machine has stalled.
            began.elapsed() >= CHECKPOINT_LASTS_BESIDE_OTHERS
        })
    };
    let goes_on = |sleeper: &mut TestConnection| {
        shm_lock(sleeper, write(LOCK));
        assert!(!sleeper.holds_write_lock());
        shm_lock(sleeper, write(UNLOCK));
    };
    let sleep = |ms| crate::lock::wait::sleep(Duration::from_millis(ms), |_| {});
    assert!(is_refused(&mut sleeper));
    let _ = sleep(1);
    // If it has the other's write lock by now, it will not wait for that.
    shm_lock(&mut other, (ShmSlot::READ_0, ShmFlags::LOCK_SHARED));
    shm_lock(&mut other, write(LOCK));
    assert!(other.holds_write_lock());
    goes_on(&mut sleeper);
    shm_lock(&mut other, write(UNLOCK));
    assert!(is_refused(&mut sleeper));
    let _ = sleep(1);
    drop(other);
    // The second time, the connection has not waited before.
    for _ in 0..2 {
        goes_on(&mut sleeper);
    }
    // Another database again, but an application's own busy handler, which may give up before the checkpoint ends.
    let mut other = connection_over(&place, other_base);
    other.has_user();
    assert!(is_refused(&mut sleeper));
    let _ = sleep(3);
    goes_on(&mut sleeper);
}

/// The busy handler of a connection has slept for the last time, and that sleep was cut short for a turn. The connection has a
/// new snapshot, and others commit before it has WRITE. SQLite would find the snapshot stale and answer SQLITE_BUSY at once,
/// before the busy timeout is over. So the lock call lasts until the timeout is over, whether WRITE was free, a checkpoint ran,
/// or another connection had WRITE for a while. If nobody has committed, WRITE is granted.
#[test]
fn a_stale_snapshot_is_refused_when_the_timeout_is_over() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Way {
        Free,
        Checkpoint,
        Writer,
        Stock,
    }
    let ways = [Way::Free, Way::Checkpoint, Way::Writer, Way::Stock];
    // In the last case the database is attached, and the statement already writes to another.
    let cases = ways.map(|way| (way, false)).into_iter().chain([(Way::Free, true)]);
    for (way, is_attached) in cases {
        for is_stale in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let (mut connection, base) = connection(&directory);
            base.has_bytes(4096);
            base.is_immediate.set(!is_attached);
            *base.salts.borrow_mut() = vec![Some([1, 1])];
            connection.database().make_sidecar();
            let snapshot = (ShmSlot::read(1), ShmFlags::LOCK_SHARED);
            // After these reads its guards have nothing to do.
            for _ in 0..2 {
                assert_eq!(connection.shm_lock(snapshot.0, snapshot.1), ResultCode::OK);
                connection.shm_lock(snapshot.0, ShmFlags::UNLOCK_SHARED);
            }
            assert!(is_plain(&mut connection, snapshot.0, snapshot.1), "it does not wait");
            connection.shm_lock(snapshot.0, ShmFlags::UNLOCK_SHARED);

            // Long enough for the other to end before, unless the machine stalls.
            let rest = Duration::from_millis(if is_stale { 300 } else { 30_000 });
            connection.claim.wait.ends_with_rest(rest);
            assert!(!is_plain(&mut connection, snapshot.0, snapshot.1), "it may be its last");
            assert_eq!(connection.shm_lock(snapshot.0, snapshot.1), ResultCode::OK);
            let mut checkpointer = connection_over(&directory, base);
            if way == Way::Checkpoint {
                assert_eq!(checkpointer.shm_lock(ShmSlot::CKPT, LOCK), ResultCode::OK);
                assert!(checkpointer.holds_write_lock());
            }
            if is_stale {
                *base.frames.borrow_mut() = vec![Some((2, 0))];
            }
            base.slots.take();
            let began = Instant::now();
            let rc = std::thread::scope(|scope| {
                let (takes, taken) = std::sync::mpsc::channel();
                let directory = &directory;
                if way == Way::Writer {
                    scope.spawn(move || {
                        let (mut writer, base) = super::connection(directory);
                        base.has_bytes(4096);
                        writer.wal.has_snapshot = true;
                        assert_eq!(writer.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
                        takes.send(()).expect("it listens");
                        std::thread::sleep(Duration::from_millis(20));
                        assert_eq!(writer.shm_lock(ShmSlot::WRITE, UNLOCK), ResultCode::OK);
                    });
                    taken.recv().expect("it says so");
                }
                if way == Way::Stock {
                    base.refuses_write.set(3);
                }
                connection.shm_lock(ShmSlot::WRITE, LOCK)
            });
            let waited = began.elapsed();
            if is_stale {
                assert_eq!(rc, ResultCode::BUSY, "{way:?}");
                assert!(waited >= rest, "{way:?}: {waited:?}");
                assert!(!connection.holds_write_lock(), "{way:?}");
                let is_last = base.slots.borrow().last() == Some(&(ShmSlot::WRITE.into(), LOCK));
                // A stock client refused it.
                assert_eq!(is_last, way == Way::Stock, "{way:?}: WRITE is unlocked");
                assert_eq!(refused_waited_and_gave_up(&connection)[1..], [0, 1], "{way:?}");
            } else {
                assert_eq!(rc, ResultCode::OK, "{way:?}");
                assert!(waited < rest, "{way:?}: {waited:?}");
                assert_eq!(connection.holds_write_lock(), way != Way::Checkpoint, "{way:?}");
                assert_eq!(refused_waited_and_gave_up(&connection)[1..], [1, 0], "{way:?}");
            }
            // As a commit does.
            crate::lock::wait::forget_on_this_thread();
        }
    }
}

/// The same, but a stock client keeps WRITE for longer.
#[test]
fn a_stock_writer_is_waited_for_until_the_timeout_is_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    base.is_immediate.set(true);
    let rest = Duration::from_millis(50);
    connection.claim.wait.ends_with_rest(rest);
    assert_eq!(connection.shm_lock(ShmSlot::read(1), ShmFlags::LOCK_SHARED), ResultCode::OK);
    base.slot_answer.set(ResultCode::BUSY);
    let began = Instant::now();
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
    assert!(began.elapsed() >= rest);
    assert!(!connection.holds_write_lock());
    assert_eq!(refused_waited_and_gave_up(&connection)[1..], [0, 1]);
}

/// A connection that waits to write finds a wal-index that it must recover. Its wait goes on afterwards.
#[test]
fn a_recovery_ends_no_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    assert!(connection.claim.wait.refused(Obstacle::WriteLock).is_none());
    for flags in [LOCK, UNLOCK] {
        assert_eq!(connection.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
    }
    assert!(!connection.claim.wait.age().is_zero(), "it still waits");
    assert_eq!(refused_waited_and_gave_up(&connection), [0, 0, 0]);
    connection.wal.has_snapshot = true;
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
    assert!(connection.claim.wait.age().is_zero());
    assert_eq!(refused_waited_and_gave_up(&connection), [0, 1, 0]);
}

/// SQLite unlocks WRITE as soon as it has it, since its snapshot was stale, and its busy handler sleeps. That sleep is a wait
/// for the write lock, however long the machine was busy with other things. In a transaction that BEGIN began, it is no wait if
/// the lock was held for long: then the application has rolled back.
#[test]
fn an_immediate_release_of_write_is_a_wait_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    // The sidecar stays open, so that taking the lock is fast.
    let (keeper, _) = connection(&directory);
    keeper.database().make_sidecar();
    let waits_after = |held: Duration, has_begun: bool| {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        base.is_in_transaction.set(has_begun);
        let mut shm_lock = |offset, flags| {
            assert_eq!(connection.shm_lock(offset, flags), ResultCode::OK);
        };
        shm_lock(ShmSlot::READ_0, ShmFlags::LOCK_SHARED);
        shm_lock(ShmSlot::WRITE, LOCK);
        std::thread::sleep(held);
        shm_lock(ShmSlot::WRITE, UNLOCK);
        let _ = crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
        connection.claim.wait.leave_queue().is_some()
    };
    assert!(!waits_after(Duration::from_millis(30), true));
    // The scheduler may delay this thread, even several times.
    assert!((0..100).any(|_| waits_after(Duration::ZERO, true)));
    assert!(waits_after(Duration::from_millis(30), false));
}

/// An equally short transaction commits. Then a sleep of its thread is no wait for the write lock, whether
/// [`Connection::note_commit`] was enough for the commit or [`Connection::committed`] had to follow.
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
            connection.wal.has_snapshot = true;
            for flags in [LOCK, UNLOCK] {
                assert_eq!(connection.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
            }
            assert_eq!(connection.note_commit(), is_noted);
            if !is_noted {
                assert_eq!(connection.committed(), Ok(()));
            }
            let _ = crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
            assert_eq!(connection.claim.wait.leave_queue(), None);
        }
    }
}

/// A sleeping thread probes the lock that was refused. After the rollback of a hot journal SQLite starts over, so a lock that
/// was refused for that gets no probe. For WRITE and RESERVED the probe goes on after the connection has unlocked.
#[test]
fn a_sleeper_probes_the_lock_that_was_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    let mut cause = |level, lock| {
        connection.lock.level = level;
        let request = Request { need: Need::Write, sought: lock, level };
        match connection.claim.cause(lock, request.is_for_journal()) {
            Obstacle::SqliteLock { probe, until_unlock } => (probe.is_some(), until_unlock),
            Obstacle::WriteLock => panic!("SQLite's own lock was refused"),
        }
    };
    let exclusive = Sought::Database(LockLevel::EXCLUSIVE);
    assert_eq!(cause(LockLevel::SHARED, exclusive), (false, true));
    assert_eq!(cause(LockLevel::RESERVED, exclusive), (true, true));
    assert_eq!(cause(LockLevel::NONE, Sought::Database(LockLevel::SHARED)), (true, true));
    assert_eq!(cause(LockLevel::SHARED, Sought::Database(LockLevel::RESERVED)), (true, false));
    assert_eq!(cause(LockLevel::SHARED, Sought::Write), (true, false));
}

/// SQLite is about to close the base file. From then on no sleeping thread probes its locks.
#[test]
fn no_thread_probes_a_file_that_closes() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = TestBase::answering(|| ResultCode::BUSY);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::BUSY);
    assert!(connection.claim.wait.has_probe());
    connection.ending();
    assert!(!connection.claim.wait.has_probe());
}

/// The base file fails to lock, and nobody knows whether it holds the lock. The connection unlocks it, and releases
/// the write lock.
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
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::IOERR_LOCK);
    assert_eq!(base.slots.take(), [LOCK, UNLOCK].map(|flags| (ShmSlot::WRITE.into(), flags)));
    assert!(!connection.holds_write_lock());
}

/// A transaction has had the write lock since it began (`kanban_begin`), after a wait whose last sleep was cut short. A stock
/// client commits before the transaction has WRITE. The transaction goes on, and finds its snapshot stale at once: it must not
/// sleep with the write lock.
#[test]
fn nobody_sleeps_with_the_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    base.is_immediate.set(true);
    *base.salts.borrow_mut() = vec![Some([1, 1])];
    let rest = Duration::from_secs(60);
    connection.claim.wait.ends_with_rest(rest);
    assert_eq!(connection.claim.take_to_begin(None), super::super::claim::Begun::AsWanted);
    assert_eq!(connection.shm_lock(ShmSlot::read(1), ShmFlags::LOCK_SHARED), ResultCode::OK);
    *base.frames.borrow_mut() = vec![Some((2, 0))];
    let began = Instant::now();
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
    assert!(began.elapsed() < rest);
}

/// A waiter finds its snapshot stale when it has WRITE, when a stock client has WRITE, or when another client of ours has the
/// write lock. While the waiter sleeps for the rest of its busy timeout, it holds up nobody: it has neither the write lock nor
/// a place in the queue that could get a turn.
#[test]
fn a_stale_waiter_keeps_nobody_out_while_it_sleeps() {
    for answer in [Some(ResultCode::OK), Some(ResultCode::BUSY), None] {
        a_stale_waiter_sleeps(answer);
    }
}

/// WRITE is answered with `answer`; with `None`, the write lock is refused first.
fn a_stale_waiter_sleeps(answer: Option<ResultCode>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut waiter, base) = connection(&directory);
    base.has_bytes(4096);
    base.is_immediate.set(true);
    *base.salts.borrow_mut() = vec![Some([1, 1])];
    let database = Arc::clone(waiter.database());
    database.make_sidecar();
    std::thread::scope(|scope| {
        let (takes, taken) = std::sync::mpsc::channel();
        let (releases, released) = std::sync::mpsc::channel::<()>();
        let directory = &directory;
        // In a thread of its own, since a thread sleeps for one connection.
        scope.spawn(move || {
            let (mut holder, base) = super::connection(directory);
            base.has_bytes(4096);
            holder.wal.has_snapshot = true;
            assert_eq!(holder.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
            takes.send(()).expect("it listens");
            released.recv().expect("it says so");
            assert_eq!(holder.shm_lock(ShmSlot::WRITE, UNLOCK), ResultCode::OK);
        });
        taken.recv().expect("it says so");
        for ms in [1, 2, 5] {
            waiter.wal.has_snapshot = true;
            assert_eq!(waiter.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
            waiter.wal.has_snapshot = false;
            let _ = crate::lock::wait::sleep(Duration::from_millis(ms), |_| {});
        }
        let on_the_page = || database.queue().map_or(0, |queue| queue.on_the_page().len());
        assert_eq!(on_the_page(), 1, "it has nothing to show");
        if answer.is_some() {
            releases.send(()).expect("it listens");
            while database.is_held() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let rest = Duration::from_millis(300);
        waiter.claim.wait.comes_with_rest(rest);
        assert_eq!(waiter.shm_lock(ShmSlot::read(1), ShmFlags::LOCK_SHARED), ResultCode::OK);
        *base.frames.borrow_mut() = vec![Some((2, 0))];
        base.slot_answer.set(answer.unwrap_or_default());
        assert_eq!(on_the_page(), 1, "it has nothing to show");
        let (ends, ended) = std::sync::mpsc::channel::<()>();
        let database = &database;
        let leaves = scope.spawn(move || {
            let on_the_page = || database.queue().map_or(0, |queue| queue.on_the_page().len());
            while on_the_page() > 0 || answer.is_some() && database.is_held() {
                if ended.recv_timeout(Duration::from_millis(1)).is_ok() {
                    break;
                }
            }
            Instant::now()
        });
        assert_eq!(waiter.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
        let now = Instant::now();
        let _ = (ends.send(()), releases.send(()));
        let left = leaves.join().expect("no panic");
        assert!(
            now.saturating_duration_since(left) > rest / 2,
            "{answer:?}: others have waited for it"
        );
    });
}

/// A wait ended with the lock, and its last sleep was cut short. The next call of that thread is for another `sqlite3`, without
/// a busy handler. It is refused at once, and does not wait for the rest of the first one's timeout.
#[test]
fn what_is_left_of_a_timeout_is_its_own_connections() {
    let rest = Duration::from_secs(60);
    for (user, is_refused_at_once) in [(2, true), (1, false)] {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let rest = if is_refused_at_once { rest } else { Duration::from_millis(20) };
        let (mut waiter, base) = connection(&one);
        base.has_bytes(4096);
        base.is_immediate.set(true);
        waiter.claim.wait.is_used_by(1);
        waiter.claim.wait.ends_with_rest(rest);
        assert_eq!(waiter.shm_lock(ShmSlot::read(1), ShmFlags::LOCK_SHARED), ResultCode::OK);
        assert_eq!(waiter.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);

        let base = TestBase { user, ..TestBase::default() }.leak();
        base.has_bytes(4096);
        base.is_immediate.set(true);
        base.slot_answer.set(ResultCode::BUSY);
        let mut other = connection_over(&two, base);
        other.wal.has_snapshot = true;
        let began = Instant::now();
        assert_eq!(other.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
        assert_eq!(began.elapsed() < rest, is_refused_at_once, "user {user}");
    }
}

/// Twenty wait before a connection whose busy handler has slept once. When SQLite tries again to begin, the VFS calls the
/// handler at once, without an attempt, until the handler gives up or sleeps no more. Near the head, the VFS does not call the
/// handler first: the connection tries.
#[test]
fn the_busy_handler_is_asked_far_from_the_head() {
    for (before, sleeps, expected) in [(20, true, 6), (20, false, 1), (3, true, 0)] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut holder, base) = connection(&directory);
        base.has_bytes(4096);
        holder.wal.has_snapshot = true;
        assert_eq!(holder.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
        let database = Arc::clone(holder.database());
        let queue = database.queue().expect("it has one");
        for _ in 0..before {
            let place = queue.join(Rank::Last, Duration::ZERO, Purpose::Write);
            let mut place = place.expect("a slot is free");
            assert_eq!(queue.wait(&mut place, Duration::from_millis(1), Until::Turn), None);
        }
        let base = TestBase::default().leak();
        base.has_bytes(4096);
        let mut waiter = connection_over(&directory, base);
        waiter.wal.has_snapshot = true;
        assert_eq!(waiter.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
        waiter.wal.has_snapshot = false;
        let sleep = || crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
        assert!(sleep());
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = std::rc::Rc::clone(&asked);
        *base.busy_handler.borrow_mut() = Some(Box::new(move || {
            counted.set(counted.get() + 1);
            (!sleeps || sleep()) && counted.get() < 6
        }));
        assert_eq!(waiter.shm_lock(ShmSlot::read(1), ShmFlags::LOCK_SHARED), ResultCode::OK);
        assert_eq!(asked.get(), expected, "{before} before");
    }
}

/// A transaction has the write lock of one database, waits for another's, and so shows a label. It gives up, which no call
/// shows, and ends. The next transaction has no write lock when it waits, so it shows no label on the first database.
#[test]
fn a_transaction_shows_no_label_for_the_one_before() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let writes = |directory: &tempfile::TempDir| {
        let (mut writer, base) = connection(directory);
        base.has_bytes(4096);
        writer.has_user();
        writer.wal.has_snapshot = true;
        assert_eq!(writer.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
        writer
    };
    let mut own = writes(&directories[0]);
    let _others = writes(&directories[1]);
    let label = || {
        let path = crate::lock::sidecar::path_of(own.database().path());
        crate::lock::page::Page::of(&std::fs::read(path).expect("it is there")).label()
    };
    let (mut waiter, base) = connection(&directories[1]);
    base.has_bytes(4096);
    let mut waits = || {
        waiter.wal.has_snapshot = true;
        assert_eq!(waiter.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
        waiter.wal.has_snapshot = false;
    };
    let sleep = || crate::lock::wait::sleep(Duration::from_millis(1), |_| {});
    waits();
    assert!(sleep() && label().is_some(), "it waits for another");
    waits();
    assert!(label().is_some(), "it may go on");

    base.is_writing.set(false);
    waits();
    assert_eq!(label(), None, "it is another statement's refusal");
    assert!(sleep());
    assert_eq!(label(), None, "it has no write lock");
    assert_eq!(own.shm_lock(ShmSlot::WRITE, UNLOCK), ResultCode::OK);
}

/// A connection of another process that waits for the write lock of a database, and perhaps one that has it.
struct Elsewhere {
    queue: Queue<Sidecar>,
    taken: Option<Taken>,
    place: Place,
}

impl Elsewhere {
    /// Takes the write lock, if it is free.
    fn beside(connection: &TestConnection) -> Self {
        let sidecar = Sidecar::open(connection.database().path(), false).expect("there is one");
        let queue = Queue::new(sidecar);
        let taken = queue.try_acquire(0, Purpose::Write, None, &mut Pace::default());
        let taken = taken.expect("no I/O");
        let place = queue.join(Rank::Last, Duration::ZERO, Purpose::Write);
        let mut place = place.expect("there is room");
        assert_eq!(queue.wait(&mut place, Duration::from_millis(1), Until::Turn), None);
        Self { queue, taken, place }
    }

    fn release(self) {
        self.queue.leave(&self.place);
        self.queue.release(self.taken.expect("it has it"), None, || {}).expect("no I/O");
    }
}

/// A connection that is about to write, by a statement of kind 1, while another process has the write lock.
fn refused_by_another_process() -> (tempfile::TempDir, TestConnection, &'static TestBase, Elsewhere)
{
    let directory = tempfile::tempdir().expect("a directory");
    let (own, base) = connection(&directory);
    base.has_bytes(4096);
    base.is_immediate.set(true);
    runs(base, 1, true);
    own.database().make_sidecar();
    let holder = Elsewhere::beside(&own);
    assert!(holder.taken.is_some());
    (directory, own, base, holder)
}

/// A busy handler that sleeps for 1 ms by itself, and says whether SQLite `goes_on`. Counts its calls in `asked`.
fn sleeps(asked: &'static Cell<u32>, goes_on: bool) -> Option<Box<dyn Fn() -> bool>> {
    Some(Box::new(move || {
        asked.set(asked.get() + 1);
        std::thread::sleep(Duration::from_millis(1));
        goes_on
    }))
}

/// Makes the connection run a statement of `kind`.
fn runs(base: &TestBase, kind: u64, may_write: bool) {
    let kind = Some(Kind::of_hash(kind));
    base.running.set(Some(Running { kind, may_write, ..Running::default() }));
}

/// The READ slot that SQLite shares first.
const READ: (ShmSlot, ShmFlags) = (ShmSlot::READ_0, ShmFlags::LOCK_SHARED);

/// SQLite begins to write, and is refused. Returns whether the connection had a place in the queue then, and how long it took
/// to begin to read.
fn begins_in_vain(own: &mut TestConnection) -> (bool, Duration) {
    let began = Instant::now();
    assert_eq!(own.shm_lock(READ.0, READ.1), ResultCode::OK);
    let found = (own.claim.wait.place().is_some(), began.elapsed());
    assert_eq!(own.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::BUSY);
    assert_eq!(own.claim.wait.place(), None);
    assert_eq!(own.shm_lock(READ.0, ShmFlags::UNLOCK_SHARED), ResultCode::OK);
    found
}

/// A busy handler sleeps by itself, and then SQLite begins anew. While the write lock is taken and another connection waits for
/// it, the VFS calls the handler once, in SQLite's place. Then the connection has a place in the queue until it is refused
/// again. If the handler says no, the connection has none. The VFS does not call the handler for a statement of another kind,
/// for one that only reads, or if nobody waits.
#[test]
fn a_connection_has_a_place_after_its_handler_has_slept_by_itself() {
    let (_directory, mut own, base, holder) = refused_by_another_process();
    let asked: &Cell<u32> = Box::leak(Box::default());
    // Whether it has a place after it has begun to read, and how often the handler was asked.
    let mut begins = || (begins_in_vain(&mut own).0, asked.take());
    *base.busy_handler.borrow_mut() = sleeps(asked, true);
    assert_eq!(begins(), (false, 0), "it was not refused before");
    assert_eq!(begins(), (true, 1));
    assert_eq!(begins(), (true, 1));
    *base.busy_handler.borrow_mut() = sleeps(asked, false);
    assert_eq!(begins(), (false, 1));
    runs(base, 2, true);
    assert_eq!(begins(), (false, 0));
    runs(base, 2, false);
    assert_eq!(begins(), (false, 0));
    *base.busy_handler.borrow_mut() = None;
    runs(base, 1, true);
    assert_eq!((begins(), begins()), ((false, 0), (false, 0)));
    assert_eq!(holder.queue.on_the_page().len(), 1, "the other one's");
    holder.queue.leave(&holder.place);
    *base.busy_handler.borrow_mut() = sleeps(asked, true);
    assert_eq!((begins(), begins()), ((false, 0), (false, 0)), "nobody waits in the queue");

    // The lock is free: there is nothing to wait for.
    holder.release();
    assert_eq!(own.shm_lock(READ.0, READ.1), ResultCode::OK);
    assert_eq!((own.claim.wait.place(), asked.take()), (None, 0));
    assert_eq!(own.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
}

/// An application was refused, and then did something else for a while. When it tries again, its handler sleeps for a moment.
/// The connection does not wait in the queue for as long as the application did something else.
#[test]
fn what_an_application_does_between_two_statements_is_no_sleep_of_its_handler() {
    let (_directory, mut own, base, _holder) = refused_by_another_process();
    *base.busy_handler.borrow_mut() = sleeps(Box::leak(Box::default()), true);
    begins_in_vain(&mut own);
    let pause = Duration::from_millis(50);
    let took = (0..5).map(|_| {
        std::thread::sleep(pause);
        let (has_place, took) = begins_in_vain(&mut own);
        assert!(has_place);
        took
    });
    assert!(took.min().expect("there are five") < pause);
}

/// A thread of the same process has the write lock, and another process waits for it. A busy handler may sleep by itself so
/// that this thread runs, which it could not while the connection waits inside a lock call (Ruby's sqlite3). So the connection
/// does not wait there, and leaves the handler to SQLite.
#[test]
fn a_connection_does_not_wait_beside_its_handler_for_one_of_its_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut holder, base) = connection(&directory);
    base.has_bytes(4096);
    base.is_immediate.set(true);
    let mut own = connection_over(&directory, base);
    assert_eq!(holder.shm_lock(READ.0, READ.1), ResultCode::OK);
    assert_eq!(holder.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::OK);
    let waiter = Elsewhere::beside(&own);
    assert!(waiter.taken.is_none() && waiter.queue.has_waiters());
    runs(base, 1, true);
    let asked: &Cell<u32> = Box::leak(Box::default());
    *base.busy_handler.borrow_mut() = sleeps(asked, true);
    for _ in 0..3 {
        assert!(!begins_in_vain(&mut own).0);
        assert_eq!(asked.get(), 0);
    }
    own.claim.wait.sleep_beside_handler(Duration::from_millis(1));
    assert_eq!(own.claim.wait.place(), None);
}

/// A busy handler throws an exception over SQLite and this VFS, as in Ruby's sqlite3. SQLite had read the header of the
/// wal-index, and no longer knows whether its cache is older than that. So the next snapshot is refused with a code after which
/// SQLite empties the cache and begins again.
#[test]
fn sqlite_empties_its_cache_after_a_handler_that_did_not_return() {
    let (_directory, mut own, base, _holder) = refused_by_another_process();
    begins_in_vain(&mut own);
    *base.busy_handler.borrow_mut() = Some(Box::new(|| std::panic::resume_unwind(Box::new(()))));
    let mut reads = || {
        let read = || own.shm_lock(READ.0, READ.1);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok()
    };
    assert_eq!(reads(), None);
    *base.busy_handler.borrow_mut() = None;
    assert_eq!(reads(), Some(ResultCode::SCHEMA));
    assert_eq!(reads(), Some(ResultCode::OK));
}

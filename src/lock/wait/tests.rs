use std::cell::Cell;

use super::busy_handler::{DEFAULT_SLEEPS, HandlerKind};
use super::*;
use crate::lock::WriteLock;
use crate::lock::page::Page;
use crate::lock::queue::Purpose;

fn wait() -> Wait {
    Wait::of(&Database::at(std::path::Path::new("/no/such/board.db")), false)
}

/// What xSleep does: sleeps for a connection, or as the base does.
fn sleep(asked: Duration, base_sleep: impl Fn(Duration)) {
    if !super::sleep(asked, &base_sleep) {
        base_sleep(asked);
    }
}

/// A refusal by SQLite's own lock, which nobody can look at.
fn elsewhere() -> Obstacle {
    Obstacle::SqliteLock { probe: None, until_unlock: true }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The sleeps SQLite's default busy handler asks for, until it gives up.
fn sleeps(timeout_ms: u64) -> Vec<Duration> {
    let mut slept = 0;
    let table = DEFAULT_SLEEPS.into_iter().chain(std::iter::repeat(100));
    table
        .map_while(|entry| {
            let entry = entry.min(timeout_ms - slept);
            slept += entry;
            (entry > 0).then(|| ms(entry))
        })
        .collect()
}

#[test]
fn the_refusal_after_the_last_sleep_ends_the_wait() {
    for timeout in [10, 50, 100, 1000, 5000, 10_000, 30_000] {
        let mut wait = wait();
        assert_eq!(wait.refused(elsewhere()), None);
        let sleeps = sleeps(timeout);
        for (n, asked) in sleeps.iter().enumerate() {
            sleep(*asked, |slept| assert_eq!(slept, *asked));
            let ended = wait.refused(elsewhere());
            assert_eq!(ended.is_some(), n + 1 == sleeps.len(), "{timeout} ms, sleep {n}");
        }
        assert_eq!(wait.end(), None);
    }
}

/// An application's own busy handler sleeps as long as it likes, and goes on.
#[test]
fn a_custom_busy_handler_is_not_at_its_end() {
    let sleeps: [&[u64]; 9] = [
        &[10; 30],
        &[1; 30],
        &[25; 30],
        &[1, 2, 4, 8, 16, 32, 64, 100, 100],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        &[50, 20, 10, 5, 2, 1, 1, 2],
        &[1, 2, 5, 10, 10, 10, 10, 10],
        &[1, 2, 5, 5, 5, 5],
        &[10, 2000, 10],
    ];
    for sleeps in sleeps {
        let mut wait = wait();
        assert_eq!(wait.refused(elsewhere()), None);
        for asked in sleeps {
            sleep(ms(*asked), |_| {});
            if *asked > 1000 {
                a_while_ago(&wait);
            }
            assert_eq!(wait.refused(elsewhere()), None, "{asked} of {sleeps:?}");
        }
        assert!(wait.end().is_some());
    }
}

/// The waits for one database, of a statement that made these `sleeps` for another; 7 ms of them were not slept.
fn wait_after(sleeps: &[Duration]) -> Wait {
    let (mut first, second) = (wait(), wait());
    for asked in sleeps {
        assert_eq!(first.refused(elsewhere()), None);
        sleep(*asked, |_| {});
    }
    first.shared.waiting.lock().handler.unslept = ms(7);
    assert!(matches!(first.acquired(), Some(Ok(_))));
    second
}

/// A statement writes to two databases, and waits for both. SQLite counts the calls of its busy handler through the whole
/// statement. So what was not slept for the first is slept for the second, and the last sleep is recognised as the last.
#[test]
fn a_wait_goes_on_from_the_one_before_in_the_same_statement() {
    for timeout in [20, 100, 300] {
        let sleeps = sleeps(timeout);
        for split in 1..sleeps.len() {
            let mut second = wait_after(&sleeps[..split]);
            let (slept, mut ended) = (Cell::new(Duration::ZERO), second.refused(elsewhere()));
            for asked in &sleeps[split..] {
                assert_eq!(ended, None, "{timeout} ms, {split}");
                sleep(*asked, |asked| slept.set(slept.get() + asked));
                ended = second.refused(elsewhere());
            }
            let asked: Duration = sleeps[split..].iter().sum();
            assert_eq!(slept.get(), asked + ms(7), "{timeout} ms, {split}");
            assert!(ended.is_some(), "{timeout} ms, {split}");
        }
    }
}

/// The second of two databases is free, but its snapshot is stale, so SQLite unlocks it at once and calls its busy handler.
/// Perhaps a writer was at the header of its wal-index before that, and recovery was refused. The wait continues the one for
/// the first database, and what was not slept for that one is slept.
#[test]
fn a_stale_snapshot_of_another_database_goes_on_from_the_wait_before() {
    for recovers in [false, true] {
        for timeout in [20, 50, 100] {
            let sleeps = sleeps(timeout);
            for split in 1..sleeps.len() {
                let mut second = wait_after(&sleeps[..split]);
                if recovers {
                    second.refused_unrelated();
                }
                assert_eq!(second.acquired(), None);
                assert!(second.released_at_once(), "the statement has waited");
                second.is_used_by(0);
                let slept = Cell::new(Duration::ZERO);
                for (n, asked) in sleeps.iter().enumerate().skip(split) {
                    sleep(*asked, |asked| slept.set(slept.get() + asked));
                    assert!(second.is_on(), "{timeout} ms, {split}");
                    let ended = second.refused(elsewhere());
                    assert_eq!(ended.is_some(), n + 1 == sleeps.len(), "{timeout} ms");
                }
                let asked: Duration = sleeps[split..].iter().sum();
                assert_eq!(slept.get(), asked + ms(7), "{timeout} ms, {split}");
            }
        }
    }
}

/// The last sleep for the first of two databases was cut short for a turn. SQLite sleeps no more, and the second waits for the
/// rest of the timeout, once. After a commit, another statement has a timeout of its own.
#[test]
fn what_is_left_of_the_timeout_is_the_statements() {
    for commits in [false, true] {
        let (mut first, mut second) = (wait(), wait());
        for asked in sleeps(100) {
            first.refused(elsewhere());
            sleep(asked, |_| {});
        }
        first.shared.waiting.lock().handler.unslept = ms(9);
        first.acquired();
        if commits {
            forget_on_this_thread();
        }
        assert_eq!(second.take_rest(), if commits { Duration::ZERO } else { ms(9) });
        assert_eq!(second.take_rest(), Duration::ZERO);
    }
}

/// The last sleep was cut short for a turn, but the lock was refused. The call waits for the rest.
#[test]
fn what_is_left_of_the_timeout_is_known_at_its_end() {
    for timeout in [13, 20, 100] {
        let mut wait = wait();
        wait.refused(elsewhere());
        let sleeps = sleeps(timeout);
        for (n, asked) in sleeps.iter().enumerate() {
            sleep(*asked, |_| {});
            wait.shared.waiting.lock().handler.unslept = ms(4);
            let is_last = n + 1 == sleeps.len();
            assert_eq!(wait.take_rest(), if is_last { ms(4) } else { Duration::ZERO });
            wait.refused(elsewhere());
        }
    }
}

/// A busy timeout that ends with a sleep of the table is known from the pragma that set it, or from a wait that ended with that
/// sleep. Then the last sleep is known, and what is left of it. The timeout is forgotten when the handler goes on.
#[test]
fn a_timeout_that_ends_with_a_sleep_of_the_table_is_learned() {
    let waits = |wait: &mut Wait, timeout| {
        wait.refused(elsewhere());
        let mut knew = false;
        for asked in sleeps(timeout) {
            sleep(asked, |_| {});
            wait.shared.waiting.lock().handler.unslept = ms(3);
            knew = !wait.take_rest().is_zero();
            wait.refused(elsewhere());
        }
        knew
    };
    for timeout in [8, 33, 103, 128, 328] {
        let mut wait = self::wait();
        assert!(!waits(&mut wait, timeout), "{timeout}: nobody has said so");
        assert!(waits(&mut wait, timeout), "{timeout}: it has ended so before");
        let mut wait = self::wait();
        wait.note_timeout(timeout);
        assert!(waits(&mut wait, timeout), "{timeout}: the pragma has said so");
        assert!(waits(&mut wait, 1000) && !waits(&mut wait, timeout), "it was set anew");
    }
}

/// The lock is granted with a stale snapshot, and the sleep that follows is the last of the timeout. It is longer by what was
/// not slept before.
#[test]
fn a_last_sleep_may_follow_a_stale_snapshot() {
    let mut wait = wait();
    for asked in [1, 2, 5, 10] {
        wait.refused(elsewhere());
        sleep(ms(asked), |_| {});
    }
    wait.shared.waiting.lock().handler.unslept = ms(8);
    assert!(matches!(wait.acquired(), Some(Ok(_))));
    wait.released_at_once();
    sleep(ms(2), |_| {});
    let waiting = wait.shared.waiting.lock();
    assert!(waiting.waits && waiting.handler.is_at_its_end());
}

/// A statement was refused and has ended, or read in the end, and the application sleeps again and again. Each sleep takes its
/// full time. SQLite's mptester waits for others like this, 200 times for 50 ms.
#[test]
fn an_application_that_has_not_tried_sleeps_as_long_as_it_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.db");
    std::fs::write(&path, b"").expect("there is room");
    let database = Database::at(&path);
    database.make_sidecar();
    let mut wait = Wait::of(&database, false);
    assert_eq!(wait.refused(Obstacle::WriteLock), None);
    sleep(ms(50), |_| {});
    for _ in 0..10 {
        let slept = Cell::new(Duration::ZERO);
        sleep(ms(50), |asked| slept.set(asked));
        assert_eq!(slept.get(), ms(50));
    }
    assert!(wait.place().is_none(), "nobody waits for it");
}

/// A statement waits for SHARED and then for RESERVED, without an end in between that the VFS could see. The handler counts
/// from the beginning again, and nobody has given up.
#[test]
fn a_busy_handler_that_starts_over_is_not_at_its_end() {
    let mut wait = wait();
    assert_eq!(wait.refused(elsewhere()), None);
    for asked in [1, 2, 5, 1, 2] {
        sleep(ms(asked), |_| {});
        assert_eq!(wait.refused(elsewhere()), None);
    }
    assert!(matches!(wait.acquired(), Some(Ok(_))));
}

#[test]
fn a_wait_ends_once_by_the_lock_or_by_giving_up() {
    let mut wait = wait();
    assert_eq!(wait.acquired(), None);
    assert_eq!(wait.refused(elsewhere()), None);
    assert!(matches!(wait.acquired(), Some(Ok(_))));
    assert_eq!(wait.end(), None);
    assert_eq!(wait.refused(elsewhere()), None);
    assert!(wait.end().is_some());
    assert_eq!(wait.end(), None);
}

/// The lock is granted with a stale snapshot, and SQLite sleeps again. The wait goes on from its old beginning, and so does the
/// count of the handler's calls.
#[test]
fn a_stale_snapshot_does_not_begin_a_new_wait() {
    let mut wait = wait();
    wait.refused(elsewhere());
    let since = wait.shared.waiting.lock().first_refused_at;
    for asked in [1, 2, 5] {
        sleep(ms(asked), |_| {});
        wait.refused(elsewhere());
    }
    assert!(matches!(wait.acquired(), Some(Ok(_))));
    wait.released_at_once();
    sleep(ms(10), |_| {});
    let waiting = wait.shared.waiting.lock();
    assert!(waiting.waits && waiting.can_queue && !waiting.handler.is_at_its_end());
    assert_eq!((waiting.first_refused_at, waiting.handler.sleeps), (since, 4));
}

/// An application has committed, or rolled back, and sleeps. Its sleep takes its full time.
#[test]
fn an_application_sleeps_undisturbed_after_a_transaction() {
    for asked in [0, 1, 2, 5, 10, 100, 1000] {
        for commits in [true, false] {
            let mut wait = wait();
            wait.acquired();
            wait.released_at_once();
            if commits {
                forget_on_this_thread();
            }
            let slept = Cell::new(false);
            sleep(ms(asked), |sleeps| slept.set(sleeps == ms(asked)));
            let looks_like_a_handler = asked == 1 && !commits;
            assert_eq!(
                wait.shared.waiting.lock().waits,
                looks_like_a_handler,
                "{asked}, {commits}"
            );
            assert!(slept.get());
        }
    }
}

/// A client that wakes nobody has SQLite's own lock. The thread that was refused looks for it every millisecond, until
/// the connection is used.
#[test]
fn a_waiter_looks_for_sqlites_own_lock() {
    let looks = Arc::new(Mutex::new(0));
    let mut wait = wait();
    let refused = |wait: &mut Wait, until_unlock, free_after| {
        let seen = Arc::clone(&looks);
        let probe: Probe = Box::new(move || {
            *seen.lock() += 1;
            *seen.lock() >= free_after
        });
        *looks.lock() = 0;
        wait.refused(Obstacle::SqliteLock { probe: Some(probe), until_unlock });
    };
    let longest = Cell::new(Duration::ZERO);
    // This does not sleep, so that a busy machine has time for all looks.
    let pause = |asked: Duration| {
        longest.set(longest.get().max(asked));
        std::thread::yield_now();
    };
    {
        let mut wait = self::wait();
        refused(&mut wait, true, 3);
        sleep(ms(100), pause);
        assert_eq!(*looks.lock(), 3, "and then SQLite tries");
        assert!(!wait.shared.waiting.lock().handler.unslept.is_zero());
    }
    // A busy machine may leave no time for looks.
    for _ in 0..20 {
        refused(&mut wait, true, i32::MAX);
        sleep(ms(25), pause);
        if *looks.lock() > 3 {
            break;
        }
    }
    assert!(longest.get() <= ms(1) && *looks.lock() > 3);
    assert!(wait.shared.waiting.lock().handler.unslept.is_zero());

    refused(&mut wait, true, 1);
    wait.unlocked();
    sleep(ms(25), pause);
    assert_eq!(*looks.lock(), 0, "it asked about locks that are released");
    refused(&mut wait, false, 1);
    wait.unlocked();
    sleep(ms(25), pause);
    assert_eq!(*looks.lock(), 1);
    wait.unlocked();
    wait.remove_probe();
    sleep(ms(50), pause);
    assert_eq!(*looks.lock(), 1, "the connection is in use");
}

/// A connection that never waited gets the lock with a stale snapshot, and its busy handler sleeps. The connection waits from
/// then on, and has waited when it has the lock.
#[test]
fn a_wait_may_begin_with_a_stale_snapshot() {
    let mut wait = wait();
    assert_eq!(wait.acquired(), None);
    wait.released_at_once();
    sleep(ms(1), |_| {});
    assert!(matches!(wait.acquired(), Some(Ok(_))));
}

/// A connection without a busy handler was refused. Then another connection of the same thread acquires the lock, and the
/// application sleeps. The sleep is for neither.
#[test]
fn a_thread_sleeps_for_nobody_after_it_acquired_a_lock() {
    let (mut first, mut second) = (wait(), wait());
    first.refused(Obstacle::WriteLock);
    assert_eq!(second.acquired(), None);
    sleep(ms(1), |_| {});
    assert_eq!(first.shared.waiting.lock().handler.sleeps, 0);
}

/// With group commit, a waiter yields to other threads for a moment. It takes a place in the queue only if the lock is not free
/// then, or is taken again. Without group commit it queues at once.
#[test]
fn a_waiter_queues_a_moment_later_if_holders_do_not_sync() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.db");
    std::fs::write(&path, b"").expect("there is room");
    let database = Database::at(&path);
    database.make_sidecar();
    let queues = |is_brief, is_held: bool, sleeps: u64| {
        let mut wait = Wait::of(&database, is_brief);
        let mut lock = WriteLock::of(&database, 1);
        lock.try_acquire(sys::monotonic_ns(), Purpose::Write, true, None).expect("it is free");
        let lock = is_held.then_some(lock);
        for n in 1..=sleeps {
            wait.refused(Obstacle::WriteLock);
            sleep(ms(n), |_| {});
        }
        drop(lock);
        wait.place().is_some()
    };
    assert!(!queues(true, false, 1), "it is free");
    assert!(queues(true, false, 2), "that was in vain");
    assert!(queues(true, true, 1));
    assert!(queues(false, false, 1));
}

/// A thread sleeps for the connection that was refused last, and for no other.
#[test]
fn a_thread_sleeps_for_the_connection_that_was_refused_last() {
    let (mut first, mut second) = (wait(), wait());
    let sleeps_of = |wait: &Wait| wait.shared.waiting.lock().handler.sleeps;
    first.refused(Obstacle::WriteLock);
    second.refused(Obstacle::WriteLock);
    sleep(ms(1), |_| {});
    assert_eq!((sleeps_of(&first), sleeps_of(&second)), (0, 1));
    first.refused_unrelated();
    sleep(ms(1), |_| {});
    assert_eq!((sleeps_of(&first), sleeps_of(&second)), (1, 1));
    assert!(!first.shared.waiting.lock().can_queue);
    first.end();
    first.refused_unrelated();
    sleep(ms(2), |_| {});
    assert_eq!((sleeps_of(&first), sleeps_of(&second)), (1, 1), "for none of them");
    std::thread::scope(|scope| scope.spawn(|| second.refused(Obstacle::WriteLock)).join())
        .expect("no panic");
    first.refused(Obstacle::WriteLock);
    sleep(ms(1000), |asked| assert_eq!(asked, ms(1000)));
    assert_eq!(sleeps_of(&first), 0, "no handler sleeps so long");
}

/// Makes the last refusal one of a while ago, after a wait of 5 ms.
fn a_while_ago(wait: &Wait) {
    let mut waiting = wait.shared.waiting.lock();
    waiting.refused_at -= 2 * APART_NS;
    waiting.first_refused_at = waiting.refused_at - 5_000_000;
}

/// The wait that ends if the connection is seen to have given up.
fn end_if_stale(wait: &Wait) -> Option<Duration> {
    wait.shared.waiting.lock().end_if_stale(sys::kernel_ns())
}

/// A connection without a busy handler gives up, which no call shows. It is used again a while later: its wait has ended, and
/// is no part of the next. A connection that sleeps, or was refused a moment ago, still waits.
#[test]
fn a_connection_that_has_not_slept_for_a_while_has_given_up() {
    let mut wait = wait();
    assert_eq!(end_if_stale(&wait), None);
    wait.refused(elsewhere());
    assert_eq!(end_if_stale(&wait), None, "a moment ago");
    a_while_ago(&wait);
    assert_eq!(end_if_stale(&wait), Some(ms(5)));
    assert_eq!(end_if_stale(&wait), None, "once");

    wait.refused(elsewhere());
    sleep(ms(1), |_| {});
    a_while_ago(&wait);
    assert_eq!(end_if_stale(&wait), None, "it sleeps");
    assert_eq!(wait.refused(elsewhere()), None, "it goes on");
    a_while_ago(&wait);
    assert_eq!(wait.refused(elsewhere()), Some(ms(5)), "and another begins");
    let waiting = wait.shared.waiting.lock();
    assert!(waiting.waits && waiting.handler.sleeps == 0);
    assert_eq!(waiting.first_refused_at, waiting.refused_at);
}

#[test]
fn a_wait_is_as_old_as_its_first_refusal() {
    let mut wait = wait();
    assert_eq!(wait.age(), Duration::ZERO);
    wait.refused(elsewhere());
    a_while_ago(&wait);
    assert!(wait.age() >= ms(2000));
    wait.end();
    assert_eq!(wait.age(), Duration::ZERO);
}

/// A connection has a busy handler as long as a sleep follows each refusal.
#[test]
fn a_busy_handler_is_known_by_its_sleeps() {
    let mut wait = wait();
    wait.refused(elsewhere());
    assert!(!wait.has_busy_handler());
    sleep(ms(1), |_| {});
    assert!(wait.has_busy_handler());
    wait.refused(elsewhere());
    assert!(wait.has_busy_handler());
    wait.refused(elsewhere());
    assert!(!wait.has_busy_handler());
}

/// SQLite's default busy handler sleeps by its table, and cuts its last sleep short. An application's own handler sleeps as it
/// likes, and none of its sleeps is known to be followed by another.
#[test]
fn a_default_busy_handler_is_known_until_its_last_sleep() {
    let cases: [(&[u64], bool); 6] = [
        (&[1], true),
        (&[1, 2, 5], true),
        (&[1, 2, 2], false),
        (&[1, 2, 5, 4], false),
        (&[3], false),
        (&[1, 2, 5, 50], false),
    ];
    for (sleeps, goes_on) in cases {
        let mut wait = wait();
        for asked in sleeps {
            wait.refused(elsewhere());
            sleep(ms(*asked), |_| {});
        }
        wait.refused(elsewhere());
        assert_eq!(wait.has_default_handler(), goes_on, "{sleeps:?}");
    }
}

/// A handler's calls are counted by the sleeps that it asks for. The VFS does not see those for a file of another VFS, and a
/// sleep for which the handler never asks is the application's.
#[test]
fn a_sleep_that_no_busy_handler_asks_for_is_not_counted() {
    let mut wait = wait();
    let sleeps_of = |wait: &Wait| wait.shared.waiting.lock().handler.sleeps;
    wait.refused(elsewhere());
    for (asked, sleeps) in [
        (Duration::ZERO, 0),
        (Duration::from_micros(500), 0),
        (Duration::from_micros(1500), 0),
        (ms(1), 1),
        (ms(10), 4),
        (ms(17), 4),
        (ms(15), 5),
    ] {
        let slept = Cell::new(false);
        sleep(asked, |slept_for| slept.set(slept_for == asked));
        assert_eq!((sleeps_of(&wait), slept.get()), (sleeps, true), "{asked:?}");
        wait.refused(elsewhere());
    }
}

/// A connection sleeps for one of SQLite's locks, with some time left over from sleeps that returned early. It sleeps all but
/// the last 100 ms at once, and then looks, often at first. In its last sleep it does not look, since no attempt follows.
#[test]
fn a_waiter_looks_at_the_end_of_a_long_sleep() {
    for (asked, expected) in
        [(ms(100), &[100_000, 100, 200, 400, 1000, 1000][..]), (ms(99), &[199_000])]
    {
        let mut wait = wait();
        let mut looks = 0;
        let probe: Probe = Box::new(move || {
            looks += 1;
            looks == 5
        });
        wait.refused(Obstacle::SqliteLock { probe: Some(probe), until_unlock: true });
        {
            let mut waiting = wait.shared.waiting.lock();
            (waiting.handler.sleeps, waiting.handler.unslept) = (DEFAULT_SLEEPS.len(), ms(100));
            waiting.handler.kind = HandlerKind::FollowsTable;
        }
        let slept = Mutex::new(Vec::new());
        sleep(asked, |slept_for| slept.lock().push(slept_for.as_micros()));
        assert_eq!(*slept.lock(), expected);
        let ahead = wait.shared.waiting.lock().handler.unslept;
        assert_eq!(ahead.is_zero(), asked == ms(99), "it keeps what it did not sleep");
    }
}

/// One thread uses a connection, and then another does. The first no longer sleeps for it.
#[test]
fn only_the_thread_that_used_a_connection_last_sleeps_for_it() {
    let mut wait = wait();
    wait.refused(elsewhere());
    std::thread::scope(|scope| scope.spawn(|| wait.refused(elsewhere())).join()).expect("no panic");
    sleep(ms(1), |_| {});
    assert_eq!(wait.shared.waiting.lock().handler.sleeps, 0);
    wait.refused(elsewhere());
    sleep(ms(1), |_| {});
    assert_eq!(wait.shared.waiting.lock().handler.sleeps, 1);
}

/// A stock client has SQLite's own lock, and nobody is in the queue. While a connection sleeps for
/// that lock, the page shows it to observers, but not to holders that look for a waiter to wake. A
/// sleep that is too short for people is not shown.
#[test]
fn a_connection_outside_the_queue_is_shown_while_it_sleeps() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.db");
    std::fs::write(&path, b"").expect("there is room");
    let database = Database::at(&path);
    database.make_sidecar();
    let shown = || {
        let bytes = std::fs::read(crate::lock::sidecar::path_of(&path)).expect("it is there");
        let page = Page::of(&bytes);
        assert_eq!(page.waiters().count(), 0, "it is not in the queue");
        page.outside().map(|waiter| waiter.pid).collect::<Vec<_>>()
    };
    let mut wait = Wait::of(&database, false);
    for (asked, expected) in [(1, vec![]), (50, vec![sys::pid()]), (50, vec![sys::pid()])] {
        assert_eq!(wait.refused(elsewhere()), None);
        sleep(ms(asked), |_| assert_eq!(shown(), expected, "{asked} ms"));
        assert_eq!(shown(), [0; 0], "it tries");
    }
    assert_eq!(database.waiters(), []);
    // Its slot is free for the queue.
    wait.refused(Obstacle::WriteLock);
    let mut lock = WriteLock::of(&database, 1);
    lock.try_acquire(sys::monotonic_ns(), Purpose::Write, true, None).expect("it is free");
    sleep(ms(1), |_| {});
    assert!(wait.place().is_some());
}

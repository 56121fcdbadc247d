//! A holder that is killed (SIGKILL, TerminateProcess) frees the lock at once.

use std::time::{Duration, Instant};

use vfs_tests::Board;

use crate::{agent, status};

/// A worker is killed in the middle of a transaction, while another waits. A lock made of a file's
/// existence, or of a row, would stay for ever; this one is the kernel's. Nor does the page go on to
/// name the dead.
#[test]
fn a_killed_holder_frees_the_lock() {
    for mode in ["delete", "wal"] {
        let board = Board::new();
        let (mut victim, mut survivor) = (agent(), agent());
        survivor.open("s", &board.kanban(), 60_000);
        survivor.sql("s", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
        victim.open("v", &board.kanban(), 60_000);
        victim.sql("v", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
        assert_eq!(status(&mut survivor, "s", "/holder/pid"), victim.pid());
        survivor.send_sql("s", "INSERT INTO t VALUES (2)");
        assert_eq!(survivor.reply_within(Duration::from_millis(50)), None, "the survivor waits");
        victim.kill();
        let killed = Instant::now();
        survivor.reply().rows();
        // Not a minute later: the kernel frees the lock, no timeout does.
        assert!(killed.elapsed() < Duration::from_secs(30));
        assert_eq!(survivor.sql("s", "SELECT x FROM t").rows(), [[2]]);

        let mut second = agent();
        second.open("v", &board.kanban(), 60_000);
        second.sql("v", "BEGIN IMMEDIATE").rows();
        second.kill();
        assert!(status(&mut survivor, "s", "/holder").is_null());
    }
}

/// The same with the victim killed at any moment of a tight loop of writes.
#[test]
fn kills_at_any_moment_leave_the_board_usable() {
    let board = Board::new();
    let mut survivor = agent();
    survivor.open("s", &board.kanban(), 60_000);
    survivor.sql("s", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    for round in 0..20 {
        let mut victim = agent();
        victim.open("v", &board.kanban(), 60_000);
        for n in 0..500 {
            victim.send_sql("v", &format!("INSERT INTO t VALUES ({n})"));
        }
        std::thread::sleep(Duration::from_millis(1 + round % 7));
        victim.kill();
        survivor.sql("s", "INSERT INTO t VALUES (-1)").rows();
    }
    assert_eq!(survivor.sql("s", "SELECT count(*) FROM t WHERE x = -1").rows(), [[20]]);
    assert_eq!(survivor.sql("s", "PRAGMA integrity_check").rows(), [["ok"]]);
}

/// A waiter that is killed delays nobody behind it.
#[test]
fn a_killed_waiter_is_passed_over() {
    let board = Board::new();
    let mut holder = agent();
    holder.open("h", &board.kanban(), 60_000);
    holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    let (mut victim, mut waiter) = (agent(), agent());
    for (n, client) in [&mut victim, &mut waiter].into_iter().enumerate() {
        client.open("w", &board.kanban(), 60_000);
        client.send_sql("w", &format!("INSERT INTO t VALUES ({n})"));
        crate::until_waiters(&mut holder, "h", n + 1);
    }
    victim.kill();
    holder.sql("h", "COMMIT").rows();
    waiter.reply().rows();
    assert_eq!(waiter.sql("w", "SELECT x FROM t").rows(), [[1]]);
}

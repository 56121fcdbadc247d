//! A holder that is killed frees the write lock at once, and its transaction is rolled back.

use std::time::{Duration, Instant};

use vfs_tests::sidecar::holder;
use vfs_tests::{Board, Program};

use crate::pairs;

/// A worker is killed with SIGKILL in the middle of a transaction. A lock made of a file's
/// existence, or of a row, would stay for ever; this one is the kernel's.
#[test]
fn a_killed_holder_frees_the_lock() {
    for mode in ["delete", "wal"] {
        for (mut victim, mut survivor) in pairs() {
            let board = Board::new();
            survivor.open("s", &board.kanban(), 60_000);
            survivor.sql("s", &format!("PRAGMA journal_mode={mode}")).rows();
            survivor.sql("s", "CREATE TABLE t (x)").rows();
            victim.open("v", &board.kanban(), 60_000);
            victim.sql("v", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
            assert_eq!(holder(&board.sidecar()), Some(victim.pid()));
            survivor.send_sql("s", "INSERT INTO t VALUES (2)");
            assert_eq!(
                survivor.reply_within(Duration::from_millis(50)),
                None,
                "the survivor waits"
            );
            victim.kill();
            let killed = Instant::now();
            survivor.reply().rows();
            // Not a minute later: the kernel frees the lock, no timeout does.
            assert!(killed.elapsed() < Duration::from_secs(30));
            assert_eq!(survivor.sql("s", "SELECT x FROM t").rows(), [[2]]);
        }
    }
}

/// The same, many times over, with the victim killed at any moment of a tight loop of writes.
#[test]
fn kills_at_any_moment_leave_the_board_usable() {
    let board = Board::new();
    let mut survivor = crate::agent(Program::Rust);
    survivor.open("s", &board.kanban(), 60_000);
    survivor.sql("s", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    for round in 0..40 {
        let mut victim = crate::agent(Program::Rust);
        victim.open("v", &board.kanban(), 60_000);
        for n in 0..2000 {
            victim.send_sql("v", &format!("INSERT INTO t VALUES ({n})"));
        }
        std::thread::sleep(Duration::from_millis(1 + round % 7));
        victim.kill();
        survivor.sql("s", "INSERT INTO t VALUES (-1)").rows();
    }
    assert_eq!(survivor.sql("s", "SELECT count(*) FROM t WHERE x = -1").rows(), [[40]]);
    assert_eq!(survivor.sql("s", "PRAGMA integrity_check").rows(), [["ok"]]);
}

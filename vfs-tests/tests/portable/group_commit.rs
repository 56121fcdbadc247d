//! Group commit, asked for: it is there, or status says why not.

use vfs_tests::Board;

use crate::{agent, status};

/// Four workers ask for group commit and write with `synchronous=FULL`. Where there is none, each of
/// their commits syncs for itself, and status says so and why; every row is there, and none waits for a
/// sync that nobody makes.
#[test]
fn a_client_that_asks_for_it_has_it_or_is_told_why_not() {
    let board = Board::new();
    let uri = format!("{}&kanban_group_commit=1", board.kanban());
    let mut workers: Vec<_> = (0..4).map(|_| agent()).collect();
    for worker in &mut workers {
        worker.open("w", &uri, 60_000);
        worker.sql("w", "PRAGMA journal_mode=wal; PRAGMA synchronous=full").rows();
        worker.sql("w", "CREATE TABLE IF NOT EXISTS t (x)").rows();
    }
    for worker in &mut workers {
        for n in 0..25 {
            worker.send_sql("w", &format!("INSERT INTO t VALUES ({n})"));
        }
    }
    for worker in &mut workers {
        for _ in 0..25 {
            worker.reply().rows();
        }
        let state = status(worker, "w", "/group_commit");
        assert_eq!(state["active"], cfg!(target_os = "linux"), "{state}");
        let led = status(worker, "w", "/counters/syncs_led").as_u64().unwrap();
        let covered = status(worker, "w", "/counters/commits_covered").as_u64().unwrap();
        if cfg!(target_os = "linux") {
            // A commit whose leader does not get on for 100 ms, on a busy machine, syncs for itself.
            assert!(led + covered >= 15, "{led} led, {covered} covered");
        } else {
            assert!(state["why"].as_str().is_some_and(|why| !why.is_empty()), "{state}");
            assert_eq!((led, covered), (0, 0));
        }
        if cfg!(windows) {
            assert!(state["why"].as_str().unwrap().contains("Windows"), "{state}");
        }
    }
    let reader = &mut workers[0];
    assert_eq!(reader.sql("w", "SELECT count(*) FROM t").rows(), [[100]]);
    reader.sql("w", "PRAGMA wal_checkpoint(truncate)").rows();
    assert_eq!(reader.sql("w", "PRAGMA integrity_check").rows(), [["ok"]]);
}

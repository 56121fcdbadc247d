//! Clients of the stock VFS on the same file stay correct: SQLite's own locks are taken as before.

use std::time::Duration;

use vfs_tests::{Board, Program};

use crate::agent;

const SQLITE_BUSY: i64 = 5;

/// A stock client and one of ours hold the lock in turn, in both orders, for every pair of
/// programs: the second waits, and writes when the first is done.
#[test]
fn stock_clients_and_ours_exclude_each_other() {
    for mode in ["delete", "wal"] {
        for (first_vfs, second_vfs) in [("unix", "kanban"), ("kanban", "unix")] {
            for program in Program::ALL {
                let board = Board::new();
                let (mut first, mut second) = (agent(Program::Rust), agent(program));
                first.open("c", &board.uri(first_vfs), 60_000);
                second.open("c", &board.uri(second_vfs), 60_000);
                first.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
                first.sql("c", "CREATE TABLE t (x)").rows();
                first.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
                second.send_sql("c", "INSERT INTO t VALUES (2)");
                let early = second.reply_within(Duration::from_millis(60));
                assert_eq!(early, None, "{mode}: {second_vfs} writes beside {first_vfs}");
                first.sql("c", "COMMIT").rows();
                second.reply().rows();
                assert_eq!(second.sql("c", "SELECT x FROM t").rows(), [[1], [2]]);
            }
        }
    }
}

/// A stock client has SQLite's lock and keeps it. The log does not blame a holder of ours, since
/// there is none, and says what else the cause can be.
#[test]
fn a_stock_holder_is_not_mistaken_for_one_of_ours() {
    let board = Board::new();
    let (mut stock, mut ours) = (agent(Program::Python), agent(Program::Rust));
    stock.open("c", &board.stock(), 5000);
    stock.sql("c", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    ours.open("c", &board.kanban(), 100);
    assert_eq!(ours.sql("c", "INSERT INTO t VALUES (1)").code(), SQLITE_BUSY);
    let log = ours.log();
    let [line] = &log[..] else { panic!("not one line: {log:?}") };
    assert!(line.contains("no client of this VFS has the write lock now; "), "{line}");
    assert!(line.contains(" SQLite's own"), "{line}");
    assert_eq!(
        vfs_tests::sidecar::holder(&board.sidecar()),
        None,
        "a refused client keeps nothing"
    );
}

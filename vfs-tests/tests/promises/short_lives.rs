//! A connection opens a board, writes once and closes it, like a command in a shell script, or a queue's worker. Such a life
//! is short, so most of its cost is what the VFS asks of the kernel.

use serde_json::json;
use vfs_tests::trace::Traced;
use vfs_tests::{Board, Program};

use crate::{agent, connect, stock_agent};

/// How many system calls such a life makes, on a board that a stock client keeps open.
fn calls(mode: &str, vfs: &str) -> usize {
    let board = Board::new();
    let keeper = connect(&board.stock());
    keeper
        .execute_batch(&format!(
            "PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (0)"
        ))
        .unwrap();
    let mut client =
        if vfs == "kanban" { agent(Program::Rust) } else { stock_agent(Program::Rust) };
    // These first lives make the calls that a process makes only once.
    for _ in 0..2 {
        client.open("c", &board.uri(vfs), 60_000);
        client.sql("c", "INSERT INTO t VALUES (1)").rows();
        client.close("c");
    }
    let life = [
        json!(["open", "c", board.uri(vfs), 60_000]),
        json!(["sql", "c", "INSERT INTO t VALUES (2)"]),
        json!(["close", "c"]),
    ];
    let made = Traced::new(client).run(&life, |_, _| false).expect_err("it stops nowhere");
    let rows = keeper.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows, Ok(4), "it has written");
    // brk(2) is the allocator's.
    made.iter().filter(|call| **call != libc::SYS_brk).count()
}

/// A life makes at most this many system calls more than on the stock VFS. A further call needs a reason.
#[test]
fn a_life_takes_few_system_calls_more_than_a_stock_one() {
    for (mode, most) in [("wal", 83), ("delete", 61)] {
        let [stock, kanban] = ["unix", "kanban"].map(|vfs| calls(mode, vfs));
        assert!(stock > 30, "{mode}: the stock VFS makes {stock}");
        assert!(kanban - stock <= most, "{mode}: {kanban} calls, and {stock} on the stock VFS");
    }
}

//! One writer at a time, in the order in which they came.

use std::fs::File;
use std::io::Read;

use serde_json::json;
use vfs_tests::Board;

use crate::{SQLITE_BUSY, agent, status, until_waiters};

/// While one process is in a write transaction, another that begins one is refused, and told who
/// has the lock; readers go on. When it has committed, the next one can.
#[test]
fn a_writer_excludes_writers_and_no_readers() {
    for mode in ["delete", "wal"] {
        let board = Board::new();
        let (mut holder, mut other) = (agent(), agent());
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
        other.open("o", &board.kanban(), 0);
        assert_eq!(status(&mut other, "o", "/holder"), json!(null));
        holder.sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();

        assert_eq!(other.sql("o", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
        assert_eq!(other.sql("o", "SELECT count(*) FROM t").rows(), [[0]], "a reader goes on");
        assert_eq!(status(&mut other, "o", "/holder/pid"), json!(holder.pid()));
        assert_eq!(status(&mut other, "o", "/holder/this_process"), json!(false));
        let program = status(&mut other, "o", "/holder/program");
        assert!(program.as_str().unwrap().starts_with("agent"), "{program}");
        assert_eq!(status(&mut holder, "h", "/holder/this_connection"), json!(true));

        holder.sql("h", "COMMIT").rows();
        assert_eq!(status(&mut other, "o", "/holder"), json!(null));
        other.sql("o", "INSERT INTO t VALUES (2)").rows();
        assert_eq!(status(&mut other, "o", "/counters/refused"), json!(1));
    }
}

/// The same between two connections of one process, whose locks the system does not tell apart where
/// they belong to the process or to one handle.
#[test]
fn connections_of_one_process_exclude_each_other() {
    let board = Board::new();
    let mut client = agent();
    client.open("a", &board.kanban(), 0);
    client.open("b", &board.kanban(), 0);
    client.sql("a", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    assert_eq!(client.sql("b", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
    // To look who has the lock does not release it.
    assert_eq!(status(&mut client, "b", "/holder/this_process"), json!(true));
    let mut other = agent();
    other.open("o", &board.kanban(), 0);
    assert_eq!(other.sql("o", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
    client.sql("a", "COMMIT").rows();
    client.sql("b", "BEGIN IMMEDIATE; COMMIT").rows();
    other.sql("o", "BEGIN IMMEDIATE; COMMIT").rows();
}

/// Four workers come one after another while a fifth is in a long transaction. They are served in the
/// order in which they came.
#[test]
fn waiters_are_served_in_order() {
    let board = Board::new();
    let mut holder = agent();
    holder.open("h", &board.kanban(), 60_000);
    holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    let mut waiters: Vec<_> = (0..4).map(|_| agent()).collect();
    for (n, waiter) in waiters.iter_mut().enumerate() {
        waiter.open("w", &board.kanban(), 60_000);
        waiter.send_sql("w", &format!("INSERT INTO t VALUES ({n})"));
        until_waiters(&mut holder, "h", n + 1);
    }
    let pids: Vec<_> = waiters.iter().map(|waiter| json!(waiter.pid())).collect();
    for (n, pid) in pids.iter().enumerate() {
        assert_eq!(status(&mut holder, "h", &format!("/queue/{n}/pid")), *pid);
    }
    holder.sql("h", "COMMIT").rows();
    for waiter in &mut waiters {
        waiter.reply().rows();
    }
    assert_eq!(holder.sql("h", "SELECT x FROM t ORDER BY rowid").rows(), [[0], [1], [2], [3]]);
}

/// An application that opens, reads and closes its own database frees none of its locks: neither on
/// unix, where the stock VFS's would be gone, nor where locks belong to a handle.
#[test]
fn another_close_drops_no_lock() {
    let board = Board::new();
    let (mut holder, mut other) = (agent(), agent());
    holder.open("h", &board.kanban(), 0);
    holder.sql("h", "PRAGMA journal_mode=delete; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    for file in [board.path(), board.sidecar()] {
        holder.read(&file);
        File::open(file).unwrap().read_exact(&mut [0; 16]).unwrap();
    }
    for vfs in ["kanban", vfs_tests::STOCK_VFS] {
        other.open("o", &board.uri(vfs), 0);
        assert_eq!(other.sql("o", "BEGIN IMMEDIATE").code(), SQLITE_BUSY, "{vfs}");
    }
    let guarantee = "/guarantees/lock_cancellation";
    assert_eq!(status(&mut holder, "h", &format!("{guarantee}/active")), json!(true));
    if cfg!(windows) {
        for name in ["lock_cancellation", "fork"] {
            let why = status(&mut holder, "h", &format!("/guarantees/{name}/why"));
            assert!(why.as_str().unwrap().starts_with("does not apply"), "{why}");
        }
    }
}

/// A stock client beside ours: SQLite's own locks keep both from writing at once.
#[test]
fn stock_clients_take_part() {
    for mode in ["delete", "wal"] {
        let board = Board::new();
        let (mut ours, mut stock) = (agent(), agent());
        ours.open("c", &board.kanban(), 60_000);
        stock.open("c", &board.stock(), 60_000);
        ours.sql("c", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
        for client in [&mut ours, &mut stock] {
            for n in 0..50 {
                client.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
            }
        }
        for client in [&mut ours, &mut stock] {
            for _ in 0..50 {
                client.reply().rows();
            }
        }
        assert_eq!(ours.sql("c", "SELECT count(*) FROM t").rows(), [[100]]);
        assert_eq!(stock.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
}

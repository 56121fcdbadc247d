//! The loadable extension, in a process that is linked with nothing of this project.

use serde_json::json;
use vfs_tests::{Agent, Board, Program, extension};

use crate::{SQLITE_BUSY, agent, status};

/// A client that never heard of the VFS loads it, and takes part.
#[test]
fn a_client_that_loads_it_takes_part() {
    let board = Board::new();
    let mut linked = agent();
    let mut client = Agent::start_stock(Program::Rust, env!("CARGO_BIN_EXE_agent"));
    client.open("loader", "file::memory:", 0);
    client.call(&json!(["load", "loader", extension()])).rows();
    client.open("c", &board.kanban(), 0);
    linked.open("l", &board.kanban(), 0);
    client.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    let expected = format!("kanban/{}", vfs_tests::STOCK_VFS);
    assert_eq!(status(&mut client, "c", "/vfs"), expected);
    assert_eq!(linked.sql("l", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
    assert_eq!(status(&mut linked, "l", "/holder/pid"), client.pid());
    client.sql("c", "COMMIT").rows();
    linked.sql("l", "INSERT INTO t VALUES (1)").rows();
}

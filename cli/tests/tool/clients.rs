//! An operator asks which of his processes use the VFS, and which he has forgotten.

use std::process::Command;

use serde_json::{Value, json};

use vfs_tests::{Agent, Lines, Program, is_root};

use crate::{as_nobody, board, client, json, outcome};

/// The VFS of the process, as the status says it; `Value::Bool(false)` if it is not among the clients.
fn vfs_of(status: &Value, pid: u32) -> Value {
    let clients = status["clients"].as_array().unwrap();
    let found: Vec<_> = clients.iter().filter(|one| one["pid"] == pid).collect();
    assert!(found.len() < 2, "{status}");
    found.first().map_or(Value::Bool(false), |one| one["vfs"].clone())
}

/// Five processes have a board open: one has only read it through the VFS, one has written, one is
/// a stock client, one has a connection of each kind, and one has the file open and is no client.
/// The tool tells them apart by the kind of their locks and their open files. A process that closes
/// its connection is gone from the list.
#[test]
fn each_client_is_known_by_its_vfs() {
    let board = board();
    let mut reader = client(&board, "kanban");
    reader.sql("c", "SELECT count(*) FROM tasks").rows();
    let mut writer = client(&board, "kanban");
    writer.sql("c", "INSERT INTO tasks (title) VALUES ('one more')").rows();
    let mut idle = client(&board, "kanban");
    idle.sql("c", "PRAGMA user_version").rows();
    let mut stock = Agent::start_stock(Program::Python, "");
    stock.open("c", &board.uri("unix"), 0);
    stock.sql("c", "SELECT count(*) FROM tasks").rows();
    let mut no_client = Command::new("sh");
    no_client.args(["-c", "exec 9< \"$0\"; echo; read end"]).arg(board.path());
    let mut no_client = Lines::start(no_client);
    assert_eq!(no_client.hear(), "");

    let (code, status) = json("status", &board.path());
    assert_eq!(code, Some(0));
    let vfs = |pid| vfs_of(&status, pid);
    assert_eq!(
        [vfs(reader.pid()), vfs(writer.pid()), vfs(idle.pid())],
        ["kanban"; 3].map(Value::from)
    );
    assert_eq!(vfs(stock.pid()), "stock", "{status}");
    assert_eq!(vfs(no_client.pid()), Value::Null, "{status}");
    assert_eq!(status["clients"].as_array().unwrap().len(), 5, "{status}");

    let text = outcome(&[&"status", &board.path()]).1;
    for line in [
        "clients     5 processes have it open".to_owned(),
        format!("pid {} (python3) uses this VFS; ", reader.pid()),
        format!("pid {} (python3) is a stock client: it uses SQLite's own VFS; ", stock.pid()),
        format!("pid {} (sh) shows nothing of this VFS, and has no lock now", no_client.pid()),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    writer.close("c");
    assert_eq!(vfs_of(&json("status", &board.path()).1, writer.pid()), false);
}

/// A process had opened a board by the stock VFS before it opened it through this one: those locks stay of the kind that
/// any close cancels, and the status says that it uses both.
#[test]
fn a_process_with_both_kinds_of_connections_is_reported() {
    let board = board();
    let mut both = Agent::start(Program::Python, "");
    both.open("stock", &board.uri("unix"), 0);
    both.sql("stock", "SELECT count(*) FROM tasks").rows();
    assert_eq!(vfs_of(&json("status", &board.path()).1, both.pid()), "stock");
    both.open("c", &board.uri("kanban"), 0);
    both.sql("c", "INSERT INTO tasks (title) VALUES ('x')").rows();
    assert_eq!(vfs_of(&json("status", &board.path()).1, both.pid()), "both");
}

/// A process uses one board through the VFS, and another in the same directory through the stock
/// VFS. Its open files for the first do not hide that the second is used by SQLite's own VFS.
#[test]
fn a_stock_client_is_known_beside_another_board_of_ours() {
    for journal in ["wal", "delete"] {
        let board = board();
        let other = board.path().with_file_name("other.db");
        let mut both = client(&board, "kanban");
        both.sql("c", "INSERT INTO tasks (title) VALUES ('x')").rows();
        both.open("stock", &format!("file:{}?vfs=unix", other.display()), 0);
        both.sql("stock", &format!("PRAGMA journal_mode={journal}")).rows();
        both.sql("stock", "CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
        assert_eq!(vfs_of(&json("status", &other).1, both.pid()), "stock", "{journal}");
        assert_eq!(vfs_of(&json("status", &board.path()).1, both.pid()), "kanban", "{journal}");
    }
}

/// In a rollback mode a stock client that is idle has no lock: it looks like any process that has
/// the file open, and the status does not call it a stock client before it knows. A client of this
/// VFS is recognised nevertheless.
#[test]
fn an_idle_stock_client_is_not_guessed() {
    let board = board();
    client(&board, "kanban").sql("c", "PRAGMA journal_mode=delete").rows();
    let mut stock = Agent::start_stock(Program::Python, "");
    stock.open("c", &board.uri("unix"), 0);
    stock.sql("c", "SELECT count(*) FROM tasks").rows();
    let mut ours = client(&board, "kanban");
    ours.sql("c", "SELECT count(*) FROM tasks").rows();
    let (_, status) = json("status", &board.path());
    assert_eq!(
        (vfs_of(&status, stock.pid()), vfs_of(&status, ours.pid())),
        (Value::Null, json!("kanban"))
    );
    stock.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(vfs_of(&json("status", &board.path()).1, stock.pid()), "stock");
}

/// A user who may not look into others' processes is told that some may be missing, and not that there are none.
#[test]
fn clients_that_cannot_be_seen_are_mentioned() {
    if !is_root() {
        return vfs_tests::skip!(
            vfs_tests::needs::missing(&[vfs_tests::needs::ROOT]).unwrap().as_str()
        );
    }
    let board = board();
    let mut ours = client(&board, "kanban");
    ours.sql("c", "SELECT count(*) FROM tasks").rows();
    let (_place, mut nobody) = as_nobody(&board);
    nobody.args(["status", "--json"]).arg(board.path());
    let status: Value = serde_json::from_slice(&nobody.output().unwrap().stdout).unwrap();
    assert_eq!(status["clients"], json!([]));
    let missing = status["clients_missing"].as_str().unwrap();
    assert!(missing.contains("this user may not look into"), "{missing}");
    assert_eq!(json("status", &board.path()).1["clients_missing"], Value::Null);
}

/// A child of fork(2) has inherited its parent's descriptors, and shows as what the parent is, not as a stock client.
#[test]
fn a_forked_child_is_no_stock_client() {
    let board = board();
    let mut parent = client(&board, "kanban");
    parent.sql("c", "INSERT INTO tasks (title) VALUES ('x')").rows();
    parent.fork();
    let pid = parent.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child: u32 = children.trim().parse().unwrap();
    let (_, status) = json("status", &board.path());
    assert_eq!(vfs_of(&status, child), "kanban", "{status}");
    assert_eq!(vfs_of(&status, pid), "kanban", "{status}");
}

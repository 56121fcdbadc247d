//! A killed holder releases the write lock at once, and its transaction is rolled back.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use vfs_tests::sidecar::holder;
use vfs_tests::{Agent, Board, PATIENCE, Program};

use crate::{Client, pairs, stock_agent};

/// A worker is killed with SIGKILL in the middle of a transaction. A lock that consists of a file,
/// or of a row, would stay for ever; this one is the kernel's.
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
            // It does not take a minute: the kernel releases the lock, not a timeout.
            assert!(killed.elapsed() < Duration::from_secs(30));
            assert_eq!(survivor.sql("s", "SELECT x FROM t").rows(), [[2]]);
        }
    }
}

/// A process that its parent left behind; killed when dropped.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        // SAFETY: it takes numbers.
        unsafe { libc::kill(self.0 as libc::pid_t, libc::SIGKILL) };
    }
}

/// The only child of a process, as soon as it has one.
fn child_of(pid: u32) -> u32 {
    let began = Instant::now();
    loop {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        if let Ok(child) = children.trim().parse() {
            return child;
        }
        assert!(began.elapsed() < PATIENCE, "it has no child");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A worker is killed in a transaction while it starts a program: its child runs no fork handler,
/// and hangs. Returns the child.
fn killed_while_it_starts_a_child(mut victim: Agent, how: &str, fifo: &Path) -> Orphan {
    let made = std::process::Command::new("mkfifo").arg(fifo).status().unwrap();
    assert!(made.success());
    victim.send(&json!(["child without handlers", how, fifo]));
    let orphan = Orphan(child_of(victim.pid()));
    let child = orphan.0;
    // The child waits in open(2), since nobody writes to the FIFO.
    let began = Instant::now();
    let waits = || std::fs::read_to_string(format!("/proc/{child}/syscall"));
    while !waits().is_ok_and(|call| call.starts_with("257 ") || call.starts_with("56 ")) {
        assert!(began.elapsed() < PATIENCE, "{:?}", waits());
        std::thread::sleep(Duration::from_millis(1));
    }
    victim.kill();
    orphan
}

/// Checks that the log names the process that has the lock. If the look into all processes took too
/// long, the next attempt names it.
fn is_refused_until_it_is_told(client: &mut Agent, line: &str) {
    let began = Instant::now();
    loop {
        assert_eq!(client.sql("c", "BEGIN IMMEDIATE").code(), 5, "{line}");
        let log = client.log();
        if log.iter().any(|said| said.contains(line)) {
            return;
        }
        assert!(began.elapsed() < PATIENCE / 4, "{line}: {log:?}");
    }
}

/// A worker is killed in a transaction, and a child in which no fork handler ran lives on. Stock
/// locks are the parent's own, and are gone. Ours are shared by such a child, and Linux has no way
/// to prevent that. So the board is locked, for stock clients, too. But the status names that
/// process, and when it executes a program, or ends, the board is free.
#[test]
fn a_child_that_ran_no_fork_handler_is_named() {
    for (how, mode) in [("posix_spawn", "wal"), ("_Fork", "wal"), ("clone", "delete")] {
        for vfs in [Client::Stock, Client::Ours] {
            let board = Board::new();
            let mut survivor = vfs.open(Program::Rust, &board);
            survivor.sql("c", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
            let mut victim = vfs.open(Program::Python, &board);
            victim.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
            let (parent, fifo) = (victim.pid(), board.directory().join("fifo"));
            let orphan = killed_while_it_starts_a_child(victim, how, &fifo);
            let child = orphan.0;
            if vfs == Client::Ours {
                survivor.sql("c", "PRAGMA busy_timeout=60").rows();
                let mut stock = stock_agent(Program::Rust);
                stock.open("c", &board.stock(), 0);
                assert_eq!(stock.sql("c", "BEGIN IMMEDIATE").code(), 5, "{how} {mode}");

                let line = format!(
                    "process {child} (python3) keeps the write lock it inherited from process \
                     {parent}, which is dead; end it, or let it exec"
                );
                is_refused_until_it_is_told(&mut survivor, &line);
                let said = crate::status_of(&mut survivor, "c", "/holder");
                assert_eq!((&said["pid"], &said["gone"]), (&json!(parent), &json!(true)), "{said}");
                assert_eq!(
                    said["kept_by"],
                    json!([{"pid": child, "program": "python3"}]),
                    "{said}"
                );

                // The child goes on: it executes a program, or ends.
                std::fs::File::options().write(true).open(&fifo).unwrap();
                survivor.sql("c", "PRAGMA busy_timeout=60000").rows();
            }
            survivor.sql("c", "INSERT INTO t VALUES (2)").rows();
            assert_eq!(survivor.sql("c", "SELECT x FROM t").rows(), [[2]], "{how} {mode}");
            assert_eq!(survivor.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
        }
    }
}

/// The same with a stock connection in a process that has loaded the VFS: such a child shares its
/// locks, too, and there is no write lock of ours. Nor is there one if such a child has closed its
/// copy of the sidecar, although it shares its parent's memory, and so the mapping. The holder of
/// SQLite's own lock is named.
#[test]
fn a_child_that_keeps_sqlites_own_lock_is_named() {
    for (client, how, mode) in [
        (Client::StockBesideOurs, "_Fork", "wal"),
        (Client::StockBesideOurs, "_Fork", "delete"),
        (Client::Ours, "posix_spawn over sidecar", "wal"),
        (Client::Ours, "posix_spawn over sidecar", "delete"),
    ] {
        let board = Board::new();
        let mut survivor = Client::Ours.open(Program::Rust, &board);
        survivor.sql("c", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
        let mut victim = client.open(Program::Python, &board);
        victim.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
        let fifo = board.directory().join("fifo");
        let orphan = killed_while_it_starts_a_child(victim, how, &fifo);
        survivor.sql("c", "PRAGMA busy_timeout=60").rows();
        let line = format!("process {} (python3) has SQLite's own", orphan.0);
        is_refused_until_it_is_told(&mut survivor, &line);
        let named = crate::status_of(&mut survivor, "c", "/sqlite_lock");
        assert_eq!(named, json!([{"pid": orphan.0, "program": "python3"}]), "{mode}");
        std::fs::File::options().write(true).open(&fifo).unwrap();
        survivor.sql("c", "PRAGMA busy_timeout=60000; INSERT INTO t VALUES (2)").rows();
        assert_eq!(survivor.sql("c", "SELECT x FROM t").rows(), [[2]], "{mode}");
    }
}

/// The same, many times, with the victim killed at any moment of a tight loop of writes.
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

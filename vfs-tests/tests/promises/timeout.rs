//! A writer waits at most its busy timeout, then gets SQLITE_BUSY and one line in the log that
//! names the database, the wait, and the holder with how long it has held.

use std::time::{Duration, Instant};

use serde_json::json;
use vfs_tests::{Board, PATIENCE, Program, Reply};

use crate::{agent, pairs};

const SQLITE_BUSY: i64 = 5;

/// One process holds the write lock and forgets to commit. Others, with timeouts of their own, try
/// to write. On the stock VFS they get the error too, but nothing says who is to blame.
#[test]
fn a_refused_writer_learns_who_holds_the_lock() {
    for journal_mode in ["delete", "wal"] {
        let board = Board::new();
        let mut holder = agent(Program::Python);
        let mut writer = agent(Program::Rust);
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
        holder.sql("h", "CREATE TABLE t (x)").rows();
        holder.sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();

        writer.open("stock", &board.stock(), 300);
        assert_eq!(writer.sql("stock", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        assert_eq!(writer.log(), Vec::<String>::new(), "the stock VFS names nobody");

        writer.open("w", &board.kanban(), 300);
        let mut patient = agent(Program::Rust);
        patient.open("p", &board.kanban(), 60_000);
        patient.send_sql("p", "INSERT INTO t VALUES (3)");
        let began = Instant::now();
        while !writer.sql("w", "PRAGMA kanban_status").rows()[0][0]
            .as_str()
            .is_some_and(|status| status.contains("\"waiters\":1"))
        {
            assert!(began.elapsed() < PATIENCE);
        }
        let began = Instant::now();
        assert_eq!(writer.sql("w", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        let waited = began.elapsed();
        // The upper bound is for a wait that has lost its timeout, not for a slow machine.
        let possible = Duration::from_millis(290)..Duration::from_secs(20);
        assert!(possible.contains(&waited), "gave up after {waited:?}");
        let log = writer.log();
        let [line] = &log[..] else { panic!("not one line: {log:?}") };
        assert!(line.starts_with("5 gave up after waiting "), "{line}");
        let holder_is = format!(
            " (1 more in the queue): process {} (python3) has held the write lock for ",
            holder.pid()
        );
        assert!(line.contains(&holder_is), "{line}");
        assert!(line.ends_with(&format!("wait longer: {}", board.path().display())), "{line}");
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let [5, waited_ms, 1, _pid, _python3, held_ms, ..] = numbers[..] else { panic!("{line}") };
        assert!((290..=waited.as_millis() as u64).contains(&waited_ms), "{line}");
        assert!(held_ms >= waited_ms, "{line}");

        // Nothing is lost: the same transaction goes through once the holder is done.
        holder.sql("h", "COMMIT").rows();
        writer.sql("w", "INSERT INTO t VALUES (2)").rows();
        patient.reply().rows();
        assert_eq!(writer.sql("w", "SELECT count(*) FROM t").rows()[0][0], 3);
        assert_eq!(writer.log(), Vec::<String>::new());
    }
}

/// A writer waits for a holder that commits in time, in whatever program. Two of the 3.40.1 and
/// the newest SQLite in all four pairings.
#[test]
fn a_writer_gets_its_turn_when_the_holder_commits_in_time() {
    for (mut holder, mut writer) in pairs() {
        let board = Board::new();
        holder.open("h", &board.kanban(), 30_000);
        writer.open("w", &board.kanban(), 30_000);
        holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
        writer.send_sql("w", "INSERT INTO t VALUES (1)");
        assert_eq!(writer.reply_within(Duration::from_millis(100)), None, "the writer waits");
        holder.sql("h", "COMMIT").rows();
        writer.reply().rows();
    }
}

/// A client that never heard of busy timeouts (the C interface sets none) gets 5000 ms, or what its
/// connection string says. One that asks for none gets none.
#[test]
fn a_connection_that_sets_no_timeout_gets_one() {
    for (suffix, expected) in
        [("", 5000), ("&kanban_busy_timeout=40", 40), ("&kanban_busy_timeout=0", 0)]
    {
        let board = Board::new();
        let mut client = agent(Program::Rust);
        client.try_open("stock", &board.stock()).rows();
        assert_eq!(client.sql("stock", "PRAGMA busy_timeout").rows()[0][0], 0);
        client.try_open("c", &format!("{}{suffix}", board.kanban())).rows();
        assert_eq!(client.sql("c", "PRAGMA busy_timeout").rows()[0][0], expected);
        client.open("zero", &board.kanban(), 0);
        assert_eq!(client.sql("zero", "PRAGMA busy_timeout").rows()[0][0], 0);
    }
}

/// A client with a timeout of 0 is refused at once; the log gets its line when the client is used
/// again later, or closed.
#[test]
fn a_writer_that_does_not_wait_is_refused_at_once() {
    let board = Board::new();
    let mut holder = agent(Program::Rust);
    let mut writer = agent(Program::Rust);
    holder.open("h", &board.kanban(), 5000);
    holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    writer.open("w", &board.kanban(), 0);
    writer.send_sql("w", "INSERT INTO t VALUES (1)");
    let refused = writer.reply_within(Duration::from_secs(20));
    assert_eq!(refused.map(Reply::code), Some(SQLITE_BUSY));
    writer.close("w");
    let log = writer.log();
    let [line] = &log[..] else { panic!("not one line: {log:?}") };
    assert!(line.contains("gave up after waiting 0 ms"), "{line}");
    assert!(line.contains(&format!("process {}", holder.pid())), "{line}");
}

/// An application's own busy handler calls sqlite3_sleep, 10 ms each time, and goes on. The VFS is the default
/// one, so that these sleeps come to it, too. One that ends is no sign that the client has given up: SQLite's
/// mptester took each such line for an error, 652 in one run.
#[test]
fn a_client_that_waits_by_its_own_handler_has_not_given_up() {
    for journal_mode in ["delete", "wal"] {
        let board = Board::new();
        let mut holder = agent(Program::Rust);
        let mut writer = agent(Program::Rust);
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
        holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
        writer.open("w", &board.kanban(), 0);
        writer.call(&json!(["own busy handler", "w"])).rows();
        writer.send_sql("w", "INSERT INTO t VALUES (1)");
        assert_eq!(writer.reply_within(Duration::from_millis(300)), None, "it waits");
        holder.sql("h", "COMMIT").rows();
        writer.reply().rows();
        assert_eq!(writer.log(), Vec::<String>::new(), "{journal_mode}");
    }
}

/// SQLite 3.40.1 cuts a line of its log after 210 bytes. On a board in a deep directory, the name of
/// the board is cut, from the left, and not what happened.
#[test]
fn a_long_path_does_not_crowd_out_the_holder() {
    vfs_tests::needs!("sqlite3");
    let root = Board::new();
    let deep = root.directory().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let uri = format!("file:{}?vfs=kanban", deep.join("board.db").display());
    let mut holder = agent(Program::Rust);
    holder.open("h", &uri, 5000);
    holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    let load = format!(".load {}", vfs_tests::extension().display());
    let output = std::process::Command::new("sqlite3")
        .args([":memory:", "-cmd", ".log stdout", "-cmd", &load, "-cmd", &format!(".open {uri}")])
        .args(["-cmd", ".timeout 100", "INSERT INTO t VALUES (1)"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        said.lines().find(|line| line.contains("gave up")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("process {}", holder.pid())), "{line}");
    assert!(line.contains("wait longer: ..."), "{line}");
    assert!(line.ends_with("e/board.db"), "{line}");
}

/// A dashboard opens the board, reads and closes, beside a writer and alone. The last one out tries
/// for a lock to clean up, and needs not get it: nobody has given up, and nobody is to blame.
#[test]
fn readers_that_close_leave_no_line_in_the_log() {
    let board = Board::new();
    let (mut writer, mut reader) = (agent(Program::Python), agent(Program::Rust));
    writer.open("w", &board.kanban(), 5000);
    writer.sql("w", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    for suffix in ["", "&mode=ro"] {
        for name in ["a", "b", "c"] {
            reader.open(name, &format!("{}{suffix}", board.kanban()), 5000);
            reader.sql(name, "SELECT * FROM t").rows();
        }
        for name in ["a", "b", "c"] {
            reader.close(name);
        }
    }
    assert_eq!(reader.log(), Vec::<String>::new());
}

/// A read transaction that upgrades gets SQLITE_BUSY at once, as SQLite documents: waiting could
/// only make its snapshot staler.
#[test]
fn a_reader_that_upgrades_is_refused_at_once() {
    for journal_mode in ["delete", "wal"] {
        let board = Board::new();
        let mut holder = agent(Program::Python);
        let mut reader = agent(Program::Rust);
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
        holder.sql("h", "CREATE TABLE t (x)").rows();
        reader.open("r", &board.kanban(), 60_000);
        reader.sql("r", "BEGIN; SELECT * FROM t").rows();
        holder.sql("h", "BEGIN IMMEDIATE").rows();
        reader.send_sql("r", "INSERT INTO t VALUES (1)");
        let refused = reader.reply_within(Duration::from_secs(20));
        assert_eq!(refused.map(Reply::code), Some(SQLITE_BUSY), "{journal_mode}");
        holder.sql("h", "ROLLBACK").rows();
        reader.sql("r", "INSERT INTO t VALUES (1); COMMIT").rows();
    }
}

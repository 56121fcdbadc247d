//! A database, WAL or wal-index that is deleted, renamed or replaced while somebody has it open, and
//! a database by two names.

use std::fs;
use std::time::{Duration, Instant};

use vfs_tests::{Agent, Board, Program};

use crate::{agent, connect, status};

/// SQLITE_READONLY_DBMOVED; Python before 3.11 has no codes.
const MOVED: [i64; 2] = [1032, 0];

/// A board with one row, a backup of it, and a client that has it open.
fn scene(program: Program, vfs: &str, mode: &str) -> (Board, Agent) {
    let board = Board::new();
    let connection = connect(&board.uri(vfs));
    connection.pragma_update(None, "journal_mode", mode).unwrap();
    connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let backup = format!("VACUUM INTO '{}'", board.directory().join("backup.db").display());
    connection.execute_batch(&backup).unwrap();
    let mut client = agent(program);
    client.open("c", &board.uri(vfs), 5000);
    assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[1]]);
    client.sql("c", "INSERT INTO t VALUES (2)").rows();
    // What is in the WAL would be lost with it, whoever writes later.
    client.sql("c", "PRAGMA wal_checkpoint(truncate)").rows();
    (board, client)
}

/// What happens to the files, and what the message says has moved.
type Mishap = (&'static str, fn(&Board));

fn beside(board: &Board, suffix: &str) -> std::path::PathBuf {
    board.directory().join(format!("board.db{suffix}"))
}

const TO_THE_DATABASE: [Mishap; 3] = [
    ("mv backup.db board.db", |board| {
        fs::rename(board.directory().join("backup.db"), board.path()).unwrap();
    }),
    ("rm board.db", |board| fs::remove_file(board.path()).unwrap()),
    ("mv board.db old.db", |board| {
        fs::rename(board.path(), board.directory().join("old.db")).unwrap();
    }),
];

const TO_THE_WAL: [Mishap; 4] = [
    ("rm board.db-wal board.db-shm", |board| {
        fs::remove_file(beside(board, "-wal")).unwrap();
        fs::remove_file(beside(board, "-shm")).unwrap();
    }),
    ("rm board.db-wal", |board| fs::remove_file(beside(board, "-wal")).unwrap()),
    ("rm board.db-shm", |board| fs::remove_file(beside(board, "-shm")).unwrap()),
    ("cp board.db-wal new; mv new board.db-wal", |board| {
        let new = board.directory().join("new");
        fs::copy(beside(board, "-wal"), &new).unwrap();
        fs::rename(new, beside(board, "-wal")).unwrap();
    }),
];

fn refused(reply: vfs_tests::Reply, what: &str) {
    match reply {
        vfs_tests::Reply::Error { code, message } => {
            assert!(MOVED.contains(&code), "{what}: {code} {message}");
            assert_eq!(message, "attempt to write a readonly database", "{what}");
        }
        vfs_tests::Reply::Rows(_) => panic!("{what}: it was written"),
    }
}

/// A worker has the board open in WAL mode when the database is replaced by a backup, deleted or
/// renamed. On the stock VFS its next commits are acknowledged, and nobody will ever see them. (In
/// rollback modes SQLite itself looks whether the file has moved.)
#[test]
fn nothing_is_written_to_a_database_that_is_not_there() {
    for (what, mishap) in TO_THE_DATABASE {
        let (board, mut client) = scene(Program::Rust, "unix", "wal");
        mishap(&board);
        client.sql("c", "INSERT INTO t VALUES (3)").rows();
        drop(client);
        let found = connect(&board.stock());
        let seen = found.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        if what.starts_with("mv backup") {
            assert_ne!(seen, Ok(1), "the stock VFS mixes the WAL of one into the other");
        } else {
            assert_ne!(seen, Ok(3), "{what}: the stock VFS loses what it acknowledged");
        }

        for program in Program::ALL {
            for mode in ["wal", "delete"] {
                let (board, mut client) = scene(program, "kanban", mode);
                mishap(&board);
                refused(client.sql("c", "INSERT INTO t VALUES (3)"), what);
                refused(client.sql("c", "BEGIN IMMEDIATE"), what);
                if program == Program::Rust {
                    let log = client.log();
                    let ours: Vec<_> =
                        log.iter().filter(|line| line.contains("the database was")).collect();
                    assert!(ours.len() == 1 && ours[0].contains("board.db"), "{what}: {log:?}");
                }
                let says = client.sql("c", "PRAGMA kanban_status").rows();
                let says: serde_json::Value =
                    serde_json::from_str(says[0][0].as_str().unwrap()).unwrap();
                assert_eq!(says["guarantees"]["identity"]["active"], false, "{what}");
                assert!(says["counters"]["displaced"].as_u64() >= Some(2), "{what}");
                // What is there now, if anything, is written as ever by who opens it now.
                client.close("c");
                client.open("c", &board.kanban(), 5000);
                if what.starts_with("mv backup") {
                    assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[1]]);
                }
                client
                    .sql("c", "CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (4)")
                    .rows();
                assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
            }
        }
    }
}

/// The WAL, or its index, is deleted or replaced under a worker. On the stock VFS its commits go to a
/// file that nobody else has, or by an index that nobody else has, and are lost.
#[test]
fn nothing_is_written_to_a_wal_that_is_not_there() {
    for (what, mishap) in TO_THE_WAL {
        let (board, mut client) = scene(Program::Rust, "unix", "wal");
        mishap(&board);
        let mut acknowledged = 2;
        let mut insert = |client: &mut Agent, x| {
            let reply = client.sql("c", &format!("INSERT INTO t VALUES ({x})"));
            acknowledged += i64::from(matches!(reply, vfs_tests::Reply::Rows(_)));
        };
        insert(&mut client, 3);
        // Another comes and does its work, and the worker goes on until it is killed.
        let mut other = agent(Program::Rust);
        other.open("c", &board.stock(), 5000);
        other.sql("c", "SELECT count(*) FROM t");
        insert(&mut other, 4);
        insert(&mut client, 5);
        client.kill();
        drop(other);
        let found = connect(&board.stock());
        let seen = found.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        assert_ne!(seen, Ok(acknowledged), "{what}: the stock VFS loses what it acknowledged");

        for program in Program::ALL {
            let (board, mut client) = scene(program, "kanban", "wal");
            mishap(&board);
            refused(client.sql("c", "INSERT INTO t VALUES (3)"), what);
            // A checkpoint would copy frames of one WAL under the readers of another.
            refused(client.sql("c", "PRAGMA wal_checkpoint"), what);
            assert_eq!(client.sql("c", "SELECT count(*) FROM t WHERE x = 3").rows(), [[0]]);
            drop(client);
            let found = connect(&board.kanban());
            found.execute_batch("INSERT INTO t VALUES (4)").unwrap();
            assert_eq!(status(&found, "/guarantees/identity/active"), true);
            let ok: String =
                found.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(ok, "ok", "{what}");
        }
    }
}

/// A checkpoint as the last connection closes must not copy an orphaned WAL into a database that
/// others use by now.
#[test]
fn an_orphaned_wal_is_not_copied_at_close() {
    let (board, mut client) = scene(Program::Rust, "kanban", "wal");
    fs::remove_file(beside(&board, "-wal")).unwrap();
    fs::remove_file(beside(&board, "-shm")).unwrap();
    let other = connect(&board.kanban());
    other.execute_batch("INSERT INTO t VALUES (5)").unwrap();
    let before = fs::read(beside(&board, "-wal")).unwrap();
    drop(other);
    let database = fs::read(board.path()).unwrap();
    client.close("c");
    assert_eq!(fs::read(board.path()).unwrap(), database);
    assert_eq!(fs::read(beside(&board, "-wal")).unwrap(), before);
}

/// A dashboard only reads, and would show the board of yesterday for ever. It is told, if it reads on,
/// a second later.
#[test]
fn readers_are_told() {
    for mode in ["wal", "delete"] {
        for vfs in ["unix", "kanban"] {
            let (board, mut client) = scene(Program::Rust, vfs, mode);
            fs::rename(board.directory().join("backup.db"), board.path()).unwrap();
            let began = Instant::now();
            // The stock VFS reads on, however long.
            let patience =
                if vfs == "unix" { Duration::from_millis(1500) } else { vfs_tests::PATIENCE };
            let mut reply = client.sql("c", "SELECT count(*) FROM t");
            while matches!(reply, vfs_tests::Reply::Rows(_)) && began.elapsed() < patience {
                std::thread::sleep(Duration::from_millis(10));
                reply = client.sql("c", "SELECT count(*) FROM t");
            }
            match reply {
                vfs_tests::Reply::Error { code, .. } => {
                    assert_eq!((vfs, code), ("kanban", 1032), "{mode}");
                }
                vfs_tests::Reply::Rows(_) => assert_eq!(vfs, "unix", "{mode}: it was not told"),
            }
        }
    }
}

/// Two names of one database in two directories, and a worker by each. Each name has a journal of its
/// own: a worker that is killed leaves one that the other does not find. On the stock VFS the other
/// goes on with half a transaction.
#[test]
fn a_database_by_two_names_is_not_written() {
    let linked = |vfs: &str| {
        let (board, mut client) = scene(Program::Rust, vfs, "delete");
        let many = "CREATE TABLE big (x); CREATE INDEX i ON big (x);
                    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                    INSERT INTO big SELECT hex(randomblob(100)) FROM n";
        client.sql("c", many).rows();
        let other = Board::new();
        fs::hard_link(board.path(), other.path()).unwrap();
        (board, other)
    };
    let (board, other) = linked("unix");
    let mut killed = agent(Program::Rust);
    killed.open("c", &board.stock(), 5000);
    // With so small a cache, pages are in the file before the commit.
    let half = "PRAGMA cache_size=1; BEGIN; UPDATE big SET x = hex(randomblob(100))";
    killed.sql("c", half).rows();
    killed.kill();
    let found = connect(&other.stock());
    let intact: Result<String, _> = found.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    assert_ne!(intact.as_deref().unwrap_or("an error"), "ok", "half a transaction is there");

    let (board, other) = linked("kanban");
    for program in Program::ALL {
        for board in [&board, &other] {
            let mut client = agent(program);
            client.open("c", &board.kanban(), 5000);
            assert!([8, 0].contains(&client.sql("c", half).code()));
            assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[2]], "it can be read");
            client.close("c");
            client.open("c", &format!("{}&kanban_hard_links=1", board.kanban()), 5000);
            client.sql("c", "INSERT INTO t VALUES (9); DELETE FROM t WHERE x = 9").rows();
        }
    }
    let mut client = agent(Program::Rust);
    client.open("c", &board.kanban(), 5000);
    fs::remove_file(other.path()).unwrap();
    client.sql("c", "INSERT INTO t VALUES (3)").rows();
    assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
}

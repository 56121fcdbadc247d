//! A database, WAL or wal-index that is deleted, renamed or replaced while a client has it open, and a database with
//! two names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use vfs_tests::{Agent, Board, Program};

use crate::Client::{Ours, Stock};
use crate::{Client, agent, connect, status, went_well};

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
    // Long enough for the directory's time to show the next change.
    std::thread::sleep(Duration::from_millis(50));
    client.sql("c", "UPDATE t SET x = x").rows();
    // The frames in the WAL would be lost with the WAL.
    client.sql("c", "PRAGMA wal_checkpoint(truncate)").rows();
    (board, client)
}

/// What happens to the files, and the file that the message names as moved.
type Mishap = (&'static str, fn(&Board));

fn beside(board: &Board, suffix: &str) -> std::path::PathBuf {
    board.directory().join(format!("board.db{suffix}"))
}

const TO_THE_DATABASE: [Mishap; 4] = [
    ("mv backup.db board.db", |board| {
        fs::rename(board.directory().join("backup.db"), board.path()).unwrap();
    }),
    ("rm board.db", |board| fs::remove_file(board.path()).unwrap()),
    ("mv board.db old.db", |board| {
        fs::rename(board.path(), board.directory().join("old.db")).unwrap();
    }),
    ("mv boards old; mkdir boards; cp old/backup.db boards/board.db; mv old boards", |board| {
        let (boards, aside) = (board.directory(), tempfile::tempdir().unwrap());
        let old = aside.path().join("old");
        fs::rename(&boards, &old).unwrap();
        fs::create_dir(&boards).unwrap();
        fs::copy(old.join("backup.db"), board.path()).unwrap();
        fs::rename(old, boards.join("old")).unwrap();
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

/// A worker has the board open in WAL mode when the database is replaced by a backup, deleted or renamed, or its
/// directory is. On the stock VFS its next commits are acknowledged, and nobody will ever see them. (In rollback modes
/// SQLite itself checks whether the file has moved.)
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
                // Clients that open the new file write to it as usual.
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

/// The WAL, or its index, is deleted or replaced under a worker. On the stock VFS the worker commits to a file, or with
/// an index, that no other client has, and its commits are lost.
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
        // Another client comes and does its work, and the worker goes on until it is killed.
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

/// The checkpoint at the last close must not copy an orphaned WAL into a database that others use by now.
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

/// A dashboard only reads, and would show yesterday's board for ever. If it reads on, it gets an error a second later.
#[test]
fn readers_are_told() {
    for mode in ["wal", "delete"] {
        for vfs in ["unix", "kanban"] {
            let (board, mut client) = scene(Program::Rust, vfs, mode);
            fs::rename(board.directory().join("backup.db"), board.path()).unwrap();
            let began = Instant::now();
            // The stock VFS reads on, for any time.
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

/// One database has two names in two directories, and a worker by each name. Each name has its own journal: a worker
/// that is killed leaves one that the other does not find. On the stock VFS the other goes on with half a transaction.
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
    // With such a small cache, pages are in the file before the commit.
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

/// A worker has the board open, with commits that are only in the WAL, when somebody deletes the WAL. Another client
/// opens the board. The index has frames that the new, empty WAL does not have. On the stock VFS the client goes on
/// after them, and its acknowledged commits are lost when the index is.
#[test]
fn a_newcomer_does_not_go_by_the_index_of_another_wal() {
    let orphaned = |client: Client, program: Program| {
        let board = Board::new();
        let mut worker = client.open(program, &board);
        let create = "PRAGMA journal_mode=wal; CREATE TABLE t (x); CREATE TABLE u (x);
                      INSERT INTO t VALUES (1); INSERT INTO u VALUES (1);
                      PRAGMA wal_checkpoint(TRUNCATE);
                      INSERT INTO u VALUES (2); INSERT INTO u VALUES (3)";
        worker.sql("c", create).rows();
        fs::remove_file(beside(&board, "-wal")).unwrap();
        (board, worker)
    };
    let (board, worker) = orphaned(Stock, Program::Rust);
    let mut newcomer = Stock.open(Program::Rust, &board);
    newcomer.sql("c", "INSERT INTO t VALUES (4)").rows();
    worker.kill();
    newcomer.kill();
    let found = connect(&board.stock());
    let rows = |table: &str| {
        found.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
    };
    assert_ne!(rows("t"), Ok(2), "the stock VFS loses what it acknowledged");

    for program in Program::ALL {
        for other in Program::ALL {
            let context = format!("rm board.db-wal: {program:?}, {other:?}");
            let (board, mut worker) = orphaned(Ours, program);
            let mut newcomer = Ours.open(other, &board);
            for sql in ["SELECT * FROM t", "INSERT INTO t VALUES (4)", "BEGIN IMMEDIATE"] {
                refused(newcomer.sql("c", sql), &context);
            }
            assert!(!went_well(&newcomer.sql("c", "PRAGMA wal_checkpoint")), "{context}");
            refused(worker.sql("c", "INSERT INTO t VALUES (4)"), &context);
            newcomer.close("c");
            worker.close("c");
            newcomer.open("c", &board.kanban(), 5000);
            // The rows of u that were only in the WAL were lost with the WAL.
            assert_eq!(newcomer.sql("c", "SELECT x FROM u").rows(), [[1]], "{context}");
            newcomer.sql("c", "INSERT INTO t VALUES (5)").rows();
            assert_eq!(newcomer.sql("c", "SELECT x FROM t").rows(), [[1], [5]], "{context}");
            assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{context}");
        }
    }
}

/// A worker has the board for itself (locking_mode=EXCLUSIVE), in a rollback mode, when the database is replaced,
/// deleted or renamed. SQLite checks for that only when it opens its journal, which stays open here. On the stock VFS
/// the next commits are acknowledged, and nobody will ever see them.
#[test]
fn an_exclusive_connection_is_told_too() {
    let displaced = |client: Client, program: Program, mode: &str, mishap: fn(&Board)| {
        let vfs = if client == Ours { "kanban" } else { "unix" };
        let (board, mut worker) = scene(program, vfs, mode);
        worker.sql("c", "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES (3)").rows();
        mishap(&board);
        let acknowledged = [4, 5].map(|n| {
            let insert = format!("INSERT INTO t VALUES ({n})");
            let replies = ["BEGIN", &insert, "COMMIT"].map(|sql| worker.sql("c", sql));
            worker.sql("c", "ROLLBACK");
            replies.iter().all(went_well)
        });
        worker.kill();
        (acknowledged, board)
    };
    for (what, mishap) in TO_THE_DATABASE {
        for mode in ["delete", "truncate", "persist"] {
            let (acknowledged, board) = displaced(Stock, Program::Rust, mode, mishap);
            assert_eq!(acknowledged, [true; 2], "{what}, {mode}");
            let found = connect(&board.stock());
            let sql = "SELECT count(*) FROM t WHERE x > 3";
            let seen = found.query_row(sql, [], |row| row.get::<_, i64>(0));
            assert_ne!(seen, Ok(2), "{what}, {mode}: the stock VFS loses what it acknowledged");
            for program in Program::ALL {
                let (acknowledged, _) = displaced(Ours, program, mode, mishap);
                assert_eq!(acknowledged, [false; 2], "{what}, {mode}, {program:?}");
            }
        }
    }
}

/// A tool that restores files restores the times of their directories, too (tar, rsync -t). The directory of a replaced
/// WAL then looks unchanged.
#[test]
fn the_time_of_a_directory_is_not_believed() {
    let (what, replace) = TO_THE_WAL[3];
    let replaced = |vfs: &str, program: Program| {
        let (board, mut client) = scene(program, vfs, "wal");
        // A time an hour ago, as if nothing had happened there since.
        let directory = fs::File::open(board.directory()).unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        directory.set_modified(long_ago).unwrap();
        // Then the changes before that time was set are not remembered.
        std::thread::sleep(Duration::from_millis(100));
        client.sql("c", "INSERT INTO t VALUES (3)").rows();
        client.sql("c", "INSERT INTO t VALUES (4)").rows();
        replace(&board);
        directory.set_modified(long_ago).unwrap();
        let reply = client.sql("c", "INSERT INTO t VALUES (5)");
        client.kill();
        (board, reply)
    };
    let (board, reply) = replaced("unix", Program::Rust);
    reply.rows();
    let found = connect(&board.stock());
    let rows: i64 = found.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 4, "the stock VFS loses what it acknowledged");
    for program in Program::ALL {
        refused(replaced("kanban", program).1, what);
    }
}

/// The WAL of a hard-linked board has frames of a worker that was killed, or has none, since all went well. The first
/// reader, which makes the index anew, reads the board. Writing is refused as before.
#[test]
fn the_first_reader_of_a_database_by_two_names_reads_it() {
    for program in Program::ALL {
        for client in [Stock, Ours] {
            for killed in [false, true] {
                let context = format!("{program:?}, {client:?}, killed: {killed}");
                let board = Board::new();
                let mut worker = Ours.open(program, &board);
                worker.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
                worker.sql("c", "INSERT INTO t VALUES (1)").rows();
                if killed {
                    worker.kill();
                } else {
                    worker.close("c");
                }
                let name = board.directory().join("another name.db");
                fs::hard_link(board.path(), name).unwrap();
                let mut reader = client.open(program, &board);
                assert_eq!(reader.sql("c", "SELECT x FROM t").rows(), [[1]], "{context}");
                let reply = reader.sql("c", "INSERT INTO t VALUES (2)");
                match client {
                    Ours => assert!([8, 0].contains(&reply.code()), "{context}"),
                    _ => assert!(went_well(&reply), "{context}"),
                }
                let mut second = client.open(Program::Rust, &board);
                let expected = if client == Ours { 1 } else { 2 };
                let rows = second.sql("c", "SELECT count(*) FROM t").rows();
                assert_eq!(rows, [[expected]], "{context}");
            }
        }
    }
}

/// A process can no longer search the directory, since it has dropped its rights or somebody has removed them. So it
/// cannot see whether its files are in their places. It goes on, and gets no error that they moved. (As on the stock
/// VFS.)
#[test]
fn a_file_that_cannot_be_looked_at_has_not_moved() {
    let mut clients = Vec::new();
    for program in Program::ALL {
        for vfs in ["unix", "kanban"] {
            let (board, mut client) = scene(program, vfs, "wal");
            client.call(&serde_json::json!(["become nobody"])).rows();
            fs::set_permissions(board.directory(), fs::Permissions::from_mode(0o000)).unwrap();
            clients.push((board, client, format!("{program:?}, {vfs}")));
        }
    }
    for n in 3..5 {
        for (_, client, context) in &mut clients {
            for sql in [&format!("INSERT INTO t VALUES ({n})"), "SELECT * FROM t"] {
                if let vfs_tests::Reply::Error { code, message } = client.sql("c", sql) {
                    panic!("{context}: {sql}: {code} {message}");
                }
            }
        }
        // Readers look once a second.
        std::thread::sleep(Duration::from_millis(1100));
    }
    for (board, mut client, context) in clients {
        assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[4]], "{context}");
        fs::set_permissions(board.path().parent().unwrap(), fs::Permissions::from_mode(0o700))
            .unwrap();
        client.close("c");
        let found = connect(&board.kanban());
        let rows: i64 = found.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 4, "{context}");
    }
}

/// A connection's first statement switches a database with two names to WAL mode. It is refused before anything is
/// written. A refusal in the middle would leave a hot journal, and a refusal of the rollback would leave a board that
/// nobody can read.
#[test]
fn a_refusal_leaves_no_hot_journal() {
    for program in Program::ALL {
        let (board, client) = scene(Program::Rust, "kanban", "delete");
        drop(client);
        let other = board.directory().join("other.db");
        fs::hard_link(board.path(), &other).unwrap();
        for sql in ["PRAGMA journal_mode=wal", "BEGIN IMMEDIATE", "VACUUM"] {
            let mut client = agent(program);
            client.open("c", &board.kanban(), 5000);
            assert!([8, 0].contains(&client.sql("c", sql).code()), "{sql}");
            assert!(!beside(&board, "-journal").exists(), "{sql}");
            assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[2]], "{sql}");
        }
        // A writer that may write is killed in the middle. A reader rolls back its journal.
        let mut killed = agent(program);
        killed.open("c", &format!("{}&kanban_hard_links=1", board.kanban()), 5000);
        killed.sql("c", "CREATE TABLE big (x); INSERT INTO big VALUES (randomblob(200000))").rows();
        killed.sql("c", "PRAGMA cache_size=1").rows();
        killed.sql("c", "BEGIN; UPDATE big SET x = randomblob(200000)").rows();
        killed.kill();
        assert!(beside(&board, "-journal").exists());
        let mut client = agent(program);
        client.open("c", &board.kanban(), 5000);
        assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
}

/// A daemon opens its board and then changes its root directory, or enters a sandbox in which something else covers the
/// board's directory. Its files are where they were, so it goes on, in its turn. If the board is moved later, that is
/// noticed as before.
#[test]
fn a_process_that_sees_other_names_has_not_lost_its_files() {
    if !vfs_tests::is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("needs root: not run");
        return;
    }
    for program in Program::ALL {
        for (mode, how) in ["wal", "memory"]
            .into_iter()
            .flat_map(|mode| ["chroot", "cover"].map(|how| (mode, how)))
        {
            for vfs in ["unix", "kanban"] {
                let context = format!("{program:?}, {mode}, {how}, {vfs}");
                let (board, mut client) = scene(program, vfs, mode);
                client.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
                client.sql("c", "INSERT INTO t VALUES (3)").rows();
                let elsewhere = tempfile::tempdir().unwrap();
                let place =
                    if how == "chroot" { elsewhere.path().into() } else { board.directory() };
                client.call(&serde_json::json!([how, place])).rows();
                for n in 4..7 {
                    // A comparison stays valid for a second.
                    std::thread::sleep(Duration::from_millis(if n == 5 { 1100 } else { 1 }));
                    client.sql("c", "BEGIN IMMEDIATE").rows();
                    client.sql("c", &format!("INSERT INTO t VALUES ({n})")).rows();
                    if vfs == "kanban" {
                        let holder = vfs_tests::sidecar::holder(&board.sidecar());
                        assert_eq!(holder, Some(client.pid()), "{context}");
                    }
                    client.sql("c", "COMMIT").rows();
                    client.sql("c", "PRAGMA wal_checkpoint").rows();
                }
                assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[6]], "{context}");
                if vfs == "kanban" {
                    let identity =
                        crate::status_of(&mut client, "c", "/guarantees/identity/active");
                    assert_eq!(identity, true, "{context}");
                    fs::rename(board.path(), board.directory().join("moved.db")).unwrap();
                    std::thread::sleep(Duration::from_millis(30));
                    refused(client.sql("c", "INSERT INTO t VALUES (9)"), &context);
                }
                client.kill();
            }
        }
    }
}

/// A service has many boards in one directory, and pools of connections to them. All share one descriptor of the
/// directory. It is no standard stream's, and the last connection closes it.
#[test]
fn a_directory_is_opened_once() {
    for (program, mode) in
        Program::ALL.into_iter().flat_map(|program| ["wal", "delete"].map(|mode| (program, mode)))
    {
        let board = Board::new();
        let mut client = agent(program);
        let descriptors = |client: &Agent| {
            let entries = fs::read_dir(format!("/proc/{}/fd", client.pid())).unwrap();
            let of_directory = entries.flatten().filter(|entry| {
                fs::read_link(entry.path()).is_ok_and(|path| path == board.directory())
            });
            of_directory.count()
        };
        for n in 0..12 {
            let path = board.directory().join(format!("{}.db", n / 2));
            client.open(&n.to_string(), &vfs_tests::uri_of(&path, "kanban"), 5000);
            let sql = format!("PRAGMA journal_mode={mode}; CREATE TABLE IF NOT EXISTS t (x)");
            client.sql(&n.to_string(), &sql).rows();
        }
        assert_eq!(descriptors(&client), 1, "{program:?}, {mode}");
        for n in 0..12 {
            client.close(&n.to_string());
        }
        assert_eq!(descriptors(&client), 0, "{program:?}, {mode}");
    }
}

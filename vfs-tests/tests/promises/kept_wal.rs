//! The WAL and its index go when the last connection closes, as on the stock VFS. They stay if a
//! client still has the index open but was wrongly not counted, so that the client does not lose
//! them. They also stay where that is asked for, and then the WAL is empty.

use std::path::Path;

use vfs_tests::{Board, Program};

use crate::Client::{Ours, Stock};
use crate::{Client, agent, beside, connect};

fn files(board: &Board) -> Vec<String> {
    let mut names: Vec<_> = board
        .directory()
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-lock") && !name.ends_with("-kanban-log"))
        .collect();
    names.sort();
    names
}

const ALL: [&str; 3] = ["board.db", "board.db-shm", "board.db-wal"];

/// The URI that keeps them.
fn keeping(board: &Board) -> String {
    format!("{}&kanban_persist_wal=1", board.kanban())
}

fn write(board: &Board, program: Program, uri: &str) {
    let mut client = agent(program);
    client.open("c", uri, 5000);
    client.sql("c", "PRAGMA journal_mode=wal").rows();
    client.sql("c", "CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)").rows();
    client.close("c");
    assert!(board.path().exists());
}

/// A worker, the only one at the moment, comes and goes. The stock VFS deletes both files, and so
/// does ours, unless it is asked to keep them.
#[test]
fn they_go_at_the_last_close() {
    for program in Program::ALL {
        let board = Board::new();
        for n in 1..=3 {
            write(&board, program, &keeping(&board));
            assert_eq!(files(&board), ALL);
            // Nothing that was committed is only in the WAL.
            assert_eq!(beside(&board, "-wal").metadata().unwrap().len(), 0);
            let copy = Board::new();
            std::fs::copy(board.path(), copy.path()).unwrap();
            let rows: i64 = connect(&copy.stock())
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(rows, n);
        }
        for uri in [board.stock(), board.kanban()] {
            write(&board, program, &uri);
            assert_eq!(files(&board), ["board.db"]);
            write(&board, program, &keeping(&board));
            assert_eq!(files(&board), ALL);
        }
    }
}

/// A stock client has the board open, and its application looks at the file, which drops SQLite's
/// locks. The next client to close does not count it, and believes that it is the last. On the
/// stock VFS the first client's next commits go to a file that is gone. (SQLite 3.51, which the
/// Rust client has, looks for others, too.)
#[test]
fn they_stay_while_somebody_has_the_index_open() {
    for program in Program::ALL {
        for (closes, keeps) in [(Stock, program == Program::Rust), (Ours, true)] {
            let context = format!("{program:?}, {closes:?}");
            let board = Board::new();
            let mut looks = Stock.open(Program::Rust, &board);
            looks.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
            looks.sql("c", "INSERT INTO t VALUES (1)").rows();
            looks.read(&board.path());
            let mut closes = closes.open(program, &board);
            closes.sql("c", "INSERT INTO t VALUES (2)").rows();
            closes.close("c");
            assert_eq!(files(&board).len(), if keeps { 3 } else { 1 }, "{context}");
            looks.sql("c", "INSERT INTO t VALUES (3)").rows();
            let mut newcomer = Stock.open(program, &board);
            let rows = newcomer.sql("c", "SELECT x FROM t").rows();
            assert_eq!(rows == [[1], [2], [3]], keeps, "{context}: {rows:?}");
            assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{context}");
            // When the last client that knows of the WAL closes, the WAL goes.
            looks.close("c");
            newcomer.close("c");
            write(&board, program, &board.kanban());
            assert_eq!(files(&board), ["board.db"], "{context}");
        }
    }
}

/// SQLite's own file control sets and answers for the application what it does without this VFS.
#[test]
fn an_application_is_told_what_it_has_set() {
    use rusqlite::ffi;
    for (uri, expected) in [("unix", 0), ("kanban", 0), ("kanban&kanban_persist_wal=1", 1)] {
        let board = Board::new();
        let connection = connect(&board.uri(uri));
        connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
        let control = |mut value: i32| {
            // SAFETY: an open connection, and a number to read and fill in.
            let rc = unsafe {
                ffi::sqlite3_file_control(
                    connection.handle(),
                    c"main".as_ptr(),
                    ffi::SQLITE_FCNTL_PERSIST_WAL,
                    (&raw mut value).cast(),
                )
            };
            assert_eq!(rc, ffi::SQLITE_OK);
            value
        };
        assert_eq!(control(-1), expected, "{uri}");
        for set in [1, 0] {
            control(set);
            assert_eq!(control(-1), set, "{uri}");
        }
        drop(connection);
        assert_eq!(files(&board), ["board.db"], "{uri}");
    }
}

/// An application keeps the WAL by SQLite's own file control. That is its own choice, so the same
/// files stay as on the stock VFS, even when WAL mode is left.
#[test]
fn the_persist_wal_of_an_application_is_left() {
    use rusqlite::ffi;
    let lengths = |uri: &str, last: &str| {
        let board = Board::new();
        let connection = connect(&board.uri(uri));
        connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
        let mut keep = 1;
        // SAFETY: an open connection, and a number to read.
        let rc = unsafe {
            ffi::sqlite3_file_control(
                connection.handle(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_PERSIST_WAL,
                (&raw mut keep).cast(),
            )
        };
        assert_eq!(rc, ffi::SQLITE_OK);
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        connection.execute_batch(last).unwrap();
        drop(connection);
        let length = |name: String| {
            let length = board.directory().join(&name).metadata().unwrap().len();
            (name, length)
        };
        let lengths: Vec<_> = files(&board).into_iter().map(length).collect();
        let rows: i64 = connect(&board.uri(uri))
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 1, "{uri}, {last}");
        lengths
    };
    for last in ["SELECT 1", "PRAGMA journal_mode=delete", "PRAGMA journal_size_limit=0"] {
        let stock = lengths("unix", last);
        assert_eq!(stock.len(), 3, "{stock:?}");
        for uri in ["kanban", "kanban&kanban_persist_wal=1"] {
            assert_eq!(lengths(uri, last), stock, "{uri}, {last}");
        }
    }
}

/// The last client to close may only read, as a dashboard does. What was committed stays in the
/// WAL, as on the stock VFS. A writer's checkpoint copies it into the database; just opening the
/// board does not.
#[test]
fn a_read_only_client_leaves_the_wal_as_it_is() {
    let board = Board::new();
    let wal = || board.directory().join("board.db-wal").metadata().unwrap().len();
    let mut writer = agent(Program::Rust);
    writer.open("c", &board.kanban(), 5000);
    writer.sql("c", "PRAGMA journal_mode=wal").rows();
    writer.sql("c", "CREATE TABLE t (x)").rows();
    writer.sql("c", "INSERT INTO t VALUES (1)").rows();
    let reader = connect(&format!("{}&mode=ro", board.kanban()));
    let count = |c: &rusqlite::Connection| c.query_row("SELECT count(*) FROM t", [], |r| r.get(0));
    assert_eq!(count(&reader), Ok(1));
    writer.close("c");
    drop(reader);
    assert!(wal() > 0, "a reader writes nothing");
    drop(connect(&board.kanban()));
    assert!(wal() > 0, "who only opens does nothing");
    let again = connect(&board.kanban());
    again.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(again);
    assert_eq!(files(&board), ["board.db"]);
    let copy = Board::new();
    std::fs::copy(board.path(), copy.path()).unwrap();
    assert_eq!(count(&connect(&copy.stock())), Ok(1));
}

/// The board is switched back to a rollback mode. Then the WAL must go. If it stays, SQLite answers
/// "delete" but is still in WAL mode, as the stock VFS does when it is asked to keep the WAL.
#[test]
fn it_goes_when_wal_mode_is_left() {
    for program in Program::ALL {
        let board = Board::new();
        write(&board, program, &keeping(&board));
        let mut client = agent(program);
        client.open("c", &keeping(&board), 5000);
        for _ in 0..2 {
            assert_eq!(client.sql("c", "PRAGMA journal_mode=delete").rows(), [["delete"]]);
            assert_eq!(files(&board), ["board.db"]);
            client.sql("c", "INSERT INTO t VALUES (2)").rows();
            assert_eq!(files(&board), ["board.db"]);
            let mode = connect(&board.stock())
                .query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
            assert_eq!(mode.unwrap(), "delete");
            // Also in a transaction, and when the connection has the board for itself.
            client.sql("c", "PRAGMA locking_mode=exclusive").rows();
            assert_eq!(client.sql("c", "PRAGMA journal_mode=wal").rows(), [["wal"]]);
            client.sql("c", "INSERT INTO t VALUES (3)").rows();
            assert_eq!(client.sql("c", "PRAGMA journal_mode=truncate").rows(), [["truncate"]]);
            assert_eq!(files(&board)[..1], ["board.db"]);
            client.sql("c", "PRAGMA locking_mode=normal; SELECT * FROM t").rows();
            assert_eq!(client.sql("c", "PRAGMA journal_mode=wal").rows(), [["wal"]]);
            client.sql("c", "INSERT INTO t VALUES (4)").rows();
        }
        client.close("c");
        let other = connect(&board.stock());
        let rows: i64 = other.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 7);
        let ok: String = other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok");
    }
}

/// An unqualified pragma switches an attached board, but SQLite passes it to the main database
/// only.
#[test]
fn it_goes_when_an_attached_board_leaves_wal_mode() {
    let (board, other) = (Board::new(), Board::new());
    write(&board, Program::Rust, &keeping(&board));
    write(&other, Program::Rust, &keeping(&other));
    let mut client = agent(Program::Rust);
    client.open("c", &keeping(&board), 5000);
    client.sql("c", &format!("ATTACH '{}' AS other", keeping(&other))).rows();
    client.sql("c", "SELECT * FROM t, other.t").rows();
    client.sql("c", "PRAGMA journal_mode=delete").rows();
    assert_eq!(client.sql("c", "PRAGMA other.journal_mode").rows(), [["delete"]]);
    for board in [&board, &other] {
        assert_eq!(files(board), ["board.db"]);
    }
}

/// A worker indexes 3000 rows, makes a backup, deletes some rows, and closes: no client has the
/// board open. Then the backup replaces the board.
fn restore(program: Program, client: Client, keeps: bool, after: Client, put: fn(&Path, &Path)) {
    let context = format!("{program:?}, {client:?}, keeps: {keeps}, {after:?}");
    let board = Board::new();
    let backup = board.directory().join("backup.db");
    let mut worker = client.start(program);
    worker.open("c", &if keeps { keeping(&board) } else { client.uri(&board) }, 0);
    let create = format!(
        "PRAGMA journal_mode=wal; CREATE TABLE t (x INTEGER PRIMARY KEY, y); CREATE INDEX i ON t (y);
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 3000)
         INSERT INTO t SELECT n, n * 7919 % 3000 || hex(zeroblob(50)) FROM n;
         VACUUM INTO '{}'; PRAGMA wal_checkpoint(TRUNCATE)",
        backup.display()
    );
    worker.sql("c", &create).rows();
    // The WAL then has a few pages of the table, and a few of its index.
    worker.sql("c", "DELETE FROM t WHERE x BETWEEN 1000 AND 1200").rows();
    worker.close("c");
    for suffix in ["-wal", "-shm"] {
        assert_eq!(beside(&board, suffix).exists(), keeps, "{context}: board.db{suffix}");
    }
    if keeps {
        let left = beside(&board, "-wal").metadata().unwrap().len();
        assert_eq!(left, 0, "{context}: bytes that would be believed of another database");
    }
    put(&backup, &board.path());
    let mut newcomer = after.open(program, &board);
    assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{context}");
    assert_eq!(newcomer.sql("c", "SELECT count(*) FROM t").rows(), [[3000]], "{context}");
    newcomer.sql("c", "INSERT INTO t VALUES (4000, 1)").rows();
    assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{context}");
}

/// All clients have closed the board when a backup replaces it, by `cp` or by `mv`. By then the WAL
/// is deleted, or empty, so clients open the backup. Frames in a WAL that stays would be taken for
/// the backup's.
#[test]
fn a_closed_board_can_be_replaced_by_a_backup() {
    let copy: fn(&Path, &Path) = |backup, board| {
        std::fs::copy(backup, board).unwrap();
    };
    let rename: fn(&Path, &Path) = |backup, board| std::fs::rename(backup, board).unwrap();
    for program in Program::ALL {
        for put in [copy, rename] {
            for (client, keeps, after) in [
                (Stock, false, Stock),
                (Ours, false, Ours),
                (Ours, false, Stock),
                (Ours, true, Ours),
                (Ours, true, Stock),
            ] {
                restore(program, client, keeps, after, put);
            }
        }
    }
}

/// A client that closes leaves the WAL of a board that another client has open as it is.
#[test]
fn it_is_not_emptied_while_another_has_it_open() {
    for program in Program::ALL {
        for stays in [Stock, Ours] {
            let context = format!("{program:?}, {stays:?}");
            let board = Board::new();
            let mut goes = Ours.open(program, &board);
            goes.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
            let mut stays = stays.open(Program::Rust, &board);
            stays.sql("c", "SELECT * FROM t").rows();
            goes.sql("c", "INSERT INTO t VALUES (1)").rows();
            let before = std::fs::read(beside(&board, "-wal")).unwrap();
            goes.close("c");
            let after = std::fs::read(beside(&board, "-wal")).unwrap();
            assert!(before.len() > 4096 && before == after, "{context}");
            stays.sql("c", "INSERT INTO t VALUES (2)").rows();
            let mut newcomer = Ours.open(program, &board);
            assert_eq!(newcomer.sql("c", "SELECT x FROM t").rows(), [[1], [2]], "{context}");
            assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{context}");
        }
    }
}

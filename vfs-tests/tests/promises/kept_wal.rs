//! The WAL and its index stay when the last connection closes: a connection that is wrongly not
//! counted never finds them gone.

use vfs_tests::{Board, Program};

use crate::{agent, connect};

fn files(board: &Board) -> Vec<String> {
    let mut names: Vec<_> = board
        .directory()
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-lock"))
        .collect();
    names.sort();
    names
}

const ALL: [&str; 3] = ["board.db", "board.db-shm", "board.db-wal"];

fn write(board: &Board, program: Program, uri: &str) {
    let mut client = agent(program);
    client.open("c", uri, 5000);
    client.sql("c", "PRAGMA journal_mode=wal").rows();
    client.sql("c", "CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)").rows();
    client.close("c");
    assert!(board.path().exists());
}

/// A worker, the only one at the moment, comes and goes. The stock VFS deletes both files; ours does,
/// too, if it is told to.
#[test]
fn they_stay_at_the_last_close() {
    for program in Program::ALL {
        let board = Board::new();
        for n in 1..=3 {
            write(&board, program, &board.kanban());
            assert_eq!(files(&board), ALL);
            // Nothing that was committed is only in the WAL.
            let copy = Board::new();
            std::fs::copy(board.path(), copy.path()).unwrap();
            let rows: i64 = connect(&copy.stock())
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(rows, n);
        }
        for uri in [board.stock(), format!("{}&kanban_persist_wal=0", board.kanban())] {
            write(&board, program, &uri);
            assert_eq!(files(&board), ["board.db"]);
            write(&board, program, &board.kanban());
            assert_eq!(files(&board), ALL);
        }
    }
}

/// The board is switched back to a rollback mode. There the WAL must go: with a WAL that stays,
/// SQLite says "delete" and is in WAL mode still, which is what the stock VFS does when told to keep
/// it.
#[test]
fn it_goes_when_wal_mode_is_left() {
    for program in Program::ALL {
        let board = Board::new();
        write(&board, program, &board.kanban());
        let mut client = agent(program);
        client.open("c", &board.kanban(), 5000);
        for _ in 0..2 {
            assert_eq!(client.sql("c", "PRAGMA journal_mode=delete").rows(), [["delete"]]);
            assert_eq!(files(&board), ["board.db"]);
            client.sql("c", "INSERT INTO t VALUES (2)").rows();
            assert_eq!(files(&board), ["board.db"]);
            let mode = connect(&board.stock())
                .query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
            assert_eq!(mode.unwrap(), "delete");
            // In a transaction of its own, and when the connection has it to itself.
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

/// An attached board is switched by an unqualified pragma, of which SQLite tells only the main one.
#[test]
fn it_goes_when_an_attached_board_leaves_wal_mode() {
    let (board, other) = (Board::new(), Board::new());
    write(&board, Program::Rust, &board.kanban());
    write(&other, Program::Rust, &other.kanban());
    let mut client = agent(Program::Rust);
    client.open("c", &board.kanban(), 5000);
    client.sql("c", &format!("ATTACH '{}' AS other", other.kanban())).rows();
    client.sql("c", "SELECT * FROM t, other.t").rows();
    client.sql("c", "PRAGMA journal_mode=delete").rows();
    assert_eq!(client.sql("c", "PRAGMA other.journal_mode").rows(), [["delete"]]);
    for board in [&board, &other] {
        assert_eq!(files(board), ["board.db"]);
    }
}

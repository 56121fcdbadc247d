//! Many writers, threads and processes, ours and stock, on one board: every acknowledged row is
//! there, and none is refused.

use vfs_tests::{Board, Program};

use crate::{agent, connect};

const ROWS: i64 = 40;

/// Four threads with a connection each, two Rust processes, two Python processes with SQLite 3.40.1
/// and a stock client make forty transactions each.
#[test]
fn every_row_of_every_writer_is_there() {
    for mode in ["wal", "delete"] {
        let board = Board::new();
        connect(&board.kanban())
            .execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (who, n)"))
            .unwrap();
        let mut processes = Vec::new();
        for (program, vfs) in [
            (Program::Rust, "kanban"),
            (Program::Rust, "kanban"),
            (Program::Python, "kanban"),
            (Program::Python, "kanban"),
            (Program::Python, "unix"),
        ] {
            let mut client = agent(program);
            client.open("c", &board.uri(vfs), 120_000);
            processes.push(client);
        }
        for (who, client) in processes.iter_mut().enumerate() {
            for n in 0..ROWS {
                client.send_sql(
                    "c",
                    &format!("BEGIN IMMEDIATE; INSERT INTO t VALUES ({who}, {n}); COMMIT"),
                );
            }
        }
        std::thread::scope(|scope| {
            for who in 100..104 {
                let uri = board.kanban();
                scope.spawn(move || {
                    let connection = connect(&uri);
                    connection.busy_timeout(std::time::Duration::from_secs(120)).unwrap();
                    for n in 0..ROWS {
                        connection.execute("INSERT INTO t VALUES (?, ?)", (who, n)).unwrap();
                    }
                });
            }
        });
        for client in &mut processes {
            for _ in 0..ROWS {
                client.reply().rows();
            }
        }
        let check = connect(&board.kanban());
        let (writers, rows): (i64, i64) = check
            .query_row("SELECT count(DISTINCT who), count(*) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((writers, rows), (9, 9 * ROWS), "{mode}");
        let ok: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok");
    }
}

/// A thousand boards are opened in turn. They leave no descriptor and no memory.
#[test]
fn boards_opened_in_turn_leave_no_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let descriptors = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        links
            .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .filter(|path| path.starts_with(directory.path()))
            .count()
    };
    for n in 0..1000 {
        let path = directory.path().join(format!("{n}.db"));
        let board = connect(&format!("file:{}?vfs=kanban", path.display()));
        board.execute_batch("PRAGMA synchronous=off; CREATE TABLE t (x)").unwrap();
        assert!(descriptors() < 8);
    }
    assert_eq!(descriptors(), 0);
}

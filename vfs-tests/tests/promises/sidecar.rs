//! The sidecar, `<database>-lock`: it has the database's permissions and owner, is not empty, is
//! not inherited by other programs, and is deleted by the last client that has it open.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use vfs_tests::{Board, Program, is_root};

use crate::{agent, connect};

/// A board of a group: its members may read and write it, and another user owns it.
#[test]
fn it_takes_the_databases_mode_and_owner() {
    for mode in [0o600, 0o640, 0o660, 0o666] {
        let board = Board::new();
        connect(&board.stock()).execute_batch("CREATE TABLE t (x)").unwrap();
        std::fs::set_permissions(board.path(), PermissionsExt::from_mode(mode)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(board.path(), Some(1234), Some(5678)).unwrap();
        }
        let connection = connect(&board.kanban());
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let (database, sidecar) =
            (board.path().metadata().unwrap(), board.sidecar().metadata().unwrap());
        assert_eq!(sidecar.mode() & 0o777, mode);
        assert_eq!((sidecar.uid(), sidecar.gid()), (database.uid(), database.gid()));
    }
}

/// Some systems lock only bytes that exist, and a reader of the file should see what it is.
#[test]
fn it_is_seeded() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let bytes = std::fs::read(board.sidecar()).unwrap();
    assert_eq!(bytes.len(), 36_864);
    assert_eq!(&bytes[..16], b"kanban-vfs\0\0\x03\0\0\0");
}

/// A program that a client starts must not keep the write lock when the client dies.
#[test]
fn it_is_closed_on_exec() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    connection.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE").unwrap();
    let open = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let open = String::from_utf8_lossy(&open.stdout).into_owned();
    assert!(open.contains("->"), "{open}");
    assert!(!open.contains("board.db"), "{open}");
}

/// Writers come and go while one stays. The sidecar stays the same, since a client may be about to
/// lock it. It goes with the last client.
#[test]
fn it_stays_as_long_as_somebody_has_it() {
    let board = Board::new();
    let inode = || board.sidecar().metadata().unwrap().ino();
    let mut other = agent(Program::Python);
    other.open("c", &board.kanban(), 5000);
    other.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    let first = inode();
    connect(&board.kanban()).execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(inode(), first);
    let connection = connect(&board.kanban());
    connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    other.close("c");
    connection.execute_batch("PRAGMA journal_mode=delete; VACUUM").unwrap();
    assert_eq!(inode(), first);
    drop(connection);
    assert!(!board.sidecar().exists());
}

/// A connection that is closed leaves no descriptor behind, even if it is one of many.
#[test]
fn it_is_closed_with_the_last_connection() {
    let board = Board::new();
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        links
            .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .filter(|path| *path == board.sidecar())
            .count()
    };
    let connections: Vec<_> = (0..5).map(|_| connect(&board.kanban())).collect();
    connections[0].execute_batch("CREATE TABLE t (x)").unwrap();
    for connection in &connections {
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    }
    assert_eq!(open(), 1, "one for the process");
    drop(connections);
    assert_eq!(open(), 0);
    assert!(!board.sidecar().exists());
}

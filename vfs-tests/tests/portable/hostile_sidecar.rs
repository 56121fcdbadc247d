//! Whatever stands in the sidecar's place or happens to it: a repair, or a clear line and SQLite's own locks
//! alone; never a crash, never two writers, never a byte of the database.

use std::fs;

use vfs_tests::{Agent, Board};

use crate::{SQLITE_BUSY, agent, status};

/// A board with one row, which nobody has opened with this VFS yet.
fn board() -> Board {
    let board = Board::new();
    let mut stock = agent();
    stock.open("s", &board.stock(), 0);
    stock.sql("s", "CREATE TABLE t (x); INSERT INTO t VALUES (1)").rows();
    board
}

/// Two clients exclude each other, and what they say of the holder does not matter.
fn assert_excludes(board: &Board, case: &str) -> (Agent, Agent) {
    let (mut first, mut second) = (agent(), agent());
    first.open("c", &board.kanban(), 0);
    second.open("c", &board.kanban(), 0);
    first.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").rows();
    assert_eq!(second.sql("c", "BEGIN IMMEDIATE").code(), SQLITE_BUSY, "{case}");
    status(&mut second, "c", "/holder");
    first.sql("c", "COMMIT").rows();
    second.sql("c", "INSERT INTO t VALUES (3)").rows();
    (first, second)
}

/// Somebody has put a directory, or a hard link of the database itself, where the sidecar is to be.
/// A line says what to do, and writing goes on as on the stock VFS.
#[test]
fn a_foreign_sidecar_is_not_used() {
    let make: [fn(&Board); 2] = [
        |board| fs::create_dir(board.sidecar()).unwrap(),
        |board| fs::hard_link(board.path(), board.sidecar()).unwrap(),
    ];
    for (make, what) in make.iter().zip(["directory", "hard link"]) {
        let board = board();
        make(&board);
        let mut client = agent();
        client.open("c", &format!("{}&kanban_hard_links=1", board.kanban()), 0);
        client.sql("c", "INSERT INTO t VALUES (2)").rows();
        let log = client.log();
        assert!(log.iter().any(|line| line.contains(what) && line.contains("move it")), "{log:?}");
        assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[1], [2]]);
        assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
}

/// A sidecar that is empty, cut short, or zeroed is made whole; one that holds something else is left
/// as it is, and SQLite's own locks keep writers apart.
#[test]
fn whatever_it_holds_writers_exclude_each_other() {
    let noise: Vec<u8> =
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut lying = b"kanban-vfs\0\0\x03\0\0\0".to_vec();
    lying.extend(&noise[16..]);
    for (content, is_ours, case) in [
        (&b""[..], true, "empty"),
        (b"kanban-vfs", true, "cut short"),
        (&[0; 4096], true, "zeroed"),
        (&lying, true, "a page of lies"),
        (&[0xff; 8], false, "short and foreign"),
        (&noise, false, "foreign"),
    ] {
        let board = board();
        fs::write(board.sidecar(), content).unwrap();
        let (mut first, _second) = assert_excludes(&board, case);
        assert_eq!(status(&mut first, "c", "/guarantees/queue_page/active"), is_ours, "{case}");
        let now = fs::read(board.sidecar()).unwrap();
        if is_ours {
            assert!(
                now.len() >= 36_864 && now.starts_with(b"kanban-vfs\0") && now[12] == 3,
                "{case}"
            );
        } else {
            assert_eq!(now, content, "{case}");
        }
    }
}

/// While clients have it open: it is overwritten, whatever it says then. Nobody gets in twice.
#[test]
fn overwritten_while_in_use() {
    let board = board();
    let (mut first, mut second) = assert_excludes(&board, "before");
    for byte in [0xff, 0x00, 0x01] {
        first.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (4)").rows();
        let mut page = fs::read(board.sidecar()).unwrap();
        page[16..4096].fill(byte);
        // In place: who opens it to write may not cut it off.
        let file = fs::OpenOptions::new().write(true).open(board.sidecar()).unwrap();
        std::io::Write::write_all(&mut { file }, &page[..4096]).unwrap();
        assert_eq!(second.sql("c", "BEGIN IMMEDIATE").code(), SQLITE_BUSY, "{byte}");
        first.sql("c", "COMMIT").rows();
        second.sql("c", "INSERT INTO t VALUES (5)").rows();
    }
    assert_eq!(first.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
}

/// Somebody deletes the sidecar while clients have it open. On unix that is allowed, and found out
/// within a second; SQLite's own locks keep writers apart meanwhile. Windows does not allow it.
#[test]
fn deleted_while_in_use() {
    let board = board();
    let (mut first, mut second) = assert_excludes(&board, "before");
    let deleted = fs::remove_file(board.sidecar());
    assert_eq!(deleted.is_ok(), cfg!(unix), "{deleted:?}");
    first.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (6)").rows();
    assert_eq!(second.sql("c", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
    first.sql("c", "COMMIT").rows();
    second.sql("c", "INSERT INTO t VALUES (7)").rows();
    assert_eq!(first.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
}

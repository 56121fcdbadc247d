//! Whatever stands in the sidecar's place or happens to it: a repair, or a clear line and SQLite's own locks
//! alone; never a crash, never two writers, never a byte of the database.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use vfs_tests::sidecar::holder;
use vfs_tests::{Board, Program, is_root};

use crate::{agent, connect, status};

/// A board with one row, opened and written to by an ours-only client.
fn board() -> Board {
    let board = Board::new();
    connect(&board.stock()).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    board
}

fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a terminated path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// Somebody has put a directory, a FIFO, a symbolic link (to the database, to nothing) or a hard
/// link (of the database!) where the sidecar belongs. Opening a FIFO could hang, following the
/// link or writing to it would destroy the database, and closing it would drop SQLite's locks.
#[test]
fn a_foreign_sidecar_is_not_used() {
    type Make = fn(&Board);
    let makes: [(&str, Make); 5] = [
        ("directory", |board| std::fs::create_dir(board.sidecar()).unwrap()),
        ("FIFO", |board| make_fifo(&board.sidecar())),
        ("symbolic link", |board| symlink(board.path(), board.sidecar()).unwrap()),
        ("symbolic link", |board| symlink("nowhere", board.sidecar()).unwrap()),
        ("hard link of the database", |board| {
            std::fs::hard_link(board.path(), board.sidecar()).unwrap()
        }),
    ];
    for (what, make) in makes {
        let board = board();
        make(&board);
        let mut client = agent(Program::Rust);
        // Without that, a hard link would be the first to be found.
        client.open("c", &format!("{}&kanban_hard_links=1", board.kanban()), 5000);
        client.sql("c", "INSERT INTO t VALUES (2)").rows();
        let why = crate::status_of(&mut client, "c", "/guarantees/write_lock/why");
        assert!(why.as_str().unwrap().contains(what), "{why}");
        let mut log = client.log();
        // SQLite adds lines of its own.
        log.retain(|line| line.contains("sidecar"));
        let [line] = &log[..] else { panic!("{what}: not one line: {log:?}") };
        assert!(line.contains(what) && line.contains("board.db-lock"), "{line}");
        assert!(line.contains("move it away"), "{line}");
        client.sql("c", "BEGIN IMMEDIATE").rows();
        let mut other = agent(Program::Python);
        other.open("c", &format!("{}&kanban_hard_links=1", board.kanban()), 0);
        assert_eq!(other.sql("c", "BEGIN IMMEDIATE").code(), 5, "{what}: SQLite's own lock");
        client.sql("c", "COMMIT").rows();
        assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[1], [2]], "{what}");
        assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{what}");

        // Once it is moved away, the same connection has the write lock, a second later.
        std::fs::rename(board.sidecar(), board.directory().join("away")).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        client.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (3)").rows();
        assert_eq!(holder(&board.sidecar()), Some(client.pid()), "{what}");
        client.sql("c", "COMMIT").rows();
        assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
}

/// A sidecar that only another user may open. (Root may open any: there the error cannot be had.)
#[test]
fn one_without_permission_is_named() {
    if is_root() {
        // As an ordinary user, in a process of its own.
        return crate::as_nobody("hostile_sidecar::one_without_permission_is_named");
    }
    let board = board();
    std::fs::write(board.sidecar(), "").unwrap();
    std::fs::set_permissions(board.sidecar(), std::os::unix::fs::PermissionsExt::from_mode(0o000))
        .unwrap();
    let mut client = agent(Program::Rust);
    client.open("c", &board.kanban(), 5000);
    client.sql("c", "INSERT INTO t VALUES (2)").rows();
    let log = client.log();
    assert!(
        log[0].contains("cannot open the sidecar") && log[0].contains("Permission denied"),
        "{log:?}"
    );
    assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[1], [2]]);
}

/// A tool that copies directories by hard links (cp -l, rsnapshot) has given the sidecar a second
/// name. It is a file like any other.
#[test]
fn a_second_name_of_the_sidecar_is_harmless() {
    let board = board();
    let connection = connect(&board.kanban());
    connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    std::fs::hard_link(board.sidecar(), board.directory().join("copy")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    connection.execute_batch("INSERT INTO t VALUES (3)").unwrap();
    connect(&board.kanban()).execute_batch("INSERT INTO t VALUES (4)").unwrap();
    assert_eq!(status(&connection, "/counters/sidecars_replaced"), 0);
}

/// A board in WAL mode that was not closed cleanly, in a directory where no sidecar can be: readers
/// recover its wal-index as they do on the stock VFS. Status says what writers will be told.
#[test]
fn recovery_needs_no_sidecar() {
    let original = board();
    let writer = connect(&original.stock());
    writer.execute_batch("PRAGMA journal_mode=wal; INSERT INTO t VALUES (2)").unwrap();
    for parameter in ["", "&mode=ro"] {
        let crashed = Board::new();
        for suffix in ["", "-wal"] {
            let name = |board: &Board| format!("{}{suffix}", board.path().display());
            std::fs::copy(name(&original), name(&crashed)).unwrap();
        }
        std::fs::create_dir(crashed.sidecar()).unwrap();
        let reader = connect(&format!("{}{parameter}", crashed.kanban()));
        assert_eq!(reader.query_row("SELECT max(x) FROM t", [], |row| row.get(0)), Ok(2));
        assert_eq!(status(&reader, "/guarantees/write_lock/active"), false);
        if parameter.is_empty() {
            let why = status(&reader, "/guarantees/write_lock/why");
            assert!(why.as_str().unwrap().contains("directory"), "{why}");
        }
    }
}

/// Garbage from the beginning: it may be another program's file, so it is left as it is, and is no sidecar.
/// SQLite's own locks keep writers apart; status says what is missing.
#[test]
fn garbage_is_left_alone_and_writers_still_exclude_each_other() {
    for len in [20, 4096, 50_000_u32] {
        let board = board();
        let garbage: Vec<u8> = (0..len).map(|n| ((n * 7919) >> 3) as u8 | 1).collect();
        std::fs::write(board.sidecar(), &garbage).unwrap();
        let first = connect(&board.kanban());
        let mut second = agent(Program::Python);
        second.open("c", &board.kanban(), 0);
        first.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(holder(&board.sidecar()), None);
        assert_eq!(second.sql("c", "INSERT INTO t VALUES (2)").code(), 5);
        assert_eq!(status(&first, "/guarantees/write_lock/active"), false);
        assert_eq!(status(&first, "/guarantees/queue_page/active"), false);
        first.execute_batch("COMMIT").unwrap();
        second.sql("c", "INSERT INTO t VALUES (2)").rows();
        second.close("c");
        drop(first);
        assert_eq!(std::fs::read(board.sidecar()).unwrap(), garbage);
    }
}

/// An empty sidecar, one cut short, and one of zeros (a file system that lost its data in a power
/// cut) are ours, and are made whole.
#[test]
fn an_empty_or_shortened_one_is_repaired() {
    for content in
        [&b""[..], b"kanban-vfs", b"kanban-vfs\0\0\x03\0\0\0\0\0\0", &[0; 100], &[0; 4096]]
    {
        let board = board();
        std::fs::write(board.sidecar(), content).unwrap();
        let connection = connect(&board.kanban());
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        let bytes = std::fs::read(board.sidecar()).unwrap();
        assert_eq!((bytes.len(), &bytes[..10]), (36_864, &b"kanban-vfs"[..]));
        assert_eq!(status(&connection, "/guarantees/queue_page/active"), true);
    }
}

/// While one process is in a transaction, somebody deletes the sidecar, truncates it, fills it
/// with garbage, or replaces it. Another process, which opens the new one, must not write; when
/// the first is done, both meet again.
#[test]
fn damage_while_it_is_held_lets_nobody_in() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
        ("truncated", |path| drop(std::fs::File::create(path).unwrap())),
        ("garbage", |path| std::fs::write(path, [0xa5; 5000]).unwrap()),
        ("replaced", |path| {
            std::fs::write(path.with_extension("new"), [0; 100]).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("renamed", |path| std::fs::rename(path, path.with_extension("old")).unwrap()),
    ];
    for mode in ["delete", "wal"] {
        for (what, damage) in damages {
            let board = board();
            let (mut holder, mut other) = (agent(Program::Python), agent(Program::Rust));
            holder.open("c", &board.kanban(), 60_000);
            holder.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
            holder.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").rows();
            damage(&board.sidecar());
            other.open("c", &board.kanban(), 60_000);
            other.send_sql("c", "INSERT INTO t VALUES (3)");
            let early = other.reply_within(Duration::from_millis(60));
            assert_eq!(early, None, "{mode}, {what}: a second writer");
            holder.sql("c", "COMMIT").rows();
            other.reply().rows();
            assert_eq!(other.sql("c", "SELECT x FROM t").rows(), [[1], [2], [3]], "{mode}, {what}");
            assert_eq!(other.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);

            // Both meet in one lock again: the first notices that its sidecar is not in its place
            // when SQLite's own lock is refused to it, and a second later at the latest.
            if mode == "delete" {
                std::thread::sleep(Duration::from_millis(1100));
            } else {
                other.sql("c", "BEGIN IMMEDIATE").rows();
                holder.open("hasty", &board.kanban(), 0);
                assert_eq!(holder.sql("hasty", "BEGIN IMMEDIATE").code(), 5);
                other.sql("c", "COMMIT").rows();
            }
            holder.sql("c", "BEGIN IMMEDIATE").rows();
            assert_eq!(vfs_tests::sidecar::holder(&board.sidecar()), Some(holder.pid()), "{what}");
            holder.sql("c", "COMMIT").rows();
        }
    }
}

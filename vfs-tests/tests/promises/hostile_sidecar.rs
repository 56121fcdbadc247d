//! Whatever is in the sidecar's place or happens to it, the VFS repairs it, or logs a clear line
//! and uses only SQLite's own locks. It never crashes, never lets two writers in, and never changes
//! a byte of the database.

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

/// In the sidecar's place somebody has put a directory, a FIFO, a symbolic link (to the database,
/// to nothing) or a hard link (to the database!). An open of a FIFO could hang. To follow the link
/// or write to it would destroy the database, and to close it would drop SQLite's locks.
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
        // Without that parameter, the hard link itself would be refused first.
        client.open("c", &format!("{}&kanban_hard_links=1", board.kanban()), 5000);
        client.sql("c", "INSERT INTO t VALUES (2)").rows();
        let why = crate::status_of(&mut client, "c", "/guarantees/write_lock/why");
        assert!(why.as_str().unwrap().contains(what), "{why}");
        let mut log = client.log();
        // SQLite logs lines of its own.
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

        // When it is moved away, the same connection gets the write lock, a second later.
        std::fs::rename(board.sidecar(), board.directory().join("away")).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        client.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (3)").rows();
        assert_eq!(holder(&board.sidecar()), Some(client.pid()), "{what}");
        client.sql("c", "COMMIT").rows();
        assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
}

/// A sidecar that only another user may open. (Root may open any, so root cannot get this error.)
#[test]
fn one_without_permission_is_named() {
    if is_root() {
        // Run it as an ordinary user, in a process of its own.
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

/// A tool that copies directories by hard links (cp -l, rsnapshot) gave the sidecar a second name.
/// It is used like any other.
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

/// A board in WAL mode was not closed cleanly, in a directory where no sidecar can be created.
/// Readers recover its wal-index as on the stock VFS. The status says what writers will get.
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

/// Garbage from its first byte: it may be another program's file, so it stays as it is, and is not
/// used as a sidecar. SQLite's own locks keep writers apart, and the status says what is missing.
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

/// An empty sidecar, one that was cut short, and one of zeros (from a file system that lost data in
/// a power cut) are ours, and are completed.
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

/// While one process is in a transaction, somebody deletes the sidecar, truncates it, fills it with
/// garbage, or replaces it. Another process, which opens the new one, must not write. When the
/// first is done, both use the same one again.
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

            // Both use the same lock again: the first notices that its sidecar is not in its place
            // when SQLite's own lock is refused, or a second later at the latest.
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

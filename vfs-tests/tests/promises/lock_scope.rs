//! When the write lock is held: from BEGIN IMMEDIATE until COMMIT, and during a first connect.
//! Readers never hold it.

use rusqlite::Connection;
use vfs_tests::sidecar::holder;
use vfs_tests::{Board, Program, is_root};

use crate::{agent, connect, status};

/// A program in each journal mode begins, writes, commits, rolls back. An outsider looks at the
/// sidecar's locks after each step. On the stock VFS there is nothing to see: only a client that
/// tries to write finds out that a write transaction is open.
#[test]
fn it_is_held_from_begin_immediate_through_commit() {
    for program in Program::ALL {
        for mode in ["delete", "truncate", "persist", "memory", "off", "wal"] {
            let board = Board::new();
            let mut client = agent(program);
            client.open("c", &board.kanban(), 5000);
            client.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
            client.sql("c", "CREATE TABLE t (x)").rows();
            let pid = Some(client.pid());
            let sidecar = board.sidecar();
            assert_eq!(holder(&sidecar), None, "{mode}: at rest");
            for (sql, expected) in [
                ("BEGIN IMMEDIATE", pid),
                ("INSERT INTO t VALUES (1)", pid),
                ("SAVEPOINT s", pid),
                ("INSERT INTO t VALUES (2)", pid),
                ("ROLLBACK TO s", pid),
                ("RELEASE s", pid),
                ("COMMIT", None),
                ("BEGIN", None),
                ("SELECT * FROM t", None),
                ("INSERT INTO t VALUES (3)", pid),
                ("COMMIT", None),
                ("BEGIN EXCLUSIVE", pid),
                ("ROLLBACK", None),
                ("INSERT INTO t VALUES (4)", None),
                ("ALTER TABLE t ADD COLUMN y", None),
                ("VACUUM", None),
                ("SELECT * FROM t", None),
            ] {
                client.sql("c", sql).rows();
                // Without a journal, ROLLBACK can undo nothing, but here nothing was written.
                assert_eq!(holder(&sidecar), expected, "{mode}: after {sql}");
            }
        }
    }
}

/// An application in exclusive locking mode keeps its locks between transactions, as SQLite
/// documents (in WAL mode until it closes). It keeps the write lock with them.
#[test]
fn exclusive_locking_mode_keeps_it() {
    for mode in ["delete", "wal"] {
        let board = Board::new();
        let mut client = agent(Program::Rust);
        client.open("c", &board.kanban(), 5000);
        client
            .sql("c", &format!("PRAGMA journal_mode={mode}; PRAGMA locking_mode=exclusive"))
            .rows();
        client.sql("c", "CREATE TABLE t (x); SELECT * FROM t").rows();
        assert_eq!(holder(&board.sidecar()), Some(client.pid()), "{mode}");
        if mode == "delete" {
            client.sql("c", "PRAGMA locking_mode=normal; SELECT * FROM t").rows();
        } else {
            client.close("c");
        }
        assert_eq!(holder(&board.sidecar()), None, "{mode}");
    }
}

/// A program that attaches a second board writes to both in one transaction. It has the locks of
/// both, and none that it does not need.
#[test]
fn attached_boards_have_a_lock_each() {
    let (first, second) = (Board::new(), Board::new());
    let mut client = agent(Program::Python);
    client.open("c", &first.kanban(), 5000);
    client.sql("c", &format!("ATTACH '{}' AS second", second.kanban())).rows();
    client.sql("c", "CREATE TABLE t (x); CREATE TABLE second.u (x)").rows();
    client.sql("c", "BEGIN; INSERT INTO second.u VALUES (1)").rows();
    assert_eq!(holder(&first.sidecar()), None);
    assert_eq!(holder(&second.sidecar()), Some(client.pid()));
    client.sql("c", "INSERT INTO t VALUES (1)").rows();
    assert_eq!(holder(&first.sidecar()), Some(client.pid()));
    client.sql("c", "COMMIT").rows();
    assert_eq!(holder(&first.sidecar()), None);
    assert_eq!(holder(&second.sidecar()), None);
}

/// A dashboard reads while another client holds the write lock, and where it may not write at all.
#[test]
fn readers_never_touch_it() {
    for mode in ["delete", "wal"] {
        let board = Board::new();
        let mut writer = agent(Program::Python);
        writer.open("w", &board.kanban(), 5000);
        writer.sql("w", &format!("PRAGMA journal_mode={mode}")).rows();
        writer.sql("w", "CREATE TABLE t (x); INSERT INTO t VALUES (1)").rows();
        writer.sql("w", "BEGIN IMMEDIATE").rows();
        let reader = connect(&board.kanban());
        // What most programs do first, and what makes no difference here.
        reader.busy_timeout(std::time::Duration::ZERO).unwrap();
        let said = reader.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0));
        assert_eq!(said, Ok(mode.to_owned()));
        let count = |c: &Connection| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        assert_eq!(count(&reader), Ok(1));
        assert_eq!(status(&reader, "/counters/acquired"), 0, "{mode}");
        assert_eq!(status(&reader, "/counters/refused"), 0, "{mode}");
    }
}

/// A dashboard opens the board read-only, or from a directory it may not write to, before any
/// writer has made a sidecar.
#[test]
fn readers_need_no_sidecar() {
    let board = Board::new();
    connect(&board.stock()).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let reader = connect(&format!("{}&mode=ro", board.kanban()));
    assert_eq!(reader.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
    assert_eq!(status(&reader, "/guarantees/write_lock/active"), false);
    assert!(!board.sidecar().exists());
    drop(reader);

    // A directory in the sidecar's place stands for any reason why there can be none: root may
    // write everywhere.
    std::fs::create_dir(board.sidecar()).unwrap();
    let reader = connect(&board.kanban());
    assert_eq!(reader.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
    assert!(board.sidecar().is_dir());
    std::fs::remove_dir(board.sidecar()).unwrap();
    if !is_root() {
        let mut permissions = board.directory().metadata().unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(board.directory(), permissions).unwrap();
        assert_eq!(reader.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
        assert!(reader.execute_batch("INSERT INTO t VALUES (2)").is_err());
    }
}

/// In-memory, temporary, immutable and unlocked databases are shared with nobody: no sidecar
/// appears.
#[test]
fn databases_that_nobody_shares_are_left_alone() {
    let board = Board::new();
    connect(&board.stock()).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    for parameter in ["immutable=1", "nolock=1"] {
        let connection = connect(&format!("{}&{parameter}", board.kanban()));
        assert_eq!(connection.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
        assert!(
            connection.query_row("PRAGMA kanban_status", [], |_| Ok(())).is_err(),
            "{parameter}"
        );
    }
    // SQLite takes none of these values for true, and locks the database like any other.
    for parameter in ["nolock=0v2", "nolock=0x", "nolock=2147483648", "immutable=no"] {
        let connection = connect(&format!("{}&{parameter}", board.kanban()));
        let status = connection.query_row("PRAGMA kanban_status", [], |_| Ok(()));
        assert_eq!(status, Ok(()), "{parameter}");
    }
    for name in ["file::memory:?vfs=kanban", "file:?vfs=kanban", "file:x?mode=memory&vfs=kanban"] {
        connect(name).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    }
    let files: Vec<_> =
        board.directory().read_dir().unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["board.db"]);
}

/// A writer was killed in the middle of a commit, and left a hot journal. The client that rolls it
/// back has the write lock meanwhile, so a reader that finds the journal while the lock is held
/// waits.
#[test]
fn a_hot_journal_is_rolled_back_under_it() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    // A journal is hot if nobody has RESERVED on its database: so copy one in the middle of a
    // transaction.
    connection.execute_batch("PRAGMA cache_size=1; BEGIN").unwrap();
    connection
        .execute_batch("INSERT INTO t SELECT zeroblob(9000) FROM json_each('[1,2,3,4,5,6,7,8,9]')")
        .unwrap();
    let crashed = Board::new();
    for suffix in ["", "-journal"] {
        let name = |board: &Board| format!("{}{suffix}", board.path().display());
        std::fs::copy(name(&board), name(&crashed)).unwrap();
    }
    drop(connection);

    let sidecar = std::fs::File::create(crashed.sidecar()).unwrap();
    drop(sidecar);
    let lock = lock_as_a_holder(&crashed);
    let reader = connect(&format!("{}&kanban_busy_timeout=0", crashed.kanban()));
    reader.busy_timeout(std::time::Duration::ZERO).unwrap();
    let read = || reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert!(read().is_err(), "the journal is not rolled back while another has the write lock");
    drop(lock);
    assert_eq!(read(), Ok(1));
    assert_eq!(status(&reader, "/counters/acquired"), 1);
}

/// Holds the write lock of a board without being a client of it.
fn lock_as_a_holder(board: &Board) -> std::fs::File {
    vfs_tests::sidecar::hold(&board.sidecar())
}

/// A program switches its board to WAL, but the wal-index cannot be created, since something else
/// has its name. SQLite then keeps SHARED, but the write lock must be released.
#[test]
fn a_switch_that_fails_half_way_releases_it() {
    let board = Board::new();
    connect(&board.kanban()).execute_batch("CREATE TABLE t (x)").unwrap();
    std::os::unix::fs::symlink("nowhere", board.directory().join("board.db-shm")).unwrap();
    let connection = connect(&board.kanban());
    let switched = connection.query_row("PRAGMA journal_mode=wal", [], |_| Ok(()));
    let read = connection.query_row("SELECT count(*) FROM t", [], |_| Ok(()));
    assert!(switched.is_err() || read.is_err(), "there is no wal-index");
    assert_eq!(holder(&board.sidecar()), None);
}

/// A program that only reads opens the board read-only, and is the last to close it.
#[test]
fn a_read_only_connection_makes_no_sidecar() {
    let board = Board::new();
    connect(&board.stock())
        .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    let reader = connect(&format!("{}&mode=ro", board.kanban()));
    assert_eq!(reader.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
    drop(reader);
    assert!(!board.sidecar().exists());
}

/// A connection finds a WAL without a wal-index, as after a reboot: it recovers the wal-index under
/// the write lock, and releases that.
#[test]
fn the_wal_index_is_created_under_it() {
    let board = Board::new();
    let writer = connect(&board.kanban());
    writer
        .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    let rebooted = Board::new();
    for suffix in ["", "-wal"] {
        let name = |board: &Board| format!("{}{suffix}", board.path().display());
        std::fs::copy(name(&board), name(&rebooted)).unwrap();
    }
    let first = connect(&rebooted.kanban());
    assert_eq!(first.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
    assert_eq!(status(&first, "/counters/acquired"), 1);
    assert_eq!(holder(&rebooted.sidecar()), None);
    let second = connect(&rebooted.kanban());
    assert_eq!(second.query_row("SELECT x FROM t", [], |row| row.get(0)), Ok(1));
    assert_eq!(status(&second, "/counters/acquired"), 1, "the second has nothing to recover");
}

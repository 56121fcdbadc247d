//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (<https://www.sqlite.org/wal.html#walresetbug>) by two
//! threads of one process, in the SQLite that this package is linked with. The tests of
//! `vfs-tests/tests/promises/wal_reset.rs` do more, on Linux.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use older::STOCK_VFS;
use older::base::{Base, Fault, File, Method};
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(120);

fn open(path: &Path, vfs: &str) -> Connection {
    let flags = rusqlite::OpenFlags::default();
    let board = Connection::open_with_flags_and_vfs(path, flags, vfs).unwrap();
    board.busy_timeout(Duration::from_secs(5)).unwrap();
    board.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=off").unwrap();
    board
}

fn insert(board: &Connection, id: i64) {
    let sql = format!("INSERT INTO t VALUES ({id}, printf('%0200d', {}))", id * 7919 % 1000);
    board.execute_batch(&sql).unwrap();
}

/// Twenty transactions, all copied. A checkpointer has read how long the WAL is, and stops there. The
/// writer commits six more, which begin the WAL anew; the checkpointer goes on and ends; both write
/// thirty more. Returns how many of the rows are lost, and what integrity_check says.
fn overtake(base: Base, checkpointer: &str, writer: &str) -> (usize, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board.db");
    let writer = open(&path, writer);
    writer
        .execute_batch(
            "PRAGMA journal_mode=wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); \
             CREATE INDEX i ON t (x)",
        )
        .unwrap();
    let checkpointer = open(&path, checkpointer);
    let count = |board: &Connection| -> i64 {
        board.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    };
    count(&checkpointer);
    (1..=20).for_each(|id| insert(&writer, id));
    let checkpoint = |board: &Connection| {
        board.query_row("PRAGMA wal_checkpoint", [], |row| row.get::<_, i64>(1)).unwrap()
    };
    checkpoint(&writer);

    let (arrived, arrival) = channel();
    let (go_on, gone_on) = channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let checkpointer = std::thread::scope(|scope| {
        let stopped = scope.spawn(|| {
            let thread = std::thread::current().id();
            base.on(move |call| {
                let is_here = std::thread::current().id() == thread;
                let is_window = matches!(call.method, Method::Unfetch { .. });
                if is_here && is_window && call.file == File::Main && arrived.send(()).is_ok() {
                    let gone_on = gone_on.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = gone_on.recv_timeout(PATIENCE);
                }
                Fault::None
            });
            checkpoint(&checkpointer);
            checkpointer
        });
        arrival.recv_timeout(PATIENCE).expect("the checkpointer stops in the window");
        (21..=26).for_each(|id| insert(&writer, id));
        drop(go_on);
        stopped.join().unwrap()
    });
    base.off();

    for id in 27..=56 {
        insert(if id % 2 == 0 { &writer } else { &checkpointer }, id);
    }
    checkpoint(&checkpointer);
    insert(&writer, 57);
    checkpoint(&checkpointer);
    drop((writer, checkpointer));
    let check = open(&path, STOCK_VFS);
    let is_there = |id: i64| {
        let found = check.query_row("SELECT id FROM t WHERE id = ?", [id], |row| row.get(0));
        found == Ok(id)
    };
    let lost = (1..=57).filter(|id| !is_there(*id)).count();
    let integrity = check.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    (lost, integrity.unwrap_or_else(|error| error.to_string()))
}

/// A gateway's checkpoint is overtaken by a worker. On the stock VFS acknowledged rows are gone and the
/// index is not the table's any more; if either side is ours, nothing is lost.
#[test]
fn an_overtaken_checkpoint_loses_no_row() {
    let version = rusqlite::version_number();
    assert!(version < 3_051_003, "{version} does not have the bug");
    let base = Base::register("stopping");
    let options = kanban_vfs::Options::default().with_base("stopping");
    kanban_vfs::register(&options).unwrap();
    let (lost, integrity) = overtake(base, "stopping", "stopping");
    assert!(lost > 0 && integrity != "ok", "{lost} {integrity}");
    for (checkpointer, writer) in
        [("kanban", "kanban"), ("kanban", "stopping"), ("stopping", "kanban")]
    {
        let left = overtake(base, checkpointer, writer);
        assert_eq!(left, (0, "ok".to_owned()), "{checkpointer} and {writer}");
    }
}

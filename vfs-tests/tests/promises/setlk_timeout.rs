//! An SQLite with SQLITE_ENABLE_SETLK_TIMEOUT takes WRITE before its snapshot, and expects the lock
//! call to wait. There, a writer queues inside that call.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::ffi;
use vfs_tests::base::{Fault, File, Method};
use vfs_tests::{Agent, Board, Program};

use crate::{agent, connect, over_faulty, rust_agent, status, status_of};

/// Debian's Python with the newest SQLite, built with that option.
fn waits_in_locks(board: &Board, vfs: &str, timeout_ms: u32) -> Agent {
    opened(&board.uri(vfs), timeout_ms)
}

fn opened(uri: &str, timeout_ms: u32) -> Agent {
    let library = [("LD_LIBRARY_PATH", env!("SETLK_SQLITE"))];
    let mut client = Agent::start_in(Program::Python, &rust_agent(), Path::new("/"), &library);
    client.open("c", uri, timeout_ms);
    let built = client.sql("c", "SELECT sqlite_compileoption_used('ENABLE_SETLK_TIMEOUT')").rows();
    assert_eq!(built, [[1]]);
    client
}

fn board() -> Board {
    let board = Board::new();
    connect(&board.kanban()).execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    board
}

/// Three writers wait for a fourth: two of them inside their lock calls, one in its busy handler.
/// They are served in the order in which they came. (On the stock VFS a blocking lock is the
/// kernel's, which wakes waiters in any order, so there is no order to compare.)
#[test]
fn it_queues_with_the_others() {
    let board = board();
    let observer = connect(&board.kanban());
    observer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut busy_handler = agent(Program::Rust);
    busy_handler.open("c", &board.kanban(), 60_000);
    let mut waiters = [
        waits_in_locks(&board, "kanban", 60_000),
        busy_handler,
        waits_in_locks(&board, "kanban", 60_000),
    ];
    for (n, waiter) in waiters.iter_mut().enumerate() {
        waiter.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
        let began = Instant::now();
        while status(&observer, "/waiters") != n + 1 {
            assert!(began.elapsed() < vfs_tests::PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    std::thread::sleep(Duration::from_millis(20));
    observer.execute_batch("COMMIT").unwrap();
    for waiter in &mut waiters {
        waiter.reply().rows();
    }
    let rows: String = observer
        .query_row("SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY rowid)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(rows, "0,1,2");
}

/// It waits as long as its busy timeout says and no longer, both for a writer of this VFS and for a
/// stock client, for which the base waits. (The stock VFS does the same.)
#[test]
fn it_waits_as_long_as_its_timeout_says() {
    for vfs in ["kanban", "unix"] {
        let board = board();
        let mut holder = agent(Program::Rust);
        holder.open("c", &board.uri(vfs), 1000);
        holder.sql("c", "BEGIN IMMEDIATE").rows();
        let mut waiter = waits_in_locks(&board, "kanban", 800);
        let began = Instant::now();
        assert_eq!(waiter.sql("c", "INSERT INTO t VALUES (1)").code(), 5);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(720), "{vfs}: {waited:?}");
        assert!(waited < Duration::from_secs(20), "{vfs}: {waited:?}");
        if vfs == "kanban" {
            // One wait: it was inside one call, and the busy handler was not called.
            let status = waiter.sql("c", "PRAGMA kanban_status").rows();
            assert!(status[0][0].as_str().unwrap().contains("\"refused\":1,"), "{status:?}");
        }
        holder.sql("c", "COMMIT").rows();
        waiter.sql("c", "INSERT INTO t VALUES (2)").rows();
    }
}

/// Two such processes and two others write in tight loops: all rows are there.
#[test]
fn all_of_its_rows_are_there() {
    const ROWS: usize = 300;
    let board = board();
    let mut writers = [
        waits_in_locks(&board, "kanban", 60_000),
        waits_in_locks(&board, "kanban", 60_000),
        agent(Program::Rust),
        agent(Program::Python),
    ];
    for writer in &mut writers[2..] {
        writer.open("c", &board.kanban(), 60_000);
    }
    for writer in &mut writers {
        for n in 0..ROWS {
            writer.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
        }
    }
    for writer in &mut writers {
        for _ in 0..ROWS {
            writer.reply().rows();
        }
    }
    let rows: i64 =
        connect(&board.kanban()).query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows as usize, 4 * ROWS);
}

/// Group commit works with such an SQLite, too. After another client's sync has failed, the next
/// client repairs that sync and commits, whether it takes WRITE before its snapshot (with a busy
/// timeout) or after it.
#[test]
fn it_commits_in_groups() {
    let (base, vfs) = over_faulty("setlk-group");
    let board = board();
    let grouped = |uri: String| format!("{uri}&kanban_group_commit=1");
    let mut clients = [0, 5000].map(|timeout| opened(&grouped(board.kanban()), timeout));
    for client in &mut clients {
        client.sql("c", "PRAGMA synchronous=full; INSERT INTO t VALUES (1)").rows();
        assert_eq!(status_of(client, "c", "/group_commit/active"), true);
        assert_eq!(status_of(client, "c", "/counters/syncs_led"), 1);
    }
    let faulty = connect(&grouped(board.uri(&vfs)));
    faulty.execute_batch("PRAGMA synchronous=full; INSERT INTO t VALUES (2)").unwrap();
    base.on(|call| match call.method {
        Method::Sync { .. } if call.file == File::Wal => Fault::Fail(ffi::SQLITE_IOERR_FSYNC),
        _ => Fault::None,
    });
    faulty.execute_batch("INSERT INTO t VALUES (3)").unwrap_err();
    base.off();
    for (client, rows) in clients.iter_mut().zip([4, 5]) {
        assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[rows]]);
        client.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (4); COMMIT").rows();
    }
    assert_eq!(clients[0].sql("c", "SELECT count(*) FROM t").rows(), [[6]]);
}

/// A transaction reads and then writes. On the stock VFS it is refused, as with any other SQLite.
/// With `kanban_begin=immediate` it waits for the write lock in its busy handler, although it waits
/// for other locks inside their calls. Then it may write. A transaction that begins with a write
/// takes WRITE before its snapshot, and waits in that call.
#[test]
fn it_takes_the_write_lock_before_it_reads() {
    let board = board();
    let holder = connect(&board.kanban());
    let immediate = format!("{}&kanban_begin=immediate", board.kanban());
    for (uri, waits) in [(board.stock(), false), (immediate, true)] {
        for sql in ["BEGIN; SELECT count(*) FROM t", "BEGIN; INSERT INTO t VALUES (0)"] {
            let mut client = opened(&uri, 60_000);
            holder.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
            client.send_sql("c", sql);
            let begins_to_write = sql.contains("INSERT");
            if waits || begins_to_write {
                assert_eq!(client.reply_within(Duration::from_millis(100)), None, "{sql}");
            } else {
                client.reply().rows();
            }
            holder.execute_batch("COMMIT").unwrap();
            if waits || begins_to_write {
                client.reply().rows();
                client.sql("c", "INSERT INTO t VALUES (2); COMMIT").rows();
            } else {
                assert_eq!(client.sql("c", "INSERT INTO t VALUES (2)").code(), 5);
            }
        }
    }
    let holds = |field: &str| status(&holder, field);
    assert_eq!(holds("/holder"), serde_json::Value::Null);
}

//! An application waits with its own busy handler, which sleeps by usleep(3) or by a function of its language. No VFS sees such
//! a sleep, or can end it. <https://www.sqlite.org/c3ref/busy_handler.html>

use std::time::{Duration, Instant};

use serde_json::json;
use vfs_tests::{Agent, Board, PATIENCE, Program};

use crate::{agent, connect, status};

const SQLITE_BUSY: i64 = 5;

const MODES: [&str; 2] = ["wal", "delete"];

/// A board in that mode with a table.
fn board(mode: &str) -> Board {
    let board = Board::new();
    let connection = connect(&board.kanban());
    connection.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).unwrap();
    board
}

/// A client with a handler that sleeps by itself, and gives up after that many calls, or never.
fn client(board: &Board, vfs: &str, ms: u32, times: Option<u32>) -> Agent {
    let mut client = agent(Program::Rust);
    client.open("c", &board.uri(vfs), 0);
    client.sql("c", "SELECT count(*) FROM t").rows();
    client.call(&json!(["sleeping busy handler", "c", ms, times])).rows();
    client
}

/// Returns when that process is seen in the queue.
fn wait_for(board: &Board, pid: u32) {
    let observer = connect(&board.kanban());
    let began = Instant::now();
    loop {
        let queue = status(&observer, "/queue");
        if queue.as_array().unwrap().iter().any(|waiter| waiter["pid"] == pid) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{queue}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A client that waits with a busy timeout. The VFS calls handlers in SQLite's place only while such a client waits.
fn queued(board: &Board, vfs: &str) -> Agent {
    let mut queued = agent(Program::Rust);
    queued.open("q", &board.uri(vfs), 60_000);
    queued.send_sql("q", "BEGIN IMMEDIATE");
    if vfs == "kanban" {
        wait_for(board, queued.pid());
    }
    queued
}

/// How long the transactions of some clients waited, in us, sorted.
fn waits(clients: &mut [Agent]) -> Vec<u64> {
    let rows = clients.iter_mut().flat_map(|client| client.reply().rows());
    let mut waits: Vec<_> = rows.map(|row| row[0].as_u64().unwrap()).collect();
    waits.sort_unstable();
    waits
}

/// Eight processes write as fast as they can. Four have a busy timeout, and four a handler that sleeps 5 ms by itself. On the
/// stock VFS the latter write several times as often, since SQLite's handler sleeps for longer and longer. In the queue it was
/// the reverse: the others were woken, and these found the lock taken whenever they tried, for seconds. Now they wait hardly
/// longer. Both VFSes are compared in one run.
#[test]
fn those_that_sleep_by_themselves_have_a_place_in_the_queue() {
    for mode in MODES {
        let [stock, ours] = ["unix", "kanban"].map(|vfs| {
            let board = board(mode);
            let mut queued = [(); 4].map(|()| agent(Program::Rust));
            for client in &mut queued {
                client.open("c", &board.uri(vfs), 60_000);
                client.sql("c", "PRAGMA synchronous=off").rows();
            }
            let mut own = [(); 4].map(|()| client(&board, vfs, 5, None));
            for client in queued.iter_mut().chain(&mut own) {
                client.send(&json!(["write for", "c", 2000, 3, 1]));
            }
            [waits(&mut queued), waits(&mut own)]
        });
        let median = |waits: &[u64]| waits[waits.len() / 2];
        let [queued, own] = ours.each_ref().map(|waits| median(waits));
        assert!(own <= 3 * queued, "{mode}: {own} us, those with a busy timeout {queued} us");
        // By what factor one kind writes more often than the other.
        let apart = |[queued, own]: &[Vec<u64>; 2]| {
            let [less, more] = [queued.len().min(own.len()), queued.len().max(own.len())];
            more as f64 / less as f64
        };
        let [stock, ours] = [apart(&stock), apart(&ours)];
        // On a busy machine both kinds may write equally often on the stock VFS.
        assert!(
            ours < stock.max(3.0),
            "{mode}: {ours:.1} times as often, on the stock VFS {stock:.1} times"
        );
    }
}

/// A client waits with such a handler, behind one that waits with a busy timeout. It is seen in the queue, and gets the lock
/// after that one. On the stock VFS nobody sees it.
#[test]
fn it_is_seen_in_the_queue_and_gets_the_lock() {
    for mode in MODES {
        let board = board(mode);
        let holder = connect(&board.kanban());
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut queued = queued(&board, "kanban");
        let mut own = client(&board, "kanban", 5, None);
        own.send_sql("c", "BEGIN IMMEDIATE");
        wait_for(&board, own.pid());
        holder.execute_batch("COMMIT").unwrap();
        queued.reply().rows();
        queued.sql("q", "COMMIT").rows();
        own.reply().rows();
        own.sql("c", "COMMIT").rows();
        assert_eq!(own.log(), Vec::<String>::new(), "{mode}");
    }
}

/// An application has an event loop. Its handler gives up at once, or after a while, and SQLite reports that. Then the
/// application does something else, and tries again. Another client waits in the queue. The handler is called as often
/// as on the stock VFS. It is not called for a statement that needs no write lock on that board. An application without
/// a handler is refused as on the stock VFS, too. A client that has given up is in nobody's way.
#[test]
fn a_handler_that_gives_up_is_asked_as_often_as_on_the_stock_vfs() {
    for mode in MODES {
        for times in [Some(0), Some(1), Some(4), None] {
            let [stock, ours] = ["unix", "kanban"].map(|vfs| {
                let board = board(mode);
                let mut holder = agent(Program::Rust);
                holder.open("h", &board.uri(vfs), 60_000);
                holder.sql("h", "BEGIN IMMEDIATE").rows();
                let mut queued = queued(&board, vfs);
                let mut own = match times {
                    Some(times) => client(&board, vfs, 2, Some(times)),
                    None => {
                        let mut without = agent(Program::Rust);
                        without.open("c", &board.uri(vfs), 0);
                        without
                    }
                };
                own.sql("c", "CREATE TEMP TABLE copy (x)").rows();
                let mut calls = Vec::new();
                for sql in ["BEGIN IMMEDIATE", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"] {
                    assert_eq!(own.sql("c", sql).code(), SQLITE_BUSY, "{vfs}, {mode}: {sql}");
                    calls.push(own.call(&json!(["calls of busy handler"])).rows());
                }
                own.sql("c", "INSERT INTO copy SELECT * FROM t").rows();
                calls.push(own.call(&json!(["calls of busy handler"])).rows());
                holder.sql("h", "COMMIT").rows();
                queued.reply().rows();
                queued.sql("q", "COMMIT").rows();
                let mut next = agent(Program::Rust);
                next.open("n", &board.uri(vfs), 0);
                next.sql("n", "INSERT INTO t VALUES (2)").rows();
                if vfs == "kanban" {
                    let observer = connect(&board.kanban());
                    assert_eq!(status(&observer, "/queue"), json!([]), "{mode}");
                }
                calls
            });
            assert_eq!(ours, stock, "{mode}, {times:?}");
        }
    }
}

/// An application is refused while another client waits in the queue, does something else, and tries again. Its handler sleeps
/// three times for a moment, and gives up. The application gets its answer after hardly longer than on the stock VFS, however
/// long it did something else.
#[test]
fn a_handler_that_gives_up_soon_blocks_hardly_longer_than_on_the_stock_vfs() {
    for mode in MODES {
        let [stock, ours] = ["unix", "kanban"].map(|vfs| {
            let board = board(mode);
            let mut holder = agent(Program::Rust);
            holder.open("h", &board.uri(vfs), 60_000);
            holder.sql("h", "BEGIN IMMEDIATE").rows();
            let mut queued = queued(&board, vfs);
            let mut own = client(&board, vfs, 2, Some(3));
            let refusals = (0..5).map(|_| {
                std::thread::sleep(Duration::from_millis(100));
                let began = Instant::now();
                assert_eq!(own.sql("c", "BEGIN IMMEDIATE").code(), SQLITE_BUSY, "{vfs}, {mode}");
                began.elapsed()
            });
            // The VFS cannot know about a refusal before the first.
            let shortest = refusals.skip(1).min().unwrap();
            holder.sql("h", "COMMIT").rows();
            queued.reply().rows();
            shortest
        });
        assert!(ours < 4 * stock, "{mode}: {ours:?}, on the stock VFS {stock:?}");
    }
}

//! Transactions over several databases wait for each other: one of them is refused at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::json;
use vfs_tests::{Agent, Board, Program, Reply};

use crate::{agent, connect};

/// The busy timeout of each client, in ms.
const TIMEOUT: u32 = 3000;

fn boards(n: usize) -> Vec<Board> {
    let board = |_| {
        let board = Board::new();
        let sql = "PRAGMA journal_mode=wal; CREATE TABLE t (x)";
        connect(&board.kanban()).execute_batch(sql).unwrap();
        board
    };
    (0..n).map(board).collect()
}

/// Client n of a ring has written to board n, and then writes to board n + 1, to which the next client has written. A refused
/// client rolls back, and the others commit. Returns how many were refused, and when the last client had its answer.
fn ring(clients: usize, uri: impl Fn(&Board) -> String) -> (usize, Duration) {
    let boards = boards(clients);
    let mut ring: Vec<Agent> = (0..clients).map(|_| agent(Program::Rust)).collect();
    for (n, client) in ring.iter_mut().enumerate() {
        client.open("c", &uri(&boards[n]), TIMEOUT);
        let next = uri(&boards[(n + 1) % clients]);
        client.sql("c", &format!("ATTACH '{next}' AS next")).rows();
        client.sql("c", "BEGIN").rows();
        client.sql("c", "INSERT INTO main.t VALUES (1)").rows();
    }
    let began = Instant::now();
    let refused = std::thread::scope(|scope| {
        let clients: Vec<_> = ring
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    let refused = match client.sql("c", "INSERT INTO next.t VALUES (2)") {
                        Reply::Rows(_) => false,
                        Reply::Error { code: 5, .. } => true,
                        other => panic!("{other:?}"),
                    };
                    client.sql("c", if refused { "ROLLBACK" } else { "COMMIT" }).rows();
                    refused
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).filter(|refused| *refused).count()
    });
    let waited = began.elapsed();
    for board in &boards {
        let rows = "SELECT count(*) FROM t";
        let rows: i64 = connect(&board.kanban()).query_row(rows, [], |row| row.get(0)).unwrap();
        assert!(rows <= 2, "{rows} rows");
    }
    (refused, waited)
}

/// Two clients write to two boards in opposite order, and four to four boards in a ring. On the stock VFS each waits for its
/// busy timeout. Here one of them is refused at once, and the others commit.
#[test]
fn a_circle_of_writers_is_refused_once_and_at_once() {
    let timeout = Duration::from_millis(TIMEOUT.into());
    let (stock, ours) = std::thread::scope(|scope| {
        let stock = scope.spawn(|| ring(2, Board::stock));
        (2..5).for_each(|clients| {
            let (refused, waited) = ring(clients, Board::kanban);
            assert_eq!(refused, 1, "of {clients}");
            assert!(waited < timeout / 4, "{clients} clients have waited for {waited:?}");
        });
        (stock.join().unwrap(), ring(2, Board::kanban))
    });
    assert!(stock.0 > 0 && stock.1 >= timeout * 9 / 10, "{stock:?}");
    assert!(ours.1 < stock.1 / 4, "{ours:?}");
}

/// Four clients write to two boards each, in a ring, again and again: they hold locks, wait in circles, are refused, and take
/// other locks. On the stock VFS most statements of a circle wait for their whole busy timeout. Here none does.
#[test]
fn a_ring_of_writers_goes_on() {
    const TIMEOUT: u32 = 20_000;
    let boards = boards(4);
    let longest = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|n| {
                let boards = &boards;
                scope.spawn(move || {
                    let mut client = agent(Program::Rust);
                    client.open("c", &boards[n].kanban(), TIMEOUT);
                    let next = boards[(n + 1) % 4].kanban();
                    client.sql("c", &format!("ATTACH '{next}' AS next")).rows();
                    client.sql("c", "PRAGMA main.synchronous=off").rows();
                    client.sql("c", "PRAGMA next.synchronous=off").rows();
                    let mut longest = Duration::ZERO;
                    for _ in 0..3000 {
                        let began = Instant::now();
                        let reply = client.sql("c", "BEGIN IMMEDIATE");
                        longest = longest.max(began.elapsed());
                        if let Reply::Error { code, .. } = reply {
                            assert_eq!(code, 5);
                            continue;
                        }
                        client.sql("c", "INSERT INTO main.t VALUES (1)").rows();
                        client.sql("c", "INSERT INTO next.t VALUES (1)").rows();
                        client.sql("c", "COMMIT").rows();
                    }
                    longest
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).max()
    });
    let longest = longest.expect("there are four");
    assert!(longest < Duration::from_millis(TIMEOUT.into()) / 2, "{longest:?}");
}

/// The same with two threads of one process.
#[test]
fn a_circle_of_threads_is_refused_once() {
    let boards = boards(2);
    let both_write = Barrier::new(2);
    let refused = std::thread::scope(|scope| {
        let threads = [0, 1].map(|n| {
            let (boards, both_write) = (&boards, &both_write);
            scope.spawn(move || {
                let writer = connect(&boards[n].kanban());
                writer.busy_timeout(Duration::from_millis(TIMEOUT.into())).unwrap();
                let attach = format!("ATTACH '{}' AS next", boards[1 - n].kanban());
                writer.execute_batch(&attach).unwrap();
                writer.execute_batch("BEGIN; INSERT INTO main.t VALUES (1)").unwrap();
                both_write.wait();
                let began = Instant::now();
                let is_refused = writer.execute_batch("INSERT INTO next.t VALUES (2)").is_err();
                let waited = began.elapsed();
                writer.execute_batch(if is_refused { "ROLLBACK" } else { "COMMIT" }).unwrap();
                assert!(waited < Duration::from_millis(TIMEOUT.into()) / 4, "{waited:?}");
                is_refused
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(refused == [true, false] || refused == [false, true], "{refused:?}");
}

/// Seven clients write to several boards, all in one order, at once and in loops. Nobody waits in a circle, so
/// nobody is refused.
#[test]
fn transactions_that_keep_one_order_are_not_refused() {
    let boards = boards(3);
    let mut clients: Vec<Agent> = (0..6).map(|_| agent(Program::Rust)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.open("c", &boards[0].kanban(), 30_000);
        for (nth, board) in boards.iter().enumerate().skip(1).filter(|(nth, _)| n % 3 != *nth) {
            client.sql("c", &format!("ATTACH '{}' AS b{nth}", board.kanban())).rows();
        }
        for _ in 0..50 {
            client.send_sql("c", "BEGIN IMMEDIATE");
            client.send_sql("c", "INSERT INTO main.t VALUES (1)");
            client.send_sql("c", "COMMIT");
        }
    }
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| (0..150).for_each(|_| drop(client.reply().rows())));
        }
        scope.spawn(|| {
            let writer = connect(&boards[1].kanban());
            writer.busy_timeout(Duration::from_secs(30)).unwrap();
            writer.execute_batch(&format!("ATTACH '{}' AS b2", boards[2].kanban())).unwrap();
            for _ in 0..50 {
                writer
                    .execute_batch("BEGIN IMMEDIATE; INSERT INTO b2.t VALUES (1); COMMIT")
                    .unwrap();
            }
        });
    });
}

/// Two clients have each written to their own board, and attached the other's. Returns the boards and the clients.
fn pair(uri: impl Fn(&Board) -> String, timeouts: [u32; 2]) -> (Vec<Board>, [Agent; 2]) {
    let boards = boards(2);
    let mut clients = [(); 2].map(|()| agent(Program::Rust));
    for (n, client) in clients.iter_mut().enumerate() {
        client.open("c", &uri(&boards[n]), timeouts[n]);
        client.sql("c", &format!("ATTACH '{}' AS next", uri(&boards[1 - n]))).rows();
        client.sql("c", "BEGIN; INSERT INTO main.t VALUES (1)").rows();
    }
    (boards, clients)
}

/// A client of a circle waits with its own handler, which calls sqlite3_sleep and never gives up. It came last, so it is the
/// one that detects the circle. It gets the lock when the other has rolled back, as on the stock VFS. Until then it sleeps as
/// long as it asks to, except in the first thousand calls.
#[test]
fn a_handler_that_never_gives_up_gets_the_lock_of_a_circle() {
    for ms in [1, 50] {
        for uri in [Board::stock, Board::kanban] {
            let (boards, [mut first, mut own]) = pair(uri, [700, 0]);
            own.call(&json!(["own busy handler", "c", ms])).rows();
            first.send_sql("c", "INSERT INTO next.t VALUES (2)");
            assert_eq!(first.reply_within(Duration::from_millis(100)), None, "it waits");
            let began = Instant::now();
            own.send_sql("c", "INSERT INTO next.t VALUES (2)");
            assert_eq!(first.reply().code(), 5, "{ms} ms");
            first.sql("c", "ROLLBACK").rows();
            own.reply().rows();
            let most = began.elapsed().as_millis() as u64 / ms + 1010;
            own.sql("c", "COMMIT").rows();
            let rows = "SELECT count(*) FROM t";
            for board in &boards {
                let reader = connect(&board.kanban());
                let rows: i64 = reader.query_row(rows, [], |row| row.get(0)).unwrap();
                assert_eq!(rows, 1, "{ms} ms");
            }
            if uri(&boards[0]) == boards[0].kanban() {
                let status = own.sql("c", "PRAGMA next.kanban_status").rows();
                let status: serde_json::Value =
                    serde_json::from_str(status[0][0].as_str().unwrap()).unwrap();
                let refused = status["counters"]["refused"].as_u64().expect("a number");
                assert!((1..=most).contains(&refused), "{ms} ms: {refused} of {most}");
            }
        }
    }
}

/// A client of a circle is refused. Its busy timeout is exactly a sum of SQLite's sleeps, so its last sleep cannot be
/// recognised. It rolls back, and the other goes on and keeps both locks. The next statement of the refused client waits in
/// no circle. It waits for its whole timeout, as on the stock VFS.
#[test]
fn a_circle_ends_with_the_statement_that_was_refused() {
    const TIMEOUT: u32 = 328;
    let timeout = Duration::from_millis(TIMEOUT.into());
    for uri in [Board::stock, Board::kanban] {
        let (boards, [mut first, mut second]) = pair(uri, [10_000, TIMEOUT]);
        first.send_sql("c", "INSERT INTO next.t VALUES (2)");
        assert_eq!(first.reply_within(Duration::from_millis(100)), None, "it waits");
        let mut insert = || {
            let began = Instant::now();
            assert_eq!(second.sql("c", "INSERT INTO next.t VALUES (2)").code(), 5);
            let waited = began.elapsed();
            second.sql("c", "ROLLBACK");
            waited
        };
        let waited = insert();
        let is_ours = uri(&boards[0]) == boards[0].kanban();
        assert_eq!(waited < timeout / 2, is_ours, "{waited:?}");
        first.reply().rows();
        let waited = insert();
        assert!(waited >= timeout * 9 / 10, "{waited:?}");
        first.sql("c", "COMMIT").rows();
    }
}

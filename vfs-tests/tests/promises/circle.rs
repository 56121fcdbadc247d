//! Transactions over several databases that wait for each other: one of them is told at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

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

/// Client n of a ring has written to board n, and then writes to board n + 1, which the next client has written to. Who is
/// refused rolls back, and the others commit. Returns how many were refused, and when the last client had an answer.
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
fn nobody_is_refused_who_keeps_to_one_order() {
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

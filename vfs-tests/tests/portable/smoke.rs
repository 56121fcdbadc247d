//! A new board that many processes meet on at once.

use vfs_tests::Board;

use crate::agent;

/// 8 workers are started together, make the board each for itself if it is not there, and write 40
/// tasks each, a transaction a task. On the stock VFS some of them are told "database is locked" by the
/// switch to WAL mode, whatever their timeout. Here none is, and every task is there.
#[test]
fn eight_processes_write_forty_tasks_each() {
    let board = Board::new();
    let mut workers: Vec<_> = (0..8).map(|_| agent()).collect();
    for worker in &mut workers {
        worker.open("w", &board.kanban(), 60_000);
    }
    for worker in &mut workers {
        worker.send_sql("w", "PRAGMA journal_mode=wal");
        worker.send_sql("w", "CREATE TABLE IF NOT EXISTS tasks (worker INTEGER, n INTEGER)");
    }
    for (number, worker) in workers.iter_mut().enumerate() {
        for n in 0..40 {
            worker.send_sql("w", &format!("INSERT INTO tasks VALUES ({number}, {n})"));
        }
    }
    for worker in &mut workers {
        assert_eq!(worker.reply().rows(), [["wal"]]);
        for _ in 0..41 {
            worker.reply().rows();
        }
    }
    let reader = &mut workers[0];
    let counted = "SELECT count(*), count(DISTINCT worker * 40 + n) FROM tasks";
    assert_eq!(reader.sql("w", counted).rows(), [[320, 320]]);
    assert_eq!(reader.sql("w", "PRAGMA integrity_check").rows(), [["ok"]]);
}

//! A bounded wait, and who is to blame for it.

use std::time::{Duration, Instant};

use vfs_tests::Board;

use crate::{SQLITE_BUSY, agent};

/// One process forgets to commit. Another waits its busy timeout, gets SQLITE_BUSY and one line in
/// the log that names the first; the stock VFS names nobody. Once the first has committed, the same
/// transaction goes through.
#[test]
fn a_refused_writer_learns_who_holds_the_lock() {
    for mode in ["delete", "wal"] {
        let board = Board::new();
        let (mut holder, mut writer) = (agent(), agent());
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
        holder.sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();

        writer.open("stock", &board.stock(), 300);
        assert_eq!(writer.sql("stock", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        assert_eq!(writer.log(), Vec::<String>::new());
        writer.close("stock");

        writer.open("w", &board.kanban(), 300);
        let began = Instant::now();
        assert_eq!(writer.sql("w", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        let waited = began.elapsed();
        // The upper bound is for a wait that has lost its timeout, not for a slow machine.
        let possible = Duration::from_millis(290)..Duration::from_secs(20);
        assert!(possible.contains(&waited), "gave up after {waited:?}");
        let log = writer.log();
        let [line] = &log[..] else { panic!("not one line: {log:?}") };
        assert!(line.starts_with("5 gave up after waiting "), "{line}");
        assert!(line.contains(&format!(" process {} (agent", holder.pid())), "{line}");
        assert!(line.ends_with(&format!("wait longer: {}", board.path().display())), "{line}");

        holder.sql("h", "COMMIT").rows();
        writer.sql("w", "INSERT INTO t VALUES (2)").rows();
        assert_eq!(writer.sql("w", "SELECT x FROM t").rows(), [[1], [2]]);
    }
}

/// A writer waits for a holder that commits in time.
#[test]
fn a_writer_gets_its_turn_when_the_holder_commits_in_time() {
    let board = Board::new();
    let (mut holder, mut writer) = (agent(), agent());
    holder.open("h", &board.kanban(), 60_000);
    writer.open("w", &board.kanban(), 60_000);
    holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    writer.send_sql("w", "INSERT INTO t VALUES (1)");
    assert_eq!(writer.reply_within(Duration::from_millis(100)), None, "the writer waits");
    holder.sql("h", "COMMIT").rows();
    writer.reply().rows();
}

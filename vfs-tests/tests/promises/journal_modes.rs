//! Every journal mode and every kind of statement behaves through the VFS as it does without it.

use std::fmt::Write;

use rusqlite::{Connection, types::Value};
use vfs_tests::{Board, Program};

use crate::{Client, connect};

/// Runs each statement, and returns the answers as text.
fn transcript(vfs: &str, mode: &str) -> String {
    let (board, attached) = (Board::new(), Board::new());
    let first = connect(&board.uri(vfs));
    let second = connect(&board.uri(vfs));
    second.busy_timeout(std::time::Duration::ZERO).unwrap();
    let mut said = String::new();
    let attach = format!("ATTACH '{}' AS other", attached.uri(vfs));
    let vacuum_into = format!("VACUUM INTO '{}'", attached.directory().join("copy.db").display());
    let steps: Vec<(&str, &Connection, &str)> = [
        (1, format!("PRAGMA journal_mode={mode}")),
        (1, "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT)".into()),
        (2, "INSERT INTO t (x) VALUES ('a'), ('b')".into()),
        // Savepoints.
        (1, "SAVEPOINT s".into()),
        (1, "INSERT INTO t (x) VALUES ('c')".into()),
        (1, "SAVEPOINT inner".into()),
        (1, "DELETE FROM t".into()),
        (2, "INSERT INTO t (x) VALUES ('refused')".into()),
        (1, "ROLLBACK TO inner".into()),
        (1, "RELEASE s".into()),
        // A read transaction that upgrades, alone and in another's way.
        (2, "BEGIN".into()),
        (2, "SELECT count(*) FROM t".into()),
        (2, "INSERT INTO t (x) VALUES ('upgraded')".into()),
        (1, "SELECT count(*) FROM t".into()),
        (2, "COMMIT".into()),
        (2, "BEGIN".into()),
        (2, "SELECT count(*) FROM t".into()),
        (1, "BEGIN IMMEDIATE".into()),
        (2, "INSERT INTO t (x) VALUES ('refused')".into()),
        (2, "ROLLBACK".into()),
        (1, "COMMIT".into()),
        // DDL, seen by the other connection.
        (1, "ALTER TABLE t ADD COLUMN y DEFAULT 5".into()),
        (1, "CREATE INDEX i ON t (x)".into()),
        (2, "SELECT x, y FROM t ORDER BY id".into()),
        // Several boards in one transaction.
        (1, attach),
        (1, "CREATE TABLE other.u AS SELECT * FROM t".into()),
        (1, "BEGIN".into()),
        (1, "INSERT INTO t (x) VALUES ('both')".into()),
        (1, "INSERT INTO other.u (x) VALUES ('both')".into()),
        (1, "COMMIT".into()),
        (1, "DETACH other".into()),
        // Growing, shrinking, copying.
        (1, "INSERT INTO t (x) SELECT hex(zeroblob(3000)) FROM t".into()),
        (1, "DELETE FROM t WHERE length(x) > 100".into()),
        (1, "VACUUM".into()),
        (1, vacuum_into),
        (1, "PRAGMA page_count".into()),
        // Exclusive locking mode keeps others out, reading or writing.
        (1, "PRAGMA locking_mode=exclusive".into()),
        (1, "INSERT INTO t (x) VALUES ('exclusive')".into()),
        (2, "SELECT count(*) FROM t".into()),
        (2, "INSERT INTO t (x) VALUES ('refused')".into()),
        (1, "PRAGMA locking_mode=normal".into()),
        (1, "SELECT count(*) FROM t".into()),
        (2, "INSERT INTO t (x) VALUES ('after')".into()),
        // Changing the journal mode, in another's way and not.
        (2, "BEGIN IMMEDIATE".into()),
        (2, "COMMIT".into()),
        (2, "PRAGMA journal_mode".into()),
        (1, "PRAGMA wal_checkpoint(truncate)".into()),
        (1, "PRAGMA journal_mode=delete".into()),
        (1, "PRAGMA integrity_check".into()),
        (1, "SELECT count(*), sum(id), max(x) FROM t".into()),
    ]
    .into_iter()
    .map(|(who, sql)| {
        let sql: &'static str = String::leak(sql);
        (if who == 1 { "first" } else { "second" }, if who == 1 { &first } else { &second }, sql)
    })
    .collect();
    for (who, connection, sql) in steps {
        let result = rows(connection, sql);
        let sql = sql.split('\'').next().unwrap();
        writeln!(said, "{who}: {sql}: {result:?}").unwrap();
    }
    let mut copy = Connection::open_in_memory().unwrap();
    rusqlite::backup::Backup::new(&first, &mut copy)
        .unwrap()
        .run_to_completion(1, std::time::Duration::ZERO, None)
        .unwrap();
    writeln!(said, "backup: {:?}", rows(&copy, "SELECT count(*), sum(id) FROM t")).unwrap();
    drop((first, second));
    let mut files: Vec<_> = board
        .directory()
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-lock") && !name.ends_with("-kanban-log"))
        .collect();
    files.sort();
    writeln!(said, "files: {files:?}").unwrap();
    said
}

fn rows(connection: &Connection, sql: &str) -> Result<Vec<Vec<Value>>, String> {
    let run = || {
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((0..columns).map(|n| row.get(n)).collect::<Result<Vec<Value>, _>>()?);
        }
        Ok(found)
    };
    run().map_err(|error: rusqlite::Error| error.to_string())
}

/// Two connections do everything for which SQLite documents locks, on the stock VFS and on ours, in every journal mode. All
/// answers must be exactly the same.
#[test]
fn every_mode_behaves_as_documented() {
    for mode in ["delete", "truncate", "persist", "memory", "off", "wal"] {
        let stock = transcript("unix", mode);
        assert!(stock.contains("database is locked"), "{stock}");
        assert_eq!(transcript("kanban&kanban_persist_wal=0", mode), stock, "{mode}");
        let keeps = transcript("kanban", mode);
        let but_for_files = |said: &str| said.split("files: ").next().unwrap().to_owned();
        assert_eq!(but_for_files(&keeps), but_for_files(&stock), "{mode}");
    }
}

/// One process leaves WAL mode: SQLite deletes the WAL, unlocks, and takes RESERVED a moment later to change the header.
/// Another process opens the database in that moment, reads WAL mode in the header, and makes its own WAL. The first will
/// not get EXCLUSIVE until the second closes. On the stock VFS the second writes meanwhile. If it waited for the write
/// lock, which the first holds, each would wait for the other: "locking protocol", after ten seconds.
#[test]
fn a_writer_in_wal_mode_does_not_wait_for_one_that_leaves_the_mode() {
    for client in [Client::Stock, Client::Ours] {
        let board = Board::new();
        let uri = client.uri(&board);
        let mut leaves = client.start(Program::Rust);
        leaves.open("c", &uri, 5000);
        leaves.sql("c", "CREATE TABLE t (x)").rows();
        leaves.sql("c", "BEGIN IMMEDIATE").rows();
        // What the second process finds in the header.
        let file = std::fs::File::options().write(true).open(board.path()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[2, 2], 18).unwrap();
        let mut comes = client.start(Program::Python);
        comes.open("c", &uri, 5000);
        comes.sql("c", "INSERT INTO t VALUES (1)").rows();
        let found = comes.sql("c", "SELECT x FROM t").rows();
        assert_eq!(found.len(), 1, "{client:?}");
        comes.close("c");
        leaves.sql("c", "ROLLBACK").rows();
        leaves.close("c");
        let check = connect(&board.stock());
        assert_eq!(rows(&check, "PRAGMA integrity_check").unwrap(), [["ok".to_owned().into()]]);
        assert_eq!(rows(&check, "SELECT x FROM t").unwrap(), [[Value::Integer(1)]]);
    }
}

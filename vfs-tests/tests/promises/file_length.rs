//! The database file is as long as its header says. A torn extension is caught before it is committed, and a
//! checkpoint neither leaves nor shows one. A file that is too short is reported, and left as it is.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use serde_json::{Value, json};
use vfs_tests::base::{Base, Fault, File, Method};
use vfs_tests::{Agent, Board, Program, Reply};

use crate::{agent, connect, over_faulty, went_well};

/// How many bytes a file of that size is shorter than its header says.
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
fn deficit(header: &[u8; 100], size: i64) -> i64 {
    let word = |at: usize| i64::from(u32::from_be_bytes(header[at..at + 4].try_into().unwrap()));
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        page => i64::from(page),
    };
    // Otherwise an SQLite that does not maintain the page count wrote the file.
    let is_kept = word(24) == word(92);
    if is_kept { (word(28) * page - size).max(0) } else { 0 }
}

fn deficit_of(path: &Path) -> i64 {
    let bytes = std::fs::read(path).unwrap();
    deficit(bytes[..100].try_into().unwrap(), bytes.len() as i64)
}

/// Whether a connection of the stock VFS finds something wrong with a board.
fn is_damaged(board: &Board) -> bool {
    let connection = connect(&board.stock());
    let ok = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    let read = connection.query_row("SELECT sum(length(x)) FROM t", [], |_| Ok(()));
    ok != Ok("ok".to_owned()) || read.is_err()
}

fn rows(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM t WHERE length(x) > 0", [], |row| row.get(0))
}

fn code(result: rusqlite::Result<()>) -> Option<ErrorCode> {
    result.err().and_then(|error| error.sqlite_error_code())
}

/// Makes a base that drops writes beyond `limit` bytes of the database, and reports success.
fn drop_beyond(base: Base, limit: i64) {
    base.on(move |call| {
        let end = match call.method {
            Method::Write { offset, bytes } if call.file == File::Main => {
                offset + bytes.len() as i64
            }
            _ => 0,
        };
        if end > limit { Fault::Pretend } else { Fault::None }
    });
}

/// A worker commits a row of many pages. The pages behind the end of the file, all or the last of them, never reach
/// the disk, although the file system reported success. The header counts them.
#[test]
fn a_torn_extension_is_rolled_back() {
    let (base, ours) = over_faulty("faulty-torn");
    let settings = ["delete", "truncate", "persist"]
        .into_iter()
        .flat_map(|mode| ["full", "off"].map(|sync| (mode, sync)))
        .flat_map(|(mode, sync)| [512, 4096, 65536].map(|page| (mode, sync, page)))
        .flat_map(|(mode, sync, page)| [0, 2].map(|arrive| (mode, sync, page, arrive)));
    for (mode, sync, page, arrive) in settings {
        let case = format!("{mode}, synchronous={sync}, pages of {page}, of which {arrive} arrive");
        let set_up = |vfs: &str| {
            let board = Board::new();
            let connection = connect(&board.uri(vfs));
            connection
                .execute_batch(&format!(
                    "PRAGMA page_size={page}; PRAGMA journal_mode={mode}; PRAGMA synchronous={sync}; \
                     CREATE TABLE t (x); INSERT INTO t VALUES ('first'), ('second')"
                ))
                .unwrap();
            let size = board.path().metadata().unwrap().len() as i64;
            (board, connection, size)
        };
        let insert = format!("INSERT INTO t VALUES (zeroblob({}))", 6 * page);

        let (board, connection, size) = set_up("faulty-torn");
        drop_beyond(base, size + arrive * page);
        connection.execute_batch(&insert).unwrap();
        base.off();
        drop(connection);
        assert!(deficit_of(&board.path()) > 0, "{case}");
        assert!(is_damaged(&board), "{case}");

        let (board, connection, size) = set_up(&ours);
        for sql in [insert.clone(), format!("BEGIN; {insert}; COMMIT")] {
            drop_beyond(base, size + arrive * page);
            let torn = connection.execute_batch(&sql);
            assert_eq!(code(torn), Some(ErrorCode::SystemIoFailure), "{case}: {sql}");
            assert!(connection.is_autocommit(), "{case}: {sql}");
            base.off();
            assert_eq!(rows(&connection), Ok(2), "{case}: {sql}");
            assert!(!is_damaged(&board), "{case}: {sql}");
        }
        connection.execute_batch(&insert).unwrap();
        drop(connection);
        assert_eq!(rows(&connect(&board.uri(&ours))), Ok(3), "{case}");
        assert_eq!(deficit_of(&board.path()), 0, "{case}");
        assert!(!is_damaged(&board), "{case}");
    }
}

/// A checkpoint copies rows into the database, and what would make it longer never reaches the disk: the pages, or
/// both the pages and the truncation that would replace them with zeros. The stock VFS reports that all is copied, and
/// the WAL, the only place of the rows, goes.
#[test]
fn a_checkpoint_that_leaves_the_file_short_is_refused() {
    let (base, ours) = over_faulty("faulty-checkpoint");
    let drop_extensions = |truncations| {
        base.on(move |call| match call.method {
            Method::Write { .. } if call.file == File::Main && call.extends() => Fault::Pretend,
            Method::Truncate { .. } if call.file == File::Main && truncations => Fault::Pretend,
            _ => Fault::None,
        });
    };
    let set_up = |vfs: &str| {
        let board = Board::new();
        let connection = connect(&board.uri(vfs));
        connection
            .execute_batch(
                "PRAGMA journal_mode=wal; CREATE TABLE t (x); \
                 INSERT INTO t VALUES ('first'), ('second'); PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .unwrap();
        for _ in 0..3 {
            connection.execute_batch(INSERT).unwrap();
        }
        (board, connection)
    };
    // More than the file is ahead.
    const INSERT: &str = "INSERT INTO t VALUES (zeroblob(600000))";
    let how = |mode: &str| format!("PRAGMA wal_checkpoint({mode})");
    let explicit = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"].map(how);
    let automatic = format!("PRAGMA wal_autocheckpoint=1; {INSERT}");
    for truncations in [false, true] {
        for how in explicit.iter().map(String::as_str).chain([&*automatic, "close"]) {
            let case = format!("{how}, truncations dropped: {truncations}");
            let checkpoint = |connection: &Connection| match how {
                "close" => Ok(()),
                _ if how == automatic => connection.execute_batch(how),
                _ => connection.query_row(how, [], |row| {
                    assert_eq!(row.get::<_, i64>(0), Ok(0), "{case}: nobody is in its way");
                    assert_eq!(row.get::<_, i64>(1), row.get(2), "{case}: all is copied");
                    Ok(())
                }),
            };

            let (board, connection) = set_up("faulty-checkpoint");
            drop_extensions(truncations);
            checkpoint(&connection).unwrap();
            drop(connection);
            base.off();
            assert!(!wal(&board).exists(), "{case}: the WAL is gone");
            assert!(is_damaged(&board), "{case}");

            let (board, connection) = set_up(&ours);
            drop_extensions(truncations);
            let refused =
                (![&*automatic, "close"].contains(&how)).then_some(ErrorCode::SystemIoFailure);
            assert_eq!(code(checkpoint(&connection)), refused, "{case}");
            let before = rows(&connection).unwrap();
            assert_eq!(before, if how == automatic { 6 } else { 5 }, "{case}");
            assert!(!is_damaged(&board), "{case}: the rows are in the WAL");
            connection.execute_batch(INSERT).unwrap();
            drop(connection);
            assert!(wal(&board).metadata().unwrap().len() > 0, "{case}: the frames stay");
            base.off();
            let connection = connect(&board.uri(&ours));
            assert_eq!(rows(&connection), Ok(before + 1), "{case}");
            let all = "PRAGMA wal_checkpoint(TRUNCATE)";
            assert_eq!(connection.query_row(all, [], |row| row.get(0)), Ok(0), "{case}");
            drop(connection);
            assert_eq!(deficit_of(&board.path()), 0, "{case}");
            assert_eq!(rows(&connect(&board.stock())), Ok(before + 1), "{case}");
            assert!(!is_damaged(&board), "{case}");
        }
    }
}

fn wal(board: &Board) -> std::path::PathBuf {
    board.directory().join("board.db-wal")
}

/// A program looks at the file before each step of passive checkpoints. The stock VFS writes the header, with the new
/// page count, before the pages that it counts.
#[test]
fn a_checkpoint_never_shows_a_header_ahead_of_its_file() {
    let (base, ours) = over_faulty("faulty-observed");
    for page in [512, 4096, 65536] {
        let worst = |vfs: &str| {
            let board = Board::new();
            let connection = connect(&board.uri(vfs));
            connection
                .execute_batch(&format!(
                    "PRAGMA page_size={page}; PRAGMA journal_mode=wal; CREATE TABLE t (x)"
                ))
                .unwrap();
            let (looked, worst) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicI64::new(0)));
            let (count, into) = (Arc::clone(&looked), Arc::clone(&worst));
            base.on(move |call| {
                if call.file == File::Main && call.size() > 0 {
                    count.fetch_add(1, Ordering::Relaxed);
                    into.fetch_max(deficit(&call.read(0), call.size()), Ordering::Relaxed);
                }
                Fault::None
            });
            let insert = format!("INSERT INTO t VALUES (zeroblob({}))", 6 * page);
            for round in 0..10 {
                for _ in 0..=round {
                    connection.execute_batch(&insert).unwrap();
                }
                let passive = "PRAGMA wal_checkpoint(PASSIVE)";
                connection.query_row(passive, [], |_| Ok(())).unwrap();
            }
            base.off();
            drop(connection);
            assert!(looked.load(Ordering::Relaxed) > 100, "it did not look");
            assert!(!is_damaged(&board));
            worst.load(Ordering::Relaxed)
        };
        assert!(worst("faulty-observed") >= page, "pages of {page}");
        assert_eq!(worst(&ours), 0, "pages of {page}");
    }
}

/// Eight workers write rows of many pages and checkpoint, while a monitor compares the header with the file all the
/// time. On the stock VFS it would see what the test above shows, and report boards as torn that are not.
///
/// Takes some seconds; KANBAN_OBSERVE_SECONDS says how many.
#[test]
fn a_monitor_never_sees_a_deficit() {
    let seconds = std::env::var("KANBAN_OBSERVE_SECONDS").map_or(4, |n| n.parse().unwrap());
    let began = Instant::now();
    // Each round has a new board, so a long run does not fill the disk.
    while began.elapsed() < Duration::from_secs(seconds) {
        observe(Duration::from_secs(seconds.min(4)));
    }
}

fn observe(limit: Duration) {
    let board = Board::new();
    let mut first = agent(Program::Rust);
    first.open("c", &board.kanban(), 60_000);
    first.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    // This process has no connection to the board whose locks a close of this descriptor could drop.
    let file = std::fs::File::open(board.path()).unwrap();
    let size = || file.metadata().unwrap().len() as i64;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let observer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut header = [0; 100];
                file.read_exact_at(&mut header, 0).unwrap();
                // The header first: the file may grow meanwhile.
                let size = size();
                assert_eq!(deficit(&header, size), 0, "of {size}: {header:?}");
            }
        });
        let board = &board;
        let writers = [0; 4].iter().flat_map(|_| Program::ALL);
        let writers: Vec<_> = writers
            .map(|program| scope.spawn(move || write_for(limit, agent(program), board)))
            .collect();
        let written: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        is_over.store(true, Ordering::Relaxed);
        observer.join().unwrap();
        first.close("c");
        assert!(size() > written * 20000, "{written} rows in {} bytes", size());
    });
}

/// How many rows were written.
fn write_for(limit: Duration, mut client: Agent, board: &Board) -> i64 {
    client.open("c", &board.kanban(), 60_000);
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < limit || written < 6 {
        client.sql("c", "INSERT INTO t VALUES (zeroblob(20000))").rows();
        written += 1;
        if written % 3 == 0 {
            client.sql("c", "PRAGMA wal_checkpoint(PASSIVE)").rows();
        }
    }
    client.close("c");
    written
}

/// A board was copied while it was written, or restored in part: its file ends before its last page. Nobody can make
/// it whole, so it is reported, and not made to look whole. The stock VFS says "malformed", as for any damage, and
/// says nothing about a page that is there in part.
#[test]
fn a_file_that_is_short_at_open_is_reported_and_left() {
    let cases = ["delete", "truncate", "persist", "wal"]
        .into_iter()
        .flat_map(|mode| [1, 4096, 9000].map(|missing| (mode, missing)));
    for (program, (mode, missing)) in
        Program::ALL.into_iter().flat_map(|p| cases.clone().map(move |case| (p, case)))
    {
        let case = format!("{program:?}, {mode}, {missing} bytes missing");
        let board = Board::new();
        connect(&board.stock())
            .execute_batch(&format!(
                "PRAGMA journal_mode={mode}; CREATE TABLE t (x); \
                 INSERT INTO t VALUES (zeroblob(20000))"
            ))
            .unwrap();
        let file = OpenOptions::new().write(true).open(board.path()).unwrap();
        file.set_len(file.metadata().unwrap().len() - missing).unwrap();
        drop(file);
        if mode == "wal" && missing > 4096 {
            std::fs::File::create(wal(&board)).unwrap();
        }
        let before = std::fs::read(board.path()).unwrap();
        let all = "SELECT sum(length(hex(x))) FROM t";
        let malformed = |client: &mut Agent| match client.sql("c", all) {
            Reply::Error { message, .. } => message == "database disk image is malformed",
            Reply::Rows(_) => false,
        };

        let mut client = agent(program);
        client.open("c", &board.stock(), 5000);
        assert_eq!(malformed(&mut client), missing > 1, "{case}");
        client.close("c");

        client.open("c", &board.kanban(), 5000);
        assert_eq!(malformed(&mut client), missing > 1, "{case}");
        let guarantee = file_length(&mut client);
        assert_eq!(guarantee["active"], false, "{case}");
        assert!(guarantee["why"].as_str().unwrap().contains("shorter"), "{case}: {guarantee}");
        assert_eq!(malformed(&mut client), missing > 1, "{case}");
        client.close("c");
        if program == Program::Rust {
            let log = client.log();
            let reports: Vec<_> = log.iter().filter(|line| line.contains("shorter")).collect();
            assert_eq!(reports.len(), 1, "{case}: {log:?}");
            assert!(reports[0].contains("board.db"), "{case}: {log:?}");
        }
        drop(client);
        assert!(std::fs::read(board.path()).unwrap() == before, "{case}: it was changed");
    }
}

fn file_length(client: &mut Agent) -> Value {
    let rows = client.sql("c", "PRAGMA kanban_status").rows();
    let status: Value = serde_json::from_str(rows[0][0].as_str().unwrap()).unwrap();
    status.pointer("/guarantees/file_length").cloned().unwrap_or_else(|| panic!("{status}"))
}

/// Boards that are whole: none is reported. That includes a board whose file is behind its WAL, and one whose last
/// checkpoint was cut off after the header: the WAL still has its frames.
#[test]
fn a_file_that_is_behind_its_wal_is_no_false_alarm() {
    let (base, _) = over_faulty("faulty-cut-off");
    for program in Program::ALL {
        for mode in ["delete", "truncate", "persist", "memory", "wal"] {
            let board = Board::new();
            let mut client = agent(program);
            client.open("c", &board.kanban(), 5000);
            let active = json!({ "active": true });
            assert_eq!(file_length(&mut client), active, "{mode}: empty");
            client.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
            client.sql("c", "CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(20000))").rows();
            assert_eq!(file_length(&mut client), active, "{mode}: written");
            client.close("c");
            client.open("c", &board.kanban(), 5000);
            assert_eq!(file_length(&mut client), active, "{mode}: opened again");
        }

        let board = Board::new();
        let connection = connect(&board.uri("faulty-cut-off"));
        connection
            .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)")
            .and_then(|()| connection.execute_batch("INSERT INTO t VALUES (zeroblob(20000))"))
            .unwrap();
        // At its close a checkpoint, of which only the first write reaches the disk.
        let writes = AtomicU32::new(0);
        base.on(move |call| {
            let is_write = call.file == File::Main && matches!(call.method, Method::Write { .. });
            let is_cut_off = is_write && writes.fetch_add(1, Ordering::Relaxed) > 0;
            if is_cut_off { Fault::Fail(rusqlite::ffi::SQLITE_IOERR_WRITE) } else { Fault::None }
        });
        drop(connection);
        base.off();
        assert!(wal(&board).metadata().unwrap().len() > 0);
        assert!(deficit_of(&board.path()) > 0, "the header is written first");
        let mut client = agent(program);
        client.open("c", &board.kanban(), 5000);
        assert_eq!(file_length(&mut client), json!({ "active": true }));
        assert_eq!(client.sql("c", "SELECT length(x) FROM t").rows(), [[20000]]);
        client.sql("c", "PRAGMA wal_checkpoint(TRUNCATE)").rows();
        assert_eq!(file_length(&mut client), json!({ "active": true }));
        client.close("c");
        drop(client);
        assert_eq!(deficit_of(&board.path()), 0);
        assert!(!is_damaged(&board));
    }
}

/// A reader keeps a checkpoint from copying all frames, and what it copies behind the end of the file is lost. Another
/// client's checkpoint, when the disk works again, copies the rest, and the WAL goes. The stock VFS takes the first
/// part for copied.
#[test]
fn frames_that_half_a_checkpoint_has_lost_are_copied_again() {
    let (base, ours) = over_faulty("faulty-half");
    for page in [512, 4096, 65536] {
        let story = |vfs: &str| {
            let board = Board::new();
            let [writer, reader] = [0; 2].map(|_| connect(&board.uri(vfs)));
            let run = |sql: &str| writer.execute_batch(sql).unwrap();
            run(&format!(
                "PRAGMA page_size={page}; PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; \
                 CREATE TABLE t (x); CREATE TABLE u (x); PRAGMA wal_checkpoint"
            ));
            // More than the file is ahead.
            let insert = format!("INSERT INTO t VALUES (randomblob({}))", 6 * page + 400_000);
            run(&insert);
            reader.execute_batch("BEGIN").unwrap();
            assert_eq!(rows(&reader), Ok(1));
            run("INSERT INTO u VALUES (1)");
            drop_beyond(base, board.path().metadata().unwrap().len() as i64);
            let passive = "PRAGMA wal_checkpoint(PASSIVE)";
            let copied = |connection: &Connection| {
                connection.query_row(passive, [], |row| {
                    Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
                })
            };
            let first = copied(&writer).unwrap();
            base.off();
            reader.execute_batch("COMMIT").unwrap();
            drop((writer, reader));
            let all: i64 = {
                let last = connect(&board.uri(vfs));
                rows(&last).unwrap_or(-1)
            };
            (first, all, is_damaged(&board))
        };
        let (stock, ours) = (story("faulty-half"), story(&ours));
        assert!(stock.0.1 > 0 && stock.2, "pages of {page}: {stock:?}");
        assert_eq!(ours.0.1, 0, "pages of {page}: {ours:?}");
        assert_eq!((ours.1, ours.2), (1, false), "pages of {page}");
    }
}

/// A client's answers, statement by statement.
fn told(client: &mut Agent, statements: &[&str]) -> Vec<(String, Reply)> {
    statements.iter().map(|sql| ((*sql).to_owned(), client.sql("c", sql))).collect()
}

/// A board whose last byte is missing, as after a careless copy. The table `t` is not in its last page.
fn a_byte_short(mode: &str) -> Board {
    let board = Board::new();
    connect(&board.stock())
        .execute_batch(&format!(
            "PRAGMA journal_mode={mode}; CREATE TABLE t (x); CREATE TABLE u (x); INSERT INTO t VALUES (1); \
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) \
             INSERT INTO t SELECT zeroblob(900) FROM n; DELETE FROM u; \
             CREATE TABLE last (x)"
        ))
        .unwrap();
    let file = OpenOptions::new().write(true).open(board.path()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    board
}

/// With such a small cache, pages are written before the transaction ends.
const SPILL: &str = "PRAGMA cache_size=1; PRAGMA cache_spill=1";

/// A board is a byte short. SQLite reads it and writes to it as before, and so does every client here: its
/// transactions did not make it short. A refused COMMIT would be rolled back, and a refused rollback would leave a
/// journal with which nobody can read any more.
#[test]
fn a_board_that_was_short_before_is_used_as_ever() {
    for program in Program::ALL {
        for mode in ["delete", "truncate", "persist", "memory"] {
            let [stock, ours] = ["unix", "kanban"].map(|vfs| {
                let board = a_byte_short(mode);
                let mut client = agent(program);
                client.open("c", &board.uri(vfs), 5000);
                let mut said = told(
                    &mut client,
                    &[
                        &format!("PRAGMA journal_mode={mode}"),
                        "SELECT count(*) FROM t",
                        "UPDATE t SET x = 2 WHERE x = 1",
                        "SELECT x FROM t WHERE x < 9",
                        "BEGIN; UPDATE t SET x = 3 WHERE x = 2",
                        "ROLLBACK",
                    ],
                );
                if vfs == "kanban" {
                    let guarantee = file_length(&mut client);
                    assert_eq!(guarantee["active"], false, "{program:?}, {mode}: {guarantee}");
                }
                said.extend(told(
                    &mut client,
                    &[
                        SPILL,
                        "BEGIN; UPDATE t SET x = zeroblob(901)",
                        "ROLLBACK",
                        "SELECT count(*), min(x), max(length(x)) FROM t",
                    ],
                ));
                let length = board.path().metadata().unwrap().len() % 4096;
                client.open("c", &format!("{}&mode=ro", board.uri(vfs)), 5000);
                said.extend(told(&mut client, &["SELECT count(*) FROM t"]));
                client.open("c", &board.uri(vfs), 5000);
                said.extend(told(
                    &mut client,
                    &["INSERT INTO t VALUES (zeroblob(9000))", "VACUUM"],
                ));
                client.close("c");
                (said, length, is_damaged(&board), board.directory().join("board.db-journal"))
            });
            let context = format!("{program:?}, {mode}");
            assert_eq!(ours.0, stock.0, "{context}");
            assert_eq!((ours.1, ours.2), (stock.1, stock.2), "{context}");
            let journal = |path: &Path| {
                std::fs::read(path).map_or(0, |bytes| bytes.first().copied().unwrap_or(0))
            };
            assert_eq!(journal(&ours.3), 0, "{context}: a journal is left");
        }
    }
}

/// A stock writer of such a board is killed in the middle of a transaction. The next client rolls its transaction
/// back, and reads.
#[test]
fn a_hot_journal_of_a_short_board_is_rolled_back() {
    for program in Program::ALL {
        for exclusive in [false, true] {
            let [stock, ours] = ["unix", "kanban"].map(|vfs| {
                let board = a_byte_short("delete");
                let mut killed = agent(Program::Rust);
                killed.open("c", &board.stock(), 5000);
                for sql in [SPILL, "BEGIN", "UPDATE t SET x = randomblob(900) WHERE x > 1"] {
                    killed.sql("c", sql).rows();
                }
                killed.kill();
                let journal = board.directory().join("board.db-journal");
                assert!(journal.metadata().unwrap().len() > 9000, "{vfs}");
                let mut client = agent(program);
                client.open("c", &board.uri(vfs), 5000);
                if exclusive {
                    client.sql("c", "PRAGMA locking_mode=EXCLUSIVE").rows();
                }
                let said = told(
                    &mut client,
                    &[
                        "SELECT count(*), min(x), max(length(x)) FROM t",
                        "UPDATE t SET x = 2 WHERE x = 1",
                        "SELECT x FROM t WHERE x < 9",
                    ],
                );
                client.close("c");
                (said, board.directory().join("board.db-journal").exists())
            });
            assert_eq!(ours, stock, "{program:?}, exclusive: {exclusive}");
            assert!(!ours.1 && went_well(&ours.0[2].1), "{program:?}: {ours:?}");
        }
    }
}

/// A transaction writes pages beyond the end of the file early, and they are lost; then it is rolled back. Nothing is
/// lost by that, and the rollback is not refused.
#[test]
fn a_rollback_is_never_refused() {
    let (base, ours) = over_faulty("faulty-rollback");
    for mode in ["delete", "truncate", "persist", "memory"] {
        for is_short in [false, true] {
            let context = format!("{mode}, a byte short: {is_short}");
            let board = a_byte_short(mode);
            if !is_short {
                connect(&board.stock()).execute_batch("INSERT INTO last VALUES (1)").unwrap();
            }
            let connection = connect(&board.uri(&ours));
            let run = |sql: &str| connection.execute_batch(sql);
            run(&format!("PRAGMA journal_mode={mode}; {SPILL}")).unwrap();
            let before = rows(&connection).unwrap();
            let insert =
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                          INSERT INTO t SELECT zeroblob(900) FROM n";
            let size = board.path().metadata().unwrap().len() as i64;
            drop_beyond(base, size);
            // It reads its own pages, if they exist.
            let _ = run(&format!("BEGIN; {insert}"));
            let rolled_back = run("ROLLBACK");
            base.off();
            assert!(connection.is_autocommit(), "{context}");
            if rolled_back.is_err() {
                // SQLite had already rolled it back.
                assert!(
                    format!("{rolled_back:?}").contains("no transaction"),
                    "{context}: {rolled_back:?}"
                );
            }
            assert_eq!(rows(&connection), Ok(before), "{context}");
            run("INSERT INTO t VALUES (1)").unwrap();
            assert_eq!(rows(&connection), Ok(before + 1), "{context}");
            drop(connection);
            assert!(!is_damaged(&board), "{context}");
        }
    }
}

/// Part of a page is behind the end of the board, left by a writer for which the disk had no room. SQLite counts it as
/// a page. Such a board can be written, checkpointed, and leave WAL mode.
#[test]
fn part_of_a_page_behind_the_end_is_in_nobodys_way() {
    for program in Program::ALL {
        for mode in ["wal", "delete", "truncate"] {
            for more in [1, 904, 5000] {
                let [stock, ours] = ["unix", "kanban"].map(|vfs| {
                    let board = Board::new();
                    connect(&board.stock())
                        .execute_batch(&format!(
                            "PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)"
                        ))
                        .unwrap();
                    let file = OpenOptions::new().write(true).open(board.path()).unwrap();
                    file.set_len(file.metadata().unwrap().len() + more).unwrap();
                    let mut client = agent(program);
                    client.open("c", &board.uri(vfs), 5000);
                    let said = told(
                        &mut client,
                        &[
                            "PRAGMA integrity_check",
                            "INSERT INTO t VALUES (2)",
                            "PRAGMA wal_checkpoint(TRUNCATE)",
                            "INSERT INTO t VALUES (zeroblob(20000))",
                            "PRAGMA wal_checkpoint",
                            "PRAGMA journal_mode=delete",
                            "INSERT INTO t VALUES (4)",
                            "SELECT count(*) FROM t",
                            "PRAGMA integrity_check",
                        ],
                    );
                    client.close("c");
                    (said, board.path().metadata().unwrap().len())
                });
                assert_eq!(ours, stock, "{program:?}, {mode}, {more} bytes");
                assert!(
                    ours.0.iter().all(|(_, reply)| went_well(reply)),
                    "{mode}, {more}: {ours:?}"
                );
            }
        }
    }
}

/// A board is emptied by the backup of an empty one with another page size. SQLite writes a header, and cuts the file
/// to a length that differs from the header's.
#[test]
fn an_empty_board_is_copied_over_one_with_other_pages() {
    let copied = |vfs: &str, from: u32, to: u32, mode: &str| {
        let (source, target) = (Board::new(), Board::new());
        let from_connection = connect(&source.uri(vfs));
        from_connection.execute_batch(&format!("PRAGMA page_size={from}")).unwrap();
        let mut connection = connect(&target.uri(vfs));
        let fill = format!(
            "PRAGMA page_size={to}; PRAGMA journal_mode={mode}; CREATE TABLE t (x); \
             INSERT INTO t VALUES (zeroblob(90000))"
        );
        connection.execute_batch(&fill).unwrap();
        let copied = rusqlite::backup::Backup::new(&from_connection, &mut connection)
            .and_then(|backup| backup.step(-1))
            .map(|step| step == rusqlite::backup::StepResult::Done);
        let tables = connection
            .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
        let intact =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        let written = connection.execute_batch("CREATE TABLE u (x); INSERT INTO u VALUES (1)");
        drop(connection);
        (copied, tables, intact, written, target.path().metadata().unwrap().len())
    };
    for (from, to) in [(2048, 4096), (512, 65536), (4096, 4096), (4096, 512), (1024, 8192)] {
        for mode in ["delete", "truncate", "memory"] {
            let context = format!("pages of {from} over {to}, {mode}");
            let (stock, ours) = (copied("unix", from, to, mode), copied("kanban", from, to, mode));
            assert_eq!(ours, stock, "{context}");
            assert_eq!(ours.0, Ok(true), "{context}");
        }
    }
}

/// Before a checkpoint writes the header, the file is made long enough, by whole pages: a base that encrypts or checks
/// its pages can write nothing else.
#[test]
fn only_whole_pages_are_written() {
    let (base, ours) = over_faulty("faulty-whole-pages");
    let board = Board::new();
    let connection = connect(&board.uri(&ours));
    connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    let parts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&parts);
    base.on(move |call| {
        if let Method::Write { offset, bytes } = call.method {
            let is_part = offset % 4096 != 0 || bytes.len() != 4096;
            count.fetch_add(u32::from(call.file == File::Main && is_part), Ordering::Relaxed);
        }
        Fault::None
    });
    for _ in 0..5 {
        connection.execute_batch("INSERT INTO t VALUES (zeroblob(20000))").unwrap();
        connection.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
    }
    base.off();
    drop(connection);
    assert_eq!(parts.load(Ordering::Relaxed), 0);
    assert!(!is_damaged(&board));
}

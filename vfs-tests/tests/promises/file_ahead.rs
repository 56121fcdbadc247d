//! In WAL mode the file is longer than its header says, by more than a checkpoint adds while an
//! application looks at both. So an application that compares the length of the file with its
//! header never takes a healthy board for torn, whichever it reads first. When the last connection
//! closes, the file has the length that its header says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use vfs_tests::base::{Base, Fault, File as Which, Method};
use vfs_tests::observers::{Observers, by_header};
use vfs_tests::{Agent, Board, Program, Reply, beside};

use crate::{Client, connect, over_faulty};

/// The length of the file, and the length by its header, read in this order.
fn size_then_header(path: &Path) -> (u64, u64) {
    // The process has no connection to the board, so that closing the file drops no POSIX locks.
    let size = path.metadata().unwrap().len();
    let mut header = [0; 32];
    File::open(path).unwrap().read_exact_at(&mut header, 0).unwrap();
    (size, by_header(&header))
}

/// An application reads the length of its board, another process checkpoints, and the application
/// reads the page count. On the stock VFS the board looks torn each time.
#[test]
fn a_checkpoint_between_the_two_looks_is_no_tear() {
    for (program, page) in Program::ALL.into_iter().zip([512, 4096, 65536].into_iter().cycle()) {
        let alarms = |client: Client| {
            let board = Board::new();
            let mut other = client.open(program, &board);
            other
                .sql(
                    "c",
                    &format!(
                        "PRAGMA page_size={page}; PRAGMA journal_mode=wal; CREATE TABLE t (x)"
                    ),
                )
                .rows();
            let mut alarms = 0;
            for round in 0..40 {
                // Some inserts are larger than all before, the first one larger than the distance.
                let bytes = if round % 10 == 0 { 1_000_000 } else { 20_000 };
                other.sql("c", &format!("INSERT INTO t VALUES (zeroblob({bytes}))")).rows();
                let size = board.path().metadata().unwrap().len();
                other.sql("c", "PRAGMA wal_checkpoint(PASSIVE)").rows();
                let (_, header) = size_then_header(&board.path());
                // In round 0 the checkpoint waits for observers, which the test below checks.
                alarms += i32::from(size < header && round > 0);
            }
            other.close("c");
            let (size, header) = size_then_header(&board.path());
            assert_eq!(size, header, "{program:?}, pages of {page}: after the last close");
            alarms
        };
        assert!(alarms(Client::Stock) >= 30, "{program:?}: it has nothing to show");
        assert_eq!(alarms(Client::Ours), 0, "{program:?}, pages of {page}");
    }
}

/// The offset and time of each write to the database from now on.
fn writes_of(base: &Base) -> Arc<Mutex<Vec<(i64, Instant)>>> {
    let writes: Arc<Mutex<Vec<(i64, Instant)>>> = Arc::default();
    let seen = Arc::clone(&writes);
    base.on(move |call| {
        if let (Method::Write { offset, .. }, Which::Main) = (&call.method, call.file) {
            seen.lock().unwrap().push((*offset, Instant::now()));
        }
        Fault::None
    });
    writes
}

/// About the longest time between an observer's two looks.
const LONG_ENOUGH: Duration = Duration::from_millis(10);

/// A client stores a blob that is larger than the file is ahead, or small blobs until the file is
/// no longer far enough ahead. The checkpoint makes the file longer, and waits before it writes the
/// header. In that time observers that have read the old length read the old header.
#[test]
fn a_checkpoint_that_makes_the_file_longer_waits_for_observers() {
    let (base, ours) = over_faulty("faulty-sudden");
    let board = Board::new();
    let connection = connect(&board.uri(&ours));
    connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    let waited = |bytes: i64| {
        connection.execute_batch(&format!("INSERT INTO t VALUES (zeroblob({bytes}))")).unwrap();
        let writes = writes_of(&base);
        let size = board.path().metadata().unwrap().len();
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        base.off();
        let (_, header) = size_then_header(&board.path());
        let writes = writes.lock().unwrap();
        let first = writes.iter().position(|(offset, _)| *offset == 0).unwrap();
        // The write before the header made the file longer.
        let grown = first.checked_sub(1).map(|nth| writes[first].1 - writes[nth].1);
        (size < header, grown)
    };
    let (is_sudden, grown) = waited(2_000_000);
    assert!(is_sudden && grown.unwrap() >= LONG_ENOUGH, "{grown:?}");
    let mut times = 0;
    for round in 0..40 {
        let (is_sudden, grown) = waited(if round == 0 { 2_000_000 } else { 800_000 });
        assert!(!is_sudden, "it was expected");
        assert!(grown.is_none_or(|grown| grown >= LONG_ENOUGH), "{grown:?}");
        times += i32::from(grown.is_some());
    }
    assert!((1..10).contains(&times), "{times}");
}

/// Clients open and close the board one after the other, so that each is the last to close. The
/// checkpoint of its close gives the file its length, and waits a moment for observers before it
/// writes the header.
#[test]
fn a_last_close_waits_for_observers_for_a_moment() {
    let (base, ours) = over_faulty("faulty-close");
    let board = Board::new();
    connect(&board.uri(&ours))
        .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)")
        .unwrap();
    for bytes in [9000, 1_000_000] {
        let connection = connect(&board.uri(&ours));
        connection.execute_batch(&format!("INSERT INTO t VALUES (zeroblob({bytes}))")).unwrap();
        let writes = writes_of(&base);
        drop(connection);
        base.off();
        let (size, header) = size_then_header(&board.path());
        assert_eq!(size, header, "after the last close");
        let writes = writes.lock().unwrap();
        let first = writes.iter().position(|(offset, _)| *offset == 0).unwrap();
        assert_eq!(first, 1, "{writes:?}");
        let (last_page, grown) = writes[0];
        assert_eq!(last_page + 4096, i64::try_from(header).unwrap());
        let paused = writes[first].1 - grown;
        assert!(paused >= Duration::from_millis(1), "{paused:?}");
    }
}

/// A client writes, and no checkpoint has run yet. The file is already ahead of its header, so the
/// first checkpoint need not wait for observers. On the stock VFS the file is as long as its header
/// says.
#[test]
fn the_first_writes_bring_the_file_ahead() {
    let distance = |vfs: &str| {
        let board = Board::new();
        connect(&board.uri(vfs))
            .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)")
            .unwrap();
        let connection = connect(&board.uri(vfs));
        connection.execute_batch("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").unwrap();
        let (size, header) = size_then_header(&board.path());
        size - header
    };
    assert_eq!(distance("unix"), 0);
    assert!(distance("kanban") >= 256 << 10);
}

/// A VACUUM takes a large blob out of a board. The checkpoint writes the new header, and truncates
/// the file only after observers of the old header had time to ask for the length. On the stock VFS
/// it truncates the file at once.
#[test]
fn a_checkpoint_that_makes_the_file_much_shorter_waits_for_observers() {
    let waited = |vfs: &str, base: &Base| {
        let board = Board::new();
        let connection = connect(&board.uri(vfs));
        let sql = "PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(20000000)); \
                   PRAGMA wal_checkpoint; DELETE FROM t; VACUUM";
        connection.execute_batch(sql).unwrap();
        let times: Arc<Mutex<(Option<Instant>, Option<Instant>)>> = Arc::default();
        let seen = Arc::clone(&times);
        base.on(move |call| {
            let mut times = seen.lock().unwrap();
            match (&call.method, call.file) {
                (Method::Write { offset: 0, .. }, Which::Main) => times.0 = Some(Instant::now()),
                (Method::Truncate { .. }, Which::Main) => times.1 = Some(Instant::now()),
                _ => {}
            }
            Fault::None
        });
        let (_, before) = size_then_header(&board.path());
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        base.off();
        let (size, header) = size_then_header(&board.path());
        assert!(
            before > 20_000_000 && header < 100_000 && size < 6_000_000,
            "{before} {header} {size}"
        );
        let times = times.lock().unwrap();
        times.1.unwrap() - times.0.unwrap()
    };
    let (base, ours) = over_faulty("faulty-shorter");
    let paused = waited(&ours, &base);
    assert!(paused >= LONG_ENOUGH, "{paused:?}");
    let stock = waited("faulty-shorter", &base);
    assert!(stock < paused, "{stock:?} {paused:?}");
}

/// What a client does to a board before it closes.
struct Course {
    name: &'static str,
    sql: &'static str,
}

/// After statements that change the length of the file, the board and SQLite's answers are the same
/// as on the stock VFS.
#[test]
fn nothing_else_changes() {
    let courses = [
        Course { name: "writes", sql: "INSERT INTO t VALUES (zeroblob(300000))" },
        Course { name: "deletes", sql: "DELETE FROM t WHERE rowid % 2; INSERT INTO t VALUES (1)" },
        Course { name: "VACUUM", sql: "DELETE FROM t; VACUUM" },
        Course {
            name: "TRUNCATE",
            sql: "INSERT INTO t VALUES (zeroblob(90000)); PRAGMA wal_checkpoint(TRUNCATE)",
        },
        Course {
            name: "incremental vacuum",
            sql: "DELETE FROM t; PRAGMA incremental_vacuum(20); INSERT INTO t VALUES (1)",
        },
        Course {
            name: "leaving WAL mode",
            sql: "INSERT INTO t VALUES (zeroblob(90000)); PRAGMA journal_mode=delete; INSERT INTO t VALUES (2)",
        },
        Course {
            name: "mmap",
            sql: "PRAGMA mmap_size=10000000; INSERT INTO t VALUES (zeroblob(90000)); PRAGMA wal_checkpoint; SELECT sum(length(x)) FROM t",
        },
        Course { name: "an index", sql: "CREATE INDEX i ON t (x); DROP INDEX i; REINDEX" },
    ];
    let cases = courses.iter().flat_map(|course| [512, 4096, 65536].map(|page| (course, page)));
    for (course, page) in
        cases.flat_map(|(course, page)| [0, 1, 2].map(|auto| (course, (page, auto))))
    {
        let case = format!("{}, pages of {}, auto_vacuum={}", course.name, page.0, page.1);
        let run = |vfs: &str| {
            let board = Board::new();
            let connection = connect(&board.uri(vfs));
            let text = |sql: &str| -> String {
                connection.query_row(sql, [], |row| Ok(format!("{:?}", row.get_ref(0)?))).unwrap()
            };
            connection
                .execute_batch(&format!(
                    "PRAGMA page_size={}; PRAGMA auto_vacuum={}; PRAGMA journal_mode=wal; CREATE TABLE t (x); \
                     INSERT INTO t VALUES (zeroblob(50000)), (1), (zeroblob(50000)), (2); \
                     PRAGMA wal_checkpoint",
                    page.0, page.1
                ))
                .unwrap();
            connection.execute_batch(course.sql).unwrap();
            let said = [
                "PRAGMA page_count",
                "PRAGMA freelist_count",
                "PRAGMA integrity_check",
                "SELECT count(*) FROM t",
                "SELECT sum(length(x)) FROM t",
            ]
            .map(text);
            let copy = board.directory().join("copy.db");
            let mut into = Connection::open(&copy).unwrap();
            rusqlite::backup::Backup::new(&connection, &mut into)
                .unwrap()
                .run_to_completion(7, Duration::ZERO, None)
                .unwrap();
            drop(into);
            drop(connection);
            let (size, header) = size_then_header(&board.path());
            assert_eq!(size, header, "{case}, {vfs}: after the last close");
            let (copied, _) = size_then_header(&copy);
            (said, size, copied)
        };
        assert_eq!(run("kanban"), run("unix"), "{case}");
    }
}

/// A board is copied with `cp` while it is open, idle and checkpointed. The copy is longer than its
/// header says. That is legal: both VFSes use the copy like any database.
#[test]
fn a_copy_of_an_idle_board_is_whole() {
    for mode in ["wal", "delete"] {
        for vfs in ["unix", "kanban"] {
            let board = Board::new();
            let connection = connect(&board.kanban());
            connection
                .execute_batch(
                    "PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(50000)); \
                     PRAGMA wal_checkpoint(TRUNCATE)",
                )
                .unwrap();
            let (size, header) = size_then_header(&board.path());
            assert!(size > header, "it is ahead");
            let copy = Board::new();
            std::fs::copy(board.path(), copy.path()).unwrap();
            let client = connect(&copy.uri(vfs));
            client
                .execute_batch(&format!(
                    "PRAGMA journal_mode={mode}; INSERT INTO t VALUES (zeroblob(99000))"
                ))
                .unwrap();
            let ok: String =
                client.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(ok, "ok", "{mode}, {vfs}");
            drop(client);
            let client = connect(&copy.stock());
            let rows: i64 =
                client.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 2, "{mode}, {vfs}");
        }
    }
}

/// Eight workers write rows of many pages and blobs of a megabyte, delete and VACUUM. One observer asks for
/// the length first, one reads the header first, and one copies page by page what the header counts. On the
/// stock VFS the first sees torn boards.
///
/// Takes some seconds; KANBAN_OBSERVE_SECONDS says how many.
#[test]
fn observers_of_both_orders_see_no_deficit() {
    let seconds = std::env::var("KANBAN_OBSERVE_SECONDS").map_or(4, |n| n.parse().unwrap());
    // Longer than any run on a busy machine took.
    let patience = Instant::now() + Duration::from_secs(60);
    while observe(Client::Stock, Duration::from_secs(2)) == 0 {
        assert!(Instant::now() < patience, "it has nothing to show");
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        assert_eq!(observe(Client::Ours, Duration::from_secs(seconds.min(20))), 0);
    }
}

/// How many deficits the observers saw.
fn observe(client: Client, limit: Duration) -> u64 {
    let board = Board::new();
    let start = |program| {
        let mut agent = client.start(program);
        agent.open("c", &client.uri(&board), 60_000);
        agent
    };
    let mut first = start(Program::Rust);
    first.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    // The size of the blob is known before the observers start. A checkpoint that adds more than
    // any before waits for observers for 20 ms only, and a busy machine may stop an observer for
    // longer.
    first.sql("c", "INSERT INTO t VALUES (zeroblob(1000000)); PRAGMA wal_checkpoint").rows();
    let observers = Observers::start(&board.path());
    std::thread::scope(|scope| {
        let programs = [0; 4].iter().flat_map(|_| Program::ALL);
        let writers: Vec<_> = programs
            .enumerate()
            .map(|(nth, program)| {
                let writer = start(program);
                scope.spawn(move || write_for(limit, nth, writer))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    first.close("c");
    let seen = observers.end();
    eprintln!("{client:?}: {seen:?}");
    seen.len() as u64
}

fn write_for(limit: Duration, nth: usize, mut client: Agent) {
    let began = Instant::now();
    for round in nth.. {
        if began.elapsed() >= limit {
            break;
        }
        let sql = match round % 24 {
            23 => "DELETE FROM t WHERE rowid % 2",
            22 if nth == 0 => "VACUUM",
            7 | 15 => "INSERT INTO t VALUES (zeroblob(1000000))",
            _ => "INSERT INTO t VALUES (zeroblob(20000))",
        };
        if let reply @ Reply::Error { .. } = client.sql("c", sql) {
            let said = format!("{reply:?}");
            // A VACUUM beside writers may be refused.
            assert!(sql == "VACUUM" && reply.code() & 0xff == 5, "{sql}: {said}");
        }
    }
    client.close("c");
}

/// A board is copied while it is open and ahead, or its last client is killed. The WAL is empty, so
/// SQLite takes the length of the file for the page count, and commits that count. A later
/// checkpoint must not make the file shorter than that. Otherwise SQLite calls the board malformed,
/// for stock clients, too.
#[test]
fn a_page_count_that_sqlite_took_from_the_file_stays_true() {
    let blob = |bytes: i64| format!("INSERT INTO t VALUES (zeroblob({bytes}))");
    let checkpoint = |connection: &Connection| {
        for mode in ["PASSIVE", "FULL", "TRUNCATE"] {
            connection
                .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
                .unwrap_or_else(|error| panic!("{mode}: {error}"));
        }
    };
    for is_exclusive in [false, true] {
        let board = Board::new();
        let first = connect(&board.kanban());
        first.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
        first.execute_batch(&blob(2_000_000)).unwrap();
        checkpoint(&first);
        let copy = Board::new();
        std::fs::copy(board.path(), copy.path()).unwrap();
        let (size, header) = size_then_header(&copy.path());
        assert!(size > header, "it is ahead");
        let writer = connect(&copy.kanban());
        writer.execute_batch(&blob(4_000_000)).unwrap();
        writer.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
        if is_exclusive {
            writer.execute_batch("PRAGMA locking_mode=exclusive").unwrap();
            writer.execute_batch(&blob(10)).unwrap();
            checkpoint(&writer);
            writer.execute_batch(&blob(10)).unwrap();
            checkpoint(&writer);
        } else {
            for vfs in ["kanban", "unix", "kanban"] {
                let other = connect(&copy.uri(vfs));
                other.execute_batch(&blob(10)).unwrap();
                checkpoint(&other);
            }
        }
        drop(writer);
        for vfs in ["unix", "kanban"] {
            let last = connect(&copy.uri(vfs));
            last.execute_batch(&blob(10)).unwrap();
            checkpoint(&last);
            let ok: String =
                last.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(ok, "ok");
        }
        let (size, header) = size_then_header(&copy.path());
        assert_eq!(size, header, "after the last close");
    }
}

/// A VACUUM makes a board small again. The deleted content is nowhere in the file, though clients
/// have the file open, and also if a reader kept the first checkpoint from completing. If much was
/// deleted, the file becomes small, too.
#[test]
fn a_vacuum_leaves_nothing_of_what_was_deleted() {
    for (rows, has_reader) in [(2, false), (2, true), (40, false), (40, true)] {
        for vfs in ["unix", "kanban"] {
            let board = Board::new();
            let [writer, reader, other] = [0; 3].map(|_| connect(&board.uri(vfs)));
            let run = |connection: &Connection, sql: &str| connection.execute_batch(sql).unwrap();
            let checkpoint = |connection: &Connection, mode: &str| {
                connection
                    .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
                    .unwrap();
            };
            run(&writer, "PRAGMA journal_mode=wal; CREATE TABLE t (x)");
            let secrets = format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                 INSERT INTO t SELECT CAST(replace(hex(zeroblob(250000)), '00', 'SECRET') AS BLOB) FROM n"
            );
            run(&writer, &secrets);
            checkpoint(&writer, "PASSIVE");
            run(&writer, "DELETE FROM t; VACUUM");
            if has_reader {
                run(&reader, "BEGIN; SELECT count(*) FROM t");
                run(&writer, "INSERT INTO t VALUES (1)");
                checkpoint(&writer, "PASSIVE");
                run(&reader, "COMMIT");
            }
            checkpoint(&other, "TRUNCATE");
            let content = std::fs::read(board.path()).unwrap();
            let (size, header) = size_then_header(&board.path());
            let context = format!(
                "{vfs}, {rows} rows, reader: {has_reader}: {size} bytes, {header} by the header"
            );
            assert!(header < 100_000, "{context}");
            assert!(rows < 40 || size <= header + (5 << 20), "{context}");
            assert!(!content.windows(6).any(|word| word == b"SECRET"), "{context}");
            let ok: String =
                other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(ok, "ok", "{context}");
        }
    }
}

/// `cp` copies a live board, the first page before a checkpoint and the rest after it. The copy's
/// header counts fewer pages than the file has, and SQLite calls the copy malformed. Its rows can
/// be salvaged. Opening and closing the copy must leave them in the file, as on the stock VFS, and
/// so must a commit and its checkpoint while other clients have the copy open.
#[test]
fn a_torn_copy_keeps_what_can_be_salvaged() {
    for client in [Client::Stock, Client::Ours] {
        let board = Board::new();
        let writer = connect(&client.uri(&board));
        let run = |sql: &str| writer.execute_batch(sql).unwrap();
        let checkpoint =
            || writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        run("PRAGMA journal_mode=wal; CREATE TABLE t (x)");
        checkpoint();
        let mut torn = std::fs::read(board.path()).unwrap();
        torn.truncate(4096);
        run(
            "INSERT INTO t SELECT 'salvaged' || hex(zeroblob(3000)) FROM (VALUES (1), (2), (3), (4))",
        );
        checkpoint();
        torn.extend(&std::fs::read(board.path()).unwrap()[4096..]);
        let data = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for is_read_first in [false, true] {
            let copy = Board::new();
            std::fs::write(copy.path(), &torn).unwrap();
            let content = || std::fs::read(copy.path()).unwrap();
            if is_read_first {
                let reader = connect(&client.uri(&copy));
                let count =
                    reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
                assert!(count.is_err(), "{client:?}: {count:?}");
                drop(reader);
                assert!(content()[..data] == torn[..data], "{client:?}");
            }
            let [writer, _other] = [0; 2].map(|_| {
                let connection = connect(&client.uri(&copy));
                connection.query_row("PRAGMA user_version", [], |_| Ok(())).unwrap();
                connection
            });
            writer.execute_batch("PRAGMA user_version=5; PRAGMA wal_checkpoint").unwrap();
            let now = content();
            assert!(now[..4096] != torn[..4096], "{client:?}: it has nothing to show");
            assert!(now[4096..data] == torn[4096..data], "{client:?}, read: {is_read_first}");
        }
    }
}

/// A limit (`ulimit -f`) keeps a board from growing, so a checkpoint cannot copy all pages. On the
/// stock VFS it leaves a header that counts more pages than the file has, for good. Here the header
/// stays true. On both VFSes all rows are in the WAL.
#[test]
fn without_room_the_header_does_not_run_ahead() {
    vfs_tests::needs!("sqlite3");
    let deficit = |vfs: &str| {
        let board = Board::new();
        let one = "INSERT INTO t VALUES (zeroblob(40000)); PRAGMA wal_checkpoint; ";
        let script = format!(
            "trap '' XFSZ; ulimit -f 400; sqlite3 :memory: '.load {}' '.open file:{}?vfs={vfs}' \
             'PRAGMA journal_mode=wal; CREATE TABLE t (x); {}' '.shell kill -9 $PPID'",
            vfs_tests::extension().display(),
            board.path().display(),
            one.repeat(8)
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let (size, header) = size_then_header(&board.path());
        let connection = connect(&board.stock());
        let ok: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok", "{vfs}: {output:?}");
        let rows: i64 =
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert!(rows > 4, "{vfs}: {rows} rows, {output:?}");
        header.saturating_sub(size)
    };
    assert!(deficit("unix") > 0, "it has nothing to show");
    assert_eq!(deficit("kanban"), 0);
}

/// A process may write files only up to a size (`ulimit -f`), and the kernel ends it if it writes
/// beyond. Its board is smaller than that, even with what the process adds.
#[test]
fn a_limit_of_the_files_size_is_kept() {
    vfs_tests::needs!("sqlite3");
    for vfs in ["unix", "kanban"] {
        let board = Board::new();
        let script = format!(
            "ulimit -f 800; sqlite3 :memory: '.load {}' '.open file:{}?vfs={vfs}' \
             'PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(300000)); \
             PRAGMA wal_checkpoint; INSERT INTO t VALUES (zeroblob(20000)); PRAGMA wal_checkpoint; SELECT count(*) FROM t'",
            vfs_tests::extension().display(),
            board.path().display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.ends_with("2\n"), "{vfs}: {output:?}");
    }
}

/// A process may write only files that are shorter than a sidecar, and its board is. On the stock VFS it writes. Here it does,
/// too, without the write lock, and leaves no sidecar.
#[test]
fn a_limit_below_the_sidecars_size_ends_nobody() {
    vfs_tests::needs!("sqlite3");
    for vfs in ["unix", "kanban"] {
        let board = Board::new();
        let script = format!(
            "ulimit -f 32; sqlite3 :memory: '.load {}' '.open file:{}?vfs={vfs}' \
             'CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1); SELECT count(*) FROM t'",
            vfs_tests::extension().display(),
            board.path().display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.ends_with("1\n"), "{vfs}: {output:?}");
        assert!(!beside(&board.path(), "-lock").exists(), "{vfs}");
        if vfs == "kanban" {
            let script = format!("export KANBAN_LOG=stderr; {script}");
            let logged = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let logged = String::from_utf8_lossy(&logged.stderr).into_owned();
            assert!(logged.contains("let this process write files of 36 KiB"), "{logged}");
        }
    }
}

/// Two clients have opened an empty board. The first switches it to WAL mode and reads nothing, and
/// the second writes. The first may not leave WAL mode as long as the second has the board open. So
/// the first opens the WAL only at its close, which is the last: the file has the length that its
/// header says, as on the stock VFS.
#[test]
fn a_client_that_opens_the_wal_only_to_close_it_cuts_the_file() {
    for client in [Client::Stock, Client::Ours] {
        let board = Board::new();
        let [writer, last] = [0; 2].map(|_| connect(&client.uri(&board)));
        let mode = |mode: &str| {
            let sql = format!("PRAGMA journal_mode={mode}");
            last.query_row(&sql, [], |row| row.get::<_, String>(0))
        };
        assert_eq!(mode("wal").unwrap(), "wal", "{client:?}");
        writer.execute_batch("PRAGMA user_version=3").unwrap();
        let refused = mode("delete").unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
        drop(writer);
        assert!(beside(&board.path(), "-wal").exists(), "{client:?}: it has nothing to show");
        drop(last);
        assert!(!beside(&board.path(), "-wal").exists(), "{client:?}");
        let (size, header) = size_then_header(&board.path());
        assert_eq!(size, header, "{client:?}: after the last close");
    }
}

/// How many pages the last commit in the WAL counts: <https://www.sqlite.org/fileformat2.html#wal_file_format>.
fn pages_of_last_commit(board: &Board) -> u64 {
    let wal = std::fs::read(beside(&board.path(), "-wal")).unwrap();
    let word = |at: usize| u64::from(u32::from_be_bytes(wal[at..at + 4].try_into().unwrap()));
    let frame = 24 + usize::try_from(word(8)).unwrap();
    word(wal.len() - frame + 4)
}

/// A worker is killed after a checkpoint: the WAL is empty, and the file is ahead of its header.
/// Then SQLite takes the page count from the file's length, and writes it into the next commit. The
/// file is truncated to less than its header says. On the stock VFS a checkpoint copies the pages
/// in the WAL, which include the lost one. If the commit had counted the distance, each checkpoint
/// would call the board malformed, and the WAL would stay.
#[test]
fn a_commit_after_a_kill_counts_what_the_header_says() {
    for (program, is_exclusive) in
        Program::ALL.into_iter().flat_map(|program| [(program, false), (program, true)])
    {
        for client in [Client::Stock, Client::Ours] {
            let case = format!("{program:?}, exclusive: {is_exclusive}, {client:?}");
            let board = Board::new();
            let mut first = client.open(program, &board);
            first.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
            first.sql("c", "INSERT INTO t VALUES (1)").rows();
            first.sql("c", "PRAGMA wal_checkpoint(TRUNCATE)").rows();
            first.kill();
            let (size, header) = size_then_header(&board.path());
            assert_eq!(size > header, client == Client::Ours, "{case}: {size}, {header}");
            let mut next = client.open(program, &board);
            if is_exclusive {
                next.sql("c", "PRAGMA locking_mode=exclusive").rows();
            }
            next.sql("c", "PRAGMA max_page_count=9").rows();
            assert_eq!(next.sql("c", "SELECT x FROM t").rows(), [[1]], "{case}");
            let most = next.sql("c", "PRAGMA max_page_count").rows();
            next.sql("c", "UPDATE t SET x = 2").rows();
            let pages = pages_of_last_commit(&board);
            let file = File::options().write(true).open(board.path()).unwrap();
            file.set_len(header - 1).unwrap();
            drop(file);
            let checkpoint = next.sql("c", "PRAGMA wal_checkpoint(PASSIVE)");
            let [row] = &checkpoint.clone().rows()[..] else { panic!("{case}: {checkpoint:?}") };
            assert_eq!(row[1], row[2], "{case}: not all is copied");
            next.close("c");
            assert!(!beside(&board.path(), "-wal").exists(), "{case}");
            let mut last = client.open(program, &board);
            assert_eq!(last.sql("c", "SELECT x FROM t").rows(), [[2]], "{case}");
            assert_eq!(last.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{case}");
            assert_eq!((most, pages), (vec![vec![9.into()]], header / 4096), "{case}");
        }
    }
}

/// The file of a board is ahead, and its WAL is empty. SQLite asks for the file's length in each of
/// a reader's transactions. The answer, which is not the real length, costs one look at the header
/// and no other system call of the base VFS. When the board has become longer, the reader sees
/// that.
#[test]
fn a_reader_of_a_board_that_is_ahead_makes_no_more_calls() {
    let (base, ours) = over_faulty("faulty-reader");
    let calls = |vfs: &str| {
        let board = Board::new();
        let first = connect(&board.kanban());
        let sql = "PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)";
        first.execute_batch(sql).unwrap();
        let copy = Board::new();
        std::fs::copy(board.path(), copy.path()).unwrap();
        let (size, header) = size_then_header(&copy.path());
        assert!(size > header, "it is ahead");
        let reader = connect(&copy.uri(vfs));
        let count =
            || -> i64 { reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap() };
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let counted = || {
            let calls = Arc::clone(&seen);
            base.on(move |call| {
                let is_look =
                    matches!(call.method, Method::ShmMap { .. } | Method::FileControl { .. });
                if call.file == Which::Main && !is_look {
                    calls.lock().unwrap().push(format!("{:?}", call.method));
                }
                Fault::None
            });
            assert_eq!(count(), 1);
            base.off();
            std::mem::take(&mut *seen.lock().unwrap())
        };
        counted();
        let steady: Vec<_> = (0..70).map(|_| counted()).collect();
        let asks = steady.iter().flatten().filter(|call| *call == "FileSize").count();
        assert_eq!(asks, 70, "{vfs}: it has nothing to show");
        // Another client writes and checkpoints, unseen by the reader.
        let other = connect(&copy.uri(vfs));
        other
            .execute_batch(
                "INSERT INTO t VALUES (zeroblob(2000000)); PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .unwrap();
        assert_eq!(count(), 2, "{vfs}");
        (steady, asks)
    };
    assert_eq!(calls(&ours), calls("faulty-reader"));
}

/// The first pages of a board were written, and a client that may only read the board asks for a
/// checkpoint. SQLite lets it try, and the write fails. The client gets the stock VFS's error, not
/// the one for a full disk.
#[test]
fn a_read_only_client_does_not_get_disk_full() {
    let [stock, ours] = [Client::Stock, Client::Ours].map(|client| {
        let board = Board::new();
        let writer = connect(&client.uri(&board));
        writer.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
        let reader = connect(&format!("{}&mode=ro", client.uri(&board)));
        let refused = reader.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap_err();
        let ok: String = writer.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok", "{client:?}");
        refused.sqlite_error().map(|error| error.extended_code)
    });
    assert_eq!(ours, stock);
    assert_eq!(stock, Some(rusqlite::ffi::SQLITE_IOERR_WRITE));
}

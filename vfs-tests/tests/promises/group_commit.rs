//! Group commit: COMMIT returns when its frames are durable, whichever connection synced them. A failed sync fails
//! all commits that waited for it. The next connection that needs a sync repairs it, or its transaction is rolled
//! back.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, ffi};
use serde_json::json;
use vfs_tests::base::{Base, Call, Fault, File, Method};
use vfs_tests::trace::Traced;
use vfs_tests::{Board, PATIENCE, Program};

use crate::{agent, beside, connect, over_faulty, status, status_of, stock_agent};

/// SQLITE_IOERR_FSYNC
const IOERR_FSYNC: i32 = ffi::SQLITE_IOERR_FSYNC;

/// The bytes of the sidecar's page that hold group commit's futex word and record.
const RECORD: std::ops::Range<u64> = 36..64;

fn grouped(uri: &str) -> String {
    format!("{uri}&kanban_group_commit=1")
}

/// A board in WAL mode with a table and frames in the WAL, and a connection with group commit.
fn board(vfs: &str) -> (Board, Connection) {
    let board = Board::new();
    let connection = open(&board, vfs);
    connection
        .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (0)")
        .unwrap();
    (board, connection)
}

fn open(board: &Board, vfs: &str) -> Connection {
    let connection = connect(&grouped(&board.uri(vfs)));
    connection.execute_batch("PRAGMA synchronous=full").unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection
}

fn insert(connection: &Connection, x: i32) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO t VALUES (?)", [x]).map(drop)
}

fn code(result: rusqlite::Result<()>) -> i32 {
    match result {
        Err(rusqlite::Error::SqliteFailure(error, _)) => error.extended_code,
        other => panic!("{other:?}"),
    }
}

fn rows(connection: &Connection) -> Vec<i32> {
    let mut statement = connection.prepare("SELECT x FROM t ORDER BY x").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn is_wal_sync(call: &Call<'_>) -> bool {
    call.file == File::Wal && matches!(call.method, Method::Sync { .. })
}

fn count(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::SeqCst)
}

/// Holds each sync of the WAL. A sync announces itself to the receiver, and waits for the sender's fault.
fn hold_syncs(base: Base) -> (Receiver<()>, Sender<Fault>) {
    let (arrives, arrived) = channel();
    let (tell, told) = channel();
    let told = Mutex::new(told);
    base.on(move |call| {
        if !is_wal_sync(call) {
            return Fault::None;
        }
        arrives.send(()).expect("the test listens");
        told.lock().unwrap().recv_timeout(PATIENCE).expect("the test decides")
    });
    (arrived, tell)
}

/// Waits until a reader sees `n` rows.
fn see(reader: &Connection, n: usize) {
    let began = Instant::now();
    while rows(reader).len() < n {
        assert!(began.elapsed() < PATIENCE, "{:?}", rows(reader));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// While one writer's commit syncs, two others commit. On the stock VFS, and without group commit, they wait for the lock, and
/// then each for its own sync. With group commit they have committed and readers see their rows, but no COMMIT has returned,
/// and one more sync serves both.
#[test]
fn one_sync_serves_all_commits_before_it() {
    let (base, ours) = over_faulty("group-shares");
    for (vfs, shares) in [("group-shares", false), (ours.as_str(), true)] {
        let (board, mut first) = if shares {
            board(vfs)
        } else {
            let board = Board::new();
            let connection = connect(&board.uri(vfs));
            let sql = "PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (0)";
            connection.execute_batch(sql).unwrap();
            (board, connection)
        };
        let uri = if shares { grouped(&board.uri(vfs)) } else { board.uri(vfs) };
        let mut others = [1, 2].map(|_| {
            let other = connect(&uri);
            other.busy_timeout(Duration::from_secs(60)).unwrap();
            other
        });
        let reader = connect(&board.kanban());
        assert_eq!(rows(&reader), [0]);
        let before = if shares { status(&first, "/counters/commits_covered") } else { json!(0) };
        let (arrived, tell) = hold_syncs(base);
        let (done, is_done) = channel();
        std::thread::scope(|scope| {
            let first = &mut first;
            scope.spawn(move || insert(first, 1).unwrap());
            arrived.recv_timeout(PATIENCE).unwrap();
            for (n, other) in others.iter_mut().enumerate() {
                let done = done.clone();
                scope.spawn(move || {
                    insert(other, n as i32 + 2).unwrap();
                    done.send(()).unwrap();
                });
            }
            if !shares {
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(rows(&reader), [0], "the other writers wait for the lock");
                (0..3).for_each(|_| tell.send(Fault::None).unwrap());
                (0..2).for_each(|_| arrived.recv_timeout(PATIENCE).unwrap());
                return;
            }
            see(&reader, 4);
            assert!(is_done.try_recv().is_err(), "COMMIT waits for a later sync");
            // A connection that waits too long syncs for itself, so let all syncs go on as they come.
            (0..3).for_each(|_| tell.send(Fault::None).unwrap());
            (0..2).for_each(|_| is_done.recv_timeout(PATIENCE).unwrap());
        });
        base.off();
        if shares {
            let covered = status(&first, "/counters/commits_covered").as_u64();
            assert!(covered >= before.as_u64(), "{covered:?}");
        }
        assert_eq!(rows(&reader), [0, 1, 2, 3]);
    }
}

/// A disk fails a sync. The kernel reports that once to each open file, and then takes the pages for clean: the next sync
/// succeeds and does not write them. So the COMMIT that waited answers the error. While the disk goes on failing, no durable
/// commit builds on the lost frames, not even one by a new connection: each is rolled back, as on the stock VFS. Readers go on,
/// and so does a writer with `synchronous=NORMAL`, which promises no durability. A checkpoint removes nothing from the WAL.
/// Then the disk reports success again. The next writer, whichever it is, writes those frames once more and syncs them before
/// it writes its own. (On the stock VFS the frames were never committed, and the next writer overwrites them.)
#[test]
fn nothing_durable_is_built_on_a_failed_sync_until_it_is_repaired() {
    let (base, vfs) = over_faulty("group-fails");
    let (board, first) = board(&vfs);
    let second = open(&board, &vfs);
    insert(&second, 1).unwrap();
    let (new, normal) = (open(&board, &vfs), open(&board, &vfs));
    normal.execute_batch("PRAGMA synchronous=normal").unwrap();
    let durable = beside(&board, "-wal").metadata().unwrap().len();

    base.on(|call| if is_wal_sync(call) { Fault::Fail(IOERR_FSYNC) } else { Fault::None });
    assert_eq!(code(insert(&first, 2)), IOERR_FSYNC);
    assert_eq!(rows(&second), [0, 1, 2], "readers go on");
    for connection in [&first, &second, &new, &first] {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        insert(connection, 4).unwrap();
        assert_eq!(code(connection.execute_batch("COMMIT")), IOERR_FSYNC);
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").unwrap();
        }
        assert_eq!(code(insert(connection, 4)), IOERR_FSYNC);
        assert_eq!(rows(connection), [0, 1, 2], "the transaction is rolled back");
    }
    for _ in 0..3 {
        insert(&normal, 3).unwrap();
    }
    let checkpoint = |connection: &Connection| {
        connection.query_row("PRAGMA wal_checkpoint", [], |row| {
            assert_eq!(row.get::<_, i32>(1)?, row.get::<_, i32>(2)?, "all frames are copied");
            Ok(())
        })
    };
    assert_eq!(code(checkpoint(&second)), IOERR_FSYNC);
    assert_eq!(code(insert(&first, 4)), IOERR_FSYNC);
    assert_eq!(rows(&first), [0, 1, 2, 3, 3, 3]);
    let lost = durable..beside(&board, "-wal").metadata().unwrap().len();

    // The disk reports success, though the frames are lost.
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    base.on(move |call| {
        match call.method {
            Method::Write { offset, .. } if call.file == File::Wal => {
                noted.lock().unwrap().push(Some(offset as u64));
            }
            _ if is_wal_sync(call) => noted.lock().unwrap().push(None),
            _ => {}
        }
        Fault::None
    });
    insert(&second, 4).unwrap();
    base.off();
    let calls = calls.lock().unwrap();
    let repaired = calls.iter().position(Option::is_none).unwrap();
    let written: Vec<_> = calls[..repaired].iter().flatten().collect();
    assert_eq!(written.first(), Some(&&lost.start), "{calls:?}");
    assert!(written.len() >= 4 && written.is_sorted(), "{calls:?}, {lost:?}");
    assert!(calls[repaired..].iter().any(Option::is_some), "its own frames follow: {calls:?}");
    assert_eq!(calls.last(), Some(&None), "{calls:?}");
    assert_eq!(rows(&first), [0, 1, 2, 3, 3, 3, 4]);
    for connection in [&first, &new, &normal] {
        insert(connection, 5).unwrap();
    }
    checkpoint(&second).unwrap();
    assert!(status(&first, "/counters/syncs_failed").as_u64() >= Some(1));
}

/// One process gets the error of a failed sync. Then a client in another process, perhaps with another SQLite, commits or
/// checkpoints. It repairs the sync, and the first process goes on, too.
#[test]
fn a_failed_sync_is_repaired_by_another_process() {
    let (base, vfs) = over_faulty("group-others-repair");
    for program in Program::ALL {
        for checkpoints in [false, true] {
            let (board, first) = board(&vfs);
            let mut other = agent(program);
            other.open("c", &grouped(&board.kanban()), 5000);
            other.sql("c", "PRAGMA synchronous=full; INSERT INTO t VALUES (1)").rows();
            base.on(|call| if is_wal_sync(call) { Fault::Fail(IOERR_FSYNC) } else { Fault::None });
            assert_eq!(code(insert(&first, 2)), IOERR_FSYNC);
            assert_eq!(code(insert(&first, 9)), IOERR_FSYNC);
            let failures = || {
                let sidecar = std::fs::read(board.sidecar()).unwrap();
                u32::from_le_bytes(sidecar[52..56].try_into().unwrap())
            };
            assert_eq!(failures(), 1, "the record counts one failure");
            if checkpoints {
                let done = other.sql("c", "PRAGMA wal_checkpoint").rows();
                assert_eq!((&done[0][0], &done[0][1]), (&json!(0), &done[0][2]), "{program:?}");
            } else {
                other.sql("c", "INSERT INTO t VALUES (3)").rows();
            }
            assert_eq!(failures(), 2, "{program:?}, {checkpoints}");
            base.off();
            insert(&first, 4).unwrap();
            other.sql("c", "INSERT INTO t VALUES (5)").rows();
            let expected = if checkpoints { &[0, 1, 2, 4, 5][..] } else { &[0, 1, 2, 3, 4, 5] };
            assert_eq!(rows(&first), expected, "{program:?}");
        }
    }
}

/// Two connections write in turns, with an autocheckpoint after every other commit, and one call to the base file fails once.
/// Each write, sync and truncation of the WAL or the database fails in turn, also because the disk is full. On the stock VFS at
/// most one statement answers the error, and everything goes on by itself. Group commit does no worse: no statement answers an
/// autocheckpoint's error, whatever `synchronous` is, and every acknowledged row is there.
#[test]
fn one_error_stops_nobody() {
    const ROWS: i32 = 6;
    let (base, ours) = over_faulty("group-once-each");
    for (synchronous, error) in [
        ("normal", IOERR_FSYNC),
        ("full", IOERR_FSYNC),
        ("full", ffi::SQLITE_FULL),
        ("off", IOERR_FSYNC),
    ] {
        let run = |vfs: &str, nth: u32| {
            let board = Board::new();
            let uri = if vfs == ours { grouped(&board.uri(vfs)) } else { board.uri(vfs) };
            let [first, second] = [0; 2].map(|_| {
                let connection = connect(&uri);
                connection.busy_timeout(Duration::from_secs(60)).unwrap();
                connection
            });
            let sql = "PRAGMA journal_mode=wal; CREATE TABLE t (x)";
            first.execute_batch(sql).unwrap();
            for connection in [&first, &second] {
                let sql = format!(
                    "PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint=4; \
                         SELECT * FROM t"
                );
                connection.execute_batch(&sql).unwrap();
            }
            let failed = Arc::new(Mutex::new(None));
            let (calls, noted) = (AtomicU32::new(0), Arc::clone(&failed));
            base.on(move |call| {
                let is_one = matches!(
                    call.method,
                    Method::Sync { .. } | Method::Write { .. } | Method::Truncate { .. }
                );
                if !is_one || calls.fetch_add(1, Ordering::SeqCst) != nth {
                    return Fault::None;
                }
                *noted.lock().unwrap() = Some((call.file, is_wal_sync(call)));
                Fault::Fail(error)
            });
            let mut refused = Vec::new();
            for n in 0..ROWS {
                let connection = if n % 2 == 0 { &first } else { &second };
                if insert(connection, n).is_err() {
                    refused.push(n);
                }
            }
            base.off();
            insert(&second, ROWS).unwrap();
            let found = rows(&first);
            let lost = (0..=ROWS).any(|n| !refused.contains(&n) && !found.contains(&n));
            let failed = failed.lock().unwrap().take();
            (failed, refused.len(), lost)
        };
        let mut autocheckpoints = 0;
        for nth in 0.. {
            let context = format!("{synchronous}, {error}, call {nth}");
            let stock = run("group-once-each", nth);
            let found = run(&ours, nth);
            let context = format!("{context}: stock {stock:?}, ours {found:?}");
            assert!(stock.1 <= 1 && !stock.2, "{context}");
            // A refused row may be there: COMMIT answers the error after the frames have become readable.
            assert!(found.1 <= 1 && !found.2, "{context}");
            // If no commit syncs, a sync of the WAL is for a new header or a checkpoint.
            let in_commits = synchronous == "full" || !found.0.is_some_and(|(_, sync)| sync);
            autocheckpoints += u32::from(!in_commits && found.1 == 0);
            if (stock.0, found.0) == (None, None) {
                break;
            }
        }
        assert!(autocheckpoints > 0 || synchronous != "normal", "{synchronous}");
    }
}

/// The case in which that error was first seen, with `synchronous=NORMAL`. The autocheckpoint of a commit fails to sync, no
/// COMMIT answers the error, and the disk goes on failing for a while. As on the stock VFS all connections go on: the one that
/// met the error, one that has written before, and one that has not.
#[test]
fn an_autocheckpoint_that_fails_refuses_nobody() {
    let (base, ours) = over_faulty("group-autocheckpoint");
    for vfs in ["group-autocheckpoint", ours.as_str()] {
        let board = Board::new();
        let uri = if vfs == ours { grouped(&board.uri(vfs)) } else { board.uri(vfs) };
        let connections = [0; 3].map(|_| connect(&uri));
        let sql = "PRAGMA journal_mode=wal; CREATE TABLE t (x)";
        connections[0].execute_batch(sql).unwrap();
        connections[1].execute_batch("INSERT INTO t VALUES (0)").unwrap();
        for connection in &connections {
            let sql = "PRAGMA synchronous=normal; PRAGMA wal_autocheckpoint=2";
            connection.execute_batch(sql).unwrap();
        }
        base.on(|call| if is_wal_sync(call) { Fault::Fail(IOERR_FSYNC) } else { Fault::None });
        for n in 1..7 {
            insert(&connections[n as usize % 3], n).unwrap();
        }
        base.off();
        for n in 7..10 {
            insert(&connections[n as usize % 3], n).unwrap();
        }
        assert_eq!(rows(&connections[0]), (0..10).collect::<Vec<_>>(), "{vfs}");
        let copied =
            connections[0].query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        assert_eq!(copied, Ok(0), "{vfs}");
    }
}

/// A disk that reports its errors as Linux does (fsync(2)): once to each file that was open when the error happened. A file
/// that is opened later gets the error only if no file got it before.
#[derive(Default)]
struct ErrorsOnce {
    errors: u32,
    is_told: bool,
    /// How many errors each open WAL has reported, by its handle.
    told: HashMap<usize, u32>,
}

impl ErrorsOnce {
    fn on(base: Base) -> Arc<Mutex<Self>> {
        let disk = Arc::new(Mutex::new(Self::default()));
        let decides = Arc::clone(&disk);
        base.on(move |call| decides.lock().unwrap().decide(call));
        disk
    }

    fn decide(&mut self, call: &Call<'_>) -> Fault {
        let before = self.errors - u32::from(!self.is_told && self.errors > 0);
        match call.method {
            Method::Open { .. } if call.file == File::Wal => {
                self.told.insert(call.handle(), before);
            }
            _ if is_wal_sync(call) => {
                let told = self.told.insert(call.handle(), self.errors).unwrap_or(0);
                let is_new = told != self.errors;
                self.is_told |= is_new;
                return if is_new { Fault::Fail(IOERR_FSYNC) } else { Fault::None };
            }
            _ => {}
        }
        Fault::None
    }

    /// The disk fails to write pages of the WAL.
    fn fail(&mut self) {
        (self.errors, self.is_told) = (self.errors + 1, false);
    }
}

/// The disk has one error, and six connections, each of which has the WAL open, get it at their next sync. One of them gets it
/// at once. A connection that has not got it yet repairs the sync in a checkpoint. The others get it later, some after a
/// restart of the WAL, but still commit. The next error is an error again, and the next commit repairs it.
#[test]
fn an_error_that_was_repaired_fails_nobody() {
    let (base, vfs) = over_faulty("group-once");
    let disk = ErrorsOnce::on(base);
    let (board, first) = board(&vfs);
    let others = [(); 5].map(|()| open(&board, &vfs));
    for (n, other) in others.iter().enumerate() {
        insert(other, n as i32 + 1).unwrap();
    }
    disk.lock().unwrap().fail();
    assert_eq!(code(insert(&first, 6)), IOERR_FSYNC);
    let checkpoint = |connection: &Connection, mode: &str| {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        connection.query_row(&sql, [], |row| {
            assert_eq!(row.get(0), Ok(0));
            Ok(())
        })
    };
    checkpoint(&others[0], "PASSIVE").unwrap();
    insert(&others[1], 7).unwrap();
    insert(&first, 8).unwrap();
    insert(&others[2], 9).unwrap();
    checkpoint(&first, "RESTART").unwrap();
    insert(&first, 10).unwrap();
    insert(&others[3], 11).unwrap();
    insert(&open(&board, &vfs), 12).unwrap();
    assert_eq!(rows(&first), (0..13).collect::<Vec<_>>());

    // A checkpoint makes its own sync and gets the error once, as on the stock VFS. That stops nobody.
    assert_eq!(code(checkpoint(&others[4], "PASSIVE")), IOERR_FSYNC);
    insert(&others[4], 13).unwrap();
    checkpoint(&others[4], "PASSIVE").unwrap();
    disk.lock().unwrap().fail();
    assert_eq!(code(insert(&others[1], 14)), IOERR_FSYNC);
    insert(&others[1], 14).unwrap();
    disk.lock().unwrap().fail();
    assert_eq!(code(insert(&others[1], 15)), IOERR_FSYNC);
    insert(&others[3], 16).unwrap();
    // Each sync whose error a client got: three of commits, one of the checkpoint.
    assert_eq!(status(&first, "/counters/syncs_failed"), 4);
    base.off();
}

/// A writer is killed before its sync. A disk error loses what it wrote, and the kernel reports that to another client. A
/// connection that opens after that gets no error, and commits on top of those frames. So it writes them once more before its
/// sync. Otherwise a power cut would remove what it acknowledges, with all frames before it.
#[test]
fn a_new_connection_rewrites_the_frames_that_it_cannot_vouch_for() {
    let (base, vfs) = over_faulty("group-vouches");
    let (board, first) = board(&vfs);
    let mut killed = agent(Program::Rust);
    killed.open("c", &grouped(&board.kanban()), 60_000);
    killed.sql("c", "PRAGMA synchronous=full; INSERT INTO t VALUES (1)").rows();
    let durable = beside(&board, "-wal").metadata().unwrap().len();
    let mut killed = Traced::new(killed);
    let syncs = |_: usize, call| [libc::SYS_fsync, libc::SYS_fdatasync].contains(&call);
    killed.run(&[json!(["sql", "c", "INSERT INTO t VALUES (2)"])], syncs).unwrap();
    killed.kill();
    let lost = durable..beside(&board, "-wal").metadata().unwrap().len();
    assert!(!lost.is_empty());

    let written = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&written);
    base.on(move |call| {
        let at = match call.method {
            Method::Write { offset, .. } if call.file == File::Wal => Some(offset as u64),
            _ if is_wal_sync(call) => None,
            _ => return Fault::None,
        };
        noted.lock().unwrap().push(at);
        Fault::None
    });
    let new = open(&board, &vfs);
    insert(&new, 3).unwrap();
    let calls = std::mem::take(&mut *written.lock().unwrap());
    let synced = calls.iter().rposition(Option::is_none).unwrap();
    assert_eq!(synced, calls.len() - 1, "{calls:?}");
    assert!(calls.contains(&Some(lost.start)), "{calls:?}, {lost:?}");
    // From now on its descriptor was open during every write.
    insert(&new, 4).unwrap();
    insert(&first, 5).unwrap();
    insert(&new, 6).unwrap();
    base.off();
    let calls = written.lock().unwrap();
    let rewritten = calls.iter().flatten().filter(|at| lost.contains(at)).count();
    assert_eq!(rewritten, 0, "{calls:?}");
    assert_eq!(rows(&new), [0, 1, 2, 3, 4, 5, 6]);
}

/// All clients are killed. A restore in place (`rsync --inplace`) sets the files back by some commits, with their inodes and
/// salts, while the sidecar still says how many frames were durable. Every later commit is synced.
#[test]
fn every_commit_to_restored_files_is_synced() {
    let (base, vfs) = over_faulty("group-restored");
    let board = Board::new();
    let mut client = agent(Program::Rust);
    client.open("c", &grouped(&board.kanban()), 60_000);
    let sql = "PRAGMA journal_mode=wal; PRAGMA synchronous=full; PRAGMA wal_autocheckpoint=0; \
               CREATE TABLE t (x); INSERT INTO t VALUES (0)";
    client.sql("c", sql).rows();
    let files = ["", "-wal"].map(|suffix| beside(&board, suffix));
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap());
    for n in 1..20 {
        client.sql("c", &format!("INSERT INTO t VALUES ({n})")).rows();
    }
    client.kill();
    for (file, before) in files.iter().zip(&before) {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.write_all_at(before, 0).unwrap();
        file.set_len(before.len() as u64).unwrap();
    }
    std::fs::remove_file(beside(&board, "-shm")).unwrap();
    let syncs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&syncs);
    base.on(move |call| {
        counted.fetch_add(u32::from(is_wal_sync(call)), Ordering::SeqCst);
        Fault::None
    });
    let connection = open(&board, &vfs);
    assert_eq!(rows(&connection), [0]);
    for n in 1..5 {
        let before = count(&syncs);
        insert(&connection, n).unwrap();
        assert_eq!(count(&syncs), before + 1);
    }
    base.off();
}

/// One client writes for a while, and nobody else does. It has nobody to share its syncs with, so it syncs where the stock VFS
/// does. Then another client commits, and both share their syncs again.
#[test]
fn a_sole_writer_syncs_in_its_commit() {
    let (base, vfs) = over_faulty("group-alone");
    let syncs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&syncs);
    base.on(move |call| {
        counted.fetch_add(u32::from(is_wal_sync(call)), Ordering::SeqCst);
        Fault::None
    });
    let (board, first) = board(&vfs);
    let other = open(&board, &vfs);
    let shared = |connection: &Connection| {
        let (led, before) = (status(connection, "/counters/syncs_led").as_u64(), count(&syncs));
        insert(connection, 1).unwrap();
        assert_eq!(count(&syncs), before + 1, "each commit is synced");
        status(connection, "/counters/syncs_led").as_u64() > led
    };
    assert!(shared(&first));
    for _ in 0..20 {
        insert(&first, 1).unwrap();
    }
    assert!(!shared(&first) && !shared(&first));
    assert!(shared(&other));
    assert!(shared(&first));
    base.off();
}

/// Three commits wait for a sync that one of them makes, and the sync fails. All three answer the error. The board is closed,
/// which checkpoints, and opened again. It works.
#[test]
fn all_commits_that_waited_for_a_failed_sync_answer_the_error() {
    let (base, vfs) = over_faulty("group-fails-all");
    let (board, mut first) = board(&vfs);
    let mut others = [open(&board, &vfs), open(&board, &vfs)];
    let reader = connect(&board.kanban());
    let (arrived, tell) = hold_syncs(base);
    std::thread::scope(|scope| {
        let first = &mut first;
        let mut commits = vec![scope.spawn(move || code(insert(first, 1)))];
        arrived.recv_timeout(PATIENCE).unwrap();
        for other in &mut others {
            commits.push(scope.spawn(move || code(insert(other, 2))));
        }
        see(&reader, 4);
        (0..3).for_each(|_| tell.send(Fault::Fail(IOERR_FSYNC)).unwrap());
        for commit in commits {
            assert_eq!(commit.join().unwrap(), IOERR_FSYNC);
        }
    });
    base.off();
    drop((first, others, reader));
    let again = open(&board, &vfs);
    insert(&again, 3).unwrap();
    assert_eq!(rows(&again), [0, 1, 2, 2, 3]);
}

/// A process is killed, or stopped, while it syncs for others. They do not wait for it. If it is stopped, they wait once, and
/// not at each of their commits.
#[test]
fn a_leader_that_is_killed_or_stopped_is_replaced() {
    for kill in [true, false] {
        let board = Board::new();
        let uri = grouped(&board.kanban());
        let mut leader = agent(Program::Rust);
        leader.open("c", &uri, 60_000);
        leader.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
        leader.sql("c", "INSERT INTO t VALUES (0)").rows();
        let mut other = agent(Program::Rust);
        other.open("c", &uri, 60_000);
        other.sql("c", "INSERT INTO t VALUES (1)").rows();
        let mut traced = Traced::new(leader);
        let syncs = |_: usize, call| [libc::SYS_fsync, libc::SYS_fdatasync].contains(&call);
        traced.run(&[json!(["sql", "c", "INSERT INTO t VALUES (2)"])], syncs).unwrap();
        let leaders_byte = || {
            let sidecar = std::fs::File::open(board.sidecar()).unwrap();
            vfs_tests::sidecar::is_locked(&sidecar, 8190)
        };
        assert!(leaders_byte(), "the process leads");
        let reader = connect(&board.kanban());
        assert_eq!(rows(&reader), [0, 1, 2], "its commit can be read");
        other.send_sql("c", "INSERT INTO t VALUES (3)");
        see(&reader, 4);
        let traced = if kill {
            traced.kill();
            None
        } else {
            Some(traced)
        };
        let began = Instant::now();
        other.reply().rows();
        assert!(began.elapsed() < Duration::from_secs(30));
        let waited = began.elapsed();
        assert_eq!(leaders_byte(), !kill);
        other.sql("c", "INSERT INTO t VALUES (4)").rows();
        if !kill {
            let began = Instant::now();
            other.sql("c", "CREATE TABLE u (x)").rows();
            (0..19).for_each(|_| drop(other.sql("c", "INSERT INTO u VALUES (1)").rows()));
            let later = began.elapsed();
            assert!(later < waited * 10, "{waited:?}, and 20 commits {later:?}");
            assert!(leaders_byte());
        }
        drop(traced);
        assert_eq!(rows(&reader), [0, 1, 2, 3, 4]);
        assert_eq!(other.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
}

/// The sidecar's page is torn, old, another board's, random, or cut short. A commit never takes that for a sync:
/// each of these commits makes one, which the test counts.
#[test]
fn a_commit_does_not_trust_a_record_that_is_not_its_own() {
    let (base, vfs) = over_faulty("group-hostile");
    let (board, connection) = board(&vfs);
    let (other_board, other) = self::board(&vfs);
    let record = |board: &Board| {
        let mut bytes = [0; 28];
        std::fs::File::open(board.sidecar())
            .unwrap()
            .read_exact_at(&mut bytes, RECORD.start)
            .unwrap();
        bytes
    };
    let put = |bytes: &[u8]| {
        let sidecar = std::fs::File::options().write(true).open(board.sidecar()).unwrap();
        sidecar.write_all_at(bytes, RECORD.start).unwrap();
    };
    for n in 0..20 {
        insert(&other, n).unwrap();
    }
    let foreign = record(&other_board);
    insert(&connection, 1).unwrap();
    let old = record(&board);
    insert(&connection, 2).unwrap();
    let mut torn = record(&board);
    torn[12] = 0xff;
    let mut ahead = old;
    ahead[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let syncs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&syncs);
    base.on(move |call| {
        if is_wal_sync(call) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    });
    let hostile = [foreign, old, torn, ahead, [0; 28], [0xff; 28], [1; 28]];
    for (n, bytes) in hostile.iter().enumerate() {
        put(bytes);
        let before = count(&syncs);
        insert(&connection, 10 + n as i32).unwrap();
        assert_eq!(count(&syncs), before + 1, "{bytes:?}");
    }
    // After a restart, the record belongs to an earlier WAL.
    let of_the_old = record(&board);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    insert(&connection, 20).unwrap();
    put(&of_the_old);
    let before = count(&syncs);
    insert(&connection, 21).unwrap();
    assert_eq!(count(&syncs), before + 1);
    std::fs::File::options().write(true).open(board.sidecar()).unwrap().set_len(0).unwrap();
    let before = count(&syncs);
    insert(&connection, 22).unwrap();
    assert_eq!(count(&syncs), before + 1);
    base.off();
}

/// Where commits cannot share a sync, each makes its own, and the status says why.
#[test]
fn without_a_page_each_commit_syncs_for_itself() {
    let (base, vfs) = over_faulty("group-foreign");
    let board = Board::new();
    std::fs::write(board.sidecar(), "something of somebody else's, and long enough").unwrap();
    let connection = open(&board, &vfs);
    assert_eq!(status(&connection, "/group_commit/active"), false);
    connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    insert(&connection, 1).unwrap();
    let why = status(&connection, "/group_commit/why");
    assert!(why.as_str().unwrap().contains("no sidecar"), "{why}");
    // A commit whose sync fails is rolled back, as on the stock VFS.
    base.on(|call| if is_wal_sync(call) { Fault::Fail(IOERR_FSYNC) } else { Fault::None });
    assert_eq!(code(insert(&connection, 2)), IOERR_FSYNC);
    base.off();
    insert(&connection, 3).unwrap();
    assert_eq!(rows(&connection), [1, 3]);

    let (board, grouped) = self::board(&vfs);
    assert_eq!(status(&grouped, "/group_commit/active"), true);
    let plain = connect(&board.uri(&vfs));
    assert_eq!(rows(&plain), [0]);
    let why = status(&plain, "/group_commit/why");
    assert!(why.as_str().unwrap().contains("not set"), "{why}");
}

/// A transaction writes to three databases, two of them with rollback journals. SQLite commits it with a super-journal, and
/// then ignores the answer to the end of the commit. So the WAL is synced before that. If that sync fails, nothing of the
/// transaction is committed.
#[test]
fn a_transaction_over_several_databases_syncs_before_it_commits() {
    let (base, vfs) = over_faulty("group-several");
    let (board, connection) = board(&vfs);
    for name in ["a", "b"] {
        let path = board.directory().join(name);
        connection
            .execute_batch(&format!(
                "ATTACH 'file:{}?vfs={vfs}' AS {name}; PRAGMA {name}.journal_mode=delete; \
                 CREATE TABLE {name}.u (x)",
                path.display()
            ))
            .unwrap();
    }
    let both = "BEGIN; INSERT INTO t VALUES (1); INSERT INTO a.u VALUES (1); \
                INSERT INTO b.u VALUES (1); COMMIT";
    connection.execute_batch(both).unwrap();
    base.on(|call| if is_wal_sync(call) { Fault::Fail(IOERR_FSYNC) } else { Fault::None });
    assert_eq!(code(connection.execute_batch(both)), IOERR_FSYNC);
    base.off();
    let _ = connection.execute_batch("ROLLBACK");
    for table in ["t WHERE x = 1", "a.u", "b.u"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let n: i32 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(n, 1, "{table}");
    }
}

/// A transaction writes to two databases. The main one is in WAL mode with group commit; the other has a rollback journal or a
/// WAL, on this VFS or another. The sync of the WAL fails. As on the stock VFS, neither database has its half. (There is no
/// super-journal, and SQLite commits one database after the other.)
#[test]
fn a_failed_sync_leaves_no_half_of_a_transaction() {
    let (base, ours) = over_faulty("group-halves");
    for (mode, other) in
        [("delete", "unix"), ("delete", "kanban"), ("wal", "unix"), ("wal", "kanban")]
    {
        for vfs in ["group-halves", ours.as_str()] {
            let context = format!("{mode} by {other}, {vfs}");
            let board = Board::new();
            let connection =
                connect(&if vfs == ours { grouped(&board.uri(vfs)) } else { board.uri(vfs) });
            let path = board.directory().join("attached");
            connection
                .execute_batch(&format!(
                    "PRAGMA journal_mode=wal; PRAGMA synchronous=full; CREATE TABLE t (x); \
                     ATTACH 'file:{}?vfs={other}' AS a; PRAGMA a.journal_mode={mode}; \
                     CREATE TABLE a.u (x)",
                    path.display()
                ))
                .unwrap();
            let both = "BEGIN; INSERT INTO t VALUES (1); INSERT INTO a.u VALUES (1); COMMIT";
            connection.execute_batch(both).unwrap();
            base.on(|call| if is_wal_sync(call) { Fault::Fail(IOERR_FSYNC) } else { Fault::None });
            assert_eq!(code(connection.execute_batch(both)), IOERR_FSYNC, "{context}");
            base.off();
            let _ = connection.execute_batch("ROLLBACK");
            for table in ["t", "a.u"] {
                let sql = format!("SELECT count(*) FROM {table}");
                let n: i32 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
                assert_eq!(n, 1, "{context}, {table}");
            }
            connection.execute_batch(both).unwrap();
            if vfs == ours {
                // The sync of a transaction on the main database alone is deferred again.
                let led = status(&connection, "/counters/syncs_led").as_u64();
                insert(&connection, 2).unwrap();
                assert!(status(&connection, "/counters/syncs_led").as_u64() > led, "{context}");
            }
        }
    }
}

/// Threads share a cache. Each of two boards is the main database of one connection, and attached by another. Every
/// acknowledged row is there, nobody waits for ever, and the last connection to close uses nothing that was freed.
#[test]
fn connections_with_a_shared_cache_group_the_commits_of_their_main_database() {
    const ROWS: usize = 40;
    let boards = [Board::new(), Board::new()];
    let shared = |board: &Board| format!("{}&cache=shared", grouped(&board.kanban()));
    let sql = "PRAGMA journal_mode=wal; PRAGMA synchronous=full; CREATE TABLE t (x)";
    boards.iter().for_each(|board| connect(&board.kanban()).execute_batch(sql).unwrap());
    let write = move |main: &Board, attached: &Board| {
        let connection = connect(&shared(main));
        let attach = format!("PRAGMA synchronous=full; ATTACH '{}' AS a", shared(attached));
        connection.execute_batch(&attach).unwrap();
        // Other connections with that cache lock tables; SQLite calls no busy handler for those locks.
        let run = |sql: &str| loop {
            match connection.execute_batch(sql) {
                Ok(()) => break,
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseLocked) => {}
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
                Err(error) => panic!("{error}"),
            }
        };
        for _ in 0..ROWS {
            run("INSERT INTO main.t VALUES (1)");
            run("INSERT INTO a.t VALUES (2)");
        }
    };
    std::thread::scope(|scope| {
        let [first, second] = &boards;
        for (main, attached) in [(first, second), (second, first), (first, second)] {
            scope.spawn(move || write(main, attached));
        }
    });
    let [first, second] = boards.each_ref().map(|board| connect(&shared(board)));
    assert_eq!(rows(&first).len(), 3 * ROWS);
    assert_eq!(rows(&second).len(), 3 * ROWS);
    insert(&first, 3).unwrap();
    assert_eq!(status(&first, "/group_commit/active"), true);
    assert!(status(&first, "/counters/syncs_led").as_u64() > Some(0));
}

/// Syncs for other reasons are not deferred: that of a WAL's new header, before frames follow it, and that of a checkpoint,
/// before it writes to the database.
#[test]
fn only_the_syncs_of_commits_are_deferred() {
    let (base, vfs) = over_faulty("group-others");
    let (_board, connection) = board(&vfs);
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    base.on(move |call| {
        let what = match (call.file, call.method) {
            (File::Wal, Method::Write { offset: 0, .. }) => "header",
            (File::Wal, Method::Write { .. }) => "frame",
            (File::Wal, Method::Sync { .. }) => "sync",
            (File::Main, Method::Write { .. }) => "page",
            (File::Main, Method::ShmLock { slot: 0, n: 1, flags }) => {
                if flags & ffi::SQLITE_SHM_UNLOCK != 0 { "unlock" } else { "lock" }
            }
            _ => return Fault::None,
        };
        let mut noted = noted.lock().unwrap();
        if noted.last() != Some(&what) {
            noted.push(what);
        }
        Fault::None
    });
    insert(&connection, 1).unwrap();
    let committed = std::mem::take(&mut *calls.lock().unwrap());
    assert_eq!(committed, ["lock", "header", "sync", "frame", "unlock", "sync"]);
    connection.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
    base.off();
    let checkpointed = std::mem::take(&mut *calls.lock().unwrap());
    assert_eq!(checkpointed, ["sync", "page"]);
}

/// Clients with group commit, without it, and stock ones, of two versions of SQLite, in processes and threads, write as fast as
/// they can. Every acknowledged row is there.
#[test]
fn all_kinds_of_clients_share_a_board() {
    const EACH: usize = 60;
    let board = Board::new();
    let connection = connect(&grouped(&board.kanban()));
    connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    let mut clients = Vec::new();
    for program in Program::ALL {
        for (mut client, uri) in [
            (agent(program), grouped(&board.kanban())),
            (agent(program), grouped(&board.kanban())),
            (agent(program), board.kanban()),
            (stock_agent(program), board.stock()),
        ] {
            client.open("c", &uri, 60_000);
            client.sql("c", "PRAGMA synchronous=full; PRAGMA wal_autocheckpoint=20").rows();
            clients.push(client);
        }
    }
    let rows_of_threads = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let connection = connect(&grouped(&board.kanban()));
                connection.busy_timeout(Duration::from_secs(60)).unwrap();
                for n in 0..EACH {
                    insert(&connection, n as i32).unwrap();
                    rows_of_threads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for client in &mut clients {
            for n in 0..EACH {
                client.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
            }
        }
        for client in &mut clients {
            for _ in 0..EACH {
                client.reply().rows();
            }
        }
    });
    let expected = clients.len() * EACH + count(&rows_of_threads) as usize;
    assert_eq!(rows(&connection).len(), expected);
    for client in &mut clients {
        assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[expected]]);
        assert_eq!(client.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    }
    for client in clients.iter_mut().step_by(4) {
        assert_eq!(status_of(client, "c", "/group_commit/active"), true);
    }
}

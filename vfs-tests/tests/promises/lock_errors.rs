//! If the base has an I/O error while it locks or unlocks, the write lock and the base's locks
//! never differ. The tests fail each such call once, both instead of the call and after it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, ffi};
use vfs_tests::base::{Base, Call, Fault, Locks, Method};
use vfs_tests::sidecar::holder;
use vfs_tests::{Agent, Board, PATIENCE, Program, Reply};

use crate::{agent, connect, over_faulty};

/// What a program does: one transaction after the other.
type Workload = &'static [&'static [&'static str]];

const IN_ROLLBACK_MODE: Workload = &[
    &["PRAGMA synchronous=off"],
    &["PRAGMA journal_mode=delete"],
    &["CREATE TABLE IF NOT EXISTS t (x)"],
    &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"],
    &["SELECT count(*) FROM t"],
    &["BEGIN", "SELECT count(*) FROM t", "INSERT INTO t VALUES (2)", "COMMIT"],
    &["BEGIN EXCLUSIVE", "COMMIT"],
    &["INSERT INTO t VALUES (3)"],
];

const IN_WAL_MODE: Workload = &[
    &["PRAGMA synchronous=off"],
    &["PRAGMA journal_mode=wal"],
    &["CREATE TABLE IF NOT EXISTS t (x)"],
    &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"],
    &["SELECT count(*) FROM t"],
    &["BEGIN", "SELECT count(*) FROM t", "INSERT INTO t VALUES (2)", "COMMIT"],
    &["PRAGMA wal_checkpoint(PASSIVE)"],
    &["INSERT INTO t VALUES (3)"],
    &["PRAGMA wal_checkpoint(TRUNCATE)"],
    &["INSERT INTO t VALUES (4)"],
    &["PRAGMA journal_mode=delete"],
    &["INSERT INTO t VALUES (5)"],
    &["PRAGMA journal_mode=wal"],
    &["INSERT INTO t VALUES (6)"],
];

/// The error of a call that locks or unlocks, if it fails.
fn error_of(call: &Call<'_>) -> Option<i32> {
    match call.method {
        Method::Lock { .. } => Some(ffi::SQLITE_IOERR_LOCK),
        Method::Unlock { .. } => Some(ffi::SQLITE_IOERR_UNLOCK),
        Method::ShmLock { .. } => Some(ffi::SQLITE_IOERR_SHMLOCK),
        Method::ShmMap { .. } => Some(ffi::SQLITE_IOERR_SHMMAP),
        Method::ShmUnmap { .. } => Some(ffi::SQLITE_IOERR),
        _ => None,
    }
}

/// A board, a program that runs the workload on it, and the one call that fails.
struct Trial {
    base: Base,
    vfs: String,
    board: Board,
    nth: u32,
    after: bool,
    /// The call that failed.
    failed: Arc<OnceLock<String>>,
    /// Whether another connection tried to write since.
    tried: Cell<bool>,
    /// Whether the base has kept others from writing since, with no transaction open.
    left_behind: Cell<bool>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.after { "after" } else { "in place of" };
        write!(f, "{}, error {when} call {}, {:?}", self.vfs, self.nth, self.failed.get())
    }
}

impl Trial {
    fn new(base: Base, vfs: &str, nth: u32, after: bool) -> Self {
        let (calls, failed) = (AtomicU32::new(0), Arc::<OnceLock<String>>::default());
        let call_failed = Arc::clone(&failed);
        base.on(move |call| match error_of(call) {
            Some(error) if calls.fetch_add(1, Ordering::Relaxed) == nth => {
                let _ = call_failed.set(format!("{:?}", call.method));
                if after { Fault::FailAfter(error) } else { Fault::Fail(error) }
            }
            // While a slot that readers need stays locked, SQLite would try for ten seconds.
            None if matches!(call.method, Method::Sleep { .. }) => Fault::Pretend,
            _ => Fault::None,
        });
        let (vfs, board) = (vfs.to_owned(), Board::new());
        let (tried, left_behind) = (Cell::new(false), Cell::new(false));
        Self { base, vfs, board, nth, after, failed, tried, left_behind }
    }

    fn is_ours(&self) -> bool {
        self.vfs.starts_with("kanban")
    }

    /// Runs the workload. A transaction that fails is tried once more; if it fails again, the
    /// workload ends. Returns the rows of transactions that succeeded.
    fn work(&self, workload: Workload) -> BTreeSet<i64> {
        let mut acknowledged = BTreeSet::new();
        let connection = connect(&self.board.uri(&self.vfs));
        // Another client has a lock for a moment at most.
        connection.busy_timeout(Duration::from_millis(20)).unwrap();
        for transaction in workload {
            let done = self.transact(&connection, transaction);
            let done = done.or_else(|_| self.transact(&connection, transaction));
            let Ok(rows) = done else { break };
            acknowledged.extend(rows);
        }
        acknowledged
    }

    fn transact(&self, connection: &Connection, transaction: &[&str]) -> Result<Vec<i64>, ()> {
        let mut rows = Vec::new();
        for sql in transaction {
            if let Err(error) = connection.execute_batch(sql) {
                self.assert_clean(&error);
                for _ in 0..2 {
                    if !connection.is_autocommit() {
                        let _ = connection.execute_batch("ROLLBACK");
                    }
                }
                assert!(connection.is_autocommit(), "{self}: a transaction that never ends");
                self.look(connection);
                return Err(());
            }
            self.look(connection);
            let row =
                sql.strip_prefix("INSERT INTO t VALUES (").and_then(|row| row.strip_suffix(')'));
            rows.extend(row.map(|row| row.parse::<i64>().unwrap()));
        }
        Ok(rows)
    }

    fn assert_clean(&self, error: &rusqlite::Error) {
        let code = error.sqlite_error_code().unwrap();
        let is_clean = match code {
            ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed => true,
            // CREATE TABLE failed twice.
            _ => error.to_string().contains("no such table"),
        };
        assert!(is_clean, "{self}: {error}");
    }

    /// Compares the write lock with the base's locks, between statements.
    fn look(&self, connection: &Connection) {
        let locks = self.base.locks();
        let to_write = locks.iter().any(Locks::to_write);
        let is_at_rest = connection.is_autocommit();
        if self.is_ours() {
            let holder = holder(&self.board.sidecar());
            assert!(holder.is_none_or(|pid| pid == std::process::id()), "{self}: {holder:?}");
            assert!(holder.is_some() || !to_write, "{self}: nobody has the write lock, {locks:?}");
            let is_stuck = holder.is_some() && !to_write && is_at_rest;
            assert!(!is_stuck, "{self}: the write lock is held for nothing, {locks:?}");
            // At rest SQLite holds no slot and, on the file, only the lock that a reader in WAL
            // mode keeps.
            let is_more = |locks: &Locks| {
                locks.shared != 0 || locks.exclusive != 0 || locks.level > ffi::SQLITE_LOCK_SHARED
            };
            let is_left = is_at_rest && locks.iter().any(is_more);
            assert!(!is_left, "{self}: SQLite does not know of these locks: {locks:?}");
        }
        if self.failed.get().is_none() || !is_at_rest {
            return;
        }
        self.left_behind.set(self.left_behind.get() || to_write);
        if self.tried.replace(true) {
            return;
        }
        let another = connect(&self.board.uri(&self.vfs));
        another.busy_timeout(Duration::ZERO).unwrap();
        match another.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Ok(()) => assert!(!to_write, "{self}: another connection writes, {locks:?}"),
            Err(error) => {
                self.assert_clean(&error);
                let in_its_way = locks.iter().any(|locks| to_write || locks.exclusive != 0);
                assert!(in_its_way, "{self}: another connection: {error}, {locks:?}");
            }
        }
    }

    /// The connection is closed and the fault gone: checks that all locks are released, that
    /// everybody can write, and that all acknowledged rows are there.
    fn assert_whole(&self, acknowledged: &BTreeSet<i64>, others: &mut [Agent; 2]) {
        assert_eq!(self.base.locks(), [], "{self}: closed");
        assert_eq!(holder(&self.board.sidecar()), None, "{self}: closed");
        const WRITE: [&str; 3] = [
            "PRAGMA synchronous=off",
            "CREATE TABLE IF NOT EXISTS t (x)",
            "INSERT INTO t VALUES (100)",
        ];
        for vfs in [&*self.vfs, "kanban", "unix"] {
            let connection = connect(&self.board.uri(vfs));
            connection.busy_timeout(Duration::from_secs(5)).unwrap();
            let written = connection.execute_batch(&WRITE.join(";"));
            written.unwrap_or_else(|error| panic!("{self}: then {vfs}: {error}"));
        }
        for (other, uri) in others.iter_mut().zip([self.board.kanban(), self.board.stock()]) {
            other.open("c", &uri, 5000);
            for sql in WRITE {
                if let Reply::Error { message, .. } = other.sql("c", sql) {
                    panic!("{self}: then {uri} in another process: {message}");
                }
            }
            let rows = other.sql("c", "SELECT x FROM t").rows();
            let rows: BTreeSet<_> = rows.iter().map(|row| row[0].as_i64().unwrap()).collect();
            assert!(rows.is_superset(acknowledged), "{self}: {acknowledged:?} of {rows:?}");
            assert_eq!(other.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{self}");
            other.close("c");
        }
        assert_eq!(holder(&self.board.sidecar()), None, "{self}: at the end");
    }
}

/// Fails each call of `workload` once, in both ways. Returns how many calls there were, and how
/// many of them left the board locked until the connection closed.
fn fail_each(base: Base, vfs: String, workload: Workload) -> (u32, u32) {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut others = [agent(Program::Rust), agent(Program::Python)];
        let (mut failed, mut left_behind) = (0, 0);
        for after in [false, true] {
            for nth in 0.. {
                let trial = Trial::new(base, &vfs, nth, after);
                let acknowledged = trial.work(workload);
                base.off();
                trial.assert_whole(&acknowledged, &mut others);
                if trial.failed.get().is_none() {
                    let all = workload.iter().flat_map(|transaction| transaction.iter());
                    let inserts = all.filter(|sql| sql.starts_with("INSERT")).count();
                    assert_eq!(acknowledged.len(), inserts, "nothing has failed");
                    break;
                }
                failed += 1;
                left_behind += u32::from(trial.left_behind.get());
            }
        }
        sender.send((failed, left_behind))
    });
    receiver.recv_timeout(PATIENCE).expect("it fails, or hangs")
}

/// A program uses a board in a rollback mode, and once the file system fails to lock or unlock. On
/// the stock VFS, too, the next transaction, or the close, releases everything.
#[test]
fn in_rollback_mode_an_error_leaves_no_lock_apart() {
    let (base, ours) = over_faulty("faulty-locks");
    let (failed, _) = fail_each(base, "faulty-locks".to_owned(), IN_ROLLBACK_MODE);
    assert!(failed > 40, "{failed}");
    let (failed, _) = fail_each(base, ours, IN_ROLLBACK_MODE);
    assert!(failed > 40, "{failed}");
}

/// The same in WAL mode, in and out of it. There SQLite ignores the answer to an unlock: on the
/// stock VFS the board stays locked, by a program that does not know it.
#[test]
fn in_wal_mode_an_error_leaves_no_lock_apart() {
    let (base, ours) = over_faulty("faulty-slots");
    let (failed, left_behind) = fail_each(base, "faulty-slots".to_owned(), IN_WAL_MODE);
    assert!(failed > 100 && left_behind > 0, "{failed} {left_behind}");
    let (failed, _) = fail_each(base, ours, IN_WAL_MODE);
    assert!(failed > 100, "{failed}");
}

/// A stock client in the way of a program that waits.
struct InTheWay {
    mode: &'static str,
    holds: &'static str,
    /// What the program does before, and the statement that waits.
    before: &'static str,
    waits: &'static str,
    /// The calls that see whether the lock is free, and the call that fails.
    looks: fn(&Method<'_>) -> bool,
    fails: fn(&Method<'_>) -> bool,
}

fn is_write_slot(method: &Method<'_>, flag: i32) -> bool {
    *method == Method::ShmLock { slot: 0, n: 1, flags: flag | ffi::SQLITE_SHM_EXCLUSIVE }
}

/// A program waits for a stock client, and now and then checks whether the lock is free: it takes
/// the lock and releases it. That fails. Only the VFS knows of that lock, which is in SQLite's own
/// way if it stays. (The stock VFS does not check.)
#[test]
fn a_look_that_fails_leaves_no_lock_behind() {
    let (base, ours) = over_faulty("faulty-looks");
    let mut stock = agent(Program::Python);
    for case in [
        InTheWay {
            mode: "wal",
            holds: "BEGIN IMMEDIATE",
            before: "",
            waits: "BEGIN IMMEDIATE",
            looks: |method| is_write_slot(method, ffi::SQLITE_SHM_LOCK),
            fails: |method| is_write_slot(method, ffi::SQLITE_SHM_UNLOCK),
        },
        InTheWay {
            mode: "delete",
            holds: "BEGIN EXCLUSIVE",
            before: "",
            waits: "BEGIN; SELECT count(*) FROM t",
            looks: |method| *method == Method::Lock { level: ffi::SQLITE_LOCK_SHARED },
            fails: |method| *method == Method::Unlock { level: ffi::SQLITE_LOCK_NONE },
        },
        InTheWay {
            mode: "delete",
            holds: "BEGIN; SELECT count(*) FROM t",
            before: "BEGIN; INSERT INTO t VALUES (1)",
            waits: "COMMIT",
            looks: |method| *method == Method::Lock { level: ffi::SQLITE_LOCK_EXCLUSIVE },
            fails: |method| *method == Method::Lock { level: ffi::SQLITE_LOCK_EXCLUSIVE },
        },
    ] {
        for fault in [Fault::Fail, Fault::FailAfter].map(|fault| fault(ffi::SQLITE_IOERR_LOCK)) {
            let name = format!("{}, {}, {fault:?}", case.mode, case.waits);
            // SQLite itself may try instead of the check that would have failed. Then play the
            // scene once more.
            let look_failed = (0..20).any(|_| {
                let board = Board::new();
                let connection = connect(&board.uri(&ours));
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                let run = |sql: &str| connection.execute_batch(sql);
                run(&format!("PRAGMA journal_mode={}; CREATE TABLE t (x)", case.mode)).unwrap();
                stock.open("c", &board.stock(), 5000);
                stock.sql("c", case.holds).rows();
                run(case.before).unwrap();

                let (looks, failed) =
                    (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
                let (looked, has_failed) = (Arc::clone(&looks), Arc::clone(&failed));
                base.on(move |call| {
                    let n = match (case.looks)(&call.method) {
                        true => looked.fetch_add(1, Ordering::Relaxed),
                        false => looked.load(Ordering::Relaxed),
                    };
                    let has_lock = base.locks().iter().any(|locks| locks.level > 0);
                    let is_it = n > 5 && has_lock && (case.fails)(&call.method);
                    let is_first = is_it && !has_failed.swap(true, Ordering::Relaxed);
                    if is_first { fault } else { Fault::None }
                });
                let done = std::thread::scope(|scope| {
                    let ended = scope.spawn(|| {
                        let began = Instant::now();
                        while looks.load(Ordering::Relaxed) < 8 {
                            assert!(began.elapsed() < PATIENCE, "{name}: it does not look");
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        stock.sql("c", "COMMIT").rows();
                    });
                    let done = run(case.waits);
                    ended.join().unwrap();
                    done
                });
                let failed = failed.load(Ordering::Relaxed);
                base.off();
                if let Err(error) = &done {
                    // SQLite's own attempt has failed.
                    let code = error.sqlite_error_code().unwrap();
                    assert_eq!(code, ErrorCode::SystemIoFailure, "{name}: {error}");
                }
                if !connection.is_autocommit() {
                    run("COMMIT").unwrap();
                }
                let locks = base.locks();
                assert!(!locks.iter().any(Locks::to_write), "{name}: {locks:?}");
                assert!(case.mode == "wal" || locks[0].level == 0, "{name}: {locks:?}");
                assert_eq!(holder(&board.sidecar()), None, "{name}");
                stock.sql("c", "INSERT INTO t VALUES (2)").rows();
                run("INSERT INTO t VALUES (3)").unwrap();
                stock.close("c");
                failed && done.is_ok()
            });
            assert!(look_failed, "{name}: no look has failed");
        }
    }
}

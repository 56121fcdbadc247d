//! Any call of the base VFS fails. A program on this VFS then succeeds or gets an error of
//! SQLite's. It does not hang, all acknowledged rows are there, and nothing is left locked, open or
//! mapped when it has closed the board.
//!
//! Each call of a program fails at its position: once, or from then on for all calls of its kind,
//! or from then on for all calls. With `KANBAN_FAULTS=all` that is done at every position, else at
//! a sample.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};
use vfs_tests::base::{Base, Call, Fault, Method};
use vfs_tests::sidecar::holder;
use vfs_tests::{Board, PATIENCE};

use crate::faults::{Healthy, ensure, left_open, sampled, tries_all};
use crate::over_faulty;

/// What a program does: one transaction after the other.
type Workload = &'static [&'static [&'static str]];

/// Stands for closing the board and opening it again.
const REOPEN: &str = "";

const IN_ROLLBACK_MODES: Workload = &[
    &["PRAGMA synchronous=full"],
    &["PRAGMA journal_mode=delete"],
    &["CREATE TABLE IF NOT EXISTS t (x)"],
    &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"],
    &["BEGIN", "SELECT count(*) FROM t", "INSERT INTO t VALUES (2)", "COMMIT"],
    &["INSERT INTO t VALUES (zeroblob(9000))"],
    &["PRAGMA journal_mode=truncate"],
    &["INSERT INTO t VALUES (3)"],
    &["PRAGMA journal_mode=persist"],
    &["INSERT INTO t VALUES (4)"],
    &["DELETE FROM t WHERE typeof(x) = 'blob'"],
    &["VACUUM"],
    &[REOPEN],
    &["INSERT INTO t VALUES (5)"],
];

const IN_WAL_MODE: Workload = &[
    &["PRAGMA synchronous=full"],
    &["PRAGMA journal_mode=wal"],
    &["CREATE TABLE IF NOT EXISTS t (x)"],
    &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"],
    &["BEGIN", "SELECT count(*) FROM t", "INSERT INTO t VALUES (2)", "COMMIT"],
    &["INSERT INTO t VALUES (zeroblob(9000))"],
    &["PRAGMA wal_checkpoint(PASSIVE)"],
    &["INSERT INTO t VALUES (3)"],
    &["DELETE FROM t WHERE typeof(x) = 'blob'"],
    &["VACUUM"],
    &["PRAGMA wal_checkpoint(TRUNCATE)"],
    &["INSERT INTO t VALUES (4)"],
    &[REOPEN],
    &["PRAGMA mmap_size=100000"],
    &["INSERT INTO t VALUES (5)"],
    &["PRAGMA journal_mode=delete"],
    &["INSERT INTO t VALUES (6)"],
    &["PRAGMA journal_mode=wal"],
    &["INSERT INTO t VALUES (7)"],
];

/// How a call may fail.
fn faults_of(call: &Call<'_>) -> Vec<Fault> {
    let errors: &[i32] = match call.method {
        Method::Open { .. } => &[ffi::SQLITE_CANTOPEN, ffi::SQLITE_IOERR, ffi::SQLITE_NOMEM],
        Method::Delete { .. } => &[ffi::SQLITE_IOERR_DELETE],
        Method::Access { .. } => &[ffi::SQLITE_IOERR_ACCESS],
        Method::FullPathname => &[ffi::SQLITE_CANTOPEN, ffi::SQLITE_NOMEM],
        Method::Read { .. } => &[ffi::SQLITE_IOERR_READ],
        Method::Write { .. } => &[ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE],
        Method::Truncate { .. } => &[ffi::SQLITE_IOERR_TRUNCATE],
        Method::Sync { .. } => &[ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_FULL],
        Method::FileSize => &[ffi::SQLITE_IOERR_FSTAT],
        Method::Lock { .. } => &[ffi::SQLITE_IOERR_LOCK, ffi::SQLITE_BUSY],
        Method::Unlock { .. } => &[ffi::SQLITE_IOERR_UNLOCK],
        Method::CheckReservedLock => &[ffi::SQLITE_IOERR_CHECKRESERVEDLOCK],
        Method::FileControl { .. } => &[ffi::SQLITE_IOERR, ffi::SQLITE_NOTFOUND],
        Method::ShmMap { .. } => {
            &[ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_NOMEM]
        }
        Method::ShmLock { flags, .. } if flags & ffi::SQLITE_SHM_LOCK != 0 => {
            &[ffi::SQLITE_IOERR_SHMLOCK, ffi::SQLITE_BUSY]
        }
        Method::ShmLock { .. } => &[ffi::SQLITE_IOERR_SHMLOCK],
        Method::ShmUnmap { .. } => &[ffi::SQLITE_IOERR],
        Method::Fetch { .. } => &[ffi::SQLITE_NOMEM],
        Method::Unfetch { .. } => &[ffi::SQLITE_IOERR_MMAP],
        Method::Close => &[ffi::SQLITE_IOERR_CLOSE],
        Method::Sleep { .. } => &[],
    };
    let mut faults: Vec<_> = errors.iter().map(|error| Fault::Fail(*error)).collect();
    match call.method {
        Method::Read { .. } => faults.push(Fault::Half(ffi::SQLITE_IOERR_SHORT_READ)),
        Method::Write { .. } => faults.push(Fault::Half(ffi::SQLITE_FULL)),
        Method::Delete { .. } => faults.push(Fault::FailAfter(ffi::SQLITE_IOERR_DIR_FSYNC)),
        Method::Sync { .. } => faults.push(Fault::FailAfter(ffi::SQLITE_IOERR_FSYNC)),
        _ => {}
    }
    faults
}

/// The most faults that a call can have.
const VARIANTS: usize = 3;

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    Once,
    /// All calls of that method on that file.
    OfItsKind,
    Wholly,
}

/// The kind of calls that fail together from then on, such as "Write of Main".
fn kind(call: &Call<'_>) -> String {
    let method = match call.method {
        Method::Write { .. } => "Write".to_owned(),
        method => format!("{method:?}"),
    };
    format!("{} of {:?}", method.split(' ').next().unwrap_or_default(), call.file)
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
struct Plan {
    at: usize,
    variant: usize,
    lasting: Lasting,
}

/// What happened to a plan.
#[derive(Default)]
struct Course {
    /// How many calls so far could have failed.
    seen: usize,
    /// The kind of the first call that failed, and its fault.
    first: Option<(String, Fault)>,
    failed: usize,
}

impl Course {
    fn decide(&mut self, plan: Plan, call: &Call<'_>) -> Fault {
        if matches!(call.method, Method::Sleep { .. }) {
            // While a slot that readers need cannot be locked, SQLite would try for ten seconds.
            return Fault::Pretend;
        }
        let faults = faults_of(call);
        let nth = self.seen;
        self.seen += 1;
        let fault = match &self.first {
            None if nth == plan.at => {
                let Some(fault) = faults.get(plan.variant) else { return Fault::None };
                self.first = Some((kind(call), *fault));
                *fault
            }
            Some((_, fault)) if plan.lasting == Lasting::Wholly => {
                // The call gets the same fault if it can have that, else the likeliest one.
                if faults.contains(fault) { *fault } else { faults[0] }
            }
            Some((first, fault)) if plan.lasting == Lasting::OfItsKind && *first == kind(call) => {
                // Locking and unlocking are of one kind.
                if faults.contains(fault) { *fault } else { faults[0] }
            }
            _ => Fault::None,
        };
        self.failed += usize::from(fault != Fault::None);
        fault
    }
}

fn is_clean(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseBusy
                | ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
        )
    ) || error.to_string().contains("no such table")
}

/// A program that runs a workload on a board.
struct Program {
    uri: String,
    connection: Option<Connection>,
    acknowledged: BTreeSet<i64>,
}

impl Program {
    /// Runs the workload. A transaction that fails is tried once more; if it fails again, the
    /// workload ends.
    fn work(&mut self, workload: Workload) -> Result<(), String> {
        for transaction in workload {
            if self.transact(transaction)?.is_err() && self.transact(transaction)?.is_err() {
                break;
            }
        }
        self.connection = None;
        Ok(())
    }

    /// An error says what is wrong. Otherwise the result says whether the transaction succeeded.
    fn transact(&mut self, transaction: &[&str]) -> Result<Result<(), ()>, String> {
        let mut rows = Vec::new();
        for sql in transaction {
            if *sql == REOPEN {
                self.connection = None;
            }
            if let Err(error) = self.execute(sql) {
                ensure!(is_clean(&error), "{sql}: {error}");
                if let Some(connection) = &self.connection {
                    for _ in 0..2 {
                        if !connection.is_autocommit() {
                            let _ = connection.execute_batch("ROLLBACK");
                        }
                    }
                    ensure!(connection.is_autocommit(), "a transaction that never ends");
                }
                return Ok(Err(()));
            }
            let row = sql.strip_prefix("INSERT INTO t VALUES (");
            rows.extend(row.and_then(|row| row.strip_suffix(')')?.parse::<i64>().ok()));
        }
        self.acknowledged.extend(rows);
        Ok(Ok(()))
    }

    fn execute(&mut self, sql: &str) -> rusqlite::Result<()> {
        let connection = match &self.connection {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(&self.uri)?;
                // Another client has a lock for a moment at most.
                connection.busy_timeout(Duration::from_millis(20))?;
                self.connection.insert(connection)
            }
        };
        connection.execute_batch(sql)
    }
}

/// Runs a workload while calls fail as planned. Returns what happened to the plan and, if something
/// is wrong, what.
fn attempt(
    base: Base,
    vfs: &str,
    workload: Workload,
    plan: Plan,
    healthy: &mut Healthy,
) -> (Course, Result<(), String>) {
    let board = Board::new();
    let course = Arc::<Mutex<Course>>::default();
    let decides = Arc::clone(&course);
    base.on(move |call| decides.lock().unwrap().decide(plan, call));
    let (uri, acknowledged) = (board.uri(vfs), BTreeSet::new());
    let mut program = Program { uri, connection: None, acknowledged };
    let worked = program.work(workload);
    program.connection = None;
    base.off();
    let check = || {
        worked?;
        ensure!(base.locks().is_empty(), "left locked: {:?}", base.locks());
        let left = left_open(std::process::id(), &board.directory());
        ensure!(left.is_empty(), "left open: {left:?}");
        let who = holder(&board.sidecar());
        ensure!(who.is_none(), "{who:?} has the write lock");
        let write = program.execute("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (100)");
        ensure!(write.is_ok(), "then itself: {write:?}");
        program.connection = None;
        healthy.find_whole(&board, &program.acknowledged)
    };
    let checked = check();
    (std::mem::take(&mut *course.lock().unwrap()), checked)
}

/// What went wrong, by the kind of call that failed, the fault, and how long it lasted.
type Wrong = BTreeMap<String, String>;

/// Fails the calls of a workload on a VFS over `base`. Returns how many plans had a fault, and what
/// went wrong.
fn fail_each(base: Base, vfs: String, workload: Workload) -> (usize, Wrong) {
    let (sender, receiver) = channel();
    let name = vfs.clone();
    std::thread::spawn(move || {
        let mut healthy = Healthy::start();
        let nothing = Plan { at: usize::MAX, variant: 0, lasting: Lasting::Once };
        let (unharmed, worked) = attempt(base, &vfs, workload, nothing, &mut healthy);
        worked.unwrap();
        let (mut faults, mut wrong) = (0, Wrong::new());
        for at in sampled(unharmed.seen, EVERY) {
            for lasting in [Lasting::Once, Lasting::OfItsKind, Lasting::Wholly] {
                for variant in 0..VARIANTS {
                    let plan = Plan { at, variant, lasting };
                    let (course, result) = attempt(base, &vfs, workload, plan, &mut healthy);
                    let Some((kind, fault)) = course.first else { break };
                    faults += 1;
                    if let Err(why) = result {
                        wrong.insert(
                            format!("{kind}, {fault:?}, {lasting:?}"),
                            format!("call {at}: {why}"),
                        );
                        healthy = Healthy::start();
                    }
                }
            }
        }
        sender.send((unharmed.seen, faults, wrong))
    });
    let (calls, faults, wrong) = receiver.recv_timeout(5 * PATIENCE).expect("it fails, or hangs");
    println!("{name}: {calls} calls, {faults} faults, {} wrong", wrong.len());
    (faults, wrong)
}

/// One of so many positions is tried.
const EVERY: usize = 12;

/// A short read says that the file ends there, and nobody can know that this is false.
fn is_lie(kind: &str) -> bool {
    kind.starts_with("Read of") && kind.contains("Half")
}

/// Checks that things go wrong only after such false reads and, if all positions are tried, only
/// where they also go wrong on the stock VFS.
fn check(name: &str, workload: Workload) {
    let (base, ours) = over_faulty(name);
    let (faults, wrong) = fail_each(base, ours, workload);
    assert!(faults >= 100, "only {faults}");
    assert!(wrong.keys().all(|kind| is_lie(kind)), "{wrong:#?}");
    if tries_all() {
        let (_, stock) = fail_each(base, name.to_owned(), workload);
        assert!(!stock.is_empty() && stock.keys().all(|kind| is_lie(kind)), "{stock:#?}");
        let worse: Vec<_> = wrong.iter().filter(|(kind, _)| !stock.contains_key(*kind)).collect();
        assert!(worse.is_empty(), "{worse:#?}, but of the stock VFS {stock:#?}");
    }
}

/// A program uses a board in rollback modes.
#[test]
fn in_rollback_modes() {
    check("faulty-storage", IN_ROLLBACK_MODES);
}

/// A program uses a board in WAL mode, and switches it into that mode and out of it.
#[test]
fn in_wal_mode() {
    check("faulty-wal", IN_WAL_MODE);
}

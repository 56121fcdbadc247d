//! Any system call of a client fails. Its transaction then succeeds or gets an error of SQLite's.
//! No client hangs, no second writer gets in, and no acknowledged row is lost. When the client has
//! closed the board, nothing of it is left open, mapped or locked.
//!
//! The calls that fail are those on a file of the board or of /proc, those on a shared futex, and
//! sleeps. ptrace(2) makes each of them fail at its position in a client's work. It fails once
//! (EINTR three times in a row), or from then on for all calls of its kind, or from then on for all
//! calls. Calls that get memory for an allocator do not fail: those are the client's. On x86-64
//! only.
//!
//! With `KANBAN_FAULTS=all` that is done at every position, else at a sample of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::ffi;
use serde_json::{Value, json};
use vfs_tests::sidecar::holder;
use vfs_tests::trace::{Call, Fault, Traced};
use vfs_tests::{Agent, Board, PATIENCE, Program, Reply};

use crate::faults::{Healthy, ensure, left_open, sampled};
use crate::{agent, beside, stock_agent, went_well};

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    /// One call; three calls for EINTR.
    Once,
    /// From then on, for all calls of that number (and, for fcntl, of that command).
    OfItsKind,
    /// From then on, for all calls.
    Wholly,
}

/// What a client does while its calls fail.
#[derive(Clone, Copy)]
struct Scene {
    name: &'static str,
    /// The board's journal mode; `None` for a new board.
    mode: Option<&'static str>,
    /// Whether the WAL must be recovered.
    is_crashed: bool,
    /// The SQL that the client has run on the board before; `None` if it has not opened the board.
    before: Option<&'static str>,
    steps: &'static [&'static str],
    /// Whether another client has the write lock when this one begins, or waits for it when this
    /// one ends.
    other: Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Idle,
    Holds,
    Waits,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t (x)";
const BEGIN: &str = "BEGIN IMMEDIATE";
const INSERT: &str = "INSERT INTO t VALUES (1)";
const WRITE: &[&str] = &[BEGIN, INSERT, "COMMIT"];
const READ: &str = "PRAGMA synchronous=full; SELECT count(*) FROM t";

/// A client writes to a board in WAL mode that it has open.
const WRITES: Scene = Scene {
    name: "write",
    mode: Some("wal"),
    is_crashed: false,
    before: Some(READ),
    steps: WRITE,
    other: Other::Idle,
};

const FIRST: &[&str] = &["PRAGMA journal_mode=wal", TABLE, BEGIN, INSERT, "COMMIT"];
const HANDS_OVER: Scene = Scene {
    name: "hand over",
    before: Some("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)"),
    steps: &["COMMIT"],
    other: Other::Waits,
    ..WRITES
};

const SCENES: [Scene; 11] = [
    Scene { name: "first connect", mode: None, before: None, steps: FIRST, ..WRITES },
    Scene { name: "open", before: None, ..WRITES },
    Scene { name: "open, in delete mode", mode: Some("delete"), before: None, ..WRITES },
    Scene { name: "recovery", is_crashed: true, before: None, ..WRITES },
    WRITES,
    Scene { name: "write, in delete mode", mode: Some("delete"), ..WRITES },
    Scene { name: "wait", other: Other::Holds, ..WRITES },
    HANDS_OVER,
    Scene { name: "hand over, in delete mode", mode: Some("delete"), ..HANDS_OVER },
    Scene {
        name: "checkpoint",
        before: Some("INSERT INTO t VALUES (0)"),
        steps: &["PRAGMA wal_checkpoint(PASSIVE)", INSERT, "PRAGMA wal_checkpoint(TRUNCATE)"],
        ..WRITES
    },
    Scene {
        name: "change of journal mode",
        steps: &["PRAGMA journal_mode=delete", INSERT, "PRAGMA journal_mode=wal"],
        ..WRITES
    },
];

/// What a call works on: a file of the board, or of /proc; empty if it works on no file; `None` if
/// the VFS has nothing to do with it.
fn object(call: &Call, board: &Path) -> Option<String> {
    let path = match call.number {
        libc::SYS_open
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_access
        | libc::SYS_readlink
        | libc::SYS_unlink
        | libc::SYS_statfs => call.name(0),
        libc::SYS_openat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_readlinkat
        | libc::SYS_unlinkat => {
            call.name(1).filter(|name| !name.as_os_str().is_empty()).or_else(|| call.file(0))
        }
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_pread64
        | libc::SYS_pwrite64
        | libc::SYS_fstat
        | libc::SYS_fcntl
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_fchown
        | libc::SYS_fchmod
        | libc::SYS_getdents64
        | libc::SYS_lseek
        | libc::SYS_close
        | libc::SYS_dup3 => call.file(0),
        libc::SYS_mmap if call.args[4] as i32 >= 0 => call.file(4),
        libc::SYS_madvise => call.mapped(0),
        libc::SYS_futex if call.args[1] as i32 & libc::FUTEX_PRIVATE_FLAG == 0 => {
            return Some("the queue page".to_owned());
        }
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => return Some(String::new()),
        _ => None,
    }?;
    let is_ours = path.starts_with(board) || path.starts_with("/proc");
    is_ours.then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// How a call may fail, the likeliest first. (munmap(2) of a whole mapping cannot fail.)
fn faults_of(call: &Call) -> Vec<Fault> {
    let errnos: &[i32] = match call.number {
        libc::SYS_open | libc::SYS_openat => {
            let flags = call.args[if call.number == libc::SYS_open { 1 } else { 2 }];
            match flags as i32 & libc::O_CREAT {
                0 => &[libc::EMFILE, libc::EACCES, libc::EIO, libc::ENOMEM, libc::EINTR],
                _ => &[libc::ENOSPC, libc::EMFILE, libc::EACCES, libc::EIO, libc::EINTR],
            }
        }
        libc::SYS_read | libc::SYS_pread64 => &[libc::EIO, libc::EINTR],
        libc::SYS_write | libc::SYS_pwrite64 => &[libc::ENOSPC, libc::EIO, libc::EINTR],
        libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_statx => &[libc::EIO, libc::ENOMEM, libc::EACCES],
        libc::SYS_statfs => &[libc::EIO, libc::ENOMEM],
        libc::SYS_fcntl => match call.args[1] as i32 {
            libc::F_OFD_SETLK | libc::F_SETLK => &[libc::ENOLCK, libc::EIO, libc::EINTR],
            libc::F_OFD_GETLK | libc::F_GETLK => &[libc::ENOLCK, libc::EIO, libc::EINTR],
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => &[libc::EMFILE],
            // These cannot fail.
            _ => &[],
        },
        libc::SYS_ftruncate | libc::SYS_fallocate => &[libc::ENOSPC, libc::EIO, libc::EINTR],
        libc::SYS_fsync | libc::SYS_fdatasync => &[libc::EIO, libc::ENOSPC],
        libc::SYS_unlink | libc::SYS_unlinkat => &[libc::EIO, libc::EACCES],
        libc::SYS_fchown | libc::SYS_fchmod => &[libc::EPERM, libc::EIO],
        libc::SYS_mmap => &[libc::ENOMEM, libc::EACCES],
        libc::SYS_madvise => &[libc::ENOMEM, libc::EAGAIN],
        libc::SYS_futex => &[libc::EFAULT, libc::EINTR, libc::ENOSYS],
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => &[libc::EINTR],
        libc::SYS_access | libc::SYS_faccessat | libc::SYS_faccessat2 => &[libc::EIO, libc::EACCES],
        libc::SYS_readlink | libc::SYS_readlinkat => &[libc::EIO, libc::EACCES],
        libc::SYS_getdents64 | libc::SYS_lseek => &[libc::EIO],
        libc::SYS_dup3 => &[libc::EMFILE],
        // The descriptor is closed nevertheless, close(2).
        libc::SYS_close => return [libc::EIO, libc::EINTR].map(Fault::FailAfter).into(),
        _ => &[],
    };
    let mut faults: Vec<_> = errnos.iter().map(|errno| Fault::Fail(*errno)).collect();
    let moves_bytes = [libc::SYS_read, libc::SYS_write, libc::SYS_pread64, libc::SYS_pwrite64];
    if moves_bytes.contains(&call.number) {
        faults.push(Fault::Shorten);
    }
    faults
}

/// The calls that ask which file it is.
const LOOKS: [i64; 5] =
    [libc::SYS_stat, libc::SYS_lstat, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx];

/// Calls that fail together from then on: those of the same number and, for fcntl, command.
fn kind(call: &Call) -> (i64, u64) {
    (call.number, if call.number == libc::SYS_fcntl { call.args[1] } else { 0 })
}

/// Which calls of a client fail, and how.
struct Plan {
    at: usize,
    variant: usize,
    lasting: Lasting,
    /// How many calls so far could have failed.
    seen: usize,
    /// The first call that failed: its kind, and its fault.
    first: Option<((i64, u64), Fault)>,
    failed: usize,
    story: Vec<String>,
    /// Whether the first call that failed was on the sidecar.
    is_sidecars: bool,
    is_over: bool,
    /// Which of the calls that could have failed ask which file it is.
    looks: Vec<usize>,
}

impl Plan {
    fn new(at: usize, variant: usize, lasting: Lasting) -> Self {
        Self {
            at,
            variant,
            lasting,
            seen: 0,
            first: None,
            failed: 0,
            story: Vec::new(),
            is_sidecars: false,
            is_over: false,
            looks: Vec::new(),
        }
    }

    fn decide(&mut self, call: &Call, board: &Path) -> Fault {
        if self.is_over {
            return Fault::None;
        }
        let sleeps = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&call.number);
        if sleeps && self.first.is_some() && self.lasting != Lasting::Once {
            // While a slot that readers need cannot be locked, SQLite tries for ten seconds. So
            // this skips the sleep, and reports that it has slept.
            return Fault::Fail(0);
        }
        let Some(object) = object(call, board) else { return Fault::None };
        let faults = faults_of(call);
        let Some(likeliest) = faults.first() else { return Fault::None };
        let nth = self.seen;
        self.seen += 1;
        if LOOKS.contains(&call.number) {
            self.looks.push(nth);
        }
        let fault = match self.first {
            None if nth == self.at => {
                let Some(fault) = faults.get(self.variant) else { return Fault::None };
                let interrupts = [Fault::Fail(libc::EINTR), Fault::FailAfter(libc::EINTR)];
                if self.lasting != Lasting::Once && interrupts.contains(fault) {
                    // No call is interrupted for ever.
                    return Fault::None;
                }
                self.first = Some((kind(call), *fault));
                self.is_sidecars = object.ends_with("-lock");
                *fault
            }
            None => Fault::None,
            Some((first, fault)) => match self.lasting {
                Lasting::Once if fault == Fault::Fail(libc::EINTR) => {
                    if first == kind(call) && self.failed < 3 { fault } else { Fault::None }
                }
                Lasting::Once => Fault::None,
                Lasting::OfItsKind if first == kind(call) => fault,
                Lasting::OfItsKind => Fault::None,
                // No call is interrupted for ever.
                Lasting::Wholly if *likeliest == Fault::Fail(libc::EINTR) => Fault::None,
                Lasting::Wholly => *likeliest,
            },
        };
        if fault != Fault::None {
            self.failed += 1;
            if self.failed <= 3 {
                self.story
                    .push(format!("{} {:#x} ({object}): {fault:?}", call.number, call.args[1]));
            }
        }
        fault
    }

    /// Whether the first call that failed was one of these.
    fn has_first_failed(&self, calls: &[i64]) -> bool {
        self.first.is_some_and(|((number, _), _)| calls.contains(&number))
    }

    /// Whether there was a call that could fail in that way.
    fn has_failed(&self) -> bool {
        self.failed > 0
    }
}

/// The client whose calls fail.
struct Victim {
    traced: Traced,
    program: Program,
}

impl Victim {
    fn start(program: Program) -> Self {
        let elsewhere = Board::new();
        let mut client = agent(program);
        // Then it has made the calls that a client makes only once.
        client.open("w", &elsewhere.kanban(), 60_000);
        client.sql("w", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
        client.close("w");
        Self { traced: Traced::new(client), program }
    }

    fn call(&mut self, command: &Value) -> Result<Reply, String> {
        self.traced.call(command, |_| Fault::None).ok_or_else(|| "it hangs".to_owned())
    }

    fn sql(&mut self, sql: &str) -> Result<Reply, String> {
        self.call(&json!(["sql", "v", sql]))
    }

    fn well(&mut self, sql: &str) -> Result<(), String> {
        match self.sql(sql)? {
            Reply::Rows(_) => Ok(()),
            Reply::Error { code, message } => Err(format!("{sql}: {code} {message}")),
        }
    }

    fn open(&mut self, board: &Board) -> Result<(), String> {
        let reply = self.call(&json!(["open", "v", board.kanban(), TIMEOUT_MS]))?;
        if went_well(&reply) { Ok(()) } else { Err(format!("open: {reply:?}")) }
    }

    fn log(&mut self) -> Result<Vec<String>, String> {
        if self.program == Program::Python {
            return Ok(Vec::new());
        }
        let rows = self.call(&json!(["log"]))?.rows();
        Ok(rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect())
    }
}

/// The victim's busy timeout.
const TIMEOUT_MS: u32 = 200;

/// Whether SQLite may answer this code to an error of the system.
fn is_clean(code: i64, plan: &Plan) -> bool {
    let is_first = |calls: &[i64]| plan.lasting == Lasting::Wholly || plan.has_first_failed(calls);
    match (code & 0xff) as i32 {
        ffi::SQLITE_BUSY
        | ffi::SQLITE_IOERR
        | ffi::SQLITE_CANTOPEN
        | ffi::SQLITE_FULL
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_PROTOCOL => true,
        // This is how a pragma reports that WAL mode is refused, if the file system is not known.
        ffi::SQLITE_ERROR => plan.has_first_failed(&[libc::SYS_statfs]),
        // A file that cannot be opened for writing is opened for reading.
        ffi::SQLITE_READONLY if is_first(&[libc::SYS_open, libc::SYS_openat]) => true,
        // A file that cannot be found is taken to have moved.
        ffi::SQLITE_READONLY => is_first(&[libc::SYS_stat, libc::SYS_newfstatat]),
        // This is how SQLite reports EIO: SQLITE_IOERR_CORRUPTFS.
        ffi::SQLITE_CORRUPT => is_first(&[libc::SYS_pread64]),
        _ => false,
    }
}

impl Scene {
    /// A board as the scene needs it at its beginning.
    fn prepare(&self, healthy: &mut Healthy) -> Board {
        let board = Board::new();
        let Some(mode) = self.mode else { return board };
        let set_up = format!(
            "PRAGMA synchronous=off; PRAGMA journal_mode={mode}; {TABLE}; INSERT INTO t VALUES (0)"
        );
        healthy.ours.open("c", &board.kanban(), 5000);
        healthy.ours.sql("c", &set_up).rows();
        let crashed = Board::new();
        if self.is_crashed {
            std::fs::copy(board.path(), crashed.path()).unwrap();
            std::fs::copy(beside(&board, "-wal"), beside(&crashed, "-wal")).unwrap();
        }
        healthy.ours.close("c");
        if self.is_crashed { crashed } else { board }
    }

    /// Plays the scene. An error says what is wrong.
    fn play(
        &self,
        victim: &mut Victim,
        healthy: &mut Healthy,
        plan: &mut Plan,
    ) -> Result<(), String> {
        let board = self.prepare(healthy);
        let directory = board.directory();
        if let Some(before) = self.before {
            victim.open(&board)?;
            victim.well(before)?;
        }
        match self.other {
            Other::Idle => {}
            Other::Holds => {
                healthy.ours.open("h", &board.kanban(), 5000);
                healthy.ours.sql("h", BEGIN).rows();
            }
            Other::Waits => {
                healthy.ours.open("h", &board.kanban(), 60_000);
                healthy.ours.send_sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2); COMMIT");
                let page = || std::fs::read(board.sidecar()).unwrap();
                let began = Instant::now();
                while !is_waited(&page()) {
                    ensure!(began.elapsed() < PATIENCE, "the other does not wait");
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
        victim.log()?;

        // Calls fail from here on.
        let mut acknowledged = BTreeSet::new();
        let mut error = None;
        let mut calls = 0;
        let is_held = std::cell::Cell::new(self.other == Other::Holds);
        let mut under =
            |victim: &mut Victim, healthy: &mut Healthy, plan: &mut Plan, command: &Value| {
                let reply = victim.traced.call(command, |call| {
                    calls += 1;
                    if is_held.get() && calls == 40 {
                        is_held.set(false);
                        healthy.ours.send_sql("h", "COMMIT");
                    }
                    plan.decide(call, &directory)
                });
                reply.ok_or_else(|| "it hangs".to_owned())
            };
        let mut is_open = self.before.is_some();
        let mut is_read_only = false;
        if !is_open {
            let open = json!(["open", "v", board.kanban(), TIMEOUT_MS]);
            match under(victim, healthy, plan, &open)? {
                Reply::Rows(_) => is_open = true,
                Reply::Error { code, message } => error = Some((code, message)),
            }
        }
        for step in self.steps {
            if error.is_some() {
                break;
            }
            match under(victim, healthy, plan, &json!(["sql", "v", step]))? {
                Reply::Error { code, message } => error = Some((code, message)),
                Reply::Rows(_) if *step == BEGIN => {
                    let who = holder(&board.sidecar());
                    let opens = [libc::SYS_open, libc::SYS_openat];
                    if who.is_none() && plan.has_first_failed(&opens) && !plan.is_sidecars {
                        // The database could not be opened for writing, so it was opened for
                        // reading. There BEGIN IMMEDIATE begins a read transaction.
                        is_read_only = true;
                        continue;
                    }
                    // Without a sidecar, it goes on with SQLite's own locks.
                    let does_without = who.is_none() && plan.has_failed();
                    ensure!(
                        who == Some(victim.traced.pid()) || does_without,
                        "it writes, and {who:?} has the write lock"
                    );
                    assert_excluded(healthy, &board, self.other == Other::Holds)?;
                    if plan.lasting == Lasting::Once && plan.has_failed() {
                        // An application that looks at its own database drops no lock. Otherwise
                        // the status says so.
                        let status = victim.sql("PRAGMA kanban_status")?.rows();
                        let status = status[0][0].as_str().unwrap_or_default().to_owned();
                        let files = [board.path(), beside(&board, "-shm")];
                        for file in files.iter().filter(|file| file.exists()) {
                            victim.call(&json!(["read", file]))?;
                        }
                        if status.contains("\"lock_cancellation\":{\"active\":true") {
                            assert_excluded(healthy, &board, self.other == Other::Holds)?;
                        }
                    }
                }
                Reply::Rows(_) => {}
            }
        }
        if error.is_none() {
            if is_read_only {
                // It could write nevertheless: the sidecar could not be opened, like all files
                // since then.
                let status = victim.sql("PRAGMA kanban_status")?.rows();
                let status = status[0][0].as_str().unwrap_or_default().to_owned();
                let says_so = status.contains("\"write_lock\":{\"active\":false");
                ensure!(says_so, "it writes without the write lock: {status}");
            }
            acknowledged.insert(1);
        }
        if is_held.take() {
            healthy.ours.send_sql("h", "COMMIT");
        }
        if self.other == Other::Holds {
            let ended = healthy.ours.reply_within(PATIENCE);
            ensure!(ended.as_ref().is_some_and(went_well), "the holder cannot commit: {ended:?}");
            healthy.ours.close("h");
        }
        if let Some((code, message)) = &error {
            ensure!(is_clean(*code, plan), "error {code}: {message}");
            let log = victim.log()?;
            if plan.is_sidecars && plan.lasting == Lasting::Once && victim.program == Program::Rust
            {
                let ours = log.iter().filter(|line| line.contains("sidecar")).count();
                ensure!(ours == 1, "error {code} {message}, and the log says {log:?}");
            }
            if is_open {
                let _ = under(victim, healthy, plan, &json!(["sql", "v", "ROLLBACK"]))?;
            }
        }
        if plan.lasting == Lasting::Once {
            plan.is_over = plan.has_failed() && plan.failed >= 3
                || plan.first.is_some_and(|(_, fault)| fault != Fault::Fail(libc::EINTR));
        }

        // There was one error, and the client goes on.
        let mut other_waits = self.other == Other::Waits;
        if plan.is_over {
            if other_waits {
                other_waits = false;
                let went = healthy.ours.reply_within(PATIENCE);
                ensure!(went.as_ref().is_some_and(went_well), "who waited: {went:?}");
            }
            if let Some((code, _)) = error {
                // If the file system is not known, WAL mode is refused until the board is opened
                // again.
                let is_spoilt = (code & 0xff) as i32 == ffi::SQLITE_READONLY
                    || plan.has_first_failed(&[libc::SYS_statfs]);
                if is_open && is_spoilt {
                    victim.call(&json!(["close", "v"]))?;
                    is_open = false;
                }
                if !is_open {
                    victim.open(&board)?;
                    is_open = true;
                }
                for step in [TABLE, BEGIN, "INSERT INTO t VALUES (3)", "COMMIT"] {
                    victim.well(step).map_err(|why| format!("after {error:?}, again: {why}"))?;
                }
                acknowledged.insert(3);
            }
        }
        if is_open {
            let closed = under(victim, healthy, plan, &json!(["close", "v"]))?;
            ensure!(went_well(&closed), "close: {closed:?}");
        }
        plan.is_over = true;

        // Checks that nothing of the board is left.
        let left = left_open(victim.traced.pid(), &directory);
        ensure!(left.is_empty(), "left open: {left:?}");
        if other_waits {
            let went = healthy.ours.reply_within(PATIENCE);
            ensure!(went.as_ref().is_some_and(went_well), "who waited: {went:?}");
        }
        if self.other == Other::Waits {
            acknowledged.insert(2);
            healthy.ours.close("h");
        }
        let who = holder(&board.sidecar());
        ensure!(who.is_none(), "{who:?} has the write lock");
        healthy.find_whole(&board, &acknowledged)?;

        // Checks that the client can open the board again.
        victim.open(&board)?;
        victim.well(BEGIN)?;
        assert_excluded(healthy, &board, false)?;
        victim.well("INSERT INTO t VALUES (4); COMMIT")?;
        let status = victim.sql("PRAGMA kanban_status")?.rows();
        // Fields from `group_commit` on were not asked for.
        let guarantees = status[0][0].to_string();
        let guarantees = guarantees.split("group_commit").next().unwrap_or_default();
        ensure!(!guarantees.contains("false,\\\"why"), "it is not what it was: {status:?}");
        victim.call(&json!(["close", "v"]))?;
        victim.log()?;
        Ok(())
    }
}

/// Whether any client waits, from a sidecar's bytes. `docs/locking-protocol.md`
fn is_waited(page: &[u8]) -> bool {
    page[64..].chunks(32).any(|slot| slot[4..8] != [0; 4])
}

/// Checks that while one client writes, nobody else can.
fn assert_excluded(healthy: &mut Healthy, board: &Board, has_held: bool) -> Result<(), String> {
    // The holder's connection may still be in its COMMIT.
    let others = [(&mut healthy.ours, board.kanban()), (&mut healthy.stock, board.stock())];
    for (other, uri) in others.into_iter().skip(usize::from(has_held)) {
        other.open("c", &uri, 0);
        let reply = other.sql("c", BEGIN);
        let is_busy = matches!(reply, Reply::Error { code, .. } if code & 0xff == 5);
        other.close("c");
        ensure!(is_busy, "a second writer on {uri}: {reply:?}");
    }
    Ok(())
}

/// Plays a scene with each of its calls failing. Returns how many faults there were.
fn fail_each(program: Program, scene: &Scene) -> usize {
    let mut healthy = Healthy::start();
    let mut victim = Victim::start(program);
    let mut unharmed = Plan::new(usize::MAX, 0, Lasting::Once);
    scene.play(&mut victim, &mut healthy, &mut unharmed).unwrap();
    let mut faults = 0;
    let mut wrong: BTreeMap<String, String> = BTreeMap::new();
    // With its first calls an open finds out which file it is, and its locks depend on that.
    let first = if scene.name == "open, in delete mode" { 16 } else { 0 };
    let rest = sampled(unharmed.seen, 20).filter(|at| *at >= first);
    let all = [Lasting::Once, Lasting::OfItsKind, Lasting::Wholly];
    // In WAL mode, SQLite's wal-index does so, too.
    let looks = unharmed.looks.iter().filter(|_| scene.name == "open");
    let looks = looks.map(|at| (*at, &all[..1]));
    for (at, lastings) in (0..first).chain(rest).map(|at| (at, &all[..])).chain(looks) {
        for lasting in lastings.iter().copied() {
            for variant in 0..if lasting == Lasting::Wholly { 1 } else { 6 } {
                let mut plan = Plan::new(at, variant, lasting);
                let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    scene.play(&mut victim, &mut healthy, &mut plan)
                }));
                let played = played.unwrap_or_else(|_| Err("a panic".to_owned()));
                if !plan.has_failed() {
                    continue;
                }
                faults += 1;
                if let Err(why) = played {
                    wrong.insert(
                        format!(
                            "{program:?}, {}, call {at}, {lasting:?}, {:?}",
                            scene.name, plan.story
                        ),
                        why,
                    );
                    healthy = Healthy::start();
                    victim = Victim::start(program);
                }
            }
        }
    }
    println!("{program:?}, {}: {} calls, {faults} faults", scene.name, unharmed.seen);
    assert!(wrong.is_empty(), "{wrong:#?}");
    faults
}

/// Clients of both programs play these scenes. Checks that there are at least `least` faults.
fn play(names: &[&str], least: usize) {
    let scenes: Vec<_> = SCENES.iter().filter(|scene| names.contains(&scene.name)).collect();
    assert_eq!(scenes.len(), names.len());
    let clients =
        Program::ALL.iter().flat_map(|program| scenes.iter().map(move |scene| (*program, *scene)));
    let faults: usize = clients.map(|(program, scene)| fail_each(program, scene)).sum();
    println!("{names:?}: {faults} faults");
    assert!(faults >= least, "only {faults} faults");
}

/// A client creates a board, or opens one, or recovers its WAL, and writes.
#[test]
fn while_it_opens_a_board() {
    play(&["first connect", "open", "open, in delete mode", "recovery"], 100);
}

/// A client writes.
#[test]
fn while_it_writes() {
    play(&["write", "write, in delete mode"], 30);
}

/// A client waits for another that has the write lock, or has the lock while another waits.
#[test]
fn while_it_waits_or_hands_over() {
    play(&["wait", "hand over", "hand over, in delete mode"], 30);
}

/// A client copies the WAL, empties it, and takes the board out of WAL mode and back.
#[test]
fn while_it_checkpoints() {
    play(&["checkpoint", "change of journal mode"], 50);
}

/// A client commits in a rollback mode, and the call that releases SQLite's lock fails once, or
/// signals interrupt it three times. SQLite takes the lock for released, and does not try again. On
/// the stock VFS the client keeps the lock until it next uses the board, and no other client can
/// commit. Here the call is made once more, or until it is not interrupted.
#[test]
fn a_lock_that_was_not_released() {
    let faults = [(libc::ENOLCK, 1), (libc::EINTR, 3)];
    for (program, fault) in Program::ALL.iter().flat_map(|p| faults.map(|fault| (*p, fault))) {
        for (client, is_ours) in [(stock_agent(program), false), (agent(program), true)] {
            let other_writes = fails_to_unlock(client, fault, is_ours);
            match is_ours {
                true => assert!(went_well(&other_writes), "{program:?}: {other_writes:?}"),
                false => assert_eq!(other_writes.code(), i64::from(ffi::SQLITE_BUSY)),
            }
        }
    }
}

/// A client commits, and the call that releases its lock fails as often as given. Returns the
/// answer to another client.
fn fails_to_unlock(mut client: Agent, (errno, times): (i32, usize), is_ours: bool) -> Reply {
    let board = Board::new();
    let uri = if is_ours { board.kanban() } else { board.stock() };
    client.open("v", &uri, 5000);
    client.sql("v", "PRAGMA journal_mode=delete; CREATE TABLE t (x)").rows();
    let mut client = Traced::new(client);
    let mut failed = 0;
    let commit = client.call(&json!(["sql", "v", "INSERT INTO t VALUES (1)"]), |call| {
        let locks = [libc::F_SETLK, libc::F_OFD_SETLK].contains(&(call.args[1] as i32));
        let gives_all_back = call.number == libc::SYS_fcntl
            && locks
            && call.file(0).is_some_and(|file| file == board.path())
            && call.lock(2) == Some((libc::F_UNLCK, 0, 0));
        if !gives_all_back || failed == times {
            return Fault::None;
        }
        failed += 1;
        Fault::Fail(errno)
    });
    assert!(commit.as_ref().is_some_and(went_well), "{commit:?}");
    // SQLite tries once.
    assert_eq!(failed, if is_ours { times } else { 1 });
    let mut other = stock_agent(Program::Python);
    other.open("o", &board.stock(), 500);
    other.sql("o", "INSERT INTO t VALUES (2)")
}

/// A client looks at its board by a stock connection, then opens it through the VFS and writes. A
/// sandbox keeps it from reading /proc/self/fdinfo, where the kernel tells what it has locked. That
/// must not count as a lock. The kernel is asked in another way, and nobody gets in when the client
/// looks at its file. (On the stock VFS an outsider does.) What the stock connection has really
/// locked keeps its POSIX locks until it is unlocked.
#[test]
fn a_client_that_may_not_read_its_own_fdinfo_is_guarded() {
    for (program, reads) in Program::ALL.iter().flat_map(|p| [(*p, false), (*p, true)]) {
        let board = Board::new();
        let mut client = agent(program);
        client.open("old", &board.stock(), 0);
        client.sql("old", "PRAGMA journal_mode=delete; CREATE TABLE t (x); SELECT * FROM t").rows();
        if reads {
            client.sql("old", "BEGIN; SELECT * FROM t").rows();
        }
        let mut client = Traced::new(client);
        let mut failed = 0;
        let mut call = |command: &Value| {
            let reply = client.call(command, |call| {
                let name = match call.number {
                    libc::SYS_open => call.name(0),
                    libc::SYS_openat => call.name(1),
                    _ => None,
                };
                let is_fdinfo = |name: PathBuf| name.to_string_lossy().contains("/fdinfo");
                if !name.is_some_and(is_fdinfo) {
                    return Fault::None;
                }
                failed += 1;
                Fault::Fail(libc::EACCES)
            });
            reply.expect("it does not hang").rows()
        };
        call(&json!(["open", "c", board.kanban(), 0]));
        let status = |rows: Vec<Vec<Value>>| {
            let status: Value = serde_json::from_str(rows[0][0].as_str().unwrap()).unwrap();
            status["guarantees"]["lock_cancellation"]["active"].clone()
        };
        if reads {
            call(&json!(["sql", "c", "SELECT * FROM t"]));
            assert_eq!(status(call(&json!(["sql", "c", "PRAGMA kanban_status"]))), false);
            call(&json!(["sql", "old", "COMMIT"]));
        }
        call(&json!(["sql", "c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)"]));
        assert_eq!(status(call(&json!(["sql", "c", "PRAGMA kanban_status"]))), true, "{reads}");
        call(&json!(["read", board.path()]));
        let mut outsider = stock_agent(Program::Python);
        outsider.open("o", &board.stock(), 0);
        let reply = outsider.sql("o", BEGIN);
        assert_eq!(reply.code(), i64::from(ffi::SQLITE_BUSY), "{program:?}, {reads}");
        call(&json!(["sql", "c", "COMMIT"]));
        assert!(failed > 0, "the kernel was not asked in that way");
    }
}

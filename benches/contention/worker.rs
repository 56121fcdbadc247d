//! The workers: processes or threads that write, or read, for a while.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::histogram::Histogram;
use super::{Case, Outcome, Result, Way, slow};

/// How long a transaction waits before it counts as an error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// One worker's orders, as they are passed on its command line.
struct Orders {
    board: PathBuf,
    way: Way,
    synchronous: String,
    think: Duration,
    duration: Duration,
    reads: bool,
}

/// What one worker did.
#[derive(Default)]
struct Report {
    count: u64,
    errors: u64,
    waits: Histogram,
}

/// Runs one case in one way on a new board.
pub fn run(case: &Case, way: Way, duration: Duration, threads: bool) -> Result<Outcome> {
    register()?;
    let directory = tempfile::tempdir()?;
    let board = directory.path().join("board.db");
    let connection = Connection::open(uri(&board, way))?;
    connection.pragma_update(None, "journal_mode", &case.journal_mode)?;
    connection.execute_batch(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, task INTEGER, what TEXT);
         INSERT INTO events (task, what)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             SELECT i, 'created' FROM n",
    )?;
    drop(connection);
    File::create(flock_path(&board))?;

    let orders = |reads| Orders {
        board: board.clone(),
        way,
        synchronous: case.synchronous.clone(),
        think: if reads { Duration::ZERO } else { Duration::from_micros(case.think_us) },
        duration,
        reads,
    };
    let workers: Vec<Orders> =
        (0..case.writers + case.readers).map(|nth| orders(nth >= case.writers)).collect();
    let wal = board.with_extension("db-wal");
    let mut wal_bytes = 0;
    let ready = Barrier::new(workers.len() + 1);
    let reports = std::thread::scope(|scope| -> Result<Vec<Report>> {
        let running: Vec<_> = workers
            .iter()
            .map(|orders| {
                let ready = &ready;
                scope.spawn(move || {
                    let go = || {
                        ready.wait();
                    };
                    let report = if threads { work(orders, go) } else { in_a_process(orders, go) };
                    report.map_err(|error| error.to_string())
                })
            })
            .collect();
        // Nobody begins before all have opened the board, or the starved would run alone later.
        ready.wait();
        let began = Instant::now();
        if case.snapshot_ms > 0 {
            let keeper = Connection::open(uri(&board, way))?;
            scope.spawn(move || keep_snapshots(&keeper, case.snapshot_ms, began + duration));
        }
        while running.iter().any(|worker| !worker.is_finished()) {
            wal_bytes = wal_bytes.max(wal.metadata().map_or(0, |wal| wal.len()));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() >= duration);
        running
            .into_iter()
            .map(|worker| Ok(worker.join().map_err(|_| "a worker panicked")??))
            .collect()
    })?;

    let mut outcome = Outcome { seconds: duration.as_secs_f64(), wal_bytes, ..Outcome::default() };
    for (orders, report) in workers.iter().zip(&reports) {
        outcome.errors += report.errors;
        if orders.reads {
            outcome.reads += report.count;
            outcome.longest_read = outcome.longest_read.max(report.waits.longest());
        } else {
            outcome.counts.push(report.count);
            outcome.waits.add(&report.waits);
        }
    }
    // What was acknowledged is there, or the numbers mean nothing.
    let check = Connection::open(uri(&board, way))?;
    let rows: i64 = check.query_row("SELECT count(*) - 1000 FROM events", [], |row| row.get(0))?;
    assert_eq!(rows as u64, outcome.counts.iter().sum::<u64>(), "rows are missing");
    Ok(outcome)
}

/// Reads, in transactions that last so long.
fn keep_snapshots(reader: &Connection, ms: u64, end: Instant) {
    while Instant::now() < end {
        let snapshot = reader.unchecked_transaction().expect("the board is open");
        let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        snapshot.query_row("SELECT count(*) FROM events", [], read).expect("it can be read");
        let left = end.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(ms)));
    }
}

fn register() -> Result<()> {
    slow::register()?;
    Ok(kanban_vfs::register(&kanban_vfs::Options::default().with_base(slow::NAME))?)
}

fn uri(board: &Path, way: Way) -> String {
    let vfs = match way {
        Way::Stock | Way::Flock => slow::NAME,
        Way::Kanban => "kanban",
        Way::KanbanGroup => "kanban&kanban_group_commit=1",
    };
    format!("file:{}?vfs={vfs}", board.display())
}

fn flock_path(board: &Path) -> PathBuf {
    board.with_extension("flock")
}

fn in_a_process(orders: &Orders, go: impl FnOnce()) -> Result<Report> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--worker", &orders.encode()])
        .args((slow::ms() > 0).then(|| format!("--sync-ms={}", slow::ms())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    go();
    writeln!(child.stdin.take().ok_or("no input")?)?;
    line.clear();
    output.read_line(&mut line)?;
    child.wait()?;
    let mut parts = line.split_whitespace();
    let mut next = || parts.next().ok_or("a worker died");
    Ok(Report {
        count: next()?.parse()?,
        errors: next()?.parse()?,
        waits: Histogram::decode(next()?).ok_or("a worker stuttered")?,
    })
}

/// Does what another process of this program ordered.
pub fn obey(orders: &str) -> Result<()> {
    register()?;
    let go = || {
        println!();
        let _ = std::io::stdin().read_line(&mut String::new());
    };
    let report = work(&Orders::decode(orders).ok_or("what orders are these?")?, go)?;
    writeln!(std::io::stdout(), "{} {} {}", report.count, report.errors, report.waits.encode())?;
    Ok(())
}

impl Orders {
    fn encode(&self) -> String {
        [
            self.way.name(),
            &self.synchronous,
            &self.think.as_micros().to_string(),
            &self.duration.as_millis().to_string(),
            if self.reads { "r" } else { "w" },
            &self.board.display().to_string(),
        ]
        .join(" ")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ' ');
        Some(Self {
            way: clap::ValueEnum::from_str(parts.next()?, false).ok()?,
            synchronous: parts.next()?.to_owned(),
            think: Duration::from_micros(parts.next()?.parse().ok()?),
            duration: Duration::from_millis(parts.next()?.parse().ok()?),
            reads: parts.next()? == "r",
            board: parts.next()?.into(),
        })
    }
}

/// Opens the board, calls `go`, which returns when all have, and works.
fn work(orders: &Orders, go: impl FnOnce()) -> Result<Report> {
    let mut connection = Connection::open(uri(&orders.board, orders.way))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", &orders.synchronous)?;
    connection.query_row("SELECT count(*) FROM events", [], |_| Ok(()))?;
    let flock = File::open(flock_path(&orders.board))?;
    go();
    let end = Instant::now() + orders.duration;
    let mut report = Report::default();
    while Instant::now() < end {
        let began = Instant::now();
        let done = if orders.reads {
            read(&connection, report.count).inspect(|()| report.waits.record(began.elapsed()))
        } else {
            let wait = |waits: &mut Histogram| waits.record(began.elapsed());
            if orders.way == Way::Flock {
                lock(&flock)?;
            }
            let done = write(&mut connection, report.count, || wait(&mut report.waits));
            if orders.way == Way::Flock {
                unlock(&flock)?;
            }
            done
        };
        match done {
            Ok(()) => report.count += 1,
            Err(error) => {
                eprintln!("{}: after {:.1?}: {error}", orders.way.name(), began.elapsed());
                report.errors += 1;
            }
        }
        if !orders.think.is_zero() {
            std::thread::sleep(orders.think);
        }
    }
    Ok(report)
}

fn write(connection: &mut Connection, n: u64, begun: impl FnOnce()) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    begun();
    transaction
        .prepare_cached("INSERT INTO events (task, what) VALUES (?, 'heartbeat')")?
        .execute([n as i64])?;
    transaction.commit()
}

fn read(connection: &Connection, n: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("SELECT what FROM events WHERE id = ?")?
        .query_row([(n % 1000) as i64 + 1], |_| Ok(()))
}

fn lock(file: &File) -> std::io::Result<()> {
    flock(file, libc::LOCK_EX)
}

fn unlock(file: &File) -> std::io::Result<()> {
    flock(file, libc::LOCK_UN)
}

fn flock(file: &File, operation: libc::c_int) -> std::io::Result<()> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::flock(file.as_raw_fd(), operation) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

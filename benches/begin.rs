//! Transactions that read first and write later, of many processes on one board: how many are refused, and how long the
//! longest takes, on the stock VFS and on this one. And what it costs those that only read, one client in turns.
//!
//!     cargo bench --bench begin -- --help

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rusqlite::{Connection, ErrorCode};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is measured.
struct Way {
    name: &'static str,
    /// The VFS and other parameters of the URI.
    vfs: &'static str,
    /// How each transaction begins.
    begin: &'static str,
    /// Whether a transaction is refused before the writers begin.
    has_learned: bool,
}

const WAYS: [Way; 7] = [
    Way::new("stock, deferred", "unix", "BEGIN"),
    Way::new("stock, BEGIN IMMEDIATE", "unix", "BEGIN IMMEDIATE"),
    Way::new("kanban, deferred", "kanban", "BEGIN"),
    Way::new("kanban, immediate", "kanban&kanban_begin=immediate", "BEGIN"),
    Way::new("kanban, auto", "kanban&kanban_begin=auto", "BEGIN"),
    Way {
        has_learned: true,
        ..Way::new("kanban, auto, after one was refused", "kanban&kanban_begin=auto", "BEGIN")
    },
    Way::new("kanban, BEGIN IMMEDIATE", "kanban", "BEGIN IMMEDIATE"),
];

impl Way {
    const fn new(name: &'static str, vfs: &'static str, begin: &'static str) -> Self {
        Self { name, vfs, begin, has_learned: false }
    }
}

/// How readers read: the VFS, and the statements around each read.
const READERS: [(&str, &str); 3] = [
    ("stock", "unix"),
    ("kanban, deferred", "kanban"),
    ("kanban, auto", "kanban&kanban_begin=auto"),
];

/// For how long a transaction waits. None should need that.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    /// How many processes write.
    #[arg(long, default_value_t = 16)]
    processes: usize,
    /// How many transactions each makes.
    #[arg(long, default_value_t = 40)]
    transactions: usize,
    /// For how long a transaction does something else between its read and its write, in us.
    #[arg(long, default_value_t = 500)]
    think_us: u64,
    /// PRAGMA journal_mode.
    #[arg(long, default_value = "wal")]
    journal_mode: String,
    /// How often to measure; the table has medians, and the most and longest of all runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How many turns of 2000 reads each reader has.
    #[arg(long, default_value_t = 100)]
    turns: usize,
    /// Be a writer: the database's URI, and how transactions begin.
    #[arg(long, hide = true, num_args = 2)]
    writer: Option<Vec<String>>,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    if let Some([uri, begin]) = arguments.writer.as_deref() {
        return write(uri, begin, &arguments);
    }
    let mut seen = vec![Vec::new(); WAYS.len()];
    for _ in 0..arguments.runs {
        for (way, seen) in WAYS.iter().zip(&mut seen) {
            seen.push(run(way, &arguments)?);
        }
    }
    let all = arguments.processes * arguments.transactions;
    println!(
        "| of {all} transactions | refused (most) | longest, ms (of all runs) | time of a run, ms |\n|---|---|---|---|"
    );
    for (Way { name, .. }, seen) in WAYS.iter().zip(&seen) {
        let numbers = |number: &dyn Fn(&Outcome) -> f64| {
            let mut numbers: Vec<f64> = seen.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            (numbers[numbers.len() / 2], numbers[numbers.len() - 1])
        };
        let (refused, most) = numbers(&|run| run.refused as f64);
        let (longest, longest_of_all) = numbers(&|run| run.longest * 1e3);
        let (lasted, _) = numbers(&|run| run.lasted * 1e3);
        println!(
            "| {name} | {refused:.0} ({most:.0}) | {longest:.0} ({longest_of_all:.0}) | {lasted:.0} |"
        );
    }
    read(&arguments)
}

/// One reader each, in turns on one board, alone: the processor time of a read.
fn read(arguments: &Arguments) -> Result<()> {
    const READS: u32 = 2000;
    let directory = tempfile::tempdir()?;
    let uri = |vfs: &str| format!("file:{}/board.db?vfs={vfs}", directory.path().display());
    let keeper = Connection::open(uri("kanban"))?;
    keeper.pragma_update(None, "journal_mode", &arguments.journal_mode)?;
    keeper.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (0)")?;
    let readers: Vec<Connection> = READERS
        .iter()
        .map(|(_, vfs)| Connection::open(uri(vfs)))
        .collect::<rusqlite::Result<_>>()?;
    let mut times = vec![[vec![], vec![]]; readers.len()];
    for turn in 0..arguments.turns {
        for nth in 0..readers.len() {
            let nth = (nth + turn) % readers.len();
            let board = &readers[nth];
            let mut read = board.prepare_cached("SELECT n FROM t")?;
            let mut begin = board.prepare_cached("BEGIN")?;
            let mut commit = board.prepare_cached("COMMIT")?;
            for (in_transaction, times) in [false, true].into_iter().zip(&mut times[nth]) {
                let began = processor_time();
                for _ in 0..READS {
                    if in_transaction {
                        begin.execute([])?;
                    }
                    read.query_row([], |_| Ok(()))?;
                    if in_transaction {
                        commit.execute([])?;
                    }
                }
                times.push((processor_time() - began).as_secs_f64() * 1e6 / f64::from(READS));
            }
        }
    }
    println!(
        "\n| one reader alone, us of processor time | a read | x stock | in BEGIN and COMMIT | x stock |"
    );
    println!("|---|---|---|---|---|");
    for ((name, _), of) in READERS.iter().zip(&times) {
        print!("| {name} ");
        for (times, stock) in of.iter().zip(&times[0]) {
            let ratios = times.iter().zip(stock).map(|(ours, stock)| ours / stock).collect();
            print!("| {:.2} | {:.3} ", middle(times.clone()), middle(ratios));
        }
        println!("|");
    }
    Ok(())
}

/// The processor time of this process so far.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that there is, and a place for its time.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What happened in a run. Times are in s.
#[derive(Clone, Default)]
struct Outcome {
    refused: usize,
    longest: f64,
    lasted: f64,
}

/// One run on a new board.
fn run(way: &Way, arguments: &Arguments) -> Result<Outcome> {
    let Way { vfs, begin, .. } = way;
    let directory = tempfile::tempdir()?;
    let board = directory.path().join("board.db");
    let uri = format!("file:{}?vfs={vfs}", board.display());
    // Somebody has the board open all the time.
    let keeper = Connection::open(&uri)?;
    keeper.pragma_update(None, "journal_mode", &arguments.journal_mode)?;
    keeper.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (0)")?;
    if way.has_learned {
        let (refused, other) = (Connection::open(&uri)?, Connection::open(&uri)?);
        let change = || other.execute_batch("UPDATE t SET n=1; UPDATE t SET n=0");
        if add_one(&refused, begin, || change().expect("nobody has the lock")).is_ok() {
            return Err("it was not refused".into());
        }
    }
    let mut writers = Vec::new();
    for _ in 0..arguments.processes {
        writers.push(Writer::start(&uri, begin, arguments)?);
    }
    for writer in &mut writers {
        writer.reports.read_line(&mut String::new())?;
    }
    let began = Instant::now();
    for writer in &mut writers {
        writeln!(writer.child.stdin.as_mut().ok_or("no input")?)?;
    }
    let mut outcome = Outcome::default();
    for writer in writers {
        let (refused, longest) = writer.end()?;
        outcome.refused += refused;
        outcome.longest = outcome.longest.max(longest);
    }
    outcome.lasted = began.elapsed().as_secs_f64();
    // What was acknowledged is there, or the numbers mean nothing.
    let n: i64 = keeper.query_row("SELECT n FROM t", [], |row| row.get(0))?;
    assert_eq!(n as usize, arguments.processes * arguments.transactions - outcome.refused);
    Ok(outcome)
}

/// Another process of this program.
struct Writer {
    child: Child,
    reports: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(uri: &str, begin: &str, arguments: &Arguments) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--transactions", &arguments.transactions.to_string()])
            .args(["--think-us", &arguments.think_us.to_string()])
            .args(["--writer", uri, begin])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let reports = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, reports })
    }

    /// How many of its transactions were refused, and how long the longest took, in s.
    fn end(mut self) -> Result<(usize, f64)> {
        let mut report = String::new();
        self.reports.read_to_string(&mut report)?;
        if !self.child.wait()?.success() {
            return Err("a writer failed".into());
        }
        let (refused, longest) = report.trim().split_once(' ').ok_or("no report")?;
        Ok((refused.parse()?, longest.parse()?))
    }
}

/// A writer: says that it is ready, waits for a line, makes its transactions, and reports.
fn write(uri: &str, begin: &str, arguments: &Arguments) -> Result<()> {
    let board = Connection::open(uri)?;
    board.busy_timeout(BUSY_TIMEOUT)?;
    board.query_row("SELECT n FROM t", [], |_| Ok(()))?;
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let (mut refused, mut longest) = (0, Duration::ZERO);
    for _ in 0..arguments.transactions {
        let began = Instant::now();
        let think = || std::thread::sleep(Duration::from_micros(arguments.think_us));
        match add_one(&board, begin, think) {
            Ok(()) => {}
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == ErrorCode::DatabaseBusy =>
            {
                refused += 1;
                board.execute_batch("ROLLBACK")?;
            }
            Err(error) => return Err(error.into()),
        }
        longest = longest.max(began.elapsed());
    }
    println!("{refused} {}", longest.as_secs_f64());
    Ok(())
}

/// One transaction, which writes what it has read and one more.
fn add_one(board: &Connection, begin: &str, think: impl FnOnce()) -> rusqlite::Result<()> {
    board.execute_batch(begin)?;
    let n: i64 = board.query_row("SELECT n FROM t", [], |row| row.get(0))?;
    think();
    board.execute("UPDATE t SET n=?", [n + 1])?;
    board.execute_batch("COMMIT")
}

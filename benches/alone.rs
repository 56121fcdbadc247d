//! One writer alone, on the stock VFS and on this one, in processes that take turns of some ms each, so that all
//! meet the disk in the same mood: what they differ by is less than that.
//!
//!     cargo bench --bench alone -- --help

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rusqlite::{Connection, TransactionBehavior};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is measured, and the VFS of each.
const WAYS: [(&str, &str); 3] =
    [("stock", "unix"), ("kanban", "kanban"), ("kanban-group", "kanban&kanban_group_commit=1")];

/// Turns that do not count: connections warm up.
const WARM_UP: usize = 5;

#[derive(Parser)]
struct Arguments {
    /// How many turns each has.
    #[arg(long, default_value_t = 400)]
    turns: usize,
    /// How long each turn lasts, in ms.
    #[arg(long, default_value_t = 20)]
    turn_ms: u64,
    /// PRAGMA synchronous, in WAL mode.
    #[arg(long, default_value = "full")]
    synchronous: String,
    /// Be a writer through that VFS, on that board.
    #[arg(long, hide = true, num_args = 2)]
    writer: Option<Vec<String>>,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some([vfs, board]) = arguments.writer.as_deref() {
        return write(vfs, board, &arguments);
    }
    let directory = tempfile::tempdir()?;
    let mut writers = Vec::new();
    for (name, vfs) in WAYS {
        writers.push(Writer::start(vfs, &directory.path().join(name), &arguments)?);
    }
    let mut turns = vec![Vec::new(); WAYS.len()];
    for turn in 0..arguments.turns + WARM_UP {
        for n in 0..writers.len() {
            let n = (n + turn) % writers.len();
            let seen = writers[n].turn()?;
            if turn >= WARM_UP {
                turns[n].push(seen);
            }
        }
    }
    println!(
        "| | tx/s | x stock, in pairs of turns | BEGIN, us | COMMIT, us |\n|---|---|---|---|---|"
    );
    for ((name, _), seen) in WAYS.iter().zip(&turns) {
        let median = |number: &dyn Fn(&Turn) -> f64| middle(seen.iter().map(number).collect());
        let pairs = seen.iter().zip(&turns[0]).map(|(ours, stock)| ours.rate() / stock.rate());
        println!(
            "| {name} | {:.0} | {:.3} | {:.1} | {:.1} |",
            median(&Turn::rate),
            middle(pairs.collect()),
            median(&|turn| turn.begin * 1e6 / turn.count),
            median(&|turn| turn.commit * 1e6 / turn.count),
        );
    }
    writers.into_iter().try_for_each(Writer::end)
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// A writer's turn: the number of transactions, and how long the turn, its BEGINs and its COMMITs
/// took, in s.
#[derive(Clone, Default)]
struct Turn {
    count: f64,
    lasted: f64,
    begin: f64,
    commit: f64,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.count / self.lasted
    }
}

/// Another process of this program.
struct Writer {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl Writer {
    fn start(vfs: &str, board: &Path, arguments: &Arguments) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--turn-ms", &arguments.turn_ms.to_string()])
            .args(["--synchronous", &arguments.synchronous, "--writer", vfs])
            .arg(board)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no input")?;
        let reports = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, orders, reports })
    }

    fn turn(&mut self) -> Result<Turn> {
        writeln!(self.orders)?;
        let mut report = String::new();
        self.reports.read_line(&mut report)?;
        let numbers: Vec<f64> =
            report.split(' ').map(|n| n.trim().parse()).collect::<std::result::Result<_, _>>()?;
        match numbers[..] {
            [count, lasted, begin, commit] => Ok(Turn { count, lasted, begin, commit }),
            _ => Err("a writer died".into()),
        }
    }

    fn end(self) -> Result<()> {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        match child.wait()?.success() {
            true => Ok(()),
            false => Err("a writer failed".into()),
        }
    }
}

/// Writes in turns, one for each line of input.
fn write(vfs: &str, board: &str, arguments: &Arguments) -> Result<()> {
    // The stock VFS is to be as it is without this one.
    if vfs != WAYS[0].1 {
        kanban_vfs::register(&kanban_vfs::Options::default())?;
    }
    let mut connection = Connection::open(format!("file:{board}?vfs={vfs}"))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", &arguments.synchronous)?;
    connection.execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT)")?;
    let mut written = 0_i64;
    for _ in std::io::stdin().lock().lines() {
        let mut turn = Turn::default();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(arguments.turn_ms) {
            let began = Instant::now();
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            turn.begin += began.elapsed().as_secs_f64();
            transaction
                .prepare_cached("INSERT INTO events (what) VALUES ('heartbeat')")?
                .execute([])?;
            let commits = Instant::now();
            transaction.commit()?;
            turn.commit += commits.elapsed().as_secs_f64();
            turn.count += 1.0;
            written += 1;
        }
        turn.lasted = start.elapsed().as_secs_f64();
        println!("{} {} {} {}", turn.count, turn.lasted, turn.begin, turn.commit);
    }
    let rows: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    if rows != written {
        return Err(format!("{rows} rows of {written} are there").into());
    }
    Ok(())
}

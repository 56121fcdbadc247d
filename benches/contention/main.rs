//! Writers on one board: the stock VFS, an application-level flock around every transaction, and
//! this VFS, measured in one run.
//!
//!     cargo bench --bench contention -- --help

mod histogram;
mod picture;
mod table;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use histogram::Histogram;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures waits and throughput of writers that share a board.
#[derive(Parser)]
struct Arguments {
    /// Cases: writers,wal|delete,full|normal,think in us[,readers]. May be repeated.
    #[arg(long = "case", value_parser = parse_case, default_values = DEFAULT_CASES)]
    cases: Vec<Case>,
    /// Paired runs of each case; tables show medians and spread.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each run lasts, in ms.
    #[arg(long, default_value_t = 3000)]
    duration_ms: u64,
    /// Which ways of locking to measure, in this order, in every run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "stock,flock,kanban")]
    ways: Vec<Way>,
    /// Threads of one process instead of processes.
    #[arg(long)]
    threads: bool,
    /// Write the table as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Write the distribution of the first case's waits as SVG.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Be a worker.
    #[arg(long, hide = true)]
    worker: Option<String>,
    /// What cargo passes to benches.
    #[arg(long, hide = true)]
    bench: bool,
}

const DEFAULT_CASES: [&str; 7] = [
    "8,wal,full,1000",
    "8,wal,normal,0",
    "32,wal,full,0",
    "1,wal,full,0",
    "8,delete,full,0",
    "1,wal,normal,0",
    "8,wal,normal,1000,2",
];

/// A way of keeping writers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// The operating system's VFS with a busy timeout.
    Stock,
    /// The same, with flock(2) on a file of the application's around every transaction.
    Flock,
    /// This VFS.
    Kanban,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Flock => "flock",
            Self::Kanban => "kanban",
        }
    }
}

/// What the writers do.
#[derive(Clone, Debug)]
struct Case {
    writers: usize,
    journal_mode: String,
    synchronous: String,
    think_us: u64,
    readers: usize,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writers, journal_mode, synchronous, think_us, readers } = self;
        write!(
            f,
            "{writers} writers, {} {}",
            journal_mode.to_uppercase(),
            synchronous.to_uppercase()
        )?;
        match think_us {
            0 => write!(f, ", tight loop")?,
            us => write!(f, ", {} ms think", *us as f64 / 1000.0)?,
        }
        if *readers > 0 {
            write!(f, ", {readers} readers beside")?;
        }
        Ok(())
    }
}

fn parse_case(text: &str) -> std::result::Result<Case, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let number = |n: usize| {
        parts.get(n).map_or(Ok(0), |text| text.parse().map_err(|e| format!("{text}: {e}")))
    };
    if !(4..=5).contains(&parts.len()) {
        return Err("not writers,journal mode,synchronous,think[,readers]".to_owned());
    }
    Ok(Case {
        writers: number(0)?,
        journal_mode: parts[1].to_owned(),
        synchronous: parts[2].to_owned(),
        think_us: number(3)? as u64,
        readers: number(4)?,
    })
}

/// What one run of one case in one way came to.
#[derive(Default)]
struct Outcome {
    /// Transactions of each writer.
    counts: Vec<u64>,
    errors: u64,
    reads: u64,
    waits: Histogram,
    /// The longest that a read took.
    longest_read: Duration,
    /// The largest that the WAL was seen, in bytes.
    wal_bytes: u64,
    seconds: f64,
}

impl Outcome {
    fn per_second(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64 / self.seconds
    }

    /// Jain's fairness index: 1 if all did the same, 1/n if one did it all.
    fn jain(&self) -> f64 {
        let sum: f64 = self.counts.iter().map(|n| *n as f64).sum();
        let squares: f64 = self.counts.iter().map(|n| (*n as f64).powi(2)).sum();
        if squares == 0.0 { 0.0 } else { sum * sum / (self.counts.len() as f64 * squares) }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(orders) = &arguments.worker {
        return worker::obey(orders);
    }
    let duration = Duration::from_millis(arguments.duration_ms);
    let mut tables = Vec::new();
    for (nth, case) in arguments.cases.iter().enumerate() {
        let mut outcomes: Vec<(Way, Vec<Outcome>)> =
            arguments.ways.iter().map(|way| (*way, Vec::new())).collect();
        for _ in 0..arguments.runs {
            for (way, outcomes) in &mut outcomes {
                outcomes.push(worker::run(case, *way, duration, arguments.threads)?);
            }
        }
        let table = table::of(case, &outcomes);
        println!("{table}");
        tables.push(table);
        if let (0, Some(path)) = (nth, &arguments.svg) {
            std::fs::write(path, picture::of(case, &outcomes))?;
        }
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, tables.join("\n"))?;
    }
    Ok(())
}

//! Writers on one board: the stock VFS, an application-level flock around every transaction, and
//! this VFS, measured in one run.
//!
//!     cargo bench --bench contention -- --help

#[path = "contention/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tool's, too")]
mod contention;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use contention::{Case, Outcome, Result, Way, parse_case};

/// Measures waits and throughput of writers that share a board.
#[derive(Parser)]
struct Arguments {
    /// Cases: writers,wal|delete,full|normal,think in us[,readers[,snapshot in ms]]: how long one more
    /// reader keeps each of its snapshots. May be repeated.
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
    /// How long each sync is to take beside its time, in ms: a disk that is slower than this one.
    #[arg(long, default_value_t = 0)]
    sync_ms: u64,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    contention::set_sync_ms(arguments.sync_ms);
    if let Some(orders) = &arguments.worker {
        return contention::obey(orders);
    }
    let duration = Duration::from_millis(arguments.duration_ms);
    let mut tables = Vec::new();
    for (nth, case) in arguments.cases.iter().enumerate() {
        let mut outcomes: Vec<(Way, Vec<Outcome>)> =
            arguments.ways.iter().map(|way| (*way, Vec::new())).collect();
        for _ in 0..arguments.runs {
            for (way, outcomes) in &mut outcomes {
                outcomes.push(contention::run(case, *way, duration, arguments.threads)?);
            }
        }
        let table = contention::table(case, &outcomes);
        println!("{table}");
        tables.push(table);
        if let (0, Some(path)) = (nth, &arguments.svg) {
            std::fs::write(path, contention::picture(case, &outcomes))?;
        }
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, tables.join("\n"))?;
    }
    Ok(())
}

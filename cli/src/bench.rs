//! `bench`: the contention benchmark with short defaults.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::contention::{self, Case, Outcome, Way, parse_case};
use crate::{Result, say};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases: writers,wal|delete,full|normal,think in us[,readers[,snapshot in ms]]. Think is the
    /// pause between transactions; with snapshot, one more reader keeps each of its snapshots for
    /// that long. May be repeated.
    #[arg(long = "case", value_parser = parse_case, default_values = ["8,wal,full,1000", "1,wal,full,0"])]
    cases: Vec<Case>,
    /// Paired runs of each case; tables show medians and spread.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// How long each run lasts, in ms.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Which ways of locking to measure, in this order, in every run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "stock,flock,kanban")]
    ways: Vec<Way>,
    /// As a JSON object, with all runs.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { cases, runs, duration, ways, json } = arguments;
    let steps = cases.len() as u64 * runs * ways.len() as u64;
    let bar = ProgressBar::new(steps);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} runs: {msg}")?);
    let mut has_errors = false;
    let mut told = Vec::new();
    for case in cases {
        let mut outcomes: Vec<(Way, Vec<Outcome>)> =
            ways.iter().map(|way| (*way, Vec::new())).collect();
        for _ in 0..*runs {
            for (way, outcomes) in &mut outcomes {
                bar.set_message(format!("{case}, {}", way.name()));
                let outcome = contention::run(case, *way, Duration::from_millis(*duration), false)
                    .map_err(|error| error.to_string())?;
                has_errors |= matches!(way, Way::Kanban | Way::KanbanGroup) && outcome.errors > 0;
                outcomes.push(outcome);
                bar.inc(1);
            }
        }
        if *json {
            told.push(as_json(case, &outcomes));
        } else {
            let table = contention::table(case, &outcomes);
            bar.suspend(|| say(&format!("{table}\n")))?;
        }
    }
    bar.finish_and_clear();
    if *json {
        let told = json!({"version": env!("CARGO_PKG_VERSION"), "cases": told});
        say(&format!("{told:#}\n"))?;
    }
    Ok(!has_errors)
}

/// A case as JSON, with the result of each run of each way.
fn as_json(case: &Case, outcomes: &[(Way, Vec<Outcome>)]) -> Value {
    let ms = |duration: Duration| duration.as_micros() as f64 / 1e3;
    let run = |outcome: &Outcome| {
        let wait = |share| ms(outcome.waits.quantile(share));
        json!({
            "transactions_per_second": outcome.per_second(),
            "wait_ms": {
                "p50": wait(0.5),
                "p99": wait(0.99),
                "p999": wait(0.999),
                "longest": ms(outcome.waits.longest()),
            },
            "fairness": outcome.jain(),
            "transactions": outcome.counts,
            "errors": outcome.errors,
            "reads_per_second": outcome.reads as f64 / outcome.seconds,
            "longest_read_ms": ms(outcome.longest_read),
            "wal_bytes": outcome.wal_bytes,
        })
    };
    let ways = outcomes.iter().map(|(way, outcomes)| {
        json!({"way": way.name(), "runs": outcomes.iter().map(run).collect::<Vec<_>>()})
    });
    json!({
        "case": case.to_string(),
        "writers": case.writers,
        "journal_mode": case.journal_mode,
        "synchronous": case.synchronous,
        "think_us": case.think_us,
        "readers": case.readers,
        "ways": ways.collect::<Vec<_>>(),
    })
}

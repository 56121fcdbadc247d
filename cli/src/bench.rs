//! `bench`: the contention benchmark with short defaults.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::contention::{self, Case, Outcome, Way, parse_case};
use crate::{Result, say};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases: writers,wal|delete,full|normal,think in us[,readers[,snapshot in ms]]: how long one more reader
    /// keeps each of its snapshots. May be repeated.
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
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { cases, runs, duration, ways } = arguments;
    let steps = cases.len() as u64 * runs * ways.len() as u64;
    let bar = ProgressBar::new(steps);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} runs: {msg}")?);
    let mut has_errors = false;
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
        let table = contention::table(case, &outcomes);
        bar.suspend(|| say(&format!("{table}\n")))?;
    }
    bar.finish_and_clear();
    Ok(!has_errors)
}

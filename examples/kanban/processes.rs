//! Worker processes: started by `dispatch` and `smoke`, watched through their output.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::board::{Board, Result};

/// What all workers together did.
pub(crate) struct Outcome {
    pub(crate) steps: u64,
    pub(crate) failed_workers: usize,
    pub(crate) elapsed: Duration,
    pub(crate) longest_wait: Duration,
}

/// A worker prints this line after each step ...
const STEP: &str = "step";
/// ... and this, with a number of microseconds, at its end.
const LONGEST_WAIT: &str = "longest wait";

/// Says, for the parent, that a step is done.
pub(crate) fn report_step() {
    println!("{STEP}");
}

/// Says, for the parent, how long this worker waited at most.
pub(crate) fn report_end(board: &Board) {
    println!("{LONGEST_WAIT} {}", board.longest_wait().as_micros());
}

/// Runs this program `workers` times with `arguments` (and the worker's number, from 1), and shows
/// their steps.
pub(crate) fn run(
    board: &Path,
    workers: usize,
    total: u64,
    arguments: impl Fn(usize) -> Vec<String>,
) -> Result<Outcome> {
    let began = Instant::now();
    let bar = ProgressBar::new(total);
    let style = "{bar:30} {pos}/{len} transactions, {per_sec}";
    bar.set_style(ProgressStyle::with_template(style)?);
    let mut children = Vec::new();
    for worker in 1..=workers {
        children.push(
            Command::new(std::env::current_exe()?)
                .arg("--board")
                .arg(board)
                .args(arguments(worker))
                .stdout(Stdio::piped())
                .spawn()?,
        );
    }
    let longest_wait_us = std::thread::scope(|scope| {
        let readers: Vec<_> = children
            .iter_mut()
            .filter_map(|child| child.stdout.take())
            .map(|output| {
                let bar = &bar;
                scope.spawn(move || {
                    let mut longest = 0;
                    for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                        match line.strip_prefix(LONGEST_WAIT) {
                            Some(us) => longest = us.trim().parse().unwrap_or(0),
                            None => bar.inc(1),
                        }
                    }
                    longest
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or(0)).max().unwrap_or(0)
    });
    let mut failed_workers = 0;
    for mut child in children {
        failed_workers += usize::from(!child.wait()?.success());
    }
    bar.finish_and_clear();
    Ok(Outcome {
        steps: bar.position(),
        failed_workers,
        elapsed: began.elapsed(),
        longest_wait: Duration::from_micros(longest_wait_us),
    })
}

//! Worker processes: started by `dispatch` and `smoke`, watched through their output.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::board::{Board, Result};

/// What all workers together did.
pub(crate) struct Outcome {
    pub(crate) steps: u64,
    pub(crate) failed_workers: usize,
    pub(crate) elapsed: Duration,
    pub(crate) longest_wait: Duration,
}

/// A worker prints this, with the task's number and title, when it has claimed one ...
const CLAIMED: &str = "claimed";
/// ... this line after each step ...
const STEP: &str = "step";
/// ... and this, with a number of microseconds, at its end.
const LONGEST_WAIT: &str = "longest wait";

/// Says, for the parent, which task this worker is at.
pub(crate) fn report_claim(board: &Board, task: i64) -> Result<()> {
    println!("{CLAIMED} {task}: {}", board.title(task)?.replace(char::is_control, " "));
    Ok(())
}

/// Says, for the parent, that a step is done.
pub(crate) fn report_step() {
    println!("{STEP}");
}

/// Says, for the parent, how long this worker waited at most.
pub(crate) fn report_end(board: &Board) {
    println!("{LONGEST_WAIT} {}", board.longest_wait().as_micros());
}

/// As [`run`], but shows also what each worker is at: live in a terminal, else a line for each task.
pub(crate) fn run_shown(
    board: &Path,
    workers: usize,
    total: u64,
    arguments: impl Fn(usize) -> Vec<String>,
) -> Result<Outcome> {
    let shown = MultiProgress::new();
    let bar = shown.add(bar(total)?);
    let style = ProgressStyle::with_template("{spinner} {prefix} {pos:>5} done  {wide_msg}")?;
    let lines: Vec<_> = (1..=workers)
        .map(|worker| {
            let line = shown.add(ProgressBar::new_spinner().with_style(style.clone()));
            line.set_prefix(format!("worker-{worker:<3}"));
            line.set_message("starts");
            line
        })
        .collect();
    let is_live = Term::stderr().is_term();
    let outcome = run_with(board, workers, &bar, arguments, |worker, line| {
        let shown = &lines[worker - 1];
        match line {
            Some(STEP) => {
                shown.inc(1);
                bar.inc(1);
            }
            Some(task) => {
                let task = task.strip_prefix(CLAIMED).unwrap_or(task).trim();
                shown.set_message(format!("task {task}"));
                if !is_live {
                    eprintln!("worker-{worker} has claimed task {task}");
                }
            }
            None => shown.finish_with_message("finds nothing more to do"),
        }
    })?;
    bar.finish();
    Ok(outcome)
}

/// Runs this program `workers` times with `arguments` (and the worker's number, from 1), and shows
/// their steps.
pub(crate) fn run(
    board: &Path,
    workers: usize,
    total: u64,
    arguments: impl Fn(usize) -> Vec<String>,
) -> Result<Outcome> {
    let bar = bar(total)?;
    let outcome = run_with(board, workers, &bar, arguments, |_, line| {
        if line.is_some() {
            bar.inc(1);
        }
    })?;
    bar.finish_and_clear();
    Ok(outcome)
}

fn bar(total: u64) -> Result<ProgressBar> {
    let style = "{bar:30} {pos}/{len} steps, {per_sec}";
    Ok(ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?))
}

/// Tells of each line that a worker prints but its last, and, by `None`, of its end.
fn run_with(
    board: &Path,
    workers: usize,
    bar: &ProgressBar,
    arguments: impl Fn(usize) -> Vec<String>,
    heard: impl Fn(usize, Option<&str>) + Sync,
) -> Result<Outcome> {
    let began = Instant::now();
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
            .zip(1..)
            .filter_map(|(child, worker)| Some((child.stdout.take()?, worker)))
            .map(|(output, worker)| {
                let heard = &heard;
                scope.spawn(move || {
                    let mut longest = 0;
                    for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                        match line.strip_prefix(LONGEST_WAIT) {
                            Some(us) => longest = us.trim().parse().unwrap_or(0),
                            None => heard(worker, Some(&line)),
                        }
                    }
                    heard(worker, None);
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
    Ok(Outcome {
        steps: bar.position(),
        failed_workers,
        elapsed: began.elapsed(),
        longest_wait: Duration::from_micros(longest_wait_us),
    })
}

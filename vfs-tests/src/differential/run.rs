//! Runs a schedule on both sides, step by step, and compares them after each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rusqlite::ffi::SQLITE_FCNTL_CHUNK_SIZE;

use super::allowed::{Scene, allowed};
use super::compare::{Difference, code_name, compare};
use super::observe::Observation;
use super::process::Program;
use super::schedule::{Operation, Schedule, Step};
use super::side::{Kind, Side};

/// The two sides, ready for any number of schedules.
pub struct Pair {
    stock: Side,
    ours: Side,
    /// Whether the last schedule ended early, with connections open.
    is_used_up: bool,
}

/// A difference that the table does not allow.
#[derive(Clone, Debug)]
pub struct Found {
    /// The number of the step after which it was found.
    pub at: usize,
    /// The step.
    pub step: Step,
    /// What differs.
    pub difference: Difference,
}

/// The results of schedules.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many schedules.
    pub schedules: u64,
    /// Their steps.
    pub steps: u64,
    /// Allowed differences, by name. Each ended a schedule.
    pub allowed: BTreeMap<&'static str, u64>,
    /// How many steps on the stock side had each result.
    pub codes: BTreeMap<String, u64>,
}

impl Report {
    /// Adds another report to this one.
    pub fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        for (name, count) in &other.allowed {
            *self.allowed.entry(name).or_default() += count;
        }
        for (code, count) in &other.codes {
            *self.codes.entry(code.clone()).or_default() += count;
        }
    }
}

impl Pair {
    /// Both sides, with their directories in `home`.
    #[must_use]
    pub fn new(stock: Program, ours: Program, home: &Path) -> Self {
        Self {
            stock: Side::new(Kind::Stock, stock, &home.join("stock")),
            ours: Side::new(Kind::Ours, ours, &home.join("ours")),
            is_used_up: false,
        }
    }

    /// The stock VFS on both sides.
    #[must_use]
    pub fn of_stock(one: Program, other: Program, home: &Path) -> Self {
        Self {
            stock: Side::new(Kind::Stock, one, &home.join("one")),
            ours: Side::new(Kind::Stock, other, &home.join("other")),
            is_used_up: false,
        }
    }

    /// Runs a schedule, until its end or the first difference that is not allowed. With `fresh`, it runs in new
    /// processes.
    pub fn run(&mut self, schedule: &Schedule, fresh: bool, report: &mut Report) -> Option<Found> {
        let fresh = std::mem::replace(&mut self.is_used_up, true) || fresh;
        self.stock.begin(schedule.is_plain, fresh);
        self.ours.begin(schedule.is_plain, fresh);
        report.schedules += 1;
        let mut steps = schedule.steps.clone();
        let processes = steps.iter().map(|step| step.process + 1).max().unwrap_or(0);
        steps.extend((0..processes).map(|process| Step {
            process,
            connection: 0,
            operation: Operation::CloseAll,
        }));
        // A killed process leaves its files as they are. A file that was resized, or that grows in chunks, is not as
        // long as its header says.
        let is_regular = !schedule.steps.iter().any(|step| match step.operation {
            Operation::Kill | Operation::FileControl(SQLITE_FCNTL_CHUNK_SIZE, _) => true,
            // A stock client that closes last does not cut the file.
            Operation::Open(_, ref parameters) if parameters.contains("vfs=") => true,
            ref other => other.is_outside() || other.is_spared_stock(),
        });
        let mut before = Observation::default();
        for (at, step) in steps.iter().enumerate() {
            report.steps += 1;
            self.stock.start(step);
            self.ours.start(step);
            let stock = self.stock.finish(step);
            let ours = self.ours.finish(step);
            let is_closed = is_regular && at + 1 == steps.len();
            let [stock_left, our_left] =
                [self.stock.observe(is_closed), self.ours.observe(is_closed)];
            *report.codes.entry(code_name(stock.code)).or_default() += 1;
            let differences = compare(
                schedule.is_plain,
                &step.operation,
                [&stock, &ours],
                [&stock_left, &our_left],
            );
            // The other differences follow from the first.
            if let Some(difference) = differences.into_iter().next() {
                let scene = Scene {
                    is_plain: schedule.is_plain,
                    steps: &steps[..=at],
                    stock: &stock,
                    ours: &ours,
                    before: &before,
                    difference: &difference,
                };
                let Some(entry) = allowed(&scene) else {
                    return Some(Found { at, step: step.clone(), difference });
                };
                *report.allowed.entry(entry.name).or_default() += 1;
                return None;
            }
            before = our_left;
        }
        self.is_used_up = false;
        None
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after step {} ({}): {}", self.at, self.step, self.difference)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} schedules, {} steps", self.schedules, self.steps)?;
        write!(f, "; results:")?;
        for (name, count) in &self.codes {
            write!(f, " {name} {count},")?;
        }
        write!(f, " ended by allowed differences:")?;
        for (name, count) in &self.allowed {
            write!(f, " {name} {count},")?;
        }
        Ok(())
    }
}

//! Writers on one board: the stock VFS, an application-level flock around every transaction, and
//! this VFS, measured side by side. A module of `cargo bench --bench contention`, and of `kanban-vfs bench`,
//! whose package has it by a symbolic link.
//!
//! Workers are processes of the program that uses it: started with the argument `--worker` and one more,
//! it must hand that to [`obey`].

mod histogram;
mod picture;
mod slow;
mod table;
mod worker;

use std::time::Duration;

use clap::ValueEnum;

pub use histogram::Histogram;
pub use picture::of as picture;
pub use slow::set as set_sync_ms;
pub use table::of as table;
pub use worker::{obey, run};

/// What can go wrong is told to people.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A way of keeping writers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// The operating system's VFS with a busy timeout.
    Stock,
    /// The same, with flock(2) on a file of the application's around every transaction.
    Flock,
    /// This VFS.
    Kanban,
    /// The same with group commit.
    KanbanGroup,
}

impl Way {
    /// As it is written in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Flock => "flock",
            Self::Kanban => "kanban",
            Self::KanbanGroup => "kanban-group",
        }
    }
}

/// What the writers do.
#[derive(Clone, Debug)]
pub struct Case {
    /// How many write.
    pub writers: usize,
    /// `PRAGMA journal_mode`
    pub journal_mode: String,
    /// `PRAGMA synchronous`
    pub synchronous: String,
    /// How long each pauses after a transaction, in us.
    pub think_us: u64,
    /// How many read beside them, without a pause.
    pub readers: usize,
    /// How long one more reader keeps each of its snapshots, in ms; 0 if there is none.
    pub snapshot_ms: u64,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writers, journal_mode, synchronous, think_us, readers, snapshot_ms } = self;
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
        if *snapshot_ms > 0 {
            write!(f, ", snapshots of {snapshot_ms} ms beside")?;
        }
        Ok(())
    }
}

/// `writers,wal|delete,full|normal,think in us[,readers[,snapshot in ms]]`
///
/// # Errors
/// What is wrong with it.
pub fn parse_case(text: &str) -> std::result::Result<Case, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let number = |n: usize| {
        parts.get(n).map_or(Ok(0), |text| text.parse().map_err(|e| format!("{text}: {e}")))
    };
    if !(4..=6).contains(&parts.len()) {
        return Err("not writers,journal mode,synchronous,think[,readers[,snapshot]]".to_owned());
    }
    Ok(Case {
        writers: number(0)?,
        journal_mode: parts[1].to_owned(),
        synchronous: parts[2].to_owned(),
        think_us: number(3)? as u64,
        readers: number(4)?,
        snapshot_ms: number(5)? as u64,
    })
}

/// What one run of one case in one way came to.
#[derive(Default)]
pub struct Outcome {
    /// Transactions of each writer.
    pub counts: Vec<u64>,
    /// Transactions that failed.
    pub errors: u64,
    /// Read transactions, of all readers.
    pub reads: u64,
    /// How long writers waited from BEGIN IMMEDIATE until it was answered.
    pub waits: Histogram,
    /// The longest that a read took.
    pub longest_read: Duration,
    /// The largest that the WAL was seen, in bytes.
    pub wal_bytes: u64,
    /// How long it lasted.
    pub seconds: f64,
}

impl Outcome {
    /// Write transactions of all, per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64 / self.seconds
    }

    /// Jain's fairness index: 1 if all did the same, 1/n if one did it all.
    #[must_use]
    pub fn jain(&self) -> f64 {
        let sum: f64 = self.counts.iter().map(|n| *n as f64).sum();
        let squares: f64 = self.counts.iter().map(|n| (*n as f64).powi(2)).sum();
        if squares == 0.0 { 0.0 } else { sum * sum / (self.counts.len() as f64 * squares) }
    }
}

//! The result of a soak.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What clients of one VFS did.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Acknowledged transactions.
    pub commits: u64,
    /// The longest BEGIN, in ms.
    pub longest_wait_ms: u64,
    /// How many busy timeouts expired.
    pub gave_up: u64,
    /// Upgrades of a stale snapshot, which were refused at once.
    pub refused: u64,
}

impl Writes {
    pub(super) fn committed(&mut self, waited: u64) {
        self.commits += 1;
        self.longest_wait_ms = self.longest_wait_ms.max(waited);
    }

    fn json(&self) -> Value {
        json!({
            "commits": self.commits,
            "longest_wait_ms": self.longest_wait_ms,
            "gave_up": self.gave_up,
            "refused_upgrades": self.refused,
        })
    }
}

/// The result of a soak.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The seed of its random numbers.
    pub seed: u64,
    /// How long it ran.
    pub seconds: f64,
    /// How many processes were started.
    pub processes: u64,
    /// How many were killed.
    pub kills: u64,
    /// How many times a process was stopped for a while.
    pub stops: u64,
    /// The longest time from a kill to the next commit of any client, in ms.
    pub longest_pause_after_kill_ms: u64,
    /// Transactions begun.
    pub attempts: u64,
    /// What clients of this VFS did.
    pub ours: Writes,
    /// What clients of the stock VFS did.
    pub stock: Writes,
    /// What else was done, and how often.
    pub did: BTreeMap<String, u64>,
    /// How many times the board was compared with the model.
    pub checks: u64,
    /// How many rows were compared in all of them.
    pub rows_compared: u64,
    /// How many of the comparisons also ran quick_check.
    pub quick_checks: u64,
    /// Transactions whose rows were compared and then deleted.
    pub retired: u64,
    /// The largest WAL, in bytes.
    pub largest_wal: u64,
    /// How many times there were no long readers.
    pub calms: u64,
    /// The smallest size of the WAL in each of these times, in frames: the greatest of these sizes.
    pub longest_calm_wal: u64,
    /// The largest size of the board, in pages.
    pub largest_board_pages: u64,
    /// The most descriptors that a long-lived process had.
    pub most_descriptors: u64,
    /// Why it failed; `None` if it did not.
    pub failure: Option<String>,
    /// The directory that was kept then.
    pub directory: Option<PathBuf>,
}

impl Summary {
    pub(super) fn of(&mut self, ours: bool) -> &mut Writes {
        if ours { &mut self.ours } else { &mut self.stock }
    }

    /// As a JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "seconds": self.seconds.round(),
            "processes": self.processes,
            "kills": self.kills,
            "stops": self.stops,
            "longest_pause_after_kill_ms": self.longest_pause_after_kill_ms,
            "attempts": self.attempts,
            "kanban": self.ours.json(),
            "stock": self.stock.json(),
            "did": self.did,
            "checks": self.checks,
            "rows_compared": self.rows_compared,
            "quick_checks": self.quick_checks,
            "retired": self.retired,
            "largest_wal_bytes": self.largest_wal,
            "calms": self.calms,
            "longest_calm_wal_frames": self.longest_calm_wal,
            "largest_board_pages": self.largest_board_pages,
            "most_descriptors": self.most_descriptors,
            "failure": self.failure,
            "directory": self.directory,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.json().as_object().into_iter().flatten() {
            match value {
                Value::Object(fields) => {
                    writeln!(f, "{name}")?;
                    for (name, value) in fields {
                        writeln!(f, "  {name:<28} {value:>12}")?;
                    }
                }
                Value::String(text) => writeln!(f, "{name}: {text}")?,
                Value::Null => {}
                value => writeln!(f, "{name:<30} {value:>12}")?,
            }
        }
        match &self.failure {
            Some(_) => writeln!(f, "FAILED; --seed {}", self.seed),
            None => writeln!(f, "every acknowledged row is there"),
        }
    }
}

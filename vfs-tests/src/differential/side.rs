//! One side of the comparison: a directory, the processes that work in it, and its observer.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::observe::{Observation, Observer};
use super::process::{Process, Program};
use super::protocol::{DIED, HANGS, Outcome, Request};
use super::schedule::{Child, Operation, Step};

/// The parameters of a plain schedule.
const PLAIN: &str = "vfs=unix";

/// Which of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQLite's own VFS.
    Stock,
    /// This project's.
    Ours,
}

/// A side, with processes that outlive a schedule.
pub struct Side {
    kind: Kind,
    program: Program,
    /// The processes of the schedule. A process that was killed is started again when it is needed.
    processes: Vec<Option<Process>>,
    /// On the stock side, this process does what a forked child does with a connection of its own:
    /// a child there has its parent's book-keeping of the locks.
    stand_in: Option<Process>,
    observer: Observer,
    /// Where the directories of the schedules are.
    home: PathBuf,
    /// The directory of this schedule.
    directory: PathBuf,
    /// Whether all clients of this schedule are stock ones.
    is_plain: bool,
    runs: u64,
}

impl Side {
    /// A side whose directories are in `home`.
    ///
    /// # Panics
    /// If there is no place for them.
    #[must_use]
    pub fn new(kind: Kind, program: Program, home: &Path) -> Self {
        let scratch = home.join("copy");
        std::fs::create_dir_all(&scratch).expect("a directory to work in");
        Self {
            kind,
            program,
            processes: Vec::new(),
            stand_in: None,
            observer: Observer::new(scratch),
            home: home.to_owned(),
            directory: PathBuf::new(),
            is_plain: false,
            runs: 0,
        }
    }

    /// Begins a schedule, in an empty directory. If `fresh`, also starts new processes.
    ///
    /// # Panics
    /// If there is no place for it.
    pub fn begin(&mut self, is_plain: bool, fresh: bool) {
        self.end();
        self.is_plain = is_plain;
        self.runs += 1;
        self.directory = self.home.join(format!("{}", self.runs));
        std::fs::create_dir_all(&self.directory).expect("a directory to work in");
        self.observer.forget();
        if fresh {
            self.processes.clear();
            self.stand_in = None;
        }
        for process in self.processes.iter_mut().chain([&mut self.stand_in]) {
            let parameters = if is_plain { PLAIN } else { &self.program.parameters };
            let begin = |process: &mut Process| process.begin(&self.directory, parameters);
            if process.as_mut().is_some_and(|process| !begin(process)) {
                *process = None;
            }
        }
    }

    /// Removes the files of the schedule.
    pub fn end(&mut self) {
        if self.directory != Path::new("") {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    /// Begins a step.
    pub fn start(&mut self, step: &Step) {
        let n = step.process;
        if self.processes.len() <= n {
            self.processes.resize_with(n + 1, || None);
        }
        if self.is_silent(step) {
            return self.act(step);
        }
        let (process, request) = match &step.operation {
            Operation::Fork(child @ Child::Own(..)) if self.has_stand_in() => {
                (&mut self.stand_in, Request::Alone(child.clone()))
            }
            other => (&mut self.processes[n], Request::Do(step.connection, other.clone())),
        };
        let parameters = if self.is_plain { PLAIN } else { &self.program.parameters };
        process
            .get_or_insert_with(|| Process::start(&self.program, &self.directory, parameters))
            .send(&request);
    }

    /// The outcome of the step.
    pub fn finish(&mut self, step: &Step) -> Outcome {
        if self.is_silent(step) {
            return Outcome::default();
        }
        let process = match &step.operation {
            Operation::Fork(Child::Own(..)) if self.has_stand_in() => &mut self.stand_in,
            _ => &mut self.processes[step.process],
        };
        let outcome = process.as_mut().map(Process::receive).unwrap_or_default();
        if matches!(outcome.code, DIED | HANGS) {
            *process = None;
        }
        outcome
    }

    /// Whether this is the stock side, and our side should do better.
    fn has_stand_in(&self) -> bool {
        self.kind == Kind::Stock && !self.is_plain
    }

    /// Whether no process of this side is asked to take the step.
    fn is_silent(&self, step: &Step) -> bool {
        step.operation == Operation::Kill
            || step.operation.is_outside()
            || (self.has_stand_in() && step.operation.is_spared_stock())
            // A process that was not started yet has nothing to close.
            || (step.operation == Operation::CloseAll && self.processes[step.process].is_none())
    }

    fn act(&mut self, step: &Step) {
        match &step.operation {
            Operation::Kill => self.processes[step.process] = None,
            Operation::Append(database, bytes) => {
                self.resize(database.file_name(), |promised, now| now.max(promised + bytes));
            }
            // An empty file would be another database; this way it stays the same one.
            Operation::Cut(database, bytes) => {
                self.resize(database.file_name(), |promised, now| {
                    now.min(promised.saturating_sub(*bytes).max(512))
                });
            }
            _ => {}
        }
    }

    /// Sets a file's length, computed from what its header promises and what it has now: in WAL
    /// mode our file is longer than the stock one.
    fn resize(&self, name: &str, length: impl Fn(u64, u64) -> u64) {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(self.directory.join(name))
        else {
            return;
        };
        let mut header = [0; 32];
        if file.read_exact_at(&mut header, 0).is_err() {
            return;
        }
        let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
            1 => 65536,
            page => page,
        };
        let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
        let now = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.set_len(length(u64::from(pages) * page, now));
    }

    /// What is in the directory now. `is_closed`: no connection has a database there open.
    pub fn observe(&mut self, is_closed: bool) -> Observation {
        self.observer.observe(&self.directory, is_closed)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.processes.clear();
        self.stand_in = None;
        self.end();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

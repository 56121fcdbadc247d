//! Power cuts. A workload runs through `kanban` over a base VFS that records the calls on the files
//! (`record`). Then, for moments of that record, the test makes disks as a power cut at that moment
//! may leave them (`disk`). It opens them through `kanban` and looks at them (`board`).
//!
//! # What a state is
//! A moment of the record, and for each file what of it had reached the disk:
//! - its size is one of those it had since it was synced last;
//! - each sector of 512 bytes is what it was at some moment since then. So of the writes that were not
//!   synced each may be lost, kept, torn, or have overtaken another, of the same file or of others.
//!   Rarely, a sector is torn too, between two writes and from one end to the other;
//! - what was never there, in a file that has grown, is zeros or garbage;
//! - its name is in the directory, or not, as at some moment since the directory was synced last:
//!   a file that was created may be missing, one that was deleted may be back. SQLite syncs the
//!   directory when `xDelete` is told to, and at the first sync of each handle of a journal or a WAL.
//!   (Unless [`Run::sizes_overtake`], sizes do not overtake deletions. With NORMAL in a rollback mode,
//!   what is written to the journal gets there in order: SQLite syncs it once only.)
//!
//! A write never changes bytes beside its own: the unix VFS claims SQLITE_IOCAP_POWERSAFE_OVERWRITE.
//! `-shm` and `-lock` promise nothing: they are missing, cut short, garbage, or as they were last.
//!
//! The moments are those before and after each sync, at each lock and unlock that something was done
//! before, after each acknowledged transaction, and a sample of those between. Of each, the disks
//! where nothing and where all that was not synced is kept, and some at random.
//!
//! # What is asked of a state
//! The database opens, and `integrity_check` finds nothing. It has the content that some number of
//! transactions left, none in part: no more than were attempted, and no fewer than were acknowledged
//! if their mode promises that ([`Mode`]). A row can be written, and who writes it has the write
//! lock by the sidecar. Of some states, the recovery itself is recorded, and the power cut again at
//! its boundaries: then there are as many transactions as it has found.
//!
//! # What is not modelled
//! Disks that lie about syncs, but to show that this is found ([`Lie`]); bits that rot; several
//! databases in one transaction; mmap; a third power cut before the second was recovered from.

mod board;
mod disk;
mod record;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::base::{Base, File};
use board::Expected;
use disk::{Disk, Fate, Orders, State};
use record::Event;

/// `PRAGMA journal_mode` and `PRAGMA synchronous`, and so what is promised of acknowledged
/// transactions. <https://www.sqlite.org/pragma.html#pragma_synchronous>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All are there.
    WalFull,
    /// All are: with group commit, some of which commit while another's sync is under way.
    WalFullGroup,
    /// Those are that were acknowledged before the WAL was synced last, by a checkpoint.
    WalNormal,
    /// All are, but for the last if its journal is back: FULL does not sync the directory after the
    /// journal was deleted.
    DeleteFull,
    /// The same, but on disks that write the journal in order: its header may name pages before
    /// they are there, and the checksum of a page in the journal does not cover all of it.
    DeleteNormal,
    /// All are.
    DeleteExtra,
    /// All are.
    TruncateFull,
    /// All are.
    PersistFull,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 8] = [
        Self::WalFull,
        Self::WalFullGroup,
        Self::WalNormal,
        Self::DeleteFull,
        Self::DeleteNormal,
        Self::DeleteExtra,
        Self::TruncateFull,
        Self::PersistFull,
    ];

    fn journal(self) -> &'static str {
        match self {
            Self::WalFull | Self::WalFullGroup | Self::WalNormal => "wal",
            Self::DeleteFull | Self::DeleteNormal | Self::DeleteExtra => "delete",
            Self::TruncateFull => "truncate",
            Self::PersistFull => "persist",
        }
    }

    fn synchronous(self) -> &'static str {
        match self {
            Self::WalNormal | Self::DeleteNormal => "normal",
            Self::DeleteExtra => "extra",
            _ => "full",
        }
    }

    fn is_group(self) -> bool {
        self == Self::WalFullGroup
    }

    fn is_wal(self) -> bool {
        self.journal() == "wal"
    }

    /// Whether disks write journals in order.
    fn needs_order(self) -> bool {
        self == Self::DeleteNormal
    }

    /// Whether a deleted journal may be back without harm to more than the last transaction, if the
    /// size of the database did not reach the disk before it: see [`Run::sizes_overtake`].
    #[must_use]
    pub fn sizes_wait(self) -> bool {
        matches!(self, Self::DeleteFull | Self::DeleteNormal)
    }
}

/// A disk that says it has synced what it has not: what the machinery must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// No file is synced.
    Everything,
    /// No file of that kind is.
    About(File),
    /// The directory is not.
    Directory,
}

impl Lie {
    fn is_about(self, file: File) -> bool {
        match self {
            Self::Everything => true,
            Self::About(kind) => kind == file,
            Self::Directory => false,
        }
    }
}

/// What to explore.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How the board is kept.
    pub mode: Mode,
    /// Decides everything that is decided at random.
    pub seed: u64,
    /// Disks made at random of each boundary, beside the two that are not.
    pub of_each: usize,
    /// The percentage of the moments between that are explored.
    pub between: u8,
    /// The percentage of the states whose recovery is cut, too.
    pub again: u8,
    /// Whether the size of a file may reach the disk before the deletion of another that came first.
    /// No journaling file system does that, and SQLite, in DELETE mode with FULL, does not survive
    /// it: it truncates the database after it has deleted the journal, in which the pages that go are
    /// not saved.
    pub sizes_overtake: bool,
    /// What the disk lies about.
    pub lie: Option<Lie>,
}

/// What was explored without finding anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Transactions that were acknowledged.
    pub acknowledged: u32,
    /// Those of them that were committed in the middle of a checkpoint.
    pub beside_checkpoints: usize,
    /// And those while another's sync was under way.
    pub beside_syncs: usize,
    /// Things that were done to files.
    pub changes: usize,
    /// Syncs of files and of the directory.
    pub syncs: usize,
    /// Boundaries: before and after syncs, at locks, after acknowledgements.
    pub boundaries: usize,
    /// Moments between.
    pub between: usize,
    /// Disks that were opened and looked at, all different or with different things promised.
    pub states: usize,
    /// Those of them that are of a recovery.
    pub recoveries: usize,
    /// How long that took, with the workload.
    pub took: Duration,
}

/// A disk that is not as it should be.
#[derive(Debug)]
pub struct Failure {
    run: Run,
    /// How many events were recorded before the cut.
    moment: usize,
    /// And, of the recovery, before the second cut.
    again: Option<usize>,
    expected: Expected,
    fates: Vec<(PathBuf, Fate)>,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, moment, again, expected, fates, problem } = self;
        writeln!(f, "{problem}")?;
        if let Some(again) = again {
            writeln!(f, "a second power cut after event {again} of a recovery")?;
        }
        writeln!(f, "a power cut after event {moment} of {run:?}; {expected:?}")?;
        for (name, fate) in fates {
            writeln!(f, "  {}: {fate:?}", name.file_name().unwrap_or_default().display())?;
        }
        write!(f, "POWER_LOSS_SEED={} and the same settings explore it again", run.seed)
    }
}

impl std::error::Error for Failure {}

/// A VFS `kanban` over a base that records.
#[derive(Clone)]
pub struct Recording {
    name: String,
    base: Base,
    vfs: String,
}

impl Recording {
    /// Registers both, the base by that name. One exploration at a time.
    ///
    /// # Panics
    /// If the name is taken.
    #[must_use]
    pub fn register(name: &str) -> Self {
        let (base, vfs) = (Base::register(name), format!("kanban-over-{name}"));
        let options = kanban_vfs::Options::default();
        kanban_vfs::register(&options).expect("kanban registers");
        kanban_vfs::register(&options.with_name(&vfs).with_base(name)).expect("it registers");
        Self { name: name.to_owned(), base, vfs }
    }

    /// The same without `kanban`, but for looking at the disks.
    #[must_use]
    pub fn stock(&self) -> Self {
        Self { vfs: self.name.clone(), ..self.clone() }
    }

    /// Runs a workload and explores what power cuts make of it.
    ///
    /// # Errors
    /// The first disk that is not as it should be.
    ///
    /// # Panics
    /// If the workload itself fails.
    pub fn explore(&self, run: Run) -> Result<Report, Box<Failure>> {
        self.find(run, |_| true)
    }

    /// As [`Self::explore`], but passes over all problems that are not `wanted`.
    ///
    /// # Errors
    /// The first that is.
    ///
    /// # Panics
    /// If the workload itself fails.
    pub fn find(&self, run: Run, wanted: impl Fn(&str) -> bool) -> Result<Report, Box<Failure>> {
        let began = Instant::now();
        let board = directory();
        let workload = board::run(self.base, &self.vfs, board.path(), run);
        self.base.off();
        let mut explorer = Explorer {
            recording: self,
            run,
            wanted,
            random: Rng::with_seed(run.seed),
            disk: Disk::default(),
            left_over: ["board.db-shm", "board.db-lock"]
                .map(|name| (name, std::fs::read(board.path().join(name)).unwrap_or_default())),
            expected: Expected::default(),
            synced: 0,
            seen: HashSet::new(),
            moment: 0,
            report: Report {
                beside_checkpoints: workload.beside_checkpoints,
                beside_syncs: workload.beside_syncs,
                ..Report::default()
            },
        };
        explorer.explore(&workload.events)?;
        assert!(explorer.disk.matches(), "the record is not what happened");
        Ok(Report { took: began.elapsed(), ..explorer.report })
    }
}

/// The seed that the environment asks for, or another each time.
///
/// # Panics
/// If POWER_LOSS_SEED is no number.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("POWER_LOSS_SEED") {
        Ok(seed) => seed.parse().expect("POWER_LOSS_SEED is a number"),
        Err(_) => Rng::new().u64(..1_000_000),
    }
}

/// A directory in memory where there is one: it is not this machine's power that fails.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let new = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    new.expect("a temporary directory")
}

struct Explorer<'r, W> {
    recording: &'r Recording,
    run: Run,
    /// Whether a problem is one.
    wanted: W,
    random: Rng,
    disk: Disk,
    /// The `-shm` and `-lock` of the workload, as they were at its end.
    left_over: [(&'static str, Vec<u8>); 2],
    expected: Expected,
    /// How many transactions were acknowledged when the WAL was synced last.
    synced: u32,
    seen: HashSet<(u64, u32, u32)>,
    moment: usize,
    report: Report,
}

impl<W: Fn(&str) -> bool> Explorer<'_, W> {
    fn explore(&mut self, events: &[Event]) -> Result<(), Box<Failure>> {
        // Whether something has happened since the last boundary.
        let mut is_new = false;
        for (moment, event) in events.iter().enumerate() {
            self.moment = moment;
            if event.is_change() {
                if self.random.u8(..100) < self.run.between {
                    self.report.between += 1;
                    self.cut(None)?;
                }
                is_new = true;
                self.report.changes += 1;
            } else if std::mem::take(&mut is_new) {
                self.boundary()?;
            }
            self.disk.apply(event);
            self.moment += 1;
            match event {
                Event::Attempt(n, content) => self.expected.attempt(*n, *content),
                Event::Acknowledged(n) => {
                    self.expected.acknowledged = *n;
                    self.report.acknowledged = *n;
                    self.boundary()?;
                }
                Event::Sync(_, file) => {
                    if *file == File::Wal {
                        self.synced = self.expected.acknowledged;
                    }
                    self.report.syncs += 1;
                    self.boundary()?;
                }
                Event::SyncDirectory => {
                    self.report.syncs += 1;
                    self.boundary()?;
                }
                _ => {}
            }
        }
        self.boundary()
    }

    fn orders(&self) -> Orders {
        Orders { sizes_wait: !self.run.sizes_overtake, journals: self.run.mode.needs_order() }
    }

    fn boundary(&mut self) -> Result<(), Box<Failure>> {
        self.report.boundaries += 1;
        self.cut(Some(Fate::Lost))?;
        self.cut(Some(Fate::Kept))?;
        (0..self.run.of_each).try_for_each(|_| self.cut(None))
    }

    /// The power is cut now.
    fn cut(&mut self, fate: Option<Fate>) -> Result<(), Box<Failure>> {
        let state = self.disk.cut(fate, self.orders(), &mut self.random);
        let mut expected = self.expected.clone();
        match self.run.mode {
            Mode::WalNormal => expected.acknowledged = self.synced,
            Mode::DeleteFull | Mode::DeleteNormal if state.is_back => {
                expected.acknowledged = expected.acknowledged.saturating_sub(1);
            }
            _ => {}
        }
        if !self.seen.insert((state.digest(), expected.acknowledged, expected.attempted)) {
            return Ok(());
        }
        self.report.states += 1;
        let found = self.look_at(&state, &expected);
        self.check(found, None, &expected, &state)?;
        if self.random.u8(..100) < self.run.again {
            self.cut_again(&state, &expected)
        } else {
            Ok(())
        }
    }

    /// The power is cut while the board recovers.
    fn cut_again(&mut self, state: &State, expected: &Expected) -> Result<(), Box<Failure>> {
        let directory = directory();
        state.write(directory.path()).expect("there is room");
        let Recording { base, vfs, .. } = self.recording;
        let files = state.in_directory(directory.path());
        let (n, events) = match board::recover(*base, vfs, directory.path(), files, expected) {
            Ok(recovered) => recovered,
            Err(problem) => return self.check(Err(problem), Some(0), expected, state),
        };
        let expected = expected.exactly(n);
        let mut disk = Disk::of(state, directory.path());
        let mut seen = HashSet::new();
        for (moment, event) in events.iter().enumerate() {
            disk.apply(event);
            if event.is_change() && events.get(moment + 1).is_some_and(Event::is_change) {
                continue;
            }
            for fate in [Some(Fate::Lost), Some(Fate::Kept), None] {
                let state = disk.cut(fate, self.orders(), &mut self.random);
                if seen.insert(state.digest()) {
                    self.report.states += 1;
                    self.report.recoveries += 1;
                    let found = self.look_at(&state, &expected);
                    self.check(found, Some(moment + 1), &expected, &state)?;
                }
            }
        }
        assert!(disk.matches(), "the record is not what happened");
        Ok(())
    }

    fn check(
        &self,
        found: Result<(), String>,
        again: Option<usize>,
        expected: &Expected,
        state: &State,
    ) -> Result<(), Box<Failure>> {
        match found {
            Err(problem) if (self.wanted)(&problem) => Err(Box::new(Failure {
                run: self.run,
                moment: self.moment,
                again,
                expected: expected.clone(),
                fates: state.fates.clone(),
                problem,
            })),
            _ => Ok(()),
        }
    }

    fn look_at(&mut self, state: &State, expected: &Expected) -> Result<(), String> {
        let directory = directory();
        state.write(directory.path()).expect("there is room");
        for (name, last) in &self.left_over {
            let mut bytes = match self.random.u8(..4) {
                0 => continue,
                1 => (0..self.random.usize(..20_000)).map(|_| self.random.u8(..)).collect(),
                _ => last.clone(),
            };
            if self.random.u8(..4) == 0 {
                bytes.truncate(self.random.usize(..=bytes.len()));
            }
            std::fs::write(directory.path().join(name), bytes).expect("there is room");
        }
        board::look_at(directory.path(), expected)
    }
}

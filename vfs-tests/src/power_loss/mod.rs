//! Power cuts. A workload runs through `kanban` over a base VFS that records the calls on the files
//! (`record`). Then, for moments of that record, the test makes disks as a power cut at that moment
//! may leave them (`disk`). It opens them through `kanban` and looks at them (`board`).
//!
//! # What a state is
//! A moment of the record, and for each file the part of it that had reached the disk:
//! - its size is one of those it had since it was last synced;
//! - each sector of 512 bytes is what it was at some moment since then. So each write that was not
//!   synced may be lost, kept, torn, or have overtaken another one, of the same file or of others.
//!   Rarely, a sector is torn, too: between two writes, from one end to the other;
//! - where a file has grown, bytes that were never written are zeros or garbage;
//! - its name is in the directory, or not, as at some moment since the directory was last synced: a
//!   file that was created may be missing, and one that was deleted may be back. SQLite syncs the
//!   directory when `xDelete` is asked to, and at the first sync of each handle of a journal or a
//!   WAL. (Unless [`Run::sizes_overtake`], sizes do not overtake deletions. With NORMAL in a
//!   rollback mode, writes to the journal arrive in order: SQLite syncs it only once.)
//!
//! A write never changes bytes beside its own: the unix VFS claims
//! SQLITE_IOCAP_POWERSAFE_OVERWRITE. `-shm` and `-lock` promise nothing: they are missing, cut
//! short, garbage, or as they were at the end.
//!
//! The moments are those before and after each sync, at each lock and unlock that follows a change,
//! after each acknowledged transaction, and a sample of those between. For each moment there are
//! the disk that lost everything not synced, the disk that kept all of it, and some random ones.
//!
//! # What is asked of a state
//! The database opens, and `integrity_check` finds nothing. It has the content that some number of
//! transactions left, and no part of another. There are no more transactions than were attempted,
//! and no fewer than were acknowledged if their mode promises that ([`Mode`]). A row can be
//! written, and the writer has the write lock in the sidecar. For some states, the recovery itself
//! is recorded, and the power is cut again at its boundaries: then there are as many transactions
//! as the recovery found.
//!
//! # What is not modelled
//! Disks that lie about syncs, except to show that this is found ([`Lie`]); bit rot; several
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

/// `PRAGMA journal_mode` and `PRAGMA synchronous`. They decide which acknowledged transactions must
/// be there. <https://www.sqlite.org/pragma.html#pragma_synchronous>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All acknowledged transactions.
    WalFull,
    /// All, with group commit, where some commit while another's sync is under way.
    WalFullGroup,
    /// Those that were acknowledged before a checkpoint last synced the WAL.
    WalNormal,
    /// All, except the last one if its journal is back: FULL does not sync the directory after the
    /// journal was deleted.
    DeleteFull,
    /// The same, but only on disks that write the journal in order: its header may name pages
    /// before they are on the disk, and the checksum of a page in the journal does not cover all of
    /// the page.
    DeleteNormal,
    /// All.
    DeleteExtra,
    /// All.
    TruncateFull,
    /// All.
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

    /// Whether it only holds on disks that write journals in order.
    fn needs_order(self) -> bool {
        self == Self::DeleteNormal
    }

    /// Whether a deleted journal may be back without harm to more than the last transaction, unless
    /// the size of the database reached the disk before: see [`Run::sizes_overtake`].
    #[must_use]
    pub fn sizes_wait(self) -> bool {
        matches!(self, Self::DeleteFull | Self::DeleteNormal)
    }
}

/// A disk that reports syncs that it did not make. The test must find that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// No file is synced.
    Everything,
    /// No file of that kind is synced.
    About(File),
    /// The directory is not synced.
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
    /// The board's journal mode.
    pub mode: Mode,
    /// Decides everything that is random.
    pub seed: u64,
    /// How many random disks each boundary has, apart from the two fixed ones.
    pub of_each: usize,
    /// The percentage of the moments between boundaries that are explored.
    pub between: u8,
    /// The percentage of the states whose recovery is cut, too.
    pub again: u8,
    /// Whether the size of a file may reach the disk before an earlier deletion of another file. No
    /// journaling file system does that, and SQLite, in DELETE mode with FULL, does not survive it.
    /// It truncates the database after it has deleted the journal, which does not have the pages
    /// that are cut off.
    pub sizes_overtake: bool,
    /// What the disk lies about.
    pub lie: Option<Lie>,
}

/// What was explored without a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Transactions that were acknowledged.
    pub acknowledged: u32,
    /// Transactions of these that were committed in the middle of a checkpoint.
    pub beside_checkpoints: usize,
    /// Transactions of these that were committed while another's sync was under way.
    pub beside_syncs: usize,
    /// Changes of files.
    pub changes: usize,
    /// Syncs of files and of the directory.
    pub syncs: usize,
    /// Boundaries: before and after syncs, at locks, after acknowledgements.
    pub boundaries: usize,
    /// Moments between boundaries that were explored.
    pub between: usize,
    /// Disks that were opened and looked at. All differ, in content or in what is promised.
    pub states: usize,
    /// Disks of these that come from a recovery.
    pub recoveries: usize,
    /// How long that took, with the workload.
    pub took: Duration,
}

/// A disk that is not as it must be.
#[derive(Debug)]
pub struct Failure {
    run: Run,
    /// How many events were recorded before the cut.
    moment: usize,
    /// How many events of the recovery were recorded before the second cut.
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
    /// Registers both, the base by that name. Only one exploration runs at a time.
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

    /// The same without `kanban`, which is only used to look at the disks.
    #[must_use]
    pub fn stock(&self) -> Self {
        Self { vfs: self.name.clone(), ..self.clone() }
    }

    /// Runs a workload, and explores the disks that power cuts leave.
    ///
    /// # Errors
    /// The first disk that is not as it must be.
    ///
    /// # Panics
    /// If the workload itself fails.
    pub fn explore(&self, run: Run) -> Result<Report, Box<Failure>> {
        self.find(run, |_| true)
    }

    /// Like [`Self::explore`], but ignores problems that are not `wanted`.
    ///
    /// # Errors
    /// The first disk with a wanted problem.
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

/// The seed from the environment, or a random one.
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

/// A directory in memory if there is one, since no real power fails.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let new = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    new.expect("a temporary directory")
}

struct Explorer<'r, W> {
    recording: &'r Recording,
    run: Run,
    /// Whether a problem counts.
    wanted: W,
    random: Rng,
    disk: Disk,
    /// The `-shm` and `-lock` of the workload, as they were at its end.
    left_over: [(&'static str, Vec<u8>); 2],
    expected: Expected,
    /// How many transactions were acknowledged when the WAL was last synced.
    synced: u32,
    seen: HashSet<(u64, u32, u32)>,
    moment: usize,
    report: Report,
}

impl<W: Fn(&str) -> bool> Explorer<'_, W> {
    fn explore(&mut self, events: &[Event]) -> Result<(), Box<Failure>> {
        // Whether anything happened since the last boundary.
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

    /// Cuts the power now.
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

    /// Cuts the power while the board recovers.
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

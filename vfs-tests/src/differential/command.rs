//! The command: many seeds and several jobs. A difference is shrunk and printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::generate::generate;
use super::process::Program;
use super::run::{Found, Pair, Report};
use super::schedule::Schedule;
use super::shrink::shrink;
use super::worker;
use crate::STOCK_VFS;

/// The same schedules on the stock VFS and on ours, compared after every step.
#[derive(Debug, clap::Parser)]
pub struct Arguments {
    /// How many schedules.
    #[arg(long, default_value_t = 1000)]
    pub seeds: u64,
    /// The first one's seed; the next one's is one more.
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// Run schedules for this number of seconds instead.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Which SQLite; with `both`, they take turns.
    #[arg(long, default_value = "both")]
    pub sqlite: Sqlite,
    /// Whether our side has group commit; with `both`, seeds take turns.
    #[arg(long, default_value = "both")]
    pub group_commit: GroupCommit,
    /// How many schedules run at a time. By default one for each processor.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Where the databases are.
    #[arg(long, default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Go on after a difference, up to so many.
    #[arg(long, default_value_t = 1)]
    pub differences: u64,
    /// Print a difference as it was found, without shrinking its schedule.
    #[arg(long)]
    pub no_shrink: bool,
    /// Run the schedule that is in this file instead, as it was printed.
    #[arg(long)]
    pub replay: Option<PathBuf>,
    /// What a worker is started with.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands by which the program starts itself.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Does what it is told on its standard input.
    #[command(hide = true)]
    Worker(worker::Arguments),
}

/// Which SQLite the workers load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sqlite {
    /// The one that rusqlite bundles.
    Newest,
    /// Debian's.
    #[value(name = "3.40.1")]
    Debian,
    /// Each in turn.
    Both,
}

/// Whether our side has group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupCommit {
    /// It has.
    On,
    /// It has not.
    Off,
    /// For every second pair of seeds.
    Both,
}

/// The settings with which a schedule is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whether with Debian's SQLite; otherwise with the newest.
    pub debian: bool,
    /// Whether our side has group commit.
    pub group_commit: bool,
}

impl Setting {
    /// The setting for a seed.
    fn of(arguments: &Arguments, seed: u64) -> Self {
        Self {
            debian: match arguments.sqlite {
                Sqlite::Newest => false,
                Sqlite::Debian => true,
                Sqlite::Both => seed % 2 == 1,
            },
            group_commit: match arguments.group_commit {
                GroupCommit::On => true,
                GroupCommit::Off => false,
                GroupCommit::Both => seed / 2 % 2 == 1,
            },
        }
    }

    /// The programs of both sides; `executable` is this program, `extension` the built VFS.
    #[must_use]
    pub fn programs(self, executable: &Path, extension: &Path) -> [Program; 2] {
        let sqlite = if self.debian { DEBIAN_SQLITE } else { env!("NEWEST_SQLITE") };
        let program = |extension, parameters: String| Program {
            executable: executable.to_owned(),
            sqlite: sqlite.into(),
            extension,
            parameters,
        };
        let group = u8::from(self.group_commit);
        [
            program(None, format!("vfs={STOCK_VFS}")),
            program(Some(extension.to_owned()), format!("vfs=kanban&kanban_group_commit={group}")),
        ]
    }
}

/// The report's name for differences that the stock VFS has with itself.
const CHANCE: &str = "the stock VFS differs from itself";

/// How often two stock sides are compared after a difference.
const CHANCES: usize = 8;

const DEBIAN_SQLITE: &str = "libsqlite3.so.0";

/// What all jobs share.
struct Shared<'a> {
    arguments: &'a Arguments,
    executable: PathBuf,
    home: PathBuf,
    next: AtomicU64,
    found: AtomicU64,
    stop: AtomicBool,
    deadline: Option<Instant>,
    report: Mutex<Report>,
}

/// Runs all schedules.
///
/// # Panics
/// If there is no place for the databases, or the extension cannot be built.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let shared = Shared {
        arguments,
        executable: std::env::current_exe().expect("it has a path"),
        home: arguments.dir.join(format!("differential-{}", std::process::id())),
        next: AtomicU64::new(arguments.first),
        found: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        deadline: arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        report: Mutex::default(),
    };
    crate::extension();
    let began = Instant::now();
    if let Some(file) = &arguments.replay {
        shared.replay(file);
    } else {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for job in 0..arguments.jobs.unwrap_or(processors) {
                let shared = &shared;
                scope.spawn(move || shared.job(job));
            }
            scope.spawn(|| shared.progress(began));
        });
    }
    let _ = std::fs::remove_dir_all(&shared.home);
    let seconds = began.elapsed().as_secs_f64();
    let report = shared.report.lock().expect("no job has panicked");
    println!("{report}; {seconds:.0} s, {:.0} schedules/s", report.schedules as f64 / seconds);
    match shared.found.load(Ordering::Relaxed) {
        0 => ExitCode::SUCCESS,
        found => {
            println!("{found} with a difference");
            ExitCode::FAILURE
        }
    }
}

impl Shared<'_> {
    fn pair(&self, setting: Setting, name: &str) -> Pair {
        let [stock, ours] = setting.programs(&self.executable, crate::extension());
        Pair::new(stock, ours, &self.home.join(name))
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    fn job(&self, job: usize) {
        let _ends = EndsAll(&self.stop);
        let mut pairs: Vec<(Setting, Pair)> = Vec::new();
        let end = match self.deadline {
            Some(_) => u64::MAX,
            None => self.arguments.first.saturating_add(self.arguments.seeds),
        };
        while !self.is_over() {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let setting = Setting::of(self.arguments, seed);
            let at = pairs.iter().position(|(other, _)| *other == setting).unwrap_or_else(|| {
                let name = format!("{job}-{}", pairs.len());
                pairs.push((setting, self.pair(setting, &name)));
                pairs.len() - 1
            });
            let schedule = generate(seed);
            let mut report = Report::default();
            let found = pairs[at].1.run(&schedule, false, &mut report);
            self.report.lock().expect("no job has panicked").add(&report);
            if let Some(found) = found {
                if self.is_chance(&schedule, setting, &found, job) {
                    let mut chance = Report::default();
                    chance.allowed.insert(CHANCE, 1);
                    self.report.lock().expect("no job has panicked").add(&chance);
                    continue;
                }
                if self.found.fetch_add(1, Ordering::Relaxed) + 1 >= self.arguments.differences {
                    self.stop.store(true, Ordering::Relaxed);
                }
                self.tell(&schedule, setting, &format!("seed {seed}"), &found, &mut pairs[at].1);
            }
        }
    }

    /// Whether the stock VFS differs from itself in the same way: what SQLite writes to a file that
    /// was cut can depend on uninitialised memory.
    fn is_chance(&self, schedule: &Schedule, setting: Setting, found: &Found, job: usize) -> bool {
        let [[one, _], [other, _]] =
            [(); 2].map(|()| setting.programs(&self.executable, crate::extension()));
        let mut pair = Pair::of_stock(one, other, &self.home.join(format!("{job}-chance")));
        (0..CHANCES).any(|_| {
            pair.run(schedule, true, &mut Report::default()).is_some_and(|chance| {
                chance.at == found.at && chance.difference.is_like(&found.difference)
            })
        })
    }

    /// Prints a difference, with a schedule that is as short as possible.
    fn tell(
        &self,
        schedule: &Schedule,
        setting: Setting,
        name: &str,
        found: &Found,
        pair: &mut Pair,
    ) {
        let mut nothing = Report::default();
        let like = |other: &Option<Found>| {
            other.as_ref().is_some_and(|other| other.difference.is_like(&found.difference))
        };
        let mut text = format!("\n{name}, {setting:?}: {found}");
        if !like(&pair.run(schedule, true, &mut nothing)) {
            text.push_str(
                "It does not show in new processes: earlier schedules led to it, or chance.\n",
            );
            text.push_str(&format!("{schedule}"));
        } else if !self.arguments.no_shrink {
            let short = shrink(schedule, |shorter| like(&pair.run(shorter, true, &mut nothing)));
            if let Some(found) = pair.run(&short, true, &mut nothing) {
                text.push_str(&format!("Shrunk:\n{short}{found}"));
            }
            text.push_str(&format!("{}\n", serde_json::to_string(&short).expect("text")));
        }
        println!("{text}");
    }

    fn replay(&self, file: &Path) {
        let text = std::fs::read_to_string(file).expect("the file can be read");
        let schedule: Schedule = serde_json::from_str(&text).expect("a schedule, as printed");
        for seed in 0..4 {
            let setting = Setting::of(self.arguments, seed);
            let mut pair = self.pair(setting, &format!("replay-{seed}"));
            let mut report = Report::default();
            let found = pair.run(&schedule, true, &mut report);
            self.report.lock().expect("one thread").add(&report);
            if let Some(found) = found {
                self.found.fetch_add(1, Ordering::Relaxed);
                println!("{setting:?}: {found}");
            }
        }
    }

    /// Prints a line from time to time.
    fn progress(&self, began: Instant) {
        let mut told = Instant::now();
        while !self.is_over() {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let done = self.report.lock().expect("no job has panicked").schedules;
                eprintln!("{done} schedules in {} s", began.elapsed().as_secs());
            }
        }
    }
}

/// When a job ends, at its last seed or by a panic, this makes the others end after their current
/// schedule.
struct EndsAll<'a>(&'a AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

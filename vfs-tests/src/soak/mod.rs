//! The soak: many kinds of clients on one board are killed, stopped and replaced. A model of the
//! commits that were acknowledged to them is checked all the time. Of the connections on this VFS,
//! every second one has group commit.
//!
//! It fails, stops at once, and keeps the directory in these cases:
//!
//! - an acknowledged row is missing, wrong or there twice; a transaction is torn; or a row is there
//!   that no client wrote, or that was rolled back;
//! - integrity_check finds anything;
//! - a client sees an error other than SQLITE_BUSY;
//! - a client of ours waits longer than its busy timeout, or any client hangs or crashes;
//! - a process that lives long has more and more descriptors;
//! - the WAL does not restart although no client holds a long snapshot;
//! - with observers, the file was ever shorter than its header said.

pub mod crew;
pub mod diary;
pub mod model;
pub mod random;
pub mod rows;
mod summary;
pub mod worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rusqlite::Connection;

use crate::PATIENCE;
use crate::observers::Observers;
use crew::{Birth, Kind, Process};
use diary::Line;
use model::Model;
use random::Random;
pub use summary::Summary;
use worker::Role;

/// Many kinds of clients on one board, for as long as one likes.
#[derive(Debug, clap::Parser)]
pub struct Arguments {
    /// For how long.
    #[arg(long, default_value_t = 1.0)]
    pub minutes: f64,
    /// End after this number of kills instead.
    #[arg(long)]
    pub kills: Option<u64>,
    /// How often a process is killed.
    #[arg(long, default_value_t = 40.0)]
    pub kills_per_minute: f64,
    /// How many processes there are at a time.
    #[arg(long, default_value_t = 20)]
    pub processes: usize,
    /// Writers only.
    #[arg(long)]
    pub writers: bool,
    /// All clients on the stock VFS, to see what this finds.
    #[arg(long)]
    pub stock: bool,
    /// All clients on this VFS, and three observers that compare the file's length with its header all the time.
    #[arg(long, conflicts_with_all = ["stock", "come_and_go"])]
    pub observers: bool,
    /// Clients that soon leave, so that the board is often closed by the last one, and recovered by
    /// the next.
    #[arg(long)]
    pub come_and_go: bool,
    /// The seed of the random numbers; the operating system's choices are not reproduced.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The busy timeout of all clients, in ms.
    #[arg(long, default_value_t = 20_000)]
    pub timeout: u64,
    /// The summary as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(subcommand)]
    #[allow(missing_docs, reason = "hidden")]
    pub command: Option<Command>,
}

/// What the program is when it is not the parent.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// A client.
    #[command(hide = true)]
    Worker(worker::Worker),
}

/// How long a client of ours may wait beyond its timeout, since it was stopped or not scheduled.
const GRACE_MS: u64 = 8000;

/// How many numbers a process has for its connections.
const BLOCK: u64 = 1 << 20;

/// How long a process is stopped at most, in ms.
const STOP_MS: u64 = 700;

/// The period in which long readers come and go: they are there during its first part.
const PERIOD: Duration = Duration::from_secs(30);

/// Runs the soak.
///
/// # Panics
/// If the machine does not allow it.
#[must_use]
pub fn run(arguments: &Arguments) -> Summary {
    let directory = tempfile::Builder::new().prefix("soak-").tempdir().expect("a directory");
    let mut soak = Soak::new(arguments, directory.path().canonicalize().expect("it exists"));
    let outcome = soak.run();
    soak.summary.seconds = soak.began.elapsed().as_secs_f64();
    if let Err(failure) = outcome {
        // The clients are killed at once, before they change more of the board.
        soak.crew.clear();
        soak.leaving.clear();
        soak.summary.failure = Some(failure);
        soak.summary.directory = Some(directory.keep());
    }
    soak.summary
}

struct Soak<'a> {
    arguments: &'a Arguments,
    directory: PathBuf,
    program: PathBuf,
    random: Random,
    began: Instant,
    board: Connection,
    model: Model,
    /// One process for each kind of the crew.
    crew: Vec<Process>,
    /// Processes that were replaced but still run, or whose children still run.
    leaving: Vec<Process>,
    next_id: u64,
    /// Connections that have quit since the last check.
    quit: Vec<u64>,
    /// Connections that are gone, whose rows are still there.
    dead: Vec<u64>,
    /// Whether each connection uses our VFS.
    ours: std::collections::HashMap<u64, bool>,
    /// When processes were killed, in ms, without any commit since.
    killed_at: Vec<u64>,
    /// How many descriptors the elders had at each look.
    descriptors: Vec<u64>,
    /// The smallest size of the WAL in this calm.
    calm: Option<u64>,
    bar: ProgressBar,
    summary: Summary,
}

impl<'a> Soak<'a> {
    fn new(arguments: &'a Arguments, directory: PathBuf) -> Self {
        let seed = arguments.seed.unwrap_or_else(|| diary::now() ^ u64::from(std::process::id()));
        if !arguments.stock {
            kanban_vfs::register(&kanban_vfs::Options::default()).expect("the VFS registers");
        }
        let board = connect(arguments, &directory).expect("a new board");
        board.execute_batch("PRAGMA journal_mode=wal").expect("a new board");
        board.execute_batch(rows::SCHEMA).expect("a new board");
        let length = arguments.kills.unwrap_or((arguments.minutes * 60_000.0) as u64);
        let style = "{elapsed_precise} {wide_bar} {msg}";
        let bar = ProgressBar::new(length)
            .with_style(ProgressStyle::with_template(style).expect("a template"));
        Self {
            arguments,
            directory,
            program: std::env::current_exe().expect("it runs"),
            random: Random::new(seed),
            began: Instant::now(),
            board,
            model: Model::default(),
            crew: Vec::new(),
            leaving: Vec::new(),
            next_id: 1,
            quit: Vec::new(),
            dead: Vec::new(),
            ours: std::collections::HashMap::new(),
            killed_at: Vec::new(),
            descriptors: Vec::new(),
            calm: None,
            bar,
            summary: Summary { seed, ..Summary::default() },
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let kinds = Kind::crew(self.arguments.processes, self.arguments.writers);
        for kind in kinds {
            let kind = match (self.arguments.stock, self.arguments.observers) {
                (true, _) => kind.on_stock(),
                (_, true) => kind.on_ours(),
                _ => kind,
            };
            let process = self.start(kind);
            self.crew.push(process);
        }
        let observers = self.arguments.observers.then(|| {
            // This makes the file ahead before the observers look.
            self.board.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).expect("a checkpoint");
            Observers::start(&self.directory.join("board.db"))
        });
        let mut kill = Timer::new(60.0 / self.arguments.kills_per_minute);
        let mut stop = Timer::new(3.0);
        let mut look = Timer::new(1.0);
        let mut check = Timer::new(2.0);
        while !self.is_over() {
            std::thread::sleep(Duration::from_millis(10));
            self.replace()?;
            self.listen()?;
            self.wake(false);
            if kill.is_due(&mut self.random) {
                self.kill();
            }
            if stop.is_due(&mut self.random) {
                self.stop();
            }
            if self.arguments.come_and_go {
                self.board = Connection::open_in_memory().expect("memory");
            } else if look.is_due(&mut self.random) {
                self.look()?;
            }
            if check.is_due(&mut self.random) {
                let began = Instant::now();
                self.check(self.summary.checks % 5 == 4)?;
                check.postpone(began.elapsed() * 4);
            }
            let seen = observers.as_ref().map(Observers::deficits).unwrap_or_default();
            if !seen.is_empty() {
                return Err(format!(
                    "observers have seen a file shorter than its header: {seen:?}"
                ));
            }
            self.show();
        }
        if let Some(observers) = observers {
            let kept = observers.seen().len();
            let seen = observers.end();
            if !seen.is_empty() {
                return Err(format!(
                    "observers have seen a file shorter than its header: {seen:?}"
                ));
            }
            println!("{kept} looks of observers that were kept from running found a deficit");
        }
        self.end()
    }

    fn is_over(&self) -> bool {
        match self.arguments.kills {
            Some(kills) => self.summary.kills >= kills,
            None => self.began.elapsed().as_secs_f64() >= self.arguments.minutes * 60.0,
        }
    }

    fn start(&mut self, kind: Kind) -> Process {
        let first = self.next_id;
        self.next_id += BLOCK;
        self.summary.processes += 1;
        let steps = match kind {
            Kind::Rust(Role::Elder) => u64::MAX,
            _ if self.arguments.come_and_go => self.random.between(1, 8),
            _ => self.random.between(20, 3000),
        };
        Process::start(
            kind,
            &Birth {
                program: &self.program,
                directory: &self.directory,
                seed: self.summary.seed,
                first,
                steps,
                timeout: self.arguments.timeout,
                stock: self.arguments.stock,
            },
        )
    }

    /// Starts processes in place of those that ended.
    fn replace(&mut self) -> Result<(), String> {
        for n in 0..self.crew.len() {
            let is_calm = self.is_calm();
            let process = &mut self.crew[n];
            let is_silent = process.heard.elapsed() > PATIENCE / 2;
            if is_silent && !(is_calm && process.kind == Kind::Rust(Role::LongReader)) {
                return Err(format!("{:?} hangs", process.kind));
            }
            if process.kind == Kind::Rust(Role::LongReader) && is_calm {
                if !process.killed {
                    process.killed = true;
                    process.signal(libc::SIGKILL);
                    self.summary.kills += 1;
                }
                continue;
            }
            if process.has_ended()? {
                let kind = process.kind;
                let next = self.start(kind);
                self.leaving.push(std::mem::replace(&mut self.crew[n], next));
            }
        }
        Ok(())
    }

    /// Whether there are no long readers at present.
    fn is_calm(&self) -> bool {
        let period = PERIOD.min(Duration::from_secs_f64(self.arguments.minutes * 60.0));
        self.since_period(period) > period * 3 / 5
    }

    fn since_period(&self, period: Duration) -> Duration {
        Duration::from_secs_f64(self.began.elapsed().as_secs_f64() % period.as_secs_f64())
    }

    /// Reads the diaries.
    fn listen(&mut self) -> Result<(), String> {
        let mut commits = Vec::new();
        let limit = self.arguments.timeout;
        for process in self.crew.iter_mut().chain(&mut self.leaving) {
            for (id, line) in process.lines() {
                self.model.said(id, &line)?;
                let ours = self.ours.get(&id).copied().unwrap_or(false);
                match line {
                    Line::Attempt(_) => self.summary.attempts += 1,
                    Line::Vfs(vfs) => {
                        self.ours.insert(id, vfs == "kanban");
                    }
                    Line::Committed { waited, at, .. } => {
                        commits.push(at);
                        self.summary.of(ours).committed(waited);
                        bound(limit, ours, waited, process.kind)?;
                    }
                    Line::Busy { waited, .. } => {
                        self.summary.of(ours).gave_up += 1;
                        bound(limit, ours, waited, process.kind)?;
                    }
                    Line::Refused(_) => self.summary.of(ours).refused += 1,
                    Line::Quit => self.quit.push(id),
                    Line::Did(what) => *self.summary.did.entry(what).or_default() += 1,
                    Line::Failed(text) => {
                        return Err(format!("{:?}, connection {id}: {text}", process.kind));
                    }
                }
            }
        }
        let summary = &mut self.summary;
        self.killed_at.retain(|killed| {
            let next = commits.iter().filter(|at| **at > *killed).min();
            let longest = &mut summary.longest_pause_after_kill_ms;
            *longest = (*longest).max(next.map_or(0, |at| at - killed));
            next.is_none()
        });
        match summary.longest_pause_after_kill_ms > PATIENCE.as_millis() as u64 {
            true => Err("nobody went on after a kill".to_owned()),
            false => Ok(()),
        }
    }

    fn kill(&mut self) {
        let n = self.random.between(0, self.crew.len() as u64) as usize;
        let process = &mut self.crew[n];
        if process.kind.is_mortal() && !process.killed {
            process.killed = true;
            self.killed_at.push(diary::now());
            process.signal(libc::SIGKILL);
            self.summary.kills += 1;
        }
    }

    fn stop(&mut self) {
        let ms = self.random.between(20, STOP_MS);
        let n = self.random.between(0, self.crew.len() as u64) as usize;
        let process = &mut self.crew[n];
        if process.stopped.is_none() {
            process.signal(libc::SIGSTOP);
            process.stopped = Some(Instant::now() + Duration::from_millis(ms));
            self.summary.stops += 1;
        }
    }

    /// Continues the processes that were stopped long enough, or all.
    fn wake(&mut self, all: bool) {
        for process in self.crew.iter_mut().chain(&mut self.leaving) {
            if process.stopped.is_some_and(|until| all || until <= Instant::now()) {
                process.signal(libc::SIGCONT);
                process.stopped = None;
            }
        }
    }

    /// Looks at the size of the WAL, and at the elders' descriptors.
    fn look(&mut self) -> Result<(), String> {
        let wal = self.directory.join("board.db-wal").metadata().map_or(0, |wal| wal.len());
        self.summary.largest_wal = self.summary.largest_wal.max(wal);
        let frames = "PRAGMA wal_checkpoint(NOOP)";
        let frames = self.board.query_row(frames, [], |row| row.get::<_, i64>(1));
        let frames = frames.map_err(|error| format!("looking at the WAL: {error}"))?;
        let pages: i64 = self
            .board
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .map_err(|error| format!("looking at the board: {error}"))?;
        self.summary.largest_board_pages =
            self.summary.largest_board_pages.max(pages.unsigned_abs());
        if self.is_calm() {
            self.calm = Some(self.calm.unwrap_or(u64::MAX).min(frames.unsigned_abs()));
        } else if let Some(shortest) = self.calm.take() {
            self.summary.calms += 1;
            self.summary.longest_calm_wal = self.summary.longest_calm_wal.max(shortest);
            // Checkpoints begin at 1000 frames; VACUUM writes more on top.
            let bound = 4000 + 2 * pages.unsigned_abs();
            if shortest > bound {
                return Err(format!("the WAL has {shortest} frames and does not begin anew"));
            }
        }
        let elders = self.crew.iter().filter(|process| !process.kind.is_mortal());
        for now in elders.map(Process::descriptors) {
            self.descriptors.push(now);
            self.summary.most_descriptors = self.summary.most_descriptors.max(now);
            let first = self.descriptors.iter().take(20).max().copied().unwrap_or(0);
            if now > 2 * first + 16 {
                return Err(format!("an elder had {first} descriptors, and now {now}"));
            }
        }
        Ok(())
    }

    /// Compares the board with the model, and checks its pages, too, if asked to.
    fn check(&mut self, pages: bool) -> Result<(), String> {
        // A stopped client may hold a lock that this waits for.
        self.wake(true);
        if self.arguments.come_and_go {
            self.board = connect(self.arguments, &self.directory).map_err(|e| e.to_string())?;
        }
        // What these processes have begun is done by now, or will never be.
        let mut gone = Vec::new();
        for process in &mut self.leaving {
            let is_gone = process.is_gone()?;
            if !is_gone && process.heard.elapsed() > PATIENCE {
                return Err(format!("{:?} or a child of it hangs", process.kind));
            }
            gone.push(is_gone);
        }
        self.listen()?;
        let quit = std::mem::take(&mut self.quit);
        let found = self.model.check_acknowledged(&self.board)?;
        self.listen()?;
        let mut is_gone = gone.into_iter();
        let gone = self.leaving.extract_if(.., |_| is_gone.next().unwrap_or(false));
        let gone: Vec<u64> = gone.flat_map(|process| process.ids()).chain(quit).collect();
        self.model.check_attempted(&found, &gone)?;
        self.dead.extend(gone);
        self.summary.checks += 1;
        self.summary.rows_compared += found.rows();
        if pages {
            self.summary.quick_checks += 1;
            pages_are_right(&self.board, "quick_check")?;
        }
        self.retire()
    }

    /// Deletes the rows of dead writers, so that the board stays small.
    fn retire(&mut self) -> Result<(), String> {
        if self.model.committed(&self.dead) < 3000 {
            return Ok(());
        }
        let list: Vec<String> = self.dead.iter().map(u64::to_string).collect();
        let list = list.join(",");
        let sql = format!(
            "BEGIN IMMEDIATE;
             UPDATE tally SET retired = retired
               + (SELECT count(*) FROM row WHERE part = 0 AND writer IN ({list}));
             DELETE FROM row WHERE writer IN ({list});
             COMMIT"
        );
        match self.board.execute_batch(&sql) {
            Ok(()) => {
                self.summary.retired += self.model.committed(&self.dead) as u64;
                self.model.retire(&self.dead);
                self.dead.clear();
                Ok(())
            }
            Err(error) => Err(format!("the parent could not write: {error}")),
        }
    }

    fn show(&self) {
        let summary = &self.summary;
        self.bar.set_position(match self.arguments.kills {
            Some(_) => summary.kills,
            None => self.began.elapsed().as_millis() as u64,
        });
        self.bar.set_message(format!(
            "{} commits, {} kills, {} checks",
            summary.ours.commits + summary.stock.commits,
            summary.kills,
            summary.checks
        ));
    }

    /// Ends all clients, and checks the board once more, through both VFSes.
    fn end(&mut self) -> Result<(), String> {
        std::fs::write(self.directory.join("stop"), "").expect("a place for it");
        self.wake(true);
        self.leaving.append(&mut self.crew);
        let began = Instant::now();
        while !self.leaving.is_empty() {
            if began.elapsed() > PATIENCE {
                let kinds: Vec<Kind> = self.leaving.iter().map(|process| process.kind).collect();
                return Err(format!("{kinds:?} do not end"));
            }
            std::thread::sleep(Duration::from_millis(50));
            self.check(false)?;
        }
        self.check(true)?;
        pages_are_right(&self.board, "integrity_check")?;
        let path = self.directory.join("board.db");
        let stock = Connection::open(format!("file:{}?vfs=unix", path.display()));
        let stock = stock.map_err(|error| error.to_string())?;
        pages_are_right(&stock, "integrity_check")?;
        self.summary.rows_compared += self.model.check_acknowledged(&stock)?.rows();
        self.bar.finish_and_clear();
        Ok(())
    }
}

/// Whether a client of ours waited no longer than it should.
fn bound(limit: u64, ours: bool, waited: u64, kind: Kind) -> Result<(), String> {
    match ours && waited > limit + GRACE_MS {
        true => Err(format!("{kind:?} waited {waited} ms, its timeout is {limit} ms")),
        false => Ok(()),
    }
}

/// The parent's connection.
fn connect(arguments: &Arguments, directory: &Path) -> rusqlite::Result<Connection> {
    let vfs = if arguments.stock { "unix" } else { "kanban" };
    let path = directory.join("board.db");
    let board = Connection::open(format!("file:{}?vfs={vfs}", path.display()))?;
    board.busy_timeout(Duration::from_secs(30))?;
    Ok(board)
}

fn pages_are_right(board: &Connection, check: &str) -> Result<(), String> {
    let found = board
        .pragma_query_value(None, check, |row| row.get::<_, String>(0))
        .map_err(|error| format!("{check}: {error}"))?;
    if found == "ok" { Ok(()) } else { Err(format!("{check}: {found}")) }
}

/// An event at random times, with a mean interval.
struct Timer {
    mean: Duration,
    next: Instant,
}

impl Timer {
    fn new(seconds: f64) -> Self {
        let mean = Duration::from_secs_f64(seconds);
        Self { mean, next: Instant::now() + mean }
    }

    fn is_due(&mut self, random: &mut Random) -> bool {
        let is_due = Instant::now() >= self.next;
        if is_due {
            let share = random.between(0, 2000) as f64 / 1000.0;
            self.next = Instant::now() + self.mean.mul_f64(share);
        }
        is_due
    }

    fn postpone(&mut self, by: Duration) {
        self.next += by;
    }
}

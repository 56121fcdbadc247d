//! `stress`: a burst of writer processes, some of which are killed, and what is left of their rows.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use rusqlite::{Connection, TransactionBehavior, params};
use serde_json::{Value, json};

use crate::svg::{self, Frame, Tick};
use crate::{Result, say, text, uri};

/// The options of a burst.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A new board to make and keep; without it, a temporary one.
    pub(crate) board: Option<PathBuf>,
    /// Use an existing board: a table kanban_vfs_stress is added, and dropped afterwards.
    #[arg(long, requires = "board")]
    existing: bool,
    /// How many processes write.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    processes: u64,
    /// How many transactions each process commits.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    transactions: u64,
    /// The pause after each transaction, in ms.
    #[arg(long, default_value_t = 1)]
    think: u64,
    /// The journal mode of a new board; an existing one keeps its own.
    #[arg(long, value_enum, default_value_t = Journal::Wal)]
    journal: Journal,
    /// PRAGMA synchronous of each writer.
    #[arg(long, value_enum, default_value_t = Synchronous::Normal)]
    synchronous: Synchronous,
    /// How many times a minute a process is killed (SIGKILL) and started again.
    #[arg(long, default_value_t = 0, value_name = "N")]
    kill_per_minute: u64,
    /// The VFS that the writers use: this one, or the stock one to compare.
    #[arg(long, value_enum, default_value_t = Vfs::Kanban)]
    vfs: Vfs,
    /// The busy timeout, in ms.
    #[arg(long, default_value_t = 30_000)]
    busy_timeout: u64,
    /// Keep the temporary board, or the table of an existing one.
    #[arg(long)]
    keep: bool,
    /// As a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw into that file how long each transaction waited, over time.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// `PRAGMA journal_mode`
#[derive(Clone, Copy, ValueEnum)]
enum Journal {
    Wal,
    Delete,
    Truncate,
    Persist,
}

/// `PRAGMA synchronous`
#[derive(Clone, Copy, ValueEnum)]
enum Synchronous {
    Off,
    Normal,
    Full,
    Extra,
}

/// The VFS that the writers use.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Vfs {
    Kanban,
    Unix,
}

/// What a writer process is asked to do.
#[derive(clap::Args)]
pub(crate) struct Orders {
    board: PathBuf,
    vfs: String,
    synchronous: String,
    busy_timeout: u64,
    think: u64,
    writer: u64,
    /// The numbers of the first and the last of its rows.
    first: u64,
    last: u64,
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The board of a burst, and what is removed afterwards.
struct Place {
    board: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn of(arguments: &Arguments) -> Result<Self> {
        let Some(board) = &arguments.board else {
            let directory = tempfile::Builder::new().prefix("kanban-vfs-stress-").tempdir()?;
            let board = directory.path().join("board.db");
            return Ok(Self { board, temporary: Some(directory) });
        };
        if arguments.existing {
            crate::observe(board)?;
            return Ok(Self { board: board.canonicalize()?, temporary: None });
        }
        let created = OpenOptions::new().write(true).create_new(true).open(board);
        created.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!("{}: there is such a file; --existing to use it", board.display())
            }
            _ => format!("{}: cannot be created: {error}", board.display()),
        })?;
        Ok(Self { board: board.canonicalize()?, temporary: None })
    }
}

/// What all writers together reported so far.
#[derive(Default)]
struct Reports {
    /// The writer and the number of each row whose commit was acknowledged.
    acknowledged: BTreeSet<(u64, u64)>,
    waits: Vec<Duration>,
    /// When each of these waits was reported, since the burst began.
    at: Vec<Duration>,
    /// The errors of failed transactions and writers.
    errors: Vec<String>,
}

/// Set at the first SIGINT or SIGTERM; the second one ends the process as it would by default.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Registered before the handler that sets the flag, so that the first signal does not end
        // the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&is_interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    Ok(is_interrupted)
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    let is_interrupted = interrupted()?;
    let place = Place::of(arguments)?;
    let about = |error: rusqlite::Error| format!("{}: {error}", place.board.display());
    let connection = Connection::open(uri(&place.board, &name_of(arguments.vfs))).map_err(about)?;
    connection.busy_timeout(Duration::from_millis(arguments.busy_timeout))?;
    if !arguments.existing {
        let journal = name_of(arguments.journal);
        let set: String = connection
            .pragma_update_and_check(None, "journal_mode", &journal, |row| row.get(0))
            .map_err(about)?;
        if set != journal {
            return Err(format!("journal_mode is {set}, not {journal}").into());
        }
    }
    connection
        .execute_batch(
            "CREATE TABLE kanban_vfs_stress (
                writer INTEGER, number INTEGER, PRIMARY KEY (writer, number))",
        )
        .map_err(|error| match error.to_string() {
            text if text.contains("already exists") => format!(
                "{}: a table kanban_vfs_stress already exists; if it was left by an earlier burst: \
                 DROP TABLE kanban_vfs_stress",
                place.board.display()
            ),
            _ => about(error),
        })?;

    let began = Instant::now();
    let done = burst(arguments, &place.board, &is_interrupted);
    let elapsed = began.elapsed();
    let told = if is_interrupted.load(Ordering::Relaxed) {
        Err("interrupted: the rows were not checked".into())
    } else {
        done.and_then(|(reports, kills)| {
            let outcome = Outcome::of(&connection, &reports, kills, elapsed)?;
            if let Some(file) = &arguments.svg {
                std::fs::write(file, drawing(&reports, elapsed))
                    .map_err(|error| format!("{}: {error}", file.display()))?;
            }
            Ok((outcome, reports))
        })
    };
    // This happens after a failure, too.
    if arguments.existing && !arguments.keep {
        connection.execute_batch("DROP TABLE kanban_vfs_stress").map_err(about)?;
    }
    drop(connection);
    let kept = match place.temporary {
        Some(directory) if arguments.keep => Some(directory.keep().join("board.db")),
        Some(_) => None,
        None => Some(place.board),
    };
    let told = told.and_then(|(outcome, reports)| {
        match arguments.json {
            true => say(&format!("{:#}\n", outcome.as_json(&reports, kept.as_deref())))?,
            false => say(&outcome.as_text(&reports))?,
        }
        Ok(outcome.is_well())
    });
    if let Some(kept) = kept.filter(|_| !arguments.json) {
        say(&format!("kept         {}\n", kept.display()))?;
    }
    told
}

/// Runs all writers to their end, or kills them if the burst is interrupted. Also returns how many
/// were killed before.
fn burst(
    arguments: &Arguments,
    board: &Path,
    is_interrupted: &AtomicBool,
) -> Result<(Reports, u64)> {
    let total = arguments.processes * arguments.transactions;
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} transactions, {per_sec}{msg}",
    )?);
    let reports = Mutex::new(Reports::default());
    let running: Vec<Mutex<Option<Child>>> =
        (0..arguments.processes).map(|_| Mutex::new(None)).collect();
    let orders = Burst { arguments, board, is_interrupted, began: Instant::now() };
    let (kills, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..arguments.processes)
            .map(|writer| {
                let (reports, bar) = (&reports, &bar);
                let place = &running[writer as usize];
                scope.spawn(move || drive(orders, writer, place, reports, bar))
            })
            .collect();
        let (running, is_over) = (&running, &is_over);
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                if is_interrupted.load(Ordering::Relaxed) {
                    for place in running {
                        // A writer may have ended already.
                        let _ = lock(place).as_mut().map(Child::kill);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        if arguments.kill_per_minute > 0 {
            let every = Duration::from_secs(60) / u32::try_from(arguments.kill_per_minute)?.max(1);
            let (kills, bar) = (&kills, &bar);
            scope.spawn(move || {
                let mut next = Instant::now() + every;
                for victim in running.iter().cycle() {
                    while Instant::now() < next {
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::sleep(every.min(Duration::from_millis(5)));
                    }
                    next += every;
                    // While this is locked, no other thread waits for that process, so the id is
                    // still its own.
                    let mut victim = lock(victim);
                    if victim.as_mut().is_some_and(|child| child.kill().is_ok()) {
                        let n = kills.fetch_add(1, Ordering::Relaxed) + 1;
                        bar.set_message(format!(", {n} killed"));
                    }
                }
            });
        }
        let mut result = Ok(());
        for writer in writers {
            let ended = writer.join().unwrap_or_else(|_| Err("a thread panicked".into()));
            result = result.and(ended);
        }
        is_over.store(true, Ordering::Relaxed);
        result
    });
    bar.finish_and_clear();
    result?;
    let reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok((reports, kills.into_inner()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What all writers have in common.
#[derive(Clone, Copy)]
struct Burst<'b> {
    arguments: &'b Arguments,
    board: &'b Path,
    is_interrupted: &'b AtomicBool,
    began: Instant,
}

/// Keeps one writer running until it has tried all of its rows, or the burst is interrupted.
fn drive(
    Burst { arguments, board, is_interrupted, began }: Burst<'_>,
    writer: u64,
    place: &Mutex<Option<Child>>,
    reports: &Mutex<Reports>,
    bar: &ProgressBar,
) -> Result<()> {
    let mut first = 1;
    while first <= arguments.transactions && !is_interrupted.load(Ordering::Relaxed) {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("stress-writer")
            .arg(board)
            .args([name_of(arguments.vfs), name_of(arguments.synchronous)])
            .args([arguments.busy_timeout, arguments.think].map(|n| n.to_string()))
            .args([writer, first, arguments.transactions].map(|n| n.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        *lock(place) = Some(child);
        // A kill may cut the last line short: then that row is not acknowledged.
        let mut lines = BufReader::new(output);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            let mut reports = lock(reports);
            match report_of(&line) {
                Some((number, Ok(wait))) => {
                    reports.acknowledged.insert((writer, number));
                    reports.waits.push(wait);
                    reports.at.push(began.elapsed());
                    first = number + 1;
                }
                Some((number, Err(why))) => {
                    reports.errors.push(format!("writer {writer}, row {number}: {why}"));
                    first = number + 1;
                }
                None => return Err(format!("writer {writer} said: {line}").into()),
            }
            drop(reports);
            bar.inc(1);
            line.clear();
        }
        let child = lock(place).take();
        let status = child.ok_or("no child")?.wait()?;
        if let Some(code) = status.code().filter(|code| *code != 0) {
            // The writer has reported the reason; it has not begun with its rows.
            lock(reports).errors.push(format!("writer {writer} ended with status {code}"));
            break;
        }
        if status.code().is_none() {
            // It may have committed this row, but died before it reported that.
            first += 1;
        }
    }
    Ok(())
}

/// Parses `row 7 120`, acknowledged after 120 us, or `error 7 why`.
fn report_of(line: &str) -> Option<(u64, std::result::Result<Duration, String>)> {
    let mut parts = line.trim_end().splitn(3, ' ');
    let (kind, number, rest) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    match kind {
        "row" => Some((number, Ok(Duration::from_micros(rest.parse().ok()?)))),
        "error" => Some((number, Err(rest.to_owned()))),
        _ => None,
    }
}

/// Does the work of a writer process.
pub(crate) fn obey(orders: &Orders) -> Result<bool> {
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    let mut connection = Connection::open(uri(&orders.board, &orders.vfs))?;
    connection.busy_timeout(Duration::from_millis(orders.busy_timeout))?;
    connection.pragma_update(None, "synchronous", &orders.synchronous)?;
    for number in orders.first..=orders.last {
        let began = Instant::now();
        let mut wait = Duration::ZERO;
        let done = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            wait = began.elapsed();
            let insert = "INSERT INTO kanban_vfs_stress VALUES (?, ?)";
            transaction.execute(insert, params![orders.writer as i64, number as i64])?;
            transaction.commit()
        })();
        let mut out = std::io::stdout().lock();
        match done {
            Ok(()) => writeln!(out, "row {number} {}", wait.as_micros())?,
            Err(error) => {
                let error: rusqlite::Error = error;
                let waited = text::duration(began.elapsed());
                writeln!(out, "error {number} {error}, after {waited}")?;
            }
        }
        drop(out);
        std::thread::sleep(Duration::from_millis(orders.think));
    }
    Ok(true)
}

/// The result of a burst.
struct Outcome {
    acknowledged: usize,
    /// How many acknowledged rows are missing.
    lost: usize,
    /// How many rows exist that no writer acknowledged.
    surplus: usize,
    /// How many writers were killed. Each may have committed one row without acknowledging it.
    kills: u64,
    elapsed: Duration,
    /// The result of `PRAGMA integrity_check`.
    integrity: Vec<String>,
    errors: usize,
}

impl Outcome {
    fn of(
        connection: &Connection,
        reports: &Reports,
        kills: u64,
        elapsed: Duration,
    ) -> Result<Self> {
        let mut statement = connection.prepare("SELECT writer, number FROM kanban_vfs_stress")?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        let found: BTreeSet<(u64, u64)> = rows
            .map(|row| row.map(|(writer, number)| (writer as u64, number as u64)))
            .collect::<rusqlite::Result<_>>()?;
        let integrity = connection
            .prepare("PRAGMA integrity_check")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            acknowledged: reports.acknowledged.len(),
            lost: reports.acknowledged.difference(&found).count(),
            surplus: found.difference(&reports.acknowledged).count(),
            kills,
            elapsed,
            integrity,
            errors: reports.errors.len(),
        })
    }

    /// Whether nothing is wrong.
    fn is_well(&self) -> bool {
        let is_explained = self.surplus as u64 <= self.kills;
        self.lost == 0 && self.errors == 0 && self.integrity == ["ok"] && is_explained
    }

    /// Transactions per second.
    fn rate(&self) -> f64 {
        self.acknowledged as f64 / self.elapsed.as_secs_f64()
    }

    fn as_text(&self, reports: &Reports) -> String {
        let Self { acknowledged, lost, surplus, kills, errors, .. } = self;
        let (rate, took) = (self.rate(), text::duration(self.elapsed));
        let mut out = format!(
            "acknowledged {acknowledged} in {took}, {rate:.0}/s, {kills} writers killed\n\
             lost         {lost} of them\n\
             errors       {errors}\n"
        );
        for error in reports.errors.iter().take(5) {
            out += &format!("             {error}\n");
        }
        if *surplus > 0 {
            out += &format!(
                "unsaid       {surplus} committed, their writer killed before it said so\n"
            );
        }
        out += &format!("integrity    {}\n", self.integrity.join("; "));
        out + &picture(&reports.waits)
    }

    fn as_json(&self, reports: &Reports, kept: Option<&Path>) -> Value {
        let mut sorted = reports.waits.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let ms = |share: f64| {
            let wait = sorted.get((share * last as f64) as usize);
            wait.map(|wait| wait.as_micros() as f64 / 1e3)
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "well": self.is_well(),
            "board": kept.map(|kept| kept.to_string_lossy()),
            "acknowledged": self.acknowledged,
            "seconds": self.elapsed.as_secs_f64(),
            "transactions_per_second": self.rate(),
            "writers_killed": self.kills,
            "lost": self.lost,
            "unsaid": self.surplus,
            "errors": reports.errors,
            "integrity": self.integrity,
            "wait_ms": {"p50": ms(0.5), "p99": ms(0.99), "longest": ms(1.0)},
        })
    }
}

/// The drawing of a burst: each transaction's time of end and wait.
fn drawing(reports: &Reports, elapsed: Duration) -> String {
    /// From 10 us to 100 s.
    const DECADES: (f64, f64) = (-5.0, 2.0);
    let frame = Frame { left: 90.0, top: 40.0, width: 720.0, height: 360.0 };
    let (seconds, most) = svg::round_numbers(elapsed.as_secs_f64());
    let x: Vec<Tick> = seconds.iter().map(|at| (at / most, format!("{at:.3}"))).collect();
    let x: Vec<Tick> = x
        .into_iter()
        .map(|(at, label)| (at, label.trim_end_matches('0').trim_end_matches('.').to_owned()))
        .collect();
    let share = |wait: Duration| {
        let (least, greatest) = DECADES;
        let decade = wait.as_secs_f64().max(1e-9).log10();
        ((decade - least) / (greatest - least)).clamp(0.0, 1.0)
    };
    let y: Vec<Tick> = (0..8)
        .map(|decade| Duration::from_micros(10 * 10_u64.pow(decade)))
        .map(|wait| (share(wait), short(wait)))
        .collect();
    let title =
        format!("{} transactions: how long each waited for the write lock", reports.waits.len());
    let mut out = frame.begin(&title, ("time since the burst began, s", &x), ("wait", &y));
    // Points at the same place are drawn as one.
    let place = |(at, wait): (&Duration, &Duration)| {
        let x = frame.left + at.as_secs_f64() / most * frame.width;
        let y = frame.top + (1.0 - share(*wait)) * frame.height;
        (x.round() as u64, y.round() as u64)
    };
    let places: BTreeSet<_> = reports.at.iter().zip(&reports.waits).map(place).collect();
    for (x, y) in places {
        out += &format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"1.5\" fill=\"#1f6fb2\"/>\n");
    }
    out + "</svg>\n"
}

/// The upper bounds of the picture's rows: 10, 20, 50, 100 us and so on, to 50 s.
fn bounds() -> impl Iterator<Item = Duration> {
    (1..8).flat_map(|decade| [1, 2, 5].map(|n| Duration::from_micros(n * 10_u64.pow(decade))))
}

/// How long transactions waited for the write lock, as a bar for each range of waits.
fn picture(waits: &[Duration]) -> String {
    const WIDTH: usize = 40;
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    let Some(longest) = sorted.last() else { return String::new() };
    let at = |share: f64| text::duration(sorted[(share * (sorted.len() - 1) as f64) as usize]);
    let mut out = format!(
        "waits        half of them up to {}, 99 % {}, longest {}\n",
        at(0.5),
        at(0.99),
        text::duration(*longest)
    );
    let mut rows: Vec<(String, usize)> = Vec::new();
    let mut counted = 0;
    for bound in bounds() {
        let below = sorted.partition_point(|wait| *wait < bound);
        rows.push((format!("< {}", short(bound)), below - counted));
        counted = below;
    }
    rows.push(("longer".to_owned(), sorted.len() - counted));
    let first = rows.iter().position(|(_, n)| *n > 0).unwrap_or(0);
    let last = rows.iter().rposition(|(_, n)| *n > 0).unwrap_or(0);
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    for (name, n) in &rows[first..=last] {
        let bar = match n * WIDTH / most {
            0 if *n > 0 => "\u{258f}".to_owned(),
            length => "\u{2588}".repeat(length),
        };
        out += format!("{name:>12} {n:>8} {bar}").trim_end();
        out += "\n";
    }
    out
}

/// A round number with its unit.
fn short(duration: Duration) -> String {
    match duration.as_micros() {
        us @ 0..1_000 => format!("{us} us"),
        us @ 1_000..1_000_000 => format!("{} ms", us / 1_000),
        us => format!("{} s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests;

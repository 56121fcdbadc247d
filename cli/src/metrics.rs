//! `metrics`: the counters and the present state of boards, as text for Prometheus.
//!
//! There are two formats. They differ in the name of a counter's family, and in some lines.
//! Scrapers ask for OpenMetrics (<https://openmetrics.io>). The node exporter's textfile collector,
//! and everything else, reads the older format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! Counters cover the whole board: all processes that use it through the VFS add their counts to
//! its event log. Gauges show the state that an observer sees at this moment.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kanban_vfs::observation::{Durations, EventLog, NoLog};

use crate::facts::Facts;
use crate::{Result, complain, observe_board, say};

/// The format of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The content type for the scraper.
    fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How long a scraper may take to ask, and then to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many scrapers are answered at the same time. Others wait.
const AT_A_TIME: usize = 16;

/// The greatest length of a request, in bytes.
const LONGEST: u64 = 16 << 10;

/// Classes of durations from this one on, longer than a quarter of an hour, are shown as one class.
const CLASSES: usize = 27;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(required = true)]
    boards: Vec<PathBuf>,
    /// Answer scrapers by HTTP until interrupted, instead of printing once.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Print OpenMetrics, not the format that the node exporter reads. Scrapers get the format that
    /// they ask for.
    #[arg(long, conflicts_with = "listen")]
    openmetrics: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut is_well = true;
    for board in &arguments.boards {
        // Clients then count from now on. A board without a log is still shown, with
        // `kanban_recorded` 0.
        if let Err(error) = make_event_log(board) {
            complain(&error.to_string());
            is_well = false;
        }
    }
    let Some(address) = arguments.listen else {
        let format = if arguments.openmetrics { Format::OpenMetrics } else { Format::Prometheus };
        say(&text(&arguments.boards, format, None))?;
        return Ok(is_well);
    };
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    say(&format!("listens on http://{}/metrics\n", listener.local_addr()?))?;
    let snapshots = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 1..AT_A_TIME {
            let serve = || serve(&listener, &arguments.boards, &snapshots);
            // If a thread cannot be started, the other threads do the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, serve);
        }
        serve(&listener, &arguments.boards, &snapshots)
    })
}

/// Makes the event log of a board, if there is none.
fn make_event_log(board: &Path) -> Result<()> {
    observe_board(board)?.make_event_log().map_err(|why| {
        let why = match why {
            NoLog::Missing => {
                "cannot make the event log; see to the rights of the directory, the room on the \
                               disk and the limit on the size of files"
                    .to_owned()
            }
            why => why.to_string(),
        };
        format!("{}: {why}", board.display()).into()
    })
}

/// Answers one scraper after another. Several threads do this, so that a slow scraper does not keep
/// the others waiting.
fn serve(listener: &TcpListener, boards: &[PathBuf], snapshots: &Mutex<Snapshots>) -> ! {
    loop {
        match listener.accept() {
            // A scraper that goes away, or never asks, is no reason to end.
            Ok((stream, _)) => drop(answer(&stream, boards, snapshots)),
            // The process may have too many open files for a moment.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A connection that ends after [`PATIENCE`], even if each read or write still moves some bytes.
struct Limited<'s> {
    stream: &'s TcpStream,
    until: Instant,
}

impl<'s> Limited<'s> {
    fn from_now_on(stream: &'s TcpStream) -> Self {
        Self { stream, until: Instant::now() + PATIENCE }
    }

    /// How long the next call may wait.
    fn left(&self) -> std::io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Answers one request. The caller closes the connection.
fn answer(
    stream: &TcpStream,
    boards: &[PathBuf],
    snapshots: &Mutex<Snapshots>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(Limited::from_now_on(stream).take(LONGEST));
    let (mut request, mut line) = (String::new(), String::new());
    let mut format = Format::Prometheus;
    loop {
        line.clear();
        let is_over = lines.read_line(&mut line)? == 0 || line.trim_end().is_empty();
        if request.is_empty() {
            request = line.trim_end().to_owned();
        }
        let header = line.to_ascii_lowercase();
        if header.starts_with("accept:") && header.contains("application/openmetrics-text") {
            format = Format::OpenMetrics;
        }
        if is_over {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, kind, body) = match (method, path.split('?').next()) {
        ("GET" | "HEAD", Some("/metrics")) => {
            // One scraper at a time: a look at the boards takes only moments.
            let mut snapshots = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            ("200 OK", format.content_type(), text(boards, format, Some(&mut snapshots)))
        }
        ("GET" | "HEAD", Some("/")) => ("200 OK", "text/plain", "see /metrics\n".to_owned()),
        ("GET" | "HEAD", _) => ("404 Not Found", "text/plain", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { &body };
    Limited::from_now_on(stream).write_all(format!("{head}{body}").as_bytes())
}

/// A board, and what is known about it.
struct Board {
    /// Its label.
    label: String,
    facts: Option<Facts>,
    log: Option<EventLog>,
}

impl Board {
    fn of(path: &Path) -> Self {
        let seen = observe_board(path).ok();
        let name = seen.as_ref().map_or(path, |seen| &seen.database).to_string_lossy().into_owned();
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let log = seen.as_ref().and_then(|seen| seen.event_log().ok());
        Self { label: format!("board=\"{escaped}\""), facts: seen.map(Facts::of), log }
    }
}

/// The oldest snapshot of each board, identified by its process and its last frame, and when it was
/// first seen.
#[derive(Default)]
struct Snapshots(HashMap<String, (Option<u32>, u32, Instant)>);

impl Snapshots {
    /// How long ago a board's oldest snapshot was first seen; zero if it has none.
    fn age(&mut self, board: &Board) -> Option<Duration> {
        let oldest = board.facts.as_ref()?.readers().into_iter().next();
        let Some(oldest) = oldest else {
            self.0.remove(&board.label);
            return Some(Duration::ZERO);
        };
        let (pid, frame) = (oldest.process.map(|process| process.pid), oldest.frame);
        let seen = self.0.entry(board.label.clone()).or_insert((pid, frame, Instant::now()));
        if (seen.0, seen.1) != (pid, frame) {
            *seen = (pid, frame, Instant::now());
        }
        Some(seen.2.elapsed())
    }
}

/// The metrics of all boards. With `snapshots`, also how long ago each oldest snapshot was first
/// seen: nothing else knows its age.
fn text(boards: &[PathBuf], format: Format, snapshots: Option<&mut Snapshots>) -> String {
    let boards: Vec<_> = boards.iter().map(|path| Board::of(path)).collect();
    let mut out = Metrics { text: String::new(), format };
    out.gauge("kanban_up", "Whether the board could be looked at.", &boards, |board| {
        Some(f64::from(u8::from(board.facts.is_some())))
    });
    let help = "Whether there is an event log, in which clients count.";
    out.gauge("kanban_recorded", help, &boards, |board| {
        board.facts.as_ref().map(|_| f64::from(u8::from(board.log.is_some())))
    });
    type Counter = fn(&EventLog) -> u64;
    let counters: [(&str, &str, Counter); 7] = [
        ("kanban_transactions", "Times that a transaction has held the write lock.", |log| {
            log.tally.holds.count()
        }),
        (
            "kanban_refusals",
            "Statements that were refused at once; without a busy timeout, if not tried again within a second.",
            |log| log.tally.refusals,
        ),
        (
            "kanban_give_ups",
            "Waits that ended with a refusal; without a busy timeout, attempts within a second are one wait.",
            |log| log.tally.give_ups,
        ),
        (
            "kanban_holders_died",
            "Processes that have ended while they held the write lock.",
            |log| log.tally.holders_died,
        ),
        ("kanban_syncs_failed", "Syncs that have failed.", |log| log.tally.syncs_failed),
        (
            "kanban_events_left_out",
            "Events that were not recorded, since there were too many.",
            |log| log.tally.events_left_out,
        ),
        ("kanban_guard_refusals", "Transactions that a guard has refused.", |log| {
            log.tally.short_files.wrapping_add(log.tally.displaced)
        }),
    ];
    for (name, help, counter) in counters {
        out.family(name, "counter", help);
        for (board, log) in with_log(&boards) {
            out.counter(name, &board.label, counter(log) as f64, log);
        }
    }
    out.family("kanban_checkpoints", "counter", "Checkpoints, by how they ended.");
    for (board, log) in with_log(&boards) {
        let tally = &log.tally;
        for (result, count) in [
            ("complete", tally.checkpoints_complete),
            ("partial", tally.checkpoints_partial),
            ("failed", tally.checkpoints_failed),
            ("busy", tally.checkpoints_busy),
        ] {
            let labels = format!("{},result=\"{result}\"", board.label);
            out.counter("kanban_checkpoints", &labels, count as f64, log);
        }
    }
    type Histogram = fn(&EventLog) -> &Durations;
    let histograms: [(&str, &str, Histogram); 2] = [
        ("kanban_hold_seconds", "For how long transactions held the write lock.", |log| {
            &log.tally.holds
        }),
        ("kanban_wait_seconds", "How long waits took that ended with the write lock.", |log| {
            &log.tally.waits
        }),
    ];
    for (name, help, durations) in histograms {
        out.family(name, "histogram", help);
        for (board, log) in with_log(&boards) {
            out.histogram(name, &board.label, durations(log), log);
        }
    }
    type Gauge = fn(&Facts) -> f64;
    let gauges: [(&str, &str, Gauge); 9] = [
        ("kanban_queue_length", "How many wait, for the write lock or SQLite's own.", |facts| {
            facts.waiters() as f64
        }),
        (
            "kanban_longest_wait_seconds",
            "How long the longest of these waits has lasted.",
            |facts| facts.longest_wait().as_secs_f64(),
        ),
        (
            "kanban_held_seconds",
            "For how long the holder has held the write lock; 0 without one.",
            |facts| facts.seen.holder.as_ref().map_or(0.0, |holder| holder.held.as_secs_f64()),
        ),
        ("kanban_wal_bytes", "How long the WAL is.", |facts| {
            facts.seen.sizes.wal.unwrap_or(0) as f64
        }),
        ("kanban_database_bytes", "How long the database is.", |facts| {
            facts.seen.sizes.database as f64
        }),
        ("kanban_wal_frames", "How many frames the WAL has.", |facts| {
            f64::from(facts.wal.map_or(0, |wal| wal.frames))
        }),
        (
            "kanban_wal_uncopied_frames",
            "How many of them are not copied into the database.",
            |facts| f64::from(facts.wal.map_or(0, |wal| wal.frames - wal.copied)),
        ),
        (
            "kanban_pinned_frames",
            "How many of them the oldest snapshot keeps from being copied.",
            |facts| f64::from(facts.readers().iter().map(|reader| reader.kept).max().unwrap_or(0)),
        ),
        ("kanban_readers", "How many read.", |facts| facts.readers().len() as f64),
    ];
    for (name, help, gauge) in gauges {
        out.gauge(name, help, &boards, |board| board.facts.as_ref().map(gauge));
    }
    if let Some(snapshots) = snapshots {
        let name = "kanban_oldest_snapshot_seconds";
        let help = "For how long the oldest snapshot has been seen, from the first scrape on that has seen it.";
        out.gauge(name, help, &boards, |board| Some(snapshots.age(board)?.as_secs_f64()));
    }
    if format == Format::OpenMetrics {
        out.line(format_args!("# EOF"));
    }
    out.text
}

/// The boards that have an event log.
fn with_log(boards: &[Board]) -> impl Iterator<Item = (&Board, &EventLog)> {
    boards.iter().filter_map(|board| Some((board, board.log.as_ref()?)))
}

/// Metrics that are being written.
struct Metrics {
    text: String,
    format: Format,
}

impl Metrics {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// Describes a family. If it has a unit, its name ends with the unit.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let suffix =
            if kind == "counter" && self.format == Format::Prometheus { "_total" } else { "" };
        self.line(format_args!("# TYPE {name}{suffix} {kind}"));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{suffix} {help}"));
    }

    /// When a counter began to count.
    fn created(&mut self, name: &str, labels: &str, log: &EventLog) {
        if self.format == Format::OpenMetrics {
            let seconds = log.made_unix_us as f64 / 1e6;
            self.line(format_args!("{name}_created{{{labels}}} {seconds}"));
        }
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        boards: &[Board],
        mut value: impl FnMut(&Board) -> Option<f64>,
    ) {
        self.family(name, "gauge", help);
        for board in boards {
            if let Some(value) = value(board) {
                self.line(format_args!("{name}{{{}}} {value}", board.label));
            }
        }
    }

    /// A counter, and when it began to count.
    fn counter(&mut self, name: &str, labels: &str, value: f64, log: &EventLog) {
        self.line(format_args!("{name}_total{{{labels}}} {value}"));
        self.created(name, labels, log);
    }

    fn histogram(&mut self, name: &str, labels: &str, durations: &Durations, log: &EventLog) {
        let mut below = 0_u64;
        for (class, count) in durations.classes.iter().enumerate().take(CLASSES) {
            below = below.wrapping_add(*count);
            let Some(bound) = Durations::bound(class) else { break };
            let bound = bound.as_secs_f64();
            self.line(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {}", durations.count()));
        self.line(format_args!("{name}_count{{{labels}}} {}", durations.count()));
        self.line(format_args!("{name}_sum{{{labels}}} {}", durations.sum.as_secs_f64()));
        self.created(name, labels, log);
    }
}

//! `log`: what happened on a board, as sentences, JSON or a drawing.

use std::collections::HashSet;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kanban_vfs::observation::{Cause, Event, EventKind, NoLog, Observation, Outcome, Process};

use crate::{Result, observe_board, say, text, time, timeline};

/// How often `--follow` looks for new events.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    board: PathBuf,
    /// Go on with what happens, until it is interrupted.
    #[arg(long, conflicts_with = "svg")]
    follow: bool,
    /// Only what has happened since: 90s, 15min, 2h, 3d ago; 03:00 today; "2026-11-29 22:00".
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// A JSON object for each event, each on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw a timeline into that file.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn board(&self) -> &Path {
        &self.board
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let since = match &arguments.since {
        None => 0,
        Some(text) => time::parse(text, time::now_us()).ok_or_else(|| {
            format!("--since {text}: not a time; say 2h, 03:00, or \"2026-11-29 22:00\"")
        })?,
    };
    let seen = observe_board(&arguments.board)?;
    let events = events(&seen, since)?;
    if let Some(file) = &arguments.svg {
        // If the board's name were given as that of the drawing, the board would be overwritten.
        if is_of_board(file, &seen.database) {
            return Err(format!(
                "{}: that belongs to the board; name another file",
                file.display()
            )
            .into());
        }
        let drawn = timeline::of(&seen.database, &events);
        std::fs::write(file, drawn).map_err(|error| format!("{}: {error}", file.display()))?;
        say(&format!("{} events are drawn in {}\n", events.len(), file.display()))?;
        return Ok(true);
    }
    if !arguments.follow {
        let nothing = events.is_empty() && !arguments.json;
        tell(if nothing { "nothing was recorded\n" } else { "" }, &events, arguments.json)?;
        return Ok(true);
    }
    let mut events = events;
    let mut told = HashSet::new();
    loop {
        // A record that was being written at the last look appears late, with a lower number. After
        // a log was deleted, numbers begin anew, at other times.
        let all: HashSet<_> = events.iter().map(|event| (event.number, event.unix_us)).collect();
        events.retain(|event| !told.contains(&(event.number, event.unix_us)));
        tell("", &events, arguments.json)?;
        // A log that could not be read for a moment has not lost its events.
        if !all.is_empty() {
            told = all;
        }
        std::thread::sleep(LOOKS_EVERY);
        events = self::events(&seen, since)?;
    }
}

/// Whether a file, which need not exist, is the board or one of the files beside it.
fn is_of_board(file: &Path, board: &Path) -> bool {
    let made = || {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = std::fs::canonicalize(directory.unwrap_or(Path::new("."))).ok()?;
        Some(directory.join(file.file_name()?))
    };
    let file = std::fs::canonicalize(file).ok().or_else(made).unwrap_or_else(|| file.to_owned());
    ["", "-wal", "-shm", "-journal", "-lock", "-kanban-log"].iter().any(|suffix| {
        let mut one = board.as_os_str().to_owned();
        one.push(suffix);
        file.as_os_str() == one
    })
}

/// Prints `first`, and then the events.
fn tell(first: &str, events: &[Event], as_json: bool) -> Result<()> {
    let lines = events.iter().map(|event| line(event, as_json));
    say(&(first.to_owned() + &lines.collect::<String>()))
}

/// What was recorded since that time; empty if there is no log.
fn events(seen: &Observation, since: u64) -> Result<Vec<Event>> {
    let mut events = match seen.event_log() {
        Ok(log) => log.events,
        Err(NoLog::Missing) => Vec::new(),
        Err(why) => return Err(format!("{}: {why}", seen.database.display()).into()),
    };
    events.retain(|event| event.unix_us >= since);
    Ok(events)
}

fn line(event: &Event, as_json: bool) -> String {
    if as_json {
        return format!("{}\n", event.to_json());
    }
    let mut line = String::new();
    if event.left_out > 0 {
        line += &format!(
            "{}  {} events of pid {} were left out: 20 are recorded in a second\n",
            time::local(event.unix_us),
            event.left_out,
            event.process.pid
        );
    }
    line + &format!("{}  {}\n", time::local(event.unix_us), sentence(event))
}

/// `pid 7 (python3 worker.py)`, `pid 1 in pid namespace 4026532198 (python3 worker.py)`
fn named(process: &Process) -> String {
    let here = std::fs::metadata("/proc/self/ns/pid").ok().map(|found| found.ino());
    let mut named = format!("pid {}", process.pid);
    // Writing to a String does not fail.
    if let Some(other) = process.pid_namespace.filter(|it| here != Some(u64::from(*it))) {
        let _ = write!(named, " in pid namespace {other}");
    }
    if !process.command.is_empty() {
        let _ = write!(named, " ({})", process.command);
    }
    named
}

/// What happened, to which process, and why.
pub(crate) fn sentence(event: &Event) -> String {
    let who = named(&event.process);
    let held = text::duration(event.held);
    let waited = text::duration(event.waited);
    let holder = event.holder.as_ref().map(named);
    let mut said = match event.kind {
        EventKind::Transaction => {
            let after = match event.waited.is_zero() {
                true => String::new(),
                false => format!(", after it had waited {waited}"),
            };
            let outcome = match (event.outcome, event.frames) {
                (Some(Outcome::Committed), 0) => ", and committed",
                (Some(Outcome::Committed), 1) => ", and committed 1 frame",
                (Some(Outcome::Committed), n) => &format!(", and committed {n} frames"),
                (Some(Outcome::RolledBack), _) => ", and committed nothing",
                _ => "",
            };
            format!("{who} held the write lock for {held}{after}{outcome}")
        }
        EventKind::Refusal | EventKind::GiveUp => {
            let how = match event.kind {
                EventKind::Refusal => "was refused at once".to_owned(),
                _ => format!("gave up after {waited}"),
            };
            let why = match (event.cause, &holder) {
                (Some(Cause::StaleSnapshot), _) => {
                    "another had committed since its transaction began to read".to_owned()
                }
                (Some(Cause::WriteLock), Some(holder)) => format!("{holder} had the write lock"),
                (Some(Cause::WriteLock), None) => "another had the write lock, or the turn".to_owned(),
                (Some(Cause::SqliteLock), _) => {
                    "SQLite's own lock was in its way, of a client that does not use this VFS, or of one that had just ended".to_owned()
                }
                (Some(Cause::Readers), _) => {
                    "it had the write lock, and readers were in its way".to_owned()
                }
                _ => "the database was locked".to_owned(),
            };
            format!("{who} {how}: {why}")
        }
        EventKind::HolderDied => {
            let dead = holder.unwrap_or_else(|| "a process".to_owned());
            format!("{dead} ended while it held the write lock; {who}, which waited, goes on")
        }
        EventKind::Checkpoint => {
            let left = match (event.outcome, event.frames) {
                (Some(Outcome::Complete), _) => ", and copied all frames".to_owned(),
                (Some(Outcome::Failed), n) => {
                    format!(", and FAILED: {n} frames are left; see to the disk")
                }
                (_, n) => format!(", and left {n} frames, which readers still need"),
            };
            format!("{who} checkpointed for {held}{left}")
        }
        EventKind::JournalRolledBack => format!(
            "{who} rolled back a journal: a writer had ended, or the machine, in the middle of a transaction"
        ),
        EventKind::Guard | EventKind::SyncFailed => {
            let message = event.message.as_deref().unwrap_or("something was refused");
            format!("{who}: {message} (SQLite's result code {})", event.code)
        }
        _ => format!("{who}: an event that this version of the tool does not know"),
    };
    match (&event.first_statement, &event.last_statement) {
        (Some(first), Some(last)) if first != last => {
            said += &format!("; from: {first}; to: {last}");
        }
        (Some(one), _) | (None, Some(one)) => said += &format!("; in: {one}"),
        (None, None) => {}
    }
    said
}

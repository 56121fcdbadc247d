//! `check`: whether the sidecar, the files and their content are in order.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use kanban_vfs::observation::{Judgement, Observation, Problem, SidecarState, WalSize, examine};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde_json::json;

use crate::facts::Facts;
use crate::{Result, displaced, end, json as said, printable, say, status, uri};

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Problem,
    /// It could not be done.
    Unchecked,
    /// Everything is sound, but the WAL grows.
    Grows,
}

/// A step of the check.
struct Finding {
    step: &'static str,
    state: State,
    text: String,
}

impl Finding {
    fn new(step: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { step, state, text: text.into() }
    }
}

pub(crate) fn run(board: &Path, as_json: bool) -> ExitCode {
    match look(board, as_json) {
        Ok(State::Ok) => ExitCode::SUCCESS,
        Ok(State::Problem) => ExitCode::FAILURE,
        Ok(State::Unchecked) => ExitCode::from(2),
        Ok(State::Grows) => ExitCode::from(3),
        Err(error) => end(Err(match as_json {
            true => say_unchecked(board, &error).err().unwrap_or(error),
            false => error,
        })),
    }
}

/// Reports a board that cannot be checked at all.
fn say_unchecked(board: &Path, error: &impl ToString) -> Result<()> {
    let mut report = said::error(Some(board), error);
    report["state"] = "unchecked".into();
    say(&format!("{report:#}\n"))
}

fn look(board: &Path, as_json: bool) -> Result<State> {
    let facts = Facts::gather(board)?;
    let seen = &facts.seen;
    let findings = findings(&facts)?;
    let has = |state| findings.iter().any(|finding| finding.state == state);
    let state =
        [State::Problem, State::Unchecked, State::Grows].into_iter().find(|state| has(*state));
    let state = state.unwrap_or(State::Ok);
    if as_json {
        let name = |state| match state {
            State::Ok => "ok",
            State::Problem => "problem",
            State::Unchecked => "unchecked",
            State::Grows => "grows",
        };
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "step": finding.step,
                    "state": name(finding.state),
                    "text": finding.text,
                })
            })
            .collect();
        let database = seen.database.to_string_lossy();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "database": database,
            "state": name(state),
            "findings": findings,
            "wal": said::wal(&facts),
        });
        say(&format!("{report:#}\n"))?;
    } else {
        let mut out = String::new();
        for finding in &findings {
            let mark = match finding.state {
                State::Ok => "ok      ",
                State::Problem => "PROBLEM ",
                State::Unchecked => "?       ",
                State::Grows => "GROWS   ",
            };
            // Writing to a String does not fail.
            let _ = writeln!(out, "{mark}{:<16}{}", finding.step, printable(&finding.text));
        }
        say(&out)?;
    }
    Ok(state)
}

fn findings(facts: &Facts) -> Result<Vec<Finding>> {
    let seen = &facts.seen;
    let mut findings = vec![sidecar(seen)];
    let displaced = displaced::find(&seen.database);
    let has_displaced = !displaced.is_empty();
    findings.extend(displaced.into_iter().map(|text| {
        let text = format!("{text}; end it, or close its connections");
        Finding::new("displaced files", State::Problem, text)
    }));
    if !has_displaced {
        findings.push(Finding::new(
            "displaced files",
            State::Ok,
            "no process seen from here has a deleted file of this board open",
        ));
    }
    for (step, guarantee) in [("hard links", "identity"), ("file system", "wal_file_system")] {
        let judged = seen.guarantees.iter().find(|one| one.name == guarantee);
        findings.push(match judged.map(|one| &one.judgement) {
            Some(Judgement::Inactive(why)) => Finding::new(step, State::Problem, why),
            _ if step == "hard links" => Finding::new(step, State::Ok, "one name only"),
            Some(Judgement::Unknown(why)) => Finding::new(step, State::Ok, why),
            _ => Finding::new(step, State::Ok, "local"),
        });
    }
    let problems =
        examine(&seen.database).map_err(|error| format!("{}: {error}", seen.database.display()))?;
    if problems.contains(&Problem::NotADatabase) {
        let why = Problem::NotADatabase;
        return Err(format!("{}: {why}", seen.database.display()).into());
    }
    let is_short = |problem: &Problem| matches!(problem, Problem::TooShort { .. });
    for (step, of_length) in [("file length", true), ("WAL", false)] {
        let mut of_step =
            problems.iter().filter(|problem| is_short(problem) == of_length).peekable();
        if of_step.peek().is_none() {
            findings.push(Finding::new(step, State::Ok, what_is_well(step, seen)));
        }
        findings
            .extend(of_step.map(|problem| Finding::new(step, State::Problem, problem.to_string())));
    }
    findings.push(wal_size(facts));
    let is_unsafe = has_displaced || problems.iter().any(|problem| !is_short(problem));
    findings.push(if is_unsafe {
        // If it were opened, it might recover from the wrong WAL.
        let text = "not run: open it when the above is repaired";
        Finding::new("quick_check", State::Unchecked, text)
    } else {
        quick_check(seen)
    });
    Ok(findings)
}

fn what_is_well(step: &str, seen: &Observation) -> &'static str {
    match step {
        "file length" if seen.sizes.database == 0 => {
            "empty: nothing was written to it yet, or all is in the WAL"
        }
        "file length" => {
            "no shorter than the header says, as far as no WAL or journal has the rest"
        }
        _ if seen.sizes.wal.unwrap_or(0) == 0 => "none, or empty",
        _ => "the one that the wal-index describes",
    }
}

/// Why the WAL is as large as it is, and which readers keep it at that size.
fn wal_size(facts: &Facts) -> Finding {
    let size = facts.wal_size();
    let state = match (size, &facts.wal_unread) {
        (Some(size), _) if size.is_trouble() => State::Grows,
        (None, Some(_)) => State::Unchecked,
        _ => State::Ok,
    };
    let mut text = status::wal(facts);
    if matches!(size, Some(WalSize::Pinned | WalSize::NeverReset)) {
        for reader in facts.readers() {
            text = format!("{text}; {}", status::reader(facts, &reader));
        }
        if let Some(missing) = facts.survey.missing() {
            text = format!("{text}; {missing}");
        }
    }
    Finding::new("WAL size", state, text)
}

fn sidecar(seen: &Observation) -> Finding {
    let (_, why) = status::sidecar(&seen.sidecar_state);
    let write_lock = seen.guarantees.iter().find(|one| one.name == "write_lock");
    // Other users may be able to read it.
    let is_unknown = write_lock.is_some_and(|one| matches!(one.judgement, Judgement::Unknown(_)));
    let text = why.unwrap_or_else(|| "a page of this VFS".to_owned());
    let state = match seen.sidecar_state {
        SidecarState::Unusable(_) if is_unknown => State::Unchecked,
        SidecarState::Foreign | SidecarState::Unusable(_) => State::Problem,
        _ if seen.is_locked_by_a_stranger => {
            let text = "another program has locked it, which keeps writers out: see lslocks";
            return Finding::new("sidecar", State::Problem, text);
        }
        _ => State::Ok,
    };
    Finding::new("sidecar", state, text)
}

/// Runs quick_check through the VFS, read-only. Like every reader, it creates `-wal` and `-shm` if
/// a board in WAL mode has none, and they are removed afterwards. It does not checkpoint.
fn quick_check(seen: &Observation) -> Finding {
    let step = "quick_check";
    let rows = || -> rusqlite::Result<Vec<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(&seen.database, "kanban"), flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let mut statement = connection.prepare("PRAGMA quick_check")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    };
    if let Err(error) = kanban_vfs::register(&kanban_vfs::Options::default()) {
        return Finding::new(step, State::Unchecked, error.to_string());
    }
    let found = rows();
    if seen.sizes.wal.is_none() && seen.sizes.wal_index.is_none() {
        let _ = remove_wal(&seen.database);
    }
    match found {
        Ok(rows) if rows == ["ok"] => Finding::new(step, State::Ok, "ok"),
        Ok(rows) => Finding::new(step, State::Problem, rows.join("; ").replace('\n', " ")),
        Err(error) => {
            let (state, text) = match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt) => (State::Problem, error.to_string()),
                // A reader would have to roll back first, which is a write.
                Some(ErrorCode::ReadOnly) if seen.sizes.journal.unwrap_or(0) > 0 => {
                    let text = "a hot journal: the next client that opens and reads the board \
                                rolls it back";
                    (State::Unchecked, text.to_owned())
                }
                Some(ErrorCode::ReadOnly) => {
                    let text = "needs -wal and -shm, which this user cannot create";
                    (State::Unchecked, text.to_owned())
                }
                _ => (State::Unchecked, error.to_string()),
            };
            Finding::new(step, state, text)
        }
    }
}

/// Makes SQLite delete a `-wal` and `-shm` that did not exist before: a connection that may write
/// does so if it is the last to close. This connection uses the stock VFS, which leaves the sidecar
/// and the length of the file alone.
fn remove_wal(database: &Path) -> rusqlite::Result<()> {
    let is_there = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).exists()
    };
    // A hot journal must not be rolled back here.
    if is_there("-journal") || !is_there("-shm") {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
    let stock = if cfg!(windows) { "win32" } else { "unix" };
    let connection = Connection::open_with_flags(uri(database, stock), flags)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

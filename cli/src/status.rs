//! `status`: what an outsider sees of a board, as text or JSON.

use std::fmt::Write;
use std::path::Path;

use kanban_vfs::observation::{
    Client, ClientVfs, Holder, Judgement, ProcessInfo, ProcessState, Reader, SidecarState,
    SqliteLock, Waiter, WalSize,
};

use crate::facts::Facts;
use crate::{Result, json, observe_board, printable, say, text};

/// Why there are no counters.
pub(crate) const COUNTERS: &str = "not to be known from outside: each client's process counts for itself; ask \
                        it with PRAGMA kanban_status, or the board by kanban-vfs metrics";

pub(crate) fn run(board: &Path, as_json: bool) -> Result<bool> {
    let facts = Facts::of(observe_board(board)?);
    if as_json {
        say(&format!("{:#}\n", json::status(&facts)))?;
    } else {
        say(&as_text(&facts))?;
    }
    Ok(true)
}

/// The name of a state, and a remark about it.
pub(crate) fn sidecar(state: &SidecarState) -> (&'static str, Option<String>) {
    match state {
        SidecarState::Absent => (
            "absent",
            Some(
                "none: the next writer makes it, and the last who has it open deletes it"
                    .to_owned(),
            ),
        ),
        SidecarState::Page => ("page", None),
        SidecarState::Unseeded => {
            ("unseeded", Some("empty or cut short: the next writer repairs it".to_owned()))
        }
        SidecarState::Foreign => (
            "foreign",
            Some(
                "it holds something else than a page of this VFS: writers go without a queue, by \
                 SQLite's own locks; move it away"
                    .to_owned(),
            ),
        ),
        SidecarState::Unusable(why) => ("unusable", Some(why.clone())),
        _ => ("unknown", None),
    }
}

/// `pid 7 (python3)`
pub(crate) fn named(one: &ProcessInfo) -> String {
    let program = one.program.as_deref().unwrap_or("a program not seen from here");
    format!("pid {} ({program})", one.pid)
}

/// `; STOPPED until kill -CONT 7; user alice; python3 worker.py`, as far as this is known.
pub(crate) fn described(one: &ProcessInfo) -> String {
    let mut said = match one.state {
        Some(ProcessState::Stopped) => format!("; STOPPED until kill -CONT {}", one.pid),
        Some(ProcessState::Traced) => "; STOPPED by a debugger".to_owned(),
        Some(ProcessState::Blocked) => "; blocked, by a disk perhaps".to_owned(),
        Some(ProcessState::Running) => "; running".to_owned(),
        Some(ProcessState::Ended) => "; ended".to_owned(),
        _ => String::new(),
    };
    // Writing to a String does not fail.
    if let Some(own) = one.own_pid {
        let _ = write!(said, "; pid {own} in its container");
    }
    if let Some(user) = &one.user {
        let _ = write!(said, "; user {user}");
    }
    if let Some(command) = &one.command {
        let _ = write!(said, "; {command}");
    }
    said
}

/// `pid 7 (python3)`, or a text that says that it cannot be known.
fn who(one: Option<&ProcessInfo>) -> String {
    one.map_or_else(|| "a process that this user may not look into".to_owned(), named)
}

/// `pid 7 (python3) uses this VFS`
fn client(Client { process, vfs, .. }: &Client) -> String {
    let uses = match vfs {
        ClientVfs::Kanban => "uses this VFS",
        ClientVfs::Stock => "is a stock client: it uses SQLite's own VFS",
        ClientVfs::Both => "uses this VFS, and SQLite's own by another connection",
        _ => {
            "shows nothing of this VFS, and has no lock now: a stock client between transactions, a \
             child that inherited the file, or no client of SQLite's"
        }
    };
    format!("{} {uses}{}", named(process), described(process))
}

/// `process 7 (sleep), for 1 s: a child that inherited the lock of process 5, which is dead; ...`
fn kept(holder: &Holder, keepers: &[ProcessInfo], missing: Option<String>) -> String {
    let held = text::about(holder.held);
    let mut said = match keepers.len() {
        0 => format!(
            "pid {}, for {held}, which is not to be found here: it runs in another pid namespace, or is \
             dead, and a child that inherited its lock keeps it",
            holder.pid
        ),
        n => format!(
            "{}, for {held}: {} inherited the lock of process {}, which is dead; end {}, or let {} exec",
            keepers.iter().map(named).collect::<Vec<_>>().join(", "),
            if n == 1 { "a child that" } else { "children that" },
            holder.pid,
            if n == 1 { "it" } else { "them" },
            if n == 1 { "it" } else { "them" },
        ),
    };
    if let Some(missing) = missing {
        let _ = write!(said, " ({missing})");
    }
    said
}

/// `its turn`, `missed its turn`, ...
pub(crate) fn state(waiter: &Waiter) -> &'static str {
    match waiter {
        Waiter { is_away: true, .. } => "missed its turn",
        Waiter { has_turn: true, .. } => "its turn",
        Waiter { is_upkeep: true, .. } => "waits to checkpoint or recover",
        _ => "waits",
    }
}

/// The holder of the write lock: `pid 12 (python3), for 1.2 s; STOPPED...`
pub(crate) fn holder(facts: &Facts) -> String {
    let Some(holder) = &facts.seen.holder else {
        return match facts.seen.is_locked_by_a_stranger {
            true => "another program has locked the sidecar: see lslocks".to_owned(),
            false => "nobody".to_owned(),
        };
    };
    let upkeep = if holder.is_upkeep { ", to checkpoint or recover" } else { "" };
    match (&facts.survey.holder, &facts.survey.keepers) {
        (Some(process), _) => {
            let held = text::about(holder.held);
            format!("{}, for {held}{upkeep}{}", named(process), described(process))
        }
        (None, Some(keepers)) => kept(holder, keepers, facts.survey.missing()),
        (None, None) => {
            let program = holder.program.as_deref().unwrap_or("a program not seen from here");
            format!("pid {} ({program}), for {}{upkeep}", holder.pid, text::about(holder.held))
        }
    }
}

/// `WRITE: pid 7 (sqlite3), a stock client; user alice; sqlite3 board.db`
fn sqlite_lock(lock: &SqliteLock) -> String {
    let vfs = if lock.vfs == ClientVfs::Stock { "a stock client" } else { "by this VFS" };
    let details = lock.process.as_ref().map(described).unwrap_or_default();
    format!("{}: {}, {vfs}{details}", lock.name(), who(lock.process.as_ref()))
}

/// The processes whose SQLite locks keep others from writing, one line for each.
pub(crate) fn sqlite_writers(facts: &Facts) -> Vec<String> {
    let mut lines: Vec<(Option<&ProcessInfo>, String)> = Vec::new();
    for lock in facts.sqlite_writers() {
        let process = lock.process.as_ref();
        match lines.iter_mut().find(|(known, _)| process.is_some() && *known == process) {
            // The same process has RESERVED, PENDING and EXCLUSIVE during a commit.
            Some((_, line)) => *line = format!("{}, {line}", lock.name()),
            None => lines.push((process, sqlite_lock(lock))),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// `1. pid 7 (python3), for 1.2 s, waits; user alice; python3 worker.py`
fn waiting(nth: &str, waiter: &Waiter, process: Option<&ProcessInfo>) -> String {
    let (name, details) = match process {
        Some(process) => (named(process), described(process)),
        None => (format!("pid {} ({})", waiter.pid, waiter.program), String::new()),
    };
    let waited = text::about(waiter.waited);
    format!("{nth} {name}, for {waited}, {}{details}", state(waiter))
}

/// `pid 7 (python3) reads up to frame 12, and keeps 900 frames (3.7 MB) of the WAL; ...`
pub(crate) fn reader(facts: &Facts, one: &Reader) -> String {
    let bytes = facts.wal.map_or(0, |wal| wal.bytes_of(one.kept));
    let keeps = match (one.kept, one.mark) {
        (0, _) => "keeps nothing from being copied".to_owned(),
        (kept, _) => {
            format!("keeps {kept} frames ({}) of the WAL from being copied", text::bytes(bytes))
        }
    };
    let reads = match one.mark {
        0 => "reads the database alone".to_owned(),
        _ => format!("reads up to frame {}", one.frame),
    };
    let stock = if one.vfs == ClientVfs::Stock { ", a stock client," } else { "" };
    // A reader that keeps no frame is described among the clients.
    let details = one.process.as_ref().filter(|_| one.kept > 0).map(described);
    format!(
        "{}{stock} {reads}, and {keeps}{}",
        who(one.process.as_ref()),
        details.unwrap_or_default()
    )
}

/// How many frames are in the WAL, and why it is as large as it is.
pub(crate) fn wal(facts: &Facts) -> String {
    let Some(wal) = facts.wal else {
        return match (&facts.wal_unread, facts.seen.sizes.wal) {
            (Some(why), _) => why.clone(),
            (None, None) => "none".to_owned(),
            (None, Some(0)) => "empty".to_owned(),
            (None, Some(_)) => {
                "left by a client that did not close it: the next client that opens the board \
                                recovers it, and the last one to close it copies and deletes it"
                    .to_owned()
            }
        };
    };
    let mut said = format!(
        "{} frames ({}), {} of them copied into the database",
        wal.frames,
        text::bytes(wal.bytes_of(wal.frames)),
        wal.copied
    );
    if let Some(why) = facts.wal_size().and_then(why_large) {
        let _ = write!(said, "; {why}");
    }
    said
}

/// Why a WAL is large, in a sentence; `None` if it is not large.
pub(crate) fn why_large(size: WalSize) -> Option<&'static str> {
    Some(match size {
        WalSize::Kept => {
            "the file keeps the size that it had before it was reset: no harm; PRAGMA \
                          wal_checkpoint(TRUNCATE) or journal_size_limit makes it smaller"
        }
        WalSize::Pinned => {
            "it grows, since readers keep it from being copied: end their transactions"
        }
        WalSize::Checkpointing => "a checkpoint copies it now",
        WalSize::CheckpointsFail => {
            "it grows, since the last checkpoint has begun and not ended: a full disk, a file size limit, \
             an error that is in the log, or a process that was killed; try PRAGMA wal_checkpoint"
        }
        WalSize::NoCheckpoints => {
            "it grows, since nobody has begun to copy it: PRAGMA wal_autocheckpoint is 0 or high in those \
             that write; run PRAGMA wal_checkpoint(TRUNCATE)"
        }
        WalSize::NeverReset => {
            "it grows, since it is copied but never reset: at no moment was all of it copied and no reader \
             in it; run PRAGMA wal_checkpoint(RESTART) with a busy timeout, or make reads shorter"
        }
        _ => return None,
    })
}

fn as_text(facts: &Facts) -> String {
    let Facts { seen, survey, .. } = facts;
    let mut out = String::new();
    // Writing to a String does not fail.
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "{name:<12}{}", printable(text));
    };
    line("board", &seen.database.display().to_string());
    line("holder", &holder(facts));
    let writers = sqlite_writers(facts);
    match writers.is_empty() {
        false => line("SQLite", "but SQLite's own lock for writing:"),
        true if seen.holder.is_some() || seen.is_locked_by_a_stranger => {}
        true => line("SQLite", "nobody seen from here has its own lock for writing"),
    }
    writers.iter().for_each(|writer| line("", writer));
    let waits = |n| if n == 1 { "1 waits".to_owned() } else { format!("{n} wait") };
    match seen.queue.len() {
        0 if seen.sqlite_waiters.is_empty() => line("queue", "nobody waits"),
        0 => line("queue", "nobody waits for the write lock"),
        n => line("queue", &waits(n)),
    }
    for (nth, (waiter, process)) in seen.queue.iter().zip(&survey.queue).enumerate() {
        line("", &waiting(&format!("{}.", nth + 1), waiter, process.as_ref()));
    }
    if !seen.sqlite_waiters.is_empty() {
        let n = seen.sqlite_waiters.len();
        line("", &format!("{} for SQLite's own lock, in no order", waits(n)));
    }
    let others = seen.sqlite_waiters.iter().zip(&survey.sqlite_waiters);
    for (waiter, process) in others {
        line("", &waiting("-", waiter, process.as_ref()));
    }
    line("WAL", &wal(facts));
    let readers = facts.readers();
    match readers.len() {
        0 => {}
        1 => line("readers", "1 process reads"),
        n => line("readers", &format!("{n} read, the oldest first")),
    }
    readers.iter().for_each(|one| line("", &reader(facts, one)));
    for (nth, lock) in facts.rollback_readers().enumerate() {
        let stock = if lock.vfs == ClientVfs::Stock { ", a stock client," } else { "" };
        let details = lock.process.as_ref().map(described).unwrap_or_default();
        let who = who(lock.process.as_ref());
        let said = format!("{who}{stock} reads, and lets nobody commit meanwhile{details}");
        line(if nth == 0 { "readers" } else { "" }, &said);
    }
    let have = match survey.clients.len() {
        0 => "no process that this user may look into has it open".to_owned(),
        1 => "1 process has it open".to_owned(),
        n => format!("{n} processes have it open"),
    };
    line("clients", &have);
    survey.clients.iter().for_each(|one| line("", &client(one)));
    if let Some(missing) = survey.missing() {
        line("", &missing);
    }
    line(
        "sizes",
        &format!(
            "database {}, WAL {}, wal-index {}, journal {}, sidecar {}",
            text::bytes(seen.sizes.database),
            text::size(seen.sizes.wal),
            text::size(seen.sizes.wal_index),
            text::size(seen.sizes.journal),
            text::size(seen.sizes.sidecar),
        ),
    );
    let (state, why) = sidecar(&seen.sidecar_state);
    line("sidecar", &why.map_or_else(|| "ok".to_owned(), |why| format!("{state}: {why}")));
    if let Some((mount, kind)) = &seen.mount {
        line("file system", &format!("{kind}, mounted at {}", mount.display()));
    }
    let names = |wanted: fn(&Judgement) -> bool| {
        let all = seen.guarantees.iter().filter(|guarantee| wanted(&guarantee.judgement));
        all.map(|guarantee| guarantee.name).collect::<Vec<_>>().join(", ")
    };
    line("guarantees", &format!("hold: {}", names(|state| *state == Judgement::Active)));
    for guarantee in &seen.guarantees {
        if let Judgement::Inactive(why) = &guarantee.judgement {
            line("", &format!("does not hold: {}: {why}", guarantee.name));
        }
    }
    let unknown = names(|state| matches!(state, Judgement::Unknown(_)));
    line("", &format!("not to be known from outside: {unknown}"));
    line("counters", COUNTERS);
    out
}

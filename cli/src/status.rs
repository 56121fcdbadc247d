//! `status`: what an outsider sees of a board, as text or JSON.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use kanban_vfs::observation::{
    Client, ClientVfs, Holder, Judgement, Lockers, Observation, SidecarState, Waiter,
};
use serde_json::{Map, Value, json};

use crate::{Result, observe_board, say, text};

/// Why there are no counters.
const COUNTERS: &str = "not to be known from outside: each client's process counts for itself; ask \
                        it with PRAGMA kanban_status";

/// For how long it looks into other processes, if need be.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn run(board: &Path, as_json: bool) -> Result<bool> {
    let seen = observe_board(board)?;
    if as_json {
        say(&format!("{:#}\n", json(&seen)))?;
    } else {
        say(&as_text(&seen))?;
    }
    Ok(true)
}

/// The same names as in `PRAGMA kanban_status`, where it has them.
pub(crate) fn json(seen: &Observation) -> Value {
    let keepers = seen.keepers(LOOK);
    let holder = seen.holder.as_ref().map(|holder| {
        json!({
            "pid": holder.pid,
            "program": holder.program,
            "held_ms": holder.held.as_millis() as u64,
            "upkeep": holder.is_upkeep,
            "gone": holder.is_gone,
            "kept_by": keepers.as_ref().map(processes),
            "missing": keepers.as_ref().and_then(Lockers::missing),
        })
    });
    let sqlite = seen.holder.is_none().then(|| seen.sqlite_lockers(LOOK));
    let sqlite = sqlite.filter(|lockers| !lockers.processes.is_empty());
    let queue: Vec<Value> = seen
        .queue
        .iter()
        .map(|waiter| {
            json!({
                "pid": waiter.pid,
                "program": waiter.program,
                "waited_ms": waiter.waited.as_millis() as u64,
                "upkeep": waiter.is_upkeep,
                "has_turn": waiter.has_turn,
                "away": waiter.is_away,
            })
        })
        .collect();
    let guarantees: Map<String, Value> = seen
        .guarantees
        .iter()
        .map(|guarantee| {
            let judgement = match &guarantee.judgement {
                Judgement::Active => json!({"active": true}),
                Judgement::Inactive(why) => json!({"active": false, "why": why}),
                Judgement::Unknown(why) => json!({"active": null, "why": why}),
            };
            (guarantee.name.to_owned(), judgement)
        })
        .collect();
    let clients = seen.clients(LOOK);
    let open: Vec<Value> = clients
        .clients
        .iter()
        .map(|Client { process, vfs, .. }| {
            json!({"pid": process.pid, "program": process.program, "vfs": vfs_name(*vfs)})
        })
        .collect();
    let (state, why) = sidecar(&seen.sidecar_state);
    let (mount, file_system) = match &seen.mount {
        Some((mount, kind)) => (json!(mount.to_string_lossy()), json!(kind)),
        None => (Value::Null, Value::Null),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "database": seen.database.to_string_lossy(),
        "sidecar": seen.sidecar.to_string_lossy(),
        "sidecar_state": state,
        "sidecar_why": why,
        "holder": holder,
        "locked_by_a_stranger": seen.is_locked_by_a_stranger,
        "sqlite_lock": sqlite.as_ref().map(processes),
        "waiters": queue.len(),
        "queue": queue,
        "clients": open,
        "clients_missing": clients.missing(),
        "sizes": {
            "database": seen.sizes.database,
            "wal": seen.sizes.wal,
            "wal_index": seen.sizes.wal_index,
            "journal": seen.sizes.journal,
            "sidecar": seen.sizes.sidecar,
        },
        "hard_links": seen.hard_links,
        "mount": mount,
        "file_system": file_system,
        "guarantees": guarantees,
        "counters": null,
        "counters_why": COUNTERS,
    })
}

fn processes(lockers: &Lockers) -> Value {
    let all = lockers.processes.iter();
    all.map(|process| json!({"pid": process.pid, "program": process.program})).collect()
}

/// The VFS of a client, in JSON.
fn vfs_name(vfs: ClientVfs) -> Option<&'static str> {
    match vfs {
        ClientVfs::Kanban => Some("kanban"),
        ClientVfs::Stock => Some("stock"),
        ClientVfs::Both => Some("both"),
        _ => None,
    }
}

/// `pid 7 (python3) uses this VFS`
fn client(Client { process, vfs, .. }: &Client) -> String {
    let program = process.program.as_deref().unwrap_or("a program not seen from here");
    let uses = match vfs {
        ClientVfs::Kanban => "uses this VFS",
        ClientVfs::Stock => "is a stock client: it uses SQLite's own VFS",
        ClientVfs::Both => "uses this VFS, and SQLite's own by another connection",
        _ => {
            "shows nothing of this VFS, and has no lock now: a stock client between transactions, a \
             child that inherited the file, or no client of SQLite's"
        }
    };
    format!("pid {} ({program}) {uses}", process.pid)
}

/// What a state is called, and what is to be said of it.
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
            ("unseeded", Some("empty or cut short: the next writer makes it whole".to_owned()))
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

/// `pid 12 (python3), for 1.2 s`
pub(crate) fn who(holder: &Holder) -> String {
    let program = holder.program.as_deref().unwrap_or("a program not seen from here");
    let upkeep = if holder.is_upkeep { ", to checkpoint or recover" } else { "" };
    format!("pid {} ({program}), for {}{upkeep}", holder.pid, text::about(holder.held))
}

/// `process 7 (sleep), a child that inherited the lock of process 5, which is dead; ...`
fn kept(holder: &Holder, keepers: &Lockers) -> String {
    let held = text::about(holder.held);
    let mut said = match keepers.processes.len() {
        0 => format!(
            "pid {}, for {held}, which is not to be found here: it runs in another pid namespace, or is \
             dead, and a child that inherited its lock keeps it",
            holder.pid
        ),
        n => format!(
            "{keepers}, for {held}: {} inherited the lock of process {}, which is dead; end {}, or let \
             {} exec",
            if n == 1 { "a child that" } else { "children that" },
            holder.pid,
            if n == 1 { "it" } else { "them" },
            if n == 1 { "it" } else { "them" },
        ),
    };
    if let Some(missing) = keepers.missing() {
        let _ = write!(said, " ({missing})");
    }
    said
}

/// `its turn`, `stopped`, ...
pub(crate) fn state(waiter: &Waiter) -> &'static str {
    match waiter {
        Waiter { is_away: true, .. } => "missed its turn",
        Waiter { has_turn: true, .. } => "its turn",
        Waiter { is_upkeep: true, .. } => "waits to checkpoint or recover",
        _ => "waits",
    }
}

/// Who has the lock, in a few words; `keepers` are those of a holder that is gone.
pub(crate) fn holder(seen: &Observation, keepers: Option<&Lockers>) -> String {
    match (&seen.holder, keepers) {
        (Some(holder), Some(keepers)) => kept(holder, keepers),
        (Some(holder), None) => who(holder),
        (None, _) if seen.is_locked_by_a_stranger => {
            "another program has locked the sidecar: see lslocks".to_owned()
        }
        (None, _) => "nobody".to_owned(),
    }
}

fn as_text(seen: &Observation) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "{name:<12}{text}");
    };
    line("board", &seen.database.display().to_string());
    line("holder", &holder(seen, seen.keepers(LOOK).as_ref()));
    if seen.holder.is_none() && !seen.is_locked_by_a_stranger {
        let lockers = seen.sqlite_lockers(LOOK);
        match lockers.processes.is_empty() {
            true => {
                line("", "a stock client may have SQLite's own lock: lslocks or fuser names it")
            }
            false => line("", &format!("but SQLite's own lock for writing: {lockers}")),
        }
        if let Some(missing) = lockers.missing() {
            line("", &missing);
        }
    }
    match seen.queue.len() {
        0 => line("queue", "nobody waits"),
        1 => line("queue", "1 waits"),
        n => line("queue", &format!("{n} wait")),
    }
    for (nth, waiter) in seen.queue.iter().enumerate() {
        let waited = text::about(waiter.waited);
        let Waiter { pid, program, .. } = waiter;
        line("", &format!("{}. pid {pid} ({program}), for {waited}, {}", nth + 1, state(waiter)));
    }
    let clients = seen.clients(LOOK);
    let have = match clients.clients.len() {
        0 => "no process that this user may look into has it open".to_owned(),
        1 => "1 process has it open".to_owned(),
        n => format!("{n} processes have it open"),
    };
    line("clients", &have);
    clients.clients.iter().for_each(|one| line("", &client(one)));
    if let Some(missing) = clients.missing() {
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

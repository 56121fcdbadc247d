//! The output for scripts: `docs/operating.schema.json` describes it.

use std::path::Path;

use kanban_vfs::observation::{
    Client, ClientVfs, Judgement, ProcessInfo, Reader, SqliteLock, Waiter, WalSize,
};
use serde_json::{Map, Value, json};

use crate::facts::Facts;
use crate::status::{COUNTERS, sidecar};

/// The error if nothing can be said about a board.
pub(crate) fn error(board: Option<&Path>, error: &impl ToString) -> Value {
    let board = board.map(|board| board.to_string_lossy());
    json!({"version": env!("CARGO_PKG_VERSION"), "database": board, "error": error.to_string()})
}

/// The status, with the names of `PRAGMA kanban_status` where it has the same field.
pub(crate) fn status(facts: &Facts) -> Value {
    let Facts { seen, survey, .. } = facts;
    let holder = seen.holder.as_ref().map(|holder| {
        let says = json!({
            "pid": holder.pid,
            "program": holder.program,
            "held_ms": holder.held.as_millis() as u64,
            "upkeep": holder.is_upkeep,
            "gone": holder.is_gone && survey.holder.is_none(),
            "kept_by": survey.keepers.as_ref().map(|all| all.iter().map(process).collect::<Value>()),
            "missing": survey.keepers.as_ref().and_then(|_| survey.missing()),
        });
        merged(says, survey.holder.as_ref())
    });
    let queue = seen.queue.iter().zip(&survey.queue).map(|(waiter, process)| {
        let mut said = waited(waiter, process.as_ref());
        said["upkeep"] = waiter.is_upkeep.into();
        said["has_turn"] = waiter.has_turn.into();
        said["away"] = waiter.is_away.into();
        said
    });
    let sqlite_waiters = seen.sqlite_waiters.iter().zip(&survey.sqlite_waiters);
    let clients = survey
        .clients
        .iter()
        .map(|Client { process, vfs, .. }| merged(json!({"vfs": vfs_name(*vfs)}), Some(process)));
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
        "waiters": facts.waiters(),
        "queue": queue.collect::<Vec<_>>(),
        "sqlite_waiters": sqlite_waiters
            .map(|(waiter, process)| waited(waiter, process.as_ref()))
            .collect::<Vec<_>>(),
        "sqlite_locks": survey.locks.iter().map(lock).collect::<Vec<_>>(),
        "readers": facts.readers().iter().map(|one| reader(facts, one)).collect::<Vec<_>>(),
        "wal": wal(facts),
        "clients": clients.collect::<Vec<_>>(),
        "clients_missing": survey.missing(),
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

/// The members for a process.
fn process(one: &ProcessInfo) -> Value {
    json!({
        "pid": one.pid,
        "program": one.program,
        "command": one.command,
        "user": one.user,
        "state": one.state.map(|state| state.to_string()),
        "own_pid": one.own_pid,
        "confirmed": one.is_confirmed,
    })
}

/// `said` with the members for a process added; only `said` if there is no process.
fn merged(mut said: Value, one: Option<&ProcessInfo>) -> Value {
    let known = one.map_or_else(|| json!({"confirmed": false}), process);
    for name in ["pid", "program", "command", "user", "state", "own_pid", "confirmed"] {
        // It is null, unless `said` has it.
        let place = &mut said[name];
        if let Some(known) = known.get(name) {
            place.clone_from(known);
        }
    }
    said
}

fn waited(waiter: &Waiter, process: Option<&ProcessInfo>) -> Value {
    let said = json!({
        "pid": waiter.pid,
        "program": waiter.program,
        "waited_ms": waiter.waited.as_millis() as u64,
    });
    merged(said, process)
}

/// SQLite's name of a lock, and whether it is on the wal-index.
fn lock(one: &SqliteLock) -> Value {
    let said = json!({
        "file": if one.lock.is_on_wal_index() { "wal-index" } else { "database" },
        "lock": one.name(),
        "exclusive": one.is_exclusive,
        "vfs": vfs_name(one.vfs),
    });
    merged(said, one.process.as_ref())
}

fn reader(facts: &Facts, one: &Reader) -> Value {
    let bytes = facts.wal.map(|wal| wal.bytes_of(one.kept));
    let said = json!({
        "vfs": vfs_name(one.vfs),
        "mark": one.mark,
        "frame": one.frame,
        "kept_frames": one.kept,
        "kept_bytes": bytes,
    });
    merged(said, one.process.as_ref())
}

/// The state of the WAL, and why it is as large as it is.
pub(crate) fn wal(facts: &Facts) -> Option<Value> {
    let wal = facts.wal?;
    Some(json!({
        "page_size": wal.page_size,
        "frames": wal.frames,
        "copied_frames": wal.copied,
        "bytes": wal.bytes_of(wal.frames),
        "uncopied_bytes": wal.bytes_of(wal.frames - wal.copied),
        "size": facts.wal_size().map(size_name),
    }))
}

fn size_name(size: WalSize) -> &'static str {
    match size {
        WalSize::Small => "small",
        WalSize::Kept => "kept",
        WalSize::Pinned => "pinned",
        WalSize::Checkpointing => "checkpointing",
        WalSize::CheckpointsFail => "checkpoints_fail",
        WalSize::NoCheckpoints => "no_checkpoints",
        WalSize::NeverReset => "never_reset",
        _ => "unknown",
    }
}

fn vfs_name(vfs: ClientVfs) -> Option<&'static str> {
    match vfs {
        ClientVfs::Kanban => Some("kanban"),
        ClientVfs::Stock => Some("stock"),
        ClientVfs::Both => Some("both"),
        _ => None,
    }
}

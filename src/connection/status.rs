//! `PRAGMA kanban_status`: which guarantees hold on a connection, who has the write lock, and what
//! was counted. As JSON; `docs/configuration.md` explains the fields.

use std::sync::atomic::Ordering;

use super::{BaseFile, Connection, Stands};
use crate::guard::cancellation::Protection;
use crate::guard::identity::Identity;
use crate::json::{Object, Text};
use crate::lock::keepers::{Lockers, Whereabouts};
use crate::sys;

/// Facts about the VFS that a connection itself does not know.
pub(crate) struct Vfs<'v> {
    /// `kanban/unix`, say.
    pub(crate) full_name: &'v str,
    /// SQLite's version: 3040001, say.
    pub(crate) sqlite: i32,
    /// How SQLite's locks on its databases are protected.
    pub(crate) protection: Protection,
}

/// The status of a connection's database, a JSON object.
pub(crate) fn json<B: BaseFile>(connection: &mut Connection<B>, vfs: &Vfs<'_>) -> String {
    let guarantees = guarantees(connection, vfs.protection);
    let database = connection.database();
    let path = database.path();
    let canonical = sys::canonical(path).unwrap_or_else(|_| path.to_owned());
    let sqlite = vfs.sqlite;
    let base_name = vfs.full_name.rsplit_once('/').map_or("", |(_, base)| base);
    let counters = &database.counters;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);

    let mut json = Object::new();
    json.field("version", Text(env!("CARGO_PKG_VERSION")));
    json.field("vfs", Text(vfs.full_name));
    json.field("base_vfs", Text(base_name));
    let version = format!("{}.{}.{}", sqlite / 1_000_000, sqlite / 1000 % 1000, sqlite % 1000);
    json.field("sqlite", Text(&version));
    json.field("database", Text(&canonical.to_string_lossy()));
    json.field("sidecar", Text(&database.sidecar_path().to_string_lossy()));
    json.field("busy_timeout_default_ms", connection.settings().busy_timeout_ms());
    json.field("begin", Text(connection.settings().begin().name()));
    json.field("persist_wal", connection.settings().persist_wal);
    json.field("guarantees", guarantees);
    json.field("group_commit", either(connection.group_commit(), None));
    match database.holder() {
        None => {
            json.field("holder", "null");
            if let Some(lockers) = database.sqlite_lockers(true) {
                json.field("sqlite_lock", processes(&lockers));
            }
        }
        Some((holder, this_process)) => {
            let mut who = Object::new();
            who.field("pid", holder.pid);
            let (process, keepers) = match database.whereabouts((holder, this_process)) {
                Whereabouts::There(process) => (Some(process), None),
                Whereabouts::Gone(keepers) => (None, Some(keepers)),
            };
            if let Some(program) = process.and_then(|process| process.program) {
                who.field("program", Text(&program));
            }
            who.field("held_ms", holder.held().as_millis());
            who.field("this_process", this_process);
            who.field("this_connection", connection.holds_write_lock());
            who.field("gone", keepers.is_some());
            if let Some(keepers) = keepers {
                who.field("kept_by", processes(&keepers));
                if let Some(missing) = keepers.missing() {
                    who.field("missing", Text(&missing));
                }
            }
            json.field("holder", who);
        }
    }
    let waiters = database.waiters();
    json.field("waiters", waiters.len());
    let now = sys::shared_ns();
    let queue = waiters.iter().map(|waiter| {
        let mut who = Object::new();
        who.field("pid", waiter.pid);
        let program = String::from_utf8_lossy(&waiter.program);
        who.field("program", Text(program.trim_end_matches('\0')));
        who.field("waited_ms", waiter.since.ago(now).unwrap_or_default().as_millis());
        who.to_string()
    });
    json.field("queue", format_args!("[{}]", queue.collect::<Vec<_>>().join(",")));
    let mut counted = Object::new();
    counted.field("acquired", count(&counters.acquired));
    counted.field("refused", count(&counters.refused));
    counted.field("waits", count(&counters.waits));
    counted.field("waited_ms", count(&counters.waited_ms));
    counted.field("longest_wait_ms", count(&counters.longest_wait_ms));
    counted.field("gave_up", count(&counters.gave_up));
    counted.field("sidecars_replaced", count(&counters.sidecars_replaced));
    counted.field("stale_checkpoints", count(&counters.stale_checkpoints));
    counted.field("restarts_deferred", count(&counters.restarts_deferred));
    counted.field("short_files", count(&counters.short_files));
    counted.field("displaced", count(&counters.displaced));
    counted.field("syncs_led", count(&counters.syncs_led));
    counted.field("commits_covered", count(&counters.commits_covered));
    counted.field("syncs_failed", count(&counters.syncs_failed));
    json.field("counters", counted);
    json.to_string()
}

/// Each with `pid` and, where it is known, `program`.
fn processes(lockers: &Lockers) -> String {
    let all = lockers.processes.iter().map(|process| {
        let mut who = Object::new();
        who.field("pid", process.pid);
        if let Some(program) = &process.program {
            who.field("program", Text(program));
        }
        who.to_string()
    });
    format!("[{}]", all.collect::<Vec<_>>().join(","))
}

/// Each guarantee with `{"active": true}`, or the reason why it does not hold.
fn guarantees<B: BaseFile>(connection: &mut Connection<B>, protection: Protection) -> Object {
    let guards = connection.guards();
    let displaced = guards.files.displaced().map(|why| why.to_string());
    let deficit = guards.length.deficit();
    let no_wal = guards.no_wal().map(str::to_owned);
    let stands = guards.length.stands();
    let is_off = guards.pragmas.is_synchronous_off();
    let journalless = guards.pragmas.journalless();
    let files = guards.files.identity();
    let wal_untold = files.and_then(Identity::wal_untold).map(str::to_owned);
    let files = files.map(|files| (files.inode(), files.wal_index()));
    let untold = guards.files.untold().map(|why| {
        format!("the kernel could not identify the file when it was opened ({why}); open it again")
    });
    let database = connection.database();
    let obstacle = database.obstacle();
    let write_lock = match &obstacle {
        _ if connection.is_read_only() => Err("the connection is read-only and writes nothing"),
        Some(why) => Err(why.as_str()),
        None => Ok(()),
    };
    let cancellation = match files {
        None => protection.why_not(None).or_else(|| untold.clone()),
        Some((inode, wal_index)) => protection
            .why_not(Some(inode))
            .or_else(|| wal_index.and_then(|inode| protection.why_not(Some(inode))))
            .or_else(|| wal_untold.clone()),
    };
    let identity = match files {
        None => {
            untold.or_else(|| Some("the base VFS does not keep the database in a file".to_owned()))
        }
        Some(_) => displaced.or(wal_untold),
    };
    let length = match stands {
        Stands::Below => Some(
            "another VFS lies over this one, and decides what the file holds: its length is not compared with its \
             header"
                .to_owned(),
        ),
        Stands::Above => {
            Some("the base VFS is none of the operating system's: the length that it reports is trusted".to_owned())
        }
        Stands::Alone => deficit.map(|missing| {
            format!("the file was {missing} bytes shorter than its header says when it was opened")
        }),
    };
    let in_use = protection.why_not(None).map(|why| {
        format!("a client that has the wal-index open is seen only while it reads or writes: {why}")
    });
    let fork = protection.why_not(None).map(|why| {
        format!(
            "a child that opens a database which its parent has open shares SQLite's record of the parent's locks: {why}"
        )
    });
    let durable =
        is_off.then(|| "synchronous is OFF: a power cut may corrupt the database".to_owned());
    let journal = journalless.map(|mode| {
        format!("journal_mode is {mode}: a writer that is killed may leave half a transaction")
    });
    let network = match &no_wal {
        Some(why) => Some(why.clone()),
        None if connection.settings().network_wal => {
            Some("kanban_network_wal=1: WAL mode is allowed on any file system".to_owned())
        }
        None => None,
    };
    fn state(why: &Option<String>) -> Result<(), &str> {
        why.as_deref().map_or(Ok(()), Err)
    }
    let mut guarantees = Object::new();
    for (name, state) in [
        ("write_lock", write_lock),
        ("first_connect", write_lock),
        ("queue_page", write_lock),
        ("lock_cancellation", state(&cancellation)),
        ("wal_reset", Ok(())),
        ("file_length", state(&length)),
        ("fork", state(&fork)),
        ("identity", state(&identity)),
        ("wal_in_use", state(&in_use)),
        ("wal_file_system", state(&network)),
        ("journal", state(&journal)),
        ("synchronous", state(&durable)),
    ] {
        // Guarantees that the operating system gives by itself.
        let by_the_system = match name {
            "lock_cancellation" if cfg!(windows) => {
                Some("does not apply: Windows' locks belong to a handle, not to a process")
            }
            "fork" if cfg!(windows) => Some("does not apply: Windows has no fork"),
            _ => None,
        };
        guarantees.field(name, either(state, by_the_system));
    }
    guarantees
}

/// `{"active": true}`, with a remark if there is one, or false with the reason.
fn either(state: Result<(), &str>, remark: Option<&str>) -> Object {
    let mut object = Object::new();
    object.field("active", state.is_ok());
    if let Some(why) = state.err().or(remark) {
        object.field("why", Text(why));
    }
    object
}

//! What happened on a board, for its operator: the event log beside the database, `<database>-kanban-log`.
//!
//! | file | promise |
//! |---|---|
//! | `mod.rs` | A process records events, and no client waits or fails because of that. |
//! | [`event`] | A torn or impossible record is skipped. |
//! | [`tally`] | Counters cover all processes of the board. |
//! | [`mod@file`] | The file never grows, has the rights of its database, and is no other program's. |
//!
//! The log is made when there is something to record, and stays when the last connection closes. It holds the last
//! [`file::RECORDS`] events, and the counters of all processes. Each process counts for itself ([`crate::counters`]). It adds
//! its counts to the file when a transaction ends, at most once a second, and when it closes the database. So a transaction
//! makes no additional system call, and a killed process loses the counts of its last second. While there is no log, a process
//! looks for one at most once a second, too.
//!
//! Where the log cannot be used (rights, a full disk, another program's file in its place), nothing
//! is recorded. That is no error, and is reported only to those who read the log.

pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod tally;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::counters::{Counters, count};
use crate::sys;
use crate::sys::fork::{ForkMutex, Own};
use event::{Event, EventKind, Process};
use file::LogFile;
use tally::Words;

/// A process adds its counts to the log when they are this old, in ns.
const FLUSHES_AFTER_NS: u64 = 1_000_000_000;

/// How many events of one database a process records in a second.
const MOST: u32 = 20;

/// How many logs are open. Locked to change it, and while a thread forks.
static OPEN: ForkMutex<usize> = ForkMutex::new(0);

/// While this lives, a log may be open, and no thread forks: so no child inherits the log's descriptor, and with it a lock.
struct Opening;

impl Opening {
    fn begin() -> Self {
        *OPEN.lock() += 1;
        Self
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        *OPEN.lock() -= 1;
    }
}

/// Keeps other threads from opening logs until the result is dropped. Waits until none is open.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    loop {
        let open = OPEN.lock();
        if *open == 0 {
            return open;
        }
        drop(open);
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// What a connection records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recording {
    /// Whether it records anything.
    pub(crate) is_on: bool,
    /// Whether it records statements.
    pub(crate) has_statements: bool,
    /// The shortest transaction or checkpoint that it records, in ns. [`u64::MAX`] if it records nothing.
    pub(crate) slow_ns: u64,
}

impl Recording {
    /// What a connection with these settings records.
    pub(crate) fn new(is_on: bool, has_statements: bool, slow: Duration) -> Self {
        let slow_ns = if is_on { slow.as_nanos() as u64 } else { u64::MAX };
        Self { is_on, has_statements: is_on && has_statements, slow_ns }
    }
}

/// What this process records about one database.
pub(crate) struct Recorder {
    database: PathBuf,
    /// When the counts are due to be added, in ns of [`sys::monotonic_ns`].
    due: AtomicU64,
    /// Whether there was a log when it was last looked for.
    has_log: AtomicBool,
    /// What is to be recorded. Mutex rule: held to look and to change, while no other lock is taken.
    waiting: Mutex<Waiting>,
    /// The part of this process's counters that the file already has. Mutex rule: held while this process has the log of this
    /// database open, so no thread waits for it.
    added: Mutex<Words>,
    /// Empty in a child of the process that made it.
    own: Own<()>,
}

#[derive(Default)]
struct Waiting {
    /// The events that no thread has written yet, each with whether it makes a log.
    events: Vec<(Event, bool)>,
    /// The second of the last events, how many were recorded in it, and how many were left out since the last recorded one.
    second: u64,
    recorded: u32,
    left_out: u32,
}

impl Waiting {
    /// Takes an event; false if there were too many.
    fn take(&mut self, mut event: Event, create: bool) -> bool {
        let second = sys::monotonic_ns() / 1_000_000_000;
        if self.second != second {
            (self.second, self.recorded) = (second, 0);
        }
        // The thread that writes may wait for the disk while many events gather.
        if self.recorded >= MOST || self.events.len() >= MOST as usize {
            self.left_out = self.left_out.saturating_add(1);
            return false;
        }
        self.recorded += 1;
        event.left_out = std::mem::take(&mut self.left_out);
        self.events.push((event, create));
        true
    }
}

impl Recorder {
    /// The recorder of the database at `path`, with nothing recorded yet.
    pub(crate) fn of(path: &Path) -> Self {
        Self {
            database: path.to_owned(),
            due: AtomicU64::new(0),
            has_log: AtomicBool::new(false),
            waiting: Mutex::default(),
            added: Mutex::default(),
            own: Own::new(()),
        }
    }

    /// Whether [`Self::add`] is due at `now`, in ns of [`sys::monotonic_ns`].
    #[inline(always)]
    pub(crate) fn is_due(&self, now: u64) -> bool {
        now >= self.due.load(Ordering::Relaxed)
    }

    /// Adds to the log what was counted since the last time, if there is a log.
    #[cold]
    pub(crate) fn add(&self, counters: &Counters, now: u64) {
        self.due.store(now.saturating_add(FLUSHES_AFTER_NS), Ordering::Relaxed);
        if self.own.get().is_some() {
            self.write(counters);
        }
    }

    /// The last connection of this process closes the database: adds what is left. If a log was missing a moment ago, it is
    /// not looked for again.
    pub(crate) fn close(&mut self, counters: &Counters) {
        // 0: this process has added nothing yet, since it never wrote.
        let has_begun = self.due.load(Ordering::Relaxed) != 0;
        let is_due = || self.is_due(sys::monotonic_ns());
        let looks = has_begun && (self.has_log.load(Ordering::Relaxed) || is_due());
        if looks && tally::words(counters) != *self.added.get_mut() {
            self.add(counters, sys::monotonic_ns());
        }
    }

    /// Records an event of this process, and adds the counts. Makes the log if it may `create` it. If another thread is
    /// writing to the log of this database, that thread does all this.
    #[cold]
    pub(crate) fn record(&self, event: Event, create: bool, counters: &Counters) {
        if self.own.get().is_none() {
            return;
        }
        if self.waiting.lock().take(event, create) {
            self.write(counters);
        } else {
            count(&counters.events_left_out);
        }
    }

    /// Writes the events that are to be recorded, and the counts, unless another thread is doing so.
    fn write(&self, counters: &Counters) {
        loop {
            let Some(mut added) = self.added.try_lock() else { return };
            self.write_to_log(&mut added, counters);
            drop(added);
            // A thread that came meanwhile left its event to this one.
            if self.waiting.lock().events.is_empty() {
                return;
            }
        }
    }

    fn write_to_log(&self, added: &mut Words, counters: &Counters) {
        let events = std::mem::take(&mut self.waiting.lock().events);
        let _opening = Opening::begin();
        let log = if events.is_empty() {
            LogFile::open(&self.database)
        } else {
            let create = events.iter().any(|(_, create)| *create);
            LogFile::open_to_record(&self.database, create)
        };
        self.has_log.store(log.is_some(), Ordering::Relaxed);
        let Some(log) = log else { return };
        if !events.is_empty() {
            let process = Process::this();
            for (event, _) in events {
                log.append(&Event { process: process.clone(), ..event });
            }
        }
        let counted = tally::words(counters);
        if log.add(&counted.since(added)) {
            *added = counted;
        }
    }
}

/// An event that has just ended, without its process.
pub(crate) fn ended(kind: EventKind) -> Event {
    Event { unix_us: unix_us(), ..Event::of(kind) }
}

/// The time in us since 1970.
pub(crate) fn unix_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Whether any thread has a failed sync of a journal or WAL that no connection has recorded yet.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The result of the last such sync on this thread; 0 for none.
    static FAILED: Cell<i32> = const { Cell::new(0) };
}

/// Notes that a sync of a journal or WAL failed. The connection that writes that file, on this thread, gets it from
/// [`take_failed_sync`].
#[cold]
pub(crate) fn note_failed_sync(code: i32) {
    let _ = FAILED.try_with(|failed| failed.set(code));
    HAS_FAILED.store(true, Ordering::Relaxed);
}

/// The result of the sync that failed on this thread; `None` if none failed since the last call. That sync belongs to this
/// transaction, unless the transaction writes to several databases: then the first of them that ends gets it.
#[inline(always)]
pub(crate) fn take_failed_sync() -> Option<i32> {
    #[cold]
    fn take() -> Option<i32> {
        let failed = FAILED.try_with(|failed| failed.replace(0)).unwrap_or(0);
        // Another thread's failure is not lost: it stays in that thread's memory, and is only found a little later.
        if failed != 0 {
            HAS_FAILED.store(false, Ordering::Relaxed);
        }
        (failed != 0).then_some(failed)
    }
    if HAS_FAILED.load(Ordering::Relaxed) { take() } else { None }
}

#[cfg(all(test, unix))]
mod tests;

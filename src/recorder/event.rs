//! An event, and its layout in the log.
//!
//! | bytes of a record | |
//! |---|---|
//! | 0 to 7 | its number, from 1 on; 0 if there is no event (u64) |
//! | 8 to 15 | the checksum of all other bytes (FNV-1a, u64) |
//! | 16 to 23 | when it ended, in us since 1970 (u64) |
//! | 24 to 27 | kind, outcome, cause (u8 each), and a byte that is 0 |
//! | 28 to 31 | the process (u32) |
//! | 32 to 35 | the process that had the write lock; 0: none (u32) |
//! | 36 to 39 | how many frames, or pages (u32) |
//! | 40 to 47 | how long it waited, in us (u64) |
//! | 48 to 55 | how long it held the write lock, or worked, in us (u64) |
//! | 56 to 59 | SQLite's result code (i32) |
//! | 60 to 63 | how many events of its process were left out before this one (u32) |
//! | 64 to 155 | the command of the process |
//! | 156 to 159 | its pid namespace; 0: not known (u32) |
//! | 160 to 255 | the command of the process that had the write lock |
//! | 256 to 383 | the first statement, or the beginning of a message |
//! | 384 to 511 | the last statement, or the rest of the message |
//!
//! Numbers are little-endian. Texts are UTF-8, cut where they do not fit, and end with zeros.

use std::time::Duration;

use crate::json::{Object, Text};
use crate::sys;

/// The length of a record in bytes.
pub(super) const RECORD: usize = 512;

/// More events than any log can have. A greater number is damage.
pub(super) const MOST_EVENTS: u64 = 1 << 48;

/// The end of the year 9999, in us since 1970. A later time is damage.
const END_OF_TIME: u64 = 253_402_300_800_000_000;

const COMMAND: std::ops::Range<usize> = 64..156;
const NAMESPACE: usize = 156;
const OTHER: std::ops::Range<usize> = 160..256;
const FIRST: std::ops::Range<usize> = 256..384;
const LAST: std::ops::Range<usize> = 384..512;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum EventKind {
    /// A transaction held the write lock, or waited for it, for `kanban_slow_ms` or longer.
    Transaction = 1,
    /// A statement was refused at once, with SQLITE_BUSY. Without a busy handler, refusals of one
    /// connection less than a second apart are one event, that of the last one.
    Refusal = 2,
    /// A statement waited and was refused, with SQLITE_BUSY.
    GiveUp = 3,
    /// A process ended while it held the write lock, and a waiter found the lock free.
    HolderDied = 4,
    /// A checkpoint lasted for `kanban_slow_ms` or longer, or failed.
    Checkpoint = 5,
    /// A guard refused a harmful operation, or found damage.
    Guard = 6,
    /// A sync failed.
    SyncFailed = 7,
    /// A hot journal was rolled back: its writer did not end its transaction.
    JournalRolledBack = 8,
}

impl EventKind {
    const ALL: [Self; 8] = [
        Self::Transaction,
        Self::Refusal,
        Self::GiveUp,
        Self::HolderDied,
        Self::Checkpoint,
        Self::Guard,
        Self::SyncFailed,
        Self::JournalRolledBack,
    ];

    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Refusal => "refusal",
            Self::GiveUp => "give_up",
            Self::HolderDied => "holder_died",
            Self::Checkpoint => "checkpoint",
            Self::Guard => "guard",
            Self::SyncFailed => "sync_failed",
            Self::JournalRolledBack => "journal_rolled_back",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Outcome {
    /// The transaction committed.
    Committed = 1,
    /// The transaction committed nothing.
    RolledBack = 2,
    /// The checkpoint copied all frames.
    Complete = 3,
    /// The checkpoint left frames that readers still need.
    Partial = 4,
    /// The checkpoint did not copy what it meant to copy.
    Failed = 5,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Committed, Self::RolledBack, Self::Complete, Self::Partial, Self::Failed];

    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// Why a statement was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Cause {
    /// Another connection had the write lock, or the turn.
    WriteLock = 1,
    /// Another connection committed after this transaction had begun to read.
    StaleSnapshot = 2,
    /// A client that does not use this VFS had SQLite's own lock, as far as this VFS can tell.
    SqliteLock = 3,
    /// The connection had the write lock, and readers were in its way.
    Readers = 4,
}

impl Cause {
    const ALL: [Self; 4] = [Self::WriteLock, Self::StaleSnapshot, Self::SqliteLock, Self::Readers];

    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WriteLock => "write_lock",
            Self::StaleSnapshot => "stale_snapshot",
            Self::SqliteLock => "sqlite_lock",
            Self::Readers => "readers",
        }
    }
}

/// A process that an event concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Its id, in its own pid namespace; 0 if it is not known.
    pub pid: u32,
    /// Its command line, cut, or its program's name. Empty if it is not known, or if the process
    /// was gone when the event was recorded.
    pub command: String,
    /// Its pid namespace, as lsns(8) shows it. `None` if it is not known, as for every holder.
    /// pid_namespaces(7)
    pub pid_namespace: Option<u32>,
}

impl Process {
    /// A process that exists.
    pub(crate) fn of(pid: u32) -> Self {
        let command = sys::command_of(pid).or_else(|| sys::program_of(pid));
        Self { pid, command: command.unwrap_or_default(), pid_namespace: None }
    }

    /// A process about which only the id is known.
    pub(crate) fn unknown(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// This process.
    pub(super) fn this() -> Self {
        Self { pid_namespace: sys::pid_namespace(), ..Self::of(sys::pid()) }
    }
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its number among the events of the log; 0 if it is in none.
    pub number: u64,
    /// When it ended, in us since 1970, by the clock of its process.
    pub unix_us: u64,
    /// What happened.
    pub kind: EventKind,
    /// The process to which it happened.
    pub process: Process,
    /// The process that had the write lock; for [`EventKind::HolderDied`], the process that ended.
    pub holder: Option<Process>,
    /// How long it waited.
    pub waited: Duration,
    /// How long it held the write lock; for a checkpoint, how long that took.
    pub held: Duration,
    /// How many frames it wrote to the WAL; for a checkpoint, how many it left uncopied.
    pub frames: u32,
    /// How it ended, if that is known.
    pub outcome: Option<Outcome>,
    /// Why it was refused, if that is known.
    pub cause: Option<Cause>,
    /// The result code that SQLite got; 0 if there is none.
    pub code: i32,
    /// How many events of the same process were left out before this one, because there were too
    /// many.
    pub left_out: u32,
    /// The statement that took the write lock, or was refused. Only with `kanban_record_sql`.
    pub first_statement: Option<String>,
    /// The statement that released the write lock. Only with `kanban_record_sql`.
    pub last_statement: Option<String>,
    /// The line that the VFS logged.
    pub message: Option<String>,
}

impl Event {
    /// An event of that kind, with nothing else known.
    pub(crate) fn of(kind: EventKind) -> Self {
        Self {
            number: 0,
            unix_us: 0,
            kind,
            process: Process::default(),
            holder: None,
            waited: Duration::ZERO,
            held: Duration::ZERO,
            frames: 0,
            outcome: None,
            cause: None,
            code: 0,
            left_out: 0,
            first_statement: None,
            last_statement: None,
            message: None,
        }
    }

    /// Whether the two texts after the commands are a message.
    fn has_message(kind: EventKind) -> bool {
        matches!(kind, EventKind::Guard | EventKind::SyncFailed)
    }

    /// Its record, as number `number`.
    pub(super) fn encode(&self, number: u64) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        let us = |duration: Duration| duration.as_micros() as u64;
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        let holder = self.holder.as_ref();
        put(0, &number.to_le_bytes());
        put(16, &self.unix_us.to_le_bytes());
        let outcome = self.outcome.map_or(0, |outcome| outcome as u8);
        let cause = self.cause.map_or(0, |cause| cause as u8);
        put(24, &[self.kind as u8, outcome, cause]);
        put(28, &self.process.pid.to_le_bytes());
        put(32, &holder.map_or(0, |holder| holder.pid).to_le_bytes());
        put(36, &self.frames.to_le_bytes());
        put(40, &us(self.waited).to_le_bytes());
        put(48, &us(self.held).to_le_bytes());
        put(56, &self.code.to_le_bytes());
        put(60, &self.left_out.to_le_bytes());
        put(COMMAND.start, cut(&self.process.command, COMMAND.len()));
        put(NAMESPACE, &self.process.pid_namespace.unwrap_or(0).to_le_bytes());
        put(OTHER.start, cut(holder.map_or("", |holder| &holder.command), OTHER.len()));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if Self::has_message(self.kind) {
            let message = text(&self.message);
            let first = cut(&message, FIRST.len());
            put(FIRST.start, first);
            put(LAST.start, cut(&message[first.len()..], LAST.len()));
        } else {
            put(FIRST.start, cut(&text(&self.first_statement), FIRST.len()));
            put(LAST.start, cut(&text(&self.last_statement), LAST.len()));
        }
        let checksum = checksum(&record);
        record[8..16].copy_from_slice(&checksum.to_le_bytes());
        record
    }

    /// The event in a record; `None` if there is none, or it is torn or damaged.
    pub(super) fn decode(record: &[u8; RECORD]) -> Option<Self> {
        let short = |at: usize| u32_at(record, at);
        let long = |at: usize| u64_at(record, at);
        let number = long(0);
        let can_be = (1..MOST_EVENTS).contains(&number) && long(16) < END_OF_TIME;
        if !can_be || long(8) != checksum(record) {
            return None;
        }
        let kind = EventKind::ALL.into_iter().find(|kind| *kind as u8 == record[24])?;
        let text = |range: std::ops::Range<usize>| {
            let text = String::from_utf8_lossy(&record[range]).into_owned();
            sys::printable(text.trim_end_matches('\0'))
        };
        let some = |text: String| (!text.is_empty()).then_some(text);
        let holder = Process { command: text(OTHER), ..Process::unknown(short(32)) };
        let namespace = Some(short(NAMESPACE)).filter(|namespace| *namespace != 0);
        let (first, last) = (text(FIRST), text(LAST));
        let (message, first, last) = match Self::has_message(kind) {
            true => (some(first + &last), None, None),
            false => (None, some(first), some(last)),
        };
        Some(Self {
            number,
            unix_us: long(16),
            kind,
            process: Process { pid: short(28), command: text(COMMAND), pid_namespace: namespace },
            holder: (holder != Process::default()).then_some(holder),
            waited: Duration::from_micros(long(40)),
            held: Duration::from_micros(long(48)),
            frames: short(36),
            outcome: Outcome::ALL.into_iter().find(|outcome| *outcome as u8 == record[25]),
            cause: Cause::ALL.into_iter().find(|cause| *cause as u8 == record[26]),
            code: short(56) as i32,
            left_out: short(60),
            first_statement: first,
            last_statement: last,
            message,
        })
    }

    /// As a JSON object. `docs/operating.schema.json` describes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        fn text(text: Option<&str>) -> String {
            text.map_or_else(|| "null".to_owned(), |text| Text(text).to_string())
        }
        let process = |process: &Process| {
            let mut object = Object::new();
            object.field("pid", process.pid);
            object.field("command", text(Some(&*process.command).filter(|text| !text.is_empty())));
            let namespace = process.pid_namespace.map(|namespace| namespace.to_string());
            object.field("pid_namespace", namespace.as_deref().unwrap_or("null"));
            object.to_string()
        };
        let ms = |duration: Duration| duration.as_micros() as f64 / 1e3;
        let mut object = Object::new();
        object.field("number", self.number);
        object.field("unix_ms", self.unix_us / 1000);
        object.field("event", Text(self.kind.name()));
        object.field("process", process(&self.process));
        object.field("holder", self.holder.as_ref().map_or_else(|| "null".to_owned(), process));
        object.field("waited_ms", ms(self.waited));
        object.field("held_ms", ms(self.held));
        object.field("frames", self.frames);
        object.field("outcome", text(self.outcome.map(Outcome::name)));
        object.field("cause", text(self.cause.map(Cause::name)));
        object.field("code", self.code);
        object.field("left_out", self.left_out);
        object.field("first_statement", text(self.first_statement.as_deref()));
        object.field("last_statement", text(self.last_statement.as_deref()));
        object.field("message", text(self.message.as_deref()));
        object.to_string()
    }
}

/// The start of a text, at most `bytes` long.
fn cut(text: &str, bytes: usize) -> &[u8] {
    let end = (0..=bytes.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    &text.as_bytes()[..end.unwrap_or(0)]
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The checksum of a record or tally, over all bytes but its own, which are 8 to 15.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let (before, rest) = bytes.split_at(8);
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    before.iter().chain(&rest[8..]).fold(0xcbf2_9ce4_8422_2325, mix)
}

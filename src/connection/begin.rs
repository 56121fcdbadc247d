//! Transactions that take the write lock when they begin to read (`kanban_begin`): all of them, or those of a kind that was
//! refused to write before ([`crate::lock::kinds`]).
//!
//! A transaction that reads first and writes later is refused at its first write if another connection has written
//! meanwhile: its snapshot is stale (SQLITE_BUSY_SNAPSHOT), or two readers of a rollback mode would wait for each other.
//! SQLite does not call its busy handler for that, since waiting does not help. So such a transaction takes the write lock
//! with the lock by which it begins to read: it has no snapshot then, and may wait.
//!
//! The wait is inside that lock call. After SQLITE_BUSY, SQLite would ask for a READ slot a hundred times and then fail with
//! SQLITE_PROTOCOL; and a reader would fail that the stock VFS lets read. So this connection calls the busy handler itself
//! (FCNTL_BUSYHANDLER), as SQLite does after a refused lock: SQLite's default one sleeps in the queue ([`crate::lock::wait`]),
//! one of the application's own does what it likes, and if there is none, nobody waits. A handler that gives up has
//! given up for the rest of the statement, so that no statement waits twice.
//!
//! | the write lock is taken for [`Reason::Begin`] | when SQLite asks for |
//! |---|---|
//! | in WAL mode | a READ slot |
//! | in a rollback mode | SHARED |
//!
//! | it is released, if nothing else needs it | because |
//! |---|---|
//! | when SQLite unlocks that READ slot, or the database | the transaction is over, or was never begun: ROLLBACK unlocks while autocommit is still off, so autocommit does not tell |
//! | when SQLite unlocks WRITE | the transaction is over but for the sync of group commit, or its snapshot is stale |
//! | when SQLite unlocks to SHARED, in autocommit | the transaction is over, and another statement reads on |
//! | when SQLite maps the wal-index | the database is in WAL mode, and a READ slot comes next |
//!
//! It is kept when SQLite unlocks a READ slot to ask for another at once ([`Begin::expects_retry`]): SQLite compares the
//! header of the wal-index with the one it read before the wait. If that has changed, it begins anew.
//!
//! With `kanban_busy_timeout_min`, statements that may write take the write lock there, too, also outside of a transaction: a
//! busy timeout of 0 is no busy handler, so that SQLite would not ask for WRITE or RESERVED again. There the
//! connection may wait without one.
//!
//! With `auto`, a connection notes the kind of each transaction when that begins to read, and learns it if the
//! transaction is refused to write: the write lock, WRITE or RESERVED is not to be had, or WRITE is granted for a
//! snapshot that is stale, since the header of the wal-index is another than at the beginning.

use super::Connection;
use super::base_file::BaseFile;
use super::claim::{Begun, Patience, Reason};
use std::time::Duration;

use crate::ffi::ResultCode;
use crate::format::wal_index::HEADERS;
use crate::lock::kinds::{self, Kind, Known};
use crate::options::{Begin as Mode, Settings};
use crate::sys;

/// For how long a kind that was not known is taken to be unknown, in ns, so that a reader in a tight loop does not ask each
/// time.
const UNKNOWN_FOR_NS: u64 = 1_000_000;

/// SQLite begins anew sooner than this, in ns. An unlock that comes later ends the transaction.
const RETRIES_WITHIN_NS: u64 = 10_000_000;

/// How transactions of one connection begin.
#[derive(Debug)]
pub(super) struct Begin {
    mode: Mode,
    /// The least time that a statement waits for the write lock.
    least: Duration,
    /// `PRAGMA query_only` is on.
    is_query_only: bool,
    /// `PRAGMA locking_mode` is EXCLUSIVE: the database stays locked when a transaction ends.
    is_exclusive: bool,
    /// SHARED was taken in a rollback mode.
    has_journal: bool,
    /// When a READ slot was taken that SQLite unlocks at once, in ns; 0 if none was.
    expects_retry: u64,
    /// With `auto`: the transaction that has begun last. It may be over.
    transaction: Option<Transaction>,
    /// The kind that was looked for last in vain, and until when it is taken to be unknown, in ns.
    unknown: Option<(Kind, u64)>,
}

/// A transaction of a connection that learns.
#[derive(Debug)]
struct Transaction {
    kind: Kind,
    /// If the kind is known, it was to take the write lock first.
    known: Option<Known>,
    /// The header of the wal-index when it began to read, if it has a snapshot.
    header: Option<[u32; HEADERS / 2]>,
    has_written: bool,
}

impl Begin {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            mode: settings.begin(),
            least: settings.busy_timeout_min(),
            is_query_only: false,
            is_exclusive: false,
            has_journal: false,
            expects_retry: 0,
            transaction: None,
            unknown: None,
        }
    }

    /// Whether a transaction may have to take the write lock when it begins to read.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.mode != Mode::Deferred || !self.least.is_zero()
    }

    /// A pragma is being compiled; these take effect with that.
    pub(super) fn note_pragma(&mut self, name: &[u8], value: &[u8]) {
        let is = |text: &str| value.eq_ignore_ascii_case(text.as_bytes());
        if name.eq_ignore_ascii_case(b"query_only") && !value.is_empty() {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
            self.is_query_only =
                number.map_or(["on", "yes", "true"].into_iter().any(is), |n| n != 0);
        }
        if name.eq_ignore_ascii_case(b"locking_mode") && (is("exclusive") || is("normal")) {
            self.is_exclusive = is("exclusive");
        }
    }
}

impl<B: BaseFile> Connection<B> {
    /// Whether a READ slot is more than a slot to lock or unlock: a transaction begins or ends with it that has the write
    /// lock, or wants it. Each read transaction asks twice.
    #[inline]
    pub(super) fn begins_or_ends(&self) -> bool {
        self.begin.is_on()
            && (self.claim.has(Reason::Begin)
                || !self.begin.least.is_zero()
                || !self.base.is_in_autocommit())
    }

    /// SQLite is about to take SHARED. Takes the write lock first if a transaction of a rollback mode begins with it.
    pub(super) fn begin_with_shared(&mut self) -> Begun {
        if !self.begin.is_on() || self.wal.is_mapped || !self.wants_to_begin(false) {
            return Begun::AsWanted;
        }
        if !self.begin.has_journal && self.base.header().is_some_and(|header| header.is_wal()) {
            // It takes the write lock with its READ slot.
            return Begun::AsWanted;
        }
        self.begin.has_journal = true;
        self.take_to_begin()
    }

    /// SQLite is about to share a READ slot. Takes the write lock first if a transaction begins with it.
    pub(super) fn begin_with_snapshot(&mut self) {
        if !self.begin.is_on() || !self.wants_to_begin(true) {
            return;
        }
        // SQLite has read the header before.
        let before = self.base.wal_index_header();
        let begun = self.take_to_begin();
        let now = self.base.wal_index_header();
        if begun == Begun::AsWanted && before != now {
            self.begin.expects_retry = sys::monotonic_ns();
        }
        if let Some(transaction) = &mut self.begin.transaction {
            transaction.header = now;
        }
    }

    /// SQLite has unlocked a READ slot.
    pub(super) fn snapshot_ended(&mut self) {
        let expected = std::mem::take(&mut self.begin.expects_retry);
        if sys::monotonic_ns().saturating_sub(expected) > RETRIES_WITHIN_NS {
            self.begin_ended();
        }
    }

    /// Nothing that it has begun needs the write lock any more.
    #[inline]
    pub(super) fn begin_ended(&mut self) {
        if self.claim.has(Reason::Begin) {
            self.begin.expects_retry = 0;
            self.claim.release(Reason::Begin);
            if let Some(transaction) = self.begin.transaction.take() {
                self.note_use(&transaction);
            }
        }
    }

    #[inline(never)]
    fn note_use(&self, transaction: &Transaction) {
        if let Some(known) = transaction.known {
            kinds::note_use(&self.database, known, transaction.has_written);
        }
    }

    /// WRITE or RESERVED was asked for, to write, with that answer. With `auto`, learns the kind of a transaction that has read
    /// and is refused to write.
    #[inline]
    pub(super) fn tried_to_write(&mut self, rc: ResultCode) {
        if self.begin.mode == Mode::Auto && self.begin.transaction.is_some() {
            self.learn_if_refused(rc);
        }
    }

    #[inline(never)]
    fn learn_if_refused(&mut self, rc: ResultCode) {
        let Some(transaction) = &mut self.begin.transaction else { return };
        let is_stale = || match transaction.header {
            Some(header) => self.base.wal_index_header() != Some(header),
            None => false,
        };
        let is_refused = match rc {
            ResultCode::OK => is_stale(),
            rc => rc.is_busy(),
        };
        transaction.has_written |= rc == ResultCode::OK && !is_refused;
        if is_refused && !self.base.is_in_autocommit() && self.base.is_upgrade() {
            kinds::learn(&self.database, transaction.kind);
            self.begin.unknown = None;
        }
    }

    /// Whether a statement begins to read in a transaction that may write later, `in_wal` mode or not, and is to take the write
    /// lock first.
    fn wants_to_begin(&mut self, in_wal: bool) -> bool {
        let begin = &mut self.begin;
        if self.read_only || begin.is_query_only || begin.is_exclusive || self.claim.is_held() {
            return false;
        }
        begin.transaction = None;
        let is_statement = self.base.is_in_autocommit();
        if is_statement && begin.least.is_zero() || !self.base.is_main() {
            return false;
        }
        // VACUUM INTO only reads, for long, in a transaction that SQLite has begun. A statement that is being compiled reads
        // the schema, in a transaction that ends with that.
        let learns = begin.mode == Mode::Auto;
        match self.base.running(learns) {
            None => false,
            Some(running) if running.is_vacuum => false,
            // It waits here for longer than its busy handler does.
            Some(running) if running.may_write && !begin.least.is_zero() => true,
            Some(_) if is_statement || begin.mode == Mode::Deferred => false,
            Some(running) => running.kind.is_none_or(|kind| self.is_known(kind, in_wal)),
        }
    }

    /// Whether a transaction of that kind, which begins now, is to take the write lock first.
    fn is_known(&mut self, kind: Kind, in_wal: bool) -> bool {
        let now = sys::monotonic_ns();
        let known = match self.begin.unknown {
            Some((unknown, until)) if unknown == kind && now < until => None,
            _ => kinds::look_up(&self.database, kind),
        };
        if known.is_none() {
            self.begin.unknown = Some((kind, now + UNKNOWN_FOR_NS));
        }
        let header = if in_wal { self.base.wal_index_header() } else { None };
        self.begin.transaction = Some(Transaction { kind, known, header, has_written: false });
        known.is_some()
    }

    fn take_to_begin(&mut self) -> Begun {
        // A connection that writes to another board and waits for this one could wait for another that does the reverse.
        let waits = !self.base.writes_elsewhere();
        let patience =
            Patience { least: self.begin.least, if_unknown: self.settings.begin_timeout() };
        self.claim.take_to_begin(waits.then_some(patience))
    }
}

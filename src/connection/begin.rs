//! Transactions that take the write lock when they begin to read (`kanban_begin`): all of them, or those of a kind that was
//! refused when it began to write ([`crate::lock::kinds`]).
//!
//! A transaction that reads first and writes later is refused at its first write if another connection has written meanwhile.
//! Its snapshot is stale (SQLITE_BUSY_SNAPSHOT) or, in a rollback mode, two readers would wait for each other.
//! SQLite does not call its busy handler for that, since waiting does not help. So such a transaction takes the write lock
//! together with the lock by which it begins to read. It has no snapshot yet, and may wait.
//!
//! The wait is inside that lock call. After SQLITE_BUSY, SQLite would ask for a READ slot a hundred times and then fail with
//! SQLITE_PROTOCOL; and a reader would fail that succeeds on the stock VFS. So this connection calls the busy handler itself
//! (FCNTL_BUSYHANDLER), as SQLite does after a refused lock. SQLite's default handler sleeps in the queue
//! ([`crate::lock::wait`]). An application's own may do anything. Without a handler the connection does not wait. A handler
//! that gives up has given up for the rest of the statement, so that no statement waits twice.
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
//! It is kept when SQLite unlocks a READ slot to ask for another at once ([`Begin::expects_retry`]). SQLite compares the header
//! of the wal-index with the one it read before the wait, and begins anew if the header has changed.
//!
//! With `kanban_busy_timeout_min`, statements that may write take the write lock at the same points, even outside a
//! transaction. A busy timeout of 0 means no busy handler, so SQLite would not ask for WRITE or RESERVED again. At these points
//! the connection may wait without one.
//!
//! With `auto`, a connection notes the kind of each transaction when that begins to read. It learns the kind if the transaction
//! is refused when it begins to write. It is refused if the write lock, WRITE or RESERVED is. It is also refused if WRITE is
//! granted with a stale snapshot: the header of the wal-index has changed since the beginning. The first transaction of a kind
//! is on trial from its beginning to its end. Others of its kind wait for it, at most [`TRIAL_LASTS`], where they would wait
//! for the write lock.

use super::Connection;
use super::base_file::BaseFile;
use super::claim::{Begun, Patience, Reason};
use std::time::Duration;

use crate::ffi::ResultCode;
use crate::format::wal_index::HeaderMark;
use crate::lock::kinds::{self, Kind, Kinds, KnownKind, Standing};
use crate::lock::wait::forget_on_this_thread;
use crate::options::{Begin as Mode, Settings};
use crate::sys::{self, Stopwatch};

/// How long a kind is taken not to write, in ns of a clock that ticks every few ms, so that a reader in a tight loop does not
/// look each time.
const READS_FOR_NS: u64 = 1_000_000;

/// The same, while nobody commits in WAL mode, so that a reader that pauses does not ask each time either. Without a commit no
/// snapshot gets stale. But a transaction of the kind may have been refused since in another process.
const READS_WITHOUT_COMMIT_FOR_NS: u64 = 100_000_000;

/// How many such kinds a connection knows.
const READERS: usize = 8;

/// How long a transaction waits for another of its kind that is on trial.
const TRIAL_LASTS: Duration = Duration::from_millis(100);

/// How often a transaction that waits for a trial looks.
const LOOKS_EVERY: Duration = Duration::from_micros(500);

/// SQLite begins anew sooner than this, in ns. An unlock that comes later ends the transaction.
const RETRIES_WITHIN_NS: u64 = 10_000_000;

/// How transactions of one connection begin.
#[derive(Debug)]
pub(super) struct Begin {
    mode: Mode,
    /// Whether a transaction may have to take the write lock when it begins to read.
    is_on: bool,
    /// The least time that a statement waits for the write lock.
    least: Duration,
    /// Whether that is more than none.
    has_least: bool,
    /// Whether the kinds of transactions decide: with `auto` and no least time, if the connection may write.
    may_learn: bool,
    /// Whether the connection may only read.
    read_only: bool,
    /// Whether `PRAGMA query_only` is on.
    is_query_only: bool,
    /// `PRAGMA locking_mode` is EXCLUSIVE: the database stays locked when a transaction ends.
    is_exclusive: bool,
    /// SHARED was taken in a rollback mode.
    has_journal: bool,
    /// When a READ slot was taken that SQLite will unlock at once, in ns; 0 if none was.
    expects_retry: u64,
    /// With `auto`: the transaction that began last. It may be over.
    transaction: Option<Transaction>,
    /// Kinds that were seen not to write, each at the place that its number says.
    readers: [Reader; READERS],
}

/// A kind that the sidecar does not count among those that write.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    kind: Kind,
    /// When the connection looked at the sidecar, in ns of [`sys::coarse_ns`].
    looked: u64,
    /// The header of the wal-index at that time, in WAL mode.
    header: Option<HeaderMark>,
    /// The answer of [`Database::learned`](crate::lock::Database::learned) before that look.
    learned: u32,
}

/// A transaction of a connection that learns.
#[derive(Debug)]
struct Transaction {
    kind: Kind,
    /// Set if the kind is known: then the transaction was to take the write lock first.
    known: Option<KnownKind>,
    /// Set if the transaction is on trial, for its kind.
    trial: Option<KnownKind>,
    /// The header of the wal-index when it began to read, if it has a snapshot.
    header: Option<HeaderMark>,
    has_written: bool,
}

impl Begin {
    pub(super) fn new(settings: &Settings, read_only: bool) -> Self {
        let mut begin = Self {
            mode: settings.begin(),
            is_on: settings.begin() != Mode::Deferred || !settings.busy_timeout_min().is_zero(),
            least: settings.busy_timeout_min(),
            has_least: !settings.busy_timeout_min().is_zero(),
            read_only,
            may_learn: false,
            is_query_only: false,
            is_exclusive: false,
            has_journal: false,
            expects_retry: 0,
            transaction: None,
            readers: [Reader::default(); READERS],
        };
        begin.settle();
        begin
    }

    /// Settles what depends on the other fields.
    fn settle(&mut self) {
        self.may_learn = self.mode == Mode::Auto && !self.has_least && !self.never_begins();
    }

    /// Whether no transaction of the connection takes the write lock to begin: it may not write, or never unlocks.
    fn never_begins(&self) -> bool {
        self.read_only || self.is_query_only || self.is_exclusive
    }

    /// Whether a transaction may have to take the write lock when it begins to read.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether the transaction that began last is on trial.
    #[inline]
    fn is_on_trial(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.trial.is_some())
    }

    /// Whether transactions of that kind were seen not to write, a moment ago. `header` is that of the wal-index now.
    #[inline]
    fn is_reader(&self, kind: Kind, header: Option<HeaderMark>, learned: u32) -> bool {
        let reader = &self.readers[kind.place(READERS)];
        if reader.kind != kind || reader.learned != learned {
            return false;
        }
        let age = sys::coarse_ns().saturating_sub(reader.looked);
        age < READS_FOR_NS
            || age < READS_WITHOUT_COMMIT_FOR_NS && header.is_some() && header == reader.header
    }

    /// A pragma is being compiled. Those noted here take effect then.
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
        self.settle();
    }
}

impl<B: BaseFile> Connection<B> {
    /// Whether a transaction has the write lock since it has begun, or is on trial.
    #[inline]
    pub(super) fn goes_on(&self) -> bool {
        self.claim.has(Reason::Begin) || self.begin.is_on_trial()
    }

    /// [`Self::note_plain`], of a READ slot that is shared, if a transaction may begin with it. False if that transaction may
    /// want the write lock.
    #[inline]
    pub(crate) fn note_plain_begin(&mut self) -> bool {
        if self.goes_on() {
            return false;
        }
        let may_want = self.begin.has_least || !self.base.is_in_autocommit();
        (!may_want || self.begins_as_reader()) && self.note_plain_snapshot()
    }

    /// Whether the transaction that shares a READ slot now wants no write lock, as far as that is known without a look at the
    /// sidecar. Notes the kind of the transaction, in case it is refused when it begins to write.
    #[inline(never)]
    fn begins_as_reader(&mut self) -> bool {
        if !self.begin.may_learn || self.claim.is_held() {
            return self.begin.never_begins();
        }
        let Some(kind) = self.base.known_kind() else { return false };
        let header = self.base.wal_index_mark();
        if !self.begin.is_reader(kind, header, self.database.learned()) {
            return false;
        }
        let transaction =
            Transaction { kind, known: None, trial: None, header, has_written: false };
        self.begin.transaction = Some(transaction);
        true
    }

    /// SQLite is about to take SHARED. Takes the write lock first if a transaction of a rollback mode begins with it.
    pub(super) fn begin_with_shared(&mut self) -> Begun {
        if !self.begin.is_on() || self.wal.is_mapped || !self.wants_to_begin(None) {
            return Begun::AsWanted;
        }
        if !self.begin.has_journal && self.base.header().is_some_and(|header| header.is_wal()) {
            // The transaction takes the write lock with its READ slot.
            return Begun::AsWanted;
        }
        self.begin.has_journal = true;
        self.take_to_begin()
    }

    /// SQLite is about to share a READ slot. Takes the write lock first if a transaction begins with it.
    pub(super) fn begin_with_snapshot(&mut self) {
        if !self.begin.is_on() {
            return;
        }
        // SQLite read the header before.
        let before = self.base.wal_index_mark();
        if !self.wants_to_begin(before) {
            return;
        }
        let begun = self.take_to_begin();
        let now = self.base.wal_index_mark();
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
        self.trial_may_end();
    }

    /// SQLite has unlocked the lock by which it reads. This ends a transaction that was on trial, unless SQLite begins it anew.
    #[inline]
    pub(super) fn trial_may_end(&mut self) {
        if self.begin.is_on_trial() {
            self.end_trial();
        }
    }

    #[cold]
    fn end_trial(&mut self) {
        let Some(transaction) = &self.begin.transaction else { return };
        // ROLLBACK also unlocks before the transaction is over, but is another statement.
        let begins_anew = !self.base.is_in_autocommit()
            && !transaction.has_written
            && self.base.running(true).is_some_and(|now| now.kind == Some(transaction.kind));
        if begins_anew {
            return;
        }
        if let Some(Transaction { trial: Some(trial), has_written, .. }) =
            self.begin.transaction.take()
        {
            kinds::trial_ended(&self.database, trial, Some(has_written));
        }
    }

    /// Nothing that this connection has begun needs the write lock any more.
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

    /// SQLite asked for WRITE or RESERVED, to write, and was answered `rc`. With `auto`, learns the kind of a transaction that
    /// has read and is refused now.
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
            Some(header) => self.base.wal_index_mark() != Some(header),
            None => false,
        };
        let is_refused = match rc {
            ResultCode::OK => is_stale(),
            rc => rc.is_busy(),
        };
        let writes = rc == ResultCode::OK && !is_refused;
        if writes && !transaction.has_written {
            transaction.has_written = true;
            if let Some(trial) = transaction.trial {
                kinds::trial_writes(&self.database, trial);
            }
        }
        if is_refused && !self.base.is_in_autocommit() && self.base.is_upgrade() {
            // This also makes all that the connection knows of readers out of date ([`Reader::learned`]).
            kinds::learn(&self.database, transaction.kind);
        }
    }

    /// Whether a statement begins to read in a transaction that may write later, and is to take the write lock first. `header`
    /// is that of the wal-index, in WAL mode: SQLite begins anew if it has changed by the time the transaction has its
    /// snapshot.
    fn wants_to_begin(&mut self, header: Option<HeaderMark>) -> bool {
        let begin = &mut self.begin;
        if begin.never_begins() || self.claim.is_held() {
            return false;
        }
        let trial = begin.transaction.take().and_then(|before| Some((before.kind, before.trial?)));
        let running = match self.base.is_in_autocommit() && !begin.has_least {
            false if self.base.is_main() => self.base.running(begin.mode == Mode::Auto),
            _ => None,
        };
        let kind = running.and_then(|running| running.kind);
        let trial = match trial {
            // SQLite begins it anew.
            Some((tried, trial)) if kind == Some(tried) => Some(trial),
            Some((_, trial)) => {
                // Its end was not seen.
                kinds::trial_ended(&self.database, trial, None);
                None
            }
            None => None,
        };
        // VACUUM INTO only reads, for long, in a transaction that SQLite began. A statement that is being compiled reads the
        // schema, in a transaction that ends with the compilation.
        match running {
            None => false,
            Some(running) if running.is_vacuum => false,
            // The statement may wait here longer than its busy handler does.
            Some(running) if running.may_write && self.begin.has_least => true,
            Some(_) if self.begin.mode == Mode::Deferred || self.base.is_in_autocommit() => false,
            Some(running) => kind.is_none_or(|kind| {
                let (known, trial) = match trial {
                    Some(trial) => (None, Some(trial)),
                    None => self.judge(kind, running.may_write, header),
                };
                let has_written = false;
                self.begin.transaction =
                    Some(Transaction { kind, known, trial, header, has_written });
                known.is_some()
            }),
        }
    }

    /// How a transaction of `kind` begins now. If it has a known kind, it takes the write lock first; else it may be on trial;
    /// with neither, it begins as on the stock VFS. It writes `at_once` if its first statement may write.
    #[inline]
    fn judge(
        &mut self,
        kind: Kind,
        at_once: bool,
        header: Option<HeaderMark>,
    ) -> (Option<KnownKind>, Option<KnownKind>) {
        match self.begin.is_reader(kind, header, self.database.learned()) {
            true => (None, None),
            false => self.look_and_judge(kind, at_once, header),
        }
    }

    #[inline(never)]
    fn look_and_judge(
        &mut self,
        kind: Kind,
        at_once: bool,
        header: Option<HeaderMark>,
    ) -> (Option<KnownKind>, Option<KnownKind>) {
        let mut waited: Option<Stopwatch> = None;
        loop {
            let (learned, looked) = (self.database.learned(), sys::coarse_ns());
            let kinds = Kinds::of(&self.database).or_else(|| {
                // There is no sidecar yet, since no client has written. Transactions that begin
                // beside this one must see the trial.
                self.claim.make_sidecar();
                Kinds::of(&self.database)
            });
            let standing = kinds.as_ref().map_or(Standing::Reads, |kinds| kinds.standing(kind));
            match (standing, kinds) {
                (Standing::Writes(known), _) => return (Some(known), None),
                (Standing::Writing, _) => return (kinds::learn(&self.database, kind), None),
                // The transaction that it waited for has written and ended.
                (Standing::New, _) if waited.is_some() => {
                    return (kinds::learn(&self.database, kind), None);
                }
                (Standing::New, Some(kinds)) if !at_once => {
                    return (None, Some(kinds::try_out(&self.database, &kinds, kind)));
                }
                (Standing::OnTrial, _) if !at_once => {
                    // What the busy handler sleeps next is no wait for the write lock.
                    forget_on_this_thread();
                    // Without a handler, the transaction does not wait.
                    if waited.is_none() && self.base.ask_busy_handler() != Some(false) {
                        waited = Some(Stopwatch::start());
                    }
                    let watch = waited.as_mut().filter(|watch| watch.elapsed() < TRIAL_LASTS);
                    if let Some(watch) = watch.filter(|_| !self.base.is_interrupted()) {
                        std::thread::sleep(LOOKS_EVERY);
                        watch.note_sleep(LOOKS_EVERY);
                        continue;
                    }
                    if waited.is_some() {
                        kinds::trial_takes_long(&self.database, kind);
                    }
                }
                _ => {}
            }
            self.begin.readers[kind.place(READERS)] = Reader { kind, looked, header, learned };
            return (None, None);
        }
    }

    fn take_to_begin(&mut self) -> Begun {
        // A connection that writes to another board must not wait for this one: another connection may do the reverse.
        let waits = !self.base.writes_elsewhere();
        let patience =
            Patience { least: self.begin.least, if_unknown: self.settings.begin_timeout() };
        self.claim.take_to_begin(waits.then_some(patience))
    }
}

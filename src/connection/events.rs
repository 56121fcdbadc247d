//! What a connection records in the event log ([`crate::recorder`]): its long transactions, its
//! refusals, its checkpoints.
//!
//! Events that happen under the write lock are kept until it is released, so that no writer waits for
//! the log. Only a guard's findings are written at once. SHARED and a snapshot may be held. A
//! transaction that is not recorded costs a few instructions.

use std::sync::Arc;
use std::time::Duration;

use super::base_file::{BaseFile, LastCommit, Sought};
use super::request::{Need, Reason, Request};
use crate::counters::count;
use crate::ffi::{LockLevel, ResultCode};
use crate::lock::holder::Holder;
use crate::lock::{Database, Released};
use crate::recorder::event::{Cause, Event, EventKind, Outcome, Process};
use crate::recorder::{self, Recording};
use crate::sys;

/// A refusal that came sooner than this counts as immediate.
const AT_ONCE: Duration = Duration::from_millis(1);

/// A refusal as it happened. It may turn out much later that it was the last of its wait.
pub(super) struct LastRefusal {
    unix_us: u64,
    /// Whether the connection had the write lock itself.
    pub(super) is_held: bool,
    /// As [`Database::holder`] has it.
    pub(super) holder: Option<(Holder, bool)>,
    statement: Option<String>,
}

/// What a connection remembers of its transaction for the event log.
pub(super) struct Events<B: BaseFile> {
    base: B,
    database: Arc<Database>,
    recording: Recording,
    /// A transaction that has held the write lock for this long, in ns, is recorded; 0 to record the
    /// current one in any case.
    threshold: u64,
    /// For how long the transaction has waited, if that is why it is recorded.
    waited: Duration,
    /// What was committed when the transaction took WRITE, and when it released it.
    begun: LastCommit,
    ended: LastCommit,
    /// Whether the transaction is one of WAL mode, and `begun` and `ended` are known.
    is_of_wal: bool,
    /// Whether a transaction of a rollback mode has committed since the database was last unlocked.
    pub(super) has_committed: bool,
    first_statement: Option<String>,
    /// Whether the connection closes: then its statements must not be looked at.
    pub(super) is_ending: bool,
    /// When its checkpoint began, in ns of [`sys::monotonic_ns`]; 0 if there is none.
    pub(super) checkpoint_began: u64,
    /// Whether the last refusal is recorded already, should it turn out to have ended the wait.
    is_refusal_told: bool,
    /// The last refusal of a wait that goes on, or that the connection has given up, which no call
    /// showed.
    last_refusal: Option<LastRefusal>,
    /// Events to record once the write lock is released.
    later: Vec<Event>,
}

impl<B: BaseFile> Events<B> {
    pub(super) fn new(base: B, database: &Arc<Database>, recording: Recording) -> Self {
        Self {
            base,
            database: Arc::clone(database),
            recording,
            threshold: recording.slow_ns,
            waited: Duration::ZERO,
            begun: LastCommit::default(),
            ended: LastCommit::default(),
            is_of_wal: false,
            has_committed: false,
            first_statement: None,
            is_ending: false,
            checkpoint_began: 0,
            is_refusal_told: false,
            last_refusal: None,
            later: Vec::new(),
        }
    }

    /// Whether there may be something to record or to count once the write lock is released.
    #[inline(always)]
    pub(super) fn is_worth_a_look(&self, released: Released) -> bool {
        (released.held >= self.threshold || self.database.recorder.is_due(released.at))
            && self.recording.is_on
    }

    /// SQLite's lock was granted. `had_reason` says whether the transaction had the write lock
    /// before.
    #[inline(always)]
    pub(super) fn note_begin(&mut self, request: &Request, had_reason: bool) {
        if request.sought == Sought::Write {
            self.is_of_wal = request.need == Need::Write;
            self.begun = self.base.last_commit();
        }
        if self.recording.has_statements || request.is_for_journal() {
            self.note_begin_otherwise(request, had_reason);
        }
    }

    #[cold]
    fn note_begin_otherwise(&mut self, request: &Request, had_reason: bool) {
        if self.recording.has_statements && !self.is_ending && !had_reason {
            self.first_statement = self.base.statement();
        }
        if request.is_for_journal() && self.recording.is_on {
            self.keep(recorder::ended(EventKind::JournalRolledBack));
        }
    }

    /// WRITE was unlocked, and the write lock will be released. Returns whether nothing was
    /// committed: then call [`Self::ended_without_commit`] after the release.
    #[inline(always)]
    pub(super) fn note_end(&mut self) -> bool {
        self.ended = self.base.last_commit();
        self.ended.change == self.begun.change
    }

    /// A transaction ended without a commit.
    #[cold]
    pub(super) fn ended_without_commit(&mut self, to_write: bool) {
        if !self.recording.is_on {
            return;
        }
        self.failed_sync();
        // SQLite asked for WRITE to upgrade, and goes on as if it had not been granted.
        if to_write && !self.is_ending && self.base.only_reads() {
            self.refused_at_once(Cause::StaleSnapshot, None);
        }
    }

    /// If a sync of a journal or WAL has failed in this transaction, keeps that for the log.
    #[inline(always)]
    pub(super) fn failed_sync(&mut self) {
        if let Some(code) = recorder::take_failed_sync() {
            let what = "a sync of the journal or the WAL has failed; see to the disk";
            count(&self.database.counters.syncs_failed);
            let message = Some(what.to_owned());
            let event = Event { code, message, ..recorder::ended(EventKind::SyncFailed) };
            if self.recording.is_on {
                self.keep(event);
            }
        }
    }

    /// The write lock was released; `reason` was the last one to need it.
    #[cold]
    pub(super) fn released(&mut self, released: Released, reason: Reason) {
        self.tell_later();
        self.threshold = self.recording.slow_ns;
        let waited = std::mem::take(&mut self.waited);
        let is_slow = released.held >= self.threshold || !waited.is_zero();
        let first_statement = self.first_statement.take();
        let is_transaction = match reason {
            Reason::Checkpoint => false,
            Reason::Wal => self.is_of_wal,
            _ => true,
        };
        if !is_slow || !is_transaction {
            if self.database.recorder.is_due(released.at) {
                self.database.recorder.add(&self.database.counters, released.at);
            }
            return;
        }
        let (outcome, frames) = match (self.begun, self.ended, reason) {
            (begun, ended, Reason::Wal) if begun.change == ended.change => {
                (Some(Outcome::RolledBack), 0)
            }
            // If the WAL was restarted, all its frames are of this transaction.
            (begun, ended, Reason::Wal) => (
                Some(Outcome::Committed),
                ended.frames.checked_sub(begun.frames).unwrap_or(ended.frames),
            ),
            (.., Reason::Rollback) if self.has_committed => (Some(Outcome::Committed), 0),
            (.., Reason::Rollback) => (Some(Outcome::RolledBack), 0),
            _ => (None, 0),
        };
        let event = Event {
            waited,
            held: Duration::from_nanos(released.held),
            frames,
            outcome,
            first_statement,
            last_statement: self.statement(),
            ..recorder::ended(EventKind::Transaction)
        };
        // A database that was empty a moment ago is being created or copied.
        self.tell(event, reason != Reason::FirstConnect);
    }

    /// A wait has ended with the lock.
    #[cold]
    pub(super) fn wait_ended(&mut self, waited: Duration) {
        self.is_refusal_told = false;
        self.last_refusal = None;
        if !self.recording.is_on {
            return;
        }
        if waited.as_nanos() as u64 >= self.recording.slow_ns {
            self.waited = waited;
            self.threshold = 0;
        }
        let died = self.database.queue().and_then(|queue| queue.take_died());
        if let Some(holder) = died {
            count(&self.database.counters.holders_died);
            self.keep(Event { holder: Some(holder), ..recorder::ended(EventKind::HolderDied) });
        }
    }

    /// Records the refusal that [`Self::note_refusal`] has noted, if SQLite calls no busy handler
    /// for it: the statement fails.
    #[cold]
    pub(super) fn refused(&mut self, need: Need, sought: Sought, by_write_lock: bool) {
        let begins_to_write =
            [Sought::Write, Sought::Database(LockLevel::RESERVED)].contains(&sought);
        if !self.recording.is_on
            || need != Need::Write
            || !begins_to_write
            || !self.base.only_reads()
        {
            return;
        }
        let holder = self.last_refusal.as_ref().and_then(|noted| noted.holder);
        let holder = holder.map(|holder| self.process_of(holder));
        let cause = if by_write_lock { Cause::WriteLock } else { Cause::SqliteLock };
        self.refused_at_once(cause, holder);
        self.is_refusal_told = true;
    }

    fn refused_at_once(&mut self, cause: Cause, holder: Option<Process>) {
        count(&self.database.counters.refused_at_once);
        let event = Event {
            code: ResultCode::BUSY.0,
            cause: Some(cause),
            holder,
            first_statement: self.statement(),
            ..recorder::ended(EventKind::Refusal)
        };
        self.tell(event, true);
    }

    /// A lock was refused. The connection waits, or fails, which no call shows. `is_held` says whether
    /// the connection has the write lock.
    pub(super) fn note_refusal(&mut self, is_held: bool) {
        self.last_refusal = self.recording.is_on.then(|| {
            let holder = if is_held { None } else { self.database.holder_by_sidecar() };
            self.refusal(is_held, holder)
        });
    }

    /// A refusal of this moment.
    pub(super) fn refusal(&self, is_held: bool, holder: Option<(Holder, bool)>) -> LastRefusal {
        let statement = self.statement();
        LastRefusal { unix_us: recorder::unix_us(), is_held, holder, statement }
    }

    /// Takes the refusal that was noted last: a wait has ended, which no call showed.
    pub(super) fn take_refusal(&mut self) -> Option<LastRefusal> {
        self.last_refusal.take()
    }

    /// The wait ends at this moment: the refusal that was noted before does not describe its end.
    pub(super) fn forget_refusal(&mut self) {
        self.last_refusal = None;
    }

    /// A wait has ended without the lock, by `refusal`.
    #[cold]
    pub(super) fn gave_up(&mut self, waited: Duration, refusal: LastRefusal) {
        if std::mem::take(&mut self.is_refusal_told) {
            return;
        }
        let counters = &self.database.counters;
        let kind = match waited < AT_ONCE {
            true => EventKind::Refusal,
            false => EventKind::GiveUp,
        };
        count(if kind == EventKind::Refusal {
            &counters.refused_at_once
        } else {
            &counters.gave_up_after_wait
        });
        if !self.recording.is_on {
            return;
        }
        let LastRefusal { unix_us, is_held, holder, statement } = refusal;
        let cause = match (is_held, &holder) {
            (true, _) => Cause::Readers,
            (false, Some(_)) => Cause::WriteLock,
            (false, None) => Cause::SqliteLock,
        };
        let event = Event {
            waited,
            code: ResultCode::BUSY.0,
            cause: Some(cause),
            holder: holder.map(|holder| self.process_of(holder)),
            first_statement: statement,
            unix_us,
            ..Event::of(kind)
        };
        self.tell(event, true);
    }

    /// CKPT is about to be unlocked by a checkpoint, or was.
    #[cold]
    pub(super) fn checkpoint_ended(&mut self) {
        let began = std::mem::take(&mut self.checkpoint_began);
        let Some((frames, copied)) = self.base.frames().filter(|_| began != 0) else { return };
        let left = frames.saturating_sub(copied);
        let meant = self.base.meant_to_copy().unwrap_or(0);
        let counters = &self.database.counters;
        let (outcome, counter) = match left {
            0 => (Outcome::Complete, &counters.checkpoints_complete),
            // If the WAL was restarted since, its frames are not the checkpoint's.
            _ if meant > copied && meant <= frames => {
                (Outcome::Failed, &counters.checkpoints_failed)
            }
            _ => (Outcome::Partial, &counters.checkpoints_partial),
        };
        count(counter);
        if !self.recording.is_on {
            return;
        }
        if outcome == Outcome::Failed {
            self.failed_sync();
        }
        let held = sys::monotonic_ns().saturating_sub(began);
        if held >= self.recording.slow_ns || outcome == Outcome::Failed {
            let event = Event {
                held: Duration::from_nanos(held),
                frames: left,
                outcome: Some(outcome),
                ..recorder::ended(EventKind::Checkpoint)
            };
            self.keep(event);
        }
    }

    /// The statement that the connection runs, if statements are recorded.
    fn statement(&self) -> Option<String> {
        let asks = self.recording.has_statements && !self.is_ending;
        asks.then(|| self.base.statement()).flatten()
    }

    /// Keeps an event until the write lock is released.
    fn keep(&mut self, event: Event) {
        self.later.push(event);
        self.threshold = 0;
    }

    /// Records the events that were kept. Call it when the write lock is not held.
    #[inline]
    pub(super) fn tell_later(&mut self) {
        #[cold]
        fn tell<B: BaseFile>(record: &mut Events<B>) {
            for event in std::mem::take(&mut record.later) {
                record.tell(event, true);
            }
        }
        if !self.later.is_empty() {
            tell(self);
        }
    }

    fn tell(&self, event: Event, create: bool) {
        self.database.recorder.record(event, create, &self.database.counters);
    }

    /// The process of a holder. Without its command if the process cannot be seen: its id may be
    /// another's here.
    fn process_of(&self, holder: (Holder, bool)) -> Process {
        let pid = holder.0.pid;
        match self.database.is_to_be_seen(holder) {
            true => Process::of(pid),
            false => Process::unknown(pid),
        }
    }
}

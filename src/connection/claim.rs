//! One connection's claim to the write lock: for which of SQLite's locks it wants it, how it waits for it, and what it does
//! without it.
//!
//! The write lock is taken before SQLite's own lock and released after it. A lock call does not wait for a writer: it answers
//! SQLITE_BUSY, and the connection waits in xSleep, without its snapshot, when SQLite's busy handler sleeps. [`waits`] has what
//! does wait inside a lock call.

mod waits;

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::base_file::{BaseFile, Sought};
use super::events::Events;
use super::guards::Guards;
use super::held::{HeldLevel, HeldSlots};
pub(super) use super::request::{Need, Reason, Request};
use crate::counters::count;
use crate::ffi::{LockLevel, ResultCode, ShmFlags, ShmSlot};
use crate::format::Salts;
use crate::lock::kinds::Kind;
use crate::lock::queue::Purpose;
use crate::lock::wait::{Obstacle, Wait};
use crate::lock::{Database, Refused, WriteLock, keepers};
use crate::log::Log;
use crate::recorder::Recording;
use crate::sys;

/// How long a transaction waits for the write lock before it begins to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The least time to wait, even if the busy handler gives up sooner. Not applied if the application's own handler waits.
    pub(super) least: Duration,
    /// The time to wait if the busy handler is not known.
    pub(super) if_unknown: Duration,
}

/// How a transaction that was to take the write lock first has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// With the write lock, or without a need for it.
    AsWanted,
    /// Without it. SQLite then waits by the busy handler, if there is one, as on the stock VFS.
    Without,
    /// Without it: the busy handler waited and gave up, for the rest of the statement.
    InVain,
}

/// Within this time after a wait in vain to begin, a statement asks for a lock to write, in ns.
const GOES_ON_WITHIN_NS: u64 = 10_000_000;

/// Longer than another connection's probe holds SQLite's lock.
const LOOK_LASTS: Duration = Duration::from_micros(50);

/// How long a writer of a rollback mode keeps others from SHARED when it commits, if no reader is in its way.
pub(super) const COMMIT_LASTS: Duration = Duration::from_millis(200);

/// How long a connection waits for a checkpoint that holds the write lock.
pub(super) const CHECKPOINT_LASTS: Duration = Duration::from_millis(100);
/// The same, for a connection that may yet wait for another database, while SQLite's default busy handler sleeps for it. Without
/// the write lock nobody would see that it waits in a circle.
pub(super) const CHECKPOINT_LASTS_BESIDE_OTHERS: Duration = Duration::from_secs(1);

/// The claim of one connection.
pub(super) struct Claim<B: BaseFile> {
    base: B,
    database: Arc<Database>,
    log: Log,
    may_write: bool,
    write_lock: WriteLock,
    /// A set of [`Reason`]s.
    reasons: u8,
    pub(super) wait: Wait,
    /// Whether the wait is, so far, for SHARED.
    waits_to_read: bool,
    /// Whether EXCLUSIVE was refused for the rollback of a hot journal. Another connection may roll it back meanwhile.
    waits_for_journal: bool,
    /// For how long a lock call may block now, in ms.
    blocks_ms: c_int,
    /// The last wait in vain to begin a transaction: when it began and when it ended, in ns of [`sys::kernel_ns`].
    begin_wait: Option<(u64, u64)>,
    /// What was committed when the connection took its snapshot, if it waits or has just waited.
    snapshot: Option<(Salts, u32)>,
    /// The kind of the statement that was last refused the write lock, if that statement may write.
    refused_kind: Option<Kind>,
    pub(super) events: Events<B>,
}

impl<B: BaseFile> Claim<B> {
    /// `id` tells the connection from all others of this process. `is_brief` says that no sync happens under the write lock.
    pub(super) fn new(
        base: B,
        database: &Arc<Database>,
        log: Log,
        id: u64,
        may_write: bool,
        is_brief: bool,
        recording: Recording,
    ) -> Self {
        Self {
            base,
            events: Events::new(base, database, recording),
            database: Arc::clone(database),
            log,
            may_write,
            write_lock: WriteLock::of(database, id),
            reasons: 0,
            wait: Wait::of(database, is_brief),
            waits_to_read: false,
            waits_for_journal: false,
            blocks_ms: 0,
            begin_wait: None,
            snapshot: None,
            refused_kind: None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.write_lock.is_held()
    }

    /// The base file now knows which `sqlite3` uses it.
    pub(super) fn has_user(&self) {
        self.write_lock.is_for(self.base.user());
    }

    pub(super) fn has(&self, reason: Reason) -> bool {
        self.reasons & reason as u8 != 0
    }

    #[cfg(test)]
    pub(super) fn pace(&mut self) -> &mut crate::lock::queue::Pace {
        self.write_lock.pace()
    }

    /// For how long a lock call may block now, in ms; 0 if it may not.
    pub(super) fn blocks_ms(&self) -> c_int {
        self.blocks_ms
    }

    /// SQLite announces for how long the next lock calls may block, in ms; a negative number means without limit
    /// (FCNTL_LOCK_TIMEOUT). Only an SQLite with SQLITE_ENABLE_SETLK_TIMEOUT does so, and it takes WRITE before its snapshot.
    pub(super) fn may_block(&mut self, ms: c_int) {
        self.blocks_ms = if ms < 0 { c_int::MAX } else { ms };
    }

    /// Runs `take`, which takes one of SQLite's locks, under the write lock. If `take` fails, the write lock is held only if it
    /// was before, or if SQLite's lock cannot be unlocked.
    #[inline]
    pub(super) fn take(
        &mut self,
        request: Request,
        guards: &mut Guards<B>,
        take: impl FnOnce() -> ResultCode,
    ) -> ResultCode {
        if let Err(rc) = self.prepare(&request, guards) {
            return rc;
        }
        let had_reason = self.has(request.reason());
        self.reasons |= request.reason() as u8;
        match take() {
            ResultCode::OK if self.wait.is_quiet() && request.need != Need::Recovery => {
                self.acquired();
                self.events.note_begin(&request, had_reason);
                ResultCode::OK
            }
            ResultCode::OK => {
                let rc = self.granted_after_wait(&request, had_reason);
                self.events.note_begin(&request, had_reason);
                rc
            }
            rc => self.sqlite_refused(rc, &request, had_reason),
        }
    }

    /// The connection is about to take a snapshot of what is committed now. SQLite checks afterwards whether that is still
    /// current.
    #[inline]
    pub(super) fn takes_snapshot(&mut self) {
        self.snapshot = if self.wait.is_quiet() { None } else { self.base.committed() };
    }

    /// Whether somebody has committed since the connection took its snapshot, as far as that is known.
    fn is_snapshot_stale(&self) -> bool {
        self.snapshot.is_some_and(|then| self.base.committed() != Some(then))
    }

    /// SQLite's lock was granted to a connection that waits or has just waited, or for a recovery. Returns the answer to
    /// SQLite.
    ///
    /// SQLite may find its snapshot stale only now. If its busy handler sleeps no more, and the last sleep was cut short for a
    /// turn, SQLITE_BUSY would come before the busy timeout is over. Then this unlocks, sleeps for the rest of the timeout, and
    /// refuses.
    #[cold]
    fn granted_after_wait(&mut self, request: &Request, had_reason: bool) -> ResultCode {
        if request.need == Need::Recovery {
            // The connection does not wait for this lock, so its wait goes on.
            return ResultCode::OK;
        }
        let writes = request.sought == Sought::Write && request.need == Need::Write;
        // The write lock must be held for this request alone, so that it is not held through the sleep.
        let is_alone = !had_reason && self.reasons == request.reason() as u8;
        if writes && is_alone && self.asks_busy_handler() && self.is_snapshot_stale() {
            let rest = self.take_rest();
            let write = HeldSlots::after(self.base, ShmSlot::WRITE, ShmFlags::LOCK_EXCLUSIVE);
            if rest.is_zero() {
                write.keep();
            } else if write.unlock() == ResultCode::OK {
                // Without a place, nobody waits for this connection to come for a turn.
                self.wait.leave_queue();
                self.release(request.reason());
                std::thread::sleep(rest);
                self.refused(request.need, request.sought, Obstacle::WriteLock);
                return ResultCode::BUSY;
            }
        }
        self.acquired();
        ResultCode::OK
    }

    /// Whether SQLite calls its busy handler if WRITE is refused now. For an upgrade it does not. A statement that also writes
    /// to an attached database looks like an upgrade, since it has begun to write to another database.
    fn asks_busy_handler(&self) -> bool {
        let has_asked = || self.wait.is_on() && self.wait.has_slept();
        !self.base.is_upgrade() || has_asked() || self.base.is_in_autocommit()
    }

    /// Asks the guards, and takes the write lock if it is not held.
    #[inline(always)]
    fn prepare(&mut self, request: &Request, guards: &mut Guards<B>) -> Result<(), ResultCode> {
        // A write transaction in WAL mode, of a connection that does not wait, leaves nothing to decide.
        let is_plain = request.sought == Sought::Write
            && request.need == Need::Write
            && self.reasons == 0
            && self.wait.is_quiet();
        if !is_plain {
            return self.prepare_otherwise(request, guards);
        }
        debug_assert!(!self.write_lock.is_held(), "it is held for a reason");
        let now = sys::monotonic_ns();
        guards.files.before_write(now)?;
        self.write_lock
            .try_acquire(now, Purpose::Write, true, None)
            .or_else(|why| self.after_refusal(why, request))
    }

    #[inline(never)]
    fn prepare_otherwise(
        &mut self,
        request: &Request,
        guards: &mut Guards<B>,
    ) -> Result<(), ResultCode> {
        let now = sys::monotonic_ns();
        if self.has(request.reason()) {
            // A connection that went on without the write lock does not take it later: it has
            // SQLite's own lock by now.
            return Ok(());
        }
        match request.need {
            Need::Write | Need::FinishCheckpoint if !request.is_for_journal() => {
                guards.files.before_write(now)?;
            }
            _ => guards.files.before_upkeep(now)?,
        }
        if self.write_lock.is_held() {
            return Ok(());
        }
        // The look at the files may have taken long.
        let (now, need) = (sys::monotonic_ns(), request.need);
        let create = need != Need::Recovery || self.may_write;
        self.try_acquire(now, need.purpose(), create)
            .or_else(|why| self.after_refusal(why, request))
    }

    #[inline(never)]
    fn try_acquire(&mut self, now: u64, purpose: Purpose, create: bool) -> Result<(), Refused> {
        let place = self.wait.place();
        self.write_lock.try_acquire(now, purpose, create, place.as_ref())
    }

    /// Takes the write lock to clean up, if it is free. This only shows others that it is held: SQLite's own lock excludes
    /// them.
    pub(super) fn take_to_clean_up(&mut self) {
        if !self.is_held() {
            let _ = self.try_acquire(sys::monotonic_ns(), Purpose::Write, false);
        }
        if self.is_held() {
            self.reasons |= Reason::Rollback as u8;
        }
    }

    /// Makes the sidecar, if there is none and it can be made.
    pub(super) fn make_sidecar(&mut self) {
        if !self.is_held() && self.try_acquire(sys::monotonic_ns(), Purpose::Write, true).is_ok() {
            self.write_lock.release();
        }
    }

    /// Takes the write lock for a checkpoint. Waits for it at most `limit`, at the head of the queue. Returns whether it is
    /// held.
    pub(super) fn take_for_checkpoint(&mut self, limit: Duration) -> bool {
        let now = sys::monotonic_ns();
        let mut acquired = self.write_lock.try_acquire(now, Purpose::Upkeep, false, None);
        if matches!(acquired, Err(Refused::Busy)) {
            acquired = self.write_lock.acquire_soon(Purpose::Upkeep, limit);
        }
        if acquired.is_ok() {
            self.reasons |= Reason::Checkpoint as u8;
        }
        acquired.is_ok()
    }

    /// Takes the write lock for a transaction that is about to begin to read. With `patience`, waits as long as the
    /// connection's busy handler says.
    pub(super) fn take_to_begin(&mut self, patience: Option<Patience>) -> Begun {
        let now = sys::monotonic_ns();
        let mut acquired = self.try_acquire(now, Purpose::Write, true);
        let mut handler_gave_up = false;
        if let (Err(Refused::Busy), Some(patience)) = (&acquired, patience) {
            (acquired, handler_gave_up) = self.wait_to_begin(patience);
        }
        match acquired {
            Ok(()) => {
                self.reasons |= Reason::Begin as u8;
                self.acquired();
                Begun::AsWanted
            }
            Err(why) => {
                // Not an error, whether or not SQLite asks for the lock later.
                let _ = self.goes_without(&why);
                if handler_gave_up { Begun::InVain } else { Begun::Without }
            }
        }
    }

    /// The write lock was refused. `Ok` means that the caller goes on, perhaps with the write lock after a wait.
    ///
    /// # Errors
    /// What the lock call answers.
    #[cold]
    fn after_refusal(&mut self, why: Refused, request: &Request) -> Result<(), ResultCode> {
        match why {
            Refused::Busy if request.sought == Sought::Write && self.base.is_reserved() => {
                // Another connection has left WAL mode. It has not yet said so in the header, which it does under RESERVED, and
                // this connection came in between, in WAL mode. The other will wait for this one's SHARED, so this one must not
                // wait for the write lock. It goes on with WRITE alone, as on the stock VFS.
                Ok(())
            }
            Refused::Busy if request.sought == Sought::Write && self.blocks_ms > 0 => {
                match self.block() {
                    Err(Refused::Busy) => Err(ResultCode::BUSY_TIMEOUT),
                    Err(why) => self.goes_without(&why),
                    Ok(()) => Ok(()),
                }
            }
            Refused::Busy if request.sought == Sought::Write && self.wait_out_checkpoint() => {
                Ok(())
            }
            Refused::Busy if request.sought == Sought::Write && self.wait_out_timeout() => Ok(()),
            Refused::Busy => {
                self.waits_to_read = false;
                self.refused(request.need, request.sought, Obstacle::WriteLock);
                Err(ResultCode::BUSY)
            }
            why => self.goes_without(&why),
        }
    }

    /// There can be no write lock: goes on with SQLite's own locks alone, as on the stock VFS, and
    /// logs that once.
    #[cold]
    fn goes_without(&self, why: &Refused) -> Result<(), ResultCode> {
        match why {
            Refused::Busy => return Err(ResultCode::BUSY),
            Refused::Resting => {}
            Refused::Unusable(why) => {
                if let Some(why) = self.database.unreported(why) {
                    let line = format!(
                        "{why}; until then it is written as on the stock VFS, by SQLite's own \
                         locks and without a queue"
                    );
                    self.log.log_about(ResultCode::WARNING, &line, &self.database.sidecar_path());
                }
            }
            Refused::Inherited => {
                let why = "the connection was opened before a fork, by the parent; open one in the \
                           child";
                self.log.log_about(ResultCode::IOERR_LOCK, why, self.database.path());
                return Err(ResultCode::IOERR_LOCK);
            }
        }
        Ok(())
    }

    /// SQLite's own lock was refused with `rc`, under the write lock. Perhaps a second attempt is granted.
    #[cold]
    fn sqlite_refused(
        &mut self,
        mut rc: ResultCode,
        request: &Request,
        had_reason: bool,
    ) -> ResultCode {
        // A call that has blocked for its time is not repeated.
        let is_at_once = rc == ResultCode::BUSY;
        if is_at_once && request.sought == Sought::Write && self.base.is_upgrade() {
            // For an upgrade SQLite does not call the busy handler. The attempt may have met another connection's probe, which
            // holds the lock for a moment.
            std::thread::sleep(LOOK_LASTS);
            rc = self.base.shm_lock(ShmSlot::WRITE.into(), ShmFlags::LOCK_EXCLUSIVE);
        }
        let writes = request.sought == Sought::Write && request.need == Need::Write;
        let mut unslept = Duration::ZERO;
        if is_at_once && writes && rc == ResultCode::BUSY {
            (rc, unslept) = self.wait_out_stock_writer();
        }
        if rc == ResultCode::OK {
            return self.granted_after_wait(request, had_reason);
        }
        if !had_reason && (rc.is_busy() || self.step_back(request) == ResultCode::OK) {
            self.reasons &= !(request.reason() as u8);
            if self.reasons == 0 {
                self.write_lock.release_silently();
            }
        }
        if !unslept.is_zero() && !self.is_held() {
            self.wait.leave_queue();
            std::thread::sleep(unslept);
        }
        if rc.is_busy() {
            // SQLite's own lock is in the way, not the write lock.
            let cause = self.cause(request.sought, request.is_for_journal());
            self.refused(request.need, request.sought, cause);
        }
        rc
    }

    /// Unlocks one of SQLite's locks whose call failed, since the base file may hold it.
    #[cold]
    fn step_back(&self, request: &Request) -> ResultCode {
        match request.sought {
            Sought::Write => {
                let slot = HeldSlots::after(self.base, ShmSlot::WRITE, ShmFlags::LOCK_EXCLUSIVE);
                match self.log.unlocks_own_slots_only() {
                    true => slot.unlock(),
                    false => {
                        slot.keep();
                        ResultCode::OK
                    }
                }
            }
            // Down to the level that SQLite knows of, which may be NONE.
            Sought::Database(_) => {
                HeldLevel::above(self.base, request.level.min(LockLevel::SHARED)).unlock()
            }
        }
    }

    /// Releases the write lock, if it was held for `reason` alone. Returns whether it was.
    #[inline(never)]
    pub(super) fn release(&mut self, reason: Reason) -> bool {
        self.release_inlined(reason)
    }

    /// [`Self::release`], for the end of a write transaction in WAL mode.
    #[inline(always)]
    fn release_inlined(&mut self, reason: Reason) -> bool {
        self.reasons &= !(reason as u8);
        if self.reasons != 0 {
            return false;
        }
        let Some(released) = self.write_lock.release() else { return false };
        if self.events.is_worth_a_look(released) {
            self.events.released(released, reason);
        }
        true
    }

    /// The WRITE slot was unlocked. With `waits_for_sync`, COMMIT waits for a sync of group commit next. `to_write` says
    /// whether WRITE was taken to write a transaction. Then an immediate release may mean that SQLite found its snapshot stale,
    /// and that its busy handler sleeps next. After a commit, FCNTL_COMMIT_PHASETWO follows the unlock and takes that back
    /// ([`crate::lock::wait::forget_on_this_thread`]).
    #[inline]
    pub(super) fn release_after_write(&mut self, waits_for_sync: bool, to_write: bool) {
        if waits_for_sync && self.is_held() {
            self.write_lock.pace().goes_away();
        }
        let without_commit = self.events.note_end();
        if self.release_inlined(Reason::Wal) && to_write {
            // In a transaction that BEGIN began it may be a rollback, which mostly takes longer.
            let is_at_once = self.base.is_in_autocommit() || self.write_lock.pace().was_brief();
            if is_at_once && self.wait.released_at_once() {
                self.wait.is_used_by(self.base.user());
            }
        }
        if without_commit {
            self.events.ended_without_commit(to_write);
            self.tell_later();
        }
    }

    /// SHARED was refused because of `cause`. The connection may be about to write, so it queues like a writer.
    pub(super) fn shared_refused(&mut self, cause: Obstacle) {
        self.waits_to_read = true;
        self.refused(Need::Write, Sought::Database(LockLevel::SHARED), cause);
    }

    /// EXCLUSIVE was refused for the rollback of a hot journal.
    pub(super) fn journal_refused(&mut self) {
        (self.waits_to_read, self.waits_for_journal) = (false, true);
    }

    /// SHARED was taken. If another connection rolled the journal back meanwhile, the wait was to read.
    pub(super) fn took_shared(&mut self) {
        self.waits_to_read |= std::mem::take(&mut self.waits_for_journal);
    }

    /// The database was unlocked. This ends a wait to read: the connection has read, and was not about to write.
    pub(super) fn unlocked_database(&mut self) {
        if std::mem::take(&mut self.waits_to_read) {
            self.acquired();
        }
        self.tell_later();
    }

    /// Records the events that were kept, unless the write lock is still held.
    #[inline]
    pub(super) fn tell_later(&mut self) {
        if !self.is_held() {
            self.events.tell_later();
        }
    }

    /// The base file has closed, which unlocked everything.
    pub(super) fn close(&mut self) {
        self.reasons = 0;
        self.write_lock.close();
        if let Some(waited) = self.wait.end() {
            self.gave_up(waited);
        }
        self.events.tell_later();
    }

    /// The wait is over: SQLite has what it waited for.
    #[inline]
    pub(super) fn acquired(&mut self) {
        self.snapshot = None;
        if let Some(wait) = self.wait.acquired() {
            self.wait_ended(wait);
        }
    }

    /// `wait` has ended, with the lock or, unnoticed until now, without it.
    #[cold]
    fn wait_ended(&mut self, wait: Result<Duration, Duration>) {
        match wait {
            Ok(waited) => {
                self.waited(waited);
                self.events.wait_ended(waited);
            }
            Err(waited) => self.gave_up(waited),
        }
    }

    fn waited(&self, waited: Duration) {
        let counters = &self.database.counters;
        let ms = waited.as_millis() as u64;
        count(&counters.waits);
        counters.waited_ms.fetch_add(ms, Ordering::Relaxed);
        counters.longest_wait_ms.fetch_max(ms, Ordering::Relaxed);
        counters.wait_times.count(waited.as_nanos() as u64);
    }

    /// The cause of a refusal of SQLite's own lock, with a probe for a sleeper. After the rollback
    /// of a hot journal SQLite starts over, so a request that `is_for_journal` gets no probe.
    pub(super) fn cause(&self, sought: Sought, is_for_journal: bool) -> Obstacle {
        let probe = (!is_for_journal).then(|| self.base.probe(sought));
        let reserved = Sought::Database(LockLevel::RESERVED);
        let until_unlock = ![Sought::Write, reserved].contains(&sought);
        Obstacle::SqliteLock { probe, until_unlock }
    }

    /// The lock `sought` was refused: a connection with that `need` waits now, unless it only recovers.
    pub(super) fn refused(&mut self, need: Need, sought: Sought, cause: Obstacle) {
        if need == Need::Recovery {
            return self.wait.refused_unrelated();
        }
        count(&self.database.counters.refused);
        let by_write_lock = cause.is_write_lock();
        self.tell_wait_of_user(by_write_lock);
        self.refused_kind = if by_write_lock { self.kind_that_writes() } else { None };
        let ended = self.wait.refused(cause);
        let is_on = self.wait.is_on();
        if !is_on {
            self.events.forget_refusal();
        }
        if let Some(waited) = ended {
            // This wait or, if one goes on, an earlier one.
            self.gave_up(waited);
        }
        if is_on {
            let is_held = self.is_held();
            self.events.note_refusal(is_held);
            self.events.refused(need, sought, by_write_lock);
        }
        // A statement that waited in vain when it began is now refused when it writes: that is one wait.
        let now = sys::kernel_ns();
        if let Some((since, ended)) = self.begin_wait.take() {
            if now.saturating_sub(ended) < GOES_ON_WITHIN_NS {
                self.wait.began_at(since);
            }
        }
    }

    /// Tells the wait which `sqlite3` it is for and, if it is for the write lock, which other write locks that one holds.
    fn tell_wait_of_user(&self, by_write_lock: bool) {
        let user = self.base.user();
        self.wait.is_used_by(user);
        let holds = by_write_lock && self.base.is_writing();
        self.wait.holds(if holds { self.database.held_beside(user) } else { Vec::new() });
    }

    fn gave_up(&mut self, waited: Duration) {
        count(&self.database.counters.gave_up);
        let noted = self.events.take_refusal();
        let is_noticed_late = noted.is_some();
        let refusal = noted.unwrap_or_else(|| {
            let is_held = self.is_held();
            let holder = if is_held { None } else { self.database.holder() };
            self.events.refusal(is_held, holder)
        });
        let why = match refusal.holder {
            _ if refusal.is_held && is_noticed_late => "it had the write lock, but readers were in its way; end \
                                                        their transactions, or wait longer"
                .to_owned(),
            _ if refusal.is_held => "it has the write lock but readers are in its way; end \
                                     their transactions, or wait longer"
                .to_owned(),
            Some(holder) if is_noticed_late => {
                format!("{} had the write lock then; make its transactions shorter, or wait longer", self.database.process_of(holder))
            }
            None if is_noticed_late => "no client of this VFS had the write lock then; a client that does not use it may \
                                        have held SQLite's own; try again, or wait longer"
                .to_owned(),
            Some(holder) => keepers::described(holder.0, &self.database.whereabouts(holder)),
            None => match self.database.sqlite_lockers(false) {
                Some(lockers) => format!(
                    "no client of this VFS has the write lock now; {lockers} has SQLite's own; try again, \
                     or wait longer"
                ),
                None => "no client of this VFS has the write lock now; a client that does not use it may \
                         hold SQLite's own; try again, or wait longer"
                    .to_owned(),
            },
        };
        self.events.gave_up(waited, refusal);
        let waited = waited.as_millis();
        let others = match self.database.waiters().len() {
            n if n > 0 && !is_noticed_late => format!(" ({n} more in the queue)"),
            _ => String::new(),
        };
        let line = format!("gave up after waiting {waited} ms to write{others}: {why}");
        self.log.log_about(ResultCode::BUSY, &line, self.database.path());
    }
}

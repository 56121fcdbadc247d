//! A connection's wait for the write lock.
//!
//! A lock call answers SQLITE_BUSY instead of waiting for a writer; `connection/claim/waits.rs` has a table of the bounded
//! exceptions. SQLite then releases its locks and calls its busy handler (<https://www.sqlite.org/c3ref/busy_handler.html>).
//! The default handler calls xSleep and then tries again. The connection waits in xSleep, in the queue, and returns as soon as
//! an attempt is worth making. The handler counts the time it asked for, not the time that passed. So what was not slept is
//! added to the next sleep, and the busy timeout keeps its meaning.
//!
//! SQLite does not tell xSleep which connection sleeps. It is the one that was last refused a lock on this thread. Or it is the
//! one that got the lock with a stale snapshot, and released it at once, without a commit (SQLITE_BUSY_SNAPSHOT).
//!
//! With group commit, connections that write at the same time do not sync under the write lock. The lock is free again within
//! microseconds, mostly sooner than a waiter can take a place in the queue. So a waiter first yields to other threads for a
//! moment.
//!
//! An application's own busy handler may sleep by itself, outside this VFS, where nobody can wake it. While others are woken,
//! it would find the lock taken nearly each time. So its connection takes a ticket. If the VFS has called the handler in
//! SQLite's place, the connection then sleeps in the queue for as long as the handler did, inside a lock call
//! ([`Wait::sleep_beside_handler`]). Between these sleeps it has no place, so that nobody gives it a turn that it would miss.
//!
//! If SQLite's own lock is in the way, nobody can wake the waiter: it looks every millisecond. Meanwhile a slot of the page
//! shows it to observers.
//!
//! SQLite does not say when it gives up. The default handler is recognised by its sleeps ([`busy_handler`]), and so is its last
//! sleep: a refusal after that ends the wait. The end of any other wait shows only when the connection is used again later, or
//! closed. Such a wait has no busy handler, or the application's own, or a timeout that is shorter than
//! [`busy_handler::FEWEST`] entries of the table or ends exactly with an entry.
//!
//! | event (it: the connection) | method | what it changes |
//! |---|---|---|
//! | it was refused the write lock, or SQLite's own after it | [`Wait::refused`] | `waits`, `can_queue`, `probe`, `refused_at`, `last_step`, `thread`; if a wait begins, `first_refused_at`, `resumed_at`, `handler`, `ticket`; if one ends, or it has slept beside its handler, `place` |
//! | it was refused another lock | [`Wait::refused_unrelated`] | `can_queue`, `last_step`, `thread` |
//! | its busy handler calls xSleep | [`sleep`], `begin_nap` | `handler`, `last_step`, `place`; after a stale snapshot, `waits`, `can_queue`, `resumed_at`, `refused_at`, and `first_refused_at` and `ticket` if it had not waited |
//! | xSleep returns | [`sleep`] | `place`, `ticket`, `handler.unslept` |
//! | its busy handler may sleep by itself | [`Wait::take_ticket`] | `ticket` |
//! | the handler has slept by itself | [`Wait::sleep_beside_handler`] | `handler`, `last_step`, `place`, `ticket` |
//! | it has the lock | [`Wait::acquired`] | `waits`, `place`; if it did not wait, `first_refused_at`, `ticket`, `handler` |
//! | it has released the lock at once | [`Wait::released_at_once`] | `thread`; by [`Wait::is_used_by`], `user` |
//! | it has committed | [`forget_on_this_thread`] | for which connection this thread sleeps |
//! | it has given up, or closes | [`Wait::end`] | `waits`, `place` |
//! | it is about to wait in a lock call | [`Wait::leave_queue`] | `place` |
//! | it waits there for the time that was not slept | [`Wait::take_rest`], [`Wait::leave_rest`] | `handler.unslept` |
//! | it waited before, when its transaction began | [`Wait::began_at`] | `first_refused_at` |
//! | the application sets the busy timeout | [`Wait::note_timeout`] | `handler` |
//! | it has released some of SQLite's locks | [`Wait::unlocked`] | `probe` |
//! | it is used | [`Wait::remove_probe`] | `probe` |
//!
//! What each transaction reads is also kept outside the mutex: `is_quiet`, and in [`Wait`] `thread` and how long the `probe`
//! lives.

mod busy_handler;
mod nap;
mod sleeper;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::circle::Label;
use super::database::Database;
use super::page::Ticket;
use super::queue::{Place, Queue};
use super::sidecar::Sidecar;
use crate::sys;
use crate::sys::fork::Own;

use busy_handler::BusyHandler;
use nap::{Nap, Queued, Slept, Stage};
pub(crate) use sleeper::forget_on_this_thread;
use sleeper::this_thread;

/// Attempts further apart than this, without a sleep between them, do not belong to one wait, in ns.
const APART_NS: u64 = 1_000_000_000;

/// The longest sleep in the queue, inside a lock call, of a connection whose busy handler has slept by itself.
const BESIDE_HANDLER: Duration = Duration::from_millis(50);

/// A shorter sleep is not worth a place in the queue.
const WORTH_A_NAP: Duration = Duration::from_micros(50);

/// Tells whether SQLite's own lock, which was refused, has become free.
///
/// A thread that sleeps for the connection calls the probe from xSleep, with the mutex of [`Shared`], while the connection is
/// not in use: from [`Wait::refused`] until [`Wait::remove_probe`], except during [`Wait::with_probe_paused`]. The probe must
/// not wait, call the [`Wait`], or ask for the write lock.
pub(crate) type Probe = Box<dyn FnMut() -> bool + Send>;

/// What a connection that was refused waits for.
pub(crate) enum Obstacle {
    /// The write lock, in the queue.
    WriteLock,
    /// SQLite's own lock. With `until_unlock`, the probe relies on the locks that the connection has now, and says nothing
    /// after the connection has released one of them.
    SqliteLock { probe: Option<Probe>, until_unlock: bool },
}

impl Obstacle {
    /// Whether it is the write lock.
    pub(crate) fn is_write_lock(&self) -> bool {
        matches!(self, Self::WriteLock)
    }
}

/// The waits of one connection.
pub(crate) struct Wait {
    shared: Arc<Shared>,
    /// The thread that used the connection last; [`Waiting`] has a copy.
    thread: usize,
    probe: ProbeLife,
}

/// Whether a connection has a probe, and for how long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProbeLife {
    /// It has none.
    Absent,
    /// Until the connection releases one of SQLite's locks, or is used.
    UntilUnlock,
    /// Until the connection is used.
    UntilUse,
}

/// What a connection and the thread that sleeps for it share about its waits.
struct Shared {
    /// Whether there is no wait to end and nothing to reset when the lock is acquired.
    is_quiet: AtomicBool,
    /// Mutex rule: held to look and to change, while a probe runs, and across SQLite's unlock while the probe is
    /// paused, but not during a sleep. One thread at a time uses a connection. Another thread may still take it for the
    /// connection that was last refused there.
    waiting: Mutex<Waiting>,
}

struct Waiting {
    database: Arc<Database>,
    /// Whether holders release the lock without a sync, as far as the connection knows.
    is_brief: bool,
    /// The thread that used the connection last.
    thread: usize,
    /// Whether the connection waits: it was refused the write lock, or SQLite's own lock after it.
    waits: bool,
    /// Whether it waits for the write lock, and so in the queue.
    can_queue: bool,
    probe: Option<Probe>,
    /// When its wait began, in ns of [`sys::kernel_ns`]. It stays if the lock is acquired with a stale snapshot.
    first_refused_at: u64,
    /// Its ticket in this wait. It stays as long as [`Self::first_refused_at`] does.
    ticket: Option<Ticket>,
    /// When its wait began, or last resumed after a stale snapshot, in ns.
    resumed_at: u64,
    /// When it was last refused, in ns.
    refused_at: u64,
    last_step: LastStep,
    handler: BusyHandler,
    /// The `sqlite3` whose busy handler sleeps: an address, 0 if that is not known.
    user: usize,
    /// The queues of other databases whose write lock this `sqlite3` has.
    held: Vec<Arc<Queue<Sidecar>>>,
    /// Shows this wait to the transactions that wait for those write locks.
    label: Option<Label>,
    /// A forked child must not leave the queue for its parent.
    place: Option<Own<Queued>>,
}

/// What a connection did last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastStep {
    /// It was refused what it waits for; `after_sleep` if it had slept since the refusal before.
    Refused { after_sleep: bool },
    /// It slept.
    Slept,
    /// It slept, and then was refused a lock that has nothing to do with the write lock.
    SleptAndRefusedUnrelated,
    /// Its thread slept longer than SQLite's default busy handler would.
    SleptByItself,
    /// Its busy handler slept by itself, and then the connection slept as long in the queue.
    SleptBesideHandler,
}

impl LastStep {
    /// Whether it has slept since it was refused what it waits for.
    fn has_slept(self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// Sleeps for the connection that was last refused a lock on this thread, if its busy handler asks for this sleep. Called for
/// each xSleep, without any lock. `base_sleep` is the base VFS's xSleep. Returns false, without a sleep, if something else
/// asks: then the caller sleeps as the base does.
#[must_use]
pub(crate) fn sleep(asked: Duration, base_sleep: impl Fn(Duration)) -> bool {
    if asked.is_zero() || asked.subsec_micros() % 1000 != 0 {
        // Not the busy handler, which counts in ms, but a short retry of SQLite's.
        return false;
    }
    let Some(shared) = sleeper::last() else { return false };
    let nap = shared.waiting.lock().begin_nap(asked);
    shared.is_quiet.store(false, Ordering::Relaxed);
    let Some(nap) = nap else {
        forget_on_this_thread();
        return false;
    };
    shared.sleep(nap, base_sleep);
    true
}

impl Shared {
    /// Sleeps `nap`, without the mutex, and keeps what it leaves to the next nap.
    fn sleep(&self, nap: Nap, base_sleep: impl Fn(Duration)) {
        let slept = nap.sleep(base_sleep, || self.waiting.lock().is_worth_trying());
        let mut waiting = self.waiting.lock();
        if waiting.waits && waiting.thread == this_thread() {
            let Slept { place, unslept, label } = slept;
            waiting.handler.unslept = unslept;
            waiting.label = label;
            let ticket = place.as_ref().and_then(Own::get).map(|queued| queued.place.ticket);
            waiting.ticket = ticket.or(waiting.ticket);
            waiting.place = place;
        }
    }
}

impl Waiting {
    /// The nap for a sleep of `asked`; `None` if the sleep is not for this connection.
    fn begin_nap(&mut self, asked: Duration) -> Option<Nap> {
        if self.thread != this_thread() {
            return None;
        }
        if self.waits && matches!(self.last_step, LastStep::Slept | LastStep::SleptBesideHandler) {
            // SQLite tries for the lock after each sleep of a busy handler. Here it did not, so the statement has ended. The
            // application itself sleeps, for its full time.
            self.place = None;
            return None;
        }
        let left_over = sleeper::take_left_over(self.user);
        let goes_on = self.waits || left_over.is_some();
        if let Some(before) = left_over {
            // The same statement waited for another database before.
            self.handler.go_on_from(before, asked);
        }
        if !self.handler.note_sleep(asked, self.waits, goes_on) {
            if self.waits {
                // Perhaps an application's own handler. While it sleeps, it has not given up.
                self.last_step = LastStep::SleptByItself;
                self.place = None;
            }
            return None;
        }
        if !self.waits {
            self.resume();
        }
        self.last_step = LastStep::Slept;
        let limit = asked + std::mem::take(&mut self.handler.unslept);
        let stage = if self.handler.may_sleep_no_more() {
            Stage::Last
        } else if self.is_brief && self.handler.has_slept_once() {
            Stage::FirstOfBrief
        } else {
            Stage::Other
        };
        Some(self.nap(limit, stage))
    }

    fn nap(&mut self, limit: Duration, stage: Stage) -> Nap {
        Nap {
            limit,
            held: self.held.clone(),
            label: self.label.take(),
            database: Arc::clone(&self.database),
            can_queue: self.can_queue,
            waited: Duration::from_nanos(sys::kernel_ns().saturating_sub(self.first_refused_at)),
            ticket: self.ticket,
            place: self.place.take(),
            stage,
            can_look: self.probe.is_some(),
        }
    }

    /// The lock was granted, but the snapshot was stale. The connection does not lose its place by that.
    fn resume(&mut self) {
        let now = sys::kernel_ns();
        if self.first_refused_at == 0 {
            (self.first_refused_at, self.ticket) = (now, None);
        }
        (self.resumed_at, self.refused_at) = (now, now);
        (self.waits, self.can_queue) = (true, true);
    }

    /// Whether SQLite's own lock is free, if there is a probe for it. A nap calls this between two sleeps. The mutex is held
    /// while the probe runs.
    fn is_worth_trying(&mut self) -> bool {
        let is_mine = self.thread == this_thread();
        self.probe.as_mut().filter(|_| is_mine).is_some_and(|probe| probe())
    }

    /// The connection has the lock, or no longer wants it.
    fn stop(&mut self) {
        self.waits = false;
        self.handler.wait_ended();
        (self.place, self.label) = (None, None);
        self.held.clear();
    }

    /// The connection was refused, and its wait goes on: it sleeps again, or has given up, which no call shows.
    fn leave_turns_to_others(&self) {
        if let Some(queued) = self.place.as_ref().and_then(Own::get) {
            queued.was_refused();
        }
    }

    /// Ends the wait, if there is one. Returns how long it lasted, up to the last refusal.
    fn end(&mut self) -> Option<Duration> {
        if !self.waits {
            return None;
        }
        self.stop();
        Some(Duration::from_nanos(self.refused_at.saturating_sub(self.first_refused_at)))
    }

    /// Ends a wait that the connection gave up, which no call showed: it was refused a while ago and has not slept since.
    fn end_if_stale(&mut self, now: u64) -> Option<Duration> {
        let is_stale =
            !self.last_step.has_slept() && now.saturating_sub(self.refused_at) > APART_NS;
        if !is_stale {
            return None;
        }
        self.handler.learn_timeout();
        self.end()
    }
}

impl Wait {
    /// The waits of a connection to `database`: none so far. `is_brief` if holders of the write lock do not sync, as far as the
    /// connection knows.
    pub(crate) fn of(database: &Arc<Database>, is_brief: bool) -> Self {
        let waiting = Waiting {
            database: Arc::clone(database),
            is_brief,
            thread: 0,
            waits: false,
            can_queue: false,
            probe: None,
            first_refused_at: 0,
            ticket: None,
            resumed_at: 0,
            refused_at: 0,
            last_step: LastStep::Refused { after_sleep: false },
            handler: BusyHandler::default(),
            user: 0,
            held: Vec::new(),
            label: None,
            place: None,
        };
        let shared = Shared { is_quiet: AtomicBool::new(true), waiting: Mutex::new(waiting) };
        Self { shared: Arc::new(shared), thread: 0, probe: ProbeLife::Absent }
    }

    /// The connection was refused the write lock, or SQLite's own lock after it. Returns how long a wait lasted that this
    /// refusal ends.
    pub(crate) fn refused(&mut self, cause: Obstacle) -> Option<Duration> {
        let now = sys::kernel_ns();
        self.become_last();
        self.shared.is_quiet.store(false, Ordering::Relaxed);
        let mut waiting = self.shared.waiting.lock();
        let ended = waiting.end_if_stale(now);
        if !waiting.waits {
            waiting.waits = true;
            (waiting.first_refused_at, waiting.resumed_at) = (now, now);
            waiting.ticket = None;
            waiting.handler.reset();
        }
        (waiting.can_queue, waiting.probe, self.probe) = match cause {
            Obstacle::WriteLock => (true, None, ProbeLife::Absent),
            Obstacle::SqliteLock { probe: None, .. } => (false, None, ProbeLife::Absent),
            Obstacle::SqliteLock { probe, until_unlock: true } => {
                (false, probe, ProbeLife::UntilUnlock)
            }
            Obstacle::SqliteLock { probe, until_unlock: false } => {
                (false, probe, ProbeLife::UntilUse)
            }
        };
        if !waiting.last_step.has_slept() {
            // Another statement may be the refused one: the previous one may have given up.
            waiting.label = None;
        }
        waiting.refused_at = now;
        if waiting.last_step == LastStep::SleptBesideHandler {
            // Its handler sleeps next, where nobody could wake it, or gives up.
            waiting.place = None;
        }
        waiting.last_step = LastStep::Refused { after_sleep: waiting.last_step.has_slept() };
        if !waiting.handler.is_at_its_end() {
            waiting.leave_turns_to_others();
            return ended;
        }
        forget_on_this_thread();
        waiting.end()
    }

    /// The connection was refused a lock that has nothing to do with the write lock. So this thread's next sleep is not for the
    /// write lock.
    pub(crate) fn refused_unrelated(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.can_queue = false;
        waiting.leave_turns_to_others();
        if waiting.last_step == LastStep::Slept {
            waiting.last_step = LastStep::SleptAndRefusedUnrelated;
        }
        let waits = waiting.waits;
        drop(waiting);
        if waits {
            self.become_last();
        } else {
            sleeper::choose_none();
        }
    }

    /// The connection has the lock. Returns the wait that ended: `Ok` if it was for this lock, `Err` if the connection had
    /// given it up earlier, which no call showed.
    #[inline]
    pub(crate) fn acquired(&mut self) -> Option<Result<Duration, Duration>> {
        sleeper::acquired();
        if self.is_quiet() { None } else { self.acquired_at_last() }
    }

    #[cold]
    fn acquired_at_last(&mut self) -> Option<Result<Duration, Duration>> {
        let mut waiting = self.shared.waiting.lock();
        let now = sys::kernel_ns();
        let gave_up = waiting.end_if_stale(now);
        if waiting.waits {
            sleeper::leave_over(waiting.handler, waiting.user);
            waiting.stop();
            // `first_refused_at` stays: if the snapshot is stale, the wait goes on from there. The next acquisition without a
            // wait resets it.
            return Some(Ok(Duration::from_nanos(now.saturating_sub(waiting.resumed_at))));
        }
        (waiting.first_refused_at, waiting.ticket) = (0, None);
        waiting.handler.reset();
        self.shared.is_quiet.store(true, Ordering::Relaxed);
        gave_up.map(Err)
    }

    /// Whether the connection waits, was refused, and has not slept in xSleep since. Its busy handler may have slept by itself.
    pub(crate) fn may_have_slept_by_itself(&self) -> bool {
        let waiting = self.shared.waiting.lock();
        let not_here =
            matches!(waiting.last_step, LastStep::Refused { .. } | LastStep::SleptByItself);
        waiting.waits && not_here
    }

    /// Takes a ticket for this wait, if it has none: the busy handler is called next, and may sleep by itself.
    pub(crate) fn take_ticket(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        if waiting.ticket.is_none() {
            waiting.ticket = waiting.database.queue().map(|queue| queue.take_ticket());
        }
    }

    /// The write lock was refused, and the busy handler was called and wants to try again. If it slept by itself, for
    /// `has_slept`, and not in xSleep, the connection sleeps as long in the queue, at most [`BESIDE_HANDLER`]. It does not
    /// sleep if a connection of this process has the lock, whose thread may need a lock that the caller keeps.
    pub(crate) fn sleep_beside_handler(&mut self, has_slept: Duration) {
        let mut waiting = self.shared.waiting.lock();
        let limit = has_slept.min(BESIDE_HANDLER);
        let has_slept_here = waiting.last_step == LastStep::Slept;
        if has_slept_here || limit < WORTH_A_NAP || waiting.database.is_held_here() {
            return;
        }
        waiting.last_step = LastStep::SleptBesideHandler;
        waiting.handler.kind = busy_handler::HandlerKind::Unknown;
        let nap = waiting.nap(limit, Stage::Other);
        drop(waiting);
        self.shared.sleep(nap, std::thread::sleep);
        // The handler did not ask for this sleep, so nothing of it is left over.
        self.shared.waiting.lock().handler.unslept = Duration::ZERO;
    }

    /// Whether the connection does not wait, and there is nothing to end or reset when it acquires the lock.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.shared.is_quiet.load(Ordering::Relaxed)
    }

    /// The connection has released some of SQLite's locks on the database.
    pub(crate) fn unlocked(&mut self) {
        if self.probe == ProbeLife::UntilUnlock {
            self.remove_probe();
        }
    }

    /// The connection is used: from here on, no thread calls its probe. Call this before each of SQLite's locks, and before the
    /// file is closed. Waits for a probe that is running.
    #[inline]
    pub(crate) fn remove_probe(&mut self) {
        if self.has_probe() {
            self.remove_existing_probe();
        }
    }

    #[cold]
    fn remove_existing_probe(&mut self) {
        self.probe = ProbeLife::Absent;
        self.shared.waiting.lock().probe = None;
    }

    /// Whether a thread that sleeps for the connection may call its probe.
    pub(crate) fn has_probe(&self) -> bool {
        self.probe != ProbeLife::Absent
    }

    /// Runs `act` while the probe is paused, so `act` must not call this [`Wait`].
    #[inline(never)]
    pub(crate) fn with_probe_paused<T>(&self, act: impl FnOnce() -> T) -> T {
        let _paused = self.has_probe().then(|| self.shared.waiting.lock());
        act()
    }

    /// The connection released the lock as soon as it had it. If it sleeps next, its snapshot was stale. Returns whether the
    /// statement waited before, perhaps for a lock of another database: then the caller must call [`Self::is_used_by`].
    #[inline]
    pub(crate) fn released_at_once(&mut self) -> bool {
        self.become_last();
        sleeper::released_at_once()
    }

    /// The connection no longer wants the lock. Returns the wait that ended without it.
    pub(crate) fn end(&mut self) -> Option<Duration> {
        self.shared.waiting.lock().end()
    }

    /// If the connection waits, its wait began at `since`, in ns of [`sys::kernel_ns`], or earlier.
    pub(crate) fn began_at(&mut self, since: u64) {
        let mut waiting = self.shared.waiting.lock();
        waiting.first_refused_at = since.min(waiting.first_refused_at);
    }

    /// Whether the connection has slept since it was refused.
    pub(crate) fn has_slept(&self) -> bool {
        self.shared.waiting.lock().last_step == LastStep::Slept
    }

    /// Leaves the queue. Returns the connection's ticket, if it waits and has one.
    pub(crate) fn leave_queue(&mut self) -> Option<Ticket> {
        let mut waiting = self.shared.waiting.lock();
        waiting.place = None;
        waiting.ticket.filter(|_| waiting.waits)
    }

    /// Notes which `sqlite3` uses the file: the rest of a timeout counts for files of the same one
    /// only.
    pub(crate) fn is_used_by(&self, user: usize) {
        self.shared.waiting.lock().user = user;
    }

    /// Notes the queues of other databases whose write lock the same `sqlite3` has.
    pub(crate) fn holds(&self, held: Vec<Arc<Queue<Sidecar>>>) {
        self.shared.waiting.lock().held = held;
    }

    /// Whether the connection waits, or has given up, which no call showed.
    pub(crate) fn is_on(&self) -> bool {
        self.shared.waiting.lock().waits
    }

    /// How long the connection has waited; zero if it does not wait.
    pub(crate) fn age(&self) -> Duration {
        let waiting = self.shared.waiting.lock();
        let since = waiting.waits.then_some(waiting.first_refused_at);
        Duration::from_nanos(since.map_or(0, |since| sys::kernel_ns().saturating_sub(since)))
    }

    /// Whether a busy handler sleeps when the connection is refused, as far as is known. It does if it slept after the last
    /// refusal, or the one before, and is not at its end.
    pub(crate) fn has_busy_handler(&self) -> bool {
        let waiting = self.shared.waiting.lock();
        match waiting.last_step {
            _ if waiting.handler.is_at_its_end() => false,
            LastStep::Refused { after_sleep } => after_sleep,
            _ => true,
        }
    }

    /// Whether its busy handler is SQLite's default one, and sleeps again in this wait before it gives up, as far as is
    /// known.
    pub(crate) fn has_default_handler(&self) -> bool {
        self.shared.waiting.lock().handler.is_default_and_goes_on()
    }

    /// Whether its busy handler sleeps no more in this wait.
    pub(crate) fn is_at_its_end(&self) -> bool {
        self.shared.waiting.lock().handler.is_at_its_end()
    }

    /// Takes what was not slept of the busy timeout, if the handler sleeps no more in this statement. Its last sleep was cut
    /// short for a turn, in this database or in another that the statement has locked.
    pub(crate) fn take_rest(&mut self) -> Duration {
        let mut waiting = self.shared.waiting.lock();
        if let Some(mut before) = sleeper::take_left_over(waiting.user) {
            if before.may_sleep_no_more() {
                return std::mem::take(&mut before.unslept);
            }
            sleeper::leave_over(before, waiting.user);
        }
        if waiting.waits && waiting.handler.may_sleep_no_more() {
            return std::mem::take(&mut waiting.handler.unslept);
        }
        Duration::ZERO
    }

    /// Keeps `rest`, what is still left of [`Self::take_rest`], if the connection still waits.
    pub(crate) fn leave_rest(&mut self, rest: Duration) {
        let mut waiting = self.shared.waiting.lock();
        if waiting.waits {
            waiting.handler.unslept = rest;
        }
    }

    /// The application has set the busy timeout, in ms.
    pub(crate) fn note_timeout(&mut self, ms: u64) {
        self.shared.waiting.lock().handler.note_timeout(Duration::from_millis(ms));
    }

    /// Its busy handler slept for the last time in this wait, and `rest` of that sleep is left.
    #[cfg(test)]
    pub(crate) fn comes_with_rest(&mut self, rest: Duration) {
        let mut waiting = self.shared.waiting.lock();
        (waiting.handler.kind, waiting.handler.unslept) =
            (busy_handler::HandlerKind::AtItsEnd, rest);
    }

    /// Makes the connection wait, as if its busy handler had slept for the last time and `rest` of that sleep were left.
    #[cfg(test)]
    pub(crate) fn ends_with_rest(&mut self, rest: Duration) {
        assert!(self.refused(Obstacle::WriteLock).is_none());
        let mut waiting = self.shared.waiting.lock();
        (waiting.handler.kind, waiting.handler.unslept) =
            (busy_handler::HandlerKind::AtItsEnd, rest);
        waiting.last_step = LastStep::Slept;
    }

    /// The connection's place in the queue.
    #[inline]
    pub(crate) fn place(&self) -> Option<Place> {
        if self.is_quiet() { None } else { self.place_if_any() }
    }

    #[inline(never)]
    fn place_if_any(&self) -> Option<Place> {
        self.shared.waiting.lock().place.as_ref().map(|queued| queued.place)
    }

    /// Makes this the connection that this thread sleeps for.
    #[inline]
    fn become_last(&mut self) {
        if !sleeper::choose_again(self.thread, &self.shared) {
            self.replace_last();
        }
    }

    #[cold]
    fn replace_last(&mut self) {
        self.thread = this_thread();
        self.shared.waiting.lock().thread = self.thread;
        sleeper::choose(&self.shared);
    }
}

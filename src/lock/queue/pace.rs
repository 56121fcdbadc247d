//! How a connection has used the write lock lately, which decides whether it may go on although others wait.
//!
//! A connection that wants the lock again at once is in a tight loop: a waiter that it wakes would
//! mostly find the lock taken again. So it goes on for a slice of time, and wakes nobody. All
//! waiters together have a round of [`ROUND_NS`], of which each has an equal slice.

use super::{HEAD_LOOKS_EVERY, OVERTAKING_NS};
use crate::sys::ThreadUsage;

/// How long all waiters together may go on before it is the first one's turn again, in ns; each has an equal
/// slice of it.
const ROUND_NS: u64 = 12_000_000;
/// The least and the greatest slice, in ns: a shorter one would not be worth the context switch.
const SLICE_NS: (u64, u64) = (1_000_000, 4_000_000);
/// A slice is long enough for this many of the connection's transactions, up to the greatest slice.
const SLICE_TRANSACTIONS: u64 = 4;
/// The most transactions of a slice. Only this ends a slice if the clock stands still
/// (libfaketime).
const MOST_TRANSACTIONS: u32 = 512;
/// A connection that takes the lock again this soon after it released it is in a tight loop, in ns.
pub(super) const COMES_BACK_NS: u64 = 100_000;
/// A connection that gives a turn, and whose thread then has not slept and has run for less than this, in ns, until it tries
/// for the lock again, is in a tight loop, too. Beside hundreds of waiters, system calls take most of that.
const RUNS_ON_NS: u64 = 200_000;
/// The longest time, in ns, for which a holder that finds its snapshot stale holds the lock. It
/// only reads memory, but on a busy machine another process may run first.
const BRIEF_NS: u64 = 20_000_000;

/// How a connection has used the write lock lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// What its thread had done when it last gave a turn. If another thread tries next, the two are compared in vain. Should
    /// they look alike, the connection seems to be in a tight loop, and has one more slice.
    gave_turn: Option<ThreadUsage>,
    /// For how long another thread had the processor before the attempt that it waits for, in ns.
    displaced: u64,
    /// When it first took the lock after it last waited, in ns.
    run_began: u64,
    /// When its slice is over, in ns; known since it last looked at the page.
    run_ends: u64,
    /// How many more attempts its slice allows.
    left: u32,
    /// When it last took the lock, in ns.
    pub(super) taken_at: u64,
    /// When it last released the lock, in ns.
    pub(super) released_at: u64,
    /// For how long it has waited for other databases while it last had the lock, in ns.
    waited_elsewhere: u64,
    /// Since when it has left waiters no time to lock the waiters' byte, or when it last looked for
    /// waiters, in ns.
    busy_since: u64,
    /// How many times it has released the lock since `busy_since`.
    releases: u32,
    /// Whether it wanted the lock again at once, so that waking a waiter is most likely in vain.
    pub(super) comes_back: bool,
}

/// A write lock that was released.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Released {
    /// For how long it was held, in ns.
    pub(crate) held: u64,
    /// When it was released, in ns of [`crate::sys::monotonic_ns`].
    pub(crate) at: u64,
}

impl Pace {
    /// The connection will not want the lock again at once, although it may have been in a tight
    /// loop.
    pub(crate) fn goes_away(&mut self) {
        self.comes_back = false;
        self.run_ends = 0;
    }

    /// Whether it released the lock as soon as it had it.
    pub(crate) fn was_brief(&self) -> bool {
        self.released_at < self.taken_at + BRIEF_NS
    }

    /// For how long it had the lock the last time, and when it released it, in ns.
    pub(crate) fn last_hold(&self) -> Released {
        Released { held: self.released_at.saturating_sub(self.taken_at), at: self.released_at }
    }

    /// The connection closes: it will not want the lock again.
    pub(crate) fn ends(&mut self) {
        *self = Self { taken_at: self.taken_at, ..Self::default() };
    }

    /// The connection tries for the lock at `now`: from the queue, which it joined at `came`, or as
    /// a newcomer.
    #[inline(always)]
    pub(super) fn begin_attempt(
        &mut self,
        now: u64,
        came: Option<u64>,
        usage: impl FnOnce() -> Option<ThreadUsage>,
    ) {
        let idle = came.unwrap_or(now).saturating_sub(self.released_at);
        if came.is_none() && idle >= COMES_BACK_NS {
            if let Some(then) = self.gave_turn.take() {
                self.note_displaced(idle, then, usage());
            }
        }
        self.comes_back = idle.saturating_sub(self.displaced) < COMES_BACK_NS;
        if came.is_some() {
            (self.run_began, self.run_ends, self.left) = (now, now, MOST_TRANSACTIONS);
        }
        if idle > HEAD_LOOKS_EVERY.as_nanos() as u64 || came.is_some() {
            (self.busy_since, self.releases) = (now, 0);
        }
        self.left = self.left.saturating_sub(1);
    }

    /// The waiter that was given the turn often displaces the thread that gave it: that is no pause of the connection's.
    /// Otherwise a connection in a tight loop would seem to pause after most of its turns, and would have no slice.
    #[cold]
    fn note_displaced(&mut self, idle: u64, then: ThreadUsage, now: Option<ThreadUsage>) {
        let Some(now) = now.filter(|now| now.sleeps == then.sleeps) else { return };
        let has_run_on = now.ran.checked_sub(then.ran).is_some_and(|ran| ran < RUNS_ON_NS);
        self.displaced = if has_run_on { idle } else { 0 };
    }

    /// Whether it is in a tight loop and may go on.
    pub(super) fn is_within_slice(&self, now: u64) -> bool {
        self.comes_back && now < self.run_ends && self.left > 0
    }

    /// The connection has taken the lock, from the queue, which it joined at `came`, or as a newcomer. Returns when it would
    /// have tried first if it had not been displaced.
    #[inline(always)]
    pub(super) fn begin_hold(&mut self, now: u64, came: Option<u64>) -> u64 {
        let came = came.unwrap_or(now).saturating_sub(self.displaced);
        (self.taken_at, self.waited_elsewhere, self.displaced) = (now, 0, 0);
        came
    }

    /// The connection releases the lock, and has waited so long, in ns, for other databases while it had it. In the first
    /// transaction of a slice that is no part of the slice: otherwise each transaction over two databases would wait for both.
    /// A later wait is a part of it: otherwise it would have no end.
    #[cold]
    pub(super) fn waited_elsewhere(&mut self, waited: u64) {
        self.waited_elsewhere = waited;
        let is_first = self.left == MOST_TRANSACTIONS - 1;
        if is_first {
            // The clock may show any time (libfaketime).
            self.run_began = self.run_began.saturating_add(waited);
            self.run_ends = self.run_ends.saturating_add(waited);
        }
    }

    /// The connection has taken the lock while `waiters` wait. Its slice counts from when its run
    /// began.
    pub(super) fn begin_slice(&mut self, waiters: u64) {
        self.gave_turn = None;
        let held = self.released_at.saturating_sub(self.taken_at);
        let lasted = held.saturating_sub(self.waited_elsewhere);
        let (least, greatest) = SLICE_NS;
        let share = (ROUND_NS / (waiters + 1)).max(SLICE_TRANSACTIONS * lasted);
        self.run_ends = self.run_began.saturating_add(share.clamp(least, greatest));
    }

    /// The connection gives another the turn.
    pub(super) fn end_slice(&mut self, now: u64) {
        (self.run_ends, self.left) = (now, 0);
    }

    /// Whether it has given another the turn in the release that it has just made, by the times: while the clock stands still
    /// (libfaketime), perhaps in an earlier one, which does no harm.
    pub(super) fn has_given_turn(&self) -> bool {
        self.run_ends == self.released_at && self.left == 0
    }

    /// It has given another the turn; `usage` is of its thread.
    pub(super) fn note_usage(&mut self, usage: Option<ThreadUsage>) {
        self.gave_turn = usage;
    }

    /// Whether a holder that releases the lock looks for waiters now, although nobody has locked
    /// the waiters' byte: for [`OVERTAKING_NS`] it has left waiters no time for that. The next look
    /// is due after the same time.
    pub(super) fn take_look(&mut self) -> bool {
        self.releases += 1;
        let is_due = self.released_at >= self.busy_since + OVERTAKING_NS
            || self.releases >= MOST_TRANSACTIONS;
        if is_due {
            (self.busy_since, self.releases) = (self.released_at, 0);
        }
        is_due
    }
}

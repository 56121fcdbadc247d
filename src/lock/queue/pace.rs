//! How a connection has used the write lock lately, which decides whether it may go on although others wait.
//!
//! A connection that wants the lock again at once is in a tight loop: to wake a waiter would be in vain most of
//! the time. So it goes on for a slice of time, and wakes nobody. All waiters together have a round of
//! [`ROUND_NS`], of which each has an equal slice.

use super::{HEAD_LOOKS_EVERY, OVERTAKING_NS};

/// How long all waiters together may go on before it is the first one's turn again, in ns; each has an equal
/// slice of it.
const ROUND_NS: u64 = 12_000_000;
/// The least and the greatest slice, in ns: a shorter one would not be worth the context switch.
const SLICE_NS: (u64, u64) = (1_000_000, 4_000_000);
/// A slice suffices for so many of the connection's transactions, up to the greatest slice.
const SLICE_TRANSACTIONS: u64 = 4;
/// A connection that takes the lock again so soon after it released it is in a tight loop, in ns.
const COMES_BACK_NS: u64 = 100_000;
/// A holder that did more than read from memory holds the lock for at least so long, in ns.
const BRIEF_NS: u64 = 200_000;

/// How a connection has used the write lock lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When it first took the lock after it last waited, in ns.
    run_began: u64,
    /// When its slice is over, in ns; known since it last looked at the page.
    run_ends: u64,
    /// When it last took the lock, in ns.
    pub(super) taken_at: u64,
    /// When it last released the lock, in ns.
    pub(super) released_at: u64,
    /// Since when it has left waiters no time to lock the waiters' byte, or when it last looked for them, in ns.
    busy_since: u64,
    /// Whether it wanted the lock again at once, so that waking a waiter is most likely in vain.
    pub(super) comes_back: bool,
}

impl Pace {
    /// It will not want the lock again at once, whatever it did until now.
    pub(crate) fn goes_away(&mut self) {
        self.comes_back = false;
        self.run_ends = 0;
    }

    /// Whether it released the lock as soon as it had it.
    pub(crate) fn was_brief(&self) -> bool {
        self.released_at < self.taken_at + BRIEF_NS
    }

    /// It tries for the lock at `now`: from the queue, with that ticket, or as a newcomer.
    #[inline(always)]
    pub(super) fn begin_attempt(&mut self, now: u64, ticket: Option<u64>) {
        let idle = ticket.unwrap_or(now).saturating_sub(self.released_at);
        self.comes_back = idle < COMES_BACK_NS;
        if ticket.is_some() {
            (self.run_began, self.run_ends) = (now, now);
        }
        if idle > HEAD_LOOKS_EVERY.as_nanos() as u64 || ticket.is_some() {
            self.busy_since = now;
        }
    }

    /// Whether it is in a tight loop and may go on.
    pub(super) fn is_within_slice(&self, now: u64) -> bool {
        self.comes_back && now < self.run_ends
    }

    /// It has taken the lock while so many wait. Its slice counts from when its run began.
    pub(super) fn begin_slice(&mut self, waiters: u64) {
        let lasted = self.released_at.saturating_sub(self.taken_at);
        let (least, greatest) = SLICE_NS;
        let share = (ROUND_NS / (waiters + 1)).max(SLICE_TRANSACTIONS * lasted);
        self.run_ends = self.run_began + share.clamp(least, greatest);
    }

    /// It has given another the turn.
    pub(super) fn end_slice(&mut self, now: u64) {
        self.run_ends = now;
    }

    /// Whether a holder that releases the lock is to look for waiters now, although nobody has locked the waiters'
    /// byte: for [`OVERTAKING_NS`] it has left them no time to. The next look is due as much later.
    pub(super) fn take_look(&mut self) -> bool {
        let is_due = self.released_at >= self.busy_since + OVERTAKING_NS;
        if is_due {
            self.busy_since = self.released_at;
        }
        is_due
    }
}

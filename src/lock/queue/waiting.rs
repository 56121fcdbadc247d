//! A waiter's sleep in the queue: it returns when an attempt is worth making.
//!
//! A holder wakes the waiter it has chosen. But a holder may be killed, or be a stock client, which wakes
//! nobody: so the head of the queue looks every [`HEAD_LOOKS_EVERY`] whether the lock is free, and the others every
//! [`OTHERS_LOOK_EVERY`], in case the head is stopped.

use std::time::Duration;

use super::{HEAD_LOOKS_EVERY, Purpose, Queue, QueueFile};
use crate::lock::page::{PAGE, Page, State, Turn};

/// After how long waiters behind the head look again whether the lock is free, in case there is no head to take it.
const OTHERS_LOOK_EVERY: Duration = Duration::from_millis(10);
/// After how long a waiter tries to lock the waiters' byte again that a holder had at first; then after twice as
/// long, and so on up to [`HEAD_LOOKS_EVERY`].
const ANNOUNCES_AGAIN_AFTER: Duration = Duration::from_micros(50);

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: usize,
    /// When its connection was first refused, in ns; its order is by that.
    pub(crate) ticket: u64,
    pub(super) purpose: Purpose,
    /// The futex word when it last looked.
    word: u32,
    /// When the last turn it came for expires; it comes once for each turn.
    turn: u64,
}

impl Place {
    pub(super) fn new(slot: usize, ticket: u64, purpose: Purpose, word: u32) -> Self {
        Self { slot, ticket, purpose, word, turn: 0 }
    }
}

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its turn has come, or it was woken, or it is the head and has found the lock free.
    Sign,
    /// Its turn has come, or it has looked for a while and found the lock free. A free lock means that nobody
    /// gives turns.
    Free,
    /// Its turn has come: a connection that could write has given it.
    Turn,
}

impl<S: QueueFile> Queue<S> {
    /// Waits at most `limit`. True if an attempt is worth making.
    pub(crate) fn wait(&self, place: &mut Place, limit: Duration, until: Until) -> bool {
        let began = self.sidecar.now();
        self.show(place);
        let (mut timed_out, mut announces_after) = (false, ANNOUNCES_AGAIN_AFTER);
        // When the time is over the waiter stays present: it tries, and sleeps again.
        while let Some(left) = self.left(began, limit) {
            let Ok(page) = self.sidecar.read() else {
                if self.restore_and_look(left) {
                    return true;
                }
                continue;
            };
            let turn = page.turn().filter(|turn| turn.binds(self.sidecar.now()));
            let is_mine = |turn: &Turn| turn.is_for(place.slot, place.ticket);
            if let Some(mine) = turn.filter(is_mine).filter(|turn| turn.expires != place.turn) {
                place.turn = mine.expires;
                place.word = page.word(place.slot);
                return true;
            }
            // If nobody releases the lock, nobody gives turns either, so a free lock counts, unless it is
            // another's turn.
            let is_nobody_elses = turn.is_none_or(|turn| is_mine(&turn));
            let word = page.word(place.slot);
            let was_woken = word != place.word;
            place.word = word;
            if was_woken && until == Until::Sign {
                return true;
            }
            match page.waiter(place.slot) {
                Some(me) if me.ticket == place.ticket && me.state == State::Present => {}
                _ => self.show(place),
            }
            let is_head = self.is_head(place, &page);
            let looks = match until {
                Until::Sign => is_head || timed_out,
                Until::Free => timed_out,
                Until::Turn => false,
            };
            if looks && is_nobody_elses && self.is_free() {
                return true;
            }
            let look = match self.announce() {
                false => announces_after,
                true if is_head => HEAD_LOOKS_EVERY,
                true => OTHERS_LOOK_EVERY,
            };
            announces_after = HEAD_LOOKS_EVERY.min(announces_after * 2);
            timed_out = !self.sidecar.wait(place.slot, word, left.min(look));
        }
        false
    }

    /// The sidecar was cut short: restores its length, sleeps, and looks without the page. Whether the lock is free.
    fn restore_and_look(&self, left: Duration) -> bool {
        let _ = self.sidecar.write(PAGE as u64 - 1, &[0]);
        self.sidecar.sleep(left.min(HEAD_LOOKS_EVERY));
        self.is_free()
    }

    /// Waits as [`Self::wait`] does, for a connection that has no place.
    pub(crate) fn poll(&self, limit: Duration, until: Until) -> bool {
        let began = self.sidecar.now();
        while let Some(left) = self.left(began, limit) {
            self.sidecar.sleep(left.min(HEAD_LOOKS_EVERY));
            if until != Until::Turn && self.held_for().is_none() {
                return true;
            }
        }
        false
    }

    /// What is left at this moment of a `limit` that counts from `began`; `None` if nothing is.
    fn left(&self, began: u64, limit: Duration) -> Option<Duration> {
        let elapsed = Duration::from_nanos(self.sidecar.now().saturating_sub(began));
        limit.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// Whether no living waiter that is present came before.
    fn is_head(&self, place: &Place, page: &Page) -> bool {
        !page.waiters().any(|other| {
            other.state == State::Present
                && other.ticket < place.ticket
                && self.is_alive(other.slot)
        })
    }
}

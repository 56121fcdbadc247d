//! A waiter's sleep in the queue: it returns when an attempt is worth making.
//!
//! A holder wakes the waiter it has chosen. But a holder may be killed, or be a stock client, which
//! wakes nobody. So the head of the queue looks every [`HEAD_LOOKS_EVERY`] whether the lock is
//! free, and the others every [`OTHERS_LOOK_EVERY`] and later, in case the head is stopped. Each
//! waiter writes by when it will have looked again; holders pass over a waiter that is late.

use std::time::Duration;

use super::pace::COMES_BACK_NS;
use super::{HEAD_LOOKS_EVERY, Purpose, Queue, QueueFile};
use crate::lock::holder::Holder;
use crate::lock::page::{Looks, Page, SLOTS, Since, SlotState, Ticket, Turn, Waiter};
use crate::recorder::event::Process;
use crate::sys::Stopwatch;

/// After how long waiters behind the head look again whether the lock is free, in case there is no head to take it.
const OTHERS_LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much later for each waiter ahead: a thousand waiters that look often would leave writers no
/// time.
const LATER_FOR_EACH: Duration = Duration::from_micros(500);
const _: () = assert!(
    OTHERS_LOOK_EVERY.as_nanos() + LATER_FOR_EACH.as_nanos() * SLOTS as u128
        <= Looks::FARTHEST.as_nanos()
);
/// How long a waiter that found the waiters' byte taken by a holder waits before it tries again. The time doubles
/// up to [`HEAD_LOOKS_EVERY`].
const ANNOUNCES_AGAIN_AFTER: Duration = Duration::from_micros(50);

/// With this many waiters ahead, a waiter tries only when it is woken. Each attempt costs system calls whose time
/// grows with the number of processes that have the board open.
const FAR: u32 = 16;

/// How long the lock must stay free before a connection relies on its turn. A holder in its slice may not know of
/// the turn, but would come back within this time.
const COMES_TO_BE_SURE: Duration = Duration::from_nanos(COMES_BACK_NS);

/// After how long a waiter notes who the holder is.
const WATCHES_AFTER: Duration = Duration::from_millis(10);

/// Where a connection joins the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Behind all others.
    Last,
    /// Where it was, by the ticket that it had.
    Kept(Ticket),
    /// Ahead of all others.
    First,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: usize,
    /// Its order in the queue.
    pub(crate) ticket: Ticket,
    /// When its connection was first refused, in ns of [`QueueFile::now`].
    pub(super) came: u64,
    /// The same, for others to see.
    pub(super) since: Since,
    pub(super) purpose: Purpose,
    /// The futex word when it last looked.
    pub(super) word: u32,
    /// When the last turn it came for expires; it comes once for each turn.
    pub(super) turn: u64,
    /// By when it will have looked at the page, according to its slot.
    pub(super) looks: Looks,
    /// How many waiters were before it when it last looked, asleep or not; 0 if it was the head.
    pub(super) ahead: u32,
    /// When it looks again, if it is far from the head, in ns of [`QueueFile::kernel_now`].
    pub(super) next_look: u64,
}

impl Place {
    /// The place of a waiter that has not looked at the page yet; `came` and `since` are the same moment by two
    /// clocks.
    pub(super) fn new(
        slot: usize,
        ticket: Ticket,
        (came, since): (u64, Since),
        purpose: Purpose,
        word: u32,
    ) -> Self {
        let looks = Looks::by(0);
        Self { slot, ticket, came, since, purpose, word, turn: 0, looks, ahead: 0, next_look: 0 }
    }

    /// Notes when the waiter's `transaction` first tried for a write lock that it has, of another database, in ns of
    /// [`QueueFile::now`]; `None` if it has none. The connection has not been idle since.
    pub(in crate::lock) fn came_with(&mut self, transaction: Option<u64>) {
        self.came = transaction.map_or(self.came, |came| came.min(self.came));
    }

    /// Whether it is so far from the head that an attempt is not worth making.
    pub(crate) fn is_far(&self) -> bool {
        self.ahead >= FAR
    }
}

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its turn has come, or it was woken, or it is the head and has found the lock free.
    Sign,
    /// Its turn has come, or it has looked for a while and found the lock free: nobody gives turns
    /// while the lock is free.
    Free,
    /// Its turn has come, and no other connection takes the lock in that turn.
    Turn,
}

impl<S: QueueFile> Queue<S> {
    /// Waits at most `limit`. Returns what is left of `limit` if an attempt is worth making sooner.
    pub(crate) fn wait(
        &self,
        place: &mut Place,
        limit: Duration,
        until: Until,
    ) -> Option<Duration> {
        let mut watch = Stopwatch::start_at(self.sidecar.kernel_now());
        if !place.is_far() {
            self.show(place);
        }
        let (mut timed_out, mut announces_after) = (false, ANNOUNCES_AGAIN_AFTER);
        // When the time is over the waiter stays present: it tries, and sleeps again.
        while let Some(left) = self.left(&watch, limit) {
            let rest = place.next_look.saturating_sub(self.sidecar.kernel_now());
            if place.is_far() && rest > 0 {
                let look = left.min(Duration::from_nanos(rest));
                timed_out = !self.sidecar.wait(place.slot, place.word, look);
                if timed_out {
                    watch.note_sleep(look);
                } else {
                    place.ahead = 0;
                }
                continue;
            }
            let Ok(page) = self.sidecar.read() else {
                if self.restore_and_look(left, &mut watch) {
                    return Some(left);
                }
                continue;
            };
            let turn = page.turn().filter(|turn| turn.binds(self.sidecar.shared_now()));
            let is_mine = |turn: &Turn| turn.is_for(place.slot, place.ticket);
            if let Some(mine) = turn.filter(is_mine).filter(|turn| turn.expires != place.turn) {
                if until != Until::Turn || self.leaves_lock_to(&mine, &mut watch) {
                    self.forget_holder();
                    place.turn = mine.expires;
                    place.word = page.word(place.slot);
                    return Some(left);
                }
            }
            if page.counter().is_before(place.ticket) {
                // The counter was torn, or overwritten: a newcomer must not come before those that
                // wait.
                self.note_given(place.ticket);
            }
            // If nobody releases the lock, nobody gives turns either, so a free lock counts, unless it is
            // another's turn.
            let is_nobody_elses = turn.is_none_or(|turn| is_mine(&turn));
            let word = page.word(place.slot);
            let was_woken = word != place.word;
            place.word = word;
            if was_woken {
                self.forget_holder();
            }
            if was_woken && until == Until::Sign {
                return Some(left);
            }
            match page.waiter(place.slot) {
                Some(me) if me.ticket == place.ticket && me.state == SlotState::Present => {}
                _ => self.show(place),
            }
            self.note_extent(place.slot, &page);
            place.ahead = self.ahead(place, &page);
            let is_head = place.ahead == 0;
            let looks = match until {
                Until::Sign => is_head || timed_out,
                Until::Free => timed_out,
                Until::Turn => false,
            };
            if looks && is_nobody_elses && self.is_free() && self.stays_free(place, &mut watch) {
                self.note_if_ended();
                return Some(self.left(&watch, limit).unwrap_or_default());
            }
            if timed_out && is_head {
                self.watch_holder(limit.saturating_sub(left));
            }
            let look = match self.announce() {
                false => announces_after,
                true if is_head => HEAD_LOOKS_EVERY,
                true => OTHERS_LOOK_EVERY + LATER_FOR_EACH * place.ahead,
            };
            announces_after = HEAD_LOOKS_EVERY.min(announces_after * 2);
            place.next_look = self.sidecar.kernel_now() + look.as_nanos() as u64;
            let look = left.min(look);
            self.note_look(place);
            timed_out = !self.sidecar.wait(place.slot, word, look);
            if timed_out {
                watch.note_sleep(look);
            }
        }
        None
    }

    /// The head of the queue has waited for `slept` in this sleep. After a while it notes the holder's process,
    /// since nothing else would show that this process has ended.
    fn watch_holder(&self, slept: Duration) {
        if slept < WATCHES_AFTER {
            return;
        }
        let Some(holder) = self.holder() else { return };
        let mut watched = self.watched.lock();
        let is_known = |(known, _): &(Holder, Process)| *known == holder;
        if !watched.as_ref().is_some_and(is_known) {
            *watched = self.sidecar.process_of(holder).map(|process| (holder, process));
        }
    }

    /// The holder has told the waiter that it releases the lock.
    fn forget_holder(&self) {
        *self.watched.lock() = None;
    }

    /// The lock is free, but its holder has woken nobody. If the holder's process has ended since
    /// it was seen to have the lock, it died without releasing it. (Or it released the lock in its
    /// slice, and ended within the ms since the last look.)
    pub(super) fn note_if_ended(&self) {
        if let Some((_, process)) =
            self.watched.lock().take().filter(|(holder, _)| self.sidecar.has_ended(*holder))
        {
            *self.died.lock() = Some(process);
        }
    }

    /// Whether the others leave the lock to the caller in its `turn`. A holder that has seen nobody
    /// wait or is in its slice may still take it, and so may a checkpoint, which goes ahead of all.
    fn leaves_lock_to(&self, turn: &Turn, watch: &mut Stopwatch) -> bool {
        if !self.announce() || !self.is_free() {
            return false;
        }
        self.sleep(COMES_TO_BE_SURE, watch);
        self.is_free() && self.sidecar.read().is_ok_and(|page| page.turn() == Some(*turn))
    }

    /// Whether the lock, which is free, stays so because no waiter ahead comes for it. Then a waiter
    /// that is far from the head tries, too: all those ahead may be stopped, and nobody gives turns
    /// while the lock is free.
    fn stays_free(&self, place: &mut Place, watch: &mut Stopwatch) -> bool {
        if place.is_far() {
            self.sleep(HEAD_LOOKS_EVERY, watch);
            if !self.is_free() {
                return false;
            }
            place.ahead = 0;
        }
        true
    }

    fn sleep(&self, duration: Duration, watch: &mut Stopwatch) {
        self.sidecar.sleep(duration);
        watch.note_sleep(duration);
    }

    /// The sidecar was cut short: restores its length and sleeps. Returns whether the lock is free,
    /// without the page.
    fn restore_and_look(&self, left: Duration, watch: &mut Stopwatch) -> bool {
        self.sidecar.lengthen();
        self.sleep(left.min(HEAD_LOOKS_EVERY), watch);
        self.is_free()
    }

    /// Waits as [`Self::wait`] does, for a connection that has no place.
    pub(crate) fn poll(&self, limit: Duration, until: Until) -> Option<Duration> {
        let mut watch = Stopwatch::start_at(self.sidecar.kernel_now());
        while let Some(left) = self.left(&watch, limit) {
            self.sleep(left.min(HEAD_LOOKS_EVERY), &mut watch);
            if until != Until::Turn && self.held_for().is_none() {
                return self.left(&watch, limit);
            }
        }
        None
    }

    /// What is left at this moment of a `limit`; `None` if nothing is.
    fn left(&self, watch: &Stopwatch, limit: Duration) -> Option<Duration> {
        let elapsed = watch.elapsed_at(self.sidecar.kernel_now());
        limit.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// How many waiters came before, asleep or not; 0 if none of them sleeps and is alive and in
    /// time. A waiter with [`FAR`] others ahead also needs a free lock to take itself for the head: on an
    /// overloaded machine all others seem to be stopped.
    fn ahead(&self, place: &Place, page: &Page) -> u32 {
        let now = self.sidecar.shared_now();
        let ahead = || page.waiters().filter(|other| other.ticket.is_before(place.ticket));
        let comes = |other: Waiter| other.sleeps(now) && self.is_alive(other.slot);
        let count = ahead().count() as u32;
        if ahead().any(comes) || count >= FAR && !self.is_free() { count } else { 0 }
    }
}

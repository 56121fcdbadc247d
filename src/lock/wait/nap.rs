//! One sleep of a busy handler: in the queue, or looking for SQLite's own lock.
//!
//! Each return costs one of the handler's calls, and their number is limited. So a nap that returns early leaves what
//! was not slept to the next. With more than [`MOST_UNSLEPT`] left, it returns only for a turn, not because the lock
//! is free.

use std::sync::Arc;
use std::time::Duration;

use crate::lock::circle::Label;
use crate::lock::database::Database;
use crate::lock::page::Ticket;
use crate::lock::queue::{Place, Purpose, Queue, Rank, Until};
use crate::lock::sidecar::Sidecar;
use crate::sys::Stopwatch;
use crate::sys::fork::Own;

/// The most that a nap leaves to the next if it returns without a turn, because the lock is free.
const MOST_UNSLEPT: Duration = Duration::from_millis(100);

/// How long a waiter yields to other threads before it queues, where holders do not sync.
const YIELDS: Duration = Duration::from_micros(200);
/// How many times a waiter yields, at most.
const MOST_YIELDS: usize = 1000;

/// After this time a wait for SQLite's own lock is shown to observers; a shorter wait is not worth the system calls.
const SHOWN_AFTER: Duration = Duration::from_millis(10);

/// How often a connection that has write locks of other databases checks whether it waits for itself.
const LOOKS_FOR_CIRCLE: Duration = Duration::from_millis(1);

/// How long a waiter sleeps before each look at SQLite's own lock; the last is repeated.
const PAUSES: [Duration; 4] = [
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(400),
    Duration::from_micros(1000),
];

/// A place in the queue of a sidecar. Dropping it leaves the queue.
pub(super) struct Queued {
    queue: Arc<Queue<Sidecar>>,
    pub(super) place: Place,
}

impl Queued {
    /// The connection tried in vain.
    pub(super) fn was_refused(&self) {
        self.queue.was_refused(&self.place);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queue.leave(&self.place);
    }
}

/// Shows observers a connection that waits for SQLite's own lock, until this is dropped.
struct Shown {
    queue: Arc<Queue<Sidecar>>,
    slot: usize,
}

impl Shown {
    fn new(queue: Arc<Queue<Sidecar>>, waited: Duration) -> Option<Self> {
        queue.show_outside(waited).map(|slot| Self { queue, slot })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.queue.hide(self.slot);
    }
}

/// A sleep of a connection.
pub(super) struct Nap {
    /// How long, at most.
    pub(super) limit: Duration,
    /// The database whose lock it waits for.
    pub(super) database: Arc<Database>,
    /// Whether it waits for the write lock, in the queue, and not for SQLite's own lock.
    pub(super) can_queue: bool,
    /// How long the wait has lasted.
    pub(super) waited: Duration,
    /// The ticket that the connection had, if it has no place.
    pub(super) ticket: Option<Ticket>,
    pub(super) place: Option<Own<Queued>>,
    pub(super) stage: Stage,
    /// The queues of other databases whose write lock its `sqlite3` has.
    pub(super) held: Vec<Arc<Queue<Sidecar>>>,
    pub(super) label: Option<Label>,
    /// Whether there is a probe.
    pub(super) can_look: bool,
}

/// What a nap leaves to the next.
pub(super) struct Slept {
    /// The place in the queue.
    pub(super) place: Option<Own<Queued>>,
    /// What was not slept.
    pub(super) unslept: Duration,
    pub(super) label: Option<Label>,
}

/// The position of a sleep in its wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The first, and holders do not sync: the lock is likely to be free in a moment.
    FirstOfBrief,
    /// Any other.
    Other,
    /// The last: what is not slept is lost.
    Last,
}

impl Nap {
    /// Sleeps; `base_sleep` is the base's xSleep.
    ///
    /// Calls `is_worth_trying` between two sleeps, without any lock.
    pub(super) fn sleep(
        mut self,
        base_sleep: impl Fn(Duration),
        is_worth_trying: impl FnMut() -> bool,
    ) -> Slept {
        let queue = (self.can_queue || self.is_long()).then(|| self.database.queue()).flatten();
        let queue = match queue {
            Some(queue) if self.can_queue => queue,
            other => {
                // Without a place, nobody waits for this connection to come for a turn.
                self.place = None;
                let shown = other.and_then(|queue| Shown::new(queue, self.waited));
                let unslept = self.look(base_sleep, is_worth_trying);
                drop(shown);
                return self.slept(None, unslept);
            }
        };
        if self.label.as_mut().is_some_and(|label| label.has_come_back(&queue)) {
            // The connection still waits for itself. No sleep: its busy handler soon counts to its end.
            let place = self.place.take();
            return self.slept(place, Duration::ZERO);
        }
        let watch = Stopwatch::start();
        let left = || self.limit.saturating_sub(watch.elapsed());
        if self.stage == Stage::FirstOfBrief {
            // The count ends the loop if the clock stands still.
            for _ in 0..MOST_YIELDS {
                if watch.elapsed() >= YIELDS {
                    break;
                }
                std::thread::yield_now();
                if queue.is_free() {
                    let (place, left) = (self.place.take(), left());
                    return self.slept(place, left);
                }
            }
        }
        // If the sidecar was replaced, the connection's place is in another queue.
        let place = self.place.take().filter(|queued| Arc::ptr_eq(&queued.queue, &queue));
        let mut place = place.or_else(|| {
            let rank = self.ticket.map_or(Rank::Last, Rank::Kept);
            let mut place = queue.join(rank, self.waited, Purpose::Write)?;
            place.came_with(self.held.iter().map(|held| held.holder_came()).min());
            Some(Own::new(Queued { queue: Arc::clone(&queue), place }))
        });
        let until = match self.stage {
            Stage::Last => Until::Turn,
            _ if self.limit > MOST_UNSLEPT => Until::Free,
            _ => Until::Sign,
        };
        let mut label = self.label.take();
        if label.is_none() && !self.held.is_empty() {
            label = Some(Label::new(std::mem::take(&mut self.held), &queue));
        }
        let unslept = match (place.as_mut().and_then(Own::get_mut), &mut label) {
            (Some(queued), Some(label)) => loop {
                let rest = left();
                let look = rest.min(LOOKS_FOR_CIRCLE);
                if let Some(unslept) = queue.wait(&mut queued.place, look, until) {
                    break Some(rest.saturating_sub(look) + unslept);
                }
                if label.has_come_back(&queue) {
                    // The connection waits for itself. The rest is never slept, so that its busy handler gives up
                    // soon.
                    break None;
                }
                if look == rest {
                    break None;
                }
            },
            (Some(queued), None) => queue.wait(&mut queued.place, left(), until),
            (None, _) => {
                // A poller returns more often in vain, so it sleeps first.
                let least = self.limit.saturating_sub(MOST_UNSLEPT);
                if until == Until::Free && !least.is_zero() {
                    base_sleep(least);
                    queue.poll(left().min(MOST_UNSLEPT), until)
                } else {
                    queue.poll(left(), until)
                }
            }
        };
        self.label = label;
        self.slept(place, unslept.unwrap_or_default())
    }

    fn slept(self, place: Option<Own<Queued>>, unslept: Duration) -> Slept {
        Slept { place, unslept, label: self.label }
    }

    /// Whether the wait so far, or this sleep, is so long that people may ask about it.
    fn is_long(&self) -> bool {
        self.waited.max(self.limit) >= SHOWN_AFTER
    }

    /// Sleeps until an attempt at SQLite's own lock is worth making. Returns what was not slept.
    fn look(
        &self,
        base_sleep: impl Fn(Duration),
        mut is_worth_trying: impl FnMut() -> bool,
    ) -> Duration {
        let mut watch = Stopwatch::start();
        let least = match self.can_look && self.stage != Stage::Last {
            true => self.limit.saturating_sub(MOST_UNSLEPT),
            false => self.limit,
        };
        let base_sleep = |watch: &mut Stopwatch, duration| {
            base_sleep(duration);
            watch.note_sleep(duration);
        };
        if !least.is_zero() {
            base_sleep(&mut watch, least);
        }
        let mut pauses = PAUSES.into_iter();
        let mut pause = PAUSES[0];
        loop {
            let left = self.limit.saturating_sub(watch.elapsed());
            if least == self.limit || left.is_zero() {
                return Duration::ZERO;
            }
            pause = pauses.next().unwrap_or(pause);
            base_sleep(&mut watch, left.min(pause));
            if is_worth_trying() {
                return self.limit.saturating_sub(watch.elapsed());
            }
        }
    }
}

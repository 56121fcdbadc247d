//! One sleep of a busy handler: in the queue, or looking for SQLite's own lock.
//!
//! Each return costs one of the handler's calls, and they are numbered. So a nap that returns early leaves what was not
//! slept to the next, and with more than [`MOST_UNSLEPT`] left over it is not woken for a mere chance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lock::database::Database;
use crate::lock::queue::{Place, Purpose, Queue, Until};
use crate::lock::sidecar::Sidecar;
use crate::sys::fork::Own;

/// The most that a nap leaves to the next for a mere chance.
const MOST_UNSLEPT: Duration = Duration::from_millis(100);

/// How long a waiter lets others run before it queues, where holders do not sync.
const YIELDS: Duration = Duration::from_micros(200);

/// How often a waiter looks whether SQLite's own lock is free; the first times sooner.
const LOOKS: [Duration; 4] = [
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

impl Drop for Queued {
    fn drop(&mut self) {
        self.queue.leave(&self.place);
    }
}

/// A sleep of a connection.
pub(super) struct Nap {
    /// How long, at most.
    pub(super) limit: Duration,
    /// Whose queue to wait in; `None` to wait for SQLite's own lock.
    pub(super) database: Option<Arc<Database>>,
    /// When the wait began, in ns.
    pub(super) since: u64,
    pub(super) place: Option<Own<Queued>>,
    pub(super) stage: Stage,
    /// Whether there is a probe.
    pub(super) can_look: bool,
}

/// Which of a wait's sleeps it is.
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
    /// Sleeps; `sleep` is the base's xSleep. Returns the place in the queue, and what was not slept.
    ///
    /// Calls `is_worth_trying` between two sleeps, without any lock.
    pub(super) fn take(
        mut self,
        sleep: impl Fn(Duration),
        is_worth_trying: impl FnMut() -> bool,
    ) -> (Option<Own<Queued>>, Duration) {
        let Some(queue) = self.database.as_ref().and_then(|database| database.queue()) else {
            // Nobody must wait for this connection to come for a turn.
            self.place = None;
            return (None, self.look(sleep, is_worth_trying));
        };
        let began = Instant::now();
        let left = || self.limit.saturating_sub(began.elapsed());
        let mut yields = self.stage == Stage::FirstOfBrief;
        while yields {
            std::thread::yield_now();
            if queue.is_free() {
                return (self.place, left());
            }
            yields = began.elapsed() < YIELDS;
        }
        // If the sidecar was replaced, its place is in another queue.
        let place = self.place.filter(|queued| Arc::ptr_eq(&queued.queue, &queue));
        let mut place = place.or_else(|| {
            let place = queue.join(self.since, Purpose::Write)?;
            Some(Own::new(Queued { queue: Arc::clone(&queue), place }))
        });
        let until = match self.stage {
            Stage::Last => Until::Turn,
            _ if self.limit > MOST_UNSLEPT => Until::Free,
            _ => Until::Sign,
        };
        match place.as_mut().and_then(Own::get_mut) {
            Some(queued) => queue.wait(&mut queued.place, left(), until),
            None => {
                // A poller returns more often in vain.
                let least = self.limit.saturating_sub(MOST_UNSLEPT);
                if until == Until::Free && !least.is_zero() {
                    sleep(least);
                }
                queue.poll(left(), until)
            }
        };
        (place, left())
    }

    /// Sleeps until it is worth trying for SQLite's own lock. Returns what was not slept.
    fn look(
        &self,
        sleep: impl Fn(Duration),
        mut is_worth_trying: impl FnMut() -> bool,
    ) -> Duration {
        let began = Instant::now();
        let least = match self.can_look && self.stage != Stage::Last {
            true => self.limit.saturating_sub(MOST_UNSLEPT),
            false => self.limit,
        };
        if !least.is_zero() {
            sleep(least);
        }
        let mut looks = LOOKS.into_iter();
        let mut pause = LOOKS[0];
        loop {
            let left = self.limit.saturating_sub(began.elapsed());
            if least == self.limit || left.is_zero() {
                return Duration::ZERO;
            }
            pause = looks.next().unwrap_or(pause);
            sleep(left.min(pause));
            if is_worth_trying() {
                return self.limit.saturating_sub(began.elapsed());
            }
        }
    }
}

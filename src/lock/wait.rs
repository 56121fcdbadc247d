//! A connection's wait for the write lock.
//!
//! A lock call never waits: it says BUSY, SQLite drops what it held and asks its busy handler
//! (<https://www.sqlite.org/c3ref/busy_handler.html>), whose default calls xSleep and then tries
//! again. xSleep is where the connection waits, on the queue, and from where it returns as soon as
//! it is worth trying. The handler counts what it asked for and not what passed, so the rest is
//! added to the next sleep, and the busy timeout stays what it says.
//!
//! That it gives up, SQLite tells nobody. But the default handler sleeps by a fixed table and cuts
//! its last sleep to what is left of the timeout, so a refusal after a shortened sleep is the last.
//! Other waits (no busy handler, one of the application's own, a timeout that ends exactly with an
//! entry of the table) are seen to have ended when the connection is used again later, or closed.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::database::Database;
use super::queue::{Place, Queue};
use super::sidecar::Sidecar;
use crate::guard::fork::Own;
use crate::sys;

/// The sleeps of `sqliteDefaultBusyCallback` in ms; the last is repeated. The same in every
/// SQLite this VFS works with.
const DEFAULT_SLEEPS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// Attempts further apart than this, without a sleep between them, are not of one wait.
const APART: Duration = Duration::from_secs(1);

/// With more than this asked for and not slept, a waiter comes only when its turn has: each return
/// costs one of the busy handler's calls, and they are numbered.
const MOST_AHEAD: Duration = Duration::from_millis(100);

thread_local! {
    /// The last connection of this thread that was refused, if it may be waiting.
    static SLEEPER: Cell<Option<Sleeper>> = const { Cell::new(None) };
}

/// Takes the thread's sleeper. There is none while the thread ends, when a connection may still be
/// closed by the destructor of another thread-local value.
fn take_sleeper() -> Option<Sleeper> {
    SLEEPER.try_with(Cell::take).ok().flatten()
}

fn put_sleeper(sleeper: Option<Sleeper>) {
    let _ = SLEEPER.try_with(|cell| cell.set(sleeper));
}

/// A connection that was refused, between its attempts.
struct Sleeper {
    connection: u64,
    /// Where it can queue; `None` if the write lock is not what it waits for.
    database: Option<Arc<Database>>,
    /// When it was first refused, in ns of CLOCK_MONOTONIC.
    since: u64,
    /// The busy handler's calls so far.
    sleeps: usize,
    /// Whether the last of them was cut short: the handler makes no more.
    last: bool,
    /// What it was asked to sleep and did not.
    ahead: Duration,
    /// A child must not leave the queue for its parent.
    place: Option<Own<Queued>>,
}

/// A place in the queue of a sidecar. Dropping it leaves the queue.
struct Queued {
    queue: Arc<Queue<Sidecar>>,
    place: Place,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queue.leave(&self.place);
    }
}

/// This thread is asked to sleep in the VFS. `sleep` is the base's way to.
pub(crate) fn sleep(asked: Duration, sleep: impl Fn(Duration)) {
    if asked.subsec_micros() % 1000 != 0 {
        // Not the busy handler, which counts in ms, but a short retry of SQLite's.
        return sleep(asked);
    }
    let Some(mut sleeper) = take_sleeper() else { return sleep(asked) };
    if asked == Duration::from_millis(DEFAULT_SLEEPS[0]) {
        // The handler begins anew: SQLite waits for another lock of the same connection.
        sleeper.sleeps = 0;
        sleeper.ahead = Duration::ZERO;
    }
    let whole = DEFAULT_SLEEPS[sleeper.sleeps.min(DEFAULT_SLEEPS.len() - 1)];
    sleeper.last = asked < Duration::from_millis(whole);
    sleeper.sleeps += 1;
    let limit = asked + std::mem::take(&mut sleeper.ahead);
    sleeper.sleep(limit, sleep);
    put_sleeper(Some(sleeper));
}

impl Sleeper {
    fn sleep(&mut self, limit: Duration, sleep: impl Fn(Duration)) {
        let Some(queue) = self.database.as_ref().and_then(|database| database.queue()) else {
            return sleep(limit);
        };
        if self.place.as_ref().is_some_and(|queued| !Arc::ptr_eq(&queued.queue, &queue)) {
            // The sidecar was replaced.
            self.place = None;
        }
        if self.place.is_none() {
            let queued = |place| Own::new(Queued { queue: queue.clone(), place });
            self.place = queue.join(self.since).map(queued);
        }
        let on_a_sign = limit <= MOST_AHEAD;
        let began = Instant::now();
        match self.place.as_mut().and_then(Own::get_mut) {
            Some(queued) => queued.queue.wait(&mut queued.place, limit, on_a_sign),
            None => queue.poll(limit, on_a_sign),
        };
        self.ahead = limit.saturating_sub(began.elapsed());
    }
}

/// The place in the queue that `connection` has by this thread.
pub(crate) fn place_of(connection: u64) -> Option<Place> {
    let sleeper = take_sleeper()?;
    let place = match &sleeper.place {
        Some(queued) if sleeper.connection == connection => Some(queued.place),
        _ => None,
    };
    put_sleeper(Some(sleeper));
    place
}

/// `connection` waits no more.
fn forget(connection: u64) {
    let sleeper = take_sleeper();
    put_sleeper(sleeper.filter(|sleeper| sleeper.connection != connection));
}

/// A wait that is under way.
struct Ongoing {
    since: Instant,
    last_refusal: Instant,
    /// The sleeps at the last refusal.
    sleeps: usize,
}

/// The waits of one connection.
#[derive(Default)]
pub(crate) struct Wait {
    ongoing: Option<Ongoing>,
}

/// A wait that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited(pub(crate) Duration);

impl Wait {
    /// The connection was refused; `database` is where it can queue, if that is of use. Returns the
    /// wait that ended by it, if one did.
    pub(crate) fn refused(
        &mut self,
        connection: u64,
        database: Option<&Arc<Database>>,
    ) -> Option<Waited> {
        let now = Instant::now();
        let mut sleeper = match take_sleeper() {
            Some(sleeper) if sleeper.connection == connection && self.ongoing.is_some() => sleeper,
            _ => Sleeper {
                connection,
                database: None,
                since: sys::monotonic_ns(),
                sleeps: 0,
                last: false,
                ahead: Duration::ZERO,
                place: None,
            },
        };
        if database.is_none() {
            sleeper.place = None;
        }
        sleeper.database = database.cloned();
        let (sleeps, last) = (sleeper.sleeps, sleeper.last);
        let stale = self.ongoing.as_ref().is_some_and(|wait| {
            wait.sleeps == sleeps && now.duration_since(wait.last_refusal) > APART
        });
        put_sleeper(Some(sleeper));
        let over = if stale { self.ongoing.take() } else { None };
        let ended = over.map(|wait| Waited(wait.last_refusal.duration_since(wait.since)));
        let wait = self.ongoing.get_or_insert(Ongoing { since: now, last_refusal: now, sleeps: 0 });
        wait.last_refusal = now;
        wait.sleeps = sleeps;
        if last { self.end(connection) } else { ended }
    }

    /// The connection has the lock. Returns how long it waited, if it did.
    pub(crate) fn acquired(&mut self, connection: u64) -> Option<Waited> {
        let wait = self.ongoing.take()?;
        forget(connection);
        Some(Waited(wait.since.elapsed()))
    }

    /// The connection does not want the lock any more. Returns the wait that ended without it.
    pub(crate) fn end(&mut self, connection: u64) -> Option<Waited> {
        let wait = self.ongoing.take()?;
        forget(connection);
        Some(Waited(wait.last_refusal.duration_since(wait.since)))
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.ongoing.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sleeps SQLite's default busy handler asks for, until it gives up.
    fn sleeps(timeout_ms: u64) -> Vec<Duration> {
        let mut slept = 0;
        let table = DEFAULT_SLEEPS.into_iter().chain(std::iter::repeat(100));
        table
            .map_while(|ms| {
                let ms = ms.min(timeout_ms - slept);
                slept += ms;
                (ms > 0).then(|| Duration::from_millis(ms))
            })
            .collect()
    }

    #[test]
    fn the_refusal_after_the_last_sleep_ends_the_wait() {
        for timeout in [10, 50, 100, 1000, 5000, 10_000, 30_000] {
            let mut wait = Wait::default();
            assert_eq!(wait.refused(7, None), None);
            let sleeps = sleeps(timeout);
            for (n, asked) in sleeps.iter().enumerate() {
                sleep(*asked, |slept| assert_eq!(slept, *asked));
                let ended = wait.refused(7, None);
                assert_eq!(ended.is_some(), n + 1 == sleeps.len(), "{timeout} ms, sleep {n}");
            }
            assert!(!wait.is_waiting());
        }
    }

    /// A statement waits for SHARED and then, without an end in between that the VFS could see, for
    /// RESERVED: the handler counts from the beginning again, and nobody has given up.
    #[test]
    fn a_handler_that_begins_anew_is_not_at_its_end() {
        let mut wait = Wait::default();
        assert_eq!(wait.refused(9, None), None);
        for asked in [1, 2, 5, 1, 2] {
            sleep(Duration::from_millis(asked), |_| {});
            assert_eq!(wait.refused(9, None), None);
        }
        assert!(wait.acquired(9).is_some());
    }

    #[test]
    fn a_wait_is_ended_by_the_lock_or_by_giving_up_once() {
        let mut wait = Wait::default();
        assert_eq!(wait.acquired(8), None);
        assert_eq!(wait.refused(8, None), None);
        assert!(wait.acquired(8).is_some());
        assert_eq!(wait.end(8), None);
        assert_eq!(wait.refused(8, None), None);
        assert!(wait.end(8).is_some());
        assert_eq!(wait.end(8), None);
    }
}

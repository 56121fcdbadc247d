//! A connection's wait for the write lock, as far as a VFS can see it.
//!
//! A lock call never waits: it says BUSY, SQLite drops what it held and asks its busy handler
//! (<https://www.sqlite.org/c3ref/busy_handler.html>), whose default calls xSleep and then tries
//! again. That it gives up, SQLite tells nobody. But the default handler sleeps by a fixed table
//! and cuts its last sleep to what is left of the timeout, so a refusal after a shortened sleep is
//! the last. Other waits (no busy handler, one of the application's own, a timeout that ends
//! exactly with an entry of the table) are seen to have ended when the connection is used again
//! later, or closed.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The sleeps of `sqliteDefaultBusyCallback` in ms; the last is repeated. The same in every
/// SQLite this VFS works with.
const DEFAULT_SLEEPS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// Attempts further apart than this, without a sleep between them, are not of one wait.
const APART: Duration = Duration::from_secs(1);

thread_local! {
    /// The last connection of this thread that was refused, and its sleeps since.
    static SLEEPER: Cell<Sleeper> = const { Cell::new(Sleeper { connection: 0, sleeps: 0, last: false }) };
}

#[derive(Clone, Copy)]
struct Sleeper {
    connection: u64,
    sleeps: usize,
    last: bool,
}

/// This thread has slept in the VFS.
pub(crate) fn slept(duration: Duration) {
    SLEEPER.with(|cell| {
        let mut sleeper = cell.get();
        if sleeper.connection == 0 {
            return;
        }
        let whole = DEFAULT_SLEEPS[sleeper.sleeps.min(DEFAULT_SLEEPS.len() - 1)];
        sleeper.last = duration < Duration::from_millis(whole);
        sleeper.sleeps += 1;
        cell.set(sleeper);
    });
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
    /// The connection was refused. Returns the wait that ended by it, if one did.
    pub(crate) fn refused(&mut self, connection: u64) -> Option<Waited> {
        let now = Instant::now();
        let sleeper = SLEEPER.with(|cell| {
            let mut sleeper = cell.get();
            if sleeper.connection != connection || self.ongoing.is_none() {
                sleeper = Sleeper { connection, sleeps: 0, last: false };
                cell.set(sleeper);
            }
            sleeper
        });
        let stale = self.ongoing.as_ref().is_some_and(|wait| {
            wait.sleeps == sleeper.sleeps && now.duration_since(wait.last_refusal) > APART
        });
        let ended = if stale { self.end() } else { None };
        let wait = self.ongoing.get_or_insert(Ongoing { since: now, last_refusal: now, sleeps: 0 });
        wait.last_refusal = now;
        wait.sleeps = sleeper.sleeps;
        if sleeper.last { self.end() } else { ended }
    }

    /// The connection has the lock. Returns how long it waited, if it did.
    pub(crate) fn acquired(&mut self) -> Option<Waited> {
        let wait = self.ongoing.take()?;
        forget_sleeper();
        Some(Waited(wait.since.elapsed()))
    }

    /// The connection does not want the lock any more. Returns the wait that ended without it.
    pub(crate) fn end(&mut self) -> Option<Waited> {
        let wait = self.ongoing.take()?;
        forget_sleeper();
        Some(Waited(wait.last_refusal.duration_since(wait.since)))
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.ongoing.is_some()
    }
}

fn forget_sleeper() {
    SLEEPER.set(Sleeper { connection: 0, sleeps: 0, last: false });
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
            assert_eq!(wait.refused(7), None);
            let sleeps = sleeps(timeout);
            for (n, sleep) in sleeps.iter().enumerate() {
                slept(*sleep);
                let ended = wait.refused(7);
                assert_eq!(ended.is_some(), n + 1 == sleeps.len(), "{timeout} ms, sleep {n}");
            }
            assert!(!wait.is_waiting());
        }
    }

    #[test]
    fn a_wait_is_ended_by_the_lock_or_by_giving_up_once() {
        let mut wait = Wait::default();
        assert_eq!(wait.acquired(), None);
        assert_eq!(wait.refused(8), None);
        assert!(wait.acquired().is_some());
        assert_eq!(wait.end(), None);
        assert_eq!(wait.refused(8), None);
        assert!(wait.end().is_some());
        assert_eq!(wait.end(), None);
    }
}

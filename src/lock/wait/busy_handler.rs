//! SQLite's default busy handler, as it is known by its sleeps.
//!
//! `sqliteDefaultBusyCallback` sleeps by a fixed table and cuts its last sleep to what is left of the timeout
//! (<https://www.sqlite.org/c3ref/busy_timeout.html>). So a refusal after a shortened sleep is the last.
//!
//! A handler of the application's own may call sqlite3_sleep, which comes to the same xSleep where this VFS is the
//! default one. Its sleeps are as long as it likes, and none of them is known to be the last. So only a handler that
//! has followed the table from its first entry on is taken for the default one.

use std::time::Duration;

/// The sleeps of the default handler in ms; the last is repeated. Every SQLite that this VFS works with has this table.
pub(super) const DEFAULT_SLEEPS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// A handler that has made so many sleeps of the table, from the first on, follows it. One that doubles its sleeps
/// leaves the table with its third.
pub(super) const FEWEST: usize = 3;

/// The nth sleep of the default handler, from 0.
fn default_sleep(n: usize) -> Duration {
    Duration::from_millis(DEFAULT_SLEEPS[n.min(DEFAULT_SLEEPS.len() - 1)])
}

/// The busy handler of a connection.
#[derive(Default)]
pub(super) struct BusyHandler {
    /// How many calls it has had in this wait, by what it asks for.
    pub(super) sleeps: usize,
    pub(super) kind: Kind,
    /// What it asked for in this wait and was not slept.
    pub(super) unslept: Duration,
}

/// Which handler it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not the default one, or some of its calls were not seen.
    #[default]
    Unknown,
    /// Each of its sleeps was seen, and was the table's.
    FollowsTable,
    /// It followed the table, and its last sleep was cut short: it makes no more.
    AtItsEnd,
}

impl BusyHandler {
    /// Notes a sleep that was asked for, while the connection `waits` or after it released the lock at once. False if
    /// no busy handler would have asked for it.
    pub(super) fn note_sleep(&mut self, asked: Duration, waits: bool) -> bool {
        if asked == default_sleep(0) {
            // It starts over: SQLite waits for another lock of the connection.
            *self = Self { kind: Kind::FollowsTable, ..Self::default() };
        } else if waits && asked > default_sleep(self.sleeps) {
            // Some calls were not seen: it waits for a file of another VFS, too. Or this is not the default handler,
            // or no handler.
            if self.kind == Kind::FollowsTable {
                self.kind = Kind::Unknown;
            }
            let mut later = self.sleeps..DEFAULT_SLEEPS.len();
            let Some(nth) = later.find(|n| asked == default_sleep(*n)) else { return false };
            self.sleeps = nth;
        } else if !waits && asked != default_sleep(self.sleeps) {
            return false;
        }
        let is_cut_short = asked < default_sleep(self.sleeps);
        self.kind = match self.kind {
            Kind::FollowsTable if !is_cut_short => Kind::FollowsTable,
            Kind::FollowsTable if self.sleeps >= FEWEST => Kind::AtItsEnd,
            _ => Kind::Unknown,
        };
        self.sleeps += 1;
        true
    }

    /// Whether it makes no more calls in this wait.
    pub(super) fn is_at_its_end(&self) -> bool {
        self.kind == Kind::AtItsEnd
    }

    /// Whether its first sleep of this wait is the last one that was asked for.
    pub(super) fn has_slept_once(&self) -> bool {
        self.sleeps == 1
    }

    /// The wait has ended; the handler may be called in another.
    pub(super) fn wait_ended(&mut self) {
        if self.is_at_its_end() {
            self.kind = Kind::Unknown;
        }
    }

    /// Another wait begins, or may begin.
    pub(super) fn reset(&mut self) {
        (self.sleeps, self.unslept) = (0, Duration::ZERO);
    }
}

//! SQLite's default busy handler, recognised by its sleeps.
//!
//! `sqliteDefaultBusyCallback` sleeps by a fixed table and cuts its last sleep to the rest of the timeout
//! (<https://www.sqlite.org/c3ref/busy_timeout.html>). So a refusal after a shortened sleep is the last.
//!
//! An application's own handler may call sqlite3_sleep, which calls the same xSleep if this VFS is the default one. Its
//! sleeps have any length, and none of them is known to be the last. So a handler counts as the default one only if it has
//! followed the table from the first entry on.

use std::time::Duration;

/// The sleeps of the default handler in ms; the last is repeated. Every SQLite that this VFS works with has this table.
pub(super) const DEFAULT_SLEEPS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// A handler that has made this many sleeps of the table, from the first on, follows the table. A
/// handler that doubles its sleeps leaves the table with its third.
pub(super) const FEWEST: usize = 3;

/// The total of the default handler's first `sleeps`.
fn sum(sleeps: usize) -> Duration {
    (0..sleeps).map(default_sleep).sum()
}

/// The nth sleep of the default handler, from 0.
fn default_sleep(n: usize) -> Duration {
    Duration::from_millis(DEFAULT_SLEEPS[n.min(DEFAULT_SLEEPS.len() - 1)])
}

/// The busy handler of a connection.
#[derive(Clone, Copy, Default)]
pub(super) struct BusyHandler {
    /// How many calls it has had in this wait, judging by its sleeps.
    pub(super) sleeps: usize,
    pub(super) kind: HandlerKind,
    /// What it asked for in this wait but was not slept.
    pub(super) unslept: Duration,
    /// The busy timeout, if the application has set it by a pragma, or an earlier wait has shown it.
    timeout: Option<Duration>,
}

/// Which handler it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HandlerKind {
    /// Not the default one, or some of its calls were not seen.
    #[default]
    Unknown,
    /// Each of its sleeps was seen, and was the table's.
    FollowsTable,
    /// It followed the table, and its last sleep was shorter. It makes no more, unless it is an application's own handler
    /// that begins like the default one.
    MayBeAtItsEnd,
    /// It followed the table, and its last sleep was cut short: it makes no more.
    AtItsEnd,
}

impl BusyHandler {
    /// A handler that has not been called.
    pub(super) const NONE: Self =
        Self { sleeps: 0, kind: HandlerKind::Unknown, unslept: Duration::ZERO, timeout: None };

    /// Notes that a sleep was `asked` for, while the connection `waits` or after it released the lock at once. In both
    /// cases the handler `goes_on`, unless the connection had not waited for that lock. Returns false if no busy handler
    /// would ask for this sleep.
    pub(super) fn note_sleep(&mut self, asked: Duration, waits: bool, goes_on: bool) -> bool {
        if asked == default_sleep(0) {
            // It starts over, for another statement.
            if waits {
                self.learn_timeout();
            }
            let timeout = self.timeout;
            *self = Self { kind: HandlerKind::FollowsTable, timeout, ..Self::default() };
        } else if waits && asked > default_sleep(self.sleeps) {
            // Some calls were not seen, because it also waits for a file of another VFS. Or this is not the default
            // handler, or no handler.
            if self.kind == HandlerKind::FollowsTable {
                self.kind = HandlerKind::Unknown;
            }
            let mut later = self.sleeps..DEFAULT_SLEEPS.len();
            let Some(nth) = later.find(|n| asked == default_sleep(*n)) else { return false };
            self.sleeps = nth;
        } else if !waits {
            let is_last = goes_on && self.kind == HandlerKind::FollowsTable;
            let next = default_sleep(self.sleeps);
            if asked > next || asked < next && !is_last {
                return false;
            }
        }
        let is_cut_short = asked < default_sleep(self.sleeps);
        self.kind = match self.kind {
            HandlerKind::FollowsTable if !is_cut_short => HandlerKind::FollowsTable,
            // As long as the one before: this may be the longest sleep of an application's own handler.
            HandlerKind::FollowsTable if asked == default_sleep(self.sleeps - 1) => {
                HandlerKind::MayBeAtItsEnd
            }
            HandlerKind::FollowsTable if self.sleeps >= FEWEST => HandlerKind::AtItsEnd,
            HandlerKind::FollowsTable => HandlerKind::MayBeAtItsEnd,
            _ => HandlerKind::Unknown,
        };
        self.sleeps += 1;
        if self.timeout.is_some_and(|timeout| timeout < sum(self.sleeps)) && !is_cut_short {
            self.timeout = None;
        }
        true
    }

    /// Continues from `before`, where the handler was when the wait for another lock ended, if `asked` can follow it.
    /// SQLite counts the handler's calls through a whole statement, which may write to several databases.
    pub(super) fn go_on_from(&mut self, before: Self, asked: Duration) {
        let is_next = asked != default_sleep(0) && asked <= default_sleep(before.sleeps);
        if self.sleeps == 0 && before.sleeps > 0 && is_next {
            let timeout = self.timeout.or(before.timeout);
            *self = Self { timeout, ..before };
        }
    }

    /// The application has set the busy timeout.
    pub(super) fn note_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// The connection gave up, which no call showed: so the busy timeout ends with a sleep of the table.
    pub(super) fn learn_timeout(&mut self) {
        if self.kind == HandlerKind::FollowsTable && self.sleeps >= FEWEST {
            self.timeout = Some(sum(self.sleeps));
        }
    }

    /// Whether it may make no more calls in this wait, as far as is known.
    pub(super) fn may_sleep_no_more(&self) -> bool {
        match self.kind {
            HandlerKind::MayBeAtItsEnd | HandlerKind::AtItsEnd => true,
            HandlerKind::FollowsTable => self.timeout == Some(sum(self.sleeps)),
            HandlerKind::Unknown => false,
        }
    }

    /// Whether it has followed the table, and makes more calls in this wait, as far as is known.
    pub(super) fn is_default_and_goes_on(&self) -> bool {
        self.kind == HandlerKind::FollowsTable && !self.may_sleep_no_more()
    }

    /// Whether it makes no more calls in this wait.
    pub(super) fn is_at_its_end(&self) -> bool {
        self.kind == HandlerKind::AtItsEnd
    }

    /// Whether it has slept exactly once in this wait.
    pub(super) fn has_slept_once(&self) -> bool {
        self.sleeps == 1
    }

    /// The wait has ended; the handler may be called in another.
    pub(super) fn wait_ended(&mut self) {
        if self.is_at_its_end() {
            self.kind = HandlerKind::Unknown;
        }
    }

    /// Another wait begins, or may begin.
    pub(super) fn reset(&mut self) {
        (self.sleeps, self.unslept) = (0, Duration::ZERO);
    }
}

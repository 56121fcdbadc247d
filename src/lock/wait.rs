//! A connection's wait for the write lock.
//!
//! A lock call never waits: it says BUSY, SQLite drops what it held and asks its busy handler
//! (<https://www.sqlite.org/c3ref/busy_handler.html>), whose default calls xSleep and then tries
//! again. xSleep is where the connection waits, on the queue, and from where it returns as soon as
//! it is worth trying. The handler counts what it asked for and not what passed, so the rest is
//! added to the next sleep, and the busy timeout stays what it says.
//!
//! xSleep is not told for which connection, but it is for the one whose lock was the last to be
//! refused on this thread. Or the lock was granted for a snapshot that was already stale: then SQLite
//! gave it back at once, without a commit (SQLITE_BUSY_SNAPSHOT).
//!
//! With group commit those who have company do not sync under the write lock, so that it is free again
//! within microseconds, mostly sooner than a place in the queue is taken. So a waiter first lets others run for
//! a moment.
//!
//! Where SQLite's own lock is in its way, nobody can wake it: it looks every millisecond.
//!
//! That it gives up, SQLite tells nobody. But the default handler sleeps by a fixed table and cuts
//! its last sleep to what is left of the timeout, so a refusal after a shortened sleep is the last.
//! A handler of the application's own may call sqlite3_sleep, which comes here, too, where this VFS is
//! the default one. Its sleeps are as long as it likes, and none of them is known to be the last. So
//! only a handler that has followed the table from its first entry on is taken for the default one.
//! Other waits (no busy handler, one of the application's own, a timeout below [`FEWEST`] entries or one
//! that ends exactly with an entry of the table) are seen to have ended when the connection is used again
//! later, or closed.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::database::Database;
use super::queue::{Place, Purpose, Queue, Until};
use super::sidecar::Sidecar;
use crate::sys;
use crate::sys::fork::Own;

/// The sleeps of `sqliteDefaultBusyCallback` in ms; the last is repeated. The same in every
/// SQLite this VFS works with.
const DEFAULT_SLEEPS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// The nth sleep, from 0.
fn default_sleep(n: usize) -> Duration {
    Duration::from_millis(DEFAULT_SLEEPS[n.min(DEFAULT_SLEEPS.len() - 1)])
}

/// A handler that has made so many sleeps of the table, from the first on, follows it. One that doubles
/// its sleeps leaves the table with its third.
const FEWEST: usize = 3;

/// Attempts further apart than this, without a sleep between them, are not of one wait, in ns.
const APART_NS: u64 = 1_000_000_000;

/// With more than this asked for and not slept, a waiter is not woken for a chance: each return
/// costs one of the busy handler's calls, and they are numbered.
const MOST_AHEAD: Duration = Duration::from_millis(100);

/// How long a waiter lets others run before it queues, where holders do not sync.
const YIELDS: Duration = Duration::from_micros(200);

/// How often a waiter looks whether SQLite's own lock is free; the first times sooner.
const LOOKS: [Duration; 4] = [
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(400),
    Duration::from_micros(1000),
];

/// Whether the lock of SQLite's that was refused could be had. Waits for nothing.
pub(crate) type Probe = Box<dyn FnMut() -> bool + Send>;

/// What a connection that was refused waits for.
pub(crate) enum Cause {
    /// The write lock, in the queue.
    WriteLock,
    /// SQLite's own lock. `as_it_is` if the probe is for a connection that has not unlocked since.
    Sqlites { probe: Option<Probe>, as_it_is: bool },
}

thread_local! {
    /// The connection that was the last to be refused on this thread.
    static LAST: Cell<Option<Own<Weak<Shared>>>> = const { Cell::new(None) };
    static SLEEPER: Sleeper =
        const { Sleeper { is_last: Cell::new(false), kept: Cell::new(std::ptr::null()) } };
}

/// What each transaction asks about [`LAST`] and changes, so that it must cost next to nothing.
struct Sleeper {
    /// Whether this thread will sleep for it, if it is to sleep.
    is_last: Cell<bool>,
    /// Its address, which is no other's as long as it is kept.
    kept: Cell<*const Shared>,
}

/// A number that no other thread has.
fn this_thread() -> usize {
    SLEEPER.with(|sleeper| std::ptr::from_ref(sleeper).addr())
}

/// From here on, this thread sleeps for none of our connections.
fn forget_last() {
    SLEEPER.with(|sleeper| sleeper.is_last.set(false));
}

/// The connection that this thread sleeps for, in the process that opened it.
fn last() -> Option<Arc<Shared>> {
    if !SLEEPER.with(|sleeper| sleeper.is_last.get()) {
        return None;
    }
    // There is none any more while the thread ends.
    let last = LAST.try_with(|cell| {
        let last = cell.take();
        let shared = last.as_ref().and_then(Own::get).and_then(Weak::upgrade);
        cell.set(last);
        shared
    });
    last.ok().flatten()
}

/// The waits of one connection.
pub(crate) struct Wait {
    shared: Arc<Shared>,
    /// The thread that used it last.
    thread: usize,
    /// Whether there is a probe.
    is_armed: bool,
    /// Whether it is for the connection as it is.
    as_it_is: bool,
}

/// What a connection and the thread that sleeps for it know of its waits.
struct Shared {
    /// Whether there is nothing to end or to forget when the lock was taken.
    is_quiet: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Mutex rule: held to look and to change, not while it sleeps. A connection is used by one thread
/// at a time, but another may believe that it was refused last.
struct Waiting {
    database: Arc<Database>,
    /// Whether holders do not sync, as far as it knows.
    is_brief: bool,
    /// The thread that used it last.
    thread: usize,
    /// Whether it was refused the write lock, or by SQLite's own lock after it, and now waits.
    is_refused: bool,
    /// Whether the queue is where to wait.
    can_queue: bool,
    /// Looks whether there is no need to wait any more, if that can be looked for.
    probe: Option<Probe>,
    /// When it was first refused, in ns of CLOCK_MONOTONIC; its place in the queue is by that.
    since: u64,
    /// The same, but after the lock was granted for a stale snapshot.
    resumed: u64,
    /// When it was last refused, in ns.
    refused: u64,
    /// Whether it has slept since.
    has_slept: bool,
    /// Whether it has tried for a lock since it slept, and was refused.
    has_tried: bool,
    /// The busy handler's calls so far.
    sleeps: usize,
    /// Whether each of them was seen, and was the table's.
    follows_table: bool,
    /// Whether the last of them was cut short: the handler makes no more.
    was_last: bool,
    /// Whether a busy handler has slept after the last refusal, or the one before.
    has_handler: bool,
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
    if asked.is_zero() || asked.subsec_micros() % 1000 != 0 {
        // Not the busy handler, which counts in ms, but a short retry of SQLite's.
        return sleep(asked);
    }
    let Some(shared) = last() else { return sleep(asked) };
    let waiting = || shared.waiting.lock();
    let nap = waiting().asked_to_sleep(asked);
    shared.is_quiet.store(false, Ordering::Relaxed);
    let Some(nap) = nap else {
        forget_last();
        return sleep(asked);
    };
    let (place, ahead) = nap.take(sleep, || waiting().is_worth_trying());
    let mut waiting = waiting();
    if waiting.is_refused && waiting.thread == this_thread() {
        waiting.ahead = ahead;
        waiting.place = place;
    }
}

/// A sleep of a connection's.
struct Nap {
    limit: Duration,
    /// Where to wait; `None` for anywhere.
    database: Option<Arc<Database>>,
    since: u64,
    place: Option<Own<Queued>>,
    /// Whether it is the first of its wait, and the lock is likely to be free in a moment.
    yields: bool,
    /// Whether there is no other after it: what is not slept is lost.
    is_last: bool,
    /// Whether there is a probe.
    can_look: bool,
}

impl Waiting {
    /// The sleep it is asked for, if it is for this connection.
    fn asked_to_sleep(&mut self, asked: Duration) -> Option<Nap> {
        if self.thread != this_thread() {
            return None;
        }
        if self.is_refused && !self.has_tried {
            // A busy handler sleeps once, and SQLite tries. The statement has ended, and the application
            // sleeps: for as long as it said.
            self.place = None;
            return None;
        }
        if asked == default_sleep(0) {
            // The handler begins anew: SQLite waits for another lock of the same connection.
            self.sleeps = 0;
            self.ahead = Duration::ZERO;
            self.follows_table = true;
        } else if self.is_refused && asked > default_sleep(self.sleeps) {
            // Calls were not seen if it waits for another VFS's file, too. Else it is not the default
            // handler, or no handler.
            self.follows_table = false;
            let mut later = self.sleeps..DEFAULT_SLEEPS.len();
            self.sleeps = later.find(|n| asked == default_sleep(*n))?;
        }
        if !self.is_refused {
            if asked != default_sleep(self.sleeps) {
                return None;
            }
            self.resume();
        }
        let is_short = asked < default_sleep(self.sleeps);
        self.was_last = is_short && self.follows_table && self.sleeps >= FEWEST;
        self.follows_table &= !is_short;
        self.sleeps += 1;
        self.has_slept = true;
        self.has_tried = false;
        self.has_handler = true;
        Some(Nap {
            limit: asked + std::mem::take(&mut self.ahead),
            database: self.can_queue.then(|| Arc::clone(&self.database)),
            since: self.since,
            place: self.place.take(),
            yields: self.is_brief && self.sleeps == 1 && !self.was_last,
            is_last: self.was_last,
            can_look: self.probe.is_some(),
        })
    }

    /// The lock was granted for a stale snapshot. It does not lose its place by that.
    fn resume(&mut self) {
        let now = sys::monotonic_ns();
        if self.since == 0 {
            self.since = now;
        }
        (self.resumed, self.refused) = (now, now);
        (self.is_refused, self.can_queue) = (true, true);
    }

    /// Whether SQLite's own lock is free, as far as that can be looked for.
    fn is_worth_trying(&mut self) -> bool {
        let is_mine = self.thread == this_thread();
        self.probe.as_mut().filter(|_| is_mine).is_some_and(|probe| probe())
    }

    /// It has the lock, or does not want it any more.
    fn stop(&mut self) {
        self.is_refused = false;
        self.was_last = false;
        self.place = None;
    }

    fn end(&mut self) -> Option<Waited> {
        if !self.is_refused {
            return None;
        }
        self.stop();
        Some(Waited(Duration::from_nanos(self.refused.saturating_sub(self.since))))
    }

    fn end_if_stale(&mut self, now: u64) -> Option<Waited> {
        let is_stale = !self.has_slept && now.saturating_sub(self.refused) > APART_NS;
        if is_stale { self.end() } else { None }
    }
}

impl Nap {
    /// Sleeps. Returns the place in the queue, and what was not slept.
    fn take(
        self,
        sleep: impl Fn(Duration),
        is_worth_trying: impl FnMut() -> bool,
    ) -> (Option<Own<Queued>>, Duration) {
        let Some(queue) = self.database.as_ref().and_then(|database| database.queue()) else {
            // Nobody must wait for it to come.
            drop(self.place);
            let nap = Self { place: None, ..self };
            return (None, nap.look(sleep, is_worth_trying));
        };
        let began = Instant::now();
        let mut yields = self.yields;
        while yields {
            std::thread::yield_now();
            if queue.is_free() {
                return (self.place, self.limit.saturating_sub(began.elapsed()));
            }
            yields = began.elapsed() < YIELDS;
        }
        // If the sidecar was replaced, its place is elsewhere.
        let place = self.place.filter(|queued| Arc::ptr_eq(&queued.queue, &queue));
        let mut place = place.or_else(|| {
            let place = queue.join(self.since, Purpose::Write)?;
            Some(Own::new(Queued { queue: Arc::clone(&queue), place }))
        });
        let until = if self.is_last {
            Until::Turn
        } else if self.limit > MOST_AHEAD {
            Until::Free
        } else {
            Until::Sign
        };
        match place.as_mut().and_then(Own::get_mut) {
            Some(queued) => {
                let left = self.limit.saturating_sub(began.elapsed());
                queue.wait(&mut queued.place, left, until)
            }
            None => {
                // A poller returns more often in vain.
                let least = self.limit.saturating_sub(MOST_AHEAD);
                if until == Until::Free && !least.is_zero() {
                    sleep(least);
                }
                queue.poll(self.limit.saturating_sub(began.elapsed()), until)
            }
        };
        (place, self.limit.saturating_sub(began.elapsed()))
    }

    /// Sleeps until it is worth trying for SQLite's own lock. Returns what was not slept.
    fn look(self, sleep: impl Fn(Duration), mut is_worth_trying: impl FnMut() -> bool) -> Duration {
        let began = Instant::now();
        // What is not slept is bounded, since each return costs a call of the busy handler.
        let least = match self.can_look && !self.is_last {
            true => self.limit.saturating_sub(MOST_AHEAD),
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

/// How long a wait took that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited(pub(crate) Duration);

impl Wait {
    /// Of a connection to `database` that does not wait. `is_brief` if those who have the write lock do not
    /// sync, as far as it knows.
    pub(crate) fn of(database: &Arc<Database>, is_brief: bool) -> Self {
        let waiting = Waiting {
            database: Arc::clone(database),
            is_brief,
            thread: 0,
            is_refused: false,
            can_queue: false,
            probe: None,
            since: 0,
            resumed: 0,
            refused: 0,
            has_slept: false,
            has_tried: false,
            sleeps: 0,
            follows_table: false,
            was_last: false,
            has_handler: false,
            ahead: Duration::ZERO,
            place: None,
        };
        let shared = Shared { is_quiet: AtomicBool::new(true), waiting: Mutex::new(waiting) };
        Self { shared: Arc::new(shared), thread: 0, is_armed: false, as_it_is: false }
    }

    /// The connection was refused the write lock, or by SQLite's own lock after it. Returns the wait
    /// that ended by it, if one did.
    pub(crate) fn refused(&mut self, cause: Cause) -> Option<Waited> {
        let now = sys::monotonic_ns();
        self.is_last();
        self.shared.is_quiet.store(false, Ordering::Relaxed);
        let mut waiting = self.shared.waiting.lock();
        let ended = waiting.end_if_stale(now);
        waiting.has_handler &= waiting.has_slept;
        if !waiting.is_refused {
            waiting.is_refused = true;
            (waiting.since, waiting.resumed) = (now, now);
            (waiting.sleeps, waiting.ahead) = (0, Duration::ZERO);
        }
        (waiting.can_queue, waiting.probe, self.as_it_is) = match cause {
            Cause::WriteLock => (true, None, false),
            Cause::Sqlites { probe, as_it_is } => (false, probe, as_it_is),
        };
        self.is_armed = waiting.probe.is_some();
        waiting.refused = now;
        waiting.has_slept = false;
        waiting.has_tried = true;
        if !waiting.was_last {
            return ended;
        }
        forget_last();
        waiting.end()
    }

    /// The connection was refused a lock that has nothing to do with the write lock: what this
    /// thread sleeps next is not for that.
    pub(crate) fn refused_otherwise(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.can_queue = false;
        waiting.has_tried = true;
        let is_refused = waiting.is_refused;
        drop(waiting);
        if is_refused {
            self.is_last();
        } else {
            forget_last();
        }
    }

    /// The connection has the lock. False if it may have waited: then [`Self::end_if_stale`] and
    /// [`Self::acquired`] are to be called.
    #[inline]
    pub(crate) fn acquired_at_once(&mut self) -> bool {
        forget_last();
        self.is_quiet()
    }

    /// The connection has the lock. Returns how long it waited, if it did.
    pub(crate) fn acquired(&mut self) -> Option<Waited> {
        if self.acquired_at_once() {
            return None;
        }
        let mut waiting = self.shared.waiting.lock();
        if waiting.is_refused {
            waiting.stop();
            let now = sys::monotonic_ns();
            return Some(Waited(Duration::from_nanos(now.saturating_sub(waiting.resumed))));
        }
        (waiting.since, waiting.sleeps) = (0, 0);
        waiting.ahead = Duration::ZERO;
        self.shared.is_quiet.store(true, Ordering::Relaxed);
        None
    }

    /// Whether it does not wait, and there is nothing to end or to forget when it has the lock.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.shared.is_quiet.load(Ordering::Relaxed)
    }

    /// The connection has given back some of SQLite's locks on the database.
    pub(crate) fn unlocked(&mut self) {
        if self.as_it_is {
            self.disarm();
        }
    }

    /// The connection is used: from here on nobody looks for it. To be called before each lock of
    /// SQLite's, and before the file is closed.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        if self.is_armed {
            self.disarm_at_last();
        }
    }

    #[cold]
    fn disarm_at_last(&mut self) {
        self.is_armed = false;
        self.shared.waiting.lock().probe = None;
    }

    /// The connection gave the lock back as soon as it had it. If it sleeps next, its snapshot was
    /// stale.
    #[inline]
    pub(crate) fn gave_back_at_once(&mut self) {
        self.is_last();
    }

    /// The connection has committed: it does not sleep for the lock.
    pub(crate) fn committed(&mut self) {
        forget_last();
    }

    /// The connection does not want the lock any more. Returns the wait that ended without it.
    pub(crate) fn end(&mut self) -> Option<Waited> {
        self.shared.waiting.lock().end()
    }

    /// Ends a wait that the connection has given up without a sign: it was refused a while ago and
    /// has not slept since.
    pub(crate) fn end_if_stale(&mut self) -> Option<Waited> {
        let mut waiting = self.shared.waiting.lock();
        if waiting.is_refused { waiting.end_if_stale(sys::monotonic_ns()) } else { None }
    }

    /// Leaves the queue. Returns when it was first refused, in ns, if it waits.
    pub(crate) fn leave_queue(&mut self) -> Option<u64> {
        let mut waiting = self.shared.waiting.lock();
        waiting.place = None;
        waiting.is_refused.then_some(waiting.since)
    }

    /// Whether somebody may look for the connection.
    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Keeps probes away until the result is dropped.
    pub(crate) fn hold_probe(&self) -> Option<impl Drop + '_> {
        self.is_armed.then(|| self.shared.waiting.lock())
    }

    /// Does it while probes are kept away.
    #[inline(never)]
    pub(crate) fn without_probe<T>(&self, act: impl FnOnce() -> T) -> T {
        let _held = self.hold_probe();
        act()
    }

    /// How long it has waited.
    pub(crate) fn age(&self) -> Duration {
        let waiting = self.shared.waiting.lock();
        let since = waiting.is_refused.then_some(waiting.since);
        Duration::from_nanos(since.map_or(0, |since| sys::monotonic_ns().saturating_sub(since)))
    }

    /// Whether a busy handler sleeps when the connection is refused, as far as that is known.
    pub(crate) fn has_busy_handler(&self) -> bool {
        self.shared.waiting.lock().has_handler
    }

    /// The connection's place in the queue.
    #[inline]
    pub(crate) fn place(&self) -> Option<Place> {
        if self.is_quiet() { None } else { self.place_if_any() }
    }

    #[inline(never)]
    fn place_if_any(&self) -> Option<Place> {
        self.shared.waiting.lock().place.as_ref().map(|queued| queued.place)
    }

    /// From here on, this thread sleeps for this connection.
    #[inline]
    fn is_last(&mut self) {
        let is_known = SLEEPER.with(|sleeper| {
            let is_known = self.thread == std::ptr::from_ref(sleeper).addr()
                && sleeper.kept.get() == Arc::as_ptr(&self.shared);
            if is_known {
                sleeper.is_last.set(true);
            }
            is_known
        });
        if !is_known {
            self.keep();
        }
    }

    /// As [`Self::is_last`]. This thread keeps the connection, unless it ends.
    #[cold]
    fn keep(&mut self) {
        self.thread = this_thread();
        self.shared.waiting.lock().thread = self.thread;
        let last = Own::new(Arc::downgrade(&self.shared));
        let is_kept = LAST.try_with(|cell| cell.set(Some(last))).is_ok();
        let address = if is_kept { Arc::as_ptr(&self.shared) } else { std::ptr::null() };
        SLEEPER.with(|sleeper| {
            sleeper.kept.set(address);
            sleeper.is_last.set(is_kept);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::WriteLock;

    fn wait() -> Wait {
        Wait::of(&Database::at(std::path::Path::new("/no/such/board.db")), false)
    }

    /// A refusal by SQLite's own lock, which stays.
    fn elsewhere() -> Cause {
        Cause::Sqlites { probe: None, as_it_is: true }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The sleeps SQLite's default busy handler asks for, until it gives up.
    fn sleeps(timeout_ms: u64) -> Vec<Duration> {
        let mut slept = 0;
        let table = DEFAULT_SLEEPS.into_iter().chain(std::iter::repeat(100));
        table
            .map_while(|entry| {
                let entry = entry.min(timeout_ms - slept);
                slept += entry;
                (entry > 0).then(|| ms(entry))
            })
            .collect()
    }

    #[test]
    fn the_refusal_after_the_last_sleep_ends_the_wait() {
        for timeout in [10, 50, 100, 1000, 5000, 10_000, 30_000] {
            let mut wait = wait();
            assert_eq!(wait.refused(elsewhere()), None);
            let sleeps = sleeps(timeout);
            for (n, asked) in sleeps.iter().enumerate() {
                sleep(*asked, |slept| assert_eq!(slept, *asked));
                let ended = wait.refused(elsewhere());
                assert_eq!(ended.is_some(), n + 1 == sleeps.len(), "{timeout} ms, sleep {n}");
            }
            assert_eq!(wait.end(), None);
        }
    }

    /// An application's own handler sleeps as long as it likes, and goes on.
    #[test]
    fn a_handler_of_the_applications_own_is_not_at_its_end() {
        let sleeps: [&[u64]; 6] = [
            &[10; 30],
            &[1; 30],
            &[25; 30],
            &[1, 2, 4, 8, 16, 32, 64, 100, 100],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            &[50, 20, 10, 5, 2, 1, 1, 2],
        ];
        for sleeps in sleeps {
            let mut wait = wait();
            assert_eq!(wait.refused(elsewhere()), None);
            for asked in sleeps {
                sleep(ms(*asked), |_| {});
                assert_eq!(wait.refused(elsewhere()), None, "{asked} of {sleeps:?}");
            }
            assert!(wait.end().is_some());
        }
    }

    /// A statement was refused and has ended, or has read in the end, and the application sleeps, again and
    /// again: as long as it said. SQLite's mptester waits so for others, 200 times for 50 ms.
    #[test]
    fn an_application_that_has_not_tried_sleeps_as_long_as_it_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("board.db");
        std::fs::write(&path, b"").expect("there is room");
        let database = Database::at(&path);
        database.make_sidecar();
        let mut wait = Wait::of(&database, false);
        assert_eq!(wait.refused(Cause::WriteLock), None);
        sleep(ms(50), |_| {});
        for _ in 0..10 {
            let slept = Cell::new(Duration::ZERO);
            sleep(ms(50), |asked| slept.set(asked));
            assert_eq!(slept.get(), ms(50));
        }
        assert!(wait.place().is_none(), "nobody waits for it");
    }

    /// A statement waits for SHARED and then, without an end in between that the VFS could see, for
    /// RESERVED: the handler counts from the beginning again, and nobody has given up.
    #[test]
    fn a_handler_that_begins_anew_is_not_at_its_end() {
        let mut wait = wait();
        assert_eq!(wait.refused(elsewhere()), None);
        for asked in [1, 2, 5, 1, 2] {
            sleep(ms(asked), |_| {});
            assert_eq!(wait.refused(elsewhere()), None);
        }
        assert!(wait.acquired().is_some());
    }

    #[test]
    fn a_wait_is_ended_by_the_lock_or_by_giving_up_once() {
        let mut wait = wait();
        assert_eq!(wait.acquired(), None);
        assert_eq!(wait.refused(elsewhere()), None);
        assert!(wait.acquired().is_some());
        assert_eq!(wait.end(), None);
        assert_eq!(wait.refused(elsewhere()), None);
        assert!(wait.end().is_some());
        assert_eq!(wait.end(), None);
    }

    /// The lock is granted for a stale snapshot, and SQLite sleeps again: the wait goes on, as old
    /// as it was, and the handler's calls are numbered on.
    #[test]
    fn a_stale_snapshot_does_not_begin_a_new_wait() {
        let mut wait = wait();
        wait.refused(elsewhere());
        let since = wait.shared.waiting.lock().since;
        for asked in [1, 2, 5] {
            sleep(ms(asked), |_| {});
            wait.refused(elsewhere());
        }
        assert!(wait.acquired().is_some());
        wait.gave_back_at_once();
        sleep(ms(10), |_| {});
        let waiting = wait.shared.waiting.lock();
        assert!(waiting.is_refused && waiting.can_queue && !waiting.was_last);
        assert_eq!((waiting.since, waiting.sleeps), (since, 4));
    }

    /// An application has committed, or rolled back, and sleeps: as long as it likes.
    #[test]
    fn an_application_that_sleeps_is_left_alone() {
        for asked in [0, 1, 2, 5, 10, 100, 1000] {
            for commits in [true, false] {
                let mut wait = wait();
                wait.acquired();
                wait.gave_back_at_once();
                if commits {
                    wait.committed();
                }
                let slept = Cell::new(false);
                sleep(ms(asked), |sleeps| slept.set(sleeps == ms(asked)));
                let looks_like_a_handler = asked == 1 && !commits;
                assert_eq!(
                    wait.shared.waiting.lock().is_refused,
                    looks_like_a_handler,
                    "{asked}, {commits}"
                );
                assert!(slept.get());
            }
        }
    }

    /// SQLite's own lock is held by somebody who wakes nobody: it is looked for every millisecond, by
    /// the thread that was refused, until the connection is used.
    #[test]
    fn sqlites_own_lock_is_looked_for() {
        let looks = Arc::new(Mutex::new(0));
        let mut wait = wait();
        let refused = |wait: &mut Wait, as_it_is, free_after| {
            let seen = Arc::clone(&looks);
            let probe: Probe = Box::new(move || {
                *seen.lock() += 1;
                *seen.lock() >= free_after
            });
            *looks.lock() = 0;
            wait.refused(Cause::Sqlites { probe: Some(probe), as_it_is });
        };
        let longest = Cell::new(Duration::ZERO);
        // It does not sleep, so that a machine that does much else has time for all looks.
        let pause = |asked: Duration| {
            longest.set(longest.get().max(asked));
            std::thread::yield_now();
        };
        {
            let mut wait = self::wait();
            refused(&mut wait, true, 3);
            sleep(ms(100), pause);
            assert_eq!(*looks.lock(), 3, "and then it is tried for");
            assert!(!wait.shared.waiting.lock().ahead.is_zero());
        }
        refused(&mut wait, true, i32::MAX);
        sleep(ms(25), pause);
        assert!(longest.get() <= ms(1) && *looks.lock() > 3);
        assert!(wait.shared.waiting.lock().ahead.is_zero());

        refused(&mut wait, true, 1);
        wait.unlocked();
        sleep(ms(25), pause);
        assert_eq!(*looks.lock(), 0, "it was for another state");
        refused(&mut wait, false, 1);
        wait.unlocked();
        sleep(ms(25), pause);
        assert_eq!(*looks.lock(), 1);
        wait.unlocked();
        wait.disarm();
        sleep(ms(50), pause);
        assert_eq!(*looks.lock(), 1, "it is in use");
    }

    /// A connection that never waited is given the lock for a stale snapshot, and its busy handler sleeps: it
    /// waits from then on, and has waited when it has the lock.
    #[test]
    fn who_never_waited_may_begin_to_by_a_stale_snapshot() {
        let mut wait = wait();
        assert_eq!(wait.acquired(), None);
        wait.gave_back_at_once();
        sleep(ms(1), |_| {});
        assert!(wait.acquired().is_some());
    }

    /// A connection without a busy handler was refused, another one of the thread has the lock, and the
    /// application sleeps: that is for neither.
    #[test]
    fn who_has_the_lock_ends_the_sleeps_of_others() {
        let (mut first, mut second) = (wait(), wait());
        first.refused(Cause::WriteLock);
        assert_eq!(second.acquired(), None);
        sleep(ms(1), |_| {});
        assert_eq!(first.shared.waiting.lock().sleeps, 0);
    }

    /// With group commit, who is refused lets others run for a moment, and takes a place in the queue if the lock
    /// is not free then, or is taken again. Else it queues at once.
    #[test]
    fn who_waits_for_one_who_does_not_sync_queues_a_moment_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("board.db");
        std::fs::write(&path, b"").expect("there is room");
        let database = Database::at(&path);
        database.make_sidecar();
        let queues = |is_brief, is_held: bool, sleeps: u64| {
            let mut wait = Wait::of(&database, is_brief);
            let mut lock = WriteLock::of(&database, 1);
            lock.try_acquire(sys::monotonic_ns(), Purpose::Write, true, None).expect("it is free");
            let lock = is_held.then_some(lock);
            for n in 1..=sleeps {
                wait.refused(Cause::WriteLock);
                sleep(ms(n), |_| {});
            }
            drop(lock);
            wait.place().is_some()
        };
        assert!(!queues(true, false, 1), "it is free");
        assert!(queues(true, false, 2), "that was in vain");
        assert!(queues(true, true, 1));
        assert!(queues(false, false, 1));
    }

    /// A thread sleeps for the connection that was refused last, and for no other.
    #[test]
    fn a_sleep_is_for_whoever_was_refused_last() {
        let (mut first, mut second) = (wait(), wait());
        let sleeps_of = |wait: &Wait| wait.shared.waiting.lock().sleeps;
        first.refused(Cause::WriteLock);
        second.refused(Cause::WriteLock);
        sleep(ms(1), |_| {});
        assert_eq!((sleeps_of(&first), sleeps_of(&second)), (0, 1));
        first.refused_otherwise();
        sleep(ms(1), |_| {});
        assert_eq!((sleeps_of(&first), sleeps_of(&second)), (1, 1));
        assert!(!first.shared.waiting.lock().can_queue);
        first.end();
        first.refused_otherwise();
        sleep(ms(2), |_| {});
        assert_eq!((sleeps_of(&first), sleeps_of(&second)), (1, 1), "for none of them");
        std::thread::scope(|scope| scope.spawn(|| second.refused(Cause::WriteLock)).join())
            .expect("no panic");
        first.refused(Cause::WriteLock);
        sleep(ms(1000), |asked| assert_eq!(asked, ms(1000)));
        assert_eq!(sleeps_of(&first), 0, "no handler sleeps so long");
    }

    /// As if it had been refused for the last time a while ago, after a wait of 5 ms.
    fn a_while_ago(wait: &Wait) {
        let mut waiting = wait.shared.waiting.lock();
        waiting.refused -= 2 * APART_NS;
        waiting.since = waiting.refused - 5_000_000;
    }

    /// A connection without a busy handler gives up and tells nobody. It is used again a while later: its wait
    /// has ended, and is not a part of the next. Who sleeps, or was refused a moment ago, still waits.
    #[test]
    fn who_has_not_slept_for_a_while_has_given_up() {
        let mut wait = wait();
        assert_eq!(wait.end_if_stale(), None);
        wait.refused(elsewhere());
        assert_eq!(wait.end_if_stale(), None, "a moment ago");
        a_while_ago(&wait);
        assert_eq!(wait.end_if_stale(), Some(Waited(ms(5))));
        assert_eq!(wait.end_if_stale(), None, "once");

        wait.refused(elsewhere());
        sleep(ms(1), |_| {});
        a_while_ago(&wait);
        assert_eq!(wait.end_if_stale(), None, "it sleeps");
        assert_eq!(wait.refused(elsewhere()), None, "it goes on");
        a_while_ago(&wait);
        assert_eq!(wait.refused(elsewhere()), Some(Waited(ms(5))), "and another begins");
        let waiting = wait.shared.waiting.lock();
        assert!(waiting.is_refused && waiting.since == waiting.refused && waiting.sleeps == 0);
    }

    #[test]
    fn a_wait_is_as_old_as_its_first_refusal() {
        let mut wait = wait();
        assert_eq!((wait.age(), wait.leave_queue()), (Duration::ZERO, None));
        wait.refused(elsewhere());
        a_while_ago(&wait);
        let since = wait.shared.waiting.lock().since;
        assert!(wait.age() >= ms(2000) && wait.leave_queue() == Some(since));
        wait.end();
        assert_eq!((wait.age(), wait.leave_queue()), (Duration::ZERO, None));
    }

    /// Whether there is a busy handler is seen by its sleeps: as long as one follows each refusal.
    #[test]
    fn a_handler_is_known_by_its_sleeps() {
        let mut wait = wait();
        wait.refused(elsewhere());
        assert!(!wait.has_busy_handler());
        sleep(ms(1), |_| {});
        assert!(wait.has_busy_handler());
        wait.refused(elsewhere());
        assert!(wait.has_busy_handler());
        wait.refused(elsewhere());
        assert!(!wait.has_busy_handler());
    }

    /// The handler's calls are numbered by what it asks for. Some are not seen, where it sleeps for another
    /// VFS's file; and what it never asks for is somebody else's.
    #[test]
    fn what_no_handler_asks_for_is_not_counted() {
        let mut wait = wait();
        let sleeps_of = |wait: &Wait| wait.shared.waiting.lock().sleeps;
        wait.refused(elsewhere());
        for (asked, sleeps) in [
            (Duration::ZERO, 0),
            (Duration::from_micros(500), 0),
            (Duration::from_micros(1500), 0),
            (ms(1), 1),
            (ms(10), 4),
            (ms(17), 4),
            (ms(15), 5),
        ] {
            let slept = Cell::new(false);
            sleep(asked, |slept_for| slept.set(slept_for == asked));
            assert_eq!((sleeps_of(&wait), slept.get()), (sleeps, true), "{asked:?}");
            wait.refused(elsewhere());
        }
    }

    /// It sleeps for a lock of SQLite's, with some left over from sleeps that were cut short: all but the last
    /// 100 ms at once, and then it looks, often at first. In its last sleep it looks for nothing, since
    /// nothing follows.
    #[test]
    fn looks_come_at_the_end_of_a_long_sleep() {
        for (asked, expected) in
            [(ms(100), &[100_000, 100, 200, 400, 1000, 1000][..]), (ms(99), &[199_000])]
        {
            let mut wait = wait();
            let mut looks = 0;
            let probe: Probe = Box::new(move || {
                looks += 1;
                looks == 5
            });
            wait.refused(Cause::Sqlites { probe: Some(probe), as_it_is: true });
            {
                let mut waiting = wait.shared.waiting.lock();
                (waiting.sleeps, waiting.ahead) = (DEFAULT_SLEEPS.len(), ms(100));
                waiting.follows_table = true;
            }
            let slept = Mutex::new(Vec::new());
            sleep(asked, |slept_for| slept.lock().push(slept_for.as_micros()));
            assert_eq!(*slept.lock(), expected);
            let ahead = wait.shared.waiting.lock().ahead;
            assert_eq!(ahead.is_zero(), asked == ms(99), "it lost what it did not sleep");
        }
    }

    /// A connection is used by one thread and then by another: the first does not sleep for it any more.
    #[test]
    fn the_thread_that_used_it_last_sleeps_for_it() {
        let mut wait = wait();
        wait.refused(elsewhere());
        std::thread::scope(|scope| scope.spawn(|| wait.refused(elsewhere())).join())
            .expect("no panic");
        sleep(ms(1), |_| {});
        assert_eq!(wait.shared.waiting.lock().sleeps, 0);
        wait.refused(elsewhere());
        sleep(ms(1), |_| {});
        assert_eq!(wait.shared.waiting.lock().sleeps, 1);
    }
}

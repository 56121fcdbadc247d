//! The write lock of one database, as one of its connections acquires and releases it.

#[cfg(all(test, unix))]
pub(super) mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::database::{Database, Ownership};
use super::page::Ticket;
use super::queue::{Pace, Place, Purpose, Queue, Rank, Released, Taken, Until};
use super::sidecar::{Sidecar, Unusable};
use crate::sys::{self, Stopwatch, fork};

/// How often a waiter looks again whether another connection of its process still tries for the lock.
const LOOKS: usize = 8;

/// Where a connection waits inside a lock call, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) rank: Rank,
    /// Since the connection was first refused.
    pub(crate) waited: Duration,
}

impl Arrival {
    /// The arrival of a wait that goes ahead of all others: newcomers may not overtake it.
    const AHEAD: Self = Self { rank: Rank::First, waited: Duration::from_secs(1) };

    /// The arrival of a connection that comes now, or has a ticket.
    pub(crate) fn with(ticket: Option<Ticket>, waited: Duration) -> Self {
        Self { rank: ticket.map_or(Rank::Last, Rank::Kept), waited }
    }
}

/// Why the write lock was not acquired.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another connection has it, or the turn.
    Busy,
    /// There is no sidecar to lock; this attempt was the first one for a while to try to open it.
    Unusable(Unusable),
    /// There is no sidecar to lock, and it is too early to try to open it again.
    Resting,
    /// The connection was opened before a fork, by the parent.
    Inherited,
}

/// The write lock of one database, for one of its connections. Dropping this releases it.
pub(crate) struct WriteLock {
    database: Arc<Database>,
    /// The connection's number among those of this process, not 0.
    connection: u64,
    held: Option<Held>,
    /// How the connection has used the lock to write.
    pace: Pace,
    /// How the connection uses the lock for upkeep, this time.
    upkeep: Pace,
    /// The generation ([`fork::generation`]) of the process that opened the connection.
    generation: u64,
}

/// What a holder has.
struct Held {
    queue: Arc<Queue<Sidecar>>,
    taken: Taken,
    purpose: Purpose,
}

impl WriteLock {
    /// The lock of `database`, not held, for a connection with that number.
    pub(crate) fn of(database: &Arc<Database>, connection: u64) -> Self {
        Self {
            database: Arc::clone(database),
            connection,
            held: None,
            pace: Pace::default(),
            upkeep: Pace::default(),
            generation: fork::generation(),
        }
    }

    /// Notes the address of the `sqlite3` that uses the connection.
    pub(crate) fn is_for(&self, user: usize) {
        self.database.note_user(self.connection, user);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Acquires it, or says why not. Never waits. `now` is of [`sys::monotonic_ns`]; `place` is the connection's
    /// place in the queue, if it has one. Makes a sidecar only if it may `create` one.
    #[inline(always)]
    pub(crate) fn try_acquire(
        &mut self,
        now: u64,
        purpose: Purpose,
        create: bool,
        place: Option<&Place>,
    ) -> Result<(), Refused> {
        if self.generation != fork::generation() {
            return Err(Refused::Inherited);
        }
        let database = &*self.database;
        if !database.sidecar.claims_try(now) {
            return Err(Refused::Resting);
        }
        let pace = match purpose {
            Purpose::Write => &mut self.pace,
            Purpose::Upkeep => {
                self.upkeep = Pace::default();
                &mut self.upkeep
            }
        };
        let takes = || database.owner.try_take(self.connection, purpose, now);
        // A waiter has come for its turn. Another connection that has the owner flag may only be
        // finding out that the turn is not its own.
        let looks_again = || {
            std::thread::yield_now();
            takes()
        };
        let is_owner = takes() || place.is_some() && (0..LOOKS).any(|_| looks_again());
        if !is_owner {
            return Err(Refused::Busy);
        }
        // Any return but the last drops this, which lets other connections try.
        let owner = Ownership(database);
        let queue = database.checked_queue(now, create).map_err(Refused::Unusable)?;
        let taken = queue.try_acquire(now, purpose, place, pace).map_err(|error| {
            database.sidecar.close();
            let why = Unusable::Lock(error);
            database.sidecar.note_trouble(&why, now);
            Refused::Unusable(why)
        })?;
        let taken = taken.ok_or(Refused::Busy)?;
        std::mem::forget(owner);
        database.counters.acquired.fetch_add(1, Ordering::Relaxed);
        self.held = Some(Held { queue, taken, purpose });
        Ok(())
    }

    /// Acquires it as [`Self::try_acquire`] does, but waits at most `limit`, ahead of all others.
    pub(crate) fn acquire_soon(
        &mut self,
        purpose: Purpose,
        limit: Duration,
    ) -> Result<(), Refused> {
        self.acquire_within(limit, &mut { Arrival::AHEAD }, purpose)
    }

    /// Acquires it as [`Self::try_acquire`] does, but waits at most `limit` in the queue, with the rank of
    /// `arrival`. Leaves the connection's ticket in `arrival`, for another wait.
    pub(crate) fn acquire_within(
        &mut self,
        limit: Duration,
        arrival: &mut Arrival,
        purpose: Purpose,
    ) -> Result<(), Refused> {
        let mut queue = self.database.queue().ok_or(Refused::Busy)?;
        let mut watch = Stopwatch::start();
        let mut join = |queue: &Queue<Sidecar>| {
            let place = queue.join(arrival.rank, arrival.waited, purpose);
            if let (Rank::Last, Some(place)) = (arrival.rank, &place) {
                arrival.rank = Rank::Kept(place.ticket);
            }
            place
        };
        let mut place = join(&queue);
        let mut acquired = Err(Refused::Busy);
        while let (Err(Refused::Busy), Some(left)) = (&acquired, limit.checked_sub(watch.elapsed()))
        {
            let left_over = match &mut place {
                Some(place) => queue.wait(place, left, Until::Sign),
                None => queue.poll(left, Until::Sign),
            };
            let Some(left_over) = left_over else { break };
            watch.note_sleep(left.saturating_sub(left_over));
            acquired = self.try_acquire(sys::monotonic_ns(), purpose, false, place.as_ref());
            let now = self.database.queue().filter(|now| !Arc::ptr_eq(now, &queue));
            if let (Err(Refused::Busy), Some(now)) = (&acquired, now) {
                // The sidecar was replaced.
                place.take().inspect(|place| queue.leave(place));
                place = join(&now);
                queue = now;
            }
        }
        if let Some(place) = place {
            queue.leave(&place);
        }
        acquired
    }

    /// Releases it. Returns for how long it was held, if it was.
    #[inline(always)]
    pub(crate) fn release(&mut self) -> Option<Released> {
        if self.generation != fork::generation() {
            return self.forget();
        }
        let Held { queue, taken, purpose } = self.held.take()?;
        let pace = match purpose {
            Purpose::Write => &mut self.pace,
            Purpose::Upkeep => &mut self.upkeep,
        };
        self.database.release(&queue, taken, Some(pace));
        let released = pace.last_hold();
        if purpose == Purpose::Write {
            self.database.counters.holds.count(released.held);
        }
        Some(released)
    }

    /// Releases it and wakes nobody: SQLite refused its own lock to the holder, and would refuse it
    /// to others. Only a stock client or a split write lock can explain that. So if the sidecar is
    /// no longer in its place, the next attempt opens another.
    pub(crate) fn release_silently(&mut self) {
        if self.generation != fork::generation() {
            self.forget();
        }
        if self.is_held() {
            self.database.close_sidecar_if_replaced();
        }
        if let Some(Held { queue, taken, .. }) = self.held.take() {
            self.database.release(&queue, taken, None);
        }
    }

    /// Releases it for good, if it is held: wakes the next waiter, however the connection has used it.
    pub(crate) fn close(&mut self) {
        self.pace.ends();
        self.upkeep.ends();
        self.release();
    }

    /// Forgets the lock: in a forked child, it is the lock of the parent, which opened the connection.
    #[cold]
    fn forget(&mut self) -> Option<Released> {
        std::mem::forget(self.held.take());
        None
    }

    /// How the connection has used it to write.
    pub(crate) fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // In a forked child the mutex may stay locked for ever, if another thread of the parent had it.
        if self.generation == fork::generation() {
            self.database.forget_user(self.connection);
        }
        self.close();
    }
}

#[cfg(test)]
impl Database {
    /// Makes the sidecar, as the first writer does.
    pub(crate) fn make_sidecar(self: &Arc<Self>) {
        let mut lock = WriteLock::of(self, 1);
        lock.try_acquire(sys::monotonic_ns(), Purpose::Write, true, None).expect("it is free");
    }
}

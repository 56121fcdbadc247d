//! What a connection waits for inside a lock call, with which of SQLite's locks, and for how long at most:
//!
//! | what waits | for what | at most | with which locks |
//! |---|---|---|---|
//! | [`Claim::block`] | the write lock, where SQLite lets lock calls block | as long as SQLite says | none, or a snapshot |
//! | [`Claim::take_to_begin`] | the write lock, before a transaction has a snapshot | as long as the busy handler says, or `kanban_busy_timeout_min` | none |
//! | `Connection::lock_shared` | the commit of a rollback mode, after the busy handler has given up ([`super::Begun::InVain`]) | 200 ms ([`super::COMMIT_LASTS`]) | none |
//! | [`Claim::wait_beside_handler`] | the write lock, in the queue, after a busy handler that slept by itself | as long as the handler slept, 50 ms | none |
//! | [`Claim::wait_far_from_head`] | the head of the queue to come near | as long as the busy handler says | none |
//! | `Connection::wait_at_least` | SHARED, or EXCLUSIVE to commit | `kanban_busy_timeout_min` | none, or what SQLite keeps while it asks again |
//! | [`Claim::wait_out_checkpoint`] | a checkpoint that has the write lock | 100 ms | a snapshot |
//! | [`Claim::wait_out_timeout`] | the write lock | what is left of the busy timeout | a snapshot |
//! | [`Claim::wait_out_stock_writer`] | WRITE, which a stock client has | what is left of the busy timeout | a snapshot, the write lock |
//! | [`Claim::granted_after_wait`] | nothing: its snapshot is stale | what is left of the busy timeout | a snapshot |
//! | `Connection::look_and_judge` | a transaction of its kind that is on trial (`kanban_begin=auto`) | 100 ms, after one call of the busy handler | none |
//! | a refused upgrade to WRITE | another connection's look | 50 us | a snapshot, the write lock |
//! | a checkpoint | the write lock | 4 ms | CKPT |
//! | a checkpoint | WRITE, to repair a failed sync | 1 s | CKPT |
//! | a checkpoint of group commit | its own sync, and readers' marks | the sync, 1 ms | CKPT, the write lock |
//! | a repair of a failed sync | the leader of a sync | 100 ms | WRITE, or the database |

use std::ffi::c_int;
use std::time::Duration;

use super::{CHECKPOINT_LASTS, CHECKPOINT_LASTS_BESIDE_OTHERS, Claim, Patience};
use crate::connection::base_file::BaseFile;
use crate::counters::count;
use crate::ffi::{ResultCode, ShmFlags, ShmSlot};
use crate::lock::kinds::Kind;
use crate::lock::queue::Purpose;
use crate::lock::wait::{Obstacle, Wait, forget_on_this_thread};
use crate::lock::{Arrival, Refused};
use crate::sys::{self, Stopwatch};

/// How often a connection that waits for a checkpoint inside a lock call looks whether a writer has taken the write lock. That
/// writer may wait for locks of this connection.
const LOOKS_FOR_WRITER: Duration = Duration::from_millis(4);

/// How many times to try for the write lock if it is refused although nobody holds it.
const LOOKS: u32 = 3;

impl<B: BaseFile> Claim<B> {
    /// The busy handler has slept, and SQLite tries again. While the connection is far from the head of the queue, this calls
    /// the handler at once, as SQLite would after an attempt in vain. Where hundreds wait, such attempts would take most of the
    /// processors' time. To be called while the connection has no snapshot.
    #[cold]
    pub(in crate::connection) fn wait_far_from_head(&mut self) {
        let is_far = |wait: &Wait| wait.place().is_some_and(|place| place.is_far());
        while self.wait.has_slept()
            && is_far(&self.wait)
            && !self.wait.is_at_its_end()
            && !self.base.is_interrupted()
        {
            let _ = self.wait.refused(Obstacle::WriteLock);
            if self.base.ask_busy_handler() != Some(true) {
                break;
            }
        }
    }

    /// A statement is about to ask for its first lock on the database. Another holder has the write lock, which was refused to
    /// a statement of this kind before. Either SQLite called its busy handler and tries again, or this is another statement:
    /// SQLite does not say. It would be refused now, and SQLite would call the handler. Beside waiters in the queue, which are
    /// woken, this would repeat for long. So this calls the handler in SQLite's place if anybody waits in the queue. If there is
    /// no handler, or it gives up, the statement goes on at once. If the handler slept by itself, the connection waits here for
    /// as long, with a place in the queue.
    ///
    /// A handler may sleep so that other threads of its process run meanwhile: Ruby's gem keeps the interpreter's lock through
    /// a lock call. So a connection never waits here for one of its own process, and never longer than the handler has just
    /// slept.
    #[cold]
    pub(in crate::connection) fn wait_beside_handler(&mut self) {
        if !self.wait.may_have_slept_by_itself() {
            return;
        }
        // Beside a long checkpoint it would go on without the write lock.
        let in_the_way = |(purpose, held)| purpose == Purpose::Write || held < CHECKPOINT_LASTS;
        if self.refused_kind.is_none()
            || self.refused_kind != self.kind_that_writes()
            || self.database.is_held_here()
            || !self.database.queue().is_some_and(|queue| queue.has_waiters())
            || !self.database.held_for().is_some_and(in_the_way)
        {
            return;
        }
        if let Some(waited) = self.wait.refused(Obstacle::WriteLock) {
            // This ends an earlier wait, which the connection gave up without any call that showed it.
            self.gave_up(waited);
        }
        self.tell_wait_of_user(true);
        self.wait.take_ticket();
        let asked = Stopwatch::start();
        if self.base.ask_busy_handler() == Some(true) {
            self.wait.sleep_beside_handler(asked.elapsed());
        }
    }

    /// The kind of the statement that runs, if that may write.
    pub(super) fn kind_that_writes(&self) -> Option<Kind> {
        self.base.running(true).filter(|running| running.may_write)?.kind
    }

    /// Waits inside a lock call as SQLite does after a refused one: by the busy handler. Also returns whether the handler
    /// waited and gave up.
    #[cold]
    pub(super) fn wait_to_begin(&mut self, patience: Patience) -> (Result<(), Refused>, bool) {
        const LOOKS_FOR_INTERRUPT: Duration = Duration::from_millis(50);
        count(&self.database.counters.refused);
        let (mut watch, mut arrival) = (Stopwatch::start(), None);
        self.wait.is_used_by(self.base.user());
        // The transaction has not begun, so it has no write locks.
        self.wait.holds(Vec::new());
        if let Some(waited) = self.wait.refused(Obstacle::WriteLock) {
            // This ends an earlier wait, which the connection gave up without any call that showed it.
            self.gave_up(waited);
        }
        let mut acquired = Err(Refused::Busy);
        let mut least = patience.least;
        let (mut handler_waits, mut handler_gave_up) = (false, false);
        loop {
            let checkpoint_lasts = self.database.held_for().is_some_and(|(purpose, held)| {
                purpose == Purpose::Upkeep && held >= CHECKPOINT_LASTS
            });
            if checkpoint_lasts {
                // Like other writers, it goes on beside the checkpoint without the write lock.
                break;
            }
            let asked = Stopwatch::start();
            let by_handler = self.base.ask_busy_handler();
            handler_waits |= by_handler == Some(true);
            handler_gave_up = handler_waits && by_handler == Some(false);
            acquired = if by_handler == Some(true) {
                if !self.wait.has_slept() {
                    // An application's own handler, which decides by itself.
                    least = Duration::ZERO;
                    self.wait.sleep_beside_handler(asked.elapsed());
                }
                self.try_acquire(sys::monotonic_ns(), Purpose::Write, true)
            } else {
                let limit =
                    if by_handler.is_none() { patience.if_unknown.max(least) } else { least };
                let left = limit.saturating_sub(watch.elapsed()).min(LOOKS_FOR_INTERRUPT);
                if left.is_zero() {
                    break;
                }
                self.acquire_in_queue(left, &mut arrival, &mut watch)
            };
            if !matches!(acquired, Err(Refused::Busy)) || self.base.is_interrupted() {
                break;
            }
            // If this ends the wait, no statement has failed, so that is not reported.
            let _ = self.wait.refused(Obstacle::WriteLock);
        }
        if acquired.is_err() {
            let waited = self.wait.age();
            let now = sys::kernel_ns();
            let since = now.saturating_sub(waited.as_nanos() as u64);
            self.begin_wait = (!waited.is_zero()).then_some((since, now));
            let _ = self.wait.end();
            forget_on_this_thread();
        }
        (acquired, handler_gave_up)
    }

    /// Waits for the write lock in the queue, at most `limit`, and notes that time in `watch`.
    fn acquire_in_queue(
        &mut self,
        limit: Duration,
        arrival: &mut Option<Arrival>,
        watch: &mut Stopwatch,
    ) -> Result<(), Refused> {
        if self.database.queue().is_none() {
            // Another connection is about to make the sidecar.
            watch.sleep(limit.min(Duration::from_millis(1)));
            return self.try_acquire(sys::monotonic_ns(), Purpose::Write, true);
        }
        let (waited, ticket) = (self.wait.age(), self.wait.leave_queue());
        let arrival = arrival.get_or_insert(Arrival::with(ticket, waited));
        let acquired = self.write_lock.acquire_within(limit, arrival, Purpose::Write);
        if acquired.is_err() {
            watch.note_sleep(limit);
        }
        acquired
    }

    /// Waits in the lock call as long as SQLite allows, and leaves the rest of that time to the base file. Goes on without the
    /// write lock beside a long checkpoint.
    ///
    /// # Errors
    /// The time is over, or there can be no write lock.
    pub(super) fn block(&mut self) -> Result<(), Refused> {
        let allowed = Duration::from_millis(u64::from(self.blocks_ms.unsigned_abs()));
        let waited = self.wait.age();
        let limit = allowed.saturating_sub(waited);
        let mut arrival = Arrival::with(self.wait.leave_queue(), waited);
        let mut watch = Stopwatch::start();
        count(&self.database.counters.refused);
        loop {
            let left = limit.saturating_sub(watch.elapsed());
            if left.is_zero() {
                self.wait.end();
                self.events.forget_refusal();
                self.gave_up(waited + watch.elapsed());
                return Err(Refused::Busy);
            }
            let held = match self.database.held_for() {
                Some((Purpose::Upkeep, held)) => held,
                _ => Duration::ZERO,
            };
            // Each wait ends before a checkpoint takes long, to look also whether another connection may have left WAL mode.
            let chunk = left.min(CHECKPOINT_LASTS.saturating_sub(held));
            if chunk.is_zero() || self.base.is_reserved() {
                break;
            }
            match self.write_lock.acquire_within(chunk, &mut arrival, Purpose::Write) {
                Ok(()) => {
                    self.waited(watch.elapsed());
                    self.events.wait_ended(watch.elapsed());
                    break;
                }
                Err(Refused::Busy) if self.database.queue().is_none() => {
                    // Another connection is about to make the sidecar.
                    watch.sleep(Duration::from_millis(1));
                    let now = sys::monotonic_ns();
                    match self.write_lock.try_acquire(now, Purpose::Write, true, None) {
                        Ok(()) => break,
                        Err(Refused::Busy) => {}
                        Err(why) => return Err(why),
                    }
                }
                Err(Refused::Busy) => watch.note_sleep(chunk),
                Err(why) => return Err(why),
            }
        }
        let left = limit.saturating_sub(watch.elapsed()).as_millis().max(1);
        self.base.may_block(c_int::try_from(left).unwrap_or(c_int::MAX));
        Ok(())
    }

    /// If a checkpoint holds the write lock, waits inside the lock call for its end: a checkpoint makes no snapshot stale. If
    /// it takes long, the connection goes on beside it, with SQLite's own lock alone, as on the stock VFS. Returns whether to
    /// go on.
    ///
    /// Until then, connections with a busy handler sleep in the handler instead, without their snapshot, which would keep the
    /// next writer from restarting the WAL. For an upgrade SQLite does not call the handler, so an upgrade waits here.
    ///
    /// A connection that may yet wait for another database is to keep the order for longer. But it must not fail where the
    /// stock VFS would not. So it keeps the order only as long as SQLite's default busy handler is known to sleep
    /// again: an application's own handler may give up at any time.
    pub(super) fn wait_out_checkpoint(&mut self) -> bool {
        let sleeps = self.wait.has_busy_handler() && !self.base.is_upgrade();
        let place = self.wait.place();
        if place.is_some_and(|place| place.is_far()) {
            return false;
        }
        let waits_here = !sleeps && (place.is_none() || self.wait.is_at_its_end());
        let mut watch = Stopwatch::start();
        let mut in_vain = 0;
        while in_vain < LOOKS {
            let left = CHECKPOINT_LASTS.saturating_sub(watch.elapsed());
            let acquired = match self.database.held_for() {
                Some((Purpose::Upkeep, held)) => {
                    if left.is_zero() || held >= CHECKPOINT_LASTS {
                        return waits_here
                            || held >= CHECKPOINT_LASTS_BESIDE_OTHERS
                            || !self.asks_busy_handler()
                            || !self.wait.has_default_handler()
                            || !self.database.has_others_beside(self.base.user());
                    }
                    if !waits_here {
                        return false;
                    }
                    let limit =
                        left.min(CHECKPOINT_LASTS.saturating_sub(held)).min(LOOKS_FOR_WRITER);
                    // Else the connection would overtake its own place.
                    self.wait.leave_queue();
                    let acquired = self.write_lock.acquire_soon(Purpose::Write, limit);
                    if acquired.is_err() {
                        watch.note_sleep(limit);
                    }
                    acquired
                }
                None if waits_here => {
                    in_vain += 1;
                    let now = sys::monotonic_ns();
                    self.write_lock.try_acquire(now, Purpose::Write, false, None)
                }
                _ => return false,
            };
            if acquired.is_ok() {
                return true;
            }
        }
        false
    }

    /// SQLite's busy handler sleeps no more, and its last sleep was cut short for a turn. This waits inside the lock call for
    /// the rest of the busy timeout, so that SQLITE_BUSY does not come before that is over. Returns whether the connection has
    /// the write lock and nobody has committed since it took its snapshot: otherwise the snapshot is stale.
    pub(super) fn wait_out_timeout(&mut self) -> bool {
        let rest = self.take_rest();
        if rest.is_zero() {
            return false;
        }
        let mut watch = Stopwatch::start();
        // `snapshot` is not known in a transaction that had read before it was refused.
        let snapshot = self.snapshot.or_else(|| self.base.committed());
        if self.base.committed() == snapshot {
            let mut arrival = Arrival::with(self.wait.leave_queue(), self.wait.age());
            if self.write_lock.acquire_within(rest, &mut arrival, Purpose::Write).is_ok() {
                if self.base.committed() == snapshot {
                    self.wait.leave_rest(rest.saturating_sub(watch.elapsed()));
                    return true;
                }
                self.write_lock.release();
            }
        }
        // Without a place, nobody waits for this connection to come for a turn.
        self.wait.leave_queue();
        watch.sleep(rest.saturating_sub(watch.elapsed()));
        false
    }

    /// What is left of the busy timeout, if its handler sleeps no more.
    pub(super) fn take_rest(&mut self) -> Duration {
        self.wait.is_used_by(self.base.user());
        self.wait.take_rest()
    }

    /// As [`Self::wait_out_timeout`], where a stock client has WRITE: nobody wakes a waiter, so this looks every millisecond.
    /// Returns the last answer for WRITE and, if the snapshot has become stale, the time left to sleep, without the write lock.
    pub(super) fn wait_out_stock_writer(&mut self) -> (ResultCode, Duration) {
        let (rest, mut watch) = (self.take_rest(), Stopwatch::start());
        loop {
            let left = rest.saturating_sub(watch.elapsed());
            if left.is_zero() || self.is_snapshot_stale() {
                return (ResultCode::BUSY, left);
            }
            watch.sleep(left.min(Duration::from_millis(1)));
            let rc = self.base.shm_lock(ShmSlot::WRITE.into(), ShmFlags::LOCK_EXCLUSIVE);
            if rc != ResultCode::BUSY {
                self.wait.leave_rest(rest.saturating_sub(watch.elapsed()));
                return (rc, Duration::ZERO);
            }
        }
    }
}

//! The queue of waiters: which connection may try for the write lock, and when.
//!
//! A connection that was refused sleeps here, with a place on the page ([`super::page`]). A holder
//! that releases the lock looks at the page only if somebody waits. It learns that from the kernel:
//! a process with waiters has a shared lock on [`WAITERS_BYTE`], and a holder first tries to lock
//! that byte together with its own. So without waiters the queue costs at most one system call in 2
//! ms ([`Queue::is_any_slot_locked`]).
//!
//! A waiter hears of a free lock in one of three ways:
//!
//! 1. It announced itself (by the waiters' byte or, to a holder of its own process, by the count of its slots), and the
//!    holder wakes it on release.
//! 2. It could not announce itself, because the holder took that byte. So a holder that has left
//!    waiters no time for 2 ms looks for locked slots when it releases the lock
//!    ([`Pace::take_look`]).
//! 3. It finds the lock free itself: when its sleep times out or, at the head, also before it sleeps. A waiter in its
//!    last sleep ([`Until::Turn`]) does not look.
//!
//! Turns are given only in 1 and 2.
//!
//! Waiters are served in the order of their tickets, which a counter on the page gives. Clients may
//! have different clocks (time namespaces, libfaketime). So a time that another process wrote does
//! not decide who is first, and cannot keep a client out: [`is_due`] and [`Turn::binds`] accept any
//! time.
//!
//! The order of service is a compromise. Strict order would cost a context switch for every
//! transaction. So a holder may go on, and newcomers may overtake, until the head of the queue has
//! waited [`OVERTAKING_NS`] and the holder has had its slice ([`pace`]). Then the holder gives the
//! head its turn: until the head has come, or the turn has expired, all later clients are refused.
//!
//! Lock order: the mutex of the slots is taken last, and held for system calls that do not wait.

mod pace;
mod slots;
mod waiting;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

pub(crate) use super::holder::Purpose;
use super::holder::{Holder, PID_BITS, WAITERS_BYTE, WRITE_RANGE};
use super::page::{
    Page, Since, SlotState, TURN_NS, Turn, Waiter, encode_extent, encode_label, encode_state,
    slot_offset,
};
use crate::recorder::event::Process;
use crate::sys::{Range, ThreadUsage};

pub(crate) use pace::{Pace, Released};
use slots::Slots;
pub(crate) use slots::slot_range;
pub(crate) use waiting::{Place, Rank, Until};

/// The byte that processes with waiters lock shared.
const WAITERS: Range = Range { start: WAITERS_BYTE, len: 1 };
/// The range to unlock after [`Taken::Uncontended`]: the waiters' byte, and every holder's range.
const UNCONTENDED: Range = Range { start: WAITERS_BYTE, len: 0 };

/// How long newcomers may overtake the head of the queue, in ns.
const OVERTAKING_NS: u64 = 2_000_000;
const OVERTAKING: Duration = Duration::from_nanos(OVERTAKING_NS);
/// After how long the head looks again whether the lock is free, in case the holder died and wakes
/// nobody.
const HEAD_LOOKS_EVERY: Duration = Duration::from_millis(1);

/// What the queue needs of a sidecar: bytes, the kernel's locks on them, and futexes.
///
/// The queue calls [`Self::wait`] and [`Self::sleep`] without the mutex of its slots. It may call
/// all others with that mutex, so they must neither wait nor call the queue.
pub(crate) trait QueueFile {
    /// A copy of the page.
    ///
    /// # Errors
    /// It cannot be read, for example because it was cut short.
    fn read(&self) -> io::Result<Page>;
    /// Restores the length of a file that was cut short, if that is possible.
    fn lengthen(&self);
    /// Writes bytes at an offset of the page.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Takes an exclusive or shared lock. False if another open file has a conflicting one.
    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool>;
    fn unlock(&self, range: Range) -> io::Result<()>;
    /// The range of another open file's lock on any byte of `range`.
    fn conflicting(&self, range: Range) -> io::Result<Option<Range>>;
    /// Sleeps at most `limit` while the slot's futex word is `word`. Returns false when the time is over, and
    /// true if it was woken or need not sleep. Called without any mutex.
    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool;
    /// Wakes the waiter that sleeps on the slot's futex word.
    fn wake(&self, slot: usize);
    /// Sleeps. Called without any mutex.
    fn sleep(&self, duration: Duration);
    /// The time in ns for this process's [`Pace`]: cheap, and perhaps wrong.
    /// [`crate::sys::monotonic_ns`]
    fn now(&self) -> u64;
    /// The time in ns by which this process measures its waits. [`crate::sys::kernel_ns`]
    fn kernel_now(&self) -> u64;
    /// The time in ns that the page's times are compared with. [`crate::sys::shared_ns`]
    fn shared_now(&self) -> u64;
    /// What the calling thread has done so far, if the system tells. [`crate::sys::thread_usage`]
    fn thread_usage(&self) -> Option<ThreadUsage> {
        None
    }
    /// This process's id and the name of its program, as waiters show them.
    fn process(&self) -> (u32, [u8; 12]);
    /// The process of a holder, if it is one that this process can see. Only for the event log.
    fn process_of(&self, _: Holder) -> Option<Process> {
        None
    }
    /// Whether the process that [`Self::process_of`] found for a holder has ended.
    fn has_ended(&self, _: Holder) -> bool {
        false
    }
}

/// This process's part of the queue of one sidecar.
pub(crate) struct Queue<S> {
    sidecar: S,
    /// Mutex rule: held to change this process's locks on the waiters' byte and on slots, since the
    /// kernel does not tell the connections of one process apart.
    slots: Mutex<Slots>,
    /// Whether a connection of this process has the write lock. The kernel does not tell, since a
    /// process's own locks never conflict.
    held_here: AtomicBool,
    /// Whether somebody waited when the lock was last taken. Then an attempt to take the lock together with the waiters'
    /// byte would most likely fail, and is not made.
    is_contended: AtomicBool,
    /// The label of a holder of this process that the page shows; 0 for none.
    label_shown: AtomicU64,
    /// When the holder, of this process, first tried for the lock, in ns of [`QueueFile::now`]; earlier by the time in which
    /// its thread was displaced before that.
    holder_came: AtomicU64,
    /// Since when the holder shows a label, in the same ns: it waits for another database.
    labelled_since: AtomicU64,
    /// For how long it has waited for other databases, in ns.
    waited_elsewhere: AtomicU64,
    /// The last byte of the range of the holder that [`Self::held_for`] has seen last.
    seen: AtomicI64,
    /// When [`Self::held_for`] saw that holder first, in ns of [`QueueFile::kernel_now`].
    seen_since: AtomicU64,
    /// The holder for which a waiter of this process has waited for a while, with its process.
    watched: Mutex<Option<(Holder, Process)>>,
    /// A holder that has ended while it had the lock.
    died: Mutex<Option<Process>>,
}

/// How the write lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Together with the waiters' byte: nobody waited.
    Uncontended,
    /// Without that byte: somebody waits, or did a moment ago.
    Contended,
}

impl<S: QueueFile> Queue<S> {
    pub(crate) fn new(sidecar: S) -> Self {
        Self {
            sidecar,
            slots: Mutex::new(Slots::default()),
            held_here: AtomicBool::new(false),
            is_contended: AtomicBool::new(false),
            label_shown: AtomicU64::new(0),
            holder_came: AtomicU64::new(0),
            labelled_since: AtomicU64::new(0),
            waited_elsewhere: AtomicU64::new(0),
            seen: AtomicI64::new(0),
            seen_since: AtomicU64::new(0),
            watched: Mutex::new(None),
            died: Mutex::new(None),
        }
    }

    pub(crate) fn sidecar(&self) -> &S {
        &self.sidecar
    }

    /// Tries for the write lock, for the waiter in `place` or, without one, for a newcomer. `now` is of
    /// [`QueueFile::now`] and serves the `pace`. Never waits. `None` if another has the lock, or another's turn has come.
    ///
    /// # Errors
    /// Those of the kernel's lock.
    #[inline(always)]
    pub(crate) fn try_acquire(
        &self,
        now: u64,
        purpose: Purpose,
        place: Option<&Place>,
        pace: &mut Pace,
    ) -> io::Result<Option<Taken>> {
        let came = place.map(|place| place.came);
        pace.begin_attempt(now, came, || self.sidecar.thread_usage());
        if place.is_some_and(Place::is_far) {
            return Ok(None);
        }
        let taken = match self.try_uncontended(now, purpose)? {
            true => Some(Taken::Uncontended),
            false => self.try_contended(now, purpose, place, pace)?,
        };
        if taken.is_some() {
            self.holder_came.store(pace.begin_hold(now, came), Ordering::Relaxed);
            self.held_here.store(true, Ordering::Release);
        }
        Ok(taken)
    }

    /// Takes the lock together with the waiters' byte, if nobody waits. Returns whether it did.
    #[inline(always)]
    fn try_uncontended(&self, now: u64, purpose: Purpose) -> io::Result<bool> {
        if self.is_contended.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let slots = self.slots.lock();
        if slots.waiting > 0 {
            return Ok(false);
        }
        let range = Holder::since(now, purpose).range_from(WAITERS_BYTE);
        let taken = self.sidecar.try_lock(range, false)?;
        drop(slots);
        Ok(taken)
    }

    /// Takes the lock when somebody may wait, unless it is another's turn.
    #[inline(never)]
    fn try_contended(
        &self,
        now: u64,
        purpose: Purpose,
        place: Option<&Place>,
        pace: &mut Pace,
    ) -> io::Result<Option<Taken>> {
        let range = Holder::since(now, purpose).range();
        let take = || {
            let taken = self.sidecar.try_lock(range, false)?;
            Ok(taken.then_some(Taken::Contended))
        };
        if pace.is_within_slice(now) {
            // This connection released the lock a moment ago and gave no turn, so the page has
            // nothing new for it.
            return take();
        }
        let Ok(page) = self.sidecar.read() else { return take() };
        let turn = page.turn().filter(|turn| turn.binds(self.sidecar.shared_now()));
        let has_turn = |place: &Place| turn.is_some_and(|it| it.is_for(place.slot, place.ticket));
        if let Some(turn) = turn {
            let came_later = place.is_none_or(|place| turn.ticket.is_before(place.ticket));
            if came_later && self.is_alive(turn.slot) {
                return Ok(None);
            }
        }
        let taken = take()?;
        if taken.is_some() {
            if place.is_some_and(|place| !has_turn(place) && self.overtakes(place, &page)) {
                self.release(Taken::Contended, Some(pace), || {})?;
                return Ok(None);
            }
            let waiters = page.waiters().filter(Waiter::is_there).count() as u64;
            self.is_contended.store(waiters > 0, Ordering::Relaxed);
            pace.begin_slice(waiters);
        }
        Ok(taken)
    }

    /// Whether the waiter in `place`, which has found the lock free, would overtake an earlier
    /// waiter that is overdue. That happens if the last holder has not seen that anybody waits.
    fn overtakes(&self, place: &Place, page: &Page) -> bool {
        let now = self.sidecar.shared_now();
        page.waiters()
            .filter(|other| other.sleeps(now) && other.ticket.is_before(place.ticket))
            .any(|other| is_due(other.since, now) && self.is_alive(other.slot))
    }

    /// Releases the write lock. With a pace, wakes the next waiter, or gives it the turn. Without a
    /// pace, wakes nobody: the holder could not use the lock, and others could not either.
    ///
    /// Calls `freed` once, after the kernel's lock is released and before anybody is woken, so that a woken
    /// thread of this process finds the lock free. `freed` runs without the mutex of the slots.
    ///
    /// # Errors
    /// Those of the kernel's lock.
    #[inline(always)]
    pub(crate) fn release(
        &self,
        taken: Taken,
        mut pace: Option<&mut Pace>,
        freed: impl FnOnce(),
    ) -> io::Result<()> {
        let label = self.label_shown.load(Ordering::Relaxed);
        if label != 0 {
            self.hide_label(label);
        }
        self.held_here.store(false, Ordering::Relaxed);
        let waited = self.waited_elsewhere.load(Ordering::Relaxed);
        if let Some(pace) = &mut pace {
            pace.released_at = self.sidecar.now();
            if waited != 0 {
                pace.waited_elsewhere(waited);
            }
        }
        if waited != 0 {
            self.waited_elsewhere.store(0, Ordering::Relaxed);
        }
        if taken == Taken::Uncontended {
            let slots = self.slots.lock();
            let looks = |pace: &mut Pace| pace.take_look() && self.is_any_slot_locked();
            if slots.waiting == 0 && !pace.as_deref_mut().is_some_and(looks) {
                let unlocked = self.sidecar.unlock(UNCONTENDED);
                drop(slots);
                freed();
                return unlocked;
            }
        }
        self.release_to_waiters(taken, pace, freed)
    }

    /// Releases as [`Self::release`] does when somebody may wait.
    #[inline(never)]
    fn release_to_waiters(
        &self,
        taken: Taken,
        mut pace: Option<&mut Pace>,
        freed: impl FnOnce(),
    ) -> io::Result<()> {
        let next = pace.as_deref_mut().and_then(|pace| self.next_waiter(pace));
        let unlocked = self.unlock(taken);
        freed();
        if let Some(next) = next {
            self.wake(&next);
        }
        if let Some(pace) = pace.filter(|pace| pace.has_given_turn()) {
            // Not before: the next holder need not wait for these system calls.
            pace.note_usage(self.sidecar.thread_usage());
        }
        unlocked
    }

    fn unlock(&self, taken: Taken) -> io::Result<()> {
        if taken == Taken::Uncontended {
            let mut slots = self.slots.lock();
            if slots.waiting == 0 {
                return self.sidecar.unlock(UNCONTENDED);
            }
            // A thread of this process has begun to wait since: downgrades the lock on the waiters'
            // byte.
            slots.is_announced = self.sidecar.try_lock(WAITERS, true)?;
        }
        self.sidecar.unlock(WRITE_RANGE)
    }

    /// The waiter to wake. Gives it the turn, before the lock is free, if that is due.
    #[inline(never)]
    fn next_waiter(&self, pace: &mut Pace) -> Option<Waiter> {
        if pace.is_within_slice(pace.released_at) {
            return None;
        }
        let page = self.sidecar.read().ok()?;
        if page.extends_in_vain() {
            let (at, bytes) = encode_extent(None);
            let _ = self.sidecar.write(at, &bytes);
        }
        self.free_void_slots(&page);
        let mut there: Vec<_> = page.waiters().filter(Waiter::is_there).collect();
        if there.is_empty() {
            return None;
        }
        let (counter, now) = (page.counter(), self.sidecar.shared_now());
        let first = |there: &Vec<Waiter>| {
            let of_all = there.iter().enumerate();
            of_all.min_by_key(|(_, waiter)| waiter.ticket.from(counter)).map(|(nth, _)| nth)
        };
        while let Some(head) = first(&there).map(|nth| there.swap_remove(nth)) {
            let is_due = is_due(head.since, now);
            if !is_due && (pace.comes_back || head.state == SlotState::Woken) {
                return None;
            }
            // A waiter that comes for its turn frees its slot, or is `Present` again.
            let has_missed_its_turn = head.state == SlotState::Woken
                && page
                    .turn()
                    .is_some_and(|turn| turn.is_for(head.slot, head.ticket) && !turn.binds(now));
            if has_missed_its_turn {
                self.set_away(&head);
                continue;
            }
            if !self.is_alive(head.slot) {
                self.clear(head.slot);
                continue;
            }
            if head.looks.is_overdue(now) {
                // The waiter is stopped. When it runs again, it looks at the page. The time on the page
                // wraps, so a waiter that stays stopped would seem to be in time again.
                if head.looks.is_missed(now) {
                    self.set_away(&head);
                }
                continue;
            }
            if is_due {
                let turn = Turn { ticket: head.ticket, expires: now + TURN_NS, slot: head.slot };
                let (at, bytes) = turn.encode();
                let _ = self.sidecar.write(at, &bytes);
                // The turn also binds this holder: its slice is over. It looks at the page before it tries for the lock
                // again, even if the waiter could not yet lock the waiters' byte.
                pace.end_slice(pace.released_at);
                self.is_contended.store(true, Ordering::Relaxed);
            }
            return Some(head);
        }
        None
    }

    /// Frees slots whose waiters are not there to take a turn because their processes have ended. No connection joins in
    /// a slot that says that it is in use, and a waiter there counts as one ahead. The look begins at any of these slots
    /// and ends at the first of a living process, so that a holder need not look at all of them.
    fn free_void_slots(&self, page: &Page) {
        let is_there = |slot| page.waiter(slot).is_some_and(|waiter| waiter.is_there());
        let in_use = (0..page.extent()).filter(|slot| page.is_used(*slot));
        let mut absent: Vec<_> = in_use.filter(|slot| !is_there(*slot)).collect();
        if absent.is_empty() {
            return;
        }
        let first = self.sidecar.shared_now() / 1000 % absent.len() as u64;
        absent.rotate_left(first as usize);
        absent
            .into_iter()
            .take_while(|slot| !self.is_alive(*slot))
            .for_each(|slot| self.clear(slot));
    }

    /// Shows the label of the holder, which is the caller's transaction, to the waiters.
    pub(super) fn show_label(&self, label: u64) {
        if self.label_shown.swap(label, Ordering::Relaxed) == 0 {
            self.labelled_since.store(self.sidecar.now(), Ordering::Relaxed);
        }
        self.write_label(label);
    }

    /// Ends [`Self::show_label`]. If the next holder, of the same process, already shows its own
    /// label, that stays.
    #[cold]
    pub(super) fn hide_label(&self, label: u64) {
        let shown = &self.label_shown;
        if shown.compare_exchange(label, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let since = self.labelled_since.load(Ordering::Relaxed);
            let waited = self.sidecar.now().saturating_sub(since);
            self.waited_elsewhere.fetch_add(waited, Ordering::Relaxed);
            self.write_label(0);
        }
    }

    /// When the holder of the lock, a connection of this process, first tried for it, in ns of [`QueueFile::now`]; earlier by
    /// the time in which its thread was displaced before that.
    pub(super) fn holder_came(&self) -> u64 {
        self.holder_came.load(Ordering::Relaxed)
    }

    fn write_label(&self, label: u64) {
        let pid = self.sidecar.process().0 & ((1 << PID_BITS) - 1);
        let (at, bytes) = encode_label(label, pid);
        let _ = self.sidecar.write(at, &bytes);
    }

    /// The label of the holder of the write lock; `None` if it shows none, or nobody has the lock.
    /// A label of a process other than the holder's is void: that process was killed.
    pub(super) fn label(&self) -> Option<u64> {
        let (label, pid) = self.sidecar.read().ok()?.label()?;
        let holder = if self.held_here.load(Ordering::Acquire) {
            self.sidecar.process().0 & ((1 << PID_BITS) - 1)
        } else {
            Holder::from_range(self.sidecar.conflicting(WRITE_RANGE).ok()??)?.pid
        };
        (holder == pid).then_some(label)
    }

    /// Holders pass the waiter over from now on, until it is back.
    fn set_away(&self, waiter: &Waiter) {
        let away = encode_state(waiter.word, SlotState::Away);
        let _ = self.sidecar.write(slot_offset(waiter.slot) as u64, &away);
    }

    fn wake(&self, waiter: &Waiter) {
        let woken = encode_state(waiter.word.wrapping_add(1), SlotState::Woken);
        if self.sidecar.write(slot_offset(waiter.slot) as u64, &woken).is_ok() {
            self.sidecar.wake(waiter.slot);
        }
    }

    /// Whether nobody has the write lock.
    pub(crate) fn is_free(&self) -> bool {
        !self.held_here.load(Ordering::Relaxed)
            && matches!(self.sidecar.conflicting(WRITE_RANGE), Ok(None))
    }

    /// The holder, if it is another process.
    pub(crate) fn holder(&self) -> Option<Holder> {
        Holder::from_range(self.sidecar.conflicting(WRITE_RANGE).ok()??)
    }

    /// A process that was seen to end while it had the lock. Returned once.
    pub(crate) fn take_died(&self) -> Option<Process> {
        self.note_if_ended();
        self.died.lock().take()
    }

    /// The purpose of the holder or, if the lock is free, of the waiter whose turn it is. Also how long another process
    /// has held the lock: as the holder says or, if the holder's clock is ahead, as this process has seen. `None` if any
    /// connection could take the lock.
    pub(crate) fn held_for(&self) -> Option<(Purpose, Duration)> {
        if self.held_here.load(Ordering::Acquire) {
            return Some((Purpose::Write, Duration::ZERO));
        }
        if let Some(range) = self.sidecar.conflicting(WRITE_RANGE).ok()? {
            let held = |holder: Holder| (holder.purpose, holder.held().max(self.has_seen(holder)));
            return Some(Holder::from_range(range).map_or((Purpose::Write, Duration::ZERO), held));
        }
        let page = self.sidecar.read().ok()?;
        let turn = page.turn().filter(|turn| turn.binds(self.sidecar.shared_now()))?;
        let next = page.waiter(turn.slot).filter(|next| self.is_alive(next.slot))?;
        Some((next.purpose, Duration::ZERO))
    }

    /// For how long this process has seen that holder.
    fn has_seen(&self, holder: Holder) -> Duration {
        let now = self.sidecar.kernel_now();
        if self.seen.swap(holder.last_byte(), Ordering::Relaxed) != holder.last_byte() {
            self.seen_since.store(now, Ordering::Relaxed);
        }
        Duration::from_nanos(now.saturating_sub(self.seen_since.load(Ordering::Relaxed)))
    }

    /// All living waiters, in the order of their tickets.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let Ok(page) = self.sidecar.read() else { return Vec::new() };
        in_order(&page, |waiter| waiter.state != SlotState::Refused && self.is_alive(waiter.slot))
    }

    /// Whether a living waiter is there to take a turn.
    pub(crate) fn has_waiters(&self) -> bool {
        let is_there = |waiter: Waiter| waiter.is_there() && self.is_alive(waiter.slot);
        self.sidecar.read().is_ok_and(|page| page.waiters().any(is_there))
    }

    /// All waiters that have a slot, also those whose attempt was refused a moment ago.
    #[cfg(test)]
    pub(crate) fn on_the_page(&self) -> Vec<Waiter> {
        self.sidecar.read().map(|page| in_order(&page, |_| true)).unwrap_or_default()
    }
}

/// Whether a waiter that came at `since` has waited so long that newcomers may no longer overtake it. A time in the
/// future comes from another clock and says nothing: then the waiter is due.
fn is_due(since: Since, now: u64) -> bool {
    since.ago(now).is_none_or(|waited| waited >= OVERTAKING)
}

/// Those of a page's waiters that are `wanted`, in the order of their tickets.
pub(crate) fn in_order(page: &Page, wanted: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
    let mut waiters: Vec<_> = page.waiters().filter(wanted).collect();
    let counter = page.counter();
    // By the distance from one ticket: on a forged page each of three tickets may be before the
    // next.
    waiters.sort_by_key(|waiter| waiter.ticket.from(counter));
    waiters
}

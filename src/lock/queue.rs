//! The queue of waiters: who may try for the write lock, and when.
//!
//! A connection that was refused sleeps here, with a place on the page ([`super::page`]). Holders
//! look at the page when they give the lock back, and only if anybody waits, which the kernel tells
//! them: a process with waiters has a shared lock on [`WAITERS_BYTE`], and a holder first tries to
//! lock that byte together with its own. So without waiters the queue costs no system call.
//!
//! Who comes first is a compromise. Strict order would cost a context switch for every
//! transaction; so a holder may go on, and newcomers may overtake, until the head of the queue has
//! waited [`PATIENCE_NS`] and the holder has had its slice of [`ROUND_NS`]. Then the holder gives
//! the head its turn: until it has come, or the turn has expired, all who came later are refused.
//!
//! Lock order: the local mutex is taken last and held for system calls that do not wait.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::holder::{Holder, WAITERS_BYTE, WRITE_RANGE};
use super::page::{PAGE, Page, SLOTS, State, TURN_NS, Turn, Waiter, encode_state, slot_offset};
use crate::sys::{self, Range};

const WAITERS: Range = Range { start: WAITERS_BYTE, len: 1 };
/// All that a holder gives back who took the waiters' byte, too.
const ALONE: Range = Range { start: WAITERS_BYTE, len: 0 };
/// The byte of slot 0; the others follow.
const SLOT_BYTE: i64 = 4096;

/// How long newcomers may overtake the head of the queue, in ns.
const PATIENCE_NS: u64 = 2_000_000;
/// How long all waiters together may go on before it is the first one's turn again, in ns; each
/// has an equal slice of it.
const ROUND_NS: u64 = 12_000_000;
/// The least and the greatest slice, in ns: below, a switch costs more than it is worth.
const SLICE_NS: (u64, u64) = (1_000_000, 4_000_000);
/// For how many of its transactions a slice suffices, if that takes no longer.
const SLICE_TRANSACTIONS: u64 = 4;
/// How often the head looks whether the lock is free, for want of a holder that wakes it.
const HEAD_LOOKS: Duration = Duration::from_millis(1);
/// How often the others do, for want of a head.
const OTHERS_LOOK: Duration = Duration::from_millis(10);
/// How soon a waiter tries to announce itself again that came while a holder had seen no waiters;
/// then after twice as long, and so on up to [`HEAD_LOOKS`].
const ANNOUNCE: Duration = Duration::from_micros(50);

/// What the queue needs of a sidecar: bytes, the kernel's locks on them, and futexes.
pub(crate) trait QueueFile {
    fn read(&self) -> io::Result<Page>;
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Takes an exclusive or shared lock, or says that another open file has one in the way.
    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool>;
    fn unlock(&self, range: Range) -> io::Result<()>;
    /// Another open file's lock on any byte of the range.
    fn conflicting(&self, range: Range) -> io::Result<Option<Range>>;
    /// Sleeps while the futex word is `word`, at most so long. False if the time is over; true if
    /// it was woken, or need not sleep.
    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool;
    fn wake(&self, slot: usize);
    fn sleep(&self, duration: Duration);
    /// CLOCK_MONOTONIC in ns.
    fn now(&self) -> u64;
    /// This process, as waiters show it.
    fn process(&self) -> (u32, [u8; 12]);
}

/// The queue of one sidecar, as this process takes part in it.
pub(crate) struct Queue<S> {
    sidecar: S,
    /// Whether the page is ours; if not, waiters poll.
    has_page: bool,
    local: Mutex<Local>,
    /// Whether a connection of this process has the write lock, which its own locks do not show.
    held_here: AtomicBool,
    /// Whether the attempt to take it alone is not made: somebody waited when the lock was last taken, or
    /// there is no page.
    crowded: AtomicBool,
}

/// Mutex rules: protects this process's locks on the waiters' byte and on slots; the kernel does
/// not tell its connections apart.
struct Local {
    waiting: usize,
    announced: bool,
    /// Slots that have a waiter of this process.
    used: [bool; SLOTS],
    /// A slot that is locked by this process and free.
    idle: Option<usize>,
}

/// How the write lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Together with the waiters' byte: nobody waited.
    Alone,
    /// Somebody waits, or did a moment ago.
    Contended,
}

/// What the write lock is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A write transaction, or first-connect work.
    Write,
    /// A checkpoint or recovery, which makes nobody's snapshot stale.
    Upkeep,
}

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its turn has come, or it was woken, or it is the first and has found the lock free.
    Sign,
    /// Its turn has come, or it is the first and has looked for a while, and the lock is free:
    /// then nobody gives turns.
    Free,
    /// Its turn has come: somebody who could write has given it.
    Turn,
}

/// How a connection has used the write lock lately; decides whether it may go on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When it first took the lock after it last waited, in ns.
    run_began: u64,
    /// When its slice is over, in ns; known since it last looked at the page.
    run_ends: u64,
    /// When it last took the lock, and gave it back, in ns.
    taken: u64,
    released: u64,
    /// Since when it has left others no time to say that they wait, or when it last looked, in ns.
    alone_since: u64,
    /// Whether it wanted the lock again at once, so that waking a waiter is most likely in vain.
    comes_back: bool,
}

impl Pace {
    /// It will not want the lock again at once, whatever it did until now.
    pub(crate) fn goes_away(&mut self) {
        self.comes_back = false;
        self.run_ends = 0;
    }

    /// Whether it gave the lock back as soon as it had it.
    pub(crate) fn was_brief(&self) -> bool {
        self.released < self.taken + BRIEF_NS
    }

    /// Whether who gives the lock back should look at the page although nobody has said that he
    /// waits: it has left no time for that for a while.
    fn looks(&mut self) -> bool {
        let is_due = self.released >= self.alone_since + PATIENCE_NS;
        if is_due {
            self.alone_since = self.released;
        }
        is_due
    }
}

/// A connection that takes the lock again so soon after it gave it back is in a tight loop, in ns.
const COMES_BACK_NS: u64 = 100_000;

/// The lock is not held for less if anything was to be done with it, but for reads from memory, in ns.
const BRIEF_NS: u64 = 200_000;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: usize,
    pub(crate) ticket: u64,
    /// The futex word when it was last looked at.
    word: u32,
    is_upkeep: bool,
    /// When the last turn it came for expires; it comes for each turn once.
    turn: u64,
}

impl<S: QueueFile> Queue<S> {
    pub(crate) fn new(sidecar: S, has_page: bool) -> Self {
        Self {
            sidecar,
            has_page,
            local: Mutex::new(Local {
                waiting: 0,
                announced: false,
                used: [false; SLOTS],
                idle: None,
            }),
            held_here: AtomicBool::new(false),
            crowded: AtomicBool::new(!has_page),
        }
    }

    pub(crate) fn sidecar(&self) -> &S {
        &self.sidecar
    }

    /// Tries for the write lock, for the waiter in `place` or a newcomer. `now` is of
    /// [`QueueFile::now`]. `None` if another has it or somebody else's turn has come.
    #[inline(always)]
    pub(crate) fn try_acquire(
        &self,
        now: u64,
        purpose: Purpose,
        place: Option<&Place>,
        pace: &mut Pace,
    ) -> io::Result<Option<Taken>> {
        let came = place.map_or(now, |place| place.ticket);
        let idle = came.saturating_sub(pace.released);
        pace.comes_back = idle < COMES_BACK_NS;
        if place.is_some() {
            (pace.run_began, pace.run_ends) = (now, now);
        }
        if idle > HEAD_LOOKS.as_nanos() as u64 || place.is_some() {
            pace.alone_since = now;
        }
        let taken = match self.try_alone(now, purpose)? {
            true => Some(Taken::Alone),
            false => self.try_contended(now, purpose, place, pace)?,
        };
        if taken.is_some() {
            pace.taken = now;
            self.held_here.store(true, Ordering::Release);
        }
        Ok(taken)
    }

    /// Takes the lock together with the waiters' byte, if nobody waits.
    #[inline(always)]
    fn try_alone(&self, now: u64, purpose: Purpose) -> io::Result<bool> {
        if self.crowded.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let local = self.local.lock();
        if local.waiting > 0 {
            return Ok(false);
        }
        let range = Holder::since(now, purpose == Purpose::Upkeep).range_from(WAITERS_BYTE);
        let taken = self.sidecar.try_lock(range, false)?;
        drop(local);
        Ok(taken)
    }

    /// Takes the lock when somebody may wait, unless it is somebody else's turn.
    #[inline(never)]
    fn try_contended(
        &self,
        now: u64,
        purpose: Purpose,
        place: Option<&Place>,
        pace: &mut Pace,
    ) -> io::Result<Option<Taken>> {
        let range = Holder::since(now, purpose == Purpose::Upkeep).range();
        let lasted = pace.released.saturating_sub(pace.taken);
        let take = || {
            let taken = self.sidecar.try_lock(range, false)?;
            Ok(taken.then_some(Taken::Contended))
        };
        if !self.has_page || pace.comes_back && now < pace.run_ends {
            // There is no page; or it gave nobody the turn a moment ago, so that the page has nothing new
            // for it.
            return take();
        }
        let Ok(page) = self.sidecar.read() else { return take() };
        if let Some(turn) = page.turn().filter(|turn| turn.binds(self.sidecar.now())) {
            let came_later = place.is_none_or(|place| place.ticket > turn.ticket);
            if came_later && self.is_alive(turn.slot) {
                return Ok(None);
            }
        }
        let taken = take()?;
        if taken.is_some() {
            if place.is_some_and(|place| self.overtakes(place, &page, now)) {
                self.release(Taken::Contended, Some(pace), || {})?;
                return Ok(None);
            }
            let waiters = page.waiters().filter(|waiter| waiter.state != State::Away);
            let waiters = waiters.count() as u64;
            self.crowded.store(waiters > 0, Ordering::Relaxed);
            let (least, greatest) = SLICE_NS;
            let share = (ROUND_NS / (waiters + 1)).max(SLICE_TRANSACTIONS * lasted);
            pace.run_ends = pace.run_began + share.clamp(least, greatest);
        }
        Ok(taken)
    }

    /// Whether somebody who is overdue came before the waiter in `place`, which has found the lock
    /// free: its last holder has not seen that anybody waits.
    fn overtakes(&self, place: &Place, page: &Page, now: u64) -> bool {
        page.waiters().any(|other| {
            other.state == State::Present
                && other.ticket < place.ticket
                && now.saturating_sub(other.ticket) >= PATIENCE_NS
                && self.is_alive(other.slot)
        })
    }

    /// Gives the write lock back, and whoever is next its turn or a sign; or, without a pace,
    /// nobody: it was of no use, and would be of none to others. Calls `freed` when it is given back
    /// and before anybody is woken.
    #[inline(always)]
    pub(crate) fn release(
        &self,
        taken: Taken,
        mut pace: Option<&mut Pace>,
        freed: impl FnOnce(),
    ) -> io::Result<()> {
        self.held_here.store(false, Ordering::Relaxed);
        if let Some(pace) = &mut pace {
            pace.released = self.sidecar.now();
        }
        if taken == Taken::Alone {
            let local = self.local.lock();
            let looks = |pace: &mut &mut Pace| pace.looks() && self.somebody_has_a_slot();
            if local.waiting == 0 && !pace.as_mut().is_some_and(looks) {
                let unlocked = self.sidecar.unlock(ALONE);
                drop(local);
                freed();
                return unlocked;
            }
        }
        self.release_to_waiters(taken, pace, freed)
    }

    /// As [`Self::release`], when somebody may wait.
    #[inline(never)]
    fn release_to_waiters(
        &self,
        taken: Taken,
        pace: Option<&mut Pace>,
        freed: impl FnOnce(),
    ) -> io::Result<()> {
        let next = pace.filter(|_| self.has_page).and_then(|pace| self.next(pace));
        let unlocked = self.unlock(taken);
        freed();
        if let Some(next) = next {
            self.wake(&next);
        }
        unlocked
    }

    /// Whether another process may wait that could not say so: it has a slot. To ask the kernel costs
    /// less than to read the page.
    #[inline(never)]
    fn somebody_has_a_slot(&self) -> bool {
        let slots = Range { start: SLOT_BYTE, len: SLOTS as i64 };
        !sys::KERNEL_TELLS_RANGES || !matches!(self.sidecar.conflicting(slots), Ok(None))
    }

    fn unlock(&self, taken: Taken) -> io::Result<()> {
        if taken == Taken::Alone {
            let mut local = self.local.lock();
            if local.waiting == 0 {
                return self.sidecar.unlock(ALONE);
            }
            // A thread of this process has begun to wait meanwhile.
            local.announced = self.sidecar.try_lock(WAITERS, true)?;
        }
        self.sidecar.unlock(WRITE_RANGE)
    }

    /// Whom to wake. Gives the turn, before the lock is free, if it is due.
    #[inline(never)]
    fn next(&self, pace: &mut Pace) -> Option<Waiter> {
        let now = pace.released;
        if pace.comes_back && now < pace.run_ends {
            return None;
        }
        let page = self.sidecar.read().ok()?;
        let mut waiters: Vec<Waiter> =
            page.waiters().filter(|waiter| waiter.state != State::Away).collect();
        waiters.sort_by_key(|waiter| waiter.ticket);
        for head in waiters {
            let due = now.saturating_sub(head.ticket) >= PATIENCE_NS;
            if !due && (pace.comes_back || head.state == State::Woken) {
                return None;
            }
            // Had it come, it would be gone, or present again.
            let missed = head.state == State::Woken
                && page.turn().is_some_and(|turn| {
                    (turn.slot, turn.ticket) == (head.slot, head.ticket) && !turn.binds(now)
                });
            if missed {
                let away = encode_state(head.word, State::Away);
                let _ = self.sidecar.write(slot_offset(head.slot) as u64, &away);
                continue;
            }
            if !self.is_alive(head.slot) {
                self.clear(head.slot);
                continue;
            }
            if due {
                let turn = Turn { ticket: head.ticket, expires: now + TURN_NS, slot: head.slot };
                let (at, bytes) = turn.encode();
                let _ = self.sidecar.write(at, &bytes);
                // It is bound by that itself: its slice is over, and it looks at the page before it tries
                // for the lock again, also if whoever has the turn could not yet say that he waits.
                pace.run_ends = now;
                self.crowded.store(true, Ordering::Relaxed);
            }
            return Some(head);
        }
        None
    }

    fn wake(&self, waiter: &Waiter) {
        let woken = encode_state(waiter.word.wrapping_add(1), State::Woken);
        if self.sidecar.write(slot_offset(waiter.slot) as u64, &woken).is_ok() {
            self.sidecar.wake(waiter.slot);
        }
    }

    /// Joins the queue; `since` is when the connection was first refused, in ns. `None` if there
    /// is no page, or no slot is free: then it must poll.
    pub(crate) fn join(&self, since: u64, purpose: Purpose) -> Option<Place> {
        if !self.has_page {
            return None;
        }
        let mut local = self.local.lock();
        let slot = self.take_slot(&mut local)?;
        local.used[slot] = true;
        local.waiting += 1;
        let word = self.sidecar.read().map_or(0, |page| page.word(slot));
        let is_upkeep = purpose == Purpose::Upkeep;
        Some(Place { slot, ticket: since.max(1), word, is_upkeep, turn: 0 })
    }

    /// Leaves the queue.
    pub(crate) fn leave(&self, place: &Place) {
        self.clear(place.slot);
        let mut local = self.local.lock();
        local.used[place.slot] = false;
        local.waiting -= 1;
        if local.idle.is_none() {
            local.idle = Some(place.slot);
        } else {
            let _ = self.sidecar.unlock(slot_range(place.slot));
        }
        if local.waiting == 0 && local.announced {
            local.announced = false;
            let _ = self.sidecar.unlock(WAITERS);
        }
    }

    fn take_slot(&self, local: &mut Local) -> Option<usize> {
        if let Some(slot) = local.idle.take() {
            return Some(slot);
        }
        // Processes begin to search at different slots, so that the first try mostly succeeds.
        let first = self.sidecar.process().0 as usize;
        (0..SLOTS).map(|n| (first + n) % SLOTS).find(|slot| {
            !local.used[*slot] && self.sidecar.try_lock(slot_range(*slot), false).unwrap_or(false)
        })
    }

    /// Waits at most `limit`. True if it is worth trying.
    pub(crate) fn wait(&self, place: &mut Place, limit: Duration, until: Until) -> bool {
        let began = self.sidecar.now();
        let elapsed = || Duration::from_nanos(self.sidecar.now().saturating_sub(began));
        self.show(place, State::Present);
        let (mut looked, mut announce) = (false, ANNOUNCE);
        loop {
            let Some(left) = limit.checked_sub(elapsed()).filter(|left| !left.is_zero()) else {
                // Still present: it tries, and sleeps again.
                return false;
            };
            let Ok(page) = self.sidecar.read() else {
                // It was cut short: make it whole, and look without it.
                let _ = self.sidecar.write(PAGE as u64 - 1, &[0]);
                self.sidecar.sleep(left.min(HEAD_LOOKS));
                if self.is_free() {
                    return true;
                }
                continue;
            };
            let turn = page.turn().filter(|turn| turn.binds(self.sidecar.now()));
            let is_mine = |turn: &Turn| (turn.slot, turn.ticket) == (place.slot, place.ticket);
            if let Some(mine) = turn.filter(is_mine).filter(|turn| turn.expires != place.turn) {
                place.turn = mine.expires;
                place.word = page.word(place.slot);
                return true;
            }
            let word = page.word(place.slot);
            let woken = word != place.word;
            place.word = word;
            if woken && until == Until::Sign {
                return true;
            }
            match page.waiter(place.slot) {
                Some(me) if me.ticket == place.ticket && me.state == State::Present => {}
                _ => self.show(place, State::Present),
            }
            let is_head = !page.waiters().any(|other| {
                other.state == State::Present
                    && other.ticket < place.ticket
                    && self.is_alive(other.slot)
            });
            // If nobody gives the lock back, nobody gives turns either.
            let nobodys = turn.is_none_or(|turn| is_mine(&turn));
            let looks = match until {
                Until::Sign => true,
                Until::Free => looked,
                Until::Turn => false,
            };
            if (is_head || looked) && looks && nobodys && self.is_free() {
                return true;
            }
            let look = match self.announce() {
                false => announce,
                true if is_head => HEAD_LOOKS,
                true => OTHERS_LOOK,
            };
            announce = HEAD_LOOKS.min(announce * 2);
            looked = !self.sidecar.wait(place.slot, word, left.min(look));
        }
    }

    /// Waits as [`Self::wait`] does, without a place.
    pub(crate) fn poll(&self, limit: Duration, until: Until) -> bool {
        let began = self.sidecar.now();
        let elapsed = || Duration::from_nanos(self.sidecar.now().saturating_sub(began));
        while let Some(left) = limit.checked_sub(elapsed()).filter(|left| !left.is_zero()) {
            self.sidecar.sleep(left.min(HEAD_LOOKS));
            if until != Until::Turn && self.purpose().is_none() {
                return true;
            }
        }
        false
    }

    /// Whether other processes' holders know that somebody waits.
    pub(super) fn announce(&self) -> bool {
        let mut local = self.local.lock();
        if !local.announced {
            local.announced = self.sidecar.try_lock(WAITERS, true).unwrap_or(false);
        }
        local.announced
    }

    /// Whether nobody has the write lock.
    pub(crate) fn is_free(&self) -> bool {
        !self.held_here.load(Ordering::Relaxed)
            && matches!(self.sidecar.conflicting(WRITE_RANGE), Ok(None))
    }

    /// What the write lock is held for, or will be by whoever has the turn, and for how long it has
    /// been held by another process. `None` if anybody could have it.
    pub(crate) fn purpose(&self) -> Option<(Purpose, Duration)> {
        if self.held_here.load(Ordering::Acquire) {
            return Some((Purpose::Write, Duration::ZERO));
        }
        let mut held = Duration::ZERO;
        let is_upkeep = match self.sidecar.conflicting(WRITE_RANGE).ok()? {
            Some(range) => Holder::from_range(range).is_some_and(|holder| {
                held = holder.held();
                holder.is_upkeep
            }),
            None if !self.has_page => return None,
            None => {
                let page = self.sidecar.read().ok()?;
                let turn = page.turn().filter(|turn| turn.binds(self.sidecar.now()))?;
                page.waiter(turn.slot).filter(|next| self.is_alive(next.slot))?.is_upkeep
            }
        };
        Some((if is_upkeep { Purpose::Upkeep } else { Purpose::Write }, held))
    }

    /// All waiters that live, in the order of their tickets.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let Ok(page) = self.sidecar.read() else { return Vec::new() };
        in_order(&page, |slot| self.is_alive(slot))
    }

    pub(super) fn show(&self, place: &Place, state: State) {
        let (pid, program) = self.sidecar.process();
        let waiter = Waiter {
            slot: place.slot,
            word: 0,
            state,
            ticket: place.ticket,
            pid,
            is_upkeep: place.is_upkeep,
            program,
        };
        let (at, bytes) = waiter.encode();
        // All but the futex word, which is the wakers'.
        let _ = self.sidecar.write(at + 4, &bytes[4..]);
    }

    fn clear(&self, slot: usize) {
        let _ = self.sidecar.write(slot_offset(slot) as u64 + 4, &[0; 28]);
    }

    /// Whether the slot is some process's.
    fn is_alive(&self, slot: usize) -> bool {
        self.local.lock().used[slot]
            || !matches!(self.sidecar.conflicting(slot_range(slot)), Ok(None))
    }
}

/// Who waits by a page, in order, if their processes live.
pub(crate) fn in_order(page: &Page, is_alive: impl Fn(usize) -> bool) -> Vec<Waiter> {
    let mut waiters: Vec<_> = page.waiters().filter(|waiter| is_alive(waiter.slot)).collect();
    waiters.sort_by_key(|waiter| waiter.ticket);
    waiters
}

/// The byte that the process of a slot's waiter locks.
pub(crate) fn slot_range(slot: usize) -> Range {
    Range { start: SLOT_BYTE + slot as i64, len: 1 }
}

const _: () = assert!(PAGE as i64 <= SLOT_BYTE && SLOT_BYTE + (SLOTS as i64) < WAITERS_BYTE);

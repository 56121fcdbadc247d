//! The slots of this process on the page, and how holders learn that it has waiters.
//!
//! Each waiter has a slot, and its process has the kernel's lock on the slot's byte: this shows
//! which slots are of a dead process, and so void. While it has waiters, the process also has a
//! shared lock on the waiters' byte.

use std::time::Duration;

use super::waiting::{Place, Rank};
use super::{Purpose, Queue, QueueFile, WAITERS};
use crate::lock::holder::WAITERS_BYTE;
use crate::lock::page::{
    FIRST_SLOTS, Looks, PAGE, PAGE_SLOTS, Page, SLOTS, Since, SlotState, Ticket, Waiter,
    encode_counter, encode_extent, encode_state, slot_offset,
};
use crate::sys::{self, Range};

/// The byte of slot 0; those of the others follow.
const SLOT_BYTE: i64 = 4096;

/// Waiters with few others ahead of them look at the page again within this time, in ns.
const LOOKS_WITHIN_NS: u64 = 12_000_000;

/// How many seemingly free slots of a page are tried before the next page.
const TRIES: usize = 8;

/// This process's locks on slots and on the waiters' byte.
pub(super) struct Slots {
    /// How many of its connections have a slot.
    pub(super) waiting: usize,
    /// Whether this process has the waiters' byte.
    pub(super) is_announced: bool,
    /// Slots that have a waiter of this process.
    used: [bool; SLOTS],
    /// A free slot of the first page that this process keeps locked for its next waiter.
    idle: Option<usize>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { waiting: 0, is_announced: false, used: [false; SLOTS], idle: None }
    }
}

impl Slots {
    /// Locks a slot that no waiter uses, in one of the first `pages`; `None` if all that were tried
    /// are taken.
    fn take(&mut self, file: &impl QueueFile, page: &Page, pages: usize) -> Option<usize> {
        if let Some(slot) = self.idle.take() {
            return Some(slot);
        }
        // Processes begin to search at different slots, so that the first try mostly succeeds.
        let begin = file.process().0 as usize;
        let take = |slot: &usize| {
            !self.used[*slot] && file.try_lock(slot_range(*slot), false).unwrap_or(false)
        };
        (0..pages).find_map(|nth| {
            let (first, slots) = match nth {
                0 => (0, FIRST_SLOTS),
                _ => (FIRST_SLOTS + (nth - 1) * PAGE_SLOTS, PAGE_SLOTS),
            };
            let all = (0..slots).map(|n| first + (begin + n) % slots);
            // A process may keep a slot that seems free for its next waiter.
            all.filter(|slot| !page.is_used(*slot)).take(TRIES).find(take)
        })
    }
}

/// How many pages have slots.
const PAGES: usize = 1 + (SLOTS - FIRST_SLOTS) / PAGE_SLOTS;

impl<S: QueueFile> Queue<S> {
    /// Joins the queue; the connection was first refused `waited` ago. `None` if no slot is free: then the connection
    /// must poll.
    pub(crate) fn join(&self, rank: Rank, waited: Duration, purpose: Purpose) -> Option<Place> {
        let page = self.sidecar.read().unwrap_or(Page::EMPTY);
        let mut slots = self.slots.lock();
        let slot = slots.take(&self.sidecar, &page, PAGES)?;
        slots.used[slot] = true;
        slots.waiting += 1;
        drop(slots);
        self.note_extent(slot, &page);
        let ticket = match rank {
            Rank::First => page.first_ticket(),
            Rank::Kept(ticket) => ticket,
            Rank::Last => page.next_ticket(),
        };
        if rank == Rank::Last {
            self.note_given(ticket);
        }
        Some(Place::new(slot, ticket, self.refused_before(waited), purpose, page.word(slot)))
    }

    /// When a connection that has waited for `waited` was first refused, by the two clocks of a [`Place`].
    fn refused_before(&self, waited: Duration) -> (u64, Since) {
        let waited = waited.as_nanos() as u64;
        let came = self.sidecar.now().saturating_sub(waited);
        (came, Since::at(self.sidecar.shared_now().saturating_sub(waited)))
    }

    /// The ticket of a connection that comes now but joins the queue later. It stands behind all that came earlier.
    pub(crate) fn take_ticket(&self) -> Ticket {
        let ticket = self.sidecar.read().unwrap_or(Page::EMPTY).next_ticket();
        self.note_given(ticket);
        ticket
    }

    /// Notes that a slot is in use, unless the page says so.
    pub(super) fn note_extent(&self, slot: usize, page: &Page) {
        if page.extent() <= slot {
            let (at, bytes) = encode_extent(Some(slot));
            let _ = self.sidecar.write(at, &bytes);
        }
    }

    /// Notes in the counter that a ticket was given.
    pub(super) fn note_given(&self, ticket: Ticket) {
        let (at, bytes) = encode_counter(ticket);
        let _ = self.sidecar.write(at, &bytes);
    }

    /// Leaves the queue.
    pub(crate) fn leave(&self, place: &Place) {
        self.clear(place.slot);
        let mut slots = self.slots.lock();
        self.put_back(&mut slots, place.slot);
        slots.waiting -= 1;
        if slots.waiting == 0 && slots.is_announced {
            slots.is_announced = false;
            let _ = self.sidecar.unlock(WAITERS);
        }
    }

    /// Frees a slot that was cleared; one stays locked for this process's next waiter.
    fn put_back(&self, slots: &mut Slots, slot: usize) {
        slots.used[slot] = false;
        // Slots behind the first page are not kept: processes that wait now need them.
        if slots.idle.is_none() && slot < FIRST_SLOTS {
            slots.idle = Some(slot);
        } else {
            let _ = self.sidecar.unlock(slot_range(slot));
        }
    }

    /// Shows observers a connection that was first refused `waited` ago and waits for SQLite's own
    /// lock, in a slot until [`Self::hide`]. It is not in the queue: nobody wakes it or gives it a
    /// turn. `None` if [`TRIES`] slots are taken: waiters in the queue need slots more.
    pub(crate) fn show_outside(&self, waited: Duration) -> Option<usize> {
        let mut slots = self.slots.lock();
        let slot = slots.take(&self.sidecar, &Page::EMPTY, 1)?;
        slots.used[slot] = true;
        drop(slots);
        let since = self.refused_before(waited);
        self.describe(&Place::new(slot, Ticket(0), since, Purpose::Write, 0), SlotState::Outside);
        Some(slot)
    }

    /// Ends [`Self::show_outside`].
    pub(crate) fn hide(&self, slot: usize) {
        self.clear(slot);
        self.put_back(&mut self.slots.lock(), slot);
    }

    /// Locks the waiters' byte, unless this process has it. Returns false if a holder has taken
    /// that byte. Otherwise the holders of other processes know that somebody waits.
    pub(in crate::lock) fn announce(&self) -> bool {
        let mut slots = self.slots.lock();
        if !slots.is_announced {
            slots.is_announced = self.sidecar.try_lock(WAITERS, true).unwrap_or(false);
        }
        slots.is_announced
    }

    /// Whether the slot belongs to a living process.
    pub(super) fn is_alive(&self, slot: usize) -> bool {
        self.slots.lock().used[slot]
            || !matches!(self.sidecar.conflicting(slot_range(slot)), Ok(None))
    }

    /// Whether another process has locked a slot: its waiter may have been unable to announce itself. Asking the
    /// kernel costs less than reading the page.
    #[inline(never)]
    pub(super) fn is_any_slot_locked(&self) -> bool {
        let slots = Range { start: SLOT_BYTE, len: SLOTS as i64 };
        !sys::KERNEL_TELLS_RANGES || !matches!(self.sidecar.conflicting(slots), Ok(None))
    }

    /// Describes the waiter in its slot, as present.
    pub(in crate::lock) fn show(&self, place: &mut Place) {
        place.looks = self.looks_of(place);
        self.describe(place, SlotState::Present);
    }

    /// Writes by when the waiter, which is present, will have looked at the page, unless the page
    /// says so already.
    pub(super) fn note_look(&self, place: &mut Place) {
        let looks = self.looks_of(place);
        if !place.looks.suffices(looks) {
            place.looks = looks;
            let (at, bytes) = self.described(place, SlotState::Present).encode();
            let _ = self.sidecar.write(at + 16, &bytes[16..20]);
        }
    }

    fn looks_of(&self, place: &Place) -> Looks {
        let within = place.next_look.saturating_sub(self.sidecar.kernel_now());
        Looks::by(self.sidecar.shared_now() + within.max(LOOKS_WITHIN_NS))
    }

    /// Describes a connection in a slot of this process, in that state.
    fn describe(&self, place: &Place, state: SlotState) {
        let (at, bytes) = self.described(place, state).encode();
        // All but the futex word, which belongs to the wakers.
        let _ = self.sidecar.write(at + 4, &bytes[4..]);
    }

    fn described(&self, place: &Place, state: SlotState) -> Waiter {
        let (pid, program) = self.sidecar.process();
        Waiter {
            slot: place.slot,
            word: 0,
            state,
            ticket: place.ticket,
            since: place.since,
            looks: place.looks,
            pid,
            purpose: place.purpose,
            program,
        }
    }

    /// The waiter has tried in vain. Until it sleeps again it gets no turn: SQLite may have given
    /// up.
    pub(crate) fn was_refused(&self, place: &Place) {
        if place.is_far() {
            // It is far from the head, so no turn comes soon. If it has given up, it will be
            // overdue by then.
            return;
        }
        // The state alone: a waker may be about to write the futex word.
        let state = &encode_state(0, SlotState::Refused)[4..];
        let _ = self.sidecar.write(slot_offset(place.slot) as u64 + 4, state);
    }

    /// Frees a slot on the page.
    pub(super) fn clear(&self, slot: usize) {
        // All but the futex word.
        let _ = self.sidecar.write(slot_offset(slot) as u64 + 4, &[0; 28]);
    }
}

/// The byte that the process of a slot's waiter locks.
pub(crate) fn slot_range(slot: usize) -> Range {
    Range { start: SLOT_BYTE + slot as i64, len: 1 }
}

const _: () = assert!(PAGE as i64 <= SLOT_BYTE && SLOT_BYTE + (SLOTS as i64) < WAITERS_BYTE);

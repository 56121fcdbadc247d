//! The queue page: who waits for the write lock, and whose turn it is.
//!
//! The page carries hints only. The kernel's locks decide who owns the write lock. Whatever these
//! bytes say, at worst a waiter waits a little longer. There are two exceptions, for a process that
//! may write the sidecar. By a forged record of group commit (`group_commit::record`) it can make
//! COMMIT return before its sync. By forged kinds of transactions (`kinds`) it can make
//! transactions that read wait for the write lock, and be refused when they write.
//!
//! Processes read and write the page by system calls: if the sidecar is cut short, that is an error and not a SIGBUS. No code
//! reads or writes a mapping of it directly. Its addresses serve futexes and, on Linux, writes by pread(2) from another file.
//!
//! | bytes | field | written by |
//! |---|---|---|
//! | 0 to 15 | `kanban-vfs`, a NUL, a byte that is 1 if another program may have made the file and else 0, layout version 3 (u32) | the process that makes the sidecar, or finds it without them |
//! | 16 to 23 | turn: when it expires (u64) | the holder, before it unlocks |
//! | 24 to 27 | turn: the ticket it is for (u32) | the holder, before it unlocks |
//! | 28 to 31 | turn: the slot it is for (u32) | the holder, before it unlocks |
//! | 32 to 35 | counter: the ticket that was given last (u32) | a waiter that joins, or finds it behind its own ticket |
//! | 36 to 39 | group commit: futex word; a new record changes it, and the end of a lead (u32) | the leader of a sync |
//! | 40 to 47 | record: the WAL's salts, as the wal-index has them (2 u32) | the leader of a sync |
//! | 48 to 51 | record: how many of the WAL's frames are durable (u32) | the leader of a sync |
//! | 52 to 55 | record: how often a sync has failed, or was repaired; odd while a failure stands (u32) | the leader of a sync |
//! | 56 to 63 | record: checksum of the three fields before, see `group_commit::record` (2 u32) | the leader of a sync |
//! | 56 to 63 | on Windows, which has no group commit: the last byte that the holder of the write lock has locked, 0 for none (i64) | the holder |
//! | 64 + 32 n | slot n, from 0 to 115: | |
//! | + 0 to 3 | futex word; every change wakes the slot's waiter (u32) | a waker |
//! | + 4 to 7 | state, see [`SlotState`] (u32) | the slot's process; a waker |
//! | + 8 to 11 | ticket: the waiter's number, in the order in which they came (u32) | the slot's process |
//! | + 12 to 15 | when it was first refused, in units of 2^16 ns (u32) | the slot's process |
//! | + 16 to 19 | process id (bits 0 to 21), when it will have looked at the page again, in units of 2^23 ns (bits 22 to 30), and whether it waits for upkeep (bit 31) (u32) | the slot's process |
//! | + 20 to 31 | program name, NUL-padded | the slot's process |
//! | 3776 to 3779 | extent: slots from this one on are free (u32) | a waiter that takes a slot there, or finds it too small; a holder that finds it too great |
//! | 3784 to 3791 | label of the holder of the write lock, which waits for another database, see `lock::circle`; 0 for none (u64) | the holder |
//! | 3792 to 3795 | process id of that holder (u32) | the holder |
//! | 3840 + 4 n | kind n of transactions, and whether it writes after it has read, see `lock::kinds` (u32) | a connection that was refused when it began to write; one that has ended such a transaction |
//! | 4096 + 32 (n - 116) | slot n, from 116 to 1139, as above | |
//!
//! Numbers are little-endian. A slot belongs to a process as long as that process has the kernel's
//! lock on the slot's byte; the contents of an unlocked slot are void.
//!
//! The [`Ticket`], not a clock, decides who is first. Times are nanoseconds of a clock that all
//! processes share ([`crate::sys::shared_ns`]). But that clock may be set, and the page may be
//! forged. So a time decides two things only: for how long a turn binds, at most [`TURN_NS`], and
//! when a waiter gets a turn. For the latter, a time in the future counts as long ago.
//!
//! | state of a slot | becomes | when |
//! |---|---|---|
//! | free | `Present` | a refused connection sleeps in the VFS for the first time |
//! | `Present` | `Woken` | a holder that unlocks lets it try, or gives it the turn |
//! | `Present`, `Woken` | `Refused` | its attempt was refused again: SQLite sleeps again in a moment, or has given up, which no call shows |
//! | `Woken` | `Away` | its turn has expired: holders pass it over until it is back |
//! | `Present`, `Woken` | the same, but holders pass it over | it has not looked in time: it is stopped, or gets no processor: [`Looks`] |
//! | `Present`, `Woken` | `Away` | a holder finds it more than 0.27 s late: it is stopped |
//! | `Away`, `Refused` | `Present` | it looks at the page, or SQLite sleeps again |
//! | any | free | it has the lock, has given up, or has closed; or was refused, and its busy handler sleeps by itself; or a holder finds that its process has ended |
//! | free | `Outside` | a connection sleeps that waits for SQLite's own lock and has no place in the queue |
//! | `Outside` | free | it tries for that lock again |

use std::io;
use std::time::Duration;

use super::holder::{PID_BITS, Purpose};

/// The size of the first page, in bytes: it has all but the slots of a long queue.
pub(crate) const PAGE: usize = 4096;

/// The size of the sidecar, in bytes.
pub(crate) const LENGTH: usize = slot_offset(SLOTS);

/// The first 16 bytes of a sidecar; the last four are the version of the layout.
pub(crate) const HEADER: [u8; 16] = *b"kanban-vfs\0\0\x03\0\0\0";

/// The first 16 bytes of a sidecar that another program may have made, because a client of this VFS
/// found it empty, cut short or zeroed. Such a sidecar is used, but its rights are not changed and
/// it is not deleted.
pub(crate) const FOUND: [u8; 16] = *b"kanban-vfs\0\x01\x03\0\0\0";

/// [`HEADER`] and [`FOUND`] of layout 1, whose tickets were times, and of layout 2, which had fewer
/// slots. In both, the sidecar was one page, with group commit's bytes in the same place.
pub(crate) const OLDER: [[u8; 16]; 4] = [
    *b"kanban-vfs\0\0\x01\0\0\0",
    *b"kanban-vfs\0\x01\x01\0\0\0",
    *b"kanban-vfs\0\0\x02\0\0\0",
    *b"kanban-vfs\0\x01\x02\0\0\0",
];

/// The version of the layout of this file.
const LAYOUT: u32 = 3;

/// Whether a file that begins so is a page of a newer layout. All layouts begin with the same 16
/// bytes but for the version, and none is longer than this one.
pub(crate) fn is_newer(start: &[u8; HEADER.len()]) -> bool {
    let [.., a, b, c, d] = *start;
    [HEADER, FOUND].iter().any(|ours| ours[..12] == start[..12])
        && u32::from_le_bytes([a, b, c, d]) > LAYOUT
}

/// Offset of the futex word of group commit; the record follows it.
pub(crate) const GROUP: usize = 36;
/// The size of that word and the record, in bytes.
pub(crate) const GROUP_SIZE: usize = 28;
const _: () = assert!(GROUP + GROUP_SIZE == FIRST_SLOT);

/// How many slots the first page has.
pub(crate) const FIRST_SLOTS: usize = 116;
/// How many slots each page behind it has.
pub(crate) const PAGE_SLOTS: usize = PAGE / SLOT_SIZE;
/// How many waiters the queue has slots for; further waiters poll.
pub(crate) const SLOTS: usize = FIRST_SLOTS + 8 * PAGE_SLOTS;

/// Offset of the extent.
const EXTENT: usize = FIRST_SLOT + FIRST_SLOTS * SLOT_SIZE;

/// Offset of the holder's label and process id.
const LABEL: usize = EXTENT + 8;

/// Offset of the kinds of transactions.
pub(crate) const KINDS: usize = 3840;
/// How many kinds there is room for.
pub(crate) const KIND_ENTRIES: usize = 64;
const _: () = assert!(KINDS + KIND_ENTRIES * 4 == PAGE);

/// Offset of the turn.
const TURN: usize = 16;
/// Offset of the counter.
const COUNTER: usize = 32;
/// Offset of the last byte that the holder has locked, for systems whose kernel does not report it.
pub(crate) const LAST_BYTE: u64 = 56;
/// Offset of slot 0.
const FIRST_SLOT: usize = 64;
const SLOT_SIZE: usize = 32;
/// The bit beside the process id that says that the waiter wants the lock for upkeep.
const UPKEEP: u32 = 1 << 31;
/// The bits of the process id.
const PID: u32 = (1 << PID_BITS) - 1;

/// A turn expires this long after it was given, in ns, so that others do not wait longer for a
/// waiter that does not come. The kernel runs a woken process much sooner.
pub(crate) const TURN_NS: u64 = 50_000_000;

/// What the waiter of a slot is doing. A free slot says 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum SlotState {
    /// It sleeps in the VFS and comes when it is woken, or it tries and is about to sleep again.
    Present = 1,
    /// It was woken and is about to try.
    Woken = 2,
    /// It has missed its turn, or was passed over because it is stopped, and may or may not come back.
    Away = 3,
    /// It has tried in vain, and sleeps again in a moment, or has given up.
    Refused = 4,
    /// It is not in the queue: it sleeps until SQLite's own lock is free, and polls for that. Only
    /// observers read this state.
    Outside = 5,
}

/// A waiter's number, in the order in which they came. After the greatest number comes the least,
/// so the shorter distance between two tickets says which was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(super) u32);

impl Ticket {
    /// By how much a ticket may be ahead of the counter, because the process that took it has not
    /// updated the counter yet.
    const AHEAD: u32 = 1 << 16;
    /// How far before all others the ticket of a waiter that goes ahead is.
    const FIRST: u32 = 1 << 30;

    /// Whether its waiter came before that of `other`.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.from(other) < 0
    }

    /// Its distance from `other`, below 0 if it came before.
    pub(super) fn from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

/// When a waiter was first refused, in units of 2^16 ns, of which 32 bits count 78 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(u32);

impl Since {
    /// By how much a reader's clock, read a moment earlier, may be behind, in units: 1 ms.
    const AT_ONCE: i32 = 15;

    /// That time, in ns of [`crate::sys::shared_ns`].
    pub(crate) fn at(ns: u64) -> Self {
        Self((ns >> 16) as u32)
    }

    /// How long ago it was at `now`, in ns of that clock. `None` if it is in the future: the clock
    /// was set, or the page was forged.
    pub(crate) fn ago(self, now: u64) -> Option<Duration> {
        let units = Self::at(now).0.wrapping_sub(self.0) as i32;
        (units >= -Self::AT_ONCE)
            .then(|| Duration::from_nanos(u64::from(units.max(0).unsigned_abs()) << 16))
    }
}

/// When a waiter will have looked at the page again, in units of 2^23 ns (8 ms), of which 9 bits
/// count 4 s. A waiter that is late is stopped, or gets no processor: it would miss its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks(u32);

impl Looks {
    const BITS: u32 = 9;
    const UNIT_BITS: u32 = 23;
    /// How many units late a waiter may be that only has to wait for a processor: some 20 ms.
    const LATE: i32 = 2;
    /// How many units late a waiter is that is stopped, or as good as stopped: 0.27 s.
    const STOPPED: i32 = 32;
    /// By at most how many units a waiter looks later than now: 0.6 s.
    const AHEAD: i32 = 72;
    /// The same as a time.
    pub(super) const FARTHEST: Duration =
        Duration::from_nanos((Self::AHEAD as u64) << Self::UNIT_BITS);

    /// A look by that time, in ns of [`crate::sys::shared_ns`].
    pub(crate) fn by(ns: u64) -> Self {
        Self((ns >> Self::UNIT_BITS) as u32 & ((1 << Self::BITS) - 1))
    }

    /// By how many units it is before another, below 0 if it is later. The number wraps: the sign
    /// is wrong from 2 s on.
    fn before(self, other: Self) -> i32 {
        let units = other.0.wrapping_sub(self.0) << (32 - Self::BITS);
        units as i32 >> (32 - Self::BITS)
    }

    /// Whether it should have looked by `now`, in ns of that clock. A look that seems to be far in the
    /// future is one of the past: the waiter has been stopped for more than 2 s.
    pub(crate) fn is_overdue(self, now: u64) -> bool {
        !(-Self::AHEAD..=Self::LATE).contains(&self.before(Self::by(now)))
    }

    /// Whether it is overdue by so much that its waiter does not come soon.
    pub(super) fn is_missed(self, now: u64) -> bool {
        !(-Self::AHEAD..=Self::STOPPED).contains(&self.before(Self::by(now)))
    }

    /// Whether a waiter that will have looked by `other` may leave this on the page: waiters write
    /// less often than they look.
    pub(crate) fn suffices(self, other: Self) -> bool {
        (-1..=1).contains(&self.before(other))
    }
}

/// A waiter, as its slot describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) slot: usize,
    /// The slot's futex word.
    pub(crate) word: u32,
    pub(crate) state: SlotState,
    pub(crate) ticket: Ticket,
    pub(crate) since: Since,
    pub(crate) looks: Looks,
    /// Its process id, in its own pid namespace: to show, not to rely on.
    pub(crate) pid: u32,
    /// What it wants the lock for.
    pub(crate) purpose: Purpose,
    /// The name of its program, NUL-padded.
    pub(crate) program: [u8; 12],
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The ticket of its waiter.
    pub(crate) ticket: Ticket,
    /// When it expires, in ns of [`crate::sys::shared_ns`].
    pub(crate) expires: u64,
    pub(crate) slot: usize,
}

/// A copy of the page at one moment, with as many of the pages behind it as have slots in use.
pub(crate) struct Page {
    pub(crate) first: [u8; PAGE],
    more: Vec<u8>,
}

impl Page {
    /// A page of zeros.
    pub(crate) const EMPTY: Self = Self { first: [0; PAGE], more: Vec::new() };

    /// The page that `read` reads. `read` fills its buffer with the bytes from an offset on.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn read(read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Self> {
        let mut page = Self::EMPTY;
        read(&mut page.first, 0)?;
        if page.extent() > FIRST_SLOTS {
            page.more.resize(slot_offset(page.extent()) - PAGE, 0);
            read(&mut page.more, PAGE as u64)?;
        }
        Ok(page)
    }

    /// A page with these bytes, and zeros behind them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let read = |into: &mut [u8], at: u64| {
            let there = bytes.get(at as usize..).unwrap_or_default();
            let n = into.len().min(there.len());
            into[..n].copy_from_slice(&there[..n]);
            Ok(())
        };
        Self::read(read).unwrap_or(Self::EMPTY)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = match at.checked_sub(PAGE) {
            None => self.first.get(at..at + 4),
            Some(at) => self.more.get(at..at + 4),
        };
        bytes.map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The slots from this one on are free.
    pub(crate) fn extent(&self) -> usize {
        (self.u32_at(EXTENT) as usize).clamp(FIRST_SLOTS, SLOTS)
    }

    /// Whether the extent covers further pages although no slot there is in use.
    pub(crate) fn extends_in_vain(&self) -> bool {
        self.extent() > FIRST_SLOTS && (FIRST_SLOTS..self.extent()).all(|slot| !self.is_used(slot))
    }

    /// Whether a slot's state says that it is in use.
    pub(crate) fn is_used(&self, slot: usize) -> bool {
        self.u32_at(slot_offset(slot) + 4) != 0
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    /// The waiter of a slot; `None` if no connection waits in the queue there, or its bytes
    /// describe no possible waiter.
    pub(crate) fn waiter(&self, slot: usize) -> Option<Waiter> {
        let state = match self.u32_at(slot_offset(slot) + 4) {
            1 => SlotState::Present,
            2 => SlotState::Woken,
            3 => SlotState::Away,
            4 => SlotState::Refused,
            _ => return None,
        };
        Some(self.described(slot, state))
    }

    /// All connections that are shown as [`SlotState::Outside`] the queue, in the order of their slots.
    pub(crate) fn outside(&self) -> impl Iterator<Item = Waiter> + '_ {
        let is_outside =
            |slot: &usize| self.u32_at(slot_offset(*slot) + 4) == SlotState::Outside as u32;
        (0..self.extent()).filter(is_outside).map(|slot| self.described(slot, SlotState::Outside))
    }

    /// The connection that a slot's bytes describe, in that state.
    fn described(&self, slot: usize, state: SlotState) -> Waiter {
        let at = slot_offset(slot);
        let mut program = [0; 12];
        for (nth, word) in program.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&self.u32_at(at + 20 + 4 * nth).to_le_bytes());
        }
        let process = self.u32_at(at + 16);
        Waiter {
            slot,
            word: self.u32_at(at),
            state,
            ticket: Ticket(self.u32_at(at + 8)),
            since: Since(self.u32_at(at + 12)),
            looks: Looks((process & !UPKEEP) >> PID_BITS),
            pid: process & PID,
            purpose: Purpose::of(process & UPKEEP != 0),
            program,
        }
    }

    /// The futex word of a slot.
    pub(crate) fn word(&self, slot: usize) -> u32 {
        self.u32_at(slot_offset(slot))
    }

    /// All waiters, in the order of their slots.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Waiter> + '_ {
        (0..self.extent()).filter_map(|slot| self.waiter(slot))
    }

    /// The turn, expired or not; `None` if there is none, or no waiter with its ticket is there to take it.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let slot = self.u32_at(TURN + 12) as usize;
        let ticket = Ticket(self.u32_at(TURN + 8));
        let waiter = (slot < SLOTS).then(|| self.waiter(slot)).flatten()?;
        (waiter.is_there() && waiter.ticket == ticket).then(|| Turn {
            ticket,
            expires: self.u64_at(TURN),
            slot,
        })
    }

    /// The label of a holder of the write lock, and its process id; `None` if it waits for no other database.
    pub(crate) fn label(&self) -> Option<(u64, u32)> {
        let label = self.u64_at(LABEL);
        (label != 0).then(|| (label, self.u32_at(LABEL + 8)))
    }

    /// The ticket that was given last.
    pub(crate) fn counter(&self) -> Ticket {
        Ticket(self.u32_at(COUNTER))
    }

    /// The ticket of a waiter that comes after all others. Processes that ask at the same time may get the same ticket.
    pub(crate) fn next_ticket(&self) -> Ticket {
        let counter = self.counter();
        let ahead = self.waiters().map(|waiter| waiter.ticket.0.wrapping_sub(counter.0));
        let ahead = ahead.filter(|ahead| *ahead < Ticket::AHEAD).max().unwrap_or(0);
        Ticket(counter.0.wrapping_add(ahead + 1))
    }

    /// The ticket of a waiter that goes ahead of all others.
    pub(crate) fn first_ticket(&self) -> Ticket {
        Ticket(self.counter().0.wrapping_sub(Ticket::FIRST))
    }
}

impl Turn {
    /// Whether it is the turn of the waiter with that slot and ticket.
    pub(crate) fn is_for(&self, slot: usize, ticket: Ticket) -> bool {
        (self.slot, self.ticket) == (slot, ticket)
    }

    /// Whether it still binds others at `now`. No turn binds for longer than [`TURN_NS`], whatever the page says.
    pub(crate) fn binds(&self, now: u64) -> bool {
        self.expires > now && self.expires - now <= TURN_NS
    }

    /// Its offset in the page, and its bytes.
    pub(crate) fn encode(&self) -> (u64, [u8; 16]) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.expires.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.ticket.0.to_le_bytes());
        bytes[12..].copy_from_slice(&(self.slot as u32).to_le_bytes());
        (TURN as u64, bytes)
    }
}

impl Waiter {
    /// Whether it is there to take a turn.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.state, SlotState::Present | SlotState::Woken)
    }

    /// Whether it sleeps at `now`, in ns of [`crate::sys::shared_ns`], and comes when it is woken.
    pub(crate) fn sleeps(&self, now: u64) -> bool {
        self.state == SlotState::Present && !self.looks.is_overdue(now)
    }

    /// Its offset in the page, and its bytes.
    pub(crate) fn encode(&self) -> (u64, [u8; SLOT_SIZE]) {
        let mut bytes = [0; SLOT_SIZE];
        bytes[..4].copy_from_slice(&self.word.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.state as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.ticket.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.since.0.to_le_bytes());
        let kind = if self.purpose == Purpose::Upkeep { UPKEEP } else { 0 };
        let process = self.pid & PID | self.looks.0 << PID_BITS | kind;
        bytes[16..20].copy_from_slice(&process.to_le_bytes());
        bytes[20..].copy_from_slice(&self.program);
        (slot_offset(self.slot) as u64, bytes)
    }
}

/// Offset and bytes of the counter after that ticket was given.
pub(crate) fn encode_counter(given: Ticket) -> (u64, [u8; 4]) {
    (COUNTER as u64, given.0.to_le_bytes())
}

/// Offset and bytes of the label of a holder with that process id.
pub(crate) fn encode_label(label: u64, pid: u32) -> (u64, [u8; 12]) {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&label.to_le_bytes());
    bytes[8..].copy_from_slice(&pid.to_le_bytes());
    (LABEL as u64, bytes)
}

/// Offset and bytes of the extent after that slot was taken; `None`: all slots behind the first
/// page are free.
pub(crate) fn encode_extent(taken: Option<usize>) -> (u64, [u8; 4]) {
    let extent = taken.map_or(FIRST_SLOTS, |slot| {
        // The extent grows by whole pages.
        let pages = (slot - FIRST_SLOTS.min(slot)) / PAGE_SLOTS + 1;
        FIRST_SLOTS + pages * PAGE_SLOTS
    });
    (EXTENT as u64, (extent as u32).to_le_bytes())
}

/// The bytes of a futex word and the state behind it, as a waker writes them.
pub(crate) fn encode_state(word: u32, state: SlotState) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    bytes[4..].copy_from_slice(&(state as u32).to_le_bytes());
    bytes
}

/// Offset of a slot, which begins with its futex word.
pub(crate) const fn slot_offset(slot: usize) -> usize {
    match slot.checked_sub(FIRST_SLOTS) {
        None => FIRST_SLOT + slot * SLOT_SIZE,
        Some(behind) => PAGE + behind * SLOT_SIZE,
    }
}

/// The bytes of the page with the kinds of transactions that write after they have read.
pub(crate) struct KindEntries(pub(crate) [u8; KIND_ENTRIES * 4]);

impl KindEntries {
    /// The `nth` entry.
    pub(crate) fn u32_at(&self, nth: usize) -> u32 {
        let at = nth * 4;
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}

/// The bytes of the page that belong to group commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupBytes(pub(crate) [u8; GROUP_SIZE]);

impl GroupBytes {
    /// The word at an offset within these bytes; the one at 0 is the futex word.
    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Whether the record says that a sync of some WAL has failed and was not repaired.
    pub(crate) fn tells_of_a_failure(&self) -> bool {
        self.u32_at(16) % 2 != 0
    }
}

#[cfg(test)]
mod tests;

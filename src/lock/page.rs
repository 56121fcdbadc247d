//! The queue page: who waits for the write lock, and whose turn it is.
//!
//! It carries hints only. The kernel's locks decide who owns; whatever these bytes say, and whoever
//! wrote them, at worst somebody waits a little longer. The one exception is the record of group
//! commit (`group_commit::record`): if whoever may write the sidecar forges it, COMMIT may return before its sync. It is read and written by system calls, so
//! that a sidecar cut short under it is an error and not a SIGBUS; only futexes know its address.
//!
//! | bytes | field | written by |
//! |---|---|---|
//! | 0 to 15 | `kanban-vfs`, a NUL, 0 or, if somebody else may have made the file, 1, layout version 1 (u32) | whoever makes the sidecar, or finds it without them |
//! | 16 to 23 | turn: the ticket it is for, 0 for none (u64) | the holder, before it unlocks |
//! | 24 to 31 | turn: when it expires (u64) | the same |
//! | 32 to 35 | turn: the slot it is for (u32) | the same |
//! | 36 to 39 | group commit: futex word; a record changes it, and the end of a lead (u32) | the leader of a sync |
//! | 40 to 47 | record: the WAL's salts, as the wal-index has them (2 u32) | the same |
//! | 48 to 51 | record: so many of its frames are durable (u32) | the same |
//! | 52 to 55 | record: how often a sync has failed, or was made up for; odd while one has (u32) | the same |
//! | 56 to 63 | record: checksum of the three, see `group_commit::record` (2 u32) | the same |
//! | 56 to 63 | on Windows, which has no group commit: the last byte that the holder of the write lock has locked, 0 for none (i64) | the holder, while it has the lock |
//! | 64 + 32 n | slot n: | |
//! | + 0 to 3 | futex word; every change wakes its waiter (u32) | a waker |
//! | + 4 to 7 | state, see [`State`] (u32) | the slot's process; a waker |
//! | + 8 to 15 | ticket: when its waiter was first refused, 0 for nobody (u64) | the slot's process |
//! | + 16 to 19 | process id, and in bit 31 whether it waits for upkeep (u32) | the slot's process |
//! | + 20 to 31 | program name, NUL-padded | the slot's process |
//!
//! Times are nanoseconds of CLOCK_MONOTONIC. A slot is its process's as long as that holds the
//! kernel's lock on the slot's byte; what an unlocked slot says is void.
//!
//! | state of a slot | becomes | when |
//! |---|---|---|
//! | free | `Present` | a refused connection sleeps in the VFS for the first time |
//! | `Present` | `Woken` | a holder that unlocks lets it try, or gives it the turn |
//! | `Woken` | `Present` | its attempt was refused again, and SQLite sleeps again |
//! | `Woken` | `Away` | its turn has expired: a holder passes it over until it is back |
//! | `Away` | `Present` | SQLite sleeps again |
//! | any | free | it has the lock, has given up, or has closed |

/// The size of a sidecar, in bytes.
pub(crate) const PAGE: usize = 4096;

/// What the sidecar begins with: 16 bytes, the last four the version of the layout.
pub(crate) const HEADER: [u8; 16] = *b"kanban-vfs\0\0\x01\0\0\0";

/// What one begins with that somebody else may have made: it was found empty, cut short or zeroed. It is used, but its
/// rights stay what they are, and nobody deletes it.
pub(crate) const FOUND: [u8; 16] = *b"kanban-vfs\0\x01\x01\0\0\0";

/// The futex word of group commit; the record follows it.
pub(crate) const GROUP: usize = 36;
pub(crate) const GROUP_SIZE: usize = 28;
const _: () = assert!(GROUP + GROUP_SIZE == FIRST_SLOT);

/// How many can wait in the queue; more poll.
pub(crate) const SLOTS: usize = 126;

const TURN: usize = 16;
/// Where the holder says what it has locked, if the kernel does not tell.
pub(crate) const LAST_BYTE: u64 = 56;
const FIRST_SLOT: usize = 64;
const SLOT_SIZE: usize = 32;
const UPKEEP: u32 = 1 << 31;
const _: () = assert!(FIRST_SLOT + SLOTS * SLOT_SIZE <= PAGE);

/// A turn is void this long after it was given, in ns: nobody waits longer for a waiter that does
/// not come. Longer than the kernel takes to run a woken process, by far.
pub(crate) const TURN_NS: u64 = 50_000_000;

/// What the waiter of a slot is doing.
/// 0 is a slot that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// It sleeps in the VFS and comes when woken, or tries and is about to sleep again.
    Present = 1,
    /// It was woken and is about to try.
    Woken = 2,
    /// It has missed its turn, and may come back or not.
    Away = 3,
}

/// A waiter, as its slot describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) slot: usize,
    pub(crate) word: u32,
    pub(crate) state: State,
    pub(crate) ticket: u64,
    pub(crate) pid: u32,
    pub(crate) is_upkeep: bool,
    pub(crate) program: [u8; 12],
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) ticket: u64,
    pub(crate) expires: u64,
    pub(crate) slot: usize,
}

/// A copy of the page at one moment.
pub(crate) struct Page(pub(crate) [u8; PAGE]);

impl Page {
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    /// The waiter of a slot; `None` if the slot is free or says nothing possible.
    pub(crate) fn waiter(&self, slot: usize) -> Option<Waiter> {
        let at = slot_offset(slot);
        let state = match self.u32_at(at + 4) {
            1 => State::Present,
            2 => State::Woken,
            3 => State::Away,
            _ => return None,
        };
        let ticket = self.u64_at(at + 8);
        let mut program = [0; 12];
        program.copy_from_slice(&self.0[at + 20..at + 32]);
        (ticket != 0).then(|| Waiter {
            slot,
            word: self.u32_at(at),
            state,
            ticket,
            pid: self.u32_at(at + 16) & !UPKEEP,
            is_upkeep: self.u32_at(at + 16) & UPKEEP != 0,
            program,
        })
    }

    /// The futex word of a slot.
    pub(crate) fn word(&self, slot: usize) -> u32 {
        self.u32_at(slot_offset(slot))
    }

    /// All waiters, in the order of their slots.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Waiter> + '_ {
        (0..SLOTS).filter_map(|slot| self.waiter(slot))
    }

    /// The turn, expired or not; `None` if there is none or it is nobody's.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let slot = self.u32_at(TURN + 16) as usize;
        let turn = Turn { ticket: self.u64_at(TURN), expires: self.u64_at(TURN + 8), slot };
        let waiter = (slot < SLOTS).then(|| self.waiter(slot)).flatten()?;
        (waiter.ticket == turn.ticket).then_some(turn)
    }
}

impl Turn {
    /// Whether it still binds others. No turn binds for longer than [`TURN_NS`].
    pub(crate) fn binds(&self, now: u64) -> bool {
        self.expires > now && self.expires - now <= TURN_NS
    }

    /// Its bytes and where they go.
    pub(crate) fn encode(&self) -> (u64, [u8; 20]) {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.ticket.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.expires.to_le_bytes());
        bytes[16..].copy_from_slice(&(self.slot as u32).to_le_bytes());
        (TURN as u64, bytes)
    }
}

impl Waiter {
    /// Its bytes and where they go.
    pub(crate) fn encode(&self) -> (u64, [u8; SLOT_SIZE]) {
        let mut bytes = [0; SLOT_SIZE];
        bytes[..4].copy_from_slice(&self.word.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.state as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.ticket.to_le_bytes());
        let kind = if self.is_upkeep { UPKEEP } else { 0 };
        bytes[16..20].copy_from_slice(&(self.pid | kind).to_le_bytes());
        bytes[20..].copy_from_slice(&self.program);
        (slot_offset(self.slot) as u64, bytes)
    }
}

/// A futex word followed by a state, as a waker writes them.
pub(crate) fn encode_state(word: u32, state: State) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    bytes[4..].copy_from_slice(&(state as u32).to_le_bytes());
    bytes
}

/// Where a slot, and with it its futex word, begins.
pub(crate) fn slot_offset(slot: usize) -> usize {
    FIRST_SLOT + slot * SLOT_SIZE
}

/// The bytes of the page that are group commit's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupBytes(pub(crate) [u8; GROUP_SIZE]);

impl GroupBytes {
    /// A word of them; the first is the futex word.
    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Whether it says of some WAL that a sync has failed and was not made up for.
    pub(crate) fn tells_of_a_failure(&self) -> bool {
        self.u32_at(16) % 2 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(page: &mut Page, (at, bytes): (u64, impl AsRef<[u8]>)) {
        let at = at as usize;
        page.0[at..at + bytes.as_ref().len()].copy_from_slice(bytes.as_ref());
    }

    #[test]
    fn what_is_written_is_read() {
        let mut page = Page([0; PAGE]);
        let waiter = Waiter {
            slot: SLOTS - 1,
            word: 7,
            state: State::Present,
            ticket: 1 << 40,
            pid: 99,
            is_upkeep: true,
            program: *b"worker\0\0\0\0\0\0",
        };
        put(&mut page, waiter.encode());
        assert_eq!(page.waiters().collect::<Vec<_>>(), [waiter]);
        assert_eq!(page.turn(), None);
        let turn = Turn { ticket: waiter.ticket, expires: 5 + TURN_NS, slot: waiter.slot };
        put(&mut page, turn.encode());
        assert_eq!(page.turn(), Some(turn));
        assert!(turn.binds(5) && !turn.binds(5 + TURN_NS), "it expires");
        assert!(!turn.binds(4), "nobody can give a turn for longer");
        put(&mut page, (slot_offset(waiter.slot) as u64, [0; SLOT_SIZE]));
        assert_eq!(page.turn(), None, "a turn of a waiter that has left is nobody's");
    }

    #[test]
    fn random_bytes_are_read_without_harm() {
        let mut seed = 1_u64;
        for _ in 0..2000 {
            let mut page = Page([0; PAGE]);
            for byte in &mut page.0 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 33) as u8 & 3;
            }
            assert!(page.waiters().count() <= SLOTS);
            assert!(page.turn().is_none_or(|turn| turn.slot < SLOTS));
        }
    }

    /// Clients of other versions, and `kanban-vfs status`, read the same page: where everything is does not
    /// change while the version of the layout does not.
    #[test]
    fn the_layout_is_what_the_table_says() {
        let slot = 3;
        let mut bytes = [0; SLOT_SIZE];
        bytes[..20].copy_from_slice(&[
            1, 2, 3, 4, 2, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x80,
        ]);
        bytes[20..].copy_from_slice(b"a worker\0\0\0\0");
        let waiter = Waiter {
            slot,
            word: 0x0403_0201,
            state: State::Woken,
            ticket: 0x0c0b_0a09_0807_0605,
            pid: 0x000f_0e0d,
            is_upkeep: true,
            program: *b"a worker\0\0\0\0",
        };
        let mut page = Page([0; PAGE]);
        page.0[160..192].copy_from_slice(&bytes);
        assert_eq!(page.waiters().collect::<Vec<_>>(), [waiter]);
        assert_eq!((page.word(slot), page.word(slot + 1)), (waiter.word, 0));
        assert_eq!(waiter.encode(), (160, bytes));
        for (state, number) in [(State::Present, 1), (State::Woken, 2), (State::Away, 3)] {
            page.0[164] = number;
            assert_eq!(page.waiter(slot).map(|waiter| waiter.state), Some(state));
            assert_eq!(encode_state(0x0403_0201, state), [1, 2, 3, 4, number, 0, 0, 0]);
            let other = Waiter { state, is_upkeep: false, ..waiter }.encode().1;
            assert_eq!((other[4], other[19]), (number, 0));
            page.0[179] = 0;
            assert_eq!(page.waiter(slot).map(|waiter| waiter.is_upkeep), Some(false));
            page.0[179] = 0x80;
        }
        for nothing in [0, 4] {
            page.0[164] = nothing;
            assert_eq!(page.waiter(slot), None);
        }
        page.0[164] = 1;
        page.0[168..176].fill(0);
        assert_eq!(page.waiter(slot), None, "a ticket of 0 is nobody's");

        let turn = Turn { ticket: waiter.ticket, expires: 0x1817_1615_1413_1211, slot };
        let mut turns = [0; 20];
        turns[..8].copy_from_slice(&bytes[8..16]);
        turns[8..16].copy_from_slice(&[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        turns[16] = 3;
        assert_eq!(turn.encode(), (16, turns));
        page.0[168..176].copy_from_slice(&bytes[8..16]);
        page.0[16..36].copy_from_slice(&turns);
        assert_eq!(page.turn(), Some(turn));
        page.0[32] = SLOTS as u8;
        assert_eq!(page.turn(), None, "of no slot");
        page.0[32] = 3;
        page.0[17] = 0;
        assert_eq!(page.turn(), None, "of another waiter");
        assert_eq!((GROUP, LAST_BYTE, slot_offset(SLOTS)), (36, 56, PAGE));
    }
}

//! Who holds the write lock, said by the kernel's lock itself.
//!
//! A holder locks a range of bytes that always has [`WRITE_BYTE`] in it, so that any two exclude each
//! other, and that ends so many bytes later, a number made of its process id and the time. Whoever
//! is refused asks the kernel for the range in its way. Nothing is written anywhere, the uncontended
//! lock costs no more than one byte would, and what it says dies with the holder, or with a child
//! that has inherited the lock ([`super::keepers`]).

use std::time::Duration;

use crate::sys::{self, Range};

/// The byte of the sidecar that every holder locks.
pub(crate) const WRITE_BYTE: i64 = 8192;

/// The byte before it, which processes with waiters lock shared, and holders too if they can.
pub(crate) const WAITERS_BYTE: i64 = WRITE_BYTE - 1;

const PID_BITS: u32 = 22;
const MS_BITS: u32 = 40;
/// The bit that says that it is for upkeep.
const UPKEEP: u64 = 1 << (PID_BITS + MS_BITS);
const _: () = assert!(PID_BITS + MS_BITS < 63, "the last byte is a positive i64");

/// A holder of the write lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process id, in its own pid namespace: to show, not to rely on.
    pub(crate) pid: u32,
    /// When it took the lock, in ms of CLOCK_MONOTONIC modulo 2^40 (35 years).
    since_ms: u64,
    /// Whether it is for upkeep, which makes nobody's snapshot stale.
    pub(crate) is_upkeep: bool,
}

impl Holder {
    /// This process, since `now`, in ns of CLOCK_MONOTONIC.
    pub(crate) fn since(now: u64, is_upkeep: bool) -> Self {
        Self { pid: sys::pid() & mask(PID_BITS) as u32, since_ms: to_ms(now), is_upkeep }
    }

    /// The range this holder locks.
    pub(crate) fn range(self) -> Range {
        self.range_from(WRITE_BYTE)
    }

    /// The same, from an earlier byte on.
    pub(crate) fn range_from(self, start: i64) -> Range {
        let kind = if self.is_upkeep { UPKEEP } else { 0 };
        let number = u64::from(self.pid) | self.since_ms << PID_BITS | kind;
        Range { start, len: WRITE_BYTE - start + 1 + number as i64 }
    }

    /// The last byte it locks, which no other holder does.
    pub(crate) fn last_byte(self) -> i64 {
        let range = self.range();
        range.start + range.len - 1
    }

    /// The holder of a locked range; `None` if no holder locks such a range.
    pub(crate) fn from_range(range: Range) -> Option<Self> {
        let number = range.start.checked_add(range.len - 1)?.checked_sub(WRITE_BYTE)? as u64;
        let possible = (WAITERS_BYTE..=WRITE_BYTE).contains(&range.start)
            && range.len > 0
            && number < UPKEEP << 1;
        possible.then_some(Self {
            pid: (number & mask(PID_BITS)) as u32,
            since_ms: number >> PID_BITS & mask(MS_BITS),
            is_upkeep: number & UPKEEP != 0,
        })
    }

    /// How long it has held the lock, to the ms: right unless it is in another time namespace.
    pub(crate) fn held(self) -> Duration {
        let ms = to_ms(sys::monotonic_ns()).wrapping_sub(self.since_ms) & mask(MS_BITS);
        // A holder whose clock is ahead began in the future.
        Duration::from_millis(if ms > mask(MS_BITS - 1) { 0 } else { ms })
    }
}

/// All that a release gives back: whatever the range was.
pub(crate) const WRITE_RANGE: Range = Range { start: WRITE_BYTE, len: 0 };

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

fn to_ms(ns: u64) -> u64 {
    (ns / 1_000_000) & mask(MS_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_who_and_since_when() {
        for pid in [0, 1, 4_194_303] {
            for since_ms in [0, 1, mask(MS_BITS)] {
                let holder = Holder { pid, since_ms, is_upkeep: pid == 1 };
                let range = holder.range();
                assert!(range.len > 0 && range.start.checked_add(range.len).is_some());
                assert_eq!(Holder::from_range(range), Some(holder));
                assert_eq!(Holder::from_range(holder.range_from(WAITERS_BYTE)), Some(holder));
            }
        }
        let holder = Holder::since(sys::monotonic_ns(), false);
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.held() < Duration::from_secs(60));
    }

    #[test]
    fn what_no_holder_locks_names_nobody() {
        for (start, len) in [(0, 5), (WRITE_BYTE, 0), (WRITE_BYTE, -1), (WRITE_BYTE, i64::MAX)] {
            assert_eq!(Holder::from_range(Range { start, len }), None, "{start}+{len}");
        }
    }

    #[test]
    fn a_clock_that_is_ahead_shows_no_time_at_all() {
        let holder = Holder::since(sys::monotonic_ns() + 5_000_000_000, false);
        assert_eq!(holder.held(), Duration::ZERO);
    }

    /// What `8192 + pid + (ms << 22) + (upkeep << 62)` can not be is nobody's, wherever it begins or ends.
    #[test]
    fn a_range_that_is_near_names_nobody() {
        for (start, len) in [
            (WAITERS_BYTE, 1),
            (WAITERS_BYTE - 1, 3),
            (WRITE_BYTE + 1, 5),
            (0, WRITE_BYTE + 100),
            (WRITE_BYTE + 5, -4),
        ] {
            assert_eq!(Holder::from_range(Range { start, len }), None, "{start}+{len}");
        }
        let holder = Holder { pid: 3, since_ms: 5, is_upkeep: true };
        let last = 8192 + 3 + (5 << 22) + (1 << 62);
        assert_eq!(holder.range(), Range { start: 8192, len: last - 8192 + 1 });
        assert_eq!(holder.range_from(8191), Range { start: 8191, len: last - 8191 + 1 });
    }

    /// It took the lock five seconds ago, also if the clock has gone round its 40 bits since.
    #[test]
    fn how_long_it_has_held_the_lock_is_told() {
        let now = sys::monotonic_ns();
        let five_s = Duration::from_secs(5)..Duration::from_secs(60);
        let holder = Holder::since(now.wrapping_sub(5_000_000_000), false);
        assert!(five_s.contains(&holder.held()), "{:?}", holder.held());
        let since_ms = to_ms(now).wrapping_sub(5000) & mask(MS_BITS);
        let holder = Holder { pid: 1, since_ms, is_upkeep: false };
        assert!(five_s.contains(&holder.held()), "{:?}", holder.held());
        assert_eq!(to_ms(1_234_567_890), 1234);
        assert_eq!(to_ms(u64::MAX), u64::MAX / 1_000_000 % (1 << 40));
    }
}

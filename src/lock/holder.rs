//! The holder of the write lock, as the kernel's lock itself describes it.
//!
//! A holder locks a range of bytes that always includes [`WRITE_BYTE`], so that any two holders
//! exclude each other. How far the range reaches beyond that byte is a number made of the holder's
//! process id and the time. A process that is refused asks the kernel for the conflicting range.
//! Nothing is written, and the uncontended lock costs no more than one byte would. The description
//! vanishes with the holder, or with a child that has inherited the lock ([`super::keepers`]).

use std::time::Duration;

use crate::sys::{self, FileLock, Inode, Range};

/// The byte of the sidecar that every holder locks.
pub(crate) const WRITE_BYTE: i64 = 8192;

/// The byte before it. Processes with waiters lock it shared; a holder locks it too if nobody waits.
pub(crate) const WAITERS_BYTE: i64 = WRITE_BYTE - 1;

/// The bits of a process id. proc(5), /proc/sys/kernel/pid_max
pub(super) const PID_BITS: u32 = 22;
const MS_BITS: u32 = 40;
/// The bit of the number that is set if the lock is held for upkeep.
const UPKEEP: u64 = 1 << (PID_BITS + MS_BITS);
const _: () = assert!(PID_BITS + MS_BITS < 63, "the last byte is a positive i64");

/// What the write lock is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A write transaction, or first-connect work.
    Write,
    /// A checkpoint or recovery, which makes nobody's snapshot stale.
    Upkeep,
}

impl Purpose {
    pub(super) fn of(is_upkeep: bool) -> Self {
        if is_upkeep { Self::Upkeep } else { Self::Write }
    }
}

/// A holder of the write lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process id, in its own pid namespace: to show, not to rely on.
    pub(crate) pid: u32,
    /// When it took the lock, in ms of CLOCK_MONOTONIC modulo 2^40 (35 years).
    since_ms: u64,
    pub(crate) purpose: Purpose,
}

impl Holder {
    /// This process as a holder since `now`, in ns of CLOCK_MONOTONIC.
    pub(crate) fn since(now: u64, purpose: Purpose) -> Self {
        Self { pid: sys::pid() & mask(PID_BITS) as u32, since_ms: to_ms(now), purpose }
    }

    /// The range this holder locks, from [`WRITE_BYTE`] on.
    pub(crate) fn range(self) -> Range {
        self.range_from(WRITE_BYTE)
    }

    /// The range this holder locks, from an earlier byte on.
    pub(crate) fn range_from(self, start: i64) -> Range {
        let kind = if self.purpose == Purpose::Upkeep { UPKEEP } else { 0 };
        let number = u64::from(self.pid) | self.since_ms << PID_BITS | kind;
        Range { start, len: WRITE_BYTE - start + 1 + number as i64 }
    }

    /// Whether a lock on the sidecar is this holder's.
    pub(crate) fn has(self, lock: FileLock) -> bool {
        lock.is_exclusive && lock.last == self.last_byte()
    }

    /// The last byte that this holder locks. No other holder's range ends there.
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
            purpose: Purpose::of(number & UPKEEP != 0),
        })
    }

    /// How long it has held the lock, to the ms. Wrong if the holder is in another time namespace.
    pub(crate) fn held(self) -> Duration {
        let ms = to_ms(sys::monotonic_ns()).wrapping_sub(self.since_ms) & mask(MS_BITS);
        // A holder whose clock is ahead seems to have begun in the future.
        Duration::from_millis(if ms > mask(MS_BITS - 1) { 0 } else { ms })
    }

    /// Whether the process with its id in this pid namespace is the holder's. That process is not
    /// the holder if it is younger than the lock. Nor is it if it does not have the sidecar open,
    /// as far as this process may look and finds out within `limit`. Nor is it if it is this
    /// process and the holder is not `ours`. pid_namespaces(7)
    pub(crate) fn is_to_be_seen(self, sidecar: Inode, ours: bool, limit: Duration) -> bool {
        ours || self.pid != sys::pid()
            && !sys::is_gone(self.pid, self.held())
            && sys::has_open(self.pid, sidecar, limit) != Some(false)
    }
}

/// What a release unlocks: every holder's range, however long it is.
pub(crate) const WRITE_RANGE: Range = Range { start: WRITE_BYTE, len: 0 };

/// The greatest number of that many bits.
const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// A time in ns as [`Holder`] keeps it, in ms.
fn to_ms(ns: u64) -> u64 {
    (ns / 1_000_000) & mask(MS_BITS)
}

#[cfg(test)]
mod tests;

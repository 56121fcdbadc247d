//! Which connection of this process has the write lock, or is trying for it.
//!
//! The kernel does not tell the connections of one process apart, so they exclude each other by this flag.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Database;
use crate::lock::queue::Purpose;
use crate::sys;

/// The bit in the number of a connection that does upkeep.
const UPKEEP: u64 = 1 << 63;

/// The flag of one database.
#[derive(Default)]
pub(crate) struct OwnerFlag {
    /// The owner's number, and whether it does upkeep; 0 for none.
    connection: AtomicU64,
    /// Since when it does upkeep, in ns of CLOCK_MONOTONIC.
    upkeep_since: AtomicU64,
}

impl OwnerFlag {
    /// Takes the flag for a connection, at `now`. False if another connection has it. Dropping an
    /// [`Ownership`] releases it.
    #[inline(always)]
    pub(in crate::lock) fn try_take(&self, connection: u64, purpose: Purpose, now: u64) -> bool {
        let upkeep = match purpose {
            Purpose::Write => 0,
            Purpose::Upkeep => {
                // Stored before the flag is taken. If another connection does upkeep, its upkeep
                // only looks younger.
                self.upkeep_since.store(now, Ordering::Relaxed);
                UPKEEP
            }
        };
        let (owner, acquire, relaxed) = (connection | upkeep, Ordering::AcqRel, Ordering::Relaxed);
        self.connection.compare_exchange(0, owner, acquire, relaxed).is_ok()
    }

    pub(super) fn is_taken(&self) -> bool {
        self.connection.load(Ordering::Relaxed) != 0
    }

    /// The owner's number; 0 for none.
    pub(super) fn connection(&self) -> u64 {
        self.connection.load(Ordering::Relaxed) & !UPKEEP
    }

    /// For how long the owner has done upkeep, if it does.
    pub(super) fn upkeep(&self) -> Option<Duration> {
        if self.connection.load(Ordering::Acquire) & UPKEEP == 0 {
            return None;
        }
        let since = self.upkeep_since.load(Ordering::Relaxed);
        Some(Duration::from_nanos(sys::monotonic_ns().saturating_sub(since)))
    }
}

/// The right to try for the write lock among the connections of this process. Dropping it releases
/// the flag. A holder of the write lock keeps the flag by forgetting this value, and makes a new
/// one to release the lock.
pub(crate) struct Ownership<'d>(pub(in crate::lock) &'d Database);

impl Drop for Ownership<'_> {
    fn drop(&mut self) {
        self.0.owner.connection.store(0, Ordering::Release);
    }
}

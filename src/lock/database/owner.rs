//! Which connection of this process has the write lock, or is trying for it.
//!
//! The kernel does not tell the connections of one process apart, so they exclude each other by this flag.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lock::queue::Purpose;
use crate::sys;

/// The bit beside a connection's number that says that it does upkeep.
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
    /// Takes the flag for a connection, at `now`; `None` if another has it.
    #[inline(always)]
    pub(crate) fn try_take(
        &self,
        connection: u64,
        purpose: Purpose,
        now: u64,
    ) -> Option<Ownership<'_>> {
        let upkeep = match purpose {
            Purpose::Write => 0,
            Purpose::Upkeep => {
                // Before the flag shows it. If another connection does upkeep, that only looks younger.
                self.upkeep_since.store(now, Ordering::Relaxed);
                UPKEEP
            }
        };
        let owner = connection | upkeep;
        self.connection
            .compare_exchange(0, owner, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then(|| Ownership(self))
    }

    /// What a holder of the write lock has kept by [`Ownership::keep`].
    #[inline(always)]
    pub(crate) fn kept(&self) -> Ownership<'_> {
        Ownership(self)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.connection.load(Ordering::Relaxed) != 0
    }

    /// For how long the owner has done upkeep, if it does.
    pub(crate) fn upkeep(&self) -> Option<Duration> {
        if self.connection.load(Ordering::Acquire) & UPKEEP == 0 {
            return None;
        }
        let since = self.upkeep_since.load(Ordering::Relaxed);
        Some(Duration::from_nanos(sys::monotonic_ns().saturating_sub(since)))
    }
}

/// The right to try for the write lock among the connections of this process. Dropping it releases the flag.
pub(crate) struct Ownership<'d>(&'d OwnerFlag);

impl Ownership<'_> {
    /// Keeps the flag until [`OwnerFlag::kept`] is dropped.
    #[inline(always)]
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Ownership<'_> {
    fn drop(&mut self) {
        self.0.connection.store(0, Ordering::Release);
    }
}

//! Locks of SQLite's that an error path unlocks.
//!
//! After an error of xLock or xShmLock nobody knows whether the base file holds the lock, and SQLite does not ask again.
//! So the lock is unlocked all the same, which does no harm if it was not held. An unlock that fails is tried once more,
//! for the same reason: SQLite takes a lock that it has unlocked for unlocked, whatever the call returned.

use super::base_file::BaseFile;
use crate::ffi::host::Host;
use crate::ffi::{LockLevel, ResultCode, ShmFlags, ShmSlots};

/// Unlocks, and tries once more after an error. What the last attempt returned.
pub(crate) fn unlock(unlock: impl Fn() -> ResultCode) -> ResultCode {
    match unlock() {
        ResultCode::OK => ResultCode::OK,
        _ => unlock(),
    }
}

/// Slots of the wal-index that the base file holds, or may hold after an error: unlocked when this is dropped.
pub(super) struct HeldSlots<B: BaseFile> {
    base: B,
    slots: ShmSlots,
    unlock: ShmFlags,
}

impl<B: BaseFile> HeldSlots<B> {
    /// Those that a call of xShmLock with these flags has locked, or may have.
    pub(super) fn after(base: B, slots: impl Into<ShmSlots>, flags: ShmFlags) -> Self {
        Self { base, slots: slots.into(), unlock: flags.unlock() }
    }

    /// Locks slots exclusively.
    ///
    /// # Errors
    /// What the base file answered. Nothing is locked then.
    pub(super) fn lock(
        base: B,
        slots: impl Into<ShmSlots>,
        sqlite: &Host,
    ) -> Result<Self, ResultCode> {
        let (slots, flags) = (slots.into(), ShmFlags::LOCK_EXCLUSIVE);
        match base.shm_lock(slots, flags) {
            ResultCode::OK => Ok(Self::after(base, slots, flags)),
            rc => {
                Self::unlock_after_error(base, slots, flags, rc, sqlite);
                Err(rc)
            }
        }
    }

    /// A call of xShmLock to lock slots has failed with `rc`: unlocks them, unless they were refused or this SQLite would
    /// unlock those of another connection.
    pub(super) fn unlock_after_error(
        base: B,
        slots: impl Into<ShmSlots>,
        flags: ShmFlags,
        rc: ResultCode,
        sqlite: &Host,
    ) {
        if !rc.is_busy() && sqlite.unlocks_own_slots_only() {
            drop(Self::after(base, slots, flags));
        }
    }

    /// Leaves them to SQLite, which unlocks them.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }

    /// Unlocks them now. What the base file answered.
    pub(super) fn unlock(self) -> ResultCode {
        let rc = unlock(|| self.base.shm_lock(self.slots, self.unlock));
        self.keep();
        rc
    }
}

impl<B: BaseFile> Drop for HeldSlots<B> {
    fn drop(&mut self) {
        unlock(|| self.base.shm_lock(self.slots, self.unlock));
    }
}

/// A lock on the database that the base file holds, or may hold after an error: unlocked down to a level when this is dropped.
pub(super) struct HeldLevel<B: BaseFile> {
    base: B,
    to: LockLevel,
}

impl<B: BaseFile> HeldLevel<B> {
    /// A lock above the level `to`.
    pub(super) fn above(base: B, to: LockLevel) -> Self {
        Self { base, to }
    }

    /// Leaves it to SQLite, which unlocks it.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }

    /// Unlocks it now. What the base file answered.
    pub(super) fn unlock(self) -> ResultCode {
        let rc = unlock(|| self.base.unlock(self.to));
        self.keep();
        rc
    }
}

impl<B: BaseFile> Drop for HeldLevel<B> {
    fn drop(&mut self) {
        unlock(|| self.base.unlock(self.to));
    }
}

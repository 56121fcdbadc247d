//! SQLite's locks that an error path unlocks.
//!
//! After an error of xLock or xShmLock the base file may or may not hold the lock, and SQLite does
//! not unlock it. So this unlocks it, which does no harm if it was not held. An unlock that fails
//! is tried once more: SQLite takes the lock for unlocked, whatever the call returned.

use super::base_file::BaseFile;
use crate::ffi::host::Host;
use crate::ffi::{LockLevel, ResultCode, ShmFlags, ShmSlots};

/// Unlocks, and tries once more after an error. Returns the result of the last attempt.
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
    /// The slots that a call of xShmLock with these flags has locked, or may have locked.
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

    /// A call of xShmLock to lock slots has failed with `rc`: unlocks them, unless they were
    /// refused or this version of SQLite would unlock another connection's slots.
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

    /// Leaves the slots locked: SQLite unlocks them.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }

    /// Unlocks the slots now. Returns the base file's answer.
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

    /// Leaves the lock: SQLite unlocks it.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }

    /// Unlocks it now. Returns the base file's answer.
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

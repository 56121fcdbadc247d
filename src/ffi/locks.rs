//! SQLite's own locks, by the names of its documentation.

use std::ffi::c_int;

/// A lock on the database file, weakest first: <https://www.sqlite.org/c3ref/c_lock_exclusive.html>.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockLevel(pub(crate) c_int);

impl LockLevel {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const SHARED: Self = Self(1);
    pub(crate) const RESERVED: Self = Self(2);
    pub(crate) const EXCLUSIVE: Self = Self(4);
}

/// A lock slot of the wal-index: <https://www.sqlite.org/walformat.html#locks>.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShmSlot(pub(crate) c_int);

impl ShmSlot {
    /// The writer holds it.
    pub(crate) const WRITE: Self = Self(0);
    /// The checkpointer holds it.
    pub(crate) const CKPT: Self = Self(1);
    /// A connection that recovers the wal-index holds it.
    pub(crate) const RECOVER: Self = Self(2);
    /// READ(0): a reader that ignores the WAL holds it, and a checkpointer while it copies frames.
    pub(crate) const READ_0: Self = Self::read(0);
    /// How many READ slots there are.
    pub(crate) const READERS: c_int = 5;

    /// READ(`n`).
    pub(crate) const fn read(n: c_int) -> Self {
        Self(3 + n)
    }

    /// Whether it is a READ slot, which a reader holds as long as it has a snapshot.
    pub(crate) fn is_read(self) -> bool {
        self >= Self::READ_0
    }
}

/// Consecutive slots of the wal-index, which are locked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmSlots {
    pub(crate) first: ShmSlot,
    /// How many slots.
    pub(crate) n: c_int,
}

impl ShmSlots {
    /// The slots of all readers of WAL frames: READ(1) to READ(4). A writer that restarts the WAL
    /// holds them.
    pub(crate) const WAL_READERS: Self = Self { first: ShmSlot::read(1), n: ShmSlot::READERS - 1 };
    pub(crate) const ALL: Self =
        Self { first: ShmSlot::WRITE, n: ShmSlot::READ_0.0 + ShmSlot::READERS };
}

impl From<ShmSlot> for ShmSlots {
    fn from(slot: ShmSlot) -> Self {
        Self { first: slot, n: 1 }
    }
}

/// What xShmLock does with slots: <https://www.sqlite.org/c3ref/c_shm_exclusive.html>.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmFlags(c_int);

impl ShmFlags {
    const UNLOCK: c_int = 1;
    const LOCK: c_int = 2;
    const SHARED: c_int = 4;
    const EXCLUSIVE: c_int = 8;

    pub(crate) const LOCK_SHARED: Self = Self(Self::LOCK | Self::SHARED);
    pub(crate) const LOCK_EXCLUSIVE: Self = Self(Self::LOCK | Self::EXCLUSIVE);
    pub(crate) const UNLOCK_SHARED: Self = Self(Self::UNLOCK | Self::SHARED);
    pub(crate) const UNLOCK_EXCLUSIVE: Self = Self(Self::UNLOCK | Self::EXCLUSIVE);

    /// Whether it locks, rather than unlocks.
    pub(crate) fn is_lock(self) -> bool {
        self.0 & Self::LOCK != 0
    }

    /// Whether the lock is a shared one.
    pub(crate) fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }

    /// The flags that unlock a lock of this kind.
    pub(crate) fn unlock(self) -> Self {
        if self.is_shared() { Self::UNLOCK_SHARED } else { Self::UNLOCK_EXCLUSIVE }
    }
}

//! What SQLite asks a connection for, and why that needs the write lock.

use super::base_file::Sought;
use crate::ffi::LockLevel;
use crate::lock::queue::Purpose;

/// One of SQLite's locks that the write lock covers. A connection may have several at once. A
/// reason is noted even if the connection goes on without the write lock;
/// [`super::claim::Claim::is_held`] says whether the connection holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    /// A lock of RESERVED or more on the database.
    Rollback = 1,
    /// The WRITE slot of the wal-index.
    Wal = 2,
    /// SHARED on a database that is about to get its first content or its journal mode.
    FirstConnect = 4,
    /// The CKPT slot of the wal-index.
    Checkpoint = 8,
    /// SHARED, or a READ slot, of a transaction that may write later: [`super::begin`].
    Begin = 16,
}

/// What a connection wants the write lock for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// To write a transaction.
    Write,
    /// To finish a checkpoint, which excludes writers to do so.
    FinishCheckpoint,
    /// For a first connect.
    FirstConnect,
    /// To recover the wal-index, without a snapshot. If SQLite is refused, it reads on: a refusal
    /// begins no wait.
    Recovery,
}

impl Need {
    /// How the queue shows it. Upkeep makes no snapshot stale.
    pub(super) fn purpose(self) -> Purpose {
        match self {
            Self::FinishCheckpoint | Self::Recovery => Purpose::Upkeep,
            Self::Write | Self::FirstConnect => Purpose::Write,
        }
    }
}

/// What SQLite asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) need: Need,
    pub(super) sought: Sought,
    /// The lock that the connection holds on the database.
    pub(super) level: LockLevel,
}

impl Request {
    /// The reason for the write lock if the request is granted.
    pub(super) fn reason(&self) -> Reason {
        match (self.sought, self.need) {
            (Sought::Write, _) => Reason::Wal,
            (Sought::Database(_), Need::FirstConnect) => Reason::FirstConnect,
            (Sought::Database(_), _) => Reason::Rollback,
        }
    }

    /// Whether it is for the rollback of a hot journal: EXCLUSIVE without RESERVED in between.
    pub(super) fn is_for_journal(&self) -> bool {
        self.sought == Sought::Database(LockLevel::EXCLUSIVE) && self.level < LockLevel::RESERVED
    }
}

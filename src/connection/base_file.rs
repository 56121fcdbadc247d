//! The interface of a connection to the file of the base VFS. `shim` implements it over SQLite's
//! own methods; tests have a fake.

use std::ffi::c_int;
use std::path::Path;

use crate::ffi::{LockLevel, ResultCode, ShmFlags, ShmSlots};
use crate::format::wal_index::HeaderMark;
use crate::format::{Header, Salts};
use crate::group_commit::WalIndex;
use crate::lock::kinds::Kind;
use crate::lock::wait::Probe;

/// The file of the base VFS. It is a handle, which is copied freely.
///
/// "Only while the wal-index is mapped" means: between SQLite's first xShmMap and its xShmUnmap.
pub(crate) trait BaseFile: WalIndex {
    /// xLock: <https://www.sqlite.org/c3ref/io_methods.html>.
    fn lock(&self, level: LockLevel) -> ResultCode;
    /// xUnlock.
    fn unlock(&self, level: LockLevel) -> ResultCode;
    /// xCheckReservedLock: whether any connection holds RESERVED or more. False if that is not known.
    fn is_reserved(&self) -> bool;
    /// xShmLock.
    fn shm_lock(&self, slots: ShmSlots, flags: ShmFlags) -> ResultCode;
    /// FCNTL_LOCK_TIMEOUT: for how long the next lock calls may block, in ms.
    fn may_block(&self, ms: c_int);
    /// Runs `act` so that none of its lock calls blocks, where lock calls otherwise may block for
    /// `blocks_ms`.
    fn without_blocking<T>(&self, blocks_ms: c_int, act: impl FnOnce() -> T) -> T {
        if blocks_ms > 0 {
            self.may_block(0);
        }
        let result = act();
        if blocks_ms > 0 {
            self.may_block(blocks_ms);
        }
        result
    }
    /// xFileSize, in bytes.
    fn size(&self) -> Result<i64, ResultCode>;
    /// xTruncate. An error leaves the file as it is.
    fn set_size(&self, bytes: i64);
    /// Writes a page of zeros, of that many bytes.
    ///
    /// # Errors
    /// What the base file answered.
    fn write_zeros(&self, at: i64, bytes: i64) -> Result<(), ResultCode>;
    /// Fills `into`, with zeros behind the file's end.
    ///
    /// # Errors
    /// What the base file answered. The bytes are undefined then.
    fn read(&self, at: i64, into: &mut [u8]) -> Result<(), ResultCode>;
    /// The start of the file; `None` if it cannot be read.
    fn header(&self) -> Option<Header>;

    /// How many frames the WAL has, and how many of them checkpoints have copied. Only while the wal-index is mapped.
    fn frames(&self) -> Option<(u32, u32)>;
    /// The salts in the wal-index. Only while it is mapped.
    fn salts(&self) -> Option<Salts>;
    /// The checksum of the wal-index's header, if that header counts no pages: it was recovered
    /// from a WAL without a commit, and none has followed. `None` also while it is not mapped.
    fn checksum_without_commit(&self) -> Option<u32>;
    /// The mark of READ(`n`): the last frame that its readers see. Only while the wal-index is mapped.
    fn read_mark(&self, n: c_int) -> Option<u32>;
    /// Sets in the wal-index how many frames checkpoints have copied. Only with CKPT and READ(0)
    /// locked.
    fn set_copied(&self, frames: u32);
    /// Zeroes the header of the wal-index, so that the next connection recovers it. Only while it
    /// is mapped and no other client uses it.
    fn clear_wal_index(&self);

    /// A way for a sleeping thread to see whether a refused lock has become free. It locks SHARED
    /// and WRITE and unlocks them at once. It keeps EXCLUSIVE, since SQLite is about to ask for
    /// that again. As long as the probe is used, the file must keep the locks that it has now,
    /// unless the lock is RESERVED or WRITE.
    fn probe(&self, lock: Sought) -> Probe;
    /// Whether a read transaction is open. Then a lock to write is an upgrade, for which SQLite
    /// does not call its busy handler. True if that is not known.
    fn is_upgrade(&self) -> bool;
    /// Whether a read transaction is open, and no database of the connection is written to. False if that is not known.
    fn only_reads(&self) -> bool;
    /// The statement that the connection runs, cut to what the event log has room for. Not to be
    /// called while the connection closes.
    fn statement(&self) -> Option<String>;
    /// The last commit by the wal-index; zeros while it is not mapped.
    fn last_commit(&self) -> LastCommit;
    /// How many frames the last checkpoint meant to copy. Only while the wal-index is mapped.
    fn meant_to_copy(&self) -> Option<u32>;
    /// Whether the connection is in no transaction that BEGIN has begun. True if that is not known.
    fn is_in_autocommit(&self) -> bool;
    /// The address of the `sqlite3` that uses the file; 0 if that is not known. Only for comparing:
    /// do two files belong to one `sqlite3`?
    fn user(&self) -> usize;
    /// Whether it is the main database of its connection. False if that is not known.
    fn is_main(&self) -> bool;
    /// Whether the connection writes to any of its databases. True if that is not known.
    fn is_writing(&self) -> bool;
    /// Whether the connection writes to another database in this transaction. False if that is not known.
    fn writes_elsewhere(&self) -> bool;
    /// The statement that the connection runs, with its kind if `wants_kind`; `None` if it runs none, or that is not
    /// known.
    fn running(&self, wants_kind: bool) -> Option<Running>;
    /// Calls the connection's busy handler, which mostly sleeps. Returns whether the handler says
    /// to try again; `None` if the handler is not known. The caller must have no lock of this
    /// process.
    fn ask_busy_handler(&self) -> Option<bool>;
    /// Whether sqlite3_interrupt() was called for the connection. False if that is not known.
    fn is_interrupted(&self) -> bool;
    /// The kind of transactions that begin with the statement that the connection runs, if it has
    /// run it before on this file as its main database. `None` if [`Self::running`] must look.
    fn known_kind(&self) -> Option<Kind>;
    /// Words by which a header of the wal-index differs from any other: its count of changes and
    /// of frames, and its checksum. Only while the wal-index is mapped.
    fn wal_index_mark(&self) -> Option<HeaderMark>;
    /// What the connection is doing; `None` if that is not known. Walks through all statements of
    /// the connection.
    fn doing(&self) -> Option<Doing>;
    /// Where this VFS stands among the VFSes of the file of the database at `path`. Not to be
    /// called while the connection closes.
    fn stands(&self, path: &Path) -> Stands;
}

/// A statement that a connection runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Running {
    /// It is VACUUM, or VACUUM INTO.
    pub(crate) is_vacuum: bool,
    /// It may write to a database, or is BEGIN IMMEDIATE or EXCLUSIVE.
    pub(crate) may_write: bool,
    /// The kind of transactions that begin with it.
    pub(crate) kind: Option<Kind>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doing {
    /// It is in a transaction that BEGIN or SAVEPOINT has begun.
    pub(crate) is_in_transaction: bool,
    /// It compiles a statement or attaches a database, and may read the schema for that.
    pub(crate) compiles: bool,
    /// It runs a statement.
    pub(crate) runs: bool,
    /// It runs a statement that may write.
    pub(crate) writes: bool,
    /// Whether it runs `PRAGMA journal_mode=wal`; `None` if it neither has nor compiles such a statement.
    pub(crate) changes_mode: Option<bool>,
}

impl Doing {
    /// Whether the present read may begin a transaction that writes. A read to compile a statement
    /// does not: its transaction ends before the statement runs.
    pub(super) fn may_upgrade(self) -> bool {
        !self.compiles && (self.writes || self.runs && self.is_in_transaction)
    }
}

/// The last commit to a WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastCommit {
    /// A number that changes with each commit.
    pub(crate) change: u32,
    /// How many frames are committed.
    pub(crate) frames: u32,
}

/// One of SQLite's locks, which was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sought {
    /// That level on the database.
    Database(LockLevel),
    /// The WRITE slot of the wal-index.
    Write,
}

/// Where this VFS stands among the VFSes of a connection's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// SQLite calls this VFS, as far as that can be seen, and its base is the operating system's.
    Alone,
    /// SQLite calls this VFS. Its base is another one, which may keep the database in another form.
    Above,
    /// Another VFS calls this one, and decides what the file holds.
    Below,
}

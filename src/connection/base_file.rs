//! The file of the base VFS, as a connection asks it: implemented over SQLite's own methods by `shim`, and by fakes in
//! tests.

use std::ffi::c_int;
use std::path::Path;

use crate::ffi::{Rc, SQLITE_OK};
use crate::format::{Header, Salts};
use crate::group_commit::WalIndex;
use crate::lock::wait::Probe;

/// The file of the base VFS: what it takes to call it, which is copied freely.
pub(crate) trait BaseFile: WalIndex {
    /// xLock
    fn lock(&self, level: c_int) -> Rc;
    /// xUnlock
    fn unlock(&self, level: c_int) -> Rc;
    /// xShmLock
    fn shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> Rc;
    /// How long its next lock calls may block, in ms (FCNTL_LOCK_TIMEOUT).
    fn may_block(&self, ms: c_int);
    /// Whether the header says that the database is in WAL mode.
    fn is_wal(&self) -> bool;
    /// xFileSize, in bytes.
    fn size(&self) -> Result<i64, Rc>;
    /// A way to see later whether a lock that was refused could be had. SHARED and WRITE are taken
    /// and given back at once; EXCLUSIVE is kept, since SQLite is about to ask for it again. Until
    /// then the file must hold what it holds now, unless it is for RESERVED or WRITE.
    fn probe(&self, lock: Sought) -> Probe;
    /// Whether a transaction is open, so that a lock to write is an upgrade, for which SQLite does not
    /// ask its busy handler. True if it can not be known.
    fn is_upgrade(&self) -> bool;
    /// Whether the connection is in no transaction that was begun by BEGIN. True if it can not be known.
    fn is_in_autocommit(&self) -> bool;
    /// What the connection is at. `None` if it can not be known. It costs as much as it has statements.
    fn doing(&self) -> Option<Doing>;
    /// The frames of the WAL, and how many of them checkpoints have copied. Only while the wal-index is
    /// mapped.
    fn frames(&self) -> Option<(u32, u32)>;
    /// The salts in the wal-index. Only while it is mapped.
    fn salts(&self) -> Option<Salts>;
    /// The beginning of the file.
    fn header(&self) -> Option<Header>;
    /// The mark of a READ slot. Only while the wal-index is mapped.
    fn read_mark(&self, n: c_int) -> Option<u32>;
    /// Writes so many zero bytes, a page's. Whether the base says that it has.
    fn write_zeros(&self, at: i64, bytes: i64) -> bool;
    /// xTruncate
    fn set_size(&self, bytes: i64);
    /// Where this VFS stands among those that the file goes through, for the database at `path`. Not to be asked
    /// while the connection closes.
    fn stands(&self, path: &Path) -> Stands;
    /// Says in the wal-index that checkpoints have copied so many frames. Only with the CKPT and READ(0) slots.
    fn set_copied(&self, frames: u32);
    /// Makes the wal-index one that is to be recovered. Only while it is mapped, and nobody uses it.
    fn clear_wal_index(&self);
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doing {
    /// It is in a transaction that was begun by BEGIN or SAVEPOINT.
    pub(crate) is_in_transaction: bool,
    /// It compiles a statement, or attaches a database, and may read the schema for that.
    pub(crate) compiles: bool,
    /// It runs one.
    pub(crate) runs: bool,
    /// It runs one that may write.
    pub(crate) writes: bool,
    /// Whether it runs `PRAGMA journal_mode=wal`; `None` if it has no such statement, nor compiles one.
    pub(crate) changes_mode: Option<bool>,
}

impl Doing {
    /// Whether what it reads now may be the beginning of what it writes. What it reads to compile is not: that has
    /// ended before the statement begins.
    pub(super) fn may_upgrade(self) -> bool {
        !self.compiles && (self.writes || self.runs && self.is_in_transaction)
    }
}

/// A lock of SQLite's that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sought {
    /// The database's lock of that level.
    Database(c_int),
    /// The WAL's WRITE slot.
    Write,
}

/// Where this VFS stands among those that a connection's file goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// SQLite calls it, as far as can be told, and its base is the operating system's.
    Alone,
    /// SQLite calls it. Its base is somebody else's, who may keep the database in another form.
    Above,
    /// Another VFS calls it, and decides what the file has in it.
    Below,
}

/// Gives back a lock of SQLite's. After an error nobody knows whether the base has it still, and
/// SQLite does not ask again: so it is tried once more, which does no harm if it has not.
pub(crate) fn twice(give_back: impl Fn() -> Rc) -> Rc {
    match give_back() {
        SQLITE_OK => SQLITE_OK,
        _ => give_back(),
    }
}

//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (<https://www.sqlite.org/wal.html#walresetbug>).
//!
//! A checkpointer has read how many frames there are, and pauses. A writer restarts the WAL, with
//! other salts and fewer frames. The checkpointer goes on, and notes the old number of frames as
//! copied. So frames that follow count as copied although they never were.
//!
//! # What it does
//! Either side can prevent it by itself, and both do, since the other may be a stock client:
//!
//! - A checkpointer looks at the salts again when no other client can change them. If they have
//!   changed, it gives up, as it does when readers are in its way.
//! - A writer restarts the WAL only while no checkpointer is at work: it holds the CKPT slot for
//!   that time.
//!
//! # What it does not do
//! It does not protect two stock clients of one database from each other.

use std::ffi::c_int;
use std::sync::Arc;

use super::super::base_file::BaseFile;
use super::super::held::HeldSlots;
use crate::counters::count;
use crate::ffi::{ResultCode, ShmFlags, ShmSlot, ShmSlots};
use crate::format::Salts;
use crate::lock::Database;
use crate::log::Log;

/// Restarts and checkpoints of one connection.
pub(crate) struct Restart<B: BaseFile> {
    pub(super) base: B,
    database: Arc<Database>,
    log: Log,
    /// The WAL's salts when this connection's checkpoint began; `None` while there is no checkpoint, or no salts are
    /// known.
    salts: Option<Salts>,
    /// Whether it keeps the CKPT slot while it restarts the WAL.
    keeps_ckpt: bool,
}

impl<B: BaseFile> Restart<B> {
    pub(super) fn new(base: B, database: Arc<Database>, log: Log) -> Self {
        Self { base, database, log, salts: None, keeps_ckpt: false }
    }

    /// Notes the salts of the present WAL, which the checkpoint is about to read about in the
    /// wal-index. Called when the connection has the CKPT slot, and again when another slot keeps
    /// others from changing the wal-index.
    pub(crate) fn note_salts(&mut self) {
        self.salts = self.base.salts();
    }

    pub(crate) fn checkpoint_ends(&mut self) {
        self.salts = None;
    }

    /// A checkpoint that does not exclude writers has taken READ(0), so that no writer can restart
    /// the WAL, and has copied no frame yet.
    ///
    /// # Errors
    /// SQLITE_BUSY: a writer has restarted the WAL since the checkpoint began. READ(0) is unlocked.
    pub(crate) fn before_backfill(&mut self) -> Result<(), ResultCode> {
        let is_stale =
            self.salts.is_some_and(|began| self.base.salts().is_some_and(|now| now != began));
        if !is_stale {
            return Ok(());
        }
        count(&self.database.counters.stale_checkpoints);
        drop(HeldSlots::after(self.base, ShmSlot::READ_0, ShmFlags::LOCK_EXCLUSIVE));
        Err(ResultCode::BUSY)
    }

    /// A writer is about to lock all slots of WAL readers by `take`, to restart the WAL. It locks
    /// CKPT first, so that no checkpoint runs. With `blocks_ms`, lock calls may block for that
    /// long; the one for CKPT must not.
    pub(crate) fn restart(
        &mut self,
        blocks_ms: c_int,
        take: impl FnOnce() -> ResultCode,
    ) -> ResultCode {
        let lock = || HeldSlots::lock(self.base, ShmSlot::CKPT, &self.log);
        let ckpt = match self.base.without_blocking(blocks_ms, lock) {
            Ok(ckpt) => ckpt,
            // Without the lock the WAL must not be restarted either. The writer appends to the WAL:
            // it must not fail with an error that the stock VFS would not meet.
            Err(_) => {
                count(&self.database.counters.restarts_deferred);
                return ResultCode::BUSY;
            }
        };
        let rc = take();
        if rc == ResultCode::OK {
            ckpt.keep();
            self.keeps_ckpt = true;
            return rc;
        }
        drop(ckpt);
        let (slots, flags) = (ShmSlots::WAL_READERS, ShmFlags::LOCK_EXCLUSIVE);
        HeldSlots::unlock_after_error(self.base, slots, flags, rc, &self.log);
        rc
    }

    /// The readers' slots were unlocked. If a restart has locked CKPT for them, unlocks it.
    pub(crate) fn ended(&mut self) {
        if std::mem::take(&mut self.keeps_ckpt) {
            drop(HeldSlots::after(self.base, ShmSlot::CKPT, ShmFlags::LOCK_EXCLUSIVE));
        }
    }

    pub(super) fn wal_closed(&mut self) {
        (self.salts, self.keeps_ckpt) = (None, false);
    }
}

//! A restart of the WAL and a checkpoint exclude each other: [`crate::guard::wal_reset`] says why.

use std::ffi::c_int;
use std::sync::Arc;

use super::super::base_file::BaseFile;
use super::super::held::HeldSlots;
use crate::counters::count;
use crate::ffi::{ResultCode, ShmFlags, ShmSlot, ShmSlots};
use crate::guard::wal_reset::WalReset;
use crate::lock::Database;
use crate::log::Log;

/// Restarts and checkpoints of one connection.
pub(crate) struct Restart<B: BaseFile> {
    pub(super) base: B,
    database: Arc<Database>,
    log: Log,
    state: WalReset,
}

impl<B: BaseFile> Restart<B> {
    pub(super) fn new(base: B, database: Arc<Database>, log: Log) -> Self {
        Self { base, database, log, state: WalReset::default() }
    }

    /// What a checkpoint reads of the wal-index from now on is of the WAL that is there now.
    pub(crate) fn note_salts(&mut self) {
        self.state.checkpoint_begins(self.base.salts());
    }

    pub(crate) fn checkpoint_ends(&mut self) {
        self.state.checkpoint_ends();
    }

    /// A checkpoint that does not exclude writers holds READ(0), so that nobody restarts the WAL.
    ///
    /// # Errors
    /// SQLITE_BUSY: a writer has restarted it since the checkpoint began. READ(0) is unlocked.
    pub(crate) fn before_backfill(&mut self) -> Result<(), ResultCode> {
        if !self.state.is_stale(|| self.base.salts()) {
            return Ok(());
        }
        count(&self.database.counters.stale_checkpoints);
        drop(HeldSlots::after(self.base, ShmSlot::READ_0, ShmFlags::LOCK_EXCLUSIVE));
        Err(ResultCode::BUSY)
    }

    /// A writer is about to lock the slots of all who read the WAL, to restart it: only while nobody checkpoints, so it
    /// locks CKPT first. `take` locks the slots. With `blocks_ms`, lock calls may block so long; the one for CKPT
    /// must not.
    pub(crate) fn restart(
        &mut self,
        blocks_ms: c_int,
        take: impl FnOnce() -> ResultCode,
    ) -> ResultCode {
        let lock = || HeldSlots::lock(self.base, ShmSlot::CKPT, &self.log);
        let ckpt = match self.base.without_blocking(blocks_ms, lock) {
            Ok(ckpt) => ckpt,
            // Nor may it be restarted where the lock cannot be had. The writer appends to the WAL, and fails with no error
            // that it would not meet on the stock VFS.
            Err(_) => {
                count(&self.database.counters.restarts_put_off);
                return ResultCode::BUSY;
            }
        };
        let rc = take();
        if rc == ResultCode::OK {
            ckpt.keep();
            self.state.keep_ckpt();
            return rc;
        }
        drop(ckpt);
        let (slots, flags) = (ShmSlots::WAL_READERS, ShmFlags::LOCK_EXCLUSIVE);
        HeldSlots::unlock_after_error(self.base, slots, flags, rc, &self.log);
        rc
    }

    /// The readers' slots were unlocked. If a restart has locked CKPT for them, unlocks it.
    pub(crate) fn ended(&mut self) {
        if self.state.drop_ckpt() {
            drop(HeldSlots::after(self.base, ShmSlot::CKPT, ShmFlags::LOCK_EXCLUSIVE));
        }
    }

    pub(super) fn wal_closed(&mut self) {
        self.state = WalReset::default();
    }
}

//! xShmLock: the slots of the wal-index, and with them the write lock of WAL mode.
//! <https://www.sqlite.org/walformat.html#locks>

use super::Connection;
use super::base_file::{BaseFile, Sought};
use super::claim::{Need, Reason, Request};
use super::closing::Closing;
use super::held::{self, HeldSlots};
use crate::counters::count;
use crate::ffi::{LockLevel, ResultCode, ShmFlags, ShmSlot, ShmSlots};
use crate::sys;

/// What one connection holds of the wal-index.
#[derive(Debug, Default)]
pub(super) struct WalSlots {
    /// The wal-index is mapped, or about to be: the database is in WAL mode.
    pub(super) is_mapped: bool,
    /// It has a READ slot, so it asks for WRITE to write; without one, to recover.
    pub(super) has_snapshot: bool,
    /// It has CKPT, so it asks for WRITE to finish a checkpoint.
    pub(super) has_ckpt: bool,
    /// The call that shares a READ slot may call the busy handler now, or the handler has left that call without returning.
    pub(super) may_ask: bool,
}

/// What to do with a call of xShmLock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    /// Pass it on to the base file, and call [`Connection::shm_lock_failed`] on an error.
    Plain,
    /// It shares a READ slot: [`Connection::note_plain_begin`] says whether to pass it on.
    MayBegin,
    /// Call [`Connection::shm_lock_checked`].
    Checked,
}

impl WalSlots {
    /// Why SQLite asks for WRITE. An SQLite whose lock calls may block asks for it before it has a
    /// snapshot.
    pub(super) fn need_of_write(&self, may_block: bool) -> Need {
        match (self.has_ckpt, self.has_snapshot || may_block) {
            (true, _) => Need::FinishCheckpoint,
            (false, true) => Need::Write,
            (false, false) => Need::Recovery,
        }
    }
}

impl<B: BaseFile> Connection<B> {
    /// xShmLock of slots other than WRITE, when the call may not simply be passed on to the base
    /// file.
    pub(crate) fn shm_lock_checked(&mut self, slots: ShmSlots, flags: ShmFlags) -> ResultCode {
        if !flags.is_lock() {
            return self.unlock_other(slots, flags);
        }
        self.claim.wait.remove_probe();
        match flags.is_shared() {
            true => self.share(slots.first),
            false => self.lock_exclusively(slots),
        }
    }

    /// xShmLock, exclusively, of slots from WRITE on: takes the write lock first.
    #[inline]
    pub(crate) fn lock_write(&mut self, slots: ShmSlots) -> ResultCode {
        self.claim.wait.remove_probe();
        let base = self.base;
        let take = move || base.shm_lock(slots, ShmFlags::LOCK_EXCLUSIVE);
        let need = self.wal.need_of_write(self.claim.blocks_ms() > 0);
        let request = Request { need, sought: Sought::Write, level: self.lock.level };
        let rc = self.claim.take(request, &mut self.guards, take);
        if need == Need::Write {
            self.tried_to_write(rc);
        }
        if rc != ResultCode::OK {
            return rc;
        }
        if need == Need::Write && self.guards.length.is_behind() {
            self.guards.length.get_ahead(self.claim.blocks_ms());
        }
        if self.wal.has_ckpt {
            self.guards.restart.note_salts();
        } else if self.group.is_on() {
            self.group_begins(need == Need::Write);
        }
        rc
    }

    /// xShmLock, to unlock slots from WRITE on: releases the write lock last.
    #[inline]
    pub(crate) fn unlock_write(&mut self, slots: ShmSlots) -> ResultCode {
        if self.group.is_on() {
            self.group.ends();
        }
        let rc = self.unlock_slots(slots, ShmFlags::UNLOCK_EXCLUSIVE);
        if rc != ResultCode::OK {
            // The base file may still hold the slot, so this connection keeps the write lock.
            return rc;
        }
        let to_write = self.wal.has_snapshot && !self.wal.has_ckpt;
        self.begin_ended();
        self.claim.release_after_write(self.group.is_pending(), to_write);
        rc
    }

    #[inline(never)]
    fn unlock_other(&mut self, slots: ShmSlots, flags: ShmFlags) -> ResultCode {
        let slot = slots.first;
        if self.wal.has_ckpt && slot == ShmSlot::READ_0 && !flags.is_shared() {
            self.guards.length.backfill_ends();
        }
        let rc = self.unlock_slots(slots, flags);
        if rc != ResultCode::OK {
            // The base file may still hold the slots.
            return rc;
        }
        if flags.is_shared() {
            if slot.is_read() {
                self.wal.has_snapshot = false;
                self.snapshot_ended();
            }
        } else if slot == ShmSlot::CKPT {
            self.checkpoint_ends();
        } else if slot == ShmSlot::RECOVER && self.wal.has_ckpt {
            self.guards.restart.note_salts();
        } else if slots == ShmSlots::WAL_READERS {
            self.guards.restart.ended();
        }
        rc
    }

    /// Unlocks slots of the base file while no sleeping thread probes for the connection.
    #[inline]
    fn unlock_slots(&self, slots: ShmSlots, flags: ShmFlags) -> ResultCode {
        let base = self.base;
        let unlock = move || held::unlock(|| base.shm_lock(slots, flags));
        let wait = &self.claim.wait;
        if wait.has_probe() { wait.with_probe_paused(unlock) } else { unlock() }
    }

    /// Notes a call of xShmLock that the caller only has to pass on to the base file, and says so. A call is passed on if it
    /// shares a slot, unlocks a shared one, or is exclusive for one of READ(1) to READ(4). But the call must not begin or end a
    /// transaction that has or may want the write lock, and the connection must not wait. Nor may its busy handler have left
    /// the last such call without returning. A snapshot is noted before the base file is called; a failure undoes that.
    ///
    /// Every read transaction makes two such calls, so this must be quick, and never panic.
    #[inline]
    pub(crate) fn note_plain(&mut self, slots: ShmSlots, flags: ShmFlags) -> Passing {
        let plain_if = |is_plain| if is_plain { Passing::Plain } else { Passing::Checked };
        if self.claim.wait.has_probe() {
            return Passing::Checked;
        }
        let slot = slots.first;
        if !flags.is_shared() {
            return plain_if(slot > ShmSlot::READ_0 && slots.n == 1);
        }
        if !slot.is_read() {
            return Passing::Plain;
        }
        if !flags.is_lock() {
            if self.begin.is_on() && self.goes_on() {
                return Passing::Checked;
            }
            self.wal.has_snapshot = false;
            return Passing::Plain;
        }
        if self.begin.is_on() {
            return Passing::MayBegin;
        }
        plain_if(self.note_plain_snapshot())
    }

    /// [`Self::note_plain`], of a READ slot that is shared.
    #[inline]
    pub(super) fn note_plain_snapshot(&mut self) -> bool {
        let is_plain =
            self.claim.wait.is_quiet() && !self.wal.may_ask && !self.guards.files.count_read();
        if is_plain {
            self.wal.has_snapshot = true;
        }
        is_plain
    }

    /// xShmLock failed with `rc`. Returns the answer to SQLite.
    pub(crate) fn shm_lock_failed(
        &mut self,
        slots: ShmSlots,
        flags: ShmFlags,
        mut rc: ResultCode,
    ) -> ResultCode {
        if !flags.is_lock() {
            rc = self.base.shm_lock(slots, flags);
        } else if rc.is_busy() {
            self.claim.wait.refused_unrelated();
        } else {
            HeldSlots::unlock_after_error(self.base, slots, flags, rc, &self.log);
        }
        if flags.is_shared() && slots.first.is_read() {
            self.wal.has_snapshot = !flags.is_lock() && rc != ResultCode::OK;
        }
        rc
    }

    /// Shares a slot, with the checks that may be due.
    #[inline(never)]
    fn share(&mut self, slot: ShmSlot) -> ResultCode {
        if slot.is_read() {
            if std::mem::replace(&mut self.wal.may_ask, true) {
                // The handler left the call by an exception (longjmp(3), as in Ruby). SQLite had read the header of the
                // wal-index, and no longer knows whether its cache is older than that header. An error empties the cache, and
                // after this one SQLite itself begins the statement again.
                self.wal.may_ask = false;
                return ResultCode::SCHEMA;
            }
            if !self.claim.wait.is_quiet() {
                self.claim.wait_far_from_head();
                self.claim.wait_beside_handler();
            }
            self.begin_with_snapshot();
            self.wal.may_ask = false;
            self.claim.takes_snapshot();
        }
        let rc = match self.base.shm_lock(slot.into(), ShmFlags::LOCK_SHARED) {
            ResultCode::OK if slot.is_read() && self.guards.files.count_read() => {
                self.begins_to_read(slot)
            }
            ResultCode::OK if slot.is_read() => {
                self.wal.has_snapshot = true;
                ResultCode::OK
            }
            ResultCode::OK => ResultCode::OK,
            rc => self.shm_lock_failed(slot.into(), ShmFlags::LOCK_SHARED, rc),
        };
        if rc != ResultCode::OK && slot.is_read() {
            self.begin_ended();
        }
        rc
    }

    /// A READ slot was taken, and the guards may have something to do.
    fn begins_to_read(&mut self, slot: ShmSlot) -> ResultCode {
        let held = HeldSlots::after(self.base, slot, ShmFlags::LOCK_SHARED);
        if let Err(rc) = self.guards.check_reader().and_then(|()| self.guards.took_snapshot()) {
            return rc;
        }
        held.keep();
        self.wal.has_snapshot = true;
        ResultCode::OK
    }

    /// xShmLock, exclusively, of slots other than WRITE.
    #[inline(never)]
    fn lock_exclusively(&mut self, slots: ShmSlots) -> ResultCode {
        let base = self.base;
        let take = || base.shm_lock(slots, ShmFlags::LOCK_EXCLUSIVE);
        let has_write = self.claim.has(Reason::Wal);
        let slot = slots.first;
        if slot == ShmSlot::CKPT && !has_write {
            if let Err(rc) = self.guards.files.before_write(sys::monotonic_ns()) {
                return rc;
            }
        }
        if slots == ShmSlots::WAL_READERS && has_write && !self.wal.has_ckpt {
            let rc = self.guards.restart.restart(self.claim.blocks_ms(), take);
            if rc.is_busy() {
                self.claim.wait.refused_unrelated();
            }
            return rc;
        }
        let rc = take();
        if rc != ResultCode::OK {
            if slot == ShmSlot::CKPT && rc.is_busy() {
                count(&self.database.counters.checkpoints_busy);
            }
            return self.shm_lock_failed(slots, ShmFlags::LOCK_EXCLUSIVE, rc);
        }
        if slot == ShmSlot::CKPT {
            return self.took_ckpt(slots, has_write).into();
        }
        if slot == ShmSlot::READ_0 && self.wal.has_ckpt {
            let checks = slots.n == 1 && !has_write;
            if let Err(rc) = if checks { self.guards.restart.before_backfill() } else { Ok(()) } {
                self.claim.wait.refused_unrelated();
                return rc;
            }
            self.guards.length.backfill_begins();
        }
        rc
    }

    /// WRITE was taken, `to_write` or to recover, and not by a checkpoint.
    #[inline(never)]
    fn group_begins(&mut self, to_write: bool) {
        self.group.begins(self.wal.has_snapshot, to_write);
    }

    /// EXCLUSIVE was taken in WAL mode with a snapshot: exclusive locking mode, in which SQLite takes no WRITE. If a sync
    /// has failed, repairs it.
    ///
    /// # Errors
    /// What the repair answered, if commits of this connection promise to be durable.
    pub(super) fn group_begins_exclusively(&mut self) -> Result<(), ResultCode> {
        match self.group.repair() {
            Err(rc) if !self.group.promises_nothing() => Err(rc),
            _ => Ok(()),
        }
    }

    /// xShmMap is about to map the wal-index. The database is in WAL mode, where SQLite keeps SHARED until the connection
    /// closes, so a first connect ends here.
    pub(crate) fn shm_mapping(&mut self) {
        if !self.wal.is_mapped && self.lock.level == LockLevel::EXCLUSIVE {
            // The connection has switched to WAL mode and opens the WAL only now, to close it, as
            // the last one. (With EXCLUSIVE in exclusive locking mode, the wal-index is in SQLite's
            // own memory.)
            self.closing = Closing::CopiesAll;
        }
        if !self.wal.is_mapped {
            self.begin_ended();
        }
        self.wal.is_mapped = true;
        self.claim.release(Reason::FirstConnect);
    }

    /// xShmMap was asked for the first region of the wal-index, and answered OK. `wal` is the WAL, if its syncs can be
    /// deferred.
    pub(crate) fn shm_mapped(&mut self, wal: Option<B::Wal>) {
        self.guards.wal_opened();
        self.group.wal_opened(wal, self.guards.files.wal());
    }

    /// xShmUnmap has unmapped the wal-index, which unlocked its slots.
    pub(crate) fn shm_unmapped(&mut self) {
        self.wal = WalSlots::default();
        self.guards.wal_closed();
        self.group.wal_closed();
        self.begin_ended();
        self.claim.release(Reason::Checkpoint);
        self.claim.release(Reason::Wal);
    }
}

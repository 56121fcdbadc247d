//! A checkpoint: from the lock on CKPT until it is unlocked.
//!
//! A writer can restart the WAL only when a checkpoint has copied all of it. Beside busy writers
//! that rarely happens, so the WAL grows, and with it the cost of every sync. So a checkpoint with
//! little to copy takes the write lock, too.

use std::time::Duration;

use super::Connection;
use super::base_file::BaseFile;
use super::claim::Reason;
use super::held::HeldSlots;
use crate::ffi::{ResultCode, ShmFlags, ShmSlot, ShmSlots};
use crate::sys::{self, Stopwatch};

/// The most frames that a checkpoint copies while it holds the write lock.
const MOST_FRAMES: u32 = 4000;

/// How long a checkpoint waits for the write lock.
const WAITS: Duration = Duration::from_millis(4);

/// How long a checkpoint waits for a writer, to repair a sync that has failed.
const REPAIR_WAITS: Duration = Duration::from_secs(1);

impl<B: BaseFile> Connection<B> {
    /// The connection has locked CKPT, perhaps with other `slots`. If it `recovers` the wal-index,
    /// it copies and syncs nothing.
    ///
    /// # Errors
    /// With group commit, a sync has failed: the checkpoint does not run, and the slots are
    /// unlocked.
    pub(super) fn took_ckpt(&mut self, slots: ShmSlots, recovers: bool) -> Result<(), ResultCode> {
        let ckpt = HeldSlots::after(self.base, slots, ShmFlags::LOCK_EXCLUSIVE);
        let mut is_known = true;
        if self.group.is_on() && !recovers {
            match self.repair_sync() {
                // With `synchronous=OFF` SQLite would not sync either.
                Err(rc) if !self.guards.pragmas.is_synchronous_off() => return Err(rc),
                repaired => is_known = repaired.unwrap_or(false),
            }
        }
        self.wal.has_ckpt = true;
        self.claim.events.checkpoint_began = if recovers { 0 } else { sys::monotonic_ns() };
        self.guards.length.checkpoint_begins();
        self.guards.restart.note_salts();
        if let Err(rc) = self.join_writers(is_known) {
            drop(ckpt);
            self.checkpoint_ends();
            return Err(rc);
        }
        ckpt.keep();
        Ok(())
    }

    /// CKPT was unlocked.
    pub(super) fn checkpoint_ends(&mut self) {
        self.wal.has_ckpt = false;
        self.claim.events.checkpoint_ended();
        self.guards.restart.checkpoint_ends();
        self.claim.release(Reason::Checkpoint);
        self.claim.tell_later();
    }

    /// If a sync of group commit has failed, repairs it while nobody writes. Returns whether other
    /// processes can see the repair.
    fn repair_sync(&mut self) -> Result<bool, ResultCode> {
        if !self.group.has_failed() {
            return Ok(true);
        }
        let mut watch = Stopwatch::start();
        let _write = loop {
            match HeldSlots::lock(self.base, ShmSlot::WRITE, &self.log) {
                Ok(held) => break held,
                Err(rc) if rc.is_busy() && watch.elapsed() < REPAIR_WAITS => {
                    watch.sleep(Duration::from_millis(1));
                }
                Err(rc) => return Err(rc),
            }
        };
        self.group.repair()
    }

    /// Takes the write lock if there is little to copy. Otherwise, or if the lock does not become
    /// free within [`WAITS`], the checkpoint runs beside the writers, as on the stock VFS. It waits
    /// while it holds one of SQLite's locks; the wait is bounded, so no deadlock lasts.
    ///
    /// With group commit, makes commits durable if it `syncs`.
    ///
    /// # Errors
    /// That sync has failed.
    fn join_writers(&mut self, syncs: bool) -> Result<(), ResultCode> {
        let is_small = |(frames, copied): (u32, u32)| {
            (1..=MOST_FRAMES).contains(&frames.saturating_sub(copied))
        };
        let frames = self.base.frames().filter(|frames| is_small(*frames));
        let Some((_, copied)) = frames.filter(|_| !self.claim.is_held()) else {
            return Ok(());
        };
        if self.is_marked(copied.saturating_add(1)) {
            // A reader's snapshot ends where the last checkpoint did: there is nothing to copy.
            return Ok(());
        }
        if !self.claim.take_for_checkpoint(WAITS) || !self.group.is_on() || !syncs {
            return Ok(());
        }
        match self.group.drain(|frames| self.is_marked(frames)) {
            Err(rc) if !self.guards.pragmas.is_synchronous_off() => Err(rc),
            _ => Ok(()),
        }
    }

    /// Whether a reader's mark keeps the last of these `frames` from being copied.
    fn is_marked(&self, frames: u32) -> bool {
        // Only a look: these lock calls must not wait.
        self.base.without_blocking(self.claim.blocks_ms(), || {
            (1..ShmSlot::READERS).any(|n| {
                if self.base.read_mark(n).is_none_or(|mark| mark >= frames) {
                    return false;
                }
                let looked = HeldSlots::lock(self.base, ShmSlot::read(n), &self.log);
                looked.is_err_and(|rc| rc.is_busy())
            })
        })
    }
}

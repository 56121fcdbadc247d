//! A checkpoint: from the lock on CKPT until it is unlocked.
//!
//! Beside writers a checkpoint has rarely copied the whole WAL at the moment when a writer could restart it, so the WAL
//! grows, and with it the cost of every sync. So a checkpoint with little to copy takes the write lock, too.

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
    /// CKPT was locked, perhaps with others of these slots. A connection that has WRITE `recovers` the wal-index: it copies and
    /// syncs nothing.
    ///
    /// # Errors
    /// With group commit, a sync has failed: there is no checkpoint then, and the slots are unlocked.
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
        self.claim.record.checkpoint_began = if recovers { 0 } else { sys::monotonic_ns() };
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
        self.claim.record.checkpoint_ended();
        self.guards.restart.checkpoint_ends();
        self.claim.release(Reason::Checkpoint);
        self.claim.tell_later();
    }

    /// If a sync of group commit has failed, repairs it while nobody writes. Whether others know of the repair.
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

    /// Takes the write lock if there is little to copy. Else, or if it is not to be had within [`WAITS`], the checkpoint
    /// runs beside the writers, as it does without this VFS. It waits with a lock of SQLite's in hand; the wait is
    /// bounded, so no deadlock lasts.
    ///
    /// With group commit it makes commits durable, if it `syncs`.
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

    /// Whether a reader has a mark that keeps the last of so many frames from being copied.
    fn is_marked(&self, frames: u32) -> bool {
        // It only looks, so it must not wait.
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

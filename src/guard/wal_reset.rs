//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (<https://www.sqlite.org/wal.html#walresetbug>).
//!
//! A checkpointer has read how many frames there are, and pauses. Meanwhile a writer restarts the WAL,
//! with other salts and fewer frames. The checkpointer goes on and notes that all those many
//! frames are copied, so the next ones count as copied when they never were.
//!
//! # What it does
//! Either side can prevent it by itself, and both do, since the other may be a stock client:
//!
//! - A checkpointer that finds the salts changed, once nobody can change them any more, gives up, as it
//!   does when readers are in its way.
//! - A writer restarts the WAL only while no checkpointer is at work: it keeps the CKPT slot meanwhile.
//!
//! # What it does not do
//! It does not help two stock clients of the same database.

use crate::format::Salts;

/// One connection's part, as a checkpointer and as a writer.
#[derive(Debug, Default)]
pub(crate) struct WalReset {
    /// The WAL's salts when this connection's checkpoint began; `None` while there is no checkpoint, or no salts are
    /// known.
    salts: Option<Salts>,
    /// Whether it keeps the CKPT slot while it restarts the WAL.
    keeps_ckpt: bool,
}

impl WalReset {
    /// Called when the connection has the CKPT slot, and again when another slot lets nobody else change the
    /// wal-index: what it reads there from now on is of the WAL with these salts.
    pub(crate) fn checkpoint_begins(&mut self, salts: Option<Salts>) {
        self.salts = salts;
    }

    /// Called when it has released the CKPT slot.
    pub(crate) fn checkpoint_ends(&mut self) {
        self.salts = None;
    }

    /// Whether what its checkpoint has read of the wal-index is of another WAL. Called when it has READ(0), so that
    /// nobody can restart the WAL any more, and before it copies the first frame. `salts` reads those of now.
    pub(crate) fn is_stale(&self, salts: impl FnOnce() -> Option<Salts>) -> bool {
        self.salts.is_some_and(|began| salts().is_some_and(|now| now != began))
    }

    /// Called when it has taken the CKPT slot in order to restart the WAL.
    pub(crate) fn keep_ckpt(&mut self) {
        self.keeps_ckpt = true;
    }

    /// Called when it has restarted the WAL, or has not. Returns whether it must release the CKPT slot, once.
    pub(crate) fn drop_ckpt(&mut self) -> bool {
        std::mem::take(&mut self.keeps_ckpt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a checkpoint has read is of another WAL if the salts are others by now, and only then, and only until the
    /// checkpoint ends.
    #[test]
    fn other_salts_make_a_checkpoint_stale_until_it_ends() {
        let mut reset = WalReset::default();
        assert!(!reset.is_stale(|| Some([1, 2])), "none has begun");
        reset.checkpoint_begins(Some([1, 2]));
        assert!(!reset.is_stale(|| Some([1, 2])) && !reset.is_stale(|| None));
        assert!(reset.is_stale(|| Some([1, 3])) && reset.is_stale(|| Some([3, 2])));
        reset.checkpoint_ends();
        assert!(!reset.is_stale(|| Some([1, 3])));
    }

    /// A connection that has kept the CKPT slot releases it once. One that has not never does: the slot could be
    /// another connection's.
    #[test]
    fn a_kept_slot_is_released_once() {
        let mut reset = WalReset::default();
        assert!(!reset.drop_ckpt());
        reset.keep_ckpt();
        assert!(reset.drop_ckpt());
        assert!(!reset.drop_ckpt());
    }
}

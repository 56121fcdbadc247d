//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (<https://www.sqlite.org/wal.html#walresetbug>).
//!
//! A checkpointer has read how many frames there are, and pauses. Meanwhile a writer begins the WAL
//! anew, with other salts and fewer frames. The checkpointer goes on and notes that all those many
//! frames are copied, so that the next ones count as copied when they never were.
//!
//! Either side alone can prevent it, and both do, since the other may be a stock client: a
//! checkpointer that finds the salts changed, once nobody can change them any more, gives up, as it
//! does when readers are in its way; and a writer begins the WAL anew only while no checkpointer is
//! at work.

use crate::format::Salts;

/// What one connection knows of it.
#[derive(Debug, Default)]
pub(crate) struct WalReset {
    /// The salts when its checkpoint began.
    salts: Option<Salts>,
    /// Whether it keeps the CKPT slot while it begins the WAL anew.
    keeps_ckpt: bool,
}

impl WalReset {
    /// It has the CKPT slot, or has the last word on the wal-index by another slot besides: what it
    /// reads there from now on is of this WAL.
    pub(crate) fn checkpoint_begins(&mut self, salts: Option<Salts>) {
        self.salts = salts;
    }

    /// It has given the CKPT slot back.
    pub(crate) fn checkpoint_ends(&mut self) {
        self.salts = None;
    }

    /// Whether what its checkpoint has read of the wal-index is of another WAL, now that it has
    /// READ(0) and is about to copy.
    pub(crate) fn is_stale(&self, salts: impl FnOnce() -> Option<Salts>) -> bool {
        self.salts.is_some_and(|began| salts().is_some_and(|now| now != began))
    }

    /// It keeps the CKPT slot until it has begun the WAL anew.
    pub(crate) fn keep_ckpt(&mut self) {
        self.keeps_ckpt = true;
    }

    /// It has begun the WAL anew. Whether it is to give the CKPT slot back.
    pub(crate) fn drop_ckpt(&mut self) -> bool {
        std::mem::take(&mut self.keeps_ckpt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a checkpoint has read is of another WAL if the salts are others by now, and only then, and as
    /// long as it lasts.
    #[test]
    fn other_salts_make_it_stale_until_it_ends() {
        let mut reset = WalReset::default();
        assert!(!reset.is_stale(|| Some([1, 2])), "none has begun");
        reset.checkpoint_begins(Some([1, 2]));
        assert!(!reset.is_stale(|| Some([1, 2])) && !reset.is_stale(|| None));
        assert!(reset.is_stale(|| Some([1, 3])) && reset.is_stale(|| Some([3, 2])));
        reset.checkpoint_ends();
        assert!(!reset.is_stale(|| Some([1, 3])));
    }

    /// The CKPT slot is given back once by who has kept it, and never by who has not: it could be another
    /// connection's.
    #[test]
    fn what_is_kept_is_given_back_once() {
        let mut reset = WalReset::default();
        assert!(!reset.drop_ckpt());
        reset.keep_ckpt();
        assert!(reset.drop_ckpt());
        assert!(!reset.drop_ckpt());
    }
}

//! Which commits of other connections one connection has seen: whether it is worth deferring a sync, and for how many
//! frames a leader waits.

use super::leader::Durable;
use crate::format::Salts;

/// After this many commits in a row with no other connection's between them, a connection is a sole
/// writer. It syncs in its commits, as without group commit, since no other connection would share
/// its syncs.
pub(super) const SOLE_AFTER: u8 = 16;

/// What one connection knows about the commits of others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OtherWriters {
    /// The WAL's salts and frames after the connection's last commit.
    left: Option<(Salts, u32)>,
    /// How many of its commits in a row had no other connection's between them, up to [`SOLE_AFTER`].
    in_a_row: u8,
    /// How many frames were durable when the last commit that waited became durable.
    durable: u32,
    /// How many frames were committed between the moments when the last commit but one and the last
    /// commit became durable.
    round: u32,
}

impl OtherWriters {
    /// The connection has locked WRITE, and `frames` are committed.
    pub(super) fn note_begin(&mut self, salts: Salts, frames: u32) {
        self.in_a_row =
            if self.wrote_nothing(salts, frames) { (self.in_a_row + 1).min(SOLE_AFTER) } else { 0 };
        if self.in_a_row > 0 || self.left.is_none() {
            // Neither its own frames nor those that were there before it are part of a round.
            self.durable = frames;
        }
    }

    /// A sole writer has locked WRITE again, and its last commit became durable with `frames`.
    pub(super) fn note_sole_commit(&mut self, frames: u32) {
        self.durable = frames;
    }

    /// The connection is about to unlock WRITE; `committed` is what the wal-index says.
    pub(super) fn note_end(&mut self, committed: Option<(Salts, u32)>) {
        self.left = committed;
    }

    /// The frames of a commit are durable.
    pub(super) fn note_durable(&mut self, durable: Durable) {
        // There are fewer if the WAL has restarted: that is no round.
        self.round = durable.committed.checked_sub(self.durable).unwrap_or(self.round);
        self.durable = durable.frames;
    }

    /// Whether no other connection has committed since the last commit of this one.
    pub(super) fn wrote_nothing(&self, salts: Salts, frames: u32) -> bool {
        self.left == Some((salts, frames))
    }

    /// Whether the connection is a sole writer.
    pub(super) fn are_none(&self) -> bool {
        self.in_a_row == SOLE_AFTER
    }

    /// [`Wal::round`](super::wal::Wal::round).
    pub(super) fn round(&self) -> u32 {
        // One commit without another's before it may be chance: the last of one round, and the first of the next.
        if self.in_a_row > 1 { 0 } else { self.round }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl OtherWriters {
        pub(in crate::group_commit) fn durable(&self) -> u32 {
            self.durable
        }
    }

    /// A round is every frame committed since the previous commit became durable, also during the
    /// sync, but not across a restart of the WAL. The first round is everything since the
    /// connection began.
    #[test]
    fn a_round_is_counted_from_commit_to_commit() {
        let mut others = OtherWriters::default();
        others.note_begin([0; 2], 8);
        for (frames, committed, round) in [(10, 14, 6), (22, 23, 13), (3, 4, 13), (5, 9, 6)] {
            others.note_durable(Durable { frames, committed });
            assert_eq!(others.round(), round);
        }
        others.note_end(Some(([0; 2], 9)));
        for (frames, round) in [(9, 6), (9, 0), (10, 6)] {
            others.note_begin([0; 2], frames);
            assert_eq!(others.round(), round, "nobody else commits, if that is no chance");
        }
    }
}

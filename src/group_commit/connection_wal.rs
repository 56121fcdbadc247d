//! The WAL of one connection, for the syncs of group commit.

use std::cell::Cell;
use std::ffi::c_int;

use super::open_file::WalDescription;
use super::record::WalId;
use super::rewrite::write_again;
use super::wal::Wal;
use super::{WalFile, WalIndex};
use crate::ffi::ResultCode;

/// The WAL of a connection that has a read mark, WRITE or CKPT, so that the WAL does not restart.
pub(super) struct ConnectionWal<'c, B: WalIndex> {
    pub(super) base: B,
    pub(super) file: B::Wal,
    pub(super) open_file: &'c Cell<WalDescription>,
    pub(super) id: WalId,
    /// The flags of its syncs.
    pub(super) flags: c_int,
    /// [`Wal::round`].
    pub(super) round: u32,
}

impl<B: WalIndex> Wal for ConnectionWal<'_, B> {
    fn id(&self) -> &WalId {
        &self.id
    }
    fn committed(&self) -> u32 {
        self.base.committed().map_or(0, |(_, frames)| frames)
    }
    fn sync(&self) -> Result<(), ResultCode> {
        self.file.sync(self.flags).ok()
    }
    fn write_again(&self, behind: u32) -> bool {
        write_again(self.file, self.id.salts, behind, self.committed())
    }
    fn open_file(&self) -> &Cell<WalDescription> {
        self.open_file
    }
    fn round(&self) -> u32 {
        self.round
    }
}

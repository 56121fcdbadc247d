//! Frames whose sync has failed, written once more as they are.
//!
//! After a failed fsync(2) the kernel takes the pages for clean, and no later sync writes them.
//! Frames that are written once more make them dirty again.

use super::WalFile;
use super::wal::{self, NotDurable, Wal};
use crate::format::{Salts, WalHeader};

/// Writes all frames behind the `durable` ones once more and syncs them. Success means that they
/// are on the disk, whatever happened before.
///
/// # Errors
/// [`NotDurable::Failed`] if the sync fails, [`NotDurable::AnotherFailed`] if the frames cannot be written.
pub(super) fn sync_again(wal: &impl Wal, durable: u32) -> wal::Result<()> {
    if !wal.write_again(durable) {
        return Err(NotDurable::AnotherFailed);
    }
    wal.sync().map_err(NotDurable::Failed)
}

/// Writes the frames from `behind` + 1 to `until` of the WAL with these salts once more, as they are; if `behind` is
/// 0, the header before them, too. False if one cannot be read or written, or is not what was committed: its checksum
/// covers everything before it. <https://www.sqlite.org/walformat.html>
pub(super) fn write_again(wal: impl WalFile, salts: Salts, behind: u32, until: u32) -> bool {
    let mut header = WalHeader([0; WalHeader::SIZE]);
    if !wal.read(&mut header.0, 0) || header.salts() != salts {
        return false;
    }
    let Some(frames) = header.frames() else { return false };
    let mut frame = frames.room();
    let mut seed = header.checksum();
    if behind > 0 {
        if !wal.read(frame.header_mut(), frames.offset(behind)) || frame.salts() != salts {
            return false;
        }
        seed = frame.checksum();
    } else if !wal.write(&header.0, 0) {
        return false;
    }
    for n in behind.saturating_add(1)..=until {
        if !wal.read(&mut frame.0, frames.offset(n)) || frame.salts() != salts {
            return false;
        }
        seed = frames.checksum(seed, &frame);
        if seed != frame.checksum() || !wal.write(&frame.0, frames.offset(n)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;

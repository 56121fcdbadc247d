//! How much of a WAL is not in the database yet, which readers keep it from being copied, and why
//! the WAL is as large as it is.
//!
//! The wal-index has the number of committed frames, how many of them checkpoints have copied, and
//! the last frame for the readers of each read mark. The kernel's locks show which marks are in
//! use, and by which process. <https://www.sqlite.org/walformat.html#the_wal_index_file_format>

use std::fs::File;
use std::io;
use std::path::Path;

use super::clients::ClientVfs;
use super::locks::LockName;
use super::processes::ProcessInfo;
use super::survey::Survey;
use crate::format::{Frame, WAL_INDEX_SUFFIX, WalIndexHeader, beside, wal_index as layout};
use crate::sys;

/// How often a wal-index is read again while it is being written.
const LOOKS: usize = 10;

/// The state of a WAL, by its wal-index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wal {
    /// The size of a page in bytes.
    pub page_size: u32,
    /// How many frames are committed since the WAL was reset: `mxFrame`.
    pub frames: u32,
    /// How many of them checkpoints have copied into the database: `nBackfill`.
    pub copied: u32,
    /// Up to which frame the last checkpoint meant to copy: `nBackfillAttempted`. If that is more
    /// than were copied, the checkpoint failed, or is running, or the index was recovered since.
    pub attempted: u32,
    /// The last frame that the readers of each mark may read; `None` for a mark that is not in use.
    marks: [Option<u32>; 5],
}

impl Wal {
    /// Reads a wal-index that a client uses; `None` if none does, since then the next client makes
    /// a new one. It opens and closes the index, as [`super::examine`] does, with the same effect
    /// on the locks of the calling process.
    pub(super) fn of(database: &Path) -> io::Result<Option<Self>> {
        let Some(file) = in_use(&beside(database, WAL_INDEX_SUFFIX))? else { return Ok(None) };
        let mut bytes = [0; layout::ALL_HEADERS];
        for _ in 0..LOOKS {
            if sys::read_exact_at(&file, &mut bytes, 0).is_err() {
                return Ok(None);
            }
            if bytes[..WalIndexHeader::SIZE]
                == bytes[WalIndexHeader::SIZE..][..WalIndexHeader::SIZE]
            {
                return Ok(Self::parse(&bytes));
            }
            std::thread::yield_now();
        }
        Ok(None)
    }

    /// `None` if the index is not initialised.
    fn parse(bytes: &[u8; layout::ALL_HEADERS]) -> Option<Self> {
        let word = |nth| layout::word(bytes, nth);
        let header = WalIndexHeader::of(bytes.first_chunk()?)?;
        let mark = |nth| Some(word(layout::READ_MARKS + nth)).filter(|mark| *mark != u32::MAX);
        Some(Self {
            page_size: header.page_size,
            frames: header.frames,
            copied: word(layout::N_BACKFILL).min(header.frames),
            attempted: word(layout::N_BACKFILL_ATTEMPTED).min(header.frames),
            marks: [0, 1, 2, 3, 4].map(mark),
        })
    }

    /// The size of that many frames, in bytes.
    #[must_use]
    pub fn bytes_of(&self, frames: u32) -> u64 {
        u64::from(frames) * (u64::from(self.page_size) + Frame::HEADER as u64)
    }

    /// How many frames a WAL file of `size` bytes has room for.
    fn frames_in(&self, size: u64) -> u64 {
        // The index of a WAL without a commit has no page size.
        size / self.bytes_of(1).max(512)
    }

    /// The last frame that checkpoints may copy while readers use this mark.
    fn frame_of(&self, mark: u8) -> u32 {
        // The readers of mark 0 read only the database, as it is: nothing more may be copied into
        // it.
        match mark {
            0 => self.copied,
            mark => self.marks[usize::from(mark)].unwrap_or(self.frames).min(self.frames),
        }
    }

    /// The readers, by the frame that each pins, the oldest first.
    #[must_use]
    pub fn readers(&self, survey: &Survey) -> Vec<Reader> {
        let mut readers: Vec<_> = survey
            .locks
            .iter()
            .filter(|lock| !lock.is_exclusive)
            .filter_map(|lock| {
                let LockName::Read(mark) = lock.lock else { return None };
                let frame = self.frame_of(mark);
                let (process, vfs) = (lock.process.clone(), lock.vfs);
                Some(Reader { process, vfs, mark, frame, kept: self.frames - frame })
            })
            .collect();
        readers.sort_by_key(|reader| (reader.frame, reader.process.as_ref().map(|one| one.pid)));
        readers
    }

    /// Why a WAL file of `size` bytes is as large as it is.
    #[must_use]
    pub fn why(&self, survey: &Survey, size: u64) -> WalSize {
        let room = self.frames_in(size);
        let is_full = u64::from(self.frames) > MANY_FRAMES;
        if room <= MANY_FRAMES {
            return WalSize::Small;
        }
        if !is_full {
            return WalSize::Kept;
        }
        let left = self.frames - self.copied;
        let readers = self.readers(survey);
        let pinned = readers.iter().map(|reader| reader.kept).max().unwrap_or(0);
        let is_locked = |lock| survey.locks.iter().any(|one| one.lock == lock && one.is_exclusive);
        if pinned > FEW_FRAMES {
            return WalSize::Pinned;
        }
        if left <= FEW_FRAMES {
            return WalSize::NeverReset;
        }
        if is_locked(LockName::Checkpoint) {
            return WalSize::Checkpointing;
        }
        // Once the WAL has enough frames, each commit tries a checkpoint.
        match self.attempted > self.copied && self.frames - self.attempted <= FEW_FRAMES {
            true => WalSize::CheckpointsFail,
            false => WalSize::NoCheckpoints,
        }
    }
}

/// A wal-index that a client uses; `None` if none does, since then the next client makes a new one.
pub(super) fn in_use(wal_index: &Path) -> io::Result<Option<File>> {
    match sys::open_to_read(wal_index) {
        Ok(file) if sys::conflicting_lock(&file, layout::IN_USE)?.is_some() => Ok(Some(file)),
        Err(error) if !sys::is_absent(&error) => Err(error),
        _ => Ok(None),
    }
}

/// A WAL with more frames than this is large. SQLite checkpoints at 1000 by default
/// (<https://www.sqlite.org/c3ref/wal_autocheckpoint.html>).
const MANY_FRAMES: u64 = 4000;
/// How many frames SQLite may leave uncopied without a fault.
const FEW_FRAMES: u32 = 1000;

/// A process that reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reader {
    /// The process; `None` if this user may not know.
    pub process: Option<ProcessInfo>,
    /// By which VFS it reads.
    pub vfs: ClientVfs,
    /// Its read mark: 0 if it reads the database alone, 1 to 4 if it reads the WAL, too.
    pub mark: u8,
    /// The last frame that a checkpoint may copy while it reads.
    pub frame: u32,
    /// How many frames it keeps from being copied. For several readers, the greatest number counts,
    /// not the sum.
    pub kept: u32,
}

/// Why a WAL is as large as it is; all but [`Self::Small`] and [`Self::Kept`] say why it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalSize {
    /// It is not large: it has room for 4000 frames at most.
    Small,
    /// It was larger before it was reset, and the file keeps that size, which is normal
    /// (<https://www.sqlite.org/pragma.html#pragma_journal_size_limit>).
    Kept,
    /// Readers keep more than 1000 frames from being copied.
    Pinned,
    /// A checkpoint runs.
    Checkpointing,
    /// The last checkpoint began, but did not copy all it meant to copy.
    CheckpointsFail,
    /// No checkpoint began to copy the last 1000 frames or more: autocheckpoint is off in the
    /// writers, or set high.
    NoCheckpoints,
    /// All but the last 1000 frames are copied. But a writer resets the WAL only when all are
    /// copied and no reader is in the WAL, and that did not happen.
    NeverReset,
}

impl WalSize {
    /// Whether the WAL will go on growing until the cause is removed.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::Small | Self::Kept | Self::Checkpointing)
    }
}

#[cfg(test)]
mod tests;

//! How much of a WAL is not in the database yet, who keeps it from being copied, and why it is as large as it is.
//!
//! The wal-index says how many frames are committed, how many of them checkpoints have copied, and which frame the readers of
//! each read mark have at most; the kernel's locks say which marks are in use, and by whom.
//! <https://www.sqlite.org/walformat.html#the_wal_index_file_format>

use std::fs::File;
use std::io;
use std::path::Path;

use super::clients::ClientVfs;
use super::locks::LockName;
use super::processes::ProcessInfo;
use super::survey::Survey;
use crate::format::{Frame, WAL_INDEX_SUFFIX, WalIndexHeader, beside, wal_index as layout};
use crate::sys;

/// How often it reads the index again that is being written.
const LOOKS: usize = 10;

/// What a wal-index says of its WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wal {
    /// The size of a page in bytes.
    pub page_size: u32,
    /// How many frames are committed since the WAL was reset: `mxFrame`.
    pub frames: u32,
    /// How many of them checkpoints have copied into the database: `nBackfill`.
    pub copied: u32,
    /// Up to which frame the last checkpoint meant to copy: `nBackfillAttempted`. If that is more than were copied, it has
    /// failed, or runs, or the index was recovered since.
    pub attempted: u32,
    /// Up to which frame the readers of each mark read, at most; `None` for a mark that is not in use.
    marks: [Option<u32>; 5],
}

impl Wal {
    /// What is in an index that somebody uses; `None` if nobody does, since then the next client makes another one. Opens and
    /// closes the index, as [`super::examine`] does, and with the same consequence for the process that calls it.
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

    /// The size of so many frames, in bytes.
    #[must_use]
    pub fn bytes_of(&self, frames: u32) -> u64 {
        u64::from(frames) * (u64::from(self.page_size) + Frame::HEADER as u64)
    }

    /// How many frames a WAL file of `size` bytes has room for.
    fn frames_in(&self, size: u64) -> u64 {
        // The index of a WAL that nobody has written to knows of no size.
        size / self.bytes_of(1).max(512)
    }

    /// Up to which frame the readers of a mark let checkpoints copy.
    fn frame_of(&self, mark: u8) -> u32 {
        // Those of mark 0 read the database alone, as it is: nothing more may be copied into it.
        match mark {
            0 => self.copied,
            mark => self.marks[usize::from(mark)].unwrap_or(self.frames).min(self.frames),
        }
    }

    /// Who reads, by the frame that the reader pins, the oldest first.
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
        // One that commits tries to checkpoint each time, once there are enough frames.
        match self.attempted > self.copied && self.frames - self.attempted <= FEW_FRAMES {
            true => WalSize::CheckpointsFail,
            false => WalSize::NoCheckpoints,
        }
    }
}

/// A wal-index that somebody uses; `None` if nobody does: the next client makes another one then.
pub(super) fn in_use(wal_index: &Path) -> io::Result<Option<File>> {
    match sys::open_to_read(wal_index) {
        Ok(file) if sys::conflicting_lock(&file, layout::IN_USE)?.is_some() => Ok(Some(file)),
        Err(error) if !sys::is_absent(&error) => Err(error),
        _ => Ok(None),
    }
}

/// A WAL with more frames than this is large. SQLite checkpoints at 1000 unless it is told otherwise
/// (<https://www.sqlite.org/c3ref/wal_autocheckpoint.html>).
const MANY_FRAMES: u64 = 4000;
/// What SQLite leaves uncopied without any fault.
const FEW_FRAMES: u32 = 1000;

/// A process that reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reader {
    /// Who reads; `None` if this user may not know.
    pub process: Option<ProcessInfo>,
    /// By which VFS.
    pub vfs: ClientVfs,
    /// Its read mark: 0 if it reads the database alone, 1 to 4 if it reads the WAL, too.
    pub mark: u8,
    /// The last frame that a checkpoint may copy, or have copied, as long as it reads.
    pub frame: u32,
    /// How many frames it keeps from being copied. Of those of other readers, the most count.
    pub kept: u32,
}

/// Why a WAL is as large as it is. In other words than [`Self::Small`] and [`Self::Kept`]: why it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalSize {
    /// It is not large: it has room for 4000 frames at most.
    Small,
    /// It was larger before it was reset, and the file keeps that size: that is as it should be
    /// (<https://www.sqlite.org/pragma.html#pragma_journal_size_limit>).
    Kept,
    /// Readers keep more than 1000 frames from being copied.
    Pinned,
    /// A checkpoint runs.
    Checkpointing,
    /// The last checkpoint has begun, and has not copied what it meant to copy.
    CheckpointsFail,
    /// Nobody has begun to copy the last 1000 frames or more: autocheckpoint is off, or set high, in those that write.
    NoCheckpoints,
    /// All but the last 1000 frames are copied, but at no moment were all copied and no reader in the WAL, which is when a
    /// writer resets it.
    NeverReset,
}

impl WalSize {
    /// Whether the WAL will go on to grow unless somebody does something.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::Small | Self::Kept | Self::Checkpointing)
    }
}

#[cfg(test)]
mod tests;

//! A WAL, as those who share its syncs know it, and what becomes of frames whose sync has failed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::WalFile;
use super::record::Log;
use crate::ffi::ResultCode;
use crate::format::{Salts, WalHeader};

/// How long is slept between two looks for more who commit, which lasts some 50 us longer than it is asked to.
const GATHER_NAP: Duration = Duration::from_micros(20);

/// What group commit needs of a WAL.
pub(crate) trait Wal {
    /// How many frames are committed now.
    fn committed(&self) -> u32;
    /// Makes all that was written to it durable; SQLite's code if not.
    fn sync(&self) -> Result<(), ResultCode>;
    /// Writes all committed frames behind the first so many once more, as they are. Fails if one is
    /// not what was committed.
    fn write_again(&self, behind: u32) -> bool;
    /// What its syncs tell of.
    fn opened(&self) -> &Cell<Opened>;
    /// How many frames all who commit write in one round; 0 if nobody else commits.
    fn round(&self) -> u32;
    /// Lets others commit for a moment. How long that lasted, in ns.
    fn nap(&self) -> u64 {
        let began = Instant::now();
        std::thread::sleep(GATHER_NAP);
        began.elapsed().as_nanos() as u64
    }
}

/// What the syncs of one open file tell of: errors since it was opened, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    log: Option<Log>,
    /// So many frames may have been written before it was opened, or before it last told of an error.
    older: u32,
    /// [`Record::failures`] when it last synced.
    failures: u32,
}

impl Opened {
    /// Whether its next sync may tell of a failure that was made up for, if there were so many.
    pub(crate) fn may_tell_late(self, failures: u32) -> bool {
        self.failures != failures
    }

    /// Whether its next sync tells of all frames, and of nothing else.
    pub(crate) fn vouches(self, failures: u32) -> bool {
        self.log.is_some() && self.older == 0 && !self.may_tell_late(failures)
    }

    /// Whether frames behind the first so many may have been written before another file was told of their loss.
    pub(super) fn may_miss_errors_behind(self, durable: u32) -> bool {
        durable < self.older
    }

    /// [`Record::failures`](super::record::Record::failures) when it last synced.
    pub(super) fn failures(self) -> u32 {
        self.failures
    }

    /// The same file, whose sync has failed when there were so many failures.
    pub(super) fn has_failed(self, failures: u32) -> Self {
        Self { failures: failures.max(self.failures), ..self }
    }

    /// The same file, which has synced all that was written, when there were so many failures.
    pub(super) fn has_synced(self, failures: u32) -> Self {
        Self { older: 0, failures, ..self }
    }

    /// The same file, which has told of an error that perhaps nobody else was told of: whatever was written may
    /// be lost, in whichever WAL.
    pub(crate) fn was_told(self) -> Self {
        Self { log: None, older: u32::MAX, ..self }
    }

    /// The same file, now that the WAL is that one and has so many frames.
    pub(crate) fn at(self, log: &Log, frames: u32) -> Self {
        let older = match self.log {
            None => self.older.max(frames),
            Some(known) if known == *log => self.older,
            // It has begun anew since, so that all was written since.
            Some(_) => 0,
        };
        Self { log: Some(*log), older, ..self }
    }
}

/// Why a commit is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDurable {
    /// This sync has failed, with SQLite's code.
    Failed(ResultCode),
    /// One has, before or meanwhile.
    HasFailed,
    /// Others keep syncing, or the page can not be read or written. (To begin.)
    Busy,
}

/// Writes all frames behind the durable ones once more and syncs them: whatever became of them before,
/// success means that they are on the disk.
pub(super) fn sync_again(wal: &impl Wal, durable: u32) -> Result<(), NotDurable> {
    match wal.write_again(durable) {
        true => wal.sync().map_err(NotDurable::Failed),
        false => Err(NotDurable::HasFailed),
    }
}

/// Writes the frames of a WAL from `behind` + 1 to `until` once more, as they are, so that the next
/// sync takes them for new. Fails if one is not what was committed: its checksum covers all before
/// it. <https://www.sqlite.org/walformat.html>
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
mod tests {
    use super::super::test_wal::{TestWal, frames, salts};
    use super::*;

    /// Frames are written once more as they are, those behind the ones that are durable, and if none is, the
    /// header before them.
    #[test]
    fn frames_are_written_again_as_they_are() {
        for (magic, page) in [(0x377f_0682, 512), (0x377f_0683, 512), (0x377f_0682, 65536)] {
            let wal = TestWal::new(frames(magic, page, 4));
            let size = 24 + page as i32;
            let at = |frame: i64| 32 + (frame - 1) * i64::from(size);
            for (behind, until, expected) in [
                (0, 4, &[(0, 32), (at(1), size), (at(2), size), (at(3), size), (at(4), size)][..]),
                (1, 3, &[(at(2), size), (at(3), size)]),
                (3, 4, &[(at(4), size)]),
                (4, 4, &[]),
                (0, 0, &[(0, 32)]),
            ] {
                assert!(write_again(wal, salts(), behind, until), "{behind} to {until}");
                let written = wal.written();
                assert_eq!(written, expected, "{behind} to {until}, {magic:x}, {page}");
            }
            assert!(wal.seen(|memory| memory.bytes == frames(magic, page, 4)));
            assert!(!write_again(wal, salts(), 0, 5), "there are fewer");
        }
    }

    /// What is not what was committed is not written, and nothing behind it: it would be made to look whole.
    #[test]
    fn a_frame_that_is_not_what_was_committed_is_an_error() {
        const FRAME: usize = 24 + 512;
        let whole = frames(0x377f_0682, 512, 3);
        let second = 32 + FRAME;
        // Where a bit is wrong, behind how many durable frames, and how many writes there are before.
        for (at, behind, writes) in [
            (0, 0, 0), // the header's magic number
            (3, 0, 0), // its byte order
            (5, 0, 0), // what is summed
            (8, 0, 0), // the size of a page
            (10, 0, 0),
            (16, 0, 0), // the salts
            (20, 0, 0),
            (24, 0, 0), // the sums
            (28, 0, 0),
            (second, 0, 2),     // a frame's page number
            (second + 4, 0, 2), // its commit mark
            (second + 8, 0, 2), // its salts
            (second + 12, 0, 2),
            (second + 16, 0, 2), // its sums
            (second + 20, 0, 2),
            (second + 24, 0, 2), // its page
            (second + FRAME - 1, 0, 2),
            (second + 8, 2, 0),  // the salts of the last that is durable
            (second + 16, 2, 0), // its sums
        ] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let wal = TestWal::new(bytes.clone());
            assert!(!write_again(wal, salts(), behind, 3), "byte {at}");
            let (written, now) =
                wal.seen(|memory| (memory.written.len(), std::mem::take(&mut memory.bytes)));
            assert_eq!(written, writes, "byte {at}");
            assert!(now == bytes, "byte {at}");
        }
        let other = salts().map(|salt| salt ^ 1);
        let wal = TestWal::new(whole);
        for salts in [[other[0], salts()[1]], [salts()[0], other[1]]] {
            assert!(!write_again(wal, salts, 0, 3));
        }
        // A header that says nothing possible, with sums that are right.
        for (magic, page) in [(0x377f_0682, 256), (0x377f_0682, 131_072), (0x377f_0680, 512)] {
            let wal = TestWal::new(frames(magic, page, 1));
            assert!(!write_again(wal, salts(), 0, 1), "{magic:x}, {page}");
            assert_eq!(wal.seen(|memory| memory.written.len()), 0);
        }
        assert!(!write_again(TestWal::new(vec![0; 31]), salts(), 0, 0), "no header");
    }
}

//! SQLite's byte layouts, and the names of the files beside a database, in one place:
//! <https://www.sqlite.org/fileformat2.html> and <https://www.sqlite.org/walformat.html>.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::sys::{self, Range};

/// What SQLite appends to a database's name for its WAL. <https://www.sqlite.org/tempfiles.html>
pub(crate) const WAL_SUFFIX: &str = "-wal";
/// What SQLite appends for its wal-index.
pub(crate) const WAL_INDEX_SUFFIX: &str = "-shm";
/// What SQLite appends for the rollback journal.
pub(crate) const JOURNAL_SUFFIX: &str = "-journal";
/// What this VFS appends for its sidecar.
pub(crate) const SIDECAR_SUFFIX: &str = "-lock";
/// What this VFS appends for the event log.
pub(crate) const EVENT_LOG_SUFFIX: &str = "-kanban-log";

/// The file beside `database` whose name ends with `suffix`.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The bytes of a database that SQLite locks: PENDING, RESERVED, and all of SHARED.
/// <https://www.sqlite.org/fileformat2.html#the_lock_byte_page>
pub(crate) const LOCK_BYTES: std::ops::Range<i64> = 0x4000_0000..0x4000_0000 + 512;

/// The bytes of a wal-index that SQLite locks: WRITE, CKPT, RECOVER, the readers' slots, and the
/// dead man's switch. <https://www.sqlite.org/walformat.html#locks>
#[cfg(unix)]
pub(crate) const WAL_INDEX_LOCK_BYTES: std::ops::Range<i64> = 120..129;

/// Whether a journal has something to roll back: it exists, is not empty, and its header is not
/// zeroed as `journal_mode=persist` leaves it.
/// <https://www.sqlite.org/fileformat2.html#the_rollback_journal>
///
/// # Errors
/// The journal exists, or may exist, but cannot be read.
pub(crate) fn is_hot(journal: &Path) -> io::Result<bool> {
    let mut first = [0];
    let mut file = match sys::open_to_read(journal) {
        Ok(file) => file,
        Err(why) if sys::is_absent(&why) => return Ok(false),
        Err(why) => return Err(why),
    };
    Ok(file.read(&mut first)? == 1 && first != [0])
}

/// A big-endian word of 32 bits.
fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The header at the start of a database's first page.
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header(pub(crate) [u8; Header::SIZE]);

impl Header {
    /// Its size in bytes.
    pub(crate) const SIZE: usize = 100;

    /// The first bytes of a database.
    pub(crate) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

    /// The header in a first page; `None` if the page is shorter than a header.
    pub(crate) fn of_page(page: &[u8]) -> Option<Self> {
        page.first_chunk().copied().map(Self)
    }

    /// Whether it has the magic bytes of a database.
    pub(crate) fn is_database(&self) -> bool {
        self.0.starts_with(Self::MAGIC)
    }

    /// Whether both file format versions say WAL.
    /// <https://www.sqlite.org/fileformat2.html#file_format_version_numbers>
    pub(crate) fn is_wal(&self) -> bool {
        self.0[18..20] == [2, 2]
    }

    /// The size of a page in bytes; `None` if this is not the header of a database.
    pub(crate) fn page_size(&self) -> Option<i64> {
        let bytes = match u16::from_be_bytes([self.0[16], self.0[17]]) {
            1 => 65536,
            bytes @ 512..=32768 if bytes.is_power_of_two() => i64::from(bytes),
            _ => return None,
        };
        self.is_database().then_some(bytes)
    }

    /// The length of the file according to this header, in bytes; `None` if an old writer did not
    /// update the page count. <https://www.sqlite.org/fileformat2.html#in_header_database_size>
    pub(crate) fn length(&self) -> Option<i64> {
        let page = self.page_size()?;
        let (change_counter, version_valid_for) = (word_at(&self.0, 24), word_at(&self.0, 92));
        let pages = i64::from(word_at(&self.0, 28));
        (change_counter == version_valid_for && pages > 0).then_some(pages * page)
    }

    /// By how many bytes a file of `size` bytes is too short; `None` if it is long enough.
    pub(crate) fn deficit(&self, size: i64) -> Option<i64> {
        self.length().map(|length| length - size).filter(|missing| *missing > 0)
    }
}

/// The salts of a WAL's frames, as the wal-index has them: the file's bytes, read as native words.
/// They change when the WAL is restarted.
pub(crate) type Salts = [u32; 2];

/// The checksum of WALs over pairs of words. `seed` is the checksum of all words before them.
/// <https://www.sqlite.org/fileformat2.html#checksum_algorithm>
pub(crate) fn checksum(seed: [u32; 2], pairs: impl IntoIterator<Item = [u32; 2]>) -> [u32; 2] {
    pairs.into_iter().fold(seed, |[s0, s1], [x0, x1]| {
        let s0 = s0.wrapping_add(x0).wrapping_add(s1);
        [s0, s1.wrapping_add(x1).wrapping_add(s0)]
    })
}

/// The first bytes of a WAL. <https://www.sqlite.org/fileformat2.html#wal_file_format>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WalHeader(pub(crate) [u8; WalHeader::SIZE]);

impl WalHeader {
    /// Its size in bytes.
    pub(crate) const SIZE: usize = 32;

    /// The magic number. Its last bit says whether words are big-endian for the checksum.
    const MAGIC: u32 = 0x377f_0682;

    /// Whether a WAL may begin with these bytes: the magic number or, in an empty WAL, zeros.
    #[cfg_attr(windows, expect(dead_code, reason = "nobody looks from outside there"))]
    pub(crate) fn is_magic(bytes: [u8; 4]) -> bool {
        let magic = u32::from_be_bytes(bytes);
        magic == 0 || magic & !1 == Self::MAGIC
    }

    /// The size of a page in bytes.
    pub(crate) fn page_size(&self) -> u32 {
        word_at(&self.0, 8)
    }

    /// The salts of all its frames.
    pub(crate) fn salts(&self) -> Salts {
        native_pair(&self.0, 16)
    }

    /// The layout of this WAL's frames; `None` if the header does not match its own checksum.
    pub(crate) fn frames(&self) -> Option<Frames> {
        let magic = word_at(&self.0, 0);
        let page = self.page_size() as usize;
        let frames = Frames { page, is_big_endian: magic & 1 != 0 };
        let is_whole = magic & !1 == Self::MAGIC
            && (512..=65536).contains(&page)
            && frames.sum([0, 0], &self.0[..24]) == stored_pair(&self.0, 24);
        is_whole.then_some(frames)
    }

    /// The checksum at its end, which is the seed for the first frame's checksum.
    pub(crate) fn checksum(&self) -> [u32; 2] {
        stored_pair(&self.0, 24)
    }

    /// The length of a WAL with that many frames, in bytes.
    pub(crate) fn length_with(&self, frames: u32) -> u64 {
        Self::SIZE as u64 + u64::from(frames) * (u64::from(self.page_size()) + Frame::HEADER as u64)
    }
}

/// The word at this offset, in native byte order.
fn native_word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The two words at this offset, in native byte order.
fn native_pair(bytes: &[u8], at: usize) -> [u32; 2] {
    [native_word(bytes, at), native_word(bytes, at + 4)]
}

/// The two words at this offset, which the file stores as big-endian.
fn stored_pair(bytes: &[u8], at: usize) -> [u32; 2] {
    [word_at(bytes, at), word_at(bytes, at + 4)]
}

/// The layout of one WAL's frames.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    /// The size of a page in bytes.
    page: usize,
    /// Whether words are big-endian for the checksum.
    is_big_endian: bool,
}

impl Frames {
    /// Where the `n`th frame begins in the file, in bytes; the first is 1.
    pub(crate) fn offset(&self, n: u32) -> i64 {
        let before = i64::from(n.saturating_sub(1));
        WalHeader::SIZE as i64 + before * (self.page + Frame::HEADER) as i64
    }

    /// A frame of zeros, as a buffer to read into.
    pub(crate) fn room(&self) -> Frame {
        Frame(vec![0; Frame::HEADER + self.page])
    }

    /// The checksum of `frame`. `seed` is the checksum of all frames before it.
    pub(crate) fn checksum(&self, seed: [u32; 2], frame: &Frame) -> [u32; 2] {
        self.sum(self.sum(seed, &frame.0[..8]), &frame.0[Frame::HEADER..])
    }

    /// The checksum of these bytes. `seed` is the checksum of all bytes before them.
    fn sum(&self, seed: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        let number = if self.is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let pair = |eight: &[u8]| {
            [0, 4].map(|at| number([eight[at], eight[at + 1], eight[at + 2], eight[at + 3]]))
        };
        checksum(seed, bytes.chunks_exact(8).map(pair))
    }
}

/// One frame of a WAL: its header and its page. <https://www.sqlite.org/fileformat2.html#wal_file_format>
pub(crate) struct Frame(pub(crate) Vec<u8>);

impl Frame {
    /// The size of its header in bytes.
    pub(crate) const HEADER: usize = 24;

    /// The header alone, as a buffer to read into.
    pub(crate) fn header_mut(&mut self) -> &mut [u8] {
        &mut self.0[..Self::HEADER]
    }

    /// The salts of the WAL that it belongs to.
    pub(crate) fn salts(&self) -> Salts {
        native_pair(&self.0, 8)
    }

    /// The checksum that the header stores.
    pub(crate) fn checksum(&self) -> [u32; 2] {
        stored_pair(&self.0, 16)
    }
}

/// Where things are in the wal-index's first region, in 32-bit words.
/// <https://www.sqlite.org/walformat.html#the_wal_index_file_format>
pub(crate) mod wal_index {
    use super::Range;

    /// The size of a region in bytes: `WALINDEX_PGSZ`.
    pub(crate) const REGION: i32 = 32768;
    /// A number that each commit changes: `iChange`.
    pub(crate) const CHANGE: usize = 2;
    /// How many frames are committed: `mxFrame`.
    pub(crate) const MX_FRAME: usize = 4;
    /// How many pages the last commit counts: `nPage`. 0 if the wal-index was recovered from a WAL
    /// without a commit, and none has followed.
    pub(crate) const N_PAGE: usize = 5;
    /// The first of the two salts.
    pub(crate) const SALT: usize = 8;
    /// The first word of the header's checksum: `aCksum`.
    pub(crate) const CHECKSUM: usize = 10;
    /// Words of a header that differ from those of any other, to compare: `iChange`, `mxFrame`, and `aCksum`.
    pub(crate) type HeaderMark = [u32; 4];
    /// How many words both copies of the header have together.
    pub(crate) const HEADERS: usize = 24;
    /// How many frames checkpoints have copied: `nBackfill`.
    pub(crate) const N_BACKFILL: usize = 24;
    /// The first of the five read marks.
    pub(crate) const READ_MARKS: usize = 25;
    /// How many frames the last checkpoint meant to copy: `nBackfillAttempted`. It lies behind the bytes that are locked.
    pub(crate) const N_BACKFILL_ATTEMPTED: usize = 32;
    /// The size in bytes of both headers and the checkpoint information: `WALINDEX_HDR_SIZE`.
    #[cfg(unix)]
    pub(crate) const ALL_HEADERS: usize = 136;
    /// The byte of the file that a lock of the WRITE slot locks.
    pub(crate) const WRITE_BYTE: i64 = 120;
    /// Every client has a shared lock on this byte as long as it has the wal-index open:
    /// `UNIX_SHM_DMS`, the "dead man switch" of SQLite's os_unix.c.
    pub(crate) const IN_USE: Range = Range { start: 128, len: 1 };

    /// The word of that number.
    #[cfg(unix)]
    pub(crate) fn word(headers: &[u8; ALL_HEADERS], nth: usize) -> u32 {
        super::native_word(headers, nth * 4)
    }
}

/// Fields of the header of a wal-index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg(unix)]
pub(crate) struct WalIndexHeader {
    /// The size of a page in bytes; 0 if nobody has written to the WAL.
    pub(crate) page_size: u32,
    /// How many frames are committed.
    pub(crate) frames: u32,
    /// The salts of the WAL.
    pub(crate) salts: Salts,
}

#[cfg(unix)]
impl WalIndexHeader {
    /// The size of one copy of it in bytes.
    pub(crate) const SIZE: usize = 48;

    /// The header in these bytes; `None` if it is not initialised.
    pub(crate) fn of(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let page_size = match u16::from_ne_bytes([bytes[14], bytes[15]]) {
            1 => 65536,
            bytes => u32::from(bytes),
        };
        let frames = native_word(bytes, wal_index::MX_FRAME * 4);
        let salts = native_pair(bytes, wal_index::SALT * 4);
        let is_initialised = bytes[12] == 1;
        is_initialised.then_some(Self { page_size, frames, salts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page: u16, pages: u32, valid_for: u32) -> Header {
        let mut header = [0; Header::SIZE];
        header[..16].copy_from_slice(Header::MAGIC);
        header[16..18].copy_from_slice(&page.to_be_bytes());
        header[24..28].copy_from_slice(&7_u32.to_be_bytes());
        header[28..32].copy_from_slice(&pages.to_be_bytes());
        header[92..96].copy_from_slice(&valid_for.to_be_bytes());
        Header(header)
    }

    #[test]
    fn a_header_says_how_long_the_file_is() {
        assert_eq!(header(4096, 10, 7).deficit(40960), None);
        assert_eq!(header(4096, 10, 7).deficit(40961), None);
        assert_eq!(header(4096, 10, 7).deficit(40959), Some(1));
        assert_eq!(header(1, 3, 7).deficit(65536), Some(131_072));
        assert_eq!(header(512, 0x0102_0304, 7).length(), Some(512 * 0x0102_0304));
    }

    #[test]
    fn a_header_that_does_not_say_the_length_shows_no_deficit() {
        let nothing = Header([0; Header::SIZE]);
        for header in [header(4096, 10, 6), header(4096, 0, 7), header(1000, 10, 7), nothing] {
            assert_eq!(header.deficit(0), None);
        }
    }
}

//! A WAL that was deleted while its index lives on (<https://www.sqlite.org/howtocorrupt.html> 1.4).
//!
//! A user deletes the WAL of a board that a program has open. The next connection creates an empty
//! WAL, but finds an index of a hundred frames. It writes the next frame behind a hole, and reads
//! pages that do not exist.
//!
//! # What it does
//! It compares the WAL with its index: the salts, and whether the file is long enough for the frames.
//!
//! # What it does not do
//! - It does not check the frames: SQLite does so when it recovers.
//! - It ignores a WAL that cannot be read: SQLite reports that.

use std::io;
use std::path::Path;

use crate::format::{Salts, WalHeader};
use crate::sys;

/// Whether the index may belong to this WAL: the file has these salts, and is long enough for the
/// frames (<https://www.sqlite.org/walformat.html>). True if the WAL cannot be opened or read.
pub(crate) fn speaks_of(wal: &Path, frames: u32, salts: Salts) -> bool {
    let Ok(file) = sys::open_to_read(wal) else { return true };
    let mut header = WalHeader([0; WalHeader::SIZE]);
    if let Err(error) = sys::read_exact_at(&file, &mut header.0, 0) {
        // A file shorter than a WAL's header is another WAL; any other error is a failure to read.
        return error.kind() != io::ErrorKind::UnexpectedEof;
    }
    let length = header.length_with(frames);
    header.salts() == salts && file.metadata().map_or(true, |found| found.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u32 = 512;
    /// The bytes of the two salts. The index has the same bytes.
    const SALTS: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    /// A WAL of `length` bytes.
    fn wal(length: usize) -> tempfile::NamedTempFile {
        let mut bytes = vec![0; length.max(32)];
        bytes[8..12].copy_from_slice(&PAGE.to_be_bytes());
        bytes[16..24].copy_from_slice(&SALTS);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes[..length]).expect("it is written");
        file
    }

    /// The index has ten frames. A WAL that ends before the tenth frame does, or has other salts or
    /// no header, does not belong to it.
    #[test]
    fn a_wal_that_has_fewer_frames_or_other_salts_is_another() {
        let salts = [[1, 2, 3, 4], [5, 6, 7, 8]].map(u32::from_ne_bytes);
        let whole = 32 + 10 * (PAGE as usize + 24);
        for (length, is_it) in [(whole, true), (whole + 1, true), (whole - 1, false), (32, false)] {
            assert_eq!(speaks_of(wal(length).path(), 10, salts), is_it, "{length} bytes");
        }
        assert!(speaks_of(wal(32).path(), 0, salts), "no frames");
        for length in [0, 31] {
            assert!(!speaks_of(wal(length).path(), 0, salts), "no header in {length} bytes");
        }
        for other in [[salts[0], 0], [0, salts[1]]] {
            assert!(!speaks_of(wal(whole).path(), 10, other));
        }
        assert!(speaks_of(Path::new("/no/such/wal"), 10, salts), "it cannot be opened");
        // On unix a directory can be opened, but not be read.
        let directory = tempfile::tempdir().expect("a directory");
        assert!(speaks_of(directory.path(), 10, salts), "it cannot be read");
    }
}

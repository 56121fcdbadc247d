//! A WAL that was deleted while its index lives on (<https://www.sqlite.org/howtocorrupt.html> 1.4): who
//! comes then finds an empty WAL and an index that speaks of frames, and writes behind a hole.

use std::fs::File;
use std::io;
use std::path::Path;

use super::wal_reset::Salts;
use crate::sys;

/// Whether a WAL has so many frames at least, by those salts: <https://www.sqlite.org/walformat.html>.
/// One that can not be opened or read is not known to be another: SQLite will say so.
pub(crate) fn speaks_of(wal: &Path, frames: u32, salts: Salts) -> bool {
    const HEADER: usize = 32;
    const FRAME_HEADER: u64 = 24;
    let Ok(file) = File::open(wal) else { return true };
    let mut header = [0; HEADER];
    if let Err(error) = sys::read_exact_at(&file, &mut header, 0) {
        // Shorter than that, or a failure.
        return error.kind() != io::ErrorKind::UnexpectedEof;
    }
    let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let page = u64::from(u32::from_be_bytes(word(8)));
    let length = HEADER as u64 + u64::from(frames) * (page + FRAME_HEADER);
    // The index has them as they are in the file.
    let same = [word(16), word(20)].map(u32::from_ne_bytes) == salts;
    same && file.metadata().map_or(true, |found| found.len() >= length)
}

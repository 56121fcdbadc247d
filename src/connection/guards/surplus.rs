//! The bytes of a file behind the last page of the database: zeros of [`crate::guard::ahead`],
//! deleted pages, or pages that a wrong header does not count.

use super::super::base_file::BaseFile;
use crate::ffi::ResultCode;

/// How many bytes are read at once: the largest page.
const CHUNK: i64 = 65536;

/// To compare a chunk with.
static ZEROS: [u8; CHUNK as usize] = [0; CHUNK as usize];

/// A part of a file, in whole pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surplus<B: BaseFile> {
    pub(super) base: B,
    /// Its first byte.
    pub(super) from: i64,
    /// The byte behind its last one.
    pub(super) to: i64,
    /// Bytes of a page.
    pub(super) page: i64,
}

impl<B: BaseFile> Surplus<B> {
    /// Overwrites the pages that have anything but zeros.
    ///
    /// # Errors
    /// A page cannot be read or written. Some may be overwritten.
    pub(super) fn clear(self) -> Result<(), ResultCode> {
        let mut buffer = vec![0; CHUNK as usize];
        for at in self.chunks() {
            for page in self.pages_with_data(at, &mut buffer)? {
                self.base.write_zeros(page, self.page)?;
            }
        }
        Ok(())
    }

    /// Where the zeros at the end of the part begin.
    ///
    /// # Errors
    /// A page cannot be read.
    pub(super) fn zeros_from(self) -> Result<i64, ResultCode> {
        let mut buffer = vec![0; CHUNK as usize];
        for at in self.chunks().rev() {
            if let Some(page) = self.pages_with_data(at, &mut buffer)?.last() {
                return Ok(page + self.page);
            }
        }
        Ok(self.from)
    }

    /// Where the chunks begin.
    fn chunks(self) -> impl DoubleEndedIterator<Item = i64> {
        let count = (self.to - self.from + CHUNK - 1) / CHUNK;
        (0..count).map(move |nth| self.from + nth * CHUNK)
    }

    /// Where the pages of a chunk that have anything but zeros begin.
    fn pages_with_data(self, chunk: i64, buffer: &mut [u8]) -> Result<Vec<i64>, ResultCode> {
        let bytes = usize::try_from(CHUNK.min(self.to - chunk)).unwrap_or(0);
        let read = &mut buffer[..bytes];
        self.base.read(chunk, read)?;
        // Slices are compared many bytes at once, and there may be megabytes.
        if *read == ZEROS[..bytes] {
            return Ok(Vec::new());
        }
        let pages = read.chunks(usize::try_from(self.page).unwrap_or(1)).zip(0..);
        let with_data = pages.filter(|(page, _)| **page != ZEROS[..page.len()]);
        Ok(with_data.map(|(_, nth)| chunk + nth * self.page).collect())
    }
}

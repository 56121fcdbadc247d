//! A file shorter than its header says: a write that extended it was lost
//! (<https://www.sqlite.org/howtocorrupt.html> 3.1, 4).
//!
//! What proves a lost write is what was written: while a connection may change the file's length, and nobody
//! else may, [`Written`] keeps how far it has written. A file that ends before that has lost something. In
//! rollback modes this is looked at when all is written and nothing is committed yet: an error there rolls back.
//! In WAL mode the file rightly lags behind what is committed, and is complete when a checkpoint has copied all and
//! sets its length: an error there leaves all frames in the WAL. A file that was short before is reported, and
//! otherwise left to SQLite: whoever writes to it now has not made it so.
//!
//! A checkpoint writes the header first, so the file is made as long as it will be before; whoever looks at it from
//! outside sees no deficit.

use std::ffi::c_int;

/// As much of a database's first page as is needed.
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
pub(crate) type Header = [u8; 100];

/// Bytes of a page, by the header; `None` if it is no header of a database.
pub(crate) fn page_size(header: &Header) -> Option<i64> {
    let bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        bytes @ 512..=32768 if bytes.is_power_of_two() => i64::from(bytes),
        _ => return None,
    };
    header.starts_with(b"SQLite format 3\0").then_some(bytes)
}

/// How long the file is, in bytes, by its header; `None` if the header does not say.
pub(crate) fn by_header(header: &Header) -> Option<i64> {
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let page = page_size(header)?;
    let (change_counter, version_valid_for) = (number(24), number(92));
    let pages = i64::from(number(28));
    (change_counter == version_valid_for && pages > 0).then_some(pages * page)
}

/// By how many bytes a file of `size` bytes is too short, if it is.
pub(crate) fn deficit(header: &Header, size: i64) -> Option<i64> {
    by_header(header).map(|length| length - size).filter(|missing| *missing > 0)
}

/// What a connection has written while it may change the file's length, and nobody else may: from RESERVED or
/// EXCLUSIVE on, and while it has the WAL's CKPT slot.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The file is at least so long, if nothing was lost.
    end: i64,
    /// The header before the first page was written, and as it was written last; `None` if it was not.
    headers: Option<(Option<Header>, Header)>,
    /// What is written next undoes a transaction.
    is_repair: bool,
}

impl Written {
    /// Nothing is written yet.
    #[inline]
    pub(crate) fn begin(&mut self) {
        (self.end, self.headers, self.is_repair) = (0, None, false);
    }

    /// As [`Self::begin`], of a rollback.
    pub(crate) fn begin_repair(&mut self) {
        self.begin();
        self.is_repair = true;
    }

    /// So many bytes were written there.
    #[inline]
    pub(crate) fn wrote(&mut self, at: i64, bytes: c_int) {
        self.end = self.end.max(at.saturating_add(bytes.into()));
    }

    /// The first page is about to be written. `before` is the header that is there.
    pub(crate) fn first_page(&mut self, header: &Header, before: impl FnOnce() -> Option<Header>) {
        match &mut self.headers {
            Some((_, last)) => *last = *header,
            None => self.headers = Some((before(), *header)),
        }
    }

    /// The file's length was set.
    pub(crate) fn cut(&mut self, size: i64) {
        self.end = self.end.min(size);
    }

    /// How much of what was written a file of `size` bytes lacks, up to `length`.
    pub(crate) fn lost(&self, size: i64, length: i64) -> Option<i64> {
        Some(self.end.min(length) - size).filter(|missing| *missing > 0)
    }

    /// By how many bytes this transaction, whose pages are all written, would leave the file too short by
    /// its own header, if it would: then it is not a rollback, after which the header is the one that was
    /// there before.
    pub(crate) fn torn(&self, size: impl FnOnce() -> Option<i64>) -> Option<i64> {
        let (before, last) = self.headers.as_ref().filter(|_| !self.is_repair)?;
        if before.as_ref() == Some(last) {
            return None;
        }
        let length = by_header(last)?;
        let size = size()?;
        self.lost(size, length)?;
        Some(length - size)
    }

    /// All was synced, or refused. A rollback syncs once, at its end.
    pub(crate) fn synced(&mut self, is_torn: bool) {
        if is_torn {
            self.begin_repair();
        } else if self.is_repair {
            self.begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page: u16, pages: u32, valid_for: u32) -> Header {
        let mut header = [0; 100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&page.to_be_bytes());
        header[24..28].copy_from_slice(&7_u32.to_be_bytes());
        header[28..32].copy_from_slice(&pages.to_be_bytes());
        header[92..96].copy_from_slice(&valid_for.to_be_bytes());
        header
    }

    #[test]
    fn a_header_says_how_long_the_file_is() {
        assert_eq!(deficit(&header(4096, 10, 7), 40960), None);
        assert_eq!(deficit(&header(4096, 10, 7), 40961), None);
        assert_eq!(deficit(&header(4096, 10, 7), 40959), Some(1));
        assert_eq!(deficit(&header(1, 3, 7), 65536), Some(131_072));
        assert_eq!(by_header(&header(512, 0x0102_0304, 7)), Some(512 * 0x0102_0304));
    }

    #[test]
    fn a_header_that_says_nothing_is_no_deficit() {
        for header in [header(4096, 10, 6), header(4096, 0, 7), header(1000, 10, 7), [0; 100]] {
            assert_eq!(deficit(&header, 0), None);
        }
    }
}

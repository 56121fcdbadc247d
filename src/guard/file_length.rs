//! A file shorter than its header says: a write that extended it was lost
//! (<https://www.sqlite.org/howtocorrupt.html> 3.1, 4).
//!
//! In rollback modes the header is checked against the file when all is written and nothing is
//! committed yet: an error there rolls back. In WAL mode the file rightly lags behind what is
//! committed, and is complete when a checkpoint has copied all and sets its length: an error there
//! leaves all frames in the WAL. A checkpoint writes the header first, so the file is made as long as it
//! will be before; whoever looks at it from outside sees no deficit.

/// As much of a database's first page as is needed.
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
pub(crate) type Header = [u8; 100];

/// How long the file is, in bytes, by its header; `None` if the header does not say.
pub(crate) fn by_header(header: &Header) -> Option<i64> {
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        bytes @ 512..=32768 if bytes.is_power_of_two() => i64::from(bytes),
        _ => return None,
    };
    let (change_counter, version_valid_for) = (number(24), number(92));
    let is_database = header.starts_with(b"SQLite format 3\0");
    let pages = i64::from(number(28));
    (is_database && change_counter == version_valid_for && pages > 0).then_some(pages * page)
}

/// By how many bytes a file of `size` bytes is too short, if it is.
pub(crate) fn deficit(header: &Header, size: i64) -> Option<i64> {
    by_header(header).map(|length| length - size).filter(|missing| *missing > 0)
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

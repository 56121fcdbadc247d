//! A file that is longer than its header says, in WAL mode, for those who look at it from outside.
//!
//! Applications compare the length of their database with the page count in its header, to find a
//! torn file (<https://www.sqlite.org/howtocorrupt.html> 3.1). One that asks for the length first
//! and reads the header then calls a healthy file torn if a checkpoint of another process raises the
//! page count in between. So in WAL mode the file is kept ahead of its header by more than checkpoints add
//! while somebody looks. SQLite takes the page count from the header, so that a longer file is legal
//! (<https://www.sqlite.org/fileformat2.html#in_header_database_size>). The last close cuts it to its header.

use std::time::Duration;

/// The least distance between the header's length and the file's end, in bytes: a multiple of every page size.
const LEAST: i64 = 64 << 10;

/// The distance that a checkpoint makes at the most, in bytes.
const MOST: i64 = 64 << 20;

/// The distance after a VACUUM, in bytes.
const MOST_AFTER_VACUUM: i64 = 4 << 20;

/// A file that is further ahead than that, in bytes, and than a connection would make it, is cut.
const TOO_FAR: i64 = 16 << 20;

/// The distance is at least this part of the database.
const PART: i64 = 16;

/// How long a checkpoint waits, with the locks that it has, that adds more than the file was ahead by: longer than an observer takes
/// from one look to the next.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// How far ahead one connection keeps the file.
///
/// SQLite takes the file's length for the page count where the WAL has nothing in it, and writes that count into
/// the frames it commits. A file that is shorter than such a count is called malformed by the next checkpoint.
/// So a checkpoint cuts the file to no less than the length that SQLite sets, and the last close cuts it only when
/// the WAL is gone.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// The most that one of its checkpoints has added, in bytes.
    largest_growth: i64,
    /// The length by the header before this checkpoint, in bytes.
    before: i64,
    /// Whether its first write transaction has seen to it that the file is ahead.
    pub(crate) has_begun: bool,
}

/// What a checkpoint does before it writes the first page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// How long the file is to be, in bytes.
    pub(crate) to: i64,
    /// Whether an observer that has seen the old length may still read the new header: then the
    /// checkpoint waits for [`PAUSE`].
    pub(crate) is_sudden: bool,
}

impl Ahead {
    /// A checkpoint is about to raise the header's length from `old` to `new`, and the file has `size` bytes;
    /// `None` if it is far enough ahead.
    pub(crate) fn before_header(&mut self, size: i64, old: i64, new: i64) -> Option<Growth> {
        self.largest_growth = self.largest_growth.max(new - old);
        self.before = old;
        let distance = self.distance(new);
        // By twice the distance, so that not each checkpoint has to.
        (size < new + distance)
            .then(|| Growth { to: new + 2 * distance, is_sudden: old < new && size < new })
    }

    /// A write transaction begins, before there is anything to copy. How long the file is to be, in bytes;
    /// `None` if it is far enough ahead.
    pub(crate) fn before_writing(&self, size: i64, length: i64) -> Option<i64> {
        let distance = self.distance(length);
        (size < length + distance).then_some(length + 2 * distance)
    }

    /// A checkpoint has copied all and the header says `length`; the file has `size` bytes. `None` if SQLite is not
    /// to set its length. Else it is, since the database was made shorter, and what it has given back must not stay
    /// in the file; and then the file is to be so many bytes long.
    pub(crate) fn after_checkpoint(&mut self, size: i64, length: i64) -> Option<i64> {
        let is_shorter = length < std::mem::take(&mut self.before);
        // Or it was made shorter by a checkpoint of another connection, which did not come to its end.
        if !is_shorter && size <= length + 2 * self.distance(length) + TOO_FAR {
            return None;
        }
        self.largest_growth = self.largest_growth.min(MOST_AFTER_VACUUM / 2);
        Some(length + self.distance(length).max(MOST_AFTER_VACUUM))
    }

    /// How far ahead the file of a database of `length` bytes is to be, in bytes.
    fn distance(&self, length: i64) -> i64 {
        let wanted = (2 * self.largest_growth).max(length / PART);
        // In steps of the least, so that it is a multiple of the page size.
        (wanted.clamp(LEAST, MOST) + LEAST - 1) / LEAST * LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: i64 = 4096;

    /// A small board grows page by page: the file is far enough ahead, and rarely grown.
    #[test]
    fn small_checkpoints_grow_the_file_now_and_then() {
        let mut ahead = Ahead::default();
        let (mut size, mut grown) = (2 * PAGE, 0);
        for pages in 2..1000 {
            let (old, new) = (pages * PAGE, (pages + 1) * PAGE);
            if let Some(growth) = ahead.before_header(size, old, new) {
                assert_eq!(growth.is_sudden, pages == 2, "{pages}");
                assert!(growth.to > size && growth.to % PAGE == 0);
                (size, grown) = (growth.to, grown + 1);
            }
            assert!(size >= new + LEAST);
            assert_eq!(ahead.after_checkpoint(size, new), None);
        }
        assert!((10..60).contains(&grown), "{grown}");
    }

    /// Somebody stores a blob: whoever has seen the old length meanwhile could read the new header, once. The next
    /// blob of that size is expected, by this connection and, since the file is ahead, by all others.
    #[test]
    fn growth_beyond_the_distance_is_sudden_once() {
        let blob = 1 << 20;
        let mut ahead = Ahead::default();
        let length = 10 * PAGE;
        let first = ahead.before_header(length + LEAST, length, length + blob).expect("it grows");
        assert!(first.is_sudden && first.to >= length + 3 * blob);
        let mut other = Ahead::default();
        for ahead in [&mut ahead, &mut other] {
            let next = ahead.before_header(first.to, length + blob, length + 2 * blob);
            assert!(next.is_none_or(|growth| !growth.is_sudden));
        }
    }

    /// A VACUUM gives back what a large blob has taken, whoever's checkpoint comes to its end.
    #[test]
    fn what_a_vacuum_gives_back_is_not_kept() {
        let mut ahead = Ahead::default();
        let (small, large) = (100 * PAGE, 100 << 20);
        let size = ahead.before_header(small, small, large).expect("it grows").to;
        assert_eq!(ahead.after_checkpoint(size, large), None);
        assert_eq!(ahead.before_header(size, large, small), None);
        let after = Some(small + MOST_AFTER_VACUUM);
        assert_eq!(ahead.after_checkpoint(size, small), after);
        assert_eq!(ahead.after_checkpoint(small + MOST_AFTER_VACUUM, small), None);
        assert_eq!(Ahead::default().after_checkpoint(size, small), after, "another's");
        assert_eq!(ahead.before_header(small + MOST_AFTER_VACUUM, small, small - PAGE), None);
        let after = Some(small - PAGE + MOST_AFTER_VACUUM);
        assert_eq!(ahead.after_checkpoint(small + MOST_AFTER_VACUUM, small - PAGE), after);
    }

    /// However large the database or a transaction is, the distance is bounded.
    #[test]
    fn the_distance_is_bounded() {
        let ahead = Ahead { largest_growth: 1 << 40, ..Ahead::default() };
        assert_eq!(ahead.distance(1 << 40), MOST);
        assert_eq!(Ahead::default().distance(0), LEAST);
    }
}

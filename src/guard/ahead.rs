//! An observer that takes a checkpoint for a torn file (<https://www.sqlite.org/howtocorrupt.html> 3.1).
//!
//! To find a torn file, applications compare the length of their database with the page count in
//! its header. An application that reads first the length and then the header can take a healthy
//! file for torn: a checkpoint of another process may raise the page count in between.
//!
//! # What it does
//! In WAL mode it keeps the file ahead of its header: by more than checkpoints add while an
//! observer looks. SQLite takes the page count from the header, so a longer file is legal
//! (<https://www.sqlite.org/fileformat2.html#in_header_database_size>). A checkpoint that must make
//! the file longer waits for [`PAUSE`] before it writes the header, and keeps the checkpoint lock
//! meanwhile. So whatever page count an observer reads, the file was long enough for it [`PAUSE`]
//! ago. The checkpoint of a last close waits for [`PAUSE_AT_CLOSE`]; then the file gets the length
//! that its header says.
//!
//! SQLite sets the file's length when a checkpoint has copied all frames, which cuts off freed
//! pages. Here the file stays long instead, and the bytes behind the database are overwritten with
//! zeros, so that no deleted data stay there. A file that is much too long is cut, after a pause
//! for observers that read the old header. The last close cuts off zeros only: other bytes there
//! mean that the header is wrong, as in a torn copy.
//!
//! # What it does not do
//! - It does nothing in rollback modes.
//! - An observer that takes longer than [`PAUSE`] from one look to the next may still take the file
//!   for torn.
//! - So may an observer that looks within [`PAUSE`] of a connection's first write, if another
//!   connection's checkpoint comes at once: that write makes the file longer without waiting.
//! - So may an observer that takes longer than [`PAUSE_AT_CLOSE`], if clients open the database one
//!   after the other and each closes the last connection.

use std::time::Duration;

/// The least distance between the header's length and the file's end, in bytes. It is a multiple of every page size.
const LEAST: i64 = 256 << 10;

/// The largest distance that a connection needs, in bytes, since each checkpoint that has copied all
/// frames reads the bytes behind the database.
const MOST: i64 = 4 << 20;

/// A file that must grow gets this many times the distance, so that few checkpoints must make it
/// longer.
const AT_ONCE: i64 = 4;

/// The distance that a cut leaves, in bytes: no connection needs more.
const AFTER_CUT: i64 = MOST;

/// A file that is ahead by this many bytes more than a connection would make it is cut.
const TOO_FAR: i64 = 16 << 20;

/// How many bytes more a file may stay ahead: other connections may add more than this one.
const MAY_STAY: i64 = 4 << 20;

/// After this many checkpoints in a row that find the file ahead by more than that, it is cut.
const CUT_AFTER: u32 = 16;

/// The distance is at least the database's length divided by this, up to [`MOST`].
const PART: i64 = 16;

/// How long a checkpoint that made the file longer waits, with its locks: longer than an observer
/// takes from one look to the next.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// How long the checkpoint of a last close waits. It is short: the next client waits for it, and
/// clients may come one by one.
pub(crate) const PAUSE_AT_CLOSE: Duration = Duration::from_millis(2);

/// How far ahead one connection keeps the file.
///
/// While the WAL is empty, SQLite takes the page count from the file's length, and writes that
/// count into the frames that it commits. If the file is then cut to much less than that count, the
/// next checkpoint calls it malformed. [`Told`] prevents that for our connections, but stock
/// clients see the file's own length. So a checkpoint cuts the file to no less than the length that
/// SQLite sets, and the last close cuts it only when the WAL is gone.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// The most that one of its checkpoints added, in bytes. Each checkpoint that copies all frames
    /// reduces this by an eighth, so that one import has no lasting effect.
    largest_growth: i64,
    /// How many of its checkpoints in a row found the file ahead by more than it may stay.
    found_far: u32,
    /// Whether a cut had no effect, because SQLITE_FCNTL_CHUNK_SIZE keeps the file long. Then that
    /// distance is enough, and the file's length is left to SQLite.
    pub(crate) stays_long: bool,
    /// Whether this connection's first write transaction has made sure that the file is ahead.
    pub(crate) has_begun: bool,
}

impl Ahead {
    /// A checkpoint is about to change the header's length from `old` to `new`, and the file has
    /// `size` bytes. Returns the length that the file must have before that, in bytes; `None` if it
    /// is far enough ahead.
    pub(crate) fn before_header(&mut self, size: i64, old: i64, new: i64) -> Option<i64> {
        self.largest_growth = self.largest_growth.max(new - old);
        let distance = self.distance(new);
        (size < new + distance).then_some(new + AT_ONCE * distance)
    }

    /// A write transaction begins, before there is anything to copy. The file has `size` bytes, and
    /// its header says `length`. Returns the length that the file must have, in bytes; `None` if it
    /// is far enough ahead.
    pub(crate) fn before_writing(&self, size: i64, length: i64) -> Option<i64> {
        let distance = self.distance(length);
        (size < length + distance).then_some(length + AT_ONCE * distance)
    }

    /// A checkpoint has copied all frames. The header says `length`, and the file has `size` bytes.
    /// Returns the length to cut it to, in bytes; `None` if it may stay as it is.
    pub(crate) fn after_checkpoint(&mut self, size: i64, length: i64) -> Option<i64> {
        self.largest_growth -= self.largest_growth / 8;
        let too_long = size - (length + AT_ONCE * self.distance(length));
        self.found_far = if too_long > MAY_STAY { self.found_far.saturating_add(1) } else { 0 };
        if too_long <= TOO_FAR && self.found_far < CUT_AFTER {
            return None;
        }
        self.found_far = 0;
        self.largest_growth = self.largest_growth.min(AFTER_CUT / 2);
        Some(length + AFTER_CUT)
    }

    /// How far ahead the file of a database of `length` bytes must be, in bytes.
    fn distance(&self, length: i64) -> i64 {
        let wanted = (2 * self.largest_growth).max(length / PART);
        // In steps of [`LEAST`], so that it is a multiple of the page size.
        (wanted.clamp(LEAST, MOST) + LEAST - 1) / LEAST * LEAST
    }
}

/// The length that a connection tells SQLite for a file that is ahead. It matters only while the
/// WAL has no commit, since SQLite then takes the page count from it.
///
/// The database's header is read once. Before a client changes it, that client commits and
/// checkpoints: then the wal-index has another header, or was recovered. While the wal-index has
/// the same header, SQLite keeps using the first page that it has read, and this struct keeps using
/// the length.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The file's own length, in bytes.
    size: i64,
    /// The checksum of the wal-index's header.
    checksum: u32,
    /// The length that SQLite was told then, in bytes.
    length: i64,
}

impl Told {
    /// The length to tell for a file of `size` bytes, whose wal-index has that `checksum`. `None`
    /// if the caller must read the database's header.
    pub(crate) fn known(&self, size: i64, checksum: u32) -> Option<i64> {
        (self.size == size && self.checksum == checksum).then_some(self.length)
    }

    /// Notes and returns the length to tell: `by_header` if the file is ahead, but never more than
    /// `size`.
    pub(crate) fn read(&mut self, size: i64, checksum: u32, by_header: Option<i64>) -> i64 {
        let length = by_header.map_or(size, |length| length.min(size));
        *self = Self { size, checksum, length };
        length
    }

    /// Forgets the length, since the database's header may change from now on.
    pub(crate) fn forget(&mut self) {
        // For a file of 0 bytes this tells 0 bytes, which is right: such a file is not ahead.
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;

//! A file that is shorter than its header says: a write that extended it was lost
//! (<https://www.sqlite.org/howtocorrupt.html> 3.1, 4).
//!
//! A disk, a driver or a full network share may report that a page was written, although it was
//! not. If the page lay behind the file's end, the file is now shorter than its header says. SQLite
//! calls it malformed when it next reads there, long after the commit.
//!
//! # What it does
//! While only one connection may change the file's length, [`Written`] notes how far that
//! connection has written. A file that ends before that has lost a write. In rollback modes the
//! check comes when everything is written and nothing is committed yet: an error there rolls back.
//! In WAL mode the file may lack committed pages until a checkpoint has copied all frames and sets
//! the file's length. An error there leaves all frames in the WAL.
//!
//! A checkpoint writes the header first. So the file gets its final length before the header is
//! written, and an observer sees no deficit.
//!
//! # What it does not do
//! - It finds no lost write within the file.
//! - It reports a file that was short before, and otherwise leaves it to SQLite: the present writer
//!   did not cause that.

use std::ffi::c_int;

use crate::format::Header;

/// What a connection has written while only it may change the file's length: in rollback modes from
/// RESERVED or EXCLUSIVE on, in WAL mode while it has the CKPT slot.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The least length of the file if no write was lost, in bytes.
    end: i64,
    /// The header that was there before the first page was written, and the one that was written last; `None` if the
    /// first page was not written.
    headers: Option<(Option<Header>, Header)>,
    /// Whether the connection is undoing a transaction.
    is_repair: bool,
}

impl Written {
    /// The connection may write from now on, and has not written yet.
    pub(crate) fn begin(&mut self) {
        (self.end, self.headers, self.is_repair) = (0, None, false);
    }

    /// A rollback may write from now on, and has not written yet.
    pub(crate) fn begin_repair(&mut self) {
        self.begin();
        self.is_repair = true;
    }

    /// Notes that `bytes` bytes were written at the offset `at`.
    pub(crate) fn wrote(&mut self, at: i64, bytes: c_int) {
        self.end = self.end.max(at.saturating_add(bytes.into()));
    }

    /// The first page is about to be written, with this header. `before` reads the header that the
    /// file has now.
    pub(crate) fn first_page(&mut self, header: &Header, before: impl FnOnce() -> Option<Header>) {
        match &mut self.headers {
            Some((_, last)) => *last = *header,
            None => self.headers = Some((before(), *header)),
        }
    }

    /// The file's length was set to `size` bytes.
    pub(crate) fn cut(&mut self, size: i64) {
        self.end = self.end.min(size);
    }

    /// How many of the written bytes, up to `length`, a file of `size` bytes lacks; `None` if it
    /// lacks none.
    pub(crate) fn lost(&self, size: i64, length: i64) -> Option<i64> {
        Some(self.end.min(length) - size).filter(|missing| *missing > 0)
    }

    /// All pages of a transaction are written. Returns by how many bytes the file would be shorter
    /// than its new header says; `None` if it would not, or if this is a rollback, which restores
    /// the old header.
    pub(crate) fn torn(&self, size: impl FnOnce() -> Option<i64>) -> Option<i64> {
        let (before, last) = self.headers.as_ref().filter(|_| !self.is_repair)?;
        if before.as_ref() == Some(last) {
            return None;
        }
        let length = last.length()?;
        let size = size()?;
        self.lost(size, length)?;
        Some(length - size)
    }

    /// The file was synced. Or, if it `is_torn`, the sync was refused, and a rollback comes next,
    /// which syncs once, at its end.
    pub(crate) fn synced(&mut self, is_torn: bool) {
        if is_torn {
            self.begin_repair();
        } else if self.is_repair {
            self.begin();
        }
    }
}

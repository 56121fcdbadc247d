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

use crate::format::Header;

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
        let length = last.length()?;
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

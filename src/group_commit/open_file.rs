//! Which errors the syncs of one open file of a WAL report, and so which frames its next sync vouches for.
//!
//! Linux reports an error of writing once to each file (open file description) that was open at that time: fsync(2),
//! <https://lwn.net/Articles/724307/>.

use super::record::WalId;

/// What is known about one open file of a WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WalDescription {
    /// The WAL that was last seen in the file.
    id: Option<WalId>,
    /// How many frames may have been written before the file was opened, or before it last reported
    /// an error.
    older: u32,
    /// [`Record::failures`](super::record::Record::failures) when the file last synced.
    failures: u32,
}

impl WalDescription {
    /// Whether its next sync may report an error that was repaired already, if the record counts
    /// `failures`.
    pub(super) fn may_report_late(self, failures: u32) -> bool {
        self.failures != failures
    }

    /// Whether its next sync reports the errors of all frames, and none that was repaired already.
    pub(super) fn vouches_for_all(self, failures: u32) -> bool {
        self.id.is_some() && self.older == 0 && !self.may_report_late(failures)
    }

    /// Whether frames behind the first `durable` ones may be lost without an error from this file. Another file may
    /// have reported the loss before this one was opened, or this one may have reported it already.
    pub(super) fn may_miss_errors_behind(self, durable: u32) -> bool {
        durable < self.older
    }

    /// [`Record::failures`](super::record::Record::failures) when the file last synced.
    pub(super) fn failures(self) -> u32 {
        self.failures
    }

    /// The file after one of its syncs has failed, when the record counted `failures`.
    pub(super) fn has_failed(self, failures: u32) -> Self {
        Self { failures: failures.max(self.failures), ..self }
    }

    /// The file after it has synced everything, when the record counted `failures`.
    pub(super) fn has_synced(self, failures: u32) -> Self {
        Self { older: 0, failures, ..self }
    }

    /// The file after it has reported an error to SQLite, perhaps as the only file: any frame
    /// written before may be lost, of any WAL.
    pub(super) fn has_reported(self) -> Self {
        Self { id: None, older: u32::MAX, ..self }
    }

    /// The file, now that it holds this WAL with `frames`.
    pub(super) fn at(self, id: &WalId, frames: u32) -> Self {
        let older = match self.id {
            None => self.older.max(frames),
            Some(known) if known == *id => self.older,
            // The WAL has restarted, so all its frames were written since.
            Some(_) => 0,
        };
        Self { id: Some(*id), older, ..self }
    }
}

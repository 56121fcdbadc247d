//! A WAL, for the connections that share its syncs.

use std::cell::Cell;
use std::time::Duration;

use super::open_file::WalDescription;
use super::record::WalId;
use crate::ffi::ResultCode;
use crate::sys::Stopwatch;

/// How long a leader sleeps between two looks for more commits. The kernel adds some 50 us.
const GATHER_NAP: Duration = Duration::from_micros(20);

/// What group commit needs of a WAL.
pub(super) trait Wal {
    /// Which WAL it is.
    fn id(&self) -> &WalId;
    /// How many frames are committed now.
    fn committed(&self) -> u32;
    /// Makes everything that was written to it durable.
    ///
    /// # Errors
    /// What xSync of the base VFS has answered.
    fn sync(&self) -> std::result::Result<(), ResultCode>;
    /// Writes all committed frames behind the first `behind` ones once more, as they are. False if one is not what was
    /// committed.
    fn write_again(&self, behind: u32) -> bool;
    /// Which errors its open file reports.
    fn open_file(&self) -> &Cell<WalDescription>;
    /// How many frames all connections write in one round of commits; 0 if no other one commits.
    fn round(&self) -> u32;
    /// Lets others commit for a moment. Returns the length of that moment, in ns.
    fn nap(&self) -> u64 {
        let mut watch = Stopwatch::start();
        watch.sleep(GATHER_NAP);
        watch.elapsed().as_nanos() as u64
    }
}

/// What is known once frames are durable, or why they may not be.
pub(super) type Result<T> = std::result::Result<T, NotDurable>;

/// Why frames may not be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotDurable {
    /// The connection's own sync has failed, with this code.
    Failed(ResultCode),
    /// Another connection's sync has failed, before or during this one's wait.
    AnotherFailed,
    /// No sync has failed, but the connection cannot share syncs now: another one leads, or the
    /// page cannot be read or written. Only [`begin`](super::leader::SharedSyncs::begin) answers
    /// this.
    NotShared,
}

impl NotDurable {
    /// The code for SQLite.
    pub(super) fn code(self) -> ResultCode {
        if let Self::Failed(rc) = self { rc } else { ResultCode::IOERR_FSYNC }
    }
}

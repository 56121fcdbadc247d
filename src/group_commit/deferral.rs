//! Which syncs of an open WAL are deferred. xWrite and xSync of the WAL call this state machine,
//! which itself calls nothing.
//!
//! SQLite syncs a WAL for three reasons (`sqlite3WalFrames`, `walWriteToLog` and `walCheckpoint`, from 3.31 to 3.54):
//!
//! | SQLite syncs | when | deferred |
//! |---|---|---|
//! | a commit, with `synchronous=FULL` | while it has WRITE locked, after it has written all frames | until it unlocks WRITE |
//! | the header of a WAL that restarts | after a write at offset 0 | no: the frames behind it must not reach the disk first |
//! | a checkpoint | without WRITE, or with CKPT locked, too | no |
//!
//! So a connection that has locked WRITE to commit allows one sync to be deferred: one that follows no header.

use std::ffi::c_int;

use super::Committer;
use crate::ffi::ResultCode;
use crate::format::WalHeader;

/// SQLITE_SYNC_NORMAL. One sync of this kind can stand for another. With `PRAGMA fullfsync` SQLite asks for
/// SQLITE_SYNC_FULL, which is not deferred. <https://www.sqlite.org/c3ref/c_sync_dataonly.html>
pub(crate) const SYNC_NORMAL: c_int = 2;
/// The bits of the flags that hold the kind of a sync.
const SYNC_KIND: c_int = 0xf;

/// The state of an open WAL's syncs.
pub(crate) struct Syncs<C> {
    rule: Rule<C>,
    /// The header, if that was the last write.
    header: Option<WalHeader>,
    /// Whether SQLite has asked for the sync of a commit under this rule.
    was_asked: bool,
    /// Whether all syncs that SQLite has made since [`Syncs::take_synced`] have succeeded; `None` if it has made none.
    synced: Option<bool>,
}

/// What xSync does when SQLite syncs a commit.
enum Rule<C> {
    /// It syncs.
    Make,
    /// It syncs nothing and answers SQLITE_OK, if the committer's transaction may be durable late.
    Defer {
        committer: C,
        /// Whether the next sync may report an error that was repaired already.
        reports_late: bool,
        /// The flags of the sync that was deferred.
        flags: Option<c_int>,
    },
    /// It fails, and SQLite rolls the transaction back: the frames before this commit are not
    /// durable.
    Refuse,
}

impl<C> Default for Syncs<C> {
    fn default() -> Self {
        Self { rule: Rule::Make, header: None, was_asked: false, synced: None }
    }
}

/// What an xSync of a WAL must do.
pub(crate) enum SyncOrder {
    /// Answer this, and sync nothing.
    Answer(ResultCode),
    /// Sync, and pass the answer to [`Syncs::synced`].
    Now {
        /// The header that the sync is to make durable.
        header: Option<WalHeader>,
    },
}

impl<C: Committer> Syncs<C> {
    /// WRITE was locked to commit: the syncs of this commit are deferred. With `reports_late`, the
    /// file may still report, once, an error that was repaired.
    pub(crate) fn defer(&mut self, committer: C, reports_late: bool) {
        let rule = Rule::Defer { committer, reports_late, flags: None };
        *self = Self { rule, ..Self::default() };
    }

    /// WRITE was locked to commit: the syncs of this commit fail, so that SQLite rolls it back.
    pub(super) fn refuse(&mut self) {
        *self = Self { rule: Rule::Refuse, ..Self::default() };
    }

    /// Ends what [`Self::defer`] or [`Self::refuse`] began. Returns whether SQLite has asked for the sync of a
    /// commit since, and the flags of the deferred one.
    pub(crate) fn take_asked(&mut self) -> (bool, Option<c_int>) {
        let ended = std::mem::take(self);
        self.synced = ended.synced;
        let flags = if let Rule::Defer { flags, .. } = ended.rule { flags } else { None };
        (ended.was_asked, flags)
    }

    /// Whether all syncs that SQLite has made since the last call have succeeded; `None` if it has made none.
    pub(super) fn take_synced(&mut self) -> Option<bool> {
        self.synced.take()
    }

    /// xWrite is about to write `data` at byte `at`.
    pub(crate) fn wrote(&mut self, data: &[u8], at: i64) {
        let header = <[u8; WalHeader::SIZE]>::try_from(data).ok().filter(|_| at == 0);
        self.header = header.map(WalHeader);
    }

    /// xSync was called with these flags. Returns what it must do.
    pub(crate) fn sync(&mut self, flags: c_int) -> SyncOrder {
        let header = self.header.take();
        if header.is_some() {
            return SyncOrder::Now { header };
        }
        self.was_asked = true;
        let is_normal = flags & SYNC_KIND == SYNC_NORMAL;
        match &mut self.rule {
            Rule::Refuse => SyncOrder::Answer(ResultCode::IOERR_FSYNC),
            Rule::Defer { committer, flags: deferred, .. }
                if is_normal && committer.may_defer() =>
            {
                *deferred = Some(flags);
                SyncOrder::Answer(ResultCode::OK)
            }
            _ => SyncOrder::Now { header: None },
        }
    }

    /// The sync that [`Self::sync`] asked for has answered `rc`. Returns whether xSync must write
    /// the header and sync once more, since the error may have been repaired already. It need not
    /// write anything else: all other bytes of the file are durable or void.
    pub(crate) fn synced(&mut self, header: Option<&WalHeader>, rc: ResultCode) -> bool {
        let has_failed = rc != ResultCode::OK;
        self.synced = Some(!has_failed && self.synced != Some(false));
        match &mut self.rule {
            Rule::Defer { reports_late, .. } if has_failed && header.is_some() => {
                std::mem::take(reports_late)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;

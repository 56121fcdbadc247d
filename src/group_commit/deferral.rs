//! Which syncs of a WAL are deferred.
//!
//! SQLite syncs a WAL for three reasons. A commit with `synchronous=FULL` does it while it has the
//! WRITE slot, after all frames: that sync may be put off until the slot is given back. A WAL that
//! begins anew has its header synced, after a write at offset 0: what is behind it must not reach the
//! disk first. And a checkpoint does it, without the WRITE slot or with the CKPT slot, too. So who has
//! taken WRITE to commit allows one sync to be put off, and that is the one that follows no header.
//! (`sqlite3WalFrames`, `walWriteToLog` and `walCheckpoint`, from 3.31 to 3.54.)

use std::ffi::c_int;

use super::Committer;
use crate::ffi::ResultCode;
use crate::format::WalHeader;

/// SQLITE_SYNC_NORMAL: a sync of this kind is like any other. With `fullfsync` each is its own.
pub(crate) const SYNC_NORMAL: c_int = 2;
const SYNC_KIND: c_int = 0xf;

/// What is known of the syncs of an open WAL.
pub(crate) struct Syncs<C> {
    /// Who may put the sync of its commit off, if anybody.
    committer: Option<C>,
    /// The flags of the sync that was.
    put_off: Option<c_int>,
    /// The header, if it was written last.
    header: Option<WalHeader>,
    /// Whether the next sync may tell of an error that was made up for.
    tells_late: bool,
    /// Whether a sync of a commit is to fail: what it would build on is not durable.
    refuses: bool,
    /// Whether SQLite has asked for one, other than of a header.
    was_asked: bool,
    /// Whether all syncs that SQLite has made since that was last asked have succeeded, if there were any.
    synced: Option<bool>,
}

impl<C> Default for Syncs<C> {
    fn default() -> Self {
        Self {
            committer: None,
            put_off: None,
            header: None,
            tells_late: false,
            refuses: false,
            was_asked: false,
            synced: None,
        }
    }
}

/// What an xSync of a WAL is to do.
pub(crate) enum Sync {
    /// Answer this.
    Answer(ResultCode),
    /// Sync, and answer what [`Syncs::synced`] says of it.
    Now {
        /// The header that it is about.
        header: Option<WalHeader>,
    },
}

impl<C: Committer> Syncs<C> {
    /// The next sync of a commit is to be put off. With `tells_late`, another may fail once because of
    /// an error that was made up for.
    pub(crate) fn put_off(&mut self, committer: C, tells_late: bool) {
        *self = Self { committer: Some(committer), tells_late, ..Self::default() };
    }

    /// The syncs of a commit are to fail, so that SQLite rolls it back.
    pub(crate) fn refuse(&mut self) {
        *self = Self { refuses: true, ..Self::default() };
    }

    /// What [`Self::put_off`] and [`Self::refuse`] have asked for is over. Whether SQLite has asked for a
    /// sync meanwhile, other than of a header, and the flags of the one that was put off.
    pub(crate) fn take_asked(&mut self) -> (bool, Option<c_int>) {
        let synced = self.synced;
        let ended = std::mem::replace(self, Self { synced, ..Self::default() });
        (ended.was_asked, ended.put_off)
    }

    /// Whether all syncs that SQLite has made since that was last asked have succeeded; `None` if there was none.
    pub(crate) fn take_synced(&mut self) -> Option<bool> {
        self.synced.take()
    }

    /// xWrite: what is written at `at`.
    pub(crate) fn wrote(&mut self, data: &[u8], at: i64) {
        let header = <[u8; WalHeader::SIZE]>::try_from(data).ok().filter(|_| at == 0);
        self.header = header.map(WalHeader);
    }

    /// xSync: what to do.
    pub(crate) fn sync(&mut self, flags: c_int) -> Sync {
        let Some(header) = self.header.take() else {
            self.was_asked = true;
            if self.refuses {
                return Sync::Answer(ResultCode::IOERR_FSYNC);
            }
            let is_normal = flags & SYNC_KIND == SYNC_NORMAL;
            if is_normal && self.committer.is_some_and(Committer::may_defer) {
                self.put_off = Some(flags);
                return Sync::Answer(ResultCode::OK);
            }
            return Sync::Now { header: None };
        };
        Sync::Now { header: Some(header) }
    }

    /// That sync has answered `rc`. Whether its header is to be written and synced once more: its error may be
    /// one that was made up for. Nothing but the header can be missing: what else is in the file is durable or void.
    pub(crate) fn synced(&mut self, header: Option<&WalHeader>, rc: ResultCode) -> bool {
        self.synced = Some(rc == ResultCode::OK && self.synced != Some(false));
        header.is_some() && rc != ResultCode::OK && std::mem::take(&mut self.tells_late)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_wal::{TestCommitter, TestWal, frames};
    use super::*;
    use crate::ffi::ResultCode;

    const SYNC_FULL: c_int = 3;
    const HEADER: usize = WalHeader::SIZE;

    /// One commit's sync is put off, the one that follows no header; and of no other kind, and of nobody who
    /// has not asked for it, or writes to another database besides.
    #[test]
    fn the_sync_of_a_commit_is_put_off_once() {
        let wal = TestWal::new(Vec::new());
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
        assert_eq!(wal.take_asked().1, None);

        wal.defer(TestCommitter, false);
        wal.write(&[0; 24], 32);
        assert_eq!((wal.sync(SYNC_NORMAL | 0x10), wal.synced()), (ResultCode::OK, vec![]));
        assert_eq!(wal.take_asked().1, Some(SYNC_NORMAL | 0x10));
        assert_eq!(wal.take_asked().1, None);
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));

        wal.defer(TestCommitter, false);
        assert_eq!((wal.sync(SYNC_FULL), wal.synced()), (ResultCode::OK, vec![3]));
        assert_eq!(wal.take_asked().1, None);

        // The header must be there before the frames behind it are.
        wal.defer(TestCommitter, false);
        wal.write(&[7; HEADER], 0);
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
        wal.write(&[0; 24], 32);
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![]));
        // Neither of these is one.
        for (bytes, at) in [(&[0; HEADER][..], 64), (&[0; 24], 0)] {
            wal.write(bytes, at);
            assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![]));
        }
        // The linked SQLite does not say what a connection writes to; a super-journal does.
        super::super::super_journal(true);
        wal.defer(TestCommitter, false);
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
        assert_eq!(wal.take_asked().1, None);
        super::super::super_journal(false);
    }

    /// What was answered to SQLite is known until it is asked for, also across a commit whose sync is put off, and one
    /// that failed is not forgotten for one that succeeds.
    #[test]
    fn what_sqlites_syncs_have_answered_is_known() {
        let memory = TestWal::new(frames(0x377f_0682, 512, 1));
        let wal = memory;
        assert_eq!(wal.take_synced(), None);
        memory.sync(SYNC_NORMAL);
        assert_eq!((wal.take_synced(), wal.take_synced()), (Some(true), None));
        wal.defer(TestCommitter, false);
        let header = [7; HEADER];
        memory.write(&header, 0);
        memory.seen(|memory| memory.failing = 1);
        assert_eq!(memory.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
        assert_eq!(wal.take_asked().1, None);
        assert_eq!(memory.sync(SYNC_NORMAL), ResultCode::OK);
        assert_eq!(wal.take_synced(), Some(false));
    }

    /// A sync that fails is told, also the header's: but if it may be an error that was made up for, the header
    /// is written and synced once more first, and once only.
    #[test]
    fn an_error_of_the_headers_sync_is_told_unless_it_is_an_old_one() {
        for (tells_late, failing, answers, synced) in [
            (false, 1, [ResultCode::IOERR_FSYNC, ResultCode::OK], 2),
            (true, 0, [ResultCode::OK, ResultCode::OK], 2),
            (true, 1, [ResultCode::OK, ResultCode::OK], 3),
            (true, 2, [ResultCode::IOERR_FSYNC, ResultCode::OK], 3),
            (true, 3, [ResultCode::IOERR_FSYNC, ResultCode::IOERR_FSYNC], 3),
        ] {
            let wal = TestWal::new(Vec::new());
            wal.defer(TestCommitter, tells_late);
            wal.seen(|memory| memory.failing = failing);
            for answer in answers {
                wal.write(&[7; HEADER], 0);
                assert_eq!(wal.sync(SYNC_NORMAL), answer, "{tells_late}, {failing}");
            }
            assert_eq!(wal.synced().len(), synced, "{tells_late}, {failing}");
            let again = usize::from(tells_late && failing > 0);
            assert_eq!(wal.seen(|memory| memory.written.len()), 2 + again);
            assert_eq!(wal.seen(|memory| memory.bytes.clone()), [7; HEADER]);
        }
    }
}

//! The end of WAL mode: the last connection closes, or leaves the mode.
//!
//! SQLite deletes the WAL and the wal-index then, once it has copied all frames, unless FCNTL_PERSIST_WAL says that the
//! WAL is to stay (<https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpersistwal>).

use super::Connection;
use super::base_file::BaseFile;
use super::held::HeldSlots;
use crate::ffi::ShmSlots;
use crate::format::{WAL_SUFFIX, beside, wal_index};
use crate::guard::cancellation::Protection;
use crate::guard::identity::Identity;
use crate::sys;

/// How far a connection is with closing as the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Closing {
    /// It is not, as far as it knows.
    #[default]
    No,
    /// It holds EXCLUSIVE without a snapshot in WAL mode, and has taken no lock since: it is the last one, and copies all
    /// frames.
    CopiesAll,
    /// It was the last one, and SQLite has asked whether the WAL is to stay: all frames are copied.
    IsAskedForWal,
}

impl<B: BaseFile> Connection<B> {
    /// The application says whether the WAL is to stay (FCNTL_PERSIST_WAL). If it stays, it stays as it is.
    pub(crate) fn application_persists_wal(&mut self) {
        self.app_persists_wal = true;
    }

    /// SQLite asks whether to keep the WAL, and `persists` is what the base file answers. Whether it is to stay.
    ///
    /// It stays also if another process still has the wal-index open, whose lock on the database was lost. One that stays,
    /// and not because the application has asked for it, is emptied.
    pub(crate) fn keeps_wal(&mut self, persists: bool, protection: &Protection) -> bool {
        let is_last = self.closing == Closing::CopiesAll;
        if is_last {
            self.closing = Closing::IsAskedForWal;
        }
        if self.lock.is_exclusive_again && !self.app_persists_wal {
            // WAL mode is being left: no WAL must be there without it.
            return false;
        }
        if !is_last {
            return persists;
        }
        let keeps = persists || self.is_wal_index_in_use(protection);
        if keeps && !(persists && self.app_persists_wal) {
            self.empty_wal();
        }
        keeps
    }

    /// Whether another process has the wal-index open. Where that cannot be seen: whether anybody uses it now.
    fn is_wal_index_in_use(&self, protection: &Protection) -> bool {
        let Some(index) = self.guards.files.identity().and_then(Identity::wal_index) else {
            return false;
        };
        protection.is_locked_by_others(index, wal_index::IN_USE).unwrap_or_else(|| {
            HeldSlots::lock(self.base, ShmSlots::ALL, &self.log).is_err_and(|rc| rc.is_busy())
        })
    }

    /// Empties a WAL that stays and of which all frames are copied, so that it means nothing to the next connection, or to
    /// another database in this one's place. Not if anybody has a slot of the wal-index locked: a client that is
    /// wrongly not counted.
    pub(super) fn empty_wal(&self) {
        let Some(opened) = self.guards.files.wal() else { return };
        // An index that says that more is copied than there is was led astray by the WAL-reset bug.
        let is_copied = self.base.frames().is_some_and(|(frames, copied)| frames == copied);
        if !is_copied {
            return;
        }
        let Ok(_all) = HeldSlots::lock(self.base, ShmSlots::ALL, &self.log) else { return };
        // In this order: a client that finds the wal-index without a header recovers it from the WAL.
        if sys::empty(&beside(self.database.path(), WAL_SUFFIX), opened).is_ok() {
            self.base.clear_wal_index();
        }
    }
}

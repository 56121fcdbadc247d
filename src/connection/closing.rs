//! The end of WAL mode: the last connection closes, or leaves the mode.
//!
//! SQLite then copies all frames and deletes the WAL and the wal-index, unless FCNTL_PERSIST_WAL
//! says to keep the WAL
//! (<https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpersistwal>).

use super::Connection;
use super::base_file::BaseFile;
use super::held::HeldSlots;
use crate::ffi::ShmSlots;
use crate::format::{WAL_SUFFIX, beside, wal_index};
use crate::guard::cancellation::Protection;
use crate::guard::identity::Identity;
use crate::sys;

/// How far the last connection is with closing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Closing {
    /// It does not know itself to be the last one.
    #[default]
    No,
    /// It holds EXCLUSIVE without a snapshot in WAL mode, and has taken no lock since: it is the last one, and copies all
    /// frames.
    CopiesAll,
    /// It was the last one, and SQLite has asked whether to keep the WAL: all frames are copied.
    IsAskedForWal,
}

impl<B: BaseFile> Connection<B> {
    /// The application says whether to keep the WAL (FCNTL_PERSIST_WAL). Such a WAL is kept as it
    /// is.
    pub(crate) fn application_persists_wal(&mut self) {
        self.app_persists_wal = true;
    }

    /// SQLite asks whether to keep the WAL; `persists` is the base file's answer. Returns the
    /// answer for SQLite.
    ///
    /// The WAL is also kept if another process that has lost its lock on the database still has the
    /// wal-index open. A WAL that is kept without the application's wish is emptied.
    pub(crate) fn keeps_wal(&mut self, persists: bool, protection: &Protection) -> bool {
        let is_last = self.closing == Closing::CopiesAll;
        if is_last {
            self.closing = Closing::IsAskedForWal;
        }
        if self.lock.is_exclusive_again && !self.app_persists_wal {
            // The connection leaves WAL mode: a WAL must not outlast it.
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

    /// Whether another process has the wal-index open. On systems that do not show that: whether
    /// any client uses it now.
    fn is_wal_index_in_use(&self, protection: &Protection) -> bool {
        let Some(index) = self.guards.files.identity().and_then(Identity::wal_index) else {
            return false;
        };
        protection.is_locked_by_others(index, wal_index::IN_USE).unwrap_or_else(|| {
            HeldSlots::lock(self.base, ShmSlots::ALL, &self.log).is_err_and(|rc| rc.is_busy())
        })
    }

    /// Empties a WAL that is kept and whose frames are all copied, so that neither the next
    /// connection nor another database in this place takes its frames for its own. Does nothing if
    /// a client has locked a slot of the wal-index: that client was wrongly not counted.
    pub(super) fn empty_wal(&self) {
        let Some(opened) = self.guards.files.wal() else { return };
        // If more frames are copied than there are, the WAL-reset bug has corrupted the wal-index.
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

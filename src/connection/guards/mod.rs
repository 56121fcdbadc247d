//! The storage guards of one connection: it runs the checks of [`crate::guard`] at the right
//! moments.

pub(super) mod files;
pub(super) mod length;
pub(super) mod pragmas;
pub(super) mod restart;
mod surplus;
#[cfg(all(test, unix, feature = "linked"))]
mod tests;

use std::io;
use std::sync::Arc;

use super::base_file::{BaseFile, Stands};
use crate::ffi::ResultCode;
use crate::format::{WAL_SUFFIX, beside};
use crate::guard::identity::{Displaced, Identity};
use crate::guard::wal_index;
use crate::lock::Database;
use crate::log::Log;
use crate::recorder::event::EventKind;
use files::{Files, LOOKS_AFTER};
use length::Length;
use pragmas::Pragmas;
use restart::Restart;

/// A state for each hazard, and what several of them need.
pub(crate) struct Guards<B: BaseFile> {
    base: B,
    database: Arc<Database>,
    log: Log,
    pub(crate) files: Files,
    pub(crate) length: Length<B>,
    pub(crate) restart: Restart<B>,
    pub(crate) pragmas: Pragmas,
    /// Why WAL mode is refused.
    no_wal: Option<String>,
}

/// What the guards must know about a database when a connection opens it.
pub(crate) struct AtOpen {
    /// Its files; `None` if it is no file that can be found by its name, an error if the kernel does not identify it.
    pub(crate) identity: io::Result<Option<Identity>>,
    /// Why WAL mode is refused there, if it is.
    pub(crate) no_wal: Option<String>,
    /// Whether the file is kept ahead of its header.
    pub(crate) keeps_ahead: bool,
}

impl<B: BaseFile> Guards<B> {
    pub(super) fn new(base: B, database: &Arc<Database>, log: Log, known: AtOpen) -> Self {
        let database = || Arc::clone(database);
        Self {
            base,
            database: database(),
            log,
            files: Files::new(database(), log, known.identity),
            length: Length::new(base, database(), log, known.keeps_ahead),
            restart: Restart::new(base, database(), log),
            pragmas: Pragmas::default(),
            no_wal: known.no_wal,
        }
    }

    /// Replaces the base file.
    #[cfg(test)]
    pub(super) fn set_base(&mut self, base: B) {
        (self.base, self.length.base, self.restart.base) = (base, base, base);
    }

    /// Why WAL mode is refused, if it is.
    pub(crate) fn no_wal(&self) -> Option<&str> {
        self.no_wal.as_deref()
    }

    /// Checks the files, after a lock to read was taken.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED; the caller must unlock the lock.
    pub(super) fn check_reader(&mut self) -> Result<(), ResultCode> {
        // Until the length is measured, each read is checked, since only then is `took_snapshot`
        // called.
        self.files.check_reader(if self.length.is_measured() { LOOKS_AFTER } else { 1 })
    }

    /// SHARED was taken. The first time, compares the file's length with its header, except in WAL mode, where the WAL may
    /// have the rest.
    pub(super) fn took_shared(&mut self) {
        if self.length.is_measured() {
            return;
        }
        self.length.look_where_it_stands();
        let header = self.base.header();
        let is_wal = header.is_some_and(|header| header.is_wal());
        if let Some(why) = self.no_wal.as_ref().filter(|_| is_wal) {
            self.database.tell(&self.log, EventKind::Guard, ResultCode::CANTOPEN, why);
        }
        if !is_wal {
            self.length.measure(header);
        }
    }

    /// A READ slot was taken. The first time, compares the file's length with its header if the WAL
    /// is empty. If not, the WAL must be the one that the wal-index describes.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED; the caller must unlock the slot.
    pub(super) fn took_snapshot(&mut self) -> Result<(), ResultCode> {
        let base = self.base;
        if self.length.is_measured() {
            return Ok(());
        }
        self.length.look_where_it_stands();
        // A writer may restart the WAL at any moment, with other salts and no frames.
        let (before, frames, salts) = (base.salts(), base.frames(), base.salts());
        match (frames, salts) {
            (Some((0, _)), _) => self.length.measure(base.header()),
            (Some((frames, _)), Some(salts)) if before == Some(salts) => {
                let wal = beside(self.database.path(), WAL_SUFFIX);
                // Read by its name, so as it lies on the disk: another VFS may keep it in another
                // form.
                let is_other = self.length.stands() == Stands::Alone
                    && !wal_index::speaks_of(&wal, frames, salts);
                let has_frames = base.frames().is_some_and(|(now, _)| now >= frames);
                if is_other && has_frames && base.salts() == Some(salts) {
                    return self.files.refuse(Displaced::Moved("the WAL"));
                }
                self.length.lags_rightly();
            }
            _ => self.length.lags_rightly(),
        }
        Ok(())
    }

    /// The wal-index was mapped, for the first time since it was unmapped.
    pub(super) fn wal_opened(&mut self) {
        self.files.wal_opened();
    }

    pub(super) fn wal_closed(&mut self) {
        self.length.wal_closed();
        self.files.wal_closed();
        self.restart.wal_closed();
    }
}

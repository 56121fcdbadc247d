//! Whether a connection's files are in their places, asked before it writes and now and then while it reads.
//! [`crate::guard::identity`] says what is looked at.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use crate::counters::count;
use crate::ffi::ResultCode;
use crate::guard::identity::{Displaced, Identity};
use crate::lock::Database;
use crate::log::Log;
use crate::recorder::event::EventKind;
use crate::sys::{self, Inode};

/// After how many read transactions a reader looks at the clock: even reading the clock shows in a
/// transaction of one row.
pub(super) const LOOKS_AFTER: u8 = 32;

/// The files of one connection.
pub(crate) struct Files {
    database: Arc<Database>,
    log: Log,
    /// `None` if the database is no file that can be found by its name.
    identity: Option<Identity>,
    /// Why the kernel did not tell which files these are, if it did not.
    untold: Option<io::Error>,
    /// What was logged last, so that the same is not logged at each attempt.
    logged: Cell<Option<Displaced>>,
    /// After how many more read transactions to look at the clock.
    until_look: u8,
    /// Whether this transaction was checked when it began.
    is_checked: bool,
}

impl Files {
    pub(super) fn new(
        database: Arc<Database>,
        log: Log,
        known: io::Result<Option<Identity>>,
    ) -> Self {
        let (identity, untold) = known.map_or_else(|why| (None, Some(why)), |known| (known, None));
        let logged = Cell::new(None);
        Self { database, log, identity, untold, logged, until_look: 1, is_checked: false }
    }

    /// Why the kernel did not tell which files these are, if it did not.
    pub(crate) fn untold(&self) -> Option<&io::Error> {
        self.untold.as_ref()
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The WAL, while the wal-index is mapped.
    pub(crate) fn wal(&self) -> Option<Inode> {
        self.identity.as_ref().and_then(Identity::wal)
    }

    /// Which file is not in its place, as far as that can be seen now.
    pub(crate) fn displaced(&mut self) -> Option<Displaced> {
        self.identity.as_mut()?.check(sys::monotonic_ns()).err().or(self.logged.get())
    }

    /// Checks the files before anything is locked to write. `now` is of [`sys::monotonic_ns`].
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED, or SQLITE_READONLY for hard links.
    #[inline(always)]
    pub(crate) fn before_write(&mut self, now: u64) -> Result<(), ResultCode> {
        let Some(identity) = &mut self.identity else { return Ok(()) };
        let checked = identity.check(now);
        self.is_checked = checked.is_ok();
        checked.or_else(|why| self.refuse(why))
    }

    /// Checks the files before anything is locked to recover or clean up, or for a first connect, which may
    /// only read. Hard links do no harm then.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED.
    pub(crate) fn before_upkeep(&mut self, now: u64) -> Result<(), ResultCode> {
        let Some(identity) = &mut self.identity else { return Ok(()) };
        match identity.check(now) {
            Ok(()) | Err(Displaced::Linked(_)) => Ok(()),
            Err(why) => self.refuse(why),
        }
    }

    /// Counts a read transaction that is about to begin. Returns whether [`Self::check_reader`] is
    /// due. It stays due until it is called, since the lock may be refused.
    pub(crate) fn count_read(&mut self) -> bool {
        if self.until_look <= 1 {
            return true;
        }
        self.until_look -= 1;
        false
    }

    /// Checks the files after a lock to read was taken. The next look is due after `next_look` read
    /// transactions.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED; the caller must unlock the lock.
    pub(super) fn check_reader(&mut self, next_look: u8) -> Result<(), ResultCode> {
        self.until_look = next_look;
        let Some(identity) = &mut self.identity else { return Ok(()) };
        identity.check_now_and_then().or_else(|why| self.refuse(why))
    }

    /// The transaction is committed, but COMMIT has not returned (FCNTL_COMMIT_PHASETWO).
    ///
    /// # Errors
    /// As for [`Self::before_write`], if the transaction was not checked when it began: in
    /// exclusive locking mode nothing is locked then. (Not at FCNTL_SYNC, which a rollback sends,
    /// too.)
    pub(crate) fn after_commit(&mut self) -> Result<(), ResultCode> {
        if !self.note_commit() {
            self.before_write(sys::monotonic_ns())?;
            self.is_checked = false;
        }
        Ok(())
    }

    /// [`Self::after_commit`] for a transaction that was checked when it began; false for any other.
    pub(crate) fn note_commit(&mut self) -> bool {
        std::mem::take(&mut self.is_checked)
    }

    /// The transaction is over, if there was one.
    pub(crate) fn ended(&mut self) {
        self.is_checked = false;
    }

    pub(super) fn wal_opened(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.wal_opened();
            if let Some(why) = identity.wal_untold() {
                self.log.log_about(ResultCode::WARNING, why, self.database.path());
            }
        }
    }

    pub(super) fn wal_closed(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.wal_closed();
        }
    }

    /// # Errors
    /// SQLite's code for it, always.
    pub(super) fn refuse(&self, why: Displaced) -> Result<(), ResultCode> {
        let rc = match why {
            Displaced::Moved(_) => ResultCode::READONLY_DBMOVED,
            Displaced::Linked(_) => ResultCode::READONLY,
        };
        count(&self.database.counters.displaced);
        if self.logged.replace(Some(why)) != Some(why) {
            self.database.tell(&self.log, EventKind::Guard, rc, &why.to_string());
        }
        Err(rc)
    }
}

//! When a connection takes the write lock and when it gives it back.
//!
//! | it holds the write lock | because |
//! |---|---|
//! | from the first RESERVED or higher lock until SHARED or none | [`Reason::Rollback`]: a write transaction in a rollback mode, a hot journal's rollback, a change of journal mode, exclusive locking mode |
//! | while it holds the WAL's WRITE slot | [`Reason::Wal`]: a write transaction in WAL mode, recovery of the wal-index, also by the first connection, which creates it |
//! | from SHARED until none, on an empty database or after `PRAGMA journal_mode` | [`Reason::FirstConnect`]: see [`Connection::lock`] |
//!
//! Readers do none of this.

use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ffi::{
    Rc, SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_IOERR_LOCK, SQLITE_LOCK_NONE, SQLITE_LOCK_RESERVED,
    SQLITE_LOCK_SHARED, SQLITE_OK, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_LOCK, SQLITE_SHM_UNLOCK,
    WAL_READ_LOCK, WAL_WRITE_LOCK,
};
use crate::host::Host;
use crate::lock::wait::{Wait, Waited};
use crate::lock::{Database, Refused, WriteLock};
use crate::options::Settings;

/// The file of the base VFS.
pub(crate) trait BaseFile {
    /// xLock
    fn lock(&self, level: c_int) -> Rc;
    /// xUnlock
    fn unlock(&self, level: c_int) -> Rc;
    /// xShmLock
    fn shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> Rc;
    /// xFileSize, in bytes.
    fn size(&self) -> Result<i64, Rc>;
}

/// Why the write lock is held. There may be several reasons at once.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Reason {
    Rollback = 1,
    Wal = 2,
    FirstConnect = 4,
}

/// How often, after `PRAGMA journal_mode`, SHARED is taken together with the write lock: once by
/// reading the schema, once by the statement itself.
const MODE_CHANGE_ATTEMPTS: u8 = 2;

/// An open database, as one connection sees it.
pub(crate) struct Connection {
    id: u64,
    database: Arc<Database>,
    settings: Settings,
    log: Host,
    read_only: bool,
    write_lock: Option<WriteLock>,
    reasons: u8,
    wait: Wait,
    /// Whether the database was ever seen to have content.
    has_content: bool,
    /// How many more SHARED locks may be the beginning of a change of journal mode.
    mode_change: u8,
}

impl Connection {
    pub(crate) fn new(path: &Path, settings: Settings, log: Host, read_only: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            database: Database::at(path),
            settings,
            log,
            read_only,
            write_lock: None,
            reasons: 0,
            wait: Wait::default(),
            has_content: false,
            mode_change: 0,
        }
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn holds_write_lock(&self) -> bool {
        self.write_lock.is_some()
    }

    /// `PRAGMA journal_mode = ...` is about to run.
    pub(crate) fn expect_mode_change(&mut self) {
        self.mode_change = MODE_CHANGE_ATTEMPTS;
    }

    /// xLock: the write lock first, then the base's.
    ///
    /// Switching to WAL and creating the first table read the header under SHARED and then
    /// upgrade, and on an upgrade SQLite does not consult its busy handler, because two
    /// connections that upgrade would wait for each other. So of many first connections one would
    /// succeed and the others say "database is locked" at once, whatever their timeout. One step
    /// earlier, at SHARED, the busy handler is consulted. There, on a database without content
    /// and for a change of journal mode, the write lock is taken.
    pub(crate) fn lock(&mut self, level: c_int, base: &impl BaseFile) -> Rc {
        let reason = if level >= SQLITE_LOCK_RESERVED {
            Reason::Rollback
        } else if level == SQLITE_LOCK_SHARED && self.is_first_connect(base) {
            Reason::FirstConnect
        } else {
            return base.lock(level);
        };
        self.with_write_lock(reason, || base.lock(level))
    }

    fn is_first_connect(&mut self, base: &impl BaseFile) -> bool {
        if self.read_only {
            return false;
        }
        if self.mode_change > 0 {
            return true;
        }
        if !self.has_content {
            // A base that can not tell is left to SQLite, which will ask it again.
            self.has_content = !matches!(base.size(), Ok(0));
        }
        !self.has_content
    }

    /// xUnlock: the base's first, then the write lock.
    pub(crate) fn unlock(&mut self, level: c_int, base: &impl BaseFile) -> Rc {
        let rc = base.unlock(level);
        if level <= SQLITE_LOCK_SHARED {
            self.release(Reason::Rollback);
        }
        if level == SQLITE_LOCK_NONE && self.has(Reason::FirstConnect) {
            self.mode_change = self.mode_change.saturating_sub(1);
            self.release(Reason::FirstConnect);
        }
        rc
    }

    /// xShmLock: as [`Self::lock`] and [`Self::unlock`], for the WAL's WRITE slot.
    pub(crate) fn shm_lock(
        &mut self,
        offset: c_int,
        n: c_int,
        flags: c_int,
        base: &impl BaseFile,
    ) -> Rc {
        let is_write_slot = offset == WAL_WRITE_LOCK;
        if is_write_slot && flags == SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE {
            return self.with_write_lock(Reason::Wal, || base.shm_lock(offset, n, flags));
        }
        let rc = base.shm_lock(offset, n, flags);
        if is_write_slot && flags & SQLITE_SHM_UNLOCK != 0 {
            self.release(Reason::Wal);
        } else if self.has(Reason::FirstConnect) && offset >= WAL_READ_LOCK && rc == SQLITE_OK {
            // The database is in WAL mode, where SHARED is kept until the connection closes.
            self.mode_change = 0;
            self.release(Reason::FirstConnect);
        }
        rc
    }

    /// The base has unmapped the wal-index, and with it given up its locks.
    pub(crate) fn shm_unmapped(&mut self) {
        self.release(Reason::Wal);
    }

    /// The base has closed the file.
    pub(crate) fn closed(&mut self) {
        self.reasons = 0;
        self.write_lock = None;
        if let Some(waited) = self.wait.end() {
            self.gave_up(waited);
        }
    }

    /// Runs `take`, which takes a lock of the base's, under the write lock. If it fails, the write
    /// lock is held only if it was before.
    fn with_write_lock(&mut self, reason: Reason, take: impl FnOnce() -> Rc) -> Rc {
        if self.write_lock.is_none() {
            match self.database.try_acquire(self.id) {
                Ok(lock) => self.write_lock = Some(lock),
                Err(Refused::Busy) => {
                    self.refused();
                    return SQLITE_BUSY;
                }
                // Reading must go on where nothing can be written; writing will fail by itself.
                Err(Refused::Unusable(_))
                    if self.read_only || matches!(reason, Reason::FirstConnect) => {}
                Err(why) => return self.failed(&why),
            }
        }
        let had_reason = self.has(reason);
        self.reasons |= reason as u8;
        let rc = take();
        if rc == SQLITE_OK {
            self.acquired();
            return rc;
        }
        if !had_reason {
            self.reasons &= !(reason as u8);
            if self.reasons == 0 {
                if let Some(lock) = self.write_lock.take() {
                    lock.check_sidecar();
                }
            }
        }
        if rc & 0xff == SQLITE_BUSY {
            self.refused();
        }
        rc
    }

    fn has(&self, reason: Reason) -> bool {
        self.reasons & reason as u8 != 0
    }

    fn release(&mut self, reason: Reason) {
        self.reasons &= !(reason as u8);
        if self.reasons == 0 {
            self.write_lock = None;
        }
    }

    fn acquired(&mut self) {
        if !self.wait.is_waiting() {
            return;
        }
        if let Some(Waited(waited)) = self.wait.acquired() {
            let counters = &self.database.counters;
            let ms = waited.as_millis() as u64;
            self.database.wait_ends();
            counters.waits.fetch_add(1, Ordering::Relaxed);
            counters.waited_ms.fetch_add(ms, Ordering::Relaxed);
            counters.longest_wait_ms.fetch_max(ms, Ordering::Relaxed);
        }
    }

    fn refused(&mut self) {
        self.database.counters.refused.fetch_add(1, Ordering::Relaxed);
        let waited_before = self.wait.is_waiting();
        let ended = self.wait.refused(self.id);
        if !waited_before {
            self.database.wait_begins();
        }
        if let Some(waited) = ended {
            self.gave_up(waited);
            if self.wait.is_waiting() {
                self.database.wait_begins();
            }
        }
    }

    fn gave_up(&self, Waited(waited): Waited) {
        self.database.wait_ends();
        self.database.counters.gave_up.fetch_add(1, Ordering::Relaxed);
        let database = self.database.path().display();
        let waited = waited.as_millis();
        let holder = match self.database.holder() {
            _ if self.holds_write_lock() => "it has the write lock, but readers are in its way; \
                                             end their transactions, or wait longer"
                .to_owned(),
            Some((holder, _)) => format!(
                "process {} has held the write lock for {} ms; end its transaction, or wait longer",
                holder.pid,
                holder.held().as_millis()
            ),
            None => "the write lock is free now: it was given back, or a client that does not use \
                     this VFS holds SQLite's own lock; try again, or wait longer"
                .to_owned(),
        };
        self.log.log(
            SQLITE_BUSY,
            &format!("{database}: gave up after waiting {waited} ms to write: {holder}"),
        );
    }

    fn failed(&self, why: &Refused) -> Rc {
        let (rc, why) = match why {
            Refused::Busy => return SQLITE_BUSY,
            Refused::Unusable(why) => (SQLITE_CANTOPEN, why.to_string()),
            Refused::Kernel(error) => (
                SQLITE_IOERR_LOCK,
                format!(
                    "can not lock sidecar {}: {error}; its file system must support \
                     open-file-description locks",
                    self.database.sidecar_path().display()
                ),
            ),
            Refused::Inherited => (
                SQLITE_IOERR_LOCK,
                "the connection was opened before a fork; open one in the child".to_owned(),
            ),
        };
        self.log.log(rc, &format!("{}: {why}", self.database.path().display()));
        rc
    }
}

//! xLock and xUnlock: SQLite's lock on the database, and with it the write lock of rollback modes.

use super::base_file::{BaseFile, Sought};
use super::claim::{Need, Reason, Request};
use super::closing::Closing;
use super::held::{self, HeldLevel};
use super::{Connection, UNENCRYPTED};
use crate::ffi::{LockLevel, ResultCode};
use crate::lock::wait::Cause;
use crate::sys;

/// SQLite's lock on the database, as one connection holds it.
#[derive(Debug)]
pub(super) struct DatabaseLock {
    pub(super) level: LockLevel,
    /// SQLite has asked for EXCLUSIVE while it held it: it leaves WAL mode, or has never shared the database.
    pub(super) is_exclusive_again: bool,
}

impl Default for DatabaseLock {
    fn default() -> Self {
        Self { level: LockLevel::NONE, is_exclusive_again: false }
    }
}

impl<B: BaseFile> Connection<B> {
    /// xLock: the write lock first, then the base file's lock.
    pub(crate) fn lock(&mut self, level: LockLevel) -> ResultCode {
        self.claim.wait.remove_probe();
        if self.goes_under_ciphers && self.is_unencrypted() {
            let why = UNENCRYPTED.to_string_lossy();
            self.log.log_about(ResultCode::CANTOPEN, &why, self.database.path());
            return ResultCode::CANTOPEN;
        }
        self.closing = Closing::No;
        let rc = self.take(level);
        if rc == ResultCode::OK {
            let held = self.lock.level;
            self.lock.is_exclusive_again = level == LockLevel::EXCLUSIVE && held == level;
            if held < LockLevel::RESERVED && level >= LockLevel::RESERVED {
                // EXCLUSIVE without RESERVED in between is for the rollback of what another connection has left.
                match level == LockLevel::EXCLUSIVE && !self.wal.is_mapped {
                    true => self.guards.length.written().begin_repair(),
                    false => self.guards.length.written().begin(),
                }
            }
            self.lock.level = held.max(level);
        }
        rc
    }

    fn take(&mut self, level: LockLevel) -> ResultCode {
        let base = self.base;
        let (reason, need) = if level >= LockLevel::RESERVED {
            if self.read_only {
                // It has no right to the lock, and the base file says so, as it does without the write lock.
                return base.lock(level);
            }
            if self.wal.is_mapped && !self.wal.has_snapshot {
                return self.lock_to_clean_up(level);
            }
            (Reason::Rollback, Need::Write)
        } else if level == LockLevel::SHARED && !self.read_only && self.first_connect.begins(base) {
            (Reason::FirstConnect, Need::FirstConnect)
        } else {
            return self.lock_shared(level);
        };
        let request = self.request(reason, need, Sought::Database(level));
        let rc = self.claim.take(request, &mut self.guards, || base.lock(level));
        if rc == ResultCode::OK
            && level == LockLevel::EXCLUSIVE
            && self.wal.is_mapped
            && self.group.is_on()
        {
            let held = HeldLevel::above(base, LockLevel::SHARED);
            if let Err(rc) = self.group_begins_exclusively() {
                drop(held);
                self.claim.release(Reason::Rollback);
                return rc;
            }
            held.keep();
        }
        if rc.is_busy() && request.is_for_journal() {
            self.claim.journal_refused();
        }
        rc
    }

    /// The database's own lock in WAL mode, without a snapshot: the last connection cleans up when it closes, or WAL mode
    /// is left. Every connection that closes tries, and most in vain. So SQLite's lock comes first here; the one that gets
    /// it has excluded all others, and takes the write lock for them to see.
    fn lock_to_clean_up(&mut self, level: LockLevel) -> ResultCode {
        let base = self.base;
        if let Err(rc) = self.guards.files.before_upkeep(sys::monotonic_ns()) {
            return rc;
        }
        let rc = base.lock(level);
        if rc != ResultCode::OK {
            if rc.is_busy() {
                self.claim.wait.refused_another();
            }
            return rc;
        }
        self.claim.take_to_clean_up();
        if self.group.is_on() {
            let held = HeldLevel::above(base, LockLevel::SHARED);
            if let Err(rc) = self.group.repair() {
                // The WAL is needed.
                drop(held);
                self.claim.release(Reason::Rollback);
                return rc;
            }
            held.keep();
        }
        self.closing = Closing::CopiesAll;
        rc
    }

    /// A lock below RESERVED. If SHARED is refused, a writer of a rollback mode commits or is about to. The connection
    /// queues behind it, if it holds the write lock, since it may be about to write, too.
    fn lock_shared(&mut self, level: LockLevel) -> ResultCode {
        let base = self.base;
        let rc = base.lock(level);
        if rc == ResultCode::OK && level == LockLevel::SHARED {
            return self.took_shared();
        }
        if !rc.is_busy() || level != LockLevel::SHARED {
            return rc;
        }
        let mut can_queue = self.database.is_held();
        if !can_queue {
            // The writer has just finished, or does not use this VFS.
            match base.lock(level) {
                ResultCode::OK => return self.took_shared(),
                rc if !rc.is_busy() => return rc,
                _ => {}
            }
            can_queue = self.database.is_held();
        }
        let request = self.request(Reason::Rollback, Need::Write, Sought::Database(level));
        let cause = match can_queue {
            true => Cause::WriteLock,
            false => self.claim.cause(&request),
        };
        self.claim.shared_refused(cause);
        ResultCode::BUSY
    }

    fn took_shared(&mut self) -> ResultCode {
        let held = HeldLevel::above(self.base, LockLevel::NONE);
        match self.guards.before_read() {
            Ok(()) => {
                held.keep();
                self.claim.took_shared();
                self.guards.first_locked();
                ResultCode::OK
            }
            Err(rc) => rc,
        }
    }

    /// xUnlock: the base file's lock first, then the write lock.
    pub(crate) fn unlock(&mut self, level: LockLevel) -> ResultCode {
        if self.closing == Closing::IsAskedForWal {
            self.closing = Closing::No;
            if !self.read_only && self.lock.level == LockLevel::EXCLUSIVE {
                self.guards.length.cut_to_header();
            }
        }
        let base = self.base;
        let rc = self.claim.wait.with_probe_paused(|| held::unlock(|| base.unlock(level)));
        if rc != ResultCode::OK {
            // The base file may hold the lock still, and so must this connection hold the write lock.
            return rc;
        }
        self.lock.level = self.lock.level.min(level);
        self.lock.is_exclusive_again = false;
        self.closing = Closing::No;
        self.claim.wait.unlocked();
        if level <= LockLevel::SHARED {
            self.guards.files.ended();
            self.claim.release(Reason::Rollback);
        }
        if level == LockLevel::NONE {
            self.claim.unlocked_database();
            if self.claim.has(Reason::FirstConnect) {
                self.claim.release(Reason::FirstConnect);
            }
        }
        rc
    }

    pub(super) fn request(&self, reason: Reason, need: Need, sought: Sought) -> Request {
        Request { reason, need, sought, level: self.lock.level }
    }
}

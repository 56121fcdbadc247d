//! xLock and xUnlock: SQLite's lock on the database, and with it the write lock of rollback modes.

use std::time::Duration;

use super::base_file::{BaseFile, Sought};
use super::claim::{Begun, COMMIT_LASTS, Need, Reason, Request};
use super::closing::Closing;
use super::held::{self, HeldLevel};
use super::{Connection, UNENCRYPTED};
use crate::ffi::{LockLevel, ResultCode};
use crate::lock::wait::Obstacle;
use crate::sys::{self, Stopwatch};

/// The sleep between two attempts of a connection that waits inside xLock, for a lock whose release
/// wakes nobody.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(1);

/// SQLite's lock on the database, as one connection holds it.
#[derive(Debug, Default)]
pub(super) struct DatabaseLock {
    pub(super) level: LockLevel,
    /// SQLite has asked for EXCLUSIVE while it already held it: it leaves WAL mode, or has never
    /// shared the database.
    pub(super) is_exclusive_again: bool,
}

impl<B: BaseFile> Connection<B> {
    /// xLock: the write lock first, then the base file's lock.
    pub(crate) fn lock(&mut self, level: LockLevel) -> ResultCode {
        self.claim.wait.remove_probe();
        if self.is_unencrypted() {
            let why = UNENCRYPTED.to_string_lossy();
            self.log.log_about(ResultCode::CANTOPEN, &why, self.database.path());
            return ResultCode::CANTOPEN;
        }
        self.closing = Closing::No;
        if level == LockLevel::SHARED && !self.claim.wait.is_quiet() {
            self.claim.wait_beside_handler();
        }
        let rc = self.take_level(level);
        if rc == ResultCode::OK {
            let held = self.lock.level;
            self.lock.is_exclusive_again = level == LockLevel::EXCLUSIVE && held == level;
            if held < LockLevel::RESERVED && level >= LockLevel::RESERVED {
                // EXCLUSIVE without RESERVED before it is for the rollback of a hot journal.
                match level == LockLevel::EXCLUSIVE && !self.wal.is_mapped {
                    true => {
                        self.guards.length.written().begin_repair();
                        self.guards.length.cut_before_wal();
                    }
                    false => self.guards.length.written().begin(),
                }
            }
            self.lock.level = held.max(level);
        }
        rc
    }

    /// Takes the level, after the write lock that goes with it.
    fn take_level(&mut self, level: LockLevel) -> ResultCode {
        let base = self.base;
        let need = if level >= LockLevel::RESERVED {
            if self.read_only {
                // The connection may not have this lock: the base file answers the error, as on the
                // stock VFS.
                return base.lock(level);
            }
            if self.wal.is_mapped && !self.wal.has_snapshot {
                return self.lock_to_clean_up(level);
            }
            Need::Write
        } else if level < LockLevel::SHARED {
            return base.lock(level);
        } else if !self.read_only && self.first_connect.look_whether_it_begins(base) {
            Need::FirstConnect
        } else {
            return self.lock_shared();
        };
        let request = Request { need, sought: Sought::Database(level), level: self.lock.level };
        let rc = self.claim.take(request, &mut self.guards, || base.lock(level));
        let rc = match level == LockLevel::EXCLUSIVE && !request.is_for_journal() {
            true => self.wait_at_least(level, rc),
            false => rc,
        };
        if level == LockLevel::RESERVED {
            self.tried_to_write(rc);
        }
        let is_exclusive_mode = level == LockLevel::EXCLUSIVE && self.wal.is_mapped;
        if rc == ResultCode::OK && is_exclusive_mode && self.group.is_on() {
            let begun = self.group_begins_exclusively();
            return self.unlock_unless(begun);
        }
        if rc.is_busy() && request.is_for_journal() {
            self.claim.journal_refused();
        }
        rc
    }

    /// A lock above SHARED was taken. Unlocks down to SHARED if the step after it, `done`, has
    /// failed.
    fn unlock_unless(&mut self, done: Result<(), ResultCode>) -> ResultCode {
        if done.is_err() {
            drop(HeldLevel::above(self.base, LockLevel::SHARED));
            self.claim.release(Reason::Rollback);
        }
        done.into()
    }

    /// The database's own lock in WAL mode, without a snapshot: the last connection cleans up when
    /// it closes, or WAL mode is left. Every connection that closes tries this, most in vain. So
    /// SQLite's lock comes first here. The connection that gets it has excluded all others. It
    /// compares the files with their names, and takes the write lock only to show itself.
    fn lock_to_clean_up(&mut self, level: LockLevel) -> ResultCode {
        let base = self.base;
        let rc = base.lock(level);
        if rc != ResultCode::OK {
            if rc.is_busy() {
                self.claim.wait.refused_unrelated();
            }
            return rc;
        }
        if let Err(rc) = self.guards.files.before_upkeep(sys::monotonic_ns()) {
            // In exclusive locking mode SQLite had the lock before.
            return if self.lock.level < level { self.unlock_unless(Err(rc)) } else { rc };
        }
        self.claim.take_to_clean_up();
        let mut repaired = Ok(());
        if self.group.is_on() {
            // If the repair fails, the WAL is needed.
            repaired = self.group.repair().map(|_| ());
        }
        if repaired.is_ok() {
            self.closing = Closing::CopiesAll;
        }
        self.unlock_unless(repaired)
    }

    /// SHARED. If it is refused, a writer of a rollback mode commits or is about to. If that writer
    /// has the write lock, this connection queues behind it, since it may want to write, too.
    fn lock_shared(&mut self) -> ResultCode {
        let base = self.base;
        let mut waits_for_commit = match self.begin_with_shared() {
            Begun::AsWanted | Begun::Without => Duration::ZERO,
            // SQLite will not call the busy handler again in this statement.
            Begun::InVain => COMMIT_LASTS,
        };
        let mut can_queue = false;
        for _ in 0..2 {
            let mut rc = base.lock(LockLevel::SHARED);
            if !waits_for_commit.is_zero() {
                let mut watch = Stopwatch::start();
                while rc.is_busy() && watch.elapsed() < waits_for_commit {
                    watch.sleep(BETWEEN_ATTEMPTS);
                    rc = base.lock(LockLevel::SHARED);
                }
                waits_for_commit = Duration::ZERO;
            }
            match rc {
                ResultCode::OK => return self.took_shared(),
                rc if !rc.is_busy() => {
                    self.begin_ended();
                    return rc;
                }
                _ => can_queue = self.database.is_held() && !self.claim.is_held(),
            }
            if can_queue {
                break;
            }
            // The writer has just finished, or does not use this VFS.
        }
        match self.wait_at_least(LockLevel::SHARED, ResultCode::BUSY) {
            ResultCode::OK => return self.took_shared(),
            rc if !rc.is_busy() => {
                self.begin_ended();
                return rc;
            }
            _ => {}
        }
        self.begin_ended();
        let cause = match can_queue {
            true => Obstacle::WriteLock,
            false => self.claim.cause(Sought::Database(LockLevel::SHARED), false),
        };
        self.claim.shared_refused(cause);
        ResultCode::BUSY
    }

    /// A lock on the database was answered with `rc`. If it was refused, and the busy handler gives up
    /// before `kanban_busy_timeout_min` is over, goes on waiting. SQLite asks again for these locks,
    /// and keeps those that it has.
    fn wait_at_least(&mut self, level: LockLevel, mut rc: ResultCode) -> ResultCode {
        let mut least = self.settings.busy_timeout_min();
        if !rc.is_busy() || least.is_zero() || !self.base.is_main() {
            return rc;
        }
        let mut watch = Stopwatch::start();
        let mut has_handler = true;
        while rc.is_busy() {
            self.claim.wait.remove_probe();
            if has_handler {
                let nobody_wakes_it = Obstacle::SqliteLock { probe: None, until_unlock: false };
                // If this ends a wait, another begins.
                let _ = self.claim.wait.refused(nobody_wakes_it);
                has_handler = self.base.ask_busy_handler() == Some(true);
                if has_handler && !self.claim.wait.has_slept() {
                    // An application's own handler decides alone.
                    least = Duration::ZERO;
                }
            }
            if !has_handler {
                if watch.elapsed() >= least || self.base.is_interrupted() {
                    return rc;
                }
                watch.sleep(BETWEEN_ATTEMPTS);
            }
            rc = self.base.lock(level);
        }
        if rc == ResultCode::OK {
            self.claim.acquired();
        }
        rc
    }

    fn took_shared(&mut self) -> ResultCode {
        let held = HeldLevel::above(self.base, LockLevel::NONE);
        match self.guards.check_reader() {
            Ok(()) => {
                held.keep();
                self.claim.took_shared();
                self.guards.took_shared();
                ResultCode::OK
            }
            Err(rc) => {
                drop(held);
                self.begin_ended();
                rc
            }
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
            // The base file may still hold the lock, so this connection keeps the write lock.
            return rc;
        }
        self.lock.level = self.lock.level.min(level);
        self.lock.is_exclusive_again = false;
        self.closing = Closing::No;
        self.claim.wait.unlocked();
        if level <= LockLevel::SHARED {
            self.guards.files.ended();
            self.claim.release(Reason::Rollback);
            self.claim.events.has_committed = false;
            self.claim.events.failed_sync();
        }
        // An unlock to SHARED also ends the rollback of a hot journal, before the transaction goes on.
        if level == LockLevel::NONE || self.claim.has(Reason::Begin) && self.base.is_in_autocommit()
        {
            self.begin_ended();
        }
        self.trial_may_end();
        if level == LockLevel::NONE {
            self.claim.unlocked_database();
        }
        if self.claim.has(Reason::FirstConnect) {
            // While another statement of this connection reads on, its first write ends at SHARED.
            let has_begun =
                level == LockLevel::SHARED && !self.first_connect.look_whether_it_begins(self.base);
            if level == LockLevel::NONE || has_begun {
                self.claim.release(Reason::FirstConnect);
            }
        }
        rc
    }
}

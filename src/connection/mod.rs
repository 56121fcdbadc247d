//! When a connection takes the write lock and when it gives it back.
//!
//! | it holds the write lock | because |
//! |---|---|
//! | from the first RESERVED or higher lock until SHARED or none | [`Reason::Rollback`]: a write transaction in a rollback mode, a hot journal's rollback, a change of journal mode, exclusive locking mode |
//! | while it holds the WAL's WRITE slot | [`Reason::Wal`]: a write transaction in WAL mode, recovery of the wal-index, also by the first connection, which creates it |
//! | from SHARED until none or WAL, for `PRAGMA journal_mode=wal`, or on an empty database if what reads may write next | [`Reason::FirstConnect`]: see [`Connection::lock`] |
//! | while it holds the WAL's CKPT slot, if there is little to copy and the lock is to be had | [`Reason::Checkpoint`]: see [`Connection::join_checkpoint`] |
//!
//! Readers do none of this, but for those of a database that is still empty after BEGIN.

mod base_file;
mod guards;
pub(crate) mod status;
#[cfg(all(test, feature = "linked"))]
mod test_base;

use std::ffi::{CStr, c_int};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use base_file::{BaseFile, Doing, Sought, Stands, twice};

use crate::ffi::host::Host;
use crate::ffi::{
    Rc, SQLITE_BUSY, SQLITE_BUSY_TIMEOUT, SQLITE_CANTOPEN, SQLITE_IOERR_LOCK,
    SQLITE_LOCK_EXCLUSIVE, SQLITE_LOCK_NONE, SQLITE_LOCK_RESERVED, SQLITE_LOCK_SHARED, SQLITE_OK,
    SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_LOCK, SQLITE_SHM_SHARED, SQLITE_SHM_UNLOCK, SQLITE_WARNING,
    WAL_CKPT_LOCK, WAL_READ_LOCK, WAL_READERS, WAL_RECOVER_LOCK, WAL_SLOTS, WAL_WRITE_LOCK,
};
use crate::format::{Header, wal_index};
use crate::group_commit::GroupCommit;
use crate::guard::cancellation::Protection;
use crate::guard::identity::Identity;
use crate::lock::keepers;
use crate::lock::queue::Purpose;
use crate::lock::wait::{Cause, Wait, Waited};
use crate::lock::{Database, Refused, WriteLock};
use crate::options::Settings;
use crate::sys;
pub(crate) use guards::Guards;

/// Why the write lock is held. There may be several reasons at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reason {
    Rollback = 1,
    Wal = 2,
    FirstConnect = 4,
    Checkpoint = 8,
}

/// What the write lock is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A write transaction.
    Write,
    /// A first connection.
    FirstConnect,
    /// Recovery by a reader, and cleaning up: SQLite tries, and goes on if in vain. It is no wait, and
    /// nobody gives up.
    Upkeep,
}

/// The most frames that a checkpoint copies while writers wait.
const MOST_FRAMES: u32 = 4000;

/// Longer than SQLite's own lock is taken to see whether it is free.
const LOOKED_FOR: Duration = Duration::from_micros(50);

/// How often the write lock is tried for when it is refused although nobody has it.
const LOOKS: u32 = 3;

/// How long a checkpoint that has the write lock is waited for.
const CHECKPOINT_LASTS: Duration = Duration::from_millis(100);

/// How long a checkpoint waits for a writer, to make up for a sync that has failed.
const MEND_WAIT: Duration = Duration::from_secs(1);

/// How long a checkpoint waits for the write lock.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(4);

/// Why a database is not opened, where SQLite3MultipleCiphers is to encrypt.
pub(crate) const UNENCRYPTED: &CStr =
    c"SQLite3MultipleCiphers does not encrypt under this VFS, only over it: open \
    the database with vfs=multipleciphers-kanban, or allow plain text by KANBAN_BASE_VFS=unix";

/// An open database, as one connection sees it.
pub(crate) struct Connection<B: BaseFile> {
    base: B,
    database: Arc<Database>,
    settings: Settings,
    log: Host,
    read_only: bool,
    /// SQLite's lock on the database.
    level: c_int,
    write_lock: WriteLock,
    reasons: u8,
    wait: Wait,
    /// Whether the database was ever seen to have content.
    has_content: bool,
    /// Whether a statement may be there that changes the journal mode to WAL.
    expects_mode_change: bool,
    /// Whether the application itself has said if the WAL is to stay.
    app_persists_wal: bool,
    guards: Guards<B>,
    /// Whether EXCLUSIVE was asked for while it was held: WAL mode is being left, or never shared.
    is_alone: bool,
    /// Whether it closes as the last connection in WAL mode, and has taken no lock since.
    is_cleaning_up: bool,
    /// Whether the file gets the length that its header says, when it unlocks.
    cuts_to_header: bool,
    /// Whether the wal-index is in use.
    in_wal_mode: bool,
    /// Whether it has a read mark: then WRITE is asked for to write, else to recover.
    has_snapshot: bool,
    /// Whether it has the CKPT slot: then WRITE is asked for to finish a checkpoint.
    is_checkpointing: bool,
    /// How long a lock call may block now, in ms.
    blocks_ms: c_int,
    /// Whether the wait is for SHARED, so far.
    waits_to_read: bool,
    /// Whether it was refused what it needs to roll a hot journal back, which another may do meanwhile.
    waits_for_journal: bool,
    group: GroupCommit<B>,
    /// Whether another VFS, which encrypts, has to call this one, and was not seen yet.
    goes_under_ciphers: bool,
}

impl<B: BaseFile> Connection<B> {
    pub(crate) fn new(
        base: B,
        path: &Path,
        settings: Settings,
        log: Host,
        guards: Guards<B>,
        read_only: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let database = Database::at(path);
        if !read_only {
            database.note_writer();
        }
        Self {
            wait: Wait::of(&database, settings.group_commit()),
            write_lock: WriteLock::of(&database, NEXT.fetch_add(1, Ordering::Relaxed)),
            group: GroupCommit::new(settings.group_commit(), base),
            base,
            database,
            settings,
            log,
            read_only,
            level: SQLITE_LOCK_NONE,
            reasons: 0,
            has_content: false,
            expects_mode_change: false,
            app_persists_wal: false,
            guards,
            is_alone: false,
            is_cleaning_up: false,
            cuts_to_header: false,
            in_wal_mode: false,
            has_snapshot: false,
            is_checkpointing: false,
            blocks_ms: 0,
            waits_to_read: false,
            goes_under_ciphers: false,
            waits_for_journal: false,
        }
    }

    /// It must not be used but by a VFS that encrypts.
    pub(crate) fn go_under_ciphers(&mut self) {
        self.goes_under_ciphers = true;
    }

    /// Whether SQLite itself uses it, where a VFS that encrypts should.
    pub(crate) fn is_unencrypted(&mut self) -> bool {
        let base = self.base;
        self.goes_under_ciphers &= base.stands(self.database.path()) != Stands::Below;
        self.goes_under_ciphers
    }

    /// Notes where this VFS stands, for the status.
    pub(crate) fn look_where_it_stands(&mut self) {
        self.guards.look_where_it_stands(&self.database);
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

    pub(crate) fn guards(&mut self) -> &mut Guards<B> {
        &mut self.guards
    }

    /// A pragma is being compiled.
    pub(crate) fn pragma(&mut self, name: &[u8], value: &[u8]) {
        let base = self.base;
        let is_synchronous = name.eq_ignore_ascii_case(b"synchronous");
        if is_synchronous && !base.is_in_autocommit() {
            // SQLite refuses it. Else it has an effect at once, even if it is only explained.
            return;
        }
        self.guards.pragma(name, value);
        if is_synchronous {
            self.group.synchronous_changes();
        }
    }

    /// Whether it is about to be the only connection without WAL mode: then no WAL must be left, unless the
    /// application wants it.
    pub(crate) fn is_leaving_wal_mode(&self) -> bool {
        self.is_alone && !self.app_persists_wal
    }

    /// FCNTL_SYNC: all is written, and in a rollback mode nothing is committed yet; or all is undone.
    pub(crate) fn before_commit(&mut self) -> Result<(), Rc> {
        if self.in_wal_mode || self.level < SQLITE_LOCK_RESERVED {
            return Ok(());
        }
        self.guards.before_commit(&self.database)
    }

    /// xWrite, of the first page.
    pub(crate) fn before_first_page(&mut self, page: &[u8]) {
        let base = self.base;
        if self.in_wal_mode {
            self.guards.before_first_page(page, self.is_cleaning_up);
        } else if let Some(header) = Header::of_page(page) {
            self.guards.written().first_page(&header, || base.header());
        }
    }

    /// xWrite has written so many bytes.
    #[inline]
    pub(crate) fn wrote(&mut self, at: i64, bytes: c_int) {
        self.guards.written().wrote(at, bytes);
    }

    /// What was written was undone, all of it (FCNTL_ROLLBACK_ATOMIC_WRITE).
    pub(crate) fn unwritten(&mut self) {
        self.guards.written().begin();
    }

    /// xTruncate, to so many bytes. SQLite makes a file longer that way after a checkpoint only; others may
    /// at any time.
    pub(crate) fn truncate(&mut self, size: i64, truncate: impl FnOnce(i64) -> Rc) -> Rc {
        let is_last = self.is_cleaning_up;
        // The last connection has no slot of the WAL then, nor has one in exclusive locking mode.
        let rc = if self.is_checkpointing || self.level == SQLITE_LOCK_EXCLUSIVE {
            let (in_wal_mode, database) = (self.in_wal_mode, &self.database);
            self.guards.truncate_after_checkpoint(size, in_wal_mode, is_last, database, truncate)
        } else {
            truncate(size)
        };
        if rc == SQLITE_OK {
            self.guards.written().cut(size);
        }
        rc
    }

    /// SQLite announces how long the next lock calls may block, in ms; a negative number for any
    /// time. Only an SQLite with SQLITE_ENABLE_SETLK_TIMEOUT does, and it takes WRITE before the
    /// snapshot.
    pub(crate) fn may_block(&mut self, ms: c_int) {
        self.blocks_ms = if ms < 0 { c_int::MAX } else { ms };
    }

    /// Notes FCNTL_COMMIT_PHASETWO, if there is nothing to do but to pass it on. Else false: it is one for
    /// [`Self::committed`]. To be quick, as [`Self::note_plain`].
    #[inline]
    pub(crate) fn note_commit(&mut self) -> bool {
        self.guards.written().begin();
        let is_plain = !self.group.is_on() && self.guards.note_commit();
        if is_plain {
            self.wait.committed();
        }
        is_plain
    }

    /// FCNTL_COMMIT_PHASETWO: the transaction is committed, and with group commit not durable yet.
    pub(crate) fn committed(&mut self) -> Result<(), Rc> {
        self.wait.committed();
        let is_durable = self.group.commits(&self.database, &self.log);
        self.guards.after_commit(&self.database)?;
        is_durable
    }

    /// Why commits do not share their syncs, if they do not.
    pub(crate) fn group_commit(&self) -> Result<(), &'static str> {
        let is_not_wal = "the database is not in WAL mode";
        if !self.in_wal_mode && self.group.is_on() {
            return Err(is_not_wal);
        }
        self.group.why_not(&self.database, self.guards.wal())
    }

    pub(crate) fn holds_write_lock(&self) -> bool {
        self.write_lock.is_held()
    }

    /// `PRAGMA journal_mode = wal` is being compiled. SQLite says so once, also if it is never run, or only
    /// explained, and not again when it runs.
    pub(crate) fn expect_mode_change(&mut self) {
        self.expects_mode_change = true;
    }

    /// xLock: the write lock first, then the base's.
    ///
    /// Switching to WAL and creating the first table read the header under SHARED and then
    /// upgrade, and on an upgrade SQLite does not consult its busy handler, because two
    /// connections that upgrade would wait for each other. So of many first connections one would
    /// succeed and the others say "database is locked" at once, whatever their timeout. One step
    /// earlier, at SHARED, the busy handler is consulted. There, on a database without content
    /// and for a change of journal mode, the write lock is taken.
    pub(crate) fn lock(&mut self, level: c_int) -> Rc {
        self.wait.remove_probe();
        if self.goes_under_ciphers && self.is_unencrypted() {
            let why = UNENCRYPTED.to_string_lossy();
            self.log.log_about(SQLITE_CANTOPEN, &why, self.database.path());
            return SQLITE_CANTOPEN;
        }
        (self.is_cleaning_up, self.cuts_to_header) = (false, false);
        let rc = self.take(level);
        if rc == SQLITE_OK {
            self.is_alone = level == SQLITE_LOCK_EXCLUSIVE && self.level == level;
            if self.level < SQLITE_LOCK_RESERVED && level >= SQLITE_LOCK_RESERVED {
                // Without RESERVED in between, it is to roll back what another has left.
                match level == SQLITE_LOCK_EXCLUSIVE && !self.in_wal_mode {
                    true => self.guards.written().begin_repair(),
                    false => self.guards.written().begin(),
                }
            }
            self.level = self.level.max(level);
        }
        rc
    }

    fn take(&mut self, level: c_int) -> Rc {
        let base = self.base;
        let reason = if level >= SQLITE_LOCK_RESERVED {
            if self.read_only {
                // It has no right to it, and is told so as it is without the write lock.
                return base.lock(level);
            }
            if self.in_wal_mode && !self.has_snapshot {
                return self.lock_to_clean_up(level);
            }
            Reason::Rollback
        } else if level == SQLITE_LOCK_SHARED && self.is_first_connect() {
            Reason::FirstConnect
        } else {
            return self.lock_shared(level);
        };
        let lock = Sought::Database(level);
        let rc = self.with_write_lock(reason, lock, || base.lock(level));
        let is_alone = level == SQLITE_LOCK_EXCLUSIVE && self.in_wal_mode && self.group.is_on();
        if rc == SQLITE_OK && is_alone {
            if let Err(rc) = self.group_begins_alone() {
                twice(|| base.unlock(SQLITE_LOCK_SHARED));
                self.release(Reason::Rollback);
                return rc;
            }
        }
        if rc == SQLITE_BUSY && self.is_for_journal(lock) {
            (self.waits_to_read, self.waits_for_journal) = (false, true);
        }
        rc
    }

    /// The database's own lock in WAL mode, without a snapshot: the last connection cleans up when it
    /// closes, or WAL mode is left. All try, and most in vain, so that SQLite's lock comes first;
    /// whoever has it is alone, and takes the write lock for others to see.
    fn lock_to_clean_up(&mut self, level: c_int) -> Rc {
        let base = self.base;
        let now = sys::monotonic_ns();
        if let Err(rc) = self.guards.before_upkeep(now, &self.database) {
            return rc;
        }
        let rc = base.lock(level);
        if rc == SQLITE_BUSY {
            self.wait.refused_another();
        }
        if rc == SQLITE_OK && !self.write_lock.is_held() {
            let _ = self.try_acquire(sys::monotonic_ns(), Reason::Rollback, Need::Upkeep);
        }
        if rc == SQLITE_OK && self.write_lock.is_held() {
            self.reasons |= Reason::Rollback as u8;
        }
        self.is_cleaning_up = rc == SQLITE_OK;
        if rc == SQLITE_OK && self.group.is_on() {
            let wal = self.guards.wal();
            if let Err(rc) = self.group.mend(&self.database, wal, &self.log) {
                // The WAL is needed.
                self.is_cleaning_up = false;
                twice(|| base.unlock(SQLITE_LOCK_SHARED));
                self.release(Reason::Rollback);
                return rc;
            }
        }
        rc
    }

    /// The application says whether the WAL is to stay (FCNTL_PERSIST_WAL): then it stays as it is.
    pub(crate) fn application_persists_wal(&mut self) {
        self.app_persists_wal = true;
    }

    /// SQLite asks whether to keep the WAL: this is the last connection that closes, or leaves WAL mode.
    pub(crate) fn ends_wal_mode(&mut self) {
        self.cuts_to_header = self.is_cleaning_up && !self.read_only;
    }

    /// SQLite asks whether to keep the WAL, which it does if this `persists`: it has copied all of it, if this
    /// is the last connection that closes. It stays, too, if somebody still has the wal-index open, who has
    /// lost his lock on the database. Whether it is to stay. If the application has not asked for it, it is emptied.
    pub(crate) fn keeps_wal(&mut self, persists: bool, protection: &Protection) -> bool {
        if !std::mem::take(&mut self.is_cleaning_up) {
            return persists;
        }
        let keeps = persists || self.is_index_in_use(protection);
        if keeps && !(persists && self.app_persists_wal) {
            self.guards.empty_wal(&self.database);
        }
        keeps
    }

    /// Whether somebody else has the wal-index open. Where that cannot be told: whether he uses it now.
    fn is_index_in_use(&self, protection: &Protection) -> bool {
        let base = self.base;
        let Some(index) = self.guards.identity().and_then(Identity::wal_index) else {
            return false;
        };
        protection.is_locked_by_others(index, wal_index::IN_USE).unwrap_or_else(|| {
            let all = |flags| base.shm_lock(0, WAL_SLOTS, flags | SQLITE_SHM_EXCLUSIVE);
            let rc = all(SQLITE_SHM_LOCK);
            if rc == SQLITE_OK {
                twice(|| all(SQLITE_SHM_UNLOCK));
            }
            rc & 0xff == SQLITE_BUSY
        })
    }

    /// If SHARED is refused, a writer of a rollback mode is about to commit, or commits. Queue
    /// behind it, if it has the write lock: whoever wants SHARED may be about to write, too.
    fn lock_shared(&mut self, level: c_int) -> Rc {
        let base = self.base;
        let rc = base.lock(level);
        if rc == SQLITE_OK && level == SQLITE_LOCK_SHARED {
            return self.shared();
        }
        if rc != SQLITE_BUSY || level != SQLITE_LOCK_SHARED {
            return rc;
        }
        let mut can_queue = self.database.is_held();
        if !can_queue {
            // Free: the writer has just finished, or does not use this VFS.
            match base.lock(level) {
                SQLITE_OK => return self.shared(),
                SQLITE_BUSY => {}
                rc => return rc,
            }
            can_queue = self.database.is_held();
        }
        self.waits_to_read = true;
        let cause = match can_queue {
            true => Cause::WriteLock,
            false => self.cause(Sought::Database(level)),
        };
        self.refused(Need::Write, cause);
        SQLITE_BUSY
    }

    /// SHARED was taken.
    fn shared(&mut self) -> Rc {
        let base = self.base;
        match self.guards.before_read(&self.database) {
            Ok(()) => {
                self.waits_to_read |= std::mem::take(&mut self.waits_for_journal);
                self.guards.first_locked(&self.database);
                SQLITE_OK
            }
            Err(rc) => {
                twice(|| base.unlock(SQLITE_LOCK_NONE));
                rc
            }
        }
    }

    fn is_first_connect(&mut self) -> bool {
        let base = self.base;
        if self.read_only {
            return false;
        }
        if !self.has_content {
            // A base that can not tell is left to SQLite, which will ask it again.
            self.has_content = !matches!(base.size(), Ok(0));
        }
        if self.has_content && !self.expects_mode_change {
            return false;
        }
        let Some(doing) = base.doing() else { return !self.has_content };
        self.expects_mode_change &= doing.changes_mode.is_some();
        match self.has_content {
            true => doing.changes_mode == Some(true) && !base.is_wal(),
            false => doing.may_upgrade(),
        }
    }

    /// xUnlock: the base's first, then the write lock.
    pub(crate) fn unlock(&mut self, level: c_int) -> Rc {
        let base = self.base;
        if std::mem::take(&mut self.cuts_to_header) && self.level == SQLITE_LOCK_EXCLUSIVE {
            self.guards.cut_to_header(&self.database);
        }
        let rc = self.wait.with_probe_paused(|| twice(|| base.unlock(level)));
        if rc != SQLITE_OK {
            // The base may have it still, and then so must we.
            return rc;
        }
        self.level = self.level.min(level);
        (self.is_alone, self.is_cleaning_up) = (false, false);
        self.wait.unlocked();
        if level <= SQLITE_LOCK_SHARED {
            self.guards.ended();
            self.release(Reason::Rollback);
        }
        if level == SQLITE_LOCK_NONE && self.waits_to_read {
            // It has read, and was not about to write.
            self.waits_to_read = false;
            self.acquired();
        }
        if level == SQLITE_LOCK_NONE && self.has(Reason::FirstConnect) {
            self.release(Reason::FirstConnect);
        }
        rc
    }

    /// xShmLock, for other slots than WRITE.
    pub(crate) fn shm_lock_other(&mut self, offset: c_int, n: c_int, flags: c_int) -> Rc {
        if flags & SQLITE_SHM_LOCK == 0 {
            return self.shm_give_back(offset, n, flags);
        }
        self.wait.remove_probe();
        match flags & SQLITE_SHM_SHARED != 0 {
            true => self.shm_share(offset, flags),
            false => self.shm_take(offset, n, flags),
        }
    }

    /// xShmLock, for WRITE: as [`Self::lock`].
    #[inline]
    pub(crate) fn take_write(&mut self, n: c_int, flags: c_int) -> Rc {
        let base = self.base;
        self.wait.remove_probe();
        let take = move || base.shm_lock(WAL_WRITE_LOCK, n, flags);
        let rc = self.with_write_lock(Reason::Wal, Sought::Write, take);
        if rc == SQLITE_OK && self.guards.is_behind() && self.may_get_ahead() {
            self.guards.get_ahead(self.blocks_ms);
        }
        if rc == SQLITE_OK && self.is_checkpointing {
            self.guards.checkpoint_begins();
        } else if rc == SQLITE_OK && self.group.is_on() {
            self.group_begins();
        }
        rc
    }

    /// Whether it has WRITE to write: an SQLite that can wait in its lock calls takes it before its snapshot.
    #[cold]
    fn may_get_ahead(&self) -> bool {
        (self.has_snapshot || self.blocks_ms > 0) && !self.is_checkpointing
    }

    /// xShmLock, to give WRITE back: as [`Self::unlock`]. Whoever gave it back as soon as it was had found
    /// the snapshot stale, and sleeps next.
    #[inline]
    pub(crate) fn give_write_back(&mut self, n: c_int, flags: c_int) -> Rc {
        if self.group.is_on() {
            self.group.ends(self.guards.wal());
        }
        let rc = self.shm_unlock(WAL_WRITE_LOCK, n, flags);
        if rc != SQLITE_OK {
            // The base may have it still, and then so must we.
            return rc;
        }
        if self.group.is_pending() && self.write_lock.is_held() {
            // It waits for a sync next.
            self.write_lock.pace().goes_away();
        }
        let gave_back = self.give_back(Reason::Wal);
        let to_write = self.has_snapshot && !self.is_checkpointing;
        if gave_back && to_write && self.write_lock.pace().was_brief() {
            self.wait.released_at_once();
        }
        rc
    }

    /// Gives back other slots than WRITE.
    #[inline(never)]
    fn shm_give_back(&mut self, offset: c_int, n: c_int, flags: c_int) -> Rc {
        if self.is_checkpointing && offset == WAL_READ_LOCK && flags & SQLITE_SHM_SHARED == 0 {
            self.guards.backfill_ends(&self.database);
        }
        let rc = self.shm_unlock(offset, n, flags);
        if rc != SQLITE_OK {
            // As in `give_write_back`.
            return rc;
        }
        if flags & SQLITE_SHM_SHARED != 0 {
            self.has_snapshot &= offset < WAL_READ_LOCK;
        } else if offset == WAL_CKPT_LOCK {
            self.is_checkpointing = false;
            self.guards.checkpoint_ends();
            self.release(Reason::Checkpoint);
        } else if offset == WAL_RECOVER_LOCK && self.is_checkpointing {
            self.guards.checkpoint_begins();
        } else if offset == WAL_READ_LOCK + 1 {
            self.guards.restarted();
        }
        rc
    }

    /// Gives slots of the base's back, while nobody looks for the connection.
    #[inline]
    fn shm_unlock(&self, offset: c_int, n: c_int, flags: c_int) -> Rc {
        let base = self.base;
        let unlock = move || twice(|| base.shm_lock(offset, n, flags));
        if self.wait.has_probe() { self.wait.with_probe_paused(unlock) } else { unlock() }
    }

    /// Notes a call of xShmLock, if it is for one of the readers' slots, or shares one, and there is nothing to
    /// do but to pass it on, and to call [`Self::shm_lock_failed`] if it fails. Else false: it is one for
    /// [`Self::shm_lock_other`]. Each read transaction makes two such calls; so this is to be quick, and never
    /// to panic.
    #[inline]
    pub(crate) fn note_plain(&mut self, offset: c_int, n: c_int, flags: c_int) -> bool {
        if self.wait.has_probe() {
            return false;
        }
        if flags & SQLITE_SHM_SHARED == 0 {
            return offset > WAL_READ_LOCK && n == 1;
        }
        if offset < WAL_READ_LOCK {
            return true;
        }
        if flags & SQLITE_SHM_LOCK == 0 {
            self.has_snapshot = false;
            return true;
        }
        let is_plain = !self.guards.count_read();
        if is_plain {
            self.has_snapshot = true;
        }
        is_plain
    }

    /// xShmLock, for a single slot, has failed with `rc`.
    pub(crate) fn shm_lock_failed(&mut self, offset: c_int, flags: c_int, mut rc: Rc) -> Rc {
        let base = self.base;
        let takes = flags & SQLITE_SHM_LOCK != 0;
        let kind = flags & (SQLITE_SHM_SHARED | SQLITE_SHM_EXCLUSIVE);
        if !takes {
            rc = base.shm_lock(offset, 1, flags);
        } else if rc & 0xff == SQLITE_BUSY {
            self.wait.refused_another();
        } else if self.guards.can_step_back() {
            // Nobody knows whether the base has it.
            twice(|| base.shm_lock(offset, 1, SQLITE_SHM_UNLOCK | kind));
        }
        if kind == SQLITE_SHM_SHARED && offset >= WAL_READ_LOCK {
            self.has_snapshot = !takes && rc != SQLITE_OK;
        }
        rc
    }

    /// Shares a slot, when there may be more to do.
    #[inline(never)]
    fn shm_share(&mut self, offset: c_int, flags: c_int) -> Rc {
        let base = self.base;
        match base.shm_lock(offset, 1, flags) {
            SQLITE_OK if offset >= WAL_READ_LOCK => self.begins_to_read(offset),
            SQLITE_OK => SQLITE_OK,
            rc => self.shm_lock_failed(offset, flags, rc),
        }
    }

    /// A slot to read by was taken, and the guards may have something to do.
    fn begins_to_read(&mut self, offset: c_int) -> Rc {
        let base = self.base;
        let checked = self.guards.before_read(&self.database);
        if let Err(rc) = checked.and_then(|()| self.guards.first_read(&self.database)) {
            twice(|| base.shm_lock(offset, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED));
            return rc;
        }
        self.has_snapshot = true;
        SQLITE_OK
    }

    /// xShmLock, to take other slots than WRITE for itself.
    #[inline(never)]
    fn shm_take(&mut self, offset: c_int, n: c_int, flags: c_int) -> Rc {
        let base = self.base;
        let take = || base.shm_lock(offset, n, flags);
        let writes = self.has(Reason::Wal);
        if offset == WAL_CKPT_LOCK && !writes {
            if let Err(rc) = self.guards.before_write(sys::monotonic_ns(), &self.database) {
                return rc;
            }
        }
        let all_readers = (WAL_READ_LOCK + 1, WAL_READERS - 1);
        let is_restart = (offset, n) == all_readers && writes && !self.is_checkpointing;
        let mut rc = match is_restart {
            true => self.guards.restart(&self.database, self.blocks_ms, take),
            false => take(),
        };
        if rc == SQLITE_OK && (offset, n) == (WAL_READ_LOCK, 1) && self.is_checkpointing && !writes
        {
            if let Err(stale) = self.guards.before_backfill(&self.database) {
                rc = stale;
            }
        }
        if rc == SQLITE_OK && offset == WAL_READ_LOCK && self.is_checkpointing {
            self.guards.backfill_begins();
        }
        match rc & 0xff {
            SQLITE_OK if offset == WAL_CKPT_LOCK => {
                // With WRITE it is recovery, which syncs nothing.
                let mut is_known = true;
                if self.group.is_on() && !writes {
                    // With `synchronous=OFF` SQLite would not sync either.
                    match self.mend() {
                        Err(rc) if !self.guards.is_synchronous_off() => {
                            twice(|| {
                                base.shm_lock(offset, n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)
                            });
                            return rc;
                        }
                        mended => is_known = mended.unwrap_or(false),
                    }
                }
                self.is_checkpointing = true;
                self.guards.written().begin();
                self.guards.checkpoint_begins();
                if let Err(rc) = self.join_checkpoint(is_known) {
                    self.is_checkpointing = false;
                    self.guards.checkpoint_ends();
                    twice(|| base.shm_lock(offset, n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
                    self.release(Reason::Checkpoint);
                    return rc;
                }
            }
            SQLITE_OK => {}
            SQLITE_BUSY => self.wait.refused_another(),
            // Nobody knows whether the base has them.
            _ if !is_restart && self.guards.can_step_back() => {
                twice(|| base.shm_lock(offset, n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
            }
            _ => {}
        }
        rc
    }

    /// WRITE was taken, and not by a checkpoint.
    #[inline(never)]
    fn group_begins(&mut self) {
        // With neither it is recovery: an SQLite that can not wait in its lock calls takes WRITE after its
        // snapshot.
        let to_write = self.has_snapshot || self.blocks_ms > 0;
        let wal = self.guards.wal();
        self.group.begins(&self.database, wal, self.has_snapshot, to_write, &self.log);
    }

    /// EXCLUSIVE was taken in WAL mode with a snapshot: exclusive locking mode, in which SQLite takes no WRITE. If a
    /// sync has failed, makes up for it.
    fn group_begins_alone(&mut self) -> Result<(), Rc> {
        match self.group.mend(&self.database, self.guards.wal(), &self.log) {
            Err(rc) if !self.group.promises_nothing() => Err(rc),
            _ => Ok(()),
        }
    }

    /// CKPT was taken. If a sync has failed, makes up for it, while nobody writes. Whether others know of it.
    fn mend(&mut self) -> Result<bool, Rc> {
        let base = self.base;
        if !self.group.has_failed(&self.database, self.guards.wal()) {
            return Ok(true);
        }
        let write = |flags| base.shm_lock(WAL_WRITE_LOCK, 1, flags | SQLITE_SHM_EXCLUSIVE);
        let began = Instant::now();
        loop {
            match write(SQLITE_SHM_LOCK) {
                SQLITE_OK => break,
                SQLITE_BUSY if began.elapsed() < MEND_WAIT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                rc => return Err(rc),
            }
        }
        let mended = self.group.mend(&self.database, self.guards.wal(), &self.log);
        twice(|| write(SQLITE_SHM_UNLOCK));
        mended
    }

    /// A checkpoint is about to begin. If it has little to copy, it takes the write lock, for which
    /// it waits a few ms at most, at the head of the queue; else, or if in vain, it runs beside the
    /// writers as it does without this VFS.
    ///
    /// Beside writers, it rarely has copied the whole WAL at the moment when a writer could begin
    /// it anew, so that the WAL grows, and with it the cost of every sync. The write lock is asked for
    /// with a lock of SQLite's in hand; the wait is bounded, so nothing can be stuck.
    ///
    /// With group commit it makes commits durable, if it `syncs`.
    ///
    /// # Errors
    /// With group commit, a sync that has failed: then there is no checkpoint.
    fn join_checkpoint(&mut self, syncs: bool) -> Result<(), Rc> {
        let base = self.base;
        let is_small = |(frames, copied): (u32, u32)| {
            (1..=MOST_FRAMES).contains(&frames.saturating_sub(copied))
        };
        let frames = base.frames().filter(|frames| is_small(*frames));
        let Some((_, copied)) = frames.filter(|_| !self.write_lock.is_held()) else {
            return Ok(());
        };
        if self.is_marked(copied.saturating_add(1)) {
            // A reader's snapshot ends where the last checkpoint did: there is nothing to copy.
            return Ok(());
        }
        let now = sys::monotonic_ns();
        let mut acquired = self.write_lock.try_acquire(now, Purpose::Upkeep, false, None);
        if matches!(acquired, Err(Refused::Busy)) {
            acquired = self.write_lock.acquire_soon(Purpose::Upkeep, CHECKPOINT_WAIT);
        }
        if acquired.is_ok() {
            self.reasons |= Reason::Checkpoint as u8;
            if self.group.is_on() && syncs {
                let is_marked = |frames| self.is_marked(frames);
                let drained = self.group.drain(&self.database, self.guards.wal(), is_marked);
                return drained.or_else(|rc| match self.guards.is_synchronous_off() {
                    true => Ok(()),
                    false => Err(rc),
                });
            }
        }
        Ok(())
    }

    /// Whether somebody reads by a mark that keeps the last of so many frames from being copied.
    fn is_marked(&self, frames: u32) -> bool {
        let base = self.base;
        let slot = |n, flags| base.shm_lock(WAL_READ_LOCK + n, 1, flags | SQLITE_SHM_EXCLUSIVE);
        // It only looks.
        if self.blocks_ms > 0 {
            base.may_block(0);
        }
        let is_marked = (1..WAL_READERS).any(|n| {
            if base.read_mark(n).is_none_or(|mark| mark >= frames) {
                return false;
            }
            let rc = slot(n, SQLITE_SHM_LOCK) & 0xff;
            if rc == SQLITE_OK || rc != SQLITE_BUSY && self.guards.can_step_back() {
                // After an error nobody knows whether the base has it.
                twice(|| slot(n, SQLITE_SHM_UNLOCK));
            }
            rc == SQLITE_BUSY
        });
        if self.blocks_ms > 0 {
            base.may_block(self.blocks_ms);
        }
        is_marked
    }

    /// The wal-index is about to be mapped: the database is in WAL mode, where SHARED is kept until
    /// the connection closes.
    pub(crate) fn shm_mapping(&mut self) {
        self.in_wal_mode = true;
        self.release(Reason::FirstConnect);
    }

    /// The first region of the wal-index was mapped. With group commit, the WAL.
    pub(crate) fn shm_mapped(&mut self, wal: Option<B::Wal>) {
        self.group.wal_opened(wal);
        self.guards.wal_opened();
    }

    /// The base has unmapped the wal-index, and with it given up its locks.
    pub(crate) fn shm_unmapped(&mut self) {
        self.in_wal_mode = false;
        self.has_snapshot = false;
        self.is_checkpointing = false;
        self.guards.wal_closed();
        self.group.wal_closed();
        self.release(Reason::Checkpoint);
        self.release(Reason::Wal);
    }

    /// The file is about to be closed, or the wal-index to be unmapped.
    pub(crate) fn ending(&mut self) {
        self.wait.remove_probe();
    }

    /// The base has closed the file.
    pub(crate) fn closed(&mut self) {
        self.reasons = 0;
        self.write_lock.close();
        if let Some(waited) = self.wait.end() {
            self.gave_up(waited);
        }
    }

    /// Runs `take`, which takes a lock of the base's, under the write lock. If it fails, the write
    /// lock is held only if it was before.
    #[inline]
    fn with_write_lock(&mut self, reason: Reason, lock: Sought, take: impl FnOnce() -> Rc) -> Rc {
        if let Err(rc) = self.prepare(reason, lock) {
            return rc;
        }
        let had_reason = self.has(reason);
        self.reasons |= reason as u8;
        let rc = take();
        if rc == SQLITE_OK {
            self.acquired();
            return rc;
        }
        self.sqlites_refused(rc, reason, had_reason, lock)
    }

    /// Asks the guards, and takes the write lock if it is not held.
    #[inline(always)]
    fn prepare(&mut self, reason: Reason, lock: Sought) -> Result<(), Rc> {
        // A write transaction in WAL mode that does not wait: then there is nothing to decide.
        let is_plain = reason == Reason::Wal
            && self.has_snapshot
            && !self.is_checkpointing
            && self.reasons == 0
            && self.wait.is_quiet();
        if !is_plain {
            return self.prepare_otherwise(reason, lock);
        }
        debug_assert!(!self.write_lock.is_held(), "it is held for a reason");
        let now = sys::monotonic_ns();
        self.guards.before_write(now, &self.database)?;
        match self.write_lock.try_acquire(now, Purpose::Write, true, None) {
            Ok(()) => Ok(()),
            Err(why) => self.goes_on(why, reason, Need::Write),
        }
    }

    /// As [`Self::prepare`], for all else.
    #[inline(never)]
    fn prepare_otherwise(&mut self, reason: Reason, lock: Sought) -> Result<(), Rc> {
        let need = self.need_of(reason);
        let now = sys::monotonic_ns();
        if !self.has(reason) {
            match need {
                Need::Write if !self.is_for_journal(lock) => {
                    self.guards.before_write(now, &self.database)?;
                }
                _ => self.guards.before_upkeep(now, &self.database)?,
            }
        }
        // Who went on without it does so to the end: by then it has SQLite's own.
        if !self.write_lock.is_held() && !self.has(reason) {
            // To look at files may have taken long.
            let now = sys::monotonic_ns();
            if let Err(why) = self.try_acquire(now, reason, need) {
                return self.goes_on(why, reason, need);
            }
        }
        Ok(())
    }

    /// The write lock was refused. Whether to go on, by now perhaps with it.
    #[cold]
    fn goes_on(&mut self, why: Refused, reason: Reason, need: Need) -> Result<(), Rc> {
        match why {
            Refused::Busy if reason == Reason::Wal && self.blocks_ms > 0 => match self.block() {
                Err(Refused::Busy) => Err(SQLITE_BUSY_TIMEOUT),
                Err(why) => self.goes_without(&why),
                Ok(()) => Ok(()),
            },
            Refused::Busy if self.outlasts_checkpoint(reason) => Ok(()),
            Refused::Busy => {
                self.waits_to_read = false;
                self.refused(need, Cause::WriteLock);
                Err(SQLITE_BUSY)
            }
            why => self.goes_without(&why),
        }
    }

    /// There is no write lock to be had: goes on with SQLite's own locks alone, as on the stock VFS, and says
    /// so once.
    #[cold]
    fn goes_without(&self, why: &Refused) -> Result<(), Rc> {
        match why {
            Refused::Busy => return Err(SQLITE_BUSY),
            Refused::Without => {}
            Refused::Unusable(why) => {
                if let Some(why) = self.database.unreported(why) {
                    let line = format!(
                        "{why}; until then it is written as on the stock VFS, by SQLite's own \
                         locks and without a queue"
                    );
                    self.log.log_about(SQLITE_WARNING, &line, &self.database.sidecar_path());
                }
            }
            Refused::Inherited => {
                let why = "the connection was opened before a fork, by the parent; open one in the \
                           child";
                self.log.log_about(SQLITE_IOERR_LOCK, why, self.database.path());
                return Err(SQLITE_IOERR_LOCK);
            }
        }
        Ok(())
    }

    /// The base's lock was refused, under the write lock, with `rc`; perhaps it is not if it is asked for
    /// once more.
    #[cold]
    fn sqlites_refused(
        &mut self,
        mut rc: Rc,
        reason: Reason,
        had_reason: bool,
        lock: Sought,
    ) -> Rc {
        let base = self.base;
        if rc == SQLITE_BUSY && lock == Sought::Write && base.is_upgrade() {
            // Perhaps it met somebody who looked, for a moment, whether the lock is free.
            std::thread::sleep(LOOKED_FOR);
            rc = base.shm_lock(WAL_WRITE_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
            if rc == SQLITE_OK {
                self.acquired();
                return rc;
            }
        }
        let is_busy = rc & 0xff == SQLITE_BUSY;
        // After an error nobody knows whether the base has it.
        let is_back = is_busy || had_reason || self.step_back(lock) == SQLITE_OK;
        if !had_reason && is_back {
            self.reasons &= !(reason as u8);
            if self.reasons == 0 {
                self.write_lock.release_silently();
            }
        }
        if is_busy {
            // SQLite's own lock is in its way, not the write lock.
            self.refused(self.need_of(reason), self.cause(lock));
        }
        rc
    }

    /// Gives back a lock of SQLite's that was perhaps taken.
    #[cold]
    fn step_back(&self, lock: Sought) -> Rc {
        let base = self.base;
        match lock {
            Sought::Write if self.guards.can_step_back() => {
                twice(|| base.shm_lock(WAL_WRITE_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE))
            }
            Sought::Write => SQLITE_OK,
            // To what SQLite knows of; it may be NONE.
            Sought::Database(_) => twice(|| base.unlock(self.level.min(SQLITE_LOCK_SHARED))),
        }
    }

    /// Waits in the lock call, as SQLite has allowed, and leaves the base the rest of that time. Goes
    /// on, without the write lock, beside a checkpoint that lasts. An error if not.
    fn block(&mut self) -> Result<(), Refused> {
        let base = self.base;
        let allowed = Duration::from_millis(u64::from(self.blocks_ms.unsigned_abs()));
        let limit = allowed.saturating_sub(self.wait.age());
        let since = self.wait.leave_queue().unwrap_or_else(sys::monotonic_ns);
        let began = Instant::now();
        self.database.counters.refused.fetch_add(1, Ordering::Relaxed);
        loop {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                self.wait.end();
                self.gave_up(Waited(Duration::from_nanos(
                    sys::monotonic_ns().saturating_sub(since),
                )));
                return Err(Refused::Busy);
            }
            let held = match self.database.purpose() {
                Some((Purpose::Upkeep, held)) => held,
                _ => Duration::ZERO,
            };
            // For no longer than until it is time to look for a checkpoint that has lasted.
            let chunk = left.min(CHECKPOINT_LASTS.saturating_sub(held));
            if chunk.is_zero() {
                break;
            }
            match self.write_lock.acquire_within(chunk, since, Purpose::Write) {
                Ok(()) => {
                    self.waited(Waited(began.elapsed()));
                    break;
                }
                Err(Refused::Busy) if self.database.queue().is_none() => {
                    // Somebody is about to make the sidecar.
                    std::thread::sleep(Duration::from_millis(1));
                    let now = sys::monotonic_ns();
                    match self.write_lock.try_acquire(now, Purpose::Write, true, None) {
                        Ok(()) => break,
                        Err(Refused::Busy) => {}
                        Err(why) => return Err(why),
                    }
                }
                Err(Refused::Busy) => {}
                Err(why) => return Err(why),
            }
        }
        let left = limit.saturating_sub(began.elapsed()).as_millis().max(1);
        base.may_block(c_int::try_from(left).unwrap_or(c_int::MAX));
        Ok(())
    }

    /// If it is a checkpoint that has the write lock, waits for its end inside the call: it makes no
    /// snapshot stale. If it lasts, goes on beside it, with SQLite's own lock alone, as on the stock
    /// VFS. Whether to go on.
    ///
    /// Until it has lasted, connections with a busy handler sleep instead, without their snapshot, which would
    /// keep the next writer from beginning the WAL anew; but for an upgrade SQLite does not ask the handler.
    fn outlasts_checkpoint(&mut self, reason: Reason) -> bool {
        let base = self.base;
        if reason != Reason::Wal {
            return false;
        }
        let sleeps = self.wait.has_busy_handler() && !base.is_upgrade();
        let waits_here = self.wait.place().is_none() && !sleeps;
        let began = Instant::now();
        let mut in_vain = 0;
        while in_vain < LOOKS {
            let left = CHECKPOINT_LASTS.saturating_sub(began.elapsed());
            let acquired = match self.database.purpose() {
                Some((Purpose::Upkeep, held)) => {
                    if left.is_zero() || held >= CHECKPOINT_LASTS {
                        return true;
                    }
                    if !waits_here {
                        return false;
                    }
                    let until_it_has = CHECKPOINT_LASTS.saturating_sub(held);
                    self.write_lock.acquire_soon(Purpose::Write, left.min(until_it_has))
                }
                None if waits_here => {
                    in_vain += 1;
                    let now = sys::monotonic_ns();
                    self.write_lock.try_acquire(now, Purpose::Write, false, None)
                }
                _ => return false,
            };
            if acquired.is_ok() {
                return true;
            }
        }
        false
    }

    fn need_of(&self, reason: Reason) -> Need {
        match reason {
            Reason::Wal if self.has_snapshot || self.is_checkpointing || self.blocks_ms > 0 => {
                Need::Write
            }
            Reason::Rollback if !self.read_only => Need::Write,
            Reason::FirstConnect => Need::FirstConnect,
            _ => Need::Upkeep,
        }
    }

    #[inline(never)]
    fn try_acquire(&mut self, now: u64, reason: Reason, need: Need) -> Result<(), Refused> {
        let place = self.wait.place();
        let is_recovery = need == Need::Upkeep && reason == Reason::Wal;
        let create = need != Need::Upkeep || is_recovery && !self.read_only;
        let purpose = match self.is_checkpointing || is_recovery {
            true => Purpose::Upkeep,
            false => Purpose::Write,
        };
        self.write_lock.try_acquire(now, purpose, create, place.as_ref())
    }

    fn has(&self, reason: Reason) -> bool {
        self.reasons & reason as u8 != 0
    }

    /// Gives the write lock back, if it was held for that reason alone.
    fn release(&mut self, reason: Reason) {
        self.give_back(reason);
    }

    /// As [`Self::release`], for what each transaction does. Whether it was given back.
    #[inline]
    fn give_back(&mut self, reason: Reason) -> bool {
        self.reasons &= !(reason as u8);
        self.reasons == 0 && self.write_lock.release()
    }

    fn acquired(&mut self) {
        if !self.wait.acquired_at_once() {
            self.acquired_at_last();
        }
    }

    #[cold]
    fn acquired_at_last(&mut self) {
        if let Some(waited) = self.wait.end_if_stale() {
            self.gave_up(waited);
        }
        if let Some(waited) = self.wait.acquired() {
            self.waited(waited);
        }
    }

    fn waited(&self, Waited(waited): Waited) {
        let counters = &self.database.counters;
        let ms = waited.as_millis() as u64;
        counters.waits.fetch_add(1, Ordering::Relaxed);
        counters.waited_ms.fetch_add(ms, Ordering::Relaxed);
        counters.longest_wait_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// Whether a lock is to roll a hot journal back: EXCLUSIVE without RESERVED.
    fn is_for_journal(&self, lock: Sought) -> bool {
        lock == Sought::Database(SQLITE_LOCK_EXCLUSIVE) && self.level < SQLITE_LOCK_RESERVED
    }

    /// SQLite's own lock was refused.
    fn cause(&self, lock: Sought) -> Cause {
        let base = self.base;
        // After a hot journal SQLite begins from the beginning.
        let is_for_journal = self.is_for_journal(lock);
        let until_unlock = ![Sought::Write, Sought::Database(SQLITE_LOCK_RESERVED)].contains(&lock);
        Cause::SqliteLock { probe: (!is_for_journal).then(|| base.probe(lock)), until_unlock }
    }

    fn refused(&mut self, need: Need, cause: Cause) {
        if need == Need::Upkeep {
            return self.wait.refused_another();
        }
        self.database.counters.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(waited) = self.wait.refused(cause) {
            self.gave_up(waited);
        }
    }

    fn gave_up(&self, Waited(waited): Waited) {
        self.database.counters.gave_up.fetch_add(1, Ordering::Relaxed);
        let waited = waited.as_millis();
        let why = match self.database.holder() {
            _ if self.holds_write_lock() => {
                "it has the write lock but readers are in its way; end \
                                             their transactions, or wait longer"
                    .to_owned()
            }
            Some((holder, _)) => keepers::described(holder, self.database.keepers(holder).as_ref()),
            None => match self.database.sqlite_lockers(false) {
                Some(lockers) => format!(
                    "no client of this VFS has the write lock now; {lockers} has SQLite's own; try again, \
                     or wait longer"
                ),
                None => "no client of this VFS has the write lock now; a client that does not use it may \
                         hold SQLite's own; try again, or wait longer"
                    .to_owned(),
            },
        };
        let others = match self.database.waiters().len() {
            0 => String::new(),
            n => format!(" ({n} more in the queue)"),
        };
        let line = format!("gave up after waiting {waited} ms to write{others}: {why}");
        self.log.log_about(SQLITE_BUSY, &line, self.database.path());
    }
}

#[cfg(all(test, feature = "linked"))]
mod tests;

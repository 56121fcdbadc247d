//! When a connection takes the write lock and when it releases it.
//!
//! | it holds the write lock | because |
//! |---|---|
//! | from the first RESERVED or higher lock until SHARED or none | [`Reason::Rollback`](claim::Reason::Rollback): a write transaction in a rollback mode, a hot journal's rollback, a change of journal mode, exclusive locking mode |
//! | while it holds the wal-index's WRITE slot | [`Reason::Wal`](claim::Reason::Wal): a write transaction in WAL mode, recovery of the wal-index, also by the first connection, which creates it |
//! | from SHARED until no lock, the end of the first write, or WAL mode: for `PRAGMA journal_mode=wal`, or on an empty database if the reading statement may write next | [`Reason::FirstConnect`](claim::Reason::FirstConnect): see [`first_connect`] |
//! | while it holds the wal-index's CKPT slot, if there is little to copy and the lock is free | [`Reason::Checkpoint`](claim::Reason::Checkpoint): see [`checkpoint`] |
//! | from SHARED or a READ slot until that is unlocked, in a transaction that BEGIN began, if `kanban_begin` says so | [`Reason::Begin`](claim::Reason::Begin): see [`begin`] |
//!
//! Readers take no write lock, except inside BEGIN, on a database that is still empty or with
//! `kanban_begin`.
//!
//! SQLite uses a connection, and so calls these methods, from one thread at a time.

mod base_file;
mod begin;
mod checkpoint;
mod claim;
mod closing;
mod database_lock;
mod events;
mod first_connect;
mod guards;
mod held;
mod request;
mod statement;
pub(crate) mod status;
#[cfg(all(test, feature = "linked"))]
mod test_base;
#[cfg(all(test, feature = "linked"))]
mod tests;
mod wal_slots;

use std::ffi::{CStr, c_int};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use base_file::{BaseFile, Doing, LastCommit, Running, Sought, Stands};
pub(crate) use guards::{AtOpen, Guards};
pub(crate) use held::unlock;
pub(crate) use statement::{begins_with, decisive, kind_of};
pub(crate) use wal_slots::Passing;

use crate::ffi::host::Host;
use crate::ffi::{LockLevel, ResultCode};
use crate::format::Header;
use crate::group_commit::GroupCommit;
use crate::guard::identity::Identity;
use crate::lock::{Database, wait};
use crate::log::Log;
use crate::options::Settings;
use crate::recorder::event::{Event, EventKind};
use crate::recorder::file::NoLog;
use crate::recorder::{self, Recording};
use begin::Begin;
use claim::Claim;
use closing::Closing;
use database_lock::DatabaseLock;
use first_connect::FirstConnect;
use wal_slots::WalSlots;

/// Why a database is not opened if SQLite3MultipleCiphers should encrypt it.
pub(crate) const UNENCRYPTED: &CStr =
    c"SQLite3MultipleCiphers does not encrypt under this VFS, only over it: open \
    the database with vfs=multipleciphers-kanban, or allow plain text by KANBAN_BASE_VFS=unix";

/// An open database, as one connection sees it.
pub(crate) struct Connection<B: BaseFile> {
    base: B,
    database: Arc<Database>,
    settings: Settings,
    log: Log,
    read_only: bool,
    claim: Claim<B>,
    begin: Begin,
    first_connect: FirstConnect,
    lock: DatabaseLock,
    wal: WalSlots,
    closing: Closing,
    /// Whether the application itself has decided whether to keep the WAL.
    app_persists_wal: bool,
    guards: Guards<B>,
    group: GroupCommit<B>,
    /// Whether a VFS that encrypts must call this one, and was not seen yet.
    goes_under_ciphers: bool,
}

impl<B: BaseFile> Connection<B> {
    /// A connection to the database at `path`, which `base` has opened.
    pub(crate) fn new(
        base: B,
        path: &Path,
        settings: Settings,
        host: Host,
        known: AtOpen,
        read_only: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let identity = known.identity.as_ref().ok().and_then(Option::as_ref);
        let database = Database::of(path, identity.map(Identity::file));
        if !read_only {
            database.note_writer();
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let recording = Recording::new(settings.record, settings.record_sql, settings.slow);
        let log = Log::of(host, id, recording.is_on);
        let group = GroupCommit::new(settings.group_commit, base, Arc::clone(&database), log);
        Self {
            claim: Claim::new(base, &database, log, id, !read_only, group.is_on(), recording),
            guards: Guards::new(base, &database, log, known),
            group,
            base,
            database,
            begin: Begin::new(&settings, read_only),
            settings,
            log,
            read_only,
            first_connect: FirstConnect::default(),
            lock: DatabaseLock::default(),
            wal: WalSlots::default(),
            closing: Closing::No,
            app_persists_wal: false,
            goes_under_ciphers: false,
        }
    }

    /// SQLite has told the base file which `sqlite3` uses it.
    pub(crate) fn has_user(&mut self) {
        self.claim.has_user();
    }

    /// Only a VFS that encrypts may use this connection.
    pub(crate) fn go_under_ciphers(&mut self) {
        self.goes_under_ciphers = true;
    }

    /// Whether SQLite itself uses this connection, although a VFS that encrypts should.
    pub(crate) fn is_unencrypted(&mut self) -> bool {
        self.goes_under_ciphers =
            self.goes_under_ciphers && self.base.stands(self.database.path()) != Stands::Below;
        self.goes_under_ciphers
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
        self.claim.is_held()
    }

    pub(crate) fn guards(&mut self) -> &mut Guards<B> {
        &mut self.guards
    }

    /// Why commits do not share their syncs, if they do not.
    pub(crate) fn group_commit(&self) -> Result<(), &'static str> {
        if !self.wal.is_mapped && self.group.is_on() {
            return Err("the database is not in WAL mode");
        }
        self.group.why_not()
    }

    /// FCNTL_PRAGMA: a pragma is being compiled.
    pub(crate) fn pragma(&mut self, name: &[u8], value: &[u8]) {
        let is_synchronous = name.eq_ignore_ascii_case(b"synchronous");
        if is_synchronous && !self.base.is_in_autocommit() {
            // SQLite refuses the pragma inside a transaction. Outside, it takes effect at once,
            // even under EXPLAIN.
            return;
        }
        self.guards.pragmas.note(name, value);
        if name.eq_ignore_ascii_case(b"busy_timeout") {
            if let Some(ms) = std::str::from_utf8(value).ok().and_then(|ms| ms.trim().parse().ok())
            {
                self.claim.wait.note_timeout(ms);
            }
        }
        self.begin.note_pragma(name, value);
        if is_synchronous {
            self.group.synchronous_changes();
        }
    }

    /// `PRAGMA journal_mode=wal` is being compiled.
    pub(crate) fn expect_mode_change(&mut self) {
        self.first_connect.expect_mode_change();
    }

    /// FCNTL_LOCK_TIMEOUT: for how long the next lock calls may block, in ms; a negative number means without limit.
    pub(crate) fn may_block(&mut self, ms: c_int) {
        self.claim.may_block(ms);
    }

    /// xWrite is about to write the first page.
    ///
    /// # Errors
    /// SQLITE_FULL: a checkpoint cannot make the file as long as the page says. The caller must not
    /// write the page.
    pub(crate) fn before_first_page(&mut self, page: &[u8]) -> Result<(), ResultCode> {
        let Some(header) = Header::of_page(page) else { return Ok(()) };
        if self.wal.is_mapped {
            // A read-only connection cannot write the page either, and the base file says why.
            let is_last = self.closing == Closing::CopiesAll;
            return match self.read_only {
                true => Ok(()),
                false => self.guards.length.before_first_page(&header, is_last),
            };
        }
        let base = self.base;
        self.guards.length.written().first_page(&header, || base.header());
        Ok(())
    }

    /// xWrite has written that many bytes.
    pub(crate) fn wrote(&mut self, at: i64, bytes: c_int) {
        self.guards.length.written().wrote(at, bytes);
    }

    /// FCNTL_ROLLBACK_ATOMIC_WRITE: all writes of the batch were undone.
    pub(crate) fn unwritten(&mut self) {
        self.guards.length.written().begin();
    }

    /// xTruncate. SQLite makes a file longer by it only after a checkpoint; other VFSes may do so
    /// at any time.
    pub(crate) fn truncate(
        &mut self,
        size: i64,
        truncate: impl FnOnce(i64) -> ResultCode,
    ) -> ResultCode {
        let is_last = self.closing == Closing::CopiesAll;
        let length = &mut self.guards.length;
        // No CKPT: here the last connection has no slot of the wal-index, and neither has one in exclusive locking mode.
        let rc = if self.wal.has_ckpt || self.lock.level == LockLevel::EXCLUSIVE {
            length.truncate_after_checkpoint(size, self.wal.is_mapped, is_last, truncate)
        } else {
            truncate(size)
        };
        if rc == ResultCode::OK {
            length.written().cut(size);
        }
        rc
    }

    /// xFileSize: the length that SQLite is told for a file of `size` bytes, whose wal-index is
    /// mapped and has a header with that `checksum`. `None` if [`Self::length_to_tell`] must look.
    /// Each read transaction makes such a call until the first commit since the WAL was opened, so
    /// this must be quick, and never panic.
    pub(crate) fn known_length(&self, size: i64, checksum: u32) -> Option<i64> {
        self.guards.length.known_length(size, checksum)
    }

    /// The same, with a look at the file. While the wal-index counts no pages, only the pager calls
    /// this, for the page count, and is told the length by the header.
    ///
    /// Callers that act on the file are told its real length. Such a caller is a checkpoint, which compares it with what it is
    /// about to write. Without a wal-index, it is a backup, which cuts its target, or the pager, which looks whether the
    /// database is empty, rolls back, or cuts the file. The base file handles memory mapping (`PRAGMA mmap_size`) by itself.
    pub(crate) fn length_to_tell(&mut self, size: i64) -> i64 {
        self.guards.length.without_distance(size)
    }

    /// FCNTL_SYNC: a transaction has written everything, but in a rollback mode is not committed yet; or a rollback is
    /// complete.
    ///
    /// # Errors
    /// SQLITE_IOERR_WRITE: SQLite rolls back.
    pub(crate) fn before_commit(&mut self) -> Result<(), ResultCode> {
        if self.wal.is_mapped || self.lock.level < LockLevel::RESERVED {
            return Ok(());
        }
        self.guards.length.before_commit()
    }

    /// Notes FCNTL_COMMIT_PHASETWO. True if the caller only has to pass it on to the base file;
    /// else it must call [`Self::committed`]. Every write transaction makes one such call, so this
    /// must be quick, and never panic.
    pub(crate) fn note_commit(&mut self) -> bool {
        self.guards.length.written().begin();
        self.claim.events.has_committed = true;
        wait::forget_on_this_thread();
        !self.group.is_on() && self.guards.files.note_commit()
    }

    /// FCNTL_COMMIT_PHASETWO: the transaction is committed, but with group commit not durable yet.
    ///
    /// # Errors
    /// The code for COMMIT to return: the files have moved, or a sync has failed.
    pub(crate) fn committed(&mut self) -> Result<(), ResultCode> {
        let is_durable = self.group.commits();
        self.guards.files.after_commit()?;
        is_durable
    }

    /// The base file is about to be closed, or the wal-index to be unmapped: from now on no
    /// sleeping thread probes the connection's locks.
    pub(crate) fn ending(&mut self) {
        self.claim.events.is_ending = true;
        self.claim.wait.remove_probe();
    }

    /// The base file has closed.
    pub(crate) fn closed(&mut self) {
        self.claim.close();
        self.log.close();
    }

    /// The events of the database's log, a JSON array. Empty if there is none.
    ///
    /// # Errors
    /// Why the log cannot be read, if there is one.
    pub(crate) fn event_log(&self) -> Result<String, NoLog> {
        let events = match recorder::file::read(self.database.path()) {
            Ok(log) => log.events,
            Err(NoLog::Missing) => Vec::new(),
            Err(why) => return Err(why),
        };
        let events: Vec<_> = events.iter().map(Event::to_json).collect();
        Ok(format!("[{}]", events.join(",")))
    }

    /// xSync has failed with `rc`: what was written may not be durable.
    pub(crate) fn sync_failed(&self, rc: ResultCode) {
        let what = "a sync of the database has failed; see to the disk";
        self.database.record_message(&self.log, EventKind::SyncFailed, rc, what);
    }

    /// The last line that the connection has logged, if any.
    pub(crate) fn last_line(&self) -> Option<String> {
        self.log.last()
    }
}

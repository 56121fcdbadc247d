//! The storage guards of one connection: what [`crate::guard`] knows, asked at the right moments.

use std::cell::Cell;
use std::ffi::{OsString, c_int};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::{BaseFile, twice};
use crate::ffi::{
    Rc, SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
    SQLITE_OK, SQLITE_READONLY, SQLITE_READONLY_DBMOVED, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_LOCK,
    SQLITE_SHM_UNLOCK, WAL_CKPT_LOCK, WAL_READ_LOCK, WAL_READERS, WAL_SLOTS,
};
use crate::guard::file_length::{self, Header};
use crate::guard::identity::{Displaced, Identity};
use crate::guard::wal_index;
use crate::guard::wal_reset::WalReset;
use crate::host::Host;
use crate::lock::Database;
use crate::sys::{self, Inode};

/// After how many transactions a reader looks whether it is time to check.
const LOOKS_AFTER: u8 = 32;

pub(crate) struct Guards {
    log: Host,
    /// `None` if the database is no file that can be found by its name.
    identity: Option<Identity>,
    /// Said once, not at each attempt.
    said: Cell<Option<Displaced>>,
    wal_reset: WalReset,
    /// By how many bytes the file was too short when it was first locked; `None` before.
    deficit: Option<i64>,
    /// After how many more read transactions to look at the clock.
    until_look: u8,
    /// Whether this transaction was checked when it began.
    is_checked: bool,
    /// Why WAL mode is refused.
    no_wal: Option<String>,
    /// Whether `PRAGMA synchronous` was set to OFF.
    is_synchronous_off: bool,
    /// What `PRAGMA journal_mode` was set to, if it keeps no journal in a file.
    journalless: Option<&'static str>,
}

impl Guards {
    pub(crate) fn new(log: Host, identity: Option<Identity>, no_wal: Option<String>) -> Self {
        Self {
            log,
            identity,
            said: Cell::new(None),
            wal_reset: WalReset::default(),
            deficit: None,
            until_look: 1,
            is_checked: false,
            no_wal,
            is_synchronous_off: false,
            journalless: None,
        }
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The WAL, while the wal-index is mapped.
    pub(crate) fn wal(&self) -> Option<Inode> {
        self.identity.as_ref().and_then(Identity::wal)
    }

    /// Whether all files are in their places, as far as can be told now.
    pub(crate) fn displaced(&mut self) -> Option<Displaced> {
        self.identity.as_mut()?.check().err().or(self.said.get())
    }

    pub(crate) fn no_wal(&self) -> Option<&str> {
        self.no_wal.as_deref()
    }

    pub(crate) fn deficit(&self) -> Option<i64> {
        self.deficit.filter(|missing| *missing > 0)
    }

    pub(crate) fn is_synchronous_off(&self) -> bool {
        self.is_synchronous_off
    }

    pub(crate) fn journalless(&self) -> Option<&'static str> {
        self.journalless
    }

    /// A pragma is set by which durability is given away, or asked for again.
    /// <https://www.sqlite.org/pragma.html#pragma_synchronous>
    pub(crate) fn pragma(&mut self, name: &[u8], value: &[u8]) {
        let is = |text: &str| value.eq_ignore_ascii_case(text.as_bytes());
        if name.eq_ignore_ascii_case(b"synchronous") && !value.is_empty() {
            self.is_synchronous_off = ["off", "0", "false", "no"].into_iter().any(is);
        }
        if name.eq_ignore_ascii_case(b"journal_mode") && !value.is_empty() {
            self.journalless = ["off", "memory"].into_iter().find(|mode| is(mode));
        }
    }

    /// Before anything is locked to write.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED, or SQLITE_READONLY for hard links.
    pub(crate) fn before_write(&mut self, database: &Database) -> Result<(), Rc> {
        let Some(identity) = &mut self.identity else { return Ok(()) };
        let checked = identity.check();
        self.is_checked = checked.is_ok();
        checked.or_else(|why| self.refuse(why, database))
    }

    /// Before anything is locked to recover or clean up, or by a first connection, which may be about
    /// to read: hard links do no harm then.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED.
    pub(crate) fn before_upkeep(&mut self, database: &Database) -> Result<(), Rc> {
        let Some(identity) = &mut self.identity else { return Ok(()) };
        match identity.check() {
            Ok(()) | Err(Displaced::Linked(_)) => Ok(()),
            Err(why) => self.refuse(why, database),
        }
    }

    /// Counts a read transaction that is about to begin. Whether there may be something to do then, by
    /// [`Self::before_read`].
    #[inline]
    pub(crate) fn count_read(&mut self) -> bool {
        // Even a look at the clock can be felt in a transaction that reads one row.
        // Due until it was done: the lock may be refused.
        self.until_look = self.until_look.saturating_sub(1);
        self.until_look == 0
    }

    /// After a lock to read was taken.
    ///
    /// # Errors
    /// As for [`Self::before_write`]; the lock is to be given back.
    pub(crate) fn before_read(&mut self, database: &Database) -> Result<(), Rc> {
        self.until_look = if self.deficit.is_none() { 1 } else { LOOKS_AFTER };
        let Some(identity) = &mut self.identity else { return Ok(()) };
        identity.check_now_and_then().or_else(|why| self.refuse(why, database))
    }

    #[cold]
    fn refuse(&self, why: Displaced, database: &Database) -> Result<(), Rc> {
        let rc = match why {
            Displaced::Moved(_) => SQLITE_READONLY_DBMOVED,
            Displaced::Linked(_) => SQLITE_READONLY,
        };
        count(&database.counters.displaced);
        if self.said.replace(Some(why)) != Some(why) {
            self.log.log_about(rc, &why.to_string(), database.path());
        }
        Err(rc)
    }

    /// SHARED was taken. The first time, looks whether the file is as long as its header says; not
    /// in WAL mode, where the WAL may have the rest, nor while there is a journal to roll it back.
    pub(crate) fn first_locked(&mut self, base: &impl BaseFile, database: &Database) {
        if self.deficit.is_some() {
            return;
        }
        let header = base.header();
        let is_wal = header.is_some_and(|header| header[18..20] == [2, 2]);
        if let Some(why) = self.no_wal.as_ref().filter(|_| is_wal) {
            self.log.log_about(SQLITE_CANTOPEN, why, database.path());
        }
        if !is_wal {
            self.measure(base, header, database);
        }
    }

    /// A slot to read by was taken. The first time, does the same if the WAL has nothing; if it has, it
    /// must be the one that the wal-index speaks of.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED; the slot is to be given back.
    pub(crate) fn first_read(
        &mut self,
        base: &impl BaseFile,
        database: &Database,
    ) -> Result<(), Rc> {
        if self.deficit.is_some() {
            return Ok(());
        }
        // The WAL may begin anew at any moment, with other salts and no frames.
        let (before, frames, salts) = (base.salts(), base.frames(), base.salts());
        match (frames, salts) {
            (Some((0, _)), _) => self.measure(base, base.header(), database),
            (Some((frames, _)), Some(salts)) if before == Some(salts) => {
                let wal = beside(database.path(), "-wal");
                let is_other = !wal_index::speaks_of(&wal, frames, salts);
                let has_frames = base.frames().is_some_and(|(now, _)| now >= frames);
                if is_other && has_frames && base.salts() == Some(salts) {
                    let why = Displaced::Moved("the WAL");
                    return self.refuse(why, database);
                }
                self.deficit = Some(0);
            }
            _ => self.deficit = Some(0),
        }
        Ok(())
    }

    #[cold]
    fn measure(&mut self, base: &impl BaseFile, header: Option<Header>, database: &Database) {
        let missing = header.and_then(|header| file_length::deficit(&header, base.size().ok()?));
        if missing.is_some() && is_hot(&beside(database.path(), "-journal")) {
            return;
        }
        self.deficit = Some(missing.unwrap_or(0));
        if let Some(missing) = missing {
            let what = format!(
                "the file is {missing} bytes shorter than its header says; something cut it short; \
                 restore it from a backup"
            );
            self.log.log_about(SQLITE_CORRUPT, &what, database.path());
        }
    }

    /// A rollback mode has written all, and commits nothing yet (FCNTL_SYNC).
    ///
    /// # Errors
    /// SQLITE_IOERR_WRITE: a write that extended the file was lost. SQLite rolls back.
    pub(crate) fn before_commit(
        &self,
        base: &impl BaseFile,
        database: &Database,
    ) -> Result<(), Rc> {
        let (Some(header), Ok(size)) = (base.header(), base.size()) else { return Ok(()) };
        let Some(missing) = file_length::deficit(&header, size) else { return Ok(()) };
        self.too_short(missing, SQLITE_IOERR_WRITE, "the transaction is rolled back", database)
    }

    /// All is committed, but COMMIT has not said so yet (FCNTL_COMMIT_PHASETWO).
    ///
    /// # Errors
    /// As for [`Self::before_write`], if that was not asked before: in exclusive locking mode nothing is
    /// locked when a transaction begins. (FCNTL_SYNC is no place for it: a rollback sends that, too.)
    pub(crate) fn after_commit(&mut self, database: &Database) -> Result<(), Rc> {
        if !self.note_commit() {
            self.before_write(database)?;
            self.is_checked = false;
        }
        Ok(())
    }

    /// As [`Self::after_commit`], if that was asked before; else false.
    #[inline]
    pub(crate) fn note_commit(&mut self) -> bool {
        std::mem::take(&mut self.is_checked)
    }

    /// The transaction is over, if there was one.
    pub(crate) fn ended(&mut self) {
        self.is_checked = false;
    }

    /// A checkpoint is about to write the first page. Makes the file as long as that says before it
    /// says so, unless it is too short as it is.
    pub(crate) fn before_first_page(&self, base: &impl BaseFile, page: &[u8]) {
        let Some(length) = page.first_chunk().and_then(file_length::by_header) else { return };
        let Ok(size) = base.size() else { return };
        let is_whole =
            || base.header().is_some_and(|old| file_length::deficit(&old, size).is_none());
        if size < length && is_whole() {
            // An error is met again when SQLite writes there.
            base.write_zero(length - 1);
        }
    }

    /// A file is never made longer by setting its length: it is when a checkpoint has written all
    /// that it sets the length, and then it must be long enough. `truncate` sets it.
    ///
    /// # Errors
    /// SQLITE_IOERR_TRUNCATE: writes that extended the file were lost. Nothing is taken out of the WAL.
    pub(crate) fn truncate(
        &self,
        base: &impl BaseFile,
        size: i64,
        database: &Database,
        truncate: impl FnOnce() -> Rc,
    ) -> Rc {
        let missing = |size: i64| base.size().map_or(0, |now| size - now);
        let refuse = |missing| {
            let what = "nothing is taken out of the WAL; see to the disk, then run the checkpoint \
                        again";
            self.too_short(missing, SQLITE_IOERR_TRUNCATE, what, database)
                .map_or_else(|rc| rc, |()| SQLITE_OK)
        };
        match missing(size) {
            1.. => refuse(missing(size)),
            _ => match truncate() {
                SQLITE_OK if missing(size) > 0 => refuse(missing(size)),
                rc => rc,
            },
        }
    }

    #[cold]
    fn too_short(
        &self,
        missing: i64,
        rc: Rc,
        consequence: &str,
        database: &Database,
    ) -> Result<(), Rc> {
        count(&database.counters.short_files);
        let what = format!(
            "the file is {missing} bytes too short: a write was lost on its way to the disk; \
             {consequence}"
        );
        self.log.log_about(rc, &what, database.path());
        Err(rc)
    }

    /// The wal-index was mapped, for the first time since it was unmapped.
    pub(crate) fn wal_opened(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.wal_opened();
        }
    }

    pub(crate) fn wal_closed(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.wal_closed();
        }
        self.wal_reset = WalReset::default();
    }

    /// What a checkpoint reads of the wal-index from now on is of the WAL that is there now.
    pub(crate) fn checkpoint_begins(&mut self, base: &impl BaseFile) {
        self.wal_reset.checkpoint_begins(base.salts());
    }

    pub(crate) fn checkpoint_ends(&mut self) {
        self.wal_reset.checkpoint_ends();
    }

    /// A checkpoint that does not exclude writers has READ(0), so that nobody begins the WAL anew.
    ///
    /// # Errors
    /// SQLITE_BUSY: somebody has, since the checkpoint began. The slot is given back.
    pub(crate) fn before_backfill(
        &mut self,
        base: &impl BaseFile,
        database: &Database,
    ) -> Result<(), Rc> {
        if !self.wal_reset.is_stale(|| base.salts()) {
            return Ok(());
        }
        count(&database.counters.stale_checkpoints);
        twice(|| base.shm_lock(WAL_READ_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
        Err(SQLITE_BUSY)
    }

    /// A writer is about to lock all slots of those who read the WAL, to begin it anew: only while
    /// nobody checkpoints. `take` takes them. With `may_block_ms`, lock calls may block so long.
    pub(crate) fn restart(
        &mut self,
        base: &impl BaseFile,
        database: &Database,
        may_block_ms: c_int,
        take: impl FnOnce() -> Rc,
    ) -> Rc {
        if may_block_ms > 0 {
            base.may_block(0);
        }
        let ckpt = |flags| base.shm_lock(WAL_CKPT_LOCK, 1, flags | SQLITE_SHM_EXCLUSIVE);
        let rc = ckpt(SQLITE_SHM_LOCK);
        if may_block_ms > 0 {
            base.may_block(may_block_ms);
        }
        if rc != SQLITE_OK {
            if rc & 0xff == SQLITE_BUSY {
                count(&database.counters.restarts_put_off);
                return SQLITE_BUSY;
            }
            // Nobody knows whether the base has it.
            if self.can_step_back() {
                twice(|| ckpt(SQLITE_SHM_UNLOCK));
            }
            return rc;
        }
        let rc = take();
        if rc == SQLITE_OK {
            self.wal_reset.keep_ckpt();
            return rc;
        }
        twice(|| ckpt(SQLITE_SHM_UNLOCK));
        if rc & 0xff != SQLITE_BUSY && self.can_step_back() {
            let slots = (WAL_READ_LOCK + 1, WAL_READERS - 1);
            twice(|| base.shm_lock(slots.0, slots.1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
        }
        rc
    }

    /// Whether slots of the wal-index that were perhaps not taken can be given back. An older SQLite
    /// would free those of another connection of this process.
    pub(crate) fn can_step_back(&self) -> bool {
        self.log.version_number() >= 3_040_000
    }

    /// Those slots were given back.
    pub(crate) fn restarted(&mut self, base: &impl BaseFile) {
        if self.wal_reset.drop_ckpt() {
            twice(|| base.shm_lock(WAL_CKPT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
        }
    }

    /// The last connection closes, has copied all frames, and keeps the WAL: empties it, so that it is
    /// nothing to whoever opens the database next, or another database in its place. Not if anybody
    /// has a slot of the wal-index: somebody who is wrongly not counted.
    pub(crate) fn empty_wal(&self, base: &impl BaseFile, database: &Database) {
        let Some(opened) = self.identity.as_ref().and_then(Identity::wal) else { return };
        let all = |flags| base.shm_lock(0, WAL_SLOTS, flags | SQLITE_SHM_EXCLUSIVE);
        // An index that says that more is copied than there is was led astray by the WAL-reset bug.
        let is_copied = base.frames().is_some_and(|(frames, copied)| frames == copied);
        if !is_copied || all(SQLITE_SHM_LOCK) != SQLITE_OK {
            return;
        }
        // In this order: who finds the wal-index without a header recovers it from the WAL.
        if sys::empty(&beside(database.path(), "-wal"), opened).is_ok() {
            base.clear_wal_index();
        }
        twice(|| all(SQLITE_SHM_UNLOCK));
    }
}

/// Whether a journal has something to roll back: its header is not zeroed, as `journal_mode=persist`
/// does. <https://www.sqlite.org/fileformat2.html#the_rollback_journal>
fn is_hot(journal: &Path) -> bool {
    let mut first = [0];
    let read = std::fs::File::open(journal).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first != [0]
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

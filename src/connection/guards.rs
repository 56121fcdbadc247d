//! The storage guards of one connection: what [`crate::guard`] knows, asked at the right moments.

use std::cell::Cell;
use std::ffi::c_int;

use super::base_file::{BaseFile, Stands, twice};
use crate::counters::count;
use crate::ffi::host::Host;
use crate::ffi::{
    Rc, SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
    SQLITE_OK, SQLITE_READONLY, SQLITE_READONLY_DBMOVED, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_LOCK,
    SQLITE_SHM_UNLOCK, WAL_CKPT_LOCK, WAL_READ_LOCK, WAL_READERS, WAL_SLOTS,
};
use crate::format::{Header, JOURNAL_SUFFIX, WAL_SUFFIX, beside, is_hot};
use crate::guard::ahead::{self, Ahead, Growth};
use crate::guard::file_length::Written;
use crate::guard::identity::{Displaced, Identity};
use crate::guard::wal_index;
use crate::guard::wal_reset::WalReset;
use crate::lock::Database;
use crate::sys::{self, Inode};

/// After how many transactions a reader looks whether it is time to check.
const LOOKS_AFTER: u8 = 32;

pub(crate) struct Guards<B: BaseFile> {
    pub(super) base: B,
    log: Host,
    /// `None` if the database is no file that can be found by its name.
    identity: Option<Identity>,
    /// Said once, not at each attempt.
    said: Cell<Option<Displaced>>,
    wal_reset: WalReset,
    /// By how many bytes the file was too short when it was first locked; `None` before.
    deficit: Option<i64>,
    written: Written,
    /// How many frames were copied when this checkpoint began to.
    copied: Option<u32>,
    /// `None` if the file is not kept ahead of its header.
    ahead: Option<Ahead>,
    stands: Stands,
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

impl<B: BaseFile> Guards<B> {
    pub(crate) fn new(
        base: B,
        log: Host,
        identity: Option<Identity>,
        no_wal: Option<String>,
    ) -> Self {
        Self {
            base,
            log,
            identity,
            said: Cell::new(None),
            wal_reset: WalReset::default(),
            deficit: None,
            written: Written::default(),
            copied: None,
            ahead: None,
            stands: Stands::Alone,
            until_look: 1,
            is_checked: false,
            no_wal,
            is_synchronous_off: false,
            journalless: None,
        }
    }

    /// From now on, the file is kept ahead of its header in WAL mode.
    pub(crate) fn keep_ahead(&mut self) {
        self.ahead = Some(Ahead::default());
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
        self.identity.as_mut()?.check(sys::monotonic_ns()).err().or(self.said.get())
    }

    pub(crate) fn no_wal(&self) -> Option<&str> {
        self.no_wal.as_deref()
    }

    pub(crate) fn deficit(&self) -> Option<i64> {
        self.deficit.filter(|missing| *missing > 0)
    }

    pub(crate) fn stands(&self) -> Stands {
        self.stands
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

    /// Before anything is locked to write. `now` is of [`sys::monotonic_ns`].
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED, or SQLITE_READONLY for hard links.
    #[inline(always)]
    pub(crate) fn before_write(&mut self, now: u64, database: &Database) -> Result<(), Rc> {
        let Some(identity) = &mut self.identity else { return Ok(()) };
        let checked = identity.check(now);
        self.is_checked = checked.is_ok();
        checked.or_else(|why| self.refuse(why, database))
    }

    /// Before anything is locked to recover or clean up, or by a first connection, which may be about
    /// to read: hard links do no harm then.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED.
    pub(crate) fn before_upkeep(&mut self, now: u64, database: &Database) -> Result<(), Rc> {
        let Some(identity) = &mut self.identity else { return Ok(()) };
        match identity.check(now) {
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
        if self.until_look <= 1 {
            return true;
        }
        self.until_look -= 1;
        false
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

    pub(crate) fn look_where_it_stands(&mut self, database: &Database) {
        let base = self.base;
        self.stands = base.stands(database.path());
    }

    /// SHARED was taken. The first time, looks whether the file is as long as its header says; not
    /// in WAL mode, where the WAL may have the rest, nor while there is a journal to roll it back.
    pub(crate) fn first_locked(&mut self, database: &Database) {
        let base = self.base;
        if self.deficit.is_some() {
            return;
        }
        self.look_where_it_stands(database);
        let header = base.header();
        let is_wal = header.is_some_and(|header| header.is_wal());
        if let Some(why) = self.no_wal.as_ref().filter(|_| is_wal) {
            self.log.log_about(SQLITE_CANTOPEN, why, database.path());
        }
        if !is_wal {
            self.measure(header, database);
        }
    }

    /// A slot to read by was taken. The first time, does the same if the WAL has nothing; if it has, it
    /// must be the one that the wal-index speaks of.
    ///
    /// # Errors
    /// SQLITE_READONLY_DBMOVED; the slot is to be given back.
    pub(crate) fn first_read(&mut self, database: &Database) -> Result<(), Rc> {
        let base = self.base;
        if self.deficit.is_some() {
            return Ok(());
        }
        self.look_where_it_stands(database);
        // The WAL may begin anew at any moment, with other salts and no frames.
        let (before, frames, salts) = (base.salts(), base.frames(), base.salts());
        match (frames, salts) {
            (Some((0, _)), _) => self.measure(base.header(), database),
            (Some((frames, _)), Some(salts)) if before == Some(salts) => {
                let wal = beside(database.path(), WAL_SUFFIX);
                // By its name it is read as it lies on the disk.
                let is_other =
                    self.stands == Stands::Alone && !wal_index::speaks_of(&wal, frames, salts);
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
    fn measure(&mut self, header: Option<Header>, database: &Database) {
        let base = self.base;
        let missing = header
            .filter(|_| self.stands != Stands::Below)
            .and_then(|header| header.deficit(base.size().ok()?));
        if missing.is_some() && is_hot(&beside(database.path(), JOURNAL_SUFFIX)) {
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

    /// A rollback mode has written all, and commits nothing yet, or has undone all (FCNTL_SYNC).
    ///
    /// # Errors
    /// SQLITE_IOERR_WRITE: a write of this transaction that extended the file was lost. SQLite rolls back, and is
    /// not kept from that.
    pub(crate) fn before_commit(&mut self, database: &Database) -> Result<(), Rc> {
        let base = self.base;
        let torn = self.written.torn(|| base.size().ok());
        self.written.synced(torn.is_some());
        let Some(missing) = torn else { return Ok(()) };
        self.too_short(missing, SQLITE_IOERR_WRITE, "the transaction is rolled back", database)
    }

    /// What the connection writes while nobody else may change the file's length.
    pub(crate) fn written(&mut self) -> &mut Written {
        &mut self.written
    }

    /// All is committed, but COMMIT has not said so yet (FCNTL_COMMIT_PHASETWO).
    ///
    /// # Errors
    /// As for [`Self::before_write`], if that was not asked before: in exclusive locking mode nothing is
    /// locked when a transaction begins. (FCNTL_SYNC is no place for it: a rollback sends that, too.)
    pub(crate) fn after_commit(&mut self, database: &Database) -> Result<(), Rc> {
        if !self.note_commit() {
            self.before_write(sys::monotonic_ns(), database)?;
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

    /// A checkpoint is about to write the first page. Makes the file as long as that says, and longer,
    /// before it says so, unless it is too short as it is. An observer who may have seen the old length is
    /// waited for, unless the checkpoint `is_last`, of a connection that closes.
    pub(crate) fn before_first_page(&mut self, page: &[u8], is_last: bool) {
        let base = self.base;
        if self.stands == Stands::Below {
            return;
        }
        let Some(header) = Header::of_page(page) else { return };
        let lengths = header.length().zip(header.page_size());
        let (Some((length, page)), Ok(size)) = (lengths, base.size()) else { return };
        let Some(old) = base.header() else { return };
        if old.deficit(size).is_some() {
            return;
        }
        let old = old.length();
        let growth = match (self.ahead.as_mut().filter(|_| !is_last), old) {
            (Some(ahead), Some(old)) => ahead.before_header(size, old, length),
            (_, Some(_)) => (size < length).then_some(Growth { to: length, is_sudden: false }),
            // How long the database is, only the file's own length says.
            (_, None) => None,
        };
        let Some(Growth { mut to, is_sudden }) = growth else { return };
        if sys::file_size_limit().is_some_and(|limit| to > limit) {
            to = length;
        }
        // Never over what is there. If it fails, that is met again when SQLite writes there.
        if to - page >= size && base.write_zeros(to - page, page) {
            self.written.wrote(to, 0);
            if is_sudden {
                std::thread::sleep(ahead::PAUSE);
            }
        }
    }

    /// A checkpoint has written all, and sets the file's length, by `truncate`: then the file must be long
    /// enough for what was written, and when its length is set, have that. `in_wal_mode` it stays ahead of its header, unless
    /// the checkpoint `is_last`, of a connection that closes.
    ///
    /// # Errors
    /// SQLITE_IOERR_TRUNCATE: writes that extended the file were lost. Nothing is taken out of the WAL.
    pub(crate) fn truncate_after_checkpoint(
        &mut self,
        size: i64,
        in_wal_mode: bool,
        is_last: bool,
        database: &Database,
        truncate: impl FnOnce(i64) -> Rc,
    ) -> Rc {
        let base = self.base;
        let refuse = |guards: &Self, missing| {
            let what = "nothing is taken out of the WAL; see to the disk, then run the checkpoint \
                        again";
            guards
                .too_short(missing, SQLITE_IOERR_TRUNCATE, what, database)
                .map_or_else(|rc| rc, |()| SQLITE_OK)
        };
        let now = base.size().ok();
        if let Some(missing) = now.and_then(|now| self.written.lost(now, size)) {
            return refuse(self, missing);
        }
        let keeps = in_wal_mode && !is_last && self.stands != Stands::Below;
        let ahead = self.ahead.as_mut().filter(|_| keeps);
        let mut grows_to = None;
        if let (Some(ahead), Some(now)) = (ahead, now.filter(|now| *now > size)) {
            let header = base.header();
            let lengths = header.and_then(|header| header.length().zip(header.page_size()));
            if let Some((length, page)) = lengths {
                match ahead.after_checkpoint(now, length) {
                    Some(to) => grows_to = Some((to, page)),
                    None => return SQLITE_OK,
                }
            }
        }
        // What is cut off is not lost.
        self.written.cut(size);
        let rc = truncate(size);
        let missing = || base.size().ok().map(|now| size - now).filter(|missing| *missing > 0);
        if let Some((to, page)) = grows_to.filter(|(to, page)| rc == SQLITE_OK && to - page >= size)
        {
            // What was behind the database is gone by now, and a hole comes in its place.
            if sys::file_size_limit().is_none_or(|limit| to <= limit)
                && base.write_zeros(to - page, page)
            {
                self.written.wrote(to, 0);
            }
        }
        match rc {
            SQLITE_OK => missing().map_or(rc, |missing| refuse(self, missing)),
            rc => rc,
        }
    }

    /// A checkpoint has READ(0), and copies frames next.
    pub(crate) fn backfill_begins(&mut self) {
        let base = self.base;
        self.copied = base.frames().map(|(_, copied)| copied);
    }

    /// It gives READ(0) back. If it was kept by a reader from copying all, it has set no length, and SQLite has
    /// noted what it did copy: not if some of it was lost.
    pub(crate) fn backfill_ends(&mut self, database: &Database) {
        let base = self.base;
        let Some(copied) = self.copied.take() else { return };
        let lost = || base.size().ok().and_then(|size| self.written.lost(size, i64::MAX));
        if base.frames().is_none_or(|(_, now)| now == copied) {
            return;
        }
        if let Some(missing) = lost() {
            base.set_copied(copied);
            let what = "nothing counts as taken out of the WAL; see to the disk";
            let _ = self.too_short(missing, SQLITE_IOERR_WRITE, what, database);
        }
    }

    /// The first write transaction of this connection in WAL mode has WRITE: sees to it that the file is ahead before
    /// there is anything to copy, so that the first checkpoint need not wait for observers. Only while nobody
    /// checkpoints, since a checkpoint may write where the file ends. With `may_block_ms`, lock calls may block so
    /// long.
    #[cold]
    pub(crate) fn get_ahead(&mut self, may_block_ms: c_int) {
        let base = self.base;
        let Some(ahead) = self.ahead.as_mut().filter(|_| self.stands != Stands::Below) else {
            return;
        };
        // While the WAL has nothing, SQLite takes the file's length for the page count: the next transaction will do.
        if base.frames().is_none_or(|(frames, _)| frames == 0) {
            return;
        }
        ahead.has_begun = true;
        let wanted = |ahead: &Ahead| {
            let header = base.header()?;
            let (length, page) = header.length().zip(header.page_size())?;
            let size = base.size().ok().filter(|size| *size >= length)?;
            let to = ahead.before_writing(size, length)?;
            (to - page >= size).then_some((to, page))
        };
        if wanted(ahead).is_none() {
            return;
        }
        if may_block_ms > 0 {
            base.may_block(0);
        }
        let ckpt = |flags| base.shm_lock(WAL_CKPT_LOCK, 1, flags | SQLITE_SHM_EXCLUSIVE);
        let rc = ckpt(SQLITE_SHM_LOCK);
        if rc == SQLITE_OK {
            if let Some((to, page)) = wanted(ahead) {
                if sys::file_size_limit().is_none_or(|limit| to <= limit) {
                    base.write_zeros(to - page, page);
                }
            }
        }
        if rc == SQLITE_OK || rc & 0xff != SQLITE_BUSY && self.can_step_back() {
            // After an error nobody knows whether the base has it.
            twice(|| ckpt(SQLITE_SHM_UNLOCK));
        }
        if may_block_ms > 0 {
            base.may_block(may_block_ms);
        }
    }

    /// Whether [`Self::get_ahead`] has something to do.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| !ahead.has_begun)
    }

    /// The last connection is about to unlock the database: it has closed it in WAL mode, or has left that mode. If the
    /// WAL is gone, the file gets the length that its header says.
    #[cold]
    pub(crate) fn cut_to_header(&self, database: &Database) {
        let base = self.base;
        if self.ahead.is_none() || self.stands == Stands::Below {
            return;
        }
        // Frames that are still there may count more pages.
        if !sys::entry_at(&beside(database.path(), WAL_SUFFIX))
            .is_err_and(|why| sys::is_absent(&why))
        {
            return;
        }
        // A rollback may need what lies behind the length that the header says before it.
        let journal = beside(database.path(), JOURNAL_SUFFIX);
        let may_be_hot = match sys::open_to_read(&journal) {
            Ok(_) => is_hot(&journal),
            Err(why) => !sys::is_absent(&why),
        };
        if may_be_hot {
            return;
        }
        let length = base.header().and_then(|header| header.length());
        if let (Some(length), Ok(size)) = (length, base.size()) {
            if size > length {
                // An error leaves a longer file, which is legal.
                base.set_size(length);
            }
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
        if let Some(ahead) = &mut self.ahead {
            ahead.has_begun = false;
        }
        if let Some(identity) = &mut self.identity {
            identity.wal_closed();
        }
        self.wal_reset = WalReset::default();
    }

    /// What a checkpoint reads of the wal-index from now on is of the WAL that is there now.
    pub(crate) fn checkpoint_begins(&mut self) {
        let base = self.base;
        self.wal_reset.checkpoint_begins(base.salts());
    }

    pub(crate) fn checkpoint_ends(&mut self) {
        self.wal_reset.checkpoint_ends();
    }

    /// A checkpoint that does not exclude writers has READ(0), so that nobody begins the WAL anew.
    ///
    /// # Errors
    /// SQLITE_BUSY: somebody has, since the checkpoint began. The slot is given back.
    pub(crate) fn before_backfill(&mut self, database: &Database) -> Result<(), Rc> {
        let base = self.base;
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
        database: &Database,
        may_block_ms: c_int,
        take: impl FnOnce() -> Rc,
    ) -> Rc {
        let base = self.base;
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
    pub(crate) fn restarted(&mut self) {
        let base = self.base;
        if self.wal_reset.drop_ckpt() {
            twice(|| base.shm_lock(WAL_CKPT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
        }
    }

    /// The last connection closes, has copied all frames, and keeps the WAL: empties it, so that it is
    /// nothing to whoever opens the database next, or another database in its place. Not if anybody
    /// has a slot of the wal-index: somebody who is wrongly not counted.
    pub(crate) fn empty_wal(&self, database: &Database) {
        let base = self.base;
        let Some(opened) = self.identity.as_ref().and_then(Identity::wal) else { return };
        let all = |flags| base.shm_lock(0, WAL_SLOTS, flags | SQLITE_SHM_EXCLUSIVE);
        // An index that says that more is copied than there is was led astray by the WAL-reset bug.
        let is_copied = base.frames().is_some_and(|(frames, copied)| frames == copied);
        if !is_copied || all(SQLITE_SHM_LOCK) != SQLITE_OK {
            return;
        }
        // In this order: who finds the wal-index without a header recovers it from the WAL.
        if sys::empty(&beside(database.path(), WAL_SUFFIX), opened).is_ok() {
            base.clear_wal_index();
        }
        twice(|| all(SQLITE_SHM_UNLOCK));
    }
}

#[cfg(all(test, unix, feature = "linked"))]
mod tests;

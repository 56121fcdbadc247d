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
use crate::guard::ahead::{self, Ahead, Growth};
use crate::guard::file_length::{self, Header, Written};
use crate::guard::identity::{Displaced, Identity};
use crate::guard::wal_index;
use crate::guard::wal_reset::WalReset;
use crate::host::Host;
use crate::lock::Database;
use crate::sys::{self, Inode};

/// After how many transactions a reader looks whether it is time to check.
const LOOKS_AFTER: u8 = 32;

/// Where this VFS stands among those that a connection's file goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// SQLite calls it, as far as can be told, and its base is the operating system's.
    Alone,
    /// SQLite calls it. Its base is somebody else's, who may keep the database in another form.
    Above,
    /// Another VFS calls it, and decides what the file has in it.
    Below,
}

pub(crate) struct Guards {
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

impl Guards {
    pub(crate) fn new(log: Host, identity: Option<Identity>, no_wal: Option<String>) -> Self {
        Self {
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

    pub(crate) fn look_where_it_stands(&mut self, base: impl BaseFile, database: &Database) {
        self.stands = base.stands(database.path());
    }

    /// SHARED was taken. The first time, looks whether the file is as long as its header says; not
    /// in WAL mode, where the WAL may have the rest, nor while there is a journal to roll it back.
    pub(crate) fn first_locked(&mut self, base: impl BaseFile, database: &Database) {
        if self.deficit.is_some() {
            return;
        }
        self.look_where_it_stands(base, database);
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
        base: impl BaseFile,
        database: &Database,
    ) -> Result<(), Rc> {
        if self.deficit.is_some() {
            return Ok(());
        }
        self.look_where_it_stands(base, database);
        // The WAL may begin anew at any moment, with other salts and no frames.
        let (before, frames, salts) = (base.salts(), base.frames(), base.salts());
        match (frames, salts) {
            (Some((0, _)), _) => self.measure(base, base.header(), database),
            (Some((frames, _)), Some(salts)) if before == Some(salts) => {
                let wal = beside(database.path(), "-wal");
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
    fn measure(&mut self, base: impl BaseFile, header: Option<Header>, database: &Database) {
        let missing = header
            .filter(|_| self.stands != Stands::Below)
            .and_then(|header| file_length::deficit(&header, base.size().ok()?));
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

    /// A rollback mode has written all, and commits nothing yet, or has undone all (FCNTL_SYNC).
    ///
    /// # Errors
    /// SQLITE_IOERR_WRITE: a write of this transaction that extended the file was lost. SQLite rolls back, and is
    /// not kept from that.
    pub(crate) fn before_commit(
        &mut self,
        base: impl BaseFile,
        database: &Database,
    ) -> Result<(), Rc> {
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
    pub(crate) fn before_first_page(&mut self, base: impl BaseFile, page: &[u8], is_last: bool) {
        if self.stands == Stands::Below {
            return;
        }
        let Some(header) = page.first_chunk() else { return };
        let lengths = file_length::by_header(header).zip(file_length::page_size(header));
        let (Some((length, page)), Ok(size)) = (lengths, base.size()) else { return };
        let Some(old) = base.header() else { return };
        if file_length::deficit(&old, size).is_some() {
            return;
        }
        let old = file_length::by_header(&old);
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
        base: impl BaseFile,
        size: i64,
        in_wal_mode: bool,
        is_last: bool,
        database: &Database,
        truncate: impl FnOnce(i64) -> Rc,
    ) -> Rc {
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
            let header = header.as_ref();
            let length = header.and_then(file_length::by_header);
            if let Some((length, page)) = length.zip(header.and_then(file_length::page_size)) {
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
    pub(crate) fn backfill_begins(&mut self, base: impl BaseFile) {
        self.copied = base.frames().map(|(_, copied)| copied);
    }

    /// It gives READ(0) back. If it was kept by a reader from copying all, it has set no length, and SQLite has
    /// noted what it did copy: not if some of it was lost.
    pub(crate) fn backfill_ends(&mut self, base: impl BaseFile, database: &Database) {
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
    pub(crate) fn get_ahead(&mut self, base: impl BaseFile, may_block_ms: c_int) {
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
            let (length, page) =
                file_length::by_header(&header).zip(file_length::page_size(&header))?;
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
    pub(crate) fn cut_to_header(&self, base: impl BaseFile, database: &Database) {
        if self.ahead.is_none() || self.stands == Stands::Below {
            return;
        }
        // Frames that are still there may count more pages.
        if !sys::entry_at(&beside(database.path(), "-wal")).is_err_and(|why| sys::is_absent(&why)) {
            return;
        }
        // A rollback may need what lies behind the length that the header says before it.
        let journal = beside(database.path(), "-journal");
        let may_be_hot = match sys::open_to_read(&journal) {
            Ok(_) => is_hot(&journal),
            Err(why) => !sys::is_absent(&why),
        };
        if may_be_hot {
            return;
        }
        let length = base.header().and_then(|header| file_length::by_header(&header));
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
    pub(crate) fn checkpoint_begins(&mut self, base: impl BaseFile) {
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
        base: impl BaseFile,
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
        base: impl BaseFile,
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
    pub(crate) fn restarted(&mut self, base: impl BaseFile) {
        if self.wal_reset.drop_ckpt() {
            twice(|| base.shm_lock(WAL_CKPT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE));
        }
    }

    /// The last connection closes, has copied all frames, and keeps the WAL: empties it, so that it is
    /// nothing to whoever opens the database next, or another database in its place. Not if anybody
    /// has a slot of the wal-index: somebody who is wrongly not counted.
    pub(crate) fn empty_wal(&self, base: impl BaseFile, database: &Database) {
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
    let read = sys::open_to_read(journal).and_then(|mut file| file.read_exact(&mut first));
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

#[cfg(all(test, unix, feature = "linked"))]
pub(super) mod tests {
    use super::*;
    use crate::ffi::{SQLITE_IOERR, SQLITE_IOERR_LOCK, SQLITE_SHM_SHARED};
    use crate::file::connection::{Doing, Sought};
    use crate::file::wal::Client;
    use crate::guard::wal_reset::Salts;
    use crate::lock::wait::Probe;
    use std::cell::RefCell;
    use std::fs;
    use std::sync::Arc;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::file) enum Call {
        Lock(c_int, c_int),
        Unlock(c_int, c_int),
        MayBlock(c_int),
        WriteZeros(i64, i64),
        SetCopied(u32),
        SetSize(i64),
        ClearWalIndex,
    }
    pub(in crate::file) use Call::*;

    /// A base file that notes what it is asked for. Of what it says there may be several, one for each
    /// time it is asked; the last stays.
    pub(in crate::file) struct Base {
        sizes: RefCell<Vec<Option<i64>>>,
        header: Option<Header>,
        salts: RefCell<Vec<Option<Salts>>>,
        frames: RefCell<Vec<Option<(u32, u32)>>>,
        /// What it answers for a lock of slots from this one on.
        pub(in crate::file) refuses: Option<(c_int, Rc)>,
        pub(in crate::file) client: Option<Client>,
        stands: Stands,
        pub(in crate::file) calls: RefCell<Vec<Call>>,
    }

    impl Default for Base {
        fn default() -> Self {
            Self {
                sizes: RefCell::new(vec![Some(0)]),
                header: None,
                salts: RefCell::new(vec![None]),
                frames: RefCell::new(vec![None]),
                refuses: None,
                client: None,
                stands: Stands::Alone,
                calls: RefCell::default(),
            }
        }
    }

    fn next<T: Copy>(says: &RefCell<Vec<T>>) -> T {
        let mut says = says.borrow_mut();
        if says.len() > 1 { says.remove(0) } else { says[0] }
    }

    impl Base {
        fn of_size(pages: i64, header_pages: u32) -> Self {
            let sizes = RefCell::new(vec![Some(4096 * pages)]);
            Self { sizes, header: Some(header(header_pages)), ..Self::default() }
        }

        pub(in crate::file) fn of_wal(frames: &[(u32, u32)], salts: &[Salts]) -> Self {
            Self {
                frames: RefCell::new(frames.iter().copied().map(Some).collect()),
                salts: RefCell::new(salts.iter().copied().map(Some).collect()),
                ..Self::default()
            }
        }

        pub(in crate::file) fn used_by(self, client: Option<Client>) -> Self {
            Self { client, ..self }
        }

        fn note(&self, call: Call) {
            self.calls.borrow_mut().push(call);
        }
    }

    impl BaseFile for &Base {
        fn lock(&self, _: c_int) -> Rc {
            SQLITE_OK
        }
        fn unlock(&self, _: c_int) -> Rc {
            SQLITE_OK
        }
        fn shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> Rc {
            assert!(flags & (SQLITE_SHM_EXCLUSIVE | SQLITE_SHM_SHARED) != 0);
            if flags & SQLITE_SHM_UNLOCK != 0 {
                self.note(Unlock(offset, n));
                return SQLITE_OK;
            }
            self.note(Lock(offset, n));
            self.refuses.filter(|(slot, _)| *slot == offset).map_or(SQLITE_OK, |(_, rc)| rc)
        }
        fn may_block(&self, ms: c_int) {
            self.note(MayBlock(ms));
        }
        fn is_wal(&self) -> bool {
            false
        }
        fn size(&self) -> Result<i64, Rc> {
            next(&self.sizes).ok_or(SQLITE_IOERR)
        }
        fn is_upgrade(&self) -> bool {
            true
        }
        fn is_in_autocommit(&self) -> bool {
            true
        }
        fn doing(&self) -> Option<Doing> {
            None
        }
        fn probe(&self, _: Sought) -> Probe {
            Box::new(|| true)
        }
        fn frames(&self) -> Option<(u32, u32)> {
            next(&self.frames)
        }
        fn salts(&self) -> Option<Salts> {
            next(&self.salts)
        }
        fn header(&self) -> Option<Header> {
            self.header
        }
        fn client(&self) -> Option<Client> {
            self.client
        }
        fn read_mark(&self, _: c_int) -> Option<u32> {
            None
        }
        fn write_zeros(&self, at: i64, bytes: i64) -> bool {
            self.note(WriteZeros(at, bytes));
            true
        }
        fn set_size(&self, bytes: i64) {
            self.note(SetSize(bytes));
        }
        fn stands(&self, _: &Path) -> Stands {
            self.stands
        }
        fn set_copied(&self, frames: u32) {
            self.note(SetCopied(frames));
        }
        fn clear_wal_index(&self) {
            self.note(ClearWalIndex);
        }
    }

    /// The header of a database of so many pages of 4096 bytes, in a rollback mode.
    fn header(pages: u32) -> Header {
        let mut header = [0; 100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        header[18..20].copy_from_slice(&[1, 1]);
        header[28..32].copy_from_slice(&pages.to_be_bytes());
        header
    }

    /// A board with a WAL, its guards, and the place it lies in.
    pub(in crate::file) fn board() -> (tempfile::TempDir, Arc<Database>, Guards) {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("board.db");
        for suffix in ["", "-wal", "-shm"] {
            fs::write(beside(&path, suffix), "something").expect("a file");
        }
        let host = Host::linked().expect("a linked SQLite");
        let mut guards = Guards::new(host, Identity::of(&path, false), None);
        guards.wal_opened();
        (place, Database::at(&path), guards)
    }

    fn counted(counter: &AtomicU64) -> u64 {
        counter.swap(0, Ordering::Relaxed)
    }

    const ALL_READERS: (c_int, c_int) = (WAL_READ_LOCK + 1, WAL_READERS - 1);

    /// A writer begins the WAL anew: only with the CKPT slot, for which it does not wait, and which it
    /// gives back after that, once.
    #[test]
    fn a_wal_begins_anew_only_while_nobody_checkpoints() {
        let (_place, database, mut guards) = board();
        let locked = Lock(WAL_CKPT_LOCK, 1);
        let unlocked = Unlock(WAL_CKPT_LOCK, 1);
        for ms in [0, 9] {
            let base = Base::default();
            let take = || {
                base.note(Lock(ALL_READERS.0, ALL_READERS.1));
                SQLITE_OK
            };
            assert_eq!(guards.restart(&base, &database, ms, take), SQLITE_OK);
            guards.restarted(&base);
            guards.restarted(&base);
            let taken = Lock(ALL_READERS.0, ALL_READERS.1);
            let expected: &[Call] = match ms {
                0 => &[locked, taken, unlocked],
                _ => &[MayBlock(0), locked, MayBlock(9), taken, unlocked],
            };
            assert_eq!(*base.calls.borrow(), expected);
        }
        assert_eq!(counted(&database.counters.restarts_put_off), 0);
    }

    /// It can not be had, or whether it was taken is not known, or the readers' slots can not be had: then
    /// nothing is kept.
    #[test]
    fn a_wal_that_can_not_begin_anew_leaves_no_slot_locked() {
        let (_place, database, mut guards) = board();
        let (locked, unlocked) = (Lock(WAL_CKPT_LOCK, 1), Unlock(WAL_CKPT_LOCK, 1));
        let never = || -> Rc { panic!("it was refused") };
        let busy = SQLITE_BUSY | 1 << 8;
        for (rc, answer, expected, put_off) in [
            (SQLITE_BUSY, SQLITE_BUSY, &[locked][..], 1),
            (busy, SQLITE_BUSY, &[locked], 1),
            (SQLITE_IOERR_LOCK, SQLITE_IOERR_LOCK, &[locked, unlocked], 0),
        ] {
            let base = Base { refuses: Some((WAL_CKPT_LOCK, rc)), ..Base::default() };
            assert_eq!(guards.restart(&base, &database, 0, never), answer);
            guards.restarted(&base);
            assert_eq!(*base.calls.borrow(), expected);
            assert_eq!(counted(&database.counters.restarts_put_off), put_off);
        }
        let slots_back = Unlock(ALL_READERS.0, ALL_READERS.1);
        for (rc, expected) in [
            (SQLITE_BUSY, &[locked, unlocked][..]),
            (busy, &[locked, unlocked]),
            (SQLITE_IOERR_LOCK, &[locked, unlocked, slots_back]),
        ] {
            let base = Base::default();
            assert_eq!(guards.restart(&base, &database, 0, || rc), rc);
            guards.restarted(&base);
            assert_eq!(*base.calls.borrow(), expected);
        }
    }

    /// A checkpoint has read of a WAL that has begun anew since: it gives up, and the slot back.
    #[test]
    fn a_checkpoint_of_another_wal_gives_up() {
        let (_place, database, mut guards) = board();
        let base = Base::of_wal(&[(1, 0)], &[[1, 2], [1, 2], [3, 4]]);
        guards.checkpoint_begins(&base);
        assert_eq!(guards.before_backfill(&base, &database), Ok(()));
        assert_eq!(*base.calls.borrow(), []);
        assert_eq!(guards.before_backfill(&base, &database), Err(SQLITE_BUSY));
        assert_eq!(*base.calls.borrow(), [Unlock(WAL_READ_LOCK, 1)]);
        assert_eq!(counted(&database.counters.stale_checkpoints), 1);
        guards.checkpoint_ends();
        assert_eq!(guards.before_backfill(&base, &database), Ok(()));
        guards.checkpoint_begins(&Base::of_wal(&[(1, 0)], &[[1, 2]]));
        guards.wal_closed();
        assert_eq!(guards.before_backfill(&base, &database), Ok(()));
    }

    /// The last connection keeps the WAL, and empties it: not if anything of it is not copied, nor if anybody
    /// has a slot, nor if it is another file by now.
    #[test]
    fn a_wal_that_is_kept_is_emptied_only_if_nobody_needs_it() {
        let all = (Lock(0, WAL_SLOTS), Unlock(0, WAL_SLOTS));
        let busy = Some((0, SQLITE_BUSY));
        for (frames, refuses, is_replaced, calls, is_emptied) in [
            ((5, 5), None, false, &[all.0, ClearWalIndex, all.1][..], true),
            ((5, 4), None, false, &[], false),
            ((4, 5), None, false, &[], false),
            ((5, 5), busy, false, &[all.0], false),
            ((5, 5), None, true, &[all.0, all.1], false),
        ] {
            let (place, database, guards) = board();
            let wal = beside(database.path(), "-wal");
            if is_replaced {
                let other = place.path().join("other");
                fs::write(&other, "something").expect("a file");
                fs::rename(&other, &wal).expect("it is replaced");
            }
            let base = Base { refuses, ..Base::of_wal(&[frames], &[[1, 2]]) };
            guards.empty_wal(&base, &database);
            assert_eq!(*base.calls.borrow(), calls, "{frames:?}, {is_replaced}");
            let length = fs::metadata(&wal).expect("it is there").len();
            assert_eq!(length == 0, is_emptied, "{frames:?}, {is_replaced}");
        }
    }

    /// A checkpoint has written 4096 bytes and sets that length. A file that has less of what was written is not
    /// set to it, and one that is set to it and does not have it is an error; the counter says so. What was not
    /// written may be missing: then it is made longer.
    #[test]
    fn a_length_that_is_not_there_is_an_error() {
        let (_place, database, mut guards) = board();
        let mut truncate = |written: c_int, sizes: &[Option<i64>], rc: Rc| {
            let base = Base { sizes: RefCell::new(sizes.to_vec()), ..Base::default() };
            let called = Cell::new(false);
            guards.written().begin();
            guards.written().wrote(0, written);
            let answer =
                guards.truncate_after_checkpoint(&base, 4096, true, false, &database, |_| {
                    called.set(true);
                    rc
                });
            (answer, called.get(), counted(&database.counters.short_files))
        };
        let refused = SQLITE_IOERR_TRUNCATE;
        assert_eq!(truncate(4096, &[Some(4095)], SQLITE_OK), (refused, false, 1));
        assert_eq!(truncate(8192, &[Some(4095)], SQLITE_OK), (refused, false, 1));
        assert_eq!(truncate(4096, &[Some(4096)], SQLITE_OK), (SQLITE_OK, true, 0));
        assert_eq!(truncate(8192, &[Some(4096)], SQLITE_OK), (SQLITE_OK, true, 0));
        assert_eq!(truncate(4095, &[Some(4095), Some(4096)], SQLITE_OK), (SQLITE_OK, true, 0));
        assert_eq!(truncate(4095, &[Some(4095)], SQLITE_OK), (refused, true, 1));
        assert_eq!(truncate(4096, &[Some(8192), Some(4096)], SQLITE_OK), (SQLITE_OK, true, 0));
        assert_eq!(truncate(4096, &[Some(8192), Some(4095)], SQLITE_OK), (refused, true, 1));
        assert_eq!(
            truncate(4096, &[Some(8192), Some(4095)], SQLITE_IOERR),
            (SQLITE_IOERR, true, 0)
        );
        assert_eq!(truncate(4096, &[None], SQLITE_OK), (SQLITE_OK, true, 0));
    }

    /// A checkpoint that a reader keeps from copying all has lost some of what it has written: that it has copied
    /// any is taken back.
    #[test]
    fn frames_that_were_lost_do_not_count_as_copied() {
        let (_place, database, mut guards) = board();
        let mut ends = |copied: &[(u32, u32)], pages: i64| {
            let base =
                Base { sizes: RefCell::new(vec![Some(pages * 4096)]), ..Base::of_wal(copied, &[]) };
            guards.written().begin();
            guards.written().wrote(0, 3 * 4096);
            guards.backfill_begins(&base);
            guards.backfill_ends(&base, &database);
            guards.backfill_ends(&base, &database);
            (base.calls.take(), counted(&database.counters.short_files))
        };
        assert_eq!(ends(&[(9, 2), (9, 5)], 2), (vec![SetCopied(2)], 1));
        assert_eq!(ends(&[(9, 2), (9, 5)], 3), (vec![], 0), "all is there");
        assert_eq!(ends(&[(9, 2)], 2), (vec![], 0), "nothing is noted");
    }

    /// A commit of a rollback mode finds that less is there than it has written. It is refused once: the rollback
    /// that follows is not.
    #[test]
    fn a_commit_that_has_lost_a_write_is_refused() {
        let (_place, database, mut guards) = board();
        let mut commit = |base: &Base, writes: &[u32], end: c_int| {
            guards.written().begin();
            for pages in writes {
                guards.written().first_page(&header(*pages), || base.header);
            }
            guards.written().wrote(0, end);
            let answers = [0; 2].map(|_| guards.before_commit(base, &database));
            (answers, counted(&database.counters.short_files))
        };
        let unknown = Base { sizes: RefCell::new(vec![None]), ..Base::of_size(2, 2) };
        let fresh = Base { header: None, ..Base::of_size(2, 0) };
        let refused = [Err(SQLITE_IOERR_WRITE), Ok(())];
        for (what, base, writes, end, answers) in [
            ("all is there", Base::of_size(3, 2), &[3][..], 3 * 4096, [Ok(()); 2]),
            ("a page is not", Base::of_size(2, 2), &[3], 3 * 4096, refused),
            ("a byte is", Base::of_size(2, 2), &[3], 2 * 4096 + 1, refused),
            ("of a new database", fresh, &[3], 3 * 4096, refused),
            ("its size is not known", unknown, &[3], 3 * 4096, [Ok(()); 2]),
            ("it was short before", Base::of_size(2, 3), &[4], 2 * 4096, [Ok(()); 2]),
            ("it is not needed", Base::of_size(2, 3), &[3, 2], 3 * 4096, [Ok(()); 2]),
            ("rolled back", Base::of_size(2, 2), &[3, 2], 3 * 4096, [Ok(()); 2]),
            ("rolled back, short before", Base::of_size(2, 3), &[4, 3], 4 * 4096, [Ok(()); 2]),
            ("no first page", Base::of_size(2, 2), &[], 3 * 4096, [Ok(()); 2]),
        ] {
            let counted = u64::from(answers[0].is_err());
            assert_eq!(commit(&base, writes, end), (answers, counted), "{what}");
        }
    }

    /// What another has left is rolled back, whatever becomes of that. In exclusive locking mode commits follow, with
    /// no lock taken in between.
    #[test]
    fn a_rollback_of_what_another_has_left_is_not_refused() {
        let (_place, database, mut guards) = board();
        let base = Base::of_size(2, 2);
        let write = |guards: &mut Guards| {
            guards.written().first_page(&header(3), || base.header);
            guards.written().wrote(0, 3 * 4096);
        };
        guards.written().begin_repair();
        write(&mut guards);
        assert_eq!(guards.before_commit(&base, &database), Ok(()));
        write(&mut guards);
        assert_eq!(guards.before_commit(&base, &database), Err(SQLITE_IOERR_WRITE));
        write(&mut guards);
        assert_eq!(guards.before_commit(&base, &database), Ok(()));
        write(&mut guards);
        guards.written().cut(2 * 4096);
        assert_eq!(guards.before_commit(&base, &database), Ok(()));
    }

    /// Whoever locks the file first finds it shorter than its header says: unless another VFS has it so.
    #[test]
    fn a_file_that_is_too_short_is_noticed() {
        let (_place, database, mut guards) = board();
        let below = Base { stands: Stands::Below, ..Base::of_size(2, 3) };
        guards.first_locked(&below, &database);
        assert_eq!((guards.deficit, guards.deficit()), (Some(0), None));

        let (_place, database, mut guards) = board();
        // There is a journal to roll it back.
        let journal = beside(database.path(), "-journal");
        fs::write(&journal, [0xd9]).expect("a file");
        guards.first_locked(&Base::of_size(2, 3), &database);
        assert_eq!(guards.deficit, None, "it is looked at again");
        // A zeroed one has nothing.
        fs::write(&journal, [0]).expect("a file");
        let mut wal = Base::of_size(2, 3);
        wal.header.as_mut().expect("it has one")[18..20].copy_from_slice(&[2, 2]);
        guards.first_locked(&wal, &database);
        assert_eq!(guards.deficit, None, "the WAL may have the rest");
        guards.first_locked(&Base::of_size(2, 3), &database);
        assert_eq!(guards.deficit(), Some(4096));
        guards.first_locked(&Base::of_size(3, 3), &database);
        assert_eq!(guards.deficit(), Some(4096), "when it was opened");

        let (_place, database, mut guards) = board();
        guards.first_locked(&Base::of_size(3, 3), &database);
        assert_eq!((guards.deficit, guards.deficit()), (Some(0), None));
    }

    /// A checkpoint makes the file as long as the header will say, before it writes that: unless it is too
    /// short already, which stays to be seen.
    #[test]
    fn the_file_is_made_long_enough_before_the_header_says_so() {
        let (_place, _database, mut guards) = board();
        for (size, old, new, calls) in [
            (1, 1, 3, &[WriteZeros(2 * 4096, 4096)][..]),
            (3, 1, 3, &[]),
            (4, 1, 3, &[]),
            (1, 2, 3, &[]),
        ] {
            let base = Base::of_size(size, old);
            guards.before_first_page(&base, &header(new), false);
            assert_eq!(*base.calls.borrow(), calls, "{size} pages, {old} by the header");
        }
        guards.stands = Stands::Below;
        let base = Base::of_size(1, 1);
        guards.before_first_page(&base, &header(3), false);
        assert_eq!(*base.calls.borrow(), [], "it is another's");
    }

    /// Where the file is kept ahead, it is made longer than the header will say, unless the last connection
    /// closes, which cuts it to that.
    #[test]
    fn the_file_is_ahead_until_the_last_close() {
        let (_place, database, mut guards) = board();
        guards.keep_ahead();
        let ahead = WriteZeros(3 * 4096 + 2 * 65536 - 4096, 4096);
        for (is_last, calls) in [(false, ahead), (true, WriteZeros(2 * 4096, 4096))] {
            let base = Base::of_size(1, 1);
            guards.before_first_page(&base, &header(3), is_last);
            assert_eq!(*base.calls.borrow(), [calls], "{is_last}");
        }
        let wal = beside(database.path(), "-wal");
        for (size, has_wal, calls) in
            [(20, true, &[][..]), (20, false, &[SetSize(3 * 4096)]), (3, false, &[])]
        {
            let _ = fs::remove_file(&wal);
            if has_wal {
                fs::write(&wal, "").expect("a file");
            }
            let base = Base::of_size(size, 3);
            guards.cut_to_header(&base, &database);
            assert_eq!(*base.calls.borrow(), calls, "{size} pages, WAL: {has_wal}");
        }
        // What a rollback may need stays.
        fs::write(beside(database.path(), "-journal"), "hot").expect("a file");
        let base = Base::of_size(20, 3);
        guards.cut_to_header(&base, &database);
        assert_eq!(*base.calls.borrow(), [], "the journal is hot");
    }

    /// A header that does not count the pages says nothing of the file's length, and what lies behind the last
    /// whole page is somebody's: nothing is written there.
    #[test]
    fn nothing_is_written_over_what_is_there() {
        let (_place, _database, mut guards) = board();
        for keeps_ahead in [false, true] {
            if keeps_ahead {
                guards.keep_ahead();
            }
            let mut uncounted = header(1);
            uncounted[92] ^= 1;
            let base = Base {
                sizes: RefCell::new(vec![Some(2 * 4096 + 100)]),
                header: Some(uncounted.first_chunk().copied().expect("a page")),
                ..Base::default()
            };
            guards.before_first_page(&base, &header(3), false);
            assert_eq!(*base.calls.borrow(), [], "{keeps_ahead}");
        }
    }

    /// Frames are in the index, and the WAL has none of them: nothing is read by them. While the WAL begins
    /// anew, that says nothing.
    #[test]
    fn an_index_that_speaks_of_another_wal_is_refused() {
        let (old, new) = ([1, 2], [3, 4]);
        for (frames, salts, answer) in [
            (&[(5, 0)][..], &[old][..], Err(SQLITE_READONLY_DBMOVED)),
            (&[(5, 0)], &[old, new], Ok(())),
            (&[(5, 0), (4, 0)], &[old], Ok(())),
            (&[(5, 0)], &[old, old, new], Ok(())),
            (&[(0, 0)], &[old], Ok(())),
        ] {
            let (_place, database, mut guards) = board();
            let base = Base::of_wal(frames, salts);
            assert_eq!(guards.first_read(&base, &database), answer, "{frames:?}, {salts:?}");
            assert_eq!(counted(&database.counters.displaced), u64::from(answer.is_err()));
            assert_eq!(guards.deficit, answer.ok().map(|()| 0));
            let why = answer.err().map(|_| Displaced::Moved("the WAL"));
            assert_eq!(guards.displaced(), why);
            if answer.is_ok() {
                let other = Base::of_wal(&[(5, 0)], &[old]);
                assert_eq!(guards.first_read(&other, &database), Ok(()), "only the first");
            }
        }
        // With nothing in the WAL the file must be whole, as in a rollback mode.
        let (_place, database, mut guards) = board();
        let empty = Base { frames: RefCell::new(vec![Some((0, 0))]), ..Base::of_size(2, 3) };
        assert_eq!(guards.first_read(&empty, &database), Ok(()));
        assert_eq!(guards.deficit(), Some(4096));
    }

    /// A WAL that is the one, by its salts and its length.
    #[test]
    fn an_index_that_speaks_of_its_wal_is_not_refused() {
        let (_place, database, mut guards) = board();
        let mut wal = vec![0; 32 + 5 * (512 + 24)];
        wal[8..12].copy_from_slice(&512_u32.to_be_bytes());
        wal[16..24].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        fs::write(beside(database.path(), "-wal"), wal).expect("a file");
        let salts = [[1, 0, 0, 0], [2, 0, 0, 0]].map(u32::from_ne_bytes);
        assert_eq!(guards.first_read(&Base::of_wal(&[(5, 0)], &[salts]), &database), Ok(()));
        assert_eq!(guards.deficit, Some(0));
    }

    /// Durability is given away by a pragma, in whatever spelling, and asked for again.
    #[test]
    fn pragmas_that_give_durability_away_are_noticed() {
        let (_place, _database, mut guards) = board();
        for (value, is_off) in [
            ("OFF", true),
            ("full", false),
            ("0", true),
            ("2", false),
            ("no", true),
            ("normal", false),
            ("false", true),
            ("", true),
            ("EXTRA", false),
        ] {
            guards.pragma(b"Synchronous", value.as_bytes());
            assert_eq!(guards.is_synchronous_off(), is_off, "{value}");
            guards.pragma(b"cache_size", b"0");
            assert_eq!(guards.is_synchronous_off(), is_off, "{value}");
        }
        for (value, mode) in [
            ("MEMORY", Some("memory")),
            ("wal", None),
            ("Off", Some("off")),
            ("", Some("off")),
            ("delete", None),
        ] {
            guards.pragma(b"Journal_Mode", value.as_bytes());
            assert_eq!(guards.journalless(), mode, "{value}");
            guards.pragma(b"locking_mode", b"off");
            assert_eq!(guards.journalless(), mode, "{value}");
        }
    }

    /// The first read transaction of a connection is looked at, and then one of so many.
    #[test]
    fn a_reader_is_looked_at_first_and_then_now_and_then() {
        let (_place, database, mut guards) = board();
        assert!(guards.count_read() && guards.count_read(), "until it was done");
        assert_eq!(guards.before_read(&database), Ok(()));
        assert!(guards.count_read(), "the file was not measured yet");
        guards.first_locked(&Base::of_size(1, 1), &database);
        assert_eq!(guards.before_read(&database), Ok(()));
        let until_then = (1..=LOOKS_AFTER).find(|_| guards.count_read());
        assert_eq!(until_then, Some(LOOKS_AFTER));
    }

    /// The database is moved away. In exclusive locking mode nothing is locked when a transaction begins: its
    /// COMMIT says so. In others that was looked at when it began, and is not a second time.
    #[test]
    fn a_commit_to_a_file_that_has_moved_is_told() {
        for (begins, ends, answer) in [
            (true, false, Ok(())),
            (true, true, Err(SQLITE_READONLY_DBMOVED)),
            (false, false, Err(SQLITE_READONLY_DBMOVED)),
        ] {
            let (place, database, mut guards) = board();
            if begins {
                assert_eq!(guards.before_write(sys::monotonic_ns(), &database), Ok(()));
            }
            if ends {
                guards.ended();
            }
            fs::rename(database.path(), place.path().join("moved")).expect("it is moved");
            assert_eq!(guards.after_commit(&database), answer, "{begins}, {ends}");
            assert_eq!(counted(&database.counters.displaced), u64::from(answer.is_err()));
            assert_eq!(guards.after_commit(&database), Err(SQLITE_READONLY_DBMOVED), "the next");
        }
    }

    /// Who only recovers or cleans up may do so by one of several names, and who writes may not.
    #[test]
    fn hard_links_keep_nobody_from_cleaning_up() {
        let (place, database, mut guards) = board();
        fs::hard_link(database.path(), place.path().join("second")).expect("a link");
        assert_eq!(guards.before_upkeep(sys::monotonic_ns(), &database), Ok(()));
        assert_eq!(guards.before_write(sys::monotonic_ns(), &database), Err(SQLITE_READONLY));
        fs::remove_file(database.path()).expect("it is removed");
        assert_eq!(
            guards.before_upkeep(sys::monotonic_ns(), &database),
            Err(SQLITE_READONLY_DBMOVED)
        );
    }
}

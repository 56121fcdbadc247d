//! The length of the database file, beside its header: [`crate::guard::file_length`] finds a write that was lost,
//! [`crate::guard::ahead`] keeps observers from seeing a tear where there is none.

use std::ffi::c_int;
use std::sync::Arc;
use std::time::Instant;

use super::super::base_file::{BaseFile, Stands};
use super::super::held::HeldSlots;
use super::surplus::Surplus;
use crate::counters::count;
use crate::ffi::{ResultCode, ShmSlot};
use crate::format::{Header, JOURNAL_SUFFIX, WAL_SUFFIX, beside, is_hot};
use crate::guard::ahead::{self, Ahead, Told};
use crate::guard::file_length::Written;
use crate::lock::Database;
use crate::log::Log;
use crate::recorder::event::EventKind;
use crate::sys;

/// The length of one connection's file.
pub(crate) struct Length<B: BaseFile> {
    pub(super) base: B,
    database: Arc<Database>,
    log: Log,
    /// By how many bytes the file was too short when the connection first locked it; `None` before.
    deficit: Option<i64>,
    written: Written,
    /// How many frames were copied when this checkpoint began to copy.
    copied: Option<u32>,
    /// `None` if the file is not kept ahead of its header.
    ahead: Option<Ahead>,
    /// The file length that SQLite was told.
    told: Told,
    /// When this connection last extended the file beyond what it wrote.
    grown: Option<Instant>,
    pub(super) stands: Stands,
}

impl<B: BaseFile> Length<B> {
    pub(super) fn new(base: B, database: Arc<Database>, log: Log, keeps_ahead: bool) -> Self {
        Self {
            base,
            database,
            log,
            deficit: None,
            written: Written::default(),
            copied: None,
            ahead: keeps_ahead.then(Ahead::default),
            told: Told::default(),
            grown: None,
            stands: Stands::Alone,
        }
    }

    /// By how many bytes the file was too short when the connection first locked it, if it was.
    pub(crate) fn deficit(&self) -> Option<i64> {
        self.deficit.filter(|missing| *missing > 0)
    }

    #[cfg(test)]
    pub(super) fn deficit_seen(&self) -> Option<i64> {
        self.deficit
    }

    /// Whether the connection has compared the file with its header, or need not do so.
    pub(super) fn is_measured(&self) -> bool {
        self.deficit.is_some()
    }

    #[cfg(test)]
    pub(super) fn keep_ahead(&mut self) {
        self.ahead = Some(Ahead::default());
    }

    /// The WAL has frames: the file may be shorter than its header says.
    pub(super) fn lags_rightly(&mut self) {
        self.deficit = Some(0);
    }

    pub(crate) fn stands(&self) -> Stands {
        self.stands
    }

    /// Looks where this VFS stands. Not while the connection closes.
    pub(crate) fn look_where_it_stands(&mut self) {
        self.stands = self.base.stands(self.database.path());
    }

    /// The connection's own writes while no other client may change the file's length.
    pub(crate) fn written(&mut self) -> &mut Written {
        &mut self.written
    }

    /// Compares the file with its header, and says so in the log if the file is too short. A journal may have the rest:
    /// then it looks again the next time.
    pub(super) fn measure(&mut self, header: Option<Header>) {
        let missing = header
            .filter(|_| self.stands != Stands::Below)
            .and_then(|header| header.deficit(self.base.size().ok()?));
        let journal = || is_hot(&beside(self.database.path(), JOURNAL_SUFFIX));
        if missing.is_some() && journal().unwrap_or(true) {
            return;
        }
        self.deficit = Some(missing.unwrap_or(0));
        if let Some(missing) = missing {
            let what = format!(
                "the file is {missing} bytes shorter than its header says; something cut it short; \
                 restore it from a backup"
            );
            self.database.tell(&self.log, EventKind::Guard, ResultCode::CORRUPT, &what);
        }
    }

    /// FCNTL_SYNC in a rollback mode: a transaction has written all and not committed yet, or a
    /// rollback is complete.
    ///
    /// # Errors
    /// SQLITE_IOERR_WRITE: a write of this transaction that extended the file was lost. SQLite rolls back, which is not
    /// refused.
    pub(crate) fn before_commit(&mut self) -> Result<(), ResultCode> {
        let torn = self.written.torn(|| self.base.size().ok());
        self.written.synced(torn.is_some());
        match torn {
            None => Ok(()),
            Some(missing) => {
                let consequence = "the transaction is rolled back";
                Err(self.refuse(missing, ResultCode::IOERR_WRITE, consequence))
            }
        }
    }

    /// xWrite, of the first page by a checkpoint. Before the new header is written, makes the file as long as that
    /// header says, and longer, unless the file is too short already. Then waits for observers that may have seen the
    /// old length. The wait is shorter if the checkpoint `is_last`, of a connection that closes.
    ///
    /// # Errors
    /// The file cannot be extended: SQLITE_FULL without room, else what the base file answered.
    /// SQLite ends the checkpoint, and the WAL keeps all frames.
    pub(crate) fn before_first_page(
        &mut self,
        header: &Header,
        is_last: bool,
    ) -> Result<(), ResultCode> {
        let base = self.base;
        self.told.forget();
        if self.stands == Stands::Below {
            return Ok(());
        }
        let lengths = header.length().zip(header.page_size());
        let (Some((length, page)), Ok(size)) = (lengths, base.size()) else { return Ok(()) };
        let Some(old) = base.header() else { return Ok(()) };
        if old.deficit(size).is_some() {
            return Ok(());
        }
        // Without a page count in the old header only the file's own length says how long the database is.
        let Some(old) = old.length() else { return Ok(()) };
        let growth = match self.ahead.as_mut().filter(|_| !is_last) {
            Some(ahead) => ahead.before_header(size, old, length),
            None => (size < length).then_some(length),
        };
        if let Some(to) = growth {
            let grown = self.extend(size, to, page);
            let grown = grown.or_else(|_| self.extend(size, length, page));
            if let Some(rc) = grown.err().filter(|_| size < length) {
                return Err(self.cannot_grow(length, rc));
            }
        }
        let pause = if is_last { ahead::PAUSE_AT_CLOSE } else { ahead::PAUSE };
        if let Some(grown) = self.grown.take().filter(|_| self.ahead.is_some()) {
            std::thread::sleep(pause.saturating_sub(grown.elapsed()));
        }
        Ok(())
    }

    /// xTruncate by a checkpoint that has written all and sets the file's length to `size` by
    /// `truncate`. Before that, the file must be long enough for what was written; afterwards, as
    /// long as was set. `in_wal_mode` the file stays ahead of its header, with zeros behind `size`,
    /// unless the checkpoint `is_last`, of a connection that closes.
    ///
    /// # Errors
    /// SQLITE_IOERR_TRUNCATE: writes that extended the file were lost. The WAL keeps all frames.
    pub(crate) fn truncate_after_checkpoint(
        &mut self,
        size: i64,
        in_wal_mode: bool,
        is_last: bool,
        truncate: impl FnOnce(i64) -> ResultCode,
    ) -> ResultCode {
        const CONSEQUENCE: &str =
            "nothing is taken out of the WAL; see to the disk, then run the checkpoint again";
        let now = self.base.size().ok();
        if let Some(missing) = now.and_then(|now| self.written.lost(now, size)) {
            return self.refuse(missing, ResultCode::IOERR_TRUNCATE, CONSEQUENCE);
        }
        let keeps = in_wal_mode && !is_last && self.stands != Stands::Below;
        let to = match now.filter(|now| keeps && *now > size) {
            Some(now) => self.stays_ahead(now, size).unwrap_or(size),
            None => size,
        };
        if now == Some(to) && to > size {
            return ResultCode::OK;
        }
        // A write that is cut off here is not lost.
        self.written.cut(to);
        let rc = truncate(to);
        if rc != ResultCode::OK {
            return rc;
        }
        let cut = self.base.size().ok();
        if let Some(ahead) = self.ahead.as_mut().filter(|_| to > size && cut == now) {
            ahead.stays_long = true;
        }
        match cut.map(|now| to - now).filter(|missing| *missing > 0) {
            Some(missing) => self.refuse(missing, ResultCode::IOERR_TRUNCATE, CONSEQUENCE),
            None => rc,
        }
    }

    /// The length that a file of `now` bytes gets if its database has `size`; clears the bytes
    /// behind `size`. `None` if SQLite decides: the file is not kept ahead, or this fails.
    fn stays_ahead(&mut self, now: i64, size: i64) -> Option<i64> {
        let ahead = self.ahead.as_mut().filter(|ahead| !ahead.stays_long)?;
        let header = self.base.header()?;
        let (length, page) = header.length().zip(header.page_size())?;
        let cut = ahead.after_checkpoint(now, length).map(|to| to.max(size));
        Surplus { base: self.base, from: size, to: cut.unwrap_or(now), page }.clear().ok()?;
        if cut.is_some() {
            // An observer may have read the old header, and read the file's length next.
            std::thread::sleep(ahead::PAUSE);
        }
        Some(cut.unwrap_or(now))
    }

    /// Makes the file `to` bytes long by writing a page of zeros at its end, never over existing
    /// bytes. If the disk has no room for the page, sets the length, which needs none.
    ///
    /// # Errors
    /// SQLITE_FULL: a limit forbids this process files of that size. Else what the base file
    /// answered.
    fn extend(&mut self, size: i64, to: i64, page: i64) -> Result<(), ResultCode> {
        if to - page < size {
            return Ok(());
        }
        if !may_grow(to) {
            return Err(ResultCode::FULL);
        }
        if let Err(rc) = self.base.write_zeros(to - page, page) {
            self.base.set_size(to);
            if self.base.size().is_ok_and(|size| size < to) {
                return Err(rc);
            }
        }
        self.written.wrote(to, 0);
        self.grown = Some(Instant::now());
        Ok(())
    }

    /// Logs that the file cannot be made `length` bytes long, and returns `rc`.
    fn cannot_grow(&self, length: i64, rc: ResultCode) -> ResultCode {
        let remedy = match rc == ResultCode::FULL {
            true => "the disk is full, or this process may write no such file; make room",
            false => "it cannot be written; see to the disk",
        };
        let what = format!(
            "the file cannot be made {length} bytes long: {remedy}, then run the checkpoint again; the WAL keeps all until then"
        );
        self.database.tell(&self.log, EventKind::Guard, rc, &what);
        rc
    }

    /// Whether this connection keeps the file ahead of its header, and so takes a file that is
    /// ahead for a sound one.
    fn may_be_ahead(&self) -> bool {
        self.ahead.is_some() && self.stands != Stands::Below
    }

    /// The length that SQLite is told for a file of `size` bytes, if nothing has changed since the
    /// last time.
    pub(crate) fn known_length(&self, size: i64, checksum: u32) -> Option<i64> {
        self.told.known(size, checksum)
    }

    /// The length that SQLite is told for a file of `size` bytes. While the WAL counts no pages,
    /// SQLite takes the page count from this length. So if the file is ahead, that is the length by
    /// the header. Otherwise a commit would count the distance, too. If another client then cut the
    /// file, SQLite would call it malformed at each checkpoint, and keep the WAL.
    pub(crate) fn without_distance(&mut self, size: i64) -> i64 {
        let Some(checksum) = self.base.checksum_without_commit() else { return size };
        let length = if self.may_be_ahead() { self.length_below_zeros(size) } else { None };
        self.told.read(size, checksum, length)
    }

    /// The length by the header of a file of `size` bytes, if only zeros lie behind that length.
    /// With anything else there, the file is not ahead but its header is wrong, like that of a torn
    /// copy (which may end with zeros if the database was ahead). A checkpoint clears pages that
    /// SQLite does not count, so SQLite must count all that can be salvaged.
    fn length_below_zeros(&self, size: i64) -> Option<i64> {
        let base = self.base;
        let header = base.header()?;
        let (length, page) = header.length().zip(header.page_size())?;
        let surplus = Surplus { base, from: length, to: size, page };
        (size > length && surplus.zeros_from() == Ok(length)).then_some(length)
    }

    /// A checkpoint or a recovery has CKPT, and has written nothing yet.
    pub(crate) fn checkpoint_begins(&mut self) {
        self.written.begin();
        self.told.forget();
    }

    /// A checkpoint holds READ(0), and copies frames next.
    pub(crate) fn backfill_begins(&mut self) {
        self.copied = self.base.frames().map(|(_, copied)| copied);
    }

    /// A checkpoint is about to unlock READ(0). If a reader has kept it from copying all frames, it
    /// has not set the file's length, but SQLite has noted in the wal-index how many it copied. If
    /// some of these writes were lost, this sets the number back.
    pub(crate) fn backfill_ends(&mut self) {
        let Some(copied) = self.copied.take() else { return };
        if self.base.frames().is_none_or(|(_, now)| now == copied) {
            return;
        }
        let lost = self.base.size().ok().and_then(|size| self.written.lost(size, i64::MAX));
        if let Some(missing) = lost {
            self.base.set_copied(copied);
            let consequence = "nothing counts as taken out of the WAL; see to the disk";
            self.refuse(missing, ResultCode::IOERR_WRITE, consequence);
        }
    }

    /// Whether [`Self::get_ahead`] has something to do.
    pub(crate) fn is_behind(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| !ahead.has_begun)
    }

    /// The first write transaction of this connection in WAL mode holds WRITE. Makes the file
    /// longer than its header says before there is anything to copy, so that the first checkpoint
    /// need not wait for observers. Only under CKPT, since a checkpoint may write where the file
    /// ends. With `blocks_ms`, lock calls may block for that long; the one for CKPT must not.
    #[cold]
    pub(crate) fn get_ahead(&mut self, blocks_ms: c_int) {
        let base = self.base;
        let Some(ahead) = self.ahead.as_mut().filter(|_| self.stands != Stands::Below) else {
            return;
        };
        // While the WAL is empty, SQLite takes the page count from the file's length: left to the
        // next transaction.
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
        base.without_blocking(blocks_ms, || {
            let Ok(_ckpt) = HeldSlots::lock(base, ShmSlot::CKPT, &self.log) else { return };
            if let Some((to, page)) = wanted(ahead).filter(|(to, _)| may_grow(*to)) {
                if base.write_zeros(to - page, page).is_ok() {
                    self.grown = Some(Instant::now());
                }
            }
        });
    }

    /// The wal-index was unmapped: at the next use the file is made longer again.
    pub(super) fn wal_closed(&mut self) {
        self.told.forget();
        if let Some(ahead) = &mut self.ahead {
            ahead.has_begun = false;
        }
    }

    /// The last connection has closed the WAL, or has left WAL mode, and is about to unlock the
    /// database. If the WAL is gone, the file gets the length that its header says, whichever
    /// connection has made it longer.
    pub(crate) fn cut_to_header(&self) {
        if self.stands == Stands::Below {
            return;
        }
        // Frames that are still there may count more pages.
        let wal = beside(self.database.path(), WAL_SUFFIX);
        if !sys::entry_at(&wal).is_err_and(|why| sys::is_absent(&why)) {
            return;
        }
        self.cut();
    }

    /// EXCLUSIVE was taken without RESERVED and without a wal-index: to roll back, or, in exclusive
    /// locking mode, to open the WAL, whose index is then in SQLite's own memory. If the WAL is
    /// empty, SQLite takes the page count from the file's length next. That call looks like any
    /// other ([`Self::without_distance`]). But no other client has the database open, so a file
    /// that is ahead is cut.
    pub(crate) fn cut_before_wal(&self) {
        if !self.may_be_ahead() {
            return;
        }
        if !self.base.header().is_some_and(|header| header.is_wal()) {
            return;
        }
        let wal = beside(self.database.path(), WAL_SUFFIX).symlink_metadata();
        if wal.map_or_else(|why| sys::is_absent(&why), |wal| wal.len() == 0) {
            self.cut();
        }
    }

    /// Cuts zeros off the file's end, down to the length that its header says, if no rollback may
    /// need the rest. Only with EXCLUSIVE.
    fn cut(&self) {
        let base = self.base;
        let lengths = base.header().and_then(|header| header.length().zip(header.page_size()));
        let (Some((from, page)), Ok(to)) = (lengths, base.size()) else { return };
        // Before a rollback the header may be wrong, and the pages behind its length needed.
        if to <= from || is_hot(&beside(self.database.path(), JOURNAL_SUFFIX)).unwrap_or(true) {
            return;
        }
        // Other bytes than zeros are not from this VFS: the header may be wrong, like that of a
        // copy made while the database was written.
        if let Ok(zeros) = (Surplus { base, from, to, page }).zeros_from() {
            if zeros < to {
                base.set_size(zeros);
            }
        }
    }

    /// Counts and logs a write that was lost, and returns `rc`.
    fn refuse(&self, missing: i64, rc: ResultCode, consequence: &str) -> ResultCode {
        count(&self.database.counters.short_files);
        let what = format!(
            "the file is {missing} bytes too short: a write was lost on its way to the disk; \
             {consequence}"
        );
        self.database.tell(&self.log, EventKind::Guard, rc, &what);
        rc
    }
}

/// Whether this process may write files of `to` bytes (setrlimit(2), RLIMIT_FSIZE).
fn may_grow(to: i64) -> bool {
    sys::file_size_limit().is_none_or(|limit| to <= limit)
}

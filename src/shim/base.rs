//! The base's file of a database, as its connection uses it: [`Base`].

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::methods::{Interposed, call};
use super::seen::Seen;
use super::wal::{OpenWal, WalWriter, Wanted};
use super::{Context, OpenDatabase};
use crate::connection::{
    BaseFile, Connection, Doing, LastCommit, Running, Sought, Stands, begins_with, unlock,
};
use crate::ffi::host::{Host, RunningStatement};
use crate::ffi::{
    BusyCall, LockLevel, ResultCode, SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_HAS_MOVED,
    SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_FCNTL_LOCK_TIMEOUT, SQLITE_FCNTL_PERSIST_WAL, ShmFlags,
    ShmSlot, ShmSlots, TransactionState, copies, sqlite3, sqlite3_file,
};
use crate::format::wal_index::{
    CHANGE, CHECKSUM, HEADERS, HeaderMark, MX_FRAME, N_BACKFILL, N_BACKFILL_ATTEMPTED, N_PAGE,
    READ_MARKS, REGION, SALT,
};
use crate::format::{Header, Salts};
use crate::group_commit::WalIndex;
use crate::guard::cancellation::Protected;
use crate::lock::kinds::Kind;
use crate::lock::wait::Probe;
use crate::sys;

/// The state of an open main database. While a method of ours runs, the connection is borrowed; the
/// other fields may be used.
pub(super) struct State {
    pub(super) connection: Connection<Base>,
    /// The name that SQLite has passed to xOpen, to compare.
    pub(super) name: *const c_char,
    /// The first statements of transactions.
    pub(super) seen: Seen,
    /// How to call the connection's busy handler; null if SQLite has not said.
    pub(super) busy: *const BusyCall,
    /// Where SQLite keeps the address of the connection that uses the file; null if SQLite has not
    /// said.
    pub(super) db: *const *mut sqlite3,
    /// The first region of the wal-index, as SQLite has mapped it; null while it has not. A VFS
    /// does not move the region before xShmUnmap: SQLite keeps the address, too.
    pub(super) wal_index: *const c_void,
    /// Present with group commit.
    pub(super) wanted: Option<Wanted>,
    /// Dropped after the base has closed the file.
    pub(super) _protected: Option<Protected>,
    /// Dropped last, so that only then the VFS may be unregistered.
    pub(super) counted: OpenDatabase,
}

/// The base's file under a database of ours, whose state is a [`State`].
#[derive(Clone, Copy)]
pub(super) struct Base(pub(super) Interposed);

/// The base's file, and the connection.
///
/// # Safety
/// `file` is an open database that [`super::install_database`] has opened, and no other reference to its connection is
/// alive. (SQLite uses a file from one thread at a time.)
pub(super) unsafe fn parts<'f>(file: *mut sqlite3_file) -> (Base, &'f mut Connection<Base>) {
    // SAFETY: the caller's promise: an open database has our table, and a `State`.
    unsafe {
        let base = Base(Interposed::of(file));
        (base, &mut (*base.state()).connection)
    }
}

impl Base {
    /// The state of the file, which is there from [`super::install_database`] until xClose.
    pub(super) fn state(self) -> *mut State {
        // SAFETY: a `Base` is used between these two only, and of no file but a database.
        unsafe { self.0.state() }
    }

    /// Notes where SQLite keeps the address of the connection (FCNTL_PDB).
    pub(super) fn set_db(self, place: *const *mut sqlite3) {
        // SAFETY: the state is there, and nothing has a reference to this field.
        unsafe { (*self.state()).db = place };
    }

    /// Notes how to call the connection's busy handler (FCNTL_BUSYHANDLER).
    pub(super) fn set_busy_call(self, call: *const BusyCall) {
        // SAFETY: the state is there, and nothing has a reference to this field.
        unsafe { (*self.state()).busy = call };
    }

    /// The functions of the connection's SQLite, with those of newer versions if SQLite has passed
    /// them.
    fn host(self) -> &'static Host {
        copies::most_of(&self.context().host)
    }

    /// The connection that uses the file; `None` if SQLite has not said.
    #[inline]
    fn db(self) -> Option<*mut sqlite3> {
        // SAFETY: the state is there, and what FCNTL_PDB has passed is valid while the file is open.
        let db = unsafe { *(*self.state()).db.as_ref()? };
        if db.is_null() { None } else { Some(db) }
    }

    /// The state of the connection's transaction; `None` if that is not known.
    fn transaction(self) -> Option<TransactionState> {
        // SAFETY: the connection is of this SQLite, and is the one that calls.
        self.db().and_then(|db| unsafe { self.host().transaction(db) })
    }

    /// The context of the VFS that the file was opened through.
    pub(super) fn context(self) -> &'static Context {
        // SAFETY: the state is there, and this field never changes.
        unsafe { (*self.state()).counted.context() }
    }

    /// xFileControl of the base.
    pub(super) fn file_control(self, op: c_int, arg: *mut c_void) -> ResultCode {
        call!(self.0, xFileControl, ResultCode::NOTFOUND, op, arg)
    }

    /// xFileControl of the base, with a number, which it may change.
    fn control_number(self, op: c_int, number: &mut c_int) -> ResultCode {
        self.file_control(op, std::ptr::from_mut(number).cast())
    }

    /// Asks the base to keep the WAL when the last connection closes.
    pub(super) fn persist_wal(self) {
        self.control_number(SQLITE_FCNTL_PERSIST_WAL, &mut 1);
    }

    /// Whether the file is no longer the one that its name leads to, as far as the base knows.
    pub(super) fn has_moved(self) -> bool {
        let mut moved = 0;
        self.control_number(SQLITE_FCNTL_HAS_MOVED, &mut moved) == ResultCode::OK && moved != 0
    }

    /// The words of the first region of the wal-index; `None` if SQLite has not mapped it. Use them
    /// only before SQLite's current call returns.
    ///
    /// [`BaseFile::salts`] needs it, while WRITE is locked, only with CKPT. It is inlined
    /// nevertheless: as a call, it would cost each write transaction an instruction.
    #[inline(always)]
    fn wal_index(&self) -> Option<&[AtomicU32; REGION as usize / 4]> {
        // SAFETY: the state is there, and nothing has a reference to this field. The base has mapped that many bytes, aligned
        // to a page of memory, and they stay mapped until xShmUnmap, which is another call and forgets them first. Other
        // processes change them at any time, which atomics allow for.
        unsafe { (*self.state()).wal_index.cast::<[AtomicU32; REGION as usize / 4]>().as_ref() }
    }

    /// The checksum of the wal-index's header; `None` if SQLite has not mapped it.
    pub(super) fn wal_index_checksum(self) -> Option<u32> {
        self.words([CHECKSUM]).map(|[checksum]| checksum)
    }

    /// Notes where xShmMap has mapped the first region of the wal-index, of `size` bytes.
    pub(super) fn wal_index_mapped(self, region: *const c_void, size: c_int) {
        if size >= REGION {
            // SAFETY: the state is there, and nothing has a reference to this field.
            unsafe { (*self.state()).wal_index = region };
        }
    }

    /// Forgets the region, which xShmUnmap is about to unmap.
    pub(super) fn wal_index_unmapping(self) {
        // SAFETY: as above.
        unsafe { (*self.state()).wal_index = std::ptr::null() };
    }

    /// These words of the wal-index; `None` if SQLite has not mapped it.
    fn words<const N: usize>(&self, words: [usize; N]) -> Option<[u32; N]> {
        let index = self.wal_index()?;
        Some(words.map(|n| index[n].load(Ordering::Relaxed)))
    }

    /// The WAL that the connection has open, if group commit is on and this file is its main
    /// database, by name, too: for an attached database SQLite may ignore the answer to
    /// FCNTL_COMMIT_PHASETWO. Call this while the connection is about to read: when it closes, the
    /// mutexes that SQLite takes to answer may be gone.
    pub(super) fn wal(self) -> Option<OpenWal> {
        // SAFETY: the state is there, and this field never changes.
        let database = unsafe { (*self.state()).wanted.as_ref() }?.database();
        let (host, db) = (&self.context().host, self.db()?);
        // SAFETY: the connection is the one that calls, of the SQLite that this VFS is registered with. The WAL is open
        // until the wal-index is unmapped.
        unsafe {
            // With a shared cache, SQLite would lock the cache of another database, in any order.
            if sys::path_from(host.file_of(db, c"main")?) != database {
                return None;
            }
            if pointer(host, db, c"main", SQLITE_FCNTL_FILE_POINTER)? != self.0.file {
                return None;
            }
            OpenWal::new(pointer(host, db, c"main", SQLITE_FCNTL_JOURNAL_POINTER)?)
        }
    }
}

/// The file of a database, or its journal or WAL, from a control that SQLite answers itself without
/// the VFS.
///
/// # Safety
/// `db` is a connection of `host`, used by this thread; `op` asks for a place for an address.
unsafe fn pointer(
    host: &Host,
    db: *mut sqlite3,
    schema: &CStr,
    op: c_int,
) -> Option<*mut sqlite3_file> {
    let mut file: *mut sqlite3_file = std::ptr::null_mut();
    // SAFETY: the caller's promise: the connection calls, and there is a place for the address.
    let rc = unsafe { host.file_control(db, schema, op, std::ptr::from_mut(&mut file).cast()) };
    (rc == ResultCode::OK).then_some(file)
}

impl WalIndex for Base {
    type Wal = OpenWal;

    fn committed(&self) -> Option<(Salts, u32)> {
        let [frames, salt, next] = self.words([MX_FRAME, SALT, SALT + 1])?;
        Some(([salt, next], frames))
    }

    fn committer(&self) -> Option<WalWriter> {
        Some(WalWriter { db: self.db()?, host: &self.context().host })
    }
}

impl BaseFile for Base {
    fn probe(&self, lock: Sought) -> Probe {
        struct OfConnection(Base);
        // SAFETY: the probe is called under a mutex, which the connection holds while it unlocks, and
        // under which it drops the probe before it locks or closes the file.
        unsafe impl Send for OfConnection {}
        let file = OfConnection(*self);
        Box::new(move || {
            let base = { &file }.0;
            match lock {
                Sought::Write => {
                    let slot = ShmSlot::WRITE.into();
                    let rc = base.shm_lock(slot, ShmFlags::LOCK_EXCLUSIVE);
                    if rc == ResultCode::OK {
                        unlock(|| base.shm_lock(slot, ShmFlags::UNLOCK_EXCLUSIVE));
                    }
                    !rc.is_busy()
                }
                Sought::Database(LockLevel::RESERVED) => !base.is_reserved(),
                Sought::Database(level) => {
                    let rc = base.lock(level);
                    if rc == ResultCode::OK && level == LockLevel::SHARED {
                        unlock(|| base.unlock(LockLevel::NONE));
                    }
                    !rc.is_busy()
                }
            }
        })
    }

    fn is_upgrade(&self) -> bool {
        self.transaction().is_none_or(|state| state != TransactionState::NONE)
    }

    fn only_reads(&self) -> bool {
        self.transaction() == Some(TransactionState::READ)
    }

    fn statement(&self) -> Option<String> {
        const MOST: usize = 400;
        let tell = |statement: RunningStatement<'_>| {
            let text = statement.text.to_bytes();
            String::from_utf8_lossy(&text[..text.len().min(MOST)]).into()
        };
        // SAFETY: the connection is the one that calls, so no other thread uses its statements.
        unsafe { self.context().host.running(self.db()?, tell) }
    }

    #[inline(always)]
    fn last_commit(&self) -> LastCommit {
        let Some(index) = self.wal_index() else { return LastCommit::default() };
        let [change, frames] = [CHANGE, MX_FRAME].map(|n| index[n].load(Ordering::Relaxed));
        LastCommit { change, frames }
    }

    fn meant_to_copy(&self) -> Option<u32> {
        self.words([N_BACKFILL_ATTEMPTED]).map(|[frames]| frames)
    }

    fn is_in_autocommit(&self) -> bool {
        // SAFETY: the connection is of the SQLite that this VFS is registered with, and is the one that calls.
        self.db().is_none_or(|db| unsafe { self.context().host.is_in_autocommit(db) })
    }

    fn user(&self) -> usize {
        self.db().map_or(0, <*mut sqlite3>::addr)
    }

    fn is_main(&self) -> bool {
        let Some(db) = self.db() else { return false };
        // An attached database has its own name, even if it is the same file.
        // SAFETY: the connection is of this SQLite, and is the one that calls; the state is there, and this field never changes.
        let is_main = unsafe {
            let main = self.host().file_of(db, c"main");
            main.is_some_and(|main| main.as_ptr() == (*self.state()).name)
        };
        if is_main {
            // SAFETY: the state is there, and nothing has a reference to this field.
            unsafe { (*self.state()).seen.main_of = db.addr() };
        }
        is_main
    }

    fn is_writing(&self) -> bool {
        self.transaction().is_none_or(|state| state == TransactionState::WRITE)
    }

    fn writes_elsewhere(&self) -> bool {
        // SAFETY: the connection is of this SQLite, and is the one that calls.
        let attached = self.db().and_then(|db| unsafe { self.host().writes_to_attached(db) });
        attached.unwrap_or_else(|| self.transaction() == Some(TransactionState::WRITE))
    }

    fn running(&self, wants_kind: bool) -> Option<Running> {
        let tell = |statement: RunningStatement<'_>| {
            let text = statement.text.to_bytes();
            Running {
                is_vacuum: begins_with(text, b"vacuum"),
                may_write: statement.may_write(),
                // SAFETY: the state is there, and nothing has a reference to this field.
                kind: wants_kind.then(|| unsafe { (*self.state()).seen.kind_of(&statement) }),
            }
        };
        // SAFETY: the connection is the one that calls, so no other thread uses its statements.
        unsafe { self.context().host.running(self.db()?, tell) }
    }

    #[inline(always)]
    fn known_kind(&self) -> Option<Kind> {
        let db = self.db()?;
        // SAFETY: the state is there, and nothing changes this field in here. The connection is the one that calls, so no
        // other thread uses its statements.
        unsafe {
            let seen = &(*self.state()).seen;
            let is_main = seen.main_of == db.addr();
            let known = |statement: RunningStatement<'_>| seen.known(&statement);
            if is_main { self.context().host.running(db, known)? } else { None }
        }
    }

    fn ask_busy_handler(&self) -> Option<bool> {
        // SAFETY: the state is there, and SQLite keeps what FCNTL_BUSYHANDLER has passed while the
        // file is open. The busy handler is called within a lock call, as SQLite allows, and must
        // not use this connection (sqlite.org/c3ref/busy_handler.html).
        unsafe {
            let BusyCall { function, argument } = *(*self.state()).busy.as_ref()?;
            Some(function?(argument) != 0)
        }
    }

    fn is_interrupted(&self) -> bool {
        // SAFETY: the connection is open.
        self.db().is_some_and(|db| unsafe { self.host().is_interrupted(db) })
    }

    fn wal_index_mark(&self) -> Option<HeaderMark> {
        self.words([CHANGE, MX_FRAME, CHECKSUM, CHECKSUM + 1])
    }

    fn doing(&self) -> Option<Doing> {
        let changes_mode = |text: &[u8]| {
            let has =
                |word: &[u8]| text.windows(word.len()).any(|at| at.eq_ignore_ascii_case(word));
            has(b"pragma") && has(b"journal_mode") && has(b"wal")
        };
        let (host, db) = (&self.context().host, self.db()?);
        let mut doing = Doing { is_in_transaction: !self.is_in_autocommit(), ..Doing::default() };
        // SAFETY: the connection is the one that calls, so no other thread uses its statements; nor does the loop.
        for statement in unsafe { host.statements(db) } {
            // ATTACH only reads the schema, like a statement that is being compiled.
            let reads_schema = |text| statement.runs && begins_with(text, b"attach");
            doing.compiles |= statement.text.is_none_or(reads_schema);
            doing.runs |= statement.runs;
            doing.writes |= statement.runs && statement.may_write;
            if statement.text.is_none_or(changes_mode) {
                let runs = statement.runs && statement.text.is_some();
                doing.changes_mode = Some(runs || doing.changes_mode == Some(true));
            }
        }
        Some(doing)
    }

    fn lock(&self, level: LockLevel) -> ResultCode {
        call!(self.0, xLock, ResultCode::IOERR_LOCK, level)
    }

    fn unlock(&self, level: LockLevel) -> ResultCode {
        call!(self.0, xUnlock, ResultCode::IOERR, level)
    }

    fn is_reserved(&self) -> bool {
        let mut is_reserved = 0;
        let rc = call!(self.0, xCheckReservedLock, ResultCode::IOERR, &raw mut is_reserved);
        rc == ResultCode::OK && is_reserved != 0
    }

    fn shm_lock(&self, slots: ShmSlots, flags: ShmFlags) -> ResultCode {
        call!(self.0, xShmLock, ResultCode::IOERR_LOCK, slots.first, slots.n, flags)
    }

    fn may_block(&self, mut ms: c_int) {
        self.control_number(SQLITE_FCNTL_LOCK_TIMEOUT, &mut ms);
    }

    fn size(&self) -> Result<i64, ResultCode> {
        let mut size = 0;
        call!(self.0, xFileSize, ResultCode::IOERR, &raw mut size).ok()?;
        Ok(size)
    }

    fn frames(&self) -> Option<(u32, u32)> {
        let [frames, copied] = self.words([MX_FRAME, N_BACKFILL])?;
        Some((frames, copied))
    }

    fn salts(&self) -> Option<Salts> {
        self.words([SALT, SALT + 1])
    }

    fn checksum_without_commit(&self) -> Option<u32> {
        let [pages, checksum] = self.words([N_PAGE, CHECKSUM])?;
        (pages == 0).then_some(checksum)
    }

    fn header(&self) -> Option<Header> {
        let mut header = Header([0; Header::SIZE]);
        let into = header.0.as_mut_ptr().cast();
        let bytes = Header::SIZE as c_int;
        let rc = call!(self.0, xRead, ResultCode::IOERR, into, bytes, 0);
        (rc == ResultCode::OK).then_some(header)
    }

    fn set_copied(&self, frames: u32) {
        if let Some(index) = self.wal_index() {
            index[N_BACKFILL].store(frames, Ordering::SeqCst);
        }
    }

    fn clear_wal_index(&self) {
        for word in self.wal_index().iter().flat_map(|index| &index[..HEADERS]) {
            word.store(0, Ordering::SeqCst);
        }
    }

    fn read_mark(&self, n: c_int) -> Option<u32> {
        let n = usize::try_from(n).ok()?;
        self.words([READ_MARKS + n]).map(|[mark]| mark)
    }

    fn write_zeros(&self, at: i64, bytes: i64) -> Result<(), ResultCode> {
        // On the heap, since the buffer must be writable: SQLite's checksum VFS puts its checksum
        // into the buffer that it gets.
        let mut zeros = vec![0_u8; usize::try_from(bytes).unwrap_or(0)];
        let from = zeros.as_mut_ptr().cast_const().cast();
        let bytes = c_int::try_from(zeros.len()).unwrap_or(0);
        call!(self.0, xWrite, ResultCode::IOERR, from, bytes, at).ok()
    }

    fn read(&self, at: i64, into: &mut [u8]) -> Result<(), ResultCode> {
        let bytes = c_int::try_from(into.len()).unwrap_or(0);
        match call!(self.0, xRead, ResultCode::IOERR, into.as_mut_ptr().cast(), bytes, at) {
            ResultCode::IOERR_SHORT_READ => Ok(()),
            rc => rc.ok(),
        }
    }

    fn set_size(&self, bytes: i64) {
        call!(self.0, xTruncate, ResultCode::IOERR_TRUNCATE, bytes);
    }

    fn stands(&self, path: &Path) -> Stands {
        let host = self.host();
        // SQLite tells a file its connection as soon as the file is open (FCNTL_PDB); another VFS
        // may not pass that on.
        // SAFETY: the connection is of this SQLite, and is the one that calls.
        let is_called_by_sqlite = self.db().is_some_and(|db| unsafe {
            host.has_database_that(db, path, |schema| {
                pointer(host, db, schema, SQLITE_FCNTL_FILE_POINTER)
                    .is_none_or(|file| file == self.0.file)
            })
        });
        match is_called_by_sqlite {
            false => Stands::Below,
            true if self.context().is_over_system => Stands::Alone,
            true => Stands::Above,
        }
    }
}

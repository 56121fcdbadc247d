//! The methods we replace, as C calls them. What they do is in [`super::connection`].

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::wal::{Client, OpenWal};
use super::{Context, FCNTL_OPENED, Kind, Methods, Opened, State, closing, inherited, state_slot};
use crate::connection::{BaseFile, Connection, Doing, Sought, Stands, UNENCRYPTED, status, unlock};
use crate::ffi::{
    LockLevel, ResultCode, SQLITE_FCNTL_COMMIT_PHASETWO, SQLITE_FCNTL_FILE_POINTER,
    SQLITE_FCNTL_HAS_MOVED, SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_FCNTL_LOCK_TIMEOUT,
    SQLITE_FCNTL_PDB, SQLITE_FCNTL_PERSIST_WAL, SQLITE_FCNTL_PRAGMA,
    SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE, SQLITE_FCNTL_SYNC, SQLITE_FCNTL_VFSNAME, ShmFlags, ShmSlot,
    ShmSlots, copies, no_panic, sqlite3, sqlite3_file, sqlite3_io_methods,
};
use crate::format::wal_index::{HEADERS, MX_FRAME, N_BACKFILL, READ_MARKS, REGION, SALT};
use crate::format::{Header, Salts};
use crate::group_commit::{self, WalIndex};
use crate::lock::wait::Probe;
use crate::options::Settings;
use crate::sys;

/// A copy of `base` with our methods where the base has any. Without a wal-index, SQLite refuses
/// WAL mode.
pub(super) fn over(base: &sqlite3_io_methods, has_wal_index: bool) -> sqlite3_io_methods {
    let mut ours = sqlite3_io_methods {
        xClose: Some(x_close),
        xWrite: base.xWrite.and(Some(x_write)),
        xTruncate: base.xTruncate.and(Some(x_truncate)),
        xLock: base.xLock.and(Some(x_lock)),
        xUnlock: base.xUnlock.and(Some(x_unlock)),
        xFileControl: Some(x_file_control),
        xShmMap: base.xShmMap.and(Some(x_shm_map)),
        xShmLock: base.xShmLock.and(Some(x_shm_lock)),
        xShmUnmap: base.xShmUnmap.and(Some(x_shm_unmap)),
        ..*base
    };
    if !has_wal_index {
        (ours.xShmMap, ours.xShmLock) = (None, None);
        (ours.xShmBarrier, ours.xShmUnmap) = (None, None);
    }
    ours
}

/// A copy of `base` for a file that is only watched: a WAL or a journal.
pub(super) fn watching(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods { xClose: Some(x_close_watched), ..*base }
}

/// The same for a super-journal.
pub(super) fn over_super_journal(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods { xWrite: base.xWrite.and(Some(x_write_name)), ..watching(base) }
}

/// The base's side of a file of ours, and SQLite's.
#[derive(Clone, Copy)]
pub(super) struct Base {
    file: *mut sqlite3_file,
    methods: &'static Methods,
}

/// Calls a method of the base; what it does not have fails.
macro_rules! call {
    ($base:expr, $method:ident, $missing:expr $(, $arg:expr)*) => {
        match $base.methods.base.$method {
            // SAFETY: the base's own method on the file it opened, with arguments from SQLite.
            Some(method) => unsafe { method($base.file, $($arg),*) },
            None => $missing,
        }
    };
}

impl WalIndex for Base {
    type Wal = OpenWal;

    fn committed(&self) -> Option<(Salts, u32)> {
        let [frames, salt, next] = self.wal_index([MX_FRAME, SALT, SALT + 1])?;
        Some(([salt, next], frames))
    }

    fn committer(&self) -> Option<Client> {
        // SAFETY: as in `is_upgrade`.
        let db = unsafe { *self.db().as_ref()? };
        Some(Client { db, host: &self.context().host })
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
            let base = &{ &file }.0;
            match lock {
                Sought::Write => {
                    let slot = ShmSlot::WRITE.into();
                    let rc = base.shm_lock(slot, ShmFlags::LOCK_EXCLUSIVE);
                    if rc == ResultCode::OK {
                        unlock(|| base.shm_lock(slot, ShmFlags::UNLOCK_EXCLUSIVE));
                    }
                    !rc.is_busy()
                }
                Sought::Database(LockLevel::RESERVED) => {
                    let mut is_reserved = 0;
                    let rc =
                        call!(base, xCheckReservedLock, ResultCode::IOERR, &raw mut is_reserved);
                    rc != ResultCode::OK || is_reserved == 0
                }
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
        let Some(host) = copies::passed_by(&self.context().host) else { return true };
        // SAFETY: what FCNTL_PDB passes is valid while the file is open, and the connection that it
        // leads to is the one that calls, of the SQLite that this VFS is registered with.
        let in_transaction = unsafe {
            self.db().as_ref().filter(|db| !db.is_null()).map(|db| host.is_in_transaction(*db))
        };
        in_transaction.flatten().unwrap_or(true)
    }

    fn is_in_autocommit(&self) -> bool {
        // SAFETY: as in `is_upgrade`.
        unsafe {
            let Some(db) = self.db().as_ref().filter(|db| !db.is_null()) else { return true };
            self.context().host.is_in_autocommit(*db)
        }
    }

    fn doing(&self) -> Option<Doing> {
        let changes_mode = |text: &[u8]| {
            let has =
                |word: &[u8]| text.windows(word.len()).any(|at| at.eq_ignore_ascii_case(word));
            has(b"pragma") && has(b"journal_mode") && has(b"wal")
        };
        let attaches = |text: &[u8]| {
            let verb = text.trim_ascii_start().first_chunk::<6>();
            verb.is_some_and(|verb| verb.eq_ignore_ascii_case(b"attach"))
        };
        let host = &self.context().host;
        // SAFETY: as in `is_upgrade`.
        unsafe {
            let db = *self.db().as_ref().filter(|db| !db.is_null())?;
            let is_in_transaction = !host.is_in_autocommit(db);
            let mut doing = Doing { is_in_transaction, ..Doing::default() };
            host.statements(db, |statement| {
                // ATTACH only reads the schema, as who compiles does.
                let reads_schema = |text| statement.runs && attaches(text);
                doing.compiles |= statement.text.is_none_or(reads_schema);
                doing.runs |= statement.runs;
                doing.writes |= statement.runs && statement.may_write;
                if statement.text.is_none_or(changes_mode) {
                    let runs = statement.runs && statement.text.is_some();
                    doing.changes_mode = Some(runs || doing.changes_mode == Some(true));
                }
            });
            Some(doing)
        }
    }

    fn lock(&self, level: LockLevel) -> ResultCode {
        call!(self, xLock, ResultCode::IOERR_LOCK, level)
    }

    fn unlock(&self, level: LockLevel) -> ResultCode {
        call!(self, xUnlock, ResultCode::IOERR, level)
    }

    fn shm_lock(&self, slots: ShmSlots, flags: ShmFlags) -> ResultCode {
        call!(self, xShmLock, ResultCode::IOERR_LOCK, slots.first, slots.n, flags)
    }

    fn may_block(&self, mut ms: c_int) {
        let into = std::ptr::from_mut(&mut ms).cast();
        call!(self, xFileControl, ResultCode::NOTFOUND, SQLITE_FCNTL_LOCK_TIMEOUT, into);
    }

    fn size(&self) -> Result<i64, ResultCode> {
        let mut size = 0;
        match call!(self, xFileSize, ResultCode::IOERR, &raw mut size) {
            ResultCode::OK => Ok(size),
            rc => Err(rc),
        }
    }

    fn is_wal(&self) -> bool {
        /// The read and write versions in the header, 2 for WAL.
        /// <https://www.sqlite.org/fileformat2.html#file_format_version_numbers>
        const VERSIONS: i64 = 18;
        let mut versions = [0_u8; 2];
        let into = versions.as_mut_ptr().cast();
        call!(self, xRead, ResultCode::IOERR, into, 2, VERSIONS) == ResultCode::OK
            && versions == [2, 2]
    }

    fn frames(&self) -> Option<(u32, u32)> {
        let [frames, copied] = self.wal_index([MX_FRAME, N_BACKFILL])?;
        Some((frames, copied))
    }

    fn salts(&self) -> Option<Salts> {
        self.wal_index([SALT, SALT + 1])
    }

    fn header(&self) -> Option<Header> {
        let mut header = Header([0; Header::SIZE]);
        let into = header.0.as_mut_ptr().cast();
        let bytes = Header::SIZE as c_int;
        (call!(self, xRead, ResultCode::IOERR, into, bytes, 0) == ResultCode::OK).then_some(header)
    }

    fn set_copied(&self, frames: u32) {
        let mut region = std::ptr::null_mut();
        let rc = call!(self, xShmMap, ResultCode::IOERR, 0, REGION, 0, &raw mut region);
        if rc == ResultCode::OK && !region.is_null() {
            // SAFETY: as in `wal_index`.
            let word = unsafe { AtomicU32::from_ptr(region.cast::<u32>().add(N_BACKFILL)) };
            word.store(frames, Ordering::SeqCst);
        }
    }

    fn clear_wal_index(&self) {
        let mut region = std::ptr::null_mut();
        let rc = call!(self, xShmMap, ResultCode::IOERR, 0, REGION, 0, &raw mut region);
        if rc == ResultCode::OK && !region.is_null() {
            for n in 0..HEADERS {
                // SAFETY: as in `wal_index`.
                let word = unsafe { AtomicU32::from_ptr(region.cast::<u32>().add(n)) };
                word.store(0, Ordering::SeqCst);
            }
        }
    }

    fn read_mark(&self, n: c_int) -> Option<u32> {
        let n = usize::try_from(n).ok()?;
        self.wal_index([READ_MARKS + n]).map(|[mark]| mark)
    }

    fn write_zeros(&self, at: i64, bytes: i64) -> bool {
        // To be written to: SQLite's checksum VFS puts its checksum into what it is given.
        let mut zeros = vec![0_u8; usize::try_from(bytes).unwrap_or(0)];
        let from = zeros.as_mut_ptr().cast_const().cast();
        let bytes = c_int::try_from(zeros.len()).unwrap_or(0);
        call!(self, xWrite, ResultCode::IOERR, from, bytes, at) == ResultCode::OK
    }

    fn set_size(&self, bytes: i64) {
        call!(self, xTruncate, ResultCode::IOERR_TRUNCATE, bytes);
    }

    fn stands(&self, path: &Path) -> Stands {
        let context = self.context();
        let host = copies::passed_by(&context.host).unwrap_or(&context.host);
        // SQLite says which connection uses a file as soon as it is open; another VFS may not pass that on.
        // SAFETY: as in `is_upgrade`. FCNTL_FILE_POINTER is not passed to a file, and takes a place for its address.
        let is_called_by_sqlite = unsafe {
            self.db().as_ref().filter(|db| !db.is_null()).is_some_and(|db| {
                host.is_opened(*db, path, |name| {
                    let mut file: *mut sqlite3_file = std::ptr::null_mut();
                    let into = std::ptr::from_mut(&mut file).cast();
                    let rc = host.file_control(*db, name, SQLITE_FCNTL_FILE_POINTER, into);
                    rc != ResultCode::OK || file == self.file
                })
            })
        };
        match is_called_by_sqlite {
            false => Stands::Below,
            true if context.is_over_system => Stands::Alone,
            true => Stands::Above,
        }
    }
}

impl Base {
    /// `file` is one over which `methods` are to be put, or are.
    pub(super) fn new(file: *mut sqlite3_file, methods: &'static Methods) -> Self {
        Self { file, methods }
    }

    /// The state of the file. Its connection is borrowed while a method of ours runs; the rest may be used.
    fn state(&self) -> *mut State {
        // SAFETY: the file is open, and its slot holds the address of a boxed `State`.
        unsafe { (*state_slot(self.file, self.methods.state_offset)).cast() }
    }

    /// As in [`State`].
    fn db(&self) -> *const *mut sqlite3 {
        // SAFETY: as `state` says.
        unsafe { (*self.state()).db }
    }

    fn context(&self) -> &'static Context {
        // SAFETY: as `state` says.
        unsafe { (*self.state()).opened.context() }
    }

    /// Words of the wal-index.
    fn wal_index<const N: usize>(&self, words: [usize; N]) -> Option<[u32; N]> {
        let mut region = std::ptr::null_mut();
        let rc = call!(self, xShmMap, ResultCode::IOERR, 0, REGION, 0, &raw mut region);
        if rc != ResultCode::OK || region.is_null() {
            return None;
        }
        // SAFETY: the region is mapped and stays so while the file is open; other processes change
        // its words at any time, which atomics allow for.
        Some(words.map(|n| unsafe {
            AtomicU32::from_ptr(region.cast::<u32>().add(n)).load(Ordering::Relaxed)
        }))
    }

    /// The WAL that the connection has open, if this is its main database, and named so: of an attached
    /// one, SQLite may not look at what FCNTL_COMMIT_PHASETWO answers. To be asked for while the
    /// connection is about to read: when it closes, what SQLite locks to answer may be gone.
    fn wal(&self, database: &Path) -> Option<OpenWal> {
        let host = &self.context().host;
        // SAFETY: what FCNTL_PDB passes is valid while the file is open, and the connection that it
        // leads to is the one that calls, of the SQLite that this VFS is registered with. Neither
        // control is passed to a file. The WAL is open until the wal-index is unmapped.
        unsafe {
            let db = *self.db().as_ref()?;
            // With a shared cache, SQLite would lock that of another database, in whatever order.
            if db.is_null() || sys::path_from(host.file_of(db, c"main")?) != database {
                return None;
            }
            let pointer = |op| {
                let mut file: *mut sqlite3_file = std::ptr::null_mut();
                let into = std::ptr::from_mut(&mut file).cast();
                (host.file_control(db, c"main", op, into) == ResultCode::OK).then_some(file)
            };
            let main = pointer(SQLITE_FCNTL_FILE_POINTER)?;
            if main != self.file {
                return None;
            }
            OpenWal::new(pointer(SQLITE_FCNTL_JOURNAL_POINTER)?)
        }
    }

    /// Whether the file is no longer the one that its name leads to, as far as the base knows.
    fn has_moved(&self) -> bool {
        let mut moved: c_int = 0;
        let into = std::ptr::from_mut(&mut moved).cast();
        let rc = call!(self, xFileControl, ResultCode::NOTFOUND, SQLITE_FCNTL_HAS_MOVED, into);
        rc == ResultCode::OK && moved != 0
    }
}

/// A database was opened and has its methods. False if it has been replaced meanwhile.
///
/// # Safety
/// `file` was opened by [`super::install`].
pub(super) unsafe fn opened(file: *mut sqlite3_file, settings: &Settings) -> bool {
    // SAFETY: the caller's promise.
    let (base, _) = unsafe { parts(file) };
    if settings.persist_wal() {
        let mut persist: c_int = 1;
        let into = std::ptr::from_mut(&mut persist).cast();
        call!(base, xFileControl, ResultCode::NOTFOUND, SQLITE_FCNTL_PERSIST_WAL, into);
    }
    !base.has_moved()
}

/// The base's side of a file, and the connection.
///
/// # Safety
/// `file` was opened by [`super::install`] and is not closed; no other reference to its connection is
/// alive. (SQLite uses a file from one thread at a time.)
unsafe fn parts<'f>(file: *mut sqlite3_file) -> (Base, &'f mut Connection<Base>) {
    // SAFETY: the caller's promise: pMethods is the first field of a `Methods`.
    unsafe {
        let base = Base { file, methods: &*(*file).pMethods.cast::<Methods>() };
        let connection = &mut (*base.state()).connection;
        (base, connection)
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once. The state is taken out of it for good, before
        // the base, which may clear the file, closes it.
        let (base, mut state) = unsafe {
            let methods = closing(file);
            let base = Base { file, methods };
            let state = Box::from_raw(base.state());
            (base, state)
        };
        state.connection.ending();
        let rc = call!(base, xClose, ResultCode::OK);
        state.connection.closed();
        rc
    })
}

unsafe extern "C" fn x_close_watched(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once.
        unsafe {
            let methods = closing(file);
            if methods.kind == Kind::SuperJournal {
                group_commit::super_journal(false);
            }
            methods.base.xClose.map_or(ResultCode::OK, |close| close(file))
        }
    })
}

/// SQLite writes the names of journals to a super-journal, each from where the connection keeps it. If
/// that is one of a parent's, there is no such commit.
unsafe extern "C" fn x_write_name(
    file: *mut sqlite3_file,
    name: *const c_void,
    bytes: c_int,
    at: i64,
) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        if inherited::names_parents(name) {
            return ResultCode::IOERR;
        }
        // SAFETY: SQLite passes an open file and what the method asks for; pMethods is the first field
        // of a `Methods`.
        unsafe {
            let methods: &'static Methods = &*(*file).pMethods.cast::<Methods>();
            methods.base.xWrite.map_or(ResultCode::IOERR, |write| write(file, name, bytes, at))
        }
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    at: i64,
) -> ResultCode {
    // SAFETY: SQLite passes an open file.
    let (base, connection) = unsafe { parts(file) };
    if at == 0 {
        no_panic((), || {
            // SAFETY: SQLite passes so many bytes.
            let page = unsafe {
                std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(bytes).unwrap_or(0))
            };
            connection.before_first_page(page);
        });
    }
    let rc = call!(base, xWrite, ResultCode::IOERR, data, bytes, at);
    if rc == ResultCode::OK {
        connection.wrote(at, bytes);
    }
    rc
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: i64) -> ResultCode {
    no_panic(ResultCode::IOERR_TRUNCATE, || {
        // SAFETY: SQLite passes an open file.
        let (base, connection) = unsafe { parts(file) };
        let truncate = |size| call!(base, xTruncate, ResultCode::IOERR_TRUNCATE, size);
        connection.truncate(size, truncate)
    })
}

unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: LockLevel) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, || {
        // SAFETY: SQLite passes an open file.
        let (_, connection) = unsafe { parts(file) };
        connection.lock(level)
    })
}

unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: LockLevel) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite passes an open file.
        let (_, connection) = unsafe { parts(file) };
        connection.unlock(level)
    })
}

unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    first: ShmSlot,
    n: c_int,
    flags: ShmFlags,
) -> ResultCode {
    // These are called as C calls this, and last, so that this saves no registers for them. What each
    // write transaction does is in the first two as a whole, down to the system calls: that is what
    // `inline(always)` is for wherever they lead.
    match (first, flags.is_shared(), flags.is_lock()) {
        (ShmSlot::WRITE, false, true) => lock_write(file, n),
        (ShmSlot::WRITE, false, false) => unlock_write(file, n),
        _ => shm_lock(file, first, n, flags),
    }
}

#[inline(never)]
extern "C" fn lock_write(file: *mut sqlite3_file, n: c_int) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, move || {
        // SAFETY: SQLite has passed an open file, to [`x_shm_lock`].
        let (_, connection) = unsafe { parts(file) };
        connection.lock_write(ShmSlots { first: ShmSlot::WRITE, n })
    })
}

#[inline(never)]
extern "C" fn unlock_write(file: *mut sqlite3_file, n: c_int) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, move || {
        // SAFETY: as in `lock_write`.
        let (_, connection) = unsafe { parts(file) };
        connection.unlock_write(ShmSlots { first: ShmSlot::WRITE, n })
    })
}

#[inline(never)]
extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    first: ShmSlot,
    n: c_int,
    flags: ShmFlags,
) -> ResultCode {
    // SAFETY: as in `lock_write`.
    let (base, connection) = unsafe { parts(file) };
    if !connection.note_plain(ShmSlots { first, n }, flags) {
        return shm_lock_other(file, first, n, flags);
    }
    // SAFETY: this method stands only where the base has one, and passes on what SQLite has passed.
    let rc = unsafe { base.methods.base.xShmLock.unwrap_unchecked()(file, first, n, flags) };
    if rc == ResultCode::OK { rc } else { shm_lock_failed(file, first, flags, rc) }
}

#[inline(never)]
extern "C" fn shm_lock_other(
    file: *mut sqlite3_file,
    first: ShmSlot,
    n: c_int,
    flags: ShmFlags,
) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, move || {
        // SAFETY: as in `lock_write`; `shm_lock` has no reference any more.
        let (_, connection) = unsafe { parts(file) };
        connection.shm_lock_other(ShmSlots { first, n }, flags)
    })
}

#[cold]
#[inline(never)]
extern "C" fn shm_lock_failed(
    file: *mut sqlite3_file,
    slot: ShmSlot,
    flags: ShmFlags,
    rc: ResultCode,
) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, move || {
        // SAFETY: as in `shm_lock_other`.
        let (_, connection) = unsafe { parts(file) };
        connection.shm_lock_failed(slot, flags, rc)
    })
}

unsafe extern "C" fn x_shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite passes an open file.
        let (base, connection) = unsafe { parts(file) };
        connection.shm_mapping();
        let rc = call!(base, xShmMap, ResultCode::IOERR, region, size, extend, out);
        if rc == ResultCode::OK {
            // SAFETY: SQLite passes a place for the address, which the base has filled in.
            inherited::mapped(file, unsafe { *out }, size);
        }
        if rc == ResultCode::OK && region == 0 {
            // SAFETY: as `Base::state` says.
            let wanted = unsafe { (*base.state()).wanted.as_ref() };
            let wal = wanted.and_then(|wanted| base.wal(wanted.database()));
            connection.shm_mapped(wal);
        }
        rc
    })
}

unsafe extern "C" fn x_shm_unmap(file: *mut sqlite3_file, delete: c_int) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite passes an open file.
        let (base, connection) = unsafe { parts(file) };
        connection.ending();
        inherited::unmapping(file);
        let rc = call!(base, xShmUnmap, ResultCode::IOERR, delete);
        connection.shm_unmapped();
        rc
    })
}

unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    arg: *mut c_void,
) -> ResultCode {
    // SAFETY: SQLite passes an open file.
    let (base, connection) = unsafe { parts(file) };
    if op != SQLITE_FCNTL_COMMIT_PHASETWO || !connection.note_commit() {
        return file_control(file, op, arg);
    }
    call!(base, xFileControl, ResultCode::NOTFOUND, op, arg)
}

/// What [`x_file_control`] leaves. Called as [`x_shm_lock`] calls.
#[inline(never)]
extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, arg: *mut c_void) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite has passed an open file, to [`x_file_control`], which has no reference any more.
        let (base, connection) = unsafe { parts(file) };
        match op {
            FCNTL_OPENED => {
                let busy_timeout = connection.settings().busy_timeout_ms();
                let refusal = match connection.is_unencrypted() {
                    true => UNENCRYPTED.as_ptr(),
                    false => std::ptr::null(),
                };
                // SAFETY: only `on_connect` knows this control, and passes an `Opened`.
                unsafe { *arg.cast::<Opened>() = Opened { busy_timeout, refusal } };
                ResultCode::OK
            }
            SQLITE_FCNTL_VFSNAME => {
                let name = &base.context().full_name;
                let name = base.context().host.allocate_text(name);
                // SAFETY: SQLite passes a place for a string, which it frees.
                unsafe { *arg.cast::<*mut c_char>() = name };
                ResultCode::OK
            }
            SQLITE_FCNTL_PRAGMA => {
                // SAFETY: SQLite passes its array of strings.
                let answer = unsafe { pragma(connection, base, arg.cast()) };
                if answer == ResultCode::NOTFOUND {
                    call!(base, xFileControl, answer, op, arg)
                } else {
                    answer
                }
            }
            SQLITE_FCNTL_PERSIST_WAL => {
                // SAFETY: SQLite passes a number, negative to ask.
                let asks = unsafe { *arg.cast::<c_int>() } < 0;
                if !asks {
                    connection.application_persists_wal();
                }
                let rc = call!(base, xFileControl, ResultCode::NOTFOUND, op, arg);
                if asks {
                    // SAFETY: as above: the answer.
                    let persists = unsafe { &mut *arg.cast::<c_int>() };
                    let keeps = connection.keeps_wal(*persists > 0, &base.context().protection);
                    if keeps != (*persists > 0) {
                        *persists = keeps.into();
                    }
                }
                rc
            }
            SQLITE_FCNTL_COMMIT_PHASETWO => match connection.committed() {
                Ok(()) => call!(base, xFileControl, ResultCode::NOTFOUND, op, arg),
                Err(rc) => rc,
            },
            SQLITE_FCNTL_SYNC => match connection.before_commit() {
                Ok(()) => call!(base, xFileControl, ResultCode::NOTFOUND, op, arg),
                Err(rc) => rc,
            },
            _ => {
                match op {
                    SQLITE_FCNTL_LOCK_TIMEOUT => {
                        // SAFETY: SQLite passes a number.
                        connection.may_block(unsafe { *arg.cast::<c_int>() });
                    }
                    SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE => connection.unwritten(),
                    SQLITE_FCNTL_PDB => {
                        // SAFETY: as `Base::state` says.
                        unsafe { (*base.state()).db = arg.cast_const().cast() };
                    }
                    _ => {}
                }
                call!(base, xFileControl, ResultCode::NOTFOUND, op, arg)
            }
        }
    })
}

/// Answers our own pragmas, <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpragma>.
///
/// # Safety
/// `arg` holds a place for the answer, the pragma's name, and its argument or null.
unsafe fn pragma(
    connection: &mut Connection<Base>,
    base: Base,
    arg: *mut *mut c_char,
) -> ResultCode {
    let context = base.context();
    // SAFETY: the caller's promise.
    let (name, value) = unsafe {
        let value = *arg.add(2);
        let value = if value.is_null() { c"" } else { CStr::from_ptr(value) };
        (CStr::from_ptr(*arg.add(1)).to_bytes(), value.to_bytes())
    };
    let is_wal = name.eq_ignore_ascii_case(b"journal_mode") && value.eq_ignore_ascii_case(b"wal");
    if is_wal {
        connection.expect_mode_change();
    }
    connection.pragma(name, value);
    let no_wal = connection.guards().no_wal().filter(|_| is_wal).map(str::to_owned);
    let is_ours = name.len() > 7 && name[..7].eq_ignore_ascii_case(b"kanban_");
    if !is_ours && no_wal.is_none() {
        return ResultCode::NOTFOUND;
    }
    let (rc, text) = if let Some(why) = no_wal {
        // As SQLite answers where WAL mode does not work: applications fall back to a rollback mode by that.
        (ResultCode::PROTOCOL, format!("locking protocol: {why}"))
    } else if name.eq_ignore_ascii_case(b"kanban_status") {
        connection.guards().length.look_where_it_stands();
        let vfs = status::Vfs {
            full_name: &context.full_name,
            sqlite: context.host.version_number(),
            protection: context.protection,
        };
        (ResultCode::OK, status::json(connection, &vfs))
    } else {
        let name = String::from_utf8_lossy(name);
        (ResultCode::ERROR, format!("unknown pragma {name}; known: kanban_status"))
    };
    let text = context.host.allocate_text(&text);
    // SAFETY: the caller's promise; SQLite frees the text.
    unsafe { *arg = text };
    if text.is_null() { ResultCode::NOMEM } else { rc }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn close(_: *mut sqlite3_file) -> ResultCode {
        ResultCode::OK
    }

    /// A file that is closed is known to be: also one that is only watched. Else a forked child would change
    /// what lies there by then.
    #[test]
    fn every_table_of_ours_sees_the_file_close() {
        // SAFETY: null is a value of every field.
        let nothing: sqlite3_io_methods = unsafe { std::mem::zeroed() };
        let base = sqlite3_io_methods { xClose: Some(close), ..nothing };
        for ours in [
            over(&base, true),
            over(&base, false),
            watching(&base),
            over_super_journal(&base),
            super::super::wal::over(&base),
        ] {
            let closes = ours.xClose.expect("it closes");
            assert!(!std::ptr::fn_addr_eq(
                closes,
                close as unsafe extern "C" fn(*mut sqlite3_file) -> ResultCode
            ));
        }
    }
}

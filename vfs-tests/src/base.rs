//! A base VFS, over SQLite's own `unix` (or `win32`). A test decides for each call whether the base
//! makes it, fails it, makes it and reports a failure, or does not make it and reports success.
//!
//! ```no_run
//! # use vfs_tests::base::{Base, Fault, File, Method};
//! let base = Base::register("faulty");
//! // From here on, the database does not grow, and says it does.
//! base.on(|call| match call.method {
//!     Method::Write { .. } if call.file == File::Main && call.extends() => Fault::Pretend,
//!     _ => Fault::None,
//! });
//! ```

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_ERROR, SQLITE_FCNTL_LOCKSTATE, SQLITE_IOERR, SQLITE_LOCK_NONE,
    SQLITE_LOCK_RESERVED, SQLITE_OK, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL,
    SQLITE_OPEN_WAL, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_UNLOCK, sqlite3_file, sqlite3_io_methods,
    sqlite3_syscall_ptr, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

/// A registered base VFS.
#[derive(Clone, Copy)]
pub struct Base(&'static Shared);

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is made.
    None,
    /// It is not made, and answers this. (But a close is made.)
    Fail(c_int),
    /// It is made, and answers this whatever its result. (An open that fails leaves no file.)
    FailAfter(c_int),
    /// A read or write is made for its first half, and any other call is not made; it answers this.
    Half(c_int),
    /// It is not made, and answers SQLITE_OK, with zeros for what it should return. (But a close is
    /// made, an open fails, and a sleep ends at once.)
    Pretend,
}

/// What SQLite uses a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A main database.
    Main,
    /// Its WAL.
    Wal,
    /// Its rollback journal.
    Journal,
    /// Super-journals, and temporary files with their journals.
    Other,
}

/// A method of the VFS or a file, with its arguments.
/// <https://www.sqlite.org/c3ref/io_methods.html>
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "SQLite's documentation says what they are")]
pub enum Method<'c> {
    Open { flags: c_int },
    Delete { sync: bool },
    Access { flags: c_int },
    FullPathname,
    Sleep { microseconds: c_int },
    Close,
    Read { offset: i64, len: usize },
    Write { offset: i64, bytes: &'c [u8] },
    Truncate { size: i64 },
    Sync { flags: c_int },
    FileSize,
    Lock { level: c_int },
    Unlock { level: c_int },
    CheckReservedLock,
    FileControl { op: c_int },
    ShmMap { region: c_int, extend: bool },
    ShmLock { slot: c_int, n: c_int, flags: c_int },
    ShmUnmap { delete: bool },
    Fetch { offset: i64, len: usize },
    Unfetch { offset: i64 },
}

/// A call that is about to be made.
pub struct Call<'c> {
    /// The kind of its file.
    pub file: File,
    /// The file's name; empty if it has none.
    pub path: &'c Path,
    /// The method that SQLite calls.
    pub method: Method<'c>,
    /// How many calls came before it since the test set its decision.
    pub number: u32,
    real: *mut sqlite3_file,
}

impl Call<'_> {
    /// A number of the file, which no other open file has at the same time. For an open, it is the
    /// number that the file will have.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.real.addr()
    }

    fn is_open(&self) -> bool {
        // SAFETY: the file is the VFS's memory for as long as the call lasts, and has no methods
        // before it is open.
        !self.real.is_null() && unsafe { !(*self.real).pMethods.is_null() }
    }

    /// The size of the file now, whatever the test decides; 0 if it is not open.
    #[must_use]
    pub fn size(&self) -> i64 {
        let mut size = 0;
        if self.is_open() {
            // SAFETY: the file is open for as long as the call lasts.
            unsafe { method(self.real).xFileSize.map(|f| f(self.real, &raw mut size)) };
        }
        size
    }

    /// Whether it would make the file longer.
    #[must_use]
    pub fn extends(&self) -> bool {
        match self.method {
            Method::Write { offset, bytes } => offset + bytes.len() as i64 > self.size(),
            Method::Truncate { size } => size > self.size(),
            _ => false,
        }
    }

    /// The N bytes of the file at `offset`, whatever the test decides; zeros behind its end.
    #[must_use]
    pub fn read<const N: usize>(&self, offset: i64) -> [u8; N] {
        let mut bytes = [0; N];
        if self.is_open() {
            let into = bytes.as_mut_ptr().cast();
            // SAFETY: as above; there is room for N bytes, which a short read fills with zeros.
            unsafe { method(self.real).xRead.map(|f| f(self.real, into, N as c_int, offset)) };
        }
        bytes
    }
}

/// The locks of an open main database, as the `unix` VFS knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locks {
    /// Its name.
    pub path: PathBuf,
    /// SQLITE_LOCK_...
    pub level: c_int,
    /// The slots of the wal-index that it has locked as shared, one bit each.
    pub shared: u16,
    /// The slots that it has locked exclusively.
    pub exclusive: u16,
}

impl Locks {
    /// Whether they keep others from writing: RESERVED or more, or the WRITE slot.
    #[must_use]
    pub fn to_write(&self) -> bool {
        self.level >= SQLITE_LOCK_RESERVED || self.exclusive & 1 != 0
    }
}

type Decide = dyn Fn(&Call<'_>) -> Fault + Send + Sync;

struct Decision {
    decide: Box<Decide>,
    calls: AtomicU32,
}

/// Lives for ever, as SQLite expects of a VFS.
struct Shared {
    unix: *mut sqlite3_vfs,
    decision: Mutex<Option<Arc<Decision>>>,
    /// The locks of the main databases that are open, by the address of their file.
    locks: Mutex<HashMap<usize, Locks>>,
}

// SAFETY: the pointer is to a VFS that is registered for ever, whose methods may be called by any
// thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Base {
    /// Registers a base of that name, which makes all calls until a test decides otherwise.
    ///
    /// # Panics
    /// If the name is taken.
    #[must_use]
    pub fn register(name: &str) -> Self {
        let name = CString::new(name).expect("no NUL");
        // SAFETY: the names are terminated; the object is complete and never freed.
        unsafe {
            assert!(sqlite3_vfs_find(name.as_ptr()).is_null(), "{name:?} is taken");
            let stock = CString::new(crate::STOCK_VFS).expect("no NUL");
            let unix = sqlite3_vfs_find(stock.as_ptr());
            assert!(!unix.is_null(), "no stock VFS");
            let shared: &'static Shared = Box::leak(Box::new(Shared {
                unix,
                decision: Mutex::default(),
                locks: Mutex::default(),
            }));
            let vfs = Box::leak(Box::new(vfs(name.into_raw(), shared)));
            assert_eq!(sqlite3_vfs_register(vfs, 0), SQLITE_OK);
            Self(shared)
        }
    }

    /// From now on asks `decide` before each call, in the thread that makes the call, even for
    /// files that are already open. `decide` may wait, but a panic in it ends the process.
    pub fn on(&self, decide: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) {
        let decision = Decision { decide: Box::new(decide), calls: AtomicU32::new(0) };
        *lock(&self.0.decision) = Some(Arc::new(decision));
    }

    /// Makes all calls again.
    pub fn off(&self) {
        *lock(&self.0.decision) = None;
    }

    /// The locks of each main database that is open through it.
    #[must_use]
    pub fn locks(&self) -> Vec<Locks> {
        lock(&self.0.locks).values().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn decide(
        &self,
        file: File,
        path: &Path,
        method: Method<'_>,
        real: *mut sqlite3_file,
    ) -> Fault {
        let decision = lock(&self.decision).clone();
        decision.map_or(Fault::None, |decision| {
            let number = decision.calls.fetch_add(1, Ordering::Relaxed);
            (decision.decide)(&Call { file, path, method, number, real })
        })
    }
}

impl Fault {
    fn apply(self, call: impl FnOnce() -> c_int) -> c_int {
        match self {
            Self::None => call(),
            Self::Fail(rc) | Self::Half(rc) => rc,
            Self::FailAfter(rc) => {
                call();
                rc
            }
            Self::Pretend => SQLITE_OK,
        }
    }

    /// Applies this to a call that moves `n` bytes.
    fn apply_to_bytes(self, n: c_int, call: impl FnOnce(c_int) -> c_int) -> c_int {
        match self {
            Self::Half(rc) => {
                call(n / 2);
                rc
            }
            fault => fault.apply(|| call(n)),
        }
    }
}

impl File {
    fn by_flags(flags: c_int) -> Self {
        match flags {
            _ if flags & SQLITE_OPEN_MAIN_DB != 0 => Self::Main,
            _ if flags & SQLITE_OPEN_WAL != 0 => Self::Wal,
            _ if flags & SQLITE_OPEN_MAIN_JOURNAL != 0 => Self::Journal,
            _ => Self::Other,
        }
    }

    fn by_name(path: &Path) -> Self {
        match path.as_os_str().as_encoded_bytes() {
            name if name.ends_with(b"-wal") => Self::Wal,
            name if name.ends_with(b"-journal") => Self::Journal,
            _ => Self::Other,
        }
    }
}

/// An open file. The `unix` VFS's file comes after it.
#[repr(C)]
struct Opened {
    methods: *const sqlite3_io_methods,
    shared: &'static Shared,
    file: File,
    path: PathBuf,
}

/// Where the `unix` VFS's file begins.
const REAL: usize = size_of::<Opened>().next_multiple_of(8);

/// # Safety
/// `file` is memory of our szOsFile.
unsafe fn real_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the caller's promise.
    unsafe { file.cast::<u8>().add(REAL).cast() }
}

/// # Safety
/// `real` is an open file of the `unix` VFS's.
unsafe fn method(real: *mut sqlite3_file) -> &'static sqlite3_io_methods {
    // SAFETY: the caller's promise; the VFS's tables are constants, all of version 3.
    unsafe { &*(*real).pMethods }
}

/// # Safety
/// `name` is null or a terminated string that outlives `'n`.
unsafe fn path<'n>(name: *const c_char) -> &'n Path {
    // SAFETY: the caller's promise.
    let name = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } };
    Path::new(name.to_str().expect("UTF-8"))
}

/// # Safety
/// `vfs` is an object of [`vfs`].
unsafe fn shared(vfs: *mut sqlite3_vfs) -> &'static Shared {
    // SAFETY: pAppData was set to it, and it lives for ever.
    unsafe { &*(*vfs).pAppData.cast::<Shared>() }
}

/// # Safety
/// `shared.unix` is registered, `name` a terminated string that lives for ever.
unsafe fn vfs(name: *const c_char, shared: &'static Shared) -> sqlite3_vfs {
    // SAFETY: the caller's promise.
    let unix = unsafe { *shared.unix };
    assert!(unix.iVersion >= 3, "an SQLite of this century");
    sqlite3_vfs {
        szOsFile: REAL as c_int + unix.szOsFile,
        pNext: null_mut(),
        zName: name,
        pAppData: std::ptr::from_ref(shared).cast_mut().cast(),
        xOpen: Some(x_open),
        xDelete: Some(x_delete),
        xAccess: Some(x_access),
        xFullPathname: Some(x_full_pathname),
        xDlOpen: Some(x_dl_open),
        xDlError: Some(x_dl_error),
        xDlSym: Some(x_dl_sym),
        xDlClose: Some(x_dl_close),
        xRandomness: Some(x_randomness),
        xSleep: Some(x_sleep),
        xCurrentTime: Some(x_current_time),
        xGetLastError: Some(x_get_last_error),
        xCurrentTimeInt64: Some(x_current_time_int64),
        xSetSystemCall: Some(x_set_system_call),
        xGetSystemCall: Some(x_get_system_call),
        xNextSystemCall: Some(x_next_system_call),
        ..unix
    }
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: Some(x_fetch),
    xUnfetch: Some(x_unfetch),
};

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our VFS, a name, and memory of our szOsFile; the `unix` VFS gets itself,
    // the name SQLite passed, since it reads the bytes around it, and memory of its szOsFile.
    unsafe {
        (*file).pMethods = null();
        let (shared, kind, path, real) =
            (shared(vfs), File::by_flags(flags), path(name), real_file(file));
        (*real).pMethods = null();
        let open = || match (*shared.unix).xOpen {
            Some(open) => open(shared.unix, name, real, flags, out_flags),
            None => SQLITE_CANTOPEN,
        };
        let rc = match shared.decide(kind, path, Method::Open { flags }, real) {
            Fault::Pretend => SQLITE_CANTOPEN,
            fault => fault.apply(open),
        };
        if rc != SQLITE_OK {
            if !(*real).pMethods.is_null() {
                method(real).xClose.map(|close| close(real));
            }
            return rc;
        }
        let opened =
            Opened { methods: &raw const METHODS, shared, file: kind, path: path.to_owned() };
        file.cast::<Opened>().write(opened);
        if kind == File::Main {
            let path = path.to_owned();
            let locks = Locks { path, level: SQLITE_LOCK_NONE, shared: 0, exclusive: 0 };
            lock(&shared.locks).insert(file.addr(), locks);
        }
        SQLITE_OK
    }
}

unsafe extern "C" fn x_delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite passes our VFS and a name; the `unix` VFS gets itself.
    unsafe {
        let (shared, path) = (shared(vfs), path(name));
        shared
            .decide(File::by_name(path), path, Method::Delete { sync: sync & 1 != 0 }, null_mut())
            .apply(|| {
                (*shared.unix)
                    .xDelete
                    .map_or(SQLITE_ERROR, |delete| delete(shared.unix, name, sync))
            })
    }
}

unsafe extern "C" fn x_access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our VFS, a name and a place for the answer; the `unix` VFS gets itself.
    unsafe {
        *out = 0;
        let (shared, path) = (shared(vfs), path(name));
        let fault = shared.decide(File::by_name(path), path, Method::Access { flags }, null_mut());
        fault.apply(|| {
            let access = (*shared.unix).xAccess;
            access.map_or(SQLITE_ERROR, |access| access(shared.unix, name, flags, out))
        })
    }
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    n: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes our VFS, a name and room for n bytes; the `unix` VFS gets itself.
    unsafe {
        let (shared, path) = (shared(vfs), path(name));
        *out = 0;
        shared.decide(File::by_name(path), path, Method::FullPathname, null_mut()).apply(|| {
            let full = (*shared.unix).xFullPathname;
            full.map_or(SQLITE_ERROR, |full| full(shared.unix, name, n, out))
        })
    }
}

unsafe extern "C" fn x_sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: SQLite passes our VFS; the `unix` VFS gets itself.
    unsafe {
        let shared = shared(vfs);
        let called = Method::Sleep { microseconds };
        match shared.decide(File::Other, Path::new(""), called, null_mut()) {
            Fault::None => (*shared.unix).xSleep.map_or(0, |f| f(shared.unix, microseconds)),
            _ => microseconds,
        }
    }
}

/// Methods of the VFS that only call those of `unix`.
macro_rules! forward {
    ($(fn $ours:ident($($arg:ident: $type:ty),*) -> $ret:ty = $method:ident or $missing:expr;)*) => {$(
        unsafe extern "C" fn $ours(vfs: *mut sqlite3_vfs, $($arg: $type),*) -> $ret {
            // SAFETY: SQLite passes our VFS and what the method asks for; `unix` gets itself.
            unsafe {
                let unix = shared(vfs).unix;
                match (*unix).$method {
                    Some(method) => method(unix, $($arg),*),
                    None => $missing,
                }
            }
        }
    )*};
}

type Symbol = Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void, *const c_char)>;

forward! {
    fn x_dl_open(name: *const c_char) -> *mut c_void = xDlOpen or null_mut();
    fn x_dl_error(n: c_int, out: *mut c_char) -> () = xDlError or ();
    fn x_dl_sym(library: *mut c_void, symbol: *const c_char) -> Symbol = xDlSym or None;
    fn x_dl_close(library: *mut c_void) -> () = xDlClose or ();
    fn x_randomness(n: c_int, out: *mut c_char) -> c_int = xRandomness or 0;
    fn x_current_time(out: *mut f64) -> c_int = xCurrentTime or SQLITE_ERROR;
    fn x_get_last_error(n: c_int, out: *mut c_char) -> c_int = xGetLastError or SQLITE_OK;
    fn x_current_time_int64(out: *mut i64) -> c_int = xCurrentTimeInt64 or SQLITE_ERROR;
    fn x_set_system_call(name: *const c_char, call: sqlite3_syscall_ptr) -> c_int = xSetSystemCall or SQLITE_ERROR;
    fn x_get_system_call(name: *const c_char) -> sqlite3_syscall_ptr = xGetSystemCall or None;
    fn x_next_system_call(name: *const c_char) -> *const c_char = xNextSystemCall or null();
}

/// What a file was opened as, and the file of the `unix` VFS.
///
/// # Safety
/// `file` is an open file of ours.
unsafe fn parts<'f>(file: *mut sqlite3_file) -> (&'f Opened, *mut sqlite3_file) {
    // SAFETY: the caller's promise.
    unsafe { (&*file.cast::<Opened>(), real_file(file)) }
}

/// Methods of a file: the name by which a decision sees each, an answer for [`Fault::Pretend`], and
/// what to note after the call.
macro_rules! methods {
    ($(fn $ours:ident($($arg:ident: $type:ty),*) = $method:ident, $called:expr
       $(, zero $out:ident[$n:expr])? $(, then $note:expr)?;)*) => {$(
        unsafe extern "C" fn $ours(file: *mut sqlite3_file, $($arg: $type),*) -> c_int {
            // SAFETY: SQLite passes an open file and what the method asks for, with room for the
            // answer; the `unix` VFS gets its own file.
            unsafe {
                let (opened, real) = parts(file);
                $($out.cast::<u8>().write_bytes(0, $n as usize);)?
                let fault = opened.shared.decide(opened.file, &opened.path, $called, real);
                fault.apply(|| {
                    let rc = match method(real).$method {
                        Some(method) => method(real, $($arg),*),
                        None => SQLITE_IOERR,
                    };
                    $(note(file, rc, $note);)?
                    rc
                })
            }
        }
    )*};
}

methods! {
    fn x_truncate(size: i64) = xTruncate, Method::Truncate { size };
    fn x_sync(flags: c_int) = xSync, Method::Sync { flags };
    fn x_file_size(size: *mut i64) = xFileSize, Method::FileSize, zero size[8];
    fn x_lock(level: c_int) = xLock, Method::Lock { level }, then Note::Level;
    fn x_unlock(level: c_int) = xUnlock, Method::Unlock { level }, then Note::Level;
    fn x_check_reserved_lock(out: *mut c_int) =
        xCheckReservedLock, Method::CheckReservedLock, zero out[4];
    fn x_file_control(op: c_int, arg: *mut c_void) = xFileControl, Method::FileControl { op };
    fn x_shm_map(region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) =
        xShmMap, Method::ShmMap { region, extend: extend != 0 }, zero out[8];
    fn x_shm_lock(slot: c_int, n: c_int, flags: c_int) =
        xShmLock, Method::ShmLock { slot, n, flags }, then Note::Slots { slot, n, flags };
    fn x_shm_unmap(delete: c_int) =
        xShmUnmap, Method::ShmUnmap { delete: delete != 0 }, then Note::NoSlots;
    fn x_fetch(offset: i64, n: c_int, out: *mut *mut c_void) =
        xFetch, Method::Fetch { offset, len: n as usize }, zero out[8];
    fn x_unfetch(offset: i64, page: *mut c_void) = xUnfetch, Method::Unfetch { offset };
}

unsafe extern "C" fn x_read(
    file: *mut sqlite3_file,
    to: *mut c_void,
    n: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file and room for n bytes; the `unix` VFS gets its own file.
    unsafe {
        let (opened, real) = parts(file);
        to.cast::<u8>().write_bytes(0, n as usize);
        let called = Method::Read { offset, len: n as usize };
        let fault = opened.shared.decide(opened.file, &opened.path, called, real);
        let read = method(real).xRead;
        fault.apply_to_bytes(n, |n| read.map_or(SQLITE_IOERR, |read| read(real, to, n, offset)))
    }
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    from: *const c_void,
    n: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file and n bytes; the `unix` VFS gets its own file.
    unsafe {
        let (opened, real) = parts(file);
        let bytes = std::slice::from_raw_parts(from.cast(), n as usize);
        let called = Method::Write { offset, bytes };
        let fault = opened.shared.decide(opened.file, &opened.path, called, real);
        let write = method(real).xWrite;
        fault.apply_to_bytes(n, |n| write.map_or(SQLITE_IOERR, |f| f(real, from, n, offset)))
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once; the `unix` VFS gets its own.
    unsafe {
        let (opened, real) = parts(file);
        let fault = opened.shared.decide(opened.file, &opened.path, Method::Close, real);
        if opened.file == File::Main {
            // This is done whatever it answered: an unmapping that failed must not leak its locks.
            method(real).xShmUnmap.map(|unmap| unmap(real, 0));
            lock(&opened.shared.locks).remove(&file.addr());
        }
        let rc = method(real).xClose.map_or(SQLITE_IOERR, |close| close(real));
        file.cast::<Opened>().drop_in_place();
        (*file).pMethods = null();
        fault.apply(|| rc)
    }
}

/// Methods of a file that cannot fail.
macro_rules! forward_file {
    ($(fn $ours:ident() -> $ret:ty = $method:ident or $missing:expr;)*) => {$(
        unsafe extern "C" fn $ours(file: *mut sqlite3_file) -> $ret {
            // SAFETY: SQLite passes an open file; the `unix` VFS gets its own.
            unsafe {
                let real = real_file(file);
                method(real).$method.map_or($missing, |method| method(real))
            }
        }
    )*};
}

forward_file! {
    fn x_sector_size() -> c_int = xSectorSize or 0;
    fn x_device_characteristics() -> c_int = xDeviceCharacteristics or 0;
    fn x_shm_barrier() -> () = xShmBarrier or ();
}

/// Which of a file's locks may have changed.
enum Note {
    Level,
    Slots { slot: c_int, n: c_int, flags: c_int },
    NoSlots,
}

/// Notes the locks that a file has after a call that answered `rc`.
///
/// # Safety
/// `file` is an open file of ours.
unsafe fn note(file: *mut sqlite3_file, rc: c_int, note: Note) {
    // SAFETY: the caller's promise.
    let (opened, real) = unsafe { parts(file) };
    let mut locks = lock(&opened.shared.locks);
    let Some(locks) = locks.get_mut(&file.addr()) else { return };
    match note {
        Note::Level => {
            let into = (&raw mut locks.level).cast();
            // SAFETY: the file is open, and the control asks for a place for an int.
            unsafe { method(real).xFileControl.map(|f| f(real, SQLITE_FCNTL_LOCKSTATE, into)) };
        }
        Note::Slots { slot, n, flags } if rc == SQLITE_OK => {
            let slots: u16 = ((1 << n) - 1) << slot;
            locks.shared &= !slots;
            locks.exclusive &= !slots;
            if flags & SQLITE_SHM_UNLOCK == 0 {
                match flags & SQLITE_SHM_EXCLUSIVE {
                    0 => locks.shared |= slots,
                    _ => locks.exclusive |= slots,
                }
            }
        }
        Note::Slots { .. } => {}
        Note::NoSlots => (locks.shared, locks.exclusive) = (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, ErrorCode};

    use super::*;
    use crate::Board;

    fn open(board: &Board, vfs: &str) -> Connection {
        Connection::open(board.uri(vfs)).expect("it opens")
    }

    fn code(result: rusqlite::Result<()>) -> Option<ErrorCode> {
        result.err().and_then(|error| error.sqlite_error_code())
    }

    /// Each decision is applied to the writes of a commit, while the connection is open: only after
    /// the first decision the row exists.
    #[test]
    fn it_does_as_it_is_told() {
        let base = Base::register("base-told");
        let board = Board::new();
        let connection = open(&board, "base-told");
        let run = |sql: &str| connection.execute_batch(sql);
        run("CREATE TABLE t (x)").expect("no fault yet");
        let failed = Some(ErrorCode::SystemIoFailure);
        for (fault, expected) in [
            (Fault::None, None),
            (Fault::Fail(SQLITE_IOERR), failed),
            (Fault::FailAfter(SQLITE_IOERR), failed),
            (Fault::Pretend, None),
        ] {
            base.on(move |call| match call.method {
                Method::Write { .. } if call.file == File::Main => fault,
                _ => Fault::None,
            });
            assert_eq!(code(run("INSERT INTO t VALUES (1)")), expected, "{fault:?}");
            base.off();
            for vfs in ["base-told", "unix"] {
                let count = "SELECT count(*) FROM t";
                let rows = open(&board, vfs).query_row(count, [], |row| row.get(0));
                assert_eq!(rows, Ok(1), "{fault:?} {vfs}");
            }
        }
    }

    /// The locks it reports are those of a transaction, in each journal mode.
    #[test]
    fn it_knows_the_locks() {
        let base = Base::register("base-locks");
        for mode in ["delete", "wal"] {
            let board = Board::new();
            let connection = open(&board, "base-locks");
            let sql = |sql: &str| connection.execute_batch(sql).expect("no fault");
            let to_write = || base.locks().iter().map(Locks::to_write).collect::<Vec<_>>();
            sql(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)"));
            assert_eq!(to_write(), [false], "{mode}");
            sql("BEGIN IMMEDIATE");
            assert_eq!(to_write(), [true], "{mode}");
            sql("COMMIT");
            assert_eq!(to_write(), [false], "{mode}");
            drop(connection);
            assert!(base.locks().is_empty(), "{mode}");
        }
    }

    /// A decision sees the file as it is, and the number of its call.
    #[test]
    fn it_shows_the_file() {
        let base = Base::register("base-file");
        let board = Board::new();
        let connection = open(&board, "base-file");
        connection.execute_batch("CREATE TABLE t (x)").expect("no fault");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        base.on(move |call| {
            lock(&into).push((call.number, call.file, call.size(), call.read::<15>(0)));
            Fault::None
        });
        connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).expect("no fault");
        let seen = lock(&seen);
        assert!(seen.iter().enumerate().all(|(n, call)| call.0 as usize == n), "{seen:?}");
        let main = seen.iter().filter(|call| call.1 == File::Main);
        assert!(main.clone().count() > 0, "{seen:?}");
        assert!(
            main.clone().all(|call| (call.2, &call.3) == (8192, b"SQLite format 3")),
            "{seen:?}"
        );
    }
}

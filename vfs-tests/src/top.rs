//! A VFS over another one, as applications stack them, which keeps main databases in its own form.
//! It delays writes like SQLite's crash-test VFS, or splits the file like SQLite's multiplexor, or
//! changes every byte like a VFS that encrypts.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::fs::FileExt;
use std::ptr::{null, null_mut};

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_IOERR, SQLITE_IOERR_SHORT_READ, SQLITE_OK, SQLITE_OPEN_MAIN_DB,
    SQLITE_OPEN_WAL, sqlite3_file, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};

/// The form in which it keeps a main database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Writes wait for the next sync or unlock; changes of the length do not wait.
    HeldBack,
    /// What follows the first 64 KiB is in another file.
    Split,
    /// Every byte is changed, in the WAL and the journal, too. Only whole pages are written.
    Changed,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HeldBack, Self::Split, Self::Changed];
}

struct Shared {
    below: *mut sqlite3_vfs,
    form: Form,
}

/// An open file. The file of the VFS below comes after it.
#[repr(C)]
struct Opened {
    methods: *const sqlite3_io_methods,
    file: *mut File,
}

struct File {
    form: Option<Form>,
    held: BTreeMap<i64, Vec<u8>>,
    rest: Option<std::fs::File>,
}

/// Where the file of the VFS below begins.
const BELOW: usize = size_of::<Opened>().next_multiple_of(8);

/// How many bytes of a split database are in its first file.
const FIRST: i64 = 65536;

/// Registers a VFS of that name over the VFS named `below`.
///
/// # Panics
/// If there is no VFS `below`, or if `name` is taken.
pub fn register(name: &str, below: &str, form: Form, make_default: bool) {
    let name = CString::new(name).expect("no NUL");
    let below = CString::new(below).expect("no NUL");
    // SAFETY: the names are terminated; the object is complete and never freed.
    unsafe {
        assert!(sqlite3_vfs_find(name.as_ptr()).is_null(), "{name:?} is taken");
        let below = sqlite3_vfs_find(below.as_ptr());
        assert!(!below.is_null(), "no VFS below");
        let shared = Box::into_raw(Box::new(Shared { below, form }));
        let vfs = Box::leak(Box::new(sqlite3_vfs {
            iVersion: 2,
            szOsFile: BELOW as c_int + (*below).szOsFile,
            pNext: null_mut(),
            zName: name.into_raw(),
            pAppData: shared.cast(),
            xOpen: Some(x_open),
            xDelete: Some(x_delete),
            xAccess: Some(x_access),
            xFullPathname: Some(x_full_pathname),
            xRandomness: Some(x_randomness),
            xSleep: Some(x_sleep),
            xCurrentTime: Some(x_current_time),
            xCurrentTimeInt64: Some(x_current_time_int64),
            xGetLastError: None,
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            ..*below
        }));
        assert_eq!(sqlite3_vfs_register(vfs, make_default.into()), SQLITE_OK);
    }
}

/// # Safety
/// `vfs` is one of [`register`].
unsafe fn shared(vfs: *mut sqlite3_vfs) -> &'static Shared {
    // SAFETY: pAppData was set to it, and it lives for ever.
    unsafe { &*(*vfs).pAppData.cast::<Shared>() }
}

macro_rules! forward {
    ($(fn $ours:ident($($arg:ident: $type:ty),*) -> $ret:ty = $method:ident or $missing:expr;)*) => {$(
        unsafe extern "C" fn $ours(vfs: *mut sqlite3_vfs, $($arg: $type),*) -> $ret {
            // SAFETY: SQLite passes our VFS and what the method asks for; the one below gets itself.
            unsafe {
                let below = shared(vfs).below;
                (*below).$method.map_or($missing, |method| method(below, $($arg),*))
            }
        }
    )*};
}

forward! {
    fn x_access(name: *const c_char, flags: c_int, out: *mut c_int) -> c_int = xAccess or SQLITE_IOERR;
    fn x_full_pathname(name: *const c_char, n: c_int, out: *mut c_char) -> c_int = xFullPathname or SQLITE_CANTOPEN;
    fn x_randomness(n: c_int, out: *mut c_char) -> c_int = xRandomness or 0;
    fn x_sleep(microseconds: c_int) -> c_int = xSleep or 0;
    fn x_current_time(out: *mut f64) -> c_int = xCurrentTime or SQLITE_IOERR;
    fn x_current_time_int64(out: *mut i64) -> c_int = xCurrentTimeInt64 or SQLITE_IOERR;
    fn x_delete(name: *const c_char, sync: c_int) -> c_int = xDelete or SQLITE_IOERR;
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
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
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our VFS, a name, and memory of our szOsFile; the VFS below gets itself, the name
    // that SQLite has passed, and memory of its szOsFile.
    unsafe {
        (*file).pMethods = null();
        let shared = shared(vfs);
        let below = file.cast::<u8>().add(BELOW).cast::<sqlite3_file>();
        (*below).pMethods = null();
        let rc = match (*shared.below).xOpen {
            Some(open) => open(shared.below, name, below, flags, out_flags),
            None => SQLITE_CANTOPEN,
        };
        if rc != SQLITE_OK {
            return rc;
        }
        let is_main = flags & SQLITE_OPEN_MAIN_DB != 0 && !name.is_null();
        let form = Some(shared.form)
            .filter(|form| is_main || *form == Form::Changed && flags & SQLITE_OPEN_WAL != 0);
        let rest = form.filter(|form| *form == Form::Split).map(|_| {
            let name = CStr::from_ptr(name).to_str().expect("UTF-8");
            let mut options = std::fs::File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(format!("{name}-rest")).expect("a file")
        });
        let state = Box::into_raw(Box::new(File { form, held: BTreeMap::new(), rest }));
        file.cast::<Opened>().write(Opened { methods: &raw const METHODS, file: state });
        SQLITE_OK
    }
}

/// The state of a file, and the file of the VFS below.
///
/// # Safety
/// `file` is an open file of ours.
unsafe fn parts<'f>(file: *mut sqlite3_file) -> (&'f mut File, Below) {
    // SAFETY: the caller's promise; SQLite uses a file from one thread at a time.
    unsafe {
        let below = file.cast::<u8>().add(BELOW).cast::<sqlite3_file>();
        (&mut *(*file.cast::<Opened>()).file, Below(below))
    }
}

/// The open file of the VFS below.
#[derive(Clone, Copy)]
struct Below(*mut sqlite3_file);

macro_rules! call {
    ($below:expr, $method:ident, $missing:expr $(, $arg:expr)*) => {{
        let below: *mut sqlite3_file = $below.0;
        // SAFETY: the file is open, and gets what SQLite has passed, or memory of this function.
        unsafe { (*(*below).pMethods).$method.map_or($missing, |method| method(below, $($arg),*)) }
    }};
}

impl Below {
    fn read(self, into: &mut [u8], at: i64) -> c_int {
        call!(self, xRead, SQLITE_IOERR, into.as_mut_ptr().cast(), into.len() as c_int, at)
    }

    fn write(self, bytes: &[u8], at: i64) -> c_int {
        call!(self, xWrite, SQLITE_IOERR, bytes.as_ptr().cast(), bytes.len() as c_int, at)
    }

    fn size(self) -> i64 {
        let mut size = 0;
        assert_eq!(call!(self, xFileSize, SQLITE_IOERR, &raw mut size), SQLITE_OK);
        size
    }
}

impl File {
    fn flush(&mut self, below: Below) -> c_int {
        let held = std::mem::take(&mut self.held);
        held.iter().map(|(at, bytes)| below.write(bytes, *at)).max().unwrap_or(SQLITE_OK)
    }

    fn size(&self, below: Below) -> i64 {
        let held = self.held.iter().map(|(at, bytes)| at + bytes.len() as i64).max();
        let rest = self.rest.as_ref().map_or(0, |rest| rest.metadata().expect("it is open").len());
        match rest {
            0 => below.size().max(held.unwrap_or(0)),
            rest => FIRST + rest as i64,
        }
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once.
    let below = unsafe {
        let (state, below) = parts(file);
        state.flush(below);
        drop(Box::from_raw(std::ptr::from_mut(state)));
        (*file).pMethods = null();
        below
    };
    call!(below, xClose, SQLITE_IOERR)
}

unsafe extern "C" fn x_read(file: *mut sqlite3_file, to: *mut c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite passes an open file and room for n bytes.
    let ((state, below), into) =
        unsafe { (parts(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), n as usize)) };
    into.fill(0);
    match state.form {
        Some(Form::HeldBack) => {
            below.read(into, at);
            let end = at + i64::from(n);
            for (start, bytes) in &state.held {
                for (nth, byte) in bytes.iter().enumerate() {
                    let place = start + nth as i64;
                    if (at..end).contains(&place) {
                        into[(place - at) as usize] = *byte;
                    }
                }
            }
            if state.size(below) < end { SQLITE_IOERR_SHORT_READ } else { SQLITE_OK }
        }
        Some(Form::Split) if at >= FIRST => {
            let rest = state.rest.as_ref().expect("it is split");
            match rest.read_exact_at(into, (at - FIRST) as u64) {
                Ok(()) => SQLITE_OK,
                Err(_) => SQLITE_IOERR_SHORT_READ,
            }
        }
        Some(Form::Changed) => {
            let rc = below.read(into, at);
            if rc == SQLITE_OK {
                into.iter_mut().for_each(|byte| *byte ^= 0x5a);
            }
            rc
        }
        _ => below.read(into, at),
    }
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    from: *const c_void,
    n: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (state, below) = unsafe { parts(file) };
    // SAFETY: SQLite passes n bytes.
    let bytes = || unsafe { std::slice::from_raw_parts(from.cast::<u8>(), n as usize) };
    match state.form {
        Some(Form::HeldBack) => {
            state.held.insert(at, bytes().to_vec());
            SQLITE_OK
        }
        Some(Form::Split) if at >= FIRST => {
            let rest = state.rest.as_ref().expect("it is split");
            match rest.write_all_at(bytes(), (at - FIRST) as u64) {
                Ok(()) => SQLITE_OK,
                Err(_) => SQLITE_IOERR,
            }
        }
        Some(Form::Changed) => {
            // In place, like SQLite's checksum VFS, which writes its checksums into SQLite's
            // buffer.
            let change = || {
                // SAFETY: SQLite's own buffers can be written to.
                let bytes = unsafe {
                    std::slice::from_raw_parts_mut(from.cast_mut().cast::<u8>(), n as usize)
                };
                bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
            };
            change();
            let rc = call!(below, xWrite, SQLITE_IOERR, from, n, at);
            change();
            rc
        }
        _ => below.write(bytes(), at),
    }
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (state, below) = unsafe { parts(file) };
    state.held.retain(|at, _| *at < size);
    let size = match &state.rest {
        Some(rest) => {
            rest.set_len((size - FIRST).max(0) as u64).expect("it is open");
            size.min(FIRST)
        }
        None => size,
    };
    call!(below, xTruncate, SQLITE_IOERR, size)
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (state, below) = unsafe { parts(file) };
    match state.flush(below) {
        SQLITE_OK => call!(below, xSync, SQLITE_IOERR, flags),
        rc => rc,
    }
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite passes an open file, and a place for the answer.
    unsafe {
        let (state, below) = parts(file);
        *size = state.size(below);
    }
    SQLITE_OK
}

unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (state, below) = unsafe { parts(file) };
    state.flush(below);
    call!(below, xUnlock, SQLITE_IOERR, level)
}

unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    at: c_int,
    n: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (state, below) = unsafe { parts(file) };
    state.flush(below);
    call!(below, xShmLock, SQLITE_IOERR, at, n, flags)
}

macro_rules! forward_file {
    ($(fn $ours:ident($($arg:ident: $type:ty),*) -> $ret:ty = $method:ident or $missing:expr;)*) => {$(
        unsafe extern "C" fn $ours(file: *mut sqlite3_file, $($arg: $type),*) -> $ret {
            // SAFETY: SQLite passes an open file.
            let (_, below) = unsafe { parts(file) };
            call!(below, $method, $missing $(, $arg)*)
        }
    )*};
}

forward_file! {
    fn x_lock(level: c_int) -> c_int = xLock or SQLITE_IOERR;
    fn x_check_reserved_lock(out: *mut c_int) -> c_int = xCheckReservedLock or SQLITE_IOERR;
    fn x_file_control(op: c_int, arg: *mut c_void) -> c_int = xFileControl or SQLITE_IOERR;
    fn x_sector_size() -> c_int = xSectorSize or 0;
    fn x_device_characteristics() -> c_int = xDeviceCharacteristics or 0;
    fn x_shm_map(region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int = xShmMap or SQLITE_IOERR;
    fn x_shm_barrier() -> () = xShmBarrier or ();
    fn x_shm_unmap(delete: c_int) -> c_int = xShmUnmap or SQLITE_IOERR;
}

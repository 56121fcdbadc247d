//! A disk whose syncs take longer: a VFS over SQLite's `unix` that sleeps before each sync.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::ffi::{
    SQLITE_ERROR, SQLITE_IOERR_FSYNC, SQLITE_OK, sqlite3_file, sqlite3_io_methods, sqlite3_vfs,
    sqlite3_vfs_find, sqlite3_vfs_register,
};

/// The name of the VFS.
pub(crate) const NAME: &str = "slow";

static MS: AtomicU64 = AtomicU64::new(0);

/// How long each sync sleeps, in ms, beside its own time.
pub fn set(ms: u64) {
    MS.store(ms, Ordering::Relaxed);
}

pub(crate) fn ms() -> u64 {
    MS.load(Ordering::Relaxed)
}

/// Registers it. With syncs that sleep for no time it is `unix` by another name.
pub(crate) fn register() -> super::Result<()> {
    // SAFETY: the names are terminated; the object is complete and never freed.
    unsafe {
        if !sqlite3_vfs_find(c"slow".as_ptr()).is_null() {
            return Ok(());
        }
        let unix = sqlite3_vfs_find(c"unix".as_ptr());
        let mut vfs = Box::new(*unix.as_ref().ok_or("no unix VFS")?);
        vfs.zName = c"slow".as_ptr();
        vfs.xOpen = Some(x_open);
        match sqlite3_vfs_register(Box::leak(vfs), 0) {
            SQLITE_OK => Ok(()),
            rc => Err(format!("error {rc}").into()),
        }
    }
}

/// A table of `unix` and ours that takes its place.
type Tables = (usize, &'static sqlite3_io_methods);

static TABLES: Mutex<Vec<Tables>> = Mutex::new(Vec::new());

unsafe extern "C" fn x_open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's own arguments go on to the VFS this is a copy of; an open file has a table.
    unsafe {
        let unix = sqlite3_vfs_find(c"unix".as_ptr());
        let rc =
            (*unix).xOpen.map_or(SQLITE_ERROR, |open| open(unix, name, file, flags, out_flags));
        if rc == SQLITE_OK && ms() > 0 {
            let table = (*file).pMethods;
            let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
            let known = tables.iter().find(|(of, _)| *of == table.addr()).map(|(_, ours)| *ours);
            let ours = known.unwrap_or_else(|| {
                let ours = sqlite3_io_methods { xSync: Some(x_sync), ..*table };
                let ours: &'static _ = Box::leak(Box::new(ours));
                SYNC.store((*table).xSync.map_or(0, |sync| sync as usize), Ordering::Relaxed);
                tables.push((table.addr(), ours));
                ours
            });
            (*file).pMethods = ours;
        }
        rc
    }
}

/// xSync of `unix`, the same for all its tables.
static SYNC: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    std::thread::sleep(Duration::from_millis(ms()));
    let sync = SYNC.load(Ordering::Relaxed);
    if sync == 0 {
        return SQLITE_IOERR_FSYNC;
    }
    // SAFETY: it was stored before a file had this method, and is of that type.
    unsafe {
        let sync: unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int =
            std::mem::transmute(sync);
        sync(file, flags)
    }
}

//! A program has replaced SQLite's fcntl(2) by its own, to see each call or to make it elsewhere, before the
//! VFS was registered: it still sees each.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi::sqlite3_vfs_find;

static SEEN: AtomicU32 = AtomicU32::new(0);

type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

unsafe extern "C" fn seeing(file: c_int, command: c_int, argument: *mut c_void) -> c_int {
    if [libc::F_SETLK, libc::F_OFD_SETLK].contains(&command) {
        SEEN.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: SQLite's own call, or the VFS's, passed on.
    unsafe { libc::fcntl(file, command, argument) }
}

/// A transaction that reads locks a slot of the wal-index and unlocks it, on the stock VFS and on ours: the
/// program sees both calls, also when they have long been known.
#[test]
fn it_sees_each_lock() {
    // SAFETY: the unix VFS is registered for good; fcntl is what it calls by that name.
    unsafe {
        let unix = &mut *sqlite3_vfs_find(c"unix".as_ptr());
        let seeing = std::mem::transmute::<Fcntl, unsafe extern "C" fn()>(seeing);
        let rc = unix.xSetSystemCall.unwrap()(unix, c"fcntl".as_ptr(), Some(seeing));
        assert_eq!(rc, rusqlite::ffi::SQLITE_OK);
    }
    let directory = tempfile::tempdir().unwrap();
    for vfs in ["unix", "kanban"] {
        if vfs == "kanban" {
            kanban_vfs::register(&kanban_vfs::Options::default()).unwrap();
        }
        let board = directory.path().join(vfs);
        let uri = format!("file:{}?vfs={vfs}", board.display());
        let connection = rusqlite::Connection::open(uri).unwrap();
        connection.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
        let read = || connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        // Leaves its mark in the slot.
        read();
        for _ in 0..3 {
            let before = SEEN.load(Ordering::Relaxed);
            read();
            assert_eq!(SEEN.load(Ordering::Relaxed), before + 2, "{vfs}");
        }
    }
}

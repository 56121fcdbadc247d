//! A program has replaced SQLite's fcntl(2) by its own, to see each call or to make it elsewhere, before the
//! VFS was registered: it still sees each.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rusqlite::ffi::sqlite3_vfs_find;

static SEEN: AtomicU32 = AtomicU32::new(0);
static FAILS: AtomicBool = AtomicBool::new(false);

type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

/// Counts locks, and can make an unlock of a whole file fail.
unsafe extern "C" fn seeing(file: c_int, command: c_int, argument: *mut c_void) -> c_int {
    if [libc::F_SETLK, libc::F_OFD_SETLK].contains(&command) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: these commands come with a lock.
        let lock = unsafe { &*argument.cast::<libc::flock>() };
        let gives_all_back = i32::from(lock.l_type) == libc::F_UNLCK && lock.l_len == 0;
        if gives_all_back && FAILS.swap(false, Ordering::Relaxed) {
            // SAFETY: this thread's own.
            unsafe { *libc::__errno_location() = libc::ENOLCK };
            return -1;
        }
    }
    // SAFETY: SQLite's own call, or the VFS's, passed on.
    unsafe { libc::fcntl(file, command, argument) }
}

/// On the stock VFS, and then on ours, which replaces system calls of the stock VFS, too.
#[test]
fn it_sees_each_lock() {
    // SAFETY: the unix VFS is registered for good; fcntl is what it calls by that name.
    unsafe {
        let unix = &mut *sqlite3_vfs_find(c"unix".as_ptr());
        let seeing = std::mem::transmute::<Fcntl, unsafe extern "C" fn()>(seeing);
        let rc = unix.xSetSystemCall.unwrap()(unix, c"fcntl".as_ptr(), Some(seeing));
        assert_eq!(rc, rusqlite::ffi::SQLITE_OK);
    }
    for vfs in ["unix", "kanban"] {
        if vfs == "kanban" {
            kanban_vfs::register(&kanban_vfs::Options::default()).unwrap();
        }
        sees_reads(vfs);
        assert_eq!(is_locked_after_a_failed_unlock(vfs), vfs == "unix");
    }
}

/// A transaction that reads locks a slot of the wal-index and unlocks it: the program sees both calls, also
/// when they have long been known.
fn sees_reads(vfs: &str) {
    let directory = tempfile::tempdir().unwrap();
    let uri = format!("file:{}?vfs={vfs}", directory.path().join("board.db").display());
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

/// The last unlock of a transaction in a rollback mode fails, once, and SQLite takes it for done: on the stock
/// VFS the database stays locked. Here the program sees the call once more.
fn is_locked_after_a_failed_unlock(vfs: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let board = directory.path().join("board.db");
    let connection =
        rusqlite::Connection::open(format!("file:{}?vfs={vfs}", board.display())).unwrap();
    connection.execute_batch("PRAGMA journal_mode=delete; CREATE TABLE t (x)").unwrap();
    FAILS.store(true, Ordering::Relaxed);
    connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
    assert!(!FAILS.load(Ordering::Relaxed), "it has failed");
    // Closed when it is known: that drops the stock VFS's locks.
    let looking = std::fs::File::options().read(true).write(true).open(&board).unwrap();
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    // SAFETY: an open file and a struct to fill in.
    let rc = unsafe { libc::fcntl(looking.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(rc, 0);
    i32::from(lock.l_type) != libc::F_UNLCK
}

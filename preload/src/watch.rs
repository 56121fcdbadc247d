//! Reports a database that is used without this VFS, if `KANBAN_REQUIRE=1`.
//!
//! SQLite's own VFS locks a database by fcntl(2) before its first read, at bytes that no other
//! program locks (<https://www.sqlite.org/fileformat2.html#the_lock_byte_page>). This VFS takes its
//! locks without the C library. That is true even for the POSIX locks that it falls back to when
//! the program itself has locked the whole database. So a call for such a lock that comes here is a
//! stock connection's, even if its SQLite is linked statically and cannot be reached.

use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::{behind_us, environment, is_wanted, keeping_errno, sqlite, tell};

/// The C library's fcntl(2), once it is known.
static FCNTL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Whether the line was written. Children of fork(2) inherit this, as they inherit the connection.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// Finds the C library's function. To be called when this library is loaded, since a signal handler
/// may call fcntl(2), but not dlsym(3).
pub(crate) fn find() {
    real();
}

/// The C library's fcntl(2).
fn real() -> *mut c_void {
    // glibc before 2.28 has only the second name.
    behind_us(&FCNTL, &[c"fcntl64", c"fcntl"])
}

/// Like the C library's fcntl(2), which it calls with the same arguments.
///
/// # Safety
/// As the C library's.
pub(crate) unsafe fn fcntl(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
    type Fcntl = unsafe extern "C" fn(c_int, c_int, ...) -> c_int;
    // SAFETY: it is the C library's function, which is of that type; the caller's promise.
    let made = unsafe { transmute::<*mut c_void, Fcntl>(real())(descriptor, command, argument) };
    let is_lock = matches!(command, libc::F_SETLK | libc::F_SETLKW);
    if is_lock && made == 0 && !IS_TOLD.load(Ordering::Relaxed) {
        // SAFETY: the kernel has just read such a struct there; before, anything might have been passed.
        if unsafe { argument.cast::<libc::flock>().as_ref() }.is_some_and(is_sqlites) {
            keeping_errno(|| tell_of(descriptor));
        }
    }
    made
}

/// Whether it is a lock that only SQLite takes, on a database: SHARED, which every connection takes
/// before it reads.
fn is_sqlites(lock: &libc::flock) -> bool {
    const SHARED: (i64, i64) = (0x4000_0002, 510);
    let is_taken = c_int::from(lock.l_type) != libc::F_UNLCK;
    is_taken && c_int::from(lock.l_whence) == libc::SEEK_SET && (lock.l_start, lock.l_len) == SHARED
}

/// Reports a stock connection to the database behind a descriptor, once in a process, if
/// `KANBAN_REQUIRE=1`.
fn tell_of(descriptor: c_int) {
    let is_asked_for = is_wanted() && environment(c"KANBAN_REQUIRE") == Some(b"1");
    if !is_asked_for || IS_TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap_or_default();
    let path = path.display();
    if sqlite::is_extension_loaded() {
        tell::line(format_args!(
            "{path} is locked by SQLite's own VFS, past kanban: a connection names another VFS, or belongs to a \
             copy of SQLite that is linked statically; KANBAN_REQUIRE=0 keeps this quiet"
        ));
    } else {
        tell::line(format_args!(
            "{path} is locked by SQLite's own VFS: no SQLite of this process could be reached, since none is linked \
             dynamically; load the extension there (docs/clients.md); KANBAN_REQUIRE=0 keeps this quiet"
        ));
    }
}

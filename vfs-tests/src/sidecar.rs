//! The sidecar as an outsider sees it, according to `docs/locking-protocol.md` and without the
//! crate's code.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The byte that every holder of the write lock locks.
pub const WRITE_BYTE: i64 = 8192;

/// The process that has the write lock; `None` if no process has it.
///
/// # Panics
/// If the sidecar cannot be opened, or the lock is not a holder's.
#[must_use]
pub fn holder(sidecar: &Path) -> Option<u32> {
    if !sidecar.exists() {
        return None;
    }
    let file = OpenOptions::new().read(true).write(true).open(sidecar).expect("it is a file");
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = WRITE_BYTE;
    lock.l_len = 1;
    // SAFETY: the descriptor is open, the struct is what the command asks for.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return None;
    }
    assert!((WRITE_BYTE - 1..=WRITE_BYTE).contains(&lock.l_start), "{}", lock.l_start);
    let last = lock.l_start + lock.l_len - 1;
    Some((last - WRITE_BYTE) as u32 & 0x3f_ffff)
}

/// Takes the write lock of a sidecar without being a client of its database. It is released when
/// the file is dropped.
///
/// # Panics
/// If another has it.
#[must_use]
pub fn hold(sidecar: &Path) -> std::fs::File {
    let file = OpenOptions::new().read(true).write(true).open(sidecar).expect("it is a file");
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = WRITE_BYTE;
    lock.l_len = 1 + i64::from(std::process::id());
    // SAFETY: the descriptor is open, the struct is what the command asks for.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    file
}

/// Whether any process has a lock on that byte.
///
/// # Panics
/// If the kernel does not answer.
#[must_use]
pub fn is_locked(sidecar: &std::fs::File, byte: i64) -> bool {
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = byte;
    lock.l_len = 1;
    // SAFETY: the descriptor is open, the struct is what the command asks for.
    let rc = unsafe { libc::fcntl(sidecar.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    i32::from(lock.l_type) != libc::F_UNLCK
}

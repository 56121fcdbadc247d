//! Locks on ranges of bytes: fcntl(2), "Open file description locks" and "Advisory record locking".

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::descriptors::{Kept, beyond_standard, read_text};
use super::inode::{Inode, can_be_database, inode_of};
use super::large_files::{F_SETLK, Flock};
use super::processes::{is_listed, is_lock_of, lock_of};
use super::this_process::pid;
use crate::sys::{FileLock, Range};

/// The struct by which fcntl(2) takes a lock of `range`.
fn flock(kind: impl Into<libc::c_int>, range: Range) -> Flock {
    #[allow(clippy::needless_update, reason = "it has more fields on other systems")]
    Flock {
        l_type: kind.into() as _,
        l_whence: libc::SEEK_SET as _,
        l_start: range.start,
        l_len: range.len,
        // The kernel demands it of an open-file-description lock.
        l_pid: 0,
        // SAFETY: all fields of this struct are integers.
        ..unsafe { std::mem::zeroed() }
    }
}

/// Makes a lock call, and repeats it if a signal interrupts it.
#[inline(always)]
fn fcntl(file: &impl AsRawFd, command: libc::c_int, lock: &mut Flock) -> io::Result<()> {
    loop {
        // SAFETY: these commands ask for this struct; a descriptor that is not open is an error.
        match unsafe { fcntl_lock(file.as_raw_fd(), command, lock) } {
            Ok(()) => return Ok(()),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// fcntl(2) for a lock that does not wait; its errno(3) if it fails. It bypasses the C library, whose fcntl spends some 35
/// instructions a call on commands that can wait or take no struct. Each transaction makes several such calls.
///
/// # Safety
/// `lock` is what the command asks for.
#[inline]
pub(crate) unsafe fn fcntl_lock(
    descriptor: RawFd,
    command: libc::c_int,
    lock: *mut Flock,
) -> Result<(), libc::c_int> {
    #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    // SAFETY: the caller's promise. The kernel's `struct flock` is the C library's here.
    let made = unsafe {
        use syscalls::{Errno, Sysno, raw::syscall3};
        let nr = Sysno::fcntl as usize;
        let lock = lock.expose_provenance();
        // The kernel takes unsigned numbers, of 32 bits.
        let rc = syscall3(nr, descriptor as u32 as usize, command as u32 as usize, lock);
        Errno::from_ret(rc).map(drop).map_err(Errno::into_raw)
    };
    #[cfg(not(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )))]
    let made = {
        #[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "32")))]
        // SAFETY: the caller's promise.
        let rc = unsafe { libc::fcntl(descriptor, command, lock) };
        // glibc's fcntl reads offsets of 32 bits. Before 2.28 it passes on the locks of open file descriptions unread, and the
        // kernel reads 64.
        #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "32"))]
        // SAFETY: the caller's promise; this call takes offsets of 64 bits.
        let rc = unsafe { libc::syscall(libc::SYS_fcntl64, descriptor, command, lock) };
        match rc {
            -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()),
            _ => Ok(()),
        }
    };
    made
}

/// Takes an exclusive or shared open-file-description lock on `range`; false if another open file description has a lock in
/// its way. The lock replaces what this description had locked there. The kernel releases it when the last descriptor of
/// the description is closed. That is at the latest when the process dies, unless a child inherited the description.
/// fcntl(2)
#[doc(alias = "F_OFD_SETLK")]
#[inline(always)]
pub(crate) fn try_lock(file: &impl AsRawFd, range: Range, shared: bool) -> io::Result<bool> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    is_granted(fcntl(file, libc::F_OFD_SETLK, &mut flock(kind, range)))
}

/// Whether a lock was granted; false if another is in its way.
fn is_granted(made: io::Result<()>) -> io::Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether [`try_lock`] failed because the kernel, or the file system, has no such locks. fcntl(2)
pub(crate) fn has_no_locks(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// Releases all locks of this open file description on `range`. fcntl(2)
#[doc(alias = "F_UNLCK")]
#[inline]
pub(crate) fn unlock(file: &impl AsRawFd, range: Range) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, &mut flock(libc::F_UNLCK, range))
}

/// The range of a lock that keeps this open file description from locking `range` exclusively; `None` if there is none.
/// fcntl(2)
#[doc(alias = "F_OFD_GETLK")]
pub(crate) fn conflicting_lock(file: &impl AsRawFd, range: Range) -> io::Result<Option<Range>> {
    let found = lock_in_the_way(file, &flock(libc::F_WRLCK, range))?;
    Ok(found.map(|lock| Range { start: lock.l_start, len: lock.l_len }))
}

/// An open file, and the locks of its open file description. A file that was just opened has none.
pub(crate) type LockFile = Kept;

impl LockFile {
    /// Its descriptor, which a child of fork(2) inherits.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.as_raw_fd()
    }

    /// Takes a lock: [`try_lock`].
    #[inline]
    pub(crate) fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        try_lock(self, range, shared)
    }

    /// Releases locks: [`unlock`].
    #[inline]
    pub(crate) fn unlock(&self, range: Range) -> io::Result<()> {
        unlock(self, range)
    }

    /// The range of a lock of another open file description: [`conflicting_lock`].
    pub(crate) fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        conflicting_lock(self, range)
    }
}

/// Whether [`LockFile::conflicting`] tells the whole range of the lock in the way.
pub(crate) const KERNEL_TELLS_RANGES: bool = true;

/// The files on which this process has POSIX locks, without pipes, terminals and the like. proc(5), /proc/PID/fdinfo
///
/// # Errors
/// There is no /proc.
pub(crate) fn with_posix_locks() -> io::Result<Vec<Inode>> {
    let mut found = Vec::new();
    for descriptor in descriptors_in("/proc/self/fdinfo")? {
        // It is an error if the descriptor was closed meanwhile.
        if can_be_database(descriptor) && matches!(has_posix_locks(descriptor), Ok(true)) {
            found.extend(inode_of(descriptor));
        }
    }
    Ok(found)
}

/// How many descriptors this process has of each file that it has open. proc(5), /proc/PID/fd
///
/// # Errors
/// There is no /proc.
pub(crate) fn descriptors_by_file() -> io::Result<HashMap<Inode, usize>> {
    let mut found = HashMap::new();
    for descriptor in descriptors_in("/proc/self/fd")? {
        if let Ok(inode) = inode_of(descriptor) {
            *found.entry(inode).or_default() += 1;
        }
    }
    Ok(found)
}

/// The descriptors of this process that a directory of proc(5) lists.
fn descriptors_in(directory: &str) -> io::Result<Vec<RawFd>> {
    let names = beyond_standard(|| {
        let entries = std::fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
    })?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// The lock in the way of `lock`, as seen from this open file description; `None` if there is none. fcntl(2)
#[doc(alias = "F_OFD_GETLK")]
pub(crate) fn lock_in_the_way(file: &impl AsRawFd, lock: &Flock) -> io::Result<Option<Flock>> {
    let mut found = *lock;
    found.l_pid = 0;
    fcntl(file, libc::F_OFD_GETLK, &mut found)?;
    let is_free = libc::c_int::from(found.l_type) == libc::c_int::from(libc::F_UNLCK);
    Ok((!is_free).then_some(found))
}

/// Whether the lock that F_OFD_GETLK found is a POSIX lock of this process. fcntl(2)
pub(crate) fn is_own_posix_lock(found: &Flock) -> bool {
    libc::c_int::from(found.l_type) != libc::c_int::from(libc::F_UNLCK)
        && u32::try_from(found.l_pid) == Ok(pid())
}

/// The locks of an open file description. proc(5), /proc/PID/fdinfo
///
/// # Errors
/// It cannot be read.
pub(crate) fn locks_of(descriptor: RawFd) -> io::Result<Vec<FileLock>> {
    let info = read_text(format!("/proc/self/fdinfo/{descriptor}"))?;
    Ok(info.lines().filter_map(lock_of).collect())
}

/// Takes a shared POSIX lock on a range. False if another lock is in its way. fcntl(2)
#[doc(alias = "F_SETLK")]
pub(crate) fn share_by_posix(descriptor: RawFd, range: Range) -> io::Result<bool> {
    is_granted(fcntl(&descriptor, F_SETLK, &mut flock(libc::F_RDLCK, range)))
}

/// Whether this process has POSIX locks on the file `inode` behind `descriptor`, taken by any of its descriptors; `None` if
/// the kernel does not tell. This works also where /proc/self/fdinfo cannot be read. fcntl(2), proc(5), /proc/locks
#[doc(alias = "F_OFD_GETLK")]
pub(crate) fn has_posix_locks_on(descriptor: RawFd, inode: Inode) -> Option<bool> {
    // To an open file description, even the process's own POSIX locks are in the way.
    match lock_in_the_way(&descriptor, &flock(libc::F_WRLCK, Range { start: 0, len: 0 })) {
        Ok(None) => return Some(false),
        Ok(Some(lock)) if is_own_posix_lock(&lock) => return Some(true),
        _ => {}
    }
    // Another lock may hide a POSIX lock of this process.
    is_listed(|line| posix_locker(line) == Some(pid()) && is_lock_of(line, inode)).ok()
}

/// The process of a POSIX lock in a line of /proc/locks such as `1: POSIX  ADVISORY  WRITE 1234 08:01:131081 0 EOF`; `None`
/// if the lock is of another kind, or waits, as in `1: -> POSIX ...`. proc(5)
fn posix_locker(line: &str) -> Option<u32> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "POSIX", _, _, pid, ..] => pid.parse().ok(),
        _ => None,
    }
}

/// Whether this process has POSIX locks on a file that it took by this descriptor. The kernel lists
/// a lock only at the descriptor by which it was taken. proc(5), /proc/PID/fdinfo
///
/// # Errors
/// There is no /proc, or the descriptor is not open.
pub(crate) fn has_posix_locks(descriptor: RawFd) -> io::Result<bool> {
    let info = read_text(format!("/proc/self/fdinfo/{descriptor}"))?;
    let mut locks = info.lines().filter(|line| line.starts_with("lock:"));
    Ok(locks.any(|line| line.contains(" POSIX ")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::sys::for_tests::lock_by_posix;

    /// The kernel shows a POSIX lock of this process by any descriptor of the file, even if another lock, here one of
    /// another open file description, would hide it.
    #[test]
    fn a_lock_of_this_process_is_known_by_any_descriptor() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let [locks, asks, other] = [(); 3].map(|()| file.reopen().expect("it is there"));
        let inode = inode_of(asks.as_raw_fd()).expect("it is open");
        let has = || has_posix_locks_on(asks.as_raw_fd(), inode).expect("it tells");
        let range = Range { start: 5, len: 1 };
        for is_hidden in [false, true] {
            if is_hidden {
                assert!(try_lock(&other, range, true).expect("it can be locked"));
            }
            assert!(!has(), "{is_hidden}");
            lock_by_posix(&locks, range, libc::F_RDLCK);
            assert!(has(), "{is_hidden}");
            lock_by_posix(&locks, range, libc::F_UNLCK);
        }
    }

    #[test]
    fn the_process_of_a_lock_is_read_from_its_line() {
        let line = |kind| format!("1: {kind}  ADVISORY  WRITE 77 08:01:131081 1234 EOF");
        assert_eq!(posix_locker(&line("POSIX")), Some(77));
        for kind in ["OFDLCK", "FLOCK", "-> POSIX"] {
            assert_eq!(posix_locker(&line(kind)), None, "{kind}");
        }
        assert_eq!(posix_locker(""), None);
    }
}

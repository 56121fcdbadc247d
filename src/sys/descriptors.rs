//! This process's open files, by descriptor: proc(5).
//!
//! Whatever this library opens, it opens by [`open`] or [`beyond_standard`]: a descriptor below 3 would be
//! a standard stream to the program, which prints to it, and one day puts another file in its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Inode;

/// The first number that is no standard stream's.
const FIRST: RawFd = 3;

/// Opens a file, by a descriptor that is no standard stream's.
pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = beyond_standard(|| options.open(path))?;
    if file.as_raw_fd() >= FIRST {
        return Ok(file);
    }
    // Another thread has closed a standard stream since.
    duplicate(file.as_raw_fd()).map(File::from)
}

/// Reads all of a file of proc(5).
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    beyond_standard(|| std::fs::read_to_string(path))
}

/// Calls `open` while no descriptor below 3 is free, so that what it opens gets a higher one. To close a
/// low one afterwards would not do: that drops the POSIX locks of this process on the file.
pub(crate) fn beyond_standard<T>(open: impl FnOnce() -> T) -> T {
    let fillers = (!are_taken()).then(fillers);
    let opened = open();
    drop(fillers);
    opened
}

/// Takes the free descriptors below 3, as long as the result lives. Who reads or prints by one of them
/// meanwhile is told that it is closed.
fn fillers() -> Vec<Kept> {
    let mut fillers = Vec::new();
    while let Ok(filler) = File::options().read(true).custom_flags(TO_LOOK).open("/") {
        let is_low = filler.as_raw_fd() < FIRST;
        fillers.push(Kept::new(filler));
        if !is_low {
            break;
        }
    }
    fillers
}

/// Opens a file to look at, not to read: no right to read it is needed, and none is had.
#[doc(alias = "O_PATH")]
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const TO_LOOK: libc::c_int = libc::O_PATH;
/// Where there is no such thing, it is opened to read.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const TO_LOOK: libc::c_int = 0;

/// Whether each descriptor below 3 is open. poll(2)
#[doc(alias = "POLLNVAL")]
fn are_taken() -> bool {
    let mut low = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: so many structs; it does not wait.
    let rc = unsafe { libc::poll(low.as_mut_ptr(), low.len() as libc::nfds_t, 0) };
    rc >= 0 && low.iter().all(|descriptor| descriptor.revents & libc::POLLNVAL == 0)
}

/// A file that is kept open. The program may close its descriptor behind our back, which then is another
/// file's next: that one is not closed.
#[derive(Debug)]
pub(crate) struct Kept {
    file: ManuallyDrop<File>,
    inode: Option<Inode>,
}

impl Kept {
    pub(crate) fn new(file: File) -> Self {
        let inode = inode_of(file.as_raw_fd()).ok();
        Self { file: ManuallyDrop::new(file), inode }
    }

    #[inline(always)]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the descriptor is this file's still, as far as the kernel tells.
    pub(crate) fn is_intact(&self) -> bool {
        self.inode.is_none_or(|inode| is_of(self.as_raw_fd(), inode))
    }
}

impl AsRawFd for Kept {
    #[inline(always)]
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.is_intact() {
            // SAFETY: it is dropped here only, and once.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

/// Whether a descriptor is that file's: neither closed nor another's. If the kernel fails to tell, it is, and so is
/// not left open for good.
pub(crate) fn is_of(descriptor: RawFd, inode: Inode) -> bool {
    match inode_of(descriptor) {
        Ok(found) => found == inode,
        Err(error) => error.raw_os_error() != Some(libc::EBADF),
    }
}

/// The file behind a descriptor. fstat(2)
pub(crate) fn inode_of(descriptor: RawFd) -> io::Result<Inode> {
    let mut found = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a struct to fill in; a descriptor that is not open is an error.
    let found = unsafe {
        if libc::fstat(descriptor, found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    Ok(Inode::of(&found))
}

/// Opens the file behind a descriptor once more: with an open file description of its own, whatever
/// the file is called by now.
pub(crate) fn reopen(descriptor: RawFd, writable: bool) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{descriptor}");
    open(File::options().read(true).write(writable), path.as_ref()).map(OwnedFd::from)
}

/// Whether a descriptor was opened for writing. fcntl(2)
#[doc(alias = "F_GETFL")]
pub(crate) fn is_writable(descriptor: RawFd) -> bool {
    // SAFETY: a descriptor that is not open is an error.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Another descriptor of the same open file description, no standard stream's. fcntl(2)
#[doc(alias = "F_DUPFD_CLOEXEC")]
pub(crate) fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a descriptor that is not open is an error; a new one is nobody else's.
    unsafe {
        match libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, FIRST) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(OwnedFd::from_raw_fd(new)),
        }
    }
}

/// Makes `descriptor` another open file description's, in one step. The one it was is closed.
#[doc(alias = "dup3")]
pub(crate) fn replace(descriptor: RawFd, by: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: both are open; who owns `descriptor` still does.
    #[cfg(target_os = "linux")]
    let rc = unsafe { libc::dup3(by.as_raw_fd(), descriptor, libc::O_CLOEXEC) };
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    let rc = unsafe {
        match libc::dup2(by.as_raw_fd(), descriptor) {
            -1 => -1,
            _ => libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC),
        }
    };
    match rc {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The files on which this process has POSIX locks.
///
/// # Errors
/// If there is no /proc.
pub(crate) fn with_posix_locks() -> io::Result<Vec<Inode>> {
    let mut found = Vec::new();
    let names = beyond_standard(|| {
        let entries = std::fs::read_dir("/proc/self/fdinfo")?;
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
    })?;
    for name in names {
        let Some(descriptor) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have been closed since.
        if let Ok(true) = has_posix_locks(descriptor) {
            found.extend(inode_of(descriptor));
        }
    }
    Ok(found)
}

/// Whether this process has POSIX locks on a file that it asked for by this descriptor. What it has by another one of
/// the same file, the kernel tells of that one only.
///
/// # Errors
/// If there is no /proc.
pub(crate) fn has_posix_locks(descriptor: RawFd) -> io::Result<bool> {
    let info = read_to_string(format!("/proc/self/fdinfo/{descriptor}"))?;
    let mut locks = info.lines().filter(|line| line.starts_with("lock:"));
    Ok(locks.any(|line| line.contains(" POSIX ")))
}

/// In the child of a fork: closes its copy of a descriptor of a file, which leaves the parent's locks alone.
/// One that is another file's by now stays open.
///
/// The owner of the descriptor must never use or close it again.
pub(crate) fn close_inherited(descriptor: RawFd, inode: Inode) {
    if is_of(descriptor, inode) {
        // SAFETY: the caller gives up the child's copy.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
}

/// Makes memory that is shared with other processes this process's own, with what is in it now.
///
/// # Safety
/// `address` and `bytes` are of a mapping that can be written to, from the beginning of a page to the
/// end of one, and no other thread of this process uses it meanwhile.
pub(crate) unsafe fn make_private(address: *mut u8, bytes: usize) -> io::Result<()> {
    let copy: Vec<u8> = {
        // SAFETY: the caller's promise. Others may write to it meanwhile; any bytes will do.
        unsafe { std::slice::from_raw_parts(address, bytes) }.to_vec()
    };
    // SAFETY: the caller's promise: it replaces the mapping, and nothing else.
    unsafe {
        let private = libc::mmap(
            address.cast(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        if private == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        address.copy_from_nonoverlapping(copy.as_ptr(), bytes);
    }
    Ok(())
}

/// The memory that this process shares with others, from each first byte to the one behind the last.
pub(crate) fn shared_memory() -> Vec<(usize, usize)> {
    let maps = read_to_string("/proc/self/maps").unwrap_or_default();
    let shared = maps.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        fields.next()?.ends_with('s').then_some((address(start)?, address(end)?))
    });
    shared.collect()
}

/// Bytes of a page of memory.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: it takes a number and can not fail for this one.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// What only tests do.
#[cfg(test)]
pub(crate) mod for_tests {
    use super::*;
    use crate::sys::Range;

    /// Locks as SQLite does by itself.
    pub(crate) fn lock_by_posix(file: &File, range: Range, kind: libc::c_int) {
        // SAFETY: all of its fields are integers.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        (lock.l_type, lock.l_whence) = (kind as _, libc::SEEK_SET as _);
        (lock.l_start, lock.l_len) = (range.start, range.len);
        // SAFETY: an open file, and what the command asks for.
        let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    }

    /// Locks all of a file as other programs do. flock(2)
    pub(crate) fn flock_all(file: &File) {
        // SAFETY: it takes numbers.
        let rc = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    }

    /// A file that somebody has closed behind our back, and what has its number now.
    pub(crate) fn stale(number: RawFd, inode: Inode) -> Kept {
        // SAFETY: it is another file's, so that it is never closed.
        let file = unsafe { File::from_raw_fd(number) };
        Kept { file: ManuallyDrop::new(file), inode: Some(inode) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::entry_of;

    /// A file that is kept is closed with its owner, unless its number is another's by then.
    #[test]
    fn what_is_another_files_is_not_closed() {
        let (file, other) =
            [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a file")).into();
        let kept = Kept::new(file.reopen().expect("it is there"));
        let (number, inode) = (kept.as_raw_fd(), inode_of(kept.as_raw_fd()).expect("it is open"));
        assert!(kept.is_intact());
        drop(kept);
        assert!(!is_of(number, inode));
        let other = other.reopen().expect("it is there");
        let stale = for_tests::stale(other.as_raw_fd(), inode);
        assert!(!stale.is_intact());
        drop(stale);
        assert!(is_of(other.as_raw_fd(), entry_of(&other).expect("it is open").inode));
    }
}

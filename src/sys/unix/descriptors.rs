//! This process's descriptors: open(2), fcntl(2), dup(2).
//!
//! This library opens files only by [`open`] or [`beyond_standard`]. A program takes a descriptor below 3 for a standard
//! stream: it prints to that descriptor, and one day puts another file in its place
//! (<https://www.sqlite.org/howtocorrupt.html> 1.1).

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use super::inode::{Inode, inode_of, is_of};

/// The first number that is no standard stream's. stdin(3)
const FIRST: RawFd = 3;

/// Opens a file, with a descriptor that is no standard stream's. open(2)
pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = beyond_standard(|| options.open(path))?;
    if file.as_raw_fd() >= FIRST {
        return Ok(file);
    }
    // Another thread closed a standard stream meanwhile.
    duplicate(file.as_raw_fd()).map(File::from)
}

/// Reads all of a file of proc(5). Bytes that are not UTF-8 become U+FFFD: the kernel cuts a program's name after 15 bytes,
/// even in the middle of a character, and a path may have any bytes.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(1024);
    // Not `fs::read`: it would ask for the file's length first, which proc(5) does not tell.
    beyond_standard(|| File::open(path)?.take(u64::MAX).read_to_end(&mut bytes))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Calls `open` while no descriptor below 3 is free, so that the file gets a higher one. To move it and close the low one
/// afterwards would drop the POSIX locks of this process on the file.
pub(crate) fn beyond_standard<T>(open: impl FnOnce() -> T) -> T {
    let fillers = (!are_taken()).then(fillers);
    let opened = open();
    drop(fillers);
    opened
}

/// Takes the free descriptors below 3, for as long as the result lives. A thread that reads or prints by one of them
/// meanwhile gets EBADF, as if the stream were closed.
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

/// How many descriptors SQLite may need after it has opened a database: for a WAL, a wal-index, and a directory that it
/// syncs. The descriptors that we keep open must leave these free: SQLite cannot go on without them, but we can go on without
/// ours.
const LEFT_FOR_SQLITE: RawFd = 3;

/// The limit of this process's descriptors, as it was when the process last came near it; 0 before. getrlimit(2)
static LIMIT: AtomicI32 = AtomicI32::new(0);

/// Whether SQLite's descriptors are free if all below `number` are taken. The kernel gives the lowest free number, so
/// `number` may be the one after the last that was opened.
pub(super) fn leaves_room_from(number: RawFd) -> bool {
    let fits = |limit: RawFd| number <= limit.saturating_sub(LEFT_FOR_SQLITE);
    if fits(LIMIT.load(Ordering::Relaxed)) {
        return true;
    }
    let now = limit();
    LIMIT.store(now, Ordering::Relaxed);
    fits(now)
}

/// The first number that no descriptor of this process may have.
#[doc(alias = "RLIMIT_NOFILE")]
fn limit() -> RawFd {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills in the struct.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX),
        _ => RawFd::MAX,
    }
}

/// Makes sure that one more descriptor of ours leaves free what SQLite may need, after SQLite has got `last`.
///
/// # Errors
/// EMFILE, as from open(2), if it does not.
pub(crate) fn leave_room_after(last: RawFd) -> io::Result<()> {
    // Ours gets the next number.
    match leaves_room_from(last.saturating_add(2)) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
    }
}

/// Like [`leave_room_after`], if it is not known which number was opened last.
///
/// # Errors
/// EMFILE, as from open(2), if it does not.
pub(crate) fn leave_room() -> io::Result<()> {
    let looked = File::options().read(true).custom_flags(TO_LOOK).open("/")?;
    // Our next descriptor gets the number that this one has now.
    leave_room_after(looked.as_raw_fd() - 1)
}

/// Flag to open a file to look at it, not to read it. That needs no right to read it, and gives none. open(2)
#[doc(alias = "O_PATH")]
#[cfg(target_os = "linux")]
pub(super) const TO_LOOK: libc::c_int = libc::O_PATH;
/// Other systems have no O_PATH. There the file is opened for reading.
#[cfg(not(target_os = "linux"))]
pub(super) const TO_LOOK: libc::c_int = 0;

/// Whether each descriptor below 3 is open. poll(2)
#[doc(alias = "POLLNVAL")]
fn are_taken() -> bool {
    let mut low = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: an array of that many structs. With a timeout of 0 the call does not wait.
    let rc = unsafe { libc::poll(low.as_mut_ptr(), low.len() as libc::nfds_t, 0) };
    rc >= 0 && low.iter().all(|descriptor| descriptor.revents & libc::POLLNVAL == 0)
}

/// A file that stays open until this is dropped. The program may close the descriptor behind our back, and another file may
/// get its number: that file is not closed.
#[derive(Debug)]
pub(crate) struct Kept {
    file: ManuallyDrop<File>,
    /// `None` if fstat(2) has failed.
    inode: Option<Inode>,
}

impl Kept {
    /// Keeps an open file.
    pub(crate) fn new(file: File) -> Self {
        let inode = inode_of(file.as_raw_fd()).ok();
        Self { file: ManuallyDrop::new(file), inode }
    }

    /// The file, or another one that has its number by now.
    #[inline(always)]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the descriptor is still this file's, as far as the kernel tells.
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
            // SAFETY: only this drops the file, and once.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

/// Opens the file behind a descriptor once more, with an open file description of its own, whatever
/// the file is called by now. proc(5), /proc/PID/fd
///
/// # Errors
/// There is no /proc, or this process may not open the file so.
pub(crate) fn reopen(descriptor: RawFd, writable: bool) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{descriptor}");
    open(File::options().read(true).write(writable), path.as_ref()).map(OwnedFd::from)
}

/// Whether a descriptor is open for writing. fcntl(2)
#[doc(alias = "F_GETFL")]
pub(crate) fn is_writable(descriptor: RawFd) -> bool {
    // SAFETY: the command takes no argument; a descriptor that is not open is an error.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Another descriptor of the same open file description, no standard stream's. fcntl(2)
#[doc(alias = "F_DUPFD_CLOEXEC")]
pub(crate) fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a descriptor that is not open is an error; the new one belongs to nobody else.
    unsafe {
        match libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, FIRST) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(OwnedFd::from_raw_fd(new)),
        }
    }
}

/// Makes `descriptor` a descriptor of `by`'s open file description, in one step. The open file description that it had before
/// loses this descriptor. The caller owns the number `descriptor`. dup(2)
#[doc(alias = "dup3")]
pub(crate) fn replace(descriptor: RawFd, by: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the call takes numbers; the caller owns the one that becomes another file's.
    #[cfg(target_os = "linux")]
    let rc = unsafe { libc::dup3(by.as_raw_fd(), descriptor, libc::O_CLOEXEC) };
    // SAFETY: the call takes numbers; the caller owns the one that becomes another file's.
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

/// In the child of a fork: closes its copy of a file's descriptor, which leaves the parent's locks alone. If the number is
/// another file's by now, it stays open. close(2)
///
/// The owner of the descriptor must never use or close it again.
pub(crate) fn close_inherited(descriptor: RawFd, inode: Inode) {
    if is_of(descriptor, inode) {
        // SAFETY: the caller gives up the child's copy.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
}

/// Functions that only tests use.
#[cfg(test)]
pub(crate) mod for_tests {
    use super::*;
    use crate::sys::Range;

    /// Takes or releases a POSIX lock, as SQLite does by itself. fcntl(2)
    pub(crate) fn lock_by_posix(file: &File, range: Range, kind: libc::c_int) {
        // SAFETY: all fields of this struct are integers.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        (lock.l_type, lock.l_whence) = (kind as _, libc::SEEK_SET as _);
        (lock.l_start, lock.l_len) = (range.start as _, range.len as _);
        // SAFETY: an open file, and the struct that the command asks for.
        let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    }

    /// Locks all of a file, as other programs do. flock(2)
    pub(crate) fn flock_all(file: &File) {
        // SAFETY: the call takes numbers only.
        let rc = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    }

    /// A file that somebody has closed behind our back. Another file has its number now.
    pub(crate) fn stale(number: RawFd, inode: Inode) -> Kept {
        // SAFETY: the number is another file's, so that this never closes it.
        let file = unsafe { File::from_raw_fd(number) };
        Kept { file: ManuallyDrop::new(file), inode: Some(inode) }
    }
}

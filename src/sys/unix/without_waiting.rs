//! Lines for people. Writing them neither waits nor ends the process. `preload/` compiles this file, too.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

/// Opens a file for [`write_line`].
pub(crate) type Open = fn(&OpenOptions, &Path) -> io::Result<File>;

/// Calls `f` with an open descriptor as a file.
fn with_file<T>(descriptor: RawFd, f: impl FnOnce(&File) -> T) -> T {
    // SAFETY: it is not closed here; if it is not open, each call on it fails.
    f(&ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) }))
}

/// Writes a line by one write(2), unless that would wait: a pipe with room takes a line of PIPE_BUF bytes at once. A broken
/// pipe, or a file that may not grow further, does not end the process: the signals are held back, and removed if this write
/// caused them. The descriptor's flags, which other processes may share, stay as they are. signal(7)
///
/// # Errors
/// Not the whole line was written.
#[doc(alias = "SIGPIPE")]
#[doc(alias = "SIGXFSZ")]
pub(crate) fn write_line(descriptor: RawFd, line: &[u8], open: Open) -> io::Result<()> {
    if line.is_empty() {
        return Ok(());
    }
    let kind = with_file(descriptor, File::metadata)?.file_type();
    let written = without_signals(|| {
        if kind.is_socket() {
            return send(descriptor, line);
        }
        // A write to a regular file does not wait for a reader.
        if !kind.is_fifo() && !kind.is_char_device() {
            return write(descriptor, line);
        }
        match write_now(descriptor, line) {
            Err(why) if why.kind() == io::ErrorKind::Unsupported => {}
            written => return written,
        }
        // A separate open file description, which does not wait. open(2), O_NONBLOCK
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
        match open(&options, Path::new(&format!("/proc/self/fd/{descriptor}"))) {
            Ok(again) => write(again.as_raw_fd(), line),
            // It may wait nevertheless, if others fill the pipe between the two calls.
            Err(_) if is_ready(descriptor) => write(descriptor, line),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    })?;
    if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// How many bytes a call has written, or its error.
fn result_of(written: isize) -> io::Result<usize> {
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

fn write(descriptor: RawFd, line: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer has that length.
    result_of(unsafe { libc::write(descriptor, line.as_ptr().cast(), line.len()) })
}

fn send(descriptor: RawFd, line: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer has that length.
    result_of(unsafe {
        libc::send(descriptor, line.as_ptr().cast(), line.len(), libc::MSG_DONTWAIT)
    })
}

/// Writes as much as needs no wait. pwritev2(2), RWF_NOWAIT
///
/// # Errors
/// `Unsupported` if this kernel, or this kind of file, cannot.
fn write_now(descriptor: RawFd, line: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    {
        let part = libc::iovec { iov_base: line.as_ptr().cast_mut().cast(), iov_len: line.len() };
        let here: libc::c_long = -1;
        // SAFETY: one buffer, which has that length; it is only read.
        let written = unsafe {
            let call = libc::SYS_pwritev2;
            libc::syscall(call, descriptor, &raw const part, 1, here, here, libc::RWF_NOWAIT)
        };
        let is_no_call = |why: &io::Error| {
            matches!(why.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL))
        };
        match result_of(written as isize) {
            Err(why) if is_no_call(&why) => Err(io::ErrorKind::Unsupported.into()),
            written => written,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (descriptor, line);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Whether a write would not wait. poll(2)
fn is_ready(descriptor: RawFd) -> bool {
    let mut ready = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one struct; with a timeout of 0 the call does not wait.
    unsafe { libc::poll(&raw mut ready, 1, 0) == 1 && ready.revents & libc::POLLOUT != 0 }
}

/// Calls `write` so that neither SIGPIPE nor SIGXFSZ ends the process.
fn without_signals<T>(write: impl FnOnce() -> T) -> T {
    let signals = [libc::SIGPIPE, libc::SIGXFSZ];
    // SAFETY: the calls fill in the sets that they get, for which zeros are a value. sigwait(3) returns at once, since the
    // signal is pending.
    unsafe {
        let [mut set, mut before, mut pending]: [libc::sigset_t; 3] = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        let is_pending = |pending: &mut libc::sigset_t| {
            libc::sigpending(&raw mut *pending);
            signals.map(|signal| libc::sigismember(&raw const *pending, signal) == 1)
        };
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
        let were_pending = is_pending(&mut pending);
        let written = write();
        for (nth, is_there) in is_pending(&mut pending).into_iter().enumerate() {
            if is_there && !were_pending[nth] {
                let mut one: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut one);
                libc::sigaddset(&raw mut one, signals[nth]);
                let mut taken = 0;
                libc::sigwait(&raw const one, &raw mut taken);
            }
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        written
    }
}

/// Which file standard error was when it was noted: device and inode.
static STANDARD_ERROR: OnceLock<Option<(u64, u64)>> = OnceLock::new();

/// Notes which file standard error is. Only the first call counts.
pub(crate) fn note_standard_error() {
    STANDARD_ERROR.get_or_init(|| {
        let found = with_file(libc::STDERR_FILENO, File::metadata).ok()?;
        Some((found.dev(), found.ino()))
    });
}

/// Writes a line to standard error, as [`write_line`] does. stderr(3)
///
/// # Errors
/// As for [`write_line`]. Or the program closed standard error, and another file of its own may have the number: it is not the
/// file that was noted, no terminal or the like, and no log that is opened to append.
pub(crate) fn write_line_to_standard_error(line: &[u8], open: Open) -> io::Result<()> {
    note_standard_error();
    let noted = STANDARD_ERROR.get().copied().flatten();
    let found = with_file(libc::STDERR_FILENO, File::metadata)?;
    // SAFETY: the command takes nothing.
    let flags = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_GETFL) };
    let is_log = found.is_file() && flags != -1 && flags & libc::O_APPEND != 0;
    if noted != Some((found.dev(), found.ino())) && !found.file_type().is_char_device() && !is_log {
        return Err(io::ErrorKind::NotFound.into());
    }
    write_line(libc::STDERR_FILENO, line, open)
}

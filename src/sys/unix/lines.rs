//! Lines for people: write(2), which must neither wait nor end the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::descriptors::open;

/// Adds a line to the end of a file, which it creates if need be. open(2), write(2)
///
/// # Errors
/// The file cannot be opened or written, or its other end does not read.
pub(crate) fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    write(open(&options, path)?.as_raw_fd(), line)
}

/// Writes a line to standard error. stderr(3)
///
/// # Errors
/// It is closed, or its other end does not read.
pub(crate) fn write_to_standard_error(line: &[u8]) -> io::Result<()> {
    write(libc::STDERR_FILENO, line)
}

/// Writes a line by one write(2), unless it would wait: a pipe that has room takes a line of PIPE_BUF bytes at once. A broken
/// pipe and a file that is as long as it may be do not end the process: their signals are held back, and taken away if this
/// has caused them. signal(7)
#[doc(alias = "SIGPIPE")]
#[doc(alias = "SIGXFSZ")]
fn write(descriptor: RawFd, line: &[u8]) -> io::Result<()> {
    if line.is_empty() {
        return Ok(());
    }
    let mut ready = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one struct; with a timeout of 0 the call does not wait.
    if unsafe { libc::poll(&raw mut ready, 1, 0) } != 1 || ready.revents & libc::POLLOUT == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let signals = [libc::SIGPIPE, libc::SIGXFSZ];
    // SAFETY: the calls fill in the sets that they get, for which zeros are a value; the buffer has that length. Waiting ends
    // at once: the signal is there.
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
        let written = libc::write(descriptor, line.as_ptr().cast(), line.len());
        let error = io::Error::last_os_error();
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
        if written < 0 { Err(error) } else { Ok(()) }
    }
}

/// Whether a regular file begins with these bytes.
pub(crate) fn begins_with(path: &Path, bytes: &[u8]) -> bool {
    let is_long_enough = |found: std::fs::Metadata| {
        found.is_file() && usize::try_from(found.len()).is_ok_and(|len| len >= bytes.len())
    };
    if !path.metadata().is_ok_and(is_long_enough) {
        return false;
    }
    let mut first = vec![0; bytes.len()];
    let read = |mut file: File| file.read_exact(&mut first);
    open(OpenOptions::new().read(true), path).and_then(read).is_ok() && first == bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// A log is a pipe whose reader is gone. A program in C, which does not ignore SIGPIPE, goes on.
    #[test]
    fn a_broken_pipe_ends_nobody() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        // SAFETY: a number and a function of the C library's.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let written = write(writer.as_raw_fd(), b"x\n");
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, before) };
        assert_eq!(written.map_err(|why| why.kind()), Err(io::ErrorKind::BrokenPipe));
    }

    /// A pipe is full, since nobody reads: the line is lost, and nobody waits.
    #[test]
    fn a_full_pipe_keeps_nobody() {
        let (_reader, mut writer) = std::io::pipe().expect("a pipe");
        // SAFETY: the descriptor is open; these commands take and give numbers.
        unsafe {
            let size = libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096);
            writer.write_all(&vec![b'x'; usize::try_from(size).expect("a size")]).expect("room");
        }
        let written = write(writer.as_raw_fd(), b"x\n");
        assert_eq!(written.map_err(|why| why.kind()), Err(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn a_line_comes_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        append(&path, b"one\n").expect("it is written");
        append(&path, b"two\n").expect("it is written");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"one\ntwo\n");
        assert!(begins_with(&path, b"one") && !begins_with(&path, b"two"));
        assert!(!begins_with(&path, b"one\ntwo\nthree") && !begins_with(directory.path(), b""));
        // Nobody has it open: opening a FIFO would wait.
        let fifo = directory.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).stdin(Stdio::null()).status();
        assert!(made.expect("mkfifo").success());
        append(&fifo, b"three\n").expect_err("nobody reads");
        assert!(!begins_with(&fifo, b"three"));
    }
}

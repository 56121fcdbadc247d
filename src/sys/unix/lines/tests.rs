use super::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// A log is a pipe whose reader is gone. A program in C that does not ignore SIGPIPE goes on.
#[test]
fn a_broken_pipe_ends_nobody() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    // SAFETY: a number and a function of the C library's.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let written = write_line(writer.as_raw_fd(), b"x\n", open);
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPIPE, before) };
    assert_eq!(written.map_err(|why| why.kind()), Err(io::ErrorKind::BrokenPipe));
}

/// A pipe is full, since nobody reads it: the line is lost, and nobody waits.
#[test]
fn a_full_pipe_keeps_nobody() {
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the descriptor is open; these commands take and give numbers.
    unsafe {
        let size = libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096);
        writer.write_all(&vec![b'x'; usize::try_from(size).expect("a size")]).expect("room");
    }
    let written = write_line(writer.as_raw_fd(), b"x\n", open);
    assert_eq!(written.map_err(|why| why.kind()), Err(io::ErrorKind::WouldBlock));
}

/// A pipe has room for only a part of the line, as if others had filled it after poll(2) said that there is room.
/// The rest is lost, and nobody waits. The flags, which its other users share, stay as they are.
#[test]
#[cfg(target_os = "linux")]
fn a_pipe_that_fills_meanwhile_keeps_nobody() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let descriptor = writer.as_raw_fd();
    // SAFETY: the descriptor is open; these commands take and give numbers.
    let flags = || unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    // SAFETY: as above.
    let size = unsafe { libc::fcntl(descriptor, libc::F_SETPIPE_SZ, 4096) };
    let line = vec![b'x'; usize::try_from(size).expect("a size") + 1];
    let before = flags();
    let (tell, told) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || {
        let written = write_line(descriptor, &line, open);
        tell.send(written.map_err(|why| why.kind())).expect("it is asked");
    });
    let written = told.recv_timeout(std::time::Duration::from_secs(20));
    drop(reader);
    writing.join().expect("it ends");
    let kinds = [io::ErrorKind::WriteZero, io::ErrorKind::WouldBlock];
    assert!(matches!(&written, Ok(Err(kind)) if kinds.contains(kind)), "{written:?}");
    assert_eq!((before, before & libc::O_NONBLOCK), (flags(), 0));
}

#[test]
fn a_line_comes_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    append(&path, b"one\n", b"two").expect("it is written");
    append(&path, b"two\n", b"two").expect("it is written");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"one\ntwo\n");
    let refused = append(&path, b"three\n", b"one").map_err(|why| why.kind());
    assert_eq!(refused, Err(io::ErrorKind::InvalidData));
    assert_eq!(std::fs::read(&path).expect("it is there"), b"one\ntwo\n");
    // Nobody has it open: opening a FIFO would wait.
    let fifo = directory.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).stdin(Stdio::null()).status();
    assert!(made.expect("mkfifo").success());
    append(&fifo, b"three\n", b"two").expect_err("nobody reads");
}

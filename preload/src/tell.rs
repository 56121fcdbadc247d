//! A line on standard error.

use std::fmt::Arguments;

/// Writes `kanban-vfs: process 7 (program): ...` to standard error. Control characters are replaced: an operator's terminal
/// obeys them.
pub(crate) fn line(text: Arguments<'_>) {
    let program = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let said =
        format!("kanban-vfs: process {} ({}): {text}", std::process::id(), program.trim_end());
    let mut said: String = said.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    said.push('\n');
    write(said.as_bytes());
}

/// Writes by one write(2), so that other processes' lines stay whole, unless that would wait. A broken pipe does not end
/// the process: its signal is held back, and taken away if this has caused it. signal(7)
fn write(line: &[u8]) {
    let mut ready = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one struct; with a timeout of 0 the call does not wait.
    if unsafe { libc::poll(&raw mut ready, 1, 0) } != 1 || ready.revents & libc::POLLOUT == 0 {
        return;
    }
    // SAFETY: the calls fill in the sets that they get, for which zeros are a value; the buffer has that length. With a
    // timeout of 0 nothing waits.
    unsafe {
        let [mut pipe, mut before, mut pending]: [libc::sigset_t; 3] = std::mem::zeroed();
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before);
        libc::sigpending(&raw mut pending);
        let was_pending = libc::sigismember(&raw const pending, libc::SIGPIPE) == 1;
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        if !was_pending {
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const pipe, std::ptr::null_mut(), &raw const at_once);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
    }
}

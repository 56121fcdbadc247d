//! A client that is stopped at each of its system calls, by ptrace(2), so that it can be killed at
//! any of them. Linux only, and for clients of one thread.
//!
//! Where [`crate::pause`] stops between two calls of SQLite, this stops between two steps of the
//! VFS itself: after a place in the queue was taken and before it is announced, after the turn was
//! given and before the lock is free.

use std::mem::MaybeUninit;
use std::ptr;

use serde_json::Value;

use crate::Agent;

/// A client in the hands of this thread. It dies if the thread does.
pub struct Traced {
    client: Agent,
    pid: libc::pid_t,
}

impl Traced {
    /// Takes a client that has answered all commands.
    ///
    /// # Panics
    /// If the system does not let us.
    #[must_use]
    pub fn new(client: Agent) -> Self {
        let pid = client.pid().cast_signed();
        let traced = Self { client, pid };
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        traced.request(libc::PTRACE_SEIZE, options as usize);
        traced.request(libc::PTRACE_INTERRUPT, 0);
        traced.wait();
        traced
    }

    /// Sends commands, and stops the client when it is about to make a system call at which it is
    /// to stop: told how many it has made since, and its number. Returns the number.
    ///
    /// # Errors
    /// If it is about to give its last answer before: the calls it has made.
    pub fn run(
        &mut self,
        commands: &[Value],
        stops: impl Fn(usize, i64) -> bool,
    ) -> Result<i64, Vec<i64>> {
        for command in commands {
            self.client.send(command);
        }
        let (mut made, mut answers) = (Vec::new(), 0);
        while answers < commands.len() {
            self.request(libc::PTRACE_SYSCALL, 0);
            self.wait();
            match self.call() {
                // It waits for a command.
                None | Some((libc::SYS_read, 0)) => {}
                Some((libc::SYS_write, 1)) => answers += 1,
                Some((call, _)) if stops(made.len(), call) => return Ok(call),
                Some((call, _)) => made.push(call),
            }
        }
        Err(made)
    }

    /// Kills it where it is.
    pub fn kill(self) {
        self.client.kill();
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.client.pid()
    }

    /// The call it is about to make, and its first argument.
    fn call(&self) -> Option<(i64, u64)> {
        let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
        let size = size_of_val(&info);
        // SAFETY: room of that size; all of it is integers.
        let info = unsafe {
            let got =
                libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, info.as_mut_ptr());
            assert!(got > 0, "{}", std::io::Error::last_os_error());
            info.assume_init()
        };
        // SAFETY: that is what the kernel has filled in then.
        (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
            .then(|| unsafe { (info.u.entry.nr.cast_signed(), info.u.entry.args[0]) })
    }

    #[track_caller]
    fn request(&self, request: libc::c_uint, data: usize) {
        // SAFETY: none of the requests has an address.
        let rc = unsafe { libc::ptrace(request, self.pid, ptr::null_mut::<u8>(), data) };
        assert_eq!(rc, 0, "ptrace: {}", std::io::Error::last_os_error());
    }

    /// Until it stops.
    #[track_caller]
    fn wait(&self) {
        let mut status = 0;
        // SAFETY: a place for the status.
        let rc = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(rc, self.pid, "waitpid: {}", std::io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "the client has ended: {status}");
    }
}

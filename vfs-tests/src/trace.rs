//! A client that is stopped at each of its system calls, by ptrace(2), so that it can be killed
//! there, or the call can be made to fail. Linux only, and for clients of one thread.
//!
//! [`crate::pause`] stops a client between two calls of SQLite; this stops it between two steps of
//! the VFS itself. Examples: after a place in the queue was taken and before it is announced, or
//! after the turn was given and before the lock is free.

use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{fs, ptr};

use serde_json::Value;

use crate::Agent;
#[cfg(target_arch = "x86_64")]
use crate::{PATIENCE, Reply};

/// A system call that a client is about to make.
pub struct Call {
    /// `SYS_...`
    pub number: i64,
    /// Its arguments.
    pub args: [u64; 6],
    pid: libc::pid_t,
}

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is made.
    None,
    /// It is not made, and fails with this errno.
    Fail(i32),
    /// It is made, and fails with this errno whatever its result.
    FailAfter(i32),
    /// It is made as a read or write of about half as many bytes, at least one.
    Shorten,
}

impl Call {
    /// The file behind the nth argument, which is a descriptor.
    #[must_use]
    pub fn file(&self, nth: usize) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{}", self.pid, self.args[nth] as i32)).ok()
    }

    fn byte(&self, at: u64) -> Option<u8> {
        let mut byte = [0];
        fs::File::open(format!("/proc/{}/mem", self.pid))
            .ok()?
            .read_exact_at(&mut byte, at)
            .ok()?;
        Some(byte[0])
    }

    /// The nth argument, which is a name.
    #[must_use]
    pub fn name(&self, nth: usize) -> Option<PathBuf> {
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        // The read may be short at the end of the memory.
        let n = memory.read_at(&mut bytes, self.args[nth]).ok()?;
        let name = bytes[..n].split(|byte| *byte == 0).next()?;
        Some(Path::new(std::ffi::OsStr::from_bytes(name)).to_owned())
    }

    /// What the nth argument, a `struct flock`, asks for: the type, and the first byte and the
    /// length of the range.
    #[must_use]
    pub fn lock(&self, nth: usize) -> Option<(i32, i64, i64)> {
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut bytes = [0; size_of::<libc::flock>()];
        memory.read_exact_at(&mut bytes, self.args[nth]).ok()?;
        // SAFETY: all of its fields are integers.
        let lock: libc::flock = unsafe { std::mem::transmute(bytes) };
        Some((lock.l_type.into(), lock.l_start, lock.l_len))
    }

    /// The file that is mapped at the nth argument, which is an address.
    #[must_use]
    pub fn mapped(&self, nth: usize) -> Option<PathBuf> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).ok()?;
        let begins = |line: &&str| {
            let start = line.split('-').next().unwrap_or_default();
            u64::from_str_radix(start, 16) == Ok(self.args[nth])
        };
        maps.lines().find(begins)?.splitn(6, ' ').nth(5).map(|path| path.trim().into())
    }
}

/// A client that this thread traces. It dies if the thread does.
pub struct Traced {
    client: Agent,
    pid: libc::pid_t,
}

impl Traced {
    /// Takes over a client that has answered all commands.
    ///
    /// # Panics
    /// If the system does not allow it.
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

    /// Sends commands, and stops the client before the first system call for which `stops` is true.
    /// `stops` gets how many calls the client has made since, and the call's number. Returns the
    /// call's number.
    ///
    /// # Errors
    /// The client is about to give its last answer before that. The error is the calls that it
    /// made.
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
            match self.call_begun() {
                // The client waits for a command.
                None | Some((libc::SYS_read, 0)) => {}
                Some((libc::SYS_write, 1)) => answers += 1,
                Some((call, _)) if stops(made.len(), call) => return Ok(call),
                Some((call, _)) => made.push(call),
            }
        }
        Err(made)
    }

    /// Sends a command and returns the answer. Asks `fault` before each system call until then. If
    /// the client does not answer in [`PATIENCE`], kills it and returns `None`.
    ///
    /// # Panics
    /// If the client dies because of a fault.
    #[cfg(target_arch = "x86_64")]
    pub fn call(
        &mut self,
        command: &Value,
        mut fault: impl FnMut(&Call) -> Fault,
    ) -> Option<Reply> {
        self.client.send(command);
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let pid = self.pid;
        let watch = std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let hangs = waits.recv_timeout(PATIENCE) == Err(Timeout);
            // SAFETY: a process that this process started, and has not waited for.
            hangs && unsafe { libc::kill(pid, libc::SIGKILL) } == 0
        });
        let has_answered = self.until_answered(&mut fault);
        drop(done);
        let was_killed = watch.join().is_ok_and(|killed| killed);
        assert!(has_answered || was_killed, "the client has died");
        has_answered.then(|| self.client.reply())
    }

    /// False if the client ends before it answers.
    #[cfg(target_arch = "x86_64")]
    fn until_answered(&mut self, fault: &mut dyn FnMut(&Call) -> Fault) -> bool {
        loop {
            if !self.step() {
                return false;
            }
            let Some(call) = self.entry() else { continue };
            let fault = match (call.number, call.args[0]) {
                (libc::SYS_read, 0) => continue,
                (libc::SYS_write, 1) => {
                    let ends = call.byte(call.args[1] + call.args[2] - 1) == Some(b'\n');
                    if !self.step() || ends {
                        return ends;
                    }
                    continue;
                }
                _ => fault(&call),
            };
            match fault {
                Fault::None => {}
                // No call has this number.
                Fault::Fail(_) => self.change(|registers| registers.orig_rax = u64::MAX),
                Fault::FailAfter(_) => {}
                Fault::Shorten => {
                    self.change(|registers| registers.rdx = (registers.rdx / 2).max(1));
                }
            }
            if !self.step() {
                return false;
            }
            assert!(self.entry().is_none(), "it has returned from the call");
            if let Fault::Fail(errno) | Fault::FailAfter(errno) = fault {
                self.change(|registers| registers.rax = i64::from(-errno).cast_unsigned());
            }
        }
    }

    /// Lets the client run until its next system call begins or ends. False if the client ends
    /// before.
    ///
    /// # Panics
    /// If the client crashes.
    #[cfg(target_arch = "x86_64")]
    fn step(&self) -> bool {
        self.request(libc::PTRACE_SYSCALL, 0);
        let mut status = 0;
        // SAFETY: a place for the status.
        let rc = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(rc, self.pid, "waitpid: {}", std::io::Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            return false;
        }
        let signal = libc::WSTOPSIG(status);
        let is_fatal = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT].contains(&signal);
        assert!(!is_fatal, "the client has crashed with signal {signal}");
        true
    }

    #[cfg(target_arch = "x86_64")]
    fn change(&self, change: impl FnOnce(&mut libc::user_regs_struct)) {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
        // SAFETY: a struct of integers, to be filled in and to be set, of a process that is stopped.
        let rc = unsafe {
            let nothing = ptr::null_mut::<u8>();
            libc::ptrace(libc::PTRACE_GETREGS, self.pid, nothing, registers.as_mut_ptr());
            change(registers.assume_init_mut());
            libc::ptrace(libc::PTRACE_SETREGS, self.pid, nothing, registers.as_ptr())
        };
        assert_eq!(rc, 0, "ptrace: {}", std::io::Error::last_os_error());
    }

    /// Kills the client at its present call.
    pub fn kill(self) {
        self.client.kill();
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.client.pid()
    }

    /// The call that it is about to make, and the call's first argument.
    fn call_begun(&self) -> Option<(i64, u64)> {
        self.entry().map(|call| (call.number, call.args[0]))
    }

    /// The call that it is about to make.
    fn entry(&self) -> Option<Call> {
        let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
        let size = size_of_val(&info);
        // SAFETY: room of that size; all of it is integers.
        let info = unsafe {
            let got =
                libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, info.as_mut_ptr());
            assert!(got > 0, "{}", std::io::Error::last_os_error());
            info.assume_init()
        };
        // SAFETY: the kernel has filled in this part for such a stop.
        (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(|| unsafe {
            Call { number: info.u.entry.nr.cast_signed(), args: info.u.entry.args, pid: self.pid }
        })
    }

    #[track_caller]
    fn request(&self, request: libc::c_uint, data: usize) {
        // SAFETY: none of the requests has an address.
        let rc = unsafe { libc::ptrace(request, self.pid, ptr::null_mut::<u8>(), data) };
        assert_eq!(rc, 0, "ptrace: {}", std::io::Error::last_os_error());
    }

    /// Waits until the client stops.
    #[track_caller]
    fn wait(&self) {
        let mut status = 0;
        // SAFETY: a place for the status.
        let rc = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(rc, self.pid, "waitpid: {}", std::io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "the client has ended: {status}");
    }
}

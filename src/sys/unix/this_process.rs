//! This process, its clock and its machine: getpid(2), clock_gettime(2), pthread_atfork(3), dlsym(3).

use std::ffi::{CStr, OsString, c_void};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::descriptors::read_text;
use super::large_files;
#[cfg(target_os = "linux")]
use super::one_process::OneProcess;
#[cfg(target_os = "linux")]
use super::vdso;
use crate::sys::ThreadUsage;

/// 0 until [`pid`] is called.
static PID: AtomicU32 = AtomicU32::new(0);

/// This process's id. Only the first call makes a system call. getpid(2)
pub(crate) fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => {
            let pid = std::process::id();
            PID.store(pid, Ordering::Relaxed);
            pid
        }
        pid => pid,
    }
}

/// The value of an environment variable, unless another user may have set it: for instance, the program's file has the
/// setuid bit. secure_getenv(3)
pub(crate) fn environment(name: &str) -> Option<OsString> {
    #[cfg(target_os = "linux")]
    // SAFETY: it takes a number.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    #[cfg(not(target_os = "linux"))]
    // SAFETY: it takes nothing.
    let is_secure = unsafe { libc::issetugid() } != 0;
    if is_secure { None } else { std::env::var_os(name) }
}

/// Forgets the process id. To be called in a child of fork(2), which has another id than its parent, after
/// [`crate::sys::fork::begin_child`].
pub(crate) fn forget_pid() {
    PID.store(0, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    OneProcess::begin_child();
}

/// Calls `prepare` before each fork(2) of this process, `parent` and `child` after it, all in the thread that forks.
/// pthread_atfork(3)
///
/// # Errors
/// There is no memory for it.
pub(crate) fn at_fork(
    prepare: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: the functions live as long as the process: this library is never unloaded.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// What the calling thread has done so far; `None` if the system does not tell. getrusage(2) also tells for how long it has
/// run, but on most kernels as of the last tick, up to 10 ms ago. So clock_gettime(2) is asked for that.
#[doc(alias = "RUSAGE_THREAD")]
#[doc(alias = "CLOCK_THREAD_CPUTIME_ID")]
pub(crate) fn thread_usage() -> Option<ThreadUsage> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all zeros are a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the answer.
        if unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) } != 0 {
            return None;
        }
        let ran = of_kernel(libc::CLOCK_THREAD_CPUTIME_ID);
        // 0 if the system refuses to tell.
        (ran > 0).then_some(ThreadUsage { ran, sleeps: usage.ru_nvcsw as u64 })
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Time since some moment, in ns. It stands still while the machine is suspended. In another time namespace it differs,
/// and a preloaded library (libfaketime) may show this process any time, even one that stands still. So it serves only
/// this process, and only where a wrong time costs little. clock_gettime(2), time_namespaces(7)
#[doc(alias = "CLOCK_MONOTONIC")]
pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// [`monotonic_ns`] as of the kernel's last tick, some ms ago, at a fifth of the cost. clock_gettime(2)
#[doc(alias = "CLOCK_MONOTONIC_COARSE")]
pub(crate) fn coarse_ns() -> u64 {
    #[cfg(target_os = "linux")]
    return read(libc::CLOCK_MONOTONIC_COARSE);
    #[cfg(not(target_os = "linux"))]
    monotonic_ns()
}

/// [`monotonic_ns`] as the kernel tells it, whatever library is preloaded. On some systems this is a system call, so only
/// waits use it. clock_gettime(2), vdso(7)
pub(crate) fn kernel_ns() -> u64 {
    of_kernel(libc::CLOCK_MONOTONIC)
}

/// A time in ns that all processes of this machine read alike, whatever their time namespace and whatever library is
/// preloaded. The clock may be set, so code that compares two such times must accept any result. clock_gettime(2),
/// time_namespaces(7)
#[doc(alias = "CLOCK_REALTIME")]
pub(crate) fn shared_ns() -> u64 {
    // Other systems have no time namespaces, and nobody sets their monotonic clock.
    of_kernel(if cfg!(target_os = "linux") { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC })
}

/// A clock in ns as the kernel tells it. The clock must exist.
pub(super) fn of_kernel(clock: libc::clockid_t) -> u64 {
    #[cfg(target_os = "linux")]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if let Some(clock_gettime) = vdso::clock_gettime() {
            // SAFETY: a place for the answer.
            if unsafe { clock_gettime(clock, &raw mut now) } == 0 {
                return in_ns(now);
            }
        }
        // SAFETY: the call fills in the struct, which is the kernel's on every system that `libc` has the number for.
        if unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut now) } == 0 {
            return in_ns(now);
        }
    }
    read(clock)
}

/// A clock in ns as the C library tells it. The clock must exist.
fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the struct; the clock exists, so it cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    in_ns(now)
}

fn in_ns(time: libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An id that differs for each boot of the machine; `None` without a /proc. proc(5), /proc/sys/kernel/random
pub(crate) fn boot_id() -> Option<u128> {
    static BOOT: OnceLock<Option<u128>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = read_text("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&id.trim_end().replace('-', ""), 16).ok()
    })
}

/// The length in bytes beyond which this process may not write to a file, because SIGXFSZ would end it. `None` without a
/// limit. getrlimit(2)
#[doc(alias = "RLIMIT_FSIZE")]
pub(crate) fn file_size_limit() -> Option<i64> {
    let mut limit = large_files::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills in the struct.
    let rc = unsafe { large_files::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    (rc == 0 && limit.rlim_cur != large_files::RLIM_INFINITY)
        .then(|| i64::try_from(limit.rlim_cur).unwrap_or(i64::MAX))
}

/// The address of the symbol `name` in `library` or a library that it is linked with; null if none exports it. dlsym(3)
///
/// # Safety
/// `library` is what dlopen(3) gave, or a pseudo-handle of dlsym.
pub(crate) unsafe fn find_symbol(library: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: the caller's promise; a terminated name.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// Sets this thread's errno(3).
pub(crate) fn set_errno(errno: libc::c_int) {
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes nothing.
    let place = unsafe { libc::__errno_location() };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the call takes nothing.
    let place = unsafe { libc::__error() };
    // SAFETY: it is this thread's own.
    unsafe { *place = errno };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A thread that computes sees at once that it has run. By getrusage(2) alone it would see that at the kernel's next
    /// tick, ms later, and a holder that computes would seem to be displaced. A sleep of the thread is counted.
    #[test]
    fn a_thread_sees_what_it_has_done() {
        let usage = || thread_usage().expect("Linux tells");
        let (mut steps, mut last) = (Vec::new(), usage().ran);
        while steps.len() < 51 {
            let ran = usage().ran;
            if ran != last {
                steps.push(ran - last);
                last = ran;
            }
        }
        steps.sort_unstable();
        let median = steps[steps.len() / 2];
        assert!(median < 200_000, "{median} ns, a tick has at least 1 ms");
        let before = usage();
        std::thread::sleep(Duration::from_millis(1));
        assert!(usage().sleeps > before.sleeps);
    }
}

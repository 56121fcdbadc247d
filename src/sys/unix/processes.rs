//! Other processes, by proc(5): whether one is gone, its name, and which of them has a lock.

#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use super::descriptors::{beyond_standard, open, read_text};
use super::inode::Inode;
#[cfg(target_os = "linux")]
use super::inode::statx;
use super::large_files;
#[cfg(target_os = "linux")]
use super::this_process::of_kernel;
use super::this_process::pid as this_pid;
use crate::sys::{
    Details, FileLock, ListedLock, Locker, Lockers, OpenFile, Openers, Seen, Stopwatch, printable,
};

/// Whether the process `pid` that did something `ago` is gone: this pid namespace has no such process, it is dead and its
/// parent has not waited for it, or a younger process has the id by now. kill(2), proc(5)
pub(crate) fn is_gone(pid: u32, ago: Duration) -> bool {
    is_gone_or(pid, |stat| stat.is_dead() || stat.is_younger_than(ago))
}

/// Whether the process `pid` that did something `ago` is gone, or is ending: the kernel releases a process's locks before
/// others see the process as a zombie. Its first thread may end long before the others do. kill(2), proc(5), /proc/PID/task
pub(crate) fn has_ended(pid: u32, ago: Duration) -> bool {
    is_gone_or(pid, |stat| {
        stat.is_dead() || stat.is_younger_than(ago) || stat.is_exiting() && do_all_threads_end(pid)
    })
}

/// Whether there is no process `pid` in this pid namespace, or `says_so` is true for it.
fn is_gone_or(pid: u32, says_so: impl FnOnce(Stat) -> bool) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    if pid <= 0 {
        return false;
    }
    let is_there = || {
        // SAFETY: the call takes numbers; signal 0 is none, so it only asks.
        let rc = unsafe { libc::kill(pid, 0) };
        rc == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
    };
    if !is_there() {
        return true;
    }
    let stat = read_text(format!("/proc/{pid}/stat")).ok().and_then(|stat| Stat::parse(&stat));
    // Its parent may have waited for it since the first question. Or /proc hides it.
    stat.map_or_else(|| !is_there(), says_so)
}

/// Whether each thread of the process `pid` is ending or has ended. A thread that was listed but is no longer there has ended.
fn do_all_threads_end(pid: u32) -> bool {
    let ends = |thread: fs::DirEntry| {
        let stat = read_text(thread.path().join("stat")).ok();
        stat.and_then(|stat| Stat::parse(&stat)).is_none_or(|stat| stat.is_exiting())
    };
    match beyond_standard(|| fs::read_dir(format!("/proc/{pid}/task"))) {
        Ok(threads) => threads.flatten().all(ends),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// What /proc/PID/stat says about a process, or /proc/PID/task/TID/stat about a thread. proc(5)
struct Stat {
    /// `Z` is a zombie, `X` is dead.
    state: char,
    /// The kernel's `PF_` flags.
    flags: u64,
    threads: u64,
    /// When it began, in clock ticks since the machine was booted.
    began: u64,
}

impl Stat {
    /// `None` if the text is cut short.
    fn parse(text: &str) -> Option<Self> {
        // The program's name may contain any bytes.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |nth: usize| fields.get(nth)?.parse().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            flags: number(6)?,
            threads: number(17)?,
            began: number(19)?,
        })
    }

    /// Whether it has no file open any more. Its first thread may end, and be a zombie, before the others do.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads < 2
    }

    /// Whether its first thread has ended, and another lives.
    fn is_first_thread_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads >= 2
    }

    /// Whether it is ending: for a process, its first thread; for a thread, that thread.
    fn is_exiting(&self) -> bool {
        const PF_EXITING: u64 = 0x0000_0004;
        self.flags & PF_EXITING != 0
    }

    /// Whether it is a thread of the kernel, which has no files.
    fn is_of_the_kernel(&self) -> bool {
        const PF_KTHREAD: u64 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }

    /// Whether it began after what happened `ago`. If the machine was suspended since, the process looks older.
    fn is_younger_than(&self, ago: Duration) -> bool {
        const SLACK: Duration = Duration::from_millis(100);
        let Some(now) = since_boot() else { return false };
        // SAFETY: the call takes a number, and cannot fail for this one.
        let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100);
        let began = Duration::from_millis(self.began.saturating_mul(1000) / per_second.max(1));
        now.saturating_sub(began) + SLACK < ago
    }
}

/// The time since the machine was booted, by the clock of [`Stat`]'s `began`. clock_gettime(2)
#[doc(alias = "CLOCK_BOOTTIME")]
#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    Some(Duration::from_nanos(of_kernel(libc::CLOCK_BOOTTIME)))
}

/// Always `None`: other systems have no such clock.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

/// The processes that have a lock on one of `files` for which `is_it` is true, as far as this process may look into them. It
/// looks for at most `limit`. If processes share a lock by fork(2) or clone(2), all of them are found. It neither opens nor
/// locks the files: statx(2) follows /proc/PID/fd. proc(5), /proc/PID/fdinfo
pub(crate) fn with_lock(
    files: &[Inode],
    is_it: impl Fn(Inode, FileLock) -> bool,
    limit: Duration,
) -> Lockers {
    each_process(limit, |pid, process, is_over| {
        let mut has_it = false;
        each_open(process, files, is_over, |open| {
            has_it = open.locks.iter().any(|lock| is_it(open.inode, *lock));
            has_it
        })?;
        Ok(has_it.then(|| Locker { pid, own_pid: own_pid(pid).unwrap_or(pid) }))
    })
}

/// The processes that have one of `files` open, and which of them, as far as this process may look into them. It looks for at
/// most `limit`, and opens none of the files. proc(5), /proc/PID/fd
pub(crate) fn with_open(files: &[Inode], limit: Duration) -> Openers {
    each_process(limit, |pid, process, is_over| {
        let mut all = Vec::new();
        each_open(process, files, is_over, |open| {
            all.push(open);
            false
        })?;
        Ok((!all.is_empty()).then_some((pid, all)))
    })
}

/// Whether the process `pid` has a file open; `None` if this process may not look into that one, or it has too many open files
/// to look at within `limit`. proc(5), /proc/PID/fd
pub(crate) fn has_open(pid: u32, file: Inode, limit: Duration) -> Option<bool> {
    let watch = Stopwatch::start();
    let is_over = || watch.elapsed() > limit;
    let mut has_it = false;
    let saw_all = each_open(in_proc(pid, "").as_ref(), &[file], &is_over, |_| {
        has_it = true;
        true
    })
    .ok()?;
    (has_it || saw_all && !is_over()).then_some(has_it)
}

/// Calls `look` with each of `files` that a process has open, once for each descriptor, until `look` returns true. Returns
/// false if this process may list the other's descriptors, but not look at them: [`with_lock`] and [`with_open`] pass over such
/// a process, and do not count it as hidden. proc(5), /proc/PID/fdinfo
///
/// # Errors
/// This process may not look into the other, or the other has ended.
fn each_open(
    process: &Path,
    files: &[Inode],
    is_over: &dyn Fn() -> bool,
    mut look: impl FnMut(OpenFile) -> bool,
) -> io::Result<bool> {
    let mut saw_all = each_listed(process, files, is_over, &mut look)?;
    if saw_all.is_none() {
        if let Some(thread) = living_thread(process) {
            saw_all = each_listed(&thread, files, is_over, &mut look)?;
        }
    }
    Ok(saw_all.unwrap_or(true))
}

/// [`each_open`] for a process, or for a thread given by its directory. `None` if no descriptor is listed.
fn each_listed(
    process: &Path,
    files: &[Inode],
    is_over: &dyn Fn() -> bool,
    look: &mut dyn FnMut(OpenFile) -> bool,
) -> io::Result<Option<bool>> {
    let mut descriptors = Entries::of(&process.join("fd"))?;
    let mut saw_all = true;
    let mut seen = 0_u32;
    while let Some(name) = descriptors.next() {
        seen += 1;
        // The clock costs a system call.
        if seen % 64 == 0 && is_over() {
            break;
        }
        let found = descriptors.inode_behind(&name);
        let name = OsStr::from_bytes(name.to_bytes());
        let inode = match found {
            Ok(inode) => inode,
            Err(why) if is_denied(&why) => {
                // Root without CAP_SYS_PTRACE, as in most containers, may list another user's descriptors, but not look at
                // them. A file system may refuse to show its file, too.
                match fs::read_link(process.join("fd").join(name)) {
                    Err(why) if is_denied(&why) => {
                        saw_all = false;
                        break;
                    }
                    _ => continue,
                }
            }
            Err(_) => continue,
        };
        if !files.contains(&inode) {
            continue;
        }
        let info = read_text(process.join("fdinfo").join(name)).unwrap_or_default();
        let locks = info.lines().filter_map(lock_of).collect();
        if look(OpenFile { inode, is_to_look: is_to_look(&info), locks }) {
            break;
        }
    }
    Ok((seen > 0).then_some(saw_all))
}

/// Whether the error means that this process may not do it.
fn is_denied(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::PermissionDenied
}

/// The directory of a living thread of a process whose first thread has ended: /proc/PID/fd shows the first thread's files
/// only. `None` if the first thread lives, or none does. proc(5), /proc/PID/task
fn living_thread(process: &Path) -> Option<PathBuf> {
    let stat = |of: &Path| Stat::parse(&read_text(of.join("stat")).ok()?);
    if !stat(process)?.is_first_thread_dead() {
        return None;
    }
    let threads = beyond_standard(|| fs::read_dir(process.join("task"))).ok()?;
    let mut threads = threads.flatten().map(|thread| thread.path());
    threads.find(|thread| stat(thread).is_some_and(|stat| !stat.is_exiting()))
}

/// An open directory, whose entries are looked at relative to it. A process may have thousands of entries, and a path from the
/// root costs twice as much for each.
struct Entries(NonNull<libc::DIR>);

impl Entries {
    /// opendir(3)
    fn of(directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        beyond_standard(|| {
            // SAFETY: a terminated path.
            let opened = unsafe { libc::opendir(path.as_ptr()) };
            NonNull::new(opened).map(Self).ok_or_else(io::Error::last_os_error)
        })
    }

    /// The name of the next entry, in no order, without the directory itself and its parent. readdir(3)
    fn next(&mut self) -> Option<CString> {
        loop {
            // SAFETY: an open directory, which no other thread reads.
            let entry = NonNull::new(unsafe { large_files::readdir(self.0.as_ptr()) })?;
            // SAFETY: an entry is valid until the next call, and its name is terminated. The reference is to the name alone,
            // since an entry may be shorter than its type.
            let name = unsafe { CStr::from_ptr((&raw const (*entry.as_ptr()).d_name).cast()) };
            if !name.to_bytes().starts_with(b".") {
                return Some(name.to_owned());
            }
        }
    }

    /// The file that an entry leads to. This asks no server: if a process has a file open on a network file system that does
    /// not answer, stat(2) would wait in vain, and could not be killed. statx(2)
    #[doc(alias = "AT_STATX_DONT_SYNC")]
    #[cfg(target_os = "linux")]
    fn inode_behind(&self, name: &CStr) -> io::Result<Inode> {
        // SAFETY: an open directory.
        let directory = unsafe { libc::dirfd(self.0.as_ptr()) };
        match statx(directory, name, libc::AT_STATX_DONT_SYNC, libc::STATX_INO) {
            Ok(found) => Ok(Inode::of_statx(&found)),
            // Linux before 4.11 does not know the call, and a seccomp filter may refuse it.
            Err(why) if matches!(why.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                self.inode_by_stat(name)
            }
            Err(why) => Err(why),
        }
    }

    /// The file that an entry leads to.
    #[cfg(not(target_os = "linux"))]
    fn inode_behind(&self, name: &CStr) -> io::Result<Inode> {
        self.inode_by_stat(name)
    }

    /// The same, but may ask the file system's server. fstatat(2)
    fn inode_by_stat(&self, name: &CStr) -> io::Result<Inode> {
        let mut found = MaybeUninit::<large_files::stat>::zeroed();
        // SAFETY: the descriptor of an open directory, a terminated name, and a struct that the call fills in if it succeeds.
        unsafe {
            let directory = libc::dirfd(self.0.as_ptr());
            match large_files::fstatat(directory, name.as_ptr(), found.as_mut_ptr(), 0) {
                0 => Ok(Inode::of(found.assume_init_ref())),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // SAFETY: it is open, and this is its last use.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

/// Whether the flags in a /proc/PID/fdinfo/N, for example `flags: 012100000`, have O_PATH. proc(5)
fn is_to_look(info: &str) -> bool {
    const O_PATH: u32 = 0o10_000_000;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_some_and(|flags| {
        u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & O_PATH != 0)
    })
}

/// The processes in which `look` finds something; `look` can ask whether the `limit` is over. An error of `look` means that
/// this process may not look into the other, or that the other has ended.
fn each_process<T>(
    limit: Duration,
    look: impl Fn(u32, &Path, &dyn Fn() -> bool) -> io::Result<Option<T>>,
) -> Seen<T> {
    let mut seen = Seen { found: Vec::new(), hidden: 0, is_partial: false };
    let watch = Stopwatch::start();
    let is_over = || watch.elapsed() > limit;
    let Ok(all) = beyond_standard(|| fs::read_dir("/proc")) else {
        seen.is_partial = true;
        return seen;
    };
    // Each pid namespace has a process 1. If it is not visible, /proc is mounted with `hidepid`, and lists only this user's
    // processes.
    seen.is_partial = fs::symlink_metadata("/proc/1").is_err();
    for process in all.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        match look(pid, &process.path(), &is_over) {
            Ok(found) => seen.found.extend(found),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let has_files = |stat: Stat| !stat.is_dead() && !stat.is_of_the_kernel();
                match read_text(process.path().join("stat")) {
                    Ok(stat) => {
                        seen.hidden += usize::from(Stat::parse(&stat).is_some_and(has_files));
                    }
                    // With `hidepid` it is not known whether it is a thread of the kernel.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        seen.is_partial = true;
                    }
                    Err(_) => {}
                }
            }
            // The process has ended meanwhile.
            Err(_) => {}
        }
        if is_over() {
            seen.is_partial = true;
            break;
        }
    }
    seen
}

/// The lock in a line of /proc/PID/fdinfo/N such as `lock: 1: OFDLCK ADVISORY WRITE -1 08:01:131081 8192 EOF`; `None` if the
/// line has none, or one of another kind. proc(5)
pub(super) fn lock_of(line: &str) -> Option<FileLock> {
    let fields: Vec<_> = line.strip_prefix("lock:")?.split_whitespace().collect();
    let [_, kind, .., access, _, _, start, last] = fields[..] else { return None };
    matches!(kind, "POSIX" | "OFDLCK").then_some(FileLock {
        is_exclusive: access == "WRITE",
        start: start.parse().ok()?,
        last: if last == "EOF" { i64::MAX } else { last.parse().ok()? },
        is_ofd: kind == "OFDLCK",
    })
}

/// The locks on `files` that the kernel lists, without those that a process only waits for. Empty where the kernel does not
/// tell. The list names the process of a POSIX lock even to those that may not look into that process, but not a process in a
/// pid namespace that this process cannot see. proc(5), /proc/locks
pub(crate) fn listed_locks(files: &[Inode]) -> Vec<ListedLock> {
    let list = read_text("/proc/locks").unwrap_or_default();
    let of_line = |line: &str| {
        let rest = line.split_once(':')?.1;
        let inode = *files.iter().find(|file| is_lock_on(line, **file))?;
        // The same as in fdinfo, where one more word precedes it.
        let lock = lock_of(&format!("lock: 0: {}", rest.trim_start()))?;
        let pid = rest.split_whitespace().nth(3)?.parse().ok();
        Some(ListedLock { inode, lock, pid })
    };
    list.lines().filter(|line| !line.contains(" -> ")).filter_map(of_line).collect()
}

/// Whether a line of /proc/locks is about a file; it compares the device, too. On file systems without a device of their own
/// (btrfs, overlayfs) stat(2) may tell another such device. proc(5)
fn is_lock_on(line: &str, file: Inode) -> bool {
    let Some(device) = line.split_whitespace().rev().nth(2) else { return false };
    let mut numbers = device.split(':').map(|number| u32::from_str_radix(number, 16));
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    let [stat_major, stat_minor] = file.device();
    is_lock_of(line, file) && major == stat_major && (major == 0 || minor == stat_minor)
}

/// What may be known about a process: proc(5), /proc/PID/status and /proc/PID/cmdline. All users may read these, unless /proc
/// is mounted with `hidepid`.
pub(crate) fn details_of(pid: u32) -> Details {
    let status = read_text(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    // The effective user, which decides about rights.
    let user = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    Details {
        command: command_of(pid),
        user: user.map(user_name),
        state: field("State:").and_then(|state| state.trim_start().chars().next()),
        own_pid: own_pid_in(&status),
    }
}

/// The arguments of a process, as they would be typed, with question marks for control characters, and cut to [`MOST_COMMAND`]
/// characters. `None` for a process that has none. proc(5), /proc/PID/cmdline
pub(crate) fn command_of(pid: u32) -> Option<String> {
    let file = open(File::options().read(true), in_proc(pid, "cmdline").as_ref()).ok()?;
    let mut start = Vec::new();
    // A process chooses where its arguments end. prctl(2), PR_SET_MM_ARG_END
    file.take(MOST_BYTES).read_to_end(&mut start).ok()?;
    // A process that has overwritten its arguments may have left zeros behind them.
    let end = start.iter().rposition(|byte| *byte != 0)? + 1;
    Some(shown_command(&start[..end]))
}

/// How many characters of a command line are shown.
const MOST_COMMAND: usize = 200;
/// How many bytes of it are read: enough for [`MOST_COMMAND`] characters of any length.
const MOST_BYTES: u64 = 8 * MOST_COMMAND as u64;

/// Arguments that zeros separate, as they are shown.
fn shown_command(arguments: &[u8]) -> String {
    let arguments = arguments.split(|byte| *byte == 0).map(|argument| {
        let argument = String::from_utf8_lossy(argument);
        match argument.is_empty() || argument.contains([' ', '\'']) {
            true => format!("'{argument}'"),
            false => argument.into_owned(),
        }
    });
    let text = printable(&arguments.collect::<Vec<_>>().join(" "));
    match text.char_indices().nth(MOST_COMMAND) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The name of a user, or the number if the file has no name for it. It asks no directory service, which might keep it waiting.
/// passwd(5)
fn user_name(user: u32) -> String {
    let users = read_text("/etc/passwd").unwrap_or_default();
    let number = user.to_string();
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(&number)).then(|| printable(name))
    };
    users.lines().find_map(of_line).unwrap_or(number)
}

/// Whether any process may have an exclusive lock on one of `files` or, if `is_ofd`, an exclusive open-file-description lock.
/// It is a quick look before [`with_lock`]. True where the system does not tell. proc(5), /proc/locks
pub(crate) fn may_be_locked(files: &[Inode], is_ofd: bool) -> bool {
    let Ok(locks) = read_text("/proc/locks") else { return true };
    locks.lines().any(|line| {
        line.contains(" WRITE ")
            && (!is_ofd || line.contains(" OFDLCK "))
            && files.iter().any(|file| is_lock_of(line, *file))
    })
}

/// Whether any process that this one can see locked a file as a whole. False where the system does not tell. flock(2), proc(5),
/// /proc/locks
pub(crate) fn has_flock(file: Inode) -> bool {
    is_listed(|line| line.contains(" FLOCK ") && is_lock_of(line, file)).unwrap_or(false)
}

/// The same for a lock of any kind on any part of the file.
pub(crate) fn is_locked(file: Inode) -> bool {
    is_listed(|line| is_lock_of(line, file)).unwrap_or(false)
}

/// Whether /proc/locks has a line for which `is_it` is true. The kernel lists the locks a page of memory at a time. If a lock
/// that it has listed is released before the next page, it leaves out another one. So this reads the list again, a few times at
/// most, until it finds the line. proc(5), /proc/locks
///
/// # Errors
/// It cannot be read.
pub(super) fn is_listed(is_it: impl Fn(&str) -> bool) -> io::Result<bool> {
    const MOST: usize = 6;
    for _ in 0..MOST {
        if read_text("/proc/locks")?.lines().any(&is_it) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a line of /proc/locks may be about a file. It compares only the inode's number: on some file systems the device in
/// the list is not the one that stat(2) tells.
pub(super) fn is_lock_of(line: &str, file: Inode) -> bool {
    let number =
        |line: &str| line.split_whitespace().rev().nth(2)?.rsplit(':').next()?.parse().ok();
    number(line) == Some(file.numbers()[1])
}

/// The name of a process's program, as far as this process may know it. proc(5), /proc/PID/comm
pub(crate) fn program_of(pid: u32) -> Option<String> {
    let name = read_text(in_proc(pid, "comm")).ok()?;
    // A process chooses its own name, and an operator's terminal obeys escape sequences.
    Some(printable(name.trim_end()))
}

/// This process's pid namespace, as lsns(8) shows it. pid_namespaces(7), /proc/self/ns/pid
#[cfg(target_os = "linux")]
pub(crate) fn pid_namespace() -> Option<u32> {
    let found = fs::metadata("/proc/self/ns/pid").ok()?;
    u32::try_from(std::os::unix::fs::MetadataExt::ino(&found)).ok()
}

/// Always `None`: other systems have none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pid_namespace() -> Option<u32> {
    None
}

/// The path of a file of a process in `/proc`, which may be mounted for another pid namespace, where this process has another
/// id. pid_namespaces(7), proc(5), /proc/self
fn in_proc(pid: u32, file: &str) -> String {
    if pid == this_pid() { format!("/proc/self/{file}") } else { format!("/proc/{pid}/{file}") }
}

/// The id of a process in its own pid namespace. proc(5), /proc/PID/status
fn own_pid(pid: u32) -> Option<u32> {
    own_pid_in(&read_text(format!("/proc/{pid}/status")).ok()?)
}

/// The same, from that file's text.
fn own_pid_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

//! Other processes, as proc(5) tells of them: whether one is gone, and who has a lock.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{FileLock, Inode, Locker, Lockers, beyond_standard, read_to_string};

/// Whether the process `pid` that did something `ago` is gone: there is none in this pid namespace, it
/// is dead and its parent has not noticed, or the id is a younger process's by now. kill(2)
pub(crate) fn is_gone(pid: u32, ago: Duration) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    if pid <= 0 {
        return false;
    }
    // SAFETY: signal 0 is none: it only asks.
    let rc = unsafe { libc::kill(pid, 0) };
    if rc != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
        return true;
    }
    read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Stat::parse(&stat))
        .is_some_and(|stat| stat.is_dead() || stat.is_younger_than(ago))
}

/// What /proc/PID/stat says.
struct Stat {
    state: char,
    flags: u64,
    threads: u64,
    /// When it began, in clock ticks since the machine did.
    began: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name may have any bytes in it.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |nth: usize| fields.get(nth)?.parse().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            flags: number(6)?,
            threads: number(17)?,
            began: number(19)?,
        })
    }

    /// It has no file open any more. Its first thread may end before the others do.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads < 2
    }

    fn is_of_the_kernel(&self) -> bool {
        const PF_KTHREAD: u64 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }

    /// Whether it began after what happened `ago`. A machine that was suspended since makes it look older.
    fn is_younger_than(&self, ago: Duration) -> bool {
        const SLACK: Duration = Duration::from_millis(100);
        let Some(now) = since_boot() else { return false };
        // SAFETY: it takes a number and cannot fail for this one.
        let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100);
        let began = Duration::from_millis(self.began.saturating_mul(1000) / per_second.max(1));
        now.saturating_sub(began) + SLACK < ago
    }
}

/// CLOCK_BOOTTIME, by which processes are told to have begun.
#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a struct to fill in.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    (rc == 0).then(|| Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

/// The processes that have a lock on one of `files` that `is_it`, as far as this process may look into
/// them; looks at most for `limit`. What they share by fork(2) or clone(2) is found in all of them. The
/// files are neither opened nor locked: stat(2) follows /proc/PID/fd.
pub(crate) fn with_lock(
    files: &[Inode],
    is_it: impl Fn(Inode, FileLock) -> bool,
    limit: Duration,
) -> Lockers {
    each_process(limit, |process, is_over| {
        for open in beyond_standard(|| fs::read_dir(process.join("fd")))?.flatten() {
            if is_over() {
                break;
            }
            let Ok(found) = open.path().metadata() else { continue };
            let inode = Inode::from(&found);
            if !files.contains(&inode) {
                continue;
            }
            let info = read_to_string(process.join("fdinfo").join(open.file_name()));
            let has =
                |info: String| info.lines().filter_map(lock_of).any(|lock| is_it(inode, lock));
            if info.is_ok_and(has) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Those of all processes that are `looked_for`, which is told whether the `limit` is over.
fn each_process(
    limit: Duration,
    looked_for: impl Fn(&Path, &dyn Fn() -> bool) -> io::Result<bool>,
) -> Lockers {
    let mut seen = Lockers { found: Vec::new(), hidden: 0, is_partial: false };
    let began = Instant::now();
    let is_over = || began.elapsed() > limit;
    let Ok(all) = beyond_standard(|| fs::read_dir("/proc")) else {
        seen.is_partial = true;
        return seen;
    };
    for process in all.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        match looked_for(&process.path(), &is_over) {
            Ok(true) => seen.found.push(Locker { pid, own_pid: own_pid(pid).unwrap_or(pid) }),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let stat = read_to_string(process.path().join("stat")).unwrap_or_default();
                let has_files = |stat: Stat| !stat.is_dead() && !stat.is_of_the_kernel();
                seen.hidden += usize::from(Stat::parse(&stat).is_some_and(has_files));
            }
            // It has ended meanwhile.
            Err(_) => {}
        }
        if is_over() {
            seen.is_partial = true;
            break;
        }
    }
    seen
}

/// A line of /proc/PID/fdinfo/N, `lock: 1: OFDLCK ADVISORY WRITE -1 08:01:131081 8192 EOF`.
fn lock_of(line: &str) -> Option<FileLock> {
    let fields: Vec<_> = line.strip_prefix("lock:")?.split_whitespace().collect();
    let [_, kind, .., access, _, _, start, last] = fields[..] else { return None };
    matches!(kind, "POSIX" | "OFDLCK").then_some(FileLock {
        is_exclusive: access == "WRITE",
        start: start.parse().ok()?,
        last: if last == "EOF" { i64::MAX } else { last.parse().ok()? },
    })
}

/// Whether anybody may have an exclusive lock on one of `files`, or one by an open file description, if it
/// `is_ofd`: a quick look before [`with_lock`]. True where the system does not tell.
pub(crate) fn may_be_locked(files: &[Inode], is_ofd: bool) -> bool {
    let Ok(locks) = read_to_string("/proc/locks") else { return true };
    // The device is another than stat(2)'s on some file systems.
    let of = |line: &str| line.split_whitespace().rev().nth(2)?.rsplit(':').next()?.parse().ok();
    locks.lines().any(|line| {
        line.contains(" WRITE ")
            && (!is_ofd || line.contains(" OFDLCK "))
            && of(line)
                .is_some_and(|number: u64| files.iter().any(|file| file.numbers()[1] == number))
    })
}

/// Whether anybody whom this process can see has a file locked as a whole. False where the system does not
/// tell. flock(2)
pub(crate) fn has_flock(file: Inode) -> bool {
    let locks = read_to_string("/proc/locks").unwrap_or_default();
    // The device is another than stat(2)'s on some file systems.
    let of = |line: &str| line.split_whitespace().rev().nth(2)?.rsplit(':').next()?.parse().ok();
    locks.lines().any(|line| line.contains(" FLOCK ") && of(line) == Some(file.numbers()[1]))
}

/// The id of a process in its own pid namespace.
fn own_pid(pid: u32) -> Option<u32> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::sys::{Range, entry_of, try_lock};

    #[test]
    fn a_lock_is_read_from_its_line() {
        let line = "lock:\t1: OFDLCK  ADVISORY  WRITE -1 08:01:131081 8192 4611686018427396096";
        let lock = FileLock { is_exclusive: true, start: 8192, last: 4_611_686_018_427_396_096 };
        assert_eq!(lock_of(line), Some(lock));
        let line = "lock:\t2: POSIX  ADVISORY  READ 77 00:2d:5 0 EOF";
        let lock = FileLock { is_exclusive: false, start: 0, last: i64::MAX };
        assert_eq!(lock_of(line), Some(lock));
        for line in ["lock:\t1: FLOCK  ADVISORY  WRITE 77 00:2d:5 0 EOF", "pos:\t0", "lock:", ""] {
            assert_eq!(lock_of(line), None, "{line}");
        }
    }

    #[test]
    fn a_process_is_told_by_its_stat() {
        let stat = |state: &str, threads: u64| {
            let text = format!(
                "7 (a) b (c)) {state} 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 1 2"
            );
            Stat::parse(&text).expect("it is whole")
        };
        assert!(!stat("S", 1).is_dead() && !stat("S", 1).is_of_the_kernel());
        assert!(stat("Z", 0).is_dead() && stat("Z", 1).is_dead());
        assert!(!stat("Z", 2).is_dead(), "its first thread has ended, another lives");
        assert_eq!(stat("S", 1).began, 99);
        assert!(Stat::parse("7 (a").is_none() && Stat::parse("").is_none());
    }

    /// This process lives, and did whatever it did since it began; a number that none has is gone, and so is
    /// this one if somebody else had its id ten years ago.
    #[test]
    fn whoever_is_gone_is_told() {
        let pid = std::process::id();
        assert!(!is_gone(pid, Duration::ZERO));
        assert!(is_gone(pid, Duration::from_secs(300_000_000)));
        assert!(is_gone(4_194_303, Duration::ZERO), "beyond the largest that is given");
        assert!(!is_gone(0, Duration::ZERO));
        let mut child = std::process::Command::new("true").spawn().expect("it starts");
        let began = Instant::now();
        while !is_gone(child.id(), Duration::ZERO) {
            assert!(began.elapsed() < Duration::from_secs(60), "a zombie is dead");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().expect("it ends");
    }

    /// This process has a lock, by one of its descriptors: it is found by that lock, and by no other.
    #[test]
    fn whoever_has_a_lock_is_found() {
        let file = tempfile::tempfile().expect("a file");
        let inode = entry_of(&file).expect("it is open").inode;
        let find = |start| {
            with_lock(&[inode], |_, lock| lock.is_exclusive && lock.start == start, Duration::MAX)
        };
        assert_eq!(find(5).found, []);
        assert!(try_lock(&file, Range { start: 5, len: 2 }, false).expect("they are there"));
        let pid = std::process::id();
        let found = find(5);
        assert_eq!(found.found, [Locker { pid, own_pid: own_pid(pid).expect("it has one") }]);
        assert!(!found.is_partial);
        assert_eq!(find(6).found, []);
        assert!(may_be_locked(&[inode], false) && may_be_locked(&[inode], true));
        drop(file);
        let cut_short = with_lock(&[inode], |_, _| true, Duration::ZERO);
        assert!(cut_short.is_partial && cut_short.found.is_empty());
    }
}

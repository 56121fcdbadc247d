//! System calls. Each item names the man page that describes its call. Nothing here knows SQLite.
//!
//! `unix` and `windows` have the same items; each build has one of the two. This file has what they
//! share. The files of `unix`:
//!
//! | file | what it is about |
//! |---|---|
//! | `inode` | which file it is |
//! | `descriptors` | opening, keeping, duplicating and closing descriptors |
//! | `files` | files by name: their kind and owner, and how to open them |
//! | `directory` | what names lead to, asked quickly and often |
//! | `large_files` | the C library's names for files of any length |
//! | `lines`, `without_waiting` | lines for people, written without waiting |
//! | `locks` | locks on ranges of bytes |
//! | `scratch` | copies by the kernel to memory that may be gone |
//! | `words` | words on which processes wait for each other |
//! | `mounts` | file systems: what they are, where they are mounted, what they can do |
//! | `memory` | this process's memory |
//! | `processes` | other processes |
//! | `one_process` | which process runs |
//! | `this_process` | this process, its clock and its machine |
//! | `vdso` | the kernel's clock without a system call |
//! | `thread` | whether the calling thread can be cancelled |
//! | [`fork`] | which process made a thing |
#![allow(unsafe_code)]

pub(crate) mod fork;
mod printable;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

pub(crate) use printable::printable;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fork::ForkMutex;

/// A range of bytes of a file. A lock may be on bytes that do not exist. fcntl(2)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Offset of the first byte.
    pub(crate) start: i64,
    /// Number of bytes; 0 stands for all that follow.
    pub(crate) len: i64,
}

impl Range {
    /// The range of a lock.
    #[cfg(unix)]
    pub(crate) fn of(lock: FileLock) -> Self {
        let len = if lock.last == i64::MAX { 0 } else { lock.last - lock.start + 1 };
        Self { start: lock.start, len }
    }

    /// Whether all bytes of `other` are in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        let end = |range: Self| if range.len == 0 { i64::MAX } else { range.start + range.len };
        self.start <= other.start && end(other) <= end(self)
    }
}

/// What a thread has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadUsage {
    /// For how long it has run, in ns.
    pub(crate) ran: u64,
    /// How often it has waited or slept. A thread that another has displaced from its processor did neither.
    pub(crate) sleeps: u64,
}

/// How much of a wait is over: by the clock or, if that is more, by the sleeps. A clock may stand
/// still, so a wait that went by the clock alone might never end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    /// When it began, in ns of the clock that is passed to [`Self::elapsed_at`].
    began: u64,
    slept: Duration,
}

impl Stopwatch {
    /// Starts at this moment, by [`kernel_ns`].
    pub(crate) fn start() -> Self {
        Self::start_at(kernel_ns())
    }

    /// Starts at `now`, of any clock.
    pub(crate) fn start_at(now: u64) -> Self {
        Self { began: now, slept: Duration::ZERO }
    }

    /// The time elapsed now, by [`kernel_ns`].
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed_at(kernel_ns())
    }

    /// The time elapsed at `now`, a time of the same clock that it was started with.
    pub(crate) fn elapsed_at(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.began)).max(self.slept)
    }

    /// A sleep has ended in full.
    pub(crate) fn note_sleep(&mut self, slept: Duration) {
        self.slept += slept;
    }

    /// Sleeps. nanosleep(2)
    pub(crate) fn sleep(&mut self, duration: Duration) {
        std::thread::sleep(duration);
        self.note_sleep(duration);
    }
}

/// The directories that this process has open. Mutex rule: held during open(2) and stat(2); no
/// other mutex is taken meanwhile.
static DIRECTORIES: ForkMutex<Vec<Weak<Directory>>> = ForkMutex::new(Vec::new());

/// Keeps other threads from opening directories until the result is dropped. The thread that forks
/// calls this before the fork, after all such functions except the log's. fork(2)
#[cfg(unix)]
pub(crate) fn hold_directories() -> impl std::any::Any {
    DIRECTORIES.lock()
}

/// The directory at `path`, shared by all callers that name the same one. `None` if its name has a
/// NUL.
pub(crate) fn directory_at(path: &Path) -> Option<Arc<Directory>> {
    let mut directories = DIRECTORIES.lock();
    let mut live = directories.iter().filter_map(Weak::upgrade);
    if let Some(known) = live.find(|known| known.is_at(path)) {
        return Some(known);
    }
    let opened = Arc::new(Directory::open(path)?);
    directories.retain(|known| known.strong_count() > 0);
    directories.push(Arc::downgrade(&opened));
    Some(opened)
}

/// An advisory lock on a range of bytes of a file.
#[cfg_attr(windows, allow(dead_code, reason = "Windows does not tell who has a lock"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileLock {
    /// Whether it excludes all other locks.
    pub(crate) is_exclusive: bool,
    /// Offset of its first byte.
    pub(crate) start: i64,
    /// Offset of its last byte.
    pub(crate) last: i64,
    /// Whether it is an OFD lock rather than a POSIX lock.
    pub(crate) is_ofd: bool,
}

/// A lock that the kernel lists.
#[cfg_attr(windows, allow(dead_code, reason = "Windows lists none"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedLock {
    pub(crate) inode: Inode,
    pub(crate) lock: FileLock,
    /// The process that has it, in this process's pid namespace; `None` for an OFD lock.
    pub(crate) pid: Option<u32>,
}

/// What other processes may know about a process.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// Its arguments, as they would be typed.
    pub(crate) command: Option<String>,
    /// The name or the number of its user.
    pub(crate) user: Option<String>,
    /// What it does, by proc(5)'s letter: `T` is stopped.
    pub(crate) state: Option<char>,
    /// Its id in its own pid namespace. pid_namespaces(7)
    pub(crate) own_pid: Option<u32>,
}

/// A file that a process has open.
#[cfg_attr(windows, allow(dead_code, reason = "Windows does not tell who has a file open"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenFile {
    pub(crate) inode: Inode,
    /// Whether it was opened with O_PATH.
    pub(crate) is_to_look: bool,
    /// The locks that its process or its open file description has.
    pub(crate) locks: Vec<FileLock>,
}

/// What was found in other processes, as far as this one may look into them.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    /// One entry for each process in which something was found.
    pub(crate) found: Vec<T>,
    /// How many processes this one may not look into, at least.
    pub(crate) hidden: usize,
    /// Whether processes may be missing from `found` and `hidden`: time ran out, or the system does
    /// not tell.
    pub(crate) is_partial: bool,
}

/// The processes that have some of the given files open: each one's id in this process's pid
/// namespace, and those files.
pub(crate) type Openers = Seen<(u32, Vec<OpenFile>)>;

/// A process that has a lock.
#[cfg_attr(windows, allow(dead_code, reason = "Windows does not tell who has a lock"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locker {
    /// Its id in this process's pid namespace. pid_namespaces(7)
    pub(crate) pid: u32,
    /// Its id in its own pid namespace.
    pub(crate) own_pid: u32,
}

/// The processes that have a lock.
pub(crate) type Lockers = Seen<Locker>;

/// The first 12 bytes of the name of this process's program; a shorter name ends with zeros.
pub(crate) fn program_name() -> [u8; 12] {
    static NAME: std::sync::OnceLock<[u8; 12]> = std::sync::OnceLock::new();
    *NAME.get_or_init(|| {
        let path = std::env::current_exe().unwrap_or_default();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let mut twelve = [0; 12];
        let n = name.len().min(twelve.len());
        twelve[..n].copy_from_slice(&name[..n]);
        twelve
    })
}

//! The locks that SQLite asks for, by any sequence of its system calls and the application's,
//! against a model. A process has the locks it was granted until it releases them or SQLite closes
//! its last descriptor of the file. Other opens and closes, and the numbers of descriptors, make no
//! difference. The kernel says what is locked, asked by another open file description.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::ffi::sqlite3_vfs_find;

const FILES: usize = 3;
/// What is locked, as SQLite does: always the same ranges, which do not overlap.
const RANGES: [(i64, i64); 4] = [(0, 1), (1, 1), (2, 1), (3, 3)];
const BYTES: usize = 6;

/// What happens next. Of the descriptors that SQLite has, a number chooses one.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// SQLite opens a file, to read or to write.
    Open { file: usize, writable: bool },
    /// SQLite closes a descriptor.
    Close(usize),
    /// SQLite locks a range.
    Lock { nth: usize, range: usize, exclusive: bool },
    /// SQLite asks whether somebody else has locked a range.
    IsLocked { nth: usize, range: usize },
    /// SQLite unlocks a range.
    Unlock { nth: usize, range: usize },
    /// SQLite unlocks all of the file.
    UnlockAll(usize),
    /// The application duplicates a descriptor of SQLite's and closes the duplicate.
    Duplicate(usize),
    /// The application opens a file and closes it.
    Reopen(usize),
    /// Another process locks a range.
    OthersLock { file: usize, range: usize, exclusive: bool },
    /// It unlocks all of the file.
    OthersUnlock(usize),
}

type Any = unsafe extern "C" fn();
type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut libc::flock) -> c_int;

/// By which system calls SQLite locks.
#[derive(Clone, Copy)]
struct Calls {
    open: Open,
    close: Close,
    fcntl: Fcntl,
}

impl Calls {
    /// Those of the unix VFS as they are now.
    fn of_sqlite() -> Self {
        // SAFETY: the VFS is registered for good, and what it calls by these names are functions of these
        // types; a variadic one takes its third argument like any other where they are replaced.
        unsafe {
            let vfs = sqlite3_vfs_find(c"unix".as_ptr());
            let get = (*vfs).xGetSystemCall.unwrap();
            let call = |name: &CStr| get(vfs, name.as_ptr()).unwrap();
            Self {
                open: std::mem::transmute::<Any, Open>(call(c"open")),
                close: std::mem::transmute::<Any, Close>(call(c"close")),
                fcntl: std::mem::transmute::<Any, Fcntl>(call(c"fcntl")),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    #[default]
    None,
    Shared,
    Exclusive,
}

impl Lock {
    fn of(exclusive: bool) -> Self {
        if exclusive { Self::Exclusive } else { Self::Shared }
    }

    fn excludes(self, other: Self) -> bool {
        self.max(other) == Self::Exclusive && self.min(other) != Self::None
    }

    fn kind(self) -> c_int {
        match self {
            Self::None => libc::F_UNLCK,
            Self::Shared => libc::F_RDLCK,
            Self::Exclusive => libc::F_WRLCK,
        }
    }
}

/// A descriptor of SQLite's.
struct Descriptor {
    number: c_int,
    file: usize,
    writable: bool,
    has_locked: bool,
}

/// What the model knows of a file: its bytes' locks.
#[derive(Default)]
struct File {
    ours: [Lock; BYTES],
    others: [Lock; BYTES],
}

struct Table {
    /// Connections of ours to the files, which use them not: what makes SQLite's locks on them protected.
    _connections: Vec<rusqlite::Connection>,
    calls: Calls,
    names: Vec<CString>,
    files: [File; FILES],
    /// Another process's descriptors, or as good as that: their locks are their own.
    others: Vec<c_int>,
    descriptors: Vec<Descriptor>,
}

fn flock(kind: c_int, (start, len): (i64, i64)) -> libc::flock {
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    (lock.l_start, lock.l_len) = (start, len);
    lock
}

fn bytes(range: usize) -> std::ops::Range<usize> {
    let (start, len) = RANGES[range];
    start as usize..(start + len) as usize
}

impl Table {
    fn new(calls: Calls, directory: &Path, vfs: &str) -> Self {
        let names: Vec<_> = (0..FILES)
            .map(|nth| {
                let path = directory.join(nth.to_string());
                std::fs::write(&path, "").unwrap();
                CString::new(path.as_os_str().as_bytes()).unwrap()
            })
            .collect();
        // SAFETY: terminated names.
        let others = names.iter().map(|name| unsafe { libc::open(name.as_ptr(), libc::O_RDWR) });
        let others = others.collect();
        let connect = |nth| {
            let path = directory.join(format!("{nth}"));
            rusqlite::Connection::open(format!("file:{}?vfs={vfs}", path.display())).unwrap()
        };
        let _connections = (0..FILES).map(connect).collect();
        Self {
            _connections,
            calls,
            names,
            files: Default::default(),
            others,
            descriptors: Vec::new(),
        }
    }

    /// By another open file description. Whether it was granted.
    fn others_lock(&self, file: usize, kind: c_int, range: (i64, i64)) -> bool {
        let lock = flock(kind, range);
        // SAFETY: the struct is what the command asks for.
        unsafe { libc::fcntl(self.others[file], libc::F_OFD_SETLK, &raw const lock) == 0 }
    }

    /// By SQLite. Whether it was granted.
    fn set(&mut self, nth: usize, kind: c_int, range: (i64, i64)) -> bool {
        let descriptor = &mut self.descriptors[nth];
        descriptor.has_locked = true;
        let mut lock = flock(kind, range);
        // SAFETY: the struct is what the command asks for.
        unsafe { (self.calls.fcntl)(descriptor.number, libc::F_SETLK, &raw mut lock) == 0 }
    }

    fn close(&mut self, nth: usize) {
        let Descriptor { number, file, has_locked, .. } = self.descriptors.remove(nth);
        // SAFETY: it is SQLite's.
        assert_eq!(unsafe { (self.calls.close)(number) }, 0);
        let is_last = !self.descriptors.iter().any(|other| other.file == file && other.has_locked);
        if has_locked && is_last {
            self.files[file].ours = Default::default();
        }
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        let count = self.descriptors.len();
        match step {
            Step::Open { file, writable } => {
                let flags = if writable { libc::O_RDWR } else { libc::O_RDONLY };
                // SAFETY: a terminated name.
                let number = unsafe {
                    (self.calls.open)(self.names[file].as_ptr(), flags | libc::O_CLOEXEC, 0)
                };
                assert!(number >= 0);
                self.descriptors.push(Descriptor { number, file, writable, has_locked: false });
            }
            Step::Reopen(file) => drop(std::fs::File::open(self.path(file)).unwrap()),
            Step::OthersLock { file, range, exclusive } => {
                let lock = Lock::of(exclusive);
                let is_granted = self.others_lock(file, lock.kind(), RANGES[range]);
                let file = &mut self.files[file];
                let expected = bytes(range).all(|byte| !file.ours[byte].excludes(lock));
                if is_granted != expected {
                    return Err(format!("another process's lock: {is_granted}"));
                }
                if is_granted {
                    file.others[bytes(range)].fill(lock);
                }
            }
            Step::OthersUnlock(file) => {
                assert!(self.others_lock(file, libc::F_UNLCK, (0, 0)));
                self.files[file].others = Default::default();
            }
            _ if count == 0 => {}
            Step::Close(nth) => self.close(nth % count),
            Step::Duplicate(nth) => {
                // SAFETY: a descriptor of SQLite's, and one of our own.
                unsafe { libc::close(libc::dup(self.descriptors[nth % count].number)) };
            }
            Step::Lock { nth, range, exclusive } => {
                let nth = nth % count;
                let Descriptor { file, writable, .. } = self.descriptors[nth];
                let lock = Lock::of(exclusive);
                let is_granted = self.set(nth, lock.kind(), RANGES[range]);
                let file = &mut self.files[file];
                // By a descriptor to read by, there are shared locks only.
                let expected = (writable || !exclusive)
                    && bytes(range).all(|byte| !file.others[byte].excludes(lock));
                if is_granted != expected {
                    return Err(format!("SQLite's lock: {is_granted}"));
                }
                if is_granted {
                    file.ours[bytes(range)].fill(lock);
                }
            }
            Step::Unlock { nth, range } => {
                let nth = nth % count;
                assert!(self.set(nth, libc::F_UNLCK, RANGES[range]));
                self.files[self.descriptors[nth].file].ours[bytes(range)].fill(Lock::None);
            }
            Step::UnlockAll(nth) => {
                let nth = nth % count;
                assert!(self.set(nth, libc::F_UNLCK, (0, 0)));
                self.files[self.descriptors[nth].file].ours = Default::default();
            }
            Step::IsLocked { nth, range } => {
                let descriptor = &mut self.descriptors[nth % count];
                descriptor.has_locked = true;
                let mut lock = flock(libc::F_WRLCK, RANGES[range]);
                // SAFETY: the struct is what the command asks for.
                let rc =
                    unsafe { (self.calls.fcntl)(descriptor.number, libc::F_GETLK, &raw mut lock) };
                assert_eq!(rc, 0);
                let is_locked = c_int::from(lock.l_type) != libc::F_UNLCK;
                let others = &self.files[descriptor.file].others[bytes(range)];
                if is_locked != others.iter().any(|lock| *lock != Lock::None) {
                    return Err(format!("F_GETLK: {is_locked}"));
                }
            }
        }
        self.check()
    }

    fn path(&self, file: usize) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.names[file].as_bytes()))
    }

    /// What the kernel says, byte by byte.
    fn check(&self) -> Result<(), String> {
        for (nth, file) in self.files.iter().enumerate() {
            // SAFETY: a terminated name.
            let observer = unsafe { libc::open(self.names[nth].as_ptr(), libc::O_RDWR) };
            let locks: [c_int; BYTES] = std::array::from_fn(|byte| {
                let mut lock = flock(libc::F_WRLCK, (byte as i64, 1));
                // SAFETY: the struct is what the command asks for.
                let rc = unsafe { libc::fcntl(observer, libc::F_OFD_GETLK, &raw mut lock) };
                assert_eq!(rc, 0);
                lock.l_type.into()
            });
            // SAFETY: a descriptor of our own.
            unsafe { libc::close(observer) };
            let expected: [c_int; BYTES] =
                std::array::from_fn(|byte| file.ours[byte].max(file.others[byte]).kind());
            if locks != expected {
                return Err(format!("file {nth}: {locks:?} instead of {expected:?}"));
            }
        }
        Ok(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for Descriptor { number, .. } in self.descriptors.drain(..) {
            // SAFETY: it is SQLite's.
            unsafe { (self.calls.close)(number) };
        }
        for number in &self.others {
            // SAFETY: a descriptor of our own.
            unsafe { libc::close(*number) };
        }
    }
}

/// Runs the steps, and has SQLite close all it has, after which it has locked nothing and left no
/// descriptor open. Returns what is wrong.
fn run(vfs: &str, calls: Calls, steps: &[Step]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let mut table = Table::new(calls, directory.path(), vfs);
    for (nth, step) in steps.iter().enumerate() {
        table.step(*step).map_err(|error| format!("step {nth}, {step:?}: {error}"))?;
    }
    while !table.descriptors.is_empty() {
        table.close(0);
        table.check()?;
    }
    drop(table);
    let after = open();
    if before == after { Ok(()) } else { Err(format!("{before} descriptors, and then {after}")) }
}

fn step() -> impl Strategy<Value = Step> {
    let lock = || (0..8_usize, 0..RANGES.len(), any::<bool>());
    prop_oneof![
        4 => (0..FILES, prop::bool::weighted(0.7))
            .prop_map(|(file, writable)| Step::Open { file, writable }),
        3 => (0..8_usize).prop_map(Step::Close),
        8 => lock().prop_map(|(nth, range, exclusive)| Step::Lock { nth, range, exclusive }),
        2 => (0..8_usize, 0..RANGES.len()).prop_map(|(nth, range)| Step::IsLocked { nth, range }),
        3 => (0..8_usize, 0..RANGES.len()).prop_map(|(nth, range)| Step::Unlock { nth, range }),
        1 => (0..8_usize).prop_map(Step::UnlockAll),
        1 => (0..8_usize).prop_map(Step::Duplicate),
        1 => (0..FILES).prop_map(Step::Reopen),
        3 => (0..FILES, 0..RANGES.len(), any::<bool>())
            .prop_map(|(file, range, exclusive)| Step::OthersLock { file, range, exclusive }),
        1 => (0..FILES).prop_map(Step::OthersUnlock),
    ]
}

/// One test, since descriptors are counted and the stock system calls must be seen before they are
/// replaced: with those, a process that closes any descriptor of a file loses all locks on it.
#[test]
fn locks_last_until_they_are_released() {
    let lock = Step::Lock { nth: 0, range: 0, exclusive: true };
    let cancelled = [Step::Open { file: 0, writable: true }, lock, Step::Reopen(0)];
    let lost = run("unix", Calls::of_sqlite(), &cancelled).unwrap_err();
    assert!(lost.contains(&format!("[{}, ", libc::F_UNLCK)), "{lost}");

    kanban_vfs::register(&kanban_vfs::Options::default()).unwrap();
    let ours = Calls::of_sqlite();
    assert_eq!(run("kanban", ours, &cancelled), Ok(()));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) };
    proptest!(config, |(steps in prop::collection::vec(step(), 0..60))| {
        let ran = run("kanban", ours, &steps);
        prop_assert_eq!(ran, Ok(()));
    });
}

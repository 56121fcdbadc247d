//! What a client reports, one line for each event. It appends a line to a file of its own by one
//! write(2), so what was written survives the client.
//!
//! | line | |
//! |---|---|
//! | `v <vfs>` | which VFS it uses |
//! | `a <txn>` | it is about to begin that transaction |
//! | `c <txn> <waited> <now>` | COMMIT returned SQLITE_OK; how many ms BEGIN waited; the time |
//! | `b <txn> <waited>` | it gave up after its busy timeout, and rolled back |
//! | `r <txn>` | it was refused at once, as the upgrade of a stale snapshot must be, and rolled back |
//! | `q` | this was the last line; it goes on with another diary |
//! | `n <what>` | it did something that is counted |
//! | `e <text>` | something happened that must not happen |

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A client's diary.
pub struct Diary(File);

impl Diary {
    /// Begins a diary, with the client's VFS: `ours` or the stock one.
    ///
    /// # Panics
    /// If it cannot be created.
    #[must_use]
    pub fn begin(directory: &Path, id: u64, ours: bool) -> Self {
        let path = directory.join(id.to_string());
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut diary = Self(file.expect("a place for the diary"));
        diary.say(format_args!("v {}", if ours { "kanban" } else { "stock" }));
        diary
    }

    /// Adds a line.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn say(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_all(format!("{line}\n").as_bytes()).expect("a place for the diary");
    }
}

/// A client's diary, as the parent reads it.
pub struct Reader {
    file: File,
    unfinished: Vec<u8>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Which VFS it uses.
    Vfs(String),
    /// It is about to begin that transaction.
    Attempt(u64),
    /// A commit was acknowledged.
    Committed {
        /// Its transaction.
        txn: u64,
        /// How long BEGIN took, in ms.
        waited: u64,
        /// In ms of CLOCK_MONOTONIC.
        at: u64,
    },
    /// A busy timeout expired.
    Busy {
        /// Which transaction.
        txn: u64,
        /// How long it waited, in ms.
        waited: u64,
    },
    /// A transaction was refused at once.
    Refused(u64),
    /// It was the last line of the diary.
    Quit,
    /// Something that is counted.
    Did(String),
    /// Something that must not happen.
    Failed(String),
}

impl Reader {
    /// Opens a diary; `None` if there is none yet.
    #[must_use]
    pub fn open(path: &PathBuf) -> Option<Self> {
        Some(Self { file: File::open(path).ok()?, unfinished: Vec::new() })
    }

    /// The lines that came since the last call.
    ///
    /// # Panics
    /// If the file is not a diary.
    pub fn lines(&mut self) -> Vec<Line> {
        self.file.read_to_end(&mut self.unfinished).expect("it can be read");
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1);
        let rest = self.unfinished.split_off(end);
        let lines = String::from_utf8(std::mem::replace(&mut self.unfinished, rest));
        lines.expect("diaries are text").lines().map(parse).collect()
    }
}

fn parse(line: &str) -> Line {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let numbers: Vec<u64> = rest.split(' ').map_while(|n| n.parse().ok()).collect();
    match (kind, &numbers[..]) {
        ("v", _) => Line::Vfs(rest.to_owned()),
        ("a", [txn]) => Line::Attempt(*txn),
        ("c", [txn, waited, at]) => Line::Committed { txn: *txn, waited: *waited, at: *at },
        ("b", [txn, waited]) => Line::Busy { txn: *txn, waited: *waited },
        ("r", [txn]) => Line::Refused(*txn),
        ("q", []) => Line::Quit,
        ("n", _) => Line::Did(rest.to_owned()),
        ("e", _) => Line::Failed(rest.to_owned()),
        _ => panic!("not a line of a diary: {line}"),
    }
}

/// Milliseconds of CLOCK_MONOTONIC, one clock for all processes.
#[must_use]
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

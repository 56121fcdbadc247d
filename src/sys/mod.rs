//! System calls. Nothing here knows of SQLite.
#![allow(unsafe_code)]

#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
mod filesystem;
pub(crate) mod fork;
#[cfg(unix)]
mod processes;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use descriptors::*;
#[cfg(unix)]
pub(crate) use filesystem::*;
#[cfg(unix)]
pub(crate) use processes::*;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A range of bytes of a file. Locks need not be on bytes that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Offset of the first byte.
    pub(crate) start: i64,
    /// Number of bytes; 0 for all that follow.
    pub(crate) len: i64,
}

impl Range {
    /// Whether all bytes of `other` are in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        let end = |range: Self| if range.len == 0 { i64::MAX } else { range.start + range.len };
        self.start <= other.start && end(other) <= end(self)
    }
}

/// The directories that this process has open.
static DIRECTORIES: Mutex<Vec<Weak<Directory>>> = Mutex::new(Vec::new());

fn directories() -> MutexGuard<'static, Vec<Weak<Directory>>> {
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps other threads from opening directories until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_directories() -> impl std::any::Any {
    directories()
}

/// The directory at `path`, which all who ask for it share. `None` if there is a NUL in its name.
pub(crate) fn directory_at(path: &Path) -> Option<Arc<Directory>> {
    let mut directories = directories();
    let mut live = directories.iter().filter_map(Weak::upgrade);
    if let Some(known) = live.find(|known| known.is_at(path)) {
        return Some(known);
    }
    let opened = Arc::new(Directory::open(path)?);
    directories.retain(|known| known.strong_count() > 0);
    directories.push(Arc::downgrade(&opened));
    Some(opened)
}

/// A lock on a file that somebody has, advisory and of a range of bytes.
#[cfg_attr(windows, allow(dead_code, reason = "Windows does not tell who has a lock"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileLock {
    /// Whether it is one for writing.
    pub(crate) is_exclusive: bool,
    /// Offsets of its first and its last byte.
    pub(crate) start: i64,
    pub(crate) last: i64,
}

/// A process that has a lock.
#[cfg_attr(windows, allow(dead_code, reason = "as above"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locker {
    pub(crate) pid: u32,
    /// Its id in its own pid namespace.
    pub(crate) own_pid: u32,
}

/// Who has a lock, as far as this process may know.
#[derive(Debug)]
pub(crate) struct Lockers {
    pub(crate) found: Vec<Locker>,
    /// Processes that this one may not look into, at least.
    pub(crate) hidden: usize,
    /// Whether others were left out, for want of time or of a system that tells.
    pub(crate) is_partial: bool,
}

/// The name of this process's program, or as much of it as 12 bytes hold.
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

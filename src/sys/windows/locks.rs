//! Locks on ranges of bytes: LockFileEx. `docs/windows.md` says how they differ from unix's.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::windows::io::AsRawHandle;

use parking_lot::Mutex;
use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION};
use windows_sys::Win32::Storage::FileSystem::{
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use crate::sys::{Inode, Range};

/// An open file, and the locks of its handle. A lock belongs to its handle, and is released as a whole.
pub(crate) struct LockFile {
    file: File,
    /// Which ranges are locked, and whether shared. Mutex rule: held for system calls that do not wait; no other
    /// mutex is taken meanwhile.
    held: Mutex<Vec<(Range, bool)>>,
}

impl LockFile {
    /// The locks of a file that was just opened: none.
    pub(crate) fn new(file: File) -> Self {
        Self { file, held: Mutex::default() }
    }

    /// The file, to read and write it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Always true: nobody else closes a handle of ours.
    pub(crate) fn is_intact(&self) -> bool {
        true
    }

    /// -1: there is no descriptor, and no child inherits the handle.
    pub(crate) fn descriptor(&self) -> i32 {
        -1
    }

    /// Takes an exclusive or shared lock on `range`; false if another handle has a lock in its way. Windows releases
    /// the lock when the handle is closed: at the latest when its process ends. LockFileEx
    #[doc(alias = "LockFileEx")]
    pub(crate) fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        let mut held = self.held.lock();
        if held.contains(&(range, shared)) {
            return Ok(true);
        }
        let locked = self.lock(range, shared)?;
        if locked {
            held.push((range, shared));
        }
        Ok(locked)
    }

    /// Releases all locks whose last byte is in `range`. UnlockFileEx
    pub(crate) fn unlock(&self, range: Range) -> io::Result<()> {
        let mut unlocked = Ok(());
        self.held.lock().retain(|(held, _)| {
            let last = Range { start: held.start + held.len - 1, len: 1 };
            let keep = !range.covers(last);
            if !keep {
                unlocked = std::mem::replace(&mut unlocked, Ok(())).and(self.release(*held));
            }
            keep
        });
        unlocked
    }

    /// `range`, if another handle has an exclusive lock on its first byte. Windows does not list locks, so this
    /// takes a shared lock on the byte, and releases it at once.
    pub(crate) fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        let first = Range { len: 1, ..range };
        let held = self.held.lock();
        let covers =
            |held: &Range| held.start <= first.start && first.start - held.start < held.len;
        // A shared lock can overlap an exclusive one by the same handle.
        if held.iter().any(|(held, _)| covers(held)) {
            return Ok(None);
        }
        if !self.lock(first, true)? {
            return Ok(Some(range));
        }
        self.release(first)?;
        Ok(None)
    }

    /// Takes a lock; false if another handle has one in its way. LockFileEx
    fn lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        let kind = if shared { 0 } else { LOCKFILE_EXCLUSIVE_LOCK };
        let (low, high) = halves(range.len);
        let mut start = overlapped(range);
        // SAFETY: an open handle, and an offset that lives as long as the call, which does not wait.
        let locked = unsafe {
            let flags = LOCKFILE_FAIL_IMMEDIATELY | kind;
            LockFileEx(self.file.as_raw_handle(), flags, 0, low, high, &raw mut start)
        };
        if locked != 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error().map(|code| code as u32) {
            Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING) => Ok(false),
            _ => Err(error),
        }
    }

    /// Releases one lock, by its exact range. UnlockFileEx
    fn release(&self, range: Range) -> io::Result<()> {
        let (low, high) = halves(range.len);
        let mut start = overlapped(range);
        // SAFETY: an open handle, and an offset that lives as long as the call, which does not wait.
        match unsafe { UnlockFileEx(self.file.as_raw_handle(), 0, low, high, &raw mut start) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// The low and the high 32 bits of a number.
fn halves(number: i64) -> (u32, u32) {
    (number as u32, (number >> 32) as u32)
}

/// The offset of a range, as LockFileEx takes it. OVERLAPPED
fn overlapped(range: Range) -> OVERLAPPED {
    let mut overlapped = OVERLAPPED::default();
    let (low, high) = halves(range.start);
    overlapped.Anonymous.Anonymous.Offset = low;
    overlapped.Anonymous.Anonymous.OffsetHigh = high;
    overlapped
}

/// Whether this process has locks on a file that a close of another handle would drop. Always false: Windows has no
/// such locks.
pub(crate) fn has_posix_locks_on(_: i32, _: Inode) -> Option<bool> {
    Some(false)
}

/// How many descriptors this process has of each file, where a close of one drops the locks of others. Always none.
pub(crate) fn descriptors_by_file() -> io::Result<HashMap<Inode, usize>> {
    Ok(HashMap::new())
}

/// Whether [`LockFile::conflicting`] tells the whole range of the lock in the way.
pub(crate) const KERNEL_TELLS_RANGES: bool = false;

/// Whether a lock has failed because the file system has no locks. Always false.
pub(crate) fn has_no_locks(_: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::windows::files::open_to_lock;

    #[test]
    fn locks_belong_to_handles_and_are_released_by_their_last_byte() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("locked");
        std::fs::write(&path, [0; 16]).expect("it can be written");
        let open = || LockFile::new(open_to_lock(&path).expect("it opens"));
        let (a, b) = (open(), open());
        let lock = |file: &LockFile, start, len, shared| {
            file.try_lock(Range { start, len }, shared).expect("it can be tried")
        };
        let is_free = |file: &LockFile, start| {
            file.conflicting(Range { start, len: 1 }).expect("it can be tried").is_none()
        };
        // As in the queue: the waiters' byte and the write lock in one, then a shared lock over it.
        assert!(lock(&a, 100, 1 << 40, false));
        assert!(!lock(&b, 101, 1 << 50, false) && !lock(&b, 100, 1, true));
        assert!(is_free(&a, 101) && !is_free(&b, 101));
        assert!(!lock(&b, 101, 1, false), "its owner's look has not released it");
        assert!(lock(&a, 100, 1, true), "over its own");
        a.unlock(Range { start: 100, len: 1 }).expect("it is locked");
        assert!(!is_free(&b, 100) && !is_free(&b, 101), "only the shared one was released");
        assert!(lock(&a, 100, 1, true));
        a.unlock(Range { start: 101, len: 0 }).expect("it is locked");
        assert!(is_free(&b, 101) && lock(&b, 101, 5, false), "the exclusive one, as a whole");
        assert!(lock(&b, 100, 1, true) && !lock(&b, 100, 1, false), "and not the shared one");
        drop(b);
        assert!(is_free(&a, 101), "closing a handle releases all");
    }
}

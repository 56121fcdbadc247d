//! The sidecar: the file beside a database whose bytes are locked instead of the database's.
//!
//! A process may open and close the sidecar freely. It must not do so with the database, because closing a file
//! drops the locks SQLite has on it (<https://www.sqlite.org/howtocorrupt.html> 2.2).

mod anothers;
mod content;
mod deletion;
mod kernel_locks;
mod opening;
mod place;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod unusable;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::holder::{Holder, WRITE_RANGE};
use super::page::{GROUP, GroupBytes, KIND_ENTRIES, KINDS, KindEntries, LENGTH, Page, slot_offset};
use super::queue::QueueFile;
use crate::format;
use crate::recorder::event::Process;
use crate::sys::{self, Inode, LockFile, Range, ThreadUsage, Words, fork};

#[cfg(unix)]
pub(crate) use anothers::hold_for_fork;
use content::Origin;
pub(crate) use content::{Content, content_of};
#[cfg(unix)]
pub(crate) use deletion::make_way;
pub(crate) use kernel_locks::{held_range, in_the_way};
pub(crate) use opening::{look_at, obstacle};
pub(crate) use unusable::{FOREIGN, Unusable};

/// How long a waiter that cannot be woken sleeps before it looks again.
const POLL: Duration = Duration::from_millis(1);

/// An open sidecar, which holds a page of ours.
pub(crate) struct Sidecar {
    file: fork::Own<LockFile>,
    inode: Inode,
    /// `None` if the file cannot be mapped: then waiters look every [`POLL`].
    words: Option<fork::Own<Words>>,
    origin: Origin,
}

/// `<database>-lock`
pub(crate) fn path_of(database: &Path) -> PathBuf {
    format::beside(database, format::SIDECAR_SUFFIX)
}

impl Sidecar {
    pub(crate) fn inode(&self) -> Inode {
        self.inode
    }

    /// The number of its descriptor, as [`LockFile::descriptor`] has it.
    pub(crate) fn descriptor(&self) -> i32 {
        self.file.descriptor()
    }

    /// Whether waiters can be woken; else they poll.
    pub(crate) fn is_mapped(&self) -> bool {
        self.words.is_some()
    }

    /// The file, in the process that opened it. In a forked child, the descriptor's number may be another file's.
    #[inline(always)]
    fn own_file(&self) -> io::Result<&LockFile> {
        #[cold]
        fn inherited() -> io::Error {
            io::ErrorKind::Unsupported.into()
        }
        self.file.get().ok_or_else(inherited)
    }
}

impl Sidecar {
    /// Writes bytes of the page: through the mapping, if that is possible.
    fn put(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.own_file()?;
        if self.words.as_ref().is_some_and(|words| words.write(at as usize, bytes).is_ok()) {
            return Ok(());
        }
        // Somebody may have closed the descriptor behind our back: its number may be another file's by now.
        if !file.is_intact() {
            return Err(io::ErrorKind::NotFound.into());
        }
        content::may_be_written()?;
        sys::write_all_at(file.file(), bytes, at)
    }
}

/// The bytes and the byte range locks of group commit.
impl Sidecar {
    /// # Errors
    /// A parent of this process opened the file, or it cannot be read.
    pub(crate) fn read_group(&self) -> io::Result<GroupBytes> {
        let mut bytes = GroupBytes::default();
        sys::read_exact_at(self.own_file()?.file(), &mut bytes.0, GROUP as u64)?;
        Ok(bytes)
    }

    /// # Errors
    /// A parent of this process opened the file, or it cannot be written.
    pub(crate) fn write_group(&self, bytes: &GroupBytes) -> io::Result<()> {
        self.put(GROUP as u64, &bytes.0)
    }

    /// Takes an exclusive lock, without waiting. False if another open file has a conflicting one.
    ///
    /// # Errors
    /// A parent of this process opened the file, or the kernel fails.
    pub(crate) fn try_lock_group(&self, range: Range) -> io::Result<bool> {
        self.own_file()?.try_lock(range, false)
    }

    /// # Errors
    /// A parent of this process opened the file, or the kernel fails.
    pub(crate) fn unlock_group(&self, range: Range) -> io::Result<()> {
        self.own_file()?.unlock(range)
    }

    /// Sleeps at most `limit` while the futex word of group commit is `word`.
    pub(crate) fn wait_for_group(&self, word: u32, limit: Duration) {
        let waited = self.words.as_ref().map(|words| words.wait(GROUP, word, limit));
        if matches!(waited, Some(Err(_))) {
            // The sidecar was cut short.
            std::thread::sleep(limit.min(POLL));
        }
    }

    /// Changes the futex word of group commit, and wakes all that sleep on it.
    pub(crate) fn wake_group(&self) {
        // The word must differ from any that a waiter has read. Nothing behind it is written: the record there may
        // be another leader's by now.
        let word = (sys::monotonic_ns() as u32).to_le_bytes();
        let _ = self.put(GROUP as u64, &word);
        if let Some(words) = &self.words {
            words.wake(GROUP);
        }
    }
}

/// The kinds of transactions that write after they have read.
impl Sidecar {
    /// # Errors
    /// A parent of this process opened the file, or it cannot be read.
    pub(crate) fn read_kinds(&self) -> io::Result<KindEntries> {
        let mut entries = KindEntries([0; KIND_ENTRIES * 4]);
        sys::read_exact_at(self.own_file()?.file(), &mut entries.0, KINDS as u64)?;
        Ok(entries)
    }

    /// # Errors
    /// A parent of this process opened the file, or it cannot be written.
    pub(crate) fn write_kind(&self, nth: usize, entry: u32) -> io::Result<()> {
        let at = (KINDS + nth.min(KIND_ENTRIES - 1) * 4) as u64;
        self.put(at, &entry.to_le_bytes())
    }
}

impl QueueFile for Sidecar {
    fn read(&self) -> io::Result<Page> {
        let file = self.own_file()?.file();
        Page::read(|into, at| sys::read_exact_at(file, into, at))
    }

    fn lengthen(&self) {
        // A write to the mapping may succeed and lengthen nothing.
        let file = self.own_file().ok().filter(|file| file.is_intact());
        if let Some(file) = file.filter(|_| content::may_be_written().is_ok()) {
            let _ = sys::write_all_at(file.file(), &[0], LENGTH as u64 - 1);
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(at, bytes)
    }

    #[inline(always)]
    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        let file = self.own_file()?;
        let taken = file.try_lock(range, shared)?;
        if taken && Holder::from_range(range).is_some() {
            kernel_locks::record(file, Some(range));
        }
        Ok(taken)
    }

    #[inline(always)]
    fn unlock(&self, range: Range) -> io::Result<()> {
        let file = self.own_file()?;
        if range.covers(WRITE_RANGE) {
            kernel_locks::record(file, None);
        }
        file.unlock(range)
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        in_the_way(self.own_file()?, range, || true)
    }

    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool {
        if let Some(words) = &self.words {
            // An error: the sidecar was cut short.
            if let Ok(woken) = words.wait(slot_offset(slot), word, limit) {
                return woken;
            }
        }
        // Nobody can wake it, so it looks.
        let mut left = limit;
        loop {
            let nap = left.min(POLL);
            self.sleep(nap);
            left -= nap;
            if left.is_zero() {
                return false;
            }
            if self.read().map_or(true, |page| page.word(slot) != word) {
                return true;
            }
        }
    }

    fn wake(&self, slot: usize) {
        if let Some(words) = &self.words {
            words.wake(slot_offset(slot));
        }
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        sys::monotonic_ns()
    }

    fn kernel_now(&self) -> u64 {
        sys::kernel_ns()
    }

    fn shared_now(&self) -> u64 {
        sys::shared_ns()
    }

    fn thread_usage(&self) -> Option<ThreadUsage> {
        sys::thread_usage()
    }

    fn process(&self) -> (u32, [u8; 12]) {
        (sys::pid(), sys::program_name())
    }

    fn process_of(&self, holder: Holder) -> Option<Process> {
        holder.is_to_be_seen(self.inode, false, POLL).then(|| Process::of(holder.pid))
    }

    fn has_ended(&self, holder: Holder) -> bool {
        sys::has_ended(holder.pid, holder.held())
    }
}

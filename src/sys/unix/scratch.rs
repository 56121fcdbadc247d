//! Copies by the kernel, to addresses where a copy by the processor could be fatal: the file that is mapped there may have been
//! cut short (SIGBUS). pread(2) then fails.
//!
//! The kernel copies from an unnamed file in memory, which only this process has open. That file is mapped, so that its content
//! takes no system call. It is made once, and has cells, so that threads need not wait for each other.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::descriptors::{Kept, leave_room, open};
use super::one_process::OneProcess;
use super::this_process::file_size_limit;

/// The size of a cell: the most bytes of one copy.
const CELL: usize = 32;
/// How many cells there are, if the file may be so long.
const CELLS: usize = 32;

/// The unnamed file, in `/dev/shm`, and its mapping.
struct Scratch {
    file: Kept,
    memory: NonNull<u8>,
    process: OneProcess,
    cells: usize,
    /// A bit for each cell that a thread uses.
    used: AtomicU32,
}

// SAFETY: a cell's memory is used by the thread that has set its bit.
unsafe impl Send for Scratch {}
// SAFETY: the same.
unsafe impl Sync for Scratch {}

/// Copies at most [`CELL`] bytes to an address, by the kernel. pread(2)
///
/// # Errors
/// There is no memory at the address; there is no file in memory, or another thread makes it; all cells are in use; or the
/// program has closed the file's descriptor.
///
/// # Safety
/// The address is of memory that any bytes may be copied to, or where there is none.
pub(super) unsafe fn copy(bytes: &[u8], to: *mut u8) -> io::Result<()> {
    let scratch = known()?;
    let cell = scratch.take().ok_or(io::ErrorKind::WouldBlock)?;
    // SAFETY: the caller's promise.
    unsafe { cell.copy(bytes, to) }
}

/// This process's file.
///
/// # Errors
/// There is none, or another thread makes it.
fn known() -> io::Result<Arc<Scratch>> {
    /// The file, and the process that made it or tried to. Mutex rule: nobody waits for it: in a child of fork(2), another thread
    /// of the parent may have had it locked. A child closes its copy.
    static KNOWN: Mutex<Option<(OneProcess, Option<Arc<Scratch>>)>> = Mutex::new(None);
    let this = OneProcess::this();
    let mut known = KNOWN.try_lock().ok_or(io::ErrorKind::WouldBlock)?;
    if known.as_ref().is_none_or(|(process, _)| *process != this) {
        *known = Some((this, Scratch::new(this).ok().map(Arc::new)));
    }
    let scratch = known.as_ref().and_then(|(_, scratch)| scratch.clone());
    scratch.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

impl Scratch {
    #[doc(alias = "O_TMPFILE")]
    fn new(process: OneProcess) -> io::Result<Self> {
        // A longer file would end this process (SIGXFSZ).
        let limit = file_size_limit().and_then(|limit| usize::try_from(limit).ok());
        let cells = limit.map_or(CELLS, |limit| CELLS.min(limit / CELL));
        let size = cells * CELL;
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_EXCL);
        leave_room()?;
        let file = Kept::new(open(&options, Path::new("/dev/shm"))?);
        if cells == 0 || !is_in_memory(file.file()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // This allocates the file's memory: if there is none left, that is an error here, and would be fatal later.
        file.file().write_all_at(&[0; CELLS * CELL][..size], 0)?;
        let (access, of_file) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new mapping, which replaces nothing.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, of_file, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::AddrInUse)?;
        let scratch = Self { file, memory, process, cells, used: AtomicU32::new(0) };
        // A child makes its own.
        // SAFETY: the mapping is this object's.
        match unsafe { libc::madvise(memory.as_ptr().cast(), size, libc::MADV_DONTFORK) } {
            0 => Ok(scratch),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A cell for the calling thread; `None` if all are in use.
    fn take(&self) -> Option<Cell<'_>> {
        let used = self.used.fetch_update(Ordering::Acquire, Ordering::Relaxed, |used| {
            ((used.trailing_ones() as usize) < self.cells).then_some(used | (used + 1))
        });
        used.ok().map(|used| Cell { scratch: self, nth: used.trailing_ones() as usize })
    }
}

/// Whether a file is in memory only. In the mapping of a file on a full disk, a store may be fatal. tmpfs(5), fstatfs(2)
fn is_in_memory(file: &File) -> bool {
    // SAFETY: all fields of this struct are integers.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open file, and a place for the answer.
    let rc = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) };
    rc == 0 && found.f_type as u64 == libc::TMPFS_MAGIC as u64
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A child has no such mapping.
        if self.process == OneProcess::this() {
            // SAFETY: the mapping is this object's, and nobody else has its address.
            unsafe { libc::munmap(self.memory.as_ptr().cast(), self.cells * CELL) };
        }
    }
}

/// A cell that a thread uses. Dropping it frees the cell.
struct Cell<'s> {
    scratch: &'s Scratch,
    nth: usize,
}

impl Cell<'_> {
    /// # Safety
    /// As for [`copy`].
    unsafe fn copy(&self, bytes: &[u8], to: *mut u8) -> io::Result<()> {
        if bytes.len() > CELL {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Another file's bytes must not get there.
        if !self.scratch.file.is_intact() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let at = self.nth * CELL;
        // SAFETY: within the mapping, and only this thread uses the cell.
        unsafe {
            let into = self.scratch.memory.as_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len());
        }
        let (file, at) = (self.scratch.file.as_raw_fd(), at as libc::off_t);
        // SAFETY: the caller's promise; the kernel copes if there is no memory.
        let copied = unsafe { libc::pread(file, to.cast(), bytes.len(), at) };
        match usize::try_from(copied) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(copied) if copied == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        self.scratch.used.fetch_and(!(1 << self.nth), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many threads as there are cells copy at the same time, each its own bytes. One more is told that there is no cell.
    #[test]
    fn each_thread_has_a_cell_of_its_own() {
        let scratch = Scratch::new(OneProcess::this()).expect("there is a /dev/shm");
        let cells: Vec<_> = (0..CELLS).map(|_| scratch.take().expect("a cell is free")).collect();
        assert!(scratch.take().is_none());
        let copies = |cells: &[Cell<'_>]| {
            for cell in cells {
                let (from, mut to) = ([cell.nth as u8; CELL], [0; CELL]);
                // SAFETY: an array of as many bytes.
                unsafe { cell.copy(&from, to.as_mut_ptr()) }.expect("it is intact");
                assert_eq!(from, to);
            }
        };
        std::thread::scope(|scope| {
            cells.chunks(4).for_each(|cells| {
                scope.spawn(|| copies(cells));
            });
        });
        drop(cells);
        assert_eq!(scratch.take().map(|cell| cell.nth), Some(0));
    }

    /// `/dev/shm` may be a directory on a disk. A file of proc(5) is in no tmpfs either.
    #[test]
    fn a_file_in_memory_is_told_from_others() {
        let in_memory = Scratch::new(OneProcess::this()).expect("there is a /dev/shm");
        assert!(is_in_memory(in_memory.file.file()));
        assert!(!is_in_memory(&File::open("/proc/self/maps").expect("there is a /proc")));
    }

    /// The program closes the descriptor, and another file gets its number. Nothing of that file is copied, and the caller learns
    /// that. It also learns that there is no memory at an address.
    #[test]
    fn no_other_file_is_copied() {
        let scratch = Scratch::new(OneProcess::this()).expect("there is a /dev/shm");
        let cell = scratch.take().expect("a cell is free");
        // SAFETY: address 0 has no memory.
        assert!(unsafe { cell.copy(b"nowhere", std::ptr::null_mut()) }.is_err());
        let other = tempfile::tempfile().expect("a file");
        other.write_all_at(&[b'S'; CELLS * CELL], 0).expect("it is open");
        super::super::descriptors::replace(scratch.file.as_raw_fd(), &other)
            .expect("both are open");
        let mut to = [0; 8];
        // SAFETY: an array of as many bytes.
        let copied = unsafe { cell.copy(b"in vain!", to.as_mut_ptr()) };
        assert_eq!(copied.map_err(|why| why.kind()), Err(io::ErrorKind::NotFound));
        assert_eq!(to, [0; 8]);
    }
}

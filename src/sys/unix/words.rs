//! Words of a file on which processes wait for each other: futex(2).

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub(crate) use futex::Words;

#[cfg(target_os = "linux")]
mod futex {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::ptr::NonNull;

    use parking_lot::Mutex;

    use super::*;
    use crate::sys::fork;
    use crate::sys::unix::descriptors::{Kept, leave_room, open, reopen};
    use crate::sys::unix::files::{entry_of, open_to_read};
    use crate::sys::unix::inode::inode_of;
    use crate::sys::unix::thread::AsBefore;

    /// The first bytes of a file, mapped only for their addresses, which futex(2) needs. This process never touches the memory
    /// itself: if the file is cut short, that would be fatal, while system calls only fail.
    pub(crate) struct Words {
        address: NonNull<libc::c_void>,
        /// In bytes.
        size: usize,
        /// The id of the process that made the mapping.
        process: libc::pid_t,
    }

    // SAFETY: the address is only ever passed to the kernel.
    unsafe impl Send for Words {}
    // SAFETY: the address is only ever passed to the kernel.
    unsafe impl Sync for Words {}

    impl Words {
        /// Maps the first `size` bytes of the file, which is at `path`. mmap(2)
        ///
        /// A mapping keeps its open file description alive, and with it the description's locks. Those would be the locks of a
        /// connection whose descriptors somebody closed, or of a dead process whose child shares its memory. So the mapping
        /// uses a description that never has a lock.
        pub(crate) fn map(file: &File, path: &Path, size: usize) -> io::Result<Self> {
            let file = match reopen(file.as_raw_fd(), true) {
                Ok(file) => file,
                // There is no /proc, or the file may not be written to.
                Err(_) => {
                    let inode = inode_of(file.as_raw_fd())?;
                    let file = open_to_read(path)?;
                    if entry_of(&file)?.inode != inode {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                    file.into()
                }
            };
            let map = |access| unsafe {
                // SAFETY: a new mapping, which replaces nothing.
                libc::mmap(
                    std::ptr::null_mut(),
                    size,
                    access,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            let mut address = map(libc::PROT_READ | libc::PROT_WRITE);
            if address == libc::MAP_FAILED {
                // A wait on a word still works.
                address = map(libc::PROT_READ);
            }
            if address == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let Some(address) = NonNull::new(address) else {
                return Err(io::ErrorKind::AddrInUse.into());
            };
            let words = Self { address, size, process: process_id() };
            // A child of fork(2) has no use for it.
            // SAFETY: the mapping is this object's.
            match unsafe { libc::madvise(address.as_ptr(), size, libc::MADV_DONTFORK) } {
                0 => Ok(words),
                _ => Err(io::Error::last_os_error()),
            }
        }

        /// Writes bytes at the offset `at`: the kernel copies them from a file in memory into the mapping. That takes less than
        /// pwrite(2) to the file itself, for which a file system may have to write a time to its journal, and wait for a sync
        /// of another file. pread(2)
        ///
        /// # Errors
        /// The page of memory does not exist any more, or was mapped read-only; there is no file in memory, or another thread
        /// uses it; or a parent of this process made the mapping.
        pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
            if at.checked_add(bytes.len()).is_none_or(|end| end > self.size) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // In a child that ran no fork handler the mapping does not exist, and other memory may be there by now.
            if process_id() != self.process {
                return Err(io::ErrorKind::Unsupported.into());
            }
            in_memory(|file| {
                file.write_all_at(bytes, 0)?;
                // SAFETY: it is within the mapping.
                let to = unsafe { self.address.as_ptr().cast::<u8>().add(at) };
                // SAFETY: the mapping is of this process, as long as this object is; the kernel copes with a file that is
                // shorter by now. No reference is made to the memory, which other processes write to meanwhile.
                let copied = unsafe { libc::pread64(file.as_raw_fd(), to.cast(), bytes.len(), 0) };
                match usize::try_from(copied) {
                    Ok(copied) if copied == bytes.len() => Ok(()),
                    Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(_) => Err(io::Error::last_os_error()),
                }
            })
        }

        /// The address of the word at the offset `at`, in bytes.
        fn word(&self, at: usize) -> *mut u32 {
            assert!(at % 4 == 0 && at + 4 <= self.size);
            // SAFETY: it is within the mapping.
            unsafe { self.address.as_ptr().cast::<u8>().add(at).cast() }
        }

        /// Sleeps while the word at the offset `at` is `value`, for at most `limit`; false if the limit was reached. May return
        /// early. It is not FUTEX_PRIVATE, since others wait in other processes. futex(2)
        ///
        /// # Errors
        /// The word does not exist any more.
        #[doc(alias = "FUTEX_WAIT")]
        pub(crate) fn wait(&self, at: usize, value: u32, limit: Duration) -> io::Result<bool> {
            let limit =
                libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
            let word = self.word(at);
            let as_before = AsBefore::begin();
            // SAFETY: the word is mapped; the kernel copes with one that is not there any more.
            let rc = unsafe {
                libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, &raw const limit)
            };
            let error = io::Error::last_os_error();
            drop(as_before);
            if rc == 0 {
                return Ok(true);
            }
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(true),
                Some(libc::ETIMEDOUT) => Ok(false),
                _ => Err(error),
            }
        }

        /// Wakes all threads that sleep on the word at the offset `at`. futex(2)
        #[doc(alias = "FUTEX_WAKE")]
        pub(crate) fn wake(&self, at: usize) {
            // SAFETY: the word is mapped; the kernel copes with one that is not there any more.
            unsafe { libc::syscall(libc::SYS_futex, self.word(at), libc::FUTEX_WAKE, i32::MAX) };
        }
    }

    /// This process's id, asked of the kernel. getpid(2)
    fn process_id() -> libc::pid_t {
        // SAFETY: the call takes nothing and cannot fail.
        unsafe { libc::getpid() }
    }

    /// Calls `act` with an unnamed file in memory, which only this process uses, and only one thread at a time. It is opened
    /// once and never closed. open(2)
    ///
    /// # Errors
    /// Those of `act`; or there is no such file, or another thread uses it.
    #[doc(alias = "O_TMPFILE")]
    fn in_memory<T>(act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        /// The file, and the generation ([`fork::generation`]) that made it or tried to. Mutex rule: nobody waits for it: in a
        /// child of fork(2), another thread of the parent may have had it locked. A child closes its copy.
        static FILE: Mutex<Option<(u64, Option<Kept>)>> = Mutex::new(None);
        let now = fork::generation();
        let mut known = FILE.try_lock().ok_or(io::ErrorKind::WouldBlock)?;
        if known.as_ref().is_none_or(|(made, _)| *made != now) {
            let mut options = File::options();
            options.read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_EXCL);
            let file = leave_room().and_then(|()| open(&options, Path::new("/dev/shm")));
            *known = Some((now, file.ok().map(Kept::new)));
        }
        let file = known.as_ref().and_then(|(_, file)| file.as_ref());
        match file.filter(|file| file.is_intact()) {
            Some(file) => act(file.file()),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    impl Drop for Words {
        fn drop(&mut self) {
            // SAFETY: the mapping is this object's, and nobody else has its address.
            unsafe { libc::munmap(self.address.as_ptr(), self.size) };
        }
    }
}

/// Other systems have no futex that works across processes. There waiters look every millisecond.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Words;

#[cfg(not(target_os = "linux"))]
impl Words {
    /// Maps nothing.
    pub(crate) fn map(_: &File, _: &Path, _: usize) -> io::Result<Self> {
        Ok(Self)
    }

    /// Does not sleep.
    ///
    /// # Errors
    /// Always: nobody would wake it.
    pub(crate) fn wait(&self, _: usize, _: u32, _: Duration) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes nothing.
    pub(crate) fn write(&self, _: usize, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Wakes nobody.
    pub(crate) fn wake(&self, _: usize) {}
}

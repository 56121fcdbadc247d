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
    use std::ptr::NonNull;

    use super::*;
    use crate::sys::unix::descriptors::reopen;
    use crate::sys::unix::files::{entry_of, open_to_read};
    use crate::sys::unix::inode::inode_of;
    use crate::sys::unix::one_process::OneProcess;
    use crate::sys::unix::scratch;
    use crate::sys::unix::thread::AsBefore;

    /// The first bytes of a file, mapped only for their addresses, which futex(2) needs. This process never touches the memory
    /// itself: if the file is cut short, that would be fatal, while system calls only fail.
    pub(crate) struct Words {
        address: NonNull<libc::c_void>,
        /// In bytes.
        size: usize,
        /// The process that made the mapping.
        process: OneProcess,
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
            let words = Self { address, size, process: OneProcess::this() };
            // A child of fork(2) has no use for it.
            // SAFETY: the mapping is this object's.
            match unsafe { libc::madvise(address.as_ptr(), size, libc::MADV_DONTFORK) } {
                0 => Ok(words),
                _ => Err(io::Error::last_os_error()),
            }
        }

        /// Writes bytes at the offset `at`: the kernel copies them from a file in memory into the mapping ([`scratch`]). That
        /// takes less than pwrite(2) to the file itself, for which a file system may have to write a time to its journal, and
        /// wait for a sync of another file.
        ///
        /// # Errors
        /// The page of memory does not exist any more, or was mapped read-only; those of [`scratch::copy`]; or a parent of this
        /// process made the mapping.
        pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
            if at.checked_add(bytes.len()).is_none_or(|end| end > self.size) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // In a child that ran no fork handler the mapping does not exist, and other memory may be there by now.
            if OneProcess::this() != self.process {
                return Err(io::ErrorKind::Unsupported.into());
            }
            // SAFETY: it is within the mapping.
            let to = unsafe { self.address.as_ptr().cast::<u8>().add(at) };
            // SAFETY: the mapping is of this process, as long as this object is. No reference is made to its memory, which
            // other processes write to meanwhile.
            unsafe { scratch::copy(bytes, to) }
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

    impl Drop for Words {
        fn drop(&mut self) {
            // A child has no such mapping.
            if self.process == OneProcess::this() {
                // SAFETY: the mapping is this object's, and nobody else has its address.
                unsafe { libc::munmap(self.address.as_ptr(), self.size) };
            }
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

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
    use crate::sys::unix::thread::AsBefore;

    /// The first bytes of a file, mapped for the sake of their addresses: processes that wait for a
    /// change of a word, and those that change it, meet there. This process never touches the memory itself,
    /// since that would be fatal once somebody has cut the file short; futex(2) only fails then.
    pub(crate) struct Words {
        address: NonNull<libc::c_void>,
        /// In bytes.
        size: usize,
    }

    // SAFETY: the address is only ever passed to the kernel.
    unsafe impl Send for Words {}
    // SAFETY: the address is only ever passed to the kernel.
    unsafe impl Sync for Words {}

    impl Words {
        /// Maps the first `size` bytes of the file, which is at `path`. mmap(2)
        ///
        /// A mapping holds its open file description, and
        /// that holds its locks: those of a connection whose descriptors somebody has closed, or of a dead process
        /// whose child shares its memory. So it is mapped by a description that never has a lock.
        pub(crate) fn map(file: &File, path: &Path, size: usize) -> io::Result<Self> {
            let file = match reopen(file.as_raw_fd(), false) {
                Ok(file) => file,
                // There is no /proc.
                Err(_) => {
                    let inode = inode_of(file.as_raw_fd())?;
                    let file = open_to_read(path)?;
                    if entry_of(&file)?.inode != inode {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                    file.into()
                }
            };
            // SAFETY: a new mapping, which replaces nothing.
            let address = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    size,
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            if address == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let Some(address) = NonNull::new(address) else {
                return Err(io::ErrorKind::AddrInUse.into());
            };
            let words = Self { address, size };
            // A child of fork(2) has no use for it.
            // SAFETY: the mapping is this object's.
            match unsafe { libc::madvise(address.as_ptr(), size, libc::MADV_DONTFORK) } {
                0 => Ok(words),
                _ => Err(io::Error::last_os_error()),
            }
        }

        /// The address of the word at the offset `at`, in bytes.
        fn word(&self, at: usize) -> *mut u32 {
            assert!(at % 4 == 0 && at + 4 <= self.size);
            // SAFETY: it is within the mapping.
            unsafe { self.address.as_ptr().cast::<u8>().add(at).cast() }
        }

        /// Sleeps while the word at the offset `at` is `value`, for at most `limit`: false if that is over. May return
        /// early. It is not FUTEX_PRIVATE: others are in other processes. futex(2)
        ///
        /// # Errors
        /// The word is not there any more.
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

        /// Wakes all that sleep on the word at the offset `at`. futex(2)
        #[doc(alias = "FUTEX_WAKE")]
        pub(crate) fn wake(&self, at: usize) {
            // SAFETY: the word is mapped; the kernel copes with one that is not there any more.
            unsafe { libc::syscall(libc::SYS_futex, self.word(at), libc::FUTEX_WAKE, i32::MAX) };
        }
    }

    impl Drop for Words {
        fn drop(&mut self) {
            // SAFETY: the mapping is this object's, and nobody else has its address.
            unsafe { libc::munmap(self.address.as_ptr(), self.size) };
        }
    }
}

/// Other systems have no futex between processes. There waiters look every millisecond.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Words;

#[cfg(not(target_os = "linux"))]
impl Words {
    /// Maps nothing.
    pub(crate) fn map(_: &File, _: &Path, _: usize) -> io::Result<Self> {
        Ok(Self)
    }

    /// Sleeps for 1 ms at most.
    pub(crate) fn wait(&self, _: usize, _: u32, limit: Duration) -> io::Result<bool> {
        std::thread::sleep(limit.min(Duration::from_millis(1)));
        Ok(false)
    }

    /// Wakes nobody.
    pub(crate) fn wake(&self, _: usize) {}
}

//! Words of a file on which processes wait for each other: futex(2).

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub(crate) use futex::Words;

#[cfg(target_os = "linux")]
mod futex {
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::fs::FileExt;
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::sys::fork;
    use crate::sys::unix::descriptors::{leave_room, open, reopen};
    use crate::sys::unix::files::{entry_of, open_to_read};
    use crate::sys::unix::inode::inode_of;
    use crate::sys::unix::thread::AsBefore;

    /// The first bytes of a file, mapped for the sake of their addresses: processes that wait for a
    /// change of a word, and those that change it, meet there. This process never touches the memory itself,
    /// since that would be fatal once somebody has cut the file short; system calls only fail then.
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
            let file = match reopen(file.as_raw_fd(), true) {
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
                // Words can be waited for all the same.
                address = map(libc::PROT_READ);
            }
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

        /// Writes bytes at the offset `at`: the kernel copies them from this process's memory, which it reads as a file. It
        /// takes less than pwrite(2), for which a file system may have to write a time to its journal, and wait for a sync of
        /// another file. proc(5), /proc/PID/mem
        ///
        /// # Errors
        /// The file is shorter by now, or was mapped only to be read, or there is no such file of this process's memory.
        pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
            if at.checked_add(bytes.len()).is_none_or(|end| end > self.size) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let memory = own_memory().ok_or(io::ErrorKind::Unsupported)?;
            // SAFETY: it is within the mapping.
            let to = unsafe { self.address.as_ptr().cast::<u8>().add(at) };
            // SAFETY: the kernel copes with a mapping whose file is shorter by now. No reference is made to the memory, which
            // other processes write to meanwhile. A descriptor that is another file's by now has nothing at that offset.
            let copied = unsafe {
                libc::pread64(
                    memory,
                    to.cast(),
                    bytes.len(),
                    bytes.as_ptr().addr() as libc::off64_t,
                )
            };
            match usize::try_from(copied) {
                Ok(copied) if copied == bytes.len() => Ok(()),
                Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(_) => Err(io::Error::last_os_error()),
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

    /// The descriptor of this process's memory, which stays open; `None` if there is none. A child of fork(2) has another
    /// memory, and opens its own.
    fn own_memory() -> Option<RawFd> {
        /// The generation ([`fork::generation`]) that has looked, from 1 on, and below it the descriptor, 0 for none.
        static MEMORY: AtomicU64 = AtomicU64::new(0);
        let own = fork::generation().wrapping_add(1) << 32;
        let mut known = MEMORY.load(Ordering::Relaxed);
        if known >> 32 != own >> 32 {
            let file = leave_room()
                .and_then(|()| open(File::options().read(true), Path::new("/proc/self/mem")));
            // An emulator may pass on its own.
            let file = file.ok().filter(|file| {
                let (own, mut read) = (own.to_ne_bytes(), [0; 8]);
                let at = own.as_ptr().addr() as u64;
                file.read_exact_at(&mut read, at).is_ok() && read == own
            });
            let number = file.as_ref().map_or(0, |file| file.as_raw_fd() as u64);
            match MEMORY.compare_exchange(known, own | number, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    std::mem::forget(file);
                    known = own | number;
                }
                // Another thread was faster.
                Err(other) => known = other,
            }
        }
        match known as u32 {
            0 => None,
            number => RawFd::try_from(number).ok(),
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

    /// Writes nothing.
    pub(crate) fn write(&self, _: usize, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Wakes nobody.
    pub(crate) fn wake(&self, _: usize) {}
}

//! This process's open files, by descriptor: proc(5).

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::Inode;

/// The file behind a descriptor. fstat(2)
pub(crate) fn inode_of(descriptor: RawFd) -> io::Result<Inode> {
    let mut found = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a struct to fill in; a descriptor that is not open is an error.
    let found = unsafe {
        if libc::fstat(descriptor, found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    Ok(Inode::of(&found))
}

/// Opens the file behind a descriptor once more: with an open file description of its own, whatever
/// the file is called by now.
pub(crate) fn reopen(descriptor: RawFd, writable: bool) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{descriptor}");
    Ok(File::options().read(true).write(writable).open(path)?.into())
}

/// Whether a descriptor was opened for writing. fcntl(2)
#[doc(alias = "F_GETFL")]
pub(crate) fn is_writable(descriptor: RawFd) -> bool {
    // SAFETY: a descriptor that is not open is an error.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Another descriptor of the same open file description. fcntl(2)
#[doc(alias = "F_DUPFD_CLOEXEC")]
pub(crate) fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a descriptor that is not open is an error; a new one is nobody else's.
    unsafe {
        match libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(OwnedFd::from_raw_fd(new)),
        }
    }
}

/// Makes `descriptor` another open file description's, in one step. The one it was is closed.
#[doc(alias = "dup3")]
pub(crate) fn replace(descriptor: RawFd, by: &OwnedFd) -> io::Result<()> {
    // SAFETY: both are open; who owns `descriptor` still does.
    #[cfg(target_os = "linux")]
    let rc = unsafe { libc::dup3(by.as_raw_fd(), descriptor, libc::O_CLOEXEC) };
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    let rc = unsafe {
        match libc::dup2(by.as_raw_fd(), descriptor) {
            -1 => -1,
            _ => libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC),
        }
    };
    match rc {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The files on which this process has POSIX locks.
///
/// # Errors
/// If there is no /proc.
pub(crate) fn with_posix_locks() -> io::Result<Vec<Inode>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let name = entry?.file_name();
        // It may have been closed since.
        let Some(descriptor) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = format!("/proc/self/fdinfo/{descriptor}");
        let Ok(info) = std::fs::read_to_string(path) else { continue };
        let mut locks = info.lines().filter(|line| line.starts_with("lock:"));
        if locks.any(|line| line.contains(" POSIX ")) {
            found.extend(inode_of(descriptor));
        }
    }
    Ok(found)
}

/// In the child of a fork: closes its copy of a descriptor, which leaves the parent's locks alone.
///
/// The owner of the descriptor must never use or close it again.
pub(crate) fn close_inherited(descriptor: RawFd) {
    // SAFETY: the caller gives up the child's copy.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
}

/// Makes memory that is shared with other processes this process's own, with what is in it now.
///
/// # Safety
/// `address` and `bytes` are of a mapping that can be written to, from the beginning of a page to the
/// end of one, and no other thread of this process uses it meanwhile.
pub(crate) unsafe fn make_private(address: *mut u8, bytes: usize) -> io::Result<()> {
    let copy: Vec<u8> = {
        // SAFETY: the caller's promise. Others may write to it meanwhile; any bytes will do.
        unsafe { std::slice::from_raw_parts(address, bytes) }.to_vec()
    };
    // SAFETY: the caller's promise: it replaces the mapping, and nothing else.
    unsafe {
        let private = libc::mmap(
            address.cast(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        if private == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        address.copy_from_nonoverlapping(copy.as_ptr(), bytes);
    }
    Ok(())
}

/// The memory that this process shares with others, from each first byte to the one behind the last.
pub(crate) fn shared_memory() -> Vec<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let shared = maps.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        fields.next()?.ends_with('s').then_some((address(start)?, address(end)?))
    });
    shared.collect()
}

/// Bytes of a page of memory.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: it takes a number and can not fail for this one.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

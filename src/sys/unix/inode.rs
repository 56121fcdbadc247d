//! Which file it is: inode(7).

#[cfg(target_os = "linux")]
use std::ffi::CStr;
use std::fs::Metadata;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use super::large_files;

/// What identifies a file, whatever its name or descriptor: its device and its inode number there. stat(2), `st_dev` and
/// `st_ino`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// The inode of what stat(2) found.
    #[allow(clippy::unnecessary_cast, reason = "its type is another on other systems")]
    pub(crate) fn of(found: &large_files::stat) -> Self {
        Self { device: found.st_dev as u64, number: found.st_ino }
    }

    /// The inode of what statx(2) found.
    #[cfg(target_os = "linux")]
    pub(super) fn of_statx(found: &libc::statx) -> Self {
        let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
        Self { device, number: found.stx_ino }
    }

    /// The device's two numbers, as they are in /proc/locks. makedev(3)
    #[allow(clippy::unnecessary_cast, reason = "their type is another on other systems")]
    pub(crate) fn device(self) -> [u32; 2] {
        let device = self.device as libc::dev_t;
        [libc::major(device) as u32, libc::minor(device) as u32]
    }

    /// The device and the inode number.
    pub(crate) fn numbers(self) -> [u64; 2] {
        [self.device, self.number]
    }
}

impl From<&Metadata> for Inode {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

/// The file behind a descriptor. fstat(2)
///
/// # Errors
/// EBADF if the descriptor is not open.
pub(crate) fn inode_of(descriptor: RawFd) -> io::Result<Inode> {
    let mut found = MaybeUninit::<large_files::stat>::zeroed();
    // SAFETY: fstat fills in the struct, for which zeros are a value; a descriptor that is not open is an error.
    let found = unsafe {
        if large_files::fstat(descriptor, found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    Ok(Inode::of(&found))
}

/// What a name in a directory leads to. statx(2)
#[cfg(target_os = "linux")]
pub(super) fn statx(
    directory: RawFd,
    name: &CStr,
    flags: libc::c_int,
    mask: libc::c_uint,
) -> io::Result<libc::statx> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // Not the C library's function: glibc before 2.28 has none, and would not load a library that asks for it.
    // SAFETY: a terminated name, and a struct that the call fills in, and for which zeros are a value.
    unsafe {
        let (name, into) = (name.as_ptr(), found.as_mut_ptr());
        match libc::syscall(libc::SYS_statx, directory, name, flags, mask, into) {
            0 => Ok(found.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether a descriptor is open and can be a database's: of a regular file or a block device. True if the kernel does not say.
/// It asks no server of a network file system, which might not answer. statx(2)
#[doc(alias = "AT_STATX_DONT_SYNC")]
#[cfg(target_os = "linux")]
pub(super) fn can_be_database(descriptor: RawFd) -> bool {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    match statx(descriptor, c"", flags, libc::STATX_TYPE) {
        Ok(found) if found.stx_mask & libc::STATX_TYPE != 0 => {
            let kind = libc::mode_t::from(found.stx_mode) & libc::S_IFMT;
            [libc::S_IFREG, libc::S_IFBLK].contains(&kind)
        }
        Ok(_) => true,
        Err(why) => why.raw_os_error() != Some(libc::EBADF),
    }
}

/// Always true: only Linux has statx(2).
#[cfg(not(target_os = "linux"))]
pub(super) fn can_be_database(_: RawFd) -> bool {
    true
}

/// Whether a descriptor is that file's: neither closed nor another file's. True if fstat(2) fails for another reason: a
/// descriptor must not stay open for good because the kernel did not answer.
pub(crate) fn is_of(descriptor: RawFd, inode: Inode) -> bool {
    match inode_of(descriptor) {
        Ok(found) => found == inode,
        Err(error) => error.raw_os_error() != Some(libc::EBADF),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    /// A registration reads what the kernel says about the locks of each file that can be a database, and of no other.
    #[test]
    fn a_file_can_be_a_database_and_a_terminal_cannot() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(can_be_database(file.as_raw_fd()));
        for other in ["/", "/dev/null"] {
            let opened = File::open(other).expect("it is there");
            assert!(!can_be_database(opened.as_raw_fd()), "{other}");
        }
        assert!(!can_be_database(-1), "it is not open");
    }
}

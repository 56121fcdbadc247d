//! What names lead to, asked quickly and often: stat(2).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::descriptors::{Kept, TO_LOOK, leaves_room_from, open};
use super::files::entry_behind;
use super::inode::Inode;
use super::large_files;
use super::this_process::of_kernel;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) inode: Inode,
    /// How many hard links it has.
    pub(crate) links: u64,
    /// When it last changed, in s and ns since 1970. No call sets this back. stat(2), `st_ctim`
    changed: (i64, i64),
}

impl Found {
    /// Whether a change at this moment would certainly get another time. File systems keep time by the kernel's tick,
    /// of 10 ms at most, or by one or two whole seconds.
    pub(crate) fn was_changed_a_while_ago(&self) -> bool {
        // The file's time is the kernel's, so this must be, too.
        let now = i128::from(of_kernel(libc::CLOCK_REALTIME)) / 1_000_000;
        let ms = |(s, ns): (i64, i64)| i128::from(s) * 1000 + i128::from(ns) / 1_000_000;
        let tick_ms = if self.changed.1 == 0 { 4000 } else { 20 };
        // A time in the future comes from a clock that was set back. It may come again.
        now > ms(self.changed) + tick_ms
    }
}

/// A name, as [`stat`] takes it: terminated.
#[derive(Debug)]
pub(crate) struct Name(CString);

impl Name {
    /// `None` if there is a NUL in it.
    pub(crate) fn new(name: &OsStr) -> Option<Self> {
        CString::new(name.as_bytes()).ok().map(Self)
    }
}

/// What `name` leads to; a symbolic link is not followed. lstat(2)
#[inline]
pub(crate) fn stat(name: &Name) -> io::Result<Found> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: a terminated name, and a struct that the call fills in if it succeeds.
    unsafe { found_by(large_files::lstat(name.0.as_ptr(), found.as_mut_ptr()), &found) }
}

/// What a call has found that returned `rc`; its error if that is not 0.
///
/// # Safety
/// If `rc` is 0, the struct is filled in.
#[inline]
unsafe fn found_by(rc: libc::c_int, found: &MaybeUninit<large_files::stat>) -> io::Result<Found> {
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's promise.
    let found = unsafe { found.assume_init_ref() };
    #[allow(clippy::useless_conversion, reason = "their types are others on other systems")]
    let (links, changed) =
        (found.st_nlink.into(), (found.st_ctime.into(), found.st_ctime_nsec.into()));
    Ok(Found { inode: Inode::of(found), links, changed })
}

/// A directory, by its name and, if it could be opened, by a descriptor. A look by the descriptor is faster, above all
/// if the name is long, and always finds the same directory, even when the name leads elsewhere.
#[derive(Debug)]
pub(crate) struct Directory {
    name: Name,
    descriptor: Option<Kept>,
    /// How this process saw names when it was opened.
    viewpoint: Viewpoint,
}

impl Directory {
    /// `None` if there is a NUL in its name. open(2)
    #[doc(alias = "O_DIRECTORY")]
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let flags = TO_LOOK | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened = open(File::options().read(true).custom_flags(flags), path);
        Some(Self {
            name: Name::new(path.as_os_str())?,
            descriptor: opened
                .ok()
                .map(Kept::new)
                .filter(|kept| leaves_room_from(kept.as_raw_fd() + 1)),
            viewpoint: Viewpoint::now(),
        })
    }

    /// Whether it is the one that `path` leads to.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.name.0.as_bytes() == path.as_os_str().as_bytes()
            && self.descriptor.is_some()
            && self.stat().is_ok_and(|found| self.is_in_place(&found))
    }

    /// What the directory is now: the opened one, or else the one of that name. fstat(2)
    #[inline]
    pub(crate) fn stat(&self) -> io::Result<Found> {
        let Some(descriptor) = &self.descriptor else { return stat(&self.name) };
        let mut found = MaybeUninit::uninit();
        // SAFETY: a struct that the call fills in if it succeeds; a descriptor that is not open is an error.
        unsafe { found_by(large_files::fstat(descriptor.as_raw_fd(), found.as_mut_ptr()), &found) }
    }

    /// Whether its name leads to it. `found` is what [`Self::stat`] has found.
    pub(crate) fn is_in_place(&self, found: &Found) -> bool {
        self.descriptor.is_none() || stat(&self.name).is_ok_and(|now| now.inode == found.inode)
    }

    /// Whether names may lead elsewhere than when it was opened, although nobody moved anything: this process has
    /// another root directory, or is in another mount namespace. chroot(2), pivot_root(2), unshare(2)
    pub(crate) fn is_seen_from_elsewhere(&self) -> bool {
        self.descriptor.is_some() && !self.viewpoint.is_of(&Viewpoint::now())
    }

    /// What the last part of `name` leads to in this directory; a symbolic link is not followed. fstatat(2)
    pub(crate) fn stat_within(&self, name: &Name) -> io::Result<Found> {
        let Some(descriptor) = &self.descriptor else { return stat(name) };
        let whole = name.0.as_bytes_with_nul();
        let last = whole.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let mut found = MaybeUninit::uninit();
        // SAFETY: the end of a terminated name is terminated, too; a struct that the call fills in if it succeeds.
        unsafe {
            let rc = large_files::fstatat(
                descriptor.as_raw_fd(),
                whole[last..].as_ptr().cast(),
                found.as_mut_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
            );
            found_by(rc, &found)
        }
    }
}

/// The root from which names are resolved, and the mounts they pass. path_resolution(7)
#[derive(Debug)]
struct Viewpoint {
    root: Option<Inode>,
    /// The mount namespace; `None` if no /proc tells it. mount_namespaces(7)
    mounts: Option<Inode>,
}

impl Viewpoint {
    fn now() -> Self {
        let inode = |path: &str| entry_behind(Path::new(path)).ok().map(|found| found.inode);
        Self { root: inode("/"), mounts: inode("/proc/self/ns/mnt") }
    }

    /// Whether both are the same viewpoint, as far as the kernel tells.
    fn is_of(&self, other: &Self) -> bool {
        let same = |a: Option<Inode>, b: Option<Inode>| a.is_none() || b.is_none() || a == b;
        same(self.root, other.root) && same(self.mounts, other.mounts)
    }
}

//! What lies where: stat(2), statfs(2), proc(5).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Inode, Kept, Range, TO_LOOK, conflicting_lock, open, try_lock};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) inode: Inode,
    /// Hard links.
    pub(crate) links: u64,
    /// When it last changed, in s and ns since 1970. Nobody can set this back.
    changed: (i64, i64),
}

impl Found {
    /// Whether another change, now, would leave another time. File systems keep time by the kernel's
    /// tick, of 10 ms at most, or by whole seconds, or two.
    pub(crate) fn was_changed_a_while_ago(&self) -> bool {
        let mut now = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: a struct to fill in; the clock exists.
        let now = unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, now.as_mut_ptr());
            now.assume_init()
        };
        let ms = |(s, ns): (i64, i64)| i128::from(s) * 1000 + i128::from(ns) / 1_000_000;
        let tick_ms = if self.changed.1 == 0 { 4000 } else { 20 };
        // A time in the future is of a clock that was set back, and may come again.
        ms((now.tv_sec, now.tv_nsec)) > ms(self.changed) + tick_ms
    }
}

/// A name, as [`stat`] takes it.
#[derive(Debug)]
pub(crate) struct Name(CString);

impl Name {
    /// `None` if there is a NUL in it.
    pub(crate) fn new(name: &OsStr) -> Option<Self> {
        CString::new(name.as_bytes()).ok().map(Self)
    }
}

/// What `name` leads to, which is no symbolic link. lstat(2)
#[inline]
pub(crate) fn stat(name: &Name) -> io::Result<Found> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: a terminated name and a struct, which is filled in if the call succeeds.
    unsafe { found_by(libc::lstat(name.0.as_ptr(), found.as_mut_ptr()), &found) }
}

/// # Safety
/// If `rc` is 0, the struct is filled in.
#[inline]
unsafe fn found_by(rc: libc::c_int, found: &MaybeUninit<libc::stat>) -> io::Result<Found> {
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's promise.
    let found = unsafe { found.assume_init_ref() };
    #[allow(clippy::useless_conversion, reason = "its type is another on other systems")]
    let links = found.st_nlink.into();
    Ok(Found { inode: Inode::of(found), links, changed: (found.st_ctime, found.st_ctime_nsec) })
}

/// A directory, by its name, and, if it could be opened, as itself: that is faster to look at, the more so the
/// longer the name, and is still the same one when the name leads elsewhere.
#[derive(Debug)]
pub(crate) struct Directory {
    name: Name,
    descriptor: Option<Kept>,
    /// What names led from when it was opened.
    viewpoint: Viewpoint,
}

impl Directory {
    /// `None` if there is a NUL in its name.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let flags = TO_LOOK | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened = open(File::options().read(true).custom_flags(flags), path);
        Some(Self {
            name: Name::new(path.as_os_str())?,
            descriptor: opened.ok().map(Kept::new),
            viewpoint: Viewpoint::now(),
        })
    }

    /// Whether it is the one that `path` leads to.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.name.0.as_bytes() == path.as_os_str().as_bytes()
            && self.descriptor.is_some()
            && self.stat().is_ok_and(|found| self.is_in_place(&found))
    }

    /// What it is now: the one that was opened, else the one of that name. fstat(2)
    #[inline]
    pub(crate) fn stat(&self) -> io::Result<Found> {
        let Some(descriptor) = &self.descriptor else { return stat(&self.name) };
        let mut found = MaybeUninit::uninit();
        // SAFETY: as in `stat`; a descriptor that is not open is an error.
        unsafe { found_by(libc::fstat(descriptor.as_raw_fd(), found.as_mut_ptr()), &found) }
    }

    /// Whether it is the one that its name leads to, found to be so by [`Self::stat`].
    pub(crate) fn is_in_place(&self, found: &Found) -> bool {
        self.descriptor.is_none() || stat(&self.name).is_ok_and(|now| now.inode == found.inode)
    }

    /// Whether names may lead elsewhere than when it was opened, though nobody has moved anything: this process has
    /// another root directory, or is in another mount namespace. chroot(2), pivot_root(2), unshare(2)
    pub(crate) fn is_seen_from_elsewhere(&self) -> bool {
        self.descriptor.is_some() && !self.viewpoint.is_of(&Viewpoint::now())
    }

    /// What the last part of `name` leads to in it. fstatat(2)
    pub(crate) fn stat_within(&self, name: &Name) -> io::Result<Found> {
        let Some(descriptor) = &self.descriptor else { return stat(name) };
        let whole = name.0.as_bytes_with_nul();
        let last = whole.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let mut found = MaybeUninit::uninit();
        // SAFETY: as in `stat`: the end of a terminated name is one, too.
        unsafe {
            let rc = libc::fstatat(
                descriptor.as_raw_fd(),
                whole[last..].as_ptr().cast(),
                found.as_mut_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
            );
            found_by(rc, &found)
        }
    }
}

/// Where names lead from.
#[derive(Debug)]
struct Viewpoint {
    root: Option<Inode>,
    /// The mount namespace, if there is a /proc that tells it.
    mounts: Option<Inode>,
}

impl Viewpoint {
    fn now() -> Self {
        let inode = |path: &str| super::entry_behind(Path::new(path)).ok().map(|found| found.inode);
        Self { root: inode("/"), mounts: inode("/proc/self/ns/mnt") }
    }

    /// Whether both are the same, as far as can be told.
    fn is_of(&self, other: &Self) -> bool {
        let same = |a: Option<Inode>, b: Option<Inode>| a.is_none() || b.is_none() || a == b;
        same(self.root, other.root) && same(self.mounts, other.mounts)
    }
}

/// Cuts the file at `path`, which must be `inode`, to no bytes.
pub(crate) fn empty(path: &Path, inode: Inode) -> io::Result<()> {
    let file = super::open_to_lock(path)?;
    if Inode::from(&file.metadata()?) != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    file.set_len(0)
}

/// Whether an error says that there is nothing by a name.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// The type of the file system that `path` lies on. statfs(2)
pub(crate) fn file_system_type(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a terminated name and a struct to fill in.
    let found = unsafe {
        if libc::statfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "its type is another on other systems")]
    Ok(found.f_type as u64)
}

/// Where the file system that `path` lies on is mounted, and its type's name. proc(5)
pub(crate) fn mount_of(path: &Path) -> Option<(String, String)> {
    let mounts = super::read_to_string("/proc/self/mountinfo").ok()?;
    let found = mounts.lines().filter_map(|line| {
        let point = unescape(line.split(' ').nth(4)?);
        let name = line.split(" - ").nth(1)?.split(' ').next()?;
        path.starts_with(&point).then(|| (point, name.to_owned()))
    });
    // Of several at one place, the last is the one to be seen.
    found.fold(None, |best: Option<(String, String)>, next| match best {
        Some(best) if best.0.len() > next.0.len() => Some(best),
        _ => Some(next),
    })
}

/// A line of /proc/self/mountinfo. proc(5)
#[derive(Debug)]
struct Mount<'l> {
    id: &'l str,
    parent: &'l str,
    device: &'l str,
    /// What of the file system is mounted.
    root: String,
    point: String,
}

impl<'l> Mount<'l> {
    fn of(line: &'l str) -> Option<Self> {
        let mut fields = line.split(' ');
        let mut next = || fields.next();
        let (id, parent, device) = (next()?, next()?, next()?);
        Some(Self { id, parent, device, root: unescape(next()?), point: unescape(next()?) })
    }

    /// Where `path`, which is on it, lies in its file system.
    fn place_of(&self, path: &Path) -> Option<PathBuf> {
        let rest = path.strip_prefix(&self.point).ok()?;
        let root = PathBuf::from(&self.root);
        Some(if rest.as_os_str().is_empty() { root } else { root.join(rest) })
    }
}

/// Whether what is mounted at `path` is what lies there without that mount: a service manager does so to give a
/// service other rights to it. proc(5)
pub(crate) fn is_mounted_over_itself(path: &Path) -> bool {
    let mounts = super::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    is_over_itself(path, &mounts)
}

fn is_over_itself(path: &Path, mounts: &str) -> bool {
    let mounts: Vec<_> = mounts.lines().filter_map(Mount::of).collect();
    // Of several at one place, the last is the one to be seen, and is mounted over the one before.
    let Some(mut top) = mounts.iter().rev().find(|mount| Path::new(&mount.point) == path) else {
        return false;
    };
    for _ in 0..mounts.len() {
        let Some(below) = mounts.iter().find(|mount| mount.id == top.parent) else { return false };
        let is_same = below.device == top.device
            && below.place_of(path).is_some_and(|place| place == Path::new(&top.root));
        if !is_same || Path::new(&below.point) != path {
            return is_same;
        }
        top = below;
    }
    false
}

/// A name as proc(5) writes it: blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a file in `directory` that is opened twice is one file: a lock by one descriptor excludes
/// the other, and what is written by one is in the other's shared mapping.
pub(crate) fn shares_memory(directory: &Path) -> io::Result<bool> {
    const BYTES: usize = 4096;
    let path = directory.join(format!(".kanban-vfs-{}-{}", super::pid(), super::monotonic_ns()));
    let open =
        |creates| super::open(File::options().read(true).write(true).create_new(creates), &path);
    let first = open(true)?;
    let second = open(false);
    std::fs::remove_file(&path)?;
    let second = second?;
    first.write_all_at(&[0; BYTES], 0)?;
    let byte = Range { start: 0, len: 1 };
    if !try_lock(&first, byte, false)? || conflicting_lock(&second, byte)?.is_none() {
        return Ok(false);
    }
    // SAFETY: a new mapping, which replaces nothing, of a file that nobody else knows by name and that
    // is long enough; it is read by nobody but here.
    unsafe {
        let mapped = libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ,
            libc::MAP_SHARED,
            std::os::fd::AsRawFd::as_raw_fd(&second),
            0,
        );
        if mapped == libc::MAP_FAILED {
            return Ok(false);
        }
        let byte = mapped.cast::<u8>();
        let before = byte.read_volatile();
        let written = first.write_all_at(&[1], 0);
        let after = byte.read_volatile();
        libc::munmap(mapped, BYTES);
        written?;
        Ok((before, after) == (0, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_this_machine_shares_memory() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(shares_memory(directory.path()).expect("it can be tried"));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    /// A database that is mounted where it lies, once or twice, in whatever part of its file system is to be seen; and
    /// others that are not: of another directory, file system or name, or deleted.
    #[test]
    fn a_mount_over_itself_is_told_from_others() {
        let path = Path::new("/srv/a b/board.db");
        for (mounts, expected) in [
            (&["1 0 8:1 / /", "2 1 8:1 /srv/a\\040b/board.db /srv/a\\040b/board.db"][..], true),
            (&["1 0 8:1 / /", "2 1 8:1 /srv/other.db /srv/a\\040b/board.db"], false),
            (&["1 0 8:1 / /", "2 1 8:2 /srv/a\\040b/board.db /srv/a\\040b/board.db"], false),
            (
                &["1 0 8:1 / /", "2 1 8:1 /srv/a\\040b/board.db//deleted /srv/a\\040b/board.db"],
                false,
            ),
            (
                &[
                    "1 0 8:1 / /",
                    "2 1 8:9 /@data/boards /srv/a\\040b",
                    "3 2 8:9 /@data/boards/board.db /srv/a\\040b/board.db",
                    "4 3 8:9 /@data/boards/board.db /srv/a\\040b/board.db",
                ],
                true,
            ),
            (
                &[
                    "1 0 8:1 / /",
                    "3 1 8:1 /other.db /srv/a\\040b/board.db",
                    "4 3 8:1 /other.db /srv/a\\040b/board.db",
                ],
                false,
            ),
            (&["2 1 8:1 /srv/a\\040b/board.db /srv/a\\040b/board.db"], false),
            (&["1 0 8:1 / /"], false),
            (&[], false),
        ] {
            let lines: Vec<_> =
                mounts.iter().map(|line| format!("{line} rw - ext4 /dev/x")).collect();
            assert_eq!(is_over_itself(path, &lines.join("\n")), expected, "{mounts:?}");
        }
    }

    #[test]
    fn a_mount_is_found_by_its_longest_name() {
        let (point, name) = mount_of(Path::new("/proc/self/fd")).expect("there is a /proc");
        assert_eq!((point.as_str(), name.as_str()), ("/proc", "proc"));
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }
}

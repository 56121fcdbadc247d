//! File systems: what they are, where they are mounted, and what they can do: statfs(2), statx(2), proc(5).

#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::descriptors::{open, read_text};
#[cfg(target_os = "linux")]
use super::inode::statx;
use super::large_files;
use super::locks::{conflicting_lock, try_lock};
use super::this_process::{monotonic_ns, pid};
use crate::sys::Range;

/// The type of the file system that `path` lies on, by its number. statfs(2), `f_type`
pub(crate) fn file_system_type(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<large_files::statfs>::zeroed();
    // SAFETY: a terminated name, and a struct that the call fills in, for which zeros are a value.
    let found = unsafe {
        if large_files::statfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    // A number of 32 bits. Where its type is signed and has no more bits, it may be negative.
    #[allow(clippy::unnecessary_cast, reason = "its type is another on other systems")]
    Ok(u64::from(found.f_type as u32))
}

/// How many files this user can still create where `path` lies, and how many bytes write; `None` if the file system does not
/// say. statvfs(3)
pub(crate) fn room_at(path: &Path) -> Option<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<large_files::statvfs>::zeroed();
    // SAFETY: a terminated name, and a struct that the call fills in, for which zeros are a value.
    let found = unsafe {
        if large_files::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    // File systems that do not count files say that there are none at all.
    #[allow(clippy::unnecessary_cast, reason = "their types are others on other systems")]
    let (files, bytes) =
        (found.f_favail as u64, (found.f_bavail as u64).saturating_mul(found.f_frsize as u64));
    let files = if found.f_files == 0 { u64::MAX } else { files };
    let bytes = if found.f_blocks == 0 { u64::MAX } else { bytes };
    Some((files, bytes))
}

/// Where the file system that `path` lies on is mounted, and its type's name; `None` if the kernel does not tell.
/// proc(5), /proc/PID/mountinfo
pub(crate) fn mount_of(path: &Path) -> Option<(String, String)> {
    let mounts = read_text("/proc/self/mountinfo").ok()?;
    let found = mounts.lines().filter_map(|line| {
        let point = unescape(line.split(' ').nth(4)?);
        let name = line.split(" - ").nth(1)?.split(' ').next()?;
        path.starts_with(&point).then(|| (point, name.to_owned()))
    });
    // Of several mounts at one place, only the last is visible.
    found.fold(None, |best: Option<(String, String)>, next| match best {
        Some(best) if best.0.len() > next.0.len() => Some(best),
        _ => Some(next),
    })
}

/// A line of /proc/PID/mountinfo. proc(5)
#[derive(Debug)]
struct Mount<'l> {
    id: &'l str,
    parent: &'l str,
    device: &'l str,
    /// Which directory or file of the file system is mounted.
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

    /// The place of `path`, which lies on this mount, in the mount's file system.
    fn place_of(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.point).ok().map(|rest| Path::new(&self.root).join(rest))
    }
}

/// Whether `path` is a file that was mounted over another, so that the directory it is seen in is not the one it lies in.
/// False where the kernel does not tell (Linux before 5.8). statx(2)
#[doc(alias = "STATX_ATTR_MOUNT_ROOT")]
#[cfg(target_os = "linux")]
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    statx(libc::AT_FDCWD, &path, libc::AT_SYMLINK_NOFOLLOW, 0)
        .is_ok_and(|found| found.stx_attributes_mask & found.stx_attributes & bit != 0)
}

/// Always false: only Linux can mount a file over a file.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_mount_point(_: &Path) -> bool {
    false
}

/// Whether what is mounted at `path` is what lies there without that mount. Service managers mount a file this way to give a
/// service other rights to it. proc(5), /proc/PID/mountinfo
pub(crate) fn is_mounted_over_itself(path: &Path) -> bool {
    let mounts = read_text("/proc/self/mountinfo").unwrap_or_default();
    is_over_itself(path, &mounts)
}

/// The answer of [`is_mounted_over_itself`], by these lines of /proc/PID/mountinfo.
fn is_over_itself(path: &Path, mounts: &str) -> bool {
    let mounts: Vec<_> = mounts.lines().filter_map(Mount::of).collect();
    // Of several mounts at one place, only the last is visible. It is mounted over the one before.
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

/// A name in which proc(5) wrote blanks and the like as `\040`.
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

/// Whether two opens of a file in `directory` give one file: a lock by one descriptor excludes the other, and a write by one
/// appears in the other's shared mapping. Creates a file there, and deletes it. fcntl(2), mmap(2)
///
/// # Errors
/// This process may not create files there, or a call has failed.
pub(crate) fn shares_memory(directory: &Path) -> io::Result<bool> {
    const BYTES: usize = 4096;
    let path = directory.join(format!(".kanban-vfs-{}-{}", pid(), monotonic_ns()));
    let open = |creates| open(File::options().read(true).write(true).create_new(creates), &path);
    let first = open(true)?;
    let second = open(false);
    std::fs::remove_file(&path)?;
    let second = second?;
    first.write_all_at(&[0; BYTES], 0)?;
    let byte = Range { start: 0, len: 1 };
    if !try_lock(&first, byte, false)? || conflicting_lock(&second, byte)?.is_none() {
        return Ok(false);
    }
    // SAFETY: a new mapping, which replaces nothing, of a file that is long enough and that nobody else knows
    // by name, so nobody cuts it; only this function reads it.
    unsafe {
        let mapped = libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ,
            libc::MAP_SHARED,
            second.as_raw_fd(),
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

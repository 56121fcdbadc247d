//! Files by name: what they are, who owns them, and how to open them: stat(2), open(2), chown(2).

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::descriptors::{leave_room, open};
use super::inode::Inode;

/// What a name leads to, or what is open. inode(7)
pub(crate) struct Entry {
    pub(crate) inode: Inode,
    /// What it is, in a word, unless it is a regular file.
    pub(crate) odd_kind: Option<&'static str>,
    /// The user who owns it, where files have one.
    pub(crate) owner: Option<u32>,
    /// Its length, in bytes.
    pub(crate) len: u64,
    /// How many hard links it has.
    pub(crate) links: u64,
    pub(crate) rights: Rights,
}

impl From<&Metadata> for Entry {
    #[allow(clippy::unnecessary_cast, reason = "its type is another on other systems")]
    fn from(found: &Metadata) -> Self {
        let kind = found.file_type();
        Self {
            inode: Inode::from(found),
            odd_kind: (!kind.is_file()).then(|| name_of(kind)),
            owner: Some(found.uid()),
            len: found.len(),
            links: found.nlink() as u64,
            rights: Rights { user: found.uid(), group: found.gid(), mode: found.mode() & 0o777 },
        }
    }
}

/// The owner of a file, and its permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    user: u32,
    group: u32,
    mode: u32,
}

/// What `path` leads to; a symbolic link is not followed. lstat(2)
pub(crate) fn entry_at(path: &Path) -> io::Result<Entry> {
    Ok(Entry::from(&path.symlink_metadata()?))
}

/// What `path` leads to; symbolic links are followed. stat(2)
pub(crate) fn entry_behind(path: &Path) -> io::Result<Entry> {
    Ok(Entry::from(&path.metadata()?))
}

/// What is open. fstat(2)
pub(crate) fn entry_of(file: &File) -> io::Result<Entry> {
    Ok(Entry::from(&file.metadata()?))
}

/// What a kind of file other than a regular one is called.
pub(crate) fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

/// Deletes a name. unlink(2)
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Whether a file that others have open can be deleted, so that they no longer find it by its name. unlink(2)
pub(crate) const REMOVES_OPEN_FILES: bool = true;

/// Whether this process may create files in `directory`, as far as its permissions say. faccessat(2)
#[doc(alias = "AT_EACCESS")]
pub(crate) fn may_create_in(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    let wanted = libc::W_OK | libc::X_OK;
    // SAFETY: a terminated path.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), wanted, libc::AT_EACCESS) == 0 }
}

/// A name as SQLite passes it.
pub(crate) fn path_from(name: &CStr) -> Cow<'_, Path> {
    Path::new(OsStr::from_bytes(name.to_bytes())).into()
}

/// The path without symbolic links, `.` and `..`. realpath(3)
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Whether an error says that there is nothing by a name. open(2)
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// Fills all of `into`, from an offset in bytes. pread(2)
pub(crate) fn read_exact_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(into, at)
}

/// Writes all of `bytes`, at an offset in bytes. pwrite(2)
pub(crate) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)
}

/// Flags that keep an open from following a symbolic link, blocking on a FIFO, or making a terminal the controlling one.
/// open(2)
const CAREFULLY: libc::c_int =
    libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;

/// Opens an existing file to read, write and lock it. It never follows a symbolic link, never blocks
/// on a FIFO, and never becomes a controlling terminal. Fails with EMFILE before SQLite's descriptors run out. open(2)
#[doc(alias = "O_NOFOLLOW")]
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    leave_room()?;
    open(OpenOptions::new().read(true).write(true).custom_flags(CAREFULLY), path)
}

/// Opens an existing file to read it and to ask for its locks, as carefully as [`open_to_lock`]. open(2)
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().read(true).custom_flags(CAREFULLY), path)
}

/// Creates `path`, which must not exist, with the rights `like`, as far as this process may set them. Fails with EMFILE before
/// SQLite's descriptors run out. open(2)
#[doc(alias = "O_EXCL")]
pub(crate) fn create_like(path: &Path, like: Rights) -> io::Result<File> {
    leave_room()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(like.mode);
    let file = open(options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC), path)?;
    give_rights(&file, entry_of(&file)?.rights, like);
    Ok(file)
}

/// Changes a file's rights from `now` to `like`, as far as this process may. Root may change all of them. The owner may not
/// give the file to another user, and only to a group that the owner is a member of. fchown(2), fchmod(2)
pub(crate) fn give_rights(file: &File, now: Rights, like: Rights) {
    let mut mode = now.mode;
    if now.group != like.group {
        let _ = std::os::unix::fs::fchown(file, None, Some(like.group));
        mode = u32::MAX;
    }
    if now.user != like.user {
        let _ = std::os::unix::fs::fchown(file, Some(like.user), None);
        mode = u32::MAX;
    }
    // Last, since chown(2) may clear bits, and the umask has cleared some at open(2).
    if mode != like.mode {
        let _ = file.set_permissions(PermissionsExt::from_mode(like.mode));
    }
}

/// Cuts the file at `path` to 0 bytes. ftruncate(2)
///
/// # Errors
/// NotFound if the file there is not `inode`.
pub(crate) fn empty(path: &Path, inode: Inode) -> io::Result<()> {
    let file = open_to_lock(path)?;
    if Inode::from(&file.metadata()?) != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    file.set_len(0)
}

//! Files by name: what they are, and how to open them.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use windows_sys::Win32::Foundation::ERROR_SHARING_VIOLATION;
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES,
    FILE_SHARE_READ, FILE_SHARE_WRITE,
};

use super::inode::{Inode, inode_of_file};

/// What a name leads to, or what is open.
pub(crate) struct Entry {
    pub(crate) inode: Inode,
    /// What it is, in a word, unless it is a regular file.
    pub(crate) odd_kind: Option<&'static str>,
    /// `None`: a user is no number here.
    pub(crate) owner: Option<u32>,
    /// Its length, in bytes.
    pub(crate) len: u64,
    /// Always 1: [`super::directory::stat`] tells how many hard links it has.
    pub(crate) links: u64,
    pub(crate) rights: Rights,
}

/// The owner of a file, and its permissions: empty, since each file inherits them from its
/// directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights;

/// Opens a file or directory to look at its kind, not to read it. Others can still open it.
/// CreateFileW
#[doc(alias = "FILE_READ_ATTRIBUTES")]
pub(super) fn open_to_look(path: &Path, flags: u32) -> io::Result<File> {
    OpenOptions::new()
        .access_mode(FILE_READ_ATTRIBUTES)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | flags)
        .open(path)
}

/// What `path` leads to; a link is not followed.
pub(crate) fn entry_at(path: &Path) -> io::Result<Entry> {
    entry_of(&open_to_look(path, FILE_FLAG_OPEN_REPARSE_POINT)?)
}

/// What `path` leads to; links are followed.
pub(crate) fn entry_behind(path: &Path) -> io::Result<Entry> {
    entry_of(&open_to_look(path, 0)?)
}

/// What is open.
pub(crate) fn entry_of(file: &File) -> io::Result<Entry> {
    let found = file.metadata()?;
    let kind = found.file_type();
    let odd_kind = if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_symlink() {
        Some("symbolic link")
    } else {
        Some("device")
    };
    let inode = inode_of_file(file)?;
    Ok(Entry { inode, odd_kind, owner: None, len: found.len(), links: 1, rights: Rights })
}

/// Deletes a name. DeleteFileW
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Whether a file that others have open can be deleted, so that its name is free at once.
pub(crate) const REMOVES_OPEN_FILES: bool = false;

/// Whether this process may create files in `directory`, as far as its permissions say. Always true: only an attempt
/// tells.
pub(crate) fn may_create_in(_: &Path) -> bool {
    true
}

/// A name as SQLite passes it: UTF-8.
pub(crate) fn path_from(name: &CStr) -> Cow<'_, Path> {
    match name.to_string_lossy() {
        Cow::Borrowed(name) => Path::new(name).into(),
        Cow::Owned(name) => PathBuf::from(name).into(),
    }
}

/// How many links in a row are followed.
const MOST_LINKS: u32 = 40;

/// The one name of the file at an absolute path. It has no links (symbolic links, junctions, drives
/// that stand for directories), no short names, and the file's own upper and lower case. If the
/// file does not exist yet, the name is that of the file that opening the path would create.
/// GetFinalPathNameByHandleW
///
/// # Errors
/// The file's directory does not exist, or this process may not look at it.
#[doc(alias = "GetFinalPathNameByHandleW")]
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let error = match path.canonicalize() {
            Ok(found) => return Ok(simplified(found)),
            Err(error) => error,
        };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(error);
        };
        if !is_absent(&error) {
            return Err(error);
        }
        match path.read_link() {
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok(simplified(directory.canonicalize()?.join(name))),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// The path without `\\?\`, unless the path, perhaps with a journal's suffix, needs that prefix.
fn simplified(path: PathBuf) -> PathBuf {
    const MOST: usize = 240;
    if path.as_os_str().len() > MOST { path } else { dunce::simplified(&path).to_owned() }
}

/// Fills all of `into`, from an offset in bytes. ReadFile
pub(crate) fn read_exact_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let n = file.seek_read(into, at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[n..];
        at += n as u64;
    }
    Ok(())
}

/// Writes all of `bytes`, at an offset in bytes. WriteFile
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = file.seek_write(bytes, at)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        at += n as u64;
    }
    Ok(())
}

/// How to open a file so that nobody can delete or rename it while it is open. CreateFileW
fn open_to_keep(writable: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(writable)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    options
}

/// Opens a file. Tries again while another program, for example a virus scanner, has it open
/// without sharing for a moment.
#[doc(alias = "ERROR_SHARING_VIOLATION")]
fn open_patiently(options: &OpenOptions, path: &Path) -> io::Result<File> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 1..TRIES {
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION as i32) => {
                std::thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
    options.open(path)
}

/// Opens an existing file to read, write and lock it. It never follows a link.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    open_patiently(&open_to_keep(true), path)
}

/// Opens an existing file to read it and to ask for its locks. It never follows a link.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open_patiently(&open_to_keep(false), path)
}

/// Creates `path`, which must not exist. Like the files beside it, it inherits its permissions from its directory.
pub(crate) fn create_like(path: &Path, _: Rights) -> io::Result<File> {
    open_to_keep(true).create_new(true).open(path)
}

/// Does nothing: files inherit their rights.
pub(crate) fn give_rights(_: &File, _: Rights, _: Rights) {}

/// Cuts the file at `path` to 0 bytes. SetEndOfFile
///
/// # Errors
/// NotFound if the file there is not `inode`.
pub(crate) fn empty(path: &Path, inode: Inode) -> io::Result<()> {
    let file = open_to_lock(path)?;
    if inode_of_file(&file)? != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    file.set_len(0)
}

/// Whether an error says that there is nothing by a name. ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
pub(crate) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_waits_for_a_program_that_does_not_share_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("scanned");
        std::fs::write(&path, [0; 16]).expect("it can be written");
        let scanner = OpenOptions::new().read(true).share_mode(0).open(&path).expect("it opens");
        assert!(open_to_keep(true).open(&path).is_err(), "one attempt is not enough");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(12));
                drop(scanner);
            });
            open_to_lock(&path).expect("it opens when the scanner is done");
        });
    }
}

//! The sidecar: the file beside a database whose bytes are locked instead of the database's.
//!
//! It may be opened and closed freely, which the database must not be (closing a file drops the
//! locks SQLite has on it, <https://www.sqlite.org/howtocorrupt.html> 2.2). It is never deleted.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::page::{GROUP, GroupBytes, HEADER, PAGE, Page, slot_offset};
use super::queue;
use crate::guard::fork;
use crate::sys::{self, Inode, Range, Words};

/// An open sidecar.
pub(crate) struct Sidecar {
    file: fork::Own<File>,
    inode: Inode,
    content: Content,
    /// `None` if it can not be mapped: then waiters look every millisecond.
    words: Option<fork::Own<Words>>,
}

/// What a sidecar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A page of ours.
    Page,
    /// Something else. Its bytes can be locked all the same, and are left as they are.
    Foreign,
}

/// Why a sidecar can not be used, and what to do.
#[derive(Debug)]
pub(crate) enum Unusable {
    NotAFile(&'static str),
    IsDatabase,
    Moving,
    Missing,
    NoDatabase(io::Error),
    Create(io::Error),
    /// With the user who owns it.
    Open(io::Error, u32),
    Seed(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFile(what) => {
                write!(f, "the sidecar is a {what}; move it away and it is made anew")
            }
            Self::IsDatabase => f.write_str(
                "the sidecar is a hard link of the database; move it away and it is made anew",
            ),
            Self::Moving => f.write_str("the sidecar is being replaced again and again"),
            Self::Missing => f.write_str("there is no sidecar yet; the first writer makes it"),
            Self::NoDatabase(e) => write!(f, "can not look at the database of the sidecar: {e}"),
            Self::Create(e) => write!(
                f,
                "can not create the sidecar: {e}; writers need the right to create files there"
            ),
            Self::Open(e, owner) => write!(
                f,
                "can not open the sidecar of user {owner}: {e}; give it the database's owner and \
                 permissions"
            ),
            Self::Seed(e) => write!(f, "can not write the sidecar: {e}"),
        }
    }
}

/// `<database>-lock`
pub(crate) fn path_of(database: &Path) -> PathBuf {
    let mut path = OsString::from(database);
    path.push("-lock");
    path.into()
}

impl Sidecar {
    /// Opens the sidecar of `database`; if there is none, creates it or fails.
    pub(crate) fn open(database: &Path, create: bool) -> Result<Self, Unusable> {
        let path = path_of(database);
        // Each turn ends the loop unless somebody else removed or created the file meanwhile.
        for _ in 0..10 {
            match path.symlink_metadata() {
                Ok(found) => {
                    if let Some(file) = open_found(database, &path, &found)? {
                        return Self::new(file);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound && !create => {
                    return Err(Unusable::Missing);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let like = database.metadata().map_err(Unusable::NoDatabase)?;
                    match sys::create_like(&path, &like) {
                        Ok(file) => return Self::new(file),
                        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(e) => return Err(Unusable::Create(e)),
                    }
                }
                Err(e) => return Err(Unusable::Open(e, 0)),
            }
        }
        Err(Unusable::Moving)
    }

    /// Whether its path still leads to it, as far as this process can tell.
    pub(crate) fn is_in_place(&self, database: &Path) -> bool {
        match path_of(database).symlink_metadata() {
            Ok(found) => Inode::from(&found) == self.inode,
            Err(error) => !sys::is_absent(&error),
        }
    }

    pub(crate) fn content(&self) -> Content {
        self.content
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether waiters can be woken, not only polled.
    pub(crate) fn is_mapped(&self) -> bool {
        self.words.is_some()
    }

    /// The file, in the process that opened it: in a child the descriptor may be another file's.
    fn own(&self) -> io::Result<&File> {
        self.file.get().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl super::group::Sidecar for Sidecar {
    fn read(&self) -> io::Result<GroupBytes> {
        let mut bytes = GroupBytes::default();
        self.own()?.read_exact_at(&mut bytes.0, GROUP as u64)?;
        Ok(bytes)
    }

    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        self.own()?.write_all_at(&bytes.0, GROUP as u64)
    }

    fn try_lock(&self, range: Range) -> io::Result<bool> {
        sys::try_lock(self.own()?.as_fd(), range, false)
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        sys::unlock(self.own()?.as_fd(), range)
    }

    fn wait(&self, word: u32, limit: Duration) {
        let waited = self.words.as_ref().map(|words| words.wait(GROUP, word, limit));
        let error = waited.and_then(Result::err).and_then(|error| error.raw_os_error());
        if !matches!(error, None | Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)) {
            // The sidecar was cut short.
            std::thread::sleep(limit.min(Duration::from_millis(1)));
        }
    }

    fn wake(&self) {
        if let Some(words) = &self.words {
            words.wake(GROUP);
        }
    }
}

impl queue::Sidecar for Sidecar {
    fn read(&self) -> io::Result<Page> {
        let mut page = Page([0; PAGE]);
        self.own()?.read_exact_at(&mut page.0, 0)?;
        Ok(page)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.own()?.write_all_at(bytes, at)
    }

    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        sys::try_lock(self.own()?.as_fd(), range, shared)
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        sys::unlock(self.own()?.as_fd(), range)
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        sys::conflicting_lock(self.own()?.as_fd(), range)
    }

    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool {
        if let Some(words) = &self.words {
            match words.wait(slot_offset(slot), word, limit).map_err(|e| e.raw_os_error()) {
                Ok(()) | Err(Some(libc::EAGAIN | libc::EINTR)) => return true,
                Err(Some(libc::ETIMEDOUT)) => return false,
                // The sidecar was cut short.
                Err(_) => {}
            }
        }
        self.sleep(limit.min(Duration::from_millis(1)));
        false
    }

    fn wake(&self, slot: usize) {
        if let Some(words) = &self.words {
            words.wake(slot_offset(slot));
        }
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn now(&self) -> u64 {
        sys::monotonic_ns()
    }

    fn process(&self) -> (u32, [u8; 12]) {
        (sys::pid(), sys::program_name())
    }
}

/// Opens the sidecar of `database` to look at its locks: changes nothing, and needs no more than
/// the right to read it.
pub(crate) fn look_at(database: &Path) -> Result<File, Unusable> {
    let path = path_of(database);
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(e) if sys::is_absent(&e) => return Err(Unusable::Missing),
        Err(e) => return Err(Unusable::Open(e, 0)),
    };
    check_kind(database, &found)?;
    sys::open_to_read(&path).map_err(|e| Unusable::Open(e, found.uid()))
}

/// What a sidecar of `len` bytes holds, and whether it needs no seed. Changes nothing.
pub(crate) fn content_of(file: &File, len: u64) -> io::Result<(Content, bool)> {
    let mut start = [0; HEADER.len()];
    let n = start.len().min(len as usize);
    file.read_exact_at(&mut start[..n], 0)?;
    let is_foreign = start[..n] != HEADER[..n] && start != [0; HEADER.len()];
    let content = if is_foreign { Content::Foreign } else { Content::Page };
    Ok((content, start == HEADER && len >= PAGE as u64))
}

/// Why no writer could open the sidecar of `database`, as of now.
pub(crate) fn obstacle(database: &Path) -> Option<String> {
    let path = path_of(database);
    let found = path.symlink_metadata().ok()?;
    open_found(database, &path, &found).err().map(|why| why.to_string())
}

/// Opens what was found at `path`; `None` if it is there no longer.
fn open_found(database: &Path, path: &Path, found: &Metadata) -> Result<Option<File>, Unusable> {
    check_kind(database, found)?;
    let file = match sys::open_to_lock(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Unusable::Open(e, found.uid())),
    };
    let opened = file.metadata().map_err(|e| Unusable::Open(e, found.uid()))?;
    Ok((Inode::from(&opened) == Inode::from(found)).then_some(file))
}

/// The database itself must be neither opened nor written to, nor a FIFO waited for.
fn check_kind(database: &Path, found: &Metadata) -> Result<(), Unusable> {
    let kind = found.file_type();
    if kind.is_file() {
        let is_database = database.metadata().is_ok_and(|d| Inode::from(&d) == Inode::from(found));
        return if is_database { Err(Unusable::IsDatabase) } else { Ok(()) };
    }
    Err(Unusable::NotAFile(name_of(kind)))
}

/// What a kind of file that is not a regular one is called.
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

impl Sidecar {
    fn new(file: File) -> Result<Self, Unusable> {
        let metadata = file.metadata().map_err(Unusable::Seed)?;
        let content = seed(&file, metadata.len()).map_err(Unusable::Seed)?;
        Ok(Self {
            inode: Inode::from(&metadata),
            words: Words::map(file.as_fd(), PAGE).ok().map(fork::Own::new),
            file: fork::Own::new(file),
            content,
        })
    }
}

/// Makes an empty, truncated or zeroed sidecar a page of ours. Two that do it at once write the
/// same bytes.
fn seed(file: &File, len: u64) -> io::Result<Content> {
    let (content, is_whole) = content_of(file, len)?;
    if content == Content::Page && !is_whole {
        file.write_all_at(&HEADER, 0)?;
        if len < PAGE as u64 {
            // A last byte, not set_len, which could shorten what another process has lengthened.
            file.write_all_at(&[0], PAGE as u64 - 1)?;
        }
    }
    Ok(content)
}

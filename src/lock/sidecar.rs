//! The sidecar: the file beside a database whose bytes are locked instead of the database's.
//!
//! It may be opened and closed freely, which the database must not be (closing a file drops the
//! locks SQLite has on it, <https://www.sqlite.org/howtocorrupt.html> 2.2). It is never deleted.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::page::{HEADER, PAGE, Page, slot_offset};
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

/// Why a sidecar can not be used.
#[derive(Debug)]
pub(crate) struct Unusable {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    NotAFile(&'static str),
    HardLinked,
    Moving,
    NoDatabase(io::Error),
    Create(io::Error),
    Open(io::Error, u32),
    Seed(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::NotAFile(what) => {
                write!(f, "sidecar {path} is a {what}; move it away and it is made anew")
            }
            Why::HardLinked => write!(
                f,
                "sidecar {path} has other names (hard links); move it away and it is made anew"
            ),
            Why::Moving => write!(f, "sidecar {path} is being replaced again and again"),
            Why::NoDatabase(e) => write!(f, "can not look at the database of {path}: {e}"),
            Why::Create(e) => write!(
                f,
                "can not create sidecar {path}: {e}; writers need the right to create files there"
            ),
            Why::Open(e, owner) => write!(
                f,
                "can not open sidecar {path} (owner: user {owner}): {e}; \
                 give it the owner and permissions of the database"
            ),
            Why::Seed(e) => write!(f, "can not write sidecar {path}: {e}"),
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
    /// Opens the sidecar of `database`, creating it if there is none.
    pub(crate) fn open(database: &Path) -> Result<Self, Unusable> {
        let path = path_of(database);
        open(database, &path).map_err(|why| Unusable { path, why })
    }

    /// Opens the sidecar of `database` if there is one that can be used.
    pub(crate) fn open_existing(database: &Path) -> Option<Self> {
        let path = path_of(database);
        let found = path.symlink_metadata().ok()?;
        open_found(&path, &found).ok().flatten()
    }

    /// Whether its path still leads to it.
    pub(crate) fn is_in_place(&self, database: &Path) -> bool {
        path_of(database)
            .symlink_metadata()
            .is_ok_and(|found| Inode::from(&found) == self.inode && found.nlink() == 1)
    }

    pub(crate) fn content(&self) -> Content {
        self.content
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Sidecar {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl queue::Sidecar for Sidecar {
    fn read(&self) -> io::Result<Page> {
        let mut page = Page([0; PAGE]);
        self.file.read_exact_at(&mut page.0, 0)?;
        Ok(page)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        sys::try_lock(self.as_fd(), range, shared)
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        sys::unlock(self.as_fd(), range)
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        sys::conflicting_lock(self.as_fd(), range)
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

fn open(database: &Path, path: &Path) -> Result<Sidecar, Why> {
    // Each turn ends the loop unless somebody else removed or created the file meanwhile.
    for _ in 0..10 {
        match path.symlink_metadata() {
            Ok(found) => {
                if let Some(sidecar) = open_found(path, &found)? {
                    return Ok(sidecar);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let like = database.metadata().map_err(Why::NoDatabase)?;
                match sys::create_like(path, &like) {
                    Ok(file) => return Sidecar::new(file),
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(Why::Create(e)),
                }
            }
            Err(e) => return Err(Why::Open(e, 0)),
        }
    }
    Err(Why::Moving)
}

/// Opens what was found at `path`; `None` if it is there no longer.
fn open_found(path: &Path, found: &Metadata) -> Result<Option<Sidecar>, Why> {
    check_kind(found)?;
    let file = match sys::open_to_lock(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Why::Open(e, found.uid())),
    };
    let opened = file.metadata().map_err(|e| Why::Open(e, found.uid()))?;
    if Inode::from(&opened) != Inode::from(found) {
        return Ok(None);
    }
    Sidecar::new(file).map(Some)
}

/// A hard link could be the database itself, which must be neither opened nor written to.
fn check_kind(found: &Metadata) -> Result<(), Why> {
    let kind = found.file_type();
    if kind.is_file() {
        return if found.nlink() == 1 { Ok(()) } else { Err(Why::HardLinked) };
    }
    Err(Why::NotAFile(if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }))
}

impl Sidecar {
    fn new(file: File) -> Result<Self, Why> {
        let metadata = file.metadata().map_err(Why::Seed)?;
        let content = seed(&file, metadata.len()).map_err(Why::Seed)?;
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
    let mut start = [0; HEADER.len()];
    let n = start.len().min(len as usize);
    file.read_exact_at(&mut start[..n], 0)?;
    if start[..n] != HEADER[..n] && start != [0; HEADER.len()] {
        return Ok(Content::Foreign);
    }
    if start != HEADER {
        file.write_all_at(&HEADER, 0)?;
    }
    if len < PAGE as u64 {
        // A last byte, not set_len, which could shorten what another process has lengthened.
        file.write_all_at(&[0], PAGE as u64 - 1)?;
    }
    Ok(Content::Page)
}

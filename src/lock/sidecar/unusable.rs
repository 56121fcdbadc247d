//! Why a process cannot use a sidecar, and what its user can do about it.

use std::fmt;
use std::io;

/// Why a sidecar cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It is not a regular file: what it is.
    NotAFile(&'static str),
    /// It is a hard link of the database.
    IsDatabase,
    /// It holds something other than a page of ours.
    Foreign,
    /// It holds a page of an older layout, and other processes have it open.
    Older,
    /// It holds a page of a newer layout.
    Newer,
    /// It was another file each time it was opened, or another process is deleting it.
    Moving,
    /// There is none, and none was to be made.
    Missing,
    /// The database, whose rights a new sidecar would get, cannot be looked at.
    NoDatabase(io::Error),
    /// There is so little room that SQLite's own files may need it.
    NoRoom,
    Create(io::Error),
    /// It cannot be opened. With the id of its owner, where files have one.
    Open(io::Error, Option<u32>),
    Lock(io::Error),
    /// It cannot be made a page of ours.
    Seed(io::Error),
}

impl Unusable {
    /// Whether the reason will most likely remain a moment later.
    pub(crate) fn lasts(&self) -> bool {
        !matches!(self, Self::Moving | Self::Missing)
    }
}

/// Why a sidecar that holds something else is not used.
pub(crate) const FOREIGN: &str = "the sidecar holds something else than a page of this VFS";

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFile(what) => {
                write!(f, "the sidecar is a {what}; move it away and it is made anew")
            }
            Self::IsDatabase => f.write_str(
                "the sidecar is a hard link of the database; move it away and it is made anew",
            ),
            Self::Foreign => write!(
                f,
                "{FOREIGN}, perhaps another database; move it away, or rename one of the databases, and it is made anew"
            ),
            Self::Older => f.write_str(
                "the sidecar is that of clients with an older version of this VFS; it is used once \
                 they have closed the database",
            ),
            Self::Newer => f.write_str(
                "the sidecar is that of clients with a newer version of this VFS; install that version \
                 here, too, or, if no such client is left, delete it while nobody has the database open",
            ),
            Self::Moving => f.write_str("the sidecar is being replaced again and again"),
            Self::Missing => f.write_str("there is no sidecar yet; the first writer makes it"),
            Self::NoDatabase(e) => write!(f, "cannot look at the database of the sidecar: {e}"),
            Self::NoRoom => f.write_str(
                "the disk is nearly full, and SQLite's own files come first; make room, and the sidecar is made",
            ),
            Self::Create(e) => write!(
                f,
                "cannot create the sidecar: {e}; writers need the right to create files there"
            ),
            Self::Open(e, Some(owner)) => write!(
                f,
                "cannot open the sidecar of user {owner}: {e}; give it the database's owner and \
                 permissions"
            ),
            Self::Open(e, None) => {
                write!(f, "cannot open the sidecar: {e}; give it the database's permissions")
            }
            Self::Lock(e) => write!(
                f,
                "cannot lock the sidecar: {e}; it needs open-file-description locks of the system \
                 and of its file system"
            ),
            Self::Seed(e) if e.kind() == io::ErrorKind::FileTooLarge => write!(
                f,
                "cannot write the sidecar: {e}; let this process write files of 36 KiB (ulimit -f)"
            ),
            Self::Seed(e) => write!(f, "cannot write the sidecar: {e}"),
        }
    }
}

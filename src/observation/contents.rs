//! What the database, its WAL and its wal-index say of each other.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::{ObserveError, observe};
use crate::format::{
    Header, JOURNAL_SUFFIX, WAL_INDEX_SUFFIX, WAL_SUFFIX, WalHeader, WalIndexHeader, beside,
    wal_index as layout,
};
use crate::guard::wal_index;
use crate::sys;

/// What is wrong with the files of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The database is no SQLite database.
    NotADatabase,
    /// The database is by so many bytes shorter than its header says.
    TooShort {
        /// How many are missing.
        missing: u64,
    },
    /// Clients use a wal-index that speaks of so many frames, which the WAL has not: it was deleted
    /// or replaced while they have it open.
    OtherWal {
        /// How many frames are committed by the wal-index.
        frames: u32,
    },
    /// The WAL has content, and is none of SQLite's.
    NotAWal,
    /// The WAL, the wal-index or the journal is no regular file.
    NotAFile {
        /// The end of its name: `-wal`, say.
        suffix: &'static str,
        /// What it is.
        kind: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADatabase => f.write_str("the file is no SQLite database"),
            Self::TooShort { missing } => write!(
                f,
                "the file is {missing} bytes shorter than its header says: a write that extended it \
                 was lost, or it was cut; restore a backup, or recover what is left"
            ),
            Self::OtherWal { frames } => write!(
                f,
                "clients have a wal-index that speaks of {frames} frames which the WAL has not: it \
                 was deleted, renamed or replaced while it was open; put it back, or close all \
                 connections"
            ),
            Self::NotAWal => f.write_str("the -wal file holds something else than a WAL"),
            Self::NotAFile { suffix, kind } => {
                write!(f, "the {suffix} file is a {kind}, and no file; move it away")
            }
        }
    }
}

/// How often it looks again before it believes in a problem: clients write meanwhile.
const LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Compares what the database's header, the WAL and the wal-index say of each other. Takes no lock;
/// what does not last for 100 ms is not told.
///
/// It opens and closes these files, which drops the POSIX locks of this process on them
/// (<https://www.sqlite.org/howtocorrupt.html> 2.2). So call it in a process that does not have the
/// database open.
///
/// # Errors
/// As for [`observe`], and if a file can not be read.
pub fn examine(path: impl AsRef<Path>) -> Result<Vec<Problem>, ObserveError> {
    let database = observe(path)?.database;
    let mut lasting = look(&database)?;
    for _ in 1..LOOKS {
        if lasting.is_empty() {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        let again = look(&database)?;
        lasting.retain(|problem| again.contains(problem));
    }
    Ok(lasting)
}

fn look(database: &Path) -> io::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let file = sys::open_to_read(database)?;
    let size = file.metadata()?.len();
    let mut header = Header([0; Header::SIZE]);
    if size == 0 {
        // A database that nobody has written to yet, or one whose content is in the WAL.
    } else if size < Header::SIZE as u64 || {
        file.read_exact_at(&mut header.0, 0)?;
        !header.is_database()
    } {
        problems.push(Problem::NotADatabase);
        return Ok(problems);
    }
    for suffix in [WAL_SUFFIX, WAL_INDEX_SUFFIX, JOURNAL_SUFFIX] {
        // What is absent, or can not be looked at, is met again below.
        let Ok(found) = beside(database, suffix).symlink_metadata() else { continue };
        if !found.is_file() {
            let kind = sys::name_of(found.file_type());
            problems.push(Problem::NotAFile { suffix, kind });
        }
    }
    if !problems.is_empty() {
        return Ok(problems);
    }
    let (wal, wal_index) = (beside(database, WAL_SUFFIX), beside(database, WAL_INDEX_SUFFIX));
    if !is_a_wal(&wal)? {
        problems.push(Problem::NotAWal);
        return Ok(problems);
    }
    let index = wal_index_header(&wal_index)?;
    if let Some(index) = index.filter(|index| index.frames > 0) {
        let is_gone = wal.symlink_metadata().is_err_and(|error| sys::is_absent(&error));
        if (is_gone || !wal_index::speaks_of(&wal, index.frames, index.salts))
            && wal_index_header(&wal_index)? == Some(index)
        {
            problems.push(Problem::OtherWal { frames: index.frames });
        }
    }
    // The WAL, or a journal, may have the rest.
    let rest = [wal, beside(database, JOURNAL_SUFFIX)];
    let has_rest = rest.iter().any(|path| path.metadata().is_ok_and(|found| found.len() > 0));
    let missing = header.deficit(size as i64);
    if let Some(missing) = missing.filter(|_| !has_rest) {
        problems.push(Problem::TooShort { missing: missing as u64 });
    }
    Ok(problems)
}

/// Whether it is empty, absent, or begins as a WAL does: <https://www.sqlite.org/walformat.html>.
fn is_a_wal(wal: &Path) -> io::Result<bool> {
    let file = match sys::open_to_read(wal) {
        Ok(file) => file,
        Err(e) if sys::is_absent(&e) => return Ok(true),
        Err(e) => return Err(named(wal, &e)),
    };
    let mut magic = [0; 4];
    if file.metadata()?.len() < magic.len() as u64 {
        return Ok(true);
    }
    file.read_exact_at(&mut magic, 0)?;
    Ok(WalHeader::is_magic(magic))
}

/// What the wal-index says, if clients use it; else the next one makes it anew.
fn wal_index_header(path: &Path) -> io::Result<Option<WalIndexHeader>> {
    let file: File = match sys::open_to_read(path) {
        Ok(file) => file,
        Err(e) if sys::is_absent(&e) => return Ok(None),
        Err(e) => return Err(named(path, &e)),
    };
    if sys::conflicting_lock(&file, layout::IN_USE)?.is_none() {
        return Ok(None);
    }
    let mut header = [0; WalIndexHeader::SIZE];
    if file.read_exact_at(&mut header, 0).is_err() {
        return Ok(None);
    }
    Ok(WalIndexHeader::of(&header))
}

/// An error of another file than the database.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

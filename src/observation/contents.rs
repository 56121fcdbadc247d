//! Whether the database, its WAL and its wal-index agree: a check without a connection.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::wal::in_use;
use super::{ObserveError, observe};
use crate::format::{
    Header, JOURNAL_SUFFIX, WAL_INDEX_SUFFIX, WAL_SUFFIX, WalHeader, WalIndexHeader, beside,
};
use crate::guard::wal_index;
use crate::sys;

/// What is wrong with the files of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The database is no SQLite database.
    NotADatabase,
    /// The database is shorter than its header says.
    TooShort {
        /// How many bytes are missing.
        missing: u64,
    },
    /// Clients use a wal-index with frames that the WAL does not have: the WAL was deleted or
    /// replaced while they have it open.
    OtherWal {
        /// How many frames are committed, according to the wal-index.
        frames: u32,
    },
    /// The file with the WAL's name has content, but is not a WAL of SQLite's.
    NotAWal,
    /// The WAL, the wal-index or the journal is not a regular file.
    NotAFile {
        /// The end of its name, for example `-wal`.
        suffix: &'static str,
        /// What it is instead, in a word.
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

/// How many looks must find a problem before it is reported, since clients may write at the same
/// time.
const LOOKS: usize = 5;
/// The pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Compares the database's header, the WAL and the wal-index. It takes no lock. It reports a
/// problem only if five looks, 20 ms apart, all find it.
///
/// It opens and closes these files, which drops the POSIX locks of this process on them
/// (<https://www.sqlite.org/howtocorrupt.html> 2.2). So call it only in a process that does not
/// have the database open.
///
/// # Errors
/// Those of [`observe`], and a file that cannot be read.
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

/// The problems that one look finds.
fn look(database: &Path) -> io::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let file = sys::open_to_read(database)?;
    let size = file.metadata()?.len();
    let mut header = Header([0; Header::SIZE]);
    if size == 0 {
        // Nothing was written to this database yet, or its content is in the WAL.
    } else if size < Header::SIZE as u64 || {
        file.read_exact_at(&mut header.0, 0)?;
        !header.is_database()
    } {
        problems.push(Problem::NotADatabase);
        return Ok(problems);
    }
    for suffix in [WAL_SUFFIX, WAL_INDEX_SUFFIX, JOURNAL_SUFFIX] {
        // The code below handles a file that is absent, or that this user may not look at.
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
    // The rest of the file may be in the WAL, or in a journal.
    let rest = [wal, beside(database, JOURNAL_SUFFIX)];
    let has_rest = rest.iter().any(|path| path.metadata().is_ok_and(|found| found.len() > 0));
    let missing = header.deficit(size as i64);
    if let Some(missing) = missing.filter(|_| !has_rest) {
        problems.push(Problem::TooShort { missing: missing as u64 });
    }
    Ok(problems)
}

/// Whether the file is absent, empty, or begins as a WAL does.
/// <https://www.sqlite.org/fileformat2.html#wal_file_format>
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

/// The header of the wal-index; `None` if no client uses it, since then the next client makes a new
/// one.
fn wal_index_header(path: &Path) -> io::Result<Option<WalIndexHeader>> {
    let file = in_use(path).map_err(|error| named(path, &error))?;
    let Some(file) = file else { return Ok(None) };
    let mut header = [0; WalIndexHeader::SIZE];
    if file.read_exact_at(&mut header, 0).is_err() {
        return Ok(None);
    }
    Ok(WalIndexHeader::of(&header))
}

/// The error of a file other than the database, with the file's name.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

//! What a file in the sidecar's place holds, and how it becomes a page of ours.
//!
//! A client of this VFS that creates the file writes [`HEADER`]. A client that finds it empty, cut short or zeroed writes
//! [`FOUND`], because it may be another program's: it is used, but nobody changes its rights or deletes it. A client that
//! finds a page of an older layout, open nowhere else, makes it one of this layout. A page of a newer layout stays as it
//! is, and so does a file that holds anything else.

use std::fs::File;
use std::io;
use std::time::Duration;

use crate::format::LOCK_BYTES;
use crate::lock::page::{FOUND, GROUP, GROUP_SIZE, HEADER, LENGTH, OLDER, PAGE, is_newer};
use crate::sys::{self, Entry, LockFile, Range};

/// How long to wait for a process that is making or deleting a sidecar, each time.
pub(super) const RETRY_AFTER: Duration = Duration::from_micros(100);

/// The byte on which every process that has the sidecar open has a shared lock.
pub(super) const OPEN: Range = Range { start: 8189, len: 1 };

/// What a sidecar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A page of ours.
    Page,
    /// Nothing yet, zeros, or a part of a page of ours: it needs a seed.
    Unseeded,
    /// A page of an older layout.
    Older,
    /// A page of a newer layout.
    Newer,
    /// Something else.
    Foreign,
}

/// Where a sidecar that is used comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this VFS has made it.
    Made,
    /// A client has found it. It may be another program's file.
    Found,
}

/// What a sidecar of `len` bytes holds. Changes nothing.
///
/// # Errors
/// It cannot be read.
pub(crate) fn content_of(file: &File, len: u64) -> io::Result<Content> {
    let start = start_of(file, len)?;
    // A process may have made it longer, and been killed before it wrote the new header.
    Ok(if len <= LENGTH as u64 && OLDER.contains(&start) {
        Content::Older
    } else if len <= LENGTH as u64 && is_newer(&start) {
        Content::Newer
    } else if len > LENGTH as u64 || is_foreign(&start[..start.len().min(len as usize)]) {
        Content::Foreign
    } else if [HEADER, FOUND].contains(&start) && len >= LENGTH as u64 {
        Content::Page
    } else {
        Content::Unseeded
    })
}

/// Whether a file of `len` bytes begins as one that a client of this VFS has made.
pub(super) fn begins_with_header(file: &File, len: u64) -> io::Result<bool> {
    Ok(start_of(file, len)? == HEADER)
}

/// The first bytes of a file of `len` bytes, with zeros behind its end.
fn start_of(file: &File, len: u64) -> io::Result<[u8; HEADER.len()]> {
    let mut start = [0; HEADER.len()];
    let n = start.len().min(len as usize);
    sys::read_exact_at(file, &mut start[..n], 0)?;
    Ok(start)
}

/// Whether no page of ours, whole or not, begins so.
fn is_foreign(start: &[u8]) -> bool {
    [HEADER, FOUND].iter().all(|ours| *start != ours[..start.len()])
        && start.iter().any(|byte| *byte != 0)
}

/// Looks at a file that was `found` until it is written, or a process that may be making it has had the time for that.
pub(super) fn after_its_maker(file: &File, mut found: Entry) -> Entry {
    // Some 5 ms, once in the life of a file that was there before: after that it is a whole page.
    for _ in 0..50 {
        if !matches!(content_of(file, found.len), Ok(Content::Unseeded)) {
            break;
        }
        std::thread::sleep(RETRY_AFTER);
        found = sys::entry_of(file).unwrap_or(found);
    }
    found
}

/// The bytes that no client of this VFS locks in a sidecar. A connection to a database that is named like a sidecar has
/// [`DATABASE`] locked.
const CONTENT: Range = Range { start: 0, len: PAGE as i64 };

/// The byte on which a connection has a shared lock as long as it has a database open that is named like a sidecar. The
/// database may be empty, and must not become a sidecar. SQLite's own bytes lie elsewhere, from byte 0x40000000 on.
#[cfg(unix)]
pub(super) const DATABASE: Range = Range { start: 0, len: 1 };

/// The bytes that SQLite locks in a database: a stock client may be about to write one that is still empty.
const SQLITES: Range = Range { start: LOCK_BYTES.start, len: LOCK_BYTES.end - LOCK_BYTES.start };

/// Whether somebody has locked the file as no client of this VFS locks a sidecar. The range of a holder of the write lock
/// covers SQLite's bytes, but begins before them.
fn is_locked_otherwise(file: &LockFile) -> bool {
    let found = |range| file.conflicting(range).ok().flatten();
    let is_sqlites = |lock: Range| LOCK_BYTES.contains(&lock.start);
    found(CONTENT).is_some() || sys::KERNEL_TELLS_RANGES && found(SQLITES).is_some_and(is_sqlites)
}

/// Whether a file that was `found` must not be used. It may hold something other than a page of ours. Or it has no page
/// yet, but a second name, and so may be a user's file elsewhere. Or it has no page yet, but locks that no client of this
/// VFS takes.
///
/// # Errors
/// It cannot be read.
pub(super) fn is_anothers(file: &LockFile, found: &Entry) -> io::Result<bool> {
    Ok(match content_of(file.file(), found.len)? {
        Content::Foreign => true,
        Content::Page | Content::Older | Content::Newer => false,
        Content::Unseeded => {
            found.links > 1 || is_locked_otherwise(file) || sys::has_flock(found.inode)
        }
    })
}

/// Whether this process may write to all of a sidecar.
///
/// # Errors
/// The kernel would end this process (SIGXFSZ) if it wrote to the end. setrlimit(2)
pub(super) fn may_be_written() -> io::Result<()> {
    match sys::file_size_limit().is_some_and(|limit| limit < LENGTH as i64) {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(()),
    }
}

/// Makes a page of an older layout one of this layout, if no other process has it open. Returns
/// whether it did. Group commit's bytes stay. The caller has a shared lock on [`OPEN`], and keeps
/// it.
pub(super) fn renew(file: &LockFile, len: u64) -> io::Result<bool> {
    const BEHIND: usize = GROUP + GROUP_SIZE;
    let start = start_of(file.file(), len)?;
    let is_ours = OLDER.contains(&start) && start[..12] == HEADER[..12];
    // Windows does not exchange one lock for another, but there nobody deletes the file in between.
    let gives_up_own = || !sys::REMOVES_OPEN_FILES && file.unlock(OPEN).is_ok();
    let is_alone = file.try_lock(OPEN, false)? || gives_up_own() && file.try_lock(OPEN, false)?;
    if !is_alone {
        return Ok(false);
    }
    let write = |bytes: &[u8], at: usize| sys::write_all_at(file.file(), bytes, at as u64);
    let written = may_be_written()
        .and_then(|()| write(&[0; GROUP - HEADER.len()], HEADER.len()))
        .and_then(|()| write(&[0; LENGTH - BEHIND], BEHIND))
        .and_then(|()| write(if is_ours { &HEADER } else { &FOUND }, 0));
    // Also after an error, so that others can open it.
    gives_up_own();
    let is_shared = file.try_lock(OPEN, true)?;
    written.map(|()| is_shared)
}

/// Makes an empty, truncated or zeroed sidecar a page of ours. Processes that do it at the same
/// time write the same bytes. `None` if the file must not be used. It may hold something else. It
/// may have been `found` with a second name, and so be a user's file elsewhere. Or it was found
/// with locks on bytes that no client of this VFS locks: then it is another program's lock file, or
/// a database that is named like a sidecar.
pub(super) fn seed(file: &LockFile, found: &Entry, is_made: bool) -> io::Result<Option<Origin>> {
    let locks = file;
    let file = file.file();
    match content_of(file, found.len)? {
        Content::Foreign | Content::Older | Content::Newer => return Ok(None),
        // Another process may have written first, without knowing that the file is ours. Or it has opened the file as a
        // database.
        _ if is_made => {
            if is_locked_otherwise(locks) {
                return Ok(None);
            }
        }
        Content::Page => {
            let is_ours = begins_with_header(file, found.len)?;
            return Ok(Some(if is_ours { Origin::Made } else { Origin::Found }));
        }
        Content::Unseeded if is_anothers(locks, found)? => return Ok(None),
        Content::Unseeded => {}
    }
    may_be_written()?;
    if found.len < LENGTH as u64 {
        // A last byte, not set_len, which could shorten what another process has lengthened.
        sys::write_all_at(file, &[0], LENGTH as u64 - 1)?;
    }
    let (start, origin) = if is_made { (&HEADER, Origin::Made) } else { (&FOUND, Origin::Found) };
    // Last, because it tells processes that wait for the maker that the page is made.
    sys::write_all_at(file, start, 0)?;
    Ok(Some(origin))
}

//! Opens a sidecar: all processes get the same file, though others may create, replace or delete it
//! at the same time.
//!
//! No function here opens the database, even if the sidecar's name leads to it, or a file that may be another program's
//! ([`check_kind`]).

use std::fs::File;
use std::io;
use std::path::Path;

use super::anothers;
use super::content::{self, Content, OPEN, Origin, RETRY_AFTER};
use super::deletion::delete;
use super::place::{give_rights, is_at};
use super::{Sidecar, Unusable, path_of};
use crate::lock::page::LENGTH;
use crate::sys::fork;
use crate::sys::{self, Entry, LockFile, Rights, Words};

/// How many times to look again if the path led to another file by the time the sidecar was open.
const ATTEMPTS: u32 = 10;

impl Sidecar {
    /// Opens the sidecar of `database`; if there is none, creates it if it may `create`. Gives it the database's
    /// rights, as far as this process may. Called while no thread forks, so that a child knows of every descriptor.
    pub(crate) fn open(database: &Path, create: bool) -> Result<Self, Unusable> {
        let path = path_of(database);
        // Each pass ends the loop unless another process has removed or created the file meanwhile.
        let mut made = None;
        for _ in 0..ATTEMPTS {
            let like = sys::entry_behind(database);
            let Some((file, is_new)) = open_or_create(&path, like.as_ref(), create)? else {
                continue;
            };
            let file = LockFile::new(file);
            let found = sys::entry_of(file.file()).map_err(|e| Unusable::Open(e, None))?;
            let inode = found.inode;
            made = if is_new { Some(inode) } else { made };
            let is_made = made == Some(inode);
            let opened = match file.try_lock(OPEN, true) {
                Ok(true) if !is_at(&path, inode) => continue,
                Ok(true) => prepare(&file, &path, found, is_made, like.ok().map(|e| e.rights)),
                Ok(false) => {
                    // Another process is deleting it.
                    std::thread::sleep(RETRY_AFTER);
                    continue;
                }
                Err(e) => Err(Unusable::Lock(e)),
            };
            if let Err(why @ Unusable::Foreign) = opened {
                let _ = file.unlock(OPEN);
                anothers::keep(file, inode);
                return Err(why);
            }
            if opened.is_err() && is_made {
                // Of no use to anybody.
                delete(&file, &path, inode, |_| true);
            }
            return opened.map(|(words, origin)| Self {
                file: fork::Own::new(file),
                inode,
                words: words.map(fork::Own::new),
                origin,
            });
        }
        Err(Unusable::Moving)
    }
}

/// The file at `path`, and whether this call created it, with the rights of the database, `like`. `None` if another process
/// removed or created it meanwhile.
fn open_or_create(
    path: &Path,
    like: Result<&Entry, &io::Error>,
    create: bool,
) -> Result<Option<(File, bool)>, Unusable> {
    match sys::entry_at(path) {
        Ok(found) => Ok(open_found(like.ok(), path, &found)?.map(|file| (file, false))),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !create => Err(Unusable::Missing),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let like = like.map_err(|e| Unusable::NoDatabase(copy_of(e)))?;
            if !has_room_for(path) {
                return Err(Unusable::NoRoom);
            }
            match sys::create_like(path, like.rights) {
                Ok(file) => Ok(Some((file, true))),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                Err(e) => Err(Unusable::Create(e)),
            }
        }
        Err(e) => Err(Unusable::Open(e, None)),
    }
}

/// Whether SQLite's own files have room beside a sidecar at `path`. They come later, and must not fail because the sidecar
/// took their room.
fn has_room_for(path: &Path) -> bool {
    /// The sidecar, a journal or WAL, a wal-index, and a super-journal or what a VACUUM needs.
    const FILES: u64 = 4;
    const BYTES: u64 = 64 << 10;
    let room = path.parent().and_then(sys::room_at);
    room.is_none_or(|(files, bytes)| files >= FILES && bytes >= BYTES)
}

/// Prepares a sidecar that is open and in its place: seeds it, and gives it the rights of its database if a client of
/// this VFS has made it.
fn prepare(
    file: &LockFile,
    path: &Path,
    found: Entry,
    is_made: bool,
    like: Option<Rights>,
) -> Result<(Option<Words>, Origin), Unusable> {
    let mut found = if is_made { found } else { content::after_its_maker(file.file(), found) };
    if matches!(content::content_of(file.file(), found.len), Ok(Content::Older)) {
        if !content::renew(file, found.len).map_err(Unusable::Seed)? {
            return Err(Unusable::Older);
        }
        found = sys::entry_of(file.file()).unwrap_or(found);
    }
    if matches!(content::content_of(file.file(), found.len), Ok(Content::Newer)) {
        return Err(Unusable::Newer);
    }
    let origin = content::seed(file, &found, is_made).map_err(Unusable::Seed)?;
    let origin = origin.ok_or(Unusable::Foreign)?;
    let file = file.file();
    if let Some(like) = like.filter(|_| !is_made && origin == Origin::Made) {
        give_rights(file, &found, like);
    }
    Ok((Words::map(file, path, LENGTH).ok(), origin))
}

/// Opens the sidecar of `database` for `see` alone, and returns what `see` does. Changes nothing, and needs only the right to
/// read the file.
///
/// A file that is somebody else's, or may become so, stays open as long as closing it could drop a lock of this process.
pub(crate) fn look_at<T>(database: &Path, see: impl FnOnce(&LockFile) -> T) -> Result<T, Unusable> {
    let path = path_of(database);
    let found = match sys::entry_at(&path) {
        Ok(found) => found,
        Err(e) if sys::is_absent(&e) => return Err(Unusable::Missing),
        Err(e) => return Err(Unusable::Open(e, None)),
    };
    check_kind(sys::entry_behind(database).as_ref().ok(), &found)?;
    if anothers::has(&found) {
        return Err(Unusable::Foreign);
    }
    let file = sys::open_to_read(&path).map_err(|e| Unusable::Open(e, found.owner))?;
    if !is_same_file(&file, &found) {
        return Err(Unusable::Moving);
    }
    let file = LockFile::new(file);
    let is_anothers = content::is_anothers(&file, &found);
    let seen =
        if matches!(is_anothers, Ok(true)) { Err(Unusable::Foreign) } else { Ok(see(&file)) };
    close(file, &found);
    seen
}

/// Closes a file that was only looked at. If it has no page of ours, it may stay open: another thread of this process may have
/// it open, and lock it at any moment.
fn close(file: LockFile, found: &Entry) {
    match content::content_of(file.file(), found.len) {
        Ok(Content::Page | Content::Older) => {}
        _ => anothers::keep(file, found.inode),
    }
}

/// Why no writer could use the sidecar of `database` at this moment; `None` if one could.
pub(crate) fn obstacle(database: &Path) -> Option<Unusable> {
    let path = path_of(database);
    match sys::entry_at(&path) {
        Ok(found) => {
            let like = sys::entry_behind(database).ok();
            match open_found(like.as_ref(), &path, &found) {
                Ok(Some(file)) => {
                    let file = LockFile::new(file);
                    let why = match content::is_anothers(&file, &found) {
                        Ok(true) => Some(Unusable::Foreign),
                        Ok(false) => match content::content_of(file.file(), found.len) {
                            Ok(Content::Older) => {
                                let is_open = !matches!(file.conflicting(OPEN), Ok(None));
                                is_open.then_some(Unusable::Older)
                            }
                            Ok(Content::Newer) => Some(Unusable::Newer),
                            Ok(_) => None,
                            Err(e) => Some(Unusable::Open(e, None)),
                        },
                        Err(e) => Some(Unusable::Open(e, None)),
                    };
                    close(file, &found);
                    why
                }
                Ok(None) => None,
                Err(why) => Some(why),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let may_create = database.parent().is_none_or(sys::may_create_in);
            (!may_create).then(|| Unusable::Create(io::ErrorKind::PermissionDenied.into()))
        }
        Err(e) => Some(Unusable::Open(e, None)),
    }
}

/// Opens what was found at `path`; `None` if it is no longer there.
pub(super) fn open_found(
    database: Option<&Entry>,
    path: &Path,
    found: &Entry,
) -> Result<Option<File>, Unusable> {
    check_kind(database, found)?;
    if anothers::has(found) {
        return Err(Unusable::Foreign);
    }
    match sys::open_to_lock(path) {
        // Another file may be there by now, which was not checked.
        Ok(file) => Ok(Some(file).filter(|file| is_same_file(file, found))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Unusable::Open(e, found.owner)),
    }
}

/// Whether a file that was opened is the one that was found, and has as many names.
fn is_same_file(file: &File, found: &Entry) -> bool {
    sys::entry_of(file).is_ok_and(|now| now.inode == found.inode && now.links == found.links)
}

/// Refuses what must not be opened: the database itself, and a FIFO, which would make the opener wait. Also refuses a file
/// that is too long to be a sidecar, since closing it could drop locks that this process has on it.
fn check_kind(database: Option<&Entry>, found: &Entry) -> Result<(), Unusable> {
    if let Some(kind) = found.odd_kind {
        return Err(Unusable::NotAFile(kind));
    }
    if database.is_some_and(|database| database.inode == found.inode) {
        return Err(Unusable::IsDatabase);
    }
    if found.len > LENGTH as u64 { Err(Unusable::Foreign) } else { Ok(()) }
}

/// Another error like this one.
fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

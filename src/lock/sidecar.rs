//! The sidecar: the file beside a database whose bytes are locked instead of the database's.
//!
//! It may be opened and closed freely, which the database must not be (closing a file drops the
//! locks SQLite has on it, <https://www.sqlite.org/howtocorrupt.html> 2.2).
//!
//! It goes as `-shm` goes: the last process that closes it deletes it, so that nothing stays, and whoever
//! comes next makes it as the database is then. Whoever has it open has a shared lock on [`OPEN`]; whoever
//! has that byte alone may delete it. So one that was opened counts only if, with the lock in hand, its
//! path still leads to it:
//!
//! | one opens it | the other closes it | then |
//! |---|---|---|
//! | has the lock | asks for it alone, and is refused | it stays |
//! | asks for it, and is refused | has it alone | looks again, and finds none |
//! | has opened it, and asks | has deleted and closed it | finds another or none at its path, and looks again |
//!
//! Two that close it at once both have it shared, and are refused both: so whoever is refused gives its own
//! up and asks once more, and the last of them has it alone. Who dies in between leaves it, or has deleted it.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::holder::{Holder, WRITE_BYTE, WRITE_RANGE};
use super::page::{FOUND, GROUP, GroupBytes, HEADER, LAST_BYTE, PAGE, Page, slot_offset};
use super::queue::QueueFile;
use crate::format;
use crate::sys::fork;
use crate::sys::{self, Directory, Entry, Inode, LockFile, Name, Range, Rights, Words};

/// The byte that all who have it open share.
pub(crate) const OPEN: Range = Range { start: 8189, len: 1 };

/// An open sidecar, which holds a page of ours.
pub(crate) struct Sidecar {
    file: fork::Own<LockFile>,
    inode: Inode,
    /// `None` if it can not be mapped: then waiters look every millisecond.
    words: Option<fork::Own<Words>>,
    /// Whether a client of this VFS is known to have made it. Else it may be another program's file.
    is_ours: bool,
}

/// What a sidecar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A page of ours.
    Page,
    /// Something else, which is left as it is.
    Foreign,
}

/// Why a sidecar can not be used, and what to do.
#[derive(Debug)]
pub(crate) enum Unusable {
    NotAFile(&'static str),
    IsDatabase,
    /// It holds something else.
    Foreign,
    /// It was another each time it was looked at, or is being deleted.
    Moving,
    Missing,
    NoDatabase(io::Error),
    Create(io::Error),
    /// With the user who owns it, where files have one.
    Open(io::Error, Option<u32>),
    Lock(io::Error),
    Seed(io::Error),
}

impl Unusable {
    /// Whether it will be the same a moment later.
    pub(crate) fn lasts(&self) -> bool {
        !matches!(self, Self::Moving | Self::Missing)
    }
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
            Self::Foreign => write!(f, "{FOREIGN}; move it away and it is made anew"),
            Self::Moving => f.write_str("the sidecar is being replaced again and again"),
            Self::Missing => f.write_str("there is no sidecar yet; the first writer makes it"),
            Self::NoDatabase(e) => write!(f, "can not look at the database of the sidecar: {e}"),
            Self::Create(e) => write!(
                f,
                "can not create the sidecar: {e}; writers need the right to create files there"
            ),
            Self::Open(e, Some(owner)) => write!(
                f,
                "can not open the sidecar of user {owner}: {e}; give it the database's owner and \
                 permissions"
            ),
            Self::Open(e, None) => {
                write!(f, "can not open the sidecar: {e}; give it the database's permissions")
            }
            Self::Lock(e) => write!(
                f,
                "can not lock the sidecar: {e}; it needs open-file-description locks of the system \
                 and of its file system"
            ),
            Self::Seed(e) => write!(f, "can not write the sidecar: {e}"),
        }
    }
}

/// Why a sidecar that is [`Content::Foreign`] is none.
pub(crate) const FOREIGN: &str = "the sidecar holds something else than a page of this VFS";

/// How often a sidecar that was another by the time it was open is looked at again, and how long it is
/// waited for whoever is deleting it.
const ATTEMPTS: u32 = 10;
const IS_BEING_DELETED: Duration = Duration::from_micros(100);

/// `<database>-lock`
pub(crate) fn path_of(database: &Path) -> PathBuf {
    format::beside(database, format::SIDECAR_SUFFIX)
}

impl Sidecar {
    /// Opens the sidecar of `database`; if there is none, creates it or fails. Gives it the database's
    /// rights, as far as this process may.
    pub(crate) fn open(database: &Path, create: bool) -> Result<Self, Unusable> {
        let path = path_of(database);
        // Each turn ends the loop unless somebody else removed or created the file meanwhile.
        let mut made = None;
        for _ in 0..ATTEMPTS {
            let like = sys::entry_behind(database);
            let (file, is_new) = match sys::entry_at(&path) {
                Ok(found) => match open_found(like.as_ref().ok(), &path, &found)? {
                    Some(file) => (file, false),
                    None => continue,
                },
                Err(e) if e.kind() == io::ErrorKind::NotFound && !create => {
                    return Err(Unusable::Missing);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let like = like.as_ref().map_err(|e| Unusable::NoDatabase(copy_of(e)))?;
                    match sys::create_like(&path, like.rights) {
                        Ok(file) => (file, true),
                        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                        Err(e) => return Err(Unusable::Create(e)),
                    }
                }
                Err(e) => return Err(Unusable::Open(e, None)),
            };
            let found = sys::entry_of(&file).map_err(|e| Unusable::Open(e, None))?;
            let inode = found.inode;
            made = if is_new { Some(inode) } else { made };
            let is_made = made == Some(inode);
            let file = LockFile::new(file);
            let opened = match file.try_lock(OPEN, true) {
                Ok(true) if !is_at(&path, inode) => continue,
                Ok(true) => begin(&file, &path, found, is_made, like.ok().map(|like| like.rights)),
                Ok(false) => {
                    std::thread::sleep(IS_BEING_DELETED);
                    continue;
                }
                Err(e) => Err(Unusable::Lock(e)),
            };
            if let (Err(_), true) = (&opened, is_made) {
                // Of no use to anybody.
                delete(&file, &path, inode, |_| true);
            }
            return opened.map(|(words, is_ours)| Self {
                file: fork::Own::new(file),
                inode,
                words: words.map(fork::Own::new),
                is_ours,
            });
        }
        Err(Unusable::Moving)
    }

    /// Whether its path still leads to it, as far as this process can tell, and nobody has closed its
    /// descriptor. If so, gives it the rights that
    /// the database has by now.
    pub(crate) fn is_in_place(&self, database: &Path) -> bool {
        if self.file.get().is_some_and(|file| !file.is_intact()) {
            return false;
        }
        match sys::entry_at(&path_of(database)) {
            Ok(found) if found.inode != self.inode => false,
            Ok(found) => {
                let like = || sys::entry_behind(database).ok().filter(|_| self.is_ours);
                if let (Some(like), Some(file)) = (like(), self.file.get()) {
                    follow(file.file(), &found, like.rights);
                }
                true
            }
            Err(error) => !sys::is_absent(&error),
        }
    }

    /// Whether it is still in the database's directory, though names lead elsewhere for this process by now.
    pub(crate) fn is_within(&self, directory: &Directory, database: &Path) -> bool {
        let name = Name::new(path_of(database).as_os_str());
        directory.is_seen_from_elsewhere()
            && name
                .and_then(|name| directory.stat_within(&name).ok())
                .is_some_and(|found| found.inode == self.inode)
    }

    /// Deletes it, unless somebody else has it open, or it says what must outlive all who have. To be
    /// called by whoever is about to close it.
    pub(crate) fn delete(&self, database: &Path) {
        let Some(file) = self.file.get().filter(|_| sys::REMOVES_OPEN_FILES) else {
            return;
        };
        delete(file, &path_of(database), self.inode, |file| {
            let len = file.file().metadata().map_or(0, |found| found.len());
            let is_ours =
                len <= PAGE as u64 && start_of(file.file(), len).is_ok_and(|s| s == HEADER);
            let has_failed = self.read_group().is_ok_and(|group| group.tells_of_a_failure());
            let wal = format::beside(database, format::WAL_SUFFIX);
            let wal = || wal.metadata().is_ok_and(|wal| wal.len() > 0);
            is_ours && !(has_failed && wal())
        });
    }

    pub(crate) fn inode(&self) -> Inode {
        self.inode
    }

    /// As [`LockFile::descriptor`].
    pub(crate) fn descriptor(&self) -> i32 {
        self.file.descriptor()
    }

    /// Whether waiters can be woken, not only polled.
    pub(crate) fn is_mapped(&self) -> bool {
        self.words.is_some()
    }

    /// The file, in the process that opened it: in a child the descriptor may be another file's.
    #[inline(always)]
    fn own(&self) -> io::Result<&LockFile> {
        #[cold]
        fn inherited() -> io::Error {
            io::ErrorKind::Unsupported.into()
        }
        self.file.get().ok_or_else(inherited)
    }

    /// As [`Self::own`], to write to: not if somebody has closed the descriptor, which may be another file's by
    /// now.
    fn own_to_write(&self) -> io::Result<&LockFile> {
        match self.own()? {
            file if file.is_intact() => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// The bytes that are group commit's.
impl Sidecar {
    /// # Errors
    /// It is a parent's, or cannot be read.
    pub(crate) fn read_group(&self) -> io::Result<GroupBytes> {
        let mut bytes = GroupBytes::default();
        sys::read_exact_at(self.own()?.file(), &mut bytes.0, GROUP as u64)?;
        Ok(bytes)
    }

    /// # Errors
    /// It is a parent's, or cannot be written.
    pub(crate) fn write_group(&self, bytes: &GroupBytes) -> io::Result<()> {
        sys::write_all_at(self.own_to_write()?.file(), &bytes.0, GROUP as u64)
    }

    /// Takes an exclusive lock that is not waited for. False if another open file has one in the way.
    ///
    /// # Errors
    /// It is a parent's, or the kernel's.
    pub(crate) fn try_lock(&self, range: Range) -> io::Result<bool> {
        self.own()?.try_lock(range, false)
    }

    /// # Errors
    /// As for [`Self::try_lock`].
    pub(crate) fn unlock(&self, range: Range) -> io::Result<()> {
        self.own()?.unlock(range)
    }

    /// Sleeps while the futex word of group commit is `word`, at most so long.
    pub(crate) fn wait_for_group(&self, word: u32, limit: Duration) {
        let waited = self.words.as_ref().map(|words| words.wait(GROUP, word, limit));
        if matches!(waited, Some(Err(_))) {
            // The sidecar was cut short.
            std::thread::sleep(limit.min(Duration::from_millis(1)));
        }
    }

    /// Changes that word, and wakes all who sleep on it.
    pub(crate) fn wake_group(&self) {
        // One that it had not when somebody read it; the record behind it may be another's by now.
        let word = (sys::monotonic_ns() as u32).to_le_bytes();
        let _ = self
            .own_to_write()
            .and_then(|file| sys::write_all_at(file.file(), &word, GROUP as u64));
        if let Some(words) = &self.words {
            words.wake(GROUP);
        }
    }
}

/// Another open file's lock on any byte of the range. Where the kernel only says that there is one,
/// the page says, if it is one of ours, what the holder of the write lock has locked.
pub(crate) fn in_the_way(
    file: &LockFile,
    range: Range,
    has_page: impl FnOnce() -> bool,
) -> io::Result<Option<Range>> {
    if sys::KERNEL_TELLS_RANGES || range != WRITE_RANGE || !has_page() {
        return file.conflicting(range);
    }
    let mut last = [0; 8];
    sys::read_exact_at(file.file(), &mut last, LAST_BYTE)?;
    let last = i64::from_le_bytes(last);
    if last == 0 {
        // To ask would lock it for a moment.
        return Ok(None);
    }
    let held = Range { start: WRITE_BYTE, len: last.saturating_sub(WRITE_BYTE - 1) };
    Ok(file.conflicting(Range { len: 1, ..range })?.map(|_| held))
}

impl Sidecar {
    /// Says in the page what was locked, or that it is about to be given back, where the kernel does
    /// not.
    fn tell(&self, file: &LockFile, range: Option<Range>) {
        if !sys::KERNEL_TELLS_RANGES {
            let last = range.map_or(0, |range| range.start + range.len - 1);
            // A hint: without it, the holder has no name.
            let _ = sys::write_all_at(file.file(), &last.to_le_bytes(), LAST_BYTE);
        }
    }
}

impl QueueFile for Sidecar {
    fn read(&self) -> io::Result<Page> {
        let mut page = Page([0; PAGE]);
        sys::read_exact_at(self.own()?.file(), &mut page.0, 0)?;
        Ok(page)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        sys::write_all_at(self.own_to_write()?.file(), bytes, at)
    }

    #[inline(always)]
    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        let file = self.own()?;
        let taken = file.try_lock(range, shared)?;
        if taken && Holder::from_range(range).is_some() {
            self.tell(file, Some(range));
        }
        Ok(taken)
    }

    #[inline(always)]
    fn unlock(&self, range: Range) -> io::Result<()> {
        let file = self.own()?;
        if range.covers(WRITE_RANGE) {
            self.tell(file, None);
        }
        file.unlock(range)
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        in_the_way(self.own()?, range, || true)
    }

    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool {
        if let Some(words) = &self.words {
            // An error: the sidecar was cut short.
            if let Ok(woken) = words.wait(slot_offset(slot), word, limit) {
                return woken;
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
    let found = match sys::entry_at(&path) {
        Ok(found) => found,
        Err(e) if sys::is_absent(&e) => return Err(Unusable::Missing),
        Err(e) => return Err(Unusable::Open(e, None)),
    };
    check_kind(sys::entry_behind(database).as_ref().ok(), &found)?;
    let file = sys::open_to_read(&path).map_err(|e| Unusable::Open(e, found.owner))?;
    if is_that(&file, &found) { Ok(file) } else { Err(Unusable::Moving) }
}

/// The range that whoever has the write lock on `database` has locked, also if that is this process:
/// by a description of its own, since a process's locks are not in their own way. Changes nothing, and
/// needs no more than the right to read the sidecar.
pub(crate) fn held_range(database: &Path) -> Option<Range> {
    in_the_way(&LockFile::new(look_at(database).ok()?), WRITE_RANGE, || true).ok()?
}

/// What a sidecar of `len` bytes holds, and whether it needs no seed. Changes nothing.
pub(crate) fn content_of(file: &File, len: u64) -> io::Result<(Content, bool)> {
    let start = start_of(file, len)?;
    let is_foreign = len > PAGE as u64 || is_foreign(&start[..start.len().min(len as usize)]);
    let content = if is_foreign { Content::Foreign } else { Content::Page };
    Ok((content, [HEADER, FOUND].contains(&start) && len >= PAGE as u64))
}

/// What a file of `len` bytes begins with, and zeros behind its end.
fn start_of(file: &File, len: u64) -> io::Result<[u8; HEADER.len()]> {
    let mut start = [0; HEADER.len()];
    let n = start.len().min(len as usize);
    sys::read_exact_at(file, &mut start[..n], 0)?;
    Ok(start)
}

/// Whether what a file begins with is something else than a page of ours, whole or not.
fn is_foreign(start: &[u8]) -> bool {
    [HEADER, FOUND].iter().all(|ours| *start != ours[..start.len()])
        && start.iter().any(|byte| *byte != 0)
}

/// Why no writer could use the sidecar of `database`, as of now.
pub(crate) fn obstacle(database: &Path) -> Option<Unusable> {
    let path = path_of(database);
    match sys::entry_at(&path) {
        Ok(found) => {
            let like = sys::entry_behind(database).ok();
            match open_found(like.as_ref(), &path, &found) {
                Ok(Some(file)) => match content_of(&file, found.len) {
                    Ok((Content::Page, _)) => None,
                    Ok((Content::Foreign, _)) => Some(Unusable::Foreign),
                    Err(e) => Some(Unusable::Open(e, None)),
                },
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

/// Opens what was found at `path`; `None` if it is there no longer.
fn open_found(
    database: Option<&Entry>,
    path: &Path,
    found: &Entry,
) -> Result<Option<File>, Unusable> {
    check_kind(database, found)?;
    match sys::open_to_lock(path) {
        // Somebody may have put another there since, which was not looked at.
        Ok(file) => Ok(Some(file).filter(|file| is_that(file, found))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Unusable::Open(e, found.owner)),
    }
}

/// Whether a file that was opened is the one that was found, and has as many names.
fn is_that(file: &File, found: &Entry) -> bool {
    sys::entry_of(file).is_ok_and(|now| now.inode == found.inode && now.links == found.links)
}

/// The database itself must be neither opened nor written to, nor a FIFO waited for. Nor is a file opened
/// that is too long to be a sidecar, since closing it could drop locks that this process has on it.
fn check_kind(database: Option<&Entry>, found: &Entry) -> Result<(), Unusable> {
    if let Some(kind) = found.odd_kind {
        return Err(Unusable::NotAFile(kind));
    }
    if database.is_some_and(|database| database.inode == found.inode) {
        return Err(Unusable::IsDatabase);
    }
    if found.len > PAGE as u64 { Err(Unusable::Foreign) } else { Ok(()) }
}

/// Whether `path` leads to that file.
fn is_at(path: &Path, inode: Inode) -> bool {
    sys::entry_at(path).is_ok_and(|found| found.inode == inode)
}

/// A sidecar is open and in its place: sees to its content and its rights. Says whether it is ours.
fn begin(
    file: &LockFile,
    path: &Path,
    found: Entry,
    is_made: bool,
    like: Option<Rights>,
) -> Result<(Option<Words>, bool), Unusable> {
    let found = if is_made { found } else { made_by_now(file.file(), found) };
    let is_ours = match seed(file, &found, is_made).map_err(Unusable::Seed)? {
        Seeded::Ours => true,
        Seeded::Found => false,
        Seeded::Foreign => return Err(Unusable::Foreign),
    };
    let file = file.file();
    if let Some(like) = like.filter(|_| !is_made && is_ours) {
        follow(file, &found, like);
    }
    Ok((Words::map(file, path, PAGE).ok(), is_ours))
}

/// What is found when whoever may be making a sidecar has had the time to write it.
fn made_by_now(file: &File, mut found: Entry) -> Entry {
    // Some 5 ms, once in the life of a file that was there before: then it is a whole page.
    for _ in 0..50 {
        if !matches!(content_of(file, found.len), Ok((Content::Page, false))) {
            break;
        }
        std::thread::sleep(IS_BEING_DELETED);
        found = sys::entry_of(file).unwrap_or(found);
    }
    found
}

/// Gives a sidecar that was found so the rights of its database. One that has a second name may be
/// somebody's file elsewhere.
fn follow(file: &File, found: &Entry, like: Rights) {
    if found.rights != like && found.links == 1 {
        sys::give_rights(file, found.rights, like);
    }
}

/// Deletes the file at `path` if it is this one, nobody else has it open, and it `may` go.
fn delete(file: &LockFile, path: &Path, inode: Inode, may: impl Fn(&LockFile) -> bool) {
    let alone = || match file.try_lock(OPEN, false) {
        Ok(is_alone) => is_alone,
        // Where there are no such locks, nobody else has one.
        Err(error) => sys::has_no_locks(&error),
    };
    let is_alone = alone() || file.unlock(OPEN).is_ok() && alone();
    let deletes = || is_at(path, inode) && may(file) && sys::remove(path).is_ok();
    if is_alone && !deletes() {
        // A forked child may keep it open.
        let _ = file.unlock(OPEN);
    }
}

/// The same error, for somebody else.
fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// What a sidecar is that was seen to.
enum Seeded {
    /// A client of this VFS has made it.
    Ours,
    /// It is used, but may be another program's file.
    Found,
    /// It is left as it is.
    Foreign,
}

/// Makes an empty, truncated or zeroed sidecar a page of ours. Two that do it at once write the
/// same bytes. One that has a second name may be somebody's file elsewhere, and one that is locked by no rule of
/// ours is a lock file: both are left alone.
fn seed(file: &LockFile, found: &Entry, is_made: bool) -> io::Result<Seeded> {
    /// What no client of this VFS locks.
    const CONTENT: Range = Range { start: 0, len: PAGE as i64 };
    let locks = file;
    let file = file.file();
    match content_of(file, found.len)? {
        (Content::Foreign, _) => return Ok(Seeded::Foreign),
        // Somebody may have been faster, and cannot know that it is ours.
        (Content::Page, _) if is_made => {}
        (Content::Page, true) => {
            let is_ours = start_of(file, found.len)? == HEADER;
            return Ok(if is_ours { Seeded::Ours } else { Seeded::Found });
        }
        (Content::Page, false) => {
            let is_locked = || locks.conflicting(CONTENT).is_ok_and(|lock| lock.is_some());
            if found.links > 1 || is_locked() || sys::has_flock(found.inode) {
                return Ok(Seeded::Foreign);
            }
        }
    }
    if found.len < PAGE as u64 {
        // A last byte, not set_len, which could shorten what another process has lengthened.
        sys::write_all_at(file, &[0], PAGE as u64 - 1)?;
    }
    // Last, since it tells those who wait for whoever makes it that it is made.
    sys::write_all_at(file, if is_made { &HEADER } else { &FOUND }, 0)?;
    Ok(if is_made { Seeded::Ours } else { Seeded::Found })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    use std::sync::mpsc::channel;
    use std::time::Instant;

    /// A waiter sleeps for a minute, and a holder wakes it; who only looked every millisecond would see
    /// nothing, since nobody changes the word.
    #[test]
    fn who_sleeps_is_woken() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        let [sleeper, waker] = [(); 2].map(|()| Sidecar::open(&board, true).expect("a sidecar"));
        assert!(sleeper.is_mapped());
        let (woken, was_woken) = channel();
        std::thread::spawn(move || {
            let _ = woken.send(QueueFile::wait(&sleeper, 3, 0, Duration::from_secs(60)));
        });
        let began = Instant::now();
        let answer = loop {
            // Again, since it may not sleep yet.
            QueueFile::wake(&waker, 3);
            match was_woken.recv_timeout(Duration::from_millis(1)) {
                Ok(answer) => break answer,
                Err(_) => assert!(began.elapsed() < Duration::from_secs(30), "it sleeps on"),
            }
        };
        assert!(answer, "it was woken");
        assert!(!waker.wait(3, 0, Duration::from_millis(1)), "nobody wakes it");
        assert!(waker.wait(3, 1, Duration::from_secs(60)), "the word is another by now");
    }

    /// The descriptor is what a forked child closes; the place is looked at, since a sidecar that was moved or
    /// replaced excludes nobody.
    #[test]
    fn it_knows_its_file_and_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        let sidecar = Sidecar::open(&board, true).expect("a sidecar");
        let inode = sys::inode_of(sidecar.descriptor()).expect("it is open");
        assert!(inode == sidecar.inode && sidecar.is_in_place(&board));
        let (path, elsewhere) = (path_of(&board), directory.path().join("elsewhere"));
        std::fs::rename(&path, &elsewhere).expect("it is moved");
        assert!(!sidecar.is_in_place(&board), "it is gone");
        std::fs::write(&path, "").expect("a file");
        assert!(!sidecar.is_in_place(&board), "it was replaced");
        std::fs::rename(&elsewhere, &path).expect("it is back");
        assert!(sidecar.is_in_place(&board));
    }

    /// Why there is no sidecar is told by what has failed: there is none, it can not be made, or nobody can
    /// tell.
    #[test]
    fn why_it_can_not_be_opened_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        assert!(matches!(Sidecar::open(&board, false), Err(Unusable::Missing)));
        assert!(matches!(Sidecar::open(&board, true), Err(Unusable::NoDatabase(_))));
        assert!(matches!(look_at(&board), Err(Unusable::Missing)));
        let status = Path::new("/proc/self/status");
        assert!(matches!(Sidecar::open(status, true), Err(Unusable::Create(_))));
        // With five characters more, no file can have that name.
        let long = directory.path().join("x".repeat(253));
        for create in [true, false] {
            assert!(matches!(Sidecar::open(&long, create), Err(Unusable::Open(_, None))));
        }
        assert!(matches!(look_at(&long), Err(Unusable::Open(_, None))));
    }

    /// A sidecar that was seen is gone when it is opened, or another: that is no error, but looked at again.
    #[test]
    fn a_sidecar_that_changes_under_ones_hands_is_looked_at_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        drop(Sidecar::open(&board, true).expect("a sidecar"));
        let path = path_of(&board);
        let found = sys::entry_at(&path).expect("it is there");
        assert!(matches!(open_found(None, &path, &found), Ok(Some(_))));
        let elsewhere = directory.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).expect("it is moved");
        assert!(matches!(open_found(None, &path, &found), Ok(None)));
        assert!(!is_at(&path, found.inode), "there is none");
        std::fs::hard_link(&board, &path).expect("a second name");
        assert!(matches!(open_found(None, &path, &found), Ok(None)), "it is another");
        std::fs::remove_file(&path).expect("it is there");
        std::fs::write(&path, "").expect("a file");
        assert!(!is_at(&path, found.inode), "there is another");
    }

    /// Threads open it, and close it as the last, all the time: whoever has it open has the one that is in its
    /// place, and in the end there is none.
    #[test]
    fn whoever_has_it_has_the_one_that_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        let come_and_go = || {
            for _ in 0..500 {
                // Somebody deletes it for longer than it is waited for.
                let Ok(sidecar) = Sidecar::open(&board, true) else { continue };
                assert!(sidecar.is_in_place(&board), "others have another");
                sidecar.delete(&board);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(come_and_go))));
        let last = Sidecar::open(&board, true).expect("a sidecar");
        last.delete(&board);
        assert!(!path_of(&board).exists());
    }

    /// It is deleted by the last who has it open, and not while another does. Nor is one that says of a WAL,
    /// which is there, that a sync has failed, nor what somebody has written in its place.
    #[test]
    fn the_last_deletes_it_if_nothing_is_lost_by_that() {
        let directory = tempfile::tempdir().expect("a directory");
        let (board, wal) =
            (directory.path().join("board.db"), directory.path().join("board.db-wal"));
        std::fs::write(&board, "").expect("a file");
        let open = || Sidecar::open(&board, true).expect("a sidecar");
        let is_there = || path_of(&board).exists();
        let (one, other) = (open(), open());
        one.delete(&board);
        assert!(is_there(), "another has it open");
        // What it was refused it has not, and it may be opened.
        drop(one);
        let again = open();
        assert_eq!(again.inode, other.inode);
        drop(other);
        again.delete(&board);
        assert!(!is_there());

        for (failures, has_wal, stays) in [(1, true, true), (1, false, false), (2, true, false)] {
            let sidecar = open();
            let mut bytes = GroupBytes::default();
            bytes.0[16] = failures;
            sidecar.write_group(&bytes).expect("it is open");
            let _ = if has_wal { std::fs::write(&wal, "x") } else { std::fs::remove_file(&wal) };
            sidecar.delete(&board);
            assert_eq!(is_there(), stays, "{failures} {has_wal}");
            drop(sidecar);
            let _ = std::fs::remove_file(path_of(&board));
        }
        let sidecar = open();
        std::fs::write(path_of(&board), "something of somebody else's").expect("a file");
        sidecar.delete(&board);
        assert!(is_there());
    }

    /// Whoever cannot tell whether another has it open deletes nothing.
    #[test]
    fn an_error_is_no_sign_of_being_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        let sidecar = Sidecar::open(&board, true).expect("a sidecar");
        let path = path_of(&board);
        // An exclusive lock by a descriptor to read is EBADF.
        let reads = LockFile::new(File::open(&path).expect("it is there"));
        delete(&reads, &path, sidecar.inode, |_| true);
        assert!(path.exists());
    }

    /// A file that was there, empty or cut short, is used; but nobody changes its rights or deletes it, and who has
    /// it locked in his own way has it as it is. One that a client has made is deleted, whoever was the first.
    #[test]
    fn what_was_found_is_not_deleted() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        let path = path_of(&board);
        let mode = || std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        for content in [&b""[..], &HEADER, &[0; PAGE]] {
            std::fs::write(&path, content).expect("a file");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("it is ours");
            for _ in 0..2 {
                let sidecar = Sidecar::open(&board, true).expect("a sidecar");
                assert!(sidecar.is_in_place(&board));
                assert_eq!(mode(), 0o600);
                sidecar.delete(&board);
            }
            assert_eq!(std::fs::read(&path).expect("it is there")[..16], FOUND);
            std::fs::remove_file(&path).expect("it is there");
        }
        std::fs::write(&path, "").expect("a file");
        let lock = File::open(&path).expect("it is there");
        sys::for_tests::flock_all(&lock);
        assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Foreign)));
        assert_eq!(std::fs::metadata(&path).expect("it is there").len(), 0);
        drop(lock);
        let lock = File::options().write(true).open(&path).expect("it is there");
        assert!(sys::try_lock(&lock, Range { start: 0, len: 1 }, false).expect("it locks"));
        assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Foreign)));
    }

    /// Somebody is about to delete it, and is stopped: it is not used, and not waited for long.
    #[test]
    fn one_that_is_being_deleted_is_not_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = directory.path().join("board.db");
        std::fs::write(&board, "").expect("a file");
        let deleting = Sidecar::open(&board, true).expect("a sidecar");
        assert!(deleting.file.try_lock(OPEN, false).expect("it is asked"));
        assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Moving)));
        deleting.delete(&board);
        assert!(Sidecar::open(&board, true).is_ok());
    }

    /// Two first writers make the sidecar at the same moment: both have it, and it is one.
    #[test]
    fn two_that_make_it_at_once_have_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        for nth in 0..200 {
            let board = directory.path().join(format!("{nth}.db"));
            std::fs::write(&board, "").expect("a file");
            let begin = std::sync::Barrier::new(2);
            let make = || {
                begin.wait();
                Sidecar::open(&board, true).map(|sidecar| sidecar.inode)
            };
            let [one, other] = std::thread::scope(|scope| {
                [scope.spawn(make), scope.spawn(make)].map(|made| made.join().expect("no panic"))
            });
            assert_eq!(one.expect("a sidecar"), other.expect("a sidecar"));
        }
    }
}

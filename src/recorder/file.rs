//! The file of the event log, `<database>-kanban-log`.
//!
//! | bytes | |
//! |---|---|
//! | 0 to 15 | `kanban-vfs log`, a NUL, and the version of this layout, 1 |
//! | 16 to 23 | the number of the newest event, or of an older one (u64) |
//! | 24 to 31 | when the log was made, in us since 1970 (u64) |
//! | 1024 n, from n = 1 to 16 | a place for counters ([`super::tally`]) |
//! | 17408 + 512 n, from n = 0 to 999 | a record ([`super::event`]) of the events whose number is n modulo 1000 |
//! | 529408 | a byte that is 0, which keeps the file from being taken for a database: those consist of pages |
//!
//! The file has its whole length from the beginning, with holes that fill up. A file of 0 bytes is
//! being made, or its maker was killed. It is read and written by pread(2) and pwrite(2), so that a
//! file that is cut short gives an error. A process that writes a record or adds to a place locks
//! the byte of that record or place, by an OFD lock. If another process has locked it, the process
//! takes the next one: it does not wait. It has the file open for that moment only.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{error, fmt};

use super::event::{Event, MOST_EVENTS, RECORD, u64_at};
use super::tally::{PLACE, Tally, Words};
use crate::format::{self, EVENT_LOG_SUFFIX};
use crate::sys::{self, Entry, LockFile, Range};

/// How many events a log has.
pub(crate) const RECORDS: u64 = 1000;

/// How many places it has for counters.
const PLACES: u64 = 16;

/// The first bytes of a log.
const MAGIC: [u8; 16] = *b"kanban-vfs log\0\x01";

const NEWEST: u64 = 16;
const MADE: u64 = 24;
const HEADER: usize = 32;
const FIRST_RECORD: u64 = (1 + PLACES) * PLACE as u64;

/// Its length in bytes.
pub(crate) const LENGTH: u64 = FIRST_RECORD + RECORDS * RECORD as u64 + 1;

/// Where the locked bytes begin: behind the file's end, since Windows' locks keep others from
/// reading.
const LOCKS: i64 = 1 << 32;

/// How many records a process tries if others have locked them.
const TRIES: u64 = 64;

/// How often a reader looks if the log is replaced meanwhile, or a place for counters is torn.
const LOOKS: u32 = 3;

/// How many bytes must be free on the disk for an event, to leave room for SQLite's own files.
const ROOM: u64 = 1 << 20;

/// `<database>-kanban-log`
pub(crate) fn path_of(database: &Path) -> PathBuf {
    format::beside(database, EVENT_LOG_SUFFIX)
}

/// Why a log cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum NoLog {
    /// There is none: nothing was recorded yet, or no client may record.
    Missing,
    /// The file is no log, or has another length or a second name.
    Foreign,
    /// A newer version of this VFS made it.
    Newer,
    /// It is no regular file. The text says what it is.
    NotAFile(&'static str),
    /// It cannot be opened or read.
    Io(io::Error),
}

impl fmt::Display for NoLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no event log: nothing was to be recorded yet"),
            Self::Foreign => f.write_str(
                "the event log holds something else; move it away, and a new one is made when there is something to record",
            ),
            Self::Newer => f.write_str("the event log is of a newer version of this VFS; use that version's tool"),
            Self::NotAFile(what) => write!(f, "the event log is a {what}; move it away"),
            Self::Io(error) => write!(f, "cannot read the event log: {error}"),
        }
    }
}

impl error::Error for NoLog {}

/// An open log, to record something.
pub(super) struct LogFile(LockFile);

impl LogFile {
    /// The log of `database`, if there is one that can be used. The caller has a
    /// [`super::Opening`].
    pub(super) fn open(database: &Path) -> Option<Self> {
        let path = path_of(database);
        let found = sys::entry_at(&path).ok()?;
        if may_not_be_written() {
            return None;
        }
        if found.len == 0 {
            // Nothing is to be recorded yet.
            return None;
        }
        open_found(&path, &found, sys::open_to_lock).ok().map(|file| Self(LockFile::new(file)))
    }

    /// The same, with room for a record, and with the rights that the database has now. If there is
    /// no log, makes one if it may `create` it.
    pub(super) fn open_to_record(database: &Path, create: bool) -> Option<Self> {
        let path = path_of(database);
        let like = sys::entry_behind(database).ok()?.rights;
        let room = path.parent().and_then(sys::room_at);
        let has_room = room.is_none_or(|(files, bytes)| files >= 4 && bytes >= ROOM);
        if may_not_be_written() || !has_room {
            return None;
        }
        // Another process may make the log meanwhile.
        for _ in 0..3 {
            match sys::entry_at(&path) {
                Ok(found) => {
                    let file = match open_found(&path, &found, sys::open_to_lock) {
                        Ok(file) => file,
                        // Somebody deleted it, or its maker has locked it by now.
                        Err(NoLog::Missing) => continue,
                        Err(_) if found.len == 0 => continue,
                        Err(_) => return None,
                    };
                    if is_unmade(&file) {
                        make_whole(&file).ok()?;
                    }
                    if found.rights != like {
                        sys::give_rights(&file, found.rights, like);
                    }
                    return Some(Self(LockFile::new(file)));
                }
                Err(why) if why.kind() == io::ErrorKind::NotFound && create => {}
                Err(_) => return None,
            }
            let file = match sys::create_like(&path, like) {
                Ok(file) => file,
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(_) => return None,
            };
            if make_whole(&file).is_err() {
                // A file that was made only in part is of no use.
                let _ = sys::remove(&path);
                return None;
            }
            return Some(Self(LockFile::new(file)));
        }
        None
    }

    /// Writes an event in the place of the oldest one, or of another if that place is locked.
    pub(super) fn append(&self, event: &Event) {
        let file = self.0.file();
        if self.append_behind(newest(file), event) {
            return;
        }
        // A process that was stopped between its two writes may have noted an old event as the
        // newest.
        self.append_behind(last(file), event);
    }

    /// Writes an event with the first number after `newest` whose place is free. False if all
    /// places that it tried were taken, so that the caller may try again.
    fn append_behind(&self, newest: u64, event: &Event) -> bool {
        let file = self.0.file();
        let mut next = newest + 1;
        if next + TRIES > MOST_EVENTS {
            // No log has so many events: a record was forged. All others would seem older than that
            // one, so none stays.
            if sys::write_all_at(file, &vec![0; RECORDS as usize * RECORD], FIRST_RECORD).is_err() {
                return true;
            }
            next = 1;
        }
        for number in next..next + TRIES {
            let slot = number % RECORDS;
            let byte = Range { start: LOCKS + (PLACES + slot) as i64, len: 1 };
            match self.0.try_lock(byte, false) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => return true,
            }
            // Another process may have written here and unlocked the place again.
            let is_free = record(file, slot).is_none_or(|there| there.number < number);
            if is_free {
                let written = sys::write_all_at(file, &event.encode(number), at(slot));
                // Others may have recorded newer events since.
                if written.is_ok() && said(file).is_none_or(|newest| newest < number) {
                    let _ = sys::write_all_at(file, &number.to_le_bytes(), NEWEST);
                }
            }
            let _ = self.0.unlock(byte);
            if is_free {
                return true;
            }
        }
        false
    }

    /// Adds to the counters. False if all places are locked.
    pub(super) fn add(&self, counted: &Words) -> bool {
        let file = self.0.file();
        let first = u64::from(sys::pid());
        for place in (0..PLACES).map(|n| (first + n) % PLACES) {
            let byte = Range { start: LOCKS + place as i64, len: 1 };
            if !matches!(self.0.try_lock(byte, false), Ok(true)) {
                continue;
            }
            let offset = (1 + place) * PLACE as u64;
            let mut bytes = [0; PLACE];
            let added = sys::read_exact_at(file, &mut bytes, offset).and_then(|()| {
                let sum = Words::decode(&bytes).unwrap_or_default().and(counted);
                sys::write_all_at(file, &sum.encode(), offset)
            });
            let _ = self.0.unlock(byte);
            return added.is_ok();
        }
        false
    }
}

/// Whether SIGXFSZ could end this process if it wrote to the end of a log. setrlimit(2)
fn may_not_be_written() -> bool {
    sys::file_size_limit().is_some_and(|limit| limit < LENGTH as i64)
}

/// Opens what was found at `path`, if it is a log: not a database, not another program's file, and
/// not one with a second name. The answer is that it is missing if it is not there any more, if
/// another file is, or if it is being made.
fn open_found(
    path: &Path,
    found: &Entry,
    open: impl Fn(&Path) -> io::Result<File>,
) -> Result<File, NoLog> {
    if let Some(kind) = found.odd_kind {
        return Err(NoLog::NotAFile(kind));
    }
    if found.links == 0 {
        // It was deleted during lstat(2).
        return Err(NoLog::Missing);
    }
    if ![0, LENGTH].contains(&found.len) || found.links != 1 {
        return Err(NoLog::Foreign);
    }
    // It may be another program's, or this process's own, whose POSIX locks a close would drop.
    if found.len == 0 && sys::is_locked(found.inode) {
        // Clients lock a log only once it has its length, which its maker may have set meanwhile.
        let is_empty_still =
            sys::entry_at(path).is_ok_and(|now| now.inode == found.inode && now.len == 0);
        return Err(if is_empty_still { NoLog::Foreign } else { NoLog::Missing });
    }
    let file = match open(path) {
        Ok(file) => file,
        Err(why) if sys::is_absent(&why) => return Err(NoLog::Missing),
        Err(why) => return Err(NoLog::Io(why)),
    };
    let opened = sys::entry_of(&file).map_err(NoLog::Io)?;
    if opened.inode != found.inode || opened.links == 0 {
        return Err(NoLog::Missing);
    }
    if opened.links != 1 || ![0, LENGTH].contains(&opened.len) {
        return Err(NoLog::Foreign);
    }
    if opened.len == 0 {
        return Ok(file);
    }
    let mut start = [0; MAGIC.len()];
    sys::read_exact_at(&file, &mut start, 0).map_err(NoLog::Io)?;
    let is_newer = start[..15] == MAGIC[..15] && start[15] > MAGIC[15];
    match start {
        MAGIC => Ok(file),
        // As for a file of 0 bytes: it is being made, or its maker was killed.
        [0, ..] if start == [0; MAGIC.len()] => Ok(file),
        _ if is_newer => Err(NoLog::Newer),
        _ => Err(NoLog::Foreign),
    }
}

/// Whether a log has no header yet.
fn is_unmade(file: &File) -> bool {
    let mut first = [0];
    match sys::read_exact_at(file, &mut first, 0) {
        Ok(()) => first == [0],
        Err(why) => why.kind() == io::ErrorKind::UnexpectedEof,
    }
}

/// Sets the length and the header of a log that has none yet.
fn make_whole(file: &File) -> io::Result<()> {
    file.set_len(LENGTH)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(&MAGIC);
    header[MADE as usize..].copy_from_slice(&(now.as_micros() as u64).to_le_bytes());
    sys::write_all_at(file, &header, 0)
}

/// Where a record lies.
fn at(slot: u64) -> u64 {
    FIRST_RECORD + slot * RECORD as u64
}

/// The event in a record; `None` if it is not whole.
fn record(file: &File, slot: u64) -> Option<Event> {
    let mut bytes = [0; RECORD];
    sys::read_exact_at(file, &mut bytes, at(slot)).ok()?;
    Event::decode(&bytes).filter(|event| event.number % RECORDS == slot)
}

/// The number that the file notes as the newest event's, if that event is there.
fn said(file: &File) -> Option<u64> {
    let mut bytes = [0; 8];
    sys::read_exact_at(file, &mut bytes, NEWEST).ok()?;
    let said = u64_at(&bytes, 0);
    record(file, said % RECORDS).filter(|event| event.number == said).map(|_| said)
}

/// The number of the newest event, or of a somewhat older one; 0 if there is none.
fn newest(file: &File) -> u64 {
    said(file).unwrap_or_else(|| last(file))
}

/// The number of the newest event, from a look at all of them; 0 if there is none.
fn last(file: &File) -> u64 {
    let events = events(file).unwrap_or_default();
    events.into_iter().map(|event| event.number).max().unwrap_or(0)
}

/// All events that are whole, in no order.
pub(super) fn events(file: &File) -> io::Result<Vec<Event>> {
    let mut all = vec![0; RECORDS as usize * RECORD];
    sys::read_exact_at(file, &mut all, FIRST_RECORD)?;
    let records = all.chunks_exact(RECORD).filter_map(|record| record.first_chunk());
    let decoded = records.enumerate().filter_map(|(slot, record)| {
        Event::decode(record).filter(|event| event.number % RECORDS == slot as u64)
    });
    Ok(decoded.collect())
}

/// The contents of an event log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventLog {
    /// The path of the file.
    pub path: PathBuf,
    /// When it was made, in us since 1970; the counters count from then on.
    pub made_unix_us: u64,
    /// Its events, oldest first. Torn or damaged records are left out.
    pub events: Vec<Event>,
    /// What was counted.
    pub tally: Tally,
}

/// What the log of `database` holds. This takes no lock, and changes nothing.
pub(crate) fn read(database: &Path) -> Result<EventLog, NoLog> {
    let path = path_of(database);
    for _ in 0..LOOKS {
        match read_at(&path) {
            // Perhaps it is being deleted and made anew at this moment.
            Err(NoLog::Missing) if sys::entry_at(&path).is_ok_and(|found| found.len > 0) => {}
            other => return other,
        }
    }
    Err(NoLog::Missing)
}

/// What the log at `path` holds.
fn read_at(path: &Path) -> Result<EventLog, NoLog> {
    let found = match sys::entry_at(path) {
        Ok(found) => found,
        Err(why) if sys::is_absent(&why) => return Err(NoLog::Missing),
        Err(why) => return Err(NoLog::Io(why)),
    };
    if found.len == 0 && found.links == 1 && found.odd_kind.is_none() {
        return Err(NoLog::Missing);
    }
    let file = open_found(path, &found, sys::open_to_read)?;
    if is_unmade(&file) {
        return Err(NoLog::Missing);
    }
    let mut header = [0; HEADER];
    sys::read_exact_at(&file, &mut header, 0).map_err(NoLog::Io)?;
    let mut events = events(&file).map_err(NoLog::Io)?;
    events.sort_by_key(|event| event.number);
    let mut sum = Words::default();
    for place in 0..PLACES {
        sum = sum.and(&counted(&file, place).map_err(NoLog::Io)?);
    }
    let made_unix_us = u64_at(&header, MADE as usize);
    Ok(EventLog { path: path.to_owned(), made_unix_us, events, tally: sum.tally() })
}

/// The counters in a place; none if it is damaged.
fn counted(file: &File, place: u64) -> io::Result<Words> {
    for _ in 0..LOOKS {
        let mut bytes = [0; PLACE];
        sys::read_exact_at(file, &mut bytes, (1 + place) * PLACE as u64)?;
        if let Some(words) = Words::decode(&bytes) {
            return Ok(words);
        }
        // Perhaps a process is adding to it at this moment.
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Words::default())
}

/// Makes a log for `database` if there is none, so that its clients begin to count. It is for an
/// operator who wants counters.
///
/// # Errors
/// There is a log that cannot be used, or none can be made.
pub(crate) fn make(database: &Path) -> Result<(), NoLog> {
    let _opening = super::Opening::begin();
    match read(database) {
        Err(NoLog::Missing) => {}
        other => return other.map(drop),
    }
    match LogFile::open_to_record(database, true) {
        Some(_) => Ok(()),
        None => Err(NoLog::Missing),
    }
}

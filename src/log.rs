//! The lines that the VFS logs for people: each names the database, the cause and the remedy.
//!
//! | it goes to | |
//! |---|---|
//! | SQLite's error log (<https://www.sqlite.org/errlog.html>) | always; most programs cannot read it |
//! | where `KANBAN_LOG` says ([`open`]) | with the time, the process and the code; at most [`MOST`] lines in a second |
//! | `PRAGMA kanban_last_error` | the last line of that connection ([`Log::last`]) |
//! | `kanban_vfs_last_line` | the last line of that thread ([`last_of_thread`]), for an open that failed |
//!
//! # Mutex rule
//! [`STATE`] is taken last. While it is locked, this module writes nothing and calls no function of
//! SQLite.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::ffi::ResultCode;
use crate::ffi::host::Host;
use crate::sys;
use crate::sys::fork::ForkMutex;

/// How many lines of one process go to `KANBAN_LOG` in a second.
const MOST: u32 = 20;

/// The most bytes of a line. A pipe takes that many in one write, so lines stay whole. pipe(7),
/// PIPE_BUF
const LONGEST: usize = 4000;

/// The first bytes of a database, which must not become a destination for lines.
const MAGIC: &[u8] = crate::format::Header::MAGIC;

/// Where the lines go, apart from SQLite's error log.
static DESTINATION: OnceLock<Destination> = OnceLock::new();

enum Destination {
    StandardError,
    /// Opened for each line: so an operator may move it away at any time, and no descriptor stays
    /// open.
    File(PathBuf),
}

/// The connections' last lines, and how many lines were written in this second.
struct Lines {
    /// The last line of each connection that logged one.
    last: Vec<(u64, String)>,
    /// The current second, how many lines were written in it, and how many were left out since the last that was written.
    second: u64,
    written: u32,
    left_out: u32,
}

static STATE: ForkMutex<Lines> =
    ForkMutex::new(Lines { last: Vec::new(), second: 0, written: 0, left_out: 0 });

/// Whether any connection logged a line.
static HAS_LINES: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The last line that was logged on this thread.
    static OF_THREAD: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Sends the lines to `stderr`, or appends them to the file of that name. Later calls change
/// nothing.
///
/// # Errors
/// A text that says why lines cannot go there. A file that cannot be opened is no error: the lines
/// go to standard error, and the first one says why.
pub(crate) fn open(destination: &OsStr) -> Result<(), String> {
    if destination.is_empty() {
        return Err("is empty; name a file, or stderr, or unset it".to_owned());
    }
    if destination == "stderr" {
        let _ = DESTINATION.set(Destination::StandardError);
        return Ok(());
    }
    // The program may change its working directory.
    let path = std::path::absolute(destination).map_err(|why| why.to_string())?;
    let opened = sys::append(&path, b"", MAGIC);
    if opened.as_ref().is_err_and(|why| why.kind() == std::io::ErrorKind::InvalidData) {
        return Err(format!("{} is a database", path.display()));
    }
    let destination = match &opened {
        Ok(()) => Destination::File(path.clone()),
        Err(_) => Destination::StandardError,
    };
    if DESTINATION.set(destination).is_ok() {
        if let Err(why) = opened {
            write(&cannot_be_written(&path, &why.to_string()));
        }
    }
    Ok(())
}

/// Logs what concerns the whole process, to `KANBAN_LOG` only.
pub(crate) fn to_destination(what: &str) {
    write(&line(ResultCode::WARNING, what, None));
}

/// Logs a line that concerns no known file.
pub(crate) fn say(host: &Host, rc: ResultCode, what: &str) {
    host.log(rc, what);
    note(rc, what, None);
}

/// Logs a line about a file.
pub(crate) fn about(host: &Host, rc: ResultCode, what: &str, file: &Path) {
    host.log_about(rc, what, file);
    note(rc, what, Some(file));
}

/// The line that was logged last on this thread; empty if none was.
pub(crate) fn last_of_thread() -> String {
    OF_THREAD.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

/// Keeps other threads from logging until the result is dropped. The thread that forks takes this
/// lock last.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    STATE.lock()
}

/// The log of one connection, with the SQLite that the connection belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Log {
    host: Host,
    connection: u64,
    /// Whether the connection records events in the event log.
    pub(crate) records: bool,
}

impl Log {
    /// The log of the connection with that number.
    pub(crate) fn of(host: Host, connection: u64, records: bool) -> Self {
        Self { host, connection, records }
    }

    /// Logs a line about a file, and keeps it as the connection's last. It shadows
    /// [`Host::log_about`], which does only the former.
    pub(crate) fn log_about(&self, rc: ResultCode, what: &str, file: &Path) {
        self.host.log_about(rc, what, file);
        let said = note(rc, what, Some(file));
        HAS_LINES.store(true, Ordering::Relaxed);
        let last = &mut STATE.lock().last;
        match last.iter_mut().find(|(connection, _)| *connection == self.connection) {
            Some((_, known)) => *known = said,
            None => last.push((self.connection, said)),
        }
    }

    /// The connection's last line; `None` if it logged none.
    pub(crate) fn last(&self) -> Option<String> {
        let state = STATE.lock();
        let own = state.last.iter().find(|(connection, _)| *connection == self.connection);
        own.map(|(_, line)| line.clone())
    }

    /// Forgets the connection's line, since it is closed.
    pub(crate) fn close(&self) {
        if HAS_LINES.load(Ordering::Relaxed) {
            STATE.lock().last.retain(|(connection, _)| *connection != self.connection);
        }
    }
}

impl Deref for Log {
    type Target = Host;
    fn deref(&self) -> &Host {
        &self.host
    }
}

/// Notes a line for this thread and writes it. Returns the line.
fn note(rc: ResultCode, what: &str, file: Option<&Path>) -> String {
    let said = line(rc, what, file);
    let _ = OF_THREAD.try_with(|last| last.replace(said.clone()));
    write(&said);
    said
}

/// `2026-11-30T02:46:47.123456Z process 7 (python3) SQLITE_BUSY (5) /x/board.db: ...`. Characters
/// that an operator's terminal obeys, or that would end the line, are replaced.
fn line(rc: ResultCode, what: &str, file: Option<&Path>) -> String {
    let name = sys::program_name();
    let name = String::from_utf8_lossy(&name);
    let (pid, name) = (sys::pid(), name.trim_end_matches('\0'));
    let file = file.map(|file| format!(" {}", file.display())).unwrap_or_default();
    let said = format!("{} process {pid} ({name}) {rc}{file}: {what}", time(SystemTime::now()));
    let mut said = sys::printable(&said);
    if said.len() > LONGEST {
        let end = (0..=LONGEST).rfind(|at| said.is_char_boundary(*at));
        said.truncate(end.unwrap_or(0));
    }
    said
}

/// Writes a line where `KANBAN_LOG` says, unless there were too many in this second. Before
/// the next line that is written, a line says how many were left out.
fn write(said: &str) {
    let Some(destination) = DESTINATION.get() else { return };
    let left_out = {
        let second = sys::monotonic_ns() / 1_000_000_000;
        let mut state = STATE.lock();
        if state.second != second {
            (state.second, state.written) = (second, 0);
        }
        if state.written >= MOST {
            state.left_out += 1;
            return;
        }
        state.written += 1;
        std::mem::take(&mut state.left_out)
    };
    let mut text = String::new();
    if left_out > 0 {
        let what = format!("{left_out} lines were left out: {MOST} are written in a second");
        text += &line(ResultCode::WARNING, &what, None);
        text.push('\n');
    }
    text += said;
    text.push('\n');
    for line in text.split_inclusive('\n') {
        write_to(destination, line);
    }
}

/// Writes a line to a destination, or to standard error if that fails: the disk is full, the file
/// has become a database, or this process may no longer write to it. The first such line is
/// preceded by the reason.
fn write_to(destination: &Destination, text: &str) {
    if let Destination::File(path) = destination {
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        static IS_DATABASE: AtomicBool = AtomicBool::new(false);
        // A database is not opened again: each close would drop the POSIX locks of stock
        // connections to it.
        if !IS_DATABASE.load(Ordering::Relaxed) {
            let Err(why) = sys::append(path, text.as_bytes(), MAGIC) else { return };
            let is_database = why.kind() == std::io::ErrorKind::InvalidData;
            IS_DATABASE.store(is_database, Ordering::Relaxed);
            if !IS_TOLD.swap(true, Ordering::Relaxed) {
                let why = if is_database { "it is a database".to_owned() } else { why.to_string() };
                let told = cannot_be_written(path, &why) + "\n";
                let _ = sys::write_to_standard_error(told.as_bytes());
            }
        }
    }
    let _ = sys::write_to_standard_error(text.as_bytes());
}

/// The line that says why lines go to standard error.
fn cannot_be_written(path: &Path, why: &str) -> String {
    let what = format!("KANBAN_LOG cannot be written ({why}): lines go to standard error");
    line(ResultCode::WARNING, &what, Some(path))
}

/// A time in UTC by ISO 8601, to the microsecond.
fn time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March have the leap day at their end: an era is 400 of them.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = match month {
        0..=9 => (month + 3, year + era * 400),
        _ => (month - 9, year + era * 400 + 1),
    };
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let us = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_readable() {
        let at = |s: u64, ms| time(SystemTime::UNIX_EPOCH + Duration::from_millis(s * 1000 + ms));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        // date -u -d @N
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007000Z");
        assert_eq!(at(1_709_251_199, 999), "2024-02-29T23:59:59.999000Z");
        assert_eq!(at(1_796_006_807, 0), "2026-11-30T02:46:47.000000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }

    /// A file's name has an escape sequence and a newline, and is very long.
    #[test]
    fn a_line_stays_one_line() {
        let said = line(ResultCode::BUSY, "no\x1b[31m\nwait", Some(Path::new("a\nb")));
        assert!(said.ends_with(" SQLITE_BUSY (5) a?b: no?[31m?wait"), "{said}");
        let long = "ü".repeat(5000);
        let said = line(ResultCode::BUSY, "no", Some(Path::new(&long)));
        assert!(said.len() <= LONGEST && said.len() > LONGEST - 4);
    }

    #[test]
    fn what_is_no_place_for_lines_is_refused() {
        assert!(open(OsStr::new("")).is_err_and(|why| why.starts_with("is empty")));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"SQLite format 3\0 and so on").expect("it is written");
        assert!(open(file.path().as_os_str()).is_err_and(|why| why.ends_with("is a database")));
    }
}

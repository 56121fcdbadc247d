//! A board seen from outside: who holds the write lock, who waits, and what can be judged without a
//! connection.
//!
//! [`observe`] reads the sidecar, asks the kernel for its locks, and looks whether the holder's
//! process has the sidecar open. It does not open the database, the WAL or the wal-index, does not
//! wait, and creates and changes nothing. So it disturbs no client of the database, in this process
//! or another, and answers even when the board is stuck. `docs/locking-protocol.md` describes what
//! it reads.
//!
//! [`Observation::survey`] looks into all processes, by proc(5): which of them have the database
//! open, and which have SQLite's locks. `Observation::wal` opens and reads the wal-index.
//!
//! Windows does not list locks. There `observe` tries the locks of waiters, and that of a holder
//! that was killed. It takes them as shared locks, for a moment, as the VFS itself does
//! (`docs/windows.md`).
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("board.db");
//! # kanban_vfs::register(&kanban_vfs::Options::default())?;
//! # let board = rusqlite::Connection::open(format!("file:{}?vfs=kanban", path.display()))?;
//! # board.execute_batch("CREATE TABLE tasks (title TEXT); BEGIN IMMEDIATE")?;
//! let seen = kanban_vfs::observe(&path)?;
//! let holder = seen.holder.expect("this process has begun a transaction");
//! assert_eq!(holder.pid, std::process::id());
//! assert!(seen.queue.is_empty());
//! # Ok(())
//! # }
//! ```

mod clients;
#[cfg(unix)]
mod contents;
mod locks;
mod processes;
mod survey;
#[cfg(unix)]
mod wal;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::format::{self, JOURNAL_SUFFIX, SIDECAR_SUFFIX, WAL_INDEX_SUFFIX, WAL_SUFFIX};
use crate::guard::filesystem;
use crate::guard::identity::Displaced;
use crate::guard::mount;
use crate::lock::holder::{self, Purpose, WRITE_RANGE};
use crate::lock::page::{self, Page};
use crate::lock::queue::{in_order, slot_range};
use crate::lock::sidecar::{self, Content, FOREIGN, Unusable};
use crate::recorder;
use crate::sys::{self, LockFile, Name};

pub use crate::recorder::event::{Cause, Event, EventKind, Outcome, Process};
pub use crate::recorder::file::{EventLog, NoLog};
pub use crate::recorder::tally::{Durations, Tally};
pub use clients::{Client, ClientVfs};
#[cfg(unix)]
pub use contents::{Problem, examine};
pub use locks::{LockName, SqliteLock};
pub use processes::{ProcessInfo, ProcessState};
pub use survey::Survey;
#[cfg(unix)]
pub use wal::{Reader, Wal, WalSize};

/// A database as an outsider sees it at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Observation {
    /// The database's path without symbolic links.
    pub database: PathBuf,
    /// The path of its sidecar, whether or not there is one.
    pub sidecar: PathBuf,
    /// What the file at that path is.
    pub sidecar_state: SidecarState,
    /// The holder of the write lock.
    pub holder: Option<Holder>,
    /// Whether another program has locked the bytes of the write lock, which keeps out all writers
    /// of this VFS. Always false on Windows, which does not tell.
    pub is_locked_by_a_stranger: bool,
    /// The waiters for the write lock in the queue, the next one first. Stock clients are not in
    /// the queue. A connection whose own busy handler sleeps without the VFS is in it only at times.
    pub queue: Vec<Waiter>,
    /// The waiters for SQLite's own lock, the longest wait first: a stock client has that lock, or
    /// readers are in the way. The list has only waits in this VFS of 10 ms or more, and only as
    /// many as the queue page has room for. They are served in no order.
    pub sqlite_waiters: Vec<Waiter>,
    /// How large its files are.
    pub sizes: Sizes,
    /// How many hard links the database has.
    pub hard_links: u64,
    /// Where its file system is mounted, and the name of that file system's type, if the system
    /// tells.
    pub mount: Option<(PathBuf, String)>,
    /// The guarantees of `PRAGMA kanban_status`, by their names there.
    pub guarantees: Vec<Guarantee>,
    /// The holder, as its kernel lock describes it.
    by_the_lock: Option<holder::Holder>,
}

/// The sidecar of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SidecarState {
    /// There is none: no client that writes has the database open, or none has written yet.
    Absent,
    /// It is a valid sidecar.
    Page,
    /// It is empty, too short or zeroed. The next writer completes it.
    Unseeded,
    /// It holds something else, or another program has locked it. The VFS does not touch it:
    /// writers go on without a write lock.
    Foreign,
    /// It cannot be used, with the reason and the remedy. If this process has fewer rights than the
    /// writers, that may be true for this process only.
    Unusable(String),
}

/// The holder of the write lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id, in its own pid namespace. It is for people to read; programs must not rely
    /// on it.
    pub pid: u32,
    /// The name of the program that has this process id here, if this process may know it.
    pub program: Option<String>,
    /// How long it has held the lock, to the ms. It is wrong if the holder is in another time namespace.
    pub held: Duration,
    /// Whether it holds the lock for a checkpoint or a recovery rather than a transaction.
    pub is_upkeep: bool,
    /// Whether no process here has that id, or only one that began later or does not have the
    /// sidecar open. Then a child inherited the lock and keeps it, or the holder is in another pid
    /// namespace. [`Observation::survey`] looks for the child.
    pub is_gone: bool,
}

/// A waiter for the write lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// The name of its program, or the first 12 bytes of the name, as the waiter itself wrote it.
    pub program: String,
    /// How long it has waited, to the ms. It is wrong if the waiter is in another time namespace.
    pub waited: Duration,
    /// Whether it waits to checkpoint or recover rather than for a transaction.
    pub is_upkeep: bool,
    /// Whether it has the turn. Until it uses the turn, or the turn expires, later clients are
    /// refused.
    pub has_turn: bool,
    /// Whether it has missed its turn, for example because it is stopped, and is passed over.
    pub is_away: bool,
    /// Its slot on the page.
    slot: usize,
}

/// The sizes of a database's files in bytes; `None` for a file that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// The database.
    pub database: u64,
    /// The WAL, `-wal`.
    pub wal: Option<u64>,
    /// The wal-index, `-shm`.
    pub wal_index: Option<u64>,
    /// The rollback journal, `-journal`. If there is no writer, the journal is hot, and the next
    /// client rolls it back (<https://www.sqlite.org/lockingv3.html#hot_journals>).
    pub journal: Option<u64>,
    /// The sidecar, `-lock`.
    pub sidecar: Option<u64>,
}

/// A guarantee of `PRAGMA kanban_status`, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantee {
    /// Its name in `PRAGMA kanban_status`.
    pub name: &'static str,
    /// Whether it holds.
    pub judgement: Judgement,
}

/// Whether a guarantee holds, as far as an outsider can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It holds, for clients of this VFS.
    Active,
    /// It does not hold, and why.
    Inactive(String),
    /// An outsider cannot tell, and why.
    Unknown(String),
}

/// Why a database cannot be observed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ObserveError {
    /// There is nothing by that name.
    Missing,
    /// It is not a regular file, but this kind of file.
    NotAFile(&'static str),
    /// This user may not look there.
    Denied(io::Error),
    /// A system call failed.
    Io(io::Error),
}

impl fmt::Display for ObserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::NotAFile(what) => write!(f, "it is a {what}, and no file"),
            Self::Denied(error) if error.get_ref().is_some() => {
                write!(f, "this user may not look there: {error}")
            }
            Self::Denied(_) => f.write_str("this user may not look there: permission denied"),
            Self::Io(error) => write!(f, "cannot look at it: {error}"),
        }
    }
}

impl std::error::Error for ObserveError {}

impl From<io::Error> for ObserveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied(error),
            _ if sys::is_absent(&error) => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

/// How long to look, at most, whether the holder's process has the sidecar open.
const LOOKS_FOR: Duration = Duration::from_millis(100);

/// Looks at the database at `path` from outside. It does not wait, creates nothing, and opens only
/// the sidecar, for reading.
///
/// # Errors
/// There is no such file, it is not a regular file, or this process may not look at it. A sidecar
/// that cannot be read is no error, but a [`SidecarState`].
pub fn observe(path: impl AsRef<Path>) -> Result<Observation, ObserveError> {
    // This is the name that xFullPathname returns: it resolves links and opens nothing.
    let database = sys::canonical(path.as_ref())?;
    if let Some(kind) = sys::entry_at(&database)?.odd_kind {
        return Err(ObserveError::NotAFile(kind));
    }
    let length = database.symlink_metadata()?.len();
    let name = Name::new(database.as_os_str()).ok_or(ObserveError::Missing)?;
    let mut seen = Observation {
        sidecar: sidecar::path_of(&database),
        sidecar_state: SidecarState::Absent,
        holder: None,
        is_locked_by_a_stranger: false,
        queue: Vec::new(),
        sqlite_waiters: Vec::new(),
        sizes: sizes(&database, length),
        hard_links: sys::stat(&name)?.links,
        mount: sys::mount_of(&database).map(|(point, kind)| (point.into(), kind)),
        guarantees: Vec::new(),
        by_the_lock: None,
        database,
    };
    let mut is_denied = false;
    let database = seen.database.clone();
    match sidecar::look_at(&database, |file| seen.look_into(file)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            seen.sidecar_state = SidecarState::Unusable(format!("cannot read it: {error}"));
        }
        Err(Unusable::Missing) => {}
        Err(Unusable::Foreign) => seen.sidecar_state = SidecarState::Foreign,
        Err(why) => {
            is_denied = matches!(&why, Unusable::Open(error, _)
                if error.kind() == io::ErrorKind::PermissionDenied);
            seen.sidecar_state = SidecarState::Unusable(why.to_string());
        }
    }
    seen.clear_innocent();
    seen.guarantees = seen.judge(is_denied);
    Ok(seen)
}

impl Observation {
    /// Reads the event log of the database. It takes no lock, and opens only the log, for reading.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn event_log(&self) -> Result<EventLog, NoLog> {
        recorder::file::read(&self.database)
    }

    /// Creates the event log of the database if there is none, with the database's permissions.
    /// From then on its clients count for [`Tally`]. Without this call they create the log when
    /// there is an event to record.
    ///
    /// # Errors
    /// Another program's file is in its place, or this process cannot create it.
    pub fn make_event_log(&self) -> Result<(), NoLog> {
        recorder::file::make(&self.database)
    }

    /// The processes that have the database open or have one of SQLite's locks on it, and the
    /// processes of the holder and the waiters. It looks into other processes by proc(5), for at
    /// most `limit`, as far as this user may. On systems without proc(5) it finds none. It opens no
    /// file of the database, and does not wait.
    #[must_use]
    pub fn survey(&self, limit: Duration) -> Survey {
        Survey::of(self, limit)
    }

    /// The state of the WAL, from the wal-index; `None` if no client uses a wal-index. It takes no
    /// lock.
    ///
    /// It opens and closes the wal-index, which drops the POSIX locks of this process on it
    /// (<https://www.sqlite.org/howtocorrupt.html> 2.2). So call it in a process that does not have the database open.
    ///
    /// # Errors
    /// The wal-index cannot be opened or read.
    #[cfg(unix)]
    pub fn wal(&self) -> io::Result<Option<Wal>> {
        Wal::of(&self.database)
    }

    /// Reads the sidecar, and asks the kernel for its locks.
    fn look_into(&mut self, locks: &LockFile) -> io::Result<()> {
        let file = locks.file();
        self.sidecar_state = match sidecar::content_of(file, file.metadata()?.len())? {
            Content::Foreign => SidecarState::Foreign,
            Content::Page => SidecarState::Page,
            Content::Unseeded => SidecarState::Unseeded,
            Content::Older => SidecarState::Unusable(Unusable::Older.to_string()),
            Content::Newer => SidecarState::Unusable(Unusable::Newer.to_string()),
        };
        let has_page = self.sidecar_state == SidecarState::Page;
        if let Some(range) = sidecar::in_the_way(locks, WRITE_RANGE, || has_page)? {
            let holder = holder::Holder::from_range(range);
            self.is_locked_by_a_stranger = sys::KERNEL_TELLS_RANGES && holder.is_none();
            self.by_the_lock = holder;
            self.holder = holder.map(|holder| {
                let is_gone = sys::is_gone(holder.pid, holder.held());
                Holder {
                    pid: holder.pid,
                    program: sys::program_of(holder.pid).filter(|_| !is_gone),
                    held: holder.held(),
                    is_upkeep: holder.purpose == Purpose::Upkeep,
                    is_gone,
                }
            });
        }
        if !has_page {
            return Ok(());
        }
        let page = Page::read(|into, at| sys::read_exact_at(file, into, at))?;
        let now = sys::shared_ns();
        let turn = page.turn().filter(|turn| turn.binds(now));
        let is_alive =
            |waiter: &page::Waiter| !matches!(locks.conflicting(slot_range(waiter.slot)), Ok(None));
        let waits =
            |waiter: &page::Waiter| waiter.state != page::SlotState::Refused && is_alive(waiter);
        let described = |waiter: page::Waiter| Waiter {
            pid: waiter.pid,
            program: sys::printable(
                String::from_utf8_lossy(&waiter.program).trim_end_matches('\0'),
            ),
            waited: waiter.since.ago(now).unwrap_or_default(),
            is_upkeep: waiter.purpose == Purpose::Upkeep,
            has_turn: turn.is_some_and(|turn| turn.is_for(waiter.slot, waiter.ticket)),
            is_away: waiter.state == page::SlotState::Away,
            slot: waiter.slot,
        };
        self.queue = in_order(&page, waits).into_iter().map(described).collect();
        self.sqlite_waiters = page.outside().filter(is_alive).map(described).collect();
        self.sqlite_waiters.sort_by_key(|waiter| std::cmp::Reverse(waiter.waited));
        Ok(())
    }

    /// Clears the holder's process if it cannot be the holder: another process may have the
    /// holder's id here. Called after the sidecar was closed, so that this process has it open only
    /// if it is a client. pid_namespaces(7)
    fn clear_innocent(&mut self) {
        let Some(holder) = &mut self.holder else { return };
        let Ok(sidecar) = sys::entry_at(&self.sidecar) else { return };
        if sys::has_open(holder.pid, sidecar.inode, LOOKS_FOR) == Some(false) {
            (holder.is_gone, holder.program) = (true, None);
        }
    }

    /// Judges each guarantee. `is_denied`: this user may not read the sidecar, but writers may.
    fn judge(&self, is_denied: bool) -> Vec<Guarantee> {
        let connection =
            || Judgement::Unknown("each connection's own: see its PRAGMA kanban_status".to_owned());
        let write_lock = match (&self.sidecar_state, mount::refusal(&self.database)) {
            (_, Some(why)) => Judgement::Inactive(format!("the database {why}")),
            (SidecarState::Unusable(why), _) if is_denied => Judgement::Unknown(why.clone()),
            (SidecarState::Unusable(why), _) => Judgement::Inactive(why.clone()),
            (SidecarState::Foreign, _) => Judgement::Inactive(FOREIGN.to_owned()),
            _ => Judgement::Active,
        };
        let identity = match self.hard_links {
            1 => Judgement::Unknown(
                "it has one hard link; whether all connections have these very files open, each \
                 knows of its own"
                    .to_owned(),
            ),
            links => Judgement::Inactive(Displaced::Linked(links).to_string()),
        };
        let length = "not known without a look into the database".to_owned();
        [
            ("write_lock", write_lock.clone()),
            ("first_connect", write_lock.clone()),
            ("queue_page", write_lock),
            ("lock_cancellation", connection()),
            ("wal_reset", connection()),
            ("file_length", Judgement::Unknown(length)),
            ("fork", connection()),
            ("identity", identity),
            ("wal_in_use", connection()),
            ("wal_file_system", file_system(&self.database)),
            ("journal", connection()),
            ("synchronous", connection()),
        ]
        .map(|(name, judgement)| Guarantee { name, judgement })
        .into()
    }
}

/// The sizes of a database's files.
fn sizes(database: &Path, length: u64) -> Sizes {
    let size_of =
        |suffix| format::beside(database, suffix).symlink_metadata().ok().map(|found| found.len());
    Sizes {
        database: length,
        wal: size_of(WAL_SUFFIX),
        wal_index: size_of(WAL_INDEX_SUFFIX),
        journal: size_of(JOURNAL_SUFFIX),
        sidecar: size_of(SIDECAR_SUFFIX),
    }
}

/// Whether WAL mode is refused where it is not safe: the guarantee `wal_file_system`.
fn file_system(database: &Path) -> Judgement {
    // The test whether openers share a file would create one.
    let refusal = |shares| filesystem::wal_refusal(database, || shares);
    match (refusal(true), refusal(false)) {
        (Some(why), _) => Judgement::Inactive(why),
        (None, Some(_)) => Judgement::Unknown(
            "it depends on what this file system can do, which a client tries when it opens the \
             database"
                .to_owned(),
        ),
        (None, None) => Judgement::Active,
    }
}

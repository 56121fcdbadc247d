//! What the base VFS did to a board's files, in order.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::{
    SQLITE_OPEN_CREATE, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_NLOCK, SQLITE_SHM_UNLOCK,
};

use super::Lie;
use crate::base::{Base, Call, Fault, File, Method};

/// A file, whatever its name: a file that is deleted and created again is another one.
pub(super) type FileId = usize;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// An empty file of that name was created.
    Create(PathBuf, FileId),
    /// The name was removed from the directory.
    Delete(PathBuf),
    Write(FileId, u64, Vec<u8>),
    Truncate(FileId, u64),
    /// Everything done to the file so far is on the disk.
    Sync(FileId, File),
    /// Everything done to the directory so far is on the disk.
    SyncDirectory,
    /// A lock was asked for or released, or a file was closed.
    Lock,
    /// Transaction n, which would leave this content (a digest), is about to be committed.
    Attempt(u32, u64),
    /// SQLite has reported that transaction n is committed.
    Acknowledged(u32),
}

impl Event {
    /// Whether this event changes what may be on the disk.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Create(..) | Self::Delete(_) | Self::Write(..) | Self::Truncate(..))
    }
}

/// When something happens relative to a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before it is recorded.
    Before,
    /// After it is recorded, and before it is made.
    Recorded,
}

/// The log of all calls that the connections of one directory make through a base.
#[derive(Clone)]
pub(super) struct Recorder(Arc<Mutex<Log>>);

struct Log {
    directory: PathBuf,
    lie: Option<Lie>,
    events: Vec<Event>,
    files: usize,
    names: HashMap<PathBuf, FileId>,
    /// The length of each file when all recorded calls have been made.
    lengths: HashMap<FileId, u64>,
    handles: HashMap<usize, FileId>,
    /// The handles whose first sync also syncs the directory, as `unixOpen` decides: the unix VFS does so for journals and
    /// WALs that it may create, and not for databases.
    directory_syncs: HashSet<usize>,
}

impl Recorder {
    /// Records from now on, in a directory that has these files, numbered from 0. `meanwhile` is called before and after
    /// each call is recorded, with no lock held.
    pub(super) fn start(
        base: Base,
        directory: &Path,
        files: impl IntoIterator<Item = PathBuf>,
        lie: Option<Lie>,
        meanwhile: impl Fn(&Call<'_>, When) + Send + Sync + 'static,
    ) -> Self {
        let names: HashMap<_, _> = files.into_iter().zip(0..).collect();
        let length = |name: &PathBuf| name.metadata().map_or(0, |file| file.len());
        let recorder = Self(Arc::new(Mutex::new(Log {
            directory: directory.to_owned(),
            lie,
            events: Vec::new(),
            files: names.len(),
            lengths: names.iter().map(|(name, file)| (*file, length(name))).collect(),
            names,
            handles: HashMap::new(),
            directory_syncs: HashSet::new(),
        })));
        let log = recorder.clone();
        base.on(move |call| {
            meanwhile(call, When::Before);
            let fault = log.log().record(call);
            meanwhile(call, When::Recorded);
            fault
        });
        recorder
    }

    pub(super) fn note(&self, event: Event) {
        self.log().events.push(event);
    }

    /// Takes the events that were recorded so far.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.log().events)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Records a call. Calls are made, and are assumed to succeed: `Disk::matches` finds it if one did not.
    fn record(&mut self, call: &Call<'_>) -> Fault {
        // Temporary files have no name, and nobody needs them after a power cut.
        if call.file == File::Other || !call.path.starts_with(&self.directory) {
            return Fault::None;
        }
        let (name, handle) = (call.path.to_owned(), call.handle());
        let file = || self.handles[&handle];
        match call.method {
            Method::Open { flags } => {
                let creates = flags & SQLITE_OPEN_CREATE != 0;
                if !self.names.contains_key(&name) {
                    if !creates {
                        return Fault::None;
                    }
                    self.names.insert(name.clone(), self.files);
                    self.events.push(Event::Create(name.clone(), self.files));
                    self.files += 1;
                }
                self.handles.insert(handle, self.names[&name]);
                if creates && call.file != File::Main {
                    self.directory_syncs.insert(handle);
                }
            }
            Method::Close => {
                self.handles.remove(&handle);
                self.directory_syncs.remove(&handle);
                self.events.push(Event::Lock);
            }
            Method::Delete { sync } => {
                if self.names.remove(&name).is_none() {
                    return Fault::None;
                }
                self.events.push(Event::Delete(name));
                if sync && self.lie != Some(Lie::Directory) {
                    self.events.push(Event::SyncDirectory);
                }
            }
            Method::Write { offset, bytes } => {
                let (file, offset) = (file(), offset as u64);
                self.events.push(Event::Write(file, offset, bytes.to_owned()));
                let length = self.lengths.entry(file).or_default();
                *length = (*length).max(offset + bytes.len() as u64);
            }
            Method::Truncate { size } => self.truncated(file(), size as u64),
            Method::Sync { .. } => {
                if self.lie.is_some_and(|lie| lie.is_about(call.file)) {
                    return Fault::Pretend;
                }
                self.events.push(Event::Sync(file(), call.file));
                if self.directory_syncs.remove(&handle) && self.lie != Some(Lie::Directory) {
                    self.events.push(Event::SyncDirectory);
                }
            }
            Method::Lock { .. } | Method::Unlock { .. } => self.events.push(Event::Lock),
            Method::ShmLock { slot, n, flags } => {
                let unlocks_exclusive = flags == SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
                if unlocks_exclusive && (slot, n) == (0, SQLITE_SHM_NLOCK) {
                    self.look_at_wal(&name);
                }
                self.events.push(Event::Lock);
            }
            _ => {}
        }
        Fault::None
    }

    fn truncated(&mut self, file: FileId, size: u64) {
        self.lengths.insert(file, size);
        self.events.push(Event::Truncate(file, size));
    }

    /// `kanban` itself empties the WAL, without the base, when the last connection closes. Meanwhile it has all slots of
    /// the wal-index locked exclusively, and then it unlocks them. Only at that moment is a WAL that is shorter than the
    /// calls say a truncation. At other times another thread may have recorded a write that it has not made yet.
    fn look_at_wal(&mut self, database: &Path) {
        let mut name = database.as_os_str().to_owned();
        name.push("-wal");
        let Some(file) = self.names.get(Path::new(&name)).copied() else { return };
        let by_calls = self.lengths.get(&file).copied().unwrap_or(0);
        match Path::new(&name).metadata() {
            Ok(wal) if wal.len() < by_calls => self.truncated(file, wal.len()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::Board;
    use crate::power_loss::disk::Disk;

    /// Whether the events truncate a file and lead to the present contents of the files.
    fn truncates(events: &[Event]) -> bool {
        let mut disk = Disk::default();
        events.iter().for_each(|event| disk.apply(event));
        assert!(disk.matches(), "the record is not what happened");
        events.iter().any(|event| matches!(event, Event::Truncate(..)))
    }

    fn open(board: &Board, vfs: &str) -> Connection {
        let connection = Connection::open(board.uri(vfs)).expect("it opens");
        connection.execute_batch("PRAGMA journal_mode=wal").expect("nobody else is there");
        connection
    }

    /// A writer has recorded the write of a frame, but not made it yet. A reader then locks and unlocks its slot of the
    /// wal-index, and finds a WAL that is shorter than the record says: nothing has truncated it.
    #[test]
    fn a_write_that_is_still_to_be_made_is_no_truncation() {
        let base = Base::register("recorder-write");
        let board = Board::new();
        let reader: Arc<Mutex<Option<Connection>>> = Arc::default();
        let reads = Arc::clone(&reader);
        let recorder = Recorder::start(base, &board.directory(), [], None, move |call, when| {
            let is_frame = call.file == File::Wal && matches!(call.method, Method::Write { .. });
            if !is_frame || when != When::Recorded {
                return;
            }
            if let Some(reader) = &*reads.lock().expect("no panic") {
                reader.query_row("SELECT count(*) FROM t", [], |_| Ok(())).expect("it reads");
            }
        });
        let writer = open(&board, "recorder-write");
        writer.execute_batch("CREATE TABLE t (x)").expect("nobody else writes");
        *reader.lock().expect("no panic") = Some(open(&board, "recorder-write"));
        writer.execute_batch("INSERT INTO t VALUES (zeroblob(9000))").expect("nobody else writes");
        let events = recorder.take();
        assert!(events.iter().any(|event| matches!(event, Event::Lock)));
        assert!(!truncates(&events));
        base.off();
    }

    /// The last connection closes, and its WAL is to stay: `kanban` empties the WAL without a call of the base.
    #[test]
    fn a_wal_that_is_emptied_beside_the_calls_is_a_truncation() {
        let base = Base::register("recorder-close");
        let options = kanban_vfs::Options::default();
        let over = options.with_name("kanban-over-recorder-close").with_base("recorder-close");
        kanban_vfs::register(&over).expect("it registers");
        let board = Board::new();
        let recorder = Recorder::start(base, &board.directory(), [], None, |_, _| {});
        let writer = open(&board, "kanban-over-recorder-close&kanban_persist_wal=1");
        writer.execute_batch("CREATE TABLE t (x)").expect("nobody else writes");
        drop(writer);
        base.off();
        assert!(truncates(&recorder.take()));
    }
}

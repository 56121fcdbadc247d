//! What the base VFS did to a board's files, in order.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::SQLITE_OPEN_CREATE;

use super::Lie;
use crate::base::{Base, Call, Fault, File, Method};

/// A file, whatever its name: one that is deleted and created again is another.
pub(super) type FileId = usize;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A file of that name, empty, was created.
    Create(PathBuf, FileId),
    /// The name was taken out of the directory.
    Delete(PathBuf),
    Write(FileId, u64, Vec<u8>),
    Truncate(FileId, u64),
    /// All that was done to the file until now is on the disk.
    Sync(FileId, File),
    /// So is all that was done to the directory.
    SyncDirectory,
    /// A lock was asked for, or given back, or a file was closed.
    Lock,
    /// Transaction n, which would leave this content (a digest), is about to be committed.
    Attempt(u32, u64),
    /// SQLite has said that it is committed.
    Acknowledged(u32),
}

impl Event {
    /// Whether it changes what may be on the disk.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Create(..) | Self::Delete(_) | Self::Write(..) | Self::Truncate(..))
    }
}

/// When something happens beside a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before it is recorded.
    Before,
    /// After that, and before it is made.
    Recorded,
}

/// The log of all that the connections of one directory do through a base.
#[derive(Clone)]
pub(super) struct Recorder(Arc<Mutex<Log>>);

struct Log {
    directory: PathBuf,
    lie: Option<Lie>,
    events: Vec<Event>,
    files: usize,
    names: HashMap<PathBuf, FileId>,
    /// How long each file is, by the calls.
    lengths: HashMap<FileId, u64>,
    handles: HashMap<usize, FileId>,
    /// Those whose first sync is to sync the directory, as `unixOpen` has it: the unix VFS does so
    /// for journals and WALs that it may create, and not for databases.
    directory_syncs: HashSet<usize>,
}

impl Recorder {
    /// Records from now on, in a directory that has these files, numbered from 0. `meanwhile` is called
    /// before each call is recorded, and after each, without anything held.
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

    /// What was recorded until now; it is taken out.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.log().events)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// The calls are made, and succeed: `Disk::matches` finds it if one did not.
    fn record(&mut self, call: &Call<'_>) -> Fault {
        // Temporary files have no name, and are of no use after a power cut.
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
            Method::ShmLock { .. } => {
                self.look_at_wal(&name);
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

    /// `kanban` itself empties the WAL, not by the base, when the last connection closes, and unlocks
    /// the wal-index then.
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

//! The databases that this process has open: one object for each file, whatever its names.

mod open_sidecar;
mod owner;
#[cfg(all(test, unix))]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::holder::Holder;
use super::keepers::{self, Lockers, NamedProcess, Whereabouts};
use super::page::Waiter;
use super::queue::{Pace, Purpose, Queue, Taken};
use super::sidecar::{self, Sidecar};
use crate::counters::Counters;
use crate::ffi::ResultCode;
use crate::log::Log;
use crate::recorder::event::{Event, EventKind};
use crate::recorder::{self, Recorder};
use crate::sys::fork::{ForkMutex, Own};
use crate::sys::{self, Directory, Inode};

use open_sidecar::OpenSidecar;
use owner::OwnerFlag;
pub(super) use owner::Ownership;

/// What makes two names the same database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum DatabaseKey {
    /// Both names lead to this file.
    Inode(Inode),
    /// The name itself: a base VFS may not keep its databases in files.
    Name(PathBuf),
}

type Registry = HashMap<DatabaseKey, Weak<Database>>;

/// Every open database. A database leaves the map when its last connection closes. Held while a sidecar is opened or
/// deleted, and across fork(2), so that a child knows of every descriptor.
static REGISTRY: ForkMutex<Option<Registry>> = ForkMutex::new(None);

/// The longest time to look into other processes for the one that has a lock.
const LOOKS_FOR: Duration = Duration::from_millis(100);

/// A database that this process has open.
pub(crate) struct Database {
    key: DatabaseKey,
    /// As the first connection named it: canonical, if the base VFS makes it so.
    path: PathBuf,
    /// The directory that it and its sidecar lie in.
    directory: Option<Arc<Directory>>,
    /// The connection of this process that has the write lock.
    pub(super) owner: OwnerFlag,
    pub(super) sidecar: OpenSidecar,
    /// The `sqlite3` that uses each connection: the connection's number and the address of the
    /// `sqlite3`. Mutex rule: no other lock is taken while it is held.
    users: Mutex<Vec<(u64, usize)>>,
    /// Whether a connection was opened that may write.
    has_writer: AtomicBool,
    /// How many times a connection of this process has learned that a kind of transaction writes.
    learned: AtomicU32,
    /// Empty in a child of the process that opened it.
    own: Own<()>,
    pub(crate) counters: Counters,
    pub(crate) recorder: Recorder,
    /// Data of another room: [`Self::attached`].
    attached: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Database {
    /// The database at `path`, which exists.
    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Arc<Self> {
        Self::of(path, None)
    }

    /// The database at `path`, which exists; `known` is its inode and directory, if the caller has just looked them up.
    pub(crate) fn of(path: &Path, known: Option<(Inode, Arc<Directory>)>) -> Arc<Self> {
        let (inode, directory) = known.unzip();
        let inode = inode.or_else(|| sys::entry_at(path).ok().map(|found| found.inode));
        let key = inode.map_or_else(|| DatabaseKey::Name(path.to_owned()), DatabaseKey::Inode);
        let mut registry = REGISTRY.lock();
        let registry = registry.get_or_insert_default();
        if let Some(known) = registry.get(&key).and_then(Weak::upgrade) {
            // The object may have been leaked, and its descriptors closed.
            known.sidecar.check_soon();
            return known;
        }
        let database = Arc::new(Self {
            key: key.clone(),
            path: path.to_owned(),
            directory: directory.or_else(|| path.parent().and_then(sys::directory_at)),
            owner: OwnerFlag::default(),
            sidecar: OpenSidecar::new(),
            users: Mutex::default(),
            has_writer: AtomicBool::new(false),
            learned: AtomicU32::new(0),
            own: Own::new(()),
            counters: Counters::default(),
            recorder: Recorder::of(path),
            attached: OnceLock::new(),
        });
        registry.insert(key, Arc::downgrade(&database));
        database
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Data that one other room keeps for this database in this process. The first call creates it;
    /// only that room calls.
    pub(crate) fn attached<T: Default + Send + Sync + 'static>(&self) -> &T {
        let attached = self.attached.get_or_init(|| Box::<T>::default());
        attached.downcast_ref().expect("one room asks, for one type")
    }

    pub(crate) fn sidecar_path(&self) -> PathBuf {
        sidecar::path_of(&self.path)
    }

    /// Notes that a connection was opened that may write. Otherwise the last connection to close
    /// does not delete the sidecar.
    pub(crate) fn note_writer(&self) {
        self.has_writer.store(true, Ordering::Relaxed);
    }

    /// Notes that a connection has learned that a kind of transaction writes. Call this when the page says so.
    pub(super) fn note_learned(&self) {
        self.learned.fetch_add(1, Ordering::Release);
    }

    /// A number that changes when a connection of this process learns that a kind of transaction writes. Ask for it before a
    /// look at the page: if it is still the same later, no connection has learned anything since.
    pub(crate) fn learned(&self) -> u32 {
        self.learned.load(Ordering::Acquire)
    }

    /// Notes which `sqlite3` uses a connection.
    pub(super) fn note_user(&self, connection: u64, user: usize) {
        self.forget_user(connection);
        self.users.lock().push((connection, user));
    }

    /// A connection closes.
    pub(super) fn forget_user(&self, connection: u64) {
        self.users.lock().retain(|(known, _)| *known != connection);
    }

    /// The queues of the other databases whose write lock this `sqlite3` has, as far as that can be
    /// known without waiting.
    pub(crate) fn held_beside(&self, user: usize) -> Vec<Arc<Queue<Sidecar>>> {
        let is_held = |other: &&Arc<Self>| {
            let owner = (other.owner.connection(), user);
            other.users.lock().contains(&owner)
        };
        self.others().iter().filter(is_held).filter_map(|other| other.queue()).collect()
    }

    /// Whether this `sqlite3` may yet wait for another database, as far as that can be known without waiting: it uses one that
    /// a connection of this process may write, and does not have its write lock.
    pub(crate) fn has_others_beside(&self, user: usize) -> bool {
        let may_wait_for = |other: &Arc<Self>| {
            let owner = other.owner.connection();
            other.has_writer.load(Ordering::Relaxed)
                && other.users.lock().iter().any(|(id, known)| *known == user && *id != owner)
        };
        self.others().iter().any(may_wait_for)
    }

    /// The other databases of this process; none if that cannot be known without waiting.
    fn others(&self) -> Vec<Arc<Self>> {
        // A thread that opens or deletes a sidecar under this mutex may wait for the file system:
        // do not wait with it.
        let mut others: Vec<_> = match REGISTRY.try_lock().as_deref() {
            Some(Some(registry)) if registry.len() > 1 => {
                registry.values().filter_map(Weak::upgrade).collect()
            }
            _ => return Vec::new(),
        };
        // Without the registry's mutex: the last reference may be dropped here.
        others.retain(|other| !std::ptr::eq(&raw const **other, self));
        others
    }

    /// Releases the write lock of this process's owner. `pace` is as for [`Queue::release`].
    #[inline(always)]
    pub(super) fn release(&self, queue: &Queue<Sidecar>, taken: Taken, pace: Option<&mut Pace>) {
        let owner = Ownership(self);
        if queue.release(taken, pace, || drop(owner)).is_err() {
            // The owner flag is free by now: another connection may use this queue, or have
            // replaced it.
            self.sidecar.close();
        }
    }

    /// The answer of [`Queue::held_for`], and also for how long a checkpoint of this process has held the lock.
    pub(crate) fn held_for(&self) -> Option<(Purpose, Duration)> {
        if let Some(held) = self.owner.upkeep() {
            return Some((Purpose::Upkeep, held));
        }
        self.queue()?.held_for()
    }

    /// Whether a connection of this process has the write lock, or tries for it.
    pub(crate) fn is_held_here(&self) -> bool {
        self.owner.is_taken()
    }

    /// Whether any connection of any process has the write lock.
    pub(crate) fn is_held(&self) -> bool {
        self.queue().is_some_and(|queue| !queue.is_free())
    }

    /// The holder of the write lock, and whether it is a connection of this process. Too slow for
    /// the path to a lock: for status questions only.
    pub(crate) fn holder(&self) -> Option<(Holder, bool)> {
        self.own.get()?;
        let holder = Holder::from_range(sidecar::held_range(&self.path)?)?;
        Some((holder, self.owner.is_taken() && holder.pid == sys::pid()))
    }

    /// Logs a line about the database to a connection's log, and to the event log.
    pub(crate) fn tell(&self, log: &Log, kind: EventKind, rc: ResultCode, what: &str) {
        log.log_about(rc, what, &self.path);
        self.record_message(log, kind, rc, what);
    }

    /// Records an event in the event log only.
    pub(crate) fn record_message(&self, log: &Log, kind: EventKind, rc: ResultCode, what: &str) {
        if log.records {
            let event =
                Event { code: rc.0, message: Some(what.to_owned()), ..recorder::ended(kind) };
            self.recorder.record(event, true, &self.counters);
        }
    }

    /// [`Self::holder`], but by this process's open sidecar, with one system call.
    pub(crate) fn holder_by_sidecar(&self) -> Option<(Holder, bool)> {
        if self.owner.is_taken() {
            return Some((Holder::since(sys::monotonic_ns(), Purpose::Write), true));
        }
        Some((self.queue()?.holder()?, false))
    }

    /// Whether the process that has the holder's id in this pid namespace is the holder, as far as can be told. Looks at what
    /// that process has open, for at most [`LOOKS_FOR`].
    pub(crate) fn is_to_be_seen(&self, (holder, ours): (Holder, bool)) -> bool {
        let sidecar = self.queue().map(|queue| queue.sidecar().inode());
        sidecar.is_none_or(|sidecar| holder.is_to_be_seen(sidecar, ours, LOOKS_FOR))
    }

    /// The process of a holder. Without its program if that cannot be seen.
    pub(crate) fn process_of(&self, holder: (Holder, bool)) -> NamedProcess {
        let pid = holder.0.pid;
        if self.is_to_be_seen(holder) {
            NamedProcess::of(pid)
        } else {
            NamedProcess { pid, program: None }
        }
    }

    /// Where a holder is, and if it is gone, which processes keep its lock. Looks into other processes for at most
    /// [`LOOKS_FOR`].
    pub(crate) fn whereabouts(&self, (holder, ours): (Holder, bool)) -> Whereabouts {
        keepers::of(&self.path, holder, ours, LOOKS_FOR)
    }

    /// The processes that have SQLite's own write lock; `None` if none is found. Without `is_anybody`, only those that have
    /// it as an OFD lock, which children inherit. Looks into other processes for at most [`LOOKS_FOR`].
    pub(crate) fn sqlite_lockers(&self, is_anybody: bool) -> Option<Lockers> {
        self.own.get()?;
        let found = keepers::of_sqlite(&self.path, !is_anybody, LOOKS_FOR);
        (!found.processes.is_empty()).then_some(found)
    }

    /// The waiters of all processes, in order.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        self.queue().map(|queue| queue.waiters()).unwrap_or_default()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.own.get().is_none() {
            return;
        }
        self.recorder.close(&self.counters);
        // No thread forks until the sidecar is closed.
        let mut registry = REGISTRY.lock();
        if let Some(queue) = self.sidecar.take() {
            if *self.has_writer.get_mut() {
                queue.sidecar().delete(&self.path);
            }
        }
        let Some(registry) = registry.as_mut() else { return };
        // Another connection may have opened the database as a new object.
        if registry.get(&self.key).is_some_and(|known| known.strong_count() == 0) {
            registry.remove(&self.key);
        }
    }
}

/// Keeps other threads from opening databases and sidecars until the result is dropped. Called before fork(2).
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    (REGISTRY.lock(), sidecar::hold_for_fork())
}

/// Closes the sidecars that a forked child inherited and forgets their databases, so that what the child opens is its
/// own. Called in the child, before it opens anything.
#[cfg(unix)]
pub(crate) fn abandon_inherited() {
    let inherited = REGISTRY.lock().take();
    for database in inherited.into_iter().flatten().filter_map(|(_, known)| known.upgrade()) {
        database.sidecar.close_inherited();
    }
}

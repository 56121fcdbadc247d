//! The databases this process has open: one object per file, whatever its names, and the write
//! lock on it.

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::holder::Holder;
use super::keepers::{self, Lockers};
use super::page::Waiter;
use super::queue::{Pace, Place, Purpose, Queue, Taken, Until};
use super::sidecar::{self, Sidecar, Unusable};
use crate::counters::Counters;
use crate::sys::fork::{self, ForkMutex, Own};
use crate::sys::{self, Directory, Inode};

/// What makes two names the same database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    /// By what it is.
    Inode(Inode),
    /// By its name alone: a base VFS that keeps its databases elsewhere than in files.
    Name(PathBuf),
}

type Registry = HashMap<Identity, Weak<Database>>;

/// Every open database. The map is emptied of a database when its last connection closes.
static REGISTRY: ForkMutex<Option<Registry>> = ForkMutex::new(None);

/// A database that this process has open.
pub(crate) struct Database {
    identity: Identity,
    /// As the first connection named it: canonical, if the base VFS makes it so.
    path: PathBuf,
    /// The one that it lies in.
    directory: Option<Arc<Directory>>,
    /// The connection of this process that has the write lock, or is trying for it, and whether for
    /// upkeep; 0 for none.
    owner: AtomicU64,
    /// Since when it does upkeep, in ns of CLOCK_MONOTONIC.
    upkeep_since: AtomicU64,
    /// Opened by the first writer. Mutex rule: only the owner replaces it; others at most look.
    sidecar: Mutex<Option<Arc<Queue<Sidecar>>>>,
    /// The sidecar's descriptor for a forked child, which can not wait for the mutex; -1 for none.
    descriptor: AtomicI32,
    /// The file it is of. Changed while no thread forks.
    descriptor_of: Mutex<Option<Inode>>,
    /// When its place is to be checked, in ns of CLOCK_MONOTONIC.
    check: AtomicU64,
    /// Until when there is no use in trying for a sidecar, in ns of CLOCK_MONOTONIC; 0 if there may be one.
    rests: AtomicU64,
    trouble: Mutex<Trouble>,
    /// Whether a connection was opened that may write.
    writes: AtomicBool,
    /// Whether this process opened it, or a parent of it.
    own: Own<()>,
    pub(crate) counters: Counters,
    /// What another room keeps for it: [`Self::attached`].
    attached: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// What is wrong with a sidecar. Mutex rule: held for no system call.
#[derive(Default)]
struct Trouble {
    /// Why there was none when it was last tried for.
    why: Option<String>,
    /// What the log was told.
    said: Option<String>,
}

/// Why the write lock was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Somebody has it.
    Busy,
    /// There is no sidecar to lock, and this is the first attempt for a while that has found out.
    Unusable(Unusable),
    /// The same, and it is not tried again yet.
    Without,
    /// The connection was opened before a fork, by the parent.
    Inherited,
}

/// For how long a sidecar is taken to be in its place. A sidecar that was deleted splits the
/// write lock in two, of which SQLite's own locks make one again, so that only the queue suffers.
/// In ns.
const CHECK_AFTER_NS: u64 = 1_000_000_000;

/// For how long it is looked into other processes, to name one.
const LOOK: Duration = Duration::from_millis(100);

/// After how long a sidecar that could not be used is tried for again, in ns.
const TRY_AGAIN_NS: u64 = 1_000_000_000;
/// The same, if somebody was deleting it.
const IS_MOVING_NS: u64 = 50_000_000;

/// The owner does upkeep.
const UPKEEP: u64 = 1 << 63;

/// By how much whoever does all a service comes earlier in the queue, in ns.
const ADVANCE_NS: u64 = 1_000_000_000;

impl Database {
    /// The database at `path`, which exists.
    pub(crate) fn at(path: &Path) -> Arc<Self> {
        let identity = match sys::entry_at(path) {
            Ok(found) => Identity::Inode(found.inode),
            Err(_) => Identity::Name(path.to_owned()),
        };
        let mut registry = REGISTRY.lock();
        let registry = registry.get_or_insert_default();
        if let Some(known) = registry.get(&identity).and_then(Weak::upgrade) {
            // It may be one that was leaked, and its descriptors closed.
            known.check.store(0, Ordering::Relaxed);
            return known;
        }
        let database = Arc::new(Self {
            identity: identity.clone(),
            path: path.to_owned(),
            directory: path.parent().and_then(sys::directory_at),
            owner: AtomicU64::new(0),
            upkeep_since: AtomicU64::new(0),
            sidecar: Mutex::new(None),
            descriptor: AtomicI32::new(-1),
            descriptor_of: Mutex::new(None),
            check: AtomicU64::new(0),
            rests: AtomicU64::new(0),
            trouble: Mutex::default(),
            writes: AtomicBool::new(false),
            own: Own::new(()),
            counters: Counters::default(),
            attached: OnceLock::new(),
        });
        registry.insert(identity, Arc::downgrade(&database));
        database
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the one room that asks for it keeps for this database in this process, made at the first call.
    pub(crate) fn attached<T: Default + Send + Sync + 'static>(&self) -> &T {
        let attached = self.attached.get_or_init(|| Box::<T>::default());
        attached.downcast_ref().expect("one room asks, for one type")
    }

    pub(crate) fn sidecar_path(&self) -> PathBuf {
        sidecar::path_of(&self.path)
    }

    /// The sidecar, opened if it is not, and anew if it is no longer in its place.
    #[inline]
    fn open_sidecar(&self, now: u64, create: bool) -> Result<Arc<Queue<Sidecar>>, Unusable> {
        let opened = if self.is_due(now) { None } else { self.sidecar.lock().clone() };
        match opened {
            Some(queue) => Ok(queue),
            None => self.open_or_check(now, create),
        }
    }

    #[cold]
    fn open_or_check(&self, now: u64, create: bool) -> Result<Arc<Queue<Sidecar>>, Unusable> {
        let mut slot = self.sidecar.lock();
        if self.is_due(now) {
            self.check.store(now + CHECK_AFTER_NS, Ordering::Relaxed);
            self.forget_if_replaced(&mut slot);
        }
        match slot.as_ref() {
            Some(queue) => Ok(Arc::clone(queue)),
            None => self.keep(&mut slot, now, create),
        }
    }

    /// Whether its place is to be checked.
    #[inline]
    fn is_due(&self, now: u64) -> bool {
        now > self.check.load(Ordering::Relaxed)
    }

    /// Opens the sidecar while no thread forks, so that a child knows of every descriptor.
    fn keep(
        &self,
        slot: &mut Option<Arc<Queue<Sidecar>>>,
        now: u64,
        create: bool,
    ) -> Result<Arc<Queue<Sidecar>>, Unusable> {
        let registry = REGISTRY.lock();
        let sidecar =
            Sidecar::open(&self.path, create).inspect_err(|why| self.is_without(why, now))?;
        self.descriptor.store(sidecar.descriptor(), Ordering::Relaxed);
        *self.descriptor_of.lock() = Some(sidecar.inode());
        drop(registry);
        self.rests.store(0, Ordering::Relaxed);
        *self.trouble.lock() = Trouble::default();
        let queue = Arc::new(Queue::new(sidecar, true));
        *slot = Some(Arc::clone(&queue));
        Ok(queue)
    }

    /// Notes why there is no sidecar.
    fn is_without(&self, why: &Unusable, now: u64) {
        let rest = match why {
            Unusable::Missing => return,
            Unusable::Moving => IS_MOVING_NS,
            _ => TRY_AGAIN_NS,
        };
        self.rests.store(now + rest, Ordering::Relaxed);
        if why.lasts() {
            self.trouble.lock().why = Some(why.to_string());
        }
    }

    /// Whether there is no use in trying for a sidecar now. If there may be again, it is true for all who
    /// ask but one, who is to try.
    #[inline(always)]
    fn rests(&self, now: u64) -> bool {
        match self.rests.load(Ordering::Relaxed) {
            0 => false,
            until => self.rests_on(until, now),
        }
    }

    #[cold]
    fn rests_on(&self, until: u64, now: u64) -> bool {
        let (next, relaxed) = (now + TRY_AGAIN_NS, Ordering::Relaxed);
        now < until || self.rests.compare_exchange(until, next, relaxed, relaxed).is_err()
    }

    /// What the log is to be told of a sidecar that can not be used: once, as long as it is the same.
    pub(crate) fn news(&self, why: &Unusable) -> Option<String> {
        let why = Some(why.to_string()).filter(|_| why.lasts())?;
        let mut trouble = self.trouble.lock();
        (trouble.said.replace(why.clone()).as_ref() != Some(&why)).then_some(why)
    }

    /// A connection was opened that may write.
    pub(crate) fn may_be_written(&self) {
        self.writes.store(true, Ordering::Relaxed);
    }

    /// Gives back what its owner has. `pace` as for [`Queue::release`].
    #[inline(always)]
    fn give_back(&self, queue: &Queue<Sidecar>, taken: Taken, pace: Option<&mut Pace>) {
        let owner = Owner(self);
        if queue.release(taken, pace, || drop(owner)).is_err() {
            self.close_sidecar();
        }
    }

    /// Gives up a sidecar that is no longer in its place.
    fn forget_if_replaced(&self, slot: &mut Option<Arc<Queue<Sidecar>>>) {
        let is_gone = |sidecar: &Sidecar| {
            let within = |directory: &Arc<Directory>| sidecar.is_within(directory, &self.path);
            !sidecar.is_in_place(&self.path) && !self.directory.as_ref().is_some_and(within)
        };
        if slot.as_ref().is_some_and(|queue| is_gone(queue.sidecar())) {
            self.descriptor.store(-1, Ordering::Relaxed);
            *slot = None;
            self.counters.sidecars_replaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The kernel has failed, and perhaps left a lock behind. Closing the description, when the last
    /// waiter has left it, frees its locks too.
    fn close_sidecar(&self) {
        self.descriptor.store(-1, Ordering::Relaxed);
        *self.sidecar.lock() = None;
    }

    /// The queue of the sidecar, if there is one. Creates none.
    pub(crate) fn queue(&self) -> Option<Arc<Queue<Sidecar>>> {
        self.own.get()?;
        let mut slot = self.sidecar.lock();
        if let Some(queue) = slot.as_ref() {
            return Some(Arc::clone(queue));
        }
        let now = sys::monotonic_ns();
        if now < self.rests.load(Ordering::Relaxed) {
            return None;
        }
        self.keep(&mut slot, now, false).ok()
    }

    /// As [`Queue::purpose`].
    pub(crate) fn purpose(&self) -> Option<(Purpose, Duration)> {
        if self.owner.load(Ordering::Acquire) & UPKEEP != 0 {
            let since = self.upkeep_since.load(Ordering::Relaxed);
            let held = sys::monotonic_ns().saturating_sub(since);
            return Some((Purpose::Upkeep, Duration::from_nanos(held)));
        }
        self.queue()?.purpose()
    }

    /// Whether anybody has the write lock.
    pub(crate) fn is_held(&self) -> bool {
        self.queue().is_some_and(|queue| !queue.is_free())
    }

    /// Who has the write lock: a connection of this process, or another process. An explicit
    /// question, not asked on the way to a lock.
    pub(crate) fn holder(&self) -> Option<(Holder, bool)> {
        self.own.get()?;
        let holder = Holder::from_range(sidecar::held_range(&self.path)?)?;
        Some((holder, self.owner.load(Ordering::Relaxed) != 0 && holder.pid == sys::pid()))
    }

    /// Who keeps the write lock of a holder that is gone; `None` if it is not gone. Looks into other
    /// processes, for at most so long.
    pub(crate) fn keepers(&self, holder: Holder) -> Option<Lockers> {
        keepers::of(&self.path, holder, LOOK)
    }

    /// Who has SQLite's own write lock: as [`Self::keepers`]. Unless it `is_anybody`, only if somebody has it by
    /// an open file description, as those do who inherited it.
    pub(crate) fn sqlite_lockers(&self, is_anybody: bool) -> Option<Lockers> {
        self.own.get()?;
        let found = keepers::of_sqlite(&self.path, !is_anybody, LOOK);
        (!found.processes.is_empty()).then_some(found)
    }

    /// Who waits for the write lock, in any process, in order.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        self.queue().map(|queue| queue.waiters()).unwrap_or_default()
    }

    /// Why there can be no write lock, if there can not.
    pub(crate) fn obstacle(&self) -> Option<String> {
        self.own.get()?;
        if self.sidecar.lock().is_some() {
            return None;
        }
        let why = self.trouble.lock().why.clone();
        why.or_else(|| sidecar::obstacle(&self.path).map(|why| why.to_string()))
    }
}

#[cfg(test)]
impl Database {
    /// Makes the sidecar, as the first writer does.
    pub(crate) fn make_sidecar(self: &Arc<Self>) {
        let mut lock = WriteLock::of(self, 1);
        lock.try_acquire(sys::monotonic_ns(), Purpose::Write, true, None).expect("it is free");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.own.get().is_none() {
            return;
        }
        let mut registry = REGISTRY.lock();
        // While no thread forks, as in [`Self::keep`].
        if let Some(queue) = self.sidecar.get_mut().take() {
            if self.writes.load(Ordering::Relaxed) {
                queue.sidecar().delete(&self.path);
            }
        }
        let Some(registry) = registry.as_mut() else { return };
        // By now another connection may have opened the database as a new object.
        if registry.get(&self.identity).is_some_and(|known| known.strong_count() == 0) {
            registry.remove(&self.identity);
        }
    }
}

/// The right to try for the write lock among the connections of this process.
struct Owner<'d>(&'d Database);

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        self.0.owner.store(0, Ordering::Release);
    }
}

/// The write lock of one database, as one of its connections takes it and gives it back. Dropping this
/// gives it back.
pub(crate) struct WriteLock {
    database: Arc<Database>,
    /// The connection's number among those of this process, not 0.
    connection: u64,
    held: Option<Held>,
    /// How the connection has used it to write, and how it uses it for upkeep.
    pace: Pace,
    upkeep: Pace,
    /// Of the process that opened the connection.
    generation: u64,
}

/// What its holder has.
struct Held {
    queue: Arc<Queue<Sidecar>>,
    taken: Taken,
    purpose: Purpose,
}

impl WriteLock {
    /// That of `database`, for a connection of that number, which does not have it.
    pub(crate) fn of(database: &Arc<Database>, connection: u64) -> Self {
        Self {
            database: Arc::clone(database),
            connection,
            held: None,
            pace: Pace::default(),
            upkeep: Pace::default(),
            generation: fork::generation(),
        }
    }

    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes it, or says why not. Never waits. `now` is of [`sys::monotonic_ns`]; `place` is the
    /// connection's in the queue, if it has one. Makes a sidecar only if it may `create` one.
    #[inline(always)]
    pub(crate) fn try_acquire(
        &mut self,
        now: u64,
        purpose: Purpose,
        create: bool,
        place: Option<&Place>,
    ) -> Result<(), Refused> {
        if self.generation != fork::generation() {
            return Err(Refused::Inherited);
        }
        let database = &*self.database;
        if database.rests(now) {
            return Err(Refused::Without);
        }
        let (pace, upkeep) = match purpose {
            Purpose::Write => (&mut self.pace, 0),
            Purpose::Upkeep => {
                self.upkeep = Pace::default();
                // Before it shows; if another does upkeep, that only looks younger.
                database.upkeep_since.store(now, Ordering::Relaxed);
                (&mut self.upkeep, UPKEEP)
            }
        };
        let owner = self.connection | upkeep;
        if database.owner.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(Refused::Busy);
        }
        // From here on, dropping it makes the database free again.
        let owner = Owner(database);
        let queue = database.open_sidecar(now, create).map_err(Refused::Unusable)?;
        let taken = queue.try_acquire(now, purpose, place, pace).map_err(|error| {
            database.close_sidecar();
            let why = Unusable::Lock(error);
            database.is_without(&why, now);
            Refused::Unusable(why)
        })?;
        let taken = taken.ok_or(Refused::Busy)?;
        std::mem::forget(owner);
        database.counters.acquired.fetch_add(1, Ordering::Relaxed);
        self.held = Some(Held { queue, taken, purpose });
        Ok(())
    }

    /// As [`Self::try_acquire`], but waits at most `limit`, before all others.
    pub(crate) fn acquire_soon(
        &mut self,
        purpose: Purpose,
        limit: Duration,
    ) -> Result<(), Refused> {
        let before_all = sys::monotonic_ns().saturating_sub(ADVANCE_NS);
        self.acquire_within(limit, before_all, purpose)
    }

    /// As [`Self::try_acquire`], but waits at most `limit`, in the queue as if since `since`, in ns.
    pub(crate) fn acquire_within(
        &mut self,
        limit: Duration,
        since: u64,
        purpose: Purpose,
    ) -> Result<(), Refused> {
        let mut queue = self.database.queue().ok_or(Refused::Busy)?;
        let mut place = queue.join(since, purpose);
        let began = Instant::now();
        let mut acquired = Err(Refused::Busy);
        while let (Err(Refused::Busy), Some(left)) = (&acquired, limit.checked_sub(began.elapsed()))
        {
            let is_worth_trying = match &mut place {
                Some(place) => queue.wait(place, left, Until::Sign),
                None => queue.poll(left, Until::Sign),
            };
            if !is_worth_trying {
                break;
            }
            acquired = self.try_acquire(sys::monotonic_ns(), purpose, false, place.as_ref());
            let now = self.database.queue().filter(|now| !Arc::ptr_eq(now, &queue));
            if let (Err(Refused::Busy), Some(now)) = (&acquired, now) {
                // The sidecar was replaced.
                place.take().inspect(|place| queue.leave(place));
                place = now.join(since, purpose);
                queue = now;
            }
        }
        if let Some(place) = place {
            queue.leave(&place);
        }
        acquired
    }

    /// Gives it back, if it is held. Whether it was.
    #[inline(always)]
    pub(crate) fn release(&mut self) -> bool {
        if self.generation != fork::generation() {
            return self.forget();
        }
        let Some(Held { queue, taken, purpose }) = self.held.take() else { return false };
        let pace = match purpose {
            Purpose::Write => &mut self.pace,
            Purpose::Upkeep => &mut self.upkeep,
        };
        self.database.give_back(&queue, taken, Some(pace));
        true
    }

    /// Gives it back: SQLite's own lock was refused to its holder, which only a stock client or a
    /// split write lock can explain. So nobody is told, and if the sidecar is no longer in its place,
    /// the next attempt opens it anew.
    pub(crate) fn was_in_vain(&mut self) {
        if self.generation != fork::generation() {
            self.forget();
        }
        if self.is_held() {
            self.database.forget_if_replaced(&mut self.database.sidecar.lock());
        }
        if let Some(Held { queue, taken, .. }) = self.held.take() {
            self.database.give_back(&queue, taken, None);
        }
    }

    /// Gives it back, if it is held, for good: whoever waits is called, however it was used.
    pub(crate) fn close(&mut self) {
        (self.pace, self.upkeep) = (Pace::default(), Pace::default());
        self.release();
    }

    /// In a child of the process that opened the connection: what is held is its parent's.
    #[cold]
    fn forget(&mut self) -> bool {
        std::mem::forget(self.held.take());
        false
    }

    /// How the connection has used it to write.
    #[inline]
    pub(crate) fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        self.close();
    }
}

/// Keeps other threads from opening databases until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    REGISTRY.lock()
}

/// In a forked child: closes the sidecars it inherited and forgets their databases, so that what
/// the child opens itself is its own.
#[cfg(unix)]
pub(crate) fn abandon_inherited() {
    let inherited = REGISTRY.lock().take();
    for database in inherited.into_iter().flatten().filter_map(|(_, known)| known.upgrade()) {
        let descriptor = database.descriptor.swap(-1, Ordering::Relaxed);
        let inode = *database.descriptor_of.lock();
        if let Some(inode) = inode.filter(|_| descriptor >= 0) {
            sys::close_inherited(descriptor, inode);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn board(directory: &tempfile::TempDir) -> Arc<Database> {
        let path = directory.path().join("board.db");
        std::fs::File::options().create(true).append(true).open(&path).expect("a file");
        Database::at(&path)
    }

    fn take(database: &Arc<Database>, connection: u64) -> Result<WriteLock, Refused> {
        take_for(Purpose::Write, database, connection)
    }

    fn take_for(
        purpose: Purpose,
        database: &Arc<Database>,
        connection: u64,
    ) -> Result<WriteLock, Refused> {
        let mut lock = WriteLock::of(database, connection);
        lock.try_acquire(sys::monotonic_ns(), purpose, true, None).map(|()| lock)
    }

    /// However a holder ends, another connection of its process has the lock next, and another process, too.
    #[test]
    fn the_lock_is_given_back_however_its_holder_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = board(&directory);
        let ends: [fn(WriteLock); 3] =
            [drop, |mut lock| lock.was_in_vain(), |mut lock| assert!(lock.release())];
        for end in ends {
            let lock = take(&database, 1).expect("it is free");
            assert!(matches!(take(&database, 2), Err(Refused::Busy)));
            assert!(sidecar::held_range(database.path()).is_some() && database.is_held());
            let (holder, is_ours) = database.holder().expect("there is one");
            assert!(is_ours && holder.pid == sys::pid());
            end(lock);
            assert!(sidecar::held_range(database.path()).is_none() && !database.is_held());
            assert!(database.holder().is_none());
        }
        assert!(take(&database, 2).is_ok());
    }

    /// A child of fork(2) has the connection of its parent: it takes nothing by it, and whatever it does with
    /// it, its parent keeps what it has.
    #[test]
    fn what_a_parent_has_taken_is_not_given_back() {
        /// What is forgotten stays reachable.
        static KEPT: Mutex<Vec<Arc<Queue<Sidecar>>>> = Mutex::new(Vec::new());
        let ends: [fn(WriteLock); 4] = [
            drop,
            |mut lock| lock.close(),
            |mut lock| lock.was_in_vain(),
            |mut lock| assert!(!lock.release()),
        ];
        for end in ends {
            let directory = tempfile::tempdir().expect("a directory");
            let database = board(&directory);
            let mut lock = take(&database, 1).expect("it is free");
            let queue = database.queue().expect("it is open");
            KEPT.lock().push(Arc::clone(&queue));
            let owners = Arc::strong_count(&queue);
            lock.generation += 1;
            let now = sys::monotonic_ns();
            assert!(matches!(
                lock.try_acquire(now, Purpose::Write, true, None),
                Err(Refused::Inherited)
            ));
            end(lock);
            assert!(sidecar::held_range(database.path()).is_some() && database.is_held());
            assert_eq!(Arc::strong_count(&queue), owners, "the last would close it");
        }
    }

    /// All connections of this process to one file meet in one object, as long as there is one.
    #[test]
    fn a_file_is_one_database_by_all_its_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = board(&directory);
        let second = directory.path().join("second.db");
        std::fs::hard_link(database.path(), &second).expect("a link");
        assert!(Arc::ptr_eq(&database, &Database::at(&second)));
        let path = database.path().to_owned();
        assert!(Arc::ptr_eq(&database, &Database::at(&path)));
        let identity = database.identity.clone();
        let is_known = || REGISTRY.lock().as_ref().is_some_and(|all| all.contains_key(&identity));
        assert!(is_known());
        drop(database);
        assert!(!is_known(), "it is forgotten with the last");
        assert_eq!(Database::at(&second).path(), second, "made anew");
    }

    /// What a forked child closes is the sidecar that is open, and nothing if none is.
    #[test]
    fn a_child_is_told_of_the_sidecar_that_is_open() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = board(&directory);
        let told = || database.descriptor.load(Ordering::Relaxed);
        let opened = || database.queue().map(|queue| queue.sidecar().descriptor());
        assert_eq!(told(), -1);
        drop(take(&database, 1).expect("it is free"));
        assert!(told() >= 0 && Some(told()) == opened());
        database.forget_if_replaced(&mut database.sidecar.lock());
        assert!(Some(told()) == opened(), "it is in its place");
        std::fs::remove_file(database.sidecar_path()).expect("it is there");
        database.forget_if_replaced(&mut database.sidecar.lock());
        assert_eq!(told(), -1);
        assert_eq!(database.counters.sidecars_replaced.load(Ordering::Relaxed), 1);
        drop(take(&database, 1).expect("it is made anew"));
        assert!(told() >= 0 && Some(told()) == opened());
        database.close_sidecar();
        assert_eq!(told(), -1);
    }

    /// A checkpoint has the write lock, or a writer: others of this process and of another can tell, as the
    /// one makes nobody's snapshot stale.
    #[test]
    fn upkeep_is_told_from_a_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = board(&directory);
        drop(take(&database, 1).expect("it is free"));
        let elsewhere = Sidecar::open(database.path(), false).expect("it was made");
        let elsewhere = Queue::new(elsewhere, true);
        for purpose in [Purpose::Upkeep, Purpose::Write] {
            let lock = take_for(purpose, &database, 1).expect("it is free");
            let told = elsewhere.purpose().map(|(purpose, _)| purpose);
            assert_eq!(told, Some(purpose));
            let told = database.purpose().map(|(purpose, _)| purpose);
            assert_eq!(told, Some(purpose));
            drop(lock);
            assert!(elsewhere.purpose().is_none() && database.purpose().is_none());
        }
    }

    /// Somebody deletes the sidecar: the next writer that looks, a second later at the latest, makes it anew.
    #[test]
    fn a_sidecar_that_is_gone_is_seen_a_second_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = board(&directory);
        for (check, replaced) in [(u64::MAX, 0), (0, 1)] {
            drop(take(&database, 1).expect("it is free"));
            std::fs::remove_file(database.sidecar_path()).expect("it is there");
            database.check.store(check, Ordering::Relaxed);
            drop(take(&database, 1).expect("it is free"));
            assert_eq!(database.counters.sidecars_replaced.load(Ordering::Relaxed), replaced);
            assert_eq!(database.sidecar_path().exists(), replaced > 0);
            if replaced == 0 {
                std::fs::write(database.sidecar_path(), "").expect("a file");
            }
        }
    }
}

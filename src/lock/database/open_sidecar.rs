//! The sidecar of a database, as this process has it open.
//!
//! The first writer opens it, and all connections of the process share it. Once a second a writer
//! checks whether its path still leads to it. A deleted sidecar splits the write lock in two. But
//! SQLite's own locks still exclude writers, so only the queue suffers.
//!
//! If it cannot be used, writers go on without it and one of them tries again a second later.

#[cfg(all(test, unix))]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Database, REGISTRY};
use crate::lock::queue::Queue;
use crate::lock::sidecar::{self, Sidecar, Unusable};
use crate::sys::{self, Directory, Inode};

/// For how long a sidecar is taken to be in its place, in ns.
const CHECK_AFTER_NS: u64 = 1_000_000_000;
/// After how long a sidecar that could not be used is tried again, in ns.
const RETRY_AFTER_NS: u64 = 1_000_000_000;
/// After how long it is tried again if another process was deleting it, in ns.
const RETRY_MOVING_AFTER_NS: u64 = 50_000_000;

/// The queue of a sidecar, while that is open.
type OpenQueue = Option<Arc<Queue<Sidecar>>>;

/// The sidecar's queue, or why it cannot be used.
type Opened = Result<Arc<Queue<Sidecar>>, Unusable>;

/// A database's sidecar, open or not.
pub(crate) struct OpenSidecar {
    /// Mutex rule: a queue is replaced only by the owner of the owner flag, or by a connection that
    /// has just released that flag and failed to release the lock. Others look, or open a queue
    /// where there is none.
    queue: Mutex<OpenQueue>,
    /// Its descriptor, for a forked child, which cannot wait for the mutex; -1 for none.
    descriptor: AtomicI32,
    /// The file of that descriptor. Mutex rule: changed only while no thread forks, so that a child
    /// can lock it.
    descriptor_of: Mutex<Option<Inode>>,
    /// When to look whether it is in its place, in ns of CLOCK_MONOTONIC.
    next_check: AtomicU64,
    /// When to try to open it again, in ns of CLOCK_MONOTONIC; 0 if it could be used, or was not
    /// tried.
    retry_at: AtomicU64,
    /// Mutex rule: no system call is made while it is held.
    trouble: Mutex<Trouble>,
}

/// What is wrong with a sidecar.
#[derive(Default)]
struct Trouble {
    /// Why the last attempt found no usable sidecar.
    why: Option<String>,
    /// The reason that was logged last.
    reported: Option<String>,
}

impl OpenSidecar {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::new(None),
            descriptor: AtomicI32::new(-1),
            descriptor_of: Mutex::new(None),
            next_check: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    fn is_check_due(&self, now: u64) -> bool {
        now > self.next_check.load(Ordering::Relaxed)
    }

    /// Makes the next writer check whether it is in its place.
    pub(super) fn check_soon(&self) {
        self.next_check.store(0, Ordering::Relaxed);
    }

    /// Closes the sidecar: the kernel failed, and may have left a lock behind. Once the last waiter has left the
    /// queue, the description is closed, which also releases its locks.
    pub(crate) fn close(&self) {
        self.clear(&mut self.queue.lock());
    }

    fn clear(&self, open: &mut OpenQueue) {
        self.descriptor.store(-1, Ordering::Relaxed);
        *open = None;
    }

    /// Takes the queue out: the last connection of this process closes.
    pub(super) fn take(&mut self) -> OpenQueue {
        self.queue.get_mut().take()
    }

    /// Closes the descriptor that a forked child has inherited, by its number. The child cannot wait for the
    /// mutex of the queue, which a thread of its parent may have held. Called in the child.
    #[cfg(unix)]
    pub(super) fn close_inherited(&self) {
        let descriptor = self.descriptor.swap(-1, Ordering::Relaxed);
        let inode = *self.descriptor_of.lock();
        if let Some(inode) = inode.filter(|_| descriptor >= 0) {
            sys::close_inherited(descriptor, inode);
        }
    }

    /// Notes at `now` why there is no sidecar, so that it is not tried again at once.
    pub(crate) fn note_trouble(&self, why: &Unusable, now: u64) {
        let rest = match why {
            Unusable::Missing => return,
            Unusable::Moving => RETRY_MOVING_AFTER_NS,
            _ => RETRY_AFTER_NS,
        };
        self.retry_at.store(now + rest, Ordering::Relaxed);
        if why.lasts() {
            self.trouble.lock().why = Some(why.to_string());
        }
    }

    /// Whether the caller uses the sidecar at `now`, or tries to open it. If it could not be used,
    /// one caller makes the next attempt when that is due, and all others go on without a sidecar.
    #[inline(always)]
    pub(crate) fn claims_try(&self, now: u64) -> bool {
        let retry_at = self.retry_at.load(Ordering::Relaxed);
        retry_at == 0 || self.claims_retry(retry_at, now)
    }

    #[cold]
    fn claims_retry(&self, retry_at: u64, now: u64) -> bool {
        let (next, relaxed) = (now + RETRY_AFTER_NS, Ordering::Relaxed);
        now >= retry_at && self.retry_at.compare_exchange(retry_at, next, relaxed, relaxed).is_ok()
    }
}

// Methods of the database, since they need its path, directory and counters.
impl Database {
    /// The queue of the sidecar. Opens the sidecar if it is not open, and again if it is no longer in its place.
    pub(crate) fn checked_queue(&self, now: u64, create: bool) -> Opened {
        let sidecar = &self.sidecar;
        let is_due = sidecar.is_check_due(now);
        let opened = if is_due { None } else { sidecar.queue.lock().clone() };
        match opened {
            Some(queue) => Ok(queue),
            None => self.check_or_open(now, create),
        }
    }

    #[cold]
    fn check_or_open(&self, now: u64, create: bool) -> Opened {
        let mut open = self.sidecar.queue.lock();
        if self.sidecar.is_check_due(now) {
            self.sidecar.next_check.store(now + CHECK_AFTER_NS, Ordering::Relaxed);
            self.close_if_replaced(&mut open);
        }
        match open.as_ref() {
            Some(queue) => Ok(Arc::clone(queue)),
            None => self.open_sidecar(&mut open, now, create),
        }
    }

    /// The queue of the sidecar. Opens the sidecar if there is one, but does not create it. `None` in a child of
    /// the process that opened the database.
    pub(crate) fn queue(&self) -> Option<Arc<Queue<Sidecar>>> {
        self.own.get()?;
        let mut open = self.sidecar.queue.lock();
        if let Some(queue) = open.as_ref() {
            return Some(Arc::clone(queue));
        }
        let now = sys::monotonic_ns();
        if now < self.sidecar.retry_at.load(Ordering::Relaxed) {
            return None;
        }
        self.open_sidecar(&mut open, now, false).ok()
    }

    /// Opens the sidecar while no thread forks, so that a child knows of every descriptor.
    fn open_sidecar(&self, open: &mut OpenQueue, now: u64, create: bool) -> Opened {
        let registry = REGISTRY.lock();
        let sidecar = Sidecar::open(&self.path, create)
            .inspect_err(|why| self.sidecar.note_trouble(why, now))?;
        self.sidecar.descriptor.store(sidecar.descriptor(), Ordering::Relaxed);
        *self.sidecar.descriptor_of.lock() = Some(sidecar.inode());
        drop(registry);
        self.sidecar.retry_at.store(0, Ordering::Relaxed);
        *self.sidecar.trouble.lock() = Trouble::default();
        let queue = Arc::new(Queue::new(sidecar));
        *open = Some(Arc::clone(&queue));
        Ok(queue)
    }

    /// Closes a sidecar that is no longer in its place.
    pub(crate) fn close_sidecar_if_replaced(&self) {
        self.close_if_replaced(&mut self.sidecar.queue.lock());
    }

    fn close_if_replaced(&self, open: &mut OpenQueue) {
        let is_gone = |sidecar: &Sidecar| {
            let within = |directory: &Arc<Directory>| sidecar.is_within(directory, &self.path);
            !sidecar.is_in_place(&self.path) && !self.directory.as_ref().is_some_and(within)
        };
        if open.as_ref().is_some_and(|queue| is_gone(queue.sidecar())) {
            self.sidecar.clear(open);
            self.counters.sidecars_replaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The reason to log why a sidecar cannot be used; `None` if it may pass in a moment, or was
    /// the last one logged.
    pub(crate) fn unreported(&self, why: &Unusable) -> Option<String> {
        let why = Some(why.to_string()).filter(|_| why.lasts())?;
        let mut trouble = self.sidecar.trouble.lock();
        (trouble.reported.replace(why.clone()).as_ref() != Some(&why)).then_some(why)
    }

    /// Why there can be no write lock; `None` if there can be one.
    pub(crate) fn obstacle(&self) -> Option<String> {
        self.own.get()?;
        if self.sidecar.queue.lock().is_some() {
            return None;
        }
        let why = self.sidecar.trouble.lock().why.clone();
        why.or_else(|| sidecar::obstacle(&self.path).map(|why| why.to_string()))
    }
}

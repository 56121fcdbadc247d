//! Closing any descriptor of a file drops all POSIX locks that the process has on it
//! (<https://www.sqlite.org/howtocorrupt.html> 2.2): an application that opens its own database to
//! look at the header frees SQLite's locks, and others break in.
//!
//! Open-file-description locks go with their description instead. So the locks that SQLite asks
//! for on a file are made such, all of a process on one descriptor that nobody else has. They and POSIX
//! locks exclude each other, so that clients in other processes notice nothing. SQLite does its own
//! book-keeping of what its connections hold, as ever.
//!
//! That is so for the databases that this process has open through this VFS, and their wal-indexes, whoever locks
//! them; for all other files nothing changes.
//!
//! One copy of SQLite has one table: two copies in one process exclude each other (2.2.1).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use crate::sys::fork::{self, ForkMutex};
use crate::sys::{self, Inode, Kept, Range};

/// What the locks that SQLite asks for on a descriptor become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// POSIX locks, as SQLite asks. Whoever has made the call says so: [`LockTable::called`].
    AsItIs,
    /// None: a parent of this process opened it.
    Inherited,
    /// None: nobody can tell which file it is, so the call fails with this errno. As a POSIX lock it
    /// would be in the way of those that are none, and be given back by nobody.
    Unknown(i32),
    /// Open-file-description locks on this descriptor.
    Through {
        descriptor: RawFd,
        /// Whether what asks is a descriptor to read by, which can have no exclusive lock.
        is_read_only: bool,
    },
}

/// What is known of a descriptor without a look at the table.
pub(crate) enum Known<'t> {
    /// Its locks stay what they are; the call is made while this lives.
    AsItIs(Calling<'t>),
    /// It is one to read by. Its locks go through this one, which could have exclusive ones.
    ToRead(RawFd),
    /// [`LockTable::target`] must be asked.
    Nothing,
}

/// A call that is made as it is.
pub(crate) struct Calling<'t>(&'t AtomicU32);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Descriptors below this are looked up without a mutex.
const FAST: usize = 1024;

/// In [`LockTable::fast`]: the locks stay what they are.
const AS_IT_IS: i32 = i32::MIN;

/// The files that one copy of SQLite locks.
///
/// Only those that are open through this VFS in this process get other locks, and those that were when
/// they were locked first, as long as SQLite has a descriptor that it locked them by. A file that this
/// process has locked already stays as it is until it is unlocked: the two kinds of locks exclude each
/// other.
pub(crate) struct LockTable {
    /// By descriptor, if that is all there is to know of it: what its locks go through; the same,
    /// negative, if it is one to read by; [`AS_IT_IS`]; else 0.
    fast: [AtomicI32; FAST],
    /// By descriptor: calls that are being made as they are.
    calling: [AtomicU32; FAST],
    /// Whether locks may be made without the table having been asked.
    is_fast: AtomicBool,
    table: ForkMutex<Option<Table>>,
}

#[derive(Default)]
struct Table {
    /// The descriptors by which SQLite has locked, and the files behind them. SQLite says when it
    /// opens and closes one.
    files: BTreeMap<RawFd, File>,
    /// What the locks of a file become, as long as SQLite has a descriptor of it that it locked by.
    inodes: HashMap<Inode, Locked>,
    /// The files that our own descriptors are of.
    own: BTreeMap<RawFd, Inode>,
    /// The databases that are open through this VFS.
    ours: HashMap<Inode, Ours>,
    /// Files on which the process had POSIX locks before this table was made. SQLite counts those
    /// among its own, so they stay what they are.
    locked_before: HashSet<Inode>,
    /// In a forked child: the files that a parent had open through this VFS, and in which generation
    /// it was when it forked last.
    inherited: HashMap<Inode, u64>,
}

#[derive(Clone, Copy)]
struct File {
    /// `None` if a parent of this process opened it, and locked it by a descriptor that it shares.
    inode: Option<Inode>,
    is_writable: bool,
}

/// A database that is open through this VFS.
#[derive(Clone, Default)]
struct Ours {
    connections: usize,
    wal_index: Option<Inode>,
}

struct Locked {
    kind: Kind,
    /// Those SQLite has of it.
    descriptors: Vec<RawFd>,
    /// Calls that are being made as they are, but for those that [`LockTable::calling`] counts.
    calling: usize,
}

enum Kind {
    Ofd(LockFile),
    /// POSIX locks: the file is not ours.
    Others,
    /// POSIX locks although it is: it was locked by such, and was not unlocked since.
    Locked,
    /// POSIX locks although it is: others can not be had, and why.
    Refused(io::Error),
}

/// The descriptor that has the process's locks on one file.
struct LockFile {
    descriptor: Kept,
    /// If it can not be written by, it can not be locked exclusively. Then its locks are noted, for
    /// the case that a connection comes that can write.
    shared: Option<Vec<Range>>,
}

impl LockTable {
    pub(crate) const fn new() -> Self {
        Self {
            fast: [const { AtomicI32::new(0) }; FAST],
            calling: [const { AtomicU32::new(0) }; FAST],
            is_fast: AtomicBool::new(false),
            table: ForkMutex::new(None),
        }
    }

    /// Begins. What the process has locked by now stays as it is. The calls must go through
    /// [`Self::before`] already, so that nothing is locked meanwhile. [`Self::through`] knows something
    /// only if `is_fast`.
    ///
    /// # Errors
    /// If there is no /proc.
    pub(crate) fn begin(&'static self, is_fast: bool) -> io::Result<()> {
        self.is_fast.store(is_fast, Ordering::Relaxed);
        let mut table = self.table.lock();
        let locked_before = sys::with_posix_locks()?.into_iter().collect();
        *table = Some(Table { locked_before, ..Table::default() });
        Ok(())
    }

    /// Makes a call as it is, if this has not begun.
    pub(crate) fn before<T>(&'static self, call: impl FnOnce() -> T) -> Option<T> {
        let table = self.table.lock();
        table.is_none().then(call)
    }

    /// What locks on a descriptor go through; `None` if [`Self::known`] must be asked.
    #[inline]
    pub(crate) fn through(&self, descriptor: RawFd) -> Option<RawFd> {
        let fast = self.fast.get(usize::try_from(descriptor).ok()?)?.load(Ordering::Acquire);
        (fast > 0).then_some(fast)
    }

    /// What is known of a descriptor that [`Self::through`] does not know.
    pub(crate) fn known(&self, descriptor: RawFd) -> Known<'_> {
        let Some(nth) = usize::try_from(descriptor).ok().filter(|nth| *nth < FAST) else {
            return Known::Nothing;
        };
        let fast = &self.fast[nth];
        match fast.load(Ordering::Acquire) {
            AS_IT_IS => {
                // Counted first: whoever makes the file another kind forgets the descriptor, and then
                // looks for calls.
                self.calling[nth].fetch_add(1, Ordering::SeqCst);
                let calling = Calling(&self.calling[nth]);
                match fast.load(Ordering::SeqCst) {
                    AS_IT_IS => Known::AsItIs(calling),
                    _ => Known::Nothing,
                }
            }
            through if through < 0 => Known::ToRead(-through),
            _ => Known::Nothing,
        }
    }

    /// What the locks asked for on a descriptor become. Decided at the first.
    pub(crate) fn target(&'static self, descriptor: RawFd) -> Target {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return Target::AsItIs };
        let file = match table.files.get(&descriptor) {
            Some(file) => *file,
            None => {
                let inode = match sys::inode_of(descriptor) {
                    Ok(inode) => inode,
                    Err(error) => return Target::Unknown(error.raw_os_error().unwrap_or_default()),
                };
                self.add(table, descriptor, inode)
            }
        };
        let Some(inode) = file.inode else { return Target::Inherited };
        match table.inodes.get_mut(&inode) {
            Some(Locked { kind: Kind::Ofd(through), .. }) => Target::Through {
                descriptor: through.descriptor.as_raw_fd(),
                is_read_only: !file.is_writable,
            },
            Some(locked) => {
                locked.calling += 1;
                Target::AsItIs
            }
            None => Target::AsItIs,
        }
    }

    /// A call by a descriptor was made as it is. `unlocked`: it has given back all of the file.
    pub(crate) fn called(&'static self, descriptor: RawFd, unlocked: bool) {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        let Some(inode) = table.files.get(&descriptor).and_then(|file| file.inode) else { return };
        let Some(locked) = table.inodes.get_mut(&inode) else { return };
        locked.calling = locked.calling.saturating_sub(1);
        if unlocked && matches!(locked.kind, Kind::Locked) {
            table.locked_before.remove(&inode);
            self.settle(table, inode, false);
        }
    }

    /// SQLite locks by a descriptor that is not known.
    fn add(&'static self, table: &mut Table, descriptor: RawFd, inode: Inode) -> File {
        let file = File { inode: Some(inode), is_writable: sys::is_writable(descriptor) };
        table.files.insert(descriptor, file);
        let locked = table.inodes.entry(inode).or_insert_with(|| Locked {
            kind: Kind::Others,
            descriptors: Vec::new(),
            calling: 0,
        });
        let may_be_locked = !locked.descriptors.is_empty() || table.locked_before.contains(&inode);
        locked.descriptors.push(descriptor);
        self.settle(table, inode, may_be_locked);
        file
    }

    /// Decides what the locks of a file become, if that is not decided for good, and sees to it that its
    /// lock descriptor is what it must be. If it `may_be_locked` by a POSIX lock, looks.
    fn settle(&'static self, table: &mut Table, inode: Inode, may_be_locked: bool) {
        let is_ours = table.is_ours(inode);
        let Some(locked) = table.inodes.get_mut(&inode) else { return };
        let is_stale = match &locked.kind {
            Kind::Ofd(file) => !file.descriptor.is_intact(),
            _ => false,
        };
        match &mut locked.kind {
            Kind::Ofd(file) if !is_stale => {
                if let Some(descriptor) = table.files.writable_of(&locked.descriptors) {
                    file.make_writable(descriptor);
                }
            }
            Kind::Others if !is_ours => {}
            Kind::Refused(_) => {}
            kind => {
                // Under the mutex, no call begins that is made as it is; those that have begun are seen.
                for descriptor in &locked.descriptors {
                    self.publish(*descriptor, 0);
                }
                let is_calling = |descriptor: &RawFd| {
                    let nth = usize::try_from(*descriptor).ok();
                    let calling = nth.and_then(|nth| self.calling.get(nth));
                    calling.is_some_and(|calling| calling.load(Ordering::SeqCst) > 0)
                };
                let descriptors = &locked.descriptors;
                let by = table.files.writable_of(descriptors).or(descriptors.last().copied());
                let Some(by) = by else { return };
                // What can not be known is taken to be locked.
                let has_locked = |descriptor: &RawFd| {
                    sys::is_of(*descriptor, inode)
                        && !sys::has_posix_locks(*descriptor).is_ok_and(|has_locked| !has_locked)
                };
                let was_locked_before = || {
                    table.locked_before.contains(&inode)
                        && !sys::with_posix_locks().is_ok_and(|locked| !locked.contains(&inode))
                };
                // By any: SQLite locks for all connections by the descriptor of one.
                let is_locked = locked.calling > 0
                    || descriptors.iter().any(is_calling)
                    || may_be_locked && (descriptors.iter().any(has_locked) || was_locked_before());
                if let Kind::Ofd(stale) = kind {
                    table.own.remove(&stale.descriptor.as_raw_fd());
                }
                *kind = Kind::Locked;
                if !is_locked {
                    table.locked_before.remove(&inode);
                    match LockFile::open(by) {
                        Ok(file) => self.lock_through(table, inode, file),
                        Err(error) => *kind = Kind::Refused(error),
                    }
                }
            }
        }
        self.publish_all(table, inode);
    }

    /// A file's locks go through this descriptor from now on.
    fn lock_through(&'static self, table: &mut Table, inode: Inode, file: LockFile) {
        let number = file.descriptor.as_raw_fd();
        let stale = table.own.insert(number, inode).filter(|stale| *stale != inode);
        if let Some(locked) = table.inodes.get_mut(&inode) {
            locked.kind = Kind::Ofd(file);
        }
        self.forget(table, number, stale);
    }

    /// A number is that of a new descriptor: what SQLite had by it was closed behind its back, and so was our
    /// descriptor of a file that is `stale`.
    fn forget(&'static self, table: &mut Table, number: RawFd, stale: Option<Inode>) {
        self.remove(table, number);
        let Some(inode) = stale else { return };
        let Some(locked) = table.inodes.get_mut(&inode) else { return };
        if let Kind::Ofd(file) = std::mem::replace(&mut locked.kind, Kind::Others) {
            // The number is another's to close, perhaps of a descriptor of the same file.
            let _ = ManuallyDrop::new(file);
        }
        for stale in
            locked.descriptors.clone().into_iter().filter(|known| !sys::is_of(*known, inode))
        {
            self.remove(table, stale);
        }
        // As it was. What it had locked is lost, as if a POSIX lock had been cancelled.
        let Some(locked) = table.inodes.get(&inode) else { return };
        let by =
            table.files.writable_of(&locked.descriptors).or(locked.descriptors.last().copied());
        if let Some(file) = by.and_then(|by| LockFile::open(by).ok()) {
            self.lock_through(table, inode, file);
        }
        self.publish_all(table, inode);
    }

    /// A descriptor of SQLite's is closed, or was.
    fn remove(&self, table: &mut Table, descriptor: RawFd) {
        let Some(file) = table.files.remove(&descriptor) else { return };
        self.publish(descriptor, 0);
        let Some(inode) = file.inode else { return };
        let Some(locked) = table.inodes.get_mut(&inode) else { return };
        locked.descriptors.retain(|known| *known != descriptor);
        if locked.descriptors.is_empty() {
            if let Kind::Ofd(file) = &locked.kind {
                table.own.remove(&file.descriptor.as_raw_fd());
            }
            table.inodes.remove(&inode);
            table.forget_wal_index(inode);
        }
    }

    /// Publishes what has become of a file.
    fn publish_all(&self, table: &Table, inode: Inode) {
        let Some(locked) = table.inodes.get(&inode) else { return };
        let is_fast = self.is_fast.load(Ordering::Relaxed);
        for descriptor in &locked.descriptors {
            let is_writable = table.files.get(descriptor).is_some_and(|file| file.is_writable);
            self.publish(
                *descriptor,
                match &locked.kind {
                    Kind::Ofd(LockFile { descriptor, shared: None }) if is_fast => {
                        let through = descriptor.as_raw_fd();
                        if is_writable { through } else { -through }
                    }
                    Kind::Others | Kind::Refused(_) => AS_IT_IS,
                    Kind::Ofd(_) | Kind::Locked => 0,
                },
            );
        }
    }

    fn publish(&self, descriptor: RawFd, known: i32) {
        if let Some(fast) = usize::try_from(descriptor).ok().and_then(|nth| self.fast.get(nth)) {
            fast.store(known, Ordering::SeqCst);
        }
    }

    /// Notes what a lock call by a descriptor has done, if it is not known without a look at the table:
    /// `locked` is false for an unlock.
    #[cold]
    pub(crate) fn note(&'static self, descriptor: RawFd, range: Range, locked: bool) {
        let mut table = self.table.lock();
        if let Some(shared) =
            table.as_mut().and_then(|table| table.file(descriptor)?.shared.as_mut())
        {
            shared.retain(|held| !range.covers(*held));
            if locked {
                shared.push(range);
            }
        }
    }

    /// A lock through a file's descriptor has failed as if that were closed, or could not be written by.
    /// Makes it one that can be locked by. False if it is.
    pub(crate) fn mend(&'static self, descriptor: RawFd) -> bool {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return false };
        let Some(File { inode: Some(inode), is_writable }) = table.files.get(&descriptor).copied()
        else {
            return false;
        };
        let Some(file) = table.file(descriptor) else { return false };
        let is_usable = |file: &LockFile| {
            file.descriptor.is_intact() && (file.shared.is_none() || !is_writable)
        };
        if is_usable(file) || !sys::is_of(descriptor, inode) {
            return false;
        }
        self.settle(table, inode, false);
        table.file(descriptor).is_some_and(|file| is_usable(file))
    }

    /// A database was opened through this VFS: from now on it is ours, until [`Self::left`] was called as
    /// often as this. `wal_index` looks for its index, which SQLite may have open already.
    pub(crate) fn joined(
        &'static self,
        database: Inode,
        wal_index: impl FnOnce() -> Option<Inode>,
    ) {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        let ours = table.ours.entry(database).or_default();
        ours.connections += 1;
        if ours.wal_index.is_none() && table.inodes.contains_key(&database) {
            ours.wal_index = wal_index();
        }
        for inode in [Some(database), ours.wal_index].into_iter().flatten() {
            let known = table.inodes.get(&inode).map(|locked| locked.descriptors.clone());
            for stale in known.into_iter().flatten().filter(|known| !sys::is_of(*known, inode)) {
                self.remove(table, stale);
            }
            self.settle(table, inode, true);
        }
    }

    /// This has just begun: what is open through this VFS, and another copy of SQLite, is ours, too.
    pub(crate) fn join_those_of(&'static self, other: &'static Self) {
        let ours = other.table.lock().as_ref().map(|other| other.ours.clone());
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        for (database, Ours { connections, wal_index }) in ours.into_iter().flatten() {
            let ours = table.ours.entry(database).or_default();
            ours.connections = ours.connections.max(connections);
            ours.wal_index = ours.wal_index.or(wal_index);
        }
    }

    /// A connection to it was closed, and its descriptor with it.
    pub(crate) fn left(&'static self, database: Inode) {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        // In a forked child, its parent has opened it.
        let Some(ours) = table.ours.get_mut(&database) else { return };
        ours.connections -= 1;
        if ours.connections == 0 {
            let wal_index = table.ours.remove(&database).and_then(|ours| ours.wal_index);
            for inode in [Some(database), wal_index].into_iter().flatten() {
                if let Some(locked) = table.inodes.get_mut(&inode) {
                    if !matches!(locked.kind, Kind::Ofd(_)) {
                        locked.kind = Kind::Others;
                        self.publish_all(table, inode);
                    }
                }
            }
        }
    }

    /// SQLite has opened a descriptor: whatever was known by that number was closed by somebody else.
    pub(crate) fn opened(&'static self, descriptor: RawFd) {
        let mut table = self.table.lock();
        if let Some(table) = table.as_mut() {
            let stale = table.own.remove(&descriptor);
            self.forget(table, descriptor, stale);
        }
    }

    /// Whether any database is open through this VFS.
    pub(crate) fn has_ours(&'static self) -> bool {
        self.table.lock().as_ref().is_some_and(|table| !table.ours.is_empty())
    }

    /// SQLite has opened the wal-index of a database.
    pub(crate) fn opened_wal_index(&'static self, database: Inode, wal_index: Inode) {
        let mut table = self.table.lock();
        if let Some(ours) = table.as_mut().and_then(|table| table.ours.get_mut(&database)) {
            ours.wal_index = Some(wal_index);
        }
    }

    /// SQLite is about to close a descriptor. False if it is another file's by now, ours perhaps: then it must
    /// not be closed.
    pub(crate) fn closing(&'static self, descriptor: RawFd) -> bool {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return true };
        let Some(file) = table.files.get(&descriptor) else {
            if table.own.contains_key(&descriptor) {
                return false;
            }
            // A wal-index that was not locked.
            if table.ours.values().any(|ours| ours.wal_index.is_some()) {
                let of = sys::inode_of(descriptor).ok();
                if let Some(inode) = of.filter(|inode| !table.inodes.contains_key(inode)) {
                    table.forget_wal_index(inode);
                }
            }
            return true;
        };
        let of = file.inode;
        let is_stale = table.file(descriptor).is_some()
            && of.is_some_and(|inode| !sys::is_of(descriptor, inode));
        self.remove(table, descriptor);
        !is_stale
    }

    /// Why the locks on a file are not protected, if they are not.
    pub(crate) fn why_not(&'static self, inode: Inode) -> Option<String> {
        let mut table = self.table.lock();
        let table = table.as_mut()?;
        match table.inodes.get(&inode).map(|locked| &locked.kind) {
            Some(Kind::Refused(why)) => Some(why.to_string()),
            Some(Kind::Locked) => Some(LOCKED_BEFORE.to_owned()),
            Some(Kind::Others) => Some(NOT_OURS.to_owned()),
            Some(Kind::Ofd(_)) => None,
            None => table.was_locked_before(inode).then(|| LOCKED_BEFORE.to_owned()),
        }
    }

    /// Whether somebody else, of this process or another, has a lock on that range of a file; `None` if
    /// that can not be told, since the process's own are not known to be of another kind.
    pub(crate) fn is_locked_by_others(&'static self, inode: Inode, range: Range) -> Option<bool> {
        let mut table = self.table.lock();
        let Kind::Ofd(file) = &table.as_mut()?.inodes.get(&inode)?.kind else { return None };
        Some(sys::conflicting_lock(&file.descriptor, range).ok()?.is_some())
    }

    /// Keeps other threads from opening descriptors until the result is dropped.
    pub(crate) fn hold_for_fork(&'static self) -> impl std::any::Any {
        self.table.lock()
    }

    /// In a forked child: closes the descriptors it inherited, which frees nothing of its parent's. What is
    /// not ours stays as it is.
    pub(crate) fn abandon_inherited(&'static self) {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        for calling in &self.calling {
            calling.store(0, Ordering::Relaxed);
        }
        let generation = fork::generation();
        table.locked_before.clear();
        table.own.clear();
        for (database, ours) in table.ours.drain() {
            for inode in [Some(database), ours.wal_index].into_iter().flatten() {
                table.inherited.insert(inode, generation);
            }
        }
        for (inode, mut locked) in std::mem::take(&mut table.inodes) {
            if let Kind::Ofd(_) = locked.kind {
                table.inherited.insert(inode, generation);
                for descriptor in locked.descriptors {
                    self.publish(descriptor, 0);
                    if let Some(file) = table.files.get_mut(&descriptor) {
                        file.inode = None;
                    }
                }
            } else {
                (locked.kind, locked.calling) = (Kind::Others, 0);
                table.inodes.insert(inode, locked);
                self.publish_all(table, inode);
            }
        }
    }

    /// In a forked child: the generation of the parent that had a file open through this VFS, if any had.
    pub(crate) fn inherited(&'static self, inode: Inode) -> Option<u64> {
        self.table.lock().as_ref()?.inherited.get(&inode).copied()
    }
}

const LOCKED_BEFORE: &str = "this process had locked the database before it was opened through the VFS; \
                             close all of its connections to it, and open them again";

const NOT_OURS: &str = "the file is not one that this process has opened through the VFS";

/// What is known of descriptors.
trait Files {
    /// The first of them that can be written by.
    fn writable_of(&self, descriptors: &[RawFd]) -> Option<RawFd>;
}

impl Files for BTreeMap<RawFd, File> {
    fn writable_of(&self, descriptors: &[RawFd]) -> Option<RawFd> {
        let is_writable = |known: &&RawFd| self.get(*known).is_some_and(|file| file.is_writable);
        descriptors.iter().rev().find(is_writable).copied()
    }
}

impl Table {
    fn is_ours(&self, inode: Inode) -> bool {
        self.ours.contains_key(&inode)
            || self.ours.values().any(|ours| ours.wal_index == Some(inode))
    }

    /// SQLite has closed a file, which may be a wal-index. When it is deleted, its number may be another file's.
    fn forget_wal_index(&mut self, inode: Inode) {
        for ours in self.ours.values_mut() {
            ours.wal_index.take_if(|known| *known == inode);
        }
    }

    fn was_locked_before(&mut self, inode: Inode) -> bool {
        if !self.locked_before.contains(&inode) {
            return false;
        }
        // What can not be known is taken to be locked.
        let is_locked = !sys::with_posix_locks().is_ok_and(|locked| !locked.contains(&inode));
        if !is_locked {
            self.locked_before.remove(&inode);
        }
        is_locked
    }

    fn file(&mut self, descriptor: RawFd) -> Option<&mut LockFile> {
        let inode = self.files.get(&descriptor)?.inode?;
        match self.inodes.get_mut(&inode).map(|locked| &mut locked.kind) {
            Some(Kind::Ofd(file)) => Some(file),
            _ => None,
        }
    }
}

impl LockFile {
    fn open(descriptor: RawFd) -> io::Result<Self> {
        let opened = open_as(descriptor)?;
        // Whether there are such locks here at all.
        sys::conflicting_lock(&opened, Range { start: 0, len: 1 })?;
        let shared = (!sys::is_writable(opened.as_raw_fd())).then(Vec::new);
        Ok(Self { descriptor: Kept::new(opened.into()), shared })
    }

    /// A connection that can write, by this descriptor, has joined some that can not: makes the file's one
    /// that can be locked exclusively. If that fails, it is tried again when it is needed.
    fn make_writable(&mut self, descriptor: RawFd) {
        let Some(shared) = &self.shared else { return };
        let opened = open_as(descriptor).ok();
        // At the limit of descriptors, SQLite's own is shared: that takes no new number.
        let writable = opened.as_ref().map_or(descriptor, AsRawFd::as_raw_fd);
        // Shared locks do not exclude each other, so both descriptors can have them for a moment.
        let moved =
            shared.iter().all(|range| matches!(sys::try_lock(&writable, *range, true), Ok(true)));
        if moved && sys::replace(self.descriptor.as_raw_fd(), &writable).is_ok() {
            self.shared = None;
        } else if opened.is_none() {
            for range in shared {
                let _ = sys::unlock(&writable, *range);
            }
        }
    }
}

/// Another descriptor of the same file, for reading and writing if this one is. One that this process
/// may not open any more is shared with SQLite: only in a forked child does that make a difference.
fn open_as(descriptor: RawFd) -> io::Result<OwnedFd> {
    sys::reopen(descriptor, sys::is_writable(descriptor)).or_else(|_| sys::duplicate(descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use sys::for_tests::{lock_by_posix, stale};

    /// A thread locks a file while another registers the VFS. Until it is known what was locked before, the
    /// call is made as it is, and under the mutex, so that it is either seen as such or comes after.
    #[test]
    fn calls_are_made_as_they_are_until_it_has_begun() {
        static TABLE: LockTable = LockTable::new();
        assert_eq!(TABLE.before(|| 7), Some(7));
        TABLE.begin(true).expect("there is a /proc");
        assert_eq!(TABLE.before(|| 7), None);
    }

    const PENDING: Range = Range { start: 0x4000_0000, len: 1 };
    const SHARED: Range = Range { start: 0x4000_0002, len: 510 };

    fn inode(file: &File) -> Inode {
        sys::inode_of(file.as_raw_fd()).expect("it is open")
    }

    /// A board, and it opened to read, and to write.
    fn board() -> (tempfile::NamedTempFile, File, File) {
        let board = tempfile::NamedTempFile::new().expect("a file");
        let open = |writes| File::options().read(true).write(writes).open(board.path());
        let (reads, writes) = (open(false).expect("it is there"), open(true).expect("it is there"));
        (board, reads, writes)
    }

    /// A table of a process in which nothing is open through the VFS.
    fn begun(is_fast: bool) -> &'static LockTable {
        let table = Box::leak(Box::new(LockTable::new()));
        table.begin(is_fast).expect("there is a /proc");
        table
    }

    /// One of a process in which this file is open through the VFS, once.
    fn with_ours(is_fast: bool, file: &File) -> &'static LockTable {
        let table = begun(is_fast);
        table.joined(inode(file), || None);
        table
    }

    /// What a file's locks go through.
    fn through(table: &'static LockTable, file: &File) -> RawFd {
        match table.target(file.as_raw_fd()) {
            Target::Through { descriptor, .. } => descriptor,
            other => panic!("{other:?}"),
        }
    }

    /// What is published of a descriptor.
    fn fast(table: &LockTable, file: &File) -> i32 {
        let nth = usize::try_from(file.as_raw_fd()).expect("it is open");
        table.fast[nth].load(Ordering::Relaxed)
    }

    /// Locks as the replaced fcntl does.
    fn locks(descriptor: RawFd, range: Range, shared: bool) -> io::Result<bool> {
        sys::try_lock(&sys::duplicate(descriptor)?, range, shared)
    }

    /// Connections that only read lock, unlock and lock again, then one comes that can write: what they hold
    /// by then it finds held, nothing more and nothing less. It can be locked exclusively from then on, also
    /// when those who write have gone, and never by a descriptor to read by.
    #[test]
    fn who_joins_to_write_keeps_the_locks_of_those_who_read() {
        let (board, reads, writes) = board();
        let other = File::open(board.path()).expect("it is there");
        let is_locked = |range| sys::conflicting_lock(&other, range).expect("it is told").is_some();
        let table = with_ours(true, &reads);
        let file = through(table, &reads);
        for (range, takes) in [(PENDING, true), (SHARED, true), (PENDING, false)] {
            if takes {
                assert!(locks(file, range, true).expect("it locks"));
            } else {
                let file = sys::duplicate(file).expect("a descriptor");
                sys::unlock(&file, range).expect("it unlocks");
            }
            table.note(reads.as_raw_fd(), range, takes);
        }
        assert_eq!(fast(table, &reads), 0, "each of its locks is noted");
        assert!(locks(file, PENDING, false).is_err(), "it can not be written by");
        assert!(!table.mend(reads.as_raw_fd()), "nor is anybody there who could");

        assert_eq!(through(table, &writes), file);
        assert!(is_locked(SHARED) && !is_locked(PENDING));
        assert!(locks(file, PENDING, false).expect("it locks"));
        assert!(is_locked(PENDING));
        assert_eq!((fast(table, &reads), fast(table, &writes)), (-file, file));
        assert!(!table.mend(writes.as_raw_fd()), "it is");
        assert!(!table.mend(other.as_raw_fd()), "it is not in the table");
        let of_reads = Target::Through { descriptor: file, is_read_only: true };
        assert_eq!(table.target(reads.as_raw_fd()), of_reads);
        assert!(table.closing(writes.as_raw_fd()));
        assert!(locks(file, PENDING, false).expect("it is as it was"));
        assert_eq!(table.target(reads.as_raw_fd()), of_reads);
    }

    /// Several connections come and go. All lock by one descriptor, as long as there is one of them, ours or
    /// not; who has closed his is forgotten, since its number may be another file's next.
    #[test]
    fn all_lock_by_one_descriptor_until_the_last_closes() {
        let (board, _reads, writes) = board();
        let second = File::options().read(true).write(true).open(board.path()).expect("a file");
        let other = File::open(board.path()).expect("it is there");
        let is_locked = || sys::conflicting_lock(&other, SHARED).expect("told").is_some();
        for is_fast in [true, false] {
            let table = with_ours(is_fast, &writes);
            let file = through(table, &writes);
            let known = |file: &File| fast(table, file);
            let fast = if is_fast { file } else { 0 };
            assert_eq!((known(&writes), known(&second)), (fast, 0));
            assert!(locks(file, SHARED, false).expect("it locks"));
            assert_eq!(through(table, &second), file);
            assert_eq!((known(&writes), known(&second)), (fast, fast));
            assert!(is_locked());
            table.closing(writes.as_raw_fd());
            table.left(inode(&writes));
            assert_eq!((known(&writes), known(&second)), (0, fast));
            assert!(is_locked(), "one is left");
            assert_eq!(through(table, &writes), file, "and whoever comes");
            table.closing(writes.as_raw_fd());
            table.closing(second.as_raw_fd());
            assert_eq!((known(&writes), known(&second)), (0, 0));
            assert!(!is_locked(), "its descriptor is closed");
            assert_eq!(table.target(writes.as_raw_fd()), Target::AsItIs, "it is not ours");
        }
    }

    /// A file that is not open through the VFS stays what it is, without a descriptor of ours. It becomes ours
    /// when it is opened, unless it is locked, or a call that locks it is on its way: then when it is unlocked.
    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let (board, reads, writes) = board();
        let table = begun(true);
        let descriptor = writes.as_raw_fd();
        assert_eq!(table.target(descriptor), Target::AsItIs);
        table.called(descriptor, false);
        assert!(matches!(table.known(descriptor), Known::AsItIs(_)));
        let own = table.table.lock().as_ref().map(|table| table.own.len());
        assert_eq!(own, Some(0), "no descriptor of ours");
        table.joined(inode(&writes), || None);
        let file = through(table, &writes);
        assert_eq!(fast(table, &writes), file);
        table.left(inode(&writes));
        assert_eq!(through(table, &writes), file, "as long as it is open");

        for how in ["locked", "calling", "calling slowly"] {
            let table = begun(true);
            assert_eq!(table.target(descriptor), Target::AsItIs);
            if how != "calling slowly" {
                table.called(descriptor, false);
            }
            let calling = match how {
                "locked" => {
                    lock_by_posix(&writes, SHARED, libc::F_RDLCK);
                    None
                }
                "calling" => Some(table.known(descriptor)),
                _ => None,
            };
            table.joined(inode(&writes), || None);
            assert_eq!(table.why_not(inode(&writes)).as_deref(), Some(LOCKED_BEFORE), "{how}");
            assert!(matches!(table.known(descriptor), Known::Nothing), "{how}");
            drop(calling);
            assert_eq!(table.target(descriptor), Target::AsItIs, "{how}");
            lock_by_posix(&writes, SHARED, libc::F_UNLCK);
            table.called(descriptor, how == "locked");
            if how == "calling slowly" {
                table.called(descriptor, true);
            }
            if how == "calling" {
                // Another connection looks.
                through(table, &reads);
            }
            through(table, &writes);
            assert_eq!(table.why_not(inode(&writes)), None, "{how}");
        }
        drop(board);
    }

    /// A stock connection has a database and its wal-index open, locked; then the VFS opens it.
    #[test]
    fn a_wal_index_belongs_to_its_database() {
        let (_board, _, database) = board();
        let (_other, _, index) = board();
        let table = begun(true);
        assert_eq!(table.target(database.as_raw_fd()), Target::AsItIs);
        table.called(database.as_raw_fd(), false);
        assert_eq!(table.target(index.as_raw_fd()), Target::AsItIs);
        table.called(index.as_raw_fd(), false);
        lock_by_posix(&index, SHARED, libc::F_RDLCK);
        table.joined(inode(&database), || Some(inode(&index)));
        assert_eq!(table.why_not(inode(&database)), None);
        assert_eq!(table.why_not(inode(&index)).as_deref(), Some(LOCKED_BEFORE));
        table.left(inode(&database));
        assert!(matches!(table.known(index.as_raw_fd()), Known::AsItIs(_)));
        lock_by_posix(&index, SHARED, libc::F_UNLCK);

        let table = with_ours(true, &database);
        table.opened_wal_index(inode(&database), inode(&index));
        through(table, &index);
        // SQLite closes it, locked or not, as when it leaves WAL mode: another file may have its number then.
        for is_locked in [true, false] {
            table.opened_wal_index(inode(&database), inode(&index));
            if is_locked {
                through(table, &index);
            }
            assert!(table.closing(index.as_raw_fd()));
            assert_eq!(table.target(index.as_raw_fd()), Target::AsItIs, "{is_locked}");
            table.called(index.as_raw_fd(), false);
            assert!(table.closing(index.as_raw_fd()));
        }
        table.opened_wal_index(inode(&database), inode(&index));
        assert!(table.closing(database.as_raw_fd()));
        through(table, &index);
    }

    /// In a child of fork(2), what it inherited is locked by nothing, and a file that it opens is its own. What
    /// was not ours stays as it is.
    #[test]
    fn what_a_child_inherits_is_not_locked() {
        let (_board, reads, writes) = board();
        let (_second, _, stock) = board();
        let table = with_ours(true, &writes);
        through(table, &writes);
        assert_eq!(table.target(stock.as_raw_fd()), Target::AsItIs);
        table.abandon_inherited();
        assert_eq!(fast(table, &writes), 0);
        assert_eq!(table.target(writes.as_raw_fd()), Target::Inherited);
        assert!(table.inherited(inode(&writes)).is_some());
        assert!(matches!(table.known(stock.as_raw_fd()), Known::AsItIs(_)));
        assert_eq!(table.inherited(inode(&stock)), None);
        table.joined(inode(&writes), || None);
        through(table, &reads);
        table.closing(writes.as_raw_fd());
        through(table, &writes);
    }

    /// What this process had locked before stays as it is, and when it was unlocked since, the next connection
    /// ends that. A descriptor that is none is an error.
    #[test]
    fn what_was_locked_before_stays_as_it_is_until_it_is_unlocked() {
        let (_board, reads, writes) = board();
        lock_by_posix(&writes, SHARED, libc::F_RDLCK);
        let table = with_ours(true, &writes);
        assert_eq!(table.why_not(inode(&writes)).as_deref(), Some(LOCKED_BEFORE));
        assert_eq!(table.target(writes.as_raw_fd()), Target::AsItIs);
        table.called(writes.as_raw_fd(), false);
        assert_eq!(table.why_not(inode(&writes)).as_deref(), Some(LOCKED_BEFORE));
        lock_by_posix(&writes, SHARED, libc::F_UNLCK);
        let file = through(table, &reads);
        assert_eq!(through(table, &writes), file);
        assert_eq!(table.why_not(inode(&writes)), None);
        assert_eq!(table.target(-1), Target::Unknown(libc::EBADF));
    }

    /// Somebody has closed all descriptors of a file, SQLite's and ours, and their numbers are other files': of
    /// SQLite's, which are known by those then; of ours, which stay open; of the application's, which are not
    /// closed.
    #[test]
    fn a_number_is_not_trusted_after_its_file_was_closed() {
        /// Puts a file in the place of a descriptor, as close(2) and open(2) do.
        fn is_now(descriptor: RawFd, file: &File) {
            let file = sys::duplicate(file.as_raw_fd()).expect("it is open");
            sys::replace(descriptor, &file).expect("it is replaced");
        }
        let (_board, _, writes) = board();
        let (_second, _, other) = board();
        let number = |file: &File| sys::duplicate(file.as_raw_fd()).expect("it is open");

        // SQLite's, and then SQLite's.
        let table = with_ours(true, &writes);
        let leaked = File::from(number(&writes));
        let file = through(table, &leaked);
        is_now(leaked.as_raw_fd(), &other);
        table.opened(leaked.as_raw_fd());
        assert_eq!(table.target(leaked.as_raw_fd()), Target::AsItIs);
        assert!(!sys::is_of(file, inode(&writes)), "the file is unlocked, and that closed");

        // Ours, and then SQLite's. The file has another.
        let table = with_ours(true, &writes);
        let file = through(table, &writes);
        is_now(file, &other);
        table.opened(file);
        let another = through(table, &writes);
        assert!(another != file && sys::is_of(another, inode(&writes)));
        assert_eq!(fast(table, &writes), another);
        assert!(sys::is_of(file, inode(&other)), "it is not closed");
        assert!(table.closing(file), "SQLite may");
        sys::close_inherited(file, inode(&other));

        // Ours, and then the application's.
        let table = with_ours(true, &writes);
        let file = through(table, &writes);
        is_now(file, &other);
        assert!(table.mend(writes.as_raw_fd()), "a lock has failed");
        assert_ne!(through(table, &writes), file);
        assert!(sys::is_of(file, inode(&other)), "it is not closed");
        sys::close_inherited(file, inode(&other));

        // SQLite's, and then ours: it is not SQLite's to close.
        let table = with_ours(true, &writes);
        let file = through(table, &writes);
        assert!(!table.closing(file));
        let leaked = File::from(number(&writes));
        through(table, &leaked);
        is_now(leaked.as_raw_fd(), &other);
        assert!(!table.closing(leaked.as_raw_fd()), "it is the application's");
        assert!(table.closing(writes.as_raw_fd()));
        assert!(!sys::is_of(file, inode(&writes)));
    }

    /// A lock descriptor gets the number that that of another file had, before somebody closed it.
    #[test]
    fn two_lock_descriptors_of_one_number_are_not_mixed_up() {
        let (_board, _, writes) = board();
        let (_second, _, other) = board();
        let table = with_ours(true, &writes);
        table.joined(inode(&other), || None);
        through(table, &writes);
        let file = through(table, &other);
        {
            let mut table_of = table.table.lock();
            let known = table_of.as_mut().expect("it has begun");
            let descriptor = stale(file, inode(&writes));
            let locked = known.inodes.get_mut(&inode(&writes)).expect("it is known");
            locked.kind = Kind::Ofd(LockFile { descriptor, shared: None });
            table.forget(known, file, Some(inode(&writes)));
        }
        let another = through(table, &writes);
        assert!(another != file && sys::is_of(another, inode(&writes)));
        assert_eq!(through(table, &other), file);
        assert!(sys::is_of(file, inode(&other)));
    }
}

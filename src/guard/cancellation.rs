//! Closing any descriptor of a file drops all POSIX locks that the process has on it
//! (<https://www.sqlite.org/howtocorrupt.html> 2.2): an application that opens its own database to
//! look at the header frees SQLite's locks, and others break in.
//!
//! Open-file-description locks go with their description instead. So the locks that SQLite asks
//! for on a file are made such, all of a process on one descriptor that nobody else has. They and POSIX
//! locks exclude each other, so that clients in other processes notice nothing. SQLite does its own
//! book-keeping of what its connections hold, as ever.
//!
//! One copy of SQLite has one table: two copies in one process exclude each other (2.2.1).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::fork::{self, ForkMutex};
use crate::sys::{self, Inode, Range};

/// What the locks that SQLite asks for on a descriptor become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// POSIX locks, as SQLite asks.
    AsItIs,
    /// None: a parent of this process opened it.
    Inherited,
    /// None: nobody can tell which file it is, so the call fails with this errno. As a POSIX lock it
    /// would be in the way of those that are none, and be given back by nobody.
    Unknown(i32),
    /// Open-file-description locks on this descriptor.
    Through(RawFd),
}

/// Descriptors below this are looked up without a mutex.
const FAST: usize = 1024;

/// The files that one copy of SQLite locks.
pub(crate) struct LockTable {
    /// What a descriptor's locks go through, if that is all there is to know; else 0.
    fast: [AtomicI32; FAST],
    /// Whether locks may be made without the table having been asked.
    is_fast: AtomicBool,
    table: ForkMutex<Option<Table>>,
}

#[derive(Default)]
struct Table {
    /// The descriptors by which SQLite has locked, and the files behind them. SQLite says when it
    /// closes one.
    files: HashMap<RawFd, Option<Inode>>,
    /// What the locks of a file become, as long as SQLite has a descriptor of it that it locked by.
    inodes: HashMap<Inode, Locked>,
    /// Files on which the process had POSIX locks before this table was made. SQLite counts those
    /// among its own, so they stay what they are.
    locked_before: HashSet<Inode>,
}

struct Locked {
    kind: Kind,
    /// Those SQLite has of it.
    descriptors: Vec<RawFd>,
}

enum Kind {
    Ofd(LockFile),
    Posix(io::Error),
}

/// The descriptor that has the process's locks on one file.
struct LockFile {
    descriptor: OwnedFd,
    /// If it can not be written by, it can not be locked exclusively. Then its locks are noted, for
    /// the case that a connection comes that can write.
    shared: Option<Vec<Range>>,
}

impl LockTable {
    pub(crate) const fn new() -> Self {
        Self {
            fast: [const { AtomicI32::new(0) }; FAST],
            is_fast: AtomicBool::new(false),
            table: ForkMutex::new(None),
        }
    }

    /// Begins. What the process has locked by now stays as it is. The calls must go through
    /// [`Self::before`] already, so that nothing is locked meanwhile. [`Self::known`] knows something
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

    /// What locks on a descriptor go through; `None` if [`Self::target`] must be asked.
    #[inline]
    pub(crate) fn known(&self, descriptor: RawFd) -> Option<RawFd> {
        let fast = self.fast.get(usize::try_from(descriptor).ok()?)?.load(Ordering::Acquire);
        (fast != 0).then_some(fast)
    }

    /// What the locks asked for on a descriptor become. Decided at the first.
    pub(crate) fn target(&'static self, descriptor: RawFd) -> Target {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return Target::AsItIs };
        match table.files.get(&descriptor) {
            Some(None) => Target::Inherited,
            Some(Some(inode)) => table.target(*inode),
            None => {
                let inode = match sys::inode_of(descriptor) {
                    Ok(inode) => inode,
                    Err(error) => return Target::Unknown(error.raw_os_error().unwrap_or_default()),
                };
                table.add(descriptor, inode);
                self.publish_all(table, inode);
                table.target(inode)
            }
        }
    }

    /// Publishes what has become of a file.
    fn publish_all(&self, table: &Table, inode: Inode) {
        let is_fast = self.is_fast.load(Ordering::Relaxed);
        let through = table.plainly_through(inode).filter(|_| is_fast);
        for descriptor in table.inodes.get(&inode).iter().flat_map(|locked| &locked.descriptors) {
            self.publish(*descriptor, through);
        }
    }

    fn publish(&self, descriptor: RawFd, through: Option<RawFd>) {
        if let Some(fast) = usize::try_from(descriptor).ok().and_then(|nth| self.fast.get(nth)) {
            fast.store(through.unwrap_or(0), Ordering::Release);
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

    /// A connection that can write has joined some that can not, and was refused an exclusive lock for
    /// that: makes the file's descriptor one that can be locked so. False if that is not why.
    pub(crate) fn make_writable(&'static self, descriptor: RawFd) -> bool {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return false };
        let Some(file) = table.file(descriptor) else { return false };
        let Some(shared) = &file.shared else { return false };
        let Ok(writable) = open_as(descriptor) else { return false };
        // Shared locks do not exclude each other, so both descriptors can have them for a moment.
        let moved =
            shared.iter().all(|range| matches!(sys::try_lock(&writable, *range, true), Ok(true)));
        if !moved || sys::replace(file.descriptor.as_raw_fd(), &writable).is_err() {
            return false;
        }
        file.shared = None;
        if let Some(Some(inode)) = table.files.get(&descriptor) {
            self.publish_all(table, *inode);
        }
        true
    }

    /// SQLite has opened a descriptor: it is not one that was inherited and then closed by somebody
    /// else.
    pub(crate) fn opened(&'static self, descriptor: RawFd) {
        if fork::generation() > 0 {
            self.closing(descriptor);
        }
    }

    /// SQLite is about to close a descriptor.
    pub(crate) fn closing(&'static self, descriptor: RawFd) {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        let Some(inode) = table.files.remove(&descriptor) else { return };
        self.publish(descriptor, None);
        if let Some(Entry::Occupied(mut locked)) = inode.map(|inode| table.inodes.entry(inode)) {
            locked.get_mut().descriptors.retain(|known| *known != descriptor);
            if locked.get().descriptors.is_empty() {
                locked.remove();
            }
        }
    }

    /// Why the locks on a file are not protected, if they are not.
    pub(crate) fn why_not(&'static self, inode: Inode) -> Option<String> {
        let mut table = self.table.lock();
        let table = table.as_mut()?;
        match table.inodes.get(&inode).map(|locked| &locked.kind) {
            Some(Kind::Posix(why)) => Some(why.to_string()),
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

    /// In a forked child: closes the descriptors it inherited, which frees nothing of its parent's.
    pub(crate) fn abandon_inherited(&'static self) {
        let mut table = self.table.lock();
        let Some(table) = table.as_mut() else { return };
        table.inodes.clear();
        table.locked_before.clear();
        for (descriptor, inode) in &mut table.files {
            *inode = None;
            self.publish(*descriptor, None);
        }
    }
}

const LOCKED_BEFORE: &str = "this process had locked the database before the VFS was registered; \
                             close all of its connections to it, and open them again";

impl Table {
    fn add(&mut self, descriptor: RawFd, inode: Inode) {
        self.files.insert(descriptor, Some(inode));
        let (known, mut descriptors) = match self.inodes.remove(&inode) {
            Some(Locked { kind, descriptors }) => (Some(kind), descriptors),
            None => (None, Vec::new()),
        };
        descriptors.push(descriptor);
        let kind = match known {
            // Unless the locks of before are gone by now.
            Some(kind) if !self.locked_before.contains(&inode) => kind,
            _ if self.was_locked_before(inode) => Kind::Posix(io::Error::other(LOCKED_BEFORE)),
            _ => LockFile::open(descriptor).map_or_else(Kind::Posix, Kind::Ofd),
        };
        self.inodes.insert(inode, Locked { kind, descriptors });
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

    fn target(&self, inode: Inode) -> Target {
        match self.inodes.get(&inode).map(|locked| &locked.kind) {
            Some(Kind::Ofd(file)) => Target::Through(file.descriptor.as_raw_fd()),
            _ => Target::AsItIs,
        }
    }

    /// What its locks go through, if nothing else is to be done with them.
    fn plainly_through(&self, inode: Inode) -> Option<RawFd> {
        match self.inodes.get(&inode).map(|locked| &locked.kind) {
            Some(Kind::Ofd(LockFile { descriptor, shared: None })) => Some(descriptor.as_raw_fd()),
            _ => None,
        }
    }

    fn file(&mut self, descriptor: RawFd) -> Option<&mut LockFile> {
        let inode = self.files.get(&descriptor).copied().flatten()?;
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
        Ok(Self { descriptor: opened, shared })
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

    /// A board, and it opened to read, and to write.
    fn board() -> (tempfile::NamedTempFile, File, File) {
        let board = tempfile::NamedTempFile::new().expect("a file");
        let open = |writes| File::options().read(true).write(writes).open(board.path());
        let (reads, writes) = (open(false).expect("it is there"), open(true).expect("it is there"));
        (board, reads, writes)
    }

    fn begun(is_fast: bool) -> &'static LockTable {
        let table = Box::leak(Box::new(LockTable::new()));
        table.begin(is_fast).expect("there is a /proc");
        table
    }

    /// What a file's locks go through.
    fn through(table: &'static LockTable, file: &File) -> RawFd {
        match table.target(file.as_raw_fd()) {
            Target::Through(descriptor) => descriptor,
            other => panic!("{other:?}"),
        }
    }

    /// Locks as the replaced fcntl does.
    fn locks(descriptor: RawFd, range: Range, shared: bool) -> io::Result<bool> {
        sys::try_lock(&sys::duplicate(descriptor)?, range, shared)
    }

    /// Connections that only read lock, unlock and lock again, then one comes that can write: what they hold
    /// by then it finds held, nothing more and nothing less.
    #[test]
    fn who_joins_to_write_keeps_the_locks_of_those_who_read() {
        let (board, reads, writes) = board();
        let other = File::open(board.path()).expect("it is there");
        let is_locked = |range| sys::conflicting_lock(&other, range).expect("it is told").is_some();
        let table = begun(true);
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
        assert_eq!(table.known(reads.as_raw_fd()), None, "each of its locks is noted");
        assert_eq!(through(table, &writes), file);
        assert!(locks(file, PENDING, false).is_err(), "it can not be written by");

        assert!(table.make_writable(writes.as_raw_fd()));
        assert!(is_locked(SHARED) && !is_locked(PENDING));
        assert!(locks(file, PENDING, false).expect("it locks"));
        assert!(is_locked(PENDING));
        for descriptor in [&reads, &writes].map(File::as_raw_fd) {
            assert_eq!(table.known(descriptor), Some(file));
        }
        assert!(!table.make_writable(writes.as_raw_fd()), "it is");
        assert!(!table.make_writable(other.as_raw_fd()), "it is not in the table");
    }

    /// Only a connection that can write makes it so.
    #[test]
    fn who_only_reads_makes_nothing_writable() {
        let (_board, reads, _writes) = board();
        let table = begun(true);
        let file = through(table, &reads);
        table.make_writable(reads.as_raw_fd());
        assert!(locks(file, PENDING, false).is_err());
    }

    /// Several connections come and go. All lock by one descriptor, as long as there is one of them; who has
    /// closed his is forgotten, since its number may be another file's next.
    #[test]
    fn all_lock_by_one_descriptor_until_the_last_closes() {
        let (board, _reads, writes) = board();
        let second = File::options().read(true).write(true).open(board.path()).expect("a file");
        let other = File::open(board.path()).expect("it is there");
        let is_locked = || sys::conflicting_lock(&other, SHARED).expect("told").is_some();
        for is_fast in [true, false] {
            let table = begun(is_fast);
            let file = through(table, &writes);
            let known = |file: &File| table.known(file.as_raw_fd());
            let fast = is_fast.then_some(file);
            assert_eq!((known(&writes), known(&second)), (fast, None));
            assert!(locks(file, SHARED, false).expect("it locks"));
            assert_eq!(through(table, &second), file);
            assert_eq!((known(&writes), known(&second)), (fast, fast));
            assert!(is_locked());
            table.closing(writes.as_raw_fd());
            assert_eq!((known(&writes), known(&second)), (None, fast));
            assert!(is_locked(), "one is left");
            table.closing(second.as_raw_fd());
            assert_eq!((known(&writes), known(&second)), (None, None));
            assert!(!is_locked(), "its descriptor is closed");
        }
    }

    /// In a child of fork(2), what it inherited is locked by nothing, and a file that it opens is its own.
    #[test]
    fn what_a_child_inherits_is_not_locked() {
        let (_board, reads, writes) = board();
        let table = begun(true);
        through(table, &writes);
        assert!(table.known(writes.as_raw_fd()).is_some());
        table.abandon_inherited();
        assert_eq!(table.known(writes.as_raw_fd()), None);
        assert_eq!(table.target(writes.as_raw_fd()), Target::Inherited);
        through(table, &reads);
        table.closing(writes.as_raw_fd());
        through(table, &writes);
    }

    /// What this process had locked before stays as it is, and when it was unlocked since, the next connection
    /// ends that. A descriptor that is none is an error.
    #[test]
    fn what_was_locked_before_stays_as_it_is_until_it_is_unlocked() {
        let (_board, reads, writes) = board();
        let table = begun(true);
        let inode = sys::inode_of(writes.as_raw_fd()).expect("it is open");
        {
            let mut table = table.table.lock();
            let table = table.as_mut().expect("it has begun");
            table.locked_before.insert(inode);
            table.files.insert(writes.as_raw_fd(), Some(inode));
            let kind = Kind::Posix(io::Error::other(LOCKED_BEFORE));
            table.inodes.insert(inode, Locked { kind, descriptors: vec![writes.as_raw_fd()] });
        }
        assert_eq!(table.target(writes.as_raw_fd()), Target::AsItIs);
        assert_eq!(table.why_not(inode).as_deref(), Some(LOCKED_BEFORE));
        let file = through(table, &reads);
        assert_eq!(through(table, &writes), file);
        assert_eq!(table.why_not(inode), None);
        assert_eq!(table.target(-1), Target::Unknown(libc::EBADF));
    }
}

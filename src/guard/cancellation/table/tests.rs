use std::fs::File;
use std::os::fd::AsRawFd;

use super::*;
use sys::for_tests::{lock_by_posix, stale};

/// A thread locks a file while another registers the VFS. Until the table knows what was locked before, the call is made
/// as it is, under the mutex: the table either sees the lock or comes before the call.
#[test]
fn calls_are_made_as_they_are_until_it_has_begun() {
    static TABLE: LockTable = LockTable::new();
    assert_eq!(TABLE.before(|| 7), Some(7));
    TABLE.begin(true).expect("there is a /proc");
    assert_eq!(TABLE.before(|| 7), None);
}

/// A name of the database, the same in all of these tests.
const NAME: &str = "/there/board.db";

const PENDING: Range = Range { start: 0x4000_0000, len: 1 };
const SHARED: Range = Range { start: 0x4000_0002, len: 510 };

fn inode(file: &File) -> Inode {
    sys::inode_of(file.as_raw_fd()).expect("it is open")
}

/// A board, a descriptor to read it, and one to write it.
fn board() -> (tempfile::NamedTempFile, File, File) {
    let board = tempfile::NamedTempFile::new().expect("a file");
    let open = |writes| File::options().read(true).write(writes).open(board.path());
    let (reads, writes) = (open(false).expect("it is there"), open(true).expect("it is there"));
    (board, reads, writes)
}

/// A table of a process in which nothing is open through the VFS.
fn begun(has_shortcut: bool) -> &'static LockTable {
    let table = Box::leak(Box::new(LockTable::new()));
    table.begin(has_shortcut).expect("there is a /proc");
    table
}

/// A table of a process in which this file is open through the VFS, once.
fn with_ours(has_shortcut: bool, file: &File) -> &'static LockTable {
    let table = begun(has_shortcut);
    table.joined(inode(file), NAME.as_ref(), || None);
    table
}

/// The descriptor through which a file's locks go.
fn through(table: &'static LockTable, file: &File) -> RawFd {
    match table.target(file.as_raw_fd()) {
        Target::Through { descriptor, .. } => descriptor,
        other => panic!("{other:?}"),
    }
}

/// The word that is published for a descriptor.
fn word(table: &LockTable, file: &File) -> i32 {
    table.published.word(file.as_raw_fd())
}

/// Locks as the replaced fcntl does; false if another lock is in the way.
fn locks(descriptor: RawFd, range: Range, shared: bool) -> io::Result<bool> {
    sys::try_lock(&sys::duplicate(descriptor)?, range, shared)
}

/// Connections that can only read lock, unlock and lock again. Then a connection joins that can write: the lock
/// descriptor then has what the readers hold by then, nothing more and nothing less. From then on the file can be locked
/// exclusively, even when all that can write have gone, but never by a read-only descriptor.
#[test]
fn a_writing_connection_that_joins_keeps_the_locks_of_those_that_read() {
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
    assert_eq!(word(table, &reads), 0, "each of its locks is noted");
    assert!(locks(file, PENDING, false).is_err(), "it cannot be written by");
    assert!(!table.repair(reads.as_raw_fd()), "nor is there a connection that could");

    assert_eq!(through(table, &writes), file);
    assert!(is_locked(SHARED) && !is_locked(PENDING));
    assert!(locks(file, PENDING, false).expect("it locks"));
    assert!(is_locked(PENDING));
    assert_eq!((word(table, &reads), word(table, &writes)), (-file, file));
    assert!(!table.repair(writes.as_raw_fd()), "it is");
    assert!(!table.repair(other.as_raw_fd()), "it is not in the table");
    let of_reads = Target::Through { descriptor: file, is_read_only: true };
    assert_eq!(table.target(reads.as_raw_fd()), of_reads);
    assert!(table.closing(writes.as_raw_fd()));
    assert!(locks(file, PENDING, false).expect("it is as it was"));
    assert_eq!(table.target(reads.as_raw_fd()), of_reads);
}

/// Several connections come and go. All lock by one descriptor, as long as there is one connection, ours or not. The
/// table forgets a descriptor that was closed, since its number may be another file's next.
#[test]
fn all_connections_lock_by_one_descriptor_until_the_last_closes() {
    let (board, _reads, writes) = board();
    let second = File::options().read(true).write(true).open(board.path()).expect("a file");
    let other = File::open(board.path()).expect("it is there");
    let is_locked = || sys::conflicting_lock(&other, SHARED).expect("told").is_some();
    for has_shortcut in [true, false] {
        let table = with_ours(has_shortcut, &writes);
        let file = through(table, &writes);
        let known = |file: &File| word(table, file);
        let expected = if has_shortcut { file } else { 0 };
        assert_eq!((known(&writes), known(&second)), (expected, 0));
        assert!(locks(file, SHARED, false).expect("it locks"));
        assert_eq!(through(table, &second), file);
        assert_eq!((known(&writes), known(&second)), (expected, expected));
        assert!(is_locked());
        table.closing(writes.as_raw_fd());
        table.left(inode(&writes));
        assert_eq!((known(&writes), known(&second)), (0, expected));
        assert!(is_locked(), "one is left");
        assert_eq!(through(table, &writes), file, "and so does one that comes");
        table.closing(writes.as_raw_fd());
        table.closing(second.as_raw_fd());
        assert_eq!((known(&writes), known(&second)), (0, 0));
        assert!(!is_locked(), "its descriptor is closed");
        assert!(
            matches!(table.target(writes.as_raw_fd()), Target::AsItIs { .. }),
            "it is not ours"
        );
    }
}

/// A file that is not open through the VFS keeps POSIX locks, without a descriptor of ours. It becomes ours when the VFS
/// opens it. If it is locked then, or a call that locks it is under way, it becomes ours when it is unlocked.
#[test]
fn a_file_that_is_not_ours_keeps_posix_locks() {
    let (board, reads, writes) = board();
    let table = begun(true);
    let descriptor = writes.as_raw_fd();
    assert!(matches!(table.target(descriptor), Target::AsItIs { .. }));
    table.called(descriptor, false);
    assert!(matches!(table.known(descriptor), KnownTarget::AsItIs(_)));
    let own = table.table.lock().as_ref().map(|table| table.descriptors.own.len());
    assert_eq!(own, Some(0), "there is no descriptor of ours");
    table.joined(inode(&writes), NAME.as_ref(), || None);
    let file = through(table, &writes);
    assert_eq!(word(table, &writes), file);
    table.left(inode(&writes));
    assert_eq!(through(table, &writes), file, "as long as it is open");

    for how in ["locked", "calling", "calling slowly"] {
        let table = begun(true);
        assert!(matches!(table.target(descriptor), Target::AsItIs { .. }));
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
        table.joined(inode(&writes), NAME.as_ref(), || None);
        assert_eq!(table.why_not(inode(&writes)).as_deref(), Some(LOCKED_BEFORE), "{how}");
        assert!(matches!(table.known(descriptor), KnownTarget::Nothing), "{how}");
        drop(calling);
        assert!(matches!(table.target(descriptor), Target::AsItIs { .. }), "{how}");
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

/// A stock connection has a database and its wal-index open and locked. Then the VFS opens the database.
#[test]
fn a_wal_index_belongs_to_its_database() {
    let (_board, _, database) = board();
    let (_other, _, index) = board();
    let table = begun(true);
    assert!(matches!(table.target(database.as_raw_fd()), Target::AsItIs { .. }));
    table.called(database.as_raw_fd(), false);
    assert!(matches!(table.target(index.as_raw_fd()), Target::AsItIs { .. }));
    table.called(index.as_raw_fd(), false);
    lock_by_posix(&index, SHARED, libc::F_RDLCK);
    table.joined(inode(&database), NAME.as_ref(), || Some(inode(&index)));
    assert_eq!(table.why_not(inode(&database)), None);
    assert_eq!(table.why_not(inode(&index)).as_deref(), Some(LOCKED_BEFORE));
    table.left(inode(&database));
    assert!(matches!(table.known(index.as_raw_fd()), KnownTarget::AsItIs(_)));
    lock_by_posix(&index, SHARED, libc::F_UNLCK);

    let table = with_ours(true, &database);
    table.opened_wal_index(inode(&database), inode(&index));
    through(table, &index);
    // SQLite closes the wal-index, locked or not, as when it leaves WAL mode: another file may have its number then.
    for is_locked in [true, false] {
        table.opened_wal_index(inode(&database), inode(&index));
        if is_locked {
            through(table, &index);
        }
        assert!(table.closing(index.as_raw_fd()));
        assert!(matches!(table.target(index.as_raw_fd()), Target::AsItIs { .. }), "{is_locked}");
        table.called(index.as_raw_fd(), false);
        assert!(table.closing(index.as_raw_fd()));
    }
    table.opened_wal_index(inode(&database), inode(&index));
    assert!(table.closing(database.as_raw_fd()));
    through(table, &index);
}

/// SQLite opens a wal-index, and stat(2) fails on its database: then the wal-index belongs to the database that was
/// opened by this name.
#[test]
fn a_wal_index_belongs_to_a_database_by_its_name() {
    let (_board, _, database) = board();
    let (_other, _, index) = board();
    let table = with_ours(true, &database);
    table.opened_wal_index_beside("/another/board.db".as_ref(), inode(&index));
    assert!(matches!(table.target(index.as_raw_fd()), Target::AsItIs { .. }));
    table.called(index.as_raw_fd(), false);
    assert!(table.closing(index.as_raw_fd()));
    table.opened_wal_index_beside(NAME.as_ref(), inode(&index));
    through(table, &index);
}

/// In a child of fork(2), no lock is made by an inherited descriptor, and a file that the child opens is its own. A file
/// that was not ours keeps POSIX locks.
#[test]
fn a_forked_child_does_not_lock_by_what_it_inherits() {
    let (_board, reads, writes) = board();
    let (_second, _, stock) = board();
    let table = with_ours(true, &writes);
    through(table, &writes);
    assert!(matches!(table.target(stock.as_raw_fd()), Target::AsItIs { .. }));
    table.abandon_inherited();
    assert_eq!(word(table, &writes), 0);
    assert_eq!(table.target(writes.as_raw_fd()), Target::Inherited);
    assert!(table.inherited(inode(&writes)).is_some());
    assert!(matches!(table.known(stock.as_raw_fd()), KnownTarget::AsItIs(_)));
    assert_eq!(table.inherited(inode(&stock)), None);
    table.joined(inode(&writes), NAME.as_ref(), || None);
    through(table, &reads);
    table.closing(writes.as_raw_fd());
    through(table, &writes);
}

/// A file that this process had locked before keeps POSIX locks. Once it is unlocked, the next connection changes that.
/// A number that is no descriptor is an error.
#[test]
fn a_file_that_was_locked_before_keeps_posix_locks_until_it_is_unlocked() {
    let (_board, reads, writes) = board();
    lock_by_posix(&writes, SHARED, libc::F_RDLCK);
    let table = with_ours(true, &writes);
    assert_eq!(table.why_not(inode(&writes)).as_deref(), Some(LOCKED_BEFORE));
    assert!(matches!(table.target(writes.as_raw_fd()), Target::AsItIs { .. }));
    table.called(writes.as_raw_fd(), false);
    assert_eq!(table.why_not(inode(&writes)).as_deref(), Some(LOCKED_BEFORE));
    lock_by_posix(&writes, SHARED, libc::F_UNLCK);
    let file = through(table, &reads);
    assert_eq!(through(table, &writes), file);
    assert_eq!(table.why_not(inode(&writes)), None);
    assert_eq!(table.target(-1), Target::Unknown(libc::EBADF));
}

/// Code other than ours closes SQLite's descriptor of a file, or ours, and another file gets the number. If that is a
/// file of SQLite's, the table then knows it by the number. If it is one of ours, it stays open. If it is the
/// application's, it is not closed.
#[test]
fn a_number_is_not_trusted_after_its_file_was_closed() {
    /// Makes a number another file's, as close(2) and open(2) do.
    fn is_now(descriptor: RawFd, file: &File) {
        let file = sys::duplicate(file.as_raw_fd()).expect("it is open");
        sys::replace(descriptor, &file).expect("it is replaced");
    }
    let (_board, _, writes) = board();
    let (_second, _, other) = board();
    let number = |file: &File| sys::duplicate(file.as_raw_fd()).expect("it is open");

    // SQLite's descriptor becomes one of SQLite's.
    let table = with_ours(true, &writes);
    let leaked = File::from(number(&writes));
    let file = through(table, &leaked);
    is_now(leaked.as_raw_fd(), &other);
    table.opened(leaked.as_raw_fd());
    assert!(matches!(table.target(leaked.as_raw_fd()), Target::AsItIs { .. }));
    assert!(!sys::is_of(file, inode(&writes)), "the file is unlocked, and that closed");

    // Ours becomes one of SQLite's. The file gets another lock descriptor.
    let table = with_ours(true, &writes);
    let file = through(table, &writes);
    is_now(file, &other);
    table.opened(file);
    let another = through(table, &writes);
    assert!(another != file && sys::is_of(another, inode(&writes)));
    assert_eq!(word(table, &writes), another);
    assert!(sys::is_of(file, inode(&other)), "it is not closed");
    assert!(table.closing(file), "SQLite may");
    sys::close_inherited(file, inode(&other));

    // Ours becomes one of the application's.
    let table = with_ours(true, &writes);
    let file = through(table, &writes);
    is_now(file, &other);
    assert!(table.repair(writes.as_raw_fd()), "a lock has failed");
    assert_ne!(through(table, &writes), file);
    assert!(sys::is_of(file, inode(&other)), "it is not closed");
    sys::close_inherited(file, inode(&other));

    // SQLite's becomes ours, which SQLite must not close.
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

/// Somebody closes the lock descriptor of one file, and the lock descriptor of another gets its number.
#[test]
fn two_lock_descriptors_of_one_number_are_not_mixed_up() {
    let (_board, _, writes) = board();
    let (_second, _, other) = board();
    let table = with_ours(true, &writes);
    table.joined(inode(&other), NAME.as_ref(), || None);
    through(table, &writes);
    let file = through(table, &other);
    {
        let mut table_of = table.table.lock();
        let known = table_of.as_mut().expect("it has begun");
        let descriptor = stale(file, inode(&writes));
        let locked = known.files.get_mut(&inode(&writes)).expect("it is known");
        locked.kind = LockKind::Ofd(LockDescriptor::of(descriptor));
        known.number_was_reused(file, Some(inode(&writes)));
    }
    let another = through(table, &writes);
    assert!(another != file && sys::is_of(another, inode(&writes)));
    assert_eq!(through(table, &other), file);
    assert!(sys::is_of(file, inode(&other)));
}

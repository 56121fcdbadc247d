//! The last connection closes.

use super::super::test_base::ClearWalIndex;
use super::*;
use crate::format::{WAL_SUFFIX, beside};
use std::cell::RefCell;

/// Every connection that closes tries whether it is the last one, in order to clean up. Most are not, and their
/// attempt must not block anybody.
#[test]
fn a_closing_connection_blocks_no_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = RefCell::new(connection(&directory).0);
    let another_writes = move || {
        let mut writer = writer.borrow_mut();
        for flags in [LOCK, UNLOCK] {
            assert_eq!(writer.shm_lock(ShmSlot::WRITE, flags), ResultCode::OK);
        }
        ResultCode::BUSY
    };
    let base = TestBase::answering(another_writes);
    let mut closing = connection_over(&directory, base);
    closing.shm_mapping();
    assert_eq!(closing.lock(LockLevel::EXCLUSIVE), ResultCode::BUSY);
    assert!(!closing.holds_write_lock());
    // The writer must not outlive its file, since the next test's file may get its inode number.
    base.on_lock.take();
}

/// The last connection that closes has excluded all others by SQLite's own lock. It takes the write lock only so that
/// others see it.
#[test]
fn the_last_connection_cleans_up_under_the_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut closing, base) = connection(&directory);
    base.has_bytes(4096);
    // This makes the sidecar.
    closing.lock(LockLevel::RESERVED);
    closing.unlock(LockLevel::NONE);
    closing.shm_mapping();
    assert_eq!(closing.lock(LockLevel::EXCLUSIVE), ResultCode::OK);
    assert!(closing.holds_write_lock() && closing.closing == Closing::CopiesAll);
    closing.unlock(LockLevel::NONE);
    assert!(!closing.holds_write_lock() && closing.closing != Closing::CopiesAll);
}

/// The last connection closes, and another file has taken the database's place: the connection copies and deletes nothing.
/// It releases the lock by which it excluded all others, unless it had that lock before (exclusive locking mode).
#[test]
fn the_last_connection_to_a_replaced_database_cleans_up_nothing() {
    for held in [LockLevel::SHARED, LockLevel::EXCLUSIVE] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut closing, base) = connection(&directory);
        base.has_bytes(4096);
        closing.guards = guards_of(&closing);
        assert_eq!(closing.lock(LockLevel::SHARED), ResultCode::OK);
        closing.shm_mapping();
        assert_eq!(closing.lock(held), ResultCode::OK);
        let other = directory.path().join("other");
        fs::write(&other, "something").expect("a file");
        fs::rename(&other, closing.database().path()).expect("it is replaced");
        base.unlocked.take();
        assert_eq!(closing.lock(LockLevel::EXCLUSIVE), ResultCode::READONLY_DBMOVED);
        assert!(!matches!(closing.closing, Closing::CopiesAll));
        let released = if held == LockLevel::SHARED { vec![LockLevel::SHARED] } else { Vec::new() };
        assert_eq!(*base.unlocked.borrow(), released, "{held:?}");
    }
}

/// The last connection keeps the WAL and empties it. It leaves the WAL as it is if the wal-index does not say that
/// exactly all frames are copied, if another client has locked a slot, or if another file has taken the WAL's place.
#[test]
fn a_wal_that_is_kept_is_emptied_only_if_nobody_needs_it() {
    let all = (Lock(ShmSlots::ALL), Unlock(ShmSlots::ALL));
    let busy = Some((ShmSlot::WRITE, ResultCode::BUSY));
    for (frames, refuses, is_replaced, calls, is_emptied) in [
        ((5, 5), None, false, &[all.0, ClearWalIndex, all.1][..], true),
        ((5, 4), None, false, &[], false),
        ((4, 5), None, false, &[], false),
        ((5, 5), busy, false, &[all.0], false),
        ((5, 5), None, true, &[all.0, all.1], false),
    ] {
        let base = TestBase { refuses, ..TestBase::of_wal(&[frames], &[[1, 2]]) }.leak();
        let (place, connection) = connection_with_wal(base, &Options::default());
        let wal = beside(connection.database().path(), WAL_SUFFIX);
        if is_replaced {
            let other = place.path().join("other");
            fs::write(&other, "something").expect("a file");
            fs::rename(&other, &wal).expect("the WAL is replaced");
        }
        connection.empty_wal();
        assert_eq!(*base.calls.borrow(), calls, "{frames:?}, {is_replaced}");
        let length = fs::metadata(&wal).expect("the WAL exists").len();
        assert_eq!(length == 0, is_emptied, "{frames:?}, {is_replaced}");
    }
}

/// A connection opens the WAL while it holds EXCLUSIVE: it has switched to WAL mode, has read
/// nothing since, and closes as the last one. With SHARED it opens the WAL to use it.
#[test]
fn a_wal_that_is_opened_under_exclusive_is_about_to_go() {
    for (level, closing) in
        [(LockLevel::SHARED, Closing::No), (LockLevel::EXCLUSIVE, Closing::CopiesAll)]
    {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.lock(level), ResultCode::OK);
        connection.shm_mapping();
        assert_eq!(connection.closing, closing, "{level:?}");
        connection.unlock(LockLevel::NONE);
        assert_eq!(connection.closing, Closing::No);
    }
}

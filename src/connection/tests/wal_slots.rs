//! xShmLock.

use super::super::claim::Need;
use super::*;

/// The slots that a connection holds show what it wants WRITE for. That decides which checks come first, and what
/// a refusal means.
#[test]
fn the_slots_that_are_held_tell_what_write_is_for() {
    let need = |has_snapshot, has_ckpt, may_block| {
        WalSlots { has_snapshot, has_ckpt, ..WalSlots::default() }.need_of_write(may_block)
    };
    assert_eq!(need(false, false, false), Need::Recovery);
    assert_eq!(need(true, false, false), Need::Write);
    assert_eq!(need(false, false, true), Need::Write);
    for (has_snapshot, may_block) in [(false, false), (true, false), (false, true)] {
        assert_eq!(need(has_snapshot, true, may_block), Need::FinishCheckpoint);
    }
}

/// A checkpointer holds the first READ slot that a connection asks for, and the connection takes
/// the next one. With the second slot, the guards check whether the connection reads the right
/// files.
#[test]
fn a_refused_read_slot_leaves_the_guards_check_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    let flags = ShmFlags::LOCK_SHARED;
    for refuses_shared in [true, true, false, false] {
        base.refuses_shared.set(refuses_shared);
        assert!(!is_plain(&mut connection, ShmSlot::READ_0, flags), "the check is due");
        let expected = if refuses_shared { ResultCode::BUSY } else { ResultCode::OK };
        assert_eq!(connection.shm_lock(ShmSlot::READ_0, flags), expected);
    }
    assert!(is_plain(&mut connection, ShmSlot::READ_0, flags), "the check was done");
    assert!(connection.wal.has_snapshot);
    connection.shm_lock_failed(ShmSlot::READ_0.into(), flags, ResultCode::BUSY);
    assert!(!connection.wal.has_snapshot);
}

/// SQLite unlocks a READ slot while another thread may probe for the connection. That ends the
/// snapshot, so the next lock on WRITE is no upgrade. Other slots hold no snapshot.
#[test]
fn a_snapshot_ends_with_its_slot() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    for (slot, has_snapshot) in
        [(ShmSlot::CKPT, true), (ShmSlot::READ_0, false), (ShmSlot::read(4), false)]
    {
        connection.wal.has_snapshot = true;
        assert_eq!(connection.shm_lock(slot, ShmFlags::UNLOCK_SHARED), ResultCode::OK);
        assert_eq!(connection.wal.has_snapshot, has_snapshot, "{slot:?}");
    }
}

/// If a lock on a slot is refused, the connection leaves the slot alone. If the lock fails and may be held, the
/// connection unlocks the slot. If an unlock fails, it tries once more.
#[test]
fn a_slot_that_may_be_locked_is_unlocked() {
    let directory = tempfile::tempdir().expect("a directory");
    let slot = ShmSlot::read(1);
    for (lock, unlock) in [(ShmFlags::LOCK_SHARED, ShmFlags::UNLOCK_SHARED), (LOCK, UNLOCK)] {
        let unlocked = (ShmSlots::from(slot), unlock);
        for (flags, rc, answer, calls) in [
            (lock, ResultCode::BUSY, ResultCode::BUSY, &[][..]),
            (lock, ResultCode::BUSY.extended(1), ResultCode::BUSY.extended(1), &[]),
            (lock, ResultCode::IOERR_LOCK, ResultCode::IOERR_LOCK, &[unlocked]),
            (unlock, ResultCode::IOERR_LOCK, ResultCode::OK, &[unlocked]),
        ] {
            let (mut connection, base) = connection(&directory);
            connection.wal.has_snapshot = true;
            assert_eq!(connection.shm_lock_failed(slot.into(), flags, rc), answer);
            assert_eq!(connection.wal.has_snapshot, !lock.is_shared());
            assert_eq!(*base.slots.borrow(), calls, "{flags:?}, {rc:?}");
        }
        // For CKPT, which a checkpoint locks exclusively: a refusal, and an error.
        for (rc, unlocks) in [(ResultCode::BUSY, false), (ResultCode::IOERR_LOCK, true)] {
            let (mut connection, base) = connection(&directory);
            base.slot_answer.set(rc);
            assert_eq!(connection.shm_lock(ShmSlot::CKPT, LOCK), rc);
            let unlock = (ShmSlots::from(ShmSlot::CKPT), UNLOCK);
            assert_eq!(base.slots.borrow().contains(&unlock), unlocks);
            assert!(!connection.wal.has_ckpt);
        }
    }
}

/// A writer restarts the WAL. It locks CKPT first, and unlocks it with the readers' slots. A checkpoint locks the
/// readers' slots, too, but has had CKPT before and keeps it.
#[test]
fn a_restart_unlocks_the_checkpoint_slot_that_it_locked() {
    let directory = tempfile::tempdir().expect("a directory");
    for own in [ShmSlot::WRITE, ShmSlot::CKPT] {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        let mut shm_lock = |slots, flags| {
            assert_eq!(connection.shm_lock(slots, flags), ResultCode::OK);
        };
        shm_lock(ShmSlots::from(own), LOCK);
        base.slots.take();
        let (all, ckpt) = (ShmSlots::WAL_READERS, ShmSlots::from(ShmSlot::CKPT));
        for flags in [LOCK, UNLOCK, UNLOCK] {
            shm_lock(all, flags);
        }
        let slots = base.slots.take();
        let readers = [(all, LOCK), (all, UNLOCK), (all, UNLOCK)];
        let with_ckpt = [(ckpt, LOCK), readers[0], readers[1], (ckpt, UNLOCK), readers[2]];
        let expected: &[_] = if own == ShmSlot::WRITE { &with_ckpt } else { &readers };
        assert_eq!(slots, expected);
        connection.closed();
    }
}

/// A board has a second name, so nobody may write to it or checkpoint it. A reader may still lock a READ slot
/// exclusively, to set its mark.
#[test]
fn a_board_with_two_names_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    let path = connection.database().path().to_owned();
    std::fs::hard_link(&path, directory.path().join("second.db")).expect("a link");
    connection.guards = guards_of(&connection);
    base.has_bytes(4096);
    assert_eq!(connection.shm_lock(ShmSlot::read(1), LOCK), ResultCode::OK);
    assert_eq!(connection.shm_lock(ShmSlot::CKPT, LOCK), ResultCode::READONLY);
    connection.wal.has_snapshot = true;
    assert_eq!(connection.shm_lock(ShmSlot::WRITE, LOCK), ResultCode::READONLY);
    assert!(!connection.holds_write_lock());
}

/// A reader finds that the WAL is not the one that the wal-index describes, and unlocks its slot. A checkpointer
/// finds that the WAL was restarted after its checkpoint began, and unlocks its slot, too.
#[test]
#[cfg(unix)]
fn a_connection_that_may_not_go_on_keeps_no_slot() {
    let base = TestBase::of_wal(&[(5, 0)], &[[1, 2]]).leak();
    let (_place, mut reader) = connection_with_wal(base, &Options::default());
    let slot = ShmSlot::read(1);
    let rc = reader.shm_lock(slot, ShmFlags::LOCK_SHARED);
    assert_eq!(rc, ResultCode::READONLY_DBMOVED);
    assert_eq!(*base.calls.borrow(), [Lock(slot.into()), Unlock(slot.into())]);
    assert!(!reader.wal.has_snapshot);

    for (salts, answer) in [(&[[1, 2]][..], ResultCode::OK), (&[[1, 2], [3, 4]], ResultCode::BUSY)]
    {
        // All frames are copied already, so the checkpoint takes no write lock.
        let base = TestBase::of_wal(&[(5, 5)], salts).leak();
        let (_place, mut checkpointer) = connection_with_wal(base, &Options::default());
        assert_eq!(checkpointer.shm_lock(ShmSlot::CKPT, LOCK), ResultCode::OK);
        // In between, the checkpointer looks for a reader.
        for flags in [LOCK, UNLOCK] {
            assert_eq!(checkpointer.shm_lock(slot, flags), ResultCode::OK);
        }
        assert_eq!(checkpointer.shm_lock(ShmSlot::READ_0, LOCK), answer);
        let unlocks = base.calls.borrow().contains(&Unlock(ShmSlot::READ_0.into()));
        assert_eq!(unlocks, answer == ResultCode::BUSY);
    }
}

//! Checkpoints beside writers and after a failed sync.

use super::*;
#[cfg(target_os = "linux")]
use crate::group_commit::test_wal::{TestWal, frames, salts};

/// A reader keeps a snapshot, and all frames before it are copied. Each commit that finds the WAL long tries a
/// checkpoint, which can copy nothing and so takes no write lock. Once the reader is gone, or has a later mark, the
/// checkpoint copies under the write lock. The look for readers does not wait, even in an SQLite whose lock calls
/// may block.
#[test]
fn a_checkpoint_that_can_copy_nothing_takes_no_write_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    // This makes the sidecar.
    connection.lock(LockLevel::RESERVED);
    connection.unlock(LockLevel::SHARED);
    let cases = [(None, true), (Some(0), false), (Some(1), true)];
    for ((reader, joins), ms) in cases.into_iter().flat_map(|case| [(case, 0), (case, 9)]) {
        base.reader.set(reader);
        base.may_block(ms);
        connection.may_block(ms);
        for flags in [LOCK, UNLOCK] {
            assert_eq!(connection.shm_lock(ShmSlot::CKPT, flags), ResultCode::OK);
            let holds = flags == LOCK && joins;
            assert_eq!(connection.holds_write_lock(), holds, "{reader:?}, {ms}");
        }
        assert_eq!(base.blocks_ms.get(), ms);
    }
}

/// A checkpoint takes the write lock and releases it. The connection's right to go on writing still depends on how
/// it wrote before.
#[test]
fn a_checkpoint_does_not_change_the_pace_of_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, base) = connection(&directory);
    base.has_bytes(4096);
    connection.wal.has_snapshot = true;
    let mut held = Vec::new();
    let mut paces = Vec::new();
    for slot in [ShmSlot::WRITE, ShmSlot::CKPT] {
        for flags in [LOCK, UNLOCK] {
            assert_eq!(connection.shm_lock(slot, flags), ResultCode::OK);
            held.push(connection.holds_write_lock());
        }
        paces.push(format!("{:?}", connection.claim.pace()));
    }
    assert_eq!(held, [true, false, true, false]);
    assert_eq!(paces[0], paces[1]);
}

/// A sync of group commit has failed. A checkpoint first repairs it, while nobody writes. If the repair fails, too,
/// there is no checkpoint, and no slot stays locked.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_repairs_a_failed_sync_or_does_not_happen() {
    // All frames are copied already, so the checkpoint takes no write lock.
    let base = TestBase::of_wal(&[(3, 3)], &[salts()]).leak();
    let options = Options::default().with_group_commit(true);
    let (_place, mut connection) = connection_with_wal(base, &options);
    connection.database().make_sidecar();
    let wal = TestWal::new(frames(0x377f_0682, 512, 3));
    connection.shm_mapping();
    connection.group.wal_opened(Some(wal), connection.guards.files.wal());
    wal.seen(|memory| memory.failing = 1);
    let failed = connection.group.drain(|_| false);
    assert_eq!(failed, Err(ResultCode::IOERR_FSYNC));
    for failing in [2, 0] {
        base.calls.take();
        wal.seen(|memory| memory.failing = failing);
        let rc = connection.shm_lock(ShmSlot::CKPT, LOCK);
        let repair = [
            Lock(ShmSlot::CKPT.into()),
            Lock(ShmSlot::WRITE.into()),
            Unlock(ShmSlot::WRITE.into()),
        ];
        assert_eq!(base.calls.borrow()[..3], repair);
        if failing > 0 {
            assert_eq!(rc, ResultCode::IOERR_FSYNC);
            assert_eq!(base.calls.borrow()[3..], [Unlock(ShmSlot::CKPT.into())]);
        } else {
            assert_eq!(rc, ResultCode::OK);
            assert!(!base.calls.borrow().contains(&Unlock(ShmSlot::CKPT.into())));
        }
        assert_eq!(connection.wal.has_ckpt, failing == 0);
        let has_failed = connection.group.has_failed();
        assert_eq!(has_failed, failing > 0);
    }
}

/// Before a checkpoint copies, it syncs what is not durable yet. If that fails, there is no checkpoint, and nothing
/// stays locked.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_whose_sync_fails_does_not_happen() {
    let base = TestBase::of_wal(&[(3, 0)], &[salts()]).leak();
    let options = Options::default().with_group_commit(true);
    let (_place, mut connection) = connection_with_wal(base, &options);
    connection.database().make_sidecar();
    let wal = TestWal::new(frames(0x377f_0682, 512, 3));
    connection.shm_mapping();
    connection.group.wal_opened(Some(wal), connection.guards.files.wal());
    wal.seen(|memory| memory.failing = 9);
    let rc = connection.shm_lock(ShmSlot::CKPT, LOCK);
    assert_eq!(rc, ResultCode::IOERR_FSYNC);
    assert_eq!(*base.calls.borrow(), [Lock(ShmSlot::CKPT.into()), Unlock(ShmSlot::CKPT.into())]);
    assert!(!connection.wal.has_ckpt && !connection.holds_write_lock());
}

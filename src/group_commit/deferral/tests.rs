use super::*;
use crate::group_commit::test_wal::{TestCommitter, TestWal, frames};

const SYNC_FULL: c_int = 3;
const HEADER: usize = WalHeader::SIZE;

/// The sync of a commit is deferred if it follows no header. Other syncs are not deferred, nor are
/// those of a connection that has not asked for it, or that also writes to another database.
#[test]
fn the_sync_of_one_commit_is_deferred() {
    let wal = TestWal::new(Vec::new());
    assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
    assert_eq!(wal.take_asked().1, None);

    wal.defer(TestCommitter, false);
    wal.write(&[0; 24], 32);
    assert_eq!((wal.sync(SYNC_NORMAL | 0x10), wal.synced()), (ResultCode::OK, vec![]));
    assert_eq!(wal.take_asked().1, Some(SYNC_NORMAL | 0x10));
    assert_eq!(wal.take_asked().1, None);
    assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));

    wal.defer(TestCommitter, false);
    assert_eq!((wal.sync(SYNC_FULL), wal.synced()), (ResultCode::OK, vec![3]));
    assert_eq!(wal.take_asked().1, None);

    // The header must be on the disk before the frames behind it.
    wal.defer(TestCommitter, false);
    wal.write(&[7; HEADER], 0);
    assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
    wal.write(&[0; 24], 32);
    assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![]));
    // Neither of these writes is a header.
    for (bytes, at) in [(&[0; HEADER][..], 64), (&[0; 24], 0)] {
        wal.write(bytes, at);
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![]));
    }
    // The linked SQLite does not say what a connection writes to; a super-journal does.
    super::super::note_super_journal(true);
    wal.defer(TestCommitter, false);
    assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
    assert_eq!(wal.take_asked().1, None);
    super::super::note_super_journal(false);
}

/// The answers of SQLite's syncs are kept until they are taken, even across a commit whose sync is
/// deferred. A success does not hide a failure.
#[test]
fn what_sqlites_syncs_have_answered_is_known() {
    let memory = TestWal::new(frames(0x377f_0682, 512, 1));
    let wal = memory;
    assert_eq!(wal.take_synced(), None);
    memory.sync(SYNC_NORMAL);
    assert_eq!((wal.take_synced(), wal.take_synced()), (Some(true), None));
    wal.defer(TestCommitter, false);
    let header = [7; HEADER];
    memory.write(&header, 0);
    memory.seen(|memory| memory.failing = 1);
    assert_eq!(memory.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
    assert_eq!(wal.take_asked().1, None);
    assert_eq!(memory.sync(SYNC_NORMAL), ResultCode::OK);
    assert_eq!(wal.take_synced(), Some(false));
}

/// SQLite gets the error of a sync that fails, even of the header's sync. But if the error may have
/// been repaired already, the header is first written and synced once more, and only once.
#[test]
fn an_error_of_the_headers_sync_is_told_unless_it_comes_late() {
    for (reports_late, failing, answers, synced) in [
        (false, 1, [ResultCode::IOERR_FSYNC, ResultCode::OK], 2),
        (true, 0, [ResultCode::OK, ResultCode::OK], 2),
        (true, 1, [ResultCode::OK, ResultCode::OK], 3),
        (true, 2, [ResultCode::IOERR_FSYNC, ResultCode::OK], 3),
        (true, 3, [ResultCode::IOERR_FSYNC, ResultCode::IOERR_FSYNC], 3),
    ] {
        let wal = TestWal::new(Vec::new());
        wal.defer(TestCommitter, reports_late);
        wal.seen(|memory| memory.failing = failing);
        for answer in answers {
            wal.write(&[7; HEADER], 0);
            assert_eq!(wal.sync(SYNC_NORMAL), answer, "{reports_late}, {failing}");
        }
        assert_eq!(wal.synced().len(), synced, "{reports_late}, {failing}");
        let again = usize::from(reports_late && failing > 0);
        assert_eq!(wal.seen(|memory| memory.written.len()), 2 + again);
        assert_eq!(wal.seen(|memory| memory.bytes.clone()), [7; HEADER]);
    }
}

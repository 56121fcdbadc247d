use super::*;
use crate::group_commit::test_wal::{TestCommitter, TestWal};

/// What the wal-index says.
#[derive(Clone, Copy, Default)]
struct Index {
    committed: Option<(Salts, u32)>,
}

impl WalIndex for Index {
    type Wal = &'static TestWal;

    fn committed(&self) -> Option<(Salts, u32)> {
        self.committed
    }
    fn committer(&self) -> Option<TestCommitter> {
        Some(TestCommitter)
    }
}

/// A round is all that was committed since the commit before this one's was durable, also what came while
/// the sync lasted; not across a WAL that has begun anew. Of the first, all since it began.
#[test]
fn a_round_is_counted_from_commit_to_commit() {
    let mut company = Company::default();
    company.begins([0; 2], 8);
    for (durable, committed, round) in [(10, 14, 6), (22, 23, 13), (3, 4, 13), (5, 9, 6)] {
        company.waited(Waited { durable, committed });
        assert_eq!(company.round(), round);
    }
    company.left = Some(([0; 2], 9));
    for (frames, round) in [(9, 6), (9, 0), (10, 6)] {
        company.begins([0; 2], frames);
        assert_eq!(company.round(), round, "nobody else commits, if that is no chance");
    }
}

/// The WAL is closed: nothing of it is remembered, but that group commit is wanted, and that a failure was
/// told of.
#[test]
fn nothing_of_a_closed_wal_is_remembered() {
    let mut group = GroupCommit::new(true, Index::default());
    group.has_said = true;
    group.open.is_armed = true;
    group.open.failed_alone = Some(ResultCode::IOERR_FSYNC);
    group.open.company.alone = 3;
    group.wal_closed();
    assert!(group.is_on() && group.has_said && !group.open.is_armed);
    assert_eq!((group.open.failed_alone, group.open.company.alone), (None, 0));
}

#[cfg(target_os = "linux")]
mod with_a_wal {
    use super::*;
    use crate::format::{WAL_SUFFIX, beside};
    use crate::group_commit::test_wal::{frames, salts};
    use crate::sys;
    use std::fs;
    use std::sync::Arc;

    /// A board with a sidecar, its WAL of three frames, and a connection's group commit.
    struct Board {
        database: Arc<Database>,
        inode: Option<Inode>,
        wal: &'static TestWal,
        host: Host,
        group: GroupCommit<Index>,
        /// Removed last: the next test's file may get its inode number.
        _place: tempfile::TempDir,
    }

    impl Board {
        fn new() -> Self {
            let place = tempfile::tempdir().expect("a directory");
            let path = place.path().join("board.db");
            let wal_path = beside(&path, WAL_SUFFIX);
            for file in [&path, &wal_path] {
                fs::write(file, "something").expect("a file");
            }
            let database = Database::at(&path);
            database.make_sidecar();
            let wal = TestWal::new(frames(0x377f_0682, 512, 3));
            let mut group = GroupCommit::new(true, Index { committed: Some((salts(), 3)) });
            group.wal_opened(Some(wal));
            Self {
                _place: place,
                database,
                inode: Some(sys::entry_at(&wal_path).expect("it is there").inode),
                wal,
                host: Host::linked().expect("a linked SQLite"),
                group,
            }
        }

        /// The wal-index says that so many frames are committed.
        fn has(&mut self, frames: u32) {
            self.group.base.committed = Some((salts(), frames));
        }

        /// The WAL is another file, of so many frames.
        fn has_wal(&mut self, n: u32) {
            self.wal = TestWal::new(frames(0x377f_0682, 512, n));
            self.group.wal_opened(Some(self.wal));
        }

        fn begins(&mut self) {
            self.group.begins(&self.database, self.inode, true, true, &self.host);
        }

        /// As [`Self::begins`]: whether a commit that is to be durable would be rolled back, which SQLite does.
        fn is_refused(&mut self) -> bool {
            self.begins();
            let is_refused = self.wal.sync(SYNC_NORMAL) == ResultCode::IOERR_FSYNC;
            if is_refused {
                self.group.ends(self.inode);
            }
            is_refused
        }

        /// SQLite has written its frames, and syncs the WAL. Whether the base has done so, too.
        fn syncs(&self) -> bool {
            assert_eq!(self.wal.sync(SYNC_NORMAL), ResultCode::OK);
            !self.wal.synced().is_empty()
        }

        fn fails(&self, times: usize) {
            self.wal.seen(|memory| memory.failing = times);
        }

        fn commits(&mut self) -> Result<(), ResultCode> {
            self.group.commits(&self.database, &self.host)
        }

        fn mends(&self) -> Result<bool, ResultCode> {
            self.group.repair(&self.database, self.inode, &self.host)
        }

        fn has_failed(&self) -> bool {
            self.group.has_failed(&self.database, self.inode)
        }
    }

    /// A commit's sync is put off until WRITE is given back, and made before COMMIT returns. One that
    /// fails is told, nothing is built on it, and a checkpoint makes up for it.
    #[test]
    fn a_commit_returns_what_its_sync_does() {
        let mut board = Board::new();
        assert_eq!(board.group.why_not(&board.database, board.inode), Ok(()));
        for is_first in [true, false] {
            board.begins();
            assert!(!board.syncs() && !board.group.is_pending());
            board.group.ends(board.inode);
            assert!(board.group.is_pending() && board.wal.synced().is_empty());
            assert_eq!(board.commits(), Ok(()));
            assert_eq!(!board.wal.synced().is_empty(), is_first, "then all is durable");
            assert_eq!(board.commits(), Ok(()), "there is none any more");
            assert!(!board.group.is_pending());
        }

        // Another frame, as if it was committed now.
        board.has(4);
        board.has_wal(4);
        board.begins();
        assert!(!board.syncs());
        board.group.ends(board.inode);
        board.fails(9);
        assert_eq!(board.commits(), Err(ResultCode::IOERR_FSYNC));
        assert!(board.has_failed());
        assert_eq!(board.database.counters.syncs_failed.load(Ordering::Relaxed), 1);
        assert!(board.is_refused());
        assert_eq!(board.mends(), Err(ResultCode::IOERR_FSYNC));
        assert!(board.has_failed());
        board.fails(0);
        assert_eq!(board.mends(), Ok(true));
        assert!(!board.has_failed() && !board.is_refused());
    }

    /// When WRITE is given back, it can not be told which WAL it is: the sync is made at once, and what it
    /// answers is what COMMIT does, once.
    #[test]
    fn a_sync_that_can_not_be_shared_is_told_all_the_same() {
        for (failing, answer) in [(0, Ok(())), (1, Err(ResultCode::IOERR_FSYNC))] {
            let mut board = Board::new();
            board.begins();
            assert!(!board.syncs());
            board.fails(failing);
            board.group.base.committed = None;
            board.group.ends(board.inode);
            assert_eq!(board.wal.synced(), [SYNC_NORMAL]);
            assert!(!board.group.is_pending());
            assert_eq!(board.commits(), answer);
            assert_eq!(board.commits(), Ok(()));
            assert!(board.wal.synced().is_empty());
        }
    }

    /// In exclusive locking mode WRITE is not given back: COMMIT syncs for itself.
    #[test]
    fn a_commit_that_keeps_write_syncs_for_itself() {
        for (failing, answer) in [(0, Ok(())), (1, Err(ResultCode::IOERR_FSYNC))] {
            let mut board = Board::new();
            board.begins();
            assert!(!board.syncs());
            board.fails(failing);
            assert_eq!(board.commits(), answer);
            assert_eq!(board.wal.synced(), [SYNC_NORMAL]);
        }
    }

    /// Without company a connection syncs in its commits, once it knows that its file tells of everything.
    /// Somebody else's commit ends that.
    #[test]
    fn who_is_alone_puts_nothing_off() {
        let mut board = Board::new();
        let is_put_off = |board: &mut Board| {
            board.begins();
            let is_put_off = !board.syncs();
            board.group.ends(board.inode);
            assert_eq!(board.commits(), Ok(()));
            board.wal.synced();
            is_put_off
        };
        let until_then = (0..=u16::from(ALONE)).filter(|_| is_put_off(&mut board)).count();
        assert_eq!(until_then, usize::from(ALONE));
        assert!(!is_put_off(&mut board));
        board.has(2);
        assert!(is_put_off(&mut board), "another has committed");
    }

    impl Board {
        /// Commits until it is alone, and once more.
        fn alone() -> Self {
            let mut board = Self::new();
            for _ in 0..=ALONE + 1 {
                board.begins();
                board.syncs();
                board.group.ends(board.inode);
                assert_eq!(board.commits(), Ok(()));
            }
            assert!(board.group.open.is_alone);
            board
        }

        /// It has committed another frame.
        fn grows(&mut self) {
            self.has(4);
            self.has_wal(4);
            self.group.open.company.left = self.group.base.committed;
            assert_eq!(self.wal.sync(SYNC_NORMAL), ResultCode::OK);
        }

        /// Somebody else's checkpoint syncs, and that fails.
        fn another_fails(&self) {
            let wal = TestWal::new(frames(0x377f_0682, 512, 4));
            wal.seen(|memory| memory.failing = 1);
            let mut other = GroupCommit::new(true, self.group.base);
            other.wal_opened(Some(wal));
            let drained = other.drain(&self.database, self.inode, |_| false);
            assert_eq!(drained, Err(ResultCode::IOERR_FSYNC));
        }
    }

    /// Somebody's sync fails while another is alone, whose own sync is told of that by the kernel: then that one
    /// looks, and builds nothing on what is not durable.
    #[test]
    fn who_is_alone_looks_when_its_own_sync_fails() {
        let mut board = Board::alone();
        board.grows();
        board.another_fails();
        board.begins();
        assert_eq!(board.group.open.company.durable, 4, "what it wrote alone is no round");
        // The kernel tells each file.
        board.fails(1);
        assert_eq!(board.wal.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
        board.group.ends(board.inode);
        board.fails(9);
        assert!(board.is_refused() && !board.group.open.is_alone);
        board.fails(0);
        assert!(!board.is_refused() && !board.has_failed());
    }

    /// Who is alone checkpoints, and that sync fails: the kernel has told its file, and will not again. So it looks;
    /// so does one whose last commit did not sync, which nobody tells.
    #[test]
    fn who_is_alone_looks_when_no_sync_would_tell() {
        let mut board = Board::alone();
        board.grows();
        board.fails(1);
        let drained = board.group.drain(&board.database, board.inode, |_| false);
        assert_eq!(drained, Err(ResultCode::IOERR_FSYNC));
        board.fails(9);
        assert!(board.is_refused());

        let mut board = Board::alone();
        board.grows();
        board.begins();
        board.group.ends(board.inode);
        board.another_fails();
        board.fails(9);
        assert!(board.is_refused());
    }

    /// A sync has failed of which nobody was promised anything, and once: the next commit that is to be durable
    /// makes up for it. One that is not makes no sync, and none is refused, however long the disk fails; if it
    /// wants one all the same, that fails. An attempt is made again when `PRAGMA synchronous` was run.
    #[test]
    fn who_promises_nothing_is_refused_nothing() {
        let mut board = Board::new();
        board.another_fails();
        assert!(board.has_failed());
        board.fails(9);
        // With `synchronous=NORMAL`: SQLite does not sync.
        board.begins();
        assert_eq!(board.wal.synced().len(), 2, "nothing is known of it yet");
        board.has(4);
        board.group.ends(board.inode);
        assert!(board.commits() == Ok(()) && board.group.promises_nothing());
        board.wal.synced();
        board.begins();
        assert!(board.wal.synced().is_empty() && board.has_failed());
        assert_eq!(board.wal.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
        board.group.ends(board.inode);
        assert!(!board.group.promises_nothing(), "it was asked for a sync");
        board.group.open.syncs = Some(false);
        board.group.synchronous_changes();
        board.fails(0);
        board.has(3);
        assert!(!board.is_refused() && !board.has_failed());
    }

    /// SQLite's own sync of a checkpoint fails, which is noted nowhere, and the kernel tells that file no more: before
    /// it syncs for others, all that is not known to be durable is written once more.
    #[test]
    fn a_file_that_was_told_of_an_error_does_not_speak_for_what_was_there() {
        for is_told in [false, true] {
            let mut board = Board::new();
            board.begins();
            assert!(!board.syncs());
            board.group.ends(board.inode);
            assert_eq!(board.commits(), Ok(()));
            board.grows();
            if is_told {
                board.fails(1);
                assert_eq!(board.wal.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
            }
            board.begins();
            assert!(!board.group.open.is_alone);
            board.wal.synced();
            board.wal.written();
            assert!(!board.syncs());
            board.group.ends(board.inode);
            assert_eq!(board.commits(), Ok(()));
            assert_eq!(board.wal.synced().len(), 1);
            assert_eq!(!board.wal.written().is_empty(), is_told);
        }
    }

    /// A checkpoint that has excluded writers makes durable what is not, and is told if that fails.
    #[test]
    fn a_checkpoint_makes_commits_durable_first() {
        for (failing, answer) in [(0, Ok(())), (9, Err(ResultCode::IOERR_FSYNC))] {
            let board = Board::new();
            board.fails(failing);
            let looks = Cell::new(0);
            let is_marked = |frames| {
                assert_eq!(frames, 3);
                looks.set(looks.get() + 1);
                looks.get() < 3
            };
            let drained = board.group.drain(&board.database, board.inode, is_marked);
            assert_eq!(drained, answer);
            assert!(!board.wal.synced().is_empty());
            assert_eq!(board.has_failed(), answer.is_err());
            assert_eq!(looks.get() > 0, answer.is_ok());
        }
    }

    /// Why syncs are not shared is told, in the order in which it can be changed.
    #[test]
    fn why_syncs_are_not_shared_is_told() {
        let mut board = Board::new();
        let why_not = |board: &Board, inode| board.group.why_not(&board.database, inode).err();
        let says = |why: Option<&str>, what: &str| why.is_some_and(|why| why.contains(what));
        assert!(says(why_not(&board, None), "can not be told from others"));
        board.group.wal_closed();
        assert!(says(why_not(&board, board.inode), "not in WAL mode"));
        board.group.is_on = false;
        assert!(says(why_not(&board, board.inode), "not set"));
        // Without it nothing is put off, and nothing fails.
        assert_eq!(
            (board.is_refused(), board.has_failed(), board.mends()),
            (false, false, Ok(true))
        );
        assert!(board.syncs());
    }
}

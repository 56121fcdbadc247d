use super::*;
use crate::ffi::host::Host;
use crate::group_commit::test_wal::{TestCommitter, TestWal};
use std::path::Path;

/// The wal-index.
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

/// After the WAL is closed, a connection remembers only that it wants group commit, and that a
/// failure was logged.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "group commit is Linux's")]
fn nothing_of_a_closed_wal_is_remembered() {
    for sync in [CommitSync::Deferrable, CommitSync::Failed(ResultCode::IOERR_FSYNC)] {
        let database = Database::at(Path::new("/board.db"));
        let log = Log::of(Host::linked().expect("a linked SQLite"), 1, false);
        let mut group = GroupCommit::new(true, Index::default(), database, log);
        group.has_logged = true;
        group.open.sync = sync;
        group.open.others.note_end(Some(([0; 2], 0)));
        (0..3).for_each(|_| group.open.others.note_begin([0; 2], 0));
        assert_ne!(group.open.others, OtherWriters::default());
        group.wal_closed();
        assert!(group.is_on() && group.has_logged);
        assert_eq!(group.open.sync, CommitSync::Own);
        assert_eq!(group.open.others, OtherWriters::default());
    }
}

#[cfg(target_os = "linux")]
mod with_a_wal {
    use super::*;
    use crate::format::{WAL_SUFFIX, beside};
    use crate::group_commit::other_writers::SOLE_AFTER;
    use crate::group_commit::test_wal::{frames, salts};
    use crate::sys;
    use std::fs;
    use std::sync::atomic::Ordering;

    /// A board with a sidecar, a WAL of three frames, and the group commit of one connection.
    struct Board {
        wal: &'static TestWal,
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
            let base = Index { committed: Some((salts(), 3)) };
            let log = Log::of(Host::linked().expect("a linked SQLite"), 1, false);
            let mut group = GroupCommit::new(true, base, database, log);
            let inode = sys::entry_at(&wal_path).expect("it is there").inode;
            group.wal_opened(Some(wal), Some(inode));
            Self { _place: place, wal, group }
        }

        /// The wal-index says that `frames` are committed.
        fn has(&mut self, frames: u32) {
            self.group.base.committed = Some((salts(), frames));
        }

        /// The WAL is another file, of `n` frames.
        fn has_wal(&mut self, n: u32) {
            self.wal = TestWal::new(frames(0x377f_0682, 512, n));
            self.group.wal_opened(Some(self.wal), self.group.inode);
        }

        fn begins(&mut self) {
            self.group.begins(true, true);
        }

        /// [`Self::begins`], and SQLite syncs. Returns whether the sync fails: then SQLite rolls
        /// the commit back.
        fn is_refused(&mut self) -> bool {
            self.begins();
            let is_refused = self.wal.sync(SYNC_NORMAL) == ResultCode::IOERR_FSYNC;
            if is_refused {
                self.group.ends();
            }
            is_refused
        }

        /// SQLite has written its frames, and syncs the WAL. Returns whether the base VFS has
        /// synced it, too.
        fn syncs(&self) -> bool {
            assert_eq!(self.wal.sync(SYNC_NORMAL), ResultCode::OK);
            !self.wal.synced().is_empty()
        }

        fn fails(&self, times: usize) {
            self.wal.seen(|memory| memory.failing = times);
        }

        fn commits(&mut self) -> Result<(), ResultCode> {
            self.group.commits()
        }

        fn repairs(&self) -> Result<bool, ResultCode> {
            self.group.repair()
        }

        fn has_failed(&self) -> bool {
            self.group.has_failed()
        }
    }

    /// A commit's sync is deferred until WRITE is unlocked, and made before COMMIT returns. COMMIT
    /// returns its error, no frames are added after such a commit, and a checkpoint repairs the
    /// sync.
    #[test]
    fn a_commit_returns_what_its_sync_answers() {
        let mut board = Board::new();
        assert_eq!(board.group.why_not(), Ok(()));
        for is_first in [true, false] {
            board.begins();
            assert!(!board.syncs() && !board.group.is_pending());
            board.group.ends();
            assert!(board.group.is_pending() && board.wal.synced().is_empty());
            assert_eq!(board.commits(), Ok(()));
            assert_eq!(!board.wal.synced().is_empty(), is_first, "all frames are durable then");
            assert_eq!(board.commits(), Ok(()), "nothing is pending any more");
            assert!(!board.group.is_pending());
        }

        // The connection commits another frame.
        board.has(4);
        board.has_wal(4);
        board.begins();
        assert!(!board.syncs());
        board.group.ends();
        board.fails(9);
        assert_eq!(board.commits(), Err(ResultCode::IOERR_FSYNC));
        assert!(board.has_failed());
        assert_eq!(board.group.database.counters.syncs_failed.load(Ordering::Relaxed), 1);
        assert!(board.is_refused());
        assert_eq!(board.repairs(), Err(ResultCode::IOERR_FSYNC));
        assert!(board.has_failed());
        board.fails(0);
        assert_eq!(board.repairs(), Ok(true));
        assert!(!board.has_failed() && !board.is_refused());
    }

    /// When WRITE is unlocked, the WAL cannot be identified. So the sync is made at once, and
    /// COMMIT returns its answer, once.
    #[test]
    fn a_commit_whose_sync_cannot_be_shared_returns_what_it_answers() {
        for (failing, answer) in [(0, Ok(())), (1, Err(ResultCode::IOERR_FSYNC))] {
            let mut board = Board::new();
            board.begins();
            assert!(!board.syncs());
            board.fails(failing);
            board.group.base.committed = None;
            board.group.ends();
            assert_eq!(board.wal.synced(), [SYNC_NORMAL]);
            assert!(!board.group.is_pending());
            assert_eq!(board.commits(), answer);
            assert_eq!(board.commits(), Ok(()));
            assert!(board.wal.synced().is_empty());
        }
    }

    /// In exclusive locking mode WRITE stays locked, and COMMIT syncs for itself.
    #[test]
    fn a_commit_that_keeps_write_locked_syncs_for_itself() {
        for (failing, answer) in [(0, Ok(())), (1, Err(ResultCode::IOERR_FSYNC))] {
            let mut board = Board::new();
            board.begins();
            assert!(!board.syncs());
            board.fails(failing);
            assert_eq!(board.commits(), answer);
            assert_eq!(board.wal.synced(), [SYNC_NORMAL]);
        }
    }

    /// A sole writer syncs in its commits once its file is known to report every error, until another
    /// connection commits.
    #[test]
    fn a_sole_writer_defers_nothing() {
        let mut board = Board::new();
        let is_deferred = |board: &mut Board| {
            board.begins();
            let is_deferred = !board.syncs();
            board.group.ends();
            assert_eq!(board.commits(), Ok(()));
            board.wal.synced();
            is_deferred
        };
        let until_then = (0..=u16::from(SOLE_AFTER)).filter(|_| is_deferred(&mut board)).count();
        assert_eq!(until_then, usize::from(SOLE_AFTER));
        assert!(!is_deferred(&mut board));
        board.has(2);
        assert!(is_deferred(&mut board), "another has committed");
    }

    impl Board {
        /// A board whose connection has become a sole writer, and has committed once more.
        fn with_sole_writer() -> Self {
            let mut board = Self::new();
            for _ in 0..=SOLE_AFTER + 1 {
                board.begins();
                board.syncs();
                board.group.ends();
                assert_eq!(board.commits(), Ok(()));
            }
            assert_eq!(board.group.open.sync, CommitSync::Sole);
            board
        }

        /// The connection has committed another frame.
        fn grows(&mut self) {
            self.has(4);
            self.has_wal(4);
            self.group.open.others.note_end(self.group.base.committed);
            assert_eq!(self.wal.sync(SYNC_NORMAL), ResultCode::OK);
        }

        /// Another connection's checkpoint syncs, and that fails.
        fn another_fails(&self) {
            let wal = TestWal::new(frames(0x377f_0682, 512, 4));
            wal.seen(|memory| memory.failing = 1);
            let database = Arc::clone(&self.group.database);
            let mut other = GroupCommit::new(true, self.group.base, database, self.group.log);
            other.wal_opened(Some(wal), self.group.inode);
            let drained = other.drain(|_| false);
            assert_eq!(drained, Err(ResultCode::IOERR_FSYNC));
        }
    }

    /// The sync of a checkpoint fails beside a sole writer. The kernel reports that to the writer's
    /// own sync as well: then the writer reads the record, and adds no frames to those that are not
    /// durable.
    #[test]
    fn a_sole_writer_reads_the_record_when_its_own_sync_fails() {
        let mut board = Board::with_sole_writer();
        board.grows();
        board.another_fails();
        board.begins();
        assert_eq!(board.group.open.others.durable(), 4, "its own frames are no round");
        // The kernel reports the error to each file.
        board.fails(1);
        assert_eq!(board.wal.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
        board.group.ends();
        board.fails(9);
        assert!(board.is_refused() && board.group.open.sync != CommitSync::Sole);
        board.fails(0);
        assert!(!board.is_refused() && !board.has_failed());
    }

    /// A sole writer checkpoints, and that sync fails. The kernel has reported the error to its
    /// file and does not do so again. So the writer reads the record. A writer whose last commit
    /// did not sync gets no error, and reads it, too.
    #[test]
    fn a_sole_writer_reads_the_record_when_no_sync_would_report_a_failure() {
        let mut board = Board::with_sole_writer();
        board.grows();
        board.fails(1);
        let drained = board.group.drain(|_| false);
        assert_eq!(drained, Err(ResultCode::IOERR_FSYNC));
        board.fails(9);
        assert!(board.is_refused());

        let mut board = Board::with_sole_writer();
        board.grows();
        board.begins();
        board.group.ends();
        board.another_fails();
        board.fails(9);
        assert!(board.is_refused());
    }

    /// A sync fails while a connection's commits promise no durability. It does not sync in them,
    /// and none of them is refused, however long the disk fails; if SQLite still asks for a sync,
    /// that fails. The next commit that must be durable repairs the failure, and so does the first
    /// one after `PRAGMA synchronous`.
    #[test]
    fn a_connection_that_promises_nothing_is_refused_nothing() {
        let mut board = Board::new();
        board.another_fails();
        assert!(board.has_failed());
        board.fails(9);
        // With `synchronous=NORMAL`: SQLite does not sync.
        board.begins();
        assert_eq!(board.wal.synced().len(), 2, "nobody knows yet whether it syncs");
        board.has(4);
        board.group.ends();
        assert!(board.commits() == Ok(()) && board.group.promises_nothing());
        board.wal.synced();
        board.begins();
        assert!(board.wal.synced().is_empty() && board.has_failed());
        assert_eq!(board.wal.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
        board.group.ends();
        assert!(!board.group.promises_nothing(), "SQLite has asked for a sync");
        board.group.open.last_sync = LastSync::Unsynced;
        board.group.synchronous_changes();
        board.fails(0);
        board.has(3);
        assert!(!board.is_refused() && !board.has_failed());
    }

    /// SQLite's own sync of a checkpoint fails. That is not noted in the page, and the kernel does
    /// not report it to that file again. So before that file syncs for others, all frames that are
    /// not known to be durable are written once more.
    #[test]
    fn a_file_that_has_reported_an_error_does_not_vouch_for_older_frames() {
        for has_reported in [false, true] {
            let mut board = Board::new();
            board.begins();
            assert!(!board.syncs());
            board.group.ends();
            assert_eq!(board.commits(), Ok(()));
            board.grows();
            if has_reported {
                board.fails(1);
                assert_eq!(board.wal.sync(SYNC_NORMAL), ResultCode::IOERR_FSYNC);
            }
            board.begins();
            assert_ne!(board.group.open.sync, CommitSync::Sole);
            board.wal.synced();
            board.wal.written();
            assert!(!board.syncs());
            board.group.ends();
            assert_eq!(board.commits(), Ok(()));
            assert_eq!(board.wal.synced().len(), 1);
            assert_eq!(!board.wal.written().is_empty(), has_reported);
        }
    }

    /// A checkpoint that has excluded writers makes their commits durable first. If that fails, the
    /// checkpoint fails, too.
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
            let drained = board.group.drain(is_marked);
            assert_eq!(drained, answer);
            assert!(!board.wal.synced().is_empty());
            assert_eq!(board.has_failed(), answer.is_err());
            assert_eq!(looks.get() > 0, answer.is_ok());
        }
    }

    /// The status says why syncs are not shared. Of several reasons it names the one to remove first.
    #[test]
    fn the_status_says_why_syncs_are_not_shared() {
        let mut board = Board::new();
        let says = |why: Option<&str>, what: &str| why.is_some_and(|why| why.contains(what));
        board.group.inode = None;
        assert!(says(board.group.why_not().err(), "cannot be identified"));
        board.group.wal_closed();
        assert!(says(board.group.why_not().err(), "not in WAL mode"));
        board.group.is_on = false;
        assert!(says(board.group.why_not().err(), "not set"));
        // Without group commit nothing is deferred, and nothing fails.
        assert_eq!(
            (board.is_refused(), board.has_failed(), board.repairs()),
            (false, false, Ok(true))
        );
        assert!(board.syncs());
    }
}

//! Group commit, as one connection takes part in it: which syncs are put off, and what COMMIT waits
//! for. [`crate::lock::group`] has the rest.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::BaseFile;
use super::wal::{OpenWal, write_again};
use crate::ffi::{Rc, SQLITE_IOERR_FSYNC, SQLITE_OK};
use crate::guard::wal_reset::Salts;
use crate::host::Host;
use crate::lock::group::{NotDurable, Opened, Waited, Wal};
use crate::lock::page::Log;
use crate::lock::sidecar::Sidecar;
use crate::lock::{Database, queue::Queue};
use crate::sys::Inode;

thread_local! {
    /// How many super-journals this thread has open: of a transaction over several databases with
    /// rollback journals, SQLite does not look at what FCNTL_COMMIT_PHASETWO answers.
    static SUPER_JOURNALS: Cell<u32> = const { Cell::new(0) };
}

/// This thread has opened a super-journal, or closed one.
pub(super) fn super_journal(is_opened: bool) {
    let _ = SUPER_JOURNALS.try_with(|open| {
        open.set(if is_opened { open.get() + 1 } else { open.get().saturating_sub(1) });
    });
}

/// Whether this thread is in the first phase of such a commit.
pub(super) fn has_super_journal() -> bool {
    SUPER_JOURNALS.try_with(|open| open.get() > 0).unwrap_or(true)
}

/// Whether the kernel tells of a failed sync by each open file. <https://lwn.net/Articles/724307/>
const KERNEL_TELLS_EACH: bool = cfg!(target_os = "linux");

/// How long a checkpoint waits for those whose commits it has made durable to take their read marks
/// away.
const MARKS_LAST: Duration = Duration::from_millis(1);

/// A commit whose sync was put off.
#[derive(Clone, Copy)]
struct Pending {
    log: Log,
    salts: Salts,
    /// Its last frame.
    frames: u32,
    flags: c_int,
}

/// The WAL of a connection that holds a read mark, the WRITE slot or CKPT, so that it does not begin
/// anew.
struct OpenedWal<'b, B> {
    base: B,
    salts: Salts,
    flags: c_int,
    wal: OpenWal,
    opened: &'b Cell<Opened>,
    round: u32,
}

impl<B: BaseFile> Wal for OpenedWal<'_, B> {
    fn committed(&self) -> u32 {
        self.base.committed().map_or(0, |(_, frames)| frames)
    }

    fn sync(&self) -> Result<(), Rc> {
        match self.wal.sync(self.flags) {
            SQLITE_OK => Ok(()),
            rc => Err(rc),
        }
    }

    fn write_again(&self, behind: u32) -> bool {
        write_again(self.wal, self.salts, behind, self.committed())
    }

    fn opened(&self) -> &Cell<Opened> {
        self.opened
    }

    fn round(&self) -> u32 {
        self.round
    }
}

/// Group commit of one connection.
#[derive(Default)]
pub(super) struct GroupCommit {
    is_on: bool,
    /// While the wal-index is mapped.
    wal: Option<OpenWal>,
    /// Whether the sync of the transaction that is open may be put off.
    is_armed: bool,
    pending: Option<Pending>,
    /// What a sync answered that was put off and could not be shared.
    failed_alone: Option<Rc>,
    /// What this connection's file of the WAL tells of.
    opened: Cell<Opened>,
    company: Company,
    /// Whether it syncs in its commits as without group commit, until somebody else commits or a sync of its own
    /// fails: it is alone, and its file of the WAL tells of every failure.
    is_alone: bool,
    /// Whether the log was told of a failure that still stands.
    has_said: bool,
    /// The WAL's salts and its frames when WRITE was taken.
    began: Option<(Salts, u32)>,
    /// Whether SQLite has synced the WAL in the last commit, as it does with `synchronous=FULL`; `None` if that is
    /// not known.
    syncs: Option<bool>,
}

/// Who else commits, as one connection sees it.
#[derive(Default)]
struct Company {
    /// The WAL's salts and its frames after the connection's last commit.
    left: Option<(Salts, u32)>,
    /// How many of its commits nobody's came between.
    alone: u8,
    /// How many frames were durable when the last commit that waited was.
    durable: u32,
    /// How many frames were committed from when the one before it was durable until then.
    round: u32,
}

/// After so many commits of its own that nobody's came between, a connection syncs in the commit, as
/// without group commit: there is nobody to share with.
const ALONE: u8 = 16;

impl Company {
    /// WRITE was taken, and so many frames are committed.
    fn begins(&mut self, salts: Salts, frames: u32) {
        if self.left == Some((salts, frames)) {
            self.alone = (self.alone + 1).min(ALONE);
        } else {
            self.alone = 0;
        }
        if self.alone > 0 || self.left.is_none() {
            // Its own are no round, nor is what was there before.
            self.durable = frames;
        }
    }

    /// A commit has waited.
    fn waited(&mut self, waited: Waited) {
        // Not if the WAL has begun anew.
        self.round = waited.committed.checked_sub(self.durable).unwrap_or(self.round);
        self.durable = waited.durable;
    }

    /// As [`Wal::round`].
    fn round(&self) -> u32 {
        // Once may be chance: it was the last of a round to commit, and the first of the next.
        if self.alone > 1 { 0 } else { self.round }
    }
}

impl GroupCommit {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on: is_on && !cfg!(windows), ..Self::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether COMMIT is about to wait.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The WAL is open, until [`Self::wal_closed`]; `None` if its syncs can not be put off.
    pub(super) fn wal_opened(&mut self, wal: Option<OpenWal>) {
        self.wal = wal;
    }

    /// The WAL is about to be closed.
    pub(super) fn wal_closed(&mut self) {
        *self = Self { is_on: self.is_on, has_said: self.has_said, ..Self::default() };
    }

    /// Why commits sync for themselves. Only while the wal-index is mapped.
    pub(super) fn why_not(
        &self,
        database: &Database,
        wal: Option<Inode>,
    ) -> Result<(), &'static str> {
        if cfg!(windows) {
            return Err("there is no group commit on Windows; each commit syncs for itself");
        }
        if !self.is_on {
            return Err("kanban_group_commit is not set");
        }
        if self.wal.is_none() {
            return Err("the database is not in WAL mode, or attached, or under another VFS");
        }
        if wal.and_then(|wal| Log::of(wal, [0, 0])).is_none() {
            return Err("the WAL or this start of the machine can not be told from others");
        }
        match database.queue() {
            None => Err("there is no sidecar yet; the first writer makes it, if it can"),
            Some(queue) if page_of(&queue).is_none() => Err("the sidecar can not be mapped"),
            Some(_) => Ok(()),
        }
    }

    /// `PRAGMA synchronous` may be about to change whether commits are synced.
    pub(super) fn synchronous_changes(&mut self) {
        self.syncs = None;
    }

    /// WRITE was taken, to commit or, if not `to_write`, to recover. Without a snapshot, what the wal-index
    /// says may be about to be recovered.
    pub(super) fn begins(
        &mut self,
        base: impl BaseFile,
        database: &Database,
        wal: Option<Inode>,
        has_snapshot: bool,
        to_write: bool,
        log: &Host,
    ) {
        (self.pending, self.is_armed, self.failed_alone) = (None, false, None);
        self.began = base.committed();
        let Some((file, (salts, frames))) = self.wal.zip(self.began) else { return };
        let synced = file.take_synced();
        file.take_asked();
        self.note_failed(synced);
        let is_next = self.company.left == Some((salts, frames));
        if std::mem::take(&mut self.is_alone) && is_next && synced == Some(true) {
            self.is_alone = true;
            self.company.durable = frames;
            return;
        }
        let Some(of) = wal.and_then(|wal| Log::of(wal, salts)) else { return };
        let Some(client) = base.client() else { return };
        if has_snapshot {
            self.opened.set(self.opened.get().at(&of, frames));
        }
        self.company.begins(salts, frames);
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        let mut begun = database.group.begin(&page, &of, frames);
        if !matches!(begun, Ok(_) | Err(NotDurable::Busy)) {
            if !to_write {
                return;
            }
            if self.syncs != Some(false) {
                begun = match self.mends(base, database, wal) {
                    Ok(true) => database.group.begin(&page, &of, frames),
                    Ok(false) => Err(NotDurable::Busy),
                    Err(why) => Err(why),
                };
            }
        }
        match begun {
            Ok(failures) => {
                let opened = self.opened.get();
                let syncs_alone = self.company.alone == ALONE && opened.vouches(failures);
                self.is_alone = syncs_alone && KERNEL_TELLS_EACH;
                self.is_armed = !syncs_alone;
                if self.is_armed {
                    file.put_off(client, opened.may_tell_late(failures));
                }
            }
            Err(NotDurable::Busy) => {}
            Err(_) => {
                file.refuse();
                if self.syncs != Some(false) && !std::mem::replace(&mut self.has_said, true) {
                    let why = "a sync of the WAL has failed, and what was committed since can not be written \
                               once more; commits that are to be durable are rolled back, and each tries again; \
                               see to the disk";
                    log.log_about(SQLITE_IOERR_FSYNC, why, database.path());
                }
                return;
            }
        }
        self.has_said = false;
    }

    /// What [`Self::begins`] has asked of the WAL is over. The WAL, and the flags of the sync that was
    /// put off.
    fn disarm(&mut self) -> Option<(OpenWal, c_int)> {
        let wal = self.wal?;
        let (was_asked, put_off) = wal.take_asked();
        if was_asked {
            self.syncs = Some(true);
        }
        std::mem::take(&mut self.is_armed).then_some((wal, put_off?))
    }

    /// WRITE is about to be given back.
    pub(super) fn ends(&mut self, base: impl BaseFile, wal: Option<Inode>) {
        if self.wal.is_none() {
            return;
        }
        self.company.left = base.committed();
        if self.began.take().is_some_and(|began| self.company.left != Some(began)) {
            self.syncs = Some(false);
        }
        let Some((file, flags)) = self.disarm() else { return };
        let log = self.company.left.and_then(|(salts, _)| Log::of(wal?, salts));
        self.pending = log.zip(self.company.left).map(|(log, (salts, frames))| Pending {
            log,
            salts,
            frames,
            flags,
        });
        if let Some(Pending { log, frames, .. }) = &self.pending {
            self.opened.set(self.opened.get().at(log, *frames));
        } else {
            self.failed_alone = Some(file.sync(flags)).filter(|rc| *rc != SQLITE_OK);
        }
    }

    /// FCNTL_COMMIT_PHASETWO: COMMIT returns what this does.
    pub(super) fn commits(
        &mut self,
        base: impl BaseFile,
        database: &Database,
        log: &Host,
    ) -> Result<(), Rc> {
        if let Some((wal, flags)) = self.disarm() {
            // WRITE was not given back: exclusive locking mode.
            return match wal.sync(flags) {
                SQLITE_OK => Ok(()),
                rc => Err(rc),
            };
        }
        if let Some(rc) = self.failed_alone.take() {
            return Err(rc);
        }
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let Some(wal) = self.wal else { return Err(SQLITE_IOERR_FSYNC) };
        let (salts, flags, opened) = (pending.salts, pending.flags, &self.opened);
        let wal = OpenedWal { base, salts, flags, wal, opened, round: self.company.round() };
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        let (group, counters) = (&database.group, &database.counters);
        let waited = group.wait(&page, &pending.log, pending.frames, &wal, counters);
        waited.map(|waited| self.company.waited(waited)).map_err(|why| {
            counters.syncs_failed.fetch_add(1, Ordering::Relaxed);
            let (rc, what) = match why {
                NotDurable::Failed(rc) => (rc, "a sync of the WAL has failed"),
                _ => {
                    (SQLITE_IOERR_FSYNC, "a sync of the WAL that this commit waited for has failed")
                }
            };
            let line = format!(
                "{what}: the transaction can be read but may not outlive a power cut; the next that is to be \
                 durable, or checkpoint, writes its frames once more; see to the disk"
            );
            self.has_said = true;
            log.log_about(rc, &line, database.path());
            rc
        })
    }

    /// A checkpoint begins that has excluded writers: those who wait for a sync keep read marks, which
    /// would keep it from copying all. Makes their commits durable, and waits a moment, as long as there
    /// is such a mark before so many frames.
    ///
    /// # Errors
    /// What the sync answered. Another sync might not, since the kernel tells of an error once.
    pub(super) fn drain(
        &self,
        base: impl BaseFile,
        database: &Database,
        wal: Option<Inode>,
        is_marked: impl Fn(u32) -> bool,
    ) -> Result<(), Rc> {
        let Some((log, wal)) = self.opened(base, wal) else { return Ok(()) };
        let queue = database.queue();
        let Some(page) = queue.as_deref().and_then(page_of) else { return Ok(()) };
        let frames = wal.committed();
        let (group, counters) = (&database.group, &database.counters);
        if let Err(why) = group.wait(page, &log, frames, &wal, counters) {
            counters.syncs_failed.fetch_add(1, Ordering::Relaxed);
            return match why {
                NotDurable::Busy => Ok(()),
                NotDurable::Failed(rc) => Err(rc),
                NotDurable::HasFailed => Err(SQLITE_IOERR_FSYNC),
            };
        }
        let began = Instant::now();
        while is_marked(frames) && began.elapsed() < MARKS_LAST {
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// Whether a sync has failed and was not made up for.
    pub(super) fn has_failed(
        &self,
        base: impl BaseFile,
        database: &Database,
        wal: Option<Inode>,
    ) -> bool {
        let Some(log) = self.log_of(base, wal) else { return false };
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        database.group.failed(&page, &log).is_some()
    }

    /// Whether nobody was promised that the commits of this connection are durable.
    pub(super) fn promises_nothing(&self) -> bool {
        self.syncs == Some(false)
    }

    /// As [`Group::mend`](crate::lock::group::Group::mend), if there is anything to mend. The connection has
    /// WRITE, or the database for itself.
    fn mends(
        &self,
        base: impl BaseFile,
        database: &Database,
        wal: Option<Inode>,
    ) -> Result<bool, NotDurable> {
        let Some((of, wal)) = self.opened(base, wal) else { return Ok(true) };
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        database.group.mend(&page, &of, &wal)
    }

    /// The same, for a checkpoint: whether others know of it.
    ///
    /// # Errors
    /// SQLITE_IOERR_FSYNC, or what the sync answered.
    pub(super) fn mend(
        &self,
        base: impl BaseFile,
        database: &Database,
        wal: Option<Inode>,
        log: &Host,
    ) -> Result<bool, Rc> {
        self.mends(base, database, wal).map_err(|why| {
            let rc = match why {
                NotDurable::Failed(rc) => rc,
                _ => SQLITE_IOERR_FSYNC,
            };
            let why = "frames whose sync has failed can not be written once more; nothing is taken \
                       out of the WAL; see to the disk, then run the checkpoint again";
            log.log_about(rc, why, database.path());
            rc
        })
    }

    /// What the syncs that SQLite has made of this file, a checkpoint's, too, have answered: if it was told of an
    /// error, perhaps as the only one, it tells of it no more.
    fn note_failed(&self, synced: Option<bool>) {
        if synced == Some(false) {
            self.opened.set(self.opened.get().was_told());
        }
    }

    /// The WAL, to be synced by a checkpoint.
    fn opened<'b, B: BaseFile>(
        &'b self,
        base: B,
        wal: Option<Inode>,
    ) -> Option<(Log, OpenedWal<'b, B>)> {
        let (file, (salts, frames)) = self.wal.zip(base.committed())?;
        let log = Log::of(wal?, salts)?;
        self.note_failed(file.take_synced());
        self.opened.set(self.opened.get().at(&log, frames));
        let opened = &self.opened;
        Some((log, OpenedWal { base, salts, flags: SYNC_NORMAL, wal: file, opened, round: 0 }))
    }

    /// `None` also for a connection that can not reach its WAL: it puts nothing off, and could mend
    /// nothing.
    fn log_of(&self, base: impl BaseFile, wal: Option<Inode>) -> Option<Log> {
        self.wal?;
        Log::of(wal?, base.committed()?.0)
    }
}

/// SQLITE_SYNC_NORMAL
const SYNC_NORMAL: c_int = 2;

/// The sidecar, if it has a page of ours that can be waited on.
fn page_of(queue: &Queue<Sidecar>) -> Option<&Sidecar> {
    let sidecar = queue.sidecar();
    sidecar.is_mapped().then_some(sidecar)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a transaction over several databases: from the first super-journal until the last is closed.
    #[test]
    fn a_super_journal_is_known_until_it_is_closed() {
        assert!(!has_super_journal());
        for (is_opened, has_one) in [
            (true, true),
            (true, true),
            (false, true),
            (false, false),
            (false, false),
            (true, true),
        ] {
            super_journal(is_opened);
            assert_eq!(has_super_journal(), has_one);
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
        let mut group = GroupCommit {
            is_on: true,
            is_armed: true,
            failed_alone: Some(SQLITE_IOERR_FSYNC),
            has_said: true,
            ..GroupCommit::default()
        };
        group.company.alone = 3;
        group.wal_closed();
        assert!(group.is_on && group.has_said && !group.is_armed);
        assert_eq!((group.failed_alone, group.company.alone), (None, 0));
    }

    #[cfg(target_os = "linux")]
    mod with_a_wal {
        use super::*;
        use crate::file::guards::tests::{Base, board};
        use crate::file::wal::tests::{TestWal, client, frames, salts};
        use std::sync::Arc;

        /// A board with a sidecar, its WAL of three frames, and a connection's group commit.
        struct Board {
            _place: tempfile::TempDir,
            _connection: rusqlite::Connection,
            database: Arc<Database>,
            inode: Option<Inode>,
            wal: TestWal,
            base: Base,
            host: Host,
            group: GroupCommit,
        }

        impl Board {
            fn new() -> Self {
                let (place, database, guards) = board();
                database.make_sidecar();
                let (connection, client) = client();
                let base = Base::of_wal(&[(3, 0)], &[salts()]).used_by(Some(client));
                let wal = TestWal::new(frames(0x377f_0682, 512, 3));
                let mut group = GroupCommit::new(true);
                group.wal_opened(Some(wal.open()));
                Self {
                    _place: place,
                    _connection: connection,
                    database,
                    inode: guards.wal(),
                    wal,
                    base,
                    host: Host::linked().expect("a linked SQLite"),
                    group,
                }
            }

            fn begins(&mut self) {
                self.group.begins(&self.base, &self.database, self.inode, true, true, &self.host);
            }

            /// As [`Self::begins`]: whether a commit that is to be durable would be rolled back, which SQLite does.
            fn is_refused(&mut self) -> bool {
                self.begins();
                let is_refused = self.wal.sync(SYNC_NORMAL) == SQLITE_IOERR_FSYNC;
                if is_refused {
                    self.group.ends(&self.base, self.inode);
                }
                is_refused
            }

            /// SQLite has written its frames, and syncs the WAL. Whether the base has done so, too.
            fn syncs(&self) -> bool {
                assert_eq!(self.wal.sync(SYNC_NORMAL), SQLITE_OK);
                !self.wal.synced().is_empty()
            }

            fn fails(&self, times: usize) {
                self.wal.seen(|memory| memory.failing = times);
            }

            fn commits(&mut self) -> Result<(), Rc> {
                self.group.commits(&self.base, &self.database, &self.host)
            }

            fn mends(&self) -> Result<bool, Rc> {
                self.group.mend(&self.base, &self.database, self.inode, &self.host)
            }

            fn has_failed(&self) -> bool {
                self.group.has_failed(&self.base, &self.database, self.inode)
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
                board.group.ends(&board.base, board.inode);
                assert!(board.group.is_pending() && board.wal.synced().is_empty());
                assert_eq!(board.commits(), Ok(()));
                assert_eq!(!board.wal.synced().is_empty(), is_first, "then all is durable");
                assert_eq!(board.commits(), Ok(()), "there is none any more");
                assert!(!board.group.is_pending());
            }

            // Another frame, as if it was committed now.
            board.base = Base::of_wal(&[(4, 0)], &[salts()]).used_by(board.base.client);
            board.wal = TestWal::new(frames(0x377f_0682, 512, 4));
            board.group.wal_opened(Some(board.wal.open()));
            board.begins();
            assert!(!board.syncs());
            board.group.ends(&board.base, board.inode);
            board.fails(9);
            assert_eq!(board.commits(), Err(SQLITE_IOERR_FSYNC));
            assert!(board.has_failed());
            assert_eq!(board.database.counters.syncs_failed.load(Ordering::Relaxed), 1);
            assert!(board.is_refused());
            assert_eq!(board.mends(), Err(SQLITE_IOERR_FSYNC));
            assert!(board.has_failed());
            board.fails(0);
            assert_eq!(board.mends(), Ok(true));
            assert!(!board.has_failed() && !board.is_refused());
        }

        /// When WRITE is given back, it can not be told which WAL it is: the sync is made at once, and what it
        /// answers is what COMMIT does, once.
        #[test]
        fn a_sync_that_can_not_be_shared_is_told_all_the_same() {
            for (failing, answer) in [(0, Ok(())), (1, Err(SQLITE_IOERR_FSYNC))] {
                let mut board = Board::new();
                board.begins();
                assert!(!board.syncs());
                board.fails(failing);
                board.group.ends(&Base::default(), board.inode);
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
            for (failing, answer) in [(0, Ok(())), (1, Err(SQLITE_IOERR_FSYNC))] {
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
                board.group.ends(&board.base, board.inode);
                assert_eq!(board.commits(), Ok(()));
                board.wal.synced();
                is_put_off
            };
            let until_then = (0..=u16::from(ALONE)).filter(|_| is_put_off(&mut board)).count();
            assert_eq!(until_then, usize::from(ALONE));
            assert!(!is_put_off(&mut board));
            let client = board.base.client;
            board.base = Base::of_wal(&[(2, 0)], &[salts()]).used_by(client);
            assert!(is_put_off(&mut board), "another has committed");
        }

        impl Board {
            /// Commits until it is alone, and once more.
            fn alone() -> Self {
                let mut board = Self::new();
                for _ in 0..=ALONE + 1 {
                    board.begins();
                    board.syncs();
                    board.group.ends(&board.base, board.inode);
                    assert_eq!(board.commits(), Ok(()));
                }
                assert!(board.group.is_alone);
                board
            }

            /// It has committed another frame.
            fn grows(&mut self) {
                self.base = Base::of_wal(&[(4, 0)], &[salts()]).used_by(self.base.client);
                self.wal = TestWal::new(frames(0x377f_0682, 512, 4));
                self.group.wal_opened(Some(self.wal.open()));
                self.group.company.left = (&self.base).committed();
                assert_eq!(self.wal.sync(SYNC_NORMAL), SQLITE_OK);
            }

            /// Somebody else's checkpoint syncs, and that fails.
            fn another_fails(&self) {
                let wal = TestWal::new(frames(0x377f_0682, 512, 4));
                wal.seen(|memory| memory.failing = 1);
                let mut other = GroupCommit::new(true);
                other.wal_opened(Some(wal.open()));
                let drained = other.drain(&self.base, &self.database, self.inode, |_| false);
                assert_eq!(drained, Err(SQLITE_IOERR_FSYNC));
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
            assert_eq!(board.group.company.durable, 4, "what it wrote alone is no round");
            // The kernel tells each file.
            board.fails(1);
            assert_eq!(board.wal.sync(SYNC_NORMAL), SQLITE_IOERR_FSYNC);
            board.group.ends(&board.base, board.inode);
            board.fails(9);
            assert!(board.is_refused() && !board.group.is_alone);
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
            let drained = board.group.drain(&board.base, &board.database, board.inode, |_| false);
            assert_eq!(drained, Err(SQLITE_IOERR_FSYNC));
            board.fails(9);
            assert!(board.is_refused());

            let mut board = Board::alone();
            board.grows();
            board.begins();
            board.group.ends(&board.base, board.inode);
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
            board.base = Base::of_wal(&[(4, 0)], &[salts()]).used_by(board.base.client);
            board.group.ends(&board.base, board.inode);
            assert!(board.commits() == Ok(()) && board.group.promises_nothing());
            board.wal.synced();
            board.begins();
            assert!(board.wal.synced().is_empty() && board.has_failed());
            assert_eq!(board.wal.sync(SYNC_NORMAL), SQLITE_IOERR_FSYNC);
            board.group.ends(&board.base, board.inode);
            assert!(!board.group.promises_nothing(), "it was asked for a sync");
            board.group.syncs = Some(false);
            board.group.synchronous_changes();
            board.fails(0);
            board.base = Base::of_wal(&[(3, 0)], &[salts()]).used_by(board.base.client);
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
                board.group.ends(&board.base, board.inode);
                assert_eq!(board.commits(), Ok(()));
                board.grows();
                if is_told {
                    board.fails(1);
                    assert_eq!(board.wal.sync(SYNC_NORMAL), SQLITE_IOERR_FSYNC);
                }
                board.begins();
                assert!(!board.group.is_alone);
                board.wal.synced();
                board.wal.written();
                assert!(!board.syncs());
                board.group.ends(&board.base, board.inode);
                assert_eq!(board.commits(), Ok(()));
                assert_eq!(board.wal.synced().len(), 1);
                assert_eq!(!board.wal.written().is_empty(), is_told);
            }
        }

        /// A checkpoint that has excluded writers makes durable what is not, and is told if that fails.
        #[test]
        fn a_checkpoint_makes_commits_durable_first() {
            for (failing, answer) in [(0, Ok(())), (9, Err(SQLITE_IOERR_FSYNC))] {
                let board = Board::new();
                board.fails(failing);
                let looks = Cell::new(0);
                let is_marked = |frames| {
                    assert_eq!(frames, 3);
                    looks.set(looks.get() + 1);
                    looks.get() < 3
                };
                let drained =
                    board.group.drain(&board.base, &board.database, board.inode, is_marked);
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
}

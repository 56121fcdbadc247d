//! Group commit of one connection: who makes the sync of its transaction, and what its COMMIT waits
//! for.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

use super::connection_wal::ConnectionWal;
use super::deferral::{SYNC_NORMAL, Syncs};
use super::leader::SharedSyncs;
use super::open_file::WalDescription;
use super::other_writers::OtherWriters;
use super::record::WalId;
use super::wal::{self, NotDurable, Wal};
use super::{WalFile, WalIndex};
use crate::counters::count;
use crate::ffi::ResultCode;
use crate::format::Salts;
use crate::lock::sidecar::Sidecar;
use crate::lock::{Database, queue::Queue};
use crate::log::Log;
use crate::recorder::event::EventKind;
use crate::sys::{Inode, Stopwatch};

/// Whether the kernel reports a failed sync to each open file. <https://lwn.net/Articles/724307/>
const KERNEL_TELLS_EACH: bool = cfg!(target_os = "linux");

/// How long a checkpoint waits for the connections whose commits it has made durable to release their read marks.
const MARKS_LAST: Duration = Duration::from_millis(1);

/// The sync of the connection's last transaction that locked WRITE.
///
/// | call | state | what happens | state after it |
/// |---|---|---|---|
/// | [`begins`](GroupCommit::begins) | `Sole` | no other connection has committed, and SQLite has synced the last commit with success | `Sole` |
/// | | any | syncs cannot be shared; or the connection only recovers while a failure stands; or that failure cannot be repaired, and this commit's syncs are refused, which [`Syncs`] keeps | `Own` |
/// | | any | the connection is a sole writer, and its file reports every error | `Sole` on Linux, else `Own` |
/// | | any | the connection is no sole writer | `Deferrable` |
/// | [`ends`](GroupCommit::ends) | `Deferrable` | no sync was deferred | `Own` |
/// | | `Deferrable` | a sync was deferred, and it can be shared | `Pending` |
/// | | `Deferrable` | a sync was deferred, and the WAL cannot be identified: the sync is made at once | `Own`, or `Failed` |
/// | [`commits`](GroupCommit::commits) | `Deferrable` | WRITE is still locked (exclusive locking mode): the deferred sync is made, and its answer returned | `Own` |
/// | | `Pending` | waits until the frames are durable | `Own` |
/// | | `Failed` | returns the error | `Own` |
/// | | `Own`, `Sole` | returns SQLITE_OK | as before |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CommitSync {
    /// SQLite makes it, if it wants one.
    #[default]
    Own,
    /// SQLite makes it, as without group commit: no other connection writes, and the connection's open file of the WAL
    /// reports every failure. So it need not read the record either.
    Sole,
    /// SQLite asks for it while it has WRITE locked, and it is deferred then.
    Deferrable,
    /// It was deferred, WRITE is unlocked, and COMMIT is about to wait.
    Pending(Pending),
    /// It was deferred, could not be shared, and failed when WRITE was unlocked.
    Failed(ResultCode),
}

/// A deferred sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    id: WalId,
    /// The number of the commit's last frame.
    frames: u32,
    /// The flags of SQLite's xSync.
    flags: c_int,
}

/// Whether SQLite has synced the WAL in the connection's last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LastSync {
    /// There was no commit, or `PRAGMA synchronous` has run since.
    #[default]
    Unknown,
    /// It has, as with `synchronous=FULL`.
    Synced,
    /// It has not, as with `synchronous=NORMAL`: COMMIT did not promise that the transaction is durable.
    Unsynced,
}

/// Group commit of one connection.
pub(crate) struct GroupCommit<B: WalIndex> {
    base: B,
    database: Arc<Database>,
    log: Log,
    is_on: bool,
    /// Whether a failure that still stands was logged.
    has_logged: bool,
    /// The WAL, while it is open and its syncs can be deferred.
    wal: Option<B::Wal>,
    /// The WAL's file, while the wal-index is mapped.
    inode: Option<Inode>,
    open: OpenState,
}

/// What group commit knows while a WAL is open.
#[derive(Default)]
struct OpenState {
    file: Cell<WalDescription>,
    sync: CommitSync,
    others: OtherWriters,
    /// The WAL's salts and frames when WRITE was locked.
    began: Option<(Salts, u32)>,
    last_sync: LastSync,
}

impl<B: WalIndex> GroupCommit<B> {
    /// Group commit of the connection with this wal-index. It is never on under Windows.
    pub(crate) fn new(is_on: bool, base: B, database: Arc<Database>, log: Log) -> Self {
        let is_on = is_on && !cfg!(windows);
        let (wal, inode, open) = (None, None, OpenState::default());
        Self { base, database, log, is_on, has_logged: false, wal, inode, open }
    }

    /// Whether the connection has asked for group commit, and the system supports it.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether COMMIT is about to wait.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.open.sync, CommitSync::Pending(_))
    }

    /// The WAL is open, until [`Self::wal_closed`]. `wal` is `None` if its syncs cannot be
    /// deferred, `inode` if the file cannot be identified.
    pub(crate) fn wal_opened(&mut self, wal: Option<B::Wal>, inode: Option<Inode>) {
        (self.wal, self.inode) = (wal, inode);
    }

    /// The WAL is about to be closed.
    pub(crate) fn wal_closed(&mut self) {
        (self.wal, self.inode, self.open) = (None, None, OpenState::default());
    }

    /// Why commits sync for themselves, for the status. To be called while the wal-index is mapped.
    ///
    /// # Errors
    /// The reason.
    pub(crate) fn why_not(&self) -> Result<(), &'static str> {
        if cfg!(windows) {
            return Err("there is no group commit on Windows; each commit syncs for itself");
        }
        if !self.is_on {
            return Err("kanban_group_commit is not set");
        }
        if self.wal.is_none() {
            return Err("the database is not in WAL mode, or attached, or under another VFS");
        }
        if self.id([0, 0]).is_none() {
            return Err("the WAL, or this boot of the machine, cannot be identified");
        }
        match self.database.queue() {
            None => Err("there is no sidecar yet; the first writer makes it, if it can"),
            queue if page_of(&queue).is_none() => Err("the sidecar cannot be mapped"),
            _ => Ok(()),
        }
    }

    /// `PRAGMA synchronous` is being compiled, and may change whether commits are synced.
    pub(crate) fn synchronous_changes(&mut self) {
        self.open.last_sync = LastSync::Unknown;
    }

    /// SQLite has locked WRITE, to commit or, if not `to_write`, to recover. Without a snapshot,
    /// recovery may be about to change the wal-index. If a failed sync stands, repairs it, or makes
    /// this commit fail.
    pub(crate) fn begins(&mut self, has_snapshot: bool, to_write: bool) {
        if self.open.sync != CommitSync::Sole {
            self.open.sync = CommitSync::Own;
        }
        self.open.began = self.base.committed();
        let Some((file, (salts, frames))) = self.wal.zip(self.open.began) else { return };
        let synced = self.note_last_sync(file);
        if self.is_still_sole(salts, frames, synced) {
            self.open.others.note_sole_commit(frames);
            return;
        }
        self.open.sync = CommitSync::Own;
        let Some((id, committer)) = self.id(salts).zip(self.base.committer()) else { return };
        if has_snapshot {
            self.open.file.set(self.open.file.get().at(&id, frames));
        }
        self.open.others.note_begin(salts, frames);
        match self.begin_shared(&id, frames, to_write) {
            Ok(failures) => {
                let open_file = self.open.file.get();
                if !(self.open.others.are_none() && open_file.vouches_for_all(failures)) {
                    self.open.sync = CommitSync::Deferrable;
                    let reports_late = open_file.may_report_late(failures);
                    file.with_syncs(|syncs| syncs.defer(committer, reports_late));
                } else if KERNEL_TELLS_EACH {
                    self.open.sync = CommitSync::Sole;
                }
            }
            Err(NotDurable::NotShared) => {}
            Err(_) if !to_write => return,
            Err(_) => {
                file.with_syncs(Syncs::refuse);
                if !self.promises_nothing() && !std::mem::replace(&mut self.has_logged, true) {
                    let why = "a sync of the WAL has failed, and what was committed since cannot be written once \
                               more; commits that are to be durable are rolled back, and each tries again; see to \
                               the disk";
                    self.database.tell(
                        &self.log,
                        EventKind::SyncFailed,
                        ResultCode::IOERR_FSYNC,
                        why,
                    );
                }
                return;
            }
        }
        self.has_logged = false;
    }

    /// Notes how the syncs of the last commit, and those of checkpoints since, have ended. Returns whether all have
    /// succeeded; `None` if SQLite has made none.
    fn note_last_sync(&self, file: B::Wal) -> Option<bool> {
        let synced = file.with_syncs(Syncs::take_synced);
        // Only to reset: a checkpoint may have asked for a sync since, which is not the next
        // commit's.
        file.with_syncs(Syncs::take_asked);
        self.note_answer(synced);
        synced
    }

    /// Whether the connection goes on as a sole writer: no other connection has written, and its
    /// last commit was `synced`.
    fn is_still_sole(&self, salts: Salts, frames: u32, synced: Option<bool>) -> bool {
        self.open.sync == CommitSync::Sole
            && self.open.others.wrote_nothing(salts, frames)
            && synced == Some(true)
    }

    /// [`SharedSyncs::begin`]. If a failed sync stands, repairs it first, unless this is no commit,
    /// or a commit that promises no durability.
    fn begin_shared(&self, id: &WalId, frames: u32, to_write: bool) -> wal::Result<u32> {
        let queue = self.database.queue();
        let begin = || self.shared().begin(&page_of(&queue), id, frames);
        match begin() {
            Err(NotDurable::AnotherFailed) if to_write && !self.promises_nothing() => {
                if self.try_repair()? { begin() } else { Err(NotDurable::NotShared) }
            }
            begun => begun,
        }
    }

    /// Ends the rule that [`Self::begins`] has set for the WAL. Returns the WAL and the flags of
    /// the deferred sync, if there is one; the caller makes that sync, or COMMIT waits for it.
    fn take_deferred(&mut self) -> Option<(B::Wal, c_int)> {
        let wal = self.wal?;
        let (was_asked, flags) = wal.with_syncs(Syncs::take_asked);
        if was_asked {
            self.open.last_sync = LastSync::Synced;
        }
        if self.open.sync != CommitSync::Deferrable {
            return None;
        }
        self.open.sync = CommitSync::Own;
        Some((wal, flags?))
    }

    /// SQLite is about to unlock WRITE. This must not wait for other connections: they wait for WRITE.
    pub(crate) fn ends(&mut self) {
        if self.wal.is_none() {
            return;
        }
        let committed = self.base.committed();
        self.open.others.note_end(committed);
        if self.open.began.take().is_some_and(|began| committed != Some(began)) {
            self.open.last_sync = LastSync::Unsynced;
        }
        let Some((file, flags)) = self.take_deferred() else { return };
        let now = committed.and_then(|(salts, frames)| Some((self.id(salts)?, frames)));
        if let Some((id, frames)) = now {
            self.open.file.set(self.open.file.get().at(&id, frames));
            self.open.sync = CommitSync::Pending(Pending { id, frames, flags });
        } else if let Err(rc) = file.sync(flags).ok() {
            self.open.sync = CommitSync::Failed(rc);
        }
    }

    /// SQLITE_FCNTL_COMMIT_PHASETWO, the last call of COMMIT. Returns when the transaction is
    /// durable. Until then the connection keeps its read mark, and has WRITE unlocked, except in
    /// exclusive locking mode.
    ///
    /// # Errors
    /// What COMMIT returns: a sync that the transaction needs has failed.
    pub(crate) fn commits(&mut self) -> Result<(), ResultCode> {
        if let Some((wal, flags)) = self.take_deferred() {
            // WRITE is still locked: exclusive locking mode.
            return wal.sync(flags).ok();
        }
        let Pending { id, frames, flags } = match std::mem::take(&mut self.open.sync) {
            CommitSync::Pending(pending) => pending,
            CommitSync::Failed(rc) => return Err(rc),
            other => {
                self.open.sync = other;
                return Ok(());
            }
        };
        let Some(file) = self.wal else { return Err(ResultCode::IOERR_FSYNC) };
        let (open_file, round) = (&self.open.file, self.open.others.round());
        let wal = ConnectionWal { base: self.base, file, open_file, id, flags, round };
        let (queue, counters) = (self.database.queue(), &self.database.counters);
        let waited = self.shared().wait(&page_of(&queue), frames, &wal, counters);
        let Err(why) = waited.map(|durable| self.open.others.note_durable(durable)) else {
            return Ok(());
        };
        count(&counters.syncs_failed);
        let is_own = matches!(why, NotDurable::Failed(_));
        let which = if is_own { "" } else { " that this commit waited for" };
        let line = format!(
            "a sync of the WAL{which} has failed: the transaction can be read but may not outlive a power cut; the \
             next that is to be durable, or checkpoint, writes its frames once more; see to the disk"
        );
        self.has_logged = true;
        self.database.tell(&self.log, EventKind::SyncFailed, why.code(), &line);
        Err(why.code())
    }

    /// A checkpoint begins, and it has excluded writers. Connections that wait for a sync keep read
    /// marks, which would keep it from copying all. So this makes their commits durable, and waits
    /// for [`MARKS_LAST`] at most while `is_marked` finds a read mark before the last frame.
    ///
    /// # Errors
    /// What the sync answered. Another sync might answer SQLITE_OK, since the kernel reports an error once.
    pub(crate) fn drain(&self, is_marked: impl Fn(u32) -> bool) -> Result<(), ResultCode> {
        let Some(wal) = self.wal_to_sync() else { return Ok(()) };
        let (queue, counters) = (self.database.queue(), &self.database.counters);
        let Some(page) = page_of(&queue) else { return Ok(()) };
        let frames = wal.committed();
        let waited = self.shared().wait(&Some(page), frames, &wal, counters);
        waited.inspect_err(|_| count(&counters.syncs_failed)).map_err(NotDurable::code)?;
        let mut watch = Stopwatch::start();
        while is_marked(frames) && watch.elapsed() < MARKS_LAST {
            watch.sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// Whether a sync has failed and is not repaired. False for a connection without access to its
    /// WAL: it defers no sync, and could not repair one.
    pub(crate) fn has_failed(&self) -> bool {
        let committed = self.wal.and_then(|_| self.base.committed());
        let id = committed.and_then(|(salts, _)| self.id(salts));
        id.is_some_and(|id| self.shared().failed(&page_of(&self.database.queue()), &id).is_some())
    }

    /// Whether the connection's last commit did not promise durability.
    pub(crate) fn promises_nothing(&self) -> bool {
        self.open.last_sync == LastSync::Unsynced
    }

    /// If a failed sync stands, repairs it. The connection has WRITE locked, or the whole database. Returns whether the
    /// page says so, as [`SharedSyncs::repair`].
    fn try_repair(&self) -> wal::Result<bool> {
        let Some(wal) = self.wal_to_sync() else { return Ok(true) };
        self.shared().repair(&page_of(&self.database.queue()), &wal)
    }

    /// If a failed sync stands, repairs it before a checkpoint, or before the database is locked
    /// exclusively. The connection has WRITE locked, or the whole database. Returns whether the
    /// page says so, for others to see.
    ///
    /// # Errors
    /// SQLITE_IOERR_FSYNC, or what the sync answered. The failure is logged.
    pub(crate) fn repair(&self) -> Result<bool, ResultCode> {
        self.try_repair().map_err(|why| {
            let line = "frames whose sync has failed cannot be written once more; nothing is taken out of the WAL; see \
                        to the disk, then run the checkpoint again";
            self.database.tell(&self.log, EventKind::SyncFailed, why.code(), line);
            why.code()
        })
    }

    /// Notes the answers of SQLite's own syncs of the file, also for a checkpoint. If the file has
    /// reported an error, perhaps as the only file, it does not report it again.
    fn note_answer(&self, synced: Option<bool>) {
        if synced == Some(false) {
            self.open.file.set(self.open.file.get().has_reported());
        }
    }

    /// The WAL, to be synced for a checkpoint or a repair.
    fn wal_to_sync(&self) -> Option<ConnectionWal<'_, B>> {
        let (file, (salts, frames)) = self.wal.zip(self.base.committed())?;
        let id = self.id(salts)?;
        self.note_answer(file.with_syncs(Syncs::take_synced));
        self.open.file.set(self.open.file.get().at(&id, frames));
        let open_file = &self.open.file;
        Some(ConnectionWal { base: self.base, file, open_file, id, flags: SYNC_NORMAL, round: 0 })
    }

    /// The WAL with these salts; `None` if it cannot be identified.
    fn id(&self, salts: Salts) -> Option<WalId> {
        WalId::of(self.inode?, salts)
    }

    /// What this process knows about the database's syncs.
    fn shared(&self) -> &SharedSyncs {
        self.database.attached()
    }
}

/// The sidecar, if it has a page of this VFS and a connection can sleep on it.
fn page_of(queue: &Option<Arc<Queue<Sidecar>>>) -> Option<&Sidecar> {
    queue.as_deref().map(Queue::sidecar).filter(|sidecar| sidecar.is_mapped())
}

#[cfg(test)]
mod tests;

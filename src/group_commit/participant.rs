//! Group commit, as one connection takes part in it: which syncs are put off, and what COMMIT waits
//! for.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::deferral::{SYNC_NORMAL, Syncs};
use super::leader::{Group, Waited};
use super::record::Log;
use super::wal::{NotDurable, Opened, Wal, write_again};
use super::{WalFile, WalIndex};
use crate::ffi::ResultCode;
use crate::ffi::host::Host;
use crate::format::Salts;
use crate::lock::sidecar::Sidecar;
use crate::lock::{Database, queue::Queue};
use crate::sys::Inode;

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
struct OpenedWal<'b, B: WalIndex> {
    base: B,
    salts: Salts,
    flags: c_int,
    wal: B::Wal,
    opened: &'b Cell<Opened>,
    round: u32,
}

impl<B: WalIndex> Wal for OpenedWal<'_, B> {
    fn committed(&self) -> u32 {
        self.base.committed().map_or(0, |(_, frames)| frames)
    }

    fn sync(&self) -> Result<(), ResultCode> {
        match self.wal.sync(self.flags) {
            ResultCode::OK => Ok(()),
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
pub(crate) struct GroupCommit<B: WalIndex> {
    base: B,
    is_on: bool,
    /// Whether the log was told of a failure that still stands.
    has_said: bool,
    /// Nothing, while the wal-index is not mapped.
    open: OpenState<B::Wal>,
}

/// What group commit knows while a WAL is open.
struct OpenState<W> {
    wal: Option<W>,
    /// Whether the sync of the transaction that is open may be put off.
    is_armed: bool,
    pending: Option<Pending>,
    /// What a sync answered that was put off and could not be shared.
    failed_alone: Option<ResultCode>,
    /// What this connection's file of the WAL tells of.
    opened: Cell<Opened>,
    company: Company,
    /// Whether it syncs in its commits as without group commit, until somebody else commits or a sync of its own
    /// fails: it is alone, and its file of the WAL tells of every failure.
    is_alone: bool,
    /// The WAL's salts and its frames when WRITE was taken.
    began: Option<(Salts, u32)>,
    /// Whether SQLite has synced the WAL in the last commit, as it does with `synchronous=FULL`; `None` if that is
    /// not known.
    syncs: Option<bool>,
}

impl<W> Default for OpenState<W> {
    fn default() -> Self {
        Self {
            wal: None,
            is_armed: false,
            pending: None,
            failed_alone: None,
            opened: Cell::default(),
            company: Company::default(),
            is_alone: false,
            began: None,
            syncs: None,
        }
    }
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

impl<B: WalIndex> GroupCommit<B> {
    pub(crate) fn new(is_on: bool, base: B) -> Self {
        Self { base, is_on: is_on && !cfg!(windows), has_said: false, open: OpenState::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether COMMIT is about to wait.
    pub(crate) fn is_pending(&self) -> bool {
        self.open.pending.is_some()
    }

    /// The WAL is open, until [`Self::wal_closed`]; `None` if its syncs can not be put off.
    pub(crate) fn wal_opened(&mut self, wal: Option<B::Wal>) {
        self.open.wal = wal;
    }

    /// The WAL is about to be closed.
    pub(crate) fn wal_closed(&mut self) {
        self.open = OpenState::default();
    }

    /// Why commits sync for themselves. Only while the wal-index is mapped.
    pub(crate) fn why_not(
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
        if self.open.wal.is_none() {
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
    pub(crate) fn synchronous_changes(&mut self) {
        self.open.syncs = None;
    }

    /// WRITE was taken, to commit or, if not `to_write`, to recover. Without a snapshot, what the wal-index
    /// says may be about to be recovered.
    pub(crate) fn begins(
        &mut self,
        database: &Database,
        wal: Option<Inode>,
        has_snapshot: bool,
        to_write: bool,
        log: &Host,
    ) {
        (self.open.pending, self.open.is_armed, self.open.failed_alone) = (None, false, None);
        self.open.began = self.base.committed();
        let Some((file, (salts, frames))) = self.open.wal.zip(self.open.began) else { return };
        let synced = file.with_syncs(Syncs::take_synced);
        file.with_syncs(Syncs::take_asked);
        self.note_failed(synced);
        let is_next = self.open.company.left == Some((salts, frames));
        if std::mem::take(&mut self.open.is_alone) && is_next && synced == Some(true) {
            self.open.is_alone = true;
            self.open.company.durable = frames;
            return;
        }
        let Some(of) = wal.and_then(|wal| Log::of(wal, salts)) else { return };
        let Some(committer) = self.base.committer() else { return };
        if has_snapshot {
            self.open.opened.set(self.open.opened.get().at(&of, frames));
        }
        self.open.company.begins(salts, frames);
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        let group = group_of(database);
        let mut begun = group.begin(&page, &of, frames);
        if !matches!(begun, Ok(_) | Err(NotDurable::Busy)) {
            if !to_write {
                return;
            }
            if self.open.syncs != Some(false) {
                begun = match self.try_repair(database, wal) {
                    Ok(true) => group.begin(&page, &of, frames),
                    Ok(false) => Err(NotDurable::Busy),
                    Err(why) => Err(why),
                };
            }
        }
        match begun {
            Ok(failures) => {
                let opened = self.open.opened.get();
                let syncs_alone = self.open.company.alone == ALONE && opened.vouches(failures);
                self.open.is_alone = syncs_alone && KERNEL_TELLS_EACH;
                self.open.is_armed = !syncs_alone;
                if self.open.is_armed {
                    let tells_late = opened.may_tell_late(failures);
                    file.with_syncs(|syncs| syncs.put_off(committer, tells_late));
                }
            }
            Err(NotDurable::Busy) => {}
            Err(_) => {
                file.with_syncs(Syncs::refuse);
                if self.open.syncs != Some(false) && !std::mem::replace(&mut self.has_said, true) {
                    let why = "a sync of the WAL has failed, and what was committed since can not be written \
                               once more; commits that are to be durable are rolled back, and each tries again; \
                               see to the disk";
                    log.log_about(ResultCode::IOERR_FSYNC, why, database.path());
                }
                return;
            }
        }
        self.has_said = false;
    }

    /// What [`Self::begins`] has asked of the WAL is over. The WAL, and the flags of the sync that was
    /// put off.
    fn disarm(&mut self) -> Option<(B::Wal, c_int)> {
        let wal = self.open.wal?;
        let (was_asked, put_off) = wal.with_syncs(Syncs::take_asked);
        if was_asked {
            self.open.syncs = Some(true);
        }
        std::mem::take(&mut self.open.is_armed).then_some((wal, put_off?))
    }

    /// WRITE is about to be given back.
    pub(crate) fn ends(&mut self, wal: Option<Inode>) {
        if self.open.wal.is_none() {
            return;
        }
        self.open.company.left = self.base.committed();
        if self.open.began.take().is_some_and(|began| self.open.company.left != Some(began)) {
            self.open.syncs = Some(false);
        }
        let Some((file, flags)) = self.disarm() else { return };
        let log = self.open.company.left.and_then(|(salts, _)| Log::of(wal?, salts));
        self.open.pending = log.zip(self.open.company.left).map(|(log, (salts, frames))| Pending {
            log,
            salts,
            frames,
            flags,
        });
        if let Some(Pending { log, frames, .. }) = &self.open.pending {
            self.open.opened.set(self.open.opened.get().at(log, *frames));
        } else {
            self.open.failed_alone = Some(file.sync(flags)).filter(|rc| *rc != ResultCode::OK);
        }
    }

    /// FCNTL_COMMIT_PHASETWO: COMMIT returns what this does.
    pub(crate) fn commits(&mut self, database: &Database, log: &Host) -> Result<(), ResultCode> {
        if let Some((wal, flags)) = self.disarm() {
            // WRITE was not given back: exclusive locking mode.
            return match wal.sync(flags) {
                ResultCode::OK => Ok(()),
                rc => Err(rc),
            };
        }
        if let Some(rc) = self.open.failed_alone.take() {
            return Err(rc);
        }
        let Some(pending) = self.open.pending.take() else { return Ok(()) };
        let Some(wal) = self.open.wal else { return Err(ResultCode::IOERR_FSYNC) };
        let (salts, flags, opened) = (pending.salts, pending.flags, &self.open.opened);
        let wal = OpenedWal {
            base: self.base,
            salts,
            flags,
            wal,
            opened,
            round: self.open.company.round(),
        };
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        let (group, counters) = (group_of(database), &database.counters);
        let waited = group.wait(&page, &pending.log, pending.frames, &wal, counters);
        waited.map(|waited| self.open.company.waited(waited)).map_err(|why| {
            counters.syncs_failed.fetch_add(1, Ordering::Relaxed);
            let (rc, what) = match why {
                NotDurable::Failed(rc) => (rc, "a sync of the WAL has failed"),
                _ => {
                    (ResultCode::IOERR_FSYNC, "a sync of the WAL that this commit waited for has failed")
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
    pub(crate) fn drain(
        &self,
        database: &Database,
        wal: Option<Inode>,
        is_marked: impl Fn(u32) -> bool,
    ) -> Result<(), ResultCode> {
        let Some((log, wal)) = self.opened_wal(wal) else { return Ok(()) };
        let queue = database.queue();
        let Some(page) = queue.as_deref().and_then(page_of) else { return Ok(()) };
        let frames = wal.committed();
        let (group, counters) = (group_of(database), &database.counters);
        if let Err(why) = group.wait(page, &log, frames, &wal, counters) {
            counters.syncs_failed.fetch_add(1, Ordering::Relaxed);
            return match why {
                NotDurable::Busy => Ok(()),
                NotDurable::Failed(rc) => Err(rc),
                NotDurable::HasFailed => Err(ResultCode::IOERR_FSYNC),
            };
        }
        let began = Instant::now();
        while is_marked(frames) && began.elapsed() < MARKS_LAST {
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// Whether a sync has failed and was not made up for.
    pub(crate) fn has_failed(&self, database: &Database, wal: Option<Inode>) -> bool {
        let Some(log) = self.log_of(wal) else { return false };
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        group_of(database).failed(&page, &log).is_some()
    }

    /// Whether nobody was promised that the commits of this connection are durable.
    pub(crate) fn promises_nothing(&self) -> bool {
        self.open.syncs == Some(false)
    }

    /// As [`Group::repair`](Group::mend), if there is anything to mend. The connection has
    /// WRITE, or the database for itself.
    fn try_repair(&self, database: &Database, wal: Option<Inode>) -> Result<bool, NotDurable> {
        let Some((of, wal)) = self.opened_wal(wal) else { return Ok(true) };
        let queue = database.queue();
        let page = queue.as_deref().and_then(page_of);
        group_of(database).repair(&page, &of, &wal)
    }

    /// The same, for a checkpoint: whether others know of it.
    ///
    /// # Errors
    /// SQLITE_IOERR_FSYNC, or what the sync answered.
    pub(crate) fn repair(
        &self,
        database: &Database,
        wal: Option<Inode>,
        log: &Host,
    ) -> Result<bool, ResultCode> {
        self.try_repair(database, wal).map_err(|why| {
            let rc = match why {
                NotDurable::Failed(rc) => rc,
                _ => ResultCode::IOERR_FSYNC,
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
            self.open.opened.set(self.open.opened.get().was_told());
        }
    }

    /// The WAL, to be synced by a checkpoint.
    fn opened_wal(&self, wal: Option<Inode>) -> Option<(Log, OpenedWal<'_, B>)> {
        let (file, (salts, frames)) = self.open.wal.zip(self.base.committed())?;
        let log = Log::of(wal?, salts)?;
        self.note_failed(file.with_syncs(Syncs::take_synced));
        self.open.opened.set(self.open.opened.get().at(&log, frames));
        let opened = &self.open.opened;
        Some((
            log,
            OpenedWal { base: self.base, salts, flags: SYNC_NORMAL, wal: file, opened, round: 0 },
        ))
    }

    /// `None` also for a connection that can not reach its WAL: it puts nothing off, and could mend
    /// nothing.
    fn log_of(&self, wal: Option<Inode>) -> Option<Log> {
        self.open.wal?;
        Log::of(wal?, self.base.committed()?.0)
    }
}

/// What the process knows of the database's syncs.
fn group_of(database: &Database) -> &Group {
    database.attached()
}

/// The sidecar, if it has a page of ours that can be waited on.
fn page_of(queue: &Queue<Sidecar>) -> Option<&Sidecar> {
    let sidecar = queue.sidecar();
    sidecar.is_mapped().then_some(sidecar)
}

#[cfg(test)]
mod tests;

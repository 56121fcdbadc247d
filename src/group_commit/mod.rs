//! Group commit: one sync of the WAL serves all who have committed before it began.
//!
//! A committer has given the write lock back, its frames are written, and COMMIT has not returned. It
//! waits here for a sync that began after that, made by whichever of those who wait gets the leader's
//! byte ([`LEADER`]), a lock of the kernel: a leader that is killed is replaced at once. The leader
//! notes how many frames are committed, syncs, and leaves in the sidecar's page that so many are
//! durable ([`Record`]).
//!
//! | a committer finds | and |
//! |---|---|
//! | a record of its WAL with its frames | is done |
//! | one that says that a sync has failed | fails |
//! | the leader's byte free | leads |
//! | it taken | sleeps on the page's futex word, [`LOOKS`] at most, and looks again |
//! | it taken for [`PATIENCE`]: the leader is stopped, or the disk is slow | syncs for itself |
//!
//! Those whom a sync has served are about to commit again, while it is led anew for those who came
//! during it. So whoever leads waits for more: until as much was committed as from when its last commit
//! but one was durable until its last one was ([`Waited`]), which is once by everybody; as long as they
//! come, and about as long as a sync takes at most; not where syncs are so fast that it is in vain
//! ([`SLOW_NS`]). Who has met nobody ([`Wal::round`]) syncs at once.
//!
//! # A sync that has failed
//! After that, nobody can know which frames are on the disk: fsync(2) reports an error once for each
//! open file, and the kernel takes the pages for clean. So the failure is noted in the page, for all, and
//! in this process, with the number of frames that are durable. Whoever needs a sync next repairs it:
//! [`leader::Group::repair`] writes all frames behind the durable ones once more and syncs them. Nobody waits for a
//! person to do something, and a connection that syncs nothing in its commits (`synchronous=NORMAL`) goes
//! on as on the stock VFS.
//!
//! | [`Record::failures`] | what happens | what is done | then |
//! |---|---|---|---|
//! | even: sound | a sync fails, of a leader, of who syncs for itself, of a checkpoint | it is noted, and the leader writes all behind the durable frames once more at once; who waited for any of them is told | odd |
//! | odd: failed | WRITE is taken to commit, and the last commit of the connection was synced, or there was none | one repair, before anything is written | even, and it goes on |
//! | odd | a checkpoint begins, or the last connection closes, or one takes the board for itself | the same | even, and it goes on |
//! | odd | the repair fails | the sync of that commit fails, and SQLite rolls it back; a checkpoint ends, and takes nothing out of the WAL | odd: the next tries again |
//! | odd | it succeeds, but the page can not be written, or a leader is stopped | all is durable; this commit syncs for itself, as without group commit | odd: the next repairs once more |
//! | odd | WRITE is taken by a connection whose last commit was not synced | nothing: it promises nothing. If it wants a sync all the same, that fails | odd |
//! | either | the WAL begins anew | all of it was copied, and that synced: it is another [`Log`] | even |
//!
//! What was acknowledged before a failure is in front of what is repaired, and stays durable. Also the
//! next sync of a client which knows nothing of this covers what the leader has written once more.
//!
//! Linux keeps for each open file which errors it was told of ([`Opened`]), which has two consequences.
//! A file that was opened after another was told of an error is told nothing of it: so whoever syncs
//! first writes those frames once more that were there before it came and are not known to be durable.
//! And one that was not told yet is told of an error that was made up for long ago: so whose sync fails,
//! and who has not synced since a failure was made up for, writes and syncs once more.
//!
//! # Clients that know nothing of this
//! A checkpoint, of whatever client, syncs the WAL before it copies any of it (`walCheckpoint`): so it
//! copies only what is durable, also frames whose committers still wait here. They keep their read
//! marks, without which nobody begins the WAL anew under them; a checkpoint of this VFS that has
//! excluded writers makes them durable first, so that the marks do not keep it from copying all, where
//! another leaves the rest to the next. After a failed sync it may be told of no error, and copies frames
//! that had been lost when they were written first: but the leader has written them once more at once,
//! so that its sync is about those. What is left is a moment between the two, the same that
//! `synchronous=NORMAL` has all the time. The same goes for a stock commit on top of them.
//!
//! # What is trusted
//! A record counts only if it is whole and about this very WAL: its file, its salts, and this start
//! of the machine ([`Log`]). A torn, random or old one is none, and then everyone syncs. Who
//! forges one on purpose can make others' COMMITs return too early; he needs the right to write the
//! sidecar, which is as good as that to write the database.

pub(crate) mod deferral;
pub(crate) mod leader;
pub(crate) mod participant;
pub(crate) mod record;
mod repair;
mod super_journal;
#[cfg(test)]
pub(crate) mod test_wal;
mod wal;

use std::ffi::c_int;
use std::io;
use std::time::Duration;

pub(crate) use participant::GroupCommit;
pub(crate) use super_journal::{has_super_journal, super_journal};

use crate::ffi::ResultCode;
use crate::format::Salts;
use crate::lock::page::GroupBytes;
use crate::lock::sidecar::Sidecar;
use crate::sys::Range;

/// A connection that commits, as its WAL knows it.
pub(crate) trait Committer: Copy {
    /// Whether its transaction may be durable later than it is committed: not if another database takes
    /// part in it. If this one's sync failed then, the other would keep its half, or lose it alone; and
    /// where there is a super-journal, SQLite does not look at what FCNTL_COMMIT_PHASETWO answers.
    fn may_defer(self) -> bool;
}

/// An open WAL of a connection, to be used by the thread that uses the connection.
pub(crate) trait WalFile: Copy {
    /// Whoever has a sync of it deferred.
    type Committer: Committer;

    /// What is known of its syncs. No method of the file is running meanwhile.
    fn with_syncs<T>(self, look: impl FnOnce(&mut deferral::Syncs<Self::Committer>) -> T) -> T;
    /// xSync of the base.
    fn sync(self, flags: c_int) -> ResultCode;
    /// xRead of the base. Whether all was read.
    fn read(self, bytes: &mut [u8], at: i64) -> bool;
    /// xWrite of the base. Whether all was written.
    fn write(self, bytes: &[u8], at: i64) -> bool;
}

/// What group commit needs to know of a connection's database in WAL mode.
pub(crate) trait WalIndex: Copy {
    /// The WAL.
    type Wal: WalFile;

    /// The salts in the wal-index, and how many frames are committed. Only while it is mapped.
    fn committed(&self) -> Option<(Salts, u32)>;
    /// The connection that uses it; `None` if SQLite has not said.
    fn committer(&self) -> Option<<Self::Wal as WalFile>::Committer>;
}

/// What group commit needs of a sidecar whose page is ours.
pub(crate) trait RecordFile {
    fn read(&self) -> io::Result<GroupBytes>;
    fn write(&self, bytes: &GroupBytes) -> io::Result<()>;
    /// Takes an exclusive lock, or says that another open file has one in the way.
    fn try_lock(&self, range: Range) -> io::Result<bool>;
    fn unlock(&self, range: Range) -> io::Result<()>;
    /// Sleeps while the futex word is `word`, at most so long.
    fn wait(&self, word: u32, limit: Duration);
    /// Changes the futex word, and wakes all who sleep on it.
    fn wake(&self);
}

/// Without one nobody can be told, or asked to wait.
impl<S: RecordFile> RecordFile for Option<&S> {
    fn read(&self) -> io::Result<GroupBytes> {
        self.map_or(Err(io::ErrorKind::NotFound.into()), RecordFile::read)
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        self.map_or(Ok(()), |sidecar| sidecar.write(bytes))
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        self.map_or(Ok(false), |sidecar| sidecar.try_lock(range))
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        self.map_or(Ok(()), |sidecar| sidecar.unlock(range))
    }
    fn wait(&self, word: u32, limit: Duration) {
        self.inspect(|sidecar| sidecar.wait(word, limit));
    }
    fn wake(&self) {
        self.inspect(|sidecar| sidecar.wake());
    }
}

impl RecordFile for Sidecar {
    fn read(&self) -> io::Result<GroupBytes> {
        self.read_group()
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        self.write_group(bytes)
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        Self::try_lock(self, range)
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        Self::unlock(self, range)
    }
    fn wait(&self, word: u32, limit: Duration) {
        self.wait_for_group(word, limit);
    }
    fn wake(&self) {
        self.wake_group();
    }
}

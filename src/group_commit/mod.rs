//! Group commit: one sync of the WAL serves every commit that was written before it began.
//!
//! With `synchronous=FULL` SQLite syncs the WAL in each commit while it has the WRITE slot of the wal-index locked, so
//! N writers wait for N syncs. Here a connection unlocks WRITE first. Its COMMIT returns after a sync that began
//! after its frames were written, whichever connection of whichever process made that sync.
//!
//! # A commit, from WRITE to COMMIT's return
//! 1. SQLite locks WRITE ([`GroupCommit::begins`]). The connection reads the record in the sidecar's page
//!    ([`record::Record`]). If that says that a sync has failed, the connection repairs it first. Then it allows one sync
//!    of its WAL to be deferred, unless no other connection has written for a while ([`other_writers`]).
//! 2. SQLite writes the frames and calls xSync of the WAL ([`deferral::Syncs::sync`]). xSync notes
//!    the flags, syncs nothing, and answers SQLITE_OK, unless another database takes part in the
//!    transaction ([`Committer::may_defer`]).
//! 3. SQLite unlocks WRITE ([`GroupCommit::ends`]). The connection notes which WAL it is, and which frame is its last.
//!    From here on the next writer runs, and readers see the commit.
//! 4. SQLite sends [SQLITE_FCNTL_COMMIT_PHASETWO], still within COMMIT, which returns what that answers
//!    ([`GroupCommit::commits`]). The connection waits here until its last frame is durable ([`leader`]).
//!
//! [SQLITE_FCNTL_COMMIT_PHASETWO]: https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlcommitphasetwo
//!
//! Of the connections that wait, the one that locks the leader's byte ([`leader::LEADER`]) makes
//! the sync. It notes how many frames are committed, syncs, writes into the page that these frames
//! are durable, and wakes the others. The byte is a kernel lock: the kernel releases it when the
//! leader is killed, and another takes over.
//!
//! | a waiting connection finds | and then |
//! |---|---|
//! | a record of its WAL that covers its frames | COMMIT returns |
//! | a record that says that a sync has failed, and does not cover its frames | COMMIT fails |
//! | the leader's byte free | leads |
//! | the leader's byte locked | sleeps on the page's futex word, for [`leader::LOOK_EVERY`] at most, and looks again |
//! | the leader's byte locked for [`leader::PATIENCE`]: the leader is stopped, or the disk is slow | makes a sync of its own |
//!
//! The connections that one sync has served are about to commit again while those that came during
//! it lead the next. So a leader waits for a whole round of commits: as many frames as were
//! committed between the moments when its last commit but one and its last commit became durable
//! ([`leader::Durable`]). In that time every connection commits once. The leader stops waiting when
//! no more commits come, or after about the time of one sync. It does not wait if syncs are too
//! fast to gain anything ([`leader::SLOW_NS`]), or if it has met no other writer
//! ([`wal::Wal::round`]).
//!
//! # A sync that fails
//! After a failed sync it is unknown which frames are on the disk: fsync(2) reports an error once
//! for each open file, and the kernel marks the pages as clean. So the connection whose sync failed
//! notes the failure in the page, for all processes, and in this process's memory
//! ([`leader::SharedSyncs`]), together with the number of frames that are durable. The connection
//! that needs a sync next repairs it ([`leader::SharedSyncs::repair`]): it writes all frames behind
//! the durable ones once more, as they are, and syncs them. The user need not act, and a connection
//! that syncs nothing in its commits (`synchronous=NORMAL`) goes on as on the stock VFS.
//!
//! | [`record::Record::failures`] | what happens | what follows | then |
//! |---|---|---|---|
//! | even: sound | a sync fails: of a leader, of a connection that syncs for itself, of a checkpoint | the failure is noted, and that connection at once writes all frames behind the durable ones once more; COMMIT fails for every connection that waited for one of them | odd |
//! | odd: failed | SQLite locks WRITE to commit, and the connection's last commit was synced, or it has made none | one repair, before anything is written | even, and the commit goes on |
//! | odd | a checkpoint begins, or the last connection closes, or one locks the database exclusively | one repair | even, and it goes on |
//! | odd | the repair fails | the sync of that commit fails, and SQLite rolls it back; a checkpoint ends, and takes nothing out of the WAL | odd: the next one tries again |
//! | odd | the repair succeeds, but the page cannot be written, or a stopped leader has the byte | all frames are durable; this commit syncs for itself, as without group commit | odd: the next one repairs once more |
//! | odd | a connection whose last commit was not synced locks WRITE | nothing, since it promises nothing; if SQLite still asks for a sync, that fails | odd |
//! | either | the WAL restarts | all frames were copied to the database, and that was synced; it is another WAL now ([`record::WalId`]) | even |
//!
//! What was acknowledged before a failure lies in front of what is repaired, and stays durable. The next sync of a
//! client that knows nothing of group commit also covers the frames that were written once more.
//!
//! Linux keeps, for each open file, which errors that file has reported ([`open_file::WalDescription`]).
//! This has two consequences. A file that was opened after another one had reported an error does
//! not report that error. So before its first sync counts, a connection writes once more all frames
//! that are older than its open file and not known to be durable. And a file that has not reported
//! an error yet reports it late, perhaps long after the repair. So a connection whose sync fails,
//! and that has not synced since a repair, writes and syncs once more.
//!
//! # Clients that know nothing of this
//! A checkpoint of any client syncs the WAL before it copies any frame (`walCheckpoint`). So it
//! copies durable frames only, also frames whose connections still wait here. A waiting connection
//! keeps its read mark, without which the WAL could restart under it. A checkpoint of this VFS that
//! has excluded writers makes their frames durable first ([`GroupCommit::drain`]), so that these
//! marks do not keep it from copying all; other checkpoints leave the rest to the next one.
//!
//! After a failed sync, the sync of such a checkpoint may report no error although frames had been
//! lost. But the connection whose sync failed has at once written them once more, so the
//! checkpoint's sync covers them. A gap remains between the failure and that write;
//! `synchronous=NORMAL` has such a gap all the time. Outside the gap, a stock commit on top of such
//! frames syncs them, too.
//!
//! # What is trusted
//! A record counts only if it is whole and about this very WAL: its file, its salts, and this boot
//! of the machine ([`record::WalId`]). A torn, random or old record counts as none, and then each
//! connection syncs. A client that forges a record can make COMMITs of others return too early. It
//! needs the right to write the sidecar, whose permissions are those of the database.

mod connection_wal;
pub(crate) mod deferral;
mod leader;
mod open_file;
mod other_writers;
mod participant;
mod record;
mod repair;
mod rewrite;
mod super_journal;
#[cfg(test)]
pub(crate) mod test_wal;
mod wal;

use std::ffi::c_int;

pub(crate) use participant::GroupCommit;
pub(crate) use super_journal::{has_super_journal, note_super_journal};

use crate::ffi::ResultCode;
use crate::format::Salts;

/// The connection that commits to a WAL.
pub(crate) trait Committer: Copy {
    /// Whether its open transaction may become durable after it is committed. xSync of the WAL asks
    /// this in each commit.
    ///
    /// It must not if another database takes part in the transaction. If the sync of this one failed later, one database would
    /// keep its half of the transaction and the other would not. With a super-journal SQLite also ignores the answer of
    /// SQLITE_FCNTL_COMMIT_PHASETWO.
    fn may_defer(self) -> bool;
}

/// An open WAL of a connection. Only the thread that uses the connection may use it, and only while no method of the
/// file is running.
pub(crate) trait WalFile: Copy {
    /// The connection whose sync is deferred.
    type Committer: Committer;

    /// Calls `look` with the state of the file's syncs. `look` must not call the file.
    fn with_syncs<T>(self, look: impl FnOnce(&mut deferral::Syncs<Self::Committer>) -> T) -> T;
    /// Calls xSync of the base VFS with SQLite's `flags`.
    fn sync(self, flags: c_int) -> ResultCode;
    /// Calls xRead of the base VFS at byte `at`. Returns whether that has filled `bytes`.
    fn read(self, bytes: &mut [u8], at: i64) -> bool;
    /// Calls xWrite of the base VFS at byte `at`. Returns whether that has written all of `bytes`.
    fn write(self, bytes: &[u8], at: i64) -> bool;
}

/// What group commit needs from a connection's database in WAL mode.
pub(crate) trait WalIndex: Copy {
    /// The connection's WAL.
    type Wal: WalFile;

    /// The WAL's salts and the number of its committed frames, as the wal-index says. `None` unless it is mapped.
    fn committed(&self) -> Option<(Salts, u32)>;
    /// The connection that has the database open; `None` if SQLite has not said.
    fn committer(&self) -> Option<<Self::Wal as WalFile>::Committer>;
}

//! The write lock: one per database, across all processes that use this VFS.
//!
//! | file | promise |
//! |---|---|
//! | [`database`] | Every connection of this process to one file meets in one object. |
//! | `database/owner.rs` | One connection of a process at a time tries for the write lock. |
//! | `database/open_sidecar.rs` | A process opens a sidecar once, and notices within a second that it was replaced. |
//! | [`write_lock`] | A connection acquires and releases the write lock, and nothing else. |
//! | [`sidecar`] | Every process meets in one file beside the database. |
//! | `sidecar/opening.rs` | That file is the right one, whoever creates or deletes it meanwhile. |
//! | `sidecar/content.rs` | A file of another program is never used or overwritten. |
//! | `sidecar/anothers.rs` | Nor does it lose this process's locks. |
//! | `sidecar/place.rs` | The path still leads to the file, which has the rights of its database. |
//! | `sidecar/deletion.rs` | The last process to close the file deletes it. |
//! | `sidecar/kernel_locks.rs` | Anyone who may read the file can ask which range of it is locked. |
//! | `sidecar/unusable.rs` | An error says why there is no sidecar and what to do. |
//! | [`holder`] | The kernel's lock itself says who holds it, and since when. |
//! | [`keepers`] | A process that keeps the lock of a dead holder is named. |
//! | [`queue`] | Waiters are served in order and woken at once. |
//! | `queue/pace.rs` | A holder may go on for a slice of time, and no longer. |
//! | `queue/slots.rs` | A slot belongs to a living process; holders learn that somebody waits. |
//! | `queue/waiting.rs` | A waiter returns when an attempt is worth making, and notices a dead holder. |
//! | [`page`] | What waiters and holders tell each other is a hint, never a right. |
//! | [`kinds`] | Kinds of transactions that were refused to write are known to all processes. |
//! | [`wait`] | A writer sleeps as long as SQLite asks it to, and says once that it has given up. |
//! | `circle.rs` | Of transactions over several databases that wait for each other, one gives up at once. |
//! | `wait/busy_handler.rs` | SQLite's default busy handler is known by its sleeps, and so is its last one. |
//! | `wait/sleeper.rs` | A thread sleeps for the connection that was refused last on it. |
//! | `wait/nap.rs` | One sleep ends as soon as an attempt is worth making. |
//!
//! `docs/locking-protocol.md` has the layout of the sidecar. Nothing here reads a journal or a WAL. It keeps
//! the bytes of group commit, deletes no sidecar that tells of a failed sync, and looks for SQLite's locks to name who
//! has them.
//!
//! # Lock order
//!
//! A thread takes these locks from the top down, and may leave some out:
//!
//! | | lock | held |
//! |---|---|---|
//! | 1 | the owner flag of a database: which connection of this process has the write lock | as long as the write lock |
//! | 2 | the mutex of a database's open sidecar | to open it or to copy its address |
//! | 3 | the registry of databases, a mutex | for a look-up, to open or delete a sidecar, and across fork(2) |
//! | 4 | the mutex of what a connection waits for | to change it, and while a probe asks for SQLite's own lock |
//! | 5 | the mutex of which database connections use a database's connections | to look, and to change it |
//! | 6 | the mutex of this process's slots in the queue | for locks of the kernel that nobody waits for |
//! | 7 | the lead of a sync: a flag of the process, then a lock of the kernel | for one sync |
//! | 8 | SQLite's own locks | as SQLite asks |
//!
//! Below them all lie the mutexes of what the event log is told ([`crate::recorder`], and the holder that waiters watch), held while
//! that is written, or while it is read which process that is.
//!
//! Nobody asks for the lead of a sync (7) while it holds the write lock, except a checkpoint, or while it
//! holds one of the mutexes.
//!
//! SQLite's own locks (8) are taken after the write lock and released before it. Some callers ask for the
//! write lock with a lock of SQLite's in hand. None of them can deadlock, because none waits without bound:
//! `connection/claim.rs` has the table of bounded waits. A connection that cleans up on its last close does not wait
//! at all.

mod circle;
pub(crate) mod database;
pub(crate) mod holder;
pub(crate) mod keepers;
#[cfg(any(test, feature = "fuzzing"))]
mod kernel;
pub(crate) mod kinds;
#[cfg(test)]
mod model;
pub(crate) mod page;
pub(crate) mod queue;
pub(crate) mod sidecar;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod simulation;
pub(crate) mod wait;
mod write_lock;

pub(crate) use database::Database;
pub(crate) use queue::Released;
pub(crate) use write_lock::{Arrival, Refused, WriteLock};

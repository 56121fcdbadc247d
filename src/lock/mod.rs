//! The write lock: one per database, across all processes that use this VFS.
//!
//! | file | promise |
//! |---|---|
//! | [`database`] | All connections of this process to one file share one object. |
//! | `database/owner.rs` | One connection of a process at a time tries for the write lock. |
//! | `database/open_sidecar.rs` | A process opens a sidecar once, and notices within a second that it was replaced. |
//! | [`write_lock`] | A connection acquires and releases the write lock, and nothing else. |
//! | [`sidecar`] | All processes lock one file beside the database. |
//! | `sidecar/opening.rs` | That file is the right one, though others create and delete it at the same time. |
//! | `sidecar/content.rs` | A file of another program is never used or overwritten. |
//! | `sidecar/anothers.rs` | Closing such a file drops no lock of this process. |
//! | `sidecar/place.rs` | The path still leads to the file, which has the rights of its database. |
//! | `sidecar/deletion.rs` | The last process to close the file deletes it. |
//! | `sidecar/kernel_locks.rs` | Anyone who may read the file can ask which range of it is locked. |
//! | `sidecar/unusable.rs` | An error says why there is no sidecar and what to do. |
//! | [`holder`] | The kernel's lock itself says who holds it, and since when. |
//! | [`keepers`] | The processes that keep a dead holder's lock are named. |
//! | [`queue`] | Waiters are served in order and woken at once. |
//! | `queue/pace.rs` | A holder may go on for a slice of time, and no longer. |
//! | `queue/slots.rs` | A slot belongs to a living process; holders learn that somebody waits. |
//! | `queue/waiting.rs` | A waiter returns when an attempt is worth making, and notices a dead holder. |
//! | [`page`] | What waiters and holders write for each other is a hint and grants no lock. |
//! | [`kinds`] | Kinds of transactions that were refused to write are known to all processes. |
//! | [`wait`] | A writer sleeps as long as SQLite asks it to, and says once that it has given up. |
//! | `circle.rs` | Of transactions over several databases that wait for each other, one gives up at once. |
//! | `wait/busy_handler.rs` | SQLite's default busy handler is recognised by its sleeps, and so is its last sleep. |
//! | `wait/sleeper.rs` | A thread sleeps for the connection that was refused last on it. |
//! | `wait/nap.rs` | One sleep ends as soon as an attempt is worth making. |
//!
//! `docs/locking-protocol.md` has the layout of the sidecar. Nothing here reads a journal or a WAL. This room keeps
//! the bytes of group commit, deletes no sidecar that records a failed sync, and looks for SQLite's locks to name the
//! processes that have them.
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
//! | 5 | the mutex of a database's `users`: which `sqlite3` uses which connection | to look, and to change it |
//! | 6 | the mutex of this process's slots in the queue | for kernel locks that are tried without waiting |
//! | 7 | the lead of a sync: a flag of the process, then a lock of the kernel | for one sync |
//! | 8 | SQLite's own locks | as SQLite asks |
//!
//! Last come the mutexes of the event log ([`crate::recorder`]) and of the holder that waiters
//! watch. They are held while an event is written, or while the holder's process is looked up.
//!
//! A thread that holds one of the mutexes does not ask for the lead of a sync (7). Of the holders of
//! the write lock, only a checkpoint does.
//!
//! SQLite's own locks (8) are taken after the write lock and released before it. Some callers ask
//! for the write lock while they hold one of SQLite's locks. None of them can deadlock, because
//! none waits without bound: `connection/claim/waits.rs` has the table of bounded waits. The last
//! connection, which cleans up when it closes, does not wait at all.

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

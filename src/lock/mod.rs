//! The write lock: one per database, across all processes that use this VFS.
//!
//! | room | promise |
//! |---|---|
//! | [`database`] | every connection of this process to one file meets in one object |
//! | [`sidecar`] | and every process in one file beside the database |
//! | [`holder`] | the kernel's lock itself says who holds it, and since when |
//! | [`keepers`] | whoever keeps the lock of a holder that is dead is named |
//! | [`queue`] | who waits is served in order, and woken at once |
//! | [`page`] | what waiters and holders tell each other is a hint, never a right |
//! | [`wait`] | a writer sleeps as long as SQLite asks it to, and says so, once, when it gives up |
//!
//! `docs/locking-protocol.md` has the layout of the sidecar. Nothing here knows of journals
//! nor of WALs: it offers acquire and release.
//!
//! # Order
//! 1. a database's owner flag: which of this process's connections has the write lock;
//! 2. a database's sidecar (a mutex, held to open it or copy its address);
//! 3. the registry of databases (a mutex, held for a look-up or an open, and while forking);
//! 4. what a connection waits for (a mutex, held to change it, and for a look at SQLite's own lock);
//! 5. the queue's local state (a mutex, held for locks of the kernel that are not waited for);
//! 6. who leads a sync (a flag of the process, then a lock of the kernel), never asked for with the
//!    write lock in hand but by a checkpoint, nor with one of the mutexes;
//! 7. SQLite's own locks, taken after the write lock and given back before it. The exceptions do
//!    not wait for it, or for a bounded time: a checkpoint, with its own slot, a few ms; a writer
//!    that meets a checkpoint, with its snapshot, 100 ms; whoever cleans up, not at all.

pub(crate) mod database;
pub(crate) mod holder;
pub(crate) mod keepers;
#[cfg(any(test, feature = "fuzzing"))]
mod kernel;
#[cfg(test)]
mod model;
pub(crate) mod page;
pub(crate) mod queue;
pub(crate) mod sidecar;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod simulation;
pub(crate) mod wait;

pub(crate) use database::{Database, Refused, WriteLock};

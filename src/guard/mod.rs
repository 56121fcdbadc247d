//! One file for each hazard. Guards import neither each other nor the write lock; `connection/`
//! decides when each is asked.
//!
//! | guard | hazard |
//! |---|---|
//! | [`ahead`] | an observer takes a checkpoint for a torn file |
//! | [`cancellation`] | closing a descriptor drops SQLite's locks |
//! | [`file_length`] | a write that extended the file was lost |
//! | [`filesystem`] | clients of a WAL do not share memory |
//! | [`identity`] | a file was deleted, renamed or replaced while it is open, or has several names |
//! | [`mount`] | a database is mounted over another file |
//! | [`wal_index`] | the WAL was deleted, and its index lives on |
//!
//! `connection/guards` has the parts of guards that use the connection's own file. The guard
//! against the WAL-reset bug is there entirely (`restart.rs`).

pub(crate) mod ahead;
pub(crate) mod cancellation;
pub(crate) mod file_length;
pub(crate) mod filesystem;
pub(crate) mod identity;
pub(crate) mod mount;
pub(crate) mod wal_index;

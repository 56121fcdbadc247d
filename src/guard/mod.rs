//! One file for each hazard. A guard knows its hazard only: guards import neither each other nor the write lock, and
//! `connection/` says when each is asked.
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
//! What a guard asks of the connection's own file is in `connection/guards`: that a checkpoint notes frames of a WAL that was
//! restarted (`restart.rs`) has no other part.

pub(crate) mod ahead;
pub(crate) mod cancellation;
pub(crate) mod file_length;
pub(crate) mod filesystem;
pub(crate) mod identity;
pub(crate) mod mount;
pub(crate) mod wal_index;

//! One file per hazard. They know nothing of each other.

pub(crate) mod ahead;
pub(crate) mod cancellation;
pub(crate) mod file_length;
pub(crate) mod filesystem;
pub(crate) mod identity;
pub(crate) mod mount;
pub(crate) mod wal_index;
pub(crate) mod wal_reset;

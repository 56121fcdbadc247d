//! One file per hazard. They know nothing of each other.

pub(crate) mod fork;
pub(crate) mod mount;

//! SQLite's C interface: its types, and the callbacks we hand to it.
//!
//! Everything SQLite calls goes through [`no_panic`], so that no panic crosses the C boundary.
#![allow(unsafe_code)]

pub(crate) mod connect;
#[cfg_attr(windows, path = "syscalls_windows.rs")]
pub(crate) mod syscalls;
pub(crate) mod types;
pub(crate) mod vfs;

pub(crate) use types::*;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic in it becomes `or`.
pub(crate) fn no_panic<T>(or: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(or)
}

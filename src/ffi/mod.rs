//! SQLite's C interface: its types, and its functions as one table of pointers. This module knows
//! nothing about this VFS.
//!
//! Every function that SQLite calls and that may panic goes through [`no_panic`], so that no panic
//! crosses the C boundary. It also keeps pthread_cancel(3) from unwinding a thread where a panic
//! would be caught.
#![allow(unsafe_code)]

pub(crate) mod copies;
pub(crate) mod host;
mod locks;
mod result_code;
pub(crate) mod types;
pub(crate) mod uri;

pub(crate) use locks::{LockLevel, ShmFlags, ShmSlot, ShmSlots};
pub(crate) use result_code::ResultCode;
pub(crate) use types::*;

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::Uncancelled;

/// Runs `body`, in which the thread cannot be cancelled. If `body` panics, the result is `or`.
pub(crate) fn no_panic<T>(or: T, body: impl FnOnce() -> T) -> T {
    let _uncancelled = Uncancelled::begin();
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(or)
}

/// `text`, whose only NUL is at its end, as a C string. For constants only: panics for any other
/// text.
pub(crate) const fn c_text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("not terminated"),
    }
}

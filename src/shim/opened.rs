//! How the connect hook asks a main database's file how its open went.

use std::ffi::{c_char, c_int};

/// The file control by which the connect hook asks. A file that is not ours does not know it. (SQLite reserves the
/// numbers below 100.)
pub(crate) const FCNTL_OPENED: c_int = 0x6b62_6e01;

/// How the open of a main database went.
#[repr(C)]
pub(crate) struct Opened {
    /// The busy timeout, in ms, of a connection that sets none.
    pub(crate) busy_timeout: c_int,
    /// Why it is refused, a string that lives as long as the file; null if it is not refused.
    pub(crate) refusal: *const c_char,
}

//! Windows has no fork: no file is inherited, so none is noted.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

use crate::ffi::sqlite3_file;

pub(crate) const WHY: &str = "";

pub(super) fn opened(_: *mut sqlite3_file, _: &Path, _: [*const c_char; 2]) {}

pub(super) fn closing(_: *mut sqlite3_file) {}

pub(super) fn mapped(_: *mut sqlite3_file, _: *mut c_void, _: c_int) {}

pub(super) fn unmapping(_: *mut sqlite3_file) {}

/// # Safety
/// None is needed.
pub(crate) unsafe fn is_parents(_: *const c_char) -> bool {
    false
}

pub(super) fn names_parents(_: *const c_void) -> bool {
    false
}

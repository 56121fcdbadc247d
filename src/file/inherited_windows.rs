//! Nothing is forked on Windows, so no file is inherited, and none is noted.

use std::ffi::{c_int, c_void};
use std::path::Path;

use crate::ffi::sqlite3_file;

pub(super) fn opened(_: *mut sqlite3_file, _: &Path) {}

pub(super) fn closing(_: *mut sqlite3_file) {}

pub(super) fn mapped(_: *mut sqlite3_file, _: *mut c_void, _: c_int) {}

pub(super) fn unmapping(_: *mut sqlite3_file) {}

pub(crate) fn is_parents(_: &Path) -> bool {
    false
}

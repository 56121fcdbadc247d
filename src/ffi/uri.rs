//! A file name as SQLite passes it to xOpen, with its URI parameters: <https://www.sqlite.org/uri.html>.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int};
use std::path::Path;

use super::host::Host;
use crate::sys;

/// The file name of an open, and its parameters. [`FileName`] asks SQLite for them; tests pass a list.
pub(crate) trait Uri {
    /// Whether there is no name, as for a temporary file.
    fn is_null(&self) -> bool;
    /// The value of a parameter. Main databases only.
    fn get(&self, key: &CStr) -> Option<&CStr>;
    /// The key of the nth parameter. Main databases only.
    fn key(&self, n: usize) -> Option<&CStr>;
    /// The path, canonical for a main database; empty if there is no name.
    fn path(&self) -> Cow<'_, Path>;

    /// Whether a parameter is set and true, as SQLite reads it: <https://www.sqlite.org/c3ref/uri_boolean.html>. Main databases
    /// only.
    fn is_true(&self, key: &CStr) -> bool;
}

/// The file name of an open, with the URI parameters that SQLite keeps behind it.
pub(crate) struct FileName<'h> {
    name: *const c_char,
    host: &'h Host,
}

impl<'h> FileName<'h> {
    /// # Safety
    /// `name` is null or what the SQLite of `host` passed to xOpen, and is used only until xOpen returns. If it is not a main
    /// database's, only [`Uri::is_null`] and [`Uri::path`] may be called.
    pub(crate) unsafe fn new(name: *const c_char, host: &'h Host) -> Self {
        Self { name, host }
    }
}

impl Uri for FileName<'_> {
    fn is_null(&self) -> bool {
        self.name.is_null()
    }

    fn get(&self, key: &CStr) -> Option<&CStr> {
        // SAFETY: the promise to `new`: this is asked of a main database's name, behind which SQLite keeps parameters.
        unsafe { self.host.uri_parameter(self.name, key) }
    }

    fn key(&self, n: usize) -> Option<&CStr> {
        // SAFETY: the promise to `new`: a key is asked of a main database's name, behind which SQLite keeps parameters.
        unsafe { self.host.uri_key(self.name, c_int::try_from(n).ok()?) }
    }

    fn is_true(&self, key: &CStr) -> bool {
        // SAFETY: the promise to `new`: this is asked of a main database's name, behind which SQLite keeps parameters.
        unsafe { self.host.uri_boolean(self.name, key) }
    }

    fn path(&self) -> Cow<'_, Path> {
        if self.is_null() {
            return Path::new("").into();
        }
        // SAFETY: the promise to `new`: SQLite has passed a terminated name.
        sys::path_from(unsafe { CStr::from_ptr(self.name) })
    }
}

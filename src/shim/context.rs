//! What the files of one registered VFS share.

use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::ffi::ResultCode;
use crate::ffi::host::Host;
use crate::guard::cancellation::Protection;
use crate::log;

/// What every file knows about its registered VFS. Like the VFS, it lives for ever.
pub(crate) struct Context {
    /// The SQLite that it is registered with.
    pub(crate) host: Host,
    /// szOsFile of the base, in bytes.
    pub(crate) base_file_size: c_int,
    /// The answer to FCNTL_VFSNAME, for example `kanban/unix`.
    pub(crate) full_name: String,
    /// Whether the base is one of the operating system's VFSes.
    pub(crate) is_over_system: bool,
    /// Whether only SQLite3MultipleCiphers may open a database through this VFS. Otherwise data
    /// that should be encrypted would be written as plain text.
    pub(crate) goes_under_ciphers: bool,
    /// The protection that keeps its databases' locks when another descriptor is closed.
    pub(crate) protection: Protection,
    /// Whether the log already says that there is no such protection.
    pub(crate) has_said_what_is_off: AtomicBool,
    /// How many databases are open through it.
    pub(crate) open_databases: AtomicUsize,
}

impl Context {
    /// If no database has that protection, logs why, once: when the first database is opened.
    pub(crate) fn say_what_is_off(&self, path: &Path) {
        let Some(why) = self.protection.why_off() else { return };
        if self.has_said_what_is_off.swap(true, Ordering::Relaxed) {
            return;
        }
        let what = format!(
            "if this process opens and closes the file other than through SQLite, it drops SQLite's locks, as on the \
             stock VFS; the guard against that is off: {why}"
        );
        log::about(&self.host, ResultCode::WARNING, &what, path);
    }

    /// Counts a database opened through this VFS, until the result is dropped.
    pub(crate) fn count_database(&'static self) -> OpenDatabase {
        self.open_databases.fetch_add(1, Ordering::SeqCst);
        OpenDatabase(self)
    }
}

/// One database open through a VFS. While it lives, the VFS cannot be unregistered.
pub(crate) struct OpenDatabase(&'static Context);

impl OpenDatabase {
    /// The VFS that it is open through.
    pub(crate) fn context(&self) -> &'static Context {
        self.0
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        self.0.open_databases.fetch_sub(1, Ordering::SeqCst);
    }
}

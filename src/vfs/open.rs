//! What the VFS does with a file that SQLite opens.

use std::ffi::c_int;

use crate::ffi::uri::Uri;
use crate::ffi::{
    SQLITE_OPEN_DELETEONCLOSE, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL,
    SQLITE_OPEN_SUBJOURNAL, SQLITE_OPEN_SUPER_JOURNAL, SQLITE_OPEN_WAL,
};
use crate::guard;
use crate::options::{Options, Settings};

/// What to do with a file that is being opened.
pub(crate) enum OpenPlan {
    /// It stays the base's: the database is temporary, in memory, or opened without locks.
    LeaveToBase,
    /// A WAL, a journal or a statement journal, which has no name. It keeps the base's methods, but a forked child
    /// must not use it.
    Watch,
    /// A database that others may share.
    Guard(Settings),
    /// Opening it would lose a guarantee. The text says why and what to do.
    Refuse(String),
}

/// Decides what to do with a file, by the name and flags that xOpen gets and where the name leads.
pub(crate) fn plan_open(uri: &impl Uri, flags: c_int, defaults: &Options) -> OpenPlan {
    let is_shared_database = flags & SQLITE_OPEN_MAIN_DB != 0
        && flags & SQLITE_OPEN_DELETEONCLOSE == 0
        && !uri.is_null();
    if !is_shared_database {
        const WATCHED: c_int =
            SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
        let is_watched =
            flags & WATCHED != 0 && !uri.is_null() || flags & SQLITE_OPEN_SUBJOURNAL != 0;
        return if is_watched { OpenPlan::Watch } else { OpenPlan::LeaveToBase };
    }
    let settings = match Settings::from_uri(uri, defaults) {
        Ok(settings) => settings,
        Err(why) => return OpenPlan::Refuse(format!("{}: {why}", uri.path().display())),
    };
    if uri.is_true(c"nolock") || uri.is_true(c"immutable") {
        return OpenPlan::LeaveToBase;
    }
    match guard::mount::refusal(&uri.path()) {
        Some(why) => OpenPlan::Refuse(format!("{}: {why}", uri.path().display())),
        None => OpenPlan::Guard(settings),
    }
}

#[cfg(test)]
mod tests;

//! Interposition: how our methods are called before those of the base's file.
//!
//! The base's file is at the start of the memory that SQLite gives us. Behind it is the address of
//! our state, if there is one. When the base has opened a main database, a WAL or a journal, the
//! file's method table is replaced by a copy in which a few methods are ours. The others are the
//! base's own pointers.
//!
//! | file | promise |
//! |---|---|
//! | [`methods`] | a method of ours finds the base's table and our state from its file |
//! | [`database`] | the methods of a database, as C calls them |
//! | [`control`] | the file controls of a database, with our own, by which the connect hook asks how the open went |
//! | [`base`] | the base's database file, as a connection uses it |
//! | [`wal`] | the WAL of a database with group commit, whose sync can be deferred |
//! | [`watched`] | other WALs and journals are known while they are open |
//! | [`inherited`] | a forked child does nothing to its parent's files |
//! | [`refused`] | a refused open says why |
//! | [`inert`] | methods that do nothing, for [`inherited`] and [`refused`] |
//! | [`context`] | what the files of one VFS share |
//!
//! # Threads and locks
//! SQLite uses a connection, and so its files, from one thread at a time
//! (<https://www.sqlite.org/threadsafe.html>). It calls a method with the connection's mutex and,
//! if a cache is shared, the cache's mutex; or the application has promised to serialise its calls.
//! So no method needs a lock for its file's state. A method must not keep a lock of ours when it
//! returns. Nor may it use its connection, which would begin another call.
//!
//! The locks of this directory are of the whole process, and are held for a look-up only: which
//! WALs are wanted ([`wal`]), the tables ([`methods`]), the open files ([`inherited`]). A thread
//! that holds one of them does not take another, except a thread that forks: it takes all, in that
//! order.
#![allow(unsafe_code)]

mod base;
mod context;
mod control;
mod database;
mod inert;
#[cfg_attr(windows, path = "inherited_windows.rs")]
pub(crate) mod inherited;
mod methods;
mod refused;
mod seen;
mod wal;
mod watched;

pub(crate) use context::{Context, OpenDatabase};
pub(crate) use control::{FCNTL_OPENED, Opened};
pub(crate) use database::install_database;
pub(crate) use methods::size_with_state;
pub(crate) use refused::refuse;
pub(crate) use watched::watch;

/// Keeps other threads from making tables, and from opening or closing databases with group commit, until the result is
/// dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    (wal::hold_for_fork(), methods::hold_for_fork())
}

#[cfg(test)]
mod tests {
    use crate::ffi::{ResultCode, sqlite3_file, sqlite3_io_methods};

    unsafe extern "C" fn close(_: *mut sqlite3_file) -> ResultCode {
        ResultCode::OK
    }

    /// A closed file is forgotten, even one that is only watched. Otherwise a forked child would
    /// write to memory that has another use by then.
    #[test]
    fn every_table_of_ours_sees_the_file_close() {
        // SAFETY: null is a value of every field.
        let nothing: sqlite3_io_methods = unsafe { std::mem::zeroed() };
        let base = sqlite3_io_methods { xClose: Some(close), ..nothing };
        for ours in [
            super::database::over(&base),
            super::database::over_without_wal(&base),
            super::watched::over(&base),
            super::watched::over_super_journal(&base),
            super::wal::over(&base),
        ] {
            let closes = ours.xClose.expect("it closes");
            assert!(!std::ptr::fn_addr_eq(
                closes,
                close as unsafe extern "C" fn(*mut sqlite3_file) -> ResultCode
            ));
        }
    }
}

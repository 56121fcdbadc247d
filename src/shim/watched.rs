//! Files beside a database: a WAL, a journal, a super-journal, a statement journal. They keep the
//! base's methods, with two exceptions. Our close lets a forked child know its parent's open files
//! ([`super::inherited`]), and our sync notes a failure for the event log.
//!
//! A super-journal also tells [`crate::group_commit`] that several databases commit, and refuses
//! the name of a parent's journal. The WAL of a database with group commit has methods of its own:
//! [`super::wal`].
//!
//! SQLite calls these methods for one connection, from one thread at a time, and no lock of ours is held.

use std::ffi::{c_int, c_void};
use std::path::Path;

use super::methods::{FileKind, Interposed, Methods, call};
use super::{Context, inherited, wal};
use crate::ffi::{
    ResultCode, SQLITE_OPEN_SUPER_JOURNAL, SQLITE_OPEN_WAL, no_panic, sqlite3_file,
    sqlite3_io_methods,
};
use crate::sys::Uncancelled;
use crate::{group_commit, recorder};

/// A copy of `base` for a WAL or a journal.
pub(super) fn over(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods { xClose: Some(x_close), xSync: base.xSync.and(Some(x_sync)), ..*base }
}

/// A copy of `base` for a super-journal.
pub(super) fn over_super_journal(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods { xWrite: base.xWrite.and(Some(x_write_name)), ..over(base) }
}

/// Watches a WAL or journal that the base has opened; `path` is empty for a statement journal.
///
/// # Safety
/// `file` is memory of [`super::size_with_state`] bytes, opened by the base of `context`.
pub(crate) unsafe fn watch(
    file: *mut sqlite3_file,
    context: &'static Context,
    path: &Path,
    flags: c_int,
) {
    // SAFETY: the caller's promise: the base has opened the file, or has left it without methods. Without a state, the
    // offset is not used.
    unsafe {
        let base = (*file).pMethods;
        if base.is_null() {
            return;
        }
        if flags & SQLITE_OPEN_WAL != 0 && wal::is_wanted(path) {
            wal::install_wal(file, context.base_file_size);
        } else {
            let methods = if flags & SQLITE_OPEN_SUPER_JOURNAL == 0 {
                Methods::over(base, 0, FileKind::Watched, over)
            } else {
                group_commit::note_super_journal(true);
                Methods::over(base, 0, FileKind::SuperJournal, over_super_journal)
            };
            (*file).pMethods = &raw const methods.ours;
        }
    }
    inherited::opened(file, path, [std::ptr::null(); 2]);
}

/// xSync: SQLite syncs a journal or a WAL. An error is noted for the event log of the database.
unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> ResultCode {
    let _uncancelled = Uncancelled::begin();
    // SAFETY: SQLite syncs an open file, and this method is only in tables of ours.
    let watched = unsafe { Interposed::of(file) };
    let rc = call!(watched, xSync, ResultCode::IOERR_FSYNC, flags);
    if rc != ResultCode::OK {
        recorder::note_failed_sync(rc.0);
    }
    rc
}

/// xClose: SQLite is done with a journal or a WAL.
unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once, and this method is only in tables of ours.
        let watched = unsafe { Interposed::closing(file) };
        if watched.methods.kind == FileKind::SuperJournal {
            group_commit::note_super_journal(false);
        }
        call!(watched, xClose, ResultCode::OK)
    })
}

/// xWrite of a super-journal: SQLite writes the names of journals to it, each from the memory of
/// the connection it belongs to. It holds RESERVED or more on all databases that take part. If a
/// name belongs to a parent's connection, the commit fails.
unsafe extern "C" fn x_write_name(
    file: *mut sqlite3_file,
    name: *const c_void,
    bytes: c_int,
    at: i64,
) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        if inherited::names_parents(name) {
            return ResultCode::IOERR;
        }
        // SAFETY: SQLite writes to an open file, and this method is only in tables of ours.
        let watched = unsafe { Interposed::of(file) };
        call!(watched, xWrite, ResultCode::IOERR, name, bytes, at)
    })
}

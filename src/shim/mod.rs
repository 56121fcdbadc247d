//! Interposition: how our methods get in front of the base's file.
//!
//! The base's file lies at the start of the memory SQLite gives us, and behind it the address of
//! our state. After the base has opened a main database, its method table is replaced by a copy in
//! which a few methods are ours. The copy sits in a [`Methods`], behind which a method finds the
//! base's table and the state. Methods that are not ours are the base's own pointers.
#![allow(unsafe_code)]

mod context;
mod database;
#[cfg_attr(windows, path = "inherited_windows.rs")]
pub(crate) mod inherited;
mod opened;
mod refused;
mod wal;

use std::ffi::{c_char, c_int};
use std::path::Path;

pub(crate) use context::{Context, OpenDatabase};
pub(crate) use opened::{FCNTL_OPENED, Opened};
pub(crate) use refused::refuse;

use crate::connection::{Connection, Known};
use crate::ffi::{
    ResultCode, SQLITE_OPEN_READONLY, SQLITE_OPEN_SUPER_JOURNAL, SQLITE_OPEN_WAL, sqlite3,
    sqlite3_file, sqlite3_io_methods,
};
use crate::group_commit;
use crate::guard::cancellation::Protected;
use crate::guard::filesystem;
use crate::guard::identity::Identity;
use crate::options::Settings;
use crate::sys::fork::ForkMutex;
use database::Base;

/// What lies behind the base's file: the address of the state of our methods.
type StateSlot = *mut ();

/// The size of a file of ours over one of the base's, in bytes.
pub(crate) fn size_with_state(base: c_int) -> c_int {
    c_int::try_from(state_offset(base) + size_of::<StateSlot>()).unwrap_or(c_int::MAX)
}

fn state_offset(base: c_int) -> usize {
    usize::try_from(base).unwrap_or(0).next_multiple_of(align_of::<StateSlot>())
}

/// A method table of ours. `ours` is first, so that a file's `pMethods` is its address.
#[repr(C)]
struct Methods {
    ours: sqlite3_io_methods,
    /// A copy, complete: null where the base's version has nothing.
    base: sqlite3_io_methods,
    /// The base's table itself, to be put back.
    base_table: *const sqlite3_io_methods,
    state_offset: usize,
    kind: Kind,
}

// SAFETY: the contents never change, and the pointer is used in SQLite's calls only.
unsafe impl Send for Methods {}
// SAFETY: as above.
unsafe impl Sync for Methods {}

/// The state of an open main database.
struct State {
    connection: Connection<Base>,
    /// Where SQLite keeps the address of the connection that uses the file; null if it has not said.
    db: *const *mut sqlite3,
    /// With group commit.
    wanted: Option<wal::Wanted>,
    /// Dropped when the base has closed the file.
    _protected: Option<Protected>,
    /// Dropped last: then the VFS may be unregistered.
    opened: OpenDatabase,
}

/// Our table over `base`. One for each base table and offset, for the life of the process.
///
/// # Safety
/// `base` is the table of a file that its VFS has just opened.
unsafe fn methods_over(
    base: *const sqlite3_io_methods,
    state_offset: usize,
    kind: Kind,
) -> &'static Methods {
    // SAFETY: the caller's promise.
    let complete = unsafe { read_methods(base) };
    let ours = match kind {
        Kind::Database => database::over(&complete, true),
        Kind::WithoutWal => database::over(&complete, false),
        Kind::Wal => wal::over(&complete),
        Kind::SuperJournal => database::over_super_journal(&complete),
        Kind::Watched | Kind::Refused => database::watching(&complete),
    };
    leak_once(Methods { ours, base: complete, base_table: base, state_offset, kind })
}

/// What a table is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Database,
    /// A database on a file system on which WAL mode is refused.
    WithoutWal,
    /// A WAL, a journal or a statement journal.
    Watched,
    /// The WAL of a database with group commit.
    Wal,
    SuperJournal,
    /// A database that was not opened.
    Refused,
}

static TABLES: ForkMutex<Vec<&'static Methods>> = ForkMutex::new(Vec::new());

/// Keeps other threads from making tables until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    (wal::hold_for_fork(), TABLES.lock())
}

/// `made`, or the table that was made of the same base before. Tables live for ever.
fn leak_once(made: Methods) -> &'static Methods {
    let mut tables = TABLES.lock();
    let of = |m: &Methods| (m.base_table, m.state_offset, m.kind as u8);
    let known = tables.iter().find(|known| of(known) == of(&made));
    known.copied().unwrap_or_else(|| {
        let made: &'static Methods = Box::leak(Box::new(made));
        tables.push(made);
        made
    })
}

/// A copy of `methods` with nothing where its version has nothing.
///
/// # Safety
/// `methods` is the table of an open file.
unsafe fn read_methods(methods: *const sqlite3_io_methods) -> sqlite3_io_methods {
    let mut copy = std::mem::MaybeUninit::<sqlite3_io_methods>::zeroed();
    // SAFETY: a table of version 1 or 2 ends where the methods of the next begin; null is a value
    // of every field.
    unsafe {
        let bytes = match (*methods).iVersion {
            ..2 => std::mem::offset_of!(sqlite3_io_methods, xShmMap),
            2 => std::mem::offset_of!(sqlite3_io_methods, xFetch),
            3.. => size_of::<sqlite3_io_methods>(),
        };
        methods.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), bytes);
        let mut copy = copy.assume_init();
        copy.iVersion = copy.iVersion.min(3);
        copy
    }
}

/// The place of the state's address in `file`.
///
/// # Safety
/// `file` is memory of [`size_with_state`] bytes over the base that `state_offset` is of.
unsafe fn state_slot(file: *mut sqlite3_file, state_offset: usize) -> *mut StateSlot {
    // SAFETY: the caller's promise; SQLite aligns files to 8 bytes.
    unsafe { file.cast::<u8>().add(state_offset).cast() }
}

/// A file of ours is about to be closed, and has the base's methods again.
///
/// # Safety
/// `file` is open and has one of our tables.
unsafe fn closing(file: *mut sqlite3_file) -> &'static Methods {
    inherited::closing(file);
    // SAFETY: the caller's promise: pMethods is the first field of a `Methods`.
    unsafe {
        let methods: &'static Methods = &*(*file).pMethods.cast::<Methods>();
        (*file).pMethods = methods.base_table;
        methods
    }
}

/// Puts our methods in front of a main database that the base has opened.
///
/// # Safety
/// `file` is memory of [`size_with_state`] bytes, opened by the base of `context`; `name` is what
/// SQLite has passed to xOpen.
pub(crate) unsafe fn install(
    file: *mut sqlite3_file,
    context: &'static Context,
    path: &Path,
    name: *const c_char,
    flags: c_int,
    settings: Settings,
) -> ResultCode {
    let read_only = flags & SQLITE_OPEN_READONLY != 0;
    let log = context.host;
    let no_wal = match settings.network_wal() {
        true => None,
        false => filesystem::wal_refusal(&filesystem::Of(path)),
    };
    let kind = if no_wal.is_none() { Kind::Database } else { Kind::WithoutWal };
    let identity = Identity::of(path, settings.hard_links());
    // Before SQLite locks it.
    let protected =
        identity.as_ref().and_then(|known| context.protection.opened(known.inode(), path));
    let offset = state_offset(context.base_file_size);
    // SAFETY: the caller's promise.
    let methods = unsafe { methods_over((*file).pMethods, offset, kind) };
    let base = Base::new(file, methods);
    let known = Known { identity, no_wal, keeps_ahead: settings.file_ahead() };
    let mut connection = Connection::new(base, path, settings.clone(), log, known, read_only);
    if context.goes_under_ciphers {
        connection.go_under_ciphers();
    }
    let state = Box::new(State {
        connection,
        db: std::ptr::null(),
        wanted: settings.group_commit().then(|| wal::Wanted::new(path)),
        _protected: protected,
        opened: context.count_database(),
    });
    // SAFETY: the caller's promise.
    unsafe {
        state_slot(file, offset).write(Box::into_raw(state).cast());
        (*file).pMethods = &raw const methods.ours;
        inherited::opened(file, path, name);
        if database::opened(file, &settings) {
            return ResultCode::OK;
        }
        let why = "the database was replaced while it was being opened; open it again";
        log.log_about(ResultCode::CANTOPEN, why, path);
        methods.ours.xClose.map(|close| close(file));
        (*file).pMethods = std::ptr::null();
    }
    ResultCode::CANTOPEN
}

/// Watches a WAL or journal that the base has opened; `path` is empty for a statement journal.
///
/// # Safety
/// `file` is memory of [`size_with_state`] bytes, opened by the base of `context`.
pub(crate) unsafe fn watch(
    file: *mut sqlite3_file,
    context: &'static Context,
    path: &Path,
    flags: c_int,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*file).pMethods.is_null() {
            return;
        }
        if flags & SQLITE_OPEN_WAL != 0 && wal::is_wanted(path) {
            wal::install(file, state_offset(context.base_file_size));
        } else {
            let kind = match flags & SQLITE_OPEN_SUPER_JOURNAL {
                0 => Kind::Watched,
                _ => Kind::SuperJournal,
            };
            if kind == Kind::SuperJournal {
                group_commit::super_journal(true);
            }
            (*file).pMethods = &raw const methods_over((*file).pMethods, 0, kind).ours;
        }
    }
    inherited::opened(file, path, std::ptr::null());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies behind the base's file begins behind it, where an address may be, and has room.
    #[test]
    fn the_state_lies_behind_the_bases_file() {
        for base in 0..40 {
            let offset = state_offset(base);
            assert!((base as usize..base as usize + 8).contains(&offset), "{base}: {offset}");
            assert_eq!(offset % align_of::<StateSlot>(), 0);
            assert_eq!(size_with_state(base) as usize, offset + size_of::<StateSlot>());
        }
    }
}

//! The open files, and what a child of fork(2) does with them.
//!
//! A child that used, rolled back or closed its parent's files would harm the parent
//! (<https://www.sqlite.org/howtocorrupt.html> 2.6). So in the child these files get methods that
//! do nothing, and the wal-index becomes the child's own copy. The base never closes these files in
//! the child: its close also unlocks them, through open file descriptions that the parent shares.
//!
//! An inherited connection believes that it has the locks that the parent had at the fork, so it
//! asks for none. Its next step goes through the VFS by name: it opens or deletes a journal or a
//! WAL. The child's own connections to the same database use the same names. But SQLite passes the
//! very string that it keeps beside the database's name
//! (<https://www.sqlite.org/c3ref/filename_database.html>). So the string's address tells whose
//! file it is.
//!
//! One mutex protects the table of open files ([`OPEN`]). It is held for a look-up, and while a
//! thread forks. SQLite calls the methods here for an inherited connection, which believes that it
//! has locks. So none of them may touch the base's file.
//!
//! | an inherited connection in a forked child | is refused by |
//! |---|---|
//! | reads, writes, truncates, syncs or locks a database, journal, WAL, super-journal or statement journal that is open | [`METHODS`] |
//! | opens a journal or a WAL to write to it | [`is_parents`], in xOpen |
//! | deletes one | [`is_parents`], in xDelete |
//! | writes a journal's name into a super-journal, to commit to several databases | [`names_parents`], in xWrite of the super-journal: SQLite deletes the super-journal again |

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::inert;
use crate::ffi::{
    LockLevel, ResultCode, SQLITE_FCNTL_PRAGMA, SQLITE_FCNTL_SYNC, ShmFlags, ShmSlot, copies,
    no_panic, sqlite3_file, sqlite3_io_methods,
};
use crate::log;
use crate::sys;
use crate::sys::fork::{self, ForkMutex};

/// Where a region of a wal-index is mapped, and its size in bytes.
type Region = (usize, usize);

/// Why a child must not use its parent's connection, for the log.
pub(crate) const WHY: &str =
    "the connection was opened before a fork, by the parent; open one in the child";

struct Inheritable {
    /// The file's path; empty for a statement journal.
    path: PathBuf,
    /// The addresses of the names of a database's journal and WAL, which SQLite keeps while the
    /// file is open; null for other files.
    beside: [usize; 2],
    is_inherited: bool,
    regions: Vec<Region>,
}

/// The open files by their addresses.
static OPEN: ForkMutex<Option<HashMap<usize, Inheritable>>> = ForkMutex::new(None);

/// The result of `look` at an open file; `None` if the file is not open.
fn with_open<T>(file: *mut sqlite3_file, look: impl FnOnce(&mut Inheritable) -> T) -> Option<T> {
    OPEN.lock().as_mut()?.get_mut(&file.expose_provenance()).map(look)
}

/// Notes a file that was opened, and has its methods. `beside` are the names of a database's
/// journal and WAL, and null for other files.
pub(super) fn opened(file: *mut sqlite3_file, path: &Path, beside: [*const c_char; 2]) {
    let (path, beside) = (path.to_owned(), beside.map(<*const c_char>::expose_provenance));
    let open = Inheritable { path, beside, is_inherited: false, regions: Vec::new() };
    OPEN.lock().get_or_insert_default().insert(file.expose_provenance(), open);
}

/// Forgets a file that is about to be closed.
pub(super) fn closing(file: *mut sqlite3_file) {
    if let Some(open) = OPEN.lock().as_mut() {
        open.remove(&file.expose_provenance());
    }
}

/// Notes a mapped region of a file's wal-index, of that many bytes.
pub(super) fn mapped(file: *mut sqlite3_file, region: *mut c_void, bytes: c_int) {
    let region = (region.expose_provenance(), usize::try_from(bytes).unwrap_or(0));
    with_open(file, |open| {
        if region.0 != 0 && !open.regions.contains(&region) {
            open.regions.push(region);
        }
    });
}

/// Forgets the regions of a file's wal-index, which is about to be unmapped.
pub(super) fn unmapping(file: *mut sqlite3_file) {
    with_open(file, |open| open.regions.clear());
}

/// Keeps other threads from opening and closing files until the result is dropped.
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    OPEN.lock()
}

/// Whether the journal or WAL that SQLite asks for by `name` belongs to a connection that this
/// process inherited. The parent writes and deletes that file.
///
/// # Safety
/// `name` is null or a terminated string.
pub(crate) unsafe fn is_parents(name: *const c_char) -> bool {
    if fork::generation() == 0 || name.is_null() {
        return false;
    }
    if let Some(is_inherited) = is_inherited(name.cast()) {
        return is_inherited;
    }
    // Otherwise a VFS above this one has copied the name, so compare the text.
    // SAFETY: the caller's promise: it is terminated, and was found not to be null.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let Some(database) = name.strip_suffix(b"-journal").or_else(|| name.strip_suffix(b"-wal"))
    else {
        return false;
    };
    let open = OPEN.lock();
    let of_database = |open: &&Inheritable| open.path.as_os_str().as_bytes() == database;
    let mut known = open.iter().flat_map(HashMap::values).filter(of_database).peekable();
    known.peek().is_some() && known.all(|open| open.is_inherited)
}

/// Whether the connection that this very pointer to a name belongs to is inherited; `None` if the
/// pointer belongs to none.
fn is_inherited(name: *const c_void) -> Option<bool> {
    let open = OPEN.lock();
    let has_it = |open: &&Inheritable| !name.is_null() && open.beside.contains(&name.addr());
    open.iter().flat_map(HashMap::values).find(has_it).map(|open| open.is_inherited)
}

/// Whether the data that SQLite writes is the name of one of the parent's journals.
pub(super) fn names_parents(data: *const c_void) -> bool {
    fork::generation() != 0 && is_inherited(data) == Some(true)
}

/// In a forked child, which has only this thread: disables the files that its parent had open. Must
/// not call SQLite, whose mutexes other threads of the parent may have held.
pub(crate) fn abandon() {
    let mut open = OPEN.lock();
    let Some(open) = open.as_mut() else { return };
    let page = sys::page_bytes();
    // A base may keep a wal-index in the process's own memory, of which the child has a copy.
    let shared = sys::shared_memory();
    for (file, inherited) in open {
        inherited.is_inherited = true;
        let file = std::ptr::with_exposed_provenance_mut::<sqlite3_file>(*file);
        // SAFETY: the file is open, in memory that is the child's copy, and the child has one thread.
        unsafe { (*file).pMethods = &raw const METHODS };
        for (start, bytes) in inherited.regions.drain(..) {
            // Regions smaller than a page of memory share a mapping.
            let first = start / page * page;
            let bytes = (start + bytes).next_multiple_of(page) - first;
            if !shared.iter().any(|(start, end)| *start <= first && first + bytes <= *end) {
                continue;
            }
            // SAFETY: it is mapped, as a whole number of pages, and the child has one thread. If there
            // is no memory for it, it stays as it was.
            let _ =
                unsafe { sys::make_private(std::ptr::with_exposed_provenance_mut(first), bytes) };
        }
    }
}

/// The methods of an inherited file.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(x_close),
    xLock: Some(x_lock),
    xFileControl: Some(x_file_control),
    xShmMap: Some(inert::x_shm_map::<{ ResultCode::IOERR.0 }>),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    // The mapping belongs to the parent.
    xShmUnmap: Some(inert::x_shm_unmap::<{ ResultCode::OK.0 }>),
    xFetch: Some(x_fetch),
    xUnfetch: Some(inert::x_unfetch::<{ ResultCode::OK.0 }>),
    ..inert::methods::<{ ResultCode::IOERR.0 }>()
};

/// The error of methods that ask for a lock, commit or change a mode; also logs a line. Reads and
/// writes fail without a line.
fn refuse(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, || {
        let path = with_open(file, |open| open.path.clone());
        if let (Some(host), Some(path)) = (copies::copy(0), path) {
            log::about(host, ResultCode::IOERR_LOCK, WHY, &path);
        }
        ResultCode::IOERR_LOCK
    })
}

/// xClose: the child closes the connection. The descriptor stays open.
unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        closing(file);
        ResultCode::OK
    })
}

/// xLock: the first call of a connection without a lock.
unsafe extern "C" fn x_lock(file: *mut sqlite3_file, _: LockLevel) -> ResultCode {
    refuse(file)
}

/// xFileControl: a change of a mode, or a commit, must fail here, since it may need no other method
/// of the file.
unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    _: *mut c_void,
) -> ResultCode {
    match op {
        SQLITE_FCNTL_PRAGMA | SQLITE_FCNTL_SYNC => {
            refuse(file);
            ResultCode::IOERR
        }
        _ => ResultCode::NOTFOUND,
    }
}

/// xShmLock: a lock is refused. An unlock succeeds and does nothing: the slots are the parent's.
unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    _: ShmSlot,
    _: c_int,
    flags: ShmFlags,
) -> ResultCode {
    if flags.is_lock() { refuse(file) } else { ResultCode::OK }
}

/// xShmBarrier: this copy of the wal-index is the child's alone, so no other process changes it.
unsafe extern "C" fn x_shm_barrier(_: *mut sqlite3_file) {}

/// xFetch: without an address SQLite reads instead, which fails.
unsafe extern "C" fn x_fetch(
    _: *mut sqlite3_file,
    _: i64,
    _: c_int,
    out: *mut *mut c_void,
) -> ResultCode {
    // SAFETY: SQLite passes a place for the address.
    unsafe { *out = std::ptr::null_mut() };
    ResultCode::OK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child makes its own copy of the regions that are mapped at the fork. It does not touch the
    /// address of a region that was unmapped before, where other memory may be.
    #[test]
    fn a_mapped_region_is_known_until_it_is_unmapped() {
        let mut place = sqlite3_file { pMethods: std::ptr::null() };
        let file = &raw mut place;
        let regions = || with_open(file, |open| open.regions.clone());
        let region = |at: usize| std::ptr::without_provenance_mut::<c_void>(at);
        mapped(file, region(0x8000), 0x8000);
        assert_eq!(regions(), None, "it is not open");
        opened(file, Path::new("/no/such/board.db"), [std::ptr::null(); 2]);
        for (at, bytes) in [(0x8000, 0x8000), (0, 0x8000), (0x8000, 0x8000), (0x1_0000, 0x8000)] {
            mapped(file, region(at), bytes);
        }
        assert_eq!(regions(), Some(vec![(0x8000, 0x8000), (0x1_0000, 0x8000)]));
        unmapping(file);
        assert_eq!(regions(), Some(vec![]));
        // SAFETY: a terminated string.
        let is_parents = unsafe { is_parents(c"/no/such/board.db-wal".as_ptr()) };
        assert!(!is_parents, "it is this process's own");
        closing(file);
        assert_eq!(regions(), None);
    }
}

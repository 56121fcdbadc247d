//! The files that are open, and what becomes of them in a child of fork(2).
//!
//! A child that used, rolled back or closed what its parent opened would do it to its parent
//! (<https://www.sqlite.org/howtocorrupt.html> 2.6). So in the child these files get methods that do
//! nothing, and the wal-index is the child's own copy. They are never closed: the descriptors are
//! shared, and what they would free is the parent's.
//!
//! An inherited connection believes that it has the locks that its parent had at the fork, and asks
//! for none. What it would do next goes through the VFS, by name: it opens a journal or a WAL, or
//! deletes one. The child's own connections to the same database use the same names. SQLite passes
//! the very string that it keeps beside the database's name
//! (<https://www.sqlite.org/c3ref/filename_database.html>), so its address tells whose file it is.
//!
//! | a forked child | is refused, if an inherited connection asks, by |
//! |---|---|
//! | reads, writes, truncates, syncs or locks a database, journal, WAL, super-journal or statement journal that is open | [`METHODS`] |
//! | opens a journal or a WAL to write to it | [`is_parents`], in xOpen |
//! | deletes one | [`is_parents`], in xDelete |
//! | names a journal in a super-journal, to commit to several databases | [`is_parents`], in xWrite of the super-journal: SQLite deletes it again |

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::ffi::{
    LockLevel, ResultCode, SQLITE_FCNTL_PRAGMA, SQLITE_FCNTL_SYNC, ShmFlags, ShmSlot, copies,
    no_panic, sqlite3_file, sqlite3_io_methods,
};
use crate::sys;
use crate::sys::fork::{self, ForkMutex};

/// Where a region of a wal-index is mapped, and its size in bytes.
type Region = (usize, usize);

/// What is said of a connection of the parent's that a child uses.
pub(crate) const WHY: &str =
    "the connection was opened before a fork, by the parent; open one in the child";

struct OpenFile {
    path: PathBuf,
    /// The address of a database's name, as SQLite keeps it while the file is open; 0 for others.
    name: usize,
    is_inherited: bool,
    regions: Vec<Region>,
}

/// By the file's address.
static OPEN: ForkMutex<Option<HashMap<usize, OpenFile>>> = ForkMutex::new(None);

/// A file was opened, and has its methods. `name` is what SQLite has passed for a database, and null for
/// others.
pub(super) fn opened(file: *mut sqlite3_file, path: &Path, name: *const c_char) {
    let (path, name) = (path.to_owned(), name.expose_provenance());
    let open = OpenFile { path, name, is_inherited: false, regions: Vec::new() };
    OPEN.lock().get_or_insert_default().insert(file.expose_provenance(), open);
}

/// It is about to be closed.
pub(super) fn closing(file: *mut sqlite3_file) {
    if let Some(open) = OPEN.lock().as_mut() {
        open.remove(&file.expose_provenance());
    }
}

/// A region of its wal-index was mapped.
pub(super) fn mapped(file: *mut sqlite3_file, region: *mut c_void, bytes: c_int) {
    let region = (region.expose_provenance(), usize::try_from(bytes).unwrap_or(0));
    if let Some(open) =
        OPEN.lock().as_mut().and_then(|open| open.get_mut(&file.expose_provenance()))
    {
        if region.0 != 0 && !open.regions.contains(&region) {
            open.regions.push(region);
        }
    }
}

/// Its wal-index is about to be unmapped.
pub(super) fn unmapping(file: *mut sqlite3_file) {
    if let Some(open) =
        OPEN.lock().as_mut().and_then(|open| open.get_mut(&file.expose_provenance()))
    {
        open.regions.clear();
    }
}

/// Keeps other threads from opening files until the result is dropped.
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    OPEN.lock()
}

/// Whether the journal or WAL that SQLite asks for by `name` is that of a connection which this process
/// has only because its parent had: it is the parent's to write and to delete.
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
    // A VFS above this one has copied the name.
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let Some(database) = name.strip_suffix(b"-journal").or_else(|| name.strip_suffix(b"-wal"))
    else {
        return false;
    };
    let open = OPEN.lock();
    let of_database = |open: &&OpenFile| open.path.as_os_str().as_bytes() == database;
    let mut known = open.iter().flat_map(HashMap::values).filter(of_database).peekable();
    known.peek().is_some() && known.all(|open| open.is_inherited)
}

/// Whether the connection that has this very name of a journal or WAL is inherited; `None` if none has.
fn is_inherited(name: *const c_void) -> Option<bool> {
    let host = copies::copy(0)?;
    let open = OPEN.lock();
    let has_it = |open: &&OpenFile| {
        let database = std::ptr::with_exposed_provenance::<c_char>(open.name);
        // SAFETY: SQLite keeps the name longer than it has the file open, and so in this table.
        !database.is_null()
            && unsafe { host.names_beside(database) }.iter().any(|beside| beside.cast() == name)
    };
    open.iter().flat_map(HashMap::values).find(has_it).map(|open| open.is_inherited)
}

/// Whether SQLite has passed, as data, the name of a journal of the parent's.
pub(super) fn names_parents(data: *const c_void) -> bool {
    fork::generation() != 0 && is_inherited(data) == Some(true)
}

/// In a forked child.
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
            // Regions smaller than a page of memory are mapped several at once.
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

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_int),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_zero),
    xDeviceCharacteristics: Some(x_zero),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: Some(x_fetch),
    xUnfetch: Some(x_unfetch),
};

/// The error of everything else, said once each time a lock is asked for.
fn refuse(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR_LOCK, || {
        let path = OPEN
            .lock()
            .as_ref()
            .and_then(|open| Some(open.get(&file.expose_provenance())?.path.clone()));
        if let (Some(host), Some(path)) = (copies::copy(0), path) {
            host.log_about(ResultCode::IOERR_LOCK, WHY, &path);
        }
        ResultCode::IOERR_LOCK
    })
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        closing(file);
        ResultCode::OK
    })
}

unsafe extern "C" fn x_read(_: *mut sqlite3_file, _: *mut c_void, _: c_int, _: i64) -> ResultCode {
    ResultCode::IOERR
}

unsafe extern "C" fn x_write(
    _: *mut sqlite3_file,
    _: *const c_void,
    _: c_int,
    _: i64,
) -> ResultCode {
    ResultCode::IOERR
}

unsafe extern "C" fn x_truncate(_: *mut sqlite3_file, _: i64) -> ResultCode {
    ResultCode::IOERR
}

unsafe extern "C" fn x_int(_: *mut sqlite3_file, _: c_int) -> ResultCode {
    ResultCode::IOERR
}

unsafe extern "C" fn x_file_size(_: *mut sqlite3_file, _: *mut i64) -> ResultCode {
    ResultCode::IOERR
}

unsafe extern "C" fn x_lock(file: *mut sqlite3_file, _: LockLevel) -> ResultCode {
    refuse(file)
}

/// What would be unlocked is the parent's.
unsafe extern "C" fn x_unlock(_: *mut sqlite3_file, _: LockLevel) -> ResultCode {
    ResultCode::OK
}

unsafe extern "C" fn x_check_reserved_lock(_: *mut sqlite3_file, _: *mut c_int) -> ResultCode {
    ResultCode::IOERR
}

/// What is about to change a mode or to commit fails here: it may need nothing else of the file.
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

unsafe extern "C" fn x_zero(_: *mut sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn x_shm_map(
    _: *mut sqlite3_file,
    _: c_int,
    _: c_int,
    _: c_int,
    _: *mut *mut c_void,
) -> ResultCode {
    ResultCode::IOERR
}

unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    _: ShmSlot,
    _: c_int,
    flags: ShmFlags,
) -> ResultCode {
    if flags.is_lock() { refuse(file) } else { ResultCode::OK }
}

/// What would be unmapped is the parent's.
unsafe extern "C" fn x_shm_unmap(_: *mut sqlite3_file, _: c_int) -> ResultCode {
    ResultCode::OK
}

unsafe extern "C" fn x_shm_barrier(_: *mut sqlite3_file) {}

unsafe extern "C" fn x_fetch(
    _: *mut sqlite3_file,
    _: i64,
    _: c_int,
    out: *mut *mut c_void,
) -> ResultCode {
    // SAFETY: SQLite passes a place for the address; none means that it should read.
    unsafe { *out = std::ptr::null_mut() };
    ResultCode::OK
}

unsafe extern "C" fn x_unfetch(_: *mut sqlite3_file, _: i64, _: *mut c_void) -> ResultCode {
    ResultCode::OK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child makes private what is mapped when it is forked, and nothing that was unmapped before: by then
    /// it may be somebody else's memory.
    #[test]
    fn what_is_mapped_is_known_until_it_is_unmapped() {
        let mut place = sqlite3_file { pMethods: std::ptr::null() };
        let file = &raw mut place;
        let regions = || {
            let open = OPEN.lock();
            let open = open.as_ref().and_then(|open| open.get(&file.expose_provenance()));
            open.map(|open| open.regions.clone())
        };
        let region = |at: usize| std::ptr::without_provenance_mut::<c_void>(at);
        mapped(file, region(0x8000), 0x8000);
        assert_eq!(regions(), None, "it is not open");
        opened(file, Path::new("/no/such/board.db"), std::ptr::null());
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

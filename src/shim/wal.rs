//! The WAL of a database with group commit: a file of the base's whose sync can be deferred
//! ([`crate::group_commit::deferral`]).
//!
//! SQLite calls these methods for one connection, from one thread at a time. It opens the WAL with SHARED on the database,
//! writes with WRITE, and syncs with WRITE or CKPT.

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

use super::methods::{FileKind, Interposed, Methods, call, state_offset};
use crate::ffi::host::Host;
use crate::ffi::{ResultCode, copies, no_panic, sqlite3, sqlite3_file, sqlite3_io_methods};
use crate::format::WAL_SUFFIX;
use crate::group_commit::deferral::{SyncOrder, Syncs};
use crate::group_commit::{self, Committer, WalFile};
use crate::recorder;
use crate::sys::Uncancelled;
use crate::sys::fork::ForkMutex;

type XSync = unsafe extern "C" fn(*mut sqlite3_file, c_int) -> ResultCode;

/// The databases of this process whose connections want group commit, one entry for each open.
/// Locked for a look-up, and while a thread forks.
static WANTED: ForkMutex<Vec<PathBuf>> = ForkMutex::new(Vec::new());

/// Keeps other threads from opening and closing databases with group commit until the result is dropped.
#[cfg(unix)]
pub(super) fn hold_for_fork() -> impl std::any::Any {
    WANTED.lock()
}

/// While this lives, the WAL of its database is opened with syncs that can be deferred.
pub(super) struct Wanted(PathBuf);

impl Wanted {
    /// From now on the WAL of that database is wanted.
    pub(super) fn new(database: &Path) -> Self {
        WANTED.lock().push(database.to_owned());
        Self(database.to_owned())
    }

    /// Its canonical path.
    pub(super) fn database(&self) -> &Path {
        &self.0
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut wanted = WANTED.lock();
        if let Some(nth) = wanted.iter().position(|path| *path == self.0) {
            wanted.swap_remove(nth);
        }
    }
}

/// Whether that file is the WAL of a database that is wanted.
pub(super) fn is_wanted(wal: &Path) -> bool {
    let database = wal.as_os_str().as_encoded_bytes().strip_suffix(WAL_SUFFIX.as_bytes());
    database.is_some_and(|database| {
        WANTED.lock().iter().any(|path| path.as_os_str().as_encoded_bytes() == database)
    })
}

/// The state of an open WAL.
type WalState = Syncs<WalWriter>;

/// A connection that commits to its WAL.
#[derive(Clone, Copy)]
pub(crate) struct WalWriter {
    pub(super) db: *mut sqlite3,
    pub(super) host: &'static Host,
}

impl Committer for WalWriter {
    fn may_defer(self) -> bool {
        let host = copies::most_of(self.host);
        // SAFETY: the connection that writes the WAL is the one that has it open, in this very call.
        let writes_to_attached = unsafe { host.writes_to_attached(self.db) };
        !writes_to_attached.unwrap_or_else(group_commit::has_super_journal)
    }
}

/// A copy of `base` for a WAL.
pub(super) fn over(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        xClose: Some(x_close),
        xWrite: base.xWrite.and(Some(x_write)),
        xSync: base.xSync.and(Some(x_sync)),
        ..*base
    }
}

/// Puts our methods in front of a WAL that the base has opened.
///
/// # Safety
/// `file` is memory of [`super::size_with_state`] bytes, opened by a base whose files have `base_file_size` bytes.
pub(super) unsafe fn install_wal(file: *mut sqlite3_file, base_file_size: c_int) {
    // SAFETY: the caller's promise; these methods expect a `WalState`.
    unsafe {
        let offset = state_offset(base_file_size);
        let methods = Methods::over((*file).pMethods, offset, FileKind::Wal, over);
        Interposed { file, methods }.begin(Box::new(WalState::default()));
    }
}

/// xClose: SQLite closes the WAL, and unmaps the wal-index next.
unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once. The address of the state is taken out of it for good.
        let wal = unsafe {
            let wal = Interposed::closing(file);
            drop(Box::from_raw(wal.state::<WalState>()));
            wal
        };
        call!(wal, xClose, ResultCode::OK)
    })
}

/// xWrite: SQLite writes, with WRITE, the header when it restarts the WAL, or a transaction's frames. Notes which of the
/// two.
unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    at: i64,
) -> ResultCode {
    let _uncancelled = Uncancelled::begin();
    // SAFETY: SQLite writes that many bytes to an open file of this table, and nothing else uses it meanwhile.
    let wal = unsafe {
        let wal = Interposed::of(file);
        let all = usize::try_from(bytes).unwrap_or(0);
        (*wal.state::<WalState>()).wrote(std::slice::from_raw_parts(data.cast(), all), at);
        wal
    };
    call!(wal, xWrite, ResultCode::IOERR, data, bytes, at)
}

/// xSync: SQLite syncs the header or a commit, with WRITE, or the frames that a checkpoint copies, with CKPT. Must not
/// wait for another connection's sync: group commit waits after WRITE is released.
unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> ResultCode {
    let _uncancelled = Uncancelled::begin();
    // SAFETY: SQLite syncs an open file of this table, and nothing else uses it meanwhile.
    let (wal, state) = unsafe {
        let wal = Interposed::of(file);
        (wal, &mut *wal.state::<WalState>())
    };
    let header = match state.sync(flags) {
        SyncOrder::Answer(rc) => return rc,
        SyncOrder::Now { header } => header,
    };
    let sync = || call!(wal, xSync, ResultCode::IOERR_FSYNC, flags);
    let rc = sync();
    let is_once_more = state.synced(header.as_ref(), rc);
    let rc = match header.filter(|_| is_once_more) {
        Some(header) if OpenWal(wal).write(&header.0, 0) => sync(),
        _ => rc,
    };
    if rc != ResultCode::OK {
        recorder::note_failed_sync(rc.0);
    }
    rc
}

/// An open WAL of a connection, to be used by the thread that uses the connection.
#[derive(Clone, Copy)]
pub(crate) struct OpenWal(Interposed);

impl OpenWal {
    /// `None` if the file is not open, or not of this kind.
    ///
    /// # Safety
    /// `file` is null or a file of SQLite's that stays open as long as this is used.
    pub(super) unsafe fn new(file: *mut sqlite3_file) -> Option<Self> {
        // SAFETY: the caller's promise; a file that is not open has no methods, and one with this method has our table.
        unsafe {
            let xsync = file.as_ref()?.pMethods.as_ref()?.xSync?;
            let is_ours = std::ptr::fn_addr_eq(xsync, x_sync as XSync);
            is_ours.then(|| Self(Interposed::of(file)))
        }
    }
}

impl WalFile for OpenWal {
    type Committer = WalWriter;

    fn with_syncs<T>(self, look: impl FnOnce(&mut WalState) -> T) -> T {
        // SAFETY: by the promise to `new` the file is open, and SQLite is not in a method of it.
        look(unsafe { &mut *self.0.state() })
    }

    fn sync(self, flags: c_int) -> ResultCode {
        call!(self.0, xSync, ResultCode::IOERR_FSYNC, flags)
    }

    fn read(self, bytes: &mut [u8], at: i64) -> bool {
        let Ok(n) = c_int::try_from(bytes.len()) else { return false };
        let into = bytes.as_mut_ptr().cast();
        call!(self.0, xRead, ResultCode::IOERR, into, n, at) == ResultCode::OK
    }

    fn write(self, bytes: &[u8], at: i64) -> bool {
        let Ok(n) = c_int::try_from(bytes.len()) else { return false };
        let from = bytes.as_ptr().cast();
        call!(self.0, xWrite, ResultCode::IOERR, from, n, at) == ResultCode::OK
    }
}

#[cfg(all(test, unix, feature = "linked"))]
mod tests;

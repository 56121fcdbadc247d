//! Our methods of a database, as C calls them. What they do is in [`crate::connection`]; the file
//! controls are in [`super::control`].
//!
//! SQLite calls all of them for one connection, from one thread at a time ([`super`]). The
//! connection may hold the write lock, and the locks of SQLite that each method names; no mutex of
//! ours is held. No lock call waits for the write lock, since the connection's locks would keep
//! others waiting. `connection::claim` has the bounded exceptions.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

use super::base::{Base, State, parts};
use super::control::x_file_control;
use super::methods::{FileKind, Interposed, Methods, call, state_offset};
use super::seen::Seen;
use super::wal::Wanted;
use super::{Context, inherited};
use crate::connection::{AtOpen, Connection, Passing};
use crate::ffi::{
    LockLevel, ResultCode, ShmFlags, ShmSlot, ShmSlots, no_panic, sqlite3_file, sqlite3_io_methods,
};
use crate::guard::filesystem;
use crate::guard::identity::Identity;
use crate::log;
use crate::options::Settings;
use crate::sys::Uncancelled;

/// A copy of `base` with our methods where the base has any.
pub(super) fn over(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        xClose: Some(x_close),
        xWrite: base.xWrite.and(Some(x_write)),
        xSync: base.xSync.and(Some(x_sync)),
        xTruncate: base.xTruncate.and(Some(x_truncate)),
        xFileSize: base.xFileSize.and(Some(x_file_size)),
        xLock: base.xLock.and(Some(x_lock)),
        xUnlock: base.xUnlock.and(Some(x_unlock)),
        xFileControl: Some(x_file_control),
        xShmMap: base.xShmMap.and(Some(x_shm_map)),
        xShmLock: base.xShmLock.and(Some(x_shm_lock)),
        xShmUnmap: base.xShmUnmap.and(Some(x_shm_unmap)),
        ..*base
    }
}

/// A copy of `base` with our methods, but without a wal-index: then SQLite refuses WAL mode.
pub(super) fn over_without_wal(base: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        xShmMap: None,
        xShmLock: None,
        xShmBarrier: None,
        xShmUnmap: None,
        ..over(base)
    }
}

/// Puts our methods in front of a main database that the base has opened. If the database was
/// replaced during the open, closes it and answers SQLITE_CANTOPEN.
///
/// # Safety
/// `file` is memory of [`super::size_with_state`] bytes, opened by the base of `context`; `name` is what
/// SQLite has passed to xOpen.
pub(crate) unsafe fn install_database(
    file: *mut sqlite3_file,
    context: &'static Context,
    path: &Path,
    name: *const c_char,
    read_only: bool,
    settings: Settings,
) -> ResultCode {
    let host = context.host;
    let no_wal = match settings.network_wal {
        true => None,
        false => filesystem::wal_refusal(path, || filesystem::shares(path)),
    };
    let identity = Identity::of(path, settings.hard_links);
    if let Err(why) = &identity {
        let what = format!(
            "the kernel does not say which file it is ({why}): its locks are not protected, and nobody notices if it \
             is replaced, as on the stock VFS; open it again"
        );
        log::about(&host, ResultCode::WARNING, &what, path);
    }
    // Before SQLite locks it.
    let found = identity.as_ref().ok().and_then(Option::as_ref);
    if found.is_some() {
        context.say_what_is_off(path);
    }
    let protected = found.and_then(|found| context.protection.opened(found.inode(), path));
    let offset = state_offset(context.base_file_size);
    // SAFETY: the caller's promise: the base has just opened the file.
    let methods = unsafe {
        match no_wal {
            None => Methods::over((*file).pMethods, offset, FileKind::Database, over),
            Some(_) => {
                Methods::over((*file).pMethods, offset, FileKind::WithoutWal, over_without_wal)
            }
        }
    };
    let base = Base(Interposed { file, methods });
    let known = AtOpen { identity, no_wal, keeps_ahead: settings.file_ahead };
    if settings.persist_wal {
        base.persist_wal();
    }
    let wanted = settings.group_commit.then(|| Wanted::new(path));
    let mut connection = Connection::new(base, path, settings, host, known, read_only);
    if context.goes_under_ciphers {
        connection.go_under_ciphers();
    }
    let state = State {
        connection,
        name,
        seen: Seen::default(),
        db: std::ptr::null(),
        wal_index: std::ptr::null(),
        busy: std::ptr::null(),
        wanted,
        _protected: protected,
        counted: context.count_database(),
    };
    // SAFETY: the caller's promise; these methods expect a `State`.
    unsafe { base.0.begin(Box::new(state)) };
    // SAFETY: SQLite has passed the name to xOpen, by the functions of its own copy.
    inherited::opened(file, path, unsafe { host.names_beside(name) });
    // Only now is it certain that the file found by name above is the open file.
    if !base.has_moved() {
        return ResultCode::OK;
    }
    let why = "the database was replaced while it was being opened; open it again";
    log::about(&host, ResultCode::CANTOPEN, why, path);
    // SAFETY: the file is open, is closed once, and SQLite does not close a file without methods.
    unsafe {
        x_close(file);
        (*file).pMethods = std::ptr::null();
    }
    ResultCode::CANTOPEN
}

/// xClose: SQLite closes the connection, and has unlocked the database. Must neither use the state
/// after it is dropped nor drop it before the base has closed the file.
unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once. The address of the state is taken out of it for good, before the base,
        // which may clear the file, closes it.
        let (base, mut state) = unsafe {
            let base = Base(Interposed::closing(file));
            (base, Box::from_raw(base.state()))
        };
        state.connection.ending();
        let rc = call!(base.0, xClose, ResultCode::OK);
        state.connection.closed();
        rc
    })
}

/// xWrite: SQLite writes a page, in a rollback mode with EXCLUSIVE, in WAL mode with CKPT.
unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    at: i64,
) -> ResultCode {
    let _uncancelled = Uncancelled::begin();
    // SAFETY: SQLite writes to an open file of this table, and nothing else uses it meanwhile.
    let (base, connection) = unsafe { parts(file) };
    if at == 0 {
        let refused = no_panic(None, || {
            // SAFETY: SQLite passes that many bytes.
            let page = unsafe {
                std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(bytes).unwrap_or(0))
            };
            connection.before_first_page(page).err()
        });
        if let Some(rc) = refused {
            return rc;
        }
    }
    let rc = call!(base.0, xWrite, ResultCode::IOERR, data, bytes, at);
    if rc == ResultCode::OK {
        connection.wrote(at, bytes);
    }
    rc
}

/// xSync: SQLite syncs what it has written, in a rollback mode with EXCLUSIVE, in WAL mode with
/// CKPT.
unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> ResultCode {
    let _uncancelled = Uncancelled::begin();
    // SAFETY: SQLite syncs an open file of this table, and nothing else uses it meanwhile.
    let (base, connection) = unsafe { parts(file) };
    let rc = call!(base.0, xSync, ResultCode::IOERR_FSYNC, flags);
    if rc != ResultCode::OK {
        no_panic((), || connection.sync_failed(rc));
    }
    rc
}

/// xTruncate: SQLite cuts the file off, in a rollback mode with EXCLUSIVE, or after a checkpoint with CKPT.
unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: i64) -> ResultCode {
    no_panic(ResultCode::IOERR_TRUNCATE, || {
        // SAFETY: SQLite truncates an open file of this table, and nothing else uses it meanwhile.
        let (base, connection) = unsafe { parts(file) };
        connection.truncate(size, |size| call!(base.0, xTruncate, ResultCode::IOERR_TRUNCATE, size))
    })
}

/// xFileSize: SQLite asks for the file's length. In WAL mode, each read transaction does so until the first commit since
/// the WAL was opened.
unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut i64) -> ResultCode {
    // SAFETY: SQLite asks for the length of an open file of this table. This method stands only where the base has one, and
    // passes on what SQLite has passed.
    let rc = unsafe { Interposed::of(file).methods.base.xFileSize.unwrap_unchecked()(file, size) };
    if rc != ResultCode::OK {
        return rc;
    }
    // SAFETY: as above, and nothing else uses the file meanwhile. SQLite passes a place for the length, which the base has
    // filled in.
    let ((base, connection), length) = unsafe { (parts(file), &mut *size) };
    let Some(checksum) = base.wal_index_checksum() else { return rc };
    match connection.known_length(*length, checksum) {
        Some(known) => *length = known,
        // SAFETY: as above; neither reference is used any more.
        None => return unsafe { look_for_file_size(file, size) },
    }
    rc
}

/// [`x_file_size`], if the header must be read. The base has filled in the file's own length.
///
/// # Safety
/// SQLite has passed an open file of this table and a place for the length, and nothing else uses either.
#[cold]
unsafe extern "C" fn look_for_file_size(file: *mut sqlite3_file, size: *mut i64) -> ResultCode {
    no_panic(ResultCode::IOERR, move || {
        // SAFETY: the caller's promise.
        unsafe { *size = parts(file).1.length_to_tell(*size) };
        ResultCode::OK
    })
}

/// Defines a function that only asks the connection, and answers `$failed` if it panics.
macro_rules! of_connection {
    (
        $(#[$about:meta])*
        fn $name:ident($($arg:ident: $type:ty),*) = $method:ident($($passed:expr),*) or $failed:ident
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        /// SQLite has passed an open file of this table, and nothing else uses it.
        #[inline(never)]
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($arg: $type),*) -> ResultCode {
            no_panic(ResultCode::$failed, move || {
                // SAFETY: the caller's promise.
                unsafe { parts(file) }.1.$method($($passed),*)
            })
        }
    };
}

of_connection! {
    /// xLock: SQLite asks for a higher lock than the connection has. After SQLITE_BUSY it may call
    /// the busy handler, and ask again. A connection that has SHARED must not wait for the write
    /// lock, since it would keep others from writing. When it asks for SHARED itself, the
    /// transaction may wait for the write lock (`kanban_begin`).
    fn x_lock(level: LockLevel) = lock(level) or IOERR_LOCK
}

of_connection! {
    /// xUnlock: SQLite lowers the connection's lock to SHARED or none, whatever this answers. Must
    /// not keep the write lock when SQLite's lock is gone.
    fn x_unlock(level: LockLevel) = unlock(level) or IOERR
}

/// xShmLock: SQLite locks or unlocks slots of the wal-index, with SHARED on the database. A
/// connection that asks for one slot may hold others. A connection with a snapshot must not wait
/// for the write lock, since its snapshot would be stale afterwards. When it asks for the READ slot
/// of a snapshot, the transaction may wait (`kanban_begin`).
///
/// | slots | are locked or unlocked | by |
/// |---|---|---|
/// | from WRITE on | exclusively | [`lock_write`], [`unlock_write`] |
/// | one of READ(1) to READ(4) | exclusively | the base |
/// | no READ | shared | the base |
/// | READ | shared, no look at the files is due, and no transaction begins or ends with it that has the write lock or wants it | the base; whether there is a snapshot is noted first |
/// | any other; any but those from WRITE on while a probe exists | | [`shm_lock_checked`] |
unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    first: ShmSlot,
    n: c_int,
    flags: ShmFlags,
) -> ResultCode {
    // Each arm is a tail call of an `extern "C"` function, so a read saves none of the registers
    // that a write needs. The code of a write transaction is inlined into `lock_write` and
    // `unlock_write`, down to the system call: hence `inline(always)` on that path.
    // SAFETY: SQLite locks slots of an open file of this table, and nothing else uses it meanwhile.
    unsafe {
        match (first, flags.is_shared(), flags.is_lock()) {
            (ShmSlot::WRITE, false, true) => lock_write(file, n),
            (ShmSlot::WRITE, false, false) => unlock_write(file, n),
            _ => shm_lock(file, first, n, flags),
        }
    }
}

of_connection! {
    /// [`x_shm_lock`], of WRITE and perhaps later slots: to write, to recover, or to restart the
    /// WAL.
    fn lock_write(n: c_int) = lock_write(ShmSlots { first: ShmSlot::WRITE, n }) or IOERR_LOCK
}

of_connection! {
    /// [`x_shm_lock`], to unlock these when a write transaction or a recovery ends.
    fn unlock_write(n: c_int) = unlock_write(ShmSlots { first: ShmSlot::WRITE, n }) or IOERR_LOCK
}

/// [`x_shm_lock`] of other slots, or of shared locks. Each read transaction makes two such calls.
///
/// # Safety
/// SQLite has passed an open file of this table to [`x_shm_lock`], and nothing else uses it.
#[inline(never)]
unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    first: ShmSlot,
    n: c_int,
    flags: ShmFlags,
) -> ResultCode {
    let slots = ShmSlots { first, n };
    // SAFETY: the caller's promise.
    let (_, connection) = unsafe { parts(file) };
    let passing = connection.note_plain(slots, flags);
    // SAFETY: the caller's promise; the reference is not used any more.
    unsafe {
        match passing {
            Passing::Plain => shm_lock_plainly(file, first, n, flags),
            Passing::MayBegin => shm_lock_to_begin(file, first),
            Passing::Checked => shm_lock_checked(file, first, n, flags),
        }
    }
}

/// [`shm_lock`], to share a READ slot, with `kanban_begin` or a least busy timeout. Has few arguments, so that it saves few
/// registers.
///
/// # Safety
/// As for [`shm_lock`].
#[inline(never)]
unsafe extern "C" fn shm_lock_to_begin(file: *mut sqlite3_file, first: ShmSlot) -> ResultCode {
    // SQLite shares one slot at a time.
    let (n, flags) = (1, ShmFlags::LOCK_SHARED);
    // SAFETY: the caller's promise.
    let (_, connection) = unsafe { parts(file) };
    // SAFETY: the caller's promise; the reference is not used any more.
    unsafe {
        match connection.note_plain_begin() {
            true => shm_lock_plainly(file, first, n, flags),
            false => shm_lock_checked(file, first, n, flags),
        }
    }
}

/// [`shm_lock`], for calls that are simply passed on.
///
/// # Safety
/// As for [`shm_lock`].
#[inline(always)]
unsafe extern "C" fn shm_lock_plainly(
    file: *mut sqlite3_file,
    first: ShmSlot,
    n: c_int,
    flags: ShmFlags,
) -> ResultCode {
    // SAFETY: the caller's promise. This method stands only where the base has one, and passes on what SQLite has passed.
    let rc = unsafe {
        Interposed::of(file).methods.base.xShmLock.unwrap_unchecked()(file, first, n, flags)
    };
    // SAFETY: the caller's promise.
    if rc == ResultCode::OK { rc } else { unsafe { shm_lock_failed(file, first, flags, rc) } }
}

of_connection! {
    /// [`shm_lock`] for calls that are not simply passed on.
    fn shm_lock_checked(first: ShmSlot, n: c_int, flags: ShmFlags) =
        shm_lock_checked(ShmSlots { first, n }, flags) or IOERR_LOCK
}

of_connection! {
    /// [`shm_lock`] after the base has failed.
    #[cold]
    fn shm_lock_failed(slot: ShmSlot, flags: ShmFlags, rc: ResultCode) =
        shm_lock_failed(slot.into(), flags, rc) or IOERR_LOCK
}

/// xShmMap: SQLite maps a region of the wal-index, with SHARED, when it begins to use a WAL or when
/// the wal-index grows. In the latter case it may hold WRITE, too.
unsafe extern "C" fn x_shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite maps the wal-index of an open file of this table, and nothing else uses it meanwhile.
        let (base, connection) = unsafe { parts(file) };
        connection.shm_mapping();
        let rc = call!(base.0, xShmMap, ResultCode::IOERR, region, size, extend, out);
        if rc == ResultCode::OK {
            // SAFETY: SQLite passes a place for the address, which the base has filled in.
            let address = unsafe { *out };
            inherited::mapped(file, address, size);
            if region == 0 {
                base.wal_index_mapped(address, size);
                connection.shm_mapped(base.wal());
            }
        }
        rc
    })
}

/// xShmUnmap: SQLite closes the WAL and has unlocked all slots. It holds EXCLUSIVE if the wal-index
/// is to be deleted.
unsafe extern "C" fn x_shm_unmap(file: *mut sqlite3_file, delete: c_int) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite unmaps the wal-index of an open file of this table, and nothing else uses it meanwhile.
        let (base, connection) = unsafe { parts(file) };
        connection.ending();
        inherited::unmapping(file);
        base.wal_index_unmapping();
        let rc = call!(base.0, xShmUnmap, ResultCode::IOERR, delete);
        connection.shm_unmapped();
        rc
    })
}

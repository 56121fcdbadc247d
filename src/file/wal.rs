//! The WAL of a database with group commit: a file of the base's whose sync can be put off.
//!
//! SQLite syncs a WAL for three reasons. A commit with `synchronous=FULL` does it while it has the
//! WRITE slot, after all frames: that sync may be put off until the slot is given back. A WAL that
//! begins anew has its header synced, after a write at offset 0: what is behind it must not reach the
//! disk first. And a checkpoint does it, without the WRITE slot or with the CKPT slot, too. So who has
//! taken WRITE to commit allows one sync to be put off, and that is the one that follows no header.
//! (`sqlite3WalFrames`, `walWriteToLog` and `walCheckpoint`, from 3.31 to 3.54.)

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

use super::{Kind, Methods, StateSlot, closing, group, methods_over, state_slot};
use crate::ffi::{
    Rc, SQLITE_IOERR, SQLITE_IOERR_FSYNC, SQLITE_OK, connect, no_panic, sqlite3, sqlite3_file,
    sqlite3_io_methods,
};
use crate::guard::fork::ForkMutex;
use crate::guard::wal_reset::Salts;
use crate::host::Host;
use crate::lock::page::checksum;

type Sync = unsafe extern "C" fn(*mut sqlite3_file, c_int) -> Rc;

/// SQLITE_SYNC_NORMAL: a sync of this kind is like any other. With `fullfsync` each is its own.
const SQLITE_SYNC_NORMAL: c_int = 2;
const SYNC_KIND: c_int = 0xf;

/// The databases of this process whose connections want group commit, as often as they are open.
static WANTED: ForkMutex<Vec<PathBuf>> = ForkMutex::new(Vec::new());

/// Keeps other threads from changing that until the result is dropped.
#[cfg(unix)]
pub(super) fn hold_for_fork() -> impl std::any::Any {
    WANTED.lock()
}

/// A database whose WAL is to be of this kind, as long as this lives.
pub(super) struct Wanted(PathBuf);

impl Wanted {
    pub(super) fn database(&self) -> &Path {
        &self.0
    }

    pub(super) fn new(database: &Path) -> Self {
        WANTED.lock().push(database.to_owned());
        Self(database.to_owned())
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

/// Whether that file is the WAL of such a database.
pub(super) fn is_wanted(wal: &Path) -> bool {
    let database = wal.as_os_str().as_encoded_bytes().strip_suffix(b"-wal");
    database.is_some_and(|database| {
        WANTED.lock().iter().any(|path| path.as_os_str().as_encoded_bytes() == database)
    })
}

/// What is known of an open WAL.
#[derive(Default)]
struct State {
    /// Who may put the sync of its commit off, if anybody.
    client: Option<Client>,
    /// The flags of the sync that was.
    put_off: Option<c_int>,
    /// The header, if it was written last.
    header: Option<Header>,
    /// Whether the next sync may tell of an error that was made up for.
    tells_late: bool,
}

/// A connection, as its WAL's owner.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(super) db: *mut sqlite3,
    pub(super) host: &'static Host,
}

impl Client {
    /// Whether its transaction may be durable later than it is committed: not if another database takes
    /// part in it. If this one's sync failed then, the other would keep its half, or lose it alone; and
    /// where there is a super-journal, SQLite does not look at what FCNTL_COMMIT_PHASETWO answers.
    fn may_put_off(self) -> bool {
        let host = connect::met(self.host).unwrap_or(self.host);
        // SAFETY: the connection that writes the WAL is the one that has it open, in this very call.
        let writes_to_attached = unsafe { host.writes_to_attached(self.db) };
        !writes_to_attached.unwrap_or_else(group::has_super_journal)
    }
}

/// <https://www.sqlite.org/fileformat2.html#wal_file_format>
const HEADER: usize = 32;
type Header = [u8; HEADER];

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
/// `file` is memory of [`super::size_with_state`] bytes, opened by the base that `offset` is of.
pub(super) unsafe fn install(file: *mut sqlite3_file, offset: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let methods = methods_over((*file).pMethods, offset, Kind::Wal);
        let state: StateSlot = Box::into_raw(Box::new(State::default())).cast();
        state_slot(file, offset).write(state);
        (*file).pMethods = &raw const methods.ours;
    }
}

/// # Safety
/// `file` was opened by [`install`] and is not closed; no other reference to its state is alive.
unsafe fn parts<'f>(file: *mut sqlite3_file) -> (&'static Methods, &'f mut State) {
    // SAFETY: the caller's promise: pMethods is the first field of a `Methods`, and the slot holds the
    // address of a boxed `State`.
    unsafe {
        let methods: &'static Methods = &*(*file).pMethods.cast::<Methods>();
        (methods, &mut *(*state_slot(file, methods.state_offset)).cast::<State>())
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> Rc {
    no_panic(SQLITE_IOERR, || {
        // SAFETY: SQLite closes an open file once. Its state is taken out of it for good.
        unsafe {
            let methods = closing(file);
            drop(Box::from_raw((*state_slot(file, methods.state_offset)).cast::<State>()));
            methods.base.xClose.map_or(SQLITE_OK, |close| close(file))
        }
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    at: i64,
) -> Rc {
    // SAFETY: SQLite passes an open file and what the method asks for.
    unsafe {
        let (methods, state) = parts(file);
        let is_header = at == 0 && usize::try_from(bytes) == Ok(HEADER);
        // SAFETY: SQLite passes so many bytes.
        state.header = is_header.then(|| data.cast::<Header>().read_unaligned());
        methods.base.xWrite.map_or(SQLITE_IOERR, |write| write(file, data, bytes, at))
    }
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> Rc {
    // SAFETY: SQLite passes an open file.
    unsafe {
        let (methods, state) = parts(file);
        let sync = || methods.base.xSync.map_or(SQLITE_IOERR_FSYNC, |sync| sync(file, flags));
        let header = state.header.take();
        let Some(header) = header else {
            let is_normal = flags & SYNC_KIND == SQLITE_SYNC_NORMAL;
            if is_normal && state.client.is_some_and(Client::may_put_off) {
                state.put_off = Some(flags);
                return SQLITE_OK;
            }
            return sync();
        };
        let rc = sync();
        let is_told_late = rc != SQLITE_OK && std::mem::take(&mut state.tells_late);
        // Nothing but the header can be missing: what else is in the file is durable or void.
        let write = || {
            methods.base.xWrite.map_or(SQLITE_IOERR, |write| {
                write(file, header.as_ptr().cast(), HEADER as c_int, 0)
            })
        };
        if is_told_late && write() == SQLITE_OK { sync() } else { rc }
    }
}

/// An open WAL of a connection, to be used by the thread that uses the connection.
#[derive(Clone, Copy)]
pub(crate) struct OpenWal(*mut sqlite3_file);

impl OpenWal {
    /// `None` if the file is not open, or not of this kind.
    ///
    /// # Safety
    /// `file` is null or a file of SQLite's that stays open as long as this is used.
    pub(super) unsafe fn new(file: *mut sqlite3_file) -> Option<Self> {
        // SAFETY: the caller's promise; a file that is not open has no methods.
        unsafe {
            let methods = file.as_ref()?.pMethods.as_ref()?;
            let is_ours =
                methods.xSync.is_some_and(|sync| std::ptr::fn_addr_eq(sync, x_sync as Sync));
            is_ours.then_some(Self(file))
        }
    }

    /// The next sync of a commit is to be put off. With `tells_late`, another may fail once because of
    /// an error that was made up for.
    pub(super) fn put_off(self, client: Client, tells_late: bool) {
        // SAFETY: as promised to `new`, and SQLite is not in a method of it.
        let (_, state) = unsafe { parts(self.0) };
        *state = State { client: Some(client), tells_late, ..State::default() };
    }

    /// No sync is put off any more. The flags of the one that was.
    pub(super) fn take_put_off(self) -> Option<c_int> {
        // SAFETY: as above.
        std::mem::take(unsafe { parts(self.0) }.1).put_off
    }

    pub(super) fn sync(self, flags: c_int) -> Rc {
        // SAFETY: as above; the base's own method on the file it opened.
        unsafe {
            let base = &parts(self.0).0.base;
            base.xSync.map_or(SQLITE_IOERR_FSYNC, |sync| sync(self.0, flags))
        }
    }

    pub(super) fn read(self, bytes: &mut [u8], at: i64) -> bool {
        let Ok(n) = c_int::try_from(bytes.len()) else { return false };
        // SAFETY: as above; there is room for so many bytes.
        unsafe {
            let base = &parts(self.0).0.base;
            base.xRead
                .is_some_and(|read| read(self.0, bytes.as_mut_ptr().cast(), n, at) == SQLITE_OK)
        }
    }

    pub(super) fn write(self, bytes: &[u8], at: i64) -> bool {
        let Ok(n) = c_int::try_from(bytes.len()) else { return false };
        // SAFETY: as above; there are so many bytes.
        unsafe {
            let base = &parts(self.0).0.base;
            base.xWrite
                .is_some_and(|write| write(self.0, bytes.as_ptr().cast(), n, at) == SQLITE_OK)
        }
    }
}

/// Writes the frames of a WAL from `behind` + 1 to `until` once more, as they are, so that the next
/// sync takes them for new. Fails if one is not what was committed: its checksum covers all before
/// it. <https://www.sqlite.org/walformat.html>
pub(super) fn write_again(wal: OpenWal, salts: Salts, behind: u32, until: u32) -> bool {
    const FRAME_HEADER: usize = 24;
    /// The last bit of it says how words are summed.
    const MAGIC: u32 = 0x377f_0682;
    let mut header = [0; HEADER];
    if !wal.read(&mut header, 0) {
        return false;
    }
    let word = |bytes: &[u8], at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let pair = |bytes: &[u8], at: usize| [word(bytes, at), word(bytes, at + 4)];
    let magic = u32::from_be_bytes(word(&header, 0));
    let is_big_endian = magic & 1 != 0;
    let sum = |seed, bytes: &[u8]| {
        let number = if is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        checksum(seed, bytes.chunks_exact(8).map(|eight| pair(eight, 0).map(number)))
    };
    let stored = |bytes: &[u8], at| pair(bytes, at).map(u32::from_be_bytes);
    // The index has them as they are in the file.
    let is_it = |bytes: &[u8], at| pair(bytes, at).map(u32::from_ne_bytes) == salts;
    let page = u32::from_be_bytes(word(&header, 8)) as usize;
    if magic & !1 != MAGIC
        || !(512..=65536).contains(&page)
        || !is_it(&header, 16)
        || sum([0, 0], &header[..24]) != stored(&header, 24)
    {
        return false;
    }
    let offset = |frame: u32| {
        HEADER as i64 + i64::from(frame.saturating_sub(1)) * (page + FRAME_HEADER) as i64
    };
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut seed = stored(&header, 24);
    if behind > 0 {
        if !wal.read(&mut frame[..FRAME_HEADER], offset(behind)) || !is_it(&frame, 8) {
            return false;
        }
        seed = stored(&frame, 16);
    } else if !wal.write(&header, 0) {
        return false;
    }
    for n in behind.saturating_add(1)..=until {
        if !wal.read(&mut frame, offset(n)) || !is_it(&frame, 8) {
            return false;
        }
        seed = sum(sum(seed, &frame[..8]), &frame[FRAME_HEADER..]);
        if seed != stored(&frame, 16) || !wal.write(&frame, offset(n)) {
            return false;
        }
    }
    true
}

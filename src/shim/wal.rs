//! The WAL of a database with group commit: a file of the base's whose sync can be put off, as
//! [`crate::group_commit::deferral`] says.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

use super::{Kind, Methods, StateSlot, closing, methods_over, state_slot};
use crate::ffi::host::Host;
use crate::ffi::{ResultCode, copies, no_panic, sqlite3, sqlite3_file, sqlite3_io_methods};
use crate::format::{WAL_SUFFIX, WalHeader};
use crate::group_commit::deferral::{Sync, Syncs};
use crate::group_commit::{self, Committer, WalFile};
use crate::sys::fork::ForkMutex;

type XSync = unsafe extern "C" fn(*mut sqlite3_file, c_int) -> ResultCode;

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
    let database = wal.as_os_str().as_encoded_bytes().strip_suffix(WAL_SUFFIX.as_bytes());
    database.is_some_and(|database| {
        WANTED.lock().iter().any(|path| path.as_os_str().as_encoded_bytes() == database)
    })
}

/// The state of an open WAL.
type State = Syncs<Client>;

/// A connection, as its WAL's owner.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(super) db: *mut sqlite3,
    pub(super) host: &'static Host,
}

impl Committer for Client {
    fn may_defer(self) -> bool {
        let host = copies::passed_by(self.host).unwrap_or(self.host);
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

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> ResultCode {
    no_panic(ResultCode::IOERR, || {
        // SAFETY: SQLite closes an open file once. Its state is taken out of it for good.
        unsafe {
            let methods = closing(file);
            drop(Box::from_raw((*state_slot(file, methods.state_offset)).cast::<State>()));
            methods.base.xClose.map_or(ResultCode::OK, |close| close(file))
        }
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    at: i64,
) -> ResultCode {
    // SAFETY: SQLite passes an open file and what the method asks for.
    unsafe {
        let (methods, state) = parts(file);
        let all = usize::try_from(bytes).unwrap_or(0);
        state.wrote(std::slice::from_raw_parts(data.cast::<u8>(), all), at);
        methods.base.xWrite.map_or(ResultCode::IOERR, |write| write(file, data, bytes, at))
    }
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> ResultCode {
    // SAFETY: SQLite passes an open file.
    unsafe {
        let (methods, state) = parts(file);
        let sync = || methods.base.xSync.map_or(ResultCode::IOERR_FSYNC, |sync| sync(file, flags));
        let header = match state.sync(flags) {
            Sync::Answer(rc) => return rc,
            Sync::Now { header } => header,
        };
        let rc = sync();
        let Some(header) = header else {
            state.synced(None, rc);
            return rc;
        };
        let write = || {
            methods.base.xWrite.map_or(ResultCode::IOERR, |write| {
                write(file, header.0.as_ptr().cast(), WalHeader::SIZE as c_int, 0)
            })
        };
        if state.synced(Some(&header), rc) && write() == ResultCode::OK { sync() } else { rc }
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
                methods.xSync.is_some_and(|sync| std::ptr::fn_addr_eq(sync, x_sync as XSync));
            is_ours.then_some(Self(file))
        }
    }
}

impl WalFile for OpenWal {
    type Committer = Client;

    fn with_syncs<T>(self, look: impl FnOnce(&mut State) -> T) -> T {
        // SAFETY: as promised to `new`, and SQLite is not in a method of it.
        look(unsafe { parts(self.0) }.1)
    }

    fn sync(self, flags: c_int) -> ResultCode {
        // SAFETY: as above; the base's own method on the file it opened.
        unsafe {
            let base = &parts(self.0).0.base;
            base.xSync.map_or(ResultCode::IOERR_FSYNC, |sync| sync(self.0, flags))
        }
    }

    fn read(self, bytes: &mut [u8], at: i64) -> bool {
        let Ok(n) = c_int::try_from(bytes.len()) else { return false };
        // SAFETY: as above; there is room for so many bytes.
        unsafe {
            let base = &parts(self.0).0.base;
            base.xRead.is_some_and(|read| {
                read(self.0, bytes.as_mut_ptr().cast(), n, at) == ResultCode::OK
            })
        }
    }

    fn write(self, bytes: &[u8], at: i64) -> bool {
        let Ok(n) = c_int::try_from(bytes.len()) else { return false };
        // SAFETY: as above; there are so many bytes.
        unsafe {
            let base = &parts(self.0).0.base;
            base.xWrite
                .is_some_and(|write| write(self.0, bytes.as_ptr().cast(), n, at) == ResultCode::OK)
        }
    }
}

#[cfg(all(test, unix, feature = "linked"))]
mod tests {
    use super::*;
    use crate::ffi::ResultCode;
    use crate::group_commit::deferral::SYNC_NORMAL;

    /// A file in memory, as a base VFS opens it.
    #[repr(C)]
    struct Memory {
        file: sqlite3_file,
        bytes: Vec<u8>,
        /// The flags of its syncs, and how many of the next fail.
        synced: Vec<c_int>,
        failing: usize,
        /// Where, and how much, was written.
        written: Vec<(i64, c_int)>,
        state: StateSlot,
    }

    const METHODS: sqlite3_io_methods = {
        // SAFETY: null is a value of every field.
        let nothing: sqlite3_io_methods = unsafe { std::mem::zeroed() };
        sqlite3_io_methods {
            iVersion: 1,
            xClose: Some(close),
            xRead: Some(read),
            xWrite: Some(write),
            xSync: Some(sync),
            ..nothing
        }
    };
    static BASE: BaseTable = BaseTable(METHODS);
    struct BaseTable(sqlite3_io_methods);
    // SAFETY: the contents never change.
    unsafe impl std::marker::Sync for BaseTable {}

    /// # Safety
    /// `file` is that of a [`Memory`].
    unsafe fn memory<'m>(file: *mut sqlite3_file) -> &'m mut Memory {
        // SAFETY: the caller's promise; `file` is its first field.
        unsafe { &mut *file.cast::<Memory>() }
    }

    unsafe extern "C" fn close(_: *mut sqlite3_file) -> ResultCode {
        ResultCode::OK
    }

    unsafe extern "C" fn read(
        file: *mut sqlite3_file,
        into: *mut c_void,
        n: c_int,
        at: i64,
    ) -> ResultCode {
        // SAFETY: called for a `Memory`, with room for so many bytes.
        let (memory, into) = unsafe {
            (memory(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), n as usize))
        };
        match memory.bytes.get(at as usize..at as usize + into.len()) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => return ResultCode::IOERR_SHORT_READ,
        }
        ResultCode::OK
    }

    unsafe extern "C" fn write(
        file: *mut sqlite3_file,
        from: *const c_void,
        n: c_int,
        at: i64,
    ) -> ResultCode {
        // SAFETY: called for a `Memory`, with so many bytes.
        let (memory, from) =
            unsafe { (memory(file), std::slice::from_raw_parts(from.cast::<u8>(), n as usize)) };
        let (at, end) = (at as usize, at as usize + from.len());
        memory.bytes.resize(memory.bytes.len().max(end), 0);
        memory.bytes[at..end].copy_from_slice(from);
        memory.written.push((at as i64, n));
        ResultCode::OK
    }

    unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> ResultCode {
        // SAFETY: called for a `Memory`.
        let memory = unsafe { memory(file) };
        memory.synced.push(flags);
        let fails = memory.failing > 0;
        memory.failing = memory.failing.saturating_sub(1);
        if fails { ResultCode::IOERR_FSYNC } else { ResultCode::OK }
    }

    /// A WAL with group commit; SQLite's calls, and what the file has seen.
    struct TestWal(*mut Memory);

    impl TestWal {
        fn new(bytes: Vec<u8>) -> Self {
            let memory = Memory {
                file: sqlite3_file { pMethods: &raw const BASE.0 },
                bytes,
                synced: Vec::new(),
                failing: 0,
                written: Vec::new(),
                state: std::ptr::null_mut(),
            };
            let memory = Box::into_raw(Box::new(memory));
            // SAFETY: an open file, with room for the address of the state.
            unsafe { install(memory.cast(), std::mem::offset_of!(Memory, state)) };
            Self(memory)
        }

        fn open(&self) -> OpenWal {
            // SAFETY: it is open as long as this lives.
            unsafe { OpenWal::new(self.0.cast()) }.expect("it is ours")
        }

        fn seen<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
            // SAFETY: it lives, and no method of it is running.
            look(unsafe { &mut *self.0 })
        }

        fn sync(&self, flags: c_int) -> ResultCode {
            // SAFETY: an open file.
            unsafe { x_sync(self.0.cast(), flags) }
        }

        fn write(&self, bytes: &[u8], at: i64) {
            // SAFETY: an open file, and so many bytes.
            let rc =
                unsafe { x_write(self.0.cast(), bytes.as_ptr().cast(), bytes.len() as c_int, at) };
            assert_eq!(rc, ResultCode::OK);
        }

        /// The flags of the syncs since this was last asked.
        fn synced(&self) -> Vec<c_int> {
            self.seen(|memory| std::mem::take(&mut memory.synced))
        }
    }

    impl Drop for TestWal {
        fn drop(&mut self) {
            // SAFETY: it is open, and closed once.
            unsafe {
                assert_eq!(x_close(self.0.cast()), ResultCode::OK);
                let memory = Box::from_raw(self.0);
                assert!(std::ptr::eq(memory.file.pMethods, &raw const BASE.0));
            }
        }
    }

    /// A connection with nothing attached.
    fn client() -> (rusqlite::Connection, Client) {
        let connection = rusqlite::Connection::open_in_memory().expect("in memory");
        let host = Box::leak(Box::new(Host::linked().expect("a linked SQLite")));
        // SAFETY: the handle is used while the connection lives.
        let db = unsafe { connection.handle() }.cast();
        (connection, Client { db, host })
    }

    /// SQLite's calls go by what group commit says: the sync of a commit is put off once, that of a header is made, and,
    /// after an error that may be an old one, once more when the header is written again.
    #[test]
    fn sqlites_calls_go_by_what_group_commit_says() {
        let wal = TestWal::new(Vec::new());
        let (_connection, client) = client();
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![2]));
        wal.open().with_syncs(|syncs| syncs.defer(client, false));
        wal.write(&[0; 24], 32);
        assert_eq!((wal.sync(SYNC_NORMAL), wal.synced()), (ResultCode::OK, vec![]));
        assert_eq!(wal.open().with_syncs(Syncs::take_asked), (true, Some(SYNC_NORMAL)));

        wal.open().with_syncs(|syncs| syncs.defer(client, true));
        wal.seen(|memory| memory.failing = 1);
        wal.write(&[7; WalHeader::SIZE], 0);
        assert_eq!(wal.sync(SYNC_NORMAL), ResultCode::OK);
        assert_eq!(wal.synced(), [2, 2]);
        assert_eq!(wal.seen(|memory| memory.written.clone()), [(32, 24), (0, 32), (0, 32)]);
        assert_eq!(wal.seen(|memory| memory.bytes[..32].to_vec()), [7; 32]);
    }

    #[test]
    fn what_is_asked_of_the_base_is_answered_by_it() {
        let wal = TestWal::new((0..100).collect());
        let open = wal.open();
        let mut bytes = [0; 3];
        assert!(open.read(&mut bytes, 50) && bytes == [50, 51, 52]);
        assert!(!open.read(&mut bytes, 98), "it ends before");
        assert!(open.write(&[1, 2], 98) && wal.seen(|memory| memory.bytes[97..] == [97, 1, 2]));
        wal.seen(|memory| memory.failing = 1);
        assert_eq!([open.sync(3), open.sync(2)], [ResultCode::IOERR_FSYNC, ResultCode::OK]);
        assert_eq!(wal.synced(), [3, 2]);
        // SAFETY: no file, one that is not open, and an open one that is the base's.
        unsafe {
            let mut file = sqlite3_file { pMethods: std::ptr::null() };
            assert!(OpenWal::new(std::ptr::null_mut()).is_none());
            assert!(OpenWal::new(&raw mut file).is_none());
            file.pMethods = &raw const BASE.0;
            assert!(OpenWal::new(&raw mut file).is_none());
        }
    }

    /// A database may be open several times; its WAL is wanted until the last is closed.
    #[test]
    fn a_wal_is_wanted_as_long_as_anybody_wants_it() {
        let database = Path::new("/no/such/wanted.db");
        let is_ours = || is_wanted(Path::new("/no/such/wanted.db-wal"));
        assert!(!is_ours());
        let [first, second] = [(); 2].map(|()| Wanted::new(database));
        assert!(is_ours() && first.database() == database);
        for other in ["/no/such/wanted.db", "/no/such/wanted.db-journal", "/no/wanted.db-wal"] {
            assert!(!is_wanted(Path::new(other)), "{other}");
        }
        drop(first);
        assert!(is_ours());
        drop(second);
        assert!(!is_ours());
    }
}

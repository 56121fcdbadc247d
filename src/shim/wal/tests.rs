//! SQLite's calls of a WAL's methods, over a base that keeps its file in memory.

use super::super::methods::StateSlot;
use super::*;
use crate::format::WalHeader;
use crate::group_commit::deferral::SYNC_NORMAL;

/// A file in memory, as a base VFS opens it.
#[repr(C)]
struct Memory {
    file: sqlite3_file,
    bytes: Vec<u8>,
    /// The flags of its syncs, and how many of the next syncs fail.
    synced: Vec<c_int>,
    failing: usize,
    /// The offset and the length of each write.
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
    // SAFETY: called for a `Memory`, with room for that many bytes.
    let (memory, into) =
        unsafe { (memory(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), n as usize)) };
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
    // SAFETY: called for a `Memory`, with that many bytes.
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

/// A WAL with group commit: SQLite's calls, and the calls that reached the file.
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
        unsafe { install_wal(memory.cast(), std::mem::offset_of!(Memory, state) as c_int) };
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
        // SAFETY: an open file, and that many bytes.
        let rc = unsafe { x_write(self.0.cast(), bytes.as_ptr().cast(), bytes.len() as c_int, at) };
        assert_eq!(rc, ResultCode::OK);
    }

    /// The flags of the syncs since the last call.
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
fn client() -> (rusqlite::Connection, WalWriter) {
    let connection = rusqlite::Connection::open_in_memory().expect("in memory");
    let host = Box::leak(Box::new(Host::linked().expect("a linked SQLite")));
    // SAFETY: the handle is used while the connection lives.
    let db = unsafe { connection.handle() }.cast();
    (connection, WalWriter { db, host })
}

/// The sync of a commit is deferred once. The sync of a header is made. If that fails, perhaps with
/// the late error of a repaired sync, the header is written again and synced once more.
#[test]
fn a_wal_defers_and_repeats_syncs_as_group_commit_says() {
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
fn an_open_wal_answers_what_its_base_answers() {
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

/// A database may be open several times; its WAL is wanted until the last connection closes.
#[test]
fn a_wal_is_wanted_until_its_last_connection_closes() {
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

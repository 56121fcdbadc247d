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
    /// Whether a sync of a commit is to fail: what it would build on is not durable.
    refuses: bool,
    /// Whether SQLite has asked for one, other than of a header.
    was_asked: bool,
    /// Whether all syncs that SQLite has made since that was last asked have succeeded, if there were any.
    synced: Option<bool>,
}

impl State {
    /// A sync that SQLite has made has answered.
    fn note(&mut self, rc: Rc) -> Rc {
        self.synced = Some(rc == SQLITE_OK && self.synced != Some(false));
        rc
    }
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
            state.was_asked = true;
            if state.refuses {
                return SQLITE_IOERR_FSYNC;
            }
            let is_normal = flags & SYNC_KIND == SQLITE_SYNC_NORMAL;
            if is_normal && state.client.is_some_and(Client::may_put_off) {
                state.put_off = Some(flags);
                return SQLITE_OK;
            }
            return state.note(sync());
        };
        let rc = state.note(sync());
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

    /// The syncs of a commit are to fail, so that SQLite rolls it back.
    pub(super) fn refuse(self) {
        // SAFETY: as above.
        let (_, state) = unsafe { parts(self.0) };
        *state = State { refuses: true, ..State::default() };
    }

    /// What [`Self::put_off`] and [`Self::refuse`] have asked for is over. Whether SQLite has asked for a
    /// sync meanwhile, other than of a header, and the flags of the one that was put off.
    pub(super) fn take_asked(self) -> (bool, Option<c_int>) {
        // SAFETY: as above.
        let (_, state) = unsafe { parts(self.0) };
        let synced = state.synced;
        let ended = std::mem::replace(state, State { synced, ..State::default() });
        (ended.was_asked, ended.put_off)
    }

    /// Whether all syncs that SQLite has made since that was last asked have succeeded; `None` if there was none.
    pub(super) fn take_synced(self) -> Option<bool> {
        // SAFETY: as above.
        unsafe { parts(self.0) }.1.synced.take()
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

#[cfg(all(test, unix, feature = "linked"))]
pub(super) mod tests {
    use super::*;
    use crate::ffi::SQLITE_IOERR_SHORT_READ;

    const SYNC_FULL: c_int = 3;

    /// A file in memory, as a base VFS opens it.
    #[repr(C)]
    pub(in crate::file) struct Memory {
        file: sqlite3_file,
        bytes: Vec<u8>,
        /// The flags of its syncs, and how many of the next fail.
        synced: Vec<c_int>,
        pub(in crate::file) failing: usize,
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

    unsafe extern "C" fn close(_: *mut sqlite3_file) -> Rc {
        SQLITE_OK
    }

    unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, n: c_int, at: i64) -> Rc {
        // SAFETY: called for a `Memory`, with room for so many bytes.
        let (memory, into) = unsafe {
            (memory(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), n as usize))
        };
        match memory.bytes.get(at as usize..at as usize + into.len()) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => return SQLITE_IOERR_SHORT_READ,
        }
        SQLITE_OK
    }

    unsafe extern "C" fn write(
        file: *mut sqlite3_file,
        from: *const c_void,
        n: c_int,
        at: i64,
    ) -> Rc {
        // SAFETY: called for a `Memory`, with so many bytes.
        let (memory, from) =
            unsafe { (memory(file), std::slice::from_raw_parts(from.cast::<u8>(), n as usize)) };
        let (at, end) = (at as usize, at as usize + from.len());
        memory.bytes.resize(memory.bytes.len().max(end), 0);
        memory.bytes[at..end].copy_from_slice(from);
        memory.written.push((at as i64, n));
        SQLITE_OK
    }

    unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> Rc {
        // SAFETY: called for a `Memory`.
        let memory = unsafe { memory(file) };
        memory.synced.push(flags);
        let fails = memory.failing > 0;
        memory.failing = memory.failing.saturating_sub(1);
        if fails { SQLITE_IOERR_FSYNC } else { SQLITE_OK }
    }

    /// A WAL with group commit; SQLite's calls, and what the file has seen.
    pub(in crate::file) struct TestWal(*mut Memory);

    impl TestWal {
        pub(in crate::file) fn new(bytes: Vec<u8>) -> Self {
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

        pub(in crate::file) fn open(&self) -> OpenWal {
            // SAFETY: it is open as long as this lives.
            unsafe { OpenWal::new(self.0.cast()) }.expect("it is ours")
        }

        pub(in crate::file) fn seen<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
            // SAFETY: it lives, and no method of it is running.
            look(unsafe { &mut *self.0 })
        }

        pub(in crate::file) fn sync(&self, flags: c_int) -> Rc {
            // SAFETY: an open file.
            unsafe { x_sync(self.0.cast(), flags) }
        }

        fn write(&self, bytes: &[u8], at: i64) {
            // SAFETY: an open file, and so many bytes.
            let rc =
                unsafe { x_write(self.0.cast(), bytes.as_ptr().cast(), bytes.len() as c_int, at) };
            assert_eq!(rc, SQLITE_OK);
        }

        /// Where, and how much, was written since this was last asked.
        pub(in crate::file) fn written(&self) -> Vec<(i64, c_int)> {
            self.seen(|memory| std::mem::take(&mut memory.written))
        }

        /// The flags of the syncs since this was last asked.
        pub(in crate::file) fn synced(&self) -> Vec<c_int> {
            self.seen(|memory| std::mem::take(&mut memory.synced))
        }
    }

    impl Drop for TestWal {
        fn drop(&mut self) {
            // SAFETY: it is open, and closed once.
            unsafe {
                assert_eq!(x_close(self.0.cast()), SQLITE_OK);
                let memory = Box::from_raw(self.0);
                assert!(std::ptr::eq(memory.file.pMethods, &raw const BASE.0));
            }
        }
    }

    /// A connection with nothing attached.
    pub(in crate::file) fn client() -> (rusqlite::Connection, Client) {
        let connection = rusqlite::Connection::open_in_memory().expect("in memory");
        let host = Box::leak(Box::new(Host::linked().expect("a linked SQLite")));
        // SAFETY: the handle is used while the connection lives.
        let db = unsafe { connection.handle() }.cast();
        (connection, Client { db, host })
    }

    /// One commit's sync is put off, the one that follows no header; and of no other kind, and of nobody who
    /// has not asked for it, or writes to another database besides.
    #[test]
    fn the_sync_of_a_commit_is_put_off_once() {
        let wal = TestWal::new(Vec::new());
        let (_connection, client) = client();
        assert_eq!((wal.sync(SQLITE_SYNC_NORMAL), wal.synced()), (SQLITE_OK, vec![2]));
        assert_eq!(wal.open().take_asked().1, None);

        wal.open().put_off(client, false);
        wal.write(&[0; 24], 32);
        assert_eq!((wal.sync(SQLITE_SYNC_NORMAL | 0x10), wal.synced()), (SQLITE_OK, vec![]));
        assert_eq!(wal.open().take_asked().1, Some(SQLITE_SYNC_NORMAL | 0x10));
        assert_eq!(wal.open().take_asked().1, None);
        assert_eq!((wal.sync(SQLITE_SYNC_NORMAL), wal.synced()), (SQLITE_OK, vec![2]));

        wal.open().put_off(client, false);
        assert_eq!((wal.sync(SYNC_FULL), wal.synced()), (SQLITE_OK, vec![3]));
        assert_eq!(wal.open().take_asked().1, None);

        // The header must be there before the frames behind it are.
        wal.open().put_off(client, false);
        wal.write(&[7; HEADER], 0);
        assert_eq!((wal.sync(SQLITE_SYNC_NORMAL), wal.synced()), (SQLITE_OK, vec![2]));
        wal.write(&[0; 24], 32);
        assert_eq!((wal.sync(SQLITE_SYNC_NORMAL), wal.synced()), (SQLITE_OK, vec![]));
        // Neither of these is one.
        for (bytes, at) in [(&[0; HEADER][..], 64), (&[0; 24], 0)] {
            wal.write(bytes, at);
            assert_eq!((wal.sync(SQLITE_SYNC_NORMAL), wal.synced()), (SQLITE_OK, vec![]));
        }
        // The linked SQLite does not say what a connection writes to; a super-journal does.
        group::super_journal(true);
        wal.open().put_off(client, false);
        assert_eq!((wal.sync(SQLITE_SYNC_NORMAL), wal.synced()), (SQLITE_OK, vec![2]));
        assert_eq!(wal.open().take_asked().1, None);
        group::super_journal(false);
    }

    /// What was answered to SQLite is known until it is asked for, also across a commit whose sync is put off, and one
    /// that failed is not forgotten for one that succeeds.
    #[test]
    fn what_sqlites_syncs_have_answered_is_known() {
        let (_connection, client) = client();
        let memory = TestWal::new(frames(0x377f_0682, 512, 1));
        let wal = memory.open();
        assert_eq!(wal.take_synced(), None);
        memory.sync(SQLITE_SYNC_NORMAL);
        assert_eq!((wal.take_synced(), wal.take_synced()), (Some(true), None));
        wal.put_off(client, false);
        let header = [7; HEADER];
        memory.write(&header, 0);
        memory.seen(|memory| memory.failing = 1);
        assert_eq!(memory.sync(SQLITE_SYNC_NORMAL), SQLITE_IOERR_FSYNC);
        assert_eq!(wal.take_asked().1, None);
        assert_eq!(memory.sync(SQLITE_SYNC_NORMAL), SQLITE_OK);
        assert_eq!(wal.take_synced(), Some(false));
    }

    /// A sync that fails is told, also the header's: but if it may be an error that was made up for, the header
    /// is written and synced once more first, and once only.
    #[test]
    fn an_error_of_the_headers_sync_is_told_unless_it_is_an_old_one() {
        let (_connection, client) = client();
        for (tells_late, failing, answers, synced) in [
            (false, 1, [SQLITE_IOERR_FSYNC, SQLITE_OK], 2),
            (true, 0, [SQLITE_OK, SQLITE_OK], 2),
            (true, 1, [SQLITE_OK, SQLITE_OK], 3),
            (true, 2, [SQLITE_IOERR_FSYNC, SQLITE_OK], 3),
            (true, 3, [SQLITE_IOERR_FSYNC, SQLITE_IOERR_FSYNC], 3),
        ] {
            let wal = TestWal::new(Vec::new());
            wal.open().put_off(client, tells_late);
            wal.seen(|memory| memory.failing = failing);
            for answer in answers {
                wal.write(&[7; HEADER], 0);
                assert_eq!(wal.sync(SQLITE_SYNC_NORMAL), answer, "{tells_late}, {failing}");
            }
            assert_eq!(wal.synced().len(), synced, "{tells_late}, {failing}");
            let again = usize::from(tells_late && failing > 0);
            assert_eq!(wal.seen(|memory| memory.written.len()), 2 + again);
            assert_eq!(wal.seen(|memory| memory.bytes.clone()), [7; HEADER]);
        }
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
        assert_eq!([open.sync(3), open.sync(2)], [SQLITE_IOERR_FSYNC, SQLITE_OK]);
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

    const SALTS: [u8; 8] = [9, 8, 7, 6, 5, 4, 3, 2];

    /// A WAL of so many frames, by <https://www.sqlite.org/walformat.html>.
    pub(in crate::file) fn frames(magic: u32, page: u32, n: u32) -> Vec<u8> {
        let sum = |[mut s0, mut s1]: [u32; 2], bytes: &[u8]| {
            for eight in bytes.chunks_exact(8) {
                let word = |at: usize| {
                    let four = [eight[at], eight[at + 1], eight[at + 2], eight[at + 3]];
                    match magic & 1 {
                        0 => u32::from_le_bytes(four),
                        _ => u32::from_be_bytes(four),
                    }
                };
                s0 = s0.wrapping_add(word(0)).wrapping_add(s1);
                s1 = s1.wrapping_add(word(4)).wrapping_add(s0);
            }
            [s0, s1]
        };
        let put = |bytes: &mut Vec<u8>, words: [u32; 2]| {
            words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
        };
        let mut wal = Vec::new();
        put(&mut wal, [magic, 3_007_000]);
        put(&mut wal, [page, 0]);
        wal.extend(SALTS);
        let mut seed = sum([0, 0], &wal);
        put(&mut wal, seed);
        for frame in 1..=n {
            let mut head = Vec::new();
            put(&mut head, [frame, frame]);
            let content: Vec<u8> = (0..page).map(|at| (at * 7 + frame) as u8).collect();
            seed = sum(sum(seed, &head), &content);
            head.extend(SALTS);
            put(&mut head, seed);
            wal.extend(head);
            wal.extend(content);
        }
        wal
    }

    pub(in crate::file) fn salts() -> Salts {
        [0, 4]
            .map(|at| u32::from_ne_bytes([SALTS[at], SALTS[at + 1], SALTS[at + 2], SALTS[at + 3]]))
    }

    /// Frames are written once more as they are, those behind the ones that are durable, and if none is, the
    /// header before them.
    #[test]
    fn frames_are_written_again_as_they_are() {
        for (magic, page) in [(0x377f_0682, 512), (0x377f_0683, 512), (0x377f_0682, 65536)] {
            let wal = TestWal::new(frames(magic, page, 4));
            let size = 24 + page as i32;
            let at = |frame: i64| 32 + (frame - 1) * i64::from(size);
            for (behind, until, expected) in [
                (0, 4, &[(0, 32), (at(1), size), (at(2), size), (at(3), size), (at(4), size)][..]),
                (1, 3, &[(at(2), size), (at(3), size)]),
                (3, 4, &[(at(4), size)]),
                (4, 4, &[]),
                (0, 0, &[(0, 32)]),
            ] {
                assert!(write_again(wal.open(), salts(), behind, until), "{behind} to {until}");
                let written = wal.seen(|memory| std::mem::take(&mut memory.written));
                assert_eq!(written, expected, "{behind} to {until}, {magic:x}, {page}");
            }
            assert!(wal.seen(|memory| memory.bytes == frames(magic, page, 4)));
            assert!(!write_again(wal.open(), salts(), 0, 5), "there are fewer");
        }
    }

    /// What is not what was committed is not written, and nothing behind it: it would be made to look whole.
    #[test]
    fn a_frame_that_is_not_what_was_committed_is_an_error() {
        const FRAME: usize = 24 + 512;
        let whole = frames(0x377f_0682, 512, 3);
        let second = 32 + FRAME;
        // Where a bit is wrong, behind how many durable frames, and how many writes there are before.
        for (at, behind, writes) in [
            (0, 0, 0), // the header's magic number
            (3, 0, 0), // its byte order
            (5, 0, 0), // what is summed
            (8, 0, 0), // the size of a page
            (10, 0, 0),
            (16, 0, 0), // the salts
            (20, 0, 0),
            (24, 0, 0), // the sums
            (28, 0, 0),
            (second, 0, 2),     // a frame's page number
            (second + 4, 0, 2), // its commit mark
            (second + 8, 0, 2), // its salts
            (second + 12, 0, 2),
            (second + 16, 0, 2), // its sums
            (second + 20, 0, 2),
            (second + 24, 0, 2), // its page
            (second + FRAME - 1, 0, 2),
            (second + 8, 2, 0),  // the salts of the last that is durable
            (second + 16, 2, 0), // its sums
        ] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let wal = TestWal::new(bytes.clone());
            assert!(!write_again(wal.open(), salts(), behind, 3), "byte {at}");
            let (written, now) =
                wal.seen(|memory| (memory.written.len(), std::mem::take(&mut memory.bytes)));
            assert_eq!(written, writes, "byte {at}");
            assert!(now == bytes, "byte {at}");
        }
        let other = salts().map(|salt| salt ^ 1);
        let wal = TestWal::new(whole);
        for salts in [[other[0], salts()[1]], [salts()[0], other[1]]] {
            assert!(!write_again(wal.open(), salts, 0, 3));
        }
        // A header that says nothing possible, with sums that are right.
        for (magic, page) in [(0x377f_0682, 256), (0x377f_0682, 131_072), (0x377f_0680, 512)] {
            let wal = TestWal::new(frames(magic, page, 1));
            assert!(!write_again(wal.open(), salts(), 0, 1), "{magic:x}, {page}");
            assert_eq!(wal.seen(|memory| memory.written.len()), 0);
        }
        assert!(!write_again(TestWal::new(vec![0; 31]).open(), salts(), 0, 0), "no header");
    }
}

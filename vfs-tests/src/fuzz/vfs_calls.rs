//! Sequences of VFS calls as SQLite would make them, by two or three connections of one process.
//! They run against a model of SQLite's locking rules (<https://www.sqlite.org/lockingv3.html>, and
//! <https://www.sqlite.org/walformat.html#locks> for the wal-index) and of the write lock
//! (`docs/locking-protocol.md`). A lock is granted if and only if the model grants it. The sidecar
//! is locked if and only if a connection has a reason. The file holds what was written. After the
//! last close nothing is locked.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null_mut;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::ffi::{
    SQLITE_BUSY, SQLITE_FCNTL_COMMIT_PHASETWO, SQLITE_FCNTL_HAS_MOVED, SQLITE_FCNTL_LOCK_TIMEOUT,
    SQLITE_FCNTL_LOCKSTATE, SQLITE_FCNTL_PERSIST_WAL, SQLITE_FCNTL_SYNC, SQLITE_IOERR_SHORT_READ,
    SQLITE_IOERR_WRITE, SQLITE_LOCK_EXCLUSIVE, SQLITE_LOCK_NONE, SQLITE_LOCK_PENDING,
    SQLITE_LOCK_RESERVED, SQLITE_LOCK_SHARED, SQLITE_OK, SQLITE_OPEN_CREATE, SQLITE_OPEN_MAIN_DB,
    SQLITE_OPEN_READWRITE, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_LOCK, SQLITE_SHM_SHARED,
    SQLITE_SHM_UNLOCK, sqlite3_create_filename, sqlite3_file, sqlite3_filename,
    sqlite3_free_filename, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
};

use crate::beside;
use crate::sidecar::holder;

/// One call, or several that SQLite makes in a row. A `u8` is reduced to the number of choices.
#[derive(Arbitrary, Debug)]
enum Step {
    Open(u8),
    Close(u8),
    Shared(u8),
    Reserved(u8),
    Exclusive(u8),
    Unlock(u8, bool),
    Map(u8),
    Unmap(u8),
    Read(u8, u8),
    Write(u8),
    Checkpoint(u8),
    Recover(u8),
    Backfill(u8),
    Restart(u8),
    UnlockSlots(u8, u8),
    NewSalts(u8),
    ReadFile(u8, u16, u8),
    WriteFile(u8, u8, u8),
    Truncate(u8, u8),
    Sync(u8),
    Commit(u8),
    Committed(u8),
    CheckReserved(u8),
    PersistWal(u8),
    HasMoved(u8),
    LockTimeout(u8, u8),
    Sleep,
}

/// The most steps of one input. Each makes some system calls.
const STEPS: usize = 80;
/// The most sleeps of one input, of a millisecond each.
const SLEEPS: usize = 3;

const PAGE: usize = 1024;
const REGION: c_int = 32768;
/// Slots of the wal-index.
const WRITE: c_int = 0;
const CKPT: c_int = 1;
const RECOVER: c_int = 2;
const READ: c_int = 3;

/// Where the salts are in the wal-index, in 32-bit words.
const SALT: usize = 8;

/// Why a connection has the write lock.
const ROLLBACK: u8 = 1;
const WAL: u8 = 2;
const FIRST: u8 = 4;

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    content: Vec<u8>,
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
}

impl Fixture {
    fn new() -> Self {
        let (directory, path) = super::directory();
        let path = path.join("board.db");
        let stock = rusqlite::Connection::open(&path).expect("a board");
        let sql =
            "PRAGMA page_size=1024; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(3000))";
        stock.execute_batch(sql).expect("a board");
        drop(stock);
        let content = std::fs::read(&path).expect("a board");
        let c =
            |suffix| CString::new(beside(&path, suffix).as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: terminated texts, which SQLite copies.
        let (vfs, name) = unsafe {
            let (journal, wal) = (c("-journal"), c("-wal"));
            let name = c("");
            // The model's file must have exactly the length that the steps set.
            let parameters = [c"kanban_file_ahead".as_ptr(), c"0".as_ptr()];
            let name = sqlite3_create_filename(
                name.as_ptr(),
                journal.as_ptr(),
                wal.as_ptr(),
                1,
                parameters.as_ptr().cast_mut(),
            );
            (sqlite3_vfs_find(c"kanban".as_ptr()), name)
        };
        assert!(!vfs.is_null() && !name.is_null());
        Self { _directory: directory, path, content, vfs, name }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: it was made by sqlite3_create_filename, and no open file uses it any more.
        unsafe { sqlite3_free_filename(self.name) };
    }
}

/// A connection: its file, and the locks that SQLite believes it has.
struct Connection {
    memory: Vec<u64>,
    is_open: bool,
    level: c_int,
    /// The lock that the base has. After a sleep, it may be higher than SQLite knows.
    base_level: c_int,
    region: *mut u32,
    shared: u8,
    exclusive: u8,
    /// Slots that were locked exclusively in one call: the first, and how many.
    groups: Vec<(c_int, c_int)>,
    /// Whether CKPT is held, too, while the WAL is restarted.
    keeps_ckpt: bool,
    reasons: u8,
    has_write_lock: bool,
    has_content: bool,
    /// The salts when its checkpoint began.
    salts: Option<[u32; 2]>,
    blocks: bool,
    was_refused: bool,
    /// Whether it was refused and has slept since: it may get the turn, during which others are
    /// refused.
    may_queue: bool,
}

/// Calls a method of an open file.
macro_rules! call {
    ($connection:expr, $method:ident $(, $argument:expr)*) => {{
        let file = $connection.file();
        // SAFETY: the file is open, the arguments are what the method asks for.
        unsafe { (*$connection.methods()).$method.expect("unix has it")(file $(, $argument)*) }
    }};
}

impl Connection {
    fn closed(vfs: *mut sqlite3_vfs) -> Self {
        // SAFETY: a registered VFS.
        let bytes = usize::try_from(unsafe { (*vfs).szOsFile }).expect("a size");
        Self {
            memory: vec![0; bytes.div_ceil(8)],
            is_open: false,
            level: SQLITE_LOCK_NONE,
            base_level: SQLITE_LOCK_NONE,
            region: null_mut(),
            shared: 0,
            exclusive: 0,
            groups: Vec::new(),
            keeps_ckpt: false,
            reasons: 0,
            has_write_lock: false,
            has_content: false,
            salts: None,
            blocks: false,
            was_refused: false,
            may_queue: false,
        }
    }

    fn file(&mut self) -> *mut sqlite3_file {
        self.memory.as_mut_ptr().cast()
    }

    fn methods(&mut self) -> *const sqlite3_io_methods {
        // SAFETY: it is memory of a file, which begins with its methods.
        unsafe { (*self.file()).pMethods }
    }

    fn control(&mut self, op: c_int, number: &mut c_int) -> c_int {
        call!(self, xFileControl, op, std::ptr::from_mut(number).cast::<c_void>())
    }

    fn lock_state(&mut self) -> c_int {
        let mut level = -1;
        assert_eq!(self.control(SQLITE_FCNTL_LOCKSTATE, &mut level), SQLITE_OK);
        level
    }

    fn all_slots(&self) -> u8 {
        self.shared | self.exclusive | u8::from(self.keeps_ckpt) << CKPT
    }

    fn has(&self, slot: c_int) -> bool {
        self.exclusive & 1 << slot != 0
    }

    fn answered(&mut self, is_granted: bool) {
        self.was_refused = !is_granted;
        self.may_queue &= !is_granted;
    }

    fn is_checkpointing(&self) -> bool {
        self.has(CKPT) && self.groups.iter().any(|(offset, _)| *offset == CKPT)
    }

    fn read_salts(&self) -> [u32; 2] {
        // SAFETY: the region is mapped and aligned, and this thread alone uses it.
        unsafe {
            [self.region.add(SALT).read_volatile(), self.region.add(SALT + 1).read_volatile()]
        }
    }
}

fn mask(offset: c_int, n: c_int) -> u8 {
    (((1_u32 << n) - 1) << offset) as u8
}

struct Board<'f> {
    fixture: &'f Fixture,
    connections: Vec<Connection>,
    /// The bytes that the file must have.
    file: Vec<u8>,
    is_wal: bool,
    sleeps: usize,
}

impl Board<'_> {
    /// Whether another connection has the write lock.
    fn is_locked_to(&self, nth: usize) -> bool {
        self.others(nth).any(|other| other.has_write_lock)
    }

    /// Whether another connection may have the turn to take the write lock.
    fn may_be_anothers_turn(&self, nth: usize) -> bool {
        self.others(nth).any(|other| other.may_queue)
    }

    fn others(&self, nth: usize) -> impl Iterator<Item = &Connection> {
        self.connections.iter().enumerate().filter(move |(n, _)| *n != nth).map(|(_, c)| c)
    }

    fn open(&mut self, nth: usize) {
        let (vfs, name) = (self.fixture.vfs, self.fixture.name);
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MAIN_DB;
        let connection = &mut self.connections[nth];
        *connection = Connection::closed(vfs);
        let (file, mut out) = (connection.file(), 0);
        // SAFETY: memory of the VFS's szOsFile, and a name that SQLite made.
        let rc = unsafe { (*vfs).xOpen.expect("a method")(vfs, name, file, flags, &raw mut out) };
        assert_eq!(rc, SQLITE_OK);
        connection.is_open = true;
    }

    /// Closes as SQLite does: first the wal-index, then the file, whatever lock it has.
    fn close(&mut self, nth: usize) {
        self.unmap(nth);
        let connection = &mut self.connections[nth];
        if connection.is_open {
            assert_eq!(call!(connection, xClose), SQLITE_OK);
            *connection = Connection::closed(self.fixture.vfs);
        }
    }

    fn unmap(&mut self, nth: usize) {
        let groups = self.connections[nth].groups.len();
        for _ in 0..groups + 1 {
            self.unlock_slots(nth, 0);
        }
        let connection = &mut self.connections[nth];
        if !connection.region.is_null() {
            assert_eq!(connection.all_slots(), 0);
            assert_eq!(call!(connection, xShmUnmap, 0), SQLITE_OK);
            connection.region = null_mut();
            self.release(nth, WAL);
        }
    }

    fn release(&mut self, nth: usize, reason: u8) {
        let connection = &mut self.connections[nth];
        connection.reasons &= !reason;
        connection.has_write_lock &= connection.reasons != 0;
    }

    /// Notes that a lock was granted which is a reason to have the write lock.
    fn granted(&mut self, nth: usize, reason: u8) {
        self.connections[nth].reasons |= reason;
        self.connections[nth].has_write_lock = true;
    }

    fn lock(&mut self, nth: usize, level: c_int) {
        let has_content = self.connections[nth].has_content || !self.file.is_empty();
        let is_first = level == SQLITE_LOCK_SHARED && !has_content;
        if level == SQLITE_LOCK_SHARED {
            self.connections[nth].has_content = has_content;
        }
        let cleans_up = self.is_wal && !self.connections[nth].region.is_null();
        let highest = self.others(nth).map(|other| other.base_level).max().unwrap_or(0);
        let sqlite_grants = match level {
            SQLITE_LOCK_SHARED => highest < SQLITE_LOCK_PENDING,
            SQLITE_LOCK_RESERVED => highest < SQLITE_LOCK_RESERVED,
            _ => highest < SQLITE_LOCK_SHARED,
        };
        let needs = is_first || level >= SQLITE_LOCK_RESERVED;
        let grants = sqlite_grants && (!needs || cleans_up || !self.is_locked_to(nth));
        let may_be_anothers_turn = needs && self.may_be_anothers_turn(nth);
        let connection = &mut self.connections[nth];
        let rc = call!(connection, xLock, level);
        let now = connection.lock_state();
        connection.base_level = now;
        let is_granted = rc == SQLITE_OK;
        let is_right = is_granted == grants || !is_granted && may_be_anothers_turn;
        assert!(is_right, "xLock({level}): {rc}");
        connection.answered(is_granted);
        if is_granted {
            assert_eq!(now, level);
            connection.level = level;
            if needs {
                self.granted(nth, if is_first { FIRST } else { ROLLBACK });
            }
        } else {
            assert_eq!(rc, SQLITE_BUSY);
            assert!(now < level, "refused, and granted");
            connection.level = connection.level.max(now);
        }
    }

    fn unlock(&mut self, nth: usize, level: c_int) {
        let connection = &mut self.connections[nth];
        assert_eq!(call!(connection, xUnlock, level), SQLITE_OK);
        assert_eq!(connection.lock_state(), level);
        (connection.level, connection.base_level) = (level, level);
        self.release(nth, ROLLBACK);
        // While another statement reads on, a first write only has SHARED.
        let has_begun = level == SQLITE_LOCK_SHARED && !self.file.is_empty();
        if level == SQLITE_LOCK_NONE || has_begun {
            self.release(nth, FIRST);
        }
    }

    fn map(&mut self, nth: usize) {
        let connection = &mut self.connections[nth];
        let mut region: *mut c_void = null_mut();
        assert_eq!(call!(connection, xShmMap, 0, REGION, 1, &raw mut region), SQLITE_OK);
        assert!(!region.is_null());
        connection.region = region.cast();
        self.release(nth, FIRST);
    }

    fn lock_slots(&mut self, nth: usize, offset: c_int, n: c_int, kind: c_int) -> bool {
        let is_shared = kind == SQLITE_SHM_SHARED;
        let wanted = mask(offset, n);
        let free_of = |other: &Connection| match is_shared {
            true => (other.exclusive | u8::from(other.keeps_ckpt) << CKPT) & wanted == 0,
            false => other.all_slots() & wanted == 0,
        };
        let mut grants = self.others(nth).all(free_of);
        let writes = self.connections[nth].reasons & WAL != 0;
        let checkpoints = self.connections[nth].is_checkpointing();
        let restarts = (offset, n) == (READ + 1, 4) && writes && !checkpoints;
        if restarts {
            // The guard against the WAL-reset bug: refused while another connection checkpoints.
            grants &= self.others(nth).all(|other| other.all_slots() & mask(CKPT, 1) == 0);
        }
        if (offset, n, is_shared) == (READ, 1, false) && checkpoints && !writes {
            // The opposite case: refused if the WAL was restarted since the checkpoint began.
            let now = self.connections[nth].read_salts();
            grants &= self.connections[nth].salts == Some(now);
        }
        let is_write = (offset, is_shared) == (WRITE, false);
        // Recovery and checkpoints hold the write lock for upkeep. Other connections wait for a
        // while, and then go on without it.
        if is_write {
            grants &= !self.is_locked_to(nth);
        }
        let may_be_anothers_turn = is_write && self.may_be_anothers_turn(nth);
        let connection = &mut self.connections[nth];
        let rc = call!(connection, xShmLock, offset, n, SQLITE_SHM_LOCK | kind);
        let is_granted = rc == SQLITE_OK;
        let is_right = is_granted == grants || !is_granted && may_be_anothers_turn;
        assert!(is_right, "xShmLock({offset}, {n}, {kind}): {rc}");
        if is_write || !is_granted {
            connection.answered(is_granted);
        }
        if !is_granted {
            assert_eq!(rc & 0xff, SQLITE_BUSY);
            return false;
        }
        if is_shared {
            connection.shared |= wanted;
            return true;
        }
        connection.exclusive |= wanted;
        connection.groups.push((offset, n));
        connection.keeps_ckpt |= restarts;
        if offset == CKPT || is_write && checkpoints {
            connection.salts = Some(connection.read_salts());
        }
        if is_write {
            self.granted(nth, WAL);
        }
        true
    }

    /// Releases the nth of the locked slots, with the read mark last.
    fn unlock_slots(&mut self, nth: usize, which: usize) {
        let connection = &mut self.connections[nth];
        if connection.groups.is_empty() {
            if connection.shared != 0 {
                let slot = connection.shared.trailing_zeros() as c_int;
                let flags = SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED;
                assert_eq!(call!(connection, xShmLock, slot, 1, flags), SQLITE_OK);
                connection.shared = 0;
            }
            return;
        }
        // In reverse order, as SQLite does, except the read marks, which come and go.
        let last = connection.groups.len() - 1;
        let at =
            if connection.groups[which % (last + 1)].0 >= READ { which % (last + 1) } else { last };
        let (offset, n) = connection.groups.remove(at);
        let flags = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
        assert_eq!(call!(connection, xShmLock, offset, n, flags), SQLITE_OK);
        connection.exclusive &= !mask(offset, n);
        match offset {
            WRITE => self.release(nth, WAL),
            CKPT => connection.salts = None,
            RECOVER if connection.is_checkpointing() => {
                connection.salts = Some(connection.read_salts());
            }
            _ if offset == READ + 1 => connection.keeps_ckpt = false,
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        let count = self.connections.len();
        let nth = |n: &u8| usize::from(*n) % count;
        match step {
            Step::Open(n) if !self.connections[nth(n)].is_open => self.open(nth(n)),
            Step::Close(n) => self.close(nth(n)),
            Step::Sleep if self.sleeps < SLEEPS => self.sleep(),
            Step::Shared(n)
            | Step::Reserved(n)
            | Step::Exclusive(n)
            | Step::Unlock(n, _)
            | Step::CheckReserved(n)
            | Step::PersistWal(n)
            | Step::HasMoved(n)
            | Step::LockTimeout(n, _)
            | Step::ReadFile(n, ..)
            | Step::WriteFile(n, ..)
            | Step::Truncate(n, _)
            | Step::Sync(n)
            | Step::Commit(n)
            | Step::Committed(n)
            | Step::Map(n)
                if self.connections[nth(n)].is_open =>
            {
                self.file_step(nth(n), step);
            }
            Step::Unmap(n)
            | Step::Read(n, _)
            | Step::Write(n)
            | Step::Checkpoint(n)
            | Step::Recover(n)
            | Step::Backfill(n)
            | Step::Restart(n)
            | Step::UnlockSlots(n, _)
            | Step::NewSalts(n)
                if !self.connections[nth(n)].region.is_null() =>
            {
                self.wal_step(nth(n), step);
            }
            _ => {}
        }
    }

    fn file_step(&mut self, n: usize, step: &Step) {
        let (level, is_mapped) = (self.connections[n].level, !self.connections[n].region.is_null());
        let is_idle = self.connections[n].all_slots() == 0;
        let may_write = match self.is_wal {
            true => self.connections[n].is_checkpointing() && self.connections[n].has(READ),
            false => level == SQLITE_LOCK_EXCLUSIVE,
        };
        match *step {
            Step::Shared(_) if level == SQLITE_LOCK_NONE => self.lock(n, SQLITE_LOCK_SHARED),
            Step::Reserved(_) if level == SQLITE_LOCK_SHARED && !self.is_wal => {
                self.lock(n, SQLITE_LOCK_RESERVED);
            }
            Step::Exclusive(_)
                if (SQLITE_LOCK_SHARED..SQLITE_LOCK_EXCLUSIVE).contains(&level) && is_idle =>
            {
                // The base may have this lock by now, since it tried to take it in a sleep.
                if self.connections[n].base_level < SQLITE_LOCK_EXCLUSIVE {
                    self.lock(n, SQLITE_LOCK_EXCLUSIVE);
                } else {
                    assert_eq!(call!(self.connections[n], xLock, SQLITE_LOCK_EXCLUSIVE), SQLITE_OK);
                    self.connections[n].level = SQLITE_LOCK_EXCLUSIVE;
                }
            }
            Step::Unlock(_, true) if level > SQLITE_LOCK_SHARED => {
                self.unlock(n, SQLITE_LOCK_SHARED);
            }
            Step::Unlock(_, false) if level > SQLITE_LOCK_NONE && !is_mapped => {
                self.unlock(n, SQLITE_LOCK_NONE);
            }
            Step::Map(_) if self.is_wal && level >= SQLITE_LOCK_SHARED && !is_mapped => self.map(n),
            Step::CheckReserved(_) => {
                let mut is_reserved = -1;
                let into = &raw mut is_reserved;
                assert_eq!(call!(self.connections[n], xCheckReservedLock, into), SQLITE_OK);
                let expected = self.connections.iter().any(|c| c.base_level > SQLITE_LOCK_SHARED);
                assert_eq!(is_reserved != 0, expected);
            }
            Step::PersistWal(_) => {
                let mut persists = -1;
                let rc = self.connections[n].control(SQLITE_FCNTL_PERSIST_WAL, &mut persists);
                assert_eq!((rc, persists), (SQLITE_OK, 0));
            }
            Step::HasMoved(_) => {
                let mut moved = -1;
                let rc = self.connections[n].control(SQLITE_FCNTL_HAS_MOVED, &mut moved);
                assert_eq!((rc, moved), (SQLITE_OK, 0));
            }
            Step::LockTimeout(_, ms) => {
                // Only an SQLite that waits in its lock calls sends this control, which the base
                // may not know.
                let mut ms = c_int::from(ms % 2);
                self.connections[n].blocks = ms > 0;
                self.connections[n].control(SQLITE_FCNTL_LOCK_TIMEOUT, &mut ms);
            }
            Step::ReadFile(_, at, bytes) if level >= SQLITE_LOCK_SHARED => {
                self.read(n, usize::from(at) % (8 * PAGE), usize::from(bytes) + 1);
            }
            Step::WriteFile(_, page, byte) if may_write => self.write(n, page, byte),
            Step::Truncate(_, pages) if may_write => {
                let size = usize::from(pages % 8) * PAGE;
                let rc = call!(self.connections[n], xTruncate, size as i64);
                // Nothing that was written is lost here, so the call must not be refused.
                assert_eq!(rc, SQLITE_OK);
                self.file.resize(size, 0);
            }
            Step::Sync(_) if may_write => {
                assert_eq!(call!(self.connections[n], xSync, 2), SQLITE_OK);
            }
            Step::Commit(_) if level >= SQLITE_LOCK_RESERVED && !is_mapped => {
                let rc = self.connections[n].control(SQLITE_FCNTL_SYNC, &mut 0);
                assert_ne!(rc, SQLITE_IOERR_WRITE, "nothing that was written is lost");
            }
            Step::Committed(_) if self.connections[n].has_write_lock => {
                let rc = self.connections[n].control(SQLITE_FCNTL_COMMIT_PHASETWO, &mut 0);
                assert_ne!(rc & 0xff, SQLITE_BUSY);
            }
            _ => {}
        }
    }

    fn read(&mut self, n: usize, at: usize, bytes: usize) {
        let mut buffer = vec![0xa5_u8; bytes];
        let into = buffer.as_mut_ptr().cast();
        let rc = call!(self.connections[n], xRead, into, bytes as c_int, at as i64);
        let mut expected: Vec<u8> = self.file.iter().skip(at).take(bytes).copied().collect();
        let is_short = expected.len() < bytes;
        expected.resize(bytes, 0);
        assert_eq!(rc, if is_short { SQLITE_IOERR_SHORT_READ } else { SQLITE_OK });
        assert_eq!(buffer, expected);
    }

    fn write(&mut self, n: usize, page: u8, byte: u8) {
        let at = usize::from(page % 8) * PAGE;
        let bytes = match at {
            0 => self.fixture.content[..PAGE].to_vec(),
            _ => vec![byte; PAGE],
        };
        // An empty file has no header to compare with. Where the header is a hole, the guard finds nothing wrong.
        let from = bytes.as_ptr().cast();
        let rc = call!(self.connections[n], xWrite, from, PAGE as c_int, at as i64);
        assert_eq!(rc, SQLITE_OK);
        // The caller is not SQLite, so the VFS does not give the file the length that the first page
        // says.
        let end = self.file.len().max(at + PAGE);
        self.file.resize(end, 0);
        self.file[at..at + PAGE].copy_from_slice(&bytes);
    }

    fn wal_step(&mut self, n: usize, step: &Step) {
        let connection = &self.connections[n];
        let (has_mark, writes, checkpoints) =
            (connection.shared != 0, connection.has(WRITE), connection.is_checkpointing());
        let is_free = |slot| connection.all_slots() & mask(slot, 1) == 0;
        // While the write lock is held for upkeep, others wait for 100 ms. The fuzzer skips that.
        let upkeep = |c: &Connection| c.has_write_lock && c.reasons & WAL != 0 && c.shared == 0;
        let is_upkept = self.others(n).any(upkeep);
        match *step {
            Step::Unmap(_) => self.unmap(n),
            Step::Read(_, slot) if !has_mark => {
                let slot = READ + c_int::from(slot % 5);
                if is_free(slot) {
                    self.lock_slots(n, slot, 1, SQLITE_SHM_SHARED);
                }
            }
            Step::Write(_) if !writes && !checkpoints && has_mark && !is_upkept => {
                self.lock_slots(n, WRITE, 1, SQLITE_SHM_EXCLUSIVE);
            }
            Step::Checkpoint(_) if !writes && is_free(CKPT) && !has_mark => {
                self.lock_slots(n, CKPT, 1, SQLITE_SHM_EXCLUSIVE);
            }
            Step::Recover(_) if !writes && !has_mark && !checkpoints && !is_upkept => {
                let has_write = self.lock_slots(n, WRITE, 1, SQLITE_SHM_EXCLUSIVE);
                if has_write && self.lock_slots(n, CKPT, 2, SQLITE_SHM_EXCLUSIVE) {
                    self.unlock_slots(n, 1);
                    self.unlock_slots(n, 0);
                }
            }
            Step::Backfill(_) if checkpoints && is_free(READ) => {
                self.lock_slots(n, READ, 1, SQLITE_SHM_EXCLUSIVE);
            }
            Step::Restart(_) if writes && connection.shared == mask(READ, 1) => {
                let others_are_free = (READ + 1..READ + 5).all(is_free);
                if others_are_free && is_free(CKPT) {
                    self.lock_slots(n, READ + 1, 4, SQLITE_SHM_EXCLUSIVE);
                }
            }
            Step::UnlockSlots(_, which) => self.unlock_slots(n, which.into()),
            // Like a stock client that restarts the WAL.
            Step::NewSalts(_) => {
                // SAFETY: the region is mapped and aligned, and this thread alone uses it.
                unsafe {
                    let salt = connection.region.add(SALT);
                    salt.write_volatile(salt.read_volatile().wrapping_add(1));
                }
            }
            _ => {}
        }
    }

    fn sleep(&mut self) {
        self.sleeps += 1;
        let vfs = self.fixture.vfs;
        // SAFETY: a registered VFS.
        unsafe { (*vfs).xSleep.expect("a method")(vfs, 1000) };
        for connection in self.connections.iter_mut().filter(|connection| connection.is_open) {
            connection.may_queue |= connection.was_refused;
            connection.base_level = connection.lock_state();
            let is_kept = connection.base_level == SQLITE_LOCK_EXCLUSIVE
                && connection.level >= SQLITE_LOCK_RESERVED;
            assert!(connection.base_level == connection.level || is_kept);
        }
    }

    /// Checks what can be seen from outside, and what must never be.
    fn check(&self) {
        let writers = self.connections.iter().filter(|c| c.has_write_lock).count();
        assert!(writers <= 1, "two have the write lock");
        let reserved = self.connections.iter().filter(|c| c.base_level >= SQLITE_LOCK_RESERVED);
        assert!(reserved.count() <= 1, "two have RESERVED");
        assert!(self.connections.iter().filter(|c| c.has(WRITE)).count() <= 1, "two have WRITE");
        let expected = (writers == 1).then(std::process::id);
        assert_eq!(holder(&beside(&self.fixture.path, "-lock")), expected, "the sidecar");
    }
}

/// A lock on a file, if any process has one.
fn locked(path: &std::path::Path) -> Option<(i64, i64)> {
    let file = std::fs::File::options().read(true).write(true).open(path).ok()?;
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open, the struct is what the command asks for.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some((lock.l_start, lock.l_len))
}

/// Two or three connections make the calls that the bytes describe, on a board that is in a
/// rollback mode, in WAL mode, or empty.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    thread_local!(static FIXTURE: Fixture = Fixture::new());
    let Some((&kind, data)) = data.split_first() else { return };
    FIXTURE.with(|fixture| {
        let _ = std::fs::remove_file(beside(&fixture.path, "-shm"));
        let is_empty = kind % 4 == 3;
        let content: &[u8] = if is_empty { &[] } else { &fixture.content };
        std::fs::write(&fixture.path, content).expect("the board");
        // This gives the connection that cleans up a sidecar to lock.
        let mut sidecar = b"kanban-vfs\0\0\x03\0\0\0".to_vec();
        sidecar.resize(36_864, 0);
        std::fs::write(beside(&fixture.path, "-lock"), sidecar).expect("the sidecar");
        let mut board = Board {
            fixture,
            connections: (0..2 + kind / 4 % 2).map(|_| Connection::closed(fixture.vfs)).collect(),
            file: content.to_vec(),
            is_wal: kind % 4 == 1 || kind % 4 == 2,
            sleeps: 0,
        };
        for nth in 0..board.connections.len() {
            board.open(nth);
        }
        let mut input = Unstructured::new(data);
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            let Ok(step) = Step::arbitrary(&mut input) else { break };
            board.step(&step);
            board.check();
        }
        for nth in 0..board.connections.len() {
            board.close(nth);
            board.check();
        }
        for suffix in ["", "-lock", "-shm"] {
            assert_eq!(locked(&beside(&fixture.path, suffix)), None, "{suffix} is still locked");
        }
        assert_eq!(std::fs::read(&fixture.path).expect("the board"), board.file);
    });
}

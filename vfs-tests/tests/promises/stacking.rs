//! The VFS stacks on a base written by somebody else, by that base's rules.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use kanban_vfs::Options;
use sqlite_vfs::{DatabaseHandle, LockKind, OpenAccess, OpenOptions, Vfs, wip};
use vfs_tests::Board;
use vfs_tests::sidecar::holder;

/// A VFS by the sqlite-vfs crate: version 2, other file sizes, no WAL, no memory mapping, locks of
/// its own among the connections of this process.
struct Foreign {
    locks: Arc<Mutex<HashMap<PathBuf, Locks>>>,
}

#[derive(Default)]
struct Locks {
    shared: usize,
    /// Some handle has RESERVED or more.
    writer: bool,
    pending: bool,
}

struct Handle {
    file: File,
    path: PathBuf,
    locks: Arc<Mutex<HashMap<PathBuf, Locks>>>,
    level: LockKind,
}

struct NoWal;

impl wip::WalIndex for NoWal {
    fn enabled() -> bool {
        false
    }
    fn map(&mut self, _: u32) -> io::Result<[u8; 32768]> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn lock(&mut self, _: Range<u8>, _: wip::WalIndexLock) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn delete(self) -> io::Result<()> {
        Ok(())
    }
}

impl DatabaseHandle for Handle {
    type WalIndex = NoWal;

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read_exact_at(&mut self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }
    fn sync(&mut self, _: bool) -> io::Result<()> {
        self.file.sync_all()
    }
    fn set_len(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn lock(&mut self, to: LockKind) -> io::Result<bool> {
        let mut all = self.locks.lock().unwrap();
        let locks = all.entry(self.path.clone()).or_default();
        let from = self.level;
        let writes =
            |level| matches!(level, LockKind::Reserved | LockKind::Pending | LockKind::Exclusive);
        match to {
            LockKind::None | LockKind::Shared if from != LockKind::None => {
                if writes(from) {
                    (locks.writer, locks.pending) = (false, false);
                }
                if to == LockKind::None {
                    locks.shared -= 1;
                }
            }
            LockKind::None => {}
            LockKind::Shared => {
                if locks.pending {
                    return Ok(false);
                }
                locks.shared += 1;
            }
            LockKind::Reserved | LockKind::Pending | LockKind::Exclusive => {
                if locks.writer && !writes(from) {
                    return Ok(false);
                }
                locks.writer = true;
                locks.pending = to != LockKind::Reserved;
                if to == LockKind::Exclusive && locks.shared > 1 {
                    self.level = LockKind::Pending;
                    return Ok(false);
                }
            }
        }
        self.level = to;
        Ok(true)
    }

    fn reserved(&mut self) -> io::Result<bool> {
        Ok(self.locks.lock().unwrap().get(&self.path).is_some_and(|locks| locks.writer))
    }
    fn current_lock(&self) -> io::Result<LockKind> {
        Ok(self.level)
    }
    fn wal_index(&self, _: bool) -> io::Result<NoWal> {
        Ok(NoWal)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        DatabaseHandle::unlock(self, LockKind::None).unwrap();
    }
}

impl Vfs for Foreign {
    type Handle = Handle;

    fn open(&self, name: &str, options: OpenOptions) -> io::Result<Handle> {
        let write = options.access != OpenAccess::Read;
        let create = matches!(options.access, OpenAccess::Create | OpenAccess::CreateNew);
        let file = File::options()
            .read(true)
            .write(write)
            .create(create)
            .truncate(false)
            .create_new(options.access == OpenAccess::CreateNew)
            .open(name)?;
        let locks = Arc::clone(&self.locks);
        Ok(Handle { file, path: name.into(), locks, level: LockKind::None })
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(name)
    }
    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(PathBuf::from(name).exists())
    }
    fn temporary_name(&self) -> String {
        let name = tempfile::Builder::new().tempfile().unwrap().into_temp_path();
        name.to_str().unwrap().to_owned()
    }
    fn random(&self, buffer: &mut [i8]) {
        let mut seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        for byte in buffer {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as i8;
        }
    }
    fn sleep(&self, duration: Duration) -> Duration {
        std::thread::sleep(duration);
        duration
    }
    fn full_pathname<'a>(&self, name: &'a str) -> io::Result<Cow<'a, str>> {
        Ok(name.into())
    }
}

/// Our VFS over the foreign one.
fn register() -> &'static str {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        sqlite_vfs::register("foreign", Foreign { locks: Arc::default() }, false).unwrap();
        let options = Options::default().with_name("kanban-over-foreign").with_base("foreign");
        kanban_vfs::register(&options).unwrap();
    });
    "kanban-over-foreign"
}

/// Four threads write through ours over the foreign VFS.
#[test]
fn writers_over_a_foreign_base_exclude_each_other() {
    let vfs = register();
    let board = Board::new();
    let connection = rusqlite::Connection::open(board.uri(vfs)).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let uri = board.uri(vfs);
            scope.spawn(move || {
                let connection = rusqlite::Connection::open(uri).unwrap();
                connection.busy_timeout(Duration::from_secs(120)).unwrap();
                for n in 0..50 {
                    connection.execute("INSERT INTO t VALUES (?)", [n]).unwrap();
                }
            });
        }
    });
    let rows: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 200);
    let ok: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(ok, "ok");
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(holder(&board.sidecar()), Some(std::process::id()));
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(holder(&board.sidecar()), None);
}

/// What the base can not do stays impossible: asked for WAL, which it does not have, it says through
/// ours what it says by itself. Its name stands behind ours.
#[test]
fn the_bases_limits_stay_its_own() {
    let vfs = register();
    let wal = |vfs: &str| {
        let board = Board::new();
        let connection = rusqlite::Connection::open(board.uri(vfs)).unwrap();
        let switched = connection.query_row("PRAGMA journal_mode=wal", [], |row| row.get(0));
        let written = connection.execute_batch("CREATE TABLE t (x)");
        (switched as Result<String, _>, written)
    };
    assert_eq!(wal(vfs), wal("foreign"));
    assert!(wal(vfs).1.is_err());
    let board = Board::new();
    let connection = rusqlite::Connection::open(board.uri(vfs)).unwrap();
    assert_eq!(crate::status(&connection, "/vfs"), "kanban-over-foreign/foreign");
    assert_eq!(crate::status(&connection, "/base_vfs"), "foreign");
}

/// A program registers the VFS as the default, and then, under another name, once more: its base is
/// the default VFS, which is ours already. It is built on what the first is built on, not on itself.
#[test]
fn it_is_never_stacked_on_itself() {
    kanban_vfs::register(&Options::default()).unwrap();
    let options = Options::default().with_name("kanban-over-kanban").with_base("kanban");
    kanban_vfs::register(&options).unwrap();
    let board = Board::new();
    let connection = rusqlite::Connection::open(board.uri("kanban-over-kanban")).unwrap();
    connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(crate::status(&connection, "/base_vfs"), "unix");
    assert_eq!(holder(&board.sidecar()), None);
}

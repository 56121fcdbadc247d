//! The VFS works over a base that others wrote, by that base's rules.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use kanban_vfs::{Error, Options};
use sqlite_vfs::{DatabaseHandle, LockKind, OpenAccess, OpenOptions, Vfs, wip};
use vfs_tests::Board;
use vfs_tests::sidecar::holder;
use vfs_tests::top::{self, Form};

/// A VFS made with the sqlite-vfs crate: version 2, other file sizes, no WAL, no memory mapping, and its own locks among
/// the connections of this process.
struct Foreign {
    locks: Arc<Mutex<HashMap<PathBuf, Locks>>>,
}

#[derive(Default)]
struct Locks {
    shared: usize,
    /// Whether some handle has RESERVED or more.
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

/// Four threads write through our VFS over the foreign one.
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

/// What the base cannot do stays impossible. It has no WAL mode, and if asked for it answers through ours what it
/// answers by itself. Its name follows ours.
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

/// A program registers the VFS as the default one, and then once more under another name. Its base would be the default
/// VFS, which is ours already. So it is built on the first one's base, not on the first one.
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

/// The answers to a client that fills, empties, checkpoints and reopens a board.
fn told(board: &Board, vfs: &str, mode: &str) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..2 {
        let connection = rusqlite::Connection::open(board.uri(vfs)).unwrap();
        for sql in [
            &format!("PRAGMA journal_mode={mode}"),
            "CREATE TABLE IF NOT EXISTS t (x)",
            "INSERT INTO t VALUES (zeroblob(20000))",
            "PRAGMA wal_checkpoint",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
             INSERT INTO t SELECT zeroblob(9000) FROM n",
            "SELECT count(*) FROM t",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA integrity_check",
            "DELETE FROM t WHERE rowid > 5",
            "VACUUM",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "BEGIN; INSERT INTO t VALUES (zeroblob(200000)); ROLLBACK",
            "SELECT count(*) FROM t",
            "PRAGMA integrity_check",
        ] {
            let answer = match sql.starts_with("BEGIN") {
                true => connection.execute_batch(sql).map(|()| Vec::new()),
                false => connection.prepare(sql).and_then(|mut statement| {
                    let columns = statement.column_count();
                    let mut rows = statement.query([])?;
                    let mut all = Vec::new();
                    while let Some(row) = rows.next()? {
                        for nth in 0..columns {
                            all.push(row.get::<_, rusqlite::types::Value>(nth)?);
                        }
                    }
                    Ok(all)
                }),
            };
            told.push(format!("{sql}: {answer:?}"));
        }
    }
    told
}

/// An application's own VFS is over ours, and keeps databases in its own form: it delays writes and extends files by
/// setting their length, splits them, or encrypts. What it does with its files is its own affair: nothing is refused,
/// nothing is added to its files, and the status claims no check that is not made.
#[test]
fn another_vfs_over_it_may_keep_databases_in_its_own_form() {
    kanban_vfs::register(&Options::default()).unwrap();
    for form in Form::ALL {
        let over = |below: &str| format!("{form:?}-over-{below}");
        for below in ["unix", "kanban"] {
            top::register(&over(below), below, form, false);
        }
        for mode in ["delete", "truncate", "wal"] {
            let [stock, ours] = ["unix", "kanban"].map(|below| {
                let board = Board::new();
                let told = told(&board, &over(below), mode);
                let lengths = ["board.db", "board.db-rest"].map(|name| {
                    board.directory().join(name).metadata().map_or(0, |found| found.len())
                });
                (told, lengths, board)
            });
            let context = format!("{form:?}, {mode}");
            assert_eq!(ours.0, stock.0, "{context}");
            assert!(ours.0.iter().all(|line| line.contains(": Ok")), "{context}: {:#?}", ours.0);
            assert_eq!(ours.1, stock.1, "{context}: the files are as long");
            let connection = rusqlite::Connection::open(ours.2.uri(&over("kanban"))).unwrap();
            connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
            let length = crate::status(&connection, "/guarantees/file_length");
            assert_eq!(length["active"], false, "{context}");
            assert!(length["why"].as_str().unwrap().contains("another VFS"), "{context}: {length}");
            assert_eq!(crate::status(&connection, "/counters/short_files"), 0, "{context}");
        }
    }
}

/// Our VFS is over such a VFS, which the application has named. SQLite cannot read a file in its form by name, but that
/// does no harm. What this VFS writes by itself is a page like any other.
#[test]
fn it_goes_over_others_that_keep_databases_in_their_own_form() {
    for form in Form::ALL {
        let (base, ours) = (format!("{form:?}-below"), format!("kanban-over-{form:?}"));
        top::register(&base, "unix", form, false);
        kanban_vfs::register(&Options::default().with_name(&ours).with_base(&base)).unwrap();
        for mode in ["delete", "truncate", "wal"] {
            let [stock, ours] = [&base, &ours].map(|vfs| told(&Board::new(), vfs, mode));
            assert_eq!(ours, stock, "{form:?}, {mode}");
            assert!(ours.iter().all(|line| line.contains(": Ok")), "{form:?}, {mode}: {ours:#?}");
        }
        // The WAL has frames when another client comes.
        let board = Board::new();
        let open = || rusqlite::Connection::open(board.uri(&ours)).unwrap();
        let [writer, reader] = [open(), open()];
        writer
            .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            .unwrap();
        let rows = reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows, Ok(1), "{form:?}");
        reader.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        let length = crate::status(&reader, "/guarantees/file_length");
        assert_eq!(length["active"], false, "{form:?}");
        assert!(length["why"].as_str().unwrap().contains("base VFS"), "{form:?}: {length}");
    }
}

/// Like the test before, with an attached board, where SQLite can list attached databases.
#[test]
fn it_knows_the_vfs_over_an_attached_board() {
    kanban_vfs::register(&Options::default()).unwrap();
    top::register("split-attached", "kanban", Form::Split, false);
    let (main, board) = (Board::new(), Board::new());
    let connection = rusqlite::Connection::open(main.kanban()).unwrap();
    let attach = format!("ATTACH '{}' AS other", board.uri("split-attached"));
    connection.execute_batch(&attach).unwrap();
    let fill =
        "CREATE TABLE t (x); CREATE TABLE other.u (x); INSERT INTO u VALUES (zeroblob(200000))";
    connection.execute_batch(fill).unwrap();
    let active = |schema: &str| {
        let sql = format!("PRAGMA {schema}.kanban_status");
        let text: String = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["guarantees"]["file_length"]["active"].clone()
    };
    assert_eq!((active("main"), active("other")), (true.into(), false.into()));
}

/// Over a base that is not one of the operating system's, the status does not vouch for its files.
#[test]
fn the_length_of_a_foreign_bases_files_is_not_vouched_for() {
    let board = Board::new();
    let connection = rusqlite::Connection::open(board.uri(register())).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(crate::status(&connection, "/guarantees/file_length/active"), false);
    let board = Board::new();
    let connection = crate::connect(&board.kanban());
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(crate::status(&connection, "/guarantees/file_length/active"), true);
}

/// Runs a test of this file in a process of its own, where it may change the default VFS. Returns false in that process.
fn in_own_process(test: &str) -> bool {
    const INSIDE: &str = "KANBAN_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("stacking::{test}"), "--nocapture"]).env(INSIDE, "1");
    assert!(command.status().unwrap().success());
    true
}

/// An application has made its own VFS the default one. This VFS cannot know what that one does for its files. So it
/// neither builds on it nor leaves it out, unless the application says so.
#[test]
fn somebody_elses_default_vfs_is_not_built_upon() {
    if in_own_process("somebody_elses_default_vfs_is_not_built_upon") {
        return;
    }
    top::register("somebody's", "unix", Form::HeldBack, true);
    for make_default in [false, true] {
        let options = Options::default().with_make_default(make_default);
        let error = kanban_vfs::register(&options).unwrap_err();
        assert_eq!(error, Error::BaseUnnamed { name: "somebody's".to_owned() });
        assert!(error.to_string().contains("KANBAN_BASE_VFS"), "{error}");
    }
    for (base, is_active) in [("somebody's", false), ("unix", true)] {
        let name = format!("kanban-over-{base}");
        kanban_vfs::register(&Options::default().with_name(&name).with_base(base)).unwrap();
        let board = Board::new();
        let connection = rusqlite::Connection::open(board.uri(&name)).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        assert_eq!(crate::status(&connection, "/base_vfs"), base);
        assert_eq!(
            crate::status(&connection, "/guarantees/file_length/active"),
            is_active,
            "{base}"
        );
    }
    // The default one is this VFS, over the operating system's.
    kanban_vfs::register(
        &Options::default().with_name("the default").with_base("unix").with_make_default(true),
    )
    .unwrap();
    kanban_vfs::register(&Options::default()).unwrap();
    let board = Board::new();
    let connection = rusqlite::Connection::open(board.kanban()).unwrap();
    assert_eq!(crate::status(&connection, "/base_vfs"), "unix");
}

/// SQLite3MultipleCiphers encrypts in a VFS that is the default one, and finds its files by what a VFS over it changes:
/// the WAL would be written as plain text. So it must be over ours. A client that names ours, where the default VFS
/// encrypts, gets an error that says so, before anything is written.
#[test]
fn a_vfs_that_encrypts_goes_over_it() {
    if in_own_process("a_vfs_that_encrypts_goes_over_it") {
        return;
    }
    const SECRET: &str = "a secret of the board";
    let ciphers = "multipleciphers-unix";
    top::register(ciphers, "unix", Form::Changed, true);
    for options in [
        Options::default().with_make_default(true),
        Options::default().with_base(ciphers),
        Options::default().with_base(ciphers).with_name("other"),
    ] {
        let error = kanban_vfs::register(&options).unwrap_err();
        assert_eq!(error, Error::BaseUnfit { name: ciphers.to_owned() });
        assert!(error.to_string().contains("vfs=multipleciphers-kanban"), "{error}");
    }
    kanban_vfs::register(&Options::default()).unwrap();
    top::register("multipleciphers-kanban", "kanban", Form::Changed, false);

    let board = Board::new();
    let error = rusqlite::Connection::open(board.kanban()).unwrap_err();
    assert!(error.to_string().contains("vfs=multipleciphers-kanban"), "{error}");
    let main = Board::new();
    let connection = rusqlite::Connection::open(main.path()).unwrap();
    let attach = format!("ATTACH '{}' AS other; CREATE TABLE other.t (x)", board.kanban());
    let error = connection.execute_batch(&attach).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen), "{error}");
    assert_eq!(board.path().metadata().map_or(0, |found| found.len()), 0);

    for mode in ["wal", "delete"] {
        let board = Board::new();
        let connection = rusqlite::Connection::open(board.uri("multipleciphers-kanban")).unwrap();
        connection
            .execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)"))
            .unwrap();
        connection.execute("INSERT INTO t VALUES (?)", [SECRET]).unwrap();
        assert_eq!(crate::status(&connection, "/base_vfs"), "unix");
        let text: String = connection.query_row("SELECT x FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(text, SECRET);
        for entry in std::fs::read_dir(board.directory()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let is_plain = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            assert!(!is_plain, "{}", path.display());
        }
    }
}

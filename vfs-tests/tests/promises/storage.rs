//! What the storage cannot promise is refused or reported: WAL mode on file systems whose memory other
//! machines do not share, and journals and syncs that are turned off.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vfs_tests::{Board, Program, is_root};

use crate::{agent, connect, status};

/// A directory mounted with FUSE: what is written there goes to another directory. Unmounted when
/// dropped.
struct Fuse {
    at: PathBuf,
    server: Child,
}

impl Fuse {
    /// Needs bindfs; returns an error if this user may not mount.
    fn mount(of: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir(at).unwrap();
        let server = Command::new("bindfs")
            .args(["--no-allow-other", "-f"])
            .args([of, at])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut fuse = Self { at: at.to_owned(), server };
        let began = Instant::now();
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        while device(at) == device(of) {
            if fuse.server.try_wait().unwrap().is_some() {
                return Err("needs the right to mount by FUSE: bindfs could not".to_owned());
            }
            assert!(began.elapsed() < vfs_tests::PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(fuse)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        for unmount in [["fusermount", "-uz"], ["fusermount3", "-uz"], ["umount", "-l"]] {
            let mut command = Command::new(unmount[0]);
            if command
                .arg(unmount[1])
                .arg(&self.at)
                .output()
                .is_ok_and(|done| done.status.success())
            {
                break;
            }
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn uri(path: &Path, parameters: &str) -> String {
    format!("file:{}?vfs={parameters}", path.display())
}

/// A board on a FUSE mount is switched to WAL mode. The stock VFS does that, and clients on another
/// machine that mounts the same would corrupt the board. Ours says what is wrong and what to do, and
/// rollback modes still work. A board that is already in WAL mode is not opened, unless that is
/// allowed.
#[test]
fn wal_is_refused_on_fuse() {
    vfs_tests::needs!("bindfs");
    let directory = Board::new();
    let served = directory.directory().join("served");
    std::fs::create_dir(&served).unwrap();
    let fuse = match Fuse::mount(&served, &directory.directory().join("mount point")) {
        Ok(fuse) => fuse,
        Err(why) => return vfs_tests::skip!(&why),
    };
    let path = fuse.at.join("board.db");
    for program in Program::ALL {
        let mut client = agent(program);
        client.open("c", &uri(&path, "kanban"), 5000);
        let why = client.sql("c", "PRAGMA journal_mode=wal").message();
        assert!(why.contains("fuse") && why.contains("mount point"), "{why}");
        assert!(why.contains("kanban_network_wal=1"), "{why}");
        // By this text applications know that they must use a rollback mode.
        assert!(why.starts_with("locking protocol: "), "{why}");
        client.sql("c", "CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)").rows();
        assert_eq!(client.sql("c", "PRAGMA journal_mode").rows(), [["delete"]]);
    }
    let stock = connect(&uri(&path, "unix"));
    let mode: String = stock.query_row("PRAGMA journal_mode=wal", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal", "the stock VFS does it");
    drop(stock);
    for program in Program::ALL {
        let mut client = agent(program);
        client.open("c", &uri(&path, "kanban"), 5000);
        assert!([14, 0].contains(&client.sql("c", "SELECT * FROM t").code()));
        if program == Program::Rust {
            let log = client.log();
            let ours = |line: &&String| line.contains("kanban_network_wal=1");
            assert_eq!(log.iter().filter(ours).count(), 1, "{log:?}");
        }
        client.close("c");
        client.open("c", &uri(&path, "kanban&kanban_network_wal=1"), 5000);
        client.sql("c", "INSERT INTO t VALUES (2)").rows();
        assert_eq!(client.sql("c", "PRAGMA journal_mode").rows(), [["wal"]]);
        let says = client.sql("c", "PRAGMA kanban_status").rows();
        let says: serde_json::Value = serde_json::from_str(says[0][0].as_str().unwrap()).unwrap();
        assert_eq!(says["guarantees"]["wal_file_system"]["active"], false);
        client.sql("c", "PRAGMA journal_mode=delete").rows();
        client.close("c");
        let stock = connect(&uri(&path, "unix"));
        stock.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).unwrap();
    }
}

/// Without a journal file, a worker that is killed may leave half a transaction. That is reported, too.
#[test]
fn a_journal_that_is_not_kept_is_reported() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    for (mode, active) in
        [("memory", false), ("DELETE", true), ("OFF", false), ("persist", true), ("wal", true)]
    {
        let set: String = connection
            .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(set, mode.to_lowercase());
        assert_eq!(status(&connection, "/guarantees/journal/active"), active, "{mode}");
    }
}

/// In the board's directory nobody may create a journal, although its sidecar is there. Nothing is
/// written, and the log says what is missing. (Root may create files anywhere.)
#[test]
fn a_journal_that_cannot_be_created_is_named() {
    if is_root() {
        return crate::as_nobody("storage::a_journal_that_cannot_be_created_is_named");
    }
    for vfs in ["unix", "kanban"] {
        let board = Board::new();
        connect(&board.kanban()).execute_batch("CREATE TABLE t (x)").unwrap();
        let may = |mode| {
            std::fs::set_permissions(board.directory(), PermissionsExt::from_mode(mode)).unwrap();
        };
        may(0o555);
        let before = std::fs::read(board.path()).unwrap();
        let mut client = agent(Program::Rust);
        client.open("c", &board.uri(vfs), 5000);
        let code = client.sql("c", "INSERT INTO t VALUES (1)").code();
        let log = client.log();
        may(0o755);
        // CANTOPEN or, where SQLite finds the reason itself, READONLY.
        assert!([8, 14].contains(&code), "{vfs}: {code}");
        assert_eq!(std::fs::read(board.path()).unwrap(), before);
        let says = log.iter().filter(|line| line.contains("cannot open the journal"));
        assert_eq!(says.count(), usize::from(vfs == "kanban"), "{log:?}");
    }
}

/// With `synchronous=OFF` nothing is synced, which the VFS cannot see on the disk. But it sees the
/// pragma, and reports it.
#[test]
fn synchronous_off_is_reported() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    for (value, active) in
        [("off", false), ("NORMAL", true), ("0", false), ("full", true), ("extra", true)]
    {
        connection.execute_batch(&format!("PRAGMA synchronous={value}")).unwrap();
        let level: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(level != 0, active, "{value}");
        assert_eq!(status(&connection, "/guarantees/synchronous/active"), active, "{value}");
    }
    // A pragma that SQLite refuses changes nothing.
    connection.execute_batch("BEGIN").unwrap();
    connection.execute_batch("PRAGMA synchronous=off").unwrap_err();
    assert_eq!(status(&connection, "/guarantees/synchronous/active"), true);
}

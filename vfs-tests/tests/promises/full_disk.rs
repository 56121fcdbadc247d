//! A disk is full, or has no inode left, before the first write, so there can be no sidecar to lock. What
//! the stock VFS can still do, ours does, too, and says why it has no write lock. When there is room, it
//! takes one.

use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vfs_tests::needs::ROOT;
use vfs_tests::sidecar::holder;
use vfs_tests::{Agent, Board, Program, Reply, needs, skip};

use crate::{Client, status_of, stock_agent};

/// A small file system mounted on a directory. It is unmounted when this is dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(directory: &Path, options: &CStr) -> Result<Self, String> {
        let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
        let kind = c"tmpfs".as_ptr();
        // SAFETY: terminated strings.
        let rc = unsafe { libc::mount(kind, path.as_ptr(), kind, 0, options.as_ptr().cast()) };
        if rc != 0 {
            return Err(format!("needs the right to mount: {}", std::io::Error::last_os_error()));
        }
        Ok(Self(directory.to_owned()))
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write(&[1; 512]).is_ok_and(|n| n > 0) {}
        path
    }

    /// Creates files until there is no room for another one.
    fn use_inodes(&self) -> Vec<PathBuf> {
        let paths = (0..).map(|n| self.0.join(format!("filler {n}")));
        paths.take_while(|path| std::fs::File::create(path).is_ok()).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: a terminated string.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// The codes of a client's attempts to read and to write, by a new connection.
fn attempts(client: &mut Agent, uri: &str) -> [i64; 3] {
    client.open("c", uri, 0);
    let statements = [
        "SELECT count(*) FROM t",
        "BEGIN IMMEDIATE; UPDATE t SET x = 1; COMMIT",
        "BEGIN IMMEDIATE; INSERT INTO t VALUES (zeroblob(1000000)); COMMIT",
    ];
    statements.map(|sql| match client.sql("c", sql) {
        Reply::Rows(_) => 0,
        Reply::Error { code, .. } => {
            client.sql("c", "ROLLBACK");
            code & 0xff
        }
    })
}

/// A board is on a disk without room, or without inodes, in each journal mode, and a stock client has it
/// open. Clients of both VFSes use it: both can do the same. With room again, ours takes the write lock
/// within a second. If this user may not mount a disk, only `system_call_errors` tests this.
#[test]
fn a_full_disk_allows_what_it_allows_without_a_sidecar() {
    needs!(ROOT);
    for (options, has_inodes) in [(c"size=256k", true), (c"size=8m,nr_inodes=12", false)] {
        for mode in ["delete", "wal"] {
            let mut could = Vec::new();
            for client in [Client::Stock, Client::Ours] {
                let context = format!("{options:?}, {mode}, {client:?}");
                let board = Board::new();
                let disk = match Disk::mount(&board.directory(), options) {
                    Ok(disk) => disk,
                    Err(why) => return skip!(&why),
                };
                let mut keeper = stock_agent(Program::Python);
                keeper.open("c", &board.stock(), 0);
                let set_up = format!(
                    "PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (0)"
                );
                keeper.sql("c", &set_up).rows();
                if mode == "wal" {
                    // This lets the WAL be written from its beginning again.
                    keeper.sql("c", "PRAGMA wal_checkpoint(RESTART)").rows();
                }
                let fillers = if has_inodes { vec![disk.fill()] } else { disk.use_inodes() };
                let mut agent = client.start(Program::Rust);
                could.push(attempts(&mut agent, &client.uri(&board)));
                assert_eq!(holder(&board.sidecar()), None, "{context}");
                assert!(!board.sidecar().exists(), "{context}: of no use to anybody");
                if client == Client::Ours {
                    let why = status_of(&mut agent, "c", "/guarantees/write_lock/why");
                    assert!(why.as_str().unwrap().contains("the sidecar"), "{context}: {why}");
                    let log = agent.log();
                    let said = log.iter().filter(|line| line.contains("the sidecar"));
                    assert_eq!(said.count(), 1, "{context}: {log:?}");
                }
                for filler in fillers {
                    std::fs::remove_file(filler).unwrap();
                }
                std::thread::sleep(Duration::from_millis(1100));
                agent.sql("c", "BEGIN IMMEDIATE; UPDATE t SET x = 2").rows();
                let has_lock = (client == Client::Ours).then(|| agent.pid());
                assert_eq!(holder(&board.sidecar()), has_lock, "{context}");
                agent.sql("c", "COMMIT").rows();
                let rows = keeper.sql("c", "SELECT min(x) FROM t").rows();
                assert_eq!(rows, [[2]], "{context}");
                assert_eq!(keeper.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
            }
            assert_eq!(could[0], could[1], "{options:?}, {mode}");
        }
    }
}

//! A disk that is full before the first write: there is no sidecar to lock, so nobody writes, and
//! says why. When there is room, it goes on.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::ffi;
use vfs_tests::needs::ROOT;
use vfs_tests::sidecar::holder;
use vfs_tests::{Board, Program, needs, skip};

use crate::agent;
use crate::faults::Healthy;

/// A small file system of its own in a directory, gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(directory: &Path) -> Result<Self, String> {
        let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
        let kind = c"tmpfs".as_ptr();
        // SAFETY: terminated strings.
        let rc = unsafe { libc::mount(kind, path.as_ptr(), kind, 0, c"size=256k".as_ptr().cast()) };
        if rc != 0 {
            return Err(format!("needs the right to mount: {}", std::io::Error::last_os_error()));
        }
        Ok(Self(directory.to_owned()))
    }

    /// Leaves no byte of it free.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write(&[1; 512]).is_ok_and(|n| n > 0) {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: a terminated string.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A board on a full disk, with a table or new, in each journal mode, is used by clients of both
/// programs. Stock clients are told that the disk is full. Where nobody may mount a disk, only
/// `system_call_errors` says so.
#[test]
fn nobody_writes_until_there_is_room() {
    needs!(ROOT);
    let mut healthy = Healthy::start();
    for (program, mode) in [
        (Program::Rust, Some("delete")),
        (Program::Python, Some("wal")),
        (Program::Rust, None),
        (Program::Python, None),
    ] {
        let board = Board::new();
        let disk = match Disk::mount(&board.directory()) {
            Ok(disk) => disk,
            Err(why) => return skip!(&why),
        };
        let table = "CREATE TABLE IF NOT EXISTS t (x)";
        if let Some(mode) = mode {
            healthy.stock.open("c", &board.stock(), 5000);
            let set_up = format!("PRAGMA journal_mode={mode}; {table}; INSERT INTO t VALUES (1)");
            healthy.stock.sql("c", &set_up).rows();
            healthy.stock.close("c");
        }
        let filler = disk.fill();

        healthy.stock.open("c", &board.stock(), 0);
        let code = healthy.stock.sql("c", &format!("{table}; INSERT INTO t VALUES (2)")).code();
        healthy.stock.close("c");
        // In WAL mode there is no room for the wal-index.
        let no_room = [ffi::SQLITE_FULL, ffi::SQLITE_IOERR, ffi::SQLITE_CANTOPEN];
        assert!(no_room.contains(&(code as i32)), "{mode:?}, stock: {code}");

        let mut client = agent(program);
        client.open("c", &board.kanban(), 1000);
        let code = client.sql("c", "BEGIN IMMEDIATE").code();
        let expected = match mode {
            Some("wal") => ffi::SQLITE_IOERR,
            _ => ffi::SQLITE_CANTOPEN,
        };
        assert_eq!(code as i32, expected, "{program:?} {mode:?}");
        if program == Program::Rust {
            let log = client.log();
            let said = log.iter().filter(|line| line.contains("can not write the sidecar")).count();
            assert_eq!(said, 1, "{log:?}");
        }
        assert_eq!(holder(&board.sidecar()), None);
        if mode == Some("delete") {
            assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[1]], "reading goes on");
        }

        std::fs::remove_file(filler).unwrap();
        client.sql("c", &format!("BEGIN IMMEDIATE; {table}; INSERT INTO t VALUES (3)")).rows();
        assert_eq!(holder(&board.sidecar()), Some(client.pid()), "{mode:?}");
        client.sql("c", "COMMIT").rows();
        assert_eq!(board.sidecar().metadata().unwrap().len(), 4096);
        let acknowledged = [Some(3), mode.and(Some(1))].into_iter().flatten().collect();
        healthy.find_whole(&board, &acknowledged).unwrap();
        client.close("c");
    }
}

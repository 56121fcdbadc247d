//! Arbitrary bytes as the sidecar. Whatever they are, one connection at a time writes, and no wait
//! lasts for ever. A sidecar that is not ours stays as it is and is not locked. A sidecar that is
//! ours is completed, and the last connection deletes it.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::beside;
use crate::sidecar::{WRITE_BYTE, holder};

/// The first bytes of a sidecar of ours, which has [`LENGTH`]. `docs/locking-protocol.md`
const HEADER: [u8; 16] = *b"kanban-vfs\0\0\x03\0\0\0";
/// The same for a file that existed before.
const FOUND: [u8; 16] = *b"kanban-vfs\0\x01\x03\0\0\0";
const LENGTH: usize = 36_864;

struct Board {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Board {
    fn new() -> Self {
        let (directory, path) = super::directory();
        let path = path.join("board.db");
        let stock = Connection::open(&path).expect("a board");
        stock.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("a board");
        Self { _directory: directory, path }
    }

    fn connect(&self) -> Connection {
        let uri = format!("file:{}?vfs=kanban&kanban_busy_timeout=0", self.path.display());
        let connection = Connection::open(uri).expect("the sidecar is not looked at yet");
        // Rusqlite sets a busy timeout of its own.
        connection.busy_timeout(std::time::Duration::ZERO).expect("open");
        connection
    }
}

/// The first two bytes give the length of a script; the sidecar's bytes follow it.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    thread_local!(static BOARD: Board = Board::new());
    let Some((&[script, whole], rest)) = data.split_first_chunk() else { return };
    let (script, bytes) = rest.split_at(rest.len().min(usize::from(script)));
    // A page that is ours allows the most cases, so most inputs get its header.
    let mut content = Vec::new();
    if whole % 4 > 0 {
        content.extend(HEADER);
    }
    content.extend(&bytes[..bytes.len().min(2 * LENGTH)]);
    if whole % 4 == 3 {
        content.resize(content.len().max(LENGTH), 0);
    }
    kanban_vfs::fuzzing::hostile_page(&content, script);
    BOARD.with(|board| open(board, &content));
}

/// Two connections on a board with that sidecar, and another process's lock on it.
fn open(board: &Board, content: &[u8]) {
    let sidecar = beside(&board.path, "-lock");
    std::fs::write(&sidecar, content).expect("the sidecar");
    let (first, second) = (board.connect(), board.connect());
    let begin = |connection: &Connection| connection.execute_batch("BEGIN IMMEDIATE");
    let end = |connection: &Connection| connection.execute_batch("ROLLBACK");

    let start = &content[..content.len().min(HEADER.len())];
    let is_ours = content.len() <= LENGTH
        && ([HEADER, FOUND].iter().any(|ours| *start == ours[..start.len()])
            || start.iter().all(|byte| *byte == 0));
    let me = is_ours.then(std::process::id);
    begin(&first).expect("nobody has the lock");
    assert_eq!(holder(&sidecar), me);
    begin(&second).expect_err("one at a time");
    end(&first).expect("no I/O");
    assert_eq!(holder(&sidecar), None);
    // If the page gives another the turn, a connection that waits loses one turn at most.
    second.busy_timeout(std::time::Duration::from_secs(10)).expect("open");
    begin(&second).expect("nobody has the lock");
    assert_eq!(holder(&sidecar), me);
    end(&second).expect("no I/O");
    assert_eq!(holder(&sidecar), None);

    let other = std::fs::File::options().read(true).write(true).open(&sidecar).expect("a file");
    lock(&other, libc::F_WRLCK);
    assert_eq!(begin(&first).is_err(), is_ours, "another process has the lock");
    if !is_ours {
        end(&first).expect("no I/O");
    }
    lock(&other, libc::F_UNLCK);
    begin(&first).expect("nobody has it");
    end(&first).expect("no I/O");
    let after = std::fs::read(&sidecar).expect("the sidecar");
    drop((first, second));
    // A file that existed before and was no whole page of ours may be another program's, and stays.
    let is_whole = is_ours && content.len() == LENGTH && content.starts_with(&HEADER);
    assert_eq!(sidecar.exists(), !is_whole);
    if is_ours {
        let expected = if is_whole { HEADER } else { FOUND };
        assert_eq!(after[..HEADER.len()], expected, "it is made whole");
        assert_eq!(after.len(), LENGTH);
    } else {
        assert_eq!(after, content, "it is not ours");
    }
}

/// Takes a lock as a holder in another process would.
fn lock(file: &std::fs::File, kind: i32) {
    // SAFETY: all of its fields are integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = WRITE_BYTE;
    lock.l_len = 1;
    // SAFETY: the descriptor is open, the struct is what the command asks for.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

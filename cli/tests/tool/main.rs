//! The tool beside real clients: processes that hold, wait, are killed and have their files taken
//! away.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use vfs_tests::{Agent, Board, PATIENCE, Program};

mod check;
mod clients;
mod errors;
mod everybody;
mod load;
mod log;
mod metrics;
mod run;
mod schema;
mod status;
mod watch;

/// The program under test.
const TOOL: &str = env!("CARGO_BIN_EXE_kanban-vfs");

/// Runs the tool to its end.
fn tool(arguments: &[&dyn AsRef<OsStr>]) -> Output {
    Command::new(TOOL).args(arguments.iter().map(AsRef::as_ref)).output().unwrap()
}

/// Its exit status, output, and errors.
fn outcome(arguments: &[&dyn AsRef<OsStr>]) -> (Option<i32>, String, String) {
    let output = tool(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What a command with `--json` says, and its exit status.
fn json(command: &str, board: &Path) -> (Option<i32>, Value) {
    let (code, out, errors) = outcome(&[&command, &"--json", &board]);
    let value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{errors}"));
    (code, value)
}

/// The tool as the user nobody, who may read the board; it is copied to where everybody may run it, as long as that
/// directory is there.
fn as_nobody(board: &Board) -> (tempfile::TempDir, Command) {
    let place = tempfile::tempdir().unwrap();
    for path in [place.path(), &board.directory()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let tool = place.path().join("tool");
    std::fs::copy(TOOL, &tool).unwrap();
    let mut nobody = Command::new(&tool);
    nobody.current_dir("/").uid(65534).gid(65534);
    (place, nobody)
}

/// A client process with a connection `c`.
fn client(board: &Board, vfs: &str) -> Agent {
    let mut client = Agent::start(Program::Python, "");
    client.open("c", &board.uri(vfs), 60_000);
    client
}

/// A process that has begun a transaction, and one that waits in the queue to begin its own; each has a connection `c`.
fn holder_and_waiter(board: &Board) -> [Agent; 2] {
    let [mut holder, mut waiter] = [(), ()].map(|()| client(board, "kanban"));
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    waiter.send_sql("c", "BEGIN IMMEDIATE");
    until(|| json("status", &board.path()).1, |status| status["queue"] != Value::Array(Vec::new()));
    [holder, waiter]
}

/// A board in WAL mode with so many rows that it has several pages; nobody has it open, and it has no event log.
fn board() -> Board {
    let board = Board::new();
    let mut client = client(&board, "kanban&kanban_record=0");
    for sql in [
        "PRAGMA journal_mode=wal",
        "CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT)",
        "INSERT INTO tasks (title) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 500) SELECT printf('task %d, and what is to be done', i) FROM n",
    ] {
        client.sql("c", sql).rows();
    }
    client.close("c");
    board
}

/// `board.db-wal` and the like.
fn beside(board: &Board, suffix: &str) -> PathBuf {
    let mut path = board.path().into_os_string();
    path.push(suffix);
    path.into()
}

/// Sends a signal to a process.
fn signal(pid: &str, signal: libc::c_int) {
    // SAFETY: it takes numbers.
    assert_eq!(unsafe { libc::kill(pid.parse().unwrap(), signal) }, 0);
}

/// Asks again until it is so.
#[track_caller]
fn until<T: std::fmt::Debug>(mut ask: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let answer = ask();
        if is_so(&answer) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

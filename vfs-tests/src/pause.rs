//! Clients that can be stopped at a call to the VFS. `pause.c` does that: a base VFS, `vfs=pause`,
//! over which `vfs=kanban` is loaded.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use crate::{Agent, PATIENCE, Program};

/// The SQLite of a client that can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// Debian's 3.40.1.
    Debian,
    /// The newest, which waits inside its lock calls (SQLITE_ENABLE_SETLK_TIMEOUT).
    Newest,
}

/// Starts a Python client whose threads can be stopped.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn agent(library: Library) -> Agent {
    let mut variables = vec![("PRELOAD", env!("PAUSE_VFS")), ("KANBAN_BASE_VFS", "pause")];
    if library == Library::Newest {
        variables.push(("LD_LIBRARY_PATH", env!("SETLK_SQLITE")));
    }
    Agent::start_in(Program::Python, "", Path::new("/"), &variables)
}

/// A call at which a thread must stop: before the `n`-th call of `method` on a file of kind `file`
/// (`main`, `wal`, `other`, or `vfs` for the VFS's own methods). `*` stands for any.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The method's name in `sqlite3_io_methods` or `sqlite3_vfs`.
    pub method: &'a str,
    /// The kind of file.
    pub file: &'a str,
    /// Counted from 1.
    pub n: usize,
}

impl At<'_> {
    /// The `n`-th call of any method.
    #[must_use]
    pub fn any(n: usize) -> Self {
        Self { method: "*", file: "*", n }
    }
}

/// The place where stopped threads report.
pub struct Stops {
    directory: tempfile::TempDir,
    reports: Receiver<UnixStream>,
}

/// A thread that is stopped before a call. It goes on when this is dropped.
pub struct Stopped {
    call: String,
    slots: u32,
    _thread: UnixStream,
}

impl Stopped {
    /// The call that it is about to make, for example `xShmLock main lock exclusive 3+1`. If SQLite
    /// has allowed the call to block (`SQLITE_FCNTL_LOCK_TIMEOUT`), `may block` follows.
    #[must_use]
    pub fn call(&self) -> &str {
        &self.call
    }

    /// Whether the file holds that lock slot of the wal-index exclusively.
    #[must_use]
    pub fn holds(&self, slot: u32) -> bool {
        self.slots & (1 << slot) != 0
    }
}

impl Default for Stops {
    fn default() -> Self {
        Self::new()
    }
}

impl Stops {
    /// No thread is stopped yet.
    ///
    /// # Panics
    /// If there is no place for a socket.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("stops")).expect("a socket");
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if sender.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { directory, reports }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("stops")
    }

    /// Lets a client run SQL on a connection in a thread of its own, which must stop at a call.
    /// Returns when the thread has stopped; `None` if it ended without that call. The client can do
    /// other things meanwhile. [`Agent::end`] gets the result.
    ///
    /// # Panics
    /// If neither happens in [`PATIENCE`].
    #[track_caller]
    pub fn begin(&self, client: &mut Agent, name: &str, sql: &str, at: At<'_>) -> Option<Stopped> {
        let socket = self.socket();
        client.call(&json!(["begin", name, sql, at.method, at.file, at.n, socket.to_str()])).rows();
        let stream = self.reports.recv_timeout(PATIENCE).expect("it neither stops nor ends");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has one");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("it says where it is");
        let (slots, call) = line.trim_end().split_once(' ').expect("two words or more");
        let slots = slots.parse().expect("a number");
        (call != "end").then(|| Stopped { call: call.to_owned(), slots, _thread: stream })
    }
}

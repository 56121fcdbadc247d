//! One file per promise. Each test begins with its story. If it guards against a hazard, the same
//! scene first runs on the stock VFS and shows the damage.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use vfs_tests::base::Base;
use vfs_tests::{Agent, Board, Program, Reply};

mod begin;
mod busy_handlers;
mod canonical_path;
mod circle;
mod clocks;
mod descriptors;
mod displaced_files;
mod ended_threads;
mod event_log;
mod extension_file;
mod faults;
mod file_ahead;
mod file_length;
mod first_connect;
mod fork;
mod full_disk;
mod group_commit;
mod hostile_sidecar;
mod journal_modes;
mod kept_wal;
mod killed_holder;
mod kills;
mod left_behind;
mod loading;
mod lock_cancellation;
mod lock_errors;
mod lock_scope;
mod log;
mod mixed_clients;
mod names;
mod power_loss;
mod queue;
mod setlk_timeout;
mod shell_examples;
mod short_lives;
mod sidecar;
mod soak;
mod stacking;
mod storage;
mod storage_errors;
#[cfg(target_arch = "x86_64")]
mod system_call_errors;
mod threads_and_processes;
mod timeout;
#[cfg(target_os = "linux")]
mod unchanged;
#[cfg(target_os = "linux")]
mod unchanged_languages;
mod unloading;
mod wal_reset;

/// The Rust client. A test that runs elsewhere says where it has put the program.
fn rust_agent() -> String {
    std::env::var("KANBAN_RUST_AGENT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_agent").to_owned())
}

/// A client process.
fn agent(program: Program) -> Agent {
    Agent::start(program, &rust_agent())
}

/// A client process that does not know the VFS.
fn stock_agent(program: Program) -> Agent {
    Agent::start_stock(program, &rust_agent())
}

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// It does not know the VFS.
    Stock,
    /// Its connection strings name the VFS.
    Ours,
    /// A stock connection in a process that has the database open through the VFS, too.
    StockBesideOurs,
}
impl Client {
    fn start(self, program: Program) -> Agent {
        if self == Self::Stock { stock_agent(program) } else { agent(program) }
    }

    fn uri(self, board: &Board) -> String {
        if self == Self::Ours { board.kanban() } else { board.stock() }
    }

    /// A process with a connection `c`, which does not wait for locks.
    fn open(self, program: Program, board: &Board) -> Agent {
        let mut client = self.start_at(program, board);
        client.open("c", &self.uri(board), 0);
        client
    }

    /// A process, with whatever must be open beside its connections to this board.
    fn start_at(self, program: Program, board: &Board) -> Agent {
        let mut client = self.start(program);
        if self == Self::StockBesideOurs {
            // A database that exists is opened read-only.
            let mode = if board.path().exists() { "ro" } else { "rwc" };
            client.open("beside", &format!("{}&mode={mode}", board.kanban()), 0);
        }
        client
    }
}

/// Two clients, for every pair of programs.
fn pairs() -> impl Iterator<Item = (Agent, Agent)> {
    Program::ALL
        .into_iter()
        .flat_map(|a| Program::ALL.into_iter().map(move |b| (agent(a), agent(b))))
}

/// A connection of this process, by a URI that names the VFS.
fn connect(uri: &str) -> rusqlite::Connection {
    kanban_vfs::register(&kanban_vfs::Options::default()).unwrap();
    rusqlite::Connection::open(uri).unwrap()
}

/// A base VFS of that name, which fails as a test decides, and the name of our VFS over it.
fn over_faulty(name: &str) -> (Base, String) {
    let base = Base::register(name);
    let ours = format!("kanban-over-{name}");
    let options = kanban_vfs::Options::default().with_name(&ours).with_base(name);
    kanban_vfs::register(&options).unwrap();
    (base, ours)
}

/// A field of `PRAGMA kanban_status`, named by a JSON pointer.
fn status(connection: &rusqlite::Connection, field: &str) -> serde_json::Value {
    let text: String = connection.query_row("PRAGMA kanban_status", [], |row| row.get(0)).unwrap();
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    status.pointer(field).unwrap_or_else(|| panic!("no {field} in {text}")).clone()
}

/// Runs one test of this program as the user nobody, from a copy that nobody may run.
fn as_nobody(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    };
    open(directory.path());
    let (program, client) = (directory.path().join("tests"), directory.path().join("agent"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::copy(crate::rust_agent(), &client).unwrap();
    let status = {
        use std::os::unix::process::CommandExt;
        std::process::Command::new(&program)
            .args(["--exact", test])
            .env("KANBAN_RUST_AGENT", &client)
            .uid(65534)
            .gid(65534)
            .current_dir("/")
            .status()
            .unwrap()
    };
    assert!(status.success());
}

/// Like [`status`], on a connection of a client.
fn status_of(client: &mut Agent, name: &str, field: &str) -> serde_json::Value {
    let status = client.sql(name, "PRAGMA kanban_status").rows();
    let status: serde_json::Value = serde_json::from_str(status[0][0].as_str().unwrap()).unwrap();
    status.pointer(field).unwrap_or_else(|| panic!("no {field} in {status}")).clone()
}

/// `board.db-shm` and the like.
fn beside(board: &Board, suffix: &str) -> PathBuf {
    let mut path = board.path().into_os_string();
    path.push(suffix);
    path.into()
}

fn went_well(reply: &Reply) -> bool {
    matches!(reply, Reply::Rows(_))
}

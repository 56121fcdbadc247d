//! Machinery for the tests: clients in their own processes, driven line by line, so that a test
//! says who does what in which order.

pub mod base;
#[cfg(target_os = "linux")]
pub mod differential;
#[cfg(unix)]
pub mod fuzz;
#[cfg(unix)]
pub mod needs;
#[cfg(unix)]
pub mod observers;
#[cfg(unix)]
pub mod pause;
#[cfg(unix)]
pub mod power_loss;
#[cfg(unix)]
pub mod sidecar;
#[cfg(unix)]
pub mod soak;
#[cfg(unix)]
pub mod top;
#[cfg(unix)]
pub mod trace;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than any wait of a test on a loaded machine. A test that exceeds it has hung.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Rust, linked with the newest SQLite; the crate registers the VFS.
    Rust,
    /// Debian's Python with Debian's SQLite 3.40.1; the VFS is loaded as an extension.
    Python,
}

impl Program {
    /// Both programs.
    pub const ALL: [Self; 2] = [Self::Rust, Self::Python];
}

/// SQLite's own VFS.
pub const STOCK_VFS: &str = if cfg!(windows) { "win32" } else { "unix" };

/// Debian's Python, whatever comes first in the PATH.
pub const PYTHON: &str = "/usr/bin/python3";

/// The client in Python.
const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent.py");

/// What a process has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its next line.
    Line(String),
    /// It has closed its output without a further line, like a process that ends.
    End,
    /// Nothing yet.
    Nothing,
}

/// A process that reads and writes lines. Killed with SIGKILL when dropped.
pub struct Lines {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Lines {
    /// Starts the process.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { input: child.stdin.take(), child, output }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line to the process.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("open until dropped");
        writeln!(input, "{line}").expect("the program reads");
    }

    /// Its next line.
    ///
    /// # Panics
    /// If none comes in [`PATIENCE`].
    #[track_caller]
    pub fn hear(&mut self) -> String {
        self.hear_within(PATIENCE).expect("the program hangs")
    }

    /// Like [`Self::hear`]; `None` if it takes longer than `limit`.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn hear_within(&mut self, limit: Duration) -> Option<String> {
        match self.output.recv_timeout(limit) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the program has ended"),
        }
    }

    /// Like [`Self::say`]; false if the process has ended.
    pub fn try_say(&mut self, line: &str) -> bool {
        self.input.as_mut().is_some_and(|input| writeln!(input, "{line}").is_ok())
    }

    /// What it writes within `limit`.
    #[must_use]
    pub fn hear_or(&mut self, limit: Duration) -> Heard {
        match self.output.recv_timeout(limit) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Its next line; `None` if it ended without one.
    ///
    /// # Panics
    /// If neither happens in [`PATIENCE`].
    #[track_caller]
    pub fn hear_last(&mut self) -> Option<String> {
        match self.output.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => panic!("the program hangs"),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Closes its input. Returns its status if it ends by itself within `limit`.
    ///
    /// # Panics
    /// If waiting for it fails.
    pub fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.input = None;
        let began = Instant::now();
        loop {
            let status = self.child.try_wait().expect("it is our child");
            if status.is_some() || began.elapsed() > limit {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process with SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    /// If waiting for it fails.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client process. Killed with SIGKILL when dropped.
pub struct Agent(Lines);

/// The answer of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Success; with the rows, for a query.
    Rows(Vec<Vec<Value>>),
    /// SQLite's error: the extended code (0 in Python before 3.11) and the message.
    Error {
        /// <https://www.sqlite.org/rescode.html>
        code: i64,
        /// `sqlite3_errmsg`
        message: String,
    },
}

impl Reply {
    /// The rows.
    ///
    /// # Panics
    /// If it is an error.
    #[track_caller]
    pub fn rows(self) -> Vec<Vec<Value>> {
        match self {
            Self::Rows(rows) => rows,
            Self::Error { code, message } => panic!("error {code}: {message}"),
        }
    }

    /// The error's primary code.
    ///
    /// # Panics
    /// If it is no error.
    #[track_caller]
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::Rows(rows) => panic!("no error but {rows:?}"),
            Self::Error { code, .. } => code & 0xff,
        }
    }

    /// The error's message.
    ///
    /// # Panics
    /// If it is no error.
    #[track_caller]
    #[must_use]
    pub fn message(self) -> String {
        match self {
            Self::Rows(rows) => panic!("no error but {rows:?}"),
            Self::Error { message, .. } => message,
        }
    }
}

/// Removes the variables for the tests from a client's environment: the client would log that they
/// are unknown.
fn remove_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KANBAN_") {
            command.env_remove(name);
        }
    }
}

impl Agent {
    /// Starts a client. `rust_agent` is the path of the `agent` binary, which only a test knows:
    /// `env!("CARGO_BIN_EXE_agent")`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(program: Program, rust_agent: &str) -> Self {
        Self::start_in(program, rust_agent, Path::new("/"), &[])
    }

    /// Like [`Self::start`], but the client does not know this project's VFS until it gets the
    /// command `register`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_stock(program: Program, rust_agent: &str) -> Self {
        Self::start_in(program, rust_agent, Path::new("/"), &[("STOCK_AGENT", "1")])
    }

    /// Like [`Self::start`], with the library `clock.c`, which shows the client another time.
    /// `still`: the clock stands. `runs`: it gains a second at each look. A number: by how many
    /// seconds it is ahead.
    ///
    /// # Panics
    /// If it does not start.
    #[cfg(unix)]
    #[must_use]
    pub fn start_with_clock(program: Program, rust_agent: &str, shown: &str) -> Self {
        let variables = [("LD_PRELOAD", env!("SHOWN_CLOCK")), ("SHOWN", shown)];
        Self::start_in(program, rust_agent, Path::new("/"), &variables)
    }

    /// Like [`Self::start`], in a time namespace whose monotonic clock is `ahead` seconds ahead;
    /// `None` if this user may not make one. time_namespaces(7), unshare(1)
    ///
    /// # Panics
    /// If it does not start.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn start_in_time_namespace(rust_agent: &str, ahead: i32) -> Option<Self> {
        let ahead = ahead.to_string();
        let mut unshare = vec!["--time", "--monotonic", &ahead];
        if !is_root() {
            unshare.extend(["--user", "--map-root-user"]);
        }
        let command = |program: &str| {
            let mut command = Command::new("unshare");
            command.args(&unshare).arg(program).current_dir("/");
            command
        };
        command("true")
            .output()
            .is_ok_and(|output| output.status.success())
            .then(|| Self(Lines::start(command(rust_agent))))
    }

    /// A client in Python, in its own pid namespace, where it is process 1, as in a container. Only
    /// root may make one. [`Self::pid`] is that of unshare(1), whose only child the client is.
    /// pid_namespaces(7)
    ///
    /// # Panics
    /// If it does not start.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn start_in_pid_namespace() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", PYTHON, AGENT]).arg(extension());
        remove_variables(&mut command);
        command.current_dir("/");
        Self(Lines::start(command))
    }

    /// Like [`Self::start`], with its own directory and environment variables.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_in(
        program: Program,
        rust_agent: &str,
        directory: &Path,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = match program {
            Program::Rust => Command::new(rust_agent),
            Program::Python => {
                assert!(
                    Path::new(PYTHON).exists(),
                    "the README names what the tests need: python3"
                );
                let mut command = Command::new(PYTHON);
                command.arg(AGENT).arg(extension());
                command
            }
        };
        remove_variables(&mut command);
        command.current_dir(directory).envs(variables.iter().copied());
        Self(Lines::start(command))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Sends the client a signal. kill(2)
    ///
    /// # Panics
    /// If it cannot be sent.
    #[cfg(unix)]
    pub fn signal(&self, signal: i32) {
        // SAFETY: the call only sends a signal, to a child of this process that nobody has waited for.
        assert_eq!(unsafe { libc::kill(self.pid().cast_signed(), signal) }, 0);
    }

    /// Sends a command and does not wait for the answer.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn send(&mut self, command: &Value) {
        self.0.say(&command.to_string());
    }

    /// The answer to the oldest command that has none yet.
    ///
    /// # Panics
    /// If none comes in [`PATIENCE`].
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.reply_within(PATIENCE).expect("the agent hangs")
    }

    /// Like [`Self::reply`]; `None` if it takes longer than `limit`.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn reply_within(&mut self, limit: Duration) -> Option<Reply> {
        let line = self.0.hear_within(limit)?;
        let mut value: Value = serde_json::from_str(&line).expect("agents speak JSON");
        Some(match value["error"].as_str() {
            Some(message) => Reply::Error {
                code: value["code"].as_i64().unwrap_or(0),
                message: message.to_owned(),
            },
            None => Reply::Rows(serde_json::from_value(value["rows"].take()).expect("rows")),
        })
    }

    /// Sends a command and waits for the answer.
    #[track_caller]
    pub fn call(&mut self, command: &Value) -> Reply {
        self.send(command);
        self.reply()
    }

    /// Opens `uri` as connection `name` with a busy timeout in ms.
    #[track_caller]
    pub fn open(&mut self, name: &str, uri: &str, timeout_ms: u32) {
        self.call(&json!(["open", name, uri, timeout_ms])).rows();
    }

    /// Like [`Self::open`], but leaves the busy timeout as it is.
    #[track_caller]
    pub fn try_open(&mut self, name: &str, uri: &str) -> Reply {
        self.call(&json!(["open", name, uri, null]))
    }

    /// Runs SQL on a connection.
    #[track_caller]
    pub fn sql(&mut self, name: &str, sql: &str) -> Reply {
        self.call(&json!(["sql", name, sql]))
    }

    /// Sends SQL for a connection and does not wait.
    pub fn send_sql(&mut self, name: &str, sql: &str) {
        self.send(&json!(["sql", name, sql]));
    }

    /// The result of what [`pause::Stops::begin`] started on a connection. Python only.
    #[track_caller]
    pub fn end(&mut self, name: &str) -> Reply {
        self.call(&json!(["end", name]))
    }

    /// Closes a connection.
    #[track_caller]
    pub fn close(&mut self, name: &str) {
        self.call(&json!(["close", name])).rows();
    }

    /// Opens a file, reads its first 16 bytes and closes it, as an application does with its own
    /// database. The close drops all POSIX locks that the process has on the file.
    #[track_caller]
    pub fn read(&mut self, path: &Path) {
        self.call(&json!(["read", path])).rows();
    }

    /// Forks a child, which has copies of all connections. [`Self::child`] sends commands to it.
    #[track_caller]
    pub fn fork(&mut self) {
        self.call(&json!(["fork"])).rows();
    }

    /// Sends a command to the child and waits for its answer.
    #[track_caller]
    pub fn child(&mut self, command: &Value) -> Reply {
        self.call(&json!(["child", command]))
    }

    /// Runs SQL on a connection of the child.
    #[track_caller]
    pub fn child_sql(&mut self, name: &str, sql: &str) -> Reply {
        self.child(&json!(["sql", name, sql]))
    }

    /// Lets the child exit as programs do, which closes what it has open. Returns its exit code.
    #[track_caller]
    pub fn end_child(&mut self) -> i64 {
        self.call(&json!(["end child"])).rows()[0][0].as_i64().expect("an exit code")
    }

    /// Kills the child.
    #[track_caller]
    pub fn kill_child(&mut self) {
        self.call(&json!(["kill child"])).rows();
    }

    /// The lines that SQLite logged since the last call. Rust only.
    #[track_caller]
    pub fn log(&mut self) -> Vec<String> {
        let rows = self.call(&json!(["log"])).rows();
        rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Kills the client with SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    /// If waiting for it fails.
    pub fn kill(self) {
        self.0.kill();
    }
}

/// A directory for one test, with the path of a board, which need not exist yet.
pub struct Board {
    directory: tempfile::TempDir,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// Creates a new directory.
    ///
    /// # Panics
    /// If there is no place for it.
    #[must_use]
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// The directory, without symbolic links.
    ///
    /// # Panics
    /// If it is gone.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        let path = self.directory.path().canonicalize().expect("it exists");
        // As SQLite shows it.
        path.to_str()
            .and_then(|path| path.strip_prefix(r"\\?\"))
            .map_or(path.clone(), PathBuf::from)
    }

    /// `board.db`
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory().join("board.db")
    }

    /// `board.db-lock`
    #[must_use]
    pub fn sidecar(&self) -> PathBuf {
        self.directory().join("board.db-lock")
    }

    /// `file:board.db?vfs=kanban`
    #[must_use]
    pub fn kanban(&self) -> String {
        self.uri("kanban")
    }

    /// `file:board.db?vfs=unix`, or `win32`
    #[must_use]
    pub fn stock(&self) -> String {
        self.uri(STOCK_VFS)
    }

    /// `file:board.db?vfs=...`
    #[must_use]
    pub fn uri(&self, vfs: &str) -> String {
        uri_of(&self.path(), vfs)
    }
}

/// `board.db-shm` and the like: the path with a suffix appended.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `file:path?vfs=...`, <https://www.sqlite.org/uri.html>
///
/// # Panics
/// If the path is not UTF-8.
#[must_use]
pub fn uri_of(path: &Path, vfs: &str) -> String {
    let path = path.to_str().expect("UTF-8");
    if cfg!(windows) {
        let slashes = path.replace('\\', "/");
        let root = if slashes.starts_with('/') { "//" } else { "///" };
        return format!("file:{root}{}?vfs={vfs}", slashes.replace('?', "%3f"));
    }
    format!("file:{path}?vfs={vfs}")
}

/// The loadable extension, built once per run from this tree, in release, with the features that
/// users build it with. Where there is no cargo, it is the one that `KANBAN_EXTENSION` names.
///
/// # Panics
/// If it cannot be built.
pub fn extension() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os("KANBAN_EXTENSION") {
        Some(built) => built.into(),
        None => built("kanban-vfs").join("libkanban_vfs.so"),
    })
}

/// The library for `LD_PRELOAD`, built at the first call, beside the extension.
#[must_use]
#[cfg(target_os = "linux")]
pub fn preload() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        assert!(extension().exists(), "it loads the extension");
        built("kanban-vfs-preload").join("libkanban_vfs_preload.so")
    })
}

/// Builds the library of a package of this workspace. Returns the directory that has the library.
fn built(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in the workspace");
    let target = root.join("target/extension");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--lib", "--package", package, "--target-dir"])
        .arg(&target)
        .current_dir(root)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{package} was not built: {said}");
    target.join("release")
}

/// Runs a program to its end.
///
/// # Panics
/// If it does not start, or fails.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?} {arguments:?}: {text}{errors}");
    text
}

/// Whether this process is root's.
#[must_use]
#[cfg(unix)]
pub fn is_root() -> bool {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

//! A worker as the runner sees it.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::protocol::{DIED, HANGS, Outcome, Request};

/// Longer than any step takes on a loaded machine, with the end of a child.
const PATIENCE_MS: i32 = 30_000;

/// How the workers of a side are started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable of this program.
    pub executable: std::path::PathBuf,
    /// The library that they load.
    pub sqlite: std::path::PathBuf,
    /// The extension, on our side.
    pub extension: Option<std::path::PathBuf>,
    /// The parameters of each URI, unless the schedule is plain.
    pub parameters: String,
}

/// A worker process. Killed when dropped.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a process for the databases in a directory, with URIs that have these parameters.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(program: &Program, directory: &Path, parameters: &str) -> Self {
        let mut command = Command::new(&program.executable);
        command.arg("worker").arg("--sqlite").arg(&program.sqlite);
        if let Some(extension) = &program.extension {
            command.arg("--extension").arg(extension);
        }
        // Steps come one at a time, so no wait could succeed.
        command.env("KANBAN_BUSY_TIMEOUT", "0");
        // Memory that is used after it was freed has other bytes: mallopt(3).
        command.env("MALLOC_PERTURB_", "165");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the worker starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, input, output };
        process.begin(directory, parameters);
        process
    }

    /// From now on the databases are in this directory, and URIs have these parameters. Returns
    /// whether the process is still alive.
    pub fn begin(&mut self, directory: &Path, parameters: &str) -> bool {
        self.send(&Request::Begin(directory.to_owned(), parameters.to_owned()));
        self.receive().code == 0
    }

    /// Sends a request to the process.
    ///
    /// # Panics
    /// If the request is no text.
    pub fn send(&mut self, request: &Request) {
        let mut line = serde_json::to_vec(request).expect("it is text");
        line.push(b'\n');
        // If the process has died, that is noticed when it does not answer.
        let _ = self.input.write_all(&line);
    }

    /// Its answer; if there is none, an outcome that says why.
    ///
    /// # Panics
    /// If the answer cannot be parsed.
    pub fn receive(&mut self) -> Outcome {
        let mut poll = libc::pollfd {
            fd: self.output.get_ref().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor, which is open.
        if unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) } == 0 {
            let message = "no answer".to_owned();
            return Outcome { code: HANGS, message, ..Outcome::default() };
        }
        let mut line = String::new();
        if self.output.read_line(&mut line).unwrap_or(0) == 0 {
            let status = self.child.wait().expect("a child");
            let message = format!("it ended: {status} {:?}", status.signal());
            return Outcome { code: DIED, message, ..Outcome::default() };
        }
        serde_json::from_str(&line).expect("an outcome")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The clients as processes: how they are started, killed, stopped, and followed to their end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::diary::{Line, Reader};
use super::worker::Role;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rust, with the newest SQLite.
    Rust(Role),
    /// Debian's Python with 3.40.1, with the extension, or as a stock client without.
    Python {
        /// Whether it loads the extension.
        extension: bool,
        /// Whether it has children.
        forks: bool,
    },
}

impl Kind {
    /// The clients of a board. If `writers`, they are writers only.
    #[must_use]
    pub fn crew(processes: usize, writers: bool) -> Vec<Self> {
        use Kind::{Python, Rust};
        const OURS: Kind = Python { extension: true, forks: false };
        const STOCK: Kind = Python { extension: false, forks: false };
        const FORKS: Kind = Python { extension: true, forks: true };
        let mut crew = vec![Rust(Role::Writer), Rust(Role::Stock), STOCK, Rust(Role::Threads)];
        crew.extend([OURS, Rust(Role::Prober), Rust(Role::Writer)]);
        if !writers {
            let others = [Role::Elder, Role::Checkpointer, Role::LongReader, Role::Maintainer];
            crew.extend(others.map(Rust));
            let others = [Role::Reader, Role::StockReader, Role::StockCheckpointer];
            crew.extend(others.map(Rust));
            crew.push(FORKS);
        }
        let more = [Role::Writer, Role::Writer, Role::Writer, Role::Stock].map(Rust);
        crew.extend(more.iter().cycle().take(processes.saturating_sub(crew.len())));
        crew.truncate(processes);
        crew
    }

    /// The same without the extension, and without children, which would write by connections that
    /// they inherited.
    #[must_use]
    pub fn on_stock(self) -> Self {
        match self {
            Self::Python { .. } => Self::Python { extension: false, forks: false },
            rust => rust,
        }
    }

    /// The same, with no connection on the stock VFS.
    #[must_use]
    pub fn on_ours(self) -> Self {
        use Role::{
            Checkpointer, Elder, Prober, Reader, Stock, StockCheckpointer, StockReader, Threads,
            Writer,
        };
        match self {
            Self::Python { forks, .. } => Self::Python { extension: true, forks },
            Self::Rust(Stock | Threads | Elder | Prober) => Self::Rust(Writer),
            Self::Rust(StockReader) => Self::Rust(Reader),
            Self::Rust(StockCheckpointer) => Self::Rust(Checkpointer),
            rust => rust,
        }
    }

    /// Whether it may be killed.
    #[must_use]
    pub fn is_mortal(self) -> bool {
        self != Self::Rust(Role::Elder)
    }
}

/// What a new process must know.
pub struct Birth<'a> {
    /// The program of Rust clients.
    pub program: &'a Path,
    /// The directory of the run.
    pub directory: &'a Path,
    /// Its seed.
    pub seed: u64,
    /// The number of its first connection.
    pub first: u64,
    /// After how many steps the process ends.
    pub steps: u64,
    /// Its busy timeout, in ms.
    pub timeout: u64,
    /// Whether it uses the stock VFS, whatever its kind.
    pub stock: bool,
}

/// A process, and the diaries of its connections.
pub struct Process {
    /// Of which kind.
    pub kind: Kind,
    child: Child,
    /// Whether the parent killed it.
    pub killed: bool,
    /// Until when it is stopped.
    pub stopped: Option<Instant>,
    /// When it last said something.
    pub heard: Instant,
    diaries: PathBuf,
    /// `None` if nothing more will come.
    readers: BTreeMap<u64, Option<Reader>>,
}

impl Process {
    /// Starts the process.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(kind: Kind, birth: &Birth<'_>) -> Self {
        let diaries = birth.directory.join("diaries").join(birth.first.to_string());
        std::fs::create_dir_all(&diaries).expect("a place for diaries");
        let board = birth.directory.join("board.db");
        let [first, seed, steps, timeout] =
            [birth.first, birth.seed, birth.steps, birth.timeout].map(|n| n.to_string());
        let mut command = match kind {
            Kind::Rust(role) => {
                let role = clap::ValueEnum::to_possible_value(&role).expect("all have names");
                let mut command = Command::new(birth.program);
                command.arg("worker").arg(role.get_name()).arg(&board).arg(&diaries);
                command.args([first, seed, steps, timeout]);
                command.args(birth.stock.then_some("--stock"));
                command
            }
            Kind::Python { extension, forks } => {
                let vfs = if extension { "kanban" } else { "unix" };
                let mut command = Command::new(crate::PYTHON);
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/soak/worker.py"));
                match extension {
                    true => command.arg(crate::extension()),
                    false => command.arg(""),
                };
                command.arg(format!("file:{}?vfs={vfs}", board.display())).arg(&diaries);
                command.args([first, steps, timeout]);
                command.arg(if forks { "forks" } else { "alone" });
                command
            }
        };
        let said = File::create(diaries.with_extension("stderr")).expect("a place");
        // Its stdout, to which it never writes, ends when the process and all of its children are
        // gone.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said);
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().expect("a client starts");
        let output = child.stdout.as_ref().expect("piped").as_raw_fd();
        // SAFETY: an open descriptor.
        unsafe { libc::fcntl(output, libc::F_SETFL, libc::O_NONBLOCK) };
        let heard = Instant::now();
        let readers = BTreeMap::new();
        Self { kind, child, killed: false, stopped: None, heard, diaries, readers }
    }

    /// Sends a signal to the process, if it runs.
    pub fn signal(&mut self, signal: i32) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: it only sends a signal, to a child that was not waited for.
            unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        }
    }

    /// Whether the process has ended; its children may still run.
    ///
    /// # Errors
    /// If it ended with a failure, and was not killed by the parent.
    pub fn has_ended(&mut self) -> Result<bool, String> {
        let Ok(Some(status)) = self.child.try_wait() else { return Ok(false) };
        let ours = self.killed && status.signal() == Some(libc::SIGKILL);
        if status.success() || ours {
            return Ok(true);
        }
        let said = std::fs::read_to_string(self.diaries.with_extension("stderr"));
        Err(format!("{:?} has ended: {status}: {}", self.kind, said.unwrap_or_default()))
    }

    /// Whether no process is left that could write.
    ///
    /// # Errors
    /// As [`Self::has_ended`].
    pub fn is_gone(&mut self) -> Result<bool, String> {
        let silent = match self.child.stdout.as_mut().expect("piped").read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        Ok(self.has_ended()? && silent)
    }

    /// What its connections wrote since the last call.
    ///
    /// # Panics
    /// If its diaries cannot be read.
    pub fn lines(&mut self) -> Vec<(u64, Line)> {
        for entry in std::fs::read_dir(&self.diaries).expect("they were not removed") {
            let path = entry.expect("it can be read").path();
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.parse().ok()).expect("a number");
            if !self.readers.contains_key(&id) {
                self.readers.extend(Reader::open(&path).map(|reader| (id, Some(reader))));
            }
        }
        let mut lines = Vec::new();
        for (id, reader) in &mut self.readers {
            let said = reader.as_mut().map_or_else(Vec::new, Reader::lines);
            if said.last() == Some(&Line::Quit) {
                *reader = None;
            }
            lines.extend(said.into_iter().map(|line| (*id, line)));
        }
        if !lines.is_empty() {
            self.heard = Instant::now();
        }
        lines
    }

    /// The numbers of its connections, without those that have quit.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        let open = self.readers.iter().filter(|(_, reader)| reader.is_some());
        open.map(|(id, _)| *id).collect()
    }

    /// How many descriptors it has.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).map_or(0, |entries| entries.count() as u64)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Processes as an operator knows them: their command, their user, and whether they run.

use std::fmt;

use crate::sys;

/// A process that has to do with a database, as proc(5) shows it. Fields that this user may not
/// know are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its process id, in the pid namespace of the process that asks.
    pub pid: u32,
    /// The name of its program.
    pub program: Option<String>,
    /// Its command line: the first 200 characters, with question marks for control characters.
    pub command: Option<String>,
    /// The user it runs as: the name in passwd(5) or, if there is none, the number.
    pub user: Option<String>,
    /// Whether it runs, sleeps or is stopped.
    pub state: Option<ProcessState>,
    /// Its process id in its own pid namespace, if that differs, as in a container.
    /// pid_namespaces(7)
    pub own_pid: Option<u32>,
    /// Whether the kernel confirms that it is this process. Otherwise it was found by the process
    /// id and the program name that a holder or waiter wrote into the sidecar.
    pub is_confirmed: bool,
}

impl ProcessInfo {
    /// The process of that id.
    pub(super) fn of(pid: u32, is_confirmed: bool) -> Self {
        let details = sys::details_of(pid);
        Self {
            pid,
            program: sys::program_of(pid),
            command: details.command,
            user: details.user,
            state: details.state.and_then(ProcessState::of),
            own_pid: details.own_pid.filter(|own| *own != pid),
            is_confirmed,
        }
    }

    /// Whether it is stopped until a signal or a debugger lets it go on.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, Some(ProcessState::Stopped | ProcessState::Traced))
    }
}

/// What a process does. proc(5), `State` in /proc/PID/status
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessState {
    /// It runs, or is ready to run.
    Running,
    /// It waits for something.
    Sleeping,
    /// It waits for a disk or another device, and no signal reaches it.
    Blocked,
    /// A signal has stopped it (SIGSTOP, SIGTSTP), until SIGCONT.
    Stopped,
    /// A debugger has stopped it.
    Traced,
    /// A zombie: it has ended, and its parent has not waited for it. Its other threads may still
    /// run.
    Ended,
}

impl ProcessState {
    /// The state that this letter stands for.
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'R' => Self::Running,
            'S' | 'I' => Self::Sleeping,
            'D' => Self::Blocked,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'Z' | 'X' => Self::Ended,
            _ => return None,
        })
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Blocked => "blocked",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Ended => "ended",
        })
    }
}

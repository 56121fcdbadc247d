//! `kanban-vfs`: looks at, checks and exercises databases that are used through the VFS `kanban`.
//!
//! | command | touches |
//! |---|---|
//! | `status`, `watch` | the sidecar and the wal-index, to read; never the database or its WAL |
//! | `log` | the event log, to read |
//! | `metrics` | the event log, which it makes if there is none; the sidecar and the wal-index, to read |
//! | `check` | all files, to read; its read transaction disturbs no other client |
//! | `stress`, `bench` | boards of their own |
//! | `run` | nothing: it becomes another program |
//!
//! Exit status: 0 all is well; 1 a problem was found; 2 nothing can be said (a wrong argument, no
//! such file, no permission). 3, of `check` only: the board is sound, but its WAL grows. With
//! `--json`, errors are JSON, too, on standard output.

mod bench;
mod check;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the benchmark's, too")]
mod contention;
mod displaced;
mod facts;
mod json;
mod kind;
mod log;
mod metrics;
mod printable;
mod run;
mod status;
mod stress;
mod svg;
mod text;
mod time;
mod timeline;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use printable::printable;

/// Errors are texts for people.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Looks at, checks and exercises SQLite databases that are used through the VFS kanban.
#[derive(Parser)]
#[command(name = "kanban-vfs", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the locks and their holders, the waiters, the readers, the clients, and the sizes of the files.
    ///
    /// Reads the sidecar, the wal-index, and what the kernel tells about other processes. Never
    /// opens a database that is in use, and never waits. Exit status 2 if the file is no database;
    /// `check` looks into it.
    Status {
        board: PathBuf,
        /// As a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// The same, live, until q is pressed.
    ///
    /// Without a terminal, one line per interval. `?` explains what is shown.
    Watch {
        board: PathBuf,
        /// How often the display is updated, in ms.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..))]
        interval: u64,
        /// End after this number of intervals.
        #[arg(long)]
        count: Option<u64>,
        /// As JSON objects, one per interval and line; also on a terminal.
        #[arg(long)]
        json: bool,
    },
    /// Whether the sidecar, the files and their content are in order.
    ///
    /// The last step is PRAGMA quick_check through the VFS, in one read transaction. Exit status 0:
    /// ok; 1: problems found; 2: cannot be checked; 3: ok, but the WAL grows, and the output says
    /// why.
    Check {
        board: PathBuf,
        /// As a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// What has happened, and when: long holds of the write lock, refusals with their reasons,
    /// holders that died.
    ///
    /// Reads the event log beside the board, which clients create when there is something to
    /// record. Never opens the board.
    Log(log::Arguments),
    /// The counters and the present state of boards, for Prometheus: histograms of waits and holds,
    /// refusals, checkpoints.
    ///
    /// Creates the event log beside each board that has none; its clients count in it from then on.
    /// Exit status 1 if that fails.
    Metrics(metrics::Arguments),
    /// Runs a burst of writers, and checks that every acknowledged row is there afterwards.
    Stress(stress::Arguments),
    /// Starts an application, unchanged, with this VFS as the default one, also in all programs
    /// that it starts.
    ///
    /// Reaches every SQLite that is linked dynamically, Node's, and those of a Python that has the
    /// package kanban_vfs. A process that uses a database without this VFS says so once, on standard
    /// error.
    Run(Box<run::Arguments>),
    /// Measures waits and throughput of the stock VFS, an application's flock and this VFS, side by
    /// side.
    Bench(bench::Arguments),
    /// Be one of stress's writers.
    #[command(hide = true)]
    StressWriter(stress::Orders),
}

fn main() -> ExitCode {
    // This process is a worker of `bench`.
    let arguments: Vec<_> = std::env::args_os().map(|text| text.into_string()).collect();
    if let [_, Ok(worker), Ok(orders), ..] = &arguments[..]
        && worker == "--worker"
    {
        return end(contention::obey(orders).map(|()| true).map_err(|e| e.to_string().into()));
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    end(match arguments.command {
        Command::Status { board, json } => told(Some(&board), json, status::run(&board, json)),
        Command::Watch { board, interval, count, json } => {
            told(Some(&board), json, watch::run(&board, interval, count, json))
        }
        Command::Check { board, json } => return check::run(&board, json),
        Command::Log(arguments) => {
            told(Some(arguments.board()), arguments.json, log::run(&arguments))
        }
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Stress(arguments) => {
            let done = stress::run(&arguments);
            told(arguments.board.as_deref(), arguments.json, done)
        }
        Command::Bench(arguments) => told(None, arguments.json, bench::run(&arguments)),
        Command::Run(arguments) => run::run(&arguments),
        Command::StressWriter(orders) => stress::obey(&orders),
    })
}

/// The exit status for wrong arguments, or for a question for help. With `--json`, an error is
/// JSON.
fn refuse(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    if is_json && error.use_stderr() {
        let text = error.to_string();
        let text = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        let _ = say(&format!("{:#}\n", json::error(None, &text)));
        return ExitCode::from(2);
    }
    error.exit()
}

/// Passes on a command's result. With `as_json`, also writes an error to standard output.
fn told(board: Option<&Path>, as_json: bool, done: Result<bool>) -> Result<bool> {
    if let (true, Err(error)) = (as_json, &done) {
        say(&format!("{:#}\n", json::error(board, error)))?;
    }
    done
}

/// The exit status of a command's result.
fn end(done: Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Writes an error to standard error.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "kanban-vfs: {}", printable(text));
}

/// Looks at a board; the error names it.
fn observe(board: &Path) -> Result<kanban_vfs::observation::Observation> {
    kanban_vfs::observe(board).map_err(|error| format!("{}: {error}", board.display()).into())
}

/// Like [`observe`], but also fails if the file is no database, as far as that shows without
/// opening a database that is in use.
fn observe_board(board: &Path) -> Result<kanban_vfs::observation::Observation> {
    let seen = observe(board)?;
    match kind::not_a_database(&seen) {
        Some(why) => Err(format!("{}: {why}", board.display()).into()),
        None => Ok(seen),
    }
}

/// Writes a command's output. A closed pipe is no error.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The connection string of a board through a VFS, <https://www.sqlite.org/uri.html>.
fn uri(board: &Path, vfs: &str) -> String {
    // SQLite decodes the URI to bytes, so a name need not be UTF-8.
    let path: String = board
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                char::from(*byte).to_string()
            }
            _ => format!("%{byte:02x}"),
        })
        .collect();
    format!("file:{path}?vfs={vfs}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The man page's source.
    const PAGE: &str = include_str!("../kanban-vfs.1");

    /// The part of the man page that describes a command.
    fn part_of(command: &str) -> String {
        let commands = PAGE.split(".SH COMMANDS").nth(1).expect("it has commands");
        let commands = commands.split(".SH ").next().expect("they end");
        let begins = |line: &str| {
            [".BI ", ".B "].iter().any(|font| {
                let name = line.strip_prefix(font).and_then(|rest| rest.split(' ').next());
                name == Some(command)
            })
        };
        let mut lines = commands.lines().skip_while(|line| !begins(line));
        let first = lines.next().unwrap_or_else(|| panic!("{command} is not described"));
        let mut depth = 0;
        let rest = lines.take_while(|line| {
            depth += i32::from(*line == ".RS");
            let is_the_end = *line == ".RE" || (*line == ".TP" && depth == 0);
            !is_the_end
        });
        let text: Vec<_> = std::iter::once(first).chain(rest).collect();
        text.join("\n").replace("\\-", "-")
    }

    /// The words of a text that are long options.
    fn options(text: &str) -> Vec<String> {
        let is_of_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let words = text.split(|c: char| !is_of_name(c));
        let mut options: Vec<_> =
            words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect();
        options.retain(|option| !option.is_empty());
        options.sort();
        options.dedup();
        options
    }

    /// A reader of the man page finds each option of each command, and no option that does not
    /// exist.
    #[test]
    fn the_man_page_has_all_options() {
        let tool = Arguments::command();
        for command in tool.get_subcommands().filter(|command| !command.is_hide_set()) {
            let mut expected: Vec<_> =
                command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
            expected.retain(|option| option != "help" && option != "version");
            expected.sort();
            assert_eq!(options(&part_of(command.get_name())), expected, "{}", command.get_name());
        }
    }
}

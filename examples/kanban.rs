//! A small kanban board on the VFS: tasks with dependencies, claimed and completed by worker
//! processes that share one database file.
//!
//!     cargo run --release --example kanban -- smoke

#[path = "kanban/board.rs"]
mod board;
#[path = "kanban/columns.rs"]
mod columns;
#[path = "kanban/processes.rs"]
mod processes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use board::{Board, Result};

/// A kanban board in a SQLite file that many processes write.
#[derive(Parser)]
struct Arguments {
    /// The board; made if there is none.
    #[arg(long, global = true, default_value = "board.db")]
    board: PathBuf,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Add a task.
    Create {
        title: String,
        /// A task that must be done before (may be repeated).
        #[arg(long, value_name = "TASK")]
        needs: Vec<i64>,
    },
    /// List the tasks.
    List {
        /// ready, running, done or failed
        #[arg(long)]
        status: Option<String>,
    },
    /// Print the columns of the board, as wide as the terminal (or COLUMNS says).
    Board {
        /// The board; as --board.
        path: Option<PathBuf>,
    },
    /// Show one task, what it needs, and what has happened to it.
    Show { task: i64 },
    /// Claim a task: the given one, or the oldest that can run.
    Claim {
        #[arg(long)]
        worker: String,
        task: Option<i64>,
    },
    /// Say that a worker is still at its task.
    Heartbeat {
        #[arg(long)]
        worker: String,
        task: i64,
    },
    /// End a task well.
    Complete {
        #[arg(long)]
        worker: String,
        task: i64,
    },
    /// End a task badly.
    Fail {
        #[arg(long)]
        worker: String,
        task: i64,
    },
    /// Start worker processes that claim and complete tasks until none can run.
    Dispatch {
        #[arg(long, default_value_t = 4)]
        workers: usize,
    },
    /// Be one of dispatch's workers.
    #[command(hide = true)]
    Work { worker: String },
    /// 8 processes create 40 tasks each, on a new board; exit status 1 if anything is off.
    Smoke {
        #[arg(long, default_value_t = 8)]
        workers: usize,
        #[arg(long, default_value_t = 40)]
        tasks: usize,
    },
    /// Be one of smoke's workers.
    #[command(hide = true)]
    CreateMany { worker: usize, tasks: usize },
}

fn main() -> ExitCode {
    let Arguments { board, command } = Arguments::parse();
    match run(&board, command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kanban: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn run(path: &Path, command: Action) -> Result<bool> {
    match command {
        Action::Create { title, needs } => {
            let id = Board::open(path)?.create(&title, &needs)?;
            println!("task {id} created");
        }
        Action::List { status } => {
            for task in Board::open(path)?.list(status.as_deref())? {
                let worker = task.worker.map(|worker| format!(" ({worker})")).unwrap_or_default();
                println!("{:>5}  {:<8} {}{worker}", task.id, task.status, task.title);
            }
        }
        Action::Board { path: other } => {
            let path = other.as_deref().unwrap_or(path);
            let columns = columns::Columns::of(Board::open_to_look(path)?.list(None)?);
            print!("{}", columns.text(columns::width(), console::colors_enabled()));
        }
        Action::Show { task: id } => {
            let board = Board::open(path)?;
            let Some(task) = board.list(None)?.into_iter().find(|task| task.id == id) else {
                return Err(format!("there is no task {id}").into());
            };
            println!("task {id}: {} ({})", task.title, task.status);
            for other in board.needs(id)? {
                println!("  needs task {other}");
            }
            for (at_ms, what) in board.events(id)? {
                println!("  {}.{:03}  {what}", at_ms / 1000, at_ms % 1000);
            }
        }
        Action::Claim { worker, task } => match Board::open(path)?.claim(task, &worker)? {
            Some(id) => println!("task {id} claimed by {worker}"),
            None => {
                println!("nothing to claim");
                return Ok(false);
            }
        },
        Action::Heartbeat { worker, task } => {
            return say(Board::open(path)?.heartbeat(task, &worker)?, task, "goes on", &worker);
        }
        Action::Complete { worker, task } => {
            return say(Board::open(path)?.end(task, &worker, "done")?, task, "done", &worker);
        }
        Action::Fail { worker, task } => {
            return say(Board::open(path)?.end(task, &worker, "failed")?, task, "failed", &worker);
        }
        Action::Dispatch { workers } => return dispatch(path, workers),
        Action::Work { worker } => {
            let mut board = Board::open(path)?;
            while let Some(id) = board.claim(None, &worker)? {
                processes::report_claim(&board, id)?;
                if !(board.heartbeat(id, &worker)? && board.end(id, &worker, "done")?) {
                    return Err(format!("{worker} lost task {id}").into());
                }
                processes::report_step();
            }
            processes::report_end(&board);
        }
        Action::Smoke { workers, tasks } => return smoke(workers, tasks),
        Action::CreateMany { worker, tasks } => {
            let mut board = Board::open(path)?;
            for n in 1..=tasks {
                board.create(&format!("task {n} of worker {worker}"), &[])?;
                processes::report_step();
            }
            processes::report_end(&board);
        }
    }
    Ok(true)
}

fn say(changed: bool, task: i64, what: &str, worker: &str) -> Result<bool> {
    if changed {
        println!("task {task} {what}");
    } else {
        println!("task {task} is not {worker}'s");
    }
    Ok(changed)
}

fn dispatch(path: &Path, workers: usize) -> Result<bool> {
    let board = Board::open(path)?;
    let waiting = board.list(Some("ready"))?.len();
    let outcome = processes::run_shown(path, workers, waiting as u64, |n| {
        vec!["work".to_owned(), format!("worker-{n}")]
    })?;
    println!(
        "{} tasks done by {workers} workers in {:.1?}, longest wait {:.1?}",
        outcome.steps, outcome.elapsed, outcome.longest_wait
    );
    Ok(outcome.failed_workers == 0)
}

fn smoke(workers: usize, tasks: usize) -> Result<bool> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("board.db");
    let expected = workers * tasks;
    let outcome = processes::run(&path, workers, expected as u64, |n| {
        vec!["create-many".to_owned(), n.to_string(), tasks.to_string()]
    })?;
    let board = Board::open(&path)?;
    let quick = board.text("PRAGMA quick_check")?;
    let integrity = board.text("PRAGMA integrity_check")?;
    let journal = board.text("PRAGMA journal_mode")?;
    let count = board.number("SELECT count(*) FROM tasks")?;
    let events = board.number("SELECT count(*) FROM events")?;
    println!(
        "quick_check={quick} integrity_check={integrity} tasks={count} journal={journal} \
         elapsed={:.3}s longest_wait={:.1}ms",
        outcome.elapsed.as_secs_f64(),
        outcome.longest_wait.as_secs_f64() * 1000.0
    );
    Ok(outcome.failed_workers == 0
        && (&*quick, &*integrity, &*journal) == ("ok", "ok", "wal")
        && [count, events] == [i64::try_from(expected)?; 2])
}

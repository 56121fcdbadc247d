//! What the VFS costs those who come and go, and those who keep many boards open:
//!
//! - short-lived workers: processes that open the board, write once and close it, 16 at a time;
//! - one connection's life: instructions and system calls of open, one write, and close;
//! - a process with a thousand boards: descriptors, memory and time for each.
//!
//!     cargo bench --bench lifecycle
//!
//! valgrind and strace must be installed. `-- --rounds 1 --boards 50` is a short run.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::Parser;
use rusqlite::Connection;

use counted::{Counter, calls, instructions};

mod counted;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many workers there are at a time, and how many come after each other in the place of each.
const WORKERS: (usize, usize) = (16, 25);

/// Lives of the shorter and the longer run that are counted; what differs between them is the lives'.
const LIVES: [usize; 2] = [20, 120];

const VFSES: [&str; 2] = ["unix", "kanban"];

#[derive(Parser)]
struct Arguments {
    /// How often each measurement in time is repeated, in turns; the medians are printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How many boards one process opens.
    #[arg(long, default_value_t = 1000)]
    boards: usize,
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What a process of its own does.
#[derive(clap::Subcommand)]
enum Part {
    /// Opens the board, writes once, closes it, as often as told.
    #[command(hide = true)]
    Lives { vfs: String, board: String, count: usize },
    /// Opens that many boards of a directory and says what that took.
    #[command(hide = true)]
    Boards { vfs: String, directory: String, count: usize },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.part {
        Some(Part::Lives { vfs, board, count }) => {
            register(vfs)?;
            (0..*count).try_for_each(|_| live(vfs, board))
        }
        Some(Part::Boards { vfs, directory, count }) => boards(vfs, directory, *count),
        None => {
            workers(arguments.rounds)?;
            lives()?;
            many_boards(&arguments)
        }
    }
}

fn register(vfs: &str) -> Result<()> {
    // It replaces system calls of the stock VFS, too.
    if vfs == "kanban" {
        kanban_vfs::register(&kanban_vfs::Options::default())?;
    }
    Ok(())
}

fn open(vfs: &str, board: &str) -> Result<Connection> {
    let connection = Connection::open(format!("file:{board}?vfs={vfs}"))?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(connection)
}

fn live(vfs: &str, board: &str) -> Result<()> {
    let connection = open(vfs, board)?;
    connection
        .execute_batch("PRAGMA synchronous=normal; INSERT INTO events (what) VALUES ('done')")?;
    Ok(())
}

/// A new board in WAL mode.
fn create(vfs: &str, board: &str) -> Result<Connection> {
    let connection = open(vfs, board)?;
    connection.execute_batch(
        "PRAGMA journal_mode=wal; PRAGMA synchronous=normal;
         CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT)",
    )?;
    Ok(connection)
}

fn myself(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Short-lived workers beside a dispatcher, which keeps the board open.
fn workers(rounds: usize) -> Result<()> {
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (vfs, seconds) in VFSES.iter().zip(&mut seconds) {
            let directory = tempfile::tempdir()?;
            let board = directory.path().join("board.db").display().to_string();
            register(vfs)?;
            let dispatcher = create("unix", &board)?;
            let began = Instant::now();
            let worker = || Ok(myself(&["lives", vfs, &board, "1"])?.spawn()?);
            let mut places = (0..WORKERS.0).map(|_| worker()).collect::<Result<Vec<Child>>>()?;
            for _ in 1..WORKERS.1 {
                for place in &mut places {
                    assert!(place.wait()?.success());
                    *place = worker()?;
                }
            }
            for mut place in places {
                assert!(place.wait()?.success());
            }
            seconds.push(began.elapsed().as_secs_f64());
            let count: i64 =
                dispatcher.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
            assert_eq!(count as usize, WORKERS.0 * WORKERS.1, "every worker's row is there");
        }
    }
    let [stock, kanban] = seconds.map(median);
    let each = 1e3 / (WORKERS.0 * WORKERS.1) as f64;
    println!("| median of {rounds} | stock | kanban | ratio |\n|---|---|---|---|");
    println!(
        "| a worker process that opens, writes once and closes, {} x {}, ms | {:.3} | {:.3} | {:.3} |",
        WORKERS.0,
        WORKERS.1,
        stock * each,
        kanban * each,
        kanban / stock
    );
    Ok(())
}

/// One connection's life, counted, on a board that another keeps open.
fn lives() -> Result<()> {
    for (what, count) in [("instructions", instructions as Counter), ("system calls", calls)] {
        let mut found = Vec::new();
        for vfs in VFSES {
            let counted = LIVES.map(|lives| -> Result<f64> {
                let directory = tempfile::tempdir()?;
                let board = directory.path().join("board.db").display().to_string();
                let _dispatcher = create("unix", &board)?;
                count(&["lives", vfs, &board, &lives.to_string()])
            });
            let [few, many] = counted;
            found.push((many? - few?) / (LIVES[1] - LIVES[0]) as f64);
        }
        println!(
            "| open, one write, close: {what} | {:.0} | {:.0} | {:.3} |",
            found[0],
            found[1],
            found[1] / found[0]
        );
    }
    Ok(())
}

fn many_boards(arguments: &Arguments) -> Result<()> {
    for vfs in VFSES {
        let directory = tempfile::tempdir()?;
        let count = arguments.boards.to_string();
        let status =
            myself(&["boards", vfs, &directory.path().display().to_string(), &count])?.status()?;
        assert!(status.success());
    }
    Ok(())
}

/// Descriptors, and resident memory in KiB, of this process.
fn taken() -> Result<(usize, u64)> {
    let descriptors = Path::new("/proc/self/fd").read_dir()?.count();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.split_whitespace().next());
    Ok((descriptors, resident.ok_or("no VmRSS")?.parse()?))
}

fn boards(vfs: &str, directory: &str, count: usize) -> Result<()> {
    register(vfs)?;
    let name = |n: usize| format!("{directory}/{n}.db");
    for n in 0..count {
        create(vfs, &name(n))?;
    }
    let before = taken()?;
    let began = Instant::now();
    let mut open_boards = Vec::new();
    for n in 0..count {
        let board = open(vfs, &name(n))?;
        board.execute_batch(
            "PRAGMA synchronous=normal; INSERT INTO events (what) VALUES ('seen')",
        )?;
        open_boards.push(board);
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = taken()?;
    drop(open_boards);
    let left = taken()?.0;
    let each = |total: f64| total / count as f64;
    println!(
        "| {vfs}: {count} boards open and written, each | {:.2} descriptors | {:.0} KiB | {:.3} ms | {} descriptors left |",
        each((after.0 - before.0) as f64),
        each(after.1.saturating_sub(before.1) as f64),
        each(seconds * 1e3),
        left.saturating_sub(before.0)
    );
    Ok(())
}

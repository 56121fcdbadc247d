//! What the VFS costs a single writer: instructions and system calls of one transaction, counted
//! by valgrind and strace, which must be installed.
//!
//!     cargo bench --bench uncontended
//!
//! It fails if one costs more than [`MOST`].

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use counted::{Counter, calls, instructions};

mod counted;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Transactions of the shorter and the longer run; what differs between them is the transactions'.
const COUNTS: [u64; 2] = [500, 2500];

/// A read in BEGIN and COMMIT.
const IN_TRANSACTION: &str = "read in a transaction";

/// The VFSes, with the parameters of a URI.
const VFSES: [&str; 3] = ["unix", "kanban", "kanban&kanban_begin=auto"];

/// How many instructions a transaction takes at most, times the stock VFS's, without `kanban_begin` and with `auto`.
const MOST: [(&str, [f64; 2]); 3] =
    [("write", [1.07, 1.09]), ("read", [1.02, 1.035]), (IN_TRANSACTION, [1.02, 1.065])];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [vfs, work, count] = arguments.as_slice() {
        return run(vfs, work, count.parse()?);
    }
    println!(
        "| one transaction, WAL NORMAL | stock | kanban | ratio | `kanban_begin=auto` | ratio |"
    );
    println!("|---|---|---|---|---|---|");
    let mut too_much = Vec::new();
    for (work, most) in MOST {
        for (what, count) in [("instructions", instructions as Counter), ("system calls", calls)] {
            let [stock, kanban, auto] = VFSES.map(|vfs| each(count, vfs, work));
            let (stock, kanban, auto) = (stock?, kanban?, auto?);
            print!("| {work}: {what} | {stock:.2} ");
            for (ours, most) in [kanban, auto].into_iter().zip(most) {
                print!("| {ours:.2} | {:.3} ", ours / stock);
                if what == "instructions" && ours > stock * most {
                    too_much.push(format!("{work}: {:.3}, at most {most}", ours / stock));
                }
            }
            println!("|");
        }
    }
    if too_much.is_empty() { Ok(()) } else { Err(too_much.join("; ").into()) }
}

/// Runs `count` transactions through a VFS.
fn run(vfs: &str, work: &str, count: u64) -> Result<()> {
    // It replaces system calls of the stock VFS, too.
    if vfs != "unix" {
        // A busy machine makes a transaction slow, whose event would be counted with all.
        let options = kanban_vfs::Options::default().with_slow(Duration::from_secs(3600));
        kanban_vfs::register(&options)?;
    }
    let directory = tempfile::tempdir()?;
    let board = directory.path().join("board.db");
    let mut connection = Connection::open(format!("file:{}?vfs={vfs}", board.display()))?;
    connection.execute_batch(
        "PRAGMA journal_mode=wal; PRAGMA synchronous=normal;
         CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT);
         INSERT INTO events (what) VALUES ('created')",
    )?;
    for _ in 0..count {
        let in_transaction = work == IN_TRANSACTION;
        if in_transaction || work == "read" {
            if in_transaction {
                connection.prepare_cached("BEGIN")?.execute([])?;
            }
            let read = "SELECT what FROM events WHERE id = 1";
            connection.prepare_cached(read)?.query_row([], |_| Ok(()))?;
            if in_transaction {
                connection.prepare_cached("COMMIT")?.execute([])?;
            }
        } else {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let write = "INSERT INTO events (what) VALUES ('heartbeat')";
            transaction.prepare_cached(write)?.execute([])?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// How often it happens in one transaction.
fn each(count: Counter, vfs: &str, work: &str) -> Result<f64> {
    let counted = COUNTS.map(|n| count(&[vfs, work, &n.to_string()]));
    let [few, many] = counted;
    Ok((many? - few?) / (COUNTS[1] - COUNTS[0]) as f64)
}

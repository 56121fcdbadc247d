//! What the VFS costs a single writer: instructions and system calls of one transaction, counted
//! by valgrind and strace, which must be installed.
//!
//!     cargo bench --bench uncontended

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use counted::{Counter, calls, instructions};

mod counted;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Transactions of the shorter and the longer run; what differs between them is the transactions'.
const COUNTS: [u64; 2] = [500, 2500];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [vfs, work, count] = arguments.as_slice() {
        return run(vfs, work, count.parse()?);
    }
    println!("| one transaction, WAL NORMAL | stock | kanban | ratio |\n|---|---|---|---|");
    for work in ["write", "read"] {
        for (what, count) in [("instructions", instructions as Counter), ("system calls", calls)] {
            let [stock, kanban] = ["unix", "kanban"].map(|vfs| each(count, vfs, work));
            let (stock, kanban) = (stock?, kanban?);
            println!("| {work}: {what} | {stock:.2} | {kanban:.2} | {:.3} |", kanban / stock);
        }
    }
    Ok(())
}

/// Runs `count` transactions through a VFS.
fn run(vfs: &str, work: &str, count: u64) -> Result<()> {
    // It replaces system calls of the stock VFS, too.
    if vfs == "kanban" {
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
        if work == "read" {
            let read = "SELECT what FROM events WHERE id = 1";
            connection.prepare_cached(read)?.query_row([], |_| Ok(()))?;
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

//! A wait ends, and no clock decides whose turn it is. Clients in other time namespaces, and
//! clients with a preloaded library that shows another time (libfaketime), wait for their timeout
//! and take turns with all others.

use std::time::{Duration, Instant};

use vfs_tests::{Agent, Board, PATIENCE, Program, Reply};

use crate::{agent, connect, rust_agent, status};

/// What a clock may show.
const SHOWN: [&str; 4] = ["still", "runs", "10", "-10"];

fn shown(program: Program, clock: &str) -> Agent {
    Agent::start_with_clock(program, &rust_agent(), clock)
}

/// A board with a table.
fn board(mode: &str) -> Board {
    let board = Board::new();
    let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)");
    connect(&board.kanban()).execute_batch(&create).unwrap();
    board
}

/// A writer holds the lock and forgets to commit. Another waits for it, and the waiter's clock
/// stands still, or gains a second at each look. SQLite's busy handler counts the sleeps that it
/// asked for, so on the stock VFS the wait ends when the busy timeout is over, and here as well.
/// (Once it never ended, or ended at once.)
#[test]
fn a_busy_timeout_ends_whatever_the_clock_shows() {
    const TIMEOUT_MS: u32 = 400;
    for mode in ["wal", "delete"] {
        for clock in SHOWN {
            for vfs in ["unix", "kanban"] {
                let board = board(mode);
                let mut holder = agent(Program::Rust);
                holder.open("c", &board.uri(vfs), 0);
                holder.sql("c", "BEGIN IMMEDIATE").rows();
                for program in Program::ALL {
                    let mut waiter = shown(program, clock);
                    waiter.open("c", &board.uri(vfs), TIMEOUT_MS);
                    let began = Instant::now();
                    assert_eq!(waiter.sql("c", "INSERT INTO t VALUES (1)").code(), 5);
                    let waited = began.elapsed();
                    // The upper bound is for a lost timeout, not for a slow machine.
                    let possible = Duration::from_millis(380)..Duration::from_secs(20);
                    assert!(possible.contains(&waited), "{vfs}, {mode}, {clock}: {waited:?}");
                }
            }
        }
    }
}

/// The same for waits inside a lock call of a rollback mode. With `kanban_busy_timeout_min` a
/// connection waits for SHARED, which a stock client prevents, and waits to commit while another
/// client reads. With `kanban_begin=immediate` it waits for another's commit after its busy handler
/// has given up. (A connection whose clock stood still once waited for ever.)
#[test]
fn a_wait_inside_a_lock_call_ends_whatever_the_clock_shows() {
    let at_least = "&kanban_busy_timeout_min=700";
    for (option, timeout_ms, other, holds, sql, least_ms) in [
        (at_least, 0, "unix", "BEGIN EXCLUSIVE", "SELECT * FROM t", 680),
        (at_least, 0, "unix", "BEGIN; SELECT * FROM t", "INSERT INTO t VALUES (1)", 680),
        // This lasts 200 ms longer than the busy timeout.
        (
            "&kanban_begin=immediate",
            400,
            "kanban",
            "BEGIN EXCLUSIVE",
            "BEGIN; SELECT * FROM t",
            570,
        ),
    ] {
        for clock in SHOWN {
            let board = board("delete");
            connect(&board.stock()).execute_batch("INSERT INTO t VALUES (0)").unwrap();
            let mut waiter = shown(Program::Rust, clock);
            waiter.open("c", &format!("{}{option}", board.kanban()), timeout_ms);
            // So the waiter knows the schema.
            waiter.sql("c", "SELECT * FROM t").rows();
            let mut holder = agent(Program::Rust);
            holder.open("c", &board.uri(other), 0);
            holder.sql("c", holds).rows();
            let began = Instant::now();
            waiter.send_sql("c", sql);
            let refused = waiter.reply_within(Duration::from_secs(20));
            let waited = began.elapsed();
            assert_eq!(refused.map(Reply::code), Some(5), "{sql}, {clock}: {waited:?}");
            assert!(waited >= Duration::from_millis(least_ms), "{sql}, {clock}: {waited:?}");
        }
    }
}

/// Clients with different clocks come one after the other while one holds the lock. They are served
/// in the order in which they came. (When a ticket was a time, clients with slow clocks came first,
/// and those with fast clocks last.) A client that gets no processor for 20 ms is passed over, so on
/// a busy machine the scene is played again.
#[test]
fn clients_are_served_in_order_whatever_their_clocks_show() {
    for mode in ["wal", "delete"] {
        let is_in_order = |(served, came)| served == came;
        assert!((0..5).map(|_| order_of_service(mode)).any(is_in_order), "{mode}");
    }
}

/// Returns the order in which clients with different clocks have written, and the order in which they came.
fn order_of_service(mode: &str) -> (Vec<Vec<serde_json::Value>>, Vec<Vec<serde_json::Value>>) {
    let board = board(mode);
    let observer = connect(&board.kanban());
    let mut holder = agent(Program::Rust);
    holder.open("c", &board.kanban(), 60_000);
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let mut waiters = vec![shown(Program::Rust, "10"), agent(Program::Rust)];
    waiters.extend(["-10", "still", "runs"].map(|clock| shown(Program::Python, clock)));
    let namespaces = [3600, -10].map(|s| Agent::start_in_time_namespace(&rust_agent(), s));
    waiters.extend(namespaces.into_iter().flatten());
    waiters.push(agent(Program::Python));
    for (n, waiter) in waiters.iter_mut().enumerate() {
        waiter.open("c", &board.kanban(), 60_000);
        waiter.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
        let began = Instant::now();
        while status(&observer, "/waiters") != n + 1 {
            assert!(began.elapsed() < PATIENCE, "{}", status(&observer, "/queue"));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // All have waited for longer than newcomers may overtake them, but by no means for an hour.
    std::thread::sleep(Duration::from_millis(20));
    for n in 0..waiters.len() {
        let waited = status(&observer, &format!("/queue/{n}/waited_ms"));
        assert!((20..120_000).contains(&waited.as_i64().unwrap()), "{n}: {waited}");
    }
    holder.sql("c", "COMMIT").rows();
    for waiter in &mut waiters {
        waiter.reply().rows();
    }
    let came = (0..waiters.len()).map(|n| vec![serde_json::json!(n)]).collect();
    (holder.sql("c", "SELECT x FROM t").rows(), came)
}

/// Two processes write in tight loops. The clock of one of them differs, or stands still. Both get
/// their turns. (When a ticket was a time, a client 10 s behind had every turn, and one ahead had
/// none. One whose clock stood still never handed over, since its slice never ended.)
#[test]
fn clients_in_tight_loops_take_turns_whatever_their_clocks_show() {
    const ROWS: i64 = 8000;
    for clock in SHOWN {
        let board = board("wal");
        let holder = connect(&board.kanban());
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut writers = [agent(Program::Rust), shown(Program::Rust, clock)];
        for (n, writer) in writers.iter_mut().enumerate() {
            writer.open("c", &board.kanban(), 60_000);
            writer.sql("c", "PRAGMA synchronous=NORMAL").rows();
            let insert = format!("INSERT INTO t VALUES ({n});").repeat(ROWS as usize);
            writer.send_sql("c", &insert);
        }
        // Both must begin at once.
        let began = Instant::now();
        while status(&holder, "/waiters") != 2 {
            assert!(began.elapsed() < PATIENCE, "{}", status(&holder, "/queue"));
            std::thread::sleep(Duration::from_millis(1));
        }
        holder.execute_batch("COMMIT").unwrap();
        for writer in &mut writers {
            writer.reply().rows();
        }
        // How many rows each has written by the time at which the other writes its last.
        for (one, other) in [(0, 1), (1, 0)] {
            let before = format!(
                "SELECT count(*) FROM t WHERE x={one}
                 AND rowid < (SELECT max(rowid) FROM t WHERE x={other})"
            );
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            let rows = connect(&board.kanban()).query_row(&before, [], count).unwrap();
            // A client whose clock runs ends its slice at once, and makes one transaction in each turn. A slice of the
            // other has at most 512.
            assert!(rows * 600 > ROWS, "{clock}: {one} has written {rows} of {ROWS}");
        }
    }
}

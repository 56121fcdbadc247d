//! Waiters are served in the order in which they came, are woken at once, and delay nobody.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use vfs_tests::{Agent, Board, PATIENCE, Program};

use crate::{agent, connect, status};

/// A board in WAL mode with a table.
fn board() -> Board {
    let board = Board::new();
    connect(&board.kanban()).execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    board
}

/// Reads, so that there is a wal-index, which this connection keeps.
fn until_recovered(connection: &Connection) {
    connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
}

/// Waits until that many clients wait for the write lock.
fn until_waiting(observer: &Connection, n: usize) {
    let began = Instant::now();
    while status(observer, "/waiters") != n {
        assert!(began.elapsed() < PATIENCE, "{}", status(observer, "/queue"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the loops of a test's threads, even if the test fails.
struct Until<'d>(&'d AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Inserts rows in a tight loop until the others are done. Returns how many.
fn insert_until(done: &AtomicBool, board: &Board) -> u64 {
    insert_on(connect(&board.kanban()), done)
}

fn insert_on(connection: Connection, done: &AtomicBool) -> u64 {
    connection.busy_timeout(PATIENCE).unwrap();
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        count += 1;
    }
    count
}

fn opened(program: Program, board: &Board, vfs: &str) -> Agent {
    let mut client = agent(program);
    client.open("c", &board.uri(vfs), 60_000);
    client
}

/// Four writers come one after the other while a fifth holds the lock. On the stock VFS the client
/// that happens to wake first is next, and nobody can see the waiters.
#[test]
fn waiters_are_served_in_order() {
    for mode in ["wal", "delete"] {
        let board = board();
        let observer = connect(&board.kanban());
        observer.execute_batch(&format!("PRAGMA journal_mode={mode}")).unwrap();
        let mut holder = opened(Program::Rust, &board, "kanban");
        holder.sql("c", "BEGIN IMMEDIATE").rows();
        let mut waiters = Vec::new();
        for n in 0..4 {
            let program = if n % 2 == 0 { Program::Rust } else { Program::Python };
            let mut waiter = opened(program, &board, "kanban");
            waiter.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
            until_waiting(&observer, n + 1);
            waiters.push(waiter);
        }
        for (n, waiter) in waiters.iter().enumerate() {
            assert_eq!(status(&observer, &format!("/queue/{n}/pid")), waiter.pid());
        }
        assert_eq!(status(&observer, "/queue/0/program"), "agent");
        assert!(status(&observer, "/queue/1/program").as_str().unwrap().starts_with("python3"));
        assert_eq!(status(&observer, "/holder/program"), "agent");
        // Until the first one has waited long enough, newcomers may overtake it.
        std::thread::sleep(Duration::from_millis(20));
        holder.sql("c", "COMMIT").rows();
        for waiter in &mut waiters {
            waiter.reply().rows();
        }
        assert_eq!(holder.sql("c", "SELECT x FROM t").rows(), [[0], [1], [2], [3]], "{mode}");
        assert_eq!(status(&observer, "/waiters"), 0);
    }
}

/// How long a waiter sleeps on, in total, after the holder has released its lock.
fn latency(holder: (Program, &str), waiter: &str, mode: &str, holds: &str) -> Duration {
    let board = board();
    connect(&board.kanban()).execute_batch(&format!("PRAGMA journal_mode={mode}")).unwrap();
    let mut holder = opened(holder.0, &board, holder.1);
    let mut waiter = opened(Program::Rust, &board, waiter);
    // The tests beside this one keep the disk busy.
    waiter.sql("c", "PRAGMA synchronous=off").rows();
    let mut sum = Duration::ZERO;
    for n in 0..5 {
        for sql in holds.split("; ") {
            holder.sql("c", sql).rows();
        }
        waiter.send_sql("c", "INSERT INTO t VALUES (1)");
        // By then the stock VFS's sleeps are at their longest. The moment varies.
        std::thread::sleep(Duration::from_millis(260 + 13 * n));
        holder.sql("c", "COMMIT").rows();
        let freed = Instant::now();
        waiter.reply().rows();
        sum += freed.elapsed();
    }
    sum
}

/// A writer has waited for a while when the holder commits. On the stock VFS it sleeps on for its
/// 100 ms while the lock is free. Both VFSes are measured in the same run.
#[test]
fn a_waiter_is_woken_at_once() {
    let [stock, ours] =
        ["unix", "kanban"].map(|vfs| latency((Program::Rust, vfs), vfs, "wal", "BEGIN IMMEDIATE"));
    assert!(ours * 2 < stock, "five waits: {ours:?}, on the stock VFS {stock:?}");
}

/// A writer waits for a client that wakes nobody: a stock client that writes, or one that reads
/// when the writer is about to commit. The waiter checks by itself. On the stock VFS it sleeps on
/// for its 100 ms. Both VFSes are measured in the same run.
#[test]
fn where_nobody_wakes_a_waiter_it_looks() {
    for (mode, holds) in [
        ("wal", "BEGIN IMMEDIATE"),
        ("delete", "BEGIN IMMEDIATE"),
        ("delete", "BEGIN EXCLUSIVE"),
        ("delete", "BEGIN; SELECT count(*) FROM t"),
    ] {
        let [stock, ours] =
            ["unix", "kanban"].map(|vfs| latency((Program::Python, "unix"), vfs, mode, holds));
        assert!(ours * 2 < stock, "{mode}, {holds}: {ours:?}, on the stock VFS {stock:?}");
    }
}

/// Threads of one process write in tight loops. On the stock VFS one of them can win every race
/// (but not on every machine, so this is not asserted).
#[test]
fn nobody_starves() {
    let board = board();
    let done = AtomicBool::new(false);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let until = Until(&done);
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| insert_until(&done, &board))).collect();
        std::thread::sleep(Duration::from_secs(2));
        drop(until);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(least * 3 > *most, "{counts:?}");
}

/// A process writes in a tight loop, with no time between its transactions, when another comes that
/// does the same. The first could not see that anybody waits. It finds out, and the two share.
#[test]
fn a_process_in_a_loop_shares_with_one_that_comes() {
    const ROWS: u64 = 4000;
    let board = board();
    let mut writers: Vec<_> = (0..2).map(|_| opened(Program::Rust, &board, "kanban")).collect();
    for (n, writer) in writers.iter_mut().enumerate() {
        writer.sql("c", "PRAGMA synchronous=NORMAL").rows();
        for _ in 0..ROWS {
            writer.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
        }
    }
    for _ in 0..ROWS {
        writers[0].reply().rows();
    }
    let count = "SELECT count(*) FROM t WHERE x=1";
    let others: i64 = connect(&board.kanban()).query_row(count, [], |row| row.get(0)).unwrap();
    for _ in 0..ROWS {
        writers[1].reply().rows();
    }
    assert!(others as u64 * 4 > ROWS, "{others} of {ROWS}");
}

/// The first client in the queue is killed, or stopped. The second still gets its turn, and the
/// stopped one gets its own when it goes on.
#[test]
fn a_dead_or_stopped_waiter_holds_nobody_up() {
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let board = board();
        let observer = connect(&board.kanban());
        let mut holder = opened(Program::Rust, &board, "kanban");
        let mut first = opened(Program::Rust, &board, "kanban");
        let mut second = opened(Program::Python, &board, "kanban");
        holder.sql("c", "BEGIN IMMEDIATE").rows();
        first.send_sql("c", "INSERT INTO t VALUES (1)");
        until_waiting(&observer, 1);
        second.send_sql("c", "INSERT INTO t VALUES (2)");
        until_waiting(&observer, 2);
        first.signal(signal);
        if signal == libc::SIGKILL {
            until_waiting(&observer, 1);
        }
        std::thread::sleep(Duration::from_millis(20));
        holder.sql("c", "COMMIT").rows();
        second.reply().rows();
        if signal == libc::SIGSTOP {
            for n in 3..20 {
                second.sql("c", &format!("INSERT INTO t VALUES ({n})")).rows();
            }
            // It missed its turn, and gets another although a holder writes in a loop.
            for n in 0..200 {
                second.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
            }
            first.signal(libc::SIGCONT);
            first.reply().rows();
        }
    }
}

/// Twenty clients wait, and are stopped, as in a frozen container. The holder commits, and two others
/// write in turns for longer than the page can count how late a waiter is. On the stock VFS they do
/// not notice the stopped clients. Through this VFS these miss one turn, and not all their turns one
/// after another when the count begins again; each gets the lock when it goes on. Both VFSes are
/// measured in the same run: on a slow disk the stock VFS's writers wait for long, too.
#[test]
fn stopped_waiters_miss_one_turn() {
    const WRITES_FOR: Duration = Duration::from_secs(5);
    let [stock, ours] = ["unix", "kanban"].map(|vfs| {
        let board = board();
        let mut holder = opened(Program::Rust, &board, vfs);
        holder.sql("c", "BEGIN IMMEDIATE").rows();
        let mut stopped: Vec<_> = (0..20).map(|_| opened(Program::Rust, &board, vfs)).collect();
        for client in &mut stopped {
            client.send_sql("c", "INSERT INTO t VALUES (1)");
        }
        match vfs {
            "kanban" => until_waiting(&connect(&board.kanban()), stopped.len()),
            // Each sleeps for 100 ms at a time by then.
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
        for client in &stopped {
            client.signal(libc::SIGSTOP);
        }
        let writes = || {
            let writer = connect(&board.uri(vfs));
            writer.busy_timeout(PATIENCE).unwrap();
            let (began, mut longest) = (Instant::now(), Duration::ZERO);
            while began.elapsed() < WRITES_FOR {
                let asked = Instant::now();
                writer.execute_batch("BEGIN IMMEDIATE").unwrap();
                longest = longest.max(asked.elapsed());
                writer.execute_batch("INSERT INTO t VALUES (2); COMMIT").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        };
        let longest = std::thread::scope(|scope| {
            let writers = [(); 2].map(|()| scope.spawn(writes));
            holder.sql("c", "COMMIT").rows();
            writers.map(|writer| writer.join().unwrap()).into_iter().max().unwrap()
        });
        for client in &mut stopped {
            client.signal(libc::SIGCONT);
            client.reply().rows();
        }
        longest
    });
    assert!(ours < (2 * stock).max(WRITES_FOR / 8), "{ours:?}, on the stock VFS {stock:?}");
}

/// Somebody overwrites the page, cuts the sidecar short and lengthens it, all the time, while
/// processes and threads write. The order may suffer, but no row is lost, nobody fails and nobody
/// crashes.
#[test]
fn a_hostile_page_costs_order_and_nothing_else() {
    const ROWS: u64 = 150;
    let board = board();
    let done = AtomicBool::new(false);
    let mut processes: Vec<_> = [Program::Rust, Program::Rust, Program::Python]
        .map(|program| opened(program, &board, "kanban"))
        .into();
    for client in &mut processes {
        for n in 0..ROWS {
            client.send_sql("c", &format!("INSERT INTO t VALUES ({n})"));
        }
    }
    std::thread::scope(|scope| {
        let until = Until(&done);
        scope.spawn(|| {
            // The first writer creates the sidecar.
            let began = Instant::now();
            let sidecar = loop {
                match std::fs::File::options().write(true).open(board.sidecar()) {
                    Ok(sidecar) => break sidecar,
                    Err(why) => assert!(began.elapsed() < PATIENCE, "{why}"),
                }
            };
            let mut seed = 7_u64;
            let mut random = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 33
            };
            while !done.load(Ordering::Relaxed) {
                let bytes: Vec<u8> = (0..64).map(|_| random() as u8 & 3).collect();
                sidecar.write_all_at(&bytes, 16 + random() % 4000).unwrap();
                if random() % 8 == 0 {
                    sidecar.set_len(random() % 5000).unwrap();
                }
                std::thread::sleep(Duration::from_micros(random() % 200));
            }
        });
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let connection = connect(&board.kanban());
                    connection.busy_timeout(PATIENCE).unwrap();
                    for n in 0..ROWS {
                        connection.execute("INSERT INTO t VALUES (?)", [n as i64]).unwrap();
                    }
                })
            })
            .collect();
        for client in &mut processes {
            for _ in 0..ROWS {
                client.reply().rows();
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        drop(until);
    });
    let check = connect(&board.kanban());
    let rows: i64 = check.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows as u64, 6 * ROWS);
}

/// A stock client has SQLite's own lock all the time, so the holder of the write lock cannot use
/// it. A waiter returns early from many sleeps, which must not use up its timeout.
#[test]
fn the_busy_timeout_is_what_passes() {
    for begin in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        for mode in ["wal", "delete"] {
            let board = board();
            let mut stock = opened(Program::Python, &board, "unix");
            stock.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
            stock.sql("c", begin).rows();
            let waited: Vec<Duration> = std::thread::scope(|scope| {
                let waiters: Vec<_> = (0..3)
                    .map(|_| {
                        scope.spawn(|| {
                            let connection = connect(&board.kanban());
                            connection.busy_timeout(Duration::from_millis(1000)).unwrap();
                            let began = Instant::now();
                            connection.execute("INSERT INTO t VALUES (1)", []).unwrap_err();
                            began.elapsed()
                        })
                    })
                    .collect();
                waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
            });
            for waited in waited {
                // The upper bound is for a lost timeout, not for a slow machine.
                let possible = Duration::from_millis(900)..Duration::from_secs(20);
                assert!(possible.contains(&waited), "{mode}, {begin}: {waited:?}");
            }
        }
    }
}

/// A client sleeps by itself between its attempts, while three others queue. It has no place in the
/// queue, but still makes progress.
#[test]
fn a_client_with_its_own_busy_handler_gets_on() {
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    let board = board();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let until = Until(&done);
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| insert_until(&done, &board))).collect();
        let mut own = connect(&board.kanban());
        own.busy_handler(Some(|_| {
            ATTEMPTS.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(500));
            true
        }))
        .unwrap();
        let began = Instant::now();
        let count = |own: &Connection| -> i64 {
            own.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
        };
        while count(&own) < 60 {
            assert!(began.elapsed() < PATIENCE, "the others do not begin");
        }
        for n in 0..20 {
            own.execute("INSERT INTO t VALUES (2)", []).unwrap();
            assert!(began.elapsed() < PATIENCE, "{n} in {:?}", began.elapsed());
        }
        drop(until);
        for other in others {
            assert!(other.join().unwrap() > 0);
        }
    });
}

/// An operator asks for a complete checkpoint in the middle of a burst. The checkpoint queues for
/// the write lock like a writer, and completes. (While another checkpoint runs, it is refused at
/// once, as SQLite documents, so the writers make none.)
#[test]
fn a_complete_checkpoint_gets_on_in_a_burst() {
    let board = board();
    let done = AtomicBool::new(false);
    let operator = connect(&board.kanban());
    operator.busy_timeout(PATIENCE).unwrap();
    until_recovered(&operator);
    std::thread::scope(|scope| {
        let until = Until(&done);
        for _ in 0..3 {
            scope.spawn(|| {
                let writer = connect(&board.kanban());
                writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
                insert_on(writer, &done)
            });
        }
        for mode in ["FULL", "RESTART", "TRUNCATE"] {
            let busy =
                operator.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0));
            assert_eq!(busy, Ok(0), "{mode}");
        }
        drop(until);
    });
}

/// A read transaction upgrades, and a writer writes that does not wait, while another client
/// checkpoints in a tight loop. A checkpoint is in nobody's way on the stock VFS, except in the
/// moments when it takes SQLite's WRITE lock to read the wal-index again. Refusals at these moments
/// are allowed here, too.
///
/// On a busy machine a thread may not run at such a moment, again and again. Then the test is
/// repeated.
#[test]
fn a_checkpoint_refuses_no_upgrade() {
    let tries: Vec<_> =
        (0..5).map(|_| refused_beside_checkpoints()).take_while(|n| *n > 10).collect();
    assert!(tries.len() < 5, "{tries:?} of 1000");
}

/// How many of a thousand writes are refused while checkpoints run in a tight loop.
fn refused_beside_checkpoints() -> usize {
    let board = board();
    let done = AtomicBool::new(false);
    let (upgrade, impatient) = (connect(&board.kanban()), connect(&board.kanban()));
    until_recovered(&upgrade);
    impatient.busy_timeout(Duration::ZERO).unwrap();
    let mut refused = 0;
    std::thread::scope(|scope| {
        let until = Until(&done);
        scope.spawn(|| {
            let operator = connect(&board.kanban());
            while !done.load(Ordering::Relaxed) {
                operator.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
            }
        });
        for _ in 0..500 {
            upgrade.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
            let upgraded = upgrade.execute_batch("INSERT INTO t VALUES (1)");
            upgrade.execute_batch("COMMIT").unwrap();
            let inserted = impatient.execute_batch("INSERT INTO t VALUES (2)");
            refused += usize::from(upgraded.is_err()) + usize::from(inserted.is_err());
        }
        drop(until);
    });
    refused
}

/// Processes open the board, read and close, all the time. The last one to close tries for the
/// database's own lock; a writer that does not wait must not notice that. (A reader may hold
/// SQLite's WRITE lock for a moment, to read the wal-index again, as on the stock VFS.)
#[test]
fn readers_that_close_refuse_no_writer() {
    let board = board();
    let done = AtomicBool::new(false);
    let writer = connect(&board.kanban());
    until_recovered(&writer);
    writer.busy_timeout(Duration::ZERO).unwrap();
    let mut refused = 0;
    std::thread::scope(|scope| {
        let until = Until(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let reader = connect(&board.kanban());
                    reader.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
                }
            });
        }
        for _ in 0..1000 {
            refused += usize::from(writer.execute_batch("BEGIN IMMEDIATE; COMMIT").is_err());
        }
        drop(until);
    });
    assert!(refused <= 10, "{refused} of 1000");
}

/// An upgrade on one board was refused, and the client gave up. That must not shorten a wait for
/// something else on the same thread: here a checkpoint of another board waits for a reader to
/// leave.
#[test]
fn a_refusal_that_was_given_up_shortens_no_other_wait() {
    let (refusing, other) = (board(), board());
    let holder = connect(&refusing.kanban());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let upgrade = connect(&refusing.kanban());
    upgrade.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    upgrade.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
    upgrade.execute_batch("ROLLBACK").unwrap();
    holder.execute_batch("COMMIT").unwrap();

    let (writer, reader) = (connect(&other.kanban()), connect(&other.kanban()));
    writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    writer.busy_timeout(Duration::from_millis(500)).unwrap();
    let began = Instant::now();
    let busy: i64 =
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 1, "the reader is in its way");
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    assert_eq!(status(&upgrade, "/waiters"), 0);
}

/// The sidecar is cut short while a writer waits, and stays so: the wait still lasts for the busy
/// timeout.
#[test]
fn a_sidecar_cut_short_costs_no_timeout() {
    let board = board();
    let holder = connect(&board.kanban());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::fs::File::options().write(true).open(board.sidecar()).unwrap().set_len(0).unwrap();
    let mut waiter = agent(Program::Rust);
    waiter.open("c", &board.kanban(), 700);
    let began = Instant::now();
    assert_eq!(waiter.sql("c", "INSERT INTO t VALUES (1)").code(), 5);
    assert!(began.elapsed() >= Duration::from_millis(630), "{:?}", began.elapsed());
}

/// Forty connections wait while one writes for longer than their busy timeout. Those that are far
/// from the head of the queue call their busy handlers without trying for the lock. Each is refused
/// when its timeout is over, and not before, as on the stock VFS; and then it reads at once.
#[test]
fn a_waiter_far_from_the_head_waits_for_its_busy_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(700);
    let board = board();
    let holder = connect(&board.kanban());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waited: Vec<Duration> = std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..40)
            .map(|_| {
                scope.spawn(|| {
                    let connection = connect(&board.kanban());
                    connection.busy_timeout(TIMEOUT).unwrap();
                    let began = Instant::now();
                    let refused = connection.execute_batch("BEGIN IMMEDIATE").unwrap_err();
                    let waited = began.elapsed();
                    let code = refused.sqlite_error_code();
                    assert_eq!(code, Some(rusqlite::ErrorCode::DatabaseBusy), "{refused}");
                    let began = Instant::now();
                    let read = "SELECT count(*) FROM t";
                    connection.query_row(read, [], |row| row.get::<_, i64>(0)).unwrap();
                    assert!(
                        began.elapsed() < TIMEOUT / 2,
                        "a reader has waited {:?}",
                        began.elapsed()
                    );
                    waited
                })
            })
            .collect();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    });
    let (least, most) = (waited.iter().min().unwrap(), waited.iter().max().unwrap());
    assert!(*least >= TIMEOUT * 9 / 10 && *most < TIMEOUT * 3, "{least:?} to {most:?}");
    holder.execute_batch("COMMIT").unwrap();
}

/// More connections wait than the sidecar's first page has slots. Each still has a place. When they
/// have had the lock, their slots are free for others, although the process lives on.
#[test]
fn a_long_queue_has_a_place_for_each_waiter() {
    let board = board();
    let holder = connect(&board.kanban());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        for n in 0..140 {
            let board = &board;
            scope.spawn(move || {
                let connection = connect(&board.kanban());
                connection.busy_timeout(PATIENCE).unwrap();
                connection.execute("INSERT INTO t VALUES (?)", [n]).unwrap();
            });
        }
        until_waiting(&connect(&board.kanban()), 140);
        holder.execute_batch("COMMIT").unwrap();
    });
    let rows: i64 = holder.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 140);

    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiter = opened(Program::Rust, &board, "kanban");
    waiter.send_sql("c", "INSERT INTO t VALUES (1)");
    until_waiting(&holder, 1);
    holder.execute_batch("COMMIT").unwrap();
    waiter.reply().rows();
}

/// Eight writers write in a burst, without readers. A checkpoint then finds no moment when all
/// frames are copied and nobody writes. So the WAL would not be restarted, and would grow by all
/// that is written. By default a checkpoint is due at 1000 pages.
#[test]
fn the_wal_stays_small_in_a_burst() {
    const ROWS: usize = 800;
    let board = board();
    let mut writers: Vec<_> = (0..8).map(|_| opened(Program::Rust, &board, "kanban")).collect();
    for writer in &mut writers {
        for _ in 0..ROWS {
            writer.send_sql("c", "INSERT INTO t VALUES (zeroblob(3000))");
        }
    }
    let wal = board.directory().join("board.db-wal");
    let mut largest = 0;
    for n in 0..ROWS {
        for writer in &mut writers {
            writer.reply().rows();
        }
        if n % 10 == 0 {
            largest = largest.max(wal.metadata().unwrap().len());
        }
    }
    let pages = largest / 4096;
    assert!((1000..4000).contains(&pages), "{pages} pages");
}

//! With `kanban_begin=immediate`, a transaction that reads first and writes later takes the write lock when it begins to read.
//! So its first write is not refused.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use vfs_tests::trace::Traced;
use vfs_tests::{Agent, Board, PATIENCE, Program, Reply};

use crate::{agent, connect, pairs, status, status_of};

const SQLITE_ERROR: i64 = 1;
const SQLITE_BUSY: i64 = 5;
const SQLITE_CONSTRAINT: i64 = 19;
const SQLITE_INTERRUPT: i32 = 9;
const MODES: [&str; 2] = ["wal", "delete"];

/// A board with a table, in that journal mode.
fn board(mode: &str) -> Board {
    let board = Board::new();
    let sql = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (0)");
    connect(&board.kanban()).execute_batch(&sql).unwrap();
    board
}

fn immediate(board: &Board) -> String {
    format!("{}&kanban_begin=immediate", board.kanban())
}

/// A client whose transactions begin immediately, with a busy timeout in ms.
fn opened(program: Program, board: &Board, timeout_ms: u32) -> Agent {
    let mut client = agent(program);
    client.open("c", &immediate(board), timeout_ms);
    client
}

/// Checks that another client can write at once: nobody has the write lock, nor SQLite's.
#[track_caller]
fn assert_free(board: &Board, when: &str) {
    let other = connect(&board.kanban());
    other.busy_timeout(Duration::ZERO).unwrap();
    other.execute_batch("INSERT INTO t VALUES (9)").expect(when);
    assert_eq!(status(&other, "/holder"), json!(null), "{when}");
}

/// Waits until that many clients wait for the write lock.
fn until_waiting(observer: &Connection, n: usize) {
    let began = Instant::now();
    while status(observer, "/waiters") != n {
        assert!(began.elapsed() < PATIENCE, "{}", status(observer, "/queue"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Two clients look for work and then take it. On the stock VFS the second to write is refused at once, whatever its busy
/// timeout, since it has read what the other changes. With `immediate` it waits before it reads, and takes the next task.
#[test]
fn a_transaction_that_reads_first_may_write() {
    for mode in MODES {
        for (mut first, mut second) in pairs() {
            let board = board(mode);
            first.open("c", &board.stock(), 10_000);
            second.open("c", &board.stock(), 10_000);
            for client in [&mut first, &mut second] {
                assert_eq!(client.sql("c", "BEGIN; SELECT max(x) FROM t").rows(), [[0]]);
            }
            first.sql("c", "INSERT INTO t VALUES (1)").rows();
            if mode == "wal" {
                first.sql("c", "COMMIT").rows();
            }
            assert_eq!(second.sql("c", "INSERT INTO t VALUES (1)").code(), SQLITE_BUSY);
            second.sql("c", "ROLLBACK").rows();
            if mode != "wal" {
                first.sql("c", "COMMIT").rows();
            }

            first.open("c", &immediate(&board), 60_000);
            second.open("c", &immediate(&board), 60_000);
            assert_eq!(first.sql("c", "BEGIN; SELECT max(x) FROM t").rows(), [[1]]);
            second.send_sql("c", "BEGIN; SELECT max(x) FROM t");
            until_waiting(&connect(&board.kanban()), 1);
            first.sql("c", "INSERT INTO t VALUES (2); COMMIT").rows();
            assert_eq!(second.reply().rows(), [[2]], "{mode}: it reads what was written meanwhile");
            second.sql("c", "INSERT INTO t VALUES (3); COMMIT").rows();
            assert_free(&board, mode);
        }
    }
}

/// How many transactions that read and then write were refused.
fn refused(board: &Board, uri: &str) -> usize {
    const CLIENTS: usize = 6;
    const EACH: usize = 30;
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let mut client = agent(Program::ALL[n % 2]);
            client.open("c", uri, 60_000);
            client
        })
        .collect();
    let mut refused = 0;
    let steps = ["BEGIN", "SELECT count(*) FROM t", "INSERT INTO t VALUES (1)", "COMMIT"];
    for client in &mut clients {
        for _ in 0..EACH {
            for sql in steps {
                client.send_sql("c", sql);
            }
            // This ends the transaction that was refused.
            client.send_sql("c", "ROLLBACK");
        }
    }
    for client in &mut clients {
        for _ in 0..EACH {
            let replies = steps.map(|_| client.reply());
            let is_error = |reply: &&Reply| matches!(reply, Reply::Error { .. });
            refused += usize::from(replies.iter().find(is_error).is_some());
            client.reply();
        }
    }
    let rows: i64 = connect(&board.kanban())
        .query_row("SELECT count(*) FROM t WHERE x=1", [], |row| row.get(0))
        .unwrap();
    // Where INSERT was refused, COMMIT succeeded, but nothing was written.
    assert_eq!(rows as usize, CLIENTS * EACH - refused);
    refused
}

/// Six clients with both SQLites read and write in tight loops. On the stock VFS some are refused; with `immediate` none is.
#[test]
fn no_transaction_is_refused_in_a_storm() {
    for mode in MODES {
        let stock = board(mode);
        assert!(refused(&stock, &stock.stock()) > 0, "{mode}");
        let ours = board(mode);
        assert_eq!(refused(&ours, &immediate(&ours)), 0, "{mode}");
    }
}

/// A writer goes on for longer than another client waits. The other client's read is not refused, just as on the stock VFS. It
/// reads when its busy timeout is over, however that was set; without a timeout, at once. Its write is then refused, as on the
/// stock VFS.
#[test]
fn a_wait_that_ends_without_the_lock_still_reads() {
    for mode in MODES {
        for program in Program::ALL {
            let board = board(mode);
            let mut holder = agent(Program::Rust);
            holder.open("c", &board.kanban(), 0);
            holder.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
            let mut client = opened(program, &board, 400);
            for (timeout, least) in [(None, 360), (Some(250), 225), (Some(0), 0)] {
                if let Some(timeout) = timeout {
                    client.sql("c", &format!("PRAGMA busy_timeout={timeout}")).rows();
                }
                client.sql("c", "BEGIN").rows();
                let began = Instant::now();
                assert_eq!(client.sql("c", "SELECT count(*) FROM t").rows(), [[1]]);
                let waited = began.elapsed();
                // The upper bound is for a lost timeout, not for a slow machine.
                let possible = Duration::from_millis(least)..Duration::from_secs(20);
                assert!(possible.contains(&waited), "{mode}, {timeout:?}: {waited:?}");
                assert_eq!(client.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
                client.sql("c", "ROLLBACK").rows();
            }
            holder.sql("c", "COMMIT").rows();
            client.sql("c", "BEGIN; SELECT * FROM t; INSERT INTO t VALUES (3); COMMIT").rows();
            assert_free(&board, mode);
        }
    }
}

/// A transaction begins with a statement that writes, while another client writes for longer than the busy timeout. The
/// statement waits for its busy timeout once, not twice.
#[test]
fn no_statement_waits_twice() {
    for mode in MODES {
        let board = board(mode);
        let holder = connect(&board.kanban());
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut client = opened(Program::Python, &board, 1500);
        for sql in ["BEGIN; INSERT INTO t VALUES (1)", "ROLLBACK; BEGIN IMMEDIATE"] {
            let began = Instant::now();
            assert_eq!(client.sql("c", sql).code(), SQLITE_BUSY);
            let possible = Duration::from_millis(1400)..Duration::from_millis(2900);
            assert!(possible.contains(&began.elapsed()), "{mode}, {sql}: {:?}", began.elapsed());
        }
    }
}

/// An application waits with its own busy handler, which sleeps 10 ms and never gives up. The handler is also called for the
/// wait at the beginning.
#[test]
fn a_busy_handler_of_the_applications_own_is_called() {
    for mode in MODES {
        let board = board(mode);
        let holder = connect(&board.kanban());
        let mut client = agent(Program::Rust);
        client.open("c", &immediate(&board), 0);
        client.call(&json!(["own busy handler", "c"])).rows();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        client.send_sql("c", "BEGIN; SELECT count(*) FROM t");
        assert_eq!(client.reply_within(Duration::from_millis(300)), None, "{mode}: it waits");
        holder.execute_batch("INSERT INTO t VALUES (1); COMMIT").unwrap();
        assert_eq!(client.reply().rows(), [[2]]);
        client.sql("c", "INSERT INTO t VALUES (2); COMMIT").rows();
    }
}

/// A client writes for long. Only a client that reads the board in a transaction that may write to it waits for that.
#[test]
fn those_that_will_not_write_never_wait() {
    for mode in MODES {
        for program in Program::ALL {
            let (board, other) = (board(mode), board(mode));
            let holder = connect(&board.kanban());
            holder.execute_batch("BEGIN IMMEDIATE").unwrap();
            let observer = connect(&board.kanban());
            let mut client = opened(program, &board, 60_000);
            let read = "SELECT count(*) FROM t";
            client.sql("c", read).rows();
            client.sql("c", "PRAGMA query_only=1; BEGIN; SELECT * FROM t; COMMIT").rows();
            client.sql("c", "PRAGMA query_only=0").rows();
            client.open("ro", &format!("{}&mode=ro", immediate(&board)), 60_000);
            client.sql("ro", &format!("BEGIN; {read}; COMMIT")).rows();
            // The board is attached, and only read.
            client.open("other", &immediate(&other), 60_000);
            let attach = format!("ATTACH '{}' AS board", immediate(&board));
            client.sql("other", &attach).rows();
            let sql =
                "BEGIN; SELECT * FROM t; SELECT * FROM board.t; INSERT INTO t VALUES (1); COMMIT";
            client.sql("other", sql).rows();
            // A copy: SQLite reads the original in a transaction of its own.
            let copy = other.directory().join("copy.db");
            client.sql("c", &format!("VACUUM INTO '{}'", copy.display())).rows();
            for name in ["c", "ro", "other"] {
                assert_eq!(status_of(&mut client, name, "/counters/refused"), 0, "{mode}: {name}");
            }
            client.send_sql("c", &format!("BEGIN; {read}"));
            until_waiting(&observer, 1);
            holder.execute_batch("COMMIT").unwrap();
            client.reply().rows();
        }
    }
}

/// A client writes to a board and then reads another, in one transaction; a second client does the reverse. Each would wait for
/// the other. So a transaction that has already written elsewhere takes the lock only if it is free.
#[test]
fn a_transaction_that_writes_elsewhere_does_not_wait() {
    for mode in MODES {
        let (a, b) = (board(mode), board(mode));
        let holder = connect(&a.kanban());
        let mut client = opened(Program::Rust, &a, 60_000);
        client.sql("c", &format!("ATTACH '{}' AS b", b.kanban())).rows();
        client.sql("c", "SELECT * FROM b.t; BEGIN; INSERT INTO b.t VALUES (1)").rows();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        client.send_sql("c", "SELECT count(*) FROM t");
        let reply = client.reply_within(Duration::from_secs(30)).expect("it does not wait");
        assert_eq!(reply.rows(), [[1]], "{mode}");
        client.sql("c", "COMMIT").rows();
    }
}

/// However the transaction ends, the write lock is free afterwards.
#[test]
fn the_lock_is_free_when_the_transaction_is_over() {
    for mode in MODES {
        for program in Program::ALL {
            let board = board(mode);
            let observer = connect(&board.kanban());
            let mut client = opened(program, &board, 60_000);
            let is_held = || status(&observer, "/holder/pid") == client_pid(&observer);
            let begins = ["BEGIN; SELECT * FROM t", "SAVEPOINT s; SELECT * FROM t"];
            let writes =
                ["", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1); ROLLBACK TO s"];
            for (begin, ends) in
                begins.into_iter().zip([["COMMIT", "ROLLBACK"], ["RELEASE s", "ROLLBACK"]])
            {
                for end in ends {
                    for write in writes {
                        if write.contains(" TO ") && begin.starts_with("BEGIN") {
                            continue;
                        }
                        client.sql("c", begin).rows();
                        assert!(is_held(), "{mode}: {begin}");
                        client.sql("c", write).rows();
                        assert!(is_held(), "{mode}: {begin}; {write}");
                        client.sql("c", end).rows();
                        assert_free(&board, &format!("{mode}: {begin}; {write}; {end}"));
                    }
                }
            }
            // The statement ends the transaction by itself.
            let sql =
                "CREATE TABLE u (x PRIMARY KEY); INSERT INTO u VALUES (1); BEGIN; SELECT * FROM t";
            client.sql("c", sql).rows();
            let code = client.sql("c", "INSERT OR ROLLBACK INTO u VALUES (1)").code();
            assert_eq!(code, SQLITE_CONSTRAINT);
            assert_free(&board, &format!("{mode}: OR ROLLBACK"));
            // It never reads: its statement cannot be compiled.
            client.sql("c", "BEGIN").rows();
            assert_eq!(client.sql("c", "SELECT * FROM missing").code(), SQLITE_ERROR);
            client.sql("c", "COMMIT").rows();
            assert_free(&board, &format!("{mode}: not compiled"));
            client.sql("c", "DROP TABLE u; BEGIN; SELECT * FROM t").rows();
            client.close("c");
            assert_free(&board, &format!("{mode}: closed"));
            client.open("c", &immediate(&board), 60_000);
            client.sql("c", "BEGIN; SELECT * FROM t").rows();
            client.kill();
            assert_free(&board, &format!("{mode}: killed"));
        }
    }
}

/// The process that holds the write lock.
fn client_pid(observer: &Connection) -> serde_json::Value {
    let holder = status(observer, "/holder");
    assert_ne!(holder, json!(null));
    assert_eq!(holder["this_process"], false);
    holder["pid"].clone()
}

/// A cursor of another statement reads on after the transaction, outside of any transaction.
#[test]
fn a_statement_that_reads_on_keeps_nobody_waiting() {
    for mode in ["wal", "persist"] {
        let board = board(mode);
        let reader = connect(&immediate(&board));
        reader.execute_batch("INSERT INTO t VALUES (1); BEGIN").unwrap();
        let mut statement = reader.prepare("SELECT * FROM t").unwrap();
        let mut rows = statement.query([]).unwrap();
        rows.next().unwrap().unwrap();
        assert_eq!(status(&reader, "/holder/this_connection"), true);
        reader.execute_batch("INSERT INTO t VALUES (2); COMMIT").unwrap();
        assert_eq!(status(&reader, "/holder"), json!(null), "{mode}");
        rows.next().unwrap().unwrap();
    }
}

/// `PRAGMA locking_mode=EXCLUSIVE` keeps SQLite's locks after a transaction. A transaction that reads does not take the write
/// lock, since that would be kept as well. (In WAL mode SQLite locks the database for itself alone.)
#[test]
fn exclusive_locking_mode_keeps_nothing() {
    for mode in ["delete", "persist"] {
        let board = board(mode);
        let exclusive = connect(&immediate(&board));
        exclusive.execute_batch("PRAGMA locking_mode=exclusive; BEGIN").unwrap();
        exclusive.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        exclusive.execute_batch("COMMIT").unwrap();
        assert_eq!(status(&exclusive, "/holder"), json!(null), "{mode}");
        exclusive.execute_batch("PRAGMA locking_mode=normal; SELECT * FROM t; BEGIN").unwrap();
        exclusive.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        assert_eq!(status(&exclusive, "/holder/this_connection"), true, "{mode}");
    }
}

/// A thread waits at the beginning, and another interrupts it: the wait ends long before the busy timeout. (On the stock VFS,
/// and with SQLite before 3.41, an interrupt takes effect only when a wait is over.)
#[test]
fn an_interrupt_ends_the_wait() {
    for mode in MODES {
        let board = board(mode);
        let holder = connect(&board.kanban());
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let waiter = connect(&immediate(&board));
        waiter.busy_timeout(PATIENCE).unwrap();
        waiter.execute_batch("BEGIN").unwrap();
        let interrupt = waiter.get_interrupt_handle();
        let waiting = std::thread::spawn(move || {
            waiter.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap_err()
        });
        until_waiting(&holder, 1);
        let began = Instant::now();
        interrupt.interrupt();
        let error = waiting.join().unwrap();
        assert!(began.elapsed() < PATIENCE / 3, "{mode}: {:?}", began.elapsed());
        let code = error.sqlite_error().unwrap().extended_code;
        assert_eq!(code, SQLITE_INTERRUPT, "{mode}: {error}");
        holder.execute_batch("COMMIT").unwrap();
    }
}

/// With group commit, the write lock is free before the sync, even if the transaction began with the lock. Two clients commit
/// at the same time, and one sync serves both.
#[test]
fn group_commit_shares_syncs() {
    let board = board("wal");
    let uri = format!("{}&kanban_group_commit=1", immediate(&board));
    let mut clients: Vec<_> = (0..6).map(|n| agent(Program::ALL[n % 2])).collect();
    for client in &mut clients {
        client.open("c", &uri, 60_000);
        client.sql("c", "PRAGMA synchronous=FULL").rows();
    }
    for client in &mut clients {
        for _ in 0..100 {
            let sql = "BEGIN; SELECT count(*) FROM t; INSERT INTO t VALUES (1); COMMIT";
            client.send_sql("c", sql);
        }
    }
    for client in &mut clients {
        for _ in 0..100 {
            client.reply().rows();
        }
    }
    let covered = |client: &mut Agent| {
        let status = client.sql("c", "PRAGMA kanban_status").rows();
        let status: serde_json::Value =
            serde_json::from_str(status[0][0].as_str().unwrap()).unwrap();
        status["counters"]["commits_covered"].as_u64().unwrap()
    };
    assert!(clients.iter_mut().map(covered).sum::<u64>() > 0);
    assert_free(&board, "all have committed");
}

/// A process forks in such a transaction. Neither what the child does nor its end ends the parent's transaction.
#[test]
fn a_child_leaves_its_parents_transaction_alone() {
    for mode in MODES {
        for program in Program::ALL {
            let board = board(mode);
            let mut parent = opened(program, &board, 0);
            parent.sql("c", "BEGIN; SELECT * FROM t").rows();
            parent.fork();
            // The child has the parent's transaction in its memory, and cannot write.
            assert_ne!(parent.child_sql("c", "INSERT INTO t VALUES (7)").code(), SQLITE_BUSY);
            parent.child(&json!(["open", "own", immediate(&board), 0])).rows();
            parent.child_sql("own", "BEGIN; SELECT * FROM t; COMMIT").rows();
            parent.end_child();
            let other = connect(&board.kanban());
            assert_eq!(status(&other, "/holder/pid"), parent.pid(), "{mode}");
            parent.sql("c", "INSERT INTO t VALUES (1); COMMIT").rows();
            assert_free(&board, mode);
        }
    }
}

fn auto(board: &Board) -> String {
    format!("{}&kanban_begin=auto", board.kanban())
}

/// Whether a transaction that begins with this statement takes the write lock first.
#[track_caller]
fn takes_the_lock(client: &mut Agent, sql: &str) -> bool {
    client.sql("c", &format!("BEGIN; {sql}")).rows();
    let text = client.sql("c", "PRAGMA kanban_status").rows();
    let status: serde_json::Value = serde_json::from_str(text[0][0].as_str().unwrap()).unwrap();
    client.sql("c", "COMMIT").rows();
    status["holder"]["this_connection"] == true
}

/// Two clients look for work and then take it, again and again. On the stock VFS the second is refused each time. With `auto`
/// it is refused once: then transactions of this kind take the write lock first, even in processes that come later. The first
/// statement decides the kind, whatever its values. Other kinds begin as before.
#[test]
fn a_kind_of_transaction_is_refused_once() {
    for mode in MODES {
        for (mut first, mut second) in pairs() {
            let board = board(mode);
            first.open("c", &board.kanban(), 60_000);
            let mut round = |second: &mut Agent| {
                second.sql("c", "BEGIN; SELECT max(x) FROM t WHERE x < 7").rows();
                first.send_sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)");
                if let Some(reply) = first.reply_within(Duration::from_millis(100)) {
                    reply.rows();
                    let code = second.sql("c", "INSERT INTO t VALUES (2)").code();
                    assert_eq!(code, SQLITE_BUSY);
                    second.sql("c", "ROLLBACK").rows();
                    first.sql("c", "COMMIT").rows();
                    return false;
                }
                second.sql("c", "INSERT INTO t VALUES (2); COMMIT").rows();
                first.reply().rows();
                first.sql("c", "COMMIT").rows();
                true
            };
            for (uri, expected) in
                [(board.stock(), [false; 3]), (auto(&board), [false, true, true])]
            {
                second.open("c", &uri, 60_000);
                assert_eq!([(); 3].map(|()| round(&mut second)), expected, "{mode}: {uri}");
            }
            for program in Program::ALL {
                let mut third = agent(program);
                third.open("c", &auto(&board), 60_000);
                assert!(takes_the_lock(&mut third, "select max(x)  FROM t WHERE x<12 -- rows"));
                assert!(!takes_the_lock(&mut third, "SELECT min(x) FROM t WHERE x < 7"));
            }
            assert_free(&board, mode);
        }
    }
}

/// A kind of transaction wrote once, and then only reads: it is forgotten, and no longer waits. A kind that writes now and then
/// is not forgotten.
#[test]
fn a_kind_that_only_reads_is_forgotten() {
    for program in Program::ALL {
        let board = board("wal");
        let mut client = agent(program);
        client.open("c", &auto(&board), 60_000);
        let read = "SELECT count(*) FROM t";
        client.sql("c", &format!("BEGIN; {read}")).rows();
        connect(&board.kanban()).execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(client.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        client.sql("c", "ROLLBACK").rows();
        for _ in 0..2 {
            for n in 0..99 {
                assert!(takes_the_lock(&mut client, read), "{n}");
            }
            client.sql("c", &format!("BEGIN; {read}; INSERT INTO t VALUES (3); COMMIT")).rows();
        }
        for _ in 0..100 {
            assert!(takes_the_lock(&mut client, read));
        }
        assert!(!takes_the_lock(&mut client, read));
    }
}

/// A client shows a page now and then, and only reads for that, in a transaction. With `auto` it makes no system call more than
/// with `deferred`, as long as nobody writes: it looks once in 100 ms whether another process has learned something.
#[test]
fn a_reader_makes_no_system_call_more() {
    const PAGES: usize = 40;
    // How many calls the transactions take, and how long.
    let read = |uri: &str| {
        let mut client = agent(Program::Rust);
        client.open("c", uri, 60_000);
        let page = "BEGIN; SELECT count(*) FROM t; COMMIT";
        for _ in 0..20 {
            client.sql("c", page).rows();
        }
        let mut client = Traced::new(client);
        let began = Instant::now();
        let calls = (0..PAGES).map(|_| {
            // More than a tick of the kernel's clock.
            std::thread::sleep(Duration::from_millis(12));
            let made = client.run(&[json!(["sql", "c", page])], |_, _| false);
            made.expect_err("it stops nowhere")
                .iter()
                .filter(|call| **call != libc::SYS_brk)
                .count()
        });
        (calls.sum::<usize>(), began.elapsed())
    };
    let board = board("wal");
    let _keeper = connect(&board.kanban());
    let (deferred, _) = read(&board.kanban());
    let (learning, lasted) = read(&auto(&board));
    assert!(deferred >= 2 * PAGES, "{deferred} calls");
    let looks = 2 + (lasted.as_millis() / 100) as usize;
    assert!(learning <= deferred + looks, "{learning} calls, {deferred} with deferred, {lasted:?}");
}

/// Six clients read and write in tight loops, on a new board. The very first transaction is on trial, and the others wait for
/// it. On the stock VFS many are refused.
#[test]
fn a_storm_learns() {
    for mode in MODES {
        // If a client does not run for as long as the others wait for it, it or they are refused.
        let storm = || {
            let ours = board(mode);
            refused(&ours, &auto(&ours))
        };
        let storms: Vec<_> = std::iter::repeat_with(storm).take(5).collect();
        assert!(storms.iter().filter(|refused| **refused <= 1).count() >= 3, "{mode}: {storms:?}");
    }
}

/// Two clients look for work and then take it, the first to do so since the board was opened. The first has begun to write when
/// the second begins to read: on the stock VFS the second is refused. With `auto` it waits before it reads, although nobody was
/// refused before. From then on all transactions of this kind do.
#[test]
fn the_first_transaction_of_a_kind_is_on_trial() {
    for mode in MODES {
        for (mut first, mut second) in pairs() {
            for is_stock in [true, false] {
                let board = board(mode);
                let uri = if is_stock { board.stock() } else { auto(&board) };
                for client in [&mut first, &mut second] {
                    client.open("c", &uri, 60_000);
                }
                first.sql("c", "BEGIN; SELECT max(x) FROM t; INSERT INTO t VALUES (1)").rows();
                second.send_sql("c", "BEGIN; SELECT max(x) FROM t");
                if is_stock {
                    assert_eq!(second.reply().rows(), [[0]]);
                    assert_eq!(second.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
                    second.sql("c", "ROLLBACK").rows();
                    first.sql("c", "COMMIT").rows();
                } else {
                    until_waiting(&connect(&board.kanban()), 1);
                    first.sql("c", "COMMIT").rows();
                    assert_eq!(second.reply().rows(), [[1]], "{mode}: it reads what was written");
                    second.sql("c", "INSERT INTO t VALUES (2); COMMIT").rows();
                    assert!(takes_the_lock(&mut first, "SELECT max(x) FROM t"), "{mode}");
                }
                for client in [&mut first, &mut second] {
                    client.close("c");
                }
            }
        }
    }
}

/// The first transaction of a kind that writes meets no other of its kind: the next one begins as on the stock VFS, and is on
/// trial itself. If that one does not write, however it ends, no further one is on trial.
#[test]
fn a_trial_ends_with_its_transaction() {
    let read = "SELECT max(x) FROM t";
    for mode in MODES {
        for program in Program::ALL {
            for (end, is_tried_again) in [
                ("INSERT INTO t VALUES (1); COMMIT", true),
                ("INSERT INTO t VALUES (1); ROLLBACK", true),
                ("COMMIT", false),
                ("ROLLBACK", false),
            ] {
                let board = board(mode);
                let _keeper = connect(&board.kanban());
                let mut client = agent(program);
                client.open("c", &auto(&board), 60_000);
                client.sql("c", &format!("BEGIN; {read}; {end}")).rows();
                // A second one writes, and a third begins meanwhile.
                client.sql("c", &format!("BEGIN; {read}; INSERT INTO t VALUES (2)")).rows();
                let mut other = agent(program);
                other.open("c", &auto(&board), 60_000);
                other.send_sql("c", &format!("BEGIN; {read}"));
                if is_tried_again {
                    until_waiting(&connect(&board.kanban()), 1);
                } else {
                    other.reply().rows();
                    other.sql("c", "COMMIT").rows();
                }
                client.sql("c", "COMMIT").rows();
                if is_tried_again {
                    other.reply().rows();
                }
            }
        }
    }
}

/// A transaction has read, and then does nothing for long. Another of its kind waits for a moment, and goes on as on the stock
/// VFS, and so do later ones: as far as anybody knows, they only read. The first ones are refused if they write.
#[test]
fn nobody_waits_long_for_a_transaction_on_trial() {
    let read = "BEGIN; SELECT max(x) FROM t";
    for mode in MODES {
        for (mut first, mut second) in pairs() {
            let board = board(mode);
            for client in [&mut first, &mut second] {
                client.open("c", &auto(&board), 60_000);
            }
            first.sql("c", read).rows();
            assert_eq!(second.sql("c", read).rows(), [[0]]);
            // The second has not taken the write lock, which is free.
            assert_eq!(status_of(&mut second, "c", "/holder"), json!(null), "{mode}");
            second.sql("c", "COMMIT").rows();
            assert!(!takes_the_lock(&mut second, "SELECT max(x) FROM t"), "{mode}");
            second.sql("c", read).rows();
            first.sql("c", "INSERT INTO t VALUES (1)").rows();
            assert_eq!(second.sql("c", "ROLLBACK; BEGIN; SELECT max(x) FROM t").rows(), [[0]]);
            assert_eq!(second.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
            second.sql("c", "ROLLBACK").rows();
            first.sql("c", "COMMIT").rows();
            assert!(takes_the_lock(&mut second, "SELECT max(x) FROM t"), "{mode}");
        }
    }
}

/// Somebody overwrites all the time what was learned, while clients read and write. Transactions may be refused, or wait for
/// their turns; but what is written is there, and nobody crashes.
#[test]
fn a_hostile_page_teaches_no_wrong() {
    use std::os::unix::fs::FileExt;
    let board = board("wal");
    let done = std::sync::atomic::AtomicBool::new(false);
    let keeper = connect(&board.kanban());
    keeper.execute_batch("INSERT INTO t VALUES (0)").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sidecar = std::fs::File::options().write(true).open(board.sidecar()).unwrap();
            let mut seed = 7_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let bytes: Vec<u8> = (0..256).map(|n| (seed >> (n % 56)) as u8).collect();
                sidecar.write_all_at(&bytes, 3840).unwrap();
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        // It checks that exactly the acknowledged rows are there.
        refused(&board, &auto(&board));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_free(&board, "all are done");
}

//! A writer waits at most for its busy timeout. Then it gets SQLITE_BUSY, and the log gets one line that names the database,
//! the wait, the holder, and how long the holder has had the lock.

use std::time::{Duration, Instant};

use serde_json::json;
use vfs_tests::{Board, PATIENCE, Program, Reply};

use crate::{agent, pairs};

const SQLITE_BUSY: i64 = 5;

/// One process holds the write lock and forgets to commit. Others, with their own timeouts, try to write. On the stock VFS
/// they get the error, too, but nothing says who is to blame.
#[test]
fn a_refused_writer_learns_who_holds_the_lock() {
    for journal_mode in ["delete", "wal"] {
        let board = Board::new();
        let mut holder = agent(Program::Python);
        let mut writer = agent(Program::Rust);
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
        holder.sql("h", "CREATE TABLE t (x)").rows();
        holder.sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();

        writer.open("stock", &board.stock(), 300);
        assert_eq!(writer.sql("stock", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        assert_eq!(writer.log(), Vec::<String>::new(), "the stock VFS names nobody");

        writer.open("w", &board.kanban(), 300);
        let mut patient = agent(Program::Rust);
        patient.open("p", &board.kanban(), 60_000);
        patient.send_sql("p", "INSERT INTO t VALUES (3)");
        let began = Instant::now();
        while !writer.sql("w", "PRAGMA kanban_status").rows()[0][0]
            .as_str()
            .is_some_and(|status| status.contains("\"waiters\":1"))
        {
            assert!(began.elapsed() < PATIENCE);
        }
        let began = Instant::now();
        assert_eq!(writer.sql("w", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
        let waited = began.elapsed();
        // The upper bound is for a lost timeout, not for a slow machine.
        let possible = Duration::from_millis(290)..Duration::from_secs(20);
        assert!(possible.contains(&waited), "gave up after {waited:?}");
        let log = writer.log();
        let [line] = &log[..] else { panic!("not one line: {log:?}") };
        assert!(line.starts_with("5 gave up after waiting "), "{line}");
        let holder_is = format!(
            " (1 more in the queue): process {} (python3) has held the write lock for ",
            holder.pid()
        );
        assert!(line.contains(&holder_is), "{line}");
        assert!(line.ends_with(&format!("wait longer: {}", board.path().display())), "{line}");
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let [5, waited_ms, 1, _pid, _python3, held_ms, ..] = numbers[..] else { panic!("{line}") };
        assert!((290..=waited.as_millis() as u64).contains(&waited_ms), "{line}");
        assert!(held_ms >= waited_ms, "{line}");

        // Nothing is lost: the same transaction succeeds when the holder is done.
        holder.sql("h", "COMMIT").rows();
        writer.sql("w", "INSERT INTO t VALUES (2)").rows();
        patient.reply().rows();
        assert_eq!(writer.sql("w", "SELECT count(*) FROM t").rows()[0][0], 3);
        assert_eq!(writer.log(), Vec::<String>::new());
    }
}

/// A writer waits for a holder that commits in time, in all four pairs of two programs, with SQLite 3.40.1 and the newest.
#[test]
fn a_writer_gets_its_turn_when_the_holder_commits_in_time() {
    for (mut holder, mut writer) in pairs() {
        let board = Board::new();
        holder.open("h", &board.kanban(), 30_000);
        writer.open("w", &board.kanban(), 30_000);
        holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
        writer.send_sql("w", "INSERT INTO t VALUES (1)");
        assert_eq!(writer.reply_within(Duration::from_millis(100)), None, "the writer waits");
        holder.sql("h", "COMMIT").rows();
        writer.reply().rows();
    }
}

/// A client that sets no busy timeout (the C interface sets none) gets 5000 ms, or what its connection string says. A client
/// that asks for none gets none.
#[test]
fn a_connection_that_sets_no_timeout_gets_one() {
    for (suffix, expected) in
        [("", 5000), ("&kanban_busy_timeout=40", 40), ("&kanban_busy_timeout=0", 0)]
    {
        let board = Board::new();
        let mut client = agent(Program::Rust);
        client.try_open("stock", &board.stock()).rows();
        assert_eq!(client.sql("stock", "PRAGMA busy_timeout").rows()[0][0], 0);
        client.try_open("c", &format!("{}{suffix}", board.kanban())).rows();
        assert_eq!(client.sql("c", "PRAGMA busy_timeout").rows()[0][0], expected);
        client.open("zero", &board.kanban(), 0);
        assert_eq!(client.sql("zero", "PRAGMA busy_timeout").rows()[0][0], 0);
    }
}

/// A client with a timeout of 0 is refused at once. The log gets its line later, when the client is used again, or closed.
#[test]
fn a_writer_that_does_not_wait_is_refused_at_once() {
    let board = Board::new();
    let mut holder = agent(Program::Rust);
    let mut writer = agent(Program::Rust);
    holder.open("h", &board.kanban(), 5000);
    holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    writer.open("w", &board.kanban(), 0);
    writer.send_sql("w", "INSERT INTO t VALUES (1)");
    let refused = writer.reply_within(Duration::from_secs(20));
    assert_eq!(refused.map(Reply::code), Some(SQLITE_BUSY));
    writer.close("w");
    let log = writer.log();
    let [line] = &log[..] else { panic!("not one line: {log:?}") };
    assert!(line.contains("gave up after waiting 0 ms"), "{line}");
    assert!(line.contains(&format!("process {}", holder.pid())), "{line}");
}

/// The same, but another client, or the refused client itself, writes by the time at which that is noticed. The line names the
/// client that was in its way.
#[test]
fn a_refusal_that_is_noticed_late_names_its_holder() {
    for writes_then in [true, false] {
        let board = Board::new();
        let [mut holder, mut other, mut writer] = [(); 3].map(|()| agent(Program::Rust));
        holder.open("h", &board.kanban(), 5000);
        other.open("o", &board.kanban(), 5000);
        holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
        writer.open("w", &board.kanban(), 0);
        assert_eq!(writer.sql("w", "INSERT INTO t VALUES (1)").code(), SQLITE_BUSY);
        holder.sql("h", "COMMIT").rows();
        if !writes_then {
            other.sql("o", "BEGIN IMMEDIATE").rows();
        }
        std::thread::sleep(Duration::from_millis(1200));
        if writes_then {
            writer.sql("w", "INSERT INTO t VALUES (1)").rows();
        }
        writer.close("w");
        let log = writer.log();
        let [line] = &log[..] else { panic!("not one line: {log:?}") };
        let named = format!(": process {} (agent) had the write lock then; ", holder.pid());
        assert!(line.contains(&named), "{line}");
    }
}

/// An application's own busy handler calls sqlite3_sleep, 10 ms each time, and goes on. The VFS is the default one, so it gets
/// these sleeps, too. The end of one does not mean that the client has given up. (SQLite's mptester took each such line in the
/// log for an error, 652 in one run.)
#[test]
fn a_client_that_waits_by_its_own_handler_has_not_given_up() {
    for journal_mode in ["delete", "wal"] {
        let board = Board::new();
        let mut holder = agent(Program::Rust);
        let mut writer = agent(Program::Rust);
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
        holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
        writer.open("w", &board.kanban(), 0);
        writer.call(&json!(["own busy handler", "w"])).rows();
        writer.send_sql("w", "INSERT INTO t VALUES (1)");
        assert_eq!(writer.reply_within(Duration::from_millis(300)), None, "it waits");
        holder.sql("h", "COMMIT").rows();
        writer.reply().rows();
        assert_eq!(writer.log(), Vec::<String>::new(), "{journal_mode}");
    }
}

/// The same with a handler that sleeps for longer than SQLite's own ever does, and makes no call for more than a second.
#[test]
fn a_client_whose_handler_sleeps_long_has_not_given_up() {
    let board = Board::new();
    let mut holder = agent(Program::Rust);
    let mut writer = agent(Program::Rust);
    holder.open("h", &board.kanban(), 5000);
    holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    writer.open("w", &board.kanban(), 0);
    writer.call(&json!(["own busy handler", "w", 1200])).rows();
    writer.send_sql("w", "INSERT INTO t VALUES (1)");
    assert_eq!(writer.reply_within(Duration::from_millis(1500)), None, "it waits");
    holder.sql("h", "COMMIT").rows();
    writer.reply().rows();
    assert_eq!(writer.log(), Vec::<String>::new());
}

/// A writer gives up when the sum of SQLite's sleeps is exactly its timeout, so no sleep is cut short and nothing shows that
/// it was the last. Then the holder commits. Nobody has the lock, nobody waits, and the next writer, which does not wait, is
/// not refused. It once was, for 50 ms, because the turn went to the writer that had gone.
#[test]
fn a_writer_that_has_given_up_keeps_nobody_out() {
    for vfs in ["unix", "kanban"] {
        for timeout in [8, 33, 103, 128] {
            for journal_mode in ["delete", "wal"] {
                let board = Board::new();
                let [mut holder, mut writer, mut next] = [(); 3].map(|()| agent(Program::Rust));
                holder.open("h", &board.uri(vfs), 5000);
                holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
                holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
                next.open("n", &board.uri(vfs), 0);
                writer.open("w", &board.uri(vfs), timeout);
                assert_eq!(writer.sql("w", "INSERT INTO t VALUES (1)").code(), SQLITE_BUSY);
                holder.sql("h", "COMMIT").rows();
                next.sql("n", "INSERT INTO t VALUES (2)").rows();
                if vfs == "kanban" {
                    let status = next.sql("n", "PRAGMA kanban_status").rows();
                    assert!(status[0][0].as_str().unwrap().contains("\"waiters\":0"), "{status:?}");
                }
            }
        }
    }
}

/// A transaction over two attached boards waits for the first, is woken long before the sleep of SQLite's busy handler is
/// over, and waits for the second until it gives up. SQLite counts what it asked to sleep, over the whole statement. So what
/// was not slept for the first board is left for the second. (SQLITE_BUSY once came after 278 of 300 ms.)
#[test]
fn a_timeout_over_two_boards_is_what_passes() {
    for timeout in [100, 300] {
        for vfs in ["unix", "kanban"] {
            let boards = [Board::new(), Board::new()];
            let [mut first, mut second, mut writer] = [(); 3].map(|()| agent(Program::Rust));
            for (holder, board) in [&mut first, &mut second].into_iter().zip(&boards) {
                holder.open("h", &board.uri(vfs), 5000);
                holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
                holder.sql("h", "BEGIN IMMEDIATE").rows();
            }
            writer.open("w", &boards[0].uri(vfs), timeout);
            writer.sql("w", &format!("ATTACH '{}' AS other", boards[1].uri(vfs))).rows();
            let began = Instant::now();
            writer.send_sql("w", "BEGIN IMMEDIATE");
            // In the middle of one of the longer sleeps, or of the last one.
            let until = if timeout == 100 { 85 } else { 190 };
            std::thread::sleep(Duration::from_millis(until).saturating_sub(began.elapsed()));
            first.sql("h", "COMMIT").rows();
            assert_eq!(writer.reply().code(), SQLITE_BUSY);
            let waited = began.elapsed();
            assert!(
                waited >= Duration::from_millis(timeout.into()).mul_f64(0.97),
                "{vfs}: {waited:?}"
            );
        }
    }
}

/// Processes write in tight loops, so that a writer with a short timeout is woken again and again, often in vain. It is not
/// refused before its timeout is over. (Some once were, after 8 of 20 ms.)
#[test]
fn nobody_is_refused_before_the_timeout_is_over() {
    let board = Board::new();
    let kanban = board.kanban();
    let mut writers: Vec<_> = (0..6).map(|_| agent(Program::Rust)).collect();
    for (n, writer) in writers.iter_mut().enumerate() {
        writer.open("w", &kanban, 60_000);
        if n == 0 {
            writer.sql("w", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
        }
        writer.sql("w", "PRAGMA synchronous=off").rows();
        for _ in 0..3000 {
            writer.send_sql("w", "INSERT INTO t VALUES (1)");
        }
    }
    let early = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for timeout in [20, 30, 50, 100].map(Duration::from_millis) {
            let (uri, early) = (&kanban, &early);
            scope.spawn(move || {
                let probe = crate::connect(uri);
                probe.busy_timeout(timeout).unwrap();
                let all = Instant::now();
                while all.elapsed() < Duration::from_secs(3) {
                    let began = Instant::now();
                    let Err(error) = probe.execute_batch("BEGIN IMMEDIATE; COMMIT") else {
                        continue;
                    };
                    let waited = began.elapsed();
                    if waited < timeout.mul_f64(0.95) {
                        let line = format!("{error:?} after {waited:?} of {timeout:?}");
                        early.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let early = early.into_inner().unwrap();
    assert!(early.is_empty(), "{early:#?}");
    for writer in &mut writers {
        for _ in 0..3000 {
            writer.reply().rows();
        }
    }
}

/// SQLite 3.40.1 cuts a line of its log after 210 bytes. For a board in a deep directory, the board's name is cut from the
/// left, and the event is complete.
#[test]
fn a_long_path_does_not_crowd_out_the_holder() {
    vfs_tests::needs!("sqlite3");
    let root = Board::new();
    let deep = root.directory().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let uri = format!("file:{}?vfs=kanban", deep.join("board.db").display());
    let mut holder = agent(Program::Rust);
    holder.open("h", &uri, 5000);
    holder.sql("h", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    let load = format!(".load {}", vfs_tests::extension().display());
    let output = std::process::Command::new("sqlite3")
        .args([":memory:", "-cmd", ".log stdout", "-cmd", &load, "-cmd", &format!(".open {uri}")])
        .args(["-cmd", ".timeout 100", "INSERT INTO t VALUES (1)"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        said.lines().find(|line| line.contains("gave up")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("process {}", holder.pid())), "{line}");
    assert!(line.contains("wait longer: ..."), "{line}");
    assert!(line.ends_with("e/board.db"), "{line}");
}

/// A dashboard opens the board, reads and closes, beside a writer and alone. The last connection to close tries for a lock to
/// clean up, but need not get it. Nobody has given up then, and nobody is to blame.
#[test]
fn readers_that_close_leave_no_line_in_the_log() {
    let board = Board::new();
    let (mut writer, mut reader) = (agent(Program::Python), agent(Program::Rust));
    writer.open("w", &board.kanban(), 5000);
    writer.sql("w", "PRAGMA journal_mode=wal; CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    for suffix in ["", "&mode=ro"] {
        for name in ["a", "b", "c"] {
            reader.open(name, &format!("{}{suffix}", board.kanban()), 5000);
            reader.sql(name, "SELECT * FROM t").rows();
        }
        for name in ["a", "b", "c"] {
            reader.close(name);
        }
    }
    assert_eq!(reader.log(), Vec::<String>::new());
}

/// A read transaction that upgrades gets SQLITE_BUSY at once, as SQLite documents: waiting could
/// only make its snapshot staler.
#[test]
fn a_reader_that_upgrades_is_refused_at_once() {
    for journal_mode in ["delete", "wal"] {
        let board = Board::new();
        let mut holder = agent(Program::Python);
        let mut reader = agent(Program::Rust);
        holder.open("h", &board.kanban(), 5000);
        holder.sql("h", &format!("PRAGMA journal_mode={journal_mode}")).rows();
        holder.sql("h", "CREATE TABLE t (x)").rows();
        reader.open("r", &board.kanban(), 60_000);
        reader.sql("r", "BEGIN; SELECT * FROM t").rows();
        holder.sql("h", "BEGIN IMMEDIATE").rows();
        reader.send_sql("r", "INSERT INTO t VALUES (1)");
        let refused = reader.reply_within(Duration::from_secs(20));
        assert_eq!(refused.map(Reply::code), Some(SQLITE_BUSY), "{journal_mode}");
        holder.sql("h", "ROLLBACK").rows();
        reader.sql("r", "INSERT INTO t VALUES (1); COMMIT").rows();
    }
}

/// A driver sets a busy timeout of 0, or of a few ms. On the stock VFS, and on this one, its writers are refused at once while
/// another writes. With `kanban_busy_timeout_min` they wait at least that long, inside a transaction and outside. Clients that
/// only read wait for nobody.
#[test]
fn a_driver_that_sets_no_timeout_still_waits() {
    for mode in ["wal", "delete"] {
        for program in Program::ALL {
            let board = Board::new();
            let mut holder = agent(Program::Rust);
            holder.open("h", &board.kanban(), 0);
            holder.sql("h", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
            let at_least = |ms| format!("{}&kanban_busy_timeout_min={ms}", board.kanban());
            for sql in
                ["INSERT INTO t VALUES (1)", "BEGIN IMMEDIATE", "BEGIN; INSERT INTO t VALUES (1)"]
            {
                for driver in ["PRAGMA busy_timeout=0", "PRAGMA busy_timeout=3", "SELECT 1"] {
                    holder.sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (0)").rows();
                    let mut client = agent(program);
                    for stock in [board.stock(), board.kanban()] {
                        client.open("c", &stock, 0);
                        client.sql("c", driver).rows();
                        assert_eq!(client.sql("c", sql).code(), SQLITE_BUSY, "{mode}: {sql}");
                    }
                    client.open("c", &at_least(60_000), 0);
                    client.sql("c", driver).rows();
                    client.sql("c", "SELECT count(*) FROM t").rows();
                    client.send_sql("c", sql);
                    let early = client.reply_within(Duration::from_millis(60));
                    assert_eq!(early, None, "{mode}: {sql}, {driver}");
                    holder.sql("h", "COMMIT").rows();
                    client.reply().rows();
                }
            }
            // The wait ends when its least time is over.
            holder.sql("h", "BEGIN IMMEDIATE").rows();
            let mut client = agent(program);
            client.open("c", &at_least(700), 0);
            let began = Instant::now();
            assert_eq!(client.sql("c", "INSERT INTO t VALUES (1)").code(), SQLITE_BUSY);
            let possible = Duration::from_millis(630)..Duration::from_secs(20);
            assert!(possible.contains(&began.elapsed()), "{mode}: {:?}", began.elapsed());
            // The log says how long the client waited.
            client.close("c");
            if program == Program::Rust {
                let log = client.log();
                let waited = |line: &String| {
                    let mut numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
                    line.contains("gave up after waiting") && numbers.any(|ms| ms >= 630)
                };
                assert!(log.iter().any(waited), "{log:?}");
            }
        }
    }
}

/// In a rollback mode, a reader keeps a COMMIT waiting, and a COMMIT keeps a reader waiting.
#[test]
fn a_driver_that_sets_no_timeout_waits_for_sqlites_own_locks() {
    for program in Program::ALL {
        let board = Board::new();
        let mut other = agent(Program::Rust);
        other.open("o", &board.stock(), 10_000);
        other.sql("o", "CREATE TABLE t (x); INSERT INTO t VALUES (0)").rows();
        for (holds, sql) in [
            ("BEGIN; SELECT * FROM t", "INSERT INTO t VALUES (1)"),
            ("BEGIN EXCLUSIVE", "SELECT * FROM t"),
        ] {
            let mut client = agent(program);
            other.sql("o", holds).rows();
            client.open("c", &board.stock(), 0);
            assert_eq!(client.sql("c", sql).code(), SQLITE_BUSY);
            client.open("c", &format!("{}&kanban_busy_timeout_min=60000", board.kanban()), 0);
            client.send_sql("c", sql);
            assert_eq!(client.reply_within(Duration::from_millis(60)), None, "{sql}");
            other.sql("o", "COMMIT").rows();
            client.reply().rows();
        }
    }
}

/// An application waits with its own handler, which sleeps for 1 ms and gives up after the third call. Its wait does not
/// change, whatever `kanban_busy_timeout_min` says.
#[test]
fn a_busy_handler_of_the_applications_own_is_left_alone() {
    for mode in ["wal", "delete"] {
        let board = Board::new();
        let holder = crate::connect(&board.kanban());
        holder.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).unwrap();
        let uri = format!("{}&kanban_busy_timeout_min=60000", board.kanban());
        let mut own = crate::connect(&uri);
        own.busy_handler(Some(|n| {
            std::thread::sleep(Duration::from_millis(1));
            n < 3
        }))
        .unwrap();
        own.execute_batch("SELECT * FROM t").unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = Instant::now();
        own.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(30), "{mode}: {:?}", began.elapsed());
    }
}

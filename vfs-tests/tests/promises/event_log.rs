//! "database is locked", last night, when nobody was looking. In the morning the event log beside the board says who was
//! refused, who had the lock, who died, and what took long. Nothing fails because of the log, and it does not grow.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use kanban_vfs::observation::{Cause, Event, EventKind, NoLog, Outcome};
use rusqlite::ffi::SQLITE_IOERR_FSYNC;
use serde_json::{Value, json};
use vfs_tests::base::{Fault, File, Method};
use vfs_tests::needs::ROOT;
use vfs_tests::{Agent, Board, Program, needs};

use crate::full_disk::Disk;
use crate::{Client, agent, beside, connect, over_faulty, stock_agent};

fn log_path(board: &Board) -> PathBuf {
    beside(board, "-kanban-log")
}

/// The events of a board's log; none if there is no log.
fn events(path: &Path) -> Vec<Event> {
    match kanban_vfs::observe(path).unwrap().event_log() {
        Ok(log) => log.events,
        Err(NoLog::Missing) => Vec::new(),
        Err(why) => panic!("{why}"),
    }
}

/// The events of one kind.
fn of(board: &Board, kind: EventKind) -> Vec<Event> {
    events(&board.path()).into_iter().filter(|event| event.kind == kind).collect()
}

/// A client whose connection `c` has a busy timeout in ms and these parameters.
fn client(board: &Board, timeout: u32, parameters: &str) -> Agent {
    let mut client = agent(Program::Python);
    client.open("c", &format!("{}{parameters}", board.kanban()), timeout);
    client
}

/// A board in a journal mode, with a table of one row. No client has it open, and it has no log.
fn board(mode: &str) -> Board {
    let board = Board::new();
    let mut maker = client(&board, 5000, "&kanban_record=0");
    let sql = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (0)");
    maker.sql("c", &sql).rows();
    maker.close("c");
    board
}

/// A worker waits in vain for the dispatcher, and ends; the dispatcher ends, too. In the morning no client has the board open.
/// The log says who was refused, how long it had waited, and who had the lock. On the stock VFS nothing does.
#[test]
fn a_refused_client_is_found_in_the_morning() {
    for mode in ["wal", "delete"] {
        for client_is in [Client::Stock, Client::Ours] {
            let board = board(mode);
            let (mut holder, mut worker) =
                (client_is.start(Program::Python), client_is.start(Program::Python));
            holder.open("c", &client_is.uri(&board), 0);
            worker.open("c", &client_is.uri(&board), 120);
            holder.sql("c", "BEGIN IMMEDIATE").rows();
            assert_eq!(worker.sql("c", "BEGIN IMMEDIATE").message(), "database is locked");
            let (holder_pid, worker_pid) = (holder.pid(), worker.pid());
            worker.close("c");
            holder.sql("c", "ROLLBACK").rows();
            holder.close("c");
            drop((holder, worker));
            if client_is == Client::Stock {
                assert!(!log_path(&board).exists());
                continue;
            }
            let found = of(&board, EventKind::GiveUp);
            let [event] = &found[..] else { panic!("{mode}: {found:#?}") };
            assert_eq!(event.process.pid, worker_pid, "{mode}");
            assert!(event.process.command.contains("agent.py"), "{event:?}");
            let had_lock = event.holder.as_ref().expect("it was there");
            assert_eq!((had_lock.pid, event.cause), (holder_pid, Some(Cause::WriteLock)));
            assert!(had_lock.command.contains("agent.py"), "{event:?}");
            assert!(event.waited >= Duration::from_millis(100), "{event:?}");
            assert_eq!((event.code, event.first_statement.as_deref()), (5, None));
        }
    }
}

/// A worker reads in a transaction, and another client commits. The worker's write is refused at once, whatever its timeout. Or
/// the other has not committed yet, and has the lock. The log shows which of the two it was and, with `kanban_record_sql`, the
/// refused statement without its values.
#[test]
fn a_refused_upgrade_has_its_reason() {
    for (commits, cause) in [(true, Cause::StaleSnapshot), (false, Cause::WriteLock)] {
        let board = board("wal");
        let (mut reader, mut writer) =
            (client(&board, 5000, "&kanban_record_sql=1"), client(&board, 5000, ""));
        reader.sql("c", "BEGIN; SELECT * FROM t").rows();
        writer.sql("c", "BEGIN IMMEDIATE; UPDATE t SET x = x + 1").rows();
        if commits {
            writer.sql("c", "COMMIT").rows();
        }
        let refused = reader.sql("c", "UPDATE t SET x = x + 10 WHERE x > -1").message();
        assert_eq!(refused, "database is locked");
        let found = of(&board, EventKind::Refusal);
        let [event] = &found[..] else { panic!("{cause:?}: {found:#?}") };
        assert_eq!((event.process.pid, event.cause), (reader.pid(), Some(cause)));
        assert_eq!(event.holder.as_ref().map(|it| it.pid), (!commits).then(|| writer.pid()));
        let statement = event.first_statement.as_deref().expect("it is recorded");
        assert!(statement.starts_with("UPDATE t SET x = x + 10"), "{statement}");
        reader.sql("c", "ROLLBACK").rows();
        reader.close("c");
        assert_eq!(of(&board, EventKind::Refusal).len(), 1, "it is told once");
        assert_eq!(of(&board, EventKind::GiveUp), []);
    }
}

/// A client without a busy timeout is refused while another writes. That is recorded when the client uses the board again, or
/// closes it.
#[test]
fn a_client_that_does_not_wait_is_reported_too() {
    let board = board("wal");
    let (mut holder, mut hasty) = (client(&board, 0, ""), client(&board, 0, ""));
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(hasty.sql("c", "UPDATE t SET x = 1").message(), "database is locked");
    hasty.close("c");
    let found = of(&board, EventKind::Refusal);
    let [event] = &found[..] else { panic!("{found:#?}") };
    assert_eq!(event.holder.as_ref().map(|it| it.pid), Some(holder.pid()));
}

/// A client without a busy timeout is refused while one worker writes. It comes back later, when another worker writes, or it
/// closes the board then. The log names the worker that was in its way, the refused statement, and the time of the refusal.
#[test]
fn a_refusal_that_is_noticed_late_is_told_as_it_was() {
    for closes in [true, false] {
        let board = board("wal");
        let (mut first, mut second) = (client(&board, 0, ""), client(&board, 0, ""));
        let mut hasty = client(&board, 0, "&kanban_record_sql=1");
        first.sql("c", "BEGIN IMMEDIATE").rows();
        assert_eq!(hasty.sql("c", "UPDATE t SET x = 1").message(), "database is locked");
        let refused_before = UNIX_EPOCH.elapsed().unwrap();
        first.sql("c", "COMMIT").rows();
        second.sql("c", "BEGIN IMMEDIATE").rows();
        std::thread::sleep(Duration::from_millis(1200));
        if closes {
            hasty.close("c");
        } else {
            assert_eq!(hasty.sql("c", "DELETE FROM t").message(), "database is locked");
        }
        let found = of(&board, EventKind::Refusal);
        let [event] = &found[..] else { panic!("{closes}: {found:#?}") };
        let holder = event.holder.as_ref().expect("it was there");
        assert_eq!((holder.pid, event.cause), (first.pid(), Some(Cause::WriteLock)), "{closes}");
        assert!(holder.command.contains("agent.py"), "{event:?}");
        assert_eq!(event.first_statement.as_deref(), Some("UPDATE t SET x = 1"), "{closes}");
        assert!(Duration::from_micros(event.unix_us) <= refused_before, "{closes}: {event:?}");
    }
}

/// Returns when a client has waited for so long that it knows who the holder is.
fn waits(board: &Board) {
    let began = Instant::now();
    let waited = || kanban_vfs::observe(board.path()).unwrap().queue.first().map(|it| it.waited);
    while waited().is_none_or(|waited| waited < Duration::from_millis(300)) {
        assert!(began.elapsed() < vfs_tests::PATIENCE, "nobody waits");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The dispatcher is killed in the middle of a transaction while a worker waits. The worker goes on, and the log says who died.
/// If a dispatcher commits and then ends, the log has no such event.
#[test]
fn a_holder_that_dies_is_recorded() {
    for is_killed in [true, false] {
        let board = board("wal");
        let (mut holder, mut worker) = (client(&board, 0, ""), client(&board, 60_000, ""));
        holder.sql("c", "BEGIN IMMEDIATE; UPDATE t SET x = 1").rows();
        let pid = holder.pid();
        worker.send_sql("c", "BEGIN IMMEDIATE");
        waits(&board);
        if is_killed {
            holder.kill();
        } else {
            holder.sql("c", "COMMIT").rows();
            holder.close("c");
            drop(holder);
        }
        worker.reply().rows();
        worker.sql("c", "COMMIT").rows();
        let found = of(&board, EventKind::HolderDied);
        let dead: Vec<_> =
            found.iter().filter_map(|event| Some(event.holder.as_ref()?.pid)).collect();
        assert_eq!(dead, if is_killed { vec![pid] } else { vec![] }, "{found:#?}");
        if let Some(event) = found.first() {
            assert_eq!(event.process.pid, worker.pid());
            assert!(event.holder.as_ref().is_some_and(|it| it.command.contains("agent.py")));
        }
    }
}

/// A transaction holds the lock for long, and another waits for it: both are recorded, with what they committed and, if asked
/// for, with their statements. Short ones are not.
#[test]
fn a_slow_transaction_is_recorded_with_its_statements() {
    for mode in ["wal", "delete"] {
        let board = board(mode);
        let mut slow = client(&board, 5000, "&kanban_slow_ms=150&kanban_record_sql=1");
        let mut waits = client(&board, 5000, "&kanban_slow_ms=150");
        for n in 0..20 {
            waits.sql("c", &format!("INSERT INTO t VALUES ({n})")).rows();
        }
        slow.sql("c", "BEGIN IMMEDIATE").rows();
        slow.sql("c", "INSERT INTO t SELECT randomblob(5000) FROM t").rows();
        waits.send_sql("c", "DELETE FROM t");
        std::thread::sleep(Duration::from_millis(400));
        slow.sql("c", "COMMIT").rows();
        waits.reply().rows();
        let (slow_pid, waits_pid) = (slow.pid(), waits.pid());
        slow.sql("c", "BEGIN IMMEDIATE").rows();
        std::thread::sleep(Duration::from_millis(200));
        slow.sql("c", "ROLLBACK").rows();
        let all = of(&board, EventKind::Transaction);
        let by = |pid| all.iter().filter(move |event| event.process.pid == pid).collect::<Vec<_>>();
        let [held, rolled_back] = by(slow_pid)[..] else { panic!("{mode}: {all:#?}") };
        assert!(held.held >= Duration::from_millis(400) && held.waited.is_zero(), "{held:?}");
        assert_eq!(held.outcome, Some(Outcome::Committed), "{mode}");
        assert!(mode != "wal" || held.frames >= 20, "{held:?}");
        assert_eq!(held.first_statement.as_deref(), Some("BEGIN IMMEDIATE"));
        assert_eq!(held.last_statement.as_deref(), Some("COMMIT"));
        assert_eq!(
            (rolled_back.outcome, rolled_back.frames),
            (Some(Outcome::RolledBack), 0),
            "{mode}"
        );
        let waited = by(waits_pid);
        let [waited] = waited[..] else { panic!("{mode}: {all:#?}") };
        assert!(waited.waited >= Duration::from_millis(150), "{waited:?}");
        assert_eq!((&waited.first_statement, waited.outcome), (&None, Some(Outcome::Committed)));
    }
}

/// A writer in a rollback mode is killed when it has begun to write the database. The client that rolls the journal back
/// records that.
#[test]
fn a_journal_that_was_left_is_recorded() {
    let board = board("delete");
    let mut writer = client(&board, 0, "");
    // The cache is too small for the transaction, so the database is written before the end.
    writer
        .sql(
            "c",
            "PRAGMA cache_size=5; BEGIN; INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL \
        SELECT i + 1 FROM n WHERE i < 100) SELECT randomblob(2000) FROM n",
        )
        .rows();
    writer.kill();
    let mut next = client(&board, 5000, "");
    assert_eq!(next.sql("c", "SELECT count(*) FROM t").rows(), [[1]]);
    let found = of(&board, EventKind::JournalRolledBack);
    assert_eq!(found.iter().map(|event| event.process.pid).collect::<Vec<_>>(), [next.pid()]);
}

/// `PRAGMA kanban_log` answers the events as JSON, on a board with a log and on one without. The tool reads the same events.
#[test]
fn the_pragma_answers_the_events() {
    let board = board("wal");
    let mut client = client(&board, 0, "&kanban_slow_ms=20");
    let ask = |client: &mut Agent| -> Value {
        let rows = client.sql("c", "PRAGMA kanban_log").rows();
        serde_json::from_str(rows[0][0].as_str().unwrap()).unwrap()
    };
    assert_eq!(ask(&mut client), json!([]));
    client.sql("c", "BEGIN IMMEDIATE").rows();
    std::thread::sleep(Duration::from_millis(60));
    client.sql("c", "ROLLBACK").rows();
    let told = ask(&mut client);
    assert_eq!(told.as_array().unwrap().len(), 1, "{told:#}");
    assert_eq!(
        (&told[0]["event"], &told[0]["process"]["pid"]),
        (&json!("transaction"), &json!(client.pid()))
    );
    fs::remove_file(log_path(&board)).unwrap();
    fs::write(log_path(&board), "something else").unwrap();
    let why = client.sql("c", "PRAGMA kanban_log").message();
    assert!(why.contains("holds something else"), "{why}");
}

/// What must create no log: connections that record nothing, a database that is created in one long transaction, a copy by
/// VACUUM INTO, short transactions, and clients that do not name the VFS.
#[test]
fn events_not_worth_a_file_leave_none() {
    let board = board("wal");
    let mut off = client(&board, 0, "&kanban_record=0&kanban_slow_ms=0");
    off.sql("c", "BEGIN IMMEDIATE").rows();
    std::thread::sleep(Duration::from_millis(150));
    off.sql("c", "UPDATE t SET x = 1; COMMIT").rows();
    off.close("c");
    let mut stock = stock_agent(Program::Python);
    stock.open("c", &board.stock(), 0);
    stock.sql("c", "BEGIN IMMEDIATE").rows();
    std::thread::sleep(Duration::from_millis(150));
    stock.sql("c", "COMMIT").rows();
    let mut short = client(&board, 0, "&kanban_slow_ms=60000");
    short.sql("c", "UPDATE t SET x = 2").rows();
    short.close("c");
    assert!(!log_path(&board).exists());

    let fresh = Board::new();
    let mut maker = client(&fresh, 0, "&kanban_slow_ms=20");
    maker.sql("c", "BEGIN IMMEDIATE; CREATE TABLE t (x)").rows();
    std::thread::sleep(Duration::from_millis(60));
    maker.sql("c", "COMMIT").rows();
    assert!(!log_path(&fresh).exists(), "a new database");
    let copy = fresh.directory().join("copy.db");
    let into = format!("VACUUM INTO 'file:{}?vfs=kanban&kanban_slow_ms=0'", copy.display());
    maker.sql("c", &into).rows();
    let copied = format!("{}-kanban-log", copy.display());
    assert!(copy.exists() && !Path::new(&copied).exists());
}

/// Users of one group share a board. A member that did not create the log records in it, and so does root. A user that may only
/// read the board is not refused, and records nothing.
#[test]
fn the_log_follows_the_rights_of_its_board() {
    needs!(ROOT);
    let board = board("delete");
    let place = board.directory();
    let (user, group) = (2001, 3000);
    std::os::unix::fs::chown(&place, Some(0), Some(group)).unwrap();
    fs::set_permissions(&place, PermissionsExt::from_mode(0o2775)).unwrap();
    std::os::unix::fs::chown(board.path(), Some(user), Some(group)).unwrap();
    fs::set_permissions(board.path(), PermissionsExt::from_mode(0o664)).unwrap();
    let slow = |client: &mut Agent| {
        client.sql("c", "BEGIN IMMEDIATE").rows();
        std::thread::sleep(Duration::from_millis(60));
        client.sql("c", "COMMIT").rows();
    };
    let start = |who: u32| {
        let mut client = agent(Program::Python);
        client.call(&json!(["become", who, who, [group], 0o077])).rows();
        client.open("c", &format!("{}&kanban_slow_ms=20", board.kanban()), 0);
        client
    };
    slow(&mut start(2002));
    slow(&mut start(2001));
    let found = log_path(&board).metadata().unwrap();
    assert_eq!((found.gid(), found.mode() & 0o777), (group, 0o664));
    let mut root = client(&board, 0, "&kanban_slow_ms=20");
    slow(&mut root);
    assert_eq!(
        log_path(&board).metadata().unwrap().uid(),
        user,
        "root gives it to the board's owner"
    );
    assert_eq!(events(&board.path()).len(), 3);

    // Another user, who may only read the board.
    let mut stranger = agent(Program::Python);
    stranger.call(&json!(["become", 2009, 2009, [], 0o022])).rows();
    stranger.open("c", &format!("{}&kanban_slow_ms=0", board.kanban()), 0);
    assert_eq!(stranger.sql("c", "SELECT count(*) FROM t").rows(), [[1]]);
    let refused = stranger.sql("c", "UPDATE t SET x = 1").message();
    assert!(refused.contains("readonly"), "{refused}");
    let told = stranger.sql("c", "PRAGMA kanban_log").rows();
    assert!(told[0][0].as_str().unwrap().starts_with("[{"), "{told:?}");
    assert_eq!(events(&board.path()).len(), 3);
    // The log belongs to another user by now, and may not be written: the transaction goes on.
    fs::set_permissions(log_path(&board), PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(log_path(&board), Some(0), Some(0)).unwrap();
    slow(&mut start(2002));
    assert_eq!(events(&board.path()).len(), 3);
}

/// The disk is full, except for the pages that the WAL already has: transactions commit, and nothing is recorded. With room
/// again, events are recorded.
#[test]
fn a_full_disk_fails_no_transaction() {
    needs!(ROOT);
    let board = Board::new();
    let disk = match Disk::mount(&board.directory(), c"size=4m") {
        Ok(disk) => disk,
        Err(why) => return vfs_tests::skip!(&why),
    };
    let mut client = client(&board, 0, "&kanban_slow_ms=0");
    client.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (0)").rows();
    for _ in 0..3 {
        client.sql("c", "UPDATE t SET x = x + 1").rows();
    }
    let before = events(&board.path()).len();
    client.sql("c", "PRAGMA wal_checkpoint(RESTART)").rows();
    let filler = disk.fill();
    std::thread::sleep(Duration::from_millis(1100));
    for _ in 0..3 {
        client.sql("c", "UPDATE t SET x = x + 1").rows();
    }
    assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[6]]);
    let full = events(&board.path()).len();
    fs::remove_file(filler).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    client.sql("c", "UPDATE t SET x = x + 1").rows();
    let after = events(&board.path()).len();
    assert!(before > 0 && full <= before + 1 && after > full, "{before}, {full}, {after}");
}

/// Three processes write, two of them at the same time and one for a moment; one is refused. When they have closed the board,
/// its counters are the sum of theirs.
#[test]
fn counters_are_those_of_the_board() {
    let board = board("wal");
    kanban_vfs::observe(board.path()).unwrap().make_event_log().unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| client(&board, 50, "")).collect();
    for client in &mut clients {
        for _ in 0..50 {
            client.sql("c", "UPDATE t SET x = x + 1").rows();
        }
    }
    clients[0].sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(clients[1].sql("c", "BEGIN IMMEDIATE").message(), "database is locked");
    clients[0].sql("c", "COMMIT").rows();
    clients[2].sql("c", "PRAGMA wal_checkpoint(PASSIVE)").rows();
    for client in &mut clients {
        client.close("c");
    }
    let log = kanban_vfs::observe(board.path()).unwrap().event_log().unwrap();
    assert_eq!(log.tally.give_ups, 1);
    assert_eq!(log.tally.checkpoints_complete, 1);
    // The last connection to close holds the lock while it cleans up.
    assert!((151..=152).contains(&log.tally.holds.count()), "{:?}", log.tally);
    assert!(log.tally.holds.sum > Duration::ZERO);
}

/// A process is killed at any moment of its life, again and again, while others record. Whatever it leaves, the log can be
/// read, and others go on.
#[test]
fn a_killed_process_leaves_a_log_that_is_read() {
    let board = board("wal");
    let mut others = client(&board, 60_000, "&kanban_slow_ms=0");
    for n in 0..15 {
        let mut victim = client(&board, 60_000, "&kanban_slow_ms=0");
        victim.send_sql(
            "c",
            "UPDATE t SET x = x + 1; UPDATE t SET x = x + 1; UPDATE t SET x = x + 1",
        );
        std::thread::sleep(Duration::from_micros(300 * n));
        victim.kill();
        others.sql("c", "UPDATE t SET x = x + 1").rows();
    }
    let all = events(&board.path());
    let by_others = all.iter().filter(|event| event.process.pid == others.pid()).count();
    assert!(by_others > 0, "{all:#?}");
    let numbers: Vec<_> = all.iter().map(|event| event.number).collect();
    assert!(numbers.is_sorted() && numbers.first() == Some(&1), "{numbers:?}");
}

/// A forked child shares nothing of its parent's log: what the parent records while the child lives is recorded, and the
/// reverse.
#[test]
fn a_child_does_not_keep_its_parents_log() {
    let board = board("wal");
    let mut parent = client(&board, 5000, "&kanban_slow_ms=0");
    parent.sql("c", "UPDATE t SET x = 1").rows();
    parent.fork();
    let uri = format!("{}&kanban_slow_ms=0", board.kanban());
    parent.child(&json!(["open", "d", uri, 5000])).rows();
    parent.child_sql("d", "UPDATE t SET x = 2").rows();
    parent.sql("c", "UPDATE t SET x = 3").rows();
    let pids: Vec<_> =
        of(&board, EventKind::Transaction).iter().map(|event| event.process.pid).collect();
    let parents = pids.iter().filter(|pid| **pid == parent.pid()).count();
    assert!(parents == 2 && pids.len() == 3, "{pids:?}");
    parent.end_child();
}

/// The disk fails a sync: of the WAL when a transaction commits or a checkpoint begins, of the database when a checkpoint
/// copies, or of a journal. The log records each, even if the only writer has group commit. A checkpoint that did not complete
/// counts as failed. The next transaction succeeds, and is no such event.
#[test]
fn a_sync_that_fails_is_recorded() {
    let (base, ours) = over_faulty("faulty-sync");
    for (mode, group_commit, file, sql) in [
        ("wal", 0, File::Wal, "UPDATE t SET x = 1"),
        ("wal", 1, File::Wal, "UPDATE t SET x = 1"),
        ("wal", 0, File::Wal, "PRAGMA wal_checkpoint(PASSIVE)"),
        ("wal", 1, File::Wal, "PRAGMA wal_checkpoint(PASSIVE)"),
        ("wal", 0, File::Main, "PRAGMA wal_checkpoint(PASSIVE)"),
        ("delete", 0, File::Journal, "UPDATE t SET x = 1"),
        ("delete", 0, File::Main, "UPDATE t SET x = 1"),
    ] {
        let board = Board::new();
        let uri = board.uri(&ours);
        let uri = format!("{uri}&kanban_slow_ms=60000&kanban_group_commit={group_commit}");
        let connection = connect(&uri);
        let set_up = format!(
            "PRAGMA journal_mode={mode}; PRAGMA synchronous=full; CREATE TABLE t (x); INSERT INTO t VALUES (0)"
        );
        connection.execute_batch(&set_up).unwrap();
        base.on(move |call| match call.method {
            Method::Sync { .. } if call.file == file => Fault::Fail(SQLITE_IOERR_FSYNC),
            _ => Fault::None,
        });
        let result = connection.execute_batch(sql);
        base.off();
        assert!(result.is_err(), "{mode}, {group_commit}, {file:?}");
        connection.execute_batch("ROLLBACK; UPDATE t SET x = 2").unwrap_or_else(|_| {
            connection.execute_batch("UPDATE t SET x = 2").unwrap();
        });
        let found = of(&board, EventKind::SyncFailed);
        assert!(!found.is_empty(), "{mode}, {group_commit}, {file:?}");
        assert!(
            found.iter().all(|it| it.code == SQLITE_IOERR_FSYNC && it.message.is_some()),
            "{found:#?}"
        );
        let checkpoints = of(&board, EventKind::Checkpoint);
        let is_checkpoint = sql.contains("checkpoint");
        assert_eq!(
            checkpoints.len(),
            usize::from(is_checkpoint),
            "{mode}, {group_commit}, {file:?}: {checkpoints:#?}"
        );
        assert!(checkpoints.iter().all(|it| it.outcome == Some(Outcome::Failed)));
    }
}

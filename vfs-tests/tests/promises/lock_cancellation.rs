//! A process that opens and closes its own database keeps its locks. POSIX drops all locks that a
//! process has on a file when the process closes any descriptor of it
//! (<https://www.sqlite.org/howtocorrupt.html> 2.2).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use vfs_tests::{Agent, Board, Lines, PYTHON, Program, Reply, extension};

use crate::Client::{Ours, Stock, StockBesideOurs};
use crate::{Client, agent, beside, connect, status_of, stock_agent, went_well};

const SQLITE_BUSY: i64 = 5;

/// A process whose locks are guarded, with an outsider of either kind.
const GUARDED: [(Client, Client); 4] =
    [(Ours, Stock), (Ours, Ours), (StockBesideOurs, Stock), (StockBesideOurs, Ours)];

/// A board with an empty table.
fn board(mode: &str) -> Board {
    let board = Board::new();
    let mut creator = stock_agent(Program::Rust);
    creator.open("c", &board.stock(), 0);
    creator.sql("c", &format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)")).rows();
    creator.close("c");
    board
}

/// The rows as a new client sees them, sorted by value.
fn rows(board: &Board) -> Vec<i64> {
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &board.stock(), 60_000);
    assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    let rows = newcomer.sql("c", "SELECT x FROM t ORDER BY x").rows();
    rows.iter().map(|row| row[0].as_i64().unwrap()).collect()
}

/// Looks at all files in the board's directory.
fn look_at_all(gateway: &mut Agent, board: &Board) {
    for file in ["", "-wal", "-shm", "-journal"].map(|suffix| beside(board, suffix)) {
        if file.exists() {
            gateway.read(&file);
        }
    }
}

const ACTIVE: &str = "/guarantees/lock_cancellation/active";
const WHY: &str = "/guarantees/lock_cancellation/why";

/// A gateway commits ten rows and looks at its files after each; a worker comes, writes a row and
/// goes. Returns the acknowledged rows, and those that are there at the end.
fn gateway_and_workers(program: Program, gateway: Client, worker: Client) -> (Vec<i64>, Vec<i64>) {
    let board = board("wal");
    let mut gateway = gateway.open(program, &board);
    let mut acknowledged = Vec::new();
    for n in 0..10 {
        if went_well(&gateway.sql("c", &format!("INSERT INTO t VALUES ({n})"))) {
            acknowledged.push(n);
        }
        look_at_all(&mut gateway, &board);
        let n = 100 + n;
        let mut worker = worker.open(Program::Rust, &board);
        if went_well(&worker.sql("c", &format!("INSERT INTO t VALUES ({n})"))) {
            acknowledged.push(n);
        }
        worker.close("c");
    }
    gateway.close("c");
    acknowledged.sort_unstable();
    (acknowledged, rows(&board))
}

/// A gateway reads 16 bytes of its database, its WAL and its wal-index after each commit, while
/// workers come, write and go. On the stock VFS that drops its locks: each worker believes that it
/// is the last client, and deletes the WAL to which the gateway goes on writing. About half of the
/// acknowledged rows vanish, and integrity_check says "ok".
#[test]
fn a_gateway_that_looks_at_its_files_loses_nothing() {
    for program in Program::ALL {
        let (acknowledged, found) = gateway_and_workers(program, Stock, Stock);
        assert_eq!(acknowledged.len(), 20, "{program:?}");
        assert!(found.len() < 15, "{program:?}: {found:?}");
        for (gateway, worker) in GUARDED {
            let (acknowledged, found) = gateway_and_workers(program, gateway, worker);
            assert_eq!(acknowledged.len(), 20, "{program:?}, {gateway:?}, {worker:?}");
            assert_eq!(acknowledged, found, "{program:?}, {gateway:?}, {worker:?}");
        }
    }
}

/// What happened when an outsider tried to write inside another client's transaction.
#[derive(Debug, PartialEq)]
struct BreakIn {
    /// Whether the outsider's row, 2, was acknowledged.
    wrote: bool,
    /// Whether the holder's COMMIT of its row, 1, was acknowledged.
    committed: bool,
    rows: Vec<i64>,
}

impl BreakIn {
    /// Checks that the outsider was kept out, and nothing else happened.
    #[track_caller]
    fn assert_none(&self, context: &str) {
        assert_eq!(*self, Self { wrote: false, committed: true, rows: vec![1] }, "{context}");
    }

    /// Checks that the outsider's row is lost, although it was acknowledged.
    #[track_caller]
    fn assert_damage(&self, context: &str) {
        assert!(self.wrote && !self.rows.contains(&2), "{context}: {self:?}");
    }
}

/// Makes sure that a WAL has frames. A writer that finds it empty would restart it, and notice if
/// another client had done so; SQLite would give up only after 10 s.
fn fill_wal(client: &mut Agent, name: &str) {
    if client.sql(name, "PRAGMA journal_mode").rows() == [["wal"]] {
        client.sql(name, "INSERT INTO t VALUES (0); DELETE FROM t").rows();
    }
}

/// Inside a transaction on `c` the holder does something; then the outsider tries to write.
fn break_in(
    board: &Board,
    holder: &mut Agent,
    outsider: &mut Agent,
    act: impl FnOnce(&mut Agent),
) -> BreakIn {
    fill_wal(outsider, "c");
    holder.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
    assert_eq!(outsider.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
    act(holder);
    let reply = outsider.sql("c", "INSERT INTO t VALUES (2)");
    let wrote = went_well(&reply);
    if !wrote {
        assert_eq!(reply.code(), SQLITE_BUSY);
    }
    let committed = went_well(&holder.sql("c", "COMMIT"));
    outsider.close("c");
    holder.close("c");
    BreakIn { wrote, committed, rows: rows(board) }
}

/// A holder of the write lock looks at the file on which its lock is: the database in rollback
/// modes, the wal-index in WAL mode. On the stock VFS an outsider then breaks in and commits. The
/// holder's COMMIT fails, or overwrites the outsider's acknowledged row.
#[test]
fn a_holder_that_looks_at_its_database_keeps_it() {
    for (mode, suffix) in [("delete", ""), ("truncate", ""), ("persist", ""), ("wal", "-shm")] {
        for program in Program::ALL {
            let with = |holder: Client, outsider: Client| {
                let board = board(mode);
                let file = beside(&board, suffix);
                let mut holder = holder.open(program, &board);
                let mut outsider = outsider.open(Program::Rust, &board);
                for client in [&mut holder, &mut outsider] {
                    client.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
                }
                break_in(&board, &mut holder, &mut outsider, |holder| holder.read(&file))
            };
            with(Stock, Stock).assert_damage(mode);
            for (holder, outsider) in GUARDED {
                let context = format!("{mode}, {program:?}, {holder:?}, {outsider:?}");
                with(holder, outsider).assert_none(&context);
            }
        }
    }
}

/// Enough rows for many pages, all of them 0.
const PAGES: &str = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 2000) \
                     INSERT INTO t SELECT 0 FROM n";

/// A reader adds up one half of the table, and looks at its file. Then a writer adds 1 to every row
/// (and in WAL mode, a checkpoint copies that into the database), and the reader adds up the other
/// half. Returns both sums.
fn torn_read(
    mode: &str,
    program: Program,
    reader: Client,
    writer: Client,
    as_whom: &str,
) -> [i64; 2] {
    let board = board(mode);
    let mut writer = writer.open(Program::Rust, &board);
    writer.sql("c", PAGES).rows();
    if mode == "wal" {
        writer.sql("c", "PRAGMA wal_checkpoint").rows();
    }
    let mut reader = reader_of(&board, reader, program, as_whom);
    let sum = |reader: &mut Agent, half: &str| {
        let sum = reader.sql("c", &format!("SELECT sum(x) FROM t WHERE rowid {half} 1000")).rows();
        sum[0][0].as_i64().unwrap()
    };
    reader.sql("c", "BEGIN").rows();
    let first = sum(&mut reader, "<=");
    reader.read(&beside(&board, if mode == "wal" { "-shm" } else { "" }));
    let wrote = writer.sql("c", "UPDATE t SET x = x + 1");
    assert!(went_well(&wrote) || mode != "wal", "{wrote:?}");
    if mode == "wal" {
        writer.sql("c", "PRAGMA wal_checkpoint(TRUNCATE)").rows();
    }
    let second = sum(&mut reader, ">");
    reader.sql("c", "COMMIT").rows();
    // The writer had to wait, but is not locked out.
    writer.sql("c", "UPDATE t SET x = 5").rows();
    let checkpoint = writer.sql("c", "PRAGMA wal_checkpoint(TRUNCATE)").rows();
    assert_eq!(checkpoint[0][0], 0, "{mode}");
    assert_eq!(sum(&mut reader, ">"), 5000);
    [first, second]
}

fn reader_of(board: &Board, reader: Client, program: Program, as_whom: &str) -> Agent {
    let (kind, mut reader) = (reader, reader.start_at(program, board));
    match as_whom {
        "writer" => reader.open("c", &kind.uri(board), 0),
        "reader" => reader.open("c", &format!("{}&mode=ro", kind.uri(board)), 0),
        "nobody" => {
            let all = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(board.directory(), all).unwrap();
            for file in ["", "-wal", "-shm"].map(|suffix| beside(board, suffix)) {
                if file.exists() {
                    let read = std::fs::Permissions::from_mode(0o444);
                    std::fs::set_permissions(file, read).unwrap();
                }
            }
            reader.call(&json!(["become nobody"])).rows();
            reader.open("c", &format!("{}&mode=ro", kind.uri(board)), 0);
        }
        other => panic!("{other}"),
    }
    reader
}

/// A dashboard reads in one transaction, in two steps, and looks at its file in between. It may
/// write, or has opened the database read-only, or has no right to write to the file. On the stock
/// VFS a writer writes in between, and the dashboard sees half of that.
#[test]
fn a_reader_that_looks_at_its_database_sees_one_state() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            for as_whom in ["writer", "reader", "nobody"] {
                let torn = torn_read(mode, program, Stock, Stock, as_whom);
                assert!(torn[0] == 0 && torn[1] > 0, "{mode}, {program:?}, {as_whom}: {torn:?}");
                for (reader, writer) in GUARDED {
                    let sums = torn_read(mode, program, reader, writer, as_whom);
                    let who = format!("{reader:?} beside {writer:?}");
                    assert_eq!(sums, [0, 0], "{mode}, {program:?}, {as_whom}, {who}");
                }
            }
        }
    }
}

/// The first connection of a process is read-only, and no write lock can be taken through its
/// descriptor. The second one writes, and looks at the file. On the stock VFS an outsider breaks
/// in.
#[test]
fn a_read_only_connection_may_come_first() {
    for (mode, suffix) in [("delete", ""), ("wal", "-shm")] {
        for program in Program::ALL {
            let with = |holder: Client, outsider: Client| {
                let board = board(mode);
                let uri = holder.uri(&board);
                let mut outsider = outsider.open(Program::Rust, &board);
                outsider.sql("c", "SELECT * FROM t").rows();
                let mut holder = holder.start_at(program, &board);
                holder.open("reader", &format!("{uri}&mode=ro"), 0);
                holder.sql("reader", "BEGIN; SELECT * FROM t").rows();
                holder.open("c", &uri, 0);
                let file = beside(&board, suffix);
                break_in(&board, &mut holder, &mut outsider, |holder| {
                    holder.read(&file);
                    holder.close("reader");
                })
            };
            with(Stock, Stock).assert_damage(mode);
            for (holder, outsider) in GUARDED {
                let context = format!("{mode}, {program:?}, {holder:?}, {outsider:?}");
                with(holder, outsider).assert_none(&context);
            }
        }
    }
}

/// A process that has no right to write to the database reads it. Then it gets that right, and its
/// second connection writes, and looks at the file. On the stock VFS an outsider breaks in.
#[test]
fn a_database_may_become_writable() {
    for program in Program::ALL {
        let with = |holder: Client, outsider: Client| {
            let board = board("delete");
            let allow = |file: &Path, mode: u32| {
                std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
            };
            let uri = holder.uri(&board);
            let mut outsider = outsider.open(Program::Rust, &board);
            allow(&board.directory(), 0o777);
            allow(&board.path(), 0o444);
            let mut holder = holder.start_at(program, &board);
            holder.call(&json!(["become nobody"])).rows();
            holder.open("reader", &format!("{uri}&mode=ro"), 0);
            holder.sql("reader", "BEGIN; SELECT * FROM t").rows();
            allow(&board.path(), 0o666);
            holder.open("c", &uri, 0);
            holder.sql("c", "BEGIN IMMEDIATE; ROLLBACK").rows();
            // The reader still has its lock.
            assert_eq!(outsider.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
            break_in(&board, &mut holder, &mut outsider, |holder| {
                holder.read(&board.path());
                holder.close("reader");
            })
        };
        with(Stock, Stock).assert_damage("stock");
        for (holder, outsider) in GUARDED {
            with(holder, outsider).assert_none(&format!("{program:?}, {holder:?}, {outsider:?}"));
        }
    }
}

/// A process has a holder, a reader in a transaction, an idle connection, a stock one, and one that
/// is opened and closed. It looks at all of its files. On the stock VFS an outsider breaks in.
#[test]
fn a_process_of_many_connections_keeps_all_its_locks() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            let with = |holder: Client, outsider: Client| {
                let board = board(mode);
                let uri = holder.uri(&board);
                let mut outsider = outsider.open(Program::Rust, &board);
                let mut holder = holder.start_at(program, &board);
                for name in ["c", "reader", "idle"] {
                    holder.open(name, &uri, 0);
                    holder.sql(name, "SELECT * FROM t").rows();
                }
                holder.open("stock", &board.stock(), 0);
                holder.sql("stock", "SELECT * FROM t").rows();
                if mode == "wal" {
                    // In rollback modes, this reader would keep the holder from committing.
                    holder.sql("reader", "BEGIN; SELECT * FROM t").rows();
                }
                break_in(&board, &mut holder, &mut outsider, |holder| {
                    look_at_all(holder, &board);
                    holder.open("short-lived", &uri, 0);
                    holder.sql("short-lived", "SELECT * FROM t").rows();
                    holder.close("short-lived");
                    holder.close("idle");
                    look_at_all(holder, &board);
                    assert_eq!(holder.sql("stock", "SELECT * FROM t").rows(), [[0; 0]; 0]);
                })
            };
            with(Stock, Stock).assert_damage(mode);
            for (holder, outsider) in GUARDED {
                let context = format!("{mode}, {program:?}, {holder:?}, {outsider:?}");
                with(holder, outsider).assert_none(&context);
            }
        }
    }
}

/// A gateway with more than a thousand descriptors open, before those of its database, looks at its
/// files. On the stock VFS an outsider breaks in.
#[test]
fn a_process_of_many_descriptors_keeps_its_locks() {
    for (mode, suffix) in [("delete", ""), ("wal", "-shm")] {
        for program in Program::ALL {
            let with = |holder: Client, outsider: Client| {
                let board = board(mode);
                let uri = holder.uri(&board);
                let mut outsider = outsider.open(Program::Rust, &board);
                let mut holder = holder.start_at(program, &board);
                holder.call(&json!(["use descriptors", 1100])).rows();
                holder.open("reader", &format!("{uri}&mode=ro"), 0);
                holder.sql("reader", "SELECT * FROM t").rows();
                holder.open("c", &uri, 0);
                break_in(&board, &mut holder, &mut outsider, |holder| {
                    holder.read(&beside(&board, suffix));
                    holder.close("reader");
                })
            };
            with(Stock, Stock).assert_damage(mode);
            for (holder, outsider) in GUARDED {
                let context = format!("{mode}, {program:?}, {holder:?}, {outsider:?}");
                with(holder, outsider).assert_none(&context);
            }
        }
    }
}

/// A client of the database has looked at it and is idle, or reads. Another client comes, writes
/// and closes its connection. On the stock VFS that client believes that it is the last, and
/// deletes the WAL.
#[test]
fn the_last_closer_leaves_a_wal_that_is_in_use() {
    for program in Program::ALL {
        for reads in [false, true] {
            let with = |user: Client, closer: Client| {
                let board = board("wal");
                let mut user = user.open(program, &board);
                user.sql("c", "INSERT INTO t VALUES (1)").rows();
                if reads {
                    user.sql("c", "BEGIN; SELECT * FROM t").rows();
                }
                look_at_all(&mut user, &board);
                let mut closer = closer.open(Program::Rust, &board);
                closer.sql("c", "INSERT INTO t VALUES (2)").rows();
                closer.close("c");
                let kept = beside(&board, "-wal").exists() && beside(&board, "-shm").exists();
                if reads {
                    let seen = user.sql("c", "SELECT * FROM t").rows();
                    assert!(!kept || seen == [[1]], "{seen:?}");
                    user.sql("c", "COMMIT").rows();
                }
                user.sql("c", "INSERT INTO t VALUES (3)").rows();
                let rows = rows(&board);
                user.close("c");
                (kept, rows)
            };
            let (kept, seen) = with(Stock, Stock);
            assert_eq!((kept, seen), (false, vec![1, 2]), "stock: {program:?}, {reads}");
            for (user, closer) in GUARDED {
                let context = format!("{program:?}, {reads}, {user:?}, {closer:?}");
                assert_eq!(with(user, closer), (true, vec![1, 2, 3]), "{context}");
            }
        }
    }
}

/// Two processes of three threads write in tight loops and look at their files after each commit.
/// Each thread has its own connection, which it reopens now and then. Returns how many rows were
/// acknowledged (none if a process died), how many there are, and the result of integrity_check.
fn busy_processes(load: &str, vfs: &str) -> (Option<i64>, i64, String) {
    const SCRIPT: &str = "
import os, sqlite3, sys, threading
extension, uri, path, load = sys.argv[1:]
if load == 'load':
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
    loader.load_extension(extension)
    beside = sqlite3.connect('file:' + path + '?vfs=kanban', uri=True)
acknowledged = []
def look():
    for suffix in ['', '-wal', '-shm']:
        try:
            with open(path + suffix, 'rb') as file: file.read(16)
        except FileNotFoundError: pass
def work():
    for n in range(6):
        try:
            board = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
            board.execute('PRAGMA synchronous=OFF')
            for n in range(25):
                board.execute('INSERT INTO t VALUES (1)')
                acknowledged.append(1)
                look()
            board.close()
        except sqlite3.DatabaseError: pass
print('ready', flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=work) for n in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(acknowledged), flush=True)
";
    let board = board("wal");
    let path = board.path();
    let mut processes = [(); 2].map(|()| {
        let mut python = Command::new(PYTHON);
        if load == "stock" {
            python.env("STOCK_AGENT", "1");
        }
        python.args(["-c", SCRIPT]).arg(extension()).arg(board.uri(vfs)).arg(&path).arg(load);
        Lines::start(python)
    });
    for process in &mut processes {
        assert_eq!(process.hear(), "ready");
    }
    for process in &mut processes {
        process.say("go");
    }
    let acknowledged = processes.iter_mut().map(|p| p.hear_last()?.parse::<i64>().ok()).sum();
    drop(processes);
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &board.stock(), 60_000);
    let count = newcomer.sql("c", "SELECT count(*) FROM t");
    let check = newcomer.sql("c", "PRAGMA integrity_check");
    let number = |reply| match reply {
        Reply::Rows(rows) => rows[0][0].as_i64().unwrap_or(-1),
        Reply::Error { .. } => -1,
    };
    (acknowledged, number(count), format!("{check:?}"))
}

/// The same with threads, in tight loops, and without a fixed order. On the stock VFS rows vanish,
/// the database is destroyed, or a process dies of SIGBUS, since another process has emptied the
/// wal-index that it uses.
#[test]
fn busy_processes_that_look_at_their_files_lose_nothing() {
    let mut damaged = false;
    for _ in 0..10 {
        let (acknowledged, found, check) = busy_processes("stock", "unix");
        damaged = acknowledged != Some(found) || !check.contains("ok");
        if damaged {
            break;
        }
    }
    assert!(damaged);
    for vfs in ["kanban", "unix"] {
        let (acknowledged, found, check) = busy_processes("load", vfs);
        assert_eq!((acknowledged, found), (Some(900), 900), "{vfs}");
        assert!(check.contains("ok"), "{vfs}: {check}");
    }
}

/// A process has the database open, and locked, when it registers the VFS. Those locks are POSIX
/// locks, and stay so. As long as they are in use, the status says what is not guaranteed and why,
/// and all clients exclude each other. When the process has closed the database, the next
/// connection that opens it is guarded. A database that the process first opens now is guarded at
/// once.
#[test]
fn a_database_that_was_open_before_stays_locked() {
    for (mode, suffix) in [("delete", ""), ("wal", "-shm")] {
        for program in Program::ALL {
            for outsider in [Stock, Ours] {
                let context = format!("{mode}, {program:?}, {outsider:?}");
                let board = board(mode);
                let mut outsider = outsider.open(Program::Rust, &board);
                let mut client = stock_agent(program);
                client.open("old", &board.stock(), 0);
                client.sql("old", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
                client.call(&json!(["register"])).rows();

                client.open("c", &board.kanban(), 0);
                assert_eq!(client.sql("c", "SELECT * FROM t").rows(), [[0; 0]; 0], "{context}");
                assert_eq!(status_of(&mut client, "c", ACTIVE), false, "{context}");
                let why = status_of(&mut client, "c", WHY);
                assert!(why.as_str().is_some_and(|why| why.len() > 20), "{context}: {why}");
                for (refused, name) in [(&mut outsider, "c"), (&mut client, "c")] {
                    let reply = refused.sql(name, "INSERT INTO t VALUES (9)");
                    assert_eq!(reply.code(), SQLITE_BUSY, "{context}");
                }
                client.sql("old", "COMMIT").rows();

                client.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").rows();
                for (refused, name) in [(&mut outsider, "c"), (&mut client, "old")] {
                    let reply = refused.sql(name, "INSERT INTO t VALUES (9)");
                    assert_eq!(reply.code(), SQLITE_BUSY, "{context}");
                }
                client.sql("c", "COMMIT").rows();
                outsider.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (3)").rows();
                for name in ["c", "old"] {
                    let reply = client.sql(name, "INSERT INTO t VALUES (9)");
                    assert_eq!(reply.code(), SQLITE_BUSY, "{context}");
                }
                outsider.sql("c", "COMMIT").rows();
                client.close("old");
                assert_eq!(client.sql("c", "SELECT x FROM t").rows(), [[1], [2], [3]]);
                client.close("c");
                outsider.sql("c", "DELETE FROM t").rows();

                client.open("c", &board.kanban(), 0);
                assert_eq!(client.sql("c", "SELECT * FROM t").rows(), [[0; 0]; 0]);
                assert_eq!(status_of(&mut client, "c", ACTIVE), true, "{context}");
                let file = beside(&board, suffix);
                break_in(&board, &mut client, &mut outsider, |holder| holder.read(&file))
                    .assert_none(&context);

                let other = Board::new();
                client.open("other", &other.kanban(), 0);
                client.sql("other", "CREATE TABLE t (x)").rows();
                assert_eq!(status_of(&mut client, "other", ACTIVE), true, "{context}");
            }
        }
    }
}

/// A process has opened the database, but holds no lock on it, when it registers the VFS. From then
/// on the database is guarded, even for the old connection.
#[test]
fn a_database_that_was_open_but_not_locked_is_guarded() {
    for program in Program::ALL {
        for outsider in [Stock, Ours] {
            let board = board("delete");
            let mut outsider = outsider.open(Program::Rust, &board);
            let mut client = stock_agent(program);
            client.open("c", &board.stock(), 0);
            client.sql("c", "INSERT INTO t VALUES (0); DELETE FROM t").rows();
            client.call(&json!(["register"])).rows();
            client.open("new", &board.kanban(), 0);
            client.sql("new", "SELECT * FROM t").rows();
            assert_eq!(status_of(&mut client, "new", ACTIVE), true);
            break_in(&board, &mut client, &mut outsider, |holder| holder.read(&board.path()))
                .assert_none(&format!("{program:?}"));
        }
    }
}

/// What a program prints that locks its own database by lockf(3), from some byte on, before it
/// opens the database or while the connection is idle. It then writes, and lets others write. Also
/// returns what its status says about its locks.
fn locks_its_database(vfs: &str, mode: &str, when: &str, how: &str) -> (String, String) {
    const PROGRAM: &str = "
import fcntl, json, os, sqlite3, subprocess, sys
path, uri, extension, mode, when, how = sys.argv[1:]
if extension:
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True); loader.load_extension(extension)
made = sqlite3.connect(path); made.execute('PRAGMA journal_mode=' + mode); made.execute('CREATE TABLE t (x)'); made.close()
def tried(board, sql):
    try: return board.execute(sql).fetchall()
    except sqlite3.Error as error: return error
OTHER = '''
import sqlite3, sys
board = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try: board.execute('BEGIN IMMEDIATE'); board.execute('INSERT INTO t VALUES (2)'); board.execute('COMMIT'); print('got in')
except sqlite3.OperationalError as error: print('was refused:', error)
'''
def other(): return subprocess.run([sys.executable, '-c', OTHER, path], capture_output=True, text=True).stdout.strip()
def locked():
    own = open(path, 'r+'); kind, begins = how.split()
    fcntl.lockf(own, {'ex': fcntl.LOCK_EX, 'sh': fcntl.LOCK_SH}[kind] | fcntl.LOCK_NB, 0, int(begins)); return own
def connect(): return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1)
if when == 'before': own = locked()
board = connect(); print(tried(board, 'SELECT * FROM t'))
if when == 'idle': own = locked()
print(tried(board, 'BEGIN IMMEDIATE'), tried(board, 'INSERT INTO t VALUES (1)'))
print(other())
if extension:
    told = json.loads(board.execute('PRAGMA kanban_status').fetchone()[0])['guarantees']['lock_cancellation']
    print(told['active'], 'lockf' in told.get('why', ''), file=sys.stderr)
print(tried(board, 'COMMIT'), tried(connect(), 'SELECT x FROM t'))
# In WAL mode the close releases SQLite's lock, with what comes of that.
if mode == 'delete': own.close()
print(other(), tried(board, 'SELECT x FROM t'), tried(board, 'INSERT INTO t VALUES (3)'), tried(board, 'PRAGMA integrity_check'))
if extension and mode == 'delete':
    told = json.loads(board.execute('PRAGMA kanban_status').fetchone()[0])['guarantees']['lock_cancellation']
    print(told['active'], file=sys.stderr)
";
    let board = Board::new();
    let extension = if vfs == "kanban" { extension() } else { Path::new("") };
    let [path, extension] =
        [&board.path(), extension].map(|path| path.to_str().unwrap().to_owned());
    let arguments = [&path, &board.uri(vfs), &extension, mode, when, how];
    let output = Command::new(PYTHON).args(["-c", PROGRAM]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// A program locks its own database by lockf(3), perhaps to be the only one of its kind, and writes
/// to it. POSIX locks of one process are not in each other's way, so that works on the stock VFS.
/// An open-file-description lock would meet that lock for ever. So SQLite's locks on the file stay
/// POSIX locks, until all are released, and the status says so.
#[test]
fn a_program_that_locks_its_own_database_can_write() {
    const POSIX: &str = "False True\n";
    const GUARDED: &str = "True False\n";
    for (mode, when, how, says) in [
        // SQLite has released everything by its first unlock.
        ("delete", "before", "ex 0", GUARDED),
        ("delete", "before", "sh 0", POSIX),
        ("delete", "idle", "ex 0", POSIX),
        ("delete", "idle", "sh 0", POSIX),
        // The program has read the header, or a page.
        ("delete", "idle", "ex 100", POSIX),
        ("delete", "idle", "ex 4096", POSIX),
        ("wal", "before", "ex 0", POSIX),
        ("wal", "before", "ex 4096", POSIX),
        // Here only shared locks are asked for.
        ("wal", "before", "sh 0", GUARDED),
    ] {
        let (stock, _) = locks_its_database("unix", mode, when, how);
        assert!(stock.contains("[] []\nwas refused"), "{stock}");
        let (ours, told) = locks_its_database("kanban", mode, when, how);
        assert_eq!(ours, stock, "{mode}, {when}, {how}");
        let ends = if mode == "delete" { "True\n" } else { "" };
        assert_eq!(told, format!("{says}{ends}"), "{mode}, {when}, {how}");
    }
}

/// A journal is beside the database because a client that has looked at its database is in the
/// middle of a transaction. A reader asks by F_GETLK whether that client is alive. On the stock VFS
/// no lock is found, and the reader rolls back another's transaction.
#[test]
fn a_living_holder_is_seen_to_be_alive() {
    for program in Program::ALL {
        let with = |holder: Client, reader: Client| {
            let board = board("delete");
            let mut holder = holder.open(program, &board);
            // Otherwise the journal's header, which makes the journal hot, is written only when the
            // journal is synced, and then the holder takes an exclusive lock.
            holder.sql("c", "PRAGMA synchronous=OFF").rows();
            holder.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
            holder.read(&board.path());
            let mut reader = reader.open(Program::Rust, &board);
            assert_eq!(reader.sql("c", "SELECT * FROM t").rows(), [[0; 0]; 0]);
            let left_alone = beside(&board, "-journal").exists();
            let committed = went_well(&holder.sql("c", "COMMIT"));
            (left_alone, committed)
        };
        assert_eq!(with(Stock, Stock), (false, false));
        for (holder, reader) in GUARDED {
            assert_eq!(with(holder, reader), (true, true), "{program:?}, {holder:?}, {reader:?}");
        }
    }
}

/// A process is not in its own way, and knows when others are. To leave WAL mode it takes the
/// database for itself: that succeeds when it is alone, and fails while an outsider has the
/// database open. (As on the stock VFS.)
#[test]
fn a_process_knows_whether_it_is_alone() {
    for program in Program::ALL {
        for (client, outsider) in [(Stock, Stock)].into_iter().chain(GUARDED) {
            let context = format!("{program:?}, {client:?}, {outsider:?}");
            let board = board("wal");
            let mut outsider = outsider.open(Program::Rust, &board);
            outsider.sql("c", "SELECT * FROM t").rows();
            let mut client = client.open(program, &board);
            client.sql("c", "INSERT INTO t VALUES (1)").rows();
            let leave = "PRAGMA journal_mode=delete";
            assert_eq!(client.sql("c", leave).code(), SQLITE_BUSY, "{context}");
            outsider.close("c");
            client.sql("c", "INSERT INTO t VALUES (2)").rows();
            assert_eq!(client.sql("c", leave).rows(), [["delete"]], "{context}");
            assert_eq!(rows(&board), [1, 2], "{context}");
        }
    }
}

/// While a holder is inside its transaction, its database is renamed, and looked at. A lock is on
/// the file, not on its name. On the stock VFS an outsider breaks in by the new name.
#[test]
fn a_renamed_database_stays_locked() {
    for program in Program::ALL {
        let with = |holder: Client, outsider: Client| {
            let board = board("delete");
            let aside = board.directory().join("aside.db");
            let mut holder = holder.open(program, &board);
            holder.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
            std::fs::rename(board.path(), &aside).unwrap();
            holder.read(&aside);
            let uri = outsider.uri(&board).replace("board.db", "aside.db");
            let mut outsider = outsider.start(Program::Rust);
            outsider.open("c", &uri, 0);
            let wrote = went_well(&outsider.sql("c", "INSERT INTO t VALUES (2)"));
            outsider.close("c");
            std::fs::rename(&aside, board.path()).unwrap();
            let committed = went_well(&holder.sql("c", "COMMIT"));
            holder.close("c");
            BreakIn { wrote, committed, rows: rows(&board) }
        };
        with(Stock, Stock).assert_damage("stock");
        for (holder, outsider) in GUARDED {
            with(holder, outsider).assert_none(&format!("{program:?}, {holder:?}, {outsider:?}"));
        }
    }
}

/// A process has a database open that is deleted, and another one takes its place. Each has its own
/// locks, and closing the old one releases no lock of the new one. On the stock VFS a look at the
/// new one does.
#[test]
fn a_database_in_the_place_of_another_is_locked_by_itself() {
    for (mode, suffix) in [("delete", ""), ("wal", "-shm")] {
        for program in Program::ALL {
            let with = |holder: Client, outsider: Client| {
                let board = board(mode);
                let mut process = holder.start_at(program, &board);
                process.open("old", &holder.uri(&board), 0);
                process.sql("old", "INSERT INTO t VALUES (7)").rows();
                for file in ["", "-wal", "-shm", "-lock"].map(|suffix| beside(&board, suffix)) {
                    let _ = std::fs::remove_file(file);
                }
                process.open("c", &holder.uri(&board), 0);
                if holder == StockBesideOurs {
                    process.open("beside the new one", &board.kanban(), 0);
                }
                let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)");
                process.sql("c", &create).rows();
                let mut outsider = outsider.open(Program::Rust, &board);
                break_in(&board, &mut process, &mut outsider, |process| {
                    process.read(&beside(&board, suffix));
                    process.close("old");
                })
            };
            with(Stock, Stock).assert_damage(mode);
            for (holder, outsider) in GUARDED {
                let context = format!("{mode}, {program:?}, {holder:?}, {outsider:?}");
                with(holder, outsider).assert_none(&context);
            }
        }
    }
}

/// Databases come and go, as they do in tests, and the file system gives the inode number of a
/// deleted file to the next one. What is known about the old file must not be used for the new one.
/// On the stock VFS a look at the file drops the locks of each of them.
#[test]
fn a_reused_inode_is_a_new_database() {
    for program in Program::ALL {
        let with = |holder: Client, outsider: Client, times: usize| -> Vec<BreakIn> {
            let board = Board::new();
            let (mut process, mut stranger) =
                (holder.start(program), outsider.start(Program::Rust));
            let is_beside = holder == StockBesideOurs;
            let mode = |n: usize| ["delete", "wal"][n / 2 % 2];
            let round = |n: usize| {
                for file in std::fs::read_dir(board.directory()).unwrap() {
                    std::fs::remove_file(file.unwrap().path()).unwrap();
                }
                process.open("c", &holder.uri(&board), 0);
                if is_beside {
                    process.open("beside", &board.kanban(), 0);
                }
                let create = format!("PRAGMA journal_mode={}; CREATE TABLE t (x)", mode(n));
                process.sql("c", &create).rows();
                stranger.open("c", &outsider.uri(&board), 0);
                let came = break_in(&board, &mut process, &mut stranger, |process| {
                    look_at_all(process, &board);
                });
                if is_beside {
                    process.close("beside");
                }
                came
            };
            (0..times).map(round).collect()
        };
        for damage in with(Stock, Stock, 4) {
            damage.assert_damage("stock");
        }
        for (holder, outsider) in GUARDED {
            for outcome in with(holder, outsider, 12) {
                outcome.assert_none(&format!("{program:?}, {holder:?}, {outsider:?}"));
            }
        }
    }
}

/// Thousands of databases are opened in turn, twenty at a time, looked at, closed, and some of them
/// deleted. One of them is opened often while one of its readers is at work. No descriptor is left.
/// (Nor is one on the stock VFS.)
#[test]
fn thousands_of_databases_leave_no_descriptor() {
    const OPEN: usize = 20;
    for (program, client, databases) in [
        (Program::Rust, Stock, 100),
        (Program::Rust, Ours, 3000),
        (Program::Rust, StockBesideOurs, 300),
        (Program::Python, Ours, 500),
    ] {
        let board = Board::new();
        let mut process = client.start(program);
        let uri = |n: usize| client.uri(&board).replace("board.db", &format!("{n}.db"));
        let count = |process: &mut Agent| process.call(&json!(["descriptors"])).rows();
        let close = |process: &mut Agent, n: usize| {
            process.close(&n.to_string());
            if n.is_multiple_of(3) {
                for suffix in ["", "-lock", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(board.directory().join(format!("{n}.db{suffix}")));
                }
            }
        };
        process.open("always", &client.uri(&board), 0);
        process.sql("always", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
        let before = count(&mut process);
        for n in 0..databases {
            process.send(&json!(["open", n.to_string(), uri(n), 0]));
            let sql = match n % 10 {
                0 => "PRAGMA synchronous=OFF; PRAGMA journal_mode=wal; CREATE TABLE t (x)",
                1 => "PRAGMA synchronous=OFF; CREATE TABLE t (x)",
                _ => "SELECT * FROM sqlite_master",
            };
            process.send_sql(&n.to_string(), sql);
            process.send(&json!(["read", board.directory().join(format!("{n}.db"))]));
            for _ in 0..3 {
                process.reply().rows();
            }
            if n >= OPEN {
                close(&mut process, n - OPEN);
            }
        }
        for n in databases - OPEN..databases {
            close(&mut process, n);
        }
        assert_eq!(count(&mut process), before, "{program:?}, {client:?}");
        process.open("reader", &uri(1), 0);
        process.sql("reader", "BEGIN; SELECT * FROM t").rows();
        for n in 0..100 {
            process.open(&n.to_string(), &uri(1), 0);
            process.sql(&n.to_string(), "SELECT * FROM t").rows();
        }
        for n in 0..100 {
            process.close(&n.to_string());
        }
        process.close("reader");
        assert_eq!(count(&mut process), before, "{program:?}, {client:?}");
    }
}

/// Debian's Python, which has also loaded another copy of SQLite, under another name. `kinds` says
/// which copies have loaded the VFS. Connections `1` and `2` belong to these copies.
fn two_copies(board: &Board, kinds: [Client; 2]) -> Agent {
    let library = board.directory().join("another-sqlite.so");
    std::fs::copy(Path::new(env!("SETLK_SQLITE")).join("libsqlite3.so.0"), &library).unwrap();
    let mut process = stock_agent(Program::Python);
    process.call(&json!(["load second copy", library])).rows();
    if kinds[0] != Stock {
        process.call(&json!(["register"])).rows();
    }
    if kinds[1] != Stock {
        process.call(&json!(["register second copy"])).rows();
    }
    if kinds == [StockBesideOurs; 2] {
        process.call(&json!(["open", "beside", board.kanban(), 0])).rows();
    }
    for (command, n, kind) in [("open", "1", kinds[0]), ("open second copy", "2", kinds[1])] {
        process.call(&json!([command, n, kind.uri(board), 0])).rows();
    }
    let version = |process: &mut Agent, n| process.sql(n, "SELECT sqlite_version()").rows();
    assert_ne!(version(&mut process, "1"), version(&mut process, "2"));
    process
}

/// Two copies of SQLite in one process (<https://www.sqlite.org/howtocorrupt.html> 2.2.1), each
/// with the VFS, write to one database. On the stock VFS neither sees the other's locks, since POSIX
/// locks do not conflict within a process: both are in a transaction at once, and a row is lost.
#[test]
fn two_copies_of_sqlite_exclude_each_other() {
    for mode in ["delete", "wal"] {
        for (first, second) in [("1", "2"), ("2", "1")] {
            let with = |kinds: [Client; 2]| {
                let board = board(mode);
                let mut process = two_copies(&board, kinds);
                fill_wal(&mut process, second);
                process.sql(first, "SELECT * FROM t").rows();
                process.sql(first, "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
                let reply = process.sql(second, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)");
                let broke_in = went_well(&reply);
                let mut acknowledged = Vec::new();
                if went_well(&process.sql(first, "COMMIT")) {
                    acknowledged.push(1);
                }
                if broke_in {
                    if went_well(&process.sql(second, "COMMIT")) {
                        acknowledged.push(2);
                    }
                } else {
                    assert_eq!(reply.code(), SQLITE_BUSY);
                    for n in 2..20 {
                        let (writer, other) =
                            if n % 2 == 0 { (second, first) } else { (first, second) };
                        process
                            .sql(writer, &format!("BEGIN IMMEDIATE; INSERT INTO t VALUES ({n})"))
                            .rows();
                        assert_eq!(process.sql(other, "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
                        process.sql(writer, "COMMIT").rows();
                        acknowledged.push(n);
                    }
                }
                process.kill();
                (broke_in, acknowledged, rows(&board))
            };
            let (broke_in, acknowledged, rows) = with([Stock, Stock]);
            assert!(broke_in && rows != [1, 2], "{mode}: {acknowledged:?} {rows:?}");
            for kinds in [
                [Ours, Ours],
                [Ours, StockBesideOurs],
                [StockBesideOurs, Ours],
                [StockBesideOurs; 2],
                // A copy that has not loaded the VFS is excluded, too.
                [Ours, Stock],
                [Stock, Ours],
            ] {
                let (broke_in, acknowledged, rows) = with(kinds);
                assert!(!broke_in, "{mode}, {kinds:?}");
                assert_eq!(acknowledged, rows, "{mode}, {kinds:?}");
                assert_eq!(rows.len(), 19);
            }
        }
    }
}

/// One copy is inside a transaction when the other opens the database, reads, and closes it. On the
/// stock VFS that drops the first one's locks, and an outsider breaks in.
#[test]
fn one_copy_of_sqlite_frees_no_lock_of_another() {
    for mode in ["delete", "wal"] {
        for (first, second) in [("1", "2"), ("2", "1")] {
            let with = |kinds: [Client; 2], outsider: Client| {
                let board = board(mode);
                let mut process = two_copies(&board, kinds);
                let mut outsider = outsider.open(Program::Rust, &board);
                fill_wal(&mut outsider, "c");
                process.sql(first, "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
                assert_eq!(outsider.sql("c", "INSERT INTO t VALUES (2)").code(), SQLITE_BUSY);
                process.sql(second, "SELECT * FROM t").rows();
                process.close(second);
                let wrote = went_well(&outsider.sql("c", "INSERT INTO t VALUES (2)"));
                let committed = went_well(&process.sql(first, "COMMIT"));
                outsider.close("c");
                process.close(first);
                BreakIn { wrote, committed, rows: rows(&board) }
            };
            with([Stock, Stock], Stock).assert_damage(mode);
            for outsider in [Stock, Ours] {
                with([Ours, Ours], outsider).assert_none(&format!("{mode}, {outsider:?}"));
            }
        }
    }
}

/// One copy is in a read transaction in WAL mode when the other checkpoints. On the stock VFS the
/// checkpoint ignores the reader, and removes what it reads.
#[test]
fn one_copy_of_sqlite_sees_the_readers_of_another() {
    for (reader, other) in [("1", "2"), ("2", "1")] {
        let with = |kinds: [Client; 2]| {
            let board = board("wal");
            let mut process = two_copies(&board, kinds);
            process.sql(other, "INSERT INTO t VALUES (1)").rows();
            process.sql(reader, "BEGIN; SELECT * FROM t").rows();
            process.sql(other, "INSERT INTO t VALUES (2)").rows();
            let checkpoint = process.sql(other, "PRAGMA wal_checkpoint(TRUNCATE)").rows();
            let busy = checkpoint[0][0].to_string().replace('"', "");
            process.sql(reader, "COMMIT").rows();
            busy
        };
        assert_eq!(with([Stock, Stock]), "0");
        assert_eq!(with([Ours, Ours]), "1");
    }
}

/// Sixteen threads write to a board each, through stock connections, when another thread loads the
/// extension. Some of them are then inside a transaction, and some take or release a lock at that
/// very moment. They go on, no lock is left behind, and others can write.
#[test]
fn threads_may_be_at_work_when_the_extension_is_loaded() {
    const SCRIPT: &str = "
import ctypes, os, sqlite3, sys, threading, time
extension, directory = sys.argv[1:]
boards = [sqlite3.connect('%s/%d.db' % (directory, n), isolation_level=None, timeout=10,
                          check_same_thread=False) for n in range(16)]
written = [0] * 16
errors = []
stop = False
def work(n):
    try:
        while not stop:
            boards[n].execute('BEGIN IMMEDIATE')
            boards[n].execute('INSERT INTO t VALUES (1)')
            time.sleep(0.001)
            boards[n].execute('COMMIT')
            written[n] += 1
            time.sleep(0.001)
    except sqlite3.Error as error: errors.append(str(error))
for board in boards:
    board.execute('PRAGMA synchronous=OFF')
    board.execute('CREATE TABLE t (x)')
# There is much to look at.
for _ in range(800): os.open('/dev/null', os.O_RDONLY)
threads = [threading.Thread(target=work, args=[n]) for n in range(16)]
[thread.start() for thread in threads]
def all_write(n):
    before = list(written)
    while not errors and any(w < b + n for w, b in zip(written, before)): time.sleep(0.001)
all_write(2)
# Unlike Python's, these functions let the other threads run.
sqlite = ctypes.CDLL('libsqlite3.so.0')
loader = ctypes.c_void_p()
sqlite.sqlite3_open(b':memory:', ctypes.byref(loader))
sqlite.sqlite3_enable_load_extension(loader, 1)
assert sqlite.sqlite3_load_extension(loader, extension.encode(), None, None) == 0
all_write(2)
stop = True
[thread.join() for thread in threads]
print(errors, flush=True)
print(*written, flush=True)
sys.stdin.readline()
";
    for _ in 0..3 {
        let board = Board::new();
        let mut python = Command::new(PYTHON);
        python.args(["-c", SCRIPT]).arg(extension()).arg(board.directory());
        let mut process = Lines::start(python);
        assert_eq!(process.hear(), "[]");
        let written = process.hear();
        // The process lives on, and is idle.
        for (n, written) in written.split(' ').enumerate() {
            let outsider = [Stock, Ours][n % 2];
            let uri = outsider.uri(&board).replace("board.db", &format!("{n}.db"));
            let mut outsider = outsider.start(Program::Rust);
            outsider.open("c", &uri, 0);
            outsider.sql("c", "INSERT INTO t VALUES (2)").rows();
            let rows = outsider.sql("c", "SELECT count(*) FROM t WHERE x = 1").rows();
            assert_eq!(rows[0][0].to_string(), written);
        }
    }
}

/// A server opens its board as root and then becomes an ordinary user, who may not write to the
/// file. It can still write to what it has open, as on the stock VFS, and its locks hold.
#[test]
fn rights_may_be_given_up_while_it_is_open() {
    // Only root can drop rights; another user could not open the file for writing in the first
    // place.
    vfs_tests::needs!(vfs_tests::needs::ROOT);
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            for client in [Stock, Ours, StockBesideOurs] {
                let context = format!("{mode}, {program:?}, {client:?}");
                let board = board(mode);
                let allow = |path: &Path, mode| {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
                };
                allow(&board.directory(), 0o777);
                allow(&board.path(), 0o644);
                let mut server = client.open(program, &board);
                server.call(&json!(["become nobody"])).rows();
                for n in 0..2 {
                    let reply = server.sql("c", &format!("INSERT INTO t VALUES ({n})"));
                    assert!(went_well(&reply), "{context}: {reply:?}");
                }
                server.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").rows();
                for outsider in [Stock, Ours] {
                    let mut outsider = outsider.open(Program::Rust, &board);
                    let reply = outsider.sql("c", "INSERT INTO t VALUES (9)");
                    assert_eq!(reply.code(), SQLITE_BUSY, "{context}");
                }
                server.sql("c", "COMMIT").rows();
                server.close("c");
                assert_eq!(rows(&board), [0, 1, 2], "{context}");
            }
        }
    }
}

/// A stock connection has locked the board by its own descriptor. Then the process opens the board
/// through the VFS, too, and that connection, by another descriptor, is the first that asks the
/// kernel for more. The stock connection's lock is not another process's: it refuses nobody, it is
/// released, and the last close deletes the WAL.
#[test]
fn locks_of_a_stock_connection_are_the_processs_own() {
    for program in Program::ALL {
        for client in [Stock, Ours] {
            for mode in ["delete", "wal"] {
                for order in [["stock", "c"], ["c", "stock"]] {
                    let context = format!("{program:?}, {client:?}, {mode}, {order:?}");
                    let board = board(mode);
                    let mut process = client.start(program);
                    process.open("stock", &board.stock(), 0);
                    process.sql("stock", "BEGIN; SELECT * FROM t").rows();
                    process.open("c", &client.uri(&board), 0);
                    process.sql("c", "BEGIN IMMEDIATE").rows();
                    process.sql("stock", "COMMIT").rows();
                    process.sql("c", "INSERT INTO t VALUES (7)").rows();
                    let commit = process.sql("c", "COMMIT");
                    assert!(went_well(&commit), "{context}: {commit:?}");
                    let mut other = Client::Ours.open(program, &board);
                    let write = other.sql("c", "INSERT INTO t VALUES (8)");
                    assert!(went_well(&write), "{context}: {write:?}");
                    other.close("c");
                    for name in order {
                        process.close(name);
                    }
                    for suffix in ["-wal", "-shm", "-journal"] {
                        assert!(!beside(&board, suffix).exists(), "{context}: board.db{suffix}");
                    }
                }
            }
        }
    }
}

/// A connection that only reads has no descriptor of the database that is open for writing, not
/// even for its locks. (As on the stock VFS.)
#[test]
fn a_reader_has_no_descriptor_to_write_by() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            for client in [Stock, Ours, StockBesideOurs] {
                let context = format!("{mode}, {program:?}, {client:?}");
                let board = board(mode);
                let uri = client.uri(&board);
                let mut process = client.start_at(program, &board);
                process.open("reader", &format!("{uri}&mode=ro"), 0);
                process.sql("reader", "BEGIN; SELECT * FROM t").rows();
                let readers = access_modes(&process, &board.path());
                assert!(!readers.is_empty(), "{context}");
                assert!(readers.iter().all(|mode| *mode == libc::O_RDONLY), "{context}");
                process.open("writer", &uri, 0);
                process.sql("writer", "BEGIN IMMEDIATE").rows();
                assert!(access_modes(&process, &board.path()).contains(&libc::O_RDWR), "{context}");
            }
        }
    }
}

/// The access modes of a process's descriptors of a file. proc(5)
fn access_modes(process: &Agent, file: &Path) -> Vec<i32> {
    let proc = Path::new("/proc").join(process.pid().to_string());
    let descriptors = std::fs::read_dir(proc.join("fd")).unwrap().map(|entry| entry.unwrap());
    let its = descriptors.filter(|entry| std::fs::read_link(entry.path()).unwrap() == file);
    its.map(|entry| {
        let info = std::fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_ACCMODE
    })
    .collect()
}

/// The lock calls that a client makes to read once while others read, each from another snapshot.
/// It is normal that the client is refused the slots that they have.
#[cfg(target_arch = "x86_64")]
fn lock_calls_beside_readers(vfs: &str) -> [usize; 2] {
    let board = Board::new();
    let writer = connect(&board.uri("unix"));
    writer.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    let readers: Vec<_> = (0..5)
        .map(|_| {
            writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
            let reader = connect(&board.uri("unix"));
            let rows: i64 = reader
                .execute_batch("BEGIN")
                .and_then(|()| reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))
                .unwrap();
            (reader, rows)
        })
        .collect();
    writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let start = if vfs == "kanban" { agent } else { stock_agent };
    let mut client = start(Program::Rust);
    client.open("c", &board.uri(vfs), 0);
    let read = "SELECT count(*) FROM t";
    client.sql("c", read).rows();
    let (mut locks, mut questions) = (0, 0);
    let mut client = vfs_tests::trace::Traced::new(client);
    client.call(&json!(["sql", "c", read]), |call| {
        if call.number == libc::SYS_fcntl {
            match call.args[1] as i32 {
                libc::F_SETLK | libc::F_OFD_SETLK => locks += 1,
                libc::F_GETLK | libc::F_OFD_GETLK => questions += 1,
                _ => {}
            }
        }
        vfs_tests::trace::Fault::None
    });
    assert_eq!(readers.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    [locks, questions]
}

/// A reader that finds all slots of the wal-index taken makes the same calls as on the stock VFS,
/// and does not look for their holders.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_refused_slot_of_the_wal_index_costs_no_call() {
    let stock = lock_calls_beside_readers("unix");
    assert!(stock[0] > 2, "it is refused: {stock:?}");
    assert_eq!(lock_calls_beside_readers("kanban"), stock);
}

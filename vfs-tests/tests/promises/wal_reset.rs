//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (<https://www.sqlite.org/wal.html#walresetbug>). A
//! checkpointer has read how long the WAL is, and all of it is already copied. A writer restarts
//! the WAL. The checkpointer then marks frames as copied that the writer has yet to write. If
//! either of the two is ours, no row is lost.

use std::collections::BTreeSet;

use serde_json::Value;
use vfs_tests::pause::{self, At, Library, Stopped, Stops};
use vfs_tests::{Agent, Board, Program, Reply};

use crate::{agent, connect};

const STOCK: &str = "pause";
const OURS: &str = "kanban";

/// The one call between reading how long the WAL is and looking how much of it is copied. SQLite
/// makes it if the header of the wal-index differs from the one that the connection knew.
const WINDOW: &str = "xUnfetch main";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Checkpointer,
    Writer,
}

impl Role {
    fn connection(self) -> &'static str {
        match self {
            Self::Checkpointer => "checkpointer",
            Self::Writer => "writer",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Checkpointer => Self::Writer,
            Self::Writer => Self::Checkpointer,
        }
    }
}

/// The VFS of each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct On {
    checkpointer: &'static str,
    writer: &'static str,
}

const BOTH_STOCK: On = On { checkpointer: STOCK, writer: STOCK };
const BOTH_OURS: On = On { checkpointer: OURS, writer: OURS };
const OUR_CHECKPOINTER: On = On { checkpointer: OURS, writer: STOCK };
const OUR_WRITER: On = On { checkpointer: STOCK, writer: OURS };

/// The two clients.
struct Clients {
    checkpointer: Agent,
    /// `None` if the writer is a thread of the checkpointer's process.
    writer: Option<Agent>,
}

impl Clients {
    fn threads(library: Library) -> Self {
        Self { checkpointer: pause::agent(library), writer: None }
    }

    fn processes(checkpointer: Library, writer: Library) -> Self {
        Self { checkpointer: pause::agent(checkpointer), writer: Some(pause::agent(writer)) }
    }

    fn of(&mut self, role: Role) -> &mut Agent {
        match (role, &mut self.writer) {
            (Role::Writer, Some(writer)) => writer,
            _ => &mut self.checkpointer,
        }
    }
}

/// A board whose WAL has a number of transactions, and the two connections.
struct Scene<'c> {
    board: Board,
    clients: &'c mut Clients,
    next: i64,
    /// The rows whose transactions were acknowledged.
    rows: Vec<i64>,
}

impl<'c> Scene<'c> {
    /// A new scene. After `copied` of the transactions, the writer's own checkpoint copies what
    /// there is. The checkpointer has seen none of them.
    fn new(clients: &'c mut Clients, on: On, transactions: i64, copied: i64) -> Self {
        let mut scene = Self { board: Board::new(), clients, next: 0, rows: Vec::new() };
        scene.open(Role::Writer, on.writer);
        scene.sql(
            Role::Writer,
            "PRAGMA journal_mode=wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); \
             CREATE INDEX i ON t (x)",
        );
        scene.open(Role::Checkpointer, on.checkpointer);
        scene.sql(Role::Checkpointer, "SELECT count(*) FROM t");
        for n in 1..=transactions {
            scene.insert(Role::Writer).rows();
            if n == copied {
                scene.sql(Role::Writer, "PRAGMA wal_checkpoint");
            }
        }
        scene
    }

    fn open(&mut self, role: Role, vfs: &str) {
        let uri = self.board.uri(vfs);
        self.clients.of(role).open(role.connection(), &uri, 5000);
        // Synced only where it matters: where a client may be stopped at a call of xSync.
        self.sql(role, "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=off");
    }

    fn sql(&mut self, role: Role, sql: &str) -> Vec<Vec<Value>> {
        self.clients.of(role).sql(role.connection(), sql).rows()
    }

    /// A transaction that adds the next row. It puts the row's entry anywhere into the index.
    fn transaction(&mut self) -> (i64, String) {
        self.next += 1;
        let id = self.next;
        (id, format!("INSERT INTO t VALUES ({id}, printf('%0200d', {}))", id * 7919 % 1000))
    }

    fn insert(&mut self, role: Role) -> Reply {
        let (id, sql) = self.transaction();
        let reply = self.clients.of(role).sql(role.connection(), &sql);
        if let Reply::Rows(_) = reply {
            self.rows.push(id);
        }
        reply
    }

    /// Both write in turn. Then all frames can be copied, and the WAL is restarted.
    fn go_on(&mut self, transactions: i64) {
        for role in [Role::Writer, Role::Checkpointer] {
            self.sql(role, "PRAGMA synchronous=off");
        }
        for n in 0..transactions {
            let role = if n % 2 == 0 { Role::Writer } else { Role::Checkpointer };
            self.insert(role).rows();
        }
        let long = self.sql(Role::Checkpointer, "PRAGMA wal_checkpoint");
        assert!(long[0][0] == 0 && long[0][1] == long[0][2], "{long:?}");
        self.insert(Role::Writer).rows();
        let short = self.sql(Role::Checkpointer, "PRAGMA wal_checkpoint");
        assert!(short[0][1].as_i64() < long[0][1].as_i64(), "{short:?} after {long:?}");
    }

    /// Both close, and another client looks. Returns how many acknowledged rows are missing, and
    /// the result of integrity_check.
    fn left(self) -> (usize, String) {
        for role in [Role::Writer, Role::Checkpointer] {
            self.clients.of(role).close(role.connection());
        }
        let check = connect(&self.board.stock());
        let is_there = |id: i64| {
            let found = check.query_row("SELECT id FROM t WHERE id = ?", [id], |row| row.get(0));
            found == Ok(id)
        };
        let lost = self.rows.iter().filter(|id| !is_there(**id)).count();
        let integrity = check.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        (lost, integrity.unwrap_or_else(|error| error.to_string()))
    }
}

fn whole() -> (usize, String) {
    (0, "ok".to_owned())
}

/// There are twenty transactions, all copied. A checkpointer has read how long the WAL is, and
/// stops there. The writer commits six more, which restart the WAL; the checkpointer goes on and
/// ends. Then both write thirty more: fewer and then more than there were.
fn overtake(clients: &mut Clients, on: On) -> (usize, String) {
    let stops = Stops::new();
    let mut scene = Scene::new(clients, on, 20, 20);
    let at = At { method: "xUnfetch", file: "main", n: 1 };
    let checkpointer = &mut scene.clients.checkpointer;
    let stopped = stops.begin(checkpointer, "checkpointer", "PRAGMA wal_checkpoint", at);
    assert_eq!(stopped.as_ref().expect("it stops").call(), WINDOW);
    for _ in 0..6 {
        scene.insert(Role::Writer).rows();
    }
    drop(stopped);
    scene.clients.checkpointer.end("checkpointer").rows();
    scene.go_on(30);
    scene.left()
}

/// Shows what the bug does to clients of the stock VFS, and that `on` loses nothing. The clients
/// are processes, of which the writer may have the newest SQLite, or threads of one process.
fn overtake_all(on: On) {
    for mut clients in [
        Clients::processes(Library::Debian, Library::Debian),
        Clients::processes(Library::Debian, Library::Newest),
        Clients::threads(Library::Debian),
    ] {
        let (lost, integrity) = overtake(&mut clients, BOTH_STOCK);
        assert!(lost > 0 && integrity != "ok", "{lost} {integrity}");
        assert_eq!(overtake(&mut clients, on), whole());
    }
}

/// A worker overtakes a gateway's checkpoint; both are ours. (On the stock VFS, acknowledged rows
/// are gone, and the index no longer matches the table.)
#[test]
fn an_overtaken_checkpoint_loses_no_row() {
    overtake_all(BOTH_OURS);
}

/// The same with a worker that does not use this VFS: the checkpointer sees that the WAL is not the
/// one with which it began. (On the stock VFS: as above.)
#[test]
fn our_checkpoint_overtaken_by_a_stock_writer_loses_no_row() {
    overtake_all(OUR_CHECKPOINTER);
}

/// The same with a gateway that does not use this VFS: the writer does not restart the WAL while
/// anybody checkpoints. (On the stock VFS: as above.)
#[test]
fn our_writer_overtakes_no_stock_checkpoint() {
    overtake_all(OUR_WRITER);
}

/// The client that stops, while the other does what it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// A checkpoint of that mode.
    Checkpoint(&'static str),
    /// A transaction.
    Transaction,
}

/// One stop of a [`sweep`].
struct Seen {
    call: String,
    left: (usize, String),
}

/// There are six transactions, of which a checkpoint has copied the first `copied`. One client
/// stops before its n-th call to the base VFS. Meanwhile the other writes, and checkpoints if the
/// first does not. Then the first goes on and ends, and both write more. This is done for every n.
fn sweep(clients: &mut Clients, on: On, copied: i64, stop: Stop) -> Vec<Seen> {
    let stops = Stops::new();
    let mut seen = Vec::new();
    loop {
        let mut scene = Scene::new(clients, on, 6, copied);
        let (role, sql, row) = match stop {
            Stop::Checkpoint(mode) => {
                (Role::Checkpointer, format!("PRAGMA wal_checkpoint({mode})"), None)
            }
            Stop::Transaction => {
                let (id, sql) = scene.transaction();
                (Role::Writer, sql, Some(id))
            }
        };
        scene.sql(role, "PRAGMA synchronous=normal");
        let client = scene.clients.of(role);
        let stopped = stops.begin(client, role.connection(), &sql, At::any(seen.len() + 1));
        let Some(stopped) = stopped else {
            scene.clients.of(role).end(role.connection()).rows();
            assert_eq!(scene.left(), whole());
            return seen;
        };
        let call = stopped.call().to_owned();
        let what = format!("{on:?}, {copied} copied, {stop:?} before {call}");
        act_beside(&mut scene, role.other(), stop, stopped, &what);
        let result = scene.clients.of(role).end(role.connection()).rows();
        scene.rows.extend(row);
        if stop == Stop::Transaction {
            // A writer tries for it while it holds locks.
            assert_ne!(call, "xShmLock main lock exclusive 1+1 may block", "{what}");
        }
        match stop {
            Stop::Checkpoint("passive") => assert_eq!(result[0][0], 0, "{what}: {result:?}"),
            // The other client had finished before the checkpoint went on.
            Stop::Checkpoint(_) => assert_eq!(result, [[0, 0, 0]], "{what}"),
            Stop::Transaction => {}
        }
        scene.go_on(10);
        seen.push(Seen { call, left: scene.left() });
    }
}

/// What `role` does while the other is `stopped`: three transactions, after a checkpoint if the
/// other makes none. During a passive checkpoint all succeed; otherwise they may be refused, at
/// once.
fn act_beside(scene: &mut Scene<'_>, role: Role, stop: Stop, stopped: Stopped, what: &str) {
    let may_refuse = stop != Stop::Checkpoint("passive");
    if may_refuse {
        scene.sql(role, "PRAGMA busy_timeout=0");
    }
    let keeps_all_waiting = keeps_all_waiting(&stopped);
    let mut stopped = Some(stopped);
    let transactions = [(); 3].map(|()| scene.transaction());
    let client = scene.clients.of(role);
    if stop == Stop::Transaction {
        client.send_sql(role.connection(), "PRAGMA wal_checkpoint");
    }
    for (_, sql) in &transactions {
        client.send_sql(role.connection(), sql);
    }
    if keeps_all_waiting {
        stopped = None;
    }
    if stop == Stop::Transaction {
        client.reply().rows();
    }
    for (id, _) in transactions {
        match scene.clients.of(role).reply() {
            Reply::Rows(_) => scene.rows.push(id),
            Reply::Error { message, .. } => {
                assert!(may_refuse && message == "database is locked", "{what}: {message}");
            }
        }
    }
    if may_refuse {
        scene.sql(role, "PRAGMA busy_timeout=5000");
    }
    drop(stopped);
}

/// Whether, even on the stock VFS, nobody can begin to read until the stopped client goes on.
/// SQLite expects these locks to be held only for a moment, tries for ten seconds, and says
/// "locking protocol".
fn keeps_all_waiting(stopped: &Stopped) -> bool {
    const WRITE: u32 = 0;
    // A mark of readers is being moved, or the header of the wal-index is half written.
    let mark =
        (4..8).any(|slot| stopped.call() == format!("xShmLock main unlock exclusive {slot}+1"));
    mark || stopped.call() == "xShmBarrier main" && stopped.holds(WRITE)
}

/// All sweeps of one pairing. Returns the calls at which anything was lost or damaged, and the
/// number of calls. Checks that the sweeps stopped at all places that matter.
fn sweeps(clients: &mut Clients, on: On) -> (BTreeSet<String>, usize) {
    let mut all = Vec::new();
    for (stop, copied) in [
        (Stop::Checkpoint("passive"), 6),
        (Stop::Checkpoint("passive"), 3),
        (Stop::Checkpoint("truncate"), 6),
        (Stop::Transaction, 6),
    ] {
        all.extend(sweep(clients, on, copied, stop));
    }
    for call in [
        WINDOW,
        "xShmLock main lock exclusive 0+1",
        "xShmLock main lock exclusive 1+1",
        "xShmLock main lock exclusive 3+1",
        "xShmLock main lock exclusive 4+4",
        "xShmLock main unlock exclusive 4+4",
        "xWrite main",
        "xSync main",
        "xTruncate main",
        "xWrite wal",
        "xSync wal",
        "xTruncate wal",
    ] {
        let is_it = |seen: &Seen| seen.call.trim_end_matches(" may block") == call;
        if call == "xTruncate main" && on != BOTH_STOCK {
            // A checkpoint through this VFS mostly leaves the file ahead of its header.
            continue;
        }
        assert!(all.iter().any(is_it), "never before {call}");
    }
    let count = all.len();
    let damaged = all.into_iter().filter(|seen| seen.left != whole()).map(|seen| seen.call);
    (damaged.collect(), count)
}

fn sweep_all(mut clients: Clients, is_fixed: bool) {
    let (damaged, count) = sweeps(&mut clients, BOTH_STOCK);
    let expected = if is_fixed { BTreeSet::new() } else { BTreeSet::from([WINDOW.to_owned()]) };
    assert_eq!(damaged, expected, "of {count} calls");
    for on in [BOTH_OURS, OUR_CHECKPOINTER, OUR_WRITER] {
        let (damaged, count) = sweeps(&mut clients, on);
        assert_eq!(damaged, BTreeSet::new(), "{on:?}: of {count} calls");
    }
}

/// A checkpoint, passive or truncating, stops before each of its calls in turn, while a writer in
/// another process commits. Then a writer stops, while the other process checkpoints and writes.
/// Nothing is lost wherever it stops, and every statement ends as it would alone: a passive
/// checkpoint and a commit succeed, and a truncating checkpoint leaves an empty WAL. (On the stock
/// VFS rows are lost at one call.)
#[test]
fn wherever_one_process_stops_no_row_is_lost() {
    sweep_all(Clients::processes(Library::Debian, Library::Debian), false);
}

/// The same with two threads of one process. (On the stock VFS: as above.)
#[test]
fn wherever_one_thread_stops_no_row_is_lost() {
    sweep_all(Clients::threads(Library::Debian), false);
}

/// The same with the newest SQLite, which no longer has the bug and waits inside its lock calls.
/// Our guard is not in the way of its own.
#[test]
fn wherever_one_stops_the_newest_sqlite_loses_no_row_either() {
    sweep_all(Clients::processes(Library::Newest, Library::Newest), true);
}

/// A stock checkpointer does not go on. Our writer, whose busy timeout is longer than any test,
/// does not wait for it: it does not restart the WAL, and commits. (On the stock VFS it does not
/// wait either, and rows are lost.)
#[test]
fn a_writer_does_not_wait_for_a_checkpoint() {
    for library in [Library::Debian, Library::Newest] {
        let mut clients = Clients::processes(library, library);
        let stops = Stops::new();
        let mut scene = Scene::new(&mut clients, OUR_WRITER, 6, 6);
        scene.sql(Role::Writer, "PRAGMA busy_timeout=1000000000");
        let at = At { method: "xUnfetch", file: "main", n: 1 };
        let checkpointer = &mut scene.clients.checkpointer;
        let stopped = stops.begin(checkpointer, "checkpointer", "PRAGMA wal_checkpoint", at);
        assert_eq!(stopped.as_ref().expect("it stops").call(), WINDOW);
        for _ in 0..3 {
            scene.insert(Role::Writer).rows();
        }
        drop(stopped);
        scene.clients.checkpointer.end("checkpointer").rows();
        scene.go_on(10);
        assert_eq!(scene.left(), whole());
    }
}

/// The answers to checkpoints of each mode, alone, with a reader, and with a writer, on the named
/// VFS.
fn answers(program: Program, vfs: &str, mode: &str) -> Vec<(&'static str, Vec<Vec<Value>>)> {
    let board = Board::new();
    let mut client = agent(program);
    for name in ["a", "b"] {
        client.open(name, &board.uri(vfs), 0);
        client.sql(name, "PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0").rows();
    }
    let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
    let mut said = Vec::new();
    for (what, name, sql) in [
        ("an empty database", "a", ""),
        ("after a transaction", "a", "CREATE TABLE t (x)"),
        ("once more", "a", ""),
        ("after another's transaction", "b", "INSERT INTO t VALUES (1)"),
        ("after another's checkpoint", "b", "INSERT INTO t VALUES (2); PRAGMA wal_checkpoint"),
        ("after two", "b", "INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)"),
        ("beside a reader of the end", "b", "BEGIN; SELECT count(*) FROM t"),
        ("beside a reader of what was", "a", "INSERT INTO t VALUES (5)"),
        ("after the reader", "b", "COMMIT"),
        ("beside a writer", "b", "BEGIN IMMEDIATE; INSERT INTO t VALUES (6)"),
        ("after the writer", "b", "COMMIT"),
    ] {
        client.sql(name, sql).rows();
        said.push((what, client.sql("a", &checkpoint).rows()));
    }
    said
}

/// Checkpoints of every mode, in every state of the WAL, give exactly the stock VFS's answers, and
/// never "busy" if nobody is in their way.
#[test]
fn checkpoints_answer_what_they_answer_on_the_stock_vfs() {
    for program in Program::ALL {
        for mode in ["passive", "full", "restart", "truncate"] {
            let stock = answers(program, "unix", mode);
            for (what, rows) in &stock {
                let is_alone = !what.starts_with("beside");
                assert!(!is_alone || rows[0][0] == 0, "{mode}, {what}: {rows:?}");
            }
            assert_eq!(answers(program, OURS, mode), stock, "{program:?}, {mode}");
        }
    }
}

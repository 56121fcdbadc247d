//! Any process is killed at any point: no acknowledged row is lost, and the others go on.
//!
//! `KANBAN_KILLS` is about how many kills each test makes at least; 25 if it is not set.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use vfs_tests::sidecar::holder;
use vfs_tests::trace::Traced;
use vfs_tests::{Agent, Board, PATIENCE, Program, Reply};

use crate::{agent, connect, status};

/// How many kills a test makes.
fn kills() -> usize {
    std::env::var("KANBAN_KILLS").map_or(25, |n| n.parse().unwrap())
}

/// The size of a whole sidecar, see `docs/locking-protocol.md`.
const SIDECAR: u64 = 36_864;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t (id, half)";

/// A transaction of two rows.
fn insert(id: i64) -> String {
    format!(
        "BEGIN IMMEDIATE; INSERT INTO t VALUES ({id}, 1); INSERT INTO t VALUES ({id}, 2); COMMIT"
    )
}

/// Seven clients that share a board with the one to be killed. Two of them are stock clients.
struct Others {
    clients: Vec<(Agent, &'static str)>,
    next: i64,
    /// The rows of acknowledged transactions, and those of dead clients.
    acknowledged: BTreeSet<i64>,
    perhaps: BTreeSet<i64>,
    longest: Duration,
    /// The system calls at which a client was killed.
    calls: BTreeSet<i64>,
    kills: usize,
    /// How many of those killed had the write lock.
    holders: usize,
}

const OURS: &str = "kanban";
const STOCK: &str = "unix";

/// How many of the others are ours.
const OTHERS_OF_OURS: u64 = 5;

impl Others {
    fn start() -> Self {
        let kinds = [
            (Program::Rust, OURS),
            (Program::Python, STOCK),
            (Program::Rust, OURS),
            (Program::Rust, OURS),
            (Program::Python, OURS),
            (Program::Rust, STOCK),
            (Program::Rust, OURS),
        ];
        Self {
            clients: kinds.map(|(program, vfs)| (agent(program), vfs)).into(),
            next: 0,
            acknowledged: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            longest: Duration::ZERO,
            calls: BTreeSet::new(),
            kills: 0,
            holders: 0,
        }
    }

    /// Opens the board for the clients on these VFSes.
    fn open(&mut self, board: &Board, which: impl Fn(&str) -> bool) {
        for (client, vfs) in &mut self.clients {
            if which(vfs) {
                client.open("c", &board.uri(vfs), 60_000);
            }
        }
    }

    /// Closes the board for all clients. Ours come last, since they keep the WAL.
    fn close(&mut self) {
        for last in [OURS, STOCK] {
            for (client, _) in self.clients.iter_mut().filter(|(_, vfs)| *vfs != last) {
                client.close("c");
            }
        }
    }

    /// Lets each client on these VFSes begin a transaction, without waiting for the answer.
    fn begin(&mut self, before: &str, which: impl Fn(&str) -> bool) -> Vec<i64> {
        let first = self.next + 1;
        self.next += self.clients.len() as i64;
        let ids: Vec<i64> = (first..=self.next).collect();
        for ((client, vfs), id) in self.clients.iter_mut().zip(&ids) {
            if which(vfs) {
                // The stock clients do not checkpoint, since they could run into the WAL-reset bug.
                let pages = if *vfs == STOCK { 0 } else { 1000 };
                let set_up = format!("PRAGMA wal_autocheckpoint={pages}; PRAGMA synchronous=off;");
                client.send_sql("c", &format!("{set_up}{before}{}", insert(*id)));
            }
        }
        ids
    }

    /// A transaction of the victim, which may be committed or not.
    fn transaction(&mut self) -> i64 {
        self.next += 1;
        self.perhaps.insert(self.next);
        self.next
    }

    /// Kills the victim, which is stopped before a call, and lets the others end what they have
    /// begun.
    fn outlive(&mut self, board: &Board, victim: Traced, call: i64, begun: &[i64]) {
        self.kill(board, victim, call);
        let killed = Instant::now();
        self.end(begun, |_| true);
        self.longest = self.longest.max(killed.elapsed());
    }

    fn kill(&mut self, board: &Board, victim: Traced, call: i64) {
        self.calls.insert(call);
        self.kills += 1;
        self.holders += usize::from(holder(&board.sidecar()) == Some(victim.pid()));
        victim.kill();
    }

    /// Checks that what the clients on these VFSes have begun ends well.
    fn end(&mut self, begun: &[i64], which: impl Fn(&str) -> bool) {
        let clients = self.clients.iter_mut().zip(begun).filter(|((_, vfs), _)| which(vfs));
        for ((client, vfs), id) in clients {
            match client.reply_within(PATIENCE) {
                Some(Reply::Rows(_)) => self.acknowledged.insert(*id),
                other => panic!("transaction {id}, on {vfs}: {other:?}"),
            };
        }
    }

    /// Checks that the board has all that was acknowledged, and no half of a transaction.
    fn check(&self, board: &Connection) {
        let ok: String = board.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok");
        let sql = "SELECT id, count(*), count(DISTINCT half) FROM t GROUP BY id";
        let mut statement = board.prepare(sql).unwrap();
        let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let found: Vec<(i64, i64, i64)> = found.unwrap().map(Result::unwrap).collect();
        for (id, halves, different) in &found {
            assert_eq!((*halves, *different), (2, 2), "transaction {id}");
        }
        let found: BTreeSet<i64> = found.into_iter().map(|(id, ..)| id).collect();
        let lost: Vec<_> = self.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let made_up: Vec<_> = found.iter().filter(|id| !self.acknowledged.contains(id)).collect();
        assert!(made_up.iter().all(|id| self.perhaps.contains(id)), "made up: {made_up:?}");
    }

    fn report(&self, what: &str) {
        let Self { kills, holders, longest, .. } = self;
        println!("{what}: {kills} kills, {holders} of holders; seven others within {longest:?}");
    }
}

/// At which of `all` calls to stop.
fn positions(all: usize, wanted: usize) -> BTreeSet<usize> {
    (0..wanted.min(all)).map(|n| n * all / wanted.min(all)).collect()
}

fn sql(sql: &str) -> Value {
    json!(["sql", "v", sql])
}

/// A client that has the board open.
fn victim(program: Program, board: &Board) -> Agent {
    let mut victim = agent(program);
    victim.open("v", &board.kanban(), 60_000);
    victim.sql("v", "PRAGMA synchronous=full; SELECT count(*) FROM t").rows();
    victim
}

/// A client that has used the VFS, but not this board, so that it makes the calls of a first use no
/// more.
fn newcomer(program: Program) -> Agent {
    let elsewhere = Board::new();
    let mut newcomer = agent(program);
    newcomer.open("w", &elsewhere.kanban(), 60_000);
    newcomer.sql("w", &format!("PRAGMA journal_mode=wal; {TABLE}; {}", insert(0))).rows();
    newcomer.close("w");
    newcomer
}

/// The call before which it is stopped.
fn call_of(stopped: &Result<i64, Vec<i64>>) -> i64 {
    *stopped.as_ref().unwrap_or(&libc::SYS_write)
}

/// Where a victim must stop, see [`Traced::run`].
type Stops<'a> = &'a dyn Fn(usize, i64) -> bool;

/// Calls `story` for victims of both programs. They are killed at the first system call of each
/// kind that they make, and at others spread over all of them. `story` returns the calls of its
/// victim if the victim was not stopped.
fn at_steps(mut story: impl FnMut(Program, Stops<'_>) -> Result<i64, Vec<i64>>) {
    for (program, share) in [(Program::Rust, 3), (Program::Python, 1)] {
        let calls = story(program, &|_, _| false).unwrap_err();
        for n in positions(calls.len(), kills() * share / 4) {
            let _ = story(program, &|made, _| made == n);
        }
        for kind in BTreeSet::from_iter(calls) {
            let _ = story(program, &|_, call| call == kind);
        }
    }
}

/// Seven clients write while an eighth is killed in a transaction, at any of its system calls:
/// before it has the lock, with it, in its commit, on its way out.
#[test]
fn in_a_transaction() {
    for mode in ["wal", "delete"] {
        let board = Board::new();
        let check = connect(&board.kanban());
        check.execute_batch(&format!("PRAGMA journal_mode={mode}; {TABLE}")).unwrap();
        let mut others = Others::start();
        others.open(&board, |_| true);
        at_steps(|program, stops| {
            let mut victim = Traced::new(victim(program, &board));
            let id = others.transaction();
            let stopped = victim.run(&[sql(&insert(id))], stops);
            let begun = others.begin("", |_| true);
            others.outlive(&board, victim, call_of(&stopped), &begun);
            others.check(&check);
            stopped
        });
        others.report(&format!("in a transaction, {mode}"));
        // Many of its calls open the sidecar.
        assert!(others.holders > others.kills / 6, "of holders only {}", others.holders);
    }
}

/// All others wait, five of them in the queue, while the holder commits and hands over. It is
/// killed at any of its system calls. That includes the moment when it has given the turn and still
/// has the lock, and the moment when it has released the lock and nobody is woken.
#[test]
fn handing_over() {
    let board = Board::new();
    let check = connect(&board.kanban());
    check.execute_batch(&format!("PRAGMA journal_mode=wal; {TABLE}")).unwrap();
    let mut others = Others::start();
    others.open(&board, |_| true);
    at_steps(|program, stops| {
        let mut holder = victim(program, &board);
        let id = others.transaction();
        let (rows, commit) =
            insert(id).rsplit_once("; ").map(|(a, b)| (a.to_owned(), sql(b))).unwrap();
        holder.sql("v", &rows).rows();
        let begun = others.begin("", |_| true);
        let began = Instant::now();
        while status(&check, "/waiters") != OTHERS_OF_OURS {
            assert!(began.elapsed() < PATIENCE, "not all wait");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut holder = Traced::new(holder);
        let stopped = holder.run(&[commit], stops);
        others.outlive(&board, holder, call_of(&stopped), &begun);
        others.check(&check);
        stopped
    });
    others.report("handing over");
    assert!(others.holders > 0 && others.holders < others.kills);
    assert!(others.calls.contains(&libc::SYS_futex), "killed before waking the next");
}

/// A client waits in the queue, behind a holder and before all others, and is killed. Its place
/// stays blocked no longer than it takes to see that it is dead.
#[test]
fn waiting() {
    let board = Board::new();
    let check = connect(&board.kanban());
    check.execute_batch(&format!("PRAGMA journal_mode=wal; {TABLE}")).unwrap();
    let mut others = Others::start();
    others.open(&board, |_| true);
    let mut holder = agent(Program::Rust);
    holder.open("h", &board.kanban(), 60_000);
    for (program, share) in [(Program::Rust, 3), (Program::Python, 1)] {
        // While it waits it looks again and again, so the calls have no end.
        for n in positions(60, kills() * share / 4) {
            holder.sql("h", "BEGIN IMMEDIATE").rows();
            let mut victim = Traced::new(victim(program, &board));
            let id = others.transaction();
            // One kill is where it sleeps, whatever the others hit.
            let stops = |made, call| if n == 0 { call == libc::SYS_futex } else { made == n };
            let call = victim.run(&[sql(&insert(id))], stops).expect("it waits");
            let begun = others.begin("", |_| true);
            others.kill(&board, victim, call);
            holder.sql("h", "COMMIT").rows();
            let freed = Instant::now();
            others.end(&begun, |_| true);
            others.longest = others.longest.max(freed.elapsed());
            others.check(&check);
        }
    }
    others.report("waiting");
    assert!(others.calls.contains(&libc::SYS_futex), "killed while it waited");
}

/// A checkpoint is killed at any of its system calls; others write meanwhile.
#[test]
fn in_a_checkpoint() {
    for mode in ["truncate", "passive"] {
        let board = Board::new();
        let check = connect(&board.kanban());
        check.execute_batch(&format!("PRAGMA journal_mode=wal; {TABLE}")).unwrap();
        let mut others = Others::start();
        others.open(&board, |_| true);
        at_steps(|program, stops| {
            let begun = others.begin("", |_| true);
            others.end(&begun, |_| true);
            let mut victim = Traced::new(victim(program, &board));
            let stopped = victim.run(&[sql(&format!("PRAGMA wal_checkpoint({mode})"))], stops);
            let begun = others.begin("", |_| true);
            others.outlive(&board, victim, call_of(&stopped), &begun);
            others.check(&check);
            stopped
        });
        others.report(&format!("in a checkpoint, {mode}"));
        assert!(
            others.calls.contains(&libc::SYS_fdatasync),
            "killed before a sync: {:?}",
            others.calls
        );
    }
}

/// All clients have gone, the last one killed, and have left a WAL. The first client to come
/// recovers it, and is killed at any system call from its open on, while the others come.
#[test]
fn in_recovery() {
    let board = Board::new();
    connect(&board.kanban()).execute_batch(&format!("PRAGMA journal_mode=wal; {TABLE}")).unwrap();
    let mut others = Others::start();
    others.open(&board, |_| true);
    at_steps(|program, stops| {
        let mut last = victim(Program::Rust, &board);
        // Then there is as much to recover each time.
        last.sql("v", "PRAGMA wal_checkpoint(TRUNCATE)").rows();
        let begun = others.begin("", |_| true);
        others.end(&begun, |_| true);
        others.close();
        last.kill();
        let wal = board.directory().join("board.db-wal").metadata().unwrap();
        assert!(wal.len() > 0, "there is something to recover");
        let mut victim = Traced::new(newcomer(program));
        let id = others.transaction();
        let open = json!(["open", "v", board.kanban(), 60_000]);
        let stopped = victim.run(&[open, sql(&insert(id))], stops);
        others.open(&board, |_| true);
        let begun = others.begin("", |_| true);
        others.outlive(&board, victim, call_of(&stopped), &begun);
        others.check(&connect(&board.kanban()));
        stopped
    });
    others.report("in recovery");
    assert!(others.holders > 0);
}

/// The last connection closes: it copies the WAL and empties it. It is killed at any system call,
/// while the others come back.
#[test]
fn in_the_last_close() {
    let board = Board::new();
    connect(&board.kanban()).execute_batch(&format!("PRAGMA journal_mode=wal; {TABLE}")).unwrap();
    let mut others = Others::start();
    others.open(&board, |_| true);
    at_steps(|program, stops| {
        let victim = victim(program, &board);
        let begun = others.begin("", |_| true);
        others.end(&begun, |_| true);
        others.close();
        let mut victim = Traced::new(victim);
        let stopped = victim.run(&[json!(["close", "v"])], stops);
        others.open(&board, |_| true);
        let begun = others.begin("", |_| true);
        others.outlive(&board, victim, call_of(&stopped), &begun);
        others.check(&connect(&board.kanban()));
        stopped
    });
    others.report("in the last close");
    let syncs = [libc::SYS_fsync, libc::SYS_fdatasync];
    assert!(syncs.iter().any(|call| others.calls.contains(call)), "killed in its checkpoint");
}

/// There is no board. The first client creates it with its sidecar and schema, and is killed at any
/// system call from its open on, while others come to do the same.
#[test]
fn at_the_first_connect() {
    let mut others = Others::start();
    let mut sidecars = BTreeSet::new();
    at_steps(|program, stops| {
        (others.acknowledged, others.perhaps) = Default::default();
        let board = Board::new();
        let mut victim = Traced::new(newcomer(program));
        let id = others.transaction();
        let set_up = format!("PRAGMA journal_mode=wal; {TABLE};");
        let open = json!(["open", "v", board.kanban(), 60_000]);
        let stopped = victim.run(&[open, sql(&format!("{set_up}{}", insert(id)))], stops);
        sidecars.insert(board.sidecar().metadata().ok().map(|sidecar| sidecar.len()));
        others.open(&board, |vfs| vfs == OURS);
        let begun = others.begin(&set_up, |vfs| vfs == OURS);
        others.kill(&board, victim, call_of(&stopped));
        let killed = Instant::now();
        others.end(&begun, |vfs| vfs == OURS);
        others.longest = others.longest.max(killed.elapsed());
        // The stock clients come later, since they do not wait where ours do.
        others.open(&board, |vfs| vfs == STOCK);
        let begun = others.begin("", |vfs| vfs == STOCK);
        others.end(&begun, |vfs| vfs == STOCK);
        others.check(&connect(&board.kanban()));
        others.close();
        stopped
    });
    others.report("at the first connect");
    assert!(others.holders > 0);
    let whole = Some(SIDECAR);
    assert!(sidecars.contains(&None) && sidecars.contains(&whole), "{sidecars:?}");
    assert!(sidecars.iter().any(|size| size.is_some() && *size < whole), "{sidecars:?}");
}

/// There are 24 writers of both programs, seven of them on the stock VFS. Some have three threads,
/// and one looks at its files' bytes. About every 50 ms one of them is killed, at any moment, and
/// replaced.
#[test]
fn at_any_moment() {
    let kills = (4 * kills()).to_string();
    let how = ["--writers", "--processes", "24", "--kills-per-minute", "1200", "--kills", &kills];
    let (summary, well) = crate::soak::soak(&how);
    assert!(well, "{summary:#}");
    let pause = &summary["longest_pause_after_kill_ms"];
    println!("at any moment: {kills} kills; the longest pause of all was {pause} ms");
    assert!(summary["kills"].as_u64() >= kills.parse().ok());
    assert!(summary["kanban"]["commits"].as_u64() > summary["kills"].as_u64(), "{summary:#}");
    assert!(summary["stock"]["commits"].as_u64() > Some(0), "{summary:#}");
}

//! The board: what is done to it, and how it must look afterwards.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rusqlite::{Connection, ErrorCode, params};

use super::Run;
use super::record::{Event, Recorder, When};
use crate::base::{Base, Call, File, Locks, Method};
use crate::{PATIENCE, sidecar};

/// How many transactions the board may have, and its contents after each.
#[derive(Clone, Default)]
pub(super) struct Expected {
    /// The least number.
    pub(super) acknowledged: u32,
    /// The greatest number.
    pub(super) attempted: u32,
    /// The digest of the board after each number of transactions.
    contents: Vec<u64>,
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {} transactions expected", self.acknowledged, self.attempted)
    }
}

impl Expected {
    /// The same, but with exactly `n` transactions: what was read after a power cut must stay.
    pub(super) fn exactly(&self, n: u32) -> Self {
        Self { acknowledged: n, attempted: n, contents: self.contents.clone() }
    }

    /// Transaction `n`, from 1, is about to be committed. Its content may differ from an earlier
    /// attempt that failed.
    pub(super) fn attempt(&mut self, n: u32, content: u64) {
        self.attempted = n;
        self.contents.resize(n as usize, 0);
        self.contents[n as usize - 1] = content;
    }
}

/// What happened to the board.
pub(super) struct Workload {
    pub(super) events: Vec<Event>,
    pub(super) beside_checkpoints: usize,
    pub(super) beside_syncs: usize,
}

/// The rows: where each card is, and what it says.
type Cards = BTreeMap<i64, (i64, Vec<u8>)>;

fn digest<'c>(cards: impl Iterator<Item = (i64, i64, &'c [u8])>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for card in cards {
        card.hash(&mut hasher);
    }
    hasher.finish()
}

fn digest_of(cards: &Cards) -> u64 {
    digest(cards.iter().map(|(id, (lane, body))| (*id, *lane, &**body)))
}

/// What a client does next.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// A transaction.
    Write(Writer, End),
    /// The other writer tries to write while one has a transaction open.
    Contend,
    /// A reader keeps its snapshot while both write.
    LongRead,
    /// Deletes a third of all cards.
    Clear,
    Vacuum,
    /// Creates or drops an index.
    Index,
    Checkpoint(&'static str),
    /// A writer commits during another connection's checkpoint.
    CheckpointBeside,
    /// With group commit, a writer commits during the sync of another's commit.
    CommitBeside,
    /// The last connection changes the board to DELETE mode, and then all change it to WAL mode
    /// again.
    LeaveWal,
    /// A connection is closed, and opened again.
    Reopen(Writer),
}

#[derive(Clone, Copy, PartialEq)]
enum Writer {
    First,
    /// Its cache is so small that it spills.
    Second,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Commit,
    /// Rolls back a part of the transaction before the commit.
    CommitPart,
    Rollback,
}

const STEPS: [Step; 23] = {
    use Step::*;
    [
        Write(Writer::First, End::Commit),
        Write(Writer::First, End::Commit),
        Write(Writer::First, End::CommitPart),
        Write(Writer::First, End::Rollback),
        Write(Writer::Second, End::Commit),
        Write(Writer::Second, End::Commit),
        Write(Writer::Second, End::CommitPart),
        Write(Writer::Second, End::Rollback),
        Contend,
        LongRead,
        Clear,
        Vacuum,
        Index,
        Checkpoint("PASSIVE"),
        Checkpoint("FULL"),
        Checkpoint("RESTART"),
        Checkpoint("TRUNCATE"),
        CheckpointBeside,
        CommitBeside,
        CommitBeside,
        LeaveWal,
        Reopen(Writer::First),
        Reopen(Writer::Second),
    ]
};

/// What is to happen in the middle of a checkpoint, before the checkpoint has written all pages.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// What is to happen at the WAL syncs that commits have deferred.
#[derive(Clone, Default)]
struct Syncs {
    /// When the next sync was recorded.
    recorded: Meanwhile,
    /// Before the sync after that one is recorded.
    before: Meanwhile,
}

fn take(meanwhile: &Meanwhile) -> Option<Box<dyn FnOnce() + Send>> {
    meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take()
}

struct Clients {
    run: Run,
    uri: String,
    page: usize,
    random: Rng,
    recorder: Recorder,
    meanwhile: Meanwhile,
    syncs: Syncs,
    /// The two writers, and a reader that also does what belongs to neither. All busy timeouts are
    /// 0, since one thread plays all of them.
    connections: [Option<Connection>; 3],
    cards: Cards,
    next_id: i64,
    acknowledged: u32,
    beside_checkpoints: usize,
    beside_syncs: usize,
}

/// Takes each step twice, in a random order.
pub(super) fn run(base: Base, vfs: &str, directory: &Path, run: Run) -> Workload {
    let meanwhile = Meanwhile::default();
    let hook = Arc::clone(&meanwhile);
    let syncs = Syncs::default();
    let at_syncs = syncs.clone();
    let recorder = Recorder::start(base, directory, [], run.lie, move |call, when| {
        let is_deferred = call.file == File::Wal
            && matches!(call.method, Method::Sync { .. })
            && !base.locks().iter().any(Locks::to_write);
        match when {
            When::Before => {
                run_meanwhile(&hook, call);
                let is_first =
                    at_syncs.recorded.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                if let Some(wait) =
                    (is_deferred && !is_first).then(|| take(&at_syncs.before)).flatten()
                {
                    wait();
                }
            }
            When::Recorded if is_deferred => {
                if let Some(act) = take(&at_syncs.recorded) {
                    act();
                }
            }
            When::Recorded => {}
        }
    });
    let mut random = Rng::with_seed(run.seed);
    let group = if run.mode.is_group() { "&kanban_group_commit=1" } else { "" };
    let uri = format!("file:{}?vfs={vfs}{group}", directory.join("board.db").display());
    let page = *random.choice(&[512, 1024, 4096]).expect("some");
    let mut clients = Clients {
        run,
        uri,
        page,
        random,
        recorder,
        meanwhile,
        syncs,
        connections: [None, None, None],
        cards: Cards::new(),
        next_id: 1,
        acknowledged: 0,
        beside_checkpoints: 0,
        beside_syncs: 0,
    };
    clients.create();
    let mut steps = [STEPS, STEPS].concat();
    clients.random.shuffle(&mut steps);
    for step in steps {
        clients.step(step);
    }
    clients.connections = [None, None, None];
    let Clients { beside_checkpoints, beside_syncs, .. } = clients;
    Workload { events: clients.recorder.take(), beside_checkpoints, beside_syncs }
}

/// Runs `meanwhile` in a thread of its own, as another process would.
fn run_meanwhile(meanwhile: &Meanwhile, call: &Call<'_>) {
    if !(call.file == File::Main && matches!(call.method, Method::Write { .. })) {
        return;
    }
    let taken = meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(act) = taken {
        let (sender, done) = channel();
        std::thread::spawn(move || {
            act();
            sender.send(()).expect("somebody waits");
        });
        done.recv_timeout(PATIENCE).expect("it ends");
    }
}

fn is_busy(result: &rusqlite::Result<()>) -> bool {
    let code = result.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
    code == Some(ErrorCode::DatabaseBusy)
}

impl Clients {
    fn open(&mut self, n: usize) {
        let connection = Connection::open(&self.uri).expect("it opens");
        connection.busy_timeout(Duration::ZERO).expect("it is set");
        let (mode, synchronous) = (self.run.mode.journal(), self.run.mode.synchronous());
        // A change to WAL mode is a transaction in DELETE mode, where NORMAL may corrupt the
        // database: the journal's checksum does not cover all of a page, and its header is not
        // synced after the pages.
        connection
            .execute_batch(&format!(
                "PRAGMA page_size={}; PRAGMA journal_mode={mode}; PRAGMA synchronous={synchronous}; \
                 PRAGMA wal_autocheckpoint=8;",
                self.page
            ))
            .expect("nobody else is there");
        if n == Writer::Second as usize {
            connection.execute_batch("PRAGMA cache_size=4").expect("it is set");
        }
        self.connections[n] = Some(connection);
    }

    fn connection(&self, n: usize) -> &Connection {
        self.connections[n].as_ref().expect("it is open")
    }

    fn sql(&self, n: usize, sql: &str) -> rusqlite::Result<()> {
        self.connection(n).execute_batch(sql)
    }

    /// Creates the tables, which is the first transaction.
    fn create(&mut self) {
        let auto_vacuum = self.random.u8(..3);
        self.open(0);
        self.sql(
            0,
            &format!(
                "PRAGMA auto_vacuum={auto_vacuum}; BEGIN IMMEDIATE; \
                 CREATE TABLE card (id INTEGER PRIMARY KEY, lane INTEGER, body BLOB); \
                 CREATE INDEX lanes ON card (lane); \
                 CREATE TABLE log (n INTEGER PRIMARY KEY); \
                 INSERT INTO log VALUES (1)"
            ),
        )
        .expect("it is new");
        self.commit(0, Cards::new()).expect("nobody else is there");
        self.open(1);
        self.open(2);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(writer, end) => self.write(writer as usize, end),
            Step::Contend => {
                let cards = self.begin(0).expect("nobody else writes");
                assert!(is_busy(&self.sql(1, "BEGIN IMMEDIATE")), "two writers");
                self.commit(0, cards).expect("nobody else is there");
            }
            Step::LongRead => {
                self.sql(2, "BEGIN; SELECT count(*) FROM card").expect("readers may read");
                // In rollback modes, these writers cannot commit.
                self.write(0, End::Commit);
                self.write(1, End::Commit);
                self.sql(2, "COMMIT").expect("it ends");
            }
            Step::Clear => {
                self.sql(0, "BEGIN IMMEDIATE").expect("nobody else writes");
                let mut cards = self.cards.clone();
                cards.retain(|id, _| id % 3 != 0);
                self.sql(0, "DELETE FROM card WHERE id % 3 = 0").expect("it deletes");
                self.log(0).expect("it inserts");
                self.commit(0, cards).expect("nobody else is there");
            }
            Step::Vacuum => self.sql(2, "VACUUM").expect("nobody else is there"),
            Step::Index => self
                .sql(2, "CREATE INDEX IF NOT EXISTS ids ON card (lane, id); REINDEX")
                .and_then(|()| match self.random.bool() {
                    true => self.sql(2, "DROP INDEX ids"),
                    false => Ok(()),
                })
                .expect("nobody else is there"),
            Step::Checkpoint(how) if self.run.mode.is_wal() => {
                self.sql(2, &format!("PRAGMA wal_checkpoint({how})")).expect("nobody is there");
            }
            Step::CheckpointBeside if self.run.mode.is_wal() => self.checkpoint_beside(),
            Step::LeaveWal if self.run.mode.is_wal() => {
                self.connections[..2].fill_with(|| None);
                self.sql(2, "PRAGMA synchronous=full").expect("it is set");
                let mode = "PRAGMA journal_mode=delete";
                let left = self.connection(2).query_row(mode, [], |row| row.get::<_, String>(0));
                assert_eq!(left.as_deref(), Ok("delete"));
                (0..3).rev().for_each(|n| self.open(n));
            }
            Step::CommitBeside if self.run.mode.is_group() => self.commit_beside(),
            Step::CommitBeside | Step::Checkpoint(_) | Step::CheckpointBeside | Step::LeaveWal => {}
            Step::Reopen(writer) => {
                self.connections[writer as usize] = None;
                self.open(writer as usize);
            }
        }
    }

    fn write(&mut self, n: usize, end: End) {
        let cards = self.begin(n).expect("nobody else writes");
        if end == End::CommitPart {
            self.sql(n, "SAVEPOINT part").expect("it is set");
            let mut lost = cards.clone();
            self.change(n, &mut lost).expect("it changes");
            self.sql(n, "ROLLBACK TO part; RELEASE part").expect("it is there");
        }
        if end == End::Rollback {
            self.sql(n, "ROLLBACK").expect("it is open");
        } else if let Err(error) = self.commit(n, cards) {
            assert!(is_busy(&Err(error)) && !self.run.mode.is_wal());
            self.sql(n, "ROLLBACK").expect("it is open");
        }
    }

    /// Begins a transaction and makes changes. Returns the resulting cards.
    fn begin(&mut self, n: usize) -> rusqlite::Result<Cards> {
        self.sql(n, "BEGIN IMMEDIATE")?;
        let mut cards = self.cards.clone();
        self.change(n, &mut cards)?;
        self.log(n)?;
        Ok(cards)
    }

    /// Adds cards, changes some, moves and deletes a few.
    fn change(&mut self, n: usize, cards: &mut Cards) -> rusqlite::Result<()> {
        let most = if n == Writer::Second as usize { 6 } else { 3 };
        for _ in 0..self.random.usize(1..=most) {
            let new = cards.len() < 6 || cards.len() < 40 && self.random.bool();
            let ids: Vec<_> = cards.keys().copied().collect();
            let id = match self.random.choice(ids) {
                Some(id) if !new => id,
                _ => {
                    self.next_id += 1;
                    self.next_id
                }
            };
            let lane = self.random.i64(..4);
            if !new && self.random.u8(..4) == 0 {
                self.connection(n).execute("DELETE FROM card WHERE id = ?", [id])?;
                cards.remove(&id);
                continue;
            }
            let mut body = vec![0; self.random.usize(..4 * self.page)];
            self.random.fill(&mut body);
            let sql = "REPLACE INTO card VALUES (?, ?, ?)";
            self.connection(n).execute(sql, params![id, lane, body])?;
            cards.insert(id, (lane, body));
        }
        Ok(())
    }

    /// Writes row n of the log, which belongs to the n-th transaction.
    fn log(&self, n: usize) -> rusqlite::Result<()> {
        let sql = "INSERT INTO log VALUES (?)";
        self.connection(n).execute(sql, [self.acknowledged + 1]).map(drop)
    }

    fn commit(&mut self, n: usize, cards: Cards) -> rusqlite::Result<()> {
        self.recorder.note(Event::Attempt(self.acknowledged + 1, digest_of(&cards)));
        self.sql(n, "COMMIT")?;
        self.acknowledge(cards);
        Ok(())
    }

    fn acknowledge(&mut self, cards: Cards) {
        self.cards = cards;
        self.acknowledged += 1;
        self.recorder.note(Event::Acknowledged(self.acknowledged));
    }

    /// The first writer commits. When its sync has begun, the second writer commits, and waits for
    /// the next sync. That sync begins when the first writer's COMMIT has returned.
    fn commit_beside(&mut self) {
        // A checkpoint within the first writer's COMMIT would sync for the second.
        self.sql(0, "PRAGMA wal_autocheckpoint=0").expect("it is set");
        let cards = self.begin(0).expect("nobody else writes");
        let n = self.acknowledged + 1;
        self.next_id += 1;
        let (id, body) = (self.next_id, vec![n as u8; self.page]);
        let mut both = cards.clone();
        both.insert(id, (0, body.clone()));
        let content = digest_of(&both);
        let [writer, reader] = [1, 2].map(|n| self.connections[n].take().expect("it is open"));
        let recorder = self.recorder.clone();
        let (sender, done) = channel();
        let (acknowledges, acknowledged) = channel::<()>();
        let second = move || {
            std::thread::spawn(move || {
                let committed = writer.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
                    let card = "INSERT INTO card VALUES (?, 0, ?)";
                    writer.execute(card, params![id, body])?;
                    writer.execute("INSERT INTO log VALUES (?)", [n + 1])?;
                    recorder.note(Event::Attempt(n + 1, content));
                    writer.execute_batch("COMMIT")
                });
                sender.send((writer, committed)).expect("somebody waits");
            });
            // Waits until the second writer has committed, and its COMMIT waits.
            let began = Instant::now();
            let count = "SELECT count(*) FROM log";
            while reader.query_row(count, [], |row| row.get(0)) != Ok(n + 1) {
                assert!(began.elapsed() < PATIENCE, "it does not commit");
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(reader);
        };
        let set = |meanwhile: &Meanwhile, to: Box<dyn FnOnce() + Send>| {
            *meanwhile.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        };
        set(&self.syncs.recorded, Box::new(second));
        set(
            &self.syncs.before,
            Box::new(move || {
                let _ = acknowledged.recv_timeout(PATIENCE);
            }),
        );
        self.commit(0, cards).expect("nobody else is there");
        match take(&self.syncs.recorded) {
            // The first writer synced nothing.
            Some(second) => second(),
            None => self.beside_syncs += 1,
        }
        let _ = acknowledges.send(());
        let (writer, committed) = done.recv_timeout(PATIENCE).expect("it has ended");
        committed.expect("nobody else writes");
        take(&self.syncs.before);
        self.connections[1] = Some(writer);
        self.open(2);
        self.acknowledge(both);
        self.sql(0, "PRAGMA wal_autocheckpoint=8").expect("it is set");
    }

    fn checkpoint_beside(&mut self) {
        self.sql(0, "PRAGMA wal_autocheckpoint=0").expect("it is set");
        self.write(0, End::Commit);
        // While this transaction is open, the checkpoint cannot exclude the writer.
        let cards = self.begin(0).expect("nobody else writes");
        let (writer, recorder) = (self.connections[0].take().expect("open"), self.recorder.clone());
        let (sender, done) = channel();
        let (n, content) = (self.acknowledged + 1, digest_of(&cards));
        let commit = move || {
            recorder.note(Event::Attempt(n, content));
            writer.execute_batch("COMMIT").expect("nobody else writes");
            sender.send(writer).expect("somebody waits");
        };
        let set = |to| {
            std::mem::replace(
                &mut *self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner),
                to,
            )
        };
        set(Some(Box::new(commit)));
        self.sql(2, "PRAGMA wal_checkpoint(PASSIVE)").expect("it does what it can");
        match set(None) {
            // The checkpoint had nothing to copy.
            Some(commit) => commit(),
            None => self.beside_checkpoints += 1,
        }
        self.connections[0] = Some(done.recv_timeout(PATIENCE).expect("it has ended"));
        self.acknowledge(cards);
        self.sql(0, "PRAGMA wal_autocheckpoint=8").expect("it is set");
    }
}

/// Opens the board after a power cut, reads it and checkpoints it. Returns how many transactions it
/// has, and what was done to the files.
pub(super) fn recover(
    base: Base,
    vfs: &str,
    directory: &Path,
    files: impl IntoIterator<Item = PathBuf>,
    expected: &Expected,
) -> Result<(u32, Vec<Event>), String> {
    let recorder = Recorder::start(base, directory, files, None, |_, _| {});
    let uri = format!("file:{}?vfs={vfs}", directory.join("board.db").display());
    let n = Connection::open(&uri)
        .and_then(|board| {
            let n = transactions(&board, expected)?;
            board.execute_batch("PRAGMA wal_checkpoint").map(|()| n)
        })
        .map_err(|error| format!("it cannot be recovered: {error}"))?;
    base.off();
    Ok((n?, recorder.take()))
}

/// Looks at the board after a power cut.
pub(super) fn look_at(directory: &Path, expected: &Expected) -> Result<(), String> {
    let uri = format!("file:{}?vfs=kanban", directory.join("board.db").display());
    let board = Connection::open(&uri).map_err(|error| format!("it does not open: {error}"))?;
    let n =
        transactions(&board, expected).map_err(|error| format!("it cannot be read: {error}"))??;
    let faults: String = board
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| format!("it cannot be checked: {error}"))?;
    if faults != "ok" {
        return Err(faults);
    }
    let next = n + 1;
    let write = |sql: &str| {
        board.execute_batch(sql).map_err(|error| format!("it cannot be written to: {error}"))
    };
    write("PRAGMA synchronous=OFF; BEGIN IMMEDIATE")?;
    let holder = sidecar::holder(&directory.join("board.db-lock"));
    let status: String = board
        .query_row("PRAGMA kanban_status", [], |row| row.get(0))
        .map_err(|error| format!("its status cannot be read: {error}"))?;
    // The VFS leaves a sidecar with garbage as it is, and the board is written as on the stock VFS.
    let is_garbage = status.contains("the sidecar holds something else");
    if holder != Some(std::process::id()) && !is_garbage {
        return Err(format!("a writer does not have the write lock, but {holder:?}: {status}"));
    }
    write("CREATE TABLE IF NOT EXISTS log (n INTEGER PRIMARY KEY)")?;
    write(&format!("INSERT INTO log VALUES ({next}); COMMIT"))?;
    drop(board);
    let again = Connection::open(&uri).and_then(|board| {
        board.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, u32>(0))
    });
    match again {
        Ok(found) if found == next => Ok(()),
        other => Err(format!("{next} rows were written, and {other:?} are there")),
    }
}

/// How many transactions the board has, if they are whole.
fn transactions(board: &Connection, expected: &Expected) -> rusqlite::Result<Result<u32, String>> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('log', 'card', 'lanes')";
    let n: u32 = match board.query_row(tables, [], |row| row.get(0))? {
        0 => 0,
        3 => {
            let (n, last): (u32, u32) =
                board.query_row("SELECT count(*), ifnull(max(n), 0) FROM log", [], |row| {
                    row.try_into()
                })?;
            if n != last {
                return Ok(Err(format!("of {last} transactions {n} are there")));
            }
            n
        }
        n => return Ok(Err(format!("a third of the first transaction: {n}"))),
    };
    if n < expected.acknowledged {
        let lost = expected.acknowledged;
        return Ok(Err(format!("transaction {lost} is lost, and all from {}", n + 1)));
    }
    if n > expected.attempted {
        return Ok(Err(format!("transaction {n} was never attempted")));
    }
    if n == 0 {
        return Ok(Ok(0));
    }
    let mut cards = Cards::new();
    let mut statement = board.prepare("SELECT id, lane, body FROM card")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        cards.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
    }
    if digest_of(&cards) != expected.contents[n as usize - 1] {
        return Ok(Err(format!("the cards are not those that {n} transactions leave")));
    }
    Ok(Ok(n))
}

//! The clients that are Rust programs, with the newest SQLite. Each thread has its own connection
//! and diary.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::diary::{Diary, now};
use super::random::Random;
use super::rows;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Writes, through kanban.
    Writer,
    /// Writes, in a process without kanban.
    Stock,
    /// Three threads that write, one of them on the stock VFS.
    Threads,
    /// The same, but they reconnect again and again, look at the files' bytes, and are never
    /// killed.
    Elder,
    /// Writes on the stock VFS, in a process that has the board open through kanban, too, and looks
    /// at the files' bytes after each commit.
    Prober,
    /// Reads in short snapshots.
    Reader,
    /// The same, in a process without kanban.
    StockReader,
    /// Reads in snapshots that last for seconds.
    LongReader,
    /// Checkpoints of all modes.
    Checkpointer,
    /// The same, in a process without kanban.
    StockCheckpointer,
    /// Creates and drops indexes, columns and blobs of a megabyte, and runs VACUUM.
    Maintainer,
}

/// The orders of a client.
#[derive(Clone, Debug, clap::Args)]
pub struct Worker {
    /// What it does.
    pub role: Role,
    /// The board.
    pub board: PathBuf,
    /// The directory for its diaries.
    pub diaries: PathBuf,
    /// The number of its first thread.
    pub first: u64,
    /// The seed of its random numbers.
    pub seed: u64,
    /// How many steps it takes before it ends.
    pub steps: u64,
    /// Its busy timeout, in ms.
    pub timeout: u64,
    /// Whether it uses the stock VFS, whatever its role.
    #[arg(long)]
    pub stock: bool,
}

const KANBAN: &str = "kanban";
const STOCK: &str = "unix";

/// How many connections, each with a number, a process has at a time at most.
const THREADS: u64 = 3;

/// Runs the client to its end.
///
/// # Panics
/// If the client cannot even begin.
pub fn work(worker: &Worker) {
    let without = [Role::Stock, Role::StockReader, Role::StockCheckpointer];
    let vfs = if worker.stock || without.contains(&worker.role) {
        STOCK
    } else {
        kanban_vfs::register(&kanban_vfs::Options::default()).expect("the VFS registers");
        KANBAN
    };
    match worker.role {
        Role::Writer | Role::Stock => Client::begin(worker, 0, vfs).write(|_| {}),
        Role::Threads | Role::Elder => std::thread::scope(|scope| {
            // The board is open through kanban before it is opened on the stock VFS. So SQLite's
            // locks in this process are open-file-description locks, which a probe does not cancel.
            let _first = worker.connect(vfs, false);
            for (n, vfs) in (0..).zip([vfs, vfs, STOCK]) {
                let mut client = Client::begin(worker, n, vfs);
                scope.spawn(move || {
                    client.write(|client| {
                        if client.worker.role == Role::Elder {
                            client.probe(20);
                            client.reconnect(20);
                        }
                    });
                });
            }
        }),
        Role::Prober => {
            let _first = worker.connect(vfs, false);
            Client::begin(worker, 0, STOCK).write(|client| client.probe(1));
        }
        Role::Reader | Role::StockReader => Client::begin(worker, 0, vfs).read(0..30),
        Role::LongReader => Client::begin(worker, 0, vfs).read(1000..5000),
        Role::Checkpointer | Role::StockCheckpointer => Client::begin(worker, 0, vfs).checkpoint(),
        Role::Maintainer => Client::begin(worker, 0, vfs).maintain(),
    }
}

impl Worker {
    fn connect(&self, vfs: &str, group_commit: bool) -> Connection {
        let group_commit = if group_commit { "&kanban_group_commit=1" } else { "" };
        let uri = format!("file:{}?vfs={vfs}{group_commit}", self.board.display());
        let connection = Connection::open(uri).expect("it opens");
        connection.busy_timeout(Duration::from_millis(self.timeout)).expect("it is open");
        connection
    }
}

/// A thread, its connection, its diary.
struct Client<'w> {
    worker: &'w Worker,
    id: u64,
    vfs: &'static str,
    board: Connection,
    diary: Diary,
    txn: u64,
    random: Random,
}

impl<'w> Client<'w> {
    fn begin(worker: &'w Worker, n: u64, vfs: &'static str) -> Self {
        let id = worker.first + n;
        let diary = Diary::begin(&worker.diaries, id, vfs != STOCK);
        let mut random = Random::new(worker.seed ^ id);
        let group_commit = vfs != STOCK && random.once_in(2);
        let board = worker.connect(vfs, group_commit);
        let mut client = Self { worker, id, vfs, board, diary, txn: 0, random };
        client.set_up(group_commit);
        client
    }

    /// Sets up a connection, as programs do after each connect.
    fn set_up(&mut self, group_commit: bool) {
        if group_commit {
            self.diary.say(format_args!("n group commit"));
        }
        let synchronous = self.random.of(&["full", "normal", "off"]);
        let sql = format!("PRAGMA journal_mode=wal; PRAGMA synchronous={synchronous}");
        self.hear("set_up", |board| board.execute_batch(&sql));
    }

    /// Calls `act`, and counts the call or its error.
    fn hear<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let done = act(&self.board);
        match done {
            Ok(done) => {
                self.diary.say(format_args!("n {what}"));
                Some(done)
            }
            Err(error) if is_busy(&error) => {
                self.diary.say(format_args!("n busy elsewhere"));
                None
            }
            Err(error) => {
                self.failed(what, &error);
                None
            }
        }
    }

    fn failed(&mut self, what: &str, error: &rusqlite::Error) {
        self.diary.say(format_args!("e {what}: {error} ({error:?})"));
    }

    fn steps(&self) -> impl Iterator<Item = u64> + use<> {
        let stop = self.worker.board.with_file_name("stop");
        (1..=self.worker.steps).take_while(move |_| !stop.exists())
    }

    /// Runs transactions, each recorded before and after.
    fn write(&mut self, mut then: impl FnMut(&mut Self)) {
        for _ in self.steps() {
            self.txn += 1;
            let txn = self.txn;
            self.diary.say(format_args!("a {txn}"));
            let began = Instant::now();
            let upgrades = self.random.once_in(8);
            let mut begun = Duration::ZERO;
            match self.transaction(txn, upgrades, || begun = began.elapsed()) {
                Ok(()) => {
                    self.diary.say(format_args!("c {txn} {} {}", begun.as_millis(), now()));
                }
                Err(error) if is_busy(&error) && upgrades => {
                    self.diary.say(format_args!("r {txn}"));
                }
                Err(error) if is_busy(&error) => {
                    self.diary.say(format_args!("b {txn} {}", began.elapsed().as_millis()));
                }
                Err(error) => return self.failed("write", &error),
            }
            then(self);
            std::thread::sleep(Duration::from_micros(self.random.between(0, 20_000)));
        }
    }

    fn transaction(&self, txn: u64, upgrades: bool, begun: impl FnOnce()) -> rusqlite::Result<()> {
        let behavior = match upgrades {
            true => TransactionBehavior::Deferred,
            false => TransactionBehavior::Immediate,
        };
        let transaction = Transaction::new_unchecked(&self.board, behavior)?;
        begun();
        if upgrades {
            transaction.query_row("SELECT n FROM tally", [], |row| row.get::<_, i64>(0))?;
        }
        for part in 0..rows::parts(self.id, txn) {
            let body = rows::body(self.id, txn, part);
            transaction
                .prepare_cached("INSERT INTO row (writer, txn, part, body) VALUES (?, ?, ?, ?)")?
                .execute(params![self.id as i64, txn as i64, part as i64, body])?;
        }
        transaction.execute("UPDATE tally SET n = n + 1", [])?;
        transaction.commit()
    }

    /// Opens the board's files, reads a little, and closes them. A process whose locks are the
    /// stock VFS's must not do that.
    fn probe(&mut self, once_in: u64) {
        if !self.random.once_in(once_in) {
            return;
        }
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.worker.board.clone().into_os_string();
            path.push(suffix);
            let read =
                std::fs::File::open(Path::new(&path)).and_then(|mut file| file.read(&mut [0; 16]));
            if let Err(error) = read {
                self.diary.say(format_args!("e probe: {error}"));
            }
        }
        self.diary.say(format_args!("n probe"));
    }

    fn reconnect(&mut self, once_in: u64) {
        if self.random.once_in(once_in) {
            let group_commit = self.vfs != STOCK && self.random.once_in(2);
            self.board = self.worker.connect(self.vfs, group_commit);
            self.set_up(group_commit);
            self.diary.say(format_args!("n reconnect"));
            if self.txn > 200 {
                // So a diary need not be kept for ever.
                self.diary.say(format_args!("q"));
                self.id += THREADS;
                self.txn = 0;
                self.diary = Diary::begin(&self.worker.diaries, self.id, self.vfs != STOCK);
            }
        }
    }

    /// Reads in snapshots of `lasting` ms, which must be consistent and must not change.
    fn read(&mut self, lasting: std::ops::Range<u64>) {
        let kind = if lasting.start > 0 { "long read" } else { "read" };
        for _ in self.steps() {
            let ms = self.random.between(lasting.start, lasting.end);
            let seen = self.hear(kind, |board| {
                let snapshot = Transaction::new_unchecked(board, TransactionBehavior::Deferred)?;
                let look = || -> rusqlite::Result<(i64, i64)> {
                    let n = snapshot.query_row("SELECT n FROM tally", [], |row| row.get(0))?;
                    Ok((n, snapshot.query_row(rows::OFF_BALANCE, [], |row| row.get(0))?))
                };
                let first = look()?;
                std::thread::sleep(Duration::from_millis(ms));
                Ok((first, look()?))
            });
            if let Some((first, second)) = seen.filter(|(a, b)| a != b || a.1 != 0) {
                self.diary.say(format_args!("e a snapshot has {first:?}, then {second:?}"));
            }
            std::thread::sleep(Duration::from_millis(self.random.between(0, 100)));
        }
    }

    fn checkpoint(&mut self) {
        // All checkpoints except passive ones keep writers out while they wait for readers.
        self.board.busy_timeout(Duration::from_millis(300)).expect("it is open");
        for _ in self.steps() {
            let mode = self.random.of(&["passive", "passive", "full", "restart", "truncate"]);
            self.hear(&format!("checkpoint {mode}"), |board| {
                board.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
            });
            std::thread::sleep(Duration::from_millis(self.random.between(0, 1500)));
        }
    }

    fn maintain(&mut self) {
        for _ in self.steps() {
            let columns: i64 = self
                .hear("schema read", |board| {
                    let sql = "SELECT count(*) FROM pragma_table_info('row')";
                    board.query_row(sql, [], |row| row.get(0))
                })
                .unwrap_or(4);
            let add = format!("ALTER TABLE row ADD COLUMN extra{columns}");
            let drop = format!("ALTER TABLE row DROP COLUMN extra{}", columns - 1);
            let (what, sql) = match self.random.between(0, 9) {
                0 | 1 => ("create index", "CREATE INDEX IF NOT EXISTS extra ON row (body)"),
                2 | 3 => ("drop index", "DROP INDEX IF EXISTS extra"),
                4 | 5 if columns < 12 => ("add column", &*add),
                6 if columns > 8 => ("drop column", &*drop),
                7 => ("vacuum", "VACUUM"),
                8 => ("blob", BLOB),
                _ => ("analyze", "ANALYZE"),
            };
            self.hear(what, |board| board.execute_batch(sql));
            std::thread::sleep(Duration::from_millis(self.random.between(0, 2000)));
        }
    }
}

/// Makes the board grow by a megabyte at once; it keeps three of these blobs at most.
const BLOB: &str = "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS blob (x); \
                    INSERT INTO blob VALUES (zeroblob(1000000)); \
                    DELETE FROM blob WHERE rowid <= (SELECT max(rowid) - 3 FROM blob); COMMIT";

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

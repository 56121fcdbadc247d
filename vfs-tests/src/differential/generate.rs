//! Schedules from seeds.

use fastrand::Rng;

use super::schedule::{Child, Database, Operation, Schedule, Step};
use super::statements::{self, pick};

/// The schedule of a seed, which is the same each time.
#[must_use]
pub fn generate(seed: u64) -> Schedule {
    let mut rng = Rng::with_seed(seed);
    let processes = rng.usize(1..=3);
    let connections = rng.usize(processes.max(2)..=6);
    // Each process has one connection; the others belong to any process.
    let homes: Vec<usize> =
        (0..connections).map(|n| if n < processes { n } else { rng.usize(..processes) }).collect();
    let is_plain = rng.u8(..16) == 0;
    let mut maker =
        Maker { connections: homes.into_iter().map(Model::new).collect(), rng, steps: Vec::new() };
    maker.begin();
    let end = maker.steps.len() + maker.rng.usize(6..45);
    while maker.steps.len() < end {
        maker.next();
    }
    Schedule { is_plain, steps: maker.steps }
}

/// What the generator knows about a connection. It does not know which steps will fail.
struct Model {
    process: usize,
    database: Option<Database>,
    cursor: bool,
    blob: bool,
    backup: Option<usize>,
    attached: bool,
}

impl Model {
    fn new(process: usize) -> Self {
        Self { process, database: None, cursor: false, blob: false, backup: None, attached: false }
    }
}

struct Maker {
    rng: Rng,
    connections: Vec<Model>,
    steps: Vec<Step>,
}

impl Maker {
    fn push(&mut self, n: usize, operation: Operation) {
        let process = self.connections[n].process;
        self.steps.push(Step { process, connection: n, operation });
    }

    fn sql(&mut self, n: usize, sql: String) {
        self.push(n, Operation::Sql(sql));
    }

    /// Creates the board, or leaves it empty.
    fn begin(&mut self) {
        if self.rng.u8(..40) == 0 {
            return;
        }
        self.push(0, Operation::Open(Database::Board, String::new()));
        self.connections[0].database = Some(Database::Board);
        let sql = statements::setup(&mut self.rng);
        self.sql(0, sql);
        if self.rng.u8(..4) > 0 {
            self.sql(
                0,
                "ATTACH '{other}' AS o; CREATE TABLE o.t (id INTEGER PRIMARY KEY, a, b)".to_owned(),
            );
            if self.rng.bool() {
                self.sql(0, "PRAGMA o.journal_mode=wal".to_owned());
            }
            self.sql(0, "DETACH o".to_owned());
        }
        if self.rng.bool() {
            self.close(0, Operation::Close);
        }
    }

    fn close(&mut self, n: usize, how: Operation) {
        self.push(n, how);
        self.connections[n] = Model::new(self.connections[n].process);
    }

    fn next(&mut self) {
        let n = self.rng.usize(..self.connections.len());
        let Some(database) = self.connections[n].database else {
            return if self.rng.u8(..8) == 0 { self.process_step(n) } else { self.open(n) };
        };
        let rng = &mut self.rng;
        match rng.u8(..100) {
            0..20 => {
                let sql = statements::write(rng);
                self.sql(n, sql);
            }
            20..31 => {
                let sql = statements::read(rng);
                self.sql(n, sql);
            }
            31..47 => {
                let sql = statements::transaction(rng);
                self.sql(n, sql);
            }
            47..61 => {
                let sql = statements::pragma(rng);
                self.sql(n, sql);
            }
            61..66 => {
                let sql = statements::schema(rng);
                self.sql(n, sql);
            }
            66..69 => self.over_two(n),
            69..73 => {
                let mode = rng.i32(0..=3);
                self.push(n, Operation::Checkpoint(mode));
            }
            73..78 => self.cursor(n),
            78..81 => self.blob(n),
            81..84 => self.backup(n, database),
            84..86 => self.small(n),
            86..93 => self.close(n, Operation::Close),
            93 => self.close(n, Operation::Abandon),
            94..97 => self.scene(n, database),
            _ => self.process_step(n),
        }
    }

    /// A few steps that seldom occur together: something happens while the file has pages of a
    /// transaction that is not committed; or one connection reads on while another writes and
    /// checkpoints.
    fn scene(&mut self, n: usize, database: Database) {
        let write = statements::write(&mut self.rng);
        if self.rng.bool() {
            let begin = pick(&mut self.rng, &["BEGIN", "BEGIN IMMEDIATE"]);
            self.sql(n, begin.to_owned());
            self.sql(n, write);
            self.push(n, Operation::CacheFlush);
            return self.process_step(n);
        }
        self.sql(n, "BEGIN".to_owned());
        let read = statements::read(&mut self.rng);
        self.sql(n, read.clone());
        let is_other = |(m, model): &(usize, &Model)| *m != n && model.database == Some(database);
        if let Some((other, _)) = self.connections.iter().enumerate().find(is_other) {
            self.sql(other, write);
            let mode = self.rng.i32(0..=3);
            self.push(other, Operation::Checkpoint(mode));
        }
        self.sql(n, read);
    }

    fn open(&mut self, n: usize) {
        let rng = &mut self.rng;
        let database = if rng.u8(..6) > 0 { Database::Board } else { Database::Other };
        let mode = match rng.u8(..21) {
            0..13 => "",
            13..16 => "mode=ro",
            16 => "mode=rw",
            17 => "cache=shared",
            18 => "mode=ro&readonly_shm=1",
            // On both sides: a stock client beside ours, in a process that uses our VFS.
            19 => "vfs=unix",
            _ => "psow=0",
        };
        self.push(n, Operation::Open(database, mode.to_owned()));
        self.connections[n].database = Some(database);
    }

    fn over_two(&mut self, n: usize) {
        if self.connections[n].attached {
            let sql = statements::attach(&mut self.rng);
            self.sql(n, sql);
        } else {
            self.connections[n].attached = true;
            self.sql(n, "ATTACH '{other}' AS o".to_owned());
        }
    }

    fn cursor(&mut self, n: usize) {
        if !self.connections[n].cursor {
            self.connections[n].cursor = true;
            let sql = [
                "SELECT id, a FROM t",
                "SELECT a FROM t ORDER BY a",
                "UPDATE t SET a=7 RETURNING id",
            ];
            let sql = pick(&mut self.rng, &sql).to_owned();
            self.push(n, Operation::Cursor(sql));
        } else if self.rng.bool() {
            self.push(n, Operation::CursorStep);
        } else {
            self.connections[n].cursor = false;
            self.push(n, Operation::CursorEnd);
        }
    }

    fn blob(&mut self, n: usize) {
        let row = self.rng.i64(1..9);
        if !self.connections[n].blob {
            self.connections[n].blob = true;
            let write = self.rng.bool();
            return self.push(n, Operation::BlobOpen(row, write));
        }
        let operation = match self.rng.u8(..5) {
            0 => Operation::BlobRead,
            1 => Operation::BlobWrite,
            2 => Operation::BlobReopen(row),
            _ => {
                self.connections[n].blob = false;
                Operation::BlobClose
            }
        };
        self.push(n, operation);
    }

    fn backup(&mut self, n: usize, database: Database) {
        let process = self.connections[n].process;
        if let Some(to) = self.connections[n].backup {
            let operation = if self.rng.bool() {
                Operation::Backup(to, pick(&mut self.rng, &["1", "5", "-1"]).parse().unwrap_or(1))
            } else {
                self.connections[n].backup = None;
                Operation::BackupEnd
            };
            return self.push(n, operation);
        }
        let is_target = |model: &Model| {
            model.process == process && model.database.is_some_and(|other| other != database)
        };
        if let Some(to) = self.connections.iter().position(is_target) {
            self.connections[n].backup = Some(to);
            let pages = if self.rng.bool() { -1 } else { 2 };
            self.push(n, Operation::Backup(to, pages));
            if pages == -1 && self.rng.u8(..4) > 0 {
                self.connections[n].backup = None;
                self.push(n, Operation::BackupEnd);
            }
        } else {
            let (from, to) = (
                n,
                self.connections.iter().position(|m| m.process == process && m.database.is_none()),
            );
            if let Some(to) = to {
                let other = match database {
                    Database::Board => Database::Other,
                    Database::Other => Database::Board,
                };
                self.push(to, Operation::Open(other, String::new()));
                self.connections[to].database = Some(other);
                self.push(from, Operation::Backup(to, -1));
                self.push(from, Operation::BackupEnd);
            }
        }
    }

    /// Makes a call that few applications make.
    fn small(&mut self, n: usize) {
        use rusqlite::ffi;
        let rng = &mut self.rng;
        let operation = match rng.u8(..7) {
            0 | 1 => Operation::CacheFlush,
            2 => Operation::ReleaseMemory,
            3 => Operation::FileControl(ffi::SQLITE_FCNTL_PERSIST_WAL, rng.i32(-1..=1)),
            4 => Operation::FileControl(ffi::SQLITE_FCNTL_CHUNK_SIZE, 16384),
            5 => Operation::FileControl(ffi::SQLITE_FCNTL_HAS_MOVED, 0),
            _ => Operation::FileControl(ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE, rng.i32(-1..=1)),
        };
        self.push(n, operation);
    }

    /// A step of a process rather than of one connection.
    fn process_step(&mut self, n: usize) {
        let rng = &mut self.rng;
        let database = if rng.u8(..5) > 0 { Database::Board } else { Database::Other };
        match rng.u8(..20) {
            0..4 => {
                let process = self.connections[n].process;
                self.push(n, Operation::Kill);
                for model in self.connections.iter_mut().filter(|m| m.process == process) {
                    *model = Model::new(process);
                }
            }
            4..9 => {
                let suffix = pick(rng, &["", "", "-wal", "-shm", "-journal"]).to_owned();
                self.push(n, Operation::Touch(database, suffix));
            }
            9..16 => {
                let sql = match rng.u8(..5) {
                    0..2 => statements::write(rng),
                    2 => statements::pragma(rng),
                    3 => statements::transaction(rng),
                    _ => statements::read(rng),
                };
                let child = match rng.u8(..8) {
                    0..4 => Child::Inherited(sql),
                    4 => Child::Closes,
                    _ => Child::Own(database, sql),
                };
                self.push(n, Operation::Fork(child));
            }
            16 => self.push(n, Operation::Spawn),
            17 => self.push(n, Operation::Bury),
            18 => {
                let bytes = pick(rng, &["1", "100", "5000", "20000"]).parse().unwrap_or(1);
                self.push(n, Operation::Append(database, bytes));
            }
            _ => {
                let bytes = pick(rng, &["1", "1", "1024"]).parse().unwrap_or(1);
                self.push(n, Operation::Cut(database, bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_function_of_its_seed() {
        for seed in 0..50 {
            assert_eq!(generate(seed), generate(seed));
            assert_ne!(generate(seed), generate(seed + 1));
        }
    }

    #[test]
    fn a_schedule_that_was_written_down_is_the_same() {
        for seed in 0..50 {
            let schedule = generate(seed);
            let text = serde_json::to_string(&schedule).expect("it is text");
            assert_eq!(serde_json::from_str::<Schedule>(&text).expect("as written"), schedule);
        }
    }

    #[test]
    fn a_connection_stays_in_its_process() {
        for seed in 0..50 {
            let mut homes = std::collections::BTreeMap::new();
            for step in generate(seed).steps {
                assert_eq!(*homes.entry(step.connection).or_insert(step.process), step.process);
            }
            assert!(homes.len() <= 6);
        }
    }
}

//! A worker: a client process that takes the steps it is asked to take.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use rusqlite::ffi::{self, sqlite3_backup};

use super::api::Api;
use super::connection::{BlobUse, Connection};
use super::protocol::{DIED, IN_BACKUP, NOT_OPEN, Outcome, Request};
use super::schedule::{Child, Database, Operation};

/// How a worker is started.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The SQLite that it loads.
    #[arg(long)]
    pub sqlite: PathBuf,
    /// The extension that this SQLite loads. Without it, the worker is a stock client.
    #[arg(long)]
    pub extension: Option<PathBuf>,
}

/// After how many seconds a child that does not end is killed by a signal.
const CHILD_SECONDS: u32 = 5;

/// Answers requests until its standard input ends.
///
/// # Panics
/// If the runner is gone, or sends something else than requests.
pub fn work(arguments: &Arguments) {
    let api = Api::load(&arguments.sqlite);
    if let Some(extension) = &arguments.extension {
        api.extend(extension);
    }
    let mut worker = Worker {
        api: &api,
        parameters: String::new(),
        directory: PathBuf::new(),
        connections: BTreeMap::new(),
        abandoned: Vec::new(),
        backups: Vec::new(),
    };
    for line in io::stdin().lock().lines() {
        let request = serde_json::from_str(&line.expect("UTF-8")).expect("a request");
        let outcome = worker.answer(request);
        let mut reply = serde_json::to_vec(&outcome).expect("it is text");
        reply.push(b'\n');
        let mut output = io::stdout().lock();
        output.write_all(&reply).and_then(|()| output.flush()).expect("the runner listens");
    }
}

struct Worker<'a> {
    api: &'a Api,
    /// The parameters of URIs, with `vfs=`.
    parameters: String,
    directory: PathBuf,
    connections: BTreeMap<usize, Connection<'a>>,
    abandoned: Vec<Connection<'a>>,
    backups: Vec<Backup>,
}

struct Backup {
    from: usize,
    to: usize,
    handle: *mut sqlite3_backup,
}

impl Worker<'_> {
    fn answer(&mut self, request: Request) -> Outcome {
        match request {
            Request::Begin(directory, parameters) => {
                (self.directory, self.parameters) = (directory, parameters);
                Outcome::default()
            }
            Request::Alone(child) => self.child(&child, 0),
            Request::Do(connection, operation) => {
                let mut outcome = self.perform(connection, &operation);
                outcome.transaction = self
                    .connections
                    .get(&connection)
                    .filter(|_| {
                        !matches!(operation, Operation::Fork(_)) && !self.is_target(connection)
                    })
                    .map(Connection::transaction);
                outcome
            }
        }
    }

    fn perform(&mut self, n: usize, operation: &Operation) -> Outcome {
        match operation {
            Operation::Open(database, parameters) => return self.open(n, *database, parameters),
            Operation::Fork(child) => return self.fork(child, n),
            Operation::CloseAll => return self.close_all(),
            Operation::Bury => {
                self.abandoned.drain(..).for_each(Connection::bury);
                return Outcome::default();
            }
            Operation::Touch(database, suffix) => {
                touch(&self.directory.join(format!("{}{suffix}", database.file_name())));
                return Outcome::default();
            }
            Operation::Spawn => {
                let status = std::process::Command::new("true").status().expect("it starts");
                return Outcome { code: status.code().unwrap_or(DIED), ..Outcome::default() };
            }
            Operation::BackupEnd => return self.end_backups(|backup| backup.from == n),
            Operation::Close | Operation::Abandon => {
                self.end_backups(|backup| backup.from == n || backup.to == n);
            }
            _ if self.is_target(n) => return Outcome { code: IN_BACKUP, ..Outcome::default() },
            _ => {}
        }
        let sql = match operation {
            Operation::Sql(sql) | Operation::Cursor(sql) => self.with_names(sql),
            _ => String::new(),
        };
        let api = self.api;
        let Some(connection) = self.connections.get_mut(&n) else {
            return Outcome { code: NOT_OPEN, ..Outcome::default() };
        };
        match operation {
            Operation::Close => {
                let outcome = connection.close();
                self.connections.remove(&n);
                outcome
            }
            Operation::Abandon => {
                let outcome = connection.abandon();
                self.abandoned.extend(self.connections.remove(&n));
                outcome
            }
            Operation::Sql(_) => connection.sql(&sql),
            Operation::Cursor(_) => connection.cursor(&sql),
            Operation::CursorStep => connection.step_cursor(),
            Operation::CursorEnd => connection.end_cursor(),
            Operation::BlobOpen(row, write) => connection.open_blob(*row, *write),
            Operation::BlobRead => connection.use_blob(BlobUse::Read),
            Operation::BlobWrite => connection.use_blob(BlobUse::Write),
            Operation::BlobReopen(row) => connection.use_blob(BlobUse::Reopen(*row)),
            Operation::BlobClose => connection.close_blob(),
            Operation::Checkpoint(mode) => connection.checkpoint(*mode),
            Operation::CacheFlush => {
                // SAFETY: an open connection.
                connection.result(unsafe { (api.db_cacheflush)(connection.db) })
            }
            Operation::ReleaseMemory => {
                // SAFETY: as above.
                connection.result(unsafe { (api.db_release_memory)(connection.db) })
            }
            Operation::FileControl(control, value) => connection.file_control(*control, *value),
            Operation::Backup(to, pages) => self.backup(n, *to, *pages),
            other => unreachable!("{other:?} is nothing for a worker"),
        }
    }

    fn uri(&self, file: &str) -> String {
        format!("file:{}/{file}?{}", self.directory.display(), self.parameters)
    }

    fn with_names(&self, sql: &str) -> String {
        if !sql.contains('{') {
            return sql.to_owned();
        }
        sql.replace("{board}", &self.uri(Database::Board.file_name()))
            .replace("{other}", &self.uri(Database::Other.file_name()))
            .replace("{copy}", &self.uri("copy.db"))
    }

    fn open(&mut self, n: usize, database: Database, parameters: &str) -> Outcome {
        if self.connections.contains_key(&n) {
            return Outcome { code: NOT_OPEN, ..Outcome::default() };
        }
        // SQLite takes the last `vfs` and `mode` of a URI.
        let uri = format!("{}&{parameters}", self.uri(database.file_name()));
        match Connection::open(self.api, &uri) {
            Ok(mut connection) => {
                connection.is_stock = parameters.contains("vfs=unix");
                self.connections.insert(n, connection);
                Outcome::default()
            }
            Err(outcome) => outcome,
        }
    }

    /// Whether a backup writes into this connection, which must not be used during that.
    fn is_target(&self, n: usize) -> bool {
        self.backups.iter().any(|backup| backup.to == n)
    }

    fn backup(&mut self, from: usize, to: usize, pages: i32) -> Outcome {
        let known = self.backups.iter().find(|backup| (backup.from, backup.to) == (from, to));
        let handle = match known {
            Some(backup) => backup.handle,
            None => {
                let not_open = Outcome { code: NOT_OPEN, ..Outcome::default() };
                if from == to || self.is_target(to) {
                    return not_open;
                }
                let (Some(source), Some(target)) =
                    (self.connections.get(&from), self.connections.get(&to))
                else {
                    return not_open;
                };
                let main = c"main".as_ptr();
                // SAFETY: two open connections, which outlive the backup.
                let handle = unsafe { (self.api.backup_init)(target.db, main, source.db, main) };
                if handle.is_null() {
                    // SAFETY: as above.
                    return target.result(unsafe { (self.api.extended_errcode)(target.db) });
                }
                self.backups.push(Backup { from, to, handle });
                handle
            }
        };
        // SAFETY: a backup that was not finished yet.
        unsafe {
            let code = (self.api.backup_step)(handle, pages);
            let left = (self.api.backup_remaining)(handle);
            let all = (self.api.backup_pagecount)(handle);
            Outcome { code, rows: vec![format!("{left}|{all}")], ..Outcome::default() }
        }
    }

    fn end_backups(&mut self, which: impl Fn(&Backup) -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        for backup in self.backups.extract_if(.., |backup| which(backup)) {
            // SAFETY: it was not finished yet, and is not used again.
            outcome.code = unsafe { (self.api.backup_finish)(backup.handle) };
        }
        outcome
    }

    fn close_all(&mut self) -> Outcome {
        self.end_backups(|_| true);
        self.abandoned.drain(..).for_each(Connection::bury);
        let mut rows = Vec::new();
        for (n, mut connection) in std::mem::take(&mut self.connections) {
            rows.push(format!("c{n}: {}", connection.close().code));
        }
        Outcome { rows, ..Outcome::default() }
    }

    /// Does in the child what the child is to do.
    fn child(&mut self, child: &Child, n: usize) -> Outcome {
        // A stock connection that our VFS does not serve harms its parent, as it always does.
        let is_spared = self.connections.get(&n).is_some_and(|connection| connection.is_stock);
        match child {
            Child::Inherited(_) | Child::Closes if is_spared => Outcome::default(),
            Child::Inherited(sql) => {
                let sql = self.with_names(sql);
                self.connections.get_mut(&n).map_or_else(Outcome::default, |c| c.sql(&sql))
            }
            Child::Closes => {
                self.connections.get_mut(&n).map_or_else(Outcome::default, Connection::close)
            }
            Child::Own(database, sql) => {
                let sql = self.with_names(sql);
                match Connection::open(self.api, &self.uri(database.file_name())) {
                    Ok(mut connection) => {
                        let outcome = connection.sql(&sql);
                        let closed = connection.close();
                        if closed.code == ffi::SQLITE_OK { outcome } else { closed }
                    }
                    Err(outcome) => outcome,
                }
            }
        }
    }

    fn fork(&mut self, child: &Child, n: usize) -> Outcome {
        let (mut from_child, mut to_parent) = io::pipe().expect("a pipe");
        // SAFETY: the worker has one thread.
        let pid = unsafe { libc::fork() };
        assert_ne!(pid, -1, "{}", io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: both take integers.
            unsafe { libc::alarm(CHILD_SECONDS) };
            let outcome = self.child(child, n);
            let _ = to_parent.write_all(&serde_json::to_vec(&outcome).expect("it is text"));
            // SAFETY: exit handlers must not run here.
            unsafe { libc::_exit(0) };
        }
        drop(to_parent);
        let mut reply = Vec::new();
        from_child.read_to_end(&mut reply).expect("a pipe");
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        if libc::WIFSIGNALED(status) {
            let message = format!("the child ended by signal {}", libc::WTERMSIG(status));
            return Outcome { code: DIED, message, ..Outcome::default() };
        }
        let outcome: Outcome = serde_json::from_slice(&reply).expect("an outcome");
        match child {
            Child::Own(..) => outcome,
            _ => Outcome { child: Some(Box::new(outcome)), ..Outcome::default() },
        }
    }
}

/// Opens and closes the file, which drops a process's POSIX locks on it.
fn touch(path: &Path) {
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(16).read_to_end(&mut Vec::new());
    }
}

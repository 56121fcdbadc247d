//! The board: what a task can go through, each step one transaction.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// For how long a transaction waits for its turn.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// An open board.
pub(crate) struct Board {
    connection: Connection,
    longest_wait: Duration,
}

/// A task, as listed.
pub(crate) struct Task {
    pub(crate) id: i64,
    pub(crate) title: String,
    pub(crate) status: String,
    pub(crate) worker: Option<String>,
}

impl Board {
    /// Opens the board at `path` through the VFS, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        kanban_vfs::register(&kanban_vfs::Options::default())?;
        let connection = Connection::open(uri(path))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        let mut board = Self { connection, longest_wait: Duration::ZERO };
        board.write(|tables| Ok(tables.execute_batch(include_str!("schema.sql"))?))?;
        Ok(board)
    }

    /// Opens an existing board to look at it: takes no write lock, and so waits for no writer.
    pub(crate) fn open_to_look(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(format!("{}: there is no such board", path.display()).into());
        }
        kanban_vfs::register(&kanban_vfs::Options::default())?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(path), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self { connection, longest_wait: Duration::ZERO })
    }

    /// Runs one write transaction and notes how long it waited for its turn.
    fn write<T>(&mut self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.longest_wait = self.longest_wait.max(began.elapsed());
        let value = body(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// The longest that a transaction of this process waited to begin.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.longest_wait
    }

    /// Adds a task that can run when those it needs are done.
    pub(crate) fn create(&mut self, title: &str, needs: &[i64]) -> Result<i64> {
        self.write(|tables| {
            tables.execute("INSERT INTO tasks (title) VALUES (?)", [title])?;
            let id = tables.last_insert_rowid();
            for other in needs {
                let exists = "INSERT INTO dependencies SELECT ?1, id FROM tasks
                              WHERE id = ?2 AND id <> ?1";
                if tables.execute(exists, [id, *other])? == 0 {
                    return Err(format!("there is no task {other}").into());
                }
            }
            record(tables, id, "created")?;
            Ok(id)
        })
    }

    /// All tasks, or those of one status.
    pub(crate) fn list(&self, status: Option<&str>) -> Result<Vec<Task>> {
        let mut statement = self.connection.prepare(
            "SELECT id, title, status, worker FROM tasks WHERE ?1 IS NULL OR status = ?1 ORDER BY id",
        )?;
        let tasks = statement.query_map([status], |row| {
            Ok(Task {
                id: row.get(0)?,
                title: row.get(1)?,
                status: row.get(2)?,
                worker: row.get(3)?,
            })
        })?;
        Ok(tasks.collect::<rusqlite::Result<_>>()?)
    }

    /// The title of a task.
    pub(crate) fn title(&self, id: i64) -> Result<String> {
        let title = "SELECT title FROM tasks WHERE id = ?";
        Ok(self.connection.query_row(title, [id], |row| row.get(0))?)
    }

    /// The tasks that a task needs.
    pub(crate) fn needs(&self, id: i64) -> Result<Vec<i64>> {
        let mut needs = self.connection.prepare("SELECT needs FROM dependencies WHERE task = ?")?;
        Ok(needs.query_map([id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }

    /// What has happened to a task, with the time in ms since 1970.
    pub(crate) fn events(&self, id: i64) -> Result<Vec<(i64, String)>> {
        let mut events =
            self.connection.prepare("SELECT at_ms, what FROM events WHERE task = ? ORDER BY id")?;
        let events = events.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(events.collect::<rusqlite::Result<_>>()?)
    }

    /// Claims a task for `worker`: the given one, or the oldest that can run. `None` if it cannot
    /// run, or is claimed already, or there is none. Compare-and-swap: of two that try, one succeeds.
    pub(crate) fn claim(&mut self, id: Option<i64>, worker: &str) -> Result<Option<i64>> {
        self.write(|tables| {
            let claimed: Option<i64> = tables
                .query_row(
                    "UPDATE tasks SET status = 'running', worker = ?2, heartbeat_ms = ?3
                     WHERE id = (
                         SELECT id FROM tasks AS t
                         WHERE id = coalesce(?1, id) AND status = 'ready' AND NOT EXISTS (
                             SELECT 1 FROM dependencies JOIN tasks AS needed ON needed.id = needs
                             WHERE task = t.id AND needed.status <> 'done'
                         ) ORDER BY id LIMIT 1)
                     RETURNING id",
                    params![id, worker, now_ms()],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(id) = claimed {
                tables.execute(
                    "INSERT INTO runs (task, worker, started_ms) VALUES (?, ?, ?)",
                    params![id, worker, now_ms()],
                )?;
                record(tables, id, &format!("claimed by {worker}"))?;
            }
            Ok(claimed)
        })
    }

    /// Says that `worker` is still at a task. False if it is not its task.
    pub(crate) fn heartbeat(&mut self, id: i64, worker: &str) -> Result<bool> {
        self.write(|tables| {
            let changed = tables.execute(
                "UPDATE tasks SET heartbeat_ms = ?3
                 WHERE id = ?1 AND worker = ?2 AND status = 'running'",
                params![id, worker, now_ms()],
            )?;
            Ok(changed == 1)
        })
    }

    /// Ends `worker`'s run of a task as `done` or `failed`. False if it is not its task.
    pub(crate) fn end(&mut self, id: i64, worker: &str, outcome: &str) -> Result<bool> {
        self.write(|tables| {
            let changed = tables.execute(
                "UPDATE tasks SET status = ?3
                 WHERE id = ?1 AND worker = ?2 AND status = 'running'",
                params![id, worker, outcome],
            )?;
            if changed == 1 {
                tables.execute(
                    "UPDATE runs SET ended_ms = ?3, outcome = ?4
                     WHERE task = ?1 AND worker = ?2 AND ended_ms IS NULL",
                    params![id, worker, now_ms(), outcome],
                )?;
                record(tables, id, &format!("{outcome} by {worker}"))?;
            }
            Ok(changed == 1)
        })
    }

    /// The answer of a pragma, or of any query with one text.
    pub(crate) fn text(&self, query: &str) -> Result<String> {
        Ok(self.connection.query_row(query, [], |row| row.get(0))?)
    }

    /// The answer of a query with one number.
    pub(crate) fn number(&self, query: &str) -> Result<i64> {
        Ok(self.connection.query_row(query, [], |row| row.get(0))?)
    }
}

/// The connection string of a board, <https://www.sqlite.org/uri.html>.
fn uri(path: &Path) -> String {
    let path = path.display().to_string();
    format!("file:{}?vfs=kanban", path.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

fn record(tables: &Connection, task: i64, what: &str) -> Result<()> {
    tables.execute(
        "INSERT INTO events (task, at_ms, what) VALUES (?, ?, ?)",
        params![task, now_ms(), what],
    )?;
    Ok(())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

//! What can be set. The program that registers the VFS, or the environment, sets [`Options`]. The
//! URI parameters of each connection set [`Settings`] (<https://www.sqlite.org/uri.html>).

use std::ffi::{CStr, c_int};
use std::time::Duration;

use crate::ffi::uri::Uri;

/// When a transaction that BEGIN or SAVEPOINT has begun takes the write lock.
/// <https://www.sqlite.org/lang_transaction.html>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begin {
    /// When it first writes, as on the stock VFS. If another connection has written since this
    /// transaction began to read, SQLite refuses the write at once.
    #[default]
    Deferred,
    /// When it first reads the main database of its connection. It waits there as long as the
    /// connection's busy handler says, so that its first write is not refused. If the wait ends
    /// without the lock, the transaction goes on as deferred.
    Immediate,
    /// As deferred, until a transaction is refused because it wrote after it had read, or writes
    /// while another of its kind waits for it. Transactions whose first statement is the same but
    /// for its values are of one kind. From then on this kind begins as with [`Begin::Immediate`],
    /// in all processes that have the database open. That ends when 100 in a row have not written.
    Auto,
}

impl Begin {
    /// The mode of that name, which `kanban_begin` and `KANBAN_BEGIN` take.
    fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"deferred" => Some(Self::Deferred),
            b"immediate" => Some(Self::Immediate),
            b"auto" => Some(Self::Auto),
            _ => None,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Immediate => "immediate",
            Self::Auto => "auto",
        }
    }
}

/// How a VFS is registered, and the defaults of connections through it.
///
/// The loadable extension takes the same defaults from environment variables;
/// `docs/configuration.md` lists all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    name: String,
    base: Option<String>,
    make_default: bool,
    connection: Settings,
}

impl Default for Options {
    /// A VFS named `kanban` over SQLite's default VFS, which must be one of the operating system's.
    /// Its connections have a busy timeout of 5 s, keep the file longer than its header says in WAL
    /// mode, sync for themselves at each commit, and write the event log. It does not become the
    /// default VFS. It refuses databases with several hard links, and WAL mode on network file
    /// systems.
    fn default() -> Self {
        Self {
            name: "kanban".to_owned(),
            base: None,
            make_default: false,
            connection: Settings {
                begin: Begin::Deferred,
                begin_timeout: Duration::from_millis(5000),
                busy_timeout: Duration::from_millis(5000),
                busy_timeout_min: Duration::ZERO,
                file_ahead: true,
                group_commit: false,
                hard_links: false,
                network_wal: false,
                persist_wal: false,
                record: true,
                record_sql: false,
                slow: Duration::from_millis(100),
            },
        }
    }
}

impl Options {
    /// The name by which connection strings ask for the VFS (`vfs=kanban`). Unset, it is `kanban`.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The name of the VFS underneath. Unset, it is SQLite's default VFS at registration, which must be one of the
    /// operating system's (`unix`, `win32` and their kin). <https://www.sqlite.org/vfs.html>
    #[must_use]
    pub fn with_base(mut self, base: impl Into<String>) -> Self {
        self.base = Some(base.into());
        self
    }

    /// Whether this VFS becomes the default one, for connections that name none. Unset, it does
    /// not.
    #[must_use]
    pub fn with_make_default(mut self, make_default: bool) -> Self {
        self.make_default = make_default;
        self
    }

    /// When a transaction that BEGIN or SAVEPOINT has begun takes the write lock. With
    /// [`Begin::Immediate`], transactions that only read take turns with writers, too. Unset, it is
    /// [`Begin::Deferred`].
    #[must_use]
    pub fn with_begin(mut self, begin: Begin) -> Self {
        self.connection.begin = begin;
        self
    }

    /// How long a transaction waits for the write lock when it begins to read, in whole ms, if a
    /// VFS above this one does not pass on the connection's busy handler. Unset, it is 5 s.
    /// <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlbusyhandler>
    #[must_use]
    pub fn with_begin_timeout(mut self, timeout: Duration) -> Self {
        self.connection.begin_timeout = timeout;
        self
    }

    /// The busy timeout that a connection starts with, in whole ms. A timeout that the connection sets
    /// itself replaces it (<https://www.sqlite.org/c3ref/busy_timeout.html>). Zero gives none. Unset, it is 5 s.
    #[must_use]
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.connection.busy_timeout = timeout;
        self
    }

    /// The least time that a statement waits for the write lock, in whole ms. It helps drivers that
    /// set a busy timeout of 0 or of a few ms. If the application has its own busy handler, that
    /// alone decides. Zero, or unset: there is no least time.
    #[must_use]
    pub fn with_busy_timeout_min(mut self, timeout: Duration) -> Self {
        self.connection.busy_timeout_min = timeout;
        self
    }

    /// Whether the file of a database in WAL mode is kept longer than its header says, by 256 KiB
    /// or more, until the last connection closes. Then an application that compares length and
    /// header from outside never takes a checkpoint for a torn file. Unset, it is.
    #[must_use]
    pub fn with_file_ahead(mut self, ahead: bool) -> Self {
        self.connection.file_ahead = ahead;
        self
    }

    /// Whether commits in WAL mode with `synchronous=FULL` share their syncs, across processes. The
    /// VFS releases the write lock before the sync. COMMIT returns when a sync has succeeded that
    /// began after its frames were written, whichever connection made that sync. COMMIT promises
    /// what it always does (<https://www.sqlite.org/pragma.html#pragma_synchronous>). But other
    /// connections may read a commit a moment before it is durable, and a commit whose sync fails
    /// stays readable although COMMIT has answered SQLITE_IOERR_FSYNC. Unset, each commit syncs for
    /// itself.
    #[must_use]
    pub fn with_group_commit(mut self, group: bool) -> Self {
        self.connection.group_commit = group;
        self
    }

    /// Whether a database that has several hard links may be written to. Each name has a journal
    /// and a lock of its own, so all clients must use the same name
    /// (<https://www.sqlite.org/howtocorrupt.html> 2.5). Unset, it may not.
    #[must_use]
    pub fn with_hard_links(mut self, allowed: bool) -> Self {
        self.connection.hard_links = allowed;
        self
    }

    /// Whether WAL mode is allowed on a network file system. All clients must be on one machine
    /// (<https://www.sqlite.org/wal.html>). Unset, it is refused.
    #[must_use]
    pub fn with_network_wal(mut self, allowed: bool) -> Self {
        self.connection.network_wal = allowed;
        self
    }

    /// Whether the wal-index and the WAL, emptied, stay when the last connection closes
    /// (<https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpersistwal>).
    /// Unset, they stay only if another client still has the wal-index open although it has lost
    /// its lock on the database.
    #[must_use]
    pub fn with_persist_wal(mut self, persist: bool) -> Self {
        self.connection.persist_wal = persist;
        self
    }

    /// Whether events are recorded in the event log beside the database, `<database>-kanban-log`:
    /// long transactions and checkpoints, refusals, and holders that died. Unset, they are.
    #[must_use]
    pub fn with_record(mut self, record: bool) -> Self {
        self.connection.record = record;
        self
    }

    /// Whether the event log has the first and the last statement of a transaction. It leaves out
    /// the values of parameters, but not literals in the statement. Unset, it has no statements.
    #[must_use]
    pub fn with_record_sql(mut self, record: bool) -> Self {
        self.connection.record_sql = record;
        self
    }

    /// A transaction is recorded if it held the write lock, or waited for it, at least this long, in
    /// whole ms. A checkpoint is recorded if it lasted that long. Unset, it is 100 ms.
    #[must_use]
    pub fn with_slow(mut self, slow: Duration) -> Self {
        self.connection.slow = slow;
        self
    }

    /// The VFS's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name of the VFS underneath, if it is set.
    pub(crate) fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Whether the VFS becomes SQLite's default one.
    pub(crate) fn make_default(&self) -> bool {
        self.make_default
    }

    /// Whether both ask for the same VFS, whether or not it becomes the default one.
    pub(crate) fn same_vfs(&self, other: &Self) -> bool {
        Self { make_default: other.make_default, ..self.clone() } == *other
    }

    /// The defaults, overruled by the environment, for the loadable extension. `get` returns a
    /// variable's value.
    ///
    /// # Errors
    /// A text that names a malformed variable and what it should hold.
    pub(crate) fn from_env(
        get: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        if let Some(base) = get("KANBAN_BASE_VFS") {
            let base = base.into_string().map_err(|_| "KANBAN_BASE_VFS: not UTF-8".to_owned())?;
            if base.is_empty() {
                return Err("KANBAN_BASE_VFS: is empty; name a VFS or unset it".to_owned());
            }
            options.base = Some(base);
        }
        for name in SETTINGS {
            let variable = format!("KANBAN_{}", name.to_uppercase());
            if let Some(value) = get(&variable) {
                let set = options.connection.set(name, value.as_encoded_bytes());
                set.map_err(|why| format!("{variable}: {why}"))?;
            }
        }
        Ok(options)
    }
}

/// The options of one connection: the defaults, overruled by its URI parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    begin: Begin,
    begin_timeout: Duration,
    busy_timeout: Duration,
    busy_timeout_min: Duration,
    /// Whether the file is kept longer than its header says.
    pub(crate) file_ahead: bool,
    /// Whether commits share their syncs.
    pub(crate) group_commit: bool,
    /// Whether a database that has several hard links may be written to.
    pub(crate) hard_links: bool,
    /// Whether WAL mode is allowed on a network file system.
    pub(crate) network_wal: bool,
    /// Whether the WAL and the wal-index stay when the last connection closes.
    pub(crate) persist_wal: bool,
    /// Whether events are recorded.
    pub(crate) record: bool,
    /// Whether statements are recorded with them.
    pub(crate) record_sql: bool,
    /// A transaction that held the lock or waited this long is recorded, and a checkpoint that lasted
    /// this long.
    pub(crate) slow: Duration,
}

/// The names of the settings. `kanban_` before a name makes the URI parameter; `KANBAN_` before the
/// name in capitals makes the environment variable.
const SETTINGS: [&str; 12] = [
    "begin",
    "begin_timeout",
    "busy_timeout",
    "busy_timeout_min",
    "file_ahead",
    "group_commit",
    "hard_links",
    "network_wal",
    "persist_wal",
    "record",
    "record_sql",
    "slow_ms",
];

/// The environment variables that the extension reads, and those that its loaders read: `run` and
/// the Python package (`docs/configuration.md`).
pub const VARIABLES: [&str; 16] = [
    "KANBAN_BASE_VFS",
    "KANBAN_BEGIN",
    "KANBAN_BEGIN_TIMEOUT",
    "KANBAN_BUSY_TIMEOUT",
    "KANBAN_BUSY_TIMEOUT_MIN",
    "KANBAN_FILE_AHEAD",
    "KANBAN_GROUP_COMMIT",
    "KANBAN_HARD_LINKS",
    "KANBAN_LOG",
    "KANBAN_NETWORK_WAL",
    "KANBAN_PERSIST_WAL",
    "KANBAN_RECORD",
    "KANBAN_RECORD_SQL",
    "KANBAN_REQUIRE",
    "KANBAN_SLOW_MS",
    "KANBAN_VFS_DEFAULT",
];

/// Those of `names` that begin with `KANBAN_` and are not in [`VARIABLES`], sorted.
#[must_use]
pub fn unknown_variables(names: impl Iterator<Item = std::ffi::OsString>) -> Vec<String> {
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let is_unknown = |name: &String| name.starts_with("KANBAN_") && !VARIABLES.contains(&&**name);
    let mut unknown: Vec<_> = names.filter(is_unknown).collect();
    unknown.sort();
    unknown
}

/// Each parameter that begins with this is ours, so an unknown one is a mistake.
const PREFIX: &str = "kanban_";

impl Settings {
    /// The settings of a connection without parameters.
    pub(crate) fn defaults_of(options: &Options) -> Self {
        options.connection.clone()
    }

    /// The settings of a main database, from its `kanban_` parameters.
    ///
    /// # Errors
    /// A text that names a wrong parameter and what it should be.
    pub(crate) fn from_uri(uri: &impl Uri, defaults: &Options) -> Result<Self, String> {
        let mut settings = Self::defaults_of(defaults);
        let ours = || {
            let keys = (0..).map_while(|n| uri.key(n));
            keys.filter(|key| key.to_bytes().starts_with(PREFIX.as_bytes()))
        };
        for (nth, key) in ours().enumerate() {
            // SQLite returns the value of the first only, so a second one would be ignored
            // silently.
            if ours().take(nth).any(|earlier| earlier == key) {
                return Err(format!("{} is given more than once", key.to_string_lossy()));
            }
            let value = uri.get(key).map_or(&b""[..], CStr::to_bytes);
            let key = key.to_string_lossy();
            let Some(name) = SETTINGS.into_iter().find(|name| key[PREFIX.len()..] == **name) else {
                let known = SETTINGS.map(|name| format!("{PREFIX}{name}")).join(", ");
                return Err(format!("unknown URI parameter {key}; known: {known}"));
            };
            settings.set(name, value).map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(settings)
    }

    /// Sets one of [`SETTINGS`].
    ///
    /// # Errors
    /// What is wrong with the value.
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        match name {
            "begin" => {
                self.begin = Begin::parse(value)
                    .ok_or_else(|| malformed(value, "none of deferred, immediate and auto"))?;
            }
            "begin_timeout" => self.begin_timeout = ms(value)?,
            "busy_timeout" => self.busy_timeout = ms(value)?,
            "busy_timeout_min" => self.busy_timeout_min = ms(value)?,
            "file_ahead" => self.file_ahead = flag(value)?,
            "group_commit" => self.group_commit = flag(value)?,
            "hard_links" => self.hard_links = flag(value)?,
            "network_wal" => self.network_wal = flag(value)?,
            "persist_wal" => self.persist_wal = flag(value)?,
            "record" => self.record = flag(value)?,
            "record_sql" => self.record_sql = flag(value)?,
            "slow_ms" => self.slow = ms(value)?,
            _ => debug_assert!(false, "{name} is no setting"),
        }
        Ok(())
    }

    /// When a transaction that BEGIN has begun takes the write lock.
    pub(crate) fn begin(&self) -> Begin {
        self.begin
    }

    /// How long such a transaction waits for the write lock if the busy handler is not known.
    pub(crate) fn begin_timeout(&self) -> Duration {
        self.begin_timeout
    }

    /// The busy timeout of a connection that sets none, in ms; at most what `sqlite3_busy_timeout` takes.
    pub(crate) fn busy_timeout_ms(&self) -> c_int {
        let timeout = self.busy_timeout.max(self.busy_timeout_min);
        c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
    }

    /// The least time that a statement waits for the write lock.
    pub(crate) fn busy_timeout_min(&self) -> Duration {
        self.busy_timeout_min
    }
}

/// The flag that `0` or `1` means.
fn flag(value: &[u8]) -> Result<bool, String> {
    match value {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(malformed(value, "neither 0 nor 1")),
    }
}

/// A number of whole milliseconds, at most what `sqlite3_busy_timeout` takes.
fn ms(value: &[u8]) -> Result<Duration, String> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    let ms = text.parse::<c_int>().ok().filter(|_| has_digits_only);
    let ms = ms.ok_or_else(|| {
        malformed(value, &format!("not a number of milliseconds from 0 to {}", c_int::MAX))
    })?;
    Ok(Duration::from_millis(ms.unsigned_abs().into()))
}

/// Says that a value is malformed, and what it should be.
fn malformed(value: &[u8], is: &str) -> String {
    format!("{:?} is {is}", String::from_utf8_lossy(value))
}

#[cfg(test)]
mod tests;

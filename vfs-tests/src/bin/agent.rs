//! A client for the tests: reads one command per line, and answers each with one line. See
//! `vfs_tests::Agent`.
//!
//! The busy timeout is set only if a test asks for it. `rusqlite::Connection::open` always sets
//! one, so connections are opened by the C interface and handed to rusqlite.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Connection, ffi, types::ValueRef};
use serde_json::{Value, json};

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() {
    // SAFETY: SQLite was not used yet in this process.
    unsafe {
        rusqlite::trace::config_log(Some(|code, message| {
            if let Ok(mut log) = LOG.lock() {
                log.push(format!("{code} {message}"));
            }
        }))
        .expect("the log is set first");
    }
    if std::env::var_os("STOCK_AGENT").is_none() {
        register();
    }
    Client::default().serve(io::stdin().lock(), &mut io::stdout());
}

fn register() {
    kanban_vfs::register(&kanban_vfs::Options::default()).expect("the VFS registers");
}

/// How many descriptors this process has open.
#[cfg(unix)]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("on Linux").count()
}

/// How many handles this process has open.
#[cfg(windows)]
fn descriptors() -> usize {
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};
    let mut count = 0;
    // SAFETY: this process, and a number to fill in.
    let rc = unsafe { GetProcessHandleCount(GetCurrentProcess(), &raw mut count) };
    assert_ne!(rc, 0, "{}", io::Error::last_os_error());
    count as usize
}

type Answer<T> = Result<T, (i64, String)>;

#[derive(Default)]
struct Client {
    connections: HashMap<String, Connection>,
    #[cfg(unix)]
    child: Option<fork::Child>,
}

impl Client {
    fn serve(&mut self, commands: impl BufRead, replies: &mut dyn Write) {
        for line in commands.lines() {
            let Ok(line) = line else { break };
            let command: Value = serde_json::from_str(&line).expect("a JSON array");
            #[cfg(unix)]
            if command[0] == "child" {
                let child = self.child.as_mut().expect("it was forked");
                let mut reply = String::new();
                writeln!(child.commands, "{}", command[1]).expect("the child listens");
                child.replies.read_line(&mut reply).expect("it answers");
                write!(replies, "{reply}").and_then(|()| replies.flush()).expect("as below");
                continue;
            }
            let answer = match self.answer(&command) {
                Ok(rows) => json!({ "rows": rows }),
                Err((code, message)) => json!({ "error": message, "code": code }),
            };
            writeln!(replies, "{answer}").and_then(|()| replies.flush()).expect("the test listens");
        }
    }

    fn answer(&mut self, command: &Value) -> Answer<Vec<Vec<Value>>> {
        let text = |n: usize| command[n].as_str().unwrap_or_default();
        match text(0) {
            "open" => {
                let connection = open(text(2), &command[3])?;
                self.connections.insert(text(1).to_owned(), connection);
            }
            "sql" => return sql(&self.connections[text(1)], text(2)),
            "close" => {
                self.connections.remove(text(1));
            }
            "log" => {
                let lines = std::mem::take(&mut *LOG.lock().expect("no panic holds it"));
                return Ok(lines.into_iter().map(|line| vec![json!(line)]).collect());
            }
            "read" => {
                // Like an application that looks at its own database file.
                let file = File::open(text(1)).expect("it exists");
                file.take(16).read_to_end(&mut Vec::new()).expect("it is readable");
            }
            "cd" => std::env::set_current_dir(text(1)).expect("it exists"),
            "register" => register(),
            "own busy handler" => {
                let ms = command[2].as_u64().unwrap_or(10);
                own_busy_handler(self.connections.get_mut(text(1)).expect("it is open"), ms)
            }
            "sleeping busy handler" => {
                let number = |n: usize| command[n].as_i64().and_then(|n| i32::try_from(n).ok());
                let connection = self.connections.get_mut(text(1)).expect("it is open");
                sleeping_busy_handler(connection, number(2).expect("a time"), number(3));
            }
            "calls of busy handler" => {
                return Ok(vec![vec![json!(CALLS.swap(0, Ordering::Relaxed))]]);
            }
            "write for" => {
                let ms = |n: usize| Duration::from_millis(command[n].as_u64().expect("a time"));
                return write_for(&self.connections[text(1)], ms(2), ms(3), ms(4));
            }
            "load" => load(&self.connections[text(1)], text(2)),
            #[cfg(unix)]
            "become nobody" => become_nobody(),
            #[cfg(target_os = "linux")]
            "chroot" => {
                std::os::unix::fs::chroot(text(1)).expect("it is root");
                std::env::set_current_dir("/").expect("it exists");
            }
            #[cfg(target_os = "linux")]
            "cover" => cover(text(1)),
            #[cfg(unix)]
            "become" => become_user(command),
            #[cfg(unix)]
            "use descriptors" => use_descriptors(command[1].as_u64().unwrap_or(0)),
            "descriptors" => return Ok(vec![vec![json!(descriptors())]]),
            #[cfg(unix)]
            "fork" => self.fork(),
            #[cfg(unix)]
            "end child" => {
                let child = self.child.take().expect("it was forked");
                return Ok(vec![vec![json!(child.end())]]);
            }
            other => panic!("unknown command {other}"),
        }
        Ok(Vec::new())
    }
}

/// Makes a mount namespace, and mounts an empty directory over `directory` in it.
#[cfg(target_os = "linux")]
fn cover(directory: &str) {
    let directory = CString::new(directory).expect("no NUL");
    let (kind, none) = (c"tmpfs".as_ptr(), std::ptr::null());
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: terminated strings, or null where nothing is asked for.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "{}", io::Error::last_os_error());
        assert_eq!(libc::mount(kind, c"/".as_ptr(), none, flags, none.cast()), 0);
        assert_eq!(libc::mount(kind, directory.as_ptr(), kind, 0, none.cast()), 0);
    }
}

/// Opens that many descriptors, and never closes them.
#[cfg(unix)]
fn use_descriptors(n: u64) {
    // SAFETY: a struct of integers, which the first call fills in.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    for _ in 0..n {
        std::mem::forget(File::open("/dev/null").expect("the limit allows it"));
    }
}

/// Drops root's rights, if this process has them.
#[cfg(unix)]
fn become_nobody() {
    if vfs_tests::is_root() {
        // SAFETY: this process has one thread.
        let rc = unsafe { libc::setuid(65534) };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    }
}

/// Makes the VFS the default one, and installs a busy handler that never gives up and calls
/// `sqlite3_sleep`, like that of SQLite's mptester.
fn own_busy_handler(connection: &mut Connection, ms: u64) {
    static MS: AtomicI32 = AtomicI32::new(0);
    MS.store(i32::try_from(ms).expect("a time"), Ordering::Relaxed);
    // SAFETY: the VFS is registered; its name is terminated.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"kanban".as_ptr());
        assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK);
    }
    let handler = |_| {
        // SAFETY: it may be called at any time.
        unsafe { ffi::sqlite3_sleep(MS.load(Ordering::Relaxed)) };
        true
    };
    connection.busy_handler(Some(handler)).expect("no statement runs");
}

/// How often [`sleeping_busy_handler`] was called.
static CALLS: AtomicI32 = AtomicI32::new(0);

/// Installs a busy handler that sleeps by itself, `ms` each time, and gives up after so many times,
/// or never.
fn sleeping_busy_handler(connection: &mut Connection, ms: i32, times: Option<i32>) {
    static MS: AtomicI32 = AtomicI32::new(0);
    static TIMES: AtomicI32 = AtomicI32::new(0);
    MS.store(ms, Ordering::Relaxed);
    TIMES.store(times.unwrap_or(i32::MAX), Ordering::Relaxed);
    let handler = |before| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let goes_on = before < TIMES.load(Ordering::Relaxed);
        if goes_on {
            let ms = MS.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(ms.unsigned_abs().into()));
        }
        goes_on
    };
    connection.busy_handler(Some(handler)).expect("no statement runs");
}

/// Writes one transaction after the other for some time. Each `holds` the lock for a given time,
/// and a pause follows it. Returns how long each waited, in us.
fn write_for(
    connection: &Connection,
    time: Duration,
    holds: Duration,
    pause: Duration,
) -> Answer<Vec<Vec<Value>>> {
    let mut waits = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let asked = Instant::now();
        sql(connection, "BEGIN IMMEDIATE")?;
        waits.push(vec![json!(asked.elapsed().as_micros() as u64)]);
        sql(connection, "INSERT INTO t VALUES (1)")?;
        std::thread::sleep(holds);
        sql(connection, "COMMIT")?;
        std::thread::sleep(pause);
    }
    Ok(waits)
}

/// Becomes another user, with these groups and this umask.
#[cfg(unix)]
fn become_user(command: &Value) {
    let number = |value: &Value| value.as_u64().expect("a number") as libc::gid_t;
    let groups: Vec<_> = command[3].as_array().expect("groups").iter().map(number).collect();
    // SAFETY: this process has one thread; that many groups.
    unsafe {
        assert_eq!(libc::setgroups(groups.len() as _, groups.as_ptr()), 0);
        assert_eq!(libc::setgid(number(&command[2])), 0);
        assert_eq!(libc::setuid(number(&command[1])), 0);
        libc::umask(number(&command[4]) as libc::mode_t);
    }
}

/// Loads an extension.
fn load(connection: &Connection, extension: &str) {
    // SAFETY: the test's own extension.
    unsafe {
        connection.load_extension_enable().expect("it can be enabled");
        connection.load_extension(extension, None::<&str>).expect("it loads");
    }
}

fn open(uri: &str, timeout: &Value) -> Answer<Connection> {
    let name = CString::new(uri).expect("no NUL");
    let mut db = std::ptr::null_mut();
    // SAFETY: a terminated name and a place for the handle; the handle is owned by the connection
    // or closed; the message is SQLite's and copied before that.
    unsafe {
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
        let rc = ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, std::ptr::null());
        if rc != ffi::SQLITE_OK {
            let message =
                std::ffi::CStr::from_ptr(ffi::sqlite3_errmsg(db)).to_string_lossy().into_owned();
            ffi::sqlite3_close(db);
            return Err((rc.into(), message));
        }
        ffi::sqlite3_extended_result_codes(db, 1);
        if let Some(ms) = timeout.as_i64() {
            ffi::sqlite3_busy_timeout(db, ms as i32);
        }
        Connection::from_handle_owned(db).map_err(failure)
    }
}

fn sql(connection: &Connection, sql: &str) -> Answer<Vec<Vec<Value>>> {
    let mut found = Vec::new();
    let mut batch = rusqlite::Batch::new(connection, sql);
    while let Some(mut statement) = batch.next().map_err(failure)? {
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(failure)? {
            let row = (0..columns).map(|n| match row.get_ref(n) {
                Ok(ValueRef::Integer(n)) => json!(n),
                Ok(ValueRef::Real(n)) => json!(n),
                Ok(ValueRef::Text(text) | ValueRef::Blob(text)) => {
                    json!(String::from_utf8_lossy(text))
                }
                _ => Value::Null,
            });
            found.push(row.collect());
        }
    }
    Ok(found)
}

fn failure(error: rusqlite::Error) -> (i64, String) {
    match error {
        rusqlite::Error::SqliteFailure(error, message) => {
            (error.extended_code.into(), message.unwrap_or_else(|| error.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => (error.extended_code.into(), msg),
        other => (-1, other.to_string()),
    }
}

/// Commands that only unix has.
#[cfg(unix)]
mod fork {
    use std::io::{self, BufReader, Read};

    use super::Client;

    /// A child made by fork, and the pipes to and from it.
    pub(super) struct Child {
        pid: libc::pid_t,
        pub(super) commands: io::PipeWriter,
        pub(super) replies: BufReader<io::PipeReader>,
    }

    impl Client {
        pub(super) fn fork(&mut self) {
            let (commands, to_child) = io::pipe().expect("a pipe");
            let (from_child, mut replies) = io::pipe().expect("a pipe");
            // SAFETY: this process has one thread.
            match unsafe { libc::fork() } {
                -1 => panic!("{}", io::Error::last_os_error()),
                0 => {
                    drop((to_child, from_child));
                    self.child = None;
                    self.serve(BufReader::new(commands), &mut replies);
                    // It closes what is open, like a program that returns from main.
                    self.connections.clear();
                    std::process::exit(0);
                }
                pid => {
                    let replies = BufReader::new(from_child);
                    self.child = Some(Child { pid, commands: to_child, replies });
                }
            }
        }
    }

    impl Child {
        /// Lets the child exit. Returns its exit code.
        pub(super) fn end(mut self) -> i32 {
            drop(self.commands);
            self.replies.read_to_end(&mut Vec::new()).expect("it ends");
            let mut status = 0;
            // SAFETY: a child of this process, and a place for its status.
            let pid = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            assert_eq!(pid, self.pid, "{}", io::Error::last_os_error());
            if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -libc::WTERMSIG(status)
            }
        }
    }
}

//! Descriptors: none of this VFS is a standard stream, a connection locks by its own rights, other
//! programs' descriptors stay as they are, and no number is trusted after its file was closed.

use std::path::Path;
use std::process::Command;

use vfs_tests::{Board, Lines, PYTHON, Program, Reply, extension};

use crate::Client::{Ours, Stock, StockBesideOurs};
use crate::{Client, beside, stock_agent};

/// What a Python program prints. `load` says whether it loads the extension; its other arguments follow.
fn prints(load: bool, script: &str, arguments: &[&str]) -> Vec<String> {
    const LOAD: &str = "
import os, sqlite3, sys
out = os.dup(1)
def say(*what): os.write(out, (' '.join(map(str, what)) + '\\n').encode())
def load():
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
    loader.load_extension(sys.argv[2])
if sys.argv[1] == 'load': load()
def connect(uri):
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
def tried(board, sql):
    try: return board.execute(sql).fetchall()
    except sqlite3.Error as error: return error
OUTSIDER = '''
import sqlite3, sys
board = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try: board.execute('BEGIN IMMEDIATE'); print('got in')
except sqlite3.OperationalError as error: print('was refused:', error)
'''
def outsider(path):
    import subprocess
    told = subprocess.run([sys.executable, '-c', OUTSIDER, path], capture_output=True, text=True)
    say('an outsider', (told.stdout + told.stderr).strip())
";
    let mut python = Command::new(PYTHON);
    python.args(["-c", &format!("{LOAD}{script}\nsay('end')\nos._exit(0)")]);
    python.arg(if load { "load" } else { "stock" }).arg(extension()).args(arguments);
    python.stderr(std::process::Stdio::null());
    let mut program = Lines::start(python);
    let mut said = Vec::new();
    loop {
        match program.hear() {
            end if end == "end" => return said,
            line => said.push(line),
        }
    }
}

/// The same, with the board's path and URI as the script's first arguments.
fn prints_of(board: &Board, vfs: &str, script: &str, arguments: &[&str]) -> Vec<String> {
    let (path, uri) = (board.path(), board.uri(vfs));
    let board = [path.to_str().unwrap(), &uri];
    prints(vfs == "kanban", script, &[&board, arguments].concat())
}

/// A daemon opens its board, and closes its standard streams before it uses the board, or before it
/// loads the extension. Then a library prints, and the daemon opens /dev/null in place of the
/// streams. The line must not land in a file of the board, nor may /dev/null replace a descriptor
/// that has a lock. SQLite prevents that for its own files: it keeps no descriptor below 3.
#[test]
fn no_descriptor_is_a_standard_stream() {
    const SCRIPT: &str = "
path, uri, mode, closes, when = sys.argv[3:]
made = sqlite3.connect(path, isolation_level=None)
made.execute('PRAGMA journal_mode=' + mode); made.execute('CREATE TABLE t (x)'); made.close()
streams = [int(n) for n in closes]
if when == 'late': board = connect(uri)
for n in streams: os.close(n)
if sys.argv[1] == 'load': load()
if when == 'early': board = connect(uri)
if sys.argv[1] == 'load': board.execute('PRAGMA kanban_status').fetchall()
def low():
    names = [os.readlink('/proc/self/fd/%d' % n) for n in streams if os.path.exists('/proc/self/fd/%d' % n)]
    return [name for name in names if name != '/dev/null']
board.execute('SELECT * FROM t').fetchall(); say('reads', low())
board.execute('BEGIN IMMEDIATE'); board.execute('INSERT INTO t VALUES (1)'); say('writes', low())
for n in streams:
    try: os.write(n, b'a line for the log' * 40)
    except OSError: pass
null = os.open('/dev/null', os.O_RDWR)
for n in streams: null == n or os.dup2(null, n)
outsider(path)
say(tried(board, 'COMMIT'), low())
board.close()
say(tried(sqlite3.connect(path), 'PRAGMA integrity_check'), tried(sqlite3.connect(path), 'SELECT x FROM t'))
folder = os.path.dirname(path)
say([name for name in os.listdir(folder) if b'a line' in open(os.path.join(folder, name), 'rb').read()])
";
    for mode in ["wal", "delete"] {
        for closes in ["0", "1", "2", "012"] {
            for when in ["early", "late"] {
                let with = |vfs| prints_of(&Board::new(), vfs, SCRIPT, &[mode, closes, when]);
                let said = with("unix");
                assert_eq!(said.last().map(String::as_str), Some("[]"), "{said:?}");
                assert_eq!(said[2], "an outsider was refused: database is locked");
                assert_eq!(said, with("kanban"), "{mode}, {closes}, {when}");
            }
        }
    }
}

/// The replies of a process that runs `script` on its connections `r`, which is read-only, and `c`,
/// and then those of a newcomer.
fn beside_a_reader(program: Program, client: Client, script: &[(&str, &str)]) -> Vec<String> {
    let board = Board::new();
    let mut creator = stock_agent(Program::Rust);
    creator.open("c", &board.stock(), 0);
    creator
        .sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .rows();
    creator.close("c");
    let mut process = client.start_at(program, &board);
    let mut said = Vec::new();
    let replied = |reply: Reply| match reply {
        Reply::Rows(rows) => format!("{rows:?}"),
        Reply::Error { code, .. } => format!("error {code}"),
    };
    for (name, what) in script {
        let said_now = match *what {
            "open" => {
                let mode = if *name == "r" { "&mode=ro" } else { "" };
                process.open(name, &format!("{}{mode}", client.uri(&board)), 0);
                continue;
            }
            "close" => {
                process.close(name);
                let size =
                    |suffix| beside(&board, suffix).metadata().map_or(0, |found| found.len());
                format!("{} bytes of WAL", size("-wal"))
            }
            sql => replied(process.sql(name, sql)),
        };
        said.push(format!("{name} {what}: {said_now}"));
    }
    process.kill();
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &board.stock(), 0);
    said.push(replied(newcomer.sql("c", "SELECT count(*) FROM t; PRAGMA integrity_check")));
    said
}

/// A process has a read-only connection to the board, and one that writes. The read-only connection
/// closes, or asks for another journal mode, which is refused. At its close SQLite asks by its
/// descriptor for an exclusive lock, which a read-only descriptor cannot have. That must not affect
/// the writer: it still leaves WAL mode, copies the WAL when it closes, and writes. Nor may the
/// read-only connection lock by the writer's descriptor what it has no right to lock. All of this
/// is as on the stock VFS.
#[test]
fn a_read_only_connection_locks_by_its_own_rights() {
    const READ: &str = "SELECT count(*) FROM t";
    const WRITE: &str = "INSERT INTO t VALUES (2)";
    let scripts: &[&[(&str, &str)]] = &[
        &[
            ("c", "open"),
            ("c", WRITE),
            ("r", "open"),
            ("r", READ),
            ("r", "close"),
            ("c", WRITE),
            ("c", "PRAGMA journal_mode=delete"),
            ("c", WRITE),
            ("c", "close"),
        ],
        &[("c", "open"), ("c", WRITE), ("r", "open"), ("r", READ), ("r", "close"), ("c", "close")],
        &[
            ("r", "open"),
            ("r", READ),
            ("c", "open"),
            ("c", WRITE),
            ("r", "close"),
            ("c", WRITE),
            ("c", "PRAGMA journal_mode=delete"),
            ("c", WRITE),
        ],
        &[
            ("r", "open"),
            ("r", READ),
            ("c", "open"),
            ("c", WRITE),
            ("c", "close"),
            ("r", READ),
            ("r", "close"),
        ],
        &[
            ("c", "open"),
            ("c", WRITE),
            ("r", "open"),
            ("r", READ),
            ("c", "close"),
            ("r", "close"),
            ("c", "open"),
            ("c", WRITE),
        ],
        &[
            ("c", "open"),
            ("c", WRITE),
            ("r", "open"),
            ("r", READ),
            ("r", "PRAGMA journal_mode=delete"),
            ("r", READ),
            ("c", WRITE),
            ("r", "close"),
            ("c", "PRAGMA journal_mode=delete"),
            ("r", "open"),
            ("r", READ),
            ("r", "PRAGMA journal_mode=persist"),
            ("r", "PRAGMA journal_mode=truncate"),
            ("r", "PRAGMA journal_mode=wal"),
            ("r", READ),
            ("c", WRITE),
            ("c", "PRAGMA journal_mode=wal"),
            ("c", WRITE),
        ],
        &[
            ("c", "open"),
            ("c", "PRAGMA journal_mode=persist"),
            ("c", WRITE),
            ("r", "open"),
            ("r", READ),
            ("r", "PRAGMA journal_mode=persist"),
            ("r", "PRAGMA journal_mode=delete"),
            ("c", WRITE),
            ("r", "BEGIN; SELECT count(*) FROM t"),
            ("c", "BEGIN IMMEDIATE"),
            ("r", "COMMIT"),
            ("c", WRITE),
            ("c", "COMMIT"),
            ("r", "close"),
            ("c", WRITE),
        ],
    ];
    for program in Program::ALL {
        for (nth, script) in scripts.iter().enumerate() {
            let stock = beside_a_reader(program, Stock, script);
            for client in [Ours, StockBesideOurs] {
                let said = beside_a_reader(program, client, script);
                assert_eq!(said, stock, "{program:?}, {client:?}, script {nth}");
            }
        }
    }
}

/// A program has loaded the extension for one of its databases, and opens others on the stock VFS.
/// Nothing changes for those: their locks are POSIX locks, they take no further descriptor, and a
/// forked child uses the inherited connections as before. (That is no good idea, but it works,
/// since the child only reads.)
#[test]
fn a_database_that_is_not_ours_stays_as_it_is() {
    const SCRIPT: &str = "
path, uri, mode, journal = sys.argv[3:]
other = path + '-other'
if sys.argv[1] == 'load':
    board = connect('file:' + other + '?vfs=kanban'); board.execute('CREATE TABLE u (x)')
else: board = connect(other); board.execute('CREATE TABLE u (x)')
made = connect(path); made.execute('PRAGMA journal_mode=' + journal)
made.execute('CREATE TABLE t (x)'); made.execute('INSERT INTO t VALUES (1)')
plain = connect('file:' + path + '?mode=' + mode)
def state():
    found = []
    for n in os.listdir('/proc/self/fd'):
        try: name = os.readlink('/proc/self/fd/' + n)
        except OSError: continue
        if name.startswith(path) and not name.startswith(other):
            info = open('/proc/self/fdinfo/' + n).read().splitlines()
            found.append((name[len(path):], sorted(set(line.split()[2] for line in info if line[:5] == 'lock:'))))
    return sorted(found)
say(tried(plain, 'SELECT * FROM t'), state())
plain.execute('BEGIN'); say(tried(plain, 'SELECT * FROM t'), state())
def child(what):
    sys.stdout.flush()
    if os.fork() == 0:
        try: what()
        finally: os._exit(0)
    os.wait()
child(lambda: say('child', tried(plain, 'SELECT count(*) FROM t')))
plain.execute('COMMIT')
child(lambda: say('child', tried(plain, 'SELECT count(*) FROM t')))
child(lambda: say('child', tried(connect(path), 'SELECT count(*) FROM t')))
if mode == 'rw': child(lambda: say('child', tried(plain, 'INSERT INTO t VALUES (2)')))
say(tried(made, 'INSERT INTO t VALUES (3)'), state())
made.execute('BEGIN IMMEDIATE'); say(state()); outsider(path); made.execute('COMMIT')
plain.close(); made.close(); say(state(), os.path.exists(path + '-wal'), os.path.exists(path + '-shm'))
";
    for journal in ["delete", "wal"] {
        for mode in ["rw", "ro"] {
            let with = |vfs| prints_of(&Board::new(), vfs, SCRIPT, &[mode, journal]);
            let said = with("unix");
            assert!(said.iter().any(|line| line.contains("POSIX")), "{said:?}");
            assert_eq!(said, with("kanban"), "{journal}, {mode}");
        }
    }
}

/// A stock connection is open, and perhaps in a transaction, when the same process opens the board
/// through this VFS. The stock connection's locks stay POSIX locks, and hold. When they are
/// released, all locks are protected; in WAL mode, when the connection has closed the wal-index.
/// The status says which locks are protected.
#[test]
fn a_stock_connection_is_protected_when_its_locks_are_gone() {
    const SCRIPT: &str = "
import json
path, uri, journal, begins = sys.argv[3:]
made = connect(path); made.execute('PRAGMA journal_mode=' + journal); made.execute('CREATE TABLE t (x)')
made.close()
plain = connect(path); tried(plain, 'SELECT * FROM t'); tried(plain, begins)
if 'IMMEDIATE' in begins: tried(plain, 'INSERT INTO t VALUES (1)')
board = connect(uri)
def is_active():
    status = json.loads(board.execute('PRAGMA kanban_status').fetchone()[0])
    return status['guarantees']['lock_cancellation']['active']
def look():
    for suffix in ['', '-shm']:
        if os.path.exists(path + suffix): open(path + suffix).close()
tried(board, 'SELECT * FROM t'); say(is_active())
if 'IMMEDIATE' in begins: outsider(path)
say(tried(plain, 'COMMIT')); say(tried(board, 'SELECT count(*) FROM t'), is_active())
if journal == 'wal':
    plain.close(); board.close(); board = connect(uri); tried(board, 'SELECT * FROM t'); plain = connect(path)
say(is_active())
plain.execute('BEGIN IMMEDIATE'); look(); outsider(path); say(tried(plain, 'COMMIT'))
board.close()
plain.execute('BEGIN IMMEDIATE'); look(); outsider(path); say(tried(plain, 'COMMIT'))
";
    const REFUSED: &str = "an outsider was refused: database is locked";
    for journal in ["delete", "wal"] {
        for begins in ["SELECT 1", "BEGIN IMMEDIATE"] {
            let said = prints_of(&Board::new(), "kanban", SCRIPT, &[journal, begins]);
            let is_active = journal == "delete" && begins == "SELECT 1";
            let text = |active| if active { "True" } else { "False" };
            let context = format!("{journal}, {begins}: {said:?}");
            assert_eq!(said[0], text(is_active), "{context}");
            let refusals = said.iter().filter(|line| *line == REFUSED).count();
            assert_eq!(refusals, if begins == "SELECT 1" { 2 } else { 3 }, "{context}");
            let after = said.iter().position(|line| line.contains("(")).unwrap();
            assert!(said[after].ends_with(text(journal == "delete")), "{context}");
            assert_eq!(said[after + 1], "True", "{context}");
        }
    }
}

/// A daemon closes all descriptors, even those of a connection that it has forgotten. It opens
/// another board, or the same one again, which gets their numbers. The new connection's locks must
/// be on that board. The forgotten connection may do only what it could do on the stock VFS, where
/// it has lost its files.
#[test]
fn descriptors_that_were_closed_behind_our_back_are_forgotten() {
    const SCRIPT: &str = "
path, uri, mode, gap, other = sys.argv[3:]
for name in {path, other}:
    made = connect(name); made.execute('PRAGMA journal_mode=' + mode); made.execute('CREATE TABLE t (x)')
    made.close()
leaked = [connect(uri) for n in range(2)]
for board in leaked: board.execute('INSERT INTO t VALUES (1)'); board.execute('DELETE FROM t')
if other != path: leaked[0].execute('BEGIN IMMEDIATE')
os.closerange(3, out); os.closerange(out + 1, 100)
# Each time, other numbers meet.
filler = [os.open('/dev/null', os.O_RDONLY) for n in range(int(gap))]
board = connect(uri.replace(path, other))
board.execute('BEGIN IMMEDIATE'); board.execute('INSERT INTO t VALUES (2)')
outsider(other)
say(tried(board, 'COMMIT'))
board.execute('BEGIN IMMEDIATE')
second = connect(uri.replace(path, other))
say(tried(second, 'BEGIN IMMEDIATE'))
outsider(other)
say(tried(board, 'COMMIT')); second.execute('INSERT INTO t VALUES (3)')
say(tried(connect(other), 'SELECT x FROM t'), tried(connect(other), 'PRAGMA integrity_check'))
# What the leaked connections close is not theirs any more.
leaked.clear()
board.execute('BEGIN IMMEDIATE'); outsider(other); say(tried(board, 'COMMIT'))
";
    for mode in ["delete", "wal"] {
        for (gap, is_same) in (0..8).flat_map(|gap| [(gap, false), (gap, true)]) {
            if is_same && mode == "wal" {
                // SQLite goes on using the wal-index whose descriptor was closed.
                continue;
            }
            let with = |vfs| {
                let (board, other) = (Board::new(), Board::new());
                let path = if is_same { board.path() } else { other.path() };
                let arguments = [mode, &gap.to_string(), path.to_str().unwrap()];
                let said = prints_of(&board, vfs, SCRIPT, &arguments);
                (said, content_of(&path))
            };
            let (stock, _) = with("unix");
            assert_eq!(stock[0], "an outsider was refused: database is locked", "{stock:?}");
            let (said, content) = with("kanban");
            // On the stock VFS the leaked connections may close a file of the board.
            assert_eq!(said[..6], stock[..6], "{mode}, {gap}");
            assert_eq!(
                said[6..],
                ["an outsider was refused: database is locked", "[]"],
                "{mode}, {gap}"
            );
            assert_eq!(
                content,
                ["[String(\"ok\")]", "[Number(2)]", "[Number(3)]"],
                "{mode}, {gap}"
            );
        }
    }
}

/// A daemon closes all descriptors while a connection that it has forgotten is in a transaction.
/// Then nothing is locked, as on the stock VFS: a mapping that is left must not keep a lock.
#[test]
fn a_connection_without_descriptors_locks_nobody_out() {
    const SCRIPT: &str = "
import subprocess
path, uri, mode = sys.argv[3:]
made = connect(path); made.execute('PRAGMA journal_mode=' + mode); made.execute('CREATE TABLE t (x)'); made.close()
leaked = connect(uri)
leaked.execute('BEGIN IMMEDIATE'); leaked.execute('INSERT INTO t VALUES (1)')
os.closerange(3, out); os.closerange(out + 1, 100)
outsider(path)
CLIENT = OUTSIDER.replace('sys.argv[1], ', 'sys.argv[1], uri=True, ').replace('import sqlite3, sys', '''
import sqlite3, sys
loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True); loader.load_extension(sys.argv[2])''')
told = subprocess.run([sys.executable, '-c', CLIENT, 'file:' + path + '?vfs=kanban', sys.argv[2]],
                      capture_output=True, text=True)
say(told.stdout.strip(), told.stderr)
";
    for mode in ["delete", "wal"] {
        for vfs in ["unix", "kanban"] {
            let said = prints_of(&Board::new(), vfs, SCRIPT, &[mode]);
            assert_eq!(said, ["an outsider got in", "got in "], "{mode}, {vfs}");
        }
    }
}

/// In Python: a connection has the write lock. Another waits for it in vain, and does so again at
/// each call.
#[cfg(target_os = "linux")]
const WAITS: &str = "
path, uri = sys.argv[3:]
holder, waiter = connect(uri), connect(uri)
holder.execute('PRAGMA journal_mode=wal'); holder.execute('CREATE TABLE t (x)')
waiter.execute('PRAGMA busy_timeout=50')
holder.execute('BEGIN IMMEDIATE')
def waits(): return tried(waiter, 'INSERT INTO t VALUES (1)')
say(waits())
";

/// A waiter writes its place in the queue by means of a file in memory. A daemon closes all
/// descriptors that it does not know, with that file's, and opens another file, which gets the
/// number. The next waiter must not write to that other file. On the stock VFS none would.
#[test]
#[cfg(target_os = "linux")]
fn a_file_that_has_the_number_of_one_in_memory_stays_as_it_is() {
    const SCRIPT: &str = "
import tempfile
def is_ours(n):
    try: return os.readlink('/proc/self/fd/%d' % n).startswith('/dev/shm/#')
    except OSError: return False
numbers = [n for n in range(3, 100) if is_ours(n)]
say(len(numbers), 'in memory')
victim = tempfile.NamedTemporaryFile(); victim.write(b'precious' * 100); victim.flush()
for n in numbers or [out + 1]: os.dup2(victim.fileno(), n)
say(waits())
say(open(victim.name, 'rb').read() == b'precious' * 100)
holder.execute('COMMIT')
say(waits())
";
    let refused = "database is locked";
    for (vfs, files) in [("unix", "0 in memory"), ("kanban", "1 in memory")] {
        let said = prints_of(&Board::new(), vfs, &[WAITS, SCRIPT].concat(), &[]);
        assert_eq!(said, [refused, files, refused, "True", "[]"], "{vfs}");
    }
}

/// A program forks without the C library, so that no fork handler runs. The child has its parent's
/// connections, but not the mapping by which waiters write their places. Other memory may be at
/// that address, and a child that waits must not write to it.
#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_a_child_that_ran_no_handler_stays_as_it_is() {
    const SCRIPT: &str = "
import ctypes, platform
mapped = [line.split() for line in open('/proc/self/maps') if line.rstrip().endswith('-lock')]
ranges = [[int(end, 16) for end in line[0].split('-')] for line in mapped]
say(len(ranges), 'mapped')
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
SIGCHLD, READ_WRITE, PRIVATE_FIXED_ANONYMOUS = 17, 3, 0x32
child = libc.syscall({'x86_64': 56, 'aarch64': 220}[platform.machine()], SIGCHLD, 0, 0, 0, 0)
if child == 0:
    for begin, end in ranges:
        assert libc.mmap(begin, end - begin, READ_WRITE, PRIVATE_FIXED_ANONYMOUS, -1, 0) == begin
    say(waits())
    say([ctypes.string_at(begin, end - begin).count(0) == end - begin for begin, end in ranges])
    os._exit(0)
os.waitpid(child, 0)
";
    let refused = "database is locked";
    for (vfs, ranges, untouched) in [("unix", "0 mapped", "[]"), ("kanban", "1 mapped", "[True]")] {
        let said = prints_of(&Board::new(), vfs, &[WAITS, SCRIPT].concat(), &[]);
        assert_eq!(said, [refused, ranges, refused, untouched], "{vfs}");
    }
}

/// A process has no descriptor left when a connection that can write joins one that cannot. On the
/// stock VFS the second connection needs no further descriptor.
#[test]
fn a_connection_that_joins_to_write_needs_no_descriptor() {
    const SCRIPT: &str = "
import resource
path, uri, before = sys.argv[3:]
made = connect(path); made.execute('CREATE TABLE t (x)'); made.close()
reads = connect(uri + '&mode=ro'); say(tried(reads, 'SELECT * FROM t'))
writes = connect(uri + '&mode=rw')
if before == 'reading': reads.execute('BEGIN'); say(tried(reads, 'SELECT count(*) FROM t'))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
fillers = []
try:
    while True: fillers.append(os.open('/dev/null', os.O_RDONLY))
except OSError: pass
writes.execute('PRAGMA journal_mode=memory')
say(tried(writes, 'BEGIN IMMEDIATE'), tried(writes, 'INSERT INTO t VALUES (1)'))
if before == 'reading': say(tried(writes, 'COMMIT')); say(tried(reads, 'COMMIT'))
say(tried(writes, 'COMMIT'))
for filler in fillers: os.close(filler)
say(tried(reads, 'SELECT * FROM t')); reads.close()
writes.execute('BEGIN IMMEDIATE'); outsider(path); say(tried(writes, 'COMMIT'))
say(tried(connect(path), 'SELECT * FROM t'), tried(connect(path), 'PRAGMA integrity_check'))
";
    for before in ["idle", "reading"] {
        let [stock, ours] =
            ["unix", "kanban"].map(|vfs| prints_of(&Board::new(), vfs, SCRIPT, &[before]));
        assert_eq!(stock.last().map(String::as_str), Some("[(1,)] [('ok',)]"), "{stock:?}");
        assert_eq!(ours, stock, "{before}");
    }
}

/// A service has a thousand descriptors, and keeps a database for each of its tenants open, or a
/// pool of connections to one. SQLite takes three descriptors for a database in WAL mode; this VFS
/// takes three more, and one for each directory. For a further connection this VFS takes none.
#[test]
fn a_board_takes_six_descriptors_and_a_connection_two() {
    const SCRIPT: &str = "
path, uri, mode = sys.argv[3:]
def used(uri):
    board = connect(uri); board.execute('INSERT INTO t VALUES (1)'); board.execute('SELECT * FROM t').fetchall()
    return board
def descriptors(): return len(os.listdir('/proc/self/fd'))
for n in range(20):
    made = sqlite3.connect(path + str(n)); made.execute('PRAGMA journal_mode=' + mode); made.execute('CREATE TABLE t (x)')
    made.close()
def named(n): return uri.replace(path, path + str(n))
first = used(named(0)); before = descriptors()
boards = [used(named(n)) for n in range(1, 20)]; say((descriptors() - before) / 19)
before = descriptors()
pool = [used(named(0)) for _ in range(20)]; say((descriptors() - before) / 20)
";
    for (mode, stock, ours) in
        [("wal", ["3.0", "2.0"], ["6.0", "2.0"]), ("delete", ["1.0", "1.0"], ["3.0", "1.0"])]
    {
        assert_eq!(prints_of(&Board::new(), "unix", SCRIPT, &[mode]), stock, "{mode}");
        assert_eq!(prints_of(&Board::new(), "kanban", SCRIPT, &[mode]), ours, "{mode}");
    }
}

/// The integrity check and the rows, by a new process.
fn content_of(path: &Path) -> Vec<String> {
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &format!("file:{}", path.display()), 0);
    let rows = newcomer.sql("c", "PRAGMA integrity_check; SELECT x FROM t").rows();
    rows.iter().map(|row| format!("{row:?}")).collect()
}

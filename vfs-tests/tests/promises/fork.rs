//! A forked child shares its parent's locks. It must not be able to release or keep them, nor to
//! end its parent's transaction (<https://www.sqlite.org/howtocorrupt.html> 2.6).

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vfs_tests::pause::{self, At, Library, Stops};
use vfs_tests::sidecar::holder;
use vfs_tests::{Agent, Board, Lines, PATIENCE, PYTHON, Program, Reply, extension};

use crate::Client::{Ours, Stock, StockBesideOurs};
use crate::{Client, agent, beside, connect, status, stock_agent, went_well};

const SQLITE_BUSY: i64 = 5;
const SQLITE_IOERR: i64 = 10;

/// A Python program that has loaded the extension; its second argument is the board.
fn python(script: &str, board: &Board) -> Command {
    const LOAD: &str = "
import os, signal, sqlite3, sys, threading, time
loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
";
    let mut python = Command::new(PYTHON);
    python.args(["-c", &format!("{LOAD}{script}")]).arg(extension()).arg(board.kanban());
    python
}

/// A Python gateway forks a child, as multiprocessing does. Whatever the child does with what it
/// inherited, the parent's write lock holds, and the child prints the errors it gets.
#[test]
fn a_child_cannot_free_its_parents_lock() {
    let board = Board::new();
    let script = "
board = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None)
board.execute('CREATE TABLE t (x)')
idle = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None)
idle.execute('SELECT * FROM t').fetchall()
board.execute('BEGIN IMMEDIATE')
board.execute('INSERT INTO t VALUES (1)')
if os.fork() == 0:
    try: idle.execute('INSERT INTO t VALUES (3)'); print('child wrote')
    except sqlite3.OperationalError as error: print('inherited:', error)
    idle.close()
    # What it opens itself works as anywhere: it waits for its parent, who has the lock.
    own = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None, timeout=0.05)
    try: own.execute('INSERT INTO t VALUES (2)'); print('child wrote')
    except sqlite3.OperationalError as error: print('child:', error)
    sys.stdout.flush()
    os._exit(0)
os.wait()
print('parent waits', flush=True)
sys.stdin.readline()
board.execute('COMMIT')
print(board.execute('SELECT group_concat(x) FROM t').fetchone()[0], flush=True)
";
    let mut parent = Lines::start(python(script, &board));
    assert_eq!(parent.hear(), "inherited: disk I/O error");
    assert_eq!(parent.hear(), "child: database is locked");
    assert_eq!(parent.hear(), "parent waits");
    assert_eq!(holder(&board.sidecar()), Some(parent.pid()), "the parent's lock stands");
    parent.say("go on");
    assert_eq!(parent.hear(), "1");
}

/// A process that a test kills at its end.
struct LivesOn(i32);

impl LivesOn {
    fn lives(&self) -> bool {
        // SAFETY: no signal is sent.
        unsafe { libc::kill(self.0, 0) == 0 }
    }
}

impl Drop for LivesOn {
    fn drop(&mut self) {
        // SAFETY: it only sends a signal, to the child that the script made.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

/// A parent in the middle of a transaction makes a child, by fork, posix_spawn or vfork, the latter
/// two with descriptors to inherit; its locks hold. Then it is killed, and the child lives on. The
/// kernel keeps a lock as long as any process has its open file description. Without care, the
/// write lock and SQLite's own would last as long as the child. (On the stock VFS the child has no
/// locks.)
#[test]
fn a_child_does_not_keep_a_dead_parents_locks() {
    let script = "
import subprocess
mode, how = sys.argv[3:]
board = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None)
board.execute('PRAGMA journal_mode=' + mode)
board.execute('CREATE TABLE t (x, y)')
board.execute('BEGIN IMMEDIATE')
board.execute('INSERT INTO t VALUES (1, 1)')
if how == 'fork':
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
elif how == 'posix_spawn':
    child = os.posix_spawn('/bin/sleep', ['sleep', '600'], os.environ)
else:
    child = subprocess.Popen(['sleep', '600'], close_fds=False).pid
print(child, flush=True)
time.sleep(600)
";
    for mode in ["delete", "wal"] {
        for how in ["fork", "posix_spawn", "vfork"] {
            let board = Board::new();
            let mut command = python(script, &board);
            command.args([mode, how]);
            let mut parent = Lines::start(command);
            let child = LivesOn(parent.hear().parse().unwrap());
            let mut outsiders = [Stock, Ours].map(|kind| kind.open(Program::Rust, &board));
            assert_locked(&mut outsiders, how);
            assert_eq!(holder(&board.sidecar()), Some(parent.pid()), "{mode}, {how}");
            parent.kill();
            // The child abandons what it inherited as soon as it runs.
            let killed = Instant::now();
            for outsider in &mut outsiders {
                outsider.sql("c", "PRAGMA busy_timeout=60000").rows();
                outsider.sql("c", "INSERT INTO t VALUES (2, 2)").rows();
            }
            assert!(killed.elapsed() < Duration::from_secs(60), "{mode}, {how}");
            assert!(child.lives(), "{mode}, {how}");
            assert_eq!(holder(&board.sidecar()), None, "{mode}, {how}");
            assert_eq!(count_and_sum(&board), (2, 4), "{mode}, {how}");
        }
    }
}

/// A process whose threads open and close boards all the time forks. The child uses SQLite, and
/// must not find a lock that is held by a thread which the child does not have.
#[test]
fn a_child_of_a_busy_process_does_not_hang() {
    let board = Board::new();
    let script = "
done = False
def work(n):
    while not done:
        board = sqlite3.connect(sys.argv[2].replace('board.db', f'{n}.db'), uri=True)
        board.execute('CREATE TABLE IF NOT EXISTS t (x)').close()
        board.close()
threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
[thread.start() for thread in threads]
for n in range(300):
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
done = True
[thread.join() for thread in threads]
print('all children have ended')
";
    assert_eq!(Lines::start(python(script, &board)).hear(), "all children have ended");
}

/// 500 rows on some 50 pages.
fn fill(x: i64) -> String {
    format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 500) \
         INSERT INTO t SELECT {x}, zeroblob(400) FROM n"
    )
}

/// A client in the middle of a transaction on `c`, most of whose pages have left its cache. In
/// rollback modes they are in the database, with a journal beside it; in WAL mode they are in the
/// WAL. The transaction sets 500 rows from 0 to 1, and adds another 500 rows of 1.
fn in_a_transaction(board: &Board, mode: &str, program: Program, client: Client) -> Agent {
    let mut client = client.open(program, board);
    let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y); {}", fill(0));
    client.sql("c", &create).rows();
    client.sql("c", "PRAGMA cache_size=10; BEGIN IMMEDIATE; UPDATE t SET x = 1").rows();
    client.sql("c", &fill(1)).rows();
    client
}

/// The number and the sum of the rows, as a new client finds them.
fn count_and_sum(board: &Board) -> (i64, i64) {
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &board.stock(), 60_000);
    assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    let found = newcomer.sql("c", "SELECT count(*), sum(x) FROM t").rows();
    (found[0][0].as_i64().unwrap(), found[0][1].as_i64().unwrap())
}

/// What a child does with the connection `c` of its parent.
#[track_caller]
fn child_does(parent: &mut Agent, what: &str) -> Option<Reply> {
    match what {
        "close" => Some(parent.child(&json!(["close", "c"]))),
        "exit" => None,
        sql => Some(parent.child_sql("c", sql)),
    }
}

/// Checks that both kinds of outsiders are refused.
#[track_caller]
fn assert_locked(outsiders: &mut [Agent; 2], context: &str) {
    for (outsider, kind) in outsiders.iter_mut().zip(["stock", "ours"]) {
        let reply = outsider.sql("c", "INSERT INTO t VALUES (7, 7)");
        assert!(!went_well(&reply), "{context}: {kind} wrote");
        assert_eq!(reply.code(), SQLITE_BUSY, "{context}: {kind}");
    }
}

const READ: &str = "SELECT sum(length(y)) FROM t";

/// A parent is in the middle of a transaction when it forks. The child closes the connection that
/// it inherited, or rolls back, or just exits, as a worker of multiprocessing may. On the stock VFS
/// that rolls back the parent's transaction. In rollback modes the child plays the journal back
/// into the database and deletes it; in WAL mode it resets the wal-index. The parent finds its
/// database malformed, and cannot commit.
#[test]
fn a_child_cannot_roll_its_parent_back() {
    for mode in ["delete", "truncate", "persist", "wal"] {
        for program in Program::ALL {
            for what in ["close", "ROLLBACK", "exit"] {
                let context = format!("{mode}, {program:?}, {what}");
                let board = Board::new();
                let mut parent = in_a_transaction(&board, mode, program, Stock);
                parent.fork();
                child_does(&mut parent, what);
                parent.end_child();
                let malformed = parent.sql("c", READ).message();
                assert_eq!(malformed, "database disk image is malformed", "{context}");
                assert!(!went_well(&parent.sql("c", "COMMIT")), "{context}");
                parent.kill();
                assert_eq!(count_and_sum(&board), (500, 0), "{context}");
            }
            for what in ["close", "ROLLBACK", "exit", READ] {
                let context = format!("{mode}, {program:?}, {what}");
                let board = Board::new();
                let mut parent = in_a_transaction(&board, mode, program, Ours);
                let mut outsiders = [Stock, Ours].map(|kind| kind.open(Program::Rust, &board));
                parent.fork();
                let reply = child_does(&mut parent, what);
                if what == READ {
                    assert_eq!(reply.map(Reply::code), Some(SQLITE_IOERR), "{context}");
                }
                assert_locked(&mut outsiders, &context);
                assert_eq!(parent.end_child(), 0, "{context}");
                assert_locked(&mut outsiders, &context);
                assert_eq!(parent.sql("c", READ).rows(), [[400_000]], "{context}");
                parent.sql("c", &fill(1)).rows();
                parent.sql("c", "COMMIT").rows();
                outsiders[0].sql("c", "INSERT INTO t VALUES (1, 1)").rows();
                parent.close("c");
                assert_eq!(count_and_sum(&board), (1501, 1501), "{context}");
            }
        }
    }
}

/// The child commits what its parent has not committed yet; then the parent is killed, or rolls
/// back. On the stock VFS the parent's unfinished work stays, or part of it.
#[test]
fn a_child_cannot_commit_its_parents_transaction() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            for end in ["killed", "ROLLBACK", "COMMIT"] {
                let context = format!("{mode}, {program:?}, {end}");
                let with = |client: Client| {
                    let board = Board::new();
                    let mut parent = in_a_transaction(&board, mode, program, client);
                    parent.fork();
                    let reply = parent.child_sql("c", "COMMIT");
                    if client == Ours {
                        assert!(reply.clone().message().contains("disk I/O error"), "{context}");
                        assert_eq!(reply.code(), SQLITE_IOERR, "{context}");
                    }
                    parent.end_child();
                    let reply = (end != "killed").then(|| parent.sql("c", end));
                    parent.kill();
                    (reply.is_none_or(|reply| went_well(&reply)), count_and_sum(&board))
                };
                let stock = with(Stock);
                let done = if end == "COMMIT" { (1000, 1000) } else { (500, 0) };
                match (mode, end) {
                    // The journal that could undo it is gone.
                    (_, "killed") => assert_eq!(stock.1, (1000, 1000), "{context}"),
                    ("delete", "COMMIT") => assert!(!stock.0, "{context}"),
                    // The parent still has the journal; nothing was committed behind its back.
                    ("delete", "ROLLBACK") | ("wal", "COMMIT") => {}
                    _ => assert_ne!(stock.1, done, "{context}"),
                }
                assert_eq!(with(Ours), (true, done), "{context}");
            }
        }
    }
}

/// A parent in journal mode PERSIST forks at the beginning of a transaction, and goes on. The child
/// changes the journal mode of the inherited connection, which deletes the journal file by name,
/// and not through the connection. Then the parent is killed. On the stock VFS no journal is left
/// to undo what the parent has written by then.
#[test]
fn a_child_does_not_delete_its_parents_journal() {
    for program in Program::ALL {
        let with = |client: Client| {
            let board = Board::new();
            let mut parent = client.open(program, &board);
            let create = format!("PRAGMA journal_mode=persist; CREATE TABLE t (x, y); {}", fill(0));
            parent.sql("c", &create).rows();
            parent.sql("c", "PRAGMA cache_size=10; BEGIN IMMEDIATE").rows();
            parent.fork();
            parent.sql("c", "UPDATE t SET x = 1").rows();
            let _ = parent.child_sql("c", "PRAGMA journal_mode=delete");
            parent.end_child();
            parent.kill();
            count_and_sum(&board)
        };
        let stock = with(Stock);
        assert_ne!(stock, (500, 0), "{program:?}");
        assert_eq!(with(Ours), (500, 0), "{program:?}");
    }
}

/// The number and the sum of the rows; `None` if the database is damaged.
fn found(board: &Board) -> Option<(i64, i64)> {
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &board.stock(), 60_000);
    let Reply::Rows(check) = newcomer.sql("c", "PRAGMA integrity_check") else { return None };
    let Reply::Rows(rows) = newcomer.sql("c", "SELECT count(*), sum(x) FROM t") else {
        return None;
    };
    (check == [["ok"]]).then_some((rows[0][0].as_i64()?, rows[0][1].as_i64()?))
}

/// The files beside the board, without the sidecar and the event log.
fn files(board: &Board) -> Vec<String> {
    let name =
        |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(board.directory()).unwrap().map(name).collect();
    files.retain(|name| !name.ends_with("-lock") && !name.ends_with("-kanban-log"));
    files.sort();
    files
}

/// A parent has the lock to write when it forks, and has written nothing yet. It writes and
/// commits. Then the child writes through its copy of the connection, which believes that it still
/// has the lock and knows all the pages that it needs. On the stock VFS it gets an error, but the
/// parent's acknowledged commit is undone: the child commits over it, or leaves its journal, which
/// the next client rolls back. Here it opens no journal. The child's own connection to the same
/// board has a journal of the same name, and works. So does that of a child of the child.
#[test]
fn a_child_writes_nothing_by_the_locks_of_its_parent() {
    const BEGIN: [&str; 3] = [
        "BEGIN EXCLUSIVE",
        "PRAGMA synchronous=off; BEGIN IMMEDIATE",
        "PRAGMA locking_mode=exclusive; BEGIN IMMEDIATE",
    ];
    const CHILD: [&str; 4] = [
        "INSERT INTO t VALUES (9, 9)",
        "UPDATE t SET x = 5; ROLLBACK",
        "UPDATE t SET x = 5; COMMIT",
        "PRAGMA journal_mode=truncate; UPDATE t SET x = 5; COMMIT",
    ];
    for mode in ["delete", "persist", "truncate", "memory", "off"] {
        let program = Program::ALL[mode.len() % 2];
        let with = |client: Client, begin: &str, child: &str, generations: usize, ends: &str| {
            let board = Board::new();
            let mut parent = client.open(program, &board);
            let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y)");
            parent.sql("c", &create).rows();
            parent.sql("c", "INSERT INTO t VALUES (0, 0); SELECT * FROM t").rows();
            parent.sql("c", begin).rows();
            parent.fork();
            // A command for a child of a later generation.
            let nested =
                |command: Value| (1..generations).fold(command, |c, _| json!(["child", c]));
            if generations > 1 {
                parent.child(&json!(["fork"])).rows();
            }
            parent.sql("c", "UPDATE t SET x = 1; COMMIT").rows();
            let before = files(&board);
            for sql in child.split("; ") {
                parent.child(&nested(json!(["sql", "c", sql])));
            }
            match ends {
                "killed" if program == Program::Python => parent.kill_child(),
                _ => {
                    if generations > 1 {
                        parent.child(&json!(["end child"])).rows();
                    }
                    parent.end_child();
                }
            }
            let is_clean = files(&board) == before;
            if begin.contains("locking_mode") {
                parent.close("c");
            }
            (is_clean, found(&board))
        };
        let mut undone = 0;
        for begin in BEGIN {
            for child in CHILD {
                let (_, found) = with(Stock, begin, child, 1, "killed");
                undone += usize::from(found != Some((1, 1)));
                for (generations, ends) in [(1, "killed"), (1, "exits"), (2, "exits")] {
                    let context = format!("{mode}, {begin}, {child}, {generations}, {ends}");
                    let found = with(Ours, begin, child, generations, ends);
                    assert_eq!(found, (true, Some((1, 1))), "{context}");
                }
            }
        }
        assert!(undone > 0, "{mode}");

        // Its own connection uses the same names, before, while and after the inherited one is
        // used.
        for begin in BEGIN.into_iter().filter(|begin| !begin.contains("locking_mode")) {
            let board = Board::new();
            let mut parent = Ours.open(program, &board);
            let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y)");
            parent.sql("c", &create).rows();
            parent.sql("c", "INSERT INTO t VALUES (0, 0); SELECT * FROM t").rows();
            parent.sql("c", begin).rows();
            parent.fork();
            parent.sql("c", "UPDATE t SET x = 1; COMMIT").rows();
            parent.child(&json!(["open", "own", board.kanban(), 0])).rows();
            let own = |parent: &mut Agent, sql: &str| parent.child_sql("own", sql).rows();
            own(&mut parent, &format!("PRAGMA journal_mode={mode}; INSERT INTO t VALUES (1, 1)"));
            own(&mut parent, "BEGIN; INSERT INTO t VALUES (1, 1)");
            parent.child_sql("c", "INSERT INTO t VALUES (9, 9)");
            assert!(!went_well(&parent.child_sql("c", "COMMIT")), "{mode}, {begin}");
            own(&mut parent, "INSERT INTO t VALUES (1, 1); COMMIT");
            own(&mut parent, "BEGIN; INSERT INTO t VALUES (9, 9); ROLLBACK");
            parent.child(&json!(["close", "c"])).rows();
            own(&mut parent, "INSERT INTO t VALUES (1, 1)");
            own(&mut parent, "PRAGMA journal_mode=delete");
            assert_eq!(parent.end_child(), 0, "{mode}, {begin}");
            assert_eq!(found(&board), Some((5, 5)), "{mode}, {begin}");
        }
    }
}

/// What else a child can do with what it inherited, in Python. The parent has the board for itself,
/// or is in a transaction, when one of its threads forks, goes on, and then lets the child run. On
/// the stock VFS each of these changes what the parent has had acknowledged, or is about to. Here
/// the child gets an error, and leaves no file behind:
///
/// - a backup into the parent's database, VACUUM, and a plain INSERT, with locks that the child
///   does not have;
/// - an UPDATE after a SAVEPOINT: its journal is a file without a name, which parent and child
///   share, and the parent's ROLLBACK TO uses what the child wrote there;
/// - a COMMIT to two databases, which makes a super-journal.
#[test]
fn a_child_changes_nothing_by_what_it_has_inherited() {
    const SCRIPT: &str = "
import os, sqlite3, sys, threading
extension, vfs, mode, what, directory = sys.argv[1:]
if vfs == 'kanban':
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
    loader.load_extension(extension)
uri = 'file:%s/%s?vfs=%s'
board = sqlite3.connect(uri % (directory, 'board.db', vfs), uri=True, timeout=0, isolation_level=None,
    check_same_thread=False)
def run(*statements):
    for sql in statements: board.execute(sql).fetchall()
def child(act):
    # What the child does, once it may; what it was told.
    may, go = os.pipe()
    pid = []
    def fork():
        pid.append(os.fork())
        if pid[0] == 0:
            os.read(may, 1)
            code = 1
            try: act()
            except sqlite3.OperationalError: code = 0
            finally: os._exit(code)
    thread = threading.Thread(target=fork); thread.start(); thread.join()
    def act():
        os.write(go, b'x')
        return os.waitstatus_to_exitcode(os.waitpid(pid[0], 0)[1])
    return act
run('PRAGMA journal_mode=' + mode, 'CREATE TABLE t (x, y)')
rows = 'WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 2000) INSERT INTO t '
if what == 'savepoint':
    run(rows + 'SELECT 0, zeroblob(400) FROM n', 'PRAGMA cache_size=5000', 'BEGIN EXCLUSIVE')
    run('UPDATE t SET x = 1', 'SAVEPOINT s', 'UPDATE t SET x = 2 WHERE rowid < 1000')
    go = child(lambda: run('UPDATE t SET x = 9 WHERE rowid > 1500'))
    run('UPDATE t SET x = 3 WHERE rowid >= 1000')
    refused = go() == 0
    run('ROLLBACK TO s', 'COMMIT')
elif what in ('several', 'COMMIT'):
    run(rows + 'SELECT 0, 0 FROM n')
    board.execute('ATTACH ? AS o', [uri % (directory, 'other.db', vfs)])
    run('CREATE TABLE o.u (x)', 'INSERT INTO u VALUES (0)', 'SELECT * FROM u', 'SELECT * FROM t')
    run('BEGIN EXCLUSIVE')
    updates = 'UPDATE t SET x = %d', 'UPDATE u SET x = %d', 'COMMIT'
    if what == 'several':
        go = child(lambda: run(*[sql.replace('%d', '9') for sql in updates]))
        run(*[sql.replace('%d', '1') for sql in updates])
        refused = go() == 0
    else:
        run(*[sql.replace('%d', '1') for sql in updates[:2]])
        go = child(lambda: run('COMMIT'))
        refused = go() == 0
        try: run('COMMIT')
        except sqlite3.OperationalError: pass
else:
    run('PRAGMA locking_mode=exclusive', rows + 'SELECT 0, 0 FROM n', 'SELECT * FROM t')
    def act():
        if what != 'backup': return run(what)
        source = sqlite3.connect(':memory:')
        source.executescript('CREATE TABLE u (x); INSERT INTO u VALUES (1)')
        source.backup(board)
    go = child(act)
    run('UPDATE t SET x = 1')
    refused = go() == 0
    try: run('PRAGMA locking_mode=normal', 'UPDATE t SET x = 1')
    except sqlite3.Error as error: pass
board.close()
files = sorted(name for name in os.listdir(directory) if not name.endswith(('.db', '-lock', '-kanban-log')))
board = sqlite3.connect(directory + '/board.db')
try: found = board.execute('SELECT count(*), sum(x) FROM t').fetchall()
except sqlite3.Error as error: found = error
print(refused, found, [name for name in files if not name.endswith(('-wal', '-shm'))], flush=True)
";
    for mode in ["delete", "wal"] {
        for what in
            ["savepoint", "several", "COMMIT", "backup", "VACUUM", "INSERT INTO t VALUES (9, 9)"]
        {
            let with = |vfs: &str| {
                let board = Board::new();
                let mut python = Command::new(PYTHON);
                python.args(["-c", SCRIPT]).arg(extension()).args([vfs, mode, what]);
                python.arg(board.directory());
                Lines::start(python).hear()
            };
            let ours = with("kanban");
            assert_eq!(ours, "True [(2000, 2000)] []", "{mode}, {what}");
            let stock = with("unix");
            let is_undone = stock.starts_with("False") && !stock.contains("[(2000, 2000)]");
            // The stock VFS may be lucky: the child repeats its parent's work, or both write the
            // same places of an exclusive WAL.
            let is_lucky = ["COMMIT", "VACUUM"].contains(&what) || mode == "wal";
            assert!(is_undone || is_lucky, "{mode}, {what}: {stock}");
        }
    }
}

/// A parent has a connection open, but idle. In the child, every call on it answers an error, and
/// the log says why. Nothing that the child does with it, nor its exit, releases a lock of its
/// parent or deletes its WAL. (On the stock VFS neither does, since the child's fcntl cannot
/// release its parent's locks; ours are shared.)
#[test]
fn an_inherited_connection_is_of_no_use() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            for what in ["close", "exit"] {
                let context = format!("{mode}, {program:?}, {what}");
                let board = Board::new();
                let mut parent = Ours.open(program, &board);
                let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y)");
                parent.sql("c", &create).rows();
                parent.open("reader", &board.kanban(), 0);
                parent.sql("reader", "BEGIN; SELECT * FROM t").rows();
                let mut outsiders = [Stock, Ours].map(|kind| kind.open(Program::Rust, &board));
                outsiders[0].sql("c", "SELECT * FROM t").rows();
                parent.fork();
                for sql in [
                    "SELECT * FROM t",
                    "INSERT INTO t VALUES (1, 1)",
                    "BEGIN IMMEDIATE",
                    "BEGIN EXCLUSIVE",
                    "PRAGMA journal_mode=memory; CREATE TABLE u (x)",
                    "VACUUM",
                    "PRAGMA wal_checkpoint(TRUNCATE); SELECT * FROM t",
                ] {
                    let message = parent.child_sql("c", sql).message();
                    assert!(message.contains("disk I/O error"), "{context}: {sql}: {message}");
                }
                if program == Program::Rust {
                    let log = parent.child(&json!(["log"])).rows();
                    let says =
                        |what: &str| log.iter().any(|line| line[0].to_string().contains(what));
                    assert!(says("opened before a fork") && says("board.db"), "{context}: {log:?}");
                }
                child_does(&mut parent, what);
                assert_eq!(parent.end_child(), 0, "{context}");
                // The reader's lock holds: SHARED in rollback modes, its read mark in WAL mode.
                match mode {
                    "delete" => assert_locked(&mut outsiders, &context),
                    _ => {
                        for outsider in &mut outsiders {
                            outsider.sql("c", "INSERT INTO t VALUES (7, 7)").rows();
                            let checkpoint = outsider.sql("c", "PRAGMA wal_checkpoint(TRUNCATE)");
                            assert_eq!(checkpoint.rows()[0][0], 1, "{context}");
                        }
                    }
                }
                for outsider in &mut outsiders {
                    outsider.close("c");
                }
                assert_eq!(beside(&board, "-wal").exists(), mode == "wal", "{context}");
                parent.sql("reader", "COMMIT").rows();
                parent.sql("c", "DELETE FROM t; INSERT INTO t VALUES (2, 2)").rows();
                assert_eq!(count_and_sum(&board), (1, 2), "{context}");
            }
        }
    }
}

/// Every kind of process that forks, with every kind of its child's own connection.
const OWN: [(Client, Client); 3] = [(Ours, Ours), (Ours, StockBesideOurs), (StockBesideOurs, Ours)];

/// A child opens its own connection while its parent is in a transaction. Like any client it is
/// refused until its parent is done; then parent and child take turns. On the stock VFS the child
/// has its parent's book-keeping of locks from the fork: it is refused for ever.
#[test]
fn a_childs_own_connection_is_a_client_like_any_other() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            let with = |parent: Client, own: Client| {
                let context = format!("{mode}, {program:?}, {parent:?}, {own:?}");
                let board = Board::new();
                let insert = |n: i64| format!("BEGIN IMMEDIATE; INSERT INTO t VALUES ({n}, {n})");
                let mut outsider = Stock.open(Program::Rust, &board);
                let mut parent = parent.open(program, &board);
                let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y)");
                parent.sql("c", &create).rows();
                parent.sql("c", &insert(1)).rows();
                parent.fork();
                parent.child(&json!(["open", "own", own.uri(&board), 0])).rows();
                assert_eq!(parent.child_sql("own", &insert(9)).code(), SQLITE_BUSY, "{context}");
                assert_eq!(outsider.sql("c", &insert(9)).code(), SQLITE_BUSY, "{context}");
                parent.sql("c", "COMMIT").rows();
                let reply = parent.child_sql("own", &insert(2));
                if !went_well(&reply) {
                    assert_eq!(reply.code(), SQLITE_BUSY, "{context}");
                    return false;
                }
                // When the child closes what it inherited, it loses no lock of its own.
                parent.child(&json!(["close", "c"])).rows();
                assert_eq!(parent.sql("c", &insert(9)).code(), SQLITE_BUSY, "{context}");
                assert_eq!(outsider.sql("c", &insert(9)).code(), SQLITE_BUSY, "{context}");
                parent.child_sql("own", "COMMIT").rows();
                parent.sql("c", &insert(3)).rows();
                assert_eq!(parent.child_sql("own", &insert(9)).code(), SQLITE_BUSY, "{context}");
                // A child of the child is in the same position.
                parent.child(&json!(["fork"])).rows();
                let grandchild = |command| json!(["child", command]);
                let open = grandchild(json!(["open", "its", own.uri(&board), 0]));
                parent.child(&open).rows();
                let write = grandchild(json!(["sql", "its", insert(4)]));
                assert_eq!(parent.child(&write).code(), SQLITE_BUSY, "{context}");
                parent.sql("c", "COMMIT").rows();
                parent.child(&write).rows();
                assert_eq!(parent.child_sql("own", &insert(9)).code(), SQLITE_BUSY, "{context}");
                assert_eq!(parent.sql("c", &insert(9)).code(), SQLITE_BUSY, "{context}");
                parent.child(&grandchild(json!(["sql", "its", "COMMIT"]))).rows();
                parent.child_sql("own", &insert(5)).rows();
                assert_eq!(parent.child(&json!(["end child"])).rows(), [[0]], "{context}");
                assert_eq!(parent.sql("c", &insert(9)).code(), SQLITE_BUSY, "{context}");
                parent.child_sql("own", "COMMIT").rows();
                parent.sql("c", &insert(6)).rows();
                assert_eq!(parent.end_child(), 0, "{context}");
                assert_eq!(outsider.sql("c", &insert(9)).code(), SQLITE_BUSY, "{context}");
                parent.sql("c", "COMMIT").rows();
                assert_eq!(count_and_sum(&board), (6, 21), "{context}");
                true
            };
            assert!(!with(Stock, Stock), "{mode}, {program:?}");
            for (parent, own) in &OWN[..2] {
                assert!(with(*parent, *own), "{mode}, {program:?}, {parent:?}, {own:?}");
            }
        }
    }
}

/// A parent and its child both read; then the parent has read enough, writes, and in WAL mode
/// copies the WAL into the database. On the stock VFS the child believes that it has its parent's
/// lock, and takes none: what it reads is changed under it.
#[test]
fn a_childs_reader_holds_a_lock_of_its_own() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            let with = |parent: Client, own: Client| {
                let board = Board::new();
                let mut parent = parent.open(program, &board);
                let create =
                    format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y); {}", fill(0));
                parent.sql("c", &create).rows();
                parent.sql("c", "BEGIN; SELECT count(*) FROM t").rows();
                parent.fork();
                parent.child(&json!(["open", "own", own.uri(&board), 0])).rows();
                let half = "BEGIN; SELECT sum(x) FROM t WHERE rowid <= 100";
                assert_eq!(parent.child_sql("own", half).rows(), [[0]]);
                parent.sql("c", "COMMIT").rows();
                let update = parent.sql("c", "UPDATE t SET x = 1");
                let checkpoint = parent.sql("c", "PRAGMA wal_checkpoint(TRUNCATE)").rows();
                let excluded = match mode {
                    "wal" => checkpoint[0][0] == 1,
                    _ => !went_well(&update) && update.code() == SQLITE_BUSY,
                };
                let half = parent.child_sql("own", "SELECT sum(x) FROM t WHERE rowid > 100");
                (excluded, half == Reply::Rows(vec![vec![json!(0)]]))
            };
            assert_eq!(with(Stock, Stock), (false, false), "{mode}, {program:?}");
            for (parent, own) in OWN {
                let context = format!("{mode}, {program:?}, {parent:?}, {own:?}");
                assert_eq!(with(parent, own), (true, true), "{context}");
            }
        }
    }
}

/// A parent waits for the write lock in one thread and forks in another. The child uses what it
/// inherited, and exits. Its parent keeps its place in the queue, ahead of a client that came
/// later. (The stock VFS has no queue.)
#[test]
fn a_waiting_parent_keeps_its_place() {
    let script = "
def wait():
    board = sqlite3.connect(sys.argv[2], uri=True, timeout=60, isolation_level=None)
    print('waits', flush=True)
    board.execute('INSERT INTO t VALUES (1)')
    print('wrote', flush=True)
idle = sqlite3.connect(sys.argv[2], uri=True, timeout=60, isolation_level=None)
idle.execute('SELECT * FROM t').fetchall()
thread = threading.Thread(target=wait)
thread.start()
sys.stdin.readline()
if os.fork() == 0:
    try: idle.execute('INSERT INTO t VALUES (9)'); print('child wrote', flush=True)
    except sqlite3.OperationalError as error: print('inherited:', error, flush=True)
    # As sys.exit, which would wait for the thread that is not there.
    idle.close()
    own = sqlite3.connect(sys.argv[2], uri=True, timeout=0, isolation_level=None)
    try: own.execute('INSERT INTO t VALUES (9)'); print('child wrote', flush=True)
    except sqlite3.OperationalError as error: print('own:', error, flush=True)
    own.close()
    os._exit(0)
os.wait()
print('child has ended', flush=True)
thread.join()
";
    let board = Board::new();
    let observer = connect(&board.kanban());
    observer.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    observer.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    let until_waiting = |n: usize| {
        let began = Instant::now();
        while status(&observer, "/waiters") != n {
            assert!(began.elapsed() < PATIENCE, "{}", status(&observer, "/queue"));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    observer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut parent = Lines::start(python(script, &board));
    assert_eq!(parent.hear(), "waits");
    until_waiting(1);
    parent.say("fork");
    assert_eq!(parent.hear(), "inherited: disk I/O error");
    assert_eq!(parent.hear(), "own: database is locked");
    assert_eq!(parent.hear(), "child has ended");
    assert_eq!(status(&observer, "/queue/0/pid"), parent.pid());
    let mut later = agent(Program::Rust);
    later.open("c", &board.kanban(), 60_000);
    later.send_sql("c", "INSERT INTO t VALUES (2)");
    until_waiting(2);
    assert_eq!(status(&observer, "/queue/0/pid"), parent.pid());
    // Until the first one has waited long enough, newcomers may overtake it.
    std::thread::sleep(Duration::from_millis(20));
    observer.execute_batch("COMMIT").unwrap();
    later.reply().rows();
    assert_eq!(parent.hear(), "wrote");
    assert_eq!(later.sql("c", "SELECT x FROM t").rows(), [[1], [2]]);
}

/// A multiprocessing pool, started by fork in a program that has the database open: each of four
/// workers opens its own connection and writes 50 rows while the parent does. Half-way the parent
/// closes its connection, and opens a new one. On the stock VFS the workers rely on locks that
/// their parent had, and have none of their own. The parent believes that it is alone, and deletes
/// the WAL that they are writing to: half of their rows vanish.
#[test]
fn a_pool_of_workers_loses_nothing() {
    const SCRIPT: &str = "
import multiprocessing, sqlite3, sys
extension, uri, load = sys.argv[1:]
if load == 'load':
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
    loader.load_extension(extension)
    beside = sqlite3.connect(uri.replace('unix', 'kanban'), uri=True)
fork = multiprocessing.get_context('fork')
barrier = fork.Barrier(5, timeout=60)
def connect():
    return sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
def write(board):
    for n in range(25): board.execute('INSERT INTO t VALUES (1)')
def work(n):
    own = connect()
    write(own)
    barrier.wait()
    barrier.wait()
    write(own)
    own.close()
    return 50
board = connect()
board.execute('PRAGMA journal_mode=wal')
board.execute('CREATE TABLE t (x)')
with fork.Pool(4) as pool:
    workers = pool.map_async(work, range(4), 1)
    write(board)
    barrier.wait()
    board.close()
    barrier.wait()
    board = connect()
    write(board)
    acknowledged = 50 + sum(workers.get())
    board.close()
    pool.close()
    pool.join()
print(acknowledged, flush=True)
";
    let with = |vfs: &str, load: &str| {
        let board = Board::new();
        let mut python = Command::new(PYTHON);
        python.args(["-c", SCRIPT]).arg(extension()).args([&board.uri(vfs), load]);
        let acknowledged = Lines::start(python).hear();
        (acknowledged, rows(&board))
    };
    let (acknowledged, rows) = with("unix", "stock");
    assert!(acknowledged == "250" && rows < 200, "{acknowledged} {rows}");
    for vfs in ["kanban", "unix"] {
        assert_eq!(with(vfs, "load"), ("250".to_owned(), 250), "{vfs}");
    }
}

/// How many rows there are.
fn rows(board: &Board) -> i64 {
    let mut newcomer = stock_agent(Program::Rust);
    newcomer.open("c", &board.stock(), 60_000);
    assert_eq!(newcomer.sql("c", "PRAGMA integrity_check").rows(), [["ok"]]);
    newcomer.sql("c", "SELECT count(*) FROM t").rows()[0][0].as_i64().unwrap()
}

/// A stock connection in a process that uses our VFS is guarded as far as its locks go: a child
/// that closes its copy releases nothing. (On the stock VFS it does not either, since a child does
/// not have fcntl's locks. It does have ours, unless care is taken.)
#[test]
fn a_child_frees_no_lock_of_a_stock_connection() {
    for mode in ["delete", "wal"] {
        for program in Program::ALL {
            for what in ["close", "exit", "ROLLBACK"] {
                let context = format!("{mode}, {program:?}, {what}");
                let board = Board::new();
                let mut parent = StockBesideOurs.open(program, &board);
                let create = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x, y)");
                parent.sql("c", &create).rows();
                parent.sql("c", "BEGIN IMMEDIATE").rows();
                let mut outsiders = [Stock, Ours].map(|kind| kind.open(Program::Rust, &board));
                parent.fork();
                child_does(&mut parent, what);
                assert_locked(&mut outsiders, &context);
                assert_eq!(parent.end_child(), 0, "{context}");
                assert_locked(&mut outsiders, &context);
                parent.sql("c", "INSERT INTO t VALUES (1, 1); COMMIT").rows();
                assert_eq!(count_and_sum(&board), (1, 1), "{context}");
            }
        }
    }
}

/// A daemon: the board is open when the process forks, and the child closes every descriptor but
/// the first three, even those of what it inherited. Its own connections, of either kind, are
/// clients like any other. (As on the stock VFS, in rollback modes.)
#[test]
fn a_child_that_closes_all_descriptors_opens_its_own() {
    const SCRIPT: &str = "
import os, sqlite3, sys
extension, load, mode, opened, *own = sys.argv[1:]
if load == 'load':
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
    loader.load_extension(extension)
def connect(uri):
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
board = connect(opened)
board.execute('PRAGMA journal_mode=' + mode)
board.execute('CREATE TABLE t (x)')
board.execute('INSERT INTO t VALUES (1)')
if os.fork() == 0:
    try:
        os.closerange(3, 256)
        for uri in own:
            board = connect(uri)
            board.execute('INSERT INTO t VALUES (2)')
            board.execute('BEGIN IMMEDIATE')
            try: connect(uri).execute('BEGIN IMMEDIATE'); print('no lock', end=' ')
            except sqlite3.OperationalError as error: pass
            board.execute('INSERT INTO t VALUES (3)')
            board.execute('COMMIT')
        print('child wrote', flush=True)
    except sqlite3.OperationalError as error: print('child:', error, flush=True)
    os._exit(0)
os.wait()
board.execute('INSERT INTO t VALUES (4)')
print('parent wrote', flush=True)
";
    for mode in ["delete", "wal"] {
        for (load, opened, own) in [
            ("stock", "unix", &["unix"][..]),
            ("load", "kanban", &["kanban", "unix"]),
            ("load", "kanban", &["unix", "kanban"]),
        ] {
            if mode == "wal" && load == "stock" {
                // It tries for ten seconds, and then gives up.
                continue;
            }
            let context = format!("{mode}, {load}, {opened}, {own:?}");
            let board = Board::new();
            let mut python = Command::new(PYTHON);
            python.args(["-c", SCRIPT]).arg(extension()).args([load, mode, &board.uri(opened)]);
            python.args(own.iter().map(|vfs| board.uri(vfs)));
            let mut parent = Lines::start(python);
            assert_eq!(parent.hear(), "child wrote", "{context}");
            assert_eq!(parent.hear(), "parent wrote", "{context}");
            assert_eq!(rows(&board), 2 + 2 * own.len() as i64, "{context}");
        }
    }
}

/// A gateway has two connections to a board in WAL mode and closes one. SQLite, which has locks on
/// the file, keeps that connection's descriptor for the next one. After a fork, the next one is a
/// child's. It must not get the descriptor that its parent opened, by which it cannot lock. It must
/// get a descriptor of its own, and be a client like any other.
#[test]
fn a_child_takes_over_no_descriptor_that_its_parent_left() {
    const SCRIPT: &str = "
import os, sqlite3, sys
extension, mode, opened, own = sys.argv[1:]
loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)
loader.load_extension(extension)
def connect(uri):
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
board = connect(opened)
board.execute('PRAGMA journal_mode=' + mode)
board.execute('CREATE TABLE t (x)')
left = connect(opened)
left.execute('INSERT INTO t VALUES (1)')
# In WAL mode there are locks on the file all the time, else in a transaction.
board.execute('BEGIN')
board.execute('SELECT * FROM t').fetchall()
left.close()
if os.fork() == 0:
    try:
        mine = connect(own)
        assert mine.execute('SELECT count(*) FROM t').fetchone() == (1,)
        mine.execute('BEGIN IMMEDIATE')
        try: connect(own).execute('BEGIN IMMEDIATE'); print('no lock', end=' ')
        except sqlite3.OperationalError as error: pass
        mine.execute('INSERT INTO t VALUES (2)')
        # In rollback modes the parent's read transaction is in the way of a commit.
        mine.execute('COMMIT' if mode == 'wal' else 'ROLLBACK')
        print('child wrote', flush=True)
    except sqlite3.OperationalError as error: print('child:', error, flush=True)
    os._exit(0)
os.wait()
board.execute('COMMIT')
board.execute('INSERT INTO t VALUES (3)')
print('parent wrote', flush=True)
";
    for mode in ["wal", "delete"] {
        for opened in ["kanban", "unix"] {
            for own in ["kanban", "unix"] {
                let board = Board::new();
                let mut python = Command::new(PYTHON);
                python.args(["-c", SCRIPT]).arg(extension()).arg(mode);
                python.args([board.uri(opened), board.uri(own)]);
                let mut parent = Lines::start(python);
                let context = format!("{mode}, {opened}, {own}");
                assert_eq!(parent.hear(), "child wrote", "{context}");
                assert_eq!(parent.hear(), "parent wrote", "{context}");
            }
        }
    }
}

/// The base `unix-excl` has the wal-index in the heap, among everything else. A child's heap must
/// stay intact, like its parent's. Other memory in place of the index would also replace what is
/// beside the index, and some children would die of that. The children close what they inherited,
/// use their memory, and end well, and the parent goes on.
#[test]
fn no_child_dies_of_an_index_in_the_heap() {
    let script = "
def pieces():
    with open('/proc/self/maps') as maps: return sum('[heap]' in line for line in maps)
def connect(n):
    uri = sys.argv[2].replace('board.db', '%d.db' % n)
    board = sqlite3.connect(uri, uri=True, isolation_level=None)
    board.execute('PRAGMA journal_mode=wal')
    board.execute('CREATE TABLE t (x)')
    return board
always = connect(0)
assert pieces() == 1
split = died = 0
for n in range(1, 11):
    board = connect(n)
    beside = bytes(4000 * n)
    if os.fork() == 0:
        code = 1 if pieces() != 1 else 0
        used = [os.urandom(900) for n in range(3000)]
        del used
        used = [bytes(40000) for n in range(50)]
        del used
        try: board.close()
        except sqlite3.Error: pass
        os._exit(code)
    status = os.wait()[1]
    died += os.WIFSIGNALED(status)
    split += not os.WIFSIGNALED(status) and os.WEXITSTATUS(status)
for board in [always, board]:
    board.execute('INSERT INTO t VALUES (1)')
    assert board.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
print(died, 'died,', split, 'split', flush=True)
";
    let board = Board::new();
    let mut command = python(script, &board);
    command.env("KANBAN_BASE_VFS", "unix-excl");
    assert_eq!(Lines::start(command).hear(), "0 died, 0 split");
}

/// A thread of a gateway leads a sync that others may wait for, inside its COMMIT, when another
/// thread forks. The child has no part in that. Connections that it inherited answer errors, and
/// its own connection commits, with a sync of its own. Nor does the child's end, however sudden,
/// end the parent's lead. The parent's COMMIT returns when its own sync has. (The child does not
/// touch the connection that commits: on every VFS, it would wait for the thread that uses it.)
#[test]
fn a_child_neither_confirms_nor_disturbs_a_commit_that_waits() {
    let board = Board::new();
    let uri = format!("{}&kanban_group_commit=1", board.kanban());
    connect(&uri).execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    let leaders_byte = || {
        let sidecar = std::fs::File::open(board.sidecar()).unwrap();
        vfs_tests::sidecar::is_locked(&sidecar, 8190)
    };
    let frames = || {
        let sidecar = std::fs::read(board.sidecar()).unwrap();
        u32::from_le_bytes(sidecar[48..52].try_into().unwrap())
    };
    let full = "PRAGMA synchronous=full; INSERT INTO t VALUES (1)";
    for (library, n) in [(Library::Debian, 0), (Library::Newest, 1)] {
        let mut parent = pause::agent(library);
        for name in ["c", "idle"] {
            parent.open(name, &uri, 60_000);
            parent.sql(name, full).rows();
        }
        let (stops, durable) = (Stops::new(), frames());
        let at = At { method: "xSync", file: "wal", n: 1 };
        let leads = stops.begin(&mut parent, "c", "INSERT INTO t VALUES (2)", at).unwrap();
        assert!(leaders_byte());
        parent.fork();
        assert_eq!(parent.child_sql("idle", "INSERT INTO t VALUES (3)").code(), SQLITE_IOERR);
        parent.child(&json!(["close", "idle"]));
        parent.child(&json!(["open", "own", uri, 60_000])).rows();
        parent.child_sql("own", full).rows();
        assert!(leaders_byte());
        parent.child_sql("own", "INSERT INTO t VALUES (1)").rows();
        parent.child(&json!(["close", "own"])).rows();
        assert_eq!((leaders_byte(), frames()), (true, durable));
        parent.kill_child();
        assert_eq!((leaders_byte(), frames()), (true, durable));
        // Another client's commit waits for it no longer than for any leader.
        parent.sql("idle", "INSERT INTO t VALUES (1)").rows();
        drop(leads);
        parent.call(&json!(["end", "c"])).rows();
        assert!(!leaders_byte() && frames() > durable);
        let count = parent.sql("c", "SELECT count(*), sum(x) FROM t").rows();
        assert_eq!(count, [[6 * (n + 1), 7 * (n + 1)]]);
    }
}

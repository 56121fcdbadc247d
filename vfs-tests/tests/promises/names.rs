//! Names that collide with the sidecar's, `<database>-lock`. An application calls its databases `tasks` and `tasks-lock`, or
//! has its own lock file of that name. On the stock VFS that has no effect. Here the database that cannot have its sidecar is
//! written as by a stock client, the status and the log say so, and the other file is not touched.

use std::path::{Path, PathBuf};

use vfs_tests::{Agent, Board, PYTHON, Program, extension, run, uri_of};

use crate::{agent, status_of, stock_agent};

const NAMES: [&str; 3] = ["tasks", "tasks-lock", "tasks-lock-lock"];

/// All orders of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn path_of(board: &Board, nth: usize) -> PathBuf {
    board.directory().join(NAMES[nth])
}

/// The processes that have the databases open: one for all, or one for each.
struct Processes(Vec<Agent>);

impl Processes {
    fn start(n: usize, vfs: &str) -> Self {
        let start = if vfs == "kanban" { agent } else { stock_agent };
        Self((0..n).map(|n| start(Program::ALL[n % 2])).collect())
    }

    fn of(&mut self, nth: usize) -> &mut Agent {
        let n = self.0.len();
        &mut self.0[nth % n]
    }
}

/// The databases are opened in some order before any has content, created in the opposite order, and written at the same time:
/// by one process, or by one for each. Returns what they hold at the end, and which of them have the write lock according to
/// their status while they are written.
fn filled(order: [usize; 3], processes: usize, vfs: &str, mode: &str) -> (Vec<String>, Vec<usize>) {
    let board = Board::new();
    let mut processes = Processes::start(processes, vfs);
    for nth in order {
        processes.of(nth).open(NAMES[nth], &uri_of(&path_of(&board, nth), vfs), 5000);
    }
    for nth in order.into_iter().rev() {
        let make = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x)");
        processes.of(nth).sql(NAMES[nth], &make).rows();
    }
    let mut queue = Vec::new();
    for nth in order {
        let insert = format!("BEGIN IMMEDIATE; INSERT INTO t VALUES ('{}')", NAMES[nth]);
        processes.of(nth).sql(NAMES[nth], &insert).rows();
        if vfs == "kanban" {
            let field = "/guarantees/write_lock/active";
            if status_of(processes.of(nth), NAMES[nth], field) == true {
                queue.push(nth);
            }
        }
    }
    for nth in order {
        processes.of(nth).sql(NAMES[nth], "COMMIT").rows();
    }
    let mut found = Vec::new();
    for (nth, name) in NAMES.iter().enumerate() {
        let rows = processes.of(nth).sql(name, "PRAGMA integrity_check; SELECT x FROM t").rows();
        found.push(format!("{rows:?}"));
        processes.of(nth).close(name);
    }
    queue.sort_unstable();
    (found, queue)
}

/// Databases that have the names of each other's sidecars.
#[test]
fn databases_named_like_sidecars_are_databases() {
    for order in ORDERS {
        for processes in [1, 3] {
            for mode in ["delete", "wal"] {
                let context = format!("{order:?}, {processes} processes, {mode}");
                let (stock, _) = filled(order, processes, "unix", mode);
                let (ours, queue) = filled(order, processes, "kanban", mode);
                assert_eq!(ours, stock, "{context}");
                assert_eq!(queue, [2], "the others have no sidecar: {context}");
            }
        }
    }
}

/// `tasks` is in use, and has its sidecar. Then somebody opens `tasks-lock`, which becomes a database. Clients that have the
/// sidecar open by then go on, and both databases are whole. When `tasks-lock` is gone, `tasks` has a sidecar again.
#[test]
fn a_sidecar_makes_way_for_a_database() {
    for program in Program::ALL {
        let board = Board::new();
        let [tasks, named] = [0, 1].map(|nth| path_of(&board, nth));
        let mut worker = agent(program);
        worker.open("c", &uri_of(&tasks, "kanban"), 5000);
        worker.sql("c", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
        worker.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
        assert_eq!(std::fs::read(&named).unwrap()[..10], *b"kanban-vfs");

        let mut other = agent(Program::Rust);
        other.open("c", &uri_of(&named, "kanban"), 5000);
        other.sql("c", "CREATE TABLE t (x); INSERT INTO t VALUES (2)").rows();
        worker.sql("c", "COMMIT").rows();
        let field = "/guarantees/write_lock/active";
        let began = std::time::Instant::now();
        loop {
            worker.sql("c", "INSERT INTO t VALUES (3)").rows();
            other.sql("c", "INSERT INTO t VALUES (3)").rows();
            if status_of(&mut worker, "c", field) == false {
                break;
            }
            assert!(began.elapsed() < vfs_tests::PATIENCE, "it believes that it has a sidecar");
        }
        for client in [&mut worker, &mut other] {
            let check = "PRAGMA integrity_check; SELECT count(DISTINCT x) FROM t";
            assert_eq!(format!("{:?}", client.sql("c", check).rows()), WHOLE);
        }
        other.close("c");
        std::fs::remove_file(&named).unwrap();
        let began = std::time::Instant::now();
        while status_of(&mut worker, "c", field) == false {
            worker.sql("c", "INSERT INTO t VALUES (4)").rows();
            assert!(began.elapsed() < vfs_tests::PATIENCE, "it makes no sidecar");
        }
    }
}

const WHOLE: &str = "[[String(\"ok\")], [Number(2)]]";

/// What a program prints that has locked its own file with the sidecar's name, has used its board, and checks whether another
/// process can lock that file now.
fn locks_its_own_file(vfs: &str, content: &str) -> String {
    const PROGRAM: &str = "
import fcntl, os, sqlite3, subprocess, sys
path, uri, extension, content = sys.argv[1:]
own = open(path + '-lock', 'w+'); own.write(content); own.flush(); fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
if extension:
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True); loader.load_extension(extension)
board = sqlite3.connect(uri, uri=True, isolation_level=None)
board.execute('CREATE TABLE t (x)'); board.execute('INSERT INTO t VALUES (1)')
if extension: board.execute('PRAGMA kanban_status').fetchall()
OTHER = '''
import fcntl, sys
try: fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('got in')
except OSError: print('was refused')
'''
print(subprocess.run([sys.executable, '-c', OTHER, path + '-lock'], capture_output=True, text=True).stdout.strip())
print(os.path.getsize(path + '-lock'))
";
    let board = Board::new();
    let extension = if vfs == "kanban" { extension() } else { Path::new("") };
    let [path, extension] =
        [&board.path(), extension].map(|path| path.to_str().unwrap().to_owned());
    run(PYTHON, &["-c", PROGRAM, &path, &board.uri(vfs), &extension, content])
}

/// A program has its own lock file with the sidecar's name, which has its process id in it or is empty, and has locked it by
/// lockf(3). It keeps that lock, which closing any descriptor of the file would drop.
#[test]
fn a_lock_file_of_the_programs_own_stays_locked() {
    for content in ["1234", ""] {
        let stock = locks_its_own_file("unix", content);
        assert_eq!(stock, format!("was refused\n{}\n", content.len()));
        assert_eq!(locks_its_own_file("kanban", content), stock, "{content:?}");
    }
}

/// A program opens, writes and closes one board after another, each beside a file with the name of its sidecar. Returns how
/// many descriptors it has after ten boards and after sixty. Also what another program prints that wants to write to such a
/// file, if that is a database in which the first program, on the stock VFS, is in the middle of a transaction.
fn uses_many_boards(vfs: &str, kind: &str) -> (Vec<i32>, String) {
    const PROGRAM: &str = "
import os, sqlite3, subprocess, sys
directory, vfs, extension, kind = sys.argv[1:]
if extension:
    loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True); loader.load_extension(extension); loader.close()
def connect(path, vfs): return sqlite3.connect(f'file:{path}?vfs={vfs}', uri=True, isolation_level=None)
OTHER = '''
import sqlite3, sys
try: sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE'); print('got in')
except sqlite3.Error as error: print(error)
'''
told = set()
for n in range(60):
    path = f'{directory}/{n}.db'
    if kind == 'text':
        with open(path + '-lock', 'w') as own: own.write('1234')
    else:
        own = connect(path + '-lock', 'unix')
        own.execute('PRAGMA page_size=512'); own.execute('CREATE TABLE t (x)')
    if kind == 'closed': own.close()
    if kind == 'in use': own.execute('BEGIN IMMEDIATE')
    board = connect(path, vfs)
    board.execute('CREATE TABLE t (x)'); board.execute('INSERT INTO t VALUES (1)')
    if extension: board.execute('PRAGMA kanban_status').fetchall()
    board.close()
    if kind == 'idle': own.execute('BEGIN IMMEDIATE')
    if kind in ('idle', 'in use'):
        if n % 10 == 0:
            told.add(subprocess.run([sys.executable, '-c', OTHER, path + '-lock'], capture_output=True, text=True).stdout.strip())
        own.close()
    if n in (9, 59): print(len(os.listdir('/proc/self/fd')))
print(*told)
";
    let board = Board::new();
    let extension = if vfs == "kanban" { extension() } else { Path::new("") };
    let [directory, extension] =
        [&board.directory(), extension].map(|path| path.to_str().unwrap().to_owned());
    let said = run(PYTHON, &["-c", PROGRAM, &directory, vfs, &extension, kind]);
    let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
    let told = if lines.len() > 2 { lines.pop().unwrap() } else { String::new() };
    (lines.iter().map(|line| line.parse().unwrap()).collect(), told)
}

/// Another tool has left its lock files beside the boards. Or they are databases, of the program itself or not. The program
/// closes what it opens, so that it does not reach its limit of descriptors; but it loses no lock.
#[test]
fn files_by_the_sidecars_name_leave_no_descriptor() {
    for kind in ["text", "closed", "idle", "in use"] {
        let (stock, told) = uses_many_boards("unix", kind);
        assert_eq!(stock[0], stock[1], "{kind}");
        assert!(told == "database is locked" || told.is_empty(), "{kind}: {told}");
        let (ours, ours_told) = uses_many_boards("kanban", kind);
        assert_eq!(ours_told, told, "{kind}");
        // Some files that the program has closed by now are looked at only when more have come.
        let some = if ["idle", "in use"].contains(&kind) { 8 } else { 0 };
        assert!(ours.iter().all(|n| *n <= stock[0] + some), "{kind}: {ours:?}, stock {stock:?}");
    }
}

/// A stock client has begun to make the database `tasks-lock`, which is still empty, when another client writes to `tasks`.
#[test]
fn a_database_that_a_stock_client_begins_is_no_sidecar() {
    let used = |vfs: &str| {
        let board = Board::new();
        let [tasks, named] = [0, 1].map(|nth| path_of(&board, nth));
        let mut stock = stock_agent(Program::Rust);
        stock.open("c", &uri_of(&named, "unix"), 0);
        stock.sql("c", "BEGIN IMMEDIATE").rows();
        let mut other = Processes::start(1, vfs);
        other.of(0).open("c", &uri_of(&tasks, vfs), 100);
        other.of(0).sql("c", "CREATE TABLE t (x); INSERT INTO t VALUES (1)").rows();
        assert_eq!(named.metadata().unwrap().len(), 0, "{vfs}");
        stock.sql("c", "CREATE TABLE t (x); INSERT INTO t VALUES (2); COMMIT").rows();
        for (client, x) in [(other.of(0), 1), (&mut stock, 2)] {
            let rows = client.sql("c", "PRAGMA integrity_check; SELECT x FROM t").rows();
            assert_eq!(format!("{rows:?}"), format!("[[String(\"ok\")], [Number({x})]]"), "{vfs}");
        }
    };
    used("unix");
    used("kanban");
}

//! A program reports "database is locked" or "unable to open database file". SQLite's error log, where the VFS says why, goes
//! nowhere. `KANBAN_LOG` sends its lines to a file or to standard error, and `PRAGMA kanban_last_error` answers the last line
//! of a connection.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use vfs_tests::{Agent, Board, PYTHON, Program, extension};

/// Runs a program in Python with the extension as its first argument. Returns its output and its errors.
fn python(program: &str, arguments: &[&Path], variables: &[(&str, &str)]) -> (String, String) {
    let mut python = Command::new("timeout");
    python.args(["100", PYTHON, "-c", program]).arg(extension()).args(arguments);
    for name in std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("KANBAN_")) {
        python.env_remove(name);
    }
    let output = python.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{output:?}");
    (text(&output.stdout), text(&output.stderr))
}

/// The time, process, code and rest of each line; every line is whole.
fn lines(text: &str) -> Vec<(&str, &str, &str)> {
    let parse = |line| {
        let (time, rest) = str::split_once(line, " process ").expect(line);
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{line}");
        let (process, rest) = rest.split_once(" SQLITE_").expect(line);
        let (code, rest) = rest.split_once(')').expect(line);
        (process, code, rest.trim_start_matches([':', ' ']))
    };
    text.lines().map(parse).collect()
}

/// A connection waits in vain for a holder. Its program gets "database is locked"; the log names the board, the holder and the
/// remedy, and so does the connection's own last line. Another connection, which was never refused, has none.
#[test]
fn a_refusal_has_its_reason() {
    let board = Board::new();
    let log = board.directory().join("log");
    let variables = [("KANBAN_LOG", log.to_str().unwrap())];
    let start = || Agent::start_in(Program::Python, "", Path::new("/"), &variables);
    let (mut holder, mut waiter) = (start(), start());
    holder.open("c", &board.kanban(), 0);
    waiter.open("c", &board.kanban(), 50);
    waiter.open("other", &board.kanban(), 50);
    holder.sql("c", "CREATE TABLE tasks (n INTEGER)").rows();
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(waiter.sql("c", "PRAGMA kanban_last_error").rows(), Vec::<Vec<Value>>::new());
    let said = waiter.sql("c", "BEGIN IMMEDIATE").message();
    assert_eq!(said, "database is locked");

    let text = std::fs::read_to_string(&log).unwrap();
    let (process, code, rest) = lines(&text)[0];
    let path = board.path();
    assert!(process.starts_with(&format!("{} (python3", waiter.pid())), "{process}");
    assert_eq!(code, "BUSY (5");
    assert!(rest.starts_with(path.to_str().unwrap()), "{rest}");
    let cause = format!("process {} (python3", holder.pid());
    assert!(
        rest.contains(&cause) && rest.contains("end its transaction, or wait longer"),
        "{rest}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");

    let own = waiter.sql("c", "PRAGMA kanban_last_error").rows();
    assert_eq!(own, [[text.trim_end()]].map(|row| row.map(Value::from).to_vec()).to_vec());
    assert_eq!(waiter.sql("other", "PRAGMA kanban_last_error").rows(), Vec::<Vec<Value>>::new());
}

/// In each of four processes, which share a log, two hundred opens fail at once. The log gets some lines per second, each
/// whole, and how many were left out.
#[test]
fn a_flood_is_bounded_and_each_line_is_whole() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let program = "
import os, sqlite3, sys, time
sqlite3_ = sqlite3.connect(':memory:')
sqlite3_.enable_load_extension(True)
sqlite3_.load_extension(sys.argv[1])
def fails(n):
    try:
        sqlite3.connect(f'file:{sys.argv[2]}/{n}.db?vfs=kanban&kanban_no_such=1', uri=True)
    except sqlite3.OperationalError:
        return
    raise SystemExit('it opened')
for n in range(200):
    fails(n)
before = time.monotonic()
while int(time.monotonic()) == int(before):
    time.sleep(0.01)
fails(200)
print(int(time.monotonic()) - int(before) + 2)
";
    let variables = [("KANBAN_LOG", log.to_str().unwrap())];
    std::thread::scope(|scope| {
        let run = || python(program, &[place.path()], &variables);
        let all: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        all.into_iter().for_each(|one| assert_eq!(one.join().unwrap().1, ""));
    });
    let text = std::fs::read_to_string(&log).unwrap();
    let all = lines(&text);
    assert!(all.len() < 4 * 200, "{}", all.len());
    let left_out: Vec<_> = all.iter().filter(|(.., rest)| rest.contains("were left out")).collect();
    assert!(left_out.len() >= 4, "{text}");
    let is_failure = |(_, code, rest): &&(&str, &str, &str)| {
        *code == "CANTOPEN (14" && rest.contains("kanban_no_such")
    };
    assert_eq!(all.iter().filter(is_failure).count() + left_out.len(), all.len(), "{text}");
    // The lines that were written and those that were left out are all lines.
    let counted = left_out.iter().map(|(.., rest)| {
        let count: usize = rest.split(' ').next().unwrap().parse().expect(rest);
        count
    });
    let counted: usize = counted.sum();
    assert_eq!(all.iter().filter(is_failure).count() + counted, 4 * 201, "{text}");
}

/// Lines can go to standard error, too. If the file cannot be written, they go to standard error instead: the first line says
/// why, and the database is still opened.
#[test]
fn lines_can_go_to_standard_error() {
    let place = tempfile::tempdir().unwrap();
    let program = "
import sqlite3, sys
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
sqlite3.connect(f'file:{sys.argv[2]}/x.db?vfs=kanban', uri=True)
try:
    sqlite3.connect(f'file:{sys.argv[2]}/x.db?vfs=kanban&kanban_no_such=1', uri=True)
except sqlite3.OperationalError as error:
    print(error)
";
    let nowhere = place.path().join("no/such/place");
    for (value, said) in [("stderr", 1), (nowhere.to_str().unwrap(), 2)] {
        let (out, errors) = python(program, &[place.path()], &[("KANBAN_LOG", value)]);
        assert!(out.contains("kanban_no_such"), "{out}");
        let all = lines(&errors);
        assert_eq!(all.len(), said, "{errors}");
        assert!(all[said - 1].2.contains("kanban_no_such"), "{errors}");
        assert!(said == 1 || all[0].2.contains("KANBAN_LOG cannot be written"), "{errors}");
    }
    assert_eq!(python(program, &[place.path()], &[]).1, "");
}

/// The file for lines can no longer be written, since the process has dropped its rights. Or it becomes a database. From then
/// on lines go to standard error, where the reason appears once. The database stays whole.
#[test]
fn lines_are_not_lost_with_their_file() {
    let program = "
import os, sqlite3, sys
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
def fails():
    try: sqlite3.connect('file:x.db?vfs=kanban&kanban_no_such=1', uri=True)
    except sqlite3.OperationalError: pass
fails()
log = os.environ['KANBAN_LOG']
if sys.argv[2] == 'rights':
    os.chdir('/') # The sources may lie where only their owner may look.
    os.setuid(65534)
elif sys.argv[2] == 'directory':
    os.remove(log)
    os.mkdir(log)
else:
    os.truncate(log, 0)
    board = sqlite3.connect(log, isolation_level=None)
    board.execute('CREATE TABLE t (x)')
for n in range(3):
    fails()
if sys.argv[2] == 'database':
    print(board.execute('PRAGMA integrity_check').fetchall(), b'kanban_no_such' in open(log, 'rb').read())
";
    for how in ["database", "directory", "rights"] {
        if how == "rights" && !vfs_tests::is_root() {
            continue;
        }
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let variables = [("KANBAN_LOG", log.to_str().unwrap())];
        let (out, errors) = python(program, &[Path::new(how)], &variables);
        let all = lines(&errors);
        assert_eq!(all.len(), 4, "{how}: {errors}");
        assert!(all[0].2.contains("KANBAN_LOG cannot be written"), "{how}: {errors}");
        assert!(all[1..].iter().all(|line| line.2.contains("kanban_no_such")), "{errors}");
        let expected = if how == "database" { "[('ok',)] False\n" } else { "" };
        assert_eq!(out, expected, "{how}");
    }
}

/// A variable is misspelt, which nobody would notice. The log says so, once per process, and names the known variables. If the
/// destination for lines is invalid, the load fails with the variable's name.
#[test]
fn a_wrong_variable_is_named() {
    let board = Board::new();
    let program = "
import sqlite3, sys
for n in range(3):
    loader = sqlite3.connect(':memory:')
    loader.enable_load_extension(True)
    try: loader.load_extension(sys.argv[1])
    except sqlite3.OperationalError as error: print(error)
board = sqlite3.connect(sys.argv[2])
board.execute('CREATE TABLE IF NOT EXISTS t (x)')
";
    let variables =
        [("KANBAN_LOG", "stderr"), ("KANBAN_BUSY_TIMEOT", "5"), ("KANBAN_PERSIST_WAL", "0")];
    let (out, errors) = python(program, &[&board.path()], &variables);
    let all = lines(&errors);
    assert_eq!((out.as_str(), all.len()), ("", 1), "{errors}");
    assert!(
        all[0].2.starts_with("unknown KANBAN_BUSY_TIMEOT; known: KANBAN_BASE_VFS, "),
        "{errors}"
    );
    let before = std::fs::read(board.path()).unwrap();
    for (value, why) in
        [("", "KANBAN_LOG: is empty"), (board.path().to_str().unwrap(), "is a database")]
    {
        let (out, _) = python(program, &[&board.path()], &[("KANBAN_LOG", value)]);
        assert!(out.lines().count() == 3 && out.contains(why), "{out}");
    }
    assert_eq!(std::fs::read(board.path()).unwrap(), before);
}

/// A process logs a line and forks: its child's lines have the child's process id.
#[test]
fn a_child_is_heard() {
    let place = tempfile::tempdir().unwrap();
    let program = "
import os, sqlite3, sys
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
def fails():
    try: sqlite3.connect(f'file:{sys.argv[2]}/x.db?vfs=kanban&kanban_no_such=1', uri=True)
    except sqlite3.OperationalError: pass
    print(os.getpid(), flush=True)
fails()
child = os.fork()
if child == 0:
    fails()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
";
    let (out, errors) = python(program, &[place.path()], &[("KANBAN_LOG", "stderr")]);
    let pid = |(process, ..): &(&str, &str, &str)| process.split(' ').next().unwrap().to_owned();
    let said: Vec<_> = lines(&errors).iter().map(pid).collect();
    assert_eq!(said, out.lines().collect::<Vec<_>>());
    assert_ne!(said[0], said[1]);
}

//! A forked child shares its parent's locks; it must not be able to free or to keep them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vfs_tests::sidecar::holder;
use vfs_tests::{Board, PYTHON, extension};

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
/// inherited, the parent's write lock stands; the child says what it was told.
#[test]
fn a_child_can_not_free_its_parents_lock() {
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
    let mut parent =
        python(script, &board).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = parent.id();
    let mut output = std::io::BufReader::new(parent.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        line
    };
    assert_eq!(line(), "inherited: disk I/O error\n");
    assert_eq!(line(), "child: database is locked\n");
    assert_eq!(line(), "parent waits\n");
    assert_eq!(holder(&board.sidecar()), Some(pid), "the parent's lock stands");
    drop(parent.stdin.take());
    assert_eq!(line(), "1\n");
    parent.wait().unwrap();
}

/// A parent with the write lock is killed while a child of it lives on. The kernel keeps a lock as
/// long as anybody has its open file description: without care, as long as the child lives.
#[test]
fn a_child_does_not_keep_a_dead_parents_lock() {
    let board = Board::new();
    let script = "
board = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None)
board.execute('CREATE TABLE t (x)')
board.execute('BEGIN IMMEDIATE')
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
";
    let output = python(script, &board)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut parent| {
            let mut line = String::new();
            let output = parent.stdout.take().expect("piped");
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
            parent.wait()?;
            Ok(line)
        })
        .unwrap();
    let child: i32 = output.trim().parse().unwrap();
    // The child gives up what it inherited as soon as it runs, and lives on for a minute.
    let killed = Instant::now();
    while holder(&board.sidecar()).is_some() && killed.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let held = holder(&board.sidecar());
    // SAFETY: it only sends a signal, to the child that the script made.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "the child lived on");
    assert_eq!(held, None);
}

/// A process whose threads open and close boards all the time forks; the child uses SQLite, and must
/// not find a lock that a thread it does not have has taken.
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
    let mut child = python(script, &board).stdout(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > vfs_tests::PATIENCE {
            child.kill().unwrap();
            panic!("a child hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = child.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&said), "all children have ended\n");
}

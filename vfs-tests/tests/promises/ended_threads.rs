//! A service ends its worker threads from outside: by pthread_cancel(3), or from a signal handler. One of them is waiting for
//! the write lock, or opens, commits or closes. On the stock VFS that thread ends and the process lives on. It must here, too,
//! and a thread that only waited must not be in others' way. The C library ends a thread by unwinding its stack, and Rust's
//! catch_unwind ends the process when it meets that.

use std::process::Command;

use vfs_tests::{Board, extension};

/// What the service prints for `moment` and `means`, and its exit status.
fn told(sqlite: &str, loads: bool, vfs: &str, mode: &str, means: &str, moment: &str) -> String {
    let board = Board::new();
    let directory = board.directory();
    let extension = if loads { extension().to_str().unwrap() } else { "-" };
    let arguments = [sqlite, extension, directory.to_str().unwrap(), vfs, mode, means, moment];
    let mut service = Command::new(env!("ENDED_THREADS"));
    let output = service.args(arguments).output().unwrap();
    let (said, errors) = (output.stdout, output.stderr);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}, {}{}", output.status, text(&said), text(&errors))
}

/// Compares the service with the stock VFS, with both VFSes, and with ours.
fn compared(means: &str, moment: &str, expected: &str) {
    for sqlite in ["libsqlite3.so.0", env!("NEWEST_SQLITE")] {
        for mode in ["wal", "delete"] {
            let stock = told(sqlite, false, "unix", mode, means, moment);
            assert_eq!(stock, expected, "{sqlite}, {mode}");
            for vfs in ["unix", "kanban"] {
                let ours = told(sqlite, true, vfs, mode, means, moment);
                assert_eq!(ours, stock, "{sqlite}, {mode}, loaded, {vfs}");
            }
        }
    }
}

/// The worker waits for the write lock when it is cancelled.
#[test]
fn a_thread_is_cancelled_while_it_waits() {
    let expected = "exit status: 0, the thread was ended, others write: 0, elsewhere: 0";
    compared("pthread_cancel", "waits", expected);
}

/// The cancellation is requested before the worker opens the database, commits or closes: reads, writes and syncs are
/// cancellation points, and so are open(2) and close(2).
#[test]
fn a_thread_is_cancelled_while_it_works() {
    let expected = "exit status: 0, the thread was ended, elsewhere: 0";
    for moment in ["opens", "commits", "closes"] {
        compared("pthread_cancel", moment, expected);
    }
}

/// A signal handler jumps out of the wait, like handlers that limit a time by alarm(2). Afterwards the thread can be cancelled
/// as before.
#[test]
fn a_signal_handler_jumps_out_of_a_wait() {
    let expected =
        "exit status: 0, the thread came back, can be cancelled, others write: 0, elsewhere: 0";
    compared("longjmp", "waits", expected);
}

/// A signal handler ends the program by exit(3) in the middle of a wait, which closes what is open.
#[test]
fn a_signal_handler_exits_in_a_wait() {
    compared("exit", "waits", "exit status: 0, exits");
}

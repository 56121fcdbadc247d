//! An operator asks who holds a stuck board up.

use std::process::Command;

use serde_json::{Value, json};

use vfs_tests::{is_root, run};

use crate::{TOOL, as_nobody, beside, board, client, holder_and_waiter, json, outcome, until};

fn pids(status: &Value) -> Vec<u64> {
    status["queue"].as_array().unwrap().iter().map(|one| one["pid"].as_u64().unwrap()).collect()
}

/// One process has begun a transaction, three more wait for it, in an order that is known: each began
/// when the one before it was seen in the queue.
#[test]
fn it_names_the_holder_and_the_waiters_in_order() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let mut waiters = Vec::new();
    for n in 1..=3 {
        let mut waiter = client(&board, "kanban");
        waiter.send_sql("c", "BEGIN IMMEDIATE");
        until(|| json("status", &board.path()).1, |status| status["waiters"] == n);
        waiters.push(waiter);
    }
    let (code, status) = json("status", &board.path());
    assert_eq!(code, Some(0));
    assert_eq!(status["holder"]["pid"], holder.pid());
    assert!(status["holder"]["program"].as_str().unwrap().starts_with("python3"), "{status}");
    assert_eq!(status["holder"]["upkeep"], false);
    assert_eq!(pids(&status), waiters.iter().map(|w| u64::from(w.pid())).collect::<Vec<_>>());
    assert_eq!(status["sizes"]["database"], board.path().metadata().unwrap().len());
    assert_eq!(status["sizes"]["sidecar"], 36_864);
    assert_eq!(status["counters"], Value::Null);
    let (code, text, _) = outcome(&[&"status", &board.path()]);
    assert_eq!(code, Some(0));
    assert!(text.contains(&format!("holder      pid {} (python3", holder.pid())), "{text}");
    assert!(text.contains("3 wait"), "{text}");

    // The next in line has it when the holder is done.
    holder.sql("c", "COMMIT").rows();
    waiters[0].reply().rows();
    let (_, status) = json("status", &board.path());
    assert_eq!(status["holder"]["pid"], waiters[0].pid());
    assert_eq!(pids(&status), waiters[1..].iter().map(|w| u64::from(w.pid())).collect::<Vec<_>>());
}

/// The holder is killed: what it held is nobody's at once, and the tool does not go by what is
/// written in the sidecar, which still names a waiter that was killed.
#[test]
fn a_killed_process_is_neither_holder_nor_waiter() {
    let board = board();
    let [holder, waiter] = holder_and_waiter(&board);
    waiter.kill();
    let (_, status) = json("status", &board.path());
    assert_eq!((&status["waiters"], &status["holder"]["pid"]), (&json!(0), &json!(holder.pid())));
    holder.kill();
    let (_, status) = json("status", &board.path());
    assert_eq!(status["holder"], Value::Null);
}

/// The holder is killed, and a child of it lives on in which no fork handler has run: it has
/// inherited the lock. The tool says so and names the child. To a user who may not look into it,
/// the tool says which user may.
#[test]
fn a_child_that_keeps_the_lock_is_named() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let parent = holder.pid();
    let fifo = board.directory().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    holder.send(&json!(["child without handlers", "_Fork", fifo]));
    let children = || std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let child: u32 = until(|| children().unwrap().trim().parse(), |child| child.is_ok()).unwrap();
    assert_eq!(json("status", &board.path()).1["holder"]["gone"], false);
    holder.kill();

    let (code, status) = json("status", &board.path());
    let said = &status["holder"];
    assert_eq!((code, &said["pid"], &said["gone"]), (Some(0), &json!(parent), &json!(true)));
    assert_eq!(said["kept_by"].as_array().map(Vec::len), Some(1), "{said}");
    let kept_by = &said["kept_by"][0];
    assert_eq!((&kept_by["pid"], &kept_by["program"]), (&json!(child), &json!("python3")));
    let keeps = format!("holder      pid {child} (python3), for ");
    let from = format!(
        ": a child that inherited the lock of process {parent}, which is dead; end it, or let it exec"
    );
    let (_, text, _) = outcome(&[&"status", &board.path()]);
    assert!(text.contains(&keeps) && text.contains(&from), "{text}");
    let (_, text, _) = outcome(&[&"watch", &board.path(), &"--interval=50", &"--count=2"]);
    assert_eq!(text.matches(&from).count(), 2, "{text}");
    if is_root() {
        let (_place, mut nobody) = as_nobody(&board);
        nobody.arg("status").arg(board.path());
        let text = String::from_utf8(nobody.output().unwrap().stdout).unwrap();
        assert!(text.contains(&format!("holder      pid {parent}, for ")), "{text}");
        assert!(text.contains("this user may not look into"), "{text}");
    }

    // The child goes on, and ends.
    std::fs::File::options().write(true).open(&fifo).unwrap();
    until(|| json("status", &board.path()).1, |status| status["holder"] == Value::Null);
}

/// A stock client can lock SQLite's bytes as it likes: that is not the write lock. Where nobody is the holder, it says who has
/// SQLite's own.
#[test]
fn a_stock_writer_is_no_holder() {
    let board = board();
    let mut stock = client(&board, "unix");
    stock.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(json("status", &board.path()).1["holder"], Value::Null);
    let hint = "nobody seen from here has its own lock for writing";
    let text = outcome(&[&"status", &board.path()]).1;
    let named = format!("WRITE: pid {} (python3), a stock client", stock.pid());
    assert!(text.contains(&named) && !text.contains(hint), "{text}");
    stock.sql("c", "COMMIT").rows();
    assert!(outcome(&[&"status", &board.path()]).1.contains(hint));
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    assert!(!outcome(&[&"status", &board.path()]).1.contains(hint));
}

/// A tool that opened and closed the database in a client's process would drop its locks on the
/// stock VFS, and a tool that waited would hang as the board does. The kernel is asked what the
/// tool does: `status` and `watch` open the sidecar and the wal-index alone, to read, and lock
/// nothing. The same question about `check` has another answer, so the question is a good one.
#[test]
fn it_never_opens_the_database() {
    vfs_tests::needs!("strace");
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    holder.sql("c", "INSERT INTO tasks (title) VALUES ('one more')").rows();
    let traced = |arguments: &[&str]| {
        let trace = board.directory().join("trace");
        let done = Command::new("strace")
            .args([
                "-f",
                "-e",
                "trace=open,openat,openat2,creat,truncate,fcntl,unlink,rename",
                "-o",
            ])
            .arg(&trace)
            .arg(TOOL)
            .args(arguments)
            .arg(board.path())
            .output()
            .expect("strace is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let trace = std::fs::read_to_string(trace).unwrap();
        let opened = |suffix: &str| {
            let name = format!("{}\"", beside(&board, suffix).display());
            trace.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect::<Vec<_>>()
        };
        let looked_at = ["-lock", "-shm"].map(opened);
        (["", "-wal", "-journal"].map(opened).concat(), looked_at, trace)
    };
    for arguments in [&["status"][..], &["status", "--json"], &["watch", "--count", "2"]] {
        let (database, looked_at, trace) = traced(arguments);
        assert_eq!(database, [""; 0], "{arguments:?}");
        assert!(looked_at.iter().all(|calls| !calls.is_empty()), "{trace}");
        for call in looked_at.concat() {
            assert!(call.contains("O_RDONLY") && !call.contains("O_CREAT"), "{call}");
        }
        for lock in ["F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW"] {
            assert!(!trace.contains(&format!("{lock},")), "{arguments:?}: {trace}");
        }
    }
    assert!(!traced(&["check"]).0.is_empty());
    holder.sql("c", "COMMIT").rows();
}

/// An operator names the wrong file: a text, a picture, the WAL. That is no board, and nobody guards it: the exit status says
/// so, and the text says what it is. A database that is encrypted keeps a part of its header, and one that is named like a
/// sidecar is one.
#[test]
fn it_refuses_what_is_no_database() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "INSERT INTO tasks (title) VALUES ('one more')").rows();
    let refused = |path: &std::path::Path, words: &str| {
        for command in ["status", "watch"] {
            let count: &[&dyn AsRef<std::ffi::OsStr>] =
                if command == "watch" { &[&"--count", &"1"] } else { &[] };
            let arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
                [&command as &dyn AsRef<std::ffi::OsStr>, &path]
                    .into_iter()
                    .chain(count.iter().copied())
                    .collect();
            let (code, said, error) = outcome(&arguments);
            assert_eq!((code, said.as_str()), (Some(2), ""), "{command} {}", path.display());
            assert!(error.contains(words), "{error}");
        }
    };
    let named = format!("of {0}: ask for {0}", board.path().display());
    for (suffix, what) in [("-wal", "the WAL"), ("-shm", "the wal-index"), ("-lock", "a sidecar")] {
        refused(&beside(&board, suffix), &format!("{what} {named}"));
    }
    for content in [&b"notes"[..], &[b'x'; 8192]] {
        let notes = board.directory().join("notes");
        std::fs::write(&notes, content).unwrap();
        refused(&notes, "no SQLite database");
    }
    holder.close("c");
    let mut content = std::fs::read(board.path()).unwrap();
    std::fs::write(beside(&board, "-lock"), &content).unwrap();
    content[..16].fill(b'x');
    std::fs::write(board.directory().join("encrypted"), &content).unwrap();
    for name in ["board.db", "board.db-lock", "encrypted"] {
        let (code, _, error) = outcome(&[&"status", &board.directory().join(name)]);
        assert_eq!(code, Some(0), "{name}: {error}");
    }
}

/// Nobody has written yet: looking makes nothing.
#[test]
fn it_creates_nothing() {
    let board = vfs_tests::Board::new();
    std::fs::write(board.path(), "").unwrap();
    let (code, status) = json("status", &board.path());
    assert_eq!(code, Some(0));
    assert_eq!(status["sidecar_state"], "absent");
    assert_eq!(std::fs::read_dir(board.directory()).unwrap().count(), 1);
}

/// The board is named by a symbolic link: clients meet in the sidecar of the file itself.
#[test]
fn it_follows_links() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let link = board.directory().join("link.db");
    std::os::unix::fs::symlink(board.path(), &link).unwrap();
    assert_eq!(json("status", &link).1["holder"]["pid"], holder.pid());
}

/// Somebody has put other bytes, or another kind of file, where the sidecar is.
#[test]
fn it_says_what_is_wrong_with_the_sidecar() {
    let board = board();
    std::fs::write(board.sidecar(), "the notes of somebody else").unwrap();
    let (code, status) = json("status", &board.path());
    assert_eq!((code, &status["sidecar_state"]), (Some(0), &json!("foreign")));
    assert_eq!(status["guarantees"]["queue_page"]["active"], false);
    assert_eq!(
        status["guarantees"]["write_lock"]["active"], false,
        "its bytes are not ours to lock"
    );
    std::fs::remove_file(board.sidecar()).unwrap();
    std::fs::create_dir(board.sidecar()).unwrap();
    let (code, status) = json("status", &board.path());
    assert_eq!((code, &status["sidecar_state"]), (Some(0), &json!("unusable")));
    assert!(status["sidecar_why"].as_str().unwrap().contains("directory"), "{status}");
    assert_eq!(status["guarantees"]["write_lock"]["active"], false);
}

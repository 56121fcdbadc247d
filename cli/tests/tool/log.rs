//! `log`: in the morning, what has happened at night.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vfs_tests::{Agent, Board};

use crate::{TOOL, beside, board, client, outcome};

/// Keeps the write lock for a while.
fn holds(client: &mut Agent, ms: u64) {
    client.sql("c", "BEGIN IMMEDIATE; UPDATE tasks SET title = 'x' WHERE id = 1").rows();
    std::thread::sleep(Duration::from_millis(ms));
    client.sql("c", "COMMIT").rows();
}

/// What happened on a board at night: a long transaction, one that waited for it, one that gave up, one that was refused since
/// it had read before, and a holder that was killed. Nobody has the board open any more.
fn a_night(board: &Board) -> [u32; 2] {
    let (mut dispatcher, mut worker) = (client(board, "kanban"), client(board, "kanban"));
    worker.send_sql("c", "SELECT 1");
    worker.reply().rows();
    dispatcher.sql("c", "BEGIN IMMEDIATE; UPDATE tasks SET title = 'y' WHERE id = 2").rows();
    worker.send_sql("c", "UPDATE tasks SET title = 'z' WHERE id = 3");
    std::thread::sleep(Duration::from_millis(300));
    dispatcher.sql("c", "COMMIT").rows();
    worker.reply().rows();
    worker.sql("c", "PRAGMA busy_timeout=120; BEGIN; SELECT count(*) FROM tasks").rows();
    holds(&mut dispatcher, 1);
    assert_eq!(worker.sql("c", "UPDATE tasks SET title = 'a'").message(), "database is locked");
    worker.sql("c", "ROLLBACK").rows();
    dispatcher.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(worker.sql("c", "UPDATE tasks SET title = 'a'").message(), "database is locked");
    worker.sql("c", "PRAGMA busy_timeout=60000").rows();
    worker.send_sql("c", "UPDATE tasks SET title = 'b'");
    std::thread::sleep(Duration::from_millis(400));
    let pids = [dispatcher.pid(), worker.pid()];
    dispatcher.kill();
    worker.reply().rows();
    worker.close("c");
    pids
}

/// The operator reads sentences that say who, whom, why and for how long; a script reads the same as JSON; and since a moment ago
/// nothing has happened.
#[test]
fn the_night_is_told_in_the_morning() {
    let board = board();
    let (code, out, _) = outcome(&[&"log", &board.path()]);
    assert_eq!((code, &*out), (Some(0), "nothing was recorded\n"));
    let [dispatcher, worker] = a_night(&board);
    let (code, out, errors) = outcome(&[&"log", &board.path()]);
    assert_eq!((code, &*errors), (Some(0), ""), "{out}");
    let killed = dispatcher;
    let [dispatcher, worker] =
        [dispatcher, worker].map(|pid| format!("pid {pid} (/usr/bin/python3 "));
    for (who, what) in [
        (&dispatcher, ") held the write lock for "),
        (&worker, ", after it had waited "),
        (
            &worker,
            ") was refused at once: another had committed since its transaction began to read",
        ),
        (&worker, ") gave up after "),
    ] {
        let is_it = |line: &&str| line.contains(&format!("  {who}")) && line.contains(what);
        assert!(out.lines().any(|line| is_it(&line)), "{who}{what}: {out}");
    }
    // Without its command, if nobody could ask for that any more.
    let died = |line: &str| {
        line.contains(&format!("  pid {killed} "))
            && line.contains(" ended while it held the write lock; ")
    };
    assert!(out.lines().any(died), "{out}");
    let had = format!(": {dispatcher}");
    assert!(out.lines().any(|line| line.contains("gave up") && line.contains(&had)), "{out}");

    let (code, json, _) = outcome(&[&"log", &"--json", &"--since=1h", &board.path()]);
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, events.len()), (Some(0), out.lines().count()), "{json}");
    events.iter().for_each(|event| crate::schema::agrees(event, "event"));
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    for kind in ["transaction", "refusal", "give_up", "holder_died"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let (code, out, _) = outcome(&[&"log", &"--since", &"2099-01-01 12:00", &board.path()]);
    assert_eq!((code, &*out), (Some(0), "nothing was recorded\n"));
    let (code, _, errors) = outcome(&[&"log", &"--since=yesterday", &board.path()]);
    assert!(code == Some(2) && errors.contains("not a time"), "{errors}");
}

/// The timeline has the holder as a bar, the waiters below it, the refusals marked, and labelled axes; a command line is no markup.
#[test]
fn a_timeline_is_drawn() {
    let board = board();
    a_night(&board);
    let drawing = beside(&board, ".svg");
    let (code, out, errors) = outcome(&[&"log", &"--svg", &drawing, &board.path()]);
    assert_eq!(code, Some(0), "{out}{errors}");
    let svg = std::fs::read_to_string(&drawing).unwrap();
    for part in [
        "<rect class=\"hold\"",
        "<rect class=\"wait\"",
        "<rect class=\"wait in vain\"",
        "<path class=\"refusal\"",
        "<path class=\"give_up\"",
        "<path class=\"holder_died\"",
        ">local time, from 2",
        ">holds</text>",
        ">waits</text>",
        "gave up after ",
    ] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    is_well_formed(&drawing);
}

/// An application writes a character that XML has not, into a statement: the drawing of its transaction is well-formed.
#[test]
fn a_timeline_takes_any_statement() {
    let board = board();
    let mut holder = client(&board, "kanban&kanban_record_sql=1");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    std::thread::sleep(Duration::from_millis(150));
    holder.sql("c", "COMMIT /* \u{fffe}\u{ffff} */").rows();
    let drawing = beside(&board, ".svg");
    let (code, out, errors) = outcome(&[&"log", &"--svg", &drawing, &board.path()]);
    assert_eq!(code, Some(0), "{out}{errors}");
    assert!(std::fs::read_to_string(&drawing).unwrap().contains("COMMIT /*"));
    is_well_formed(&drawing);
}

#[track_caller]
fn is_well_formed(drawing: &Path) {
    let program = "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])";
    vfs_tests::run(vfs_tests::PYTHON, &["-c", program, drawing.to_str().unwrap()]);
}

/// `log --follow --json`, which is killed with the test.
struct Follow(Child, io::Lines<BufReader<ChildStdout>>);

impl Follow {
    fn start(board: &Board) -> Self {
        let mut follow = Command::new(TOOL);
        follow.args(["log", "--follow", "--json"]).arg(board.path());
        let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        Self(follow, lines)
    }

    /// The number of the next event.
    fn next(&mut self) -> u64 {
        let line = self.1.next().unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["number"].as_u64().unwrap()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// `--follow` prints an event when it happens, also after the log was deleted.
#[test]
fn what_happens_is_followed() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holds(&mut holder, 150);
    let mut follow = Follow::start(&board);
    assert_eq!(follow.next(), 1);
    holds(&mut holder, 150);
    assert_eq!(follow.next(), 2);
    std::fs::remove_file(beside(&board, "-kanban-log")).unwrap();
    holds(&mut holder, 150);
    assert_eq!(follow.next(), 1);
}

/// `--follow` looks while a process writes a record and another has finished the next one: the first is told at the next look.
#[test]
fn a_record_that_is_late_is_followed() {
    let board = board();
    let mut holder = client(&board, "kanban");
    (0..3).for_each(|_| holds(&mut holder, 150));
    // The second record, of which the beginning is written.
    let log = File::options().read(true).write(true).open(beside(&board, "-kanban-log")).unwrap();
    let (place, mut record) = (17408 + 512 * 2, [0; 512]);
    log.read_exact_at(&mut record, place).unwrap();
    log.write_all_at(&[0; 448], place + 64).unwrap();
    let mut follow = Follow::start(&board);
    assert_eq!([follow.next(), follow.next()], [1, 3]);
    log.write_all_at(&record, place).unwrap();
    holds(&mut holder, 150);
    assert_eq!(follow.next(), 2);
    assert_eq!(follow.next(), 4);
}

/// Two workers run in containers, and each of them is process 1 there, as the host's init is here.
/// One holds the write lock, and the other gives up, and then a worker on the host. No other
/// process is named: the holder has its id alone, and each event has the command line of its own
/// process, and the pid namespace by which the two differ.
#[test]
fn containers_are_told_apart() {
    vfs_tests::needs!("unshare", vfs_tests::needs::ROOT);
    let board = board();
    let [mut holder, mut waiter] = [(); 2].map(|()| {
        let mut contained = Agent::start_in_pid_namespace();
        contained.open("c", &board.uri("kanban"), 200);
        contained
    });
    let mut neighbour = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(waiter.sql("c", "BEGIN IMMEDIATE").message(), "database is locked");
    neighbour.sql("c", "PRAGMA busy_timeout=200").rows();
    assert_eq!(neighbour.sql("c", "BEGIN IMMEDIATE").message(), "database is locked");
    holder.sql("c", "COMMIT").rows();
    let (_, out, _) = outcome(&[&"log", &"--json", &board.path()]);
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["give_up", "give_up", "transaction"], "{out}");
    // A client that may not look into the host's process 1 takes that for the holder.
    let looked = std::fs::read_link("/proc/1/fd/0");
    let is_denied = looked.is_err_and(|why| why.kind() == io::ErrorKind::PermissionDenied);
    let unknown_to = if is_denied { 1 } else { 2 };
    for event in &events[..unknown_to] {
        let unknown = json!({"pid": 1, "command": null, "pid_namespace": null});
        assert_eq!(event["holder"], unknown, "{out}");
    }
    let pids: Vec<_> = events.iter().map(|event| &event["process"]["pid"]).collect();
    assert_eq!(pids, [&json!(1), &json!(neighbour.pid()), &json!(1)], "{out}");
    let namespaces: HashSet<_> =
        events.iter().map(|event| event["process"]["pid_namespace"].as_u64().unwrap()).collect();
    assert_eq!(namespaces.len(), 3, "{out}");
    assert!(
        events.iter().all(|event| {
            event["process"]["command"].as_str().is_some_and(|command| command.contains("agent.py"))
        }),
        "{out}"
    );
    let (_, out, _) = outcome(&[&"log", &board.path()]);
    assert_eq!(out.matches("  pid 1 in pid namespace 40").count(), 2, "{out}");
    assert_eq!(out.matches(": pid 1 had the write lock").count(), unknown_to, "{out}");
}

/// A drawing that would be written over the board or its WAL, or take the place of another file beside it, is refused.
#[test]
fn a_board_is_not_drawn_over() {
    let board = board();
    let mut client = client(&board, "kanban");
    client.sql("c", "UPDATE tasks SET title = 'x'").rows();
    for own in [board.path(), beside(&board, "-wal"), beside(&board, "-kanban-log")] {
        let before = std::fs::read(&own).ok();
        let (code, _, errors) = outcome(&[&"log", &"--svg", &own, &board.path()]);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains("belongs to the board"), "{errors}");
        assert_eq!(std::fs::read(&own).ok(), before);
    }
    // A file that is not there, by its name in the directory that the operator is in.
    let mut tool = Command::new(TOOL);
    tool.current_dir(board.directory()).args(["log", "--svg", "board.db-journal", "board.db"]);
    let errors = String::from_utf8(tool.output().unwrap().stderr).unwrap();
    assert!(errors.contains("belongs to the board"), "{errors}");
    assert!(!beside(&board, "-journal").exists());
}

/// What lies in the log's place is something else: that is said, and it stays.
#[test]
fn a_file_that_is_no_log_is_not_shown() {
    let board = board();
    let log = beside(&board, "-kanban-log");
    std::fs::write(&log, "mine").unwrap();
    let (code, out, _) = outcome(&[&"log", &"--json", &board.path()]);
    let error: Value = serde_json::from_str(&out).unwrap();
    assert!(error["error"].as_str().unwrap().contains("holds something else"), "{out}");
    assert_eq!((code, std::fs::read(&log).unwrap()), (Some(2), b"mine".to_vec()));
}

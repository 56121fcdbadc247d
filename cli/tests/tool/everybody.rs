//! An operator asks which processes use a board: holders, waiters, readers and stopped ones, with
//! this VFS or without it.

use std::process::{Command, Stdio};

use serde_json::{Value, json as value};

use vfs_tests::{Agent, Board, Lines, PYTHON, Program};

use crate::{
    TOOL, as_nobody, beside, board, client, holder_and_waiter, json, outcome, signal, until,
};

/// A stock client in a process of its own.
fn stock(board: &Board) -> Agent {
    let mut stock = Agent::start_stock(Program::Python, "");
    stock.open("c", &board.uri("unix"), 60_000);
    stock
}

fn status(board: &Board) -> Value {
    let (code, status) = json("status", &board.path());
    assert_eq!(code, Some(0), "{status}");
    status
}

fn text(board: &Board) -> String {
    outcome(&[&"status", &board.path()]).1
}

/// Those of a list that are of the process.
fn of(list: &Value, pid: u32) -> Vec<&Value> {
    list.as_array().unwrap().iter().filter(|one| one["pid"] == pid).collect()
}

/// Which of SQLite's locks a process has.
fn locks(status: &Value, pid: u32) -> Vec<&str> {
    of(&status["sqlite_locks"], pid).iter().map(|one| one["lock"].as_str().unwrap()).collect()
}

/// A stock client has begun to write, and three of ours wait for it: nobody has the write lock, and nobody is in the queue. It
/// used to say "holder nobody, waiters 0". In both kinds of journal modes the stock client is named with its lock, and the three
/// as those who wait.
#[test]
fn a_stock_writer_and_those_who_wait_for_it_are_named() {
    for (mode, lock, file) in [("wal", "WRITE", "wal-index"), ("delete", "RESERVED", "database")] {
        let board = board();
        client(&board, "kanban").sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
        let mut stock = stock(&board);
        stock.sql("c", "BEGIN IMMEDIATE").rows();
        let mut waiters: Vec<_> = (0..3).map(|_| client(&board, "kanban")).collect();
        waiters.iter_mut().for_each(|waiter| waiter.send_sql("c", "BEGIN IMMEDIATE"));
        let seen = until(|| status(&board), |status| status["waiters"] == 3);
        assert_eq!((&seen["queue"], &seen["holder"]), (&value!([]), &Value::Null), "{seen:#}");
        for waiter in &waiters {
            let it = of(&seen["sqlite_waiters"], waiter.pid());
            assert_eq!(it.len(), 1, "{seen:#}");
            assert!(it[0]["confirmed"] == true && it[0]["waited_ms"].is_u64(), "{seen:#}");
        }
        let held = of(&seen["sqlite_locks"], stock.pid());
        let held =
            held.iter().find(|one| one["lock"] == lock).unwrap_or_else(|| panic!("{seen:#}"));
        assert_eq!((&held["vfs"], &held["file"]), (&value!("stock"), &value!(file)));
        let said = until(|| text(&board), |text| text.contains("3 wait for SQLite's own lock"));
        assert!(said.contains("holder      nobody"), "{said}");
        assert!(said.contains(&format!("{lock}: pid {} (python3), a stock client", stock.pid())));
        let (_, lines, _) = outcome(&[&"watch", &board.path(), &"--interval=50", &"--count=1"]);
        assert!(lines.contains(&format!("own lock {lock}: pid {}", stock.pid())), "{lines}");

        // The next to get the lock is the holder, and the others wait on.
        stock.sql("c", "COMMIT").rows();
        let seen = until(|| status(&board), |status| status["holder"]["pid"].is_u64());
        let holder = seen["holder"]["pid"].as_u64().unwrap();
        assert!(waiters.iter().any(|waiter| u64::from(waiter.pid()) == holder), "{seen:#}");
        assert!(!locks(&seen, stock.pid()).contains(&lock), "{seen:#}");
    }
}

/// The holder is stopped by a signal, and one that waits, too: both are said to be, with what lets them go on, until they do.
#[test]
fn stopped_processes_are_shown_as_stopped() {
    let board = board();
    let [holder, waiter] = holder_and_waiter(&board);
    let seen = status(&board);
    assert_eq!(
        (&seen["holder"]["state"], &seen["holder"]["confirmed"]),
        (&value!("sleeping"), &value!(true))
    );
    for pid in [holder.pid(), waiter.pid()] {
        signal(&pid.to_string(), libc::SIGSTOP);
    }
    let is_stopped = |status: &Value| {
        status["holder"]["state"] == "stopped" && status["queue"][0]["state"] == "stopped"
    };
    until(|| status(&board), is_stopped);
    let said = text(&board);
    for pid in [holder.pid(), waiter.pid()] {
        assert!(said.contains(&format!("STOPPED until kill -CONT {pid}")), "{said}");
        signal(&pid.to_string(), libc::SIGCONT);
    }
    until(|| status(&board), |status| status["holder"]["state"] == "sleeping");
    assert!(!text(&board).contains("STOPPED"));
}

/// All workers are called python. Each is known by its command line and its user; one whose arguments would turn the terminal
/// red does not.
#[test]
fn a_process_is_known_by_its_command_line() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let mut hostile = Command::new("sh");
    hostile
        .args(["-c", "exec 9< \"$0\"; echo; read end"])
        .arg(board.path())
        .arg("a b\u{1b}[31m\u{202e}");
    let mut hostile = Lines::start(hostile);
    assert_eq!(hostile.hear(), "");
    let seen = status(&board);
    assert!(seen["holder"]["command"].as_str().unwrap().contains("/src/agent.py "), "{seen:#}");
    let own = Command::new("id").arg("-un").output().unwrap();
    assert_eq!(seen["holder"]["user"], String::from_utf8(own.stdout).unwrap().trim());
    let it = &of(&seen["clients"], hostile.pid())[0]["command"];
    assert!(it.as_str().unwrap().ends_with("'a b?[31m?'"), "{it}");
    let said = text(&board);
    assert!(said.contains("/src/agent.py ") && !said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
}

/// A worker runs in a container and calls itself 1 or 2 there: the sidecar has that id, which on the host is somebody else's.
/// It is found by its lock, and shown with both ids.
#[test]
fn a_holder_in_a_container_is_found() {
    vfs_tests::needs!("unshare", vfs_tests::needs::ROOT);
    let board = board();
    let mut contained = Agent::start_in_pid_namespace();
    contained.open("c", &board.uri("kanban"), 0);
    contained.sql("c", "BEGIN IMMEDIATE").rows();
    let pid = contained.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let seen = status(&board);
    let holder = &seen["holder"];
    assert_eq!(holder["pid"].to_string(), children.trim(), "{seen:#}");
    assert_eq!((&holder["own_pid"], &holder["confirmed"]), (&value!(1), &value!(true)), "{seen:#}");
    assert_eq!((&holder["gone"], &holder["kept_by"]), (&value!(false), &Value::Null), "{seen:#}");
    assert!(text(&board).contains("pid 1 in its container"), "{}", text(&board));
}

/// Three read: a stock client since before two transactions, one of ours since between them, and one of ours since now. They
/// come in that order, and the first keeps from being copied just what a checkpoint then says that it could not copy.
#[test]
fn the_oldest_reader_comes_first() {
    let board = board();
    let mut writer = client(&board, "kanban");
    let write = "INSERT INTO tasks (title) VALUES (zeroblob(20000))";
    writer.sql("c", write).rows();
    let mut readers = [stock(&board), client(&board, "kanban"), client(&board, "kanban")];
    for reader in &mut readers {
        reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
        writer.sql("c", write).rows();
    }
    readers[2].sql("c", "COMMIT; BEGIN; SELECT count(*) FROM tasks").rows();
    let seen = status(&board);
    let pids: Vec<_> = seen["readers"].as_array().unwrap().iter().map(|one| &one["pid"]).collect();
    assert_eq!(
        pids,
        readers.iter().map(|one| value!(one.pid())).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
    let checkpoint = writer.sql("c", "PRAGMA wal_checkpoint").rows();
    let [log, copied] = [1, 2].map(|nth| checkpoint[0][nth].as_u64().unwrap());
    assert!(copied < log, "{checkpoint:?}");
    let first = &seen["readers"][0];
    assert_eq!((&first["frame"], &first["kept_frames"]), (&value!(copied), &value!(log - copied)));
    assert_eq!(first["kept_bytes"], (log - copied) * (4096 + 24));
    assert_eq!((&first["vfs"], &seen["readers"][2]["kept_frames"]), (&value!("stock"), &value!(0)));
    assert_eq!((&seen["wal"]["frames"], &seen["wal"]["page_size"]), (&value!(log), &value!(4096)));
    let said = text(&board);
    assert!(said.contains(&format!("{} of them copied", copied)), "{said}");
    let oldest = format!(
        "pid {} (python3), a stock client, reads up to frame {copied}, and keeps",
        readers[0].pid()
    );
    assert!(said.contains(&oldest), "{said}");
    readers[0].sql("c", "COMMIT").rows();
    assert_eq!(of(&status(&board)["readers"], readers[0].pid()), [&Value::Null; 0]);
}

/// In a rollback mode a reader, a stock client, keeps one of ours from committing: the writer is the holder, and the reader is named
/// as the one who does not let it.
#[test]
fn a_reader_who_lets_nobody_commit_is_named() {
    let board = board();
    let mut writer = client(&board, "kanban");
    writer.sql("c", "PRAGMA journal_mode=delete").rows();
    let mut reader = stock(&board);
    reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
    writer.sql("c", "BEGIN IMMEDIATE; INSERT INTO tasks (title) VALUES ('x')").rows();
    writer.send_sql("c", "COMMIT");
    let is_committing = |status: &Value| locks(status, writer.pid()).contains(&"PENDING");
    let seen = until(|| status(&board), is_committing);
    assert_eq!((&seen["holder"]["pid"], &seen["readers"]), (&value!(writer.pid()), &value!([])));
    let said = text(&board);
    let named =
        format!("readers     pid {} (python3), a stock client, reads, and lets", reader.pid());
    assert!(said.contains(&named), "{said}");
    assert_eq!(said.matches("lets nobody commit").count(), 1, "{said}");
    reader.sql("c", "COMMIT").rows();
    writer.reply().rows();
    assert!(!text(&board).contains("lets nobody commit"));
}

/// Somebody has each of the locks of SQLite, one after the other: each is named, with its process and whether it excludes
/// others.
#[test]
fn each_of_sqlites_locks_is_named() {
    let board = board();
    let mut client = client(&board, "kanban");
    client.sql("c", "SELECT count(*) FROM tasks").rows();
    let program = "import fcntl, sys\nfile = open(sys.argv[1], 'r+b')\n\
                   for line in sys.stdin:\n  start, length, shared = map(int, line.split())\n  \
                   fcntl.lockf(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, length, start)\n  print(flush=True)\n  \
                   sys.stdin.readline()\n  fcntl.lockf(file, fcntl.LOCK_UN, length, start)\n  print(flush=True)";
    let locker = |path: std::path::PathBuf| {
        let mut locker = Command::new(PYTHON);
        locker.args(["-c", program]).arg(path);
        Lines::start(locker)
    };
    let mut of_index = locker(beside(&board, "-shm"));
    let slots = ["WRITE", "CKPT", "RECOVER", "READ0", "READ1", "READ2", "READ3", "READ4"];
    let mut of_database = locker(board.path());
    let of_slots = slots.iter().zip(120..).map(|(name, byte)| (true, *name, byte, 1, 0));
    let first = 0x4000_0000_u64;
    let of_bytes = [
        (false, "PENDING", first, 1, 0),
        (false, "RESERVED", first + 1, 1, 0),
        (false, "SHARED", first + 2, 510, 1),
    ];
    for (is_index, name, start, len, shared) in of_slots.chain(of_bytes) {
        let locker = if is_index { &mut of_index } else { &mut of_database };
        locker.say(&format!("{start} {len} {shared}"));
        assert_eq!(locker.hear(), "");
        let seen = status(&board);
        let held = of(&seen["sqlite_locks"], locker.pid());
        assert_eq!(held.len(), 1, "{name}: {seen:#}");
        assert_eq!(
            [&held[0]["lock"], &held[0]["exclusive"], &held[0]["vfs"]],
            [&value!(name), &value!(shared == 0), &value!("stock")],
            "{seen:#}"
        );
        locker.say("");
        assert_eq!(locker.hear(), "");
        assert_eq!(locks(&status(&board), locker.pid()), [""; 0]);
    }
}

/// Another user may not look into the processes of root. The kernel's list still tells him which process a stock client's lock
/// is of. Of a lock of this VFS it tells that there is one, and the tool says what it takes to see more.
#[test]
fn processes_that_a_user_may_not_see_are_mentioned() {
    vfs_tests::needs!(vfs_tests::needs::ROOT);
    let board = board();
    let mut stock = stock(&board);
    stock.sql("c", "BEGIN IMMEDIATE").rows();
    let mut reader = client(&board, "kanban");
    reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
    let as_nobody = |arguments: &[&str]| {
        let (_place, mut nobody) = as_nobody(&board);
        String::from_utf8(nobody.args(arguments).arg(board.path()).output().unwrap().stdout)
            .unwrap()
    };
    let seen: Value = serde_json::from_str(&as_nobody(&["status", "--json"])).unwrap();
    assert!(locks(&seen, stock.pid()).contains(&"WRITE"), "{seen:#}");
    // The stock client reads, too.
    let by = |vfs: &str| -> Vec<&Value> {
        let readers = seen["readers"].as_array().unwrap();
        readers.iter().filter(|one| one["vfs"] == vfs).map(|one| &one["pid"]).collect()
    };
    assert_eq!(
        (by("kanban"), by("stock")),
        (vec![&Value::Null], vec![&value!(stock.pid())]),
        "{seen:#}"
    );
    assert!(
        seen["clients_missing"].as_str().unwrap().contains("root may look into all"),
        "{seen:#}"
    );
    let said = as_nobody(&["status"]);
    assert!(
        said.contains(&format!("WRITE: pid {} (python3), a stock client; ", stock.pid())),
        "{said}"
    );
    assert!(said.contains("a process that this user may not look into reads"), "{said}");

    // The holder says itself who it is, and is believed as long as that may be.
    stock.sql("c", "COMMIT").rows();
    reader.sql("c", "COMMIT; BEGIN IMMEDIATE").rows();
    let seen: Value = serde_json::from_str(&as_nobody(&["status", "--json"])).unwrap();
    assert_eq!(
        (&seen["holder"]["pid"], &seen["holder"]["confirmed"]),
        (&value!(reader.pid()), &value!(false))
    );
    assert!(seen["holder"]["command"].as_str().unwrap().contains("agent.py"), "{seen:#}");
    // The holder has SQLite's own lock, too: that is not somebody else's.
    reader.sql("c", "INSERT INTO tasks (title) VALUES ('x')").rows();
    let has_write = |seen: &Value| {
        seen["sqlite_locks"].as_array().unwrap().iter().any(|one| one["lock"] == "WRITE")
    };
    assert!(has_write(&status(&board)));
    let said = as_nobody(&["status"]);
    assert!(!said.contains("but SQLite's own lock"), "{said}");
}

/// A worker in a container has the write lock, and is process 1 there. An operator asks in another container, where the tool is
/// process 1: it does not take itself for the holder.
#[test]
fn the_tool_does_not_take_itself_for_the_holder() {
    vfs_tests::needs!("unshare", vfs_tests::needs::ROOT);
    let board = board();
    let mut holder = Agent::start_in_pid_namespace();
    holder.open("c", &board.uri("kanban"), 200);
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let mut it = Command::new("unshare");
    it.args(["--pid", "--fork", "--mount-proc", "--kill-child", TOOL, "status", "--json"]);
    let output = it.arg(board.path()).output().unwrap();
    let seen: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let said = ["pid", "program", "command", "gone", "kept_by"].map(|name| &seen["holder"][name]);
    assert_eq!(said, [&value!(1), &Value::Null, &Value::Null, &value!(true), &value!([])]);
}

/// A user asks who is at a board. `/proc` is mounted so that it shows the processes of others without their files, without
/// anything of them, or not at all: each time the tool says that there may be more.
#[test]
fn what_proc_hides_is_said_to_be_hidden() {
    vfs_tests::needs!("unshare", "setpriv", vfs_tests::needs::ROOT);
    let board = board();
    let (place, _) = as_nobody(&board);
    for hidepid in ["0", "1", "2"] {
        // Process 1 of the namespace is root's.
        let script = "mount -t proc -o hidepid=$0 proc /proc && \
                      setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; exit $?";
        let mut it = Command::new("unshare");
        it.args(["--pid", "--fork", "--mount", "--kill-child", "sh", "-c", script, hidepid]);
        it.arg(place.path().join("tool")).args(["status", "--json"]).arg(board.path());
        let output = it.current_dir("/").output().unwrap();
        let seen: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert!(seen["clients_missing"].is_string(), "hidepid={hidepid}: {seen:#}");
    }
}

/// A process of somebody else has a file open on a network file system whose server does not
/// answer. A process that calls stat(2) on that file waits, and cannot even be killed. The tool
/// does not wait. Nor does a client of ours that looks for the holder of SQLite's lock before it
/// gives up: it is refused, as a stock client is.
#[test]
fn a_file_system_that_does_not_answer_keeps_nobody_waiting() {
    vfs_tests::needs!("unshare", vfs_tests::needs::ROOT);
    if !std::path::Path::new("/dev/fuse").exists() {
        return vfs_tests::skip!("the kernel has no FUSE");
    }
    let board = board();
    let mut holder = stock(&board);
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let mut clients = ["unix", "kanban"].map(|vfs| client(&board, vfs));
    let place = tempfile::tempdir().unwrap();
    let mut server = Command::new("unshare");
    server.args(["--mount", PYTHON]);
    server.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tool/unanswering.py")).arg(place.path());
    // Declared last, so that it ends before the clients that may wait for it.
    let mut server = Lines::start(server);
    let opener = server.hear();
    if opener.starts_with("no") {
        return vfs_tests::skip!("FUSE cannot be mounted here");
    }
    let open = format!("/proc/{opener}/fd");
    let is_of_it = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).unwrap().starts_with(place.path())
    };
    let mut open = std::fs::read_dir(open).unwrap().map(|entry| entry.unwrap());
    let mut stat = Command::new("stat");
    let mut stat = stat
        .arg("-L")
        .arg(open.find(is_of_it).unwrap().path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    assert!(
        of(&status(&board)["sqlite_locks"], holder.pid()).iter().any(|one| one["lock"] == "WRITE")
    );
    for client in &mut clients {
        client.sql("c", "PRAGMA busy_timeout=100").rows();
        assert!(client.sql("c", "BEGIN IMMEDIATE").message().contains("locked"));
    }
    assert!(stat.try_wait().unwrap().is_none(), "the server has answered");
    drop(server);
    stat.wait().unwrap();
}

/// A stock client in a rollback mode lets nobody in: it has all three locks, by SQLite's names.
#[test]
fn an_exclusive_lock_on_the_database_is_named() {
    let board = board();
    client(&board, "kanban").sql("c", "PRAGMA journal_mode=delete").rows();
    let mut stock = stock(&board);
    stock.sql("c", "BEGIN EXCLUSIVE").rows();
    assert_eq!(locks(&status(&board), stock.pid()), ["PENDING", "RESERVED", "EXCLUSIVE"]);
    let said = text(&board);
    let named = format!("EXCLUSIVE, RESERVED, PENDING: pid {} (python3), a stock", stock.pid());
    assert!(said.contains(&named), "{said}");
}

/// Users choose file names, and the tool is asked about all files of a directory: no name turns the
/// terminal red, or adds a line to the output.
#[test]
fn a_file_name_does_not_command_the_terminal() {
    let board = board();
    for content in [std::fs::read(board.path()).unwrap(), b"no database".to_vec()] {
        let path = board.directory().join("a\u{1b}[31m\na second line\u{202e}.db");
        std::fs::write(&path, content).unwrap();
        for arguments in [&["status"][..], &["check"], &["watch", "--count=1", "--interval=50"]] {
            let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
                arguments.iter().map(|one| one as &dyn AsRef<std::ffi::OsStr>).collect();
            arguments.push(&path);
            let (_, said, errors) = outcome(&arguments);
            let said = said + &errors;
            assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
            assert!(!said.lines().any(|line| line.starts_with("a second line")), "{said}");
        }
    }
}

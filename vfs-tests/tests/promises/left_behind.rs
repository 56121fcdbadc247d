//! A closed board leaves behind what it leaves on the stock VFS: the database. And each user that may use the database can use
//! it, whatever the files beside it. The cases are users of one group, a migration by root, an umask, a chown of the idle
//! board, another program's file in the sidecar's place, and a full disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use vfs_tests::sidecar::holder;
use vfs_tests::{Agent, Board, Program, is_root};

use crate::Client::{Ours, Stock};
use crate::{Client, agent, beside, status_of};

const SQLITE_BUSY: i64 = 5;

/// Users, of whom alice and bob are in the team.
const ALICE: (u32, u32) = (2001, 2001);
const BOB: (u32, u32) = (2002, 2002);
const TEAM: u32 = 3000;

/// A client that runs as a user, with an umask and some groups.
fn user(client: Client, program: Program, (user, group): (u32, u32), umask: u32) -> Agent {
    let mut agent = client.start(program);
    agent.call(&json!(["become", user, group, [group, TEAM], umask])).rows();
    agent
}

/// The names in a board's directory, sorted, without the event log. That stays if there was an event, and on a busy machine any
/// transaction may be slow (`event_log`).
fn names(board: &Board) -> Vec<String> {
    let files = board.directory().read_dir().unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| !name.ends_with("-kanban-log"));
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn may(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Runs a scene in both journal modes, on the stock VFS and on ours, with both programs.
fn each(scene: impl Fn(&str, Client, Program)) {
    for mode in ["wal", "delete"] {
        for client in [Stock, Ours] {
            for program in Program::ALL {
                scene(mode, client, program);
            }
        }
    }
}

fn create(client: &mut Agent, uri: &str, mode: &str) {
    client.open("c", uri, 5000);
    let sql = format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    client.sql("c", &sql).rows();
    client.close("c");
}

/// Writes a row, and returns how many there are.
#[track_caller]
fn write(client: &mut Agent, uri: &str) -> i64 {
    client.open("c", uri, 5000);
    client.sql("c", "INSERT INTO t VALUES (1)").rows();
    let rows = client.sql("c", "SELECT count(*) FROM t").rows()[0][0].as_i64().unwrap();
    client.close("c");
    rows
}

/// A worker is refused, and all close the board. The stock VFS leaves only the database; this one leaves the event log, too. If
/// nobody was refused, there is no log.
#[test]
fn the_event_log_stays_if_there_was_an_event() {
    each(|mode, client, program| {
        for is_refused in [true, false] {
            let board = Board::new();
            // However busy the machine is, no transaction counts as slow.
            let slow = if client == Ours { "&kanban_slow_ms=60000" } else { "" };
            let uri = format!("{}{slow}", client.uri(&board));
            let mut agent = client.start(program);
            create(&mut agent, &uri, mode);
            agent.open("a", &uri, 0);
            agent.open("b", &uri, 0);
            agent.sql("a", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").rows();
            if is_refused {
                assert_eq!(agent.sql("b", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
            }
            agent.sql("a", "COMMIT").rows();
            agent.close("a");
            agent.close("b");
            let stays = client == Ours && is_refused;
            let context = format!("{mode}, {client:?}, {program:?}");
            assert_eq!(beside(&board, "-kanban-log").exists(), stays, "{context}, {is_refused}");
            assert_eq!(names(&board), ["board.db"], "{context}");
        }
    });
}

/// An application closes its board and deletes the files that SQLite's documentation names: that leaves an empty directory.
/// When the board is closed, the database is its only file.
#[test]
fn a_closed_board_is_one_file() {
    each(|mode, client, program| {
        let board = Board::new();
        let context = format!("{mode}, {client:?}, {program:?}");
        let mut agent = client.start(program);
        create(&mut agent, &client.uri(&board), mode);
        assert_eq!(names(&board), ["board.db"], "{context}");
        // Two connections, of which one only reads.
        agent.open("reader", &client.uri(&board), 0);
        agent.sql("reader", "SELECT * FROM t").rows();
        assert_eq!(write(&mut agent, &client.uri(&board)), 2);
        agent.close("reader");
        assert_eq!(names(&board), ["board.db"], "{context}");
        fs::remove_file(board.path()).unwrap();
        create(&mut agent, &client.uri(&board), mode);
        let directory = board.directory();
        fs::remove_file(board.path()).unwrap();
        fs::remove_dir(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
    });
}

/// Four processes write, and close at the same moment, again and again. The last one deletes the sidecar, and all rows are
/// there. (If two of them close at once, the WAL stays for the next client, as on the stock VFS.) A killed client leaves its
/// files to the next client, which leaves only the database.
#[test]
fn the_last_client_leaves_nothing() {
    for mode in ["wal", "delete"] {
        let board = Board::new();
        let uri = board.kanban();
        let mut clients: Vec<_> = Program::ALL.into_iter().chain(Program::ALL).map(agent).collect();
        create(&mut clients[0], &uri, mode);
        let (mut rows, rounds) = (1, 60);
        for round in 0..rounds {
            for client in &mut clients {
                client.send(&json!(["open", "c", uri, 60_000]));
                client.send_sql("c", "INSERT INTO t VALUES (1)");
                client.send(&json!(["close", "c"]));
            }
            for client in &mut clients {
                (0..3).for_each(|_| drop(client.reply().rows()));
                rows += 1;
            }
            assert!(!board.sidecar().exists(), "{mode}, {round}: {:?}", names(&board));
        }
        let mut killed = agent(Program::Python);
        killed.open("c", &uri, 0);
        killed.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
        killed.kill();
        assert!(board.sidecar().exists());
        assert_eq!(write(&mut clients[0], &uri), rows + 1, "{mode}");
        assert_eq!(names(&board), ["board.db"], "{mode}");
    }
}

/// A dashboard that may only read is the last to close: it deletes nothing, as on the stock VFS.
#[test]
fn a_reader_deletes_nothing() {
    let board = Board::new();
    let (mut writer, mut reader) = (agent(Program::Python), agent(Program::Rust));
    create(&mut writer, &board.kanban(), "wal");
    writer.open("c", &board.kanban(), 0);
    writer.sql("c", "INSERT INTO t VALUES (2)").rows();
    reader.open("r", &format!("{}&mode=ro", board.kanban()), 0);
    reader.sql("r", "SELECT * FROM t").rows();
    status_of(&mut reader, "r", "/holder");
    let all = ["board.db", "board.db-lock", "board.db-shm", "board.db-wal"];
    assert_eq!(names(&board), all);
    // The reader has the sidecar open, too, since it has asked who waits.
    writer.close("c");
    reader.close("r");
    assert_eq!(names(&board), all);
    assert_eq!(write(&mut writer, &board.kanban()), 3);
    assert_eq!(names(&board), ["board.db"]);
}

/// Alice and Bob are users of one team, to which the board's directory belongs. Alice makes the board with an umask that lets
/// others only read, and the board's own mode is changed later.
#[test]
fn users_of_one_group_share_a_board() {
    if !is_root() {
        return;
    }
    each(|mode, client, program| {
        let (board, context) = (Board::new(), format!("{mode}, {client:?}, {program:?}"));
        let uri = client.uri(&board);
        chown(board.directory(), Some(0), Some(TEAM)).unwrap();
        may(&board.directory(), 0o2775);
        let (mut alice, mut bob) =
            (user(client, program, ALICE, 0o022), user(client, program, BOB, 0o022));
        create(&mut alice, &uri, mode);
        assert_eq!(board.path().metadata().unwrap().gid(), TEAM, "setgid");
        may(&board.path(), 0o664);
        for rows in [2, 4] {
            assert_eq!(write(&mut bob, &uri), rows, "{context}");
            assert_eq!(write(&mut alice, &uri), rows + 1, "{context}");
        }
        // Both have it open: the one that creates the files gives the other the right to use them.
        alice.open("a", &uri, 5000);
        alice.sql("a", "INSERT INTO t VALUES (6)").rows();
        if client == Ours {
            let sidecar = board.sidecar().metadata().unwrap();
            assert_eq!((sidecar.mode() & 0o777, sidecar.gid()), (0o664, TEAM), "{context}");
        }
        assert_eq!(write(&mut bob, &uri), 7, "{context}");
        bob.open("b", &uri, 5000);
        if client == Ours {
            assert_eq!(status_of(&mut bob, "b", "/guarantees/write_lock/active"), true);
        }
    });
}

/// Alice makes a board with umask 077 and closes it; root gives the board to the team. Or root runs a migration, and gives the
/// board to Alice.
#[test]
fn an_idle_board_can_be_given_away() {
    if !is_root() {
        return;
    }
    each(|mode, client, program| {
        for maker in [ALICE, (0, 0)] {
            let board = Board::new();
            let context = format!("{mode}, {client:?}, {program:?}, made by {maker:?}");
            let uri = client.uri(&board);
            may(&board.directory(), 0o777);
            create(&mut user(client, program, maker, 0o077), &uri, mode);
            chown(board.path(), Some(ALICE.0), Some(TEAM)).unwrap();
            may(&board.path(), 0o664);
            let mut bob = user(client, program, BOB, 0o077);
            bob.open("r", &uri, 0);
            assert_eq!(bob.sql("r", "SELECT x FROM t").rows(), [[1]], "{context}");
            bob.close("r");
            assert_eq!(write(&mut bob, &uri), 2, "{context}");
            assert_eq!(write(&mut user(client, program, ALICE, 0o077), &uri), 3, "{context}");
            assert_eq!(names(&board), ["board.db"], "{context}");
        }
    });
}

/// A service runs as root and has the board open when the board gets another user, group and mode. The sidecar gets them, too,
/// within a second.
#[test]
fn the_sidecar_follows_the_database() {
    if !is_root() {
        return;
    }
    let board = Board::new();
    may(&board.directory(), 0o777);
    let mut service = agent(Program::Python);
    create(&mut service, &board.kanban(), "delete");
    service.open("c", &board.kanban(), 0);
    service.sql("c", "INSERT INTO t VALUES (2)").rows();
    for (mode, user, group) in [(0o600, 2001, 2001), (0o664, 2002, TEAM), (0o640, 0, 0)] {
        chown(board.path(), Some(user), Some(group)).unwrap();
        may(&board.path(), mode);
        std::thread::sleep(Duration::from_millis(1100));
        service.sql("c", "INSERT INTO t VALUES (3)").rows();
        let sidecar = board.sidecar().metadata().unwrap();
        assert_eq!((sidecar.mode() & 0o777, sidecar.uid(), sidecar.gid()), (mode, user, group));
    }
}

/// In a directory like /tmp, somebody has put something where root's sidecar belongs: a link to a file of root's, a second name
/// of that user's own file, or another program's file. It is not changed, given to another user or deleted, and the board is
/// written as on the stock VFS.
#[test]
fn a_planted_sidecar_is_left_alone() {
    if !is_root() {
        return;
    }
    let plants: [fn(&Path, &Path); 4] = [
        |own, sidecar| symlink(own, sidecar).unwrap(),
        |own, sidecar| fs::hard_link(own, sidecar).unwrap(),
        |_, sidecar| fs::write(sidecar, "process 4711").unwrap(),
        |_, sidecar| fs::write(sidecar, "SQLite format 3\0".repeat(256)).unwrap(),
    ];
    for (nth, plant) in plants.into_iter().enumerate() {
        for (mode, program) in [("wal", Program::Python), ("delete", Program::Rust)] {
            let board = Board::new();
            may(&board.directory(), 0o1777);
            let mut root = agent(program);
            create(&mut root, &board.kanban(), mode);
            chown(board.path(), Some(ALICE.0), Some(TEAM)).unwrap();
            let own = board.directory().join("own");
            fs::write(&own, b"kanban-vfs\0\0\x03\0\0\0").unwrap();
            plant(&own, &board.sidecar());
            for path in [&own, &board.sidecar()] {
                chown(path, Some(4711), Some(4711)).unwrap();
                may(path, 0o644);
            }
            let look =
                || (fs::metadata(board.sidecar()).unwrap(), fs::read(board.sidecar()).unwrap());
            let before = look();
            for rows in [2, 3] {
                assert_eq!(write(&mut root, &board.kanban()), rows, "{nth}, {mode}");
            }
            let after = look();
            let whose =
                |found: &fs::Metadata| (found.uid(), found.gid(), found.mode(), found.ino());
            assert_eq!(whose(&before.0), whose(&after.0), "{nth}, {mode}");
            assert_eq!(before.1, after.1, "{nth}, {mode}");
        }
    }
}

/// Clients that cannot use the sidecar, and what prevents it: `keep` does that while others have the board open, and `mend`
/// undoes it.
struct Obstacle {
    what: &'static str,
    keep: fn(&Board),
    mend: fn(&Board),
}

const OBSTACLES: [Obstacle; 4] = [
    Obstacle {
        what: "Permission denied",
        keep: |board| {
            chown(board.sidecar(), Some(4711), Some(4711)).unwrap();
            may(&board.sidecar(), 0o600);
        },
        mend: |board| may(&board.sidecar(), 0o666),
    },
    Obstacle {
        what: "something else",
        keep: |board| instead(board, b"another program's"),
        mend: |board| fs::rename(board.directory().join("away"), board.sidecar()).unwrap(),
    },
    Obstacle {
        what: "a newer version",
        keep: |board| instead(board, b"kanban-vfs\0\0\x04\0\0\0"),
        mend: |board| fs::rename(board.directory().join("away"), board.sidecar()).unwrap(),
    },
    Obstacle {
        what: "cannot create",
        keep: |board| {
            fs::rename(board.sidecar(), board.directory().join("away")).unwrap();
            may(&board.directory(), 0o755);
        },
        mend: |board| {
            may(&board.directory(), 0o777);
            fs::rename(board.directory().join("away"), board.sidecar()).unwrap();
        },
    },
];

/// Alice has the sidecar, but Bob cannot have it. Each waits for the other, by SQLite's own locks, and both write all their
/// rows. Bob gets the reason once. When he can have the sidecar, he uses it.
#[test]
fn clients_with_and_without_the_sidecar_exclude_each_other() {
    if !is_root() {
        return;
    }
    for obstacle in OBSTACLES {
        for program in Program::ALL {
            mixed("wal", program, &obstacle);
        }
    }
    // In delete mode, a rollback journal is created in the directory.
    for obstacle in &OBSTACLES[..2] {
        mixed("delete", Program::Python, obstacle);
    }
}

/// Puts a file with that content in the sidecar's place.
fn instead(board: &Board, content: &[u8]) {
    fs::rename(board.sidecar(), board.directory().join("away")).unwrap();
    fs::write(board.sidecar(), content).unwrap();
    may(&board.sidecar(), 0o666);
}

fn mixed(mode: &str, program: Program, obstacle: &Obstacle) {
    let context = format!("{mode}, {program:?}, {}", obstacle.what);
    let board = Board::new();
    may(&board.directory(), 0o777);
    let mut alice = user(Ours, program, ALICE, 0o022);
    let mut bob = user(Ours, Program::Rust, BOB, 0o022);
    create(&mut alice, &board.kanban(), mode);
    may(&board.path(), 0o666);
    alice.open("c", &board.kanban(), 60_000);
    alice.sql("c", "INSERT INTO t VALUES (0)").rows();
    (obstacle.keep)(&board);

    bob.open("c", &board.kanban(), 60_000);
    bob.open("hasty", &board.kanban(), 0);
    bob.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
    assert_ne!(holder(&board.sidecar()), Some(bob.pid()), "{context}");
    let why = status_of(&mut bob, "c", "/guarantees/write_lock/why");
    assert!(why.as_str().unwrap().contains(obstacle.what), "{context}: {why}");
    alice.send_sql("c", "INSERT INTO t VALUES (2)");
    assert_eq!(alice.reply_within(Duration::from_millis(60)), None, "{context}: beside bob");
    bob.sql("c", "COMMIT").rows();
    alice.reply().rows();
    alice.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (3)").rows();
    assert_eq!(bob.sql("hasty", "BEGIN IMMEDIATE").code(), SQLITE_BUSY, "{context}");
    bob.send_sql("c", "INSERT INTO t VALUES (4)");
    assert_eq!(bob.reply_within(Duration::from_millis(60)), None, "{context}: beside alice");
    alice.sql("c", "COMMIT").rows();
    bob.reply().rows();

    let row = "BEGIN IMMEDIATE; INSERT INTO t SELECT max(x) + 1 FROM t; COMMIT";
    let rows = vec![row; 40].join(";");
    alice.send_sql("c", &rows);
    bob.send_sql("c", &rows);
    alice.reply().rows();
    bob.reply().rows();
    let found = bob.sql("c", "SELECT count(*), max(x) FROM t").rows();
    assert_eq!(found, [[86, 84]], "{context}");
    assert_eq!(bob.sql("c", "PRAGMA integrity_check").rows(), [["ok"]], "{context}");
    let mut log = bob.log();
    log.retain(|line| line.contains("the sidecar"));
    let [line] = &log[..] else { panic!("{context}: not one line: {log:?}") };
    assert!(line.contains(obstacle.what) && line.contains("board.db-lock"), "{line}");

    (obstacle.mend)(&board);
    std::thread::sleep(Duration::from_millis(1100));
    bob.sql("c", "BEGIN IMMEDIATE").rows();
    assert_eq!(holder(&board.sidecar()), Some(bob.pid()), "{context}");
    bob.sql("c", "COMMIT").rows();
    assert_eq!(status_of(&mut bob, "c", "/guarantees/write_lock/active"), true, "{context}");
}

/// Another application has a lock file with the sidecar's name, and has locked all of it. Nobody waits for it.
#[test]
fn another_programs_lock_file_locks_nobody_out() {
    for (mode, client) in [("wal", Stock), ("wal", Ours), ("delete", Stock), ("delete", Ours)] {
        for program in Program::ALL {
            let board = Board::new();
            fs::write(board.sidecar(), "4711\n").unwrap();
            let file = fs::File::options().read(true).write(true).open(board.sidecar()).unwrap();
            // SAFETY: all of its fields are integers.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as _;
            // SAFETY: the descriptor is open, the struct is what the command asks for.
            let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
            assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
            let mut agent = client.start(program);
            create(&mut agent, &client.uri(&board), mode);
            assert_eq!(write(&mut agent, &client.uri(&board)), 2, "{mode}, {client:?}");
            assert_eq!(fs::read(board.sidecar()).unwrap(), b"4711\n");
        }
    }
}

/// Another application has an empty lock file with the sidecar's name, which it locks now and then (flock(2)). While it is
/// locked, the file stays as it is: nobody changes its rights, or deletes it.
#[test]
fn another_programs_empty_lock_file_stays() {
    for (mode, program) in [("wal", Program::Python), ("delete", Program::Rust)] {
        for is_locked in [true, false] {
            let board = Board::new();
            fs::write(board.sidecar(), "").unwrap();
            may(&board.sidecar(), 0o600);
            let file = fs::File::options().read(true).write(true).open(board.sidecar()).unwrap();
            if is_locked {
                // SAFETY: it takes numbers.
                assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
            }
            let mut agent = agent(program);
            create(&mut agent, &board.kanban(), mode);
            for rows in [2, 3] {
                assert_eq!(write(&mut agent, &board.kanban()), rows, "{mode}");
                let (own, now) = (file.metadata().unwrap(), fs::metadata(board.sidecar()).unwrap());
                assert_eq!((own.ino(), now.mode() & 0o777), (now.ino(), 0o600), "{mode}");
                assert_eq!(now.len() == 0, is_locked, "{mode}");
            }
        }
    }
}

/// Connections of a process that cannot have a sidecar do not wait. None gets the answer that the board is locked when it is
/// not, even while another connection is about to look for the sidecar again.
#[test]
fn nobody_is_refused_for_a_sidecar_that_cannot_be() {
    let board = Board::new();
    fs::create_dir(board.sidecar()).unwrap();
    let (mut agent, began) = (agent(Program::Python), std::time::Instant::now());
    create(&mut agent, &board.kanban(), "wal");
    agent.open("a", &board.kanban(), 0);
    agent.open("b", &board.kanban(), 0);
    while began.elapsed() < Duration::from_millis(2500) {
        for name in ["a", "b"] {
            let sql = "PRAGMA synchronous=off; BEGIN IMMEDIATE; INSERT INTO t VALUES (1); COMMIT";
            agent.sql(name, sql).rows();
        }
    }
    agent.sql("a", "BEGIN IMMEDIATE").rows();
    assert!(agent.sql("b", "BEGIN IMMEDIATE").message().contains("locked"));
    agent.sql("a", "COMMIT").rows();
    assert_eq!(beside(&board, "-lock").read_dir().unwrap().count(), 0);
}

//! An operator asks whether a board is sound. Each damage is done to a board that was found sound
//! before, and is found by its name.

use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use serde_json::Value;
use vfs_tests::Board;

use crate::{beside, board, client, json, outcome};

/// The states of a step's findings, and all that is said of it.
#[track_caller]
fn step(report: &Value, name: &str) -> (String, String) {
    let findings = report["findings"].as_array().unwrap();
    let mut of_step = findings.iter().filter(|finding| finding["step"] == name).peekable();
    let state = of_step.peek().unwrap_or_else(|| panic!("no {name}: {report}"))["state"].clone();
    let text: Vec<_> = of_step.map(|finding| finding["text"].as_str().unwrap()).collect();
    (state.as_str().unwrap().to_owned(), text.join(" "))
}

#[track_caller]
fn is_sound(board: &Board) {
    let (code, report) = json("check", &board.path());
    assert_eq!((code, report["state"].as_str()), (Some(0), Some("ok")), "{report}");
}

/// Exit status 1, and one step is a problem that says so.
#[track_caller]
fn has(board: &Board, name: &str, words: &str) -> Value {
    let (code, report) = json("check", &board.path());
    let (state, text) = step(&report, name);
    assert_eq!((code, state.as_str()), (Some(1), "problem"), "{report:#}");
    assert!(text.contains(words), "{text}");
    report
}

#[test]
fn a_sound_board_is_ok_also_while_it_is_written() {
    let board = board();
    is_sound(&board);
    let mut writer = client(&board, "kanban");
    for _ in 0..20 {
        writer.sql("c", "INSERT INTO tasks (title) VALUES (randomblob(5000))").rows();
    }
    is_sound(&board);
    writer.sql("c", "BEGIN IMMEDIATE").rows();
    is_sound(&board);
    writer.sql("c", "COMMIT").rows();
    let (code, text, _) = outcome(&[&"check", &board.path()]);
    assert_eq!(code, Some(0));
    assert!(text.contains("quick_check     ok"), "{text}");
}

/// A name need not be UTF-8, and may have characters that mean something in a URI.
#[test]
fn it_checks_the_file_that_was_named() {
    for name in [&b"\xff.db"[..], b"%41 ?#&.db"] {
        let board = board();
        let path = board.directory().join(std::ffi::OsStr::from_bytes(name));
        std::fs::copy(board.path(), &path).unwrap();
        let (code, report) = json("check", &path);
        assert_eq!((code, report["state"].as_str()), (Some(0), Some("ok")), "{report}");
    }
}

/// It writes nothing: neither the database nor the WAL of a board that nobody else has open.
#[test]
fn it_changes_nothing() {
    let board = board();
    let mut writer = client(&board, "kanban");
    writer.sql("c", "INSERT INTO tasks (title) VALUES ('in the WAL')").rows();
    writer.kill();
    let content =
        || ["", "-wal", "-lock"].map(|suffix| std::fs::read(beside(&board, suffix)).unwrap());
    let before = content();
    assert!(!before[1].is_empty());
    is_sound(&board);
    assert_eq!(content(), before);
}

/// A board in WAL mode that nobody has open has no `-wal` and no `-shm`, and none are left beside it. While a client has
/// it open, its files stay.
#[test]
fn it_leaves_no_file_behind() {
    let board = board();
    let names = || {
        let entries = std::fs::read_dir(board.directory()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (before, content) = (names(), std::fs::read(board.path()).unwrap());
    assert_eq!(before, ["board.db"]);
    assert_eq!(content[18..20], [2, 2], "it is in WAL mode");
    is_sound(&board);
    assert_eq!(names(), before);
    assert_eq!(std::fs::read(board.path()).unwrap(), content);
    for vfs in ["unix", "kanban"] {
        let mut writer = client(&board, vfs);
        writer.sql("c", "INSERT INTO tasks (title) VALUES ('in the WAL')").rows();
        let (before, wal) = (names(), std::fs::read(beside(&board, "-wal")).unwrap());
        is_sound(&board);
        assert_eq!(names(), before, "{vfs}");
        assert_eq!(std::fs::read(beside(&board, "-wal")).unwrap(), wal, "{vfs}");
        writer.close("c");
    }
    is_sound(&board);
    assert_eq!(names(), ["board.db"]);
}

#[test]
fn it_finds_a_database_that_was_cut_short() {
    let board = board();
    is_sound(&board);
    let file = OpenOptions::new().write(true).open(board.path()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
    has(&board, "file length", "4096 bytes shorter");
}

/// A client has the board open and frames in the WAL, which somebody deletes. A client that opens
/// the board then finds an empty WAL: the tool does not open it.
#[test]
fn it_finds_a_wal_that_was_deleted_under_a_client() {
    let board = board();
    let mut writer = client(&board, "kanban");
    writer.sql("c", "INSERT INTO tasks (title) VALUES ('in the WAL')").rows();
    is_sound(&board);
    std::fs::remove_file(beside(&board, "-wal")).unwrap();
    let report = has(&board, "WAL", "frames which the WAL has not");
    assert_eq!(step(&report, "quick_check").0, "unchecked");
    assert_eq!(step(&report, "displaced files").0, "problem");
    assert!(!beside(&board, "-wal").exists());
}

/// A client has a sidecar open that was replaced by another: until it looks again, two writers go by
/// SQLite's locks alone.
#[test]
fn it_finds_a_sidecar_that_was_replaced() {
    let board = board();
    let mut first = client(&board, "kanban");
    first.sql("c", "BEGIN IMMEDIATE").rows();
    is_sound(&board);
    let other = board.directory().join("other");
    std::fs::copy(board.sidecar(), &other).unwrap();
    std::fs::rename(&other, board.sidecar()).unwrap();
    let report = has(&board, "displaced files", "a sidecar");
    assert!(step(&report, "displaced files").1.contains(&format!("pid {}", first.pid())));
}

#[test]
fn it_finds_a_database_that_was_replaced_under_a_client() {
    let board = board();
    let mut first = client(&board, "kanban");
    first.sql("c", "SELECT count(*) FROM tasks").rows();
    let other = board.directory().join("other");
    std::fs::copy(board.path(), &other).unwrap();
    std::fs::rename(&other, board.path()).unwrap();
    has(&board, "displaced files", "a database");
}

#[test]
fn it_finds_hard_links() {
    let board = board();
    std::fs::hard_link(board.path(), board.directory().join("second.db")).unwrap();
    has(&board, "hard links", "2 hard links");
}

#[test]
fn it_finds_a_sidecar_that_is_somebody_elses() {
    let board = board();
    std::fs::write(board.sidecar(), "the notes of somebody else").unwrap();
    has(&board, "sidecar", "something else");
    assert_eq!(std::fs::read(board.sidecar()).unwrap(), b"the notes of somebody else");
}

/// In the WAL's place is something that SQLite cannot write to, or that makes a reader wait.
#[test]
fn it_finds_a_wal_that_is_no_file() {
    let board = board();
    let wal = beside(&board, "-wal");
    let _ = std::fs::remove_file(&wal);
    is_sound(&board);
    let _ = std::fs::remove_file(&wal);
    std::fs::create_dir(&wal).unwrap();
    has(&board, "WAL", "the -wal file is a directory");
    std::fs::remove_dir(&wal).unwrap();
    vfs_tests::run("mkfifo", &[wal.to_str().unwrap()]);
    let report = has(&board, "WAL", "the -wal file is a FIFO");
    assert_eq!(step(&report, "quick_check").0, "unchecked");
}

#[test]
fn it_finds_a_page_that_was_overwritten() {
    let board = board();
    let file = OpenOptions::new().write(true).open(board.path()).unwrap();
    file.write_all_at(&[0xa5; 4096], 2 * 4096).unwrap();
    has(&board, "quick_check", "");
}

/// A writer in DELETE mode is killed when a part of its transaction is in the database already. A
/// read-only client cannot roll that back, and the tool says who can.
#[test]
fn it_names_a_hot_journal() {
    let board = board();
    let mut writer = client(&board, "kanban");
    for sql in [
        "PRAGMA journal_mode=delete",
        "PRAGMA cache_size=2",
        "BEGIN IMMEDIATE",
        "UPDATE tasks SET title = hex(randomblob(500))",
    ] {
        writer.sql("c", sql).rows();
    }
    writer.kill();
    let (code, report) = json("check", &board.path());
    let (state, text) = step(&report, "quick_check");
    assert_eq!((code, state.as_str()), (Some(2), "unchecked"), "{report:#}");
    assert!(text.contains("hot journal"), "{text}");
    client(&board, "kanban").sql("c", "SELECT count(*) FROM tasks").rows();
    is_sound(&board);
}

/// A client that writes that many frames of the WAL, and copies none of them by itself.
fn writer_of(board: &Board, frames: usize) -> vfs_tests::Agent {
    let mut writer = client(board, "kanban");
    for sql in [
        "PRAGMA wal_autocheckpoint=0",
        "PRAGMA synchronous=off",
        "CREATE TABLE IF NOT EXISTS large (x)",
        &format!(
            "INSERT INTO large WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {frames}) \
             SELECT zeroblob(4000) FROM n"
        ),
    ] {
        writer.sql("c", sql).rows();
    }
    writer
}

/// Exit status 3: the board is sound, and its WAL grows for that reason, which the text says in these words.
#[track_caller]
fn grows(board: &Board, why: &str, words: &[&str]) {
    let (code, report) = json("check", &board.path());
    assert_eq!((code, report["state"].as_str()), (Some(3), Some("grows")), "{report:#}");
    assert_eq!(report["wal"]["size"], why, "{report:#}");
    let (state, text) = step(&report, "WAL size");
    assert_eq!(state, "grows");
    for words in words {
        assert!(text.contains(words), "no {words}: {text}");
    }
    assert_eq!(step(&report, "quick_check").0, "ok", "{report:#}");
    let (code, text, _) = outcome(&[&"check", &board.path()]);
    assert_eq!(code, Some(3));
    assert!(text.contains("GROWS   WAL size"), "{text}");
}

/// A reader keeps its snapshot for long. Others write 5000 frames, which no checkpoint can copy:
/// the reader is named. When it has ended, they are copied, and the file keeps its size, which does
/// no harm.
#[test]
fn it_names_who_pins_the_wal() {
    let board = board();
    let mut reader = client(&board, "kanban");
    reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
    let mut writer = writer_of(&board, 5000);
    writer.sql("c", "PRAGMA wal_checkpoint").rows();
    let pid = format!("pid {} (python3) reads", reader.pid());
    grows(&board, "pinned", &["readers keep it from being copied", &pid, "agent.py"]);
    reader.sql("c", "COMMIT").rows();
    for sql in
        ["PRAGMA wal_checkpoint", "INSERT INTO tasks (title) VALUES ('the first frame again')"]
    {
        writer.sql("c", sql).rows();
    }
    is_sound(&board);
    let (_, report) = json("check", &board.path());
    assert_eq!(report["wal"]["size"], "kept", "{report:#}");
    assert!(step(&report, "WAL size").1.contains("keeps the size"), "{report:#}");
}

/// The writers have switched autocheckpoint off, and no other client checkpoints.
#[test]
fn it_says_that_nobody_checkpoints() {
    let board = board();
    let _writer = writer_of(&board, 5000);
    grows(&board, "no_checkpoints", &["wal_autocheckpoint is 0"]);
}

/// All frames are copied, but whenever a client wrote, another was reading, so the WAL could not be
/// reset.
#[test]
fn it_says_that_the_wal_is_never_reset() {
    let board = board();
    let mut writer = writer_of(&board, 5000);
    let mut reader = client(&board, "kanban");
    reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
    let copied = writer.sql("c", "PRAGMA wal_checkpoint").rows();
    assert_eq!(copied[0][1], copied[0][2], "all is copied");
    writer.sql("c", "INSERT INTO tasks (title) VALUES ('behind it')").rows();
    grows(
        &board,
        "never_reset",
        &["never reset", &format!("pid {} (python3) reads", reader.pid())],
    );
}

/// The process that checkpoints may not make files as large as the database is to become.
#[test]
fn it_says_that_checkpoints_fail() {
    vfs_tests::needs!("prlimit");
    let board = board();
    let _writer = writer_of(&board, 5000);
    let mut limited = vfs_tests::Agent::start_stock(vfs_tests::Program::Python, "");
    limited.open("c", &board.uri("unix"), 0);
    limited.sql("c", "SELECT count(*) FROM tasks").rows();
    vfs_tests::run("prlimit", &["--pid", &limited.pid().to_string(), "--fsize=1000000"]);
    let why = limited.sql("c", "PRAGMA wal_checkpoint").message();
    assert!(why.contains("full") || why.contains("I/O"), "{why}");
    grows(&board, "checkpoints_fail", &["has begun and not ended"]);
}

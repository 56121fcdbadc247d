//! What is no board, or may not be looked at: a line that says so, and exit status 2.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use vfs_tests::{is_root, run};

use crate::{TOOL, board, client, json, outcome};

const COMMANDS: [&str; 3] = ["status", "watch", "check"];

#[track_caller]
fn is_refused(command: &str, path: &dyn AsRef<std::ffi::OsStr>, words: &str) {
    let (code, out, errors) = outcome(&[&command, path]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{command}: {errors}");
    assert!(errors.contains(words), "{command}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_path_without_a_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    for command in COMMANDS {
        is_refused(command, &directory.path().join("missing.db"), "no such file");
        is_refused(command, &directory.path().join("missing/board.db"), "no such file");
        is_refused(command, &directory.path(), "directory");
        is_reported(&directory.path().join("missing.db"), "no such file");
        // Nobody writes to it: to open it would be to wait forever.
        is_refused(command, &fifo, "FIFO");
        is_refused(command, &"/dev/null", "device");
    }
}

#[test]
fn a_file_that_is_no_database_cannot_be_checked() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    for content in ["short", &"long ".repeat(1000)] {
        std::fs::write(&text, content).unwrap();
        is_refused("check", &text, "no SQLite database");
        is_reported(&text, "no SQLite database");
        assert_eq!(std::fs::read_to_string(&text).unwrap(), content);
    }
}

/// A script that reads `check --json` has its JSON also when nothing could be checked.
#[track_caller]
fn is_reported(path: &std::path::Path, words: &str) {
    let (code, report) = json("check", path);
    assert_eq!((code, report["state"].as_str()), (Some(2), Some("unchecked")), "{report}");
    assert_eq!(report["database"], path.to_str().unwrap());
    assert!(report["error"].as_str().unwrap().contains(words), "{report}");
}

/// An empty file is an SQLite database that nothing was written to yet.
#[test]
fn an_empty_file_is_ok() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let (code, out, _) = outcome(&[&"check", &empty]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("empty"), "{out}");
    assert_eq!(empty.metadata().unwrap().len(), 0);
}

/// A user who may not enter the directory, and one who may see the board and not read it.
#[test]
fn missing_permissions_are_named() {
    let board = board();
    let place = tempfile::tempdir().unwrap();
    let allow = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(place.path(), 0o755);
    let tool = place.path().join("tool");
    std::fs::copy(TOOL, &tool).unwrap();
    let as_nobody_says = |command: &str| {
        let mut it = Command::new(&tool);
        it.arg(command).arg(board.path()).current_dir("/");
        if is_root() {
            it.uid(65534).gid(65534);
        }
        let output = it.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let as_nobody = |command: &str| {
        let (code, _, errors) = as_nobody_says(command);
        (code, errors)
    };
    allow(&board.directory(), 0o000);
    let refused = COMMANDS.map(as_nobody);
    allow(&board.directory(), 0o755);
    for (code, errors) in refused {
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains("permission denied"), "{errors}");
    }
    // It is there while somebody has it open. Writers may have the right to read it that this user has not.
    let mut writer = client(&board, "kanban");
    writer.sql("c", "BEGIN IMMEDIATE; COMMIT").rows();
    let owners_only = if is_root() { 0o600 } else { 0o000 };
    allow(&board.sidecar(), owners_only);
    let (code, out, errors) = as_nobody_says("check");
    assert_eq!(code, Some(2), "{out}{errors}");
    let (code, out, errors) = as_nobody_says("status");
    assert_eq!(code, Some(0), "{out}{errors}");
    assert!(!out.contains("does not hold: write_lock"), "{out}");
    allow(&board.sidecar(), 0o644);
    allow(&board.path(), 0o000);
    assert_eq!(as_nobody("status").0, Some(0), "it needs the sidecar only");
    let (code, errors) = as_nobody("check");
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("permission denied"), "{errors}");
}

/// Arguments that are wrong are told from problems that were found.
#[test]
fn wrong_arguments_have_the_same_exit_status() {
    for arguments in [&["status"][..], &["look", "board.db"], &["stress", "--vfs", "best"]] {
        let arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
            arguments.iter().map(|a| a as &dyn AsRef<std::ffi::OsStr>).collect();
        let (code, _, errors) = outcome(&arguments);
        assert_eq!(code, Some(2), "{errors}");
    }
}

//! The examples of clients in C, built and run as their comments say.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use vfs_tests::needs::{CXX, SQLITE_HEADER};
use vfs_tests::{Agent, PATIENCE, Program, extension, needs, run, uri_of};

/// Builds examples/c/board.c with those arguments of cc as well. Eight processes of it write 20
/// tasks each to one new board; returns what the board holds.
fn write_from_c(arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let [program, board] = ["board", "board.db"].map(|file| directory.path().join(file));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c/board.c");
    let mut cc = vec!["-Wall", "-Wextra", "-Werror", source.to_str().unwrap()];
    cc.extend(["-lsqlite3", "-o", program.to_str().unwrap()]);
    cc.extend(arguments);
    run("cc", &cc);

    // All wait in the queue, as only clients of the VFS do.
    let mut holder = Agent::start(Program::Python, "");
    holder.open("c", &uri_of(&board, "kanban"), 0);
    holder.sql("c", "BEGIN EXCLUSIVE").rows();
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let arguments = [n.to_string(), "20".to_owned()];
            let mut writer = Command::new(&program);
            // Cargo's, which leads to another build of the library.
            writer.env_remove("LD_LIBRARY_PATH");
            writer.arg(&board).args(arguments).arg(extension()).spawn().unwrap()
        })
        .collect();
    let began = Instant::now();
    loop {
        let status = holder.sql("c", "PRAGMA kanban_status").rows();
        let status: Value = serde_json::from_str(status[0][0].as_str().unwrap()).unwrap();
        if status["waiters"].as_u64() > Some(0) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the VFS was not used: {status}");
    }
    holder.sql("c", "COMMIT").rows();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let count = "SELECT count(*), count(DISTINCT who) FROM tasks; PRAGMA integrity_check";
    run("sqlite3", &[board.to_str().unwrap(), count])
}

/// A worker in C loads the extension.
#[test]
fn c_loads_it() {
    needs!(SQLITE_HEADER, "sqlite3");
    assert_eq!(write_from_c(&[]), "160|8\nok\n");
}

/// A worker in C is linked with the library, whose header every C and C++ compiler takes.
#[test]
fn c_links_it() {
    needs!(SQLITE_HEADER, CXX, "sqlite3");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
    let include = format!("-I{}", include.display());
    let libraries = extension().parent().unwrap().display();
    let (search, rpath) = (format!("-L{libraries}"), format!("-Wl,-rpath,{libraries}"));
    let link = ["-DKANBAN_VFS_LINKED", &include, &search, "-lkanban_vfs", &rpath];
    assert_eq!(write_from_c(&link), "160|8\nok\n");
    let header = "../include/kanban_vfs.h";
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join(header);
    for language in ["c", "c++"] {
        let strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", language];
        run("gcc", &[&strict[..], &[header.to_str().unwrap()]].concat());
    }
}

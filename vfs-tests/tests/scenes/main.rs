//! The first rule, as a table: in every scene the stock VFS is no better than this one.
//!
//! A scene is a line of [`table`]: who does what, step by step, in real processes on a board of one row. It runs on the
//! stock VFS and on this one, in WAL mode with Debian's SQLite 3.40.1 and with a rollback journal and the newest (with
//! `KANBAN_SCENES=all`, each with each). Then ours must not be worse:
//!
//! - A step that gives a value on the stock VFS gives the same one. One that fails there may succeed or fail.
//! - No step hangs, and no process dies, unless it does on the stock VFS.
//! - Afterwards, when all processes have closed their files and ended, a stock client finds in each
//!   database below the directory at least the rows that the stock VFS has kept, and each database
//!   as sound. No file is left that the stock VFS does not leave, and none has another owner or
//!   mode.
//!
//! A scene also says which of its steps fail on the stock VFS, and fails if others do or one of them does not: it does not
//! play its story then. Nor does one after which a database cannot be read, or is damaged, on the stock VFS.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod scene;
mod table;

use scene::{Scene, fails};
use table::{
    BACKUPS, BROKEN_DISKS, CLOCKS, DESCRIPTORS, DISKS, FORKS, LOCKS, MODES, NAMES, PEOPLE, SIGNALS,
};

/// Runs the scenes, and fails with all in which ours is worse, or which do not play their story.
fn never_worse(scenes: &[Scene]) {
    let worse: Vec<String> = scenes.iter().flat_map(fails).collect();
    assert!(
        worse.is_empty(),
        "worse than the stock VFS, or not the scene's story:\n{}",
        worse.join("\n")
    );
}

#[test]
fn people_and_rights() {
    vfs_tests::needs!(vfs_tests::needs::ROOT);
    never_worse(PEOPLE);
}

#[test]
fn descriptors() {
    never_worse(DESCRIPTORS);
}

#[test]
fn forks() {
    never_worse(FORKS);
}

#[test]
fn clocks() {
    vfs_tests::needs!("faketime");
    never_worse(CLOCKS);
}

#[test]
fn signals() {
    never_worse(SIGNALS);
}

#[test]
fn disks() {
    vfs_tests::needs!(vfs_tests::needs::ROOT, "mount");
    never_worse(DISKS);
}

#[test]
fn broken_disks() {
    vfs_tests::needs!(vfs_tests::needs::ROOT, "mount", "mkfs.ext4");
    if !std::fs::exists("/dev/loop-control").unwrap_or(false) {
        return vfs_tests::skip!("needs loop devices");
    }
    never_worse(BROKEN_DISKS);
}

#[test]
fn backups() {
    never_worse(BACKUPS);
}

#[test]
fn names() {
    never_worse(NAMES);
}

#[test]
fn modes() {
    never_worse(MODES);
}

#[test]
fn locks_of_others() {
    never_worse(LOCKS);
}

/// A table in which nothing can be worse proves nothing. So a step that fails on ours only is
/// found, and a file that stays, a lost row, also in another database, a process that dies and one
/// that hangs. A scene that does not play its story is found, too: on the stock VFS an error comes
/// that the scene does not name, a named one does not come, or a database is damaged.
#[test]
fn a_worse_result_is_found() {
    for (steps, expected) in [
        ("a: sql('no such statement') if VFS == 'kanban' else 1", "a: sql"),
        ("a: write() if VFS == 'unix' else None", "rows"),
        ("a: open('left', 'w') if VFS == 'kanban' else None; None", "left"),
        ("a: make('other.db') | a: once('other.db') if VFS == 'unix' else None; None", "other.db"),
        ("a: os.abort() if VFS == 'kanban' else None", "ends, signal: 6"),
        ("a: time.sleep(1000) if VFS == 'kanban' else None", "hangs"),
        ("a: os.chmod('board.db', 0o600) if VFS == 'kanban' else None", "board.db"),
        ("a: sql('no such statement')", "is to give a value"),
        ("a: !write()", "is to fail"),
        ("a: wal! write() if JOURNAL == 'wal' else sql('no such statement')", "is to"),
        ("a: make('other.db') | a: os.truncate('other.db', 4096)", "other.db"),
    ] {
        let found = fails(&Scene { name: "worse", steps });
        assert!(!found.is_empty() && found.iter().all(|line| line.contains(expected)), "{found:?}");
    }
}

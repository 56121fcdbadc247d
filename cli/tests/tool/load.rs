//! `stress` and `bench`.

use std::process::{Command, Stdio};

use crate::{TOOL, board, client, outcome, until};

/// Four processes write, and are killed ten times a second: all that was acknowledged is there.
#[test]
fn stress_ends_with_all_rows() {
    let (code, out, errors) = outcome(&[
        &"stress",
        &"--processes=4",
        &"--transactions=150",
        &"--think=5",
        &"--kill-per-minute=600",
    ]);
    assert_eq!(code, Some(0), "{out}{errors}");
    assert!(out.contains("lost         0 of them"), "{out}");
    assert!(out.contains("integrity    ok"), "{out}");
    assert!(!out.contains(" 0 writers killed"), "{out}");
    assert!(out.contains("longest") && out.contains('\u{2588}'), "{out}");
}

/// A table by its name is there already, from a burst that was killed, or somebody's own.
#[test]
fn stress_writes_to_no_table_that_is_there() {
    let board = board();
    let mut client = client(&board, "kanban");
    client.sql("c", "CREATE TABLE kanban_vfs_stress (precious)").rows();
    client.sql("c", "INSERT INTO kanban_vfs_stress VALUES (1)").rows();
    let (code, _, errors) = outcome(&[&"stress", &"--existing", &board.path()]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("left by an earlier burst: DROP TABLE kanban_vfs_stress"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert_eq!(client.sql("c", "SELECT precious FROM kanban_vfs_stress").rows(), [[1]]);
}

/// A board that exists is not written to, unless it is said to be meant; then nothing is left behind.
#[test]
fn stress_leaves_an_existing_board_alone() {
    let board = board();
    let path = board.path();
    let before = std::fs::read(&path).unwrap();
    let (code, _, errors) = outcome(&[&"stress", &path]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("--existing"), "{errors}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let few = "--transactions=5";
    let (code, out, errors) = outcome(&[&"stress", &"--existing", &few, &path]);
    assert_eq!(code, Some(0), "{out}{errors}");
    let mut reader = client(&board, "kanban");
    let tables = reader.sql("c", "SELECT name FROM sqlite_schema WHERE type = 'table'").rows();
    assert_eq!(tables, [["tasks"]]);
    assert_eq!(reader.sql("c", "SELECT count(*) FROM tasks").rows(), [[500]]);
}

/// An operator has seen enough of a long burst: neither writers nor files nor a table are left.
#[test]
fn stress_cleans_up_when_it_is_interrupted() {
    let board = board();
    let path = board.path().display().to_string();
    let temporary = tempfile::tempdir().unwrap();
    for (signal, place) in [(libc::SIGINT, &[][..]), (libc::SIGTERM, &["--existing", &path])] {
        let mut burst = Command::new(TOOL)
            .args(["stress", "--processes=3", "--transactions=100000"])
            .args(place)
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = burst.id().to_string();
        let children = format!("/proc/{pid}/task");
        let writers = || {
            let tasks = std::fs::read_dir(&children).into_iter().flatten().flatten();
            let of =
                |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
            tasks.flat_map(of).collect::<Vec<_>>().concat().split_whitespace().count()
        };
        until(writers, |n| *n == 3);
        crate::signal(&pid, signal);
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut burst.stderr.take().unwrap(), &mut errors).unwrap();
        assert_eq!(burst.wait().unwrap().code(), Some(2), "{errors}");
        assert!(errors.contains("interrupted"), "{errors}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
    let mut reader = client(&board, "kanban");
    let tables = reader.sql("c", "SELECT name FROM sqlite_schema WHERE type = 'table'").rows();
    assert_eq!(tables, [["tasks"]]);
}

/// A new board is where it was asked for, in the journal mode that was asked for.
#[test]
fn stress_keeps_a_board_that_it_was_given_the_name_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("100% new?.db");
    let (code, out, errors) =
        outcome(&[&"stress", &path, &"--journal=delete", &"--transactions=5", &"--vfs=unix"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    let (code, out, _) = outcome(&[&"check", &path]);
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn bench_compares_in_one_run() {
    let (code, out, errors) =
        outcome(&[&"bench", &"--runs=1", &"--duration=100", &"--case=2,wal,normal,0"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    for line in ["| stock |", "| flock |", "| kanban |", "kanban against stock", "against flock"] {
        assert!(out.contains(line), "no {line}: {out}");
    }
}

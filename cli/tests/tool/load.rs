//! `stress` and `bench`.

use crate::{board, client, outcome};

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
    assert!(errors.contains("already exists"), "{errors}");
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

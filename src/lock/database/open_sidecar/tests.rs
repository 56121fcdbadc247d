use super::*;
use crate::lock::write_lock::tests::{board, take};

/// A forked child closes the sidecar that is open, and nothing if none is.
#[test]
fn a_child_knows_which_sidecar_is_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = board(&directory);
    let told = || database.sidecar.descriptor.load(Ordering::Relaxed);
    let opened = || database.queue().map(|queue| queue.sidecar().descriptor());
    assert_eq!(told(), -1);
    drop(take(&database, 1).expect("it is free"));
    assert!(told() >= 0 && Some(told()) == opened());
    database.close_sidecar_if_replaced();
    assert!(Some(told()) == opened(), "it is in its place");
    std::fs::remove_file(database.sidecar_path()).expect("it is there");
    database.close_sidecar_if_replaced();
    assert_eq!(told(), -1);
    assert_eq!(database.counters.sidecars_replaced.load(Ordering::Relaxed), 1);
    drop(take(&database, 1).expect("it is made anew"));
    assert!(told() >= 0 && Some(told()) == opened());
    database.sidecar.close();
    assert_eq!(told(), -1);
}

/// Somebody deletes the sidecar. The next writer that looks, a second later at the latest, makes a new one.
#[test]
fn a_writer_replaces_a_deleted_sidecar_a_second_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = board(&directory);
    for (check, replaced) in [(u64::MAX, 0), (0, 1)] {
        drop(take(&database, 1).expect("it is free"));
        std::fs::remove_file(database.sidecar_path()).expect("it is there");
        database.sidecar.next_check.store(check, Ordering::Relaxed);
        drop(take(&database, 1).expect("it is free"));
        assert_eq!(database.counters.sidecars_replaced.load(Ordering::Relaxed), replaced);
        assert_eq!(database.sidecar_path().exists(), replaced > 0);
        if replaced == 0 {
            std::fs::write(database.sidecar_path(), "").expect("a file");
        }
    }
}

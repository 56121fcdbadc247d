use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::*;
use crate::lock::page::{KINDS, LENGTH, PAGE};
use crate::lock::sidecar;

/// A database with a sidecar, and the directory that it lies in.
fn board() -> (tempfile::TempDir, Arc<Database>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.db");
    std::fs::write(&path, b"").expect("there is room");
    let database = Database::at(&path);
    database.make_sidecar();
    (directory, database)
}

fn kind(n: u32) -> Kind {
    Kind::of_hash(u64::from(n))
}

fn standing(database: &Database, n: u32) -> Standing {
    Kinds::of(database).expect("there is a page").standing(kind(n))
}

#[track_caller]
fn known(database: &Database, n: u32) -> KnownKind {
    match standing(database, n) {
        Standing::Writes(known) => known,
        standing => panic!("{standing:?}"),
    }
}

#[test]
fn a_kind_is_known_once_it_is_learned() {
    let (_directory, database) = board();
    assert_eq!(standing(&database, 1), Standing::New);
    for n in [1, 2, 1] {
        learn(&database, kind(n));
    }
    assert_eq!((known(&database, 1).nth, known(&database, 2).nth), (0, 1));
    assert_eq!(standing(&database, 3), Standing::New);
}

/// A kind whose transactions no longer write is forgotten, and one that writes now and then is not.
#[test]
fn a_kind_that_does_not_write_is_forgotten() {
    let (_directory, database) = board();
    learn(&database, kind(7));
    for n in 1..FORGETS_AFTER {
        note_use(&database, known(&database, 7), false);
        assert_eq!(known(&database, 7).bits, n);
    }
    note_use(&database, known(&database, 7), true);
    assert_eq!(known(&database, 7).bits, 0);
    for _ in 0..FORGETS_AFTER {
        note_use(&database, known(&database, 7), false);
    }
    assert_eq!(standing(&database, 7), Standing::Reads);
}

/// The first transaction of a kind is on trial. What it does decides how the next ones begin.
#[test]
fn a_kind_is_tried_out_once() {
    let (_directory, database) = board();
    let begins = |n| {
        let tried = try_out(&database, &Kinds::of(&database).expect("a page"), kind(n));
        assert_eq!(standing(&database, n), Standing::OnTrial);
        tried
    };
    trial_ended(&database, begins(1), Some(false));
    assert_eq!(standing(&database, 1), Standing::Reads);
    // The transaction writes while no other of its kind runs.
    let alone = begins(2);
    trial_writes(&database, alone);
    assert_eq!(standing(&database, 2), Standing::Writing);
    trial_ended(&database, alone, Some(true));
    assert_eq!(standing(&database, 2), Standing::New);
    // Another transaction of the kind begins while it writes.
    let not_alone = begins(3);
    trial_writes(&database, not_alone);
    learn(&database, kind(3));
    trial_ended(&database, not_alone, Some(true));
    known(&database, 3);
    // Another transaction waits for it in vain, and then it writes.
    let long = begins(4);
    trial_takes_long(&database, kind(4));
    trial_writes(&database, long);
    trial_ended(&database, long, Some(true));
    assert_eq!(standing(&database, 4), Standing::Reads);
    // Whether it wrote is not known.
    trial_ended(&database, begins(5), None);
    assert_eq!(standing(&database, 5), Standing::New);
}

/// A kind that reads makes room for one that writes, but not for an unknown one.
#[test]
fn a_page_that_is_full_tries_out_no_more() {
    let (_directory, database) = board();
    for n in 1..=KIND_ENTRIES as u32 {
        let kinds = Kinds::of(&database).expect("there is a page");
        trial_ended(&database, try_out(&database, &kinds, kind(n)), Some(false));
    }
    assert_eq!(standing(&database, 1000), Standing::Reads);
    learn(&database, kind(1000));
    known(&database, 1000);
    let left = (1..=KIND_ENTRIES as u32).filter(|n| {
        let kinds = Kinds::of(&database).expect("there is a page");
        kinds.find(kind(*n)).is_some()
    });
    assert_eq!(left.count(), KIND_ENTRIES - 1);
}

/// There are more kinds than places. The kind with the most transactions in a row without a write
/// makes room. Its later transactions do not count for the new kind.
#[test]
fn a_new_kind_takes_the_place_of_one_that_writes_least() {
    let (_directory, database) = board();
    for n in 1..=KIND_ENTRIES as u32 {
        learn(&database, kind(n));
    }
    let old = known(&database, 9);
    note_use(&database, old, false);
    learn(&database, kind(1000));
    assert_eq!(standing(&database, 9), Standing::Reads);
    assert_eq!(known(&database, 1000).nth, old.nth);
    note_use(&database, old, false);
    assert_eq!(known(&database, 1000).bits, 0);
}

/// Whatever bytes are on the page, each question has an answer, and the length of the sidecar does
/// not change.
#[test]
fn a_page_of_random_bytes_does_no_harm() {
    let (directory, database) = board();
    let path = sidecar::path_of(&directory.path().join("board.db"));
    let file = std::fs::File::options().write(true).open(path).expect("it is there");
    let mut seed = 1_u64;
    for n in 0..500 {
        let bytes: Vec<u8> = (KINDS..PAGE)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as u8
            })
            .collect();
        file.write_all_at(&bytes, KINDS as u64).expect("there is room");
        let kinds = Kinds::of(&database).expect("there is a page");
        if kinds.standing(kind(n)) == Standing::New {
            let tried = try_out(&database, &kinds, kind(n));
            trial_writes(&database, tried);
            trial_ended(&database, tried, (n % 3 != 0).then_some(n % 2 == 0));
        }
        trial_takes_long(&database, kind(n));
        learn(&database, kind(n));
        note_use(&database, known(&database, n), n % 2 == 0);
        assert_eq!(file.metadata().expect("it is open").len(), LENGTH as u64);
    }
    file.set_len(100).expect("it is open");
    assert!(Kinds::of(&database).is_none());
    assert_eq!(learn(&database, kind(1)), None);
}

#[test]
fn no_kind_is_that_of_a_free_entry() {
    for hash in [0, 1 << 32 | 1, u64::MAX] {
        assert_ne!(Kind::of_hash(hash), Kind(0));
        assert!(Kind::of_hash(hash).0 < 1 << KIND_BITS);
    }
}

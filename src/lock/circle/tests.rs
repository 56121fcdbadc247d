use super::*;
use crate::lock::page::encode_label;
use crate::lock::queue::{Pace, Purpose, QueueFile, Taken};

/// The queue of a new database, whose write lock this process has.
fn held(directory: &tempfile::TempDir, name: &str) -> (Arc<Queue<Sidecar>>, Taken) {
    let board = directory.path().join(name);
    std::fs::write(&board, "").expect("there is room");
    let queue = Queue::new(Sidecar::open(&board, true).expect("a sidecar"));
    let taken = queue.try_acquire(0, Purpose::Write, None, &mut Pace::default()).expect("no I/O");
    (Arc::new(queue), taken.expect("it is free"))
}

/// A transaction copies the label of the holder it waits for. Then it waits again, for a holder
/// without a label, while others may still show the copied label. So its new label is greater. A
/// forged page does not change that.
#[test]
fn a_label_is_greater_than_all_that_were_seen() {
    let directory = tempfile::tempdir().expect("a directory");
    let [(own, _), (labelled, _), (silent, _)] = ["a", "b", "c"].map(|name| held(&directory, name));
    let mut shown = Vec::new();
    let mut waits_for_the_silent = || {
        let mut label = Label::new(vec![Arc::clone(&own)], &silent);
        assert!(!label.has_come_back(&silent));
        shown.push(own.label().expect("it is shown"));
    };
    waits_for_the_silent();
    for theirs in [1 << 30 | 1 << 50, u64::MAX] {
        labelled.show_label(theirs);
        let mut label = Label::new(vec![Arc::clone(&own)], &labelled);
        let began_with = own.label().expect("it is shown");
        assert!(began_with > theirs || theirs == u64::MAX);
        assert!(!label.has_come_back(&labelled));
        labelled.show_label(began_with);
        assert!(label.has_come_back(&labelled));
        drop(label);
        waits_for_the_silent();

        labelled.hide_label(began_with);
        let mut label = Label::new(vec![Arc::clone(&own)], &labelled);
        let greater = own.label().expect("it is shown") + (7 << UNIQUE_BITS);
        labelled.show_label(greater);
        assert!(!label.has_come_back(&labelled), "it is another's");
        assert_eq!(own.label(), Some(greater), "it is taken over");
        drop(label);
        waits_for_the_silent();
    }
    assert!(shown.is_sorted_by(|one, next| one >> UNIQUE_BITS < next >> UNIQUE_BITS), "{shown:x?}");
}

/// A label is removed when the wait ends, and at the latest when the write lock is released. The
/// label of a wait that ended unseen is removed later, without removing the label of the next
/// holder in the same process.
#[test]
fn a_label_is_its_holders() {
    let directory = tempfile::tempdir().expect("a directory");
    let [(own, taken), (other, _)] = ["a", "b"].map(|name| held(&directory, name));
    let on_the_page = || own.sidecar().read().expect("it is whole").label();
    let label = Label::new(vec![Arc::clone(&own)], &other);
    assert!(own.label().is_some());
    drop(label);
    assert_eq!(on_the_page(), None);

    let forgotten = Label::new(vec![Arc::clone(&own)], &other);
    own.release(taken, None, || {}).expect("no I/O");
    assert_eq!(on_the_page(), None);
    let taken = own.try_acquire(0, Purpose::Write, None, &mut Pace::default()).expect("no I/O");
    assert!(taken.is_some());
    let next = Label::new(vec![Arc::clone(&own)], &other);
    let shown = own.label();
    drop(forgotten);
    assert!(shown.is_some() && own.label() == shown);
    drop(next);
    assert_eq!(on_the_page(), None);
}

/// A process was killed while its label was on the page. The label is not that of the next holder.
#[test]
fn a_label_of_a_process_that_was_killed_is_void() {
    let directory = tempfile::tempdir().expect("a directory");
    let (queue, _) = held(&directory, "a");
    let pid = std::process::id();
    for (by, label) in [(pid, Some(77)), (pid + 1, None)] {
        let (at, bytes) = encode_label(77, by);
        queue.sidecar().write(at, &bytes).expect("it is whole");
        assert_eq!(queue.label(), label);
    }
}

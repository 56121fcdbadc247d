//! xLock and xUnlock.

use super::*;

/// A writer that commits refuses a reader SHARED, and the reader reads a moment later. That counts as a wait, not as
/// a give-up.
#[test]
fn a_reader_that_has_waited_has_not_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let answers = Cell::new(0);
    let on_lock = move || {
        answers.set(answers.get() + 1);
        // The connection tries twice.
        if answers.get() <= 2 { ResultCode::BUSY } else { ResultCode::OK }
    };
    let base = TestBase::answering(on_lock);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::BUSY);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    connection.unlock(LockLevel::NONE);
    connection.closed();
    assert_eq!(refused_waited_and_gave_up(&connection), [1, 1, 0]);
}

/// A reader finds a hot journal while another connection rolls it back. The reader waits for that, even if it finds
/// the journal a second time. Once it has read, it waits for nothing.
#[test]
fn a_reader_waits_for_the_rollback_of_a_hot_journal() {
    let directory = tempfile::tempdir().expect("a directory");
    let answers = Cell::new(0);
    let on_lock = move || {
        answers.set(answers.get() + 1);
        // Twice, SHARED is granted and EXCLUSIVE is refused.
        if answers.get() < 5 && answers.get() % 2 == 0 { ResultCode::BUSY } else { ResultCode::OK }
    };
    let base = TestBase::answering(on_lock);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    for _ in 0..2 {
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.lock(LockLevel::EXCLUSIVE), ResultCode::BUSY);
        connection.unlock(LockLevel::NONE);
        assert!(!connection.claim.wait.age().is_zero(), "the reader waits");
    }
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    connection.unlock(LockLevel::NONE);
    assert!(connection.claim.wait.age().is_zero());
    connection.closed();
    assert_eq!(refused_waited_and_gave_up(&connection), [2, 1, 0]);
}

/// The base file answers an error. The connection does not mistake it for a lock that another connection holds.
#[test]
fn an_error_of_the_base_file_is_returned_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = TestBase::answering(|| ResultCode::IOERR_LOCK);
    base.has_bytes(4096);
    let mut connection = connection_over(&directory, base);
    for level in [LockLevel::SHARED, LockLevel::RESERVED, LockLevel::EXCLUSIVE] {
        assert_eq!(connection.lock(level), ResultCode::IOERR_LOCK, "{level:?}");
        assert!(!connection.holds_write_lock());
    }
}

//! Connections that create the content of a database, or switch it to WAL mode.

use super::*;

/// A first connection finds the database empty, but gets SHARED only after another connection has
/// switched the database to WAL mode. There SQLite keeps SHARED until the connection closes; the
/// write lock must not be held for that long.
#[test]
fn a_first_connection_does_not_keep_the_write_lock_in_wal_mode() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut connection, _) = connection(&directory);
    assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
    assert!(connection.holds_write_lock());
    connection.shm_mapping();
    assert!(!connection.holds_write_lock());
}

/// A connection creates the first table while another of its statements reads on. SQLite unlocks to SHARED then,
/// and others may write, so the write lock must be released, too. While the database is still empty, a write that
/// is rolled back does not end the connection's first transaction, which may write again.
#[test]
fn a_first_write_ends_while_a_statement_reads_on() {
    let directory = tempfile::tempdir().expect("a directory");
    for has_content in [true, false] {
        let (mut connection, base) = connection(&directory);
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.lock(LockLevel::RESERVED), ResultCode::OK);
        if has_content {
            base.has_bytes(4096);
        }
        assert_eq!(connection.unlock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.holds_write_lock(), !has_content);
        assert_eq!(connection.unlock(LockLevel::NONE), ResultCode::OK);
        assert!(!connection.holds_write_lock());
    }
}

/// The database is still empty. A statement that may start the first write takes the write lock with SHARED. A
/// statement that only reads does not, nor does the compilation of a statement, so neither blocks anybody.
#[test]
fn a_reader_of_an_empty_database_is_no_first_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let nothing = Doing::default();
    for (doing, is_first) in [
        (None, true),
        (Some(nothing), false),
        (Some(Doing { runs: true, ..nothing }), false),
        (Some(Doing { is_in_transaction: true, ..nothing }), false),
        (Some(Doing { runs: true, is_in_transaction: true, ..nothing }), true),
        (Some(Doing { runs: true, writes: true, ..nothing }), true),
        (Some(Doing { runs: true, writes: true, compiles: true, ..nothing }), false),
    ] {
        let (mut connection, base) = connection(&directory);
        base.doing.set(doing);
        assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
        assert_eq!(connection.holds_write_lock(), is_first, "{doing:?}");
    }
}

/// `PRAGMA journal_mode=wal` is about to run on a database with content. SHARED comes with the write lock, as for a
/// first connection, so that several connections that change the mode wait for each other and none fails at once.
/// A reader's SHARED comes without it.
#[test]
fn a_change_of_journal_mode_takes_the_write_lock_first() {
    let directory = tempfile::tempdir().expect("a directory");
    for is_expected in [false, true] {
        let (mut connection, base) = connection(&directory);
        base.has_bytes(4096);
        if is_expected {
            connection.expect_mode_change();
        }
        // The statement is compiled, runs, is refused and reset, and runs again. Another statement runs
        // instead. The statement is finalized.
        let states = [Some(false), Some(true), Some(false), Some(true), Some(false), None];
        for state in states.into_iter().chain([Some(true)]) {
            base.doing.set(Some(Doing { changes_mode: state, ..Doing::default() }));
            assert_eq!(connection.lock(LockLevel::SHARED), ResultCode::OK);
            let runs = is_expected
                && connection.first_connect.expects_mode_change()
                && state == Some(true);
            assert_eq!(connection.holds_write_lock(), runs, "{state:?}");
            assert_eq!(connection.unlock(LockLevel::NONE), ResultCode::OK);
            assert!(!connection.holds_write_lock(), "{state:?}");
        }
        assert!(
            !connection.first_connect.expects_mode_change(),
            "a finalized statement does not run"
        );
    }
}

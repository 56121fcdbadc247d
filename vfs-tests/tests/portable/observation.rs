//! A board as an outsider sees it.

use kanban_vfs::observation::{ObserveError, SidecarState};
use kanban_vfs::observe;
use vfs_tests::Board;

use crate::{agent, until_waiters};

/// An observer of a stuck board, without a connection, learns who holds the lock, who waits, and
/// what is in the sidecar's place. The stock VFS tells nothing. The look changes nothing: the
/// waiter is served.
#[test]
fn an_outsider_sees_holder_and_waiters() {
    let board = Board::new();
    assert!(matches!(observe(board.path()), Err(ObserveError::Missing)));
    assert!(matches!(observe(board.directory()), Err(ObserveError::NotAFile("directory"))));
    let (mut holder, mut waiter) = (agent(), agent());
    holder.open("h", &board.stock(), 60_000);
    holder.sql("h", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    holder.close("h");
    assert_eq!(observe(board.path()).unwrap().sidecar_state, SidecarState::Absent);

    holder.open("h", &board.kanban(), 60_000);
    waiter.open("w", &board.kanban(), 60_000);
    holder.sql("h", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
    waiter.send_sql("w", "INSERT INTO t VALUES (2)");
    until_waiters(&mut holder, "h", 1);
    let mut between_sleeps = 0;
    for _ in 0..100 {
        let seen = observe(board.path()).unwrap();
        if seen.queue.is_empty() {
            // Its attempt was refused, and SQLite has not slept again yet.
            between_sleeps += 1;
            continue;
        }
        assert_eq!(seen.sidecar_state, SidecarState::Page);
        assert_eq!(seen.holder.map(|holder| holder.pid), Some(holder.pid()));
        let [first] = &seen.queue[..] else { panic!("{:?}", seen.queue) };
        assert_eq!(first.pid, waiter.pid());
        assert!(first.program.starts_with("agent"), "{first:?}");
        assert_eq!((seen.hard_links, seen.is_locked_by_a_stranger), (1, false));
        assert!(seen.sizes.database > 0 && seen.sizes.wal.is_some());
    }
    assert!(
        between_sleeps < 50,
        "it is seen in the queue in {} looks of 100",
        100 - between_sleeps
    );
    holder.sql("h", "COMMIT").rows();
    waiter.reply().rows();
    let seen = observe(board.path()).unwrap();
    assert!(seen.holder.is_none() && seen.queue.is_empty(), "{seen:?}");

    // The page of a holder that was killed still names it on Windows; nobody is in the lock's way.
    holder.sql("h", "BEGIN IMMEDIATE").rows();
    holder.kill();
    assert!(observe(board.path()).unwrap().holder.is_none());
    waiter.sql("w", "INSERT INTO t VALUES (3)").rows();
}

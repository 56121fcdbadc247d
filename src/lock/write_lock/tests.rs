use parking_lot::Mutex;

use super::*;
use crate::lock::sidecar;

pub(in crate::lock) fn board(directory: &tempfile::TempDir) -> Arc<Database> {
    let path = directory.path().join("board.db");
    std::fs::File::options().create(true).append(true).open(&path).expect("a file");
    Database::at(&path)
}

pub(in crate::lock) fn take(
    database: &Arc<Database>,
    connection: u64,
) -> Result<WriteLock, Refused> {
    take_for(Purpose::Write, database, connection)
}

fn take_for(
    purpose: Purpose,
    database: &Arc<Database>,
    connection: u64,
) -> Result<WriteLock, Refused> {
    let mut lock = WriteLock::of(database, connection);
    lock.try_acquire(sys::monotonic_ns(), purpose, true, None).map(|()| lock)
}

/// However a holder ends, the lock is free for another connection of its process, and for another process.
#[test]
fn a_holder_releases_the_lock_however_it_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = board(&directory);
    let ends: [fn(WriteLock); 3] =
        [drop, |mut lock| lock.release_silently(), |mut lock| assert!(lock.release().is_some())];
    for end in ends {
        let lock = take(&database, 1).expect("it is free");
        assert!(matches!(take(&database, 2), Err(Refused::Busy)));
        assert!(sidecar::held_range(database.path()).is_some() && database.is_held());
        let (holder, is_ours) = database.holder().expect("there is one");
        assert!(is_ours && holder.pid == sys::pid());
        end(lock);
        assert!(sidecar::held_range(database.path()).is_none() && !database.is_held());
        assert!(database.holder().is_none());
    }
    assert!(take(&database, 2).is_ok());
}

/// A child of fork(2) has the connection of its parent. The child cannot acquire a lock by it, and
/// nothing it does with it releases a lock of the parent.
#[test]
fn a_child_does_not_release_its_parents_lock() {
    /// Keeps forgotten queues reachable, so that a leak check does not report them.
    static KEPT: Mutex<Vec<Arc<Queue<Sidecar>>>> = Mutex::new(Vec::new());
    let ends: [fn(WriteLock); 4] = [
        drop,
        |mut lock| lock.close(),
        |mut lock| lock.release_silently(),
        |mut lock| assert!(lock.release().is_none()),
    ];
    for end in ends {
        let directory = tempfile::tempdir().expect("a directory");
        let database = board(&directory);
        let mut lock = take(&database, 1).expect("it is free");
        let queue = database.queue().expect("it is open");
        KEPT.lock().push(Arc::clone(&queue));
        let owners = Arc::strong_count(&queue);
        lock.generation += 1;
        let now = sys::monotonic_ns();
        assert!(matches!(
            lock.try_acquire(now, Purpose::Write, true, None),
            Err(Refused::Inherited)
        ));
        end(lock);
        assert!(sidecar::held_range(database.path()).is_some() && database.is_held());
        assert_eq!(Arc::strong_count(&queue), owners, "the last would close it");
    }
}

/// Connections of this process and of another can tell whether a checkpoint or a writer has the lock. The
/// difference matters, since a checkpoint makes nobody's snapshot stale.
#[test]
fn a_checkpoint_is_told_from_a_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = board(&directory);
    drop(take(&database, 1).expect("it is free"));
    let elsewhere = Sidecar::open(database.path(), false).expect("it was made");
    let elsewhere = Queue::new(elsewhere);
    for purpose in [Purpose::Upkeep, Purpose::Write] {
        let lock = take_for(purpose, &database, 1).expect("it is free");
        let told = elsewhere.held_for().map(|(purpose, _)| purpose);
        assert_eq!(told, Some(purpose));
        let told = database.held_for().map(|(purpose, _)| purpose);
        assert_eq!(told, Some(purpose));
        drop(lock);
        assert!(elsewhere.held_for().is_none() && database.held_for().is_none());
    }
}

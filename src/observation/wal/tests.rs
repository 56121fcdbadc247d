use super::super::locks::SqliteLock;
use super::*;

const PAGE: u32 = 4096;

/// The index of a WAL with `frames`. Checkpoints copied `copied` of them, and the last one meant to
/// copy up to `attempted`.
fn index(frames: u32, copied: u32, attempted: u32, marks: [u32; 5]) -> Wal {
    let mut bytes = [0; layout::ALL_HEADERS];
    let mut put = |nth: usize, word: u32| {
        bytes[nth * 4..nth * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    };
    put(layout::MX_FRAME, frames);
    put(layout::N_BACKFILL, copied);
    put(layout::N_BACKFILL_ATTEMPTED, attempted);
    for (nth, mark) in marks.into_iter().enumerate() {
        put(layout::READ_MARKS + nth, mark);
    }
    bytes[12] = 1;
    bytes[14..16].copy_from_slice(&(PAGE as u16).to_ne_bytes());
    Wal::parse(&bytes).expect("it is initialised")
}

fn survey(locks: &[(LockName, bool)]) -> Survey {
    let locks = locks.iter().map(|(lock, is_exclusive)| SqliteLock {
        lock: *lock,
        is_exclusive: *is_exclusive,
        process: None,
        vfs: ClientVfs::Stock,
    });
    Survey { locks: locks.collect(), ..Survey::default() }
}

const NONE: u32 = u32::MAX;

#[test]
fn an_index_is_read() {
    let wal = index(50, 20, 30, [0, 40, NONE, NONE, NONE]);
    assert_eq!((wal.page_size, wal.frames, wal.copied, wal.attempted), (PAGE, 50, 20, 30));
    assert_eq!(wal.bytes_of(2), 2 * (4096 + 24));
    let mut bytes = [0; layout::ALL_HEADERS];
    assert_eq!(Wal::parse(&bytes), None, "nobody has initialised it");
    bytes[12] = 1;
    bytes[14..16].copy_from_slice(&1_u16.to_ne_bytes());
    assert_eq!(Wal::parse(&bytes).map(|wal| wal.page_size), Some(65536));
    // A hostile index: more is copied than there is.
    assert_eq!(index(5, 7, 9, [NONE; 5]).copied, 5);
}

/// One reader reads only the database, one an old part of the WAL, and one all of it. A writer that
/// resets the WAL has the marks exclusively.
#[test]
fn readers_come_by_the_frame_that_they_pin() {
    let wal = index(50, 20, 20, [0, 50, 30, NONE, 99]);
    use LockName::Read;
    let survey = survey(&[
        (Read(1), false),
        (Read(2), false),
        (Read(0), false),
        (Read(3), true),
        (Read(4), false),
    ]);
    let readers = wal.readers(&survey);
    let seen: Vec<_> = readers.iter().map(|one| (one.mark, one.frame, one.kept)).collect();
    assert_eq!(seen, [(0, 20, 30), (2, 30, 20), (1, 50, 0), (4, 50, 0)]);
}

#[test]
fn a_large_wal_has_one_reason() {
    let none = [0, NONE, NONE, NONE, NONE];
    let size = |frames: u32| 32 + u64::from(frames) * 4120;
    let why = |wal: Wal, locks: &[(LockName, bool)]| wal.why(&survey(locks), size(9000));
    assert_eq!(index(9000, 0, 0, none).why(&survey(&[]), size(4000)), WalSize::Small);
    assert_eq!(why(index(10, 0, 0, none), &[]), WalSize::Kept);
    assert_eq!(why(index(9000, 0, 0, none), &[]), WalSize::NoCheckpoints);
    assert_eq!(why(index(9000, 5000, 5000, none), &[]), WalSize::NoCheckpoints);
    assert_eq!(why(index(9000, 0, 8990, none), &[]), WalSize::CheckpointsFail);
    let checkpoint = (LockName::Checkpoint, true);
    assert_eq!(why(index(9000, 0, 8990, none), &[checkpoint]), WalSize::Checkpointing);
    assert_eq!(why(index(9000, 8500, 8500, none), &[]), WalSize::NeverReset);
    let pinning = index(9000, 100, 100, [0, 100, 8990, NONE, NONE]);
    assert_eq!(why(pinning, &[(LockName::Read(1), false)]), WalSize::Pinned);
    assert_eq!(why(pinning, &[(LockName::Read(2), false)]), WalSize::NoCheckpoints);
    let all_copied = index(9000, 9000, 9000, [0, 9000, NONE, NONE, NONE]);
    assert_eq!(why(all_copied, &[(LockName::Read(1), false)]), WalSize::NeverReset);
    assert!(WalSize::Pinned.is_trouble() && !WalSize::Kept.is_trouble());
}

use super::*;
use crate::connection::test_base::{
    Call, Lock, MayBlock, SetCopied, SetSize, TestBase, TestGuards, Unlock, WriteZeros, board,
    header,
};
use crate::ffi::{ShmSlot, ShmSlots};
use crate::format::JOURNAL_SUFFIX;
use crate::sys;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Gives the guards another base file.
fn on<'g>(guards: &'g mut TestGuards, base: &'static TestBase) -> &'g mut TestGuards {
    guards.set_base(base);
    guards
}

/// The value of the counter, which this resets.
fn counted(counter: &AtomicU64) -> u64 {
    counter.swap(0, Ordering::Relaxed)
}

/// A writer restarts the WAL only with CKPT locked. It does not wait for CKPT, and unlocks it once after the
/// restart.
#[test]
fn a_wal_is_restarted_only_while_nobody_checkpoints() {
    let (_place, database, mut guards) = board();
    let locked = Lock(ShmSlot::CKPT.into());
    let unlocked = Unlock(ShmSlot::CKPT.into());
    for ms in [0, 9] {
        let base = TestBase::default().leak();
        let take = || {
            base.note(Lock(ShmSlots::WAL_READERS));
            ResultCode::OK
        };
        assert_eq!(on(&mut guards, base).restart.restart(ms, take), ResultCode::OK);
        on(&mut guards, base).restart.ended();
        on(&mut guards, base).restart.ended();
        let taken = Lock(ShmSlots::WAL_READERS);
        let expected: &[Call] = match ms {
            0 => &[locked, taken, unlocked],
            _ => &[MayBlock(0), locked, MayBlock(9), taken, unlocked],
        };
        assert_eq!(*base.calls.borrow(), expected);
    }
    assert_eq!(counted(&database.counters.restarts_deferred), 0);
}

/// CKPT is refused, or its lock fails and may be held; the stock VFS asks for no such lock. So the writer is told to
/// append to the WAL, as if a reader used it. Or the readers' slots cannot be locked. No slot stays locked.
#[test]
fn a_restart_that_fails_leaves_no_slot_locked() {
    let (_place, database, mut guards) = board();
    let (locked, unlocked) = (Lock(ShmSlot::CKPT.into()), Unlock(ShmSlot::CKPT.into()));
    let never = || -> ResultCode { panic!("CKPT was refused") };
    let busy = ResultCode::BUSY.extended(1);
    for (rc, expected) in [
        (ResultCode::BUSY, &[locked][..]),
        (busy, &[locked]),
        (ResultCode::IOERR_LOCK, &[locked, unlocked]),
    ] {
        let base = TestBase { refuses: Some((ShmSlot::CKPT, rc)), ..TestBase::default() }.leak();
        let deferred = counted(&database.counters.restarts_deferred);
        assert_eq!(on(&mut guards, base).restart.restart(0, never), ResultCode::BUSY);
        on(&mut guards, base).restart.ended();
        assert_eq!(*base.calls.borrow(), expected);
        assert_eq!(counted(&database.counters.restarts_deferred), deferred + 1);
    }
    let readers_unlocked = Unlock(ShmSlots::WAL_READERS);
    for (rc, expected) in [
        (ResultCode::BUSY, &[locked, unlocked][..]),
        (busy, &[locked, unlocked]),
        (ResultCode::IOERR_LOCK, &[locked, unlocked, readers_unlocked]),
    ] {
        let base = TestBase::default().leak();
        assert_eq!(on(&mut guards, base).restart.restart(0, || rc), rc);
        on(&mut guards, base).restart.ended();
        assert_eq!(*base.calls.borrow(), expected);
    }
}

/// After a checkpoint has read the wal-index, a writer restarts the WAL. The checkpoint gives up and unlocks
/// READ(0).
#[test]
fn a_checkpoint_of_another_wal_gives_up() {
    let (_place, database, mut guards) = board();
    let base = TestBase::of_wal(&[(1, 0)], &[[1, 2], [1, 2], [3, 4]]).leak();
    on(&mut guards, base).restart.note_salts();
    assert_eq!(on(&mut guards, base).restart.before_backfill(), Ok(()));
    assert_eq!(*base.calls.borrow(), []);
    assert_eq!(on(&mut guards, base).restart.before_backfill(), Err(ResultCode::BUSY));
    assert_eq!(*base.calls.borrow(), [Unlock(ShmSlot::READ_0.into())]);
    assert_eq!(counted(&database.counters.stale_checkpoints), 1);
    guards.restart.checkpoint_ends();
    assert_eq!(on(&mut guards, base).restart.before_backfill(), Ok(()));
    on(&mut guards, TestBase::of_wal(&[(1, 0)], &[[1, 2]]).leak()).restart.note_salts();
    guards.wal_closed();
    assert_eq!(on(&mut guards, base).restart.before_backfill(), Ok(()));
}

/// A checkpoint sets the file's length to 4096 bytes. If the file lacks some of what the checkpoint wrote below that
/// length, it is left as it is, and the answer is an error. The answer is also an error if the file lacks bytes after
/// its length was set. The counter counts both. Bytes that the checkpoint did not write may be missing before: setting
/// the length adds them.
#[test]
fn a_length_that_the_file_lacks_is_an_error() {
    let (_place, database, mut guards) = board();
    let mut truncate = |written: c_int, sizes: &[Option<i64>], rc: ResultCode| {
        let base = TestBase { sizes: RefCell::new(sizes.to_vec()), ..TestBase::default() }.leak();
        let called = Cell::new(false);
        guards.length.written().begin();
        guards.length.written().wrote(0, written);
        let answer =
            on(&mut guards, base).length.truncate_after_checkpoint(4096, true, false, |_| {
                called.set(true);
                rc
            });
        (answer, called.get(), counted(&database.counters.short_files))
    };
    let refused = ResultCode::IOERR_TRUNCATE;
    assert_eq!(truncate(4096, &[Some(4095)], ResultCode::OK), (refused, false, 1));
    assert_eq!(truncate(8192, &[Some(4095)], ResultCode::OK), (refused, false, 1));
    assert_eq!(truncate(4096, &[Some(4096)], ResultCode::OK), (ResultCode::OK, true, 0));
    assert_eq!(truncate(8192, &[Some(4096)], ResultCode::OK), (ResultCode::OK, true, 0));
    assert_eq!(
        truncate(4095, &[Some(4095), Some(4096)], ResultCode::OK),
        (ResultCode::OK, true, 0)
    );
    assert_eq!(truncate(4095, &[Some(4095)], ResultCode::OK), (refused, true, 1));
    assert_eq!(
        truncate(4096, &[Some(8192), Some(4096)], ResultCode::OK),
        (ResultCode::OK, true, 0)
    );
    assert_eq!(truncate(4096, &[Some(8192), Some(4095)], ResultCode::OK), (refused, true, 1));
    assert_eq!(
        truncate(4096, &[Some(8192), Some(4095)], ResultCode::IOERR),
        (ResultCode::IOERR, true, 0)
    );
    assert_eq!(truncate(4096, &[None], ResultCode::OK), (ResultCode::OK, true, 0));
}

/// A reader keeps a checkpoint from copying all frames, and some of what the checkpoint has written is lost. The
/// wal-index goes back to how many frames were copied before.
#[test]
fn frames_that_were_lost_do_not_count_as_copied() {
    let (_place, database, mut guards) = board();
    let mut ends = |copied: &[(u32, u32)], pages: i64| {
        let base = TestBase {
            sizes: RefCell::new(vec![Some(pages * 4096)]),
            ..TestBase::of_wal(copied, &[])
        }
        .leak();
        guards.length.written().begin();
        guards.length.written().wrote(0, 3 * 4096);
        on(&mut guards, base).length.backfill_begins();
        on(&mut guards, base).length.backfill_ends();
        on(&mut guards, base).length.backfill_ends();
        (base.calls.take(), counted(&database.counters.short_files))
    };
    assert_eq!(ends(&[(9, 2), (9, 5)], 2), (vec![SetCopied(2)], 1));
    assert_eq!(ends(&[(9, 2), (9, 5)], 3), (vec![], 0), "nothing is lost");
    assert_eq!(ends(&[(9, 2)], 2), (vec![], 0), "the checkpoint has copied no frame");
}

/// A commit of a rollback mode finds fewer bytes in the file than it wrote. The commit is refused once. The rollback
/// that follows is not refused.
#[test]
fn a_commit_that_has_lost_a_write_is_refused() {
    let (_place, database, mut guards) = board();
    let mut commit = |base: &'static TestBase, writes: &[u32], end: c_int| {
        guards.length.written().begin();
        for pages in writes {
            guards.length.written().first_page(&header(*pages), || base.header);
        }
        guards.length.written().wrote(0, end);
        let answers = [0; 2].map(|_| on(&mut guards, base).length.before_commit());
        (answers, counted(&database.counters.short_files))
    };
    let unknown = TestBase { sizes: RefCell::new(vec![None]), ..TestBase::of_size(2, 2) };
    let fresh = TestBase { header: None, ..TestBase::of_size(2, 0) };
    let refused = [Err(ResultCode::IOERR_WRITE), Ok(())];
    for (what, base, writes, end, answers) in [
        ("all is there", TestBase::of_size(3, 2), &[3][..], 3 * 4096, [Ok(()); 2]),
        ("a page is missing", TestBase::of_size(2, 2), &[3], 3 * 4096, refused),
        ("a byte is missing", TestBase::of_size(2, 2), &[3], 2 * 4096 + 1, refused),
        ("a new database's page is missing", fresh, &[3], 3 * 4096, refused),
        ("the size is not known", unknown, &[3], 3 * 4096, [Ok(()); 2]),
        ("the file was short before", TestBase::of_size(2, 3), &[4], 2 * 4096, [Ok(()); 2]),
        ("no missing page is needed", TestBase::of_size(2, 3), &[3, 2], 3 * 4096, [Ok(()); 2]),
        ("rolled back", TestBase::of_size(2, 2), &[3, 2], 3 * 4096, [Ok(()); 2]),
        ("rolled back, short before", TestBase::of_size(2, 3), &[4, 3], 4 * 4096, [Ok(()); 2]),
        ("no first page", TestBase::of_size(2, 2), &[], 3 * 4096, [Ok(()); 2]),
    ] {
        let counted = u64::from(answers[0].is_err());
        assert_eq!(commit(base.leak(), writes, end), (answers, counted), "{what}");
    }
}

/// A connection rolls back what another connection left. That is never refused. In exclusive locking mode commits follow
/// without a lock call in between. A commit that has lost a write is refused.
#[test]
fn a_rollback_of_what_another_has_left_is_not_refused() {
    let (_place, _database, mut guards) = board();
    let base = TestBase::of_size(2, 2).leak();
    let write = |guards: &mut TestGuards| {
        guards.length.written().first_page(&header(3), || base.header);
        guards.length.written().wrote(0, 3 * 4096);
    };
    guards.length.written().begin_repair();
    write(&mut guards);
    assert_eq!(on(&mut guards, base).length.before_commit(), Ok(()));
    write(&mut guards);
    assert_eq!(on(&mut guards, base).length.before_commit(), Err(ResultCode::IOERR_WRITE));
    write(&mut guards);
    assert_eq!(on(&mut guards, base).length.before_commit(), Ok(()));
    write(&mut guards);
    guards.length.written().cut(2 * 4096);
    assert_eq!(on(&mut guards, base).length.before_commit(), Ok(()));
}

/// The first lock of a connection finds the file shorter than its header says. The guard reports that unless another
/// VFS decides what the file holds.
#[test]
fn a_file_that_is_too_short_is_noticed() {
    let (_place, _database, mut guards) = board();
    let below = TestBase { stands: Stands::Below, ..TestBase::of_size(2, 3) }.leak();
    on(&mut guards, below).took_shared();
    assert_eq!((guards.length.deficit_seen(), guards.length.deficit()), (Some(0), None));

    let (_place, database, mut guards) = board();
    // A journal may have the missing pages.
    let journal = beside(database.path(), JOURNAL_SUFFIX);
    fs::write(&journal, [0xd9]).expect("a file");
    on(&mut guards, TestBase::of_size(2, 3).leak()).took_shared();
    assert_eq!(guards.length.deficit_seen(), None, "the next lock looks again");
    // A zeroed journal has none.
    fs::write(&journal, [0]).expect("a file");
    let mut wal = TestBase::of_size(2, 3);
    wal.header.as_mut().expect("a header").0[18..20].copy_from_slice(&[2, 2]);
    on(&mut guards, wal.leak()).took_shared();
    assert_eq!(guards.length.deficit_seen(), None, "the WAL may have the rest");
    on(&mut guards, TestBase::of_size(2, 3).leak()).took_shared();
    assert_eq!(guards.length.deficit(), Some(4096));
    on(&mut guards, TestBase::of_size(3, 3).leak()).took_shared();
    assert_eq!(guards.length.deficit(), Some(4096), "the deficit at the first lock stays");

    let (_place, _database, mut guards) = board();
    on(&mut guards, TestBase::of_size(3, 3).leak()).took_shared();
    assert_eq!((guards.length.deficit_seen(), guards.length.deficit()), (Some(0), None));
}

/// A checkpoint makes the file as long as the new header will say before it writes that header. A file that is too
/// short for its old header is left as it is, so that this can be seen.
#[test]
fn the_file_is_made_long_enough_before_the_header_says_so() {
    let (_place, _database, mut guards) = board();
    for (size, old, new, calls) in [
        (1, 1, 3, &[WriteZeros(2 * 4096, 4096)][..]),
        (3, 1, 3, &[]),
        (4, 1, 3, &[]),
        (1, 2, 3, &[]),
    ] {
        let base = TestBase::of_size(size, old).leak();
        let answer = on(&mut guards, base).length.before_first_page(&header(new), false);
        assert_eq!(answer, Ok(()));
        assert_eq!(*base.calls.borrow(), calls, "{size} pages, {old} by the header");
    }
    guards.length.stands = Stands::Below;
    let base = TestBase::of_size(1, 1).leak();
    let answer = on(&mut guards, base).length.before_first_page(&header(3), false);
    assert_eq!(answer, Ok(()));
    assert_eq!(*base.calls.borrow(), [], "another VFS decides the length");
}

/// The disk is full. Setting the file's length still works if files may have holes. If not, a header that would say more
/// than the file has is refused. A failing disk refuses the header, too, but is not reported as full.
#[test]
fn a_header_is_refused_for_which_there_is_no_room() {
    let (_place, _database, mut guards) = board();
    let calls = [WriteZeros(2 * 4096, 4096), SetSize(3 * 4096)];
    let (full, io) = (ResultCode::FULL, ResultCode::IOERR_WRITE);
    for (rc, size_then, answer, more) in
        [(full, 3, Ok(()), 0), (full, 1, Err(full), 2), (io, 1, Err(io), 2)]
    {
        let base = TestBase::of_size(1, 1).leak();
        base.write_fails.set(Some(rc));
        *base.sizes.borrow_mut() = vec![Some(4096), Some(size_then * 4096)];
        let answered = on(&mut guards, base).length.before_first_page(&header(3), false);
        assert_eq!(answered, answer);
        // The guard tried twice: with the distance, and without, which is the same here.
        assert_eq!(*base.calls.borrow(), [&calls[..], &calls[..more]].concat());
    }
}

/// A file that is kept ahead is made longer than the new header will say. The last connection that closes cuts it to
/// what the header says.
#[test]
fn the_file_is_ahead_until_the_last_close() {
    let (_place, database, mut guards) = board();
    guards.length.keep_ahead();
    let ahead = WriteZeros(3 * 4096 + 4 * (256 << 10) - 4096, 4096);
    for (is_last, calls) in [(false, ahead), (true, WriteZeros(2 * 4096, 4096))] {
        let base = TestBase::of_size(1, 1).leak();
        let answer = on(&mut guards, base).length.before_first_page(&header(3), is_last);
        assert_eq!(answer, Ok(()));
        assert_eq!(*base.calls.borrow(), [calls], "{is_last}");
    }
    let wal = beside(database.path(), WAL_SUFFIX);
    for (size, has_wal, calls) in
        [(20, true, &[][..]), (20, false, &[SetSize(3 * 4096)]), (3, false, &[])]
    {
        let _ = fs::remove_file(&wal);
        if has_wal {
            fs::write(&wal, "").expect("a file");
        }
        let base = TestBase::of_size(size, 3).leak();
        on(&mut guards, base).length.cut_to_header();
        assert_eq!(*base.calls.borrow(), calls, "{size} pages, WAL: {has_wal}");
    }
    // The header is wrong, as in a copy that was made while the database was written: only zeros are cut off.
    for (data, calls) in [(17, &[SetSize(18 * 4096)][..]), (19, &[]), (3, &[SetSize(4 * 4096)])] {
        let base = TestBase::of_size(20, 3).leak();
        base.data.borrow_mut().push(data * 4096);
        on(&mut guards, base).length.cut_to_header();
        assert_eq!(*base.calls.borrow(), calls, "page {data} has data");
    }
    // The file keeps what a rollback may need.
    fs::write(beside(database.path(), JOURNAL_SUFFIX), "hot").expect("a file");
    let base = TestBase::of_size(20, 3).leak();
    on(&mut guards, base).length.cut_to_header();
    assert_eq!(*base.calls.borrow(), [], "the journal is hot");
}

/// A checkpoint has copied all, and the database has become shorter. The file stays ahead of its
/// header, without deleted data: pages that are not zeros are overwritten, whichever checkpoint has
/// written them. A file that is much too long is cut first.
#[test]
fn what_was_freed_is_overwritten() {
    let (_place, _database, mut guards) = board();
    guards.length.keep_ahead();
    let far = 3 + (64 << 20) / 4096;
    let cut = (3 * 4096) + (4 << 20);
    for (pages, data, calls, set) in [
        (20, &[3, 7, 19][..], &[3, 7, 19][..], None),
        (20, &[], &[], None),
        (far, &[5, far - 1], &[5], Some(cut)),
    ] {
        let base = TestBase::of_size(pages, 3).leak();
        base.data.borrow_mut().extend(data.iter().map(|page| page * 4096));
        let mut lengths = Vec::new();
        let truncate = |length| {
            lengths.push(length);
            ResultCode::OK
        };
        let length = &mut on(&mut guards, base).length;
        let rc = length.truncate_after_checkpoint(3 * 4096, true, false, truncate);
        assert_eq!((rc, lengths), (ResultCode::OK, set.into_iter().collect()));
        let expected: Vec<_> = calls.iter().map(|page| WriteZeros(page * 4096, 4096)).collect();
        assert_eq!(*base.calls.borrow(), expected);
    }
}

/// A client asks for a length in large chunks (SQLITE_FCNTL_CHUNK_SIZE), so cutting the file has no
/// effect. Each later checkpoint sets the length that SQLite wants, without a pause, and without
/// reading the chunk.
#[test]
fn a_file_that_cannot_be_cut_is_left_long() {
    let (_place, _database, mut guards) = board();
    guards.length.keep_ahead();
    let mut lengths = Vec::new();
    let base = TestBase::of_size((64 << 20) / 4096, 3).leak();
    let guards = on(&mut guards, base);
    for _ in 0..3 {
        let truncate = |length| {
            lengths.push(length);
            ResultCode::OK
        };
        guards.length.truncate_after_checkpoint(3 * 4096, true, false, truncate);
    }
    assert_eq!(lengths, [3 * 4096 + (4 << 20), 3 * 4096, 3 * 4096]);
}

/// The database is longer than the header says, by frames that count the distance: a stock client
/// has committed to an empty WAL. Pages that a checkpoint has just copied are not cut off.
#[test]
fn a_checkpoint_cuts_off_nothing_that_it_has_copied() {
    let (_place, _database, mut guards) = board();
    guards.length.keep_ahead();
    let copied = 32 << 20;
    let base = TestBase::of_size((64 << 20) / 4096, 3).leak();
    let mut lengths = Vec::new();
    let truncate = |length| {
        lengths.push(length);
        ResultCode::OK
    };
    on(&mut guards, base).length.truncate_after_checkpoint(copied, true, false, truncate);
    assert_eq!(lengths, [copied]);
}

/// While the WAL counts no pages, SQLite is told the length by the header; but not if the file is
/// not kept ahead, nor under another VFS.
#[test]
fn sqlite_is_not_told_the_distance() {
    let told_with = |keeps_ahead, frames, stands, data: &[i64]| {
        let (_place, _database, mut guards) = board();
        if keeps_ahead {
            guards.length.keep_ahead();
        }
        guards.length.stands = stands;
        let frames = RefCell::new(vec![Some((frames, 0))]);
        let base = TestBase { frames, ..TestBase::of_size(20, 3) }.leak();
        base.data.borrow_mut().extend(data);
        on(&mut guards, base).length.without_distance(20 * 4096) / 4096
    };
    let told = |keeps_ahead, frames, stands| told_with(keeps_ahead, frames, stands, &[]);
    for page in [3, 11, 19] {
        let told = told_with(true, 0, Stands::Alone, &[page * 4096]);
        assert_eq!(told, 20, "page {page} has data: the header is wrong");
    }
    assert_eq!(told_with(true, 0, Stands::Alone, &[2 * 4096]), 3);
    assert_eq!(told(true, 0, Stands::Alone), 3);
    assert_eq!(told(true, 0, Stands::Above), 3);
    assert_eq!(told(true, 7, Stands::Alone), 20);
    assert_eq!(told(false, 0, Stands::Alone), 20, "it is not kept ahead");
    assert_eq!(told(true, 0, Stands::Below), 20, "another VFS decides the length");
}

/// SQLite is told the same length again, until the connection's own checkpoint or recovery, or the
/// end of WAL mode.
#[test]
fn what_sqlite_is_told_follows_the_header() {
    let (_place, _database, mut guards) = board();
    guards.length.keep_ahead();
    type Event = fn(&mut TestGuards);
    let events: [(Event, bool); 4] = [
        (|_| {}, true),
        (|guards| guards.length.checkpoint_begins(), false),
        (|guards| _ = guards.length.before_first_page(&header(4), true), false),
        (|guards| guards.wal_closed(), false),
    ];
    for (nth, (event, is_known)) in events.into_iter().enumerate() {
        let frames = RefCell::new(vec![Some((0, 0))]);
        let base = TestBase { frames, ..TestBase::of_size(20, 3) }.leak();
        let guards = on(&mut guards, base);
        assert_eq!(guards.length.without_distance(20 * 4096), 3 * 4096);
        event(guards);
        let known = is_known.then_some(3 * 4096);
        assert_eq!(guards.length.known_length(20 * 4096, 7), known, "event {nth}");
    }
}

/// EXCLUSIVE without a wal-index, of a database in WAL mode, means exclusive locking mode. A file that is ahead is cut.
/// It is not cut if the WAL has something, a journal is hot, or the database is not in WAL mode: then something is
/// rolled back.
#[test]
fn a_file_is_cut_before_its_wal_is_opened_exclusively() {
    let (_place, database, mut guards) = board();
    let (wal, journal) =
        [WAL_SUFFIX, JOURNAL_SUFFIX].map(|suffix| beside(database.path(), suffix)).into();
    let cut = [SetSize(3 * 4096)];
    let none: &[Call] = &[];
    for (keeps_ahead, is_wal, in_wal, in_journal, calls) in [
        (false, true, Some(""), None, none),
        (true, true, Some(""), None, &cut),
        (true, true, None, None, &cut),
        (true, true, Some("frames"), None, none),
        (true, false, Some(""), None, none),
        (true, true, Some(""), Some("hot"), none),
    ] {
        for (path, content) in [(&wal, in_wal), (&journal, in_journal)] {
            let _ = fs::remove_file(path);
            if let Some(content) = content {
                fs::write(path, content).expect("a file");
            }
        }
        if keeps_ahead {
            guards.length.keep_ahead();
        }
        let mut header = header(3);
        header.0[18..20].copy_from_slice(if is_wal { &[2, 2] } else { &[1, 1] });
        let base = TestBase { header: Some(header), ..TestBase::of_size(20, 3) }.leak();
        on(&mut guards, base).length.cut_before_wal();
        assert_eq!(
            *base.calls.borrow(),
            calls,
            "{keeps_ahead}, {is_wal}, {in_wal:?}, {in_journal:?}"
        );
    }
}

/// A header without a valid page count says nothing about the file's length, and the bytes behind
/// the last whole page are not SQLite's. Nothing is written there.
#[test]
fn nothing_is_written_over_what_is_there() {
    let (_place, _database, mut guards) = board();
    for keeps_ahead in [false, true] {
        if keeps_ahead {
            guards.length.keep_ahead();
        }
        let mut uncounted = header(1);
        uncounted.0[92] ^= 1;
        let base = TestBase {
            sizes: RefCell::new(vec![Some(2 * 4096 + 100)]),
            header: Some(uncounted),
            ..TestBase::default()
        }
        .leak();
        let answer = on(&mut guards, base).length.before_first_page(&header(3), false);
        assert_eq!(answer, Ok(()));
        assert_eq!(*base.calls.borrow(), [], "{keeps_ahead}");
    }
}

/// The wal-index has frames that the WAL does not have, so no reader may use it. While a writer restarts the WAL,
/// the two may differ.
#[test]
fn an_index_that_speaks_of_another_wal_is_refused() {
    let (old, new) = ([1, 2], [3, 4]);
    for (frames, salts, answer) in [
        (&[(5, 0)][..], &[old][..], Err(ResultCode::READONLY_DBMOVED)),
        (&[(5, 0)], &[old, new], Ok(())),
        (&[(5, 0), (4, 0)], &[old], Ok(())),
        (&[(5, 0)], &[old, old, new], Ok(())),
        (&[(0, 0)], &[old], Ok(())),
    ] {
        let (_place, database, mut guards) = board();
        let base = TestBase::of_wal(frames, salts).leak();
        assert_eq!(on(&mut guards, base).took_snapshot(), answer, "{frames:?}, {salts:?}");
        assert_eq!(counted(&database.counters.displaced), u64::from(answer.is_err()));
        assert_eq!(guards.length.deficit_seen(), answer.ok().map(|()| 0));
        let why = answer.err().map(|_| Displaced::Moved("the WAL"));
        assert_eq!(guards.files.displaced(), why);
        if answer.is_ok() {
            let other = TestBase::of_wal(&[(5, 0)], &[old]).leak();
            assert_eq!(
                on(&mut guards, other).took_snapshot(),
                Ok(()),
                "only the first read checks"
            );
        }
    }
    // With an empty WAL the database file must be complete, as in rollback modes.
    let (_place, _database, mut guards) = board();
    let empty =
        TestBase { frames: RefCell::new(vec![Some((0, 0))]), ..TestBase::of_size(2, 3) }.leak();
    assert_eq!(on(&mut guards, empty).took_snapshot(), Ok(()));
    assert_eq!(guards.length.deficit(), Some(4096));
}

/// The WAL has the salts that the wal-index says, and is long enough for its frames.
#[test]
fn an_index_that_speaks_of_its_wal_is_not_refused() {
    let (_place, database, mut guards) = board();
    let mut wal = vec![0; 32 + 5 * (512 + 24)];
    wal[8..12].copy_from_slice(&512_u32.to_be_bytes());
    wal[16..24].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
    fs::write(beside(database.path(), WAL_SUFFIX), wal).expect("a file");
    let salts = [[1, 0, 0, 0], [2, 0, 0, 0]].map(u32::from_ne_bytes);
    assert_eq!(
        on(&mut guards, TestBase::of_wal(&[(5, 0)], &[salts]).leak()).took_snapshot(),
        Ok(())
    );
    assert_eq!(guards.length.deficit_seen(), Some(0));
}

/// A pragma, in any spelling, turns durability off. Another turns it on again.
#[test]
fn pragmas_that_turn_durability_off_are_noticed() {
    let (_place, _database, mut guards) = board();
    for (value, is_off) in [
        ("OFF", true),
        ("full", false),
        ("0", true),
        ("2", false),
        ("no", true),
        ("normal", false),
        ("false", true),
        ("", true),
        ("EXTRA", false),
    ] {
        guards.pragmas.note(b"Synchronous", value.as_bytes());
        assert_eq!(guards.pragmas.is_synchronous_off(), is_off, "{value}");
        guards.pragmas.note(b"cache_size", b"0");
        assert_eq!(guards.pragmas.is_synchronous_off(), is_off, "{value}");
    }
    for (value, mode) in [
        ("MEMORY", Some("memory")),
        ("wal", None),
        ("Off", Some("off")),
        ("", Some("off")),
        ("delete", None),
    ] {
        guards.pragmas.note(b"Journal_Mode", value.as_bytes());
        assert_eq!(guards.pragmas.journalless(), mode, "{value}");
        guards.pragmas.note(b"locking_mode", b"off");
        assert_eq!(guards.pragmas.journalless(), mode, "{value}");
    }
}

/// The guards check the files at the first read transaction of a connection, and then at one in every [`LOOKS_AFTER`].
#[test]
fn the_first_read_transaction_is_checked_and_then_some() {
    let (_place, _database, mut guards) = board();
    assert!(guards.files.count_read() && guards.files.count_read(), "due until it is done");
    assert_eq!(guards.check_reader(), Ok(()));
    assert!(guards.files.count_read(), "the length was not compared yet");
    on(&mut guards, TestBase::of_size(1, 1).leak()).took_shared();
    assert_eq!(guards.check_reader(), Ok(()));
    let until_then = (1..=LOOKS_AFTER).find(|_| guards.files.count_read());
    assert_eq!(until_then, Some(LOOKS_AFTER));
}

/// The database is moved away. In exclusive locking mode a transaction begins without a lock call, so its COMMIT
/// checks the files and answers the error. In other modes the transaction was checked when it began, and COMMIT does
/// not check again.
#[test]
fn a_commit_to_a_file_that_has_moved_answers_an_error() {
    for (begins, ends, answer) in [
        (true, false, Ok(())),
        (true, true, Err(ResultCode::READONLY_DBMOVED)),
        (false, false, Err(ResultCode::READONLY_DBMOVED)),
    ] {
        let (place, database, mut guards) = board();
        if begins {
            assert_eq!(guards.files.before_write(sys::monotonic_ns()), Ok(()));
        }
        if ends {
            guards.files.ended();
        }
        fs::rename(database.path(), place.path().join("moved")).expect("the database is moved");
        assert_eq!(guards.files.after_commit(), answer, "{begins}, {ends}");
        assert_eq!(counted(&database.counters.displaced), u64::from(answer.is_err()));
        let next = guards.files.after_commit();
        assert_eq!(next, Err(ResultCode::READONLY_DBMOVED), "the next commit");
    }
}

/// A connection may recover or clean up a database that has several names. It may not write to it.
#[test]
fn hard_links_keep_nobody_from_cleaning_up() {
    let (place, database, mut guards) = board();
    fs::hard_link(database.path(), place.path().join("second")).expect("a link");
    assert_eq!(guards.files.before_upkeep(sys::monotonic_ns()), Ok(()));
    assert_eq!(guards.files.before_write(sys::monotonic_ns()), Err(ResultCode::READONLY));
    fs::remove_file(database.path()).expect("the database is removed");
    assert_eq!(guards.files.before_upkeep(sys::monotonic_ns()), Err(ResultCode::READONLY_DBMOVED));
}

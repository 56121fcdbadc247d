//! The file of the event log, under hostile and unlucky circumstances.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use super::event::{Cause, Outcome};
use super::file::{EventLog, LENGTH, NoLog, RECORDS, make, path_of, read};
use super::*;

/// A database that only its owner may use, and its recorder.
fn board() -> (tempfile::TempDir, PathBuf, Recorder) {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("board.db");
    std::fs::write(&path, "something").expect("a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("it is ours");
    let recorder = Recorder::of(&path);
    (place, path, recorder)
}

fn log_of(path: &Path) -> EventLog {
    read(path).expect("a log")
}

/// Records refusals, each of which differs from the others.
fn record(path: &Path, recorder: &Recorder, events: std::ops::Range<u32>) {
    let counters = Counters::default();
    for frames in events {
        let _ = path;
        recorder.waiting.lock().recorded = 0;
        recorder.record(Event { frames, ..ended(EventKind::Refusal) }, true, &counters);
    }
}

#[test]
fn an_event_is_read_as_it_was_recorded() {
    let (_place, path, recorder) = board();
    let holder = |command: &str| Process { command: command.to_owned(), ..Process::unknown(7) };
    let told = Event {
        holder: Some(holder("worker --fast \u{1b}[31m")),
        waited: Duration::from_micros(1_500_000),
        held: Duration::from_micros(12),
        frames: 3,
        outcome: Some(Outcome::Committed),
        cause: Some(Cause::StaleSnapshot),
        code: 5,
        first_statement: Some("é".repeat(200)),
        last_statement: Some("COMMIT".to_owned()),
        ..ended(EventKind::Transaction)
    };
    recorder.record(told.clone(), true, &Counters::default());
    let log = log_of(&path);
    let [read] = &log.events[..] else { panic!("{log:?}") };
    let holder = holder("worker --fast ?[31m");
    let first_statement = Some("é".repeat(64));
    let (process, number) = (Process::this(), 1);
    let read_process = read.process.clone();
    assert!(process.command.starts_with(&read_process.command) && read_process.pid == process.pid);
    assert_eq!(read_process.pid_namespace, process.pid_namespace);
    #[cfg(target_os = "linux")]
    assert!(process.pid_namespace.is_some());
    let expected =
        Event { holder: Some(holder), first_statement, number, process: read_process, ..told };
    assert_eq!(*read, expected);
    assert!(read.unix_us >= log.made_unix_us - 1_000_000);
    let json = read.to_json();
    assert!(json.contains(r#""cause":"stale_snapshot""#) && json.contains(r#""held_ms":0.012,"#));
}

/// More events are recorded than the log has room for. The last ones are there, in order, and the file has not grown.
#[test]
fn the_log_keeps_the_last_events_and_does_not_grow() {
    let (_place, path, recorder) = board();
    let all = RECORDS as u32 + 30;
    record(&path, &recorder, 0..all);
    let log = log_of(&path);
    let frames: Vec<_> = log.events.iter().map(|event| event.frames).collect();
    assert_eq!(frames, (30..all).collect::<Vec<_>>());
    let found = path_of(&path).metadata().expect("it is there");
    assert_eq!((found.len(), found.permissions().mode() & 0o777), (LENGTH, 0o640));
}

/// Several threads record at once, each with its own view of the log, as processes do: nothing is lost.
#[test]
fn events_of_many_at_once_are_all_there() {
    let (_place, path, _) = board();
    std::thread::scope(|scope| {
        for nth in 0..4 {
            let path = &path;
            scope.spawn(move || record(path, &Recorder::of(path), nth * 50..nth * 50 + 50));
        }
    });
    let mut frames: Vec<_> = log_of(&path).events.iter().map(|event| event.frames).collect();
    frames.sort_unstable();
    assert_eq!(frames, (0..200).collect::<Vec<_>>());
}

/// Somebody tore records, and overwrote the number of the newest event, or everything, with zeros, ones or noise. What is whole
/// is read, and the next event is recorded after it.
#[test]
fn damage_is_skipped() {
    let (_place, path, recorder) = board();
    record(&path, &recorder, 0..10);
    let file = std::fs::File::options().write(true).open(path_of(&path)).expect("it is there");
    let at = |number: u64| LENGTH - 1 - (RECORDS - number) * 512;
    // The third record is torn in its middle, and the fourth has the number of another.
    file.write_all_at(&[0xff; 100], at(3) + 200).expect("it is ours");
    file.write_all_at(&9_u64.to_le_bytes(), at(4)).expect("it is ours");
    for newest in [0, 2, 7, u64::MAX] {
        file.write_all_at(&newest.to_le_bytes(), 16).expect("it is ours");
        let numbers: Vec<_> = log_of(&path).events.iter().map(|event| event.number).collect();
        assert_eq!(numbers, [1, 2, 5, 6, 7, 8, 9, 10]);
    }
    // Others recorded events since that number was read.
    file.write_all_at(&5_u64.to_le_bytes(), 16).expect("it is ours");
    record(&path, &recorder, 10..11);
    let numbers: Vec<_> = log_of(&path).events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [1, 2, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(log_of(&path).events[8].frames, 10);

    let mut noise: Vec<u8> = (0..LENGTH).map(|n| (n * n % 251) as u8).collect();
    for byte in [Some(0xff), Some(0), None] {
        if let Some(byte) = byte {
            noise.fill(byte);
        }
        file.write_all_at(&noise[32..], 32).expect("it is ours");
        assert_eq!(log_of(&path).events, []);
        assert_eq!(log_of(&path).tally.refusals, 0);
        record(&path, &recorder, 0..1);
        assert_eq!(log_of(&path).events.len(), 1);
    }
}

/// A process was stopped after it had written its record, and later notes that this is the newest event. By then others have
/// recorded more events than a process looks for at once. The next events are recorded nevertheless, and the number is right
/// again.
#[test]
fn a_process_that_was_stopped_does_not_stop_the_log() {
    for events in [150, RECORDS as u32 + 150] {
        let (_place, path, recorder) = board();
        record(&path, &recorder, 0..events);
        let file = std::fs::File::options().read(true).write(true).open(path_of(&path));
        let file = file.expect("it is there");
        for back in [100, 149] {
            let before = log_of(&path).events.last().expect("some").number;
            file.write_all_at(&(before - back).to_le_bytes(), 16).expect("it is ours");
            record(&path, &recorder, 7000..7003);
            let log = log_of(&path);
            let last: Vec<_> = log.events.iter().rev().take(3).collect();
            assert_eq!(last.iter().map(|it| it.frames).collect::<Vec<_>>(), [7002, 7001, 7000]);
            assert_eq!(last[0].number, before + 3);
            let mut said = [0; 8];
            file.read_exact_at(&mut said, 16).expect("it is ours");
            assert_eq!(u64::from_le_bytes(said), before + 3);
        }
    }
}

/// Somebody wrote a record with the greatest possible number, or one near it. The next events are recorded nevertheless.
#[test]
fn a_number_that_cannot_be_does_not_stop_the_log() {
    for forged in [(1 << 48) - 1, (1 << 48) - 5] {
        let (_place, path, recorder) = board();
        record(&path, &recorder, 0..3);
        let file = std::fs::File::options().write(true).open(path_of(&path)).expect("it is there");
        let at = LENGTH - 1 - (RECORDS - forged % RECORDS) * 512;
        file.write_all_at(&ended(EventKind::Guard).encode(forged), at).expect("it is ours");
        file.write_all_at(&forged.to_le_bytes(), 16).expect("it is ours");
        record(&path, &recorder, 10..13);
        let frames: Vec<_> = log_of(&path).events.iter().map(|event| event.frames).collect();
        assert_eq!(frames, [10, 11, 12]);
    }
}

/// Somebody wrote a record with a time that no clock shows. It is skipped, but one with the last possible second is not.
#[test]
fn a_time_that_cannot_be_is_skipped() {
    let (_place, path, recorder) = board();
    record(&path, &recorder, 0..1);
    let file = std::fs::File::options().write(true).open(path_of(&path)).expect("it is there");
    let year_10000 = 253_402_300_800_000_000;
    for (number, unix_us) in [(2, year_10000), (3, u64::MAX), (4, year_10000 - 1)] {
        let event = Event { unix_us, ..Event::of(EventKind::Refusal) };
        let at = LENGTH - 1 - (RECORDS - number) * 512;
        file.write_all_at(&event.encode(number), at).expect("it is ours");
    }
    let numbers: Vec<_> = log_of(&path).events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [1, 4]);
}

/// The log is deleted again and again, and clients make another. A reader finds one of them or none, but never a file that is
/// no log, and a client records in the new one.
#[test]
fn a_log_that_is_replaced_meanwhile_is_a_log() {
    let (_place, path, recorder) = board();
    std::thread::scope(|scope| {
        let replaces = scope.spawn(|| {
            for _ in 0..3000 {
                let _ = std::fs::remove_file(path_of(&path));
                record(&path, &recorder, 0..1);
            }
        });
        while !replaces.is_finished() {
            match read(&path) {
                Ok(_) | Err(NoLog::Missing) => {}
                Err(why) => panic!("{why}"),
            }
        }
    });
    assert_eq!(log_of(&path).events.len(), 1);
}

/// The disk fails to read the log: that is an error, and does not mean that nothing was recorded.
#[test]
fn a_log_that_cannot_be_read_is_not_empty() {
    let short = tempfile::tempfile().expect("a file");
    short.set_len(LENGTH / 2).expect("it is ours");
    super::file::events(&short).expect_err("half of it is missing");
}

/// What is in the log's place belongs to another program: it stays as it is, and nothing is recorded. A log that was cut short
/// is not used either.
#[test]
fn what_is_no_log_stays_as_it_is() {
    let (place, path, recorder) = board();
    let log = path_of(&path);
    let other = place.path().join("other");
    let untouched = |what: &dyn Fn() -> bool, why: &str| {
        record(&path, &recorder, 0..1);
        recorder.add(&Counters::default(), 0);
        assert!(what(), "{why}");
        let refused = read(&path).expect_err("it is none");
        assert!(refused.to_string().contains(why), "{refused}");
        let _ = std::fs::remove_file(&log).or_else(|_| std::fs::remove_dir(&log));
    };
    std::fs::write(&log, "mine").expect("a file");
    let is_mine = |file: &Path| std::fs::read(file).is_ok_and(|text| text == b"mine");
    untouched(&|| is_mine(&log), "something else");
    std::fs::write(&log, vec![b'x'; LENGTH as usize]).expect("a file");
    untouched(
        &|| std::fs::read(&log).is_ok_and(|all| all == vec![b'x'; LENGTH as usize]),
        "something else",
    );
    std::fs::write(&other, "mine").expect("a file");
    symlink(&other, &log).expect("a link");
    untouched(&|| is_mine(&other), "symbolic link");
    std::fs::hard_link(&path, &log).expect("a link");
    untouched(&|| std::fs::read(&path).is_ok_and(|all| all == b"something"), "something else");
    std::fs::create_dir(&log).expect("a directory");
    untouched(&|| log.is_dir(), "directory");
    let fifo = std::process::Command::new("mkfifo").arg(&log).status();
    assert!(fifo.expect("mkfifo").success());
    untouched(&|| log.exists(), "FIFO");

    record(&path, &recorder, 0..3);
    std::fs::hard_link(&log, place.path().join("second")).expect("a link");
    untouched(&|| log.metadata().is_ok_and(|found| found.nlink() == 2), "something else");
    record(&path, &recorder, 0..3);
    let file = std::fs::File::options().write(true).open(&log).expect("it is there");
    file.set_len(20_000).expect("it is ours");
    untouched(&|| log.metadata().is_ok_and(|found| found.len() == 20_000), "something else");
    record(&path, &recorder, 0..3);
    let file = std::fs::File::options().write(true).open(&log).expect("it is there");
    file.write_all_at(&[2], 15).expect("it is ours");
    untouched(&|| true, "newer version");
}

/// A process was killed when it had made the file, but had not set its length, or had not written to it. Others go on with the
/// file.
#[test]
fn a_log_that_was_half_made_is_used() {
    for length in [0, LENGTH] {
        let (_place, path, recorder) = board();
        let file = std::fs::File::create_new(path_of(&path)).expect("a file");
        file.set_len(length).expect("it is ours");
        assert!(matches!(read(&path), Err(NoLog::Missing)));
        // Counters alone do not make a process go on with the file.
        recorder.add(&Counters::default(), 0);
        assert_eq!(file.metadata().expect("it is open").len(), length);
        record(&path, &recorder, 0..2);
        let log = log_of(&path);
        assert!(log.events.len() == 2 && log.made_unix_us > 0);
        file.set_len(0).expect("it is ours");
        make(&path).expect("it may be made");
        assert!(log_of(&path).made_unix_us > 0);
    }
}

/// Another program has an empty file of that name, which it has locked. It stays empty.
#[test]
fn an_empty_file_that_is_locked_stays() {
    let (_place, path, recorder) = board();
    let file = std::fs::File::create_new(path_of(&path)).expect("a file");
    let found = || file.metadata().expect("it is open").len();
    let lock = sys::LockFile::new(file.try_clone().expect("a descriptor"));
    let byte = sys::Range { start: 1, len: 1 };
    assert!(lock.try_lock(byte, true).expect("it can be locked"));
    record(&path, &recorder, 0..1);
    assert_eq!(found(), 0);
    lock.unlock(byte).expect("it is locked");
    record(&path, &recorder, 0..1);
    assert_eq!(found(), LENGTH);
}

/// Several processes have the first event of a board at the same time. One of them makes the log, and the others find it.
#[test]
fn the_first_events_of_many_are_all_there() {
    for _ in 0..40 {
        let (_place, path, _) = board();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for nth in 0..4 {
                let (path, barrier) = (&path, &barrier);
                scope.spawn(move || {
                    let recorder = Recorder::of(path);
                    barrier.wait();
                    record(path, &recorder, nth..nth + 1);
                });
            }
        });
        assert_eq!(log_of(&path).events.len(), 4);
    }
}

/// An administrator changed the board's group or mode: the log gets the same when something is recorded.
#[test]
fn the_log_follows_the_rights_of_its_database() {
    let (_place, path, recorder) = board();
    record(&path, &recorder, 0..1);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("it is ours");
    record(&path, &recorder, 1..2);
    let mode = path_of(&path).metadata().expect("it is there").permissions().mode();
    assert_eq!((mode & 0o777, log_of(&path).events.len()), (0o666, 2));
}

/// Two processes count. The log has what both counted. While all places for counters are locked, nothing is added, and the next
/// time adds it.
#[test]
fn counters_of_all_add_up() {
    let (_place, path, mut recorder) = board();
    let other = Recorder::of(&path);
    let (mine, others) = (Counters::default(), Counters::default());
    mine.holds.count(5);
    recorder.add(&mine, 0);
    assert!(matches!(read(&path), Err(NoLog::Missing)), "counters alone make no log");
    make(&path).expect("it may be made");
    recorder.add(&mine, 0);
    recorder.add(&mine, 0);
    others.holds.count(1 << 20);
    count(&others.gave_up_after_wait);
    other.add(&others, 0);
    mine.holds.count(6);
    recorder.close(&mine);
    let tally = log_of(&path).tally;
    assert_eq!((tally.holds.count(), tally.give_ups), (3, 1));
    assert_eq!((tally.holds.classes[0], tally.holds.classes[7]), (2, 1));
    assert_eq!(tally.holds.sum, Duration::from_nanos(11 + (1 << 20)));
    assert_eq!(tally::Durations::bound(7), Some(Duration::from_nanos(1 << 21)));

    let lock = sys::LockFile::new(sys::open_to_lock(&path_of(&path)).expect("it is there"));
    let places = sys::Range { start: 1 << 32, len: 16 };
    assert!(lock.try_lock(places, false).expect("it can be locked"));
    mine.holds.count(7);
    recorder.add(&mine, 0);
    assert_eq!(log_of(&path).tally.holds.count(), 3, "all places are locked");
    lock.unlock(places).expect("it is locked");
    recorder.add(&mine, 0);
    assert_eq!(log_of(&path).tally.holds.count(), 4);
}

/// The disk blocks a thread that writes to the log of one board. Another thread records on the same board, and on another one,
/// and waits for neither. The blocked thread writes that thread's event.
#[test]
fn nobody_waits_for_anothers_write() {
    let (_place, path, recorder) = board();
    let (_other_place, other_path, other) = board();
    let counters = Counters::default();
    // As if a thread were in the middle of a write.
    let (added, opening) = (recorder.added.lock(), Opening::begin());
    let (told, all_told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (recorder, other, counters) = (&recorder, &other, &counters);
        scope.spawn(move || {
            recorder.record(ended(EventKind::Refusal), true, counters);
            recorder.add(counters, 0);
            other.record(ended(EventKind::Guard), true, counters);
            told.send(())
        });
        let waited = all_told.recv_timeout(Duration::from_secs(20));
        assert!(matches!(read(&path), Err(NoLog::Missing)));
        drop((added, opening));
        assert!(waited.is_ok(), "it waits");
    });
    assert_eq!(log_of(&other_path).events.len(), 1);
    recorder.write(&counters);
    assert_eq!(log_of(&path).events.len(), 1);
}

/// Several threads of a process record on one board at once: each event is there when the last thread has returned.
#[test]
fn threads_leave_no_event_behind() {
    let (_place, path, recorder) = board();
    let counters = Counters::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..4 {
                    recorder.record(ended(EventKind::Refusal), true, &counters);
                }
            });
        }
    });
    assert_eq!(log_of(&path).events.len(), 16);
}

/// A thread that forks waits until no log is open.
#[test]
fn a_fork_waits_for_an_open_log() {
    let opening = Opening::begin();
    let (forks, has_forked) = std::sync::mpsc::channel();
    let forker = std::thread::spawn(move || {
        drop(hold_for_fork());
        forks.send(())
    });
    assert!(has_forked.recv_timeout(Duration::from_millis(50)).is_err(), "a log is open");
    drop(opening);
    has_forked.recv_timeout(Duration::from_secs(60)).expect("it forks");
    forker.join().expect("it ends").expect("it is heard");
}

/// A process adds to the counters again and again. A reader finds them whole at any moment: they never go down.
#[test]
fn counters_never_go_down() {
    let (_place, path, recorder) = board();
    make(&path).expect("it may be made");
    let counters = Counters::default();
    std::thread::scope(|scope| {
        let adds = scope.spawn(|| {
            for _ in 0..5000 {
                counters.holds.count(1);
                recorder.add(&counters, 0);
            }
        });
        let mut before = 0;
        while !adds.is_finished() {
            let now = log_of(&path).tally.holds.count();
            assert!(now >= before, "{before}, then {now}");
            before = now;
        }
    });
    assert_eq!(log_of(&path).tally.holds.count(), 5000);
}

/// A program is refused in a loop. Some of its events of each second are recorded, with the number of the others.
#[test]
fn a_flood_leaves_room_for_others() {
    let (_place, path, recorder) = board();
    let counters = Counters::default();
    let second = || sys::monotonic_ns() / 1_000_000_000;
    let began = second();
    for _ in 0..MOST + 5 {
        recorder.record(ended(EventKind::Refusal), true, &counters);
    }
    if second() == began {
        assert_eq!(log_of(&path).events.len(), MOST as usize);
    }
    recorder.waiting.lock().second = 0;
    recorder.record(ended(EventKind::Refusal), true, &counters);
    let left_out: u32 = log_of(&path).events.iter().map(|event| event.left_out).sum();
    assert_eq!(left_out as usize + log_of(&path).events.len(), MOST as usize + 6);
}

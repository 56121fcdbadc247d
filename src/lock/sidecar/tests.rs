use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::content::OPEN;
use super::deletion::delete;
use super::opening::open_found;
use super::place::is_at;
use super::*;
use crate::lock::page::{FOUND, HEADER, LENGTH, OLDER, is_newer};

/// A waiter sleeps for a minute, and a holder wakes it. A waiter that only looked every millisecond would see
/// nothing, since nobody changes the word.
#[test]
fn a_holder_wakes_a_sleeping_waiter() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    let [sleeper, waker] = [(); 2].map(|()| Sidecar::open(&board, true).expect("a sidecar"));
    assert!(sleeper.is_mapped());
    let (woken, was_woken) = channel();
    std::thread::spawn(move || {
        let _ = woken.send(QueueFile::wait(&sleeper, 3, 0, Duration::from_secs(60)));
    });
    let began = Instant::now();
    let answer = loop {
        // More than once, since the waiter may not sleep yet.
        QueueFile::wake(&waker, 3);
        match was_woken.recv_timeout(Duration::from_millis(1)) {
            Ok(answer) => break answer,
            Err(_) => assert!(began.elapsed() < Duration::from_secs(30), "it sleeps on"),
        }
    };
    assert!(answer, "it was woken");
    assert!(!waker.wait(3, 0, Duration::from_millis(1)), "nobody wakes it");
    assert!(waker.wait(3, 1, Duration::from_secs(60)), "the word is another by now");
}

/// A new database, and its sidecar.
fn made() -> (tempfile::TempDir, PathBuf, Sidecar) {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    let sidecar = Sidecar::open(&board, true).expect("a sidecar");
    (directory, board, sidecar)
}

/// A sidecar tells its descriptor, which a forked child closes. It also tells whether it is in its place, since one that was
/// moved or replaced excludes nobody.
#[test]
fn a_sidecar_knows_its_file_and_its_place() {
    let (directory, board, sidecar) = made();
    let inode = sys::inode_of(sidecar.descriptor()).expect("it is open");
    assert!(inode == sidecar.inode && sidecar.is_in_place(&board));
    let (path, elsewhere) = (path_of(&board), directory.path().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).expect("it is moved");
    assert!(!sidecar.is_in_place(&board), "it is gone");
    std::fs::write(&path, "").expect("a file");
    assert!(!sidecar.is_in_place(&board), "it was replaced");
    std::fs::rename(&elsewhere, &path).expect("it is back");
    assert!(sidecar.is_in_place(&board));
}

/// The error says why there is no sidecar: there is none, it cannot be made, or nobody can tell.
#[test]
fn an_open_that_fails_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    assert!(matches!(Sidecar::open(&board, false), Err(Unusable::Missing)));
    assert!(matches!(Sidecar::open(&board, true), Err(Unusable::NoDatabase(_))));
    assert!(matches!(look_at(&board, |_| ()), Err(Unusable::Missing)));
    let status = Path::new("/proc/self/status");
    assert!(matches!(Sidecar::open(status, true), Err(Unusable::Create(_))));
    // With five characters more, the name is too long for any file.
    let long = directory.path().join("x".repeat(253));
    for create in [true, false] {
        assert!(matches!(Sidecar::open(&long, create), Err(Unusable::Open(_, None))));
    }
    assert!(matches!(look_at(&long, |_| ()), Err(Unusable::Open(_, None))));
}

/// A process sees a sidecar, which is gone or replaced when the process opens it. That is no error: it looks again.
#[test]
fn a_sidecar_that_changes_before_it_is_opened_is_looked_at_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    drop(Sidecar::open(&board, true).expect("a sidecar"));
    let path = path_of(&board);
    let found = sys::entry_at(&path).expect("it is there");
    assert!(matches!(open_found(None, &path, &found), Ok(Some(_))));
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&path, &elsewhere).expect("it is moved");
    assert!(matches!(open_found(None, &path, &found), Ok(None)));
    assert!(!is_at(&path, found.inode), "there is none");
    std::fs::hard_link(&board, &path).expect("a second name");
    assert!(matches!(open_found(None, &path, &found), Ok(None)), "it is another");
    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, "").expect("a file");
    assert!(!is_at(&path, found.inode), "there is another");
}

/// Threads open the sidecar and close it as the last, all the time. Each that has it open has the one in its place, and in the
/// end there is no sidecar.
#[test]
fn an_open_sidecar_is_the_one_in_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    let come_and_go = || {
        for _ in 0..500 {
            // Another thread takes longer to delete it than this one waits.
            let Ok(sidecar) = Sidecar::open(&board, true) else { continue };
            assert!(sidecar.is_in_place(&board), "others have another");
            sidecar.delete(&board);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(come_and_go))));
    let began = Instant::now();
    loop {
        let last = Sidecar::open(&board, true).expect("a sidecar");
        last.delete(&board);
        if !path_of(&board).exists() {
            break;
        }
        // A child that another test forked keeps what was open, until the child ends.
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "it stays");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The last process that has it open deletes it, and none does while another has it open. It stays if it records that a sync of
/// an existing WAL has failed, or if somebody has written something else into it.
#[test]
fn the_last_to_close_deletes_it_if_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let (board, wal) = (directory.path().join("board.db"), directory.path().join("board.db-wal"));
    std::fs::write(&board, "").expect("a file");
    let open = || Sidecar::open(&board, true).expect("a sidecar");
    let is_there = || path_of(&board).exists();
    let (one, other) = (open(), open());
    one.delete(&board);
    assert!(is_there(), "another has it open");
    // The refused process has no exclusive lock, so the file may be opened.
    drop(one);
    let again = open();
    assert_eq!(again.inode, other.inode);
    drop(other);
    again.delete(&board);
    assert!(!is_there());

    for (failures, has_wal, stays) in [(1, true, true), (1, false, false), (2, true, false)] {
        let sidecar = open();
        let mut bytes = GroupBytes::default();
        bytes.0[16] = failures;
        sidecar.write_group(&bytes).expect("it is open");
        let _ = if has_wal { std::fs::write(&wal, "x") } else { std::fs::remove_file(&wal) };
        sidecar.delete(&board);
        assert_eq!(is_there(), stays, "{failures} {has_wal}");
        drop(sidecar);
        let _ = std::fs::remove_file(path_of(&board));
    }
    let sidecar = open();
    std::fs::write(path_of(&board), "something of somebody else's").expect("a file");
    sidecar.delete(&board);
    assert!(is_there());
}

/// A process that cannot tell whether another has the file open deletes nothing.
#[test]
fn an_error_of_the_lock_deletes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    let sidecar = Sidecar::open(&board, true).expect("a sidecar");
    let path = path_of(&board);
    // An exclusive lock by a read-only descriptor fails with EBADF.
    let reads = LockFile::new(File::open(&path).expect("it is there"));
    delete(&reads, &path, sidecar.inode, |_| true);
    assert!(path.exists());
}

/// A file that was there before, empty or cut short, is used. But nobody changes its rights or deletes it, and a file that
/// another program has locked in its own way stays as it is.
#[test]
fn a_file_that_was_found_is_not_deleted() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    let path = path_of(&board);
    let mode = || std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
    for content in [&b""[..], &HEADER, &[0; LENGTH]] {
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("it is ours");
        for _ in 0..2 {
            let sidecar = Sidecar::open(&board, true).expect("a sidecar");
            assert!(sidecar.is_in_place(&board));
            assert_eq!(mode(), 0o600);
            sidecar.delete(&board);
        }
        assert_eq!(std::fs::read(&path).expect("it is there")[..16], FOUND);
        std::fs::remove_file(&path).expect("it is there");
    }
    std::fs::write(&path, "").expect("a file");
    let lock = File::open(&path).expect("it is there");
    sys::for_tests::flock_all(&lock);
    assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Foreign)));
    assert_eq!(std::fs::metadata(&path).expect("it is there").len(), 0);
    drop(lock);
    let lock = File::options().write(true).open(&path).expect("it is there");
    assert!(sys::try_lock(&lock, Range { start: 0, len: 1 }, false).expect("it locks"));
    assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Foreign)));
}

/// A process is about to delete the sidecar, and is stopped. Others neither use the file nor wait for long.
#[test]
fn a_sidecar_that_is_being_deleted_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    let deleting = Sidecar::open(&board, true).expect("a sidecar");
    assert!(deleting.file.try_lock(OPEN, false).expect("it is asked"));
    assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Moving)));
    deleting.delete(&board);
    assert!(Sidecar::open(&board, true).is_ok());
}

/// Two first writers make the sidecar at the same moment. Both have it, and it is one file.
#[test]
fn two_processes_that_make_it_at_once_share_it() {
    let directory = tempfile::tempdir().expect("a directory");
    for nth in 0..200 {
        let board = directory.path().join(format!("{nth}.db"));
        std::fs::write(&board, "").expect("a file");
        let begin = std::sync::Barrier::new(2);
        let make = || {
            begin.wait();
            Sidecar::open(&board, true).map(|sidecar| sidecar.inode)
        };
        let [one, other] = std::thread::scope(|scope| {
            [scope.spawn(make), scope.spawn(make)].map(|made| made.join().expect("no panic"))
        });
        assert_eq!(one.expect("a sidecar"), other.expect("a sidecar"));
    }
}

/// A process of an older version has died, or still has the board open. Once nobody has it open, its page is made one of this
/// version, and keeps what group commit has noted. Until then it is left alone.
#[test]
fn a_page_of_an_older_version_is_renewed_when_nobody_has_it_open() {
    for (older, newer) in OLDER.into_iter().zip([HEADER, FOUND, HEADER, FOUND]) {
        for len in [LENGTH, 4096, 100] {
            let directory = tempfile::tempdir().expect("a directory");
            let board = directory.path().join("board.db");
            std::fs::write(&board, "").expect("a file");
            let path = path_of(&board);
            let mut page: Vec<u8> = (0..len).map(|n| n as u8 | 1).collect();
            page[..older.len()].copy_from_slice(&older);
            std::fs::write(&path, &page).expect("a page");
            let elsewhere = LockFile::new(sys::open_to_lock(&path).expect("it is there"));
            assert_eq!(elsewhere.try_lock(OPEN, true).ok(), Some(true));
            assert!(matches!(Sidecar::open(&board, true), Err(Unusable::Older)));
            assert!(matches!(opening::obstacle(&board), Some(Unusable::Older)));
            assert_eq!(std::fs::read(&path).expect("it is there"), page, "it is left alone");
            drop(elsewhere);

            assert!(opening::obstacle(&board).is_none());
            let first = Sidecar::open(&board, false).expect("nobody has it open");
            let now = std::fs::read(&path).expect("it is there");
            assert_eq!((&now[..16], now.len()), (&newer[..], LENGTH));
            assert_eq!(now[GROUP..][..28], page[GROUP..][..28], "group commit's");
            assert!(now[16..GROUP].iter().chain(&now[GROUP + 28..]).all(|byte| *byte == 0));
            let second = Sidecar::open(&board, false).expect("it is one of ours");
            assert_eq!(first.inode(), second.inode());
            let elsewhere = LockFile::new(sys::open_to_lock(&path).expect("it is there"));
            assert_eq!(elsewhere.try_lock(OPEN, false).ok(), Some(false), "both have it open");
        }
    }
}

/// A process of a newer version has the board open, or has died. This process cannot know what the page means, so it leaves the
/// page alone. It does not call the file somebody else's, to be moved away.
#[test]
fn a_page_of_a_newer_version_is_left_alone() {
    for header in [HEADER, FOUND] {
        for version in [4, u32::MAX] {
            for len in [HEADER.len(), 100, LENGTH] {
                let directory = tempfile::tempdir().expect("a directory");
                let board = directory.path().join("board.db");
                std::fs::write(&board, "").expect("a file");
                let mut page = vec![7; len];
                page[..12].copy_from_slice(&header[..12]);
                page[12..16].copy_from_slice(&version.to_le_bytes());
                std::fs::write(path_of(&board), &page).expect("a page");
                for create in [true, false] {
                    assert!(matches!(Sidecar::open(&board, create), Err(Unusable::Newer)));
                }
                assert!(matches!(opening::obstacle(&board), Some(Unusable::Newer)));
                assert!(opening::look_at(&board, |_| ()).is_ok(), "its locks may be looked at");
                assert!(!Unusable::Newer.to_string().contains("move it away"));
                let now = std::fs::read(path_of(&board)).expect("it is there");
                assert_eq!(now, page, "it is left alone");
            }
        }
    }
    let mut other = HEADER;
    other[0] = b'K';
    other[12] = 4;
    assert!(!is_newer(&other) && !is_newer(&HEADER) && !is_newer(&OLDER[1]));
}

/// Another program's file in the place of a sidecar is closed at once, unless that would drop locks of this process. The
/// process may have locks on it. Or it may take some at any moment, since it has the file open and the file may be a database.
/// The file is closed once the process has closed its own descriptor. That is noticed when more such files have come.
#[test]
fn a_file_of_others_stays_open_only_while_a_close_could_unlock_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let make = |name: &str, len| std::fs::write(path(name), vec![b'1'; len]).expect("a file");
    let opened = |name: &str| {
        let file = sys::open_to_lock(&path(name)).expect("it is there");
        let inode = sys::entry_of(&file).expect("it is open").inode;
        (LockFile::new(file), inode)
    };
    let range = Range { start: 0, len: 1 };
    for (name, len, has_open, is_locked, stays) in [
        ("a text", 5, false, false, false),
        ("an open text", 5, true, false, false),
        ("a locked text", 5, true, true, true),
        ("a database", 512, false, false, false),
        ("an open database", 512, true, false, true),
        ("an open, empty one", 0, true, false, true),
    ] {
        make(name, len);
        let own = has_open.then(|| File::options().read(true).write(true).open(path(name)));
        let own = own.map(|own| own.expect("it is there"));
        if let Some(own) = own.as_ref().filter(|_| is_locked) {
            sys::for_tests::lock_by_posix(own, range, libc::F_WRLCK);
        }
        let (file, inode) = opened(name);
        anothers::keep(file, inode);
        assert_eq!(anothers::kept_of(inode), usize::from(stays), "{name}");
        // Another thread opened it at the same time.
        let file = sys::open_to_lock(&path(name)).expect("it is there");
        anothers::keep(LockFile::new(file), inode);
        assert_eq!(anothers::kept_of(inode), 2 * usize::from(stays), "{name}");
        if let Some(own) = own.as_ref().filter(|_| is_locked) {
            let has = || sys::has_posix_locks(own.as_raw_fd()).expect("it tells");
            assert!(has(), "{name}");
        }
        drop(own);
        let mut others = Vec::new();
        while anothers::kept_of(inode) > 0 && others.len() < 100 {
            let other = format!("another, {}", others.len());
            make(&other, 512);
            others.push(File::open(path(&other)).expect("it is there"));
            let (file, inode) = opened(&other);
            anothers::keep(file, inode);
        }
        assert_eq!(anothers::kept_of(inode), 0, "{name}");
    }
}

/// A program has an empty file of its own in the place of a sidecar, and locks it, either before somebody looks there or in the
/// middle of the look. The program keeps its lock.
#[test]
fn a_look_drops_no_lock_of_this_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board.db");
    std::fs::write(&board, "").expect("a file");
    for before in [true, false] {
        let path = path_of(&board);
        std::fs::write(&path, "").expect("a file");
        let own = File::options().read(true).write(true).open(&path).expect("it is there");
        let lock = || {
            sys::for_tests::lock_by_posix(&own, Range { start: 0, len: 1 }, libc::F_WRLCK);
        };
        let has = || sys::has_posix_locks(own.as_raw_fd()).expect("it tells");
        if before {
            lock();
            assert!(matches!(look_at(&board, |_| ()), Err(Unusable::Foreign)));
            assert!(has());
            assert!(matches!(opening::obstacle(&board), Some(Unusable::Foreign)));
        } else {
            look_at(&board, |_| lock()).expect("nobody had it locked");
        }
        assert!(has(), "{before}");
        drop(own);
        std::fs::remove_file(path).expect("it is there");
    }
}

/// Somebody cuts the file short under a process that writes to its mapping. That is an error, and kills nobody. Once the file
/// is whole again, it has what is written.
#[test]
fn a_page_is_written_through_its_mapping() {
    let (_directory, board, sidecar) = made();
    let words = sidecar.words.as_ref().expect("it is mapped");
    let file = std::fs::File::options().write(true).open(path_of(&board)).expect("it is there");
    words.write(5000, b"a thousand waiters").expect("there is a /dev/shm");
    let bytes = || std::fs::read(path_of(&board)).expect("it is there");
    assert_eq!(bytes()[5000..5018], *b"a thousand waiters");
    file.set_len(16).expect("it is ours");
    assert!(words.write(5000, b"nobody").is_err());
    assert_eq!(bytes().len(), 16);
    file.set_len(LENGTH as u64).expect("it is ours");
    words.write(5000, b"two").expect("it is whole");
    assert_eq!(bytes()[5000..5004], *b"two\0");
    assert!(words.write(LENGTH - 2, b"behind its end").is_err());
}

/// The file system has no shared mappings, so nobody can wake a waiter. The waiter waits as long as it should, even behind
/// another, and sees that it was woken.
#[test]
fn a_waiter_that_cannot_be_woken_waits_as_long() {
    use crate::lock::queue::{Purpose, Queue, Rank, Until};
    let (_directory, _board, mut sidecar) = made();
    sidecar.words = None;
    let queue = Queue::new(sidecar);
    let join = || queue.join(Rank::Last, Duration::ZERO, Purpose::Write).expect("there is room");
    let (mut first, mut second) = (join(), join());
    queue.show(&mut first);
    let limit = Duration::from_millis(200);
    let began = Instant::now();
    assert_eq!(queue.wait(&mut second, limit, Until::Turn), None);
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());

    let word = queue.sidecar().read().expect("a page").word(second.slot);
    let wake = [(word + 1).to_le_bytes(), 2_u32.to_le_bytes()].concat();
    let began = Instant::now();
    let is_woken = std::thread::scope(|scope| {
        let wakes = || {
            std::thread::sleep(limit / 10);
            queue.sidecar().write(slot_offset(second.slot) as u64, &wake)
        };
        let waker = scope.spawn(wakes);
        let is_woken = !queue.sidecar().wait(second.slot, word, limit * 100);
        waker.join().expect("no panic").expect("it can be written");
        !is_woken
    });
    assert!(is_woken && began.elapsed() < limit * 50);
    queue.leave(&first);
    queue.leave(&second);
}

/// Somebody cuts the file short within its last page, so that a write to the mapping would succeed and lengthen nothing. The
/// file gets its length back.
#[test]
fn a_file_cut_within_its_last_page_gets_its_length_back() {
    let (_directory, board, sidecar) = made();
    let file = File::options().write(true).open(path_of(&board)).expect("it is there");
    for len in [LENGTH as u64 - 100, 16, 0] {
        file.set_len(len).expect("it is ours");
        sidecar.lengthen();
        assert_eq!(file.metadata().expect("it is open").len(), LENGTH as u64, "of {len}");
    }
}

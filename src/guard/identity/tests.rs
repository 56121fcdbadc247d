use super::*;
use std::fs;

/// An age at which a comparison is no longer valid, in ns.
const LONG_AGO: u64 = 2 * CHECK_NS;

impl Identity {
    fn check_now(&mut self) -> Result<(), Displaced> {
        self.check(sys::monotonic_ns())
    }

    /// Pretends that the last check was `ago` ns ago.
    fn was_checked(&mut self, ago: u64) {
        self.checked = sys::monotonic_ns().wrapping_sub(ago);
    }
}

/// A board in WAL mode, just opened, and a place beside its directory.
fn board() -> (tempfile::TempDir, std::path::PathBuf, Identity) {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("boards");
    fs::create_dir(&directory).expect("a directory");
    for name in ["board.db", "board.db-wal", "board.db-shm"] {
        fs::write(directory.join(name), name).expect("a file");
    }
    let path = directory.join("board.db");
    let mut identity = Identity::of(&path, false).expect("it can be told").expect("it is there");
    identity.wal_opened();
    (place, path, identity)
}

/// Checks until the directory's last change is long enough ago to be remembered.
fn settle(identity: &mut Identity) {
    let began = std::time::Instant::now();
    while identity.unchanged.is_none() {
        assert_eq!(identity.check_now(), Ok(()));
        assert!(began.elapsed() < std::time::Duration::from_secs(60));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn an_identity_knows_the_files_that_it_has_opened() {
    let (_place, path, mut identity) = board();
    let inode = |suffix: &str| {
        let name = format!("{}{suffix}", path.display());
        sys::stat(&Name::new(name.as_ref()).expect("a name")).expect("it is there").inode
    };
    assert_eq!(identity.inode(), inode(""));
    assert_eq!(identity.wal(), Some(inode("-wal")));
    assert_eq!(identity.wal_index(), Some(inode("-shm")));
    identity.wal_closed();
    assert_eq!((identity.wal(), identity.wal_index()), (None, None));
}

/// Each of the files is replaced in turn. The file that was first opened is compared, even if more
/// of the wal-index is mapped later.
#[test]
fn a_writer_misses_each_file_that_is_replaced() {
    let files = [("", "the database"), ("-wal", "the WAL"), ("-shm", "the wal-index (-shm)")];
    for (suffix, what) in files {
        for is_settled in [false, true] {
            let (place, path, mut identity) = board();
            if is_settled {
                settle(&mut identity);
            }
            let other = place.path().join("other");
            fs::write(&other, "other").expect("a file");
            let name = format!("{}{suffix}", path.display());
            fs::rename(&other, &name).expect("it is replaced");
            for _ in 0..2 {
                assert_eq!(identity.check_now(), Err(Displaced::Moved(what)));
                identity.wal_opened();
            }
            fs::remove_file(&name).expect("it is removed");
            assert_eq!(identity.check_now(), Err(Displaced::Moved(what)));
        }
    }
}

/// The board gets a second name in another directory, which its own directory does not show. A
/// writer notices it at its check once a second. A connection that only reads goes on.
#[test]
fn a_second_name_elsewhere_is_noticed_after_a_while() {
    let (place, path, mut identity) = board();
    settle(&mut identity);
    fs::hard_link(&path, place.path().join("second.db")).expect("a link");
    identity.was_checked(LONG_AGO);
    assert_eq!(identity.check_now(), Err(Displaced::Linked(2)));
    identity.was_checked(LONG_AGO);
    assert_eq!(identity.check_now_and_then(), Ok(()));
    assert!(!identity.is_due(sys::monotonic_ns()), "it has looked");
    identity.may_have_links = true;
    assert_eq!(identity.check_now(), Ok(()));
}

/// The directory is moved, or its parent, and another board takes its place. A writer notices a
/// moved directory at once, and a moved parent at its check once a second.
#[test]
fn a_writer_misses_a_directory_that_was_moved() {
    for (what, is_above) in [("boards", false), ("", true)] {
        let (place, path, mut identity) = board();
        settle(&mut identity);
        let aside = tempfile::tempdir().expect("a directory");
        let moved = place.path().join(what);
        fs::rename(&moved, aside.path().join("aside")).expect("it is moved");
        fs::create_dir_all(path.parent().expect("its own")).expect("a directory");
        fs::write(&path, "another").expect("a file");
        if is_above {
            identity.was_checked(LONG_AGO);
        }
        for _ in 0..2 {
            assert_eq!(identity.check_now(), Err(Displaced::Moved("the database")));
        }
    }
}

/// Another directory of the same name has the same files. A writer notices when they are replaced
/// there.
#[test]
fn a_directory_that_was_replaced_vouches_for_nothing() {
    let (place, path, mut identity) = board();
    identity.may_have_links = true;
    settle(&mut identity);
    let boards = path.parent().expect("its own").to_owned();
    let aside = place.path().join("aside");
    fs::rename(&boards, &aside).expect("it is moved");
    fs::create_dir(&boards).expect("a directory");
    for name in ["board.db", "board.db-wal", "board.db-shm"] {
        fs::hard_link(aside.join(name), boards.join(name)).expect("a link");
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    for _ in 0..2 {
        assert_eq!(identity.check_now(), Ok(()));
    }
    fs::remove_file(&path).expect("it is removed");
    assert_eq!(identity.check_now(), Err(Displaced::Moved("the database")));
}

/// A connection that only reads checks once a second, and then all files.
#[test]
fn a_reader_looks_when_it_is_due() {
    let (_place, path, mut identity) = board();
    fs::remove_file(&path).expect("it is removed");
    identity.was_checked(0);
    assert_eq!(identity.check_now_and_then(), Ok(()));
    identity.was_checked(LONG_AGO);
    assert_eq!(identity.check_now_and_then(), Err(Displaced::Moved("the database")));
}

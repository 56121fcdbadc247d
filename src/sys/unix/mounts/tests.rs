use super::*;

#[test]
fn a_directory_of_this_machine_shares_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(shares_memory(directory.path()).expect("it can be tried"));
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

/// A database is mounted over itself, once or twice, whatever part of its file system is visible. Other mounts
/// are not such: what is mounted there is of another directory, file system or name, or deleted.
#[test]
fn a_file_that_is_mounted_over_itself_is_told_from_others() {
    let path = Path::new("/srv/a b/board.db");
    for (mounts, expected) in [
        (&["1 0 8:1 / /", "2 1 8:1 /srv/a\\040b/board.db /srv/a\\040b/board.db"][..], true),
        (&["1 0 8:1 / /", "2 1 8:1 /srv/other.db /srv/a\\040b/board.db"], false),
        (&["1 0 8:1 / /", "2 1 8:2 /srv/a\\040b/board.db /srv/a\\040b/board.db"], false),
        (&["1 0 8:1 / /", "2 1 8:1 /srv/a\\040b/board.db//deleted /srv/a\\040b/board.db"], false),
        (
            &[
                "1 0 8:1 / /",
                "2 1 8:9 /@data/boards /srv/a\\040b",
                "3 2 8:9 /@data/boards/board.db /srv/a\\040b/board.db",
                "4 3 8:9 /@data/boards/board.db /srv/a\\040b/board.db",
            ],
            true,
        ),
        (
            &[
                "1 0 8:1 / /",
                "3 1 8:1 /other.db /srv/a\\040b/board.db",
                "4 3 8:1 /other.db /srv/a\\040b/board.db",
            ],
            false,
        ),
        (&["2 1 8:1 /srv/a\\040b/board.db /srv/a\\040b/board.db"], false),
        (&["1 0 8:1 / /"], false),
        (&[], false),
    ] {
        let lines: Vec<_> = mounts.iter().map(|line| format!("{line} rw - ext4 /dev/x")).collect();
        assert_eq!(is_over_itself(path, &lines.join("\n")), expected, "{mounts:?}");
    }
}

#[test]
fn a_mount_is_found_by_its_longest_name() {
    let (point, name) = mount_of(Path::new("/proc/self/fd")).expect("there is a /proc");
    assert_eq!((point.as_str(), name.as_str()), ("/proc", "proc"));
    assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
}

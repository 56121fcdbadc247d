use super::*;

/// Why WAL mode is refused on a file system of this type and mount. `shares`: whether openers share
/// a file there.
fn refused_on(kind: u64, mount: &str, shares: bool) -> Option<String> {
    let kind = if kind == UNKNOWN { Err(io::ErrorKind::Other.into()) } else { Ok(Some(kind)) };
    refusal(kind, || Some((mount.to_owned(), "the-type".to_owned())), || shares)
}

/// A type for which statfs(2) fails.
const UNKNOWN: u64 = 0;

#[test]
fn wal_mode_is_refused_on_network_file_systems() {
    let of_one_server = [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0xffff_ffff_ff53_4d42];
    let afs = [0x5346_414f, 0x6b41_4653];
    let clusters = [0x00c3_6400, 0x0bd0_0bd0, 0x4750_4653, 0x7461_636f, 0x0116_1970, 0x1983_0326];
    for kind in of_one_server.into_iter().chain(afs).chain(clusters) {
        for mount in ["/", "/boards"] {
            let why = refused_on(kind, mount, true).expect("refused");
            assert!(why.contains(mount) && why.contains("the-type"), "{why}");
            assert!(why.contains("kanban_network_wal=1"), "{why}");
        }
    }
}

#[test]
fn a_root_that_is_served_is_judged_by_what_it_can_do() {
    for kind in [0x0102_1997, 0x6573_5546, 0x786f_4256] {
        assert_eq!(refused_on(kind, "/", true), None, "a sandbox's root");
        assert!(refused_on(kind, "/", false).is_some());
        assert!(refused_on(kind, "/boards", true).is_some());
    }
}

/// A board is in a directory of this machine. Whatever the name of the file system, the test there
/// finds that openers share files.
#[test]
#[cfg_attr(windows, ignore = "no file system is judged by that there")]
fn a_directory_of_this_machine_is_seen_to_share() {
    let directory = tempfile::tempdir().expect("there is room");
    assert!(shares(&directory.path().join("board.db")));
    assert!(!shares(Path::new("/proc/board.db")), "no file, and elsewhere says nothing");
}

#[test]
fn wal_mode_is_allowed_on_local_file_systems() {
    for kind in [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630] {
        assert_eq!(refused_on(kind, "/", false), None);
    }
}

/// A sandbox refuses statfs(2): the test of the file system decides.
#[test]
fn a_file_system_that_cannot_be_told_is_judged_by_what_it_can_do() {
    for mount in ["/", "/boards"] {
        assert_eq!(refused_on(UNKNOWN, mount, true), None);
        let why = refused_on(UNKNOWN, mount, false).expect("it is refused");
        assert!(why.contains("kanban_network_wal=1"), "{why}");
    }
}

/// A database that is no file in any directory has no file system. A file has one even if statfs(2)
/// fails.
#[test]
#[cfg_attr(windows, ignore = "statfs(2)")]
fn a_missing_file_is_told_from_an_unknown_file_system() {
    let kind = |path: &str| kind_of(Path::new(path));
    assert!(matches!(kind("/"), Ok(Some(_))));
    assert!(matches!(kind("/no/such/directory"), Ok(None)));
    assert!(kind(&format!("/{}", "x".repeat(300))).is_err());
}

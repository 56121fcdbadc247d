//! WAL mode needs memory that all clients share (<https://www.sqlite.org/wal.html>), which clients on
//! different machines do not, and locks that work, which network file systems often have not
//! (<https://www.sqlite.org/howtocorrupt.html> 2.1). On such a file system WAL is refused; rollback
//! modes need the locks only.

use std::io;
use std::path::Path;

use crate::sys;

/// What is known of a file system.
pub(crate) trait FileSystem {
    /// Its type, statfs(2); `None` for a database that is no file there.
    fn kind(&self) -> io::Result<Option<u64>>;
    /// Where it is mounted, and its type's name.
    fn mount(&self) -> (String, String);
    /// Whether a file is, as far as one machine can tell, shared by all who have it open: locks
    /// exclude each other, and what one writes another finds in a shared mapping.
    fn shares(&self) -> bool;
}

/// The one that a file lies on.
pub(crate) struct Of<'p>(pub(crate) &'p Path);

impl FileSystem for Of<'_> {
    fn kind(&self) -> io::Result<Option<u64>> {
        match sys::file_system_type(self.0) {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if sys::is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn mount(&self) -> (String, String) {
        sys::mount_of(self.0).unwrap_or_else(|| ("?".to_owned(), "unknown".to_owned()))
    }

    fn shares(&self) -> bool {
        // Where this process may create no file, another place of the same file system tells as much.
        let elsewhere = std::env::temp_dir();
        let is_same = sys::mount_of(&elsewhere) == sys::mount_of(self.0);
        let places = [self.0.parent(), is_same.then_some(elsewhere.as_path())];
        places.into_iter().flatten().find_map(|place| sys::shares_memory(place).ok()) == Some(true)
    }
}

/// How sure it is that others than this machine's processes may have the files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Network,
    /// Depends on who serves it: another machine, or the host of a virtual one or of a sandbox.
    Served,
}

/// Types by their numbers, statfs(2).
const KINDS: [(u64, Nature); 8] = [
    (0x6969, Nature::Network),      // NFS
    (0x517b, Nature::Network),      // SMB
    (0xfe53_4d42, Nature::Network), // SMB2
    (0xff53_4d42, Nature::Network), // CIFS
    (0x5346_414f, Nature::Network), // AFS
    (0x00c3_6400, Nature::Network), // Ceph
    (0x0102_1997, Nature::Served),  // 9p
    (0x6573_5546, Nature::Served),  // FUSE, virtiofs
];

/// Why WAL mode must not be entered there.
///
/// A sandbox shows its own root as 9p or FUSE, and all of its processes share what is there. So where
/// everything is on that file system, what it can do decides, not its name.
pub(crate) fn wal_refusal(file_system: &impl FileSystem) -> Option<String> {
    let kind = match file_system.kind() {
        Ok(kind) => kind?,
        Err(error) => {
            return Some(format!(
                "WAL mode is refused on a file system that can not be told ({error}): clients on \
                 other machines might not share its memory; open the database again, or, if all \
                 clients are on this machine, allow it with kanban_network_wal=1"
            ));
        }
    };
    let (_, nature) = KINDS.iter().find(|(known, _)| *known == kind & 0xffff_ffff)?;
    let (mount, name) = file_system.mount();
    if *nature == Nature::Served && mount == "/" && file_system.shares() {
        return None;
    }
    Some(format!(
        "WAL mode is refused on {name} (mounted at {mount}), where clients on other machines would \
         not share its memory; use a rollback mode or a local disk, or, if all clients are on this \
         machine, kanban_network_wal=1"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(u64, &'static str, bool);

    /// statfs(2) fails.
    const UNKNOWN: u64 = 0;

    impl FileSystem for Fake {
        fn kind(&self) -> io::Result<Option<u64>> {
            match self.0 {
                UNKNOWN => Err(io::ErrorKind::Other.into()),
                kind => Ok(Some(kind)),
            }
        }
        fn mount(&self) -> (String, String) {
            (self.1.to_owned(), "the-type".to_owned())
        }
        fn shares(&self) -> bool {
            self.2
        }
    }

    #[test]
    fn network_file_systems_are_refused_by_name() {
        for kind in [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0xffff_ffff_ff53_4d42] {
            for mount in ["/", "/boards"] {
                let why = wal_refusal(&Fake(kind, mount, true)).expect("refused");
                assert!(why.contains(mount) && why.contains("the-type"), "{why}");
                assert!(why.contains("kanban_network_wal=1"), "{why}");
            }
        }
    }

    #[test]
    fn where_the_name_misleads_behaviour_decides() {
        for kind in [0x0102_1997, 0x6573_5546] {
            assert_eq!(wal_refusal(&Fake(kind, "/", true)), None, "a sandbox's root");
            assert!(wal_refusal(&Fake(kind, "/", false)).is_some());
            assert!(wal_refusal(&Fake(kind, "/boards", true)).is_some());
        }
    }

    /// A board in a directory of this machine, whatever the name of its file system: what it can do is
    /// found out there.
    #[test]
    #[cfg_attr(windows, ignore = "no file system is judged by that there")]
    fn a_directory_of_this_machine_is_seen_to_share() {
        let directory = tempfile::tempdir().expect("there is room");
        assert!(Of(&directory.path().join("board.db")).shares());
        assert!(!Of(Path::new("/proc/board.db")).shares(), "no file, and elsewhere says nothing");
    }

    #[test]
    fn local_file_systems_are_not() {
        for kind in [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630] {
            assert_eq!(wal_refusal(&Fake(kind, "/", false)), None);
        }
    }

    #[test]
    fn what_can_not_be_told_is_not_taken_for_local() {
        let why = wal_refusal(&Fake(UNKNOWN, "/", true)).expect("it is refused");
        assert!(why.contains("kanban_network_wal=1"), "{why}");
    }

    /// A database that is no file of any directory has no file system; one whose file system can not be
    /// told has one.
    #[test]
    #[cfg_attr(windows, ignore = "statfs(2)")]
    fn what_is_not_there_is_told_from_what_can_not_be_told() {
        let kind = |path: &str| Of(Path::new(path)).kind();
        assert!(matches!(kind("/"), Ok(Some(_))));
        assert!(matches!(kind("/no/such/directory"), Ok(None)));
        assert!(kind(&format!("/{}", "x".repeat(300))).is_err());
    }
}

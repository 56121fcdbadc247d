//! A database, WAL or wal-index that was unlinked, renamed or replaced while it is open
//! (<https://www.sqlite.org/howtocorrupt.html> 1.4, 2.4), or that has several hard links (2.5): what
//! is written to it is lost to all others, or mixes with theirs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::format::{self, WAL_INDEX_SUFFIX, WAL_SUFFIX};
use crate::sys::{self, Directory, Found, Inode, Name};

/// Why a database must not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Displaced {
    /// This file is no longer the one that is open.
    Moved(&'static str),
    /// It has so many hard links.
    Linked(u64),
}

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(what) => write!(
                f,
                "{what} was deleted, renamed or replaced while it was open; nothing is written; \
                 close all connections, see to it that the right file is there, and open it again"
            ),
            Self::Linked(links) => write!(
                f,
                "the database has {links} hard links, and each would have a journal and a lock of \
                 its own; remove all but one, or allow it with kanban_hard_links=1"
            ),
        }
    }
}

/// The files of one connection, as they were when it opened them.
#[derive(Debug)]
pub(crate) struct Identity {
    database: (Name, Inode),
    wal: (Name, Option<Inode>),
    wal_index: (Name, Option<Inode>),
    directory: Arc<Directory>,
    /// Whether names lead elsewhere than they did: the files are looked for in the open directory.
    is_elsewhere: bool,
    /// The directory when all were found in their places: as long as it does not change, they are, unless one
    /// further up was moved.
    unchanged: Option<Found>,
    may_have_links: bool,
    /// When all of it was last checked, in ns of [`sys::monotonic_ns`].
    checked: u64,
}

/// How often those who only read check, and for hard links and moves further up, of which the directory says
/// nothing, in ns.
const CHECK_NS: u64 = 1_000_000_000;

impl Identity {
    /// Of the database at `path`, which was just opened. `None` if there is no such file.
    pub(crate) fn of(path: &Path, may_have_links: bool) -> Option<Self> {
        let beside = |suffix| Name::new(format::beside(path, suffix).as_os_str());
        let database = Name::new(path.as_os_str())?;
        let inode = sys::stat(&database).ok()?.inode;
        Some(Self {
            database: (database, inode),
            wal: (beside(WAL_SUFFIX)?, None),
            wal_index: (beside(WAL_INDEX_SUFFIX)?, None),
            directory: sys::directory_at(path.parent()?)?,
            is_elsewhere: false,
            unchanged: None,
            may_have_links,
            checked: sys::monotonic_ns(),
        })
    }

    /// The database's, when it was opened.
    pub(crate) fn inode(&self) -> Inode {
        self.database.1
    }

    /// The WAL's, while the wal-index is mapped.
    pub(crate) fn wal(&self) -> Option<Inode> {
        self.wal.1
    }

    /// The wal-index's, while it is mapped.
    pub(crate) fn wal_index(&self) -> Option<Inode> {
        self.wal_index.1
    }

    /// The WAL and the wal-index were just opened.
    pub(crate) fn wal_opened(&mut self) {
        for (name, inode) in [&mut self.wal, &mut self.wal_index] {
            if inode.is_none() {
                *inode = sys::stat(name).ok().map(|found| found.inode);
            }
        }
        self.unchanged = None;
    }

    /// They were closed.
    pub(crate) fn wal_closed(&mut self) {
        (self.wal.1, self.wal_index.1) = (None, None);
    }

    /// Whether all are in their places, for one who is about to write. `now` is of
    /// [`sys::monotonic_ns`].
    #[inline(always)]
    pub(crate) fn check(&mut self, now: u64) -> Result<(), Displaced> {
        let directory = self.wal.1.and_then(|_| self.directory.stat().ok());
        if directory.is_some() && directory == self.unchanged && !self.is_due(now) {
            return Ok(());
        }
        self.check_each(directory, now)
    }

    /// As [`Self::check`], when the directory is found to be so.
    #[inline(never)]
    fn check_each(&mut self, directory: Option<Found>, now: u64) -> Result<(), Displaced> {
        let mut found = self.look(self.is_elsewhere);
        if found.is_err() && !self.is_elsewhere && self.directory.is_seen_from_elsewhere() {
            self.is_elsewhere = true;
            found = self.look(true);
        }
        let links = found?.map_or(1, |found| found.links);
        if links > 1 && !self.may_have_links {
            return Err(Displaced::Linked(links));
        }
        // A change just after a change may leave the same time.
        self.unchanged = directory.filter(|found| {
            found.was_changed_a_while_ago()
                && (self.is_elsewhere || self.directory.is_in_place(found))
        });
        self.checked = now;
        Ok(())
    }

    /// Whether each file is where it was, by its name or in the open directory. What the database is found to be.
    fn look(&self, within: bool) -> Result<Option<Found>, Displaced> {
        let look = |name, opened, what| {
            let found = match within {
                true => self.directory.stat_within(name),
                false => sys::stat(name),
            };
            compare(found, opened, what)
        };
        let (name, opened) = &self.database;
        let found = look(name, *opened, "the database")?;
        let files = [(&self.wal, "the WAL"), (&self.wal_index, "the wal-index (-shm)")];
        for ((name, opened), what) in files {
            if let Some(opened) = opened {
                look(name, *opened, what)?;
            }
        }
        Ok(found)
    }

    /// As [`Self::check`], now and then, for one who is about to read. Hard links do no harm then.
    pub(crate) fn check_now_and_then(&mut self) -> Result<(), Displaced> {
        let now = sys::monotonic_ns();
        if !self.is_due(now) {
            return Ok(());
        }
        match self.check(now) {
            Err(Displaced::Linked(_)) => {
                self.checked = now;
                Ok(())
            }
            checked => checked,
        }
    }

    /// Whether it was not checked for a while.
    #[inline]
    fn is_due(&self, now: u64) -> bool {
        now.wrapping_sub(self.checked) >= CHECK_NS
    }
}

/// What was found by a name, if this process can tell.
fn compare(
    found: std::io::Result<Found>,
    opened: Inode,
    what: &'static str,
) -> Result<Option<Found>, Displaced> {
    match found {
        Ok(found) if found.inode == opened => Ok(Some(found)),
        Err(error) if !sys::is_absent(&error) => Ok(None),
        _ => Err(Displaced::Moved(what)),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;

    /// Longer ago than anything is remembered.
    const LONG_AGO: u64 = 2 * CHECK_NS;

    impl Identity {
        fn check_now(&mut self) -> Result<(), Displaced> {
            self.check(sys::monotonic_ns())
        }

        /// All of it was last checked so long ago, in ns.
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
        let mut identity = Identity::of(&path, false).expect("it is there");
        identity.wal_opened();
        (place, path, identity)
    }

    /// Checks until the directory is known not to have changed; its time counts when it is a while ago.
    fn settle(identity: &mut Identity) {
        let began = std::time::Instant::now();
        while identity.unchanged.is_none() {
            assert_eq!(identity.check_now(), Ok(()));
            assert!(began.elapsed() < std::time::Duration::from_secs(60));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn it_knows_the_files_that_it_has_opened() {
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

    /// Each of the files is replaced in turn. What was opened stays the one that counts, also if more of the
    /// wal-index is mapped later.
    #[test]
    fn whichever_file_is_replaced_is_missed() {
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

    /// The board gets a second name in another directory, of which its own says nothing: that is noticed
    /// when it was not looked at for a while. Who only reads goes on.
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

    /// The directory is moved, or one further up, and another of its name has a board: the one is noticed at
    /// once, the other when it was not looked at for a while.
    #[test]
    fn a_directory_that_was_moved_is_missed() {
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

    /// Another directory of its name has the same files: what becomes of them there is noticed.
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

    /// Who reads looks now and then, and then at everything.
    #[test]
    fn a_reader_looks_when_it_is_due() {
        let (_place, path, mut identity) = board();
        fs::remove_file(&path).expect("it is removed");
        identity.was_checked(0);
        assert_eq!(identity.check_now_and_then(), Ok(()));
        identity.was_checked(LONG_AGO);
        assert_eq!(identity.check_now_and_then(), Err(Displaced::Moved("the database")));
    }
}

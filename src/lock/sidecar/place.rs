//! Whether a sidecar is still in its place, and has the rights of its database.

use std::fs::File;
use std::path::Path;

use super::{Origin, Sidecar, path_of};
use crate::sys::{self, Directory, Entry, Inode, Name, Rights};

impl Sidecar {
    /// Whether its path still leads to it, as far as this process can tell, and nobody has closed its descriptor.
    /// If so, gives it the rights that the database has by now.
    pub(crate) fn is_in_place(&self, database: &Path) -> bool {
        if self.file.get().is_some_and(|file| !file.is_intact()) {
            return false;
        }
        match sys::entry_at(&path_of(database)) {
            Ok(found) if found.inode != self.inode => false,
            Ok(found) => {
                let is_ours = self.origin == Origin::Made;
                let like = || sys::entry_behind(database).ok().filter(|_| is_ours);
                if let (Some(like), Some(file)) = (like(), self.file.get()) {
                    give_rights(file.file(), &found, like.rights);
                }
                true
            }
            Err(error) => !sys::is_absent(&error),
        }
    }

    /// Whether it is still in the database's directory, if names lead elsewhere for this process
    /// now (chroot(2), unshare(2)).
    pub(crate) fn is_within(&self, directory: &Directory, database: &Path) -> bool {
        let name = Name::new(path_of(database).as_os_str());
        directory.is_seen_from_elsewhere()
            && name
                .and_then(|name| directory.stat_within(&name).ok())
                .is_some_and(|found| found.inode == self.inode)
    }
}

/// Gives the sidecar that was `found` the rights of its database, unless it has a second name: then it may be
/// somebody's file elsewhere.
pub(super) fn give_rights(file: &File, found: &Entry, like: Rights) {
    if found.rights != like && found.links == 1 {
        sys::give_rights(file, found.rights, like);
    }
}

/// Whether `path` leads to that file.
pub(super) fn is_at(path: &Path, inode: Inode) -> bool {
    sys::entry_at(path).is_ok_and(|found| found.inode == inode)
}

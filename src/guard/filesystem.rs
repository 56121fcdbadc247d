//! A WAL whose clients do not share memory. "All processes using a database must be on the same host computer; WAL
//! does not work over a network filesystem" (<https://www.sqlite.org/wal.html>).
//!
//! Two machines open a board on a network share. Each maps its own copy of the wal-index, so each overwrites the
//! other's frames. And a network file system often has no locks that work
//! (<https://www.sqlite.org/howtocorrupt.html> 2.1).
//!
//! # What it does
//! It refuses WAL mode on such a file system, known by its type. Rollback modes need the locks only, and stay possible.
//!
//! # What it does not do
//! - It does not test a network file system's locks.
//! - It does not know each network file system: one that is not in its list passes for a local one.

use std::io;
use std::path::Path;

use crate::sys;

/// What is known of a file system.
pub(crate) trait FileSystem {
    /// Its type, by the number of statfs(2); `None` for a database that is no file there.
    fn kind(&self) -> io::Result<Option<u64>>;
    /// Where it is mounted, and its type's name.
    fn mount(&self) -> (String, String);
    /// Whether, as far as one machine can tell, all that have a file open share it: locks
    /// exclude each other, and what one writes another finds in a shared mapping.
    fn shares(&self) -> bool;
}

/// The file system that a file lies on.
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
        // If this process may create no file there, another place on the same file system tells as much.
        let elsewhere = std::env::temp_dir();
        let is_same = sys::mount_of(&elsewhere) == sys::mount_of(self.0);
        let places = [self.0.parent(), is_same.then_some(elsewhere.as_path())];
        places.into_iter().flatten().find_map(|place| sys::shares_memory(place).ok()) == Some(true)
    }
}

/// How sure it is that other machines may have the files open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Network,
    /// It depends on who serves the files: another machine, or the host of a virtual one or of a sandbox.
    Served,
}

/// The types that are served, by their numbers in statfs(2), as Linux and each file system's own source define them.
const KINDS: [(u64, Nature); 15] = [
    (0x6969, Nature::Network),      // NFS
    (0x517b, Nature::Network),      // SMB
    (0xfe53_4d42, Nature::Network), // SMB2
    (0xff53_4d42, Nature::Network), // CIFS
    (0x5346_414f, Nature::Network), // AFS, of OpenAFS
    (0x6b41_4653, Nature::Network), // AFS, of Linux
    (0x00c3_6400, Nature::Network), // Ceph
    (0x0bd0_0bd0, Nature::Network), // Lustre
    (0x4750_4653, Nature::Network), // GPFS
    (0x7461_636f, Nature::Network), // OCFS2
    (0x0116_1970, Nature::Network), // GFS2
    (0x1983_0326, Nature::Network), // BeeGFS
    (0x786f_4256, Nature::Served),  // vboxsf
    (0x0102_1997, Nature::Served),  // 9p
    (0x6573_5546, Nature::Served),  // FUSE, virtiofs
];

/// Why nobody must enter WAL mode on a file system; `None` if that is allowed.
///
/// A sandbox shows its own root as 9p or FUSE, and all of its processes share what is there. So where the root is on
/// such a file system, what it can do decides, not its name. So it does where a sandbox refuses statfs(2).
pub(crate) fn wal_refusal(file_system: &impl FileSystem) -> Option<String> {
    let kind = match file_system.kind() {
        Ok(kind) => kind?,
        Err(_) if file_system.shares() => return None,
        Err(error) => {
            return Some(format!(
                "WAL mode is refused on a file system that cannot be told ({error}): clients on \
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
mod tests;

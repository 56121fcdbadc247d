//! A WAL whose clients do not share memory: "All processes using a database must be on the same
//! host computer; WAL does not work over a network filesystem" (<https://www.sqlite.org/wal.html>).
//!
//! Two machines open a board on a network share. Each maps its own copy of the wal-index, so each
//! overwrites the other's frames. And the locks of network file systems often do not work
//! (<https://www.sqlite.org/howtocorrupt.html> 2.1).
//!
//! # What it does
//! It refuses WAL mode on such a file system, recognised by its type. Rollback modes need only the
//! locks, and stay possible.
//!
//! # What it does not do
//! - It does not test a network file system's locks.
//! - It does not know every network file system: it takes one that is not in its list for a local
//!   one.

use std::io;
use std::path::Path;

use crate::sys;

/// The type of a file's file system, as a number of statfs(2); `None` for a database that is not a
/// file.
fn kind_of(file: &Path) -> io::Result<Option<u64>> {
    match sys::file_system_type(file) {
        Ok(kind) => Ok(Some(kind)),
        Err(error) if sys::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether two openers of a file share it, as far as one machine can tell: their locks exclude each
/// other, and one's write appears in the other's shared mapping. It tries that with a file that it
/// creates beside `file`.
pub(crate) fn shares(file: &Path) -> bool {
    // If this process may not create files there, another place on the same file system serves as
    // well.
    let elsewhere = std::env::temp_dir();
    let is_same = sys::mount_of(&elsewhere) == sys::mount_of(file);
    let places = [file.parent(), is_same.then_some(elsewhere.as_path())];
    places.into_iter().flatten().find_map(|place| sys::shares_memory(place).ok()) == Some(true)
}

/// The types of file systems that other machines may have mounted, by their numbers in statfs(2),
/// as Linux and each file system's own source define them.
const NETWORK: [u64; 12] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xfe53_4d42, // SMB2
    0xff53_4d42, // CIFS
    0x5346_414f, // AFS, of OpenAFS
    0x6b41_4653, // AFS, of Linux
    0x00c3_6400, // Ceph
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x7461_636f, // OCFS2
    0x0116_1970, // GFS2
    0x1983_0326, // BeeGFS
];

/// The types whose server may be another machine, or the host of a virtual machine or sandbox:
/// vboxsf, 9p, and FUSE with virtiofs.
const SERVED: [u64; 3] = [0x786f_4256, 0x0102_1997, 0x6573_5546];

/// Why WAL mode is refused on the file system of `database`; `None` if it is allowed. `shares`
/// tells whether all openers of a file there share it.
///
/// A sandbox shows its own root as 9p or FUSE, and all of its processes share what is there. So if
/// the root is on such a file system, a test of that file system decides, not its name. The test
/// decides, too, if a sandbox refuses statfs(2).
pub(crate) fn wal_refusal(database: &Path, shares: impl FnOnce() -> bool) -> Option<String> {
    refusal(kind_of(database), || sys::mount_of(database), shares)
}

/// [`wal_refusal`], from the file system's type, its mount point and its type's name.
fn refusal(
    kind: io::Result<Option<u64>>,
    mount: impl FnOnce() -> Option<(String, String)>,
    shares: impl FnOnce() -> bool,
) -> Option<String> {
    let kind = match kind {
        Ok(kind) => kind? & 0xffff_ffff,
        Err(_) if shares() => return None,
        Err(error) => {
            return Some(format!(
                "WAL mode is refused on a file system that cannot be told ({error}): clients on \
                 other machines might not share its memory; open the database again, or, if all \
                 clients are on this machine, allow it with kanban_network_wal=1"
            ));
        }
    };
    let is_served = SERVED.contains(&kind);
    if !is_served && !NETWORK.contains(&kind) {
        return None;
    }
    let (mount, name) = mount().unwrap_or_else(|| ("?".to_owned(), "unknown".to_owned()));
    if is_served && mount == "/" && shares() {
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

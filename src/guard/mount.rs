//! A database that is mounted over another file (`mount --bind a.db b.db`, a container's
//! `--volume a.db:/data/b.db`): <https://www.sqlite.org/howtocorrupt.html> 2.5.
//!
//! One file then appears in two directories. The sidecar, and SQLite's journal, WAL and wal-index,
//! would lie beside the name that a client uses. So two writers that use different names would not
//! see each other's.
//!
//! # What it does
//! It refuses to open the database by the mounted name.
//!
//! # What it does not do
//! - It does not refuse a directory that is mounted twice: its files are the same by both names.
//! - It does not refuse a database that is mounted over itself: its name and directory stay the
//!   same. Service managers do that to make it read-only, or to keep it writable when the rest is
//!   not.
//! - It sees no mount if the kernel does not report it: Linux before 5.8, other systems.

use std::path::Path;

use crate::sys;

/// Why `database` must not be opened by this name; `None` if it may.
pub(crate) fn refusal(database: &Path) -> Option<String> {
    let is_other = sys::is_mount_point(database) && !sys::is_mounted_over_itself(database);
    is_other.then(|| {
        "is a file mounted over another (bind mount): its -wal, -shm, -journal and -lock would not \
         be those of the original; mount the directory it lies in instead"
            .to_owned()
    })
}

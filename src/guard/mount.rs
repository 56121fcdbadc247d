//! A database that is mounted over another file (`mount --bind a.db b.db`, a container's
//! `--volume a.db:/data/b.db`).
//!
//! It is one file in two directories. Its sidecar, and SQLite's journal, WAL and wal-index, would
//! lie in the directory of whichever name was used, so that two writers by different names would
//! not see each other's (<https://www.sqlite.org/howtocorrupt.html> 2.5). A directory may be
//! mounted twice: its files are the same by both names. And a database may be mounted over itself, as service managers
//! do to make it read-only, or to make it the only one that is not: its name and directory stay the same.

use std::path::Path;

use crate::sys;

/// Why `database` must not be opened by this name.
pub(crate) fn refusal(database: &Path) -> Option<String> {
    let is_other = sys::is_mount_point(database) && !sys::is_mounted_over_itself(database);
    is_other.then(|| {
        "is a file mounted over another (bind mount): its -wal, -shm, -journal and -lock would not \
         be those of the original; mount the directory it lies in instead"
            .to_owned()
    })
}

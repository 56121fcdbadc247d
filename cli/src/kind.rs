//! Whether a file is a database at all, for commands that do not open a database that is in use.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kanban_vfs::observation::{Observation, SidecarState};

/// SQLite's files beside a database, by the ends of their names. <https://www.sqlite.org/tempfiles.html>
const BESIDE: [(&str, &str); 3] =
    [("-wal", "the WAL"), ("-shm", "the wal-index"), ("-journal", "the rollback journal")];

/// The kind of a file that is no database; `None` if it is one, or may be one.
///
/// Files beside a database show that it may be in use: then it is not opened. Otherwise its first bytes are read,
/// which is safe, since this process has no locks that a close could drop.
pub(crate) fn not_a_database(seen: &Observation) -> Option<String> {
    let database = &seen.database;
    for (suffix, what) in BESIDE {
        if let Some(owner) = owner(database, suffix) {
            return Some(format!("it is {what} of {0}: ask for {0}", owner.display()));
        }
    }
    let sizes = &seen.sizes;
    let is_used = seen.sidecar_state == SidecarState::Page
        || [sizes.wal, sizes.wal_index, sizes.journal].iter().any(Option::is_some);
    if is_used || sizes.database == 0 {
        return None;
    }
    let mut start = Vec::new();
    File::open(database).ok()?.take(24).read_to_end(&mut start).ok()?;
    if start.starts_with(b"kanban-vfs\0") {
        let of =
            owner(database, "-lock").map(|owner| format!(" of {0}: ask for {0}", owner.display()));
        return Some(format!("it is a sidecar{}", of.unwrap_or_default()));
    }
    // Encrypted databases may keep that part of the header:
    // <https://www.sqlite.org/fileformat2.html#payload_fractions>
    let is_database = start.starts_with(b"SQLite format 3\0") || start.ends_with(&[64, 32, 32]);
    (!is_database).then(|| "the file is no SQLite database, or an encrypted one".to_owned())
}

/// The database to which a file with that suffix belongs.
fn owner(path: &Path, suffix: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    Some(path.with_file_name(name)).filter(|owner| owner.is_file())
}

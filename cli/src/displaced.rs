//! Processes that have a database, WAL, wal-index or sidecar open to which its name no longer
//! leads. No other process sees what they write.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::printable;

/// The text that proc(5) appends to the name of a deleted file.
const DELETED: &str = " (deleted)";

/// A sentence for each such process, as far as this user may look: only root sees the files of
/// other users' processes. A renamed file is not found, since proc(5) shows its new name.
pub(crate) fn find(database: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(device) = database.metadata().map(|found| found.dev()) else { return found };
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let mut of_this: Vec<String> = Vec::new();
        for descriptor in descriptors.flatten() {
            let Ok(link) = std::fs::read_link(descriptor.path()) else { continue };
            let link = link.to_string_lossy();
            let Some(path) = link.strip_suffix(DELETED) else { continue };
            let suffix = path.strip_prefix(&*database.to_string_lossy());
            let Some(what) = suffix.and_then(name_of) else { continue };
            // The file may be in another mount namespace, under the same name. This is stat(2):
            // nothing is opened.
            let is_ours = |file: &Metadata| {
                let current = Path::new(path).metadata();
                file.dev() == device && !current.is_ok_and(|now| now.ino() == file.ino())
            };
            if descriptor.path().metadata().is_ok_and(|file| is_ours(&file)) {
                let program = std::fs::read(process.path().join("comm"));
                let program = program.unwrap_or_default();
                let program = printable(String::from_utf8_lossy(&program).trim_end());
                of_this.push(format!(
                    "pid {pid} ({program}) has {what} open that was deleted or replaced"
                ));
            }
        }
        of_this.sort();
        of_this.dedup();
        found.append(&mut of_this);
    }
    found
}

fn name_of(suffix: &str) -> Option<&'static str> {
    match suffix {
        "" => Some("a database"),
        "-wal" => Some("a WAL"),
        "-shm" => Some("a wal-index (-shm)"),
        "-lock" => Some("a sidecar"),
        _ => None,
    }
}

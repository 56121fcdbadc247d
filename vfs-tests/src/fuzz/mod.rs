//! What the fuzzer runs, and what the tests replay: functions of arbitrary bytes that panic if a promise
//! is broken. `fuzz/Cargo.toml` says how to run the fuzzer; `tests/corpora.rs` replays the inputs that it
//! found.

pub mod sidecar_page;
pub mod uri;
pub mod vfs_calls;

use std::path::{Path, PathBuf};

/// The inputs that are kept for a target, one per file.
#[must_use]
pub fn corpus(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in the workspace");
    root.join("fuzz/corpus").join(target)
}

/// A directory for all inputs of one thread, and the VFS.
fn directory() -> (tempfile::TempDir, PathBuf) {
    kanban_vfs::register(&kanban_vfs::Options::default()).expect("nothing else has the name");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().canonicalize().expect("it exists");
    (directory, path)
}

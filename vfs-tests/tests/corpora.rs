//! What the fuzzer has found worth keeping, run again: every input through its target, which panics if
//! a promise is broken. `fuzz/Cargo.toml` says how to look for more.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use vfs_tests::fuzz::{corpus, sidecar_page, uri, vfs_calls};

fn replay(target: &str, run: fn(&[u8])) {
    let mut files: Vec<_> =
        std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus of {target}");
    for file in &files {
        let input = std::fs::read(file).unwrap();
        let ran = std::panic::catch_unwind(|| run(&input));
        assert!(ran.is_ok(), "{} breaks a promise", file.display());
    }
}

/// Any bytes as the queue page and as a sidecar: one writer at a time, nobody stuck.
#[test]
fn sidecars() {
    replay("sidecar_page", sidecar_page::run);
}

/// Any URI parameters: the settings they ask for, or a refusal that creates nothing.
#[test]
fn uris() {
    replay("uri", uri::run);
}

/// Any calls that SQLite may make: what SQLite's locking rules and the write lock allow, and no more.
#[test]
fn calls() {
    replay("vfs_calls", vfs_calls::run);
}

//! Somebody installs the extension by pip, the tool by cargo and the module for Node by npm, and reports a bug in
//! "version 0.1.0": it is one version, and all that is released together says so.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

/// What cargo says of the workspace in that directory.
fn metadata(root: &Path) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--format-version=1", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rest of the first line that begins so, up to its next quotation mark.
fn after(text: &str, beginning: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(beginning))?;
    Some(line.split('"').next().unwrap_or_default().to_owned())
}

/// Each version that is written down, and where.
fn versions(root: &Path) -> Vec<(String, String)> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let metadata = metadata(root);
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        found.push((name.to_owned(), package["version"].as_str().unwrap().to_owned()));
        for dependency in package["dependencies"].as_array().unwrap() {
            // A path without a version is not published.
            let required = dependency["req"].as_str().unwrap();
            if dependency["path"].is_string() && required != "*" {
                let what = dependency["name"].as_str().unwrap();
                let required = required.trim_start_matches('^').to_owned();
                found.push((format!("{name}'s dependency {what}"), required));
            }
        }
    }
    let npm: Value = serde_json::from_str(&read("npm/package.json")).unwrap();
    found.push(("npm/package.json".to_owned(), npm["version"].as_str().unwrap().to_owned()));
    // Python's is read from Cargo.toml when the package is built; one of its own would be another.
    if let Some(version) = after(&read("python/pyproject.toml"), "version = \"") {
        found.push(("python/pyproject.toml".to_owned(), version));
    }
    let page = after(&read("cli/kanban-vfs.1"), ".TH KANBAN-VFS 1 \"\" \"kanban-vfs ").unwrap();
    found.push(("cli/kanban-vfs.1".to_owned(), page));
    found
}

#[test]
fn all_versions_agree() {
    let versions = versions(&root());
    let (_, version) = versions.iter().find(|(name, _)| name == "kanban-vfs").unwrap();
    let others: Vec<_> = versions.iter().filter(|(_, other)| other != version).collect();
    assert!(others.is_empty(), "kanban-vfs is {version}, but {others:?}");
    for released in
        ["kanban-vfs-cli", "kanban-vfs-cli's dependency kanban-vfs", "kanban-vfs-preload"]
    {
        assert!(versions.iter().any(|(name, _)| name == released), "{released}: {versions:?}");
    }
}

/// Somebody raises the version of one of them only: it is named.
#[test]
fn a_version_that_differs_is_found() {
    let copy = tempfile::tempdir().unwrap();
    let copy_of = |from: &str| {
        let to = copy.path().join(from);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg("-r").arg(root().join(from)).arg(&to).status();
        assert!(copied.unwrap().success(), "{from}");
    };
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        "src",
        "benches",
        "examples",
        "cli",
        "preload",
        "vfs-tests",
    ] {
        copy_of(part);
    }
    copy_of("npm/package.json");
    copy_of("python/pyproject.toml");
    for (file, from, to, named) in [
        ("cli/Cargo.toml", "\nversion = \"0", "\nversion = \"9", "kanban-vfs-cli"),
        ("npm/package.json", "\"version\": \"0", "\"version\": \"9", "npm/package.json"),
        (
            "python/pyproject.toml",
            "dynamic = [\"version\"]",
            "version = \"9\"",
            "python/pyproject.toml",
        ),
        ("cli/kanban-vfs.1", "kanban-vfs 0", "kanban-vfs 9", "cli/kanban-vfs.1"),
    ] {
        let path = copy.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let found = versions(copy.path());
        let other = found.iter().find(|(name, _)| name == named).unwrap();
        assert!(other.1.starts_with('9'), "{file}: {found:?}");
        std::fs::write(&path, text).unwrap();
    }
}

//! The sources are rooms above one another, and imports go down only (`docs/design.md`). A file that imports from above
//! its room, or a guard that imports another guard, ties the knot again that every change then has to undo.

use std::path::{Path, PathBuf};
use std::process::Command;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the check of the project in that folder says, and whether it finds nothing.
fn check(project: &Path) -> (bool, String) {
    let script = project.join("scripts/rooms.py");
    let checked = Command::new("python3").arg(script).arg("--check").output().expect("python3");
    (checked.status.success(), String::from_utf8(checked.stdout).expect("text"))
}

#[test]
fn imports_go_down_only() {
    let (is_sound, says) = check(&project());
    assert!(is_sound, "{says}");
}

/// Somebody adds an import that goes up, one between guards, one of the write lock by a guard, one that closes a circle, or
/// unsafe code where there is to be none: the check names it.
#[test]
fn an_import_that_goes_up_is_found() {
    for (file, line, complaint) in [
        ("src/sys/mod.rs", "use crate::lock::Database;", "sys imports lock: up"),
        (
            "src/guard/ahead.rs",
            "use crate::guard::{file_length, mount};",
            "from one guard to another",
        ),
        ("src/guard/mount.rs", "use crate::lock::Database;", "a guard knows its hazard only"),
        ("src/lock/holder.rs", "use super::database::Refused;", "a circle: "),
        ("src/lock/mod.rs", "#![allow(unsafe_code)]", "unsafe code is for"),
    ] {
        let copy = tempfile::tempdir().expect("a directory");
        for folder in ["src", "docs", "scripts"] {
            let from = project().join(folder);
            let copied = Command::new("cp").arg("-r").arg(from).arg(copy.path()).status();
            assert!(copied.expect("cp").success());
        }
        let path = copy.path().join(file);
        let source = std::fs::read_to_string(&path).expect("a source");
        std::fs::write(&path, format!("{line}\n{source}")).expect("it is written");
        let (is_sound, says) = check(copy.path());
        assert!(!is_sound && says.contains(complaint), "{file}: {says}");
    }
}

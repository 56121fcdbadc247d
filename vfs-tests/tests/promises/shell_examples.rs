//! The scripts in examples/shell run as they are printed, with Debian's shell.

use std::path::Path;
use std::process::Command;

use vfs_tests::extension;

/// A reader of the README types what is in the scripts.
#[test]
fn each_script_runs() {
    vfs_tests::needs!("sqlite3");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shell");
    let mut run = 0;
    for script in scripts.read_dir().unwrap().map(|file| file.unwrap().path()) {
        if script.extension().is_none_or(|extension| extension != "sh") {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new("sh")
            .arg(&script)
            .current_dir(directory.path())
            .env("KANBAN_VFS", extension().with_extension(""))
            .output()
            .unwrap();
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}:\n{said}\n{errors}", script.display());
        run += 1;
    }
    assert_eq!(run, 4);
}

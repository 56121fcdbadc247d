//! All kinds of clients at once, killed, stopped and replaced: a short run of the soak.

use std::process::Command;

use serde_json::Value;

/// The summary of a run of the soak, and whether it succeeded.
pub(crate) fn soak(arguments: &[&str]) -> (Value, bool) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_soak")).args(arguments).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (summary, output.status.success())
}

/// Many clients share a board for some seconds, with two versions of SQLite and on both VFSes. A
/// dispatcher reconnects all the time and looks at its own files' bytes; workers are killed and
/// stopped at any moment. There are forked children, short and long readers, checkpointers,
/// migrations and VACUUM. No acknowledged commit is lost, and nobody gets an error.
#[test]
fn a_board_survives_everything_at_once() {
    let (summary, well) = soak(&["--minutes", "0.12"]);
    assert!(well && summary["failure"].is_null(), "{summary:#}");
    for what in ["/kanban/commits", "/stock/commits", "/kills", "/stops", "/checks", "/retired"] {
        let count = summary.pointer(what).and_then(Value::as_u64);
        assert!(count > Some(0), "no {what}: {summary:#}");
    }
    for what in ["probe", "reconnect", "read", "child of fork", "inherited connection refused"] {
        assert!(summary["did"][what].as_u64() > Some(0), "no {what}: {summary:#}");
    }
}

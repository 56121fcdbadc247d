//! The promises that hold on every operating system, as stories of processes on one board: small
//! enough to run where the others cannot, on Windows. `scripts/windows-tests.sh` runs them under Wine.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vfs_tests::{Agent, PATIENCE, Program};

mod canonical_path;
mod closed_board;
mod exclusion;
mod extension;
mod group_commit;
mod hostile_sidecar;
mod killed_holder;
mod observation;
mod smoke;
mod timeout;

const SQLITE_BUSY: i64 = 5;

/// A client process.
fn agent() -> Agent {
    Agent::start(Program::Rust, env!("CARGO_BIN_EXE_agent"))
}

/// A field of `PRAGMA kanban_status` on a connection of a client, a JSON pointer.
fn status(client: &mut Agent, name: &str, field: &str) -> Value {
    let status = client.sql(name, "PRAGMA kanban_status").rows();
    let status: Value = serde_json::from_str(status[0][0].as_str().unwrap()).unwrap();
    status.pointer(field).unwrap_or_else(|| panic!("no {field} in {status}")).clone()
}

/// Waits until that many clients wait for the write lock, as a client's connection sees it.
#[track_caller]
fn until_waiters(client: &mut Agent, name: &str, n: usize) {
    let began = Instant::now();
    while status(client, name, "/waiters") != json!(n) {
        assert!(began.elapsed() < PATIENCE, "{n} should wait");
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! The common parts of the tests that let calls fail.

use std::collections::BTreeSet;
use std::path::Path;

use vfs_tests::{Agent, Board, Program};

use crate::{agent, stock_agent, went_well};

/// Returns an error unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}
pub(crate) use ensure;

/// Whether faults are tried at every position.
pub(crate) fn tries_all() -> bool {
    std::env::var("KANBAN_FAULTS").is_ok_and(|value| value == "all")
}

/// At which of these positions faults are tried. With `KANBAN_FAULTS=all` it is every one, else one
/// of `every`; the process id decides which, so it differs in each run.
pub(crate) fn sampled(positions: usize, every: usize) -> impl Iterator<Item = usize> {
    let every = if tries_all() { 1 } else { every };
    (std::process::id() as usize % every..positions).step_by(every)
}

/// What a process has open of a directory's files: `open ...` for descriptors, `mapped ...` for
/// memory.
pub(crate) fn left_open(pid: u32, directory: &Path) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = descriptors.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let open = open.filter(|path| path.starts_with(directory));
    let open = open.map(|path| format!("open {}", path.display()));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let directory = directory.to_str().unwrap();
    let mapped = maps.lines().filter(|line| line.contains(directory));
    open.chain(mapped.map(|line| format!("mapped {line}"))).collect()
}

/// Clients whose calls do not fail: one of ours, and one that does not know the VFS.
pub(crate) struct Healthy {
    pub(crate) ours: Agent,
    pub(crate) stock: Agent,
}

impl Healthy {
    pub(crate) fn start() -> Self {
        Self { ours: agent(Program::Rust), stock: stock_agent(Program::Python) }
    }

    /// Checks that both can write, and find what was acknowledged and a database without damage.
    pub(crate) fn find_whole(
        &mut self,
        board: &Board,
        acknowledged: &BTreeSet<i64>,
    ) -> Result<(), String> {
        let both = [(&mut self.ours, board.kanban()), (&mut self.stock, board.stock())];
        for (client, uri) in both {
            client.open("c", &uri, 5000);
            let table = "CREATE TABLE IF NOT EXISTS t (x)";
            let write = format!("PRAGMA synchronous=off; {table}; INSERT INTO t VALUES (100)");
            let wrote = client.sql("c", &write);
            ensure!(went_well(&wrote), "then {uri}: {wrote:?}");
            let rows = client.sql("c", "SELECT x FROM t WHERE typeof(x) = 'integer'").rows();
            let rows: BTreeSet<_> = rows.iter().filter_map(|row| row[0].as_i64()).collect();
            ensure!(rows.is_superset(acknowledged), "{acknowledged:?} of {rows:?}");
            let whole = client.sql("c", "PRAGMA integrity_check").rows();
            ensure!(whole == [["ok"]], "{whole:?}");
            client.close("c");
        }
        Ok(())
    }
}

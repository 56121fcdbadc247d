//! The differential test notices what it is there to notice. Each of these is a side that is broken
//! on purpose in our side's place; the control is the stock VFS on both sides.

#![cfg(target_os = "linux")]

use vfs_tests::differential::command::Setting;
use vfs_tests::differential::compare::{Kind, code_name};
use vfs_tests::differential::generate::generate;
use vfs_tests::differential::process::Program;
use vfs_tests::differential::protocol::DIED;
use vfs_tests::differential::run::{Found, Pair, Report};
use vfs_tests::differential::schedule::{Database, Operation, Schedule, Step};
use vfs_tests::differential::shrink::shrink;

/// Seeds within which a broken side is noticed, or a right one is not.
const SEEDS: u64 = 60;

/// The stock VFS, and in our place the stock VFS with these parameters.
fn pair(directory: &tempfile::TempDir, parameters: &str) -> Pair {
    let executable = env!("CARGO_BIN_EXE_differential").as_ref();
    let setting = Setting { debian: false, group_commit: false };
    let [stock, _] = setting.programs(executable, "".as_ref());
    let broken = Program { parameters: format!("vfs=unix&{parameters}"), ..stock.clone() };
    Pair::new(stock, broken, directory.path())
}

/// The first difference within the seeds, with its schedule.
fn first(pair: &mut Pair, change: impl Fn(&mut Schedule)) -> Option<(Schedule, Found)> {
    let mut report = Report::default();
    (0..SEEDS).find_map(|seed| {
        let mut schedule = generate(seed);
        change(&mut schedule);
        let found = pair.run(&schedule, false, &mut report)?;
        Some((schedule, found))
    })
}

/// A schedule that shows the difference, as short as possible.
fn shortest(pair: &mut Pair, schedule: &Schedule, found: &Found) -> Schedule {
    shrink(schedule, |shorter| {
        let other = pair.run(shorter, true, &mut Report::default());
        other.is_some_and(|other| other.difference.is_like(&found.difference))
    })
}

#[test]
fn the_stock_vfs_is_like_itself() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let found = first(&mut pair(&directory, ""), |schedule| {
        schedule.steps.retain(|step| !step.operation.is_spared_stock());
    });
    assert!(found.is_none(), "{found:?}");
}

/// A blob is open, its row goes, and a read of it says so: SQLite counts it no more, and a connection that is abandoned
/// is freed at once. The worker must have closed the blob before.
#[test]
fn a_worker_outlives_an_expired_blob() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sql = |sql: &str| Operation::Sql(sql.to_owned());
    let steps = [
        Operation::Open(Database::Board, String::new()),
        sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 1, 'text')"),
        Operation::BlobOpen(1, false),
        sql("DELETE FROM t"),
        Operation::BlobRead,
        Operation::Abandon,
        Operation::Bury,
    ];
    let steps = steps.map(|operation| Step { process: 0, connection: 0, operation }).to_vec();
    let mut report = Report::default();
    let schedule = Schedule { is_plain: false, steps };
    assert!(pair(&directory, "").run(&schedule, true, &mut report).is_none());
    let died = code_name(DIED);
    assert!(report.codes.contains_key("4/0"), "it has nothing to show: {report}");
    assert!(!report.codes.contains_key(&died), "{report}");
}

#[test]
fn a_side_without_locks_is_noticed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut pair = pair(&directory, "nolock=1");
    let (schedule, found) = first(&mut pair, |_| {}).expect("somebody was to be refused");
    let short = shortest(&mut pair, &schedule, &found);
    assert!(short.steps.len() < schedule.steps.len(), "{short}");
    assert!(short.steps.len() <= 6, "{short}");
}

#[test]
fn a_side_that_keeps_nothing_is_noticed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut pair = pair(&directory, "vfs=memdb");
    let (schedule, found) = first(&mut pair, |_| {}).expect("there is no file");
    assert_eq!(shortest(&mut pair, &schedule, &found).steps.len(), 1);
}

/// The first sibling of what this VFS is for: the stock VFS loses its locks when its application
/// opens and closes the database's file, or forks and lets a child act.
#[test]
fn a_side_that_loses_its_locks_is_noticed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut pair = pair(&directory, "");
    let (schedule, found) = first(&mut pair, |_| {}).expect("locks were lost");
    let short = shortest(&mut pair, &schedule, &found);
    let is_spared = |operation: &Operation| operation.is_spared_stock();
    assert!(short.steps.iter().any(|step| is_spared(&step.operation)), "{short}");
}

/// A row that one side did not write is seen in its files after the very step.
#[test]
fn a_row_less_is_noticed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // The application forbids its own writes.
    let mut pair = pair(&directory, "mode=ro&immutable=1");
    let (_, found) = first(&mut pair, |_| {}).expect("nothing is written");
    assert_ne!(found.difference.kind, Kind::Process, "{found}");
}

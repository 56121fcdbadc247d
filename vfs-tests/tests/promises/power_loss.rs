//! Power cuts: what was acknowledged is there, what was not is there as a whole or not at all, and
//! the board stays usable. `vfs_tests::power_loss` says what a power cut may do.

use vfs_tests::base::File;
use vfs_tests::power_loss::{Lie, Mode, Recording, Run, seed};

fn run(mode: Mode, seed: u64) -> Run {
    let sizes_overtake = !mode.sizes_wait();
    Run { mode, seed, of_each: 1, between: 20, again: 10, sizes_overtake, lie: None }
}

/// There are two writers, one of which spills its cache, a reader that keeps its snapshot,
/// checkpoints of all kinds, one of them during a write, VACUUM, indexes, and connections that come
/// and go. The power fails, in all modes: before and after each sync, at each lock, and in between.
/// POWER_LOSS_STATES asks for more disks of each mode, POWER_LOSS_SEED for the same ones again.
#[test]
fn boards_survive_power_cuts() {
    let states = std::env::var("POWER_LOSS_STATES").map_or(1, |states| states.parse().unwrap());
    let first = seed();
    let recording = Recording::register("recording");
    for mode in Mode::ALL {
        let mut seen = 0;
        for seed in first.. {
            let report = recording.explore(run(mode, seed)).unwrap_or_else(|e| panic!("{e}"));
            println!("{mode:?}, seed {seed}: {report:?}");
            assert!(report.acknowledged >= 15, "{mode:?}, seed {seed}");
            let is_wal = matches!(mode, Mode::WalFull | Mode::WalFullGroup | Mode::WalNormal);
            assert_eq!(report.beside_checkpoints > 0, is_wal, "{mode:?}, seed {seed}");
            assert_eq!(
                report.beside_syncs > 0,
                mode == Mode::WalFullGroup,
                "{mode:?}, seed {seed}"
            );
            // Before each sync something was not synced, so there are at least two disks; and after
            // each transaction more is promised.
            let least = 2 * report.syncs + report.acknowledged as usize;
            assert!(report.states - report.recoveries > least, "{mode:?}, seed {seed}: of {least}");
            assert!(report.recoveries > 20, "{mode:?}, seed {seed}");
            seen += report.states;
            if seen >= states {
                break;
            }
        }
    }
}

/// The same boards on disks that report syncs that they did not make. The test finds what SQLite
/// then loses or corrupts, as it would if this VFS swallowed a sync, or let a write overtake one.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let recording = Recording::register("recording-lies");
    let is_lost = |problem: &str| problem.contains("is lost");
    let is_damaged = |problem: &str| problem.contains("malformed") || problem.contains("cards");
    for (mode, lie, wanted) in [
        (Mode::WalFull, Lie::Everything, &is_lost as &dyn Fn(&str) -> bool),
        (Mode::DeleteExtra, Lie::Everything, &is_lost),
        (Mode::DeleteNormal, Lie::Everything, &is_lost),
        (Mode::TruncateFull, Lie::Everything, &is_lost),
        (Mode::PersistFull, Lie::Everything, &is_lost),
        (Mode::WalFull, Lie::About(File::Wal), &is_lost),
        (Mode::WalFullGroup, Lie::About(File::Wal), &is_lost),
        // A checkpoint reaches the database before its WAL reaches the disk.
        (Mode::WalNormal, Lie::About(File::Wal), &is_damaged),
        (Mode::WalNormal, Lie::About(File::Main), &is_damaged),
        (Mode::DeleteExtra, Lie::About(File::Main), &is_lost),
        (Mode::DeleteExtra, Lie::About(File::Journal), &is_damaged),
        (Mode::PersistFull, Lie::About(File::Journal), &is_damaged),
        // A deleted journal is back, or a journal that is needed is missing.
        (Mode::DeleteExtra, Lie::Directory, &is_lost),
        (Mode::DeleteExtra, Lie::Directory, &is_damaged),
    ] {
        for seed in 0..2 {
            let case = format!("{mode:?}, {lie:?}, seed {seed}");
            let failure =
                recording.find(Run { lie: Some(lie), again: 0, ..run(mode, seed) }, wanted);
            println!("{case}: {}", failure.expect_err(&case));
        }
    }
}

/// A VACUUM in DELETE mode with FULL: the database is made shorter after the journal was deleted,
/// and neither is synced. If the power fails and only the deletion is undone, the journal rolls
/// back a file whose end is gone. EXTRA, which syncs the deletion, prevents that.
#[test]
fn a_shrunk_database_needs_the_deletion_of_its_journal() {
    let ours = Recording::register("recording-shrunk");
    let explore = |recording: &Recording, mode, seed| {
        let run = Run { sizes_overtake: true, of_each: 3, ..run(mode, seed) };
        recording.find(run, |problem| problem.contains("malformed"))
    };
    let failure = (0..5).find_map(|seed| explore(&ours.stock(), Mode::DeleteFull, seed).err());
    println!("{}", failure.expect("SQLite does not sync the directory"));
    explore(&ours, Mode::DeleteExtra, 0).unwrap_or_else(|e| panic!("{e}"));
}

/// The same seed gives the same disks again.
#[test]
fn a_seed_says_it_all() {
    let recording = Recording::register("recording-seeds");
    for mode in [Mode::WalFull, Mode::DeleteFull] {
        let explore = |lie| recording.explore(Run { lie, ..run(mode, 7) });
        let [once, again] = [(); 2].map(|()| explore(None).unwrap_or_else(|e| panic!("{e}")));
        let of = |report: vfs_tests::power_loss::Report| {
            (report.acknowledged, report.changes, report.syncs, report.boundaries, report.states)
        };
        assert_eq!(of(once), of(again), "{mode:?}");
        let [once, again] = [(); 2].map(|()| explore(Some(Lie::Everything)).unwrap_err());
        assert_eq!(once.to_string(), again.to_string());
    }
}

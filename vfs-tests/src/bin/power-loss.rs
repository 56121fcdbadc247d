//! Simulated power cuts, for as many as wanted: `cargo run --release -p vfs-tests --bin power-loss
//! -- --help`

#[cfg(unix)]
use std::process::ExitCode;
#[cfg(unix)]
use std::time::Instant;

#[cfg(unix)]
use clap::Parser;
#[cfg(unix)]
use vfs_tests::power_loss::{Mode, Recording, Run, seed};

/// Explores what power cuts make of boards, in all modes, until it has seen that many disks.
#[cfg(unix)]
#[derive(Parser)]
struct Arguments {
    /// Disks to open in each mode, at least.
    #[arg(long, default_value_t = 20_000)]
    states: usize,
    /// The first workload's; the next one's is one more. Else POWER_LOSS_SEED, or any.
    #[arg(long)]
    seed: Option<u64>,
    /// Disks made at random of each boundary.
    #[arg(long, default_value_t = 6)]
    of_each: usize,
    /// The percentage of the moments between boundaries that are explored.
    #[arg(long, default_value_t = 50)]
    between: u8,
    /// The percentage of the disks whose recovery is cut, too.
    #[arg(long, default_value_t = 10)]
    again: u8,
    /// Only this mode, as it is printed.
    #[arg(long)]
    mode: Option<String>,
    /// On the stock VFS, to see what is SQLite's own.
    #[arg(long)]
    stock: bool,
}

#[cfg(unix)]
fn main() -> ExitCode {
    let Arguments { states, seed: first, of_each, between, again, mode: only, stock } =
        Arguments::parse();
    let first = first.unwrap_or_else(seed);
    let recording = Recording::register("recording");
    let recording = if stock { recording.stock() } else { recording };
    println!(
        "mode, workloads, transactions, syncs, boundaries, moments between, states, of which \
         recoveries, seconds"
    );
    let is_wanted = |mode: &Mode| only.as_ref().is_none_or(|only| format!("{mode:?}") == *only);
    for mode in Mode::ALL.into_iter().filter(is_wanted) {
        let began = Instant::now();
        let [mut syncs, mut boundaries, mut moments, mut seen, mut recoveries] = [0; 5];
        let mut transactions = 0;
        let mut workloads = 0;
        while seen < states {
            let seed = first + workloads;
            let run = Run {
                mode,
                seed,
                of_each,
                between,
                again,
                sizes_overtake: !mode.sizes_wait(),
                lie: None,
            };
            match recording.explore(run) {
                Ok(report) => {
                    transactions += report.acknowledged;
                    syncs += report.syncs;
                    boundaries += report.boundaries;
                    moments += report.between;
                    seen += report.states;
                    recoveries += report.recoveries;
                }
                Err(failure) => {
                    eprintln!("{failure}");
                    return ExitCode::FAILURE;
                }
            }
            workloads += 1;
        }
        let seconds = began.elapsed().as_secs_f32();
        println!(
            "{mode:?}, {workloads}, {transactions}, {syncs}, {boundaries}, {moments}, {seen}, \
             {recoveries}, {seconds:.1}"
        );
    }
    println!("seeds from {first}: nothing found");
    ExitCode::SUCCESS
}

/// This test exists for unix only.
#[cfg(not(unix))]
fn main() {}

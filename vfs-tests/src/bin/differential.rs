//! The stock VFS and ours, driven through the same schedules and compared after every step; see
//! `vfs_tests::differential`.
//!
//!     cargo run --release -p vfs-tests --bin differential -- --seeds 1000

#[cfg(target_os = "linux")]
use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;
    use vfs_tests::differential::{command, worker};

    let arguments = command::Arguments::parse();
    if let Some(command::Command::Worker(arguments)) = &arguments.command {
        worker::work(arguments);
        return ExitCode::SUCCESS;
    }
    command::run(&arguments)
}

/// This test exists for Linux only.
#[cfg(not(target_os = "linux"))]
fn main() {}

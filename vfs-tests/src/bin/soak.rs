//! Many kinds of clients on one board, killed, stopped and replaced, for as long as wanted; see
//! `vfs_tests::soak`.
//!
//!     cargo run --release -p vfs-tests --bin soak -- --minutes 60

#[cfg(unix)]
use std::process::ExitCode;

#[cfg(unix)]
use clap::Parser;
#[cfg(unix)]
use vfs_tests::soak::{self, Command};

#[cfg(unix)]
fn main() -> ExitCode {
    let arguments = soak::Arguments::parse();
    if let Some(Command::Worker(worker)) = arguments.command {
        soak::worker::work(&worker);
        return ExitCode::SUCCESS;
    }
    let summary = soak::run(&arguments);
    if arguments.json {
        println!("{}", summary.json());
    } else {
        print!("{summary}");
    }
    if summary.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// This test exists for unix only.
#[cfg(not(unix))]
fn main() {}

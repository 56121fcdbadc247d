//! What happens while a benchmark runs itself with other arguments, counted by valgrind and strace, which must be installed.

use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Counts something that happens while this program runs `arguments`.
pub(crate) type Counter = fn(&[&str]) -> Result<f64>;

/// Instructions, of this program's and of what it calls.
pub(crate) fn instructions(arguments: &[&str]) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .output()?;
    let text = String::from_utf8(output.stderr)?;
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    Ok(collected.ok_or(text.as_str())?.trim().parse()?)
}

/// System calls.
pub(crate) fn calls(arguments: &[&str]) -> Result<f64> {
    let traced = tempfile::NamedTempFile::new()?;
    let status = Command::new("strace")
        .args(["-f", "-o"])
        .arg(traced.path())
        .arg(std::env::current_exe()?)
        .args(arguments)
        .status()?;
    assert!(status.success(), "strace failed");
    Ok(std::fs::read_to_string(traced.path())?.lines().count() as f64)
}

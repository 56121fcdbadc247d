//! A line on standard error.

use std::fmt::Arguments;

/// Writes `kanban-vfs: process 7 (program): ...` to standard error, by one write(2), so that other processes' lines stay
/// whole. Control characters are replaced: an operator's terminal obeys them.
pub(crate) fn line(text: Arguments<'_>) {
    let program = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let said =
        format!("kanban-vfs: process {} ({}): {text}", std::process::id(), program.trim_end());
    let mut said: String = said.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    said.push('\n');
    // SAFETY: a buffer of that length. That it cannot be written is nothing that could be told.
    unsafe { libc::write(2, said.as_ptr().cast(), said.len()) };
}

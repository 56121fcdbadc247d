//! A line on standard error.

use std::fmt::Arguments;

use crate::printable::printable;
use crate::without_waiting::{Open, write_line_to_standard_error};

/// The most bytes of a line. A pipe takes that many in one write, so lines stay whole. pipe(7),
/// PIPE_BUF
const LONGEST: usize = 4000;

/// Writes `kanban-vfs: process 7 (program): ...` to standard error, unless that would wait, or the
/// program closed it. Control characters are replaced.
pub(crate) fn line(text: Arguments<'_>) {
    const OPEN: Open = |options, path| options.open(path);
    let program = std::fs::read("/proc/self/comm").unwrap_or_default();
    let program = String::from_utf8_lossy(&program);
    let said =
        format!("kanban-vfs: process {} ({}): {text}", std::process::id(), program.trim_end());
    let mut said = printable(&said);
    let end = (0..=LONGEST.min(said.len())).rfind(|at| said.is_char_boundary(*at));
    said.truncate(end.unwrap_or(0));
    said.push('\n');
    let _ = write_line_to_standard_error(said.as_bytes(), OPEN);
}

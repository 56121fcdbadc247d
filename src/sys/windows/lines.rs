//! Lines for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Adds a line to the end of a file, which it creates if need be.
///
/// # Errors
/// The file cannot be opened or written; `InvalidData` if it begins with `not`.
pub(crate) fn append(path: &Path, line: &[u8], not: &[u8]) -> io::Result<()> {
    let mut first = vec![0; not.len()];
    let is_file = path.metadata().is_ok_and(|found| found.is_file());
    if is_file
        && File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok()
        && first == not
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line)
}

/// Writes a line to standard error.
///
/// # Errors
/// It is closed.
pub(crate) fn write_to_standard_error(line: &[u8]) -> io::Result<()> {
    io::stderr().write_all(line)
}

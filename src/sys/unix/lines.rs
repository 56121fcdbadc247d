//! Lines for people, and where they go.

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::descriptors::open;
#[cfg(target_os = "linux")]
use super::without_waiting::note_standard_error;
use super::without_waiting::{write_line, write_line_to_standard_error};

/// Appends a line to a file, which it creates if need be. open(2), write(2)
///
/// # Errors
/// The file cannot be opened or written, or its other end does not read; `InvalidData` if it begins with `not`.
pub(crate) fn append(path: &Path, line: &[u8], not: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    // It is opened to read, too, except a FIFO, which would then seem to have a reader.
    let may_be_read = path.metadata().is_ok_and(|found| found.is_file());
    let file = match open(options.read(may_be_read), path) {
        Err(why) if may_be_read && why.kind() == io::ErrorKind::PermissionDenied => {
            open(options.read(false), path)?
        }
        opened => opened?,
    };
    let mut first = vec![0; not.len()];
    if may_be_read && file.read_exact_at(&mut first, 0).is_ok() && first == not {
        return Err(io::ErrorKind::InvalidData.into());
    }
    write_line(file.as_raw_fd(), line, open)
}

/// Writes a line to standard error. stderr(3)
///
/// # Errors
/// It is closed, is another file than when this library was loaded, or its other end does not read.
pub(crate) fn write_to_standard_error(line: &[u8]) -> io::Result<()> {
    write_line_to_standard_error(line, open)
}

/// Notes which file standard error is, when the library is loaded. The program may close it later, and another file may
/// get its number.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        note_standard_error();
    }
    at_load
};

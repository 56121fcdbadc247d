//! Which range of a sidecar another process has locked.
//!
//! Linux and macOS tell the range of a conflicting lock, and with it the holder ([`crate::lock::holder`]). Windows
//! tells only that there is one. There the holder records the last byte it has locked in the page.

use std::io;
use std::path::Path;

use super::opening::look_at;
use crate::lock::holder::{WRITE_BYTE, WRITE_RANGE};
use crate::lock::page::LAST_BYTE;
use crate::sys::{self, LockFile, Range};

/// The range of another open file's lock on any byte of `range`. Where the kernel only tells that there is one, the
/// page tells what the holder of the write lock has locked, if the file `has_page`.
///
/// # Errors
/// Those of the kernel, or the page cannot be read.
pub(crate) fn in_the_way(
    file: &LockFile,
    range: Range,
    has_page: impl FnOnce() -> bool,
) -> io::Result<Option<Range>> {
    if sys::KERNEL_TELLS_RANGES || range != WRITE_RANGE || !has_page() {
        return file.conflicting(range);
    }
    let mut last = [0; 8];
    sys::read_exact_at(file.file(), &mut last, LAST_BYTE)?;
    let last = i64::from_le_bytes(last);
    if last == 0 {
        // Asking the kernel would lock the byte for a moment.
        return Ok(None);
    }
    let held = Range { start: WRITE_BYTE, len: last.saturating_sub(WRITE_BYTE - 1) };
    Ok(file.conflicting(Range { len: 1, ..range })?.map(|_| held))
}

/// Where the kernel does not tell ranges, records in the page what was locked, or `None` before it is released.
pub(super) fn record(file: &LockFile, range: Option<Range>) {
    if !sys::KERNEL_TELLS_RANGES {
        let last = range.map_or(0, |range| range.start + range.len - 1);
        // A hint: without it, the holder has no name.
        let _ = sys::write_all_at(file.file(), &last.to_le_bytes(), LAST_BYTE);
    }
}

/// The range that the holder of the write lock on `database` has locked, even if the holder is this process. The
/// question needs an open file description of its own, because a process's locks do not conflict with themselves.
/// Changes nothing, and needs only the right to read the sidecar.
pub(crate) fn held_range(database: &Path) -> Option<Range> {
    look_at(database, |file| in_the_way(file, WRITE_RANGE, || true)).ok()?.ok()?
}

//! Nothing is replaced: on Windows a lock belongs to its handle, and no other close releases it.

use crate::ffi::host::Host;
use crate::ffi::sqlite3_vfs;
use crate::guard::cancellation::Protection;

/// Does nothing.
///
/// # Safety
/// None is needed.
pub(crate) unsafe fn protect(_: &Host, _: *mut sqlite3_vfs) -> Protection {
    Protection
}

//! xFullPathname of the Windows VFSes. They do not resolve symbolic links, so two names of one database would have
//! two sidecars, journals and WALs.

use std::ffi::{CStr, c_char, c_int};

use super::{base_full_pathname, instance};
use crate::ffi::{ResultCode, no_panic, sqlite3_vfs};
use crate::log;
use crate::sys;

/// xFullPathname: SQLite asks for the full path of a database before it opens it, without a lock. Fails, and logs a
/// line, if links cannot be resolved.
pub(super) unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    n: c_int,
    out: *mut c_char,
) -> ResultCode {
    // SAFETY: the base gets what SQLite has passed.
    let rc = unsafe { base_full_pathname(vfs, name, n, out) };
    if rc != ResultCode::OK {
        return rc;
    }
    no_panic(ResultCode::CANTOPEN, || {
        // SAFETY: the base has written a terminated name.
        let path = sys::path_from(unsafe { CStr::from_ptr(out) }).into_owned();
        if !path.is_absolute() {
            // The base does not keep its databases in files.
            return rc;
        }
        let why = match sys::canonical(&path) {
            Ok(found) => {
                let found = found.as_os_str().as_encoded_bytes();
                if found.len() < usize::try_from(n).unwrap_or(0) {
                    // SAFETY: SQLite passes room for n bytes.
                    unsafe {
                        let out = out.cast::<u8>();
                        out.copy_from_nonoverlapping(found.as_ptr(), found.len());
                        out.add(found.len()).write(0);
                    }
                    return rc;
                }
                "its name is too long".to_owned()
            }
            // Then the open fails, or creates a file of this very name.
            Err(error) if sys::is_absent(&error) => return rc,
            Err(error) => format!(
                "cannot tell where its name leads: {error}; this user must be allowed to look \
                 there, and the drive must know GetFinalPathNameByHandle"
            ),
        };
        // SAFETY: SQLite passes our VFS.
        let host = unsafe { instance(vfs) }.context.host;
        log::about(&host, ResultCode::CANTOPEN, &why, &path);
        ResultCode::CANTOPEN
    })
}

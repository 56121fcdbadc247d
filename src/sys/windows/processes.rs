//! Other processes.

use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::time::Duration;

use windows_sys::Win32::System::Threading::{
    OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};

use super::inode::Inode;
use super::owned;
use crate::sys::{Details, FileLock, ListedLock, Lockers, Openers};

/// Whether a process that did something is gone. Always false: it matters only if a child can keep
/// the locks of a dead process, and on Windows a lock ends with its process.
pub(crate) fn is_gone(_: u32, _: Duration) -> bool {
    false
}

/// Whether a process that did something has ended. Always false: on Windows waiters do not note the
/// holder.
pub(crate) fn has_ended(_: u32, _: Duration) -> bool {
    false
}

/// The processes that have a lock: none is found, since Windows does not tell who has one.
pub(crate) fn with_lock(_: &[Inode], _: impl Fn(Inode, FileLock) -> bool, _: Duration) -> Lockers {
    Lockers { found: Vec::new(), hidden: 0, is_partial: true }
}

/// The processes that have one of these files open: none is found, since Windows does not tell.
pub(crate) fn with_open(_: &[Inode], _: Duration) -> Openers {
    Openers { found: Vec::new(), hidden: 0, is_partial: true }
}

/// This process's pid namespace. Always `None`: Windows has none.
pub(crate) fn pid_namespace() -> Option<u32> {
    None
}

/// Whether a process has a file open. Always `None`: Windows does not tell.
pub(crate) fn has_open(_: u32, _: Inode, _: Duration) -> Option<bool> {
    None
}

/// The locks on these files that the kernel lists: none, since Windows lists none.
pub(crate) fn listed_locks(_: &[Inode]) -> Vec<ListedLock> {
    Vec::new()
}

/// What may be known about a process: nothing but its program, [`program_of`].
pub(crate) fn details_of(_: u32) -> Details {
    Details::default()
}

/// The arguments of a process: nothing, since Windows does not tell other processes.
pub(crate) fn command_of(_: u32) -> Option<String> {
    None
}

/// Whether any process has locked a file as a whole. Always false: Windows does not tell.
pub(crate) fn has_flock(_: Inode) -> bool {
    false
}

/// Whether any process has locked a file or a part of it. Always false: Windows does not tell.
pub(crate) fn is_locked(_: Inode) -> bool {
    false
}

/// Whether any process may have a lock on one of these files. Always false: [`with_lock`] would not find it.
pub(crate) fn may_be_locked(_: &[Inode], _: bool) -> bool {
    false
}

/// The name of a process's program, as far as this process may know it. QueryFullProcessImageNameW
#[doc(alias = "QueryFullProcessImageNameW")]
pub(crate) fn program_of(pid: u32) -> Option<String> {
    let mut path = [0_u16; 1024];
    let mut n = path.len() as u32;
    // SAFETY: the call takes numbers; an id that no process has is an error.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) }).ok()?;
    // SAFETY: an open handle, and room for that many characters.
    let rc = unsafe {
        QueryFullProcessImageNameW(process.as_raw_handle(), 0, path.as_mut_ptr(), &raw mut n)
    };
    let path = String::from_utf16_lossy(path.get(..n as usize).filter(|_| rc != 0)?);
    Some(Path::new(&path).file_name()?.to_string_lossy().into_owned())
}

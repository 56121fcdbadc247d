//! Windows. `docs/windows.md` says what differs from unix.

mod directory;
mod files;
mod inode;
mod lines;
mod locks;
mod mounts;
mod processes;
mod this_process;
mod thread;
mod words;

pub(crate) use directory::*;
pub(crate) use files::*;
pub(crate) use inode::*;
pub(crate) use lines::*;
pub(crate) use locks::*;
pub(crate) use mounts::*;
pub(crate) use processes::*;
pub(crate) use this_process::*;
pub(crate) use thread::*;
pub(crate) use words::*;

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{FromRawHandle, OwnedHandle};

/// The handle that a call has just made; the call's error if it is null.
fn owned(handle: *mut std::ffi::c_void) -> io::Result<OwnedHandle> {
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and belongs to nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// A text as Windows takes it: UTF-16, terminated.
fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

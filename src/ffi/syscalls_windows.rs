//! Nothing is replaced: on Windows a lock belongs to its handle, and no other close gives it back.

use std::path::Path;

use super::types::sqlite3_vfs;
use crate::host::Host;
use crate::sys::{Inode, Range};

/// How the locks of the databases under one base VFS are protected.
#[derive(Clone, Copy)]
pub(crate) struct Protection;

impl Protection {
    /// They need no protection.
    pub(crate) fn why_not(&self, _: Option<Inode>) -> Option<String> {
        None
    }

    /// Nothing is to be counted.
    pub(crate) fn opened(&self, _: Inode, _: &Path) -> Option<Protected> {
        None
    }

    /// That is not known.
    pub(crate) fn is_locked_by_others(&self, _: Inode, _: Range) -> Option<bool> {
        None
    }
}

/// A database that is open through this VFS; there is none that needs to be known.
pub(crate) enum Protected {}

/// Does nothing.
///
/// # Safety
/// None is needed.
pub(crate) unsafe fn protect(_: &Host, _: *mut sqlite3_vfs) -> Protection {
    Protection
}

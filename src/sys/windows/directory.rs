//! What names lead to.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::Storage::FileSystem::{
    FILE_BASIC_INFO, FILE_FLAG_OPEN_REPARSE_POINT, FileBasicInfo,
};
use windows_sys::Win32::System::SystemInformation::GetSystemTimePreciseAsFileTime;

use super::files::open_to_look;
use super::inode::{Inode, by_handle, information, inode_of_file};

/// A name, as [`stat`] takes it.
#[derive(Debug)]
pub(crate) struct Name(PathBuf);

impl Name {
    /// `None` if there is a NUL in it.
    pub(crate) fn new(name: &OsStr) -> Option<Self> {
        (!name.as_encoded_bytes().contains(&0)).then(|| Self(name.into()))
    }
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) inode: Inode,
    /// How many hard links it has.
    pub(crate) links: u64,
    /// When it last changed, in 100 ns since 1601; 0 where the file system does not note it. FILE_BASIC_INFO
    changed: i64,
}

impl Found {
    /// Whether a change at this moment would certainly get another time: the last change is at
    /// least 40 ms old.
    pub(crate) fn was_changed_a_while_ago(&self) -> bool {
        const TICKS: i64 = 400_000;
        let mut now = FILETIME::default();
        // SAFETY: the call fills in the struct.
        unsafe { GetSystemTimePreciseAsFileTime(&raw mut now) };
        let now = i64::from(now.dwHighDateTime) << 32 | i64::from(now.dwLowDateTime);
        self.changed != 0 && now > self.changed.saturating_add(TICKS)
    }
}

/// What `name` leads to; a link is not followed.
pub(crate) fn stat(name: &Name) -> io::Result<Found> {
    let file = open_to_look(&name.0, FILE_FLAG_OPEN_REPARSE_POINT)?;
    // SAFETY: FileBasicInfo fills in this struct.
    let changed = unsafe { information::<FILE_BASIC_INFO>(&file, FileBasicInfo) }?.ChangeTime;
    let links = by_handle(&file)?.nNumberOfLinks.into();
    Ok(Found { inode: inode_of_file(&file)?, links, changed })
}

/// A directory, by its name. It is not kept open, since that would prevent a rename.
#[derive(Debug)]
pub(crate) struct Directory(Name);

impl Directory {
    /// `None` if there is a NUL in its name.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        Name::new(path.as_os_str()).map(Self)
    }

    /// Whether `path` is its name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.0.0 == path
    }

    /// What its name leads to.
    pub(crate) fn stat(&self) -> io::Result<Found> {
        stat(&self.0)
    }

    /// Whether its name leads to it: always.
    pub(crate) fn is_in_place(&self, _: &Found) -> bool {
        true
    }

    /// Whether names may lead elsewhere than when it was opened, although nothing was moved: never.
    pub(crate) fn is_seen_from_elsewhere(&self) -> bool {
        false
    }

    /// What `name` leads to.
    pub(crate) fn stat_within(&self, name: &Name) -> io::Result<Found> {
        stat(name)
    }
}

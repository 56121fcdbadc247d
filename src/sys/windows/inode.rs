//! Which file it is.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_ID_INFO, FILE_INFO_BY_HANDLE_CLASS, FileIdInfo,
    GetFileInformationByHandle, GetFileInformationByHandleEx,
};

/// What identifies a file, whatever its path: the volume's serial number and the file's index on it.
/// FILE_ID_INFO
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    pub(super) volume: u64,
    pub(super) index: u128,
}

impl Inode {
    /// The volume, and the index folded to 64 bits.
    pub(crate) fn numbers(self) -> [u64; 2] {
        [self.volume, self.index as u64 ^ (self.index >> 64) as u64]
    }
}

/// The file that is open. GetFileInformationByHandleEx
#[doc(alias = "FileIdInfo")]
pub(crate) fn inode_of_file(file: &File) -> io::Result<Inode> {
    // SAFETY: FileIdInfo fills in this struct.
    if let Ok(id) = unsafe { information::<FILE_ID_INFO>(file, FileIdInfo) } {
        let index = u128::from_le_bytes(id.FileId.Identifier);
        return Ok(Inode { volume: id.VolumeSerialNumber, index });
    }
    // FAT has no such ids. Its indexes have 64 bits.
    let found = by_handle(file)?;
    let index = u128::from(found.nFileIndexHigh) << 32 | u128::from(found.nFileIndexLow);
    Ok(Inode { volume: found.dwVolumeSerialNumber.into(), index })
}

/// Information about an open file. GetFileInformationByHandleEx
///
/// # Safety
/// `class` is the one that fills in a `T`, a struct of integers.
pub(super) unsafe fn information<T>(
    file: &File,
    class: FILE_INFO_BY_HANDLE_CLASS,
) -> io::Result<T> {
    let mut found = MaybeUninit::<T>::zeroed();
    // SAFETY: an open handle, and a struct of that size that the call fills in, for which zeros are a value.
    unsafe {
        let into = found.as_mut_ptr().cast();
        match GetFileInformationByHandleEx(file.as_raw_handle(), class, into, size_of::<T>() as u32)
        {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(found.assume_init()),
        }
    }
}

/// Information about an open file on any file system. GetFileInformationByHandle
pub(super) fn by_handle(file: &File) -> io::Result<BY_HANDLE_FILE_INFORMATION> {
    let mut found = MaybeUninit::zeroed();
    // SAFETY: an open handle, and a struct of integers that the call fills in.
    unsafe {
        match GetFileInformationByHandle(file.as_raw_handle(), found.as_mut_ptr()) {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(found.assume_init()),
        }
    }
}

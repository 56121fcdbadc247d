//! Volumes: what they are, and where they are mounted.

use std::io;
use std::path::{Component, Path, Prefix};

use windows_sys::Win32::Storage::FileSystem::{GetDriveTypeW, GetVolumePathNameW};

use super::wide;

/// Always false: only Linux can mount a file over a file.
pub(crate) fn is_mounted_over_itself(_: &Path) -> bool {
    false
}

/// Always false: only Linux can mount a file over a file.
pub(crate) fn is_mount_point(_: &Path) -> bool {
    false
}

/// Always `None`: no caller needs it here.
pub(crate) fn room_at(_: &Path) -> Option<(u64, u64)> {
    None
}

/// The type of the file system that `path` lies on, as a number of statfs(2): SMB's for every network drive, and 0 for
/// all others. GetDriveTypeW
pub(crate) fn file_system_type(path: &Path) -> io::Result<u64> {
    const DRIVE_REMOTE: u32 = 4;
    const SMB2: u64 = 0xfe53_4d42;
    let is_unc = match path.components().next() {
        Some(Component::Prefix(prefix)) => {
            matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
        }
        _ => false,
    };
    // SAFETY: a terminated name.
    let is_network = is_unc || unsafe { GetDriveTypeW(volume_of(path)?.as_ptr()) } == DRIVE_REMOTE;
    Ok(if is_network { SMB2 } else { 0 })
}

/// Where the volume that `path` lies on is mounted, terminated. GetVolumePathNameW
fn volume_of(path: &Path) -> io::Result<Vec<u16>> {
    let path = wide(path.as_os_str());
    let mut volume = vec![0; path.len() + 2];
    // SAFETY: a terminated name, and room for that many characters.
    let rc = unsafe { GetVolumePathNameW(path.as_ptr(), volume.as_mut_ptr(), volume.len() as u32) };
    if rc == 0 { Err(io::Error::last_os_error()) } else { Ok(volume) }
}

/// Where the volume that `path` lies on is mounted, and what it is called. Only called for network drives.
pub(crate) fn mount_of(path: &Path) -> Option<(String, String)> {
    let volume = volume_of(path).ok()?;
    let volume = String::from_utf16_lossy(&volume);
    Some((volume.trim_end_matches('\0').to_owned(), "a network drive".to_owned()))
}

/// Whether two opens of a file in `directory` give one file. Always false: this is only called for 9p and FUSE, which
/// have another type here.
pub(crate) fn shares_memory(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unc_paths_are_network_file_systems() {
        let kind = |path: &str| file_system_type(Path::new(path)).expect("a type");
        for path in [r"\\server\share\board.db", r"\\?\UNC\server\share\board.db"] {
            assert_ne!(kind(path), 0, "{path}");
        }
        let here = std::env::temp_dir();
        for path in [here.clone(), here.canonicalize().expect("it exists")] {
            assert_eq!(kind(path.to_str().expect("UTF-8")), 0, "{path:?}");
        }
    }
}

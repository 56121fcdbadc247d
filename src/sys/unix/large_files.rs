//! The C library's types and functions for files of any length and inode number. On a processor of 32 bits, those of
//! glibc's that have the usual names fail with EOVERFLOW if a length or an inode number needs more bits. There these are
//! the ones with a 64 in their names. feature_test_macros(7), `_LARGEFILE64_SOURCE`

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "32")))]
pub(crate) use libc::{
    F_SETLK, RLIM_INFINITY, flock as Flock, fstat, fstatat, getrlimit, lstat, readdir, rlimit,
    stat, statfs, statvfs,
};
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "32"))]
pub(crate) use libc::{
    RLIM64_INFINITY as RLIM_INFINITY, flock64 as Flock, fstat64 as fstat, fstatat64 as fstatat,
    getrlimit64 as getrlimit, lstat64 as lstat, readdir64 as readdir, rlimit64 as rlimit,
    stat64 as stat, statfs64 as statfs, statvfs64 as statvfs,
};

/// fcntl(2)'s command for a lock that comes as a [`Flock`]: the kernel's F_SETLK64, as it is on x86 and ARM. `libc` does
/// not have it.
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "32"))]
pub(crate) const F_SETLK: libc::c_int = 13;

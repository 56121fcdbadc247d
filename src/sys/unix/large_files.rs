//! The C library's types and functions for files of any length and inode number. On a processor of 32 bits, glibc's own
//! fail with EOVERFLOW at those that need 64; these, by the same names with a 64, do not. feature_test_macros(7),
//! `_LARGEFILE64_SOURCE`

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

/// fcntl(2)'s command for a lock that comes as a [`Flock`].
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "32"))]
pub(crate) const F_SETLK: libc::c_int = 13;

//! Linux, and in principle every unix with open-file-description locks.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(target_os = "linux")]
use super::reopen;
use super::{Kept, Range, open, read_to_string};

/// What makes two paths the same file, stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    #[allow(clippy::unnecessary_cast, reason = "its type is another on other systems")]
    pub(crate) fn of(found: &libc::stat) -> Self {
        Self { device: found.st_dev as u64, number: found.st_ino }
    }

    /// Both numbers, device first.
    pub(crate) fn numbers(self) -> [u64; 2] {
        [self.device, self.number]
    }
}

impl From<&Metadata> for Inode {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

/// What a name leads to, which may be a symbolic link, or what is open.
pub(crate) struct Entry {
    pub(crate) inode: Inode,
    /// What it is, in a word, if it is no regular file.
    pub(crate) odd_kind: Option<&'static str>,
    /// The user who owns it, where files have one.
    pub(crate) owner: Option<u32>,
    /// Its length, in bytes.
    pub(crate) len: u64,
    /// So many names it has.
    pub(crate) links: u64,
    pub(crate) rights: Rights,
}

impl From<&Metadata> for Entry {
    #[allow(clippy::unnecessary_cast, reason = "its type is another on other systems")]
    fn from(found: &Metadata) -> Self {
        let kind = found.file_type();
        Self {
            inode: Inode::from(found),
            odd_kind: (!kind.is_file()).then(|| name_of(kind)),
            owner: Some(found.uid()),
            len: found.len(),
            links: found.nlink() as u64,
            rights: Rights { user: found.uid(), group: found.gid(), mode: found.mode() & 0o777 },
        }
    }
}

/// Whose a file is, and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    user: u32,
    group: u32,
    mode: u32,
}

/// What `path` leads to. lstat(2)
pub(crate) fn entry_at(path: &Path) -> io::Result<Entry> {
    Ok(Entry::from(&path.symlink_metadata()?))
}

/// What `path` leads to in the end. stat(2)
pub(crate) fn entry_behind(path: &Path) -> io::Result<Entry> {
    Ok(Entry::from(&path.metadata()?))
}

/// What is open. fstat(2)
pub(crate) fn entry_of(file: &File) -> io::Result<Entry> {
    Ok(Entry::from(&file.metadata()?))
}

/// Deletes a name. unlink(2)
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Whether a file that others have open can be deleted, and they find out by its name.
pub(crate) const REMOVES_OPEN_FILES: bool = true;

/// Whether this process may create files in `directory`, as far as its permissions say. faccessat(2)
pub(crate) fn may_create_in(directory: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(directory.as_os_str().as_bytes()) else { return false };
    let wanted = libc::W_OK | libc::X_OK;
    // SAFETY: a terminated path.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), wanted, libc::AT_EACCESS) == 0 }
}

/// What a kind of file that is not a regular one is called.
pub(crate) fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

/// A name as SQLite passes it.
pub(crate) fn path_from(name: &CStr) -> Cow<'_, Path> {
    Path::new(OsStr::from_bytes(name.to_bytes())).into()
}

/// The path without symbolic links, `.` and `..`. realpath(3)
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Reads all of `into`, at an offset. pread(2)
pub(crate) fn read_exact_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(into, at)
}

/// Writes all of `bytes`, at an offset. pwrite(2)
pub(crate) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)
}

/// Opens an existing file to read, write and lock it; never follows a symbolic link, never blocks
/// on a FIFO, never becomes a controlling terminal.
#[doc(alias = "O_NOFOLLOW")]
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    open(OpenOptions::new().read(true).write(true).custom_flags(flags), path)
}

/// Opens an existing file to read it and to ask for its locks; as [`open_to_lock`] otherwise.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    open(OpenOptions::new().read(true).custom_flags(flags), path)
}

/// Creates `path`, which must not exist, with the rights `like`, as far as this process may give them.
#[doc(alias = "O_EXCL")]
pub(crate) fn create_like(path: &Path, like: Rights) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(like.mode);
    let file = open(options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC), path)?;
    give_rights(&file, entry_of(&file)?.rights, like);
    Ok(file)
}

/// Gives a file that has the rights `now` the rights `like`, as far as this process may: root and, but for
/// its owner, the owner, who may give it to a group of its own only. fchown(2), fchmod(2)
pub(crate) fn give_rights(file: &File, now: Rights, like: Rights) {
    let mut mode = now.mode;
    if now.group != like.group {
        let _ = std::os::unix::fs::fchown(file, None, Some(like.group));
        mode = u32::MAX;
    }
    if now.user != like.user {
        let _ = std::os::unix::fs::fchown(file, Some(like.user), None);
        mode = u32::MAX;
    }
    // After chown(2), which may clear bits, and past the umask.
    if mode != like.mode {
        let _ = file.set_permissions(PermissionsExt::from_mode(like.mode));
    }
}

fn flock(kind: impl Into<libc::c_int>, range: Range) -> libc::flock {
    #[allow(clippy::needless_update, reason = "it has more fields on other systems")]
    libc::flock {
        l_type: kind.into() as _,
        l_whence: libc::SEEK_SET as _,
        l_start: range.start,
        l_len: range.len,
        // As it must be for an OFD lock.
        l_pid: 0,
        // SAFETY: all of its fields are integers.
        ..unsafe { std::mem::zeroed() }
    }
}

#[inline(always)]
fn fcntl(file: &impl AsRawFd, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the struct is what these commands ask for; a descriptor that is not open is an error.
        match unsafe { fcntl_lock(file.as_raw_fd(), command, lock) } {
            Ok(()) => return Ok(()),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// fcntl(2) for a lock that is not waited for; if it fails, with which errno(3). It is made without the C
/// library, whose fcntl spends some 35 instructions a call on commands that can be waited for, or take
/// no struct; each transaction makes several such calls.
///
/// # Safety
/// `lock` is what the command asks for.
#[inline]
pub(crate) unsafe fn fcntl_lock(
    descriptor: RawFd,
    command: libc::c_int,
    lock: *mut libc::flock,
) -> Result<(), libc::c_int> {
    #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    // SAFETY: the caller's promise. The kernel's `struct flock` is the C library's here.
    let made = unsafe {
        use syscalls::{Errno, Sysno, raw::syscall3};
        let nr = Sysno::fcntl as usize;
        let lock = lock.expose_provenance();
        // The kernel takes unsigned numbers, of 32 bits.
        let rc = syscall3(nr, descriptor as u32 as usize, command as u32 as usize, lock);
        Errno::from_ret(rc).map(drop).map_err(Errno::into_raw)
    };
    #[cfg(not(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )))]
    // SAFETY: the caller's promise.
    let made = match unsafe { libc::fcntl(descriptor, command, lock) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()),
        _ => Ok(()),
    };
    made
}

/// Takes an exclusive or shared open-file-description lock on `range`, or says false if another
/// open file description has a lock in its way. What this description had locked there before, it
/// replaces. The kernel gives it back when the last descriptor of the description is closed: at
/// the latest when its process dies. fcntl(2).
#[doc(alias = "F_OFD_SETLK")]
#[inline(always)]
pub(crate) fn try_lock(file: &impl AsRawFd, range: Range, shared: bool) -> io::Result<bool> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    match fcntl(file, libc::F_OFD_SETLK, &mut flock(kind, range)) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether [`try_lock`] has failed because the system, or the file system, has no such locks.
pub(crate) fn has_no_locks(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// Gives back all locks of this open file description on `range`.
#[inline]
pub(crate) fn unlock(file: &impl AsRawFd, range: Range) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, &mut flock(libc::F_UNLCK, range))
}

/// The range of a lock that keeps this open file description from locking `range`.
#[doc(alias = "F_OFD_GETLK")]
pub(crate) fn conflicting_lock(file: &impl AsRawFd, range: Range) -> io::Result<Option<Range>> {
    let mut lock = flock(libc::F_WRLCK, range);
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    let free = libc::c_int::from(lock.l_type) == libc::c_int::from(libc::F_UNLCK);
    Ok((!free).then_some(Range { start: lock.l_start, len: lock.l_len }))
}

/// An open file, and its locks.
pub(crate) struct LockFile(Kept);

impl LockFile {
    pub(crate) fn new(file: File) -> Self {
        Self(Kept::new(file))
    }

    pub(crate) fn file(&self) -> &File {
        self.0.file()
    }

    /// As [`Kept::is_intact`].
    pub(crate) fn is_intact(&self) -> bool {
        self.0.is_intact()
    }

    /// Its descriptor, which a child of fork(2) inherits.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// As [`try_lock`].
    #[inline]
    pub(crate) fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        try_lock(&self.0, range, shared)
    }

    /// As [`unlock`].
    #[inline]
    pub(crate) fn unlock(&self, range: Range) -> io::Result<()> {
        unlock(&self.0, range)
    }

    /// As [`conflicting_lock`].
    pub(crate) fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        conflicting_lock(&self.0, range)
    }
}

/// Whether [`LockFile::conflicting`] tells the whole range of the lock in the way.
pub(crate) const KERNEL_TELLS_RANGES: bool = true;

/// Whether `path` is a file that was mounted over another (statx(2)), so that the directory it is
/// seen in is not the one it lies in. False where the kernel can
/// not tell (Linux before 5.8).
#[cfg(target_os = "linux")]
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: all of its fields are integers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path and a struct to fill in.
    let rc = unsafe {
        libc::statx(libc::AT_FDCWD, path.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, 0, &raw mut found)
    };
    let bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    rc == 0 && found.stx_attributes_mask & bit != 0 && found.stx_attributes & bit != 0
}

/// Only Linux can mount a file over a file.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_mount_point(_: &Path) -> bool {
    false
}

/// Beyond how many bytes this process may not write to a file: SIGXFSZ would end it. getrlimit(2)
#[doc(alias = "RLIMIT_FSIZE")]
pub(crate) fn file_size_limit() -> Option<i64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct to fill in.
    let rc = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    (rc == 0 && limit.rlim_cur != libc::RLIM_INFINITY)
        .then(|| i64::try_from(limit.rlim_cur).unwrap_or(i64::MAX))
}

/// CLOCK_MONOTONIC in ns, the same for all processes. clock_gettime(2)
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a struct to fill in; the clock exists, so it can not fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The first bytes of a file, mapped for the sake of their addresses: processes that wait for a
/// change of a word, and those that change it, meet there. The memory itself is never touched,
/// since that would be fatal once somebody has cut the file short; futex(2) only fails then.
#[cfg(target_os = "linux")]
pub(crate) struct Words {
    address: std::ptr::NonNull<libc::c_void>,
    size: usize,
}

// SAFETY: the address is only ever passed to the kernel.
#[cfg(target_os = "linux")]
unsafe impl Send for Words {}
// SAFETY: as above.
#[cfg(target_os = "linux")]
unsafe impl Sync for Words {}

#[cfg(target_os = "linux")]
impl Words {
    /// Maps the first `size` bytes of the file, which is at `path`. A mapping holds its open file description, and
    /// that holds its locks: those of a connection whose descriptors somebody has closed, or of a dead process
    /// whose child shares its memory. So it is mapped by a description that never has a lock.
    pub(crate) fn map(file: &File, path: &Path, size: usize) -> io::Result<Self> {
        let file = match reopen(file.as_raw_fd(), false) {
            Ok(file) => file,
            // There is no /proc.
            Err(_) => {
                let inode = super::inode_of(file.as_raw_fd())?;
                let file = open_to_read(path)?;
                if entry_of(&file)?.inode != inode {
                    return Err(io::ErrorKind::NotFound.into());
                }
                file.into()
            }
        };
        // SAFETY: a new mapping, which replaces nothing.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let Some(address) = std::ptr::NonNull::new(address) else {
            return Err(io::ErrorKind::AddrInUse.into());
        };
        let words = Self { address, size };
        // A child of fork(2) has no use for it.
        // SAFETY: the mapping is this object's.
        match unsafe { libc::madvise(address.as_ptr(), size, libc::MADV_DONTFORK) } {
            0 => Ok(words),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn word(&self, at: usize) -> *mut u32 {
        assert!(at % 4 == 0 && at + 4 <= self.size);
        // SAFETY: within the mapping.
        unsafe { self.address.as_ptr().cast::<u8>().add(at).cast() }
    }

    /// Sleeps while the word at `at` is `value`, at most `limit`: false if that is over. May return
    /// early; an error if the word is not there. Shared, not private: others are in other processes.
    #[doc(alias = "FUTEX_WAIT")]
    pub(crate) fn wait(
        &self,
        at: usize,
        value: u32,
        limit: std::time::Duration,
    ) -> io::Result<bool> {
        let limit =
            libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
        // SAFETY: the word is mapped; the kernel copes with one that is not there any more.
        let rc = unsafe {
            libc::syscall(libc::SYS_futex, self.word(at), libc::FUTEX_WAIT, value, &raw const limit)
        };
        if rc == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(true),
            Some(libc::ETIMEDOUT) => Ok(false),
            _ => Err(error),
        }
    }

    /// Wakes all that sleep on the word at `at`.
    #[doc(alias = "FUTEX_WAKE")]
    pub(crate) fn wake(&self, at: usize) {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_futex, self.word(at), libc::FUTEX_WAKE, i32::MAX) };
    }
}

#[cfg(target_os = "linux")]
impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's, and nobody has its address.
        unsafe { libc::munmap(self.address.as_ptr(), self.size) };
    }
}

/// Where there are no futexes between processes, waiters look every millisecond.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Words;

#[cfg(not(target_os = "linux"))]
impl Words {
    pub(crate) fn map(_: &File, _: &Path, _: usize) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn wait(&self, _: usize, _: u32, limit: std::time::Duration) -> io::Result<bool> {
        std::thread::sleep(limit.min(std::time::Duration::from_millis(1)));
        Ok(false)
    }

    pub(crate) fn wake(&self, _: usize) {}
}

/// The name of a process's program, as far as this process may know it. proc(5)
pub(crate) fn program_of(pid: u32) -> Option<String> {
    let name = read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// What tells this run of the kernel from all others, proc(5); `None` without a /proc.
pub(crate) fn boot_id() -> Option<u128> {
    static BOOT: std::sync::OnceLock<Option<u128>> = std::sync::OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&id.trim_end().replace('-', ""), 16).ok()
    })
}

static PID: AtomicU32 = AtomicU32::new(0);

/// This process's id, without a system call but for the first time.
pub(crate) fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => {
            let pid = std::process::id();
            PID.store(pid, Ordering::Relaxed);
            pid
        }
        pid => pid,
    }
}

/// The address of what `library` or a library it is linked with exports by that name, dlsym(3);
/// null if none does.
///
/// # Safety
/// `library` is what dlopen(3) gave, or a pseudo-handle of dlsym.
pub(crate) unsafe fn find_symbol(
    library: *mut std::ffi::c_void,
    name: &std::ffi::CStr,
) -> *mut std::ffi::c_void {
    // SAFETY: the caller's promise; a terminated name.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// Calls `prepare` before each fork(2) of this process, `parent` and `child` after it.
///
/// # Errors
/// When there is no memory for it, pthread_atfork(3).
pub(crate) fn at_fork(
    prepare: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: the functions live as long as the process: this library is never unloaded.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Sets this thread's errno(3).
pub(crate) fn set_errno(errno: libc::c_int) {
    #[cfg(target_os = "linux")]
    // SAFETY: this thread's own.
    let place = unsafe { libc::__errno_location() };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above.
    let place = unsafe { libc::__error() };
    // SAFETY: as above.
    unsafe { *place = errno };
}

/// Forgets the process id, which a fork has changed.
pub(crate) fn forget_pid() {
    PID.store(0, Ordering::Relaxed);
}

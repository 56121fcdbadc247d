//! The system calls of the unix VFSes that we replace, by xSetSystemCall
//! (<https://www.sqlite.org/c3ref/vfs.html>): fcntl(2), for the sake of [`crate::guard::cancellation`],
//! open(2) and close(2), which tell when a descriptor is another file's, and fstat(2) and stat(2), by
//! which SQLite tells files apart.
//!
//! All unix VFSes of one copy of SQLite share them, and the functions are not told which copy calls,
//! so each gets functions of its own.
//!
//! fcntl(2)'s third argument, which C passes to a function with "...", arrives in a register like any
//! other on x86-64 and AArch64 Linux; nowhere else are they replaced.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use crate::ffi::host::Host;
use crate::ffi::{copies, no_panic, sqlite3_syscall_ptr, sqlite3_vfs};
use crate::format::WAL_INDEX_SUFFIX;
use crate::guard::cancellation::table::{Known, LockTable, Target};
use crate::guard::cancellation::{self, Protection};
use crate::sys::{self, Inode, Range, fork};

type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type Fstat = unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int;
type Stat = unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int;

/// What ours go on to.
#[derive(Clone, Copy)]
struct Calls {
    fcntl: Fcntl,
    close: Close,
    open: Open,
    fstat: Fstat,
    stat: Stat,
}

impl Calls {
    /// Whether fcntl(2) is the C library's, and not of somebody who wants to see each call.
    fn are_libcs(&self) -> bool {
        let libcs: unsafe extern "C" fn(c_int, c_int, ...) -> c_int = libc::fcntl;
        self.fcntl as usize == libcs as usize
    }
}

/// One copy of SQLite.
struct Library {
    calls: OnceLock<Calls>,
    locks: &'static LockTable,
}

static LIBRARIES: [Library; copies::MOST] = {
    const fn library(nth: usize) -> Library {
        Library { calls: OnceLock::new(), locks: cancellation::table_of(nth) }
    }
    [library(0), library(1), library(2), library(3)]
};

/// The fcntl(2) command by which ours is told from any other, which has no such command.
const MARK: c_int = 0x6b62_6e02;

/// Replaces the calls of `base` and all VFSes that share them. Once; never undone, since what was
/// locked by ours must be unlocked by ours.
///
/// # Safety
/// `base` is registered with `host`.
pub(crate) unsafe fn protect(host: &Host, base: *mut sqlite3_vfs) -> Protection {
    let supported = cfg!(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ));
    if !supported {
        return Protection::none("it is not supported on this operating system and processor");
    }
    let Some(nth) = copies::number_of(host) else {
        return Protection::none("it is supported for four copies of SQLite in one process");
    };
    // SAFETY: the caller's promise.
    unsafe { install(nth, base) }.unwrap_or_else(Protection::none)
}

/// # Safety
/// `base` is registered with the SQLite of that number.
unsafe fn install(nth: usize, base: *mut sqlite3_vfs) -> Result<Protection, &'static str> {
    const NONE: &str = "the base VFS lets nobody replace its fcntl";
    let library = &LIBRARIES[nth];
    // SAFETY: the caller's promise; iVersion 3 has these methods; what a unix VFS calls by these
    // names are functions of these types, and so are ours.
    unsafe {
        if (*base).iVersion < 3 {
            return Err(NONE);
        }
        let (Some(get), Some(set)) = ((*base).xGetSystemCall, (*base).xSetSystemCall) else {
            return Err(NONE);
        };
        let get = |name: &CStr| get(base, name.as_ptr());
        let set = |name: &CStr, call| set(base, name.as_ptr(), call);
        let (Some(fcntl), Some(close), Some(open), Some(fstat), Some(stat)) =
            (get(c"fcntl"), get(c"close"), get(c"open"), get(c"fstat"), get(c"stat"))
        else {
            return Err(NONE);
        };
        let calls = Calls {
            fcntl: std::mem::transmute::<unsafe extern "C" fn(), Fcntl>(fcntl),
            close: std::mem::transmute::<unsafe extern "C" fn(), Close>(close),
            open: std::mem::transmute::<unsafe extern "C" fn(), Open>(open),
            fstat: std::mem::transmute::<unsafe extern "C" fn(), Fstat>(fstat),
            stat: std::mem::transmute::<unsafe extern "C" fn(), Stat>(stat),
        };
        if (calls.fcntl)(-1, MARK, std::ptr::null_mut()) == MARK {
            // By this copy of this library, or by another.
            return match library.calls.get() {
                Some(_) => Ok(Protection::by(nth)),
                None => Err("another copy of this library protects them, and only it can tell"),
            };
        }
        if library.calls.get().is_some() {
            return Err("fcntl could not be replaced, or somebody has replaced it since");
        }
        let _ = library.calls.set(calls);
        let ours = [ours::<0>, ours::<1>, ours::<2>, ours::<3>][nth]();
        let install = |calls: Calls| {
            set(c"stat", std::mem::transmute::<Stat, sqlite3_syscall_ptr>(calls.stat));
            set(c"fstat", std::mem::transmute::<Fstat, sqlite3_syscall_ptr>(calls.fstat));
            set(c"open", std::mem::transmute::<Open, sqlite3_syscall_ptr>(calls.open));
            set(c"close", std::mem::transmute::<Close, sqlite3_syscall_ptr>(calls.close));
            set(c"fcntl", std::mem::transmute::<Fcntl, sqlite3_syscall_ptr>(calls.fcntl));
        };
        install(ours);
        if get(c"fcntl").is_none_or(|now| now as usize != ours.fcntl as usize) {
            return Err(NONE);
        }
        cancellation::begin(nth, calls.are_libcs()).map_err(|_| {
            install(calls);
            "there is no /proc, by which it is done"
        })
    }
}

fn ours<const NTH: usize>() -> Calls {
    Calls {
        fcntl: fcntl_of::<NTH>,
        close: close_of::<NTH>,
        open: open_of::<NTH>,
        fstat: fstat_of::<NTH>,
        stat: stat_of::<NTH>,
    }
}

fn fail(errno: c_int) -> c_int {
    sys::set_errno(errno);
    -1
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// The command for open-file-description locks that answers to one for POSIX locks.
fn ofd_command(command: c_int) -> Option<c_int> {
    match command {
        libc::F_SETLK => Some(libc::F_OFD_SETLK),
        libc::F_SETLKW => Some(libc::F_OFD_SETLKW),
        libc::F_GETLK => Some(libc::F_OFD_GETLK),
        _ => None,
    }
}

/// A lock that is not waited for, once more when a signal has interrupted the call: SQLite would take
/// that for BUSY, and after an unlock believe that the lock is gone.
fn uninterrupted(command: c_int, call: impl Fn() -> c_int) -> c_int {
    loop {
        let rc = call();
        if rc != -1 || command == libc::F_OFD_SETLKW || errno() != libc::EINTR {
            return rc;
        }
    }
}

unsafe extern "C" fn fcntl_of<const NTH: usize>(
    file: c_int,
    command: c_int,
    argument: *mut c_void,
) -> c_int {
    let library = &LIBRARIES[NTH];
    if command == libc::F_SETLK {
        if let Some(descriptor) = cancellation::table_of(NTH).through(file) {
            let lock = argument.cast::<libc::flock>();
            // SAFETY: this command comes with a lock; an open-file-description lock asks for no process
            // id. The descriptor is the table's.
            let made = unsafe {
                (*lock).l_pid = 0;
                sys::fcntl_lock(descriptor, libc::F_OFD_SETLK, lock)
            };
            return match made {
                Ok(()) => 0,
                Err(libc::EBADF) => fcntl_by_the_table(file, command, argument, library),
                Err(errno) => once_more(descriptor, lock, errno),
            };
        }
    }
    fcntl_slowly(file, command, argument, library)
}

/// A lock has failed: made again as long as signals interrupt it, as by [`uninterrupted`]; and once more if
/// it was to be given back, since SQLite takes that for done whatever the call says.
#[cold]
#[inline(never)]
extern "C" fn once_more(descriptor: c_int, lock: *mut libc::flock, mut errno: c_int) -> c_int {
    // SAFETY: as in `fcntl_of`.
    let mut unlocks = unsafe { is_unlock(&*lock) };
    while errno == libc::EINTR || std::mem::take(&mut unlocks) {
        // SAFETY: as in `fcntl_of`.
        match unsafe { sys::fcntl_lock(descriptor, libc::F_OFD_SETLK, lock) } {
            Ok(()) => return 0,
            Err(other) => errno = other,
        }
    }
    fail(errno)
}

fn is_unlock(lock: &libc::flock) -> bool {
    c_int::from(lock.l_type) == c_int::from(libc::F_UNLCK)
}

/// Every other call: of a file that is not ours, by a descriptor to read by, by one of which the table must be
/// asked, and what is no lock. (Called as C calls `fcntl_of`, which so has nothing to save or to move.)
#[cold]
extern "C" fn fcntl_slowly(
    file: c_int,
    command: c_int,
    argument: *mut c_void,
    library: &'static Library,
) -> c_int {
    if command == MARK {
        return MARK;
    }
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite's own call, passed on.
    let as_it_is = || unsafe { (calls.fcntl)(file, command, argument) };
    if ofd_command(command).is_none() {
        return as_it_is();
    }
    match library.locks.known(file) {
        Known::AsItIs(_calling) => as_it_is(),
        Known::ToRead(descriptor) if command == libc::F_SETLK => {
            let lock = argument.cast::<libc::flock>();
            // SAFETY: as in `fcntl_of`.
            let made = unsafe {
                if is_exclusive(&*lock) {
                    return fail(libc::EBADF);
                }
                (*lock).l_pid = 0;
                sys::fcntl_lock(descriptor, libc::F_OFD_SETLK, lock)
            };
            match made {
                Ok(()) => 0,
                Err(libc::EBADF) => fcntl_by_the_table(file, command, argument, library),
                Err(errno) => once_more(descriptor, lock, errno),
            }
        }
        _ => fcntl_by_the_table(file, command, argument, library),
    }
}

fn is_exclusive(lock: &libc::flock) -> bool {
    c_int::from(lock.l_type) == c_int::from(libc::F_WRLCK)
}

/// A lock of which the table must be asked: the first of a file, one that a parent opened, one whose locks
/// are noted.
#[cold]
extern "C" fn fcntl_by_the_table(
    file: c_int,
    command: c_int,
    argument: *mut c_void,
    library: &'static Library,
) -> c_int {
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: as in `fcntl_slowly`.
    let as_it_is = || unsafe { (calls.fcntl)(file, command, argument) };
    let Some(ofd_command) = ofd_command(command) else { return as_it_is() };
    if let Some(rc) = no_panic(None, || library.locks.before(as_it_is)) {
        return rc;
    }
    // SAFETY: these commands come with a lock.
    let lock = unsafe { &mut *argument.cast::<libc::flock>() };
    let unlocks = is_unlock(lock);
    let exclusive = command != libc::F_GETLK && is_exclusive(lock);
    let descriptor = match no_panic(Target::Inherited, || library.locks.target(file)) {
        // As the kernel says it: the other descriptor could have it.
        Target::Through { is_read_only: true, .. } if exclusive => return fail(libc::EBADF),
        Target::Through { descriptor, .. } => descriptor,
        Target::AsItIs => {
            let all = unlocks && lock.l_start == 0 && lock.l_len == 0;
            let rc = as_it_is();
            let error = errno();
            no_panic((), || library.locks.called(file, rc == 0 && all));
            sys::set_errno(error);
            return rc;
        }
        Target::Inherited if unlocks => return 0,
        Target::Inherited => return fail(libc::EIO),
        Target::Unknown(errno) => return fail(errno),
    };
    lock.l_pid = 0;
    let locks_by = |descriptor| {
        // SAFETY: as in `fcntl_of`.
        uninterrupted(ofd_command, || unsafe { (calls.fcntl)(descriptor, ofd_command, argument) })
    };
    let locks = || locks_by(descriptor);
    let mut rc = locks();
    if command == libc::F_GETLK {
        return rc;
    }
    if rc == -1 && unlocks {
        // As in `once_more`.
        rc = locks();
    }
    if rc == 0 {
        let range = Range { start: lock.l_start, len: lock.l_len };
        no_panic((), || library.locks.note(file, range, !unlocks));
        return rc;
    }
    let error = errno();
    if error == libc::EBADF && no_panic(false, || library.locks.repair(file)) {
        return match no_panic(Target::Inherited, || library.locks.target(file)) {
            Target::Through { descriptor, .. } => locks_by(descriptor),
            _ => fail(error),
        };
    }
    fail(error)
}

unsafe extern "C" fn close_of<const NTH: usize>(file: c_int) -> c_int {
    let library = &LIBRARIES[NTH];
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // Before, since from then on the number can be another file's.
    if !no_panic(true, || library.locks.closing(file)) {
        // SQLite's was closed by somebody else, and ours got the number.
        return 0;
    }
    // SAFETY: SQLite's own call, passed on.
    unsafe { (calls.close)(file) }
}

unsafe extern "C" fn open_of<const NTH: usize>(
    name: *const c_char,
    flags: c_int,
    mode: c_int,
) -> c_int {
    let library = &LIBRARIES[NTH];
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite's own call, passed on.
    let file = unsafe { (calls.open)(name, flags, mode) };
    if file >= 0 {
        no_panic((), || {
            library.locks.opened(file);
            // SAFETY: SQLite passes a terminated name.
            let name = unsafe { CStr::from_ptr(name) };
            if let Some(database) = name.to_bytes().strip_suffix(WAL_INDEX_SUFFIX.as_bytes()) {
                opened_wal_index(file, OsStr::from_bytes(database), library);
            }
        });
    }
    file
}

/// Notes whose wal-index SQLite has opened, if the database is open through this VFS.
fn opened_wal_index(file: c_int, database: &OsStr, library: &'static Library) {
    if !library.locks.has_ours() {
        return;
    }
    if let (Ok(database), Ok(index)) = (sys::entry_behind(Path::new(database)), sys::inode_of(file))
    {
        library.locks.opened_wal_index(database.inode, index);
    }
}

/// In a forked child, no file is one that its parent had open through this VFS: SQLite's book-keeping of
/// those, by device and inode, is of locks that the child does not have.
unsafe extern "C" fn fstat_of<const NTH: usize>(file: c_int, found: *mut libc::stat) -> c_int {
    let Some(calls) = LIBRARIES[NTH].calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite's own call, passed on; it passes a struct to be filled in.
    unsafe { as_of_this_process((calls.fstat)(file, found), found, &LIBRARIES[NTH]) }
}

/// As [`fstat_of`]. By this one SQLite looks for a descriptor that a closed connection has left for the
/// next, which must not be one of the parent's.
unsafe extern "C" fn stat_of<const NTH: usize>(
    name: *const c_char,
    found: *mut libc::stat,
) -> c_int {
    let Some(calls) = LIBRARIES[NTH].calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: as in `fstat_of`.
    unsafe { as_of_this_process((calls.stat)(name, found), found, &LIBRARIES[NTH]) }
}

/// # Safety
/// `found` is filled in if `rc` is 0.
#[inline]
unsafe fn as_of_this_process(
    rc: c_int,
    found: *mut libc::stat,
    library: &'static Library,
) -> c_int {
    if rc == 0 && fork::generation() > 0 {
        // SAFETY: the caller's promise.
        as_of_a_child(unsafe { &mut *found }, library);
    }
    rc
}

#[cold]
#[inline(never)]
fn as_of_a_child(found: &mut libc::stat, library: &'static Library) {
    let inode = Inode::of(found);
    if let Some(generation) = no_panic(None, || library.locks.inherited(inode)) {
        // Linux's device numbers have 32 bits.
        found.st_dev ^= (generation << 32) as libc::dev_t;
    }
}

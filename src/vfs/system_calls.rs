//! The system calls of the unix VFSes that we replace, by xSetSystemCall
//! (<https://www.sqlite.org/c3ref/vfs.html>).
//!
//! | call | is replaced because |
//! |---|---|
//! | fcntl(2) | a lock must outlast the close of another descriptor: [`fcntl`] |
//! | open(2), close(2) | [`crate::guard::cancellation`] must know when a descriptor's number becomes another file's |
//! | fstat(2), stat(2) | SQLite recognises files by them, and a forked child would take its parent's files for its own |
//!
//! All unix VFSes of one copy of SQLite share these calls. The functions cannot know which copy
//! calls, so each copy gets functions of its own.
//!
//! The third argument of fcntl(2) is variadic in C. On x86-64 and AArch64 Linux it arrives in a
//! register like any other. The calls are replaced only there.
//!
//! # Threads and locks
//! SQLite calls these functions from any thread, mostly with mutexes of `os_unix.c`: a file's for
//! its locks, a wal-index's for its slots, and that of all files (`unixBigLock`) to open and close.
//! So they must not call SQLite, not even its error log. The only lock they take is that of a
//! [`LockTable`], which is never held while SQLite is called. Each sets errno(3) as the call that
//! it replaces would.
//!
//! open(2) and close(2) are cancellation points, and so is fcntl(2) when it waits: there
//! pthread_cancel(3) ends a thread. It unwinds the thread's stack, through the functions of type
//! "C-unwind". At these calls they have nothing to drop, and catch no panic.

mod fcntl;

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use crate::ffi::host::Host;
use crate::ffi::{ResultCode, c_text, copies, no_panic, sqlite3_syscall_ptr, sqlite3_vfs};
use crate::format::{SIDECAR_SUFFIX, WAL_INDEX_SUFFIX};
use crate::guard::cancellation::table::LockTable;
use crate::guard::cancellation::{self, Protection};
use crate::lock::sidecar;
use crate::sys::{self, Inode, fork, large_files};
use fcntl::{MARK, fcntl_of};

/// Names each call once, in the order in which they are put in place: fcntl(2) last, since it
/// changes what locks are.
macro_rules! calls {
    ($($call:ident by $ours:ident: $type:ty;)*) => {
        /// The functions that were there before, which ours call. Or our own functions.
        #[derive(Clone, Copy)]
        struct Calls {
            $($call: $type,)*
        }

        impl Calls {
            /// The functions that `base` uses now; `None` if it does not tell all of them.
            ///
            /// # Safety
            /// `get` is the xGetSystemCall of `base`, a unix VFS: the base calls functions of these
            /// types by these names.
            unsafe fn of(base: *mut sqlite3_vfs, get: GetSystemCall) -> Option<Self> {
                // SAFETY: the caller's promise: the base calls each as a function of that type.
                Some(unsafe {
                    Self {
                        $($call: {
                            let call = get(base, c_text(concat!(stringify!($call), "\0")).as_ptr())?;
                            std::mem::transmute::<unsafe extern "C" fn(), $type>(call)
                        },)*
                    }
                })
            }

            /// Puts them in place.
            ///
            /// # Safety
            /// `set` is the xSetSystemCall of `base`, a unix VFS.
            unsafe fn put_in_place(self, base: *mut sqlite3_vfs, set: SetSystemCall) {
                // SAFETY: the caller's promise: it calls these names as functions of these types.
                unsafe {
                    $(
                        let call = std::mem::transmute::<$type, sqlite3_syscall_ptr>(self.$call);
                        set(base, c_text(concat!(stringify!($call), "\0")).as_ptr(), call);
                    )*
                }
            }

            /// Our functions for that copy of SQLite.
            const fn ours<const NTH: usize>() -> Self {
                Self { $($call: $ours::<NTH>,)* }
            }
        }
    };
}

calls! {
    stat by stat_of: unsafe extern "C" fn(*const c_char, *mut large_files::stat) -> c_int;
    fstat by fstat_of: unsafe extern "C" fn(c_int, *mut large_files::stat) -> c_int;
    open by open_of: unsafe extern "C-unwind" fn(*const c_char, c_int, c_int) -> c_int;
    close by close_of: unsafe extern "C-unwind" fn(c_int) -> c_int;
    fcntl by fcntl_of: unsafe extern "C-unwind" fn(c_int, c_int, *mut c_void) -> c_int;
}

type GetSystemCall = unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> sqlite3_syscall_ptr;
type SetSystemCall =
    unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, sqlite3_syscall_ptr) -> ResultCode;

impl Calls {
    /// Whether fcntl(2) is the C library's own, not a wrapper that wants to see each call.
    fn are_libcs(&self) -> bool {
        let libcs: unsafe extern "C" fn(c_int, c_int, ...) -> c_int = libc::fcntl;
        self.fcntl as usize == libcs as usize
    }
}

/// One copy of SQLite.
struct Library {
    /// The system calls it had before; empty as long as none is replaced.
    calls: OnceLock<Calls>,
    locks: &'static LockTable,
}

static LIBRARIES: [Library; copies::MOST] = {
    const fn library(nth: usize) -> Library {
        Library { calls: OnceLock::new(), locks: cancellation::table_of(nth) }
    }
    [library(0), library(1), library(2), library(3)]
};

/// Replaces the calls of `base` and of all VFSes that share them. This is done once and never
/// undone: locks made by our functions must be unlocked by them.
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
    // SAFETY: the caller's promise; that is the number of `host`.
    unsafe { replace(nth, base) }.unwrap_or_else(Protection::none)
}

/// Replaces the calls of `base`. Returns the protection that this gives, or why it gives none.
///
/// # Safety
/// `base` is registered with the SQLite of that number.
unsafe fn replace(nth: usize, base: *mut sqlite3_vfs) -> Result<Protection, &'static str> {
    const NONE: &str = "the base VFS does not allow its fcntl to be replaced";
    let library = &LIBRARIES[nth];
    // SAFETY: the caller's promise; iVersion 3 has these methods, and only unix VFSes have these calls.
    unsafe {
        if (*base).iVersion < 3 {
            return Err(NONE);
        }
        let methods = (*base).xGetSystemCall.zip((*base).xSetSystemCall);
        let (get, set) = methods.ok_or(NONE)?;
        let calls = Calls::of(base, get).ok_or(NONE)?;
        if (calls.fcntl)(-1, MARK, std::ptr::null_mut()) == MARK {
            // They are replaced already, by this copy of this library or by another.
            return match library.calls.get() {
                Some(_) => Ok(Protection::by(nth)),
                None => Err(cancellation::BY_ANOTHER_COPY),
            };
        }
        if library.calls.get().is_some() {
            return Err("fcntl could not be replaced, or somebody has replaced it since");
        }
        let _ = library.calls.set(calls);
        let ours = [Calls::ours::<0>, Calls::ours::<1>, Calls::ours::<2>, Calls::ours::<3>][nth]();
        ours.put_in_place(base, set);
        if Calls::of(base, get).is_none_or(|now| now.fcntl as usize != ours.fcntl as usize) {
            return Err(NONE);
        }
        cancellation::begin(nth, calls.are_libcs()).map_err(|_| {
            calls.put_in_place(base, set);
            "there is no /proc, which this needs"
        })
    }
}

/// Sets errno(3), and returns what a failed system call returns.
fn fail(errno: c_int) -> c_int {
    sys::set_errno(errno);
    -1
}

/// close(2): SQLite closes a descriptor of a database, a wal-index, a journal or a WAL.
unsafe extern "C-unwind" fn close_of<const NTH: usize>(file: c_int) -> c_int {
    let library = &LIBRARIES[NTH];
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // Before the close, since the number can be another file's afterwards.
    if !no_panic(true, || library.locks.closing(file)) {
        // The application had closed SQLite's descriptor, and ours got the number.
        return 0;
    }
    // SAFETY: SQLite closes its own descriptor.
    unsafe { (calls.close)(file) }
}

/// open(2): SQLite opens a file of any kind.
unsafe extern "C-unwind" fn open_of<const NTH: usize>(
    name: *const c_char,
    flags: c_int,
    mode: c_int,
) -> c_int {
    let library = &LIBRARIES[NTH];
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite passes a terminated name.
    let path = unsafe { CStr::from_ptr(name) };
    // SAFETY: SQLite passes what open(2) asks for.
    let open = || unsafe { (calls.open)(name, flags, mode) };
    let mut file = open();
    if file >= 0 && OpensDatabase::has_begun() && no_panic(false, || makes_way(file, path, flags)) {
        // SAFETY: it was just opened.
        unsafe { (calls.close)(file) };
        file = open();
        no_panic(false, || file >= 0 && makes_way(file, path, 0));
    }
    if file >= 0 {
        no_panic((), || {
            library.locks.opened(file);
            if let Some(database) = path.to_bytes().strip_suffix(WAL_INDEX_SUFFIX.as_bytes()) {
                opened_wal_index(file, OsStr::from_bytes(database), library);
            }
        });
    }
    file
}

/// Lives while this thread opens a database through this VFS whose name is that of another
/// database's sidecar.
pub(super) struct OpensDatabase(());

thread_local! {
    static OPENS_DATABASE: Cell<bool> = const { Cell::new(false) };
}

impl OpensDatabase {
    /// For the database at `path`; `None` if it has no such name.
    pub(super) fn begin(path: &Path) -> Option<Self> {
        let is_named_so = path.as_os_str().as_bytes().ends_with(SIDECAR_SUFFIX.as_bytes());
        is_named_so.then(|| {
            OPENS_DATABASE.set(true);
            Self(())
        })
    }

    fn has_begun() -> bool {
        OPENS_DATABASE.get()
    }
}

impl Drop for OpensDatabase {
    fn drop(&mut self) {
        OPENS_DATABASE.set(false);
    }
}

/// Notes that SQLite opened this file as a database. Returns whether the file was a sidecar, which
/// is deleted now. Then the caller opens the name once more, if SQLite creates missing files.
fn makes_way(file: c_int, path: &CStr, flags: c_int) -> bool {
    // SAFETY: it was just opened, and stays open.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    sidecar::make_way(&file, &sys::path_from(path), flags & libc::O_CREAT != 0)
}

/// Notes whose wal-index SQLite opened, if any database is open through this VFS.
fn opened_wal_index(file: c_int, database: &OsStr, library: &'static Library) {
    if !library.locks.has_ours() {
        return;
    }
    let Ok(index) = sys::inode_of(file) else { return };
    let path = Path::new(database);
    match sys::entry_behind(path) {
        Ok(database) => library.locks.opened_wal_index(database.inode, index),
        Err(why) if sys::is_absent(&why) => {}
        // As far as can be known, it belongs to the database that was opened by this name.
        Err(_) => library.locks.opened_wal_index_beside(path, index),
    }
}

/// fstat(2): SQLite looks for its book-keeping of a file that it has opened, by device and inode. A
/// forked child must not find that of its parent's file, which counts locks that the child does not
/// have.
unsafe extern "C" fn fstat_of<const NTH: usize>(
    file: c_int,
    found: *mut large_files::stat,
) -> c_int {
    let library = &LIBRARIES[NTH];
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite passes a struct to be filled in.
    unsafe { as_of_this_process((calls.fstat)(file, found), found, library) }
}

/// stat(2): SQLite looks for a descriptor that a closed connection left for the next one. It must
/// not be the parent's. SQLite also checks, by the inode alone, whether a file is still in its
/// place.
unsafe extern "C" fn stat_of<const NTH: usize>(
    name: *const c_char,
    found: *mut large_files::stat,
) -> c_int {
    let library = &LIBRARIES[NTH];
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite passes a terminated name, and a struct to be filled in.
    unsafe { as_of_this_process((calls.stat)(name, found), found, library) }
}

/// Passes on the result of a stat call. In a forked child, changes it for files of the parent.
///
/// # Safety
/// `found` is filled in if `rc` is 0.
unsafe fn as_of_this_process(
    rc: c_int,
    found: *mut large_files::stat,
    library: &'static Library,
) -> c_int {
    if rc == 0 && fork::generation() > 0 {
        // SAFETY: the caller's promise: it is filled in.
        as_of_a_child(unsafe { &mut *found }, library);
    }
    rc
}

/// If a parent had the file open, replaces its device by one that does not exist.
#[cold]
fn as_of_a_child(found: &mut large_files::stat, library: &'static Library) {
    let inode = Inode::of(found);
    if let Some(generation) = no_panic(None, || library.locks.inherited(inode)) {
        // Linux's device numbers have 32 bits.
        found.st_dev ^= (generation << 32) as libc::dev_t;
    }
}

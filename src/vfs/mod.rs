//! The registered `sqlite3_vfs`, an [`Instance`], and its methods. xOpen, xSleep and xDelete are
//! ours, and on Windows xFullPathname. xGetSystemCall is the base's, but also answers another VFS
//! of this project. All other methods only call the base.
//!
//! SQLite calls them from any thread, and mostly with the mutex of the connection that opens,
//! deletes or sleeps (<https://www.sqlite.org/threadsafe.html>). They do not change the object, and
//! so need no lock. No mutex of ours is held when they are called or when they return.
#![allow(unsafe_code)]

#[cfg(windows)]
mod full_pathname;
mod open;
#[cfg_attr(windows, path = "system_calls_windows.rs")]
mod system_calls;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use crate::ffi::host::Host;
use crate::ffi::uri::{FileName, Uri};
use crate::ffi::{
    ResultCode, SQLITE_OPEN_CREATE, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_READONLY,
    SQLITE_OPEN_WAL, complete, no_panic, sqlite3_file, sqlite3_syscall_ptr, sqlite3_vfs,
};
use crate::lock::wait;
use crate::log;
use crate::options::Options;
use crate::shim::{self, Context, inherited};
use crate::sys;
#[cfg(windows)]
use full_pathname::x_full_pathname;
use open::{OpenPlan, plan_open};

/// One registered VFS. It lives for ever, since connections without files may keep its address in
/// SQLite.
pub(crate) struct Instance {
    /// The object that SQLite knows.
    pub(crate) vfs: *mut sqlite3_vfs,
    base: *mut sqlite3_vfs,
    pub(crate) options: Options,
    pub(crate) context: Context,
}

// SAFETY: the pointers are to VFS objects, whose contents never change after registration and
// whose methods SQLite itself calls from any thread.
unsafe impl Send for Instance {}
// SAFETY: nothing of it changes after registration but a counter, which is atomic.
unsafe impl Sync for Instance {}

/// The VFSes of the operating system, by the names that SQLite's `os_unix.c` and `os_win.c` give them.
pub(crate) const OF_THE_SYSTEM: &[&str] = if cfg!(windows) {
    &["win32", "win32-longpath", "win32-none", "win32-longpath-none"]
} else {
    &[
        "unix",
        "unix-none",
        "unix-dotfile",
        "unix-excl",
        "unix-posix",
        "unix-flock",
        "unix-afp",
        "unix-nfs",
        "unix-proxy",
        "unix-namedsem",
    ]
};

/// The xGetSystemCall of a VFS of this project answers this name, and that of no other VFS does.
const MARK: &CStr = c"kanban_vfs";

/// The base of a VFS of this project, made by this copy of the library or another; `None` for any
/// other VFS.
///
/// # Safety
/// `vfs` is registered.
pub(crate) unsafe fn base_of_ours(vfs: *mut sqlite3_vfs) -> Option<*mut sqlite3_vfs> {
    // SAFETY: the caller's promise; iVersion 3 has the method. Only our own xGetSystemCall knows
    // the mark, and answers with the address of its base.
    unsafe {
        if (*vfs).iVersion < 3 {
            return None;
        }
        let base = (*vfs).xGetSystemCall.and_then(|get| get(vfs, MARK.as_ptr()))?;
        Some(base as *mut sqlite3_vfs)
    }
}

impl Instance {
    /// Makes a VFS over `base`, not yet registered.
    ///
    /// # Safety
    /// `base` is registered with `host`.
    pub(crate) unsafe fn leak(
        name: CString,
        base: *mut sqlite3_vfs,
        host: Host,
        options: &Options,
        goes_under_ciphers: bool,
    ) -> &'static Self {
        // SAFETY: a registered VFS is as long as its version says, and does not change.
        let base_vfs = unsafe { complete(base) };
        // SAFETY: a registered VFS has a terminated name.
        let base_name = unsafe { CStr::from_ptr(base_vfs.zName) }.to_string_lossy();
        let full_name = format!("{}/{base_name}", options.name());
        let vfs = sqlite3_vfs {
            iVersion: 3,
            szOsFile: shim::size_with_state(base_vfs.szOsFile),
            pNext: null_mut(),
            zName: name.into_raw(),
            pAppData: null_mut(),
            xOpen: Some(x_open),
            xDelete: base_vfs.xDelete.and(Some(x_delete)),
            xFullPathname: base_vfs.xFullPathname.and(Some(x_full_pathname)),
            xSleep: base_vfs.xSleep.and(Some(x_sleep)),
            xGetSystemCall: Some(x_get_system_call),
            ..forwarding(&base_vfs)
        };
        let vfs = Box::into_raw(Box::new(vfs));
        let instance: &'static Self = Box::leak(Box::new(Self {
            vfs,
            base,
            options: options.clone(),
            context: Context {
                host,
                base_file_size: base_vfs.szOsFile,
                full_name,
                is_over_system: OF_THE_SYSTEM.contains(&&*base_name),
                goes_under_ciphers,
                // SAFETY: the caller's promise: the base is registered with this SQLite.
                protection: unsafe { system_calls::protect(&host, base) },
                has_said_what_is_off: AtomicBool::new(false),
                open_databases: AtomicUsize::new(0),
            },
        }));
        // SAFETY: `vfs` is ours and not registered yet.
        unsafe { (*vfs).pAppData = std::ptr::from_ref(instance).cast_mut().cast::<c_void>() };
        instance
    }

    /// Whether it is registered with that SQLite by that name.
    pub(crate) fn is(&self, host: &Host, name: &str) -> bool {
        self.context.host.same_library(host) && self.options.name() == name
    }
}

/// The instance whose method SQLite calls.
///
/// # Safety
/// `vfs` is the object of an [`Instance`].
unsafe fn instance(vfs: *mut sqlite3_vfs) -> &'static Instance {
    // SAFETY: pAppData was set to the instance, which lives for ever.
    unsafe { &*(*vfs).pAppData.cast::<Instance>() }
}

/// Calls a method of the base; answers `$missing` if the base does not have it. The call is unsafe:
/// the base gets itself, and the arguments that SQLite passed to our method.
macro_rules! call_base {
    ($instance:expr, $method:ident($($arg:expr),*) or $missing:expr) => {{
        let base = $instance.base;
        match (*base).$method {
            Some(method) => method(base, $($arg),*),
            None => $missing,
        }
    }};
}

/// xOpen: SQLite opens a file of any kind. It opens a main database without a lock on it, a journal
/// with RESERVED, a WAL with SHARED. If the file has methods afterwards, SQLite closes it, also
/// after an error. <https://www.sqlite.org/c3ref/vfs.html>
///
/// Must not pass the base anything but SQLite's own pointer to the name, around which the URI parameters lie.
unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> ResultCode {
    // SAFETY: SQLite passes our VFS and memory of our szOsFile.
    let instance = unsafe {
        (*file).pMethods = std::ptr::null();
        instance(vfs)
    };
    no_panic(ResultCode::ERROR, || {
        let context = &instance.context;
        // SAFETY: SQLite has passed it to this xOpen, and only of a main database is a parameter asked for.
        let uri = unsafe { FileName::new(name, &context.host) };
        let plan = plan_open(&uri, flags, &instance.options);
        if let OpenPlan::Refuse(why) = &plan {
            log::say(&context.host, ResultCode::CANTOPEN, why);
            // SAFETY: the file is SQLite's memory, with nothing in it yet.
            return unsafe { shim::refuse(file, context, why, flags, out_flags) };
        }
        let path = uri.path();
        const MAY_BE_PARENTS: c_int = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
        let may_be_parents = flags & MAY_BE_PARENTS != 0 && flags & SQLITE_OPEN_READONLY == 0;
        // SAFETY: SQLite passes null or a terminated name.
        if may_be_parents && unsafe { inherited::is_parents(name) } {
            log::about(&context.host, ResultCode::IOERR, inherited::WHY, &path);
            return ResultCode::IOERR;
        }
        #[cfg(unix)]
        let _opens =
            matches!(plan, OpenPlan::Guard(_)).then(|| system_calls::OpensDatabase::begin(&path));
        let mut base_flags = flags;
        let base_out = &raw mut base_flags;
        // SAFETY: the arguments are SQLite's own, but for the place for the flags, which lives here.
        let rc = unsafe {
            call_base!(instance, xOpen(name, file, flags, base_out) or return ResultCode::ERROR)
        };
        if !out_flags.is_null() {
            // SAFETY: SQLite passes null or an int.
            unsafe { *out_flags = base_flags };
        }
        if matches!(plan, OpenPlan::LeaveToBase) {
            return rc;
        }
        if rc != ResultCode::OK {
            let creates = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_CREATE;
            if flags & creates == creates {
                let why = "cannot open the journal, without which nothing is written; writers need \
                           the right to create files there";
                log::about(&context.host, rc, why, &path);
            }
            return rc;
        }
        // SAFETY: the base has opened the file, whose memory has room for our state.
        unsafe {
            if let OpenPlan::Guard(settings) = plan {
                let read_only = (flags | base_flags) & SQLITE_OPEN_READONLY != 0;
                return shim::install_database(file, context, &path, name, read_only, settings);
            }
            shim::watch(file, context, &path, flags);
        }
        rc
    })
}

/// xSleep: SQLite's busy handler sleeps. Its connection was refused a lock, and has its mutex and
/// the locks it had before. Or an application calls sqlite3_sleep(), without a mutex. A writer
/// waits in the queue here. Must not sleep longer than asked. Returns the time that was asked for.
///
/// pthread_cancel(3) ends a thread that sleeps in the base's xSleep. Here it ends the thread as
/// well, after a sleep in the queue. That unwinds the thread's stack, so at that point nothing
/// needs to be dropped, and no panic is caught.
unsafe extern "C-unwind" fn x_sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    let base_sleep = |duration: Duration| {
        if cfg!(windows) {
            // The win32 VFS rounds a sleep up to the system's tick, mostly 15.6 ms.
            return std::thread::sleep(duration);
        }
        let microseconds = c_int::try_from(duration.as_micros()).unwrap_or(c_int::MAX);
        // SAFETY: SQLite passes our VFS, and this runs before it returns.
        unsafe { call_base!(instance(vfs), xSleep(microseconds) or 0) };
    };
    let asked = Duration::from_micros(microseconds.max(0).unsigned_abs().into());
    let has_slept = {
        let _uncancelled = sys::UncancelledSleep::begin();
        no_panic(true, || wait::sleep(asked, base_sleep))
    };
    if !has_slept {
        base_sleep(asked);
    }
    sys::end_if_cancelled();
    microseconds
}

/// xDelete: SQLite deletes a journal or a WAL, with RESERVED or more on its database, or a
/// super-journal. Must not delete a file of a connection that this process inherited: the parent
/// needs it.
unsafe extern "C" fn x_delete(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    sync: c_int,
) -> ResultCode {
    no_panic(ResultCode::IOERR_DELETE, || {
        // SAFETY: SQLite passes our VFS and a terminated name.
        unsafe {
            if inherited::is_parents(name) {
                return ResultCode::IOERR_DELETE;
            }
            call_base!(instance(vfs), xDelete(name, sync) or ResultCode::ERROR)
        }
    })
}

/// Methods that only call the base's, and a table of those that the base has. SQLite calls them at
/// any time.
macro_rules! forward {
    ($(fn $ours:ident($($arg:ident: $type:ty),*) -> $ret:ty = $method:ident or $missing:expr;)*) => {
        $(unsafe extern "C" fn $ours(vfs: *mut sqlite3_vfs, $($arg: $type),*) -> $ret {
            // SAFETY: SQLite passes our VFS and what the method asks for.
            unsafe { call_base!(instance(vfs), $method($($arg),*) or $missing) }
        })*

        fn forwarding(base: &sqlite3_vfs) -> sqlite3_vfs {
            sqlite3_vfs { $($method: base.$method.and(Some($ours)),)* ..*base }
        }
    };
}

forward! {
    fn x_access(name: *const c_char, flags: c_int, out: *mut c_int) -> ResultCode = xAccess or ResultCode::ERROR;
    fn base_full_pathname(name: *const c_char, n: c_int, out: *mut c_char) -> ResultCode = xFullPathname or ResultCode::ERROR;
    fn x_dl_open(name: *const c_char) -> *mut c_void = xDlOpen or null_mut();
    fn x_dl_error(n: c_int, out: *mut c_char) -> () = xDlError or ();
    fn x_dl_sym(library: *mut c_void, symbol: *const c_char) -> sqlite3_syscall_ptr = xDlSym or None;
    fn x_dl_close(library: *mut c_void) -> () = xDlClose or ();
    fn x_randomness(n: c_int, out: *mut c_char) -> c_int = xRandomness or 0;
    fn x_current_time(out: *mut f64) -> ResultCode = xCurrentTime or ResultCode::ERROR;
    fn x_get_last_error(n: c_int, out: *mut c_char) -> ResultCode = xGetLastError or ResultCode::OK;
    fn x_current_time_int64(out: *mut i64) -> ResultCode = xCurrentTimeInt64 or ResultCode::ERROR;
    fn x_set_system_call(name: *const c_char, call: sqlite3_syscall_ptr) -> ResultCode = xSetSystemCall or ResultCode::ERROR;
    fn x_next_system_call(name: *const c_char) -> *const c_char = xNextSystemCall or std::ptr::null();
}

/// The unix VFSes resolve symbolic links.
#[cfg(unix)]
use base_full_pathname as x_full_pathname;

/// xGetSystemCall: an application asks for one of the base's system calls, or another VFS of this
/// project for our base.
unsafe extern "C" fn x_get_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
) -> sqlite3_syscall_ptr {
    // SAFETY: SQLite passes our VFS and a terminated name; the base has the method from version 3 on.
    unsafe {
        let base = instance(vfs).base;
        if !name.is_null() && CStr::from_ptr(name) == MARK {
            // The base's address in place of a function's, for [`base_of_ours`], which never calls
            // it.
            return std::mem::transmute::<*mut sqlite3_vfs, sqlite3_syscall_ptr>(base);
        }
        if (*base).iVersion < 3 {
            return None;
        }
        call_base!(instance(vfs), xGetSystemCall(name) or None)
    }
}

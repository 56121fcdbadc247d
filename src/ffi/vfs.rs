//! The registered `sqlite3_vfs` and its methods. All but xOpen and xSleep only go on to the base.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::syscalls::{self, Protection};
use super::types::{
    Rc, SQLITE_CANTOPEN, SQLITE_ERROR, SQLITE_IOERR, SQLITE_IOERR_DELETE, SQLITE_OK,
    SQLITE_OPEN_CREATE, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_READONLY, SQLITE_OPEN_WAL,
    sqlite3_file, sqlite3_syscall_ptr, sqlite3_vfs,
};
use super::{connect, no_panic};
use crate::file::{self, inherited};
use crate::guard::fork::{self, ForkMutex};
use crate::host::Host;
use crate::lock::wait;
use crate::sys;
use crate::vfs::{OpenPlan, Uri, plan_open};
use crate::{Error, Options};

/// One registered VFS. Lives for ever: SQLite may hold its address in connections without files.
pub(crate) struct Instance {
    vfs: *mut sqlite3_vfs,
    base: *mut sqlite3_vfs,
    host: Host,
    options: Options,
    /// `kanban/<base>`, as FCNTL_VFSNAME answers.
    full_name: String,
    is_over_system: bool,
    goes_under_ciphers: bool,
    open_databases: AtomicUsize,
    protection: Protection,
}

// SAFETY: the pointers are to VFS objects, whose contents never change after registration and
// whose methods SQLite itself calls from any thread.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

/// Instances that are registered now.
static REGISTERED: ForkMutex<Vec<&'static Instance>> = ForkMutex::new(Vec::new());

/// Registers the VFS that `options` describe with `host`. Doing it again changes nothing, but
/// that `make_default` is honoured.
pub(crate) fn register(host: Host, options: &Options) -> Result<(), Error> {
    let name = to_c(options.name())?;
    fork::watch().map_err(|e| Error::AtFork { errno: e.raw_os_error().unwrap_or_default() })?;
    let mut registered = REGISTERED.lock();
    let known = registered
        .iter()
        .find(|known| known.host.same_library(&host) && known.options.name() == options.name());
    if let Some(known) = known {
        if !known.options.same_vfs(options) {
            return Err(Error::NameTaken { name: options.name().to_owned() });
        }
        if options.make_default() {
            base_for(&host, options)?;
            // SAFETY: it is complete and never freed.
            check(unsafe { host.register_vfs(known.vfs, true) })?;
        }
        return Ok(());
    }
    let other = host.find_vfs(Some(&name));
    if !other.is_null() {
        // SAFETY: SQLite found it, so it is a registered VFS.
        if unsafe { base_of_ours(other) }.is_none() {
            return Err(Error::NameTaken { name: options.name().to_owned() });
        }
        // Another copy of this library has registered it. It keeps the options it has.
        if options.make_default() {
            base_for(&host, options)?;
            // SAFETY: it is registered already.
            check(unsafe { host.register_vfs(other, true) })?;
        }
        return Ok(());
    }
    let (base, encrypts) = base_for(&host, options)?;
    let instance = Instance::leak(name, base, host, options, encrypts);
    // SAFETY: it is complete and never freed.
    check(unsafe { host.register_vfs(instance.vfs, options.make_default()) })?;
    let rc = host.add_auto_extension(connect::on_connect);
    if rc != SQLITE_OK {
        // SAFETY: it was registered above.
        unsafe { host.unregister_vfs(instance.vfs) };
        return Err(Error::Sqlite { code: rc });
    }
    registered.push(instance);
    Ok(())
}

/// Takes the VFS named `name` out of `host` while no database is open through it.
#[cfg_attr(not(feature = "linked"), expect(dead_code, reason = "extensions stay"))]
pub(crate) fn unregister(host: Host, name: &str) -> Result<(), Error> {
    let mut registered = REGISTERED.lock();
    let nth = registered
        .iter()
        .position(|known| known.host.same_library(&host) && known.options.name() == name)
        .ok_or_else(|| Error::NotRegistered { name: name.to_owned() })?;
    let databases = registered[nth].open_databases.load(Ordering::SeqCst);
    if databases > 0 {
        return Err(Error::InUse { name: name.to_owned(), databases });
    }
    // SAFETY: it is registered with this library.
    check(unsafe { host.unregister_vfs(registered[nth].vfs) })?;
    registered.swap_remove(nth);
    if !registered.iter().any(|other| other.host.same_library(&host)) {
        host.remove_auto_extension(connect::on_connect);
    }
    Ok(())
}

/// Keeps other threads from registering until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    REGISTERED.lock()
}

/// The host of any registered VFS.
pub(crate) fn any_host() -> Option<Host> {
    REGISTERED.lock().first().map(|instance| instance.host)
}

fn check(rc: Rc) -> Result<(), Error> {
    if rc == SQLITE_OK { Ok(()) } else { Err(Error::Sqlite { code: rc }) }
}

fn to_c(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::InvalidName { name: name.to_owned() })
}

/// The VFSes of the operating system, by the names that SQLite's `os_unix.c` and `os_win.c` give them.
const OF_THE_SYSTEM: &[&str] = if cfg!(windows) {
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

/// What SQLite3MultipleCiphers puts before the name of the VFS that it encrypts for.
/// <https://utelle.github.io/SQLite3MultipleCiphers/docs/architecture/arch_vfs/>
const CIPHERS: &str = "multipleciphers-";

/// What to build on: the VFS that `options` name, else the default one if it is the operating system's. Never
/// a VFS of this project, which would be in its own way, but what that is built on.
///
/// Any other default VFS does something for its files that the application wants: to build on it may be wrong, since
/// it may know its files by the pointers to their names and methods, and to leave it out is wrong, since it is
/// missed. So that is for the application to say. Except SQLite3MultipleCiphers, which itself goes over any VFS:
/// this one is built on what it encrypts for then, and goes under it only: true.
///
/// # Errors
/// There is no such VFS, or it is not to be built on.
fn base_for(host: &Host, options: &Options) -> Result<(*mut sqlite3_vfs, bool), Error> {
    let find = |name: Option<&str>| -> Result<(*mut sqlite3_vfs, String), Error> {
        let found = host.find_vfs(name.map(to_c).transpose()?.as_deref());
        if found.is_null() {
            return Err(Error::NoBaseVfs { name: name.unwrap_or("").to_owned() });
        }
        // SAFETY: SQLite found it, so it is a registered VFS, and so is the base of one; it has a
        // terminated name.
        unsafe {
            let vfs = base_of_ours(found).unwrap_or(found);
            Ok((vfs, CStr::from_ptr((*vfs).zName).to_string_lossy().into_owned()))
        }
    };
    let (base, name) = find(options.base())?;
    let encrypts_for = name.strip_prefix(CIPHERS);
    if options.base().is_some() {
        return match encrypts_for {
            Some(_) => Err(Error::BaseUnfit { name }),
            None => Ok((base, false)),
        };
    }
    if OF_THE_SYSTEM.contains(&&*name) {
        return Ok((base, false));
    }
    match encrypts_for.filter(|system| OF_THE_SYSTEM.contains(system)) {
        Some(system) if !options.make_default() => find(Some(system)).map(|(base, _)| (base, true)),
        Some(_) => Err(Error::BaseUnfit { name }),
        None => Err(Error::BaseUnnamed { name }),
    }
}

/// The name by which xGetSystemCall tells a VFS of this project from any other.
const MARK: &CStr = c"kanban_vfs";

/// The base of a VFS of this project, be it this copy's or another's; `None` for any other VFS.
///
/// # Safety
/// `vfs` is registered.
unsafe fn base_of_ours(vfs: *mut sqlite3_vfs) -> Option<*mut sqlite3_vfs> {
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
    fn leak(
        name: CString,
        base: *mut sqlite3_vfs,
        host: Host,
        options: &Options,
        goes_under_ciphers: bool,
    ) -> &'static Self {
        // SAFETY: SQLite found it, so it is a registered VFS.
        let base_vfs = unsafe { read_vfs(base) };
        // SAFETY: a registered VFS has a terminated name.
        let base_name = unsafe { CStr::from_ptr(base_vfs.zName) }.to_string_lossy();
        macro_rules! if_base_has {
            ($($method:ident => $ours:ident),*) => {
                sqlite3_vfs {
                    iVersion: 3,
                    szOsFile: file::size_with_state(base_vfs.szOsFile),
                    mxPathname: base_vfs.mxPathname,
                    pNext: null_mut(),
                    zName: name.into_raw(),
                    pAppData: null_mut(),
                    xOpen: Some(x_open),
                    $($method: base_vfs.$method.and(Some($ours)),)*
                    xGetSystemCall: Some(x_get_system_call),
                }
            };
        }
        let full_name = format!("{}/{base_name}", options.name());
        let vfs = if_base_has! {
            xDelete => x_delete,
            xAccess => x_access,
            xFullPathname => x_full_pathname,
            xDlOpen => x_dl_open,
            xDlError => x_dl_error,
            xDlSym => x_dl_sym,
            xDlClose => x_dl_close,
            xRandomness => x_randomness,
            xSleep => x_sleep,
            xCurrentTime => x_current_time,
            xGetLastError => x_get_last_error,
            xCurrentTimeInt64 => x_current_time_int64,
            xSetSystemCall => x_set_system_call,
            xNextSystemCall => x_next_system_call
        };
        let vfs = Box::into_raw(Box::new(vfs));
        let instance: &'static Self = Box::leak(Box::new(Self {
            vfs,
            base,
            host,
            options: options.clone(),
            full_name,
            goes_under_ciphers,
            is_over_system: OF_THE_SYSTEM.contains(&&*base_name),
            open_databases: AtomicUsize::new(0),
            // SAFETY: SQLite found it, so it is registered.
            protection: unsafe { syscalls::protect(&host, base) },
        }));
        // SAFETY: `vfs` is ours and not registered yet.
        unsafe { (*vfs).pAppData = std::ptr::from_ref(instance).cast_mut().cast::<c_void>() };
        instance
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// szOsFile of the base, in bytes.
    pub(crate) fn base_file_size(&self) -> c_int {
        // SAFETY: a registered VFS, whose size does not change.
        unsafe { (*self.base).szOsFile }
    }

    /// `kanban/unix`, say.
    pub(crate) fn full_name(&self) -> &str {
        &self.full_name
    }

    /// Whether the base is one of the operating system's VFSes.
    pub(crate) fn is_over_system(&self) -> bool {
        self.is_over_system
    }

    /// Whether a database may only be opened through it by way of SQLite3MultipleCiphers: else what that would
    /// encrypt would be written as it is.
    pub(crate) fn goes_under_ciphers(&self) -> bool {
        self.goes_under_ciphers
    }

    /// What becomes of the locks on a database.
    pub(crate) fn protection(&self) -> Protection {
        self.protection
    }

    /// Counts a database opened through this VFS, until the result is dropped.
    pub(crate) fn count_database(&'static self) -> OpenDatabase {
        self.open_databases.fetch_add(1, Ordering::SeqCst);
        OpenDatabase(self)
    }
}

/// One database open through a VFS, which can not be unregistered meanwhile.
pub(crate) struct OpenDatabase(&'static Instance);

impl OpenDatabase {
    pub(crate) fn instance(&self) -> &'static Instance {
        self.0
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        self.0.open_databases.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A copy of `vfs` with nothing where its version has nothing.
///
/// # Safety
/// `vfs` is registered.
unsafe fn read_vfs(vfs: *const sqlite3_vfs) -> sqlite3_vfs {
    let mut copy = std::mem::MaybeUninit::<sqlite3_vfs>::zeroed();
    // SAFETY: an object of version 1 or 2 ends where the methods of the next begin; null is a
    // value of every field.
    unsafe {
        let bytes = match (*vfs).iVersion {
            ..2 => std::mem::offset_of!(sqlite3_vfs, xCurrentTimeInt64),
            2 => std::mem::offset_of!(sqlite3_vfs, xSetSystemCall),
            3.. => size_of::<sqlite3_vfs>(),
        };
        vfs.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), bytes);
        copy.assume_init()
    }
}

/// # Safety
/// `vfs` is the object of an [`Instance`].
unsafe fn instance(vfs: *mut sqlite3_vfs) -> &'static Instance {
    // SAFETY: pAppData was set to the instance, which lives for ever.
    unsafe { &*(*vfs).pAppData.cast::<Instance>() }
}

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> Rc {
    // SAFETY: SQLite passes our VFS and memory of our szOsFile.
    let instance = unsafe {
        (*file).pMethods = std::ptr::null();
        instance(vfs)
    };
    no_panic(SQLITE_ERROR, || {
        let uri = FileName { name, host: &instance.host };
        let plan = plan_open(&uri, flags, &instance.options);
        if let OpenPlan::Refuse(why) = &plan {
            instance.host.log(SQLITE_CANTOPEN, why);
            // SAFETY: the file is SQLite's memory, with nothing in it yet.
            return unsafe { file::refuse(file, instance, why, flags, out_flags) };
        }
        const BESIDE: c_int = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
        // SAFETY: SQLite passes null or a terminated name.
        let is_parents = flags & BESIDE != 0
            && flags & SQLITE_OPEN_READONLY == 0
            && unsafe { inherited::is_parents(name) };
        if is_parents {
            // SAFETY: as above: a parent's is not null.
            let path = sys::path_from(unsafe { CStr::from_ptr(name) });
            instance.host.log_about(SQLITE_IOERR, inherited::WHY, &path);
            return SQLITE_IOERR;
        }
        let mut base_flags = flags;
        // SAFETY: the arguments are SQLite's own; the name is the very pointer it passed, since
        // it reads the bytes around it.
        let rc = unsafe {
            let Some(open) = (*instance.base).xOpen else { return SQLITE_ERROR };
            open(instance.base, name, file, flags, &raw mut base_flags)
        };
        if !out_flags.is_null() {
            // SAFETY: SQLite passes null or an int.
            unsafe { *out_flags = base_flags };
        }
        if matches!(plan, OpenPlan::LeaveAlone) {
            return rc;
        }
        let path = match name.is_null() {
            true => Cow::Borrowed(Path::new("")),
            // SAFETY: SQLite passes null or a terminated name.
            false => sys::path_from(unsafe { CStr::from_ptr(name) }),
        };
        if rc != SQLITE_OK {
            let creates = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_CREATE;
            if flags & creates == creates {
                let why = "can not open the journal, without which nothing is written; writers need \
                           the right to create files there";
                instance.host.log_about(rc, why, &path);
            }
            return rc;
        }
        // SAFETY: the base has opened the file, whose memory has room for our state.
        unsafe {
            match plan {
                OpenPlan::Guard(settings) => {
                    file::install(file, instance, &path, name, flags | base_flags, settings)
                }
                _ => {
                    file::watch(file, instance, &path, flags);
                    rc
                }
            }
        }
    })
}

/// The file name of an open, with the URI parameters that lie behind it.
struct FileName<'h> {
    name: *const c_char,
    host: &'h Host,
}

impl Uri for FileName<'_> {
    fn is_null(&self) -> bool {
        self.name.is_null()
    }

    fn get(&self, key: &CStr) -> Option<&CStr> {
        // SAFETY: the planner asks only for main databases, whose name SQLite made.
        unsafe { self.host.uri_parameter(self.name, key) }
    }

    fn key(&self, n: usize) -> Option<&CStr> {
        // SAFETY: as above.
        unsafe { self.host.uri_key(self.name, c_int::try_from(n).ok()?) }
    }

    fn path(&self) -> Cow<'_, Path> {
        // SAFETY: as above: not null, terminated.
        sys::path_from(unsafe { CStr::from_ptr(self.name) })
    }
}

unsafe extern "C" fn x_sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    no_panic(microseconds, || {
        let asked = Duration::from_micros(microseconds.max(0).unsigned_abs().into());
        wait::sleep(asked, |duration| {
            if cfg!(windows) {
                // That of the win32 VFS is rounded up to the system's tick, of 15.6 ms mostly.
                return std::thread::sleep(duration);
            }
            let microseconds = c_int::try_from(duration.as_micros()).unwrap_or(c_int::MAX);
            // SAFETY: SQLite passes our VFS; the base gets itself.
            unsafe {
                let base = instance(vfs).base;
                if let Some(sleep) = (*base).xSleep {
                    sleep(base, microseconds);
                }
            }
        });
        microseconds
    })
}

unsafe extern "C" fn x_delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> Rc {
    no_panic(SQLITE_IOERR_DELETE, || {
        // SAFETY: SQLite passes our VFS and a terminated name; the base gets itself.
        unsafe {
            if inherited::is_parents(name) {
                return SQLITE_IOERR_DELETE;
            }
            let base = instance(vfs).base;
            (*base).xDelete.map_or(SQLITE_ERROR, |delete| delete(base, name, sync))
        }
    })
}

/// Methods that only go on to the base.
macro_rules! forward {
    ($(fn $ours:ident($($arg:ident: $type:ty),*) -> $ret:ty = $method:ident or $missing:expr;)*) => {$(
        unsafe extern "C" fn $ours(vfs: *mut sqlite3_vfs, $($arg: $type),*) -> $ret {
            // SAFETY: SQLite passes our VFS and what the method asks for; the base gets itself.
            unsafe {
                let base = instance(vfs).base;
                match (*base).$method {
                    Some(method) => method(base, $($arg),*),
                    None => $missing,
                }
            }
        }
    )*};
}

forward! {
    fn x_access(name: *const c_char, flags: c_int, out: *mut c_int) -> Rc = xAccess or SQLITE_ERROR;
    fn base_full_pathname(name: *const c_char, n: c_int, out: *mut c_char) -> Rc = xFullPathname or SQLITE_ERROR;
    fn x_dl_open(name: *const c_char) -> *mut c_void = xDlOpen or null_mut();
    fn x_dl_error(n: c_int, out: *mut c_char) -> () = xDlError or ();
    fn x_dl_sym(library: *mut c_void, symbol: *const c_char) -> sqlite3_syscall_ptr = xDlSym or None;
    fn x_dl_close(library: *mut c_void) -> () = xDlClose or ();
    fn x_randomness(n: c_int, out: *mut c_char) -> c_int = xRandomness or 0;
    fn x_current_time(out: *mut f64) -> Rc = xCurrentTime or SQLITE_ERROR;
    fn x_get_last_error(n: c_int, out: *mut c_char) -> Rc = xGetLastError or SQLITE_OK;
    fn x_current_time_int64(out: *mut i64) -> Rc = xCurrentTimeInt64 or SQLITE_ERROR;
    fn x_set_system_call(name: *const c_char, call: sqlite3_syscall_ptr) -> Rc = xSetSystemCall or SQLITE_ERROR;
    fn x_next_system_call(name: *const c_char) -> *const c_char = xNextSystemCall or std::ptr::null();
}

/// The base's, which resolves symbolic links. Those of Windows do not, so there it is done here.
unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    n: c_int,
    out: *mut c_char,
) -> Rc {
    // SAFETY: passed on.
    let rc = unsafe { base_full_pathname(vfs, name, n, out) };
    if cfg!(unix) || rc != SQLITE_OK {
        return rc;
    }
    no_panic(SQLITE_CANTOPEN, || {
        // SAFETY: the base has written a terminated name.
        let path = sys::path_from(unsafe { CStr::from_ptr(out) }).into_owned();
        if !path.is_absolute() {
            // A base that keeps its databases elsewhere than in files.
            return rc;
        }
        let (rc, why) = match sys::canonical(&path) {
            Ok(found) => {
                let found = found.as_os_str().as_encoded_bytes();
                if found.len() < usize::try_from(n).unwrap_or(0) {
                    // SAFETY: SQLite passes room for n bytes.
                    unsafe {
                        let out = out.cast::<u8>();
                        out.copy_from_nonoverlapping(found.as_ptr(), found.len());
                        out.add(found.len()).write(0);
                    }
                    return rc;
                }
                (SQLITE_CANTOPEN, "its name is too long".to_owned())
            }
            // Opening it will fail, or make a file of this very name.
            Err(error) if sys::is_absent(&error) => return rc,
            Err(error) => (
                SQLITE_CANTOPEN,
                format!(
                    "can not tell where its name leads: {error}; this user must be allowed to look \
                     there, and the drive must know GetFinalPathNameByHandle"
                ),
            ),
        };
        // SAFETY: SQLite passes our VFS.
        unsafe { instance(vfs) }.host.log_about(rc, &why, &path);
        rc
    })
}

unsafe extern "C" fn x_get_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
) -> sqlite3_syscall_ptr {
    // SAFETY: SQLite passes our VFS and a terminated name; the base gets itself.
    unsafe {
        if !name.is_null() && CStr::from_ptr(name) == MARK {
            // An address in place of a function's, for [`base_of_ours`], which never calls it.
            return std::mem::transmute::<*mut sqlite3_vfs, sqlite3_syscall_ptr>(
                instance(vfs).base,
            );
        }
        let base = instance(vfs).base;
        if (*base).iVersion < 3 {
            return None;
        }
        (*base).xGetSystemCall.and_then(|get| get(base, name))
    }
}

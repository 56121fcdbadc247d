//! Which SQLite a call is meant for, and registering the VFS with it.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use crate::{is_wanted, keeping_errno, tell};

const SQLITE_OK: c_int = 0;
const SQLITE_ERROR: c_int = 1;

/// The name of the extension, which lies beside this library.
const EXTENSION: &str = "libkanban_vfs.so";

/// As sqlite3_open(), for a caller at that address.
///
/// # Safety
/// As sqlite3_open(), <https://www.sqlite.org/c3ref/open.html>.
pub(crate) unsafe extern "C" fn open(
    name: *const c_char,
    connection: *mut *mut c_void,
    caller: *const c_void,
) -> c_int {
    type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
    let real = prepared(c"sqlite3_open", caller);
    // SAFETY: the function of that name is of that type; the caller's promise.
    unsafe {
        if real.is_null() {
            return nothing_there(connection);
        }
        std::mem::transmute::<*mut c_void, Open>(real)(name, connection)
    }
}

/// As sqlite3_open16(), for a caller at that address.
///
/// # Safety
/// As sqlite3_open16(), <https://www.sqlite.org/c3ref/open.html>.
pub(crate) unsafe extern "C" fn open16(
    name: *const c_void,
    connection: *mut *mut c_void,
    caller: *const c_void,
) -> c_int {
    type Open = unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> c_int;
    let real = prepared(c"sqlite3_open16", caller);
    // SAFETY: the function of that name is of that type; the caller's promise.
    unsafe {
        if real.is_null() {
            return nothing_there(connection);
        }
        std::mem::transmute::<*mut c_void, Open>(real)(name, connection)
    }
}

/// As sqlite3_open_v2(), for a caller at that address.
///
/// # Safety
/// As sqlite3_open_v2(), <https://www.sqlite.org/c3ref/open.html>.
pub(crate) unsafe extern "C" fn open_v2(
    name: *const c_char,
    connection: *mut *mut c_void,
    flags: c_int,
    vfs: *const c_char,
    caller: *const c_void,
) -> c_int {
    type Open =
        unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, *const c_char) -> c_int;
    let real = prepared(c"sqlite3_open_v2", caller);
    // SAFETY: the function of that name is of that type; the caller's promise.
    unsafe {
        if real.is_null() {
            return nothing_there(connection);
        }
        std::mem::transmute::<*mut c_void, Open>(real)(name, connection, flags, vfs)
    }
}

/// What an open answers where the process has no SQLite: somebody has asked dlsym(3) for the function and found ours.
///
/// # Safety
/// `connection` is null or may be written to.
unsafe fn nothing_there(connection: *mut *mut c_void) -> c_int {
    if !connection.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *connection = std::ptr::null_mut() };
    }
    SQLITE_ERROR
}

/// SQLite's function of that name for a caller at that address, after the VFS was registered with that SQLite.
fn prepared(name: &CStr, caller: *const c_void) -> *mut c_void {
    keeping_errno(|| {
        let real = find(name, caller);
        if !real.is_null() && is_wanted() {
            register(real);
        }
        real
    })
}

/// What the dynamic linker would have bound a caller to without this library: the next one in the scope of the whole
/// program, or else what the caller's own object has brought along. dlsym(3)
fn find(name: &CStr, caller: *const c_void) -> *mut c_void {
    // SAFETY: a terminated name, and handles that are good.
    unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        if !next.is_null() {
            return next;
        }
        let in_object = |object: *mut c_void| {
            if object.is_null() {
                return object;
            }
            let found = libc::dlsym(object, name.as_ptr());
            libc::dlclose(object);
            if is_ours(found) { std::ptr::null_mut() } else { found }
        };
        let found = object_at(caller).map_or(std::ptr::null_mut(), in_object);
        if !found.is_null() {
            return found;
        }
    }
    // A caller that asked dlsym(3) for the function, say: any SQLite of the process.
    let mut found = std::ptr::null_mut();
    each_object(&mut |path| {
        // SAFETY: a terminated path; nothing is loaded by this.
        let object = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if object.is_null() {
            return false;
        }
        // SAFETY: a good handle and a terminated name.
        let symbol = unsafe { libc::dlsym(object, name.as_ptr()) };
        // SAFETY: the handle is ours to close; the object stays loaded.
        unsafe { libc::dlclose(object) };
        if symbol.is_null() || is_ours(symbol) {
            return false;
        }
        found = symbol;
        true
    });
    found
}

/// What dladdr(3) says of an address.
fn info_of(address: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: all fields may be zero; the call fills them in.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        (libc::dladdr(address, &raw mut info) != 0 && !info.dli_fname.is_null()).then_some(info)
    }
}

/// A handle for the object that an address lies in, which dlclose(3) takes. `None` if it lies in none.
fn object_at(address: *const c_void) -> Option<*mut c_void> {
    let info = info_of(address)?;
    // SAFETY: the name is terminated; nothing is loaded by this.
    let object = unsafe { libc::dlopen(info.dli_fname, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    (!object.is_null()).then_some(object)
}

/// Whether an address lies in this library.
fn is_ours(address: *mut c_void) -> bool {
    let base = |address| info_of(address).map(|info| info.dli_fbase);
    base(address).is_some() && base(address) == base(is_ours as *const c_void)
}

/// Calls `f` with the path of each library of the process, until it is true. dl_iterate_phdr(3)
fn each_object(f: &mut dyn FnMut(&CStr) -> bool) {
    unsafe extern "C" fn one(info: *mut libc::dl_phdr_info, _: usize, paths: *mut c_void) -> c_int {
        // SAFETY: the C library passes an object, and what it was given for this call.
        unsafe {
            let name = (*info).dlpi_name;
            if !name.is_null() && *name != 0 {
                (*paths.cast::<Vec<CString>>()).push(CStr::from_ptr(name).to_owned());
            }
        }
        0
    }
    // The list is taken first: dlopen(3) must not be called meanwhile.
    let mut paths: Vec<CString> = Vec::new();
    // SAFETY: `one` takes such a list, which lives until the call is over.
    unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut paths).cast()) };
    let _ = paths.iter().any(|path| f(path));
}

/// A library was loaded with `RTLD_DEEPBIND`: if it has brought an SQLite along, registers the VFS with that.
pub(crate) fn loaded_deeply(library: *mut c_void) {
    if !is_wanted() {
        return;
    }
    keeping_errno(|| {
        // SAFETY: the caller has just got this handle from dlopen(3); a terminated name.
        let open = unsafe { libc::dlsym(library, c"sqlite3_open_v2".as_ptr()) };
        if !open.is_null() && !is_ours(open) {
            register(open);
        }
    });
}

/// How many copies of SQLite in one process are served. The extension tells four apart.
const MOST: usize = 8;

/// The copies of SQLite that were served, by the addresses at which their objects are loaded, 0 for none.
static SERVED: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];

/// Registers the VFS with the SQLite that a function belongs to, before any thread opens a database by it. Threads that open
/// the first one at once each register it, which is harmless: who comes second finds it there.
fn register(function: *const c_void) {
    let Some(info) = info_of(function) else { return };
    let base = info.dli_fbase as usize;
    if SERVED.iter().any(|copy| copy.load(Ordering::SeqCst) == base) {
        return;
    }
    // SAFETY: dladdr(3) gave a terminated name.
    let library = unsafe { CStr::from_ptr(info.dli_fname) };
    let registered = register_with(library);
    // It is not noted twice; if there is no place left, it is registered, and told of, at each open.
    let noted = SERVED.iter().find_map(|copy| {
        match copy.compare_exchange(0, base, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Some(true),
            Err(other) => (other == base).then_some(false),
        }
    });
    if let Err(why) = registered
        && noted != Some(false)
    {
        let library = library.to_string_lossy();
        tell::line(format_args!("{library}: goes on with SQLite's own VFS: {why}"));
    }
}

/// The thread that loads a library or forks, by its id; 0 for none.
static TURN: AtomicI32 = AtomicI32::new(0);

/// The right to load a library, and to fork: ld.so aborts a child that loads one if a thread of its parent was about to.
/// Nothing else is done while it is held, since a fork asks for it when it has the locks of the extension.
struct Turn;

impl Turn {
    /// Waits for it. `None` if this thread has it already: a signal has interrupted it, whose handler opens a database.
    fn take() -> Option<Self> {
        // SAFETY: the call takes nothing.
        let me = unsafe { libc::gettid() };
        loop {
            match TURN.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(Self),
                Err(other) if other == me => return None,
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.store(0, Ordering::SeqCst);
    }
}

/// Whether the thread that has the turn has it to fork.
static IS_FORKING: AtomicBool = AtomicBool::new(false);

/// Keeps each fork(2) apart from loading a library. pthread_atfork(3)
pub(crate) fn watch_forks() {
    extern "C" fn prepare() {
        if let Some(turn) = Turn::take() {
            std::mem::forget(turn);
            IS_FORKING.store(true, Ordering::SeqCst);
        }
    }
    extern "C" fn afterwards() {
        if IS_FORKING.swap(false, Ordering::SeqCst) {
            drop(Turn);
        }
    }
    // SAFETY: the functions stay: a preloaded library is never unloaded. If it fails for want of memory, so do forks.
    unsafe { libc::pthread_atfork(Some(prepare), Some(afterwards), Some(afterwards)) };
}

/// Registers the VFS with the SQLite of that file as its default one; if it fails, with the reason.
fn register_with(library: &CStr) -> Result<(), String> {
    type Register = unsafe extern "C" fn(*mut c_void, c_int, *mut c_char, usize) -> c_int;
    let extension = extension_path().ok_or("this library cannot tell where it is")?;
    let path = CString::new(extension.as_os_str().as_bytes()).map_err(|why| why.to_string())?;
    // SAFETY: terminated names and handles of dlopen(3), which are never closed: neither library is unloaded any more. The
    // function is of that type (include/kanban_vfs.h).
    unsafe {
        // Not by its name alone: a program may be loaded by a name that leads elsewhere from here.
        let turn = Turn::take();
        let sqlite = libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        let sqlite = if sqlite.is_null() { libc::RTLD_DEFAULT } else { sqlite };
        let extension = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if extension.is_null() {
            return Err(said(libc::dlerror(), "it cannot be loaded"));
        }
        drop(turn);
        let register = libc::dlsym(extension, c"kanban_vfs_register".as_ptr());
        if register.is_null() {
            return Err(said(libc::dlerror(), "it is another library"));
        }
        let register = std::mem::transmute::<*mut c_void, Register>(register);
        let mut message: [c_char; 500] = [0; 500];
        match register(sqlite, 1, message.as_mut_ptr(), message.len()) {
            SQLITE_OK => Ok(()),
            _ => Err(said(message.as_ptr(), "a panic")),
        }
    }
}

/// A message of C's, or what stands for none.
///
/// # Safety
/// `message` is null or terminated.
unsafe fn said(message: *const c_char, otherwise: &str) -> String {
    // SAFETY: the caller's promise.
    let text = (!message.is_null()).then(|| unsafe { CStr::from_ptr(message).to_string_lossy() });
    text.filter(|text| !text.is_empty())
        .map_or_else(|| otherwise.to_owned(), |text| text.into_owned())
}

/// The path of the extension.
fn extension_path() -> Option<PathBuf> {
    let info = info_of(extension_path as *const c_void)?;
    // SAFETY: dladdr(3) gave a terminated name.
    let mine = unsafe { CStr::from_ptr(info.dli_fname) };
    let mine = PathBuf::from(OsStr::from_bytes(mine.to_bytes()));
    Some(mine.with_file_name(EXTENSION))
}

/// Whether the extension is loaded in this process, by whatever way.
pub(crate) fn is_extension_loaded() -> bool {
    let mut is_loaded = false;
    each_object(&mut |path| {
        is_loaded = path.to_bytes().ends_with(EXTENSION.as_bytes());
        is_loaded
    });
    is_loaded
}

/// The entry point that SQLite derives from this library's name, for clients that can name none (node:sqlite): what the
/// extension's `sqlite3_kanbanvfs_default_init` does. <https://www.sqlite.org/loadext.html>
///
/// # Safety
/// SQLite calls it, with what it passes to extensions.
#[unsafe(no_mangle)]
unsafe extern "C" fn sqlite3_kanbanvfspreload_init(
    db: *mut c_void,
    message: *mut *mut c_char,
    api: *const c_void,
) -> c_int {
    type Init = unsafe extern "C" fn(*mut c_void, *mut *mut c_char, *const c_void) -> c_int;
    let path = extension_path().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let Some(path) = path else { return SQLITE_ERROR };
    // SAFETY: terminated names; the handle stays open. The function is of that type; SQLite's promise.
    unsafe {
        let extension = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if extension.is_null() {
            return SQLITE_ERROR;
        }
        let init = libc::dlsym(extension, c"sqlite3_kanbanvfs_default_init".as_ptr());
        if init.is_null() {
            return SQLITE_ERROR;
        }
        std::mem::transmute::<*mut c_void, Init>(init)(db, message, api)
    }
}

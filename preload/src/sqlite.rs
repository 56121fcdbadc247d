//! Finds the SQLite that a call is meant for, and registers the VFS with it.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::objects::{self, Object};
use crate::{interposed, is_wanted, keeping_errno, tell};

const SQLITE_OK: c_int = 0;
const SQLITE_ERROR: c_int = 1;

/// The name of the extension, which lies beside this library.
const EXTENSION: &str = "libkanban_vfs.so";

/// Like sqlite3_open() or sqlite3_open16(), the first two of [`OPENS`], for a caller at that
/// address.
///
/// # Safety
/// As for that function, <https://www.sqlite.org/c3ref/open.html>.
pub(crate) unsafe extern "C" fn open<const NTH: usize>(
    name: *const c_void,
    connection: *mut *mut c_void,
    caller: *const c_void,
) -> c_int {
    type Open = unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> c_int;
    let real = prepared(OPENS[NTH], caller);
    // SAFETY: the function of that name is of that type; the caller's promise.
    unsafe {
        if real.is_null() {
            return nothing_there(connection);
        }
        std::mem::transmute::<*mut c_void, Open>(real)(name, connection)
    }
}

/// Like sqlite3_open_v2(), for a caller at that address.
///
/// # Safety
/// As for sqlite3_open_v2(), <https://www.sqlite.org/c3ref/open.html>.
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

/// The answer to an open in a process without SQLite: a program asked dlsym(3) for the function and
/// found ours.
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

/// SQLite's function of that name for a caller at that address. The VFS is registered with that
/// SQLite first.
fn prepared(name: &'static CStr, caller: *const c_void) -> *mut c_void {
    keeping_errno(|| match find(name, caller as usize) {
        Found::In(copy, function) => {
            if is_wanted() {
                serve(&copy);
            }
            function as *mut c_void
        }
        Found::Elsewhere(function) => function,
        Found::Several => {
            static IS_TOLD: AtomicBool = AtomicBool::new(false);
            if !IS_TOLD.swap(true, Ordering::Relaxed) {
                let name = name.to_string_lossy();
                tell::line(format_args!(
                    "a call of {name} is refused: it does not show which of the SQLites of this process it is meant for; \
                     start this program without LD_PRELOAD"
                ));
            }
            std::ptr::null_mut()
        }
    })
}

/// The functions that open a database.
pub(crate) const OPENS: [&CStr; 3] = [c"sqlite3_open", c"sqlite3_open16", c"sqlite3_open_v2"];

/// Functions that every SQLite has. No other library that interposes SQLite's opens has them.
const OF_SQLITE: [&CStr; 2] = [c"sqlite3_prepare_v2", c"sqlite3_close"];

/// A copy of SQLite.
#[derive(Clone)]
struct Copy {
    /// Where its object is loaded.
    base: usize,
    /// That object's path; empty for the program.
    path: CString,
}

/// Which function a call is meant for.
enum Found {
    /// A copy's function.
    In(Copy, usize),
    /// The function that dlsym(3) found; null for none.
    Elsewhere(*mut c_void),
    /// Unknown. dlsym(3) does not find the SQLites of plugins that were loaded with `RTLD_LOCAL`.
    /// Or it may find another copy's function than the caller's, which would crash with the
    /// caller's connection.
    Several,
}

/// What the list of objects says about a call.
enum Meant {
    Is(Found),
    /// The call is meant for the function that the dynamic linker would bind that object to now, or
    /// that dlsym(3) would find.
    AsLinked(Option<CString>),
}

/// The function that the dynamic linker bound a caller to, or would have without this library.
///
/// If there is one copy of SQLite, the function is that copy's. If there are several, it is that of
/// the copy to which other functions of SQLite are bound in the caller's object. But the return
/// address may be in an object that does not use the function, if another object's tail call jumped
/// here. So when a second copy is seen, each object is bound to functions of this library that know
/// their copy ([`interposed::OF_COPIES`]).
fn find(name: &'static CStr, caller: usize) -> Found {
    let meant = {
        let _walk = Turn::take(&WALK);
        objects::with_objects(|age, read| {
            if caller >= MOST
                && let Some(only) = only_copy(age, name)
            {
                return Meant::Is(only);
            }
            meant(name, caller, age, &read())
        })
    };
    match meant {
        Meant::Is(found) => found,
        Meant::AsLinked(object) => as_linked(name, object.as_deref()),
    }
}

/// The address of the only copy of SQLite, the age of the list of objects at that time, and the
/// copy's opening functions.
static ONLY: [AtomicUsize; 6] = [const { AtomicUsize::new(0) }; 6];

/// The only copy's function, if the list is unchanged and the copy is served. The fields are read
/// and written in a fixed order.
fn only_copy(age: objects::Age, name: &CStr) -> Option<Found> {
    let [base, adds, subs, functions @ ..] =
        [0, 1, 2, 3, 4, 5].map(|nth: usize| ONLY[nth].load(Ordering::Relaxed));
    let nth = OPENS.iter().position(|open| *open == name)?;
    (base != 0 && (adds, subs) == (age.0 as usize, age.1 as usize) && functions[nth] != 0)
        .then(|| Found::In(Copy { base, path: CString::default() }, functions[nth]))
}

fn meant(name: &CStr, caller: usize, age: objects::Age, objects: &[Object<'_>]) -> Meant {
    let here = meant as *const () as usize;
    let others = || objects.iter().filter(|object| !object.contains(here));
    let found = |object: &Object<'_>, function| {
        let copy = Copy { base: object.base, path: object.path.to_owned() };
        Meant::Is(Found::In(copy, function))
    };
    if let Some(known) = COPIES.get(caller) {
        let base = known.base.load(Ordering::Relaxed);
        let copy = others().find(|object| object.base == base);
        let function = copy.and_then(|copy| Some((copy, copy.find(name)?)));
        return function
            .map_or(Meant::Is(Found::Several), |(copy, function)| found(copy, function));
    }
    let defining: Vec<_> = others().filter(|object| object.find(name).is_some()).collect();
    let is_whole = |object: &&Object<'_>| OF_SQLITE.iter().all(|name| object.find(name).is_some());
    let copies: Vec<_> = defining.iter().copied().filter(is_whole).collect();
    match copies[..] {
        [] => return Meant::AsLinked(None),
        [only] if defining.len() == 1 => {
            if is_served(only.base) {
                let functions = OPENS.map(|open| only.find(open).unwrap_or(0));
                // The address is written last, since a signal handler may open a database in
                // between.
                let all = [0, age.0 as usize, age.1 as usize].into_iter().chain(functions);
                let places = ONLY.iter().zip(all).chain([(&ONLY[0], only.base)]);
                places.for_each(|(place, value)| place.store(value, Ordering::SeqCst));
            }
            return only.find(name).map_or(Meant::AsLinked(None), |function| found(only, function));
        }
        // Another library interposes SQLite's functions, too.
        [_] => return Meant::AsLinked(None),
        _ => {}
    }
    // The copy to which each object that opens databases is bound, if another of the object's
    // functions shows it.
    let uses: Vec<_> = others()
        .filter_map(|object| {
            let slots = object.slots("sqlite3_");
            let (opens, rest): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|(name, _)| OPENS.contains(name));
            let copy_of = |(name, slot): &(&CStr, objects::Slot)| {
                let function = slot.get();
                copies.iter().position(|copy| copy.find(name) == Some(function))
            };
            let mut bound = rest.iter().filter_map(copy_of);
            let copy = bound.next().filter(|first| bound.all(|other| other == *first));
            (!opens.is_empty()).then_some((object, opens, copy))
        })
        .collect();
    let is_by_caller = |slot: &objects::Slot| {
        interposed::BY_CALLER.iter().position(|entry| *entry as usize == slot.get())
    };
    let calls_here = |opens: &[(&CStr, objects::Slot)]| {
        let calls = |slot: &objects::Slot| !slot.is_data && is_by_caller(slot).is_some();
        opens.iter().any(|(open, slot)| *open == name && calls(slot))
    };
    let is_callers = |object: &Object<'_>| object.contains(caller);
    let meant = match uses.iter().find(|(object, ..)| is_callers(object)) {
        Some((_, _, Some(copy))) => Some(*copy),
        Some((object, ..)) => return Meant::AsLinked(Some(object.path.to_owned())),
        None => {
            let mut jumps = uses.iter().filter(|(_, opens, _)| calls_here(opens));
            match (jumps.next(), jumps.next()) {
                // The caller asked dlsym(3) for the function.
                (None, _) => return Meant::AsLinked(None),
                (Some((object, _, None)), None) => {
                    return Meant::AsLinked(Some(object.path.to_owned()));
                }
                (Some((.., first)), _) => {
                    let all = uses.iter().filter(|(_, opens, _)| calls_here(opens));
                    first.filter(|_| all.into_iter().all(|(.., copy)| copy == first))
                }
            }
        }
    };
    for (_, opens, copy) in &uses {
        let Some(nth) = copy.and_then(|copy| number_of(copies[copy].base)) else { continue };
        for (_, slot) in opens {
            if let Some(open) = is_by_caller(slot) {
                let of_caller = interposed::BY_CALLER[open] as usize;
                slot.exchange(of_caller, interposed::OF_COPIES[nth][open] as usize);
            }
        }
    }
    let meant = meant.and_then(|nth| Some((copies[nth], copies[nth].find(name)?)));
    meant.map_or(Meant::Is(Found::Several), |(copy, function)| found(copy, function))
}

/// The function that dlsym(3) finds: the next one in the scope of the whole program, or else one of
/// the object's own dependencies.
fn as_linked(name: &CStr, object: Option<&CStr>) -> Found {
    // SAFETY: terminated names, and handles that are good.
    let function = unsafe {
        let mut function = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        if function.is_null()
            && let Some(object) = object
        {
            let object = libc::dlopen(object.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if !object.is_null() {
                function = libc::dlsym(object, name.as_ptr());
                libc::dlclose(object);
            }
        }
        function
    };
    in_copy(function).map_or(Found::Elsewhere(function), |copy| Found::In(copy, function as usize))
}

/// The copy of SQLite that a function belongs to; `None` if it belongs to no SQLite.
fn in_copy(function: *const c_void) -> Option<Copy> {
    let _walk = Turn::take(&WALK);
    objects::with_objects(|_, read| {
        let all = read();
        let object = all.iter().find(|object| object.contains(function as usize))?;
        let is_whole = OF_SQLITE.iter().all(|name| object.find(name).is_some());
        is_whole.then(|| Copy { base: object.base, path: object.path.to_owned() })
    })
}

/// A library was loaded with `RTLD_DEEPBIND`: if an SQLite came with it, registers the VFS with
/// that SQLite.
pub(crate) fn loaded_deeply(library: *mut c_void) {
    if !is_wanted() {
        return;
    }
    keeping_errno(|| {
        // SAFETY: the caller has just got this handle from dlopen(3); a terminated name.
        let open = unsafe { libc::dlsym(library, c"sqlite3_open_v2".as_ptr()) };
        if let Some(copy) = in_copy(open) {
            serve(&copy);
        }
    });
}

/// How many copies of SQLite in one process are served. The extension can tell four apart.
pub(crate) const MOST: usize = 8;

/// A known copy of SQLite.
struct Known {
    /// Where it is loaded; 0 for none.
    base: AtomicUsize,
    /// What was done with this copy.
    is: AtomicU8,
}

/// Nothing was tried yet.
const NEW: u8 = 0;
/// Another thread is loading the extension for it, and cannot go on at present.
const WAITS: u8 = 1;
/// The VFS was registered with it, or was refused.
const SERVED: u8 = 2;

static COPIES: [Known; MOST] =
    [const { Known { base: AtomicUsize::new(0), is: AtomicU8::new(NEW) } }; MOST];

/// The place of a copy in [`COPIES`]; `None` if no place is left.
fn number_of(base: usize) -> Option<usize> {
    COPIES.iter().position(|copy| {
        match copy.base.compare_exchange(0, base, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(other) => other == base,
        }
    })
}

/// Whether nothing is left to do for a copy.
fn is_served(base: usize) -> bool {
    number_of(base).is_some_and(|nth| COPIES[nth].is.load(Ordering::SeqCst) == SERVED)
}

/// Registers the VFS with a copy of SQLite, before any thread opens a database with it. Threads
/// that open the first database at the same time each register the VFS. That is harmless: all but
/// one find it registered.
fn serve(copy: &Copy) {
    let known = number_of(copy.base).map(|nth| &COPIES[nth]);
    if known.is_some_and(|known| known.is.load(Ordering::SeqCst) != NEW) {
        return;
    }
    let registered = match (is_loaded_at_start(copy), registers()) {
        (true, Some(register)) => Some(register_by(register, copy)),
        _ if is_single_threaded() => Some(load_and_register(copy)),
        _ => beside(copy.clone()),
    };
    // Reported once, or, if no place is left for the copy, at each open.
    let is_first = known.is_none_or(|known| {
        let now = if registered.is_some() { SERVED } else { WAITS };
        known.is.compare_exchange(NEW, now, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    });
    if is_first {
        let why = match registered {
            Some(Ok(())) => return,
            Some(Err(why)) => why,
            None => "a library is being loaded, whose constructor waits; what is opened until it is loaded \
                     goes past kanban"
                .to_owned(),
        };
        let library = copy.path.to_string_lossy();
        tell::line(format_args!("{library}: goes on with SQLite's own VFS: {why}"));
    }
}

/// How long an open waits, at most, for a library to be loaded: while a constructor runs, no other
/// library can be loaded. dlopen(3)
const PATIENCE: Duration = Duration::from_secs(1);

/// A task that one thread has for another.
struct Task {
    copy: Copy,
    result: Mutex<Option<Result<(), String>>>,
    is_done: Condvar,
}

/// Loads the extension and registers the VFS in a new thread, which waits for the dynamic linker in
/// place of this one. Returns the result; `None` if that thread still waits. (It is not a thread of
/// std, which calls dlsym(3) to create one.)
fn beside(copy: Copy) -> Option<Result<(), String>> {
    extern "C" fn work(task: *mut c_void) -> *mut c_void {
        // SAFETY: `beside` has made it of such a pointer.
        let task = unsafe { Arc::from_raw(task.cast::<Task>()) };
        let registered = load_and_register(&task.copy);
        if let Some(nth) = number_of(task.copy.base) {
            let known = &COPIES[nth].is;
            let _ = known.compare_exchange(WAITS, SERVED, Ordering::SeqCst, Ordering::SeqCst);
        }
        *task.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(registered);
        task.is_done.notify_all();
        std::ptr::null_mut()
    }
    let task = Arc::new(Task { copy, result: Mutex::new(None), is_done: Condvar::new() });
    let passed = Arc::into_raw(Arc::clone(&task)).cast_mut();
    // SAFETY: the calls fill in what they get. The thread takes no signals of the application: it
    // has them blocked, as it inherits that from this one.
    let made = unsafe {
        let [mut all, mut before]: [libc::sigset_t; 2] = std::mem::zeroed();
        let mut thread: libc::pthread_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let made =
            libc::pthread_create(&raw mut thread, std::ptr::null(), work, passed.cast()) == 0;
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if made {
            libc::pthread_detach(thread);
        } else {
            drop(Arc::from_raw(passed));
        }
        made
    };
    if !made {
        return Some(load_and_register(&task.copy));
    }
    let result = task.result.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = task.is_done.wait_timeout_while(result, PATIENCE, |result| result.is_none());
    let (mut result, _) = waited.unwrap_or_else(PoisonError::into_inner);
    result.take()
}

/// glibc's `__libc_single_threaded`; null if it does not have that.
static SINGLE_THREADED: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Whether this thread is the only one, so that no other has the dynamic linker's lock.
fn is_single_threaded() -> bool {
    let told = SINGLE_THREADED.load(Ordering::Relaxed);
    // SAFETY: a variable of the C library's, of that size.
    told.is_null() || unsafe { told.read_volatile() } != 0
}

/// The addresses of the copies that were loaded before the program began. They are never unloaded.
static AT_START: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];

fn is_loaded_at_start(copy: &Copy) -> bool {
    AT_START.iter().any(|base| base.load(Ordering::Relaxed) == copy.base)
}

/// Prepares everything that must not wait for the dynamic linker later. Called when this library is
/// loaded. If the program links an SQLite, this loads the extension, since there is no other thread
/// yet.
pub(crate) fn at_load() {
    // SAFETY: a terminated name.
    let told = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    SINGLE_THREADED.store(told.cast(), Ordering::Relaxed);
    if !is_wanted() {
        return;
    }
    let here = at_load as *const () as usize;
    let copies: Vec<_> = objects::with_objects(|_, read| {
        let all = read();
        let names = || OPENS.iter().chain(&OF_SQLITE);
        let is_copy = |object: &&Object<'_>| {
            !object.contains(here) && names().all(|name| object.find(name).is_some())
        };
        all.iter().filter(is_copy).map(|object| object.base).collect()
    });
    copies.iter().zip(&AT_START).for_each(|(base, place)| place.store(*base, Ordering::Relaxed));
    if !copies.is_empty() {
        // The first open reports an error.
        let _ = load_extension();
    }
}

/// A lock of this library, by the id of the thread that has it; 0 for none.
type Lock = AtomicI32;

/// Held by a thread that loads a library or forks.
static LOADING: Lock = Lock::new(0);

/// Held by a thread that walks the list of objects or forks: otherwise a child could find that list
/// locked for ever.
static WALK: Lock = Lock::new(0);

/// Holds a lock. A thread that holds [`LOADING`] may load a library, or fork: ld.so aborts a child
/// that loads a library if a thread of its parent was loading one. No other lock is taken
/// meanwhile, since a fork takes this lock when it has the extension's locks.
struct Turn(&'static Lock);

impl Turn {
    /// Waits for the lock. `None` if this thread already has it, because a signal handler that
    /// interrupted the thread opens a database.
    fn take(lock: &'static Lock) -> Option<Self> {
        Self::take_until(lock, || false)
    }

    /// Waits for the lock until `is_over`.
    fn take_until(lock: &'static Lock, mut is_over: impl FnMut() -> bool) -> Option<Self> {
        // SAFETY: the call takes nothing.
        let me = unsafe { libc::gettid() };
        loop {
            match lock.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(Self(lock)),
                Err(other) if other == me => return None,
                Err(_) if is_over() => return None,
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(0, Ordering::SeqCst);
    }
}

/// Keeps each fork(2) apart from the loading of a library, for at most [`PATIENCE`]: a constructor
/// that forks keeps all other threads from loading. pthread_atfork(3)
pub(crate) fn watch_forks() {
    extern "C" fn prepare() {
        let began = Instant::now();
        for lock in [&LOADING, &WALK] {
            std::mem::forget(Turn::take_until(lock, || began.elapsed() > PATIENCE));
        }
    }
    extern "C" fn in_parent() {
        // SAFETY: the call takes nothing.
        let me = unsafe { libc::gettid() };
        for lock in [&WALK, &LOADING] {
            let _ = lock.compare_exchange(me, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
    extern "C" fn in_child() {
        // There is no other thread.
        for lock in [&WALK, &LOADING] {
            lock.store(0, Ordering::SeqCst);
        }
        for copy in &COPIES {
            let _ = copy.is.compare_exchange(WAITS, NEW, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
    // SAFETY: the functions stay: a preloaded library is never unloaded. If this fails, memory is
    // so short that forks fail, too.
    unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
}

/// The extension's `kanban_vfs_register_by`; null until the extension is loaded.
static REGISTER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type Find = unsafe extern "C" fn(*const c_char, *mut c_void) -> *mut c_void;
type Register = unsafe extern "C" fn(Find, *mut c_void, c_int, *mut c_char, usize) -> c_int;

fn registers() -> Option<Register> {
    let found = REGISTER.load(Ordering::SeqCst);
    // SAFETY: the function is of that type (`src/register/extension.rs`).
    (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Register>(found) })
}

/// A function of the extension, which this loads; the reason if that fails.
fn of_extension(name: &CStr) -> Result<*mut c_void, String> {
    let extension = extension_path().ok_or("this library cannot tell where it is")?;
    let path = CString::new(extension.as_os_str().as_bytes()).map_err(|why| why.to_string())?;
    // SAFETY: terminated names and a handle of dlopen(3), which is never closed.
    unsafe {
        let turn = Turn::take(&LOADING);
        let extension = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if extension.is_null() {
            return Err(said(libc::dlerror(), "it cannot be loaded"));
        }
        drop(turn);
        let function = libc::dlsym(extension, name.as_ptr());
        match function.is_null() {
            true => Err(said(libc::dlerror(), "it is another library")),
            false => Ok(function),
        }
    }
}

/// The extension's function that registers the VFS; the reason if it cannot be loaded.
fn load_extension() -> Result<Register, String> {
    if registers().is_none() {
        REGISTER.store(of_extension(c"kanban_vfs_register_by")?, Ordering::SeqCst);
    }
    registers().ok_or_else(|| "it is another library".to_owned())
}

/// Loads the extension, if that is not done, and registers the VFS with a copy of SQLite. That copy
/// is never unloaded afterwards.
fn load_and_register(copy: &Copy) -> Result<(), String> {
    let register = load_extension()?;
    if !is_loaded_at_start(copy) {
        let turn = Turn::take(&LOADING);
        // SAFETY: a terminated name; the handle is never closed.
        unsafe { libc::dlopen(copy.path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        drop(turn);
    }
    register_by(register, copy)
}

/// Registers the VFS as the default one with a copy of SQLite; the reason if that fails.
fn register_by(register: Register, copy: &Copy) -> Result<(), String> {
    /// The address of a function of the copy of SQLite that is loaded at `base`.
    unsafe extern "C" fn of_copy(name: *const c_char, base: *mut c_void) -> *mut c_void {
        // SAFETY: the extension passes a terminated name.
        let name = unsafe { CStr::from_ptr(name) };
        let _walk = Turn::take(&WALK);
        let found = objects::with_objects(|_, read| {
            let all = read();
            all.iter().find(|object| object.base == base as usize)?.find(name)
        });
        found.unwrap_or(0) as *mut c_void
    }
    let mut message: [c_char; 500] = [0; 500];
    // SAFETY: the function is of that type; the place has that size.
    unsafe {
        match register(of_copy, copy.base as *mut c_void, 1, message.as_mut_ptr(), message.len()) {
            SQLITE_OK => Ok(()),
            _ => Err(said(message.as_ptr(), "a panic")),
        }
    }
}

/// A C string, or `otherwise` for null.
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
    // SAFETY: dladdr(3) fills in the struct, for which zeros are a value, with a terminated name.
    let mine = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        libc::dladdr(extension_path as *const c_void, &raw mut info);
        (!info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))?
    };
    Some(PathBuf::from(OsStr::from_bytes(mine.to_bytes())).with_file_name(EXTENSION))
}

/// Whether the extension is loaded in this process by any means.
pub(crate) fn is_extension_loaded() -> bool {
    let _walk = Turn::take(&WALK);
    objects::with_objects(|_, read| {
        read().iter().any(|object| object.path.to_bytes().ends_with(EXTENSION.as_bytes()))
    })
}

/// The entry point that SQLite derives from this library's name, for clients that can name none
/// (node:sqlite). It does what the extension's `sqlite3_kanbanvfs_default_init` does.
/// <https://www.sqlite.org/loadext.html>
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
    match of_extension(c"sqlite3_kanbanvfs_default_init") {
        // SAFETY: the function is of that type; SQLite's promise.
        Ok(init) => unsafe { std::mem::transmute::<*mut c_void, Init>(init)(db, message, api) },
        Err(_) => SQLITE_ERROR,
    }
}

//! `libkanban_vfs_preload.so`, for `LD_PRELOAD`: makes the VFS `kanban` the default one of every
//! SQLite that a program, or a library that it loads later, links dynamically. `kanban-vfs run`
//! sets the variable; children inherit it. ld.so(8)
//!
//! It is a small library of its own, not the extension: SQLite loads extensions with `RTLD_GLOBAL`.
//! If the extension exported SQLite's functions, it would interpose them wherever it is loaded.
//! This library loads the extension, `libkanban_vfs.so` beside it, only when the process opens a
//! database. A program that links SQLite gets it at the program's start, since later the dynamic
//! linker might be busy. So a program without SQLite gets only the few functions below.
//!
//! # What it interposes
//! | function | does |
//! |---|---|
//! | `sqlite3_open`, `sqlite3_open_v2`, `sqlite3_open16` | register the VFS with that SQLite before its first open (`sqlite.rs`) |
//! | `dlopen` with `RTLD_DEEPBIND`, as PHP loads its extensions | register the VFS with the SQLite that comes with the library, if one does: a library that is loaded like this does not see the functions above (`sqlite.rs`) |
//! | `fcntl`, `fcntl64` | if `KANBAN_REQUIRE=1`, report on standard error a database that is used without this VFS (`watch.rs`) |
//!
//! The VFS is registered at an open, not by a constructor, for two reasons. If a module of Python
//! or Ruby loads libsqlite3, this library's constructor runs before that. And a registration
//! initialises SQLite, after which SQLite refuses an application's sqlite3_config(). At the first
//! open neither matters.
//!
//! # What it cannot reach
//! An SQLite that is linked statically into a program or a module calls its own functions, which
//! nothing outside can replace: Node, apsw, most programs in Go and Rust. Their calls of fcntl(2)
//! still come here. A static program loads no library at all, and ld.so ignores `LD_PRELOAD` for a
//! program with the setuid bit.
//!
//! A program that looks for SQLite by a weak symbol finds the functions here, which then fail. If a
//! process has several SQLites, the very first open may not show which one is meant. Then it is
//! refused (`sqlite.rs`).
//!
//! With `KANBAN_VFS_DEFAULT=0` it does nothing.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod interposed;
mod objects;
#[path = "../../src/sys/printable.rs"]
mod printable;
mod sqlite;
mod tell;
mod watch;
#[path = "../../src/sys/unix/without_waiting.rs"]
#[allow(dead_code, reason = "the extension uses all of it")]
mod without_waiting;

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// The value of an environment variable, unless this program has the setuid bit. secure_getenv(3)
fn environment(name: &CStr) -> Option<&'static [u8]> {
    unsafe extern "C" {
        fn secure_getenv(name: *const c_char) -> *const c_char;
    }
    // SAFETY: a terminated name. A value stays until the program changes its environment, which C
    // programs do at their beginning, if ever.
    unsafe {
        let value = secure_getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}

/// Runs when the library is loaded. ld.so(8)
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        without_waiting::note_standard_error();
        watch::find();
        sqlite::watch_forks();
        sqlite::at_load();
    }
    at_load
};

/// Whether to make the VFS the default one here.
fn is_wanted() -> bool {
    environment(c"KANBAN_VFS_DEFAULT") != Some(b"0")
}

/// The C library's function: the next one after this library's that has one of these names, tried
/// in order. Kept in `known`. dlsym(3)
fn behind_us(known: &AtomicPtr<c_void>, names: &[&CStr]) -> *mut c_void {
    let found = known.load(Ordering::Relaxed);
    if !found.is_null() {
        return found;
    }
    // SAFETY: terminated names.
    let mut all = names.iter().map(|name| unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) });
    let found = all.find(|found| !found.is_null()).unwrap_or(std::ptr::null_mut());
    known.store(found, Ordering::Relaxed);
    found
}

/// Runs `f` and restores errno(3), which the caller of the C library's function looks at
/// afterwards.
fn keeping_errno<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: it is this thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let result = f();
        *libc::__errno_location() = errno;
        result
    }
}

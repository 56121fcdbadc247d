//! Functions with the names of functions of SQLite and the C library. Every library of the process
//! finds these first.
//!
//! The caller decides which SQLite is meant, so a function's first instructions add the caller's
//! return address to its arguments. The C library's dlopen(3) and dlsym(3) look at their caller's
//! address, too. So without `RTLD_DEEPBIND`, this jumps to dlopen(3) with the stack unchanged.

use std::arch::naked_asm;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::AtomicPtr;

use crate::{behind_us, sqlite, watch};

/// A function that takes SQLite's arguments and, in the register `$argument` after them, its
/// caller's address.
macro_rules! with_caller {
    ($name:ident, $with:path, x86_64: $x86_64:literal, aarch64: $aarch64:literal) => {
        /// Like SQLite's function of the same name, <https://www.sqlite.org/c3ref/open.html>.
        ///
        /// # Safety
        /// As SQLite's.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            naked_asm!("endbr64", concat!("mov ", $x86_64, ", [rsp]"), "jmp {with}", with = sym $with);
            #[cfg(target_arch = "aarch64")]
            naked_asm!("hint #34", concat!("mov ", $aarch64, ", x30"), "b {with}", with = sym $with);
        }
    };
}

with_caller!(sqlite3_open, sqlite::open::<0>, x86_64: "rdx", aarch64: "x2");
with_caller!(sqlite3_open16, sqlite::open::<1>, x86_64: "rdx", aarch64: "x2");
with_caller!(sqlite3_open_v2, sqlite::open_v2, x86_64: "r8", aarch64: "x4");

/// The same function for callers of copy `$nth` of SQLite. It adds that number in place of an
/// address.
macro_rules! of_copy {
    ($with:path, $nth:literal, x86_64: $x86_64:literal, aarch64: $aarch64:literal) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn of_copy() {
            #[cfg(target_arch = "x86_64")]
            naked_asm!("endbr64", concat!("mov ", $x86_64, ", {nth}"), "jmp {with}", nth = const $nth, with = sym $with);
            #[cfg(target_arch = "aarch64")]
            naked_asm!("hint #34", concat!("mov ", $aarch64, ", #{nth}"), "b {with}", nth = const $nth, with = sym $with);
        }
        of_copy
    }};
}

/// A function that opens.
type Entry = unsafe extern "C" fn();

macro_rules! of_copies {
    ($($nth:literal)*) => {
        [$([
            of_copy!(sqlite::open::<0>, $nth, x86_64: "rdx", aarch64: "x2"),
            of_copy!(sqlite::open::<1>, $nth, x86_64: "rdx", aarch64: "x2"),
            of_copy!(sqlite::open_v2, $nth, x86_64: "r8", aarch64: "x4"),
        ]),*]
    };
}

/// For each copy of SQLite, its opening functions in the order of [`sqlite::OPENS`].
pub(crate) const OF_COPIES: [[Entry; 3]; sqlite::MOST] = of_copies!(0 1 2 3 4 5 6 7);

/// The functions that find the copy from their caller, in the same order.
pub(crate) const BY_CALLER: [Entry; 3] = [sqlite3_open, sqlite3_open16, sqlite3_open_v2];

/// The C library's dlopen(3), once it is known.
static DLOPEN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// `RTLD_DEEPBIND` of glibc. musl has no such flag, and no program for musl passes it.
const DEEPBIND: c_int = 8;
#[cfg(target_env = "gnu")]
const _: () = assert!(DEEPBIND == libc::RTLD_DEEPBIND);

/// Like the C library's dlopen(3).
///
/// # Safety
/// As the C library's.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "endbr64",
        "test esi, {deepbind}",
        "jnz {deeply}",
        "mov rax, [rip + {dlopen}]",
        "test rax, rax",
        "jnz 2f",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {find}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "2: jmp rax",
        deepbind = const DEEPBIND,
        deeply = sym open_deeply,
        dlopen = sym DLOPEN,
        find = sym real_dlopen,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "hint #34",
        "tst w1, #{deepbind}",
        "b.ne {deeply}",
        "adrp x16, {dlopen}",
        "ldr x16, [x16, :lo12:{dlopen}]",
        "cbnz x16, 2f",
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "bl {find}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "2: br x16",
        deepbind = const DEEPBIND,
        deeply = sym open_deeply,
        dlopen = sym DLOPEN,
        find = sym real_dlopen,
    );
}

/// The C library's dlopen(3).
extern "C" fn real_dlopen() -> *mut c_void {
    behind_us(&DLOPEN, &[c"dlopen"])
}

/// Loads a library whose symbols are bound to its own dependencies first, so that it does not see
/// the functions of this file. The C library takes this library for the caller, and would use its
/// RUNPATH for a name without a slash. Such names are rare here, and get no special treatment.
///
/// # Safety
/// As the C library's.
unsafe extern "C" fn open_deeply(file: *const c_char, flags: c_int) -> *mut c_void {
    type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    // SAFETY: it is the C library's function, which is of that type.
    let real = unsafe { std::mem::transmute::<*mut c_void, Dlopen>(real_dlopen()) };
    // SAFETY: the caller's promise.
    let loaded = unsafe { real(file, flags) };
    if !loaded.is_null() {
        sqlite::loaded_deeply(loaded);
    }
    loaded
}

/// Like the C library's fcntl(2). That has a variable number of arguments, which stable Rust cannot
/// define. The third arrives in a register like any other on these machines (System V ABI, AMD64
/// and AArch64), whether it is a number or a pointer.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { watch::fcntl(descriptor, command, argument) }
}

/// Like the C library's: the name by which programs with 64-bit offsets call [`fcntl`].
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl64(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { watch::fcntl(descriptor, command, argument) }
}

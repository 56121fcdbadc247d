//! This process, its clock and its machine.

use std::ffi::{CStr, OsString};
use std::sync::OnceLock;

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

use crate::sys::ThreadUsage;

/// What the calling thread has done so far: here nobody tells how often it has slept.
pub(crate) fn thread_usage() -> Option<ThreadUsage> {
    None
}

/// This process's id. GetCurrentProcessId
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// The value of an environment variable.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Time since some moment, in ns, the same for all processes. QueryPerformanceCounter
#[doc(alias = "QueryPerformanceCounter")]
pub(crate) fn monotonic_ns() -> u64 {
    static PER_SECOND: OnceLock<u64> = OnceLock::new();
    let per_second = *PER_SECOND.get_or_init(|| {
        let mut frequency = 0;
        // SAFETY: a place for the number; the call has not failed since Windows XP.
        unsafe { QueryPerformanceFrequency(&raw mut frequency) };
        frequency.max(1) as u64
    });
    let mut count = 0;
    // SAFETY: a place for the number; the call has not failed since Windows XP.
    unsafe { QueryPerformanceCounter(&raw mut count) };
    (u128::from(count as u64) * 1_000_000_000 / u128::from(per_second)) as u64
}

/// The same.
pub(crate) use self::monotonic_ns as coarse_ns;
/// The same: no library shows a process another time.
pub(crate) use self::monotonic_ns as kernel_ns;
/// The same: all processes read it alike.
pub(crate) use self::monotonic_ns as shared_ns;

/// An id that differs for each boot of the machine: always `None`, since Windows does not tell.
pub(crate) fn boot_id() -> Option<u128> {
    None
}

/// The length in bytes beyond which this process may not write to a file: always `None`, since there is no such limit.
pub(crate) fn file_size_limit() -> Option<i64> {
    None
}

/// The address of the symbol `name` in `library` or, if that is null, in the program; null if it does not export it.
/// GetProcAddress
///
/// # Safety
/// `library` is null or what LoadLibrary gave.
pub(crate) unsafe fn find_symbol(
    library: *mut std::ffi::c_void,
    name: &CStr,
) -> *mut std::ffi::c_void {
    // SAFETY: the caller's promise; a null name stands for the program; a terminated name.
    let found = unsafe {
        let library = if library.is_null() { GetModuleHandleW(std::ptr::null()) } else { library };
        GetProcAddress(library, name.as_ptr().cast())
    };
    found.map_or(std::ptr::null_mut(), |function| function as *mut std::ffi::c_void)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_clock_goes_on() {
        let ns = monotonic_ns();
        std::thread::sleep(Duration::from_millis(50));
        assert!((40_000_000..60_000_000_000).contains(&(monotonic_ns() - ns)));
    }
}

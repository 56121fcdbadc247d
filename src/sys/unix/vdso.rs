//! The kernel's clock without a system call: the kernel maps a small library into each process. vdso(7)
//!
//! This reads that library's tables of symbols itself (elf(5)). dlsym(3) could wait for a lock that another thread of the
//! program holds while it loads this library.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicUsize, Ordering};

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// The function's name in the kernel's library.
const NAME: &CStr =
    if cfg!(target_arch = "aarch64") { c"__kernel_clock_gettime" } else { c"__vdso_clock_gettime" };

/// The kernel's function that reads a clock; `None` if the kernel has none for this process.
#[inline]
pub(super) fn clock_gettime() -> Option<ClockGettime> {
    /// Its address, or one of the two other values.
    static FOUND: AtomicUsize = AtomicUsize::new(UNKNOWN);
    const UNKNOWN: usize = 0;
    const NONE: usize = 1;
    let mut address = FOUND.load(Ordering::Relaxed);
    if address == UNKNOWN {
        // Two threads that look at once find the same.
        address = find().unwrap_or(NONE);
        FOUND.store(address, Ordering::Relaxed);
    }
    // SAFETY: it is the address of a function of that type, which stays mapped as long as the process lives.
    (address != NONE).then(|| unsafe { std::mem::transmute::<usize, ClockGettime>(address) })
}

/// The entries of a library's dynamic section that are read here. elf(5)
const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;

/// Whether the function has that name and that type. On other processors it has others.
const IS_KNOWN: bool =
    cfg!(all(target_pointer_width = "64", any(target_arch = "x86_64", target_arch = "aarch64")));

/// The address of [`NAME`].
#[cold]
fn find() -> Option<usize> {
    if !IS_KNOWN {
        return None;
    }
    // SAFETY: it takes a number.
    let image = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    if image == 0 {
        return None;
    }
    // SAFETY: the kernel says that its library is mapped there.
    let header: libc::Elf64_Ehdr = unsafe { read(image, 0) };
    if header.e_ident[..4] != *b"\x7fELF" {
        return None;
    }
    let (mut base, mut dynamic) = (None, None);
    for n in 0..usize::from(header.e_phnum) {
        // SAFETY: the header says that there are so many.
        let part: libc::Elf64_Phdr = unsafe { read(image + header.e_phoff as usize, n) };
        match part.p_type {
            libc::PT_LOAD if base.is_none() => {
                base = Some((image + part.p_offset as usize).wrapping_sub(part.p_vaddr as usize));
            }
            libc::PT_DYNAMIC => dynamic = Some(image + part.p_offset as usize),
            _ => {}
        }
    }
    let (base, dynamic) = (base?, dynamic?);
    let [mut names, mut symbols, mut hash, mut gnu_hash] = [None; 4];
    for n in 0.. {
        // SAFETY: the table ends with an entry of type 0.
        let [tag, value]: [u64; 2] = unsafe { read(dynamic, n) };
        let table = match tag {
            DT_NULL => break,
            DT_STRTAB => &mut names,
            DT_SYMTAB => &mut symbols,
            DT_HASH => &mut hash,
            DT_GNU_HASH => &mut gnu_hash,
            _ => continue,
        };
        *table = Some(base.wrapping_add(value as usize));
    }
    let (names, symbols) = (names?, symbols?);
    // SAFETY: the addresses are of such tables.
    let count = unsafe {
        match (hash, gnu_hash) {
            (Some(hash), _) => read::<u32>(hash, 1) as usize,
            (None, Some(hash)) => count_by_gnu_hash(hash),
            (None, None) => return None,
        }
    };
    (0..count).find_map(|n| {
        // SAFETY: the table has so many.
        let symbol: libc::Elf64_Sym = unsafe { read(symbols, n) };
        // SAFETY: a symbol's name is a terminated string in that table.
        let name = unsafe { CStr::from_ptr((names + symbol.st_name as usize) as *const _) };
        (symbol.st_shndx != 0 && name == NAME).then(|| base.wrapping_add(symbol.st_value as usize))
    })
}

/// How many symbols a library has, by its DT_GNU_HASH.
///
/// # Safety
/// The address is of such a table.
unsafe fn count_by_gnu_hash(hash: usize) -> usize {
    // SAFETY: the caller's promise: four numbers, a filter of 8 bytes for each of the third, a bucket for each of the first,
    // and a number for each symbol from the second on. The last of each bucket has bit 0.
    unsafe {
        let [buckets, first, filter]: [u32; 3] = read(hash, 0);
        let table = hash + 16 + 8 * filter as usize;
        let last = (0..buckets as usize).map(|n| read::<u32>(table, n)).max().unwrap_or(0);
        let Some(behind_first) = last.checked_sub(first) else { return first as usize };
        let chains = table + 4 * buckets as usize;
        let rest = (behind_first as usize..).take_while(|n| read::<u32>(chains, *n) & 1 == 0);
        last as usize + rest.count() + 1
    }
}

/// The `nth` of some values that lie at an address, one behind the other.
///
/// # Safety
/// They are there.
unsafe fn read<T>(address: usize, nth: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { (address as *const T).add(nth).read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's function tells the same time as its system call, of each clock that is asked for. Under valgrind and QEMU
    /// there is no such function.
    #[test]
    fn it_tells_the_time_of_the_system_call() {
        // SAFETY: it takes a number.
        let has_library = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } != 0;
        assert_eq!(clock_gettime().is_some(), has_library && IS_KNOWN);
        let Some(clock_gettime) = clock_gettime() else { return };
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
            let by_call = || {
                let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                // SAFETY: a place for the answer.
                unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut now) };
                (now.tv_sec, now.tv_nsec)
            };
            let before = by_call();
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a place for the answer.
            assert_eq!(unsafe { clock_gettime(clock, &raw mut now) }, 0);
            let after = by_call();
            assert!((before..=after).contains(&(now.tv_sec, now.tv_nsec)));
        }
    }
}

//! This process's memory, and which parts it shares with others: mmap(2), proc(5).

use std::io;

use super::descriptors::read_text;

/// Makes memory that this process shares with others private, with its present contents. mmap(2)
///
/// # Safety
/// `address` and `bytes` are of a mapping that can be written to, from the beginning of a page to the
/// end of one, and no other thread of this process uses it meanwhile.
#[doc(alias = "MAP_FIXED")]
pub(crate) unsafe fn make_private(address: *mut u8, bytes: usize) -> io::Result<()> {
    let mut copy = vec![0; bytes];
    // SAFETY: the caller's promise, and the copy has room. No reference is made to memory that other processes may write
    // to meanwhile; any bytes will do.
    unsafe { copy.as_mut_ptr().copy_from_nonoverlapping(address, bytes) };
    // SAFETY: the caller's promise: the new mapping replaces the old one, and nothing else.
    unsafe {
        let private = libc::mmap(
            address.cast(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        if private == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        address.copy_from_nonoverlapping(copy.as_ptr(), bytes);
    }
    Ok(())
}

/// The memory that this process shares with others: for each part, the address of its first byte and the one after its
/// last. Empty without a /proc. proc(5), /proc/PID/maps
pub(crate) fn shared_memory() -> Vec<(usize, usize)> {
    let maps = read_text("/proc/self/maps").unwrap_or_default();
    let shared = maps.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        fields.next()?.ends_with('s').then_some((address(start)?, address(end)?))
    });
    shared.collect()
}

/// The size of a page of memory in bytes. sysconf(3)
#[doc(alias = "_SC_PAGESIZE")]
pub(crate) fn page_bytes() -> usize {
    // SAFETY: the call takes a number, and cannot fail for this one.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

//! Which process runs, without a system call: madvise(2), MADV_WIPEONFORK.
//!
//! A fork handler does not run in each child: `_Fork`, vfork(2) and clone(2) call none. The kernel itself empties a page in
//! each child that has memory of its own.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::sys::fork;

/// A process, or several that share their memory. Compare only processes of which one descends from the other: if the two are
/// equal, they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OneProcess(u64);

/// Tells a process's id from a number of the page.
const BY_ID: u64 = 1 << 63;

impl OneProcess {
    /// The process that calls.
    pub(super) fn this() -> Self {
        match page().load(Ordering::Relaxed) {
            0 => Self(BY_ID | u64::from(std::process::id())),
            number => Self(number),
        }
    }

    /// Notes that this process is a child of fork(2). To be called after [`fork::begin_child`].
    pub(super) fn begin_child() {
        let page = PAGE.load(Ordering::Relaxed);
        if !page.is_null() && !std::ptr::eq(page, &raw const NO_PAGE) {
            // SAFETY: a page that stays mapped, in children too.
            unsafe { &*page }.store(number(), Ordering::Relaxed);
        }
    }
}

/// The number on this process's page, not 0.
fn number() -> u64 {
    fork::generation() + 1
}

/// The page, or [`NO_PAGE`]; null until the first call of [`page`]. It is never unmapped.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// Stands for a page that the kernel cannot make. It is always 0.
static NO_PAGE: AtomicU64 = AtomicU64::new(0);

/// The number that children find to be 0.
fn page() -> &'static AtomicU64 {
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        page = make();
    }
    // SAFETY: it is a static, or a page that stays mapped, in children too.
    unsafe { &*page }
}

#[cold]
fn make() -> *mut AtomicU64 {
    const SIZE: usize = size_of::<AtomicU64>();
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which replaces nothing.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, kind, -1, 0) };
    // SAFETY: the mapping is this function's.
    let advise = |advice| unsafe { libc::madvise(mapped, SIZE, advice) } == 0;
    // Some emulators (QEMU) accept any advice, and follow none.
    let is_emptied = || !advise(-1) && advise(libc::MADV_WIPEONFORK);
    let mut page = (&raw const NO_PAGE).cast_mut();
    if mapped != libc::MAP_FAILED && is_emptied() {
        page = mapped.cast();
        // SAFETY: it is mapped, and a page is aligned.
        unsafe { &*page }.store(number(), Ordering::Relaxed);
    }
    let none = std::ptr::null_mut();
    match PAGE.compare_exchange(none, page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => page,
        // Another thread was first. This page is not used, and stays mapped.
        Err(first) => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child in which no fork handler runs is another process than its parent.
    #[test]
    fn a_child_without_fork_handlers_is_another_process() {
        let parent = OneProcess::this();
        assert_eq!(parent, OneProcess::this());
        // SAFETY: the child only compares two numbers and exits.
        let child =
            unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
        if child == 0 {
            let is_other = OneProcess::this() != parent;
            // SAFETY: it takes a number.
            unsafe { libc::_exit(i32::from(!is_other)) };
        }
        let mut status = -1;
        // SAFETY: the child is this function's.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "{status}");
    }
}

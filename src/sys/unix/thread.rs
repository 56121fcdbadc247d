//! This thread, and a request to end it: pthreads(7), "Thread cancellation".

use std::cell::Cell;
use std::ffi::c_int;

// "C-unwind", since the C library ends a thread by unwinding its stack.
unsafe extern "C-unwind" {
    safe fn pthread_setcancelstate(state: c_int, previous: Option<&mut c_int>) -> c_int;
    #[cfg(target_os = "linux")]
    safe fn pthread_setcanceltype(kind: c_int, previous: Option<&mut c_int>) -> c_int;
    safe fn pthread_testcancel();
}

/// Keeps this thread from being ended by pthread_cancel(3) until it is dropped. A request that comes meanwhile stays:
/// the next cancellation point after that ends the thread. pthread_setcancelstate(3)
///
/// The C library unwinds the stack of the thread that it ends, and std::panic::catch_unwind ends
/// the process when it meets that. So code that catches panics holds one of these for that time.
#[doc(alias = "PTHREAD_CANCEL_DISABLE")]
pub(crate) struct Uncancelled {
    previous: c_int,
}

impl Uncancelled {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        let mut previous = DISABLE;
        pthread_setcancelstate(DISABLE, Some(&mut previous));
        Self { previous }
    }
}

impl Drop for Uncancelled {
    #[inline(always)]
    fn drop(&mut self) {
        pthread_setcancelstate(self.previous, None);
    }
}

/// PTHREAD_CANCEL_DISABLE
const DISABLE: c_int = if cfg!(target_vendor = "apple") { 0 } else { 1 };

/// [`Uncancelled`], while this thread sleeps, except in [`AsBefore`].
pub(crate) struct UncancelledSleep {
    _uncancelled: Uncancelled,
}

thread_local! {
    /// What pthread_setcancelstate(3) has said when the sleep began. A signal handler that jumps out of it leaves it here,
    /// until this thread sleeps again.
    static BEFORE_THE_SLEEP: Cell<c_int> = const { Cell::new(DISABLE) };
}

impl UncancelledSleep {
    pub(crate) fn begin() -> Self {
        let uncancelled = Uncancelled::begin();
        BEFORE_THE_SLEEP.set(uncancelled.previous);
        Self { _uncancelled: uncancelled }
    }
}

impl Drop for UncancelledSleep {
    fn drop(&mut self) {
        BEFORE_THE_SLEEP.set(DISABLE);
    }
}

/// As long as this lives, the thread's cancellation state is the one before its [`UncancelledSleep`], so that a signal handler
/// which jumps out of the sleep by longjmp(3) leaves it so. For one system call by syscall(2), which is no cancellation point:
/// the call itself does not end the thread. If the thread can be cancelled at any moment (PTHREAD_CANCEL_ASYNCHRONOUS), its
/// state does not change.
///
/// A signal handler that runs meanwhile may call a cancellation point. If somebody has just asked for the thread's end, so that
/// the system call has not returned yet, that ends the process, as pthread_exit(3) in the handler does (`docs/guarantees.md`).
#[cfg(target_os = "linux")]
pub(super) struct AsBefore {
    is_changed: bool,
}

#[cfg(target_os = "linux")]
impl AsBefore {
    pub(super) fn begin() -> Self {
        const DEFERRED: c_int = 0;
        let before = BEFORE_THE_SLEEP.get();
        if before == DISABLE {
            return Self { is_changed: false };
        }
        let mut kind = DEFERRED;
        pthread_setcanceltype(DEFERRED, Some(&mut kind));
        pthread_setcanceltype(kind, None);
        let is_changed = kind == DEFERRED;
        if is_changed {
            pthread_setcancelstate(before, None);
        }
        Self { is_changed }
    }
}

#[cfg(target_os = "linux")]
impl Drop for AsBefore {
    fn drop(&mut self) {
        if self.is_changed {
            pthread_setcancelstate(DISABLE, None);
        }
    }
}

/// Ends this thread if somebody has asked for that. pthread_testcancel(3)
///
/// Must not be called where anything would have to be dropped, nor below std::panic::catch_unwind.
pub(crate) fn end_if_cancelled() {
    pthread_testcancel();
}

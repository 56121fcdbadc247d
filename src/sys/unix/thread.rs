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

/// Keeps this thread from being ended by pthread_cancel(3) until this is dropped. A request that comes meanwhile stays pending:
/// the next cancellation point afterwards ends the thread. pthread_setcancelstate(3)
///
/// The C library unwinds the stack of a thread that it ends, and std::panic::catch_unwind ends the process when it meets that.
/// So code that catches panics holds an [`Uncancelled`] meanwhile.
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

/// [`Uncancelled`] while this thread sleeps, except within [`AsBefore`].
pub(crate) struct UncancelledSleep {
    _uncancelled: Uncancelled,
}

thread_local! {
    /// The cancellation state when the sleep began, from pthread_setcancelstate(3). If a signal handler jumps out of the sleep,
    /// the value stays until this thread sleeps again.
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

/// While this lives, the thread has the cancellation state from before its [`UncancelledSleep`]. So a signal handler that jumps
/// out of the sleep by longjmp(3) leaves it in that state. It is for one system call by syscall(2), which is no cancellation
/// point: the call itself does not end the thread. If the thread can be cancelled at any moment (PTHREAD_CANCEL_ASYNCHRONOUS),
/// its state does not change.
///
/// A signal handler that runs meanwhile may call a cancellation point. If a cancellation was just requested, so that the system
/// call has not returned yet, that ends the process, as pthread_exit(3) in the handler does (`docs/guarantees.md`).
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

/// Ends this thread if its cancellation was requested. pthread_testcancel(3)
///
/// Must not be called where something would have to be dropped, nor below std::panic::catch_unwind.
pub(crate) fn end_if_cancelled() {
    pthread_testcancel();
}

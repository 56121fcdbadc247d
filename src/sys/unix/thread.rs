//! This thread, and a request to end it: pthreads(7), "Thread cancellation".

#[cfg(not(target_os = "android"))]
use std::ffi::c_int;

// "C-unwind", since the C library ends a thread by unwinding its stack.
#[cfg(not(target_os = "android"))]
unsafe extern "C-unwind" {
    safe fn pthread_setcancelstate(state: c_int, previous: Option<&mut c_int>) -> c_int;
    safe fn pthread_testcancel();
}

/// Keeps this thread from being ended by pthread_cancel(3) until it is dropped. A request that comes meanwhile stays:
/// the next cancellation point after that ends the thread. pthread_setcancelstate(3)
///
/// The C library unwinds the stack of the thread that it ends, and std::panic::catch_unwind ends the process when it
/// meets that. So whoever catches panics keeps the thread for so long.
#[doc(alias = "PTHREAD_CANCEL_DISABLE")]
pub(crate) struct Uncancelled {
    #[cfg(not(target_os = "android"))]
    previous: c_int,
}

#[cfg(not(target_os = "android"))]
impl Uncancelled {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        const DISABLE: c_int = if cfg!(target_vendor = "apple") { 0 } else { 1 };
        let mut previous = DISABLE;
        pthread_setcancelstate(DISABLE, Some(&mut previous));
        Self { previous }
    }
}

#[cfg(not(target_os = "android"))]
impl Drop for Uncancelled {
    #[inline(always)]
    fn drop(&mut self) {
        pthread_setcancelstate(self.previous, None);
    }
}

/// Ends this thread if somebody has asked for that. pthread_testcancel(3)
///
/// Must not be called where anything would have to be dropped, nor below std::panic::catch_unwind.
#[cfg(not(target_os = "android"))]
pub(crate) fn end_if_cancelled() {
    pthread_testcancel();
}

/// Android's threads cannot be cancelled.
#[cfg(target_os = "android")]
impl Uncancelled {
    pub(crate) fn begin() -> Self {
        Self {}
    }
}

/// Does nothing: Android's threads cannot be cancelled.
#[cfg(target_os = "android")]
pub(crate) fn end_if_cancelled() {}

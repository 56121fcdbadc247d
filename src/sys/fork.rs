//! Which process made a thing: fork(2). A child inherits its parent's memory and descriptors, and must not
//! use them as its own (<https://www.sqlite.org/howtocorrupt.html> 2.6).
//!
//! Windows has no fork.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between the process that loaded this library and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between the process that loaded this library and this one. So a child's number differs from its
/// parent's.
#[inline]
pub(crate) fn generation() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// A value that only the process that made it may use or drop. In a child of that process, a drop
/// does nothing.
pub(crate) struct Own<T> {
    /// Present until this is dropped.
    value: Option<T>,
    /// The [`generation`] of the process that made it.
    forks: u64,
}

impl<T> Own<T> {
    /// A value of this process.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), forks: FORKS.load(Ordering::Relaxed) }
    }

    /// The value, in the process that made it; `None` in a child.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        (self.forks == FORKS.load(Ordering::Relaxed)).then_some(self)
    }

    /// The value, to change it, in the process that made it; `None` in a child.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        if self.forks == FORKS.load(Ordering::Relaxed) { self.value.as_mut() } else { None }
    }
}

impl<T> Deref for Own<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("the value is taken by drop only")
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.get().is_none() {
            std::mem::forget(self.value.take());
        }
    }
}

/// A mutex that a child can unlock after a fork although other threads of the parent waited for it. parking_lot's
/// mutex would look for them in a table of waiters, which another thread may have locked at the fork.
pub(crate) struct ForkMutex<T>(std::sync::Mutex<T>);

/// What a [`ForkMutex`] protects, while it is locked.
pub(crate) type ForkGuard<T> = std::sync::MutexGuard<'static, T>;

impl<T> ForkMutex<T> {
    /// An unlocked mutex.
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Locks the mutex; `None` if it is locked already.
    pub(crate) fn try_lock(&'static self) -> Option<ForkGuard<T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for the mutex and locks it.
    pub(crate) fn lock(&'static self) -> ForkGuard<T> {
        // No statement leaves the protected value inconsistent, so a panic does not either.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Notes that this process is a child of fork(2): what its parent made is not its own. The fork handler calls this in
/// the child, before anything else of this module.
#[cfg(unix)]
pub(crate) fn begin_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A child drops what its parent made, which must not close or unlock anything. The process that made it drops it
    /// as usual.
    #[test]
    fn a_child_forgets_what_its_parent_has_made() {
        struct Made<'c>(&'c Cell<bool>);
        impl Drop for Made<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let now = FORKS.load(Ordering::Relaxed);
        for (forks, is_own) in [(now, true), (now + 1, false)] {
            let dropped = Cell::new(false);
            let mut made = Own { value: Some(Made(&dropped)), forks };
            assert_eq!((made.get().is_some(), made.get_mut().is_some()), (is_own, is_own));
            drop(made);
            assert_eq!(dropped.get(), is_own);
        }
    }
}

//! Which connection a thread sleeps for: the one that was last refused a lock on this thread.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use super::Shared;
use super::busy_handler::BusyHandler;
use crate::sys::fork::Own;

thread_local! {
    /// The connection that this thread chose last, in the process that opened it.
    static LAST: Cell<Option<Own<Weak<Shared>>>> = const { Cell::new(None) };
    /// Where the busy handler was when this thread's last wait ended with the lock, and whose handler it is:
    /// [`crate::connection::BaseFile::user`].
    static LEFT_OVER: Cell<(BusyHandler, usize)> = const { Cell::new((BusyHandler::NONE, 0)) };
    static SLEEPER: Sleeper =
        const { Sleeper {
            has_last: Cell::new(false),
            left_over: Cell::new(NONE),
            chosen: Cell::new(std::ptr::null()),
        } };
}

/// The part of [`LAST`] that each transaction reads and changes, so it must cost next to nothing.
struct Sleeper {
    /// Whether this thread sleeps for the chosen connection, if it sleeps.
    has_last: Cell<bool>,
    /// Whether [`LEFT_OVER`] belongs to the statement that runs: [`NONE`], [`THERE`] or [`SET_ASIDE`].
    left_over: Cell<u8>,
    /// The address of the chosen connection, to compare. No other has it as long as [`LAST`] keeps the memory.
    chosen: Cell<*const Shared>,
}

/// It does not: nothing was left over, it was taken, or the statement has committed or got two more locks since.
const NONE: u8 = 0;
/// It does.
const THERE: u8 = 1;
/// One more lock was acquired since. If that lock is released at once, for a stale snapshot, the statement goes on, and
/// [`LEFT_OVER`] belongs to it.
const SET_ASIDE: u8 = 2;

/// A number that no other living thread has.
pub(super) fn this_thread() -> usize {
    SLEEPER.with(|sleeper| std::ptr::from_ref(sleeper).addr())
}

/// From here on, this thread sleeps for none of our connections, and no wait continues another.
pub(crate) fn forget_on_this_thread() {
    SLEEPER.with(|sleeper| {
        sleeper.has_last.set(false);
        sleeper.left_over.set(NONE);
    });
}

/// From here on, this thread sleeps for none of our connections. The statement that runs goes on.
pub(super) fn choose_none() {
    SLEEPER.with(|sleeper| sleeper.has_last.set(false));
}

/// A connection has the lock: this thread sleeps for none, unless [`released_at_once`] follows.
#[inline]
pub(super) fn acquired() {
    SLEEPER.with(|sleeper| {
        sleeper.has_last.set(false);
        // Each write transaction comes here: no branch.
        sleeper.left_over.set((sleeper.left_over.get() & THERE) * SET_ASIDE);
    });
}

/// The lock was released at once, perhaps for a stale snapshot. What was left over then still belongs to the statement that
/// runs. Returns whether there is anything.
#[inline]
pub(super) fn released_at_once() -> bool {
    SLEEPER.with(|sleeper| {
        let is_there = sleeper.left_over.get() != NONE;
        sleeper.left_over.set(if is_there { THERE } else { NONE });
        is_there
    })
}

/// A wait of this thread ended with the lock, for a file of the `sqlite3` at `user`.
pub(super) fn leave_over(handler: BusyHandler, user: usize) {
    let is_kept = LEFT_OVER.try_with(|cell| cell.set((handler, user))).is_ok();
    SLEEPER.with(|sleeper| sleeper.left_over.set(if is_kept { THERE } else { NONE }));
}

/// Where the handler was when the last wait ended, if the same statement of the `sqlite3` at `user` waited then.
pub(super) fn take_left_over(user: usize) -> Option<BusyHandler> {
    let is_there = SLEEPER.with(|sleeper| sleeper.left_over.replace(NONE) == THERE);
    let left_over = is_there.then(|| LEFT_OVER.try_with(Cell::get).ok()).flatten();
    left_over.filter(|(_, of)| *of == user).map(|(handler, _)| handler)
}

/// The connection that this thread sleeps for, in the process that opened it.
pub(super) fn last() -> Option<Arc<Shared>> {
    if !SLEEPER.with(|sleeper| sleeper.has_last.get()) {
        return None;
    }
    // An error: the thread is ending, and `LAST` is gone.
    let last = LAST.try_with(|cell| {
        let last = cell.take();
        let shared = last.as_ref().and_then(Own::get).and_then(Weak::upgrade);
        cell.set(last);
        shared
    });
    last.ok().flatten()
}

/// Makes this thread sleep for `shared` again, if it is `thread` and chose `shared` last. Returns whether it does.
#[inline]
pub(super) fn choose_again(thread: usize, shared: &Arc<Shared>) -> bool {
    SLEEPER.with(|sleeper| {
        let is_chosen = thread == std::ptr::from_ref(sleeper).addr()
            && sleeper.chosen.get() == Arc::as_ptr(shared);
        if is_chosen {
            sleeper.has_last.set(true);
        }
        is_chosen
    })
}

/// Makes this thread sleep for a connection, unless the thread is about to end.
pub(super) fn choose(shared: &Arc<Shared>) {
    let last = Own::new(Arc::downgrade(shared));
    let is_kept = LAST.try_with(|cell| cell.set(Some(last))).is_ok();
    let address = if is_kept { Arc::as_ptr(shared) } else { std::ptr::null() };
    SLEEPER.with(|sleeper| {
        sleeper.chosen.set(address);
        sleeper.has_last.set(is_kept);
    });
}

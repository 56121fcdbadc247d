//! Which connection a thread sleeps for, if it is to sleep: the one whose lock was the last to be refused on it.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use super::Shared;
use super::busy_handler::BusyHandler;
use crate::sys::fork::Own;

thread_local! {
    /// The connection that this thread has chosen last, in the process that opened it.
    static LAST: Cell<Option<Own<Weak<Shared>>>> = const { Cell::new(None) };
    /// Where the busy handler was when the last wait of this thread has ended with the lock, and whose it is:
    /// [`crate::connection::BaseFile::user`].
    static LEFT_OVER: Cell<(BusyHandler, usize)> = const { Cell::new((BusyHandler::NONE, 0)) };
    static SLEEPER: Sleeper =
        const { Sleeper {
            has_last: Cell::new(false),
            left_over: Cell::new(NONE),
            chosen: Cell::new(std::ptr::null()),
        } };
}

/// What each transaction asks about [`LAST`] and changes, so that it must cost next to nothing.
struct Sleeper {
    /// Whether this thread sleeps for the chosen connection, if it is to sleep.
    has_last: Cell<bool>,
    /// Whether [`LEFT_OVER`] is of the statement that runs: [`NONE`], [`THERE`] or [`SET_ASIDE`].
    left_over: Cell<u8>,
    /// The address of the chosen connection, to compare. No other has it as long as [`LAST`] keeps the memory.
    chosen: Cell<*const Shared>,
}

/// It is not: nothing was left over, it was taken, or the statement has committed or got two more locks since.
const NONE: u8 = 0;
/// It is.
const THERE: u8 = 1;
/// One more lock was acquired since. If that is released at once, for a stale snapshot, the statement goes on, and
/// [`LEFT_OVER`] is of it.
const SET_ASIDE: u8 = 2;

/// A number that no other living thread has.
pub(super) fn this_thread() -> usize {
    SLEEPER.with(|sleeper| std::ptr::from_ref(sleeper).addr())
}

/// From here on, this thread sleeps for none of our connections, and no wait goes on from another.
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

/// A connection has the lock: this thread sleeps for none, unless that is [`released_at_once`].
#[inline]
pub(super) fn acquired() {
    SLEEPER.with(|sleeper| {
        sleeper.has_last.set(false);
        // Each write transaction comes here: no branch.
        sleeper.left_over.set((sleeper.left_over.get() & THERE) * SET_ASIDE);
    });
}

/// The lock was released at once, perhaps for a stale snapshot: then what was left over is still of the statement that runs.
/// Whether there is something.
#[inline]
pub(super) fn released_at_once() -> bool {
    SLEEPER.with(|sleeper| {
        let is_there = sleeper.left_over.get() != NONE;
        sleeper.left_over.set(if is_there { THERE } else { NONE });
        is_there
    })
}

/// A wait of this thread has ended with the lock, for a file of that database connection.
pub(super) fn leave_over(handler: BusyHandler, user: usize) {
    let is_kept = LEFT_OVER.try_with(|cell| cell.set((handler, user))).is_ok();
    SLEEPER.with(|sleeper| sleeper.left_over.set(if is_kept { THERE } else { NONE }));
}

/// Where the handler was when the wait before ended, if that was the same statement's, of this database connection.
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
    // An error: while the thread ends there is none any more.
    let last = LAST.try_with(|cell| {
        let last = cell.take();
        let shared = last.as_ref().and_then(Own::get).and_then(Weak::upgrade);
        cell.set(last);
        shared
    });
    last.ok().flatten()
}

/// Makes this thread sleep for `shared` again, if it is the thread that used it last and had chosen it last. Whether it
/// did.
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

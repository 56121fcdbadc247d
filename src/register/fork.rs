//! A child of fork(2) shares its parent's open file descriptions, and so its locks
//! (<https://www.sqlite.org/howtocorrupt.html> 2.6). An unlock in the child would release the
//! parent's lock, and a child that lives on would keep the locks of a parent that died.
//!
//! So the child at once closes its copies, which leaves the parent's locks as they are. Afterwards
//! neither its inherited connections ([`crate::shim::inherited`]) nor SQLite's book-keeping of
//! locks ([`crate::guard::cancellation`]) use them.
//!
//! Windows has no fork.
//!
//! # The three handlers
//! fork(2) calls them in the thread that forks, by pthread_atfork(3).
//!
//! | handler | is called | and |
//! |---|---|---|
//! | `prepare` | before the fork | takes every lock of the process, so that the child finds what they protect in a consistent state |
//! | `parent` | afterwards, in the parent | releases them |
//! | `child` | afterwards, in the child, which has only this thread | releases them, and abandons what it inherited |
//!
//! `prepare` takes the locks in the order in which code that holds one takes another. The lock of
//! registrations comes first, since a registration takes all others. Then come the locks of open
//! files, of databases, of event logs, of the tables of locks, of directories, and of the log. The
//! child must not call SQLite, whose mutexes other threads of the parent may have held, nor wait
//! for any lock.

use std::io;

/// Makes every later child of this process abandon what it inherits. Call this before the first
/// database is opened.
///
/// # Errors
/// What pthread_atfork(3) answers: it is out of memory.
#[cfg(unix)]
pub(crate) fn watch() -> io::Result<()> {
    use std::any::Any;
    use std::cell::RefCell;
    use std::sync::OnceLock;

    use crate::guard::cancellation;
    use crate::lock::database;
    use crate::log;
    use crate::recorder;
    use crate::shim::{self, inherited};
    use crate::sys::{self, fork};

    static WATCHING: OnceLock<Result<(), i32>> = OnceLock::new();
    thread_local! {
        /// The locks of this process, while this thread forks.
        static HELD: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    }
    extern "C" fn prepare() {
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            held.push(Box::new(super::hold_for_fork()));
            held.push(Box::new(shim::hold_for_fork()));
            held.push(Box::new(inherited::hold_for_fork()));
            held.push(Box::new(database::hold_for_fork()));
            held.push(Box::new(recorder::hold_for_fork()));
            held.push(Box::new(cancellation::hold_for_fork()));
            held.push(Box::new(sys::hold_directories()));
            held.push(Box::new(log::hold_for_fork()));
        });
    }
    extern "C" fn parent() {
        let _ = HELD.try_with(|held| held.borrow_mut().clear());
    }
    extern "C" fn child() {
        let _uncancelled = sys::Uncancelled::begin();
        fork::begin_child();
        sys::forget_pid();
        parent();
        database::abandon_inherited();
        cancellation::abandon_inherited();
        inherited::abandon();
    }
    WATCHING
        .get_or_init(|| {
            sys::at_fork(prepare, parent, child)
                .map_err(|error| error.raw_os_error().unwrap_or_default())
        })
        .map_err(io::Error::from_raw_os_error)
}

/// Does nothing: Windows has no fork.
#[cfg(windows)]
pub(crate) fn watch() -> io::Result<()> {
    Ok(())
}

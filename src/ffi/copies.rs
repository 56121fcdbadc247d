//! The copies of SQLite in this process. A callback that is not told which copy calls it is made once for each copy, and
//! knows its own by its number.

use std::sync::OnceLock;

use super::host::Host;

/// How many copies of SQLite in one process are told apart.
pub(crate) const MOST: usize = 4;

/// One copy of SQLite, once it is seen. Nothing of it is ever forgotten.
struct Library {
    /// The functions by which it was seen first.
    seen: OnceLock<Host>,
    /// The functions that it has passed itself: perhaps more than those that were linked.
    passed: OnceLock<Host>,
}

static COPIES: [Library; MOST] =
    [const { Library { seen: OnceLock::new(), passed: OnceLock::new() } }; MOST];

/// The number of the copy that `host` is; `None` for the fifth in one process.
pub(crate) fn number_of(host: &Host) -> Option<usize> {
    COPIES.iter().position(|copy| copy.seen.get_or_init(|| *host).same_library(host))
}

/// Notes the functions that a copy of SQLite has passed itself.
pub(crate) fn note_passed(host: &Host) {
    if let Some(nth) = number_of(host) {
        COPIES[nth].passed.get_or_init(|| *host);
    }
}

/// The functions that SQLite itself has passed, which may be more than a `host` has; the `host`'s own if it has passed none.
pub(crate) fn most_of(host: &'static Host) -> &'static Host {
    let mut passed = COPIES.iter().filter_map(|copy| copy.passed.get());
    passed.find(|passed| passed.same_library(host)).unwrap_or(host)
}

/// The copy of that number.
pub(crate) fn copy(nth: usize) -> Option<&'static Host> {
    COPIES.get(nth)?.seen.get()
}

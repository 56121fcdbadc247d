//! The copies of SQLite in this process. SQLite does not tell a callback which copy calls it. So each copy gets its own
//! callback, compiled with the copy's number.

use std::sync::OnceLock;

use super::host::Host;

/// How many copies of SQLite in one process this VFS can tell apart.
pub(crate) const MOST: usize = 4;

/// One copy of SQLite, from when it was first seen. It is kept for ever.
struct Library {
    /// The functions with which it was first seen.
    seen: OnceLock<Host>,
    /// The functions that the copy itself passed, which may be more than were linked.
    passed: OnceLock<Host>,
}

static COPIES: [Library; MOST] =
    [const { Library { seen: OnceLock::new(), passed: OnceLock::new() } }; MOST];

/// The number of the copy that `host` is; `None` for a fifth copy in one process.
pub(crate) fn number_of(host: &Host) -> Option<usize> {
    COPIES.iter().position(|copy| copy.seen.get_or_init(|| *host).same_library(host))
}

/// Notes the functions that a copy of SQLite itself passed.
pub(crate) fn note_passed(host: &Host) {
    if let Some(nth) = number_of(host) {
        COPIES[nth].passed.get_or_init(|| *host);
    }
}

/// The functions that SQLite itself passed, which may be more than `host` has; `host` itself if it passed none.
pub(crate) fn most_of(host: &'static Host) -> &'static Host {
    let mut passed = COPIES.iter().filter_map(|copy| copy.passed.get());
    passed.find(|passed| passed.same_library(host)).unwrap_or(host)
}

/// The copy of that number.
pub(crate) fn copy(nth: usize) -> Option<&'static Host> {
    COPIES.get(nth)?.seen.get()
}

//! The copies of SQLite in this process. Callbacks that are not told which copy calls them are made once for each, and
//! know it by its number.

use std::sync::OnceLock;

use super::host::Host;

/// How many copies of SQLite in one process are told apart.
pub(crate) const MOST: usize = 4;

struct Known {
    /// Which it is.
    library: OnceLock<Host>,
    /// The table that it has passed itself, which may have more functions than one that was linked.
    passed: OnceLock<Host>,
}

static COPIES: [Known; MOST] =
    [const { Known { library: OnceLock::new(), passed: OnceLock::new() } }; MOST];

/// The number of the copy that `host` is; `None` for the fifth in one process.
pub(crate) fn number_of(host: &Host) -> Option<usize> {
    COPIES.iter().position(|known| known.library.get_or_init(|| *host).same_library(host))
}

/// Notes the functions that a copy of SQLite has passed itself. Its number, as for [`number_of`].
pub(crate) fn note_passed(host: &Host) -> Option<usize> {
    let nth = number_of(host)?;
    COPIES[nth].passed.get_or_init(|| *host);
    Some(nth)
}

/// What SQLite itself has passed of the copy that `host` is: more functions, perhaps. `None` if it has passed nothing.
pub(crate) fn passed_by(host: &Host) -> Option<&'static Host> {
    let passed = COPIES.iter().filter_map(|known| known.passed.get());
    passed.into_iter().find(|known| known.same_library(host))
}

/// The copy of that number.
pub(crate) fn copy(nth: usize) -> Option<&'static Host> {
    COPIES[nth].library.get()
}

//! Whether this thread is in a transaction over several databases with rollback journals. In the
//! first phase of such a commit SQLite has a super-journal open, and it ignores the answer of
//! SQLITE_FCNTL_COMMIT_PHASETWO (<https://www.sqlite.org/atomiccommit.html#multi_file_commit>), so
//! no sync of it may be deferred.

use std::cell::Cell;

thread_local! {
    /// How many super-journals this thread has open.
    static SUPER_JOURNALS: Cell<u32> = const { Cell::new(0) };
}

/// This thread has opened a super-journal, or is about to close one. The shim calls it.
pub(crate) fn note_super_journal(is_opened: bool) {
    let _ = SUPER_JOURNALS.try_with(|open| {
        open.set(if is_opened { open.get() + 1 } else { open.get().saturating_sub(1) });
    });
}

/// Whether this thread has a super-journal open. Also true while the thread ends, when that cannot
/// be known.
pub(crate) fn has_super_journal() -> bool {
    SUPER_JOURNALS.try_with(|open| open.get() > 0).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction over several databases lasts from its first super-journal until the last one is closed.
    #[test]
    fn a_super_journal_is_known_until_it_is_closed() {
        assert!(!has_super_journal());
        for (is_opened, has_one) in [
            (true, true),
            (true, true),
            (false, true),
            (false, false),
            (false, false),
            (true, true),
        ] {
            note_super_journal(is_opened);
            assert_eq!(has_super_journal(), has_one);
        }
    }
}

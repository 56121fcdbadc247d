//! Super-journals: of a transaction over several databases with rollback journals, SQLite does not look at
//! what FCNTL_COMMIT_PHASETWO answers (<https://www.sqlite.org/atomiccommit.html#multi_file_commit>).

use std::cell::Cell;

thread_local! {
    /// How many super-journals this thread has open: of a transaction over several databases with
    /// rollback journals, SQLite does not look at what FCNTL_COMMIT_PHASETWO answers.
    static SUPER_JOURNALS: Cell<u32> = const { Cell::new(0) };
}

/// This thread has opened a super-journal, or closed one.
pub(crate) fn super_journal(is_opened: bool) {
    let _ = SUPER_JOURNALS.try_with(|open| {
        open.set(if is_opened { open.get() + 1 } else { open.get().saturating_sub(1) });
    });
}

/// Whether this thread is in the first phase of such a commit.
pub(crate) fn has_super_journal() -> bool {
    SUPER_JOURNALS.try_with(|open| open.get() > 0).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a transaction over several databases: from the first super-journal until the last is closed.
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
            super_journal(is_opened);
            assert_eq!(has_super_journal(), has_one);
        }
    }
}

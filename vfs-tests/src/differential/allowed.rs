//! What is allowed to differ: all of it, in one table.

use rusqlite::ffi::{SQLITE_BUSY, SQLITE_IOERR};

use super::compare::{Difference, Kind};
use super::observe::Observation;
use super::protocol::Outcome;
use super::schedule::{Operation, Step};

/// A difference, and what led to it.
pub struct Scene<'a> {
    /// Whether nobody uses our VFS.
    pub is_plain: bool,
    /// The steps so far; the last is the one that was compared.
    pub steps: &'a [Step],
    /// What the stock side answered to it.
    pub stock: &'a Outcome,
    /// What ours answered.
    pub ours: &'a Outcome,
    /// The files of our side before it.
    pub before: &'a Observation,
    /// What differs.
    pub difference: &'a Difference,
}

impl Scene<'_> {
    /// The last step.
    fn operation(&self) -> &Operation {
        &self.steps.last().expect("one was compared").operation
    }

    /// Whether there was such a step before.
    fn came_after(&self, is: impl Fn(&Operation) -> bool) -> bool {
        self.steps.iter().any(|step| is(&step.operation))
    }

    /// Whether the difference is that our connection holds a lower lock on the database, or has no
    /// snapshot.
    fn holds_less(&self) -> bool {
        let (Some(stock), Some(ours)) = (self.stock.transaction, self.ours.transaction) else {
            return false;
        };
        self.difference.kind == Kind::Transaction
            && ours.autocommit == stock.autocommit
            && ours.lock < stock.lock
    }

    /// Whether the difference is that ours gives this primary code.
    fn is_code(&self, code: i32) -> bool {
        self.difference.kind == Kind::Code && self.ours.code & 0xff == code
    }
}

/// Why something may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Where the documents say so.
    Documented(&'static str),
    /// An error of the VFS that is known and not mended yet.
    ToBeMended,
}

/// An entry of the table.
pub struct Allowed {
    /// Its name in the closing line.
    pub name: &'static str,
    /// Why it is here.
    pub why: Why,
    /// Whether this is it.
    pub is: fn(&Scene<'_>) -> bool,
}

/// The table. Each entry ends its schedule: one side has done what the other has refused, and what
/// follows is no longer the same.
pub const TABLE: &[Allowed] = &[
    Allowed {
        // A child of a stock connection is treated as a child of ours, and locks are not cancelled.
        name: "the extension is loaded and not used",
        why: Why::ToBeMended,
        is: |scene| {
            let is_it = |operation: &Operation| {
                matches!(operation, Operation::Fork(_) | Operation::Touch(..))
            };
            scene.is_plain && scene.came_after(is_it)
        },
    },
    Allowed {
        name: "a child leaves its parent's journal",
        why: Why::ToBeMended,
        is: |scene| {
            scene.difference.kind == Kind::Files
                && matches!(scene.operation(), Operation::Fork(_))
                && scene.difference.ours.contains("-journal")
        },
    },
    Allowed {
        name: "read-only connections",
        why: Why::ToBeMended,
        is: |scene| {
            let is_read_only = |operation: &Operation| {
                matches!(operation, Operation::Open(_, p) if p.contains("=ro"))
                    || matches!(operation, Operation::Sql(sql) if sql.contains("=ro"))
            };
            scene.came_after(is_read_only)
                && (matches!(scene.difference.kind, Kind::Files | Kind::Content)
                    || scene.stock.code == 3850
                    || scene.ours.code == 3850)
        },
    },
    Allowed {
        name: "the application's own PERSIST_WAL",
        why: Why::ToBeMended,
        is: |scene| {
            scene.came_after(|operation| matches!(operation, Operation::FileControl(10, _)))
                && matches!(scene.difference.kind, Kind::Files | Kind::Transaction)
        },
    },
    Allowed {
        name: "a file that is longer or shorter than its header says",
        why: Why::ToBeMended,
        is: |scene| {
            scene.came_after(|operation| {
                matches!(operation, Operation::Append(..) | Operation::Cut(..))
            }) && (scene.is_code(SQLITE_IOERR)
                || matches!(scene.difference.kind, Kind::Files | Kind::Content))
        },
    },
    Allowed {
        name: "PRAGMA journal_mode=wal that does not succeed",
        why: Why::ToBeMended,
        is: |scene| {
            let is_it = |operation: &Operation| {
                // The board's beginning has other statements with it.
                operation.is_sql_with("PRAGMA journal_mode=wal") && !operation.is_sql_with("; ")
            };
            // For a blob SQLite gives SQLITE_ERROR, and this message.
            scene.came_after(is_it)
                && (scene.ours.message == "database is locked" || scene.holds_less())
        },
    },
    Allowed {
        // SQLite before 3.41 keeps PENDING when EXCLUSIVE is refused, and so locks readers out.
        name: "a connection that is refused holds no more than before",
        why: Why::Documented("docs/locking-protocol.md: takes the write lock, then SQLite's"),
        is: |scene| scene.ours.code & 0xff == SQLITE_BUSY && scene.holds_less(),
    },
    Allowed {
        name: "backup onto larger pages",
        why: Why::ToBeMended,
        is: |scene| {
            scene.is_code(SQLITE_IOERR) && matches!(scene.operation(), Operation::Backup(..))
        },
    },
    Allowed {
        // Of several first connections to an empty database, all but one would fail at once, whatever
        // their timeout; so they queue, readers among them.
        name: "an empty database has one client at a time",
        why: Why::Documented("docs/locking-protocol.md: SHARED on a database without content"),
        is: |scene| {
            let is_empty = |(name, length): (&String, &u64)| name.ends_with(".db") && *length == 0;
            // Who was refused has not seen a version yet.
            let has_seen_less = scene.difference.kind == Kind::Rows
                && scene.operation().is_sql_with("data_version");
            (scene.is_code(SQLITE_BUSY) || scene.holds_less() || has_seen_less)
                && scene.before.files.iter().any(is_empty)
        },
    },
];

/// The entry that allows it. What is to be mended is not allowed if `is_strict`.
#[must_use]
pub fn allowed(scene: &Scene<'_>, is_strict: bool) -> Option<&'static Allowed> {
    let counts = |entry: &&Allowed| !is_strict || entry.why != Why::ToBeMended;
    TABLE.iter().filter(counts).find(|entry| (entry.is)(scene))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    /// What the documents are said to say stands in them.
    #[test]
    fn what_is_documented_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for entry in TABLE {
            let Why::Documented(place) = entry.why else { continue };
            let (file, words) = place.split_once(": ").expect("a file and its words");
            let text = std::fs::read_to_string(root.join(file)).expect("it is there");
            assert!(text.contains(words), "{file} does not say: {words}");
        }
    }
}

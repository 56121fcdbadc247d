//! The differences that are allowed, all in one table.

use rusqlite::ffi::{SQLITE_BUSY, SQLITE_FCNTL_CHUNK_SIZE, SQLITE_FULL, SQLITE_IOERR};

use super::compare::{Difference, Kind};
use super::observe::Observation;
use super::protocol::Outcome;
use super::schedule::{Operation, Step};

/// A difference, and the steps that led to it.
pub struct Scene<'a> {
    /// Whether no client uses our VFS.
    pub is_plain: bool,
    /// The steps so far; the last is the one that was compared.
    pub steps: &'a [Step],
    /// The stock side's outcome of that step.
    pub stock: &'a Outcome,
    /// Our side's outcome of that step.
    pub ours: &'a Outcome,
    /// The files of our side before that step.
    pub before: &'a Observation,
    /// What differs.
    pub difference: &'a Difference,
}

impl Scene<'_> {
    /// The last step.
    fn operation(&self) -> &Operation {
        &self.steps.last().expect("one was compared").operation
    }

    /// Whether a file was cut while the connection of the last step was in a transaction that it had begun. If all are
    /// closed, any connection of the process counts.
    fn was_cut_within_transaction(&self) -> bool {
        let last = self.steps.last().expect("one was compared");
        let closes_all = matches!(last.operation, Operation::CloseAll);
        let mut is_in_transaction = false;
        let mut was_cut = false;
        for step in &self.steps[..self.steps.len() - 1] {
            was_cut |= is_in_transaction && matches!(step.operation, Operation::Cut(..));
            let is_same = closes_all || step.connection == last.connection;
            if step.process != last.process || !is_same {
                continue;
            }
            let is = |text| step.operation.is_sql_with(text);
            if is("COMMIT") || is("ROLLBACK") && !is("TO") {
                (is_in_transaction, was_cut) = (false, false);
            }
            is_in_transaction |= match step.operation {
                Operation::Cursor(_) | Operation::BlobOpen(..) => true,
                _ => is("BEGIN") || is("SAVEPOINT"),
            };
        }
        was_cut
    }

    /// Whether a process with a stock connection opened a database's file and closed it.
    fn may_have_lost_locks(&self) -> bool {
        let is_stock = |step: &Step| matches!(&step.operation, Operation::Open(_, parameters) if parameters.contains("vfs="));
        self.steps.iter().enumerate().any(|(at, step)| {
            matches!(step.operation, Operation::Touch(..))
                && self.steps[..at]
                    .iter()
                    .any(|other| other.process == step.process && is_stock(other))
        })
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

    /// Whether the difference is that our side answered this primary code.
    fn is_code(&self, code: i32) -> bool {
        self.difference.kind == Kind::Code && self.ours.code & 0xff == code
    }
}

/// The level PENDING, as SQLITE_FCNTL_LOCKSTATE reports it.
const PENDING: i32 = 3;

/// An entry of the table.
pub struct Allowed {
    /// Its name in the last line of the report.
    pub name: &'static str,
    /// Where the documents say so: a file, and words that it has.
    pub documented: &'static str,
    /// Whether the scene is this difference.
    pub is: fn(&Scene<'_>) -> bool,
}

/// A list of files, without those whose names and lengths contain one of these words.
fn without<'a>(files: &'a str, words: &str) -> Vec<&'a str> {
    files.split(", ").filter(|file| !file.contains(words)).collect()
}

/// The table. Each entry ends its schedule: one side did what the other refused, so what follows is not comparable.
pub const TABLE: &[Allowed] = &[
    Allowed {
        // SQLite before 3.41 keeps PENDING when EXCLUSIVE is refused, which keeps readers out. It does not always report
        // the refusal: a ROLLBACK tries to lock, too, if the locking mode has become exclusive.
        name: "a connection that is refused holds no more than before",
        documented: "docs/locking-protocol.md: takes the write lock, then SQLite's",
        is: |scene| {
            let is_pending = scene.stock.transaction.is_some_and(|stock| stock.lock == PENDING);
            (scene.ours.code & 0xff == SQLITE_BUSY || is_pending) && scene.holds_less()
        },
    },
    Allowed {
        // A transaction that has read cannot wait for the write lock. If several look whether tables exist and then create
        // them, all but one would fail at once, whatever their timeout. Transactions that will not write cannot be told
        // from these, so all of them queue: on an empty database, after BEGIN.
        name: "an empty database has one transaction at a time",
        documented: "docs/locking-protocol.md: SHARED on a database without content",
        is: |scene| {
            let is_empty = |(name, length): (&String, &u64)| name.ends_with(".db") && *length == 0;
            // A connection that was refused has not read a version yet.
            let has_seen_less = scene.difference.kind == Kind::Rows
                && scene.operation().is_sql_with("data_version");
            // Outside a transaction, a connection that only reads is not refused.
            let only_reads = scene.ours.transaction.is_some_and(|ours| ours.autocommit)
                && ["SELECT", "EXPLAIN", "ATTACH"]
                    .iter()
                    .any(|verb| scene.operation().is_sql(verb));
            // A writer that is refused before it has a place for its journal makes no journal.
            let Difference { kind, stock, ours } = scene.difference;
            let makes_no_journal = *kind == Kind::Files
                && scene.ours.code & 0xff == SQLITE_BUSY
                && without(stock, "-journal (0)") == without(ours, "-journal (0)");
            let is_refused = scene.is_code(SQLITE_BUSY) || scene.holds_less();
            !only_reads
                && (is_refused || has_seen_less || makes_no_journal)
                && scene.before.files.iter().any(is_empty)
        },
    },
    Allowed {
        name: "what became too short within a transaction is not committed",
        documented: "docs/audit.md: it notices before the transaction commits",
        is: |scene| {
            // The code of a commit that a close makes is not reported.
            let is_whole = scene.difference.kind == Kind::Content
                && scene.difference.stock.contains("malformed")
                && !scene.difference.ours.contains("malformed");
            (scene.is_code(SQLITE_IOERR) || is_whole) && scene.was_cut_within_transaction()
        },
    },
    Allowed {
        // Somebody made the file longer, or it grows in chunks. SQLite counts the extra bytes as pages, and with psow=0
        // writes those that share a sector with the changed page. Ours counts what the header says.
        name: "what a file has behind its last page is not counted",
        documented: "docs/file-length.md: the length that the header says",
        is: |scene| {
            let is_any =
                |is: fn(&Operation) -> bool| scene.steps.iter().any(|step| is(&step.operation));
            let no_psow = |operation: &Operation| matches!(operation, Operation::Open(_, parameters) if parameters.contains("psow=0"));
            let limits = |operation: &Operation| operation.is_sql_with("max_page_count");
            let Difference { kind, stock, ours } = scene.difference;
            let makes_longer = |operation: &Operation| {
                let chunks = Operation::FileControl(SQLITE_FCNTL_CHUNK_SIZE, 16384);
                matches!(operation, Operation::Append(..)) || *operation == chunks
            };
            is_any(makes_longer)
                && match kind {
                    Kind::Files => {
                        let same_but = |log| without(stock, log) == without(ours, log);
                        is_any(no_psow) && (same_but("-wal ") || same_but("-journal "))
                    }
                    Kind::Rows => limits(scene.operation()),
                    Kind::Code => is_any(limits) && scene.is_code(SQLITE_FULL),
                    _ => false,
                }
        },
    },
    Allowed {
        // The stock side leaves out the step that opens the file and closes it.
        name: "a stock connection can lose its locks where the database is not open through us",
        documented: "docs/audit.md: keeps POSIX locks, and all of the stock VFS's behaviour",
        is: |scene| scene.may_have_lost_locks(),
    },
];

/// The entry that allows the difference of this scene.
#[must_use]
pub fn allowed(scene: &Scene<'_>) -> Option<&'static Allowed> {
    TABLE.iter().find(|entry| (entry.is)(scene))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    /// The documents have the words that the table cites.
    #[test]
    fn what_is_documented_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for entry in TABLE {
            let (file, words) = entry.documented.split_once(": ").expect("a file and its words");
            let text = std::fs::read_to_string(root.join(file)).expect("it is there");
            assert!(text.contains(words), "{file} does not say: {words}");
        }
    }
}

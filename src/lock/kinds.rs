//! Kinds of transactions that read first and write later: what `kanban_begin=auto` has learned of a board, for all processes.
//!
//! A connection that was refused the upgrade of a read transaction writes its kind on the page ([`learn`]). Transactions
//! of a kind that is there take the write lock before they read. A kind is forgotten when its last [`FORGETS_AFTER`]
//! transactions have not written, or when the page has no room for another.
//!
//! These are hints, like all of the page. If two processes write at once, one of them may be lost, and is learned once more.
//! Whatever the bytes say, at worst a transaction waits that need not, or is refused as on the stock VFS.
//!
//! | bits of an entry, a little-endian u32 | |
//! |---|---|
//! | 0 to 24 | the kind, 0 for a free entry |
//! | 25 to 31 | how many of its transactions in a row have not written |

use super::database::Database;
use super::page::{KIND_ENTRIES, KindEntries};

/// A kind of transaction: those that begin with the same statement. Two statements may have one by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind(u32);

/// The bits of an entry that are the kind.
const KIND_BITS: u32 = 25;
/// After so many transactions of a kind that have not written it is forgotten.
pub(crate) const FORGETS_AFTER: u32 = 100;
const _: () = assert!(FORGETS_AFTER < 1 << (u32::BITS - KIND_BITS));

/// A kind that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    kind: Kind,
    /// Its place on the page.
    nth: usize,
    /// How many of its transactions in a row have not written.
    in_vain: u32,
}

impl Kind {
    /// The kind of the transactions whose first statement has that hash.
    pub(crate) fn of_hash(hash: u64) -> Self {
        let folded = (hash ^ (hash >> 32)) as u32;
        Self((folded ^ (folded >> KIND_BITS)) & ((1 << KIND_BITS) - 1)).or_one()
    }

    fn or_one(self) -> Self {
        Self(self.0.max(1))
    }
}

fn entry(entries: &KindEntries, nth: usize) -> Known {
    let entry = entries.u32_at(nth);
    Known { kind: Kind(entry & ((1 << KIND_BITS) - 1)), nth, in_vain: entry >> KIND_BITS }
}

/// Looks for the kind on the page. `None` if it is not known, or there is no page.
pub(crate) fn look_up(database: &Database, kind: Kind) -> Option<Known> {
    let entries = database.queue()?.sidecar().read_kinds().ok()?;
    (0..KIND_ENTRIES).map(|nth| entry(&entries, nth)).find(|known| known.kind == kind)
}

/// A transaction of that kind was refused to write.
pub(crate) fn learn(database: &Database, kind: Kind) {
    let Some(queue) = database.queue() else { return };
    let Ok(entries) = queue.sidecar().read_kinds() else { return };
    let known = || (0..KIND_ENTRIES).map(|nth| entry(&entries, nth));
    if known().any(|known| known.kind == kind) {
        return;
    }
    // A free one; else the one that may be the next to be forgotten.
    let least = |known: &Known| (known.kind != Kind(0), u32::MAX - known.in_vain);
    let place = known().min_by_key(least).map_or(0, |known| known.nth);
    write(database, place, kind, 0);
}

/// A transaction of a known kind, which took the write lock first, has ended. `wrote` says whether it has written.
pub(crate) fn note_use(database: &Database, known: Known, wrote: bool) {
    let Known { kind, nth, in_vain } = known;
    if wrote && in_vain == 0 {
        return;
    }
    let Some(now) = database.queue().and_then(|queue| queue.sidecar().read_kinds().ok()) else {
        return;
    };
    // Others may have forgotten it, or counted meanwhile.
    let now = entry(&now, nth);
    if now.kind != kind {
        return;
    }
    match if wrote { 0 } else { now.in_vain + 1 } {
        FORGETS_AFTER.. => write(database, nth, Kind(0), 0),
        in_vain => write(database, nth, kind, in_vain),
    }
}

fn write(database: &Database, nth: usize, kind: Kind, in_vain: u32) {
    if let Some(queue) = database.queue() {
        // An error: the sidecar is gone, or cannot be written. Then it is learned once more.
        let _ = queue.sidecar().write_kind(nth, kind.0 | in_vain << KIND_BITS);
    }
}

#[cfg(all(test, unix))]
mod tests;

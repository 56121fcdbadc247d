//! Kinds of transactions that read first and write later: what `kanban_begin=auto` has learned
//! about a board, for all processes.
//!
//! A connection that was refused the upgrade of a read transaction writes the transaction's kind on
//! the page ([`learn`]). From then on transactions of that kind take the write lock before they
//! read. A kind begins as on the stock VFS again after [`FORGETS_AFTER`] transactions in a row that did not write,
//! or when another kind needs its place on the page.
//!
//! The first transaction of a kind is on trial ([`try_out`]): others of its kind that begin while
//! it runs wait for a moment, until it writes or ends. If it writes, all of them would have been
//! refused; now they take the write lock first, and none is. If it ends without a write, no
//! transaction of its kind waits again unless one is refused.
//!
//! Like all of the page, these are hints. If two processes write at once, one of the entries may be lost, and is
//! learned once more. Whatever the bytes say, at worst a transaction waits in vain, or is refused as on the stock
//! VFS.
//!
//! | bits of an entry, a little-endian u32 | |
//! |---|---|
//! | 0 to 24 | the kind, 0 for a free entry |
//! | 25 to 31 | its [`Standing`] |
//!
//! | standing | bits 25 to 31 | becomes | when |
//! |---|---|---|---|
//! | no entry | | on trial | its first transaction begins |
//! | on trial | 127 | writing | that transaction writes |
//! | | | reads | that transaction ends without a write, or another has waited for it in vain |
//! | writing | 126 | writes | another of its kind begins |
//! | | | no entry | that transaction ends before another of its kind begins |
//! | any | | writes | a transaction is refused when it begins to write |
//! | writes | 0 to 99: how many of its transactions in a row have not written | reads | 100 have not |
//! | reads | 125 | | |

use super::database::Database;
use super::page::{KIND_ENTRIES, KindEntries};

/// A kind of transaction: all that begin with the same statement. Two statements may share a kind
/// by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind(u32);

/// The bits of an entry that are the kind.
const KIND_BITS: u32 = 25;
/// A kind is forgotten after this many of its transactions in a row have not written.
pub(crate) const FORGETS_AFTER: u32 = 100;
const _: () = assert!(FORGETS_AFTER < 1 << (u32::BITS - KIND_BITS));

const ON_TRIAL: u32 = 127;
const WRITING: u32 = 126;
const READS: u32 = 125;
const _: () = assert!(FORGETS_AFTER <= READS);

/// A kind that has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownKind {
    kind: Kind,
    /// Its place on the page.
    nth: usize,
    /// Its standing, as the entry has it.
    bits: u32,
}

/// What is known of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing yet, and the page has room for an entry.
    New,
    /// Its first transaction has begun, and has not written yet.
    OnTrial,
    /// Its first transaction has begun and writes.
    Writing,
    /// Transactions of this kind write after they have read, and would refuse each other.
    Writes(KnownKind),
    /// Transactions of this kind are not known to write, and do not wait; or the page has no room
    /// for an entry.
    Reads,
}

/// The entries, as they were at one moment.
pub(crate) struct Kinds(KindEntries);

impl Kind {
    /// The kind of the transactions whose first statement has that hash.
    pub(crate) fn of_hash(hash: u64) -> Self {
        let folded = (hash ^ (hash >> 32)) as u32;
        Self((folded ^ (folded >> KIND_BITS)) & ((1 << KIND_BITS) - 1)).or_one()
    }

    fn or_one(self) -> Self {
        Self(self.0.max(1))
    }

    /// A number below `of`, always the same for one kind.
    pub(crate) fn place(self, of: usize) -> usize {
        self.0 as usize % of
    }
}

impl Kinds {
    /// The entries of the page; `None` if there is no page.
    pub(crate) fn of(database: &Database) -> Option<Self> {
        Some(Self(database.queue()?.sidecar().read_kinds().ok()?))
    }

    /// The standing of a kind by these entries.
    pub(crate) fn standing(&self, kind: Kind) -> Standing {
        let Some(known) = self.find(kind) else {
            return if self.find(Kind(0)).is_some() { Standing::New } else { Standing::Reads };
        };
        match known.bits {
            ON_TRIAL => Standing::OnTrial,
            WRITING => Standing::Writing,
            0..FORGETS_AFTER => Standing::Writes(known),
            _ => Standing::Reads,
        }
    }

    fn find(&self, kind: Kind) -> Option<KnownKind> {
        self.all().find(|known| known.kind == kind)
    }

    fn all(&self) -> impl Iterator<Item = KnownKind> + '_ {
        (0..KIND_ENTRIES).map(|nth| self.nth(nth))
    }

    fn nth(&self, nth: usize) -> KnownKind {
        let entry = self.0.u32_at(nth);
        KnownKind { kind: Kind(entry & ((1 << KIND_BITS) - 1)), nth, bits: entry >> KIND_BITS }
    }
}

/// A transaction of `kind` was refused when it began to write, or would have been. Returns the kind's entry;
/// `None` if there is no page.
pub(crate) fn learn(database: &Database, kind: Kind) -> Option<KnownKind> {
    let known = learn_on_page(database, kind);
    // After the entry was written: a connection that has looked before must look again.
    database.note_learned();
    known
}

fn learn_on_page(database: &Database, kind: Kind) -> Option<KnownKind> {
    let kinds = Kinds::of(database)?;
    if let Standing::Writes(known) = kinds.standing(kind) {
        return Some(known);
    }
    // Its own entry; else a free one; else that of a kind that reads, or of the kind that is
    // closest to being forgotten.
    let free = |known: &KnownKind| (known.kind != Kind(0), u32::MAX - known.bits);
    let place = kinds.find(kind).or_else(|| kinds.all().min_by_key(free))?;
    write(database, place.nth, kind, 0);
    Some(KnownKind { kind, nth: place.nth, bits: 0 })
}

/// A transaction of a known kind, which took the write lock first, has ended. `wrote` says whether it wrote.
pub(crate) fn note_use(database: &Database, known: KnownKind, wrote: bool) {
    if wrote && known.bits == 0 {
        return;
    }
    // Other processes may have counted since, or forgotten the kind.
    let Some(now) = again(database, known).filter(|now| now.bits < FORGETS_AFTER) else { return };
    match if wrote { 0 } else { now.bits + 1 } {
        FORGETS_AFTER.. => write(database, now.nth, now.kind, READS),
        in_vain => write(database, now.nth, now.kind, in_vain),
    }
}

/// The first transaction of a kind begins, and is on trial. Returns the kind's entry.
pub(crate) fn try_out(database: &Database, kinds: &Kinds, kind: Kind) -> KnownKind {
    // Kinds that begin at the same moment should not take the same entry.
    let first = kind.place(KIND_ENTRIES);
    let mut places = (first..KIND_ENTRIES).chain(0..first);
    let nth = places.find(|nth| kinds.nth(*nth).kind == Kind(0)).unwrap_or(first);
    write(database, nth, kind, ON_TRIAL);
    KnownKind { kind, nth, bits: ON_TRIAL }
}

/// The transaction that is on trial writes.
pub(crate) fn trial_writes(database: &Database, tried: KnownKind) {
    if again(database, tried).is_some_and(|now| now.bits == ON_TRIAL) {
        write(database, tried.nth, tried.kind, WRITING);
    }
}

/// The transaction that is on trial has ended. `wrote` says whether it wrote; `None` if that is not known.
pub(crate) fn trial_ended(database: &Database, tried: KnownKind, wrote: Option<bool>) {
    if again(database, tried).is_some_and(|now| matches!(now.bits, ON_TRIAL | WRITING)) {
        match wrote {
            Some(false) => write(database, tried.nth, tried.kind, READS),
            _ => write(database, tried.nth, Kind(0), 0),
        }
    }
}

/// A transaction has waited in vain for the one that is on trial, so no other waits for it.
pub(crate) fn trial_takes_long(database: &Database, kind: Kind) {
    let tried = Kinds::of(database).and_then(|kinds| kinds.find(kind));
    if let Some(tried) = tried.filter(|tried| tried.bits == ON_TRIAL) {
        write(database, tried.nth, kind, READS);
    }
}

/// The present entry of a kind; `None` if another kind has taken its place.
fn again(database: &Database, known: KnownKind) -> Option<KnownKind> {
    let now = Kinds::of(database)?.nth(known.nth);
    (now.kind == known.kind).then_some(now)
}

fn write(database: &Database, nth: usize, kind: Kind, bits: u32) {
    if let Some(queue) = database.queue() {
        // An error: the sidecar is gone, or cannot be written. Then it is learned once more.
        let _ = queue.sidecar().write_kind(nth, kind.0 | bits << KIND_BITS);
    }
}

#[cfg(all(test, unix))]
mod tests;

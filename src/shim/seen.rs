//! The statements that have begun transactions of a connection, and the kinds of those transactions. To compare a statement with
//! one that was seen is cheaper than to find its kind anew.

use crate::connection::{decisive, kind_of};
use crate::ffi::host::RunningStatement;
use crate::lock::kinds::Kind;

/// How many statements are kept. A statement's address says where.
const STATEMENTS: usize = 16;

/// What was seen of the connection that uses a file.
#[derive(Default)]
pub(super) struct Seen {
    /// The address of the `sqlite3` of which the file was the main database; 0 if none was seen. With a shared cache, several use
    /// one file, and a new one may have the address of a closed one. Then a transaction that takes no write lock is noted with its
    /// kind for an attached database, too, which is a hint.
    pub(super) main_of: usize,
    /// What decides the kind of each, and the kind. Empty until one is kept.
    statements: Vec<Option<(Box<[u8]>, Kind)>>,
}

impl Seen {
    /// The kind of transactions that begin with that statement, if it was seen.
    pub(super) fn known(&self, statement: &RunningStatement<'_>) -> Option<Kind> {
        let (text, kind) = self.statements.get(place(statement))?.as_ref()?;
        // Its address is no proof that it is the same: SQLite may have reused the memory.
        (**text == *decisive(statement.text.to_bytes())).then_some(*kind)
    }

    /// The kind of transactions that begin with that statement.
    pub(super) fn kind_of(&mut self, statement: &RunningStatement<'_>) -> Kind {
        if let Some(known) = self.known(statement) {
            return known;
        }
        let text = decisive(statement.text.to_bytes());
        let kind = kind_of(text);
        self.statements.resize_with(STATEMENTS, || None);
        self.statements[place(statement)] = Some((text.into(), kind));
        kind
    }
}

/// The place of a statement. Addresses may differ in any of their bits, so all of them count.
fn place(statement: &RunningStatement<'_>) -> usize {
    const SPREADS: u64 = 0x9e37_79b9_7f4a_7c15;
    let spread = (statement.address() as u64).wrapping_mul(SPREADS);
    (spread >> (u64::BITS - STATEMENTS.ilog2())) as usize
}

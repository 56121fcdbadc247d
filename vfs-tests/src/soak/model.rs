//! What must be on the board, according to what writers reported.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::diary::Line;
use super::rows;

/// What is known about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was begun, and may be there or not.
    Unknown,
    /// It was acknowledged, or seen: it must be there.
    Committed,
    /// It was rolled back, or was missing after its writer's death: it must never be there.
    Never,
}

/// The transactions of each writer, numbered from 1.
#[derive(Default)]
pub struct Model {
    writers: HashMap<u64, Vec<Outcome>>,
    retired: HashSet<u64>,
}

/// What one snapshot has: the parts of each transaction, one bit each.
pub struct Found(HashMap<(u64, u64), u64>);

impl Found {
    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.values().map(|parts| u64::from(parts.count_ones())).sum()
    }
}

impl Model {
    /// Notes what a writer reported.
    ///
    /// # Errors
    /// If that cannot be true.
    pub fn said(&mut self, writer: u64, line: &Line) -> Result<(), String> {
        let txns = self.writers.entry(writer).or_default();
        let (txn, outcome) = match line {
            Line::Attempt(txn) => {
                txns.push(Outcome::Unknown);
                return match txns.len() as u64 == *txn {
                    true => Ok(()),
                    false => Err(format!("writer {writer} skips to transaction {txn}")),
                };
            }
            Line::Committed { txn, .. } => (*txn, Outcome::Committed),
            Line::Busy { txn, .. } | Line::Refused(txn) => (*txn, Outcome::Never),
            Line::Vfs(_) | Line::Quit | Line::Did(_) | Line::Failed(_) => return Ok(()),
        };
        let known = txns.get_mut(txn as usize - 1).ok_or("a transaction that was not begun")?;
        if *known == Outcome::Committed && outcome == Outcome::Never {
            return Err(format!("writer {writer} rolled back {txn}, which was on the board"));
        }
        *known = outcome;
        Ok(())
    }

    /// Checks that a snapshot taken now has everything that was acknowledged so far. Looks at each
    /// row, and at the tally.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_acknowledged(&self, board: &Connection) -> Result<Found, String> {
        let found = look(board)?;
        for (writer, txns) in &self.writers {
            for (txn, outcome) in (1..).zip(txns) {
                let there = found.0.contains_key(&(*writer, txn));
                if *outcome == Outcome::Committed && !there {
                    return Err(format!("lost: transaction {txn} of writer {writer}"));
                }
                if *outcome == Outcome::Never && there {
                    return Err(format!("never committed: {txn} of writer {writer}"));
                }
            }
        }
        Ok(found)
    }

    /// Checks that everything in that snapshot is complete and was attempted. All attempts from
    /// before the snapshot must be known by now. `dead` are the writers that were dead before the
    /// snapshot.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_attempted(&mut self, found: &Found, dead: &[u64]) -> Result<(), String> {
        for ((writer, txn), parts) in &found.0 {
            if self.retired.contains(writer) {
                return Err(format!("deleted and back: {txn} of writer {writer}"));
            }
            let txns = self.writers.get_mut(writer);
            let Some(outcome) = txns.and_then(|txns| txns.get_mut(*txn as usize - 1)) else {
                return Err(format!("never attempted: {txn} of writer {writer}"));
            };
            if *outcome == Outcome::Never {
                return Err(format!("never committed: {txn} of writer {writer}"));
            }
            let all = (1 << rows::parts(*writer, *txn)) - 1;
            if *parts != all {
                return Err(format!("torn: {txn} of writer {writer} has parts {parts:b}"));
            }
            *outcome = Outcome::Committed;
        }
        for writer in dead {
            for outcome in self.writers.get_mut(writer).into_iter().flatten() {
                if *outcome == Outcome::Unknown {
                    *outcome = Outcome::Never;
                }
            }
        }
        Ok(())
    }

    /// How many transactions of those writers must be there.
    #[must_use]
    pub fn committed(&self, writers: &[u64]) -> usize {
        let txns = writers.iter().filter_map(|writer| self.writers.get(writer)).flatten();
        txns.filter(|outcome| **outcome == Outcome::Committed).count()
    }

    /// Notes that the rows of these writers were deleted, by an acknowledged transaction.
    pub fn retire(&mut self, writers: &[u64]) {
        for writer in writers {
            self.writers.remove(writer);
            self.retired.insert(*writer);
        }
    }
}

fn look(board: &Connection) -> Result<Found, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let snapshot = board.unchecked_transaction().map_err(text)?;
    let off: i64 = snapshot.query_row(rows::OFF_BALANCE, [], |row| row.get(0)).map_err(text)?;
    if off != 0 {
        return Err(format!("the tally is off by {off}"));
    }
    let mut found = HashMap::new();
    let mut statement =
        snapshot.prepare("SELECT writer, txn, part, body FROM row").map_err(text)?;
    let mut query = statement.query([]).map_err(text)?;
    while let Some(row) = query.next().map_err(text)? {
        let read = || -> rusqlite::Result<_> {
            let number = |n| row.get::<_, i64>(n).map(i64::unsigned_abs);
            Ok((number(0)?, number(1)?, number(2)?))
        };
        let (writer, txn, part) = read().map_err(text)?;
        let body = row.get_ref(3).ok().and_then(|body| body.as_str().ok());
        if part >= 64 || body != Some(&rows::body(writer, txn, part)) {
            return Err(format!("wrong: {txn} of writer {writer}, part {part}: {body:?}"));
        }
        let parts: &mut u64 = found.entry((writer, txn)).or_default();
        if *parts & 1 << part != 0 {
            return Err(format!("twice: {txn} of writer {writer}, part {part}"));
        }
        *parts |= 1 << part;
    }
    Ok(Found(found))
}

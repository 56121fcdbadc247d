//! What is allowed to differ: all of it, in one table.

use super::compare::Difference;
use super::protocol::Outcome;
use super::schedule::Step;

/// A difference, and what led to it.
pub struct Scene<'a> {
    /// The steps so far; the last is the one that was compared.
    pub steps: &'a [Step],
    /// What the stock side answered to it.
    pub stock: &'a Outcome,
    /// What ours answered.
    pub ours: &'a Outcome,
    /// What differs.
    pub difference: &'a Difference,
}

/// Why something may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A guarantee: its row in docs/guarantees.md.
    Guaranteed(&'static str),
    /// An error of the VFS that is known and not mended yet.
    ToBeMended,
}

/// What happens to a schedule after an allowed difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The sides are still alike but for this.
    GoOn,
    /// They are not: one has committed what the other has refused.
    Stop,
}

/// An entry of the table.
pub struct Allowed {
    /// Its name in the closing line.
    pub name: &'static str,
    /// Why it is here.
    pub why: Why,
    /// What happens then.
    pub then: Then,
    /// Whether this is it.
    pub is: fn(&Scene<'_>) -> bool,
}

/// The table.
pub const TABLE: &[Allowed] = &[];

/// The entry that allows it.
#[must_use]
pub fn allowed(scene: &Scene<'_>) -> Option<&'static Allowed> {
    TABLE.iter().find(|entry| (entry.is)(scene))
}

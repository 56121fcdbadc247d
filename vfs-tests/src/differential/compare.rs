//! The differences between the two sides after a step.

use std::fmt;

use super::observe::Observation;
use super::protocol::{DIED, HANGS, Outcome};
use super::schedule::Operation;

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its kind.
    pub kind: Kind,
    /// The value on the stock side.
    pub stock: String,
    /// The value on our side.
    pub ours: String,
}

impl Difference {
    /// Whether a shorter schedule shows the same difference. Values that depend on rows may differ.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let head = |text: &str| match self.kind {
            Kind::Transaction => text.to_owned(),
            // Compare which files exist, and which of them are empty.
            Kind::Files => {
                let head = |file: &str| match file.split_once(' ') {
                    Some((name, length)) if length != "(0)" => name.to_owned(),
                    _ => file.to_owned(),
                };
                text.split(", ").map(head).collect::<Vec<_>>().join(", ")
            }
            _ => text.split([' ', '\n', ':']).next().unwrap_or_default().to_owned(),
        };
        self.kind == other.kind
            && head(&self.stock) == head(&other.stock)
            && head(&self.ours) == head(&other.ours)
    }
}

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The result code of the step.
    Code,
    /// Its rows.
    Rows,
    /// The connection's transaction, or its lock.
    Transaction,
    /// What a process that came now would read, or the result of integrity_check.
    Content,
    /// Which files exist, or which are empty.
    Files,
    /// A process crashed or hung.
    Process,
}

/// The differences after a step: first its outcome, then what it left behind. In a plain schedule
/// children are compared, too.
#[must_use]
pub fn compare(
    is_plain: bool,
    operation: &Operation,
    [stock, ours]: [&Outcome; 2],
    [stock_left, our_left]: [&Observation; 2],
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut differ = |kind, stock: String, ours: String| {
        if stock != ours {
            differences.push(Difference { kind, stock, ours });
        }
    };
    let is_gone = |outcome: &Outcome| matches!(outcome.code, DIED | HANGS);
    let gone = |outcome: &Outcome| {
        let child = outcome.child.as_deref().filter(|child| is_gone(child));
        let gone = Some(outcome).filter(|outcome| is_gone(outcome)).or(child);
        gone.map(|gone| (gone.code, gone.to_string())).unwrap_or_default()
    };
    // The signal is chance. If the stock side crashes as well, the cause is SQLite or the worker.
    let [stock_end, our_end] = [gone(stock), gone(ours)];
    if stock_end.0 != our_end.0 {
        differ(Kind::Process, stock_end.1, our_end.1);
    }
    let is_of_both = is_plain || !operation.is_spared_stock();
    if !is_gone(stock) && !is_gone(ours) && is_of_both {
        if is_plain {
            let child =
                |outcome: &Outcome| outcome.child.as_deref().map(|c| (c.code, c.rows.clone()));
            differ(Kind::Code, format!("{:?}", child(stock)), format!("{:?}", child(ours)));
        }
        if stock.code != ours.code {
            differ(Kind::Code, stock.to_string(), ours.to_string());
        }
        differ(Kind::Rows, stock.rows.join("\n"), ours.rows.join("\n"));
        let transaction = |outcome: &Outcome| format!("{:?}", outcome.transaction);
        differ(Kind::Transaction, transaction(stock), transaction(ours));
    }
    let content = |left: &Observation, other: &Observation| {
        let mut lines = String::new();
        for (name, content) in &left.contents {
            if other.contents.get(name) != Some(content) {
                lines.push_str(&format!("{name}:\n{content}"));
            }
        }
        lines
    };
    differ(Kind::Content, content(stock_left, our_left), content(our_left, stock_left));
    let files = |left: &Observation| {
        let file = |(name, length): (&String, &u64)| format!("{name} ({length})");
        left.files.iter().map(file).collect::<Vec<_>>().join(", ")
    };
    differ(Kind::Files, files(stock_left), files(our_left));
    differences
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", code_name(self.code))?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

/// A code as SQLite's documentation writes it: the primary code and the extension.
#[must_use]
pub fn code_name(code: i32) -> String {
    let primary = match code & 0xff {
        _ if code < 0 => return format!("{code}"),
        0 => "OK",
        1 => "ERROR",
        5 => "BUSY",
        6 => "LOCKED",
        8 => "READONLY",
        10 => "IOERR",
        11 => "CORRUPT",
        13 => "FULL",
        14 => "CANTOPEN",
        15 => "PROTOCOL",
        17 => "SCHEMA",
        19 => "CONSTRAINT",
        21 => "MISUSE",
        26 => "NOTADB",
        100 => "ROW",
        101 => "DONE",
        other => return format!("{other}/{}", code >> 8),
    };
    if code > 0xff { format!("{primary}/{}", code >> 8) } else { primary.to_owned() }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indented = |text: &str| text.replace('\n', "\n           ");
        writeln!(f, "difference in {:?}", self.kind)?;
        writeln!(f, "    stock: {}", indented(&self.stock))?;
        writeln!(f, "    ours:  {}", indented(&self.ours))
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{Child, Database};
    use super::*;

    /// The kinds of differences after a statement.
    fn kinds(stock: &Outcome, ours: &Outcome, left: [&Observation; 2]) -> Vec<Kind> {
        let operation = Operation::Sql("SELECT 1".to_owned());
        let differences = compare(false, &operation, [stock, ours], left);
        differences.into_iter().map(|difference| difference.kind).collect()
    }

    fn nothing() -> [Observation; 2] {
        [Observation::default(), Observation::default()]
    }

    #[test]
    fn a_message_may_say_more() {
        let [stock, mut ours] = [Outcome::default(), Outcome::default()];
        ours.message = "who holds the lock".to_owned();
        let [left, ours_left] = &nothing();
        assert_eq!(kinds(&stock, &ours, [left, ours_left]), []);
    }

    #[test]
    fn each_part_of_an_answer_counts() {
        let [left, ours_left] = &nothing();
        let kinds = |ours: Outcome| kinds(&Outcome::default(), &ours, [left, ours_left]);
        let ours = Outcome::default;
        assert_eq!(kinds(Outcome { code: 5, ..ours() }), [Kind::Code]);
        assert_eq!(kinds(Outcome { rows: vec!["1".to_owned()], ..ours() }), [Kind::Rows]);
        assert_eq!(kinds(Outcome { code: DIED, ..ours() }), [Kind::Process]);
        let transaction =
            super::super::protocol::Transaction { autocommit: true, state: 0, lock: 1 };
        let ours = Outcome { transaction: Some(transaction), ..ours() };
        assert_eq!(kinds(ours), [Kind::Transaction]);
    }

    #[test]
    fn what_is_left_in_the_files_counts() {
        let [stock, mut ours] = nothing();
        ours.contents.insert("board.db".to_owned(), "a row".into());
        ours.files.insert("board.db".to_owned(), 1);
        let answer = Outcome::default();
        assert_eq!(kinds(&answer, &answer, [&stock, &ours]), [Kind::Content, Kind::Files]);
    }

    /// If the stock side left out a step, there is no answer to compare.
    #[test]
    fn a_child_that_is_spared_counts_if_nobody_uses_ours() {
        let forks = Operation::Fork(Child::Inherited("COMMIT".to_owned()));
        let child = |code| Outcome {
            child: Some(Box::new(Outcome { code, ..Outcome::default() })),
            ..Outcome::default()
        };
        let [left, ours_left] = &nothing();
        let compare = |is_plain, operation: &Operation| {
            compare(is_plain, operation, [&child(0), &child(10)], [left, ours_left]).len()
        };
        assert_eq!(compare(false, &forks), 0);
        assert_eq!(compare(true, &forks), 1);
        assert_eq!(compare(false, &Operation::Touch(Database::Board, String::new())), 0);
    }
}

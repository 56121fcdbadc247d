//! What writers write. The writer and the number of its transaction determine all of it, so anybody
//! can tell a right row from a wrong one. `worker.py` has the same rules.

/// The schema of the board. Each transaction counts itself in `tally`.
pub const SCHEMA: &str = "
CREATE TABLE row (writer INTEGER, txn INTEGER, part INTEGER, body TEXT);
CREATE INDEX row_writer ON row (writer, txn);
CREATE INDEX row_first ON row (writer, txn) WHERE part = 0;
CREATE TABLE tally (n INTEGER, retired INTEGER);
INSERT INTO tally VALUES (0, 0);
";

/// Zero in every snapshot: a transaction inserts its first row and adds one to the tally, or does
/// neither.
pub const OFF_BALANCE: &str =
    "SELECT n - retired - (SELECT count(*) FROM row WHERE part = 0) FROM tally";

/// How many rows a transaction inserts.
#[must_use]
pub fn parts(writer: u64, txn: u64) -> u64 {
    1 + (writer + txn * 7) % 4
}

/// The text of a row: mostly short, sometimes several pages long.
#[must_use]
pub fn body(writer: u64, txn: u64, part: u64) -> String {
    let h = (writer * 1_000_003 + txn * 10_007 + part * 101) % 65_521;
    let length = 20 + h % 180 + if h.is_multiple_of(97) { 5000 + h % 9000 } else { 0 };
    let text = format!("{writer}.{txn}.{part};");
    let length = length as usize;
    let mut body = text.repeat(length / text.len() + 1);
    body.truncate(length);
    body
}

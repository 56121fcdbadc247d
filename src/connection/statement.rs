//! What kind of transaction a statement begins ([`crate::lock::kinds`]).

use crate::lock::kinds::Kind;

/// Only this many bytes of a statement count.
const LOOKS_AT: usize = 4096;

/// The first bytes of a statement, which alone decide its kind.
#[inline]
pub(crate) fn decisive(sql: &[u8]) -> &[u8] {
    &sql[..sql.len().min(LOOKS_AT)]
}

/// The kind of transactions that begin with a statement. Statements that differ only in their values, in upper and lower case,
/// in white space, or in comments have the same kind. A list of values counts as one.
///
/// Processes of different builds must agree, so the hash is a fixed one: FNV-1a.
pub(crate) fn kind_of(sql: &[u8]) -> Kind {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    Kind::of_hash(normalised(sql).iter().fold(0xcbf2_9ce4_8422_2325, mix))
}

/// Whether that word is the first of a statement. White space, comments and semicolons may come before.
/// <https://www.sqlite.org/lang_comment.html>
pub(crate) fn begins_with(sql: &[u8], word: &[u8]) -> bool {
    let mut rest = sql;
    while let Some(length) = gap(rest).or_else(|| rest.starts_with(b";").then_some(1)) {
        rest = &rest[length..];
    }
    rest.get(..word.len()).is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// The length of the white space or comment at the start of `sql`, if there is one.
fn gap(sql: &[u8]) -> Option<usize> {
    match sql {
        [first, ..] if first.is_ascii_whitespace() => Some(1),
        [b'-', b'-', ..] => Some(until(sql, b"\n", 2)),
        [b'/', b'*', ..] => Some(until(sql, b"*/", 2)),
        _ => None,
    }
}

/// The length of `sql` up to and including the first `end` behind `from`; all of it without one.
fn until(sql: &[u8], end: &[u8], from: usize) -> usize {
    let found = sql[from..].windows(end.len()).position(|at| at == end);
    found.map_or(sql.len(), |at| from + at + end.len())
}

/// A statement with `?` for each value. <https://www.sqlite.org/lang_expr.html#literal_values_constants_>
fn normalised(sql: &[u8]) -> Vec<u8> {
    let mut rest = decisive(sql);
    let mut text = Vec::with_capacity(rest.len());
    let mut is_apart = false;
    while let Some(first) = rest.first().copied() {
        let run = |of: fn(u8) -> bool, from: usize| {
            from + rest[from..].iter().take_while(|byte| of(**byte)).count()
        };
        if let Some(length) = gap(rest) {
            rest = &rest[length..];
            is_apart = true;
            continue;
        }
        let (length, is_value) = match first {
            // A quote inside is doubled: that reads as two adjacent strings.
            b'\'' => (until(rest, b"'", 1), true),
            b'?' => (run(|byte| byte.is_ascii_digit(), 1), true),
            b'0'..=b'9' => (run(|byte| is_word(byte) || byte == b'.', 1), true),
            b'"' | b'`' => (until(rest, &[first], 1), false),
            b'[' => (until(rest, b"]", 1), false),
            b if is_word(b) => (run(is_word, 1), false),
            _ => (1, false),
        };
        let (token, behind) = rest.split_at(length);
        rest = behind;
        let ends_with_word = text.last().is_some_and(|last| is_word(*last) || *last == b'?');
        if std::mem::take(&mut is_apart) && ends_with_word && (is_value || is_word(first)) {
            text.push(b' ');
        }
        match is_value {
            true if text.ends_with(b"?,") => drop(text.pop()),
            true if text.ends_with(b"?") => {}
            true => text.push(b'?'),
            false => text.extend(token.iter().map(u8::to_ascii_lowercase)),
        }
    }
    // SQLite's text of a statement includes its semicolon, if there is one.
    if text.last() == Some(&b';') {
        text.pop();
    }
    text
}

/// Whether a byte may be a part of a name or keyword.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests;

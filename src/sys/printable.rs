//! Texts that terminals print. `preload/` compiles this file, too.

/// A character, or a question mark for one that a terminal obeys, or that ends a line or turns it round.
pub(crate) fn printable(c: char) -> char {
    let is_obeyed = c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if is_obeyed { '?' } else { c }
}

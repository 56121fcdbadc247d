//! Texts that terminals print. `preload/` and `cli/` compile this file, too.

/// A text, with a question mark for each character that a terminal obeys, or that ends a line or turns it round: a process
/// chooses its name and its arguments itself, and whoever makes a file chooses its name.
pub(crate) fn printable(text: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_obeyed, "?")
}

//! Texts that terminals print. `preload/` and `cli/` compile this file, too.

/// A text in which a question mark replaces each control character and each character that changes
/// a line's direction. Processes choose their names and arguments, and users choose file names.
pub(crate) fn printable(text: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_obeyed, "?")
}

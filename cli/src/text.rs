//! Numbers as people read them.

use std::time::Duration;

/// `950 us`, `12.3 ms`, `4.5 s`, `3 min 20 s`, `5 h 2 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let us = duration.as_micros();
    let s = duration.as_secs();
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        60_000_000..3_600_000_000 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// A duration that is known to the ms only.
pub(crate) fn about(known: Duration) -> String {
    if known < Duration::from_millis(1) { "under 1 ms".to_owned() } else { duration(known) }
}

/// `512 B`, `4.1 kB`, `1.2 MB`; powers of 1000.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A file's size, or that there is none.
pub(crate) fn size(size: Option<u64>) -> String {
    size.map_or_else(|| "none".to_owned(), bytes)
}

/// A text in lines of at most `width` characters, broken between words if possible. All lines but
/// the first are indented.
pub(crate) fn folded(text: &str, width: usize, indent: usize) -> Vec<String> {
    // With less width nothing could be read anyway.
    let (width, indent) = (width.max(8), indent.min(width / 2));
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let prefix = if lines.is_empty() { 0 } else { indent };
        let room = width - prefix;
        let Some((end, _)) = rest.char_indices().nth(room) else {
            lines.push(format!("{:prefix$}{rest}", ""));
            return lines;
        };
        // The spaces after a label are no place to break.
        let label = if lines.is_empty() { indent } else { 0 };
        let until = rest.char_indices().take(room + 1);
        let space = until.skip(label).filter(|(_, c)| *c == ' ').last();
        let (line, next) = match space {
            Some((at, _)) if at > 0 => (&rest[..at], &rest[at + 1..]),
            _ => rest.split_at(end),
        };
        lines.push(format!("{:prefix$}{line}", ""));
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_folded_between_words() {
        assert_eq!(folded("holder    pid 7 waits", 16, 10), ["holder    pid 7", "        waits"]);
        assert_eq!(folded("short", 40, 10), ["short"]);
        assert_eq!(folded("abcdefghijklmnop", 10, 2), ["abcdefghij", "  klmnop"]);
        assert_eq!(
            folded("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9} \u{e9}", 8, 0).len(),
            2
        );
        assert_eq!(folded("", 1, 10), [""]);
    }

    #[test]
    fn numbers_have_the_unit_that_fits() {
        let us = |us| duration(Duration::from_micros(us));
        assert_eq!(
            [us(0), us(999), us(1_000), us(59_949_000)],
            ["0 us", "999 us", "1.0 ms", "59.9 s"]
        );
        assert_eq!([us(60_000_000), us(7_260_000_000)], ["1 min 0 s", "2 h 1 min"]);
        assert_eq!([bytes(0), bytes(4096), bytes(1_500_000)], ["0 B", "4.1 kB", "1.5 MB"]);
        assert_eq!(size(None), "none");
    }
}

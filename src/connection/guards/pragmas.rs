//! Pragmas by which an application gives up durability, for the status.
//! <https://www.sqlite.org/pragma.html#pragma_synchronous>

/// What one connection's pragmas were set to.
#[derive(Debug, Default)]
pub(crate) struct Pragmas {
    /// `PRAGMA synchronous` is OFF.
    is_synchronous_off: bool,
    /// The value of `PRAGMA journal_mode`, if that mode keeps no journal in a file.
    journalless: Option<&'static str>,
}

impl Pragmas {
    /// A pragma is being compiled.
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8]) {
        let is = |text: &str| value.eq_ignore_ascii_case(text.as_bytes());
        if name.eq_ignore_ascii_case(b"synchronous") && !value.is_empty() {
            self.is_synchronous_off = ["off", "0", "false", "no"].into_iter().any(is);
        }
        if name.eq_ignore_ascii_case(b"journal_mode") && !value.is_empty() {
            self.journalless = ["off", "memory"].into_iter().find(|mode| is(mode));
        }
    }

    pub(crate) fn is_synchronous_off(&self) -> bool {
        self.is_synchronous_off
    }

    pub(crate) fn journalless(&self) -> Option<&'static str> {
        self.journalless
    }
}

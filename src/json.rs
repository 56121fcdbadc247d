//! JSON (RFC 8259), for the answers of the VFS's pragmas.

use std::fmt::{self, Display, Write};

/// A JSON object that is being written.
pub(crate) struct Object(String);

impl Object {
    /// An object without fields.
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a field whose value displays as JSON.
    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        // Writing to a String does not fail.
        let _ = write!(self.0, "{comma}{}:{value}", Text(name));
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}}}", self.0)
    }
}

/// A string, displayed as JSON (RFC 8259).
pub(crate) struct Text<'t>(pub(crate) &'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(Text("a\"b\\c\n\u{1}é").to_string(), r#""a\"b\\c\u000a\u0001é""#);
        let mut object = Object::new();
        object.field("n", 1);
        object.field("t", Text("x"));
        assert_eq!(object.to_string(), r#"{"n":1,"t":"x"}"#);
    }
}

//! Where a text is wrong: the one error of everything here that reads MOF, queries and paths.

/// A text that is not what it should be, and the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}line {line}, column {column}: {problem}", .file.as_ref().map(|file| format!("{file}, ")).unwrap_or_default())]
pub struct SyntaxError {
    /// The file, where the text came from one that has a name.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

/// The same while the text is at hand: the place in bytes.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Bytes before the place.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) problem: String,
}

impl Fault {
    pub(crate) fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }

    /// The error for a caller who has no longer the text.
    pub(crate) fn within(self, text: &str) -> SyntaxError {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        SyntaxError {
            file: None,
            line: 1 + before.bytes().filter(|byte| *byte == b'\n').count(),
            column: 1 + before[line_start..].chars().count(),
            problem: self.problem,
        }
    }
}

/// What stands at the beginning of `rest` and is a number or a bad try at one: what it is worth, the caller says.
pub(crate) fn number_like(rest: &str) -> &str {
    let mut length = 0;
    let bytes = rest.as_bytes();
    while let Some(byte) = bytes.get(length) {
        let exponent = length > 0 && matches!(bytes[length - 1], b'e' | b'E') && !rest.starts_with("0x");
        match byte {
            b'+' | b'-' if length == 0 || exponent => {}
            b'.' => {}
            byte if byte.is_ascii_alphanumeric() => {}
            _ => break,
        }
        length += 1;
    }
    &rest[..length]
}

/// A piece of a text for a message: not long, and on one line.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut short: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

//! The one door for output: data on stdout, talk on stderr.
//!
//! `--json` prints data as JSON and silences nothing else; `--quiet` silences talk. A closed stdout (`| head`) ends the
//! program quietly, as it does other Unix tools.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where commands print.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Printer {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Printer {
    /// One line of data.
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result {
        let mut out = io::stdout().lock();
        done(writeln!(out, "{}", one_line(text.as_ref())))
    }

    /// Data as JSON, indented.
    pub(crate) fn json<T: Serialize>(self, value: &T) -> Result {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::new("internal", format!("cannot print as JSON: {e}")))?;
        let mut out = io::stdout().lock();
        done(writeln!(out, "{text}"))
    }

    /// One line of talk.
    #[expect(clippy::print_stderr, reason = "this is the door")]
    pub(crate) fn talk(self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", one_line(text.as_ref()));
        }
    }

    /// A question, which an answer follows on the same line.
    #[expect(clippy::print_stderr, reason = "this is the door")]
    pub(crate) fn ask(self, text: impl AsRef<str>) {
        eprint!("{} ", text.as_ref());
    }

    /// A failure: always on stderr, with its hint.
    #[expect(clippy::print_stderr, reason = "this is the door")]
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            let message = without_numbers(&failure.message);
            let value = serde_json::json!({
                "error": { "id": failure.id, "message": message, "hint": failure.hint }
            });
            eprintln!("{value}");
            return;
        }
        eprintln!("error: {} [{}]", one_line(&without_numbers(&failure.message)), failure.id);
        for hint in failure.hint.iter().flat_map(|h| h.lines()) {
            eprintln!("hint: {}", one_line(hint));
        }
    }

    /// Rows under headings, columns as wide as they must be.
    pub(crate) fn table(self, headings: &[&str], rows: &[Vec<String>]) -> Result {
        let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, width) in cells.zip(&widths) {
                text.push_str(cell);
                text.push_str(&" ".repeat(width.saturating_sub(cell.chars().count()) + 2));
            }
            text.trim_end().to_owned()
        };
        self.line(line(&mut headings.iter().copied()))?;
        for row in rows {
            self.line(line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }

    /// Whether progress is worth drawing.
    pub(crate) fn draws(self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }
}

/// `text` as it may be shown. Names come out of foreign files: none may move the cursor, colour the screen, turn the
/// direction of writing or begin a line of its own.
fn one_line(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// `text` without the operating system's error numbers, which say nothing that the words before them do not.
fn without_numbers(text: &str) -> Cow<'_, str> {
    let (mark, mut rest, mut kept) = (" (os error ", text, String::new());
    while let Some((before, after)) = rest.split_once(mark) {
        match after.split_once(')') {
            Some((number, after)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
                kept.push_str(before);
                rest = after;
            }
            _ => {
                kept.extend([before, mark]);
                rest = after;
            }
        }
    }
    if kept.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(kept + rest) }
}

fn done(written: io::Result<()>) -> Result {
    match written {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::new(CLOSED, "")),
        Err(e) => Err(Failure::new("io", format!("cannot write to standard output: {e}"))),
    }
}

/// The id of the failure that a closed stdout is.
pub(crate) const CLOSED: &str = "closed-output";

/// A path in JSON, which has no place for what is not Unicode.
pub(crate) fn json_path(path: impl AsRef<std::path::Path>) -> serde_json::Value {
    path.as_ref().to_string_lossy().into()
}

/// Bytes for people: `1.5 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value.fract() < 0.05 || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_are_left_out_and_nothing_else() {
        assert_eq!(without_numbers("a: gone (os error 2): b (os error 13)"), "a: gone: b");
        assert_eq!(without_numbers("`x (os error two)` (os error 5)"), "`x (os error two)`");
        assert_eq!(without_numbers("(os error "), "(os error ");
    }
}

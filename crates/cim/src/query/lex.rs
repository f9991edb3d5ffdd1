//! A query as words, texts, numbers and marks.

use crate::Value;
use crate::syntax::{Fault, number_like, shown};

/// One piece of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword or a name; keywords are not reserved.
    Word(String),
    /// A text in quotes of either kind.
    Text(String),
    /// A number.
    Number(Value),
    /// What stands between braces, as it is, and where it begins.
    Braces(usize, String),
    /// A mark of one or two characters.
    Mark(&'static str),
    /// Behind the last.
    End,
}

impl Token {
    /// As a message names it.
    pub(super) fn named(&self) -> String {
        match self {
            Self::Word(word) => format!("`{}`", shown(word)),
            Self::Text(text) => format!("'{}'", shown(text)),
            Self::Number(number) => format!("`{number}`"),
            Self::Braces(_, text) => format!("`{{{}}}`", shown(text)),
            Self::Mark(mark) => format!("`{mark}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Whether a text is one word, as a name must be.
pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Longer ones first.
const MARKS: [&str; 12] = ["<>", "<=", ">=", "!=", "=", "<", ">", "(", ")", ",", "*", "."];

/// The tokens of a text with the places where they begin; the last is the end.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at +=
            text[at..].len() - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == '\0').len();
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            tokens.push((at, Token::End));
            return Ok(tokens);
        };
        let (length, token) = match first {
            '\'' | '"' => quoted(at, rest)?,
            '{' => braces(at, rest)?,
            '0'..='9' | '-' | '+' => number(at, rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                (length, Token::Word(rest[..length].to_owned()))
            }
            _ => match MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
                Some(mark) => (mark.len(), Token::Mark(mark)),
                None => {
                    let problem = format!("`{}` has no meaning in a query", first.escape_debug());
                    return Err(Fault::new(at, problem));
                }
            },
        };
        tokens.push((at, token));
        at += length;
    }
}

/// A text with `\` before what would end it or before another `\`; one that escapes nothing stands for itself. A quote
/// twice is a quote, as in SQL.
fn quoted(at: usize, rest: &str) -> Result<(usize, Token), Fault> {
    let mut text = String::new();
    let mut chars = rest.char_indices().peekable();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((n, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match next {
            _ if Some(c) == quote && next == quote => {
                text.push(c);
                chars.next();
            }
            _ if Some(c) == quote => return Ok((n + 1, Token::Text(text))),
            Some(escaped @ ('\\' | '\'' | '"')) if c == '\\' => {
                text.push(escaped);
                chars.next();
            }
            _ => text.push(c),
        }
    }
    Err(Fault::new(at, "the text has no closing quote"))
}

/// An object path; braces inside its quotes belong to it.
fn braces(at: usize, rest: &str) -> Result<(usize, Token), Fault> {
    let mut quote = None;
    let mut escaped = false;
    for (n, c) in rest.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '}' => return Ok((n + 1, Token::Braces(at + 1, rest[1..n].to_owned()))),
            None if c == '"' || c == '\'' => quote = Some(c),
            None => {}
        }
    }
    Err(Fault::new(at, "the brace is not closed"))
}

fn number(at: usize, rest: &str) -> Result<(usize, Token), Fault> {
    let spelled = number_like(rest);
    let value = if spelled.contains('.') {
        Value::parse(&crate::Type::Real64, spelled)
    } else {
        Value::parse(&crate::Type::Uint64, spelled).or_else(|_| Value::parse(&crate::Type::Sint64, spelled))
    };
    let value = value.or_else(|_| Value::parse(&crate::Type::Real64, spelled));
    match value {
        Ok(Value::Real64(number)) if !number.is_finite() => {
            Err(Fault::new(at, format!("`{}` is too large", shown(spelled))))
        }
        Ok(value) => Ok((spelled.len(), Token::Number(value))),
        Err(_) => Err(Fault::new(at, format!("`{}` is no number", shown(spelled)))),
    }
}

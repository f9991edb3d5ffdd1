//! MOF as words, texts, numbers and marks.

use std::borrow::Cow;

use crate::syntax::{Fault, number_like, shown};

/// One piece of MOF.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// A name or a keyword. MOF reserves none that could not be told by its place.
    Word(&'t str),
    /// `$Name`, without the dollar.
    Alias(&'t str),
    /// A text in double quotes, escapes replaced.
    Text(Cow<'t, str>),
    /// A character in single quotes.
    Char(u16),
    /// A whole number of any base.
    Integer(i128),
    /// A number with a point.
    Real(f64),
    /// A character that means something by itself.
    Mark(char),
    /// Behind the last.
    End,
}

impl Token<'_> {
    /// As a message names it.
    pub(super) fn named(&self) -> String {
        match self {
            Self::Word(word) => format!("`{}`", shown(word)),
            Self::Alias(name) => format!("`${}`", shown(name)),
            Self::Text(text) => format!("\"{}\"", shown(text)),
            Self::Char(_) => "a character".to_owned(),
            Self::Integer(number) => format!("`{number}`"),
            Self::Real(number) => format!("`{number}`"),
            Self::Mark(mark) => format!("`{mark}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Hands out tokens.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn continues_word(c: char) -> bool {
    starts_word(c) || c.is_ascii_digit()
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The next token and where it begins.
    pub(super) fn token(&mut self) -> Result<(usize, Token<'t>), Fault> {
        self.skip()?;
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok((start, Token::End)) };
        let token = match first {
            '"' => self.quoted()?,
            '\'' => self.character()?,
            '$' => {
                self.at += 1;
                Token::Alias(self.word())
            }
            c if starts_word(c) => Token::Word(self.word()),
            '0'..='9' | '+' | '-' | '.' => self.number()?,
            '{' | '}' | '(' | ')' | '[' | ']' | ';' | ':' | ',' | '=' | '#' => {
                self.at += 1;
                Token::Mark(first)
            }
            other => {
                return Err(Fault::new(start, format!("`{}` has no meaning in MOF", other.escape_debug())));
            }
        };
        Ok((start, token))
    }

    /// Over white space and comments.
    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\x0c', '\0']).len();
            self.at += blank;
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or_else(|| Fault::new(self.at, "the comment has no end"))?;
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !continues_word(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn quoted(&mut self) -> Result<Token<'t>, Fault> {
        let start = self.at;
        self.at += 1;
        let rest = self.rest();
        let open = || Fault::new(start, "the text has no closing quote");
        let end = rest.find(['"', '\\']).ok_or_else(open)?;
        if rest.as_bytes()[end] == b'"' {
            self.at += end + 1;
            return Ok(Token::Text(Cow::Borrowed(&rest[..end])));
        }
        let mut text = rest[..end].to_owned();
        self.at += end;
        let mut high: Option<u16> = None;
        loop {
            let here = self.at;
            let c = self.rest().chars().next().ok_or_else(open)?;
            let unit = if c == '\\' { Some(self.escape()?) } else { None };
            let lone = || Fault::new(here, "half of a surrogate pair");
            match (high.take(), unit) {
                (Some(high), Some(low @ 0xdc00..=0xdfff)) => {
                    text.push(char::decode_utf16([high, low]).next().and_then(Result::ok).ok_or_else(lone)?);
                    continue;
                }
                (Some(_), _) => return Err(lone()),
                (None, Some(first @ 0xd800..=0xdbff)) => high = Some(first),
                (None, Some(unit)) => text.push(char::from_u32(unit.into()).ok_or_else(lone)?),
                (None, None) => {
                    self.at += c.len_utf8();
                    if c == '"' {
                        return Ok(Token::Text(Cow::Owned(text)));
                    }
                    text.push(c);
                }
            }
        }
    }

    fn character(&mut self) -> Result<Token<'t>, Fault> {
        let start = self.at;
        let wrong = || Fault::new(start, "a character stands alone between single quotes");
        self.at += 1;
        let first = self.rest().chars().next().ok_or_else(wrong)?;
        let unit = if first == '\\' {
            self.escape()?
        } else {
            self.at += first.len_utf8();
            u16::try_from(u32::from(first)).map_err(|_| wrong())?
        };
        if !self.rest().starts_with('\'') {
            return Err(wrong());
        }
        self.at += 1;
        Ok(Token::Char(unit))
    }

    /// The UTF-16 unit that an escape stands for.
    fn escape(&mut self) -> Result<u16, Fault> {
        let start = self.at;
        let escaped = self.rest()[1..].chars().next().unwrap_or(' ');
        self.at += 1 + escaped.len_utf8().min(self.rest().len() - 1);
        Ok(match escaped {
            'b' => 8,
            't' => 9,
            'n' => 10,
            'f' => 12,
            'r' => 13,
            '"' | '\'' | '\\' => escaped as u16,
            'x' | 'X' => {
                let rest = self.rest();
                let digits: usize = rest.bytes().take(4).take_while(u8::is_ascii_hexdigit).count();
                self.at += digits;
                u16::from_str_radix(&rest[..digits], 16)
                    .map_err(|_| Fault::new(start, "one to four hexadecimal digits follow \\x"))?
            }
            other => {
                return Err(Fault::new(start, format!("`\\{}` is no escape of MOF", other.escape_debug())));
            }
        })
    }

    fn number(&mut self) -> Result<Token<'t>, Fault> {
        let start = self.at;
        let rest = self.rest();
        let spelled = number_like(rest);
        self.at += spelled.len();
        let wrong = || Fault::new(start, format!("`{}` is no number", shown(spelled)));
        let (sign, digits) = match spelled.strip_prefix(['-', '+']) {
            Some(digits) => (if spelled.starts_with('-') { -1 } else { 1 }, digits),
            None => (1, spelled),
        };
        let lower = digits.to_ascii_lowercase();
        let all = |text: &str, allowed: fn(&u8) -> bool| {
            !text.is_empty() && text.bytes().all(|byte| allowed(&byte))
        };
        let whole = |text: &str, radix| i128::from_str_radix(text, radix).map_err(|_| wrong());
        let number = if let Some(hex) = lower.strip_prefix("0x").filter(|hex| all(hex, u8::is_ascii_hexdigit))
        {
            whole(hex, 16)?
        } else if let Some(binary) =
            lower.strip_suffix('b').filter(|binary| all(binary, |byte| matches!(byte, b'0' | b'1')))
        {
            whole(binary, 2)?
        } else if lower.len() > 1 && lower.starts_with('0') && all(&lower, |byte| matches!(byte, b'0'..=b'7'))
        {
            whole(&lower, 8)?
        } else if all(&lower, u8::is_ascii_digit) {
            whole(&lower, 10)?
        } else if lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let real: f64 = lower.parse().map_err(|_| wrong())?;
            return Ok(Token::Real(if sign < 0 { -real } else { real }));
        } else {
            return Err(wrong());
        };
        Ok(Token::Integer(sign * number))
    }
}

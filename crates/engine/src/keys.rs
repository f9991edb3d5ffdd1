//! Keys of a PC keyboard, chords of them, and how people write both.
//!
//! `ctrl-alt-del`, `f2`, `shift-a` are chords; [`from_text`] gives the chords that type a text on a US layout (the
//! guest's own layout decides what it makes of them). The codes an engine sends are its own matter.

use std::fmt;
use std::str::FromStr;

/// Most keys held at once.
pub const MAX_CHORD: usize = 8;
/// Longest text typed in one go, in characters.
pub const MAX_TEXT: usize = 4096;
/// Most bytes of scan codes in one go.
pub const MAX_SCAN_CODES: usize = 1024;

/// A key by its place on a US keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// A letter (`'a'` to `'z'`), digit (`'0'` to `'9'`) or one of `` -=[]\;'`,./ `` and space: made by [`Key::char`].
    Char(PlainChar),
    /// F1 to F12 and beyond: made by [`Key::function`].
    Function(FunctionNumber),
    /// A key with a name.
    Named(NamedKey),
}

/// A character that a key gives without shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainChar(char);

impl PlainChar {
    /// The character, lower case.
    pub fn get(self) -> char {
        self.0
    }
}

/// The number of a function key, 1 to 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FunctionNumber(u8);

impl FunctionNumber {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

macro_rules! named_keys {
    ($($variant:ident => $name:literal $(| $alias:literal)*),+ $(,)?) => {
        /// A key with a name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum NamedKey { $($variant),+ }

        impl NamedKey {
            /// Every one of them.
            pub const ALL: &[NamedKey] = &[$(NamedKey::$variant),+];

            /// How it is written.
            pub fn name(self) -> &'static str {
                match self { $(NamedKey::$variant => $name),+ }
            }

            fn parse(text: &str) -> Option<NamedKey> {
                match text {
                    $($name $(| $alias)* => Some(NamedKey::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

named_keys! {
    Ctrl => "ctrl" | "control", RightCtrl => "ctrl_r", Alt => "alt", AltGr => "altgr" | "alt_r",
    Shift => "shift", RightShift => "shift_r", Meta => "meta" | "win" | "super", RightMeta => "meta_r",
    Menu => "menu", Enter => "enter" | "return" | "ret", Esc => "esc" | "escape", Tab => "tab",
    Space => "space" | "spc", Backspace => "backspace", Delete => "del" | "delete",
    Insert => "insert" | "ins", Home => "home", End => "end", PageUp => "pageup" | "pgup",
    PageDown => "pagedown" | "pgdn", Up => "up", Down => "down", Left => "left", Right => "right",
    CapsLock => "capslock", NumLock => "numlock", ScrollLock => "scrolllock",
    Print => "print" | "sysrq" | "printscreen", Pause => "pause" | "break",
}

const PLAIN: &str = "abcdefghijklmnopqrstuvwxyz0123456789-=[]\\;'`,./";
// The same places with shift, from the first that is no letter.
const UNSHIFTED: &str = "1234567890-=[]\\;'`,./";
const SHIFTED: &str = "!@#$%^&*()_+{}|:\"~<>?";

impl Key {
    /// The key that gives `c` without shift.
    pub fn char(c: char) -> Option<Key> {
        match c {
            ' ' => Some(Key::Named(NamedKey::Space)),
            '\n' | '\r' => Some(Key::Named(NamedKey::Enter)),
            '\t' => Some(Key::Named(NamedKey::Tab)),
            c if PLAIN.contains(c) => Some(Key::Char(PlainChar(c))),
            _ => None,
        }
    }

    /// A function key, 1 to 12.
    pub fn function(number: u8) -> Option<Key> {
        (1..=12).contains(&number).then_some(Key::Function(FunctionNumber(number)))
    }
}

/// A key that goes down, or comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stroke {
    /// Which.
    pub key: Key,
    /// Down, or up.
    pub down: bool,
}

/// What scan codes of set 1 do, as a PC's keyboard controller gives them: a byte for a key that goes down, the same with
/// its highest bit set when it comes up, and `0xe0` before those that an AT keyboard had added.
///
/// # Errors
/// A code of no key, an `0xe0` with nothing behind it, or more than [`MAX_SCAN_CODES`] bytes.
pub fn from_scan_codes(bytes: &[u8]) -> Result<Vec<Stroke>, KeyError> {
    if bytes.len() > MAX_SCAN_CODES {
        return Err(KeyError::ScanCodes);
    }
    let mut strokes = Vec::new();
    let mut extended = false;
    for byte in bytes {
        if *byte == 0xe0 && !extended {
            extended = true;
            continue;
        }
        let key = scan_code(byte & 0x7f, extended).ok_or(KeyError::ScanCode(*byte))?;
        strokes.push(Stroke { key, down: byte & 0x80 == 0 });
        extended = false;
    }
    if extended { Err(KeyError::ScanCode(0xe0)) } else { Ok(strokes) }
}

/// The key of a scan code of set 1 without its highest bit.
fn scan_code(code: u8, extended: bool) -> Option<Key> {
    use NamedKey as N;
    /// Rows of keys that give a character: the code of the first, and all of them.
    const ROWS: &[(u8, &str)] =
        &[(0x02, "1234567890-="), (0x10, "qwertyuiop[]"), (0x1e, "asdfghjkl;'`"), (0x2b, "\\zxcvbnm,./")];
    let named = match (extended, code) {
        (false, 0x01) => N::Esc,
        (false, 0x0e) => N::Backspace,
        (false, 0x0f) => N::Tab,
        (_, 0x1c) => N::Enter,
        (false, 0x1d) => N::Ctrl,
        (true, 0x1d) => N::RightCtrl,
        (false, 0x2a) => N::Shift,
        (false, 0x36) => N::RightShift,
        (true, 0x37) => N::Print,
        (false, 0x38) => N::Alt,
        (true, 0x38) => N::AltGr,
        (false, 0x39) => N::Space,
        (false, 0x3a) => N::CapsLock,
        (false, 0x45) => N::NumLock,
        (false, 0x46) => N::ScrollLock,
        (true, 0x47) => N::Home,
        (true, 0x48) => N::Up,
        (true, 0x49) => N::PageUp,
        (true, 0x4b) => N::Left,
        (true, 0x4d) => N::Right,
        (true, 0x4f) => N::End,
        (true, 0x50) => N::Down,
        (true, 0x51) => N::PageDown,
        (true, 0x52) => N::Insert,
        (true, 0x53) => N::Delete,
        (true, 0x5b) => N::Meta,
        (true, 0x5c) => N::RightMeta,
        (true, 0x5d) => N::Menu,
        (false, 0x3b..=0x44) => return Key::function(code - 0x3a),
        (false, 0x57 | 0x58) => return Key::function(code - 0x4c),
        (false, _) => {
            let (first, keys) = ROWS.iter().rev().find(|(first, _)| *first <= code)?;
            return Key::char(char::from(*keys.as_bytes().get(usize::from(code - first))?));
        }
        (true, _) => return None,
    };
    Some(Key::Named(named))
}

/// Keys pressed in order, held together, released in reverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chord(Vec<Key>);

impl Chord {
    /// The keys, in the order they go down; 1 to [`MAX_CHORD`].
    pub fn keys(&self) -> &[Key] {
        &self.0
    }
}

impl From<Key> for Chord {
    fn from(key: Key) -> Chord {
        Chord(vec![key])
    }
}

/// Text that names no key, or that no US keyboard types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No such key.
    #[error("`{0}` names no key; keys are written like ctrl-alt-del, f2, enter, a")]
    Unknown(String),
    /// No key or too many.
    #[error("a chord has 1 to {MAX_CHORD} keys")]
    ChordLength,
    /// A character beyond a US keyboard.
    #[error("{0:?} cannot be typed on a US keyboard")]
    Untypable(char),
    /// A scan code of no key.
    #[error("{0:#04x} is no scan code of a key")]
    ScanCode(u8),
    /// Scan codes beyond [`MAX_SCAN_CODES`].
    #[error("at most {MAX_SCAN_CODES} bytes of scan codes are taken at once")]
    ScanCodes,
    /// A text beyond [`MAX_TEXT`].
    #[error("a text to type has at most {MAX_TEXT} characters")]
    TextLength,
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let lower = text.to_ascii_lowercase();
        // In a chord `-` is what stands between its keys.
        let lower = if lower == "minus" { "-" } else { &lower };
        let mut chars = lower.chars();
        if let (Some(c), None) = (chars.next(), chars.next())
            && let Some(key) = Key::char(c)
        {
            return Ok(key);
        }
        if let Some(number) = lower.strip_prefix('f').and_then(|n| n.parse().ok())
            && let Some(key) = Key::function(number)
        {
            return Ok(key);
        }
        NamedKey::parse(lower)
            .map(Key::Named)
            .ok_or_else(|| KeyError::Unknown(text.chars().take(40).collect()))
    }
}

impl FromStr for Chord {
    type Err = KeyError;

    /// `ctrl-alt-del` or `ctrl+alt+del`; a lone `-` or `+` at the end is the key itself.
    fn from_str(text: &str) -> Result<Chord, KeyError> {
        let mut keys = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            // From the second byte on: a separator in first place is a key.
            let end = rest
                .char_indices()
                .skip(1)
                .find(|(_, c)| matches!(c, '-' | '+'))
                .map_or(rest.len(), |(i, _)| i);
            if keys.len() == MAX_CHORD {
                return Err(KeyError::ChordLength);
            }
            keys.push(rest.get(..end).unwrap_or_default().parse()?);
            rest = match rest.get(end + 1..) {
                Some("") => return Err(KeyError::Unknown(text.chars().take(40).collect())),
                Some(more) => more,
                None => "",
            };
        }
        if keys.is_empty() { Err(KeyError::ChordLength) } else { Ok(Chord(keys)) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Char(c) => write!(f, "{}", c.0),
            Key::Function(n) => write!(f, "f{}", n.0),
            Key::Named(n) => f.write_str(n.name()),
        }
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, key) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("-")?;
            }
            key.fmt(f)?;
        }
        Ok(())
    }
}

/// The chords that type `text` on a US keyboard; a line feed is Enter.
///
/// # Errors
/// A character that is not there, or a text beyond [`MAX_TEXT`].
pub fn from_text(text: &str) -> Result<Vec<Chord>, KeyError> {
    let mut chords = Vec::new();
    for c in text.chars() {
        if chords.len() == MAX_TEXT {
            return Err(KeyError::TextLength);
        }
        let (shift, base) = if c.is_ascii_uppercase() {
            (true, c.to_ascii_lowercase())
        } else if let Some(place) = SHIFTED.find(c) {
            (true, UNSHIFTED.as_bytes().get(place).map_or(c, |b| char::from(*b)))
        } else {
            (false, c)
        };
        let key = Key::char(base).ok_or(KeyError::Untypable(c))?;
        chords.push(if shift { Chord(vec![Key::Named(NamedKey::Shift), key]) } else { key.into() });
    }
    Ok(chords)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chords_as_people_write_them() {
        for (text, shown) in [
            ("ctrl-alt-del", "ctrl-alt-del"),
            ("Ctrl+Alt+F2", "ctrl-alt-f2"),
            ("return", "enter"),
            ("-", "-"),
            ("ctrl--", "ctrl--"),
            ("f12", "f12"),
            ("f", "f"),
        ] {
            assert_eq!(text.parse::<Chord>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "f13", "ctrl-", "ctrl-nokey", "é", "a-a-a-a-a-a-a-a-a"] {
            assert!(text.parse::<Chord>().is_err(), "{text}");
        }
    }

    #[test]
    fn scan_codes_are_strokes() {
        let shown = |bytes: &[u8]| {
            let strokes = from_scan_codes(bytes).unwrap();
            let one = |s: &Stroke| format!("{}{}", if s.down { "+" } else { "-" }, s.key);
            strokes.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&[0x1e, 0x9e]), "+a -a");
        assert_eq!(
            shown(&[0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]),
            "+ctrl +alt +del -del -alt -ctrl"
        );
        assert_eq!(shown(&[0x02, 0x0d, 0x2b, 0x35, 0x29]), "+1 += +\\ +/ +`");
        assert_eq!(shown(&[0x3b, 0x44, 0x57, 0x58]), "+f1 +f10 +f11 +f12");
        for wrong in [&[0xe0_u8][..], &[0x00], &[0x7f], &[0xe0, 0x02], &[0xe0, 0xe0], &[0x37]] {
            assert!(from_scan_codes(wrong).is_err(), "{wrong:x?}");
        }
        assert!(from_scan_codes(&[0x1e; MAX_SCAN_CODES + 1]).is_err());
    }

    #[test]
    fn text_is_typed_with_shift_where_needed() {
        let shown: Vec<_> = from_text("aB?\n").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "shift-b", "shift-/", "enter"]);
        assert_eq!(from_text("a\u{e9}"), Err(KeyError::Untypable('\u{e9}')));
        assert_eq!(SHIFTED.len(), UNSHIFTED.len());
    }
}

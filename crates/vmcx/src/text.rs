//! Lossless UTF-16 text, as Hyper-V stores it.
//!
//! A string value in a container is a run of UTF-16 code units with a byte length; nothing promises that surrogates
//! are paired. [`Text`] therefore keeps the units, and turning it into a Rust string is an explicit, possibly lossy
//! step. Reading from and writing to bytes belongs to the container and XML modules.

use std::fmt;

/// A string value: UTF-16 code units, kept exactly.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Vec<u16>);

impl Text {
    /// Text from raw UTF-16 code units, whatever they are.
    pub fn from_units(units: Vec<u16>) -> Text {
        Text(units)
    }

    /// Text from UTF-16LE bytes; `None` when the length is odd.
    pub fn from_utf16le(bytes: &[u8]) -> Option<Text> {
        let (pairs, rest) = bytes.as_chunks::<2>();
        rest.is_empty().then(|| Text(pairs.iter().map(|p| u16::from_le_bytes(*p)).collect()))
    }

    /// The code units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// The code units as UTF-16LE bytes, without a terminator.
    pub fn to_utf16le(&self) -> Vec<u8> {
        self.0.iter().flat_map(|u| u.to_le_bytes()).collect()
    }

    /// True when there is no code unit at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The units without the one trailing NUL that some foreign writers count into the length. Hyper-V itself stores
    /// none; the NUL stays in the tree so that a rewrite changes nothing.
    pub fn without_nul(&self) -> &[u16] {
        match self.0.split_last() {
            Some((0, rest)) => rest,
            _ => &self.0,
        }
    }

    /// The text as a Rust string without a trailing NUL; unpaired surrogates become U+FFFD.
    pub fn to_string_lossy(&self) -> String {
        String::from_utf16_lossy(self.without_nul())
    }

    /// The text as a Rust string, every unit kept; `None` when a surrogate is unpaired.
    pub fn to_string_exact(&self) -> Option<String> {
        String::from_utf16(&self.0).ok()
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Text {
        Text(s.encode_utf16().collect())
    }
}

impl From<String> for Text {
    fn from(s: String) -> Text {
        Text::from(s.as_str())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.without_nul().iter().copied().eq(other.encode_utf16())
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_string_lossy())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in char::decode_utf16(self.0.iter().copied()) {
            match c {
                Ok(c) => write!(f, "{}", c.escape_debug())?,
                Err(e) => write!(f, "\\u{{{:x}}}", e.unpaired_surrogate())?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpaired_surrogates_survive() {
        let t = Text::from_units(vec![0xd800, 0x41]);
        assert_eq!(Text::from_utf16le(&t.to_utf16le()), Some(t.clone()));
        assert_eq!(t.to_string_exact(), None);
        assert_eq!(t.to_string_lossy(), "\u{fffd}A");
        assert_eq!(format!("{t:?}"), "\"\\u{d800}A\"");
    }

    #[test]
    fn one_trailing_nul_is_shown_without_and_kept() {
        let t = Text::from("name\0");
        assert_eq!(t.to_string_lossy(), "name");
        assert_eq!(t, "name");
        assert_eq!(t.units().len(), 5);
    }

    #[test]
    fn odd_byte_counts_are_no_text() {
        assert_eq!(Text::from_utf16le(&[1, 2, 3]), None);
    }
}

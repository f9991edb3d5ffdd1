//! Bytes to characters and back. The bytes decide about the encoding; the declaration is only a remark.

use crate::error::{ReadError, ReadErrorKind};

/// Encodings that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Little-endian UTF-16: Hyper-V's own.
    Utf16Le,
    /// Big-endian UTF-16.
    Utf16Be,
    /// UTF-8, and so ASCII.
    Utf8,
}

/// Line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newline {
    /// Carriage return and line feed: Hyper-V's own.
    CrLf,
    /// Line feed alone.
    Lf,
}

impl Newline {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Newline::CrLf => "\r\n",
            Newline::Lf => "\n",
        }
    }
}

/// Encoding and whether there is a byte order mark, by the first bytes.
fn detect(bytes: &[u8]) -> (Encoding, bool) {
    match bytes {
        [0xff, 0xfe, ..] => (Encoding::Utf16Le, true),
        [0xfe, 0xff, ..] => (Encoding::Utf16Be, true),
        [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, true),
        [a, 0, ..] if *a != 0 => (Encoding::Utf16Le, false),
        [0, b, ..] if *b != 0 => (Encoding::Utf16Be, false),
        _ => (Encoding::Utf8, false),
    }
}

fn bom_length(encoding: Encoding, bom: bool) -> usize {
    match (encoding, bom) {
        (_, false) => 0,
        (Encoding::Utf8, true) => 3,
        (_, true) => 2,
    }
}

/// Tells by the first bytes whether this is meant to be XML: `<` after a byte order mark and white space.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    let (encoding, bom) = detect(bytes);
    let rest = bytes.get(bom_length(encoding, bom)..).unwrap_or_default();
    let (step, at) = match encoding {
        Encoding::Utf8 => (1, 0),
        Encoding::Utf16Le => (2, 0),
        Encoding::Utf16Be => (2, 1),
    };
    let mut characters = rest.chunks_exact(step);
    let first = characters.find(|c| !(c.iter().all(|b| *b == 0 || b.is_ascii_whitespace()) && c[at] != 0));
    first.is_some_and(|c| c[at] == b'<' && c.iter().enumerate().all(|(i, b)| i == at || *b == 0))
}

/// The text without its byte order mark.
pub(super) fn decode(bytes: &[u8]) -> Result<(String, Encoding, bool), ReadError> {
    let (encoding, bom) = detect(bytes);
    let skip = bom_length(encoding, bom);
    let body = bytes.get(skip..).unwrap_or_default();
    let unit: fn([u8; 2]) -> u16 = match encoding {
        Encoding::Utf8 => {
            let text = std::str::from_utf8(body).map_err(|e| {
                let message = "the XML is neither UTF-16 nor UTF-8";
                ReadError::new(ReadErrorKind::Xml, (skip + e.valid_up_to()) as u64, message)
            })?;
            return Ok((text.to_owned(), encoding, bom));
        }
        Encoding::Utf16Le => u16::from_le_bytes,
        Encoding::Utf16Be => u16::from_be_bytes,
    };
    let (pairs, rest) = body.as_chunks::<2>();
    if !rest.is_empty() {
        let message = "the XML is UTF-16 and ends inside a character";
        return Err(ReadError::new(ReadErrorKind::Truncated, bytes.len() as u64 - 1, message));
    }
    let mut text = String::with_capacity(body.len() / 2);
    let mut at = skip as u64;
    for c in char::decode_utf16(pairs.iter().map(|p| unit(*p))) {
        let c = c.map_err(|_| {
            ReadError::new(ReadErrorKind::Xml, at, "the XML is UTF-16 with half of a surrogate pair")
        })?;
        at += c.len_utf16() as u64 * 2;
        text.push(c);
    }
    Ok((text, encoding, bom))
}

/// The bytes of `text`.
pub(super) fn encode(text: &str, encoding: Encoding, bom: bool) -> Vec<u8> {
    let mark = if bom { "\u{feff}" } else { "" };
    match encoding {
        Encoding::Utf8 => [mark.as_bytes(), text.as_bytes()].concat(),
        Encoding::Utf16Le => {
            mark.encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        }
        Encoding::Utf16Be => {
            mark.encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_told_and_reversed() {
        let text = "<?xml?>\r\n<a>\u{e9}\u{1f600}</a>";
        for encoding in [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be] {
            for bom in [true, false] {
                let bytes = encode(text, encoding, bom);
                assert!(looks_like(&bytes), "{encoding:?} {bom}");
                assert_eq!(decode(&bytes).unwrap(), (text.to_owned(), encoding, bom));
            }
        }
    }

    #[test]
    fn white_space_may_come_first_and_other_bytes_may_not() {
        assert!(looks_like(b" \r\n\t<a/>"));
        assert!(looks_like(&encode("\n<a/>", Encoding::Utf16Le, false)));
        for not in [&b""[..], b"   ", b"a<", b"\xff\xfe", b"\0\0\0\0", b"\xff\xfe\x3c\x4e"] {
            assert!(!looks_like(not), "{not:?}");
        }
    }

    #[test]
    fn half_characters_are_refused_with_their_place() {
        let mut bytes = encode("<a/>", Encoding::Utf16Le, true);
        bytes.push(b'x');
        assert_eq!(decode(&bytes).unwrap_err().offset(), Some(10));
        assert_eq!(decode(&[0xff, 0xfe, b'<', 0, 0, 0xd8, b'a', 0]).unwrap_err().offset(), Some(4));
        assert_eq!(decode(b"<a>\xff").unwrap_err().offset(), Some(3));
    }
}

//! The encodings of messages: UTF-8, and UTF-16 as Windows' own clients send it. A reply has its request's.

/// How a request was encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The usual.
    #[default]
    Utf8,
    /// The low byte first.
    Utf16Little,
    /// The high byte first.
    Utf16Big,
}

impl Encoding {
    /// The `Content-Type` of an envelope.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Utf8 => "application/soap+xml;charset=UTF-8",
            Self::Utf16Little | Self::Utf16Big => "application/soap+xml;charset=UTF-16",
        }
    }

    /// Bytes that `text` takes.
    #[must_use]
    pub fn size(self, text: &str) -> usize {
        match self {
            Self::Utf8 => text.len(),
            Self::Utf16Little | Self::Utf16Big => text.chars().map(|c| c.len_utf16() * 2).sum(),
        }
    }

    /// The bytes, with a byte order mark where there is an order.
    #[must_use]
    pub fn encode(self, text: String) -> Vec<u8> {
        let units = |bytes: fn(u16) -> [u8; 2]| {
            std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        match self {
            Self::Utf8 => text.into_bytes(),
            Self::Utf16Little => units(u16::to_le_bytes),
            Self::Utf16Big => units(u16::to_be_bytes),
        }
    }
}

/// Bytes that are no text of an encoding that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// The encoding is not understood.
    #[error("the request's character set is not supported: send UTF-8 or UTF-16")]
    Unknown,
    /// The bytes are none of it.
    #[error("the request is not what its encoding allows")]
    Broken,
}

/// The text of a request. A byte order mark decides, then how the first character `<` is spelled, then the charset of the
/// `Content-Type`. NULs at the end are left out: a client pads its text with them.
///
/// # Errors
/// The encoding is another one, or the bytes are none of it.
pub fn decode(bytes: &[u8], content_type: Option<&str>) -> Result<(String, Encoding), EncodingError> {
    let charset = content_type.and_then(charset).unwrap_or_default();
    let (encoding, rest) = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => (Encoding::Utf8, rest),
        [0xff, 0xfe, rest @ ..] => (Encoding::Utf16Little, rest),
        [0xfe, 0xff, rest @ ..] => (Encoding::Utf16Big, rest),
        [b'<', 0, ..] => (Encoding::Utf16Little, bytes),
        [0, b'<', ..] => (Encoding::Utf16Big, bytes),
        _ => match charset.to_ascii_lowercase().as_str() {
            "" | "utf-8" | "utf8" | "us-ascii" => (Encoding::Utf8, bytes),
            "utf-16" | "utf-16le" | "unicode" => (Encoding::Utf16Little, bytes),
            "utf-16be" => (Encoding::Utf16Big, bytes),
            _ => return Err(EncodingError::Unknown),
        },
    };
    let mut text = match encoding {
        Encoding::Utf8 => std::str::from_utf8(rest).map_err(|_| EncodingError::Broken)?.to_owned(),
        Encoding::Utf16Little => utf16(rest, u16::from_le_bytes).ok_or(EncodingError::Broken)?,
        Encoding::Utf16Big => utf16(rest, u16::from_be_bytes).ok_or(EncodingError::Broken)?,
    };
    text.truncate(text.trim_end_matches('\0').len());
    Ok((text, encoding))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    char::decode_utf16(units).collect::<Result<_, _>>().ok()
}

fn charset(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::{Encoding, decode};

    #[test]
    fn a_request_is_read_in_its_encoding_whatever_tells_it() {
        let text = "<e>Gr\u{fc}\u{df}e \u{1f600}</e>";
        for encoding in [Encoding::Utf8, Encoding::Utf16Little, Encoding::Utf16Big] {
            let bytes = encoding.encode(text.to_owned());
            assert_eq!(decode(&bytes, None).unwrap(), (text.to_owned(), encoding));
            let unmarked = if encoding == Encoding::Utf8 { &bytes[..] } else { &bytes[2..] };
            assert_eq!(decode(unmarked, None).unwrap(), (text.to_owned(), encoding));
        }
        let padded = [b"<e/>".as_slice(), &[0; 7]].concat();
        assert_eq!(decode(&padded, None).unwrap().0, "<e/>");
    }

    #[test]
    fn what_is_in_no_encoding_is_refused() {
        for (bytes, content_type) in [
            (&b"<e>\xff</e>"[..], None),
            (&[0xff, 0xfe, b'<'][..], None),
            (&[0xff, 0xfe, 0x00, 0xdc][..], None),
            (&b" <e/>"[..], Some("application/soap+xml;charset=\"iso-8859-1\"")),
        ] {
            assert!(decode(bytes, content_type).is_err(), "{bytes:?}");
        }
        assert!(decode(b" <e/>", Some("application/soap+xml; Charset=\"UTF-8\"")).is_ok());
    }
}

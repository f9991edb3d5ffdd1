//! `multipart/encrypted`: how HTTP carries a sealed body ([MS-WSMV] 2.2.9.1).
//!
//! ```text
//! --Encrypted Boundary
//!     Content-Type: application/HTTP-SPNEGO-session-encrypted
//!     OriginalContent: type=application/soap+xml;charset=UTF-8;Length=1234
//! --Encrypted Boundary
//!     Content-Type: application/octet-stream
//! <length of signature, 4 bytes><signature><sealed bytes>--Encrypted Boundary--
//! ```
//!
//! MIME it is not: the sealed bytes end where the last boundary begins, without a line end between. Clients differ in the
//! white space before the headers and in a space after the dashes; both are taken.

/// The protocol of SPNEGO, and of NTLM without it.
pub const SPNEGO: &str = "application/HTTP-SPNEGO-session-encrypted";
/// The `Content-Type` of our sealed replies.
pub const CONTENT_TYPE: &str = r#"multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary""#;
/// The boundary that everybody uses.
const BOUNDARY: &str = "Encrypted Boundary";
/// Longest boundary (RFC 2046 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Longest part of a body before its sealed bytes; real ones have 220 bytes.
const MAX_HEADERS: usize = 2048;
/// Longest signature; NTLM's has 16 bytes, Kerberos' with AES 60.
const MAX_SIGNATURE: usize = 256;

/// A sealed body, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The `Content-Type` of what is sealed.
    pub content_type: &'a str,
    /// Length of what is sealed, in bytes, as the client says.
    pub length: usize,
    /// The signature.
    pub signature: &'a [u8],
    /// The sealed bytes.
    pub data: &'a [u8],
}

/// Why a body is no sealed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed body cannot be read: {0}")]
pub struct Unreadable(&'static str);

/// Whether a body of that `Content-Type` is sealed, or calls itself so.
#[must_use]
pub fn is_sealed(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
}

/// Takes a sealed body apart. Nothing of it is proven by that.
///
/// # Errors
/// It is not as it must be, has several parts, or is of another protocol than SPNEGO.
pub fn read<'a>(content_type: &str, body: &'a [u8]) -> Result<Sealed<'a>, Unreadable> {
    let mut parameters = content_type.split(';').map(str::trim);
    if !parameters.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/encrypted")) {
        return Err(Unreadable("another kind of multipart"));
    }
    let (mut protocol, mut boundary) = (None, BOUNDARY);
    for (name, value) in parameters.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim() {
            name if name.eq_ignore_ascii_case("protocol") => protocol = Some(value),
            name if name.eq_ignore_ascii_case("boundary") => boundary = value,
            _ => {}
        }
    }
    if protocol.is_some_and(|protocol| !protocol.eq_ignore_ascii_case(SPNEGO)) {
        return Err(Unreadable("another protocol than SPNEGO's"));
    }
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err(Unreadable("no boundary that can be"));
    }
    let body = without_end(body, boundary).ok_or(Unreadable("it does not end with its boundary"))?;
    let head = &body[..body.len().min(MAX_HEADERS)];
    let (mut at, mut bounds, mut original, mut kinds) = (0, 0, None, [None; 2]);
    // Header lines until the second part has said what it is; what follows is no text.
    while bounds < 2 || kinds[1].is_none() {
        let line = head[at..].windows(2).position(|two| two == b"\r\n").map(|end| &head[at..at + end]);
        let line = line.ok_or(Unreadable("its headers do not end"))?;
        at += line.len() + 2;
        let line = std::str::from_utf8(line).map_err(|_| Unreadable("a header is no text"))?.trim();
        if line.strip_prefix("--").is_some_and(|rest| rest.trim_start() == boundary) {
            bounds += 1;
            if bounds > 2 {
                return Err(Unreadable("it has more than two parts"));
            }
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(Unreadable("a line is no header"))?;
        match bounds {
            1 | 2 if name.eq_ignore_ascii_case("content-type") => kinds[bounds - 1] = Some(value.trim()),
            1 if name.eq_ignore_ascii_case("originalcontent") => original = Some(value.trim()),
            0 => return Err(Unreadable("it does not begin with its boundary")),
            _ => {}
        }
    }
    if !kinds[0].is_some_and(|kind| kind.eq_ignore_ascii_case(SPNEGO)) {
        return Err(Unreadable("another protocol than SPNEGO's"));
    }
    let (content_type, length) =
        original.and_then(original_content).ok_or(Unreadable("no OriginalContent"))?;
    let rest = &body[at..];
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(Unreadable("no signature"))?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > MAX_SIGNATURE {
        return Err(Unreadable("the signature is too long"));
    }
    let (signature, data) = rest.split_at_checked(count).ok_or(Unreadable("the signature is cut"))?;
    Ok(Sealed { content_type, length, signature, data })
}

/// What stands before `--boundary--` and a line end, which may be missing.
fn without_end<'a>(body: &'a [u8], boundary: &str) -> Option<&'a [u8]> {
    let body = body.strip_suffix(b"\r\n").unwrap_or(body);
    let body = body.strip_suffix(b"--")?.strip_suffix(boundary.as_bytes())?;
    body.strip_suffix(b"--").or_else(|| body.strip_suffix(b"-- "))
}

/// `type=application/soap+xml;charset=UTF-8;Length=1234`.
fn original_content(value: &str) -> Option<(&str, usize)> {
    let (kind, length) = value.rsplit_once(';')?;
    let (name, length) = length.split_once('=')?;
    let kind = kind.trim().strip_prefix("type=")?;
    let digits = length.trim();
    let plain = digits.len() <= 10 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let length = digits.parse().ok().filter(|_| plain)?;
    name.trim().eq_ignore_ascii_case("length").then_some((kind, length))
}

/// A sealed body: `length` bytes of `content_type` that became `data`.
#[must_use]
pub fn write(content_type: &str, length: usize, signature: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = format!(
        "--{BOUNDARY}\r\n\tContent-Type: {SPNEGO}\r\n\tOriginalContent: type={content_type};Length={length}\r\n\
         --{BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n"
    )
    .into_bytes();
    body.extend((signature.len() as u32).to_le_bytes());
    body.extend(signature);
    body.extend(data);
    body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::{CONTENT_TYPE, Sealed, is_sealed, read, write};

    const SOAP: &str = "application/soap+xml;charset=UTF-8";

    #[test]
    fn what_is_written_is_read_whatever_the_bytes() {
        for data in [&b""[..], b"--Encrypted Boundary--\r\n", b"\r\n\r\n", &[0xff; 300]] {
            let body = write(SOAP, data.len(), &[7; 16], data);
            assert!(body.starts_with(b"--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO"));
            let sealed = Sealed { content_type: SOAP, length: data.len(), signature: &[7; 16], data };
            assert_eq!(read(CONTENT_TYPE, &body).unwrap(), sealed);
        }
        assert!(is_sealed(CONTENT_TYPE) && is_sealed("Multipart/x-multi-encrypted") && !is_sealed(SOAP));
    }

    #[test]
    fn what_other_clients_write_differently_is_read() {
        let body = String::from_utf8(write(SOAP, 2, b"sign", b"ab")).unwrap();
        let spaced = body.replace("--Encrypted", "-- Encrypted");
        let untabbed = body.replace('\t', "");
        let unended = body.trim_end().to_owned();
        for body in [spaced, untabbed, unended] {
            assert_eq!(read(CONTENT_TYPE, body.as_bytes()).unwrap().data, b"ab", "{body}");
        }
        let loose = "multipart/encrypted; protocol=application/HTTP-SPNEGO-session-encrypted; boundary=\"Encrypted Boundary\"";
        assert_eq!(read(loose, body.as_bytes()).unwrap().length, 2);
    }

    #[test]
    fn what_is_no_sealed_body_is_refused() {
        let body = String::from_utf8(write(SOAP, 2, b"sign", b"ab")).unwrap();
        for (part, other) in [
            ("--Encrypted Boundary--", "--Encrypted Boundary"),
            ("HTTP-SPNEGO", "HTTP-CredSSP"),
            ("Length=2", "Length=-2"),
            ("Length=2", "Length=99999999999"),
            ("Length=2", "Length=+2"),
            (";Length=2", ""),
            ("OriginalContent", "Original"),
            ("\u{4}\0\0\0", "\u{4}\0\0\u{1}"),
            ("\u{4}\0\0\0", "\u{9}\0\0\0"),
            ("--Encrypted Boundary\r\n\tContent-Type: application/o", "\tContent-Type: application/o"),
        ] {
            let wrong = body.replacen(part, other, 1);
            assert_ne!(wrong, body);
            assert!(read(CONTENT_TYPE, wrong.as_bytes()).is_err(), "{wrong}");
        }
        for kind in
            ["multipart/x-multi-encrypted", "multipart/encrypted;boundary=x", "multipart/encrypted;boundary="]
        {
            assert!(read(kind, body.as_bytes()).is_err(), "{kind}");
        }
        for cut in 0..body.len() - 2 {
            assert!(read(CONTENT_TYPE, &body.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }
}

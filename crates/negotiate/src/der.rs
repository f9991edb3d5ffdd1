//! As much of DER as SPNEGO and the head of a certificate need: tags of one byte, lengths of at most four.

use crate::Refused;

pub(crate) const OID: u8 = 0x06;
pub(crate) const OCTETS: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[APPLICATION 0]`: the frame of a first token (RFC 2743 3.1).
pub(crate) const APPLICATION: u8 = 0x60;

/// The tag `[n]`.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// One element.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    /// What is in it.
    pub(crate) content: &'a [u8],
    /// All of it, tag and length included.
    pub(crate) whole: &'a [u8],
}

/// Elements one after another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next element; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Element<'a>>, Refused> {
        const CUT: Refused = Refused::Malformed("an element is cut");
        let [tag, first, ..] = *self.0 else {
            return if self.0.is_empty() { Ok(None) } else { Err(CUT) };
        };
        let (head, length) = match first {
            ..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let digits = self.0.get(2..2 + count).ok_or(CUT)?;
                (2 + count, digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit)))
            }
            _ => return Err(Refused::Malformed("a length is none of DER")),
        };
        let whole = head.checked_add(length).and_then(|end| self.0.get(..end)).ok_or(CUT)?;
        self.0 = &self.0[whole.len()..];
        Ok(Some(Element { tag, content: &whole[head..], whole }))
    }

    /// The next element, which must have that tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, Refused> {
        self.next()?.filter(|e| e.tag == tag).ok_or(Refused::Malformed("an element is missing"))
    }
}

/// An element.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut made = vec![tag];
    let length = content.len();
    if length < 0x80 {
        made.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let digits = &digits[length.leading_zeros() as usize / 8..];
        made.push(0x80 | digits.len() as u8);
        made.extend_from_slice(digits);
    }
    made.extend_from_slice(content);
    made
}

#[cfg(test)]
mod tests {
    use super::{OCTETS, Reader, element};

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let made = element(OCTETS, &content);
            let mut reader = Reader(&made);
            let read = reader.expect(OCTETS).unwrap();
            assert!(read.content == content && read.whole == made, "{length}");
            assert!(reader.next().unwrap().is_none());
            assert!(Reader(&made[..made.len() - 1]).next().is_err(), "{length}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for wrong in
            [&[4][..], &[4, 0x80, 0, 0], &[4, 0x84, 0xff, 0xff, 0xff, 0xff, 1], &[4, 0x85, 0, 0, 0, 0, 1]]
        {
            assert!(Reader(wrong).next().is_err(), "{wrong:x?}");
        }
    }
}

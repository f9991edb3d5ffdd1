//! Reading a text as XML within limits.
//!
//! A first pass over the text compares it with every limit, so that nothing is built from what will be refused; it also
//! refuses document type definitions, and with them entities. Then a tree is built.

use roxmltree::{Document, ParsingOptions};

/// How much a text may have of what costs memory or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Elements inside one another.
    pub depth: usize,
    /// Elements.
    pub elements: usize,
    /// Attributes of one element.
    pub attributes: usize,
    /// Namespace declarations: each element that has one copies those around it.
    pub declarations: usize,
}

/// A text that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// It is beyond a limit.
    #[error("there are more than {most} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// It has a document type definition.
    #[error("there is a document type definition, which is not accepted")]
    Definition,
    /// It is no XML.
    #[error("this is not well-formed XML: {0}")]
    Malformed(String),
}

impl Bounds {
    /// The tree of a text that is within them.
    ///
    /// # Errors
    /// It is not, or is no XML.
    pub fn parse<'t>(&self, text: &'t str) -> Result<Document<'t>, BoundsError> {
        self.measure(text)?;
        let options = ParsingOptions {
            allow_dtd: false,
            // Texts and comments are nodes, too.
            nodes_limit: u32::try_from(self.elements.saturating_mul(4)).unwrap_or(u32::MAX),
            ..ParsingOptions::default()
        };
        Document::parse_with_options(text, options).map_err(|e| BoundsError::Malformed(e.to_string()))
    }

    /// Compares a text with the limits, without building anything. What is not well-formed passes here and not later.
    fn measure(&self, text: &str) -> Result<(), BoundsError> {
        let beyond = |what, most| Err(BoundsError::Limit { what, most });
        let bytes = text.as_bytes();
        let (mut at, mut depth, mut count, mut declarations) = (0, 0usize, 0usize, 0usize);
        let skip =
            |from: usize, end: &str| text[from..].find(end).map_or(bytes.len(), |n| from + n + end.len());
        while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'<')) {
            at += found;
            let rest = &bytes[at..];
            if rest.starts_with(b"<!--") {
                at = skip(at + 4, "-->");
            } else if rest.starts_with(b"<![CDATA[") {
                at = skip(at + 9, "]]>");
            } else if rest.starts_with(b"<?") {
                at = skip(at + 2, "?>");
            } else if rest.starts_with(b"<!") {
                return Err(BoundsError::Definition);
            } else if rest.starts_with(b"</") {
                depth = depth.saturating_sub(1);
                at = skip(at + 2, ">");
            } else {
                count += 1;
                if count > self.elements {
                    return beyond("elements", self.elements);
                }
                let tag = tag(&bytes[at + 1..]);
                if tag.attributes > self.attributes {
                    return beyond("attributes in one element", self.attributes);
                }
                declarations += tag.declarations;
                if declarations > self.declarations {
                    return beyond("namespace declarations", self.declarations);
                }
                if !tag.empty {
                    depth += 1;
                    if depth > self.depth {
                        return beyond("elements inside one another", self.depth);
                    }
                }
                at += 1 + tag.length;
            }
        }
        Ok(())
    }
}

struct Tag {
    length: usize,
    attributes: usize,
    declarations: usize,
    empty: bool,
}

/// Measures a start tag from behind its `<`.
fn tag(bytes: &[u8]) -> Tag {
    let mut tag = Tag { length: 0, attributes: 0, declarations: 0, empty: false };
    // Where the text outside of quotes began that may be a name.
    let mut word = 0;
    while let Some(byte) = bytes.get(tag.length) {
        tag.length += 1;
        match byte {
            b'>' => {
                tag.empty = tag.length >= 2 && bytes[tag.length - 2] == b'/';
                return tag;
            }
            b'=' => {
                tag.attributes += 1;
                let name = bytes[word..tag.length - 1].trim_ascii();
                tag.declarations += usize::from(name == b"xmlns" || name.starts_with(b"xmlns:"));
            }
            b'"' | b'\'' => {
                let rest = &bytes[tag.length..];
                tag.length += rest.iter().position(|b| b == byte).map_or(rest.len(), |n| n + 1);
                word = tag.length;
            }
            b' ' | b'\t' | b'\r' | b'\n' if bytes.get(tag.length).is_some_and(|next| *next != b'=') => {
                word = tag.length;
            }
            _ => {}
        }
    }
    tag
}

//! The XML form: the same tree as elements, leaves with a `type` attribute.
//!
//! ```text
//! <?xml version="1.0" encoding="UTF-16" standalone="yes"?>
//! <configuration>
//!   <properties>
//!     <version type="integer">1280</version>
//! ```
//!
//! Windows writes UTF-16LE with byte order mark and CRLF; templates edited by hand come as ASCII that still declares
//! UTF-16, so the bytes decide, not the declaration ([`encoding`]). [`read()`] and [`write()`] are inverse to each other on
//! everything Hyper-V writes; flags and unknown types have no place in this form.

mod encoding;
mod read;
mod write;

pub(crate) use encoding::looks_like;
pub use encoding::{Encoding, Newline};
pub(crate) use read::read;
pub(crate) use write::write;

/// Largest XML file that is read or written, in bytes. Real ones have some ten thousand.
const MAX_XML: usize = 16 << 20;

/// What new XML takes over from the file that a tree was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XmlOrigin {
    /// Encoding of the bytes.
    pub encoding: Encoding,
    /// Whether a byte order mark comes first.
    pub bom: bool,
    /// The declaration, `<?xml …?>`; none when empty.
    pub declaration: String,
    /// Line ends.
    pub newline: Newline,
    /// Spaces of indentation a level.
    pub indent: usize,
    /// White space after the root element.
    pub trailing: String,
}

impl Default for XmlOrigin {
    fn default() -> XmlOrigin {
        XmlOrigin {
            encoding: Encoding::Utf16Le,
            bom: true,
            declaration: "<?xml version=\"1.0\" encoding=\"UTF-16\" standalone=\"yes\"?>".to_owned(),
            newline: Newline::CrLf,
            indent: 2,
            trailing: String::new(),
        }
    }
}

/// The spellings of a leaf's type.
mod kind {
    pub(super) const ATTRIBUTE: &str = "type";
    pub(super) const INTEGER: &str = "integer";
    pub(super) const STRING: &str = "string";
    pub(super) const BOOL: &str = "bool";
    pub(super) const BYTES: &str = "bytes";
    pub(super) const DOUBLE: &str = "double";
}

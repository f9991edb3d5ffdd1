//! Hyper-V machine configurations: one ordered key tree, two file forms.
//!
//! ```text
//!  .vmcx .vmrs  ──container::read──┐                     ┌──container::write──▶ .vmcx .vmrs
//!  (log replayed in memory)        ├──▶ Document{Tree} ──┤
//!  .xml, .exp config ──xml::read───┘     get set diff    └──xml::write────────▶ .xml
//! ```
//!
//! [`read`] tells the form by the bytes and gives a [`Document`]: the [`Tree`] and what is needed to write the same
//! form again ([`Document::write`]). The tree keeps order, duplicate sibling names, flags, unknown types and the exact
//! UTF-16 of strings, so that what is not understood goes back out as it came in. [`vmgs`] looks into the guest state
//! file beside a configuration, read only.
//!
//! Input is hostile: every number is bounded by a named limit before use, every checksum is verified, and damage is an
//! error with its offset, never a panic. What the keys *mean* is the business of the `machine` crate; finding the files
//! of an export is that of `transfer`. Facts about the formats: `docs/formats/vmcx.md` and `docs/formats/vmgs.md`.

#![forbid(unsafe_code)]

mod container;
mod diff;
mod document;
mod error;
mod runtime_state;
mod text;
mod tree;
pub mod vmgs;
mod xml;

pub use container::ContainerOrigin;
pub use diff::{Change, diff};
pub use document::{
    Document, Form, Note, Omitted, Origin, Outline, outline_file, read, read_file, read_file_lenient,
    read_lenient, write_container, write_xml,
};
pub use error::{EditError, ReadError, ReadErrorKind, WriteError, WriteErrorKind};
pub use runtime_state::empty_runtime_state;
pub use text::Text;
pub use tree::{Entry, Tree, Value, Walk};
pub use xml::{Encoding, Newline, XmlOrigin};

/// Longest name of a key in bytes of UTF-8: a container counts name and terminator in one byte.
pub const MAX_NAME: usize = 254;

/// Deepest nesting of nodes that is read or written; real trees have about eight levels.
pub const MAX_DEPTH: usize = 128;

/// Largest file that is read into a tree, in bytes. Runtime state that holds a machine's memory is larger: see
/// [`outline_file`].
pub const MAX_FILE: u64 = 256 << 20;

/// Most keys that are read from one file into a tree. A machine has some hundreds, a host's registry some thousands.
pub const MAX_ENTRIES: usize = 1 << 18;

/// Most keys that [`outline_file`] reads: a saved state has one per MiB of guest memory.
pub const MAX_OUTLINE_ENTRIES: usize = 1 << 21;

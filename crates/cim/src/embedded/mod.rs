//! Instances as texts inside strings, which is how methods of Hyper-V take settings and give errors.
//!
//! Clients send what their library makes of an instance: CIM-XML (DSP0201), alone or in its wrappers; WMI's older XML,
//! which has objects as values and system properties besides; or MOF. [`read`] takes all of them, and lets the schema say
//! what types are, since half of them leave types out or have them wrong. [`write`] gives CIM-XML, which all of them read.

mod read;

pub(crate) use read::nested;
pub use read::{read, read_all};

use crate::{Instance, Schema, xml};

/// The instance as a text that clients of every kind read: `<INSTANCE CLASSNAME="…">` with all properties that it has.
/// Properties that are null have no value in it.
#[must_use]
pub fn write(instance: &Instance, schema: &Schema) -> String {
    let mut text = xml::Xml::new();
    xml::Writer::new(schema).instance(&mut text, instance, |_| true);
    text.into_string()
}

/// Longest text that is read, in bytes.
pub const MAX_TEXT: usize = 4 << 20;
/// Most elements, attributes and pieces of text of an XML text.
pub const MAX_NODES: u32 = 200_000;
/// Most instances inside one another.
pub const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests;

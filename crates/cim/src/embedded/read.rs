//! Reading embedded instances.

use roxmltree::{Document, ParsingOptions};

use super::{MAX_DEPTH, MAX_NODES, MAX_TEXT};
use crate::syntax::Fault;
use crate::xml::Reader;
use crate::{Instance, Schema, SyntaxError, Value, mof};

/// The instance that a text declares, with the properties that the text gives it; those without a value are null.
///
/// # Errors
/// The text is neither XML nor MOF, or not of one instance, or does not fit the schema.
pub fn read(text: &str, schema: &Schema) -> Result<Instance, SyntaxError> {
    nested(text, schema, 0)
}

/// The instances that a value carries, be it one or an array, as texts or as such.
///
/// # Errors
/// One of them cannot be [`read`], or is neither a text nor an instance.
pub fn read_all(value: &Value, schema: &Schema) -> Result<Vec<Instance>, SyntaxError> {
    let one = |value: &Value| match value {
        Value::String(text) => read(text, schema),
        Value::Object(instance) => Ok((**instance).clone()),
        _ => Err(Fault::new(0, "an instance is expected, as text or as such").within("")),
    };
    value.elements().iter().map(one).collect()
}

/// The same for a text that is `depth` instances deep in another.
pub(crate) fn nested(text: &str, schema: &Schema, depth: usize) -> Result<Instance, SyntaxError> {
    if text.len() > MAX_TEXT {
        return Err(Fault::new(0, format!("the text has more than {MAX_TEXT} bytes")).within(text));
    }
    if depth > MAX_DEPTH {
        return Err(Fault::new(0, format!("instances are nested more than {MAX_DEPTH} deep")).within(text));
    }
    // Some clients count the NUL that ends their buffer.
    let text = text.trim_start_matches('\u{feff}').trim_end_matches('\0').trim();
    if !text.starts_with('<') {
        let mut instances = mof::instances(text, schema)?;
        return match instances.len() {
            1 => Ok(instances.remove(0)),
            found => Err(Fault::new(0, format!("one instance is expected, found {found}")).within(text)),
        };
    }
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        let place = error.pos();
        SyntaxError {
            file: None,
            line: place.row as usize,
            column: place.col as usize,
            problem: format!("this is no XML: {error}"),
        }
    })?;
    Reader::new(schema).wrapped(document.root_element(), depth).map_err(|fault| fault.within(text))
}

//! `slipway config`: configuration files as they are, key by key.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use vmcx::{Entry, Value};

use super::write_new;
use crate::failure::{Code, Failure, Result};
use crate::printer::Printer;

/// `config dump FILE [--json]`.
pub(crate) fn dump(printer: Printer, file: &Path) -> Result {
    let document = read(file)?;
    if printer.json {
        let entries: Vec<Json> = document.tree.entries.iter().map(entry_json).collect();
        return printer.json(&entries);
    }
    for entry in &document.tree.entries {
        dump_text(printer, entry, 0)?;
    }
    Ok(())
}

/// `config rewrite SRC DST`: reads and writes anew, in the same form.
pub(crate) fn rewrite(printer: Printer, source: &Path, target: &Path) -> Result {
    let document = read(source)?;
    let bytes = document.write().map_err(|e| Failure::at("write", target, &e))?;
    write_new(target, &bytes)?;
    printer.talk(format!("wrote {} keys, {} bytes", document.tree.len(), bytes.len()));
    Ok(())
}

fn read(file: &Path) -> Result<vmcx::Document> {
    vmcx::read_file(file).map_err(|e| {
        let failure = Failure::at("read", file, &e);
        if failure.code == Code::NotFound {
            failure
        } else {
            let mut failure = failure.code(Code::Findings);
            failure.id = "bad-configuration".to_owned();
            failure.or_hint(|| {
                match e.kind() {
                    vmcx::ReadErrorKind::NotAConfiguration => "name a .vmcx, .vmrs or .xml file of a machine",
                    _ => "the file is damaged: fetch it again, or export the machine again",
                }
                .to_owned()
            })
        }
    })
}

/// One entry as `{"name","type","flags","value"|"children"}`.
fn entry_json(entry: &Entry) -> Json {
    let mut object = json!({ "name": entry.name, "type": entry.value.type_name(), "flags": entry.flags });
    let (key, value) = match &entry.value {
        Value::Node(children) => ("children", Json::Array(children.iter().map(entry_json).collect())),
        Value::Int(v) => ("value", json!(v)),
        Value::Uint(v) => ("value", json!(v)),
        Value::Double(v) => ("value", json!(v)),
        Value::String(t) => ("value", json!(t.to_string_lossy())),
        Value::Bool(v) => ("value", json!(v)),
        Value::Array(bytes) | Value::Unknown { data: bytes, .. } => ("value", json!(STANDARD.encode(bytes))),
    };
    if let Json::Object(map) = &mut object {
        map.insert(key.to_owned(), value);
    }
    object
}

fn dump_text(printer: Printer, entry: &Entry, depth: usize) -> Result {
    let indent = "  ".repeat(depth);
    let flags = if entry.flags == 0 { String::new() } else { format!(" flags={:#x}", entry.flags) };
    let value = match &entry.value {
        Value::Node(children) => {
            printer.line(format!("{indent}{}/{flags}", entry.name))?;
            return children.iter().try_for_each(|c| dump_text(printer, c, depth + 1));
        }
        Value::Int(v) => v.to_string(),
        Value::Uint(v) => v.to_string(),
        Value::Double(v) => v.to_string(),
        Value::String(t) => format!("{:?}", t.to_string_lossy()),
        Value::Bool(v) => v.to_string(),
        Value::Array(bytes) | Value::Unknown { data: bytes, .. } => STANDARD.encode(bytes),
    };
    printer.line(format!("{indent}{} ({}){flags} = {value}", entry.name, entry.value.type_name()))
}

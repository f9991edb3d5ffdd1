//! Hyper-V's spelling of ids: `Microsoft:GUID\device\…`, with the GUID of the owner first and in upper case.

use cim::ObjectPath;
use uuid::{Uuid, uuid};

/// What the ids of settings begin with.
const PREFIX: &str = "Microsoft:";
/// The device class of the processors, as in every Hyper-V configuration.
pub(crate) const PROCESSOR: Uuid = uuid!("b637f346-6a0e-4dec-af52-bd70cb80a21d");
/// That of the memory.
pub(crate) const MEMORY: Uuid = uuid!("4764334d-e001-4176-82ee-5594ec9b530e");

/// A GUID as Hyper-V prints it.
pub(crate) fn guid(id: Uuid) -> String {
    let mut text = id.hyphenated().to_string();
    text.make_ascii_uppercase();
    text
}

/// The id of the settings of `owner` itself.
pub(crate) fn of(owner: Uuid) -> String {
    format!("{PREFIX}{}", guid(owner))
}

/// The id of a part of `owner`.
pub(crate) fn part(owner: Uuid, path: &str) -> String {
    format!("{PREFIX}{}\\{path}", guid(owner))
}

/// The id that stands at the beginning of `text`, after `Microsoft:` or not.
pub(crate) fn owner(text: &str) -> Option<Uuid> {
    let text = match text.get(..PREFIX.len()) {
        Some(head) if head.eq_ignore_ascii_case(PREFIX) => &text[PREFIX.len()..],
        _ => text,
    };
    let (id, rest) = text.split_at_checked(36)?;
    (rest.is_empty() || rest.starts_with('\\')).then(|| Uuid::try_parse(id).ok()).flatten()
}

/// The id of what an instance at `path` is part of, as its keys tell; `None` where they do not.
pub(crate) fn owner_of(path: &ObjectPath) -> Option<Uuid> {
    // A device of a machine has the machine in its id and as its system; a system has it as its name.
    ["InstanceID", "DeviceID", "SystemName", "Name"].iter().find_map(|key| owner(path.text(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_from_every_form_of_id() {
        let id = uuid!("8f3a5c1e-0000-4000-8000-00000000002a");
        for text in [guid(id), of(id), part(id, r"b637\0"), id.to_string(), format!("microsoft:{id}")] {
            assert_eq!(owner(&text), Some(id), "{text}");
        }
        for text in ["", "vmms", "Microsoft:", "Microsoft:Definition\\1", &format!("{id}0"), "é"] {
            assert_eq!(owner(text), None, "{text}");
        }
    }
}

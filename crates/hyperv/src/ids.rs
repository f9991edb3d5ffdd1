//! Hyper-V's spelling of ids: `Microsoft:GUID\device\…`, with the GUID of the owner first and in upper case.

use cim::ObjectPath;
use uuid::{Uuid, uuid};

/// What the ids of settings begin with.
pub(crate) const PREFIX: &str = "Microsoft:";
/// What follows in ids of settings that define what is possible.
const DEFINITION: &str = r"Definition\";
/// What follows in ids of settings of pools.
const POOL: &str = r"Pool\";

/// Which of the settings that define what is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Default,
    Minimum,
    Maximum,
    Increment,
}

impl Bound {
    pub(crate) const ALL: [Self; 4] = [Self::Default, Self::Minimum, Self::Maximum, Self::Increment];

    /// The end of an id.
    fn word(self) -> &'static str {
        match self {
            Self::Default => "Default",
            Self::Minimum => "Minimum",
            Self::Maximum => "Maximum",
            Self::Increment => "Increment",
        }
    }
}

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

/// An address as Hyper-V prints it: twelve digits.
pub(crate) fn mac(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_uppercase()
}

/// The id of the settings of `owner` itself.
pub(crate) fn of(owner: Uuid) -> String {
    format!("{PREFIX}{}", guid(owner))
}

/// The id of a part of `owner`.
pub(crate) fn part(owner: Uuid, path: &str) -> String {
    format!("{PREFIX}{}\\{path}", guid(owner))
}

/// The id of a device, which its machine is not part of: the machine is its system.
pub(crate) fn device(path: &str) -> String {
    format!("{PREFIX}{path}")
}

/// What the id of a machine's settings says after the machine.
pub(crate) fn tail(settings: &str) -> Option<&str> {
    settings.strip_prefix(PREFIX)?.split_once('\\').map(|(_, rest)| rest)
}

/// The id of the settings of the pool `id`.
pub(crate) fn pool(id: Uuid) -> String {
    format!(r"{PREFIX}{POOL}{}", guid(id))
}

/// The id of the settings that define `bound` of what the capabilities `id` allow.
pub(crate) fn definition(id: Uuid, bound: Bound) -> String {
    format!(r"{PREFIX}{DEFINITION}{}\{}", guid(id), bound.word())
}

/// Of which capabilities settings of that id define which bound, if they define any.
pub(crate) fn defined(text: &str) -> Option<(Uuid, Bound)> {
    let (id, word) = text.strip_prefix(PREFIX)?.strip_prefix(DEFINITION)?.split_once('\\')?;
    let bound = Bound::ALL.into_iter().find(|bound| bound.word() == word)?;
    Some((Uuid::try_parse(id).ok()?, bound))
}

/// Whether an id is one of the host's own, of pools and of what their settings may be.
pub(crate) fn of_host(text: &str) -> bool {
    let rest = text.get(PREFIX.len()..).filter(|_| text[..PREFIX.len()].eq_ignore_ascii_case(PREFIX));
    let begins = |word: &str| {
        rest.and_then(|rest| rest.get(..word.len())).is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    begins(DEFINITION) || begins(POOL)
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
    // A device has its machine as its system, a system as its name, firmware as its id. What an adapter is plugged into has
    // the switch as its system, and the adapter's machine in its own id or name.
    let keys = match path.class.as_str() {
        "Msvm_EthernetSwitchPort" => ["DeviceID"].as_slice(),
        "Msvm_SwitchPort" | "Msvm_LANEndpoint" => &["Name"],
        _ => &["InstanceID", "SystemName", "DeviceID", "SoftwareElementID", "Name"],
    };
    keys.iter().find_map(|key| owner(path.text(key)?))
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

    #[test]
    fn definitions_are_the_hosts() {
        let id = uuid!("70bb60d2-a9d3-46aa-b654-3de53004b4f8");
        let text = definition(id, Bound::Maximum);
        assert_eq!(text, r"Microsoft:Definition\70BB60D2-A9D3-46AA-B654-3DE53004B4F8\Maximum");
        assert_eq!(defined(&text), Some((id, Bound::Maximum)));
        assert!(of_host(&text) && of_host(&text.to_lowercase()) && of_host(&pool(id)));
        for text in
            ["", "Microsoft:", "Microsoft:Definition", "Microsoft:é", &of(id), r"Microsoft:Definition\x"]
        {
            assert_eq!(defined(text), None, "{text}");
        }
        assert!(!of_host(&of(id)) && !of_host("Microsoft:é"));
    }
}

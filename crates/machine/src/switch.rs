//! Virtual switches: what a network adapter is plugged into.
//!
//! A switch is a named record; the engine is told only the backend it stands for. Names of switches in imported
//! configurations are mapped to ours here, and never silently: a name that maps to nothing is a finding.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::settings::Mac;

/// Name of the switch that a new host has: NAT through the host, as Hyper-V's own default switch is.
pub const DEFAULT_SWITCH: &str = "nat";
/// Hyper-V's name for its built-in NAT switch.
pub const HYPERV_DEFAULT_SWITCH: &str = "Default Switch";
/// Hyper-V's id of its built-in NAT switch, the same on every host; some configurations name the switch by it.
pub const HYPERV_DEFAULT_SWITCH_ID: &str = "C08CB7B8-9B3C-408E-8E30-5E16A3AEB444";

/// A switch of this host. Stored under `switch/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchRecord {
    /// Version of this record's shape; 1.
    pub version: u32,
    /// Our id.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// What it connects to.
    pub kind: SwitchKind,
    /// What somebody wrote about it; lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Names that imported configurations may use for it.
    #[serde(default)]
    pub sources: Vec<SourceName>,
    /// Fields of a newer version, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What a switch connects to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum SwitchKind {
    /// A bridge of the host.
    External {
        /// The bridge's interface name.
        bridge: String,
    },
    /// The host's own network, by address translation in user mode.
    Nat,
    /// Only the machines on this switch.
    Private,
}

/// A switch name of another host that this switch answers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceName {
    /// The name.
    pub name: String,
    /// VLAN given to adapters that come by this name.
    #[serde(default)]
    pub vlan: Option<u16>,
}

impl SwitchRecord {
    /// A new switch.
    pub fn new(id: Uuid, name: impl Into<String>, kind: SwitchKind) -> Self {
        Self {
            version: 1,
            id,
            name: name.into(),
            kind,
            notes: String::new(),
            sources: Vec::new(),
            extra: serde_json::Map::new(),
        }
    }

    /// The mapping under which this switch answers to `source`, if it does.
    pub fn answers_to(&self, source: &str) -> Option<Option<u16>> {
        if self.name == source {
            return Some(None);
        }
        self.sources.iter().find(|s| s.name.eq_ignore_ascii_case(source)).map(|s| s.vlan)
    }
}

/// A switch to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSwitch {
    /// Its id; `None` makes one.
    pub id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// What it connects to.
    pub kind: SwitchKind,
    /// What somebody wrote about it.
    pub notes: String,
}

/// A change of a switch; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchEdit {
    /// Another name; machines and planned machines that are plugged in follow.
    pub name: Option<String>,
    /// What it connects to from now on.
    pub kind: Option<SwitchKind>,
    /// Other notes.
    pub notes: Option<String>,
}

/// A bridge of this host, as the operating system tells of it now. What it does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its interface name.
    pub name: String,
    /// Its address.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Whether it is up.
    pub up: Option<bool>,
}

/// Where `--switch SRC=TARGET[:vlan]` leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchTarget {
    /// A switch of this host, or a bridge that becomes one.
    pub target: String,
    /// Access VLAN, 1 to 4094.
    #[serde(default)]
    pub vlan: Option<u16>,
}

impl std::str::FromStr for SwitchTarget {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (target, vlan) = match s.rsplit_once(':') {
            Some((t, v)) => {
                let vlan = v.parse::<u16>().ok().filter(|v| (1..=4094).contains(v));
                (t, Some(vlan.ok_or_else(|| format!("`{v}` is not a VLAN: expected 1 to 4094"))?))
            }
            None => (s, None),
        };
        if target.is_empty() {
            return Err("expected the name of a switch or bridge".to_owned());
        }
        Ok(Self { target: target.to_owned(), vlan })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_name_and_perhaps_a_vlan() {
        let plain: SwitchTarget = "br0".parse().unwrap();
        assert_eq!(plain, SwitchTarget { target: "br0".into(), vlan: None });
        let tagged: SwitchTarget = "br0:42".parse().unwrap();
        assert_eq!(tagged.vlan, Some(42));
        for bad in ["br0:0", "br0:4095", "br0:x", "", ":1"] {
            assert!(bad.parse::<SwitchTarget>().is_err(), "{bad}");
        }
    }
}

//! Switches.

use machine::switch::{SwitchKind, SwitchRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Switch {
    /// Id.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// `external`, `nat` or `private`.
    pub kind: String,
    /// The host's bridge, of an external switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// What somebody wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Switch names of other hosts that it answers to.
    #[serde(default)]
    pub sources: Vec<MapSwitch>,
}

/// Switches, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwitchList {
    /// The switches.
    pub switches: Vec<Switch>,
}

/// A switch to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSwitch {
    /// Its name.
    pub name: String,
    /// `external`, `nat` or `private`.
    pub kind: String,
    /// The host's bridge, for an external switch; its name by default.
    #[serde(default)]
    pub bridge: Option<String>,
}

/// A switch name of another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MapSwitch {
    /// The name there.
    pub source: String,
    /// VLAN of adapters that come by it, 1 to 4094.
    #[serde(default)]
    pub vlan: Option<u16>,
}

impl From<SwitchRecord> for Switch {
    fn from(s: SwitchRecord) -> Self {
        let (kind, bridge) = match s.kind {
            SwitchKind::External { bridge } => ("external", Some(bridge)),
            SwitchKind::Nat => ("nat", None),
            SwitchKind::Private => ("private", None),
        };
        let sources = s.sources.into_iter().map(|m| MapSwitch { source: m.name, vlan: m.vlan }).collect();
        Self { id: s.id, name: s.name, kind: kind.to_owned(), bridge, notes: s.notes, sources }
    }
}

impl CreateSwitch {
    /// The domain's kind.
    ///
    /// # Errors
    /// The kind is none of the three.
    pub fn domain_kind(&self) -> Result<SwitchKind, String> {
        match self.kind.as_str() {
            "external" => {
                Ok(SwitchKind::External { bridge: self.bridge.clone().unwrap_or_else(|| self.name.clone()) })
            }
            "nat" => Ok(SwitchKind::Nat),
            "private" => Ok(SwitchKind::Private),
            other => Err(format!("`{other}` is not a kind of switch: expected external, nat or private")),
        }
    }
}

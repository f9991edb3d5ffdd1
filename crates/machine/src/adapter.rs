//! Changes of network adapters: added, named, plugged into a switch, taken away.
//!
//! When a machine may be changed, [`crate::define`] decides.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::settings::{Adapter, Mac, Settings};

/// A change of one adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterEdit {
    /// Its number from 0 in the settings' order; one beyond the last adds an adapter.
    pub index: usize,
    /// Plug it into this switch (`Some(None)` unplugs).
    #[serde(default)]
    pub switch: Option<Option<String>>,
    /// Access VLAN (`Some(None)`: none).
    #[serde(default)]
    pub vlan: Option<Option<u16>>,
    /// A fixed address (`Some(None)`: derived again).
    #[serde(default)]
    pub mac: Option<Option<Mac>>,
    /// Another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Another name of its port at the switch (`Some(None)`: none of its own).
    #[serde(default)]
    pub port: Option<Option<String>>,
    /// Remove it.
    #[serde(default)]
    pub remove: bool,
}

impl Host {
    pub(crate) fn edit_adapter(&self, settings: &mut Settings, edit: &AdapterEdit) -> Result<()> {
        let count = settings.adapters.len();
        if edit.index > count {
            return Err(Error::new(
                Reason::NotFound,
                format!("the machine has {count} adapters, none number {}", edit.index),
            ));
        }
        if edit.remove {
            if edit.index < count {
                settings.adapters.remove(edit.index);
            }
            return Ok(());
        }
        if edit.index == count {
            settings.adapters.push(new_adapter(self.fresh_id(), None));
        }
        let switch = match &edit.switch {
            Some(Some(name)) => Some(Some(self.switch(name)?.name)),
            other => other.clone(),
        };
        let adapter = &mut settings.adapters[edit.index];
        if let Some(switch) = switch {
            adapter.switch = switch;
        }
        if let Some(name) = &edit.name {
            adapter.name.clone_from(name);
        }
        if let Some(port) = &edit.port {
            adapter.port.clone_from(port);
        }
        if let Some(vlan) = edit.vlan {
            adapter.vlan = vlan;
        }
        if let Some(mac) = edit.mac {
            adapter.mac = mac;
            adapter.mac_static = mac.is_some();
        }
        Ok(())
    }
}

/// A new adapter, plugged into `switch`.
pub(crate) fn new_adapter(instance: Uuid, switch: Option<String>) -> Adapter {
    Adapter {
        instance,
        name: "Network Adapter".to_owned(),
        mac: None,
        mac_static: false,
        switch,
        source_switch: None,
        port: None,
        vlan: None,
        legacy: false,
    }
}

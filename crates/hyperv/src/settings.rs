//! What whoever serves the classes decides: the host's name, who may do what, and which folders have Windows names.

use std::sync::Arc;

use access::Action;
use uuid::Uuid;
use wsman::Principal;

use crate::paths::PathMap;

/// Says whether somebody may do something: everywhere, or to one machine.
pub type Policy = Arc<dyn Fn(&Principal, Action, Option<Uuid>) -> bool + Send + Sync>;

/// How the classes are served.
#[derive(Clone)]
pub struct Settings {
    /// What clients call this host: the key of its `Msvm_ComputerSystem`.
    pub host_name: String,
    /// Folders that clients know by Windows paths.
    pub paths: PathMap,
    /// Who may do what.
    pub policy: Policy,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("host_name", &self.host_name)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

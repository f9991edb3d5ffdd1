//! What the runtime state file (VMRS) of a machine that is off holds.

use crate::{Entry, Tree};

/// The runtime state of a machine that is off, for configuration version `version` (2304 is 9.0).
///
/// Real ones hold the version and the usage counters of devices; the counters are Hyper-V's own to fill, so they are
/// left out and only their node is there.
pub fn empty_runtime_state(version: i64) -> Tree {
    Tree {
        entries: vec![Entry::node(
            "configuration",
            vec![
                Entry::node("properties", vec![Entry::new("version", version)]),
                Entry::node("global_settings", vec![Entry::node("metrics", vec![])]),
            ],
        )],
    }
}

//! What an export of 2008 to 2012 has besides the configuration: `config.xml`, which describes it.
//!
//! Microsoft documents that it is there, and not what it says. This is our reading: which machine, which configuration,
//! what was copied, and where each disk is. An import takes nothing from it, since all of it is told by the files
//! themselves; that it is there tells an export of that time from others.

use vmcx::{Document, Entry, Form, Tree, WriteError};

use super::{DISKS_DIR, ExportRequest, Part};
use crate::record::MachineRecord;

/// Its path in the package.
pub(super) const DESCRIPTION: &str = "config.xml";
/// Version of what we write.
const VERSION: i64 = 1;

/// `config.xml` of an export of `record`, whose configuration is at `configuration` in the package.
pub(super) fn description(
    record: &MachineRecord,
    request: &ExportRequest,
    configuration: &str,
    parts: &[Part],
) -> Result<Vec<u8>, WriteError> {
    let windows = |path: &str| path.replace('/', "\\");
    let mut disks = vec![Entry::new("size", i64::try_from(parts.len()).unwrap_or(i64::MAX))];
    for (n, part) in parts.iter().enumerate() {
        let file = windows(&format!("{DISKS_DIR}/{}", part.name));
        disks.push(Entry::node(format!("disk{n}"), vec![Entry::new("pathname", file)]));
    }
    let told = vec![
        Entry::new("version", VERSION),
        Entry::new("name", record.settings.name.clone()),
        Entry::new("global_id", record.id.hyphenated().to_string().to_ascii_uppercase()),
        Entry::new("configuration", windows(configuration)),
        Entry::new("copy_storage", request.storage),
        Entry::new("copy_runtime_information", request.saved_state),
        Entry::node("disks", disks),
    ];
    // Another root than a configuration's, so that nobody takes it for one.
    let tree = Tree { entries: vec![Entry::node("export", told)] };
    Document::new(tree, Form::Xml).write()
}

//! The plan of a batch: a TOML file that the daemon's looks fill in and an admin edits. This file is the admin's; what a
//! run did is in the results beside it ([`super::results`]), so that neither overwrites the other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use machine::names::safe_file_name;
use rest::wire::PlannedEdit;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::{Failure, Result};

/// Version of the file's shape.
const VERSION: u32 = 1;
/// Largest plan that is read, in bytes: ten thousand packages with all their findings.
const MAX_PLAN: u64 = 64 << 20;
/// What stands for an id that is made when the package's turn comes.
pub(super) const NEW: &str = "new";

const HEADER: &str = "\
# A plan of `slipway import --all`. Edit it, look again with --dry-run, run it without. In each [[package]]:
#   skip = true              passes it over
#   name                     what the machine will be called
#   id = \"new\"               gives it a new id, beside a machine that has the package's own
#   [package.options]        options of this package, before the common ones in [options]:
#                            to, disk_dirs, switches, disconnected, without_snapshots, discard_saved_state,
#                            processors, memory_mib, hardware, disk_bus, nic_model
# `verdict`, `data_bytes` and `findings` are what the last look found; --dry-run writes the file anew, without your comments.

";

/// A whole plan.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    version: u32,
    /// Where the packages are.
    pub(super) directory: PathBuf,
    /// Leave the disks in the packages.
    #[serde(default)]
    pub(super) register: bool,
    /// Read disks whose checksums are wrong.
    #[serde(default)]
    pub(super) lenient: bool,
    /// Options of every package.
    #[serde(default)]
    pub(super) options: PlannedEdit,
    /// The packages, by path.
    #[serde(default, rename = "package")]
    pub(super) packages: Vec<Entry>,
}

/// One package.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) skip: bool,
    /// Empty while the package could not be read.
    #[serde(default)]
    pub(super) name: String,
    /// The machine's id, or [`NEW`]; empty while the package could not be read.
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) verdict: String,
    #[serde(default)]
    pub(super) data_bytes: u64,
    #[serde(default)]
    pub(super) findings: Vec<String>,
    #[serde(default)]
    pub(super) options: PlannedEdit,
}

impl Plan {
    pub(super) fn new(directory: PathBuf, register: bool, lenient: bool, options: PlannedEdit) -> Self {
        Self { version: VERSION, directory, register, lenient, options, packages: Vec::new() }
    }

    /// The plan in `path`, or `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let mut text = String::new();
        match File::open(path).and_then(|f| f.take(MAX_PLAN + 1).read_to_string(&mut text)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::at("read the plan", path, &e)),
            Ok(_) => {}
        }
        let bad = |place: String, why: String| {
            Failure::new("bad-plan", format!("{place}: {why}"))
                .hint("correct it, or make another with --dry-run")
        };
        if text.len() as u64 > MAX_PLAN {
            return Err(bad(path.display().to_string(), format!("larger than {MAX_PLAN} bytes")));
        }
        let plan: Self = toml::from_str(&text).map_err(|e| {
            let line = e.span().and_then(|s| text.get(..s.start)).map_or(1, |b| b.matches('\n').count() + 1);
            bad(format!("{}:{line}", path.display()), e.message().replace('\n', " "))
        })?;
        if plan.version != VERSION {
            let why = format!("a plan of version {}, and this program knows version {VERSION}", plan.version);
            return Err(bad(path.display().to_string(), why));
        }
        for entry in &plan.packages {
            if !["", NEW].contains(&entry.id.as_str()) && Uuid::try_parse(&entry.id).is_err() {
                let why = format!("`{}` is no id of a machine, nor \"{NEW}\"", entry.id);
                return Err(bad(format!("{}: {}", path.display(), entry.path.display()), why));
            }
        }
        Ok(Some(plan))
    }

    /// Replaces the plan in `path`, whole and durably.
    pub(super) fn write(&self, path: &Path) -> Result {
        let at = |e: std::io::Error| Failure::at("write the plan", path, &e);
        let text = toml::to_string_pretty(self)
            .map_err(|e| Failure::new("internal", format!("the plan cannot be written: {e}")))?;
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(at)?;
        temporary
            .write_all(HEADER.as_bytes())
            .and_then(|()| temporary.write_all(text.as_bytes()))
            .map_err(at)?;
        temporary.as_file().sync_all().map_err(at)?;
        temporary.persist(path).map_err(|e| at(e.error))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(at)
    }

    /// What package `n` is asked for with: its own options before the common ones, and in a directory of its own.
    pub(super) fn options_of(&self, n: usize) -> PlannedEdit {
        let entry = &self.packages[n];
        let mut options = merged(&self.options, &entry.options);
        options.name = Some(entry.name.clone()).filter(|name| !name.is_empty());
        options.new_id = None;
        if entry.options.to.is_none() {
            options.to = self.options.to.as_ref().map(|to| to.join(self.folder(n)));
        }
        options
    }

    /// A folder's name for machine `n`: its name, with the place in the plan where several are called so.
    fn folder(&self, n: usize) -> String {
        let name = |entry: &Entry| {
            let fallback = || entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            safe_file_name(&if entry.name.is_empty() { fallback() } else { entry.name.clone() })
        };
        let own = name(&self.packages[n]);
        let alike = self.packages.iter().filter(|e| name(e).to_lowercase() == own.to_lowercase()).count();
        if alike > 1 { format!("{own}-{}", n + 1) } else { own }
    }

    /// Says of machines that are in the plan twice that only one of them can keep the id.
    pub(super) fn mark_twins(&mut self) {
        let mut first: HashMap<String, PathBuf> = HashMap::new();
        for entry in self.packages.iter_mut().filter(|e| !e.skip && !["", NEW].contains(&e.id.as_str())) {
            if let Some(other) = first.get(&entry.id) {
                let other = other.display();
                entry.findings.push(format!(
                    "error: the same machine is in this plan already, from {other} [duplicate-id]; fix: id = \"{NEW}\""
                ));
                if entry.verdict == "ready" {
                    entry.verdict = "fixable".to_owned();
                }
            } else {
                first.insert(entry.id.clone(), entry.path.clone());
            }
        }
    }
}

/// `own` before `common`; maps and lists are joined.
fn merged(common: &PlannedEdit, own: &PlannedEdit) -> PlannedEdit {
    let (c, o) = (common.clone(), own.clone());
    let mut switches = c.switches;
    switches.extend(o.switches);
    let mut disk_dirs = o.disk_dirs;
    disk_dirs.extend(c.disk_dirs);
    PlannedEdit {
        name: o.name.or(c.name),
        new_id: o.new_id.or(c.new_id),
        id: o.id,
        to: o.to.or(c.to),
        disk_dirs,
        switches,
        disconnected: o.disconnected.or(c.disconnected),
        without_snapshots: o.without_snapshots.or(c.without_snapshots),
        discard_saved_state: o.discard_saved_state.or(c.discard_saved_state),
        processors: o.processors.or(c.processors),
        memory_mib: o.memory_mib.or(c.memory_mib),
        hardware: o.hardware.or(c.hardware),
        disk_bus: o.disk_bus.or(c.disk_bus),
        nic_model: o.nic_model.or(c.nic_model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rest::wire::SwitchTarget;

    fn entry(path: &str, name: &str, id: &str) -> Entry {
        let (path, name, id) = (path.into(), name.to_owned(), id.to_owned());
        Entry { path, name, id, verdict: "ready".to_owned(), ..Entry::default() }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        assert!(Plan::read(&path).unwrap().is_none());
        let nat = SwitchTarget { target: "nat".to_owned(), vlan: Some(7) };
        let options =
            PlannedEdit { switches: [("a \"b\"".to_owned(), nat)].into(), ..PlannedEdit::default() };
        let mut plan = Plan::new("/exports".into(), true, false, options.clone());
        plan.packages = vec![entry("/exports/a", "web\n\"1\"", NEW), entry("/exports/b", "", "")];
        plan.packages[0].options.memory_mib = Some(512);
        plan.packages[1].findings = vec!["error: a 'quote' \"two\" [x]".to_owned()];
        plan.write(&path).unwrap();
        let back = Plan::read(&path).unwrap().unwrap();
        assert_eq!(back.options, options);
        assert_eq!(back.packages[0].name, "web\n\"1\"");
        assert_eq!(back.packages[1].findings, plan.packages[1].findings);
        let first = back.options_of(0);
        assert_eq!((first.memory_mib, first.switches), (Some(512), options.switches));
    }

    #[test]
    fn what_is_wrong_in_a_plan_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Plan::read(&path).unwrap_err().message
        };
        let start = "version = 1\ndirectory = '/x'\n";
        assert!(said("version = 1\n").contains("directory"));
        assert!(
            said(&format!("{start}[[package]]\npath = '/x/a'\nskipp = true\n")).contains("plan.toml:5: ")
        );
        assert!(said(&format!("{start}[[package]]\npath = '/x/a'\nid = 'old'\n")).contains("/x/a"));
        assert!(said("version = 2\ndirectory = '/x'\n").contains("version 2"));
    }

    #[test]
    fn machines_of_one_name_go_to_folders_of_their_own_and_twins_are_told() {
        let options = PlannedEdit { to: Some("/vm".into()), ..PlannedEdit::default() };
        let mut plan = Plan::new("/x".into(), false, false, options);
        let id = Uuid::from_u128(1).to_string();
        plan.packages = vec![
            entry("/x/a", "web", &id),
            entry("/x/b", "Web", &id),
            entry("/x/c", "d/b", NEW),
            entry("/x/d", "", ""),
        ];
        let to = |n: usize| plan.options_of(n).to.unwrap();
        assert_eq!([to(0), to(1)], [PathBuf::from("/vm/web-1"), PathBuf::from("/vm/Web-2")]);
        assert!(to(2).starts_with("/vm") && to(2).components().count() == 3, "{:?}", to(2));
        assert_eq!(to(3), PathBuf::from("/vm/d"));
        plan.mark_twins();
        let verdicts: Vec<_> = plan.packages.iter().map(|e| e.verdict.as_str()).collect();
        assert_eq!(verdicts, ["ready", "fixable", "ready", "ready"]);
    }
}

//! Every fuzz target can be run by the fuzzer, is replayed on stable by the ordinary tests, and has seeds to replay.

use super::{File, Finding};
use std::path::Path;

const REPLAY: &str = "tests/stories/fuzz_corpora.rs";
const MANIFEST: &str = "fuzz/Cargo.toml";

pub(super) fn check(root: &Path, files: &[File]) -> Vec<Finding> {
    let text = |path: &str| files.iter().find(|f| f.path == path).map_or("", |f| f.text.as_str());
    let (manifest, replay) = (text(MANIFEST), text(REPLAY));
    let mut findings = Vec::new();
    for file in files {
        let Some(name) = file.path.strip_prefix("fuzz/fuzz_targets/").and_then(|n| n.strip_suffix(".rs"))
        else {
            continue;
        };
        if !manifest.contains(&format!("name = \"{name}\"")) {
            findings.push(Finding::new(&file.path, format!("has no [[bin]] in {MANIFEST}")));
        }
        if !replay.contains(&format!("replay!({name})")) {
            findings
                .push(Finding::new(&file.path, format!("is not replayed: add replay!({name}) to {REPLAY}")));
        }
        let seeds = std::fs::read_dir(root.join("fuzz/corpus").join(name)).map_or(0, Iterator::count);
        if seeds == 0 {
            findings.push(Finding::new(&file.path, format!("has no seeds in fuzz/corpus/{name}")));
        }
    }
    findings
}

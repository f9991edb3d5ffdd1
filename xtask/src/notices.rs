//! The libraries of others that are linked into `slipway`, with the notices that their licences ask to be passed on.
//!
//! The list is cargo's: what the binary is built from on Linux, without what only builds or tests it. The texts lie
//! beside each library's source. Many are the same, so each text is printed once, with whose it is.

use crate::outside::{Outcome, at, output, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What files with notices are called; the rest of the name varies (`LICENSE-MIT`, `COPYING.md`).
const BEGINNINGS: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

pub(crate) fn print() -> Outcome {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Value =
        serde_json::from_slice(&output(&mut command)?).map_err(|e| format!("cargo metadata: {e}"))?;
    let linked = linked(&metadata)?;

    println!("Libraries in slipway that others wrote, and their licences.\n");
    println!(
        "The Rust standard library: MIT OR Apache-2.0, The Rust Project Developers, https://www.rust-lang.org"
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &linked {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", field("name"), field("version"));
        println!("{name}: {}, {}", field("license"), field("repository"));
        let folder = Path::new(field("manifest_path")).parent().unwrap_or(Path::new("/"));
        for text in notices(folder)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    // The longest lists first: the licences that most share, then those with a name in them.
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.1.cmp(&b.1)));
    for (text, of) in texts {
        println!("\n{}\n{}\n\n{}", "-".repeat(80), of.join(", "), text.trim_end());
    }
    Ok(())
}

/// The packages of others that end up in the binary, by name and version.
fn linked(metadata: &Value) -> Outcome<Vec<&Value>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<&str, &Value> = (metadata["packages"].as_array().into_iter().flatten())
        .filter_map(|p| Some((p["id"].as_str()?, p)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = (metadata["resolve"]["nodes"].as_array().into_iter().flatten())
        .filter_map(|n| Some((n["id"].as_str()?, n)))
        .collect();
    let start = packages.iter().find(|(_, p)| p["name"] == "slipway").map(|(id, _)| *id);
    let mut open = vec![start.ok_or("cargo metadata: no package slipway")?];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let macros = packages
            .get(id)
            .is_some_and(|p| list(&p["targets"]).iter().any(|t| t["kind"][0] == "proc-macro"));
        if macros || !seen.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        for dependency in node["deps"].as_array().into_iter().flatten() {
            // A kind of null is an ordinary dependency; `build` and `dev` end up in no binary.
            if list(&dependency["dep_kinds"]).iter().any(|k| k["kind"].is_null())
                && let Some(id) = dependency["pkg"].as_str()
            {
                open.push(id);
            }
        }
    }
    // Those without a source are ours.
    let mut found: Vec<_> =
        seen.iter().filter_map(|id| packages.get(id).copied()).filter(|p| !p["source"].is_null()).collect();
    found.sort_by_key(|p| (p["name"].to_string(), p["version"].to_string()));
    Ok(found)
}

/// The texts in the files with notices of one package, in the order of their names.
fn notices(folder: &Path) -> Outcome<Vec<String>> {
    let mut files: Vec<_> = (fs::read_dir(folder).map_err(at(folder))?.flatten())
        .filter(|f| {
            let name = f.file_name().to_string_lossy().to_uppercase();
            BEGINNINGS.iter().any(|b| name.starts_with(b)) && f.path().is_file()
        })
        .map(|f| f.path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|f| {
            let bytes = fs::read(f).map_err(at(f))?;
            Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_only_builds_or_tests_is_not_linked() {
        let package = |name: &str, kind: &str, source: Option<&str>| {
            json!({
                "id": name, "name": name, "version": "1.0.0", "source": source, "targets": [{"kind": [kind]}],
            })
        };
        let dep = |name: &str, kind: Option<&str>| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("slipway", "bin", None), package("ours", "lib", None), package("used", "lib", Some("r")),
                package("deep", "lib", Some("r")), package("derive", "proc-macro", Some("r")),
                package("cc", "lib", Some("r")), package("proptest", "lib", Some("r")), package("syn", "lib", Some("r")),
            ],
            "resolve": {"nodes": [
                {"id": "slipway", "deps": [dep("ours", None), dep("proptest", Some("dev"))]},
                {"id": "ours", "deps": [dep("used", None), dep("derive", None), dep("cc", Some("build"))]},
                {"id": "used", "deps": [dep("deep", None)]},
                {"id": "derive", "deps": [dep("syn", None)]},
            ]},
        });
        let names: Vec<_> =
            linked(&metadata).expect("a tree").iter().map(|p| p["name"].to_string()).collect();
        assert_eq!(names, ["\"deep\"", "\"used\""]);
    }
}

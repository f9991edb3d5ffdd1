//! Which crate may depend on which: compares `cargo metadata` with the two tables in ARCHITECTURE.md.
//!
//! The tables are the one telling. ```` ```arrows ```` has a line per crate of ours, `from -> to, to : reason`;
//! ```` ```fences ```` has a line per dependency of others that only some crates may name, `crate : where : reason`.
//! A crate that is missing from the first table is a finding, so no crate arrives without a place on the map.

use super::{File, Finding};
use crate::outside::{Outcome, output, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const MAP: &str = "ARCHITECTURE.md";

/// Names that say nothing about what belongs inside: such a crate becomes the drawer for everything.
const BANNED_NAMES: [&str; 6] = ["common", "util", "utils", "types", "errors", "helpers"];

pub(super) fn check(files: &[File]) -> Outcome<Vec<Finding>> {
    let map = files.iter().find(|f| f.path == MAP).map_or("", |f| f.text.as_str());
    let allowed = arrows(map)?;
    let fences = fences(map)?;
    let metadata =
        output(
            Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .current_dir(root())
                .args(["metadata", "--format-version", "1", "--no-deps", "--offline"]),
        )?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    Ok(compare(&packages(&metadata), &allowed, &fences))
}

/// A crate of the workspace: its short name and what its manifest names.
struct Package {
    name: String,
    dependencies: BTreeSet<String>,
    dev_dependencies: BTreeSet<String>,
}

/// `slipway-vhdx` is `vhdx` on the map; the command line is `slipway`.
fn short(name: &str) -> &str {
    name.strip_prefix("slipway-").unwrap_or(name)
}

fn packages(metadata: &Value) -> Vec<Package> {
    let list = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|p| {
            let mut package = Package {
                name: short(p["name"].as_str().unwrap_or_default()).to_owned(),
                dependencies: BTreeSet::new(),
                dev_dependencies: BTreeSet::new(),
            };
            for d in p["dependencies"].as_array().map_or(&[][..], Vec::as_slice) {
                let name = d["name"].as_str().unwrap_or_default().to_owned();
                if d["kind"].as_str() == Some("dev") {
                    package.dev_dependencies.insert(name);
                } else {
                    package.dependencies.insert(name);
                }
            }
            package
        })
        .collect()
}

fn compare(
    packages: &[Package],
    allowed: &BTreeMap<String, BTreeSet<String>>,
    fences: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<Finding> {
    let ours: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        let manifest = format!("crate {}", package.name);
        if BANNED_NAMES.contains(&package.name.as_str()) {
            findings.push(Finding::new(
                &manifest,
                "this name says nothing about what belongs inside; name the noun",
            ));
        }
        let Some(may) = allowed.get(&package.name) else {
            findings.push(Finding::new(&manifest, format!("has no line in the arrows of {MAP}")));
            continue;
        };
        for (dependencies, what) in
            [(&package.dependencies, "depends on"), (&package.dev_dependencies, "tests with")]
        {
            for dependency in dependencies {
                let to = short(dependency);
                if ours.contains(to) && to != package.name && !may.contains(to) && !may.contains("*") {
                    findings.push(Finding::new(
                        &manifest,
                        format!("{what} {to}; {MAP} has no such arrow: turn it round, or draw it there with a reason"),
                    ));
                }
            }
        }
        for dependency in package.dependencies.iter().chain(&package.dev_dependencies) {
            if let Some(inside) = fences.get(dependency)
                && !inside.contains(&package.name)
            {
                let inside = inside.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                findings
                    .push(Finding::new(&manifest, format!("names {dependency}, which only {inside} may")));
            }
        }
    }
    for name in allowed.keys().filter(|n| !ours.contains(n.as_str())) {
        findings.push(Finding::new(MAP, format!("draws the crate {name}, which does not exist")));
    }
    findings
}

/// The lines of a fenced block with the given language.
fn block<'a>(map: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}");
    map.lines()
        .skip_while(|l| l.trim() != open)
        .skip(1)
        .take_while(|l| l.trim() != "```")
        .filter(|l| !l.trim().is_empty())
        .collect()
}

fn names(list: &str) -> BTreeSet<String> {
    list.split(',').map(str::trim).filter(|n| !n.is_empty() && *n != "nothing").map(str::to_owned).collect()
}

fn arrows(map: &str) -> Outcome<BTreeMap<String, BTreeSet<String>>> {
    block(map, "arrows")
        .into_iter()
        .map(|line| {
            let (arrow, reason) = line.split_once(':').unwrap_or((line, ""));
            let (from, to) = arrow.split_once("->").ok_or_else(|| format!("{MAP}: no arrow in '{line}'"))?;
            if reason.trim().is_empty() {
                return Err(format!("{MAP}: the line '{line}' gives no reason"));
            }
            Ok((from.trim().to_owned(), names(to)))
        })
        .collect()
}

fn fences(map: &str) -> Outcome<BTreeMap<String, BTreeSet<String>>> {
    block(map, "fences")
        .into_iter()
        .map(|line| {
            let parts: Vec<&str> = line.splitn(3, ':').collect();
            match parts[..] {
                [what, inside, reason] if !reason.trim().is_empty() => {
                    Ok((what.trim().to_owned(), names(inside)))
                }
                _ => Err(format!("{MAP}: not 'crate : where : reason': '{line}'")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|d| (*d).to_owned()).collect(),
            dev_dependencies: BTreeSet::new(),
        }
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_a_finding() {
        let map = "```arrows\nvhdx -> nothing : a format\nmachine -> vhdx : reads disks\n```\n```fences\nrusqlite : store : C code\n```\n";
        let (allowed, fences) = (arrows(map).expect("arrows"), fences(map).expect("fences"));
        let good = [package("vhdx", &["uuid"]), package("machine", &["slipway-vhdx"])];
        assert!(compare(&good, &allowed, &fences).is_empty());
        let bad = [
            package("vhdx", &["slipway-machine", "rusqlite"]),
            package("machine", &[]),
            package("util", &[]),
        ];
        let messages: Vec<String> = compare(&bad, &allowed, &fences).into_iter().map(|f| f.message).collect();
        assert_eq!(messages.len(), 4, "{messages:?}");
    }

    #[test]
    fn an_arrow_without_a_reason_is_refused() {
        assert!(arrows("```arrows\na -> b\n```\n").is_err());
    }
}

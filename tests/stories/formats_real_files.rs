//! Every real file reads as its maker meant it: hash, size and tree are those that independent readers give.

use harness::binary::offline;
use harness::oracle::{self, Content, parse_hash};
use harness::{need, real, skip};
use std::path::PathBuf;

/// The samples that hold a disk, with their paths, or the reasons why some are not here.
fn disks() -> impl Iterator<Item = (real::Sample, Result<PathBuf, String>)> {
    real::all().into_iter().filter(|s| s.facts.get("disk").is_some()).map(|s| {
        let path = s.path();
        (s, path)
    })
}

/// The arguments that a sample needs to be read at all.
fn arguments(sample: &real::Sample) -> Result<Vec<String>, String> {
    let facts = &sample.facts["disk"];
    let strings = |key: &str| -> Vec<String> {
        let list = facts[key].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut arguments = strings("arguments");
    for parent in strings("parents") {
        arguments.push("--parent".to_owned());
        arguments.push(real::named(&parent).path()?.display().to_string());
    }
    Ok(arguments)
}

#[test]
fn every_disk_hashes_as_independent_readers_say() {
    for (sample, path) in disks() {
        let facts = &sample.facts["disk"];
        if facts["empty"].as_bool() == Some(true) {
            continue; // told below, without reading 127 GiB of nothing
        }
        let (path, arguments) = match path.and_then(|p| Ok((p, arguments(&sample)?))) {
            Ok(found) => found,
            Err(why) => {
                println!("skipped: {why}");
                continue;
            }
        };
        let said = Content {
            sha256: facts["sha256"].as_str().expect("a hash").to_owned(),
            size: facts["virtual_size"].as_u64().expect("a size"),
        };
        let ran = offline(
            ["disk", "hash"]
                .iter()
                .map(|s| (*s).to_owned())
                .chain([path.display().to_string()])
                .chain(arguments),
        );
        assert_eq!(parse_hash(&ran), said, "{}", sample.name);
    }
}

#[test]
fn an_empty_disk_is_known_to_be_empty_without_reading_it() {
    for (sample, path) in disks().filter(|(s, _)| s.facts["disk"]["empty"].as_bool() == Some(true)) {
        let path = need!(path);
        let info = offline(
            ["disk", "info", "--json"].map(str::to_owned).into_iter().chain([path.display().to_string()]),
        )
        .json();
        assert_eq!(info["virtual_size"], sample.facts["disk"]["virtual_size"], "{}", sample.name);
        let map = offline(
            ["disk", "map", "--json"].map(str::to_owned).into_iter().chain([path.display().to_string()]),
        )
        .json();
        let extents = map.as_array().or_else(|| map["extents"].as_array()).expect("a list of extents");
        assert!(!extents.is_empty());
        assert!(extents.iter().all(|e| e["kind"] != "data"), "{}: {map}", sample.name);
    }
}

#[test]
fn a_wrong_checksum_is_refused_with_its_reason() {
    for (sample, path) in disks().filter(|(s, _)| s.facts["disk"]["strict"] == "refused") {
        let path = need!(path);
        let ran = offline(["disk".as_ref(), "hash".as_ref(), path.as_os_str()]);
        let said = ran.refused();
        assert!(said.contains("checksum"), "the reason is missing: {ran}");
        assert!(said.contains(&path.display().to_string()), "the path is missing: {ran}");
        assert!(said.contains("lenient"), "the way on is missing: {ran}");
        assert!(ran.stdout.is_empty(), "{}: {ran}", sample.name);
    }
}

#[test]
fn a_missing_parent_is_refused_and_named() {
    for (sample, path) in disks() {
        let wants_zero = sample.facts["disk"]["arguments"][0] == "--missing-parent=zero";
        if !wants_zero {
            continue;
        }
        let path = match path {
            Ok(path) => path,
            Err(why) => {
                println!("skipped: {why}");
                continue;
            }
        };
        let ran = offline(["disk".as_ref(), "hash".as_ref(), path.as_os_str()]);
        assert!(ran.refused().contains("parent"), "{ran}");
    }
}

#[test]
fn a_pending_log_is_replayed_in_memory_and_the_file_is_left_alone() {
    let path = need!(real::named("vhdx/qemu-dirtylog-10G-4M.vhdx").path());
    let before = oracle::sha256_file(&path);
    let info = offline(["disk".as_ref(), "info".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
    assert_eq!(info["log_pending"], true, "{info}");
    offline(["disk".as_ref(), "map".as_ref(), path.as_os_str()]).ok();
    assert_eq!(oracle::sha256_file(&path), before);
}

#[test]
fn every_configuration_has_the_tree_that_was_read_without_us() {
    let python = need!(oracle::python());
    let mut told = 0;
    for sample in real::all() {
        let facts = &sample.facts["config"];
        if facts["form"] != "container" {
            continue;
        }
        let path = match sample.path() {
            Ok(path) => path,
            Err(why) => {
                println!("skipped: {why}");
                continue;
            }
        };
        let dump = offline(["config".as_ref(), "dump".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
        let theirs = oracle::ordered_tree(&python, &path);
        assert_eq!(oracle::as_ordered(&dump), theirs, "{}", sample.name);
        let compact = serde_json::to_string(&theirs).expect("JSON");
        // The listed hash was made by another JSON writer; floats and non-ASCII text may be spelled another way there.
        if compact.is_ascii() && !compact.contains('.') {
            assert_eq!(Some(oracle::sha256(compact.as_bytes()).as_str()), facts["ordered_sha256"].as_str());
        }
        told += 1;
    }
    assert!(told > 0);
}

#[test]
fn every_xml_configuration_is_read() {
    for sample in real::all() {
        let facts = &sample.facts["config"];
        if facts["form"] != "xml" {
            continue;
        }
        let path = match sample.path() {
            Ok(path) => path,
            Err(why) => {
                println!("skipped: {why}");
                continue;
            }
        };
        let dump = offline(["config".as_ref(), "dump".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
        let root = &dump[0];
        assert_eq!(
            (root["name"].as_str(), root["type"].as_str()),
            (Some("configuration"), Some("node")),
            "{}",
            sample.name
        );
        if let Some(name) = facts["name"].as_str() {
            assert!(
                dump.to_string().contains(&format!("\"value\":\"{name}\"")),
                "{}: no {name}",
                sample.name
            );
        }
    }
}

#[test]
fn the_list_of_samples_is_complete() {
    let Some(folder) = std::env::var_os("SLIPWAY_SAMPLES").map(PathBuf::from) else {
        skip!("SLIPWAY_SAMPLES names no folder (no public package has all files)")
    };
    let known: Vec<String> = real::all().into_iter().map(|s| s.name).collect();
    for kind in ["vmcx", "xml", "vhdx", "vhd"] {
        let Ok(entries) = std::fs::read_dir(folder.join(kind)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = format!("{kind}/{}", name.strip_suffix(".xz").unwrap_or(&name));
            assert!(known.contains(&name), "{name} is in SLIPWAY_SAMPLES but not in tests/samples.json");
        }
    }
}

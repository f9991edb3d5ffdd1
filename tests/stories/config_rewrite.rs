//! A configuration read and written anew is the same ordered tree, in a container that a strict audit and an
//! independent parser accept.

#![expect(clippy::print_stdout, reason = "tests talk to the person who runs them")]

use harness::binary::offline;
use harness::{Scratch, need, oracle, real};
use std::path::Path;

fn dump(path: &Path) -> serde_json::Value {
    offline(["config".as_ref(), "dump".as_ref(), path.as_os_str(), "--json".as_ref()]).json()
}

/// Every configuration of the list that is here, in the given form.
fn configurations(form: &str) -> Vec<(String, std::path::PathBuf)> {
    let mut found = Vec::new();
    for sample in real::all().into_iter().filter(|s| s.facts["config"]["form"] == form) {
        match sample.path() {
            Ok(path) => found.push((sample.name, path)),
            Err(why) => println!("skipped: {why}"),
        }
    }
    found
}

#[test]
fn every_container_comes_out_sound_and_the_same() {
    let python = need!(oracle::python());
    let scratch = Scratch::new();
    for (name, path) in configurations("container") {
        let target = scratch.join(&name.replace('/', "-"));
        offline(["config".as_ref(), "rewrite".as_ref(), path.as_os_str(), target.as_os_str()]).ok();
        oracle::audit(&python, &target);
        assert_eq!(oracle::ordered_tree(&python, &path), oracle::ordered_tree(&python, &target), "{name}");
        assert_eq!(oracle::dissect_tree(&python, &path), oracle::dissect_tree(&python, &target), "{name}");
        assert_eq!(dump(&path), dump(&target), "{name}");
    }
}

#[test]
fn every_xml_configuration_comes_out_the_same() {
    let scratch = Scratch::new();
    for (name, path) in configurations("xml") {
        let target = scratch.join(&name.replace('/', "-"));
        offline(["config".as_ref(), "rewrite".as_ref(), path.as_os_str(), target.as_os_str()]).ok();
        assert_eq!(dump(&path), dump(&target), "{name}");
    }
}

#[test]
fn a_rewrite_never_replaces_a_file() {
    let scratch = Scratch::new();
    let (_, path) = need!(configurations("container").into_iter().next().ok_or("no container is here"));
    let target = scratch.join("there.vmcx");
    std::fs::write(&target, "somebody's").expect("written");
    let ran = offline(["config".as_ref(), "rewrite".as_ref(), path.as_os_str(), target.as_os_str()]);
    assert!(ran.refused().contains("there.vmcx"), "{ran}");
    assert_eq!(std::fs::read(&target).expect("still there"), b"somebody's");
}

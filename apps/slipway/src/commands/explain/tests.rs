//! Every id that can be printed has a text. Ids are taken from the closed sets of the domain and the engine, and those
//! that are made on the spot are found in the source, so that whoever adds one cannot forget its text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{CommandFactory, Parser};
use machine::Reason;

use super::*;
use crate::cli::Cli;

/// Calls whose first string is an id.
const MAKERS: [&str; 4] = ["Failure::new(", "Warning::new(", "Refusal::with_status(", "Self::with_status("];
/// What a test asks for on purpose, and what a closed pipe is: nobody sees them.
const UNSEEN: [&str; 2] = ["proof-injected", crate::printer::CLOSED];
/// A check that is the command's own.
const DAEMON: &str = "daemon";

/// The code of every crate and of the command without tests and comments, and where it is from.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut open, mut found) = (vec![root.join("apps"), root.join("crates")], Vec::new());
    while let Some(path) = open.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "benches", "examples"].contains(&name.as_str()) {
                open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let kept: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
            found.push((path.strip_prefix(&root).unwrap_or(&path).display().to_string(), kept.join("\n")));
        }
    }
    assert!(found.len() > 100, "the source is not where it was");
    found
}

/// Lower-case words joined by hyphens, and by dots where they are rules of a format.
fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
}

/// The first argument of a call that is a string, or the name of a constant that is one; a path before it is passed over.
fn first_string<'a>(call: &'a str, constants: &BTreeMap<&str, &'a str>) -> Option<&'a str> {
    let mut rest = call.trim_start();
    for _ in 0..2 {
        if let Some(string) = rest.strip_prefix('"') {
            return string.split('"').next();
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c))?;
        let name = rest[..end].rsplit("::").next().unwrap_or_default();
        if let Some(string) = constants.get(name) {
            return Some(string);
        }
        rest = rest[end..].strip_prefix(',')?.trim_start();
    }
    None
}

/// Every id that can be printed, and where it is made.
fn ids() -> BTreeMap<String, String> {
    let files = sources();
    let mut constants = BTreeMap::new();
    for (_, code) in &files {
        for line in code.lines() {
            if let Some((name, value)) =
                line.split_once("const ").and_then(|(_, c)| c.split_once(": &str = \""))
            {
                constants.insert(name, value.split('"').next().unwrap_or_default());
            }
        }
    }
    let mut found = BTreeMap::new();
    for (path, code) in &files {
        let mut add = |id: &str| {
            if is_id(id) && !UNSEEN.contains(&id) {
                found.entry(id.to_owned()).or_insert_with(|| path.clone());
            }
        };
        for call in MAKERS.iter().flat_map(|maker| code.split(maker).skip(1)) {
            first_string(call, &constants).into_iter().for_each(&mut add);
        }
        // Failures whose id is chosen: by an assignment, or by the arms of a match.
        if path.starts_with("apps/") || path.contains("transfer/src/verify") {
            for call in code.split("Self::new(").skip(1) {
                first_string(call, &constants).into_iter().for_each(&mut add);
            }
            let assigned = [".id = \"", "id: \""].into_iter().flat_map(|before| code.split(before).skip(1));
            let coded = |arm: &&str| {
                let behind = arm.split_once('"').map_or("", |(_, behind)| behind);
                behind.trim_start_matches([',', ' ', '\n']).starts_with("Code::")
            };
            let arms = code
                .split("(\"")
                .flat_map(|c| c.split("(\n"))
                .map(|c| c.trim_start().trim_start_matches('"'));
            let arms = arms.filter(coded);
            let ids = assigned.chain(arms).filter_map(|c| c.split('"').next());
            ids.for_each(&mut add);
        }
        // Checks of the host that are written out.
        if path.starts_with("crates/engine/") {
            let checks = code.split("Check { id: \"").skip(1);
            checks.filter_map(|c| c.split('"').next()).for_each(&mut add);
        }
        // Rules of formats and findings of packages: known by their family.
        if path.contains("crates/vhdx/") || path.contains("transfer/src/verify") {
            let families = ["vhdx.", "vhd.", "disk.", "package."];
            let named = code.split('"').filter(|s| families.iter().any(|family| s.starts_with(family)));
            named.for_each(&mut add);
        }
        // Failures that the job engine itself reports.
        if let Some((_, named)) = code.split_once("pub mod ids {") {
            named.split('}').next().unwrap_or_default().split('"').skip(1).step_by(2).for_each(&mut add);
        }
    }
    let closed = machine::finding::ALL.iter().chain(&engine::host::CHECKS).copied();
    for id in closed.chain(Reason::ALL.iter().map(|r| r.id())).chain([DAEMON]) {
        found.entry(id.to_owned()).or_default();
    }
    found
}

#[test]
fn every_id_that_is_printed_is_explained() {
    let known: BTreeSet<&str> = all().iter().map(|e| e.id).collect();
    let found = ids();
    let missing: Vec<String> = (found.iter().filter(|(id, _)| !known.contains(id.as_str())))
        .map(|(id, path)| format!("{id} {path}"))
        .collect();
    assert!(missing.is_empty(), "write texts in src/commands/explain/*.md for\n{}", missing.join("\n"));
    let unused: Vec<&&str> = known.iter().filter(|id| !found.contains_key(**id)).collect();
    assert!(unused.is_empty(), "texts for ids that nothing prints: {unused:?}");
    // The finder itself finds: ids made in each of the ways.
    for id in [
        "bad-configuration",
        "cancelled",
        "interrupted",
        "package.missing",
        "vhd.bat.entries",
        "job-discarded",
    ] {
        assert!(found.contains_key(id), "`{id}` is no longer found");
    }
}

#[test]
fn every_text_is_two_to_six_lines_and_has_something_to_type() {
    let mut seen = BTreeSet::new();
    for e in all() {
        let id = e.id;
        assert!(is_id(id), "`{id}` is no id");
        assert!(seen.insert(id), "`{id}` has two texts");
        assert!((2..=6).contains(&e.text.len()), "`{id}` has {} lines", e.text.len());
        assert!(e.text.iter().all(|line| line.chars().count() <= 120), "`{id}` has a long line");
        assert!(e.text.concat().contains('`'), "`{id}` names no command");
        assert!(e.text.last().is_some_and(|l| l.ends_with(['.', ':', '`'])), "`{id}` ends in the middle");
    }
}

/// What a text or a help page says to type is what the command takes.
#[test]
fn every_command_of_a_text_can_be_typed() {
    let mut tried = 0;
    for e in all() {
        let text = e.text.join(" ");
        assert_eq!(text.matches('`').count() % 2, 0, "`{}`: a backtick is open", e.id);
        for command in text.split('`').skip(1).step_by(2).filter(|c| c.starts_with("slipway ")) {
            if !command.contains("COMMAND") {
                can_be_typed(e.id, command);
                tried += 1;
            }
        }
    }
    assert!(tried > 50, "only {tried} commands");
}

#[test]
fn every_example_of_a_help_page_can_be_typed() {
    let (mut open, mut tried) = (vec![Cli::command()], 0);
    while let Some(command) = open.pop() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for example in help.lines().filter_map(|line| line.strip_prefix("  ")) {
            can_be_typed(command.get_name(), example);
            tried += 1;
        }
        open.extend(command.get_subcommands().cloned());
    }
    assert!(tried > 15, "only {tried} examples");
}

#[track_caller]
fn can_be_typed(id: &str, command: &str) {
    use clap::error::ErrorKind;
    // What the shell takes for itself.
    let command = command.split(" > ").next().unwrap_or_default().trim_end_matches(" &");
    if let Err(error) = Cli::try_parse_from(words(command))
        && !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    {
        panic!("`{id}`: `{command}`: {error}");
    }
}

/// A command's words as a shell would split them; single quotes are all that the texts use.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words
}

#[test]
fn texts_before_the_first_heading_are_nobodys() {
    let text = "For editors.\n\n## a\none\ntwo\n\n# Group\nshared\n\n## b\nthree\n\n## c\nfour\n";
    let found = parse(text);
    let shown: Vec<(&str, String)> = found.iter().map(|e| (e.id, e.text.join("|"))).collect();
    let want =
        [("a", "one|two"), ("b", "three|shared"), ("c", "four|shared")].map(|(id, t)| (id, t.to_owned()));
    assert_eq!(shown, want);
}

//! Rules about the text of our Rust files, and about what no file of the repository may say.

use super::lexer::{before_tests, code_of};
use super::{File, Finding};

/// Longest part of a file before its tests, in lines that hold code.
const MAX_CODE_LINES: usize = 800;

/// Crates whose code is plain and blocking: policy, formats and state must be testable without a runtime.
const BLOCKING: [&str; 9] = ["vhdx", "vmcx", "nbd", "store", "job", "engine", "probe", "transfer", "machine"];

/// An exception to a rule, with its reason: the path's beginning, the rule's id, why.
pub(super) const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("crates/engine/", "process", "the engine is where processes start"),
    ("crates/store/", "sqlite", "the store is the only place that knows SQLite"),
];

/// A word that may not stand in the code of some files.
struct Absence {
    id: &'static str,
    words: &'static [&'static str],
    applies: fn(&str) -> bool,
    instead: &'static str,
}

const ABSENCES: &[Absence] = &[
    Absence {
        id: "process",
        words: &["process::Command", "Command::new("],
        applies: |path| in_crates(path),
        instead: "only the engine starts processes: give it the job",
    },
    Absence {
        id: "sqlite",
        words: &["rusqlite"],
        applies: |path| in_crates(path),
        instead: "only the store knows SQLite",
    },
    Absence {
        id: "async",
        words: &["async fn", "async move", ".await", "tokio::"],
        applies: |path| BLOCKING.iter().any(|c| path.starts_with(&format!("crates/{c}/"))),
        instead: "this crate is blocking; async lives in rest, service and the command line",
    },
    Absence {
        id: "print",
        words: &["println!", "eprintln!", "print!(", "dbg!("],
        applies: |path| in_crates(path),
        instead: "libraries do not print: return it, or report progress",
    },
    Absence {
        id: "environment",
        words: &["env::var", "env::args", "env::current_dir", "env::set_var"],
        applies: |path| in_crates(path),
        instead: "only the command line reads the environment: take a parameter",
    },
    Absence {
        id: "exit",
        words: &["process::exit", "process::abort"],
        applies: |path| in_crates(path),
        instead: "only the command line ends the process: return an error",
    },
    Absence {
        id: "machine-words",
        words: &["Msvm_", "axum", "hyper::", "http::", "qmp", "rusqlite"],
        applies: |path| path.starts_with("crates/machine/src/"),
        instead: "the domain names neither CIM, HTTP, QMP nor SQL: that belongs to an edge",
    },
];

/// What no text file of the repository may say, spelled so that this file does not say it.
const UNSAID: &[(&str, &str)] = &[(
    concat!("/wo", "rk/"),
    "a path of somebody's machine: nothing outside the repository has a fixed place",
)];

fn in_crates(path: &str) -> bool {
    let beside = ["/tests/", "/benches/", "/examples/"];
    path.starts_with("crates/") && !beside.iter().any(|f| path.contains(f))
}

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if file.path.ends_with(".rs") {
            findings.extend(rust(file));
        }
        for (number, line) in file.text.lines().enumerate() {
            for (word, why) in UNSAID {
                if line.contains(word) {
                    findings.push(Finding::new(
                        format!("{}:{}", file.path, number + 1),
                        format!("says '{word}': {why}"),
                    ));
                }
            }
        }
    }
    findings
}

fn excepted(path: &str, id: &str) -> bool {
    EXCEPTIONS.iter().any(|(prefix, rule, _)| path.starts_with(prefix) && *rule == id)
}

fn rust(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let first = file.text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
    if !first.is_some_and(|l| l.starts_with("//!")) && !is_unit_tests(&file.path) {
        findings.push(Finding::new(
            &file.path,
            "begins without `//!`: say what this does, how it fits, and what it leaves to others",
        ));
    }
    let code = code_of(&file.text);
    let code = before_tests(&code);
    let lines = code.lines().filter(|l| !l.trim().is_empty()).count();
    if lines > MAX_CODE_LINES {
        findings.push(Finding::new(
            &file.path,
            format!(
                "has {lines} lines of code before its tests, more than {MAX_CODE_LINES}: split it by noun"
            ),
        ));
    }
    for absence in ABSENCES.iter().filter(|a| (a.applies)(&file.path) && !excepted(&file.path, a.id)) {
        if is_unit_tests(&file.path) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            if let Some(word) = absence.words.iter().find(|w| has_word(line, w)) {
                let place = format!("{}:{}", file.path, number + 1);
                findings.push(Finding::new(place, format!("{word} [{}]: {}", absence.id, absence.instead)));
            }
        }
    }
    if has_unsafe(code) && !file.text.contains("unsafe_code, reason") {
        findings.push(Finding::new(
            &file.path,
            "holds unsafe code without #[expect(unsafe_code, reason = \"…\")]: say what makes it sound",
        ));
    }
    let root = file.path.strip_prefix("crates/").or_else(|| file.path.strip_prefix("apps/"));
    let is_crate_root = root.is_some_and(|p| p.ends_with("/src/lib.rs") || p.ends_with("/src/main.rs"));
    if is_crate_root && !code.contains("(unsafe_code)") {
        findings.push(Finding::new(
            &file.path,
            "lacks #![forbid(unsafe_code)] (or deny, where a named module needs it)",
        ));
    }
    findings
}

/// `mod tests;` in a file of its own: named after what it tests, which has the words about it.
fn is_unit_tests(path: &str) -> bool {
    path.ends_with("/tests.rs")
}

/// Finds `word` where it is not part of a longer identifier.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part) && word.starts_with(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part) && word.ends_with(part);
        !before && !after
    })
}

fn has_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"].iter().any(|w| code.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[File { path: path.to_owned(), text: text.to_owned() }])
            .into_iter()
            .map(|f| f.message)
            .collect()
    }

    #[test]
    fn each_absence_is_seen_and_each_exception_holds() {
        let starts = "//! Doc.\nfn f() { std::process::Command::new(\"x\"); }\n";
        assert_eq!(findings("crates/transfer/src/a.rs", starts).len(), 1);
        assert!(findings("crates/engine/src/a.rs", starts).is_empty());
        assert!(findings("apps/slipway/src/a.rs", starts).is_empty());
        assert_eq!(findings("crates/store/src/a.rs", "//! Doc.\nasync fn f() {}\n").len(), 1);
        assert!(findings("crates/rest/src/a.rs", "//! Doc.\nasync fn f() {}\n").is_empty());
        assert_eq!(findings("crates/rest/src/a.rs", "//! Doc.\nfn f() { println!(\"x\"); }\n").len(), 1);
        assert_eq!(findings("crates/machine/src/a.rs", "//! Doc.\nuse engine::qmp;\n").len(), 1);
        assert!(findings("crates/machine/src/a.rs", "//! QMP is not named: qmp.\n").is_empty());
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert_eq!(findings("xtask/src/a.rs", "fn f() {}\n").len(), 1);
    }

    #[test]
    fn unsafe_needs_its_reason() {
        assert_eq!(findings("crates/vhdx/src/a.rs", "//! Doc.\nfn f() { unsafe { g() } }\n").len(), 1);
        let told = "//! Doc.\n#[expect(unsafe_code, reason = \"the length was checked\")]\nfn f() { unsafe { g() } }\n";
        assert!(findings("crates/vhdx/src/a.rs", told).is_empty());
    }
}

//! The `slipway` that was built, and what it did when it was run.

use serde_json::Value;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The built binary: `SLIPWAY_BIN`, else the one that belongs to these tests, brought up to date first.
pub fn slipway() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("SLIPWAY_BIN") {
            return PathBuf::from(path);
        }
        // …/target/<profile>/deps/<this test>
        let test = std::env::current_exe().expect("a test knows where it is");
        let profile =
            test.parent().and_then(Path::parent).expect("tests are built into <profile>/deps").to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "slipway", "--bin", "slipway", "--target-dir"]);
        cargo.arg(profile.parent().expect("a target folder"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace"));
        let built = cargo.stdin(Stdio::null()).status().expect("cargo starts");
        assert!(built.success(), "slipway cannot be built");
        profile.join("slipway")
    })
}

/// A finished command: how it was called, its code and what it printed.
#[derive(Debug)]
pub struct Ran {
    /// The command as a person would type it.
    pub line: String,
    /// Exit code; `None` when a signal ended it, which no command of ours may let happen.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

/// Runs any program to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command) -> Ran {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    Ran {
        line,
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Runs an offline `slipway` command: one that needs no daemon.
pub fn offline<I, S>(arguments: I) -> Ran
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run(Command::new(slipway()).args(arguments).env_remove("SLIPWAY_SOCKET").env_remove("SLIPWAY_DATA"))
}

impl Ran {
    /// It must have succeeded; returns its data.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == Some(0), "{self}");
        &self.stdout
    }

    /// It must have succeeded and printed JSON.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }

    /// It must have failed the way a command may: an exit code of its own, a message on stderr, no data, no panic.
    /// Returns the message.
    ///
    /// # Panics
    /// When it succeeded, crashed, or said nothing.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert!(self.code.is_some_and(|c| c != 0 && c != 101), "not refused: {self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        assert!(!self.stderr.trim().is_empty(), "refused without a word: {self}");
        &self.stderr
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "\n$ {}\nexit code {:?}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line,
            self.code,
            cut(&self.stdout),
            cut(&self.stderr)
        )
    }
}

/// The beginning of a text, enough to see what went wrong.
fn cut(text: &str) -> String {
    const SHOWN: usize = 4000;
    if text.len() <= SHOWN {
        text.to_owned()
    } else {
        format!("{} …", text.chars().take(SHOWN).collect::<String>())
    }
}

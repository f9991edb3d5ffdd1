//! The world around the chores: where the repository is, where fetched things go, how other programs are started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Chores stop at the first thing that is wrong and say it in one sentence; nobody branches on the kind.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The repository's root: of the checkout that cargo runs this for, which with a shared target folder need not be the
/// one that it was built in.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_owned)
}

/// Where fetched and built things are kept: ignored by git, safe to delete.
pub(crate) fn state() -> PathBuf {
    std::env::var_os("SLIPWAY_STATE").map_or_else(|| root().join(".slipway"), PathBuf::from)
}

/// A folder that the environment may move, else `name` inside [`state`].
pub(crate) fn folder(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| state().join(name), PathBuf::from)
}

/// Adds the path to what an I/O error says.
pub(crate) fn at(path: &Path) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

/// Starts a program and waits for it; its own complaints go where ours go.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("cannot start {name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", line(command))) }
}

/// Starts a program and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Outcome<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot start {name}: {e}"))?;
    if out.status.success() {
        Ok(out.stdout)
    } else {
        Err(format!(
            "{} failed: {}\n{}",
            line(command),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim_end()
        ))
    }
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// SHA-256 of a file in lower-case hex.
pub(crate) fn sha256_of(path: &Path) -> Outcome<String> {
    use sha2::Digest as _;
    let mut file = std::fs::File::open(path).map_err(at(path))?;
    let mut hash = sha2::Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(at(path))?;
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

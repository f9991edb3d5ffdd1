//! Real Hyper-V files, as `tests/samples.json` lists them: where they are on this machine, unpacked when they must be.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One real file and what is known about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Folder and name, as in `vhdx/win10-dynamic.vhdx`.
    pub name: String,
    /// What independent readers say, as it stands in the list.
    pub facts: Value,
}

/// All files of the list.
///
/// # Panics
/// When the list cannot be read.
#[must_use]
pub fn all() -> Vec<Sample> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples.json");
    let text = std::fs::read(&path).expect("the list of samples");
    let list: Value = serde_json::from_slice(&text).expect("the list of samples is JSON");
    let rows = list["samples"].as_array().expect("a list").iter();
    rows.map(|r| Sample { name: r["name"].as_str().expect("a name").to_owned(), facts: r.clone() }).collect()
}

/// The file with that name.
///
/// # Panics
/// When the list has none.
#[must_use]
pub fn named(name: &str) -> Sample {
    all()
        .into_iter()
        .find(|s| s.name == name)
        .unwrap_or_else(|| panic!("{name} is not in tests/samples.json"))
}

fn folders() -> Vec<PathBuf> {
    let state =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(".slipway/samples");
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(std::env::var_os("SLIPWAY_SAMPLES").map(PathBuf::from));
    folders.push(std::env::var_os("SLIPWAY_SAMPLES_PUBLIC").map_or(state, PathBuf::from));
    folders
}

impl Sample {
    /// Where the file is, unpacked.
    ///
    /// # Errors
    /// Why it is not there.
    pub fn path(&self) -> Result<PathBuf, String> {
        for folder in folders() {
            let plain = folder.join(&self.name);
            if plain.is_file() {
                return Ok(plain);
            }
            let packed = folder.join(format!("{}.xz", self.name));
            if packed.is_file() {
                return self.unpacked(&packed);
            }
        }
        Err(match self.facts["origin"].as_str() {
            Some(_) => format!("{} was not fetched: cargo xtask samples", self.name),
            None => format!(
                "{} is in no public package; SLIPWAY_SAMPLES may name a folder that has it",
                self.name
            ),
        })
    }

    fn unpacked(&self, packed: &Path) -> Result<PathBuf, String> {
        // Next to the tests' binaries: kept from run to run, gone with the target folder.
        let deps = std::env::current_exe().expect("a test knows where it is");
        let cache =
            deps.parent().and_then(Path::parent).expect("a target folder").join("samples").join(&self.name);
        if cache.is_file() {
            return Ok(cache);
        }
        let folder = cache.parent().expect("the cache is a folder");
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        // Under a name of its own first: several test programs may unpack the same file at once.
        let part =
            tempfile::NamedTempFile::new_in(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut xz = Command::new("xz")
            .arg("-dc")
            .arg(packed)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("xz does not start: {e}"))?;
        let copied = Command::new("cp")
            .args(["--sparse=always", "/dev/stdin"])
            .arg(part.path())
            .stdin(xz.stdout.take().expect("a pipe"))
            .status();
        let unpacked = xz.wait().is_ok_and(|s| s.success()) && copied.is_ok_and(|s| s.success());
        if !unpacked {
            return Err(format!("{} cannot be unpacked", packed.display()));
        }
        part.persist(&cache).map_err(|e| e.to_string())?;
        Ok(cache)
    }
}

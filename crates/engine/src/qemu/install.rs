//! What of QEMU is installed: the program, its machine types, firmware, the TPM emulator, the bridge helper.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{find_program, run};
use crate::error::{StartError, StartErrorKind};
use crate::host::{FirmwareFound, Program};
use crate::spec::Chipset;

const LIMIT: Duration = Duration::from_secs(20);
/// Oldest QEMU whose QMP and options we use as they are here.
pub(super) const OLDEST: (u32, u32) = (9, 0);

/// How to get everything, on Debian.
pub(super) const FIX_QEMU: &str = "sudo apt install qemu-system-x86 qemu-utils ovmf swtpm (Debian 12: add bookworm-backports and -t bookworm-backports)";
pub(super) const FIX_OVMF: &str = "sudo apt install ovmf";
pub(super) const FIX_SWTPM: &str = "sudo apt install swtpm";

/// The program and what it said of itself.
#[derive(Debug, Clone)]
pub(super) struct Qemu {
    pub(super) program: Program,
    /// Versioned machine types of both chipsets.
    pub(super) machines: Vec<String>,
    pc: String,
    q35: String,
}

impl Qemu {
    /// Finds it and asks it.
    pub(super) fn find(wanted: Option<&Path>) -> Result<Qemu, StartError> {
        let missing =
            |message: String| StartError::new(StartErrorKind::NotInstalled, message).with_hint(FIX_QEMU);
        let path = match wanted {
            Some(path) => path.to_owned(),
            None => find_program("qemu-system-x86_64")
                .ok_or_else(|| missing("qemu-system-x86_64 is not installed".into()))?,
        };
        let ask = |arguments: &[&str]| -> Result<String, StartError> {
            let (status, text) = run(Command::new(&path).args(arguments), LIMIT)
                .map_err(|e| missing(format!("{} cannot be run", path.display())).with_source(e))?;
            if !status.success() {
                return Err(missing(format!("{} failed: {}", path.display(), text.trim())));
            }
            Ok(text)
        };
        let words = ask(&["--version"])?;
        let version = parse_version(&words)
            .ok_or_else(|| missing(format!("{} does not tell its version", path.display())))?;
        if version < OLDEST {
            return Err(missing(format!(
                "{} is version {}.{}; at least {}.{} is needed",
                path.display(),
                version.0,
                version.1,
                OLDEST.0,
                OLDEST.1
            )));
        }
        let machines = ask(&["-machine", "help"])?;
        let alias = |name: &str| {
            parse_alias(&machines, name)
                .ok_or_else(|| missing(format!("{} has no machine type {name}", path.display())))
        };
        let (pc, q35) = (alias("pc")?, alias("q35")?);
        let program = Program { version: words.lines().next().unwrap_or_default().to_owned(), path };
        Ok(Qemu { program, machines: parse_machines(&machines), pc, q35 })
    }

    /// The newest versioned machine type of a chipset.
    pub(super) fn newest_machine(&self, chipset: Chipset) -> &str {
        match chipset {
            Chipset::Pc => &self.pc,
            Chipset::Q35 => &self.q35,
        }
    }
}

fn parse_version(words: &str) -> Option<(u32, u32)> {
    let number = words.split_ascii_whitespace().skip_while(|w| *w != "version").nth(1)?;
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `pc    Standard PC (...) (alias of pc-i440fx-10.0)` gives `pc-i440fx-10.0`.
fn parse_alias(machines: &str, name: &str) -> Option<String> {
    let line = machines.lines().find(|l| l.split_ascii_whitespace().next() == Some(name))?;
    let (_, target) = line.split_once("(alias of ")?;
    Some(target.split(')').next()?.to_owned())
}

/// The first words of the lines of `-machine help` that name a version of one of our chipsets.
fn parse_machines(machines: &str) -> Vec<String> {
    (machines.lines().filter_map(|l| l.split_ascii_whitespace().next()))
        .filter(|name| name.starts_with("pc-i440fx-") || name.starts_with("pc-q35-"))
        .map(str::to_owned)
        .collect()
}

/// Pairs of code and variable template, the best of each kind first: Debian 12 and 13, then Fedora's names.
const FIRMWARE: [(&str, &str, bool); 6] = [
    ("OVMF/OVMF_CODE_4M.ms.fd", "OVMF/OVMF_VARS_4M.ms.fd", true),
    ("OVMF/OVMF_CODE_4M.secboot.fd", "OVMF/OVMF_VARS_4M.ms.fd", true),
    ("OVMF/OVMF_CODE.ms.fd", "OVMF/OVMF_VARS.ms.fd", true),
    ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd", false),
    ("OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd", false),
    ("edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd", false),
];

/// The firmware in these directories, at most one pair of each kind, the best first.
pub(super) fn firmware(dirs: &[PathBuf]) -> Vec<FirmwareFound> {
    let mut found: Vec<FirmwareFound> = Vec::new();
    for dir in dirs {
        for (code, vars, secure_boot) in FIRMWARE {
            let (code, vars) = (dir.join(code), dir.join(vars));
            let new = !found.iter().any(|f| f.secure_boot == secure_boot);
            if new && code.is_file() && vars.is_file() {
                found.push(FirmwareFound { code, vars, secure_boot });
            }
        }
    }
    found
}

/// The program through which unprivileged users reach bridges.
pub(super) fn bridge_helper() -> Option<PathBuf> {
    ["/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper"]
        .iter()
        .map(PathBuf::from)
        .find(|p| p.is_file())
}

/// swtpm and its version.
pub(super) fn swtpm() -> Option<Program> {
    let path = find_program("swtpm")?;
    let (_, words) = run(Command::new(&path).arg("--version"), LIMIT).ok()?;
    let version = words.lines().next().unwrap_or_default().to_owned();
    Some(Program { path, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_aliases() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds)\n"), Some((10, 0)));
        assert_eq!(parse_version("bash: no such thing"), None);
        let machines = "Supported machines are:\n\
            pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-10.0)\n\
            pc-i440fx-10.0       Standard PC (i440FX + PIIX, 1996) (default)\n";
        assert_eq!(parse_alias(machines, "pc").as_deref(), Some("pc-i440fx-10.0"));
        assert_eq!(parse_alias(machines, "q35"), None);
        assert_eq!(parse_machines(machines), ["pc-i440fx-10.0"]);
    }

    #[test]
    fn firmware_is_one_pair_of_each_kind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("OVMF")).unwrap();
        for (code, vars, _) in FIRMWARE.iter().filter(|f| f.0.starts_with("OVMF/")) {
            std::fs::write(dir.path().join(code), b"").unwrap();
            std::fs::write(dir.path().join(vars), b"").unwrap();
        }
        let found = firmware(&["/nowhere".into(), dir.path().into()]);
        let kinds: Vec<_> = found.iter().map(|f| f.secure_boot).collect();
        assert_eq!(kinds, [true, false]);
        assert!(found[0].code.ends_with("OVMF_CODE_4M.ms.fd"));
    }
}

//! The host's report: each check with what was found and, where something lacks, the command that helps on Debian.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::install::{self, Qemu};
use super::scope::Scopes;
use super::{QemuConfig, bridge, process};
use crate::error::StartError;
use crate::host::{CHECKS, Check, HostReport, KvmVerdict, Verdict};

fn check(id: &str, verdict: Verdict, found: impl Into<String>, fix: Option<String>) -> Check {
    debug_assert!(CHECKS.contains(&id), "`{id}` is not listed");
    // A fix for what is as it should be is noise.
    let fix = fix.filter(|_| verdict != Verdict::Ok);
    Check { id: id.into(), verdict, found: found.into(), fix }
}

/// Puts it together.
pub(super) fn report(
    config: &QemuConfig,
    qemu: Result<Qemu, StartError>,
    kvm: KvmVerdict,
    scopes: &Scopes,
) -> HostReport {
    let mut checks = Vec::new();
    match &qemu {
        Ok(qemu) => checks.push(check(
            "qemu",
            Verdict::Ok,
            format!("{} ({})", qemu.program.version, qemu.program.path.display()),
            None,
        )),
        Err(error) => {
            let fix = error.hint().unwrap_or(install::FIX_QEMU).to_owned();
            checks.push(check("qemu", Verdict::Fail, error.to_string(), Some(fix)));
        }
    }
    let qemu_img = process::find_program("qemu-img");
    checks.push(match &qemu_img {
        Some(path) => check("qemu-img", Verdict::Ok, path.display().to_string(), None),
        None => check(
            "qemu-img",
            Verdict::Fail,
            "qemu-img is not installed",
            Some("sudo apt install qemu-utils".into()),
        ),
    });
    let kvm_verdict = if kvm.usable { Verdict::Ok } else { Verdict::Warn };
    let found = if kvm.usable {
        kvm.reason.clone()
    } else {
        format!("{}; guests run emulated, many times slower", kvm.reason)
    };
    checks.push(check("kvm", kvm_verdict, found, kvm.fix.clone()));

    let firmware = install::firmware(&config.firmware_dirs);
    for (id, secure, what) in [
        ("uefi", false, "UEFI firmware without Secure Boot"),
        ("uefi-secure-boot", true, "UEFI firmware with Secure Boot and Microsoft's keys"),
    ] {
        checks.push(match firmware.iter().find(|f| f.secure_boot == secure) {
            Some(f) => check(id, Verdict::Ok, f.code.display().to_string(), None),
            None => check(
                id,
                Verdict::Warn,
                format!("no {what}: generation 2 machines that need it cannot start"),
                Some(install::FIX_OVMF.into()),
            ),
        });
    }
    let tpm = install::swtpm();
    checks.push(match &tpm {
        Some(p) => check("tpm", Verdict::Ok, format!("{} ({})", p.version, p.path.display()), None),
        None => check(
            "tpm",
            Verdict::Warn,
            "swtpm is not installed: machines with a TPM cannot start",
            Some(install::FIX_SWTPM.into()),
        ),
    });
    let bridges = bridge::bridges();
    let bridge_helper = install::bridge_helper();
    checks.push(bridge_check(&bridges, bridge_helper.as_deref()));
    checks.extend(scopes.check());
    HostReport {
        engine: "qemu".into(),
        machine_versions: qemu.as_ref().map(|q| q.machines.clone()).unwrap_or_default(),
        program: qemu.ok().map(|q| q.program),
        kvm,
        firmware,
        tpm,
        bridges,
        bridge_helper,
        checks,
    }
}

fn bridge_check(bridges: &[String], helper: Option<&std::path::Path>) -> Check {
    let Some(helper) = helper else {
        return check(
            "bridge",
            Verdict::Warn,
            "qemu-bridge-helper is not installed: external switches cannot be used",
            Some(install::FIX_QEMU.into()),
        );
    };
    if bridges.is_empty() {
        return check(
            "bridge",
            Verdict::Warn,
            "this host has no bridge: external switches have nothing to map to (NAT and private ones work)",
            Some("sudo ip link add br0 type bridge && sudo ip link set br0 up".into()),
        );
    }
    let conf = "/etc/qemu/bridge.conf";
    let rules = fs::read_to_string(conf).unwrap_or_default();
    let denied: Vec<&str> = bridges.iter().map(String::as_str).filter(|b| !allows(&rules, b)).collect();
    if !denied.is_empty() {
        return check(
            "bridge",
            Verdict::Warn,
            format!("{conf} does not allow {}", denied.join(", ")),
            Some(format!("echo 'allow {}' | sudo tee -a {conf}", denied.first().copied().unwrap_or("br0"))),
        );
    }
    let root = rustix::process::geteuid().is_root();
    let setuid = fs::metadata(helper).is_ok_and(|m| m.mode() & 0o4000 != 0 && m.uid() == 0);
    if !root && !setuid {
        return check(
            "bridge",
            Verdict::Warn,
            format!("{} may not make taps for this user", helper.display()),
            Some(format!("sudo chmod u+s {}", helper.display())),
        );
    }
    check("bridge", Verdict::Ok, format!("bridges {}", bridges.join(", ")), None)
}

/// Whether the helper's rules let a bridge be used: a later rule overrides an earlier one (qemu-bridge-helper(8)).
fn allows(rules: &str, bridge: &str) -> bool {
    let mut allowed = false;
    for line in rules.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if let (Some(verb), Some(name)) = (words.next(), words.next())
            && (name == bridge || name == "all")
        {
            allowed = verb == "allow";
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_rules() {
        assert!(allows("# x\nallow br0 # mine\n", "br0"));
        assert!(!allows("allow br0\n", "br1"));
        assert!(allows("allow all\n", "br1"));
        assert!(!allows("allow all\ndeny br1\n", "br1"));
        assert!(!allows("", "br0"));
    }
}

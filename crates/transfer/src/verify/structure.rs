//! What can be said of a package that nobody signed for: its formats and its completeness.

use std::path::Path;

use vhdx::{CheckOptions, Image};

use super::{Finding, Proof, Report, Severity, VerifyError, VerifyOptions, chain, read_bounded};
use crate::manifest;
use crate::package::{ConfigKind, Configuration, Package, Resolver, image_options, is_disk_name};

/// Largest guest state file looked into, in bytes; real ones have 4 MiB.
const MAX_VMGS: u64 = 64 << 20;
/// Key under which configurations keep the path of a drive's medium.
const PATH_KEY: &str = "pathname";
/// Most disks that one configuration names; Hyper-V's controllers hold 260.
const MAX_DISKS: usize = 300;
/// Format findings taken over per disk.
const MAX_PER_DISK: usize = 100;

pub(super) fn verify(package: &Package, options: &VerifyOptions<'_>) -> Result<Report, VerifyError> {
    let mut report = Report::new(&package.root, Proof::Structure);
    let manifest = package.root.join(manifest::PATH);
    if manifest.symlink_metadata().is_ok() {
        report.add(
            "package.escapes",
            Severity::Error,
            &manifest,
            "is a link that leads nowhere, or outside the package",
        );
    }
    let mut resolver = package.resolver(options.disk_dirs);
    for configuration in package.configurations() {
        report.files += 1;
        check_configuration(&mut report, configuration, &mut resolver);
    }
    for disk in &package.disks {
        if (options.copy.cancelled)() {
            return Err(VerifyError::Cancelled);
        }
        report.disks += 1;
        check_disk(&mut report, &disk.path);
        // The chain, within the package and where the user said.
        let image = image_options(&package.root, options.disk_dirs);
        if let Err(error) = Image::open(&disk.path, &image) {
            report.add("disk.chain", Severity::Error, &disk.path, chain(&error));
        }
    }
    Ok(report)
}

fn check_configuration(report: &mut Report, configuration: &Configuration, resolver: &mut Resolver) {
    match vmcx::read_file(&configuration.path) {
        // Hyper-V's own are texts of WMI; ours, and those of some tools, are configurations.
        Err(_) if configuration.kind == ConfigKind::Exp => {
            report.add(
                "package.exp",
                Severity::Note,
                &configuration.path,
                "is a configuration of 2008 or 2008 R2, whose content is not checked",
            );
        }
        Err(error) => {
            report.add("package.configuration", Severity::Error, &configuration.path, chain(&error));
        }
        Ok(document) => {
            let named = document.tree.walk().filter(|(_, entry)| entry.name.eq_ignore_ascii_case(PATH_KEY));
            let disks = named.filter_map(|(_, entry)| Some(entry.value.as_text()?.to_string_lossy()));
            for (count, wanted) in disks.filter(|path| is_disk_name(path)).enumerate() {
                if count == MAX_DISKS {
                    let message = format!("names more than {MAX_DISKS} disks");
                    report.add("package.configuration", Severity::Error, &configuration.path, message);
                    break;
                }
                if let Err(error) = resolver.find(&wanted) {
                    report.push(Finding {
                        id: "package.disk-missing",
                        severity: Severity::Error,
                        path: report.relative(&configuration.path),
                        offset: None,
                        message: error.to_string(),
                        hint: Some("name the directory that has it: --disks DIR".to_owned()),
                    });
                }
            }
        }
    }
    if let Some(state) = &configuration.runtime_state
        && let Err(error) = vmcx::outline_file(&state.path, 64)
    {
        report.add("package.runtime-state", Severity::Warning, &state.path, chain(&error));
    }
    if let Some(state) = &configuration.guest_state {
        let parsed = read_bounded(&state.path, MAX_VMGS)
            .map_err(|error| error.to_string())
            .and_then(|bytes| vmcx::vmgs::parse(&bytes).map(drop).map_err(|error| chain(&error)));
        if let Err(message) = parsed {
            report.add("package.guest-state", Severity::Warning, &state.path, message);
        }
    }
}

/// Checks a VHD or VHDX against the rules of its format.
pub(super) fn check_disk(report: &mut Report, path: &Path) {
    let checked = match vhdx::check(path, &CheckOptions { max_findings: MAX_PER_DISK }) {
        Ok(checked) => checked,
        Err(error) => {
            report.add("disk.unreadable", Severity::Error, path, chain(&error));
            return;
        }
    };
    for finding in checked.findings {
        report.push(Finding {
            id: finding.rule,
            severity: match finding.severity {
                vhdx::Severity::Error => Severity::Error,
                vhdx::Severity::Warning => Severity::Warning,
                #[allow(unreachable_patterns, reason = "the other crate may add a lesser one")]
                _ => Severity::Note,
            },
            path: report.relative(path),
            offset: Some(finding.offset),
            message: finding.message,
            hint: None,
        });
    }
}

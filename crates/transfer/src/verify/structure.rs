//! What can be said of a package that nobody signed for: its formats and its completeness.

use std::path::Path;

use vhdx::{CheckOptions, Image, ImageOptions};

use super::{Finding, Proof, Report, Severity, VerifyError, VerifyOptions, chain, read_bounded};
use crate::package::{ConfigKind, Configuration, Package};

/// Largest guest state file looked into, in bytes; real ones have 4 MiB.
const MAX_VMGS: u64 = 64 << 20;
/// Key under which configurations keep the path of a drive's medium.
const PATH_KEY: &str = "pathname";
/// Format findings taken over per disk.
const MAX_PER_DISK: usize = 100;

pub(super) fn verify(package: &Package, options: &VerifyOptions<'_>) -> Result<Report, VerifyError> {
    let mut report = Report::new(&package.root, Proof::Structure);
    for configuration in package.configurations() {
        report.files += 1;
        check_configuration(&mut report, package, configuration, options);
    }
    for disk in &package.disks {
        if (options.copy.cancelled)() {
            return Err(VerifyError::Cancelled);
        }
        report.disks += 1;
        check_disk(&mut report, &disk.path);
        // The chain, within the package and where the user said.
        let image = ImageOptions {
            confine: Some(package.root.clone()),
            parent_dirs: options.disk_dirs.to_vec(),
            ..ImageOptions::default()
        };
        if let Err(error) = Image::open(&disk.path, &image) {
            report.add("disk.chain", Severity::Error, &disk.path, chain(&error));
        }
    }
    Ok(report)
}

fn check_configuration(
    report: &mut Report,
    package: &Package,
    configuration: &Configuration,
    options: &VerifyOptions<'_>,
) {
    if configuration.kind == ConfigKind::Exp {
        report.add(
            "package.exp",
            Severity::Note,
            &configuration.path,
            "is a configuration of 2008 or 2008 R2, whose content is not checked",
        );
        return;
    }
    match vmcx::read_file(&configuration.path) {
        Err(error) => {
            report.add("package.configuration", Severity::Error, &configuration.path, chain(&error));
        }
        Ok(document) => {
            for (_, entry) in document.tree.walk() {
                let Some(text) = entry.value.as_text().filter(|_| entry.name.eq_ignore_ascii_case(PATH_KEY))
                else {
                    continue;
                };
                let wanted = text.to_string_lossy();
                if crate::package::is_disk_name(&wanted)
                    && let Err(error) = package.resolve_disk(&wanted, options.disk_dirs)
                {
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

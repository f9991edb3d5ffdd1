//! Hyper-V's return codes: one table from the domain's reasons to each family of methods (`hyperv-semantics` §1).

use cim::{Class, Method, Value};
use machine::Reason;

/// A job does it.
pub(crate) const STARTED: u32 = 4096;
/// The vendor family's general failure, as jobs use it.
pub(crate) const FAILED: u16 = 32768;

/// Which numbers a method answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// 32768 to 32779; 32779 is *file in use* for imports and validation.
    Vendor,
    /// The same, where 32779 is *file not found*: image management.
    Image,
    /// 1 to 6: define, modify, add, remove, destroy.
    Dmtf,
    /// 1 to 5, 4097 and more: `RequestStateChange` of jobs and devices.
    StateChange,
    /// 1 to 7 as `KillJob` has them.
    Kill,
}

/// The numbers of one method: its family's, as far as the method declares them.
pub(crate) struct Codes<'m> {
    family: Family,
    /// What the declaration lists; nothing where it lists nothing.
    declared: Option<&'m Value>,
}

impl<'m> Codes<'m> {
    /// Those of `method` of `class`, as its value map tells.
    pub(crate) fn of(class: &Class, method: &'m Method) -> Self {
        let map = method.qualifiers.iter().find(|q| q.name == "ValueMap").map(|q| &q.value);
        let has = |code: &str| map.is_some_and(|map| map.elements().iter().any(|v| v.as_str() == Some(code)));
        let family = if class.name == "Msvm_ImageManagementService" {
            Family::Image
        } else if method.name == "KillJob" {
            Family::Kill
        // A planned system inherits its page from CIM, and is asked by the same clients as a machine.
        } else if map.is_none() || has("32775") || has("32770") || class.name == "Msvm_PlannedComputerSystem"
        {
            Family::Vendor
        } else if has("4097") {
            Family::StateChange
        } else {
            Family::Dmtf
        };
        Self { family, declared: map }
    }

    /// What the method returns for `reason`: the number of its family, the vendor's where the method's own list ends before
    /// it and takes the vendor's, and else that it failed or, where that is all it can say, that it is not supported.
    pub(crate) fn code(&self, reason: Reason) -> u32 {
        let own = code(self.family, reason);
        if self.declared.is_none() || self.family == Family::Vendor {
            // A short list of the vendor's (`RequestStateChange` of systems) is no reason to say something else: clients
            // take 32775 there for *is so already*.
            return own;
        }
        let failed = code(self.family, Reason::Io);
        [own, code(Family::Vendor, reason), failed].into_iter().find(|code| self.lists(*code)).unwrap_or(1)
    }

    /// Whether the declaration lists `code`, by itself or in a range.
    fn lists(&self, code: u32) -> bool {
        self.declared.is_some_and(|map| {
            map.elements().iter().filter_map(Value::as_str).any(|entry| includes(entry, code))
        })
    }
}

/// Whether an entry of a value map, a number or a range (`32768..65535`), includes `code`. `..` alone is what is reserved.
fn includes(entry: &str, code: u32) -> bool {
    match entry.split_once("..") {
        None => entry.parse() == Ok(code),
        Some((from, to)) => {
            from.parse::<u32>().is_ok_and(|from| from <= code) && to.parse::<u32>().is_ok_and(|to| code <= to)
        }
    }
}

/// The meanings that families have numbers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Failed,
    AccessDenied,
    NotSupported,
    Timeout,
    InvalidParameter,
    InUse,
    InvalidState,
    NotAvailable,
    OutOfMemory,
    FileInUse,
    FileNotFound,
}

fn meaning(reason: Reason) -> Meaning {
    match reason {
        Reason::NotFound => Meaning::FileNotFound,
        Reason::Ambiguous | Reason::InvalidArgument | Reason::BadPackage => Meaning::InvalidParameter,
        Reason::InvalidState | Reason::NotCompatible | Reason::BadState => Meaning::InvalidState,
        Reason::Busy => Meaning::InUse,
        Reason::InUse => Meaning::FileInUse,
        Reason::HostLacks => Meaning::NotAvailable,
        Reason::AccessDenied => Meaning::AccessDenied,
        Reason::NoSpace => Meaning::OutOfMemory,
        Reason::Timeout => Meaning::Timeout,
        Reason::NotSupported => Meaning::NotSupported,
        Reason::AlreadyExists | Reason::Io | Reason::Store | Reason::Engine => Meaning::Failed,
    }
}

/// What a method of `family` returns for `reason`.
pub(crate) fn code(family: Family, reason: Reason) -> u32 {
    use Meaning as M;
    let meaning = meaning(reason);
    match family {
        Family::Vendor | Family::Image => match meaning {
            M::Failed => 32768,
            M::AccessDenied => 32769,
            M::NotSupported => 32770,
            M::Timeout => 32772,
            M::InvalidParameter => 32773,
            M::InUse => 32774,
            M::InvalidState => 32775,
            M::NotAvailable => 32777,
            M::OutOfMemory => 32778,
            M::FileInUse if family == Family::Vendor => 32779,
            M::FileInUse => 32774,
            M::FileNotFound if family == Family::Image => 32779,
            M::FileNotFound => 32773,
        },
        Family::Dmtf => match meaning {
            M::NotSupported => 1,
            M::Failed | M::NotAvailable | M::OutOfMemory => 2,
            // The family has no word for it; Hyper-V's own is understood everywhere.
            M::AccessDenied => 32769,
            M::Timeout => 3,
            M::InvalidParameter | M::FileNotFound => 4,
            M::InvalidState | M::InUse | M::FileInUse => 5,
        },
        Family::Kill => match meaning {
            M::NotSupported => 1,
            M::Timeout => 3,
            M::AccessDenied => 6,
            M::FileNotFound => 7,
            _ => 4,
        },
        Family::StateChange => match meaning {
            M::NotSupported => 1,
            M::Timeout => 3,
            M::InvalidParameter | M::FileNotFound => 5,
            M::InUse | M::FileInUse => 4099,
            M::InvalidState => 4097,
            M::AccessDenied => 32769,
            M::Failed | M::NotAvailable | M::OutOfMemory => 4,
        },
    }
}

/// The `ErrorCode` of a job that failed with the failure `id`; the job answers in `family`.
pub(crate) fn job_error(family: Family, id: &str) -> u16 {
    let reason = Reason::ALL.into_iter().find(|reason| reason.id() == id);
    reason.and_then(|reason| code(family, reason).try_into().ok()).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_of_every_family() {
        for reason in Reason::ALL {
            for (family, valid) in [
                (Family::Vendor, 32768..=32779),
                (Family::Image, 32768..=32779),
                (Family::Dmtf, 1..=6),
                (Family::StateChange, 1..=5),
                (Family::Kill, 1..=7),
            ] {
                let code = code(family, reason);
                let extra = code == 32769 || (family == Family::StateChange && (4097..=4099).contains(&code));
                assert!(valid.contains(&code) || extra, "{reason:?} in {family:?}: {code}");
            }
        }
        assert_eq!(job_error(Family::Vendor, "invalid-state"), 32775);
        assert_eq!(job_error(Family::Image, "not-found"), 32779);
        assert_eq!(job_error(Family::Vendor, "job-step-panicked"), FAILED);
    }
}

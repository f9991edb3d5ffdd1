//! Hyper-V's return codes: one table from the domain's reasons to each family of methods (`hyperv-semantics` §1).

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
    /// 1 to 5, 4097 and more: `RequestStateChange` of jobs.
    JobState,
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
        Family::JobState => match meaning {
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
                (Family::JobState, 1..=5),
            ] {
                let code = code(family, reason);
                let extra = code == 32769 || (family == Family::JobState && (4097..=4099).contains(&code));
                assert!(valid.contains(&code) || extra, "{reason:?} in {family:?}: {code}");
            }
        }
        assert_eq!(job_error(Family::Vendor, "invalid-state"), 32775);
        assert_eq!(job_error(Family::Image, "not-found"), 32779);
        assert_eq!(job_error(Family::Vendor, "job-step-panicked"), FAILED);
    }
}

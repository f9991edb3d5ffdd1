//! What instances are made of: the host, a machine (real or planned), a switch, a job.

use std::path::PathBuf;

use machine::MachineView;
use machine::disk::DiskRecord;
use machine::import::PlannedView;
use machine::planned::PlannedDisk;
use machine::power::PowerState;
use machine::settings::Settings;
use machine::switch::SwitchRecord;
use uuid::Uuid;

use crate::job_class::JobView;

/// A kind of owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// There is one.
    Host,
    /// Machines and planned machines.
    Machine,
    /// Virtual switches.
    Switch,
    /// Jobs that are not forgotten.
    Job,
}

impl Scope {
    /// In the order in which listings go through them.
    pub(crate) const ALL: [Self; 4] = [Self::Host, Self::Machine, Self::Switch, Self::Job];
}

/// Which owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OwnerId {
    Host,
    Machine(Uuid),
    Planned(Uuid),
    Switch(Uuid),
    Job(Uuid),
}

/// An owner, as it is now.
#[derive(Debug)]
pub(crate) enum Owner {
    Host,
    Machine(Box<Machine>),
    Switch(SwitchRecord),
    Job(Box<JobView>),
}

impl Owner {
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Host => Scope::Host,
            Self::Machine(_) => Scope::Machine,
            Self::Switch(_) => Scope::Switch,
            Self::Job(_) => Scope::Job,
        }
    }

    /// The machine that the policy is asked about: a job is seen by whoever sees its machine.
    pub(crate) fn machine(&self) -> Option<Uuid> {
        match self {
            Self::Host | Self::Switch(_) => None,
            Self::Machine(machine) => Some(machine.id()),
            Self::Job(job) => job.subject,
        }
    }

    pub(crate) fn id(&self) -> OwnerId {
        match self {
            Self::Host => OwnerId::Host,
            Self::Machine(machine) => machine.owner(),
            Self::Switch(switch) => OwnerId::Switch(switch.id),
            Self::Job(job) => OwnerId::Job(job.id),
        }
    }
}

/// A machine, or one that is planned.
#[derive(Debug)]
pub(crate) enum Machine {
    Real(MachineView),
    Planned(PlannedView),
}

/// What both have of a disk.
#[derive(Debug)]
pub(crate) struct Disk<'m> {
    /// The file that its users name; `None` while it is missing.
    pub(crate) file: Option<&'m PathBuf>,
    /// The path that its configuration gave it.
    pub(crate) source: Option<&'m str>,
}

impl Machine {
    pub(crate) fn owner(&self) -> OwnerId {
        match self {
            Self::Real(view) => OwnerId::Machine(view.record.id),
            Self::Planned(view) => OwnerId::Planned(view.record.id),
        }
    }

    pub(crate) fn id(&self) -> Uuid {
        match self {
            Self::Real(view) => view.record.id,
            Self::Planned(view) => view.record.id,
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        match self {
            Self::Real(view) => &view.record.settings,
            Self::Planned(view) => &view.record.settings,
        }
    }

    pub(crate) fn created(&self) -> jiff::Timestamp {
        match self {
            Self::Real(view) => view.record.created,
            Self::Planned(view) => view.record.created,
        }
    }

    pub(crate) fn real(&self) -> Option<&MachineView> {
        match self {
            Self::Real(view) => Some(view),
            Self::Planned(_) => None,
        }
    }

    pub(crate) fn planned(&self) -> Option<&PlannedView> {
        match self {
            Self::Real(_) => None,
            Self::Planned(view) => Some(view),
        }
    }

    /// Its machine's directory, once it has one.
    pub(crate) fn home(&self) -> Option<&PathBuf> {
        self.real().map(|view| &view.record.home)
    }

    /// Whether its guest's memory is kept.
    pub(crate) fn saved(&self) -> bool {
        match self {
            Self::Real(view) => view.power == PowerState::Saved,
            Self::Planned(view) => view.record.state.is_some(),
        }
    }

    /// Whether there is a guest that devices could be of.
    pub(crate) fn alive(&self) -> bool {
        self.real().is_some_and(|view| !view.power.at_rest())
    }

    pub(crate) fn disk(&self, id: Uuid) -> Option<Disk<'_>> {
        match self {
            Self::Real(view) => view.disks.iter().find(|disk| disk.id == id).map(Disk::from),
            Self::Planned(view) => view.record.disks.iter().find(|disk| disk.id == id).map(Disk::from),
        }
    }

    /// The address of adapter number `n`, in six bytes of hexadecimal.
    pub(crate) fn mac(&self, n: usize) -> Option<String> {
        let text = match self {
            Self::Real(view) => view.macs.get(n).cloned(),
            Self::Planned(view) => view.record.settings.adapters.get(n)?.mac.map(|mac| mac.to_string()),
        }?;
        Some(crate::ids::mac(&text))
    }
}

impl<'m> From<&'m DiskRecord> for Disk<'m> {
    fn from(disk: &'m DiskRecord) -> Self {
        Self { file: disk.file(), source: disk.source_path.as_deref() }
    }
}

impl<'m> From<&'m PlannedDisk> for Disk<'m> {
    fn from(disk: &'m PlannedDisk) -> Self {
        Self { file: disk.file.as_ref(), source: Some(&disk.source_path) }
    }
}

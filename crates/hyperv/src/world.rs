//! What providers, associations and methods work with: the domain, the settings, and the way from ids to owners.

use std::sync::Arc;

use access::Action;
use machine::{Host, Reason};
use uuid::Uuid;
use wsman::{Call, Failure, FailureKind};

use crate::agents::Agents;
use crate::job_class::{JobView, expired};
use crate::owner::{Machine, Owner, OwnerId, Scope};
use crate::owners::Owners;
use crate::settings::Settings;
use crate::tasks::Tasks;

pub(crate) struct World {
    pub(crate) host: Arc<Host>,
    pub(crate) settings: Settings,
    pub(crate) tasks: Tasks,
    pub(crate) agents: Arc<Agents>,
    /// The classes of Hyper-V, for instances inside texts.
    pub(crate) schema: cim::Schema,
}

impl World {
    /// The host's name, as clients know it.
    pub(crate) fn host_name(&self) -> &str {
        &self.settings.host_name
    }

    /// Every owner of that kind, by id.
    pub(crate) fn owners(self: &Arc<Self>, scope: Scope) -> Owners {
        Owners::all(self, [scope])
    }

    /// The owner as it is now; `None` when there is none, or none any more.
    pub(crate) fn load(&self, id: OwnerId) -> machine::Result<Option<Owner>> {
        let machine = |machine| Owner::Machine(Box::new(machine));
        let found = match id {
            OwnerId::Host => Ok(Owner::Host),
            OwnerId::Machine(id) => self.host.machine(id).map(Machine::Real).map(machine),
            OwnerId::Planned(id) => self.host.planned_machine(id).map(Machine::Planned).map(machine),
            OwnerId::Switch(id) => self.host.switch(&id.to_string()).map(Owner::Switch),
            OwnerId::Job(id) => return Ok(self.job(id).map(|job| Owner::Job(Box::new(job)))),
        };
        match found {
            Ok(owner) => Ok(Some(owner)),
            Err(e) if e.reason() == Reason::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The owners of `scope` that an id could be of.
    pub(crate) fn candidates(scope: Scope, id: Uuid) -> Vec<OwnerId> {
        match scope {
            Scope::Host => vec![OwnerId::Host],
            Scope::Machine => vec![OwnerId::Machine(id), OwnerId::Planned(id)],
            Scope::Switch => vec![OwnerId::Switch(id)],
            Scope::Job => vec![OwnerId::Job(id)],
        }
    }

    /// The owners of `scope` whose instances may be associated with those of `owner`.
    pub(crate) fn related(self: &Arc<Self>, owner: &Owner, scope: Scope) -> machine::Result<Owners> {
        let ids = match (owner, scope) {
            (_, Scope::Host) => vec![OwnerId::Host],
            (Owner::Host, _) => return Ok(self.owners(scope)),
            (owner, scope) if owner.scope() == scope => vec![owner.id()],
            (Owner::Job(job), Scope::Machine) => job.affects().into_iter().collect(),
            (Owner::Machine(machine), Scope::Job) => {
                let about =
                    |id: &Uuid| self.job(*id).is_some_and(|job| job.affects() == Some(machine.owner()));
                self.jobs_of(machine.id()).into_iter().filter(about).map(OwnerId::Job).collect()
            }
            (Owner::Machine(machine), Scope::Switch) => {
                let plugged = |name: &String| {
                    machine.settings().adapters.iter().any(|a| a.switch.as_ref() == Some(name))
                };
                let switches = self.host.switches()?.into_iter();
                switches.filter(|s| plugged(&s.name)).map(|s| OwnerId::Switch(s.id)).collect()
            }
            (Owner::Switch(switch), Scope::Machine) => {
                let machines = self.host.machines_on(&switch.name)?.into_iter().map(OwnerId::Machine);
                let planned = self.host.planned_on(&switch.name)?.into_iter().map(OwnerId::Planned);
                machines.chain(planned).collect()
            }
            _ => Vec::new(),
        };
        Ok(Owners::these(self, ids))
    }

    /// Whether the caller may see what `owner` has.
    pub(crate) fn sees(&self, call: &Call, owner: &Owner) -> bool {
        self.may(call, Action::See, owner.machine())
    }

    pub(crate) fn may(&self, call: &Call, action: Action, machine: Option<Uuid>) -> bool {
        (self.settings.policy)(&call.principal, action, machine)
    }

    /// The id of the switch of that name.
    pub(crate) fn switch_id(&self, name: &str) -> Option<Uuid> {
        self.host.switch(name).ok().map(|switch| switch.id)
    }

    /// Jobs that are not forgotten.
    pub(crate) fn job_ids(&self) -> Vec<Uuid> {
        let ours = self.tasks.ids(None).into_iter();
        ours.chain(self.domain_jobs(&job::Filter::default())).collect()
    }

    /// Those about `machine`.
    pub(crate) fn jobs_of(&self, machine: Uuid) -> Vec<Uuid> {
        let filter = job::Filter { subject: Some(machine.to_string()), ..job::Filter::default() };
        let ours = self.tasks.ids(Some(machine)).into_iter();
        ours.chain(self.domain_jobs(&filter)).collect()
    }

    fn domain_jobs(&self, filter: &job::Filter) -> impl Iterator<Item = Uuid> + use<> {
        let now = self.host.now();
        self.host.jobs().list(filter).into_iter().filter(move |s| kept(s, now)).map(|status| status.id.0)
    }

    pub(crate) fn job(&self, id: Uuid) -> Option<JobView> {
        let now = self.host.now();
        let domain =
            || self.host.jobs().get(job::JobId(id)).filter(|s| kept(s, now)).map(|s| JobView::of(&s));
        self.tasks.get(id).or_else(domain)
    }

    /// A path in the namespace of Hyper-V on this host, to which keys are added.
    pub(crate) fn path(&self, class: &str) -> cim::ObjectPath {
        let mut path = cim::ObjectPath::new(class).within(crate::provider::VIRTUALIZATION);
        path.host = Some(self.host_name().to_owned());
        path
    }
}

fn kept(status: &job::Status, now: jiff::Timestamp) -> bool {
    !status.finished.is_some_and(|at| expired(at, now))
}

/// A failure of the domain where there is no return value to carry it.
pub(crate) fn failed(error: &machine::Error) -> Failure {
    let kind = match error.reason() {
        Reason::NotFound => FailureKind::NotFound,
        Reason::AccessDenied => FailureKind::AccessDenied,
        Reason::NotSupported => FailureKind::NotSupported,
        Reason::Busy => FailureKind::Busy,
        Reason::Timeout => FailureKind::TimedOut,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, error.chain())
}

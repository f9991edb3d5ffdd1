//! Which instances belong together: a table, and one way to walk it.
//!
//! An association joins the instances of two ends that have owners of given kinds, and that are `linked`. From an instance
//! the walk goes to the owners that can be related to its own (mostly the same one), and takes what is linked there: it
//! costs what it finds, not what there is.

use std::sync::Arc;

use cim::{Instance, Name, ObjectPath, Value};
use wsman::{Call, Failure, FailureKind, Instances, Walk};

use crate::fill;
use crate::owner::{Owner, OwnerId, Scope};
use crate::provider::{Namespace, same};
use crate::world::{World, failed};

/// One side of an association.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// The property that refers to it.
    role: &'static str,
    /// Its class, or one above it.
    class: &'static str,
    /// What it is part of.
    scope: Scope,
    /// Whether it lies in the namespace beside that of the association.
    elsewhere: bool,
}

/// Whether an instance of the first end and one of the second are associated.
type Linked = fn(&Instance, &Instance) -> bool;

/// Says more than the two references, of the first end and the second.
type Says = fn(&Instance, &Instance, &mut Instance);

/// An association class, or a part of one.
#[derive(Clone, Copy)]
pub(crate) struct Association {
    pub(crate) class: &'static str,
    first: End,
    second: End,
    linked: Linked,
    /// What an association says besides its two references.
    says: Says,
}

pub(crate) const fn end(role: &'static str, class: &'static str, scope: Scope) -> End {
    End { role, class, scope, elsewhere: false }
}

/// An end in the namespace beside. Nothing is walked to from there, since the association is not known there.
pub(crate) const fn elsewhere(role: &'static str, class: &'static str, scope: Scope) -> End {
    End { role, class, scope, elsewhere: true }
}

pub(crate) const fn all(class: &'static str, first: End, second: End) -> Association {
    Association { class, first, second, linked: |_, _| true, says: |_, _, _| {} }
}

impl Association {
    /// The same for those alone that are `linked`.
    pub(crate) const fn when(self, linked: Linked) -> Self {
        Self { linked, ..self }
    }

    /// The same, saying more than its references.
    pub(crate) const fn saying(self, says: Says) -> Self {
        Self { says, ..self }
    }
}

/// Those of `root/virtualization/v2` that join several parts; others stand beside what they join.
pub(crate) const VIRTUALIZATION: &[Association] = &[
    all(
        "Msvm_SettingsDefineState",
        end("ManagedElement", "CIM_ComputerSystem", Scope::Machine),
        end("SettingData", "Msvm_VirtualSystemSettingData", Scope::Machine),
    ),
    all(
        "Msvm_SettingsDefineState",
        end("ManagedElement", "Msvm_VirtualEthernetSwitch", Scope::Switch),
        end("SettingData", "Msvm_VirtualEthernetSwitchSettingData", Scope::Switch),
    ),
    all(
        "Msvm_VirtualSystemSettingDataComponent",
        end("GroupComponent", "Msvm_VirtualSystemSettingData", Scope::Machine),
        end("PartComponent", "CIM_ResourceAllocationSettingData", Scope::Machine),
    ),
    all(
        "Msvm_SettingDataComponent",
        end("GroupComponent", "Msvm_VirtualSystemSettingData", Scope::Machine),
        end("PartComponent", "Msvm_SecuritySettingData", Scope::Machine),
    ),
    all(
        "Msvm_SystemExportSettingData",
        end("ManagedElement", "Msvm_ComputerSystem", Scope::Machine),
        end("SettingData", "Msvm_VirtualSystemExportSettingData", Scope::Machine),
    ),
    all(
        "Msvm_EthernetPortSettingDataComponent",
        end("GroupComponent", "Msvm_EthernetPortAllocationSettingData", Scope::Machine),
        end("PartComponent", "Msvm_EthernetSwitchPortFeatureSettingData", Scope::Machine),
    )
    .when(|connection, feature| {
        let (Some(whole), Some(part)) = (connection.text("InstanceID"), feature.text("InstanceID")) else {
            return false;
        };
        part.strip_prefix(whole).is_some_and(|rest| rest.starts_with('\\'))
    }),
    all(
        "Msvm_HostedService",
        end("Antecedent", "Msvm_ComputerSystem", Scope::Host),
        end("Dependent", "CIM_Service", Scope::Host),
    ),
    all(
        "Msvm_HostedDependency",
        end("Antecedent", "Msvm_ComputerSystem", Scope::Host),
        end("Dependent", "Msvm_ComputerSystem", Scope::Machine),
    ),
    all(
        "Msvm_HostedDependency",
        end("Antecedent", "Msvm_ComputerSystem", Scope::Host),
        end("Dependent", "Msvm_VirtualEthernetSwitch", Scope::Switch),
    ),
    all(
        "Msvm_ElementSettingData",
        end("ManagedElement", "Msvm_VirtualSystemManagementService", Scope::Host),
        end("SettingData", "Msvm_VirtualSystemManagementServiceSettingData", Scope::Host),
    ),
    all(
        "Msvm_ElementCapabilities",
        end("ManagedElement", "Msvm_VirtualSystemManagementService", Scope::Host),
        end("Capabilities", "Msvm_VirtualSystemManagementCapabilities", Scope::Host),
    ),
    all(
        "Msvm_ServiceAffectsElement",
        end("AffectingElement", "Msvm_VirtualSystemManagementService", Scope::Host),
        end("AffectedElement", "CIM_ComputerSystem", Scope::Machine),
    ),
    all(
        "Msvm_ServiceAffectsElement",
        end("AffectingElement", "Msvm_VirtualEthernetSwitchManagementService", Scope::Host),
        end("AffectedElement", "Msvm_VirtualEthernetSwitch", Scope::Switch),
    ),
    all(
        "Msvm_AffectedJobElement",
        end("AffectingElement", "Msvm_ConcreteJob", Scope::Job),
        end("AffectedElement", "CIM_ComputerSystem", Scope::Machine),
    )
    .saying(|job, affected, association| {
        let creates = affected.class == "Msvm_ComputerSystem"
            && job.get("JobType").and_then(Value::as_u64)
                == Some(crate::job_class::Kind::Realize.number().into());
        // 5 is *create*, 0 is *unknown*.
        let effect = if creates { 5_u16 } else { 0 };
        association.set("ElementEffects", Some(vec![effect].into()));
    }),
    all(
        "Msvm_OwningJobElement",
        end("OwningElement", "Msvm_VirtualSystemManagementService", Scope::Host),
        end("OwnedElement", "Msvm_ConcreteJob", Scope::Job),
    ),
    all(
        "Msvm_OwningJobElement",
        end("OwningElement", "Msvm_ImageManagementService", Scope::Host),
        end("OwnedElement", "Msvm_StorageJob", Scope::Job),
    ),
];

/// All of `root/cimv2`.
pub(crate) const CIMV2: &[Association] = &[all(
    "Win32_ComputerSystemProcessor",
    end("GroupComponent", "Win32_ComputerSystem", Scope::Host),
    end("PartComponent", "Win32_Processor", Scope::Host),
)];

/// An association, from one of its ends.
#[derive(Clone, Copy)]
struct Step {
    association: &'static Association,
    /// Whether it goes from the first end to the second.
    forward: bool,
}

impl Step {
    fn near(&self) -> End {
        if self.forward { self.association.first } else { self.association.second }
    }

    fn far(&self) -> End {
        if self.forward { self.association.second } else { self.association.first }
    }

    /// The namespace where the far end lies.
    fn place<'n>(&self, namespace: &'n Arc<Namespace>) -> &'n Arc<Namespace> {
        namespace.beside.as_ref().filter(|_| self.far().elsewhere).unwrap_or(namespace)
    }

    fn linked(&self, near: &Instance, far: &Instance) -> bool {
        let (first, second) = if self.forward { (near, far) } else { (far, near) };
        // Nothing is associated with itself, though a class may be at both ends.
        near.path != far.path && (self.association.linked)(first, second)
    }

    /// The association itself.
    fn instance(
        &self,
        namespace: &Namespace,
        world: &World,
        near: &Instance,
        far: &Instance,
    ) -> Option<Instance> {
        let class = namespace.schema.class(self.association.class)?;
        let mut made = Instance::new(self.association.class);
        let (first, second) = if self.forward { (near, far) } else { (far, near) };
        for (end, instance) in [(self.association.first, first), (self.association.second, second)] {
            made.set(end.role, instance.path.clone().map(Value::from));
        }
        (self.association.says)(first, second, &mut made);
        Some(fill::placed(class, &made, world.host_name(), namespace.name))
    }
}

fn is_a(namespace: &Namespace, class: &str, ancestor: Option<&Name>) -> bool {
    ancestor.is_none_or(|ancestor| namespace.schema.is_a(class, ancestor.as_str()))
}

/// The steps that lead from `from`, as far as the walk asks for them.
fn steps(namespace: &Namespace, from: &Instance, owner: &Owner, walk: &Walk) -> Vec<Step> {
    let both = namespace
        .associations()
        .flat_map(|association| [Step { association, forward: true }, Step { association, forward: false }]);
    let asked = |asked: &Option<Name>, role: &str| asked.as_ref().is_none_or(|asked| *asked == role);
    both.filter(|step| {
        let near = step.near();
        near.scope == owner.scope()
            && !near.elsewhere
            && namespace.schema.is_a(from.class.as_str(), near.class)
            && is_a(namespace, step.association.class, walk.association.as_ref())
            && asked(&walk.role, near.role)
            && asked(&walk.result_role, step.far().role)
    })
    .collect()
}

/// What the far ends of `steps` hold, one owner at a time: each step with each instance that is linked.
fn walked(
    namespace: &Arc<Namespace>,
    world: &Arc<World>,
    call: &Call,
    (from, owner): (Instance, Owner),
    steps: Vec<Step>,
) -> Result<impl Iterator<Item = Result<(Step, Instance, Instance), Failure>> + Send + use<>, Failure> {
    let mut visits = Vec::new();
    for step in steps {
        let owners = world.related(&owner, step.far().scope).map_err(|e| failed(&e))?;
        visits.push((step, owners));
    }
    let (namespace, world, call) = (Arc::clone(namespace), Arc::clone(world), call.clone());
    Ok(visits.into_iter().flat_map(move |(step, owners)| {
        let near = from.clone();
        let wanted = move |_: &World, far: &Instance| step.linked(&near, far);
        let place = step.place(&namespace);
        let far = place.from_owners(&world, &call, owners, step.far().class.to_owned(), wanted);
        let near = from.clone();
        far.map(move |far| Ok((step, near.clone(), far?)))
    }))
}

impl Namespace {
    /// The instances associated with the one at `path`, each once.
    pub(crate) fn associators(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        path: &ObjectPath,
        walk: &Walk,
    ) -> Result<Instances, Failure> {
        let (from, owner) = self.find(world, call, path)?;
        let steps = steps(self, &from, &owner, walk);
        let several = steps.len() > 1;
        let found = walked(self, world, call, (from, owner), steps)?;
        let (this, result) = (Arc::clone(self), walk.result.clone());
        let mut seen = std::collections::HashSet::new();
        Ok(Box::new(found.filter_map(move |found| match found {
            Err(e) => Some(Err(e)),
            Ok((step, _, far)) => {
                let wanted = is_a(step.place(&this), far.class.as_str(), result.as_ref())
                    // One step leads to nothing twice.
                    && (!several || seen.insert(far.path.as_ref().map(ToString::to_string)));
                wanted.then_some(Ok(far))
            }
        })))
    }

    /// The associations that refer to the instance at `path`.
    pub(crate) fn references(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        path: &ObjectPath,
        walk: &Walk,
    ) -> Result<Instances, Failure> {
        let (from, owner) = self.find(world, call, path)?;
        // For references the result is the association itself.
        let mut steps = steps(self, &from, &owner, walk);
        steps.retain(|step| is_a(self, step.association.class, walk.result.as_ref()));
        let found = walked(self, world, call, (from, owner), steps)?;
        let (this, world) = (Arc::clone(self), Arc::clone(world));
        Ok(Box::new(found.filter_map(move |found| match found {
            Err(e) => Some(Err(e)),
            Ok((step, near, far)) => step.instance(&this, &world, &near, &far).map(Ok),
        })))
    }

    /// Every association of `class` and of those below it.
    pub(crate) fn list_associations(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        class: &str,
    ) -> Result<Instances, Failure> {
        let mut starts = Vec::new();
        for association in self.associations().filter(|a| self.schema.is_a(a.class, class)) {
            let owners = world.owners(association.first.scope);
            starts.push((Step { association, forward: true }, owners));
        }
        let (this, world, call) = (Arc::clone(self), Arc::clone(world), call.clone());
        Ok(Box::new(starts.into_iter().flat_map(move |(step, owners)| {
            let (this, world, call) = (Arc::clone(&this), Arc::clone(&world), call.clone());
            owners.flat_map(move |id| match id {
                Ok(id) => this.associations_of(&world, &call, step, id),
                Err(e) => vec![Err(failed(&e))],
            })
        })))
    }

    /// The associations that `step` makes of the instances of one owner.
    fn associations_of(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        step: Step,
        id: OwnerId,
    ) -> Vec<Result<Instance, Failure>> {
        let nears: Vec<Instance> = match world.load(id) {
            Ok(Some(owner)) if world.sees(call, &owner) => self.made(world, &owner, step.near().class),
            Ok(_) => return Vec::new(),
            Err(e) => return vec![Err(failed(&e))],
        };
        let mut found = Vec::new();
        for near in nears {
            let Ok(Some(owner)) = world.load(id) else { continue };
            match walked(self, world, call, (near, owner), vec![step]) {
                Ok(walked) => found.extend(walked.filter_map(|one| match one {
                    Err(e) => Some(Err(e)),
                    Ok((step, near, far)) => step.instance(self, world, &near, &far).map(Ok),
                })),
                Err(e) => found.push(Err(e)),
            }
        }
        found
    }

    /// The association at `path`, whose keys refer to both ends.
    pub(crate) fn association(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        path: &ObjectPath,
    ) -> Result<Instance, Failure> {
        let missing = || Failure::new(FailureKind::NotFound, format!("there is no `{path}`"));
        let class = path.class.as_str();
        let near = path.keys.iter().find_map(|(role, value)| Some((role.clone(), value.as_path()?.clone())));
        let (role, near) = near.ok_or_else(|| {
            Failure::new(FailureKind::InvalidKeys, format!("the keys of `{path}` refer to nothing"))
        })?;
        let walk = Walk { association: Some(class.into()), role: Some(role), ..Walk::default() };
        for found in self.references(world, call, &near, &walk)? {
            let found = found?;
            let fits =
                path.keys.iter().all(|(name, value)| match (found.get(name.as_str()), value.as_path()) {
                    (Some(Value::Reference(there)), Some(asked)) => same(there, asked),
                    (Some(there), None) => there == value,
                    _ => false,
                });
            if fits {
                return Ok(found);
            }
        }
        Err(missing())
    }
}

//! What a port can do besides carrying packets: `Msvm_EthernetSwitchPort…SettingData` on an adapter's connection.
//!
//! A VLAN in access mode is the domain's own. Of security and bandwidth nothing can be chosen: what is so is told, and settings
//! that ask for just that are taken, since clients send back what they were given. A bridge lets a guest send from any
//! address, so to *forbid* that (`AllowMacSpoofing` = false) is what is refused, however harmless it looks.

use cim::{Instance, ObjectPath, Value};
use machine::Reason;
use machine::define::{AdapterEdit, MachineEdit};
use uuid::{Uuid, uuid};
use wsman::Output;

use crate::association::{Association, all, end};
use crate::ethernet::connection_id;
use crate::ids::{self, Bound};
use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Machine, Owner, OwnerId, Scope};
use crate::world::World;

const VLAN: &str = "Msvm_EthernetSwitchPortVlanSettingData";
const SECURITY: &str = "Msvm_EthernetSwitchPortSecuritySettingData";
const BANDWIDTH: &str = "Msvm_EthernetSwitchPortBandwidthSettingData";
const PARAMETER: &str = "FeatureSettings";

/// A feature that ports have, by the id that it has on every host.
struct Feature {
    id: Uuid,
    class: &'static str,
    name: &'static str,
}

const VLAN_FEATURE: Feature = Feature {
    id: uuid!("952c5004-4465-451c-8cb8-fa9ab382b773"),
    class: VLAN,
    name: "Ethernet Switch Port VLAN Settings",
};
const SECURITY_FEATURE: Feature = Feature {
    id: uuid!("776e0ba7-94a1-41c8-8f28-951f524251b5"),
    class: SECURITY,
    name: "Ethernet Switch Port Security Settings",
};
const BANDWIDTH_FEATURE: Feature = Feature {
    id: uuid!("24ad3ce1-69bd-4978-b2ac-daad389d699c"),
    class: BANDWIDTH,
    name: "Ethernet Switch Port Bandwidth Settings",
};
const FEATURES: [&Feature; 3] = [&VLAN_FEATURE, &SECURITY_FEATURE, &BANDWIDTH_FEATURE];

/// Numbers of `OperationMode`.
mod mode {
    pub(super) const NONE: u64 = 0;
    pub(super) const ACCESS: u64 = 1;
    pub(super) const TRUNK: u64 = 2;
    pub(super) const PRIVATE: u64 = 3;
}

pub(crate) fn capabilities(_: &World) -> Vec<Instance> {
    let one = |feature: &Feature| {
        Instance::new("Msvm_EthernetSwitchFeatureCapabilities")
            .with("InstanceID", ids::of(feature.id))
            .with("ElementName", feature.name)
            .with("FeatureId", ids::guid(feature.id))
            .with("Applicability", 1_u16)
    };
    FEATURES.into_iter().map(one).collect()
}

/// The feature as it is on a port that nobody set anything of.
fn plain(feature: &Feature, id: String) -> Instance {
    let instance = Instance::new(feature.class).with("InstanceID", id).with("ElementName", feature.name);
    match feature.class {
        SECURITY => instance.with("AllowMacSpoofing", true),
        _ => instance,
    }
}

fn default(feature: &Feature) -> Vec<Instance> {
    vec![plain(feature, ids::definition(feature.id, Bound::Default))]
}

pub(crate) fn default_vlan(_: &World) -> Vec<Instance> {
    default(&VLAN_FEATURE)
}

pub(crate) fn default_security(_: &World) -> Vec<Instance> {
    default(&SECURITY_FEATURE)
}

pub(crate) fn default_bandwidth(_: &World) -> Vec<Instance> {
    default(&BANDWIDTH_FEATURE)
}

/// The id of a feature of a connection.
fn part_id(connection: &str, feature: &Feature) -> String {
    format!(r"{connection}\{}", ids::guid(feature.id))
}

pub(crate) fn vlan(_: &World, machine: &Machine) -> Vec<Instance> {
    let all = machine.settings().adapters.iter();
    all.filter_map(|adapter| {
        let vlan = adapter.vlan?;
        let made = plain(&VLAN_FEATURE, part_id(&connection_id(machine, adapter), &VLAN_FEATURE));
        Some(made.with("OperationMode", mode::ACCESS).with("AccessVlanId", vlan))
    })
    .collect()
}

pub(crate) fn security(_: &World, machine: &Machine) -> Vec<Instance> {
    let all = machine.settings().adapters.iter();
    all.map(|adapter| plain(&SECURITY_FEATURE, part_id(&connection_id(machine, adapter), &SECURITY_FEATURE)))
        .collect()
}

/// The access VLAN that settings ask for: none at all, or one.
fn wanted_vlan(instance: &Instance) -> Result<Option<u16>, Refused> {
    let number = |name: &str| instance.get(name).and_then(Value::as_u64).unwrap_or(0);
    let access = number("AccessVlanId");
    let not_here = |what: &str| {
        Err(Refused::new(Reason::NotSupported, format!("{what}: ports here are in access mode")))
    };
    match number("OperationMode") {
        mode::NONE if access == 0 => Ok(None),
        mode::ACCESS => match u16::try_from(access) {
            Ok(vlan @ 1..=4094) => Ok(Some(vlan)),
            _ => Err(invalid(PARAMETER, format!("AccessVlanId: {access} is outside 1 to 4094"))),
        },
        mode::TRUNK => not_here("OperationMode 2 (trunk)"),
        mode::PRIVATE => not_here("OperationMode 3 (private VLANs)"),
        other => {
            Err(invalid(PARAMETER, format!("OperationMode: {other} with AccessVlanId {access} is none")))
        }
    }
}

/// Refuses settings of `feature` that ask for something else than what is so.
fn as_it_is(invocation: &Invocation<'_>, feature: &Feature, instance: &Instance) -> Result<(), Refused> {
    let Some(class) = invocation.schema().class(feature.class) else { return Ok(()) };
    let is = crate::fill::whole(class, &plain(feature, String::new()));
    let described = ["InstanceID", "ElementName", "Caption", "Description"];
    for (name, asked) in &instance.properties {
        if described.iter().any(|described| *name == *described) {
            continue;
        }
        if let Some(asked) = asked
            && is.get(name.as_str()) != Some(asked)
        {
            let what = format!("{}.{name}: {asked} cannot be chosen here", feature.class);
            return Err(Refused::new(Reason::NotSupported, what));
        }
    }
    Ok(())
}

/// What `instance` makes of an adapter; `None` where it asks for what is so anyway.
fn edit(
    invocation: &Invocation<'_>,
    index: usize,
    instance: &Instance,
) -> Result<(&'static Feature, Option<AdapterEdit>), Refused> {
    let feature = FEATURES.into_iter().find(|feature| instance.class == feature.class);
    match feature {
        Some(feature) if feature.class == VLAN => {
            let vlan = Some(wanted_vlan(instance)?);
            Ok((feature, Some(AdapterEdit { index, vlan, ..AdapterEdit::default() })))
        }
        Some(feature) => as_it_is(invocation, feature, instance).map(|()| (feature, None)),
        None => Err(not_here(instance.class.as_str())),
    }
}

fn not_here(class: &str) -> Refused {
    Refused::new(Reason::NotSupported, format!("no port has {class} here"))
}

/// The machine, the number of the adapter, and the id of its connection, that an id of a connection or a feature of one is of.
fn connection(
    invocation: &Invocation<'_>,
    parameter: &str,
    id: &str,
) -> Result<(Machine, usize, String), Refused> {
    let wrong = || invalid(parameter, format!("`{id}` is no connection of a machine's adapter"));
    let owner = ids::owner(id).ok_or_else(wrong)?;
    invocation.permit(Some(owner))?;
    let machine = match invocation.world.load(OwnerId::Machine(owner))? {
        Some(Owner::Machine(machine)) => *machine,
        _ if invocation.world.load(OwnerId::Planned(owner))?.is_some() => {
            let what = "the features of a planned machine's ports";
            return Err(Refused::new(Reason::NotSupported, format!("{what} are set once it is a machine")));
        }
        _ => return Err(wrong()),
    };
    let adapters = machine.settings().adapters.iter();
    let found =
        adapters.map(|adapter| connection_id(&machine, adapter)).enumerate().find(|(_, connection)| {
            let head = id.get(..connection.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(connection))
                && matches!(id.as_bytes().get(connection.len()), None | Some(b'\\'))
        });
    let (index, connection) = found.ok_or_else(wrong)?;
    Ok((machine, index, connection))
}

/// Changes the adapters of one machine, and answers with the settings that were asked for.
fn apply(
    invocation: &Invocation<'_>,
    machine: &Machine,
    adapters: Vec<AdapterEdit>,
    results: Vec<ObjectPath>,
) -> Result<Output, Refused> {
    if !adapters.is_empty() {
        let edit = MachineEdit { adapters, ..MachineEdit::default() };
        invocation.world.host.edit(machine.id(), &edit)?;
    }
    Ok(Output::new(0_u32).with("ResultingFeatureSettings", Some(results.into())))
}

/// `AddFeatureSettings`.
pub(crate) fn add(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const AFFECTED: &str = "AffectedConfiguration";
    let value = invocation.given(AFFECTED).ok_or_else(|| invalid(AFFECTED, "missing"))?;
    let path = invocation.path(AFFECTED, value)?;
    let (machine, index, id) = connection(invocation, AFFECTED, path.text("InstanceID").unwrap_or_default())?;
    let features = invocation.instances(PARAMETER)?;
    if features.is_empty() {
        return Err(invalid(PARAMETER, "missing"));
    }
    let (mut edits, mut results) = (Vec::new(), Vec::new());
    for instance in &features {
        let (feature, change) = edit(invocation, index, instance)?;
        edits.extend(change);
        results.push(invocation.world.path(feature.class).with("InstanceID", part_id(&id, feature)));
    }
    apply(invocation, &machine, edits, results)
}

/// `ModifyFeatureSettings`. All of one machine.
pub(crate) fn modify(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let features = invocation.instances(PARAMETER)?;
    let (mut edits, mut results, mut of) = (Vec::new(), Vec::new(), None);
    for instance in &features {
        let (machine, index, id) =
            connection(invocation, PARAMETER, instance.text("InstanceID").unwrap_or_default())?;
        let (feature, change) = edit(invocation, index, instance)?;
        if feature.class == VLAN && machine.settings().adapters[index].vlan.is_none() {
            return Err(invalid(PARAMETER, "the port has no VLAN settings: they are added first"));
        }
        one_machine(&mut of, machine)?;
        edits.extend(change);
        results.push(invocation.world.path(feature.class).with("InstanceID", part_id(&id, feature)));
    }
    let machine = of.ok_or_else(|| invalid(PARAMETER, "missing"))?;
    apply(invocation, &machine, edits, results)
}

/// Remembers the machine that all is of, and refuses another one.
fn one_machine(of: &mut Option<Machine>, machine: Machine) -> Result<(), Refused> {
    if of.as_ref().is_some_and(|of| of.id() != machine.id()) {
        return Err(invalid(PARAMETER, "features of one machine at a time"));
    }
    *of = Some(machine);
    Ok(())
}

/// `RemoveFeatureSettings`. All of one machine.
pub(crate) fn remove(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given(PARAMETER).ok_or_else(|| invalid(PARAMETER, "missing"))?;
    let (mut edits, mut of) = (Vec::new(), None);
    for reference in value.elements() {
        let path = invocation.path(PARAMETER, reference)?;
        let (machine, index, _) =
            connection(invocation, PARAMETER, path.text("InstanceID").unwrap_or_default())?;
        if path.class != VLAN {
            let what = format!("{} is not taken from a port here", path.class);
            return Err(Refused::new(Reason::NotSupported, what));
        }
        if machine.settings().adapters[index].vlan.is_none() {
            return Err(invalid(PARAMETER, format!("there is no `{path}`")));
        }
        one_machine(&mut of, machine)?;
        edits.push(AdapterEdit { index, vlan: Some(None), ..AdapterEdit::default() });
    }
    let machine = of.ok_or_else(|| invalid(PARAMETER, "missing"))?;
    apply(invocation, &machine, edits, Vec::new()).map(|_| Output::new(0_u32))
}

/// Which settings a feature has when nobody sets any.
pub(crate) const LINKS: &[Association] = &[all(
    "Msvm_FeatureSettingsDefineCapabilities",
    end("GroupComponent", "Msvm_EthernetSwitchFeatureCapabilities", Scope::Host),
    end("PartComponent", "Msvm_FeatureSettingData", Scope::Host),
)
.when(|feature, settings| {
    let of = settings.text("InstanceID").and_then(ids::defined).map(|(id, _)| ids::guid(id));
    of.is_some() && feature.text("FeatureId") == of.as_deref()
})
.saying(|_, _, association| {
    for property in ["PropertyPolicy", "ValueRole", "ValueRange"] {
        association.set(property, Some(0_u16.into()));
    }
})];

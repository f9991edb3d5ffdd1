//! Virtual switches: `Msvm_VirtualEthernetSwitch`, its settings and its own connection, and the service that changes them.
//!
//! What a switch connects to is, in Hyper-V's words, a connection of its own whose `HostResource` is a network adapter of the
//! host (an external switch; here a bridge), or the host itself (an internal one; here translation of addresses). A private
//! switch has none. So adding, changing and removing that connection makes one kind of the other.

use cim::{Instance, ObjectPath, Value};
use machine::Reason;
use machine::switch::{NewSwitch, SwitchEdit, SwitchKind, SwitchRecord};
use uuid::Uuid;
use wsman::Output;

use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::port;
use crate::world::World;

const CLASS: &str = "Msvm_VirtualEthernetSwitch";
const SETTINGS: &str = "Msvm_VirtualEthernetSwitchSettingData";
const CONNECTION: &str = "Msvm_EthernetPortAllocationSettingData";
/// What a switch is called when nobody says.
const DEFAULT_NAME: &str = "New Virtual Switch";

/// The path of a switch, as connections name it.
pub(crate) fn path(world: &World, id: Uuid) -> ObjectPath {
    world.path(CLASS).with("CreationClassName", CLASS).with("Name", ids::guid(id))
}

/// The id of a switch's own connection.
pub(crate) fn connection_id(switch: &SwitchRecord) -> String {
    ids::part(switch.id, "C")
}

/// What its own connection is called; `None` for a switch that connects to nothing.
pub(crate) fn connection_name(switch: &SwitchRecord) -> Option<String> {
    match switch.kind {
        SwitchKind::External { .. } => Some(format!("{}_External", switch.name)),
        SwitchKind::Nat => Some(switch.name.clone()),
        SwitchKind::Private => None,
    }
}

pub(crate) fn switch(_: &World, switch: &SwitchRecord) -> Vec<Instance> {
    vec![
        Instance::new(CLASS)
            .with("CreationClassName", CLASS)
            .with("Name", ids::guid(switch.id))
            .with("ElementName", switch.name.clone())
            .with("OperationalStatus", vec![2_u16])
            .with("StatusDescriptions", vec!["OK"])
            .with("EnabledState", 2_u16)
            .with("RequestedState", 12_u16)
            .with("MaxVMQOffloads", 0_u32)
            .with("MaxIOVOffloads", 0_u32),
    ]
}

pub(crate) fn setting(_: &World, switch: &SwitchRecord) -> Vec<Instance> {
    vec![
        Instance::new(SETTINGS)
            .with("InstanceID", ids::of(switch.id))
            .with("ElementName", switch.name.clone())
            .with("VirtualSystemIdentifier", ids::guid(switch.id))
            .with("VirtualSystemType", "DMTF:Virtual Ethernet Switch")
            .with("Notes", switch.notes.lines().map(str::to_owned).collect::<Vec<_>>())
            .with("AssociatedResourcePool", Vec::<String>::new())
            // No share of the traffic is promised to anybody.
            .with("BandwidthReservationMode", 3_u32),
    ]
}

pub(crate) fn connection(world: &World, switch: &SwitchRecord) -> Vec<Instance> {
    let Some(name) = connection_name(switch) else { return Vec::new() };
    let resource = match &switch.kind {
        SwitchKind::External { bridge } => port::external_path(world, bridge),
        SwitchKind::Nat | SwitchKind::Private => host_path(world),
    };
    vec![
        port::allocation(connection_id(switch), name)
            .with("EnabledState", 2_u16)
            .with("HostResource", vec![resource.to_string()]),
    ]
}

fn host_path(world: &World) -> ObjectPath {
    const SYSTEM: &str = "Msvm_ComputerSystem";
    world.path(SYSTEM).with("CreationClassName", SYSTEM).with("Name", world.host_name())
}

pub(crate) fn capabilities(_: &World) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_VirtualEthernetSwitchManagementCapabilities")
            .with("InstanceID", "Microsoft:VirtualEthernetSwitchManagementCapabilities")
            .with("MaxElementNameLen", u16::try_from(machine::settings::MAX_NAME_BYTES).unwrap_or(u16::MAX))
            .with("ElementNameEditSupported", true)
            .with("VirtualSystemTypesSupported", vec!["DMTF:Virtual Ethernet Switch"])
            // Define, destroy, modify resources and settings, remove and add resources; all at once.
            .with("SynchronousMethodsSupported", vec![2_u16, 3, 5, 6, 7, 10])
            .with("IOVSupport", false),
    ]
}

/// What one connection leads to.
enum Far {
    Bridge(String),
    Host,
}

fn far(invocation: &Invocation<'_>, instance: &Instance) -> Result<Far, Refused> {
    const PARAMETER: &str = "ResourceSettings";
    if instance.class != CONNECTION {
        let what = format!("a switch has connections ({CONNECTION}) and no {}", instance.class);
        return Err(Refused::new(Reason::NotSupported, what));
    }
    let resources = instance.get("HostResource").map(Value::elements).unwrap_or_default();
    let [resource] = resources else {
        let why = format!("a connection leads to one thing: HostResource has {}", resources.len());
        return Err(invalid(PARAMETER, why));
    };
    let path = invocation.path(PARAMETER, resource)?;
    let world = invocation.world;
    match path.class.as_str() {
        "Msvm_ExternalEthernetPort" => {
            let id = path.text("DeviceID").unwrap_or_default();
            let bridge = world.host.bridges().into_iter().find(|b| port::external_id(&b.name) == id);
            let bridge = bridge.ok_or_else(|| invalid(PARAMETER, format!("this host has no port `{id}`")))?;
            Ok(Far::Bridge(bridge.name))
        }
        "Msvm_ComputerSystem"
            if path.text("Name").is_some_and(|name| name.eq_ignore_ascii_case(world.host_name())) =>
        {
            Ok(Far::Host)
        }
        _ => Err(invalid(
            PARAMETER,
            format!("`{path}` is neither a Msvm_ExternalEthernetPort nor the host's Msvm_ComputerSystem"),
        )),
    }
}

/// The kind of a switch that is of kind `now` and gets further connections. A bridge has the host on it, so a connection to the
/// host adds nothing to one to a bridge.
fn with(now: SwitchKind, more: Vec<Far>) -> Result<SwitchKind, Refused> {
    more.into_iter().try_fold(now, |kind, far| match (kind, far) {
        (SwitchKind::Private, Far::Host) => Ok(SwitchKind::Nat),
        (SwitchKind::Private | SwitchKind::Nat, Far::Bridge(bridge)) => Ok(SwitchKind::External { bridge }),
        (external @ SwitchKind::External { .. }, Far::Host) => Ok(external),
        (SwitchKind::External { bridge }, Far::Bridge(_)) => Err(Refused::new(
            Reason::NotSupported,
            format!("the switch connects to `{bridge}`, and a switch has one bridge here"),
        )),
        (SwitchKind::Nat, Far::Host) => {
            Err(invalid("ResourceSettings", "the switch is connected to the host already"))
        }
    })
}

fn connections(invocation: &Invocation<'_>) -> Result<Vec<Far>, Refused> {
    let resources = invocation.instances("ResourceSettings")?;
    resources.iter().map(|instance| far(invocation, instance)).collect()
}

/// Lines as one text; `None` where nobody says.
fn notes(settings: &Instance) -> Option<String> {
    let lines: Vec<_> = settings.get("Notes")?.elements().iter().filter_map(Value::as_str).collect();
    Some(lines.join("\n"))
}

/// Refuses settings that ask a switch for what none does here.
fn only_what_there_is(settings: &Instance) -> Result<(), Refused> {
    let not_here =
        |what: &str| Err(Refused::new(Reason::NotSupported, format!("{what}: no switch has it here")));
    for property in ["IOVPreferred", "TeamingEnabled", "PacketDirectEnabled"] {
        if settings.get(property).and_then(Value::as_bool) == Some(true) {
            return not_here(property);
        }
    }
    if settings.get("ExtensionOrder").is_some_and(|order| !order.elements().is_empty()) {
        return not_here("ExtensionOrder");
    }
    match settings.get("BandwidthReservationMode").and_then(Value::as_u64) {
        // The default is whatever the host has, and that is none.
        None | Some(0 | 3) => Ok(()),
        Some(1 | 2) => not_here("BandwidthReservationMode"),
        Some(other) => Err(invalid("SystemSettings", format!("BandwidthReservationMode: {other} is none"))),
    }
}

/// `DefineSystem`.
pub(crate) fn define(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    if invocation.given("ReferenceConfiguration").is_some() {
        return Err(Refused::new(Reason::NotSupported, "a switch is not made after another one here"));
    }
    let settings = invocation.instance("SystemSettings", SETTINGS)?;
    let settings = settings.unwrap_or_else(|| Instance::new(SETTINGS));
    only_what_there_is(&settings)?;
    let name = settings.text("ElementName").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAME);
    let made = invocation.world.host.make_switch(NewSwitch {
        id: settings.text("VirtualSystemIdentifier").and_then(ids::owner),
        name: name.to_owned(),
        kind: with(SwitchKind::Private, connections(invocation)?)?,
        notes: notes(&settings).unwrap_or_default(),
    })?;
    Ok(Output::new(0_u32).with("ResultingSystem", Some(path(invocation.world, made.id).into())))
}

/// The switch that an id is of, or of a part of.
fn of(invocation: &Invocation<'_>, parameter: &str, id: Option<Uuid>) -> Result<SwitchRecord, Refused> {
    invocation.permit(None)?;
    let id = id.ok_or_else(|| invalid(parameter, "missing, or no switch"))?;
    invocation.world.host.switch(&id.to_string())
}

/// `DestroySystem`.
pub(crate) fn destroy(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const PARAMETER: &str = "AffectedSystem";
    let value = invocation.given(PARAMETER).ok_or_else(|| invalid(PARAMETER, "missing"))?;
    let named = ids::owner_of(&invocation.path(PARAMETER, value)?);
    let switch = of(invocation, PARAMETER, named)?;
    invocation.world.host.delete_switch(&switch.id.to_string())?;
    Ok(Output::new(0_u32))
}

/// `ModifySystemSettings`.
pub(crate) fn modify(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const PARAMETER: &str = "SystemSettings";
    let settings = invocation.instance(PARAMETER, SETTINGS)?;
    let settings = settings.ok_or_else(|| invalid(PARAMETER, "missing"))?;
    let switch = of(invocation, PARAMETER, settings.text("InstanceID").and_then(ids::owner))?;
    only_what_there_is(&settings)?;
    let edit = SwitchEdit {
        name: settings.text("ElementName").map(str::to_owned),
        kind: None,
        notes: notes(&settings),
    };
    invocation.world.host.edit_switch(&switch.id.to_string(), &edit)?;
    Ok(Output::new(0_u32))
}

/// Lets `switch` connect to something else.
fn connect(invocation: &Invocation<'_>, switch: &SwitchRecord, kind: SwitchKind) -> Result<Output, Refused> {
    let edit = SwitchEdit { kind: Some(kind), ..SwitchEdit::default() };
    invocation.world.host.edit_switch(&switch.id.to_string(), &edit)?;
    let connection = invocation.world.path(CONNECTION).with("InstanceID", connection_id(switch));
    Ok(Output::new(0_u32).with("ResultingResourceSettings", Some(vec![connection].into())))
}

/// `AddResourceSettings`.
pub(crate) fn add_resources(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const PARAMETER: &str = "AffectedConfiguration";
    let value = invocation.given(PARAMETER).ok_or_else(|| invalid(PARAMETER, "missing"))?;
    let named = ids::owner_of(&invocation.path(PARAMETER, value)?);
    let switch = of(invocation, PARAMETER, named)?;
    let more = connections(invocation)?;
    if more.is_empty() {
        return Err(invalid("ResourceSettings", "missing"));
    }
    connect(invocation, &switch, with(switch.kind.clone(), more)?)
}

/// `ModifyResourceSettings`.
pub(crate) fn modify_resources(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const PARAMETER: &str = "ResourceSettings";
    let resources = invocation.instances(PARAMETER)?;
    let [resource] = resources.as_slice() else {
        return Err(invalid(PARAMETER, "the one connection of a switch is changed at a time"));
    };
    let id = resource.text("InstanceID").unwrap_or_default();
    let switch = of(invocation, PARAMETER, ids::owner(id))?;
    if connection_name(&switch).is_none() || !id.eq_ignore_ascii_case(&connection_id(&switch)) {
        return Err(invalid(PARAMETER, format!("switch `{}` has no connection `{id}`", switch.name)));
    }
    connect(invocation, &switch, with(SwitchKind::Private, vec![far(invocation, resource)?])?)
}

/// `RemoveResourceSettings`: the switch is private then.
pub(crate) fn remove_resources(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const PARAMETER: &str = "ResourceSettings";
    let value = invocation.given(PARAMETER).ok_or_else(|| invalid(PARAMETER, "missing"))?;
    let [reference] = value.elements() else {
        return Err(invalid(PARAMETER, "the one connection of a switch is removed at a time"));
    };
    let path = invocation.path(PARAMETER, reference)?;
    let id = path.text("InstanceID").unwrap_or_default();
    let switch = of(invocation, PARAMETER, ids::owner(id))?;
    if connection_name(&switch).is_none() || !id.eq_ignore_ascii_case(&connection_id(&switch)) {
        return Err(invalid(PARAMETER, format!("switch `{}` has no connection `{id}`", switch.name)));
    }
    connect(invocation, &switch, SwitchKind::Private)?;
    Ok(Output::new(0_u32))
}

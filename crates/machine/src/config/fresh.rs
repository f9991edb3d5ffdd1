//! The configuration tree of a machine that was defined here.
//!
//! The shape (branches, key names, types, order of branches) is that of a configuration written by Hyper-V for
//! version 9.0; values are ours. Whether Hyper-V accepts it has not been tried.

use jiff::Timestamp;
use uuid::{Uuid, uuid};
use vmcx::{Entry, Tree, Value};

use super::device;
use super::write::{start_number, stop_number, string, upper};
use crate::settings::{Adapter, Controller, ControllerKind, Generation, Media, Settings};

/// Every emulated device that Hyper-V lists for both generations, in its order, with the version it writes.
const COMMON: &[(Uuid, &str, i64)] = &[
    (uuid!("58f75a6d-d949-4320-99e1-a2a2576d581c"), "Microsoft Synthetic Mouse", 512),
    (uuid!("197f74e3-b84b-46de-8ae6-82f1cd181cdc"), "Microsoft Synthetic Keyboard", 256),
    (uuid!("f3cf6965-e8d3-44a9-9b7d-a04245ea7525"), "Microsoft Synthetic Video", 768),
    (uuid!("6c09bb55-d683-4da0-8931-c9bf705f6480"), "Microsoft Guest Interface Component", 256),
    (uuid!("84eaae65-2f2e-45f5-9bb5-0e857dc8eb47"), "Microsoft Heartbeat Component", 256),
    (uuid!("2a34b1c2-fd73-4043-8a5b-dd2159bc743f"), "Microsoft Key-Value Pair Exchange Component", 256),
    (uuid!("9f8233ac-be49-4c79-8ee3-e7e1985b2077"), "Microsoft Shutdown Component", 256),
    (uuid!("2497f4de-e9fa-4204-80e4-4b75c46419c0"), "Microsoft Time Synchronization Component", 256),
    (uuid!("5ced1297-4598-4915-a5fc-ad21bb4d02a4"), "Microsoft VSS Component", 512),
    (uuid!("6c5addb9-a11a-4e8e-84cb-e6208201db63"), "Microsoft RDV Component", 512),
];

/// An id that follows from a device's (or the machine's) own, so that a machine leaves with the same configuration each
/// time that it is exported.
fn derived(of: Uuid, what: &str) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(of.as_bytes()).update(what.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn braced(id: Uuid) -> String {
    format!("{{{}}}", id.hyphenated())
}

fn leaf(name: &str, value: Value) -> Entry {
    Entry { name: name.to_owned(), flags: 0, value }
}

fn node(name: &str, children: Vec<Entry>) -> Entry {
    leaf(name, Value::Node(children))
}

fn text(name: &str, value: &str) -> Entry {
    leaf(name, string(value))
}

fn int(name: &str, value: i64) -> Entry {
    leaf(name, Value::Int(value))
}

fn flag(name: &str, value: bool) -> Entry {
    leaf(name, Value::Bool(value))
}

fn mib(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The tree for a machine that was made at `created` and never was on Hyper-V. Disk paths are left to [`super::apply`].
pub fn fresh(id: Uuid, created: Timestamp, settings: &Settings) -> Tree {
    let mut root = Vec::new();
    let mut devices = Vec::new();
    for (kind, name, version) in COMMON {
        root.push(node(&device::node(*kind), vec![int("VDEVVersion", *version)]));
        devices.push(manifest_entry(*kind, *kind, name));
    }
    root.push(node(&device::node(device::BIOS), bios(settings)));
    devices.push(manifest_entry(device::BIOS, device::BIOS, "Microsoft Virtual BIOS"));
    if settings.generation == Generation::One {
        root.push(node(&device::node(device::IDE), ide()));
        devices.push(manifest_entry(device::IDE, device::IDE, "Microsoft Emulated IDE Controller"));
    }
    root.push(global_settings(id, settings));
    root.push(properties(id, created, settings));
    root.push(machine_settings(id, settings));
    for a in &settings.adapters {
        root.push(node(&device::node(a.instance), adapter(a)));
        devices.push(manifest_entry(device::ADAPTER, a.instance, "Synthetic Ethernet Port"));
    }
    for c in settings.controllers.iter().filter(|c| c.kind == ControllerKind::Scsi) {
        root.push(node(&device::node(c.instance), scsi_controller(c.instance)));
        devices.push(manifest_entry(device::SCSI, c.instance, "Synthetic SCSI Controller"));
    }
    let mut manifest = vec![int("version", 512), int("size", devices.len() as i64)];
    manifest.extend(devices.into_iter().enumerate().map(|(n, d)| node(&format!("vdev{:03}", n + 1), d)));
    root.push(node("manifest", manifest));
    for c in &settings.controllers {
        plug(&mut root, c);
    }
    Tree { entries: vec![node("configuration", root)] }
}

fn plug(root: &mut [Entry], controller: &Controller) {
    let name = device::node(controller.instance);
    let Some(Value::Node(device)) = root.iter_mut().find(|e| e.name == name).map(|e| &mut e.value) else {
        return;
    };
    let number = format!("controller{}", controller.number);
    let at = device.iter().position(|e| e.name == number).unwrap_or_else(|| {
        device.push(node(&number, Vec::new()));
        device.len() - 1
    });
    let Value::Node(slots) = &mut device[at].value else { return };
    for d in &controller.drives {
        let word = match d.media {
            Media::Disk { .. } => "VHD",
            Media::Dvd { .. } => "ISO",
            Media::Other { .. } => continue,
        };
        let slot = format!("drive{}", d.slot);
        slots.retain(|e| e.name != slot);
        slots.push(node(&slot, drive(word, "")));
    }
    slots.sort_by(|a, b| a.name.cmp(&b.name));
}

/// The four positions of an IDE controller, empty.
fn ide() -> Vec<Entry> {
    let two = || vec![node("drive0", empty_drive()), node("drive1", empty_drive())];
    vec![int("VDEVVersion", 1280), node("controller0", two()), node("controller1", two())]
}

/// A drive with nothing in it.
pub(super) fn empty_drive() -> Vec<Entry> {
    vec![text("pathname", ""), text("type", "NONE")]
}

/// A drive holding `word` (`VHD`, `ISO`).
pub(super) fn drive(word: &str, path: &str) -> Vec<Entry> {
    let mut entries = vec![text("type", word), text("pathname", path)];
    if word == "VHD" {
        entries.extend([
            int("iops_limit", 0),
            int("iops_reservation", 0),
            int("weight", 100),
            text("qos_policy_id", "00000000-0000-0000-0000-000000000000"),
            flag("persistent_reservations_supported", false),
            flag("ignore_flushes", false),
            int("caching_mode", 0),
            int("write_hardening_method", 0),
        ]);
    }
    entries
}

/// A SCSI controller without drives.
pub(super) fn scsi_controller(instance: Uuid) -> Vec<Entry> {
    vec![
        int("VDEVVersion", 512),
        text("ChannelInstanceGuid", &braced(derived(instance, "channel"))),
        node("controller0", Vec::new()),
    ]
}

/// A synthetic adapter.
pub(super) fn adapter(a: &Adapter) -> Vec<Entry> {
    let mac = a.mac.map_or_else(|| "00-00-00-00-00-00".to_owned(), crate::settings::hyphenated);
    let switch = a.source_switch.as_deref().or(a.switch.as_deref()).unwrap_or_default();
    vec![
        int("VDEVVersion", 768),
        text("FriendlyName", &a.name),
        text("MacAddress", &mac),
        flag("MacAddressIsStatic", a.mac_static),
        text("ChannelInstanceGuid", &braced(derived(a.instance, "channel"))),
        text("VpciInstanceGuid", &braced(derived(a.instance, "vpci"))),
        flag("IsConnected", !switch.is_empty()),
        int("MediaType", 0),
        text("SwitchName", ""),
        text("PortName", ""),
        flag("ClusterMonitored", true),
        flag("DeviceNamingEnabled", false),
        node(
            "Connection",
            vec![
                text("PoolId", ""),
                text("AltSwitchName", switch),
                text("AltPortName", a.port.as_deref().unwrap_or(super::PORT_NAME)),
                text("AuthorizationScope", ""),
                text("TestReplicaPoolId", ""),
                text("TestReplicaSwitchName", ""),
                int("ChimneyOffloadWeight", 0),
                flag("PreventIPSpoofing", false),
            ],
        ),
    ]
}

/// One device of the manifest.
pub(super) fn manifest_entry(kind: Uuid, instance: Uuid, name: &str) -> Vec<Entry> {
    vec![
        text("device", &kind.hyphenated().to_string()),
        text("instance", &instance.hyphenated().to_string()),
        text("name", name),
        int("flags", 1),
    ]
}

fn bios(settings: &Settings) -> Vec<Entry> {
    let firmware = &settings.firmware;
    let serial = firmware.serial_number.as_deref().unwrap_or_default();
    let boot = firmware
        .boot_order
        .iter()
        .enumerate()
        .map(|(n, d)| text(&format!("device{n}"), d.as_str()))
        .collect();
    let mut entries = vec![
        node("base_board", vec![text("serial_number", serial)]),
        text("bios_guid", &format!("{{{}}}", firmware.bios_id.unwrap_or_default().hyphenated())),
        text("bios_serial_number", serial),
        node("boot", boot),
        node("chassis", vec![text("asset_tag", serial), text("serial_number", serial)]),
        flag("num_lock", false),
        flag("pause_after_boot_failure", false),
        int("pxe_preferred_protocol", 4),
        flag("secure_boot_enabled", firmware.secure_boot),
    ];
    if let Some(template) = &firmware.secure_boot_template {
        entries.push(text("secure_boot_template_id", template));
    }
    entries.push(int("VDEVVersion", 2048));
    entries
}

fn global_settings(id: Uuid, settings: &Settings) -> Entry {
    let auto = settings.automatic;
    node(
        "global_settings",
        vec![
            node("critical_error", vec![int("action", 1), int("timeout", 1800)]),
            node(
                "devices",
                vec![
                    flag("allow_reduced_fc_redundancy", false),
                    flag("lock_on_disconnect", false),
                    flag("storage_allow_full_scsi_command_set", false),
                    text("generation_id", &derived(id, "generation").simple().to_string()),
                ],
            ),
            flag("disk_merge_pending", false),
            node(
                "power",
                vec![
                    node("host_shutdown", vec![int("action", stop_number(auto.stop))]),
                    node(
                        "host_startup",
                        vec![
                            int("action", start_number(auto.start)),
                            int("delay", auto.start_delay_seconds.into()),
                        ],
                    ),
                ],
            ),
            node(
                "snapshots",
                vec![
                    flag("enable_automatic", false),
                    node("list", vec![int("size", 0)]),
                    int("user_type", 3),
                ],
            ),
            node("unexpected_termination", vec![int("action", 1)]),
            flag("vhd_path_acled", true),
        ],
    )
}

fn properties(id: Uuid, created: Timestamp, settings: &Settings) -> Entry {
    node(
        "properties",
        vec![
            text("global_id", &upper(id)),
            flag("highly_available", false),
            int("last_powered_off_time", 0),
            int("last_powered_on_time", 0),
            int("last_state_change_time", 0),
            text("name", &settings.name),
            text("notes", &settings.notes),
            int("subtype", i64::from(settings.generation.number()) - 1),
            text("type_id", "Virtual Machines"),
            int("version", settings.config_version),
            leaf("creation_time", Value::Array(filetime(created).to_le_bytes().to_vec())),
        ],
    )
}

/// As 100 ns ticks since 1601 (FILETIME).
fn filetime(time: Timestamp) -> u64 {
    const EPOCH_DIFFERENCE: i128 = 11_644_473_600 * 10_000_000;
    u64::try_from(time.as_nanosecond() / 100 + EPOCH_DIFFERENCE).unwrap_or(0)
}

fn machine_settings(id: Uuid, settings: &Settings) -> Entry {
    let memory = settings.memory;
    node(
        "settings",
        vec![
            node("global", vec![text("logical_id", &upper(id))]),
            node(
                "memory",
                vec![
                    node(
                        "bank",
                        vec![
                            int("backing_type", 0),
                            flag("dynamic_memory_enabled", memory.dynamic),
                            int("limit", mib(memory.maximum_mib)),
                            int("priority", 5000),
                            int("reservation", mib(memory.minimum_mib)),
                            int("size", mib(memory.startup_mib)),
                            int("target_memory_buffer", 20),
                        ],
                    ),
                    node("vnuma", vec![int("max_size_per_node", mib(memory.startup_mib.max(1024)))]),
                ],
            ),
            node(
                "processors",
                vec![
                    int("count", settings.processors.count.into()),
                    node("features", vec![flag("limit", false)]),
                    flag("hide_hypervisor_present", false),
                    int("hwthreads", 0),
                    int("limit", 100_000),
                    flag("limit_cpuid", false),
                    node("nested_virtualization", vec![flag("enabled", settings.processors.nested)]),
                    int("reservation", 0),
                    int("weight", 100),
                ],
            ),
            node("topology", vec![int("high_mmio_gap_mb", 512), int("low_mmio_gap_mb", 128)]),
            node("vnuma", vec![flag("enabled", true)]),
        ],
    )
}

//! Machines: what they are, how they are made, changed and exported.

use std::path::PathBuf;

use machine::MachineView;
use machine::define::{DefineRequest, MachineEdit, NewDisk as DomainDisk};
use machine::disk::{DiskFormat, DiskRecord};
use machine::export::ExportRequest;
use machine::settings::{self, Generation, Hardware, Media, Profile};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Id, Hyper-V's too.
    pub id: Uuid,
    /// Name; not unique.
    pub name: String,
    /// Free text.
    pub notes: String,
    /// `off`, `starting`, `running`, `paused`, `shutting-down`, `stopping`, `saving`, `saved` or `restoring`.
    pub state: String,
    /// Why it last stopped by itself, or what else there is to know.
    pub note: Option<String>,
    /// How often its guest rebooted by itself since it was started, or found again by this daemon.
    pub reboots: u32,
    /// Its guest's memory, while it is saved.
    pub saved: Option<Saved>,
    /// 1 (BIOS) or 2 (UEFI).
    pub generation: u8,
    /// Virtual processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Secure Boot is on.
    pub secure_boot: bool,
    /// It has a TPM.
    pub tpm: bool,
    /// `Optical`, `HardDrive`, `Network`, `Floppy`, in order.
    pub boot_order: Vec<String>,
    /// Disks, by slot.
    pub disks: Vec<Disk>,
    /// DVD drives.
    pub drives: Vec<Drive>,
    /// Network adapters.
    pub adapters: Vec<Adapter>,
    /// Automatic actions.
    pub automatic: Automatic,
    /// `compat` or `virtio`.
    pub hardware: String,
    /// Disk bus that was chosen: `ide`, `ahci`, `nvme`, `virtio-blk`, `virtio-scsi`.
    pub disk_bus: Option<String>,
    /// Adapter model that was chosen: `e1000`, `e1000e`, `rtl8139`, `virtio-net`.
    pub nic_model: Option<String>,
    /// `kvm` or `tcg`, while it runs.
    pub accelerator: Option<String>,
    /// The unfinished job that holds it.
    pub job: Option<Uuid>,
    /// When it was made here.
    pub created: String,
    /// The package it came from.
    #[schema(value_type = Option<String>)]
    pub source: Option<PathBuf>,
    /// Directory of its own files.
    #[schema(value_type = String)]
    pub home: PathBuf,
}

/// Machines, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineList {
    /// The machines.
    pub machines: Vec<Machine>,
}

/// A guest's memory, kept in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Saved {
    /// When it was saved.
    pub when: String,
    /// Bytes of the file, holes included.
    pub bytes: u64,
    /// Versioned machine type that it needs.
    pub machine_version: String,
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Id.
    pub id: Uuid,
    /// The file name it is known and exported by.
    pub name: String,
    /// Bytes.
    pub virtual_size: u64,
    /// Format an export writes.
    pub format: String,
    /// Block size of that format.
    pub block_size: u32,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Files, leaf first.
    #[schema(value_type = Vec<String>)]
    pub files: Vec<PathBuf>,
}

/// A DVD drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drive {
    /// Image in it.
    #[schema(value_type = Option<String>)]
    pub image: Option<PathBuf>,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adapter {
    /// Name.
    pub name: String,
    /// Address.
    pub mac: String,
    /// The address was set by hand.
    pub mac_static: bool,
    /// Switch it is plugged into.
    pub switch: Option<String>,
    /// Switch it had where it came from.
    pub source_switch: Option<String>,
    /// Access VLAN.
    pub vlan: Option<u16>,
}

/// Automatic actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Automatic {
    /// At host start: `nothing`, `restart` or `always`.
    pub start: String,
    /// Seconds before an automatic start.
    #[serde(default)]
    pub start_delay_seconds: u32,
    /// At host shutdown: `turnoff`, `save` or `shutdown`.
    pub stop: String,
}

/// A machine to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Define {
    /// Name.
    pub name: String,
    /// 1 or 2; 2 by default.
    #[serde(default)]
    pub generation: Option<u8>,
    /// Id; a new one by default.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// Virtual processors; 1 by default.
    #[serde(default)]
    pub processors: Option<u32>,
    /// Memory in MiB; 1024 by default.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Secure Boot; on by default for generation 2.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// A TPM.
    #[serde(default)]
    pub tpm: bool,
    /// Disks by slot.
    #[serde(default)]
    pub disks: Vec<NewDisk>,
    /// A DVD drive with this image; an empty string is an empty drive.
    #[serde(default)]
    pub dvd: Option<String>,
    /// An adapter for each switch named; an empty string is not plugged in.
    #[serde(default)]
    pub adapters: Vec<String>,
    /// `compat` (default) or `virtio`.
    #[serde(default)]
    pub hardware: Option<String>,
    /// A disk bus for all disks.
    #[serde(default)]
    pub disk_bus: Option<String>,
    /// A model for all adapters.
    #[serde(default)]
    pub nic_model: Option<String>,
}

/// A disk to make, or a file to use in place: one of `size` and `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDisk {
    /// An empty disk of so many bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Its logical sector size: 512 (default) or 4096.
    #[serde(default)]
    pub sector: Option<u32>,
    /// A raw or qcow2 file of the host.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub path: Option<PathBuf>,
    /// `raw` or `qcow2`; looked at by default.
    #[serde(default)]
    pub format: Option<String>,
}

/// A change; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Other notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Virtual processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processors: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Secure Boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// A TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<bool>,
    /// Boot order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<Vec<String>>,
    /// Automatic actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic: Option<Automatic>,
    /// `compat` or `virtio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// A disk bus; an empty string follows the hardware again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bus: Option<String>,
    /// A model for adapters; an empty string follows the hardware again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic_model: Option<String>,
    /// Changes of adapters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<AdapterEdit>,
    /// Disks to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_disks: Vec<NewDisk>,
    /// Disks to detach, by id; files that Slipway made are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_disks: Vec<Uuid>,
    /// Image for the DVD drive (a drive is added when there is none); an empty string ejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dvd: Option<String>,
}

/// A change of one adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterEdit {
    /// Number from 0; one beyond the last adds an adapter.
    pub index: usize,
    /// Switch; an empty string unplugs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// Access VLAN; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Fixed address; an empty string makes it dynamic again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Remove the adapter.
    #[serde(default)]
    pub remove: bool,
}

/// What to export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Absolute directory of the package: absent or empty.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// Make a directory named after the machine inside it.
    #[serde(default)]
    pub subdirectory: bool,
    /// Leave the disks out.
    #[serde(default)]
    pub configuration_only: bool,
    /// Leave the memory of a saved machine out.
    #[serde(default)]
    pub without_saved_state: bool,
    /// Disks to leave out, by id.
    #[serde(default)]
    pub excluded_disks: Vec<Uuid>,
    /// `vhdx`, `vhd` or `raw`; by default the format each disk came in.
    #[serde(default)]
    pub format: Option<String>,
    /// Block size in bytes.
    #[serde(default)]
    pub block_size: Option<u32>,
    /// Bytes read per second at most.
    #[serde(default)]
    pub rate_limit: Option<u64>,
}

/// How to shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds to wait; 120 by default, 3600 at most.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
}

/// How the host's stop is prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Autostop {
    /// Seconds that each attempt of each machine may take; 120 by default, 3600 at most.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
}

/// What became of the machines that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AutostopReport {
    /// Every machine that had a guest, by name.
    pub machines: Vec<Autostopped>,
}

/// What became of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Autostopped {
    /// The machine.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its stop action: `turnoff`, `save` or `shutdown`.
    pub action: String,
    /// How it came to rest: `saved`, `shut-down` or `turned-off`; absent when it still runs.
    pub result: Option<String>,
    /// Why what was tried before did not do.
    pub failed: Vec<String>,
}

/// Keys for the guest: one of `text` and `keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendKeys {
    /// Text typed as on a US keyboard.
    #[serde(default)]
    pub text: Option<String>,
    /// Chords such as `ctrl-alt-del`.
    #[serde(default)]
    pub keys: Vec<Chord>,
}

/// Keys pressed together, such as `ctrl-alt-del`.
pub type Chord = String;

/// Where a running guest's console is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Console {
    /// Whether a guest runs; if not, only the log of its last start is left.
    pub live: bool,
    /// Unix socket of the first serial port.
    #[schema(value_type = Option<String>)]
    pub serial_socket: Option<PathBuf>,
    /// Everything that port ever said.
    #[schema(value_type = Option<String>)]
    pub serial_log: Option<PathBuf>,
    /// Unix socket that speaks VNC.
    #[schema(value_type = Option<String>)]
    pub vnc_socket: Option<PathBuf>,
}

/// A machine that changed, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineEvent {
    /// The machine.
    pub id: Uuid,
    /// What it is doing, as in [`Machine::state`]; `deleted` when it is no more.
    pub state: String,
    /// Why it last stopped by itself, or what else there is to know.
    pub note: Option<String>,
    /// How often its guest rebooted by itself, as in [`Machine::reboots`].
    pub reboots: u32,
}

impl From<machine::events::MachineChange> for MachineEvent {
    fn from(c: machine::events::MachineChange) -> Self {
        let state = c.power.map_or("deleted", machine::power::PowerState::as_str);
        Self { id: c.id, state: state.to_owned(), note: c.note, reboots: c.reboots }
    }
}

impl From<machine::automatic::Stopped> for Autostopped {
    fn from(s: machine::automatic::Stopped) -> Self {
        Self {
            id: s.id,
            name: s.name,
            action: word(&s.action),
            result: s.rest.map(|r| r.as_str().to_owned()),
            failed: s.failed.iter().map(machine::Error::chain).collect(),
        }
    }
}

impl From<machine::console::ConsolePlaces> for Console {
    fn from(c: machine::console::ConsolePlaces) -> Self {
        Self {
            live: c.live,
            serial_socket: c.serial_socket,
            serial_log: c.serial_log,
            vnc_socket: c.vnc_socket,
        }
    }
}

impl From<DiskRecord> for Disk {
    fn from(d: DiskRecord) -> Self {
        Self {
            id: d.id,
            name: d.name,
            virtual_size: d.virtual_size,
            format: d.format.extension().to_owned(),
            block_size: d.block_size,
            logical_sector_size: d.logical_sector_size,
            physical_sector_size: d.physical_sector_size,
            files: d.layers.into_iter().map(|l| l.path).collect(),
        }
    }
}

/// The wire's word for a unit enum of the domain: its serde spelling.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        _ => String::new(),
    }
}

/// A unit enum of the domain from the wire's word.
pub(super) fn parse<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|e| {
        let expected = e.to_string();
        let expected = expected.split_once(", ").map_or("", |(_, rest)| rest);
        format!("`{text}` is no {what}: {expected}")
    })
}

pub(crate) fn parse_option<T: serde::de::DeserializeOwned>(
    what: &str,
    text: Option<&str>,
) -> Result<Option<T>, String> {
    text.map(|t| parse(what, t)).transpose()
}

impl From<MachineView> for Machine {
    fn from(view: MachineView) -> Self {
        let MachineView { record, power, disks, note, reboots, job, macs, accelerator } = view;
        let s = record.settings;
        let drives = s
            .controllers
            .iter()
            .flat_map(|c| &c.drives)
            .filter_map(|d| match &d.media {
                Media::Dvd { image } => Some(Drive { image: image.clone() }),
                _ => None,
            })
            .collect();
        let adapters = s
            .adapters
            .into_iter()
            .zip(macs)
            .map(|(a, mac)| Adapter {
                name: a.name,
                mac,
                mac_static: a.mac_static,
                switch: a.switch,
                source_switch: a.source_switch,
                vlan: a.vlan,
            })
            .collect();
        Self {
            id: record.id,
            name: s.name,
            notes: s.notes,
            state: power.as_str().to_owned(),
            note,
            reboots,
            saved: record.saved.map(|s| Saved {
                when: s.when.to_string(),
                bytes: s.bytes,
                machine_version: s.needs.machine_version,
            }),
            generation: s.generation.number(),
            processors: s.processors.count,
            memory_mib: s.memory.startup_mib,
            secure_boot: s.firmware.secure_boot,
            tpm: s.tpm,
            boot_order: s.firmware.boot_order.iter().map(|d| d.as_str().to_owned()).collect(),
            disks: disks.into_iter().map(Disk::from).collect(),
            drives,
            adapters,
            automatic: Automatic {
                start: word(&s.automatic.start),
                start_delay_seconds: s.automatic.start_delay_seconds,
                stop: word(&s.automatic.stop),
            },
            hardware: word(&s.hardware.profile),
            disk_bus: s.hardware.disk_bus.map(|b| word(&b)),
            nic_model: s.hardware.nic_model.map(|m| word(&m)),
            accelerator,
            job,
            created: record.created.to_string(),
            source: record.origin.map(|o| o.source),
            home: record.home,
        }
    }
}

impl TryFrom<NewDisk> for DomainDisk {
    type Error = String;

    fn try_from(d: NewDisk) -> Result<Self, String> {
        match (d.size, d.path) {
            (Some(size), None) => Ok(Self::Empty { size, sector: d.sector.unwrap_or(0) }),
            (None, Some(path)) => Ok(Self::File {
                path,
                format: parse_option::<DiskFormat>("disk format", d.format.as_deref())?,
            }),
            _ => Err("a disk takes either `size` or `path`".to_owned()),
        }
    }
}

fn domain_disks(disks: Vec<NewDisk>) -> Result<Vec<DomainDisk>, String> {
    disks.into_iter().map(DomainDisk::try_from).collect()
}

/// `Some("")` on the wire is "none", absent is "as it is".
fn empty_is_none(text: Option<String>) -> Option<Option<String>> {
    text.map(|t| (!t.is_empty()).then_some(t))
}

impl TryFrom<Define> for DefineRequest {
    type Error = String;

    fn try_from(d: Define) -> Result<Self, String> {
        Ok(Self {
            name: d.name,
            generation: match d.generation {
                Some(1) => Generation::One,
                None | Some(2) => Generation::Two,
                Some(other) => return Err(format!("there is no generation {other}: expected 1 or 2")),
            },
            id: d.id,
            processors: d.processors,
            memory_mib: d.memory_mib,
            secure_boot: d.secure_boot,
            tpm: d.tpm,
            disks: domain_disks(d.disks)?,
            dvd: empty_is_none(d.dvd).map(|image| image.map(PathBuf::from)),
            adapters: d.adapters,
            hardware: Hardware {
                profile: parse_option::<Profile>("hardware", d.hardware.as_deref())?.unwrap_or_default(),
                disk_bus: parse_option("disk bus", d.disk_bus.as_deref())?,
                nic_model: parse_option("adapter model", d.nic_model.as_deref())?,
            },
        })
    }
}

impl Edit {
    /// The domain's edit; `now` is the hardware that parts of it refine.
    ///
    /// # Errors
    /// A word is none of those allowed.
    pub fn domain(self, now: Hardware) -> Result<MachineEdit, String> {
        let mut hardware = now;
        if let Some(profile) = parse_option("hardware", self.hardware.as_deref())? {
            hardware.profile = profile;
        }
        if let Some(bus) = empty_is_none(self.disk_bus) {
            hardware.disk_bus = parse_option("disk bus", bus.as_deref())?;
        }
        if let Some(model) = empty_is_none(self.nic_model) {
            hardware.nic_model = parse_option("adapter model", model.as_deref())?;
        }
        Ok(MachineEdit {
            name: self.name,
            notes: self.notes,
            processors: self.processors,
            memory_mib: self.memory_mib,
            secure_boot: self.secure_boot,
            tpm: self.tpm,
            boot_order: self
                .boot_order
                .map(|list| list.iter().map(|d| parse("boot device", d)).collect())
                .transpose()?,
            automatic: self
                .automatic
                .map(|a| -> Result<_, String> {
                    Ok(settings::Automatic {
                        start: parse("start action", &a.start)?,
                        start_delay_seconds: a.start_delay_seconds,
                        stop: parse("stop action", &a.stop)?,
                    })
                })
                .transpose()?,
            hardware: (hardware != now).then_some(hardware),
            adapters: self.adapters.into_iter().map(AdapterEdit::domain).collect::<Result<_, _>>()?,
            add_disks: domain_disks(self.add_disks)?,
            remove_disks: self.remove_disks,
            dvd: empty_is_none(self.dvd).map(|image| image.map(PathBuf::from)),
            ..MachineEdit::default()
        })
    }
}

impl AdapterEdit {
    fn domain(self) -> Result<machine::define::AdapterEdit, String> {
        Ok(machine::define::AdapterEdit {
            index: self.index,
            switch: empty_is_none(self.switch),
            vlan: self.vlan.map(|v| (v != 0).then_some(v)),
            mac: match empty_is_none(self.mac) {
                None => None,
                Some(None) => Some(None),
                Some(Some(text)) => Some(Some(text.parse().map_err(|e| format!("{e}"))?)),
            },
            remove: self.remove,
            ..machine::define::AdapterEdit::default()
        })
    }
}

impl TryFrom<Export> for ExportRequest {
    type Error = String;

    fn try_from(e: Export) -> Result<Self, String> {
        Ok(Self {
            directory: e.directory,
            subdirectory: e.subdirectory,
            storage: !e.configuration_only,
            saved_state: !e.without_saved_state,
            excluded_disks: e.excluded_disks,
            format: parse_option("disk format", e.format.as_deref())?,
            block_size: e.block_size,
            rate_limit: e.rate_limit.and_then(std::num::NonZero::new),
            layout: machine::export::Layout::Current,
        })
    }
}

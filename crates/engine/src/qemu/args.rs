//! The command line: a pure function of a [`Plan`].
//!
//! Everything that depends on the host (paths of firmware, which accelerator, whether a file takes O_DIRECT) was
//! found out before and stands in the plan, so that two equal plans give two equal command lines and tests need no
//! QEMU. Devices, block nodes and network ends are given as JSON, where no character has a meaning of its own; in the
//! few older options commas are doubled.
//!
//! Processors stand still at the start (`-S`): [`launch`](super::launch) first cuts links and inserts media over QMP.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::layout;
use super::process::InheritedFd;
use crate::spec::{
    Accel, Chipset, Clock, DiskBus, DiskSpec, DvdSpec, Firmware, GuestSpec, ImageFormat, NicBackend,
    NicModel, NicSpec,
};

pub(super) const QMP_SOCKET: &str = "qmp.sock";
pub(super) const AGENT_SOCKET: &str = "agent.sock";
pub(super) const VNC_SOCKET: &str = "vnc.sock";
pub(super) const TPM_SOCKET: &str = "tpm.sock";
pub(super) const PID_FILE: &str = "qemu.pid";
pub(super) const STDERR_LOG: &str = "qemu.log";

/// The socket of a serial port.
pub(super) fn serial_socket(port: u32) -> String {
    format!("serial{port}.sock")
}

/// The log of a serial port.
pub(super) fn serial_log(port: u32) -> String {
    format!("serial{port}.log")
}

/// The socket of an adapter on a private switch.
pub(super) fn nic_socket(index: usize) -> String {
    format!("nic{index}.sock")
}

/// What QEMU gives up once it has started: it may start nothing and gain nothing.
pub(super) const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// What the command line is made from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) spec: &'a GuestSpec,
    /// A versioned machine type.
    pub(super) machine: &'a str,
    pub(super) cpu: &'a str,
    /// Never [`Accel::Auto`].
    pub(super) accel: Accel,
    /// Set exactly when the specification asks for UEFI.
    pub(super) firmware_code: Option<&'a Path>,
    /// Where sockets go: a short name of the runtime directory.
    pub(super) sockets: &'a Path,
    /// For each disk, for each of its layers, how the file is opened.
    pub(super) files: &'a [Vec<FilePlan>],
    /// For each adapter, the tap it was given.
    pub(super) taps: &'a [Option<InheritedFd>],
    /// Whether seccomp is there to be used.
    pub(super) sandbox: bool,
    /// Whether it waits for a saved state instead of beginning at its firmware.
    pub(super) incoming: bool,
}

/// How a disk image file is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FilePlan {
    /// Past the page cache; not every filesystem can.
    pub(super) direct: bool,
    /// Read as so many raw bytes from the start, whatever the format is called: a fixed VHD.
    pub(super) raw_size: Option<u64>,
}

/// Doubles commas, for the options that have no JSON form.
pub(super) fn comma(text: &str) -> String {
    text.replace(',', ",,")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.pair(option, value.to_string());
    }

    fn device(&mut self, driver: &str, id: &str, more: Value) {
        let mut object = Map::new();
        object.insert("driver".into(), driver.into());
        object.insert("id".into(), id.into());
        if let Value::Object(more) = more {
            object.extend(more.into_iter().filter(|(_, v)| !v.is_null()));
        }
        self.json("-device", &Value::Object(object));
    }
}

/// The arguments after the program's name.
pub(super) fn arguments(plan: &Plan<'_>) -> Vec<String> {
    let mut args = Args(Vec::new());
    base(&mut args, plan);
    firmware(&mut args, plan);
    consoles(&mut args, plan);
    storage(&mut args, plan);
    network(&mut args, plan);
    args.0
}

fn base(args: &mut Args, plan: &Plan<'_>) {
    let spec = plan.spec;
    let socket = |name: &str| comma(&text(&plan.sockets.join(name)));
    args.pair("-name", format!("guest={},debug-threads=on", comma(&spec.name)));
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.flag("-S");
    if plan.incoming {
        args.pair("-incoming", "defer");
    }
    if plan.sandbox {
        args.pair("-sandbox", SANDBOX);
    }
    args.pair("-pidfile", text(&spec.runtime_dir.join(PID_FILE)));
    args.pair("-qmp", format!("unix:{},server=on,wait=off", socket(QMP_SOCKET)));

    let secure = matches!(spec.firmware, Firmware::Uefi { secure_boot: true, .. });
    let mut machine = format!("{},usb=off,vmport=off", plan.machine);
    // SMM guards the variable store of Secure Boot firmware; nothing else needs it and not every KVM has it.
    machine.push_str(if secure { ",smm=on" } else { ",smm=off" });
    if plan.firmware_code.is_some() {
        machine.push_str(",pflash0=fw-code,pflash1=fw-vars");
    }
    args.pair("-machine", machine);
    args.pair("-accel", if plan.accel == Accel::Kvm { "kvm" } else { "tcg,thread=multi" });
    args.pair("-cpu", plan.cpu);
    // One socket: client editions of Windows use no more than two.
    args.pair("-smp", format!("cpus={0},sockets=1,cores={0},threads=1", spec.cpus));
    args.pair("-m", format!("size={}M", spec.memory_mib));
    args.pair("-uuid", spec.system_uuid().to_string());
    if let Some(serial) = &spec.identity.serial {
        args.pair("-smbios", format!("type=1,serial={}", comma(serial)));
    }
    let clock = match spec.clock {
        Clock::Utc => "utc",
        Clock::Local => "localtime",
    };
    args.pair("-rtc", format!("base={clock},driftfix=slew"));
    args.pair("-boot", "menu=off,strict=on");
    // A guest in S3 would look stopped and hold its disks; Hyper-V offers no S3 either.
    let s3 = match spec.chipset {
        Chipset::Pc => "PIIX4_PM.disable_s3=1",
        Chipset::Q35 => "ICH9-LPC.disable_s3=1",
    };
    args.pair("-global", s3);
    if secure {
        args.pair("-global", "driver=cfi.pflash01,property=secure,value=on");
    }
    args.pair("-display", "none");
    args.pair("-vga", "none");
}

fn firmware(args: &mut Args, plan: &Plan<'_>) {
    let (Firmware::Uefi { vars, .. }, Some(code)) = (&plan.spec.firmware, plan.firmware_code) else { return };
    for (node, path, read_only) in [("fw-code", code, true), ("fw-vars", vars.as_path(), false)] {
        args.json(
            "-blockdev",
            &json!({
                "driver": "raw", "node-name": node, "read-only": read_only,
                "file": {"driver": "file", "filename": text(path), "read-only": read_only},
            }),
        );
    }
}

fn consoles(args: &mut Args, plan: &Plan<'_>) {
    let spec = plan.spec;
    let root = layout::root(spec.chipset);
    let socket = |name: &str| comma(&text(&plan.sockets.join(name)));
    for port in 0..spec.serial_ports {
        args.pair(
            "-chardev",
            format!(
                "socket,id=serial{port},path={},server=on,wait=off,logfile={},logappend=off",
                socket(&serial_socket(port)),
                comma(&text(&spec.runtime_dir.join(serial_log(port)))),
            ),
        );
        args.device(
            "isa-serial",
            &format!("com{port}"),
            json!({"chardev": format!("serial{port}"), "index": port}),
        );
    }
    args.device("VGA", "video0", json!({"bus": root, "addr": address(layout::DISPLAY)}));
    if spec.vnc {
        args.pair("-vnc", format!("unix:{}", socket(VNC_SOCKET)));
        // A tablet keeps the pointers on both sides together. Old Windows has no driver for xHCI, so pc gets UHCI.
        match spec.chipset {
            Chipset::Pc => args.device("piix3-usb-uhci", "usb", json!({"bus": root, "addr": "01.2"})),
            Chipset::Q35 => {
                args.device("qemu-xhci", "usb", json!({"bus": root, "addr": address(layout::USB)}));
            }
        }
        args.device("usb-tablet", "tablet0", json!({"bus": "usb.0"}));
    }
    if spec.agent {
        args.pair("-chardev", format!("socket,id=agent,path={},server=on,wait=off", socket(AGENT_SOCKET)));
        args.device("virtio-serial-pci", "vserial", json!({"bus": root, "addr": address(layout::AGENT)}));
        args.device(
            "virtserialport",
            "agent0",
            json!({"bus": "vserial.0", "nr": 1, "chardev": "agent", "name": "org.qemu.guest_agent.0"}),
        );
    }
    args.json("-object", &json!({"qom-type": "rng-random", "id": "random0", "filename": "/dev/urandom"}));
    args.device(
        "virtio-rng-pci",
        "rng0",
        json!({"rng": "random0", "bus": root, "addr": address(layout::RANDOM)}),
    );
    if spec.balloon {
        args.device("virtio-balloon-pci", "balloon0", json!({"bus": root, "addr": address(layout::BALLOON)}));
    }
    args.device("pvpanic", "panic0", json!({}));
    if spec.tpm.is_some() {
        args.pair("-chardev", format!("socket,id=tpm,path={}", socket(TPM_SOCKET)));
        args.pair("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        args.device("tpm-crb", "tpm-crb0", json!({"tpmdev": "tpm0"}));
    }
}

fn address(slot: u32) -> String {
    format!("{slot:02x}.0")
}

fn storage(args: &mut Args, plan: &Plan<'_>) {
    let spec = plan.spec;
    let root = layout::root(spec.chipset);
    let uses = |bus| spec.disks.iter().any(|d| d.bus == bus) || spec.drives.iter().any(|d| d.bus == bus);
    if uses(DiskBus::VirtioScsi) {
        args.device("virtio-scsi-pci", "vscsi", json!({"bus": root, "addr": address(layout::SCSI)}));
    }
    let ahci_slots = (spec.disks.iter().filter(|d| d.bus == DiskBus::Ahci).map(|d| d.slot))
        .chain(spec.drives.iter().filter(|d| d.bus == DiskBus::Ahci).map(|d| d.slot));
    if let Some(highest) = ahci_slots.max() {
        // Every controller up to the last one used: a later function needs function 0 beside it.
        for controller in 0..=highest / layout::AHCI_PORTS {
            let port = layout::ahci_port(spec.chipset, controller * layout::AHCI_PORTS);
            if let Some((id, addr)) = port.controller {
                args.device("ich9-ahci", &id, json!({"bus": root, "addr": addr, "multifunction": true}));
            }
        }
    }
    for (i, disk) in spec.disks.iter().enumerate() {
        let files = plan.files.get(i).map(Vec::as_slice).unwrap_or_default();
        let id = layout::storage_id(disk.bus, disk.slot);
        chain(args, disk, &id, files);
        disk_device(args, spec.chipset, disk, &id);
    }
    for drive in &spec.drives {
        dvd_device(args, spec.chipset, drive);
    }
}

/// The nodes of a disk, deepest first, because a node can only lie over one that is there.
fn chain(args: &mut Args, disk: &DiskSpec, id: &str, files: &[FilePlan]) {
    for (depth, layer) in disk.layers.iter().enumerate().rev() {
        let plan = files.get(depth).cloned().unwrap_or_default();
        let leaf = depth == 0;
        let read_only = !leaf || disk.is_read_only();
        let file = format!("{id}-f{depth}");
        args.json(
            "-blockdev",
            &json!({
                "driver": "file", "node-name": file, "filename": text(&layer.path),
                "read-only": read_only, "locking": "on", "discard": "unmap",
                "cache": {"direct": plan.direct, "no-flush": false},
            }),
        );
        let driver = match (plan.raw_size, layer.format) {
            (Some(_), _) | (None, ImageFormat::Raw) => "raw",
            (None, ImageFormat::Qcow2) => "qcow2",
            (None, ImageFormat::Vhdx) => "vhdx",
            (None, ImageFormat::Vpc) => "vpc",
        };
        let mut node = json!({
            "driver": driver, "node-name": format!("{id}-l{depth}"), "file": file,
            "read-only": read_only, "discard": "unmap",
            "cache": {"direct": plan.direct, "no-flush": false},
        });
        if let Some(size) = plan.raw_size {
            node["size"] = size.into();
        }
        if driver == "qcow2" {
            // Always said: what the file's own header names as its backing file is never followed.
            node["backing"] = match disk.layers.get(depth + 1) {
                Some(_) => format!("{id}-l{}", depth + 1).into(),
                None => Value::Null,
            };
        }
        args.json("-blockdev", &node);
    }
}

fn disk_device(args: &mut Args, chipset: Chipset, disk: &DiskSpec, id: &str) {
    let root = layout::root(chipset);
    let mut more = json!({
        "drive": layout::leaf_node(id),
        "logical_block_size": disk.logical_sector,
        "physical_block_size": disk.physical_sector,
        "serial": disk.serial,
        "bootindex": disk.boot_index,
    });
    // The guest stands still on an I/O error and the operator can make room, instead of a corrupted filesystem.
    // NVMe has no such policy in QEMU.
    if disk.bus != DiskBus::Nvme {
        more["werror"] = "stop".into();
        more["rerror"] = "stop".into();
    }
    let driver = match disk.bus {
        DiskBus::Ide => {
            more["bus"] = format!("ide.{}", disk.slot / 2).into();
            more["unit"] = (disk.slot % 2).into();
            "ide-hd"
        }
        DiskBus::Ahci => {
            more["bus"] = layout::ahci_port(chipset, disk.slot).bus.into();
            "ide-hd"
        }
        DiskBus::Nvme => {
            more["bus"] = root.into();
            more["addr"] = address(layout::nvme_address(disk.slot)).into();
            // NVMe has no disk without a serial number.
            if more["serial"].is_null() {
                more["serial"] = id.into();
            }
            "nvme"
        }
        DiskBus::VirtioBlk => {
            more["bus"] = root.into();
            more["addr"] = address(layout::virtio_blk_address(disk.slot)).into();
            "virtio-blk-pci"
        }
        DiskBus::VirtioScsi => {
            scsi_place(&mut more, disk.slot);
            "scsi-hd"
        }
    };
    args.device(driver, id, more);
}

fn scsi_place(more: &mut Value, slot: u32) {
    more["bus"] = "vscsi.0".into();
    more["channel"] = 0.into();
    more["scsi-id"] = slot.into();
    more["lun"] = 0.into();
}

fn dvd_device(args: &mut Args, chipset: Chipset, drive: &DvdSpec) {
    let id = layout::storage_id(drive.bus, drive.slot);
    let mut more = json!({"bootindex": drive.boot_index});
    let driver = match drive.bus {
        DiskBus::Ide => {
            more["bus"] = format!("ide.{}", drive.slot / 2).into();
            more["unit"] = (drive.slot % 2).into();
            "ide-cd"
        }
        DiskBus::Ahci => {
            more["bus"] = layout::ahci_port(chipset, drive.slot).bus.into();
            "ide-cd"
        }
        // Validation lets no other bus through.
        DiskBus::VirtioScsi | DiskBus::Nvme | DiskBus::VirtioBlk => {
            scsi_place(&mut more, drive.slot);
            "scsi-cd"
        }
    };
    args.device(driver, &id, more);
}

fn network(args: &mut Args, plan: &Plan<'_>) {
    for (i, nic) in plan.spec.nics.iter().enumerate() {
        let peer = layout::peer_id(i);
        let tap = plan.taps.get(i).and_then(Option::as_ref);
        let netdev = match &nic.backend {
            NicBackend::None => None,
            NicBackend::User => Some(json!({"type": "user", "id": peer})),
            NicBackend::Bridge { .. } => {
                tap.map(|tap| json!({"type": "tap", "id": peer, "fd": tap.number().to_string()}))
            }
            NicBackend::Private { .. } => Some(json!({
                "type": "stream", "id": peer, "server": true,
                "addr": {"type": "unix", "path": text(&plan.sockets.join(nic_socket(i)))},
            })),
        };
        if let Some(netdev) = &netdev {
            args.json("-netdev", netdev);
        }
        nic_device(args, plan.spec.chipset, nic, i, netdev.is_some().then_some(peer));
    }
}

fn nic_device(args: &mut Args, chipset: Chipset, nic: &NicSpec, index: usize, peer: Option<String>) {
    let driver = match nic.model {
        NicModel::E1000 => "e1000",
        NicModel::E1000e => "e1000e",
        NicModel::Rtl8139 => "rtl8139",
        NicModel::VirtioNet => "virtio-net-pci",
    };
    args.device(
        driver,
        &layout::nic_id(index),
        json!({
            "netdev": peer,
            "mac": nic.mac.to_string(),
            "bus": layout::root(chipset),
            "addr": address(layout::nic_address(index)),
            "bootindex": nic.boot_index,
            // No option ROM where the guest never boots from the wire: firmware then tries no PXE either.
            "romfile": if nic.boot_index.is_none() { Some("") } else { None },
        }),
    );
}

/// Everything in the specification that has to be text on the command line.
pub(super) fn paths(spec: &GuestSpec) -> Vec<PathBuf> {
    let mut all = vec![spec.runtime_dir.clone()];
    if let Firmware::Uefi { vars, .. } = &spec.firmware {
        all.push(vars.clone());
    }
    all.extend(spec.disks.iter().flat_map(|d| d.layers.iter().map(|l| l.path.clone())));
    all.extend(spec.drives.iter().filter_map(|d| d.media.clone()));
    all.extend(spec.tpm.iter().map(|t| t.state_dir.clone()));
    all
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use uuid::Uuid;

    use super::*;
    use crate::spec::{LayerSpec, Mac, TpmSpec};

    /// One option a line, for people to read.
    fn shown(args: &[String]) -> String {
        let mut out = String::new();
        for (i, arg) in args.iter().enumerate() {
            let option = arg.starts_with('-');
            let lead = if option && i > 0 {
                "\n"
            } else if i > 0 {
                " "
            } else {
                ""
            };
            write!(out, "{lead}{arg}").unwrap();
        }
        out.push('\n');
        out
    }

    fn layer(path: &str, format: ImageFormat) -> LayerSpec {
        LayerSpec { path: path.into(), format, read_only: false }
    }

    fn disk(id: &str, bus: DiskBus, slot: u32, layers: Vec<LayerSpec>) -> DiskSpec {
        DiskSpec {
            id: id.into(),
            layers,
            bus,
            slot,
            logical_sector: 512,
            physical_sector: 4096,
            read_only: false,
            serial: Some(format!("{id}, serial")),
            boot_index: Some(slot),
        }
    }

    fn nic(id: &str, model: NicModel, backend: NicBackend) -> NicSpec {
        NicSpec { id: id.into(), model, mac: Mac([0, 0x15, 0x5d, 1, 2, 3]), backend, boot_index: None }
    }

    fn generation_1() -> GuestSpec {
        let mut s = GuestSpec::new(Uuid::nil(), "web, old", "/run/slipway/web", Chipset::Pc);
        s.memory_mib = 2048;
        s.cpus = 2;
        s.vnc = true;
        s.serial_ports = 2;
        s.clock = Clock::Local;
        s.disks.push(disk("system", DiskBus::Ide, 0, vec![layer("/d/a,b.raw", ImageFormat::Raw)]));
        s.disks.push(disk("old", DiskBus::Ide, 1, vec![layer("/d/old.vhd", ImageFormat::Vpc)]));
        s.disks.push(disk(
            "data",
            DiskBus::VirtioScsi,
            3,
            vec![layer("/d/top.qcow2", ImageFormat::Qcow2), layer("/d/base.vhdx", ImageFormat::Vhdx)],
        ));
        s.drives.push(DvdSpec {
            id: "dvd".into(),
            bus: DiskBus::Ide,
            slot: 2,
            media: Some("/iso/x.iso".into()),
            boot_index: Some(9),
        });
        s.nics.push(nic("lan", NicModel::E1000, NicBackend::User));
        s.nics.push(nic("cut", NicModel::Rtl8139, NicBackend::None));
        s.nics.push(nic("priv", NicModel::VirtioNet, NicBackend::Private { socket_dir: "/run/sw".into() }));
        s
    }

    fn generation_2() -> GuestSpec {
        let mut s = GuestSpec::new(Uuid::nil(), "db", "/run/slipway/db", Chipset::Q35);
        s.memory_mib = 4096;
        s.balloon = true;
        s.firmware = Firmware::Uefi { secure_boot: true, vars: "/m/db/vars.fd".into() };
        s.tpm = Some(TpmSpec { state_dir: "/m/db/tpm".into() });
        s.disks.push(disk("c", DiskBus::Ahci, 0, vec![layer("/d/c.raw", ImageFormat::Raw)]));
        s.disks.push(disk("h", DiskBus::Ahci, 7, vec![layer("/d/h.raw", ImageFormat::Raw)]));
        let mut four_k = disk("n", DiskBus::Nvme, 1, vec![layer("/d/n.qcow2", ImageFormat::Qcow2)]);
        four_k.logical_sector = 4096;
        four_k.serial = None;
        four_k.read_only = true;
        s.disks.push(four_k);
        s.disks.push(disk("v", DiskBus::VirtioBlk, 2, vec![layer("/d/v.raw", ImageFormat::Raw)]));
        let mut wired = nic("lan", NicModel::E1000e, NicBackend::User);
        wired.boot_index = Some(20);
        s.nics.push(wired);
        s
    }

    fn plan_of<'a>(spec: &'a GuestSpec, machine: &'a str, files: &'a [Vec<FilePlan>]) -> Plan<'a> {
        let uefi = matches!(spec.firmware, Firmware::Uefi { .. });
        Plan {
            spec,
            machine,
            cpu: "max",
            accel: if uefi { Accel::Kvm } else { Accel::Tcg },
            firmware_code: uefi.then_some(Path::new("/usr/share/OVMF/OVMF_CODE_4M.ms.fd")),
            sockets: &spec.runtime_dir,
            files,
            taps: &[],
            sandbox: true,
            incoming: false,
        }
    }

    fn check(name: &str, golden: &str, got: &str) {
        if got != golden {
            let path = std::env::temp_dir().join(format!("{name}.txt"));
            std::fs::write(&path, got).unwrap();
            panic!(
                "the command line changed; if it should, copy {} to src/qemu/golden/:\n{got}",
                path.display()
            );
        }
    }

    #[test]
    fn the_command_line_of_generation_1() {
        let spec = generation_1();
        spec.validate().unwrap();
        let fixed = FilePlan { direct: false, raw_size: Some(1 << 30) };
        let files = [vec![FilePlan::default()], vec![fixed], vec![FilePlan::default(); 2]];
        let args = arguments(&plan_of(&spec, "pc-i440fx-10.0", &files));
        check("generation-1", include_str!("golden/generation-1.txt"), &shown(&args));
    }

    #[test]
    fn the_command_line_of_generation_2() {
        let spec = generation_2();
        spec.validate().unwrap();
        let direct = vec![FilePlan { direct: true, raw_size: None }];
        let files = vec![direct; 4];
        let args = arguments(&plan_of(&spec, "pc-q35-10.0", &files));
        check("generation-2", include_str!("golden/generation-2.txt"), &shown(&args));
    }

    #[test]
    fn a_guest_to_be_restored_differs_in_one_option_only() {
        let spec = generation_1();
        let plan = plan_of(&spec, "pc-i440fx-10.0", &[]);
        let fresh = arguments(&plan);
        let mut restored = arguments(&Plan { incoming: true, ..plan });
        let at = restored.iter().position(|a| a == "-incoming").unwrap();
        assert_eq!(restored.drain(at..at + 2).next_back().as_deref(), Some("defer"));
        assert_eq!(restored, fresh);
    }

    #[test]
    fn another_device_moves_none_that_is_there() {
        let spec = generation_1();
        let before = arguments(&plan_of(&spec, "pc-i440fx-10.0", &[]));
        let mut more = generation_1();
        more.disks.insert(0, disk("new", DiskBus::VirtioBlk, 5, vec![layer("/d/new.raw", ImageFormat::Raw)]));
        more.disks[0].boot_index = None;
        more.nics.push(nic("new", NicModel::E1000e, NicBackend::User));
        let after = arguments(&plan_of(&more, "pc-i440fx-10.0", &[]));
        for device in before.iter().filter(|a| a.starts_with("{\"driver\"")) {
            assert!(after.contains(device), "{device}");
        }
    }
}

//! Where every device sits and what it is called.
//!
//! A guest must meet the same hardware at the same place at every start, or Windows activates anew, Linux renames its
//! interfaces and a saved state does not load. So nothing is left to QEMU's own placement: a device's address follows
//! from its bus and slot alone, and adding one never moves another.
//!
//! ```text
//! PCI slot   pc                        q35
//! 00         host bridge               host bridge
//! 01         PIIX3: ISA, IDE, USB      -
//! 02         display                   display
//! 03-05      agent, random, balloon    the same
//! 06         -                         USB
//! 07         virtio SCSI               the same
//! 08         AHCI, functions 0-3       AHCI beyond the built-in, functions 0-2
//! 09-10      network adapters          the same
//! 11-18      virtio-blk                the same
//! 19-1e      NVMe                      the same
//! 1f         -                         ICH9: LPC, AHCI
//! ```

use crate::spec::{Chipset, DiskBus};

pub(super) const DISPLAY: u32 = 0x02;
pub(super) const AGENT: u32 = 0x03;
pub(super) const RANDOM: u32 = 0x04;
pub(super) const BALLOON: u32 = 0x05;
pub(super) const USB: u32 = 0x06;
pub(super) const SCSI: u32 = 0x07;
pub(super) const AHCI: u32 = 0x08;
const NIC_FIRST: u32 = 0x09;
const VIRTIO_BLK_FIRST: u32 = 0x11;
const NVME_FIRST: u32 = 0x19;

/// Ports of one AHCI controller.
pub(super) const AHCI_PORTS: u32 = 6;

// The ranges above must not run into each other when a limit grows.
const _: () = assert!(NIC_FIRST + crate::spec::MAX_NICS as u32 <= VIRTIO_BLK_FIRST);
const _: () = assert!(VIRTIO_BLK_FIRST + crate::spec::VIRTIO_BLK_SLOTS <= NVME_FIRST);
const _: () = assert!(NVME_FIRST + crate::spec::NVME_SLOTS <= 0x1f);
const _: () = assert!(crate::spec::AHCI_SLOTS == 4 * AHCI_PORTS);

/// The root bus.
pub(super) fn root(chipset: Chipset) -> &'static str {
    match chipset {
        Chipset::Pc => "pci.0",
        Chipset::Q35 => "pcie.0",
    }
}

/// A device's id. Block nodes of the same disk begin with it too; QEMU takes at most 31 bytes of those.
pub(super) fn storage_id(bus: DiskBus, slot: u32) -> String {
    let bus = match bus {
        DiskBus::Ide => "ide",
        DiskBus::Ahci => "ahci",
        DiskBus::Nvme => "nvme",
        DiskBus::VirtioBlk => "vblk",
        DiskBus::VirtioScsi => "scsi",
    };
    format!("{bus}{slot}")
}

/// The id of the node that a disk's device reads.
pub(super) fn leaf_node(device: &str) -> String {
    format!("{device}-l0")
}

/// An adapter's id, by its place in the list.
pub(super) fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

/// The id of the other end of an adapter's cable.
pub(super) fn peer_id(index: usize) -> String {
    format!("nic{index}-peer")
}

pub(super) fn nic_address(index: usize) -> u32 {
    NIC_FIRST + u32::try_from(index).unwrap_or(0)
}

pub(super) fn virtio_blk_address(slot: u32) -> u32 {
    VIRTIO_BLK_FIRST + slot
}

pub(super) fn nvme_address(slot: u32) -> u32 {
    NVME_FIRST + slot
}

/// The bus of an AHCI port and, unless it is the board's own, the id and address of its controller.
pub(super) struct AhciPort {
    pub(super) bus: String,
    pub(super) controller: Option<(String, String)>,
}

pub(super) fn ahci_port(chipset: Chipset, slot: u32) -> AhciPort {
    let controller = slot / AHCI_PORTS;
    let port = slot % AHCI_PORTS;
    if chipset == Chipset::Q35 && controller == 0 {
        return AhciPort { bus: format!("ide.{port}"), controller: None };
    }
    let function = match chipset {
        Chipset::Pc => controller,
        Chipset::Q35 => controller - 1,
    };
    let id = format!("sata{controller}");
    AhciPort { bus: format!("{id}.{port}"), controller: Some((id, format!("{AHCI:02x}.{function}"))) }
}

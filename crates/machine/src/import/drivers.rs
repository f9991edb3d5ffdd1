//! Which hardware a guest gets, by what was seen of its drivers, and why.
//!
//! What any guest can use is the rule: IDE and e1000, AHCI and e1000e. Where every kernel on the disks is known and lacks
//! the driver for that, as Debian's kernel for clouds does, the next bus and adapter that all of them drive are taken.
//! What the user chose stays, with a warning where a kernel says that it cannot be. Pure: reports in, settings and findings
//! out.

use engine::{DiskBus, NicModel};
use probe::{DiskReport, Driver, DriverState, GuestGuess, Kernel, KernelSource};

use crate::finding::{self, Finding, Severity};
use crate::hardware;
use crate::planned::{ImportRequest, PlannedDisk};
use crate::settings::{Generation, Profile, Settings};

/// Buses after the generation's own, of those that a kernel has equally surely.
const BUSES: [DiskBus; 5] =
    [DiskBus::Ahci, DiskBus::Nvme, DiskBus::VirtioScsi, DiskBus::VirtioBlk, DiskBus::Ide];
/// Adapters after the generation's own.
const ADAPTERS: [NicModel; 4] = [NicModel::E1000e, NicModel::E1000, NicModel::VirtioNet, NicModel::Rtl8139];

/// What was seen on a machine's disks.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) disks: &'a [PlannedDisk],
    pub(super) contents: &'a [Option<DiskReport>],
}

impl<'a> Seen<'a> {
    fn kernels(self) -> Vec<(&'a Kernel, &'a PlannedDisk, &'a DiskReport)> {
        let looked = self.disks.iter().zip(self.contents);
        let looked = looked.filter_map(|(disk, report)| Some((disk, report.as_ref()?)));
        looked.flat_map(|(disk, report)| report.kernels.iter().map(move |k| (k, disk, report))).collect()
    }
}

/// Chooses the hardware where the request leaves it open, and says why it is what it is.
pub(super) fn choose(settings: &mut Settings, request: &ImportRequest, seen: Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if seen.disks.is_empty() {
        return found;
    }
    let chosen =
        request.profile == Some(Profile::Virtio) || request.disk_bus.is_some() || request.nic_model.is_some();
    let kernels = seen.kernels();
    if !kernels.is_empty() && request.profile != Some(Profile::Virtio) {
        adapt(settings, request, seen, &kernels);
    }
    let bus = hardware::disk_bus(settings.generation, settings.hardware);
    let nic = hardware::nic_model(settings.generation, settings.hardware);
    for disk in seen.disks.iter().filter(|d| d.logical_sector_size == 4096) {
        if matches!(bus, DiskBus::Ide | DiskBus::Ahci) {
            found.push(
                Finding::new(
                    finding::DISK_SECTORS,
                    Severity::Error,
                    disk.name.clone(),
                    "the disk has 4,096-byte logical sectors, which IDE and AHCI cannot present",
                )
                .fix("--disk-bus nvme"),
            );
        }
    }
    found.push(match kernels.first() {
        Some((kernel, disk, report)) => told(kernel, disk, report, (bus, nic), (settings.generation, chosen)),
        None if chosen => Finding::new(
            finding::GUEST_DRIVERS,
            Severity::Warning,
            "hardware",
            "the chosen hardware boots only a guest that has its drivers, which could not be looked up",
        ),
        None => guessed(seen, bus, nic),
    });
    if settings.generation == Generation::Two && seen.contents.iter().flatten().any(DiskReport::uses_dracut) {
        found.push(Finding::new(
            finding::GUEST_DRIVERS,
            Severity::Warning,
            "hardware",
            "the guest's system makes its initramfs with dracut, by default with the drivers of the old host alone: should it not find its disks, start the rescue entry of its boot menu and run `dracut --force --no-hostonly --regenerate-all` in it",
        ));
    }
    found
}

/// Takes other hardware than the generation's own where no kernel of the guest can use that.
fn adapt(
    settings: &mut Settings,
    request: &ImportRequest,
    seen: Seen<'_>,
    kernels: &[(&Kernel, &PlannedDisk, &DiskReport)],
) {
    let generation = settings.generation;
    let sectors = seen.disks.iter().any(|d| d.logical_sector_size == 4096);
    let fits = |bus: DiskBus| {
        let narrow = matches!(bus, DiskBus::Ide | DiskBus::Ahci);
        (bus != DiskBus::Ide || generation == Generation::One)
            && !(sectors && narrow)
            && seen.disks.len() <= bus.slots() as usize
    };
    let own_bus = hardware::disk_bus(generation, settings.hardware);
    let own_nic = hardware::nic_model(generation, settings.hardware);
    // What all kernels can use is best; failing that, the newest is the one that starts.
    for kernels in [kernels, kernels.get(..1).unwrap_or_default()] {
        // How surely they have it: a built-in driver is there before the root file system is.
        let sure = |have: &dyn Fn(&Kernel) -> Option<DriverState>| {
            kernels.iter().map(|(kernel, ..)| have(kernel)).min().flatten()
        };
        let usable = |bus: DiskBus| if fits(bus) { sure(&|k| drives(k, bus)) } else { None };
        if request.disk_bus.is_none() && settings.hardware.disk_bus.is_none() && usable(own_bus).is_none() {
            let surest = BUSES.into_iter().rev().filter_map(|bus| Some((usable(bus)?, bus)));
            settings.hardware.disk_bus = surest.max_by_key(|(state, _)| *state).map(|(_, bus)| bus);
        }
        let usable = |model: NicModel| sure(&|k| serves(k, model)).is_some();
        if request.nic_model.is_none() && settings.hardware.nic_model.is_none() && !usable(own_nic) {
            settings.hardware.nic_model = ADAPTERS.into_iter().find(|model| usable(*model));
        }
    }
}

/// How surely `kernel` boots from `bus`.
fn drives(kernel: &Kernel, bus: DiskBus) -> Option<DriverState> {
    let all = |drivers: &[Driver]| drivers.iter().map(|driver| kernel.driver(*driver)).min().flatten();
    match bus {
        DiskBus::Ide => all(&[Driver::Piix, Driver::ScsiDisk]).or(kernel.driver(Driver::Piix)),
        DiskBus::Ahci => all(&[Driver::Ahci, Driver::ScsiDisk]),
        DiskBus::Nvme => all(&[Driver::Nvme]),
        DiskBus::VirtioBlk => all(&[Driver::VirtioPci, Driver::VirtioBlk]),
        DiskBus::VirtioScsi => all(&[Driver::VirtioPci, Driver::VirtioScsi, Driver::ScsiDisk]),
    }
}

/// How surely `kernel` uses an adapter of `model`.
fn serves(kernel: &Kernel, model: NicModel) -> Option<DriverState> {
    match model {
        NicModel::E1000 => kernel.driver(Driver::E1000),
        NicModel::E1000e => kernel.driver(Driver::E1000e),
        NicModel::Rtl8139 => kernel.driver(Driver::Rtl8139),
        NicModel::VirtioNet => kernel.driver(Driver::VirtioPci).min(kernel.driver(Driver::VirtioNet)),
    }
}

/// The finding where the newest kernel's drivers are known.
fn told(
    kernel: &Kernel,
    disk: &PlannedDisk,
    report: &DiskReport,
    (bus, nic): (DiskBus, NicModel),
    (generation, chosen): (Generation, bool),
) -> Finding {
    let place = report.partitions.get(kernel.partition).map_or(0, |partition| partition.index);
    let by = match kernel.source {
        KernelSource::Flavour => "which is told by its release in",
        _ => "by",
    };
    let whose =
        format!("Linux {} ({by} `{}` on partition {place} of `{}`)", kernel.release, kernel.path, disk.name);
    let (bus_name, nic_name) = (bus_name(bus), nic_name(nic));
    let missing: Vec<&str> = [
        drives(kernel, bus).is_none().then_some(bus_name),
        serves(kernel, nic).is_none().then_some(nic_name),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !missing.is_empty() {
        let message = format!(
            "{whose} has no driver for {} (others: `--disk-bus`, `--nic-model`)",
            missing.join(" and ")
        );
        return Finding::new(finding::GUEST_DRIVERS, Severity::Warning, "hardware", message);
    }
    let module = drives(kernel, bus) == Some(DriverState::Module);
    let initramfs = if module { "; that its initramfs holds them is not looked at" } else { "" };
    let instead = match generation {
        Generation::One => (DiskBus::Ide, NicModel::E1000),
        Generation::Two => (DiskBus::Ahci, NicModel::E1000e),
    };
    let lacking: Vec<&str> = [
        drives(kernel, instead.0).is_none().then_some(self::bus_name(instead.0)),
        serves(kernel, instead.1).is_none().then_some(self::nic_name(instead.1)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let message = if chosen || lacking.is_empty() {
        format!("{whose} has drivers for {bus_name} and {nic_name}{initramfs}")
    } else {
        format!(
            "{whose} has no driver for {}: it gets {bus_name} and {nic_name} (others: `--disk-bus`, `--nic-model`)",
            lacking.join(" and ")
        )
    };
    Finding::new(finding::GUEST_KERNEL, Severity::Info, "hardware", message)
}

/// The finding where no kernel could be read.
fn guessed(seen: Seen<'_>, bus: DiskBus, nic: NicModel) -> Finding {
    let (disk, nic) = (bus_name(bus), nic_name(nic));
    let windows = seen.contents.iter().flatten().find(|report| report.guest == GuestGuess::Windows);
    let message = match windows {
        Some(report) => format!(
            "the guest is Windows ({}): it gets {disk} and {nic}, which it has drivers for (faster, once virtio drivers are installed: `--hardware virtio`)",
            report.guest_reason
        ),
        None => format!(
            "the guest's drivers are not known: it gets {disk} and {nic}, which any guest can use (faster, with drivers: `--hardware virtio`)"
        ),
    };
    Finding::new(finding::GUEST_UNKNOWN, Severity::Info, "hardware", message)
}

fn bus_name(bus: DiskBus) -> &'static str {
    match bus {
        DiskBus::Ide => "IDE",
        DiskBus::Ahci => "AHCI",
        DiskBus::Nvme => "NVMe",
        DiskBus::VirtioBlk => "virtio-blk",
        DiskBus::VirtioScsi => "virtio-scsi",
    }
}

fn nic_name(model: NicModel) -> &'static str {
    match model {
        NicModel::E1000 => "e1000",
        NicModel::E1000e => "e1000e",
        NicModel::Rtl8139 => "rtl8139",
        NicModel::VirtioNet => "virtio-net",
    }
}

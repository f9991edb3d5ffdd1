//! What a probe finds, as plain values.

use std::fmt;

use uuid::Uuid;

/// Everything found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskReport {
    /// Size of the disk in bytes.
    pub size: u64,
    /// The sector size, in bytes, for which the partition table was written: the one asked for, unless a note of id
    /// `sector-size` says otherwise.
    pub sector_size: u32,
    /// The kind of partition table.
    pub table: Table,
    /// The table's own identifier.
    pub disk_id: Option<DiskId>,
    /// The partitions, in the order of their numbers. A disk without a table that holds something recognisable has one
    /// of number 0 that spans the disk.
    pub partitions: Vec<Partition>,
    /// Whether a BIOS would get as far as a boot loader.
    pub bios_bootable: bool,
    /// What [`Self::bios_bootable`] rests on.
    pub bios: BiosBoot,
    /// EFI boot loaders on the FAT volumes, each volume's best first.
    pub efi_loaders: Vec<EfiLoader>,
    /// What guest this most likely is.
    pub guest: GuestGuess,
    /// Why, in words.
    pub guest_reason: String,
    /// Linux kernels whose drivers are known, newest first.
    pub kernels: Vec<Kernel>,
    /// What looked damaged or odd.
    pub notes: Vec<Note>,
}

impl DiskReport {
    /// The loader a new boot entry should name: an installed system's own, else the fallback, which firmware would
    /// find without an entry.
    pub fn best_loader(&self) -> Option<&EfiLoader> {
        let runs_here = |loader: &&EfiLoader| {
            // A file that is no PE image may still be meant as one; a loader for another processor never starts.
            matches!(loader.architecture, Architecture::X64 | Architecture::Unknown)
        };
        self.efi_loaders.iter().filter(runs_here).min_by_key(|loader| {
            let system_partition =
                self.partition_of(loader).is_some_and(|partition| partition.kind == PartitionKind::EfiSystem);
            (
                loader.architecture != Architecture::X64,
                !system_partition,
                loader.kind.rank(),
                loader.partition,
            )
        })
    }

    /// Whether firmware without any boot entry finds a loader (`\EFI\BOOT\BOOTX64.EFI`).
    pub fn has_fallback_loader(&self) -> bool {
        self.efi_loaders.iter().any(|loader| loader.fallback)
    }

    /// The partition a loader is on.
    pub fn partition_of(&self, loader: &EfiLoader) -> Option<&Partition> {
        self.partitions.get(loader.partition)
    }

    /// Whether the system that the loaders belong to makes its initramfs with dracut (see [`EfiLoader::vendor`]).
    pub fn uses_dracut(&self) -> bool {
        /// Directories below `\EFI` of Red Hat Enterprise Linux and Oracle Linux, their relatives, and SUSE.
        const VENDORS: [&str; 8] =
            ["redhat", "centos", "rocky", "almalinux", "fedora", "opensuse", "sles", "sled"];
        let with_dracut =
            |loader: &EfiLoader| VENDORS.iter().any(|vendor| loader.vendor().eq_ignore_ascii_case(vendor));
        self.efi_loaders.iter().any(with_dracut)
    }

    /// Whether anything on the disk is BitLocker.
    pub fn has_bitlocker(&self) -> bool {
        self.partitions.iter().any(|partition| partition.content == Content::BitLocker)
    }

    /// Whether anything on the disk is LUKS.
    pub fn has_luks(&self) -> bool {
        self.partitions.iter().any(|partition| partition.content == Content::Luks)
    }
}

/// The kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// None that makes sense.
    None,
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// A partition table's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskId {
    /// The four bytes at 440 of an MBR.
    Mbr(u32),
    /// The disk GUID of a GPT.
    Gpt(Uuid),
}

/// A partition's type as the table says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeId {
    /// The disk has no table.
    None,
    /// The type byte of an MBR entry.
    Mbr(u8),
    /// The type GUID of a GPT entry.
    Gpt(Uuid),
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::Mbr(byte) => write!(f, "{byte:02x}"),
            Self::Gpt(guid) => guid.fmt(f),
        }
    }
}

/// What a partition's type says it is for. The content may disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartitionKind {
    /// The disk itself, without a table.
    WholeDisk,
    /// EFI system partition.
    EfiSystem,
    /// Where GRUB keeps its core image on a GPT disk that a BIOS boots.
    BiosBoot,
    /// Microsoft's reserved partition.
    MicrosoftReserved,
    /// Microsoft's basic data: NTFS, FAT, exFAT; old Linux installers used it too.
    BasicData,
    /// Windows' recovery environment.
    WindowsRecovery,
    /// Part of a Windows dynamic disk.
    WindowsDynamic,
    /// Part of a Windows storage pool.
    StorageSpaces,
    /// A Linux file system (data, root, home and the like).
    Linux,
    /// Linux swap.
    LinuxSwap,
    /// Linux LVM.
    LinuxLvm,
    /// Linux RAID.
    LinuxRaid,
    /// Anything else.
    Other,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// Its number as operating systems and EFI device paths count: from 1, logical partitions of an MBR from 5; 0 for a
    /// disk without a table.
    pub index: u32,
    /// First byte on the disk.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// What its type says it is for.
    pub kind: PartitionKind,
    /// The type itself.
    pub type_id: TypeId,
    /// The partition's own GUID (GPT only).
    pub partition_id: Option<Uuid>,
    /// Its name (GPT only).
    pub name: Option<String>,
    /// Whether an MBR marks it active, or a GPT legacy-BIOS-bootable.
    pub active: bool,
    /// What is in it.
    pub content: Content,
    /// Which one of that content: `FAT32`, `ext4`, `LUKS2`, `To Go`.
    pub version: Option<&'static str>,
    /// The file system's label.
    pub label: Option<String>,
}

/// What a partition holds, told by signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Content {
    /// All zero where any signature could be. (Not proof that the rest is.)
    Empty,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// exFAT.
    ExFat,
    /// NTFS.
    Ntfs,
    /// ReFS.
    Refs,
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// Linux swap space.
    Swap,
    /// LVM physical volume.
    Lvm,
    /// Member of a Linux software RAID.
    LinuxRaid,
    /// BitLocker, BitLocker To Go included.
    BitLocker,
    /// LUKS.
    Luks,
    /// ISO 9660.
    Iso9660,
    /// Something else.
    Unknown,
}

impl Content {
    /// The name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fat => "FAT",
            Self::ExFat => "exFAT",
            Self::Ntfs => "NTFS",
            Self::Refs => "ReFS",
            Self::Ext => "ext",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
            Self::Swap => "swap",
            Self::Lvm => "LVM",
            Self::LinuxRaid => "Linux RAID",
            Self::BitLocker => "BitLocker",
            Self::Luks => "LUKS",
            Self::Iso9660 => "ISO 9660",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nobody reads it without a key.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::BitLocker | Self::Luks)
    }
}

/// What a BIOS would find.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BiosBoot {
    /// The verdict.
    pub bootable: bool,
    /// Whether sector 0 ends in 55 AA, without which most BIOSes pass the disk over.
    pub signature: bool,
    /// The code in sector 0.
    pub code: BootCode,
    /// Number of the active partition.
    pub active: Option<u32>,
    /// The verdict's reason, in words.
    pub reason: String,
}

/// Boot code in the first sector, as far as it can be told by its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BootCode {
    /// None: zeros.
    None,
    /// A formatter's stub that only says the disk does not boot.
    Stub,
    /// GRUB.
    Grub,
    /// Windows.
    Windows,
    /// SYSLINUX or EXTLINUX.
    Syslinux,
    /// Something else.
    Other,
}

/// An EFI boot loader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EfiLoader {
    /// Position of its partition in [`DiskReport::partitions`] (not the partition's number).
    pub partition: usize,
    /// Its path on that partition, as EFI writes it: `\EFI\debian\shimx64.efi`.
    pub path: String,
    /// Whether firmware finds it without a boot entry: `\EFI\BOOT\BOOTX64.EFI`.
    pub fallback: bool,
    /// Which loader, by its name.
    pub kind: LoaderKind,
    /// For which processor, by its header.
    pub architecture: Architecture,
    /// Bytes.
    pub size: u32,
}

impl EfiLoader {
    /// The directory below `\EFI`, which names the system that put it there: `debian`, `Microsoft`, `BOOT`.
    pub fn vendor(&self) -> &str {
        self.path.split('\\').nth(2).unwrap_or_default()
    }
}

/// Which EFI boot loader, by its file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoaderKind {
    /// `\EFI\BOOT\BOOT*.EFI`, whatever it is.
    Fallback,
    /// shim, which Secure Boot lets start and which starts GRUB.
    Shim,
    /// GRUB.
    Grub,
    /// Windows' boot manager.
    WindowsBootManager,
    /// systemd-boot.
    SystemdBoot,
    /// rEFInd.
    Refind,
    /// Another known name.
    Other,
}

impl LoaderKind {
    /// Lower is the better choice for a boot entry: what Secure Boot accepts before what it may not, and the fallback
    /// last since it needs no entry.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::WindowsBootManager => 0,
            Self::Shim => 1,
            Self::SystemdBoot => 2,
            Self::Grub => 3,
            Self::Refind => 4,
            Self::Other => 5,
            Self::Fallback => 6,
        }
    }
}

/// A processor, by a PE header's machine field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// x86-64.
    X64,
    /// 32-bit x86.
    Ia32,
    /// 64-bit Arm.
    Arm64,
    /// Another one, or the file is no PE image.
    Unknown,
}

/// What guest a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestGuess {
    /// Windows.
    Windows,
    /// Linux.
    Linux,
    /// Nothing speaks for either, or both do alike.
    Unknown,
}

/// A Linux kernel, and what is known of its drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// Position of its partition in [`DiskReport::partitions`] (not the partition's number).
    pub partition: usize,
    /// The file that tells, on that partition: `/boot/config-6.1.0-38-cloud-amd64`.
    pub path: String,
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// How its drivers are known.
    pub source: KernelSource,
    /// The drivers it has; one that is not listed is absent.
    pub drivers: Vec<(Driver, DriverState)>,
}

impl Kernel {
    /// Whether it has `driver`, and how; `None` when it has not.
    pub fn driver(&self, driver: Driver) -> Option<DriverState> {
        self.drivers.iter().find(|(have, _)| *have == driver).map(|(_, state)| *state)
    }
}

/// How a kernel's drivers are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelSource {
    /// By the configuration beside it.
    Configuration,
    /// By its release, which names a flavour that is known.
    Flavour,
}

/// A driver that matters for booting on other hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Driver {
    /// SCSI disks, as which SATA, IDE and SCSI disks appear.
    ScsiDisk,
    /// AHCI SATA controllers.
    Ahci,
    /// Intel's PIIX IDE controllers.
    Piix,
    /// NVMe.
    Nvme,
    /// What every virtio device on PCI needs.
    VirtioPci,
    /// virtio block devices.
    VirtioBlk,
    /// virtio SCSI controllers.
    VirtioScsi,
    /// virtio network adapters.
    VirtioNet,
    /// Intel 8254x network adapters.
    E1000,
    /// Intel 82574 and later.
    E1000e,
    /// Realtek 8139.
    Rtl8139,
}

/// How a kernel has a driver. More is surer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriverState {
    /// As a module, which must be in its initramfs for booting.
    Module,
    /// Built in.
    BuiltIn,
}

/// Something damaged or odd, met on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// Stable id: `gpt-backup-used`, `gpt-crc`, `sector-size` and so on.
    pub id: &'static str,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// What, in words.
    pub message: String,
}

impl Note {
    pub(crate) fn new(id: &'static str, offset: u64, message: impl Into<String>) -> Self {
        Self { id, offset, message: message.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at offset {})", self.message, self.offset)
    }
}

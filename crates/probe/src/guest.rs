//! What guest a disk most likely holds, with the reason.
//!
//! A guess from outside: boot loaders first, since they say what is meant to start; then what takes the most room.

use crate::report::{
    BiosBoot, BootCode, Content, EfiLoader, GuestGuess, LoaderKind, Partition, PartitionKind,
};

pub(crate) fn guess(
    partitions: &[Partition],
    loaders: &[EfiLoader],
    bios: &BiosBoot,
) -> (GuestGuess, String) {
    let windows = evidence(partitions, is_windows, windows_loader(loaders), windows_code(bios));
    let linux = evidence(partitions, is_linux, linux_loader(loaders), linux_code(bios));
    match (windows, linux) {
        (None, None) => {
            (GuestGuess::Unknown, "no file system or boot loader says what guest this is".to_owned())
        }
        (Some(windows), None) => (GuestGuess::Windows, windows.reason()),
        (None, Some(linux)) => (GuestGuess::Linux, linux.reason()),
        (Some(windows), Some(linux)) => {
            let reasons = format!("for Windows: {}; for Linux: {}", windows.reason(), linux.reason());
            let guess = match windows.weight().cmp(&linux.weight()) {
                std::cmp::Ordering::Greater => GuestGuess::Windows,
                std::cmp::Ordering::Less => GuestGuess::Linux,
                std::cmp::Ordering::Equal => GuestGuess::Unknown,
            };
            (guess, reasons)
        }
    }
}

struct Evidence {
    loader: Option<String>,
    code: Option<&'static str>,
    /// The largest partition that speaks for it: its bytes, and what it is.
    largest: Option<(u64, String)>,
}

impl Evidence {
    /// More is more: bytes of content decide, a loader or boot code where these are alike.
    fn weight(&self) -> (u64, bool, bool) {
        (self.largest.as_ref().map_or(0, |(length, _)| *length), self.loader.is_some(), self.code.is_some())
    }

    fn reason(&self) -> String {
        let parts: Vec<&str> =
            [self.loader.as_deref(), self.largest.as_ref().map(|(_, what)| what.as_str()), self.code]
                .into_iter()
                .flatten()
                .collect();
        parts.join(", ")
    }
}

fn evidence(
    partitions: &[Partition],
    speaks: fn(&Partition) -> bool,
    loader: Option<String>,
    code: Option<&'static str>,
) -> Option<Evidence> {
    let largest = partitions
        .iter()
        .filter(|partition| speaks(partition))
        .max_by_key(|partition| partition.length)
        .map(|partition| (partition.length, describe(partition)));
    (loader.is_some() || code.is_some() || largest.is_some()).then_some(Evidence { loader, code, largest })
}

fn describe(partition: &Partition) -> String {
    let what = match (partition.content, partition.kind) {
        (Content::Empty | Content::Unknown, PartitionKind::StorageSpaces) => "a Windows storage pool",
        (Content::Empty | Content::Unknown, PartitionKind::WindowsDynamic) => "a Windows dynamic disk",
        (Content::Empty | Content::Unknown, PartitionKind::MicrosoftReserved) => {
            "a Microsoft reserved partition"
        }
        (Content::BitLocker | Content::Ext | Content::Luks | Content::Fat, _) => {
            partition.version.filter(|version| *version != "To Go").unwrap_or(partition.content.name())
        }
        (content, _) => content.name(),
    };
    match partition.index {
        0 => format!("{what} on the whole disk"),
        number => format!("{what} on partition {number}"),
    }
}

fn is_windows(partition: &Partition) -> bool {
    matches!(partition.content, Content::Ntfs | Content::Refs | Content::BitLocker)
        || matches!(
            partition.kind,
            PartitionKind::WindowsDynamic | PartitionKind::StorageSpaces | PartitionKind::MicrosoftReserved
        )
}

fn is_linux(partition: &Partition) -> bool {
    matches!(
        partition.content,
        Content::Ext
            | Content::Xfs
            | Content::Btrfs
            | Content::Swap
            | Content::Lvm
            | Content::LinuxRaid
            | Content::Luks
    )
}

fn windows_loader(loaders: &[EfiLoader]) -> Option<String> {
    loaders
        .iter()
        .find(|loader| loader.kind == LoaderKind::WindowsBootManager)
        .map(|loader| format!("loader {}", loader.path))
}

fn linux_loader(loaders: &[EfiLoader]) -> Option<String> {
    let linux = |loader: &&EfiLoader| {
        matches!(loader.kind, LoaderKind::Shim | LoaderKind::Grub | LoaderKind::SystemdBoot)
    };
    loaders.iter().find(linux).map(|loader| format!("loader {}", loader.path))
}

fn windows_code(bios: &BiosBoot) -> Option<&'static str> {
    // A protective MBR made by any partitioning tool may carry Windows' code; it speaks only where it would run.
    (bios.bootable && bios.code == BootCode::Windows).then_some("Windows boot code")
}

fn linux_code(bios: &BiosBoot) -> Option<&'static str> {
    match bios.code {
        BootCode::Grub => Some("GRUB boot code"),
        BootCode::Syslinux => Some("SYSLINUX boot code"),
        _ => None,
    }
}

//! EFI loaders on FAT volumes made by mkfs.vfat and mtools, and the verdict on booting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[allow(dead_code, reason = "each test file uses its part of the support")]
mod support;

use std::path::{Path, PathBuf};

use probe::Budget;
use probe::fat::Volume;
use probe::{Architecture, BootCode, Content, DiskReport, FileDisk, GuestGuess, LoaderKind};
use support::{fat, lacks, pe, place, run, sparse, text, write_at};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const X64: u16 = 0x8664;
const TOOLS: &[&str] = &["sfdisk", "mkfs.vfat", "mmd", "mcopy"];

fn probe(path: &Path) -> DiskReport {
    probe::probe(&FileDisk::open(path).unwrap(), 512).unwrap()
}

/// A disk with one FAT partition of that type, which begins at 1 MiB.
fn disk(directory: &TempDir, label: &str, partition: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let volume = fat(directory.path(), 40 * MIB, &["-F", "32"], files);
    let disk = directory.path().join("disk.raw");
    sparse(&disk, 64 * MIB);
    run(
        "sfdisk",
        &["-q", text(&disk)],
        &format!("label: {label}\nstart=2048, size=81920, {partition}\nsize=8MiB\n"),
    );
    place(&volume, &disk, MIB);
    disk
}

fn paths(report: &DiskReport) -> Vec<&str> {
    report.efi_loaders.iter().map(|loader| loader.path.as_str()).collect()
}

#[test]
fn installed_linux_without_fallback() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = disk(
        &directory,
        "gpt",
        "type=uefi",
        &[
            ("EFI/debian/grubx64.efi", pe(X64)),
            ("EFI/debian/shimx64.efi", pe(X64)),
            ("EFI/debian/mmx64.efi", pe(X64)),
            ("EFI/debian/grub.cfg", b"boot".to_vec()),
        ],
    );
    let report = probe(&disk);
    assert_eq!(paths(&report), ["\\EFI\\debian\\shimx64.efi", "\\EFI\\debian\\grubx64.efi"]);
    let best = report.best_loader().unwrap();
    assert_eq!(
        (best.kind, best.architecture, best.vendor()),
        (LoaderKind::Shim, Architecture::X64, "debian")
    );
    assert_eq!(report.partition_of(best).unwrap().index, 1);
    assert!(!report.has_fallback_loader());
    assert_eq!(report.guest, GuestGuess::Linux);
    assert_eq!(report.guest_reason, "loader \\EFI\\debian\\shimx64.efi");
}

#[test]
fn windows_with_fallback() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = disk(
        &directory,
        "gpt",
        "type=uefi",
        &[
            ("EFI/Microsoft/Boot/bootmgfw.efi", pe(X64)),
            ("EFI/Microsoft/Boot/BCD", vec![1; 5000]),
            ("EFI/BOOT/BOOTX64.EFI", pe(X64)),
            ("EFI/BOOT/BOOTIA32.EFI", pe(0x14c)),
        ],
    );
    // BitLocker after it.
    write_at(&disk, 41 * MIB, b"\xeb\x58\x90-FVE-FS-");
    let report = probe(&disk);
    assert_eq!(report.partitions[1].content, Content::BitLocker);
    assert_eq!(report.best_loader().unwrap().kind, LoaderKind::WindowsBootManager);
    assert!(report.has_fallback_loader() && report.has_bitlocker());
    assert_eq!(report.guest, GuestGuess::Windows);
    assert_eq!(report.guest_reason, "loader \\EFI\\Microsoft\\Boot\\bootmgfw.efi, BitLocker on partition 2");
    let ia32 = report.efi_loaders.iter().find(|loader| loader.path.ends_with("IA32.EFI")).unwrap();
    assert_eq!((ia32.architecture, ia32.fallback), (Architecture::Ia32, false));
}

#[test]
fn any_fat_with_an_efi_directory_counts() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = disk(&directory, "dos", "type=c", &[("efi/boot/bootx64.efi", pe(X64))]);
    let report = probe(&disk);
    assert_eq!(paths(&report).len(), 1, "{report:?}");
    assert!(report.efi_loaders[0].fallback);
    assert!(report.efi_loaders[0].path.eq_ignore_ascii_case("\\EFI\\BOOT\\BOOTX64.EFI"));

    // The same volume without a table.
    let volume = directory.path().join("fat.img");
    let report = probe(&volume);
    assert!(report.has_fallback_loader(), "{report:?}");
    assert_eq!(report.partitions[0].index, 0);
    assert_eq!((report.bios.code, report.bios_bootable), (BootCode::Stub, false));
}

#[test]
fn long_names_and_fragments_read_back() {
    if lacks(TOOLS) {
        return;
    }
    for (width, size) in [("12", 1), ("16", 24), ("32", 40)] {
        let directory = TempDir::new().unwrap();
        // Enough names for a directory of several clusters, which lie apart because files come between.
        let names: Vec<String> =
            (0..80).map(|i| format!("EFI/x/A rather long name, number {i:03}.txt")).collect();
        let files: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (name.as_str(), vec![u8::try_from(i).unwrap(); 700 + i * 7]))
            .collect();
        let image = fat(directory.path(), size * MIB, &["-F", width, "-s", "1"], &files);
        let disk = FileDisk::open(&image).unwrap();
        let budget = Budget::default();
        let volume = Volume::open(&disk, 0, size * MIB, &budget).unwrap().unwrap();
        assert_eq!(volume.geometry().kind().name(), format!("FAT{width}"));
        for (name, content) in &files {
            let entry = volume
                .find(&name.split('/').collect::<Vec<_>>())
                .unwrap()
                .unwrap_or_else(|| panic!("{name}"));
            assert_eq!(&volume.read_file(&entry, usize::MAX).unwrap(), content, "FAT{width} {name}");
        }
        let directory = volume.directory(&volume.find(&["EFI", "x"]).unwrap().unwrap()).unwrap();
        assert_eq!(directory.entries.len(), 80);
        assert!(directory.damage.is_none());
    }
}

#[test]
fn boot_code_decides_about_bios() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = disk(&directory, "dos", "type=c, bootable", &[("README", b"hello".to_vec())]);
    assert_eq!((probe(&disk).bios.code, probe(&disk).bios_bootable), (BootCode::None, false));
    let mbr = ["/usr/lib/syslinux/mbr/mbr.bin", "/usr/lib/SYSLINUX/mbr.bin"]
        .into_iter()
        .find_map(|p| std::fs::read(p).ok());
    if let Some(mbr) = mbr {
        write_at(&disk, 0, &mbr[..mbr.len().min(440)]);
        assert_eq!((probe(&disk).bios.code, probe(&disk).bios_bootable), (BootCode::Syslinux, true));
    }
    write_at(&disk, 0, &[0; 440]);
    write_at(&disk, 0, b"\x33\xc0\x8e\xd0\xbc\x00\x7c\x8e\xc0");
    assert_eq!((probe(&disk).bios.code, probe(&disk).bios_bootable), (BootCode::Windows, true));
    run("sfdisk", &["-q", "--activate", text(&disk), "-"], "");
    assert!(!probe(&disk).bios_bootable, "{}", probe(&disk).bios.reason);
    write_at(&disk, 0, b"\xeb\x63\x90");
    write_at(&disk, 384, b"GRUB ");
    assert!(probe(&disk).bios_bootable);
    assert_eq!(probe(&disk).guest, GuestGuess::Linux);
    write_at(&disk, 510, &[0]);
    assert!(!probe(&disk).bios_bootable);
}

/// `SLIPWAY_GUEST` is a directory as `tools/make_guest.sh` fills it.
#[test]
fn the_test_guest_boots_both_ways() {
    let Some(guest) = std::env::var_os("SLIPWAY_GUEST").map(PathBuf::from) else {
        println!("skipped: SLIPWAY_GUEST is not set");
        return;
    };
    let report = probe(&guest.join("boot.raw"));
    assert!(report.bios_bootable, "{}", report.bios.reason);
    assert!(report.has_fallback_loader());
    assert_eq!(report.efi_loaders[0].architecture, Architecture::X64);
    assert_eq!(report.guest, GuestGuess::Linux, "{}", report.guest_reason);
}

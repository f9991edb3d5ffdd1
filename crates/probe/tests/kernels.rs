//! Kernels in `/boot` on volumes made by mke2fs, mkfs.vfat and mtools, in every shape that ext comes in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[allow(dead_code, reason = "each test file uses its part of the support")]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use probe::ext::{Kind, Volume};
use probe::{Budget, DiskReport, Driver, DriverState, FileDisk, Kernel, KernelSource};
use support::{fat, lacks, place, run, sparse, text};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const TOOLS: &[&str] = &["mke2fs", "debugfs", "sfdisk", "mkfs.vfat", "mmd", "mcopy"];

/// Debian's kernel for clouds has no AHCI and no Intel adapters; its stock kernel has all as modules.
const CLOUD: &str = "CONFIG_X86_64=y\nCONFIG_BLK_DEV_SD=m\nCONFIG_BLK_DEV_NVME=y\nCONFIG_ATA_PIIX=m\n\
                     # CONFIG_SATA_AHCI is not set\nCONFIG_VIRTIO_NET=m\n# CONFIG_E1000E is not set\n";
const STOCK: &str = "CONFIG_X86_64=y\nCONFIG_BLK_DEV_SD=m\nCONFIG_SATA_AHCI=m\nCONFIG_E1000E=m\n";

/// A directory with what the root of a Linux system has.
fn tree(directory: &Path, configurations: &[(&str, &str)]) -> PathBuf {
    let root = directory.join("root");
    for name in ["boot/grub", "etc", "usr/lib/modules"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for (release, configuration) in configurations {
        fs::write(root.join(format!("boot/config-{release}")), configuration).unwrap();
        fs::write(root.join(format!("boot/initrd.img-{release}")), vec![7; 300_000]).unwrap();
    }
    root
}

fn format(directory: &Path, name: &str, root: &Path, size: u64, options: &[&str]) -> PathBuf {
    let image = directory.join(name);
    sparse(&image, size);
    let all = [&["-q", "-F", "-N", "4096", "-d", text(root)], options, &[text(&image)]].concat();
    run("mke2fs", &all, "");
    image
}

fn probe(path: &Path) -> DiskReport {
    probe::probe(&FileDisk::open(path).unwrap(), 512).unwrap()
}

fn releases(report: &DiskReport) -> Vec<&str> {
    report.kernels.iter().map(|kernel| kernel.release.as_str()).collect()
}

/// How each kind of volume is made: by age, block size and feature.
const SHAPES: &[(&str, &[&str])] = &[
    ("ext2", &["-t", "ext2", "-b", "1024"]),
    ("ext2-old", &["-t", "ext2", "-b", "1024", "-O", "none", "-r", "0"]),
    ("ext3", &["-t", "ext3", "-b", "2048"]),
    ("ext4", &["-t", "ext4"]),
    ("ext4-1k", &["-t", "ext4", "-b", "1024", "-I", "128"]),
    ("ext4-narrow", &["-t", "ext4", "-O", "^64bit,^metadata_csum,^flex_bg"]),
    ("ext4-big", &["-t", "ext4", "-O", "bigalloc", "-C", "65536"]),
    ("ext4-all", &["-t", "ext4", "-O", "casefold,encrypt,metadata_csum_seed,ea_inode,mmp,quota"]),
    ("ext4-64k", &["-t", "ext4", "-b", "65536"]),
];

#[test]
fn every_file_reads_as_it_was_written() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let root = tree(directory.path(), &[("6.1.0-38-amd64", STOCK)]);
    // Through indirect blocks and hashed directories; with holes, in more extents than an inode holds.
    let long: Vec<u8> = (0..700_000_u32).map(|n| (n / 7 % 251) as u8).collect();
    fs::write(root.join("boot/long"), &long).unwrap();
    let mut holes = vec![0; 900_000];
    let file = File::create(root.join("boot/holes")).unwrap();
    file.set_len(900_000).unwrap();
    for at in (0..900_000).step_by(30_000) {
        file.write_all_at(&[at as u8 | 1; 500], at as u64).unwrap();
        holes[at..at + 500].fill(at as u8 | 1);
    }
    fs::create_dir(root.join("boot/many")).unwrap();
    for n in 0..1500 {
        fs::write(root.join(format!("boot/many/a file of the number {n} whose name is long enough")), b"")
            .unwrap();
    }
    std::os::unix::fs::symlink("long", root.join("boot/link")).unwrap();
    for (name, options) in SHAPES {
        let image = format(directory.path(), name, &root, 40 * MIB, options);
        let disk = FileDisk::open(&image).unwrap();
        let budget = Budget::default();
        let volume = Volume::open(&disk, 0, u64::MAX, &budget).unwrap().unwrap();
        let top = volume.root().unwrap();
        let boot = top.iter().find(|entry| entry.name == "boot").unwrap();
        let entries = volume.directory(boot).unwrap();
        let entry = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
        assert_eq!(volume.read_file(entry("long"), usize::MAX >> 1).unwrap(), long, "{name}");
        assert_eq!(volume.read_file(entry("long"), 5000).unwrap(), long[..5000], "{name}");
        assert_eq!(volume.read_file(entry("holes"), usize::MAX >> 1).unwrap(), holes, "{name}");
        assert_eq!(volume.directory(entry("many")).unwrap().len(), 1500, "{name}");
        assert_eq!(volume.read_file(entry("link"), 100).unwrap(), b"", "{name}: links are not followed");
        assert_eq!(volume.directory(entry("long")).unwrap(), [], "{name}");
        if *name == "ext2-old" {
            assert_eq!(boot.kind, Kind::Unknown);
        } else {
            assert_eq!((boot.kind, entry("long").kind), (Kind::Directory, Kind::File), "{name}");
        }
        let report = probe(&image);
        assert_eq!(releases(&report), ["6.1.0-38-amd64"], "{name}: {:?}", report.notes);
    }
}

fn drivers(kernel: &Kernel) -> [Option<DriverState>; 3] {
    [Driver::Ahci, Driver::Nvme, Driver::E1000e].map(|driver| kernel.driver(driver))
}

/// As installers lay a disk out: an EFI partition, and a root, or `/boot` on its own before a root that is not read.
#[test]
fn kernels_of_an_installed_system_are_found_newest_first() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let root = tree(
        directory.path(),
        &[("6.1.0-9-cloud-amd64", CLOUD), ("6.1.0-38-amd64", STOCK), ("6.1.0-38-arm64", "CONFIG_ARM64=y\n")],
    );
    for (name, source) in [("/boot/", root.clone()), ("/", root.join("boot"))] {
        let volume = format(directory.path(), "part.ext4", &source, 40 * MIB, &["-t", "ext4"]);
        let esp = fat(
            directory.path(),
            40 * MIB,
            &["-F", "32"],
            &[("EFI/debian/shimx64.efi", support::pe(0x8664))],
        );
        let disk = directory.path().join("disk.raw");
        sparse(&disk, 96 * MIB);
        run(
            "sfdisk",
            &["-q", text(&disk)],
            "label: gpt\nstart=2048, size=81920, type=uefi\nsize=81920, type=linux\n",
        );
        place(&esp, &disk, MIB);
        place(&volume, &disk, 41 * MIB);
        let report = probe(&disk);
        assert_eq!(releases(&report), ["6.1.0-38-amd64", "6.1.0-9-cloud-amd64"]);
        let [stock, cloud] = &report.kernels[..] else { panic!("two") };
        assert_eq!(drivers(stock), [Some(DriverState::Module), None, Some(DriverState::Module)]);
        assert_eq!(drivers(cloud), [None, Some(DriverState::BuiltIn), None]);
        assert_eq!(stock.path, format!("{name}config-6.1.0-38-amd64"));
        assert_eq!((stock.partition, stock.source), (1, KernelSource::Configuration));
        assert!(!report.uses_dracut());
        fs::remove_file(&disk).unwrap();
    }
}

/// On a FAT volume, without a configuration: told by the release in the kernel itself, where that says enough.
#[test]
fn a_kernel_alone_is_known_by_its_flavour() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let kernel = |release: &str| {
        let mut image = vec![0; 100_000];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x3000_u16.to_le_bytes());
        image[0x3200..0x3200 + release.len()].copy_from_slice(release.as_bytes());
        image
    };
    let files = [
        ("vmlinuz", kernel("6.1.0-38-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP")),
        ("vmlinuz-stock", kernel("6.1.0-38-amd64 (debian-kernel@lists.debian.org) #1 SMP")),
        ("vmlinuz-none", b"no kernel".to_vec()),
        ("EFI/redhat/shimx64.efi", support::pe(0x8664)),
    ];
    let report = probe(&fat(directory.path(), 40 * MIB, &["-F", "32"], &files));
    assert_eq!(releases(&report), ["6.1.0-38-cloud-amd64"]);
    let kernel = &report.kernels[0];
    assert_eq!((kernel.source, kernel.path.as_str()), (KernelSource::Flavour, "/vmlinuz"));
    assert_eq!(drivers(kernel), [None, Some(DriverState::BuiltIn), None]);
    assert!(report.uses_dracut());
}

/// What cannot be read is said, and nothing is taken for absent because of it.
#[test]
fn a_volume_that_cannot_be_read_is_a_note_and_no_kernel() {
    if lacks(TOOLS) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let large = format!("{CLOUD}{}", "# padding\n".repeat(120_000));
    let root = tree(directory.path(), &[("6.1.0-38-amd64", STOCK), ("6.2.0-1-amd64", &large)]);
    let image = format(directory.path(), "a.ext4", &root, 40 * MIB, &["-t", "ext4"]);
    assert_eq!(releases(&probe(&image)), ["6.1.0-38-amd64"], "one that is too large to be whole is left out");
    // The extent tree of /boot: no tree, too deep, and a block past the volume's end.
    for (what, field) in [("block[0]", "0"), ("block[1]", "0xffffffff"), ("block[5]", "0xfffffff0")] {
        let broken = directory.path().join("broken.ext4");
        fs::copy(&image, &broken).unwrap();
        run("debugfs", &["-w", "-f", "-", text(&broken)], &format!("sif /boot {what} {field}\n"));
        let report = probe(&broken);
        assert_eq!(releases(&report), [""; 0], "{what}");
        assert!(report.notes.iter().any(|note| note.id == "boot-unreadable"), "{what}: {:?}", report.notes);
    }
    for (name, features) in [("meta", "meta_bg,^resize_inode"), ("inline", "inline_data")] {
        let image =
            format(directory.path(), name, &root, 40 * MIB, &["-b", "1024", "-t", "ext4", "-O", features]);
        let report = probe(&image);
        assert!(report.kernels.is_empty() && report.notes.len() == 1, "{name}: {:?}", report.notes);
    }
}

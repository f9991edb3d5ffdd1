//! Disks of packages: found or missed, chained, odd, encrypted, or trying to get out of the package.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use machine::finding::{self, Severity, Verdict};
use machine::planned::{ImportRequest, PlannedEdit};
use machine::settings::Generation;
use support::{DYNAMIC, Lab, MIB, Package, Shape, content, errors, finding, leaf, make_child, make_vhdx};

fn lab_and_package() -> (Lab, Package) {
    let lab = Lab::new();
    let package = Package::new(lab.path("package"), Generation::Two);
    (lab, package)
}

#[test]
fn a_missing_disk_is_found_where_the_user_says_and_only_then() {
    let (lab, package) = lab_and_package();
    let bytes = content(1, 2 * MIB);
    fs::create_dir(lab.path("elsewhere")).unwrap();
    make_vhdx(&lab.path("elsewhere/system.vhdx"), DYNAMIC, &bytes);
    let package = package.drive(r"D:\VMs\System.VHDX").write();
    let planned = lab.host().import(&package.request()).unwrap();
    let missing = finding(&planned.record.findings, finding::DISK_MISSING);
    assert_eq!((missing.severity, missing.fix.as_deref()), (Severity::Error, Some("--disks DIR")));
    assert!(missing.message.contains(r"D:\VMs\System.VHDX") && missing.message.contains("looked at"));
    assert!(missing.setting.ends_with("/controller0/drive0"), "{}", missing.setting);
    let edit = PlannedEdit { disk_dirs: vec![lab.path("elsewhere")], ..PlannedEdit::default() };
    let id = planned.record.id;
    assert_eq!(lab.host().edit_planned(id, &edit).unwrap().verdict, Verdict::Ready);
    assert!(lab.job(lab.host().realize(id, "test").unwrap()).state.is_success());
    assert_eq!(fs::read(leaf(&lab.host().machine(id).unwrap(), 0)).unwrap(), bytes);
}

#[test]
fn no_path_leaves_the_package() {
    let secret = "/etc/hostname";
    for path in [
        r"..\..\outside.vhdx",
        r"C:\a\..\..\outside.vhdx",
        "../outside.vhdx",
        secret,
        r"\\?\C:\..\x",
        "C:outside.vhdx",
    ] {
        let (lab, package) = lab_and_package();
        make_vhdx(&lab.path("outside.vhdx"), DYNAMIC, &content(9, MIB));
        let package = package.drive(path).write();
        let planned = lab.host().import(&package.request()).unwrap();
        assert_eq!(planned.record.disks[0].file, None, "{path}");
        let found = &planned.record.findings;
        let id = if path.contains("..") { finding::DISK_OUTSIDE } else { finding::DISK_MISSING };
        assert_eq!(errors(found), [id], "{path}");
        assert!(finding(found, id).message.contains(path));
        assert!(lab.host().realize(planned.record.id, "test").is_err());
    }
}

#[test]
fn no_link_leaves_the_package() {
    for on_directory in [false, true] {
        let (lab, package) = lab_and_package();
        fs::create_dir(lab.path("outside")).unwrap();
        make_vhdx(&lab.path("outside/d.vhdx"), DYNAMIC, &content(9, MIB));
        if on_directory {
            fs::remove_dir(package.disk_dir()).unwrap();
            symlink(lab.path("outside"), package.disk_dir()).unwrap();
        } else {
            symlink(lab.path("outside/d.vhdx"), package.disk_dir().join("d.vhdx")).unwrap();
        }
        let package = package.drive(r"C:\d.vhdx").write();
        let plan = lab.host().import_dry_run(&package.request()).unwrap();
        assert_eq!(plan.record.disks[0].file, None);
        let outside = finding(&plan.record.findings, finding::DISK_OUTSIDE);
        assert!(outside.message.contains("leads outside the package"), "{}", outside.message);
        // Named by the user it may be read.
        let request = ImportRequest { disk_dirs: vec![lab.path("outside")], ..package.request() };
        assert_eq!(lab.host().import_dry_run(&request).unwrap().verdict, Verdict::Ready);
    }
}

#[test]
fn no_parent_leaves_the_package() {
    for relative in [r"..\..\outside\base.vhdx", "../../outside/base.vhdx"] {
        let (lab, package) = lab_and_package();
        fs::create_dir(lab.path("outside")).unwrap();
        let base = lab.path("outside/base.vhdx");
        make_vhdx(&base, DYNAMIC, &content(1, 2 * MIB));
        let child = package.disk_dir().join("child.avhdx");
        make_vhdx(&child, DYNAMIC, &vec![0; 2 * MIB as usize]);
        make_child(&child, &base, relative);
        let package = package.drive(r"C:\child.avhdx").write();
        let plan = lab.host().import_dry_run(&package.request()).unwrap();
        assert_eq!(plan.verdict, Verdict::Fixable, "{:?}", plan.record.findings);
        let outside = finding(&plan.record.findings, finding::DISK_OUTSIDE);
        assert_eq!(outside.fix.as_deref(), Some("--disks DIR"), "{}", outside.message);
        let request = ImportRequest { disk_dirs: vec![lab.path("outside")], ..package.request() };
        let plan = lab.host().import_dry_run(&request).unwrap();
        assert_eq!(plan.verdict, Verdict::Ready, "{:?}", plan.record.findings);
    }
}

/// A disk with one checkpoint: base, the change of it, and what the guest saw last.
fn chain(dir: &Path) -> Vec<u8> {
    let below = content(1, 5 * MIB);
    let mut above = vec![0; below.len()];
    above[MIB as usize..3 * MIB as usize].copy_from_slice(&content(7, 3 * MIB)[..2 * MIB as usize]);
    make_vhdx(&dir.join("system.vhdx"), DYNAMIC, &below);
    let leaf = dir.join("system_1B2C.avhdx");
    make_vhdx(&leaf, DYNAMIC, &above);
    make_child(&leaf, &dir.join("system.vhdx"), r".\system.vhdx");
    let mut seen = below;
    for (to, from) in seen.chunks_mut(MIB as usize).zip(above.chunks(MIB as usize)) {
        if from.iter().any(|b| *b != 0) {
            to.copy_from_slice(from);
        }
    }
    seen
}

#[test]
fn a_checkpoint_comes_in_flattened_under_the_bases_name_and_leaves_without_it() {
    let (lab, package) = lab_and_package();
    let seen = chain(&package.disk_dir());
    let package = package
        .drive(r"C:\Disks\system_1B2C.avhdx")
        .set("global_settings/snapshots/list/size", 1)
        .set("global_settings/snapshots/list/node0", "0C1DE7F1-6F4D-4B12-8B0A-5D0B6A2C7E11")
        .write();
    fs::copy(package.member("vmcx"), package.dir.join("Snapshots/0C1DE7F1-6F4D-4B12-8B0A-5D0B6A2C7E11.vmcx"))
        .unwrap();
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    let left = finding(&plan.record.findings, finding::SNAPSHOTS_LEFT);
    assert_eq!((left.severity, left.fix.as_deref()), (Severity::Error, Some("--without-snapshots")));
    assert!(left.message.contains("Web server"), "it names them: {}", left.message);
    assert_eq!(plan.record.disks[0].chain.len(), 2);
    let request = ImportRequest { without_snapshots: true, ..package.request() };
    let machine = lab.import(&request);
    assert_eq!(machine.disks[0].name, "system.vhdx");
    assert_eq!(fs::read(leaf(&machine, 0)).unwrap(), seen);

    let out = lab.export(package.id, "out");
    assert_eq!(support::read_image(&out.join("Virtual Hard Disks/system.vhdx")), seen);
    let tree = |dir| vmcx::read_file(&support::member(dir, package.id, "vmcx")).unwrap().tree;
    let changed: Vec<_> = vmcx::diff(&tree(&package.dir), &tree(&out)).into_iter().map(|c| c.path).collect();
    let drive = machine.record.settings.controllers[0].instance;
    assert_eq!(
        changed,
        [
            "configuration/global_settings/snapshots/list/size".to_owned(),
            "configuration/global_settings/snapshots/list/node0".to_owned(),
            format!("configuration/_{drive}_/controller0/drive0/pathname"),
        ]
    );
    let back = lab.host().import_dry_run(&ImportRequest { new_id: true, ..support::import_of(out) }).unwrap();
    assert_eq!(back.verdict, Verdict::Ready, "{:?}", back.record.findings);
}

#[test]
fn a_chain_that_does_not_hold_together_is_refused() {
    let (lab, package) = lab_and_package();
    chain(&package.disk_dir());
    let base = package.disk_dir().join("system.vhdx");
    let package = package.drive(r"C:\Disks\system_1B2C.avhdx").write();
    // Another disk under the parent's name: its identity is not the one that the child was made on.
    fs::remove_file(&base).unwrap();
    make_vhdx(&base, DYNAMIC, &content(4, 5 * MIB));
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    let wrong = finding(&plan.record.findings, finding::DISK_PARENT_MISSING);
    assert_eq!((wrong.severity, &wrong.fix), (Severity::Error, &None));
    assert_eq!(plan.verdict, Verdict::Blocked);
    fs::remove_file(&base).unwrap();
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    let missing = finding(&plan.record.findings, finding::DISK_PARENT_MISSING);
    assert_eq!(missing.fix.as_deref(), Some("--disks DIR"));
    assert!(missing.message.contains("system.vhdx"), "{}", missing.message);
}

#[test]
fn big_sectors_go_where_they_can() {
    let shape = Shape { logical: 4096, ..DYNAMIC };
    for (generation, bytes) in
        [(Generation::One, content(1, 2 * MIB)), (Generation::Two, content(2, 2 * MIB))]
    {
        let lab = Lab::new();
        let package = Package::new(lab.path("package"), generation).shaped("4k.vhdx", shape, &bytes).write();
        let planned = lab.host().import(&package.request()).unwrap();
        let sectors = finding(&planned.record.findings, finding::DISK_SECTORS);
        assert_eq!((sectors.severity, sectors.fix.as_deref()), (Severity::Error, Some("--disk-bus nvme")));
        let edit = PlannedEdit { disk_bus: Some(engine::DiskBus::Nvme), ..PlannedEdit::default() };
        let id = planned.record.id;
        assert_eq!(lab.host().edit_planned(id, &edit).unwrap().verdict, Verdict::Ready);
        assert!(lab.job(lab.host().realize(id, "test").unwrap()).state.is_success());
        let machine = lab.host().machine(id).unwrap();
        assert_eq!(machine.disks[0].logical_sector_size, 4096);
        assert_eq!(fs::read(leaf(&machine, 0)).unwrap(), bytes);
        lab.host().start(id).unwrap();
        lab.host().stop(id).unwrap();
        let out = lab.export(id, "out");
        let image = vhdx::Image::open(&out.join("Virtual Hard Disks/4k.vhdx"), &Default::default()).unwrap();
        assert_eq!((image.logical_sector_size(), image.physical_sector_size()), (4096, 4096));
    }
}

/// A disk with an MBR and one partition from 1 MiB on that begins with `start`.
fn partitioned(start: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 4 * MIB as usize];
    disk[440..444].copy_from_slice(&[1, 2, 3, 4]);
    disk[446 + 4] = 7;
    disk[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&4096_u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[MIB as usize..MIB as usize + start.len()].copy_from_slice(start);
    disk
}

#[test]
fn encryption_is_noticed() {
    let mut bitlocker = vec![0; 512];
    bitlocker[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
    bitlocker[11..13].copy_from_slice(&512_u16.to_le_bytes());
    bitlocker[160..176].copy_from_slice(&uuid::uuid!("4967d63b-2e29-4ad8-8399-f6a339e3d001").to_bytes_le());
    bitlocker[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut luks = b"LUKS\xba\xbe\0\x02".to_vec();
    luks.resize(512, 0);
    for (start, id, severity) in
        [(bitlocker, finding::BITLOCKER, Severity::Warning), (luks, finding::LUKS, Severity::Info)]
    {
        let (lab, package) = lab_and_package();
        let package = package.vhdx("system.vhdx", &partitioned(&start)).write();
        let plan = lab.host().import_dry_run(&package.request()).unwrap();
        let found = finding(&plan.record.findings, id);
        assert_eq!(found.severity, severity);
        assert!(found.message.contains("partition 1 of `system.vhdx`"), "{}", found.message);
        assert_eq!(plan.verdict, Verdict::Ready);
    }
}

#[test]
fn what_is_no_disk_is_said_and_damage_is_read_only_on_request() {
    let (lab, package) = lab_and_package();
    fs::write(package.disk_dir().join("text.vhdx"), "no disk").unwrap();
    fs::write(package.disk_dir().join("empty.vhdx"), "").unwrap();
    fs::create_dir(package.disk_dir().join("dir.vhdx")).unwrap();
    let package = package.drive(r"C:\text.vhdx").drive(r"C:\empty.vhdx").drive(r"C:\dir.vhdx").write();
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    assert_eq!(
        errors(&plan.record.findings),
        [finding::DISK_UNREADABLE, finding::DISK_UNREADABLE, finding::DISK_MISSING]
    );

    // One wrong bit in the reserved part of both region tables: their checksums are wrong, their content is not.
    let (lab, package) = lab_and_package();
    let bytes = content(1, 2 * MIB);
    let package = package.vhdx("system.vhdx", &bytes).write();
    let path = package.disk_dir().join("system.vhdx");
    let mut file = fs::read(&path).unwrap();
    for table in [192 << 10, 256 << 10] {
        file[table + 60_000] ^= 1;
    }
    fs::write(&path, file).unwrap();
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    let found = finding(&plan.record.findings, finding::DISK_UNREADABLE);
    assert_eq!(found.fix.as_deref(), Some("--lenient"), "{}", found.message);
    let machine = lab.import(&ImportRequest { lenient: true, ..package.request() });
    assert_eq!(fs::read(leaf(&machine, 0)).unwrap(), bytes);
}

#[test]
fn older_disks_come_in_too() {
    let lab = Lab::new();
    let disks = [content(1, 4 * MIB), content(2, 3 * MIB)];
    let package = Package::new(lab.path("package"), Generation::One)
        .vhd("fixed.vhd", true, &disks[0])
        .vhd("dynamic.vhd", false, &disks[1])
        .write();
    let machine = lab.import(&package.request());
    for (n, bytes) in disks.iter().enumerate() {
        assert_eq!(machine.disks[n].format, machine::disk::DiskFormat::Vhd);
        assert_eq!(machine.disks[n].fixed, n == 0);
        assert_eq!(&fs::read(leaf(&machine, n)).unwrap(), bytes);
    }
}

#[test]
fn long_and_foreign_names_are_kept() {
    let (lab, package) = lab_and_package();
    let long = format!("{}.vhdx", "ü".repeat(125));
    let names = ["Диск №1 – système.vhdx", long.as_str(), "a'b & $(c) ;d.vhdx"];
    let bytes = content(1, MIB);
    let package = names.iter().fold(package, |p, name| p.vhdx(name, &bytes)).write();
    let machine = lab.import(&package.request());
    let found: Vec<_> = machine.disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(found, names);
    let out = lab.export(package.id, "out");
    for name in names {
        assert_eq!(support::read_image(&out.join("Virtual Hard Disks").join(name)), bytes);
    }
}

/// A disk with a root file system on it, in whose `/boot` a kernel's configuration says what it has.
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn linux(lab: &Lab, configurations: &[(&str, &str)]) -> Option<Vec<u8>> {
    let (root, image) = (lab.path("root"), lab.path("image"));
    fs::create_dir_all(root.join("boot")).unwrap();
    for (release, options) in configurations {
        let text = format!("CONFIG_X86_64=y\nCONFIG_BLK_DEV_SD=m\n{options}");
        fs::write(root.join(format!("boot/config-{release}")), text).unwrap();
    }
    fs::File::create(&image).unwrap().set_len(4 * MIB).unwrap();
    let mke2fs = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|p| Path::new(p).exists());
    let Some(mke2fs) = mke2fs else {
        println!("skipped: mke2fs is not installed");
        return None;
    };
    let mut command = std::process::Command::new(mke2fs);
    assert!(
        command.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&root).arg(&image).status().unwrap().success()
    );
    fs::remove_dir_all(root).unwrap();
    Some(fs::read(image).unwrap())
}

/// Debian's kernel for clouds has neither AHCI nor an Intel adapter; the stock kernel has both.
#[test]
fn hardware_is_what_the_guests_kernel_has_drivers_for() {
    use engine::{DiskBus, NicModel};
    const CLOUD: (&str, &str) = (
        "6.1.0-38-cloud-amd64",
        "CONFIG_BLK_DEV_NVME=y\nCONFIG_ATA_PIIX=m\nCONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_NET=m\nCONFIG_VIRTIO_BLK=m\n",
    );
    const STOCK: (&str, &str) = (
        "6.1.0-37-amd64",
        "CONFIG_SATA_AHCI=m\nCONFIG_ATA_PIIX=m\nCONFIG_E1000=m\nCONFIG_E1000E=m\nCONFIG_BLK_DEV_NVME=m\nCONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_NET=m\n",
    );
    let both = (Some(DiskBus::Nvme), Some(NicModel::VirtioNet));
    for (generation, kernels, expected, words) in [
        (Generation::Two, &[CLOUD][..], both, "no driver for AHCI and e1000e: it gets NVMe and virtio-net"),
        (Generation::Two, &[STOCK], (None, None), "has drivers for AHCI and e1000e"),
        (Generation::Two, &[STOCK, CLOUD], both, "it gets NVMe and virtio-net"),
        (Generation::One, &[CLOUD], (None, both.1), "no driver for e1000: it gets IDE and virtio-net"),
        (Generation::One, &[STOCK], (None, None), "has drivers for IDE and e1000"),
    ] {
        let lab = Lab::new();
        let Some(bytes) = linux(&lab, kernels) else { return };
        let package = Package::new(lab.path("package"), generation).vhdx("system.vhdx", &bytes).write();
        let plan = lab.host().import_dry_run(&package.request()).unwrap().record;
        let hardware = plan.settings.hardware;
        assert_eq!((hardware.disk_bus, hardware.nic_model), expected, "{kernels:?}");
        let told = finding(&plan.findings, finding::GUEST_KERNEL);
        assert!(
            told.message.contains(words) && told.message.contains("/boot/config-6.1.0-"),
            "{}",
            told.message
        );
        // What the user chose stays, and is said to be no good where it is none.
        let ahci = ImportRequest { disk_bus: Some(DiskBus::Ahci), ..package.request() };
        let plan = lab.host().import_dry_run(&ahci).unwrap().record;
        assert_eq!(plan.settings.hardware.disk_bus, Some(DiskBus::Ahci));
        let warned = support::has(&plan.findings, finding::GUEST_DRIVERS);
        assert_eq!(warned, kernels.contains(&CLOUD), "{:?}", plan.findings);
    }
}

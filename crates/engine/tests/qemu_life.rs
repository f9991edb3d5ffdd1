//! A guest's life around its boot: surviving us, being found again, refusals that say why. No guest system needed.

mod support;

use std::fs;
use std::sync::mpsc;

use engine::{
    Accel, AttachErrorKind, Chipset, DiskBus, DvdSpec, Engine, Firmware, GuestEvent, GuestSpec, ImageFormat,
    LayerSpec, Mac, NicBackend, NicModel, NicSpec, RunState, StartError, StartErrorKind, StoppedBy,
};
use support::{Bench, SOON, disk_spec, event, have_qemu};

#[expect(clippy::panic, reason = "a helper of tests")]
fn refused(bench: &Bench, spec: &GuestSpec) -> StartError {
    match bench.engine.start(spec, Box::new(mpsc::channel().0)) {
        Ok(_) => panic!("should be refused"),
        Err(error) => error,
    }
}

#[test]
fn a_guest_outlives_its_handle_and_is_found_again() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec(Chipset::Pc);
    // Deep enough that its sockets need a short name.
    spec.runtime_dir = bench.path("deep");
    let (guest, events) = bench.start(&spec);
    let pid = guest.pid();
    let resolved = guest.resolved().clone();
    let error = refused(&bench, &spec);
    assert_eq!(error.kind(), StartErrorKind::AlreadyRunning, "{error}");
    drop(guest);
    assert!(events.iter().all(|e| !matches!(e, GuestEvent::Stopped { .. } | GuestEvent::Died { .. })));

    let (sender, events) = mpsc::channel();
    let guest = bench.engine.attach(&spec.runtime_dir, Box::new(sender)).unwrap().expect("it still runs");
    assert_eq!(events.recv_timeout(SOON).unwrap(), GuestEvent::Started);
    assert_eq!((guest.pid(), guest.spec(), guest.resolved()), (pid, &spec, &resolved));
    guest.pause().unwrap();
    event(&events, |e| *e == GuestEvent::Paused);
    guest.reset().unwrap();
    event(&events, |e| *e == GuestEvent::Reset { by_guest: false });
    guest.power_off().unwrap();
    assert_eq!(guest.state(), RunState::Stopped);
    let last = event(&events, |e| matches!(e, GuestEvent::Stopped { .. } | GuestEvent::Died { .. }));
    assert_eq!(last, GuestEvent::Stopped { by: StoppedBy::Host });
    assert!(bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).unwrap().is_none());
    // And the kept choices start it again.
    spec.machine_version = Some(resolved.machine_version.clone());
    spec.cpu_model = Some(resolved.cpu_model.clone());
    let (guest, _events) = bench.start(&spec);
    assert_eq!(guest.resolved(), &resolved);
    guest.power_off().unwrap();
}

#[test]
fn sockets_of_a_deep_directory_work_and_a_foreign_record_is_refused() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec(Chipset::Q35);
    spec.runtime_dir = bench.path("run").join("d".repeat(100));
    spec.vnc = true;
    let (guest, _events) = bench.start(&spec);
    assert!(guest.serial_socket(0).unwrap().as_os_str().len() < 108);
    drop(guest);
    // Another guest's record over the same process.
    let record = spec.runtime_dir.join("guest.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&spec.system_uuid().to_string(), "00000000-0000-4000-8000-000000000001"))
        .unwrap();
    let error = bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).err().unwrap();
    assert_eq!(error.kind(), AttachErrorKind::WrongGuest, "{error}");
    fs::write(&record, "{").unwrap();
    let error = bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).err().unwrap();
    assert_eq!(error.kind(), AttachErrorKind::BadRecord, "{error}");
    fs::write(&record, text).unwrap();
    let guest = bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).unwrap().unwrap();
    guest.power_off().unwrap();
}

#[test]
fn what_cannot_start_says_why() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let disk = bench.path("disk.raw");
    fs::write(&disk, vec![0u8; 1 << 20]).unwrap();

    let mut spec = bench.spec(Chipset::Pc);
    spec.disks.push(disk_spec("a", DiskBus::Ide, 0, bench.path("none.raw")));
    let error = refused(&bench, &spec);
    assert_eq!(error.kind(), StartErrorKind::NotFound);
    assert!(error.to_string().contains("none.raw"), "{error}");

    spec.disks[0].layers[0].path = disk.clone();
    let mut other = spec.clone();
    other.runtime_dir = bench.path("other");
    let (guest, _events) = bench.start(&other);
    let error = refused(&bench, &spec);
    assert_eq!(error.kind(), StartErrorKind::InUse, "{error}");
    assert!(error.to_string().contains("disk.raw"), "{error}");
    guest.power_off().unwrap();

    spec.disks[0].layers[0].format = ImageFormat::Qcow2;
    let error = refused(&bench, &spec);
    assert_eq!(error.kind(), StartErrorKind::Failed);
    assert!(error.to_string().contains("qcow2"), "QEMU's own words: {error}");

    let mut old = bench.spec(Chipset::Pc);
    old.machine_version = Some("pc-i440fx-99.0".into());
    assert_eq!(refused(&bench, &old).kind(), StartErrorKind::NotInstalled);

    let mut wrong = bench.spec(Chipset::Q35);
    wrong.disks.push(disk_spec("a", DiskBus::Ide, 0, disk));
    assert_eq!(refused(&bench, &wrong).kind(), StartErrorKind::InvalidSpec);

    let mut bridge = bench.spec(Chipset::Pc);
    bridge.nics.push(NicSpec {
        id: "n".into(),
        model: NicModel::E1000,
        mac: Mac([0, 0x15, 0x5d, 0, 0, 1]),
        backend: NicBackend::Bridge { name: "slipway-none".into(), vlan: None },
        boot_index: None,
    });
    let error = refused(&bench, &bridge);
    assert_eq!(error.kind(), StartErrorKind::NoNetwork);
    assert!(error.hint().unwrap().contains("ip link add slipway-none"));

    let mut kvm = bench.spec(Chipset::Pc);
    kvm.accel = Accel::Kvm;
    if !bench.engine.probe().kvm.usable {
        let error = refused(&bench, &kvm);
        assert_eq!(error.kind(), StartErrorKind::NoAccel);
        println!("{error}");
    }
    // Nothing of all that is left behind.
    assert!(bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).unwrap().is_none());
}

#[test]
fn qemu_takes_every_bus_adapter_and_sector_size() {
    if !have_qemu() {
        return;
    }
    for chipset in [Chipset::Pc, Chipset::Q35] {
        let bench = Bench::new();
        let mut spec = bench.spec(chipset);
        spec.memory_mib = 256;
        spec.vnc = true;
        spec.balloon = true;
        spec.serial_ports = 2;
        spec.firmware = Firmware::Uefi { secure_boot: false, vars: bench.path("vars.fd") };
        let mut buses = vec![
            (DiskBus::Ahci, 0),
            (DiskBus::Ahci, 23),
            (DiskBus::Nvme, 0),
            (DiskBus::Nvme, 5),
            (DiskBus::VirtioBlk, 0),
            (DiskBus::VirtioBlk, 7),
            (DiskBus::VirtioScsi, 0),
            (DiskBus::VirtioScsi, 255),
        ];
        if chipset == Chipset::Pc {
            buses.extend([(DiskBus::Ide, 0), (DiskBus::Ide, 3)]);
        }
        for (i, (bus, slot)) in buses.into_iter().enumerate() {
            let path = bench.path(&format!("{i}, disk.raw"));
            fs::write(&path, vec![0u8; 1 << 20]).unwrap();
            let mut disk = disk_spec(&format!("disk {i}"), bus, slot, path);
            disk.physical_sector = 4096;
            if !matches!(bus, DiskBus::Ide | DiskBus::Ahci) {
                disk.logical_sector = 4096;
                disk.read_only = slot == 0;
            }
            disk.serial = Some(format!("serial, {i}"));
            disk.boot_index = Some(i as u32);
            spec.disks.push(disk);
        }
        for (i, (bus, slot)) in [(DiskBus::Ahci, 1), (DiskBus::VirtioScsi, 1)].into_iter().enumerate() {
            spec.drives.push(DvdSpec {
                id: format!("dvd {i}"),
                bus,
                slot,
                media: None,
                boot_index: Some(100 + i as u32),
            });
        }
        let models = [NicModel::E1000, NicModel::E1000e, NicModel::Rtl8139, NicModel::VirtioNet];
        for (i, model) in models.into_iter().chain(models).enumerate() {
            spec.nics.push(NicSpec {
                id: format!("nic {i}"),
                model,
                mac: Mac([0, 0x15, 0x5d, 0, 0, i as u8]),
                backend: if i < 4 { NicBackend::None } else { NicBackend::User },
                boot_index: (i == 0).then_some(200),
            });
        }
        let (guest, _events) = bench.start(&spec);
        guest.pause().unwrap();
        guest.power_off().unwrap();
    }
}

#[test]
fn chains_of_layers_keep_their_base_unlocked_for_readers() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let base = bench.path("base.raw");
    fs::write(&base, vec![7u8; 1 << 20]).unwrap();
    let overlay = bench.path("over.qcow2");
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-b", "/nonexistent/planted", "-F", "raw", "-u"])
        .arg(&overlay)
        .arg("1M")
        .status()
        .unwrap();
    assert!(made.success());
    let mut disk = disk_spec("d", DiskBus::VirtioBlk, 0, overlay);
    disk.layers[0].format = ImageFormat::Qcow2;
    disk.layers.push(LayerSpec { path: base.clone(), format: ImageFormat::Raw, read_only: true });
    let mut spec = bench.spec(Chipset::Pc);
    spec.disks.push(disk.clone());
    let (guest, _events) = bench.start(&spec);
    // A second guest over the same base, with an overlay of its own.
    let second = bench.path("second.qcow2");
    fs::copy(&disk.layers[0].path, &second).unwrap();
    let mut twin = bench.spec(Chipset::Pc);
    twin.runtime_dir = bench.path("twin");
    disk.layers[0].path = second;
    twin.disks.push(disk);
    let (other, _events) = bench.start(&twin);
    // But nobody may write the base meanwhile.
    let mut writer = bench.spec(Chipset::Pc);
    writer.runtime_dir = bench.path("writer");
    writer.disks.push(disk_spec("d", DiskBus::VirtioBlk, 0, base));
    assert_eq!(refused(&bench, &writer).kind(), StartErrorKind::InUse);
    other.power_off().unwrap();
    guest.power_off().unwrap();
}

#[test]
fn the_host_report_is_complete_and_quick_the_second_time() {
    let bench = Bench::new();
    let report = bench.engine.probe();
    for check in &report.checks {
        println!("{:18} {:?} {} | {:?}", check.id, check.verdict, check.found, check.fix);
    }
    let ids: Vec<&str> = report.checks.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, ["qemu", "qemu-img", "kvm", "uefi", "uefi-secure-boot", "tpm", "bridge"]);
    let second = std::time::Instant::now();
    assert_eq!(bench.engine.probe().kvm, report.kvm);
    assert!(second.elapsed() < SOON);
}

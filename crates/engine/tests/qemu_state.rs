//! A guest's memory in a file and back: it goes on where it was, its TPM too; a save that cannot be does not disturb it;
//! and whoever comes later finds a frozen guest and lets it go on.

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;

use engine::{
    Chipset, DiskBus, Engine, GuestErrorKind, GuestEvent, GuestSpec, ImageFormat, RunState, SaveProgress,
    StartErrorKind,
};
use support::{BOOT, Bench, Console, SOON, disk_spec, event, have_qemu, prepared};

fn all(_: SaveProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The specification with which what was saved is restored.
fn same_hardware(spec: &GuestSpec, resolved: &engine::Resolved) -> GuestSpec {
    let mut spec = spec.clone();
    spec.machine_version = Some(resolved.machine_version.clone());
    spec.cpu_model = Some(resolved.cpu_model.clone());
    spec.accel = resolved.accel;
    spec
}

/// Waits until the guest's counter has gone on by two; the last it said.
fn counted(console: &mut Console) -> u32 {
    let number = |line: &str| line.strip_prefix("COUNT ").and_then(|n| n.parse().ok());
    let mut said = || number(&console.next("COUNT ", SOON)).expect("a number");
    said();
    said()
}

#[test]
fn a_saved_guest_goes_on_where_it_was_with_its_tpm() {
    let Some(prepared) = prepared() else { return };
    let bench = Bench::new();
    let mut spec = bench.bootable(&prepared, Chipset::Q35, DiskBus::Ahci);
    bench.secure(&mut spec);
    let (guest, _events) = bench.start(&spec);
    let mut console = Console::open(&*guest);
    console.wait("GUEST-READY", BOOT);
    // A register of the TPM that no boot gives this value, and a counter that lives in the guest's memory only.
    console.send("cat /sys/class/tpm/tpm0/pcr-sha256/0 | sed 's/^/PCR /'");
    let pcr = console.wait("PCR ", SOON);
    assert!(pcr.len() > 60 && !pcr.contains("0000000000000000"), "{pcr}");
    console.send("n=0; while :; do n=$((n+1)); echo COUNT $n; usleep 100000; done");
    counted(&mut console);

    let state = bench.path("state, and more");
    let mut looks = 0;
    guest
        .save(&state, &mut |p| {
            looks += 1;
            assert!(p.done <= p.total);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(guest.state(), RunState::Frozen);
    let file = fs::metadata(&state).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600, "a memory is nobody else's to read");
    assert!(file.blocks() * 512 < 512 << 20, "pages of zeros take no room");
    // Taken back, it goes on.
    guest.thaw().unwrap();
    assert_eq!(guest.state(), RunState::Running);
    counted(&mut console);
    guest.save(&state, &mut all).unwrap();
    let last = counted_so_far(&*guest);
    let resolved = guest.resolved().clone();
    guest.power_off().unwrap();

    let (sender, events) = mpsc::channel();
    let guest = bench.engine.restore(&same_hardware(&spec, &resolved), &state, Box::new(sender)).unwrap();
    assert_eq!(guest.state(), RunState::Frozen);
    let mut console = Console::open(&*guest);
    guest.thaw().unwrap();
    event(&events, |e| *e == GuestEvent::Resumed);
    let next = console.next("COUNT ", SOON);
    assert_eq!(next, format!("COUNT {}", last + 1));
    console.send("\u{3}");
    console.send("cat /sys/class/tpm/tpm0/pcr-sha256/0 | sed 's/^/PCR /'");
    assert_eq!(console.wait("PCR ", SOON), pcr);
    guest.power_off().unwrap();
}

/// The last number that a guest which stands has counted to.
fn counted_so_far(guest: &dyn engine::Guest) -> u32 {
    let log = fs::read_to_string(guest.serial_log(0).expect("a log")).expect("readable");
    let last = log.lines().rev().find_map(|l| l.trim().strip_prefix("COUNT ")?.parse().ok());
    last.expect("it counted")
}

#[test]
fn a_guest_found_frozen_goes_on_as_it_was() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let spec = bench.spec(Chipset::Pc);
    let (guest, _events) = bench.start(&spec);
    let resolved = guest.resolved().clone();
    let state = bench.path("state");
    let again = || {
        let guest = bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).unwrap().unwrap();
        assert_eq!(guest.state(), RunState::Frozen);
        guest
    };
    guest.save(&state, &mut all).unwrap();
    drop(guest);
    let guest = again();
    guest.thaw().unwrap();
    assert_eq!(guest.state(), RunState::Running);
    guest.thaw().unwrap();
    guest.pause().unwrap();
    guest.save(&state, &mut all).unwrap();
    drop(guest);
    let guest = again();
    guest.thaw().unwrap();
    assert_eq!(guest.state(), RunState::Paused, "it was paused before");
    // QEMU itself would not save it once more.
    guest.save(&state, &mut all).unwrap();
    guest.power_off().unwrap();

    let restored = same_hardware(&spec, &resolved);
    drop(bench.engine.restore(&restored, &state, Box::new(mpsc::channel().0)).unwrap());
    let guest = again();
    guest.thaw().unwrap();
    assert_eq!(guest.state(), RunState::Running);
    guest.power_off().unwrap();
    // The state is as good as before.
    let guest = bench.engine.restore(&restored, &state, Box::new(mpsc::channel().0)).unwrap();
    guest.power_off().unwrap();
}

#[test]
fn a_save_that_cannot_be_leaves_the_guest_running() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let spec = bench.spec(Chipset::Q35);
    let (guest, _events) = bench.start(&spec);
    let refused = |state: &Path, watch: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>| {
        let error = guest.save(state, watch).unwrap_err();
        assert_eq!(guest.state(), RunState::Running, "{error}");
        assert!(!state.exists() || state.is_dir());
        error.kind()
    };
    assert_eq!(refused(&bench.path("no/where"), &mut all), GuestErrorKind::Io);
    let broken_off = refused(&bench.path("state"), &mut |_| ControlFlow::Break(()));
    assert_eq!(broken_off, GuestErrorKind::Cancelled);
    guest.power_off().unwrap();
    assert_eq!(guest.save(&bench.path("state"), &mut all).unwrap_err().kind(), GuestErrorKind::Gone);

    for (bus, format) in [(DiskBus::Nvme, ImageFormat::Raw), (DiskBus::Ahci, ImageFormat::Vhdx)] {
        let disk = bench.path(&format!("{bus:?}"));
        let name = if format == ImageFormat::Vhdx { "vhdx" } else { "raw" };
        let mut make = std::process::Command::new("qemu-img");
        make.args(["create", "-q", "-f", name]).arg(&disk).arg("8M");
        assert!(make.status().unwrap().success());
        let mut spec = bench.spec(Chipset::Q35);
        spec.disks.push(disk_spec("d", bus, 0, disk));
        spec.disks[0].layers[0].format = format;
        let (guest, _events) = bench.start(&spec);
        let error = guest.can_save().unwrap_err();
        assert_eq!(error.kind(), GuestErrorKind::Unsupported);
        assert!(error.hint().is_some(), "{error}");
        assert_eq!(guest.save(&bench.path("state"), &mut all).unwrap_err().kind(), error.kind());
        assert_eq!(guest.state(), RunState::Running);
        guest.power_off().unwrap();
    }
}

#[test]
fn a_state_that_cannot_be_loaded_is_named_as_such() {
    if !have_qemu() {
        return;
    }
    let bench = Bench::new();
    let spec = bench.spec(Chipset::Pc);
    let (guest, _events) = bench.start(&spec);
    let resolved = guest.resolved().clone();
    let state = bench.path("state");
    guest.save(&state, &mut all).unwrap();
    guest.power_off().unwrap();
    let restore = |spec: &GuestSpec, state: &Path| {
        let error = bench.engine.restore(spec, state, Box::new(mpsc::channel().0)).err().expect("it fails");
        assert!(bench.engine.attach(&spec.runtime_dir, Box::new(mpsc::channel().0)).unwrap().is_none());
        error
    };
    let right = same_hardware(&spec, &resolved);
    assert_eq!(restore(&right, &bench.path("none")).kind(), StartErrorKind::BadState);
    let whole = fs::read(&state).unwrap();
    fs::write(bench.path("short"), &whole[..whole.len() / 2]).unwrap();
    fs::write(bench.path("other"), "not a state").unwrap();
    for name in ["short", "other"] {
        let error = restore(&right, &bench.path(name));
        assert_eq!(error.kind(), StartErrorKind::BadState, "{name}: {error}");
        assert!(!error.to_string().contains("qemu-system"), "{error}");
    }
    let mut newer = right.clone();
    newer.chipset = Chipset::Q35;
    newer.machine_version = None;
    let error = restore(&newer, &state);
    assert!(error.to_string().contains("Machine type"), "QEMU's own words: {error}");
    let guest = bench.engine.restore(&right, &state, Box::new(mpsc::channel().0)).unwrap();
    guest.power_off().unwrap();
}

//! Boot entries that we write are what OVMF boots from, and what an independent reader reads.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail and talk like this")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use engine::varstore::boot::{BootEntry, ForeignVariable, PartitionIdentity, Place, portable_entries};
use engine::varstore::{GLOBAL, VarStore};
use engine::{Chipset, DiskBus, Engine, Firmware};
use support::{BOOT, Bench, Console, disk_spec, prepared};

const LOADER: &str = r"\EFI\debian\shimx64.efi";

fn template(bench: &Bench, secure_boot: bool) -> VarStore {
    let report = bench.engine.probe();
    let found = report.firmware.iter().find(|f| f.secure_boot == secure_boot).unwrap();
    VarStore::read(&found.vars).unwrap()
}

/// Boots `disk`, which no firmware finds by itself, with the entries in `store`; what the store holds afterwards.
fn boots(bench: &Bench, disk: PathBuf, store: &VarStore, secure_boot: bool) -> VarStore {
    let vars = bench.path("vars.fd");
    store.write(&vars).unwrap();
    let mut spec = bench.spec(Chipset::Q35);
    spec.memory_mib = 512;
    spec.firmware = Firmware::Uefi { secure_boot, vars: vars.clone() };
    spec.disks.push(disk_spec("boot", DiskBus::Ahci, 0, disk));
    spec.disks[0].boot_index = Some(0);
    let started = Instant::now();
    let (guest, _events) = bench.start(&spec);
    let mut console = Console::open(guest.as_ref());
    // GRUB leaves colours in front of the guest's first line; the shell's greeting after it begins one.
    console.wait("Enter 'help'", BOOT);
    let log = String::from_utf8_lossy(&std::fs::read(guest.serial_log(0).unwrap()).unwrap()).into_owned();
    let ready = log.lines().find(|l| l.contains("GUEST-READY")).unwrap();
    println!("{ready} after {:?}", started.elapsed());
    assert!(ready.contains("efi=1"), "{ready}");
    assert!(ready.contains(if secure_boot { "sb=1" } else { "sb=0" }), "{ready}");
    // The firmware says which entry it takes, the first time right.
    let taken = log.lines().find_map(|l| l.split_once("BdsDxe: starting Boot")).unwrap().1;
    let current = u16::from_str_radix(&taken[..4], 16).unwrap();
    guest.power_off().unwrap();
    let after = VarStore::read(&vars).unwrap();
    let entry = after.boot_entries().into_iter().find(|(n, _)| *n == current).unwrap().1;
    assert_eq!(entry.loader.as_deref(), Some(LOADER), "entry {current} was booted");
    after
}

#[test]
fn a_loader_only_in_its_own_directory_boots_with_secure_boot() {
    let Some(prepared) = prepared() else { return };
    let image = prepared.join("boot-debian.raw");
    if !image.is_file() {
        println!("skipped: no boot-debian.raw in {}", prepared.display());
        return;
    }
    let bench = Bench::new();
    let disk = bench.path("boot.raw");
    std::fs::copy(image, &disk).unwrap();
    // As Hyper-V keeps it: behind the devices of the old machine, beside entries that lead nowhere here.
    let mut hyper_v = template(&bench, true);
    hyper_v.add_boot_entry(&BootEntry {
        description: "debian".into(),
        partition: 1,
        start_sector: 2048,
        sectors: 192_512,
        identity: PartitionIdentity::Gpt("51ab0001-0000-4000-8000-000000000002".parse().unwrap()),
        loader: LOADER.into(),
    });
    let number = hyper_v.boot_order()[0];
    let option = hyper_v.get(GLOBAL, &format!("Boot{number:04X}")).unwrap().data.clone();
    let path_at = 6 + 2 * ("debian".len() + 1);
    let old_way = [[1, 4, 20, 0].as_slice(), &[0x33; 16], &[3, 2, 8, 0, 0, 0, 0, 0]].concat();
    let mut long = option.clone();
    long.splice(path_at..path_at, old_way.iter().copied());
    let length = u16::from_le_bytes([option[4], option[5]]) + old_way.len() as u16;
    long[4..6].copy_from_slice(&length.to_le_bytes());
    let network =
        [&[1, 0, 0, 0, 10, 0, b'n', 0, 0, 0], [3, 11, 6, 0, 1, 2].as_slice(), &[0x7f, 0xff, 4, 0]].concat();
    let foreign = |name, data| ForeignVariable { vendor: GLOBAL, name, data };
    let carried = portable_entries(&[
        foreign("Boot0001", &network),
        foreign("Boot0005", &long),
        foreign("BootOrder", &[1, 0, 5, 0]),
    ]);
    assert_eq!(carried, [option]);

    let mut store = template(&bench, true);
    let number = store.add_load_option(carried[0].clone());
    let after = boots(&bench, disk, &store, true);
    assert_eq!(
        after.boot_order().first(),
        Some(&number),
        "the firmware keeps its place: {:?}",
        after.boot_entries()
    );
    // Records of the firmware's own hand, deleted ones among them, can be changed and read again.
    let mut again = after.clone();
    again.place(number, Place::Last);
    let again = VarStore::parse(again.to_bytes().unwrap()).unwrap();
    assert_eq!(again.boot_order().last(), Some(&number));
    assert_eq!(again.variables().len(), after.variables().len());
}

#[test]
fn a_loader_on_an_mbr_disk_boots() {
    let Some(prepared) = prepared() else { return };
    let image = prepared.join("boot-plain.raw");
    if !image.is_file() || !Path::new("/usr/bin/mmove").exists() {
        println!("skipped: no boot-plain.raw in {}, or mtools is not installed", prepared.display());
        return;
    }
    let bench = Bench::new();
    let disk = bench.path("boot.raw");
    std::fs::copy(image, &disk).unwrap();
    let mtools = |program: &str, arguments: &[&str]| {
        let volume = format!("{}@@1M", disk.display());
        let status = Command::new(program)
            .env("MTOOLS_SKIP_CHECK", "1")
            .args(["-i", &volume])
            .args(arguments)
            .status();
        assert!(status.unwrap().success(), "{program} {arguments:?}");
    };
    mtools("mren", &["::/EFI/BOOT/BOOTX64.EFI", "shimx64.efi"]);
    mtools("mmove", &["::/EFI/BOOT/shimx64.efi", "::/EFI/BOOT/grubx64.efi", "::/EFI/debian"]);
    mtools("mrd", &["::/EFI/BOOT"]);
    let mut store = template(&bench, false);
    store.add_boot_entry(&BootEntry {
        description: "debian".into(),
        partition: 1,
        start_sector: 2048,
        sectors: 192_512,
        identity: PartitionIdentity::Mbr(0x51ab_0001),
        loader: LOADER.into(),
    });
    boots(&bench, disk, &store, false);
}

/// `virt-fw-vars`, an independent reader and writer of the same files.
fn oracle() -> Option<PathBuf> {
    let venv =
        std::env::var_os("SLIPWAY_PYTHON").map(|python| PathBuf::from(python).with_file_name("virt-fw-vars"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = venv
        .into_iter()
        .chain(std::env::split_paths(&path).map(|d| d.join("virt-fw-vars")))
        .find(|p| p.is_file());
    if found.is_none() {
        println!("skipped: virt-fw-vars (PyPI: virt-firmware) is not installed");
    }
    found
}

#[test]
fn an_independent_reader_agrees() {
    let Some(oracle) = oracle() else { return };
    let bench = Bench::new();
    for secure_boot in [false, true] {
        let mut store = template(&bench, secure_boot);
        store.add_boot_entry(&BootEntry {
            description: "Grüße".into(),
            partition: 3,
            start_sector: 2048,
            sectors: 192_512,
            identity: PartitionIdentity::Gpt("51ab0001-0000-4000-8000-000000000002".parse().unwrap()),
            loader: LOADER.into(),
        });
        let (vars, json) = (bench.path("vars.fd"), bench.path("vars.json"));
        store.write(&vars).unwrap();
        let output =
            Command::new(&oracle).arg("-i").arg(&vars).arg("--output-json").arg(&json).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        let mut theirs: Vec<(String, String, u64, String)> = said["variables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| {
                let text = |key: &str| v[key].as_str().unwrap().to_owned();
                (text("guid"), text("name"), v["attr"].as_u64().unwrap(), text("data"))
            })
            .collect();
        theirs.sort();
        let hex = |data: &[u8]| data.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut ours: Vec<_> = store
            .variables()
            .iter()
            .map(|v| (v.vendor.to_string(), v.name.clone(), u64::from(v.attributes), hex(&v.data)))
            .collect();
        ours.sort();
        assert_eq!(ours, theirs);

        let output =
            Command::new(&oracle).arg("-i").arg(&vars).args(["--print", "--verbose"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = r#"title="Grüße" devpath=Partition(nr=3)/FilePath(\EFI\debian\shimx64.efi)"#;
        assert!(text.contains(line), "{text}");

        // And the other way round: what it wrote, we read.
        let theirs = bench.path("theirs.fd");
        let output = Command::new(&oracle)
            .arg("-i")
            .arg(&vars)
            .args(["--append-boot-filepath", r"\EFI\other\x.efi", "-o"])
            .arg(&theirs)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = VarStore::read(&theirs).unwrap();
        assert_eq!(read.boot_entries().len(), store.boot_entries().len() + 1, "{:?}", read.boot_entries());
        assert_eq!(read.boot_order().len(), store.boot_order().len() + 1);
    }
}

//! An import as its user sees it: what the report says of settings, what each option does, and that looking changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;

use machine::Reason;
use machine::define::{DefineRequest, NewDisk};
use machine::finding::{self, Severity, Verdict};
use machine::planned::{ImportRequest, PlannedEdit};
use machine::report::HostFacts;
use machine::settings::{Generation, Media};
use machine::switch::{SwitchKind, SwitchTarget};
use support::{Lab, MIB, Package, blank, content, errors, finding, has, import_of, leaf, listing};
use uuid::Uuid;

fn lab_and_package() -> (Lab, Package) {
    let lab = Lab::new();
    let package = Package::new(lab.path("package"), Generation::Two);
    (lab, package)
}

fn to(target: &str, vlan: Option<u16>) -> SwitchTarget {
    SwitchTarget { target: target.into(), vlan }
}

#[test]
fn a_copy_is_complete_and_needs_the_package_no_more() {
    let (lab, package) = lab_and_package();
    let disks = [content(1, 4 * MIB), content(2, 2 * MIB)];
    let package = package.vhdx("system.vhdx", &disks[0]).vhdx("data.vhdx", &disks[1]).write();
    let machine = lab.import(&package.request());
    fs::remove_dir_all(&package.dir).unwrap();
    assert_eq!(machine.record.id, package.id);
    assert_eq!(machine.record.settings.name, "Web server");
    let names: Vec<_> = machine.disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["system.vhdx", "data.vhdx"]);
    for (n, bytes) in disks.iter().enumerate() {
        assert!(leaf(&machine, n).starts_with(&machine.record.home));
        assert_eq!(&fs::read(leaf(&machine, n)).unwrap(), bytes);
    }
    lab.host().start(package.id).unwrap();
    assert!(lab.host().planned().unwrap().is_empty());
}

#[test]
fn disks_go_where_they_are_sent_and_nothing_there_is_overwritten() {
    let (lab, package) = lab_and_package();
    let bytes = content(1, 2 * MIB);
    let package = package.vhdx("system.vhdx", &bytes).write();
    let request = ImportRequest { to: Some(lab.path("disks")), ..package.request() };
    let machine = lab.import(&request);
    assert_eq!(leaf(&machine, 0), lab.path("disks/system.raw"));
    assert_eq!(fs::read(leaf(&machine, 0)).unwrap(), bytes);

    let again = ImportRequest { new_id: true, ..request };
    let planned = lab.host().import(&again).unwrap();
    let job = lab.host().realize(planned.record.id, "test").unwrap();
    let status = lab.job(job);
    let error = status.error.unwrap();
    assert_eq!(error.id, Reason::AlreadyExists.id());
    assert!(error.message.contains("system.raw") && error.hint.unwrap().contains("--to"));
    assert_eq!(fs::read(leaf(&machine, 0)).unwrap(), bytes);
    assert_eq!(lab.host().planned().unwrap().len(), 1);
}

#[test]
fn two_disks_of_one_name_stay_apart() {
    let (lab, package) = lab_and_package();
    let disks = [content(1, 2 * MIB), content(2, 2 * MIB)];
    for (dir, bytes) in ["a", "b"].iter().zip(&disks) {
        fs::create_dir(package.disk_dir().join(dir)).unwrap();
        support::make_vhdx(&package.disk_dir().join(dir).join("d.vhdx"), support::DYNAMIC, bytes);
    }
    let package = package.drive(r"D:\a\d.vhdx").drive(r"D:\b\D.VHDX").write();
    let machine = lab.import(&package.request());
    for (n, bytes) in disks.iter().enumerate() {
        assert_eq!(&fs::read(leaf(&machine, n)).unwrap(), bytes, "disk {n}");
    }
}

#[test]
fn id_and_name_can_be_others() {
    let (lab, package) = lab_and_package();
    let package = package.vhdx("system.vhdx", &content(1, MIB)).write();
    let first = lab.import(&package.request());
    let planned = lab.host().import(&package.request()).unwrap();
    let duplicate = finding(&planned.record.findings, finding::DUPLICATE_ID);
    assert_eq!(duplicate.fix.as_deref(), Some("--new-id"));
    assert_eq!(planned.verdict, Verdict::Fixable);
    let refused = lab.host().realize(planned.record.id, "test").unwrap_err();
    assert_eq!(refused.reason(), Reason::NotCompatible);
    assert!(refused.hint_text().unwrap().contains("--new-id"));
    // Fixed in place, and under another name.
    let edit = PlannedEdit { new_id: Some(true), name: Some("second".into()), ..PlannedEdit::default() };
    let planned = lab.host().edit_planned(planned.record.id, &edit).unwrap();
    assert_eq!(planned.verdict, Verdict::Ready);
    let id = planned.record.id;
    assert_ne!(id, package.id);
    let again = lab.host().validate_planned(id).unwrap();
    assert_eq!(again.record.id, id, "looking again mints no other id");
    assert!(lab.job(lab.host().realize(id, "test").unwrap()).state.is_success());
    let second = lab.host().machine(id).unwrap();
    assert_eq!(second.record.settings.name, "second");
    assert_ne!(leaf(&first, 0), leaf(&second, 0));
    assert_eq!(lab.host().machines().unwrap().len(), 2);
}

#[test]
fn an_import_with_an_id_of_its_own_can_be_asked_for_again() {
    let (lab, package) = lab_and_package();
    let package = package.vhdx("system.vhdx", &content(1, MIB)).write();
    let id = Uuid::from_u128(7);
    let request = ImportRequest { id: Some(id), ..package.request() };
    let planned = lab.host().import(&request).unwrap();
    assert_eq!((planned.record.id, planned.record.source_id), (id, package.id));
    assert_eq!(lab.host().import(&request).unwrap(), planned, "the answer may have got lost");
    let other = ImportRequest { name: Some("other".into()), ..request.clone() };
    assert_eq!(lab.host().import(&other).unwrap_err().reason(), Reason::AlreadyExists);
    let job = lab.host().realize(id, "test").unwrap();
    assert!(lab.job(job).state.is_success());
    let again = lab.host().import(&request).unwrap();
    assert_eq!(errors(&again.record.findings), [finding::DUPLICATE_ID], "there is one machine");
    let edit = PlannedEdit { new_id: Some(true), ..PlannedEdit::default() };
    let renewed = lab.host().edit_planned(id, &edit).unwrap();
    assert_ne!(renewed.record.id, id);
    assert_eq!(renewed.verdict, Verdict::Ready);
}

#[test]
fn a_name_that_no_machine_can_have_is_a_finding() {
    let (lab, package) = lab_and_package();
    let package = package.write();
    for name in ["", " ", "a\nb", &"x".repeat(241)] {
        let request = ImportRequest { name: Some(name.to_owned()), ..package.request() };
        let planned = lab.host().import_dry_run(&request).unwrap();
        assert_eq!(errors(&planned.record.findings), [finding::SETTING_INVALID], "{name:?}");
        let found = finding(&planned.record.findings, finding::SETTING_INVALID);
        assert_eq!(found.fix.as_deref(), Some("--name NAME"));
    }
}

#[test]
fn adapters_are_plugged_in_as_told_and_never_silently_elsewhere() {
    let (lab, package) = lab_and_package();
    let package = package.adapter("Virtual External Switch").adapter("").write();
    let look = |request| lab.host().import_dry_run(&request).unwrap().record;

    let plain = look(package.request());
    let missing = finding(&plain.findings, finding::SWITCH_NOT_FOUND);
    assert_eq!((missing.severity, missing.hyperv_id), (Severity::Error, Some(33012)));
    assert!(missing.message.contains("Virtual External Switch"));
    let fix = missing.fix.as_deref().unwrap();
    assert_eq!(fix, "--switch 'Virtual External Switch=nat'");
    assert!(plain.settings.adapters.iter().all(|a| a.switch.is_none()));

    let disconnected = look(ImportRequest { disconnected: true, ..package.request() });
    assert_eq!(errors(&disconnected.findings), Vec::<&str>::new());
    assert!(disconnected.settings.adapters.iter().all(|a| a.switch.is_none()));

    let mut mapped = package.request();
    mapped.switches.insert("Virtual External Switch".into(), to("br0", Some(42)));
    let bridged = look(mapped.clone());
    assert_eq!(errors(&bridged.findings), Vec::<&str>::new());
    let adapter = &bridged.settings.adapters[0];
    assert_eq!((adapter.switch.as_deref(), adapter.vlan), (Some("br0"), Some(42)));
    assert_eq!(bridged.settings.adapters[1].switch, None, "one that was not plugged in stays so");
    assert_eq!(bridged.new_switches.len(), 1);
    assert_eq!(lab.host().switches().unwrap().len(), 1, "a look makes no switch");

    let mut nowhere = package.request();
    nowhere.switches.insert("Virtual External Switch".into(), to("br7", None));
    let nowhere = look(nowhere);
    let missing = finding(&nowhere.findings, finding::SWITCH_NOT_FOUND);
    assert!(missing.message.contains("br7"));
    assert_eq!(missing.hyperv_id, Some(33012));
    assert_eq!(nowhere.settings.adapters[0].switch, None);

    // Realized, the bridge is a switch, once, and the guest's adapter is on it.
    let machine = lab.import(&mapped);
    let other = lab.import(&ImportRequest { new_id: true, ..mapped });
    let bridges: Vec<_> = lab.host().switches().unwrap().into_iter().filter(|s| s.name == "br0").collect();
    assert_eq!(bridges.len(), 1);
    assert_eq!(bridges[0].kind, SwitchKind::External { bridge: "br0".into() });
    assert_ne!(machine.macs, other.macs, "a new id means new addresses");
}

#[test]
fn a_host_can_know_names_of_other_hosts_switches() {
    let (lab, package) = lab_and_package();
    let package = package.adapter("LAN 1").adapter("Default Switch").write();
    lab.host().create_switch("office", SwitchKind::Private).unwrap();
    lab.host().map_switch("office", "LAN 1", Some(7)).unwrap();
    let machine = lab.import(&package.request());
    let adapters = &machine.record.settings.adapters;
    assert_eq!((adapters[0].switch.as_deref(), adapters[0].vlan), (Some("office"), Some(7)));
    assert_eq!(adapters[1].switch.as_deref(), Some("nat"));
    let refused = lab.host().delete_switch("office").unwrap_err();
    assert_eq!(refused.reason(), Reason::InUse);
}

#[test]
fn the_default_switch_is_nat_under_both_its_names() {
    for name in ["Default Switch", "default switch", "C08CB7B8-9B3C-408E-8E30-5E16A3AEB444"] {
        let (lab, package) = lab_and_package();
        let package = package.adapter(name).write();
        let plan = lab.host().import_dry_run(&package.request()).unwrap();
        let found = finding(&plan.record.findings, finding::DEFAULT_SWITCH);
        assert_eq!(found.severity, Severity::Info);
        assert_eq!(plan.record.settings.adapters[0].switch.as_deref(), Some("nat"));
    }
}

#[test]
fn what_the_host_cannot_give_is_said_with_the_fix() {
    let facts = HostFacts { processors: 2, memory_mib: 2048, uefi: false, tpm: false, bridges: vec![] };
    let lab = Lab::with(facts);
    let package = Package::new(lab.path("package"), Generation::Two)
        .settings(|s| {
            s.processors.count = 4;
            s.memory.startup_mib = 4096;
        })
        .write();
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    let found = &plan.record.findings;
    assert_eq!(finding(found, finding::PROCESSORS_BEYOND_HOST).fix.as_deref(), Some("--processors 2"));
    assert_eq!(finding(found, finding::MEMORY_BEYOND_HOST).fix.as_deref(), Some("--memory 1024"));
    assert_eq!(finding(found, finding::FIRMWARE_MISSING).fix.as_deref(), Some("apt-get install ovmf"));
    assert_eq!(plan.verdict, Verdict::Fixable);
    let request = ImportRequest { processors: Some(2), memory_mib: Some(1024), ..package.request() };
    let plan = lab.host().import_dry_run(&request).unwrap();
    assert_eq!(errors(&plan.record.findings), [finding::FIRMWARE_MISSING]);
    assert_eq!(plan.record.settings.processors.count, 2);
}

#[test]
fn saved_memory_is_given_up_only_on_request_and_does_not_come_back() {
    let (lab, mut package) = lab_and_package();
    let mut state = vmcx::empty_runtime_state(0x0900);
    state.set("savedstate/type", "Normal").unwrap();
    package.runtime_state = vmcx::write_container(&state).unwrap();
    let package = package.set("savedstate/type", "Normal").vhdx("system.vhdx", &content(1, MIB)).write();
    let plan = lab.host().import_dry_run(&package.request()).unwrap();
    let found = finding(&plan.record.findings, finding::SAVED_STATE);
    assert_eq!((found.severity, found.fix.as_deref()), (Severity::Error, Some("--discard-saved-state")));
    let request = ImportRequest { discard_saved_state: true, ..package.request() };
    let machine = lab.import(&request);
    assert_eq!(machine.record.origin.unwrap().runtime_state, None);
    lab.host().start(package.id).unwrap();
    lab.host().stop(package.id).unwrap();
    let out = lab.export(package.id, "out");
    let back = ImportRequest { new_id: true, ..import_of(out) };
    let plan = lab.host().import_dry_run(&back).unwrap();
    assert!(!has(&plan.record.findings, finding::SAVED_STATE), "{:?}", plan.record.findings);
}

#[test]
fn a_look_writes_nothing_anywhere() {
    let (lab, package) = lab_and_package();
    let package = package.vhdx("system.vhdx", &content(1, 2 * MIB)).adapter("x").write();
    let (before, revision) = (listing(lab.root.path()), lab.revision());
    lab.host().import_dry_run(&package.request()).unwrap();
    lab.host().look(&package.request()).unwrap();
    assert_eq!(listing(lab.root.path()), before);
    assert_eq!(lab.revision(), revision);
    assert!(lab.host().planned().unwrap().is_empty());
}

#[test]
fn a_planned_machine_is_kept_edited_looked_at_again_and_given_up() {
    let (mut lab, package) = lab_and_package();
    let package = package.vhdx("system.vhdx", &content(1, MIB)).adapter("LAN").write();
    let planned = lab.host().import(&package.request()).unwrap();
    assert_eq!(planned.verdict, Verdict::Fixable);
    let id = planned.record.id;
    let twice = lab.host().import(&package.request()).unwrap_err();
    assert_eq!(twice.reason(), Reason::AlreadyExists);
    assert!(twice.hint_text().unwrap().contains("--new-id"));

    lab.reopen();
    assert_eq!(lab.host().planned_machine(id).unwrap(), planned);
    assert_eq!(lab.host().resolve_planned("web").unwrap(), id);
    let mut edit = PlannedEdit { processors: Some(3), ..PlannedEdit::default() };
    edit.switches.insert("LAN".into(), to("nat", None));
    let edited = lab.host().edit_planned(id, &edit).unwrap();
    assert_eq!(edited.verdict, Verdict::Ready);
    assert_eq!(edited.record.settings.processors.count, 3);
    assert_eq!(edited.record.created, planned.record.created);

    // The host or the package changes: looking again tells.
    fs::remove_file(package.disk_dir().join("system.vhdx")).unwrap();
    let again = lab.host().validate_planned(id).unwrap();
    assert_eq!(errors(&again.record.findings), [finding::DISK_MISSING]);
    assert_eq!(again.record.settings.processors.count, 3, "edits are kept");
    assert_eq!(lab.host().realize(id, "test").unwrap_err().reason(), Reason::NotCompatible);

    let before = listing(&package.dir);
    lab.host().abandon_planned(id).unwrap();
    assert_eq!(lab.host().planned_machine(id).unwrap_err().reason(), Reason::NotFound);
    assert_eq!(lab.host().abandon_planned(id).unwrap_err().reason(), Reason::NotFound);
    assert_eq!(listing(&package.dir), before);
}

#[test]
fn an_edit_takes_no_other_plans_place() {
    let (lab, package) = lab_and_package();
    let package = package.write();
    let first = lab.host().import(&package.request()).unwrap();
    let request = ImportRequest { new_id: true, name: Some("b".into()), ..package.request() };
    let second = lab.host().import(&request).unwrap();
    let edit = PlannedEdit { new_id: Some(false), ..PlannedEdit::default() };
    let refused = lab.host().edit_planned(second.record.id, &edit).unwrap_err();
    assert_eq!(refused.reason(), Reason::AlreadyExists);
    assert_eq!(lab.host().planned_machine(package.id).unwrap(), first);
    assert_eq!(lab.host().planned_machine(second.record.id).unwrap(), second);
}

#[test]
fn a_configuration_that_changed_since_is_taken_as_it_is_now() {
    let (lab, package) = lab_and_package();
    let package = package.write();
    let id = lab.host().import(&package.request()).unwrap().record.id;
    let package = package.set("settings/processors/count", 5).write();
    let now = fs::read(package.member("vmcx")).unwrap();
    assert!(lab.job(lab.host().realize(id, "test").unwrap()).state.is_success());
    assert_eq!(lab.host().machine(id).unwrap().record.settings.processors.count, 5);
    let out = lab.export(id, "out");
    assert_eq!(fs::read(support::member(&out, id, "vmcx")).unwrap(), now);
}

#[test]
fn drives_without_a_file_are_left_out_and_leave_again() {
    for generation in [Generation::One, Generation::Two] {
        let lab = Lab::new();
        let mut package = Package::new(lab.path("package"), generation).drive("");
        package.plug(Media::Dvd { image: None });
        let package = package
            .tree(|t| {
                let dvd: Vec<_> = t
                    .walk()
                    .filter(|(_, e)| {
                        e.name == "type" && e.value.as_text().is_some_and(|v| v.to_string_lossy() == "ISO")
                    })
                    .map(|(path, _)| path.replace("/type", "/pathname"))
                    .collect();
                t.set(&dvd[0], r"C:\iso\setup.iso").unwrap();
            })
            .write();
        let machine = lab.import(&package.request());
        assert!(machine.disks.is_empty());
        lab.host().start(package.id).unwrap();
        lab.host().stop(package.id).unwrap();
        let out = lab.export(package.id, "out");
        let bytes = |dir| fs::read(support::member(dir, package.id, "vmcx")).unwrap();
        assert_eq!(bytes(&out), bytes(&package.dir));
    }
}

#[test]
fn what_is_no_package_is_said_with_a_way_out() {
    let lab = Lab::new();
    let package =
        Package::new(lab.path("above/package"), Generation::Two).vhdx("d.vhdx", &content(1, MIB)).write();
    fs::create_dir(lab.path("empty")).unwrap();
    fs::write(lab.path("garbage.vmcx"), [7; 5000]).unwrap();
    let cases = [
        (lab.path("nothing"), Reason::NotFound),
        (lab.path("empty"), Reason::BadPackage),
        (lab.path("above"), Reason::BadPackage),
        (package.disk_dir().join("d.vhdx"), Reason::BadPackage),
        (package.member("VMRS"), Reason::BadPackage),
        (lab.path("garbage.vmcx"), Reason::BadPackage),
    ];
    for (path, reason) in cases {
        let error = lab.host().import(&import_of(&path)).unwrap_err();
        assert_eq!(error.reason(), reason, "{}: {}", path.display(), error.chain());
        assert!(error.chain().contains(&*path.to_string_lossy()), "{}", error.chain());
        assert!(error.hint_text().is_some() || path.ends_with("nothing") || path.ends_with("garbage.vmcx"));
    }
    assert!(lab.host().planned().unwrap().is_empty());
}

#[test]
fn a_machine_of_the_same_id_is_never_harmed() {
    let (lab, package) = lab_and_package();
    let bytes = content(1, 2 * MIB);
    let package = package.vhdx("system.vhdx", &bytes).write();
    let machine = lab.import(&package.request());
    let kept = lab.host().delete(machine.record.id, true).unwrap();
    assert_eq!(kept, [leaf(&machine, 0)]);
    // Imported again, defined again, in vain and for good: the disk that was kept stays as it is.
    fs::write(&kept[0], b"kept").unwrap();
    let again = lab.import(&package.request());
    assert_eq!(fs::read(leaf(&again, 0)).unwrap(), bytes);
    lab.host().delete(again.record.id, false).unwrap();
    let bad = vec![NewDisk::Empty { size: 1, sector: 0 }];
    let define = |disks| {
        let request = blank("n", Generation::Two);
        lab.host().define(&DefineRequest { id: Some(package.id), disks, ..request })
    };
    assert_eq!(define(bad).unwrap_err().reason(), Reason::InvalidArgument);
    define(vec![]).unwrap();
    lab.host().delete(package.id, false).unwrap();
    assert_eq!(fs::read(&kept[0]).unwrap(), b"kept");
    assert_eq!(support::files(&lab.path("data/machines")).len(), 1);
}

#[test]
fn a_machine_defined_meanwhile_stops_the_import_and_keeps_its_disks() {
    let (lab, package) = lab_and_package();
    let package = package.vhdx("system.vhdx", &content(1, MIB)).write();
    let planned = lab.host().import(&package.request()).unwrap();
    let disks = vec![NewDisk::Empty { size: MIB, sector: 0 }];
    let request = DefineRequest { id: Some(package.id), disks, ..blank("first", Generation::Two) };
    let machine = lab.host().define(&request).unwrap();
    let refused = lab.host().realize(planned.record.id, "test").unwrap_err();
    assert_eq!(refused.reason(), Reason::NotCompatible);
    assert!(leaf(&machine, 0).exists());
    assert_eq!(lab.host().machine(Uuid::nil()).unwrap_err().reason(), Reason::NotFound);
}

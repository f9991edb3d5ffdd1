//! A machine's typed settings out of and into Hyper-V's configuration tree.
//!
//! [`read`] takes from the tree what [`crate::settings`] types; [`apply`] writes into a tree only what changed between
//! two settings, so that a machine that came from Hyper-V and was not changed goes out with the very same tree, keys we
//! do not understand included. [`fresh`] makes the tree of a machine defined here, shaped like a real one (configuration
//! version 9.0, Windows 10/Server 2019). Parsing the container is `vmcx`'s part; finding the files it names,
//! [`crate::import`]'s.

mod fresh;
mod read;
mod write;

pub use fresh::fresh;
pub use read::{Configuration, ConfiguredDrive, ReadError, SavedState, read};
pub use write::{ApplyError, Identity, apply};

/// Device ids that the rest of the domain needs.
pub(crate) mod device_ids {
    pub(crate) use super::device::IDE;
}

/// Device type ids of a configuration's manifest and device nodes (formats.md §b; every one seen in a real file).
pub(crate) mod device {
    use uuid::{Uuid, uuid};

    /// IDE controller; the instance id is the same.
    pub(crate) const IDE: Uuid = uuid!("83f8638b-8dca-4152-9eda-2ca8b33039b4");
    /// Synthetic SCSI controller; random instance.
    pub(crate) const SCSI: Uuid = uuid!("d422512d-2bf2-4752-809d-7b82b5fcb1b4");
    /// Diskette controller.
    pub(crate) const FLOPPY: Uuid = uuid!("8f0d2762-0b00-4e04-af4f-19010527cb93");
    /// Synthetic network adapter; random instance.
    pub(crate) const ADAPTER: Uuid = uuid!("2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778");
    /// Firmware.
    pub(crate) const BIOS: Uuid = uuid!("ac6b8dc1-3257-4a70-b1b2-a9c9215659ad");
    /// Guest runtime state: names the VMGS.
    pub(crate) const GUEST_STATE: Uuid = uuid!("917bd8cb-3bb6-4124-9383-b7d21ac07f79");
    /// Virtual TPM.
    pub(crate) const TPM: Uuid = uuid!("736e6aa9-a3f8-49c0-9550-a963214d259a");

    /// The node name of a device instance: `_<lower-case guid>_`.
    pub(crate) fn node(instance: Uuid) -> String {
        format!("_{}_", instance.hyphenated())
    }

    /// The instance id of a device node, if `name` is one.
    pub(crate) fn instance(name: &str) -> Option<Uuid> {
        name.strip_prefix('_')?.strip_suffix('_').and_then(|g| Uuid::try_parse(g).ok())
    }
}

/// The feature id of a switch port's VLAN settings, whose binary data is not public.
pub(crate) const VLAN_FEATURE: &str = "952C5004-4465-451C-8CB8-FA9AB382B773";

/// What a port is called that nobody gave a name, in every real file.
pub const PORT_NAME: &str = "Dynamic Ethernet Switch Port";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use uuid::Uuid;
    use vmcx::Tree;

    use super::*;
    use crate::settings::{ControllerKind, Generation, Media, Settings};

    fn sample(name: &str) -> Option<Tree> {
        let Some(dir) = std::env::var_os("SLIPWAY_SAMPLES") else {
            println!("skipped: SLIPWAY_SAMPLES does not name a directory of real files");
            return None;
        };
        Some(vmcx::read_file(&PathBuf::from(dir).join(name)).unwrap().tree)
    }

    const GENERATION_2: &str = "vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";
    const GENERATION_1: &str = "xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml";

    fn changes(before: &Tree, after: &Tree) -> Vec<String> {
        vmcx::diff(before, after).into_iter().map(|c| c.path).collect()
    }

    #[test]
    fn a_real_generation_2_configuration_is_understood() {
        let Some(tree) = sample(GENERATION_2) else { return };
        let c = read(&tree).unwrap();
        assert_eq!(c.id.to_string(), "993f7b33-6057-4d1e-a1fe-a1a1d77be974");
        let s = &c.settings;
        assert_eq!(
            (s.name.as_str(), s.generation, s.config_version),
            ("Default Generation 2", Generation::Two, 2304)
        );
        assert_eq!((s.processors.count, s.memory.startup_mib, s.memory.dynamic), (1, 1024, false));
        assert!(s.firmware.secure_boot && !s.tpm);
        assert_eq!(s.controllers.len(), 1);
        assert_eq!(s.controllers[0].kind, ControllerKind::Scsi);
        assert_eq!(c.drives.len(), 1);
        assert_eq!(c.drives[0].path, r"C:\Disks\Default Generation 2.vhdx");
        assert_eq!(s.adapters.len(), 1);
        assert_eq!((s.adapters[0].mac, s.adapters[0].source_switch.as_deref()), (None, None));
        assert_eq!((c.saved, c.snapshots, c.shielded), (SavedState::None, 0, false));
        assert!(c.unavailable.is_empty(), "{:?}", c.unavailable);
    }

    #[test]
    fn a_real_generation_1_configuration_is_understood() {
        let Some(tree) = sample(GENERATION_1) else { return };
        let c = read(&tree).unwrap();
        let s = &c.settings;
        assert_eq!(
            (s.name.as_str(), s.generation, s.config_version),
            ("Default Generation 1", Generation::One, 1280)
        );
        let ide: Vec<_> = s.controllers.iter().filter(|c| c.kind == ControllerKind::Ide).collect();
        assert_eq!(ide.len(), 2);
        assert!(matches!(ide[0].drives[0].media, Media::Disk { .. }));
        assert!(matches!(ide[1].drives[0].media, Media::Dvd { image: None }));
        assert_eq!(c.drives.iter().filter(|d| d.disk.is_some()).count(), 1);
        assert_eq!(s.adapters.len(), 1);
    }

    #[test]
    fn a_template_made_by_hand_is_understood() {
        let Some(tree) = sample("xml/mwrock-vm.XML") else { return };
        let c = read(&tree).unwrap();
        assert_eq!(c.settings.generation, Generation::One);
        assert_eq!(c.settings.adapters[0].source_switch.as_deref(), Some("Virtual External Switch"));
        assert_eq!(c.drives[0].path, r"C:\dev\vagrant\Win2k12R2\.vagrant\machines\default\hyperv\disk.vhd");
    }

    #[test]
    fn what_was_not_changed_goes_out_as_it_came() {
        for name in [GENERATION_2, GENERATION_1] {
            let Some(tree) = sample(name) else { return };
            let c = read(&tree).unwrap();
            let paths = c.drives.clone();
            let name_of = |disk: Uuid| {
                paths
                    .iter()
                    .find(|d| d.disk == Some(disk))
                    .map(|d| crate::disk::file_name(&d.path).to_owned())
            };
            let mut out = tree.clone();
            apply(&mut out, &c.settings, &Identity { id: c.id, disk_name: &name_of }).unwrap();
            assert_eq!(changes(&tree, &out), Vec::<String>::new(), "{name}");
            assert_eq!(tree, out, "{name}: order and flags too");
        }
    }

    #[test]
    fn only_what_was_changed_differs() {
        let Some(tree) = sample(GENERATION_2) else { return };
        let c = read(&tree).unwrap();
        let mut settings = c.settings.clone();
        settings.name = "renamed".into();
        settings.processors.count = 4;
        settings.memory.startup_mib = 2048;
        settings.firmware.secure_boot = false;
        let id = Uuid::new_v4();
        let mut out = tree.clone();
        apply(&mut out, &settings, &Identity { id, disk_name: &|_| Some("flat.vhdx".into()) }).unwrap();
        let mut found = changes(&tree, &out);
        found.sort();
        let mut expected = [
            "_917bd8cb-3bb6-4124-9383-b7d21ac07f79_/StateFilePath",
            "_ac6b8dc1-3257-4a70-b1b2-a9c9215659ad_/secure_boot_enabled",
            "_dbcf5442-5b2e-4471-9b01-8aa4c5d0d011_/controller0/drive0/pathname",
            "properties/global_id",
            "properties/name",
            "settings/global/logical_id",
            "settings/memory/bank/size",
            "settings/processors/count",
        ]
        .map(|p| format!("configuration/{p}"));
        expected.sort();
        assert_eq!(found, expected);
        let again = read(&out).unwrap();
        assert_eq!(again.id, id);
        assert_eq!(again.drives[0].path, r"C:\Disks\flat.vhdx");
        assert_eq!(again.settings.processors.count, 4);
    }

    #[test]
    fn devices_that_come_and_go_are_in_the_manifest() {
        let Some(tree) = sample(GENERATION_2) else { return };
        let c = read(&tree).unwrap();
        let mut settings = c.settings.clone();
        let mut second = settings.adapters[0].clone();
        second.instance = Uuid::new_v4();
        second.name = "second".into();
        settings.adapters = vec![second];
        let mut out = tree.clone();
        apply(&mut out, &settings, &Identity { id: c.id, disk_name: &|_| None }).unwrap();
        let again = read(&out).unwrap();
        assert_eq!(again.settings.adapters.len(), 1);
        assert_eq!(again.settings.adapters[0].name, "second");
        assert_eq!(out.get_i64("configuration/manifest/size"), Some(27));
        assert_eq!(out.children("configuration/manifest").len(), 29, "version, size and 27 devices");
    }

    #[test]
    fn a_machine_made_here_reads_back_as_it_was_written() {
        for generation in [Generation::One, Generation::Two] {
            let mut s = Settings::new("fresh", generation);
            for _ in 0..2 {
                crate::define::plug(&mut s, Media::Disk { disk: Uuid::new_v4() }, &Uuid::new_v4).unwrap();
            }
            let id = Uuid::new_v4();
            let mut tree = fresh(id, jiff::Timestamp::UNIX_EPOCH, &s);
            apply(&mut tree, &s, &Identity { id, disk_name: &|_| Some("d.vhdx".into()) }).unwrap();
            let c = read(&tree).unwrap();
            assert_eq!(c.id, id);
            assert_eq!(c.drives.len(), 2);
            assert!(c.drives.iter().all(|d| d.path.ends_with(r"\d.vhdx")));
            let mut back = c.settings;
            // Disk ids are minted by the reader, and an IDE controller shows both its channels.
            back.controllers.retain(|c| !c.drives.is_empty());
            for (b, a) in back.controllers.iter_mut().zip(&s.controllers) {
                b.drives.clone_from(&a.drives);
            }
            assert_eq!(back, s);
        }
    }
}

//! Tools that others wrote for Hyper-V and for WS-Management, unmodified, and the real state of machines beside each step:
//! libvirt's Hyper-V driver, openwsman, Dell's wsl, Ruby's WinRM.
//!
//! What each of them can and cannot do, and in which versions it was tried: docs/clients.md.

use harness::api::PASSWORD;
use harness::binary::{Ran, run};
use harness::scratch::raw_disk;
use harness::{Api, need};
use std::path::PathBuf;
use std::process::Command;

/// A `virsh` that speaks to Hyper-V. Debian's is built without that driver.
struct Virsh<'a> {
    program: PathBuf,
    api: &'a Api,
    scheme: &'static str,
}

/// Names a `virsh` where the one in `PATH` lacks the driver.
const VIRSH: &str = "SLIPWAY_VIRSH";

fn virsh() -> Result<PathBuf, String> {
    let program = PathBuf::from(std::env::var_os(VIRSH).unwrap_or_else(|| "virsh".into()));
    let version = Command::new(&program).arg("--version=long").output();
    match version {
        Ok(out) if String::from_utf8_lossy(&out.stdout).contains("Hyper-V") => Ok(program),
        _ => Err(format!(
            "no public package has libvirt's Hyper-V driver: {VIRSH} names a virsh (docs/clients.md)"
        )),
    }
}

impl Virsh<'_> {
    fn run(&self, words: &[&str]) -> Ran {
        let address = self.api.address(self.scheme);
        let secret = format!(
            "[credentials-ada]\nusername=ada\npassword={PASSWORD}\n[auth-hyperv-127.0.0.1]\ncredentials=ada\n"
        );
        std::fs::write(self.api.place("auth.conf"), secret).expect("written");
        let uri = format!("hyperv://ada@{address}/?transport={}", self.scheme);
        run(Command::new(&self.program)
            .args(["--connect", &uri])
            .args(words)
            .env("LIBVIRT_AUTH_FILE", self.api.place("auth.conf"))
            // Messages in English, whatever the person who runs this speaks.
            .env("LC_ALL", "C"))
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        self.run(words).ok().to_owned()
    }

    /// Does it, and finds the machine in that state by our own command.
    #[track_caller]
    fn leads_to(&self, words: &[&str], machine: &str, state: &str) {
        self.ok(words);
        assert_eq!(self.api.shown(machine)["state"], state, "after {words:?}");
    }
}

#[test]
fn libvirt_finds_the_host_and_its_machines() {
    let program = need!(virsh());
    let api = Api::start("sim");
    let id = api.machine("web");
    let virsh = Virsh { program, api: &api, scheme: "http" };
    assert!(virsh.ok(&["version"]).contains("Running hypervisor: Hyper-V 1000.20.348"));
    assert!(!virsh.ok(&["hostname"]).trim().is_empty());
    assert!(virsh.ok(&["nodeinfo"]).contains("CPU socket(s):       1"));
    assert!(virsh.ok(&["capabilities"]).contains("<domain type='hyperv'/>"));
    assert!(virsh.ok(&["freecell"]).contains("KiB"));
    assert!(virsh.ok(&["list", "--all", "--uuid"]).contains(&id));
    assert!(virsh.ok(&["list", "--inactive", "--name"]).contains("web"));
    assert!(virsh.ok(&["domname", &id]).contains("web"));
    assert!(virsh.ok(&["dominfo", "web"]).contains("Max memory:     65536 KiB"));
    assert!(virsh.ok(&["schedinfo", "web"]).contains("allocation"));
    let xml = virsh.ok(&["dumpxml", "web"]);
    assert!(xml.contains("<target dev='sda' bus='scsi'/>") && xml.contains(&id), "{xml}");
    let networks = virsh.ok(&["net-list", "--all"]);
    assert!(networks.contains("nat") && networks.contains("active"), "{networks}");
    assert!(virsh.ok(&["net-dumpxml", "nat"]).contains("<name>nat</name>"));
    let nobody = virsh.run(&["dominfo", "nobody"]);
    assert!(nobody.refused().contains("failed to get domain 'nobody'"), "{nobody}");
}

#[test]
fn libvirt_runs_a_machine() {
    let program = need!(virsh());
    let api = Api::start("sim");
    api.machine("web");
    let virsh = Virsh { program, api: &api, scheme: "http" };
    virsh.leads_to(&["start", "web"], "web", "running");
    assert!(virsh.ok(&["list"]).contains("running"));
    virsh.leads_to(&["suspend", "web"], "web", "paused");
    // What it calls paused and saved are the numbers of 2008's namespace: it says *no state*, and resumes all the same.
    virsh.leads_to(&["resume", "web"], "web", "running");
    virsh.leads_to(&["reboot", "web"], "web", "running");
    virsh.leads_to(&["reset", "web"], "web", "running");
    virsh.leads_to(&["managedsave", "web"], "web", "saved");
    virsh.leads_to(&["start", "web"], "web", "running");
    virsh.leads_to(&["destroy", "web"], "web", "off");
    assert!(virsh.run(&["destroy", "web"]).refused().contains("not active"));
    virsh.leads_to(&["start", "web"], "web", "running");
    // It returns when the guest was asked.
    virsh.ok(&["shutdown", "web"]);
    api.reaches("web", "off");
}

/// A definition as libvirt's users write it: a disk, a CD-ROM and an adapter of `switch`.
fn definition(switch: &str) -> String {
    format!(
        r"<domain type='hyperv'>
  <name>made</name>
  <memory unit='MiB'>256</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <source file='C:\made.img'/><target dev='hda' bus='ide'/>
      <address type='drive' controller='0' bus='0' target='0' unit='0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='C:\cd.iso'/><target dev='hdc' bus='ide'/>
      <address type='drive' controller='0' bus='1' target='0' unit='0'/>
    </disk>
    <interface type='bridge'><source bridge='{switch}'/><mac address='00:15:5d:01:02:03'/></interface>
  </devices>
</domain>"
    )
}

#[test]
fn libvirt_defines_changes_and_deletes_a_machine() {
    let program = need!(virsh());
    let api = Api::start("sim");
    let virsh = Virsh { program, api: &api, scheme: "http" };
    for file in ["made.img", "second.img", "cd.iso"] {
        raw_disk(&api.drive_c(file), 4 << 20, &[(0, 4096)]);
    }
    let switch = virsh.ok(&["net-list", "--all", "--uuid"]).trim().to_uppercase();
    std::fs::write(api.place("made.xml"), definition(&switch)).expect("written");
    virsh.ok(&["define", api.place("made.xml").to_str().expect("UTF-8")]);
    let made = api.shown("made");
    assert_eq!((&made["memory_mib"], &made["processors"]), (&256.into(), &2.into()), "{made}");
    let text = made.to_string();
    assert!(
        text.contains("made.img") && text.contains("cd.iso") && text.contains("00:15:5d:01:02:03"),
        "{text}"
    );

    let xml = virsh.ok(&["dumpxml", "made"]);
    for part in [r"C:\made.img", "<target dev='hda' bus='ide'/>", r"C:\cd.iso", "device='cdrom'", &switch] {
        assert!(xml.contains(part), "no {part} in {xml}");
    }
    let device = r"<disk type='file' device='disk'><source file='C:\second.img'/><target dev='hdb' bus='ide'/><address type='drive' controller='0' bus='0' target='0' unit='1'/></disk>";
    std::fs::write(api.place("second.xml"), device).expect("written");
    virsh.ok(&["attach-device", "made", api.place("second.xml").to_str().expect("UTF-8")]);
    assert!(virsh.ok(&["dumpxml", "made"]).contains(r"C:\second.img"));
    assert!(api.shown("made").to_string().contains("second.img"));

    virsh.ok(&["setvcpus", "made", "3"]);
    virsh.ok(&["setmem", "made", "512M", "--current"]);
    virsh.ok(&["autostart", "made"]);
    assert!(virsh.ok(&["dominfo", "made"]).contains("Autostart:      enable"));
    let made = api.shown("made");
    assert_eq!((&made["memory_mib"], &made["processors"]), (&512.into(), &3.into()), "{made}");
    assert!(made.to_string().contains("always"), "{made}");

    virsh.leads_to(&["start", "made"], "made", "running");
    virsh.leads_to(&["destroy", "made"], "made", "off");
    virsh.ok(&["undefine", "made"]);
    assert!(!api.has("made"));
    assert!(api.drive_c("made.img").exists(), "taking a machine away leaves its disks");
}

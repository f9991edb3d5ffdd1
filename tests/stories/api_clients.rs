//! Tools that others wrote for Hyper-V and for WS-Management, unmodified, and the real state of machines beside each step:
//! libvirt's Hyper-V driver, openwsman, Dell's wsl, Ruby's WinRM.
//!
//! What each of them can and cannot do, and in which versions it was tried: docs/clients.md.

use harness::api::PASSWORD;
use harness::binary::{Ran, run};
use harness::scratch::raw_disk;
use harness::{Api, need, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `virsh` that speaks to Hyper-V. Debian's is built without that driver.
struct Virsh<'a> {
    program: PathBuf,
    api: &'a Api,
    scheme: &'static str,
}

/// Names a folder with programs that no package has: they are looked for there first, and then in `PATH`.
const CLIENTS: &str = "SLIPWAY_CLIENTS";

/// The program `name`, if it answers `question` with a text that has `answer` in it.
fn client(name: &str, question: &[&str], answer: &str) -> Result<PathBuf, String> {
    let own = std::env::var_os(CLIENTS).map(|folder| PathBuf::from(folder).join(name));
    let program = own.filter(|own| own.exists()).unwrap_or_else(|| name.into());
    match Command::new(&program).args(question).output() {
        Ok(out) if out.status.success() && String::from_utf8_lossy(&out.stdout).contains(answer) => {
            Ok(program)
        }
        _ => Err(format!(
            "no public package has this {name}: {CLIENTS} names a folder that does (docs/clients.md)"
        )),
    }
}

fn virsh() -> Result<PathBuf, String> {
    client("virsh", &["--version=long"], "Hyper-V")
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

const CLASSES: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";

/// openwsman's `wsman`, with a password, against the address without TLS.
fn wsman(program: &Path, api: &Api, words: &[&str]) -> String {
    let address = api.address("http");
    let (host, port) = address.split_once(':').expect("a port");
    let common = ["-h", host, "-P", port, "-u", "ada", "-p", PASSWORD, "-y", "basic"];
    run(Command::new(program).args(common).args(words)).ok().to_owned()
}

#[test]
fn openwsman_lists_shows_runs_defines_and_deletes() {
    let program = need!(client("wsman", &["--version"], "2."));
    let api = Api::start("sim");
    let id = api.machine("web").to_uppercase();
    let wsman = |words: &[&str]| wsman(&program, &api, words);
    let systems = format!("{CLASSES}/Msvm_ComputerSystem");
    let web = format!("{systems}?CreationClassName=Msvm_ComputerSystem&Name={id}");
    assert!(wsman(&["identify"]).contains("Slipway"));
    for mode in [&[][..], &["-M", "epr"], &["-M", "objepr"], &["-o", "-m", "5"], &["-m", "1"]] {
        let found = wsman(&[mode, &["enumerate", &systems]].concat());
        assert!(found.contains(&id), "{mode:?}: {found}");
    }
    let select = "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'web'";
    let name = format!("Name={id}");
    for (dialect, filter, of) in [
        ("http://schemas.microsoft.com/wbem/wsman/1/WQL", select, format!("{CLASSES}/*")),
        ("http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf", select, format!("{CLASSES}/*")),
        ("http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter", &name, systems.clone()),
    ] {
        let found = wsman(&["-D", dialect, "-x", filter, "enumerate", &of]);
        assert_eq!(found.matches("<p:Msvm_ComputerSystem ").count(), 1, "{dialect}: {found}");
    }
    assert!(wsman(&["get", &web]).contains("<p:ElementName>web</p:ElementName>"));
    assert!(wsman(&["-F", "ElementName", "get", &web]).contains("XmlFragment"));
    let around = wsman(&["associators", &web, "--filter", &web]);
    assert!(around.contains("<p:Msvm_VirtualSystemSettingData "), "{around}");
    assert!(wsman(&["references", &web, "--filter", &web]).contains("<p:Msvm_SettingsDefineState "));

    wsman(&["invoke", "-a", "RequestStateChange", "-k", "RequestedState=2", &web]);
    api.reaches("web", "running");
    wsman(&["invoke", "-a", "RequestStateChange", "-k", "RequestedState=3", &web]);
    api.reaches("web", "off");

    let service = format!("{CLASSES}/Msvm_VirtualSystemManagementService");
    let input = |method: &str, inside: &str| {
        let text = format!("<p:{method}_INPUT xmlns:p=\"{service}\">{inside}</p:{method}_INPUT>");
        std::fs::write(api.place("input.xml"), text).expect("written");
        let file = api.place("input.xml").display().to_string();
        wsman(&["invoke", "-a", method, "-J", &file, &service])
    };
    let settings = r#"&lt;INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"&gt;&lt;PROPERTY NAME="ElementName" TYPE="string"&gt;&lt;VALUE&gt;typed&lt;/VALUE&gt;&lt;/PROPERTY&gt;&lt;/INSTANCE&gt;"#;
    let defined = input("DefineSystem", &format!("<p:SystemSettings>{settings}</p:SystemSettings>"));
    assert!(defined.contains("<p:ReturnValue>0</p:ReturnValue>") && api.has("typed"), "{defined}");
    let made = api.shown("typed")["id"].as_str().expect("an id").to_uppercase();
    let path = format!(
        "\\\\HOST\\root\\virtualization\\v2:Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"{made}\""
    );
    input("DestroySystem", &format!("<p:AffectedSystem>{path}</p:AffectedSystem>"));
    assert!(!api.has("typed"));
}

#[test]
fn openwsmans_library_does_the_whole_round() {
    let program = need!(client("python3", &["-c", "import pywsman; print('pywsman')"], "pywsman"));
    let api = Api::start("sim");
    api.machine("web");
    api.script(&program, "openwsman.py", &["web"], "http");
    assert!(!api.has("unbound") && api.has("web"));
}

#[test]
fn rubys_winrm_asks_in_wql() {
    let program = need!(client("ruby", &["-e", "require 'winrm'; puts 'winrm'"], "winrm"));
    let api = Api::start("sim");
    api.machine("web");
    api.script(&program, "winrm.rb", &["web"], "http");
}

/// Dell's wsl: shell scripts over curl, with words of their own for what others leave out.
#[test]
fn wsl_identifies_lists_and_shows() {
    if run(Command::new("bash").args(["-c", "command -v wslid"])).code != Some(0) {
        skip!("wsl is missing; ./x install brings it");
    }
    let api = Api::start("sim");
    let id = api.machine("web").to_uppercase();
    let folder = api.place("wsl");
    std::fs::create_dir(&folder).expect("made");
    let wsl = |program: &str, words: &[&str]| {
        let ran = run(Command::new(program)
            .args(words)
            .current_dir(&folder)
            // It keeps its settings at home.
            .env("HOME", &folder)
            .env("WSENDPOINT", api.address("https"))
            .env("WSUSER", "ada")
            .env("WSPASS", PASSWORD)
            .env("OUTLEVEL", "1"));
        ran.ok().to_owned()
    };
    let systems = format!("{CLASSES}/Msvm_ComputerSystem");
    assert!(wsl("wslid", &["check"]).contains("Slipway"));
    assert!(wsl("wslenum", &[&systems]).contains(&id));
    assert!(wsl("wslenum", &[&systems, "-mode", "epr"]).contains("EndpointReference"));
    assert!(wsl("wslenum", &[&systems, "-opti", "10"]).contains(&id));
    let one =
        wsl("wslenum", &[&systems, "-filter", "select * from Msvm_ComputerSystem where ElementName='web'"]);
    assert!(one.contains(&id) && one.matches("<p:Msvm_ComputerSystem ").count() == 1, "{one}");
    let name = format!("Name={id}");
    assert!(wsl("wslget", &[&systems, "CreationClassName=Msvm_ComputerSystem", &name]).contains("web"));
}

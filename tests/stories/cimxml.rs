//! Hyper-V's API as CIM's own clients use it: pywbem, pywbemcli and wbemcli, unmodified, over CIM-XML.

use harness::api::PASSWORD;
use harness::binary::run;
use harness::scratch::raw_disk;
use harness::{Api, need, oracle};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A daemon with a machine `web`, and what its clients need.
struct Served {
    api: Api,
    python: PathBuf,
    /// The machine's id, as Hyper-V prints it.
    id: String,
}

impl Served {
    fn start() -> Result<Self, String> {
        let python = oracle::python_with(&["pywbem"])?;
        let api = Api::start("sim");
        let id = api.machine("web").to_ascii_uppercase();
        Ok(Self { api, python, id })
    }

    fn pywbem(&self, arguments: &[&str], scheme: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/with_pywbem.py");
        run(Command::new(&self.python)
            .arg(script)
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HYPERV_URL", self.api.cimxml(scheme).replace("://", "://ada@"))
            .env("HYPERV_PASSWORD", PASSWORD)
            // These would win over what the client says of certificates.
            .env_remove("REQUESTS_CA_BUNDLE")
            .env_remove("CURL_CA_BUNDLE"))
        .ok();
    }

    /// What pywbemcli, which is beside that Python, prints.
    fn pywbemcli(&self, arguments: &[&str]) -> String {
        let program = self.python.with_file_name("pywbemcli");
        let ran = run(Command::new(program)
            .args([
                "--server",
                self.api.cimxml("https").trim_end_matches("/cimom"),
                "--no-verify",
                "--user",
                "ada",
                "--password",
                PASSWORD,
            ])
            .args(["--default-namespace", "root/virtualization/v2"])
            .args(arguments)
            .env("HOME", self.api.place("home"))
            .env_remove("REQUESTS_CA_BUNDLE")
            .env_remove("CURL_CA_BUNDLE"));
        ran.ok().to_owned()
    }

    /// What wbemcli prints for an object of `root/virtualization/v2`.
    fn wbemcli(&self, operation: &str, object: &str, more: &[&str]) -> String {
        // It does not decode what its URL has encoded; the password has nothing to encode.
        let place = self.api.cimxml("http").replace("://", &format!("://ada:{PASSWORD}@"));
        let url = format!("{}/root/virtualization/v2:{object}", place.trim_end_matches("/cimom"));
        run(Command::new("wbemcli").arg(operation).arg(url).args(more)).ok().to_owned()
    }
}

#[test]
fn pywbem_looks_around() {
    let served = need!(Served::start());
    served.pywbem(&["look", "web", &served.id], "https");
    served.pywbem(&["look", "web", &served.id], "http");
    let told = served.api.audited("sign-in", "ada");
    assert!(told.iter().all(|line| line["what"] == "cimxml") && !told.is_empty(), "{told:?}");
}

#[test]
fn pywbem_learns_of_the_server_what_it_is() {
    let served = need!(Served::start());
    served.pywbem(&["server", "web"], "https");
}

#[test]
fn pywbem_runs_a_machine() {
    let served = need!(Served::start());
    served.pywbem(&["run", "web"], "https");
    served.api.reaches("web", "off");
    let told = served.api.audited("operate", "ada");
    assert!(
        told.iter().any(|line| line["what"].as_str().is_some_and(|what| what.contains("RequestStateChange")))
    );
}

#[test]
fn pywbem_moves_a_machine_out_and_in() {
    let served = need!(Served::start());
    served.pywbem(&["move", "web", r"C:\out"], "https");
    let package = served.api.drive_c("out/whole");
    served.api.daemon.run(["verify".as_ref(), package.as_os_str()]).ok();
    assert!(!served.api.audited("export", "ada").is_empty());
}

#[test]
fn pywbem_defines_a_machine() {
    let served = need!(Served::start());
    raw_disk(&served.api.drive_c("made.img"), 4 << 20, &[(0, 4096)]);
    served.pywbem(&["define", r"C:\made.img"], "https");
}

#[test]
fn pywbemcli_shows_and_starts_a_machine() {
    let served = need!(Served::start());
    need!(oracle::python_with(&["pywbemtools"]));
    let listed = served.pywbemcli(&["instance", "enumerate", "Msvm_ComputerSystem"]);
    assert!(listed.contains(&served.id) && listed.contains("ElementName = \"web\""), "{listed}");
    let meant = served.pywbemcli(&["class", "get", "Msvm_ComputerSystem"]);
    assert!(meant.contains("RequestStateChange"), "{meant}");
    let spaces = served.pywbemcli(&["namespace", "list"]);
    assert!(spaces.contains("root/virtualization/v2") && spaces.contains("root/interop"), "{spaces}");
    let profiles = served.pywbemcli(&["profile", "list"]);
    assert!(profiles.contains("Virtual System"), "{profiles}");
    let path =
        format!("Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"{}\"", served.id);
    let walked =
        served.pywbemcli(&["instance", "associators", &path, "--ac", "Msvm_SettingsDefineState", "--no"]);
    assert!(walked.contains(&format!("Microsoft:{}", served.id)), "{walked}");
    served.pywbemcli(&["instance", "invokemethod", &path, "RequestStateChange", "-p", "RequestedState=2"]);
    served.api.reaches("web", "running");
}

#[test]
fn wbemcli_lists_gets_walks_and_calls() {
    need!(oracle::program("wbemcli"));
    let served = need!(Served::start());
    let names = served.wbemcli("ein", "Msvm_ComputerSystem", &[]);
    assert!(names.contains(&served.id), "{names}");
    let path =
        format!("Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"{}\"", served.id);
    assert!(served.wbemcli("gi", &path, &[]).contains("ElementName=\"web\""));
    assert!(served.wbemcli("ei", "Msvm_ComputerSystem", &[]).contains("ElementName=\"web\""));
    assert!(served.wbemcli("ain", &path, &[]).contains("Msvm_VirtualSystemSettingData"));
    assert!(served.wbemcli("rin", &path, &[]).contains("Msvm_SettingsDefineState"));
    assert!(served.wbemcli("ecn", "", &[]).contains("CIM_ManagedElement"));
    assert!(served.wbemcli("gc", "Msvm_ComputerSystem", &[]).contains("EnabledState"));
    let called = served.wbemcli("cm", &path, &["RequestStateChange.RequestedState=2"]);
    assert!(called.contains("4096") && called.contains("Msvm_ConcreteJob"), "{called}");
    served.api.reaches("web", "running");
}

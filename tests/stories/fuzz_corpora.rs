//! Every seed and every past find of the fuzzer, replayed on stable through the same target files.
//!
//! The targets say `use libfuzzer_sys::fuzz_target`; here that name is this test, whose macro makes a function of a
//! target instead of a fuzzer. Growing the corpus is `./x fuzz`'s business.

#![expect(clippy::print_stdout, clippy::panic, reason = "tests talk to the person who runs them")]

extern crate self as libfuzzer_sys;

use std::path::Path;

/// The fuzzer's macro, as far as our targets use it.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub(crate) fn run($data: &[u8]) $body
    };
    (|$data:ident: &[u8]| $body:expr) => {
        pub(crate) fn run($data: &[u8]) {
            $body;
        }
    };
}

#[path = "../../fuzz/fuzz_targets"]
#[expect(unused_attributes, unused_imports, reason = "the targets are whole programs for the fuzzer")]
mod targets {
    pub(crate) mod cim_embedded;
    pub(crate) mod cim_mof;
    pub(crate) mod cim_path;
    pub(crate) mod cim_query;
    pub(crate) mod cimxml_request;
    pub(crate) mod hyperv_path;
    pub(crate) mod manifest;
    pub(crate) mod nbd_reply;
    pub(crate) mod negotiate_framing;
    pub(crate) mod negotiate_token;
    pub(crate) mod package_path;
    pub(crate) mod probe_disk;
    pub(crate) mod probe_ext;
    pub(crate) mod vhd_open;
    pub(crate) mod vhdx_open;
    pub(crate) mod vmcx_read;
    pub(crate) mod vmcx_xml;
    pub(crate) mod vmgs_parse;
    pub(crate) mod wsman_envelope;
}

macro_rules! replay {
    ($name:ident) => {
        #[test]
        fn $name() {
            replay_folder(stringify!($name), targets::$name::run);
        }
    };
}

replay!(cim_embedded);
replay!(cim_mof);
replay!(cim_path);
replay!(cim_query);
replay!(cimxml_request);
replay!(hyperv_path);
replay!(manifest);
replay!(nbd_reply);
replay!(negotiate_framing);
replay!(negotiate_token);
replay!(package_path);
replay!(probe_disk);
replay!(probe_ext);
replay!(vhd_open);
replay!(vhdx_open);
replay!(vmcx_read);
replay!(vmcx_xml);
replay!(vmgs_parse);
replay!(wsman_envelope);

fn replay_folder(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a readable entry").path();
        let data = std::fs::read(&path).expect("a readable seed");
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            panic!("{} breaks {name}", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
    println!("{name}: {count} inputs");
}

/// Containers are too intricate to be written by hand; these come from our own writer.
#[test]
#[ignore = "writes seeds into the repository"]
fn write_container_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/vmcx_read");
    for name in ["ascii", "utf16"] {
        let xml = folder.join(format!("../vmcx_xml/{name}.xml"));
        let tree = vmcx::read_file(&xml).expect("a seed of ours").tree;
        let bytes = vmcx::write_container(&tree).expect("a small tree");
        std::fs::write(folder.join(format!("{name}.vmcx")), bytes).expect("written");
    }
    let state = vmcx::write_container(&vmcx::empty_runtime_state(2304)).expect("a small tree");
    std::fs::write(folder.join("state.vmrs"), state).expect("written");
}

//! What the tests of the classes share: a simulated host, and a client's view of it.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::panic, reason = "as above")]
#![allow(unreachable_pub, reason = "included in several crates")]
#![allow(missing_docs, reason = "for tests only")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use access::Action;
use cim::{Instance, Name, ObjectPath, Value};
use engine::sim::SimEngine;
use hyperv::{Hyperv, PathMap, Root, Settings};
use machine::define::{DefineRequest, NewDisk};
use machine::report::HostFacts;
use machine::settings::{Generation, Hardware};
use machine::{Ambient, Host, HostOptions, MachineView};
use store::MemoryStore;
use uuid::Uuid;
use wsman::{Call, Failure, Operations, Output, Principal, Walk};

pub const V2: &str = "root/virtualization/v2";
pub const MIB: u64 = 1 << 20;
/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Who may do what to which machine.
pub type Rule = Box<dyn Fn(&str, Action, Option<Uuid>) -> bool + Send>;

pub struct Lab {
    pub root: tempfile::TempDir,
    pub sim: SimEngine,
    pub host: Arc<Host>,
    pub hyperv: Arc<Hyperv>,
    pub rule: Arc<Mutex<Rule>>,
}

impl Lab {
    pub fn new() -> Self {
        Self::within(Ambient::default())
    }

    /// One whose host takes ids, time and more from `ambient`.
    pub fn within(ambient: Ambient) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::create_dir(root.path().join("c")).unwrap();
        let sim = SimEngine::new();
        let options = HostOptions {
            data: root.path().join("data"),
            runtime: root.path().join("run"),
            store: Arc::new(MemoryStore::new()),
            engine: Arc::new(sim.clone()),
            facts: Some(HostFacts {
                processors: 64,
                memory_mib: 1 << 18,
                uefi: true,
                tpm: true,
                bridges: vec!["br0".to_owned()],
            }),
            jobs: job::Options::default(),
            boot: Some("first".to_owned()),
        };
        let host = Host::open_in(options, ambient).unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_, _, _| true)));
        let asked = Arc::clone(&rule);
        let settings = Settings {
            host_name: "HOST".to_owned(),
            paths: PathMap::new(vec![Root { windows: "C:".into(), folder: root.path().join("c") }]).unwrap(),
            policy: Arc::new(move |who: &Principal, action, machine| {
                asked.lock().unwrap()(&who.user, action, machine)
            }),
        };
        let hyperv = Arc::new(Hyperv::new(Arc::clone(&host), settings).unwrap());
        Self { root, sim, host, hyperv, rule }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A machine with one disk, a DVD drive and an adapter.
    pub fn machine(&self, name: &str, generation: Generation) -> MachineView {
        self.host
            .define(&DefineRequest {
                name: name.to_owned(),
                generation,
                id: None,
                processors: Some(2),
                memory_mib: Some(512),
                secure_boot: None,
                tpm: false,
                disks: vec![NewDisk::Empty { size: 16 * MIB, sector: 0 }],
                dvd: Some(None),
                adapters: vec!["nat".to_owned()],
                hardware: Hardware::default(),
            })
            .unwrap()
    }

    pub fn call(&self) -> Call {
        Call {
            principal: Principal { user: "ann".to_owned(), from: "127.0.0.1:1".to_owned() },
            deadline: Instant::now() + PATIENCE,
        }
    }

    pub fn list(&self, namespace: &str, class: &str) -> Vec<Instance> {
        self.hyperv.instances(&self.call(), namespace, class).unwrap().map(Result::unwrap).collect()
    }

    pub fn get(&self, namespace: &str, path: &str) -> Result<Instance, Failure> {
        self.hyperv.get(&self.call(), namespace, &path.parse().unwrap())
    }

    pub fn associators(&self, from: &ObjectPath, walk: &Walk) -> Vec<Instance> {
        self.hyperv.associators(&self.call(), V2, from, walk).unwrap().map(Result::unwrap).collect()
    }

    pub fn references(&self, from: &ObjectPath, walk: &Walk) -> Vec<Instance> {
        self.hyperv.references(&self.call(), V2, from, walk).unwrap().map(Result::unwrap).collect()
    }

    pub fn invoke(
        &self,
        path: &ObjectPath,
        method: &str,
        parameters: Vec<(&str, Value)>,
    ) -> Result<Output, Failure> {
        let parameters =
            parameters.into_iter().map(|(name, value)| (Name::from(name), Some(value))).collect();
        self.hyperv.invoke(&self.call(), V2, path, method, parameters)
    }

    /// Calls a method of the management service.
    pub fn manage(&self, method: &str, parameters: Vec<(&str, Value)>) -> Output {
        let service = ObjectPath::new("Msvm_VirtualSystemManagementService").with("Name", "vmms");
        self.invoke(&service, method, parameters).unwrap()
    }
}

/// The path of a machine's system.
pub fn system(id: Uuid) -> ObjectPath {
    ObjectPath::new("Msvm_ComputerSystem")
        .with("CreationClassName", "Msvm_ComputerSystem")
        .with("Name", id.to_string().to_uppercase())
}

/// The path of a machine's settings.
pub fn settings(id: Uuid) -> ObjectPath {
    ObjectPath::new("Msvm_VirtualSystemSettingData")
        .with("InstanceID", format!("Microsoft:{}", id.to_string().to_uppercase()))
}

/// What a method returned.
pub fn returned(output: &Output) -> u64 {
    output.returned.as_u64().unwrap()
}

/// An output parameter.
pub fn output<'o>(output: &'o Output, name: &str) -> Option<&'o Value> {
    output.parameters.iter().find(|(there, _)| *there == name).and_then(|(_, value)| value.as_ref())
}

/// A walk over one association class.
pub fn over(association: &str) -> Walk {
    Walk { association: Some(association.into()), ..Walk::default() }
}

/// The job that a method began.
pub fn job_of(answer: &Output) -> ObjectPath {
    assert_eq!(returned(answer), 4096);
    output(answer, "Job").unwrap().as_path().unwrap().clone()
}

/// The job once it is over, asked for as clients do.
pub fn ended(lab: &Lab, job: &ObjectPath) -> Instance {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = lab.hyperv.get(&lab.call(), V2, job).unwrap();
        let state = seen.get("JobState").and_then(Value::as_u64).unwrap();
        if [7, 8, 9, 10, 32768].contains(&state) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        std::thread::yield_now();
    }
}

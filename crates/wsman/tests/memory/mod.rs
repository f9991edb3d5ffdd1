//! A small host in memory: what the tests of the protocol call instead of machines.
//!
//! It keeps what methods were given, so that tests see what came through the wire.

#![allow(clippy::unwrap_used, dead_code, reason = "this is test code, and each test uses some of it")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use cim::mof::Compiler;
use cim::query::Select;
use cim::{Datetime, Instance, Name, ObjectPath, Schema, Value};
use wsman::{
    Audit, Call, Done, Events, Failure, FailureKind, Fetched, Instances, Operations, Output, Principal,
    Responder, Settings, Walk,
};

/// The namespace that is served.
pub(crate) const NAMESPACE: &str = "root/virtualization/v2";
/// The machine that the recorded requests are about.
pub(crate) const WEB: &str = "3F2A9B0C-7A54-4C2E-9E5B-0D1C2B3A4F55";

/// A method that was called: its name, the instance, what was given.
pub(crate) type Called = (String, ObjectPath, Vec<(Name, Option<Value>)>);

pub(crate) struct Memory {
    schema: Schema,
    instances: Mutex<Vec<Instance>>,
    pub(crate) called: Mutex<Vec<Called>>,
    /// Instances beyond the few, made when they are asked for.
    pub(crate) more: usize,
    /// How many of those were made.
    pub(crate) made: Arc<AtomicUsize>,
    /// Where the making of each of those waits for a test, twice: when it begins, and before it ends.
    pub(crate) held: Option<Arc<Barrier>>,
    /// What waits for each subscriber.
    subscribers: Mutex<Vec<Arc<Mutex<Waiting>>>>,
}

/// What waits for one subscriber.
#[derive(Default)]
struct Waiting {
    fetched: Fetched,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

struct Subscriber(Arc<Mutex<Waiting>>);

impl Events for Subscriber {
    fn fetch(&mut self, most: usize) -> Fetched {
        let mut waiting = self.0.lock().unwrap();
        let count = waiting.fetched.events.len().min(most);
        let dropped = std::mem::take(&mut waiting.fetched.dropped);
        Fetched { dropped, events: waiting.fetched.events.drain(..count).collect() }
    }

    fn wake(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.lock().unwrap().wake = Some(wake);
    }
}

impl Memory {
    /// Tells every subscriber of an event; `dropped` were dropped before it.
    pub(crate) fn happens(&self, event: Instance, dropped: u64) {
        let event = Arc::new(event);
        for subscriber in &*self.subscribers.lock().unwrap() {
            let mut waiting = subscriber.lock().unwrap();
            waiting.fetched.events.push(Arc::clone(&event));
            waiting.fetched.dropped += dropped;
            if let Some(wake) = &waiting.wake {
                wake();
            }
        }
    }

    /// How many subscriptions are held.
    pub(crate) fn subscribed(&self) -> usize {
        self.subscribers.lock().unwrap().iter().filter(|one| Arc::strong_count(one) > 1).count()
    }
}

impl Memory {
    pub(crate) fn new() -> Self {
        let mut compiler = Compiler::new();
        compiler.add("schema.mof", include_str!("schema.mof")).unwrap();
        let schema = compiler.finish().unwrap();
        let mut instances = Vec::new();
        let others = (1..=4).map(|n| (format!("00000000-0000-0000-0000-00000000000{n}"), format!("vm{n}")));
        let machines = std::iter::once((WEB.to_owned(), "web01".to_owned())).chain(others);
        for (n, (id, name)) in machines.enumerate() {
            instances.push(machine(&id, &name, if n < 2 { 2 } else { 3 }));
            instances.push(
                Instance::new("Msvm_VirtualSystemSettingData")
                    .with("InstanceID", format!("Microsoft:{id}"))
                    .with("ElementName", name)
                    .with("VirtualSystemIdentifier", id.as_str())
                    .with("ConfigurationID", id.as_str())
                    .with("VirtualSystemType", "Microsoft:Hyper-V:System:Realized")
                    .with("VirtualSystemSubType", "Microsoft:Hyper-V:SubType:2")
                    .with("AutomaticStartupAction", 3u16)
                    .with("BootOrder", vec![3u16, 2, 0, 1]),
            );
            instances.push(
                Instance::new("Msvm_SettingsDefineState")
                    .with("ManagedElement", system_path(&id))
                    .with("SettingData", settings_path(&id)),
            );
        }
        instances.push(
            Instance::new("Msvm_VirtualSystemManagementService")
                .with("SystemCreationClassName", "Msvm_ComputerSystem")
                .with("SystemName", "HOST")
                .with("CreationClassName", "Msvm_VirtualSystemManagementService")
                .with("Name", "vmms"),
        );
        for instance in &mut instances {
            let class = schema.class(instance.class.as_str()).unwrap();
            instance.path = Some(ObjectPath::of(instance, class).within(NAMESPACE));
        }
        Self {
            schema,
            instances: Mutex::new(instances),
            called: Mutex::default(),
            more: 0,
            made: Arc::default(),
            held: None,
            subscribers: Mutex::default(),
        }
    }

    pub(crate) fn settings() -> Settings {
        Settings {
            host: "HOST".into(),
            vendor: "Slipway".into(),
            version: "OS: 10.0.20348 SP: 0.0 Stack: 3.0".into(),
            default_namespace: "root/cimv2".into(),
            profiles: vec!["http/basic", "https/basic"],
        }
    }

    pub(crate) fn responder(self) -> (Arc<Self>, Responder) {
        let memory = Arc::new(self);
        let responder = Responder::new(Arc::clone(&memory) as _, Arc::new(Unheard), Self::settings());
        (memory, responder)
    }

    fn matching(&self, class: &str, keys: &[(Name, Value)]) -> Vec<Instance> {
        let fits = |instance: &Instance| {
            self.schema.is_a(instance.class.as_str(), class)
                && keys.iter().all(|(key, wanted)| {
                    let is = instance.get(key.as_str()).map(Value::to_string).unwrap_or_default();
                    is.eq_ignore_ascii_case(&wanted.to_string())
                })
        };
        self.instances.lock().unwrap().iter().filter(|instance| fits(instance)).cloned().collect()
    }

    fn one(&self, path: &ObjectPath) -> Result<Instance, Failure> {
        let mut found = self.matching(path.class.as_str(), &path.keys);
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::new(FailureKind::NotFound, format!("there is no {path}"))),
            _ => Err(Failure::new(FailureKind::Ambiguous, format!("{path} is several"))),
        }
    }

    fn around(&self, from: &ObjectPath, walk: &Walk) -> Result<Vec<(Instance, ObjectPath)>, Failure> {
        let from = self.one(from)?.path.unwrap().to_string();
        let mut found = Vec::new();
        for association in self.matching("Msvm_SettingsDefineState", &[]) {
            if let Some(class) = &walk.association
                && !self.schema.is_a(association.class.as_str(), class.as_str())
            {
                continue;
            }
            let ends: Vec<_> = association
                .properties
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.as_ref()?.as_path()?.clone())))
                .collect();
            for (role, end) in &ends {
                let here = end.to_string() == from && walk.role.as_ref().is_none_or(|wanted| wanted == role);
                if let Some((other_role, other)) = ends.iter().find(|(other, _)| other != role)
                    && here
                    && walk.result_role.as_ref().is_none_or(|wanted| wanted == other_role)
                {
                    found.push((association.clone(), other.clone()));
                }
            }
        }
        Ok(found)
    }
}

/// An audit log that nobody reads.
pub(crate) struct Unheard;

impl Audit for Unheard {
    fn done(&self, _: &Principal, _: &Done) {}
}

pub(crate) fn system_path(id: &str) -> ObjectPath {
    ObjectPath::new("Msvm_ComputerSystem")
        .with("CreationClassName", "Msvm_ComputerSystem")
        .with("Name", id)
        .within(NAMESPACE)
}

pub(crate) fn settings_path(id: &str) -> ObjectPath {
    ObjectPath::new("Msvm_VirtualSystemSettingData")
        .with("InstanceID", format!("Microsoft:{id}"))
        .within(NAMESPACE)
}

fn machine(id: &str, name: &str, state: u16) -> Instance {
    Instance::new("Msvm_ComputerSystem")
        .with("CreationClassName", "Msvm_ComputerSystem")
        .with("Name", id)
        .with("Caption", "Virtual Machine")
        .with("ElementName", name)
        .with("InstallDate", "20260102030405.000000+000".parse::<Datetime>().unwrap())
        .with("OperationalStatus", vec![2u16, 32768])
        .with("EnabledState", state)
        .with("OnTimeInMilliseconds", 1_234_567u64)
}

impl Operations for Memory {
    fn does(&self, _: &str, _: &str, method: Option<&str>) -> &'static str {
        if method.is_some() { "call" } else { "change" }
    }

    fn schema(&self, namespace: &str) -> Option<&Schema> {
        namespace.eq_ignore_ascii_case(NAMESPACE).then_some(&self.schema)
    }

    fn get(&self, _: &Call, _: &str, path: &ObjectPath) -> Result<Instance, Failure> {
        self.one(path)
    }

    fn instances(&self, _: &Call, _: &str, class: &str) -> Result<Instances, Failure> {
        let few = self.matching(class, &[]);
        let more = if self.schema.is_a("Msvm_ComputerSystem", class) { self.more } else { 0 };
        let (count, held) = (Arc::clone(&self.made), self.held.clone());
        let made = (0..more).map(move |n| {
            if let Some(held) = &held {
                held.wait();
                held.wait();
            }
            count.fetch_add(1, Ordering::Relaxed);
            let id = format!("10000000-0000-0000-0000-{n:012}");
            let mut made = machine(&id, &format!("made{n}"), 3);
            made.path = Some(system_path(&id));
            made
        });
        Ok(Box::new(few.into_iter().chain(made).map(Ok)))
    }

    fn associators(&self, _: &Call, _: &str, from: &ObjectPath, walk: &Walk) -> Result<Instances, Failure> {
        let ends: Result<Vec<_>, _> =
            self.around(from, walk)?.iter().map(|(_, other)| self.one(other)).collect();
        let class = walk.result.clone();
        let schema = self.schema.clone();
        let fits = move |item: &Instance| {
            class.as_ref().is_none_or(|class| schema.is_a(item.class.as_str(), class.as_str()))
        };
        Ok(Box::new(ends?.into_iter().filter(fits).map(Ok)))
    }

    fn references(&self, _: &Call, _: &str, from: &ObjectPath, walk: &Walk) -> Result<Instances, Failure> {
        let found = self.around(from, walk)?;
        Ok(Box::new(found.into_iter().map(|(association, _)| Ok(association))))
    }

    fn invoke(
        &self,
        _: &Call,
        _: &str,
        path: &ObjectPath,
        method: &str,
        parameters: Vec<(Name, Option<Value>)>,
    ) -> Result<Output, Failure> {
        let on = self.one(path)?.path.unwrap();
        self.called.lock().unwrap().push((method.to_owned(), on, parameters));
        let job = ObjectPath::new("Msvm_ConcreteJob").with("InstanceID", "job-1").within(NAMESPACE);
        Ok(match method {
            "GetSummaryInformation" => {
                let summary = |name: &str| {
                    Value::from(
                        Instance::new("Msvm_SummaryInformation")
                            .with("Name", name)
                            .with("ThumbnailImage", vec![0u8, 255]),
                    )
                };
                Output::new(0u32)
                    .with("SummaryInformation", Some(Value::Array(vec![summary("one"), summary("two")])))
            }
            _ => Output::new(4096u32).with("Job", Some(job.into())),
        })
    }

    fn subscribe(&self, _: &Call, _: &str, _: Select) -> Result<Box<dyn Events>, Failure> {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        self.subscribers.lock().unwrap().push(Arc::clone(&waiting));
        Ok(Box::new(Subscriber(waiting)))
    }

    fn modify(&self, _: &Call, _: &str, path: &ObjectPath, changed: &Instance) -> Result<Instance, Failure> {
        let one = self.one(path)?;
        let mut all = self.instances.lock().unwrap();
        let there = all.iter_mut().find(|instance| instance.path == one.path).unwrap();
        for (name, value) in &changed.properties {
            there.set(name.clone(), value.clone());
        }
        Ok(there.clone())
    }
}

//! Events: instances that come to be, change and go, told to whoever subscribed.
//!
//! ```text
//!  machines, records, jobs, tasks ── a thread each, that waits for what changes
//!        └──▶ Publisher: makes the owner's instances anew and compares them with the last ones
//!                └──▶ a queue for each subscriber whose query means the event ──▶ Subscription
//! ```
//!
//! Nothing is made, kept or waited for while nobody subscribes. What is compared are the classes that subscribers name; who
//! names none is told of machines, their settings, planned machines and jobs. Two families of classes say the same thing:
//! WMI's `__InstanceCreationEvent` and its kin, and the indications of DSP1054, `CIM_InstCreation` and its.
//!
//! A subscriber that fetches nothing keeps its last [`QUEUE`] events and is told how many it missed: nobody else waits.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use access::Action;
use cim::query::{Place, Select};
use cim::{Instance, Name, Value};
use machine::events::RecordChange;
use uuid::Uuid;
use wsman::{Call, Events, Failure, FailureKind, Fetched};

use crate::owner::{Owner, OwnerId, Scope};
use crate::owners::Owners;
use crate::provider::Namespace;
use crate::system::datetime;
use crate::world::{World, failed};

/// Most events that wait for one subscriber.
const QUEUE: usize = 1000;
/// Most subscriptions at a time.
const MAX_SUBSCRIPTIONS: usize = 1000;
/// How long a thread waits for a change before it looks whether anybody still wants one.
const TICK: Duration = Duration::from_millis(500);
/// How often it is looked which jobs are not told of any more.
const FORGET: Duration = Duration::from_secs(5);

/// The classes of whoever names none.
const ORDINARY: [&str; 4] = [
    "Msvm_ComputerSystem",
    "Msvm_PlannedComputerSystem",
    "Msvm_VirtualSystemSettingData",
    "Msvm_ConcreteJob",
];

/// Properties that are different at every look. That they are is no event.
const RESTLESS: [&str; 2] = ["OnTimeInMilliseconds", "ElapsedTime"];

/// What happened to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Creation,
    Modification,
    Deletion,
}

/// Classes of events that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// WMI's own.
    Intrinsic,
    /// DMTF's.
    Indication,
}

impl Family {
    const ALL: [Self; 2] = [Self::Intrinsic, Self::Indication];

    fn class(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Intrinsic, Kind::Creation) => "__InstanceCreationEvent",
            (Self::Intrinsic, Kind::Modification) => "__InstanceModificationEvent",
            (Self::Intrinsic, Kind::Deletion) => "__InstanceDeletionEvent",
            (Self::Indication, Kind::Creation) => "CIM_InstCreation",
            (Self::Indication, Kind::Modification) => "CIM_InstModification",
            (Self::Indication, Kind::Deletion) => "CIM_InstDeletion",
        }
    }

    /// The property that has the instance.
    fn about(self) -> &'static str {
        match self {
            Self::Intrinsic => "TargetInstance",
            Self::Indication => "SourceInstance",
        }
    }
}

/// One thing that happened.
struct Happening<'h> {
    kind: Kind,
    /// As it is now, or was last.
    instance: &'h Instance,
    previous: Option<&'h Instance>,
    /// The machine that it is of, as the policy asks.
    machine: Option<Uuid>,
}

/// What waits for one subscriber.
struct Queue {
    call: Call,
    select: Select,
    family: Family,
    /// Only instances of this class and those below it.
    class: Option<Name>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Arc<Instance>>,
    dropped: u64,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Arc<Instance>) {
        let mut waiting = self.waiting();
        if waiting.events.len() == QUEUE {
            waiting.events.pop_front();
            waiting.dropped += 1;
        }
        waiting.events.push_back(event);
        if let Some(wake) = &waiting.wake {
            wake();
        }
    }
}

/// Makes events out of changes while somebody wants them.
pub(crate) struct Publisher {
    world: Arc<World>,
    namespace: Arc<Namespace>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscribers: Vec<Arc<Queue>>,
    /// The classes that are compared.
    watched: BTreeSet<&'static str>,
    /// What there was of each owner at the last look.
    known: HashMap<OwnerId, Known>,
    /// Counts the times that there was a first subscriber: threads of an earlier time end.
    epoch: u64,
}

struct Known {
    machine: Option<Uuid>,
    instances: Vec<Instance>,
}

/// What a subscriber holds.
struct Subscription {
    queue: Arc<Queue>,
    publisher: Weak<Publisher>,
}

impl Events for Subscription {
    fn fetch(&mut self, most: usize) -> Fetched {
        let mut waiting = self.queue.waiting();
        let count = waiting.events.len().min(most);
        Fetched {
            dropped: std::mem::take(&mut waiting.dropped),
            events: waiting.events.drain(..count).collect(),
        }
    }

    fn wake(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        let mut waiting = self.queue.waiting();
        if !waiting.events.is_empty() {
            wake();
        }
        waiting.wake = Some(wake);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(publisher) = self.publisher.upgrade() {
            let mut state = publisher.state();
            state.subscribers.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if state.subscribers.is_empty() {
                // Whoever subscribes next begins anew.
                state.epoch += 1;
                state.known.clear();
                state.watched.clear();
            }
        }
    }
}

impl Publisher {
    pub(crate) fn new(world: Arc<World>, namespace: Arc<Namespace>) -> Arc<Self> {
        Arc::new(Self { world, namespace, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has events that `select` means kept for the caller, from now on.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        call: &Call,
        select: Select,
    ) -> Result<Box<dyn Events>, Failure> {
        let schema = &self.namespace.schema;
        let kinds = [Kind::Creation, Kind::Modification, Kind::Deletion];
        let tells = |family: &Family| {
            kinds.iter().any(|kind| schema.is_a(family.class(*kind), select.class.as_str()))
        };
        let family = Family::ALL.into_iter().find(tells).ok_or_else(|| {
            let message = format!(
                "nothing here is told of as {}: subscribe to __InstanceCreationEvent, __InstanceModificationEvent or \
                 __InstanceDeletionEvent, or to the kin of CIM_InstIndication",
                select.class
            );
            Failure::new(FailureKind::NotSupported, message)
        })?;
        let class = select.required_class(family.about()).cloned();
        let named = match &class {
            Some(class) => vec![class.as_str()],
            None => ORDINARY.to_vec(),
        };
        let classes: BTreeSet<&'static str> = named
            .iter()
            .flat_map(|class| self.namespace.of(class))
            .map(|(provider, _)| provider.class)
            .collect();
        if classes.is_empty() {
            let message =
                format!("there are never instances of {}, so nothing happens to them", named.join(", "));
            return Err(Failure::new(FailureKind::NotSupported, message));
        }
        let queue = Arc::new(Queue { call: call.clone(), select, family, class, waiting: Mutex::default() });
        let mut state = self.state();
        if state.subscribers.len() >= MAX_SUBSCRIPTIONS {
            let message = format!("there are {MAX_SUBSCRIPTIONS} subscriptions already");
            return Err(Failure::new(FailureKind::Busy, message));
        }
        if state.subscribers.is_empty() {
            // What changes from here on is heard; what it is compared with is looked at after that.
            self.listen(state.epoch).map_err(|e| failed(&e))?;
        }
        let new: BTreeSet<_> = classes.difference(&state.watched).copied().collect();
        if !new.is_empty() {
            self.begin_to_watch(&mut state, new).map_err(|e| failed(&e))?;
        }
        state.subscribers.push(Arc::clone(&queue));
        drop(state);
        Ok(Box::new(Subscription { queue, publisher: Arc::downgrade(self) }))
    }

    /// Keeps what there is of `classes` now, telling nobody. What is known of others stays as it is: a change of theirs that
    /// was not looked at yet is still to be told of.
    fn begin_to_watch(&self, state: &mut State, classes: BTreeSet<&'static str>) -> machine::Result<()> {
        let scopes = Scope::ALL.into_iter().filter(|scope| self.watches(&classes, *scope));
        for id in Owners::all(&self.world, scopes) {
            let id = id?;
            let Some(owner) = self.world.load(id)? else { continue };
            let Known { machine, instances } = self.known(&classes, &owner);
            let known = state.known.entry(id).or_insert(Known { machine, instances: Vec::new() });
            // A class that was watched may have made instances of one below it.
            let seen: HashSet<_> = known.instances.iter().map(spelled).collect();
            known.instances.extend(instances.into_iter().filter(|one| !seen.contains(&spelled(one))));
        }
        state.watched.extend(classes);
        Ok(())
    }

    fn watches(&self, watched: &BTreeSet<&'static str>, scope: Scope) -> bool {
        self.namespace.providers.iter().any(|p| p.scope() == scope && watched.contains(p.class))
    }

    fn known(&self, watched: &BTreeSet<&'static str>, owner: &Owner) -> Known {
        // A provider of a class below another that is watched makes its instances for both.
        let mut seen = HashSet::new();
        let made = watched.iter().flat_map(|class| self.namespace.made(&self.world, owner, class));
        let instances = made.filter(|one| seen.insert(spelled(one))).collect();
        Known { machine: owner.machine(), instances }
    }

    /// Looks at an owner that may have changed, and tells of what did.
    fn changed(&self, id: OwnerId) {
        let mut state = self.state();
        if state.subscribers.is_empty() {
            return;
        }
        let now = match self.world.load(id) {
            Ok(owner) => owner.map(|owner| self.known(&state.watched, &owner)),
            // The next change of it is compared with what was known before.
            Err(e) => return tracing::warn!("a change is not told of: {}", e.chain()),
        };
        let before = state.known.remove(&id);
        let machine = now.as_ref().or(before.as_ref()).and_then(|known| known.machine);
        let none = Vec::new();
        let were = before.as_ref().map_or(&none, |known| &known.instances);
        let are = now.as_ref().map_or(&none, |known| &known.instances);
        for instance in are {
            match were.iter().find(|was| was.path == instance.path) {
                None => {
                    self.tell(&state, &Happening { kind: Kind::Creation, instance, previous: None, machine });
                }
                Some(was) if differ(was, instance) => {
                    let happening =
                        Happening { kind: Kind::Modification, instance, previous: Some(was), machine };
                    self.tell(&state, &happening);
                }
                Some(_) => {}
            }
        }
        for instance in were.iter().filter(|was| !are.iter().any(|is| is.path == was.path)) {
            self.tell(&state, &Happening { kind: Kind::Deletion, instance, previous: None, machine });
        }
        if let Some(now) = now {
            state.known.insert(id, now);
        }
    }

    /// Hands the event to everybody who wants it and may see what it is about.
    fn tell(&self, state: &State, happening: &Happening<'_>) {
        let schema = &self.namespace.schema;
        let place = Place { schema, server: self.world.host_name(), namespace: self.namespace.name };
        let mut made: [Option<Arc<Instance>>; 2] = [None, None];
        for queue in &state.subscribers {
            let of = |class: &Name| schema.is_a(happening.instance.class.as_str(), class.as_str());
            if !queue.class.as_ref().is_none_or(of)
                || !self.world.may(&queue.call, Action::See, happening.machine)
            {
                continue;
            }
            let slot = &mut made[usize::from(queue.family == Family::Indication)];
            let event = slot.get_or_insert_with(|| Arc::new(self.event(queue.family, happening)));
            if !queue.select.matches(event, &place) {
                continue;
            }
            queue.push(match &queue.select.columns {
                None => Arc::clone(event),
                Some(_) => Arc::new(queue.select.projected(Instance::clone(event))),
            });
        }
    }

    fn event(&self, family: Family, happening: &Happening<'_>) -> Instance {
        let now = self.world.host.now();
        let about = happening.instance.clone();
        let mut event = Instance::new(family.class(happening.kind));
        match family {
            Family::Intrinsic => {
                event.set("TIME_CREATED", Some(file_time(now).into()));
            }
            Family::Indication => {
                event.set("IndicationIdentifier", Some(Uuid::new_v4().to_string().into()));
                event.set("IndicationTime", Some(datetime(now).into()));
                event.set("SourceInstanceHost", Some(self.world.host_name().into()));
                let path = about.path.as_ref().map(|path| path.to_string().into());
                event.set("SourceInstanceModelPath", path);
            }
        }
        event.set(family.about(), Some(Value::Object(Box::new(about))));
        if let Some(previous) = happening.previous {
            event.set("PreviousInstance", Some(Value::Object(Box::new(previous.clone()))));
        }
        let class = self.namespace.schema.class(event.class.as_str());
        class.map_or_else(|| event.clone(), |class| crate::fill::whole(class, &event))
    }

    /// Starts the threads that wait for changes from now on.
    fn listen(self: &Arc<Self>, epoch: u64) -> machine::Result<()> {
        let host = &self.world.host;
        let mut seen = host.machine_changes(0, Duration::ZERO).generation;
        self.pump("events-machines", epoch, move |this| {
            let changes = this.world.host.machine_changes(seen, TICK);
            seen = changes.generation;
            changes.machines.into_iter().for_each(|change| this.changed(OwnerId::Machine(change.id)));
        })?;
        let mut seen = host.jobs().changes(0, Duration::ZERO).generation;
        let mut looked = Instant::now();
        self.pump("events-jobs", epoch, move |this| {
            let changes = this.world.host.jobs().changes(seen, TICK);
            seen = changes.generation;
            changes.jobs.into_iter().for_each(|status| this.changed(OwnerId::Job(status.id.0)));
            if looked.elapsed() >= FORGET {
                looked = Instant::now();
                this.forget();
            }
        })?;
        let mut seen = self.world.tasks.changes(0, Duration::ZERO).0;
        self.pump("events-tasks", epoch, move |this| {
            let (now, tasks) = this.world.tasks.changes(seen, TICK);
            seen = now;
            tasks.into_iter().for_each(|id| this.changed(OwnerId::Job(id)));
        })?;
        let mut records = host.record_changes()?;
        self.pump("events-records", epoch, move |this| match records.next(TICK) {
            Ok(Some(RecordChange::Machine(id))) => this.changed(OwnerId::Machine(id)),
            Ok(Some(RecordChange::Planned(id))) => this.changed(OwnerId::Planned(id)),
            Ok(Some(RecordChange::Switch(id))) => this.changed(OwnerId::Switch(id)),
            Ok(None) => {}
            Err(e) => {
                tracing::warn!("changes may have been missed: {}", e.chain());
                // Begun anew before everything is looked at, so that nothing falls in between.
                match this.world.host.record_changes() {
                    Ok(anew) => records = anew,
                    Err(e) => tracing::warn!("changes are not heard of: {}", e.chain()),
                }
                this.compare_everything();
                // A store that fails goes on failing: the log need not be filled with it.
                std::thread::sleep(TICK);
            }
        })
    }

    fn pump(
        self: &Arc<Self>,
        name: &str,
        epoch: u64,
        mut next: impl FnMut(&Self) + Send + 'static,
    ) -> machine::Result<()> {
        let weak = Arc::downgrade(self);
        let run = move || {
            while let Some(this) = weak.upgrade() {
                if this.state().epoch != epoch {
                    return;
                }
                next(&this);
            }
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let none = |e| machine::Error::new(machine::Reason::Busy, "no thread can be had").caused_by(e);
        spawned.map(drop).map_err(none)
    }

    /// Tells of jobs that are not told of any more.
    fn forget(&self) {
        let jobs: Vec<_> =
            self.state().known.keys().filter(|id| matches!(id, OwnerId::Job(_))).copied().collect();
        for id in jobs {
            if matches!(self.world.load(id), Ok(None)) {
                self.changed(id);
            }
        }
    }

    /// Looks at everything that is there or was.
    fn compare_everything(&self) {
        let (mut ids, watched) = {
            let state = self.state();
            (state.known.keys().copied().collect::<HashSet<_>>(), state.watched.clone())
        };
        let scopes = Scope::ALL.into_iter().filter(|scope| self.watches(&watched, *scope));
        ids.extend(Owners::all(&self.world, scopes).flatten());
        for id in ids {
            self.changed(id);
        }
    }
}

/// The path of an instance as a text, to tell it from others.
fn spelled(instance: &Instance) -> Option<String> {
    instance.path.as_ref().map(ToString::to_string)
}

/// Whether anything is different that does not change by itself.
fn differ(one: &Instance, other: &Instance) -> bool {
    one.properties.len() != other.properties.len()
        || one.properties.iter().zip(&other.properties).any(|((name, value), (_, now))| {
            value != now && !RESTLESS.iter().any(|restless| *name == *restless)
        })
}

/// Windows' count of 100 nanoseconds since 1601.
fn file_time(time: jiff::Timestamp) -> u64 {
    const TO_1970: i128 = 116_444_736_000_000_000;
    u64::try_from(time.as_nanosecond() / 100 + TO_1970).unwrap_or_default()
}

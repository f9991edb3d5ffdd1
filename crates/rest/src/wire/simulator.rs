//! The simulator: its clock, its guests, what goes wrong on purpose, and the scenario that it begins with.
//!
//! A scenario speaks the same words as the requests: what a machine, a switch, a fault or an event is in the file, it is
//! in a request too.

use std::time::Duration;

use engine::sim::{self, Effect, Happening, Place, Rule};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::machine::{Define, NewDisk, parse, parse_option, word};
use super::switch::CreateSwitch;

/// Milliseconds of a time.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The simulation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Simulator {
    /// What all its choices are made from.
    pub seed: u64,
    /// Its time.
    pub clock: SimulatorClock,
    /// Guests that run.
    pub guests: Vec<SimulatedGuest>,
}

/// The simulation's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SimulatorClock {
    /// `real`, or `manual`: it stands until it is advanced.
    pub mode: String,
    /// Milliseconds since the simulation began.
    pub elapsed_ms: u64,
    /// The time of day that records and jobs get.
    pub time: String,
}

/// What moves the time, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetClock {
    /// `real` or `manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Milliseconds since the simulation began, not before now: what is due until then happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
}

/// How far to move the time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Advance {
    /// Milliseconds.
    pub ms: u64,
}

/// A guest as the simulator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SimulatedGuest {
    /// The machine.
    pub machine: Uuid,
    /// Its name when it was started.
    pub name: String,
    /// `running`, `paused`, `frozen` or `shutting-down`.
    pub state: String,
    /// It has said `GUEST-READY`.
    pub ready: bool,
    /// What it has counted to.
    pub counter: u64,
    /// Milliseconds that its processors have run since power or reset.
    pub uptime_ms: u64,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// How a guest behaves; what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// Milliseconds from power to `GUEST-READY`; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_ms: Option<u64>,
    /// Milliseconds from being asked to shut down to having done so; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_ms: Option<u64>,
    /// It shuts down when asked (the default), or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obeys_shutdown: Option<bool>,
    /// Its agent answers; not by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<bool>,
    /// Milliseconds from one count to the next, 0 for never; 1000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick_ms: Option<u64>,
}

/// Something that is to go wrong: an `operation` or a `job`, and one of `fail`, `delay_ms` and `stall`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFault {
    /// Name or id of the machine; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// `start`, `restore`, `pause`, `resume`, `reset`, `can-save`, `save`, `thaw`, `power-off`, `shutdown`, `screenshot`,
    /// `send-keys`, `interrupt`, `change-media`, `eject`, `set-link` or `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// A kind of job, such as `export`; `any` is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Where in the job, 0 to 100; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// The first time that counts; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// How often; once by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Not `times` but for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forever: bool,
    /// It fails so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<FaultFailure>,
    /// An operation takes so much longer, by the simulation's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// It hangs until the fault is cleared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stall: bool,
}

/// How something fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultFailure {
    /// The engine's kind of error (`no-resources` of a start, `refused` of another operation, ...), or a job failure's id.
    pub kind: String,
    /// The engine's words.
    #[serde(default = "on_purpose")]
    pub message: String,
}

fn on_purpose() -> String {
    "failed on purpose".to_owned()
}

/// Something that is to go wrong, and whether it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Its number.
    pub id: u64,
    /// What.
    pub rule: NewFault,
    /// How often it was met.
    pub met: u64,
    /// How often it had its effect.
    pub hits: u64,
    /// It has had its effect as often as it will.
    pub spent: bool,
}

/// Faults, in the order they were added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultList {
    /// The faults.
    pub faults: Vec<Fault>,
}

/// Something that a guest does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Name or id of the machine.
    pub machine: String,
    /// `kill` (its process dies), `panic`, `power-off`, `reboot`, `disk-error` or `say`.
    pub event: String,
    /// Milliseconds from now by the simulation's clock; at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// What is known of why, of `kill` and `disk-error`; the line of `say`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The disk that fails, such as `disk0`; the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

/// Something that a guest will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SimulatedEvent {
    /// Its number.
    pub id: u64,
    /// The machine.
    pub machine: String,
    /// What.
    pub event: String,
    /// When, in milliseconds since the simulation began.
    pub at_ms: u64,
}

/// Events that wait, in the order they were planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The events.
    pub events: Vec<SimulatedEvent>,
}

/// How many were taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cleared {
    /// How many.
    pub cleared: usize,
}

/// How to begin anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// With this scenario; with the one of the start when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
}

/// What a simulation begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What all choices are made from.
    #[serde(default)]
    pub seed: u64,
    /// Its time.
    #[serde(default)]
    pub clock: ScenarioClock,
    /// How guests behave that nothing else is said of.
    #[serde(default)]
    pub guests: Behaviour,
    /// Switches, beside `nat`.
    #[serde(default)]
    pub switches: Vec<CreateSwitch>,
    /// Machines.
    #[serde(default)]
    pub machines: Vec<ScenarioMachine>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<NewFault>,
    /// What guests do, counted from the beginning.
    #[serde(default)]
    pub events: Vec<NewEvent>,
}

/// A scenario's time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioClock {
    /// `manual` (the default: it stands until it is advanced) or `real`.
    #[serde(default)]
    pub mode: Option<String>,
    /// The time of day at the beginning, RFC 3339; 2025-01-01T00:00:00Z by default.
    #[serde(default)]
    pub start: Option<String>,
}

/// A machine of a scenario: as a machine is defined, and what it is in the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioMachine {
    /// Name. With `count`, its beginning: a number follows.
    pub name: String,
    /// So many alike.
    #[serde(default)]
    pub count: Option<u32>,
    /// Id; one that follows from seed and name by default.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// 1 or 2; 2 by default.
    #[serde(default)]
    pub generation: Option<u8>,
    /// Virtual processors.
    #[serde(default)]
    pub processors: Option<u32>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Secure Boot.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// A TPM.
    #[serde(default)]
    pub tpm: bool,
    /// Disks.
    #[serde(default)]
    pub disks: Vec<ScenarioDisk>,
    /// A DVD drive with this image; an empty string is an empty drive.
    #[serde(default)]
    pub dvd: Option<String>,
    /// One adapter for each switch named; an empty string is one that is not plugged in.
    #[serde(default)]
    pub adapters: Vec<String>,
    /// `compat` or `virtio`.
    #[serde(default)]
    pub hardware: Option<String>,
    /// A bus for all disks.
    #[serde(default)]
    pub disk_bus: Option<String>,
    /// A model for all adapters.
    #[serde(default)]
    pub nic_model: Option<String>,
    /// `off` (the default), `running`, `paused` or `saved`.
    #[serde(default)]
    pub state: Option<String>,
    /// How its guest behaves.
    #[serde(default)]
    pub guest: Option<Behaviour>,
}

/// A disk of a scenario: a sparse raw file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioDisk {
    /// Bytes.
    pub size: u64,
    /// Logical sector size: 512 (default) or 4096.
    #[serde(default)]
    pub sector: Option<u32>,
    /// Bytes from its beginning that the seed fills; 65536 by default.
    #[serde(default)]
    pub seeded_bytes: Option<u64>,
}

impl ScenarioMachine {
    /// The request that makes the machine by this name.
    pub fn define(&self, name: &str, id: Uuid) -> Define {
        let disk = |d: &ScenarioDisk| NewDisk { size: Some(d.size), sector: d.sector, ..NewDisk::default() };
        Define {
            name: name.to_owned(),
            generation: self.generation,
            id: Some(id),
            processors: self.processors,
            memory_mib: self.memory_mib,
            secure_boot: self.secure_boot,
            tpm: self.tpm,
            disks: self.disks.iter().map(disk).collect(),
            dvd: self.dvd.clone(),
            adapters: self.adapters.clone(),
            hardware: self.hardware.clone(),
            disk_bus: self.disk_bus.clone(),
            nic_model: self.nic_model.clone(),
        }
    }
}

impl Behaviour {
    /// `now` with what is said here.
    pub fn over(self, now: sim::Behaviour) -> sim::Behaviour {
        let time = |ms: Option<u64>, now| ms.map_or(now, Duration::from_millis);
        sim::Behaviour {
            boot: time(self.boot_ms, now.boot),
            shutdown: time(self.shutdown_ms, now.shutdown),
            obeys_shutdown: self.obeys_shutdown.unwrap_or(now.obeys_shutdown),
            agent: self.agent.unwrap_or(now.agent),
            tick: time(self.tick_ms, now.tick),
        }
    }
}

impl From<sim::Behaviour> for Behaviour {
    fn from(b: sim::Behaviour) -> Self {
        Self {
            boot_ms: Some(ms(b.boot)),
            shutdown_ms: Some(ms(b.shutdown)),
            obeys_shutdown: Some(b.obeys_shutdown),
            agent: Some(b.agent),
            tick_ms: Some(ms(b.tick)),
        }
    }
}

impl From<sim::GuestView> for SimulatedGuest {
    fn from(g: sim::GuestView) -> Self {
        Self {
            machine: g.id,
            name: g.name,
            state: word(&g.state),
            ready: g.ready,
            counter: g.counter,
            uptime_ms: ms(g.uptime),
            behaviour: g.behaviour.into(),
        }
    }
}

/// The engine's clock mode from the wire's word.
///
/// # Errors
/// The word is none of those allowed.
pub fn clock_mode(text: Option<&str>) -> Result<Option<sim::ClockMode>, String> {
    parse_option("clock mode", text)
}

impl TryFrom<NewFault> for Rule {
    type Error = String;

    fn try_from(f: NewFault) -> Result<Self, String> {
        let place = match (f.operation, f.job) {
            (Some(operation), None) if f.percent.is_none() => {
                Place::Operation(parse("operation", &operation)?)
            }
            (Some(_), None) => return Err("`percent` is of a job, not of an operation".to_owned()),
            (None, Some(kind)) => {
                Place::Job { kind: (kind != "any").then_some(kind), percent: f.percent.unwrap_or(0) }
            }
            _ => return Err("a fault takes either `operation` or `job`".to_owned()),
        };
        let effect = match (f.fail, f.delay_ms, f.stall) {
            (Some(FaultFailure { kind, message }), None, false) => Effect::Fail { kind, message },
            (None, Some(ms), false) => Effect::Delay(Duration::from_millis(ms)),
            (None, None, true) => Effect::Stall,
            _ => return Err("a fault takes one of `fail`, `delay_ms` and `stall`".to_owned()),
        };
        if f.forever && f.times.is_some() {
            return Err("a fault takes `times` or `forever`, not both".to_owned());
        }
        let times = if f.forever { None } else { Some(f.times.unwrap_or(1)) };
        let rule = Self { machine: f.machine, place, nth: f.nth.unwrap_or(1), times, effect };
        rule.validate().map_err(|e| e.to_string())?;
        Ok(rule)
    }
}

impl From<sim::Fault> for Fault {
    fn from(f: sim::Fault) -> Self {
        let (hits, spent) = (f.hits(), f.spent());
        let mut rule = NewFault {
            machine: f.rule.machine,
            nth: Some(f.rule.nth),
            times: f.rule.times,
            forever: f.rule.times.is_none(),
            ..NewFault::default()
        };
        match f.rule.place {
            Place::Operation(operation) => rule.operation = Some(word(&operation)),
            Place::Job { kind, percent } => {
                rule.job = Some(kind.unwrap_or_else(|| "any".to_owned()));
                rule.percent = Some(percent);
            }
        }
        match f.rule.effect {
            Effect::Fail { kind, message } => rule.fail = Some(FaultFailure { kind, message }),
            Effect::Delay(by) => rule.delay_ms = Some(ms(by)),
            Effect::Stall => rule.stall = true,
        }
        Self { id: f.id, rule, met: f.met, hits, spent }
    }
}

impl NewEvent {
    /// What happens.
    ///
    /// # Errors
    /// There is no such event, or it takes no such words.
    pub fn happening(&self) -> Result<Happening, String> {
        let text = |default: &str| self.text.clone().unwrap_or_else(|| default.to_owned());
        let what = match self.event.as_str() {
            "kill" => Happening::Kill { message: text("killed by the simulator") },
            "panic" => Happening::Panic,
            "power-off" => Happening::PowerOff,
            "reboot" => Happening::Reboot,
            "disk-error" => {
                Happening::DiskError { disk: self.disk.clone(), message: text("Input/output error") }
            }
            "say" => Happening::Say { text: text("") },
            other => {
                let known = "kill, panic, power-off, reboot, disk-error or say";
                return Err(format!("`{other}` is no event: expected {known}"));
            }
        };
        if self.disk.is_some() && self.event != "disk-error" {
            return Err(format!("`disk` is of a disk-error, not of `{}`", self.event));
        }
        if self.text.is_some() && matches!(self.event.as_str(), "panic" | "power-off" | "reboot") {
            return Err(format!("`{}` says nothing: leave `text` out", self.event));
        }
        Ok(what)
    }
}

impl From<sim::Event> for SimulatedEvent {
    fn from(e: sim::Event) -> Self {
        let event = match e.what {
            Happening::Kill { .. } => "kill",
            Happening::Panic => "panic",
            Happening::PowerOff => "power-off",
            Happening::Reboot => "reboot",
            Happening::DiskError { .. } => "disk-error",
            Happening::Say { .. } => "say",
        };
        Self { id: e.id, machine: e.machine, event: event.to_owned(), at_ms: ms(e.at) }
    }
}

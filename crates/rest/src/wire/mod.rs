//! What travels: the types of `/v1`, apart from the domain's.
//!
//! A field here is a promise: it may be added, never renamed or given another meaning. Conversions from the domain live
//! beside each type. Everything is JSON; sizes are bytes unless the name says MiB; times are RFC 3339.

mod host;
mod job;
mod machine;
mod planned;
mod simulator;
mod switch;
mod user;

pub use host::{Check, Doctor, Problem, ProblemBody, Version};
pub(crate) use job::state_name;
pub use job::{Failure, Job, JobList, JobReference, Warning};
pub use machine::{
    Adapter, AdapterEdit, Automatic, Autostop, AutostopReport, Autostopped, Chord, Console, Define, Disk,
    Drive, Edit, Export, Machine, MachineEvent, MachineList, NewDisk, Saved, SendKeys, Shutdown,
};
pub use planned::{Finding, Import, Planned, PlannedDisk, PlannedEdit, PlannedList, SwitchTarget};
pub use simulator::{
    Advance, Behaviour, Cleared, EventList, Fault, FaultFailure, FaultList, NewEvent, NewFault, Reset,
    Scenario, ScenarioClock, ScenarioDisk, ScenarioMachine, SetClock, SimulatedEvent, SimulatedGuest,
    Simulator, SimulatorClock, clock_mode,
};
pub use switch::{CreateSwitch, MapSwitch, Switch, SwitchList};
pub use user::{MachineGrant, NewUser, User, UserEdit, UserList};

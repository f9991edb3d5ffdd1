//! What goes wrong on purpose: rules that operations meet.
//!
//! A [`Rule`] says which operation of which machine, the how-manieth time, and what becomes of it: it fails, takes
//! longer, or hangs until the rule is cleared. Rules are matched in the order they were added; every one that fits counts
//! the operation, delays add up, and the first failure is the operation's. The times of [`Effect::Delay`] are the
//! simulator's, so a driven clock drives them too.
//!
//! Operations on guests meet the rules inside the engine. Jobs are above it: whoever runs them asks
//! [`Faults::job_stop`] where a job is to stop, and [`Faults::stand`] for how long.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::clock::Timeline;
use super::lock;
use crate::error::{GuestErrorKind, StartErrorKind};

/// Most rules at a time.
pub const MAX_RULES: usize = 1000;
/// Longest delay of one rule.
pub const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);
/// Longest message, name or word in a rule, in bytes.
pub(super) const MAX_TEXT: usize = 1024;
/// How often somebody who hangs looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

/// What can be asked of an engine and its guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the methods of Engine and Guest")]
pub enum Operation {
    Start,
    Restore,
    Pause,
    Resume,
    Reset,
    CanSave,
    Save,
    Thaw,
    PowerOff,
    Shutdown,
    Screenshot,
    SendKeys,
    Interrupt,
    ChangeMedia,
    Eject,
    SetLink,
    Agent,
}

/// Where a rule lies in wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// At the beginning of an operation.
    Operation(Operation),
    /// In a job, when it has come so far.
    Job {
        /// Its kind, such as `export`; `None` is any.
        kind: Option<String>,
        /// 0 to 100, as the job tells it.
        percent: u8,
    },
}

/// What becomes of what meets a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It fails.
    Fail {
        /// The kind of error, by its name: [`StartErrorKind`] of a start or restore, [`GuestErrorKind`] of another operation, the
        /// failure's id of a job.
        kind: String,
        /// The engine's words.
        message: String,
    },
    /// It takes so much longer.
    Delay(Duration),
    /// It hangs until the rule is cleared.
    Stall,
}

/// When what happens to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Name or id of the machine; `None` is any.
    pub machine: Option<String>,
    /// Where.
    pub place: Place,
    /// The first time that counts, from 1.
    pub nth: u64,
    /// How often, from then on; `None` is for ever.
    pub times: Option<u64>,
    /// What.
    pub effect: Effect,
}

/// A rule in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its number, from 1, never given twice.
    pub id: u64,
    /// The rule.
    pub rule: Rule,
    /// How often it was met so far, whether or not that counted.
    pub met: u64,
}

impl Fault {
    /// How often it had its effect.
    pub fn hits(&self) -> u64 {
        let counted = self.met.saturating_sub(self.rule.nth - 1);
        self.rule.times.map_or(counted, |times| counted.min(times))
    }

    /// Nothing will meet it any more.
    pub fn spent(&self) -> bool {
        self.rule.times.is_some_and(|times| self.hits() >= times)
    }

    /// Counts a meeting; whether it has its effect.
    fn meet(&mut self) -> bool {
        let before = self.hits();
        self.met += 1;
        self.hits() > before
    }
}

/// Why a rule cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct RuleError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

fn bad<T>(field: &'static str, problem: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError { field, problem: problem.into() })
}

/// A unit enum from its serde name.
pub(super) fn named<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|e| e.to_string())
}

impl Rule {
    /// Refuses what could never mean anything.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), RuleError> {
        for (field, text) in [("machine", self.machine.as_deref()), ("message", self.message())] {
            if text.is_some_and(|t| t.is_empty() || t.len() > MAX_TEXT || t.contains(char::is_control)) {
                return bad(field, format!("expected 1 to {MAX_TEXT} bytes without control characters"));
            }
        }
        if self.nth == 0 {
            return bad("nth", "is counted from 1");
        }
        if self.times == Some(0) {
            return bad("times", "is at least 1");
        }
        match (&self.effect, &self.place) {
            (Effect::Delay(by), _) if by.is_zero() || *by > MAX_DELAY => {
                return bad("delay", format!("is between 1 ms and {} s", MAX_DELAY.as_secs()));
            }
            (Effect::Delay(_), Place::Job { .. }) => {
                return bad("delay", "a job is not delayed: let it stall, and clear the fault");
            }
            (Effect::Fail { kind, .. }, Place::Operation(Operation::Start | Operation::Restore)) => {
                named::<StartErrorKind>(kind)
                    .or_else(|why| bad("kind", format!("no start fails so: {why}")))?;
            }
            (Effect::Fail { kind, .. }, Place::Operation(_)) => {
                named::<GuestErrorKind>(kind)
                    .or_else(|why| bad("kind", format!("no such operation fails so: {why}")))?;
            }
            (Effect::Fail { kind, .. }, Place::Job { .. }) => {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                if kind.is_empty() || kind.len() > 64 || !kind.chars().all(plain) {
                    return bad("kind", format!("`{kind}` is no failure's id, such as `io` or `no-space`"));
                }
            }
            _ => {}
        }
        match &self.place {
            Place::Job { percent, .. } if *percent > 100 => bad("percent", "is between 0 and 100"),
            _ => Ok(()),
        }
    }

    fn message(&self) -> Option<&str> {
        match &self.effect {
            Effect::Fail { message, .. } => Some(message),
            _ => None,
        }
    }

    fn fits(&self, machine: &Named<'_>) -> bool {
        self.machine.as_deref().is_none_or(|word| machine.is(word))
    }
}

/// A machine by its two names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: &'a str,
}

impl Named<'_> {
    fn is(&self, word: &str) -> bool {
        self.name == word || Uuid::try_parse(word).is_ok_and(|id| id == self.id)
    }
}

/// Where a job is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStop {
    /// The rule's number.
    pub fault: u64,
    /// When the job has come so far.
    pub percent: u8,
}

/// What was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// The kind of error, by its name.
    pub kind: String,
    /// The words.
    pub message: String,
}

/// All rules in force. Cloned handles share them.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
    time: Arc<Timeline>,
}

struct Shared {
    rules: Mutex<Rules>,
    changed: Condvar,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rules {
    given: u64,
    faults: Vec<Fault>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    pub(super) fn new(time: Arc<Timeline>, rules: Rules) -> Self {
        Self { shared: Arc::new(Shared { rules: Mutex::new(rules), changed: Condvar::new() }), time }
    }

    pub(super) fn add(&self, rule: Rule) -> Result<Fault, RuleError> {
        rule.validate()?;
        let mut rules = lock(&self.shared.rules);
        if rules.faults.len() >= MAX_RULES {
            return bad("faults", format!("there are {MAX_RULES} already; clear some"));
        }
        rules.given += 1;
        let fault = Fault { id: rules.given, rule, met: 0 };
        rules.faults.push(fault.clone());
        Ok(fault)
    }

    /// Whether there is no rule at all.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.shared.rules).faults.is_empty()
    }

    /// Every rule, in the order they were added.
    pub fn list(&self) -> Vec<Fault> {
        lock(&self.shared.rules).faults.clone()
    }

    pub(super) fn clear(&self, id: u64) -> bool {
        let mut rules = lock(&self.shared.rules);
        let before = rules.faults.len();
        rules.faults.retain(|f| f.id != id);
        self.shared.changed.notify_all();
        rules.faults.len() < before
    }

    pub(super) fn clear_all(&self) -> usize {
        let mut rules = lock(&self.shared.rules);
        self.shared.changed.notify_all();
        std::mem::take(&mut rules.faults).len()
    }

    pub(super) fn rules(&self) -> Rules {
        lock(&self.shared.rules).clone()
    }

    /// Forgets all rules and counts them from 1 again.
    pub(super) fn restart(&self) {
        let mut rules = lock(&self.shared.rules);
        *rules = Rules::default();
        self.shared.changed.notify_all();
    }

    /// Lets `operation` of `machine` meet what lies in wait for it: waits as long as that takes, and returns the failure
    /// it meets. `gone` says that the guest is no more, which ends every wait.
    pub(super) fn meet(
        &self,
        operation: Operation,
        machine: &Named<'_>,
        gone: &dyn Fn() -> bool,
    ) -> Result<(), Met> {
        let hits: Vec<(u64, Effect)> = {
            let mut rules = lock(&self.shared.rules);
            let mut hits = Vec::new();
            for fault in &mut rules.faults {
                if fault.rule.place == Place::Operation(operation) && fault.rule.fits(machine) && fault.meet()
                {
                    hits.push((fault.id, fault.rule.effect.clone()));
                }
            }
            hits
        };
        for (id, effect) in hits {
            match effect {
                Effect::Delay(by) => {
                    self.time.wait_until(self.time.now() + by, gone);
                }
                Effect::Stall => self.hang(id, gone),
                Effect::Fail { kind, message } => return Err(Met { kind, message }),
            }
        }
        Ok(())
    }

    fn hang(&self, id: u64, over: &dyn Fn() -> bool) {
        let mut rules = lock(&self.shared.rules);
        while rules.faults.iter().any(|f| f.id == id) {
            rules = super::wait(&self.shared.changed, rules, LOOK);
            drop(rules);
            if over() {
                return;
            }
            rules = lock(&self.shared.rules);
        }
    }

    /// Whether any rule is about jobs: a cheap question, asked often.
    pub fn concern_jobs(&self) -> bool {
        lock(&self.shared.rules).faults.iter().any(|f| matches!(f.rule.place, Place::Job { .. }))
    }

    /// The first stop of a job of `kind` about `machine` that has come from `reached` to `coming` percent. Does not count
    /// as a meeting; [`Self::stand`] does.
    pub fn job_stop(&self, kind: &str, machine: &Named<'_>, reached: u8, coming: u8) -> Option<JobStop> {
        let rules = lock(&self.shared.rules);
        let stops = rules.faults.iter().filter_map(|fault| match &fault.rule.place {
            Place::Job { kind: wanted, percent }
                if wanted.as_deref().is_none_or(|wanted| wanted == kind)
                    && *percent <= coming
                    && fault.rule.fits(machine)
                    && !fault.spent() =>
            {
                Some(JobStop { fault: fault.id, percent: (*percent).max(reached) })
            }
            _ => None,
        });
        stops.min_by_key(|stop| (stop.percent, stop.fault))
    }

    /// A job stands at a stop: waits as long as the rule says and returns the failure that it is to have. `interrupted`
    /// says that the job is to end for another reason.
    ///
    /// # Errors
    /// The failure.
    pub fn stand(&self, fault: u64, interrupted: &dyn Fn() -> bool) -> Result<(), Met> {
        let effect = {
            let mut rules = lock(&self.shared.rules);
            let Some(fault) = rules.faults.iter_mut().find(|f| f.id == fault) else { return Ok(()) };
            if !fault.meet() {
                return Ok(());
            }
            fault.rule.effect.clone()
        };
        match effect {
            Effect::Fail { kind, message } => Err(Met { kind, message }),
            Effect::Stall => {
                self.hang(fault, interrupted);
                Ok(())
            }
            Effect::Delay(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::ClockMode;
    use super::*;

    fn faults() -> Faults {
        Faults::new(Timeline::new(ClockMode::Manual, Duration::ZERO), Rules::default())
    }

    fn rule(place: Place, effect: Effect) -> Rule {
        Rule { machine: None, place, nth: 1, times: Some(1), effect }
    }

    fn fails(kind: &str) -> Effect {
        Effect::Fail { kind: kind.into(), message: "on purpose".into() }
    }

    const WEB: Named<'_> = Named { id: Uuid::from_u128(7), name: "web" };
    const NEVER: &dyn Fn() -> bool = &|| false;

    #[test]
    fn a_rule_is_met_the_nth_time_as_often_as_it_says_and_by_whom_it_names() {
        let faults = faults();
        let pause = Place::Operation(Operation::Pause);
        let fault = faults
            .add(Rule {
                machine: Some("web".into()),
                nth: 2,
                times: Some(2),
                ..rule(pause, fails("refused"))
            })
            .unwrap();
        let other = Named { id: Uuid::from_u128(8), name: "db" };
        let mut met = Vec::new();
        for _ in 0..4 {
            assert_eq!(faults.meet(Operation::Pause, &other, NEVER), Ok(()));
            assert_eq!(faults.meet(Operation::Resume, &WEB, NEVER), Ok(()));
            met.push(faults.meet(Operation::Pause, &WEB, NEVER).is_err());
        }
        assert_eq!(met, [false, true, true, false]);
        let now = &faults.list()[0];
        assert_eq!((now.id, now.met, now.hits(), now.spent()), (fault.id, 4, 2, true));
        assert!(faults.clear(fault.id) && !faults.clear(fault.id));
        let by_id = Rule {
            machine: Some(WEB.id.to_string()),
            ..rule(Place::Operation(Operation::Eject), fails("locked"))
        };
        faults.add(Rule { times: None, ..by_id }).unwrap();
        for _ in 0..3 {
            let met = faults.meet(Operation::Eject, &WEB, NEVER).unwrap_err();
            assert_eq!(met, Met { kind: "locked".into(), message: "on purpose".into() });
        }
    }

    #[test]
    fn rules_that_mean_nothing_are_refused_by_field() {
        let start = Place::Operation(Operation::Start);
        let job = Place::Job { kind: None, percent: 101 };
        let ok = rule(start.clone(), Effect::Stall);
        for (field, wrong) in [
            ("kind", rule(start.clone(), fails("locked"))),
            ("kind", rule(Place::Operation(Operation::Eject), fails("no-firmware"))),
            ("percent", rule(job.clone(), Effect::Stall)),
            ("kind", rule(Place::Job { kind: None, percent: 4 }, fails("No Space"))),
            ("delay", rule(start, Effect::Delay(Duration::ZERO))),
            ("delay", rule(job, Effect::Delay(Duration::from_secs(1)))),
            ("nth", Rule { nth: 0, ..ok.clone() }),
            ("times", Rule { times: Some(0), ..ok.clone() }),
            ("machine", Rule { machine: Some("a\nb".into()), ..ok.clone() }),
        ] {
            assert_eq!(wrong.validate().unwrap_err().field, field, "{wrong:?}");
        }
        assert_eq!(ok.validate(), Ok(()));
    }

    #[test]
    fn delays_go_by_the_simulators_clock_and_stalls_end_when_cleared() {
        let faults = faults();
        let place = Place::Operation(Operation::Start);
        faults.add(rule(place.clone(), Effect::Delay(Duration::from_secs(60)))).unwrap();
        let stall = faults.add(rule(place, Effect::Stall)).unwrap();
        let (done, seen) = std::sync::mpsc::channel();
        let inside = faults.clone();
        let thread = std::thread::spawn(move || {
            let met = inside.meet(Operation::Start, &WEB, NEVER);
            let _ = done.send(());
            met
        });
        while faults.list()[0].met == 0 {
            std::thread::yield_now();
        }
        faults.time.advance(Duration::from_secs(60));
        assert!(seen.try_recv().is_err(), "the stall holds it");
        faults.clear(stall.id);
        assert_eq!(thread.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_jobs_first_stop_is_the_lowest_and_counts_when_it_stands_there() {
        let faults = faults();
        let at = |kind: Option<&str>, percent| Place::Job { kind: kind.map(str::to_owned), percent };
        assert!(!faults.concern_jobs());
        let late = faults.add(rule(at(Some("export"), 70), fails("io"))).unwrap();
        let early = faults.add(rule(at(None, 40), Effect::Stall)).unwrap();
        assert!(faults.concern_jobs());
        assert_eq!(faults.job_stop("export", &WEB, 0, 39), None);
        let stop = faults.job_stop("export", &WEB, 0, 99).unwrap();
        assert_eq!(stop, JobStop { fault: early.id, percent: 40 });
        assert_eq!(faults.stand(stop.fault, &|| true), Ok(()), "interrupted");
        let stop = faults.job_stop("export", &WEB, 80, 99).unwrap();
        assert_eq!(stop, JobStop { fault: late.id, percent: 80 }, "where it has come to already");
        assert_eq!(faults.stand(stop.fault, NEVER).unwrap_err().kind, "io");
        assert_eq!(faults.job_stop("export", &WEB, 0, 100), None, "both are spent");
        assert_eq!(faults.job_stop("import", &WEB, 0, 100), None);
    }
}

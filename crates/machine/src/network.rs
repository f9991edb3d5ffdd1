//! Switches of the host: list, create, change, map, delete; and the bridges that they can connect to.
//!
//! Machines name the switch that they are plugged into, so a switch that gets another name changes their records too, in the
//! same transaction. Who is plugged in is known without looking at every machine ([`crate::lookup`]).

use std::path::Path;

use store::{Condition, MAX_OPERATIONS, Operation};
use transfer::shell;
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::import::planned_key;
use crate::planned::Plug;
use crate::record::{self, PlannedRecord, SWITCHES, machine_key};
use crate::settings::Settings;
use crate::switch::{Bridge, NewSwitch, SourceName, SwitchEdit, SwitchKind, SwitchRecord, SwitchTarget};

/// Most machines and planned machines that are plugged into a switch that gets another name: one transaction changes them
/// all, and the switch.
pub const MAX_RENAMED: usize = MAX_OPERATIONS - 1;
/// Longest notes of a switch, in bytes.
pub const MAX_NOTES: usize = 8 << 10;
/// How often a change is tried again when machines are plugged in or out meanwhile.
const MAX_ATTEMPTS: usize = 16;

impl Host {
    /// Every switch, by name.
    ///
    /// # Errors
    /// The store fails.
    pub fn switches(&self) -> Result<Vec<SwitchRecord>> {
        let mut all: Vec<SwitchRecord> = record::list(&*self.store, SWITCHES)?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The switch called `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn switch(&self, name: &str) -> Result<SwitchRecord> {
        let all = self.switches()?;
        let by_id = Uuid::try_parse(name).ok();
        all.into_iter().find(|s| s.name == name || Some(s.id) == by_id).ok_or_else(|| {
            Error::new(Reason::NotFound, format!("no switch is called `{name}`"))
                .hint("`slipway switch list` shows what there is")
        })
    }

    /// Creates a switch of a name and a kind.
    ///
    /// # Errors
    /// As [`Self::make_switch`].
    pub fn create_switch(&self, name: &str, kind: SwitchKind) -> Result<SwitchRecord> {
        self.make_switch(NewSwitch { id: None, name: name.to_owned(), kind, notes: String::new() })
    }

    /// Creates a switch.
    ///
    /// # Errors
    /// The name or the id is taken, the name or the notes are unusable, or the bridge does not exist.
    pub fn make_switch(&self, new: NewSwitch) -> Result<SwitchRecord> {
        let _names = self.switch_names();
        self.check_switch_name(&new.name)?;
        self.check_switch_kind(&new.kind)?;
        check_notes(&new.notes)?;
        let id = new.id.unwrap_or_else(|| self.fresh_id());
        let record = SwitchRecord { notes: new.notes, ..SwitchRecord::new(id, new.name, new.kind) };
        let key = switch_key(id);
        let put = record::put(key.clone(), &record)?;
        if !record::commit(&*self.store, vec![Condition::Absent(key)], vec![put])? {
            let message = format!("a switch with the id {id} exists already");
            return Err(Error::new(Reason::AlreadyExists, message));
        }
        Ok(record)
    }

    fn check_switch_name(&self, name: &str) -> Result<()> {
        if let Some(why) = crate::settings::name_problem(name) {
            return Err(Error::new(Reason::InvalidArgument, why.replace("machine", "switch")));
        }
        if self.switches()?.iter().any(|s| s.name == name) {
            return Err(Error::new(
                Reason::AlreadyExists,
                format!("a switch called `{name}` exists already"),
            )
            .hint(format!(
                "choose another name; `slipway switch show {}` tells what it is",
                shell::word(name)
            )));
        }
        Ok(())
    }

    fn check_switch_kind(&self, kind: &SwitchKind) -> Result<()> {
        match kind {
            SwitchKind::External { bridge } if !self.has_bridge(bridge) => {
                let word = shell::word(bridge);
                Err(Error::new(Reason::NotFound, format!("this host has no bridge called `{bridge}`"))
                    .hint(format!("sudo ip link add {word} type bridge && sudo ip link set {word} up")))
            }
            _ => Ok(()),
        }
    }

    /// The bridges of this host, by name.
    pub fn bridges(&self) -> Vec<Bridge> {
        let here = std::fs::read_dir(INTERFACES).into_iter().flatten().flatten();
        let here = here.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Those that the engine told of at the start too: a simulated host has bridges that no operating system shows.
        let told = self.facts.bridges.iter().filter(|name| !is_bridge(name)).cloned();
        let mut names: Vec<String> = here.filter(|name| is_bridge(name)).chain(told).collect();
        names.sort();
        names.into_iter().map(look_at_bridge).collect()
    }

    /// Whether this host has a bridge of that name.
    fn has_bridge(&self, name: &str) -> bool {
        is_bridge(name) || self.facts.bridges.iter().any(|bridge| bridge == name)
    }

    /// Changes a switch. When its name changes, so does what machines and planned machines call it that are plugged in:
    /// all of it or nothing.
    ///
    /// # Errors
    /// There is none, the name is taken or unusable, or there is no such bridge. A guest runs on a switch that is to
    /// connect to something else, a job works on a machine that must follow, or more than [`MAX_RENAMED`] must.
    pub fn edit_switch(&self, name: &str, edit: &SwitchEdit) -> Result<SwitchRecord> {
        let id = self.switch(name)?.id;
        for _ in 0..MAX_ATTEMPTS {
            if let Some(changed) = self.try_edit_switch(id, edit)? {
                return Ok(changed);
            }
        }
        Err(Error::new(Reason::Busy, "machines are plugged into the switch, and out of it, all the time"))
    }

    /// `None` when others changed who is plugged in meanwhile.
    fn try_edit_switch(&self, id: Uuid, edit: &SwitchEdit) -> Result<Option<SwitchRecord>> {
        let key = switch_key(id);
        let read = || record::get::<SwitchRecord>(&*self.store, &key);
        let gone = || Error::new(Reason::NotFound, format!("no switch has the id {id}"));
        let (before, revision) = read()?.ok_or_else(gone)?;
        let name = edit.name.as_ref().filter(|name| **name != before.name);
        let kind = edit.kind.as_ref().filter(|kind| **kind != before.kind);
        // Locked in one order by everybody who locks several.
        let machines = self.machines_on(&before.name)?;
        let planned = self.planned_on(&before.name)?;
        let cells: Vec<_> = if name.is_some() || kind.is_some() {
            let mut all: Vec<Uuid> = machines.iter().chain(&planned).copied().collect();
            all.sort_unstable();
            all.dedup();
            all.into_iter().map(|id| self.cell(id)).collect()
        } else {
            Vec::new()
        };
        if name.is_some() && cells.len() > MAX_RENAMED {
            return Err(too_many(&before.name, machines.len() + planned.len()));
        }
        let held: Vec<_> = cells.iter().map(|cell| cell.lock()).collect();
        let _names = self.switch_names();
        if machines != self.machines_on(&before.name)?
            || planned != self.planned_on(&before.name)?
            || read()?.is_none_or(|(_, now)| now != revision)
        {
            return Ok(None);
        }
        if kind.is_some() && held.iter().any(|running| !running.power.at_rest()) {
            return Err(self.still_used(&before.name, &machines));
        }
        let mut after = before.clone();
        let mut conditions = vec![Condition::Revision(key.clone(), revision)];
        let mut operations = Vec::new();
        if let Some(kind) = kind {
            self.check_switch_kind(kind)?;
            after.kind = kind.clone();
        }
        if let Some(notes) = &edit.notes {
            check_notes(notes)?;
            after.notes.clone_from(notes);
        }
        if let Some(name) = name {
            self.check_switch_name(name)?;
            if machines.len() + planned.len() > MAX_RENAMED {
                return Err(too_many(&before.name, machines.len() + planned.len()));
            }
            after.name.clone_from(name);
            for id in machines {
                self.refuse_busy(id, "rename the switch of")?;
                let (mut machine, revision) = self.record(id)?;
                follow(&mut machine.settings, &before.name, name);
                conditions.push(Condition::Revision(machine_key(id), revision));
                operations.push(record::put(machine_key(id), &machine)?);
            }
            for id in planned {
                self.refuse_busy(id, "rename the switch of")?;
                let (mut plan, revision) = self.planned_record(id)?;
                follow_planned(&mut plan, &before.name, name);
                conditions.push(Condition::Revision(planned_key(id), revision));
                operations.push(record::put(planned_key(id), &plan)?);
            }
        }
        if after == before {
            return Ok(Some(after));
        }
        operations.push(record::put(key.clone(), &after)?);
        Ok(record::commit(&*self.store, conditions, operations)?.then_some(after))
    }

    /// Why a switch cannot connect to something else now.
    fn still_used(&self, switch: &str, machines: &[Uuid]) -> Error {
        let refusal =
            format!("a guest runs on switch `{switch}`, and is connected to what it connects to now");
        let error = Error::new(Reason::InvalidState, refusal);
        let words: Vec<String> = machines
            .iter()
            .filter_map(|id| self.record(*id).ok())
            .map(|(machine, _)| self.word(&machine))
            .collect();
        error.hint(format!("stop or save what runs of: {}", words.join(", ")))
    }

    /// Lets the switch `name` answer to `source`, a switch name of another host, giving its adapters `vlan`.
    ///
    /// # Errors
    /// There is no such switch, or `source` is mapped elsewhere.
    pub fn map_switch(&self, name: &str, source: &str, vlan: Option<u16>) -> Result<SwitchRecord> {
        let _names = self.switch_names();
        let mut switch = self.switch(name)?;
        if let Some(other) =
            self.switches()?.iter().find(|s| s.id != switch.id && s.answers_to(source).is_some())
        {
            return Err(Error::new(
                Reason::AlreadyExists,
                format!("`{source}` is mapped to switch `{}` already", other.name),
            ));
        }
        switch.sources.retain(|s| !s.name.eq_ignore_ascii_case(source));
        switch.sources.push(SourceName { name: source.to_owned(), vlan });
        let put = record::put(switch_key(switch.id), &switch)?;
        record::commit(&*self.store, vec![], vec![put])?;
        Ok(switch)
    }

    /// Deletes a switch that no machine uses. A planned machine that is plugged into it finds out when it is validated.
    ///
    /// # Errors
    /// There is none, a machine's adapter is plugged into it, or one that is being realized.
    pub fn delete_switch(&self, name: &str) -> Result<()> {
        let _names = self.switch_names();
        let switch = self.switch(name)?;
        if let Some(id) = self.machines_on(&switch.name)?.first() {
            let (machine, _) = self.record(*id)?;
            return Err(Error::new(
                Reason::InUse,
                format!("machine `{}` is plugged into switch `{}`", machine.settings.name, switch.name),
            )
            .hint(format!(
                "plug it elsewhere with `slipway machine set {} --switch NAME`",
                self.word(&machine)
            )));
        }
        for id in self.planned_on(&switch.name)? {
            self.refuse_busy(id, "delete the switch of")?;
        }
        record::commit(&*self.store, vec![], vec![Operation::Delete(switch_key(switch.id))])?;
        Ok(())
    }
}

/// Where the operating system shows network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Whether this host has a bridge of that name now.
fn is_bridge(name: &str) -> bool {
    !name.contains('/') && Path::new(INTERFACES).join(name).join("bridge").is_dir()
}

fn look_at_bridge(name: String) -> Bridge {
    let told = |what: &str| {
        let text = std::fs::read_to_string(Path::new(INTERFACES).join(&name).join(what)).ok()?;
        Some(text.trim().to_owned()).filter(|_| is_bridge(&name))
    };
    Bridge {
        mac: told("address").and_then(|text| text.parse().ok()),
        mtu: told("mtu").and_then(|text| text.parse().ok()),
        up: told("operstate").and_then(|text| match text.as_str() {
            "up" => Some(true),
            "down" => Some(false),
            _ => None,
        }),
        name,
    }
}

fn switch_key(id: Uuid) -> String {
    format!("{SWITCHES}{id}")
}

fn check_notes(notes: &str) -> Result<()> {
    if notes.len() <= MAX_NOTES {
        return Ok(());
    }
    let message = format!("notes of a switch have at most {MAX_NOTES} bytes, these {}", notes.len());
    Err(Error::new(Reason::InvalidArgument, message))
}

fn too_many(switch: &str, count: usize) -> Error {
    let message = format!(
        "{count} machines and planned machines are plugged into switch `{switch}`: at most {MAX_RENAMED} follow another name at \
         once"
    );
    Error::new(Reason::InUse, message).hint("make a switch of the new name, and plug them into it one by one")
}

/// Lets adapters on `switch` follow it to its new name.
fn follow(settings: &mut Settings, switch: &str, name: &str) {
    for adapter in settings.adapters.iter_mut().filter(|a| a.switch.as_deref() == Some(switch)) {
        adapter.switch = Some(name.to_owned());
    }
}

/// The same of a plan, which is made anew out of its request at every look: that must lead there too.
fn follow_planned(plan: &mut PlannedRecord, switch: &str, name: &str) {
    let named = plan.request.parts.adapters.iter_mut().filter_map(|change| match &mut change.becomes {
        Plug::Into(target) => Some(target),
        Plug::Out | Plug::Gone => None,
    });
    for target in plan.request.switches.values_mut().chain(named).filter(|target| target.target == switch) {
        name.clone_into(&mut target.target);
    }
    for adapter in plan.settings.adapters.iter().filter(|a| a.switch.as_deref() == Some(switch)) {
        if let Some(source) = adapter.source_switch.clone()
            && !plan.request.switches.contains_key("*")
        {
            let target = SwitchTarget { target: name.to_owned(), vlan: adapter.vlan };
            plan.request.switches.entry(source).or_insert(target);
        }
    }
    follow(&mut plan.settings, switch, name);
}

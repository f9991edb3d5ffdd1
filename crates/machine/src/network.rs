//! Switches of the host: list, create, map, delete.

use store::Condition;
use transfer::shell;
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::record::{self, MACHINES, MachineRecord, SWITCHES};
use crate::switch::{SourceName, SwitchKind, SwitchRecord};

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

    /// Creates a switch.
    ///
    /// # Errors
    /// The name is taken or unusable, or the bridge does not exist.
    pub fn create_switch(&self, name: &str, kind: SwitchKind) -> Result<SwitchRecord> {
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
        if let SwitchKind::External { bridge } = &kind
            && !is_bridge(bridge)
        {
            let word = shell::word(bridge);
            return Err(Error::new(Reason::NotFound, format!("this host has no bridge called `{bridge}`"))
                .hint(format!("sudo ip link add {word} type bridge && sudo ip link set {word} up")));
        }
        let record = SwitchRecord::new(self.fresh_id(), name, kind);
        let key = format!("{SWITCHES}{}", record.id);
        record::commit(&*self.store, vec![Condition::Absent(key.clone())], vec![record::put(key, &record)?])?;
        Ok(record)
    }

    /// Lets the switch `name` answer to `source`, a switch name of another host, giving its adapters `vlan`.
    ///
    /// # Errors
    /// There is no such switch, or `source` is mapped elsewhere.
    pub fn map_switch(&self, name: &str, source: &str, vlan: Option<u16>) -> Result<SwitchRecord> {
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
        let put = record::put(format!("{SWITCHES}{}", switch.id), &switch)?;
        record::commit(&*self.store, vec![], vec![put])?;
        Ok(switch)
    }

    /// Deletes a switch that no machine uses.
    ///
    /// # Errors
    /// There is none, or a machine's adapter is plugged into it.
    pub fn delete_switch(&self, name: &str) -> Result<()> {
        let switch = self.switch(name)?;
        let user = record::list::<MachineRecord>(&*self.store, MACHINES)?
            .into_iter()
            .find(|m| m.settings.adapters.iter().any(|a| a.switch.as_deref() == Some(&switch.name)));
        if let Some(machine) = user {
            return Err(Error::new(
                Reason::InUse,
                format!("machine `{}` is plugged into switch `{}`", machine.settings.name, switch.name),
            )
            .hint(format!(
                "plug it elsewhere with `slipway machine set {} --switch NAME`",
                self.word(&machine)
            )));
        }
        let key = format!("{SWITCHES}{}", switch.id);
        record::commit(&*self.store, vec![], vec![store::Operation::Delete(key)])?;
        Ok(())
    }
}

/// Whether this host has a bridge of that name now.
pub(crate) fn is_bridge(name: &str) -> bool {
    !name.contains('/') && std::path::Path::new("/sys/class/net").join(name).join("bridge").is_dir()
}

//! `slipway switch`: what network adapters are plugged into.

use clap::Subcommand;
use rest::wire::{CreateSwitch, MapSwitch, Switch};

use crate::failure::Result;
use crate::printer::Printer;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum SwitchCommand {
    /// Switches of this host
    #[command(visible_alias = "ls")]
    List,
    /// One switch
    Show {
        /// Name or id
        switch: String,
    },
    /// Make a switch
    Create {
        /// Its name
        name: String,
        /// What it connects to: a bridge of the host, the host's network by translation, or only machines
        #[arg(long, value_parser = ["external", "nat", "private"])]
        kind: Option<String>,
        /// The host's bridge, of an external switch [default: the switch's name]
        #[arg(long, value_name = "INTERFACE")]
        bridge: Option<String>,
    },
    /// Let a switch answer to the name of a switch on another host, for imports
    Map {
        /// Name or id
        switch: String,
        /// The name there
        source: String,
        /// VLAN of adapters that come by that name
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4094))]
        vlan: Option<u16>,
    },
    /// Delete a switch that no machine uses
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        switch: String,
    },
}

/// `switch …`.
pub(crate) async fn switch(s: &Session, command: SwitchCommand) -> Result {
    match command {
        SwitchCommand::List => list(s.printer, &s.client.switches().await?),
        SwitchCommand::Show { switch } => show(s.printer, &s.client.switch(&switch).await?),
        SwitchCommand::Create { name, kind, bridge } => {
            // A bridge says what is meant; without one, only the machines themselves are connected.
            let kind =
                kind.unwrap_or_else(|| if bridge.is_some() { "external" } else { "private" }.to_owned());
            show(s.printer, &s.client.create_switch(&CreateSwitch { name, kind, bridge }).await?)
        }
        SwitchCommand::Map { switch, source, vlan } => {
            show(s.printer, &s.client.map_switch(&switch, &MapSwitch { source, vlan }).await?)
        }
        SwitchCommand::Delete { switch } => {
            s.client.delete_switch(&switch).await?;
            s.printer.talk(format!("deleted switch `{switch}`"));
            Ok(())
        }
    }
}

fn sources(switch: &Switch) -> String {
    let one = |m: &MapSwitch| match m.vlan {
        Some(vlan) => format!("{}:{vlan}", m.source),
        None => m.source.clone(),
    };
    switch.sources.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn list(printer: Printer, switches: &[Switch]) -> Result {
    if printer.json {
        return printer.json(&switches);
    }
    let rows: Vec<Vec<String>> = switches
        .iter()
        .map(|w| vec![w.name.clone(), w.kind.clone(), w.bridge.clone().unwrap_or_default(), sources(w)])
        .collect();
    printer.table(&["NAME", "KIND", "BRIDGE", "ANSWERS TO"], &rows)
}

fn show(printer: Printer, w: &Switch) -> Result {
    if printer.json {
        return printer.json(w);
    }
    let bridge = w.bridge.as_ref().map_or_else(String::new, |b| format!(", bridge {b}"));
    printer.line(format!("{}  ({})  {}{bridge}", w.name, w.id, w.kind))?;
    for line in w.notes.lines() {
        printer.line(format!("  {line}"))?;
    }
    if w.sources.is_empty() { Ok(()) } else { printer.line(format!("  answers to {}", sources(w))) }
}

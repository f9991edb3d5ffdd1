//! Machines for people.

use rest::wire::Machine;

use crate::failure::Result;
use crate::printer::{Printer, bytes};

pub(super) fn list(printer: Printer, machines: &[Machine]) -> Result {
    if printer.json {
        return printer.json(&machines);
    }
    let rows: Vec<Vec<String>> = machines
        .iter()
        .map(|m| {
            vec![
                m.name.clone(),
                m.id.to_string(),
                m.state.clone(),
                m.generation.to_string(),
                m.processors.to_string(),
                format!("{} MiB", m.memory_mib),
                bytes(m.disks.iter().map(|d| d.virtual_size).sum()),
            ]
        })
        .collect();
    printer.table(&["NAME", "ID", "STATE", "GEN", "CPUS", "MEMORY", "DISKS"], &rows)
}

pub(super) fn show(printer: Printer, m: &Machine) -> Result {
    if printer.json {
        return printer.json(m);
    }
    let on = |b: bool| if b { "on" } else { "off" };
    let accelerator = m.accelerator.as_ref().map_or_else(String::new, |a| format!(" ({a})"));
    printer.line(format!("{}  ({})  {}{accelerator}", m.name, m.id, m.state))?;
    if let Some(note) = &m.note {
        printer.line(format!("  note     {note}"))?;
    }
    if let Some(saved) = &m.saved {
        printer.line(format!(
            "  saved    {}  ({}, {})",
            saved.when,
            bytes(saved.bytes),
            saved.machine_version
        ))?;
    }
    if m.reboots > 0 {
        printer.line(format!("  reboots  {} since it was started", m.reboots))?;
    }
    if let Some(job) = m.job {
        printer.line(format!("  job      {job}"))?;
    }
    printer.line(format!(
        "  generation {}, {} processor(s), {} MiB memory, {} hardware",
        m.generation, m.processors, m.memory_mib, m.hardware
    ))?;
    if m.generation == 2 {
        printer.line(format!("  UEFI, Secure Boot {}, TPM {}", on(m.secure_boot), on(m.tpm)))?;
    }
    let delay = match m.automatic.start_delay_seconds {
        0 => String::new(),
        s => format!(" after {s} s"),
    };
    printer.line(format!("  host     starts: {}{delay}; stops: {}", m.automatic.start, m.automatic.stop))?;
    for d in &m.disks {
        let files = d.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" over ");
        printer.line(format!("  disk     {}  {}  {files}", d.name, bytes(d.virtual_size)))?;
        printer.line(format!("           {}", d.id))?;
    }
    for (n, d) in m.drives.iter().enumerate() {
        let image = d.image.as_ref().map_or_else(|| "empty".to_owned(), |i| i.display().to_string());
        printer.line(format!("  dvd {n}    {image}"))?;
    }
    for (n, a) in m.adapters.iter().enumerate() {
        let switch = match (&a.switch, &a.source_switch) {
            (Some(switch), _) => format!("switch `{switch}`"),
            (None, Some(was)) => format!("not plugged in (was `{was}`)"),
            (None, None) => "not plugged in".to_owned(),
        };
        let vlan = a.vlan.map_or_else(String::new, |v| format!(", VLAN {v}"));
        let fixed = if a.mac_static { " (fixed)" } else { "" };
        printer.line(format!("  nic {n}    {}  {}{fixed}, {switch}{vlan}", a.name, a.mac))?;
    }
    if let Some(source) = &m.source {
        printer.line(format!("  from     {}", source.display()))?;
    }
    printer.line(format!("  home     {}", m.home.display()))?;
    printer.line(format!("  created  {}", m.created))?;
    for note in m.notes.lines() {
        printer.line(format!("  | {note}"))?;
    }
    Ok(())
}

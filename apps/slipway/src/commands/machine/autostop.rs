//! `slipway machine autostop`: what the host does to its machines before it stops.

use clap::Args;
use rest::wire::Autostop;

use crate::failure::{Code, Failure, Result};
use crate::session::Session;

/// How long it may take.
#[derive(Debug, Args)]
pub(crate) struct AutostopArgs {
    /// Seconds that each attempt of each machine may take
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// Stops them and says how; fails when one still runs.
pub(super) async fn autostop(s: &Session, args: AutostopArgs) -> Result {
    let machines = s.client.autostop(&Autostop { timeout_seconds: Some(args.timeout) }).await?;
    if s.printer.json {
        s.printer.json(&machines)?;
    } else {
        let rows: Vec<Vec<String>> = machines
            .iter()
            .map(|m| {
                let result = m.result.as_deref().unwrap_or("still runs").to_owned();
                vec![m.name.clone(), m.id.to_string(), m.action.clone(), result, m.failed.join("; ")]
            })
            .collect();
        s.printer.table(&["NAME", "ID", "ACTION", "RESULT", "TRIED BEFORE"], &rows)?;
    }
    let left: Vec<&str> = machines.iter().filter(|m| m.result.is_none()).map(|m| m.name.as_str()).collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::new("timeout", format!("these machines still run: {}", left.join(", ")))
        .code(Code::Failed)
        .hint("`slipway machine list` shows them; `slipway machine stop MACHINE` ends one at once"))
}

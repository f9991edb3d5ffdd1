//! `slipway doctor`: whether guests can run here, and what to do when not. Needs no daemon.

use engine::Engine;
use rest::wire::Doctor;
use serde::Serialize;

use crate::failure::{Code, Failure, Result};
use crate::session::Session;

/// What `doctor` prints as JSON.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    host: Doctor,
    /// Version of the daemon, if one answers.
    daemon: Option<String>,
    socket: std::path::PathBuf,
}

/// `doctor`.
pub(crate) async fn doctor(s: &Session) -> Result {
    let probed = tokio::task::spawn_blocking(|| engine::QemuEngine::default().probe()).await;
    let probed = probed.map_err(|e| Failure::new("internal", format!("the probe ended: {e}")))?;
    let report = Report {
        host: probed.into(),
        daemon: s.client.version().await.ok().map(|v| v.version),
        socket: s.client.socket().to_owned(),
    };
    if s.printer.json {
        s.printer.json(&report)?;
    } else {
        for c in &report.host.checks {
            s.printer.line(format!("{:<5} {:<12} {}", c.verdict, c.id, c.found))?;
            if let Some(fix) = &c.fix {
                s.printer.line(format!("      fix: {fix}"))?;
            }
        }
        let socket = report.socket.display();
        match &report.daemon {
            Some(version) => s
                .printer
                .line(format!("{:<5} {:<12} version {version} answers at {socket}", "ok", "daemon"))?,
            None => {
                s.printer.line(format!("{:<5} {:<12} none answers at {socket}", "info", "daemon"))?;
                s.printer.line("      fix: slipway serve")?;
            }
        }
        s.printer.line(if report.host.usable {
            "usable: machines can run here"
        } else {
            "NOT usable: machines cannot run here"
        })?;
    }
    if report.host.usable {
        return Ok(());
    }
    let missing: Vec<&str> =
        report.host.checks.iter().filter(|c| c.verdict == "fail").map(|c| c.id.as_str()).collect();
    Err(Failure::new("host-lacks", format!("machines cannot run here: {}", missing.join(", ")))
        .code(Code::Findings))
}

//! `slipway metrics`: the host in numbers, for Prometheus.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Result};
use crate::session::Session;

/// Where the numbers go.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Replace FILE with them, whole: for node_exporter's textfile collector
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `metrics`.
pub(crate) async fn metrics(s: &Session, args: MetricsArgs) -> Result {
    let text = s.client.metrics().await?;
    match &args.output {
        Some(file) => replace(file, &text),
        None => text.lines().try_for_each(|line| s.printer.line(line)),
    }
}

/// Whoever reads `file` meanwhile reads the old numbers or the new ones. Not synced: after a crash they are old anyway.
fn replace(file: &Path, text: &str) -> Result {
    let at = |e: std::io::Error| Failure::at("write", file, &e);
    let dir = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(at)?;
    temporary.write_all(text.as_bytes()).map_err(at)?;
    // The collector is another user.
    temporary.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(at)?;
    temporary.persist(file).map_err(|e| at(e.error))?;
    Ok(())
}

//! What the command line says about itself, for shells and for `man`.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Failure, Result};
use crate::printer::Printer;

/// `completions SHELL`: a script on stdout.
pub(crate) fn completions(printer: Printer, shell: Shell) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "slipway", &mut script);
    printer.line(String::from_utf8_lossy(&script).trim_end())
}

/// `man DIR`: a page for each command.
pub(crate) fn man(printer: Printer, dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|e| Failure::at("make directory", dir, &e))?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(|e| Failure::at("write man pages to", dir, &e))?;
    printer.talk(format!("next: man -l {}", dir.join("slipway.1").display()));
    Ok(())
}

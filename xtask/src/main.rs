//! Project chores that are no part of the product: `cargo xtask tidy|samples|guest|bench|notices`.
//!
//! Plain programs over the standard library, so that they build in seconds on a fresh machine. What they need from
//! outside (apt, pip, qemu-img) they start; what installs those is `tools/install.sh`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who started it")]

mod bench;
mod guest;
mod notices;
mod outside;
mod samples;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy                 house rules: arrows between crates, module docs, file sizes, absences, links
  samples [NAME…]      fetch real Hyper-V files from public packages into .slipway/samples, checked by hash
  guest                build the tiny test guests into .slipway/guest, unless they are there already
  bench [PART…]        export speed, and a simulator with many machines; writes docs/benchmarks/ (--help says more)
  notices              print the libraries in the binary that others wrote, and their licences' texts
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "tidy" => tidy::check(),
        "samples" => samples::fetch(rest),
        "guest" => guest::build(),
        "bench" => bench::bench(rest),
        "notices" => notices::print(),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(format!("no chore '{other}'\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

//! Makes the hostile packages as files, to throw them at any tool:
//!
//! ```text
//! cargo run -p slipway-tests --example hostile -- DIR [NAME…]
//! ```
//!
//! Each becomes `DIR/NAME/package`, with what it tries to reach in `DIR/NAME/outside`. Some claim terabytes; none takes more than
//! some MiB where files can have holes.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to the person who started it"
)]

use harness::corpus;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((dir, names)) = arguments.split_first() else {
        eprintln!("usage: hostile DIR [NAME…]");
        return ExitCode::from(2);
    };
    for case in corpus::all().iter().filter(|case| names.is_empty() || names.contains(&case.name)) {
        let top = Path::new(dir).join(&case.name);
        if let Err(e) = std::fs::create_dir_all(&top) {
            eprintln!("{}: {e}", top.display());
            return ExitCode::FAILURE;
        }
        case.bundle.unpack(&top);
        println!("{}  {}", top.join("package").display(), case.bundle.about);
    }
    ExitCode::SUCCESS
}

//! Builds the tiny test guests, unless those that are there came from the same recipe.
//!
//! The recipe is `tools/make_guest.sh`; this only keeps its result. A new kernel in Debian does not rebuild: delete
//! `.slipway/guest` for that.

use crate::outside::{Outcome, at, folder, root, run, sha256_of};
use std::fs;
use std::process::Command;

pub(crate) fn build() -> Outcome {
    let recipe = root().join("tools/make_guest.sh");
    let out = folder("SLIPWAY_GUEST", "guest");
    let stamp = out.join(".recipe");
    let want = sha256_of(&recipe)?;
    if fs::read_to_string(&stamp).is_ok_and(|have| have == want) {
        println!("guest: up to date in {}", out.display());
        return Ok(());
    }
    println!("guest: building in {}", out.display());
    // Gone first: a half-built guest must not pass for a whole one.
    let _ = fs::remove_file(&stamp);
    run(Command::new(&recipe).arg(&out))?;
    fs::write(&stamp, want).map_err(at(&stamp))
}

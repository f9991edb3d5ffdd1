//! Project chores: `cargo xtask tidy|samples|bench`.

fn main() {}
